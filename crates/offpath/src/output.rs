//! Files that are rewritten whole: the stats (ledger, latencies, the state of delivery) as JSON, and the inventory.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::Context;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::inventory::{self, Inventory, Syntax};
use crate::judge::Judge;
use crate::ledger::Ledger;

/// A file that is opened before privileges are dropped and rewritten whole; or standard output.
struct Rewritten(Option<File>);

impl Rewritten {
    /// Opens `path`; `-` is standard output.
    fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self(None));
        }
        File::create(path)
            .map(|file| Self(Some(file)))
            .with_context(|| format!("cannot write {}", path.display()))
            .map_err(Failure::usage)
    }

    fn write(&mut self, text: &[u8]) -> Result<(), Failure> {
        let written = match &mut self.0 {
            None => io::stdout().write_all(text),
            Some(file) => file
                .seek(SeekFrom::Start(0))
                .and_then(|_| file.write_all(text))
                .and_then(|()| file.set_len(text.len() as u64)),
        };
        written.map_err(|e| Failure::ours(e.into()))
    }
}

/// The file of the inventory.
pub(crate) struct InventoryFile {
    file: Rewritten,
    syntax: Syntax,
}

impl InventoryFile {
    /// Opens `path`; its name says which syntax is written.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self { file: Rewritten::open(path)?, syntax: Syntax::of(path) })
    }

    /// Writes the inventory as it is now.
    pub(crate) fn write(&mut self, inventory: &Inventory) -> Result<(), Failure> {
        let mut text = Vec::new();
        inventory::write(inventory, self.syntax, &mut text).map_err(|e| Failure::ours(e.into()))?;
        self.file.write(&text)
    }
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
        self.0.write(text.as_bytes())
    }
}

fn stats(ledger: &Ledger, judge: &mut Judge) -> Value {
    let mut value = ledger.to_json();
    value["latency"] = json!({ "packet_to_decision_us": latency(&judge.detection_us) });
    if let Some(inventory) = judge.inventory() {
        let counts =
            inventory.counters().fields().into_iter().map(|(name, count)| (name.to_owned(), json!(count)));
        value["inventory"] = Value::Object(counts.collect());
    }
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
