//! Targets and references: what is path and what is authority, and which parameter values are secrets.

use zeroize::Zeroize;

use super::names::{self, FieldNames, Reduced};
use super::secret::SecretBuf;
use super::shape;

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
    memchr::memchr3(b'=', b'@', b'%', text).is_some()
}

/// Copies `text` to `out` with the values of secret parameters and any userinfo replaced by `REDACTED`, and
/// hands every credential (still encoded) to `found`. Path segments are left to [`hide_segments`].
///
/// Parameters are those of the query, of the fragment and of path segments (`;jsessionid=…`, `/token=…`), also behind
/// encoded separators. Secret are configured passwords, the names that [`names::secrecy_like`] knows, and user names beside a password. Whatever its name,
/// a value is secret that is a JWT, has a card number, or has one of these within, decoded at most twice. Linear.
pub(super) fn redact<'a>(
    text: &'a [u8],
    users: &FieldNames,
    passwords: &FieldNames,
    out: &mut Vec<u8>,
    mut found: impl FnMut(Param, &'a [u8], &'a [u8]),
) {
    let (start, mut at) = authority(text);
    match if at == 0 { None } else { memchr::memrchr(b'@', &text[start..at]) } {
        Some(userinfo) => {
            out.extend_from_slice(&text[..start]);
            out.extend_from_slice(REDACTED);
            out.extend_from_slice(&text[start + userinfo..at]);
        }
        None => out.extend_from_slice(&text[..at]),
    }
    let after_authority = &text[at..];
    let path_end = memchr::memchr2(b'?', b'#', after_authority).map_or(text.len(), |e| at + e);
    // Looked for once, and only where a user name was met.
    let mut with_password = None;
    // Up to where values were looked into.
    let mut looked_into = 0;
    let mut is_secret = |name: &'a [u8], value_start: usize, value_end: usize| {
        let value = &text[value_start..value_end];
        let mut secret = false;
        if names::may_matter(name, users, passwords) {
            let reduced = Reduced::new(name, true);
            let param = if let Some(rank) = passwords.rank(reduced.bytes()) {
                Some(Param::Password(rank))
            } else {
                users.rank(reduced.bytes()).map(Param::User)
            };
            secret = match param {
                Some(Param::Password(_)) => true,
                Some(_) => *with_password.get_or_insert_with(|| has_password(after_authority, passwords)),
                None => names::secrecy_like(reduced.bytes(), passwords).covers(value.len()),
            };
            if let Some(param) = param {
                found(param, name, value);
            } else if secret && names::identifies_caller(reduced.bytes()) {
                found(Param::Caller, name, value);
            }
        }
        // A parameter within a value that was looked into: what is left is its own beginning.
        if !secret && value_start >= looked_into {
            secret = shape::is_secret(value, users, passwords);
            looked_into = value_end;
        } else if !secret && value_start >= path_end {
            secret = shape::path_is_secret(value);
        }
        secret
    };
    // Where the value under way ends: found once, though several parameters may begin before it.
    let mut known_end = 0;
    if memchr::memchr2(b'=', b'%', &text[at..path_end]).is_none() {
        out.extend_from_slice(&text[at..path_end]);
        at = path_end;
    }
    let mut name_start = at;
    while at < path_end {
        let (c, len) = shape::unit(&text[at..path_end]);
        let value_start = at + len;
        out.extend_from_slice(&text[at..value_start]);
        let name = &text[name_start..at];
        at = value_start;
        if matches!(c, b'/' | b';' | b'?' | b'#' | b'&' | b',' | b'=') {
            name_start = value_start;
        }
        if c != b'=' {
            continue;
        }
        if known_end < value_start {
            let end =
                shape::find_unit(&text[value_start..path_end], |c| matches!(c, b'/' | b';' | b'?' | b'#'));
            known_end = end.map_or(path_end, |(e, _)| value_start + e);
        }
        if known_end > value_start && is_secret(name, value_start, known_end) {
            out.extend_from_slice(REDACTED);
            at = known_end;
        }
    }
    known_end = 0;
    while at < text.len() {
        let c = text[at];
        out.push(c);
        at += 1;
        if !matches!(c, b'?' | b'#' | b';' | b'&') {
            // Nothing begins here: copy up to where something may.
            let rest = &text[at..];
            let run = rest.iter().position(|c| matches!(c, b'?' | b'#' | b';' | b'&')).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..run]);
            at += run;
            continue;
        }
        let Some((name, equals)) = name_at(&text[at..]) else { continue };
        let value_start = at + name.len() + equals;
        if known_end < value_start {
            known_end =
                memchr::memchr2(b'&', b'#', &text[value_start..]).map_or(text.len(), |e| value_start + e);
        }
        if known_end > value_start && is_secret(name, value_start, known_end) {
            out.extend_from_slice(&text[at..value_start]);
            out.extend_from_slice(REDACTED);
            at = known_end;
        }
    }
}

/// Returns where the authority of `text` begins and ends; both are 0 where there is none.
///
/// For whoever looks for userinfo, so it errs to that side: any run of slashes after a scheme will do, and text
/// without a scheme begins with an authority where it looks like `user:password@host` (CONNECT).
fn authority(text: &[u8]) -> (usize, usize) {
    let is_slash = |c: &u8| matches!(c, b'/' | b'\\');
    if let [b'/', second, ..] = text
        && !is_slash(second)
    {
        return (0, 0);
    }
    let colon = text
        .first()
        .filter(|c| c.is_ascii_alphabetic())
        .and_then(|_| text.iter().take(32).position(|c| !c.is_ascii_alphanumeric() && !b"+-.".contains(c)))
        .filter(|at| text[*at] == b':' && text.get(at + 1).is_some_and(is_slash));
    let start = match colon {
        Some(colon) => colon + 1,
        None if text.first().is_some_and(is_slash) && text.get(1).is_some_and(is_slash) => 0,
        None if text.first().is_some_and(is_slash) => return (0, 0),
        None => {
            let end = text.iter().position(|c| is_slash(c) || matches!(c, b'?' | b'#')).unwrap_or(text.len());
            let at = memchr::memrchr(b'@', &text[..end]);
            let userinfo = at.is_some_and(|at| memchr::memchr(b':', &text[..at]).is_some());
            return if userinfo { (0, end) } else { (0, 0) };
        }
    };
    let start = start + text[start..].iter().take_while(|c| is_slash(c)).count();
    let end = text[start..].iter().position(|c| is_slash(c) || matches!(c, b'?' | b'#'));
    (start, end.map_or(text.len(), |e| start + e))
}

/// Where the segments begin. What begins with a slash is a path, though it may be `//reset/…`.
fn path_start(text: &[u8]) -> usize {
    if text.starts_with(b"/") { 0 } else { authority(text).1 }
}

/// Tells whether the path of `text` has a segment for [`hide_segments`]. One pass where all are short.
pub(super) fn has_secret_segments(text: &[u8]) -> bool {
    let path = &text[path_start(text)..];
    let mut run = 0;
    for &c in path {
        run = if c == b'/' { 0 } else { run + 1 };
        if run >= shape::SEGMENT_BYTES_MIN || c == b'@' {
            return shape::first_secret_segment(cut(cut(path, b'#').0, b'?').0).is_some();
        }
        if matches!(c, b'?' | b'#') {
            break;
        }
    }
    false
}

/// Replaces the path segments of `text` that are secrets: JSON Web Tokens, card numbers, keys of bots, and what looks
/// like a token after a word like `reset`. Linear; copies only where there are such.
pub(super) fn hide_segments(text: &mut Vec<u8>) {
    let start = path_start(text);
    let path_len = cut(cut(&text[start..], b'#').0, b'?').0.len();
    if !has_secret_segments(text) {
        return;
    }
    let mut old = SecretBuf::default();
    old.extend(&text[start..]);
    text[start..].zeroize();
    text.truncate(start);
    let (mut path, rest) = old.bytes().split_at(path_len);
    let whole = path;
    let mut words = shape::DoorWords::of_path();
    let mut done = 0;
    while let Some((from, to)) = words.next_secret(whole, done) {
        text.extend_from_slice(&whole[done..from]);
        text.extend_from_slice(REDACTED);
        done = to;
        path = &whole[done..];
    }
    text.extend_from_slice(path);
    text.extend_from_slice(rest);
}

/// Returns the name of the parameter that `text` begins with, if an equals sign follows it, and how long that is: it may
/// be percent-encoded (`password%3Dx`).
///
/// A name ends at the next delimiter of any kind, so that text without `=` stays linear; a value runs on to what really
/// ends it, so that `password=a;b?c` is one secret.
fn name_at(text: &[u8]) -> Option<(&[u8], usize)> {
    let is_end = |c: &u8| matches!(c, b'=' | b'&' | b';' | b'#' | b'?' | b'/');
    let end = text.iter().position(is_end).unwrap_or(text.len());
    if text.get(end) == Some(&b'=') {
        return Some((&text[..end], 1));
    }
    memchr::memchr(b'%', &text[..end])?;
    shape::find_unit(&text[..end], |c| c == b'=').map(|(from, to)| (&text[..from], to - from))
}

fn has_password(text: &[u8], passwords: &FieldNames) -> bool {
    let Some(query) = text.iter().position(|c| matches!(c, b'?' | b'#')) else { return false };
    text[query + 1..].split(|c| matches!(c, b'&' | b'#' | b'?' | b';')).any(|pair| {
        name_at(pair).is_some_and(|(name, equals)| {
            let reduced = Reduced::new(name, true);
            pair.len() > name.len() + equals
                && (passwords.rank(reduced.bytes()).is_some()
                    || names::is_other_password(reduced.bytes(), passwords))
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
        let hidden = has_secret_segments(&out);
        let before = out.clone();
        hide_segments(&mut out);
        assert_eq!(hidden, out != before, "{text}");
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

    #[test]
    fn secrets_by_shape_and_nested_ones_go() {
        const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJaIn0.c2lnbmF0dXJl";
        const HEX: &str = "0123456789abcdef0123456789abcdef";
        for (text, want) in [
            // Userinfo.
            ("u:Zq7@h:443", "REDACTED@h:443"),
            ("http:/u:Zq7@h/p", "http:/REDACTED@h/p"),
            ("http:///u:Zq7@h/p", "http:///REDACTED@h/p"),
            ("http:\\\\u:Zq7@h/p", "http:\\\\REDACTED@h/p"),
            ("ftp://u:Zq7@h?q", "ftp://REDACTED@h?q"),
            ("/fetch/http://u:Zq7@h/p", "/fetch/http://REDACTED/p"),
            ("/x?next=http://u:Zq7@h/&b=1", "/x?next=REDACTED&b=1"),
            ("/x?next=http%3A%2F%2Fu%3AZq7%40h%2F&b=1", "/x?next=REDACTED&b=1"),
            ("/x?next=http%253A%252F%252Fu%253AZq7%2540h%252F", "/x?next=REDACTED"),
            // Names within values.
            ("/x?next=%2Fa%3Fpassword%3DZq7&b=1", "/x?next=REDACTED&b=1"),
            ("/x?next=%252Fa%253Fb%253Dc%2526token%253DZq7", "/x?next=REDACTED"),
            ("/x?d=%7B%22a%22%3A1%2C%22password%22%20%3A%20%22Zq7%22%7D", "/x?d=REDACTED"),
            ("/x?next=%2Freset%2FZq7Zq7Zq7Abcdef0123456789", "/x?next=REDACTED"),
            ("/x?next=/reset/Zq7Zq7Zq7Abcdef0123456789#f", "/x?next=REDACTED#f"),
            // Names.
            ("/x?password%5B%5D=Zq7&pass%2577ord=Zq7", "/x?password%5B%5D=REDACTED&pass%2577ord=REDACTED"),
            ("/x?token%00=Zq7&%0dtoken=Zq7", "/x?token%00=REDACTED&%0dtoken=REDACTED"),
            ("/x?token\t=Zq7&to\x7fken\0=Zq7", "/x?token\t=REDACTED&to\x7fken\0=REDACTED"),
            ("/x?pass%2500word=Zq7", "/x?pass%2500word=REDACTED"),
            ("/x?pin=1234&otp=1&mfa_code=123456", "/x?pin=REDACTED&otp=REDACTED&mfa_code=REDACTED"),
            ("/cb?code=0123456789abcdef&state=0123456789abcdef", "/cb?code=REDACTED&state=REDACTED"),
            ("/cb?ticket=ST-12-Zq7Zq7&assertion=x", "/cb?ticket=REDACTED&assertion=REDACTED"),
            ("/o?X-Amz-Signature=0123456789abcdef", "/o?X-Amz-Signature=REDACTED"),
            ("/o?X-Amz-Credential=AKIA%2F1", "/o?X-Amz-Credential=REDACTED"),
            ("/o?key=0123456789abcdef&sig=0123456789abcdef", "/o?key=REDACTED&sig=REDACTED"),
            // Cards.
            ("/p?n=4111111111111111", "/p?n=REDACTED"),
            ("/p?n=4111+1111+1111+1111&m=3782-822463-10005", "/p?n=REDACTED&m=REDACTED"),
            ("/p?n=4111%201111%201111%201111", "/p?n=REDACTED"),
            ("/p?n=%22x%22:%224111111111111111%22", "/p?n=REDACTED"),
            ("/p/4111111111111111/x", "/p/REDACTED/x"),
            // Path segments.
            ("/reset/Zq7Zq7Zq7Abcdef0123456789?x=1", "/reset/REDACTED?x=1"),
            ("//Password-Reset//u/Zq7Zq7Zq7Abcdef0123456789", "//Password-Reset//u/REDACTED"),
            ("http://h/email/verify/12/HEX?x#f", "http://h/email/verify/12/REDACTED?x#f"),
            ("/invite/HEX;a=b/accept", "/invite/REDACTED;a=b/accept"),
            ("/confirm/550e8400-e29b-41d4-a716-446655440000", "/confirm/REDACTED"),
            ("/v/JWT/x", "/v/REDACTED/x"),
            ("/x?a=JWT&b=/c?d=JWT", "/x?a=REDACTED&b=/c?d=REDACTED"),
            ("/bot123456:AAZq7Zq7Zq7/send", "/REDACTED/send"),
            ("/bot123456%3Aaazq7zq7zq7/send", "/REDACTED/send"),
        ] {
            let fill = |t: &str| t.replace("JWT", JWT).replace("HEX", HEX);
            assert_eq!(run(&fill(text)).0, fill(want), "{text}");
        }
    }

    #[test]
    fn other_spellings_go() {
        const KEY: &str = "S3cr3tZq7Xy9abcdefghijklmnopQRSTUVWXYZ01";
        let pad = "a".repeat(300);
        for (text, want) in [
            // Variations of names.
            ("/x?password1=Zq7&pwd2=Zq7&b=1", "/x?password1=REDACTED&pwd2=REDACTED&b=1"),
            ("/x?password_confirmation=Zq7&token2=Zq7", "/x?password_confirmation=REDACTED&token2=REDACTED"),
            ("/x?user=ann&new_password2=Zq7", "/x?user=REDACTED&new_password2=REDACTED"),
            ("/x?next=%2Fa%3Fpassword1%3DZq7&b=1", "/x?next=REDACTED&b=1"),
            // Long names.
            ("/x?PADpassword=Zq7", "/x?PADpassword=REDACTED"),
            ("/x?PAD[password]=Zq7&b=1", "/x?PAD[password]=REDACTED&b=1"),
            ("/x;PADpassword=Zq7/y", "/x;PADpassword=REDACTED/y"),
            // Encoded separators.
            ("/x?password%3DZq7&b=1", "/x?password%3DREDACTED&b=1"),
            ("/x?password%253dZq7", "/x?password%253dREDACTED"),
            ("/x?a%26password=Zq7", "/x?a%26password=REDACTED"),
            ("/x?user%3Dann&password%3DZq7", "/x?user%3DREDACTED&password%3DREDACTED"),
            ("/a%3Bjsessionid=KEY/b", "/a%3Bjsessionid=REDACTED/b"),
            ("/a%3bjsessionid%3dKEY%2fb", "/a%3bjsessionid%3dREDACTED%2fb"),
            ("/a%253Bpassword%253DZq7%252Fb?c", "/a%253Bpassword%253DREDACTED%252Fb?c"),
            ("/a%3Fb=1%26password=Zq7/c", "/a%3Fb=1%26password=REDACTED/c"),
            ("/reset%2FKEY?x", "/reset%2FREDACTED?x"),
            ("/reset%252fKEY%2Fx", "/reset%252fREDACTED%2Fx"),
            ("/reset/KEY%3Ba=b", "/reset/REDACTED%3Ba=b"),
            // Parameters in segments.
            ("/a/token=Zq7/b", "/a/token=REDACTED/b"),
            ("/a/b=1,token=Zq7/b", "/a/b=1,token=REDACTED/b"),
            // Capabilities.
            ("/app/(S(lit3py55t21z5v55vlm25s55))/x.aspx", "/app/REDACTED/x.aspx"),
            ("/app/(S(abcdefghijklmnopqrstuvwx))/x.aspx", "/app/REDACTED/x.aspx"),
            ("/api/webhooks/123456789012345678/KEY", "/api/webhooks/123456789012345678/REDACTED"),
            (
                "/services/T024BE7LD/B024BE7LE/S3cr3tZq7Xy9abcdefghij12",
                "/services/T024BE7LD/B024BE7LE/REDACTED",
            ),
            ("/v1/key/KEY/x", "/v1/key/REDACTED/x"),
        ] {
            let fill = |t: &str| t.replace("PAD", &pad).replace("KEY", KEY);
            assert_eq!(run(&fill(text)).0, fill(want), "{text}");
        }
    }

    #[test]
    fn harmless_things_stay() {
        for text in [
            "/x?code=DE&key=12&state=open&ticket=4711&sig=ab",
            "/x?q=a%20b&r=a+b&email=a%40b.example",
            "/x?next=%2Fshop%2Fitem%2F12%3Fcolor%3Dred%26sid%3D12",
            "/x?next=https://shop.example/a?b=c&d=e",
            "/x?_=1700000000000&t=1700000000000000",
            "/x?n=4111111111111112&m=411111111111111",
            "/x?n=a4111111111111111&m=4111111111111111b",
            "/x?d=2024-05-31-1234567890",
            "/x?d=1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms",
            "/d/dQw4w9WgXcQ8dk3Lm2/edit",
            "/p/cus_NffrFeUfNV2HibNffrFeUfNV2Hib",
            "/a%2Fb%3Bv%3D1/c=d/color%3Dred",
            "/wiki/(disambiguation)",
            "/x?page2=3&confirm=yes&utf8=1&q%3D1",
            "/commit/0123456789abcdef0123456789abcdef",
            "/reset/done",
            "/reset/a1b2c3d4",
            "/verify/123456",
            "/@alice:example.org",
            "/bot123:x",
            "/robots.txt",
            "h.example:443",
            "https://h.example:443/a@b",
            "mailto:bob",
        ] {
            assert_eq!(run(text).0, text);
        }
    }

    proptest! {
        #[test]
        fn text_without_secret_names_is_copied(text in "[/?#;&=a-d:.%]{0,60}") {
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
        for unit in [
            "?",
            "&a=",
            ";",
            "&password=x",
            "?a=b?",
            "?user=b",
            "=",
            "a=1,",
            "a=1&",
            "a%3D",
            "&a%3D",
            "/a=",
            "%2F",
            "&email",
            "#",
            ";user=b",
            "?a=//",
            "&a=%25%3D",
            "?a=%25",
            "/reset1234567890ab",
            "/token",
            "?a=4111",
            "4-",
            "eyJ.",
            "@",
            ":@/",
            "//@",
            "%2525",
        ] {
            let text = unit.repeat(200_000 / unit.len());
            let mut out = Vec::new();
            redact(text.as_bytes(), &names(&["user"]), &names(&["password"]), &mut out, |_, _, _| ());
            hide_segments(&mut out);
            assert!(out.len() <= 4 * text.len() + 16, "{unit}");
        }
    }
}
