//! Every `unsafe` block of Offpath: calls into the C library that no safe crate in use offers.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use offpath_types::Timestamp;

/// What [`poll_readable`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    Readable,
    /// Nothing within the time, or a signal came.
    TimedOut,
    /// An error condition without data.
    Error,
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until `fd` has something to read, at most `timeout_ms`.
pub(crate) fn poll_readable(fd: BorrowedFd<'_>, timeout_ms: i32) -> io::Result<Ready> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one live, initialised pollfd and the count is 1; `fd` is open while borrowed.
    let n = unsafe { libc::poll(&raw mut entry, 1, timeout_ms) };
    match n {
        0 => Ok(Ready::TimedOut),
        1.. if entry.revents & libc::POLLIN != 0 => Ok(Ready::Readable),
        1.. => Ok(Ready::Error),
        _ => {
            let e = io::Error::last_os_error();
            if e.kind() == io::ErrorKind::Interrupted { Ok(Ready::TimedOut) } else { Err(e) }
        }
    }
}

/// Puts a packet socket into a fanout group that spreads flows by a symmetric hash and puts IPv4 fragments
/// together (packet(7), `PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_DEFRAG`).
pub(crate) fn join_fanout(fd: BorrowedFd<'_>, group: u16) -> io::Result<()> {
    let value: u32 = u32::from(group) | (libc::PACKET_FANOUT_HASH | libc::PACKET_FANOUT_FLAG_DEFRAG) << 16;
    // SAFETY: the kernel reads `size_of::<u32>()` bytes from a live u32; `fd` is open while borrowed.
    checked(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_FANOUT,
            (&raw const value).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    })
}

/// Lets the kernel hold up to `bytes` for a socket, past `net.core.rmem_max` (needs `CAP_NET_ADMIN`).
pub(crate) fn force_receive_buffer(fd: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set_integer(fd, libc::SO_RCVBUFFORCE, value)
}

/// Has the kernel note when each datagram arrived.
pub(crate) fn stamp_datagrams(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_integer(fd, libc::SO_TIMESTAMPNS, 1)
}

fn set_integer(fd: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<c_int>()` bytes from a live c_int; `fd` is open while borrowed.
    checked(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
}

/// Returns how many datagrams a socket has dropped, mostly since its buffer was full; wraps.
pub(crate) fn socket_drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    /// `SO_MEMINFO` and the position of `SK_MEMINFO_DROPS` (asm-generic/socket.h, linux/sock_diag.h; since 4.12).
    const SO_MEMINFO: libc::c_int = 55;
    const DROPS: usize = 8;
    let mut words = [0u32; 16];
    let mut len = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of the live array; `fd` is open while borrowed.
    checked(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    Ok(words[DROPS])
}

/// Datagrams of one batch, in memory that is allocated once.
// Invariant: `used <= COUNT`; datagram `i` is the first `lens[i] <= SLOT` bytes of slot `i`.
pub(crate) struct Datagrams {
    bytes: Vec<u8>,
    lens: [u32; Self::COUNT],
    times: [Option<Timestamp>; Self::COUNT],
    used: usize,
}

impl Datagrams {
    /// Datagrams per system call.
    const COUNT: usize = 32;
    /// The longest UDP payload is 65507 bytes.
    const SLOT: usize = 65_536;

    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; Self::COUNT * Self::SLOT],
            lens: [0; Self::COUNT],
            times: [None; Self::COUNT],
            used: 0,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.used
    }

    pub(crate) const fn clear(&mut self) {
        self.used = 0;
    }

    /// Returns datagram `index`, and when it arrived; an empty one past the end.
    pub(crate) fn get(&self, index: usize) -> (&[u8], Option<Timestamp>) {
        let at = index * Self::SLOT;
        let len = self.lens.get(index).map_or(0, |n| *n as usize);
        (self.bytes.get(at..at + len).unwrap_or_default(), self.times.get(index).copied().flatten())
    }

    /// Replaces the batch with what waits in the socket, without waiting for more (recvmmsg(2)).
    pub(crate) fn receive(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        /// Room for one timestamp with its header, aligned as `cmsghdr` wants it.
        #[derive(Clone, Copy)]
        #[repr(align(8))]
        struct Control([u8; 64]);

        self.used = 0;
        let mut controls = [Control([0; 64]); Self::COUNT];
        let mut pieces: [libc::iovec; Self::COUNT] =
            std::array::from_fn(|_| libc::iovec { iov_base: std::ptr::null_mut(), iov_len: Self::SLOT });
        // SAFETY: all bytes zero is a valid `mmsghdr` (integers and null pointers).
        let mut headers: [libc::mmsghdr; Self::COUNT] = unsafe { std::mem::zeroed() };
        for (slot, piece) in self.bytes.chunks_exact_mut(Self::SLOT).zip(&mut pieces) {
            piece.iov_base = slot.as_mut_ptr().cast();
        }
        for ((header, piece), control) in headers.iter_mut().zip(&mut pieces).zip(&mut controls) {
            header.msg_hdr.msg_iov = piece;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = control.0.len();
        }
        // SAFETY: COUNT headers are live, each with one live iovec over a slot of SLOT bytes of its own and a control
        // buffer of the length given; all outlive the call, and nobody else refers to them meanwhile. `fd` is open
        // while borrowed. No timeout.
        let got = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                headers.as_mut_ptr(),
                Self::COUNT as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(got) = usize::try_from(got) else {
            let e = io::Error::last_os_error();
            return match e.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
                // An ICMP error for something that was never sent from here.
                io::ErrorKind::ConnectionRefused => Ok(()),
                _ => Err(e),
            };
        };
        self.used = got.min(Self::COUNT);
        for (i, header) in headers.iter().take(self.used).enumerate() {
            self.lens[i] = header.msg_len.min(Self::SLOT as u32);
            self.times[i] = stamp_of(&header.msg_hdr);
        }
        Ok(())
    }
}

/// Returns the time that the kernel put into the control messages of `header`.
fn stamp_of(header: &libc::msghdr) -> Option<Timestamp> {
    // SAFETY: the kernel filled in the control buffer of a header that is live with it, and set its length; the
    // macro looks no further than that.
    let first = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: null, or a whole control message header within the buffer (CMSG_FIRSTHDR checks its length).
    let message = unsafe { first.as_ref() }?;
    if message.cmsg_level != libc::SOL_SOCKET || message.cmsg_type != libc::SCM_TIMESTAMPNS {
        return None;
    }
    // SAFETY: a message of this type holds a `timespec` (socket(7)), perhaps not aligned.
    let time = unsafe { std::ptr::read_unaligned(libc::CMSG_DATA(first).cast::<libc::timespec>()) };
    Some(Timestamp::from_parts(u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_nsec).ok()?))
}

/// A user's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Looks up a user by name; `None` where there is none.
pub(crate) fn user_by_name(name: &str) -> io::Result<Option<User>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    // Big enough for any entry by far; an entry that does not fit is an error (ERANGE).
    let mut text = vec![0 as libc::c_char; 64 * 1024];
    let mut found = std::ptr::null_mut();
    // SAFETY: all bytes zero is a valid `passwd` (integers and null pointers).
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is a C string, `entry` and `found` are live, and the length given is that of `text`.
    // Only the integers of `entry` are read afterwards, so nothing points into `text` once it is gone.
    let code = unsafe {
        libc::getpwnam_r(name.as_ptr(), &raw mut entry, text.as_mut_ptr(), text.len(), &raw mut found)
    };
    if found.is_null() {
        return match code {
            0 | libc::ENOENT | libc::ESRCH => Ok(None),
            code => Err(io::Error::from_raw_os_error(code)),
        };
    }
    Ok(Some(User { uid: entry.pw_uid, gid: entry.pw_gid }))
}

/// Returns the real, effective and saved user of the process.
pub(crate) fn user_ids() -> io::Result<[u32; 3]> {
    let [mut a, mut b, mut c] = [0; 3];
    // SAFETY: three pointers to live integers.
    checked(unsafe { libc::getresuid(&raw mut a, &raw mut b, &raw mut c) })?;
    Ok([a, b, c])
}

/// Returns the real, effective and saved group of the process.
pub(crate) fn group_ids() -> io::Result<[u32; 3]> {
    let [mut a, mut b, mut c] = [0; 3];
    // SAFETY: three pointers to live integers.
    checked(unsafe { libc::getresgid(&raw mut a, &raw mut b, &raw mut c) })?;
    Ok([a, b, c])
}

/// Makes `gid` the only supplementary group.
pub(crate) fn set_groups(gid: u32) -> io::Result<()> {
    // SAFETY: one live group id and the count 1.
    checked(unsafe { libc::setgroups(1, &raw const gid) })
}

/// Sets all three group ids, of all threads (glibc does the broadcast).
pub(crate) fn set_group(gid: u32) -> io::Result<()> {
    // SAFETY: plain integers; touches no memory of ours.
    checked(unsafe { libc::setresgid(gid, gid, gid) })
}

/// Sets all three user ids, of all threads.
pub(crate) fn set_user(uid: u32) -> io::Result<()> {
    // SAFETY: plain integers; touches no memory of ours.
    checked(unsafe { libc::setresuid(uid, uid, uid) })
}

/// Forbids this thread and what it starts from ever gaining privileges by `execve` (prctl(2)).
pub(crate) fn set_no_new_privs() -> io::Result<()> {
    // SAFETY: plain integers; touches no memory of ours.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as libc::c_ulong, 0, 0, 0) })
}

/// Takes `capability` out of this thread's bounding set; `false` where the kernel knows no such capability.
pub(crate) fn drop_from_bounding_set(capability: u32) -> io::Result<bool> {
    // SAFETY: plain integers; touches no memory of ours.
    match checked(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) }) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Clears this thread's ambient capabilities.
pub(crate) fn clear_ambient() -> io::Result<()> {
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
    // SAFETY: plain integers; touches no memory of ours.
    checked(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0) })
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3` (linux/capability.h): two words per set.
const CAP_VERSION_3: u32 = 0x2008_0522;

/// Empties this thread's effective, permitted and inheritable capabilities.
pub(crate) fn clear_capabilities() -> io::Result<()> {
    let header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let data = [CapData::default(); 2];
    // SAFETY: version 3 makes the kernel read one header and two data structs (capset(2)); both are live,
    // and laid out as in linux/capability.h.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn poll_tells_readable_from_quiet_from_broken() {
        let (a, mut b) = UnixStream::pair().unwrap();
        assert_eq!(poll_readable(a.as_fd(), 0).unwrap(), Ready::TimedOut);
        b.write_all(b"x").unwrap();
        assert_eq!(poll_readable(a.as_fd(), 1000).unwrap(), Ready::Readable);
        drop(b);
        assert_eq!(poll_readable(a.as_fd(), 1000).unwrap(), Ready::Readable);
    }

    #[test]
    fn users_are_found_by_name() {
        assert_eq!(user_by_name("root").unwrap(), Some(User { uid: 0, gid: 0 }));
        assert_eq!(user_by_name("no-such-user-here").unwrap(), None);
        assert_eq!(user_by_name("nul\0inside").unwrap(), None);
    }

    #[test]
    fn ids_are_those_that_the_kernel_shows() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let row = |name: &str| -> Vec<u32> {
            let line = status.lines().find(|l| l.starts_with(name)).unwrap();
            line.split_whitespace().skip(1).take(3).map(|n| n.parse().unwrap()).collect()
        };
        assert_eq!(user_ids().unwrap().to_vec(), row("Uid:"));
        assert_eq!(group_ids().unwrap().to_vec(), row("Gid:"));
    }

    #[test]
    fn fanout_of_a_socket_that_is_no_packet_socket_is_refused() {
        let (a, _b) = UnixStream::pair().unwrap();
        assert!(join_fanout(a.as_fd(), 1).is_err());
    }

    #[test]
    fn a_thread_can_give_up_its_capabilities() {
        std::thread::spawn(|| {
            set_no_new_privs().unwrap();
            clear_ambient().unwrap();
            clear_capabilities().unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            for name in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                let line = status.lines().find(|l| l.starts_with(name)).unwrap();
                assert_eq!(line.split_whitespace().nth(1), Some("0000000000000000"), "{name}");
            }
            assert!(status.lines().any(|l| l.split_whitespace().eq(["NoNewPrivs:", "1"])));
            // Without CAP_SETPCAP the bounding set can't be changed.
            assert!(drop_from_bounding_set(0).is_err());
        })
        .join()
        .unwrap();
    }
}
