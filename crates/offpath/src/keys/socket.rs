//! A Unix socket that programs stream their key logs to.
//!
//! Only the user that Offpath runs as may write to it (mode 0600). It is made in a folder of its own that nobody else
//! can enter and then takes its name, so there is no moment at which others could connect.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use offpath_protocol::{KeyLine, KeyLogCounters, KeyLogParser};
use zeroize::Zeroizing;

use super::{LiveCounters, PIECE_BYTES};

/// Writers at once. Past it: a new one is refused.
const WRITERS_MAX: usize = 64;

struct Writer {
    stream: UnixStream,
    parser: KeyLogParser,
}

/// A socket for key logs, which goes when this is dropped.
pub(super) struct Socket {
    path: PathBuf,
    listener: UnixListener,
    id: (u64, u64),
    writers: Vec<Writer>,
    /// Of writers that have gone.
    counters: KeyLogCounters,
    piece: Zeroizing<Vec<u8>>,
}

impl Socket {
    /// Makes the socket; what an earlier run left behind gives way, if nobody listens there.
    ///
    /// # Errors
    /// Something else has the name, or it cannot be made.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "is there already, and is no socket",
                ));
            }
            Ok(_) => match UnixStream::connect(path) {
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
                Ok(_) => {
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
                }
                Err(e) => return Err(e),
            },
        }
        let listener = bind(path)?;
        listener.set_nonblocking(true)?;
        let made = std::fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            listener,
            id: (made.dev(), made.ino()),
            writers: Vec::new(),
            counters: KeyLogCounters::default(),
            piece: Zeroizing::new(vec![0; PIECE_BYTES]),
        })
    }

    /// Takes in new writers and reads a piece of each; false where there was nothing new.
    pub(super) fn poll(&mut self, lines: &mut Vec<KeyLine>, counters: &mut LiveCounters) -> bool {
        let mut busy = false;
        for _ in 0..WRITERS_MAX {
            let Ok((stream, _)) = self.listener.accept() else { break };
            busy = true;
            if self.writers.len() < WRITERS_MAX && stream.set_nonblocking(true).is_ok() {
                counters.writers_total += 1;
                self.writers.push(Writer { stream, parser: KeyLogParser::default() });
            } else {
                counters.writers_refused_total += 1;
            }
        }
        let (piece, gone) = (&mut self.piece, &mut self.counters);
        self.writers.retain_mut(|writer| match writer.stream.read(piece) {
            Ok(count) if count > 0 => {
                busy = true;
                writer.parser.push(&piece[..count], lines);
                true
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => true,
            end => {
                counters.reads_failed_total += u64::from(end.is_err());
                writer.parser.finish(lines);
                gone.merge(writer.parser.counters());
                false
            }
        });
        busy
    }

    /// Ends all writers: a last line needs no line end.
    pub(super) fn finish(&mut self, lines: &mut Vec<KeyLine>) {
        for mut writer in self.writers.drain(..) {
            writer.parser.finish(lines);
            self.counters.merge(writer.parser.counters());
        }
    }

    /// Counts of lines, of all writers.
    pub(super) fn counters(&self) -> KeyLogCounters {
        let mut sum = self.counters;
        self.writers.iter().for_each(|writer| sum.merge(writer.parser.counters()));
        sum
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Where privileges were dropped this may not be allowed: the next run replaces it.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.id) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = parent.join(format!(".offpath-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&folder)?;
    let inside = folder.join("s");
    let made = UnixListener::bind(&inside).and_then(|listener| {
        std::fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
        std::fs::rename(&inside, path)?;
        Ok(listener)
    });
    if made.is_err() {
        let _ = std::fs::remove_file(&inside);
    }
    std::fs::remove_dir(&folder)?;
    made
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(random: u8) -> String {
        format!("CLIENT_RANDOM {} {}\n", format!("{random:02x}").repeat(32), "ab".repeat(48))
    }

    fn drain(socket: &mut Socket, lines: &mut Vec<KeyLine>, c: &mut LiveCounters) {
        while socket.poll(lines, c) {}
    }

    #[test]
    fn several_writers_stream_lines_and_may_go_at_any_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.sock");
        let (mut lines, mut c) = (Vec::new(), LiveCounters::default());
        let mut socket = Socket::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the folder it was made in is gone");
        let mut writers: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let text = line(1);
        writers[0].write_all(&text.as_bytes()[..20]).unwrap();
        writers[1].write_all((line(2) + "nonsense\n").as_bytes()).unwrap();
        drain(&mut socket, &mut lines, &mut c);
        assert_eq!(lines.len(), 1, "lines of two writers are kept apart");
        writers[0].write_all(&text.as_bytes()[20..]).unwrap();
        writers[2].write_all(line(3).trim_end().as_bytes()).unwrap();
        drain(&mut socket, &mut lines, &mut c);
        assert_eq!(lines.len(), 2);
        drop(writers);
        drain(&mut socket, &mut lines, &mut c);
        let counts = socket.counters();
        assert_eq!((lines.len(), counts.lines_used_total, counts.lines_invalid_total), (3, 3, 1));
        assert_eq!((c.writers_total, socket.writers.len()), (3, 0));

        let many: Vec<_> = (0..WRITERS_MAX + 2)
            .map(|_| {
                let writer = UnixStream::connect(&path).unwrap();
                socket.poll(&mut lines, &mut c);
                writer
            })
            .collect();
        assert_eq!((c.writers_refused_total, socket.writers.len()), (2, WRITERS_MAX));
        drop(many);
        let busy = Socket::open(&path).err().map(|e| e.kind());
        assert_eq!(busy, Some(io::ErrorKind::AddrInUse));
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_run_left_behind_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves it");
        let socket = Socket::open(&path).unwrap();
        // Another process has taken the name in the meantime: it is not ours to remove.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a file").unwrap();
        drop(socket);
        assert!(path.exists());
        assert!(Socket::open(&path).is_err(), "a file is not replaced");
        assert!(Socket::open(&folder.path().join("missing/keys.sock")).is_err());
    }
}
