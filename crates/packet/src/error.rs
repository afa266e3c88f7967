//! Why a frame could not be decoded.

use std::fmt;

/// The header that was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Ethernet II or 802.3.
    Ethernet,
    /// LLC and SNAP after 802.3.
    Llc,
    /// A VLAN tag.
    Vlan,
    /// BSD loopback.
    Loopback,
    /// Linux cooked capture, either version.
    Cooked,
    /// PPP.
    Ppp,
    /// Cisco HDLC.
    CiscoHdlc,
    /// IEEE 802.11, with or without radiotap.
    Ieee80211,
    /// An NFLOG message.
    Nflog,
    /// PPPoE session.
    Pppoe,
    /// An MPLS label or pseudowire control word.
    Mpls,
    /// Network service header (RFC 8300).
    Nsh,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// An IPv6 extension header, or AH.
    IpExtension,
    /// GRE.
    Gre,
    /// ERSPAN type II or III.
    Erspan,
    /// EtherIP (RFC 3378).
    EtherIp,
    /// UDP.
    Udp,
    /// VXLAN or VXLAN-GPE.
    Vxlan,
    /// GENEVE.
    Geneve,
    /// GTP-U.
    Gtp,
    /// TCP.
    Tcp,
    /// SCTP's common header.
    Sctp,
}

/// What set the end of the bytes a header was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LengthSource {
    /// The captured bytes ended.
    Captured,
    /// Length of an NFLOG attribute.
    Nflog,
    /// Length field of 802.3.
    Ieee8023,
    /// Length field of PPPoE.
    Pppoe,
    /// Payload length of GRE version 1.
    Gre,
    /// Total length of IPv4.
    Ipv4,
    /// Payload length of IPv6.
    Ipv6,
    /// Length field of UDP.
    Udp,
    /// A datagram put together from fragments ended.
    Assembled,
}

/// Why a frame could not be decoded. Each variant has a drop counter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The capture's link type is none that is decoded.
    LinkUnsupported {
        /// Its number.
        number: u32,
    },
    /// A header does not fit in the bytes there are.
    Truncated {
        /// The header.
        layer: Layer,
        /// Bytes it needs, as far as that could be told.
        needed: u32,
        /// Bytes there are from its start.
        available: u32,
        /// What ended them.
        length_from: LengthSource,
    },
    /// A header contradicts itself: a wrong version, or a length below its own minimum.
    HeaderInvalid {
        /// The header.
        layer: Layer,
        /// The smallest valid value of the offending field.
        needed: u32,
        /// Its value.
        available: u32,
    },
    /// More tunnels, tags or labels inside one another than the limit allows.
    TunnelTooDeep {
        /// The limit.
        depth_max: u8,
    },
    /// A fragment that no datagram can contain: empty, not a multiple of 8 bytes, past 65535, or against
    /// the end that another fragment set.
    FragmentInvalid,
    /// A fragment that was cut by a snap length.
    FragmentTruncated {
        /// Bytes it carried on the wire.
        needed: u32,
        /// Bytes captured.
        available: u32,
    },
    /// An IPv6 fragment that overlaps another: the datagram is discarded (RFC 5722).
    FragmentOverlap,
    /// A fragment that found no room under the caps.
    FragmentOverCap,
}

impl DecodeError {
    /// Returns the reason as counters and records name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LinkUnsupported { .. } => "link_unsupported",
            Self::Truncated { .. } => "truncated",
            Self::HeaderInvalid { .. } => "header_invalid",
            Self::TunnelTooDeep { .. } => "tunnel_too_deep",
            Self::FragmentInvalid => "fragment_invalid",
            Self::FragmentTruncated { .. } => "fragment_truncated",
            Self::FragmentOverlap => "fragment_overlap",
            Self::FragmentOverCap => "fragment_over_cap",
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::LinkUnsupported { number } => write!(f, "link type {number} is not supported"),
            Self::Truncated { layer, needed, available, length_from } => write!(
                f,
                "{layer:?} header needs {needed} bytes, there are {available} (end set by {length_from:?})"
            ),
            Self::HeaderInvalid { layer, needed, available } => {
                write!(f, "{layer:?} header field is {available}, below its minimum of {needed}")
            }
            Self::TunnelTooDeep { depth_max } => write!(f, "more than {depth_max} nested tunnels or tags"),
            Self::FragmentInvalid => f.write_str("fragment fits in no datagram"),
            Self::FragmentTruncated { needed, available } => {
                write!(f, "fragment of {needed} bytes was captured with {available}")
            }
            Self::FragmentOverlap => f.write_str("IPv6 fragment overlaps another"),
            Self::FragmentOverCap => f.write_str("no room to hold the fragment"),
        }
    }
}

impl std::error::Error for DecodeError {}
