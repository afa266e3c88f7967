//! Key schedules: from secrets to record keys (RFC 5246 §5 and §6.3, RFC 8446 §7).

use ring::{digest, hmac};
use zeroize::Zeroizing;

use super::keys::Secret;

/// The hash of a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
        }
    }

    /// Bytes of a digest, and of a TLS 1.3 secret.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }
}

/// How records are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
    /// With a tag of 16 bytes, or of 8.
    Aes128Ccm {
        short: bool,
    },
    Aes256Ccm {
        short: bool,
    },
    Aes128Cbc(Mac),
    Aes256Cbc(Mac),
}

impl Cipher {
    /// Bytes of the key.
    pub(crate) fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes128Ccm { .. } | Self::Aes128Cbc(_) => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 | Self::Aes256Ccm { .. } | Self::Aes256Cbc(_) => 32,
        }
    }

    /// The MAC of a CBC suite.
    pub(crate) fn mac(self) -> Option<Mac> {
        match self {
            Self::Aes128Cbc(mac) | Self::Aes256Cbc(mac) => Some(mac),
            _ => None,
        }
    }
}

/// The MAC of a CBC suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mac {
    Sha1,
    Sha256,
    Sha384,
}

impl Mac {
    pub(crate) fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
        }
    }

    /// Bytes of a MAC, and of its key.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }
}

/// What a cipher suite says of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    pub(crate) cipher: Cipher,
    pub(crate) hash: Hash,
    /// The client sends a premaster secret that is encrypted with the server's RSA key.
    pub(crate) rsa: bool,
}

impl Suite {
    /// Looks a suite up in IANA's registry, as far as it is supported: AES and ChaCha20, TLS 1.2 or 1.3.
    pub(crate) fn of(id: u16, tls13: bool) -> Option<Self> {
        use Cipher::*;
        use Hash::*;
        let (cipher, hash) = match (tls13, id) {
            (true, 0x1301) => (Aes128Gcm, Sha256),
            (true, 0x1302) => (Aes256Gcm, Sha384),
            (true, 0x1303) => (ChaCha20Poly1305, Sha256),
            (true, 0x1304) => (Aes128Ccm { short: false }, Sha256),
            (true, 0x1305) => (Aes128Ccm { short: true }, Sha256),
            (true, _) => return None,
            (false, 0x009c | 0x009e | 0x00a0 | 0x00a2 | 0x00a4 | 0x00a6 | 0x00a8 | 0x00aa | 0x00ac)
            | (false, 0xc02b | 0xc02d | 0xc02f | 0xc031 | 0xd001) => (Aes128Gcm, Sha256),
            (false, 0x009d | 0x009f | 0x00a1 | 0x00a3 | 0x00a5 | 0x00a7 | 0x00a9 | 0x00ab | 0x00ad)
            | (false, 0xc02c | 0xc02e | 0xc030 | 0xc032 | 0xd002) => (Aes256Gcm, Sha384),
            (false, 0xcca8..=0xccae) => (ChaCha20Poly1305, Sha256),
            (false, 0xc09c | 0xc09e | 0xc0a4 | 0xc0a6 | 0xc0ac | 0xd005) => {
                (Aes128Ccm { short: false }, Sha256)
            }
            (false, 0xc09d | 0xc09f | 0xc0a5 | 0xc0a7 | 0xc0ad) => (Aes256Ccm { short: false }, Sha256),
            (false, 0xc0a0 | 0xc0a2 | 0xc0a8 | 0xc0aa | 0xc0ae | 0xd003) => {
                (Aes128Ccm { short: true }, Sha256)
            }
            (false, 0xc0a1 | 0xc0a3 | 0xc0a9 | 0xc0ab | 0xc0af) => (Aes256Ccm { short: true }, Sha256),
            (false, 0x002f..=0x0034 | 0x008c | 0x0090 | 0x0094)
            | (false, 0xc004 | 0xc009 | 0xc00e | 0xc013 | 0xc018 | 0xc035) => (Aes128Cbc(Mac::Sha1), Sha256),
            (false, 0x0035..=0x003a | 0x008d | 0x0091 | 0x0095)
            | (false, 0xc005 | 0xc00a | 0xc00f | 0xc014 | 0xc019 | 0xc036) => (Aes256Cbc(Mac::Sha1), Sha256),
            (false, 0x003c | 0x003e..=0x0040 | 0x0067 | 0x006c | 0x00ae | 0x00b2 | 0x00b6)
            | (false, 0xc023 | 0xc025 | 0xc027 | 0xc029 | 0xc037) => (Aes128Cbc(Mac::Sha256), Sha256),
            (false, 0x003d | 0x0068..=0x006b | 0x006d) => (Aes256Cbc(Mac::Sha256), Sha256),
            (false, 0x00af | 0x00b3 | 0x00b7) | (false, 0xc024 | 0xc026 | 0xc028 | 0xc02a | 0xc038) => {
                (Aes256Cbc(Mac::Sha384), Sha384)
            }
            (false, _) => return None,
        };
        let rsa = matches!(id, 0x002f | 0x0035 | 0x003c | 0x003d | 0x009c | 0x009d)
            || matches!(id, 0xc09c | 0xc09d | 0xc0a0 | 0xc0a1);
        Some(Self { cipher, hash, rsa })
    }
}

/// Fills `out` with `P_hash(secret, seed)`, the pseudorandom function of TLS 1.2; `seed` comes in parts.
fn prf(hash: Hash, secret: &[u8], seed: &[&[u8]], out: &mut [u8]) {
    let key = hmac::Key::new(hash.hmac(), secret);
    let sign = |first: &[u8]| {
        let mut context = hmac::Context::with_key(&key);
        context.update(first);
        seed.iter().for_each(|part| context.update(part));
        context.sign()
    };
    let mut a = sign(&[]);
    for piece in out.chunks_mut(hash.len()) {
        piece.copy_from_slice(&sign(a.as_ref()).as_ref()[..piece.len()]);
        a = hmac::sign(&key, a.as_ref());
    }
}

/// What a master secret is made of beside the premaster secret.
pub(crate) enum Seed<'a> {
    /// The randoms of client and server (RFC 5246 §8.1).
    Randoms(&'a [u8; 32], &'a [u8; 32]),
    /// The handshake messages up to the client's key exchange, in parts (RFC 7627 §4).
    Messages([&'a [u8]; 3]),
}

/// Derives the master secret of TLS 1.2.
pub(crate) fn master_secret(hash: Hash, premaster: &Secret, seed: Seed<'_>) -> Secret {
    let mut master = Zeroizing::new([0; 48]);
    match seed {
        Seed::Randoms(client, server) => {
            prf(hash, premaster.bytes(), &[b"master secret", client, server], &mut master[..]);
        }
        Seed::Messages(parts) => {
            let mut messages = digest::Context::new(hash.digest());
            parts.iter().for_each(|part| messages.update(part));
            let messages = messages.finish();
            prf(hash, premaster.bytes(), &[b"extended master secret", messages.as_ref()], &mut master[..]);
        }
    }
    Secret::new(&master[..])
}

/// The write keys of one side of a TLS 1.2 connection.
pub(crate) struct SideKeys {
    pub(crate) mac: Zeroizing<Vec<u8>>,
    pub(crate) key: Zeroizing<Vec<u8>>,
    pub(crate) iv: Zeroizing<Vec<u8>>,
}

/// Derives the keys of one side from the master secret (RFC 5246 §6.3).
pub(crate) fn side_keys(
    suite: Suite,
    master: &Secret,
    client_random: &[u8; 32],
    server_random: &[u8; 32],
    client: bool,
) -> SideKeys {
    let mac_len = suite.cipher.mac().map_or(0, Mac::len);
    let key_len = suite.cipher.key_len();
    // CBC sends its IVs; GCM and CCM have 4 bytes implicit, ChaCha20 12 (RFC 5288 §3, RFC 6655 §3, RFC 7905 §2).
    let iv_len = match suite.cipher {
        Cipher::Aes128Cbc(_) | Cipher::Aes256Cbc(_) => 0,
        Cipher::ChaCha20Poly1305 => 12,
        _ => 4,
    };
    let mut block = Zeroizing::new(vec![0; 2 * (mac_len + key_len + iv_len)]);
    prf(suite.hash, master.bytes(), &[b"key expansion", server_random, client_random], &mut block);
    let mut at = 0;
    let mut take = |len: usize| {
        let from = at + if client { 0 } else { len };
        at += 2 * len;
        Zeroizing::new(block[from..from + len].to_vec())
    };
    SideKeys { mac: take(mac_len), key: take(key_len), iv: take(iv_len) }
}

/// Fills `out` with `HKDF-Expand-Label(secret, label, "", out.len())` (RFC 8446 §7.1).
pub(crate) fn expand_label(hash: Hash, secret: &[u8], label: &[u8], out: &mut [u8]) {
    let key = hmac::Key::new(hash.hmac(), secret);
    let len = out.len() as u16;
    let mut before: Option<hmac::Tag> = None;
    for (n, piece) in out.chunks_mut(hash.len()).enumerate() {
        let mut context = hmac::Context::with_key(&key);
        if let Some(before) = &before {
            context.update(before.as_ref());
        }
        context.update(&len.to_be_bytes());
        context.update(&[6 + label.len() as u8]);
        context.update(b"tls13 ");
        context.update(label);
        context.update(&[0, n as u8 + 1]);
        let tag = context.sign();
        piece.copy_from_slice(&tag.as_ref()[..piece.len()]);
        before = Some(tag);
    }
}

/// Returns the secret after a key update (RFC 8446 §7.2).
pub(crate) fn next_secret(hash: Hash, secret: &Secret) -> Secret {
    let mut next = Zeroizing::new([0; 48]);
    expand_label(hash, secret.bytes(), b"traffic upd", &mut next[..hash.len()]);
    Secret::new(&next[..hash.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn expansion_equals_the_published_trace() {
        // RFC 8448 §3: {server} derive write traffic keys for handshake data.
        let secret = hex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38");
        let (mut key, mut iv) = ([0; 16], [0; 12]);
        expand_label(Hash::Sha256, &secret, b"key", &mut key);
        expand_label(Hash::Sha256, &secret, b"iv", &mut iv);
        assert_eq!(key[..], hex("3fce516009c21727d0f2e4e86ee403bc"));
        assert_eq!(iv[..], hex("5d313eb2671276ee13000b30"));
    }

    #[test]
    fn the_prf_equals_the_published_vector() {
        // "Test vectors for TLS PRF with SHA-256" of the IETF TLS list, 2008.
        let secret = hex("9bbe436ba940f017b17652849a71db35");
        let seed = hex("a0ba9f936cda311827a6f796ffd5198c");
        let mut out = [0; 100];
        prf(Hash::Sha256, &secret, &[b"test label", &seed], &mut out);
        assert_eq!(out[..16], hex("e3f229ba727be17b8d122620557cd453"));
        assert_eq!(out[84..], hex("22ee42c5a72e5a5110fff70187347b66"));
    }

    #[test]
    fn suites_are_those_of_the_registry() {
        use Cipher::*;
        let cases = [
            (0x1301, true, Some((Aes128Gcm, Hash::Sha256))),
            (0x1301, false, None),
            (0xc02f, true, None),
            (0xc02f, false, Some((Aes128Gcm, Hash::Sha256))),
            (0xc030, false, Some((Aes256Gcm, Hash::Sha384))),
            (0xcca8, false, Some((ChaCha20Poly1305, Hash::Sha256))),
            (0xc013, false, Some((Aes128Cbc(Mac::Sha1), Hash::Sha256))),
            (0xc028, false, Some((Aes256Cbc(Mac::Sha384), Hash::Sha384))),
            (0x003d, false, Some((Aes256Cbc(Mac::Sha256), Hash::Sha256))),
            (0xc0a3, false, Some((Aes256Ccm { short: true }, Hash::Sha256))),
            (0x000a, false, None),
            (0x0005, false, None),
        ];
        for (id, tls13, want) in cases {
            assert_eq!(Suite::of(id, tls13).map(|s| (s.cipher, s.hash)), want, "{id:#06x}");
        }
    }
}
