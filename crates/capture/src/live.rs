//! Frames from a live interface, through libpcap's memory-mapped ring (TPACKET_V3).
//!
//! libpcap's own read timeout does not fire on an idle link (the-tcpdump-group/libpcap issues 550, 572 and
//! 1489), so the handle is non-blocking and we poll its descriptor ourselves.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use offpath_types::{Frame, LinkType, Timestamp};
use pcap::{Active, Capture, Device, Error, Precision};

use crate::clock::{self, IDLE_LAG_NANOS, now};
use crate::sys::{self, Ready};
use crate::{CaptureCounters, PacketSource, Polled, SourceError};

/// After how many milliseconds the kernel hands over a block of the ring that is not full: the wait of a
/// frame on a quiet link.
const BLOCK_RETIRE_MS: i32 = 10;
/// The kernel's counts are fetched after so many frames (one system call), and when idle.
const STATS_EVERY_FRAMES: u32 = 4096;

/// How to capture on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveOptions {
    /// Its name; `any` is all of them.
    pub interface: String,
    /// Which of `workers` this source is, from 0.
    pub worker: u16,
    /// Workers that share the interface; more than one form a fanout group: the kernel gives both
    /// directions of a flow to the same worker and puts IPv4 fragments together.
    pub workers: u16,
    /// Number of the group: the same for all workers, different for each interface and process.
    pub fanout_group: u16,
    /// Capture filter in the language of tcpdump; empty takes everything.
    pub filter: String,
    /// Bytes kept of each frame. 65535 and more mean 262144: offloaded and reassembled frames are longer
    /// than the link's.
    pub snaplen: u32,
    /// Bytes of the ring.
    pub ring_bytes: u32,
    /// Take frames that are not addressed to this host: what a mirror port needs.
    pub promiscuous: bool,
    /// The longest wait for a frame before [`Polled::Idle`].
    pub poll_ms: u16,
}

impl LiveOptions {
    /// Makes the default options for `interface`: one worker, no filter, whole frames, 64 MiB ring.
    pub fn new(interface: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            worker: 0,
            workers: 1,
            fanout_group: std::process::id() as u16,
            filter: String::new(),
            snaplen: 262_144,
            ring_bytes: 64 * 1024 * 1024,
            promiscuous: true,
            poll_ms: 100,
        }
    }
}

/// Frames from a live interface.
///
/// The kernel's drops are in [`CaptureCounters`]; [`PacketSource::refresh`] fetches their newest state.
pub struct LiveSource {
    capture: Capture<Active>,
    state: State,
}

/// Everything but the handle, so that it can be changed while a frame is borrowed from the ring.
struct State {
    interface: String,
    link: LinkType,
    poll_ms: u16,
    /// The ring ran dry: wait before asking again.
    dry: bool,
    /// The interface is gone.
    ended: bool,
    newest: Timestamp,
    /// Frames until the kernel's counts are fetched.
    stats_in: u32,
    /// libpcap's counts when last fetched; they wrap.
    seen: [u32; 3],
    counters: CaptureCounters,
}

impl LiveSource {
    /// Opens the interface and joins the fanout group, if there are several workers.
    ///
    /// # Errors
    /// No such interface, no permission, a filter that does not compile, options out of range.
    pub fn open(options: &LiveOptions) -> Result<Self, SourceError> {
        let interface = &options.interface;
        let snaplen = match options.snaplen {
            0 => return Err(out_of_range(options, "snaplen", 0, "1 or more")),
            n @ 1..65_535 => n as i32,
            _ => 262_144,
        };
        let ring = i32::try_from(options.ring_bytes).ok().filter(|n| *n >= 1 << 20).ok_or_else(|| {
            out_of_range(options, "ring size", u64::from(options.ring_bytes), "1 MiB to 2 GiB")
        })?;
        if options.worker >= options.workers {
            return Err(out_of_range(options, "worker", options.worker.into(), "0 to workers - 1"));
        }
        let capture = Capture::from_device(interface.as_str())
            .map_err(|e| open_failed(interface, &e))?
            .snaplen(snaplen)
            .buffer_size(ring)
            .promisc(options.promiscuous)
            .timeout(BLOCK_RETIRE_MS)
            // Linux gives nanoseconds for every packet socket.
            .precision(Precision::Nano)
            .open()
            .map_err(|e| open_failed(interface, &e))?;
        let mut capture = capture.setnonblock().map_err(|e| open_failed(interface, &e))?;
        if !options.filter.trim().is_empty() {
            capture
                .filter(&options.filter, true)
                .map_err(|e| SourceError::Filter { filter: options.filter.clone(), message: text(&e) })?;
        }
        let link = LinkType::from_number(u32::try_from(capture.get_datalink().0).unwrap_or(u32::MAX));
        let state = State {
            interface: interface.clone(),
            link,
            poll_ms: options.poll_ms.max(1),
            dry: false,
            ended: false,
            newest: Timestamp::ZERO,
            stats_in: STATS_EVERY_FRAMES,
            seen: [0; 3],
            counters: CaptureCounters::default(),
        };
        let mut source = Self { capture, state };
        if options.workers > 1 {
            source.join(options.fanout_group)?;
        }
        Ok(source)
    }

    /// Returns the link layer of the frames.
    pub const fn link(&self) -> LinkType {
        self.state.link
    }

    /// Joins the group and puts aside what was caught before: the other workers' sockets saw it too.
    fn join(&mut self, group: u16) -> Result<(), SourceError> {
        sys::join_fanout(self.capture.as_fd(), group).map_err(|source| SourceError::Fanout {
            interface: self.state.interface.clone(),
            group,
            source,
        })?;
        let joined = now();
        // Frames of the open block come at the latest when it is retired; then the ring is clean.
        let until = joined.plus_nanos(IDLE_LAG_NANOS);
        loop {
            match self.capture.next_packet() {
                Ok(packet) => {
                    self.state.counters.frames_before_group_total += 1;
                    // The first one that came after joining is lost with them: it is one.
                    if stamp(packet.header) >= joined {
                        return Ok(());
                    }
                }
                Err(_) if now() >= until => return Ok(()),
                // A failure will show again at the first frame.
                Err(_) => {
                    let _ = sys::poll_readable(self.capture.as_fd(), BLOCK_RETIRE_MS);
                }
            }
        }
    }
}

impl PacketSource for LiveSource {
    #[inline]
    fn next_frame(&mut self) -> Result<Polled<'_>, SourceError> {
        if self.state.ended {
            return Ok(Polled::End);
        }
        if self.state.stats_in == 0 {
            self.refresh();
        }
        if self.state.dry {
            if !self.state.wait(self.capture.as_fd())? {
                self.refresh();
                return Ok(self.state.idle());
            }
            self.state.dry = false;
        }
        let Self { capture, state } = self;
        match capture.next_packet() {
            Ok(packet) => Ok(Polled::Frame(state.frame(packet.header, packet.data))),
            Err(Error::TimeoutExpired) => {
                state.dry = true;
                Ok(state.idle())
            }
            Err(Error::NoMorePackets) => {
                state.ended = true;
                Ok(Polled::End)
            }
            Err(e) => {
                state.ended = true;
                Err(SourceError::Live { interface: state.interface.clone(), message: text(&e) })
            }
        }
    }

    fn counters(&self) -> CaptureCounters {
        self.state.counters
    }

    /// Fetches the kernel's counts (one system call); otherwise they lag by up to 4096 frames or one poll.
    fn refresh(&mut self) {
        self.state.stats_in = STATS_EVERY_FRAMES;
        let Ok(stat) = self.capture.stats() else { return };
        let now = [stat.received, stat.dropped, stat.if_dropped];
        let [received, dropped, by_interface] =
            std::array::from_fn(|i| u64::from(now[i].wrapping_sub(self.state.seen[i])));
        self.state.seen = now;
        let c = &mut self.state.counters;
        c.kernel_received += received;
        c.kernel_dropped += dropped;
        c.interface_dropped += by_interface;
    }
}

impl State {
    #[inline]
    fn frame<'a>(&mut self, header: &pcap::PacketHeader, bytes: &'a [u8]) -> Frame<'a> {
        let time = stamp(header);
        let c = &mut self.counters;
        c.time_backwards_total += u64::from(time < self.newest);
        self.newest = self.newest.max(time);
        c.frames_total += 1;
        c.bytes_total += bytes.len() as u64;
        c.frames_snapped_total += u64::from(header.len as usize > bytes.len());
        self.stats_in -= 1;
        Frame { time: self.newest, link: self.link, wire_len: header.len, bytes }
    }

    fn idle(&mut self) -> Polled<'static> {
        self.newest = self.newest.max(clock::settled());
        Polled::Idle(self.newest)
    }

    /// Waits for the ring; tells whether there may be frames.
    fn wait(&self, fd: BorrowedFd<'_>) -> Result<bool, SourceError> {
        match sys::poll_readable(fd, i32::from(self.poll_ms)) {
            Ok(Ready::Readable) => Ok(true),
            Ok(Ready::TimedOut) => Ok(false),
            Ok(Ready::Error) => {
                // The interface went down or away: libpcap says which. It may be up again later, so don't spin.
                std::thread::sleep(Duration::from_millis(u64::from(self.poll_ms)));
                Ok(true)
            }
            Err(e) => Err(SourceError::Live { interface: self.interface.clone(), message: e.to_string() }),
        }
    }
}

/// Returns a packet's time; with nanosecond precision `tv_usec` holds nanoseconds (pcap_set_tstamp_precision).
#[inline]
fn stamp(header: &pcap::PacketHeader) -> Timestamp {
    let (secs, nanos) = (header.ts.tv_sec, header.ts.tv_usec);
    Timestamp::from_parts(u64::try_from(secs).unwrap_or(0), u64::try_from(nanos).unwrap_or(0))
}

fn text(e: &Error) -> String {
    match e {
        Error::PcapError(text) => text.clone(),
        other => other.to_string(),
    }
}

fn out_of_range(o: &LiveOptions, option: &'static str, value: u64, allowed: &'static str) -> SourceError {
    SourceError::Option { interface: o.interface.clone(), option, value, allowed }
}

/// Finds out why an interface can't be opened.
fn open_failed(interface: &str, e: &Error) -> SourceError {
    let (interface, message) = (interface.to_owned(), text(e));
    let lower = message.to_lowercase();
    if ["permission", "not permitted"].iter().any(|p| lower.contains(p)) {
        return SourceError::NotPermitted { interface, message };
    }
    let names: Vec<String> = Device::list().unwrap_or_default().into_iter().map(|d| d.name).collect();
    if lower.contains("no such device") || (!names.is_empty() && !names.contains(&interface)) {
        return SourceError::NoInterface { interface, available: names.join(", ") };
    }
    SourceError::Live { interface, message }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Instant;

    use super::*;

    /// Tells the UDP payload's 8-byte number of a frame on `lo` that goes to `port`.
    fn number(frame: &Frame<'_>, port: u16) -> Option<u64> {
        // Ethernet 14 or cooked v1 16 / v2 20, then IPv4 20, then UDP 8.
        let link = match frame.link {
            LinkType::Ethernet => 14,
            LinkType::LinuxSll => 16,
            LinkType::LinuxSll2 => 20,
            _ => return None,
        };
        let udp = frame.bytes.get(link + 20..)?;
        let to = u16::from_be_bytes(*udp.get(2..)?.first_chunk()?);
        (to == port).then(|| udp.get(8..)?.first_chunk().map(|n| u64::from_be_bytes(*n)))?
    }

    fn options(interface: &str, filter: &str) -> LiveOptions {
        LiveOptions { filter: filter.to_owned(), ring_bytes: 4 << 20, ..LiveOptions::new(interface) }
    }

    #[test]
    fn options_out_of_range_are_named() {
        let rows = [
            ("snaplen", LiveOptions { snaplen: 0, ..LiveOptions::new("lo") }),
            ("ring size", LiveOptions { ring_bytes: 1000, ..LiveOptions::new("lo") }),
            ("ring size", LiveOptions { ring_bytes: u32::MAX, ..LiveOptions::new("lo") }),
            ("worker", LiveOptions { worker: 2, workers: 2, ..LiveOptions::new("lo") }),
        ];
        for (name, options) in rows {
            match LiveSource::open(&options) {
                Err(SourceError::Option { option, .. }) => assert_eq!(option, name),
                other => panic!("{name}: {:?}", other.err()),
            }
        }
    }

    /// `cargo test -p offpath-capture -- --ignored live` as root; needs nothing but `lo`.
    #[test]
    #[ignore = "needs root: run by make unit-root"]
    #[expect(clippy::disallowed_methods, reason = "the test measures time")]
    fn live_frames_on_lo_and_any_come_within_100_ms() {
        for interface in ["lo", "any"] {
            let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
            let port = receiver.local_addr().unwrap().port();
            let mut source =
                LiveSource::open(&options(interface, &format!("udp and dst port {port}"))).unwrap();
            // A quiet link: the first poll says so at once, the second after the poll time.
            let start = Instant::now();
            let mut idle = Vec::new();
            for _ in 0..3 {
                match source.next_frame().unwrap() {
                    Polled::Idle(t) => idle.push(t),
                    other => panic!("{interface}: {other:?}"),
                }
            }
            let waited = start.elapsed();
            assert!((150..400).contains(&waited.as_millis()), "{interface}: {waited:?}");
            assert!(idle.is_sorted());
            let lag = now().nanos_since(idle[2]);
            assert!((IDLE_LAG_NANOS..IDLE_LAG_NANOS + 150_000_000).contains(&lag), "{lag}");

            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut worst = Duration::ZERO;
            let mut sum = Duration::ZERO;
            let mut seen = 0;
            for n in 0..50u64 {
                std::thread::sleep(Duration::from_millis(7));
                let mut payload = n.to_be_bytes().to_vec();
                payload.resize(if n == 49 { 30_000 } else { 100 }, 0);
                let sent = Instant::now();
                let sent_at = now();
                sender.send_to(&payload, ("127.0.0.1", port)).unwrap();
                // `any` shows a frame of `lo` twice: going out and coming in.
                loop {
                    if let Polled::Frame(f) = source.next_frame().unwrap()
                        && number(&f, port) == Some(n)
                    {
                        assert!(f.wire_len as usize > payload.len() && f.bytes.len() == f.wire_len as usize);
                        let age = f.time.nanos_since(sent_at);
                        assert!(f.time >= sent_at && age < 50_000_000, "{interface}: stamped {age} ns late");
                        break;
                    }
                    assert!(sent.elapsed() < Duration::from_secs(2), "{interface}: frame {n} never came");
                }
                seen += 1;
                worst = worst.max(sent.elapsed());
                sum += sent.elapsed();
            }
            println!("{interface}: {seen} frames, mean {:?}, worst {worst:?}", sum / seen);
            assert!(worst < Duration::from_millis(100), "{interface}: {worst:?}");
            source.refresh();
            let c = source.counters();
            assert!(c.frames_total >= 50 && c.kernel_received >= c.frames_total, "{c:?}");
            assert_eq!((c.kernel_dropped, c.time_backwards_total), (0, 0), "{c:?}");
        }
    }

    /// Each flow belongs to one worker, with both directions; nothing is seen twice.
    #[test]
    #[ignore = "needs root: run by make unit-root"]
    #[expect(clippy::disallowed_methods, reason = "the test measures time")]
    fn live_workers_share_an_interface_by_flow() {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = a.local_addr().unwrap().port();
        let mut workers: Vec<LiveSource> = (0..2)
            .map(|worker| {
                let filter = format!("udp and port {port}");
                LiveSource::open(&LiveOptions { worker, workers: 2, poll_ms: 1, ..options("lo", &filter) })
                    .unwrap()
            })
            .collect();
        let flows = 60;
        for n in 0..flows {
            let b = UdpSocket::bind("127.0.0.1:0").unwrap();
            let payload = (n as u64).to_be_bytes();
            b.send_to(&payload, ("127.0.0.1", port)).unwrap();
            a.send_to(&payload, b.local_addr().unwrap()).unwrap();
        }
        // Which workers saw flow n, once per frame. The payload starts at 14 + 20 + 8.
        let mut seen: Vec<Vec<usize>> = vec![Vec::new(); flows];
        let until = Instant::now() + Duration::from_millis(400);
        while Instant::now() < until {
            for (i, worker) in workers.iter_mut().enumerate() {
                if let Polled::Frame(f) = worker.next_frame().unwrap() {
                    let n = u64::from_be_bytes(*f.bytes[42..].first_chunk().unwrap());
                    seen[n as usize].push(i);
                }
            }
        }
        for (n, who) in seen.iter().enumerate() {
            assert_eq!(who.len(), 2, "flow {n}: each direction once: {who:?}");
            assert_eq!(who[0], who[1], "flow {n}: both directions at one worker");
        }
        let of_first = seen.iter().filter(|who| who[0] == 0).count();
        assert!((10..50).contains(&of_first), "{of_first} of {flows} flows at the first worker");
    }

    #[test]
    #[ignore = "needs root: run by make unit-root"]
    fn live_errors_say_what_to_do() {
        let error = |o: &LiveOptions| LiveSource::open(o).err().unwrap().to_string();
        let e = error(&options("nope0", ""));
        assert!(e.contains("no interface nope0; there are: ") && e.contains("lo"), "{e}");
        let e = error(&options("lo", "tcp port banana"));
        assert!(e.contains("bad capture filter `tcp port banana`") && e.contains("banana"), "{e}");
        let mut clash = options("lo", "");
        (clash.workers, clash.fanout_group) = (2, 4711);
        let _first = LiveSource::open(&clash).unwrap();
        clash.interface = "any".to_owned();
        let e = error(&clash);
        assert!(e.contains("cannot join fanout group 4711 on any"), "{e}");
    }

    fn ip(args: &str) {
        let done = std::process::Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(done.success(), "ip {args}");
    }

    /// What the kernel counts is what was handed out and what was dropped, also when the ring overflows.
    #[test]
    #[ignore = "needs root: run by make unit-root"]
    fn live_kernel_counts_balance_when_the_ring_overflows() {
        ip("link add offpath-t2 type veth peer name offpath-t3");
        ip("address add 203.0.113.1/30 dev offpath-t3");
        ip("link set offpath-t2 up");
        ip("link set offpath-t3 up");
        ip("neighbour add 203.0.113.2 lladdr 02:00:00:00:00:02 dev offpath-t3 nud permanent");
        let carrier = || std::fs::read_to_string("/sys/class/net/offpath-t3/operstate").unwrap() == "up\n";
        let up = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            carrier()
        });
        assert!(up, "the pair never came up");
        let filter = "udp and dst host 203.0.113.2";
        let small = LiveOptions { ring_bytes: 1 << 20, ..options("offpath-t2", filter) };
        let mut source = LiveSource::open(&small).unwrap();
        let sender = UdpSocket::bind("203.0.113.1:0").unwrap();
        let sent = 5000;
        for _ in 0..sent {
            sender.send_to(&[0; 1400], "203.0.113.2:9").unwrap();
        }
        // Two dry polls in a row: the open block was retired in between.
        let (mut frames, mut idle) = (0, 0);
        while idle < 2 {
            match source.next_frame().unwrap() {
                Polled::Frame(f) => {
                    assert_eq!((f.link, f.wire_len), (LinkType::Ethernet, 14 + 28 + 1400));
                    (frames, idle) = (frames + 1, 0);
                }
                Polled::Idle(_) => idle += 1,
                Polled::End => panic!("ended"),
            }
        }
        source.refresh();
        ip("link del offpath-t2");
        let c = source.counters();
        assert!(c.kernel_dropped > 0 && frames > 0, "{c:?}");
        assert_eq!((c.frames_total, c.kernel_received), (frames, sent), "{c:?}");
        assert_eq!(c.kernel_received, c.frames_total + c.kernel_dropped, "{c:?}");
    }

    /// An interface that goes away ends the source with an error that names it, and it does not spin.
    #[test]
    #[ignore = "needs root: run by make unit-root"]
    fn live_interface_that_vanishes_is_an_error() {
        ip("link add offpath-t0 type veth peer name offpath-t1");
        ip("link set offpath-t0 up");
        let mut source = LiveSource::open(&options("offpath-t0", "")).unwrap();
        assert_eq!(source.link(), LinkType::Ethernet);
        ip("link del offpath-t0");
        let e = (0..50).find_map(|_| source.next_frame().err()).expect("an error within 50 polls");
        assert!(e.to_string().contains("capture on offpath-t0 failed"), "{e}");
        assert!(matches!(source.next_frame(), Ok(Polled::End)), "nothing follows an error");
    }
}
