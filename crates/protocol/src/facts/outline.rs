//! Names and kinds of a request's parameters, for an inventory: what is there, never what it says.
//!
//! Runs only where [`FactsConfig::outline_names_max`](super::FactsConfig) is not 0; a pass of its own over head and
//! body, so that it costs nothing where nobody asks for it. Linear in the bytes; a value passes byte by byte and is
//! kept nowhere.
//!
//! A name is taken where it can be one: at most [`NAME_BYTES_MAX`] bytes of UTF-8 without `@`, quotes, braces, white
//! space and control characters. Components that look like a value (digits, UUIDs, tokens: as in path templates)
//! become placeholders: `item[17]` is `item[{id}]`. What is all placeholder names nothing and is left out; in JSON it
//! stands for the members of an object that is a map.

use std::collections::HashMap;

use offpath_types::{
    BodyOutline, CredentialKind, Outline, Parameter, ParameterPlace, Transaction, ValueKinds,
};

use super::body::Format;
use super::field::Field;
use super::fields::parameter;
use super::hash::StableHash;
use super::names::{self, Reduced};
use super::secret::{SecretBuf, form_decode, hex};
use super::{Names, endpoint, proxy_made, session};
use crate::head::{Header, RequestHead};

/// Longest name that is taken, after decoding.
const NAME_BYTES_MAX: usize = 64;
/// Longest pointer into a JSON body.
const POINTER_BYTES_MAX: usize = 256;
/// Containers within each other that are looked into.
const JSON_DEPTH_MAX: usize = 8;
/// Parts of a multipart body that are looked at.
const PARTS_MAX: usize = 4096;
/// Credentials noted of one request.
const CREDENTIALS_MAX: usize = 8;

/// Header fields that say something of the client or the way and nothing of an interface; in lower case. HTTP's own
/// that [`Field`] knows, and most that proxies add, are left out before.
const NOT_PARAMETERS: &[&[u8]] = &[
    b"alt-used",
    b"dnt",
    b"dpr",
    b"ect",
    b"downlink",
    b"device-memory",
    b"early-data",
    b"http2-settings",
    b"keep-alive",
    b"proxy-connection",
    b"rtt",
    b"save-data",
    b"sec-gpc",
    b"te",
    b"viewport-width",
    b"warning",
    b"width",
    b"x-b3-sampled",
    b"x-b3-spanid",
    b"x-b3-traceid",
    b"x-correlation-id",
    b"x-trace-id",
];

/// Makes outlines. One per worker.
pub(super) struct Outliner {
    names_max: usize,
    /// By hash of place and name: where in the outline's parameters it stands.
    index: HashMap<u64, usize>,
    scratch: SecretBuf,
    name: Vec<u8>,
}

impl Outliner {
    pub(super) fn new(names_max: usize) -> Self {
        Self { names_max, index: HashMap::new(), scratch: SecretBuf::default(), name: Vec::new() }
    }

    /// Tells whether outlines are wanted.
    pub(super) fn wanted(&self) -> bool {
        self.names_max > 0
    }

    /// Outlines a head; `query` is that of its target.
    pub(super) fn head(&mut self, head: &RequestHead<'_>, query: &[u8], names: &Names, tx: &mut Transaction) {
        let mut outline = Outline::default();
        self.index.clear();
        self.credentials(head.headers, names, &mut outline);
        for h in head.headers {
            self.header(h, names, &mut outline);
        }
        for pair in query.split(|c| *c == b'&').filter(|pair| !pair.is_empty()) {
            let equals = memchr::memchr(b'=', pair);
            let name = &pair[..equals.unwrap_or(pair.len())];
            if equals.is_some() && names::identifies_caller(Reduced::new(name, true).bytes()) {
                if self.form_name(name) {
                    self.credential(CredentialKind::Query, &mut outline);
                }
            } else if equals.is_none() && !is_bare_word(name) {
                outline.names_left_out = outline.names_left_out.saturating_add(1);
            } else {
                let mut scan = KindScan::default();
                let value = equals.map_or(&b""[..], |at| &pair[at + 1..]);
                decoded_bytes(value).for_each(|byte| scan.push(byte));
                self.form_pair(ParameterPlace::Query, name, scan.finish(), &mut outline);
            }
        }
        tx.outline = Some(Box::new(outline));
    }

    /// Outlines a request body; where it is not `whole`, what it lacks says nothing.
    pub(super) fn body(
        &mut self,
        format: Format,
        text: &[u8],
        boundary: &[u8],
        whole: bool,
        tx: &mut Transaction,
    ) {
        let Some(outline) = tx.outline.as_deref_mut() else { return };
        self.index.clear();
        let left_out = outline.names_left_out;
        let sound = match format {
            Format::Json => self.json(text, outline),
            Format::Multipart => self.multipart(text, boundary, outline),
            Format::Form => self.form(text, whole, outline),
            _ => return,
        };
        let all = whole && sound && outline.names_left_out == left_out;
        outline.body = if all { BodyOutline::Whole } else { BodyOutline::Partial };
    }

    fn credentials(&mut self, headers: &[Header<'_>], names: &Names, outline: &mut Outline) {
        let mut cookie: Option<(usize, &[u8])> = None;
        let mut cookies = 0;
        for h in headers {
            match Field::of(h.name) {
                Field::Authorization => {
                    let value = h.value.trim_ascii();
                    let scheme = value.split(u8::is_ascii_whitespace).next().unwrap_or_default();
                    let is = |known: &str| scheme.eq_ignore_ascii_case(known.as_bytes());
                    self.name.clear();
                    let kind = if is("basic") {
                        CredentialKind::Basic
                    } else if is("bearer") {
                        CredentialKind::Bearer
                    } else if is("digest") {
                        CredentialKind::Digest
                    } else {
                        self.name.extend_from_slice(b"authorization");
                        CredentialKind::Header
                    };
                    self.credential(kind, outline);
                }
                Field::Cookie => {
                    for pair in h.value.split(|c| *c == b';') {
                        cookies += 1;
                        if cookies > session::COOKIES_MAX {
                            break;
                        }
                        let Some((name, _)) = session::name_value(pair) else { continue };
                        let rank = match names.session_cookies.iter().position(|c| **c == *name) {
                            Some(rank) => rank,
                            None if names::session_like_cookie(name) => usize::MAX,
                            None => continue,
                        };
                        if cookie.is_none_or(|(best, _)| rank < best) {
                            cookie = Some((rank, name));
                        }
                    }
                }
                _ if names.session_headers.iter().any(|n| n.eq_ignore_ascii_case(h.name))
                    && !h.value.trim_ascii().is_empty()
                    && self.plain_name(h.name) =>
                {
                    self.name.make_ascii_lowercase();
                    self.credential(CredentialKind::Header, outline);
                }
                _ => {}
            }
        }
        if let Some((_, name)) = cookie
            && self.plain_name(name)
        {
            self.credential(CredentialKind::Cookie, outline);
        }
    }

    /// Notes a credential whose name is in `self.name`.
    fn credential(&mut self, kind: CredentialKind, outline: &mut Outline) {
        let known = outline.credentials.iter().any(|(k, n)| *k == kind && outline.text.get(*n) == self.name);
        if !known && outline.credentials.len() < CREDENTIALS_MAX {
            let name = outline.text.push(&self.name);
            outline.credentials.push((kind, name));
        }
    }

    fn header(&mut self, h: &Header<'_>, names: &Names, outline: &mut Outline) {
        let named = |n: &[u8]| n.eq_ignore_ascii_case(h.name);
        let mut lower = [0; NAME_BYTES_MAX];
        let Some(lower) = lower.get_mut(..h.name.len()) else {
            outline.names_left_out = outline.names_left_out.saturating_add(1);
            return;
        };
        lower.copy_from_slice(h.name);
        lower.make_ascii_lowercase();
        let interface = match Field::of(lower) {
            Field::Other => true,
            Field::Proxy => !proxy_made(lower),
            Field::Volatile => lower == b"idempotency-key",
            _ => false,
        };
        if !interface
            || NOT_PARAMETERS.contains(&&*lower)
            || names.session_headers.iter().any(|n| named(n))
            || names.client_header.as_deref().is_some_and(named)
        {
            return;
        }
        let mut scan = KindScan::default();
        h.value.iter().for_each(|byte| scan.push(*byte));
        let is_token = lower.iter().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(c));
        if is_token && self.plain_name(lower) {
            self.note(ParameterPlace::Header, scan.finish(), outline);
        } else {
            outline.names_left_out = outline.names_left_out.saturating_add(1);
        }
    }

    fn form(&mut self, text: &[u8], whole: bool, outline: &mut Outline) -> bool {
        let text = match (whole, memchr::memrchr(b'&', text)) {
            (true, _) => text.trim_ascii_end(),
            (false, Some(last)) => &text[..last],
            (false, None) => return true,
        };
        for pair in text.split(|c| *c == b'&').filter(|pair| !pair.is_empty()) {
            let equals = memchr::memchr(b'=', pair);
            let mut scan = KindScan::default();
            decoded_bytes(equals.map_or(&b""[..], |at| &pair[at + 1..])).for_each(|byte| scan.push(byte));
            let name = &pair[..equals.unwrap_or(pair.len())];
            if equals.is_none() && !is_bare_word(name) {
                outline.names_left_out = outline.names_left_out.saturating_add(1);
            } else {
                self.form_pair(ParameterPlace::Form, name, scan.finish(), outline);
            }
        }
        true
    }

    fn form_pair(&mut self, place: ParameterPlace, name: &[u8], kinds: ValueKinds, outline: &mut Outline) {
        if self.form_name(name) {
            self.note(place, kinds, outline);
        } else {
            outline.names_left_out = outline.names_left_out.saturating_add(1);
        }
    }

    /// Decodes a name into `self.name`; false where it is none.
    fn form_name(&mut self, name: &[u8]) -> bool {
        if name.len() > 3 * NAME_BYTES_MAX {
            return false;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        form_decode(name, &mut scratch);
        let taken = self.plain_name(scratch.bytes());
        scratch.clear();
        self.scratch = scratch;
        taken
    }

    fn plain_name(&mut self, name: &[u8]) -> bool {
        self.name.clear();
        push_name(name, &mut self.name) == Named::Name
    }

    /// Notes a parameter whose name is in `self.name`.
    fn note(&mut self, place: ParameterPlace, kinds: ValueKinds, outline: &mut Outline) {
        let mut hash = StableHash::new(place as u64);
        hash.write(&self.name);
        let hash = hash.finish();
        if let Some(at) = self.index.get(&hash).and_then(|at| outline.parameters.get_mut(*at)) {
            if at.place == place && outline.text.get(at.name) == self.name {
                at.kinds = at.kinds.join(kinds);
                if place != ParameterPlace::Json {
                    at.kinds = at.kinds.join(ValueKinds::REPEATED);
                }
                at.count = at.count.saturating_add(1);
            } else {
                outline.names_left_out = outline.names_left_out.saturating_add(1);
            }
            return;
        }
        if outline.parameters.len() >= self.names_max {
            outline.names_left_out = outline.names_left_out.saturating_add(1);
            return;
        }
        self.index.insert(hash, outline.parameters.len());
        let name = outline.text.push(&self.name);
        outline.parameters.push(Parameter { place, name, kinds, count: 1 });
    }

    fn multipart(&mut self, text: &[u8], boundary: &[u8], outline: &mut Outline) -> bool {
        let mut left = 0u32;
        let whole = parts(text, boundary, |name, is_file, value| {
            let kinds = if is_file {
                ValueKinds::FILE
            } else {
                let mut scan = KindScan::default();
                value.iter().for_each(|byte| scan.push(*byte));
                scan.finish()
            };
            if self.plain_name(name) {
                self.note(ParameterPlace::Form, kinds, outline);
            } else {
                left += 1;
            }
        });
        outline.names_left_out = outline.names_left_out.saturating_add(left);
        whole
    }

    /// Reads a JSON text; returns whether it was whole and sound.
    fn json(&mut self, text: &[u8], outline: &mut Outline) -> bool {
        let mut walk = JsonWalk::default();
        let mut note = |pointer: Option<&[u8]>, kinds| match pointer {
            Some(pointer) => {
                self.name.clear();
                self.name.extend_from_slice(pointer);
                self.note(ParameterPlace::Json, kinds, outline);
            }
            None => outline.names_left_out = outline.names_left_out.saturating_add(1),
        };
        for &byte in text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text) {
            walk.push(byte, &mut note);
            if walk.state == JsonState::Broken {
                return false;
            }
        }
        // A number that is the whole text ends with it.
        walk.push(b' ', &mut note);
        walk.state == JsonState::End
    }
}

/// Hands the parts of a multipart body (RFC 7578) to `f`: name, whether it is a file, value. Returns whether the
/// closing delimiter was there; a part without its end is left out.
fn parts<'a>(text: &'a [u8], boundary: &[u8], mut f: impl FnMut(&'a [u8], bool, &'a [u8])) -> bool {
    let delimiter = [b"\r\n--", boundary].concat();
    let finder = memchr::memmem::Finder::new(&delimiter);
    let first = match text.starts_with(&delimiter[2..]) {
        true => Some(delimiter.len() - 2),
        false => finder.find(text).map(|at| at + delimiter.len()),
    };
    let Some(mut rest) = first.map(|at| &text[at..]) else { return false };
    for _ in 0..PARTS_MAX {
        if rest.starts_with(b"--") {
            return true;
        }
        let Some(end) = finder.find(rest) else { return false };
        let part = &rest[..end];
        rest = &rest[end + delimiter.len()..];
        let Some(blank) = memchr::memmem::find(part, b"\r\n\r\n") else { continue };
        let disposition = part[..blank].split(|c| *c == b'\n').find_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            let is = line[..colon].trim_ascii().eq_ignore_ascii_case(b"content-disposition");
            is.then(|| &line[colon + 1..])
        });
        let Some(disposition) = disposition else { continue };
        let file = [&b"filename"[..], b"filename*"].iter().any(|n| parameter(disposition, n).is_some());
        f(parameter(disposition, b"name").unwrap_or_default(), file, &part[blank + 4..]);
    }
    false
}

/// What a text is as a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// A name; components of it may be placeholders.
    Name,
    /// Nothing but a placeholder: the name is a value.
    Placeholder,
    /// No name.
    No,
}

/// Appends `name` to `out` with placeholders for the components that look like values.
fn push_name(name: &[u8], out: &mut Vec<u8>) -> Named {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Named::No;
    }
    let Ok(text) = std::str::from_utf8(name) else { return Named::No };
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || "@{}\"'<>\\".contains(c)) {
        return Named::No;
    }
    let begin = out.len();
    let mut words = 0;
    let is_end = |c: &u8| matches!(c, b'[' | b']' | b'.' | b':' | b'/' | b'~');
    let mut rest = name;
    while !rest.is_empty() {
        let end = rest.iter().position(is_end).unwrap_or(rest.len());
        let (component, after) = rest.split_at(end);
        let from = out.len();
        if !component.is_empty() {
            endpoint::shape_segment(component, out);
            words += usize::from(!(out[from..].starts_with(b"{") && out.ends_with(b"}")));
        }
        let (separator, after) = after.split_at(after.len().min(1));
        out.extend_from_slice(separator);
        rest = after;
    }
    if words > 0 {
        return Named::Name;
    }
    // `[]` and `..` name nothing either.
    if out.get(begin) == Some(&b'{') && memchr::memchr(b'}', &out[begin..]) == Some(out.len() - begin - 1) {
        Named::Placeholder
    } else {
        Named::No
    }
}

/// Tells whether what stands in a query without an equals sign is a word rather than a secret: `?wsdl`, `?list-type`.
fn is_bare_word(text: &[u8]) -> bool {
    text.len() <= 32 && text.iter().all(|c| c.is_ascii_alphabetic() || matches!(c, b'-' | b'_'))
}

/// Yields the bytes of a percent-encoded form value.
fn decoded_bytes(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *text.get(at)?;
        at += 1;
        Some(match byte {
            b'+' => b' ',
            b'%' => match (text.get(at).and_then(|c| hex(*c)), text.get(at + 1).and_then(|c| hex(*c))) {
                (Some(high), Some(low)) => {
                    at += 2;
                    high << 4 | low
                }
                _ => byte,
            },
            _ => byte,
        })
    })
}

/// Finds the kind of a value that passes byte by byte.
#[derive(Clone, Copy)]
struct KindScan {
    len: u32,
    number: NumberState,
    is_true: bool,
    is_false: bool,
    uuid: bool,
    date: bool,
    email: bool,
    /// Where the `@` was.
    at: u32,
    /// A dot with something before it came after the `@`.
    dotted: bool,
    last: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NumberState {
    Begin,
    Sign,
    Zero,
    Digits,
    Dot,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    No,
}

/// Longer digits are identifiers whatever they look like: 2^63 has 19.
const INTEGER_BYTES_MAX: u32 = 20;

impl Default for KindScan {
    fn default() -> Self {
        Self {
            len: 0,
            number: NumberState::Begin,
            is_true: true,
            is_false: true,
            uuid: true,
            date: true,
            email: true,
            at: 0,
            dotted: false,
            last: 0,
        }
    }
}

impl KindScan {
    fn push(&mut self, byte: u8) {
        use NumberState::{
            Begin, Digits, Dot, Exponent, ExponentDigits, ExponentSign, Fraction, No, Sign, Zero,
        };
        let i = self.len as usize;
        self.len = self.len.saturating_add(1);
        self.number = match (self.number, byte) {
            (Begin, b'-') => Sign,
            (Begin | Sign, b'0') => Zero,
            (Begin | Sign, b'1'..=b'9') | (Digits, b'0'..=b'9') => Digits,
            (Zero | Digits, b'.') => Dot,
            (Dot | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Digits | Fraction, b'e' | b'E') => Exponent,
            (Exponent, b'+' | b'-') => ExponentSign,
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => ExponentDigits,
            _ => No,
        };
        self.is_true &= b"true".get(i) == Some(&byte);
        self.is_false &= b"false".get(i) == Some(&byte);
        self.uuid &= match i {
            8 | 13 | 18 | 23 => byte == b'-',
            0..36 => byte.is_ascii_hexdigit(),
            _ => false,
        };
        self.date &= match i {
            4 | 7 => byte == b'-',
            0..10 => byte.is_ascii_digit(),
            10 => matches!(byte, b'T' | b't' | b' '),
            11..40 => byte.is_ascii_digit() || b":.+-Zz".contains(&byte),
            _ => false,
        };
        match byte {
            b'@' if self.at == 0 && i > 0 => self.at = i as u32,
            b'.' if self.at > 0 && self.last != b'@' && self.last != b'.' => self.dotted = true,
            b'@' | b'/' | b':' | b'?' | b'&' | b',' | b'"' | 0..=b' ' | 0x7f => self.email = false,
            _ => {}
        }
        self.last = byte;
    }

    fn finish(&self) -> ValueKinds {
        let short = self.len <= INTEGER_BYTES_MAX;
        match self.number {
            _ if self.len == 0 => return ValueKinds::EMPTY,
            NumberState::Zero | NumberState::Digits if short => return ValueKinds::INTEGER,
            NumberState::Fraction | NumberState::ExponentDigits if short => return ValueKinds::NUMBER,
            _ => {}
        }
        if self.is_true && self.len == 4 || self.is_false && self.len == 5 {
            ValueKinds::BOOLEAN
        } else if self.uuid && self.len == 36 {
            ValueKinds::UUID
        } else if self.date && self.len == 10 {
            ValueKinds::DATE
        } else if self.date && self.len >= 16 {
            ValueKinds::DATE_TIME
        } else if self.email && self.dotted && self.last != b'.' && self.len <= 254 {
            ValueKinds::EMAIL
        } else {
            ValueKinds::STRING
        }
    }

    /// The kind of a JSON string: digits between quotes are a string.
    fn finish_text(&self) -> ValueKinds {
        match self.finish() {
            ValueKinds::INTEGER | ValueKinds::NUMBER | ValueKinds::BOOLEAN => ValueKinds::STRING,
            kinds => kinds,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum JsonState {
    /// A value begins.
    #[default]
    Value,
    /// After `[`: a value, or the end.
    FirstElement,
    /// A key begins.
    Key,
    /// After `{`: a key, or the end.
    FirstKey,
    InKey,
    KeyEscape,
    Colon,
    InText,
    Escape,
    InWord,
    /// After a value: a comma or the container's end.
    After,
    /// After the whole text.
    End,
    Broken,
}

#[derive(Clone, Copy)]
struct JsonFrame {
    /// Length of the path of what the container is.
    base: usize,
    object: bool,
    /// What is in it is not noted.
    silent: bool,
}

/// A JSON text as it passes, with the pointer of each value.
///
/// Rejects what is badly nested; what stands between values is not looked at closely.
#[derive(Default)]
struct JsonWalk {
    state: JsonState,
    frames: Vec<JsonFrame>,
    /// Brackets open within the deepest frame that is kept; nothing in there is noted.
    over: u32,
    path: Vec<u8>,
    key: Vec<u8>,
    /// The key is too long, or has an escape (rare in names, and not worth decoding).
    key_odd: bool,
    scan: KindScan,
    /// The value under way is not noted.
    silent: bool,
}

impl JsonWalk {
    /// Takes a byte; `note` gets the pointer and the kind of each value, `None` for one without a usable name.
    fn push(&mut self, byte: u8, note: &mut impl FnMut(Option<&[u8]>, ValueKinds)) {
        let space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.state = match (self.state, byte) {
            (JsonState::InKey, b'"') => JsonState::Colon,
            (JsonState::InKey, b'\\') => {
                self.key_odd = true;
                JsonState::KeyEscape
            }
            (JsonState::InKey, _) => {
                match self.key.len() < NAME_BYTES_MAX {
                    true => self.key.push(byte),
                    false => self.key_odd = true,
                }
                JsonState::InKey
            }
            (JsonState::KeyEscape, _) => JsonState::InKey,
            (JsonState::InText, b'"') => {
                let kinds = self.scan.finish_text();
                self.end_value(kinds, note)
            }
            (JsonState::InText, b'\\') => {
                self.scan.push(byte);
                JsonState::Escape
            }
            (JsonState::InText, _) => {
                self.scan.push(byte);
                JsonState::InText
            }
            (JsonState::Escape, _) => JsonState::InText,
            (JsonState::InWord, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n') => {
                let kinds = self.word();
                self.state = self.end_value(kinds, note);
                return self.push(byte, note);
            }
            (JsonState::InWord, _) => {
                self.scan.push(byte);
                JsonState::InWord
            }
            (state, _) if space => state,
            (JsonState::FirstElement, b']')
            | (JsonState::FirstKey, b'}')
            | (JsonState::After, b'}' | b']') => self.close(byte == b'}'),
            (JsonState::Value | JsonState::FirstElement, b'{' | b'[') => self.open(byte == b'{', note),
            (JsonState::Value | JsonState::FirstElement, b'"') => {
                self.begin(note);
                JsonState::InText
            }
            (JsonState::Value | JsonState::FirstElement, b'-' | b'0'..=b'9' | b'a'..=b'z') => {
                self.begin(note);
                self.scan.push(byte);
                JsonState::InWord
            }
            (JsonState::Key | JsonState::FirstKey, b'"') => {
                self.key.clear();
                self.key_odd = false;
                JsonState::InKey
            }
            (JsonState::Colon, b':') => JsonState::Value,
            // Within what lies too deep only strings and brackets matter.
            (JsonState::After, b'{' | b'[') if self.over > 0 => self.open(byte == b'{', note),
            (JsonState::After, b'"') if self.over > 0 => {
                self.begin(note);
                JsonState::InText
            }
            (JsonState::After, _) if self.over > 0 => JsonState::After,
            (JsonState::After, b',') => match self.frames.last() {
                Some(frame) if frame.object => JsonState::Key,
                _ => JsonState::Value,
            },
            _ => JsonState::Broken,
        };
    }

    /// Sets the path of the value that begins.
    fn begin(&mut self, note: &mut impl FnMut(Option<&[u8]>, ValueKinds)) {
        self.scan = KindScan::default();
        self.silent = self.over > 0;
        let Some(frame) = self.frames.last().copied().filter(|_| self.over == 0) else { return };
        self.silent = frame.silent;
        self.path.truncate(frame.base);
        if frame.silent {
            return;
        }
        let mut usable = true;
        if frame.object {
            self.path.push(b'/');
            let mut name = Vec::with_capacity(NAME_BYTES_MAX);
            usable = !self.key_odd && push_name(&self.key, &mut name) != Named::No;
            for byte in &name {
                // RFC 6901 §3, and an asterisk that is one.
                match byte {
                    b'~' => self.path.extend_from_slice(b"~0"),
                    b'/' => self.path.extend_from_slice(b"~1"),
                    b'*' => self.path.extend_from_slice(b"~2"),
                    byte => self.path.push(*byte),
                }
            }
        } else {
            self.path.extend_from_slice(b"/*");
        }
        if !usable || self.path.len() > POINTER_BYTES_MAX {
            self.path.truncate(frame.base);
            self.silent = true;
            note(None, ValueKinds::default());
        }
    }

    fn end_value(
        &mut self,
        kinds: ValueKinds,
        note: &mut impl FnMut(Option<&[u8]>, ValueKinds),
    ) -> JsonState {
        if !self.silent {
            note(Some(&self.path), kinds);
        }
        if self.frames.is_empty() { JsonState::End } else { JsonState::After }
    }

    fn word(&self) -> ValueKinds {
        match self.scan.finish() {
            kinds @ (ValueKinds::INTEGER | ValueKinds::NUMBER | ValueKinds::BOOLEAN) => kinds,
            _ if self.scan.len == 4 && self.scan.last == b'l' => ValueKinds::NULL,
            _ => ValueKinds::NUMBER,
        }
    }

    fn open(&mut self, object: bool, note: &mut impl FnMut(Option<&[u8]>, ValueKinds)) -> JsonState {
        self.begin(note);
        if !self.silent {
            note(Some(&self.path), if object { ValueKinds::OBJECT } else { ValueKinds::ARRAY });
        }
        if self.over > 0 || self.frames.len() == JSON_DEPTH_MAX {
            self.over = self.over.saturating_add(1);
            return JsonState::After;
        }
        self.frames.push(JsonFrame { base: self.path.len(), object, silent: self.silent });
        if object { JsonState::FirstKey } else { JsonState::FirstElement }
    }

    fn close(&mut self, object: bool) -> JsonState {
        if self.over > 0 {
            self.over -= 1;
            return JsonState::After;
        }
        match self.frames.pop() {
            Some(frame) if frame.object == object => {}
            _ => return JsonState::Broken,
        }
        if self.frames.is_empty() { JsonState::End } else { JsonState::After }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use offpath_types::{FlowInfo, FlowKey, HttpVersion, IdentityKey, Peer, Timestamp, TunnelId};

    use super::*;
    use crate::facts::{Facts, FactsConfig};

    fn transaction() -> Transaction {
        let (key, client_side) =
            FlowKey::new(Peer::default(), Peer { port: 80, ..Peer::default() }, TunnelId(0));
        let flow = FlowInfo {
            key,
            client_side,
            opened: Timestamp::ZERO,
            midstream: false,
            envelope: Default::default(),
        };
        Transaction::new(flow, 1, 0, Timestamp::ZERO)
    }

    fn facts(names_max: usize) -> Facts {
        let config = FactsConfig { outline_names_max: names_max, ..FactsConfig::default() };
        Facts::new(config, IdentityKey::new([1; 32]))
    }

    fn outline(target: &str, headers: &[(&str, &str)], body: &[u8], names_max: usize) -> Outline {
        let headers: Vec<Header<'_>> =
            headers.iter().map(|(n, v)| Header { name: n.as_bytes(), value: v.as_bytes() }).collect();
        let head = RequestHead {
            method: b"POST",
            target: target.as_bytes(),
            version: HttpVersion::V11,
            headers: &headers,
            says_empty: false,
        };
        let (mut facts, mut tx) = (facts(names_max), transaction());
        if let Some(mut tap) = facts.request_head(&head, &mut tx) {
            facts.body(&mut tap, body);
            facts.request_body_end(tap, &mut tx);
        }
        *tx.outline.unwrap()
    }

    fn text(o: &Outline) -> String {
        let mut out = String::new();
        let name = |span| String::from_utf8(o.text.get(span).to_vec()).unwrap();
        for (kind, span) in &o.credentials {
            write!(out, "{kind:?}({}) ", name(*span)).unwrap();
        }
        for p in &o.parameters {
            let kinds = format!("{:?}", p.kinds).replace('"', "");
            write!(out, "{:?} {}{kinds}x{} ", p.place, name(p.name), p.count).unwrap();
        }
        write!(out, "{:?} {}", o.body, o.names_left_out).unwrap();
        out
    }

    #[test]
    fn heads() {
        for (target, headers, want) in [
            ("/", &[][..], "Unread 0"),
            (
                "/s?q=shoes&page=2&max=9.5&new=true&q=x",
                &[],
                "Query q{string, repeated}x2 Query page{integer}x1 Query max{number}x1 Query new{boolean}x1 Unread 0",
            ),
            (
                "/s?id=3f2504e0-4f89-41d3-9a0c-0305e82c3301&from=2024-05-31&at=2024-05-31T10%3A00Z&e=&zip=01234",
                &[],
                "Query id{uuid}x1 Query from{date}x1 Query at{date-time}x1 Query e{empty}x1 Query zip{string}x1 Unread 0",
            ),
            ("/s?mail=ann%40example.com&wsdl", &[], "Query mail{email}x1 Query wsdl{empty}x1 Unread 0"),
            // What may be a value is no name.
            ("/s?s3cr3tpassw0rd", &[], "Unread 1"),
            ("/s?dQw4w9WgXcQ8dk3Lm2=1&ann%40example.com=1&4929=1", &[], "Unread 3"),
            ("/s?a%20b=1&%00=1&%ff=1&=1&{x}=1", &[], "Unread 5"),
            (
                "/s?item[17][sku]=a1&f.3f2504e0-4f89-41d3-9a0c-0305e82c3301.x=1",
                &[],
                "Query item[{id}][sku]{string}x1 Query f.{uuid}.x{integer}x1 Unread 0",
            ),
            ("/s?api_key=secret&a=1", &[], "Query(api_key) Query a{integer}x1 Unread 0"),
            ("/", &[("Authorization", "Basic YTpi")], "Basic() Unread 0"),
            (
                "/",
                &[("authorization", "bearer abc"), ("X-API-Key", "k")],
                "Bearer() Header(x-api-key) Unread 0",
            ),
            ("/", &[("Authorization", "sometoken")], "Header(authorization) Unread 0"),
            ("/", &[("Cookie", "theme=dark; JSESSIONID=abc; lang=de")], "Cookie(JSESSIONID) Unread 0"),
            (
                "/",
                &[
                    ("Host", "a"),
                    ("Accept", "*/*"),
                    ("DNT", "1"),
                    ("X-Forwarded-For", "192.0.2.1"),
                    ("X-Request-Id", "7"),
                    ("X-Tenant", "17"),
                    ("Idempotency-Key", "3f2504e0-4f89-41d3-9a0c-0305e82c3301"),
                    ("Api-Version", "2024-05-31"),
                    ("X Odd", "1"),
                ],
                "Header x-tenant{integer}x1 Header idempotency-key{uuid}x1 Header api-version{date}x1 Unread 1",
            ),
        ] {
            assert_eq!(text(&outline(target, headers, b"", 50)), want, "{target} {headers:?}");
        }
    }

    #[test]
    fn bodies() {
        const JSON: &str = "application/json";
        const FORM: &str = "application/x-www-form-urlencoded";
        for (kind, body, want) in [
            (JSON, "", "Unread 0"),
            (
                JSON,
                r#"{"user":"ann","n":1,"ok":true,"none":null,"price":-1.5e3}"#,
                "Json {object}x1 Json /user{string}x1 Json /n{integer}x1 Json /ok{boolean}x1 Json /none{null}x1 \
                 Json /price{number}x1 Whole 0",
            ),
            (
                JSON,
                r#" { "items" : [ { "sku" : "a" , "n" : 1 } , { "sku" : "b" } ] , "zip" : "01234" } "#,
                "Json {object}x1 Json /items{array}x1 Json /items/*{object}x2 Json /items/*/sku{string}x2 \
                 Json /items/*/n{integer}x1 Json /zip{string}x1 Whole 0",
            ),
            (
                JSON,
                r#"{"17":{"a":1},"18":{"a":"x"},"a/b":1,"~":2,"*":3,"ann@example.com":{"x":1},"e\u0041":1}"#,
                "Json {object}x1 Json /{id}{object}x2 Json /{id}/a{integer, string}x2 Json /a~1b{integer}x1 \
                 Json /~2{integer}x1 Partial 3",
            ),
            (JSON, "[1,2.5,\"x\",[]]", "Json {array}x1 Json /*{integer, number, string, array}x4 Whole 0"),
            (JSON, "17", "Json {integer}x1 Whole 0"),
            (JSON, r#"{"a":"x","b":"cut"#, "Json {object}x1 Json /a{string}x1 Partial 0"),
            (JSON, r#"{"a":[1}"#, "Json {object}x1 Json /a{array}x1 Json /a/*{integer}x1 Partial 0"),
            (
                FORM,
                "user=ann&pass=s3cr3t&pass=x&items%5B0%5D=17",
                "Form user{string}x1 Form pass{string, repeated}x2 Form items[{id}]{integer}x1 Whole 0",
            ),
            (
                "multipart/form-data; boundary=B",
                "--B\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n17\r\n--B\r\nContent-Disposition: form-data; \
                 name=\"f\"; filename=\"secret.txt\"\r\nContent-Type: text/plain\r\n\r\nx\r\n--B--\r\n",
                "Form n{integer}x1 Form f{file}x1 Whole 0",
            ),
        ] {
            assert_eq!(text(&outline("/", &[("Content-Type", kind)], body.as_bytes(), 50)), want, "{body}");
        }
    }

    #[test]
    fn what_is_over_a_limit_is_left_out_and_said_to_be() {
        let o = outline("/?a=1&b=2&c=3&a=4", &[], b"", 2);
        assert_eq!(text(&o), "Query a{integer, repeated}x2 Query b{integer}x1 Unread 1");
        let json = [("Content-Type", "application/json")];
        let deep = "{\"a\":".repeat(20) + "{\"b\":[1,\"]\",{}]}" + &"}".repeat(20);
        let o = outline("/", &json, deep.as_bytes(), 100);
        assert_eq!((o.parameters.len(), o.body), (JSON_DEPTH_MAX + 1, BodyOutline::Whole), "{}", text(&o));
        let long = format!("{{\"{}\":{{\"x\":1}},\"y\":1}}", "k".repeat(NAME_BYTES_MAX + 1));
        assert_eq!(
            text(&outline("/", &json, long.as_bytes(), 100)),
            "Json {object}x1 Json /y{integer}x1 Partial 1"
        );
    }

    #[test]
    fn no_value_is_in_an_outline_and_none_is_made_unasked() {
        let body = br#"{"password":"hunter2hunter","nested":{"token":"S3cr3tS3cr3t"}}"#;
        let headers = [
            ("Content-Type", "application/json"),
            ("Cookie", "sid=S3cr3tC00kie"),
            ("X-Api-Key", "S3cr3tKey"),
            ("X-Custom", "S3cr3tHeader"),
            ("Authorization", "Bearer S3cr3tBearer"),
        ];
        let o = outline("/?password=S3cr3tQuery&S3cr3tBare", &headers, body, 100);
        let all = format!("{:?}", String::from_utf8_lossy(o.text.get(o.parameters[0].name)));
        let whole = format!("{all} {}", text(&o));
        for value in ["S3cr3t", "hunter2"] {
            assert!(!whole.contains(value), "{whole}");
        }
        assert!(whole.contains("password") && whole.contains("/nested/token"), "{whole}");
        let mut tx = transaction();
        let head = RequestHead {
            method: b"GET",
            target: b"/?a=1",
            version: HttpVersion::V11,
            headers: &[],
            says_empty: false,
        };
        facts(0).request_head(&head, &mut tx);
        assert_eq!(tx.outline, None);
    }

    #[test]
    fn every_prefix_of_a_json_body_is_taken() {
        let body = br#"{"a":[{"b":"x\"y","c":-1.5},null],"d":{"e":{"f":false}},"g":""}"#;
        let json = [("Content-Type", "application/json")];
        let whole = outline("/", &json, body, 100);
        assert_eq!(whole.body, BodyOutline::Whole);
        for end in 1..body.len() {
            let o = outline("/", &json, &body[..end], 100);
            assert_eq!(o.body, BodyOutline::Partial, "{end}");
            let names =
                |o: &Outline| o.parameters.iter().map(|p| o.text.get(p.name).to_vec()).collect::<Vec<_>>();
            assert!(names(&whole).starts_with(&names(&o)), "{end}: {}", text(&o));
        }
    }

    #[test]
    fn a_body_full_of_names_costs_its_length() {
        let json = [("Content-Type", "application/json")];
        let many: String = (0..9000).map(|n| format!("\"k{n:x}\":1,")).collect();
        for body in
            [format!("{{{many}\"z\":1}}"), "[".repeat(60_000), "{\"a\":[".repeat(9_000), "\\".repeat(60_000)]
        {
            let o = outline("/", &json, body.as_bytes(), 256);
            assert!(o.parameters.len() <= 256);
        }
    }
}
