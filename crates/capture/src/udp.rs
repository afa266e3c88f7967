//! Frames that a mirror sends in UDP datagrams: VXLAN and GENEVE, to a socket of our own.
//!
//! No capture privilege is needed, and no filter: what arrives at the port is the mirror. A frame starts at the tunnel's
//! header ([`LinkType::Vxlan`], [`LinkType::Geneve`]); the datagram around it is the kernel's business, fragments too.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use offpath_types::{Frame, LinkType, Timestamp};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::{self, Datagrams, Ready};
use crate::{CaptureCounters, PacketSource, Polled, SourceError, clock};

/// The kernel's count of drops is fetched after so many frames (one system call), and when idle.
const DROPS_EVERY_FRAMES: u32 = 4096;

/// How to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// Address and port.
    pub listen: SocketAddr,
    /// What the datagrams hold: [`LinkType::Vxlan`] or [`LinkType::Geneve`].
    pub link: LinkType,
    /// Several sockets will listen here, and the kernel spreads datagrams over them.
    pub shared: bool,
    /// Bytes that the kernel may hold for us. Without `CAP_NET_ADMIN` it grants at most `net.core.rmem_max`.
    pub receive_buffer_bytes: u32,
    /// The longest wait for a datagram before [`Polled::Idle`].
    pub poll_ms: u16,
}

/// Frames from a UDP socket.
pub struct UdpSource {
    socket: UdpSocket,
    name: String,
    link: LinkType,
    poll_ms: u16,
    batch: Datagrams,
    /// Next datagram of the batch.
    next: usize,
    dry: bool,
    newest: Timestamp,
    drops_in: u32,
    drops_seen: u32,
    counters: CaptureCounters,
}

impl UdpSource {
    /// Binds the socket.
    ///
    /// # Errors
    /// The address is in use, is not ours, or the port needs a privilege.
    pub fn open(options: &UdpOptions) -> Result<Self, SourceError> {
        let name = options.listen.to_string();
        let failed = |source| SourceError::Listen { address: name.clone(), source };
        let socket = Socket::new(Domain::for_address(options.listen), Type::DGRAM, Some(Protocol::UDP))
            .map_err(failed)?;
        if options.shared {
            socket.set_reuse_port(true).map_err(failed)?;
        }
        // What is not granted is told by `buffer_bytes`.
        let bytes = options.receive_buffer_bytes.min(1 << 30);
        if sys::force_receive_buffer(socket.as_fd(), bytes).is_err() {
            socket.set_recv_buffer_size(bytes as usize).map_err(failed)?;
        }
        sys::stamp_datagrams(socket.as_fd()).map_err(failed)?;
        socket.bind(&options.listen.into()).map_err(failed)?;
        let drops_seen = sys::socket_drops(socket.as_fd()).unwrap_or(0);
        Ok(Self {
            socket: socket.into(),
            name,
            link: options.link,
            poll_ms: options.poll_ms.max(1),
            batch: Datagrams::new(),
            next: 0,
            dry: false,
            newest: Timestamp::ZERO,
            drops_in: DROPS_EVERY_FRAMES,
            drops_seen,
            counters: CaptureCounters::default(),
        })
    }

    /// Returns the address that is listened on, with the port that port 0 became.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Returns how many bytes the kernel holds for us at most. It counts its bookkeeping: payload gets about half.
    pub fn buffer_bytes(&self) -> usize {
        // Linux doubles what it is asked for and returns the double (socket(7)).
        socket2::SockRef::from(&self.socket).recv_buffer_size().unwrap_or(0) / 2
    }

    fn failed(&self, e: &std::io::Error) -> SourceError {
        SourceError::Live { interface: self.name.clone(), message: e.to_string() }
    }
}

impl PacketSource for UdpSource {
    fn next_frame(&mut self) -> Result<Polled<'_>, SourceError> {
        if self.next >= self.batch.len() {
            self.next = 0;
            if self.dry {
                match sys::poll_readable(self.socket.as_fd(), i32::from(self.poll_ms)) {
                    Ok(Ready::Readable | Ready::Error) => self.dry = false,
                    Ok(Ready::TimedOut) => {
                        self.batch.clear();
                        self.refresh();
                        self.newest = self.newest.max(clock::settled());
                        return Ok(Polled::Idle(self.newest));
                    }
                    Err(e) => return Err(self.failed(&e)),
                }
            }
            if let Err(e) = self.batch.receive(self.socket.as_fd()) {
                return Err(self.failed(&e));
            }
            if self.batch.len() == 0 {
                self.dry = true;
                self.newest = self.newest.max(clock::settled());
                return Ok(Polled::Idle(self.newest));
            }
        }
        if self.drops_in == 0 {
            self.refresh();
        }
        self.drops_in -= 1;
        let (bytes, stamp) = self.batch.get(self.next);
        self.next += 1;
        let time = stamp.unwrap_or_else(clock::now);
        let c = &mut self.counters;
        c.time_backwards_total += u64::from(time < self.newest);
        self.newest = self.newest.max(time);
        c.frames_total += 1;
        c.bytes_total += bytes.len() as u64;
        c.kernel_received += 1;
        Ok(Polled::Frame(Frame { time: self.newest, link: self.link, wire_len: bytes.len() as u32, bytes }))
    }

    fn counters(&self) -> CaptureCounters {
        self.counters
    }

    /// Fetches the kernel's count of datagrams that found the buffer full.
    fn refresh(&mut self) {
        self.drops_in = DROPS_EVERY_FRAMES;
        let Ok(drops) = sys::socket_drops(self.socket.as_fd()) else { return };
        let new = u64::from(drops.wrapping_sub(self.drops_seen));
        self.drops_seen = drops;
        self.counters.kernel_dropped += new;
        self.counters.kernel_received += new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(link: LinkType, receive_buffer_bytes: u32) -> UdpOptions {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        UdpOptions { listen, link, shared: false, receive_buffer_bytes, poll_ms: 5 }
    }

    /// Reads until the source has been idle twice.
    fn drain(source: &mut UdpSource) -> Vec<(Timestamp, Vec<u8>)> {
        let (mut got, mut idle) = (Vec::new(), 0);
        while idle < 2 {
            match source.next_frame().unwrap() {
                Polled::Frame(f) => {
                    assert_eq!(f.wire_len as usize, f.bytes.len());
                    got.push((f.time, f.bytes.to_vec()));
                }
                Polled::Idle(_) => idle += 1,
                Polled::End => panic!("a listener never ends"),
            }
        }
        got
    }

    #[test]
    fn datagrams_come_out_in_order_with_the_kernels_time() {
        let mut source = UdpSource::open(&options(LinkType::Vxlan, 4 << 20)).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        // The kernel begins to stamp a moment after the first socket asks for it.
        let stamped = (0..500).any(|_| {
            sender.send_to(b"?", source.local_addr().unwrap()).unwrap();
            let after = clock::now();
            std::thread::sleep(std::time::Duration::from_millis(10));
            drain(&mut source)[0].0 <= after
        });
        assert!(stamped, "stamped on arrival");
        let warm = source.counters().frames_total;
        let before = clock::now();
        for n in 0..200u32 {
            let mut payload = n.to_be_bytes().to_vec();
            payload.resize(if n == 7 { 60_000 } else { 10 + n as usize }, 1);
            sender.send_to(&payload, source.local_addr().unwrap()).unwrap();
        }
        let after = clock::now();
        let got = drain(&mut source);
        let numbers: Vec<_> =
            got.iter().map(|(_, b)| u32::from_be_bytes(*b.first_chunk().unwrap())).collect();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>());
        assert_eq!(got[7].1.len(), 60_000);
        assert!(got.is_sorted_by_key(|(time, _)| *time));
        assert!(got[0].0 >= before && got[199].0 <= after, "stamped on arrival");
        let c = source.counters();
        assert_eq!((c.frames_total, c.kernel_received, c.kernel_dropped), (warm + 200, warm + 200, 0));
    }

    #[test]
    fn what_finds_the_buffer_full_is_counted() {
        let mut source = UdpSource::open(&options(LinkType::Geneve, 4096)).unwrap();
        assert!(source.buffer_bytes() < 64 * 1024, "{}", source.buffer_bytes());
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sent = 500;
        for _ in 0..sent {
            sender.send_to(&[0; 1000], source.local_addr().unwrap()).unwrap();
        }
        let got = drain(&mut source).len() as u64;
        let c = source.counters();
        assert!(c.kernel_dropped > 0, "{c:?}");
        assert_eq!((c.frames_total, c.kernel_received), (got, sent));
        assert_eq!(c.kernel_received, c.frames_total + c.kernel_dropped);
    }

    #[test]
    fn a_port_in_use_is_an_error_that_names_it_and_sharing_is_asked_for() {
        let first = UdpSource::open(&options(LinkType::Vxlan, 65_536)).unwrap();
        let listen = first.local_addr().unwrap();
        let again = UdpOptions { listen, ..options(LinkType::Vxlan, 65_536) };
        let e = UdpSource::open(&again).err().unwrap().to_string();
        assert!(e.contains(&format!("cannot listen on {listen}")), "{e}");
        drop(first);
        let again = UdpOptions { shared: true, ..again };
        let pair = [UdpSource::open(&again).unwrap(), UdpSource::open(&again).unwrap()];
        assert_eq!(pair[0].local_addr().unwrap(), pair[1].local_addr().unwrap());
    }
}
