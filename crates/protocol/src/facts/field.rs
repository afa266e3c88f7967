//! Which header field a name is. A switch on its length, then at most a few comparisons.

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
    pub(super) fn of(name: &[u8]) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            3 if is("via") => Self::Proxy,
            4 if is("host") => Self::Host,
            4 if is("date") || is("from") => Self::Volatile,
            5 if is("range") => Self::Volatile,
            6 if is("accept") => Self::Accept,
            6 if is("cookie") => Self::Cookie,
            6 if is("origin") || is("expect") || is("pragma") || is("digest") => Self::Volatile,
            7 if is("referer") => Self::Referer,
            7 if is("upgrade") => Self::Upgrade,
            7 if is("purpose") || is("trailer") => Self::Volatile,
            7 if is("api-key") => Self::Volatile,
            8 if is("location") => Self::Location,
            8 if is("if-match") || is("if-range") || is("priority") => Self::Volatile,
            8 if is("cdn-loop") => Self::Proxy,
            9 if is("forwarded") => Self::Forwarded,
            10 if is("user-agent") => Self::UserAgent,
            10 if is("connection") => Self::Connection,
            10 if is("set-cookie") => Self::SetCookie,
            10 if is("tracestate") => Self::Proxy,
            11 if is("traceparent") => Self::Proxy,
            11 if is("sec-purpose") => Self::Volatile,
            12 if is("content-type") => Self::ContentType,
            12 if is("max-forwards") => Self::Proxy,
            13 if is("authorization") => Self::Authorization,
            13 if is("if-none-match") || is("cache-control") || is("last-event-id") => Self::Volatile,
            14 if is("content-length") => Self::ContentLength,
            14 if is("sec-fetch-mode") => Self::SecFetchMode,
            14 if is("http2-settings") => Self::Http2Settings,
            14 if is("true-client-ip") => Self::Proxy,
            14 if is("service-worker") => Self::Volatile,
            15 if is("accept-encoding") => Self::AcceptEncoding,
            15 if is("accept-language") => Self::AcceptLanguage,
            15 if is("x-forwarded-for") => Self::XForwardedFor,
            15 if is("idempotency-key") => Self::Volatile,
            16 if is("content-encoding") => Self::ContentEncoding,
            17 if is("x-forwarded-proto") => Self::XForwardedProto,
            17 if is("if-modified-since") || is("transfer-encoding") => Self::Volatile,
            19 if is("if-unmodified-since") || is("proxy-authorization") => Self::Volatile,
            25 if is("upgrade-insecure-requests") => Self::Volatile,
            _ => Self::by_prefix(name),
        }
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
        ] {
            assert_eq!(Field::of(name.as_bytes()), want, "{name}");
        }
    }
}
