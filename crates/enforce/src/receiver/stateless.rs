//! Providers that are told and keep nothing: commands and logs.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::{Mutex, Semaphore};

use super::{ProviderConfig, program};

/// How long a command may run.
const COMMAND_MAX: Duration = Duration::from_secs(5);
/// Commands at a time, over all programs.
const COMMANDS: usize = 4;
/// How long a decision waits for its turn to run a command.
const TURN_MAX: Duration = Duration::from_secs(5);

enum Output {
    Command(PathBuf),
    /// One writer at a time, so that lines stay whole.
    Log(Option<PathBuf>, Mutex<()>),
}

pub(super) struct Outputs {
    all: Vec<(String, Output)>,
    turns: Semaphore,
}

impl Outputs {
    pub(super) fn new(providers: &[ProviderConfig]) -> Self {
        let output = |p: &ProviderConfig| match p {
            ProviderConfig::Command { program } => Some((p.to_string(), Output::Command(program.clone()))),
            ProviderConfig::Log { path } => Some((p.to_string(), Output::Log(path.clone(), Mutex::new(())))),
            ProviderConfig::Haproxy { .. } | ProviderConfig::Nginx { .. } => None,
        };
        Self { all: providers.iter().filter_map(output).collect(), turns: Semaphore::new(COMMANDS) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Hands `line` (one JSON object) to every output, or only to logs; returns how each took it.
    pub(super) async fn tell(&self, line: &str, logs_only: bool) -> Vec<(String, Result<(), String>)> {
        let mut results = Vec::with_capacity(self.all.len());
        for (name, output) in &self.all {
            let result = match output {
                Output::Command(_) if logs_only => continue,
                Output::Command(program) => self.run(program, line).await,
                Output::Log(path, lock) => {
                    let _whole = lock.lock().await;
                    append(path.as_ref(), line).map_err(|e| e.to_string())
                }
            };
            if let Err(error) = &result {
                tracing::warn!(provider = name, error, "a provider failed");
            }
            results.push((name.clone(), result));
        }
        results
    }

    async fn run(&self, program: &PathBuf, line: &str) -> Result<(), String> {
        let Ok(Ok(_turn)) = tokio::time::timeout(TURN_MAX, self.turns.acquire()).await else {
            return Err("too many commands at a time".to_owned());
        };
        program::run(&mut Command::new(program), &format!("{line}\n"), COMMAND_MAX).await
    }
}

/// Opens a log to append to. With each line, so that it can be rotated; and at the start, to see that it can be.
pub(super) fn open_log(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn append(path: Option<&PathBuf>, line: &str) -> std::io::Result<()> {
    let whole = format!("{line}\n");
    match path {
        Some(path) => open_log(path)?.write_all(whole.as_bytes()),
        None => {
            let mut out = std::io::stdout().lock();
            out.write_all(whole.as_bytes())?;
            out.flush()
        }
    }
}
