//! Read-only views of link, tunnel, IP and TCP headers.
#![forbid(unsafe_code)]

mod counters;
mod decoder;
mod error;
mod segment;

pub use counters::DecodeCounters;
pub use decoder::{Decoder, DecoderLimits, Outcome};
pub use error::{DecodeError, Layer, LengthSource};
pub use segment::{SeqNum, TcpFlags, TcpSegment};
