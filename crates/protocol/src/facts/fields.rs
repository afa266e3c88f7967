//! User and password fields of a request body or query, as hashes.

use offpath_types::{IdentityHash, IdentityKey};
use smallvec::SmallVec;
use zeroize::Zeroize;

use super::charset::to_utf8;
use super::graphql::{self, Member};
use super::hash::StableHash;
use super::json::{self, At, Value, Visit};
use super::names::{FieldNames, Reduced};
use super::pointer::{Hit, Pointers};
use super::secret::{SecretBuf, form_decode};

/// How much of a field's value is hashed: two that agree so far count as equal.
pub(super) const VALUE_BYTES_MAX: usize = 1024;
/// How much of a value is looked at where it stands percent-encoded: three bytes make one.
pub(super) const ENCODED_BYTES_MAX: usize = 3 * VALUE_BYTES_MAX;
/// The same where it stands in JSON: six bytes (`\u0041`) make one.
const ESCAPED_BYTES_MAX: usize = 6 * VALUE_BYTES_MAX + 16;
/// Most user fields and most password fields of one body that are hashed; later ones are passed over, so that a body
/// full of them costs no more than any other.
const CANDIDATES_MAX: usize = 16;

/// The configuration's field names, ready for matching.
pub(super) struct Fields {
    pub(super) users: FieldNames,
    pub(super) passwords: FieldNames,
    pub(super) pointers: Pointers,
}

impl Fields {
    /// Takes over the two lists.
    pub(super) fn new(users: &[String], passwords: &[String]) -> Self {
        Self {
            users: FieldNames::new(users),
            passwords: FieldNames::new(passwords),
            pointers: Pointers::new(users, passwords),
        }
    }
}

/// One field that matched.
#[derive(Clone, Copy)]
struct Candidate {
    rank: u16,
    name: u64,
    container: u32,
    hash: IdentityHash,
}

/// Which of the two kinds of field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    User = 0,
    Password = 1,
}

/// A field whose value comes next.
#[derive(Clone, Copy)]
pub(super) struct Named {
    kind: Kind,
    rank: u16,
    /// Hash of its name: tells a repetition.
    name: u64,
}

/// The credentials found in one body so far.
///
/// The lowest place in the configured list wins, then the first in the text. A second field of the same
/// name in the same container with another value is reported as repeated.
#[derive(Default)]
pub(super) struct Found {
    best: [Option<Candidate>; 2],
    /// By kind, so that neither crowds out the other; each at most [`CANDIDATES_MAX`] long.
    seen: [SmallVec<[Candidate; 4]>; 2],
    repeated: bool,
    capped: bool,
    pub(super) graphql: graphql::Request,
}

impl Found {
    /// Forgets the body before.
    pub(super) fn reset(&mut self, graphql_expected: bool) {
        self.best = [None; 2];
        self.seen.iter_mut().for_each(SmallVec::clear);
        (self.repeated, self.capped) = (false, false);
        self.graphql.reset(graphql_expected);
    }

    pub(super) fn user(&self) -> Option<IdentityHash> {
        self.best[Kind::User as usize].map(|c| c.hash)
    }

    pub(super) fn password(&self) -> Option<IdentityHash> {
        self.best[Kind::Password as usize].map(|c| c.hash)
    }

    pub(super) fn repeated(&self) -> bool {
        self.repeated
    }

    /// Tells whether there were more fields than are looked at.
    pub(super) fn capped(&self) -> bool {
        self.capped
    }
}

/// Collects the credentials of one body, piece by piece.
pub(super) struct Collector<'k> {
    pub(super) key: &'k IdentityKey,
    pub(super) fields: &'k Fields,
    pub(super) scratch: &'k mut SecretBuf,
    /// A second one, for what changes its character set.
    pub(super) spare: &'k mut SecretBuf,
    pub(super) found: &'k mut Found,
}

impl Collector<'_> {
    /// Returns what the field of a form or part is, where it is one of ours; `encoded` as [`Reduced::new`] has it.
    pub(super) fn named(&mut self, name: &[u8], encoded: bool) -> Option<Named> {
        let reduced = Reduced::new(name, encoded);
        let (kind, rank) = self.kind_of(reduced.bytes())?;
        (!self.full(kind)).then(|| Named { kind, rank, name: hash_name(kind, reduced.bytes()) })
    }

    /// Tells whether no more of `kind` are taken, and notes that there was one.
    fn full(&mut self, kind: Kind) -> bool {
        let full = self.found.seen[kind as usize].len() >= CANDIDATES_MAX;
        self.found.capped |= full;
        full
    }

    fn kind_of(&self, reduced: &[u8]) -> Option<(Kind, u16)> {
        match self.fields.passwords.rank(reduced) {
            Some(rank) => Some((Kind::Password, rank)),
            None => self.fields.users.rank(reduced).map(|rank| (Kind::User, rank)),
        }
    }

    /// Takes a value that stands percent-encoded, of a parameter whose reduced name is `name`.
    pub(super) fn add_encoded(&mut self, kind: Kind, rank: u16, name: &[u8], value: &[u8]) {
        if !self.full(kind) {
            self.add_form(Named { kind, rank, name: hash_name(kind, name) }, value);
        }
    }

    /// Takes a value that stands percent-encoded.
    pub(super) fn add_form(&mut self, named: Named, value: &[u8]) {
        self.scratch.clear();
        form_decode(&value[..value.len().min(ENCODED_BYTES_MAX)], self.scratch);
        self.add_scratch(named, 0);
    }

    /// Takes a value that stands as it is.
    pub(super) fn add_plain(&mut self, named: Named, value: &[u8]) {
        self.scratch.clear();
        self.scratch.extend(&value[..value.len().min(VALUE_BYTES_MAX)]);
        self.add_scratch(named, 0);
    }

    /// Takes a value that stands with JSON's escapes.
    fn add_json(&mut self, named: Named, value: &[u8], container: u32) {
        if self.full(named.kind) {
            return;
        }
        self.scratch.clear();
        json::unescape(value, VALUE_BYTES_MAX, self.scratch);
        self.add_scratch(named, container);
    }

    fn add_scratch(&mut self, named: Named, container: u32) {
        let value = self.scratch.bytes();
        let value = &value[..value.len().min(VALUE_BYTES_MAX)];
        let text = to_utf8(value, value.len() == VALUE_BYTES_MAX, self.spare);
        let hash = match named.kind {
            Kind::User => hash_user(self.key, text),
            Kind::Password => (!text.is_empty()).then(|| self.key.hash(b"password", text)),
        };
        self.scratch.clear();
        if self.spare.len() > 0 {
            self.spare.clear();
        }
        let Some(hash) = hash else { return };
        let Named { kind, rank, name } = named;
        let new = Candidate { rank, name, container, hash };
        let same = |c: &Candidate| c.name == new.name && c.container == container;
        let seen = &mut self.found.seen[kind as usize];
        self.found.repeated |= seen.iter().any(|c| same(c) && c.hash != hash);
        seen.push(new);
        let best = &mut self.found.best[kind as usize];
        if best.is_none_or(|b| rank < b.rank) {
            *best = Some(new);
        }
    }

    /// Takes a GraphQL document that stands as it is.
    pub(super) fn document(&mut self, text: &[u8]) {
        let mut graphql = std::mem::take(&mut self.found.graphql);
        graphql.document(text, |name, value| {
            if let Some(named) = self.named(name, false) {
                self.add_json(named, value, 0);
            }
        });
        self.found.graphql = graphql;
    }

    /// Takes a GraphQL document that stands with JSON's escapes.
    fn escaped_document(&mut self, text: &[u8]) {
        if memchr::memchr(b'\\', text).is_none() {
            return self.document(text);
        }
        let mut plain = SecretBuf::default();
        json::unescape(text, graphql::DOCUMENT_BYTES_MAX, &mut plain);
        self.document(plain.bytes());
    }
}

fn hash_name(kind: Kind, name: &[u8]) -> u64 {
    let mut hash = StableHash::new(kind as u64);
    hash.write(name);
    hash.finish()
}

/// What a JSON key is to us.
#[derive(Clone, Copy)]
pub(super) struct JsonKey {
    named: Option<Named>,
    /// The pointers that lead through it.
    inside: u64,
    member: Option<Member>,
}

impl Collector<'_> {
    fn json_key(&mut self, key: &[u8], at: &At) -> Option<JsonKey> {
        let hit = match at.live {
            0 => Hit::default(),
            live => self.fields.pointers.follow(live, at.depth, key),
        };
        // The members of a request, and those of `extensions.persistedQuery` below them.
        let graphql = &self.found.graphql;
        let request =
            at.depth == 1 && !graphql.batch || at.depth == 2 && graphql.batch && graphql.requests == 1;
        let member = if request { Member::of(key) } else { None };
        let reduced = Reduced::new(key, false);
        let by_name = self.kind_of(reduced.bytes());
        let field = match (hit.leaf, by_name) {
            (Some(leaf), Some(name)) if name.0 == leaf.0 && name.1 < leaf.1 => Some(name),
            (Some(leaf), _) => Some(leaf),
            (None, name) => name,
        };
        let named = field.map(|(kind, rank)| Named { kind, rank, name: hash_name(kind, reduced.bytes()) });
        (named.is_some() || hit.inside != 0 || member.is_some()).then_some(JsonKey {
            named,
            inside: hit.inside,
            member,
        })
    }
}

impl Visit for Collector<'_> {
    type Key = JsonKey;

    fn key(&mut self, raw: &[u8], at: &At) -> Option<JsonKey> {
        if memchr::memchr(b'\\', raw).is_none() {
            return self.json_key(raw, at);
        }
        let mut plain = std::mem::take(self.scratch);
        plain.clear();
        json::unescape(raw, raw.len(), &mut plain);
        let key = self.json_key(plain.bytes(), at);
        plain.clear();
        *self.scratch = plain;
        key
    }

    fn element(&mut self, at: &At) -> Option<JsonKey> {
        let index = at.index.to_string();
        let hit = self.fields.pointers.follow(at.live, at.depth, index.as_bytes());
        let named = hit.leaf.map(|(kind, rank)| Named { kind, rank, name: u64::from(at.index) });
        (named.is_some() || hit.inside != 0).then_some(JsonKey { named, inside: hit.inside, member: None })
    }

    fn value(&mut self, key: JsonKey, value: Value<'_>, at: &At) {
        match (key.member, value) {
            (Some(Member::Document), Value::Text(text)) => self.escaped_document(text),
            (Some(Member::OperationName), Value::Text(text)) => self.found.graphql.operation_name(text),
            (
                Some(Member::Persisted),
                Value::Text(_) | Value::Number(_) | Value::Container { empty: false },
            ) => {
                self.found.graphql.persisted();
            }
            _ => {}
        }
        if let (Some(named), Value::Text(value) | Value::Number(value)) = (key.named, value) {
            self.add_json(named, value, at.container);
        }
    }

    fn bytes_max(&self, key: JsonKey) -> usize {
        match key.member {
            Some(Member::Document) => graphql::DOCUMENT_BYTES_MAX,
            _ => ESCAPED_BYTES_MAX,
        }
    }

    fn inside(&mut self, key: Option<JsonKey>, depth: usize, array: bool) -> u64 {
        let graphql = &mut self.found.graphql;
        match depth {
            1 => {
                graphql.batch = array;
                return self.fields.pointers.all();
            }
            2 if graphql.batch && !array => graphql.requests = graphql.requests.saturating_add(1),
            _ => {}
        }
        key.map_or(0, |key| key.inside)
    }
}

/// Returns the hash of a user name: white space around it gone, lower case (Unicode where it is UTF-8).
pub(super) fn hash_user(key: &IdentityKey, name: &[u8]) -> Option<IdentityHash> {
    let name = name.trim_ascii();
    let mut lower = SecretBuf::default();
    match std::str::from_utf8(name) {
        Ok(text) if !name.is_ascii() => {
            let mut utf8 = [0; 4];
            for c in text.trim().chars().flat_map(char::to_lowercase) {
                lower.extend(c.encode_utf8(&mut utf8).as_bytes());
            }
            utf8.zeroize();
        }
        _ => {
            lower.extend(name);
            lower.bytes_mut().make_ascii_lowercase();
        }
    }
    (lower.len() > 0).then(|| key.hash(b"user", lower.bytes()))
}

/// Returns a parameter of a header value like `form-data; name="x"`, without quotes.
pub(super) fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = value;
    loop {
        let semicolon = memchr::memchr(b';', rest)?;
        rest = rest[semicolon + 1..].trim_ascii_start();
        let equals = rest.iter().position(|c| matches!(c, b'=' | b';'))?;
        if rest[equals] == b';' {
            continue;
        }
        let matches = rest[..equals].trim_ascii().eq_ignore_ascii_case(name);
        let text = rest[equals + 1..].trim_ascii_start();
        let (found, after) = match text.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = memchr::memchr(b'"', quoted)?;
                (&quoted[..end], &quoted[end + 1..])
            }
            None => {
                let end = memchr::memchr(b';', text).unwrap_or(text.len());
                (text[..end].trim_ascii(), &text[end..])
            }
        };
        if matches {
            return Some(found);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::super::form::FormScanner;
    use super::super::multipart::MultipartScanner;
    use super::*;
    use crate::facts::FactsConfig;

    #[derive(Debug, PartialEq)]
    struct Got {
        user: Option<IdentityHash>,
        password: Option<IdentityHash>,
        repeated: bool,
        capped: bool,
    }

    /// How a text is read.
    #[derive(Clone, Copy)]
    enum As {
        Json,
        Form { whole: bool },
        Multipart,
    }

    fn run_cut(text: &[u8], how: As, pointers: [&[&str]; 2], piece: usize) -> (Got, bool) {
        let key = IdentityKey::new([7; 32]);
        let config = FactsConfig::default();
        let list = |pointers: &[&str], names: Vec<String>| {
            pointers.iter().map(|p| (*p).to_owned()).chain(names).collect::<Vec<_>>()
        };
        let fields =
            Fields::new(&list(pointers[0], config.user_fields), &list(pointers[1], config.password_fields));
        let (mut scratch, mut spare, mut found) = Default::default();
        let mut c = Collector {
            key: &key,
            fields: &fields,
            scratch: &mut scratch,
            spare: &mut spare,
            found: &mut found,
        };
        let pieces = text.chunks(piece);
        let sound = match how {
            As::Json => {
                let mut scanner = json::Scanner::default();
                pieces.for_each(|p| scanner.feed(p, &mut c));
                scanner.finish()
            }
            As::Form { whole } => {
                let mut scanner = FormScanner::default();
                pieces.for_each(|p| scanner.feed(p, &mut c));
                scanner.finish(whole, &mut c);
                true
            }
            As::Multipart => {
                let mut scanner = MultipartScanner::default();
                scanner.reset(b"B");
                pieces.for_each(|p| scanner.feed(p, &mut c));
                scanner.finish()
            }
        };
        assert_eq!((scratch.len(), spare.len()), (0, 0), "wiped");
        let got = Got {
            user: found.user(),
            password: found.password(),
            repeated: found.repeated(),
            capped: found.capped(),
        };
        (got, sound)
    }

    fn run_pointers(text: &[u8], how: As, pointers: [&[&str]; 2]) -> (Got, bool) {
        let whole = run_cut(text, how, pointers, usize::MAX);
        if text.len() < 10_000 {
            for piece in [1, 2, 3, 5, 50] {
                let cut = run_cut(text, how, pointers, piece);
                assert_eq!(cut, whole, "{} in pieces of {piece}", String::from_utf8_lossy(text));
            }
        }
        whole
    }

    fn run(text: &[u8], how: As) -> (Got, bool) {
        run_pointers(text, how, [&[], &[]])
    }

    fn want(user: Option<&str>, password: Option<&str>, repeated: bool) -> Got {
        let key = IdentityKey::new([7; 32]);
        Got {
            user: user.map(|u| key.hash(b"user", u.as_bytes())),
            password: password.map(|p| key.hash(b"password", p.as_bytes())),
            repeated,
            capped: false,
        }
    }

    #[test]
    fn json_fields() {
        for (text, user, password, repeated) in [
            (r#"{"username":"Ann ","password":"Pw1"}"#, Some("ann"), Some("Pw1"), false),
            (r#"{"user":{"email":"a@b.c"},"password":"p"}"#, Some("a@b.c"), Some("p"), false),
            (
                r#"{"variables":{"input":{"email":"A@b.c","password":"p"}},"query":"mutation{}"}"#,
                Some("a@b.c"),
                Some("p"),
                false,
            ),
            (r#"{"email":"x@y.z","username":"ann","password":"p"}"#, Some("ann"), Some("p"), false),
            (r#"{"phone":491234,"pwd":"p"}"#, Some("491234"), Some("p"), false),
            (r#"{"user\u006eame":"Ünal","p\u0061ssword":"a\"b\u00fc"}"#, Some("ünal"), Some("a\"bü"), false),
            (r#"{"password":"a","password":"b"}"#, None, Some("a"), true),
            (r#"{"password":"a","password":"a"}"#, None, Some("a"), false),
            (r#"[{"password":"a"},{"password":"b"}]"#, None, Some("a"), false),
            (r#"{"password":"a","email":"cut"#, None, Some("a"), false),
            (r#"{"password":"cut"#, None, None, false),
            (r#"{"password":null,"username":""}"#, None, None, false),
            (r#"{"new_password":"a"}"#, None, None, false),
            (r#"{"benutzername":"ann","kennwort":"p"}"#, Some("ann"), Some("p"), false),
            (r#"{"x":["password","y"]}"#, None, None, false),
        ] {
            assert_eq!(run(text.as_bytes(), As::Json).0, want(user, password, repeated), "{text}");
        }
        let other = run(b"{\"user\":\"J\xfcrgen\",\"password\":\"\x80\"}", As::Json).0;
        assert_eq!(other, want(Some("jürgen"), Some("€"), false));
        let long = format!(r#"{{"user":"{}","password":"{}"}}"#, "ü".repeat(600), "\\u0070".repeat(1100));
        assert_eq!(
            run(long.as_bytes(), As::Json).0,
            want(Some(&"ü".repeat(512)), Some(&"p".repeat(1024)), false)
        );
    }

    #[test]
    fn form_fields() {
        for (text, whole, user, password, repeated) in [
            ("username=ann&password=p+w%21", true, Some("ann"), Some("p w!"), false),
            ("log=ann&pwd=p&wp-submit=x\r\n", true, Some("ann"), Some("p"), false),
            ("grant_type=password&username=ANN&password=p", true, Some("ann"), Some("p"), false),
            ("user%5Bemail%5D=a%40b.c&user%5Bpassword%5D=p", true, Some("a@b.c"), Some("p"), false),
            ("password=a&password=b", true, None, Some("a"), true),
            ("username=ann&password=cut", false, Some("ann"), None, false),
            ("password=cut", false, None, None, false),
            ("password=&user=", true, None, None, false),
            ("&&&=&=x&password", true, None, None, false),
            ("user=J%FCrgen&password=%80&_charset_=iso-8859-1", true, Some("jürgen"), Some("€"), false),
            ("user=J%C3%BCrgen&password=%E2%82%AC", true, Some("jürgen"), Some("€"), false),
            ("user=J\u{fc}rgen&password=p", true, Some("jürgen"), Some("p"), false),
            ("name=Ann Lee&email=a@b.c&pass=p", true, Some("a@b.c"), Some("p"), false),
        ] {
            let got = run(text.as_bytes(), As::Form { whole }).0;
            assert_eq!(got, want(user, password, repeated), "{text}");
        }
    }

    #[test]
    fn pointers_name_fields_by_their_place() {
        let nested = r#"{"a":{"b~/c":[{"x":"no"},{"x":"ann"}],"pin":4711},"user":"other","password":"w"}"#;
        for (users, passwords, user, password) in [
            (&["/a/b~0~1c/1/x"][..], &["/a/pin"][..], Some("ann"), Some("4711")),
            (&["/a/b~0~1c/2/x"], &["/a/b~0~1c"], Some("other"), Some("w")),
            (&["/a/b~0~1c/01/x", "/user/x"], &["/password"], Some("other"), Some("w")),
            (&["/user"], &["/a"], Some("other"), Some("w")),
        ] {
            let got = run_pointers(nested.as_bytes(), As::Json, [users, passwords]).0;
            assert_eq!(got, want(user, password, false), "{users:?} {passwords:?}");
        }
        let list = br#"[["x","ann"],["y","bob"]]"#;
        assert_eq!(
            run_pointers(list, As::Json, [&["/0/1"], &["/1/1"]]).0,
            want(Some("ann"), Some("bob"), false)
        );
        let escaped = br#"{"\u0061":{"pin":"\u0034"}}"#;
        assert_eq!(run_pointers(escaped, As::Json, [&[], &["/a/pin"]]).0, want(None, Some("4"), false));
        let form = run_pointers(b"/a/pin=4&pin=5", As::Form { whole: true }, [&[], &["/a/pin"]]).0;
        assert_eq!(form, want(None, None, false), "pointers are for JSON");
    }

    #[test]
    fn no_number_of_fields_hides_a_password_unseen() {
        let names = r#"{"name":"x"},"#.repeat(20);
        let json = format!(r#"{{"items":[{names}{{}}],"password":"p"}}"#);
        let (got, sound) = run(json.as_bytes(), As::Json);
        assert_eq!((got, sound), (Got { capped: true, ..want(Some("x"), Some("p"), false) }, true));
        for (field, password, capped) in [
            ("&".repeat(100_000) + "password=p", Some("p"), false),
            ("a&".repeat(100_000) + "password=p", Some("p"), false),
            ("password=p&".repeat(CANDIDATES_MAX), Some("p"), false),
            ("password=p&".repeat(50_000), Some("p"), true),
        ] {
            let got = run(field.as_bytes(), As::Form { whole: true }).0;
            assert_eq!(got, Got { capped, ..want(None, password, false) }, "{} bytes", field.len());
        }
    }

    #[test]
    fn multipart_fields() {
        let body = "--B\r\nContent-Disposition: form-data; name=\"username\"\r\n\r\nann\r\n--B\r\ncontent-disposition: form-data; name=file; filename=\"password\"\r\n\r\npass\r\n\r\n--\rword\r\n--B\r\nContent-Disposition: form-data; name=password\r\nContent-Type: text/plain\r\n\r\n\r\np\r\r\n--w\r\n--B--\r\n";
        let expected = want(Some("ann"), Some("\r\np\r\r\n--w"), false);
        assert_eq!(run(body.as_bytes(), As::Multipart), (expected, true));
        for end in 0..body.len() {
            let (got, whole) = run(&body.as_bytes()[..end], As::Multipart);
            assert_eq!(whole, end + 2 >= body.len(), "{end}");
            assert!(got.password.is_none() || end + 4 >= body.len(), "{end}");
        }
        for text in [
            "\r\n--B".repeat(50_000),
            "\r".repeat(50_000),
            "\r\n--".repeat(50_000),
            "--B\r\n".to_owned() + &"x".repeat(50_000),
        ] {
            assert!(!run(text.as_bytes(), As::Multipart).1);
        }
        let preamble = b"to whom it may concern\r\n--B \r\nContent-Disposition: form-data; name=pwd\r\n\r\np\r\n--B\r\n\r\nx\r\n--B--";
        assert_eq!(run(preamble, As::Multipart), (want(None, Some("p"), false), true));
    }

    #[test]
    fn parameters() {
        for (value, name, want) in [
            ("multipart/form-data; boundary=abc", "boundary", Some("abc")),
            ("multipart/form-data; charset=x; Boundary=\"a b;c\"; y=z", "boundary", Some("a b;c")),
            ("form-data; filename=\"name=x\"; name=y", "name", Some("y")),
            ("form-data", "name", None),
            ("form-data; name", "name", None),
            ("form-data; name=\"x", "name", None),
            (";;;=;", "name", None),
        ] {
            assert_eq!(parameter(value.as_bytes(), name.as_bytes()), want.map(str::as_bytes), "{value}");
        }
    }
}
