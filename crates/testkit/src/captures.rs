//! Makes the golden captures: one small folder per behaviour, and the demo.
//!
//! Every folder gets `input.pcap` (or `input.pcapng`), a `README.md` that says how it was made and what is
//! expected, and `config.toml` where the defaults do not do. The expected outputs are written by the
//! golden tests in update mode (see [`crate::golden`]).

mod bodies;
mod http2;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

use flate2::{Compression, GzBuilder};
use offpath_types::{Direction, Timestamp};

use crate::conversation::{Conversation, Packet, merge, retime, write_pcap};
use crate::dialogue::DialogueError;
use crate::packet_builder::{Link, flags, fragments, with_ipv6_extension};
use crate::pcap_file::{PcapFormat, PcapNgWriter, PcapWriter};
use crate::traffic::{Scenario, Traffic, TrafficOptions};

use Direction::{ToClient, ToServer};

mod inventory;
mod mirrors;
mod sctp;
mod tls;
mod tunnels;

/// A folder that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Name of the folder.
    pub name: &'static str,
    /// Size of its capture file.
    pub bytes: u64,
}

/// One golden capture, before it is written.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Name of the folder.
    pub name: &'static str,
    /// Name of the capture file.
    pub file: &'static str,
    /// The capture file.
    pub input: Vec<u8>,
    /// How it was made.
    pub made: &'static str,
    /// What is expected of it.
    pub expected: &'static str,
    /// `config.toml`, where it needs one.
    pub config: Option<&'static str>,
}

/// Writes every capture below `root`, replacing what is there; expected outputs are left alone.
pub fn make_all(root: &Path) -> io::Result<Vec<Made>> {
    let mut done = Vec::new();
    let captures = all().map_err(io::Error::other)?;
    let captures = captures.into_iter().chain([demo()?]);
    let mut index = String::from(INDEX_HEAD);
    for capture in captures {
        let _ = writeln!(index, "| [{0}]({0}/README.md) | {1} |", capture.name, capture.made);
        done.push(write_capture(root, &capture)?);
    }
    RECORDED.iter().for_each(|line| {
        let _ = writeln!(index, "{line}");
    });
    fs::write(root.join("README.md"), index)?;
    Ok(done)
}

const INDEX_HEAD: &str = "# Golden captures

One folder per behaviour: the capture, what is expected of it (`transactions.jsonl`, `decisions.jsonl`,
`counters.json`, of TLS and WebSocket also `connections.jsonl`), and `config.toml` where the defaults do not do. All of it is synthetic: addresses are
those for documentation, benchmarks and private use, and nothing was recorded from people. It has the
licence of the project. `offpath-testkit captures` makes every input but those that were recorded, and this
page, anew, byte for byte.

| folder | how it was made |
|---|---|
";

/// Recorded, not made: their folders are kept as they are.
const RECORDED: [&str; 4] = [
    "| [demo-lab](demo-lab/README.md) | recorded on the mirror port of the lab. |",
    "| [tls12-decrypted](tls12-decrypted/README.md) | HTTP/1.1 between two ends of OpenSSL, with a key log. |",
    "| [tls12-rsa-premaster](tls12-rsa-premaster/README.md) | The same with RSA key exchange; the key log has the premaster secret. |",
    "| [tls13-decrypted-pcapng](tls13-decrypted-pcapng/README.md) | the same over TLS 1.3, the key log inside. |",
];

fn write_capture(root: &Path, capture: &Capture) -> io::Result<Made> {
    let dir = root.join(capture.name);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(capture.file), &capture.input)?;
    let readme = format!("# {}\n\nMade: {}\nExpected: {}\n", capture.name, capture.made, capture.expected);
    fs::write(dir.join("README.md"), readme)?;
    if let Some(config) = capture.config {
        fs::write(dir.join("config.toml"), config)?;
    }
    Ok(Made { name: capture.name, bytes: capture.input.len() as u64 })
}

/// Builds all golden captures, without the demo.
///
/// # Errors
/// A script of this file that does not parse.
pub fn all() -> Result<Vec<Capture>, DialogueError> {
    let mut captures = http()?;
    captures.extend(gaps_and_segments()?);
    captures.extend(links()?);
    captures.extend(tunnels::tunnels()?);
    captures.extend(tls::tls()?);
    captures.extend(inventory::all()?);
    captures.extend(mirrors::mirrors()?);
    captures.extend(logins());
    captures.extend(bodies::all());
    captures.extend(http2::all());
    captures.extend(sctp::all());
    Ok(captures)
}

const START: Timestamp = Timestamp::from_parts(1_767_600_000, 0);
const SECOND: u64 = 1_000_000_000;

fn v4(host: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::from((host, port))
}

fn client() -> SocketAddr {
    v4([192, 0, 2, 10], 40_000)
}

fn server() -> SocketAddr {
    v4([203, 0, 113, 10], 80)
}

fn started() -> Conversation {
    let mut c = Conversation::new(client(), server(), START);
    c.handshake();
    c
}

/// A whole connection out of a script, closed by both sides.
fn scripted(script: &str) -> Result<Vec<Packet>, DialogueError> {
    let mut c = started();
    c.script(script)?.close();
    Ok(c.into_packets())
}

fn pcap(link: Link, packets: &[Packet]) -> Vec<u8> {
    // Writing to memory does not fail.
    write_pcap(Vec::new(), link, packets).unwrap_or_default()
}

fn ethernet(name: &'static str, packets: &[Packet], made: &'static str, expected: &'static str) -> Capture {
    Capture { name, file: "input.pcap", input: pcap(Link::Ethernet, packets), made, expected, config: None }
}

/// Two requests, each with its answer: what most captures of links and segments carry.
const TWO: &str = "
>>>
GET /catalogue?page=1 HTTP/1.1
Host: shop.example
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0
Accept: text/html

<<<
HTTP/1.1 200 OK
Content-Type: text/html
Content-Length: 26

<h1>Catalogue page 1</h1>\\n\\
>>>
POST /api/cart HTTP/1.1
Host: shop.example
Content-Type: application/json
Content-Length: 23

{\"item\":7,\"quantity\":1}\\
<<<
HTTP/1.1 201 Created
Content-Type: application/json
Content-Length: 12

{\"lines\":1}\\n\\
";

fn http() -> Result<Vec<Capture>, DialogueError> {
    Ok(vec![
        ethernet(
            "http1-pipelining",
            &scripted(
                ">>>\nGET /a HTTP/1.1\nHost: shop.example\n\nGET /b HTTP/1.1\nHost: shop.example\n\nGET /c HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 1\n\na\\\nHTTP/1.1 404 Not Found\nContent-Length: 2\n\nbb\\\nHTTP/1.1 200 OK\nContent-Length: 3\n\nccc\\\n",
            )?,
            "three requests in one segment, their three answers in another.",
            "three transactions, /a 200 1 byte, /b 404 2 bytes, /c 200 3 bytes, all complete.",
        ),
        ethernet(
            "http1-chunked-trailers",
            &scripted(
                ">>>\nPOST /upload HTTP/1.1\nHost: shop.example\nTransfer-Encoding: chunked\nTrailer: X-Sum\n\n5;name=\"a;b\"\nhello\n6\n world\n0\nX-Sum: 11\n\n<<<\nHTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n000A\n0123456789\n1\nx\n0\n\n>>>\nGET /next HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 204 No Content\n\n",
            )?,
            "chunked request with an extension and a trailer, chunked answer with leading zeros, then one more request.",
            "two transactions: POST /upload 200 with 11 and 11 body bytes, GET /next 204; no anomaly.",
        ),
        ethernet(
            "http1-interim",
            &scripted(
                ">>>\nPUT /big HTTP/1.1\nHost: shop.example\nExpect: 100-continue\nContent-Length: 4\n\n<<<\nHTTP/1.1 100 Continue\n\n>>>\nbody\\\n<<<\nHTTP/1.1 103 Early Hints\nLink: </app.css>; rel=preload\n\nHTTP/1.1 201 Created\nContent-Length: 0\n\n",
            )?,
            "100 Continue before the body, 103 Early Hints before the final answer.",
            "one transaction: PUT /big 201, two interim responses, 4 request body bytes.",
        ),
        ethernet(
            "http1-head-204-304",
            &scripted(
                ">>>\nHEAD /a HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 5000\n\n>>>\nDELETE /b HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 204 No Content\n\n>>>\nGET /c HTTP/1.1\nHost: shop.example\nIf-None-Match: \"1\"\n\n<<<\nHTTP/1.1 304 Not Modified\nContent-Length: 777\nETag: \"1\"\n\n>>>\nGET /d HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 1\n\nd\\\n",
            )?,
            "answers that have no body although two of them name a length.",
            "four complete transactions; response bodies 0, 0, 0 and 1 byte.",
        ),
        ethernet(
            "http1-connect",
            &scripted(
                ">>>\nCONNECT pay.example:443 HTTP/1.1\nHost: pay.example:443\n\n<<<\nHTTP/1.1 200 Connection established\n\n>>>\n\\x16\\x03\\x01\\x00\\x05hello\\\n<<<\n\\x16\\x03\\x03\\x00\\x04HTTP\\\n>>>\nGET /inside HTTP/1.1\n\n",
            )?,
            "a tunnel, with TLS-like bytes and then bytes that look like a request inside.",
            "one transaction: CONNECT pay.example:443 200, anomaly tunnelled; nothing inside is parsed.",
        ),
        ethernet(
            "http1-upgrade",
            &scripted(
                ">>>\nGET /socket HTTP/1.1\nHost: shop.example\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\n\n<<<\nHTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n\\x81\\x05hello\\\n>>>\n\\x81\\x85\\x00\\x00\\x00\\x00hello\\\n",
            )?,
            "a WebSocket handshake, the first frame in the segment of the 101.",
            "one transaction: GET /socket 101, anomaly upgraded; the frames are counted, not parsed as HTTP.",
        ),
        ethernet(
            "http1-obs-fold-bare-lf",
            &scripted(
                ">>>\nGET /fold HTTP/1.1\nHost: shop.example\nX-Long: one\n  two\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 1\n\nx\\\n>>>\nGET /lf HTTP/1.1\\n\\\nHost: shop.example\\n\\\n\\n\\\n<<<\nHTTP/1.1 200 OK\\n\\\nContent-Length: 1\\n\\\n\\n\\\ny\\\n",
            )?,
            "a header line continued on the next, then request and answer whose lines end in a bare LF.",
            "two complete transactions: /fold with obs_fold, /lf with bare_lf.",
        ),
        ethernet(
            "http1-content-length-conflict",
            &scripted(
                ">>>\nPOST /equal HTTP/1.1\nHost: shop.example\nContent-Length: 2\nContent-Length: 2\n\nab\\\n<<<\nHTTP/1.1 200 OK\nContent-Length: 1, 1\n\nx\\\n>>>\nPOST /differ HTTP/1.1\nHost: shop.example\nContent-Length: 2\nContent-Length: 40\n\nab\\\n<<<\nHTTP/1.1 400 Bad Request\nContent-Length: 0\nConnection: close\n\n",
            )?,
            "first two equal lengths, then two that differ.",
            "/equal is complete with content_length_repeated; /differ has content_length_conflict and is not guessed silently.",
        ),
        ethernet(
            "http1-length-and-chunked",
            &scripted(
                ">>>\nPOST /both HTTP/1.1\nHost: shop.example\nContent-Length: 6\nTransfer-Encoding: chunked\n\n0\n\nGET /smuggled HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 1\n\n1\\\nHTTP/1.1 403 Forbidden\nContent-Length: 1\n\n2\\\n",
            )?,
            "Content-Length beside Transfer-Encoding, the shape of request smuggling.",
            "two transactions by RFC 9112 §6.3 (chunked wins): POST /both 200 with length_and_transfer_encoding, GET /smuggled 403.",
        ),
        ethernet(
            "http1-transfer-encoding-tricks",
            &scripted(
                ">>>\nPOST /case HTTP/1.1\nHost: shop.example\nTransfer-Encoding: cHuNkEd\n\n1\na\n0\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 0\n\n>>>\nPOST /space HTTP/1.1\nHost: shop.example\nTransfer-Encoding : chunked\n\n1\nb\n0\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 0\n\n>>>\nPOST /unknown HTTP/1.1\nHost: shop.example\nTransfer-Encoding: xchunked\n\n<<<\nHTTP/1.1 501 Not Implemented\nContent-Length: 0\nConnection: close\n\n",
            )?,
            "odd capitals, white space before the colon, and an unknown coding.",
            "three transactions, each of the last two with a named anomaly.",
        ),
        ethernet(
            "http1-close-delimited",
            &scripted(
                ">>>\nGET /old HTTP/1.0\n\n<<<\nHTTP/1.0 200 OK\nContent-Type: text/plain\n\nuntil the end of the connection\\\n",
            )?,
            "HTTP/1.0 without a length; the FIN ends the body.",
            "one complete transaction, version 1.0, 31 response body bytes.",
        ),
        ethernet(
            "http1-targets",
            &scripted(
                ">>>\nGET http://other.example:8080/abs?q=1 HTTP/1.1\nHost: other.example:8080\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 0\n\n>>>\nOPTIONS * HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 0\n\n>>>\nGET /orders/4711/lines/0b9c2f1e-3d4a-4b5c-8d6e-7f8091a2b3c4 HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 0\n\n",
            )?,
            "an absolute target, an asterisk, and a path with two identifiers.",
            "three transactions: domain other.example with path /abs; target *; endpoint GET /orders/{id}/lines/{uuid}.",
        ),
    ])
}

fn gaps_and_segments() -> Result<Vec<Capture>, DialogueError> {
    let mut captures = vec![
        ethernet(
            "http1-gap-in-body",
            &scripted(
                ">>>\nGET /file HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 3000\n\nfirst\\\n<>< 2990\n<<<\n_last\\\n>>>\nGET /after HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 5\n\nafter\\\n",
            )?,
            "2990 bytes in the middle of a body were never captured.",
            "two transactions: /file 200 with response_gap and not complete, /after 200 complete.",
        ),
        ethernet(
            "http1-gap-in-head",
            &scripted(
                ">>>\nGET /one HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Le\\\n<>< 40\n<<<\nrest of the body\\\n>>>\nGET /two HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 404 Not Found\nContent-Length: 3\n\ntwo\\\n",
            )?,
            "40 bytes of a response head, and with them its length, were never captured.",
            "/one is not complete; /two is paired with its own 404.",
        ),
    ];

    let mut c = started();
    c.mss(1).script(TWO)?.close();
    captures.push(ethernet(
        "http1-byte-by-byte",
        c.packets(),
        "every segment carries one byte.",
        "the same two transactions as link-ethernet.",
    ));

    let whole = scripted(TWO)?;
    let mut small = started();
    small.mss(100).script(TWO)?.close();
    let small = small.into_packets();
    let mut shuffled = small.clone();
    for i in (4..shuffled.len().saturating_sub(4)).step_by(4) {
        shuffled.swap(i, i + 1);
        shuffled.swap(i + 1, i + 3);
    }
    retime(&mut shuffled, 100_000);
    captures.push(ethernet(
        "tcp-out-of-order",
        &shuffled,
        "segments of 100 bytes, some moved up to three places; the end of the second request comes after its answer.",
        "the same two transactions as link-ethernet, complete.",
    ));

    let mut twice: Vec<Packet> = small.iter().flat_map(|p| [p.clone(), p.clone()]).collect();
    retime(&mut twice, 50_000);
    captures.push(ethernet(
        "tcp-duplicates",
        &twice,
        "every packet twice, as where both ports of a switch are mirrored.",
        "the same two transactions as link-ethernet, complete, each once.",
    ));

    let mut c = started();
    c.auto_ack(false);
    c.stray(ToServer, 21, flags::ACK | flags::PSH, b"Host: shop.example\r\n\r\n");
    c.stray(ToServer, 21, flags::ACK | flags::PSH, b"Host: evil.example\r\n\r\n");
    c.send(ToServer, b"GET /first HTTP/1.1\r\n").skip(ToServer, 22).ack(ToClient);
    c.send(ToClient, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ack(ToServer).close();
    captures.push(ethernet(
        "tcp-overlap-conflict",
        c.packets(),
        "the second half of a request is captured first, then once more with another Host, then its first half.",
        "one transaction for shop.example: the first copy wins; the four differing bytes are counted and the transaction says overlap_conflict.",
    ));

    captures.push(ethernet(
        "tcp-midstream",
        &whole[3..],
        "the handshake was not captured.",
        "both transactions, complete, on a flow marked midstream.",
    ));
    for (name, direction, made, expected) in [
        (
            "tcp-one-sided-requests",
            ToServer,
            "only what the client sent was captured.",
            "two transactions without a response (response_missing).",
        ),
        (
            "tcp-one-sided-responses",
            ToClient,
            "only what the server sent was captured.",
            "two transactions without a request (request_missing), 200 and 201.",
        ),
    ] {
        let one: Vec<Packet> = whole.iter().filter(|p| p.direction == direction).cloned().collect();
        captures.push(ethernet(name, &one, made, expected));
    }

    let mut first = started();
    first.script(
        ">>>\nGET /first HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 1\n\n1\\\n",
    )?;
    let mut second = Conversation::new(client(), server(), START.plus_secs(5));
    second.sequence_numbers(77_000_000, 99_000_000).handshake();
    second
        .script(">>>\nGET /second HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 1\n\n2\\\n")?
        .close();
    captures.push(ethernet(
        "tcp-port-reuse",
        &merge(vec![first.into_packets(), second.into_packets()]),
        "a second connection with the same addresses and ports; the first was never closed.",
        "two flows, two complete transactions: /first and /second.",
    ));

    let mut c = Conversation::new(client(), server(), START);
    c.sequence_numbers(u32::MAX - 60, u32::MAX - 20).mss(32).handshake().script(TWO)?.close();
    captures.push(ethernet(
        "tcp-sequence-wrap",
        c.packets(),
        "both directions pass sequence number 2^32 within the first message.",
        "the same two transactions as link-ethernet, complete.",
    ));

    let mut early = whole.clone();
    let is_data = |p: &Packet| p.bytes.len() > 60;
    let mut i = 3;
    while i + 1 < early.len() {
        if is_data(&early[i]) && !is_data(&early[i + 1]) && early[i].direction != early[i + 1].direction {
            early.swap(i, i + 1);
            i += 1;
        }
        i += 1;
    }
    retime(&mut early, 100_000);
    captures.push(ethernet(
        "tcp-ack-before-data",
        &early,
        "each acknowledgment was captured before the data that it acknowledges.",
        "the same two transactions as link-ethernet, complete, and no gap.",
    ));

    let mut c = started();
    c.send(ToServer, b"GET /cut HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    c.send(ToClient, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").rst(ToServer);
    captures.push(ethernet(
        "tcp-reset",
        c.packets(),
        "the client resets the connection in the middle of the body.",
        "one transaction, 200, response_truncated, not complete, 9 response body bytes.",
    ));

    let mut c = started();
    c.script(
        ">>>\nGET /one HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 1\n\n1\\\n",
    )?;
    for _ in 0..3 {
        c.wait(45 * SECOND).stray(ToServer, -1, flags::ACK, &[0]).ack(ToClient);
    }
    c.script(
        ">>>\nGET /two HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 1\n\n2\\\n",
    )?
    .close();
    captures.push(ethernet(
        "tcp-keep-alive",
        c.packets(),
        "keep-alive probes that repeat the last byte with another value, over two minutes.",
        "two complete transactions, /one and /two.",
    ));
    Ok(captures)
}

fn links() -> Result<Vec<Capture>, DialogueError> {
    let packets = scripted(TWO)?;
    let same = "GET /catalogue?page=1 200 and POST /api/cart 201, both complete.";
    let mut captures = Vec::new();
    for (name, link, made) in [
        ("link-ethernet", Link::Ethernet, "plain Ethernet: what the other link captures are compared with."),
        ("link-vlan", Link::Vlan(42), "one 802.1Q tag."),
        ("link-qinq", Link::QinQ(100, 42), "an 802.1ad tag and an 802.1Q tag."),
        ("link-sll", Link::Sll, "Linux cooked capture v1."),
        ("link-sll2", Link::Sll2, "Linux cooked capture v2."),
        ("link-raw", Link::Raw, "IP packets without a link header."),
        ("link-null", Link::Null, "BSD loopback, little-endian address family."),
    ] {
        let mut capture = ethernet(name, &[], made, same);
        capture.input = pcap(link, &packets);
        captures.push(capture);
    }

    let mut v6 = Conversation::new(
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 10], 40_000)),
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 80], 80)),
        START,
    );
    v6.handshake().script(TWO)?.close();
    let v6 = v6.into_packets();
    let extended: Vec<Packet> = v6
        .iter()
        .map(|p| {
            let options = with_ipv6_extension(&p.bytes, 60, &[1, 4, 0, 0, 0, 0]);
            Packet { bytes: with_ipv6_extension(&options, 0, &[5, 2, 0, 0, 1, 0]), ..p.clone() }
        })
        .collect();
    captures.push(ethernet(
        "link-ipv6-extensions",
        &extended,
        "IPv6 with a hop-by-hop and a destination options header before TCP.",
        "the same two transactions over IPv6.",
    ));
    let cut = |packets: &[Packet]| -> Vec<Packet> {
        let parts = |(i, p): (usize, &Packet)| {
            let all = fragments(&p.bytes, 64, 1000 + i as u32);
            all.into_iter().rev().map(|bytes| Packet { bytes, ..p.clone() }).collect::<Vec<_>>()
        };
        let mut out: Vec<Packet> = packets.iter().enumerate().flat_map(parts).collect();
        retime(&mut out, 20_000);
        out
    };
    captures.push(ethernet(
        "link-fragments-ipv4",
        &cut(&packets),
        "every packet in fragments of 64 bytes, the last fragment first.",
        same,
    ));
    captures.push(ethernet(
        "link-fragments-ipv6",
        &cut(&v6),
        "every packet in fragments of 64 bytes, the last fragment first.",
        "the same two transactions over IPv6.",
    ));

    let mut snapped = started();
    let body = "x".repeat(1200);
    snapped.script(&format!(
        ">>>\nGET /long HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 1200\n\n{body}\\\n>>>\nGET /short HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 1\n\ns\\\n"
    ))?;
    snapped.close();
    let mut capture = ethernet(
        "link-snaplen",
        &[],
        "frames cut at 200 bytes, so that most of a body is missing.",
        "/long 200 with response_gap and not complete, /short 200 complete.",
    );
    capture.input = with_format(PcapFormat { snaplen: 200, ..PcapFormat::new(1) }, snapped.packets());
    captures.push(capture);

    let mut capture =
        ethernet("link-pcap-big-endian", &[], "pcap in big-endian order with nanoseconds.", same);
    capture.input = with_format(PcapFormat { big_endian: true, ..PcapFormat::new(1) }, &packets);
    captures.push(capture);
    let mut capture = ethernet("link-pcap-microseconds", &[], "pcap with microseconds, little-endian.", same);
    capture.input = with_format(PcapFormat { nanos: false, ..PcapFormat::new(1) }, &packets);
    captures.push(capture);

    let mut capture = ethernet(
        "link-pcapng-two-interfaces",
        &[],
        "requests on an Ethernet interface with nanoseconds, answers on a cooked one with microseconds.",
        same,
    );
    capture.file = "input.pcapng";
    capture.input = two_interfaces(&packets).unwrap_or_default();
    captures.push(capture);
    Ok(captures)
}

fn with_format(format: PcapFormat, packets: &[Packet]) -> Vec<u8> {
    let write = || -> io::Result<Vec<u8>> {
        let mut writer = PcapWriter::new(Vec::new(), format)?;
        for packet in packets {
            writer.write(packet.time, &Link::Ethernet.wrap(&packet.bytes))?;
        }
        writer.finish()
    };
    write().unwrap_or_default()
}

fn two_interfaces(packets: &[Packet]) -> io::Result<Vec<u8>> {
    let mut writer = PcapNgWriter::new(Vec::new(), false)?;
    let requests = writer.interface(Link::Ethernet.number(), "eth1", true)?;
    let answers = writer.interface(Link::Sll.number(), "any", false)?;
    for packet in packets {
        let (interface, link) =
            if packet.direction == ToServer { (requests, Link::Ethernet) } else { (answers, Link::Sll) };
        let frame = link.wrap(&packet.bytes);
        writer.write(interface, packet.time, &frame, frame.len() as u32)?;
    }
    writer.finish()
}

const FIREFOX: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-GB,en;q=0.9\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\nConnection: keep-alive\r\nSec-Fetch-Dest: document\r\n\
Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\n";
const PYTHON: &str = "User-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n\
Connection: keep-alive\r\n";

/// Adds a JSON login and its answer.
fn log_in(c: &mut Conversation, headers: &str, user: &str, password: &str, good: bool) {
    let body = format!("{{\"username\":\"{user}\",\"password\":\"{password}\"}}");
    let request = format!(
        "POST /api/login HTTP/1.1\r\nHost: shop.example\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, cookie, text) = if good {
        ("200 OK", "Set-Cookie: sid=5f0c; Path=/; HttpOnly\r\n", "{\"success\":true}")
    } else {
        ("401 Unauthorized", "", "{\"error\":\"invalid_credentials\"}")
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\n{cookie}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    c.send(ToServer, request.as_bytes()).wait(30_000_000);
    c.send(ToClient, answer.as_bytes());
}

/// Ten people that load the page and log in, one every six seconds; one of them mistypes first.
fn people(
    to: SocketAddr,
    from: impl Fn(u8) -> SocketAddr,
    forwarded: impl Fn(u8) -> String,
) -> Vec<Vec<Packet>> {
    let visit = |i: u8| {
        let mut c = Conversation::new(from(i), to, START.plus_secs(u64::from(i) * 6));
        let headers = format!("{FIREFOX}{}", forwarded(i));
        let page = format!("GET /login HTTP/1.1\r\nHost: shop.example\r\n{headers}\r\n");
        c.handshake().send(ToServer, page.as_bytes()).wait(10_000_000);
        c.send(
            ToClient,
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<form>...</form",
        );
        c.wait(5 * SECOND);
        if i == 4 {
            log_in(&mut c, &headers, "person4", "mistyped", false);
            c.wait(6 * SECOND);
        }
        log_in(&mut c, &headers, &format!("person{i}"), "secret", true);
        c.wait(SECOND).close();
        c.into_packets()
    };
    (0..10).map(visit).collect()
}

fn logins() -> Vec<Capture> {
    let person = |i: u8| v4([192, 0, 2, 100 + i], 50_000 + u16::from(i));
    let quiet = |_: u8| String::new();

    let mut failures = people(server(), person, quiet);
    let mut bot = Conversation::new(v4([198, 18, 0, 9], 45_000), server(), START.plus_secs(70));
    bot.handshake();
    for i in 0..60 {
        log_in(&mut bot, PYTHON, &format!("leaked{i}"), &format!("pass{i}"), false);
        bot.wait(SECOND / 2);
    }
    bot.close();
    failures.push(bot.into_packets());

    let mut spray = people(server(), person, quiet);
    for i in 0..20u8 {
        let mut bot = Conversation::new(
            v4([198, 18, i, 77], 45_000),
            server(),
            START.plus_secs(70).plus_nanos(u64::from(i) * SECOND),
        );
        bot.handshake();
        for k in 0..4 {
            log_in(&mut bot, PYTHON, &format!("customer{}", u32::from(i) * 4 + k), "Autumn2026!", false);
            bot.wait(20 * SECOND);
        }
        bot.close();
        spray.push(bot.into_packets());
    }

    let proxy = |i: u8| v4([10, 0, 0, 5], 50_000 + u16::from(i));
    let inner = v4([10, 0, 1, 1], 8080);
    let mut forwarded = people(inner, proxy, |i| format!("X-Forwarded-For: 192.0.2.{}\r\n", 100 + i));
    let mut bot = Conversation::new(proxy(200), inner, START.plus_secs(70));
    bot.handshake();
    for i in 0..60 {
        // The left-most address is the client's own invention and changes with every request.
        let headers = format!("{PYTHON}X-Forwarded-For: 192.0.2.{}, 198.18.0.9\r\n", 100 + i % 10);
        log_in(&mut bot, &headers, &format!("leaked{i}"), &format!("pass{i}"), false);
        bot.wait(SECOND / 2);
    }
    bot.close();
    forwarded.push(bot.into_packets());

    vec![
        ethernet(
            "login-failures",
            &merge(failures),
            "ten people log in, one mistypes once; then 198.18.0.9 tries 60 leaked users, two a second.",
            "a block decision (dry run) for 198.18.0.9, none for anybody else.",
        ),
        ethernet(
            "login-spraying",
            &merge(spray),
            "ten people log in; then 20 addresses try one password on 80 users, each once in 20 s.",
            "the sprayed password is a signal on every address; nobody else is touched.",
        ),
        Capture {
            config: Some("[client]\ntrusted_proxies = [\"10.0.0.0/8\"]\n"),
            ..ethernet(
                "login-forwarded-for",
                &merge(forwarded),
                "as login-failures, but everybody comes through the proxy 10.0.0.5, and the attacker puts people's addresses at the left of X-Forwarded-For.",
                "client.ip is the right-most untrusted address; the block names 198.18.0.9, never the proxy or a person.",
            )
        },
    ]
}

/// People, offices, apps and partners, and two account takeovers: a fast one and a slow one.
fn demo() -> io::Result<Capture> {
    let options = TrafficOptions {
        transactions: 2000,
        bytes: Some(2_000_000),
        seed: 11,
        scenario: Scenario::Demo,
        attack_transactions: Some(250),
        empty_acks: false,
        ..TrafficOptions::default()
    };
    let mut pcap = Vec::new();
    Traffic::generate(&options).write(&mut pcap, io::sink())?;
    // No name and no time in the header: the same bytes whenever it is made.
    let mut gz = GzBuilder::new().write(Vec::new(), Compression::best());
    gz.write_all(&pcap)?;
    Ok(Capture {
        name: "demo-account-takeover",
        file: "input.pcap.gz",
        input: gz.finish()?,
        made: "`offpath-testkit traffic --scenario demo --transactions 2000 --bytes 2MB --seed 11 --attack-transactions 250 --no-empty-acks`: ten minutes of a shop with people, offices, apps and partners. From minute two three addresses stuff leaked credentials (250 tries, six a second); from the start fifty addresses do so slowly (250 requests, each address a login every one to two minutes). The command also writes the truth about every transaction.",
        expected: "block decisions (dry run) for addresses in 198.18.0.0/15 only: the attackers' range.",
        config: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcap_file::PcapReader;

    #[test]
    fn captures_are_small_repeatable_and_distinct() {
        let (first, second) = (all().unwrap(), all().unwrap());
        let mut names = std::collections::BTreeSet::new();
        for (a, b) in first.iter().zip(&second) {
            assert!(a.input == b.input, "{}", a.name);
            assert!(names.insert(a.name), "{}", a.name);
            assert!((500..120_000).contains(&a.input.len()), "{} has {} bytes", a.name, a.input.len());
            if a.file != "input.pcap" {
                continue;
            }
            let mut reader = PcapReader::new(&a.input[..]).unwrap();
            let (mut frames, mut last) = (0, Timestamp::ZERO);
            while let Some(record) = reader.next_record().unwrap() {
                // One is about a clock that is set back.
                assert!(record.time >= last || a.name == "mirror-clock-step-back", "{}", a.name);
                last = record.time;
                frames += 1;
            }
            assert!(frames >= 5, "{}", a.name);
        }
    }

    #[test]
    fn the_demo_fits_into_the_repository() {
        let demo = demo().unwrap();
        assert!(demo.input.len() <= 400_000, "{}", demo.input.len());
    }

    #[test]
    fn folders_are_written_and_found_again() {
        let root = tempfile::tempdir().unwrap();
        for capture in links().unwrap() {
            write_capture(root.path(), &capture).unwrap();
        }
        let found = crate::golden::folders(root.path()).unwrap();
        assert_eq!(found.len(), links().unwrap().len());
    }
}
