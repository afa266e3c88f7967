//! Files that are rewritten whole: the stats (ledger, latencies, the state of delivery) as JSON, and the inventory.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::inventory::{self, Inventory, Syntax};
use crate::judge::Judge;
use crate::ledger::Ledger;

/// A file that lines are added to, or standard output; behind a large buffer.
pub(crate) struct Lines {
    out: BufWriter<Box<dyn Write + Send>>,
    name: String,
}

impl Lines {
    /// Opens `path`; `-` is standard output.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let sink: Box<dyn Write + Send> = match create(path)? {
            Some(file) => Box::new(file),
            None => Box::new(io::stdout()),
        };
        let name = path.display().to_string();
        Ok(Self { out: BufWriter::with_capacity(LINES_BUFFER_BYTES, sink), name })
    }

    /// Adds bytes.
    #[inline]
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|e| unwritable(&self.name, e))
    }

    /// Sees to it that all that was added is written.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|e| unwritable(&self.name, e))
    }
}

/// Bytes of lines that are collected before they are written.
const LINES_BUFFER_BYTES: usize = 1 << 18;

/// Makes the file `path`; nothing for `-`, standard output.
fn create(path: &Path) -> Result<Option<File>, Failure> {
    if path == Path::new("-") {
        return Ok(None);
    }
    File::create(path)
        .map(Some)
        .with_context(|| format!("cannot write {}", path.display()))
        .map_err(Failure::usage)
}

#[cold]
fn unwritable(name: &str, error: io::Error) -> Failure {
    Failure::ours(anyhow::Error::new(error).context(format!("cannot write {name}")))
}

/// A file that is opened before privileges are dropped and rewritten whole; or standard output.
struct Rewritten {
    file: Option<File>,
    name: String,
}

impl Rewritten {
    /// Opens `path`; `-` is standard output.
    fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self { file: create(path)?, name: path.display().to_string() })
    }

    /// Has `write` write it anew. What is no regular file (a pipe, `/dev/null`) is written on.
    fn write(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
        let written = match &mut self.file {
            None => buffered(io::stdout(), write),
            Some(file) => rewrite(file, write),
        };
        written.map_err(|e| unwritable(&self.name, e))
    }
}

fn rewrite(mut file: &File, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    if !file.metadata()?.is_file() {
        return buffered(file, write);
    }
    file.seek(SeekFrom::Start(0))?;
    buffered(file, write)?;
    let len = file.stream_position()?;
    file.set_len(len)
}

fn buffered(out: impl Write, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
    write(&mut out)?;
    out.flush()
}

/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 64 * 1024;

/// The file of the inventory.
pub(crate) struct InventoryFile {
    file: Arc<Mutex<Rewritten>>,
    syntax: Syntax,
    /// Writes it beside the traffic.
    writer: Option<JoinHandle<Result<(), Failure>>>,
}

impl InventoryFile {
    /// Opens `path`; its name says which syntax is written.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let file = Arc::new(Mutex::new(Rewritten::open(path)?));
        Ok(Self { file, syntax: Syntax::of(path), writer: None })
    }

    /// Writes the inventory as it is now.
    pub(crate) fn write(&mut self, inventory: &Inventory) -> Result<(), Failure> {
        // What went wrong before does not count where this goes well.
        if let Some(Err(_)) = self.writer.take().map(JoinHandle::join) {
            return Err(Failure::ours(anyhow::anyhow!("the thread that writes the inventory panicked")));
        }
        write_inventory(&self.file, inventory, self.syntax)
    }

    /// Writes the inventory as it is now in a thread of its own: a large one takes seconds, and nobody may wait for
    /// it. Where the last time is not over yet, nothing begins.
    ///
    /// # Errors
    /// What went wrong the last time.
    pub(crate) fn write_aside(&mut self, inventory: &Inventory) -> Result<(), Failure> {
        if self.writer.as_ref().is_some_and(|writer| !writer.is_finished()) {
            return Ok(());
        }
        let last = self.writer.take().map(JoinHandle::join);
        let (file, inventory, syntax) = (Arc::clone(&self.file), inventory.clone(), self.syntax);
        let writer = thread::Builder::new().name("inventory".into());
        let writer = writer.spawn(move || write_inventory(&file, &inventory, syntax));
        self.writer = Some(writer.context("cannot start a thread").map_err(Failure::ours)?);
        match last {
            None => Ok(()),
            Some(Ok(done)) => done,
            Some(Err(_)) => Err(Failure::ours(anyhow::anyhow!("the thread panicked"))),
        }
    }
}

fn write_inventory(file: &Mutex<Rewritten>, inventory: &Inventory, syntax: Syntax) -> Result<(), Failure> {
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    file.write(|mut out| inventory::write(inventory, syntax, &mut out))
}

/// The stats file.
pub(crate) struct StatsFile(Rewritten);

impl StatsFile {
    /// Opens `path`; `-` is standard output.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        Rewritten::open(path).map(Self)
    }

    /// Writes the stats as they are now. While `running`, threads are counted at different times and hold what is not
    /// finished, so nothing is said of balance.
    pub(crate) fn write(&mut self, ledger: &Ledger, judge: &mut Judge, running: bool) -> Result<(), Failure> {
        let mut value = stats(ledger, judge);
        if running && let Some(members) = value.as_object_mut() {
            members.remove("balance");
            members.remove("balanced");
            members.insert("running".into(), Value::Bool(true));
        }
        let mut text = serde_json::to_string_pretty(&value).map_err(|e| Failure::ours(e.into()))?;
        text.push('\n');
        self.0.write(|out| out.write_all(text.as_bytes()))
    }
}

fn stats(ledger: &Ledger, judge: &mut Judge) -> Value {
    let mut value = ledger.to_json();
    value["latency"] = json!({ "packet_to_decision_us": latency(&judge.detection_us) });
    if let Some(delivery) = judge.delivery() {
        value["delivery"] = crate::delivery::stats(&delivery.stats());
    }
    value
}

/// Returns a latency as a line of the report; empty where nothing was recorded.
pub(crate) fn latency_line(name: &str, h: &Histogram<u64>) -> String {
    if h.is_empty() {
        return String::new();
    }
    let ms = |q| h.value_at_quantile(q) as f64 / 1000.0;
    format!("Latency {name}: p50 {:.1} ms, p99 {:.1} ms ({} measured)\n", ms(0.5), ms(0.99), h.len())
}

/// Returns the quantiles of a histogram in µs; null where nothing was recorded.
pub(crate) fn latency(h: &Histogram<u64>) -> Value {
    if h.is_empty() {
        return Value::Null;
    }
    json!({
        "count": h.len(),
        "p50": h.value_at_quantile(0.5),
        "p90": h.value_at_quantile(0.9),
        "p99": h.value_at_quantile(0.99),
        "max": h.max(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_are_rewritten_whole_and_others_written_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats.json");
        let mut file = Rewritten::open(&path).unwrap();
        for text in ["long text", "short", ""] {
            file.write(|out| out.write_all(text.as_bytes())).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let mut null = Rewritten::open(Path::new("/dev/null")).unwrap();
        null.write(|out| out.write_all(b"a")).unwrap();
        // A pipe, by the name that Linux has for it.
        let (mut reader, writer) = io::pipe().unwrap();
        let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
        let mut pipe = Rewritten::open(Path::new(&name)).unwrap();
        drop(writer);
        for text in ["one ", "two"] {
            pipe.write(|out| out.write_all(text.as_bytes())).unwrap();
        }
        drop(pipe);
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "one two");
        let mut full = Rewritten::open(Path::new("/dev/full")).unwrap();
        assert!(full.write(|out| out.write_all(b"a")).is_err());
    }

    #[test]
    fn an_inventory_that_cannot_be_written_says_so_the_next_time_and_at_the_end() {
        let limits = crate::config::Config::default().inventory_limits();
        let inventory = Inventory::new(limits);
        let mut file = InventoryFile::open(Path::new("/dev/full")).unwrap();
        file.write_aside(&inventory).unwrap();
        while !file.writer.as_ref().unwrap().is_finished() {
            thread::yield_now();
        }
        assert!(file.write_aside(&inventory).is_err());
        assert!(file.write(&inventory).is_err());

        let out = tempfile::NamedTempFile::new().unwrap();
        let mut file = InventoryFile::open(out.path()).unwrap();
        file.write_aside(&inventory).unwrap();
        file.write(&inventory).unwrap();
        let text = std::fs::read_to_string(out.path()).unwrap();
        assert!(text.contains("3.1.0") && text.ends_with("}\n"), "{text}");
    }
}
