//! What a packet source hands out.

use crate::{Envelope, FlowKey, Side, Timestamp};

/// The link layer of a frame, from the capture's data link type
/// (<https://www.tcpdump.org/linktypes.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// Ethernet (1), with any VLAN tags.
    Ethernet,
    /// BSD loopback: 4 bytes of address family in the writer's byte order (0).
    Null,
    /// OpenBSD loopback: 4 bytes of address family in network byte order (108).
    Loop,
    /// IPv4 or IPv6 without a link header (12, 14, 101).
    Raw,
    /// IPv4 without a link header (228).
    RawIpv4,
    /// IPv6 without a link header (229).
    RawIpv6,
    /// Linux cooked capture v1 (113).
    LinuxSll,
    /// Linux cooked capture v2 (276).
    LinuxSll2,
    /// PPP, with or without HDLC-like framing (9, 50).
    Ppp,
    /// Cisco HDLC (104).
    CiscoHdlc,
    /// IEEE 802.11, from its header on (105).
    Ieee80211,
    /// IEEE 802.11 behind a radiotap header (127).
    Radiotap,
    /// Packets that a Linux firewall logged: NFLOG messages (239).
    Nflog,
    /// VXLAN, from its header on: the contents of a UDP datagram. No capture file has it.
    Vxlan,
    /// GENEVE likewise.
    Geneve,
    /// Anything else, by its number: frames are counted and not decoded.
    Unsupported(u32),
}

impl LinkType {
    /// Maps a data link type as capture files and libpcap number it.
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Ethernet,
            0 => Self::Null,
            108 => Self::Loop,
            12 | 14 | 101 => Self::Raw,
            228 => Self::RawIpv4,
            229 => Self::RawIpv6,
            113 => Self::LinuxSll,
            276 => Self::LinuxSll2,
            9 | 50 => Self::Ppp,
            104 => Self::CiscoHdlc,
            105 => Self::Ieee80211,
            127 => Self::Radiotap,
            239 => Self::Nflog,
            other => Self::Unsupported(other),
        }
    }
}

/// One captured frame, borrowed from the capture buffer and valid for the call.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// When it was captured; never earlier than the frame before it from the same source.
    pub time: Timestamp,
    /// How `bytes` begins.
    pub link: LinkType,
    /// Bytes on the wire; at least `bytes.len()` in a sane capture, more where a snap length cut it.
    pub wire_len: u32,
    /// The captured bytes, from the link header on.
    pub bytes: &'a [u8],
}

/// One UDP datagram, borrowed from the frame (or from the decoder, where it came in fragments).
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// When the carrying frame was captured.
    pub time: Timestamp,
    /// The flow, by its innermost addresses.
    pub key: FlowKey,
    /// Which of the key's peers sent it.
    pub side: Side,
    /// VLAN tags and tunnel that it came in.
    pub envelope: Envelope,
    /// Captured payload bytes, without link padding.
    pub payload: &'a [u8],
}
