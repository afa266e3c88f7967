//! Secrets that are told by their shape, whatever the name beside them: card numbers, JSON Web Tokens, links that
//! open a door, and URLs or JSON within a value.

use super::endpoint;
use super::names::{self, FieldNames, Reduced};
use super::secret::{SecretBuf, form_decode, percent};

/// Shortest value that is looked into: `token%3Dx`.
const VALUE_BYTES_MIN: usize = 9;
/// Shortest path segment that can be a secret, but for userinfo: a card number.
pub(super) const SEGMENT_BYTES_MIN: usize = 13;

/// Tells whether a parameter's value, still encoded, is or holds a secret. Linear; short values and those without
/// anything encoded cost one pass; the others are decoded twice at most.
#[inline]
pub(super) fn is_secret(value: &[u8], users: &FieldNames, passwords: &FieldNames) -> bool {
    value.len() >= VALUE_BYTES_MIN && long_is_secret(value, users, passwords)
}

#[inline(never)]
fn long_is_secret(value: &[u8], users: &FieldNames, passwords: &FieldNames) -> bool {
    if holds_userinfo(value) || holds_card(value) || path_is_secret(value) {
        return true;
    }
    if !holds_encoded_syntax(value) {
        return false;
    }
    let holds = |text: &[u8]| {
        holds_userinfo(text)
            || holds_card(text)
            || path_is_secret(text)
            || holds_secret_name(text, users, passwords)
    };
    let mut decoded = SecretBuf::default();
    form_decode(value, &mut decoded);
    let mut secret = holds(decoded.bytes());
    if !secret && memchr::memchr(b'%', decoded.bytes()).is_some() {
        let mut twice = SecretBuf::default();
        form_decode(decoded.bytes(), &mut twice);
        secret = holds(twice.bytes());
    }
    secret
}

/// Tells whether `=`, `@`, `/`, `"`, `:` or `%` is there in percent-encoding, or a quote without.
fn holds_encoded_syntax(value: &[u8]) -> bool {
    memchr::memchr2_iter(b'%', b'"', value).any(|at| {
        value[at] == b'"'
            || percent(&value[at..])
                .is_some_and(|byte| matches!(byte, b'=' | b'@' | b'/' | b'"' | b':' | b'%'))
    })
}

/// Tells whether an authority after `//` has userinfo.
fn holds_userinfo(text: &[u8]) -> bool {
    let Some(last_at) = memchr::memrchr(b'@', text) else { return false };
    let text = &text[..=last_at];
    let mut slashes = 0;
    let mut in_authority = false;
    for c in text {
        match c {
            b'/' | b'\\' => {
                slashes += 1;
                in_authority = slashes >= 2;
                continue;
            }
            b'@' if in_authority => return true,
            b'?' | b'#' | b'&' | b' ' | b'"' => in_authority = false,
            _ => {}
        }
        slashes = 0;
    }
    false
}

/// Tells whether one of the parameters, JSON members or GraphQL arguments in decoded `text` is a secret by its name.
fn holds_secret_name(text: &[u8], users: &FieldNames, passwords: &FieldNames) -> bool {
    let is_end =
        |c: u8| matches!(c, b'?' | b'&' | b';' | b'#' | b'{' | b'}' | b',' | b' ' | b'\n' | b'"' | b'\'');
    let is_secret = |name: &[u8], rest: &[u8]| {
        if name.is_empty() || !names::may_matter(name, users, passwords) {
            return false;
        }
        let rest = &rest[rest.iter().take_while(|c| matches!(c, b' ' | b'"' | b'\'')).count()..];
        // More than the longest that matters need not be counted.
        let len = rest.iter().take(64).take_while(|c| !is_end(**c)).count();
        let reduced = Reduced::new(name, true);
        len > 0
            && (passwords.rank(reduced.bytes()).is_some()
                || names::secrecy_like(reduced.bytes(), passwords).covers(len))
    };
    /// Longest name that is looked at.
    const NAME_BYTES_MAX: usize = 128;
    let mut start = 0;
    for (at, &c) in text.iter().enumerate() {
        let name = || &text[start.max(at.saturating_sub(NAME_BYTES_MAX))..at];
        match c {
            b'=' => {
                if is_secret(name(), &text[at + 1..]) {
                    return true;
                }
                start = at + 1;
            }
            b'"' | b'\'' => {
                let after = &text[at + 1..];
                let spaces = after.iter().take(8).take_while(|c| **c == b' ').count();
                if after.get(spaces) == Some(&b':') && is_secret(name(), &after[spaces + 1..]) {
                    return true;
                }
                start = at + 1;
            }
            // An argument of GraphQL: `login(password: "x")`.
            b':' => {
                let after = &text[at + 1..];
                let spaces = after.iter().take(8).take_while(|c| **c == b' ').count();
                if after.get(spaces) == Some(&b'"') && is_secret(name(), &after[spaces..]) {
                    return true;
                }
            }
            b'/' | b'(' => start = at + 1,
            _ if is_end(c) => start = at + 1,
            _ => {}
        }
    }
    false
}

/// Tells whether `text` has a card number: 13 to 19 digits that begin as a network's cards do and pass the Luhn check, by
/// themselves or in groups of at least 4 (but for the last) with a space or dash between.
fn holds_card(text: &[u8]) -> bool {
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|t| t.iter().position(u8::is_ascii_digit)) {
        at += found;
        let alone = at == 0
            || !text[at - 1].is_ascii_alphanumeric()
            // A letter that is the end of a percent-encoding is none.
            || (at >= 3 && percent(&text[at - 3..]).is_some());
        let (card, len) = card_at(&text[at..]);
        if card && alone {
            return true;
        }
        at += len;
    }
    false
}

/// Reads digits in groups; returns whether they are a card number, and how many bytes belong to them.
fn card_at(text: &[u8]) -> (bool, usize) {
    let (mut at, mut digits, mut group, mut grouped, mut lead) = (0, 0usize, 0usize, true, 0u32);
    // The Luhn sum with every second digit doubled, counted from the left: once for even and once for odd places.
    let mut sums = [0u32; 2];
    while let Some(&c) = text.get(at) {
        if c.is_ascii_digit() {
            let digit = u32::from(c - b'0');
            let doubled = if digit > 4 { 2 * digit - 9 } else { 2 * digit };
            sums[digits & 1] += doubled;
            sums[(digits + 1) & 1] += digit;
            if digits < 4 {
                lead = lead * 10 + digit;
            }
            digits += 1;
            group += 1;
            at += 1;
            continue;
        }
        let separator = match &text[at..] {
            [b' ' | b'-' | b'+', next, ..] if next.is_ascii_digit() => 1,
            [b'%', b'2', b'0', next, ..] if next.is_ascii_digit() => 3,
            _ => break,
        };
        grouped &= group >= 4;
        group = 0;
        at += separator;
    }
    let alone = text.get(at).is_none_or(|c| !c.is_ascii_alphanumeric());
    // The last digit is not doubled.
    let sum = sums[digits & 1];
    let card = alone && grouped && is_issued(lead, digits) && sum.is_multiple_of(10);
    (card, at)
}

/// Tells whether cards of this many digits begin with these four: the ranges that the card networks publish under
/// ISO/IEC 7812. One number in ten passes the Luhn check by chance, so ad and session numbers would otherwise go too.
const fn is_issued(lead: u32, digits: usize) -> bool {
    let visa = matches!(lead, 4000..=4999);
    let union_pay = matches!(lead, 6200..=6299);
    let maestro = matches!(lead, 5000..=5099 | 5600..=5899 | 6304 | 6759..=6763);
    match digits {
        13 => visa,
        14 => matches!(lead, 3000..=3059 | 3600..=3699 | 3800..=3999),
        15 => matches!(lead, 3400..=3499 | 3700..=3799),
        16 => {
            visa || union_pay
                || maestro
                || matches!(lead, 5100..=5599 | 2221..=2720 | 6011 | 6440..=6599 | 3528..=3589)
        }
        17 | 18 => union_pay || maestro,
        19 => visa || union_pay || maestro,
        _ => false,
    }
}

/// Tells whether the path that `text` may begin with has a secret segment.
pub(super) fn path_is_secret(text: &[u8]) -> bool {
    let end = text.iter().position(|c| matches!(c, b'?' | b'#' | b';')).unwrap_or(text.len());
    DoorWords::default().next_secret(&text[..end], 0).is_some()
}

/// Returns where the first segment of `path` is that is a secret.
#[inline(never)]
pub(super) fn first_secret_segment(path: &[u8]) -> Option<(usize, usize)> {
    DoorWords::of_path().next_secret(path, 0)
}

/// Reads a byte that may be percent-encoded, however often (`%252F`); returns it and how long it is in `text`.
/// `text` is not empty.
pub(super) fn unit(text: &[u8]) -> (u8, usize) {
    let (mut byte, mut len) = (text[0], 1);
    while byte == b'%'
        && let [high, low, ..] = text[len..]
        && let Some(decoded) = percent(&[b'%', high, low])
    {
        byte = decoded;
        len += 2;
    }
    (byte, len)
}

/// Returns where the first byte of `text` that `is` wants begins and ends, raw or percent-encoded.
pub(super) fn find_unit(text: &[u8], is: impl Fn(u8) -> bool) -> Option<(usize, usize)> {
    let mut at = 0;
    while at < text.len() {
        let (byte, len) = unit(&text[at..]);
        if is(byte) {
            return Some((at, at + len));
        }
        at += len;
    }
    None
}

/// Words before a token in a path that say that it opens a door. Parts of words: `verif` is in `verify` and
/// `email-verification`.
const DOOR_WORDS: &[&[u8]] = &[
    b"activat",
    b"confirm",
    b"invit",
    b"magic",
    b"onetime",
    b"one-time",
    b"password",
    b"recover",
    b"reset",
    b"session",
    b"token",
    b"unsubscribe",
    b"verif",
];

/// Whole segments that the capability in the address of a webhook follows, or a key.
const HOOK_WORDS: &[&[u8]] = &[b"hook", b"hooks", b"key", b"keys", b"services", b"webhook", b"webhooks"];

/// A walk over the segments of one path: how far it was searched for words, and which were there.
#[derive(Default)]
pub(super) struct DoorWords {
    searched: usize,
    /// One of [`DOOR_WORDS`] was there.
    seen: bool,
    /// One of [`HOOK_WORDS`] was.
    hook: bool,
    /// Those count.
    of_path: bool,
}

impl DoorWords {
    /// For the path of a target or reference, where long random segments behind one of [`HOOK_WORDS`] are secrets too.
    pub(super) fn of_path() -> Self {
        Self { of_path: true, ..Self::default() }
    }

    /// Returns the next secret segment from `at` on, without the parameters behind its `;`.
    pub(super) fn next_secret(&mut self, path: &[u8], at: usize) -> Option<(usize, usize)> {
        let mut start = at;
        loop {
            let (end, next) = slash(&path[start..])
                .map_or((path.len(), path.len()), |(from, to)| (start + from, start + to));
            // Short ones are looked into for userinfo only (`/fetch/http://u:p@h/`).
            if end - start >= SEGMENT_BYTES_MIN || memchr::memchr(b'@', &path[start..end]).is_some() {
                let stop = parameters(&path[start..end]).map_or(end, |e| start + e);
                if self.is_secret(path, start, stop) {
                    return Some((start, stop));
                }
            }
            if next == path.len() {
                return None;
            }
            start = next;
        }
    }

    fn is_secret(&mut self, path: &[u8], start: usize, end: usize) -> bool {
        let segment = &path[start..end];
        if let Some(at) = memchr::memrchr(b'@', segment)
            && memchr::memchr(b':', &segment[..at]).is_some()
        {
            return true;
        }
        if segment.len() < SEGMENT_BYTES_MIN {
            return false;
        }
        if is_cookieless(segment) {
            return true;
        }
        // Most long segments are words.
        if !segment.iter().fold(false, |any, c| any | c.is_ascii_digit()) && segment.len() <= 64 {
            return false;
        }
        is_jwt(segment)
            || is_bot_key(segment)
            || holds_card(segment) && card_at(segment).1 == segment.len()
            || (self.before(path, start) && endpoint::is_token(segment))
            || (self.hook && is_random(segment))
    }

    /// Tells whether one of [`DOOR_WORDS`] is before `end`, and until then notes whether one of [`HOOK_WORDS`] is. Each byte
    /// of a path is searched once.
    fn before(&mut self, path: &[u8], end: usize) -> bool {
        if !self.seen && end > self.searched {
            let new = &path[self.searched..end];
            self.searched = end;
            let is_hook = |segment: &[u8]| HOOK_WORDS.iter().any(|w| segment.eq_ignore_ascii_case(w));
            self.hook = self.hook || self.of_path && new.split(|c| *c == b'/').any(is_hook);
            self.seen = new.split(|c| *c == b'/').any(|segment| {
                (0..segment.len()).any(|at| {
                    let rest = &segment[at..];
                    DOOR_WORDS
                        .iter()
                        .any(|w| rest.get(..w.len()).is_some_and(|start| start.eq_ignore_ascii_case(w)))
                })
            });
        }
        self.seen
    }
}

/// `eyJ…`, the base64 of `{"`, and two more parts (RFC 7515 §3.1).
pub(super) fn is_jwt(text: &[u8]) -> bool {
    text.starts_with(b"eyJ")
        && text.iter().filter(|c| **c == b'.').count() >= 2
        && text.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.=".contains(c))
}

/// Returns where the next slash begins and ends, which may be percent-encoded.
fn slash(text: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    while let Some(found) = memchr::memchr2(b'/', b'%', &text[at..]) {
        at += found;
        let (byte, len) = unit(&text[at..]);
        if byte == b'/' {
            return Some((at, at + len));
        }
        at += len;
    }
    None
}

/// Returns where the parameters of a segment begin: at its `;`, which may be percent-encoded.
fn parameters(segment: &[u8]) -> Option<usize> {
    find_unit(segment, |c| c == b';').map(|(at, _)| at)
}

/// Tells whether a segment is random text long enough for a key, and no number or hash: the capability in the path of a
/// webhook. Object ids of 24 characters and more look the same, and OCSP requests (RFC 6960 Appendix A).
fn is_random(segment: &[u8]) -> bool {
    /// Base64 of 18 bytes.
    const BYTES_MIN: usize = 24;
    let count = |is: fn(&u8) -> bool| segment.iter().filter(|c| is(c)).count();
    segment.len() >= BYTES_MIN
        && segment.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'~' | b'='))
        && count(u8::is_ascii_digit) >= 2
        && count(u8::is_ascii_lowercase) >= 2
        && count(u8::is_ascii_uppercase) >= 2
        && endpoint::is_whole_token(segment)
}

/// `(S(<session>))`, also with more such: what ASP.NET puts into a path instead of a cookie.
pub(super) fn is_cookieless(segment: &[u8]) -> bool {
    matches!(segment, [b'(', letter, b'(', .., b')', b')'] if letter.is_ascii_alphabetic())
}

/// `bot123456:key`.
pub(super) fn is_bot_key(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b"bot") else { return false };
    let digits = rest.iter().take_while(|c| c.is_ascii_digit()).count();
    let after = &rest[digits..];
    let colon = if after.starts_with(b":") { 1 } else { 3 };
    digits > 0 && after.len() >= colon + 8 && matches!(after, [b':', ..] | [b'%', b'3', b'A' | b'a', ..])
}
