//! Long headers of QUIC versions 1 and 2, and the packets that share a datagram.

use super::keys::Version;

/// Longest connection id of these versions (RFC 9000 §17.2).
const CONNECTION_ID_MAX: usize = 20;

/// What a long header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Initial,
    ZeroRtt,
    Handshake,
    Retry,
}

/// One packet with a long header.
#[derive(Clone, Copy, Debug)]
pub(super) struct LongPacket<'a> {
    pub(super) version: Version,
    pub(super) kind: Kind,
    pub(super) destination: &'a [u8],
    /// The whole packet; packet number and what follows it are protected.
    pub(super) bytes: &'a [u8],
    /// Where the packet number begins.
    pub(super) number_at: usize,
}

impl<'a> LongPacket<'a> {
    /// Takes the first packet off a datagram; `None` where it is none, or not whole.
    pub(super) fn parse(datagram: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut r = Reader { bytes: datagram, at: 0 };
        let first = r.u8()?;
        let version = Version::of(u32::from_be_bytes(*r.take(4)?.first_chunk()?))?;
        let kind = version.kind(first >> 4 & 3);
        let destination = r.connection_id()?;
        let _source = r.connection_id()?;
        if kind == Kind::Retry {
            // Token and integrity tag fill the datagram (RFC 9000 §17.2.5).
            let packet = Self { version, kind, destination, bytes: datagram, number_at: datagram.len() };
            return Some((packet, &[]));
        }
        if kind == Kind::Initial {
            let token = usize::try_from(r.varint()?).ok()?;
            r.take(token)?;
        }
        let length = usize::try_from(r.varint()?).ok()?;
        let number_at = r.at;
        r.take(length)?;
        let (bytes, rest) = datagram.split_at(r.at);
        Some((Self { version, kind, destination, bytes, number_at }, rest))
    }
}

/// Reads fields in order; past the end is `None`.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    /// A number whose first two bits give its length (RFC 9000 §16).
    pub(super) fn varint(&mut self) -> Option<u64> {
        let first = *self.bytes.get(self.at)?;
        let bytes = self.take(1 << (first >> 6))?;
        let rest = bytes[1..].iter();
        Some(rest.fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)))
    }

    fn connection_id(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(self.u8()?);
        if len > CONNECTION_ID_MAX {
            return None;
        }
        self.take(len)
    }
}
