//! What a TLS handshake shows in the clear.

use std::fmt;
use std::sync::Arc;

use crate::{FlowInfo, FlowKey, Peer, Timestamp};

/// A JA4 fingerprint of a TLS client: 36 ASCII characters, `t13d1516h2_8daaf6152771_e5627efa2ab1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ja4([u8; 36]);

impl Ja4 {
    /// Wraps the text of a fingerprint; `None` where it is not 36 printable ASCII characters.
    pub fn new(text: &[u8]) -> Option<Self> {
        let text: [u8; 36] = text.try_into().ok()?;
        text.iter().all(u8::is_ascii_graphic).then_some(Self(text))
    }

    /// Returns the text.
    pub const fn as_bytes(&self) -> &[u8; 36] {
        &self.0
    }

    /// Returns a hash of the parts that stay when a client resumes a session or talks to a bare address:
    /// transport, version and ciphers. (Resuming adds an extension, an address takes one away.)
    pub fn stable_hash(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in self.0[..3].iter().chain(&self.0[10..23]) {
            // FNV-1a, which is enough for what is already a hash.
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash
    }
}

impl fmt::Display for Ja4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{}", char::from(*b)))
    }
}

impl fmt::Debug for Ja4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the two hellos of a TLS handshake say. All of it was sent in the clear.
///
/// Texts are as sent, bounded by their length fields in the protocol (a name by 64 KiB in theory, by the
/// limit on a hello in practice).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// Server name that the client asked for (the outer one where `ech`).
    pub server_name: Option<Box<[u8]>>,
    /// Protocols that the client offered (ALPN), as on the wire: each after its length in one byte.
    pub alpn_offered: Box<[u8]>,
    /// JA3: MD5 of the client's version, ciphers, extensions, groups and point formats.
    pub ja3: Option<[u8; 16]>,
    /// JA4 of the client.
    pub ja4: Option<Ja4>,
    /// JA3S: MD5 of the server's version, cipher and extensions.
    pub ja3s: Option<[u8; 16]>,
    /// Version that the server chose, as on the wire: 0x0304 is TLS 1.3.
    pub version: Option<u16>,
    /// Cipher suite that the server chose.
    pub cipher: Option<u16>,
    /// Protocol that the server chose, where it said so in the clear (not in TLS 1.3).
    pub next_protocol: Option<Box<[u8]>>,
    /// The client sent an encrypted ClientHello extension. One that carries nothing (GREASE) looks the same.
    pub ech: bool,
    /// What is inside was decrypted here, with a key log.
    pub decrypted: bool,
    /// Who the client was outside of the terminator that opened the encryption, where that told (by PROXY
    /// protocol or a header): what a handshake seen there is found by.
    pub outside: Option<Peer>,
}

impl TlsFacts {
    /// Fills what is missing here from `other`.
    pub fn fill(&mut self, other: &Self) {
        fn take<T: Clone>(own: &mut Option<T>, other: &Option<T>) {
            if own.is_none() {
                own.clone_from(other);
            }
        }
        take(&mut self.server_name, &other.server_name);
        take(&mut self.ja3, &other.ja3);
        take(&mut self.ja4, &other.ja4);
        take(&mut self.ja3s, &other.ja3s);
        take(&mut self.version, &other.version);
        take(&mut self.cipher, &other.cipher);
        take(&mut self.next_protocol, &other.next_protocol);
        take(&mut self.outside, &other.outside);
        if self.alpn_offered.is_empty() {
            self.alpn_offered.clone_from(&other.alpn_offered);
        }
        self.ech |= other.ech;
    }

    /// Yields the protocols that the client offered, in its order.
    pub fn alpn(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.alpn_offered[..];
        std::iter::from_fn(move || {
            let (len, after) = rest.split_first()?;
            let (name, after) = after.split_at_checked(usize::from(*len))?;
            rest = after;
            Some(name)
        })
    }
}

/// What carries a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// QUIC over UDP.
    Quic,
    /// A stream of an SCTP association.
    Sctp,
}

impl Transport {
    /// Returns what carries a flow that reassembly made.
    pub const fn of(key: &FlowKey) -> Self {
        if key.stream().is_some() { Self::Sctp } else { Self::Tcp }
    }

    /// Returns the name that records have for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::Sctp => "sctp",
        }
    }
}

/// How far a handshake was seen when it was handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HandshakeStage {
    /// The client's hello has just been read: what a join needs, as early as can be.
    ClientHello,
    /// Nothing more comes: both hellos were read, or the rest cannot be.
    Done,
}

/// A TLS handshake on a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Its flow; the client is who sent the ClientHello.
    pub flow: FlowInfo,
    /// Hash of the flow's key and start; the same on every machine and run.
    pub flow_id: u64,
    /// Number on its flow, from 0.
    pub index: u32,
    /// SHA-1 of the Community ID (v1, seed 0).
    pub community_id: [u8; 20],
    /// What carries it.
    pub transport: Transport,
    /// First byte of the ClientHello.
    pub started: Timestamp,
    /// Last byte of what was read of it.
    pub ended: Timestamp,
    /// Packet time at which it was handed on.
    pub emitted: Timestamp,
    /// How far it was seen.
    pub stage: HandshakeStage,
    /// What the hellos say.
    pub facts: Arc<TlsFacts>,
    /// Both hellos were seen whole.
    pub complete: bool,
}

impl Handshake {
    /// Returns the total order in which handshakes are joined and written, independent of workers and runs.
    pub fn order(&self) -> (Timestamp, FlowKey, Transport, Timestamp, u32, HandshakeStage) {
        (self.emitted, self.flow.key, self.transport, self.flow.opened, self.index, self.stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ja4_is_36_printable_characters() {
        let text = b"t13d1516h2_8daaf6152771_e5627efa2ab1";
        assert_eq!(Ja4::new(text).map(|j| j.to_string()).as_deref(), std::str::from_utf8(text).ok());
        assert_eq!(Ja4::new(&text[1..]), None);
        assert_eq!(Ja4::new(&[0x80; 36]), None);
    }

    #[test]
    fn offered_protocols_end_where_their_lengths_lie() {
        for (wire, want) in [
            (&b"\x02h2\x08http/1.1"[..], &[&b"h2"[..], b"http/1.1"][..]),
            (b"", &[]),
            (b"\x02h2\x09http/1.1", &[b"h2"]),
        ] {
            let facts = TlsFacts { alpn_offered: wire.into(), ..TlsFacts::default() };
            assert_eq!(facts.alpn().collect::<Vec<_>>(), want);
        }
    }
}
