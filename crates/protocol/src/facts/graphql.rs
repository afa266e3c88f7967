//! Which GraphQL operation a request asks for: its type and name become part of the endpoint.
//!
//! ```text
//! {"operationName":"Login","query":"mutation Login($p:String!){…}","variables":{…}}  ─▶  mutation Login
//! ```
//! A lexer of its own rather than a parser: only operations at the outermost level are looked for, and string
//! arguments, because a document may carry a password. It takes any text, does not recurse, and looks at
//! [`DOCUMENT_BYTES_MAX`] bytes at most.
//!
//! Names are the client's to choose, so they are written only as far as the language allows (letters, digits, `_`), at
//! most [`NAME_BYTES_MAX`] long, and with the placeholders of path segments where they look made up.

use smallvec::SmallVec;

use super::endpoint;

/// Longest document that is looked at, as written.
pub(super) const DOCUMENT_BYTES_MAX: usize = 16 << 10;
/// Longest name of an operation; a longer one is `{…}`.
pub(super) const NAME_BYTES_MAX: usize = 64;
/// Most operations of one document of which `operationName` may choose.
const OPERATIONS_MAX: usize = 8;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Query,
    Mutation,
    Subscription,
}

impl Type {
    fn of(word: &[u8]) -> Option<Self> {
        match word {
            b"query" => Some(Self::Query),
            b"mutation" => Some(Self::Mutation),
            b"subscription" => Some(Self::Subscription),
            _ => None,
        }
    }

    const fn name(self) -> &'static [u8] {
        match self {
            Self::Query => b"query",
            Self::Mutation => b"mutation",
            Self::Subscription => b"subscription",
        }
    }
}

/// A name as sent, if it is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Name(SmallVec<[u8; 24]>);

impl Name {
    fn of(text: &[u8]) -> Self {
        Self(SmallVec::from_slice(&text[..text.len().min(NAME_BYTES_MAX + 1)]))
    }

    fn is_name(&self) -> bool {
        let first = self.0.first().is_some_and(|c| c.is_ascii_alphabetic() || *c == b'_');
        first && self.0.iter().all(|c| is_name_byte(*c))
    }

    /// Appends what the endpoint says of it.
    fn write(&self, out: &mut Vec<u8>) {
        if self.0.len() > NAME_BYTES_MAX {
            out.extend_from_slice(endpoint::REST);
        } else {
            endpoint::shape_segment(&self.0, out);
        }
    }
}

/// One operation of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Operation {
    kind: Type,
    /// Empty where it has none.
    name: Name,
}

/// What a request says of its operation.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// The path or the content type says that this is GraphQL.
    pub(super) expected: bool,
    /// It is a list of requests; the first counts.
    pub(super) batch: bool,
    /// Objects seen in that list.
    pub(super) requests: u32,
    chosen: Option<Name>,
    operations: SmallVec<[Operation; 1]>,
    persisted: bool,
    /// A document was there that could be nothing else.
    certain: bool,
}

/// A member of a request that says which operation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// `operationName`.
    OperationName,
    /// `query`: the document.
    Document,
    /// `extensions` or `extensions.persistedQuery`, on the way to the hash; or an id in its place.
    Persisted,
}

impl Member {
    /// Tells what a key of a request is.
    pub(super) fn of(key: &[u8]) -> Option<Self> {
        match key {
            b"query" => Some(Self::Document),
            b"operationName" => Some(Self::OperationName),
            b"extensions" | b"documentId" | b"doc_id" => Some(Self::Persisted),
            _ => None,
        }
    }
}

impl Request {
    /// Forgets the request before.
    pub(super) fn reset(&mut self, expected: bool) {
        *self = Self { expected, ..Self::default() };
    }

    /// Tells whether anything was found.
    pub(super) fn any(&self) -> bool {
        self.persisted || self.chosen.is_some() || !self.operations.is_empty()
    }

    /// Takes `operationName`, unescaped.
    pub(super) fn operation_name(&mut self, name: &[u8]) {
        let name = Name::of(name);
        if name.is_name() {
            self.chosen = self.chosen.take().or(Some(name));
        }
    }

    /// Notes that the request refers to a document that the server has.
    pub(super) fn persisted(&mut self) {
        self.persisted = true;
    }

    /// Takes a document, unescaped; `argument` gets each argument or input field that is a string, still escaped.
    pub(super) fn document(&mut self, text: &[u8], mut argument: impl FnMut(&[u8], &[u8])) {
        if !self.operations.is_empty() {
            return;
        }
        let mut lexer = Lexer { text, at: 0 };
        let mut depth = 0usize;
        let mut selection = false;
        // The latest name, and whether a colon came after it.
        let mut name: Option<(&[u8], bool)> = None;
        while let Some(token) = lexer.next() {
            let last = name.take();
            match token {
                Token::Name(word) => {
                    if depth == 0
                        && let Some(kind) = Type::of(word)
                        && !matches!(last, Some((b"fragment" | b"on", _)))
                        && self.operations.len() < OPERATIONS_MAX
                    {
                        let name = match lexer.peek() {
                            Some(Token::Name(name)) => {
                                lexer.next();
                                Name::of(name)
                            }
                            _ => Name::default(),
                        };
                        let shape = matches!(lexer.peek(), Some(Token::Open(_) | Token::Other(b'@')));
                        if !shape {
                            return;
                        }
                        self.certain |= lexer.text.contains(&b'{');
                        self.operations.push(Operation { kind, name });
                    }
                    name = Some((word, false));
                }
                Token::Other(b':') => name = last.map(|(word, _)| (word, true)),
                Token::Open(c) => {
                    if depth == 0 && c == b'{' && self.operations.is_empty() && !selection {
                        // A document may be only a selection: a query without a name.
                        self.operations.push(Operation { kind: Type::Query, name: Name::default() });
                    }
                    selection = true;
                    depth += 1;
                }
                Token::Close => depth = depth.saturating_sub(1),
                Token::Text(text) => {
                    if let Some((word, true)) = last {
                        argument(word, text);
                    }
                }
                Token::Other(_) => {}
            }
        }
    }

    /// Appends what the request asks for to `endpoint`; returns false, and appends nothing, where it is no GraphQL.
    pub(super) fn write(&self, get: bool, out: &mut Vec<u8>) -> bool {
        let chosen = self.chosen.as_ref();
        let known = match chosen {
            Some(chosen) => self.operations.iter().find(|o| o.name == *chosen).or(self.operations.first()),
            None => self.operations.first(),
        };
        if !(self.certain || self.expected && self.any()) {
            return false;
        }
        out.push(b' ');
        // By GET there are only queries.
        match known.map(|o| o.kind).or(get.then_some(Type::Query)) {
            Some(kind) => out.extend_from_slice(kind.name()),
            None => out.extend_from_slice(b"operation"),
        }
        match chosen.or(known.map(|o| &o.name)) {
            Some(name) if !name.0.is_empty() => {
                out.push(b' ');
                name.write(out);
            }
            _ if known.is_none() && self.persisted => out.extend_from_slice(b" {persisted}"),
            _ => {}
        }
        if self.batch {
            out.extend_from_slice(b" {batch}");
        }
        true
    }
}

/// Tells whether a path is one where GraphQL is usually served (`/graphql`, `/api/graphql/v1`, `/gql`).
pub(super) fn is_path(path: &[u8]) -> bool {
    // Nearly all paths end here: both names have a letter that is rare.
    if memchr::memchr2(b'q', b'Q', path).is_none() {
        return false;
    }
    path.rsplit(|c| *c == b'/').filter(|s| !s.is_empty()).take(3).any(|segment| {
        segment.len() <= 24
            && (segment.eq_ignore_ascii_case(b"gql")
                || segment.len() >= 7
                    && (segment[..7].eq_ignore_ascii_case(b"graphql")
                        || segment[segment.len() - 7..].eq_ignore_ascii_case(b"graphql")))
    })
}

fn is_name_byte(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_'
}

/// A token (GraphQL, October 2021, §2.1), as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Name(&'a [u8]),
    /// `{`, `(` or `[`.
    Open(u8),
    Close,
    /// Between its quotes, still escaped. One that the text ends in is none.
    Text(&'a [u8]),
    Other(u8),
}

struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        Lexer { ..*self }.next()
    }

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = &self.text[self.at..];
            let c = *rest.first()?;
            match c {
                b' ' | b'\t' | b'\r' | b'\n' | b',' => self.at += 1,
                b'#' => self.at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len()),
                b'{' | b'(' | b'[' => {
                    self.at += 1;
                    return Some(Token::Open(c));
                }
                b'}' | b')' | b']' => {
                    self.at += 1;
                    return Some(Token::Close);
                }
                b'"' => return self.string(rest),
                _ if is_name_byte(c) => {
                    let len = rest.iter().position(|c| !is_name_byte(*c)).unwrap_or(rest.len());
                    self.at += len;
                    return Some(Token::Name(&rest[..len]));
                }
                _ => {
                    self.at += 1;
                    return Some(Token::Other(c));
                }
            }
        }
    }

    fn string(&mut self, rest: &'a [u8]) -> Option<Token<'a>> {
        if let Some(block) = rest.strip_prefix(b"\"\"\"") {
            let end = memchr::memmem::find(block, b"\"\"\"")?;
            self.at += end + 6;
            return Some(Token::Text(&block[..end]));
        }
        let mut at = 1;
        loop {
            at += memchr::memchr2(b'"', b'\\', rest.get(at..)?)?;
            if rest[at] == b'"' {
                self.at += at + 1;
                return Some(Token::Text(&rest[1..at]));
            }
            at += 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: Option<&str>, document: &str, expected: bool) -> (String, Vec<String>) {
        let mut request = Request::default();
        request.reset(expected);
        let mut arguments = Vec::new();
        request.document(document.as_bytes(), |name, value| {
            arguments.push(format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
        });
        if let Some(name) = name {
            request.operation_name(name.as_bytes());
        }
        let mut out = Vec::new();
        assert_eq!(request.write(false, &mut out), !out.is_empty());
        (String::from_utf8(out).unwrap(), arguments)
    }

    #[test]
    fn operations() {
        for (name, document, expected, want) in [
            (None, "query Login { me }", false, " query Login"),
            (None, "mutation Login($p: String!) { login(p: $p) { token } }", false, " mutation Login"),
            (None, " # query X {\n subscription S @live { x }", false, " subscription S"),
            (None, "{ me { id } }", true, " query"),
            (None, "{ me { id } }", false, ""),
            (None, "query { me }", false, " query"),
            (Some("B"), "query A { a } mutation B { b } fragment query on C { d }", false, " mutation B"),
            (Some("Z"), "mutation A { a }", false, " mutation Z"),
            (Some("Login"), "", true, " operation Login"),
            (Some("Login"), "", false, ""),
            (Some("no name"), "", true, ""),
            (None, "query builder", false, ""),
            (None, "mutation", true, ""),
            (None, "what is a query?", true, ""),
            (None, "\"\"\"query X { \"\"\" mutation Y { z }", false, " mutation Y"),
            (None, "query { query mutation { x } } query Second { y }", false, " query"),
            (Some("aZ8dk3Lm2QwErTy9"), "query X { a }", false, " query {token}"),
        ] {
            assert_eq!(of(name, document, expected).0, want, "{name:?} {document}");
        }
        let long = "x".repeat(65);
        assert_eq!(of(Some(&long), "", true).0, " operation {…}");
        assert_eq!(of(None, &format!("query {long} {{ a }}"), true).0, " query {…}");
        let many = "query A { a } ".repeat(100);
        assert_eq!(of(Some("B"), &many, true).0, " query B");
    }

    #[test]
    fn arguments_that_are_strings() {
        let (endpoint, arguments) = of(
            None,
            r#"mutation { a: login(user: "ann", input: {password: "p\"w", n: 1}, x: $x, t: """b""") { id } }"#,
            false,
        );
        assert_eq!(endpoint, " mutation");
        assert_eq!(arguments, ["user=ann", r#"password=p\"w"#, "t=b"]);
    }

    #[test]
    fn any_text_ends() {
        let document = "query A($x: [Int!]! = 1) @d { a(b: \"c\\\"\", e: \"\"\"f\"\"\") } # g";
        for end in 0..document.len() {
            of(Some("A"), &document[..end], true);
        }
        for text in ["{".repeat(16_000), "\"".repeat(16_000), "a:".repeat(8_000), "query ".repeat(2_000)] {
            of(None, &text, true);
        }
    }

    #[test]
    fn paths() {
        for (path, want) in [
            ("/graphql", true),
            ("/api/GraphQL", true),
            ("/graphql/v1/", true),
            ("/gql", true),
            ("/my-graphql", true),
            ("/graphql.php", true),
            ("/graph", false),
            ("/graphql/a/b/c", false),
            ("/", false),
        ] {
            assert_eq!(is_path(path.as_bytes()), want, "{path}");
        }
    }
}
