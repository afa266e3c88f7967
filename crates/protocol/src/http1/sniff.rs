//! Is this the start of an HTTP/1 message? Where is the next one?

use memchr::memmem::Finder;

/// Registered methods (IANA, 2026) and `M-SEARCH`, `NOTIFY`, `PURGE`, which servers see daily.
const METHODS: [&[u8]; 42] = [
    b"GET",
    b"POST",
    b"HEAD",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"PATCH",
    b"CONNECT",
    b"TRACE",
    b"PROPFIND",
    b"PROPPATCH",
    b"REPORT",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"SEARCH",
    b"QUERY",
    b"ACL",
    b"BASELINE-CONTROL",
    b"BIND",
    b"CHECKIN",
    b"CHECKOUT",
    b"LABEL",
    b"LINK",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKREDIRECTREF",
    b"MKWORKSPACE",
    b"ORDERPATCH",
    b"REBIND",
    b"UNBIND",
    b"UNCHECKOUT",
    b"UNLINK",
    b"UPDATE",
    b"UPDATEREDIRECTREF",
    b"VERSION-CONTROL",
    b"M-SEARCH",
    b"NOTIFY",
    b"PURGE",
];

/// Longest method worth waiting for.
const METHOD_BYTES_MAX: usize = 32;

/// What the first bytes of a supposed message are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sniff {
    /// Too few to tell.
    More,
    /// A request line.
    Request,
    /// A request line of HTTP/0.9: `GET /path`.
    Request09,
    /// A status line.
    Response,
    /// The HTTP/2 connection preface (RFC 9113 §3.4).
    Http2,
    /// None of these.
    Junk,
}

pub(crate) const fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(b, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

pub(crate) fn is_known_method(method: &[u8]) -> bool {
    METHODS.contains(&method)
}

/// Tells whether the word is a version of HTTP, in whatever case and number.
pub(super) fn is_version_like(word: &[u8]) -> bool {
    word.len() >= 5 && word[..5].eq_ignore_ascii_case(b"HTTP/")
}

/// Judges `bytes`, which begin with a supposed start line; `ended` where they end with its LF.
///
/// The answer for a prefix is `More` or the answer for every continuation, so cutting changes nothing.
/// `unknown_max` bounds how far the line of an unregistered method may go. Cost: a few bytes while the line is
/// unfinished, the line once when it is ended.
pub(super) fn sniff(bytes: &[u8], ended: bool, unknown_max: usize) -> Sniff {
    #[cfg(test)]
    super::examined::add(if ended { bytes.len() } else { bytes.len().min(64) });
    if bytes.starts_with(b"HTTP/") {
        return match ended {
            true if is_status_line(bytes) => Sniff::Response,
            true => Sniff::Junk,
            false if bytes.get(5).is_some_and(|b| !b.is_ascii_digit()) => Sniff::Junk,
            // Past any "HTTP/1.1 200" with generous spaces: only the reason is still growing.
            false if bytes.len() >= 64 && !is_status_line(bytes) => Sniff::Junk,
            false => Sniff::More,
        };
    }
    if b"HTTP/".starts_with(bytes) {
        return Sniff::More;
    }
    let Some(method_end) = bytes.iter().take(METHOD_BYTES_MAX + 1).position(|b| !is_token(*b)) else {
        return if bytes.len() > METHOD_BYTES_MAX { Sniff::Junk } else { Sniff::More };
    };
    let method = &bytes[..method_end];
    if method.is_empty() || !matches!(bytes[method_end], b' ' | b'\t') {
        return Sniff::Junk;
    }
    if !ended {
        return if bytes.len() > unknown_max && !is_known_method(method) { Sniff::Junk } else { Sniff::More };
    }
    if !is_known_method(method) && bytes.len() > unknown_max + 1 {
        return Sniff::Junk;
    }
    let line = bytes.trim_ascii_end();
    let last = line.iter().rposition(|b| matches!(b, b' ' | b'\t')).map_or(0, |i| i + 1);
    if is_version_like(&line[last..]) {
        // The target must be there: "GET HTTP/1.1" has none, yet servers answer it (400).
        if method == b"PRI" && line == b"PRI * HTTP/2.0" { Sniff::Http2 } else { Sniff::Request }
    } else if method == b"GET" && line[method_end..].trim_ascii_start().starts_with(b"/") {
        Sniff::Request09
    } else {
        Sniff::Junk
    }
}

/// `HTTP/d` … white space, digit.
fn is_status_line(line: &[u8]) -> bool {
    let line = &line[..line.len().min(64)];
    let Some(space) = line.iter().position(|b| matches!(b, b' ' | b'\t')) else { return false };
    line.get(5).is_some_and(u8::is_ascii_digit)
        && space <= 16
        && line[space..].trim_ascii_start().first().is_some_and(u8::is_ascii_digit)
}

/// Which starts are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Request,
    Response,
    Either,
}

/// Bytes before the end of the searched bytes within which a start may still be undecided.
pub(super) const UNDECIDED: usize = 16;

/// A message start that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where the message starts.
    pub(super) at: usize,
    /// Bytes that it took to tell.
    pub(super) whole: usize,
}

/// Finds message starts in bytes whose framing is unknown.
pub(crate) struct Searcher(Finder<'static>);

impl Searcher {
    pub(crate) fn new() -> Self {
        Self(Finder::new(b"HTTP/1."))
    }

    /// Returns the first message start whose `HTTP/1.` is at `from` or later: a status line
    /// `HTTP/1.x ddd`, at any place, or a request line `METHOD SP target SP HTTP/1.x` and a line end, whose method may
    /// directly follow other bytes (a form body does not end its line). At the start of a line, or of the bytes, the
    /// target may hold spaces.
    ///
    /// Linear: looks back at most `line_max` bytes from a hit, and never past the hit before.
    pub(super) fn find(&self, bytes: &[u8], from: usize, want: Want, line_max: usize) -> Option<Found> {
        #[cfg(test)]
        super::examined::add(bytes.len() - from);
        for hit in self.0.find_iter(&bytes[from..]).map(|i| from + i) {
            let after = &bytes[hit + 7..];
            if want != Want::Request
                && let [d, b' ', a, b, c, b' ' | b'\r' | b'\n', ..] = after
                && [d, a, b, c].iter().all(|x| x.is_ascii_digit())
            {
                return Some(Found { at: hit, whole: hit + 13 });
            }
            if want != Want::Response
                && let [d, b'\n', ..] | [d, b'\r', b'\n', ..] = after
                && d.is_ascii_digit()
                && let Some(at) = request_start(bytes, hit, line_max)
            {
                return Some(Found { at, whole: hit + if after[1] == b'\n' { 9 } else { 10 } });
            }
        }
        None
    }

    /// Returns from where the searched `bytes` must be kept for a later [`Searcher::find`].
    pub(super) fn keep_from(bytes: &[u8], want: Want, line_max: usize) -> usize {
        if want == Want::Response {
            return bytes.len().saturating_sub(UNDECIDED);
        }
        let floor = bytes.len().saturating_sub(line_max + UNDECIDED);
        memchr::memrchr(b'\n', &bytes[floor..]).map_or(floor, |i| floor + i + 1)
    }
}

fn request_start(bytes: &[u8], hit: usize, line_max: usize) -> Option<usize> {
    let floor = hit.saturating_sub(line_max);
    let space = hit.checked_sub(1).filter(|i| bytes[*i] == b' ' && *i > floor)?;
    // A whole line that begins as a request does is one, whatever is in its target.
    let line = match memchr::memrchr(b'\n', &bytes[floor..space]) {
        Some(end) => Some(floor + end + 1),
        None => (hit < line_max).then_some(0),
    };
    if let Some(line) = line
        && begins_request(&bytes[line..space])
    {
        return Some(line);
    }
    let before_target = floor + memchr::memrchr(b' ', &bytes[floor..space])?;
    let target = &bytes[before_target + 1..space];
    if target.is_empty() || target.iter().any(|b| *b <= b' ') {
        return None;
    }
    let words = &bytes[floor..before_target];
    let method = METHODS.iter().filter(|m| words.ends_with(m)).max_by_key(|m| m.len())?;
    Some(before_target - method.len())
}

/// `METHOD SP /`, and no control character but a tab after it.
fn begins_request(line: &[u8]) -> bool {
    let Some(end) = line.iter().take(METHOD_BYTES_MAX + 1).position(|b| *b == b' ') else { return false };
    line.get(end + 1) == Some(&b'/')
        && is_known_method(&line[..end])
        && line[end..].iter().all(|b| matches!(b, b'\t' | b' '..=b'~' | 0x80..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sniff_is_the_same_for_every_cut() {
        for (line, want) in [
            (&b"GET / HTTP/1.1\r\n"[..], Sniff::Request),
            (b"FOO /x HTTP/1.0\n", Sniff::Request),
            (b"GET /x y HTTP/1.1\r\n", Sniff::Request),
            (b"GET /old\r\n", Sniff::Request09),
            (b"HTTP/1.1 200 OK\r\n", Sniff::Response),
            (b"HTTP/1.1  200\r\n", Sniff::Response),
            (b"HTTP/x\r\n", Sniff::Junk),
            (b"HTTP/1.1 OK\r\n", Sniff::Junk),
            (b"PRI * HTTP/2.0\r\n", Sniff::Http2),
            (b"EHLO mail.example\r\n", Sniff::Junk),
            (b"220 mail.example ESMTP\r\n", Sniff::Junk),
            (b"OPTIONS rtsp://x RTSP/1.0\r\n", Sniff::Junk),
            (b"HEAD 12\r\n", Sniff::Junk),
            (b"SSH-2.0-OpenSSH\r\n", Sniff::Junk),
            (b"\x16\x03\x01\x02\x00\n", Sniff::Junk),
            (b"A B C D E F G H I J K L M N O P Q R S T U V W X Y Z HTTP/1.1\n", Sniff::Junk),
        ] {
            let name = line.escape_ascii().to_string();
            assert_eq!(sniff(line, true, 32), want, "{name}");
            for cut in 1..line.len() {
                let got = sniff(&line[..cut], false, 32);
                assert!(got == Sniff::More || got == want, "{name} cut at {cut}: {got:?}");
            }
        }
    }

    #[test]
    fn search_finds_starts_where_framing_is_lost() {
        let s = Searcher::new();
        for (text, want, at) in [
            (&b"GET /x HTTP/1.1\r\n"[..], Want::Request, Some(0)),
            (b"a=b&pass=cGET /x HTTP/1.1\r\n", Want::Request, Some(10)),
            (b"ET /x HTTP/1.1\r\n", Want::Request, None),
            (b"GET /x HTTP/1.1", Want::Request, None),
            (b"GET /x y HTTP/1.1\r\n", Want::Request, Some(0)),
            (b"ab\nGET /x y z HTTP/1.1\r\n", Want::Either, Some(3)),
            (b"abGET /x y HTTP/1.1\r\n", Want::Request, None),
            (b"GET /x\0y z HTTP/1.1\r\n", Want::Request, None),
            (b"GET you this z HTTP/1.1\r\n", Want::Request, None),
            (b"xx\r\nPOST / HTTP/1.0\n", Want::Either, Some(4)),
            (b"{\"a\":1}HTTP/1.1 200 OK\r\n", Want::Response, Some(7)),
            (b"HTTP/1.1 20", Want::Response, None),
            (b"see HTTP/1.1 2000 HTTP/1.1 404\r\n", Want::Response, Some(18)),
            (b"HTTP/1.1 200 OK\r\n", Want::Request, None),
        ] {
            let found = s.find(text, 0, want, 64);
            assert_eq!(found.map(|f| f.at), at, "{}", text.escape_ascii());
            if let Some(Found { whole, .. }) = found {
                assert_eq!(s.find(&text[..whole], 0, want, 64), found, "{}", text.escape_ascii());
                assert_eq!(s.find(&text[..whole - 1], 0, want, 64), None, "{}", text.escape_ascii());
            }
        }
    }
}
