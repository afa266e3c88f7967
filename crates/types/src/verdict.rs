//! What scoring concluded.

use crate::{Action, EntityKey, EntityKind, IdentityHash};

/// How a login attempt ended, as concluded from the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoginOutcome {
    /// The user got in.
    Success,
    /// The user was refused.
    Failure,
    /// No telling.
    Unknown,
}

impl LoginOutcome {
    /// Returns the ECS outcome: `success`, `failure`, `unknown`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Unknown => "unknown",
        }
    }
}

/// One signal's part in a verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contribution {
    /// Name of the signal, as policies and records use it.
    pub signal: &'static str,
    /// The entity it was observed on.
    pub entity: EntityKind,
    /// What was observed.
    pub value: f64,
    /// What would be usual.
    pub baseline: f64,
    /// How much it added to the confidence, in points of log-odds times 10, rounded by the scorer.
    pub points: f64,
}

/// A policy that holds for a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Index of the policy in the configuration's order.
    pub policy: u16,
    /// What it asks for.
    pub action: Action,
    /// The entities that a request must equal to be meant, most specific wish first.
    pub scope: Vec<EntityKey>,
    /// How long it holds.
    pub ttl_secs: u32,
}

/// An account whose password an attacker has probably found.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountAtRisk {
    /// The hashed user.
    pub user: IdentityHash,
    /// Failures on the user, or by the client, before the success.
    pub failures_before: u32,
}

/// What scoring concluded of one transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Calibrated probability of automated abuse, times 100.
    pub confidence: u8,
    /// The signals that made it, largest first; empty for unsuspicious traffic.
    pub contributions: Vec<Contribution>,
    /// The login attempt's outcome; `None` where the transaction is no login.
    pub login: Option<LoginOutcome>,
    /// Policies that hold, in configuration order.
    pub proposals: Vec<Proposal>,
    /// Set where the login succeeded although it should not have.
    pub account_at_risk: Option<AccountAtRisk>,
}
