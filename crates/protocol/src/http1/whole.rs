//! Well-formed heads that lie in one piece, parsed in one pass.
//!
//! Takes what nearly all traffic is: CRLF line ends, registered methods, HTTP/1.0 or 1.1, token names with the colon
//! behind them, values without control characters. Everything else is `None` here and goes through
//! [`lenient`](super::parse::lenient), which says what is wrong with it; where both take a head they agree
//! (`whole_and_lenient_agree`), and whatever this takes httparse takes too (`oracle`).

use offpath_types::HttpVersion;

use super::framing::{FramingFields, trim_ows};
use super::lanes::{self, Controls};
use super::parse::{HEADERS_CAP, Head, Headers, StartLine, is_odd_in_target};
use super::sniff;
use crate::head::Header;

/// Parses a well-formed request head at the start of `bytes`; returns it with its length.
///
/// `None` where it is unfinished, has more than `headers_max` fields or is not well formed. Cost: each byte of the
/// head is looked at once or twice, and less than a block past it.
pub(super) fn request<'a>(
    bytes: &'a [u8],
    headers_max: usize,
    headers: &mut Headers<'a>,
) -> Option<(Head<'a>, usize)> {
    #[cfg(test)]
    super::examined::add(bytes.len());
    let method = &bytes[..bytes.iter().take(METHOD_BYTES_MAX + 1).position(|b| *b == b' ')?];
    if !sniff::is_known_method(method) {
        return None;
    }
    let mut controls = Controls::new(bytes);
    let line_end = controls.next(bytes, method.len() + 1)?;
    let line = &bytes[method.len() + 1..line_end];
    let (version, target) = if let Some(target) = line.strip_suffix(b" HTTP/1.1") {
        (HttpVersion::V11, target)
    } else {
        (HttpVersion::V10, line.strip_suffix(b" HTTP/1.0")?)
    };
    if target.is_empty() || target.iter().fold(false, |odd, b| odd | is_odd_in_target(*b)) {
        return None;
    }
    let mut framing = FramingFields::default();
    let rest = fields(bytes, line_end, &mut controls, headers_max, headers, &mut framing)?;
    framing.finish(version == HttpVersion::V10);
    Some((Head { start: StartLine::Request { method, target }, version, framing }, bytes.len() - rest.len()))
}

/// The same for a response head.
pub(super) fn response<'a>(
    bytes: &'a [u8],
    headers_max: usize,
    headers: &mut Headers<'a>,
) -> Option<(Head<'a>, usize)> {
    let (version, rest) = if let Some(rest) = bytes.strip_prefix(b"HTTP/1.1 ") {
        (HttpVersion::V11, rest)
    } else {
        (HttpVersion::V10, bytes.strip_prefix(b"HTTP/1.0 ")?)
    };
    let [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', rest @ ..] = rest else { return None };
    let status = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
    let mut controls = Controls::new(bytes);
    let line_end = text_end(&mut controls, bytes, bytes.len() - rest.len())?;
    let mut framing = FramingFields::default();
    let rest = fields(bytes, line_end, &mut controls, headers_max, headers, &mut framing)?;
    framing.finish(version == HttpVersion::V10);
    Some((Head { start: StartLine::Response { status }, version, framing }, bytes.len() - rest.len()))
}

/// Longest method looked at; registered ones are shorter.
const METHOD_BYTES_MAX: usize = 32;

/// Reads the header lines behind the start line, which ends at `line_end`; returns what follows the blank line.
#[inline]
fn fields<'a>(
    bytes: &'a [u8],
    line_end: usize,
    controls: &mut Controls,
    headers_max: usize,
    headers: &mut Headers<'a>,
    framing: &mut FramingFields,
) -> Option<&'a [u8]> {
    let room = headers_max.min(HEADERS_CAP);
    let mut at = line_end;
    loop {
        let [b'\r', b'\n', line @ ..] = &bytes[at..] else { return None };
        let name_len = token(line)?;
        if name_len == 0 {
            // The blank line, or, where this one is continued (obs-fold), none of this parser's.
            return line.strip_prefix(b"\r\n");
        }
        let (name, after) = line.split_at(name_len);
        if after[0] != b':' || headers.len() >= room {
            return None;
        }
        // The colon, and as a rule one space.
        let start = bytes.len() - after.len() + if let [_, b' ', ..] = after { 2 } else { 1 };
        at = text_end(controls, bytes, start)?;
        let mut value = &bytes[start..at];
        if let [0..=b' ', ..] | [.., 0..=b' '] = value {
            value = trim_ows(value);
        }
        // Of this length there are many names, and one of them is Content-Length or Transfer-Encoding.
        if matches!((name_len, name[0]), (14, b'C' | b'c') | (17, b'T' | b't')) {
            framing.note(name, value, false);
        }
        headers.push(Header { name, value });
    }
}

/// Returns where the run of text at `from` ends: no control character but the tab. `None` where it does not end.
#[inline]
fn text_end(controls: &mut Controls, bytes: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = controls.next(bytes, from)?;
        if bytes[at] != b'\t' {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Length of the run of token characters that `bytes` begins with; `None` where it does not end.
///
/// Letters and dashes, which is what nearly all names consist of, many at a time.
#[inline]
fn token(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(part) = bytes[from..].first_chunk() {
        let others = lanes::part_others(*part);
        if others != 0 {
            from += others.trailing_zeros() as usize;
            break;
        }
        from += lanes::PART;
    }
    bytes[from..].iter().position(|b| !TOKEN[usize::from(*b)]).map(|at| from + at)
}

/// Which bytes are token characters (RFC 9110 §5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = sniff::is_token(b as u8);
        b += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse::{lenient, unfold};
    use super::*;

    /// What this parser and the lenient one say of `head`, where this one takes it.
    fn check(request_head: bool, head: &[u8]) -> bool {
        let mut headers = Headers::new();
        let parsed =
            if request_head { request(head, 6, &mut headers) } else { response(head, 6, &mut headers) };
        let Some((fast, len)) = parsed else { return false };
        let name = head.escape_ascii().to_string();
        let head = &head[..len];
        assert!(unfold(head).is_none(), "{name}");
        let mut others = Headers::new();
        let slow = lenient(request_head, head, None, 6, |_| false, &mut others);
        assert_eq!(headers, others, "{name}");
        assert_eq!(format!("{:?}", fast.start), format!("{:?}", slow.start), "{name}");
        assert_eq!(fast.version, slow.version, "{name}");
        assert_eq!(fast.framing.anomalies, slow.framing.anomalies, "{name}");
        assert_eq!(fast.framing.request_body(), slow.framing.request_body(), "{name}");
        assert_eq!(fast.framing.response_body(), slow.framing.response_body(), "{name}");
        // An oracle: httparse takes it too, and finds the same end and the same fields.
        let mut slots = [httparse::EMPTY_HEADER; 8];
        let (done, fields) = if request_head {
            let mut parsed = httparse::Request::new(&mut slots);
            (parsed.parse(head), parsed.headers.len())
        } else {
            let mut parsed = httparse::Response::new(&mut slots);
            (parsed.parse(head), parsed.headers.len())
        };
        assert_eq!(done, Ok(httparse::Status::Complete(len)), "{name}");
        assert_eq!(fields, headers.len(), "{name}");
        let same = slots.iter().zip(&headers).all(|(a, b)| (a.name.as_bytes(), a.value) == (b.name, b.value));
        assert!(same, "{name}");
        true
    }

    #[test]
    fn takes_what_is_well_formed_and_nothing_else() {
        for (head, taken) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], true),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\nbody", true),
            (b"POST /a?b=c HTTP/1.0\r\nContent-Length: 3\r\nA:b\r\nEmpty:\r\nTabs:\t a\tb \t\r\n\r\n", true),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\nContent-Length: 1\r\n\r\n", true),
            (
                b"GET / HTTP/1.1\r\nA: \xff\x80long enough to fill some words of eight bytes each\r\n\r\n",
                true,
            ),
            (b"GET / HTTP/1.1\r\n1:\r\n2:\r\n3:\r\n4:\r\n5:\r\n6:\r\n\r\n", true),
            (b"GET / HTTP/1.1\r\n1:\r\n2:\r\n3:\r\n4:\r\n5:\r\n6:\r\n7:\r\n\r\n", false),
            (b"GET / HTTP/1.1\r\n", false),
            (b"GET / HTTP/1.1\n\n", false),
            (b"GET / HTTP/1.1\r\nA: b\n\r\n", false),
            (b"GET / HTTP/1.1\r\nA: b\r\n\n", false),
            (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", false),
            (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", false),
            (b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n", false),
            (b"GET / HTTP/1.1\r\nA: b\x7f\r\n\r\n", false),
            (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", false),
            (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", false),
            (b"GET / HTTP/1.1\r\n: b\r\n\r\n", false),
            (b"GET  / HTTP/1.1\r\n\r\n", false),
            (b"GET /a b HTTP/1.1\r\n\r\n", false),
            (b"GET /\" HTTP/1.1\r\n\r\n", false),
            (b"GET /\xff HTTP/1.1\r\n\r\n", false),
            (b"GET  HTTP/1.1\r\n\r\n", false),
            (b"BREW /pot HTTP/1.1\r\n\r\n", false),
            (b"GET / HTTP/1.2\r\n\r\n", false),
        ] {
            assert_eq!(check(true, head), taken, "{}", head.escape_ascii());
        }
        for (head, taken) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], true),
            (b"HTTP/1.0 999 \r\nContent-Length: 0\r\n\r\n", true),
            (b"HTTP/1.1 404 Nicht gefunden\t\xe4\r\n\r\n", true),
            (b"HTTP/1.1 200\r\n\r\n", false),
            (b"HTTP/1.1  200 OK\r\n\r\n", false),
            (b"HTTP/1.1 2000 OK\r\n\r\n", false),
            (b"HTTP/1.1 099 OK\r\n\r\n", false),
            (b"HTTP/1.1 200 O\x01K\r\n\r\n", false),
            (b"HTTP/2 200 OK\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\n\r\n", false),
        ] {
            assert_eq!(check(false, head), taken, "{}", head.escape_ascii());
        }
    }

    #[test]
    fn every_beginning_is_unfinished() {
        let head = b"POST /a HTTP/1.1\r\nHost: example.test\r\nContent-Length: 12\r\n\r\n";
        for len in 0..head.len() {
            assert!(request(&head[..len], 8, &mut Headers::new()).is_none(), "{len}");
        }
        let head = b"HTTP/1.1 200 OK\r\nServer: a\r\nContent-Length: 12\r\n\r\n";
        for len in 0..head.len() {
            assert!(response(&head[..len], 8, &mut Headers::new()).is_none(), "{len}");
        }
    }

    #[test]
    fn a_token_ends_wherever_something_else_stands() {
        for len in 0..40 {
            for at in 0..len {
                for byte in 0..=255u8 {
                    let mut bytes = vec![b'x'; len];
                    bytes[at] = byte;
                    let other = !sniff::is_token(byte);
                    assert_eq!(token(&bytes), other.then_some(at), "{len} {at} {byte}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whole_and_lenient_agree(
            is_request: bool,
            lines in prop::collection::vec("[ -~\t]{0,30}|[A-Za-z-]{1,18}: ?[ -~\t\u{80}-\u{ff}]{0,40}|Content-Length: [0-9,]{0,4}|Transfer-Encoding:[a-z, ]{0,12}", 0..8),
            ends in prop::collection::vec(prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r"]), 9),
        ) {
            let mut head = Vec::new();
            head.extend_from_slice(if is_request { b"GET /path?q HTTP/1.1" } else { b"HTTP/1.1 200 OK" });
            for (line, end) in lines.iter().map(String::as_str).zip(&ends) {
                head.extend_from_slice(end.as_bytes());
                head.extend_from_slice(line.as_bytes());
            }
            head.extend_from_slice(ends[8].as_bytes());
            head.extend_from_slice(b"\r\n");
            check(is_request, &head);
        }
    }
}
