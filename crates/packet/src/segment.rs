//! A TCP segment as reassembly wants it: whose it is, where it lies in sequence space, what it carries.

use std::fmt;

use offpath_types::{Envelope, FlowKey, Side, Timestamp};

/// A position in TCP sequence space.
// Not `Ord`: sequence numbers have no total order (RFC 9293 §3.4); reassembly turns them into offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SeqNum(pub u32);

/// The control bits of a TCP header, as they are on the wire (RFC 9293 §3.1).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// FIN alone.
    pub const FIN: Self = Self(0x01);
    /// SYN alone.
    pub const SYN: Self = Self(0x02);
    /// RST alone.
    pub const RST: Self = Self(0x04);
    /// PSH alone.
    pub const PSH: Self = Self(0x08);
    /// ACK alone.
    pub const ACK: Self = Self(0x10);
    /// URG alone.
    pub const URG: Self = Self(0x20);

    /// Wraps byte 13 of a TCP header.
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Returns byte 13 of the TCP header.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Returns the flags set in `self` or in `other`.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Tells whether FIN is set: the sender has no more bytes.
    #[inline]
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN.0 != 0
    }

    /// Tells whether SYN is set: the sender opens its direction.
    #[inline]
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN.0 != 0
    }

    /// Tells whether RST is set: the connection is torn down.
    #[inline]
    pub const fn rst(self) -> bool {
        self.0 & Self::RST.0 != 0
    }

    /// Tells whether ACK is set, and with it whether [`TcpSegment::ack`] means anything.
    #[inline]
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK.0 != 0
    }

    /// Tells whether URG is set.
    #[inline]
    pub const fn urg(self) -> bool {
        self.0 & Self::URG.0 != 0
    }
}

impl fmt::Debug for TcpFlags {
    /// Writes one letter per flag, as tcpdump does: `[S.]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (set, letter) in [
            (self.fin(), "F"),
            (self.syn(), "S"),
            (self.rst(), "R"),
            (self.0 & Self::PSH.0 != 0, "P"),
            (self.urg(), "U"),
            (self.ack(), "."),
        ] {
            if set {
                f.write_str(letter)?;
            }
        }
        f.write_str("]")
    }
}

/// One TCP segment, borrowed from the frame (or from the decoder, where it came in fragments).
#[derive(Clone, Copy, Debug)]
pub struct TcpSegment<'a> {
    /// When the carrying frame was captured (of a fragmented datagram: the frame that completed it).
    pub time: Timestamp,
    /// The flow, by its innermost addresses.
    pub key: FlowKey,
    /// Which of the key's peers sent the segment.
    pub side: Side,
    /// Position of the first payload byte (of the SYN, where set).
    pub seq: SeqNum,
    /// Next position the sender expects; valid where `flags.ack()`.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: TcpFlags,
    /// Receive window as on the wire, unscaled.
    pub window: u16,
    /// Captured payload bytes: after the TCP options, without link padding.
    pub payload: &'a [u8],
    /// Payload bytes that the IP header announces; more than `payload.len()` where a snap length or a
    /// truncating mirror cut the frame, never less.
    pub payload_len: u32,
    /// VLAN tags and tunnel that the segment came in.
    pub envelope: Envelope,
}

/// One SCTP packet, borrowed likewise.
#[derive(Clone, Copy, Debug)]
pub struct SctpPacket<'a> {
    /// When the carrying frame was captured.
    pub time: Timestamp,
    /// The association, by its innermost addresses.
    pub key: FlowKey,
    /// Which of the key's peers sent it.
    pub side: Side,
    /// The verification tag: names the association to its receiver.
    pub tag: u32,
    /// Captured bytes after the common header: chunks.
    pub payload: &'a [u8],
    /// How many those were on the wire; never less than `payload.len()`.
    pub payload_len: u32,
    /// VLAN tags and tunnel that it came in.
    pub envelope: Envelope,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_is_its_bit_and_prints_its_letter() {
        type Row = (TcpFlags, fn(TcpFlags) -> bool, &'static str);
        let all: [Row; 6] = [
            (TcpFlags::FIN, TcpFlags::fin, "[F]"),
            (TcpFlags::SYN, TcpFlags::syn, "[S]"),
            (TcpFlags::RST, TcpFlags::rst, "[R]"),
            (TcpFlags::PSH, |flags| flags.bits() & 8 != 0, "[P]"),
            (TcpFlags::URG, TcpFlags::urg, "[U]"),
            (TcpFlags::ACK, TcpFlags::ack, "[.]"),
        ];
        for (flag, is_set, text) in all {
            assert_eq!(format!("{flag:?}"), text);
            assert!(is_set(flag), "{text}");
            assert!(!is_set(TcpFlags::from_bits(!flag.bits())), "{text}");
        }
        assert_eq!(format!("{:?}", TcpFlags::SYN.with(TcpFlags::ACK)), "[S.]");
    }
}
