//! Buffers for bytes that must not outlive their use.

use zeroize::Zeroize;

/// A growable buffer that leaves no copy behind: not when it grows, is cleared, or is dropped.
// Invariant: bytes past `len` of the vector's allocation were never written, or were wiped.
#[derive(Default)]
pub(super) struct SecretBuf(Vec<u8>);

impl SecretBuf {
    /// Appends `more`.
    pub(super) fn extend(&mut self, more: &[u8]) {
        if self.0.capacity() - self.0.len() < more.len() {
            let room = (self.0.len() + more.len()).max(2 * self.0.capacity()).max(256);
            let mut grown = Vec::with_capacity(room);
            grown.extend_from_slice(&self.0);
            wipe(&mut self.0);
            self.0 = grown;
        }
        self.0.extend_from_slice(more);
    }

    /// Appends one byte.
    pub(super) fn push(&mut self, byte: u8) {
        self.extend(&[byte]);
    }

    /// Wipes and empties; the allocation stays.
    pub(super) fn clear(&mut self) {
        wipe(&mut self.0);
        self.0.clear();
    }

    /// Gives an emptied allocation back where it is larger than `bytes`.
    pub(super) fn shrink(&mut self, bytes: usize) {
        if self.0.is_empty() && self.0.capacity() > bytes {
            self.0 = Vec::new();
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for SecretBuf {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Nothing to wipe is the usual case, and not free: glibc's memset stores under an empty mask, which at the address of an
/// empty vector costs the processor a fault that it then suppresses, some 200 ns.
fn wipe(bytes: &mut [u8]) {
    if !bytes.is_empty() {
        bytes.zeroize();
    }
}

/// Appends the decoding of base64 `text` (either alphabet, padding optional) to `out`; false where it is none.
pub(super) fn base64(text: &[u8], out: &mut SecretBuf) -> bool {
    let (mut acc, mut bits) = (0u32, 0u32);
    for &c in text {
        let v = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => break,
            _ => return false,
        };
        acc = (acc << 6) | u32::from(v);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((acc >> bits) as u8);
        }
    }
    true
}

/// Appends the decoding of a percent-encoded form value to `out`; broken escapes stay as they are.
pub(super) fn form_decode(text: &[u8], out: &mut SecretBuf) {
    let mut at = 0;
    while let Some(&c) = text.get(at) {
        let (byte, used) = match c {
            b'+' => (b' ', 1),
            b'%' => match percent(&text[at..]) {
                Some(byte) => (byte, 3),
                None => (c, 1),
            },
            _ => (c, 1),
        };
        out.push(byte);
        at += used;
    }
}

/// Returns the byte that `text` begins with in percent-encoding.
pub(super) fn percent(text: &[u8]) -> Option<u8> {
    match text {
        [b'%', high, low, ..] => Some((hex(*high)? << 4) | hex(*low)?),
        _ => None,
    }
}

/// Returns the value of a hexadecimal digit.
pub(super) fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|v| v as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_keeps_the_bytes() {
        let mut buf = SecretBuf::default();
        let mut want = Vec::new();
        for i in 0..2000u32 {
            buf.extend(&i.to_le_bytes());
            want.extend_from_slice(&i.to_le_bytes());
        }
        assert_eq!(buf.bytes(), want);
        buf.clear();
        assert_eq!(buf.len(), 0);
        buf.shrink(16);
        assert_eq!(buf.0.capacity(), 0);
    }

    #[test]
    fn decoders() {
        for (text, want) in [
            ("YW5uOnMzY3JldA==", Some("ann:s3cret")),
            ("YW5uOnMzY3JldA", Some("ann:s3cret")),
            ("", Some("")),
            ("a*b", None),
        ] {
            let mut out = SecretBuf::default();
            let ok = base64(text.as_bytes(), &mut out);
            assert_eq!(ok.then_some(out.bytes()), want.map(str::as_bytes), "{text}");
        }
        for (text, want) in
            [("a+b%20c", "a b c"), ("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA"), ("%C3%bc", "ü")]
        {
            let mut out = SecretBuf::default();
            form_decode(text.as_bytes(), &mut out);
            assert_eq!(out.bytes(), want.as_bytes(), "{text}");
        }
    }
}
