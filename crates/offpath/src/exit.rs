//! Exit codes.

use std::process::ExitCode;

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
