//! Finds keys and scalars in JSON that passes by, without building anything.
//!
//! ```text
//! pieces of any size ─▶ Scanner ─▶ Visit::key (is it one of ours?) ─▶ Visit::value
//! ```
//! Own work rather than a parser, for three reasons: a library unescapes strings into buffers of its own
//! that cannot be wiped, and these strings are passwords; a body that is cut off or slightly wrong must yield
//! what came before; and depth costs nothing here, because nothing recurses. Linear in the bytes.
//!
//! Keeps the unfinished token only, and of that at most [`KEY_BYTES_MAX`] or what the visitor wants; a token that lies
//! in one piece is not copied. How the text is cut changes nothing.

use zeroize::Zeroize;

use super::secret::SecretBuf;

/// Deepest container whose fields are reported; deeper ones are passed over.
pub(super) const DEPTH_MAX: usize = 128;
/// Longest key that is looked at, as written; a longer one is none of ours.
const KEY_BYTES_MAX: usize = 512;
/// Longest number or bare word that is looked at; of a longer one the beginning is.
const WORD_BYTES_MAX: usize = 1024;

/// A value, as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Between its quotes, still escaped; cut at what [`Visit::bytes_max`] says.
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

/// Where a key or element stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct At {
    /// Containers around it.
    pub(super) depth: usize,
    /// The innermost of them: its number in the text, from 1.
    pub(super) container: u32,
    /// What [`Visit::inside`] said of it.
    pub(super) live: u64,
    /// Commas before it there.
    pub(super) index: u32,
    /// It is an array.
    pub(super) array: bool,
}

/// Who looks for fields.
pub(super) trait Visit {
    /// What is remembered of a key until its value has come.
    type Key: Copy;

    /// Takes a key, still escaped; returns what is to come back with its value, `None` where that does not matter.
    fn key(&mut self, raw: &[u8], at: &At) -> Option<Self::Key>;

    /// The same for an element of an array.
    fn element(&mut self, _at: &At) -> Option<Self::Key> {
        None
    }

    /// Takes the value of a key.
    fn value(&mut self, key: Self::Key, value: Value<'_>, at: &At);

    /// How much of a text matters, as written. The same for equal keys.
    fn bytes_max(&self, key: Self::Key) -> usize;

    /// Takes the beginning of a container, the value of `key`, `depth` containers deep with itself; returns
    /// [`At::live`] of what is inside.
    fn inside(&mut self, _key: Option<Self::Key>, _depth: usize, _array: bool) -> u64 {
        0
    }
}

/// One container that is open.
#[derive(Clone, Copy, Default)]
struct Level {
    number: u32,
    index: u32,
    live: u64,
    array: bool,
}

/// Where in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Outside of tokens.
    #[default]
    Between,
    /// In a string.
    Text(Role),
    /// In a number or bare word.
    Word,
}

/// What a string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Key,
    Value,
    /// Nobody wants it.
    Skip,
}

/// The state of one text.
// Invariant: `levels[d - 1]` is the container at depth d, for d up to `depth.min(DEPTH_MAX)`; `held` holds what there
// is of the token in progress, and nothing between tokens.
pub(super) struct Scanner<K> {
    state: State,
    /// The latest byte of a string began an escape.
    escaped: bool,
    depth: usize,
    levels: Vec<Level>,
    containers: u32,
    /// The key whose value comes next, where it matters.
    pending: Option<K>,
    /// What may be a key came: a colon may come next.
    colon_next: bool,
    /// A colon came: what comes next is a value.
    value_next: bool,
    /// The latest key, its container just opened: whether anything is in there comes next.
    opened: Option<(K, At)>,
    held: SecretBuf,
    odd: bool,
    any: bool,
    too_deep: bool,
}

impl<K> Default for Scanner<K> {
    fn default() -> Self {
        Self {
            state: State::Between,
            escaped: false,
            depth: 0,
            levels: Vec::new(),
            containers: 0,
            pending: None,
            colon_next: false,
            value_next: false,
            opened: None,
            held: SecretBuf::default(),
            odd: false,
            any: false,
            too_deep: false,
        }
    }
}

impl<K: Copy> Scanner<K> {
    /// Forgets the text before; allocations stay.
    pub(super) fn reset(&mut self) {
        self.held.clear();
        self.levels.clear();
        (self.state, self.escaped, self.depth, self.containers) = (State::Between, false, 0, 0);
        (self.pending, self.colon_next, self.value_next, self.opened) = (None, false, false, None);
        (self.odd, self.any, self.too_deep) = (false, false, false);
    }

    /// Tells whether containers lay too deep to be looked into.
    pub(super) fn too_deep(&self) -> bool {
        self.too_deep
    }

    /// Ends the text; returns whether it was one or more whole JSON texts.
    ///
    /// What is unfinished is left out.
    pub(super) fn finish(&mut self) -> bool {
        let whole = match self.state {
            State::Between => true,
            State::Text(_) => false,
            // A word that the text ends in may go on, unless it is the text.
            State::Word => {
                self.any = true;
                self.depth == 0 && word_is_sound(self.held.bytes())
            }
        };
        self.held.clear();
        whole && !self.odd && self.any && self.depth == 0
    }

    /// Takes the next piece.
    pub(super) fn feed<V: Visit<Key = K>>(&mut self, bytes: &[u8], visit: &mut V) {
        let mut at = 0;
        loop {
            at = match self.state {
                State::Between => match self.between(bytes, at, visit) {
                    Some(next) => next,
                    None => return,
                },
                State::Text(role) => match self.text(bytes, at, role, visit) {
                    Some(next) => next,
                    None => return,
                },
                State::Word => match self.word(bytes, at, visit) {
                    Some(next) => next,
                    None => return,
                },
            };
        }
    }

    fn here(&self) -> At {
        place(self.depth, &self.levels)
    }

    /// Tells whether what is here is reported.
    fn reported(&self) -> bool {
        self.depth <= DEPTH_MAX
    }

    /// Takes punctuation until a token begins; returns where its inside begins, `None` at the end of the piece.
    fn between<V: Visit<Key = K>>(&mut self, bytes: &[u8], from: usize, visit: &mut V) -> Option<usize> {
        let mut at = from;
        while let Some(&c) = bytes.get(at) {
            at += 1;
            if matches!(c, b' ' | b'\t' | b'\r' | b'\n') {
                continue;
            }
            if let Some((key, place)) = self.opened.take() {
                visit.value(key, Value::Container { empty: matches!(c, b'}' | b']') }, &place);
            }
            let after_key = std::mem::take(&mut self.colon_next);
            match c {
                b'"' => {
                    self.any = true;
                    let in_object = self.levels.last().is_some_and(|l| !l.array);
                    let role = if !self.reported() {
                        Role::Skip
                    } else if self.value_next || !in_object {
                        self.begin_value(visit);
                        if self.pending.is_some() { Role::Value } else { Role::Skip }
                    } else {
                        Role::Key
                    };
                    self.state = State::Text(role);
                    return Some(at);
                }
                b'{' | b'[' => self.open(c == b'[', visit),
                b'}' | b']' => {
                    self.odd |= self.depth == 0;
                    if self.reported() {
                        self.levels.pop();
                    }
                    self.depth = self.depth.saturating_sub(1);
                    (self.pending, self.value_next) = (None, false);
                }
                b',' => {
                    if self.reported()
                        && let Some(level) = self.levels.last_mut()
                    {
                        level.index = level.index.saturating_add(1);
                    }
                    (self.pending, self.value_next) = (None, false);
                }
                b':' => {
                    self.odd |= !after_key;
                    self.value_next = true;
                }
                _ if c.is_ascii_alphanumeric() || matches!(c, b'-' | b'+' | b'.') => {
                    self.begin_value(visit);
                    self.state = State::Word;
                    return Some(at - 1);
                }
                _ => self.odd = true,
            }
        }
        None
    }

    /// Notes that a value begins: an element of an array may matter without a key.
    fn begin_value<V: Visit<Key = K>>(&mut self, visit: &mut V) {
        if !self.value_next {
            self.pending = None;
            if let Some(level) = self.levels.last()
                && level.array
                && level.live != 0
                && self.reported()
            {
                self.pending = visit.element(&self.here());
            }
        }
        self.value_next = false;
    }

    fn open<V: Visit<Key = K>>(&mut self, array: bool, visit: &mut V) {
        self.any = true;
        self.begin_value(visit);
        let key = self.pending.take();
        if self.reported() {
            self.opened = key.map(|key| (key, self.here()));
        }
        self.depth += 1;
        if self.reported() {
            let live = visit.inside(key, self.depth, array);
            self.containers = self.containers.wrapping_add(1);
            self.levels.push(Level { number: self.containers, index: 0, live, array });
        } else {
            self.too_deep = true;
        }
    }

    /// In a string; returns where what follows it begins.
    fn text<V: Visit<Key = K>>(
        &mut self,
        bytes: &[u8],
        from: usize,
        role: Role,
        visit: &mut V,
    ) -> Option<usize> {
        let end = text_end(bytes, from, &mut self.escaped);
        let inside = &bytes[from..end.unwrap_or(bytes.len())];
        let max = match (role, self.pending) {
            (Role::Key, _) => KEY_BYTES_MAX + 1,
            (Role::Value, Some(key)) => visit.bytes_max(key),
            _ => 0,
        };
        let whole = if end.is_some() && self.held.len() == 0 {
            &inside[..inside.len().min(max)]
        } else {
            self.held.extend(&inside[..inside.len().min(max.saturating_sub(self.held.len()))]);
            end?;
            self.held.bytes()
        };
        let at = place(self.depth, &self.levels);
        match (role, self.pending.take()) {
            (Role::Key, _) if whole.len() <= KEY_BYTES_MAX => self.pending = visit.key(whole, &at),
            (Role::Value, Some(key)) => visit.value(key, Value::Text(whole), &at),
            _ => {}
        }
        if self.held.len() > 0 {
            self.held.clear();
        }
        self.state = State::Between;
        self.colon_next = role == Role::Key || self.depth > DEPTH_MAX;
        end.map(|end| end + 1)
    }

    /// In a number or bare word; returns where what follows it begins.
    fn word<V: Visit<Key = K>>(&mut self, bytes: &[u8], from: usize, visit: &mut V) -> Option<usize> {
        let run = bytes[from..].iter().position(|c| !c.is_ascii_alphanumeric() && !b"-+._".contains(c));
        let inside = &bytes[from..run.map_or(bytes.len(), |run| from + run)];
        let word = if run.is_some() && self.held.len() == 0 {
            &inside[..inside.len().min(WORD_BYTES_MAX)]
        } else {
            self.held.extend(&inside[..inside.len().min(WORD_BYTES_MAX - self.held.len())]);
            run?;
            self.held.bytes()
        };
        self.any = true;
        self.odd |= !word_is_sound(word);
        if let Some(key) = self.pending.take()
            && self.depth <= DEPTH_MAX
        {
            let value = match word {
                b"true" => Value::Bool(true),
                b"false" => Value::Bool(false),
                b"null" => Value::Null,
                _ => Value::Number(word),
            };
            let at = place(self.depth, &self.levels);
            visit.value(key, value, &at);
        }
        if self.held.len() > 0 {
            self.held.clear();
        }
        self.state = State::Between;
        run.map(|run| from + run)
    }
}

fn place(depth: usize, levels: &[Level]) -> At {
    levels.last().map_or_else(At::default, |level| At {
        depth,
        container: level.number,
        live: level.live,
        index: level.index,
        array: level.array,
    })
}

fn word_is_sound(word: &[u8]) -> bool {
    matches!(word, b"true" | b"false" | b"null")
        || word.first().is_some_and(|c| c.is_ascii_digit() || *c == b'-')
}

/// Returns where the string that goes on at `from` has its closing quote; `escaped` where the byte there is escaped.
fn text_end(bytes: &[u8], from: usize, escaped: &mut bool) -> Option<usize> {
    let mut at = from;
    if std::mem::take(escaped) {
        if at == bytes.len() {
            *escaped = true;
            return None;
        }
        at += 1;
    }
    loop {
        let place = at + memchr::memchr2(b'"', b'\\', &bytes[at..])?;
        if bytes[place] == b'"' {
            return Some(place);
        }
        at = place + 2;
        if at > bytes.len() {
            *escaped = true;
            return None;
        }
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

    /// Reports every key's value.
    struct All(String);

    impl Visit for All {
        type Key = [u8; 8];

        fn key(&mut self, raw: &[u8], _at: &At) -> Option<Self::Key> {
            let mut key = [b' '; 8];
            key[..raw.len().min(8)].copy_from_slice(&raw[..raw.len().min(8)]);
            Some(key)
        }

        fn element(&mut self, at: &At) -> Option<Self::Key> {
            Some([b'0' + (at.index % 10) as u8; 8])
        }

        fn value(&mut self, key: Self::Key, value: Value<'_>, at: &At) {
            let value = match value {
                Value::Text(t) => format!("'{}'", String::from_utf8_lossy(t)),
                Value::Number(n) => String::from_utf8_lossy(n).into_owned(),
                Value::Bool(b) => b.to_string(),
                Value::Null => "null".to_owned(),
                Value::Container { empty } => if empty { "empty" } else { "open" }.to_owned(),
            };
            let key = String::from_utf8_lossy(&key).trim_end().to_owned();
            self.0 += &format!("{}.{}{key}={value} ", at.depth, at.container);
        }

        fn bytes_max(&self, _key: Self::Key) -> usize {
            64
        }

        fn inside(&mut self, _key: Option<Self::Key>, _depth: usize, _array: bool) -> u64 {
            1
        }
    }

    fn run_cut(text: &[u8], piece: usize) -> (String, bool) {
        let mut all = All(String::new());
        let mut scanner = Scanner::default();
        text.chunks(piece).for_each(|p| scanner.feed(p, &mut all));
        let whole = scanner.finish();
        assert_eq!(scanner.held.len(), 0);
        (all.0, whole)
    }

    fn run(text: &str) -> (String, bool) {
        let whole = run_cut(text.as_bytes(), usize::MAX);
        for piece in [1, 2, 3, 7] {
            assert_eq!(run_cut(text.as_bytes(), piece), whole, "{text} in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn items() {
        for (text, want, whole) in [
            (r#"{"a":"x","b":1}"#, "1.1a='x' 1.1b=1 ", true),
            (
                r#" { "a" : { "b" : [ "c" , true ] , "d":null } } "#,
                "1.1a=open 2.2b=open 3.300000000='c' 3.311111111=true 2.2d=null ",
                true,
            ),
            (r#"[{},[]]"#, "1.100000000=empty 1.111111111=empty ", true),
            (r#"{"a":"x\"y\\"}"#, r#"1.1a='x\"y\\' "#, true),
            (r#""alone""#, "", true),
            ("12", "", true),
            (r#"{"a":1}{"b":[]}"#, "1.1a=1 1.2b=empty ", true),
            (r#"{"a":"x","b":"cut"#, "1.1a='x' ", false),
            (r#"{"a":"x","b":12"#, "1.1a='x' ", false),
            (r#"{"a":"x""#, "1.1a='x' ", false),
            (r#"{"a":["#, "", false),
            (r#"{"a":x}"#, "1.1a=x ", false),
            (r#"{"a":"x":"y","b":1}"#, "1.1a='x' 1.1b=1 ", false),
            (r#"{"a" "b":1}"#, "1.1b=1 ", true),
            ("]", "", false),
            ("", "", false),
            ("<html>", "", false),
        ] {
            assert_eq!(run(text), (want.to_owned(), whole), "{text}");
        }
        let long = format!("{{\"{}\":1,\"b\":\"{}\"}}", "k".repeat(600), "v".repeat(100));
        assert_eq!(run(&long), (format!("1.1b='{}' ", "v".repeat(64)), true));
    }

    #[test]
    fn depth_is_free() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let (got, whole) = run_cut(deep.as_bytes(), usize::MAX);
        assert!(whole);
        assert_eq!(got.matches('=').count(), DEPTH_MAX);
        let text = format!("{}\"password\":\"x\"{},\"b\":1}}", "{\"a\":".repeat(200) + "{", "}".repeat(200));
        let (got, whole) = run_cut(text.as_bytes(), 5);
        assert!(whole && !got.contains("password") && got.ends_with("1.1b=1 "), "{got}");
        run_cut("{\"a\"".repeat(50_000).as_bytes(), usize::MAX);
        run_cut(format!("\"{}", "\\\\".repeat(50_000)).as_bytes(), 3);
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
