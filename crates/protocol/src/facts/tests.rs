//! Whole heads and bodies through `Facts`.

use std::io::Write;
use std::net::IpAddr;

use offpath_types::{
    Anomaly, BodyHint, FlowInfo, FlowKey, Host, HttpVersion, IdentityHash, IdentityKey, Peer, RedirectClass,
    StackClass, Timestamp, TunnelId,
};
use proptest::prelude::*;

use super::*;
use crate::http1::FramingFields;

const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36";
const HTML: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

type Fields<'a> = &'a [(&'a str, &'a str)];

fn key() -> IdentityKey {
    IdentityKey::new([9; 32])
}

fn config() -> FactsConfig {
    FactsConfig {
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        client_header: Some("CF-Connecting-IP".to_owned()),
        ..FactsConfig::default()
    }
}

fn facts() -> Facts {
    Facts::new(config(), key())
}

/// A transaction whose TCP client is `client`, in late 2026.
fn transaction(client: &str) -> Transaction {
    let ip: IpAddr = client.parse().unwrap();
    let (key, client_side) = FlowKey::new(
        Peer { host: Host::from(ip), port: 40_000 },
        Peer { host: Host::from_v4([203, 0, 113, 1]), port: 80 },
        TunnelId(0),
    );
    let now = Timestamp::from_parts(1_795_000_000, 0);
    Transaction::new(
        FlowInfo { key, client_side, opened: now, midstream: false, envelope: Default::default() },
        1,
        0,
        now,
    )
}

fn headers<'a>(fields: Fields<'a>) -> Vec<Header<'a>> {
    fields.iter().map(|(n, v)| Header { name: n.as_bytes(), value: v.as_bytes() }).collect()
}

fn says_empty(headers: &[Header<'_>]) -> bool {
    let mut framing = FramingFields::default();
    headers.iter().for_each(|h| framing.note(h.name, h.value, false));
    framing.finish(false);
    framing.says_empty()
}

fn request_on(
    facts: &mut Facts,
    tx: &mut Transaction,
    method: &str,
    target: &str,
    fields: Fields<'_>,
) -> Option<Box<BodyTap>> {
    let headers = headers(fields);
    let head = RequestHead {
        method: method.as_bytes(),
        target: target.as_bytes(),
        version: HttpVersion::V11,
        headers: &headers,
        says_empty: says_empty(&headers),
    };
    facts.request_head(&head, tx)
}

fn request(method: &str, target: &str, fields: Fields<'_>) -> Transaction {
    let mut tx = transaction("10.0.0.1");
    request_on(&mut facts(), &mut tx, method, target, fields);
    tx
}

/// A POST with a body in pieces, then the facts.
fn post_pieces(
    target: &str,
    content_type: &str,
    coding: &str,
    pieces: &[&[u8]],
) -> (Transaction, FactsCounters) {
    let mut facts = facts();
    let mut tx = transaction("198.51.100.1");
    let fields = [("Host", "h"), ("Content-Type", content_type), ("Content-Encoding", coding)];
    if let Some(mut tap) = request_on(&mut facts, &mut tx, "POST", target, &fields) {
        for piece in pieces {
            facts.body(&mut tap, piece);
        }
        facts.request_body_end(tap, &mut tx);
    }
    balanced(facts.counters());
    (tx, *facts.counters())
}

fn post(target: &str, content_type: &str, body: &str) -> Transaction {
    post_pieces(target, content_type, "", &[body.as_bytes()]).0
}

fn balanced(c: &FactsCounters) {
    assert_eq!(
        c.facts_body_taps_total,
        c.facts_bodies_read_total + c.facts_bodies_unrecognised_total + c.facts_bodies_empty_total
    );
    assert_eq!(
        c.facts_bodies_coded_total,
        c.facts_bodies_coded_decoded_total
            + c.facts_bodies_coded_over_cap_total
            + c.facts_bodies_coded_over_ratio_total
            + c.facts_bodies_coded_broken_total
    );
    assert_eq!(
        c.facts_body_bytes_total,
        c.facts_body_bytes_taken_total
            + c.facts_body_bytes_over_cap_total
            + c.facts_body_bytes_after_gap_total
    );
}

fn text(tx: &Transaction, span: Span) -> String {
    String::from_utf8(tx.text.get(span).to_vec()).unwrap()
}

fn user(name: &str) -> Option<IdentityHash> {
    Some(key().hash(b"user", name.as_bytes()))
}

fn password(text: &str) -> Option<IdentityHash> {
    Some(key().hash(b"password", text.as_bytes()))
}

fn session(text: &str) -> Option<IdentityHash> {
    Some(key().hash(b"session", text.as_bytes()))
}

#[test]
fn a_page_load() {
    let tx = request(
        "GET",
        "/items/10293?page=2",
        &[
            ("Host", "Shop.Example:8080"),
            ("User-Agent", CHROME),
            ("Accept", HTML),
            ("Referer", "http://shop.example/?token=abcdefgh"),
            ("Accept-Encoding", "gzip, deflate"),
            ("Accept-Language", "en"),
            ("Cookie", "theme=dark; sid=S1"),
        ],
    );
    assert_eq!(text(&tx, tx.method), "GET");
    assert_eq!(text(&tx, tx.target), "/items/10293?page=2");
    assert_eq!(text(&tx, tx.path), "/items/10293");
    assert_eq!(text(&tx, tx.domain), "shop.example");
    assert_eq!(text(&tx, tx.user_agent), CHROME);
    assert_eq!(text(&tx, tx.referrer), "http://shop.example/?token=REDACTED");
    assert_eq!(text(&tx, tx.endpoint), "GET /items/{id}");
    assert_eq!(tx.request_content_type, Span::ABSENT);
    assert_eq!(tx.session, session("S1"));
    assert_eq!(tx.user, None);
    assert_eq!(tx.stack_claimed, StackClass::Chromium);
    assert!(!tx.stack_contradicted && tx.navigation && !tx.login.path_looks_like_login);
    assert!(tx.anomalies.is_empty() && tx.fingerprint != 0 && tx.endpoint_hash != 0);
    assert!(!tx.client_forwarded);
}

#[test]
fn hosts_and_targets() {
    for (target, hosts, domain, path, anomaly) in [
        ("/", &["H.example"] as &[&str], "h.example", "/", None),
        ("/", &[], "", "/", Some(Anomaly::HostMissing)),
        ("/", &[""], "", "/", None),
        ("/", &["a", "a"], "a", "/", Some(Anomaly::HostConflict)),
        ("http://A.example:80/x", &["a.example"], "a.example", "/x", None),
        ("http://a.example/x", &["b.example"], "a.example", "/x", Some(Anomaly::HostConflict)),
        ("http://u:p@a.example", &["a.example:80"], "a.example", "/", None),
        ("/", &["[2001:DB8::1]:8080"], "[2001:db8::1]", "/", None),
        ("*", &["a"], "a", "*", None),
    ] {
        let fields: Vec<_> = hosts.iter().map(|h| ("Host", *h)).collect();
        let tx = request("GET", target, &fields);
        assert_eq!(
            (text(&tx, tx.domain).as_str(), text(&tx, tx.path).as_str()),
            (domain, path),
            "{target} {hosts:?}"
        );
        assert_eq!(tx.anomalies.iter().collect::<Vec<_>>(), Vec::from_iter(anomaly), "{target} {hosts:?}");
    }
    let tx = request("CONNECT", "h.example:443", &[("Host", "h.example:443")]);
    assert_eq!((text(&tx, tx.domain), tx.path), ("h.example".to_owned(), Span::ABSENT));
    assert_eq!(text(&tx, tx.endpoint), "CONNECT {authority}");
    assert!(tx.anomalies.is_empty());
}

#[test]
fn clients() {
    for (peer, fields, want, forwarded, invalid) in [
        (
            "10.0.0.1",
            &[("X-Forwarded-For", "1.1.1.1, 198.51.100.9")] as Fields<'_>,
            "198.51.100.9",
            true,
            false,
        ),
        ("198.51.100.1", &[("X-Forwarded-For", "1.1.1.1")], "198.51.100.1", false, false),
        (
            "10.0.0.1",
            &[("CF-Connecting-IP", "2001:db8::5"), ("X-Forwarded-For", "1.1.1.1")],
            "2001:db8::5",
            true,
            false,
        ),
        (
            "10.0.0.1",
            &[("cf-connecting-ip", "rubbish"), ("X-Forwarded-For", "1.1.1.1")],
            "10.0.0.1",
            false,
            true,
        ),
        ("198.51.100.1", &[("CF-Connecting-IP", "1.1.1.1")], "198.51.100.1", false, false),
        ("10.0.0.1", &[("Forwarded", "for=\"[2001:db8::7]:1\"")], "2001:db8::7", true, false),
        (
            "10.0.0.1",
            &[("X-Forwarded-For", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2, 10.9.9.9")],
            "2.2.2.2",
            true,
            false,
        ),
        ("10.0.0.1", &[("X-Forwarded-For", "1.1.1.1, junk, 10.9.9.9")], "10.9.9.9", true, true),
        ("10.0.0.1", &[], "10.0.0.1", false, false),
        // Which of two the proxy wrote does not show.
        (
            "10.0.0.1",
            &[("X-Forwarded-For", "6.6.6.6"), ("Forwarded", "for=203.0.113.9")],
            "6.6.6.6",
            true,
            true,
        ),
        (
            "10.0.0.1",
            &[("Forwarded", "for=203.0.113.9"), ("X-Forwarded-For", "6.6.6.6, 203.0.113.9, 10.1.1.1")],
            "203.0.113.9",
            true,
            false,
        ),
        (
            "10.0.0.1",
            &[("Forwarded", "proto=https"), ("X-Forwarded-For", "203.0.113.9")],
            "203.0.113.9",
            true,
            false,
        ),
        (
            "10.0.0.1",
            &[("Forwarded", "for=203.0.113.9"), ("X-Forwarded-For", "")],
            "203.0.113.9",
            true,
            false,
        ),
        (
            "10.0.0.1",
            &[("Forwarded", "rubbish"), ("X-Forwarded-For", "203.0.113.9")],
            "203.0.113.9",
            true,
            true,
        ),
    ] {
        let mut tx = transaction(peer);
        request_on(&mut facts(), &mut tx, "GET", "/", fields);
        assert_eq!(tx.client, Host::from(want.parse::<IpAddr>().unwrap()), "{peer} {fields:?}");
        assert_eq!(tx.client_forwarded, forwarded, "{fields:?}");
        assert_eq!(tx.anomalies.contains(Anomaly::ForwardedInvalid), invalid, "{fields:?}");
    }
}

#[test]
fn the_configuration_says_which_chain_the_proxy_writes() {
    let both = [("X-Forwarded-For", "6.6.6.6"), ("Forwarded", "for=203.0.113.9")];
    for (header, fields, want) in [
        ("Forwarded", &both[..], "203.0.113.9"),
        ("x-forwarded-for", &both, "6.6.6.6"),
        ("X-Forwarded-For", &both[1..], "10.0.0.1"),
        ("Forwarded", &both[..1], "10.0.0.1"),
    ] {
        let mut facts = Facts::new(FactsConfig { client_header: Some(header.to_owned()), ..config() }, key());
        let mut tx = transaction("10.0.0.1");
        request_on(&mut facts, &mut tx, "GET", "/", fields);
        assert_eq!(tx.client, Host::from(want.parse::<IpAddr>().unwrap()), "{header}");
        assert!(!tx.anomalies.contains(Anomaly::ForwardedInvalid), "{header}");
    }
}

#[test]
fn a_head_that_was_cut_tells_no_client() {
    for (peer, invalid) in [("10.0.0.1", true), ("198.51.100.1", false)] {
        let mut tx = transaction(peer);
        tx.anomalies.insert(Anomaly::HeadTooLong);
        request_on(&mut facts(), &mut tx, "GET", "/", &[("X-Forwarded-For", "6.6.6.6")]);
        assert_eq!(tx.client, Host::from(peer.parse::<IpAddr>().unwrap()));
        assert!(!tx.client_forwarded);
        assert_eq!(tx.anomalies.contains(Anomaly::ForwardedInvalid), invalid);
    }
}

#[test]
fn identities_of_heads() {
    for (target, fields, want_session, want_user, want_password) in [
        ("/", &[("Cookie", "sid=c"), ("Authorization", "Bearer t")] as Fields<'_>, session("c"), None, None),
        ("/", &[("Authorization", "Bearer t")], session("t"), None, None),
        ("/", &[("x-api-key", "k")], session("k"), None, None),
        ("/", &[("X-Api-Key", "k"), ("Authorization", "Bearer t")], session("t"), None, None),
        ("/", &[("Authorization", "Basic QW5uOnMzY3JldA==")], None, user("ann"), password("s3cret")),
        ("/", &[("Authorization", "Basic !!")], None, None, None),
        ("/", &[("Authorization", "Digest username=\"Ann\", uri=\"/\"")], None, user("ann"), None),
        ("/?api_key=k%20k", &[], session("k k"), None, None),
        ("/?api_key=q", &[("X-Api-Key", "k")], session("k"), None, None),
        ("/l?user=Ann&password=p%21", &[], None, user("ann"), password("p!")),
        ("/search?user=ann", &[], None, None, None),
        ("/login?user=ann", &[], None, user("ann"), None),
        ("/", &[], None, None, None),
    ] {
        let tx = request("GET", target, fields);
        assert_eq!(
            (tx.session, tx.user, tx.login.password),
            (want_session, want_user, want_password),
            "{target} {fields:?}"
        );
    }
}

#[test]
fn fingerprints() {
    let base: Fields<'_> =
        &[("Host", "h"), ("User-Agent", "a"), ("Accept", "*/*"), ("Accept-Encoding", "gzip")];
    let print = |method: &str, fields: Fields<'_>| request(method, "/", fields).fingerprint;
    let of_base = print("GET", base);
    let same: &[(&str, &str, Fields<'_>)] = &[
        ("method", "POST", base),
        (
            "values",
            "GET",
            &[("Host", "other"), ("User-Agent", "b"), ("Accept", "*/*"), ("Accept-Encoding", "gzip")],
        ),
        (
            "body, cookie, proxy and session fields",
            "POST",
            &[
                ("X-Forwarded-For", "1.1.1.1"),
                ("Host", "h"),
                ("Content-Type", "a/b"),
                ("User-Agent", "a"),
                ("Cookie", "a=b"),
                ("Origin", "http://h"),
                ("Accept", "*/*"),
                ("Referer", "/"),
                ("Accept-Encoding", "gzip"),
                ("Authorization", "Bearer x"),
                ("If-None-Match", "x"),
                ("CF-Connecting-IP", "1.1.1.1"),
                ("apikey", "k"),
                ("Via", "x"),
            ],
        ),
    ];
    for (name, method, fields) in same {
        assert_eq!(print(method, fields), of_base, "{name}");
    }
    let other: &[(&str, Fields<'_>)] = &[
        ("order", &[("Host", "h"), ("Accept", "*/*"), ("User-Agent", "a"), ("Accept-Encoding", "gzip")]),
        ("case", &[("host", "h"), ("User-Agent", "a"), ("Accept", "*/*"), ("Accept-Encoding", "gzip")]),
        ("accept", &[("Host", "h"), ("User-Agent", "a"), ("Accept", HTML), ("Accept-Encoding", "gzip")]),
        ("encoding", &[("Host", "h"), ("User-Agent", "a"), ("Accept", "*/*"), ("Accept-Encoding", "br")]),
        (
            "language",
            &[
                ("Host", "h"),
                ("User-Agent", "a"),
                ("Accept", "*/*"),
                ("Accept-Encoding", "gzip"),
                ("Accept-Language", "x"),
            ],
        ),
        (
            "connection",
            &[
                ("Host", "h"),
                ("User-Agent", "a"),
                ("Accept", "*/*"),
                ("Accept-Encoding", "gzip"),
                ("Connection", "close"),
            ],
        ),
        (
            "metadata",
            &[
                ("Host", "h"),
                ("User-Agent", "a"),
                ("Accept", "*/*"),
                ("Accept-Encoding", "gzip"),
                ("Sec-Fetch-Mode", "cors"),
            ],
        ),
    ];
    for (name, fields) in other {
        assert_ne!(print("GET", fields), of_base, "{name}");
    }
    // Records and models hold these: a change is a breaking change.
    assert_eq!(of_base, 0x2c9d_a629_325a_ffc7);
}

#[test]
fn request_bodies() {
    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";
    for (target, content_type, body, want_user, want_password, anomaly) in [
        ("/x", JSON, r#"{"username":"Ann","password":"p"}"#, user("ann"), password("p"), None),
        ("/x", FORM, "username=Ann&password=p", user("ann"), password("p"), None),
        ("/x", "", r#"{"username":"Ann","password":"p"}"#, user("ann"), password("p"), None),
        ("/x", "text/plain", "username=Ann&password=p", user("ann"), password("p"), None),
        (
            "/x",
            FORM,
            r#"{"username":"Ann","password":"p"}"#,
            user("ann"),
            password("p"),
            Some(Anomaly::BodyDecodeFailed),
        ),
        (
            "/x",
            JSON,
            r#"{"username":"Ann","password":"p""#,
            user("ann"),
            password("p"),
            Some(Anomaly::BodyDecodeFailed),
        ),
        ("/x", JSON, r#"{"email":"a@b.c"}"#, None, None, None),
        ("/forgot-password", JSON, r#"{"email":"a@b.c"}"#, user("a@b.c"), None, None),
        ("/x", FORM, "password=a&password=b", None, password("a"), Some(Anomaly::BodyFieldRepeated)),
        ("/x", "image/png", "password=a", None, None, None),
        ("/x", "text/plain", "just words", None, None, None),
        ("/x?user=q&password=q", FORM, "password=b", user("q"), password("b"), None),
        (
            "/x",
            "multipart/form-data; boundary=B",
            "--B\r\nContent-Disposition: form-data; name=\"pwd\"\r\n\r\np\r\n--B--",
            None,
            password("p"),
            None,
        ),
    ] {
        let tx = post(target, content_type, body);
        assert_eq!((tx.user, tx.login.password), (want_user, want_password), "{content_type} {body}");
        assert_eq!(tx.anomalies.iter().collect::<Vec<_>>(), Vec::from_iter(anomaly), "{content_type} {body}");
    }
}

#[test]
fn compressed_capped_and_broken_bodies() {
    let mut z = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    z.write_all(br#"{"username":"ann","password":"p"}"#).unwrap();
    let packed = z.finish().unwrap();
    let (tx, _) = post_pieces("/x", "application/json", "gzip", &[&packed[..9], &packed[9..]]);
    assert_eq!((tx.user, tx.login.password), (user("ann"), password("p")));
    let (tx, c) = post_pieces("/x", "application/json", "gzip", &[b"{\"password\":\"p\"}"]);
    assert!(tx.anomalies.contains(Anomaly::BodyDecodeFailed));
    assert_eq!((tx.login.password, c.facts_bodies_read_total), (password("p"), 1));
    let (tx, c) = post_pieces("/x", "application/json", "gzip", &[b"\x01{\"password\":\"p\"}"]);
    assert!(tx.anomalies.contains(Anomaly::BodyDecodeFailed) && tx.login.password.is_none());
    assert_eq!(c.facts_bodies_empty_total, 1);
    let (tx, c) = post_pieces("/x", "application/json", "compress", &[b"x"]);
    assert_eq!(tx.anomalies.iter().collect::<Vec<_>>(), [Anomaly::BodyDecodeFailed]);
    assert_eq!((c.facts_bodies_coding_unread_total, c.facts_body_taps_total), (0, 1));
    let long = format!(r#"{{"x":"{}","password":"p"}}"#, "y".repeat(200_000));
    let (tx, _) = post_pieces("/x", "application/json", "", &[long.as_bytes()]);
    assert_eq!((tx.login.password, tx.anomalies.is_empty()), (password("p"), true));
    let longer = format!(r#"{{"password":"p","x":"{}"}}"#, "y".repeat(5 << 20));
    let (tx, c) = post_pieces("/x", "application/json", "", &[longer.as_bytes()]);
    assert_eq!(tx.login.password, password("p"));
    assert_eq!(tx.anomalies.iter().collect::<Vec<_>>(), [Anomaly::BodyCapped]);
    assert_eq!(c.facts_body_bytes_taken_total, 4 << 20);
    let target = format!("/x?{}", "password=p&".repeat(17));
    let (mut facts, mut tx) = (facts(), transaction("192.0.2.1"));
    let head = RequestHead {
        method: b"GET",
        target: target.as_bytes(),
        version: HttpVersion::V11,
        headers: &[],
        says_empty: false,
    };
    facts.request_head(&head, &mut tx);
    assert!(tx.anomalies.contains(Anomaly::BodyCapped) && tx.login.password == password("p"));
    assert_eq!(facts.counters().facts_credentials_capped_total, 1);
    let many = "password=p&".repeat(17);
    let (tx, _) = post_pieces("/x", "application/x-www-form-urlencoded", "", &[many.as_bytes()]);
    assert_eq!(tx.anomalies.iter().collect::<Vec<_>>(), [Anomaly::BodyCapped]);
}

#[test]
fn coded_bodies_in_pieces() {
    let field = br#"{"x":[1,2,{}],"username":"ann","password":"p"}"#;
    let far = format!(r#"{{"x":"{}","username":"ann","password":"p"}}"#, "wxyz".repeat(100_000));
    for codings in ["gzip", "deflate", "br", "zstd", "gzip, br", "zstd, deflate"] {
        for body in [&field[..], far.as_bytes()] {
            let packed = coding::tests::encode(codings, body);
            for piece in [1, 1000, usize::MAX] {
                let pieces: Vec<&[u8]> = packed.chunks(piece).collect();
                let (tx, c) = post_pieces("/x", "application/json", codings, &pieces);
                assert_eq!(c.facts_bodies_coded_total, 1);
                if c.facts_bodies_coded_over_ratio_total == 0 {
                    assert_eq!(
                        (tx.user, tx.login.password),
                        (user("ann"), password("p")),
                        "{codings} {piece}"
                    );
                    assert!(tx.anomalies.is_empty(), "{codings}");
                } else {
                    assert!(body.len() > 100_000, "{codings} is no bomb");
                    assert_eq!(tx.anomalies.iter().collect::<Vec<_>>(), [Anomaly::BodyCapped]);
                }
            }
        }
    }
    // A transfer coding is undone first.
    let packed = coding::tests::encode("br, gzip", field);
    let mut facts = facts();
    let mut tx = transaction("198.51.100.1");
    let fields = [
        ("Transfer-Encoding", "gzip, chunked"),
        ("Content-Encoding", "br"),
        ("Content-Type", "application/json"),
    ];
    let mut tap = request_on(&mut facts, &mut tx, "POST", "/login", &fields).unwrap();
    facts.body(&mut tap, &packed);
    facts.request_body_end(tap, &mut tx);
    assert_eq!(tx.login.password, password("p"));
    // The outcome of a login, too.
    for codings in ["gzip", "br", "zstd", "deflate, br"] {
        for (content_type, body) in
            [("application/json", &b"{\"success\":false}"[..]), ("text/html", b"<b>Invalid Credentials</b>")]
        {
            let packed = coding::tests::encode(codings, body);
            let mut tx = request("POST", "/login", &[]);
            let fields = [("Content-Type", content_type), ("Content-Encoding", codings)];
            let headers = headers(&fields);
            let head =
                ResponseHead { version: HttpVersion::V11, status: 200, headers: &headers, says_empty: false };
            let mut tap = facts.response_head(&head, &mut tx).unwrap();
            packed.chunks(3).for_each(|p| facts.body(&mut tap, p));
            facts.response_body_end(tap, &mut tx);
            assert_eq!(tx.login.body_hint, BodyHint::Failure, "{codings} {content_type}");
        }
    }
    balanced(facts.counters());
}

#[test]
fn character_sets_do_not_make_other_people() {
    let text = r#"{"username":"Jürgen €","password":"pä😀"}"#;
    let utf16 = |little: bool, mark: bool| -> Vec<u8> {
        let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
        units.flat_map(|u: u16| if little { u.to_le_bytes() } else { u.to_be_bytes() }).collect()
    };
    let bodies = [
        text.as_bytes().to_vec(),
        [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        utf16(true, true),
        utf16(false, true),
        utf16(true, false),
        utf16(false, false),
        br#"{"username":"J\u00fcrgen \u20AC","password":"p\u00e4\ud83d\ude00"}"#.to_vec(),
    ];
    for body in &bodies {
        for content_type in ["application/json", "application/json; charset=iso-8859-1", ""] {
            for piece in [1, 2, 5, usize::MAX] {
                let pieces: Vec<&[u8]> = body.chunks(piece).collect();
                let (tx, _) = post_pieces("/x", content_type, "", &pieces);
                assert_eq!(
                    (tx.user, tx.login.password),
                    (user("jürgen €"), password("pä😀")),
                    "{body:?} {piece}"
                );
                assert!(tx.anomalies.is_empty());
            }
        }
    }
    let tx = request("GET", "/login?user=J%FCrgen+%80&password=p", &[]);
    assert_eq!(tx.user, user("jürgen €"));
}

#[test]
fn graphql_operations_are_endpoints() {
    let json = "application/json";
    for (target, content_type, body, want, found) in [
        (
            "/graphql",
            json,
            r#"{"operationName":"Login","query":"mutation Login($password:String!){login(p:$password){id}}","variables":{"email":"Ann@b.c","password":"p"}}"#,
            "POST /graphql mutation Login",
            (user("ann@b.c"), password("p")),
        ),
        (
            "/api/graphql?x",
            json,
            r#"[{"variables":{},"query":"\n query A { a }"},{"query":"mutation B { b }","operationName":"B"}]"#,
            "POST /api/graphql query A {batch}",
            (None, None),
        ),
        (
            "/graphql",
            json,
            r#"{"operationName":"Me","extensions":{"persistedQuery":{"version":1,"sha256Hash":"ab12"}}}"#,
            "POST /graphql operation Me",
            (None, None),
        ),
        (
            "/graphql",
            json,
            r#"{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"ab12"}},"variables":{"pwd":"p"}}"#,
            "POST /graphql operation {persisted}",
            (None, password("p")),
        ),
        (
            "/api",
            json,
            r#"{"query":"mutation { signIn(input: {username: \"Ann\", password: \"p\\u0041\"}) { id } }"}"#,
            "POST /api mutation",
            (user("ann"), password("pA")),
        ),
        (
            "/q",
            "application/graphql",
            "# all\nquery All { all(password: \"p\") }",
            "POST /q query All",
            (None, password("p")),
        ),
        ("/graphql", json, r#"{"a":{"query":"query A { a }"}}"#, "POST /graphql", (None, None)),
        ("/search", json, r#"{"query":"query builder"}"#, "POST /search", (None, None)),
        ("/search", json, r#"{"operationName":"Me"}"#, "POST /search", (None, None)),
        ("/graphql", json, r#"{"operationName":"a b\u0000\"c"}"#, "POST /graphql", (None, None)),
        ("/graphql", "text/plain", r#"{"query":"{me}"}"#, "POST /graphql query", (None, None)),
    ] {
        for piece in [1, 7, usize::MAX] {
            let pieces: Vec<&[u8]> = body.as_bytes().chunks(piece).collect();
            let (tx, c) = post_pieces(target, content_type, "", &pieces);
            assert_eq!(text(&tx, tx.endpoint), want, "{body}");
            assert_eq!(tx.endpoint_hash, endpoint_hash(want.as_bytes()));
            assert_eq!((tx.user, tx.login.password), found, "{body}");
            assert_eq!(c.facts_graphql_total, u64::from(want.split(' ').count() > 2), "{body}");
        }
    }
    for (target, want) in [
        ("/graphql?query=query+Me+%7Bme%7D", "GET /graphql query Me"),
        ("/graphql?operationName=B&query=query%20A{a}query%20B{b}", "GET /graphql query B"),
        ("/graphql?operationName=B&extensions=%7B%7D", "GET /graphql query B"),
        ("/graphql?extensions=%7B%7D", "GET /graphql query {persisted}"),
        ("/graphql?x=y", "GET /graphql"),
        ("/graphql", "GET /graphql"),
        ("/search?query=query+Me+%7Bme%7D", "GET /search"),
    ] {
        let tx = request("GET", target, &[]);
        assert_eq!(text(&tx, tx.endpoint), want, "{target}");
    }
    let tx = request("GET", "/graphql?query=mutation{login(password:%22Zq7Secret7Zq%22)}", &[]);
    assert!(!String::from_utf8(arena(&tx)).unwrap().contains("Zq7"));
    let tx = request("GET", "/graphql?variables=%7B%22password%22:%22Zq7Secret7Zq%22%7D&query={a}", &[]);
    assert!(!String::from_utf8(arena(&tx)).unwrap().contains("Zq7"));
}

#[test]
fn a_gap_or_an_early_end_leaves_whole_fields_only() {
    let body = b"username=ann&password=hunter2";
    for (cut, want) in [(12, None), (13, user("ann")), (20, user("ann")), (29, user("ann"))] {
        let mut facts = facts();
        let mut tx = transaction("198.51.100.1");
        let fields = [("Content-Type", "application/x-www-form-urlencoded")];
        let mut tap = request_on(&mut facts, &mut tx, "POST", "/login", &fields).unwrap();
        facts.body(&mut tap, &body[..cut]);
        facts.body_gap(&mut tap);
        facts.body(&mut tap, b"&password=other&");
        facts.request_body_end(tap, &mut tx);
        assert_eq!((tx.user, tx.login.password), (want, None), "{cut}");
        assert!(!tx.anomalies.contains(Anomaly::BodyDecodeFailed));
        assert_eq!(facts.counters().facts_body_bytes_after_gap_total, 16);
        balanced(facts.counters());
    }
    let mut facts = facts();
    let mut tx = transaction("198.51.100.1");
    let mut tap =
        request_on(&mut facts, &mut tx, "POST", "/login", &[("Content-Type", "application/json")]).unwrap();
    facts.body(&mut tap, br#"{"username":"ann","pass"#);
    tx.anomalies.insert(Anomaly::RequestTruncated);
    facts.request_body_end(tap, &mut tx);
    assert_eq!(tx.user, user("ann"));
    assert!(!tx.anomalies.contains(Anomaly::BodyDecodeFailed));
}

#[test]
fn which_requests_get_a_tap() {
    for (method, fields, want) in [
        ("GET", &[("Content-Type", "application/json")] as Fields<'_>, false),
        ("POST", &[("Content-Type", "application/json")], true),
        ("PUT", &[("Content-Type", "application/json")], true),
        ("PATCH", &[], true),
        ("DELETE", &[], false),
        ("POST", &[("Content-Length", "0")], false),
        ("POST", &[("Content-Type", "image/png")], false),
        // Framing reads a body in spite of these.
        ("POST", &[("Content-Length", "0"), ("Transfer-Encoding", "chunked")], true),
        ("POST", &[("Transfer-Encoding", "chunked"), ("Content-Length", "0")], true),
        ("POST", &[("Content-Length", "0"), ("Content-Length", "9")], true),
        ("POST", &[("Content-Length", "9"), ("Content-Length", "0")], true),
        ("POST", &[("Content-Length", "0"), ("Content-Length", "0")], false),
        // Which of two types a server takes cannot be known.
        ("POST", &[("Content-Type", "image/png"), ("Content-Type", "application/json")], true),
        ("POST", &[("Content-Type", "application/json"), ("Content-Type", "image/png")], true),
        ("POST", &[("Content-Type", "image/png"), ("Content-Type", "image/gif")], false),
    ] {
        let mut tx = transaction("10.0.0.1");
        assert_eq!(
            request_on(&mut facts(), &mut tx, method, "/", fields).is_some(),
            want,
            "{method} {fields:?}"
        );
    }
}

fn respond(tx: &mut Transaction, status: u16, fields: Fields<'_>, body: &str) -> bool {
    let mut facts = facts();
    let headers = headers(fields);
    let tap = facts.response_head(
        &ResponseHead {
            version: HttpVersion::V11,
            status,
            headers: &headers,
            says_empty: says_empty(&headers),
        },
        tx,
    );
    let tapped = tap.is_some();
    if let Some(mut tap) = tap {
        facts.body(&mut tap, body.as_bytes());
        facts.response_body_end(tap, tx);
    }
    balanced(facts.counters());
    tapped
}

#[test]
fn responses_to_logins() {
    let json: Fields<'_> = &[("Content-Type", "application/json; charset=utf-8")];
    let html: Fields<'_> = &[("Content-Type", "text/html")];
    for (status, fields, body, want) in [
        (200, json, r#"{"success":false}"#, BodyHint::Failure),
        (200, json, r#"{"access_token":"0123456789"}"#, BodyHint::Success),
        (401, json, r#"{"message":"Wrong password"}"#, BodyHint::Failure),
        (200, html, "<input TYPE=\"password\">", BodyHint::Failure),
        (200, html, "<h1>Hello</h1>", BodyHint::None),
        (200, &[], "{\"ok\":true}", BodyHint::Success),
        (200, &[("Content-Type", "text/plain")], "Invalid credentials", BodyHint::Failure),
        (302, html, "<input TYPE=\"password\">", BodyHint::None),
        (200, &[("Content-Type", "image/png")], "type=password", BodyHint::None),
    ] {
        let mut tx = request("POST", "/login", &[]);
        respond(&mut tx, status, fields, body);
        assert_eq!(tx.login.body_hint, want, "{status} {body}");
    }
    let mut tx = request("POST", "/login", &[]);
    assert!(respond(&mut tx, 200, json, "{}"));
    assert_eq!(text(&tx, tx.response_content_type), "application/json");
    let mut tx = request("POST", "/cart", &[]);
    assert!(!respond(&mut tx, 200, json, r#"{"success":false}"#));
    let mut tx = request("GET", "/login", &[]);
    assert!(!respond(&mut tx, 200, html, "type=password"));
    let mut tx = post("/cart", "application/json", r#"{"password":"p"}"#);
    assert!(respond(&mut tx, 200, json, "{}"));
}

#[test]
fn redirects() {
    for (path, status, location, want) in [
        ("/login", 302, "/login", RedirectClass::SamePath),
        ("/login", 302, "/login/", RedirectClass::SamePath),
        ("/login", 302, "?error=1", RedirectClass::SamePath),
        ("/a/login", 302, "login", RedirectClass::SamePath),
        ("/login", 302, "http://h/login?x", RedirectClass::SamePath),
        ("/session", 302, "/signin", RedirectClass::LoginLike),
        ("/login", 302, "/login/error", RedirectClass::LoginLike),
        ("/login", 302, "/?login_error", RedirectClass::LoginLike),
        ("/login", 302, "/access-denied.html", RedirectClass::LoginLike),
        ("/login", 303, "/account", RedirectClass::Elsewhere),
        ("/login", 302, "//h/account", RedirectClass::Elsewhere),
        ("/login", 302, "http://other.example", RedirectClass::Elsewhere),
        ("/login", 201, "/users/1", RedirectClass::None),
        ("/login", 304, "/login", RedirectClass::None),
    ] {
        let mut tx = request("POST", path, &[]);
        respond(&mut tx, status, &[("Location", location)], "");
        assert_eq!(tx.login.redirect, want, "{path} {location}");
        assert_eq!(text(&tx, tx.location), location);
    }
    let mut tx = request("POST", "/login", &[]);
    respond(&mut tx, 302, &[("Location", "/cb#access_token=Zq7Zq7Zq7&x=1")], "");
    assert_eq!(text(&tx, tx.location), "/cb#access_token=REDACTED&x=1");
    let mut orphan = transaction("10.0.0.1");
    respond(&mut orphan, 302, &[("Location", "/x"), ("Content-Type", "a/b;c")], "");
    assert_eq!(orphan.login.redirect, RedirectClass::Elsewhere);
}

#[test]
fn cookies_that_responses_set() {
    for (cookie, line, want) in [
        ("", "sid=new; Path=/", true),
        ("sid=old", "sid=new; Path=/", true),
        ("sid=old", "sid=old; Path=/", false),
        ("", "sid=x; Max-Age=0", false),
        ("", "sid=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT", false),
        ("", "sid=x; Expires=Fri, 01 Jan 2027 00:00:00 GMT", true),
        ("", "sid=x; Expires=Fri, 01 Jan 2026 00:00:00 GMT; Path=/", true),
        ("", "sid=x; Expires=Fri, 01 Jan 2025 00:00:00 GMT; Path=/", false),
        ("", "theme=dark", false),
    ] {
        let mut tx = request("POST", "/login", &[("Cookie", cookie)]);
        respond(&mut tx, 200, &[("Set-Cookie", "a=b"), ("Set-Cookie", line)], "");
        assert_eq!(tx.login.sets_cookie, want, "{cookie} {line}");
    }
}

/// Every byte of the arena.
fn arena(tx: &Transaction) -> Vec<u8> {
    let spans = [
        tx.method,
        tx.target,
        tx.path,
        tx.domain,
        tx.user_agent,
        tx.referrer,
        tx.request_content_type,
        tx.response_content_type,
        tx.location,
        tx.endpoint,
    ];
    let all: Vec<u8> = spans.iter().flat_map(|s| tx.text.get(*s).to_vec()).collect();
    assert_eq!(all.len(), tx.text.len(), "the arena holds what no field shows");
    all
}

#[test]
fn no_secret_is_kept_wherever_it_stands_in_a_target() {
    const SECRET: &str = "Zq7SecretZq7Ab12Cd34Ef56";
    for (method, target) in [
        ("CONNECT", "u:SECRET@h.test:443"),
        ("GET", "http://u:SECRET@h.test/x"),
        ("GET", "http:/u:SECRET@h/x"),
        ("GET", "//u:SECRET@h/x"),
        ("GET", "/\\u:SECRET@h/x"),
        ("GET", "/fetch/http://u:SECRET@h/x"),
        ("GET", "/x?next=http://u:SECRET@h/"),
        ("GET", "/x?next=http%3A%2F%2Fh%2F%3Fpassword%3DSECRET"),
        ("GET", "/x?next=http%253A%252F%252Fh%252F%253Fpassword%253DSECRET"),
        ("GET", "/x?next=http%3A%2F%2Fu%3ASECRET%40h%2F"),
        ("GET", "/x?data=%7B%22password%22%3A%20%22SECRET%22%7D"),
        ("GET", "/x?data={%22user%22:{%22password%22:%22SECRET%22}}"),
        ("GET", "/x?password%5B%5D=SECRET"),
        ("GET", "/x?user%5Bpassword%5D%5B%5D=SECRET"),
        (
            "GET",
            "/x?pass%2577ord=SECRET&%70assword=SECRET&PASSWORD=SECRET&password[]=SECRET&password+=SECRET",
        ),
        ("GET", "/cb?code=SECRET&state=SECRET"),
        ("GET", "/cb#id_token=SECRET&code=SECRET"),
        (
            "GET",
            "/x?key=SECRET&signature=SECRET&sig=SECRET&ticket=SECRET&pin=SECRET&otp=SECRET&mfa_code=SECRET",
        ),
        ("GET", "/x?assertion=SECRET&id_token=SECRET&refresh_token=SECRET&SAMLResponse=SECRET"),
        ("GET", "/x?X-Amz-Signature=SECRET&X-Amz-Credential=SECRET&X-Amz-Security-Token=SECRET"),
        ("GET", "/x?X-Goog-Signature=SECRET&oauth_verifier=SECRET&code_verifier=SECRET"),
        ("GET", "/reset/SECRET"),
        ("GET", "/account/reset-password/confirm/12/SECRET/"),
        ("GET", "/a/b/c/d/e/f/g/h/i/j/k/l/m/verify/SECRET"),
        ("GET", "/unsubscribe/SECRET;a=b?c"),
        ("GET", "/reset/SECRET/../done"),
        ("GET", "/reset/SECRET/%2e%2E/"),
        ("GET", "/x?next=%2Fmagic-link%2FSECRET"),
        ("GET", "/t/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJTM2NyM3RaWiJ9.SECRET"),
        ("GET", "/x?a=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJTM2NyM3RaWiJ9.SECRET"),
        ("GET", "/bot123456:SECRET/sendMessage"),
        ("GET", "/bot123456%3Azq7zq7zq7zq7zq7/sendMessage"),
        ("GET", "/x?password1=SECRET&new_password2=SECRET&password_confirmation=SECRET&pwd1=SECRET"),
        ("GET", "/x?passwordConfirm=SECRET&token2=SECRET&api_key2=SECRET&password%3DSECRET"),
        ("GET", "/a%3Bjsessionid=SECRET/b"),
        ("GET", "/reset%2FSECRET"),
        ("GET", "/a/b;jsessionid%3DSECRET/token=SECRET/c"),
        ("GET", "/app/(S(SECRET))/x.aspx"),
        ("GET", "/api/webhooks/123456789012345678/SECRETSECRET_-SECRET"),
        ("GET", "/services/T024BE7LD/B024BE7LE/SECRET"),
        ("GET", "/v1/key/SECRET/x"),
    ] {
        let target = target.replace("SECRET", SECRET);
        let mut facts = facts();
        let mut tx = transaction("10.0.0.1");
        request_on(&mut facts, &mut tx, method, &target, &[("Host", "h"), ("Referer", &target)]);
        let location = [("Location", target.as_str())];
        let headers = headers(&location);
        let head =
            ResponseHead { version: HttpVersion::V11, status: 302, headers: &headers, says_empty: false };
        facts.response_head(&head, &mut tx);
        let shown = String::from_utf8_lossy(&arena(&tx)).to_lowercase();
        assert!(!shown.contains("zq7"), "{target}: {shown}");
        if method == "GET" && !target.contains("//") && !target.contains("@") {
            assert_eq!(tx.login.redirect, RedirectClass::SamePath, "{target}");
        }
    }
}

#[test]
fn what_lies_beyond_the_cut_counts() {
    let pad = "b".repeat(config().text_bytes_max);
    let target = format!("/login?user=Zq7ann&a={pad}&password=Zq7pw");
    let tx = request("GET", &target, &[("Host", "h"), ("Referer", &target)]);
    assert_eq!(tx.login.password, password("Zq7pw"));
    assert_eq!(tx.user, user("zq7ann"));
    assert!(tx.anomalies.contains(Anomaly::TextCapped));
    assert!(!String::from_utf8_lossy(&arena(&tx)).contains("Zq7"));
    let location = [("Location", target.as_str())];
    let headers = headers(&location);
    let mut tx = transaction("10.0.0.1");
    let head = ResponseHead { version: HttpVersion::V11, status: 302, headers: &headers, says_empty: false };
    facts().response_head(&head, &mut tx);
    assert!(!String::from_utf8_lossy(tx.text.get(tx.location)).contains("Zq7"));
    assert_eq!(tx.location.len(), config().text_bytes_max);
}

#[test]
fn labels_of_bodies_may_be_wrong() {
    const FORM: &str = "user=ann&password=s3cret";
    const JSON: &str = "{\"user\":\"ann\",\"password\":\"s3cret\"}";
    for (content_type, coding, body, failed) in [
        ("application/x-www-form-urlencoded", "foo", FORM, false),
        ("application/json", "foo, gzip", JSON, false),
        ("application/x-www-form-urlencoded", "gzip", FORM, true),
        ("application/x-www-form-urlencoded", "deflate", FORM, true),
        ("application/x-www-form-urlencoded", "br", FORM, true),
        ("application/x-www-form-urlencoded", "zstd", FORM, true),
        ("application/json", "br", JSON, true),
        ("application/json", "gzip, br", JSON, true),
    ] {
        for at in [0, 1, 20] {
            let (first, second) = body.as_bytes().split_at(at);
            let (tx, _) = post_pieces("/login", content_type, coding, &[first, second]);
            assert_eq!(tx.user, user("ann"), "{content_type} {coding}");
            assert_eq!(tx.login.password, password("s3cret"), "{content_type} {coding}");
            assert_eq!(tx.anomalies.contains(Anomaly::BodyDecodeFailed), failed, "{content_type} {coding}");
        }
    }
}

#[test]
fn card_numbers_are_not_kept() {
    for target in [
        "/pay?number=4111111111111111&x=1",
        "/pay?n=5555+5555+5555+4444",
        "/pay?n=3782%20822463%2010005",
        "/pay/4111111111111111/x",
        "/pay/6011-1111-1111-1117",
        "/pay?d=%7B%22n%22%3A%224111111111111111%22%7D",
    ] {
        let tx = request("GET", target, &[("Host", "h"), ("Referer", target)]);
        let shown = String::from_utf8(arena(&tx)).unwrap();
        assert!(!["1111", "5555", "8224"].iter().any(|d| shown.contains(d)), "{target}: {shown}");
    }
    let tx = request("GET", "/reset/Zq7SecretZq7Ab12Cd34Ef56?x=1", &[]);
    assert_eq!(text(&tx, tx.endpoint), "GET /reset/{token}");
    assert_eq!(text(&tx, tx.target), "/reset/REDACTED?x=1");
    assert_eq!(text(&tx, tx.path), "/reset/REDACTED");
}

#[test]
fn no_secret_is_kept() {
    const SECRET: &str = "Zq7Secret7Zq";
    let basic = "Basic Wnk6WnE3U2VjcmV0N1px"; // "Zy:Zq7Secret7Zq"
    let body = format!(r#"{{"username":"{SECRET}","password":"{SECRET}"}}"#);
    let query = format!(
        "/login;jsessionid={SECRET}?password={SECRET}&user={SECRET}&token={SECRET}&cvv={SECRET}#id_token={SECRET}"
    );
    let bearer = format!("Bearer {SECRET}");
    let cookie = format!("sid={SECRET}");
    let referer = format!("http://u:{SECRET}@h/?access_token={SECRET}");
    for authorization in [basic, &bearer] {
        let mut facts = facts();
        let mut tx = transaction("10.0.0.1");
        let fields = [
            ("Host", "h"),
            ("Cookie", cookie.as_str()),
            ("Authorization", authorization),
            ("X-Api-Key", SECRET),
            ("Referer", &referer),
            ("Content-Type", "application/json"),
        ];
        let mut tap = request_on(&mut facts, &mut tx, "POST", &query, &fields).unwrap();
        facts.body(&mut tap, body.as_bytes());
        facts.request_body_end(tap, &mut tx);
        let location = [("Location", referer.as_str()), ("Set-Cookie", &cookie)];
        let headers = headers(&location);
        facts.response_head(
            &ResponseHead { version: HttpVersion::V11, status: 302, headers: &headers, says_empty: false },
            &mut tx,
        );
        assert_eq!(tx.login.password, password(SECRET));
        assert_eq!(tx.session, session(SECRET));
        let shown = format!("{:?} {}", tx, String::from_utf8_lossy(&arena(&tx)));
        assert!(!shown.contains("Zq7") && !shown.contains("Wnk6"), "{shown}");
        assert!(facts.scratch.len() == 0 && facts.spare.len() == 0);
        assert!(facts.spare_taps.iter().all(|t| t.is_wiped()));
        for buffer in [&facts.target, &facts.referrer, &facts.path, &facts.endpoint] {
            assert!(memchr::memmem::find(buffer, b"Zq7").is_none());
        }
    }
}

#[test]
fn hostile_heads_are_bounded() {
    let hops = "10.2.3.4, ".repeat(10_000);
    let bomb = "a=1; ".repeat(50_000);
    let long = format!("/{}?{}", "x/".repeat(50_000), "password=1&".repeat(20_000));
    let agent = "Mozilla/5.0 (".repeat(10_000);
    let host = "h".repeat(100_000);
    let basic = format!("Basic {}", "QUFB".repeat(50_000));
    let fields = [
        ("Host", host.as_str()),
        ("X-Forwarded-For", &hops),
        ("Forwarded", &hops),
        ("Cookie", &bomb),
        ("User-Agent", &agent),
        ("Referer", &long),
        ("Authorization", &basic),
        ("Content-Type", &agent),
        ("Accept", &agent),
    ];
    let tx = request("BREW", &long, &fields);
    assert!(tx.anomalies.contains(Anomaly::TextCapped) && tx.anomalies.contains(Anomaly::ForwardedInvalid));
    assert!(tx.text.len() < 5 * (8 << 10), "{}", tx.text.len());
    let junk: String = (0..=255u8).map(char::from).collect();
    request(
        &junk,
        &junk,
        &[(&junk, &junk), ("Host", &junk), ("Cookie", &junk), ("Forwarded", &junk), ("", "")],
    );
}

#[test]
fn taps_are_reused_without_mixing_bodies() {
    let mut facts = facts();
    for i in 0..5 {
        let mut tx = transaction("198.51.100.1");
        let fields = [("Content-Type", "application/json")];
        let mut tap = request_on(&mut facts, &mut tx, "POST", "/login", &fields).unwrap();
        let body = if i % 2 == 0 { r#"{"username":"ann","password":"p"}"# } else { "{}" };
        facts.body(&mut tap, body.as_bytes());
        facts.request_body_end(tap, &mut tx);
        assert_eq!(tx.login.password.is_some(), i % 2 == 0, "{i}");
    }
    assert_eq!(facts.spare_taps.len(), 1);
    balanced(facts.counters());
}

#[test]
fn fuzz_body_runs_on_seeds() {
    for seed in [
        b"\x00\x05{\"username\":\"ann\",\"password\":\"p\"}" as &[u8],
        b"\x01\x09username=ann&password=p",
        b"\x02\x20--B\r\nContent-Disposition: form-data; name=pwd\r\n\r\nx\r\n--B--",
        b"\x13\x02\x1f\x8b\x08\x00",
        b"\x04\x02<input type=password>",
        b"\x06\x03mutation A { a(password: \"p\") }",
        b"\x00\x11[{\"query\":\"query A { a }\",\"variables\":{\"pwd\":\"x\\u0041\"}}]",
        b"\x00\x03\xff\xfe{\x00\"\x00p\x00w\x00\"\x00:\x001\x00}\x00",
        b"\x00",
        b"",
    ] {
        for end in 0..=seed.len() {
            fuzz_body_fields(&seed[..end]);
        }
    }
}

proptest! {
    #[test]
    fn cuts_do_not_matter(cuts in proptest::collection::vec(0usize..80, 0..6), kind in 0usize..3) {
        let (content_type, body) = [
            ("application/json", r#"{"user":{"email":"a@b.c"},"password":"p\u0041\"x","n":[1,2,{"a":null}]}"#),
            ("application/x-www-form-urlencoded", "user%5Bemail%5D=a%40b.c&password=p%41%22x&n=1"),
            ("multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=email\r\n\r\na@b.c\r\n--B--"),
        ][kind];
        let mut at: Vec<usize> = cuts.iter().map(|c| c % (body.len() + 1)).chain([0, body.len()]).collect();
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|w| &body.as_bytes()[w[0]..w[1]]).collect();
        let (whole, _) = post_pieces("/login", content_type, "", &[body.as_bytes()]);
        prop_assert!(whole.user == user("a@b.c"));
        prop_assert!(post_pieces("/login", content_type, "", &pieces).0 == whole);
    }

    #[test]
    fn any_bytes_as_body(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_body_fields(&data);
    }

    #[test]
    fn any_bytes_as_head(target in "\\PC{0,80}", name in "\\PC{0,20}", value in "\\PC{0,80}") {
        let fields = ["Host", "Cookie", "Forwarded", "X-Forwarded-For", "Authorization", "Content-Type", name.as_str()];
        let fields: Vec<(&str, &str)> = fields.iter().map(|n| (*n, value.as_str())).collect();
        let mut tx = transaction("10.0.0.1");
        let _ = request_on(&mut facts(), &mut tx, "POST", &target, &fields);
        respond(&mut tx, 302, &[("Location", &target), ("Set-Cookie", &value)], &value);
        prop_assert!(tx.client_forwarded || tx.client == Host::from_v4([10, 0, 0, 1]));
    }
}
