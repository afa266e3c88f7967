//! User and password fields of a request body or query, as hashes.

use offpath_types::{IdentityHash, IdentityKey};
use smallvec::SmallVec;
use zeroize::Zeroize;

use super::hash::StableHash;
use super::json::{self, Value};
use super::names::{FieldNames, Reduced};
use super::secret::{SecretBuf, form_decode};

/// How much of a field's value is hashed: two that agree so far count as equal.
const VALUE_BYTES_MAX: usize = 1024;
/// Most user fields and most password fields of one body that are hashed; later ones are passed over, so that a body
/// full of them costs no more than any other.
const CANDIDATES_MAX: usize = 16;
/// Most form fields and multipart parts of one body that are looked at.
const PAIRS_MAX: usize = 4096;

/// One field that matched.
#[derive(Clone, Copy)]
struct Candidate {
    rank: u16,
    name: u64,
    container: u32,
    hash: IdentityHash,
}

/// Which of the two kinds of field.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    User = 0,
    Password = 1,
}

/// Collects the credentials of one body.
///
/// The lowest place in the configured list wins, then the first in the text. A second field of the same
/// name in the same container with another value is reported as repeated.
pub(super) struct Collector<'k> {
    key: &'k IdentityKey,
    users: &'k FieldNames,
    passwords: &'k FieldNames,
    scratch: &'k mut SecretBuf,
    best: [Option<Candidate>; 2],
    /// By kind, so that neither crowds out the other; each at most [`CANDIDATES_MAX`] long.
    seen: [SmallVec<[Candidate; 4]>; 2],
    repeated: bool,
    capped: bool,
}

impl<'k> Collector<'k> {
    pub(super) fn new(
        key: &'k IdentityKey,
        users: &'k FieldNames,
        passwords: &'k FieldNames,
        scratch: &'k mut SecretBuf,
    ) -> Self {
        Self {
            key,
            users,
            passwords,
            scratch,
            best: [None; 2],
            seen: [SmallVec::new(), SmallVec::new()],
            repeated: false,
            capped: false,
        }
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

    /// Tells whether no more of `kind` are taken, and notes that there was one.
    fn full(&mut self, kind: Kind) -> bool {
        let full = self.seen[kind as usize].len() == CANDIDATES_MAX;
        self.capped |= full;
        full
    }

    fn kind_of(&self, reduced: &[u8]) -> Option<(Kind, u16)> {
        match self.passwords.rank(reduced) {
            Some(rank) => Some((Kind::Password, rank)),
            None => self.users.rank(reduced).map(|rank| (Kind::User, rank)),
        }
    }

    /// Takes a value that stands percent-encoded.
    pub(super) fn add_encoded(&mut self, kind: Kind, rank: u16, name: &[u8], value: &[u8]) {
        if self.full(kind) {
            return;
        }
        self.scratch.clear();
        // Three encoded bytes make one.
        form_decode(&value[..value.len().min(3 * VALUE_BYTES_MAX)], self.scratch);
        self.add_scratch(kind, rank, name, 0);
    }

    fn add_scratch(&mut self, kind: Kind, rank: u16, name: &[u8], container: u32) {
        let value = self.scratch.bytes();
        let value = &value[..value.len().min(VALUE_BYTES_MAX)];
        let hash = match kind {
            Kind::User => hash_user(self.key, value),
            Kind::Password => (!value.is_empty()).then(|| self.key.hash(b"password", value)),
        };
        self.scratch.clear();
        let Some(hash) = hash else { return };
        let mut name_hash = StableHash::new(kind as u64);
        name_hash.write(name);
        let new = Candidate { rank, name: name_hash.finish(), container, hash };
        let same = |c: &Candidate| c.name == new.name && c.container == container;
        let seen = &mut self.seen[kind as usize];
        self.repeated |= seen.iter().any(|c| same(c) && c.hash != hash);
        seen.push(new);
        let best = &mut self.best[kind as usize];
        if best.is_none_or(|b| rank < b.rank) {
            *best = Some(new);
        }
    }

    /// Reads a JSON text; returns whether it was whole.
    pub(super) fn json(&mut self, text: &[u8]) -> bool {
        json::walk(text, |item| {
            let (Value::Text(value) | Value::Number(value)) = item.value else { return };
            if item.key.is_empty() {
                return;
            }
            let reduced = if memchr::memchr(b'\\', item.key).is_some() {
                self.scratch.clear();
                json::unescape(item.key, 128, self.scratch);
                Reduced::new(self.scratch.bytes(), false)
            } else {
                Reduced::new(item.key, false)
            };
            let Some((kind, rank)) = self.kind_of(reduced.bytes()) else { return };
            if self.full(kind) {
                return;
            }
            self.scratch.clear();
            json::unescape(value, VALUE_BYTES_MAX, self.scratch);
            self.add_scratch(kind, rank, reduced.bytes(), item.container);
        })
    }

    /// Reads a form; where it is not `whole`, its last pair may be cut and is left out.
    pub(super) fn form(&mut self, text: &[u8], whole: bool) {
        let text = match (whole, memchr::memrchr(b'&', text)) {
            (true, _) => text.trim_ascii_end(),
            (false, Some(last)) => &text[..last],
            (false, None) => return,
        };
        for (at, pair) in text.split(|c| *c == b'&').filter(|pair| !pair.is_empty()).enumerate() {
            if at == PAIRS_MAX {
                self.capped = true;
                return;
            }
            let Some(equals) = memchr::memchr(b'=', pair) else { continue };
            let reduced = Reduced::new(&pair[..equals], true);
            if let Some((kind, rank)) = self.kind_of(reduced.bytes()) {
                self.add_encoded(kind, rank, reduced.bytes(), &pair[equals + 1..]);
            }
        }
    }

    /// Reads a multipart body (RFC 7578); returns whether its closing delimiter was there.
    ///
    /// Files are passed over; a part without its end is left out.
    pub(super) fn multipart(&mut self, text: &[u8], boundary: &[u8]) -> bool {
        let mut delimiter = Vec::with_capacity(boundary.len() + 4);
        delimiter.extend_from_slice(b"\r\n--");
        delimiter.extend_from_slice(boundary);
        let finder = memchr::memmem::Finder::new(&delimiter);
        let mut rest = if text.starts_with(&delimiter[2..]) {
            &text[delimiter.len() - 2..]
        } else {
            match finder.find(text) {
                Some(at) => &text[at + delimiter.len()..],
                None => return false,
            }
        };
        for _ in 0..PAIRS_MAX {
            if rest.starts_with(b"--") {
                return true;
            }
            let Some(end) = finder.find(rest) else { return false };
            self.part(&rest[..end]);
            rest = &rest[end + delimiter.len()..];
        }
        false
    }

    /// Reads one part: from behind its delimiter to before the next one.
    fn part(&mut self, part: &[u8]) {
        let Some(blank) = memchr::memmem::find(part, b"\r\n\r\n") else { return };
        let (head, value) = (&part[..blank], &part[blank + 4..]);
        for line in head.split(|c| *c == b'\n') {
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            if !line[..colon].trim_ascii().eq_ignore_ascii_case(b"content-disposition") {
                continue;
            }
            let parameters = &line[colon + 1..];
            if parameter(parameters, b"filename").is_some() || parameter(parameters, b"filename*").is_some() {
                return;
            }
            let Some(name) = parameter(parameters, b"name") else { return };
            let reduced = Reduced::new(name, false);
            if let Some((kind, rank)) = self.kind_of(reduced.bytes())
                && !self.full(kind)
            {
                self.scratch.clear();
                self.scratch.extend(&value[..value.len().min(VALUE_BYTES_MAX)]);
                self.add_scratch(kind, rank, reduced.bytes(), 0);
            }
            return;
        }
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
    use super::*;
    use crate::facts::FactsConfig;

    #[derive(Debug, PartialEq)]
    struct Got {
        user: Option<IdentityHash>,
        password: Option<IdentityHash>,
        repeated: bool,
        capped: bool,
    }

    fn run(f: impl FnOnce(&mut Collector<'_>)) -> Got {
        let config = FactsConfig::default();
        let key = IdentityKey::new([7; 32]);
        let (users, passwords) =
            (FieldNames::new(&config.user_fields), FieldNames::new(&config.password_fields));
        let mut scratch = SecretBuf::default();
        let mut c = Collector::new(&key, &users, &passwords, &mut scratch);
        f(&mut c);
        Got { user: c.user(), password: c.password(), repeated: c.repeated(), capped: c.capped() }
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
            assert_eq!(run(|c| _ = c.json(text.as_bytes())), want(user, password, repeated), "{text}");
        }
        let invalid = run(|c| _ = c.json(b"{\"user\":\"\xff\xfeA\",\"password\":\"\xc3\"}"));
        assert!(invalid.user.is_some() && invalid.password.is_some());
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
            ("name=Ann Lee&email=a@b.c&pass=p", true, Some("a@b.c"), Some("p"), false),
        ] {
            assert_eq!(run(|c| c.form(text.as_bytes(), whole)), want(user, password, repeated), "{text}");
        }
    }

    #[test]
    fn no_number_of_fields_hides_a_password_unseen() {
        let names = r#"{"name":"x"},"#.repeat(20);
        let json = format!(r#"{{"items":[{names}{{}}],"password":"p"}}"#);
        let got = run(|c| assert!(c.json(json.as_bytes())));
        assert_eq!(got, Got { capped: true, ..want(Some("x"), Some("p"), false) });
        let ands = "&".repeat(PAIRS_MAX) + "password=p";
        assert_eq!(run(|c| c.form(ands.as_bytes(), true)), want(None, Some("p"), false));
        for (field, password, capped) in [
            ("a&".repeat(PAIRS_MAX - 1) + "password=p", Some("p"), false),
            ("a&".repeat(PAIRS_MAX) + "password=p", None, true),
            ("password=p&".repeat(CANDIDATES_MAX), Some("p"), false),
            ("password=p&".repeat(50_000), Some("p"), true),
        ] {
            let got = run(|c| c.form(field.as_bytes(), true));
            assert_eq!(got, Got { capped, ..want(None, password, false) }, "{} bytes", field.len());
        }
    }

    #[test]
    fn multipart_fields() {
        let body = "--B\r\nContent-Disposition: form-data; name=\"username\"\r\n\r\nann\r\n--B\r\ncontent-disposition: form-data; name=file; filename=\"password\"\r\n\r\npassword\r\n--B\r\nContent-Disposition: form-data; name=password\r\nContent-Type: text/plain\r\n\r\np\r\nw\r\n--B--\r\n";
        assert_eq!(
            run(|c| assert!(c.multipart(body.as_bytes(), b"B"))),
            want(Some("ann"), Some("p\r\nw"), false)
        );
        for end in 0..body.len() {
            run(|c| _ = c.multipart(&body.as_bytes()[..end], b"B"));
        }
        assert_eq!(run(|c| assert!(!c.multipart(&body.as_bytes()[..60], b"B"))), want(None, None, false));
        run(|c| _ = c.multipart("\r\n--B".repeat(50_000).as_bytes(), b"B"));
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
