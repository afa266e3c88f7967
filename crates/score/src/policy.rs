//! Policies: a condition, what to ask for, and of whom.

use offpath_types::{Action, EntityKind};

use crate::Condition;

/// Which of a transaction's entities a proposal names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// These; a transaction that lacks one makes no proposal (counted).
    Fixed(Vec<EntityKind>),
    /// The narrowest that carries the evidence: `ip`, `session` or `prefix` by whose signals gave most;
    /// `fingerprint` with `endpoint` where a cell of quiet clients did and its members are nearly all
    /// automated. Never `user`: that would lock the victim out.
    Auto,
}

/// One rule that turns a rated transaction into a proposal. Policies are tried in order; `Allow` ends it.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Name, as decisions record it.
    pub name: String,
    /// When it holds.
    pub condition: Condition,
    /// What it asks for.
    pub action: Action,
    /// Whom it names.
    pub scope: Scope,
    /// How long what it asks for should hold, in seconds.
    pub ttl_secs: u32,
}
