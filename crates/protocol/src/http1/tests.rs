//! Dialogues: `>>>` to the server, `<<<` to the client, `><>` / `<><` a gap of that length in that direction,
//! `>|` / `<|` FIN, `>!` / `<!` RST. Escapes: `\r`, `\n`, `\t`, `\\`, `\xNN`. Lines are one millisecond apart.

use offpath_types::{
    Chunk, Direction, EndReason, FlowInfo, FlowKey, Host, IdentityKey, Pace, Peer, Timestamp, Transaction,
    TunnelId,
};

use super::assert_balanced;
use crate::stage::{Http, Session};
use crate::{ProtocolConfig, ProtocolCounters};

#[derive(Clone, Debug)]
pub(super) enum What {
    Data(Vec<u8>),
    Gap(u64),
    End(EndReason),
}

#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) dir: Direction,
    pub(super) what: What,
    pub(super) offset: u64,
    pub(super) acked: Option<u64>,
    pub(super) at: Timestamp,
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        match bytes.next() {
            Some(b'r') => out.push(b'\r'),
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'x') => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                out.push(u8::from_str_radix(&hex, 16).unwrap());
            }
            other => out.push(other.unwrap()),
        }
    }
    out
}

fn load(script: &str) -> Vec<Event> {
    let mut sent = [0u64; 2];
    let mut events = Vec::new();
    for (n, line) in script.lines().map(str::trim_start).filter(|l| !l.is_empty()).enumerate() {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (dir, what) = match mark {
            ">>>" => (Direction::ToServer, What::Data(unescape(rest))),
            "<<<" => (Direction::ToClient, What::Data(unescape(rest))),
            "><>" => (Direction::ToServer, What::Gap(rest.trim().parse().unwrap())),
            "<><" => (Direction::ToClient, What::Gap(rest.trim().parse().unwrap())),
            ">|" => (Direction::ToServer, What::End(EndReason::Fin)),
            "<|" => (Direction::ToClient, What::End(EndReason::Fin)),
            ">!" => (Direction::ToServer, What::End(EndReason::Rst)),
            "<!" => (Direction::ToClient, What::End(EndReason::Rst)),
            other => panic!("no such mark: {other}"),
        };
        let at = Timestamp::from_nanos(1_000_000_000 + n as u64 * 1_000_000);
        let (offset, acked) = (sent[dir.index()], Some(sent[dir.flip().index()]));
        sent[dir.index()] += match &what {
            What::Data(bytes) => bytes.len() as u64,
            What::Gap(len) => *len,
            What::End(_) => 0,
        };
        events.push(Event { dir, what, offset, acked, at });
    }
    events
}

/// Cuts a data event in two at `at`.
fn cut(event: &Event, at: usize) -> Vec<Event> {
    let What::Data(bytes) = &event.what else { return vec![event.clone()] };
    let (a, b) = bytes.split_at(at);
    let part = |bytes: &[u8], skip: usize| Event {
        what: What::Data(bytes.to_vec()),
        offset: event.offset + skip as u64,
        ..event.clone()
    };
    [part(a, 0), part(b, at)]
        .into_iter()
        .filter(|e| !matches!(&e.what, What::Data(d) if d.is_empty()))
        .collect()
}

fn byte_by_byte(events: &[Event]) -> Vec<Event> {
    let split = |e: &Event| match &e.what {
        What::Data(bytes) => bytes
            .iter()
            .enumerate()
            .map(|(i, b)| Event { what: What::Data(vec![*b]), offset: e.offset + i as u64, ..e.clone() })
            .collect(),
        _ => vec![e.clone()],
    };
    events.iter().flat_map(split).collect()
}

pub(super) fn flow(midstream: bool) -> FlowInfo {
    let client = Peer { host: Host::from_v4([10, 0, 0, 1]), port: 40000 };
    let server = Peer { host: Host::from_v4([10, 0, 0, 2]), port: 80 };
    let (key, client_side) = FlowKey::new(client, server, TunnelId(0));
    FlowInfo { key, client_side, opened: Timestamp::from_nanos(7), midstream, envelope: Default::default() }
}

struct Outcome {
    txs: Vec<Transaction>,
    counters: ProtocolCounters,
    wants: [bool; 2],
}

fn run_with(config: &ProtocolConfig, midstream: bool, events: &[Event]) -> Outcome {
    let mut http = Http::new(config.clone(), IdentityKey::new([1; 32]));
    let flow = flow(midstream);
    let mut session = http.open(&flow);
    let mut txs = Vec::new();
    for event in events {
        feed(&mut http, &mut session, &flow, event, &mut txs);
    }
    let wants = [http.wants(&session, Direction::ToServer), http.wants(&session, Direction::ToClient)];
    let now = events.last().map_or(Timestamp::ZERO, |e| e.at);
    http.close(session, &flow, now, &mut txs);
    assert_eq!((http.held_bytes(), http.open_requests()), (0, 0));
    assert_balanced(http.counters());
    for (i, tx) in txs.iter().enumerate() {
        assert_eq!(tx.index as usize, i);
        assert_eq!(tx.has_request(), !tx.anomalies.contains(offpath_types::Anomaly::RequestMissing));
    }
    Outcome { txs, counters: *http.counters(), wants }
}

pub(super) fn feed(
    http: &mut Http,
    s: &mut Session,
    flow: &FlowInfo,
    event: &Event,
    out: &mut Vec<Transaction>,
) {
    let chunk = match &event.what {
        What::Data(bytes) => {
            Chunk::Data { bytes, offset: event.offset, peer_acked: event.acked, seen: event.at }
        }
        What::Gap(len) => Chunk::Gap { len: *len, offset: event.offset, seen: event.at },
        What::End(reason) => Chunk::End { reason: *reason, seen: event.at },
    };
    http.chunk(s, flow, event.dir, chunk, event.at, out);
}

/// `GET /path 200 5>7 whole [anomalies]`: body bytes to the server and to the client.
fn summary(tx: &Transaction) -> String {
    let text = |span| {
        let text = tx.text.get(span).escape_ascii().to_string();
        if text.is_empty() { "-".to_owned() } else { text }
    };
    let status = tx.status.map_or("-".to_owned(), |s| s.to_string());
    let odd: Vec<_> = tx.anomalies.iter().map(|a| a.name()).filter(|a| *a != "host_missing").collect();
    let whole = if tx.complete { " whole" } else { "" };
    let interim =
        if tx.interim_responses > 0 { format!(" +{}", tx.interim_responses) } else { String::new() };
    let (up, down) = (tx.request_body_bytes, tx.response_body_bytes);
    let line = format!(
        "{} {} {status}{interim} {up}>{down}{whole} {}",
        text(tx.method),
        text(tx.target),
        odd.join(",")
    );
    line.trim_end().to_owned()
}

fn check(name: &str, midstream: bool, script: &str, want: &[&str]) -> Outcome {
    check_with(&ProtocolConfig::default(), name, midstream, script, want)
}

/// Runs a dialogue whole, cut in two at every place, and byte by byte.
fn check_with(config: &ProtocolConfig, name: &str, midstream: bool, script: &str, want: &[&str]) -> Outcome {
    let events = load(script);
    let whole = run_with(config, midstream, &events);
    let got: Vec<_> = whole.txs.iter().map(summary).collect();
    assert_eq!(got, want, "{name}");
    let bytes = run_with(config, midstream, &byte_by_byte(&events));
    assert_eq!(bytes.txs, whole.txs, "{name}: byte by byte");
    for (i, event) in events.iter().enumerate() {
        let What::Data(data) = &event.what else { continue };
        for at in 1..data.len() {
            let mut parts = events[..i].to_vec();
            parts.extend(cut(event, at));
            parts.extend_from_slice(&events[i + 1..]);
            let again = run_with(config, midstream, &parts);
            assert_eq!(again.txs, whole.txs, "{name}: event {i} cut at {at}");
            assert_eq!(again.wants, whole.wants, "{name}: event {i} cut at {at}");
        }
    }
    // Truncation: every prefix must live.
    for i in 0..events.len() {
        if let What::Data(data) = &events[i].what {
            for at in 1..data.len() {
                let mut parts = events[..i].to_vec();
                parts.extend(cut(&events[i], at).into_iter().take(1));
                run_with(config, midstream, &parts);
            }
        }
    }
    whole
}

const DIALOGUES: &[(&str, &str, &[&str])] = &[
    (
        "keep-alive",
        r">>> GET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello
          >>> POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na=b
          <<< HTTP/1.1 204 No Content\r\n\r\n",
        &["GET /a 200 0>5 whole", "POST /b 204 3>0 whole"],
    ),
    (
        "pipelined",
        r">>> GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\nHEAD /c HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nbb
          <<< HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
        &["GET /a 200 0>1 whole", "GET /b 404 0>2 whole", "HEAD /c 200 0>0 whole"],
    ),
    (
        "chunked both ways, extensions and trailers",
        r">>> POST /u HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX: y\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4\r\nWiki\r\n0\r\n\r\n
          >>> GET /n HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n",
        &["POST /u 200 13>4 whole", "GET /n 304 0>0 whole"],
    ),
    (
        "chunked with bare LF",
        r">>> POST /u HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        &["POST /u 200 3>0 whole bare_lf"],
    ),
    (
        "close-delimited",
        r">>> GET /a HTTP/1.0\r\n\r\n
          <<< HTTP/1.0 200 OK\r\nServer: s\r\n\r\nsome
          <<< more
          <|",
        &["GET /a 200 0>8 whole"],
    ),
    (
        "close-delimited, reset",
        r">>> GET /a HTTP/1.0\r\n\r\n
          <<< HTTP/1.0 200 OK\r\n\r\nsome
          <!",
        &["GET /a 200 0>4 response_truncated"],
    ),
    (
        "continue and early hints",
        r">>> POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n
          <<< HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n
          >>> body
          <<< HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
        &["POST /a 201 +2 4>0 whole"],
    ),
    (
        "early refusal",
        r">>> POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf
          <<< HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n
          >>> tail..
          >|
          <|",
        &["POST /a 413 10>0 whole response_early"],
    ),
    (
        "websocket",
        r">>> GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n
          <<< HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello
          >>> \x81\x85abcdGET / HTTP/1.1\r\n\r\n",
        &["GET /ws 101 0>0 whole upgraded"],
    ),
    (
        "an event stream is handed on at its head, and what follows it is not hidden",
        r">>> GET /e HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n
          <<< 0\r\n\r\n
          >>> GET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        &["GET /e 200 0>0 whole", "GET /a 200 0>2 whole"],
    ),
    (
        "an event stream without an end",
        r">>> GET /e HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n\r\ndata: 1\n\n
          <<< data: 2\n\n",
        &["GET /e 200 0>0 whole"],
    ),
    (
        "HEAD of an event stream",
        r">>> HEAD /e HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n
          >>> GET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        &["HEAD /e 200 0>0 whole", "GET /a 200 0>2 whole"],
    ),
    (
        "connect",
        r">>> CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n
          <<< HTTP/1.1 200 Connection established\r\n\r\n
          >>> \x16\x03\x01GET / HTTP/1.1\r\n\r\n
          <<< \x16\x03\x03",
        &["CONNECT a.example:443 200 0>0 whole tunnelled"],
    ),
    (
        "connect refused, then with credentials",
        r">>> CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n
          <<< HTTP/1.1 407 Who are you\r\nContent-Length: 2\r\n\r\nno
          >>> CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nProxy-Authorization: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\n\r\n",
        &["CONNECT a:443 407 0>2 whole", "CONNECT a:443 200 0>0 whole tunnelled"],
    ),
    (
        "truncated request",
        r">>> POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf
          >!
          <!",
        &["POST /a - 4>0 request_truncated,response_missing"],
    ),
    ("no response", r">>> GET /a HTTP/1.1\r\nHost: x\r\n\r\n", &["GET /a - 0>0 response_missing"]),
    (
        "timeout answer to nothing",
        r">>> GET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n
          <|",
        &["GET /a 200 0>0 whole", "- - 408 0>0 request_missing"],
    ),
    (
        "lenient heads",
        r">>> GET /a b HTTP/1.1\r\nHost : x\r\nA: b\r\n c\r\n\r\n
          <<< HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n
          >>> FOO /\xff HTTP/1.1\nHost: x\nbad line\n\n
          <<< HTTP/1.1 501 What\nContent-Length: 0\n\n",
        &[
            "GET /a 200 0>0 whole obs_fold,space_before_colon,request_line_invalid,target_invalid,status_line_invalid",
            r"FOO /\xff 501 0>0 whole bare_lf,header_line_invalid,method_unknown,target_invalid",
        ],
    ),
    (
        "empty lines between messages",
        r">>> \r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
          >>> \r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n
          <<< \r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        &["GET /a 200 0>0 whole", "GET /b 200 0>0 whole"],
    ),
    (
        "HTTP/0.9",
        r">>> GET /old\r\n
          <<< <html>hi</html>
          <|
          >|",
        &["GET /old - 0>15 whole http_09"],
    ),
    (
        "body where none may be",
        r">>> GET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 204 None\r\nContent-Length: 4\r\n\r\n
          >>> GET /b HTTP/1.1\r\nHost: x\r\n\r\n
          <<< bodyHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        &["GET /a 204 0>0 whole body_unexpected", "GET /b 200 0>0 whole junk_between_messages"],
    ),
    (
        "junk between requests",
        r">>> GET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
          >>> \x00\x01\x02 nonsense\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz",
        &["GET /a 200 0>0 whole", "GET /b 200 0>1 whole junk_between_messages,repaired"],
    ),
    (
        "gap inside bodies",
        r">>> POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nstart
          ><> 10
          >>> ended
          <<< HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc
          <>< 10
          <<< xyz\r\n0\r\n\r\n
          >>> GET /b HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n
          <>< 3",
        &["POST /a 200 20>16 request_gap,response_gap", "GET /b 200 0>3 response_gap"],
    ),
    (
        "a whole exchange is missing",
        r">>> GET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na
          ><> 40
          <>< 60
          >>> GET /c HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 203 OK\r\nContent-Length: 1\r\n\r\nc",
        &["GET /a 200 0>1 whole", "GET /c 203 0>1 whole repaired"],
    ),
    (
        "a request is missing",
        r">>> GET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na
          ><> 40
          <<< HTTP/1.1 202 OK\r\nContent-Length: 1\r\n\r\nb
          >>> GET /c HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 203 OK\r\nContent-Length: 1\r\n\r\nc",
        &["GET /a 200 0>1 whole", "- - 202 0>1 request_missing", "GET /c 203 0>1 whole repaired"],
    ),
    (
        "a response is missing",
        r">>> GET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <>< 40
          >>> GET /b HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 202 OK\r\nContent-Length: 1\r\n\r\nb",
        &["GET /a - 0>0 response_missing", "GET /b 202 0>1 whole repaired"],
    ),
    (
        "the end of a body and the next head are missing",
        r">>> GET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc
          <>< 30
          <<< rest of b
          >>> GET /c HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 203 OK\r\nContent-Length: 1\r\n\r\nc",
        &["GET /a 200 0>10 response_gap", "GET /c 203 0>1 whole repaired"],
    ),
    (
        "a gap inside a head",
        r">>> GET /a HTTP/1.1\r\nHost: x\r\nCoo
          ><> 30
          >>> end\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na
          >>> GET /b HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 202 OK\r\nContent-Length: 1\r\n\r\nb",
        &["GET /a 200 0>1 request_gap,repaired", "GET /b 202 0>1 whole repaired"],
    ),
    (
        "pipelined with a lost request: halves rather than a wrong pair",
        r">>> GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb
          ><> 30
          >>> GET /d HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 203 OK\r\nContent-Length: 1\r\n\r\ncHTTP/1.1 204 OK\r\n\r\n",
        &[
            "GET /a 200 0>1 whole",
            "GET /b 200 0>1 whole",
            "- - 203 0>1 request_missing",
            "- - 204 0>0 request_missing",
            "GET /d - 0>0 response_missing",
        ],
    ),
    (
        "the first of two pipelined requests is lost",
        r">>> GET /f HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 503 No\r\nContent-Length: 1\r\n\r\nf
          ><> 30
          >>> GET /b HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 202 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 403 No\r\nContent-Length: 1\r\n\r\nb
          >>> GET /c HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nc",
        &[
            "GET /f 503 0>1 whole",
            "- - 202 0>1 request_missing",
            "- - 403 0>1 request_missing",
            "GET /b - 0>0 response_missing",
            "GET /c 404 0>1 whole repaired",
        ],
    ),
    (
        "the first two of three requests at the start are lost",
        r"><> 60
          >>> GET /c HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 201 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 202 OK\r\nContent-Length: 1\r\n\r\nb
          <<< HTTP/1.1 403 No\r\nContent-Length: 1\r\n\r\nc",
        &[
            "- - 201 0>1 request_missing",
            "- - 202 0>1 request_missing",
            "- - 403 0>1 request_missing",
            "GET /c - 0>0 response_missing",
        ],
    ),
    (
        "chunk size nonsense",
        r">>> POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n
          <<< HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n
          >>> GET /b HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        &["POST /a 400 5>0 request_truncated,chunk_size_invalid,repaired", "GET /b 200 0>0 whole repaired"],
    ),
    (
        "a chunk that is longer than it said",
        r">>> POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n
          <<< HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n",
        &["POST /a 400 5>0 request_truncated,chunk_end_invalid,repaired"],
    ),
    (
        "Transfer-Encoding in HTTP/1.0",
        r">>> POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n
          <<< HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        &["POST /a 200 1>0 whole transfer_encoding_in_http10"],
    ),
    (
        "not HTTP",
        r">>> EHLO x\r\n
          <<< 220 hi\r\n",
        &[],
    ),
    (
        "TLS",
        r">>> \x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03
          <<< \x16\x03\x03",
        &[],
    ),
    (
        "HTTP/2",
        r">>> PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04
          <<< \x00\x00\x12",
        &[],
    ),
    (
        "smuggling shapes",
        r">>> POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
          >>> POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc
          <<< HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n
          >>> POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        &[
            "POST /a 200 0>0 whole length_and_transfer_encoding",
            "POST /b 200 3>0 whole content_length_conflict",
            "POST /c 200 0>0 whole space_before_colon,transfer_encoding_obfuscated",
        ],
    ),
    (
        "PROXY protocol",
        r">>> PROXY TCP4 192.0.2.9 10.0.0.2 56324 443\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        &["GET /a 200 0>0 whole"],
    ),
    (
        "PROXY protocol 2",
        r">>> \r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x09\x0a\x00\x00\x02\x00\x50\x00\x50GET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        &["GET /a 200 0>0 whole"],
    ),
    (
        "SOCKS 4",
        r">>> \x04\x01\x00\x50\x5d\xb8\xd8\x77\x00
          <<< \x00\x5a\xdf\xb2\x0a\xb4\x9c\xf9
          >>> GET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        &["GET /a 200 0>0 whole"],
    ),
    (
        "SOCKS 5 with a password",
        r">>> \x05\x02\x00\x02
          <<< \x05\x02
          >>> \x01\x01u\x02pw
          <<< \x01\x00
          >>> \x05\x01\x00\x03\x03a.b\x00\x50
          <<< \x05\x00\x00\x01\x01\x02\x03\x04\x00\x50
          >>> GET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok
          >>> GET /b HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 204 No Content\r\n\r\n",
        &["GET /a 200 0>2 whole", "GET /b 204 0>0 whole"],
    ),
    (
        "SOCKS 5 and then TLS",
        r">>> \x05\x01\x00
          <<< \x05\x00
          >>> \x05\x01\x00\x01\x01\x02\x03\x04\x01\xbb
          <<< \x05\x00\x00\x01\x01\x02\x03\x04\x01\xbb
          >>> \x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[],
    ),
    (
        "HTTP/0.9 body that begins like SOCKS",
        r">>> GET /old\r\n
          <<< \x05\x00\x05\x00\x00\x01\x01\x02\x03\x04\x00\x50
          <|",
        &["GET /old - 0>12 whole http_09"],
    ),
];

#[test]
fn dialogues() {
    for (name, script, want) in DIALOGUES {
        check(name, false, script, want);
    }
}

const MIDSTREAM: &[(&str, &str, &[&str])] = &[
    (
        "joined at a boundary",
        r">>> GET /a HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello
          >>> GET /b HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        &["GET /a 200 0>5 whole midstream", "GET /b 200 0>0 whole"],
    ),
    (
        "joined in a response body, roles guessed wrong",
        r">>> tail of a body HTTP/1.1 is a protocol
          <<< GET /b HTTP/1.1\r\nHost: x\r\n\r\n
          >>> HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        &["GET /b 200 0>2 whole midstream"],
    ),
    (
        "joined in a form body",
        r">>> =b&pass=wordGET /b HTTP/1.1\r\nHost: x\r\n\r\n
          <<< HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        &["GET /b 200 0>2 whole midstream"],
    ),
    (
        "a target with spaces",
        r">>> GET /shell?wget+ http://192.0.2.7/arm HTTP/1.1\r\nHost: x\r\n\r\n",
        &["GET /shell?wget+ - 0>0 response_missing,midstream,request_line_invalid,target_invalid"],
    ),
];

#[test]
fn midstream_dialogues() {
    for (name, script, want) in MIDSTREAM {
        let outcome = check(name, true, script, want);
        let swapped = name.contains("wrong");
        assert_eq!(outcome.counters.flows_swapped_total, u64::from(swapped), "{name}");
        for tx in &outcome.txs {
            assert_eq!(tx.flow.client_side != flow(true).client_side, swapped, "{name}");
        }
    }
}

#[test]
fn flows_that_are_not_http_are_given_up() {
    for name in ["not HTTP", "connect"] {
        let (_, script, _) = DIALOGUES.iter().find(|d| d.0 == name).unwrap();
        let outcome = run_with(&ProtocolConfig::default(), false, &load(script));
        assert_eq!(outcome.wants, [false, false], "{name}");
        assert_eq!(outcome.counters.flows_http2_total, 0);
    }
}

#[test]
fn a_believed_proxy_preface_names_the_client() {
    for trusted in [true, false] {
        let nets = if trusted { vec!["10.0.0.0/8".parse().unwrap()] } else { Vec::new() };
        let config = ProtocolConfig { proxy_protocol: nets, ..ProtocolConfig::default() };
        for name in ["PROXY protocol", "PROXY protocol 2"] {
            let (_, script, want) = DIALOGUES.iter().find(|d| d.0 == name).unwrap();
            let tx = &check_with(&config, name, false, script, want).txs[0];
            let client = if trusted { [192, 0, 2, 9] } else { [10, 0, 0, 1] };
            assert_eq!((tx.client, tx.client_forwarded), (Host::from_v4(client), trusted), "{name}");
        }
    }
}

#[test]
fn chained_prefaces_are_believed_as_far_as_their_writers_are() {
    const V2: &str = r"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c";
    const LOCAL: &str = r"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00";
    let v1 = |ip: &str| format!(r"PROXY TCP4 {ip} 10.0.0.2 56324 443\r\n");
    let v2 = |ip: [u8; 4]| {
        let octets: String = ip.iter().map(|b| format!(r"\x{b:02x}")).collect();
        format!(r"{V2}{octets}\x0a\x00\x00\x02\x00\x50\x00\x50")
    };
    let unknown = r"PROXY UNKNOWN\r\n".to_owned();
    let (peer, proxy, far, client) = ([10, 0, 0, 1], "10.0.0.7", [192, 0, 2, 9], "198.51.100.4");
    let config =
        ProtocolConfig { proxy_protocol: vec!["10.0.0.0/24".parse().unwrap()], ..ProtocolConfig::default() };
    let of = |ip: &str| ip.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let rows = [
        ("the first names nobody of ours: the rest is its own claim", vec![v1("192.0.2.9"), v1(client)], far),
        ("version 2, then 1", vec![v2(far), v1(client)], far),
        ("version 2 twice", vec![v2(far), v2(of(client))], far),
        ("the first names a proxy of ours", vec![v1(proxy), v1(client)], of(client)),
        ("versions mixed", vec![v2(of(proxy)), v1(proxy), v2(of(client))], of(client)),
        ("behind somebody who is not ours", vec![v1(proxy), v1("192.0.2.9"), v1(proxy), v1(client)], far),
        ("a proxy of ours that does not know", vec![unknown.clone(), v1(client)], peer),
        ("a check by a proxy", vec![LOCAL.to_owned(), v2(of(client))], peer),
        ("the inner proxy does not know", vec![v1(proxy), unknown, v1(client)], of(proxy)),
    ];
    for (name, prefaces, want) in rows {
        let script = format!(
            ">>> {}{}\n<<< {}",
            prefaces.concat(),
            r"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
            r"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        );
        let outcome = check_with(&config, name, false, &script, &["GET /a 200 0>0 whole"]);
        assert_eq!(outcome.txs[0].client, Host::from_v4(want), "{name}");
        assert_eq!(outcome.counters.flows_proxy_protocol_total, 1, "{name}");
        assert_eq!(outcome.counters.prefaces_chained_total, prefaces.len() as u64 - 1, "{name}");
        let nobody = check(name, false, &script, &["GET /a 200 0>0 whole"]);
        assert_eq!(nobody.txs[0].client, Host::from_v4(peer), "{name}");
    }
    // More than a chain of proxies writes is no HTTP.
    let script = format!(r">>> {}GET /a HTTP/1.1\r\n\r\n", v1(proxy).repeat(5));
    let outcome = check("five prefaces", false, &script, &[]);
    assert_eq!(outcome.counters.prefaces_chained_total, 3);
}

#[test]
fn an_acknowledgement_of_what_was_not_sent_hides_no_answer() {
    for (name, heard, want) in [
        ("the server had the request", 28, &["GET /a 200 0>2 whole"][..]),
        ("it had not", 0, &["- - 200 0>2 request_missing", "GET /a - 0>0 response_missing"]),
        ("nothing tells", u64::MAX, &["- - 200 0>2 request_missing", "GET /a - 0>0 response_missing"]),
    ] {
        let mut answer = data(DOWN, OK, 0, heard, 2);
        answer.acked = Some(heard).filter(|a| *a != u64::MAX);
        let events = [data(UP, GET, 0, 1_000_000, 1), answer];
        assert_eq!(summaries(&events), want, "{name}");
        assert_eq!(summaries(&byte_by_byte(&events)), want, "{name}: byte by byte");
    }
}

#[test]
fn a_socks_handshake_is_counted_once() {
    for name in ["SOCKS 4", "SOCKS 5 with a password", "SOCKS 5 and then TLS"] {
        let (_, script, want) = DIALOGUES.iter().find(|d| d.0 == name).unwrap();
        let outcome = check(name, false, script, want);
        assert_eq!(outcome.counters.flows_socks_total, 1, "{name}");
        assert_eq!(outcome.wants, [true, true], "{name}");
    }
}

#[test]
fn an_idle_flow_is_small() {
    let size = size_of::<Session>();
    assert!(size <= 512, "{size}");
}

fn data(dir: Direction, text: &str, offset: u64, acked: u64, at_ms: u64) -> Event {
    let what = What::Data(text.replace('|', "\r\n").into_bytes());
    Event { dir, what, offset, acked: Some(acked), at: Timestamp::from_nanos(at_ms * 1_000_000) }
}

const UP: Direction = Direction::ToServer;
const DOWN: Direction = Direction::ToClient;
const GET: &str = "GET /a HTTP/1.1|Host: x||";
const OK: &str = "HTTP/1.1 200 OK|Content-Length: 2||ok";

fn summaries(events: &[Event]) -> Vec<String> {
    run_with(&ProtocolConfig::default(), false, events).txs.iter().map(summary).collect()
}

#[test]
fn a_response_seen_before_its_request_waits_for_it() {
    let (up, down) = (28, 40);
    let late = [data(DOWN, OK, 0, up, 1000), data(UP, GET, 0, 0, 1001)];
    assert_eq!(summaries(&late), ["GET /a 200 0>2 whole"]);
    // Twice in a row, and the second pair in order.
    let twice = [
        data(DOWN, OK, 0, up, 1000),
        data(UP, GET, 0, 0, 1001),
        data(DOWN, OK, down, 2 * up, 1002),
        data(UP, GET, up, down, 1003),
        data(UP, GET, 2 * up, 2 * down, 1004),
        data(DOWN, OK, 2 * down, 3 * up, 1005),
    ];
    assert_eq!(summaries(&twice), ["GET /a 200 0>2 whole"; 3]);
    // Without a status line only the request tells that this is HTTP (zeek's ipv6-http-atomic-frag.pcap).
    let mut old = vec![data(DOWN, "<html>", 0, 10, 1000), data(UP, "GET /old|", 0, 0, 1001)];
    old.push(Event { dir: DOWN, what: What::End(EndReason::Fin), ..data(DOWN, "", 6, 10, 1002) });
    assert_eq!(summaries(&old), ["GET /old - 0>6 whole http_09"]);
    // A banner answers nothing; what is no HTTP after all is given up when the wait is over.
    let banner = [data(DOWN, "220 mail|", 0, 0, 1000), data(UP, "EHLO x|", 0, 9, 1001)];
    let alien = [data(DOWN, "\u{15}\u{3}", 0, 9, 1000), data(DOWN, "\u{3}", 2, 9, 1201)];
    for events in [&banner, &alien] {
        let outcome = run_with(&ProtocolConfig::default(), false, events);
        assert_eq!((outcome.txs.len(), outcome.wants), (0, [false, false]));
    }
    // Too late: the next chunk of any direction finds the wait over.
    let never = [data(DOWN, OK, 0, up, 1000), data(UP, GET, 0, 0, 1201)];
    let got = summaries(&never);
    assert_eq!(got.len(), 1, "the request itself ends the wait: {got:?}");
    let never = [data(DOWN, OK, 0, up, 1000), data(DOWN, OK, down, 2 * up, 1201)];
    assert_eq!(summaries(&never), ["- - 200 0>2 request_missing"; 2]);
    let mut small = ProtocolConfig::default();
    small.limits.early_response_bytes_max = 60;
    let much = [data(DOWN, OK, 0, up, 1000), data(DOWN, OK, down, up, 1000), data(UP, GET, 0, 0, 1001)];
    let outcome = run_with(&small, false, &much);
    assert_eq!(outcome.counters.early_responses_released_total, 1);
    assert_eq!(outcome.txs.len(), 3);
}

#[test]
fn what_went_through_a_tunnel_may_be_seen_before_the_tunnel() {
    const CONNECT: &str = "CONNECT a:80 HTTP/1.1|Host: a||";
    const YES: &str = "HTTP/1.1 200 Established||";
    const NO: &str = "HTTP/1.1 407 Who|Content-Length: 2||no";
    let len = |text: &str| text.replace('|', "\r\n").len() as u64;
    let (c, y, n, g) = (len(CONNECT), len(YES), len(NO), len(GET));
    let fin =
        |dir, offset, at_ms| Event { what: What::End(EndReason::Fin), ..data(dir, "", offset, 0, at_ms) };
    let connect = data(UP, CONNECT, 0, 0, 1000);
    let get = data(UP, GET, c, y, 1001);
    let yes = data(DOWN, YES, 0, c, 1002);
    let ok = data(DOWN, OK, y, c + g, 1003);
    let through = ["CONNECT a:80 200 0>0 whole tunnelled", "GET /a 200 0>2 whole"];
    let cases: [(&str, Vec<Event>, Vec<&str>); 9] = [
        ("one request", vec![connect.clone(), get.clone(), yes.clone(), ok.clone()], through.to_vec()),
        (
            "half of one",
            vec![
                connect.clone(),
                data(UP, &GET[..9], c, y, 1001),
                yes.clone(),
                data(UP, &GET[9..], c + 9, y, 1003),
                ok.clone(),
            ],
            through.to_vec(),
        ),
        (
            "the client's end as well",
            vec![connect.clone(), get.clone(), fin(UP, c + g, 1001), yes.clone(), ok.clone()],
            through.to_vec(),
        ),
        (
            "the tunnel in two parts",
            vec![
                connect.clone(),
                data(DOWN, &YES[..7], 0, c, 1000),
                get.clone(),
                data(DOWN, &YES[7..], 7, c, 1002),
                ok.clone(),
            ],
            through.to_vec(),
        ),
        (
            "it was refused: another try",
            vec![
                connect.clone(),
                data(UP, CONNECT, c, n, 1001),
                data(DOWN, NO, 0, c, 1002),
                data(UP, GET, 2 * c, n + y, 1003),
                data(DOWN, YES, n, 2 * c, 1004),
                data(DOWN, OK, n + y, 2 * c + g, 1005),
            ],
            vec![
                "CONNECT a:80 407 0>2 whole",
                "CONNECT a:80 200 0>0 whole tunnelled",
                "GET /a 200 0>2 whole",
            ],
        ),
        (
            "no response was captured",
            vec![connect.clone(), get.clone(), data(UP, &GET[..18], c + g, 2 * y, 1002)],
            vec![
                "CONNECT a:80 - 0>0 response_missing",
                "GET /a - 0>0 response_missing",
                "GET /a - 0>0 request_truncated,response_missing",
            ],
        ),
        (
            "no response in time",
            vec![
                connect.clone(),
                data(DOWN, &YES[..7], 0, c, 1000),
                get.clone(),
                data(UP, GET, c + g, y, 1300),
                data(DOWN, &YES[7..], 7, c, 1301),
                data(DOWN, OK, y, c + g, 1302),
            ],
            vec!["CONNECT a:80 200 0>0 whole tunnelled", "- - 200 0>2 request_missing"],
        ),
        (
            "something is lost before the response",
            vec![
                connect.clone(),
                get.clone(),
                Event { what: What::Gap(10), ..data(UP, "", c + g, y, 1002) },
                yes.clone(),
                ok.clone(),
            ],
            vec!["CONNECT a:80 200 0>0 whole tunnelled,repaired", "- - 200 0>2 request_missing"],
        ),
        (
            "what the client sent without waiting",
            vec![connect, data(UP, GET, c, 0, 1001), yes, ok],
            vec!["CONNECT a:80 200 0>0 whole tunnelled", "- - 200 0>2 request_missing"],
        ),
    ];
    for (name, events, want) in &cases {
        assert_eq!(summaries(events), *want, "{name}");
        assert_eq!(summaries(&byte_by_byte(events)), *want, "{name}: byte by byte");
        for (i, event) in events.iter().enumerate() {
            let What::Data(bytes) = &event.what else { continue };
            for at in 1..bytes.len() {
                let parts = [&events[..i], &cut(event, at)[..], &events[i + 1..]].concat();
                assert_eq!(summaries(&parts), *want, "{name}: event {i} cut at {at}");
            }
        }
    }
    // What is kept is bounded: past it, it is parsed as if it were no tunnel, and then dropped.
    let mut small = ProtocolConfig::default();
    small.limits.early_response_bytes_max = g as usize;
    for (max, dropped) in [(g, 0), (g - 1, 1)] {
        small.limits.early_response_bytes_max = max as usize;
        let outcome = run_with(&small, false, &cases[0].1);
        assert_eq!(outcome.counters.requests_tunnelled_total, dropped);
    }
}

#[test]
fn a_swapped_first_pair_of_a_midstream_flow_shifts_no_other() {
    let (up, down) = (28, 40);
    // As the stream stage sees it: the base of the requests is what the response acknowledged, until it is moved back.
    let mut events = vec![data(DOWN, OK, 0, 0, 1000), data(UP, GET, 0, 0, 1001)];
    for n in 1..4 {
        events.push(data(UP, &GET.replace('a', &n.to_string()), n * up, n * down, 1000 + n * 10));
        events.push(data(DOWN, &OK.replace("ok", &"k".repeat(2)), n * down, (n + 1) * up, 1005 + n * 10));
    }
    let got = run_with(&ProtocolConfig::default(), true, &events);
    let got: Vec<_> = got.txs.iter().map(summary).collect();
    assert_eq!(
        got,
        [
            "- - 200 0>2 request_missing,midstream",
            "GET /a - 0>0 response_missing,midstream",
            "GET /1 200 0>2 whole repaired",
            "GET /2 200 0>2 whole",
            "GET /3 200 0>2 whole",
        ]
    );
}

#[test]
fn one_sided_captures_are_emitted_as_they_go() {
    let config = ProtocolConfig::default();
    let mut http = Http::new(config, IdentityKey::new([1; 32]));
    let flow = flow(false);
    for dir in [UP, DOWN] {
        let mut session = http.open(&flow);
        let mut out = Vec::new();
        for n in 0..50u64 {
            let text = if dir == UP { GET } else { OK };
            let len = text.replace('|', "\r\n").len() as u64;
            // The other side's offsets as the acknowledgements show them.
            let acked = if dir == UP { n * 40 } else { (n + 1) * 28 };
            feed(&mut http, &mut session, &flow, &data(dir, text, n * len, acked, 1000 + n * 300), &mut out);
            assert!(n as usize <= out.len() + 2, "{dir:?}: {} of {n}", out.len());
        }
        http.close(session, &flow, Timestamp::from_nanos(1 << 50), &mut out);
        assert_eq!(out.len(), 50);
        assert!(out.iter().all(|t| t.status.is_some() == (dir == DOWN)));
    }
}

#[test]
fn too_many_open_requests_give_up_the_oldest() {
    let mut config = ProtocolConfig::default();
    config.limits.open_transactions_per_flow_max = 2;
    let script = r">>> GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\n\r\n
        <<< HTTP/1.1 201 A\r\nContent-Length: 0\r\n\r\nHTTP/1.1 202 B\r\nContent-Length: 0\r\n\r\nHTTP/1.1 203 C\r\nContent-Length: 0\r\n\r\n";
    let want = [
        "GET /a - 0>0 response_missing,pipeline_overflow",
        "- - 201 0>0 request_missing",
        "GET /b 202 0>0 whole",
        "GET /c 203 0>0 whole",
    ];
    let outcome = check_with(&config, "overflow", false, script, &want);
    assert_eq!(outcome.counters.pipeline_overflow_total, 1);
}

#[test]
fn heads_over_the_limits_are_used_as_far_as_they_were_kept() {
    let mut config = ProtocolConfig::default();
    config.limits.head_bytes_max = 64;
    config.limits.headers_max = 3;
    let script = r">>> POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nLong: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nB: c\r\n\r\nabc
        <<< HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\nE: f\r\nG: h\r\nContent-Length: 1\r\n\r\nz
        >>> GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\nHost: x\r\n\r\n
        <<< HTTP/1.1 414 No\r\nContent-Length: 0\r\n\r\n";
    let events = load(script);
    let outcome = run_with(&config, false, &events);
    let got: Vec<_> = outcome.txs.iter().map(summary).collect();
    assert_eq!(got[0], "POST /a 200 3>1 whole head_too_long,header_count_exceeded");
    assert!(got[1].starts_with("GET /aaaa") && got[1].contains(" 414 0>0 whole head_too_long"), "{}", got[1]);
    assert!(outcome.counters.skipped_bytes_head_rest_total > 0);
    let again = run_with(&config, false, &byte_by_byte(&events));
    assert_eq!(again.txs, outcome.txs);
}

#[test]
fn framing_past_the_limit_on_a_head_holds() {
    let mut config = ProtocolConfig::default();
    config.limits.head_bytes_max = 64;
    let pad = format!("A: {}\\r\\n", "a".repeat(70));
    let smuggled = r"GET /phantom HTTP/1.1\r\nHost: h\r\n\r\n";
    for (name, fields, body, response, want) in [
        (
            "length",
            r"Content-Length: 34\r\n",
            smuggled.to_owned(),
            "",
            "POST /a 200 34>0 whole head_too_long",
        ),
        (
            "coding",
            r"Transfer-Encoding: chunked\r\n",
            format!(r"22\r\n{smuggled}\r\n0\r\n\r\n"),
            "",
            "POST /a 200 34>0 whole head_too_long",
        ),
        (
            "two lengths",
            r"Content-Length: 34\r\nX: y\r\nContent-length: 5\r\n",
            smuggled.to_owned(),
            "",
            "POST /a 200 34>0 whole head_too_long,content_length_conflict",
        ),
        ("of a response", "", String::new(), "x", "POST /a 200 0>3 whole head_too_long"),
    ] {
        let response = if response.is_empty() {
            r"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()
        } else {
            format!(r"HTTP/1.1 200 OK\r\n{pad}Content-Length: 3\r\n\r\nxyz")
        };
        let script = format!(
            r">>> POST /a HTTP/1.1\r\nHost: h\r\n{pad}{fields}\r\n{body}
            <<< {response}
            >>> GET /b HTTP/1.1\r\nHost: h\r\n\r\n
            <<< HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
        );
        check_with(&config, name, false, &script, &[want, "GET /b 404 0>0 whole"]);
    }
    // One on each side of the limit: the first counts, and the two are a conflict.
    let script = format!(
        r">>> POST /a HTTP/1.1\r\nContent-Length: 5\r\n{pad}Content-Length: 34\r\n\r\nabcde
        <<< HTTP/1.1 200 OK\r\nContent-Length: 3\r\n{pad}Content-Length: 4\r\n\r\nxyz
        >>> GET /b HTTP/1.0\r\n{pad}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n
        <<< HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
    );
    let want = [
        "POST /a 200 5>3 whole head_too_long,content_length_conflict",
        "GET /b 404 0>0 whole head_too_long,transfer_encoding_in_http10",
    ];
    check_with(&config, "both sides", false, &script, &want);
    // Cut anywhere, the line that the limit cuts included.
    for pad in 0..40 {
        let script = format!(
            r">>> POST /a HTTP/1.1\r\nHost: h\r\nA: {}\r\nContent-Length: 34\r\nX: {}\r\n\r\n{smuggled}
            <<< HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "a".repeat(pad),
            "b".repeat(80),
        );
        let outcome = run_with(&config, false, &load(&script));
        let got: Vec<_> = outcome.txs.iter().map(summary).collect();
        assert_eq!(got, ["POST /a 200 34>0 whole head_too_long"], "{pad}");
    }
}

#[test]
fn no_number_of_fields_hides_who_the_client_is() {
    let mut config = ProtocolConfig::default();
    config.facts.trusted_proxies = vec!["10.0.0.0/24".parse().unwrap()];
    let client = |ip: [u8; 4]| (Host::from_v4(ip), ip != [10, 0, 0, 1]);
    for (fields, want, invalid) in [
        ("A: b\\r\\n".repeat(129), [203, 0, 113, 9], false),
        ("X-Forwarded-For: 6.6.6.6\\r\\n".repeat(400), [203, 0, 113, 9], false),
        (format!("A: {}\\r\\n", "b".repeat(70_000)), [10, 0, 0, 1], true),
        (format!("X-Forwarded-For: 6.6.6.6\\r\\nA: {}\\r\\n", "b".repeat(70_000)), [10, 0, 0, 1], true),
    ] {
        let script = format!(
            r">>> GET /a HTTP/1.1\r\nHost: x\r\n{fields}X-Forwarded-For: 203.0.113.9\r\nUser-Agent: late\r\n\r\n
            <<< HTTP/1.1 204 No\r\n\r\n"
        );
        let outcome = run_with(&config, false, &load(&script));
        let [tx] = &outcome.txs[..] else { panic!("{} transactions", outcome.txs.len()) };
        assert_eq!((tx.client, tx.client_forwarded), client(want));
        assert_eq!(tx.anomalies.contains(offpath_types::Anomaly::ForwardedInvalid), invalid);
        let agent: &[u8] = if invalid { b"" } else { b"late" };
        assert_eq!(tx.text.get(tx.user_agent), agent);
    }
}

#[test]
fn what_dialogues_count() {
    let more = [("a start line that never ends", r">>> GET /a", &[] as &[&str])];
    for (name, counts) in [
        (
            "keep-alive",
            &[("heads_fast_total", 4u64), ("heads_lenient_total", 0), ("resyncs_total", 0)]
                as &[(&str, u64)],
        ),
        ("lenient heads", &[("heads_fast_total", 0), ("heads_lenient_total", 4)]),
        ("connect", &[("flows_tunnelled_total", 1), ("skipped_bytes_bypassed_total", 24)]),
        // The client's second frame is none.
        (
            "websocket",
            &[
                ("flows_upgraded_total", 1),
                ("flows_websocket_total", 1),
                ("websocket_messages_to_server_total", 1),
                ("websocket_messages_to_client_total", 1),
                ("websocket_frames_invalid_total", 1),
                ("bytes_websocket_total", 20),
                ("skipped_bytes_bypassed_total", 11),
            ],
        ),
        ("PROXY protocol", &[("flows_proxy_protocol_total", 1)]),
        ("PROXY protocol 2", &[("flows_proxy_protocol_total", 1), ("bytes_framing_total", 28)]),
        ("not HTTP", &[("flows_not_http_total", 1), ("skipped_bytes_not_http_total", 16)]),
        (
            "junk between requests",
            &[("resyncs_total", 1), ("skipped_bytes_search_total", 14), ("repaired_total", 1)],
        ),
        ("a gap inside a head", &[("gap_bytes_lost_total", 30), ("repaired_total", 2)]),
        ("gap inside bodies", &[("gap_bytes_body_total", 23), ("gap_bytes_lost_total", 0)]),
        (
            "a start line that never ends",
            &[("skipped_bytes_truncated_total", 6), ("flows_unrecognised_total", 1)],
        ),
    ] {
        let (_, script, _) = DIALOGUES.iter().chain(&more).find(|d| d.0 == name).unwrap();
        let fields = run_with(&ProtocolConfig::default(), false, &load(script)).counters.fields();
        for (counter, want) in counts {
            let got = fields.iter().find(|f| f.0 == *counter).unwrap().1;
            assert_eq!(got, *want, "{name}: {counter}");
        }
    }
}

#[test]
fn an_overlap_conflict_marks_the_message_it_is_in() {
    for (dir, at, want) in [
        (UP, 0, ["overlap_conflict", ""]),
        (UP, 1, ["overlap_conflict", ""]),
        (UP, 2, ["", "overlap_conflict"]),
        (DOWN, 3, ["overlap_conflict", ""]),
        (DOWN, 4, ["", "overlap_conflict"]),
    ] {
        let post = "POST /a HTTP/1.1|Host: x|Content-Length: 4||";
        let (up, down) = (44, 40);
        let events = [
            data(UP, post, 0, 0, 1),
            data(UP, "body", up, 0, 2),
            data(DOWN, &OK[..OK.len() - 1], 0, up + 4, 3),
            data(DOWN, "k", down - 1, up + 4, 4),
            data(UP, GET, up + 4, down, 5),
            data(DOWN, OK, down, up + 32, 6),
        ];
        let mut http = Http::new(ProtocolConfig::default(), IdentityKey::new([1; 32]));
        let flow = flow(false);
        let (mut session, mut out) = (http.open(&flow), Vec::new());
        for (i, event) in events.iter().enumerate() {
            if i == at {
                http.overlap_conflict(&mut session, dir);
            }
            feed(&mut http, &mut session, &flow, event, &mut out);
        }
        http.close(session, &flow, Timestamp::from_nanos(1 << 30), &mut out);
        let got: Vec<String> =
            out.iter().map(|t| t.anomalies.iter().map(|a| a.name()).collect::<Vec<_>>().join(",")).collect();
        assert_eq!(got, want, "{dir:?} before {at}");
        let marked = http.anomaly_counts().get(offpath_types::Anomaly::OverlapConflict);
        assert_eq!(marked, 1);
    }
}

#[test]
fn chunk_size_lines_are_bounded() {
    let mut config = ProtocolConfig::default();
    config.limits.chunk_line_bytes_max = 40;
    // "1", extension, CR, LF: at the limit and one past it.
    for (extension, odd) in [(37, false), (38, true)] {
        let script = format!(
            r">>> POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\na\r\n0\r\n\r\n
            <<< HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "e".repeat(extension - 1)
        );
        let want = if odd {
            "POST /a 200 0>0 request_truncated,chunk_size_invalid,repaired"
        } else {
            "POST /a 200 1>0 whole"
        };
        check_with(&config, "chunk line", false, &script, &[want]);
    }
}

#[test]
fn what_is_no_http_is_not_looked_at_for_ever() {
    let mut config = ProtocolConfig::default();
    config.limits.sniff_bytes_max = 32;
    // A method that nobody registered, and a line as long as the limit and longer.
    for (len, want) in
        [(32, &["BREW /xxxxxxxxxxxxxxxx - 0>0 response_missing,method_unknown"] as &[&str]), (34, &[])]
    {
        let line = format!("BREW /{} HTTP/1.1", "x".repeat(len - 16));
        let outcome = check_with(&config, "sniff", false, &format!(r">>> {line}\r\n\r\n"), want);
        assert_eq!(outcome.wants[0], !want.is_empty(), "{line}");
    }
    // A flow joined in the middle that never shows a message.
    config.limits.search_bytes_max = 100;
    for (len, wants) in [(100, true), (101, false)] {
        let outcome = check_with(&config, "search", true, &format!(">>> {}", "x".repeat(len)), &[]);
        assert_eq!(outcome.wants, [wants; 2], "{len}");
        assert_eq!(outcome.counters.flows_not_http_total, u64::from(!wants));
    }
    // A request line longer than is kept while searching is not found; the next one is.
    config.limits.search_line_bytes_max = 64;
    let long = format!(r">>> body\r\nGET /{} HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n", "y".repeat(80));
    config.limits.search_bytes_max = 1 << 20;
    check_with(&config, "search line", true, &long, &["GET /b - 0>0 response_missing,midstream"]);
}

#[test]
fn a_stream_holds_nothing_and_a_gap_in_it_marks_nothing_else() {
    let mut http = Http::new(ProtocolConfig::default(), IdentityKey::new([1; 32]));
    let flow = flow(false);
    let mut session = http.open(&flow);
    let mut out = Vec::new();
    feed(&mut http, &mut session, &flow, &data(UP, GET, 0, 0, 1), &mut out);
    let head = "HTTP/1.1 200 OK|Content-Type: text/event-stream|Content-Length: 1000||";
    let start = head.replace('|', "\r\n").len() as u64;
    feed(&mut http, &mut session, &flow, &data(DOWN, head, 0, 28, 2), &mut out);
    assert_eq!((out.len(), http.open_requests(), http.held_bytes()), (1, 0, 0));
    assert_eq!((out[0].pace, out[0].complete), (Pace::Streamed, true));
    let seen = Timestamp::from_nanos(3_000_000);
    http.chunk(&mut session, &flow, DOWN, Chunk::Gap { len: 1000, offset: start, seen }, seen, &mut out);
    feed(&mut http, &mut session, &flow, &data(UP, GET, 28, start + 1000, 4), &mut out);
    let answer = "HTTP/1.1 200 OK|Content-Length: 2||ok";
    feed(&mut http, &mut session, &flow, &data(DOWN, answer, start + 1000, 56, 6_000), &mut out);
    assert_eq!((out.len(), out[1].pace, out[1].complete), (2, Pace::Held, true));
    assert!(out[1].anomalies.is_empty(), "{:?}", summary(&out[1]));
    let c = http.counters();
    assert_eq!((c.event_streams_total, c.long_polls_total), (1, 1));
}

#[test]
fn the_worker_keeps_no_more_open_requests_than_its_limit() {
    let mut config = ProtocolConfig::default();
    config.limits.open_transactions_max = 3;
    let mut http = Http::new(config, IdentityKey::new([1; 32]));
    let flow = flow(false);
    let mut out = Vec::new();
    let mut sessions: Vec<_> = (0..2).map(|_| http.open(&flow)).collect();
    for n in 0..4 {
        for session in &mut sessions {
            feed(&mut http, session, &flow, &data(UP, GET, n * 28, 0, 1), &mut out);
            // A flow without any may always have one.
            assert!(http.open_requests() <= 3);
        }
    }
    let given_up = http.counters().pipeline_overflow_total;
    assert_eq!((given_up, out.len()), (5, 5));
    for session in sessions {
        http.close(session, &flow, Timestamp::from_nanos(1), &mut out);
    }
    assert_eq!((out.len(), http.open_requests()), (8, 0));
    assert_balanced(http.counters());
}

#[test]
fn the_pieces_of_a_held_response_are_bounded() {
    // Far less than the bytes that may be held, one byte at a time.
    let body = "z".repeat(1000);
    let text = format!("HTTP/1.1 200 OK|Content-Length: 1000||{body}");
    let mut http = Http::new(ProtocolConfig::default(), IdentityKey::new([1; 32]));
    let flow = flow(false);
    let (mut session, mut out) = (http.open(&flow), Vec::new());
    for (n, event) in byte_by_byte(&[data(DOWN, &text, 0, 28, 1000)]).iter().enumerate() {
        feed(&mut http, &mut session, &flow, event, &mut out);
        assert_eq!(http.held_bytes(), if n < 256 { n + 1 } else { 0 });
    }
    assert_eq!(http.counters().early_responses_held_total, 1);
    assert_eq!(http.counters().early_responses_released_total, 1);
    assert_eq!(out.iter().map(summary).collect::<Vec<_>>(), ["- - 200 0>1000 request_missing"]);

    // Gaps are pieces too.
    let mut http = Http::new(ProtocolConfig::default(), IdentityKey::new([1; 32]));
    let mut session = http.open(&flow);
    feed(&mut http, &mut session, &flow, &data(DOWN, &text[..60], 0, 28, 1000), &mut out);
    assert!(http.held_bytes() > 0);
    for n in 0..256 {
        let at = Timestamp::from_nanos(1_000_000_000);
        let gap = Event { dir: DOWN, what: What::Gap(1), offset: 64 + n, acked: None, at };
        feed(&mut http, &mut session, &flow, &gap, &mut out);
    }
    assert_eq!((http.held_bytes(), http.counters().early_responses_released_total), (0, 1));
}

#[test]
fn a_search_whose_bytes_were_given_up_begins_anew() {
    // What may begin HTTP/2 is kept from its first byte on; the last two parts come after it was given up.
    for kept in ["PRI * HT", "\0\0\x04\x08\0\0\0\0\0\0\0\0\x01\0\0\x04\x08\0\0"] {
        let mut config = ProtocolConfig::default();
        config.limits.held_bytes_max = 40;
        let mut http = Http::new(config, IdentityKey::new([1; 32]));
        let (flow, mut out) = (flow(true), Vec::new());
        let mut sessions: Vec<_> = (0..8).map(|_| http.open(&flow)).collect();
        let mut offset = 0;
        for part in [kept, "a", "bc", kept] {
            for session in &mut sessions {
                feed(&mut http, session, &flow, &data(UP, part, offset, 0, 1), &mut out);
            }
            offset += part.len() as u64;
        }
        assert!(http.counters().skipped_bytes_held_full_total > 0);
        for session in sessions {
            http.close(session, &flow, Timestamp::from_nanos(1), &mut out);
        }
        assert_eq!(http.held_bytes(), 0);
        assert_balanced(http.counters());
    }
}

#[test]
fn what_one_shard_holds_is_not_on_the_books_of_another() {
    let mut config = ProtocolConfig::default();
    config.limits.held_bytes_max = 200;
    let part = format!("GET / HTTP/1.1|X: {}", "y".repeat(100));
    for (shards, given_up) in [([0, 0, 0], true), ([0, 1, 2], false), ([5, 0, 5], true), ([2, 1, 0], false)] {
        let mut http = Http::new(config.clone(), IdentityKey::new([1; 32]));
        let (flow, mut out) = (flow(false), Vec::new());
        let mut sessions = Vec::new();
        for shard in shards {
            http.select(shard);
            let mut session = http.open(&flow);
            feed(&mut http, &mut session, &flow, &data(UP, &part, 0, 0, 1), &mut out);
            sessions.push((shard, session));
        }
        assert_eq!(http.counters().skipped_bytes_held_full_total > 0, given_up, "{shards:?}");
        for (shard, session) in sessions {
            http.select(shard);
            http.close(session, &flow, Timestamp::from_nanos(1), &mut out);
        }
        assert_eq!(http.held_bytes(), 0, "{shards:?}");
        assert_balanced(http.counters());
    }
}

#[test]
fn the_worker_holds_no_more_than_its_limit() {
    let mut config = ProtocolConfig::default();
    config.limits.held_bytes_max = 1000;
    let mut http = Http::new(config, IdentityKey::new([1; 32]));
    let flow = flow(false);
    let mut out = Vec::new();
    let mut sessions: Vec<_> = (0..20).map(|_| http.open(&flow)).collect();
    for session in &mut sessions {
        let part = format!("GET / HTTP/1.1|X: {}", "y".repeat(100));
        feed(&mut http, session, &flow, &data(UP, &part, 0, 0, 1), &mut out);
        assert!(http.held_bytes() <= 1000);
    }
    for session in sessions {
        http.close(session, &flow, Timestamp::from_nanos(1), &mut out);
    }
    assert!(http.counters().skipped_bytes_held_full_total > 0);
    assert_eq!(http.held_bytes(), 0);
    assert_balanced(http.counters());
}

#[test]
fn a_growing_head_is_looked_at_once() {
    let mut head = String::from("GET /a HTTP/1.1\r\n");
    while head.len() < 60_000 {
        head.push_str("X-Header: some value\r\n");
    }
    head.push_str("\r\n");
    for odd in ["", "no colon\r\n"] {
        let head = head.replacen("X-Header", &format!("{odd}X-Header"), 1);
        let events = [data(UP, &head, 0, 0, 1)];
        for events in [events.to_vec(), byte_by_byte(&events)] {
            super::examined::reset();
            let outcome = run_with(&ProtocolConfig::default(), false, &events);
            assert_eq!(outcome.txs.len(), 1);
            // Found once, parsed at most twice (the first parser refuses, the lenient one takes it) and unfolded.
            let looked = super::examined::total();
            assert!(looked <= 5 * head.len(), "{looked} for {} in {} pieces", head.len(), events.len());
        }
    }
}

#[test]
fn a_long_searched_line_is_looked_at_once() {
    let text = "x".repeat(100_000);
    let events = [data(UP, &text, 0, 0, 1)];
    super::examined::reset();
    run_with(&ProtocolConfig::default(), true, &byte_by_byte(&events));
    assert!(super::examined::total() <= 40 * text.len(), "{}", super::examined::total());
}

/// A small generator, the same on every machine (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

#[test]
fn after_loss_requests_find_their_own_responses() {
    const CODES: [u16; 12] = [200, 201, 203, 400, 401, 403, 404, 409, 422, 429, 500, 503];
    for (per_mille, at_least) in [(10, 0.97), (50, 0.93), (200, 0.7)] {
        let (mut survived, mut right, mut wrong) = (0, 0, 0);
        for seed in 0..20 {
            let mut dice = Dice(seed);
            let mut sent = [0u64; 2];
            let mut events: Vec<Event> = Vec::new();
            let mut whole_heads = Vec::new();
            for n in 0..400u64 {
                let form = "f=".to_owned() + &"v".repeat(dice.roll(3000) as usize);
                let request = match dice.roll(4) {
                    0 => format!("POST /t/{n} HTTP/1.1|Host: x|Content-Length: {}||{form}", form.len()),
                    _ => format!("GET /t/{n} HTTP/1.1|Host: x|User-Agent: {}||", "u".repeat(200)),
                };
                let body = "b".repeat(dice.roll(9000) as usize);
                let status = CODES[(n * 5 % 12) as usize];
                let response = match dice.roll(3) {
                    0 => format!(
                        "HTTP/1.1 {status} X|Transfer-Encoding: chunked||{:x}|{body}|0||",
                        body.len().max(1)
                    ),
                    _ => format!("HTTP/1.1 {status} X|Content-Length: {}||{body}", body.len()),
                };
                let response = if body.is_empty() {
                    format!("HTTP/1.1 {status} X|Content-Length: 0||")
                } else {
                    response
                };
                let mut heads = true;
                for (dir, text) in [(UP, request), (DOWN, response)] {
                    let bytes = text.replace('|', "\r\n").into_bytes();
                    for (i, part) in bytes.chunks(1460).enumerate() {
                        let lost = dice.roll(1000) < per_mille;
                        heads &= !(lost && i == 0);
                        let (offset, acked) = (sent[dir.index()], Some(sent[dir.flip().index()]));
                        let what =
                            if lost { What::Gap(part.len() as u64) } else { What::Data(part.to_vec()) };
                        let at = Timestamp::from_nanos(1_000_000_000 + n * 10_000_000);
                        events.push(Event { dir, what, offset, acked, at });
                        sent[dir.index()] += part.len() as u64;
                    }
                }
                whole_heads.push(heads);
            }
            let outcome = run_with(&ProtocolConfig::default(), false, &events);
            survived += whole_heads.iter().filter(|h| **h).count();
            for tx in &outcome.txs {
                let target = String::from_utf8_lossy(tx.text.get(tx.target)).into_owned();
                let (Some(n), Some(status)) = (target.strip_prefix("/t/"), tx.status) else { continue };
                let n: usize = n.parse().unwrap();
                if CODES[n * 5 % 12] == status {
                    right += usize::from(whole_heads[n]);
                } else {
                    wrong += 1;
                }
            }
        }
        let share = right as f64 / survived as f64;
        println!("{per_mille}/1000 lost: {right} of {survived} right ({share:.4}), {wrong} wrong");
        assert_eq!(wrong, 0, "{per_mille}/1000");
        assert!(share >= at_least, "{per_mille}/1000: {share}");
    }
}

/// A client that sends one to four requests at a time, each in a segment, and waits for all of their responses.
#[test]
fn after_loss_a_pipelining_client_gets_no_wrong_pair() {
    const CODES: [u16; 12] = [200, 201, 203, 400, 401, 403, 404, 409, 422, 429, 500, 503];
    for (per_mille, at_least, at_most_wrong) in [(10, 0.95, 0), (50, 0.8, 0), (200, 0.5, 1)] {
        let (mut survived, mut right, mut wrong) = (0, 0, 0);
        for seed in 0..300 {
            let mut dice = Dice(seed);
            let mut sent = [0u64; 2];
            let mut events: Vec<Event> = Vec::new();
            let mut whole = Vec::new();
            for burst in 0..6u64 {
                let first = whole.len();
                for dir in [UP, DOWN] {
                    let peer = sent[dir.flip().index()];
                    let count = if dir == UP { dice.roll(4) as usize + 1 } else { whole.len() - first };
                    for n in first..first + count {
                        let text = match dir {
                            UP => format!("GET /t/{n} HTTP/1.1|Host: x||"),
                            _ => format!(
                                "HTTP/1.1 {} X|Content-Length: {}||{}",
                                CODES[n * 5 % 12],
                                n,
                                "b".repeat(n)
                            ),
                        };
                        let bytes = text.replace('|', "\r\n").into_bytes();
                        let lost = dice.roll(1000) < per_mille;
                        if dir == UP {
                            whole.push(!lost);
                        } else {
                            whole[n] &= !lost;
                        }
                        let len = bytes.len() as u64;
                        let what = if lost { What::Gap(len) } else { What::Data(bytes) };
                        let at = Timestamp::from_nanos(1_000_000_000 + burst * 10_000_000);
                        events.push(Event { dir, what, offset: sent[dir.index()], acked: Some(peer), at });
                        sent[dir.index()] += len;
                    }
                }
            }
            survived += whole.iter().filter(|w| **w).count();
            for tx in run_with(&ProtocolConfig::default(), false, &events).txs {
                let target = String::from_utf8_lossy(tx.text.get(tx.target)).into_owned();
                let (Some(n), Some(status)) = (target.strip_prefix("/t/"), tx.status) else { continue };
                let n: usize = n.parse().unwrap();
                right += usize::from(CODES[n * 5 % 12] == status);
                wrong += usize::from(CODES[n * 5 % 12] != status);
            }
        }
        let share = right as f64 / survived as f64;
        println!("{per_mille}/1000 lost: {right} of {survived} right ({share:.4}), {wrong} wrong");
        // Where the response before is lost as well, nothing tells.
        assert!(wrong <= at_most_wrong, "{per_mille}/1000: {wrong} wrong");
        assert!(share >= at_least, "{per_mille}/1000: {share}");
    }
}

#[test]
fn fuzz_body_runs_on_seeds_and_random_dialogues() {
    const PIECES: [&[u8]; 26] = [
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 N\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nrest",
        b"HTTP/1.1 101 S\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"GET /old\r\n",
        b"HEAD /h HTTP/1.1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"\r\n",
        b"\n",
        b"GET / HTTP/1.1\r\nA : b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\n\n",
        b" HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"\x16\x03\x01",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"FOO bar",
        b"HTTP/1.1 2",
        b"xx GET /z HTTP/1.1\r\n",
    ];
    super::fuzz_http1_cuts(b"");
    for seed in 0..20_000 {
        let mut dice = Dice(seed);
        let mut input = vec![dice.roll(256) as u8];
        for _ in 0..dice.roll(12) + 1 {
            let control = dice.roll(256) as u8;
            let mut piece = PIECES[dice.roll(26) as usize].to_vec();
            if dice.roll(4) == 0 {
                piece.extend_from_slice(PIECES[dice.roll(26) as usize]);
            }
            if dice.roll(8) == 0 {
                let at = dice.roll(piece.len() as u64) as usize;
                piece[at] = dice.roll(256) as u8;
            }
            input.extend([control, piece.len() as u8]);
            input.extend(piece);
        }
        println!("seed {seed}: {}", input.escape_ascii());
        super::fuzz_http1_cuts(&input);
    }
}

#[test]
fn what_bodies_and_open_requests_keep_is_bounded() {
    let mut config = ProtocolConfig::default();
    config.limits.held_bytes_max = 256 << 10;
    let head = "POST /login HTTP/1.1|Host: h|Content-Type: application/json|Content-Encoding: gzip|";
    let zip = |text: &str| {
        let mut z = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut z, text.as_bytes()).unwrap();
        z.finish().unwrap()
    };
    let raw = |head: &str, body: &[u8]| {
        let bytes = [head.replace('|', "\r\n").as_bytes(), body].concat();
        Event { what: What::Data(bytes), ..data(UP, "", 0, 0, 1) }
    };
    let mut all = Vec::new();
    for whole in [true, false] {
        let mut http = Http::new(config.clone(), IdentityKey::new([1; 32]));
        let flow = flow(false);
        let mut out = Vec::new();
        let mut sessions: Vec<_> = (0..21).map(|_| http.open(&flow)).collect();
        let mut send = |http: &mut Http, n: usize, event: Event, out: &mut Vec<Transaction>| {
            for event in if whole { vec![event] } else { byte_by_byte(&[event]) } {
                feed(http, &mut sessions[n], &flow, &event, out);
                assert!(http.held_bytes() <= 256 << 10, "{}", http.held_bytes());
            }
        };
        for n in 0..20 {
            send(&mut http, n, raw(&format!("{head}Content-Length: 900000||"), &[b'z'; 20_000]), &mut out);
        }
        assert!(http.facts().counters().facts_bodies_held_full_total > 5);
        let login = zip(r#"{"username":"ann","password":"p"}"#);
        send(&mut http, 20, raw(&format!("{head}Content-Length: {}||", login.len()), &login), &mut out);
        for session in sessions {
            http.close(session, &flow, Timestamp::from_nanos(1), &mut out);
        }
        assert_eq!(http.held_bytes(), 0);
        assert_balanced(http.counters());
        assert!(out[20].login.password.is_some(), "there is always room for a login");
        let capped = |tx: &Transaction| tx.anomalies.contains(offpath_types::Anomaly::BodyCapped);
        assert_eq!(
            out.iter().filter(|tx| capped(tx)).count() as u64,
            http.facts().counters().facts_bodies_held_full_total
        );
        all.push((out.iter().map(summary).collect::<Vec<_>>(), *http.facts().counters()));
    }
    assert!(all[0] == all[1], "however it is cut");

    // Texts of a pipeline count as well.
    let mut config = ProtocolConfig::default();
    config.limits.held_bytes_max = 8000;
    let mut http = Http::new(config, IdentityKey::new([1; 32]));
    let flow = flow(false);
    let (mut session, mut out) = (http.open(&flow), Vec::new());
    let get = format!("GET /{} HTTP/1.1|Host: h||", "p".repeat(400));
    feed(&mut http, &mut session, &flow, &data(UP, &get.repeat(50), 0, 0, 1), &mut out);
    assert!(http.held_bytes() <= 8000, "{}", http.held_bytes());
    assert!(out.len() > 20 && http.counters().pipeline_overflow_held_full_total == out.len() as u64);
    http.close(session, &flow, Timestamp::from_nanos(1), &mut out);
    assert_eq!((out.len(), http.held_bytes()), (50, 0));
}
