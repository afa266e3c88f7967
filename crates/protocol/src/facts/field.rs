//! Which header field a name is. A switch on its length, then at most a few comparisons of whole words.

/// What a header field is to the extraction of facts and to the fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Host,
    Connection,
    UserAgent,
    Accept,
    AcceptEncoding,
    AcceptLanguage,
    Cookie,
    Referer,
    ContentType,
    ContentLength,
    ContentEncoding,
    Authorization,
    XForwardedFor,
    Forwarded,
    XForwardedProto,
    SecChUa,
    SecFetchMode,
    Http2Settings,
    Upgrade,
    Location,
    SetCookie,
    /// Added by proxies on the way.
    Proxy,
    /// Comes and goes from request to request of one client.
    Volatile,
    /// Anything else: part of the client's make.
    Other,
}

impl Field {
    /// Classifies a name in any case.
    ///
    /// A name of up to 16 bytes is two words in lower case, and known by comparing those; of a longer one they say
    /// whether to look at what is between. This runs for every header line of the capture.
    pub(super) fn of(name: &[u8]) -> Self {
        let Some((head, tail)) = ends(name) else {
            return Self::of_odd(name);
        };
        macro_rules! is {
            ($known:literal) => {
                (head, tail) == const { lower_ends($known) }
            };
        }
        macro_rules! is_long {
            ($known:literal) => {
                is!($known) && same_middle(name, $known)
            };
        }
        match name.len() {
            4 if is!(b"host") => Self::Host,
            4 if is!(b"date") || is!(b"from") => Self::Volatile,
            5 if is!(b"range") => Self::Volatile,
            6 if is!(b"accept") => Self::Accept,
            6 if is!(b"cookie") => Self::Cookie,
            6 if is!(b"origin") || is!(b"expect") || is!(b"pragma") || is!(b"digest") => Self::Volatile,
            7 if is!(b"referer") => Self::Referer,
            7 if is!(b"upgrade") => Self::Upgrade,
            7 if is!(b"purpose") || is!(b"trailer") => Self::Volatile,
            7 if is!(b"api-key") => Self::Volatile,
            8 if is!(b"location") => Self::Location,
            8 if is!(b"if-match") || is!(b"if-range") || is!(b"priority") => Self::Volatile,
            8 if is!(b"cdn-loop") => Self::Proxy,
            9 if is!(b"forwarded") => Self::Forwarded,
            10 if is!(b"user-agent") => Self::UserAgent,
            10 if is!(b"connection") => Self::Connection,
            10 if is!(b"set-cookie") => Self::SetCookie,
            10 if is!(b"tracestate") => Self::Proxy,
            11 if is!(b"traceparent") => Self::Proxy,
            11 if is!(b"sec-purpose") => Self::Volatile,
            12 if is!(b"content-type") => Self::ContentType,
            12 if is!(b"max-forwards") => Self::Proxy,
            13 if is!(b"authorization") => Self::Authorization,
            13 if is!(b"if-none-match") || is!(b"cache-control") || is!(b"last-event-id") => Self::Volatile,
            14 if is!(b"content-length") => Self::ContentLength,
            14 if is!(b"sec-fetch-mode") => Self::SecFetchMode,
            14 if is!(b"http2-settings") => Self::Http2Settings,
            14 if is!(b"true-client-ip") => Self::Proxy,
            14 if is!(b"service-worker") => Self::Volatile,
            15 if is!(b"accept-encoding") => Self::AcceptEncoding,
            15 if is!(b"accept-language") => Self::AcceptLanguage,
            15 if is!(b"x-forwarded-for") => Self::XForwardedFor,
            15 if is!(b"idempotency-key") => Self::Volatile,
            16 if is!(b"content-encoding") => Self::ContentEncoding,
            17 if is_long!(b"x-forwarded-proto") => Self::XForwardedProto,
            17 if is_long!(b"if-modified-since") || is_long!(b"transfer-encoding") => Self::Volatile,
            19 if is_long!(b"if-unmodified-since") || is_long!(b"proxy-authorization") => Self::Volatile,
            25 if is_long!(b"upgrade-insecure-requests") => Self::Volatile,
            _ => Self::by_prefix(name),
        }
    }

    /// Classifies a name that is shorter than 4 bytes or has a control character at an end.
    fn of_odd(name: &[u8]) -> Self {
        if name.eq_ignore_ascii_case(b"via") { Self::Proxy } else { Self::by_prefix(name) }
    }

    fn by_prefix(name: &[u8]) -> Self {
        let starts = |prefix: &str| {
            name.get(..prefix.len()).is_some_and(|n| n.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        match name.first().map(u8::to_ascii_lowercase) {
            Some(b'x') if starts("x-") => Self::Proxy,
            Some(b's') if starts("sec-ch-") => {
                if name.len() == 9 && starts("sec-ch-ua") {
                    Self::SecChUa
                } else {
                    Self::Volatile
                }
            }
            Some(b's') if starts("sec-fetch-") || starts("sec-websocket-") => Self::Volatile,
            Some(b'c') if starts("content-") => Self::Volatile,
            Some(b'c') if starts("cf-") || starts("cloudfront-") => Self::Proxy,
            Some(b'f') if starts("fastly-") || starts("front-end-https") => Self::Proxy,
            Some(b'a') if starts("access-control-") => Self::Volatile,
            Some(b'a') if starts("akamai-") => Self::Proxy,
            _ => Self::Other,
        }
    }
}

/// Bit 5 of every byte: what tells a lower-case letter from its capital.
const CASE: u64 = 0x2020_2020_2020_2020;

/// Returns the first and the last 8 bytes of a name in lower case (4 and 4 where it is shorter than 8); `None` where it
/// is shorter than 4 and where setting bit 5 would make something else of a control character.
///
/// Capital letters and control characters aside, setting bit 5 changes only `@ [ \ ] ^ _`, into bytes that no known
/// name has.
#[inline]
fn ends(name: &[u8]) -> Option<(u64, u64)> {
    let (head, tail) = match name.len() {
        8.. => (u64::from_le_bytes(*name.first_chunk()?), u64::from_le_bytes(*name.last_chunk()?)),
        4..=7 => {
            // The upper half is filled with a byte that stays as it is.
            let widen = |half: &[u8; 4]| u64::from(u32::from_le_bytes(*half)) | 0x6060_6060 << 32;
            (widen(name.first_chunk()?), widen(name.last_chunk()?))
        }
        _ => return None,
    };
    // Not a control character: bit 5 or bit 6 is set.
    let printable = |word: u64| (word | word >> 1) & CASE == CASE;
    (printable(head) && printable(tail)).then_some((head | CASE, tail | CASE))
}

/// Compares what lies between the first and the last 8 bytes, without case.
fn same_middle(name: &[u8], known: &[u8]) -> bool {
    let end = name.len().min(known.len()).saturating_sub(8).max(8);
    matches!((name.get(8..end), known.get(8..end)), (Some(a), Some(b)) if a.eq_ignore_ascii_case(b))
}

/// The same of a known name, which is in lower case and has the same length.
const fn lower_ends(known: &[u8]) -> (u64, u64) {
    let len = known.len();
    let half = if len < 8 { 4 } else { 8 };
    let fill = if len < 8 { 0x6060_6060 << 32 } else { 0 };
    let (mut head, mut tail, mut at) = (fill, fill, 0);
    while at < half && half <= len {
        head |= (known[at] as u64) << (8 * at);
        tail |= (known[len - half + at] as u64) << (8 * at);
        at += 1;
    }
    (head, tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_case() {
        for (name, want) in [
            ("Host", Field::Host),
            ("hOST", Field::Host),
            ("user-agent", Field::UserAgent),
            ("ACCEPT-LANGUAGE", Field::AcceptLanguage),
            ("X-Forwarded-For", Field::XForwardedFor),
            ("X-Request-Id", Field::Proxy),
            ("sec-ch-ua", Field::SecChUa),
            ("Sec-CH-UA-Platform", Field::Volatile),
            ("Sec-Fetch-Mode", Field::SecFetchMode),
            ("Sec-Fetch-Dest", Field::Volatile),
            ("Content-Disposition", Field::Volatile),
            ("DNT", Field::Other),
            ("TE", Field::Other),
            ("", Field::Other),
            ("x", Field::Other),
            ("Via", Field::Proxy),
            ("Content-Encoding", Field::ContentEncoding),
            ("Transfer-Encoding", Field::Volatile),
            ("If-Unmodified-Since", Field::Volatile),
            ("Upgrade-Insecure-Requests", Field::Volatile),
            ("Upgrade-Insecurity-Requests", Field::Other),
            ("X-Forwarded-PROTO", Field::XForwardedProto),
            ("If-Modified.Since", Field::Other),
            ("Sec-CH-UA-Mobile", Field::Volatile),
            // Bit 5 alone does not make a letter or a dash.
            ("user\ragent", Field::Other),
            ("api\rkey", Field::Other),
            ("set_cookie", Field::Other),
            ("HOST\0", Field::Other),
            ("h\u{f}st", Field::Other),
        ] {
            assert_eq!(Field::of(name.as_bytes()), want, "{name}");
        }
    }
    #[test]
    fn one_changed_byte_makes_another_name() {
        for name in ["host", "cookie", "api-key", "location", "content-length", "content-encoding"] {
            let want = Field::of(name.as_bytes());
            for at in 0..name.len() {
                for byte in 0..=255u8 {
                    let mut other = name.as_bytes().to_vec();
                    other[at] = byte;
                    let same = other.eq_ignore_ascii_case(name.as_bytes());
                    let got = Field::of(&other);
                    // `content-…` and the like are volatile whatever follows.
                    assert!((got == want) == same || got == Field::Volatile, "{name} {at} {byte}");
                }
            }
        }
    }
}
