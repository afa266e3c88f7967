//! Keys of Initial packets, which everybody can derive from the client's first destination id.

use ring::{aead, hkdf};

use super::packet::{Kind, LongPacket};

/// A version whose Initial packets can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Drafts 29 to 32, which differ from version 1 in their salt alone.
    Draft,
    V1,
    V2,
}

impl Version {
    pub(super) const fn of(number: u32) -> Option<Self> {
        match number {
            0x0000_0001 => Some(Self::V1),
            0x6b33_43cf => Some(Self::V2),
            0xff00_001d..=0xff00_0020 => Some(Self::Draft),
            _ => None,
        }
    }

    /// Returns what the two type bits of a long header mean (RFC 9000 §17.2; RFC 9369 §3.2).
    pub(super) const fn kind(self, bits: u8) -> Kind {
        let bits = match self {
            Self::Draft | Self::V1 => bits & 3,
            Self::V2 => bits.wrapping_sub(1) & 3,
        };
        match bits {
            0 => Kind::Initial,
            1 => Kind::ZeroRtt,
            2 => Kind::Handshake,
            _ => Kind::Retry,
        }
    }

    /// RFC 9001 §5.2, RFC 9369 §3.3.1, draft-ietf-quic-tls-29 §5.2.
    const fn salt(self) -> &'static [u8; 20] {
        match self {
            Self::Draft => &[
                0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97, 0x86, 0xf1, 0x9c, 0x61, 0x11,
                0xe0, 0x43, 0x90, 0xa8, 0x99,
            ],
            Self::V1 => &[
                0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c,
                0xad, 0xcc, 0xbb, 0x7f, 0x0a,
            ],
            Self::V2 => &[
                0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d,
                0xcb, 0xf9, 0xbd, 0x2e, 0xd9,
            ],
        }
    }

    /// Labels of key, initialisation vector and header protection (RFC 9001 §5.1, RFC 9369 §3.3.2).
    const fn labels(self) -> [&'static [u8]; 3] {
        match self {
            Self::Draft | Self::V1 => [b"quic key", b"quic iv", b"quic hp"],
            Self::V2 => [b"quicv2 key", b"quicv2 iv", b"quicv2 hp"],
        }
    }
}

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Client = 0,
    Server = 1,
}

/// The keys of one direction.
struct Half {
    key: aead::LessSafeKey,
    iv: [u8; 12],
    header: aead::quic::HeaderProtectionKey,
    /// Highest packet number that was opened.
    largest: Option<u64>,
}

/// The keys of one connection's Initial packets.
pub(super) struct InitialKeys {
    version: Version,
    destination: Vec<u8>,
    halves: [Option<Half>; 2],
}

impl InitialKeys {
    /// Derives the keys of a connection whose client first wrote to `destination`.
    pub(super) fn new(version: Version, destination: &[u8]) -> Self {
        let initial = hkdf::Salt::new(hkdf::HKDF_SHA256, version.salt()).extract(destination);
        let halves = [&b"client in"[..], b"server in"].map(|label| {
            let secret = expand_label::<32>(&initial, label)?;
            Half::new(version, &hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &secret))
        });
        Self { version, destination: destination.to_vec(), halves }
    }

    /// Tells whether the keys are those of a client that first wrote to `destination`.
    pub(super) fn matches(&self, version: Version, destination: &[u8]) -> bool {
        self.version == version && self.destination == destination
    }

    /// Decrypts a packet; its frames are then in `out`. `None` where it is not one of these keys', or damaged.
    pub(super) fn open(&mut self, sender: Sender, packet: &LongPacket<'_>, out: &mut Vec<u8>) -> Option<()> {
        if packet.version != self.version {
            return None;
        }
        let half = self.halves[sender as usize].as_mut()?;
        let at = packet.number_at;
        // The sample begins where the payload would after a packet number of 4 bytes (RFC 9001 §5.4.2).
        let sample = packet.bytes.get(at + 4..at + 20)?;
        let mask = half.header.new_mask(sample).ok()?;
        let first = packet.bytes[0] ^ mask[0] & 0x0f;
        let number_len = usize::from(first & 3) + 1;
        let mut header = packet.bytes.get(..at + number_len)?.to_vec();
        header[0] = first;
        let mut number = 0u64;
        for (i, byte) in header[at..].iter_mut().enumerate() {
            *byte ^= mask[1 + i];
            number = number << 8 | u64::from(*byte);
        }
        let number = full_number(half.largest, number, number_len as u32 * 8);
        let mut nonce = half.iv;
        nonce[4..].iter_mut().zip(number.to_be_bytes()).for_each(|(n, b)| *n ^= b);
        out.clear();
        out.extend_from_slice(&packet.bytes[at + number_len..]);
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let len = half.key.open_in_place(nonce, aead::Aad::from(&header), out).ok()?.len();
        out.truncate(len);
        half.largest = Some(half.largest.map_or(number, |largest| largest.max(number)));
        Some(())
    }
}

impl Half {
    fn new(version: Version, secret: &hkdf::Prk) -> Option<Self> {
        let [key, iv, header] = version.labels();
        let key = expand_label::<16>(secret, key)?;
        let header = expand_label::<16>(secret, header)?;
        Some(Self {
            key: aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_128_GCM, &key).ok()?),
            iv: expand_label::<12>(secret, iv)?,
            header: aead::quic::HeaderProtectionKey::new(&aead::quic::AES_128, &header).ok()?,
            largest: None,
        })
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 §7.1).
fn expand_label<const N: usize>(secret: &hkdf::Prk, label: &[u8]) -> Option<[u8; N]> {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut out = [0; N];
    let label_len = [b"tls13 ".len() as u8 + label.len() as u8];
    let info = [&(N as u16).to_be_bytes()[..], &label_len, b"tls13 ", label, &[0]];
    secret.expand(&info, Len(N)).and_then(|okm| okm.fill(&mut out)).ok()?;
    Some(out)
}

/// Returns the packet number whose low `bits` are `low` and that lies nearest to the next one (RFC 9000 §A.3).
fn full_number(largest: Option<u64>, low: u64, bits: u32) -> u64 {
    let expected = largest.map_or(0, |largest| largest + 1);
    let window = 1u64 << bits;
    let candidate = expected & !(window - 1) | low;
    if candidate + window / 2 <= expected && candidate < (1 << 62) - window {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_numbers_are_completed() {
        // The example of RFC 9000 §A.3, and the edges.
        for (largest, low, bits, want) in [
            (Some(0xa82f_30ea), 0x9b32, 16, 0xa82f_9b32),
            (None, 0, 8, 0),
            (None, 200, 8, 200),
            (Some(255), 0, 8, 256),
            (Some(256), 255, 8, 255),
            (Some(300), 0x2d, 8, 301),
        ] {
            assert_eq!(full_number(largest, low, bits), want, "{largest:?} {low}");
        }
    }

    #[test]
    fn type_bits_differ_by_version() {
        use Kind::{Handshake, Initial, Retry, ZeroRtt};
        assert_eq!([0, 1, 2, 3].map(|b| Version::V1.kind(b)), [Initial, ZeroRtt, Handshake, Retry]);
        assert_eq!([0, 1, 2, 3].map(|b| Version::V2.kind(b)), [Retry, Initial, ZeroRtt, Handshake]);
    }
}
