//! Envelopes between an outer and an inner packet: MPLS, NSH, GRE, ERSPAN, EtherIP and tunnels over UDP.
//!
//! Sources: RFC 3032 and 4385 (MPLS), RFC 8300 (NSH), RFC 2784, 2890, 1701 and 2637 (GRE),
//! draft-foschiano-erspan-03, RFC 3378 (EtherIP), RFC 7348 (VXLAN), draft-ietf-nvo3-vxlan-gpe,
//! RFC 8926 (GENEVE), RFC 8086 (GRE in UDP), RFC 6951 (SCTP in UDP), 3GPP TS 29.281 (GTP-U), RFC 4380 (Teredo).
//!
//! A UDP port is only a hint: a payload that does not look like the port's tunnel is left as UDP. Once the
//! tunnel header is accepted, what is wrong inside it is an error like anywhere else.

use offpath_types::TunnelKind;

use crate::walk::{Context, Cursor, Ends, IdKind, Next, Step, Stop};
use crate::{Layer, LengthSource, ip, link};

const fn be16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

/// Reads labels to the bottom of the stack, and guesses what follows, since no field says it.
pub(crate) fn mpls<'b>(context: &Context, c: &mut Cursor<'b>) -> Step<'b> {
    loop {
        c.enter_tag(context)?;
        let label = c.take::<4>(Layer::Mpls)?;
        if label[2] & 1 == 1 {
            c.note(TunnelKind::Mpls, Some(u32::from_be_bytes(*label) >> 12));
            break;
        }
    }
    let bytes = c.bytes;
    let Some(first) = bytes.first() else { return Err(c.truncated(Layer::Mpls, 1).into()) };
    match first >> 4 {
        // A pseudowire without control word begins with a MAC address, which may look like an IP version.
        4 if !begins_with_ethernet(bytes) || ipv4_is_plausible(c) => Ok(Next::Ipv4),
        6 if !begins_with_ethernet(bytes) || ipv6_is_plausible(c) => Ok(Next::Ipv6),
        0 => {
            let after_word = bytes.get(4..).unwrap_or_default();
            // MAC addresses often begin with a zero nibble, as a control word does: see which reading leads
            // to a known EtherType, and prefer the control word.
            if begins_with_ethernet(after_word) || !begins_with_ethernet(bytes) {
                c.skip(4, Layer::Mpls)?;
            }
            c.enter(context)?;
            Ok(Next::Ethernet)
        }
        // Associated channel: operation and maintenance (RFC 4385 §5).
        1 if !begins_with_ethernet(bytes) => Err(Stop::NonIp),
        _ => {
            c.enter(context)?;
            Ok(Next::Ethernet)
        }
    }
}

/// Tells whether `bytes` read as an Ethernet header end in an EtherType that is often seen.
fn begins_with_ethernet(bytes: &[u8]) -> bool {
    let [_, _, _, _, _, _, _, _, _, _, _, _, high, low, ..] = bytes else { return false };
    matches!(
        be16(*high, *low),
        0x0800 | 0x86dd | 0x0806 | 0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x8847 | 0x8848 | 0x8864
    )
}

fn ipv4_is_plausible(c: &Cursor<'_>) -> bool {
    let [first, _, high, low, ..] = c.bytes else { return true };
    first & 0x0f >= 5 && u32::from(be16(*high, *low)) <= c.wire_len() && be16(*high, *low) >= 20
}

fn ipv6_is_plausible(c: &Cursor<'_>) -> bool {
    let [_, _, _, _, high, low, ..] = c.bytes else { return true };
    u32::from(be16(*high, *low)) + 40 <= c.wire_len()
}

pub(crate) fn nsh<'b>(context: &Context, c: &mut Cursor<'b>) -> Step<'b> {
    c.enter(context)?;
    // Base header and service path header; the length counts both, in units of 4 bytes.
    let header = c.take::<8>(Layer::Nsh)?;
    let units = usize::from(header[1] & 0x3f);
    c.note(TunnelKind::Nsh, Some(id24(header[4], header[5], header[6])));
    c.skip((units * 4).saturating_sub(8), Layer::Nsh)?;
    match header[3] {
        1 => Ok(Next::Ipv4),
        2 => Ok(Next::Ipv6),
        3 => Ok(Next::Ethernet),
        5 => Ok(Next::Mpls),
        _ => Err(Stop::NonIp),
    }
}

pub(crate) fn ether_ip<'b>(context: &Context, c: &mut Cursor<'b>) -> Step<'b> {
    c.enter(context)?;
    c.note(TunnelKind::EtherIp, None);
    let header = c.take::<2>(Layer::EtherIp)?;
    if header[0] >> 4 != 3 {
        return Err(Stop::IpOther);
    }
    Ok(Next::Ethernet)
}

pub(crate) fn gre<'b>(context: &Context, c: &mut Cursor<'b>) -> Step<'b> {
    const CHECKSUM: u8 = 0x80;
    const ROUTING: u8 = 0x40;
    const KEY: u8 = 0x20;
    const SEQUENCE: u8 = 0x10;
    /// Virtual switches that mirror to an IP address set this bit of an otherwise empty key for one direction
    /// (zeek's erspan.pcap). The one NVGRE network whose key looks the same (0x20000) is then not told from plain GRE.
    const MIRROR_DIRECTION: u32 = 0x0200_0000;

    c.enter(context)?;
    let [flags, version, high, low] = *c.take::<4>(Layer::Gre)?;
    let protocol = be16(high, low);
    match version & 7 {
        0 => {}
        1 => return pptp(c, flags, version, protocol),
        _ => return Err(Stop::IpOther),
    }
    c.note(TunnelKind::Gre, None);
    if flags & (CHECKSUM | ROUTING) != 0 {
        c.skip(4, Layer::Gre)?;
    }
    if flags & KEY != 0 {
        // All 32 bits: NVGRE's low 8 are a flow id that may differ by direction (RFC 7637 §3.2), but
        // nothing tells NVGRE from keyed Ethernet-over-GRE, where they matter.
        let key = *c.take::<4>(Layer::Gre)?;
        let key = u32::from_be_bytes(key);
        c.note(TunnelKind::Gre, Some(key));
        let mirror =
            matches!(protocol, 0x88be | 0x22eb) || protocol == 0x6558 && key & !MIRROR_DIRECTION == 0;
        if !mirror {
            c.identify(IdKind::GreKey, key);
        }
    }
    if flags & SEQUENCE != 0 {
        c.skip(4, Layer::Gre)?;
    }
    if flags & ROUTING != 0 {
        // Source route entries: address family, offset, length of the rest; a null one ends them.
        loop {
            let entry = c.take::<4>(Layer::Gre)?;
            if entry[0] == 0 && entry[1] == 0 && entry[3] == 0 {
                break;
            }
            c.skip(usize::from(entry[3]), Layer::Gre)?;
        }
    }
    match protocol {
        0x6558 => Ok(Next::Ethernet),
        // Type I has no header of its own, and GRE no sequence number.
        0x88be if flags & SEQUENCE == 0 => {
            c.note(TunnelKind::Erspan, None);
            Ok(Next::Ethernet)
        }
        0x88be | 0x22eb => erspan(context, c),
        other => Ok(Next::EtherType(other)),
    }
}

/// Session ids and GRE keys of ERSPAN name where a frame was copied, not a network: switches often use one per
/// direction or per port, so the session is part of the key only where the operator says so.
fn erspan<'b>(context: &Context, c: &mut Cursor<'b>) -> Step<'b> {
    let header = c.take::<8>(Layer::Erspan)?;
    let session = u32::from(be16(header[2], header[3]) & 0x03ff);
    c.note(TunnelKind::Erspan, Some(session));
    // The VLAN that the frame came from, which its own tag, where it kept one, repeats.
    let vlan = be16(header[0], header[1]) & 0x0fff;
    match header[0] >> 4 {
        // Type II.
        1 => {}
        // Type III: 4 more bytes, of which the last bit announces a platform-specific subheader of 8.
        2 => {
            let more = c.take::<4>(Layer::Erspan)?;
            if more[3] & 1 == 1 {
                c.skip(8, Layer::Erspan)?;
            }
            // Frame type 2 is a bare IP packet.
            if (more[2] >> 2) & 0x1f == 2 {
                erspan_key(context, c, session, vlan);
                return Ok(Next::Ip);
            }
        }
        _ => return Err(Stop::NonIp),
    }
    erspan_key(context, c, session, vlan);
    let tagged = matches!(c.bytes.get(12..14), Some([0x81, 0] | [0x88, 0xa8]));
    if tagged {
        c.envelope = c.envelope.without_vlans();
    }
    link::ethernet(c)
}

fn erspan_key(context: &Context, c: &mut Cursor<'_>, session: u32, vlan: u16) {
    c.envelope = c.envelope.without_vlans().with_vlan(vlan);
    if context.erspan_in_key {
        c.identify(IdKind::Erspan, session);
    }
}

/// Enhanced GRE: PPP with payload length and call id in place of the key.
fn pptp<'b>(c: &mut Cursor<'b>, flags: u8, version: u8, protocol: u16) -> Step<'b> {
    if protocol != 0x880b {
        return Err(Stop::IpOther);
    }
    let key = c.take::<4>(Layer::Gre)?;
    c.note(TunnelKind::Pptp, Some(u32::from(be16(key[2], key[3]))));
    // Without a sequence number there is no payload, only an acknowledgement.
    if flags & 0x10 == 0 {
        return Err(Stop::IpOther);
    }
    c.skip(if version & 0x80 != 0 { 8 } else { 4 }, Layer::Gre)?;
    c.bound_to(usize::from(be16(key[0], key[1])), LengthSource::Gre);
    Ok(Next::Ppp)
}

pub(crate) fn udp<'b>(context: &Context, c: &mut Cursor<'b>, ends: Ends<'b>) -> Step<'b> {
    let header = c.take::<8>(Layer::Udp)?;
    let (src, dst) = (be16(header[0], header[1]), be16(header[2], header[3]));
    // 0: a datagram past 64 KiB (RFC 2675), or offloaded.
    let len = usize::from(be16(header[4], header[5]));
    if len != 0 {
        c.bound_to(len.saturating_sub(8), LengthSource::Udp);
    }
    let inner = match dst {
        // SCTP in UDP (RFC 6951 §5.3); answers come from the port.
        _ if (src == 9899 || dst == 9899) && looks_like_sctp(c) => {
            return Ok(Next::Transport { number: ip::SCTP, ends });
        }
        // GRE in UDP (RFC 8086): as strict as the others about what is accepted, then plain GRE.
        4754 if matches!(c.bytes, [flags, version, ..] if flags & 0x4f == 0 && *version == 0) => {
            return gre(context, c);
        }
        4789 | 8472 => vxlan(c),
        4790 => vxlan_gpe(c),
        6081 => geneve(c),
        2152 => gtp(c),
        3544 => teredo(c),
        _ if src == 3544 || is_teredo_between_peers(c) => teredo(c),
        _ => None,
    };
    let Some(next) = inner else {
        return Err(if begins_like_quic(c.bytes) {
            Stop::Quic { ends, ports: (src, dst) }
        } else {
            Stop::Udp
        });
    };
    c.enter(context)?;
    Ok(next)
}

/// Reads the tunnel header that a whole datagram begins with: what a listener of our own takes in.
pub(crate) fn datagram<'b>(
    context: &Context,
    c: &mut Cursor<'b>,
    tunnel: fn(&mut Cursor<'b>) -> Option<Next<'static>>,
) -> Step<'b> {
    let next = tunnel(c).ok_or(Stop::Udp)?;
    c.enter(context)?;
    Ok(next)
}

/// Reads VXLAN, or VXLAN-GPE, whose flag for the next protocol plain VXLAN does not have.
pub(crate) fn vxlan_or_gpe(c: &mut Cursor<'_>) -> Option<Next<'static>> {
    let start = *c;
    vxlan(c).or_else(|| {
        *c = start;
        vxlan_gpe(c)
    })
}

/// Tells whether a datagram begins with a long header of QUIC version 1 or 2, or of the drafts 29 to 32 (RFC 9000
/// §17.2, RFC 9369 §3.1).
#[inline]
fn begins_like_quic(bytes: &[u8]) -> bool {
    matches!(*bytes, [first, a, b, c, d, ..]
        if first & 0xc0 == 0xc0 && matches!([a, b, c, d], [0, 0, 0, 1] | [0x6b, 0x33, 0x43, 0xcf] | [0xff, 0, 0, 0x1d..=0x20]))
}

/// Tells whether a datagram may be an SCTP packet: two ports, and a first chunk of a basic type that fits (RFC 9260 §3).
#[cold]
fn looks_like_sctp(c: &Cursor<'_>) -> bool {
    matches!(*c.bytes, [a, b, x, y, _, _, _, _, _, _, _, _, 0..=14 | 64 | 128..=132 | 192, _, high, low, ..]
        if be16(a, b) != 0 && be16(x, y) != 0
            && (4..=c.wire_len().saturating_sub(12)).contains(&u32::from(be16(high, low))))
}

/// Consumes and returns the next `N` bytes where there are as many.
fn head<'b, const N: usize>(c: &mut Cursor<'b>) -> Option<&'b [u8; N]> {
    let (head, rest) = c.bytes.split_first_chunk::<N>()?;
    c.bytes = rest;
    Some(head)
}

fn id24(high: u8, mid: u8, low: u8) -> u32 {
    u32::from_be_bytes([0, high, mid, low])
}

fn vxlan(c: &mut Cursor<'_>) -> Option<Next<'static>> {
    let header = head::<8>(c)?;
    // The id must be valid; the group policy extension may add its flag; the last byte is reserved.
    if header[0] & !0x80 != 0x08 || header[7] != 0 {
        return None;
    }
    let id = id24(header[4], header[5], header[6]);
    c.identify(IdKind::Vxlan, id);
    c.note(TunnelKind::Vxlan, Some(id));
    Some(Next::Ethernet)
}

fn vxlan_gpe(c: &mut Cursor<'_>) -> Option<Next<'static>> {
    let header = head::<8>(c)?;
    // Version 0, id valid, no maintenance packet.
    if header[0] & 0x39 != 0x08 {
        return None;
    }
    let id = id24(header[4], header[5], header[6]);
    c.identify(IdKind::Vxlan, id);
    c.note(TunnelKind::Vxlan, Some(id));
    // Without the P flag it is plain VXLAN.
    match (header[0] & 0x04, header[3]) {
        (0, _) | (_, 3) => Some(Next::Ethernet),
        (_, 1) => Some(Next::Ipv4),
        (_, 2) => Some(Next::Ipv6),
        (_, 4) => Some(Next::Nsh),
        (_, 5) => Some(Next::Mpls),
        _ => None,
    }
}

pub(crate) fn geneve(c: &mut Cursor<'_>) -> Option<Next<'static>> {
    let header = head::<8>(c)?;
    // Version 0, no control packet, last byte reserved.
    if header[0] >> 6 != 0 || header[1] & 0x80 != 0 || header[7] != 0 {
        return None;
    }
    c.bytes = c.bytes.get(usize::from(header[0] & 0x3f) * 4..)?;
    let id = id24(header[4], header[5], header[6]);
    c.identify(IdKind::Geneve, id);
    c.note(TunnelKind::Geneve, Some(id));
    match be16(header[2], header[3]) {
        0x6558 => Some(Next::Ethernet),
        other => Some(Next::EtherType(other)),
    }
}

fn gtp(c: &mut Cursor<'_>) -> Option<Next<'static>> {
    const EXTENSION: u8 = 0x04;

    let header = head::<8>(c)?;
    // Version 1, GTP (not GTP'), G-PDU. The tunnel id names one direction only and is not kept.
    if header[0] & 0xf0 != 0x30 || header[1] != 0xff {
        return None;
    }
    if header[0] & 0x07 != 0 {
        let optional = head::<4>(c)?;
        let mut next = if header[0] & EXTENSION != 0 { optional[3] } else { 0 };
        while next != 0 {
            let units = usize::from(*c.bytes.first()?);
            let extension = c.bytes.get(..units * 4)?;
            next = *extension.last()?;
            c.bytes = c.bytes.get(units * 4..)?;
        }
    }
    c.note(TunnelKind::GtpU, Some(u32::from_be_bytes([header[4], header[5], header[6], header[7]])));
    by_version(c)
}

fn teredo(c: &mut Cursor<'_>) -> Option<Next<'static>> {
    // Authentication: id and value of given lengths, nonce, confirmation byte.
    if let [0, 1, id_len, value_len, ..] = *c.bytes {
        c.bytes = c.bytes.get(usize::from(id_len) + usize::from(value_len) + 13..)?;
    }
    // Origin indication: port and address.
    if let [0, 0, ..] = c.bytes {
        c.bytes = c.bytes.get(8..)?;
    }
    match by_version(c)? {
        Next::Ipv6 if ipv6_is_plausible(c) => {
            c.note(TunnelKind::Teredo, None);
            Some(Next::Ipv6)
        }
        _ => None,
    }
}

/// Tells whether the datagram is exactly an IPv6 packet from or to a Teredo address (`2001::/32`): only a client's
/// way to its server has a known port, while relays and other clients use any (RFC 4380 §5.2.3).
#[inline]
fn is_teredo_between_peers(c: &Cursor<'_>) -> bool {
    let [first, _, _, _, high, low, _, _, rest @ ..] = c.bytes else { return false };
    first >> 4 == 6
        && u32::from(be16(*high, *low)) + 40 == c.wire_len()
        && (rest.starts_with(&[0x20, 1, 0, 0])
            || rest.get(16..).is_some_and(|dst| dst.starts_with(&[0x20, 1, 0, 0])))
}

fn by_version(c: &Cursor<'_>) -> Option<Next<'static>> {
    match c.bytes.first()? >> 4 {
        4 => Some(Next::Ipv4),
        6 => Some(Next::Ipv6),
        _ => None,
    }
}
