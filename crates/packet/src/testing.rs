//! Builds packets for tests, from the inside out: each function wraps what it is given.

use offpath_types::{Frame, LinkType, Timestamp};

pub(crate) type Bytes = Vec<u8>;

pub(crate) const HELLO: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// Returns a frame of `bytes` captured whole.
pub(crate) fn frame(link: LinkType, bytes: &[u8]) -> Frame<'_> {
    Frame { time: Timestamp::from_parts(1_700_000_000, 0), link, wire_len: bytes.len() as u32, bytes }
}

pub(crate) fn cat(parts: &[&[u8]]) -> Bytes {
    parts.concat()
}

/// TCP from port 40000 to 80: seq 1000, ack 2000, PSH and ACK, window 65000, 12 bytes of options.
pub(crate) fn tcp(payload: &[u8]) -> Bytes {
    let header = [
        0x9c, 0x40, 0, 80, 0, 0, 0x03, 0xe8, 0, 0, 0x07, 0xd0, 0x80, 0x18, 0xfd, 0xe8, 0, 0, 0, 0, //
        1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2,
    ];
    cat(&[&header, payload])
}

pub(crate) fn udp(src: u16, dst: u16, payload: &[u8]) -> Bytes {
    let len = 8 + payload.len() as u16;
    cat(&[&src.to_be_bytes(), &dst.to_be_bytes(), &len.to_be_bytes(), &[0, 0], payload])
}

/// IPv4 from 10.0.0.`src` to 10.0.0.`dst`; `fragment` is the field of flags and offset.
pub(crate) fn ip4_with(protocol: u8, id: u16, fragment: u16, ends: [u8; 2], payload: &[u8]) -> Bytes {
    let len = 20 + payload.len() as u16;
    cat(&[
        &[0x45, 0],
        &len.to_be_bytes(),
        &id.to_be_bytes(),
        &fragment.to_be_bytes(),
        // A checksum that is wrong, as offloading leaves it.
        &[64, protocol, 0xde, 0xad, 10, 0, 0, ends[0], 10, 0, 0, ends[1]],
        payload,
    ])
}

/// The innermost IPv4: 10.0.0.1 to 10.0.0.2.
pub(crate) fn ip4(protocol: u8, payload: &[u8]) -> Bytes {
    ip4_with(protocol, 1, 0x4000, [1, 2], payload)
}

/// An outer IPv4, with other addresses.
pub(crate) fn outer4(protocol: u8, payload: &[u8]) -> Bytes {
    ip4_with(protocol, 2, 0x4000, [201, 202], payload)
}

/// IPv6 from 2001:db8::1 to 2001:db8::2.
pub(crate) fn ip6(next: u8, payload: &[u8]) -> Bytes {
    let len = payload.len() as u16;
    let address = |last| [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    cat(&[&[0x60, 0, 0, 0], &len.to_be_bytes(), &[next, 64], &address(1), &address(2), payload])
}

/// An IPv6 fragment header and its piece; `offset` in bytes.
pub(crate) fn frag6(next: u8, id: u32, offset: u16, more: bool, piece: &[u8]) -> Bytes {
    let field = offset | u16::from(more);
    cat(&[&[next, 0], &field.to_be_bytes(), &id.to_be_bytes(), piece])
}

pub(crate) fn eth(ether_type: u16, payload: &[u8]) -> Bytes {
    cat(&[&[0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1], &ether_type.to_be_bytes(), payload])
}

/// Ethernet with IPv4 and TCP: what most envelopes below hold.
pub(crate) fn eth_tcp() -> Bytes {
    eth(0x0800, &ip4(6, &tcp(HELLO)))
}

/// Ethernet, outer IPv4 and UDP to `port`.
pub(crate) fn over_udp(port: u16, payload: &[u8]) -> Bytes {
    eth(0x0800, &outer4(17, &udp(49_152, port, payload)))
}

/// Ethernet, outer IPv4 and GRE.
pub(crate) fn over_gre(header: &[u8], payload: &[u8]) -> Bytes {
    eth(0x0800, &outer4(47, &cat(&[header, payload])))
}

pub(crate) fn vxlan(vni: u32, inner: &[u8]) -> Bytes {
    cat(&[&[0x08, 0, 0, 0], &(vni << 8).to_be_bytes(), inner])
}

pub(crate) fn mpls_label(label: u32, bottom: bool) -> [u8; 4] {
    ((label << 12) | (u32::from(bottom) << 8) | 64).to_be_bytes()
}
