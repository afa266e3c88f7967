//! From verdicts to signed block webhooks, and the receiver beside the WAF.
//!
//! ```text
//! Verdict ─▶ Planner ─▶ Event ─▶ Delivery ─▶ outbox ─▶ signed webhook ═▶ receiver ─▶ HAProxy, nginx, command, log
//!            packet time         own threads   redb                       wall clock
//! ```
//! - [`Planner`] is plain data and packet time: same transactions in, same events out. No I/O.
//! - [`record`] holds the serialisable twins: the only place that names JSON fields.
//! - [`webhook`] signs and verifies by the Standard Webhooks rules.
//! - [`Delivery`] keeps an outbox that survives `kill -9` and retries; offering to it never waits.
//! - [`receiver`] checks what arrives and puts it into force, for as long as it says and no longer.
#![forbid(unsafe_code)]

mod allow;
mod clock;
mod delivery;
mod event;
mod neighbours;
mod outbox;
mod planner;
pub mod receiver;
pub mod record;
pub mod webhook;

pub use allow::AddressSet;
pub use delivery::{
    Delivery, DeliveryConfig, DeliveryError, DeliveryStats, ParkReason, Retry, Target, TargetStats,
};
pub use event::{AccountAtRiskEvent, Alarm, AlarmKind, Event};
pub use neighbours::BlastRadius;
pub use planner::{ActiveDecision, Planner, PlannerConfig, PlannerCounters};
pub use record::{DecisionRecord, decision_record, rfc3339};

/// Body of the fuzz target `webhook_body`: what a receiver does with bytes that nobody signed.
#[doc(hidden)]
pub fn fuzz_webhook_body(data: &[u8]) {
    receiver::fuzz_body(data);
}

/// Body of the fuzz target `webhook_headers`: signature and timestamp headers, split at the first NUL.
#[doc(hidden)]
pub fn fuzz_webhook_headers(data: &[u8]) {
    webhook::fuzz_headers(data);
}
