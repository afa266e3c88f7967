//! Link headers: Ethernet with tags, FabricPath, LLC, loopback, Linux cooked, PPP, Cisco HDLC.
//!
//! Sources: IEEE 802.3 and 802.1Q, RFC 1042 (SNAP), RFC 1661/1662 (PPP), RFC 2516 (PPPoE),
//! <https://www.tcpdump.org/linktypes.html>.

use offpath_types::TunnelKind;

use crate::walk::{Context, Cursor, IdKind, Next, Step, Stop};
use crate::{Layer, LengthSource};

/// Values of an EtherType field below this are lengths (IEEE 802.3 §3.2.6).
const ETHER_TYPE_MIN: u16 = 0x0600;

#[inline]
pub(crate) fn ethernet<'b>(c: &mut Cursor<'b>) -> Step<'b> {
    let header = c.take::<14>(Layer::Ethernet)?;
    Ok(type_or_length(c, u16::from_be_bytes([header[12], header[13]])))
}

/// Reads the last field of an Ethernet header or VLAN tag.
#[inline]
fn type_or_length(c: &mut Cursor<'_>, field: u16) -> Next<'static> {
    if field >= ETHER_TYPE_MIN {
        return Next::EtherType(field);
    }
    c.bound_to(usize::from(field), LengthSource::Ieee8023);
    Next::Llc
}

/// Goes on after an EtherType that is neither IPv4 nor IPv6.
pub(crate) fn ether_type<'b>(context: &Context, c: &mut Cursor<'b>, number: u16) -> Step<'b> {
    match number {
        // 802.1Q, 802.1ad, and what was used before 802.1ad.
        0x8100 | 0x88a8 | 0x9100 | 0x9200 => {
            c.enter_tag(context)?;
            let tag = c.take::<4>(Layer::Vlan)?;
            let vlan = u16::from_be_bytes([tag[0], tag[1]]) & 0x0fff;
            // VLAN 0 is a priority tag: no VLAN (IEEE 802.1Q §9.6).
            c.envelope = c.envelope.with_vlan(vlan);
            if context.vlan_in_key && vlan != 0 {
                c.identify(IdKind::Vlan, u32::from(vlan));
            }
            Ok(type_or_length(c, u16::from_be_bytes([tag[2], tag[3]])))
        }
        0x8847 | 0x8848 => Ok(Next::Mpls),
        0x8864 => pppoe(c),
        0x894f => Ok(Next::Nsh),
        // Cisco FabricPath: a tag of 2 bytes, then the tunnelled frame.
        0x8903 => {
            c.enter(context)?;
            c.note(TunnelKind::FabricPath, None);
            c.skip(2, Layer::Ethernet)?;
            Ok(Next::Ethernet)
        }
        _ => Err(Stop::NonIp),
    }
}

pub(crate) fn llc<'b>(c: &mut Cursor<'b>) -> Step<'b> {
    match c.take::<3>(Layer::Llc)? {
        // SNAP, unnumbered information.
        [0xaa, 0xaa, 0x03] => {
            let snap = c.take::<5>(Layer::Llc)?;
            match snap {
                // RFC 1042, and the "bridge tunnel" code of 802.1H.
                [0, 0, 0x00 | 0xf8, high, low] => Ok(Next::EtherType(u16::from_be_bytes([*high, *low]))),
                _ => Err(Stop::NonIp),
            }
        }
        [0x06, 0x06, 0x03] => Ok(Next::Ipv4),
        _ => Err(Stop::NonIp),
    }
}

/// Reads 4 bytes of address family: the writer's byte order for `Null`, network order for `Loop`.
pub(crate) fn loopback<'b>(c: &mut Cursor<'b>, either_order: bool) -> Step<'b> {
    let family = c.take::<4>(Layer::Loopback)?;
    let known = |family: u32| match family {
        2 => Some(Next::Ipv4),
        // AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS.
        10 | 24 | 28 | 30 => Some(Next::Ipv6),
        _ => None,
    };
    let network = known(u32::from_be_bytes(*family));
    let swapped = if either_order { known(u32::from_le_bytes(*family)) } else { None };
    network.or(swapped).ok_or(Stop::NonIp)
}

pub(crate) fn cooked<'b>(c: &mut Cursor<'b>) -> Step<'b> {
    let header = c.take::<16>(Layer::Cooked)?;
    Ok(cooked_protocol(u16::from_be_bytes([header[14], header[15]])))
}

pub(crate) fn cooked2<'b>(c: &mut Cursor<'b>) -> Step<'b> {
    let header = c.take::<20>(Layer::Cooked)?;
    Ok(cooked_protocol(u16::from_be_bytes([header[0], header[1]])))
}

fn cooked_protocol(number: u16) -> Next<'static> {
    // 4: an 802.2 frame (LINUX_SLL_P_802_2); other small values are no EtherTypes and end as non-IP.
    if number == 4 { Next::Llc } else { Next::EtherType(number) }
}

pub(crate) fn cisco_hdlc<'b>(c: &mut Cursor<'b>) -> Step<'b> {
    let header = c.take::<4>(Layer::CiscoHdlc)?;
    Ok(Next::EtherType(u16::from_be_bytes([header[2], header[3]])))
}

fn pppoe<'b>(c: &mut Cursor<'b>) -> Step<'b> {
    let header = c.take::<6>(Layer::Pppoe)?;
    // Version 1, type 1, code 0: session data (RFC 2516 §4).
    if header[0] != 0x11 || header[1] != 0 {
        return Err(Stop::NonIp);
    }
    c.note(TunnelKind::Pppoe, Some(u32::from(u16::from_be_bytes([header[2], header[3]]))));
    c.bound_to(usize::from(u16::from_be_bytes([header[4], header[5]])), LengthSource::Pppoe);
    Ok(Next::Ppp)
}

pub(crate) fn ppp<'b>(c: &mut Cursor<'b>) -> Step<'b> {
    match c.bytes {
        // HDLC-like framing (RFC 1662 §3.1).
        [0xff, 0x03, ..] => c.skip(2, Layer::Ppp)?,
        // Captures of type PPP_HDLC may hold Cisco HDLC instead (RFC 1547 §4.3.1).
        [0x0f | 0x8f, 0x00, ..] => return Ok(Next::CiscoHdlc),
        _ => {}
    }
    let [first] = *c.take::<1>(Layer::Ppp)?;
    // Protocol numbers are odd in their last byte and even in their first, which may be left out
    // (RFC 1661 §6.5).
    let protocol = if first & 1 == 1 {
        u16::from(first)
    } else {
        let [second] = *c.take::<1>(Layer::Ppp)?;
        u16::from_be_bytes([first, second])
    };
    match protocol {
        0x0021 => Ok(Next::Ipv4),
        0x0057 => Ok(Next::Ipv6),
        0x0281 | 0x0283 => Ok(Next::Mpls),
        _ => Err(Stop::NonIp),
    }
}
