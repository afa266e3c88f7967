//! Turns frames into TCP segments.

use offpath_types::{Datagram, Frame};

use crate::defrag::{Added, Defrag, Whole};
use crate::duplicates::{DuplicateSearch, Duplicates, Found};
use crate::plain;
use crate::walk::{Context, Cursor, Fragment, Leaf, Stop, first_layer, walk};
use crate::{DecodeCounters, DecodeError, SctpPacket, TcpSegment};

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
    /// Whether ERSPAN session ids are part of the flow key. Off by default: switches often use one session
    /// per direction or port. Turn it on where each session mirrors a network of its own.
    pub erspan_in_key: bool,
    /// Whether packets that were captured twice are searched for and left out.
    pub duplicates: DuplicateSearch,
    /// Packet time within which an equal packet is a copy.
    pub duplicates_window_nanos: u64,
    /// Keys the hash that packets are compared by. Secret, so that nobody can make a packet that is taken for another.
    pub seed: u64,
}

impl Default for DecoderLimits {
    fn default() -> Self {
        Self {
            tunnel_depth_max: 8,
            defrag_bytes_max: 16 << 20,
            defrag_datagrams_max: 4096,
            defrag_timeout_secs: 30,
            vlan_in_key: false,
            erspan_in_key: false,
            duplicates: DuplicateSearch::Auto,
            duplicates_window_nanos: 10_000_000,
            seed: 0,
        }
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// It carries (or completes) a TCP segment.
    Tcp(TcpSegment<'a>),
    /// It carries an SCTP packet.
    Sctp(SctpPacket<'a>),
    /// It carries a UDP datagram that begins like QUIC.
    Udp(Datagram<'a>),
    /// It was read and carries something else.
    NotTcp,
    /// It carries a TCP segment that was captured a moment ago already.
    Duplicate,
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
    defrag: Defrag,
    duplicates: Duplicates,
    /// The datagram that was completed last; segments are borrowed from it until the next call.
    whole: Whole,
}

impl Decoder {
    /// Makes a decoder. Allocates nothing until the first fragment.
    pub fn new(limits: DecoderLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Returns what `frame` carries.
    ///
    /// The innermost TCP segment counts, under the addresses of the IP packet that holds it. A frame cut by
    /// a snap length is decoded as long as its TCP header is whole. Allocates only for fragments.
    #[inline]
    pub fn decode<'a>(&'a mut self, frame: &Frame<'a>) -> Outcome<'a> {
        self.counters.frames_total += 1;
        if let Some(found) = plain::segment(frame) {
            return self.conclude_tcp(found);
        }
        let context = Context {
            time: frame.time,
            depth_max: self.limits.tunnel_depth_max,
            vlan_in_key: self.limits.vlan_in_key,
            erspan_in_key: self.limits.erspan_in_key,
        };
        let leaf = match first_layer(frame.link) {
            Ok(next) => walk(&context, Cursor::new(frame.bytes, frame.wire_len), next),
            Err(error) => Leaf::Other(Stop::Error(error)),
        };
        match leaf {
            Leaf::Fragment(fragment) => self.decode_fragment(&context, &fragment),
            Leaf::Tcp(found) => self.conclude_tcp(found),
            leaf => conclude(&mut self.counters, leaf),
        }
    }

    /// Returns the counts so far.
    pub fn counters(&self) -> &DecodeCounters {
        &self.counters
    }

    /// Returns how many datagrams wait for fragments.
    pub fn datagrams_open(&self) -> usize {
        self.defrag.open()
    }

    /// Returns the bytes held for them, bookkeeping included.
    pub fn defrag_held_bytes(&self) -> usize {
        self.defrag.held_bytes()
    }

    #[cold]
    fn decode_fragment(&mut self, context: &Context, fragment: &Fragment<'_>) -> Outcome<'_> {
        let mut added = self.defrag.add(context.time, fragment, &self.limits, &mut self.counters);
        // A completed datagram may carry, inside a tunnel, a fragment that completes another. Each round
        // frees what the datagram held, so rounds are paid for by the frames that filled it.
        loop {
            match added {
                Added::Held => {
                    self.counters.frames_fragment_held_total += 1;
                    return Outcome::FragmentHeld;
                }
                Added::Dropped(error) => {
                    return conclude(&mut self.counters, Leaf::Other(Stop::Error(error)));
                }
                Added::Complete(whole) => self.whole = whole,
            }
            match walk_whole(context, &self.whole) {
                Leaf::Fragment(inner) => {
                    added = self.defrag.add(context.time, &inner, &self.limits, &mut self.counters);
                }
                _ => break,
            }
        }
        // Walked once more because a borrow that is returned may not start inside the loop.
        let leaf = walk_whole(context, &self.whole);
        if let Leaf::Tcp(found) = &leaf
            && is_copy(&mut self.duplicates, &self.limits, found)
        {
            self.counters.frames_duplicate_total += 1;
            return Outcome::Duplicate;
        }
        conclude(&mut self.counters, leaf)
    }

    #[inline]
    fn conclude_tcp<'b>(&mut self, found: Found<'b>) -> Outcome<'b> {
        if is_copy(&mut self.duplicates, &self.limits, &found) {
            self.counters.frames_duplicate_total += 1;
            return Outcome::Duplicate;
        }
        conclude(&mut self.counters, Leaf::Tcp(found))
    }
}

#[inline]
fn is_copy(duplicates: &mut Duplicates, limits: &DecoderLimits, found: &Found<'_>) -> bool {
    duplicates.is_copy(limits.duplicates, limits.duplicates_window_nanos, limits.seed, found)
}

fn walk_whole<'b>(context: &Context, whole: &'b Whole) -> Leaf<'b> {
    whole.resume().map_or(Leaf::Other(Stop::IpOther), |(cursor, next)| walk(context, cursor, next))
}

/// Counts a frame where it belongs.
#[inline]
fn conclude<'b>(counters: &mut DecodeCounters, leaf: Leaf<'b>) -> Outcome<'b> {
    let counter = match leaf {
        Leaf::Tcp(Found { segment, .. }) => {
            let captured = segment.payload.len() as u64;
            counters.frames_tcp_total += 1;
            counters.tcp_payload_bytes_total += captured;
            counters.tcp_payload_cut_bytes_total += u64::from(segment.payload_len).saturating_sub(captured);
            return Outcome::Tcp(segment);
        }
        Leaf::Sctp(packet) => {
            counters.frames_sctp_total += 1;
            counters.sctp_payload_bytes_total += packet.payload.len() as u64;
            return Outcome::Sctp(packet);
        }
        Leaf::Udp(datagram) => {
            counters.frames_udp_total += 1;
            counters.frames_quic_total += 1;
            return Outcome::Udp(datagram);
        }
        Leaf::Other(Stop::Error(error)) => {
            counters.drop_frame(error);
            return Outcome::Undecodable(error);
        }
        Leaf::Other(Stop::Udp | Stop::Quic { .. }) => &mut counters.frames_udp_total,
        Leaf::Other(Stop::Icmp) => &mut counters.frames_icmp_total,
        Leaf::Other(Stop::IpOther) => &mut counters.frames_ip_other_total,
        Leaf::Other(Stop::NonIp) => &mut counters.frames_non_ip_total,
        // Both callers have taken fragments out.
        Leaf::Fragment(_) | Leaf::Other(Stop::Fragment { .. }) => {
            counters.frames_fragment_held_total += 1;
            return Outcome::FragmentHeld;
        }
    };
    *counter += 1;
    Outcome::NotTcp
}
