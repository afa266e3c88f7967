//! Builds packets and frames, header by header, with correct lengths and checksums.
//!
//! Every function takes what goes inside and returns the bytes with one more layer around them, so any
//! stack can be built: `Link::Vlan(7).wrap(&vxlan(a, b, 42, &Link::Ethernet.wrap(&tcp.packet())))`.
//! Nothing fails: what does not fit a 16-bit length field is built with the field cut short, which is
//! what a hostile sender would do too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// TCP flag bits (RFC 9293 §3.1).
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment field counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

/// One TCP segment.
#[derive(Clone, Debug)]
pub struct Tcp<'a> {
    /// Sender.
    pub src: SocketAddr,
    /// Receiver.
    pub dst: SocketAddr,
    /// Sequence number of the first payload byte (or of SYN).
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Window field.
    pub window: u16,
    /// Options; padded with zeros to a multiple of 4 and cut at 40 bytes.
    pub options: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// Makes an empty ACK from `src` to `dst` with sequence numbers 0.
    pub const fn new(src: SocketAddr, dst: SocketAddr) -> Self {
        Self { src, dst, seq: 0, ack: 0, flags: flags::ACK, window: 64_240, options: &[], payload: &[] }
    }

    /// Sets the sequence number.
    #[must_use]
    pub const fn seq(mut self, seq: u32) -> Self {
        self.seq = seq;
        self
    }

    /// Sets the acknowledgment number.
    #[must_use]
    pub const fn ack(mut self, ack: u32) -> Self {
        self.ack = ack;
        self
    }

    /// Sets the flags, replacing all.
    #[must_use]
    pub const fn flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// Sets the options.
    #[must_use]
    pub const fn options(mut self, options: &'a [u8]) -> Self {
        self.options = options;
        self
    }

    /// Sets the payload.
    #[must_use]
    pub const fn payload(mut self, payload: &'a [u8]) -> Self {
        self.payload = payload;
        self
    }

    /// Returns the TCP header and payload, with checksum.
    pub fn segment(&self) -> Vec<u8> {
        let packet = self.packet();
        let header = if is_v4(&packet) { 20 } else { 40 };
        packet.get(header..).unwrap_or_default().to_vec()
    }

    /// Returns an IPv4 packet where both ends are IPv4, else an IPv6 packet.
    pub fn packet(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(100 + self.payload.len());
        self.push_packet(&mut out, &[self.payload]);
        out
    }

    /// Returns the packet in a frame of `link`.
    pub fn frame(&self, link: Link) -> Vec<u8> {
        link.wrap(&self.packet())
    }

    /// Appends the packet to `out`, with the payload given in `pieces` instead of `self.payload`.
    pub fn push_packet(&self, out: &mut Vec<u8>, pieces: &[&[u8]]) {
        let options = &self.options[..self.options.len().min(40)];
        let header = 20 + options.len().next_multiple_of(4);
        let tcp_len = header + pieces.iter().map(|p| p.len()).sum::<usize>();
        let pseudo = push_ip_header(out, self.src.ip(), self.dst.ip(), 6, tcp_len);
        let start = out.len();
        out.extend_from_slice(&self.src.port().to_be_bytes());
        out.extend_from_slice(&self.dst.port().to_be_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.ack.to_be_bytes());
        out.push(((header / 4) as u8) << 4);
        out.push(self.flags);
        out.extend_from_slice(&self.window.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(options);
        out.resize(start + header, 0);
        for piece in pieces {
            out.extend_from_slice(piece);
        }
        let sum = checksum(pseudo, &out[start..]);
        out[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
    }
}

/// How a frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Ethernet II.
    Ethernet,
    /// Ethernet with one 802.1Q tag of this VLAN.
    Vlan(u16),
    /// Ethernet with an 802.1ad service tag and an 802.1Q customer tag.
    QinQ(u16, u16),
    /// Linux cooked capture v1.
    Sll,
    /// Linux cooked capture v2.
    Sll2,
    /// No link header.
    Raw,
    /// BSD loopback, address family in little-endian order.
    Null,
    /// BSD loopback, address family in big-endian order.
    NullBigEndian,
    /// OpenBSD loopback.
    Loop,
    /// PPP in HDLC-like framing.
    Ppp,
    /// Cisco HDLC.
    CiscoHdlc,
}

impl Link {
    /// Returns the data link type as capture files number it.
    pub const fn number(self) -> u32 {
        match self {
            Self::Ethernet | Self::Vlan(_) | Self::QinQ(..) => 1,
            Self::Sll => 113,
            Self::Sll2 => 276,
            Self::Raw => 101,
            Self::Null | Self::NullBigEndian => 0,
            Self::Loop => 108,
            Self::Ppp => 9,
            Self::CiscoHdlc => 104,
        }
    }

    /// Returns `packet` (IPv4 or IPv6, told by its first byte) in a frame.
    pub fn wrap(self, packet: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(packet.len() + 24);
        self.push(&mut out, packet);
        out.extend_from_slice(packet);
        out
    }

    /// Appends the link header that goes before `packet` to `out`.
    pub fn push(self, out: &mut Vec<u8>, packet: &[u8]) {
        let v4 = is_v4(packet);
        let ethertype: u16 = if v4 { 0x0800 } else { 0x86dd };
        match self {
            Self::Ethernet => push_ethernet(out, packet, ethertype),
            Self::Vlan(id) => {
                push_ethernet(out, packet, 0x8100);
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(&ethertype.to_be_bytes());
            }
            Self::QinQ(service, customer) => {
                push_ethernet(out, packet, 0x88a8);
                out.extend_from_slice(&service.to_be_bytes());
                out.extend_from_slice(&0x8100u16.to_be_bytes());
                out.extend_from_slice(&customer.to_be_bytes());
                out.extend_from_slice(&ethertype.to_be_bytes());
            }
            Self::Sll => {
                out.extend_from_slice(&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0]);
                out.extend_from_slice(&ethertype.to_be_bytes());
            }
            Self::Sll2 => {
                out.extend_from_slice(&ethertype.to_be_bytes());
                out.extend_from_slice(&[0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0]);
            }
            Self::Raw => {}
            Self::Null => out.extend_from_slice(&address_family(v4).to_le_bytes()),
            Self::NullBigEndian | Self::Loop => out.extend_from_slice(&address_family(v4).to_be_bytes()),
            Self::Ppp => out.extend_from_slice(if v4 { &[0xff, 3, 0, 0x21] } else { &[0xff, 3, 0, 0x57] }),
            Self::CiscoHdlc => {
                out.extend_from_slice(&[0x0f, 0]);
                out.extend_from_slice(&ethertype.to_be_bytes());
            }
        }
    }
}

/// Returns an IPv4 or IPv6 packet that carries `payload` as `protocol`.
pub fn ip(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(40 + payload.len());
    push_ip_header(&mut out, src, dst, protocol, payload.len());
    out.extend_from_slice(payload);
    out
}

/// Returns an IP packet that carries `payload` in UDP.
pub fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(48 + payload.len());
    let len = 8 + payload.len();
    let pseudo = push_ip_header(&mut out, src.ip(), dst.ip(), 17, len);
    let start = out.len();
    out.extend_from_slice(&src.port().to_be_bytes());
    out.extend_from_slice(&dst.port().to_be_bytes());
    out.extend_from_slice(&(len as u16).to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(payload);
    // RFC 768: a computed checksum of 0 is sent as all ones.
    let sum = match checksum(pseudo, &out[start..]) {
        0 => 0xffff,
        sum => sum,
    };
    out[start + 6..start + 8].copy_from_slice(&sum.to_be_bytes());
    out
}

/// Returns `packet` (IPv6) with an extension header put right behind the fixed header.
///
/// `kind` is 0 (hop-by-hop), 43 (routing) or 60 (destination options); `body` follows the two length
/// bytes and is padded with zeros (Pad1) to a multiple of 8.
pub fn with_ipv6_extension(packet: &[u8], kind: u8, body: &[u8]) -> Vec<u8> {
    let Some((fixed, rest)) = packet.split_at_checked(40) else { return packet.to_vec() };
    let len = (2 + body.len()).next_multiple_of(8);
    let mut out = fixed.to_vec();
    out[4..6].copy_from_slice(&((rest.len() + len) as u16).to_be_bytes());
    out[6] = kind;
    out.push(fixed[6]);
    out.push((len / 8 - 1) as u8);
    out.extend_from_slice(body);
    out.resize(40 + len, 0);
    out.extend_from_slice(rest);
    out
}

/// Returns the fragments of an IP packet, each with at most `payload_max` bytes (rounded down to a
/// multiple of 8, at least 8) behind its IP header. IPv6 fragments carry a fragment header.
pub fn fragments(packet: &[u8], payload_max: usize, id: u32) -> Vec<Vec<u8>> {
    let step = (payload_max / 8 * 8).max(8);
    let header = if is_v4(packet) { 20 } else { 40 };
    let Some((fixed, rest)) = packet.split_at_checked(header) else { return vec![packet.to_vec()] };
    let pieces = rest.len().div_ceil(step);
    rest.chunks(step)
        .enumerate()
        .map(|(i, piece)| {
            let more = i + 1 < pieces;
            let units = (i * step / 8) as u16;
            let mut out = fixed.to_vec();
            if header == 20 {
                out[2..4].copy_from_slice(&((20 + piece.len()) as u16).to_be_bytes());
                out[4..6].copy_from_slice(&(id as u16).to_be_bytes());
                out[6..8].copy_from_slice(&(units | if more { 0x2000 } else { 0 }).to_be_bytes());
                out[10..12].fill(0);
                let sum = checksum(0, &out[..20]);
                out[10..12].copy_from_slice(&sum.to_be_bytes());
            } else {
                out[4..6].copy_from_slice(&((8 + piece.len()) as u16).to_be_bytes());
                out[6] = 44;
                out.extend_from_slice(&[fixed[6], 0]);
                out.extend_from_slice(&((units << 3) | u16::from(more)).to_be_bytes());
                out.extend_from_slice(&id.to_be_bytes());
            }
            out.extend_from_slice(piece);
            out
        })
        .collect()
}

/// Returns an IP packet that carries the Ethernet `frame` in VXLAN (RFC 7348, UDP port 4789).
pub fn vxlan(src: IpAddr, dst: IpAddr, vni: u32, frame: &[u8]) -> Vec<u8> {
    let mut inner = vec![0x08, 0, 0, 0];
    inner.extend_from_slice(&(vni << 8).to_be_bytes());
    inner.extend_from_slice(frame);
    udp(SocketAddr::new(src, 49_152), SocketAddr::new(dst, 4789), &inner)
}

/// Returns an IP packet that carries `payload` in VXLAN-GPE (UDP port 4790); `protocol` 1 is IPv4, 3 Ethernet.
pub fn vxlan_gpe(src: IpAddr, dst: IpAddr, vni: u32, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut inner = vec![0x0c, 0, 0, protocol];
    inner.extend_from_slice(&(vni << 8).to_be_bytes());
    inner.extend_from_slice(payload);
    udp(SocketAddr::new(src, 49_152), SocketAddr::new(dst, 4790), &inner)
}

/// Returns an IP packet that carries the Ethernet `frame` in GENEVE (RFC 8926, UDP port 6081); `options` are whole
/// options, so a multiple of 4 bytes.
pub fn geneve(src: IpAddr, dst: IpAddr, vni: u32, options: &[u8], frame: &[u8]) -> Vec<u8> {
    let mut inner = vec![(options.len() / 4) as u8 & 0x3f, 0, 0x65, 0x58];
    inner.extend_from_slice(&(vni << 8).to_be_bytes());
    inner.extend_from_slice(options);
    inner.extend_from_slice(frame);
    udp(SocketAddr::new(src, 49_152), SocketAddr::new(dst, 6081), &inner)
}

/// Returns an IP packet that carries the IP `packet` in GTP-U (UDP port 2152).
pub fn gtp_u(src: IpAddr, dst: IpAddr, tunnel: u32, packet: &[u8]) -> Vec<u8> {
    let mut inner = vec![0x30, 0xff];
    inner.extend_from_slice(&(packet.len() as u16).to_be_bytes());
    inner.extend_from_slice(&tunnel.to_be_bytes());
    inner.extend_from_slice(packet);
    udp(SocketAddr::new(src, 2152), SocketAddr::new(dst, 2152), &inner)
}

/// Returns an IP packet that carries `payload` of type `ethertype` in GRE without options (RFC 2784).
pub fn gre(src: IpAddr, dst: IpAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut inner = vec![0, 0];
    inner.extend_from_slice(&ethertype.to_be_bytes());
    inner.extend_from_slice(payload);
    ip(src, dst, 47, &inner)
}

/// The optional fields of a GRE header (RFC 2784, RFC 2890).
#[derive(Clone, Copy, Debug, Default)]
pub struct Gre {
    /// A checksum over header and payload.
    pub checksum: bool,
    /// The key.
    pub key: Option<u32>,
    /// The sequence number.
    pub sequence: Option<u32>,
}

impl Gre {
    /// Returns an IP packet that carries `payload` of type `ethertype` in GRE with these fields.
    pub fn wrap(self, src: IpAddr, dst: IpAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let flags =
            flag(self.checksum, 0x80) | flag(self.key.is_some(), 0x20) | flag(self.sequence.is_some(), 0x10);
        let mut inner = vec![flags, 0];
        inner.extend_from_slice(&ethertype.to_be_bytes());
        if self.checksum {
            inner.extend_from_slice(&[0; 4]);
        }
        for word in [self.key, self.sequence].into_iter().flatten() {
            inner.extend_from_slice(&word.to_be_bytes());
        }
        inner.extend_from_slice(payload);
        if self.checksum {
            let sum = checksum(0, &inner);
            inner[4..6].copy_from_slice(&sum.to_be_bytes());
        }
        ip(src, dst, 47, &inner)
    }
}

/// Returns an IP packet that carries the Ethernet `frame` in ERSPAN type I.
pub fn erspan1(src: IpAddr, dst: IpAddr, frame: &[u8]) -> Vec<u8> {
    Gre::default().wrap(src, dst, 0x88be, frame)
}

/// Returns an IP packet that carries the Ethernet `frame`, mirrored from `vlan` (0: untagged), in ERSPAN type II of
/// `session`.
pub fn erspan2(src: IpAddr, dst: IpAddr, session: u16, vlan: u16, sequence: u32, frame: &[u8]) -> Vec<u8> {
    let mut inner = (0x1000 | vlan & 0x0fff).to_be_bytes().to_vec();
    inner.extend_from_slice(&(session & 0x03ff).to_be_bytes());
    inner.extend_from_slice(&[0; 4]);
    inner.extend_from_slice(frame);
    Gre { sequence: Some(sequence), ..Gre::default() }.wrap(src, dst, 0x88be, &inner)
}

/// Returns the same in ERSPAN type III, with a platform-specific subheader (its first 6 bits are the platform's id).
pub fn erspan3(src: IpAddr, dst: IpAddr, session: u16, vlan: u16, sequence: u32, frame: &[u8]) -> Vec<u8> {
    let mut inner = (0x2000 | vlan & 0x0fff).to_be_bytes().to_vec();
    inner.extend_from_slice(&(session & 0x03ff).to_be_bytes());
    // Timestamp; security group; frame type Ethernet, hardware id 0, IEEE 1588 granularity, subheader present.
    inner.extend_from_slice(&[0, 0, 0, 9, 0, 0, 0, 0x05]);
    // Platform 3 (Nexus): port id and upper half of the timestamp.
    inner.extend_from_slice(&[0x0c, 0, 0, 1, 0, 0, 0, 0]);
    inner.extend_from_slice(frame);
    Gre { sequence: Some(sequence), ..Gre::default() }.wrap(src, dst, 0x22eb, &inner)
}

/// Returns an Ethernet frame that carries another one under MPLS `labels`, outermost first, behind a control word
/// (RFC 4448) with `sequence`.
pub fn pseudowire(labels: &[u32], sequence: u16, frame: &[u8]) -> Vec<u8> {
    let mut inner = vec![0, 0];
    inner.extend_from_slice(&sequence.to_be_bytes());
    inner.extend_from_slice(frame);
    mpls(labels, &inner)
}

/// Returns an IP packet that carries the IP `packet` directly (protocol 4 or 41).
pub fn ip_in_ip(src: IpAddr, dst: IpAddr, packet: &[u8]) -> Vec<u8> {
    ip(src, dst, if is_v4(packet) { 4 } else { 41 }, packet)
}

/// Returns an Ethernet frame that carries the IP `packet` under MPLS `labels`, outermost first.
pub fn mpls(labels: &[u32], packet: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(packet.len() + 14 + 4 * labels.len());
    push_ethernet(&mut out, packet, 0x8847);
    for (i, label) in labels.iter().enumerate() {
        let bottom = u32::from(i + 1 == labels.len()) << 8;
        out.extend_from_slice(&((label << 12) | bottom | 64).to_be_bytes());
    }
    out.extend_from_slice(packet);
    out
}

/// Returns an Ethernet frame that carries the IP `packet` in a PPPoE session.
pub fn pppoe(session: u16, packet: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(packet.len() + 22);
    push_ethernet(&mut out, packet, 0x8864);
    out.extend_from_slice(&[0x11, 0]);
    out.extend_from_slice(&session.to_be_bytes());
    out.extend_from_slice(&((packet.len() + 2) as u16).to_be_bytes());
    out.extend_from_slice(if is_v4(packet) { &[0, 0x21] } else { &[0, 0x57] });
    out.extend_from_slice(packet);
    out
}

/// Returns the Internet checksum (RFC 1071) of `bytes`, with `initial` added in.
pub fn checksum(initial: u64, bytes: &[u8]) -> u16 {
    let mut sum = initial;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_be_bytes(*word));
    }
    let mut last = [0u8; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_be_bytes(last));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Appends an IP header and returns the pseudo-header's sum for the checksum of what follows.
fn push_ip_header(out: &mut Vec<u8>, src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> u64 {
    let pseudo = u64::from(protocol) + len as u64;
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            push_ipv4_header(out, src, dst, protocol, len);
            pseudo + u64::from(src.to_bits()) + u64::from(dst.to_bits())
        }
        (src, dst) => {
            let (src, dst) = (to_v6(src), to_v6(dst));
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&(len as u16).to_be_bytes());
            out.extend_from_slice(&[protocol, 64]);
            out.extend_from_slice(&src.octets());
            out.extend_from_slice(&dst.octets());
            pseudo + half_words(src) + half_words(dst)
        }
    }
}

fn push_ipv4_header(out: &mut Vec<u8>, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: usize) {
    let start = out.len();
    out.extend_from_slice(&[0x45, 0]);
    out.extend_from_slice(&((20 + len) as u16).to_be_bytes());
    out.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
    out.extend_from_slice(&src.octets());
    out.extend_from_slice(&dst.octets());
    let sum = checksum(0, &out[start..]);
    out[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
}

fn half_words(ip: Ipv6Addr) -> u64 {
    ip.segments().iter().map(|w| u64::from(*w)).sum()
}

fn to_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn is_v4(packet: &[u8]) -> bool {
    packet.first().is_none_or(|b| b >> 4 == 4)
}

fn address_family(v4: bool) -> u32 {
    // AF_INET is 2 everywhere; AF_INET6 is 30 on macOS, whose loopback captures are the common ones.
    if v4 { 2 } else { 30 }
}

/// MAC addresses come from the IP addresses, so that the two directions of a flow mirror each other.
fn push_ethernet(out: &mut Vec<u8>, packet: &[u8], ethertype: u16) {
    let (src, dst) = if is_v4(packet) { (12, 16) } else { (20, 36) };
    for at in [dst, src] {
        let mut mac = [2u8, 0, 0, 0, 0, 0];
        if let Some(ip) = packet.get(at..at + 4) {
            mac[2..].copy_from_slice(ip);
        }
        out.extend_from_slice(&mac);
    }
    out.extend_from_slice(&ethertype.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn checksums_verify_to_zero() {
        for (src, dst) in [("10.0.0.1:1", "10.0.0.2:80"), ("[2001:db8::1]:1", "[2001:db8::2]:80")] {
            for payload in [&b""[..], b"a", b"ab", b"abc", b"abcd", b"abcdefgh1"] {
                let packet = Tcp::new(addr(src), addr(dst))
                    .seq(7)
                    .ack(9)
                    .options(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])
                    .payload(payload)
                    .packet();
                let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
                if header == 20 {
                    assert_eq!(checksum(0, &packet[..20]), 0);
                }
                let addresses = if header == 20 { &packet[12..20] } else { &packet[8..40] };
                let pseudo: u64 =
                    addresses.chunks(2).map(|w| u64::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u64>()
                        + 6
                        + (packet.len() - header) as u64;
                assert_eq!(checksum(pseudo, &packet[header..]), 0, "{src} {payload:?}");
                assert_eq!(&packet[header + 32..], payload);
            }
        }
    }

    #[test]
    fn link_headers_have_their_lengths() {
        let packet = Tcp::new(addr("10.0.0.1:1"), addr("10.0.0.2:80")).packet();
        for (link, len) in [
            (Link::Ethernet, 14),
            (Link::Vlan(1), 18),
            (Link::QinQ(1, 2), 22),
            (Link::Sll, 16),
            (Link::Sll2, 20),
            (Link::Raw, 0),
            (Link::Null, 4),
            (Link::NullBigEndian, 4),
            (Link::Loop, 4),
            (Link::Ppp, 4),
            (Link::CiscoHdlc, 4),
        ] {
            assert_eq!(link.wrap(&packet).len() - packet.len(), len, "{link:?}");
        }
    }

    #[test]
    fn fragments_put_together_give_the_packet_back() {
        for (src, dst, header) in
            [("10.0.0.1:1", "10.0.0.2:80", 20), ("[2001:db8::1]:1", "[2001:db8::2]:80", 48)]
        {
            let packet = Tcp::new(addr(src), addr(dst)).payload(&[7; 333]).packet();
            let parts = fragments(&packet, 100, 5);
            assert_eq!(parts.len(), 4);
            let joined: Vec<u8> = parts.iter().flat_map(|p| p[header..].iter().copied()).collect();
            let fixed = if header == 20 { 20 } else { 40 };
            assert_eq!(joined, packet[fixed..]);
        }
    }

    #[test]
    fn an_ipv6_extension_header_is_chained() {
        let packet = Tcp::new(addr("[2001:db8::1]:1"), addr("[2001:db8::2]:80")).packet();
        let out = with_ipv6_extension(&with_ipv6_extension(&packet, 60, &[1, 4, 0, 0, 0, 0]), 0, &[1, 0]);
        assert_eq!((out[6], out[40], out[48]), (0, 60, 6));
        assert_eq!(usize::from(u16::from_be_bytes([out[4], out[5]])) + 40, out.len());
        assert_eq!(out[56..], packet[40..]);
    }
}
