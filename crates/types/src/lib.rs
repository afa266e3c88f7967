//! The shared nouns of Offpath as plain data.
//!
//! Nothing here does I/O, reads a clock, spawns a thread or is serialisable: the binary and `enforce`
//! hold serialisable twins, so that a refactor here never renames a field of an output record.
//! One word per idea: see `docs/GLOSSARY.md`.
#![forbid(unsafe_code)]

mod chunk;
mod connection;
mod counters;
mod decision;
mod entity;
mod envelope;
mod flow;
mod frame;
mod outline;
mod text;
mod time;
mod tls;
mod transaction;
mod verdict;

pub use chunk::{Chunk, EndReason};
pub use connection::{Connection, WebSocketEnd, WebSocketSide};
pub use decision::{Action, Decision, MatchValue, Reason};
pub use entity::{EntityKey, EntityKind, IdentityHash, IdentityKey};
pub use envelope::{Envelope, TunnelKind};
pub use flow::{Direction, FlowInfo, FlowKey, Host, Peer, Side, TunnelId};
pub use frame::{Datagram, Frame, LinkType};
pub use outline::{BodyOutline, CredentialKind, Outline, Parameter, ParameterPlace, ValueKinds};
pub use text::{Span, TextArena};
pub use time::Timestamp;
pub use tls::{Handshake, HandshakeStage, Ja4, TlsFacts, Transport};
pub use transaction::{
    Anomalies, Anomaly, BodyHint, HttpVersion, LoginFacts, Pace, RareFacts, RedirectClass, RpcFacts,
    StackClass, Transaction,
};
pub use verdict::{AccountAtRisk, Contribution, LoginOutcome, Proposal, Verdict};
