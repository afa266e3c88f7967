//! What clients and the shop say: header sets of real stacks, and the shop's answers.

use std::io::Write;

use crate::rng::Rng;

/// The three front ends, which refuse a login in three ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// Form login; a refusal redirects back to the form.
    Shop,
    /// Form login; a refusal shows the form again with status 200.
    Outlet,
    /// JSON login; a refusal is a 401.
    Api,
}

impl Site {
    pub(super) const fn host(self) -> &'static str {
        match self {
            Self::Shop => "shop.example",
            Self::Outlet => "outlet.example",
            Self::Api => "api.shop.example",
        }
    }

    pub(super) const fn login_path(self) -> &'static str {
        match self {
            Self::Shop => "/login",
            Self::Outlet => "/account/signin",
            Self::Api => "/api/login",
        }
    }
}

/// A browser engine with its User-Agent and client hints.
#[derive(Clone, Copy, Debug)]
pub(super) enum Engine {
    Chromium { hints: &'static str, mobile: bool, platform: &'static str },
    Firefox,
    Safari,
}

/// A browser.
#[derive(Clone, Copy, Debug)]
pub(super) struct Browser {
    pub(super) engine: Engine,
    pub(super) user_agent: &'static str,
    pub(super) language: &'static str,
}

const CHROME_142: &str = "\"Chromium\";v=\"142\", \"Google Chrome\";v=\"142\", \"Not_A Brand\";v=\"99\"";
const CHROME_141: &str = "\"Google Chrome\";v=\"141\", \"Not?A_Brand\";v=\"8\", \"Chromium\";v=\"141\"";
const EDGE_142: &str = "\"Chromium\";v=\"142\", \"Microsoft Edge\";v=\"142\", \"Not_A Brand\";v=\"99\"";

const BROWSERS: [(Engine, &str); 8] = [
    (
        Engine::Chromium { hints: CHROME_142, mobile: false, platform: "\"Windows\"" },
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    ),
    (
        Engine::Chromium { hints: CHROME_142, mobile: true, platform: "\"Android\"" },
        "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
    ),
    (
        Engine::Chromium { hints: CHROME_141, mobile: false, platform: "\"macOS\"" },
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    ),
    (
        Engine::Chromium { hints: EDGE_142, mobile: false, platform: "\"Windows\"" },
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
    ),
    (Engine::Firefox, "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0"),
    (Engine::Firefox, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (
        Engine::Safari,
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1",
    ),
    (
        Engine::Safari,
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15",
    ),
];

impl Browser {
    pub(super) fn random(rng: &mut Rng) -> Self {
        let (engine, user_agent) = *rng.pick(&BROWSERS);
        let language =
            *rng.pick(&["en-GB,en;q=0.9", "en-US,en;q=0.9", "de-DE,de;q=0.9,en;q=0.8", "nl,en;q=0.7"]);
        Self { engine, user_agent, language }
    }
}

/// Who sends a request: decides header set and order.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stack {
    Browser(Browser),
    OkHttp,
    CfNetwork,
    Requests,
    Go,
    Java,
    /// A script that claims to be this Chrome and sends little of what it would send.
    FakeChrome(&'static str),
}

/// The User-Agent that scripts like to claim.
pub(super) const CLAIMED_CHROME: &str = BROWSERS[0].1;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Page,
    Asset(&'static str),
    Call,
}

/// One request, before it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'static str,
    /// Without the number, which is added.
    pub(super) target: &'a str,
    pub(super) site: Site,
    pub(super) purpose: Purpose,
    pub(super) referer: &'a str,
    pub(super) cookie: &'a str,
    pub(super) bearer: &'a str,
    /// Etag of a cached copy.
    pub(super) etag: &'a str,
    /// Content type and body.
    pub(super) body: Option<(&'static str, &'a [u8])>,
}

impl<'a> Request<'a> {
    pub(super) const fn get(site: Site, target: &'a str, purpose: Purpose) -> Self {
        Self {
            method: "GET",
            target,
            site,
            purpose,
            referer: "",
            cookie: "",
            bearer: "",
            etag: "",
            body: None,
        }
    }

    pub(super) const fn post(
        site: Site,
        target: &'a str,
        purpose: Purpose,
        body: (&'static str, &'a [u8]),
    ) -> Self {
        let mut request = Self::get(site, target, purpose);
        request.method = "POST";
        request.body = Some(body);
        request
    }
}

struct Headers<'a>(&'a mut Vec<u8>);

impl Headers<'_> {
    fn put(&mut self, name: &str, value: &str) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(value.as_bytes());
        self.0.extend_from_slice(b"\r\n");
    }

    fn put_some(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.put(name, value);
        }
    }
}

/// Appends the request to `out`; returns the length of its head.
pub(super) fn write_request(out: &mut Vec<u8>, stack: &Stack, r: &Request<'_>, target: &str) -> usize {
    let start = out.len();
    out.extend_from_slice(r.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let length = r.body.map(|(_, b)| b.len().to_string()).unwrap_or_default();
    let kind = r.body.map(|(k, _)| k).unwrap_or_default();
    let origin = if r.body.is_some() { format!("https://{}", r.site.host()) } else { String::new() };
    let mut h = Headers(out);
    match stack {
        Stack::Browser(browser) => match browser.engine {
            Engine::Chromium { hints, mobile, platform } => {
                chromium(&mut h, browser, r, (hints, mobile, platform), [&length, kind, &origin]);
            }
            Engine::Firefox => firefox(&mut h, browser, r, [&length, kind, &origin]),
            Engine::Safari => safari(&mut h, browser, r, [&length, kind, &origin]),
        },
        Stack::OkHttp => {
            h.put_some("Authorization", r.bearer);
            h.put("accept", "application/json");
            h.put("x-app-version", "7.4.1");
            h.put_some("Content-Type", kind);
            h.put_some("Content-Length", &length);
            h.put("Host", r.site.host());
            h.put("Connection", "Keep-Alive");
            h.put("Accept-Encoding", "gzip");
            h.put("User-Agent", "okhttp/4.12.0");
        }
        Stack::CfNetwork => {
            h.put("Host", r.site.host());
            h.put_some("Content-Type", kind);
            h.put("Connection", "keep-alive");
            h.put("Accept", "application/json");
            h.put("User-Agent", "Shop/7.4.1 CFNetwork/3826.500.131 Darwin/24.5.0");
            h.put_some("Authorization", r.bearer);
            h.put_some("Content-Length", &length);
            h.put("Accept-Language", "en-GB,en;q=0.9");
            h.put("Accept-Encoding", "gzip, deflate");
        }
        Stack::Requests => {
            h.put("Host", r.site.host());
            h.put("User-Agent", "python-requests/2.32.3");
            h.put("Accept-Encoding", "gzip, deflate");
            h.put("Accept", "*/*");
            h.put("Connection", "keep-alive");
            h.put_some("Authorization", r.bearer);
            h.put_some("Cookie", r.cookie);
            h.put_some("Content-Length", &length);
            h.put_some("Content-Type", kind);
        }
        Stack::Go => {
            h.put("Host", r.site.host());
            h.put("User-Agent", "Go-http-client/1.1");
            h.put_some("Content-Length", &length);
            h.put_some("Authorization", r.bearer);
            h.put_some("Content-Type", kind);
            h.put_some("Cookie", r.cookie);
            h.put("Accept-Encoding", "gzip");
        }
        Stack::Java => {
            h.put_some("Content-Length", &length);
            h.put("Host", r.site.host());
            h.put("User-Agent", "Java-http-client/21.0.4");
            h.put("Accept", "application/json");
            h.put_some("X-Api-Key", r.bearer);
            h.put_some("Content-Type", kind);
        }
        Stack::FakeChrome(user_agent) => {
            h.put("Host", r.site.host());
            h.put("User-Agent", user_agent);
            h.put("Accept", "*/*");
            h.put("Accept-Encoding", "gzip, deflate");
            h.put("Connection", "keep-alive");
            h.put_some("Cookie", r.cookie);
            h.put_some("Content-Type", kind);
            h.put_some("Content-Length", &length);
        }
    }
    out.extend_from_slice(b"\r\n");
    let head = out.len() - start;
    if let Some((_, body)) = r.body {
        out.extend_from_slice(body);
    }
    head
}

fn accept(r: &Request<'_>, page: &'static str) -> &'static str {
    match r.purpose {
        Purpose::Page => page,
        Purpose::Asset("style") => "text/css,*/*;q=0.1",
        Purpose::Asset("image") => "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
        Purpose::Asset(_) => "*/*",
        Purpose::Call => "application/json",
    }
}

/// Returns the values of Sec-Fetch-Mode and Sec-Fetch-Dest.
fn fetch_metadata(r: &Request<'_>) -> (&'static str, &'static str) {
    match r.purpose {
        Purpose::Page => ("navigate", "document"),
        Purpose::Asset(dest) => ("no-cors", dest),
        Purpose::Call => ("cors", "empty"),
    }
}

fn chromium(
    h: &mut Headers<'_>,
    b: &Browser,
    r: &Request<'_>,
    (hints, mobile, platform): (&str, bool, &str),
    [length, kind, origin]: [&str; 3],
) {
    let mobile = if mobile { "?1" } else { "?0" };
    let page = r.purpose == Purpose::Page;
    h.put("Host", r.site.host());
    h.put("Connection", "keep-alive");
    h.put_some("Content-Length", length);
    if page {
        h.put_some("Cache-Control", if r.body.is_some() { "max-age=0" } else { "" });
        h.put("sec-ch-ua", hints);
        h.put("sec-ch-ua-mobile", mobile);
        h.put("sec-ch-ua-platform", platform);
        h.put_some("Origin", origin);
        h.put_some("Content-Type", kind);
        h.put("Upgrade-Insecure-Requests", "1");
        h.put("User-Agent", b.user_agent);
    } else {
        h.put("sec-ch-ua-platform", platform);
        h.put("User-Agent", b.user_agent);
        h.put("sec-ch-ua", hints);
        h.put_some("Content-Type", kind);
        h.put("sec-ch-ua-mobile", mobile);
    }
    h.put(
        "Accept",
        accept(
            r,
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
        ),
    );
    if !page {
        h.put_some("Origin", origin);
    }
    let (mode, dest) = fetch_metadata(r);
    h.put("Sec-Fetch-Site", if r.referer.is_empty() { "none" } else { "same-origin" });
    h.put("Sec-Fetch-Mode", mode);
    if page {
        h.put("Sec-Fetch-User", "?1");
    }
    h.put("Sec-Fetch-Dest", dest);
    h.put_some("Referer", r.referer);
    h.put("Accept-Encoding", "gzip, deflate, br, zstd");
    h.put("Accept-Language", b.language);
    h.put_some("Cookie", r.cookie);
    h.put_some("If-None-Match", r.etag);
}

fn firefox(h: &mut Headers<'_>, b: &Browser, r: &Request<'_>, [length, kind, origin]: [&str; 3]) {
    let page = r.purpose == Purpose::Page;
    let (mode, dest) = fetch_metadata(r);
    h.put("Host", r.site.host());
    h.put("User-Agent", b.user_agent);
    h.put("Accept", accept(r, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
    h.put("Accept-Language", b.language);
    h.put("Accept-Encoding", "gzip, deflate, br, zstd");
    if !page {
        h.put_some("Referer", r.referer);
    }
    h.put_some("Content-Type", kind);
    h.put_some("Content-Length", length);
    h.put_some("Origin", origin);
    h.put("Connection", "keep-alive");
    if page {
        h.put_some("Referer", r.referer);
    }
    h.put_some("Cookie", r.cookie);
    if page {
        h.put("Upgrade-Insecure-Requests", "1");
    }
    h.put("Sec-Fetch-Dest", dest);
    h.put("Sec-Fetch-Mode", mode);
    h.put("Sec-Fetch-Site", if r.referer.is_empty() { "none" } else { "same-origin" });
    if page {
        h.put("Sec-Fetch-User", "?1");
    }
    h.put_some("If-None-Match", r.etag);
    h.put("Priority", if page { "u=0, i" } else { "u=4" });
}

fn safari(h: &mut Headers<'_>, b: &Browser, r: &Request<'_>, [length, kind, origin]: [&str; 3]) {
    let (mode, dest) = fetch_metadata(r);
    h.put("Host", r.site.host());
    h.put_some("Content-Type", kind);
    h.put_some("Origin", origin);
    h.put("Sec-Fetch-Dest", dest);
    h.put_some("If-None-Match", r.etag);
    h.put("Accept", accept(r, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
    h.put("Sec-Fetch-Site", if r.referer.is_empty() { "none" } else { "same-origin" });
    h.put_some("Content-Length", length);
    h.put_some("Cookie", r.cookie);
    h.put("Sec-Fetch-Mode", mode);
    h.put("User-Agent", b.user_agent);
    h.put_some("Referer", r.referer);
    h.put("Accept-Language", b.language);
    h.put("Accept-Encoding", "gzip, deflate");
    h.put("Connection", "keep-alive");
}

/// A response's body.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// None, and no Content-Length either (304).
    None,
    /// These bytes.
    Text(String),
    /// So many bytes of filler.
    Filler(usize),
    /// So many bytes, in chunks.
    Chunked(usize),
}

/// One response, before it is written.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    /// Whole header lines, each with CRLF.
    pub(super) extra: String,
    pub(super) body: Body,
}

impl Reply {
    pub(super) const fn new(status: u16, kind: &'static str, body: Body) -> Self {
        Self { status, kind, extra: String::new(), body }
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.extra.push_str(name);
        self.extra.push_str(": ");
        self.extra.push_str(value);
        self.extra.push_str("\r\n");
        self
    }

    /// Body bytes after dechunking.
    pub(super) fn body_len(&self) -> usize {
        match &self.body {
            Body::None => 0,
            Body::Text(text) => text.len(),
            Body::Filler(len) | Body::Chunked(len) => *len,
        }
    }
}

/// Appends head and, unless it is filler, body to `out`; returns the length of the head.
pub(super) fn write_reply(out: &mut Vec<u8>, reply: &Reply, unix_secs: u64, rng: &mut Rng) -> usize {
    let start = out.len();
    let reason = match reply.status {
        200 => "OK",
        201 => "Created",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        401 => "Unauthorized",
        404 => "Not Found",
        _ => "Unknown",
    };
    let _ = write!(
        out,
        "HTTP/1.1 {} {reason}\r\nServer: nginx\r\nDate: {}\r\n",
        reply.status,
        http_date(unix_secs)
    );
    if !reply.kind.is_empty() {
        let _ = write!(out, "Content-Type: {}\r\n", reply.kind);
    }
    match reply.body {
        Body::None => {}
        Body::Chunked(_) => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        _ => {
            let _ = write!(out, "Content-Length: {}\r\n", reply.body_len());
        }
    }
    out.extend_from_slice(b"Connection: keep-alive\r\n");
    out.extend_from_slice(reply.extra.as_bytes());
    out.extend_from_slice(b"\r\n");
    let head = out.len() - start;
    match &reply.body {
        Body::Text(text) => out.extend_from_slice(text.as_bytes()),
        Body::Chunked(len) => {
            let mut left = *len;
            while left > 0 {
                let chunk = (rng.between(200, 1400) as usize).min(left);
                let _ = write!(out, "{chunk:x}\r\n");
                out.extend(b"<li class=\"item\">an item on the shelf</li>\n".iter().cycle().take(chunk));
                out.extend_from_slice(b"\r\n");
                left -= chunk;
            }
            out.extend_from_slice(b"0\r\n\r\n");
        }
        Body::None | Body::Filler(_) => {}
    }
    head
}

/// Returns an IMF-fixdate (RFC 9110 §5.6.7). The calendar is counted in 400-year eras from 0000-03-01.
pub(super) fn http_date(unix_secs: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let (days, secs) = (unix_secs / 86_400, unix_secs % 86_400);
    let from_march = days + 719_468;
    let (era, day_of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + u64::from(month >= 10);
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize],
        secs / 3600,
        secs / 60 % 60,
        secs % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (secs, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_767_600_000, "Mon, 05 Jan 2026 08:00:00 GMT"),
        ] {
            assert_eq!(http_date(secs), want);
        }
    }

    #[test]
    fn replies_are_framed_as_they_say() {
        let mut out = Vec::new();
        let reply = Reply::new(200, "text/html", Body::Chunked(3000));
        let head = write_reply(&mut out, &reply, 0, &mut Rng::new(1));
        assert!(out[..head].ends_with(b"chunked\r\nConnection: keep-alive\r\n\r\n"));
        let (mut body, mut total) = (&out[head..], 0);
        loop {
            let line = body.iter().position(|b| *b == b'\r').unwrap();
            let len = usize::from_str_radix(std::str::from_utf8(&body[..line]).unwrap(), 16).unwrap();
            body = &body[line + 2 + len + 2..];
            total += len;
            if len == 0 {
                break;
            }
        }
        assert_eq!((total, body.len()), (3000, 0));
    }
}
