//! Time per request head and login body: `cargo bench -p offpath-protocol --bench request_head`.
//!
//! Prints the best of several rounds in ns, which is the steadiest figure on a shared machine. With an argument, only the
//! cases whose name contains it.
#![expect(clippy::disallowed_methods, reason = "a bench measures wall time")]

use std::hint::black_box;
use std::time::Instant;

use offpath_protocol::facts::{Facts, FactsConfig};
use offpath_protocol::head::{Header, RequestHead};
use offpath_types::{FlowInfo, FlowKey, HttpVersion, IdentityKey, Peer, Timestamp, Transaction, TunnelId};

const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36";

/// Name, method, target, headers, body.
type Case<'a> = (&'a str, &'a [u8], &'a [u8], &'a [Header<'a>], &'a [u8]);

fn main() {
    let (key, client_side) = FlowKey::new(Peer::default(), Peer { port: 80, ..Peer::default() }, TunnelId(0));
    let flow = FlowInfo {
        key,
        client_side,
        opened: Timestamp::ZERO,
        midstream: false,
        envelope: Default::default(),
    };
    let header =
        |name: &'static str, value: &'static str| Header { name: name.as_bytes(), value: value.as_bytes() };
    let page = [
        header("Host", "shop.example.com"),
        header("Connection", "keep-alive"),
        header("Upgrade-Insecure-Requests", "1"),
        header("User-Agent", AGENT),
        header(
            "Accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        ),
        header("Accept-Encoding", "gzip, deflate"),
        header("Accept-Language", "en-US,en;q=0.9"),
        header("Cookie", "sid=8f14e45fceea167a5a36dedd4bea2543"),
    ];
    let plain = &page[..7];
    let login = [
        header("Host", "shop.example.com"),
        header("User-Agent", "curl/8.5.0"),
        header("Content-Type", "application/json"),
        header("Content-Length", "52"),
    ];
    let trackers = "_ga=GA1.2.1; ".repeat(19) + "sid=8f14e45fceea167a5a36dedd4bea2543";
    let mut tracked = page;
    tracked[7].value = trackers.as_bytes();
    let hops = "10.0.0.1, ".repeat(10_000);
    let forwarded = [header("Host", "h"), Header { name: b"X-Forwarded-For", value: hops.as_bytes() }];
    let (get, post): (&[u8], &[u8]) = (b"GET", b"POST");
    let cases: [Case<'_>; 7] = [
        ("page, 8 headers, session cookie", get, b"/catalog/items/10293?page=2", &page, b""),
        ("page, 7 headers, no identity", get, b"/catalog/items/10293?page=2", plain, b""),
        ("page, 20 cookies", get, b"/catalog/items/10293?page=2", &tracked, b""),
        ("query with secrets", get, b"/login?user=ann&password=hunter2&token=abcdefgh", plain, b""),
        (
            "login, JSON body",
            post,
            b"/api/login",
            &login,
            br#"{"username":"ann@example.com","password":"hunter22"}"#,
        ),
        (
            "login, GraphQL body",
            post,
            b"/graphql",
            &login,
            br#"{"query":"mutation Login($email: String!, $password: String!) { login(email: $email, password: $password) { token user { id name } } }","variables":{"email":"ann@example.com","password":"hunter22"}}"#,
        ),
        ("10,000 forwarding hops", get, b"/", &forwarded, b""),
    ];
    let config =
        FactsConfig { trusted_proxies: vec!["::/16".parse().unwrap_or_default()], ..FactsConfig::default() };
    let mut facts = Facts::new(config, IdentityKey::new([1; 32]));
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    for (name, method, target, headers, body) in cases.into_iter().filter(|c| c.0.contains(&wanted)) {
        let head = RequestHead { method, target, version: HttpVersion::V11, headers, says_empty: false };
        let mut best = f64::MAX;
        for _ in 0..30 {
            let rounds = 20_000;
            let start = Instant::now();
            for i in 0..rounds {
                let mut tx = Transaction::new(flow, 1, i, Timestamp::ZERO);
                if let Some(mut tap) = facts.request_head(black_box(&head), &mut tx) {
                    facts.body(&mut tap, black_box(body));
                    facts.request_body_end(tap, &mut tx);
                }
                black_box(&tx);
            }
            best = best.min(start.elapsed().as_nanos() as f64 / f64::from(rounds));
        }
        println!("{name:36} {best:7.0} ns");
    }
}
