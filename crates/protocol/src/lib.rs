//! HTTP push parsers: chunks in, transactions out.
//!
//! No TCP in here: a [`Session`] takes [`offpath_types::Chunk`]s of the two directions of one flow and
//! [`Http`] turns them into [`offpath_types::Transaction`]s. Framing, state and pairing live in `http1`,
//! meaning (client, user, session, fingerprint …) in [`facts`].
#![forbid(unsafe_code)]

mod config;
mod counters;
pub mod facts;
pub mod head;
mod http1;
mod http2;

pub use config::{ProtocolConfig, ProtocolLimits};
pub use counters::{AnomalyCounts, ProtocolCounters};
pub use http1::{Http, Session, fuzz_http1_cuts};
