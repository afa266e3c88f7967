//! Heads that are not well formed: a parser that never refuses and says what is wrong.

use offpath_types::{Anomaly, HttpVersion};
use smallvec::SmallVec;

use super::framing::{FramingFields, trim_ows};
use super::sniff;
use crate::head::Header;

/// Header fields of the head at hand; on the stack for ordinary heads.
pub(super) type Headers<'a> = SmallVec<[Header<'a>; 48]>;

/// Most fields that are kept of a head, whatever `headers_max` says.
pub(super) const HEADERS_CAP: usize = 256;

/// The first line of a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum StartLine<'a> {
    Request { method: &'a [u8], target: &'a [u8] },
    Response { status: u16 },
}

/// A parsed head without its fields, which are in a [`Headers`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) start: StartLine<'a>,
    pub(super) version: HttpVersion,
    pub(super) framing: FramingFields,
}

fn check_method(method: &[u8], framing: &mut FramingFields) {
    if !sniff::is_known_method(method) {
        framing.anomalies.insert(Anomaly::MethodUnknown);
    }
}

/// Bytes that RFC 3986 forbids and that browsers escape too. (`|`, `^`, `{` and the like are forbidden as
/// well, but browsers send them raw in queries, so they say nothing.)
pub(crate) fn is_odd_in_target(b: u8) -> bool {
    b <= b' ' || b >= 0x7f || matches!(b, b'"' | b'<' | b'>' | b'\\' | b'#')
}

/// A head whose folded lines were joined.
pub(super) struct Unfolded {
    /// The head with each fold's line end replaced by spaces: same length, same offsets.
    pub(super) bytes: Vec<u8>,
    /// Where the lines begin that were continued.
    lines: Vec<usize>,
}

/// Joins folded header lines (RFC 9112 §5.2); `None` where there are none. A first header line that
/// begins with white space continues nothing and is left alone.
pub(super) fn unfold(head: &[u8]) -> Option<Unfolded> {
    #[cfg(test)]
    super::examined::add(head.len());
    let first = memchr::memchr(b'\n', head)? + 1;
    let mut out: Option<Unfolded> = None;
    let (mut line, mut joined) = (first, false);
    let mut at = first;
    while let Some(end) = memchr::memchr(b'\n', &head[at..]).map(|i| at + i) {
        let starts_odd = matches!(head.get(line), Some(b' ' | b'\t')) && line == first;
        if matches!(head.get(end + 1), Some(b' ' | b'\t')) && !starts_odd {
            let copy = out.get_or_insert_with(|| Unfolded { bytes: head.to_vec(), lines: Vec::new() });
            copy.bytes[end] = b' ';
            if end > at && head[end - 1] == b'\r' {
                copy.bytes[end - 1] = b' ';
            }
            if !joined {
                copy.lines.push(line);
            }
            joined = true;
        } else {
            line = end + 1;
            joined = false;
        }
        at = end + 1;
    }
    out
}

/// Parses any head, marking what is wrong with it. `head` starts with a start line that [`sniff`] accepted;
/// it may lack its end (cut or over the limit): an unfinished last line is then left out. Fields past `headers_max` are
/// left out unless `keeps` wants them: nobody may hide one behind others. What that costs is bounded by the head's length.
pub(super) fn lenient<'a>(
    request: bool,
    head: &'a [u8],
    unfolded: Option<&'a Unfolded>,
    headers_max: usize,
    keeps: impl Fn(&[u8]) -> bool,
    headers: &mut Headers<'a>,
) -> Head<'a> {
    #[cfg(test)]
    super::examined::add(head.len());
    let bytes = unfolded.map_or(head, |u| &u.bytes[..]);
    let mut folded = unfolded.map_or(&[][..], |u| &u.lines[..]).iter().peekable();
    let mut framing = FramingFields::default();
    if unfolded.is_some() {
        framing.anomalies.insert(Anomaly::ObsFold);
    }
    let first_end = memchr::memchr(b'\n', bytes);
    let first = clean_line(&bytes[..first_end.unwrap_or(bytes.len())], first_end.is_some(), &mut framing);
    let (start, version) = if request {
        request_line(first, first_end.is_some(), &mut framing)
    } else {
        status_line(first, &mut framing)
    };
    let mut at = first_end.map_or(bytes.len(), |e| e + 1);
    while let Some(end) = memchr::memchr(b'\n', &bytes[at..]).map(|i| at + i) {
        let was_folded = folded.next_if(|l| **l == at).is_some();
        let line = clean_line(&bytes[at..end], true, &mut framing);
        at = end + 1;
        if line.is_empty() {
            break;
        }
        if matches!(line[0], b' ' | b'\t') {
            framing.anomalies.insert(Anomaly::ObsFold);
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            framing.anomalies.insert(Anomaly::HeaderLineInvalid);
            continue;
        };
        let name = line[..colon].trim_ascii();
        let spaced = name.len() != colon;
        if spaced {
            framing.anomalies.insert(Anomaly::SpaceBeforeColon);
        }
        if name.is_empty() || !name.iter().all(|b| sniff::is_token(*b)) {
            framing.anomalies.insert(Anomaly::HeaderNameInvalid);
        }
        let value = trim_ows(&line[colon + 1..]);
        framing.note(name, value, spaced || was_folded);
        if headers.len() < headers_max.min(HEADERS_CAP) {
            headers.push(Header { name, value });
        } else {
            framing.anomalies.insert(Anomaly::HeaderCountExceeded);
            if keeps(name) {
                headers.push(Header { name, value });
            }
        }
    }
    framing.finish(version == HttpVersion::V10);
    Head { start, version, framing }
}

/// Takes the line end off and marks bare line ends and control characters.
fn clean_line<'a>(line: &'a [u8], ended: bool, framing: &mut FramingFields) -> &'a [u8] {
    let (line, cr) = match line {
        [rest @ .., b'\r'] => (rest, true),
        _ => (line, false),
    };
    if ended && !cr {
        framing.anomalies.insert(Anomaly::BareLf);
    }
    for b in line {
        match b {
            b'\r' => framing.anomalies.insert(Anomaly::BareCr),
            b'\t' => {}
            0..=0x1f | 0x7f => framing.anomalies.insert(Anomaly::ControlCharacter),
            _ => {}
        }
    }
    line
}

fn request_line<'a>(
    line: &'a [u8],
    ended: bool,
    framing: &mut FramingFields,
) -> (StartLine<'a>, HttpVersion) {
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let method_end = line.iter().position(is_space).unwrap_or(line.len());
    let (method, rest) = line.split_at(method_end);
    check_method(method, framing);
    let mut odd_spaces = rest.first() == Some(&b'\t') || matches!(rest.get(1), Some(b' ' | b'\t'));
    let rest = trim_ows(rest);
    let (target, word) = match rest.iter().rposition(is_space) {
        Some(i) if sniff::is_version_like(&rest[i + 1..]) => {
            odd_spaces |= rest[i] == b'\t' || (i > 0 && is_space(&rest[i - 1]));
            (trim_ows(&rest[..i]), Some(&rest[i + 1..]))
        }
        _ => (rest, None),
    };
    if odd_spaces || target.iter().any(is_space) {
        framing.anomalies.insert(Anomaly::RequestLineInvalid);
    }
    if target.iter().any(|b| is_odd_in_target(*b)) {
        framing.anomalies.insert(Anomaly::TargetInvalid);
    }
    // Servers disagree on what a target with spaces is (RFC 9112 §3 forbids to repair it). It is kept up to the first
    // one, as other analysers record it, so that records can be joined; the anomalies say that there was more.
    let target = target.split(is_space).next().unwrap_or(target);
    let version = match word {
        Some(word) => version(word, framing),
        // Cut at the limit: the version would have come.
        None if !ended => HttpVersion::V11,
        None => {
            framing.anomalies.insert(Anomaly::Http09);
            HttpVersion::V09
        }
    };
    (StartLine::Request { method, target }, version)
}

fn status_line<'a>(line: &'a [u8], framing: &mut FramingFields) -> (StartLine<'a>, HttpVersion) {
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let word_end = line.iter().position(is_space).unwrap_or(line.len());
    let (word, rest) = line.split_at(word_end);
    let version = version(word, framing);
    let digits = rest.trim_ascii_start();
    let code = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    let status = digits.iter().take(code.min(3)).fold(0u16, |n, b| n * 10 + u16::from(b - b'0'));
    if rest.len() - digits.len() != 1
        || rest.first() != Some(&b' ')
        || code != 3
        || status < 100
        || digits.get(3) != Some(&b' ')
    {
        framing.anomalies.insert(Anomaly::StatusLineInvalid);
    }
    (StartLine::Response { status }, version)
}

fn version(word: &[u8], framing: &mut FramingFields) -> HttpVersion {
    match word {
        b"HTTP/1.1" => HttpVersion::V11,
        b"HTTP/1.0" => HttpVersion::V10,
        _ => {
            framing.anomalies.insert(Anomaly::VersionInvalid);
            if word.ends_with(b"/1.0") { HttpVersion::V10 } else { HttpVersion::V11 }
        }
    }
}

/// Where a blank line would end a head: remembers just enough to go on with the next bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum BlankLine {
    /// Inside a line.
    #[default]
    Inside,
    /// Just after an LF.
    AfterLf,
    /// After LF CR.
    AfterLfCr,
}

impl BlankLine {
    /// Looks for the end of the blank line; returns how many of `bytes` it takes. Each byte is looked at once.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        #[cfg(test)]
        super::examined::add(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            match (*self, bytes[at]) {
                (Self::AfterLf | Self::AfterLfCr, b'\n') => return Some(at + 1),
                (Self::AfterLf, b'\r') => {
                    *self = Self::AfterLfCr;
                    at += 1;
                }
                _ => match memchr::memchr(b'\n', &bytes[at..]) {
                    Some(i) => {
                        *self = Self::AfterLf;
                        at += i + 1;
                    }
                    None => {
                        *self = Self::Inside;
                        return None;
                    }
                },
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_lenient(request: bool, head: &[u8], check: impl FnOnce(Head<'_>, &Headers<'_>)) {
        let unfolded = unfold(head);
        let mut headers = Headers::new();
        let parsed = lenient(request, head, unfolded.as_ref(), 4, |_| false, &mut headers);
        check(parsed, &headers);
    }

    #[test]
    fn blank_line_is_found_however_the_bytes_are_cut() {
        for (text, want) in [
            (&b"a\r\nb\r\n\r\nrest"[..], Some(8)),
            (b"a\n\nb", Some(3)),
            (b"a\n\r\nb", Some(4)),
            (b"a\r\n\r\r\n\r\n", Some(8)),
            (b"a\r\nb\r\n", None),
            (b"a\r\n \r\n\r\n", Some(8)),
        ] {
            for step in 1..=text.len() {
                let (mut scan, mut found) = (BlankLine::default(), None);
                for (i, part) in text.chunks(step).enumerate() {
                    if let Some(n) = scan.find(part) {
                        found = Some(i * step + n);
                        break;
                    }
                }
                assert_eq!(found, want, "{:?} by {step}", text.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn lenient_names_what_is_wrong() {
        use Anomaly as A;
        type Row<'a> = (&'a [u8], &'a [u8], &'a [u8], HttpVersion, &'a [Anomaly]);
        let rows: &[Row<'_>] = &[
            (b"GET / HTTP/1.1\r\nA: b\r\n\r\n", b"GET", b"/", HttpVersion::V11, &[]),
            (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", b"GET", b"/", HttpVersion::V11, &[A::SpaceBeforeColon]),
            (b"GET / HTTP/1.1\nA: b\n\n", b"GET", b"/", HttpVersion::V11, &[A::BareLf]),
            (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", b"GET", b"/", HttpVersion::V11, &[A::ObsFold]),
            (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", b"GET", b"/", HttpVersion::V11, &[A::ControlCharacter]),
            (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", b"GET", b"/", HttpVersion::V11, &[A::BareCr]),
            (b"GET / HTTP/1.1\r\nAb\r\n\r\n", b"GET", b"/", HttpVersion::V11, &[A::HeaderLineInvalid]),
            (b"GET / HTTP/1.1\r\nA(: b\r\n\r\n", b"GET", b"/", HttpVersion::V11, &[A::HeaderNameInvalid]),
            (
                b"GET /a b HTTP/1.1\r\n\r\n",
                b"GET",
                b"/a",
                HttpVersion::V11,
                &[A::RequestLineInvalid, A::TargetInvalid],
            ),
            (b"GET  / HTTP/1.1\r\n\r\n", b"GET", b"/", HttpVersion::V11, &[A::RequestLineInvalid]),
            (b"GET /\xff HTTP/1.1\r\n\r\n", b"GET", b"/\xff", HttpVersion::V11, &[A::TargetInvalid]),
            (b"GET / HTTP/1.7\r\n\r\n", b"GET", b"/", HttpVersion::V11, &[A::VersionInvalid]),
            (b"GET / http/1.0\r\n\r\n", b"GET", b"/", HttpVersion::V10, &[A::VersionInvalid]),
            (b"GET /\r\n", b"GET", b"/", HttpVersion::V09, &[A::Http09]),
            (b"BREW /pot HTTP/1.1\r\n\r\n", b"BREW", b"/pot", HttpVersion::V11, &[A::MethodUnknown]),
            (
                b"GET / HTTP/1.1\r\na:\r\nb:\r\nc:\r\nd:\r\ne:\r\n\r\n",
                b"GET",
                b"/",
                HttpVersion::V11,
                &[A::HeaderCountExceeded],
            ),
        ];
        for (head, method, target, version, anomalies) in rows {
            let name = head.escape_ascii().to_string();
            parse_lenient(true, head, |parsed, _| {
                let StartLine::Request { method: m, target: t } = parsed.start else { panic!("{name}") };
                assert_eq!((m, t, parsed.version), (*method, *target, *version), "{name}");
                assert_eq!(parsed.framing.anomalies.iter().collect::<Vec<_>>(), *anomalies, "{name}");
            });
        }
    }

    #[test]
    fn folded_lines_become_one_value() {
        parse_lenient(true, b"GET / HTTP/1.1\r\nA: b\r\n\tc\r\n  d\r\nE: f\r\n\r\n", |_, headers| {
            let got: Vec<_> = headers.iter().map(|h| (h.name, h.value)).collect();
            assert_eq!(got, [(&b"A"[..], &b"b  \tc    d"[..]), (b"E", b"f")]);
        });
        parse_lenient(true, b"GET / HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", |parsed, _| {
            assert!(parsed.framing.anomalies.contains(Anomaly::TransferEncodingObfuscated));
            assert_eq!(parsed.framing.request_body(), super::super::framing::Body::Chunked);
        });
    }

    #[test]
    fn status_lines() {
        for (line, status, odd) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], 200, false),
            (b"HTTP/1.1 200 \r\n\r\n", 200, false),
            (b"HTTP/1.1 200\r\n\r\n", 200, true),
            (b"HTTP/1.1  200 OK\r\n\r\n", 200, true),
            (b"HTTP/1.1 2000 OK\r\n\r\n", 200, true),
            (b"HTTP/1.1 099 OK\r\n\r\n", 99, true),
        ] {
            let name = line.escape_ascii().to_string();
            parse_lenient(false, line, |parsed, _| {
                assert!(matches!(parsed.start, StartLine::Response { status: s } if s == status), "{name}");
                assert_eq!(parsed.framing.anomalies.contains(Anomaly::StatusLineInvalid), odd, "{name}");
            });
        }
    }
}
