//! Who is judged.

use std::fmt;

use zeroize::Zeroize;

use crate::Host;

/// The secret that turns identities (users, sessions, passwords) into hashes.
///
/// 32 bytes from the operator's key file. Not `Debug`-printable and not `Copy`.
#[derive(Clone)]
pub struct IdentityKey([u8; 32]);

impl IdentityKey {
    /// Wraps 32 secret bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the keyed BLAKE3 hash of `text` within `domain` (so that a user and a session with the
    /// same text differ), cut to 128 bits.
    pub fn hash(&self, domain: &'static [u8], text: &[u8]) -> IdentityHash {
        let mut h = blake3::Hasher::new_keyed(&self.0);
        h.update(domain);
        h.update(&[0]);
        h.update(text);
        let mut out = [0u8; 16];
        out.copy_from_slice(&h.finalize().as_bytes()[..16]);
        IdentityHash(out)
    }

    /// Returns a 64-bit seed for tables and shards within `domain`; repeats for the same key.
    pub fn seed(&self, domain: &'static [u8]) -> u64 {
        let mut w = [0u8; 8];
        w.copy_from_slice(&self.hash(b"seed", domain).0[..8]);
        u64::from_le_bytes(w)
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey(..)")
    }
}

impl Drop for IdentityKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A keyed 128-bit hash of an identity; means nothing without the key. Displays as 32 hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityHash(pub [u8; 16]);

impl fmt::Display for IdentityHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in self.0 {
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for IdentityHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The kinds of entities, with the names that records and policies use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntityKind {
    /// Client address, after trusted proxies.
    Ip,
    /// Its /24 or /48.
    Prefix,
    /// Session cookie or token, hashed.
    Session,
    /// User name, hashed.
    User,
    /// The client's stack.
    Fingerprint,
    /// Method and path template.
    Endpoint,
}

impl EntityKind {
    /// Every kind, in record order.
    pub const ALL: [Self; 6] =
        [Self::Ip, Self::Prefix, Self::Session, Self::User, Self::Fingerprint, Self::Endpoint];

    /// Returns the name used in records, configuration and policies.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Prefix => "prefix",
            Self::Session => "session",
            Self::User => "user",
            Self::Fingerprint => "fingerprint",
            Self::Endpoint => "endpoint",
        }
    }
}

/// One judged entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntityKey {
    /// Client address.
    Ip(Host),
    /// Network address of the client's /24 or /48.
    Prefix(Host),
    /// Hashed session.
    Session(IdentityHash),
    /// Hashed user.
    User(IdentityHash),
    /// Stack fingerprint (64 bits, displayed as 16 hex digits).
    Fingerprint(u64),
    /// Hash of method and path template (the text is in the transaction).
    Endpoint(u64),
}

impl EntityKey {
    /// Returns the kind.
    pub const fn kind(&self) -> EntityKind {
        match self {
            Self::Ip(_) => EntityKind::Ip,
            Self::Prefix(_) => EntityKind::Prefix,
            Self::Session(_) => EntityKind::Session,
            Self::User(_) => EntityKind::User,
            Self::Fingerprint(_) => EntityKind::Fingerprint,
            Self::Endpoint(_) => EntityKind::Endpoint,
        }
    }
}

/// As records write it and decisions match it: `192.0.2.7`, `192.0.2.0/24`, 32 or 16 hex digits. An endpoint is a
/// hash here; its text is in the transaction.
impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(host) => host.fmt(f),
            Self::Prefix(host) => write!(f, "{host}/{}", host.prefix_len()),
            Self::Session(hash) | Self::User(hash) => fmt::Display::fmt(hash, f),
            Self::Fingerprint(hash) | Self::Endpoint(hash) => write!(f, "{hash:016x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_hashes_depend_on_key_domain_and_text() {
        let (k1, k2) = (IdentityKey::new([1; 32]), IdentityKey::new([2; 32]));
        let base = k1.hash(b"user", b"ann");
        assert_eq!(base, k1.hash(b"user", b"ann"));
        assert_ne!(base, k2.hash(b"user", b"ann"));
        assert_ne!(base, k1.hash(b"session", b"ann"));
        assert_ne!(base, k1.hash(b"user", b"bob"));
        assert_eq!(base.to_string().len(), 32);
        assert_eq!(format!("{k1:?}"), "IdentityKey(..)");
    }
}
