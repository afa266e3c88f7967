//! Characters: what differs only in its encoding must hash to the same identity.
//!
//! Bytes that are UTF-8 are taken for it, whatever a header, a `_charset_` field or a part says: a wrong label must not
//! make another user of somebody. What is no UTF-8 is taken for windows-1252, which holds ISO-8859-1 and
//! US-ASCII (the [Encoding Standard](https://encoding.spec.whatwg.org/#names-and-labels) does the same). JSON may
//! also come in UTF-16.

use zeroize::Zeroize;

use super::secret::SecretBuf;

/// What windows-1252 has at 0x80 to 0x9f; the five that it leaves open stand for themselves.
const HIGH: [u16; 32] = [
    0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160, 0x2039, 0x152, 0x8d,
    0x17d, 0x8f, 0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x2dc, 0x2122, 0x161, 0x203a,
    0x153, 0x9d, 0x17e, 0x178,
];

/// Tells whether `text` is UTF-8, of which a character at the end may be cut where it is `cut`.
fn is_utf8(text: &[u8], cut: bool) -> bool {
    match std::str::from_utf8(text) {
        Ok(_) => true,
        Err(e) => cut && e.error_len().is_none(),
    }
}

/// Makes UTF-8 of `text`, of which a character at the end may be cut where it is `cut`; `spare` is scratch.
pub(super) fn to_utf8<'a>(text: &'a [u8], cut: bool, spare: &'a mut SecretBuf) -> &'a [u8] {
    if text.is_ascii() || is_utf8(text, cut) {
        return text;
    }
    spare.clear();
    for &byte in text {
        let code = match byte {
            0x80..=0x9f => HIGH[usize::from(byte - 0x80)],
            _ => u16::from(byte),
        };
        push_char(u32::from(code), spare);
    }
    spare.bytes()
}

fn push_char(code: u32, out: &mut SecretBuf) {
    let mut utf8 = [0; 4];
    out.extend(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut utf8).as_bytes());
    utf8.zeroize();
}

/// Which kind of Unicode a JSON text begins in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// UTF-8, after this many bytes of a byte-order mark.
    Utf8 { mark: usize },
    /// UTF-16, after this many bytes of a byte-order mark.
    Utf16 { little: bool, mark: usize },
}

/// How many bytes [`start`] needs.
pub(super) const START_BYTES: usize = 3;

/// Tells how a text begins, from its first [`START_BYTES`] or all that there is.
///
/// Without a mark, a NUL beside the first character tells: JSON begins with ASCII (RFC 4627 §3).
pub(super) fn start(first: &[u8]) -> Start {
    match first {
        [0xef, 0xbb, 0xbf, ..] => Start::Utf8 { mark: 3 },
        [0xff, 0xfe, ..] => Start::Utf16 { little: true, mark: 2 },
        [0xfe, 0xff, ..] => Start::Utf16 { little: false, mark: 2 },
        [b'{' | b'[' | b'"' | b' ' | b'\t' | b'\r' | b'\n', 0, ..] => Start::Utf16 { little: true, mark: 0 },
        [0, b'{' | b'[' | b'"' | b' ' | b'\t' | b'\r' | b'\n', ..] => Start::Utf16 { little: false, mark: 0 },
        _ => Start::Utf8 { mark: 0 },
    }
}

/// Turns UTF-16 that passes by into UTF-8; what is broken becomes U+FFFD.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf16 {
    little: bool,
    /// The first byte of a unit whose second is still to come.
    half: Option<u8>,
    /// The first of two units that make a character.
    high: Option<u16>,
}

impl Utf16 {
    pub(super) fn new(little: bool) -> Self {
        Self { little, half: None, high: None }
    }

    /// Appends what `bytes` are to `out`: up to three bytes for each two.
    pub(super) fn decode(&mut self, bytes: &[u8], out: &mut SecretBuf) {
        for &byte in bytes {
            let Some(first) = self.half.take() else {
                self.half = Some(byte);
                continue;
            };
            let pair = [first, byte];
            let unit = if self.little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) };
            match (self.high.take(), unit) {
                (Some(high), 0xdc00..=0xdfff) => {
                    let code = 0x10000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(unit) - 0xdc00);
                    push_char(code, out);
                    continue;
                }
                (Some(_), _) => push_char(0xfffd, out),
                (None, _) => {}
            }
            match unit {
                0xd800..=0xdbff => self.high = Some(unit),
                _ => push_char(u32::from(unit), out),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_wins_over_windows_1252() {
        for (text, cut, want) in [
            (&b"ann"[..], false, "ann"),
            ("Jürgen €".as_bytes(), false, "Jürgen €"),
            (b"J\xfcrgen \x80", false, "Jürgen €"),
            (b"J\xfcrgen\x81", true, "Jürgen\u{81}"),
            (b"\xc3", false, "Ã"),
        ] {
            assert_eq!(to_utf8(text, cut, &mut SecretBuf::default()), want.as_bytes(), "{text:?}");
        }
        assert_eq!(to_utf8(b"ab\xc3", true, &mut SecretBuf::default()), b"ab\xc3");
    }

    #[test]
    fn utf16() {
        for (text, want) in [("{\"ü\":\"€😀\"}", "{\"ü\":\"€😀\"}"), ("", "")] {
            for little in [true, false] {
                let bytes: Vec<u8> = text
                    .encode_utf16()
                    .flat_map(|u| if little { u.to_le_bytes() } else { u.to_be_bytes() })
                    .collect();
                for piece in [1, 3, 100] {
                    let (mut utf16, mut out) = (Utf16::new(little), SecretBuf::default());
                    bytes.chunks(piece).for_each(|p| utf16.decode(p, &mut out));
                    assert_eq!(out.bytes(), want.as_bytes());
                }
            }
        }
        let mut out = SecretBuf::default();
        Utf16::new(false).decode(&[0xd8, 0, 0, b'x', 0xdc, 0, 0], &mut out);
        assert_eq!(out.bytes(), "\u{fffd}x\u{fffd}".as_bytes());
    }

    #[test]
    fn starts() {
        for (first, want) in [
            (&b"\xef\xbb\xbf{"[..], Start::Utf8 { mark: 3 }),
            (b"{\"a", Start::Utf8 { mark: 0 }),
            (b"\xff\xfe{", Start::Utf16 { little: true, mark: 2 }),
            (b"\xfe\xff\0", Start::Utf16 { little: false, mark: 2 }),
            (b"{\0\"", Start::Utf16 { little: true, mark: 0 }),
            (b"\0{\0", Start::Utf16 { little: false, mark: 0 }),
            (b"", Start::Utf8 { mark: 0 }),
        ] {
            assert_eq!(start(first), want, "{first:?}");
        }
    }
}
