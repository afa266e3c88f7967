//! Dialogues made of frames; each is run whole, and again cut at every byte.

use offpath_types::{
    BodyHint, Chunk, Connection, Direction, EndReason, FlowInfo, FlowKey, Host, IdentityKey, Pace, Peer,
    Timestamp, Transaction, TunnelId, WebSocketEnd, WebSocketSide,
};

use crate::{Http, ProtocolConfig, ProtocolCounters};

const UP: Direction = Direction::ToServer;
const DOWN: Direction = Direction::ToClient;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH: u8 = 5;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const ES: u8 = 1;
const EH: u8 = 4;
const PADDED: u8 = 8;
const PRIO: u8 = 0x20;

#[derive(Clone, Debug)]
enum What {
    Data(Vec<u8>),
    /// Sent by one that had received so many bytes more of the other direction than came here.
    Ahead(u64, Vec<u8>),
    /// Seconds.
    Wait(u64),
    Gap(u64),
    End,
}

type Event = (Direction, What);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A literal field; `index`: it enters the table.
fn literal(index: bool, name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![if index { 0x40 } else { 0x00 }];
    for text in [name, value] {
        assert!(text.len() < 127);
        out.push(text.len() as u8);
        out.extend(text.as_bytes());
    }
    out
}

fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    list.iter().flat_map(|(n, v)| literal(false, n, v)).collect()
}

fn get(path: &str) -> Vec<u8> {
    fields(&[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "shop.test")])
}

fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])
}

fn client(frames: &[Vec<u8>]) -> Event {
    (UP, What::Data([PREFACE.to_vec(), settings(), frames.concat()].concat()))
}

fn up(frames: &[Vec<u8>]) -> Event {
    (UP, What::Data(frames.concat()))
}

fn down(frames: &[Vec<u8>]) -> Event {
    (DOWN, What::Data(frames.concat()))
}

fn ok(stream: u32, body: &str) -> Vec<u8> {
    [frame(HEADERS, EH, stream, &[0x88]), frame(DATA, ES, stream, body.as_bytes())].concat()
}

fn run(
    config: &ProtocolConfig,
    midstream: bool,
    events: &[Event],
    cuts: impl Fn(usize) -> Vec<usize>,
) -> (Vec<Transaction>, ProtocolCounters) {
    let (txs, counters, _) = run_told(config, midstream, events, cuts);
    (txs, counters)
}

fn run_told(
    config: &ProtocolConfig,
    midstream: bool,
    events: &[Event],
    cuts: impl Fn(usize) -> Vec<usize>,
) -> (Vec<Transaction>, ProtocolCounters, Vec<WebSocketEnd>) {
    let peer = |last, port| Peer { host: Host::from_v4([10, 0, 0, last]), port };
    let (key, client_side) = FlowKey::new(peer(1, 40_000), peer(2, 80), TunnelId(0));
    let opened = Timestamp::from_nanos(7);
    let flow = FlowInfo { key, client_side, opened, midstream, envelope: Default::default() };
    let mut http = Http::new(config.clone(), IdentityKey::new([1; 32]));
    let mut s = http.open(&flow);
    let (mut out, mut next) = (Vec::new(), [0u64; 2]);
    let mut now = Timestamp::from_nanos(1_000_000_000);
    for (dir, what) in events {
        now = now.plus_nanos(1_000_000);
        let d = dir.index();
        match what {
            What::Data(bytes) | What::Ahead(_, bytes) => {
                let ahead = if let What::Ahead(ahead, _) = what { *ahead } else { 0 };
                let mut from = 0;
                for to in cuts(bytes.len()).into_iter().chain([bytes.len()]).filter(|c| *c <= bytes.len()) {
                    if to <= from {
                        continue;
                    }
                    let peer_acked = Some(next[1 - d] + ahead);
                    let chunk =
                        Chunk::Data { bytes: &bytes[from..to], offset: next[d], peer_acked, seen: now };
                    http.chunk(&mut s, &flow, *dir, chunk, now, &mut out);
                    next[d] += (to - from) as u64;
                    from = to;
                }
            }
            What::Wait(secs) => now = now.plus_nanos(secs * 1_000_000_000),
            What::Gap(len) => {
                let chunk = Chunk::Gap { len: *len, offset: next[d], seen: now };
                http.chunk(&mut s, &flow, *dir, chunk, now, &mut out);
                next[d] += len;
            }
            What::End => {
                let chunk = Chunk::End { reason: EndReason::Fin, seen: now };
                http.chunk(&mut s, &flow, *dir, chunk, now, &mut out);
            }
        }
    }
    http.close(s, &flow, now, &mut out);
    assert_eq!((http.held_bytes(), http.open_requests()), (0, 0));
    crate::http1::assert_balanced(http.counters());
    let told = std::mem::take(http.connections()).into_iter().filter_map(|c| match c {
        Connection::WebSocket(end) => Some(*end),
        Connection::Handshake(_) => None,
    });
    let told: Vec<_> = told.collect();
    assert_eq!(told.len() as u64, http.counters().websockets_ended_total);
    (out, *http.counters(), told)
}

/// `1 GET /path 200 5>7 whole [anomalies]`
fn summary(tx: &Transaction) -> String {
    let text = |span| String::from_utf8_lossy(tx.text.get(span)).into_owned();
    let or = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let stream = tx.rare.as_ref().and_then(|r| r.stream).map_or("-".into(), |s| s.to_string());
    let status = tx.status.map_or("-".to_owned(), |s| s.to_string());
    let odd: Vec<_> = tx.anomalies.iter().map(|a| a.name()).collect();
    format!(
        "{stream} {} {} {status} {}>{}{}{}",
        or(text(tx.method)),
        or(text(tx.target)),
        tx.request_body_bytes,
        tx.response_body_bytes,
        if tx.complete { " whole" } else { "" },
        if odd.is_empty() { String::new() } else { format!(" [{}]", odd.join(" ")) },
    )
}

/// Runs whole, byte by byte and cut once at every place; returns what all of these gave.
fn check(
    name: &str,
    midstream: bool,
    events: &[Event],
    want: &[&str],
) -> (Vec<Transaction>, ProtocolCounters) {
    let config = ProtocolConfig::default();
    let whole = run(&config, midstream, events, |_| Vec::new());
    let got: Vec<_> = whole.0.iter().map(summary).collect();
    assert_eq!(got, want, "{name}");
    let bytewise = run(&config, midstream, events, |len| (1..len).collect());
    assert_eq!(bytewise.0, whole.0, "{name}, byte by byte");
    let longest = events.iter().map(|(_, w)| match w {
        What::Data(b) | What::Ahead(_, b) => b.len(),
        _ => 0,
    });
    let longest = longest.max().unwrap();
    for at in 1..longest {
        assert_eq!(run(&config, midstream, events, |_| vec![at]).0, whole.0, "{name}, cut at {at}");
    }
    whole
}

#[test]
fn requests_and_responses_pair_by_stream() {
    let events = [
        client(&[frame(HEADERS, EH | ES, 1, &get("/a")), frame(HEADERS, EH | ES, 3, &get("/b"))]),
        down(&[settings(), frame(SETTINGS, 1, 0, &[])]),
        down(&[frame(HEADERS, EH, 3, &[0x88]), frame(HEADERS, EH, 1, &[0x8d]), frame(DATA, 0, 3, b"xy")]),
        down(&[frame(DATA, ES, 1, b"no"), frame(DATA, PADDED | ES, 3, b"\x02z\0\0")]),
    ];
    let (txs, counters) =
        check("interleaved", false, &events, &["1 GET /a 404 0>2 whole", "3 GET /b 200 0>3 whole"]);
    assert_eq!(txs[0].text.get(txs[0].domain), b"shop.test");
    assert_eq!((counters.flows_http2_total, counters.bytes_body_total), (1, 5));
    assert_ne!(txs[0].fingerprint, 0);
    assert_eq!(txs[0].fingerprint, txs[1].fingerprint);
}

#[test]
fn heads_in_all_their_frames() {
    let post = [
        fields(&[(":method", "POST"), (":scheme", "http"), (":path", "/login"), ("host", "h")]),
        fields(&[("cookie", "a=1"), ("cookie", "sid=2"), ("content-length", "3")]),
    ]
    .concat();
    let (a, rest) = post.split_at(10);
    let (b, c) = rest.split_at(1);
    let mut first = vec![3, 0, 0, 0, 0, 16];
    first.extend(a);
    first.extend([0; 3]);
    let trailers = fields(&[("x-sum", "1")]);
    let events = [
        client(&[
            frame(HEADERS, PADDED | PRIO, 1, &first),
            frame(CONTINUATION, 0, 1, b),
            frame(CONTINUATION, EH, 1, c),
            frame(DATA, 0, 1, b"abc"),
            frame(HEADERS, EH | ES, 1, &trailers),
        ]),
        down(&[
            settings(),
            frame(HEADERS, EH, 1, &fields(&[(":status", "103")])),
            frame(HEADERS, EH, 1, &fields(&[(":status", "201")])),
            frame(HEADERS, EH | ES, 1, &trailers),
        ]),
    ];
    let (txs, _) = check("continuation", false, &events, &["1 POST /login 201 3>0 whole"]);
    assert_eq!(txs[0].interim_responses, 1);
    assert!(txs[0].session.is_some(), "the crumbs are one field");
}

#[test]
fn what_a_stream_may_suffer() {
    let head = |stream, path| frame(HEADERS, EH | ES, stream, &get(path));
    let open = |stream, path| frame(HEADERS, EH, stream, &get(path));
    let rst = |stream| frame(RST, 0, stream, &[0, 0, 0, 8]);
    let status = |stream, code: &str| frame(HEADERS, EH | ES, stream, &fields(&[(":status", code)]));
    let mut promise = vec![0, 0, 0, 2];
    promise.extend(get("/pushed.css"));
    for (name, events, want) in [
        (
            "reset by the client; the answer crosses it",
            vec![
                client(&[head(1, "/a"), rst(1), rst(1), head(3, "/b")]),
                down(&[settings(), ok(1, "late"), ok(3, "b")]),
            ],
            vec!["1 GET /a 200 0>4 whole [stream_reset]", "3 GET /b 200 0>1 whole"],
        ),
        (
            "reset by the client while it sends; what crosses it is stale",
            vec![
                client(&[open(1, "/a"), rst(1), head(3, "/b")]),
                down(&[settings(), ok(1, "late"), ok(3, "b")]),
            ],
            vec![
                "1 GET /a - 0>0 [request_truncated response_missing stream_reset]",
                "3 GET /b 200 0>1 whole",
            ],
        ),
        (
            "reset by the server in the body",
            vec![
                client(&[head(1, "/a")]),
                down(&[settings(), frame(HEADERS, EH, 1, &[0x88]), frame(DATA, 0, 1, b"ab"), rst(1)]),
            ],
            vec!["1 GET /a 200 0>2 [response_truncated stream_reset]"],
        ),
        (
            "pushed",
            vec![
                client(&[head(1, "/")]),
                down(&[settings(), frame(PUSH, EH, 1, &promise), ok(1, "page"), ok(2, "css")]),
            ],
            vec!["1 GET / 200 0>4 whole", "2 GET /pushed.css 200 0>3 whole [pushed]"],
        ),
        (
            "answered before its end",
            vec![
                client(&[open(1, "/up")]),
                down(&[settings(), status(1, "413")]),
                up(&[frame(DATA, ES, 1, b"xyz")]),
            ],
            vec!["1 GET /up 413 3>0 whole"],
        ),
        (
            "never answered",
            vec![client(&[head(1, "/a"), open(3, "/b")]), (UP, What::End), (DOWN, What::End)],
            vec!["1 GET /a - 0>0 [response_missing]", "3 GET /b - 0>0 [request_truncated response_missing]"],
        ),
        (
            "a length that is a lie",
            vec![
                client(&[
                    frame(HEADERS, EH, 1, &[get("/a"), fields(&[("content-length", "5")])].concat()),
                    frame(DATA, ES, 1, b"abc"),
                ]),
                down(&[settings(), status(1, "200")]),
            ],
            vec!["1 GET /a 200 3>0 whole [content_length_conflict]"],
        ),
        (
            "pseudo-header fields out of place",
            vec![
                client(&[frame(HEADERS, EH | ES, 1, &[fields(&[("a", "b")]), get("/a")].concat())]),
                down(&[settings(), status(1, "200")]),
            ],
            vec!["1 GET /a 200 0>0 whole [pseudo_header_invalid]"],
        ),
        (
            "a block that is no HPACK",
            vec![
                client(&[frame(HEADERS, EH | ES, 1, &[0x80]), head(3, "/b")]),
                down(&[settings(), status(1, "400"), status(3, "200")]),
            ],
            vec!["1 - - 400 0>0 [header_block_lost]", "3 GET /b 200 0>0 whole"],
        ),
    ] {
        check(name, false, &events, &want);
    }
}

/// A request's fields with those of `list` in place of the usual ones, or behind them.
fn request_with(list: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "h.test")];
    for (name, value) in list {
        match all.iter_mut().find(|(n, _)| n == name && n.starts_with(':')) {
            Some(field) => field.1 = value,
            None => all.push((name, value)),
        }
    }
    fields(&all)
}

#[test]
fn requests_that_a_gateway_must_not_pass_on_are_marked() {
    let post = "1 POST /a 200 5>0 whole";
    for (list, want) in [
        (&[("te", "trailers"), ("content-length", "5"), ("tE", "trailers")][..], "[header_name_invalid]"),
        (&[("content-length", "0"), ("content-length", "5")], "[content_length_conflict]"),
        (&[("content-length", "5"), ("content-length", "5")], "[content_length_repeated]"),
        (&[("content-length", "+5")], "[content_length_invalid]"),
        (&[("content-length", "5, 6")], "[content_length_conflict]"),
        (&[("Content-Length", "7")], "[header_name_invalid content_length_conflict]"),
        (&[("content-length", " 5")], "[header_value_padded]"),
        (&[("transfer-encoding", "chunked")], "[transfer_encoding_invalid]"),
        (&[("Transfer-Encoding", "x")], "[header_name_invalid transfer_encoding_invalid]"),
        (
            &[("transfer-encoding", "chunked\t"), ("content-length", "5")],
            "[header_value_padded length_and_transfer_encoding transfer_encoding_invalid \
             transfer_encoding_obfuscated]",
        ),
        (&[("connection", "x-forwarded-for")], "[connection_field]"),
        (&[("proxy-connection", "close")], "[connection_field]"),
        (&[("keep-alive", "timeout=5")], "[connection_field]"),
        (&[("upgrade", "h2c")], "[connection_field]"),
        (&[("te", "trailers, deflate")], "[connection_field]"),
        (&[("host", "evil.test")], "[host_conflict]"),
        (&[("x a", "b")], "[header_name_invalid]"),
        (&[("", "b")], "[header_name_invalid]"),
        (&[("x", "a\r\nb: c")], "[control_character]"),
        (&[("x", "a\0b")], "[control_character]"),
        (&[("x", "a\u{1}b")], "[control_character]"),
        (&[("x", "a ")], "[header_value_padded]"),
        (&[(":scheme", "http://evil.test/?")], "[target_invalid]"),
        (&[(":scheme", "")], "[pseudo_header_invalid]"),
        (&[(":authority", "h.test/admin?x=")], "[target_invalid]"),
        (&[(":authority", "ann:pw@h.test")], "[target_invalid]"),
        (&[(":authority", "h.test\r\nx: y")], "[control_character target_invalid]"),
        (&[(":status", "200")], "[pseudo_header_invalid]"),
    ] {
        let events = [
            client(&[frame(HEADERS, EH, 1, &request_with(list)), frame(DATA, ES, 1, b"hello")]),
            down(&[settings(), frame(HEADERS, EH | ES, 1, &[0x88])]),
        ];
        let (txs, _) = check(&format!("{list:?}"), false, &events, &[&format!("{post} {want}")]);
        assert_eq!(txs[0].text.get(txs[0].domain), b"h.test", "{list:?}");
    }
}

#[test]
fn a_request_line_is_not_smuggled_in_a_part_of_one() {
    for (list, want) in [
        (&[(":method", "GET /admin?token=Zq7 HTTP/1.1")][..], "GET /a 200 0>0 whole [method_unknown]"),
        (&[(":method", " GET")], "GET /a 200 0>0 whole [method_unknown]"),
        (&[(":method", "BREW")], "BREW /a 200 0>0 whole [method_unknown]"),
        (&[(":method", "GET\r\nx: Zq7")], "GET /a 200 0>0 whole [control_character method_unknown]"),
        (&[(":method", "")], "- /a 200 0>0 whole [method_unknown pseudo_header_invalid]"),
        (&[(":method", "TRACE"), ("content-length", "0")], "TRACE /a 200 0>0 whole"),
        (&[(":path", "/a HTTP/1.1 Zq7")], "POST /a 200 0>0 whole [target_invalid]"),
        (&[(":path", " /a\tZq7")], "POST /a 200 0>0 whole [target_invalid]"),
        (&[(":path", "/a\r\nx: Zq7")], "POST /a 200 0>0 whole [control_character target_invalid]"),
        (&[(":path", "")], "POST - 200 0>0 whole [pseudo_header_invalid]"),
        (&[(":path", "a?token=Zq7")], "POST a?token=REDACTED 200 0>0 whole [target_invalid]"),
        (
            &[(":path", "http://u:Zq7@x/b"), ("host", "x")],
            "POST http://REDACTED@x/b 200 0>0 whole [target_invalid host_conflict]",
        ),
        (&[(":path", "/a?token%00=Zq7")], "POST /a?token%00=REDACTED 200 0>0 whole"),
        (&[(":method", "OPTIONS"), (":path", "*")], "OPTIONS * 200 0>0 whole"),
    ] {
        let events = [
            client(&[frame(HEADERS, EH | ES, 1, &request_with(list))]),
            down(&[settings(), frame(HEADERS, EH | ES, 1, &[0x88])]),
        ];
        let (txs, _) = check(&format!("{list:?}"), false, &events, &[&format!("1 {want}")]);
        assert!(!format!("{:?}", txs[0]).contains("Zq7"), "{list:?}");
    }
}

#[test]
fn responses_that_a_gateway_must_not_pass_on_are_marked() {
    let head = |flags, list: &[(&str, &str)]| frame(HEADERS, EH | flags, 1, &fields(list));
    let ok = head(0, &[(":status", "200")]);
    let end = frame(DATA, ES, 1, b"");
    for (name, answer, want) in [
        ("none", vec![ok.clone(), end.clone()], "200 0>0 whole"),
        (
            "a second response",
            vec![ok.clone(), frame(DATA, 0, 1, b"abc"), head(ES, &[(":status", "500")])],
            "200 0>3 whole [pseudo_header_invalid]",
        ),
        (
            "trailers in the middle",
            vec![ok.clone(), head(0, &[("x", "y")]), end.clone()],
            "200 0>0 whole [trailers_invalid]",
        ),
        (
            "a second response that goes on",
            vec![ok.clone(), head(0, &[(":status", "302")]), end.clone()],
            "200 0>0 whole [pseudo_header_invalid trailers_invalid]",
        ),
        (
            "a protocol that is switched",
            vec![head(0, &[(":status", "101")]), end.clone()],
            "101 0>0 whole [status_line_invalid]",
        ),
        (
            "nothing but an interim one",
            vec![head(ES, &[(":status", "103")])],
            "103 0>0 whole [status_line_invalid]",
        ),
        ("a status below all", vec![head(ES, &[(":status", "099")])], "99 0>0 whole [status_line_invalid]"),
        ("a status of four digits", vec![head(ES, &[(":status", "2000")])], "- 0>0 [status_line_invalid]"),
        ("no status", vec![head(ES, &[("x", "y")])], "- 0>0 [pseudo_header_invalid]"),
        (
            "a request's field",
            vec![head(ES, &[(":status", "200"), (":path", "/")])],
            "200 0>0 whole [pseudo_header_invalid]",
        ),
        (
            "lengths",
            vec![
                head(0, &[(":status", "200"), ("content-length", "1"), ("content-length", "0")]),
                end.clone(),
            ],
            "200 0>0 whole [content_length_conflict]",
        ),
        (
            "a body where none may be",
            vec![head(0, &[(":status", "204")]), frame(DATA, ES, 1, b"abc")],
            "204 0>3 whole [body_unexpected]",
        ),
        (
            "a connection's field",
            vec![head(ES, &[(":status", "200"), ("connection", "close")])],
            "200 0>0 whole [connection_field]",
        ),
        (
            "a block that is no HPACK behind the status",
            vec![frame(HEADERS, EH | ES, 1, &[0x88, 0x80])],
            "200 0>0 [header_block_lost]",
        ),
    ] {
        let events =
            [client(&[frame(HEADERS, EH | ES, 1, &get("/a"))]), down(&[settings(), answer.concat()])];
        check(name, false, &events, &[&format!("1 GET /a {want}")]);
    }
    let request = [
        client(&[
            frame(HEADERS, EH, 1, &request_with(&[])),
            frame(HEADERS, EH, 1, &fields(&[("x", "y")])),
            frame(HEADERS, EH | ES, 1, &fields(&[(":path", "/b")])),
        ]),
        down(&[settings(), ok, end]),
    ];
    let want = ["1 POST /a 200 0>0 whole [pseudo_header_invalid trailers_invalid]"];
    check("heads of a request", false, &request, &want);
}

#[test]
fn event_streams_are_handed_on_at_their_heads_and_long_polls_marked() {
    let stream = fields(&[(":status", "200"), ("content-type", "text/event-stream")]);
    let head = |flags| frame(HEADERS, EH | flags, 1, &stream);
    let event = frame(DATA, 0, 1, b"data: x\n\n");
    let ask = |flags| frame(HEADERS, EH | flags, 1, &get("/e"));
    let hour = || (UP, What::Wait(3600));
    let head_only = "1 GET /e 200 0>0 whole";
    for (name, events, want, pace, at_once) in [
        (
            "a stream",
            vec![
                client(&[ask(ES)]),
                down(&[settings(), head(0), event.clone()]),
                hour(),
                down(&[event.clone(), frame(HEADERS, EH | ES, 1, &fields(&[("x", "y")]))]),
            ],
            vec![head_only],
            Pace::Streamed,
            true,
        ),
        (
            "a stream with a gap in it, which the client ends",
            vec![
                client(&[ask(ES)]),
                down(&[settings(), head(0), event[..12].to_vec()]),
                (DOWN, What::Gap(event.len() as u64 - 12)),
                hour(),
                up(&[frame(RST, 0, 1, &[0, 0, 0, 8])]),
            ],
            vec![head_only],
            Pace::Streamed,
            true,
        ),
        (
            "a stream that begins before the request has ended",
            vec![
                client(&[ask(0)]),
                down(&[settings(), head(0)]),
                up(&[frame(DATA, ES, 1, b"abc")]),
                hour(),
                down(std::slice::from_ref(&event)),
            ],
            vec!["1 GET /e 200 3>0 whole"],
            Pace::Streamed,
            true,
        ),
        (
            "a stream that has ended with its head",
            vec![client(&[ask(ES)]), down(&[settings(), head(ES)])],
            vec![head_only],
            Pace::AtOnce,
            true,
        ),
        (
            "a stream after a poll",
            vec![client(&[ask(ES)]), down(&[settings()]), (UP, What::Wait(5)), down(&[head(0)]), hour()],
            vec![head_only],
            Pace::Streamed,
            false,
        ),
        (
            "a long poll",
            vec![client(&[ask(ES)]), down(&[settings()]), (UP, What::Wait(5)), down(&[ok(1, "x")])],
            vec!["1 GET /e 200 0>1 whole"],
            Pace::Held,
            false,
        ),
        (
            "a short one",
            vec![client(&[ask(ES)]), down(&[settings()]), (UP, What::Wait(4)), down(&[ok(1, "x")])],
            vec!["1 GET /e 200 0>1 whole"],
            Pace::AtOnce,
            false,
        ),
        (
            "an upload that takes long",
            vec![
                client(&[ask(0)]),
                down(&[settings()]),
                (UP, What::Wait(20)),
                up(&[frame(DATA, ES, 1, b"abc")]),
                down(&[ok(1, "x")]),
            ],
            vec!["1 GET /e 200 3>1 whole"],
            Pace::AtOnce,
            false,
        ),
    ] {
        let (txs, counters) = check(name, false, &events, &want);
        assert_eq!(txs[0].pace, pace, "{name}");
        let at_once_now = txs[0].emitted.nanos_since(txs[0].started) < 1_000_000_000;
        assert_eq!(at_once_now, at_once, "{name}");
        let told = (pace == Pace::Streamed, name.contains("poll"));
        let counted = (counters.event_streams_total == 1, counters.long_polls_total == 1);
        assert_eq!(counted, told, "{name}");
    }
}

#[test]
fn a_table_size_is_taken_where_the_other_side_may_have_allowed_it() {
    // A size of 65536, and a field that enters the table.
    let first = [vec![0x3f, 0xe1, 0xff, 0x03, 0x88], literal(true, "server", "netty")].concat();
    let answer = |stream, block: &[u8]| frame(HEADERS, EH | ES, stream, block);
    let answers = [settings(), answer(1, &first), answer(3, &[0x88, 0xbe])];
    let allow = frame(SETTINGS, 0, 0, &[0, 1, 0, 1, 0, 0]);
    let asks = |stream| frame(HEADERS, EH | ES, stream, &get("/a"));
    let both = [PREFACE.to_vec(), allow.clone(), asks(1), asks(3)].concat();
    let whole = ["1 GET /a 200 0>0 whole", "3 GET /a 200 0>0 whole"];
    for (name, events, want) in [
        (
            "only the server was captured",
            vec![down(&answers)],
            vec!["1 - - 200 0>0 [request_missing]", "3 - - 200 0>0 [request_missing]"],
        ),
        (
            "the mirror swapped the directions",
            vec![(DOWN, What::Ahead(both.len() as u64, answers.concat())), up(std::slice::from_ref(&both))],
            whole.to_vec(),
        ),
        (
            "it swapped a later packet",
            vec![
                client(&[asks(1), asks(3)]),
                (DOWN, What::Ahead(allow.len() as u64, answers.concat())),
                up(std::slice::from_ref(&allow)),
            ],
            whole.to_vec(),
        ),
        ("it was said before", vec![up(&[both]), down(&answers)], whole.to_vec()),
        (
            "it was not said",
            vec![client(&[asks(1), asks(3)]), down(&answers)],
            vec!["1 GET /a - 0>0 [header_block_lost]", "3 GET /a 200 0>0 whole [header_unresolved]"],
        ),
    ] {
        check(name, false, &events, &want);
    }
}

#[test]
fn the_server_may_speak_first() {
    let events =
        [down(&[settings()]), client(&[frame(HEADERS, EH | ES, 1, &get("/a"))]), down(&[ok(1, "hi")])];
    check("server first", false, &events, &["1 GET /a 200 0>2 whole"]);
    let no = [(DOWN, What::Data(vec![0, 0, 5, 4, 0, 0, 0, 0, 0])), up(&[b"hello\n".to_vec()])];
    let (_, counters) = check("not quite", false, &no, &[]);
    assert_eq!(counters.flows_not_http_total, 1);
}

#[test]
fn an_upgraded_request_is_answered_on_stream_1() {
    let ask = b"GET /up HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    let yes = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let events = [
        (UP, What::Data(ask.to_vec())),
        (DOWN, What::Data([yes.to_vec(), settings()].concat())),
        client(&[frame(HEADERS, EH | ES, 3, &get("/next"))]),
        down(&[ok(1, "one"), ok(3, "three")]),
    ];
    let want = ["1 GET /up 200 0>3 whole [upgraded]", "3 GET /next 200 0>5 whole"];
    let (_, counters) = check("h2c", false, &events, &want);
    assert_eq!((counters.flows_http2_total, counters.flows_http1_total), (1, 0));
    // The response's first frames in one packet with the 101, before the client's preface.
    let events = [
        (UP, What::Data(ask.to_vec())),
        (DOWN, What::Data([yes.to_vec(), settings(), ok(1, "one")].concat())),
    ];
    check("h2c at once", false, &events, &want[..1]);
}

#[test]
fn a_101_may_come_before_the_end_of_the_request() {
    let head = |framing: &str| {
        format!("POST /up HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n{framing}\r\n\r\n").into_bytes()
    };
    let (fixed, chunked) = (head("Content-Length: 10"), head("Transfer-Encoding: chunked"));
    let yes = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n".to_vec();
    let lenient = b"HTTP/1.1 101\r\nConnection : Upgrade\r\nUpgrade: h2c\n\n".to_vec();
    let next = |rest: &[u8]| {
        let frames = [frame(HEADERS, EH | ES, 3, &get("/next"))].concat();
        (UP, What::Data([rest, PREFACE, &settings(), &frames].concat()))
    };
    let answers = || down(&[ok(1, "one"), ok(3, "three")]);
    let (all, whole) = ("1 POST /up 200 10>3 whole [upgraded]", "3 GET /next 200 0>5 whole");
    for (name, events, want) in [
        (
            "within the body",
            vec![
                (UP, What::Data([&fixed[..], b"012"].concat())),
                (DOWN, What::Data([yes.clone(), settings()].concat())),
                next(b"3456789"),
                answers(),
            ],
            vec![all, whole],
        ),
        (
            "after the head, in two parts, frames later, a long upload",
            vec![
                (UP, What::Data(fixed.clone())),
                (DOWN, What::Data(yes[..20].to_vec())),
                (DOWN, What::Data(yes[20..].to_vec())),
                (UP, What::Wait(60)),
                (DOWN, What::Data(settings())),
                (UP, What::Data(b"0123456".to_vec())),
                next(b"789"),
                answers(),
            ],
            vec![all, whole],
        ),
        (
            "with the answer, in chunks",
            vec![
                (UP, What::Data([&chunked[..], b"4\r\n01"].concat())),
                (DOWN, What::Data([yes.clone(), settings(), ok(1, "one")].concat())),
                next(b"23\r\n6\r\n456789\r\n0\r\n\r\n"),
                down(&[ok(3, "three")]),
            ],
            vec![all, whole],
        ),
        (
            "a head to be lenient with",
            vec![
                (UP, What::Data(fixed.clone())),
                (DOWN, What::Data([lenient, settings()].concat())),
                next(b"0123456789"),
                answers(),
            ],
            vec![
                "1 POST /up 200 10>3 whole [bare_lf space_before_colon status_line_invalid upgraded]",
                whole,
            ],
        ),
        (
            "an end that never comes",
            vec![(UP, What::Data(fixed.clone())), (DOWN, What::Data([yes.clone(), settings()].concat()))],
            vec!["1 POST /up 101 0>0 [request_truncated upgraded]"],
        ),
        (
            "the rest of the request is lost",
            vec![
                (UP, What::Data(fixed.clone())),
                (DOWN, What::Data([yes.clone(), settings()].concat())),
                (UP, What::Gap(10)),
                next(b""),
                answers(),
            ],
            vec!["1 POST /up 200 10>3 [request_gap upgraded]", whole],
        ),
    ] {
        check(name, false, &events, &want);
    }
    // What is held is bounded: past it, the rest of the body is taken for frames.
    let mut config = ProtocolConfig::default();
    config.limits.early_response_bytes_max = 100;
    let events = [
        (UP, What::Data(fixed)),
        (DOWN, What::Data([yes, settings(), ok(1, "one")].concat())),
        (UP, What::Data(b"0123456789".to_vec())),
    ];
    let (txs, counters) = run(&config, false, &events, |_| Vec::new());
    assert_eq!(txs.iter().map(summary).collect::<Vec<_>>(), ["1 POST /up 200 0>3 whole [upgraded]"]);
    let c = counters;
    assert_eq!((c.early_responses_held_total, c.early_responses_released_total), (1, 1));
}

#[test]
fn http2_goes_through_a_tunnel() {
    let events = [
        (UP, What::Data(b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n".to_vec())),
        (DOWN, What::Data(b"HTTP/1.1 200 OK\r\n\r\n".to_vec())),
        client(&[frame(HEADERS, EH | ES, 1, &get("/in"))]),
        down(&[settings(), ok(1, "side")]),
    ];
    check("tunnel", false, &events, &["- CONNECT h:80 200 0>0 whole [tunnelled]", "1 GET /in 200 0>4 whole"]);
}

/// Requests whose fields enter the table, and one that refers to them: `/hot` is field 0, `x-id` field 1.
fn warm() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let first = [vec![0x82, 0x86], literal(true, ":path", "/hot"), literal(true, "x-id", "7")].concat();
    let again = vec![0x82, 0x86, 0xbf, 0xbe];
    let fresh = [vec![0x82, 0x86], literal(false, ":path", "/new")].concat();
    (first, again, fresh)
}

#[test]
fn a_connection_joined_late_says_what_it_does_not_know() {
    let (first, again, fresh) = warm();
    let full = [
        frame(HEADERS, EH | ES, 1, &first),
        frame(HEADERS, EH | ES, 3, &again),
        frame(HEADERS, EH | ES, 5, &fresh),
        frame(HEADERS, EH | ES, 7, &fresh),
    ];
    let answers = [ok(1, "1"), ok(3, "333"), ok(5, "5"), ok(7, "7")];
    for skip in 0..3 {
        let events = [up(&full[skip..]), down(&answers[skip..])];
        let want = [
            "1 GET /hot 200 0>1 whole [midstream]",
            if skip == 0 {
                "3 GET /hot 200 0>3 whole"
            } else {
                "3 GET - 200 0>3 whole [midstream header_unresolved]"
            },
            if skip == 2 { "5 GET /new 200 0>1 whole [midstream]" } else { "5 GET /new 200 0>1 whole" },
            "7 GET /new 200 0>1 whole",
        ];
        let (txs, counters) = check("late", true, &events, &want[skip..]);
        assert_eq!(counters.flows_http2_total, 1);
        assert!(txs.iter().all(|tx| tx.fingerprint == 0), "its settings were not seen");
        // The other way round: the capture has the roles wrong.
        let events = [(DOWN, events[0].1.clone()), (UP, events[1].1.clone())];
        let (_, counters) = check("late and swapped", true, &events, &want[skip..]);
        assert_eq!(counters.flows_swapped_total, 1);
    }
}

#[test]
fn an_upgrade_whose_beginning_was_missed() {
    // The answer to the request that asked for it, which the client's preface follows.
    let (first, again, fresh) = warm();
    let requests = client(&[frame(HEADERS, EH | ES, 3, &first), frame(HEADERS, EH | ES, 5, &again)]);
    let later = [up(&[frame(HEADERS, EH | ES, 7, &fresh)]), down(&[ok(3, "333"), ok(5, "5"), ok(7, "7")])];
    let want =
        ["3 GET /hot 200 0>3 whole [midstream]", "5 GET /hot 200 0>1 whole", "7 GET /new 200 0>1 whole"];
    let orphan = ["1 - - 200 0>1 [request_missing midstream]"];
    for (name, answer, told) in [
        ("all of the answer", vec![ok(1, "1")], &orphan[..]),
        ("a frame of its body", vec![frame(DATA, ES, 1, b"1")], &[]),
        ("the middle of a frame, and the answer", vec![vec![9; 30], ok(1, "1")], &orphan),
        ("the last frame's last bytes", vec![vec![b'x'; 30]], &[]),
    ] {
        let mut events = vec![down(&answer), requests.clone()];
        events.extend(later.clone());
        check(name, true, &events, &[&want[..], told].concat());
    }
}

#[test]
fn a_print_with_a_hole_is_none() {
    let start = [PREFACE.to_vec(), settings()].concat();
    let head = |path| [vec![0x82, 0x86], literal(false, ":path", path)].concat();
    let frame_len = settings().len();
    for (name, from, len) in [
        ("none", start.len(), 0),
        ("all settings", PREFACE.len(), frame_len),
        ("half of them", PREFACE.len() + 11, 2),
        ("the end of them", start.len() - 1, 1),
    ] {
        let mut events = vec![(UP, What::Data(start[..from].to_vec()))];
        if len > 0 {
            events.push((UP, What::Gap(len as u64)));
        }
        let requests = [frame(HEADERS, EH | ES, 1, &head("/a")), frame(HEADERS, EH | ES, 3, &head("/b"))];
        events.push((UP, What::Data([start[from + len..].to_vec(), requests.concat()].concat())));
        events.push(down(&[settings(), ok(1, "1"), ok(3, "3")]));
        let (txs, _) = check(name, false, &events, &["1 GET /a 200 0>1 whole", "3 GET /b 200 0>1 whole"]);
        assert!(txs.iter().all(|tx| (tx.fingerprint != 0) == (len == 0)), "{name}");
    }
}

#[test]
fn joined_at_any_byte_nothing_is_invented() {
    let (first, again, fresh) = warm();
    let mut all = Vec::new();
    for stream in (1..60).step_by(2) {
        let block = if stream == 1 {
            &first
        } else if stream % 3 == 0 {
            &again
        } else {
            &fresh
        };
        all.extend(frame(HEADERS, EH, stream, block));
        all.extend(frame(DATA, ES, stream, &[b'x'; 40]));
    }
    for at in 1..all.len() - 400 {
        let events = [up(&[all[at..].to_vec()])];
        let (txs, counters) = run(&ProtocolConfig::default(), true, &events, |_| Vec::new());
        assert_eq!(counters.flows_http2_total, 1, "from {at}");
        for tx in &txs {
            let known = tx.text.get(tx.target);
            assert!([&b""[..], b"/new"].contains(&known), "from {at}: {}", summary(tx));
        }
        assert!(txs.len() >= 4, "from {at}: {}", txs.len());
    }
}

#[test]
fn places_that_are_found_and_lost_again_do_not_nest() {
    // Two frames and then none, over and over, in one piece: each place is believed, and lost behind them.
    let ping = frame(PING, 0, 0, &[7; 8]);
    let unit = [ping.clone(), ping.clone(), vec![0xff; 9]].concat();
    let bytes = [vec![0xff; 5], unit.repeat((300 << 10) / unit.len())].concat();
    let events = [(UP, What::Data(ping.repeat(5))), (DOWN, What::Data(bytes))];
    let run = move || {
        let (_, counters) = run(&ProtocolConfig::default(), true, &events, |_| Vec::new());
        assert_eq!(counters.flows_http2_total, 1);
        assert!(counters.resyncs_total > 5000, "{}", counters.resyncs_total);
    };
    // A small stack.
    std::thread::Builder::new().stack_size(512 << 10).spawn(run).unwrap().join().unwrap();
}

#[test]
fn other_traffic_joined_late_is_no_http2() {
    let mut random = 1u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as u8
    };
    let noise: Vec<u8> = (0..200_000).map(|_| next()).collect();
    let sparse: Vec<u8> = (0..200_000).map(|_| if next() < 200 { 0 } else { next() }).collect();
    for (name, bytes) in [("noise", noise), ("sparse", sparse), ("zeros", vec![0; 200_000])] {
        let events: Vec<Event> = bytes.chunks(1400).map(|c| up(&[c.to_vec()])).collect();
        let (txs, counters) = run(&ProtocolConfig::default(), true, &events, |_| Vec::new());
        assert_eq!((txs.len(), counters.flows_http2_total), (0, 0), "{name}");
    }
}

#[test]
fn gaps_cost_what_they_hide() {
    let (first, again, fresh) = warm();
    let head = |stream, block: &[u8]| frame(HEADERS, EH | ES, stream, block);
    let body = frame(DATA, ES, 1, &[b'x'; 100]);
    for (name, events, want) in [
        (
            "inside a body the frames go on",
            vec![
                client(&[head(1, &get("/a")), head(3, &get("/b"))]),
                down(&[settings(), frame(HEADERS, EH, 1, &[0x88]), body[..20].to_vec()]),
                (DOWN, What::Gap(50)),
                down(&[body[70..].to_vec(), ok(3, "b")]),
            ],
            vec!["1 GET /a 200 0>100 [response_gap]", "3 GET /b 200 0>1 whole"],
        ),
        (
            "past a body's end the next frame is found",
            vec![
                client(&[head(1, &get("/a")), head(3, &get("/b"))]),
                down(&[settings(), frame(HEADERS, EH, 1, &[0x88]), body[..20].to_vec()]),
                (DOWN, What::Gap(111)),
                down(&[ok(3, "b")]),
            ],
            vec!["1 GET /a 200 0>100 [response_gap]", "3 GET /b 200 0>1 whole"],
        ),
        (
            "what a lost block added to the table is unknown",
            vec![
                client(&[]),
                (UP, What::Gap(head(1, &first).len() as u64)),
                up(&[head(3, &again), head(5, &fresh), head(7, &fresh)]),
                down(&[settings(), ok(3, "3"), ok(5, "5"), ok(7, "7")]),
            ],
            vec![
                "3 GET - 200 0>1 whole [header_unresolved]",
                "5 GET /new 200 0>1 whole",
                "7 GET /new 200 0>1 whole",
            ],
        ),
        (
            "inside a block the frames go on and the table does not",
            vec![
                client(&[frame(HEADERS, EH | ES, 1, &first)[..20].to_vec()]),
                (UP, What::Gap(frame(HEADERS, EH | ES, 1, &first).len() as u64 - 20)),
                up(&[head(3, &again), head(5, &fresh)]),
                down(&[settings(), ok(1, "1"), ok(3, "3"), ok(5, "5")]),
            ],
            vec![
                "1 - - 200 0>1 [request_gap header_block_lost]",
                "3 GET - 200 0>1 whole [header_unresolved]",
                "5 GET /new 200 0>1 whole",
            ],
        ),
        (
            "between two gaps one frame is found",
            vec![
                client(&[head(1, &get("/a"))]),
                down(&[settings(), frame(HEADERS, EH, 1, &[0x88])]),
                (DOWN, What::Gap(17)),
                down(&[frame(DATA, 0, 1, &[b'x'; 100])]),
                (DOWN, What::Gap(17)),
                // Not one that ends elsewhere.
                down(&[frame(DATA, 0, 1, &[b'x'; 1000])[..900].to_vec()]),
                (DOWN, What::Gap(17)),
                down(&[frame(DATA, ES, 1, &[b'x'; 10]), settings()]),
            ],
            vec!["1 GET /a 200 0>110 [response_gap]"],
        ),
    ] {
        check(name, false, &events, &want);
    }
}

#[test]
fn joined_late_a_gap_costs_nothing_of_what_came_before_it() {
    let (first, _, fresh) = warm();
    let request = [frame(HEADERS, EH, 1, &first), frame(DATA, ES, 1, b"ask")].concat();
    let next = frame(HEADERS, EH | ES, 3, &fresh);
    let later = [(UP, What::Gap(17)), (UP, What::Data([next, settings()].concat()))];
    let answers = down(&[ok(1, "one"), ok(3, "three")]);
    let want = ["1 GET /hot 200 3>3 whole [midstream]", "3 GET /new 200 0>5 whole"];
    let events = [(UP, What::Data(request.clone())), later[0].clone(), later[1].clone(), answers.clone()];
    let (_, counters) = check("frames up to the gap", true, &events, &want);
    assert_eq!(counters.flows_http2_total, 1);
    // Frames that do not end there may be none.
    let cut = (UP, What::Data(request[..request.len() - 1].to_vec()));
    let events = [cut, later[0].clone(), later[1].clone(), answers];
    let half = ["1 - - 200 0>3 [request_missing midstream]", "3 GET /new 200 0>5 whole"];
    check("frames into the gap", true, &events, &half);
}

#[test]
fn grpc_names_the_call_and_its_outcome() {
    let call = fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/shop.v1.Auth/Login"),
        ("content-type", "application/grpc+proto"),
    ]);
    let head = fields(&[(":status", "200"), ("content-type", "application/grpc")]);
    for (name, answer, status, hint) in [
        (
            "trailers",
            vec![
                frame(HEADERS, EH, 1, &head),
                frame(DATA, 0, 1, b"\0\0\0\0\x01a"),
                frame(HEADERS, EH | ES, 1, &fields(&[("grpc-status", "16")])),
            ],
            16,
            BodyHint::Failure,
        ),
        (
            "trailers only",
            vec![frame(HEADERS, EH | ES, 1, &[head.clone(), fields(&[("grpc-status", "0")])].concat())],
            0,
            BodyHint::Success,
        ),
    ] {
        let events = [
            client(&[frame(HEADERS, EH, 1, &call), frame(DATA, ES, 1, b"\0\0\0\0\x02ab")]),
            down(&[settings(), answer.concat()]),
        ];
        let (txs, _) = run(&ProtocolConfig::default(), false, &events, |len| (1..len).collect());
        let rpc = txs[0].rare.as_ref().unwrap().rpc.unwrap();
        assert_eq!(txs[0].text.get(rpc.service), b"shop.v1.Auth", "{name}");
        assert_eq!(txs[0].text.get(rpc.method), b"Login", "{name}");
        assert_eq!((rpc.status, txs[0].login.body_hint), (Some(status), hint), "{name}");
    }
}

#[test]
fn a_crossing_answer_is_awaited_for_a_moment() {
    let config = ProtocolConfig::default();
    let taken_back =
        |id| [frame(HEADERS, EH | ES, id, &get("/a")), frame(RST, 0, id, &[0, 0, 0, 8])].concat();
    // The first flag of a PING is ACK.
    let wait = |millis| vec![up(&[frame(PING, ES, 0, &[0; 8])]); millis];
    let unanswered = "GET /a - 0>0 [response_missing stream_reset]";
    for (name, millis, want) in [
        ("within a second", 990, "1 GET /a 200 0>4 whole [stream_reset]".to_owned()),
        ("after a second", 1_010, format!("1 {unanswered}")),
    ] {
        let events = [vec![client(&[taken_back(1)])], wait(millis), vec![down(&[settings(), ok(1, "late")])]];
        let (txs, counters) = run(&config, false, &events.concat(), |_| Vec::new());
        assert_eq!(txs.iter().map(summary).collect::<Vec<_>>(), [want], "{name}");
        assert_eq!(counters.http2_streams_reset_total, 1, "{name}");
    }

    // One more than are awaited: the oldest is given up.
    let ids: Vec<u32> = (0..17).map(|n| 2 * n + 1).collect();
    let asked: Vec<_> = ids.iter().map(|id| taken_back(*id)).collect();
    let answered: Vec<_> = [settings()].into_iter().chain(ids.iter().map(|id| ok(*id, "late"))).collect();
    let (txs, _) = run(&config, false, &[client(&asked), down(&answered)], |_| Vec::new());
    assert_eq!(summary(&txs[0]), format!("1 {unanswered}"));
    assert!(txs[1..].len() == 16 && txs[1..].iter().all(|tx| tx.status == Some(200)));
}

#[test]
fn limits_hold_and_are_counted() {
    let mut config = ProtocolConfig::default();
    config.limits.http2_streams_max = 4;
    config.limits.http2_list_bytes_max = 300;
    config.limits.http2_block_bytes_max = 200;
    config.limits.http2_resets_max = 3;
    config.limits.http2_useless_max = 5;
    let head = |stream| frame(HEADERS, EH | ES, stream, &get("/a"));
    let go = |frames: &[Vec<u8>]| run(&config, false, &[client(frames)], |_| Vec::new());
    let named = |txs: &[Transaction], name: &str| {
        txs.iter().filter(|tx| tx.anomalies.iter().any(|a| a.name() == name)).count() as u64
    };

    let (txs, counters) = go(&[1, 3, 5, 7, 9, 11].map(head));
    assert_eq!((named(&txs, "pipeline_overflow"), counters.pipeline_overflow_total), (2, 2), "streams");

    let rapid: Vec<_> = [1, 3, 5, 7, 9].map(|s| [head(s), frame(RST, 0, s, &[0, 0, 0, 8])].concat()).to_vec();
    let (txs, counters) = go(&rapid);
    assert_eq!((named(&txs, "rapid_reset"), counters.http2_rapid_resets_total), (2, 2), "rapid reset");

    let flood: Vec<_> = [head(1)].into_iter().chain((0..9).map(|_| frame(PING, 0, 0, &[0; 8]))).collect();
    let (txs, counters) = go(&flood);
    assert_eq!((named(&txs, "frame_flood"), counters.http2_frames_flood_total), (1, 5), "SETTINGS and PING");

    let many: Vec<_> = (0..4).map(|i| (format!("x-{i}"), "v".repeat(30))).collect();
    let many: Vec<u8> = many.iter().flat_map(|(n, v)| literal(true, n, v)).collect();
    let long = frame(HEADERS, EH | ES, 1, &[vec![0x82, 0x86, 0x84], many].concat());
    let (txs, counters) = go(&[long, frame(HEADERS, EH | ES, 3, &[0x82, 0x86, 0x84, 0xbe])]);
    assert!(named(&txs, "head_too_long") == 1 && counters.http2_fields_over_limit_total > 0, "list");
    assert_eq!(counters.http2_fields_unresolved_total, 0, "the table is in step");

    let pieces: Vec<_> = (0..20)
        .map(|i| match i {
            0 => frame(HEADERS, ES, 1, &literal(false, "a", "0123456789")),
            i => frame(CONTINUATION, if i == 19 { EH } else { 0 }, 1, &literal(false, "a", "0123456789")),
        })
        .collect();
    let (txs, counters) = go(&[pieces.concat(), head(3)]);
    assert_eq!(
        (named(&txs, "header_block_lost"), counters.http2_blocks_lost_total),
        (1, 1),
        "CONTINUATION flood"
    );
    assert_eq!(summary(&txs[1]), "3 GET /a - 0>0 [response_missing]", "and the frames go on");
}

#[test]
fn every_prefix_ends_somehow() {
    let (first, again, _) = warm();
    let all = [
        PREFACE.to_vec(),
        settings(),
        frame(HEADERS, 0, 1, &first[..5]),
        frame(CONTINUATION, EH, 1, &first[5..]),
        frame(DATA, PADDED, 1, b"\x01ab\0"),
        frame(HEADERS, EH | ES, 3, &again),
        frame(RST, 0, 1, &[0, 0, 0, 1]),
    ]
    .concat();
    for len in 1..all.len() {
        let events = [up(&[all[..len].to_vec()]), down(&[settings(), ok(1, "x")])];
        run(&ProtocolConfig::default(), false, &events, |_| Vec::new());
        run(&ProtocolConfig::default(), true, &events, |_| Vec::new());
    }
}

#[test]
fn the_fuzz_body_runs_on_seeds_and_random_frames() {
    super::fuzz_http2_frames(b"");
    super::fuzz_http2_frames(&[1, 2, 3]);
    let mut random = 7u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as u8
    };
    for _ in 0..300 {
        let input: Vec<u8> = (0..400).map(|_| next()).collect();
        super::fuzz_http2_frames(&input);
    }
}

/// Flows of one shard side by side, each with the client's start behind it.
struct Flows {
    http: Http,
    flow: FlowInfo,
    open: Vec<(crate::Session, [u64; 2])>,
    out: Vec<Transaction>,
    now: Timestamp,
    piece: usize,
}

impl Flows {
    fn new(config: &ProtocolConfig, count: usize, piece: usize) -> Self {
        let peer = |last, port| Peer { host: Host::from_v4([10, 0, 0, last]), port };
        let (key, client_side) = FlowKey::new(peer(1, 40_000), peer(2, 80), TunnelId(0));
        let opened = Timestamp::from_nanos(7);
        let flow = FlowInfo { key, client_side, opened, midstream: false, envelope: Default::default() };
        let mut http = Http::new(config.clone(), IdentityKey::new([1; 32]));
        let open = (0..count).map(|_| (http.open(&flow), [0; 2])).collect();
        let now = Timestamp::from_nanos(1_000_000_000);
        let mut flows = Self { http, flow, open, out: Vec::new(), now, piece };
        for n in 0..count {
            flows.feed(n, &client(&[]));
        }
        flows
    }

    fn feed(&mut self, n: usize, (dir, what): &Event) {
        let What::Data(bytes) = what else { panic!("data only") };
        self.now = self.now.plus_nanos(1_000_000);
        let (session, next) = &mut self.open[n];
        for bytes in bytes.chunks(self.piece) {
            let (offset, peer_acked) = (next[dir.index()], Some(next[dir.flip().index()]));
            let chunk = Chunk::Data { bytes, offset, peer_acked, seen: self.now };
            self.http.chunk(session, &self.flow, *dir, chunk, self.now, &mut self.out);
            next[dir.index()] += bytes.len() as u64;
        }
    }

    fn close(mut self) -> (Vec<Transaction>, Http) {
        for (session, _) in self.open.drain(..) {
            self.http.close(session, &self.flow, self.now, &mut self.out);
        }
        assert_eq!((self.http.held_bytes(), self.http.open_requests()), (0, 0));
        crate::http1::assert_balanced(self.http.counters());
        (self.out, self.http)
    }
}

/// Three requests of a flow among many, and their answers: how each came out.
fn ask_three(flows: &mut Flows, n: usize) -> Vec<String> {
    flows.feed(n, &up(&[1, 3, 5].map(|id| frame(HEADERS, EH | ES, id, &get("/v")))));
    let before = flows.out.len();
    flows.feed(n, &down(&[settings(), ok(1, "x"), ok(3, "x"), ok(5, "x")]));
    flows.out[before..].iter().map(summary).collect()
}

const THREE: [&str; 3] = ["1 GET /v 200 0>1 whole", "3 GET /v 200 0>1 whole", "5 GET /v 200 0>1 whole"];

#[test]
fn what_open_streams_keep_is_bounded() {
    let mut config = ProtocolConfig::default();
    config.limits.held_bytes_max = 96 << 10;
    // 114 bytes of path in the table, a handful on the wire for each request.
    let path = format!("/{}", "p".repeat(113));
    let first = [fields(&[(":method", "GET"), (":scheme", "http")]), literal(true, ":path", &path)].concat();
    let mut all: Vec<Vec<String>> = Vec::new();
    for piece in [usize::MAX, 1, 7] {
        let mut flows = Flows::new(&config, 5, piece);
        for n in 0..4 {
            let many: Vec<_> =
                (1..500).map(|k| frame(HEADERS, EH | ES, 2 * k + 1, &[0x82, 0x86, 0xbe])).collect();
            flows.feed(n, &up(&[frame(HEADERS, EH | ES, 1, &first), many.concat()]));
            assert!(flows.http.held_bytes() <= 96 << 10, "{}", flows.http.held_bytes());
        }
        assert!(flows.http.held_bytes() > 60 << 10, "the limit is used: {}", flows.http.held_bytes());
        assert_eq!(ask_three(&mut flows, 4), THREE, "who has little open is let in");
        let (txs, http) = flows.close();
        let c = http.counters();
        assert_eq!(c.pipeline_overflow_held_full_total, c.pipeline_overflow_total);
        assert!(c.pipeline_overflow_held_full_total > 1000, "{}", c.pipeline_overflow_held_full_total);
        assert_eq!((txs.len(), c.skipped_bytes_held_full_total), (2003, 0));
        all.push(txs.iter().map(summary).collect());
    }
    assert!(all.iter().all(|txs| *txs == all[0]), "however it is cut");
}

#[test]
fn coded_bodies_of_open_streams_are_bounded() {
    let mut config = ProtocolConfig::default();
    config.limits.held_bytes_max = 512 << 10;
    let post = fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/x"),
        (":authority", "shop.test"),
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ]);
    let body = frame(DATA, 0, 1, &[b'z'; 16_000]);
    let mut all = Vec::new();
    for piece in [usize::MAX, 1000, 1] {
        let mut flows = Flows::new(&config, 1, piece);
        for k in 0..100u32 {
            let mut body = body.clone();
            body[8] = (2 * k + 1) as u8;
            flows.feed(0, &up(&[frame(HEADERS, EH, 2 * k + 1, &post), body]));
            assert!(flows.http.held_bytes() <= 512 << 10, "{}", flows.http.held_bytes());
        }
        let (txs, http) = flows.close();
        let c = http.facts().counters();
        let capped = txs.iter().filter(|tx| tx.anomalies.iter().any(|a| a.name() == "body_capped")).count();
        assert_eq!(c.facts_bodies_held_full_total, capped as u64);
        // A body that finds no room is dropped whole; then the next requests take that of the oldest.
        let given_up = http.counters().pipeline_overflow_held_full_total;
        assert!(capped > 0 && given_up > 50, "{capped} {given_up}");
        assert_eq!(
            c.facts_body_bytes_total,
            c.facts_body_bytes_taken_total + c.facts_body_bytes_over_cap_total
        );
        all.push((txs.iter().map(summary).collect::<Vec<_>>(), *c));
    }
    assert!(all.iter().all(|run| *run == all[0]), "however it is cut");
}

#[test]
fn one_client_does_not_starve_the_others() {
    let mut config = ProtocolConfig::default();
    config.limits.open_transactions_max = 64;
    let mut flows = Flows::new(&config, 4, usize::MAX);
    for n in 0..2 {
        let many: Vec<_> = (0..200).map(|k| frame(HEADERS, EH | ES, 2 * k + 1, &get("/many"))).collect();
        flows.feed(n, &up(&many));
        assert_eq!(flows.http.open_requests(), 56 + 8 * n);
    }
    // The other attacker has its share and no more.
    let mut flows = Flows::new(&config, 3, usize::MAX);
    let many: Vec<_> = (0..200).map(|k| frame(HEADERS, EH | ES, 2 * k + 1, &get("/many"))).collect();
    flows.feed(0, &up(&many));
    for n in [1, 2] {
        assert_eq!(ask_three(&mut flows, n), THREE);
    }
    let (txs, http) = flows.close();
    assert_eq!(http.counters().pipeline_overflow_total, 144);
    assert_eq!(http.counters().pipeline_overflow_held_full_total, 0);
    assert_eq!(txs.len(), 206);
}

#[test]
fn the_late_answer_to_a_request_that_was_given_up_is_a_half() {
    let mut config = ProtocolConfig::default();
    config.limits.http2_streams_max = 2;
    let heads = [1, 3, 5].map(|id| frame(HEADERS, EH | ES, id, &get("/a")));
    let again = frame(HEADERS, EH | ES, 1, &[0x88]);
    let events = [client(&heads), down(&[settings(), ok(1, "late"), again, ok(3, "x"), ok(5, "x")])];
    for piece in [usize::MAX, 1] {
        let (txs, counters) = run(&config, false, &events, |len| (1..len).step_by(piece.min(len)).collect());
        assert_eq!(
            txs.iter().map(summary).collect::<Vec<_>>(),
            [
                "1 GET /a - 0>0 [response_missing pipeline_overflow]",
                "1 - - 200 0>4 [request_missing]",
                "3 GET /a 200 0>1 whole",
                "5 GET /a 200 0>1 whole",
            ]
        );
        assert_eq!((counters.pipeline_overflow_total, counters.http2_heads_stale_total), (1, 1), "once");
    }
}

#[test]
fn websockets_of_streams_are_counted() {
    let ask = |protocol: &str, id| {
        let list = [
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "http"),
            (":path", "/chat"),
            (":authority", "h"),
        ];
        frame(HEADERS, EH, id, &fields(&list))
    };
    let yes = |id| frame(HEADERS, EH, id, &[0x88]);
    // A message and a close each; the client's are masked with zeros.
    let (hi, bye) = ([&[0x81, 0x82, 0, 0, 0, 0][..], b"hi"].concat(), [0x88, 0x82, 0, 0, 0, 0, 3, 0xe8]);
    let (answer, gone) = ([&[0x81, 3][..], b"you"].concat(), [0x88, 2, 3, 0xe9]);
    let both = |id, end: u8| {
        [
            up(&[frame(DATA, 0, id, &hi[..4]), frame(DATA, 0, id, &hi[4..])]),
            down(&[frame(DATA, 0, id, &answer), frame(DATA, end, id, &gone)]),
            up(&[frame(DATA, end, id, &bye)]),
        ]
    };
    let side = |messages, control_frames, bytes, close, lost| WebSocketSide {
        messages,
        control_frames,
        bytes,
        close,
        lost,
        compressed: 0,
    };
    let whole = (side(1, 1, 16, Some(1000), false), side(1, 1, 9, Some(1001), false));
    let chat = "1 CONNECT /chat 200 16>9 whole [tunnelled]";
    let lost_frames = [up(&[frame(DATA, 0, 1, &hi)]), (UP, What::Gap(20)), up(&[frame(PING, 0, 0, &[0; 8])])];
    let cases: Vec<(&str, Vec<Event>, Vec<&str>, Vec<_>)> = vec![
        (
            "whole",
            [vec![client(&[ask("websocket", 1)]), down(&[settings(), yes(1)])], both(1, ES).to_vec()]
                .concat(),
            vec![chat],
            vec![(0, whole)],
        ),
        (
            "beside a request, ended with the connection",
            [
                vec![client(&[ask("websocket", 1)]), down(&[settings(), yes(1)])],
                both(1, 0).to_vec(),
                vec![up(&[frame(HEADERS, EH | ES, 3, &get("/a"))]), down(&[ok(3, "x")])],
            ]
            .concat(),
            vec![
                "3 GET /a 200 0>1 whole",
                "1 CONNECT /chat 200 16>9 [request_truncated response_truncated tunnelled]",
            ],
            vec![(1, whole)],
        ),
        (
            "reset",
            vec![
                client(&[ask("websocket", 1)]),
                down(&[settings(), yes(1), frame(DATA, 0, 1, &answer)]),
                up(&[frame(RST, 0, 1, &[0, 0, 0, 8])]),
            ],
            vec!["1 CONNECT /chat 200 0>5 [request_truncated response_truncated tunnelled stream_reset]"],
            vec![(0, (side(0, 0, 0, None, false), side(1, 0, 5, None, false)))],
        ),
        (
            "a gap in a payload",
            vec![
                client(&[ask("websocket", 1)]),
                down(&[settings(), yes(1)]),
                (
                    DOWN,
                    What::Data(
                        [frame(DATA, ES, 1, &[&answer[..], &gone].concat())[..9 + 2].to_vec()].concat(),
                    ),
                ),
                (DOWN, What::Gap(3)),
                (DOWN, What::Data(gone.to_vec())),
                up(&[frame(DATA, ES, 1, &bye)]),
            ],
            vec!["1 CONNECT /chat 200 8>9 [response_gap tunnelled]"],
            vec![(0, (side(0, 1, 8, Some(1000), false), side(1, 1, 6, Some(1001), false)))],
        ),
        (
            "frames are lost",
            [vec![client(&[ask("websocket", 1)]), down(&[settings(), yes(1)])], lost_frames.to_vec()]
                .concat(),
            vec!["1 CONNECT /chat 200 8>0 [request_gap response_truncated tunnelled]"],
            vec![(0, (side(1, 0, 8, None, true), side(0, 0, 0, None, false)))],
        ),
        (
            "refused",
            vec![
                client(&[ask("websocket", 1)]),
                down(&[settings(), frame(HEADERS, EH | ES, 1, &fields(&[(":status", "403")]))]),
                up(&[frame(DATA, ES, 1, &hi)]),
            ],
            vec!["1 CONNECT /chat 403 8>0 whole"],
            vec![],
        ),
        (
            "another protocol",
            [vec![client(&[ask("connect-udp", 1)]), down(&[settings(), yes(1)])], both(1, ES).to_vec()]
                .concat(),
            vec![chat],
            vec![],
        ),
    ];
    for (name, events, want, sockets) in cases {
        check(name, false, &events, &want);
        let config = ProtocolConfig::default();
        for cuts in [false, true] {
            let cuts = |len| if cuts { (1..len).collect() } else { Vec::new() };
            let (txs, c, told) = run_told(&config, false, &events, cuts);
            let got: Vec<_> = told.iter().map(|end| (end.index, (end.client, end.server))).collect();
            assert_eq!(got, sockets, "{name}");
            assert_eq!(c.flows_websocket_total, sockets.len() as u64, "{name}");
            let bytes: u64 = told.iter().map(|end| end.client.bytes + end.server.bytes).sum();
            assert_eq!(c.bytes_websocket_total, bytes, "{name}");
            for end in &told {
                let tx = txs.iter().find(|tx| tx.index == end.index).unwrap();
                assert_eq!((&*end.endpoint, end.flow_id), (tx.text.get(tx.endpoint), tx.flow_id), "{name}");
            }
        }
    }
}
