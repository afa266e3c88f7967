//! Frames from captures that are still being written: growing files, and pcap-over-IP.
//!
//! The same readers as for whole files, over an input that may say "not yet". A record that is not whole yet waits for
//! its rest; nothing is read twice.

use std::io::{self, Cursor, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use offpath_types::{Frame, Timestamp};
use socket2::{SockRef, TcpKeepalive};

use crate::followed::Followed;
use crate::input::Layer;
use crate::reader::{Books, CaptureReader};
use crate::{CaptureCounters, FileProblem, PacketSource, Polled, Secrets, SourceError, clock, paths};

/// Bytes by which every format is known, header included.
const HEAD_BYTES: usize = 28;
/// Longest wait for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// First and longest wait before connecting again; it doubles in between.
const RETRY_SECS: (u64, u64) = (1, 30);
/// A server that says nothing for so long is asked whether it is still there, so often, with this wait in between:
/// one that went away without a word (power, a firewall that forgot the connection) is noticed within two minutes.
const KEEPALIVE: (Duration, u32, Duration) = (Duration::from_secs(60), 6, Duration::from_secs(10));

/// How to read on.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Wait before looking again where nothing has come.
    pub poll_ms: u16,
    /// Wait before looking around for new files again while one is at its end.
    pub rescan_ms: u16,
    /// Bytes of buffer.
    pub buffer_bytes: usize,
    /// Connect again, after 1 s and up to 30 s, where a TCP server closed or went away; otherwise that is the end.
    pub reconnect: bool,
    /// Set by somebody else to end: what is there is read to its end first.
    pub stop: Arc<AtomicBool>,
}

enum Origin {
    Files(Followed),
    Tcp {
        address: String,
        retry_secs: u64,
        retry_at: Timestamp,
        /// The connection ends where it is now.
        last: Arc<AtomicBool>,
    },
}

enum State {
    Closed,
    /// Too few bytes to tell the format.
    Starting {
        path: PathBuf,
        input: Box<dyn Read + Send>,
        head: Vec<u8>,
    },
    Reading(Box<CaptureReader>),
    Ended,
}

/// What a step came to.
enum Step {
    Frame,
    Wait,
    End,
}

/// Frames from files that grow and are rotated, or from a pcap-over-IP server.
///
/// Files are read one after the other, in the order of their first frames (at equal times of their names): the next one
/// once it is there and the one before it is read to its end. A file that is compressed is read as it is and not waited
/// for. Times never go back, over files and connections. What is added to a file after it was left for a newer one is
/// not read; `files_grown_late_total` counts such files. One that begins anew is read anew.
///
/// `files_total` counts files and connections that were opened, `files_failed_total` those that could not be.
pub struct StreamSource {
    options: StreamOptions,
    origin: Origin,
    state: State,
    /// What was found by looking for secrets, and is not handed out yet.
    found: Option<Step>,
    /// The file that is read had a frame.
    began: bool,
    newest: Timestamp,
    books: Books,
    secrets: Vec<Secrets>,
}

impl StreamSource {
    /// Follows what `named` names: files, patterns, directories. They need not be there yet.
    ///
    /// # Errors
    /// A pattern that can't be read.
    pub fn follow(named: &[PathBuf], options: StreamOptions) -> Result<Self, SourceError> {
        paths::check_patterns(named)?;
        Ok(Self::new(Origin::Files(Followed::new(named, options.rescan_ms)), options))
    }

    /// Connects to a server that sends a capture to whoever connects (pcap-over-IP).
    ///
    /// # Errors
    /// The first connection fails; later ones are tried again, where the options say so.
    pub fn connect(address: &str, options: StreamOptions) -> Result<Self, SourceError> {
        let origin = Origin::Tcp {
            address: address.to_owned(),
            retry_secs: RETRY_SECS.0,
            retry_at: Timestamp::ZERO,
            last: Arc::default(),
        };
        let mut source = Self::new(origin, options);
        source.state = source.dial().map_err(|e| failed(Path::new(address), e))?;
        Ok(source)
    }

    fn new(origin: Origin, options: StreamOptions) -> Self {
        Self {
            options,
            origin,
            state: State::Closed,
            found: None,
            began: false,
            newest: Timestamp::ZERO,
            books: Books::default(),
            secrets: Vec::new(),
        }
    }

    /// Returns the damage found so far: the first 100 places (`records_damaged_total` counts all).
    pub fn problems(&self) -> &[FileProblem] {
        &self.books.problems
    }

    fn stopping(&self) -> bool {
        self.options.stop.load(Ordering::Relaxed)
    }

    fn pause(&mut self) {
        let wait_ms = self.options.poll_ms.max(1);
        std::thread::sleep(Duration::from_millis(u64::from(wait_ms)));
        if let Origin::Files(files) = &mut self.origin {
            files.wait(wait_ms);
        }
    }

    fn step(&mut self) -> Step {
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Step::End,
                State::Closed => match self.open_next() {
                    Some(state) => self.state = state,
                    None if self.stopping() || !self.goes_on() => return Step::End,
                    None => {
                        self.state = State::Closed;
                        self.pause();
                        return Step::Wait;
                    }
                },
                State::Starting { path, mut input, mut head } => {
                    if self.end_connection() {
                        return Step::End;
                    }
                    let (ended, waits) = fill(&mut *input, &mut head);
                    if head.len() < HEAD_BYTES && !ended {
                        self.state = State::Starting { path, input, head };
                        if self.leave_file() {
                            continue;
                        }
                        if waits {
                            self.pause();
                        }
                        return Step::Wait;
                    }
                    self.state = self.start(&path, input, head);
                }
                State::Reading(mut reader) => {
                    if self.end_connection() {
                        // What has arrived is read.
                        reader.stop();
                    }
                    if reader.advance(&mut self.books) {
                        if !self.began {
                            self.began = true;
                            if let Origin::Files(files) = &mut self.origin {
                                files.began(reader.time());
                            }
                        }
                        self.state = State::Reading(reader);
                        return Step::Frame;
                    }
                    if !reader.is_pending() {
                        self.state = self.closed();
                        continue;
                    }
                    let left = self.leave_file();
                    if left && self.stopping() && !self.has_next() {
                        // Its writer is still at it.
                        reader.stop();
                    }
                    self.state = State::Reading(reader);
                    if left {
                        continue;
                    }
                    if matches!(self.origin, Origin::Files(_)) {
                        self.pause();
                    }
                    return Step::Wait;
                }
            }
        }
    }

    /// Has a connection end where it is now, if everything ends; tells whether it does.
    #[inline]
    fn end_connection(&self) -> bool {
        match &self.origin {
            Origin::Tcp { last, .. } if self.stopping() => {
                last.store(true, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }

    /// Tells whether something may still be opened.
    fn goes_on(&self) -> bool {
        match self.origin {
            Origin::Files(_) => true,
            Origin::Tcp { .. } => self.options.reconnect,
        }
    }

    fn has_next(&mut self) -> bool {
        match &mut self.origin {
            Origin::Files(files) => files.has_next(),
            Origin::Tcp { .. } => false,
        }
    }

    /// Has the file that is read end where it ends now, if there is a newer one or everything ends; tells whether that
    /// is news.
    fn leave_file(&mut self) -> bool {
        let stopping = self.stopping();
        match &mut self.origin {
            Origin::Files(files) => (stopping || files.has_next()) && files.end_current(),
            Origin::Tcp { .. } => false,
        }
    }

    /// Says that what was open has ended.
    fn closed(&mut self) -> State {
        if let Origin::Files(files) = &mut self.origin {
            files.left();
        }
        State::Closed
    }

    fn open_next(&mut self) -> Option<State> {
        let stopping = self.stopping();
        let (retry_at, last) = match &mut self.origin {
            Origin::Files(files) => {
                self.began = false;
                return match files.open_next(stopping)? {
                    Ok((path, tail)) => {
                        Some(State::Starting { path, input: Box::new(tail), head: Vec::new() })
                    }
                    Err((path, e)) => {
                        self.fail(&path, &failed(&path, e));
                        Some(State::Closed)
                    }
                };
            }
            Origin::Tcp { retry_at, last, .. } => (*retry_at, last),
        };
        // Where nobody connects again, the first connection was the only one.
        if !self.options.reconnect || clock::now() < retry_at || stopping {
            return None;
        }
        last.store(false, Ordering::Relaxed);
        let dialled = self.dial();
        if let Origin::Tcp { retry_secs, retry_at, .. } = &mut self.origin {
            *retry_at = clock::now().plus_secs(*retry_secs);
            *retry_secs = if dialled.is_ok() { RETRY_SECS.0 } else { (*retry_secs * 2).min(RETRY_SECS.1) };
        }
        match dialled {
            Ok(state) => Some(state),
            Err(_) => {
                self.books.counters.files_failed_total += 1;
                None
            }
        }
    }

    fn dial(&self) -> io::Result<State> {
        let Origin::Tcp { address, last, .. } = &self.origin else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let stream = connect(address, Duration::from_millis(u64::from(self.options.poll_ms.max(1))))?;
        let path = PathBuf::from(format!("tcp://{address}"));
        let input = Box::new(Connection { stream, last: Arc::clone(last) });
        Ok(State::Starting { path, input, head: Vec::new() })
    }

    /// Reads the header of what was opened.
    fn start(&mut self, path: &Path, input: Box<dyn Read + Send>, head: Vec<u8>) -> State {
        if let Origin::Files(files) = &mut self.origin
            && Layer::of(&head).is_some()
        {
            // A decompressor takes the end of what is there for the end.
            files.end_current();
        }
        let input = Box::new(Cursor::new(head).chain(input));
        match CaptureReader::open(path, input, self.options.buffer_bytes) {
            Ok(reader) => {
                self.books.counters.files_total += 1;
                State::Reading(Box::new(reader))
            }
            Err(e) => {
                self.fail(path, &e);
                self.closed()
            }
        }
    }

    #[cold]
    fn fail(&mut self, path: &Path, e: &SourceError) {
        self.books.counters.files_failed_total += 1;
        self.books.problem(FileProblem::unreadable(path, e));
    }
}

impl PacketSource for StreamSource {
    fn next_frame(&mut self) -> Result<Polled<'_>, SourceError> {
        let step = match self.found.take() {
            Some(found) => found,
            None => self.step(),
        };
        match step {
            Step::End => return Ok(Polled::End),
            Step::Wait => return Ok(Polled::Idle(self.newest)),
            Step::Frame => {}
        }
        let State::Reading(reader) = &self.state else { return Ok(Polled::End) };
        let Some(frame) = reader.frame() else { return Ok(Polled::End) };
        self.books.counters.time_backwards_total += u64::from(frame.time < self.newest);
        self.newest = self.newest.max(frame.time);
        Ok(Polled::Frame(Frame { time: self.newest, ..frame }))
    }

    fn counters(&self) -> CaptureCounters {
        let grown = if let Origin::Files(files) = &self.origin { files.grown_late() } else { 0 };
        CaptureCounters { files_grown_late_total: grown, ..self.books.counters }
    }

    fn fresh_secrets(&mut self) -> Result<&[Secrets], SourceError> {
        if self.found.is_none() {
            self.found = Some(self.step());
        }
        // Only what was not handed out counts against the bound on what is kept.
        self.secrets = self.books.take_secrets();
        Ok(&self.secrets)
    }

    /// Closes the books where everything ends.
    fn refresh(&mut self) {
        if self.stopping()
            && let State::Reading(reader) = &mut self.state
        {
            reader.abandon(&mut self.books);
            self.state = State::Ended;
        }
    }
}

fn failed(path: &Path, source: io::Error) -> SourceError {
    SourceError::Open { path: path.to_path_buf(), source }
}

/// Connects; reads wait for `wait` at most.
fn connect(address: &str, wait: Duration) -> io::Result<TcpStream> {
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for to in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&to, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(wait))?;
                let (idle, probes, interval) = KEEPALIVE;
                let keepalive =
                    TcpKeepalive::new().with_time(idle).with_retries(probes).with_interval(interval);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                return Ok(stream);
            }
            Err(e) => error = e,
        }
    }
    Err(error)
}

/// Reads into `head` until it is long enough; tells whether the input has ended, and whether it has nothing just now
/// and did not wait for it.
fn fill(input: &mut dyn Read, head: &mut Vec<u8>) -> (bool, bool) {
    let mut piece = [0; HEAD_BYTES];
    while head.len() < HEAD_BYTES {
        match input.read(&mut piece[..HEAD_BYTES - head.len()]) {
            Ok(0) => return (true, false),
            Ok(n) => head.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return (false, true),
            Err(_) => return (true, false),
        }
    }
    (false, false)
}

/// A connection that may be told to end.
struct Connection {
    stream: TcpStream,
    last: Arc<AtomicBool>,
}

impl Read for Connection {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.last.load(Ordering::Relaxed) { Ok(0) } else { self.stream.read(buf) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::testing::{block, enhanced, interface, plain, section};

    fn classic(frames: &[(u32, &str)]) -> Vec<u8> {
        let records: Vec<_> = frames.iter().map(|(secs, text)| (*secs, 0, text.as_bytes())).collect();
        plain(&records)
    }

    fn options(reconnect: bool) -> StreamOptions {
        StreamOptions { poll_ms: 1, rescan_ms: 1, buffer_bytes: 256, reconnect, stop: Arc::default() }
    }

    /// Reads until the source has nothing `rounds` times in a row, or ends; returns the frames' first bytes.
    fn read(source: &mut StreamSource, rounds: u32) -> (Vec<u8>, bool) {
        let (mut got, mut idle) = (Vec::new(), 0);
        while idle < rounds {
            match source.next_frame().unwrap() {
                Polled::Frame(f) => {
                    got.push(f.bytes[0]);
                    idle = 0;
                }
                Polled::Idle(_) => idle += 1,
                Polled::End => return (got, true),
            }
        }
        (got, false)
    }

    fn balanced(source: &StreamSource) {
        let c = source.counters();
        assert_eq!(
            c.stream_bytes_total,
            c.bytes_total + c.overhead_bytes_total + c.damaged_bytes_total,
            "{c:?}"
        );
    }

    #[test]
    fn a_growing_file_is_read_as_it_grows_wherever_the_writer_stops() {
        let whole = classic(&[(1, "a..."), (2, "b"), (3, "c......")]);
        for cut in 0..whole.len() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("live.pcap");
            let mut writer = File::create(&path).unwrap();
            let options = options(false);
            let stop = Arc::clone(&options.stop);
            let mut source = StreamSource::follow(&[dir.path().join("*.pcap")], options).unwrap();
            writer.write_all(&whole[..cut]).unwrap();
            let (mut got, ended) = read(&mut source, 1);
            assert!(!ended, "{cut}");
            writer.write_all(&whole[cut..]).unwrap();
            got.extend(read(&mut source, 1).0);
            stop.store(true, Ordering::Relaxed);
            let (rest, ended) = read(&mut source, 5);
            got.extend(rest);
            assert!(ended, "{cut}");
            assert_eq!(got, b"abc", "{cut}");
            assert!(source.problems().is_empty(), "{cut}: {:?}", source.problems());
            balanced(&source);
        }
    }

    #[test]
    fn rotated_files_are_read_in_the_order_of_time_and_a_cut_one_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        // Named against the order of time.
        write("z.pcap", &classic(&[(1, "a"), (2, "b")]));
        let options = options(false);
        let stop = Arc::clone(&options.stop);
        let mut source = StreamSource::follow(&[dir.path().to_path_buf()], options).unwrap();
        assert_eq!(read(&mut source, 2), (b"ab".to_vec(), false));
        let cut = classic(&[(3, "c"), (4, "d")]);
        write("y.pcap", &cut[..cut.len() - 1]);
        write("x.pcap", &classic(&[(5, "e"), (2, "f")]));
        let (mut got, _) = read(&mut source, 2);
        stop.store(true, Ordering::Relaxed);
        let (rest, ended) = read(&mut source, 5);
        got.extend(rest);
        assert!(ended);
        assert_eq!(got, b"cef");
        let c = source.counters();
        assert_eq!((c.files_total, c.records_damaged_total, c.time_backwards_total), (3, 1, 1));
        assert_eq!(source.newest, Timestamp::from_parts(5, 0));
        balanced(&source);
    }

    #[test]
    fn a_server_is_read_to_its_end_and_again_where_it_comes_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        for reconnect in [false, true] {
            let mut source = StreamSource::connect(&address, options(reconnect)).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            let whole = classic(&[(1, "a"), (2, "b")]);
            assert_eq!(read(&mut source, 2), (vec![], false));
            peer.write_all(&whole[..30]).unwrap();
            assert_eq!(read(&mut source, 2), (vec![], false));
            peer.write_all(&whole[30..]).unwrap();
            assert_eq!(read(&mut source, 3).0, b"ab");
            drop(peer);
            let (got, ended) = read(&mut source, 3);
            assert_eq!((got, ended), (vec![], !reconnect));
            if reconnect {
                let again = std::thread::scope(|scope| {
                    scope.spawn(|| {
                        let (mut peer, _) = listener.accept().unwrap();
                        peer.write_all(&classic(&[(3, "c")])).unwrap();
                    });
                    // The first wait before connecting again is a second.
                    let mut got = Vec::new();
                    while got.is_empty() {
                        got = read(&mut source, 2).0;
                    }
                    got
                });
                assert_eq!(again, b"c");
                assert_eq!(source.counters().files_total, 2);
            }
            balanced(&source);
        }
        drop(listener);
        let e = StreamSource::connect(&address, options(true)).err().unwrap().to_string();
        assert!(e.contains(&address), "{e}");
    }

    /// A directory that is followed.
    struct Dir {
        dir: tempfile::TempDir,
        stop: Arc<AtomicBool>,
        source: StreamSource,
    }

    impl Dir {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let options = options(false);
            let stop = Arc::clone(&options.stop);
            let source = StreamSource::follow(&[dir.path().to_path_buf()], options).unwrap();
            Self { dir, stop, source }
        }

        /// Writes a file anew, in place where it is there, as `tcpdump -W` does.
        fn write(&self, name: &str, frames: &[(u32, &str)]) {
            std::fs::write(self.dir.path().join(name), classic(frames)).unwrap();
        }

        fn read(&mut self) -> String {
            let (got, ended) = read(&mut self.source, 4);
            assert!(!ended);
            String::from_utf8(got).unwrap()
        }

        fn end(mut self) -> (String, CaptureCounters) {
            self.stop.store(true, Ordering::Relaxed);
            let (got, ended) = read(&mut self.source, 5);
            assert!(ended);
            balanced(&self.source);
            (String::from_utf8(got).unwrap(), self.source.counters())
        }

        fn known(&self) -> usize {
            let Origin::Files(files) = &self.source.origin else { unreachable!() };
            files.known_len()
        }
    }

    #[test]
    fn files_of_a_ring_that_begin_anew_in_place_are_read_anew() {
        let mut ring = Dir::new();
        ring.write("0", &[(1, "a"), (2, "b")]);
        assert_eq!(ring.read(), "ab");
        ring.write("1", &[(3, "c"), (4, "d")]);
        assert_eq!(ring.read(), "cd");
        // Shorter, as long and longer than what was read of it.
        ring.write("0", &[(5, "e")]);
        assert_eq!(ring.read(), "e");
        ring.write("1", &[(6, "f"), (7, "g")]);
        assert_eq!(ring.read(), "fg");
        ring.write("0", &[(8, "h"), (9, "i"), (10, "j")]);
        assert_eq!(ring.read(), "hij");
        let (rest, c) = ring.end();
        assert_eq!((rest.as_str(), c.files_total, c.frames_total), ("", 5, 10));
        assert_eq!((c.records_damaged_total, c.files_grown_late_total), (0, 0), "{c:?}");
    }

    #[test]
    fn what_is_gone_is_forgotten_so_that_its_inode_may_come_again() {
        let mut ring = Dir::new();
        for (n, name) in ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().enumerate() {
            ring.write(name, &[(n as u32 + 1, name)]);
            assert_eq!(ring.read(), name);
            std::fs::remove_file(ring.dir.path().join(name)).unwrap();
            ring.read();
            assert!(ring.known() <= 1, "{}", ring.known());
        }
        let (rest, c) = ring.end();
        assert_eq!((rest.as_str(), c.files_total, c.files_failed_total), ("", 8, 0));
    }

    #[test]
    fn the_file_that_is_read_may_be_cut_short_and_begun_anew() {
        let mut ring = Dir::new();
        ring.write("a", &[(1, "a"), (2, "b"), (3, "c")]);
        assert_eq!(ring.read(), "abc");
        for (anew, want) in [(&[(4, "d")][..], "d"), (&[(5, "e"), (6, "f"), (7, "g"), (8, "h")], "efgh")] {
            File::create(ring.dir.path().join("a")).unwrap();
            assert_eq!(ring.read(), "");
            ring.write("a", anew);
            assert_eq!(ring.read(), want);
        }
        let (_, c) = ring.end();
        assert_eq!((c.frames_total, c.records_damaged_total), (8, 0));
    }

    #[test]
    fn a_file_that_grows_after_it_was_left_is_counted_and_one_that_was_empty_is_read() {
        let mut ring = Dir::new();
        ring.write("a", &[(1, "a")]);
        ring.write("empty", &[]);
        assert_eq!(ring.read(), "a");
        ring.write("b", &[(2, "b")]);
        assert_eq!(ring.read(), "b");
        ring.write("empty", &[(3, "c")]);
        assert_eq!(ring.read(), "c");
        for frames in [&[(1, "a"), (4, "d")][..], &[(1, "a"), (4, "d"), (5, "e")]] {
            ring.write("a", frames);
            assert_eq!(ring.read(), "");
        }
        assert_eq!(ring.end().1.files_grown_late_total, 1);
    }

    #[test]
    fn names_that_are_not_there_yet_keep_no_other_from_being_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let names = [path("none.pcap"), path("none*.pcap"), path("a.pcap"), path("a.*")];
        let mut source = StreamSource::follow(&names, options(false)).unwrap();
        std::fs::write(path("a.pcap"), classic(&[(1, "a")])).unwrap();
        assert_eq!(read(&mut source, 3).0, b"a");
        std::fs::write(path("none1.pcap"), classic(&[(2, "b")])).unwrap();
        assert_eq!(read(&mut source, 3).0, b"b");
        std::fs::write(path("none.pcap"), classic(&[(3, "c")])).unwrap();
        assert_eq!(read(&mut source, 3).0, b"c");
        let e = StreamSource::follow(&[path("[")], options(false)).err().unwrap().to_string();
        assert!(e.contains("bad pattern"), "{e}");
    }

    #[test]
    fn stopping_ends_a_server_that_is_silent_or_never_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let whole = classic(&[(1, "a"), (2, "b")]);
        // Where the server stands: before anything, within the header, between records, within one.
        for (sent, want) in [(0, ""), (7, ""), (24, ""), (41, "a"), (50, "a")] {
            let options = options(true);
            let stop = Arc::clone(&options.stop);
            let mut source = StreamSource::connect(&address, options).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            peer.write_all(&whole[..sent]).unwrap();
            assert_eq!(read(&mut source, 3), (want.as_bytes().to_vec(), false), "{sent}");
            stop.store(true, Ordering::Relaxed);
            assert_eq!(read(&mut source, 3), (vec![], true), "{sent}");
            assert!(source.problems().is_empty(), "{sent}: {:?}", source.problems());
            let read_bytes = if sent < HEAD_BYTES { 0 } else { sent as u64 };
            assert_eq!(source.counters().stream_bytes_total, read_bytes, "{sent}");
            balanced(&source);
        }
        // One that sends without end, and one that is left in the middle of what has arrived.
        for abandoned in [false, true] {
            let options = options(true);
            let stop = Arc::clone(&options.stop);
            let mut source = StreamSource::connect(&address, options).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let record = &classic(&[(1, "a")])[24..];
                    let _ = peer.write_all(&classic(&[]));
                    while peer.write_all(record).is_ok() {}
                });
                while source.counters().frames_total < 100 {
                    source.next_frame().unwrap();
                }
                stop.store(true, Ordering::Relaxed);
                if abandoned {
                    source.refresh();
                }
                let (rest, ended) = read(&mut source, 3);
                assert!(ended && rest.len() <= 256, "{}", rest.len());
                assert!(!abandoned || rest.is_empty());
                balanced(&source);
                drop(source);
            });
        }
    }

    #[test]
    fn a_silent_connection_is_asked_whether_it_is_alive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stream = connect(&address, Duration::from_millis(5)).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE.0);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE.1);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE.2);
    }

    #[test]
    fn secrets_come_before_the_frames_that_follow_them_and_do_not_pile_up() {
        let secrets = |text: &str| {
            let mut body = 0x544c_534bu32.to_le_bytes().to_vec();
            body.extend((text.len() as u32).to_le_bytes());
            body.extend(text.as_bytes());
            block(false, 10, &body)
        };
        let mut whole = [section(false, 1), interface(false, 1, 0, &[])].concat();
        let large = "k".repeat(1 << 20);
        // Together more than a file may hold.
        for n in 0..6u8 {
            whole.extend(secrets(&large));
            whole.extend(enhanced(false, 0, u64::from(n), &[b'a' + n], 1));
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.pcapng"), whole).unwrap();
        let mut source = StreamSource::follow(&[dir.path().to_path_buf()], options(false)).unwrap();
        let mut got = String::new();
        while got.len() < 12 {
            let fresh = source.fresh_secrets().unwrap();
            assert!(fresh.iter().all(|s| s.kind == 0x544c_534b && s.data == large.as_bytes()));
            got.extend(fresh.iter().map(|_| '!'));
            if let Polled::Frame(frame) = source.next_frame().unwrap() {
                got.push(char::from(frame.bytes[0]));
            }
        }
        assert_eq!(got, "!a!b!c!d!e!f");
        assert_eq!(source.counters().secrets_dropped_bytes_total, 0);
    }
}
