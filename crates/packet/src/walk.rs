//! Walks from the link header inwards until something is not another envelope.
//!
//! In: captured bytes and how they begin. Out: one [`Leaf`]. Keeps no state and counts nothing, so walking
//! the same bytes twice is harmless. Every step consumes at least one byte or moves inwards in a fixed
//! order, so the work is linear in the captured bytes.

use offpath_types::{Datagram, Envelope, Host, LinkType, Timestamp, TunnelKind};

use crate::duplicates::Found;
use crate::{DecodeError, Layer, LengthSource, SctpPacket, ip, link, radio, tunnel};

/// What a walk needs to know besides the bytes.
#[derive(Clone, Copy)]
pub(crate) struct Context {
    pub(crate) time: Timestamp,
    pub(crate) depth_max: u8,
    pub(crate) vlan_in_key: bool,
    pub(crate) erspan_in_key: bool,
}

/// The kinds of identifiers that make up a [`offpath_types::TunnelId`].
///
/// Only identifiers that are the same in both directions: GTP's TEIDs, PPTP's call ids, MPLS labels and
/// PPPoE sessions name one direction or one hop; VLANs and ERSPAN's sessions often do, and count where the
/// operator says that they don't. Tunnels without an
/// identifier (IP-in-IP, plain GRE) do not change the id either, so a load balancer's tunnelled requests
/// still meet their untunnelled responses.
#[derive(Clone, Copy)]
pub(crate) enum IdKind {
    Vxlan = 1,
    Geneve = 2,
    GreKey = 3,
    Erspan = 4,
    Vlan = 5,
}

/// Where a walk is: the bytes still to read, and what the layers around them said.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'b> {
    pub(crate) bytes: &'b [u8],
    /// Bytes that follow `bytes` on the wire and were not captured.
    pub(crate) cut: u32,
    /// What set the end of `bytes`.
    pub(crate) bound: LengthSource,
    /// Tunnel identifiers so far; 0 for none.
    pub(crate) tunnel: u64,
    /// Tunnels entered so far.
    pub(crate) depth: u8,
    /// VLAN tags and MPLS labels since the last tunnel was entered.
    pub(crate) tags: u8,
    /// What records say of tags and tunnels.
    pub(crate) envelope: Envelope,
    /// IP id of the innermost IPv4 header.
    pub(crate) ip_id: u16,
}

impl<'b> Cursor<'b> {
    /// Starts at the link header. `cut` is capped at what one offloaded super-packet may have (512 KiB), so
    /// that a damaged record header cannot announce gigabytes.
    #[inline]
    pub(crate) fn new(bytes: &'b [u8], wire_len: u32) -> Self {
        let captured = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let cut = wire_len.saturating_sub(captured).min(512 << 10);
        Self {
            bytes,
            cut,
            bound: LengthSource::Captured,
            tunnel: 0,
            depth: 0,
            tags: 0,
            envelope: Envelope::NONE,
            ip_id: 0,
        }
    }

    /// Returns the error for a header that needs `needed` bytes.
    #[cold]
    pub(crate) fn truncated(&self, layer: Layer, needed: usize) -> DecodeError {
        DecodeError::Truncated {
            layer,
            needed: u32::try_from(needed).unwrap_or(u32::MAX),
            available: u32::try_from(self.bytes.len()).unwrap_or(u32::MAX),
            length_from: self.bound,
        }
    }

    /// Consumes and returns the next `N` bytes.
    #[inline]
    pub(crate) fn take<const N: usize>(&mut self, layer: Layer) -> Result<&'b [u8; N], DecodeError> {
        match self.bytes.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.bytes = rest;
                Ok(head)
            }
            None => Err(self.truncated(layer, N)),
        }
    }

    /// Consumes `len` bytes.
    #[inline]
    pub(crate) fn skip(&mut self, len: usize, layer: Layer) -> Result<(), DecodeError> {
        match self.bytes.get(len..) {
            Some(rest) => {
                self.bytes = rest;
                Ok(())
            }
            None => Err(self.truncated(layer, len)),
        }
    }

    /// Applies a length field: what lies past it is padding, what is missing from it was cut.
    #[inline]
    pub(crate) fn bound_to(&mut self, len: usize, source: LengthSource) {
        if let Some(inside) = self.bytes.get(..len) {
            if len < self.bytes.len() {
                self.bound = source;
            }
            self.bytes = inside;
            self.cut = 0;
        } else {
            self.cut = u32::try_from(len - self.bytes.len()).unwrap_or(u32::MAX);
        }
    }

    /// Returns how many bytes there are from here on the wire.
    #[inline]
    pub(crate) fn wire_len(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX).saturating_add(self.cut)
    }

    /// Counts one tunnel.
    pub(crate) fn enter(&mut self, context: &Context) -> Result<(), DecodeError> {
        self.tags = 0;
        bump(&mut self.depth, context)
    }

    /// Notes the tunnel that was entered, for records.
    #[inline]
    pub(crate) fn note(&mut self, kind: TunnelKind, id: Option<u32>) {
        self.envelope = self.envelope.with_tunnel(kind, id);
    }

    /// Counts one tag or label.
    pub(crate) fn enter_tag(&mut self, context: &Context) -> Result<(), DecodeError> {
        bump(&mut self.tags, context)
    }

    /// Adds an identifier to the tunnel id. One identifier is kept readable (kind, then value); nested ones
    /// are mixed, and order matters.
    pub(crate) fn identify(&mut self, kind: IdKind, id: u32) {
        let own = ((kind as u64) << 32) | u64::from(id);
        self.tunnel = if self.tunnel == 0 {
            own
        } else {
            // Odd constant: 2^64 divided by the golden ratio.
            let mixed = (self.tunnel.rotate_left(23) ^ own).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed ^ (mixed >> 29)).max(1)
        };
    }
}

fn bump(count: &mut u8, context: &Context) -> Result<(), DecodeError> {
    if *count >= context.depth_max {
        return Err(DecodeError::TunnelTooDeep { depth_max: context.depth_max });
    }
    *count += 1;
    Ok(())
}

/// The two addresses of an IP packet, where its header has them: source, then destination.
// References, so that a step inwards is a few registers: hosts are made once, at the end.
#[derive(Clone, Copy)]
pub(crate) enum Ends<'b> {
    V4(&'b [u8; 8]),
    V6(&'b [u8; 32]),
}

impl Ends<'_> {
    /// Returns source and destination.
    #[inline]
    pub(crate) fn hosts(&self) -> (Host, Host) {
        match self {
            Self::V4([a, b, c, d, e, f, g, h]) => {
                (Host::from_v4([*a, *b, *c, *d]), Host::from_v4([*e, *f, *g, *h]))
            }
            Self::V6(bytes) => {
                let (mut src, mut dst) = ([0; 16], [0; 16]);
                src.copy_from_slice(&bytes[..16]);
                dst.copy_from_slice(&bytes[16..]);
                (Host::from_v6(src), Host::from_v6(dst))
            }
        }
    }
}

/// What the next byte begins.
#[derive(Clone, Copy)]
pub(crate) enum Next<'b> {
    Ethernet,
    EtherType(u16),
    Llc,
    Loopback { either_order: bool },
    Cooked,
    Cooked2,
    Ppp,
    CiscoHdlc,
    Radiotap,
    Ieee80211 { padded: bool },
    Nflog,
    Vxlan,
    Geneve,
    Mpls,
    Nsh,
    Ip,
    Ipv4,
    Ipv6,
    Transport { number: u8, ends: Ends<'b> },
}

/// What a walk ended at.
pub(crate) enum Leaf<'b> {
    Tcp(Found<'b>),
    Sctp(SctpPacket<'b>),
    Udp(Datagram<'b>),
    Fragment(Fragment<'b>),
    Other(Stop<'b>),
}

/// Why a step does not lead further inwards.
// Small, for the same reason as `Ends`.
#[derive(Clone, Copy)]
pub(crate) enum Stop<'b> {
    Udp,
    Quic { ends: Ends<'b>, ports: (u16, u16) },
    Icmp,
    IpOther,
    NonIp,
    Fragment { ends: Ends<'b>, id: u32, offset: u32, more: bool, number: u8 },
    Error(DecodeError),
}

impl From<DecodeError> for Stop<'_> {
    #[inline]
    fn from(error: DecodeError) -> Self {
        Self::Error(error)
    }
}

/// A piece of a datagram.
#[derive(Clone, Copy)]
pub(crate) struct Fragment<'b> {
    pub(crate) key: FragmentKey,
    /// Position of the first byte in the datagram's payload.
    pub(crate) offset: u32,
    /// More fragments follow this one.
    pub(crate) more: bool,
    /// What the payload begins with; only the one at offset 0 is believed (RFC 8200 §4.5).
    pub(crate) number: u8,
    /// The piece, and the surroundings to go on with once the datagram is whole.
    pub(crate) cursor: Cursor<'b>,
}

/// What the fragments of one datagram have in common (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FragmentKey {
    pub(crate) id: u32,
    /// Protocol of IPv4; 0 for IPv6, where it is not part of the key.
    pub(crate) number: u8,
    pub(crate) tunnel: u64,
    pub(crate) src: Host,
    pub(crate) dst: Host,
    pub(crate) v6: bool,
}

/// One step inwards, or where the walk ends.
pub(crate) type Step<'b> = Result<Next<'b>, Stop<'b>>;

/// Returns how frames of `link` begin.
#[inline]
pub(crate) fn first_layer<'b>(link: LinkType) -> Result<Next<'b>, DecodeError> {
    Ok(match link {
        LinkType::Ethernet => Next::Ethernet,
        LinkType::Null => Next::Loopback { either_order: true },
        LinkType::Loop => Next::Loopback { either_order: false },
        LinkType::Raw => Next::Ip,
        LinkType::RawIpv4 => Next::Ipv4,
        LinkType::RawIpv6 => Next::Ipv6,
        LinkType::LinuxSll => Next::Cooked,
        LinkType::LinuxSll2 => Next::Cooked2,
        LinkType::Ppp => Next::Ppp,
        LinkType::CiscoHdlc => Next::CiscoHdlc,
        LinkType::Ieee80211 => Next::Ieee80211 { padded: false },
        LinkType::Radiotap => Next::Radiotap,
        LinkType::Nflog => Next::Nflog,
        LinkType::Vxlan => Next::Vxlan,
        LinkType::Geneve => Next::Geneve,
        LinkType::Unsupported(number) => return Err(DecodeError::LinkUnsupported { number }),
    })
}

/// Walks from `next` inwards and returns what it ends at.
#[inline]
pub(crate) fn walk<'b>(context: &Context, mut cursor: Cursor<'b>, mut next: Next<'b>) -> Leaf<'b> {
    let c = &mut cursor;
    loop {
        let step = match next {
            Next::Ethernet => {
                // Tags are those of the innermost frame.
                c.envelope = c.envelope.without_vlans();
                link::ethernet(c)
            }
            Next::EtherType(0x0800) | Next::Ipv4 => ip::ipv4(c),
            Next::EtherType(0x86dd) | Next::Ipv6 => ip::ipv6(c),
            Next::Transport { number: ip::TCP, ends } => {
                return match ip::tcp(context, c, ends) {
                    Ok(found) => Leaf::Tcp(found),
                    Err(error) => Leaf::Other(Stop::Error(error)),
                };
            }
            Next::Transport { number: ip::SCTP, ends } => {
                return match ip::sctp(context, c, ends) {
                    Ok(packet) => Leaf::Sctp(packet),
                    Err(error) => Leaf::Other(Stop::Error(error)),
                };
            }
            Next::Transport { number, ends } => ip::transport(context, c, number, ends),
            Next::EtherType(number) => link::ether_type(context, c, number),
            Next::Llc => link::llc(c),
            Next::Loopback { either_order } => link::loopback(c, either_order),
            Next::Cooked => link::cooked(c),
            Next::Cooked2 => link::cooked2(c),
            Next::Ppp => link::ppp(c),
            Next::CiscoHdlc => link::cisco_hdlc(c),
            Next::Radiotap => radio::radiotap(c),
            Next::Ieee80211 { padded } => radio::ieee80211(c, padded),
            Next::Nflog => radio::nflog(c),
            Next::Vxlan => tunnel::datagram(context, c, tunnel::vxlan_or_gpe),
            Next::Geneve => tunnel::datagram(context, c, tunnel::geneve),
            Next::Mpls => tunnel::mpls(context, c),
            Next::Nsh => tunnel::nsh(context, c),
            Next::Ip => ip::either(c),
        };
        match step {
            Ok(inner) => next = inner,
            Err(Stop::Fragment { ends, id, offset, more, number }) => {
                return Leaf::Fragment(fragment(&cursor, ends, id, offset, more, number));
            }
            Err(Stop::Quic { ends, ports }) => return Leaf::Udp(ip::udp(context, &cursor, ends, ports)),
            Err(stop) => return Leaf::Other(stop),
        }
    }
}

#[cold]
fn fragment<'b>(
    c: &Cursor<'b>,
    ends: Ends<'b>,
    id: u32,
    offset: u32,
    more: bool,
    number: u8,
) -> Fragment<'b> {
    let (src, dst) = ends.hosts();
    let v6 = matches!(ends, Ends::V6(_));
    let key = FragmentKey { id, number: if v6 { 0 } else { number }, tunnel: c.tunnel, src, dst, v6 };
    Fragment { key, offset, more, number, cursor: *c }
}
