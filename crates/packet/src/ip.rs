//! IP packets and what they carry.
//!
//! Lengths come from the IP header, bounded by the captured bytes: padding is not payload. Checksums are
//! not looked at: on a host that offloads them, the captured ones are wrong.
//! Sources: RFC 791, RFC 8200, RFC 4302 (AH), RFC 9293, RFC 9260.

use etherparse::err::{ipv4, ipv6, tcp};
use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice};
use offpath_types::{Datagram, FlowKey, Peer, TunnelId, TunnelKind};

use crate::duplicates::Found;
use crate::walk::{Context, Cursor, Ends, Next, Step, Stop};
use crate::{DecodeError, Layer, LengthSource, SctpPacket, SeqNum, TcpFlags, TcpSegment, tunnel};

/// Protocol number of TCP.
pub(crate) const TCP: u8 = 6;
/// Protocol number of SCTP.
pub(crate) const SCTP: u8 = 132;

/// Tells IPv4 and IPv6 apart by the version.
pub(crate) fn either<'b>(c: &mut Cursor<'b>) -> Step<'b> {
    match c.bytes.first().map(|b| b >> 4) {
        Some(4) => Ok(Next::Ipv4),
        Some(6) => Ok(Next::Ipv6),
        Some(version) => Err(invalid(Layer::Ipv4, 4, u32::from(version)).into()),
        None => Err(c.truncated(Layer::Ipv4, 20).into()),
    }
}

#[inline]
pub(crate) fn ipv4<'b>(c: &mut Cursor<'b>) -> Step<'b> {
    let header = match Ipv4HeaderSlice::from_slice(c.bytes) {
        Ok(header) => header,
        Err(error) => return Err(ipv4_error(c, &error).into()),
    };
    let header_len = header.slice().len();
    let total_len = usize::from(header.total_len());
    // 0 is what an offloading host hands to the capture for segments past 64 KiB: all that was captured.
    if total_len != 0 {
        if total_len < header_len {
            return Err(invalid(Layer::Ipv4, header_len as u32, total_len as u32).into());
        }
        c.bound_to(total_len, LengthSource::Ipv4);
    }
    c.skip(header_len, Layer::Ipv4)?;
    let number = header.protocol().0;
    c.ip_id = header.identification();
    let ends = match header.slice().get(12..).and_then(<[u8]>::first_chunk) {
        Some(ends) => Ends::V4(ends),
        None => return Err(c.truncated(Layer::Ipv4, 20).into()),
    };
    if !header.is_fragmenting_payload() {
        return Ok(Next::Transport { number, ends });
    }
    Err(Stop::Fragment {
        ends,
        id: u32::from(header.identification()),
        offset: u32::from(header.fragments_offset().value()) * 8,
        more: header.more_fragments(),
        number,
    })
}

#[inline]
pub(crate) fn ipv6<'b>(c: &mut Cursor<'b>) -> Step<'b> {
    let header = match Ipv6HeaderSlice::from_slice(c.bytes) {
        Ok(header) => header,
        Err(error) => return Err(ipv6_error(c, &error).into()),
    };
    c.skip(header.slice().len(), Layer::Ipv6)?;
    c.ip_id = 0;
    let payload_len = usize::from(header.payload_length());
    // 0: a jumbogram (RFC 2675) or an offloaded super-packet; all that was captured.
    if payload_len != 0 {
        c.bound_to(payload_len, LengthSource::Ipv6);
    }
    let ends = match header.slice().last_chunk() {
        Some(ends) => Ends::V6(ends),
        None => return Err(c.truncated(Layer::Ipv6, 40).into()),
    };
    Ok(Next::Transport { number: header.next_header().0, ends })
}

/// Goes on after an IP header, extension header or completed datagram that announces `number`.
pub(crate) fn transport<'b>(context: &Context, c: &mut Cursor<'b>, number: u8, ends: Ends<'b>) -> Step<'b> {
    match number {
        // Hop-by-hop, routing, destination options, mobility, HIP, Shim6: length in units of 8 bytes.
        0 | 43 | 60 | 135 | 139 | 140 if matches!(ends, Ends::V6(_)) => {
            let [next, units] = *c.take::<2>(Layer::IpExtension)?;
            c.skip(usize::from(units) * 8 + 6, Layer::IpExtension)?;
            Ok(Next::Transport { number: next, ends })
        }
        44 if matches!(ends, Ends::V6(_)) => {
            let header = c.take::<8>(Layer::IpExtension)?;
            let field = u16::from_be_bytes([header[2], header[3]]);
            let (offset, more) = (u32::from(field & 0xfff8), field & 1 == 1);
            // An atomic fragment is a whole datagram of its own (RFC 6946).
            if offset == 0 && !more {
                return Ok(Next::Transport { number: header[0], ends });
            }
            let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            Err(Stop::Fragment { ends, id, offset, more, number: header[0] })
        }
        // AH: length in units of 4 bytes, minus 2. What follows is in the clear.
        51 => {
            let [next, units] = *c.take::<2>(Layer::IpExtension)?;
            c.skip(usize::from(units) * 4 + 6, Layer::IpExtension)?;
            Ok(Next::Transport { number: next, ends })
        }
        4 => ip_in_ip(context, c, Next::Ipv4),
        41 => ip_in_ip(context, c, Next::Ipv6),
        47 => tunnel::gre(context, c),
        97 => tunnel::ether_ip(context, c),
        // MPLS in IP (RFC 4023), Ethernet in IPv6 (RFC 8986).
        137 => c.enter(context).map(|()| Next::Mpls).map_err(Stop::from),
        143 => {
            c.enter(context)?;
            c.note(TunnelKind::EtherIp, None);
            Ok(Next::Ethernet)
        }
        17 => tunnel::udp(context, c, ends),
        // The packet that an ICMP error quotes was seen, or will be, as itself.
        1 | 58 => Err(Stop::Icmp),
        _ => Err(Stop::IpOther),
    }
}

fn ip_in_ip<'b>(context: &Context, c: &mut Cursor<'b>, next: Next<'b>) -> Step<'b> {
    c.enter(context)?;
    c.note(TunnelKind::IpInIp, None);
    Ok(next)
}

#[inline]
pub(crate) fn tcp<'b>(
    context: &Context,
    c: &mut Cursor<'b>,
    ends: Ends<'_>,
) -> Result<Found<'b>, DecodeError> {
    let header = match TcpHeaderSlice::from_slice(c.bytes) {
        Ok(header) => header,
        Err(error) => return Err(tcp_error(c, &error)),
    };
    let header_len = header.slice().len();
    let wire_len = c.wire_len();
    let (src, dst) = ends.hosts();
    let (key, side) = FlowKey::new(
        Peer { host: src, port: header.source_port() },
        Peer { host: dst, port: header.destination_port() },
        TunnelId(c.tunnel),
    );
    let bytes = c.bytes;
    let segment = TcpSegment {
        time: context.time,
        key,
        side,
        seq: SeqNum(header.sequence_number()),
        ack: SeqNum(header.acknowledgment_number()),
        flags: TcpFlags::from_bits(header.slice()[13]),
        window: header.window_size(),
        // etherparse checked that the header is whole, so neither can be short.
        payload: c.bytes.get(header_len..).unwrap_or_default(),
        payload_len: wire_len - header_len as u32,
        envelope: c.envelope,
    };
    let options = bytes.get(20..header_len).unwrap_or_default();
    Ok(Found { segment, options, ip_id: c.ip_id })
}

/// Reads the common header of an SCTP packet (RFC 9260 §3.1).
#[cold]
pub(crate) fn sctp<'b>(
    context: &Context,
    c: &mut Cursor<'b>,
    ends: Ends<'_>,
) -> Result<SctpPacket<'b>, DecodeError> {
    let header = c.take::<12>(Layer::Sctp)?;
    let at = |i: usize| u16::from_be_bytes([header[i], header[i + 1]]);
    let (src, dst) = ends.hosts();
    let (key, side) =
        FlowKey::new(Peer { host: src, port: at(0) }, Peer { host: dst, port: at(2) }, TunnelId(c.tunnel));
    let tag = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let (payload, payload_len) = (c.bytes, c.wire_len());
    Ok(SctpPacket { time: context.time, key, side, tag, payload, payload_len, envelope: c.envelope })
}

/// Makes the datagram whose payload `c` is at.
#[cold]
pub(crate) fn udp<'b>(context: &Context, c: &Cursor<'b>, ends: Ends<'_>, ports: (u16, u16)) -> Datagram<'b> {
    let (src, dst) = ends.hosts();
    let (key, side) = FlowKey::new(
        Peer { host: src, port: ports.0 },
        Peer { host: dst, port: ports.1 },
        TunnelId(c.tunnel),
    );
    Datagram { time: context.time, key, side, envelope: c.envelope, payload: c.bytes }
}

pub(crate) const fn invalid(layer: Layer, needed: u32, available: u32) -> DecodeError {
    DecodeError::HeaderInvalid { layer, needed, available }
}

#[cold]
fn ipv4_error(c: &Cursor<'_>, error: &ipv4::HeaderSliceError) -> DecodeError {
    match error {
        ipv4::HeaderSliceError::Len(len) => c.truncated(Layer::Ipv4, len.required_len),
        ipv4::HeaderSliceError::Content(ipv4::HeaderError::UnexpectedVersion { version_number }) => {
            invalid(Layer::Ipv4, 4, u32::from(*version_number))
        }
        ipv4::HeaderSliceError::Content(ipv4::HeaderError::HeaderLengthSmallerThanHeader { ihl }) => {
            invalid(Layer::Ipv4, 5, u32::from(*ihl))
        }
    }
}

#[cold]
fn ipv6_error(c: &Cursor<'_>, error: &ipv6::HeaderSliceError) -> DecodeError {
    match error {
        ipv6::HeaderSliceError::Len(len) => c.truncated(Layer::Ipv6, len.required_len),
        ipv6::HeaderSliceError::Content(ipv6::HeaderError::UnexpectedVersion { version_number }) => {
            invalid(Layer::Ipv6, 6, u32::from(*version_number))
        }
    }
}

#[cold]
fn tcp_error(c: &Cursor<'_>, error: &tcp::HeaderSliceError) -> DecodeError {
    match error {
        tcp::HeaderSliceError::Len(len) => c.truncated(Layer::Tcp, len.required_len),
        tcp::HeaderSliceError::Content(tcp::HeaderError::DataOffsetTooSmall { data_offset }) => {
            invalid(Layer::Tcp, 5, u32::from(*data_offset))
        }
    }
}
