//! How the process ends: exit codes and signals.

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

/// Returns a flag that SIGINT and SIGTERM set; a second one of them ends the process at once, with 130.
pub(crate) fn stop_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("cannot handle signals")
            .map_err(Failure::ours)?;
    }
    Ok(stop)
}
