//! Walks JSON for its keys and scalars without building anything.
//!
//! Own work rather than a parser, for three reasons: a library unescapes strings into buffers of its own
//! that cannot be wiped, and these strings are passwords; a body that is cut off or slightly wrong must yield
//! what came before; and depth costs nothing here, because nothing recurses. A string that a colon follows
//! is a key; what comes next is its value. Linear in the bytes.

use zeroize::Zeroize;

use super::secret::SecretBuf;

/// Deepest container whose fields are reported; deeper ones are passed over.
pub(super) const DEPTH_MAX: usize = 64;

/// A value, as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Between its quotes, still escaped.
    Text(&'a [u8]),
    /// A number, or any bare word that is none of the others.
    Number(&'a [u8]),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// A container begins here.
    Container {
        /// Nothing is in it.
        empty: bool,
    },
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item<'a> {
    /// Key, still escaped; empty for array elements and the root.
    pub(super) key: &'a [u8],
    pub(super) value: Value<'a>,
    /// Containers around it.
    pub(super) depth: usize,
    /// Where the innermost container around it begins: tells containers apart.
    pub(super) container: u32,
}

/// Calls `f` for each value in order; returns whether the text was one whole JSON text.
pub(super) fn walk<'a>(text: &'a [u8], mut f: impl FnMut(Item<'a>)) -> bool {
    let mut starts = [0u32; DEPTH_MAX + 1];
    let mut depth = 0usize;
    let mut key: &[u8] = b"";
    let mut sound = true;
    let mut any = false;
    let mut at = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    while let Some(&c) = text.get(at) {
        let item = |key, value| Item { key, value, depth, container: starts[depth.min(DEPTH_MAX)] };
        match c {
            b' ' | b'\t' | b'\r' | b'\n' => at += 1,
            b'"' => {
                let Some(end) = string_end(text, at + 1) else { return false };
                let inside = &text[at + 1..end];
                at = skip_space(text, end + 1);
                if text.get(at) == Some(&b':') {
                    key = inside;
                    at += 1;
                } else {
                    if depth <= DEPTH_MAX {
                        f(item(key, Value::Text(inside)));
                    }
                    key = b"";
                }
                any = true;
            }
            b'{' | b'[' => {
                let next = skip_space(text, at + 1);
                let empty = matches!(text.get(next), Some(b'}' | b']'));
                if depth <= DEPTH_MAX {
                    f(item(key, Value::Container { empty }));
                }
                key = b"";
                depth += 1;
                if let Some(slot) = starts.get_mut(depth) {
                    *slot = u32::try_from(at).unwrap_or(u32::MAX);
                }
                at += 1;
                any = true;
            }
            b'}' | b']' => {
                sound &= depth > 0;
                depth = depth.saturating_sub(1);
                key = b"";
                at += 1;
            }
            b',' => {
                key = b"";
                at += 1;
            }
            _ if c.is_ascii_alphanumeric() || matches!(c, b'-' | b'+' | b'.') => {
                let run = text[at..].iter().position(|c| !c.is_ascii_alphanumeric() && !b"-+._".contains(c));
                let end = run.map_or(text.len(), |run| at + run);
                let word = &text[at..end];
                // A word that the text ends in may go on.
                if run.is_none() && depth > 0 {
                    return false;
                }
                let value = match word {
                    b"true" => Value::Bool(true),
                    b"false" => Value::Bool(false),
                    b"null" => Value::Null,
                    _ => {
                        sound &= word[0].is_ascii_digit() || word[0] == b'-';
                        Value::Number(word)
                    }
                };
                if depth <= DEPTH_MAX {
                    f(item(key, value));
                }
                key = b"";
                at = end;
                any = true;
            }
            _ => {
                sound = false;
                at += 1;
            }
        }
    }
    sound && any && depth == 0
}

fn skip_space(text: &[u8], from: usize) -> usize {
    text.get(from..)
        .and_then(|rest| rest.iter().position(|c| !matches!(c, b' ' | b'\t' | b'\r' | b'\n')))
        .map_or(text.len(), |skip| from + skip)
}

/// Returns where the string that begins at `from` has its closing quote.
fn string_end(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let place = at + memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[place] == b'"' {
            return Some(place);
        }
        at = place + 2;
    }
}

/// Appends the unescaped `text` to `out`, at most `bytes_max` of it; broken escapes stay as they are.
pub(super) fn unescape(text: &[u8], bytes_max: usize, out: &mut SecretBuf) {
    let limit = out.len() + bytes_max;
    let mut at = 0;
    while at < text.len() && out.len() < limit {
        if text[at] != b'\\' {
            let run = memchr::memchr(b'\\', &text[at..]).unwrap_or(text.len() - at).min(limit - out.len());
            out.extend(&text[at..at + run]);
            at += run;
            continue;
        }
        let (used, simple) = match text.get(at + 1) {
            Some(b'n') => (2, b'\n'),
            Some(b't') => (2, b'\t'),
            Some(b'r') => (2, b'\r'),
            Some(b'b') => (2, 8),
            Some(b'f') => (2, 12),
            Some(b'u') => {
                at += push_unicode(&text[at..], out);
                continue;
            }
            Some(c) => (2, *c),
            None => (1, b'\\'),
        };
        out.push(simple);
        at += used;
    }
}

/// Appends the character that the `\uXXXX` (or surrogate pair) at the start of `text` is; returns its length.
fn push_unicode(text: &[u8], out: &mut SecretBuf) -> usize {
    let unit = |from: usize| -> Option<u32> {
        let digits = text.get(from..from + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |v, d| Some(v * 16 + u32::from(super::secret::hex(*d)?)))
    };
    let Some(first) = unit(0) else {
        out.push(b'\\');
        return 1;
    };
    let (code, used) = match (first, unit(6)) {
        (0xd800..=0xdbff, Some(second @ 0xdc00..=0xdfff)) => {
            (0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00), 12)
        }
        _ => (first, 6),
    };
    let mut utf8 = [0; 4];
    out.extend(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut utf8).as_bytes());
    utf8.zeroize();
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> (String, bool) {
        let mut out = String::new();
        let whole = walk(text.as_bytes(), |i| {
            let value = match i.value {
                Value::Text(t) => format!("'{}'", String::from_utf8_lossy(t)),
                Value::Number(n) => String::from_utf8_lossy(n).into_owned(),
                Value::Bool(b) => b.to_string(),
                Value::Null => "null".to_owned(),
                Value::Container { empty } => if empty { "empty" } else { "open" }.to_owned(),
            };
            out += &format!("{}{}={value} ", i.depth, String::from_utf8_lossy(i.key));
        });
        (out, whole)
    }

    #[test]
    fn items() {
        for (text, want, whole) in [
            (r#"{"a":"x","b":1}"#, "0=open 1a='x' 1b=1 ", true),
            (
                r#" { "a" : { "b" : [ "c" , true ] , "d":null } } "#,
                "0=open 1a=open 2b=open 3='c' 3=true 2d=null ",
                true,
            ),
            (r#"[{},[]]"#, "0=open 1=empty 1=empty ", true),
            (r#"{"a":"x\"y\\"}"#, r#"0=open 1a='x\"y\\' "#, true),
            (r#""alone""#, "0='alone' ", true),
            ("12", "0=12 ", true),
            (r#"{"a":"x","b":"cut"#, "0=open 1a='x' ", false),
            (r#"{"a":"x","b":12"#, "0=open 1a='x' ", false),
            (r#"{"a":"x""#, "0=open 1a='x' ", false),
            (r#"{"a":x}"#, "0=open 1a=x ", false),
            ("]", "", false),
            ("", "", false),
            ("<html>", "0=html ", false),
        ] {
            assert_eq!(run(text), (want.to_owned(), whole), "{text}");
        }
    }

    #[test]
    fn depth_is_free() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let mut count = 0;
        assert!(walk(deep.as_bytes(), |_| count += 1));
        assert_eq!(count, DEPTH_MAX + 1);
        let text = format!("{}\"password\":\"x\"{},\"b\":1}}", "{\"a\":".repeat(100) + "{", "}".repeat(100));
        let mut keys = Vec::new();
        walk(text.as_bytes(), |i| keys.push(i.key.to_vec()));
        assert!(!keys.contains(&b"password".to_vec()));
        assert!(keys.contains(&b"b".to_vec()));
        walk("{\"a\"".repeat(50_000).as_bytes(), |_| ());
        walk(format!("\"{}", "\\\\".repeat(50_000)).as_bytes(), |_| ());
    }

    #[test]
    fn escapes() {
        for (text, want) in [
            (r"plain", "plain"),
            (r#"a\"b\\c\/d\n"#, "a\"b\\c/d\n"),
            (r"\u0041\u00fc\ud83d\ude00", "Aü😀"),
            (r"\ud83dx", "\u{fffd}x"),
            (r"\u00", r"\u00"),
            (r"\", r"\"),
        ] {
            let mut out = SecretBuf::default();
            unescape(text.as_bytes(), 100, &mut out);
            assert_eq!(out.bytes(), want.as_bytes(), "{text}");
        }
        let mut out = SecretBuf::default();
        unescape(&[b'x'; 1000], 10, &mut out);
        assert_eq!(out.len(), 10);
    }
}
