//! Who talks to whom.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Envelope, Timestamp};

/// An IP address in 16 bytes; IPv4 is held as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host([u8; 16]);

const V4_MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl Host {
    /// Makes a host from the 4 bytes of an IPv4 header.
    #[inline]
    pub const fn from_v4(b: [u8; 4]) -> Self {
        // As one integer, so that comparing it right away needs no trip through memory.
        Self(((0xffff_u128 << 32) | u32::from_be_bytes(b) as u128).to_be_bytes())
    }

    /// Makes a host from the 16 bytes of an IPv6 header.
    #[inline]
    pub const fn from_v6(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the 16 bytes; IPv4 mapped.
    pub const fn octets(&self) -> &[u8; 16] {
        &self.0
    }

    /// Tells whether this is an IPv4 address (mapped ones included).
    pub fn is_v4(&self) -> bool {
        self.0[..12] == V4_MAPPED
    }

    /// Returns the address in std's form.
    pub fn to_ip(self) -> IpAddr {
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::new(self.0[12], self.0[13], self.0[14], self.0[15]))
        } else {
            IpAddr::V6(Ipv6Addr::from(self.0))
        }
    }

    /// Returns the network address of the host's prefix: /24 for IPv4, /48 for IPv6.
    pub fn prefix(&self) -> Self {
        let mut b = self.0;
        if self.is_v4() {
            b[15] = 0;
        } else {
            b[6..].fill(0);
        }
        Self(b)
    }

    /// Returns the prefix length that [`Host::prefix`] cuts at: 24 or 48.
    pub fn prefix_len(&self) -> u8 {
        if self.is_v4() { 24 } else { 48 }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self::from_v6(v6.octets()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Its address.
    pub host: Host,
    /// Its TCP, UDP or SCTP port.
    pub port: u16,
}

/// Which address plan a flow lives in: 0 outside any tunnel, else the tunnel's kind and identifier.
///
/// Overlapping private networks behind different VNIs must not mix, so this is part of the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelId(pub u64);

/// Which of a key's two peers: the lower one or the higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The peer that sorts first.
    Low,
    /// The peer that sorts last.
    High,
}

impl Side {
    /// Returns the other side.
    pub const fn flip(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }
}

/// A 5-tuple and its address plan, the same for both directions; of SCTP also the stream.
// Invariant: `low <= high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    low: Peer,
    high: Peer,
    tunnel: TunnelId,
    /// Lies where padding would.
    stream: Option<u16>,
}

impl FlowKey {
    /// Makes the key of a segment from `src` to `dst`, and tells which side sent it.
    #[inline]
    pub fn new(src: Peer, dst: Peer, tunnel: TunnelId) -> (Self, Side) {
        // The order of `Peer`, on integers: this runs once per packet.
        let order = |peer: &Peer| (u128::from_be_bytes(peer.host.0), peer.port);
        if order(&src) <= order(&dst) {
            (Self { low: src, high: dst, tunnel, stream: None }, Side::Low)
        } else {
            (Self { low: dst, high: src, tunnel, stream: None }, Side::High)
        }
    }

    /// Makes the key of one stream of the SCTP association that `self` stands for.
    #[must_use]
    pub const fn with_stream(self, stream: u16) -> Self {
        Self { stream: Some(stream), ..self }
    }

    /// Returns the SCTP stream; `None` for whole 5-tuples, and so for TCP.
    pub const fn stream(&self) -> Option<u16> {
        self.stream
    }

    /// Returns one of the two peers.
    pub const fn peer(&self, side: Side) -> Peer {
        match side {
            Side::Low => self.low,
            Side::High => self.high,
        }
    }

    /// Returns the address plan.
    pub const fn tunnel(&self) -> TunnelId {
        self.tunnel
    }

    /// Returns a seeded 64-bit hash, the same for both directions and for all streams of an SCTP association.
    ///
    /// Decides which shard owns the flow. `seed` is secret, so that a peer cannot choose its shard.
    /// Mixing is the 128-bit folded multiply of wyhash (Wang Yi, 2019).
    pub fn hash64(&self, seed: u64) -> u64 {
        let word = |b: &[u8; 16], at: usize| {
            let mut w = [0u8; 8];
            w.copy_from_slice(&b[at..at + 8]);
            u64::from_le_bytes(w)
        };
        let (l, h) = (self.low.host.octets(), self.high.host.octets());
        let ports = (u64::from(self.low.port) << 16) | u64::from(self.high.port);
        let mut x = fold(seed ^ 0xa076_1d64_78bd_642f, word(l, 0) ^ seed.rotate_left(32));
        x = fold(x ^ word(l, 8), 0xe703_7ed1_a0b4_28db ^ word(h, 8));
        x = fold(x ^ word(h, 0), 0x8ebc_6af0_9c88_c6e3 ^ ports);
        fold(x ^ self.tunnel.0, 0x5899_65cc_7537_4cc3 ^ seed)
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let m = u128::from(a) * u128::from(b);
    (m as u64) ^ ((m >> 64) as u64)
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

impl Direction {
    /// Returns the opposite direction.
    pub const fn flip(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }

    /// Returns 0 for `ToServer`, 1 for `ToClient`: an index into pairs.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What is known of a flow when it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowInfo {
    /// Its key.
    pub key: FlowKey,
    /// The side that is the client: who sent the SYN, or a guess where `midstream`.
    pub client_side: Side,
    /// When its first packet was seen.
    pub opened: Timestamp,
    /// First seen without its SYN, so `client_side` is a guess (the lower port is taken for the server's).
    pub midstream: bool,
    /// What its first packet was wrapped in.
    pub envelope: Envelope,
}

impl FlowInfo {
    /// Returns the client's address and port.
    pub const fn client(&self) -> Peer {
        self.key.peer(self.client_side)
    }

    /// Returns the server's address and port.
    pub const fn server(&self) -> Peer {
        self.key.peer(self.client_side.flip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8, port: u16) -> Peer {
        Peer { host: Host::from_v4([10, 0, 0, last]), port }
    }

    #[test]
    fn key_and_hash_are_the_same_in_both_directions() {
        for seed in [0, 1, u64::MAX] {
            for (a, b) in
                [(peer(1, 40000), peer(2, 80)), (peer(1, 80), peer(1, 81)), (peer(9, 1), peer(9, 1))]
            {
                let (k1, s1) = FlowKey::new(a, b, TunnelId(7));
                let (k2, s2) = FlowKey::new(b, a, TunnelId(7));
                assert_eq!(k1, k2);
                assert_eq!(k1.hash64(seed), k2.hash64(seed));
                assert!(k1.peer(Side::Low) <= k1.peer(Side::High));
                assert_eq!(k1.peer(s1), a);
                assert_eq!(k2.peer(s2), b);
            }
        }
    }

    #[test]
    fn streams_of_an_association_are_flows_of_their_own_in_one_shard() {
        let (key, _) = FlowKey::new(peer(1, 40000), peer(2, 80), TunnelId(7));
        let streams = [key, key.with_stream(0), key.with_stream(1), key.with_stream(u16::MAX)];
        assert_eq!(streams.map(|k| k.stream()), [None, Some(0), Some(1), Some(u16::MAX)]);
        assert!(streams.is_sorted_by(|a, b| a < b));
        assert!(streams.iter().all(|k| k.hash64(3) == key.hash64(3)));
        assert_eq!(size_of::<FlowKey>(), 48, "the stream costs nothing");
    }

    #[test]
    fn hash_spreads_neighbouring_ports_over_16_shards() {
        let mut shards = [0u32; 16];
        for port in 0..16_000u16 {
            let (k, _) = FlowKey::new(peer(1, port), peer(2, 80), TunnelId(0));
            shards[(k.hash64(42) >> 60) as usize] += 1;
        }
        assert!(shards.iter().all(|n| (800..1200).contains(n)), "{shards:?}");
    }

    #[test]
    fn prefixes() {
        let v6 = Host::from("2001:db8:1:2::9".parse::<IpAddr>().unwrap());
        assert_eq!(v6.prefix().to_string(), "2001:db8:1::");
        assert_eq!(peer(77, 0).host.prefix().to_string(), "10.0.0.0");
    }
}
