//! A key log that is read as it grows.
//!
//! It may not be there yet, be cut short in place, or give way to another file of its name: it is read on from the
//! start then, the old one to its end first. What is read is wiped.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use offpath_protocol::{KeyLine, KeyLogParser};
use zeroize::Zeroizing;

use super::{LiveCounters, PIECE_BYTES};

/// Turns without news after which it is looked whether the file is still the one of its name.
const LOOK_TURNS: u32 = 5;

/// The file that was opened.
struct Opened {
    file: File,
    id: (u64, u64),
    /// Bytes read.
    read: u64,
    /// Another one has taken its name: this one is read to its end.
    leaving: bool,
}

/// A key log that grows.
pub(super) struct LogFile {
    path: PathBuf,
    opened: Option<Opened>,
    parser: KeyLogParser,
    piece: Zeroizing<Vec<u8>>,
    idle: u32,
    /// It was there once.
    seen: bool,
    /// That it cannot be opened was said.
    warned: bool,
}

impl LogFile {
    /// Opens `path`, which may not be there yet.
    ///
    /// # Errors
    /// It cannot be read, or is no file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut log = Self {
            path: path.to_owned(),
            opened: None,
            parser: KeyLogParser::default(),
            piece: Zeroizing::new(vec![0; PIECE_BYTES]),
            idle: 0,
            seen: false,
            warned: false,
        };
        match log.reopen() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(log),
            other => other.map(|()| log),
        }
    }

    /// Tells whether the file is there.
    pub(super) fn is_there(&self) -> bool {
        self.opened.is_some()
    }

    /// Counts of lines.
    pub(super) fn parser(&self) -> &KeyLogParser {
        &self.parser
    }

    fn reopen(&mut self) -> io::Result<()> {
        // A pipe would have us wait for its writer.
        if !std::fs::metadata(&self.path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no file"));
        }
        let file = File::open(&self.path)?;
        let id = id(&file.metadata()?);
        self.opened = Some(Opened { file, id, read: 0, leaving: false });
        Ok(())
    }

    /// Reads the next piece; false where there was nothing new. `look`: looks at the file's name in any case.
    pub(super) fn poll(&mut self, lines: &mut Vec<KeyLine>, counters: &mut LiveCounters, look: bool) -> bool {
        if let Some(opened) = &mut self.opened {
            self.seen = true;
            match opened.file.read(&mut self.piece) {
                Ok(0) => {}
                Ok(count) => {
                    opened.read += count as u64;
                    self.parser.push(&self.piece[..count], lines);
                    return true;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => return true,
                Err(_) => {
                    counters.reads_failed_total += 1;
                    self.leave(lines);
                }
            }
        }
        self.idle += 1;
        let leaving = self.opened.as_ref().is_some_and(|o| o.leaving);
        if look || leaving || self.idle >= LOOK_TURNS {
            self.idle = 0;
            return self.look(lines, counters);
        }
        false
    }

    /// Looks whether the file was replaced or cut; true where there is something to read.
    fn look(&mut self, lines: &mut Vec<KeyLine>, counters: &mut LiveCounters) -> bool {
        let named = std::fs::metadata(&self.path);
        if let Some(opened) = &mut self.opened {
            let cut = opened.file.metadata().is_ok_and(|now| now.len() < opened.read);
            if cut && opened.file.seek(SeekFrom::Start(0)).is_ok() {
                opened.read = 0;
                self.parser.finish(lines);
                counters.files_reopened_total += 1;
                return true;
            }
            if named.as_ref().is_ok_and(|named| id(named) == opened.id) {
                return false;
            }
            if named.is_err() {
                // Its name is gone; it is read on until there is another.
                return false;
            }
            if !std::mem::replace(&mut opened.leaving, true) {
                return true;
            }
            self.leave(lines);
        }
        if named.is_err() {
            return false;
        }
        match self.reopen() {
            Ok(()) => {
                counters.files_reopened_total += u64::from(self.seen);
                self.warned = false;
                true
            }
            Err(e) => {
                counters.opens_failed_total += 1;
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!("cannot open the key log {}: {e}", self.path.display());
                }
                false
            }
        }
    }

    fn leave(&mut self, lines: &mut Vec<KeyLine>) {
        self.opened = None;
        self.parser.finish(lines);
    }

    /// Ends the log: a last line needs no line end.
    pub(super) fn finish(&mut self, lines: &mut Vec<KeyLine>) {
        self.leave(lines);
    }
}

fn id(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(random: u8) -> String {
        format!("CLIENT_RANDOM {} {}\n", format!("{random:02x}").repeat(32), "ab".repeat(48))
    }

    /// Polls until nothing is new, looks at the file's name included.
    fn drain(log: &mut LogFile, counters: &mut LiveCounters) -> usize {
        let (mut lines, mut quiet) = (Vec::new(), 0);
        while quiet <= LOOK_TURNS {
            quiet = if log.poll(&mut lines, counters, false) { 0 } else { quiet + 1 };
        }
        lines.len()
    }

    #[test]
    fn a_log_is_followed_through_all_that_befalls_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let mut c = LiveCounters::default();
        let mut log = LogFile::open(&path).unwrap();
        assert!(!log.is_there());
        assert_eq!(drain(&mut log, &mut c), 0, "it is not there yet");
        let mut file = File::create(&path).unwrap();
        let second = line(2);
        file.write_all((line(1) + &second[..50]).as_bytes()).unwrap();
        assert_eq!(drain(&mut log, &mut c), 1, "half a line is none");
        file.write_all(&second.as_bytes()[50..]).unwrap();
        assert_eq!(drain(&mut log, &mut c), 1);
        assert_eq!(c.files_reopened_total, 0);

        file.set_len(0).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(line(3).as_bytes()).unwrap();
        assert_eq!((drain(&mut log, &mut c), c.files_reopened_total), (1, 1), "cut in place");

        // Rotated: the old one gets a last line, without its end, before the new one is there.
        std::fs::rename(&path, folder.path().join("keys.1")).unwrap();
        assert_eq!(drain(&mut log, &mut c), 0);
        file.write_all(line(4).trim_end().as_bytes()).unwrap();
        std::fs::write(&path, line(5)).unwrap();
        assert_eq!((drain(&mut log, &mut c), c.files_reopened_total), (2, 2), "another of its name");

        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!((drain(&mut log, &mut c), c.opens_failed_total > 0), (0, true), "no file");
        let mut lines = Vec::new();
        log.finish(&mut lines);
        assert_eq!((lines.len(), log.parser().counters().lines_used_total), (0, 5));
        assert!(LogFile::open(folder.path()).is_err());
    }
}
