//! How the process ends: exit codes and signals.

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;

/// Why the process ends with another code than 0.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    pub(crate) error: anyhow::Error,
}

/// The reasons, from the outermost on. Some errors tell their reason themselves: it is told once.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = String::new();
        for reason in self.error.chain().map(ToString::to_string) {
            if !told.ends_with(&reason) {
                let between = if told.is_empty() { "" } else { ": " };
                write!(f, "{between}{reason}")?;
                told = reason;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ours,
    Usage,
    Input,
}

impl Failure {
    /// 1: our side failed (output not writable, a thread died).
    pub(crate) fn ours(error: anyhow::Error) -> Self {
        Self { kind: Kind::Ours, error }
    }

    /// 2: wrong usage or configuration.
    pub(crate) fn usage(error: anyhow::Error) -> Self {
        Self { kind: Kind::Usage, error }
    }

    /// 3: input unreadable or damaged.
    pub(crate) fn input(error: anyhow::Error) -> Self {
        Self { kind: Kind::Input, error }
    }

    /// Returns the exit code.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            Kind::Ours => 1,
            Kind::Usage => 2,
            Kind::Input => 3,
        })
    }
}

/// Returns a flag that SIGINT, SIGTERM and SIGHUP set; a second one of them ends the process at once, with 130. SIGHUP
/// stays ignored where it is (`nohup`).
pub(crate) fn stop_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let ignored = ignored_signals(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    let hangup = (ignored & 1 << (SIGHUP - 1) == 0).then_some(SIGHUP);
    set_by([SIGINT, SIGTERM].into_iter().chain(hangup))
}

/// Lets the first SIGINT pass, and the second one end the process with 130: who reads standard input gets to its end, as
/// the program that writes there is interrupted from the same keyboard.
pub(crate) fn outlive_interrupt() -> Result<(), Failure> {
    set_by([signal_hook::consts::SIGINT]).map(drop)
}

/// Returns a flag that the first of `signals` sets; the next one ends the process at once, with 130.
fn set_by(signals: impl IntoIterator<Item = i32>) -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in signals {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .context("cannot handle signals")
            .map_err(Failure::ours)?;
    }
    Ok(flag)
}

/// Returns the signals that are ignored, bit n - 1 for signal n, by the text of `/proc/self/status`.
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once() {
        let io = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let told = |error: anyhow::Error| Failure::ours(error).to_string();
        let twice = offpath_capture::SourceError::Open { path: "a.pcap".into(), source: io() };
        assert_eq!(told(twice.into()), format!("cannot read a.pcap: {}", io()));
        let outer = anyhow::Error::new(io()).context("cannot write b").context("no report");
        assert_eq!(told(outer), format!("no report: cannot write b: {}", io()));
    }

    #[test]
    fn ignored_signals_are_read() {
        assert_eq!(ignored_signals("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"), 0x1001);
        assert_eq!(ignored_signals("SigIgn:\tnothing"), 0);
        assert_eq!(ignored_signals(""), 0);
    }
}
