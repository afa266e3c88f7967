//! Frames from capture files, in time order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use offpath_types::Timestamp;

use crate::input::Counted;
use crate::reader::{Books, CaptureReader};
use crate::{CaptureCounters, FileProblem, PacketSource, Polled, Secrets, SourceError, paths};

/// How files are read.
#[derive(Clone, Copy, Debug)]
pub struct FileOptions {
    /// Bytes of buffer of a single file; each of several files gets a quarter.
    pub buffer_bytes: usize,
    /// Files that may be open at once. Files are opened when their first frame is due and closed at their
    /// end, so this is a bound on how many overlap in time, not on how many there are.
    pub open_files_max: usize,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { buffer_bytes: 512 * 1024, open_files_max: 256 }
    }
}

/// A file whose first frame is not due yet.
struct Waiting {
    first: Timestamp,
    order: usize,
    path: PathBuf,
    /// Kept where it can't be opened again: standard input, pipes.
    reader: Option<Box<CaptureReader>>,
}

/// Frames of one or more capture files, in time order.
///
/// Several files are merged by time; at equal times the file named first goes first. Within one file, a
/// frame that is earlier than the one before it keeps its place and gets the newer time, with a count.
///
/// Damage does not end the source: it is recorded (see [`FileSource::problems`]), the next sound record is
/// searched, and what can be read is delivered.
// Invariant: every open reader but `current` is in `due`, by the time of the frame it stands on;
// `waiting` is sorted by (first, order) and holds what is not open yet.
pub struct FileSource {
    options: FileOptions,
    waiting: VecDeque<Waiting>,
    open: Vec<Option<(usize, Box<CaptureReader>)>>,
    due: BinaryHeap<Reverse<(Timestamp, usize, usize)>>,
    current: Option<usize>,
    /// The frame that `current` stands on was handed out.
    used: bool,
    buffer_bytes: usize,
    books: Books,
    secrets_returned: usize,
    bytes_read: Arc<AtomicU64>,
    bytes_total: Option<u64>,
}

impl FileSource {
    /// Opens what `paths` name: files, patterns (`*`, `?`, `[…]`), directories, `-` for standard input.
    ///
    /// # Errors
    /// Where nothing can be read at all: no match, a single file that is no capture, or none of several.
    /// One bad file among several is a problem on the list, and the others are read.
    pub fn open(paths: &[PathBuf], options: FileOptions) -> Result<Self, SourceError> {
        let files = paths::expand(paths)?;
        let mut source = Self::empty(options);
        source.books.counters.files_skipped_total = files.skipped;
        for (path, error) in &files.missing {
            source.books.counters.files_failed_total += 1;
            source.books.problem(FileProblem::unreadable(path, error));
        }
        let several = files.paths.len() > 1;
        if several {
            source.buffer_bytes = options.buffer_bytes / 4;
        }
        let mut first_error = None;
        let mut waiting = Vec::with_capacity(files.paths.len());
        for (order, path) in files.paths.into_iter().enumerate() {
            let opened = if several {
                source.look_at(&path, order)
            } else {
                source.open_file(&path).map(|(reader, _)| Waiting {
                    first: Timestamp::ZERO,
                    order,
                    path: path.clone(),
                    reader: Some(Box::new(reader)),
                })
            };
            match opened {
                Ok(file) => waiting.push(file),
                Err(e) => {
                    source.books.counters.files_failed_total += 1;
                    source.books.problem(FileProblem::unreadable(&path, &e));
                    first_error.get_or_insert(e);
                }
            }
        }
        if let (true, Some(e)) = (waiting.is_empty(), first_error) {
            return Err(e);
        }
        waiting.sort_by_key(|w| (w.first, w.order));
        source.waiting = waiting.into();
        Ok(source)
    }

    /// Reads one capture from `input`; `name` is what problems call it.
    ///
    /// # Errors
    /// Where `input` is no capture or fails at once.
    pub fn from_reader(
        name: &str,
        input: impl Read + Send + 'static,
        options: FileOptions,
    ) -> Result<Self, SourceError> {
        let mut source = Self::empty(options);
        source.bytes_total = None;
        let path = PathBuf::from(name);
        let counted = Counted { inner: input, bytes: Arc::clone(&source.bytes_read) };
        let reader = CaptureReader::open(&path, Box::new(counted), options.buffer_bytes)?;
        source.books.counters.files_total = 1;
        source.waiting.push_back(Waiting {
            first: Timestamp::ZERO,
            order: 0,
            path,
            reader: Some(Box::new(reader)),
        });
        Ok(source)
    }

    /// Returns how many bytes of the input files were read, as they are on disk, and how many there are;
    /// `None` where one of them is a pipe.
    pub fn progress(&self) -> (u64, Option<u64>) {
        (self.bytes_read.load(Ordering::Relaxed), self.bytes_total)
    }

    /// Returns the damage found so far: the first 100 places (`records_damaged_total` counts all).
    pub fn problems(&self) -> &[FileProblem] {
        &self.books.problems
    }

    /// Returns the decryption secrets found so far in pcapng files, at most 4 MiB.
    pub fn secrets(&self) -> &[Secrets] {
        self.books.secrets()
    }

    fn empty(options: FileOptions) -> Self {
        Self {
            options,
            waiting: VecDeque::new(),
            open: Vec::new(),
            due: BinaryHeap::new(),
            current: None,
            used: false,
            buffer_bytes: options.buffer_bytes,
            books: Books::default(),
            secrets_returned: 0,
            bytes_read: Arc::default(),
            bytes_total: Some(0),
        }
    }

    /// Opens `path` to be read; the flag tells whether it could be opened again.
    fn open_file(&mut self, path: &Path) -> Result<(CaptureReader, bool), SourceError> {
        let (input, len) = open_bytes(path)?;
        self.count_total(len);
        let counted = Counted { inner: input, bytes: Arc::clone(&self.bytes_read) };
        let reader = CaptureReader::open(path, Box::new(counted), self.buffer_bytes)?;
        self.books.counters.files_total += 1;
        Ok((reader, len.is_some()))
    }

    fn count_total(&mut self, len: Option<u64>) {
        self.bytes_total = self.bytes_total.zip(len).map(|(sum, len)| sum + len);
    }

    /// Finds out when the first frame of `path` is due. Regular files are closed again.
    fn look_at(&mut self, path: &Path, order: usize) -> Result<Waiting, SourceError> {
        let (input, len) = open_bytes(path)?;
        if len.is_none() {
            let counted = Counted { inner: input, bytes: Arc::clone(&self.bytes_read) };
            let mut reader = CaptureReader::open(path, Box::new(counted), self.buffer_bytes)?;
            self.bytes_total = None;
            self.books.counters.files_total += 1;
            reader.advance(&mut self.books);
            return Ok(Waiting {
                first: reader.time(),
                order,
                path: path.to_path_buf(),
                reader: Some(Box::new(reader)),
            });
        }
        let mut reader = CaptureReader::open(path, input, 64 * 1024)?;
        self.count_total(len);
        // What is found now is found again when the file is read.
        reader.advance(&mut Books::default());
        Ok(Waiting { first: reader.time(), order, path: path.to_path_buf(), reader: None })
    }

    /// Makes `current` stand on the next frame, if there is one.
    #[inline]
    fn select(&mut self) -> Result<(), SourceError> {
        if self.used {
            self.used = false;
            if let Some(slot) = self.current
                && !self.advance(slot)
            {
                self.open[slot] = None;
                self.current = None;
            }
        }
        if self.waiting.is_empty() && self.due.is_empty() { Ok(()) } else { self.merge() }
    }

    #[inline]
    fn advance(&mut self, slot: usize) -> bool {
        match self.open.get_mut(slot) {
            Some(Some((_, reader))) => reader.advance(&mut self.books),
            _ => false,
        }
    }

    /// Chooses among several files.
    fn merge(&mut self) -> Result<(), SourceError> {
        loop {
            let key = |slot: usize| {
                let (order, reader) = self.open.get(slot)?.as_ref()?;
                Some((reader.time(), *order, slot))
            };
            let current = self.current.and_then(key);
            let top = self.due.peek().map(|Reverse(key)| *key);
            let next = match (current, top) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            if let Some(w) = self.waiting.front()
                && next.is_none_or(|(time, order, _)| (w.first, w.order) < (time, order))
            {
                if let Some(w) = self.waiting.pop_front() {
                    self.start(w)?;
                }
                continue;
            }
            if top.is_some() && next == top {
                self.due.pop();
                if let Some(key) = current {
                    self.due.push(Reverse(key));
                }
                self.current = top.map(|(_, _, slot)| slot);
            }
            return Ok(());
        }
    }

    /// Opens a file whose first frame is due.
    fn start(&mut self, w: Waiting) -> Result<(), SourceError> {
        let slot = match self.open.iter().position(Option::is_none) {
            Some(slot) => slot,
            None if self.open.len() < self.options.open_files_max.max(1) => {
                self.open.push(None);
                self.open.len() - 1
            }
            None => {
                // Nothing follows an error.
                self.waiting.clear();
                self.due.clear();
                self.current = None;
                self.open.clear();
                return Err(SourceError::TooManyOverlap { path: w.path, max: self.options.open_files_max });
            }
        };
        let (mut reader, ready) = match w.reader {
            // A pipe among several files stands on its first frame already.
            Some(reader) if reader.frame().is_some() => (reader, true),
            Some(reader) => (reader, false),
            None => {
                let totals = self.bytes_total;
                match self.open_file(&w.path) {
                    Ok((reader, _)) => {
                        // The totals were counted when it was looked at.
                        self.bytes_total = totals;
                        (Box::new(reader), false)
                    }
                    Err(e) => {
                        self.bytes_total = totals;
                        self.books.counters.files_failed_total += 1;
                        self.books.problem(FileProblem::unreadable(&w.path, &e));
                        return Ok(());
                    }
                }
            }
        };
        if ready || reader.advance(&mut self.books) {
            self.due.push(Reverse((reader.time(), w.order, slot)));
            self.open[slot] = Some((w.order, reader));
        }
        Ok(())
    }
}

impl PacketSource for FileSource {
    #[inline]
    fn next_frame(&mut self) -> Result<Polled<'_>, SourceError> {
        self.select()?;
        let Some(slot) = self.current else { return Ok(Polled::End) };
        self.used = true;
        let frame = self.open.get(slot).and_then(|o| o.as_ref()).and_then(|(_, reader)| reader.frame());
        Ok(frame.map_or(Polled::End, Polled::Frame))
    }

    fn counters(&self) -> CaptureCounters {
        self.books.counters
    }

    #[inline]
    fn fresh_secrets(&mut self) -> Result<&[Secrets], SourceError> {
        self.select()?;
        let from = std::mem::replace(&mut self.secrets_returned, self.books.secrets().len());
        Ok(&self.books.secrets()[from..])
    }
}

/// Opens a file or standard input; the length is that of a regular file.
///
/// Files are read, not mapped: one that is cut while we read it ends early instead of killing us.
fn open_bytes(path: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>), SourceError> {
    let open = |source| SourceError::Open { path: path.to_path_buf(), source };
    if path.as_os_str() == "-" {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path).map_err(open)?;
    let meta = file.metadata().map_err(open)?;
    Ok((Box::new(file), meta.is_file().then_some(meta.len())))
}

/// Reads `data` as a capture file and checks what must hold for any bytes.
#[doc(hidden)]
pub fn fuzz_pcap_file(data: &[u8]) {
    let options = FileOptions { buffer_bytes: 4096, ..FileOptions::default() };
    let Ok(mut source) = FileSource::from_reader("fuzz", Cursor::new(data.to_vec()), options) else { return };
    let (mut newest, mut frames, mut bytes) = (Timestamp::ZERO, 0, 0);
    // A few bytes of gzip can hold a million frames.
    while frames < 200_000 {
        match source.next_frame() {
            Ok(Polled::Frame(frame)) => {
                assert!(frame.time >= newest, "time went back");
                newest = frame.time;
                frames += 1;
                bytes += frame.bytes.len() as u64;
            }
            Ok(Polled::Idle(_)) => panic!("files are never idle"),
            Ok(Polled::End) => {
                let c = source.counters();
                assert_eq!((c.frames_total, c.bytes_total), (frames, bytes));
                assert_eq!(
                    c.stream_bytes_total,
                    c.bytes_total + c.overhead_bytes_total + c.damaged_bytes_total
                );
                assert_eq!(c.records_damaged_total > 0, !source.problems().is_empty());
                assert!(matches!(source.next_frame(), Ok(Polled::End)), "the end stays");
                return;
            }
            Err(e) => panic!("one file can't fail once open: {e}"),
        }
    }
}
