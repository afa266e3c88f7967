//! Records: their header, and what opens the protected ones.
//!
//! ```text
//! | type | version | length |  fragment                                                          |
//! |  1   |   2     |   2    |  TLS 1.3, ChaCha20:  ciphertext, tag                               |
//! |                         |  TLS 1.2 GCM, CCM:   explicit nonce (8), ciphertext, tag           |
//! |                         |  TLS 1.2 CBC:        IV (16), { content, MAC, padding } encrypted  |
//! |                         |  … encrypt_then_mac: IV (16), { content, padding } encrypted, MAC  |
//! ```
//! Read RFC 5246 §6.2.3, RFC 7366 and RFC 8446 §5.2 before changing this file.

use std::ops::Range;

use aes::cipher::{BlockModeDecrypt, KeyIvInit};
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U8, U12, U16};
use ring::aead::{self, LessSafeKey, UnboundKey};
use ring::hmac;
use zeroize::Zeroizing;

use super::keys::Secret;
use super::schedule::{Cipher, SideKeys, Suite, expand_label};

/// Bytes of a record's header.
pub(super) const HEADER: usize = 5;
/// Most bytes of a fragment: 2^14 and what protection may add (RFC 5246 §6.2.3; TLS 1.3 allows less).
pub(super) const FRAGMENT_BYTES_MAX: usize = (1 << 14) + 2048;

pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;
/// Of RFC 6520; nobody should send it any more.
pub(super) const HEARTBEAT: u8 = 24;

/// The header of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) kind: u8,
    /// Bytes of the fragment.
    pub(super) len: usize,
}

impl Header {
    /// Reads a header at the start of `bytes`, which has at least [`HEADER`] of them; `None` where that is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [kind, 3, 0..=4, high, low, ..] = *bytes else { return None };
        let len = usize::from(u16::from_be_bytes([high, low]));
        let known = matches!(kind, CHANGE_CIPHER_SPEC..=HEARTBEAT);
        (known && len <= FRAGMENT_BYTES_MAX).then_some(Self { kind, len })
    }
}

/// What a record held, once open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// The content type; TLS 1.3 hides it in the ciphertext.
    pub(super) kind: u8,
    /// Where the content lies in the fragment.
    pub(super) content: Range<usize>,
}

/// Opens the records of one side under one key.
pub(super) struct Opener {
    kind: Kind,
    tls13: bool,
}

enum Kind {
    /// `iv` is 12 bytes, or 4 where 8 bytes of nonce stand in the record.
    Aead {
        key: LessSafeKey,
        iv: Iv,
    },
    Ccm {
        key: CcmKey,
        iv: Iv,
    },
    Cbc {
        key: Zeroizing<Vec<u8>>,
        mac: hmac::Key,
        mac_len: usize,
        encrypt_then_mac: bool,
    },
}

/// AES-CCM by length of key and tag.
enum CcmKey {
    Aes128(ccm::Ccm<aes::Aes128, U16, U12>),
    Aes256(ccm::Ccm<aes::Aes256, U16, U12>),
    Aes128Short(ccm::Ccm<aes::Aes128, U8, U12>),
    Aes256Short(ccm::Ccm<aes::Aes256, U8, U12>),
}

impl CcmKey {
    /// Makes the key; `None` where its length is wrong, or `cipher` is no CCM.
    fn new(cipher: Cipher, key: &[u8]) -> Option<Self> {
        Some(match cipher {
            Cipher::Aes128Ccm { short: false } => Self::Aes128(KeyInit::new_from_slice(key).ok()?),
            Cipher::Aes256Ccm { short: false } => Self::Aes256(KeyInit::new_from_slice(key).ok()?),
            Cipher::Aes128Ccm { short: true } => Self::Aes128Short(KeyInit::new_from_slice(key).ok()?),
            Cipher::Aes256Ccm { short: true } => Self::Aes256Short(KeyInit::new_from_slice(key).ok()?),
            _ => return None,
        })
    }

    /// Bytes of the tag.
    fn tag_len(&self) -> usize {
        match self {
            Self::Aes128(_) | Self::Aes256(_) => 16,
            Self::Aes128Short(_) | Self::Aes256Short(_) => 8,
        }
    }

    /// Opens `text` in place.
    fn open(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], tag: &[u8]) -> Option<()> {
        match self {
            Self::Aes128(key) => open_ccm(key, nonce, aad, text, tag),
            Self::Aes256(key) => open_ccm(key, nonce, aad, text, tag),
            Self::Aes128Short(key) => open_ccm(key, nonce, aad, text, tag),
            Self::Aes256Short(key) => open_ccm(key, nonce, aad, text, tag),
        }
    }
}

fn open_ccm<C: AeadInOut<NonceSize = U12>>(
    key: &C,
    nonce: [u8; 12],
    aad: &[u8],
    text: &mut [u8],
    tag: &[u8],
) -> Option<()> {
    key.decrypt_inout_detached(&nonce.into(), aad, text.into(), &tag.try_into().ok()?).ok()
}

/// How nonces are made.
enum Iv {
    /// Salt, then what the record says.
    Explicit([u8; 4]),
    /// XOR with the sequence number.
    Counter([u8; 12]),
}

impl Iv {
    fn new(iv: &[u8]) -> Option<Self> {
        match iv.len() {
            4 => Some(Self::Explicit(iv.try_into().ok()?)),
            12 => Some(Self::Counter(iv.try_into().ok()?)),
            _ => None,
        }
    }

    /// Returns the nonce and how many bytes of the fragment it took.
    fn nonce(&self, seq: u64, fragment: &[u8]) -> Option<([u8; 12], usize)> {
        let mut nonce = [0; 12];
        match self {
            Self::Explicit(salt) => {
                nonce[..4].copy_from_slice(salt);
                nonce[4..].copy_from_slice(fragment.get(..8)?);
                Some((nonce, 8))
            }
            Self::Counter(iv) => {
                nonce[4..].copy_from_slice(&seq.to_be_bytes());
                nonce.iter_mut().zip(iv).for_each(|(n, i)| *n ^= i);
                Some((nonce, 0))
            }
        }
    }
}

impl Opener {
    /// Makes the opener of a TLS 1.3 traffic secret.
    pub(super) fn tls13(suite: Suite, secret: &Secret) -> Option<Self> {
        let mut key = Zeroizing::new(vec![0; suite.cipher.key_len()]);
        let mut iv = Zeroizing::new([0; 12]);
        if secret.bytes().len() != suite.hash.len() {
            return None;
        }
        expand_label(suite.hash, secret.bytes(), b"key", &mut key);
        expand_label(suite.hash, secret.bytes(), b"iv", &mut iv[..]);
        Some(Self { kind: Kind::aead(suite.cipher, &key, &iv[..])?, tls13: true })
    }

    /// Makes the opener of one side of a TLS 1.2 connection.
    pub(super) fn tls12(suite: Suite, keys: &SideKeys, encrypt_then_mac: bool) -> Option<Self> {
        let kind = match suite.cipher.mac() {
            Some(mac) => Kind::Cbc {
                key: keys.key.clone(),
                mac: hmac::Key::new(mac.hmac(), &keys.mac),
                mac_len: mac.len(),
                encrypt_then_mac,
            },
            None => Kind::aead(suite.cipher, &keys.key, &keys.iv)?,
        };
        Some(Self { kind, tls13: false })
    }

    /// Returns how many bytes a record has beside its content, header included, if it is not padded; half a block of
    /// padding is reckoned in for CBC.
    pub(super) fn overhead(&self) -> u64 {
        let (iv, tag) = match &self.kind {
            Kind::Aead { iv, .. } => (iv, 16),
            Kind::Ccm { key, iv } => (iv, key.tag_len() as u64),
            Kind::Cbc { mac_len, .. } => return (HEADER + 16 + mac_len + 8) as u64,
        };
        let explicit = if matches!(iv, Iv::Explicit(_)) { 8 } else { 0 };
        HEADER as u64 + explicit + tag + u64::from(self.tls13)
    }

    /// Opens the fragment of record number `seq` in place; `None` where it is not genuine, and then `fragment` may be
    /// overwritten with anything.
    ///
    /// `header` is the record's, as it was sent. One pass over the fragment.
    pub(super) fn open(&self, seq: u64, header: &[u8; HEADER], fragment: &mut [u8]) -> Option<Opened> {
        let (kind, content) = match &self.kind {
            Kind::Cbc { key, mac, mac_len, encrypt_then_mac } => {
                return open_cbc(key, mac, *mac_len, *encrypt_then_mac, seq, header, fragment)
                    .map(|content| Opened { kind: header[0], content });
            }
            Kind::Aead { key, iv } => {
                let (nonce, at) = iv.nonce(seq, fragment)?;
                let (aad, aad_len) = self.aad(seq, header, fragment.len().checked_sub(at + 16)?);
                let nonce = aead::Nonce::assume_unique_for_key(nonce);
                let opened =
                    key.open_in_place(nonce, aead::Aad::from(&aad[..aad_len]), fragment.get_mut(at..)?);
                (header[0], at..at + opened.ok()?.len())
            }
            Kind::Ccm { key, iv } => {
                let (nonce, at) = iv.nonce(seq, fragment)?;
                let end = fragment.len().checked_sub(key.tag_len()).filter(|end| *end >= at)?;
                let (aad, aad_len) = self.aad(seq, header, end - at);
                let (text, tag) = fragment.split_at_mut(end);
                key.open(nonce, &aad[..aad_len], text.get_mut(at..)?, tag)?;
                (header[0], at..end)
            }
        };
        if !self.tls13 {
            return Some(Opened { kind, content });
        }
        // TLSInnerPlaintext: content, type, zeros.
        let end = fragment.get(content.clone())?.iter().rposition(|b| *b != 0)?;
        Some(Opened { kind: fragment[content.start + end], content: content.start..content.start + end })
    }

    /// Returns the additional data that a record is authenticated with, in the first bytes of an array.
    fn aad(&self, seq: u64, header: &[u8; HEADER], content_len: usize) -> ([u8; 13], usize) {
        let mut aad = [0; 13];
        if self.tls13 {
            aad[..HEADER].copy_from_slice(header);
            return (aad, HEADER);
        }
        (aad12(seq, header, content_len), 13)
    }
}

/// Sequence number, type, version, length: what TLS 1.2 authenticates beside the content.
fn aad12(seq: u64, header: &[u8; HEADER], len: usize) -> [u8; 13] {
    let mut aad = [0; 13];
    aad[..8].copy_from_slice(&seq.to_be_bytes());
    aad[8..11].copy_from_slice(&header[..3]);
    aad[11..].copy_from_slice(&(len as u16).to_be_bytes());
    aad
}

impl Kind {
    fn aead(cipher: Cipher, key: &[u8], iv: &[u8]) -> Option<Self> {
        let iv = Iv::new(iv)?;
        let algorithm = match cipher {
            Cipher::Aes128Gcm => &aead::AES_128_GCM,
            Cipher::Aes256Gcm => &aead::AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
            _ => return Some(Self::Ccm { key: CcmKey::new(cipher, key)?, iv }),
        };
        Some(Self::Aead { key: LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?), iv })
    }
}

/// Opens a CBC record: nobody waits for our answer, so there is no timing to hide.
fn open_cbc(
    key: &[u8],
    mac: &hmac::Key,
    mac_len: usize,
    encrypt_then_mac: bool,
    seq: u64,
    header: &[u8; HEADER],
    fragment: &mut [u8],
) -> Option<Range<usize>> {
    const BLOCK: usize = 16;
    let genuine = |text: &[u8], signed: &[u8]| {
        let mut context = hmac::Context::with_key(mac);
        context.update(&aad12(seq, header, text.len()));
        context.update(text);
        context.sign().as_ref() == signed
    };
    let mut text_end = fragment.len();
    if encrypt_then_mac {
        text_end = text_end.checked_sub(mac_len)?;
        if !genuine(&fragment[..text_end], &fragment[text_end..]) {
            return None;
        }
    }
    let (iv, text) = fragment.get_mut(..text_end)?.split_at_mut_checked(BLOCK)?;
    if !text.len().is_multiple_of(BLOCK) {
        return None;
    }
    decrypt_cbc(key, iv, text)?;
    // Padding: its length, repeated once more often than it says.
    let padding = *text.last()?;
    let mut end = text_end.checked_sub(usize::from(padding) + 1).filter(|end| *end >= BLOCK)?;
    if fragment[end..text_end].iter().any(|b| *b != padding) {
        return None;
    }
    if !encrypt_then_mac {
        let signed = end;
        end = end.checked_sub(mac_len).filter(|end| *end >= BLOCK)?;
        if !genuine(&fragment[BLOCK..end], &fragment[end..signed]) {
            return None;
        }
    }
    Some(BLOCK..end)
}

fn decrypt_cbc(key: &[u8], iv: &[u8], text: &mut [u8]) -> Option<()> {
    let (blocks, _) = aes::Block::slice_as_chunks_mut(text);
    if key.len() == 16 {
        cbc::Decryptor::<aes::Aes128>::new_from_slices(key, iv).ok()?.decrypt_blocks(blocks);
    } else {
        cbc::Decryptor::<aes::Aes256>::new_from_slices(key, iv).ok()?.decrypt_blocks(blocks);
    }
    Some(())
}
