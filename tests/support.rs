//! What the end-to-end tests share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use offpath_testkit::traffic::{Scenario, Traffic, TrafficOptions};
use serde_json::Value;
use tempfile::TempDir;

/// The repository.
pub(crate) fn root() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.ancestors().nth(2).unwrap().to_path_buf()
}

/// The binary under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_offpath"))
}

/// A working folder with its own state, so that no test sees another's key.
pub(crate) struct Bench {
    dir: TempDir,
}

/// What one run of the binary left.
pub(crate) struct Run {
    pub(crate) output: Output,
    pub(crate) transactions: String,
    pub(crate) decisions: String,
    pub(crate) stats: Value,
}

impl Run {
    pub(crate) fn code(&self) -> i32 {
        self.output.status.code().unwrap_or(-1)
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Transaction records.
    pub(crate) fn records(&self) -> Vec<Value> {
        self.transactions.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// Decision records.
    pub(crate) fn decided(&self) -> Vec<Value> {
        self.decisions.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.env("OFFPATH_STATE_DIR", self.path("state")).env_remove("OFFPATH_LOG");
        command
    }

    /// Replays `inputs` with all outputs and further arguments.
    pub(crate) fn replay(&self, inputs: &[&Path], more: &[&str]) -> Run {
        for name in ["tx.jsonl", "decisions.jsonl", "stats.json"] {
            let _ = fs::remove_file(self.path(name));
        }
        let output = self
            .command()
            .arg("replay")
            .args(inputs)
            .arg("--transactions")
            .arg(self.path("tx.jsonl"))
            .arg("--decisions")
            .arg(self.path("decisions.jsonl"))
            .arg("--stats")
            .arg(self.path("stats.json"))
            .arg("--quiet")
            .args(more)
            .output()
            .unwrap();
        let read = |name| fs::read_to_string(self.path(name)).unwrap_or_default();
        Run {
            output,
            transactions: read("tx.jsonl"),
            decisions: read("decisions.jsonl"),
            stats: serde_json::from_str(&read("stats.json")).unwrap_or(Value::Null),
        }
    }
}

/// Writes `traffic.pcap`, traffic of people and attackers, with its truth in `truth.jsonl`.
pub(crate) fn traffic(bench: &Bench, scenario: Scenario, transactions: u64, seed: u64) {
    let options = TrafficOptions {
        scenario,
        transactions,
        bytes: Some(transactions * 1600),
        seed,
        ..TrafficOptions::default()
    };
    let mut pcap = Vec::new();
    let mut truth = Vec::new();
    Traffic::generate(&options).write(&mut pcap, &mut truth).unwrap();
    bench.write("traffic.pcap", pcap);
    bench.write("truth.jsonl", truth);
}

/// Asserts that the books balance, and says which equation does not.
pub(crate) fn assert_balanced(stats: &Value) {
    assert_eq!(stats["balanced"], Value::Bool(true), "{:#}", stats["balance"]);
}
