//! The client's stack: a print of how it writes requests, what it claims to be, and whether that fits.
//!
//! # The print
//!
//! [`StableHash`] over, in wire order:
//! - the HTTP version;
//! - each header name as sent (case included), except those that proxies add (`Via`, `Forwarded`, every
//!   `X-…`, `CF-…` and so on) and those that come and go with the request rather than with the client:
//!   cookies, authorization, conditions, ranges, everything `Content-…`, `Origin`, `Referer`, cache control,
//!   `Upgrade…`, fetch metadata and client hints (of these only whether any were sent counts);
//! - the values of `Accept`, `Accept-Encoding` and `Connection` behind their names.
//!
//! So one client has the same print for GET and POST, with and without cookies or body. A browser has one
//! print for page loads and another for `fetch` and images, because it sends another `Accept`: they are
//! different habits of the same stack, and telling them apart is what makes a script that imitates one of
//! them stand out. The User-Agent's text is not in it: a stack that rotates User-Agents keeps its print.
//!
//! # Contradictions
//!
//! Rules give points; two points contradict the claim. No rule alone that a proxy in front, an old browser
//! or a privacy setting can set off gives two. Rules hold for browsers only.

use offpath_types::{HttpVersion, StackClass};

use super::field::Field;
use super::hash::StableHash;

/// What of a header value counts.
const VALUE_BYTES_MAX: usize = 256;
/// How much of a User-Agent is read.
const USER_AGENT_BYTES_MAX: usize = 512;

/// The print while the headers pass.
pub(super) struct Print {
    hash: StableHash,
    metadata: bool,
}

impl Print {
    pub(super) fn new(version: HttpVersion) -> Self {
        let mut hash = StableHash::new(u64::from_le_bytes(*b"stack_01"));
        hash.write(version.name().as_bytes());
        Self { hash, metadata: false }
    }

    /// Adds a header field.
    pub(super) fn add(&mut self, field: Field, name: &[u8], value: &[u8]) {
        match field {
            Field::Accept | Field::AcceptEncoding | Field::Connection => {
                self.hash.write(name);
                self.hash.write(&value[..value.len().min(VALUE_BYTES_MAX)]);
            }
            Field::Host | Field::UserAgent | Field::AcceptLanguage | Field::Other => self.hash.write(name),
            Field::SecChUa | Field::SecFetchMode => self.metadata = true,
            _ => {}
        }
    }

    pub(super) fn finish(mut self) -> u64 {
        self.hash.write(&[u8::from(self.metadata)]);
        self.hash.finish()
    }
}

/// What the contradiction rules look at.
#[derive(Clone, Copy, Default)]
pub(super) struct Habits<'a> {
    pub(super) user_agent: &'a [u8],
    pub(super) accept: Option<&'a [u8]>,
    pub(super) accept_encoding: Option<&'a [u8]>,
    pub(super) accept_language: Option<&'a [u8]>,
    pub(super) sec_ch_ua: Option<&'a [u8]>,
    pub(super) sec_fetch: bool,
    /// A proxy says that the client came over TLS.
    pub(super) https: bool,
    /// Some header shows that a proxy wrote this head anew.
    pub(super) proxied: bool,
    /// Accept-Encoding came before Accept.
    pub(super) encoding_before_accept: bool,
    pub(super) http2_settings: bool,
    /// A browser leaves out usual fields here: WebSocket handshake, CORS preflight, report upload.
    pub(super) special: bool,
    pub(super) host_first: bool,
}

/// Tells whether the header set contradicts the claim. See the module's text.
pub(super) fn contradicts(claim: Claim, h: &Habits<'_>) -> bool {
    let browser = matches!(claim.class, StackClass::Chromium | StackClass::Firefox | StackClass::Safari);
    if !browser || h.special {
        return false;
    }
    let mut points = 0;
    // Every browser sends Accept with every ordinary request.
    points += if h.accept.is_none() { 2 } else { 0 };
    // Proxies take Accept-Encoding out to compress themselves; old headless Chrome had no Accept-Language.
    points += u32::from(h.accept_encoding.is_none());
    match h.accept_language {
        None => points += 1,
        // The default of undici (Node's fetch); no browser offers "any language" alone.
        Some(b"*") => points += 2,
        Some(_) => {}
    }
    if let Some(encoding) = h.accept_encoding {
        // "compress" and "identity" alone are habits of libraries; a proxy may cut the list to "gzip".
        points += if contains_ignore_case(encoding, b"compress") { 2 } else { 0 };
        points += u32::from(encoding.eq_ignore_ascii_case(b"identity"));
        points += u32::from(encoding.eq_ignore_ascii_case(b"gzip") && !h.proxied);
    }
    // Chrome, Firefox and Safari write Accept first; nginx moves a field that it sets itself to the front.
    if h.encoding_before_accept && h.accept.is_some() {
        points += if h.proxied { 1 } else { 2 };
    }
    // The list that java.net.HttpURLConnection sends.
    points += if h.accept.is_some_and(|a| contains_ignore_case(a, b"*; q=.2")) { 2 } else { 0 };
    // Only libraries offer h2c.
    points += if h.http2_settings { 2 } else { 0 };
    points += u32::from(!h.host_first && !h.proxied);
    match h.sec_ch_ua {
        Some(brands) if claim.class == StackClass::Chromium => {
            let major = brand_major(brands);
            points += if major.is_none() || claim.major.is_some() && major != claim.major { 2 } else { 0 };
            points += if contains_ignore_case(brands, b"headlesschrome") { 2 } else { 0 };
        }
        // Client hints are Chromium's alone.
        Some(_) => points += 2,
        // Since Chrome 89, but only on secure origins.
        None if claim.class == StackClass::Chromium && h.https && claim.major.is_some_and(|m| m >= 90) => {
            points += if h.sec_fetch { 1 } else { 2 };
        }
        None => {}
    }
    points >= 2
}

/// Returns the version behind the brand `Chromium` in Sec-CH-UA.
fn brand_major(brands: &[u8]) -> Option<u32> {
    let brands = &brands[..brands.len().min(VALUE_BYTES_MAX)];
    // A search by one rare letter: setting up a substring search costs more than the list is long.
    let at = memchr::memchr_iter(b'C', brands)
        .find(|at| *at > 0 && brands[at - 1] == b'"' && brands[*at..].starts_with(b"Chromium\""))?;
    let rest = brands[at + 9..].strip_prefix(b";v=\"")?;
    number(rest)
}

fn number(text: &[u8]) -> Option<u32> {
    let digits = text.iter().take(6).take_while(|c| c.is_ascii_digit());
    let mut value = None;
    for d in digits {
        value = Some(value.unwrap_or(0) * 10 + u32::from(d - b'0'));
    }
    value
}

/// Tells whether `text` (its first 256 bytes) contains `word`, which is in lower case.
pub(super) fn contains_ignore_case(text: &[u8], word: &[u8]) -> bool {
    let text = &text[..text.len().min(VALUE_BYTES_MAX)];
    let Some(first) = word.first() else { return true };
    memchr::memchr2_iter(*first, first.to_ascii_uppercase(), text)
        .any(|at| text[at..].get(..word.len()).is_some_and(|w| w.eq_ignore_ascii_case(word)))
}

/// What a User-Agent claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) class: StackClass,
    /// Major version, of Chromium only.
    pub(super) major: Option<u32>,
}

/// What User-Agents met before claim: reading one takes longer than all the other headers together, and most
/// requests bring one of a few hundred.
///
/// Direct-mapped, with a full comparison; at most [`Claims::SLOTS`] texts of 512 bytes.
pub(super) struct Claims(Vec<(Box<[u8]>, Claim)>);

impl Claims {
    const SLOTS: usize = 256;

    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Same as [`claim`].
    pub(super) fn of(&mut self, user_agent: &[u8]) -> Claim {
        let text = &user_agent[..user_agent.len().min(USER_AGENT_BYTES_MAX)];
        if text.is_empty() {
            return Claim::default();
        }
        if self.0.is_empty() {
            // An empty text claims nothing: a slot that was never filled is right all the same.
            self.0.resize_with(Self::SLOTS, || (Box::default(), Claim::default()));
        }
        let mut hash = StableHash::new(0);
        hash.write(text);
        let slot = &mut self.0[(hash.finish() >> 32) as usize % Self::SLOTS];
        if *slot.0 != *text {
            *slot = (text.into(), claim(text));
        }
        slot.1
    }
}

/// Reads a User-Agent once, product by product.
fn claim(user_agent: &[u8]) -> Claim {
    let text = &user_agent[..user_agent.len().min(USER_AGENT_BYTES_MAX)];
    let mut s = Products::default();
    let mut first = true;
    for word in text.split(|c| matches!(c, b' ' | b'(' | b')' | b';' | b',' | b'+')) {
        if word.is_empty() {
            continue;
        }
        let slash = word.iter().position(|c| *c == b'/').unwrap_or(word.len());
        s.product(&word[..slash], word.get(slash + 1..).unwrap_or_default(), first);
        first = false;
    }
    let class = if s.crawler {
        StackClass::Crawler
    } else if s.app {
        StackClass::App
    } else if s.library {
        StackClass::Library
    } else if !s.mozilla {
        StackClass::Unknown
    } else if s.web_view {
        StackClass::App
    } else if s.ios_browser {
        StackClass::Safari
    } else if s.firefox {
        StackClass::Firefox
    } else if s.chrome.is_some() {
        return Claim { class: StackClass::Chromium, major: s.chrome.flatten() };
    } else if s.safari && s.version {
        StackClass::Safari
    } else if s.webkit && s.mobile {
        // A web view of an iOS application: WebKit without Safari.
        StackClass::App
    } else {
        StackClass::Unknown
    };
    Claim { class, major: None }
}

/// The products that were met.
#[derive(Default)]
struct Products {
    mozilla: bool,
    chrome: Option<Option<u32>>,
    firefox: bool,
    safari: bool,
    version: bool,
    webkit: bool,
    mobile: bool,
    ios_browser: bool,
    web_view: bool,
    library: bool,
    app: bool,
    crawler: bool,
}

impl Products {
    fn product(&mut self, name: &[u8], version: &[u8], first: bool) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if name == b"wv" => self.web_view = true,
            2 if is("k6") && first => self.library = true,
            3 if is("got") || is("wrk") || is("hey") => self.library |= first,
            4 if is("curl") || is("wget") || is("java") || is("ruby") || is("node") || is("deno") => {
                self.library |= first;
            }
            4 if is("dart") => self.app |= first,
            5 if is("crios") || is("fxios") || is("opios") => self.ios_browser = true,
            5 if is("axios") || is("httpx") || is("hyper") => self.library |= first,
            6 if is("chrome") => self.chrome = Some(number(version)),
            6 if is("safari") => self.safari = true,
            6 if is("mobile") => self.mobile = true,
            6 if is("edgios") => self.ios_browser = true,
            6 if is("okhttp") || is("dalvik") || is("darwin") => self.app = true,
            6 if is("python") || is("undici") || is("httpie") || is("scrapy") || is("locust") => {
                self.library = true
            }
            7 if name == b"Mozilla" => self.mozilla |= first,
            7 if is("firefox") => self.firefox = true,
            7 if is("version") => self.version = true,
            7 if is("aiohttp") || is("reqwest") || is("faraday") => self.library |= first,
            8 if is("chromium") => self.chrome = Some(number(version)),
            9 if is("cfnetwork") || is("alamofire") => self.app = true,
            11 if is("applewebkit") => self.webkit = true,
            14 if is("headlesschrome") => self.chrome = Some(number(version)),
            _ if first => self.library |= library(name),
            _ => {}
        }
        self.crawler |= crawler(name);
    }
}

/// Longer first products that are libraries and tools.
fn library(name: &[u8]) -> bool {
    const NAMES: &[&str] = &[
        "python-requests",
        "python-httpx",
        "python-urllib",
        "python-urllib3",
        "go-http-client",
        "apache-httpclient",
        "apache-httpasyncclient",
        "java-http-client",
        "node-fetch",
        "node-superagent",
        "postmanruntime",
        "insomnia",
        "libwww-perl",
        "guzzlehttp",
        "restsharp",
        "apachebench",
        "vegeta",
        "http_request2",
        "okhttp3",
        "mechanize",
        "jakarta",
        "lua-resty-http",
        "fasthttp",
        "powershell",
        "winhttp",
        "pycurl",
        "ghttp",
        "typhoeus",
        "http.rb",
    ];
    NAMES.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes()))
}

/// `Googlebot`, `AhrefsBot`, `bingbot`, `Baiduspider`, `Yahoo! Slurp`, `facebookexternalhit` …
fn crawler(name: &[u8]) -> bool {
    let ends =
        |word: &[u8]| name.len() >= word.len() && name[name.len() - word.len()..].eq_ignore_ascii_case(word);
    // CUBOT makes telephones.
    (ends(b"bot") && !name.eq_ignore_ascii_case(b"cubot"))
        || ends(b"spider")
        || ends(b"crawler")
        || ends(b"slurp")
        || name.eq_ignore_ascii_case(b"facebookexternalhit")
        || name.eq_ignore_ascii_case(b"Googlebot-Image")
        || name.eq_ignore_ascii_case(b"mediapartners-google")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36";
    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0";
    const SAFARI: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15";

    #[test]
    fn claims() {
        use StackClass::*;
        for (agent, want) in [
            (CHROME, Chromium),
            (FIREFOX, Firefox),
            (SAFARI, Safari),
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/124.0.0.0 Safari/537.36",
                Chromium,
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36 Edg/124.0.0.0",
                Chromium,
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/124.0 Mobile/15E148 Safari/604.1",
                Safari,
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
                App,
            ),
            (
                "Mozilla/5.0 (Linux; Android 14; Pixel 8; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/124.0.0.0 Mobile Safari/537.36",
                App,
            ),
            (
                "Mozilla/5.0 (Linux; Android 9; CUBOT P30) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Mobile Safari/537.36",
                Chromium,
            ),
            ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", Crawler),
            (
                "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://x) Chrome/116.0 Safari/537.36",
                Crawler,
            ),
            ("Mozilla/5.0 (compatible; Yahoo! Slurp; http://x)", Crawler),
            ("curl/8.5.0", Library),
            ("python-requests/2.31.0", Library),
            ("Python/3.11 aiohttp/3.9.5", Library),
            ("Go-http-client/1.1", Library),
            ("Java/17.0.9", Library),
            ("node", Library),
            ("axios/1.6.8", Library),
            ("okhttp/4.12.0", App),
            ("Dalvik/2.1.0 (Linux; U; Android 14)", App),
            ("Shop/7 CFNetwork/1494.0.7 Darwin/23.4.0", App),
            ("Dart/3.3 (dart:io)", App),
            ("Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; Trident/4.0)", Unknown),
            ("", Unknown),
            ("MyThing/1.0", Unknown),
            ("((((;;;;", Unknown),
        ] {
            assert_eq!(claim(agent.as_bytes()).class, want, "{agent}");
        }
        assert_eq!(claim(CHROME.as_bytes()).major, Some(124));
        claim(&[b'/'; 100_000]);
        claim(&[0xff; 1000]);
    }

    fn check(name: &str, agent: &str, headers: &[(&str, &str)], want: bool) {
        let mut h = Habits { user_agent: agent.as_bytes(), host_first: true, ..Habits::default() };
        for (i, (field, value)) in headers.iter().enumerate() {
            let value = value.as_bytes();
            match Field::of(field.as_bytes()) {
                Field::Accept => h.accept = Some(value),
                Field::AcceptEncoding => {
                    h.encoding_before_accept = h.accept.is_none();
                    h.accept_encoding = Some(value);
                }
                Field::AcceptLanguage => h.accept_language = Some(value),
                Field::SecChUa => h.sec_ch_ua = Some(value),
                Field::SecFetchMode => h.sec_fetch = true,
                Field::XForwardedProto => (h.https, h.proxied) = (value == b"https", true),
                Field::Proxy => h.proxied = true,
                Field::Host => h.host_first = i == 0,
                _ => {}
            }
        }
        assert_eq!(contradicts(claim(agent.as_bytes()), &h), want, "{name}");
    }

    #[test]
    fn contradictions() {
        const HTML: &str =
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
        let chrome_page =
            [("Accept", HTML), ("Accept-Encoding", "gzip, deflate"), ("Accept-Language", "en-US,en;q=0.9")];
        check("Chrome, http", CHROME, &chrome_page, false);
        check(
            "Chrome, https",
            CHROME,
            &[
                ("X-Forwarded-Proto", "https"),
                (
                    "sec-ch-ua",
                    "\"Chromium\";v=\"124\", \"Google Chrome\";v=\"124\", \"Not-A.Brand\";v=\"99\"",
                ),
                ("Accept", HTML),
                ("Sec-Fetch-Mode", "navigate"),
                ("Accept-Encoding", "gzip, deflate, br, zstd"),
                ("Accept-Language", "en-US"),
            ],
            false,
        );
        check(
            "Firefox",
            FIREFOX,
            &[("Accept", HTML), ("Accept-Language", "de"), ("Accept-Encoding", "gzip, deflate")],
            false,
        );
        check(
            "Safari",
            SAFARI,
            &[("Accept", HTML), ("Accept-Language", "en-gb"), ("Accept-Encoding", "gzip, deflate")],
            false,
        );
        check(
            "behind a compressing proxy",
            CHROME,
            &[("Accept", HTML), ("Accept-Language", "en"), ("X-Real-IP", "1.2.3.4")],
            false,
        );
        check(
            "nginx sets Accept-Encoding",
            CHROME,
            &[("X-Real-IP", "1"), ("Accept-Encoding", "gzip"), ("Accept", "*/*"), ("Accept-Language", "en")],
            false,
        );
        check("no language", CHROME, &[("Accept", HTML), ("Accept-Encoding", "gzip, deflate")], false);
        check("curl -A", CHROME, &[("Accept", "*/*")], true);
        check(
            "requests",
            CHROME,
            &[("Accept-Encoding", "gzip, deflate"), ("Accept", "*/*"), ("Connection", "keep-alive")],
            true,
        );
        check(
            "requests with language",
            CHROME,
            &[("Accept-Encoding", "gzip, deflate"), ("Accept", "*/*"), ("Accept-Language", "en")],
            true,
        );
        check("Go", FIREFOX, &[("Accept-Encoding", "gzip")], true);
        check(
            "Node fetch",
            CHROME,
            &[("Accept", "*/*"), ("Accept-Language", "*"), ("Accept-Encoding", "gzip, deflate")],
            true,
        );
        check(
            "axios",
            CHROME,
            &[
                ("Accept", "application/json"),
                ("Accept-Encoding", "gzip, compress, deflate, br"),
                ("Accept-Language", "en"),
            ],
            true,
        );
        check("Java", CHROME, &[("Accept", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2")], true);
        check(
            "hints from Firefox",
            FIREFOX,
            &[
                ("sec-ch-ua", "\"Chromium\";v=\"124\""),
                ("Accept", HTML),
                ("Accept-Encoding", "gzip"),
                ("Accept-Language", "en"),
            ],
            true,
        );
        check(
            "another version in the hints",
            CHROME,
            &[
                ("sec-ch-ua", "\"Chromium\";v=\"120\""),
                ("Accept", HTML),
                ("Accept-Encoding", "gzip, br"),
                ("Accept-Language", "en"),
            ],
            true,
        );
        check(
            "headless hints",
            CHROME,
            &[
                ("sec-ch-ua", "\"Chromium\";v=\"124\", \"HeadlessChrome\";v=\"124\""),
                ("Accept", HTML),
                ("Accept-Encoding", "gzip, br"),
                ("Accept-Language", "en"),
            ],
            true,
        );
        check(
            "no hints over https",
            CHROME,
            &[
                ("X-Forwarded-Proto", "https"),
                ("Accept", HTML),
                ("Accept-Encoding", "gzip, deflate, br"),
                ("Accept-Language", "en"),
            ],
            true,
        );
        check("a library is what it says", "curl/8", &[("Accept", "*/*")], false);
    }
}
