//! Turns frames into TCP segments.

use offpath_types::Frame;

use crate::{DecodeCounters, DecodeError, TcpSegment};

/// What a decoder may use, and how it keys flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderLimits {
    /// Tunnels inside one another, and VLAN tags or MPLS labels in a row. Past it the frame is dropped.
    pub tunnel_depth_max: u8,
    /// Bytes held for unfinished datagrams, bookkeeping included. Past it the oldest are evicted.
    pub defrag_bytes_max: usize,
    /// Unfinished datagrams. Past it the oldest is evicted.
    pub defrag_datagrams_max: usize,
    /// Packet time from a datagram's first seen fragment until it is given up (RFC 791 suggests 15 s and
    /// more, Linux takes 30 s).
    pub defrag_timeout_secs: u32,
    /// Whether VLAN ids are part of the flow key. Off by default: mirrors often tag the two directions of
    /// one connection differently (ingress and egress VLAN of a router, one tag missing), which would
    /// split every flow in two. Turn it on where address plans overlap between VLANs.
    pub vlan_in_key: bool,
}

impl Default for DecoderLimits {
    fn default() -> Self {
        Self {
            tunnel_depth_max: 8,
            defrag_bytes_max: 16 << 20,
            defrag_datagrams_max: 4096,
            defrag_timeout_secs: 30,
            vlan_in_key: false,
        }
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// It carries (or completes) a TCP segment.
    Tcp(TcpSegment<'a>),
    /// It was read and carries something else.
    NotTcp,
    /// It carries a fragment of a datagram that is not complete yet.
    FragmentHeld,
    /// It could not be read.
    Undecodable(DecodeError),
}

/// Decodes frames, keeping only fragments and counters between them.
#[derive(Debug, Default)]
pub struct Decoder {
    limits: DecoderLimits,
    counters: DecodeCounters,
}

impl Decoder {
    /// Makes a decoder. Allocates nothing until the first fragment.
    pub fn new(limits: DecoderLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Returns what `frame` carries.
    pub fn decode<'a>(&'a mut self, frame: &Frame<'a>) -> Outcome<'a> {
        self.counters.frames_total += 1;
        let error = DecodeError::LinkUnsupported { number: frame.wire_len };
        self.counters.drop_frame(error);
        Outcome::Undecodable(error)
    }

    /// Returns the counts so far.
    pub fn counters(&self) -> &DecodeCounters {
        &self.counters
    }

    /// Returns how many datagrams wait for fragments.
    pub fn datagrams_open(&self) -> usize {
        0
    }
}
