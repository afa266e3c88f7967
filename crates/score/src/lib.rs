//! Rates transactions: per-entity state, signals, confidence and policies.
//!
//! In: [`offpath_types::Transaction`]s in their total order. Out: one [`offpath_types::Verdict`] each.
//! No threads, no I/O, no clock: time is the transaction's. The same transactions give the same verdicts,
//! whatever the table seed.
//!
//! ```text
//! Transaction ─▶ is it a login? how did it end? ─▶ entity tables ─▶ signals (log-odds) ─▶ confidence ─▶ policies ─▶ Verdict
//!                (login.rs)                        (table, entity)  (signals, evidence)                 (condition, policy)
//! ```
#![forbid(unsafe_code)]

mod condition;
mod config;
mod counters;
mod distinct;
mod entity;
mod evidence;
mod judge;
mod login;
mod math;
mod policy;
mod scorer;
mod signals;
mod summary;
mod table;

pub use condition::{Condition, ConditionError, fuzz_condition};
pub use config::{EntityCaps, LoginRule, OutcomeRule, ScoreConfig};
pub use counters::ScoreCounters;
pub use policy::{Policy, Scope};
pub use scorer::Scorer;
pub use signals::Signal;
pub use summary::{EndpointSummary, EntitySummary, LoginSummary, OutcomeSource, ScoreSummary};
