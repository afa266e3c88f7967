//! One capture stream, of whatever format, frame by frame.

use std::io::Read;
use std::path::{Path, PathBuf};

use offpath_types::{Frame, LinkType, Timestamp};

use crate::buffer::Refill;
use crate::classic::{self, Classic};
use crate::input::{self, LAYERS_MAX};
use crate::ng::{self, Ng, Secrets};
use crate::snoop::{self, Snoop};
use crate::{CaptureCounters, Damage, FileProblem, SourceError};

/// Most bytes that a frame has in practice: libpcap's MAXIMUM_SNAPLEN.
pub(crate) const FRAME_BYTES_USUAL: u32 = 262_144;
/// Most bytes of a frame or block that are believed, whatever a file says of itself (libpcap's limit for
/// pcapng blocks).
pub(crate) const FRAME_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// After damage, how far a sound record is looked for.
const RESYNC_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Problems that are kept with their text; further ones are only counted.
const PROBLEMS_MAX: usize = 100;

/// Where the next frame lies in the window.
#[derive(Clone, Copy)]
pub(crate) struct Meta {
    pub(crate) time: Timestamp,
    pub(crate) link: LinkType,
    pub(crate) wire_len: u32,
    /// Start of the frame's bytes.
    pub(crate) at: usize,
    pub(crate) len: usize,
    /// Bytes of the whole record, to be consumed after the frame was used.
    pub(crate) total: usize,
}

/// What a format finds at the start of the window.
pub(crate) enum Step {
    Frame(Meta),
    End,
    /// Damage: `skip` bytes are to be skipped, or (`None`) the next sound record is to be searched.
    Bad {
        what: Damage,
        skip: Option<usize>,
    },
    /// The stream ends within a record.
    Cut {
        what: Damage,
    },
}

impl Step {
    #[cold]
    pub(crate) fn cut(needed: usize, available: usize) -> Self {
        Self::Cut { what: Damage::Cut { needed: needed as u64, available: available as u64 } }
    }
}

/// Bytes of secrets that are kept, each with what keeping it takes; what is past it is dropped and counted.
const SECRETS_BYTES_MAX: usize = 4 * 1024 * 1024;
const SECRETS_OVERHEAD: usize = 64;

/// What all streams of one source write into.
#[derive(Default)]
pub(crate) struct Books {
    pub(crate) counters: CaptureCounters,
    pub(crate) problems: Vec<FileProblem>,
    secrets: Vec<Secrets>,
    /// What `secrets` takes up.
    secrets_bytes: usize,
}

impl Books {
    /// Keeps secrets until they are taken, within a bound.
    pub(crate) fn keep_secrets(&mut self, found: Secrets) {
        let bytes = found.data.len() + SECRETS_OVERHEAD;
        if self.secrets_bytes + bytes > SECRETS_BYTES_MAX {
            self.counters.secrets_dropped_bytes_total += found.data.len() as u64;
        } else {
            self.secrets_bytes += bytes;
            self.secrets.push(found);
        }
    }

    /// Returns the secrets that are kept.
    pub(crate) fn secrets(&self) -> &[Secrets] {
        &self.secrets
    }

    /// Moves the secrets out: they count no more against the bound.
    pub(crate) fn take_secrets(&mut self) -> Vec<Secrets> {
        self.secrets_bytes = 0;
        std::mem::take(&mut self.secrets)
    }

    #[cold]
    pub(crate) fn problem(&mut self, problem: FileProblem) {
        self.counters.records_damaged_total += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }
}

enum Format {
    Classic(Classic),
    Ng(Ng),
    Snoop(Snoop),
}

/// Reads one capture.
// Invariant: `frame` is `Some` exactly while the frame's record is whole at the window's start.
pub(crate) struct CaptureReader {
    path: PathBuf,
    compressed: bool,
    buf: Refill,
    format: Format,
    newest: Timestamp,
    frame: Option<Meta>,
    header_bytes: u64,
    ended: bool,
    /// The end comes from us, wherever the capture stands.
    stopped: bool,
}

impl CaptureReader {
    /// Finds out the format of `input` (through gzip and zstd) and reads the file header.
    ///
    /// `buffer_bytes` is what the window starts with.
    pub(crate) fn open(
        path: &Path,
        input: Box<dyn Read + Send>,
        buffer_bytes: usize,
    ) -> Result<Self, SourceError> {
        let not = |found: String| SourceError::NotACapture { path: path.to_path_buf(), found };
        let broken = |source| SourceError::Open { path: path.to_path_buf(), source };
        let mut input = input;
        let mut layers = Vec::new();
        loop {
            let (start, whole) = input::peek(input).map_err(broken)?;
            input = whole;
            if layers.len() == LAYERS_MAX {
                break;
            }
            let Some(layer) = input::Layer::of(&start) else { break };
            input = layer.open(input);
            layers.push(layer.name());
        }
        let inside =
            if layers.is_empty() { String::new() } else { format!(" inside {}", layers.join(" inside ")) };
        let mut buf = Refill::new(input, buffer_bytes);
        buf.ensure(ng::SECTION_HEADER_MIN.max(classic::FILE_HEADER));
        if let Some(e) = buf.failure()
            && buf.window().len() < classic::FILE_HEADER
        {
            return Err(not(format!("can't be decompressed or read: {e}")));
        }
        let start = buf.window();
        let (format, name, need) = if Classic::is(start) {
            (Classic::new(start).map(Format::Classic), "pcap", classic::FILE_HEADER)
        } else if Ng::is(start) {
            (Ng::new(start).map(Format::Ng), "pcapng", ng::SECTION_HEADER_MIN)
        } else if Snoop::is(start) {
            (Snoop::new(start).map(Format::Snoop), "snoop", snoop::FILE_HEADER)
        } else {
            return Err(not(format!("{}{inside}", input::describe(start))));
        };
        let have = start.len();
        if have < need {
            return Err(not(format!("ends within its {name} header ({have} of {need} bytes){inside}")));
        }
        let Some(format) = format else {
            return Err(not(format!("has a {name} header of an unknown version or byte order{inside}")));
        };
        // The section header of pcapng is a block like others, and read as one.
        let header = if matches!(format, Format::Ng(_)) { 0 } else { need };
        buf.consume(header);
        Ok(Self {
            path: path.to_path_buf(),
            compressed: !layers.is_empty(),
            buf,
            format,
            newest: Timestamp::ZERO,
            frame: None,
            header_bytes: header as u64,
            ended: false,
            stopped: false,
        })
    }

    /// Goes on to the next frame; tells whether there is one.
    #[inline]
    pub(crate) fn advance(&mut self, books: &mut Books) -> bool {
        if let Some(done) = self.frame.take() {
            self.buf.consume(done.total);
        }
        if self.ended {
            return false;
        }
        loop {
            let step = match &mut self.format {
                Format::Classic(f) => f.next(&mut self.buf),
                Format::Ng(f) => f.next(&mut self.buf, books),
                Format::Snoop(f) => f.next(&mut self.buf),
            };
            // A snoop record without its padding is only the last one if nothing follows.
            let early = matches!((&step, &self.format), (Step::Frame(_), Format::Snoop(_)));
            if self.buf.is_pending() && (early || matches!(step, Step::End | Step::Cut { .. })) {
                // The step took nothing: it is tried again when there is more.
                return false;
            }
            match step {
                Step::Frame(mut meta) => {
                    if meta.time < self.newest {
                        meta.time = self.newest;
                        books.counters.time_backwards_total += 1;
                    }
                    self.newest = meta.time;
                    let c = &mut books.counters;
                    c.frames_total += 1;
                    c.bytes_total += meta.len as u64;
                    c.overhead_bytes_total += (meta.total - meta.len) as u64;
                    c.frames_snapped_total += u64::from(meta.wire_len as usize > meta.len);
                    self.frame = Some(meta);
                    return true;
                }
                Step::End => {
                    self.finish(None, books);
                    return false;
                }
                Step::Cut { what } => {
                    self.finish(Some(what), books);
                    return false;
                }
                Step::Bad { what, skip } => {
                    if !self.damaged(what, skip, books) {
                        self.finish(None, books);
                        return false;
                    }
                }
            }
        }
    }

    /// Says that the input ends because we stop: a record that is not whole then is no damage.
    pub(crate) const fn stop(&mut self) {
        self.stopped = true;
    }

    /// Ends here: what was read and not handed out is counted as such.
    pub(crate) fn abandon(&mut self, books: &mut Books) {
        if let Some(done) = self.frame.take() {
            self.buf.consume(done.total);
        }
        if !self.ended {
            self.stopped = true;
            self.finish(None, books);
        }
    }

    /// Tells whether [`CaptureReader::advance`] found nothing only because the input has nothing just now.
    pub(crate) fn is_pending(&self) -> bool {
        !self.ended && self.buf.is_pending()
    }

    /// Returns the time of the frame that [`CaptureReader::advance`] found.
    #[inline]
    pub(crate) fn time(&self) -> Timestamp {
        self.newest
    }

    /// Returns the frame that [`CaptureReader::advance`] found.
    #[inline]
    pub(crate) fn frame(&self) -> Option<Frame<'_>> {
        let meta = self.frame?;
        let bytes = self.buf.window().get(meta.at..meta.at + meta.len)?;
        Some(Frame { time: meta.time, link: meta.link, wire_len: meta.wire_len, bytes })
    }

    /// Records damage and goes past it; tells whether reading can go on.
    #[cold]
    fn damaged(&mut self, what: Damage, skip: Option<usize>, books: &mut Books) -> bool {
        let offset = self.buf.offset();
        let found = match skip {
            Some(n) => {
                self.buf.consume(n);
                true
            }
            None => self.resync(),
        };
        let skipped = self.buf.offset() - offset;
        books.counters.damaged_bytes_total += skipped;
        books.problem(FileProblem {
            path: self.path.clone(),
            offset,
            what,
            skipped: found.then_some(skipped),
            detail: None,
        });
        found
    }

    /// Moves the window to the next place where two sound records follow each other (or one, at the very
    /// end). Linear: each place is looked at once.
    fn resync(&mut self) -> bool {
        let Self { buf, format, .. } = self;
        let from = buf.offset();
        buf.reserve(4 * FRAME_BYTES_USUAL as usize);
        while buf.offset() - from < RESYNC_BYTES_MAX {
            buf.consume(1);
            if !buf.ensure(12) {
                break;
            }
            let (first, second) = match format {
                Format::Classic(f) => {
                    let Some((len, seconds)) = f.plausible(buf, 0, None) else { continue };
                    (len, f.plausible(buf, len, Some(seconds)).is_some())
                }
                Format::Ng(f) => {
                    let Some(len) = f.plausible(buf, 0) else { continue };
                    (len, f.plausible(buf, len).is_some())
                }
                Format::Snoop(f) => {
                    let Some(len) = f.plausible(buf, 0) else { continue };
                    (len, f.plausible(buf, len).is_some())
                }
            };
            if second || (buf.ensure(first) && !buf.ensure(first + 1)) {
                return true;
            }
        }
        false
    }

    /// Closes the books on the stream.
    #[cold]
    fn finish(&mut self, cut: Option<Damage>, books: &mut Books) {
        self.ended = true;
        let offset = self.buf.offset();
        let rest = self.buf.window().len();
        let failed = self.buf.failure().map(|e| (e.kind(), e.to_string()));
        self.buf.consume(rest);
        books.counters.damaged_bytes_total += rest as u64;
        books.counters.overhead_bytes_total += std::mem::take(&mut self.header_bytes);
        books.counters.stream_bytes_total += self.buf.bytes_in();
        if self.stopped {
            return;
        }
        let what = match (&failed, cut) {
            (Some((kind, _)), _) if self.compressed => Damage::Compression(*kind),
            (Some((kind, _)), _) => Damage::ReadFailed(*kind),
            (None, Some(what)) => what,
            (None, None) => return,
        };
        let detail =
            failed.map(|(_, text)| format!("{}: at byte {offset}: {what}: {text}", self.path.display()));
        books.problem(FileProblem { path: self.path.clone(), offset, what, skipped: None, detail });
    }
}
