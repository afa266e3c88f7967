//! Golden captures: replay a folder of `captures/` and compare with what it holds.
//!
//! A folder holds `input.pcap` (or `input.pcapng`, either with `.gz` or `.zst`), an optional
//! `config.toml` (only what differs from the defaults), and the expected `transactions.jsonl`,
//! `decisions.jsonl` and `counters.json`; `connections.jsonl` and `inventory.json` are compared where they are there.
//! With `OFFPATH_UPDATE_GOLDEN=1` in the environment the expected
//! files are written instead of compared; a review of the diff is the test then.
//!
//! Each run gets the same identity key, so hashes repeat. The config handed to the replay is the folder's
//! own behind one more line, `identity.key_file = "…"`, so a folder's config must not set that key.
//! Whatever the folder, the ledger must balance: the stats must say `"balanced": true`.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use serde_json::Value;

/// The variable that turns comparing into writing, when set to `1`.
pub const UPDATE_VARIABLE: &str = "OFFPATH_UPDATE_GOLDEN";

/// The identity key of every golden run, in hexadecimal.
pub const IDENTITY_KEY_HEX: &str = "6f66667061746820676f6c64656e2063617074757265206964656e7469747921";

/// Members of the stats that depend on the machine or the run, and are left out of `counters.json`.
pub const VOLATILE_KEYS: [&str; 16] = [
    "build",
    "command",
    "config",
    "cpu",
    "duration",
    "elapsed",
    "finished",
    "host",
    "inputs",
    "latency",
    "machine",
    "memory",
    "run",
    "throughput",
    "version",
    "workers",
];

/// What one replay is told: every path is absolute but `input`, which is relative to `dir`.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The folder; also the working directory of the replay.
    pub dir: PathBuf,
    /// Name of the capture file in `dir`.
    pub input: PathBuf,
    /// Config file to use.
    pub config: PathBuf,
    /// Where to write transactions.
    pub transactions: PathBuf,
    /// Where to write decisions.
    pub decisions: PathBuf,
    /// Where to write the stats.
    pub stats: PathBuf,
    /// Where to write connections, where the folder holds some.
    pub connections: Option<PathBuf>,
    /// Where to write the inventory, where the folder holds one.
    pub inventory: Option<PathBuf>,
    /// Name of the TLS key log in `dir`, where the folder holds one.
    pub keylog: Option<PathBuf>,
    /// How many workers to use; the result may not depend on it.
    pub workers: usize,
}

impl Replay {
    /// Returns the arguments of `offpath` for this replay.
    pub fn arguments(&self) -> Vec<String> {
        let path = |p: &Path| p.to_string_lossy().into_owned();
        let mut args = vec!["replay".to_owned(), path(&self.input)];
        for (flag, value) in [
            ("--transactions", &self.transactions),
            ("--decisions", &self.decisions),
            ("--stats", &self.stats),
            ("--config", &self.config),
        ] {
            args.extend([flag.to_owned(), path(value)]);
        }
        if let Some(connections) = &self.connections {
            args.extend(["--connections".to_owned(), path(connections)]);
        }
        if let Some(inventory) = &self.inventory {
            args.extend(["--inventory".to_owned(), path(inventory)]);
        }
        if let Some(keylog) = &self.keylog {
            args.extend(["--keylog".to_owned(), path(keylog)]);
        }
        args.extend(["--workers".to_owned(), self.workers.to_string(), "--quiet".to_owned()]);
        args
    }
}

/// Why a golden capture did not pass.
#[derive(Debug)]
pub enum GoldenError {
    /// A file could not be read or written.
    Io(PathBuf, io::Error),
    /// The folder has no input, or the replay left no or unreadable stats.
    Setup(String),
    /// The replay failed.
    Replay(String),
    /// The stats do not say `"balanced": true`.
    Unbalanced(String),
    /// The output differs; the text is for people.
    Differs(String),
}

impl fmt::Display for GoldenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Setup(what) => write!(f, "golden setup: {what}"),
            Self::Replay(what) => write!(f, "replay failed: {what}"),
            Self::Unbalanced(stats) => write!(f, "the ledger does not balance: {stats}"),
            Self::Differs(diff) => {
                write!(f, "output differs ({UPDATE_VARIABLE}=1 rewrites what is expected):\n{diff}")
            }
        }
    }
}

impl std::error::Error for GoldenError {}

/// Returns the folders below `root` that hold a capture, in name order.
pub fn folders(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.is_dir() && input_name(&path).is_some() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Replays `dir` with the program at `binary` and compares (or updates).
pub fn check_binary(dir: &Path, binary: &Path, workers: usize) -> Result<(), GoldenError> {
    check(dir, workers, |replay| {
        let output = Command::new(binary)
            .args(replay.arguments())
            .current_dir(&replay.dir)
            .output()
            .map_err(|e| format!("{}: {e}", binary.display()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
    })
}

/// Replays `dir` with `run` and compares (or updates).
pub fn check(
    dir: &Path,
    workers: usize,
    run: impl FnOnce(&Replay) -> Result<(), String>,
) -> Result<(), GoldenError> {
    let update = env::var_os(UPDATE_VARIABLE).is_some_and(|v| v == "1");
    check_or_update(dir, workers, update, run)
}

fn check_or_update(
    dir: &Path,
    workers: usize,
    update: bool,
    run: impl FnOnce(&Replay) -> Result<(), String>,
) -> Result<(), GoldenError> {
    let dir = dir.canonicalize().map_err(|e| GoldenError::Io(dir.to_owned(), e))?;
    let Some(input) = input_name(&dir) else {
        return Err(GoldenError::Setup(format!("{} has no input.pcap", dir.display())));
    };
    let scratch = tempfile::tempdir().map_err(|e| GoldenError::Io(env::temp_dir(), e))?;
    let config = write_config(&dir, scratch.path())?;
    let replay = Replay {
        input,
        config,
        transactions: scratch.path().join("transactions.jsonl"),
        decisions: scratch.path().join("decisions.jsonl"),
        stats: scratch.path().join("stats.json"),
        connections: dir
            .join("connections.jsonl")
            .is_file()
            .then(|| scratch.path().join("connections.jsonl")),
        inventory: dir.join("inventory.json").is_file().then(|| scratch.path().join("inventory.json")),
        keylog: dir.join("keylog.txt").is_file().then(|| "keylog.txt".into()),
        workers,
        dir,
    };
    run(&replay).map_err(GoldenError::Replay)?;

    let stats: Value = serde_json::from_str(&read(&replay.stats)?)
        .map_err(|e| GoldenError::Setup(format!("stats are no JSON: {e}")))?;
    if !balanced(&stats) {
        return Err(GoldenError::Unbalanced(stats.to_string()));
    }
    let counters = serde_json::to_string_pretty(&stable(&stats))
        .map_err(|e| GoldenError::Setup(format!("stats cannot be written: {e}")))?;
    let mut results = vec![
        ("transactions.jsonl", read(&replay.transactions)?),
        ("decisions.jsonl", read(&replay.decisions)?),
        ("counters.json", counters + "\n"),
    ];
    if let Some(connections) = &replay.connections {
        results.push(("connections.jsonl", read(connections)?));
    }
    if let Some(inventory) = &replay.inventory {
        results.push(("inventory.json", read(inventory)?));
    }
    let mut report = String::new();
    for (name, got) in results {
        let path = replay.dir.join(name);
        if update {
            fs::write(&path, got).map_err(|e| GoldenError::Io(path, e))?;
            continue;
        }
        if let Some(diff) = diff(&read(&path)?, &got) {
            let _ = write!(report, "--- {}\n{diff}", path.display());
        }
    }
    if report.is_empty() { Ok(()) } else { Err(GoldenError::Differs(report)) }
}

/// Returns a readable difference of two texts, `None` where they are equal.
///
/// Equal lines at both ends are left out. Where as many lines remain on both sides and they are JSON
/// objects, the members that differ are named; at most 12 lines are shown.
pub fn diff(want: &str, got: &str) -> Option<String> {
    if want == got {
        return None;
    }
    let (mut a, mut b): (Vec<_>, Vec<_>) = (want.lines().collect(), got.lines().collect());
    let mut out = String::new();
    if a.len() != b.len() {
        let _ = writeln!(out, "{} lines expected, {} found", a.len(), b.len());
    }
    let same = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    a.drain(..same);
    b.drain(..same);
    while let (Some(x), Some(y)) = (a.last(), b.last())
        && x == y
    {
        a.pop();
        b.pop();
    }
    if a.is_empty() && b.is_empty() {
        out.push_str("only the line endings differ\n");
    }
    let shown = 12;
    for i in 0..a.len().max(b.len()).min(shown) {
        let number = same + i + 1;
        match (a.get(i), b.get(i)) {
            (Some(x), Some(y)) if x == y => {}
            (Some(x), Some(y)) => match (serde_json::from_str::<Value>(x), serde_json::from_str(y)) {
                (Ok(x @ Value::Object(_)), Ok(y)) if a.len() == b.len() => {
                    let _ = writeln!(out, "line {number}:");
                    member_diff(&mut out, "", &x, &y);
                }
                _ => {
                    let _ = writeln!(out, "line {number}:\n  - {}\n  + {}", short(x), short(y));
                }
            },
            (Some(x), None) => {
                let _ = writeln!(out, "line {number}:\n  - {}", short(x));
            }
            (None, Some(y)) => {
                let _ = writeln!(out, "line {number}:\n  + {}", short(y));
            }
            (None, None) => {}
        }
    }
    if a.len().max(b.len()) > shown {
        let _ = writeln!(out, "… and {} lines more", a.len().max(b.len()) - shown);
    }
    Some(out)
}

fn member_diff(out: &mut String, path: &str, want: &Value, got: &Value) {
    if let (Value::Object(w), Value::Object(g)) = (want, got) {
        let mut keys: Vec<&String> = w.keys().chain(g.keys().filter(|k| !w.contains_key(*k))).collect();
        keys.sort();
        for key in keys {
            let (x, y) = (w.get(key).unwrap_or(&Value::Null), g.get(key).unwrap_or(&Value::Null));
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            member_diff(out, &path, x, y);
        }
    } else if want != got {
        let _ = writeln!(out, "  {path}: {} -> {}", short(&want.to_string()), short(&got.to_string()));
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(240) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn input_name(dir: &Path) -> Option<PathBuf> {
    ["input.pcap", "input.pcapng", "input.pcap.gz", "input.pcapng.gz", "input.pcap.zst", "input.pcapng.zst"]
        .iter()
        .find(|name| dir.join(name).is_file())
        .map(PathBuf::from)
}

fn write_config(dir: &Path, scratch: &Path) -> Result<PathBuf, GoldenError> {
    let key = scratch.join("identity.key");
    fs::write(&key, format!("{IDENTITY_KEY_HEX}\n")).map_err(|e| GoldenError::Io(key.clone(), e))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))
            .map_err(|e| GoldenError::Io(key.clone(), e))?;
    }
    let own = match fs::read_to_string(dir.join("config.toml")) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(GoldenError::Io(dir.join("config.toml"), e)),
    };
    let path = scratch.join("config.toml");
    let text = format!("identity.key_file = {}\n{own}", Value::from(key.to_string_lossy()));
    fs::write(&path, text).map_err(|e| GoldenError::Io(path.clone(), e))?;
    Ok(path)
}

/// Tells whether the stats say `balanced` at least once, and true wherever they do.
fn balanced(stats: &Value) -> bool {
    let mut said = Vec::new();
    let mut open = vec![stats];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                said.extend(map.get("balanced"));
                open.extend(map.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    !said.is_empty() && said.iter().all(|v| **v == Value::Bool(true))
}

fn stable(stats: &Value) -> Value {
    match stats {
        Value::Object(map) => {
            let volatile = |key: &str| {
                VOLATILE_KEYS
                    .iter()
                    .any(|v| key == *v || key.strip_prefix(v).is_some_and(|r| r.starts_with('_')))
            };
            map.iter().filter(|(k, _)| !volatile(k)).map(|(k, v)| (k.clone(), stable(v))).collect()
        }
        other => other.clone(),
    }
}

fn read(path: &Path) -> Result<String, GoldenError> {
    fs::read_to_string(path).map_err(|e| GoldenError::Io(path.to_owned(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &str = r#"{"ledger":{"frames_total":3,"balanced":true},"elapsed_secs":0.1,"workers":1}"#;

    fn replay_writing(stats: &'static str, line: &'static str) -> impl FnOnce(&Replay) -> Result<(), String> {
        move |replay| {
            let config = fs::read_to_string(&replay.config).unwrap();
            assert!(config.starts_with("identity.key_file = \"/"), "{config}");
            assert!(config.ends_with("[client]\n"), "{config}");
            assert_eq!(replay.arguments()[..2], ["replay", "input.pcap"]);
            fs::write(&replay.transactions, line).unwrap();
            fs::write(&replay.decisions, "").unwrap();
            fs::write(&replay.stats, stats).unwrap();
            Ok(())
        }
    }

    #[test]
    fn a_folder_is_updated_then_passes_then_shows_a_difference() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("input.pcap"), "").unwrap();
        fs::write(dir.path().join("config.toml"), "[client]\n").unwrap();
        let line = "{\"a\":1,\"b\":{\"c\":2}}\n";
        assert!(
            check_or_update(dir.path(), 1, false, replay_writing(STATS, line)).is_err(),
            "nothing expected yet"
        );
        check_or_update(dir.path(), 1, true, replay_writing(STATS, line)).unwrap();
        check_or_update(dir.path(), 1, false, replay_writing(STATS, line)).unwrap();
        let counters = fs::read_to_string(dir.path().join("counters.json")).unwrap();
        assert!(counters.contains("frames_total") && !counters.contains("elapsed"), "{counters}");
        let other = "{\"a\":1,\"b\":{\"c\":3}}\n";
        let error = check_or_update(dir.path(), 1, false, replay_writing(STATS, other)).unwrap_err();
        assert!(error.to_string().contains("b.c: 2 -> 3"), "{error}");
        let unbalanced = r#"{"ledger":{"balanced":false},"balanced":true}"#;
        let error = check_or_update(dir.path(), 1, true, replay_writing(unbalanced, line)).unwrap_err();
        assert!(matches!(error, GoldenError::Unbalanced(_)), "{error}");
        assert_eq!(folders(dir.path()).unwrap().len(), 0);
    }

    #[test]
    fn differences_name_what_was_inserted() {
        assert_eq!(diff("a\nb\n", "a\nb\n"), None);
        let text = diff("a\nb\nc\n", "a\nx\nb\nc\n").unwrap();
        assert!(text.contains("3 lines expected, 4 found") && text.contains("line 2:\n  + x"), "{text}");
        assert!(diff("a\n", "a").unwrap().contains("line endings"));
    }
}
