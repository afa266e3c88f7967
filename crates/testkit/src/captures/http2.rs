//! Golden captures of HTTP/2 in the clear.

use super::{Capture, SECOND, START, ToClient, ToServer, client, ethernet, server, started};
use crate::conversation::{Conversation, Packet};
use crate::http2::{END_HEADERS, END_STREAM, Encoder, PREFACE, frame, kind, settings};

pub(super) fn all() -> Vec<Capture> {
    let late = prior(true);
    let mut lost = prior(false);
    // Handshake, start, its acknowledgement, the second request.
    let second = lost.iter().position(|p| p.bytes.windows(4).any(|w| w == b"/two")).unwrap_or(0);
    lost.remove(second);
    vec![
        ethernet(
            "http2-prior-knowledge",
            &prior(false),
            "four requests of one client on one connection, answered out of order, with the dynamic table in use.",
            "four complete transactions in the order of their ends, all with one fingerprint.",
        ),
        ethernet(
            "http2-late-join",
            &late,
            "as http2-prior-knowledge, captured from behind the first request on.",
            "the requests are whole; what the first one added to the header table is unknown and marked header_unresolved; \
             no fingerprint, because the client's SETTINGS were not seen.",
        ),
        ethernet(
            "http2-gap",
            &lost,
            "as http2-prior-knowledge; the packet with the second request is missing.",
            "the frames are found again behind the hole; fields that the lost block added are unknown.",
        ),
        ethernet(
            "http2-h2c-upgrade",
            &upgrade(),
            "Upgrade: h2c, answered with 101; a second request follows as HTTP/2.",
            "two transactions: the upgraded request with the answer on stream 1, and the one on stream 3.",
        ),
        ethernet(
            "http2-continuation-trailers-grpc",
            &grpc(),
            "a gRPC login whose head comes in three frames of a few bytes, answered with trailers; then one answered with trailers only.",
            "two calls of shop.v1.Auth/Login with grpc-status 16 and 0: a failed and a successful login.",
        ),
        ethernet(
            "http2-push-reset",
            &push(),
            "a page with a pushed style sheet; a download that the client resets; then a burst of 80 requests that it takes back at once.",
            "the pushed one is marked pushed and has no fingerprint, the download is cut (stream_reset), and the burst becomes rapid_reset.",
        ),
        ethernet(
            "http2-smuggling",
            &smuggling(),
            "requests that a gateway to HTTP/1 must not pass on: two lengths, a length that is no number, a request line in :method and in \
             :path, an empty :path, fields of the connection, an upper-case name, a NUL and a line end in values; then a response within \
             a response.",
            "each is complete and says what is wrong with it; no secret of the smuggled lines is recorded.",
        ),
        ethernet(
            "http2-event-stream",
            &event_stream(),
            "an event stream of a minute, one event in ten seconds; beside it a long poll of 30 s and another request.",
            "three transactions: the stream at its head (pace streamed, complete), the request, the long poll (pace held).",
        ),
        ethernet(
            "http2-swapped",
            &swapped(),
            "the mirror delivers the server's first packet, which changes its table size to 65536 bytes, before the client's, which allows it.",
            "two complete transactions with status 200.",
        ),
    ]
}

fn get<'a>(path: &'a str, agent: &'a str) -> [(&'a str, &'a str); 7] {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "shop.example"),
        (":path", path),
        ("user-agent", agent),
        ("accept", "*/*"),
        ("cookie", "sid=4f1c9a7be0d25836"),
    ]
}

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

fn begin(first: &[u8]) -> Vec<u8> {
    let window = frame(kind::WINDOW_UPDATE, 0, 0, &12_517_377u32.to_be_bytes());
    [PREFACE, &settings(&[(1, 65_536), (2, 0), (4, 131_072), (5, 16_384)]), &window, first].concat()
}

fn hello() -> Vec<u8> {
    [settings(&[(3, 100), (4, 65_536)]), frame(kind::SETTINGS, END_STREAM, 0, &[])].concat()
}

fn answer(encoder: &mut Encoder, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let head =
        encoder.block(&[(":status", "200"), ("content-type", "text/html"), ("content-length", &length)]);
    let mut out = frame(kind::HEADERS, END_HEADERS, stream, &head);
    let (a, b) = body.split_at(body.len() / 2);
    out.extend(frame(kind::DATA, 0, stream, a));
    out.extend(frame(kind::DATA, END_STREAM, stream, b));
    out
}

fn prior(late: bool) -> Vec<Packet> {
    let (mut up, mut down) = (Encoder::new(true), Encoder::new(true));
    let mut c = if late { Conversation::new(client(), server(), START) } else { started() };
    let mut ask =
        |stream, path| frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &up.block(&get(path, AGENT)));
    let first = begin(&ask(1, "/one"));
    if !late {
        c.send(ToServer, &first).send(ToClient, &hello()).wait(SECOND / 100);
    }
    c.send(ToServer, &ask(3, "/two")).wait(SECOND / 100);
    c.send(ToServer, &ask(5, "/one")).wait(SECOND / 100);
    for stream in [5, 3, 1].into_iter().filter(|stream| !late || *stream > 1) {
        c.send(ToClient, &answer(&mut down, stream, b"<p>an answer</p>")).wait(SECOND / 100);
    }
    c.send(ToServer, &ask(7, "/three")).wait(SECOND / 100);
    c.send(ToClient, &answer(&mut down, 7, b"<p>the last</p>")).close();
    c.into_packets()
}

fn upgrade() -> Vec<Packet> {
    let (mut up, mut down) = (Encoder::new(true), Encoder::new(true));
    let mut c = started();
    c.send(
        ToServer,
        b"GET /first HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\r\n",
    )
    .wait(SECOND / 100);
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    c.send(ToClient, &[&switch[..], &hello()].concat()).wait(SECOND / 100);
    let next = frame(kind::HEADERS, END_HEADERS | END_STREAM, 3, &up.block(&get("/second", "curl/8.14.1")));
    c.send(ToServer, &begin(&next)).wait(SECOND / 100);
    c.send(ToClient, &answer(&mut down, 1, b"first"))
        .send(ToClient, &answer(&mut down, 3, b"second"))
        .close();
    c.into_packets()
}

fn grpc() -> Vec<Packet> {
    let (mut up, mut down) = (Encoder::new(true), Encoder::new(true));
    let mut c = started();
    let call = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/shop.v1.Auth/Login"),
        (":authority", "shop.example"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-go/1.76.0"),
        ("te", "trailers"),
    ];
    let message = b"\0\0\0\0\x0d\x0a\x03ann\x12\x06secret";
    for stream in [1, 3] {
        let block = up.block(&call);
        let (a, rest) = block.split_at(1);
        let (b, d) = rest.split_at(2);
        let head = [
            frame(kind::HEADERS, 0, stream, a),
            frame(kind::CONTINUATION, 0, stream, b),
            frame(kind::CONTINUATION, END_HEADERS, stream, d),
            frame(kind::DATA, END_STREAM, stream, message),
        ]
        .concat();
        if stream == 1 {
            c.send(ToServer, &begin(&head)).send(ToClient, &hello()).wait(SECOND / 100);
        } else {
            c.send(ToServer, &head).wait(SECOND / 100);
        }
        let first = [(":status", "200"), ("content-type", "application/grpc")];
        let reply = if stream == 1 {
            [
                frame(kind::HEADERS, END_HEADERS, 1, &down.block(&first)),
                frame(kind::DATA, 0, 1, b"\0\0\0\0\0"),
                frame(
                    kind::HEADERS,
                    END_HEADERS | END_STREAM,
                    1,
                    &down.block(&[("grpc-status", "16"), ("grpc-message", "wrong password")]),
                ),
            ]
            .concat()
        } else {
            let only = down.block(&[first[0], first[1], ("grpc-status", "0")]);
            frame(kind::HEADERS, END_HEADERS | END_STREAM, 3, &only)
        };
        c.send(ToClient, &reply).wait(SECOND);
    }
    c.close();
    c.into_packets()
}

fn push() -> Vec<Packet> {
    let (mut up, mut down) = (Encoder::new(false), Encoder::new(false));
    let mut c = started();
    let mut ask =
        |stream, path| frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &up.block(&get(path, AGENT)));
    let cancel = |stream| frame(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes());
    c.send(ToServer, &begin(&ask(1, "/"))).wait(SECOND / 100);
    let promise = [&2u32.to_be_bytes()[..], &down.block(&get("/style.css", AGENT)[..4])].concat();
    let page = [
        hello(),
        frame(kind::PUSH_PROMISE, END_HEADERS, 1, &promise),
        answer(&mut down, 1, b"<link rel=stylesheet href=/style.css>"),
        answer(&mut down, 2, b"p { margin: 0 }"),
    ];
    c.send(ToClient, &page.concat()).wait(SECOND / 100);
    c.send(ToServer, &ask(3, "/download")).wait(SECOND / 100);
    let started = [
        frame(kind::HEADERS, END_HEADERS, 3, &down.block(&[(":status", "200")])),
        frame(kind::DATA, 0, 3, &[b'x'; 3000]),
    ];
    c.send(ToClient, &started.concat()).wait(SECOND / 100);
    c.send(ToServer, &cancel(3)).wait(SECOND);
    let burst: Vec<u8> =
        (0..80).flat_map(|i| [ask(5 + 2 * i, "/search"), cancel(5 + 2 * i)].concat()).collect();
    c.send(ToServer, &burst).wait(SECOND / 100).close();
    c.into_packets()
}

fn smuggling() -> Vec<Packet> {
    let (mut up, mut down) = (Encoder::new(false), Encoder::new(false));
    let mut c = started();
    let usual = [(":method", "POST"), (":scheme", "http"), (":authority", "shop.example"), (":path", "/a")];
    let shapes: [&[(&str, &str)]; 12] = [
        &[("content-length", "0"), ("content-length", "5")],
        &[("content-length", "+5")],
        &[(":method", "GET /admin?token=b2d7e1c94fa03685 HTTP/1.1")],
        &[(":path", "/a HTTP/1.1\r\ncookie: sid=b2d7e1c94fa03685")],
        &[(":path", "")],
        &[(":path", "/a?token%00=b2d7e1c94fa03685")],
        &[("connection", "x-forwarded-for")],
        &[("transfer-encoding", "chunked")],
        &[("X-Upper", "case")],
        &[("x-null", "a\0b")],
        &[("x-line", "a\r\nhost: evil.example")],
        &[("host", "evil.example")],
    ];
    let mut streams = (1..).step_by(2);
    for (stream, shape) in streams.by_ref().zip(shapes) {
        let mut fields = usual.to_vec();
        for (name, value) in shape {
            match fields.iter_mut().find(|(n, _)| n == name && n.starts_with(':')) {
                Some(field) => field.1 = value,
                None => fields.push((name, value)),
            }
        }
        let ask = [
            frame(kind::HEADERS, END_HEADERS, stream, &up.block(&fields)),
            frame(kind::DATA, END_STREAM, stream, b"hello"),
        ]
        .concat();
        if stream == 1 {
            c.send(ToServer, &begin(&ask)).send(ToClient, &hello());
        } else {
            c.send(ToServer, &ask);
        }
        let no = frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &down.block(&[(":status", "400")]));
        c.wait(SECOND / 100).send(ToClient, &no).wait(SECOND / 100);
    }
    let last = 25;
    c.send(ToServer, &frame(kind::HEADERS, END_HEADERS | END_STREAM, last, &up.block(&usual)))
        .wait(SECOND / 100);
    let twice = [
        frame(kind::HEADERS, END_HEADERS, last, &down.block(&[(":status", "200")])),
        frame(kind::DATA, 0, last, b"abc"),
        frame(kind::HEADERS, END_HEADERS | END_STREAM, last, &down.block(&[(":status", "500")])),
    ];
    c.send(ToClient, &twice.concat()).close();
    c.into_packets()
}

fn event_stream() -> Vec<Packet> {
    let (mut up, mut down) = (Encoder::new(true), Encoder::new(true));
    let mut c = started();
    let mut ask =
        |stream, path| frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &up.block(&get(path, AGENT)));
    c.send(ToServer, &begin(&ask(1, "/events"))).send(ToClient, &hello()).wait(SECOND / 100);
    let head = down.block(&[(":status", "200"), ("content-type", "text/event-stream")]);
    c.send(ToClient, &frame(kind::HEADERS, END_HEADERS, 1, &head)).wait(SECOND);
    c.send(ToServer, &[ask(3, "/poll"), ask(5, "/page")].concat()).wait(SECOND / 100);
    c.send(ToClient, &answer(&mut down, 5, b"<p>a page</p>"));
    for event in 1..=6 {
        c.wait(10 * SECOND).send(ToClient, &frame(kind::DATA, 0, 1, b"data: tick\n\n"));
        if event == 3 {
            c.send(ToClient, &answer(&mut down, 3, b"<p>news</p>"));
        }
    }
    c.send(ToClient, &frame(kind::DATA, END_STREAM, 1, &[])).close();
    c.into_packets()
}

fn swapped() -> Vec<Packet> {
    let (mut up, mut down) = (Encoder::new(true), Encoder::new(true));
    let mut c = started();
    let asks: Vec<u8> = [1, 3]
        .into_iter()
        .flat_map(|s| frame(kind::HEADERS, END_HEADERS | END_STREAM, s, &up.block(&get("/one", AGENT))))
        .collect();
    c.send(ToServer, &begin(&asks));
    let mut answers = hello();
    for stream in [1, 3] {
        let mut block = down.block(&[(":status", "200"), ("server", "netty")]);
        if stream == 1 {
            block.splice(0..0, [0x3f, 0xe1, 0xff, 0x03]);
        }
        answers.extend(frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block));
    }
    c.send(ToClient, &answers).close();
    let mut packets = c.into_packets();
    let has = |text: &'static [u8]| move |p: &Packet| p.bytes.windows(text.len()).any(|w| w == text);
    let (first, second) = (packets.iter().position(has(b"/one")), packets.iter().position(has(b"netty")));
    if let (Some(first), Some(second)) = (first, second) {
        let bytes = packets[first].bytes.clone();
        packets[first].bytes = std::mem::replace(&mut packets[second].bytes, bytes);
    }
    packets
}
