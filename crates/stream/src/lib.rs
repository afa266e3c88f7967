//! Puts TCP connections and SCTP streams back together: flow table, reassembly of both directions, expiry on packet time.
//!
//! In: `TcpSegment`s in capture order. Out: per flow and direction in-order bytes, gaps and one end, to a
//! [`StreamSink`]. A mirror never retransmits for us, so a hole may be permanent: it is given up on evidence
//! (see [`StreamLimits`]), handed on as `Chunk::Gap`, and everything after it is delivered all the same.
//! Read RFC 9293 §3.4 and §3.10 before changing this crate.
//!
//! - [`FlowTable`] finds the flow of a segment, opens, expires and evicts flows.
//! - `Assembly` (conn.rs, assemble.rs) orders one connection; `Hold` (hold.rs) keeps what came too early.
//! - [`SctpTable`] (sctp/) stands beside it: puts SCTP's chunks in order and gives each stream to the table as a flow.
//! - `Slab` and `Wheel` are the memory and the timers beneath them: O(1) per packet, nothing unbounded.
#![forbid(unsafe_code)]

mod assemble;
mod conn;
mod counters;
mod embryo;
mod fuzz;
mod hold;
mod limits;
mod sctp;
mod sink;
mod slab;
mod table;
mod wheel;

pub use counters::StreamCounters;
#[doc(hidden)]
pub use fuzz::fuzz_reassemble_ops;
pub use limits::StreamLimits;
#[doc(hidden)]
pub use sctp::fuzz_sctp_packets;
pub use sctp::{SctpCounters, SctpTable};
pub use sink::StreamSink;
pub use table::FlowTable;
