//! Frames from captures that are still being written: growing files, and pcap-over-IP.
//!
//! The same readers as for whole files, over an input that may say "not yet". A record that is not whole yet waits for
//! its rest; nothing is read twice.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use offpath_types::{Frame, Timestamp};

use crate::input::Layer;
use crate::reader::{Books, CaptureReader};
use crate::{CaptureCounters, FileProblem, PacketSource, Polled, SourceError, clock, paths};

/// Bytes by which every format is known, header included.
const HEAD_BYTES: usize = 28;
/// Longest wait for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// First and longest wait before connecting again; it doubles in between.
const RETRY_SECS: (u64, u64) = (1, 30);

/// How to read on.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Wait before looking again where nothing has come.
    pub poll_ms: u16,
    /// Bytes of buffer.
    pub buffer_bytes: usize,
    /// Connect again, after 1 s and up to 30 s, where a TCP server closed or went away; otherwise that is the end.
    pub reconnect: bool,
    /// Set by somebody else to end: what is there is read to its end first.
    pub stop: Arc<AtomicBool>,
}

enum Origin {
    Files { named: Vec<PathBuf>, seen: HashSet<(u64, u64)> },
    Tcp { address: String, retry_secs: u64, retry_at: Timestamp },
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
/// for. Times never go back, over files and connections.
///
/// `files_total` counts files and connections that were opened, `files_failed_total` those that could not be.
pub struct StreamSource {
    options: StreamOptions,
    origin: Origin,
    state: State,
    /// The file that is read ends where it ends: its reader may see that.
    last: Arc<AtomicBool>,
    newest: Timestamp,
    books: Books,
}

impl StreamSource {
    /// Follows what `named` names: files, patterns, directories. They need not be there yet.
    pub fn follow(named: &[PathBuf], options: StreamOptions) -> Self {
        Self::new(Origin::Files { named: named.to_vec(), seen: HashSet::new() }, options)
    }

    /// Connects to a server that sends a capture to whoever connects (pcap-over-IP).
    ///
    /// # Errors
    /// The first connection fails; later ones are tried again, where the options say so.
    pub fn connect(address: &str, options: StreamOptions) -> Result<Self, SourceError> {
        let origin =
            Origin::Tcp { address: address.to_owned(), retry_secs: RETRY_SECS.0, retry_at: Timestamp::ZERO };
        let mut source = Self::new(origin, options);
        source.state = source.dial(address).map_err(|e| failed(Path::new(address), e))?;
        Ok(source)
    }

    fn new(origin: Origin, options: StreamOptions) -> Self {
        Self {
            options,
            origin,
            state: State::Closed,
            last: Arc::default(),
            newest: Timestamp::ZERO,
            books: Books::default(),
        }
    }

    /// Returns the damage found so far: the first 100 places (`records_damaged_total` counts all).
    pub fn problems(&self) -> &[FileProblem] {
        &self.books.problems
    }

    fn stopping(&self) -> bool {
        self.options.stop.load(Ordering::Relaxed)
    }

    fn pause(&self) {
        std::thread::sleep(Duration::from_millis(u64::from(self.options.poll_ms.max(1))));
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
                    if reader.advance(&mut self.books) {
                        self.state = State::Reading(reader);
                        return Step::Frame;
                    }
                    if !reader.is_pending() {
                        self.state = State::Closed;
                        continue;
                    }
                    self.state = State::Reading(reader);
                    if self.leave_file() {
                        continue;
                    }
                    if matches!(self.origin, Origin::Files { .. }) {
                        self.pause();
                    } else if self.stopping() {
                        return Step::End;
                    }
                    return Step::Wait;
                }
            }
        }
    }

    /// Tells whether something may still be opened.
    fn goes_on(&self) -> bool {
        match self.origin {
            Origin::Files { .. } => true,
            Origin::Tcp { .. } => self.options.reconnect,
        }
    }

    /// Has the file that is read end where it ends now, if there is a newer one or everything ends; tells whether that
    /// is news.
    fn leave_file(&mut self) -> bool {
        let leave = match &self.origin {
            Origin::Files { .. } => self.stopping() || self.next_file().is_some(),
            Origin::Tcp { .. } => false,
        };
        leave && !self.last.swap(true, Ordering::Relaxed)
    }

    fn open_next(&mut self) -> Option<State> {
        if let Origin::Files { .. } = &self.origin {
            let (path, id) = self.next_file()?;
            if let Origin::Files { seen, .. } = &mut self.origin {
                seen.insert(id);
            }
            self.last = Arc::default();
            return match File::open(&path) {
                Ok(file) => {
                    let input = Box::new(Tail { file, last: Arc::clone(&self.last) });
                    Some(State::Starting { path, input, head: Vec::new() })
                }
                Err(e) => {
                    self.fail(&path, &failed(&path, e));
                    None
                }
            };
        }
        let Origin::Tcp { address, retry_at, .. } = &self.origin else { return None };
        // Where nobody connects again, the first connection was the only one.
        if !self.options.reconnect || clock::now() < *retry_at || self.stopping() {
            return None;
        }
        let address = address.clone();
        let dialled = self.dial(&address);
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

    fn dial(&self, address: &str) -> io::Result<State> {
        let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for to in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&to, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    let wait = Duration::from_millis(u64::from(self.options.poll_ms.max(1)));
                    stream.set_read_timeout(Some(wait))?;
                    let path = PathBuf::from(format!("tcp://{address}"));
                    return Ok(State::Starting { path, input: Box::new(stream), head: Vec::new() });
                }
                Err(e) => error = e,
            }
        }
        Err(error)
    }

    /// Reads the header of what was opened.
    fn start(&mut self, path: &Path, input: Box<dyn Read + Send>, head: Vec<u8>) -> State {
        if matches!(self.origin, Origin::Files { .. }) && Layer::of(&head).is_some() {
            // A decompressor takes the end of what is there for the end.
            self.last.store(true, Ordering::Relaxed);
        }
        let input = Box::new(Cursor::new(head).chain(input));
        match CaptureReader::open(path, input, self.options.buffer_bytes) {
            Ok(reader) => {
                self.books.counters.files_total += 1;
                State::Reading(Box::new(reader))
            }
            Err(e) => {
                self.fail(path, &e);
                State::Closed
            }
        }
    }

    #[cold]
    fn fail(&mut self, path: &Path, e: &SourceError) {
        self.books.counters.files_failed_total += 1;
        self.books.problem(FileProblem::unreadable(path, e));
    }

    /// Returns the file to go on with, if there is one: of those not read yet the one whose first frame is earliest.
    /// One without a frame is as late as can be.
    fn next_file(&self) -> Option<(PathBuf, (u64, u64))> {
        let Origin::Files { named, seen } = &self.origin else { return None };
        // Nothing there yet is no error: it may come.
        let files = paths::expand(named).ok()?;
        let unread = files.paths.into_iter().filter_map(|path| {
            let meta = std::fs::metadata(&path).ok()?;
            let id = (meta.dev(), meta.ino());
            (meta.is_file() && meta.len() > 0 && !seen.contains(&id)).then_some((path, id))
        });
        unread.min_by_key(|(path, _)| (first_time(path), path.clone()))
    }
}

impl PacketSource for StreamSource {
    fn next_frame(&mut self) -> Result<Polled<'_>, SourceError> {
        match self.step() {
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
        self.books.counters
    }
}

fn failed(path: &Path, source: io::Error) -> SourceError {
    SourceError::Open { path: path.to_path_buf(), source }
}

/// Returns the time of the first frame, or the end of time where there is none yet.
fn first_time(path: &Path) -> Timestamp {
    let Ok(file) = File::open(path) else { return Timestamp::MAX };
    let Ok(mut reader) = CaptureReader::open(path, Box::new(file), 4096) else { return Timestamp::MAX };
    if reader.advance(&mut Books::default()) { reader.time() } else { Timestamp::MAX }
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

/// A file whose end only counts once it is said to be the last one.
struct Tail {
    file: File,
    last: Arc<AtomicBool>,
}

impl Read for Tail {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let last = self.last.load(Ordering::Relaxed);
        match self.file.read(buf)? {
            // What was written before it was said is read.
            0 if !last => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::testing::plain;

    fn classic(frames: &[(u32, &str)]) -> Vec<u8> {
        let records: Vec<_> = frames.iter().map(|(secs, text)| (*secs, 0, text.as_bytes())).collect();
        plain(&records)
    }

    fn options(reconnect: bool) -> StreamOptions {
        StreamOptions { poll_ms: 1, buffer_bytes: 256, reconnect, stop: Arc::default() }
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
            let mut source = StreamSource::follow(&[dir.path().join("*.pcap")], options);
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
        let mut source = StreamSource::follow(&[dir.path().to_path_buf()], options);
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
                    read(&mut source, 3000).0
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
}
