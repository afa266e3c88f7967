//! Read-only views of link, tunnel, IP and TCP headers.
//!
//! In: frames as captured. Out: the TCP segment (or the SCTP packet, or the UDP datagram that begins like QUIC) that a frame carries, borrowed from it, under its innermost
//! addresses. Envelopes are walked through: Ethernet (802.3 LLC/SNAP too), Linux cooked v1 and v2, loopback,
//! raw IP, PPP, Cisco HDLC, 802.11 with or without radiotap, NFLOG; VLAN tags, MPLS, PPPoE, NSH; IP-in-IP, 6in4, GRE, ERSPAN I–III, EtherIP; and
//! over UDP, by port, VXLAN, VXLAN-GPE, GENEVE, GTP-U, GRE, Teredo and SCTP. Fragments are put together under caps.
//!
//! ```text
//!  Ethernet │ IPv4 │ UDP │ VXLAN │ Ethernet │ IPv6 │ ext. │ TCP │ payload │ padding
//!  ── walked through ──────────────────────────────────────────▶└ TcpSegment ┘
//! ```
//!
//! State between frames: held fragments, hashes of the packets of the last moment, and counters. No checksum is verified.
#![forbid(unsafe_code)]

mod counters;
mod decoder;
mod defrag;
mod duplicates;
mod error;
mod fuzz;
mod ip;
mod link;
mod plain;
mod radio;
mod segment;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tunnel;
mod walk;

pub use counters::DecodeCounters;
pub use decoder::{Decoder, DecoderLimits, Outcome};
pub use duplicates::DuplicateSearch;
pub use error::{DecodeError, Layer, LengthSource};
#[doc(hidden)]
pub use fuzz::fuzz_decode_frame;
pub use segment::{SctpPacket, SeqNum, TcpFlags, TcpSegment};
