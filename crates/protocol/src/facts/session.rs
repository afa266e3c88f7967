//! Who a head says is calling: session cookies, tokens, and Basic or Digest credentials.

use super::names;

/// Most cookies of one head that are looked at; more are passed over and counted.
pub(super) const COOKIES_MAX: usize = 256;
/// How much of a session value is hashed: two that agree so far are the same session.
pub(super) const SESSION_BYTES_MAX: usize = 4096;

/// The best session cookie so far.
#[derive(Clone, Copy, Default)]
pub(super) struct BestCookie<'a> {
    /// Place in the configured list; `usize::MAX` for a session-like name.
    rank: usize,
    value: Option<&'a [u8]>,
    seen: usize,
}

impl<'a> BestCookie<'a> {
    /// Reads one Cookie line. The lowest place in `configured` wins, then the first session-like name.
    pub(super) fn read(&mut self, line: &'a [u8], configured: &[Box<[u8]>]) {
        for pair in line.split(|c| *c == b';') {
            if self.done(configured) {
                return;
            }
            self.seen += 1;
            let Some((name, value)) = name_value(pair) else { continue };
            if let Some(rank) = configured.iter().position(|c| **c == *name) {
                if self.value.is_none() || rank < self.rank {
                    (self.rank, self.value) = (rank, Some(value));
                }
            } else if self.value.is_none() && names::session_like_cookie(name) {
                (self.rank, self.value) = (usize::MAX, Some(value));
            }
        }
    }

    /// Tells whether no later cookie can win.
    fn done(&self, configured: &[Box<[u8]>]) -> bool {
        self.seen >= COOKIES_MAX || (self.value.is_some() && (configured.is_empty() || self.rank == 0))
    }

    /// Tells whether there were more cookies than are looked at.
    pub(super) fn capped(&self) -> bool {
        self.seen >= COOKIES_MAX
    }

    pub(super) fn value(&self) -> Option<&'a [u8]> {
        self.value
    }
}

/// Cuts `name=value` and takes white space and quotes off; `None` where the value says nothing.
pub(super) fn name_value(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = memchr::memchr(b'=', pair)?;
    let name = pair[..equals].trim_ascii();
    let value = pair[equals + 1..].trim_ascii();
    let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
    let nothing = matches!(value, b"" | b"deleted" | b"null" | b"undefined" | b"-");
    (!nothing).then_some((name, value))
}

/// What an Authorization value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credentials<'a> {
    /// Base64 of `user:password`.
    Basic(&'a [u8]),
    /// The user of a Digest.
    DigestUser(&'a [u8]),
    /// A token that names the caller.
    Token(&'a [u8]),
    /// Nothing that lasts (a signature, Negotiate).
    Other,
}

/// Reads an Authorization value.
pub(super) fn credentials(value: &[u8]) -> Credentials<'_> {
    let value = value.trim_ascii();
    let Some(space) = value.iter().position(u8::is_ascii_whitespace) else {
        return if value.is_empty() { Credentials::Other } else { Credentials::Token(value) };
    };
    let rest = value[space..].trim_ascii();
    let is = |scheme: &str| value[..space].eq_ignore_ascii_case(scheme.as_bytes());
    if is("basic") {
        Credentials::Basic(rest)
    } else if is("bearer")
        || is("token")
        || is("apikey")
        || is("api-key")
        || is("key")
        || is("jwt")
        || is("session")
    {
        Credentials::Token(rest.strip_prefix(b"token=").unwrap_or(rest))
    } else if is("digest") {
        match memchr::memmem::find(rest, b"username=\"") {
            Some(at) => {
                let user = &rest[at + 10..];
                Credentials::DigestUser(&user[..memchr::memchr(b'"', user).unwrap_or(user.len())])
            }
            None => Credentials::Other,
        }
    } else {
        Credentials::Other
    }
}

/// Returns the value that a Set-Cookie line sets for a session; `None` for other cookies and deletions.
///
/// A deletion has no value, `Max-Age` of 0 or less, or `Expires` in a year before `year_now` (packet time).
pub(super) fn session_set<'a>(line: &'a [u8], configured: &[Box<[u8]>], year_now: u32) -> Option<&'a [u8]> {
    let mut parts = line.split(|c| *c == b';');
    let (name, value) = name_value(parts.next()?)?;
    if !configured.iter().any(|c| **c == *name) && !names::session_like_cookie(name) {
        return None;
    }
    for attribute in parts.take(16) {
        let Some(equals) = memchr::memchr(b'=', attribute) else { continue };
        let (key, text) = (attribute[..equals].trim_ascii(), attribute[equals + 1..].trim_ascii());
        if key.eq_ignore_ascii_case(b"max-age")
            && (text.starts_with(b"-") || !text.is_empty() && text.iter().all(|c| *c == b'0'))
        {
            return None;
        }
        if key.eq_ignore_ascii_case(b"expires") && year_of(text).is_some_and(|year| year < year_now) {
            return None;
        }
    }
    Some(value)
}

/// Returns the first run of exactly four digits.
fn year_of(text: &[u8]) -> Option<u32> {
    text.split(|c| !c.is_ascii_digit())
        .find(|run| run.len() == 4)
        .map(|run| run.iter().fold(0, |year, d| year * 10 + u32::from(d - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies() {
        let boxed = |names: &[&str]| names.iter().map(|n| n.as_bytes().into()).collect::<Vec<Box<[u8]>>>();
        for (lines, configured, want) in [
            (&["a=1; sid=x; b=2"] as &[&str], &[] as &[&str], Some("x")),
            (&["a=1", "token=t; sid=x"], &[], Some("t")),
            (&["sid=x; shop=y"], &["shop"], Some("y")),
            (&["b=2; a=1"], &["a", "b"], Some("1")),
            (&["sid=\"q\""], &[], Some("q")),
            (&["sid="], &[], None),
            (&["sid=deleted; session=z"], &[], Some("z")),
            (&["csrftoken=x; theme=dark"], &[], None),
            (&["sid=a; sid=b"], &[], Some("a")),
            (&[";;;=;=x;sid"], &[], None),
        ] {
            let mut best = BestCookie::default();
            for line in lines {
                best.read(line.as_bytes(), &boxed(configured));
            }
            assert_eq!(best.value(), want.map(str::as_bytes), "{lines:?}");
        }
        let bomb = "a=1;".repeat(100_000);
        let mut best = BestCookie::default();
        best.read(bomb.as_bytes(), &[]);
        best.read(b"sid=x", &[]);
        assert!(best.capped() && best.value().is_none());
    }

    #[test]
    fn authorizations() {
        for (value, want) in [
            ("Basic YTpi", Credentials::Basic(b"YTpi")),
            ("basic  YTpi ", Credentials::Basic(b"YTpi")),
            ("Bearer abc.def", Credentials::Token(b"abc.def")),
            ("Token token=abc", Credentials::Token(b"abc")),
            ("0123456789", Credentials::Token(b"0123456789")),
            ("Digest username=\"ann\", realm=\"x\"", Credentials::DigestUser(b"ann")),
            ("AWS4-HMAC-SHA256 Credential=x", Credentials::Other),
            ("", Credentials::Other),
        ] {
            assert_eq!(credentials(value.as_bytes()), want, "{value}");
        }
    }

    #[test]
    fn cookies_that_are_set() {
        for (line, want) in [
            ("sid=x; Path=/; HttpOnly", Some("x")),
            ("theme=dark", None),
            ("sid=; Path=/", None),
            ("sid=deleted; Expires=Thu, 01-Jan-1970 00:00:01 GMT", None),
            ("sid=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT", None),
            ("sid=x; Max-Age=0", None),
            ("sid=x; max-age=-1", None),
            ("sid=x; Max-Age=3600; Expires=Wed, 01 Jan 2031 00:00:00 GMT", Some("x")),
            ("csrf_token=x", None),
            ("", None),
        ] {
            assert_eq!(session_set(line.as_bytes(), &[], 2026), want.map(str::as_bytes), "{line}");
        }
    }
}
