//! How long a body is: Content-Length and Transfer-Encoding as RFC 9112 §6.3 reads them.
//!
//! Conflicts are marked and then decided one way, stated at each rule: Transfer-Encoding beats
//! Content-Length, the first valid Content-Length beats later ones, `chunked` anywhere in the list counts.

use offpath_types::{Anomalies, Anomaly};

/// How the body that follows a head ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// No body.
    None,
    /// After this many bytes; never 0.
    Fixed(u64),
    /// By its own framing.
    Chunked,
    /// With the direction.
    Close,
}

/// What the framing fields of one head say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FramingFields {
    length: Option<u64>,
    length_seen: bool,
    coding_seen: bool,
    chunked: bool,
    chunked_last: bool,
    /// The oddities found, in framing or elsewhere in the head.
    pub(crate) anomalies: Anomalies,
}

impl FramingFields {
    /// Takes one header field; `odd` where it was written with a space before the colon or folded.
    pub(crate) fn note(&mut self, name: &[u8], value: &[u8], odd: bool) {
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => self.note_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if odd {
                    self.anomalies.insert(Anomaly::TransferEncodingObfuscated);
                }
                self.note_coding(value);
            }
            _ => {}
        }
    }

    fn note_length(&mut self, value: &[u8]) {
        for item in value.split(|b| *b == b',') {
            let again = std::mem::replace(&mut self.length_seen, true);
            match (decimal(item.trim_ascii()), self.length) {
                (None, _) => self.anomalies.insert(Anomaly::ContentLengthInvalid),
                (Some(n), None) => {
                    if again {
                        // An invalid one came before: two readers may pick different ones.
                        self.anomalies.insert(Anomaly::ContentLengthConflict);
                    }
                    self.length = Some(n);
                }
                (Some(n), Some(m)) if n == m => self.anomalies.insert(Anomaly::ContentLengthRepeated),
                (Some(_), Some(_)) => self.anomalies.insert(Anomaly::ContentLengthConflict),
            }
        }
    }

    fn note_coding(&mut self, value: &[u8]) {
        if std::mem::replace(&mut self.coding_seen, true) {
            self.anomalies.insert(Anomaly::TransferEncodingInvalid);
        }
        for item in value.split(|b| *b == b',') {
            let item = trim_ows(item);
            let known = |names: &[&[u8]]| names.iter().any(|n| item.eq_ignore_ascii_case(n));
            let chunked = item.eq_ignore_ascii_case(b"chunked");
            if chunked || is_chunked_in_disguise(item) {
                if !matches!(item, b"chunked" | b"Chunked" | b"CHUNKED") {
                    self.anomalies.insert(Anomaly::TransferEncodingObfuscated);
                }
                if self.chunked {
                    self.anomalies.insert(Anomaly::TransferEncodingInvalid);
                }
                self.chunked = true;
                self.chunked_last = true;
            } else if item.is_empty() {
                self.anomalies.insert(Anomaly::TransferEncodingObfuscated);
            } else {
                self.chunked_last = false;
                if !known(&[b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress"]) {
                    self.anomalies.insert(Anomaly::TransferEncodingInvalid);
                }
            }
        }
    }

    /// Marks what only the whole head shows, once all fields were noted.
    pub(crate) fn finish(&mut self, http10: bool) {
        if self.coding_seen {
            if self.length_seen {
                self.anomalies.insert(Anomaly::LengthAndTransferEncoding);
            }
            if !self.chunked_last {
                self.anomalies.insert(Anomaly::TransferEncodingInvalid);
            }
            if http10 {
                self.anomalies.insert(Anomaly::TransferEncodingInHttp10);
            }
        }
    }

    /// Tells whether the fields announce a body of at least a byte.
    pub(crate) fn announces_body(&self) -> bool {
        self.chunked || self.length.is_some_and(|n| n > 0)
    }

    /// Tells whether the fields say that there is no body, and leave no reader another choice.
    pub(crate) fn says_empty(&self) -> bool {
        let in_doubt = [Anomaly::ContentLengthInvalid, Anomaly::ContentLengthConflict];
        self.length == Some(0) && !self.coding_seen && !in_doubt.iter().any(|a| self.anomalies.contains(*a))
    }

    /// Returns what Content-Length says: the first that is valid.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Returns how a request's body ends: without valid fields there is none.
    pub(super) fn request_body(&self) -> Body {
        match (self.chunked, self.length) {
            (true, _) => Body::Chunked,
            (false, Some(n)) if n > 0 => Body::Fixed(n),
            _ => Body::None,
        }
    }

    /// Returns how a final response's body ends where its status and method allow one.
    pub(super) fn response_body(&self) -> Body {
        match (self.chunked, self.length) {
            (true, _) => Body::Chunked,
            (false, _) if self.coding_seen => Body::Close,
            (false, Some(0)) => Body::None,
            (false, Some(n)) => Body::Fixed(n),
            (false, None) => Body::Close,
        }
    }
}

/// Past 63 bits servers refuse or wrap around (RFC 9110 §8.6 asks them to take care): believing such a number would
/// hide everything that follows.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let value = digits.iter().try_fold(0u64, |n, b| {
        b.is_ascii_digit().then(|| n.checked_mul(10)?.checked_add(u64::from(b - b'0'))).flatten()
    })?;
    (value <= i64::MAX as u64).then_some(value)
}

/// Takes spaces and tabs off both ends (RFC 9110 §5.6.3).
pub(crate) fn trim_ows(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// `"chunked"`, `\x0bchunked`, `chunked;q=1`: what one parser takes for chunked and another does not.
fn is_chunked_in_disguise(item: &[u8]) -> bool {
    let item = item.split(|b| *b == b';').next().unwrap_or_default();
    item.len() <= 32
        && item
            .iter()
            .filter(|b| b.is_ascii_alphanumeric())
            .map(u8::to_ascii_lowercase)
            .eq(b"chunked".iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_decide_the_body() {
        use Anomaly as A;
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], Body, Body, &'a [Anomaly]);
        let rows: &[Row<'_>] = &[
            ("nothing", &[], Body::None, Body::Close, &[]),
            ("length", &[("Content-Length", "5")], Body::Fixed(5), Body::Fixed(5), &[]),
            ("zero", &[("content-length", "0")], Body::None, Body::None, &[]),
            (
                "list",
                &[("Content-Length", "5, 5")],
                Body::Fixed(5),
                Body::Fixed(5),
                &[A::ContentLengthRepeated],
            ),
            (
                "twice",
                &[("Content-Length", "5"), ("Content-Length", "6")],
                Body::Fixed(5),
                Body::Fixed(5),
                &[A::ContentLengthConflict],
            ),
            ("plus", &[("Content-Length", "+5")], Body::None, Body::Close, &[A::ContentLengthInvalid]),
            ("empty", &[("Content-Length", "")], Body::None, Body::Close, &[A::ContentLengthInvalid]),
            ("hex", &[("Content-Length", "0x5")], Body::None, Body::Close, &[A::ContentLengthInvalid]),
            (
                "huge",
                &[("Content-Length", "99999999999999999999")],
                Body::None,
                Body::Close,
                &[A::ContentLengthInvalid],
            ),
            (
                "past 63 bits",
                &[("Content-Length", "18446744073709551615")],
                Body::None,
                Body::Close,
                &[A::ContentLengthInvalid],
            ),
            (
                "bad then good",
                &[("Content-Length", "x, 7")],
                Body::Fixed(7),
                Body::Fixed(7),
                &[A::ContentLengthConflict, A::ContentLengthInvalid],
            ),
            ("chunked", &[("Transfer-Encoding", "chunked")], Body::Chunked, Body::Chunked, &[]),
            ("gzip, chunked", &[("Transfer-Encoding", "gzip, chunked")], Body::Chunked, Body::Chunked, &[]),
            (
                "both",
                &[("Transfer-Encoding", "chunked"), ("Content-Length", "3")],
                Body::Chunked,
                Body::Chunked,
                &[A::LengthAndTransferEncoding],
            ),
            (
                "not last",
                &[("Transfer-Encoding", "chunked, gzip")],
                Body::Chunked,
                Body::Chunked,
                &[A::TransferEncodingInvalid],
            ),
            (
                "gzip only",
                &[("Transfer-Encoding", "gzip")],
                Body::None,
                Body::Close,
                &[A::TransferEncodingInvalid],
            ),
            (
                "prefix",
                &[("Transfer-Encoding", "xchunked")],
                Body::None,
                Body::Close,
                &[A::TransferEncodingInvalid],
            ),
            (
                "vt",
                &[("Transfer-Encoding", "\x0bchunked")],
                Body::Chunked,
                Body::Chunked,
                &[A::TransferEncodingObfuscated],
            ),
            (
                "quoted",
                &[("Transfer-Encoding", "\"chunked\"")],
                Body::Chunked,
                Body::Chunked,
                &[A::TransferEncodingObfuscated],
            ),
            (
                "case",
                &[("Transfer-Encoding", "cHuNkEd")],
                Body::Chunked,
                Body::Chunked,
                &[A::TransferEncodingObfuscated],
            ),
            (
                "repeated",
                &[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
                Body::Chunked,
                Body::Chunked,
                &[A::TransferEncodingInvalid],
            ),
            (
                "identity",
                &[("Transfer-Encoding", "identity"), ("Content-Length", "4")],
                Body::Fixed(4),
                Body::Close,
                &[A::LengthAndTransferEncoding, A::TransferEncodingInvalid],
            ),
        ];
        for (name, fields, request, response, anomalies) in rows {
            let mut f = FramingFields::default();
            for (n, v) in *fields {
                f.note(n.as_bytes(), v.as_bytes(), false);
            }
            f.finish(false);
            assert_eq!(f.request_body(), *request, "{name}: request");
            assert_eq!(f.response_body(), *response, "{name}: response");
            assert_eq!(f.anomalies.iter().collect::<Vec<_>>(), *anomalies, "{name}");
        }
    }
}
