//! What is kept of a body while it passes, and how it is made readable at its end.
//!
//! ```text
//! push push push … ─▶ kept (capped, as on the wire after dechunking) ─▶ inflate (capped) ─▶ fields, hints
//! ```
//! The pieces only ever go into one buffer, so how the body was cut cannot matter.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use zeroize::Zeroize;

use super::fields::parameter;
use super::secret::SecretBuf;

/// How many bytes one compressed byte may become. Text stays far below; zeros would reach 1000.
const RATIO_MAX: usize = 200;
/// Longest multipart boundary that is looked for (RFC 2046 §5.1.1 allows 70).
const BOUNDARY_BYTES_MAX: usize = 200;
/// Capacity that a reused buffer keeps.
const SPARE_BYTES_MAX: usize = 8 << 10;

/// What a body is said to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Form,
    Multipart,
    /// HTML or text (responses).
    Text,
    /// Not said, or something that says little: the first bytes decide.
    #[default]
    Sniff,
}

/// How a body is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Coding {
    #[default]
    Identity,
    Gzip,
    Deflate,
}

/// The part of one body that is looked into. Wiped when it is dropped.
#[derive(Default)]
pub struct BodyTap {
    pub(super) format: Format,
    pub(super) coding: Coding,
    pub(super) boundary: Vec<u8>,
    kept: SecretBuf,
    kept_max: usize,
    capped: bool,
    gap: bool,
}

/// Where the bytes of a push went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pushed {
    pub(super) kept: usize,
    pub(super) over_cap: usize,
    pub(super) after_gap: usize,
}

impl BodyTap {
    /// Makes a used tap ready for another body.
    pub(super) fn begin(&mut self, format: Format, coding: Coding, boundary: &[u8], kept_max: usize) {
        self.kept.clear();
        self.kept.shrink(SPARE_BYTES_MAX);
        self.boundary.clear();
        self.boundary.extend_from_slice(boundary);
        (self.format, self.coding, self.kept_max, self.capped, self.gap) =
            (format, coding, kept_max, false, false);
    }

    /// Wipes what was kept.
    pub(super) fn end(&mut self) {
        self.begin(Format::Sniff, Coding::Identity, b"", 0);
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Pushed {
        if self.gap {
            return Pushed { kept: 0, over_cap: 0, after_gap: bytes.len() };
        }
        let take = bytes.len().min(self.kept_max.saturating_sub(self.kept.len()));
        self.kept.extend(&bytes[..take]);
        self.capped |= take < bytes.len();
        Pushed { kept: take, over_cap: bytes.len() - take, after_gap: 0 }
    }

    pub(super) fn gap(&mut self) {
        self.gap = true;
    }

    pub(super) fn capped(&self) -> bool {
        self.capped
    }

    /// Tells whether bytes are missing that the body had.
    pub(super) fn cut(&self) -> bool {
        self.capped || self.gap
    }

    pub(super) fn kept(&self) -> &[u8] {
        self.kept.bytes()
    }

    pub(super) fn kept_mut(&mut self) -> &mut [u8] {
        self.kept.bytes_mut()
    }

    /// Replaces what was kept by its decompression, at most as long as `kept_max`; `spare` is scratch.
    pub(super) fn inflate(&mut self, spare: &mut SecretBuf) -> Inflated {
        spare.clear();
        let limit = self.kept_max.min(self.kept.len().saturating_mul(RATIO_MAX));
        let input = self.kept.bytes();
        let result = match self.coding {
            _ if input.is_empty() => return Inflated::Whole,
            Coding::Identity => return Inflated::Whole,
            Coding::Gzip => read_capped(MultiGzDecoder::new(input), limit, spare),
            Coding::Deflate => match read_capped(ZlibDecoder::new(input), limit, spare) {
                // Some senders leave the zlib wrapper out.
                Inflated::Broken if spare.len() == 0 => read_capped(DeflateDecoder::new(input), limit, spare),
                other => other,
            },
        };
        std::mem::swap(&mut self.kept, spare);
        spare.clear();
        result
    }
}

/// How a decompression went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inflated {
    /// To the end.
    Whole,
    /// Longer than the limit.
    Capped,
    /// Broken off; what came before is there.
    Broken,
}

fn read_capped(mut from: impl Read, limit: usize, out: &mut SecretBuf) -> Inflated {
    let mut piece = [0; 2048];
    let result = loop {
        match from.read(&mut piece) {
            Ok(0) => break Inflated::Whole,
            Ok(len) => {
                let take = len.min(limit - out.len());
                out.extend(&piece[..take]);
                if take < len {
                    break Inflated::Capped;
                }
            }
            Err(_) => break Inflated::Broken,
        }
    };
    piece.as_mut_slice().zeroize();
    result
}

/// What a body's headers say of whether it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readable<'a> {
    /// Yes.
    As(Format, Coding, &'a [u8]),
    /// A type that holds no fields: images, protobuf …
    TypeUnread,
    /// br, zstd, or more than one coding.
    CodingUnread,
}

/// Reads Content-Type and Content-Encoding; `response` where HTML is wanted and forms are not.
pub(super) fn readable<'a>(
    content_type: Option<&'a [u8]>,
    encoding: Option<&[u8]>,
    response: bool,
) -> Readable<'a> {
    let content_type = content_type.unwrap_or_default();
    let media = media_type(content_type);
    let is = |known: &str| media.eq_ignore_ascii_case(known.as_bytes());
    let ends = |end: &str| {
        media.len() > end.len() && media[media.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
    };
    let format = if is("application/json")
        || is("text/json")
        || ends("+json")
        || is("application/x-ndjson")
        || is("application/graphql")
    {
        Format::Json
    } else if is("application/x-www-form-urlencoded") && !response {
        Format::Form
    } else if is("multipart/form-data") && !response {
        Format::Multipart
    } else if response && (is("text/html") || is("application/xhtml+xml")) {
        Format::Text
    } else if media.is_empty()
        || is("text/plain")
        || is("text/javascript") && !response
        || (is("application/octet-stream") || is("*/*")) && !response
    {
        Format::Sniff
    } else {
        return Readable::TypeUnread;
    };
    let coding = match encoding.map(<[u8]>::trim_ascii) {
        None | Some(b"") => Coding::Identity,
        Some(c) if c.eq_ignore_ascii_case(b"identity") => Coding::Identity,
        Some(c) if c.eq_ignore_ascii_case(b"gzip") || c.eq_ignore_ascii_case(b"x-gzip") => Coding::Gzip,
        Some(c) if c.eq_ignore_ascii_case(b"deflate") => Coding::Deflate,
        Some(_) => return Readable::CodingUnread,
    };
    let boundary = match format {
        Format::Multipart => match parameter(content_type, b"boundary") {
            Some(b) if (1..=BOUNDARY_BYTES_MAX).contains(&b.len()) => b,
            _ => return Readable::TypeUnread,
        },
        _ => b"",
    };
    Readable::As(format, coding, boundary)
}

/// Returns a content type without its parameters.
pub(super) fn media_type(content_type: &[u8]) -> &[u8] {
    content_type[..memchr::memchr(b';', content_type).unwrap_or(content_type.len())].trim_ascii()
}

/// Tells from the first bytes what a request body is, if it is anything that has fields.
pub(super) fn sniff(bytes: &[u8]) -> Option<Format> {
    const FORM_NAME_BYTES_MAX: usize = 64;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    match bytes.first()? {
        b'{' | b'[' => return Some(Format::Json),
        _ => {}
    }
    let equals = bytes.iter().take(FORM_NAME_BYTES_MAX).position(|c| *c == b'=')?;
    let name = |c: &u8| c.is_ascii_alphanumeric() || b"_-.[]%$:+&".contains(c);
    (equals > 0 && bytes[..equals].iter().all(name)).then_some(Format::Form)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn headers_say_what_can_be_read() {
        use Coding::*;
        use Format::*;
        for (content_type, encoding, response, want) in [
            (
                Some("application/json; charset=utf-8"),
                None,
                false,
                Readable::As(Json, Identity, b"" as &[u8]),
            ),
            (Some("application/vnd.api+json"), Some("gzip"), false, Readable::As(Json, Gzip, b"")),
            (
                Some("application/x-www-form-urlencoded"),
                Some("deflate"),
                false,
                Readable::As(Form, Deflate, b""),
            ),
            (
                Some("multipart/form-data; boundary=\"x y\""),
                None,
                false,
                Readable::As(Multipart, Identity, b"x y"),
            ),
            (Some("multipart/form-data"), None, false, Readable::TypeUnread),
            (None, None, false, Readable::As(Sniff, Identity, b"")),
            (Some("text/plain"), None, false, Readable::As(Sniff, Identity, b"")),
            (Some("image/png"), None, false, Readable::TypeUnread),
            (Some("application/json"), Some("br"), false, Readable::CodingUnread),
            (Some("application/json"), Some("gzip, gzip"), false, Readable::CodingUnread),
            (Some("text/html"), None, true, Readable::As(Text, Identity, b"")),
            (Some("text/html"), None, false, Readable::TypeUnread),
        ] {
            let got = readable(content_type.map(str::as_bytes), encoding.map(str::as_bytes), response);
            assert_eq!(got, want, "{content_type:?} {encoding:?}");
        }
    }

    #[test]
    fn sniffing() {
        for (text, want) in [
            ("{\"a\":1}", Some(Format::Json)),
            (" [1]", Some(Format::Json)),
            ("a=b", Some(Format::Form)),
            ("user%5Bx%5D=b", Some(Format::Form)),
            ("hello world = x", None),
            ("=", None),
            ("", None),
            ("\x00\x01=", None),
        ] {
            assert_eq!(sniff(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn pushes_are_capped_and_stop_at_a_gap() {
        let mut tap = BodyTap::default();
        tap.begin(Format::Json, Coding::Identity, b"", 5);
        assert_eq!(tap.push(b"abc"), Pushed { kept: 3, over_cap: 0, after_gap: 0 });
        assert!(!tap.cut());
        assert_eq!(tap.push(b"defg"), Pushed { kept: 2, over_cap: 2, after_gap: 0 });
        assert!(tap.capped());
        tap.gap();
        assert_eq!(tap.push(b"hi"), Pushed { kept: 0, over_cap: 0, after_gap: 2 });
        assert_eq!(tap.kept(), b"abcde");
        tap.end();
        assert!(tap.kept().is_empty() && !tap.cut());
    }

    fn inflated(coding: Coding, bytes: &[u8], max: usize) -> (Vec<u8>, Inflated) {
        let mut tap = BodyTap::default();
        tap.begin(Format::Json, coding, b"", max);
        tap.push(bytes);
        let result = tap.inflate(&mut SecretBuf::default());
        (tap.kept().to_vec(), result)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut z = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        z.write_all(text).unwrap();
        z.finish().unwrap()
    }

    #[test]
    fn compressed_bodies() {
        let text: Vec<u8> =
            (0..500u32).flat_map(|i| format!("{{\"k{i}\":{}}}", i * 7919).into_bytes()).collect();
        let packed = gzip(&text);
        assert_eq!(inflated(Coding::Gzip, &packed, 1 << 16), (text.clone(), Inflated::Whole));
        for end in 0..packed.len() {
            let (got, result) = inflated(Coding::Gzip, &packed[..end], 1 << 16);
            assert!(text.starts_with(&got), "{end}");
            assert_eq!(result, if end == 0 { Inflated::Whole } else { Inflated::Broken }, "{end}");
        }
        let mut z = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        z.write_all(&text).unwrap();
        assert_eq!(inflated(Coding::Deflate, &z.finish().unwrap(), 1 << 16).0, text);
        let mut z = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        z.write_all(&text).unwrap();
        assert_eq!(inflated(Coding::Deflate, &z.finish().unwrap(), 1 << 16).0, text);
        assert_eq!(inflated(Coding::Gzip, b"no gzip at all", 1 << 16), (vec![], Inflated::Broken));
    }

    #[test]
    fn bombs_stop_at_the_cap() {
        let bomb = gzip(&vec![0; 8 << 20]);
        let (got, result) = inflated(Coding::Gzip, &bomb, 1 << 16);
        assert_eq!((got.len(), result), (1 << 16, Inflated::Capped));
        let (got, result) = inflated(Coding::Gzip, &gzip(&vec![0; 50_000]), 1 << 20);
        assert_eq!(result, Inflated::Capped);
        assert!(got.len() < 50_000, "the ratio caps it");
    }
}
