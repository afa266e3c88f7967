//! Which files there are to follow, which of them were read, and which comes next.
//!
//! Remembers nothing but what is there: what is gone at a look is forgotten, so its inode may be used again. A file
//! that was read counts as another one once it is shorter than what was read of it, or begins with another frame: some
//! writers of rings begin their files anew in place (`tcpdump -W`).

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use offpath_types::Timestamp;

use crate::reader::{Books, CaptureReader};
use crate::{SourceError, paths};

/// What tells a file from others: device, inode and, where the file system has it, the time of birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct FileId(u64, u64, Option<SystemTime>);

impl FileId {
    fn of(meta: &Metadata) -> Self {
        Self(meta.dev(), meta.ino(), meta.created().ok())
    }
}

/// A file that was there at the last look.
struct Known {
    path: PathBuf,
    /// Time of the first frame; the end of time where there is none yet.
    first: Timestamp,
    /// Bytes that were read of it; `None` where it was not opened.
    read: Option<u64>,
    modified: Option<SystemTime>,
    grew_late: bool,
}

/// The files that some names stand for, over time.
// Invariant: `unread` is sorted from the latest to the earliest, and holds what of `known` was not opened at the last
// look. Both are bounded by the files that are there.
pub(crate) struct Followed {
    named: Vec<PathBuf>,
    known: HashMap<FileId, Known>,
    unread: Vec<(Timestamp, PathBuf, FileId)>,
    current: Option<(FileId, Arc<Ending>)>,
    /// Wait between two looks, and what of it is over.
    rescan_ms: u32,
    waited_ms: u32,
    /// Files opened since the last look.
    opened: usize,
    grown_late: u64,
}

impl Followed {
    /// Follows what `named` names. None of it need be there yet.
    pub(crate) fn new(named: &[PathBuf], rescan_ms: u16) -> Self {
        Self {
            named: named.to_vec(),
            known: HashMap::new(),
            unread: Vec::new(),
            current: None,
            rescan_ms: u32::from(rescan_ms),
            waited_ms: u32::MAX,
            opened: 0,
            grown_late: 0,
        }
    }

    /// Says that `ms` went by.
    pub(crate) const fn wait(&mut self, ms: u16) {
        self.waited_ms = self.waited_ms.saturating_add(ms as u32);
    }

    /// Tells whether there is a file to go on with; looks around again at most once a `rescan_ms`.
    pub(crate) fn has_next(&mut self) -> bool {
        if self.waited_ms >= self.rescan_ms {
            self.look();
        }
        !self.unread.is_empty()
    }

    /// Opens the file to go on with, if there is one: of those not read the one whose first frame is earliest, at equal
    /// times the first by name. One without a frame is as late as can be. `all` looks around again before saying no.
    pub(crate) fn open_next(&mut self, all: bool) -> Option<Result<(PathBuf, Tail), (PathBuf, io::Error)>> {
        if all && self.unread.is_empty() {
            self.look();
        }
        if !self.has_next() {
            return None;
        }
        let (_, path, id) = self.unread.pop()?;
        self.opened += 1;
        let opened = File::open(&path).and_then(|file| Ok((FileId::of(&file.metadata()?), file)));
        // Failed or not, it is not opened again unless it changes.
        if let Some(known) = self.known.get_mut(&id) {
            known.read = Some(0);
        }
        Some(match opened {
            Ok((now, file)) => {
                let ending = Arc::new(Ending::default());
                if now != id
                    && let Some(mut known) = self.known.remove(&id)
                {
                    // Replaced since the look.
                    known.first = Timestamp::MAX;
                    self.known.insert(now, known);
                }
                self.current = Some((now, Arc::clone(&ending)));
                Ok((path, Tail { file, ending }))
            }
            Err(e) => Err((path, e)),
        })
    }

    /// Has the file that is read end where it ends now; tells whether that is news.
    pub(crate) fn end_current(&mut self) -> bool {
        self.current.as_ref().is_some_and(|(_, ending)| !ending.last.swap(true, Ordering::Relaxed))
    }

    /// Says that the current file had a first frame.
    #[inline]
    pub(crate) fn began(&mut self, time: Timestamp) {
        if let Some((id, _)) = &self.current
            && let Some(known) = self.known.get_mut(id)
        {
            known.first = time;
        }
    }

    /// Says that the current file was read to its end.
    pub(crate) fn left(&mut self) {
        if let Some((id, ending)) = self.current.take()
            && let Some(known) = self.known.get_mut(&id)
        {
            let mut read = ending.bytes.load(Ordering::Relaxed);
            if !ending.reached.load(Ordering::Relaxed) {
                // Its rest was given up.
                read = read.max(std::fs::metadata(&known.path).map_or(0, |meta| meta.len()));
            }
            known.read = Some(read);
        }
        // Soon, but not after each of very many small files.
        if self.opened * 64 >= self.known.len() {
            self.waited_ms = u32::MAX;
        }
    }

    /// Returns how many files grew after they were left.
    pub(crate) const fn grown_late(&self) -> u64 {
        self.grown_late
    }

    #[cfg(test)]
    pub(crate) fn known_len(&self) -> usize {
        self.known.len()
    }

    /// Finds out what there is now.
    fn look(&mut self) {
        (self.waited_ms, self.opened) = (0, 0);
        let mut old = std::mem::take(&mut self.known);
        let mut certain = true;
        let named = std::mem::take(&mut self.named);
        for name in &named {
            // Nothing there yet is no error: it may come.
            let files = match paths::expand(std::slice::from_ref(name)) {
                Ok(files) => files.paths,
                Err(SourceError::NoFiles { .. }) => continue,
                Err(SourceError::Open { source, .. }) if is_gone(&source) => continue,
                Err(_) => {
                    certain = false;
                    continue;
                }
            };
            for path in files {
                let meta = match std::fs::metadata(&path) {
                    Ok(meta) => meta,
                    Err(e) => {
                        certain &= is_gone(&e);
                        continue;
                    }
                };
                let id = FileId::of(&meta);
                if meta.is_file() && meta.len() > 0 && !self.known.contains_key(&id) {
                    let known = self.looked_at(id, path, &meta, old.remove(&id));
                    self.known.insert(id, known);
                }
            }
        }
        self.named = named;
        if !certain {
            // What could not be looked at may still be there, and would be read twice.
            for (id, known) in old {
                self.known.entry(id).or_insert(known);
            }
        }
        let unread = self.known.iter().filter(|(_, known)| known.read.is_none());
        self.unread = unread.map(|(id, known)| (known.first, known.path.clone(), *id)).collect();
        self.unread.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// Returns what is to be known of a file that is there, `old` being what was known.
    fn looked_at(&mut self, id: FileId, path: PathBuf, meta: &Metadata, old: Option<Known>) -> Known {
        let modified = meta.modified().ok();
        let fresh = |path: PathBuf, first| Known { path, first, read: None, modified, grew_late: false };
        let Some(mut known) = old else {
            let first = first_time(&path);
            return fresh(path, first);
        };
        known.path = path;
        let changed = std::mem::replace(&mut known.modified, modified) != modified;
        let current = self.current.as_ref().filter(|(current, _)| *current == id).map(|(_, ending)| ending);
        let read = current.map(|ending| ending.bytes.load(Ordering::Relaxed)).or(known.read);
        let Some(read) = read else {
            if known.first == Timestamp::MAX || changed {
                known.first = first_time(&known.path);
            }
            return known;
        };
        if !changed && meta.len() == read {
            return known;
        }
        let first = if changed || meta.len() < read { first_time(&known.path) } else { known.first };
        let other = first != Timestamp::MAX && known.first != Timestamp::MAX && first != known.first;
        // Of a file that was left before it had a frame, none was read.
        let late = current.is_none() && known.first == Timestamp::MAX && first != Timestamp::MAX;
        if meta.len() < read || other || late {
            if let Some(ending) = current {
                ending.replaced.store(true, Ordering::Relaxed);
                self.current = None;
            }
            return fresh(known.path, first);
        }
        if current.is_none() && meta.len() > read && known.first != Timestamp::MAX && !known.grew_late {
            known.grew_late = true;
            self.grown_late += 1;
        }
        known
    }
}

fn is_gone(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Returns the time of the first frame, or the end of time where there is none yet.
fn first_time(path: &Path) -> Timestamp {
    let Ok(file) = File::open(path) else { return Timestamp::MAX };
    let Ok(mut reader) = CaptureReader::open(path, Box::new(file), 4096) else { return Timestamp::MAX };
    if reader.advance(&mut Books::default()) { reader.time() } else { Timestamp::MAX }
}

/// What is said of the end of a file while it is read.
#[derive(Default)]
struct Ending {
    /// The end of what is there is the end.
    last: AtomicBool,
    /// What is there is not what was read from any more.
    replaced: AtomicBool,
    /// The end was read.
    reached: AtomicBool,
    /// Bytes read.
    bytes: AtomicU64,
}

/// A file whose end only counts once it is said to be the last one.
pub(crate) struct Tail {
    file: File,
    ending: Arc<Ending>,
}

impl Read for Tail {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.ending.replaced.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let last = self.ending.last.load(Ordering::Relaxed);
        let read = self.ending.bytes.load(Ordering::Relaxed);
        match self.file.read(buf)? {
            // What was written before it was said is read; of what was cut short nothing more comes.
            0 if !last && self.file.metadata()?.len() >= read => Err(io::ErrorKind::WouldBlock.into()),
            n => {
                self.ending.reached.store(n == 0 && !buf.is_empty(), Ordering::Relaxed);
                self.ending.bytes.store(read + n as u64, Ordering::Relaxed);
                Ok(n)
            }
        }
    }
}
