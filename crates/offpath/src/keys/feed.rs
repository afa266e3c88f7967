//! Live key logs: read in a thread of their own, told to every worker.
//!
//! Nobody knows which worker owns the flow that a line is of, so each gets all of them; its store is bounded. Queues are
//! bounded as well: a full one makes this thread wait, and the writers with it; capture never waits.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};
use offpath_protocol::{KeyLine, KeyLogCounters};
use offpath_types::counters;

use super::log_file::LogFile;
use super::socket::Socket;
use crate::exit::Failure;

/// How the name of a socket begins.
const SOCKET_PREFIX: &str = "unix://";
/// Pause where nothing is new.
const PAUSE: Duration = Duration::from_millis(5);
/// Batches of lines that wait at one worker; each comes of at most `PIECE_BYTES` of each log.
const QUEUE_BATCHES: usize = 16;
/// Longest wait for a worker before it is looked whether to stop.
const SEND_WAIT: Duration = Duration::from_millis(100);
/// Pieces read after the end was asked for.
const LAST_PIECES: u32 = 1024;
/// Longest wait of a worker for the last lines.
const LAST_WAIT: Duration = Duration::from_secs(1);

counters! {
    /// What befell live key logs.
    pub struct LiveCounters {
        /// Times that a key log file was read from its start again: another had its name, or it was cut short.
        files_reopened_total,
        /// Times that a key log file that has come could not be opened.
        opens_failed_total,
        /// Reads of a file or from a writer that failed.
        reads_failed_total,
        /// Programs that connected to the socket.
        writers_total,
        /// Programs that were refused, since too many were connected.
        writers_refused_total,
    }
}

enum Source {
    File(LogFile),
    Socket(Socket),
}

/// Counts that the thread publishes.
type Published = Arc<Mutex<(KeyLogCounters, LiveCounters)>>;

/// Lines on their way to one worker.
pub(crate) type Lines = Arc<Vec<KeyLine>>;

/// Live key logs, open and not read yet.
pub(crate) struct Logs {
    sources: Vec<Source>,
    counters: LiveCounters,
}

impl Logs {
    /// Opens files and makes sockets: before privileges are dropped.
    pub(crate) fn open(names: &[PathBuf], quiet: bool) -> Result<Self, Failure> {
        let mut sources = Vec::new();
        for name in names {
            sources.push(match socket_path(name) {
                Some(path) => {
                    let socket = Socket::open(path)
                        .with_context(|| format!("cannot make the key log socket {}", path.display()))
                        .map_err(Failure::input)?;
                    Source::Socket(socket)
                }
                None => {
                    let file = LogFile::open(name)
                        .with_context(|| format!("cannot read the key log {}", name.display()))
                        .map_err(Failure::input)?;
                    if !file.is_there() && !quiet {
                        eprintln!("offpath: the key log {} is not there yet", name.display());
                    }
                    Source::File(file)
                }
            });
        }
        Ok(Self { sources, counters: LiveCounters::default() })
    }

    /// Reads what is there now, a piece at a time.
    pub(crate) fn read_now(&mut self, mut take: impl FnMut(&KeyLine)) {
        let mut lines = Vec::new();
        while self.poll(&mut lines, true) {
            lines.drain(..).for_each(|line| take(&line));
        }
        lines.drain(..).for_each(|line| take(&line));
    }

    /// Reads on in a thread, until `stop`; returns one receiver a worker. Without logs there is no thread.
    pub(crate) fn start(
        self,
        workers: usize,
        stop: Arc<AtomicBool>,
    ) -> Result<(Feed, Vec<Receiver<Lines>>), Failure> {
        let (senders, receivers) = (0..workers).map(|_| bounded(QUEUE_BATCHES)).unzip();
        let published = Published::default();
        if self.sources.is_empty() {
            return Ok((Feed { thread: None, published }, receivers));
        }
        let shared = Arc::clone(&published);
        let thread = thread::Builder::new()
            .name("keylog".into())
            .spawn(move || self.run(senders, &stop, &shared))
            .context("cannot start the key log thread")
            .map_err(Failure::ours)?;
        Ok((Feed { thread: Some(thread), published }, receivers))
    }

    fn run(mut self, mut workers: Vec<Sender<Lines>>, stop: &AtomicBool, published: &Published) {
        let mut last = 0;
        loop {
            let stopping = stop.load(Ordering::Relaxed);
            let mut lines = Vec::new();
            let busy = self.poll(&mut lines, stopping);
            last += u32::from(stopping);
            let over = stopping && (!busy || last >= LAST_PIECES);
            if over {
                for source in &mut self.sources {
                    match source {
                        Source::File(file) => file.finish(&mut lines),
                        Source::Socket(socket) => socket.finish(&mut lines),
                    }
                }
            }
            *published.lock().unwrap_or_else(PoisonError::into_inner) = (self.lines_counted(), self.counters);
            if !lines.is_empty() {
                let lines = Arc::new(lines);
                workers.retain(|worker| send(worker, &lines, stop));
            }
            if over {
                return;
            }
            if !busy {
                thread::sleep(PAUSE);
            }
        }
    }

    fn poll(&mut self, lines: &mut Vec<KeyLine>, look: bool) -> bool {
        let mut busy = false;
        for source in &mut self.sources {
            busy |= match source {
                Source::File(file) => file.poll(lines, &mut self.counters, look),
                Source::Socket(socket) => socket.poll(lines, &mut self.counters),
            };
        }
        busy
    }

    fn lines_counted(&self) -> KeyLogCounters {
        let mut sum = KeyLogCounters::default();
        for source in &self.sources {
            match source {
                Source::File(file) => sum.merge(file.parser().counters()),
                Source::Socket(socket) => sum.merge(&socket.counters()),
            }
        }
        sum
    }
}

/// Gives lines to a worker; false where it has gone, or does not take them at the end.
fn send(worker: &Sender<Lines>, lines: &Lines, stop: &AtomicBool) -> bool {
    let mut lines = Arc::clone(lines);
    let mut tries = 0;
    loop {
        match worker.send_timeout(lines, SEND_WAIT) {
            Ok(()) => return true,
            Err(SendTimeoutError::Disconnected(_)) => return false,
            Err(SendTimeoutError::Timeout(back)) => lines = back,
        }
        tries += u32::from(stop.load(Ordering::Relaxed));
        if tries > 20 {
            return false;
        }
    }
}

/// The thread that reads live key logs.
pub(crate) struct Feed {
    thread: Option<thread::JoinHandle<()>>,
    published: Published,
}

impl Feed {
    /// Returns the counts so far.
    pub(crate) fn counters(&self) -> (KeyLogCounters, LiveCounters) {
        *self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the thread, which was told to stop; returns the counts.
    pub(crate) fn finish(&mut self) -> Result<(KeyLogCounters, LiveCounters), Failure> {
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            return Err(Failure::ours(anyhow::anyhow!("the key log thread panicked")));
        }
        Ok(self.counters())
    }
}

/// Yields the lines that are left once the logs were told to stop, waiting for the last ones.
pub(crate) fn last_lines(feed: &Receiver<Lines>) -> impl Iterator<Item = Lines> {
    std::iter::from_fn(move || feed.recv_timeout(LAST_WAIT).ok())
}

/// Returns the path of a socket where `name` is one.
pub(crate) fn socket_path(name: &Path) -> Option<&Path> {
    name.to_str()?.strip_prefix(SOCKET_PREFIX).map(Path::new)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn line(random: u8) -> String {
        format!("CLIENT_RANDOM {} {}\n", format!("{random:02x}").repeat(32), "ab".repeat(48))
    }

    #[test]
    fn every_worker_gets_every_line_and_none_is_lost_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let (file, socket) = (folder.path().join("keys"), folder.path().join("sock"));
        std::fs::write(&file, line(1)).unwrap();
        let names = [file.clone(), format!("unix://{}", socket.display()).into()];
        let mut logs = Logs::open(&names, true).unwrap();
        let mut before = 0;
        logs.read_now(|_| before += 1);
        assert_eq!(before, 1);
        let stop = Arc::new(AtomicBool::new(false));
        let (mut feed, workers) = logs.start(2, Arc::clone(&stop)).unwrap();
        let mut writer = UnixStream::connect(&socket).unwrap();
        writer.write_all(line(2).as_bytes()).unwrap();
        let got = workers[0].recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(got.len(), 1, "while it runs");
        std::fs::write(&file, [line(1), line(3), "half".into()].concat()).unwrap();
        drop(writer);
        stop.store(true, Ordering::Relaxed);
        let rest: usize = last_lines(&workers[0]).map(|lines| lines.len()).sum();
        let all: usize = last_lines(&workers[1]).map(|lines| lines.len()).sum();
        assert_eq!((rest, all), (1, 2));
        let (counts, live) = feed.finish().unwrap();
        assert_eq!((counts.lines_total, counts.lines_used_total, counts.lines_invalid_total), (4, 3, 1));
        assert_eq!(live.writers_total, 1);
        assert!(!socket.exists());
    }
}
