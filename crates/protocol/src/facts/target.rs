//! Targets and references: what is path and what is authority, and which parameter values are secrets.

use super::names::{self, FieldNames, Reduced, Secrecy};

/// What stands where a secret stood.
pub(super) const REDACTED: &[u8] = b"REDACTED";

/// A request target (RFC 9112 §3.2) or a reference (RFC 3986 §4.1), taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// Authority of the absolute or authority form, with userinfo and port.
    pub(super) authority: Option<&'a [u8]>,
    /// Path; `/` for an absolute form that ends with its authority; empty for the authority form.
    pub(super) path: &'a [u8],
    /// From `?` on, without it and without the fragment.
    pub(super) query: &'a [u8],
}

/// Takes a request target apart; `connect` where the method is CONNECT.
pub(super) fn split(target: &[u8], connect: bool) -> Parts<'_> {
    if target.starts_with(b"/") {
        // `//x/y` is a path with an empty segment here.
        let (path, query) = cut(cut(target, b'#').0, b'?');
        return Parts { authority: None, path, query };
    }
    if connect && scheme_len(target).is_none() {
        return Parts { authority: Some(target), path: b"", query: b"" };
    }
    split_reference(target)
}

/// Takes a reference (Location, Referer) apart; a path may be relative.
pub(super) fn split_reference(text: &[u8]) -> Parts<'_> {
    let (before, query) = cut(cut(text, b'#').0, b'?');
    let after_scheme = &before[scheme_len(before).unwrap_or(0)..];
    let Some(rest) = after_scheme.strip_prefix(b"//") else {
        return Parts { authority: None, path: before, query };
    };
    let end = rest.iter().position(|c| *c == b'/').unwrap_or(rest.len());
    let path = if end == rest.len() { b"/" } else { &rest[end..] };
    Parts { authority: Some(&rest[..end]), path, query }
}

fn cut(text: &[u8], at: u8) -> (&[u8], &[u8]) {
    match memchr::memchr(at, text) {
        Some(place) => (&text[..place], &text[place + 1..]),
        None => (text, b""),
    }
}

/// Length of `http:` and the like; `None` where there is no scheme followed by `//`.
fn scheme_len(text: &[u8]) -> Option<usize> {
    if text.first().is_none_or(|c| !c.is_ascii_alphabetic()) {
        return None;
    }
    let colon = text.iter().take(32).position(|c| !c.is_ascii_alphanumeric() && !b"+-.".contains(c))?;
    (text[colon] == b':' && text[colon + 1..].starts_with(b"//")).then_some(colon + 1)
}

/// Longest host name that is kept.
pub(super) const HOST_BYTES_MAX: usize = 255;

/// Takes userinfo and port off an authority; an IPv6 literal keeps its brackets (ECS `url.domain`).
pub(super) fn host_of(authority: &[u8]) -> &[u8] {
    let host = match memchr::memrchr(b'@', authority) {
        Some(at) => &authority[at + 1..],
        None => authority,
    }
    .trim_ascii();
    if host.starts_with(b"[") {
        return match memchr::memchr(b']', host) {
            Some(end) => &host[..=end],
            None => host,
        };
    }
    match memchr::memchr(b':', host) {
        Some(colon) => &host[..colon],
        None => host,
    }
}

/// What a parameter is, for whoever collects credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Param {
    /// A user name; the place in the configured list.
    User(u16),
    /// A password; the place in the configured list.
    Password(u16),
    /// Another secret that names the caller (API key, session).
    Caller,
}

/// Tells whether `text` can hold anything that [`redact`] would look at. Cheap; true is a "maybe".
pub(super) fn may_hold_secrets(text: &[u8]) -> bool {
    memchr::memchr2(b'=', b'@', text).is_some()
}

/// Copies `text` to `out` with the values of secret parameters and any userinfo replaced by `REDACTED`, and
/// hands every credential (still encoded) to `found`.
///
/// Parameters are those of the query, of the fragment and of path segments (`;jsessionid=…`). Secret are
/// configured passwords, names that end in `password`, `secret`, `token` (but for page tokens) or an API or
/// access key, session-like and card-like names; user names only beside a password. Secrets inside an
/// encoded URL that is itself a value, and secrets that are path segments, are not found. Linear.
pub(super) fn redact<'a>(
    text: &'a [u8],
    users: &FieldNames,
    passwords: &FieldNames,
    out: &mut Vec<u8>,
    mut found: impl FnMut(Param, &'a [u8], &'a [u8]),
) {
    let mut at = 0;
    if let Some(scheme) = scheme_len(text).or(text.starts_with(b"//").then_some(0)) {
        let start = scheme + 2;
        let end = memchr::memchr3(b'/', b'?', b'#', &text[start..]).map_or(text.len(), |e| start + e);
        at = end;
        match memchr::memrchr(b'@', &text[start..end]) {
            Some(userinfo) => {
                out.extend_from_slice(&text[..start]);
                out.extend_from_slice(REDACTED);
                out.extend_from_slice(&text[start + userinfo..end]);
            }
            None => out.extend_from_slice(&text[..end]),
        }
    }
    let after_authority = &text[at..];
    // Looked for once, and only where a user name was met.
    let mut with_password = None;
    let mut in_query = false;
    // Where the value under way ends in a query: found once, though several parameters may begin before it.
    let mut query_value_end = 0;
    while at < text.len() {
        let c = text[at];
        out.push(c);
        at += 1;
        in_query |= matches!(c, b'?' | b'#');
        if !(matches!(c, b'?' | b'#' | b';') || (in_query && c == b'&')) {
            // Nothing begins here: copy up to where something may.
            let rest = &text[at..];
            let next = if in_query {
                rest.iter().position(|c| matches!(c, b'?' | b'#' | b';' | b'&'))
            } else {
                memchr::memchr3(b'?', b'#', b';', rest)
            };
            let run = next.unwrap_or(rest.len());
            out.extend_from_slice(&rest[..run]);
            at += run;
            continue;
        }
        let Some(name) = name_at(&text[at..]) else { continue };
        if !names::may_matter(name, users, passwords) {
            continue;
        }
        let value_start = at + name.len() + 1;
        if in_query && query_value_end < value_start {
            query_value_end =
                memchr::memchr2(b'&', b'#', &text[value_start..]).map_or(text.len(), |e| value_start + e);
        }
        let value_end = if in_query {
            query_value_end
        } else {
            let rest = &text[value_start..];
            rest.iter().position(|c| b"/;?#".contains(c)).map_or(text.len(), |e| value_start + e)
        };
        let value = &text[value_start..value_end];
        let reduced = Reduced::new(name, true);
        let param = if let Some(rank) = passwords.rank(reduced.bytes()) {
            Some(Param::Password(rank))
        } else {
            users.rank(reduced.bytes()).map(Param::User)
        };
        let secret = match param {
            Some(Param::Password(_)) => true,
            Some(_) => *with_password.get_or_insert_with(|| has_password(after_authority, passwords)),
            None => match names::secrecy(reduced.bytes()) {
                Secrecy::Open => false,
                Secrecy::Secret => true,
                Secrecy::SecretIfLong => value.len() >= names::SESSION_VALUE_BYTES_MIN,
            },
        };
        if value.is_empty() {
            continue;
        }
        if let Some(param) = param {
            found(param, name, value);
        } else if secret && names::identifies_caller(reduced.bytes()) {
            found(Param::Caller, name, value);
        }
        if secret {
            out.extend_from_slice(name);
            out.push(b'=');
            out.extend_from_slice(REDACTED);
            at += name.len() + 1 + value.len();
        }
    }
}

/// Returns the name of the parameter that `text` begins with, if an equals sign follows it.
///
/// A name ends at the next delimiter of any kind; a value runs on to what really ends it, so that
/// `password=a;b?c` is one secret.
fn name_at(text: &[u8]) -> Option<&[u8]> {
    /// Longest parameter name that is looked at, so that text without `=` stays linear.
    const NAME_BYTES_MAX: usize = 128;
    let is_end = |c: &u8| matches!(c, b'=' | b'&' | b';' | b'#' | b'?' | b'/');
    let end = text.iter().take(NAME_BYTES_MAX).position(is_end)?;
    (text[end] == b'=').then_some(&text[..end])
}

fn has_password(text: &[u8], passwords: &FieldNames) -> bool {
    let Some(query) = text.iter().position(|c| matches!(c, b'?' | b'#')) else { return false };
    text[query + 1..].split(|c| matches!(c, b'&' | b'#' | b'?' | b';')).any(|pair| {
        name_at(pair).is_some_and(|name| {
            pair.len() > name.len() + 1 && passwords.rank(Reduced::new(name, true).bytes()).is_some()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(list: &[&str]) -> FieldNames {
        FieldNames::new(&list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
    }

    fn run(text: &str) -> (String, Vec<String>) {
        let mut out = Vec::new();
        let mut found = Vec::new();
        redact(
            text.as_bytes(),
            &names(&["user", "email"]),
            &names(&["password", "pwd"]),
            &mut out,
            |p, _, v| {
                found.push(format!("{p:?}={}", String::from_utf8_lossy(v)));
            },
        );
        (String::from_utf8(out).unwrap(), found)
    }

    #[test]
    fn targets_come_apart() {
        for (target, connect, authority, path, query) in [
            ("/", false, None, "/", ""),
            ("/a/b?x=1#f", false, None, "/a/b", "x=1"),
            ("*", false, None, "*", ""),
            ("http://h.example:80/p?q", false, Some("h.example:80"), "/p", "q"),
            ("http://h.example", false, Some("h.example"), "/", ""),
            ("http://h.example?q", false, Some("h.example"), "/", "q"),
            ("h.example:443", true, Some("h.example:443"), "", ""),
            ("//evil/x?q", false, None, "//evil/x", "q"),
            ("/http://x/y", false, None, "/http://x/y", ""),
            ("/?u=http://x/", false, None, "/", "u=http://x/"),
            ("a:b", false, None, "a:b", ""),
            ("", false, None, "", ""),
        ] {
            let want = Parts {
                authority: authority.map(str::as_bytes),
                path: path.as_bytes(),
                query: query.as_bytes(),
            };
            assert_eq!(split(target.as_bytes(), connect), want, "{target}");
        }
        // In a reference it is an authority.
        assert_eq!(
            split_reference(b"//evil/x?q"),
            Parts { authority: Some(b"evil"), path: b"/x", query: b"q" }
        );
    }

    #[test]
    fn hosts() {
        for (authority, want) in [
            ("h", "h"),
            ("h:80", "h"),
            ("u:p@h:80", "h"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("[::1", "[::1"),
            ("u@v@h", "h"),
            ("", ""),
            (":80", ""),
            (" h ", "h"),
        ] {
            assert_eq!(host_of(authority.as_bytes()), want.as_bytes(), "{authority}");
        }
    }

    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (text, want, found) in [
            ("/a?b=c&d", "/a?b=c&d", &[] as &[&str]),
            ("/a?token=x&b=1", "/a?token=REDACTED&b=1", &[]),
            ("/a?api_key=x", "/a?api_key=REDACTED", &["Caller=x"]),
            (
                "/l?user=ann&password=p%20w&x=1",
                "/l?user=REDACTED&password=REDACTED&x=1",
                &["User(0)=ann", "Password(0)=p%20w"],
            ),
            ("/l?user=ann", "/l?user=ann", &["User(0)=ann"]),
            ("/l?pass%77ord=x", "/l?pass%77ord=REDACTED", &["Password(0)=x"]),
            ("/l?password=a;b?c/d=e#f", "/l?password=REDACTED#f", &["Password(0)=a;b?c/d=e"]),
            ("/p;jsessionid=ABCDEF0123/q?x", "/p;jsessionid=REDACTED/q?x", &["Caller=ABCDEF0123"]),
            ("/p?sid=159106", "/p?sid=159106", &[]),
            ("/p#access_token=x&y=1", "/p#access_token=REDACTED&y=1", &["Caller=x"]),
            ("http://ann:pw@h/p", "http://REDACTED@h/p", &[]),
            ("//ann:pw@h/p", "//REDACTED@h/p", &[]),
            ("http://h/p?next=/a?token=x&y", "http://h/p?next=/a?token=REDACTED&y", &[]),
            ("/p?password=", "/p?password=", &[]),
            ("/p?pageToken=abc", "/p?pageToken=abc", &[]),
            ("/p?=&&;;?##", "/p?=&&;;?##", &[]),
            ("/a@b/c=d", "/a@b/c=d", &[]),
        ] {
            let (got, creds) = run(text);
            assert_eq!(got, want, "{text}");
            assert_eq!(creds, found, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_without_secret_names_is_copied(text in "[/?#;&=a-d@:.%]{0,60}") {
            prop_assume!(scheme_len(text.as_bytes()).is_none() && !text.starts_with("//"));
            prop_assert_eq!(run(&text).0, text);
        }

        #[test]
        fn no_password_survives(before in "[/?#;&=a-d]{0,20}", after in "[#&][/?#;&=a-d]{0,20}") {
            let (got, _) = run(&format!("{before}?password=Zq7Zq7{after}"));
            prop_assert!(!got.contains("Zq7"), "{}", got);
        }
    }

    #[test]
    fn long_targets_stay_linear() {
        for unit in ["?", "&a=", ";", "&password=x", "?a=b?", "?user=b", "=", "&email", "#", ";user=b"] {
            let text = unit.repeat(200_000 / unit.len());
            let mut out = Vec::new();
            redact(text.as_bytes(), &names(&["user"]), &names(&["password"]), &mut out, |_, _, _| ());
            assert!(out.len() <= 3 * text.len());
        }
    }
}
