//! `METHOD /path/template`: what a request asks for, without whom or what it asks about.
//!
//! Each path segment becomes a placeholder where its shape says that it varies. Percent-encoded unreserved
//! characters are decoded first, empty and dot segments are resolved and matrix parameters dropped, so that
//! spelling a path differently does not make another endpoint of it.
//!
//! | placeholder | for |
//! |---|---|
//! | `{id}` | digits, and digits with `.`, `,` or `-` between (versions, coordinates) |
//! | `{uuid}` | 8-4-4-4-12 hexadecimal digits |
//! | `{date}` | `2024-05-31`, also with a time |
//! | `{hex}` | 8 or more hexadecimal digits with a digit among them (6 in file names and after `-`) |
//! | `{email}` | an `@` and a later dot, or a colon before it (`user:password@host`) |
//! | `{token}` | 16 or more characters of base64url with a mix of digits and letters |
//! | `{slug}` | the words before or after an `{id}` that `-` joins |
//! | `{…}` | a segment too long to be a name, the segments over the limit, or the value in `name=value` |

use zeroize::Zeroize;

use super::secret::percent;
use super::shape;

/// Most segments that are written out.
const SEGMENTS_MAX: usize = 12;
/// Longest segment that is kept as it is.
const SEGMENT_BYTES_MAX: usize = 64;
/// Longest segment whose shape is looked at; a longer one is `{…}`.
const SHAPE_BYTES_MAX: usize = 512;
/// Longest path template.
const TEMPLATE_BYTES_MAX: usize = 256;

pub(super) const REST: &[u8] = "{…}".as_bytes();

/// Appends the endpoint of `method` and `path` to `out`.
///
/// Methods beyond RFC 9110 and PATCH are `OTHER`. Cost: one pass over the path. Returns whether a placeholder is in it,
/// or was for a segment that `..` took back.
pub(super) fn write(method: &[u8], path: &[u8], out: &mut Vec<u8>) -> bool {
    let known = matches!(
        method,
        b"GET" | b"POST" | b"PUT" | b"HEAD" | b"PATCH" | b"DELETE" | b"OPTIONS" | b"CONNECT" | b"TRACE"
    );
    out.extend_from_slice(if known { method } else { b"OTHER" });
    out.push(b' ');
    let begin = out.len();
    if path.is_empty() || path == b"*" {
        out.extend_from_slice(if path.is_empty() { b"{authority}" } else { b"*" });
        return false;
    }
    let mut starts = [0usize; SEGMENTS_MAX];
    let mut count = 0;
    let mut taken_back = false;
    let has_placeholder = |text: &[u8]| memchr::memchr(b'{', text).is_some();
    let mut buf = [0; SHAPE_BYTES_MAX];
    for raw in path.split(|c| *c == b'/') {
        let raw = raw.split(|c| *c == b';').next().unwrap_or_default();
        let Some(segment) = decode(raw, &mut buf) else {
            if push_start(&mut starts, &mut count, out) {
                out.extend_from_slice(REST);
                continue;
            }
            break;
        };
        match segment {
            b"" | b"." => continue,
            b".." => {
                if count > 0 {
                    count -= 1;
                    taken_back |= has_placeholder(&out[starts[count]..]);
                    out.truncate(starts[count]);
                }
                continue;
            }
            _ => {}
        }
        if !push_start(&mut starts, &mut count, out) {
            break;
        }
        if memchr::memchr2(b'%', b'=', segment).is_some() {
            shape_parts(segment, out);
        } else {
            shape_segment(segment, out);
        }
        if out.len() - begin > TEMPLATE_BYTES_MAX {
            out.truncate(starts[count - 1]);
            out.push(b'/');
            out.extend_from_slice(REST);
            return true;
        }
    }
    if out.len() == begin || (path.ends_with(b"/") && !out.ends_with(REST)) {
        out.push(b'/');
    }
    taken_back || has_placeholder(&out[begin..])
}

/// Begins the next segment; past the limit writes the rest marker and returns false.
fn push_start(starts: &mut [usize; SEGMENTS_MAX], count: &mut usize, out: &mut Vec<u8>) -> bool {
    let Some(slot) = starts.get_mut(*count) else {
        out.push(b'/');
        out.extend_from_slice(REST);
        return false;
    };
    *slot = out.len();
    *count += 1;
    out.push(b'/');
    true
}

/// Decodes percent-encoded unreserved characters and `@` (RFC 3986 §6.2.2.2); `None` where too long.
fn decode<'a>(raw: &'a [u8], buf: &'a mut [u8; SHAPE_BYTES_MAX]) -> Option<&'a [u8]> {
    if memchr::memchr(b'%', raw).is_none() {
        return (raw.len() <= SHAPE_BYTES_MAX).then_some(raw);
    }
    let (mut len, mut at) = (0, 0);
    while let Some(&c) = raw.get(at) {
        let decoded = if c == b'%' { percent(&raw[at..]) } else { None };
        let (byte, used) = match decoded {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte) => (byte, 3),
            _ => (c, 1),
        };
        *buf.get_mut(len)? = byte;
        len += 1;
        at += used;
    }
    Some(&buf[..len])
}

/// Tells whether the template has a `{token}`, long `{hex}`, `{uuid}` or `{…}` for a path segment.
#[cold]
pub(super) fn is_token(raw: &[u8]) -> bool {
    /// Fewer hexadecimal digits name a commit or a file more often than they open a door.
    const HEX_BYTES_MIN: usize = 16;
    let mut buf = [0; SHAPE_BYTES_MAX];
    let Some(segment) = decode(raw, &mut buf) else { return true };
    let mut out = Vec::with_capacity(SHAPE_BYTES_MAX);
    shape_segment(segment, &mut out);
    let has = |placeholder: &[u8]| memchr::memmem::find(&out, placeholder).is_some();
    let long = || {
        segment
            .split(|c| !c.is_ascii_hexdigit() && *c != b'-')
            .any(|run| run.iter().filter(|c| **c != b'-').count() >= HEX_BYTES_MIN)
    };
    let secret = has(b"{token}") || has(b"{uuid}") || has(REST) || (has(b"{hex}") && long());
    out.as_mut_slice().zeroize();
    buf.as_mut_slice().zeroize();
    secret
}

/// Tells whether the template is `{token}` for the whole of a path segment.
pub(super) fn is_whole_token(segment: &[u8]) -> bool {
    placeholder(segment, &Mix::of(segment)) == Some(b"{token}")
}

/// Appends a segment with encoded separators or `name=value` in it, each part by itself, without what is behind a `;`.
#[cold]
fn shape_parts(segment: &[u8], out: &mut Vec<u8>) {
    let mut rest = segment;
    loop {
        let slash = shape::find_unit(rest, |c| c == b'/' || c == b'\\');
        let (end, next) = slash.unwrap_or((rest.len(), rest.len()));
        let part = &rest[..end];
        let part = &part[..shape::find_unit(part, |c| c == b';').map_or(part.len(), |(at, _)| at)];
        let equals = shape::find_unit(part, |c| c == b'=').filter(|(from, to)| {
            *from > 0 && *from <= SEGMENT_BYTES_MAX && part[*to..].iter().any(|c| *c != b'=')
        });
        match equals {
            Some((from, _)) => {
                shape_segment(&part[..from], out);
                out.push(b'=');
                out.extend_from_slice(REST);
            }
            None => shape_segment(part, out),
        }
        if slash.is_none() {
            return;
        }
        out.extend_from_slice(b"%2F");
        rest = &rest[next..];
    }
}

/// What a run of characters consists of.
#[derive(Clone, Copy, Default)]
struct Mix {
    digits: usize,
    hex_letters: usize,
    lower: usize,
    upper: usize,
    dashes: usize,
    underscores: usize,
    dots: usize,
    ats: usize,
    others: usize,
}

impl Mix {
    fn of(text: &[u8]) -> Self {
        let mut mix = Self::default();
        for &c in text {
            match c {
                b'0'..=b'9' => mix.digits += 1,
                b'a'..=b'z' => {
                    mix.lower += 1;
                    mix.hex_letters += usize::from(c <= b'f');
                }
                b'A'..=b'Z' => {
                    mix.upper += 1;
                    mix.hex_letters += usize::from(c <= b'F');
                }
                b'-' => mix.dashes += 1,
                b'_' => mix.underscores += 1,
                b'.' => mix.dots += 1,
                b'@' => mix.ats += 1,
                b'~' | b'=' | b':' | b',' => {}
                _ => mix.others += 1,
            }
        }
        mix
    }
}

/// Appends a segment, decoded, with placeholders for what varies in it.
pub(super) fn shape_segment(segment: &[u8], out: &mut Vec<u8>) {
    // Most segments are plain words. (Without an early exit, so that it compiles to vector compares.)
    let varies = segment.iter().fold(false, |any, c| any | c.is_ascii_digit() | (*c == b'@'));
    if !varies && segment.len() <= SEGMENT_BYTES_MAX && segment.first() != Some(&b'(') {
        out.extend_from_slice(segment);
        return;
    }
    if shape::is_cookieless(segment) {
        out.extend_from_slice(b"{token}");
        return;
    }
    let mix = Mix::of(segment);
    if mix.ats > 0 {
        let at = memchr::memchr(b'@', segment).unwrap_or(0);
        let userinfo = memchr::memchr(b':', &segment[..at]).is_some();
        if at > 0 && (userinfo || memchr::memchr(b'.', &segment[at..]).is_some()) {
            out.extend_from_slice(b"{email}");
            return;
        }
    }
    if let Some(whole) = placeholder(segment, &mix) {
        out.extend_from_slice(whole);
        return;
    }
    if segment.len() >= shape::SEGMENT_BYTES_MIN && (shape::is_jwt(segment) || shape::is_bot_key(segment)) {
        out.extend_from_slice(b"{token}");
        return;
    }
    if mix.dots > 0
        && let Some(dot) = memchr::memrchr(b'.', segment)
        && dot > 0
        && is_extension(&segment[dot + 1..])
    {
        shape_stem(&segment[..dot], out);
        out.extend_from_slice(&segment[dot..]);
        return;
    }
    shape_joined(segment, &mix, out);
}

/// Returns what the whole of `text` stands for, where its shape says so.
fn placeholder(text: &[u8], mix: &Mix) -> Option<&'static [u8]> {
    let len = text.len();
    if mix.digits == 0 {
        return None;
    }
    if mix.digits == len {
        return Some(b"{id}");
    }
    if is_date(text) {
        return Some(b"{date}");
    }
    if len == 36 && mix.dashes == 4 && mix.digits + mix.hex_letters == 32 && is_uuid(text) {
        return Some(b"{uuid}");
    }
    let letters = mix.lower + mix.upper;
    if letters == 0 && mix.others == 0 && mix.underscores == 0 && mix.ats == 0 {
        return Some(b"{id}");
    }
    if len >= 8 && mix.digits + mix.hex_letters == len {
        return Some(b"{hex}");
    }
    let case_mix = mix.lower >= 2 && mix.upper >= 2;
    let words = mix.dashes + mix.underscores;
    // `cus_NffrFeUfNV2Hib`: the word before names the kind of thing, see `shape_joined`.
    let kind_prefix = words == 1
        && text.iter().position(|c| matches!(c, b'-' | b'_')).is_some_and(|at| {
            (2..=12).contains(&at) && at + 8 < len && text[..at].iter().all(u8::is_ascii_lowercase)
        });
    let token = len >= 16
        && mix.others == 0
        && !kind_prefix
        && (mix.dots == 0 || len >= 40)
        && letters >= 2
        && (case_mix && (words * 8 <= len || len >= 40) || mix.digits * 4 >= len && words == 0);
    token.then_some(b"{token}")
}

fn is_uuid(text: &[u8]) -> bool {
    [8, 13, 18, 23].iter().all(|at| text[*at] == b'-')
}

/// `2024-05-31`, or with `T…` behind it.
fn is_date(text: &[u8]) -> bool {
    let digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    text.len() >= 10
        && [0, 1, 2, 3, 5, 6, 8, 9].into_iter().all(digit)
        && text[4] == b'-'
        && text[7] == b'-'
        && (text.len() == 10 || matches!(text[10], b'T' | b't' | b'_'))
}

fn is_extension(text: &[u8]) -> bool {
    (1..=6).contains(&text.len())
        && text.iter().all(u8::is_ascii_alphanumeric)
        && text[0].is_ascii_alphabetic()
}

/// A file name without its extension: each dotted part by itself.
fn shape_stem(stem: &[u8], out: &mut Vec<u8>) {
    let mix = Mix::of(stem);
    if let Some(whole) = placeholder(stem, &mix) {
        out.extend_from_slice(whole);
        return;
    }
    for (i, part) in stem.split(|c| *c == b'.').enumerate() {
        if i > 0 {
            out.push(b'.');
        }
        let mix = Mix::of(part);
        if part.len() >= 6
            && mix.digits > 0
            && mix.digits < part.len()
            && mix.digits + mix.hex_letters == part.len()
        {
            out.extend_from_slice(b"{hex}");
        } else if let Some(whole) = placeholder(part, &mix) {
            out.extend_from_slice(whole);
        } else {
            shape_joined(part, &mix, out);
        }
    }
}

/// Words joined by `-` or `_`, of which the first or the last may vary.
fn shape_joined(text: &[u8], mix: &Mix, out: &mut Vec<u8>) {
    /// Fewer digits are kept: `step-2` and `page-37` are places, `order-10293` is a thing.
    const ID_DIGITS_MIN: usize = 3;
    let is_id = |part: &[u8]| part.len() >= ID_DIGITS_MIN && part.iter().all(u8::is_ascii_digit);
    if mix.digits > 0
        && mix.dashes + mix.underscores > 0
        && let Some(last) = text.iter().rposition(|c| matches!(c, b'-' | b'_'))
        && let Some(first) = text.iter().position(|c| matches!(c, b'-' | b'_'))
        && first > 0
    {
        let (head, tail) = (&text[..last], &text[last + 1..]);
        let tail_mix = Mix::of(tail);
        let varies: Option<&[u8]> = if is_id(tail) {
            Some(b"{id}")
        } else if tail.len() >= 6
            && tail_mix.digits > 0
            && tail_mix.digits + tail_mix.hex_letters == tail.len()
        {
            Some(b"{hex}")
        } else if tail.len() >= 8
            && tail_mix.digits > 0
            && tail_mix.others == 0
            && (tail_mix.lower > 0 && tail_mix.upper > 0 || tail_mix.digits * 4 >= tail.len())
        {
            Some(b"{token}")
        } else {
            None
        };
        if let Some(varies) = varies {
            // One word names the kind of thing (`user-10293`); several name the thing itself.
            if first == last && head.len() <= SEGMENT_BYTES_MAX && Mix::of(head).digits == 0 {
                out.extend_from_slice(head);
            } else {
                out.extend_from_slice(b"{slug}");
            }
            out.push(text[last]);
            out.extend_from_slice(varies);
            return;
        }
        if is_id(&text[..first]) {
            out.extend_from_slice(b"{id}");
            out.push(text[first]);
            out.extend_from_slice(b"{slug}");
            return;
        }
    }
    out.extend_from_slice(if text.len() <= SEGMENT_BYTES_MAX { text } else { REST });
}

/// A list of words with a filter: for each first letter the lengths that occur, by bit.
struct Words {
    words: &'static [&'static [u8]],
    lengths: [u32; 32],
}

impl Words {
    /// Takes words of lower-case letters, shorter than 32.
    const fn new(words: &'static [&'static [u8]]) -> Self {
        let mut lengths = [0; 32];
        let mut at = 0;
        while at < words.len() {
            lengths[(words[at][0] & 31) as usize] |= 1 << words[at].len();
            at += 1;
        }
        Self { words, lengths }
    }

    fn contain(&self, word: &[u8]) -> bool {
        let Some(first) = word.first() else { return false };
        word.len() < 32
            && self.lengths[usize::from(first & 31)] & (1 << word.len()) != 0
            && self.words.contains(&word)
    }
}

/// Words that a login's path ends in, reduced to lower-case letters.
static LOGIN_WORDS: Words = Words::new(&[
    b"accedi",
    b"acceder",
    b"aanmelden",
    b"anmelden",
    b"anmeldung",
    b"auth",
    b"authenticate",
    b"authentication",
    b"authorize",
    b"autologin",
    b"connexion",
    b"einloggen",
    b"entrar",
    b"identification",
    b"iniciarsesion",
    b"inloggen",
    b"jsecuritycheck",
    b"loggain",
    b"logga",
    b"logon",
    b"prihlaseni",
    b"session",
    b"sessions",
    b"signon",
    b"sso",
    b"zaloguj",
    b"giris",
    b"kirjaudu",
    b"wplogin",
]);
/// Words that may follow one of them.
static LOGIN_STEPS: Words = Words::new(&[
    b"action",
    b"basic",
    b"check",
    b"create",
    b"do",
    b"email",
    b"form",
    b"identifier",
    b"index",
    b"ldap",
    b"local",
    b"new",
    b"password",
    b"post",
    b"process",
    b"submit",
    b"token",
    b"tokens",
    b"user",
    b"verify",
]);
/// Words of pages that refuse.
static ERROR_WORDS: Words = Words::new(&[
    b"blocked",
    b"captcha",
    b"challenge",
    b"denied",
    b"accessdenied",
    b"error",
    b"errors",
    b"expired",
    b"fail",
    b"failed",
    b"failure",
    b"forbidden",
    b"invalid",
    b"locked",
    b"loginerror",
    b"loginfailed",
    b"unauthorized",
    b"fehler",
    b"erreur",
    b"unauthorised",
]);
/// Words of pages where a password is chosen or asked to be sent.
static SETS_PASSWORD_WORDS: Words = Words::new(&[
    b"changepassword",
    b"forgot",
    b"forgotpassword",
    b"lostpassword",
    b"passwordchange",
    b"passwordreset",
    b"recover",
    b"recovery",
    b"register",
    b"registration",
    b"reset",
    b"resetpassword",
    b"signup",
]);
/// Words of other pages around an account where a user without a password is still worth knowing.
static ACCOUNT_WORDS: Words = Words::new(&[b"otp", b"join", b"verify", b"mfa"]);
/// Extensions of scripts; what follows one in a path is for the script to read.
static SCRIPTS: Words = Words::new(&[
    b"php", b"phtml", b"asp", b"aspx", b"ashx", b"jsp", b"jspx", b"do", b"action", b"cgi", b"pl", b"py",
    b"cfm",
]);

/// A path's last segments, reduced, and what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PathWords {
    /// The path ends like a login (`/login`, `/api/v1/session`, `/oauth/token`).
    pub(super) login: bool,
    /// The path ends like an error page.
    pub(super) error: bool,
    /// The path ends like a page about an account.
    pub(super) account: bool,
}

impl PathWords {
    /// Reads the last segments of `path`, resolved as [`write()`] does; versions (`v2`) at the end are passed over.
    pub(super) fn of(path: &[u8]) -> Self {
        let (mut last, mut before) = (Word::default(), Word::default());
        let mut found = 0;
        for word in resolved(path).take(4).map(Word::new) {
            if word.is_version() && found == 0 {
                continue;
            }
            if found == 0 {
                last = word;
            } else {
                before = word;
                break;
            }
            found += 1;
        }
        let (last, before) = (last.bytes(), before.bytes());
        let login = is_login_word(last)
            || (last == b"token" && (before == b"oauth" || before == b"oauth2" || before == b"connect"))
            || (is_login_word(before) && LOGIN_STEPS.contain(last))
            || (last == b"token" && before == b"openidconnect");
        Self {
            login,
            error: ERROR_WORDS.contain(last),
            account: [last, before]
                .into_iter()
                .any(|word| ACCOUNT_WORDS.contain(word) || SETS_PASSWORD_WORDS.contain(word)),
        }
    }
}

/// Yields the segments of `path` from its end, without parameters; empty and dot segments are resolved.
fn resolved(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut taken_back = 0usize;
    path.rsplit(|c| *c == b'/').filter_map(move |segment| {
        let name = segment.split(|c| *c == b';').next().unwrap_or_default();
        match dots(name) {
            Some(0 | 1) => None,
            Some(2) => {
                taken_back += 1;
                None
            }
            _ if taken_back > 0 => {
                taken_back -= 1;
                None
            }
            _ => Some(name),
        }
    })
}

/// Returns how many dots `segment` consists of, percent-encoded or not; `None` where it has anything else.
fn dots(mut segment: &[u8]) -> Option<usize> {
    let mut dots = 0;
    while let [first, rest @ ..] = segment {
        segment = match first {
            b'.' => rest,
            b'%' if percent(segment) == Some(b'.') => segment.get(3..)?,
            _ => return None,
        };
        dots += 1;
    }
    Some(dots)
}

/// Tells whether a segment of `path`, or words of the last one (`register-user`, `doRegister`), say that a
/// password sent there is chosen and not proven, where the path is no login's.
///
/// What follows the name of a script does not count: `/login.php/register` is `/login.php`. Front controllers
/// (`/index.php/register`) do nothing else than read it. Cost: one pass over the path.
pub(super) fn sets_password(path: &[u8]) -> bool {
    let mut says = false;
    for (n, segment) in resolved(path).enumerate() {
        let front = || matches!(Word::new(segment).bytes(), b"index" | b"app");
        if n > 0 && says && is_script(segment) && !front() {
            says = false;
        }
        says = says
            || SETS_PASSWORD_WORDS.contain(Word::new(segment).bytes())
            || n == 0 && words_of(segment, |word| SETS_PASSWORD_WORDS.contain(word));
    }
    says
}

fn is_script(segment: &[u8]) -> bool {
    memchr::memrchr(b'.', segment)
        .is_some_and(|dot| dot > 0 && SCRIPTS.contain(&segment[dot + 1..].to_ascii_lowercase()))
}

/// Tells whether `is` holds for a word of `segment`, or two that follow each other, in lower-case letters.
fn words_of(segment: &[u8], is: impl Fn(&[u8]) -> bool) -> bool {
    let mut before = 0;
    let mut start = 0;
    let mut found = false;
    for end in 1..=segment.len() {
        let c = segment.get(end).copied().unwrap_or(b'-');
        let hump = c.is_ascii_uppercase() && segment[end - 1].is_ascii_lowercase();
        if c.is_ascii_alphabetic() && !hump {
            continue;
        }
        let [word, both] = [start, before].map(|from| Word::new(&segment[from..end]));
        found = found || is(word.bytes()) || is(both.bytes());
        (before, start) = (start, end);
    }
    found
}

fn is_login_word(word: &[u8]) -> bool {
    word.ends_with(b"login")
        || word.ends_with(b"signin")
        || word.starts_with(b"login") && word != b"loginfailed" && word != b"loginerror"
        || LOGIN_WORDS.contain(word)
}

/// A segment in lower case without separators, parameters and extension.
#[derive(Clone, Copy, Default)]
struct Word {
    buf: [u8; 24],
    len: usize,
}

impl Word {
    fn new(segment: &[u8]) -> Self {
        let segment = segment.split(|c| *c == b';').next().unwrap_or_default();
        let stem = match memchr::memrchr(b'.', segment) {
            Some(dot) if dot > 0 && is_extension(&segment[dot + 1..]) => &segment[..dot],
            _ => segment,
        };
        let mut out = Self::default();
        let mut at = 0;
        while let Some(&c) = stem.get(at) {
            at += 1;
            let mut c = c;
            if c == b'%'
                && let Some(byte) = percent(&stem[at - 1..])
            {
                c = byte;
                at += 2;
            }
            if matches!(c, b'-' | b'_' | b'.' | b' ' | b'+') {
                continue;
            }
            let Some(slot) = out.buf.get_mut(out.len) else { return Self::default() };
            *slot = c.to_ascii_lowercase();
            out.len += 1;
        }
        out
    }

    fn bytes(&self) -> &[u8] {
        &self.buf[..self.len]
    }

    fn is_version(&self) -> bool {
        matches!(self.bytes(), [b'v', rest @ ..] if !rest.is_empty() && rest.iter().all(u8::is_ascii_digit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, path: &str) -> String {
        let mut out = Vec::new();
        write(method.as_bytes(), path.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn templates() {
        for (path, want) in [
            ("/", "/"),
            ("/login", "/login"),
            ("/users/", "/users/"),
            ("/orders/10293", "/orders/{id}"),
            ("/orders/10293/items/7", "/orders/{id}/items/{id}"),
            ("/api/v2/orders", "/api/v2/orders"),
            ("/o/3f2504e0-4f89-41d3-9a0c-0305e82c3301", "/o/{uuid}"),
            ("/o/3F2504E0-4F89-41D3-9A0C-0305E82C3301/x", "/o/{uuid}/x"),
            ("/c/deadbeef", "/c/deadbeef"),
            ("/c/deadbee5", "/c/{hex}"),
            ("/c/507f1f77bcf86cd799439011", "/c/{hex}"),
            ("/u/ann@example.com", "/u/{email}"),
            ("/u/ann%40example.com", "/u/{email}"),
            ("/@ann", "/@ann"),
            ("/d/2024-05-31", "/d/{date}"),
            ("/d/2024-05-31T10:00:00Z", "/d/{date}"),
            ("/t/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N", "/t/{token}"),
            ("/t/dQw4w9WgXcQ8dk3Lm2", "/t/{token}"),
            ("/p/blue-shoes-12345", "/p/{slug}-{id}"),
            ("/p/12345-blue-shoes", "/p/{id}-{slug}"),
            ("/p/user-12345", "/p/user-{id}"),
            ("/p/step-2", "/p/step-2"),
            ("/p/cus_NffrFeUfNV2Hib", "/p/cus_{token}"),
            ("/blog/ten-good-reasons", "/blog/ten-good-reasons"),
            ("/static/app.3fa9c1.js", "/static/app.{hex}.js"),
            ("/static/main.8f3a2b1c.chunk.js", "/static/main.{hex}.chunk.js"),
            // Known to be wrong: a base64url hash of 8 characters looks like words.
            ("/static/index-BkD3fa_x9.js", "/static/index-BkD3fa_x9.js"),
            ("/static/app-3fa9c1d2.css", "/static/app-{hex}.css"),
            ("/static/jquery.min.js", "/static/jquery.min.js"),
            ("/img/12345.jpg", "/img/{id}.jpg"),
            ("/index.php", "/index.php"),
            ("/geo/52.51,13.40", "/geo/{id}"),
            ("/a;v=1/b;jsessionid=X", "/a/b"),
            ("//login", "/login"),
            ("/./a/../login", "/login"),
            ("/../../login", "/login"),
            ("/%6Cogin", "/login"),
            ("/%2e%2e/x", "/x"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb%252Fc", "/a%2Fb%2Fc"),
            ("/reset%2FdQw4w9WgXcQ8dk3Lm2/x", "/reset%2F{token}/x"),
            ("/a%3Bjsessionid=dQw4w9WgXcQ8dk3Lm2/b", "/a/b"),
            ("/a%253Bjsessionid%253DdQw4w9WgXcQ8dk3Lm2/b", "/a/b"),
            ("/a/token=dQw4w9WgXcQ/b", "/a/token={…}/b"),
            ("/a/token%3Dabc/b", "/a/token={…}/b"),
            ("/a/abc==", "/a/abc=="),
            ("/app/(S(lit3py55t21z5v55vlm25s55))/x.aspx", "/app/{token}/x.aspx"),
            ("/app/(X(1)S(abcdefghijklmnopqrstuvwx))/x", "/app/{token}/x"),
            ("/wiki/(disambiguation)", "/wiki/(disambiguation)"),
            ("/a/b/c/d/e/f/g/h/i/j/k/l", "/a/b/c/d/e/f/g/h/i/j/k/l"),
            ("/a/b/c/d/e/f/g/h/i/j/k/l/m/n", "/a/b/c/d/e/f/g/h/i/j/k/l/{…}"),
            ("*", "*"),
            ("", "{authority}"),
        ] {
            assert_eq!(of("GET", path), format!("GET {want}"), "{path}");
        }
        assert_eq!(of("BREW", "/pot"), "OTHER /pot");
        assert_eq!(of("get", "/pot"), "OTHER /pot");
    }

    #[test]
    fn long_paths_are_capped() {
        for path in [
            format!("/{}", "x".repeat(100_000)),
            "/x".repeat(50_000),
            format!("/{}", "ab".repeat(40)),
            format!("/{}", "%41".repeat(1000)),
            "/abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz".repeat(9),
            "/../x/..".repeat(10_000),
        ] {
            let text = of("GET", &path);
            assert!(text.len() <= TEMPLATE_BYTES_MAX + 16, "{text}");
        }
        assert_eq!(of("GET", &format!("/a/{}/b", "x".repeat(600))), "GET /a/{…}/b");
    }

    #[test]
    fn only_whole_words_of_the_resolved_path_say_that_a_password_is_set() {
        for (path, login, sets_password) in [
            ("/login", true, false),
            ("/login;register", true, false),
            ("/register/../login", true, false),
            ("/login/..;/forgot/../login", true, false),
            ("/x/%72eset/../../login", true, false),
            ("/register/%2e%2E/enter", false, false),
            ("/signup/login/.", true, false),
            ("/login/x/..", true, false),
            ("/a/../../login", true, false),
            ("/register/login/..", false, true),
            ("/cash-register/login", true, false),
            ("/presets/api/login", true, false),
            ("/presets/api/enter", false, false),
            ("/registered/enter", false, false),
            ("/login.php/register", false, false),
            ("/enter.php/a/b/c/d/e/f/register", false, false),
            ("/index.php/auth/register", false, true),
            ("/register.php/step", false, true),
            ("/account/register", false, true),
            ("/auth/register", false, true),
            ("/Account/ForgotPassword", false, true),
            ("/users/SignUp", false, true),
            ("/sign-up", false, true),
            ("/sign_up/details/2", false, true),
            ("/change-password", false, true),
            ("/users/password/reset", false, true),
            ("/reset_password_confirm", false, true),
            ("/api/registerUser", false, true),
            ("/doRegister.aspx", false, true),
            ("/%72egister", false, true),
            ("/register/v2", false, true),
            ("/login/verify", true, false),
            ("/", false, false),
            ("", false, false),
        ] {
            let is_login = PathWords::of(path.as_bytes()).login;
            let sets = !is_login && super::sets_password(path.as_bytes());
            assert_eq!((is_login, sets), (login, sets_password), "{path}");
        }
        let deep = format!("/{}register", "x/../".repeat(20_000));
        assert!(sets_password(deep.as_bytes()));
    }

    #[test]
    fn logins_and_errors() {
        for (path, login, error, account) in [
            ("/login", true, false, false),
            ("/Login.aspx", true, false, false),
            ("/users/sign_in", true, false, false),
            ("/api/v1/auth/login", true, false, false),
            ("/api/login/v2", true, false, false),
            ("/wp-login.php", true, false, false),
            ("/j_security_check", true, false, false),
            ("/oauth/token", true, false, false),
            ("/oauth2/token", true, false, false),
            ("/realms/x/protocol/openid-connect/token", true, false, false),
            ("/session", true, false, false),
            ("/%6cogin/", true, false, false),
            ("/adminlogin", true, false, false),
            ("/anmelden", true, false, false),
            ("/login/submit", true, false, false),
            ("/login;jsessionid=1", true, false, false),
            ("/login/assets/app.css", false, false, false),
            ("/auth/users/me", false, false, false),
            ("/logout", false, false, false),
            ("/csrf/token", false, false, false),
            ("/catalog", false, false, false),
            ("/login/error", false, true, false),
            ("/access-denied", false, true, false),
            ("/signup", false, false, true),
            ("/password/reset", false, false, true),
            ("/", false, false, false),
            ("", false, false, false),
        ] {
            assert_eq!(PathWords::of(path.as_bytes()), PathWords { login, error, account }, "{path}");
        }
    }
}
