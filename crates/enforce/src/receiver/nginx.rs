//! Keeps a file of `deny` lines equal to the state, and has nginx read it again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use offpath_types::Action;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::program;

/// Shortest time between two reloads: each starts new worker processes.
const RELOAD_EVERY: Duration = Duration::from_secs(1);
/// How long a reload may take.
const RELOAD_MAX: Duration = Duration::from_secs(10);
/// Pause after a reload that failed.
const RELOAD_AGAIN: Duration = Duration::from_secs(5);

pub(super) struct Nginx {
    path: PathBuf,
    reload: Option<String>,
    /// What the file holds, as far as is known.
    written: Option<String>,
    /// When to reload next.
    due: Option<Instant>,
    last: Option<Instant>,
    running: Option<JoinHandle<Result<(), String>>>,
}

impl Nginx {
    pub(super) fn new(path: PathBuf, reload: Option<String>) -> Self {
        Self { path, reload, written: None, due: None, last: None, running: None }
    }

    pub(super) fn supports(action: Action) -> bool {
        action == Action::Block
    }

    /// Rewrites the file where it differs, and asks for a reload.
    pub(super) fn apply(&mut self, desired: &BTreeMap<IpNet, Action>) -> Result<(), String> {
        let mut text = String::from("# Written by offpath receive; changes are lost.\n");
        for (net, _) in desired.iter().filter(|(_, a)| Self::supports(**a)) {
            let _ = writeln!(text, "deny {net};");
        }
        if self.written.as_ref() == Some(&text) {
            return Ok(());
        }
        let unchanged =
            self.written.is_none() && std::fs::read(&self.path).is_ok_and(|now| now == text.as_bytes());
        if !unchanged {
            self.replace(&text).map_err(|e| format!("{}: {e}", self.path.display()))?;
            if self.reload.is_some() {
                let now = Instant::now();
                self.due = Some(self.last.map_or(now, |last| now.max(last + RELOAD_EVERY)));
            }
        }
        self.written = Some(text);
        Ok(())
    }

    /// Writes beside the file and renames, so that nginx never reads half of it.
    fn replace(&self, text: &str) -> std::io::Result<()> {
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)
    }

    /// Tells whether nginx has not yet read what the file holds.
    pub(super) fn behind(&self) -> bool {
        self.due.is_some() || self.running.is_some()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        match &self.running {
            // Looked at again soon, to see whether it ended.
            Some(_) => Some(Instant::now() + Duration::from_millis(50)),
            None => self.due,
        }
    }

    /// Starts a reload that is due, or sees how the one under way ended.
    pub(super) async fn tick(&mut self) -> Result<(), String> {
        if self.running.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(running) = self.running.take()
        {
            let result = running.await.unwrap_or_else(|e| Err(e.to_string()));
            if result.is_err() {
                self.due = Some(Instant::now() + RELOAD_AGAIN);
                return result;
            }
        }
        let now = Instant::now();
        if self.running.is_none()
            && self.due.is_some_and(|due| due <= now)
            && let Some(command) = &self.reload
        {
            self.due = None;
            self.last = Some(now);
            self.running = Some(tokio::spawn(reload(command.clone())));
        }
        Ok(())
    }
}

async fn reload(command: String) -> Result<(), String> {
    let mut shell = Command::new("/bin/sh");
    let run = program::run(shell.arg("-c").arg(command), "", RELOAD_MAX);
    run.await.map_err(|problem| format!("the reload command: {problem}"))
}
