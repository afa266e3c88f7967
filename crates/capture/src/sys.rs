//! Every `unsafe` block of Offpath: calls into the C library that no safe crate in use offers.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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
