//! HTTP push parsers: chunks in, transactions out.
//!
//! No TCP in here: a [`Session`] takes [`offpath_types::Chunk`]s of the two directions of one flow and
//! [`Http`] turns them into [`offpath_types::Transaction`]s. `stage` says which protocol reads a flow and how one
//! hands over to the next; framing, state and pairing live in `http1`, meaning (client, user, session,
//! fingerprint …) in [`facts`].
#![forbid(unsafe_code)]

mod config;
mod counters;
pub mod facts;
pub mod head;
mod http1;
mod http2;
mod ident;
mod kept;
mod quic;
mod stage;
mod tls;
mod websocket;

pub use config::{ProtocolConfig, ProtocolLimits};
pub use counters::{AnomalyCounts, ProtocolCounters};
pub use http1::fuzz_http1_cuts;
pub use http2::{bench_hpack_blocks, fuzz_hpack_block, fuzz_http2_frames};
pub use quic::{Quic, QuicCounters, QuicLimits, fuzz_quic_initial};
pub use stage::{Http, Session};
pub use tls::fuzz_tls_hello;
pub use tls::outside::OutsideConfig;
pub use tls::{DecryptCounters, DecryptLimits, KeyLimits, KeyLine, KeyLogCounters, KeyLogParser, KeyStore};
pub use tls::{fuzz_keylog, fuzz_tls_records};
pub use websocket::fuzz_websocket_frames;
