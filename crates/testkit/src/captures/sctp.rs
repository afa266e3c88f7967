//! HTTP over SCTP, where a browser of an experimental kind may use a stream per request.

use std::net::SocketAddr;

use super::{Capture, START, client, ethernet, server};
use crate::conversation::Packet;
use crate::packet_builder::{ip, udp};

use offpath_types::Direction::{self, ToClient, ToServer};

/// One association: verification tags, and packets 1 ms apart.
struct Association {
    packets: Vec<Packet>,
    encapsulated: bool,
}

fn chunk(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&[kind, flags][..], &(4 + body.len() as u16).to_be_bytes(), body].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn init(kind: u8, tag: u32, tsn: u32) -> Vec<u8> {
    chunk(kind, 0, &[&tag.to_be_bytes()[..], &[0, 1, 0, 0, 0, 8, 0, 8], &tsn.to_be_bytes()].concat())
}

/// A piece of a message; flags: 1 for its end, 2 for its beginning.
fn data(tsn: u32, stream: u16, ssn: u16, flags: u8, bytes: &[u8]) -> Vec<u8> {
    let head = [&tsn.to_be_bytes()[..], &stream.to_be_bytes(), &ssn.to_be_bytes(), &[0; 4]].concat();
    chunk(0, flags, &[&head, bytes].concat())
}

fn sack(cumulative: u32) -> Vec<u8> {
    chunk(3, 0, &[&cumulative.to_be_bytes()[..], &[0, 1, 0, 0, 0, 0, 0, 0]].concat())
}

impl Association {
    fn new(encapsulated: bool) -> Self {
        let mut new = Self { packets: Vec::new(), encapsulated };
        new.tagged(ToServer, 0, &init(1, 0xc11e_0001, 1000));
        new.send(ToClient, &init(2, 0x5e4e_0002, 5000));
        new.send(ToServer, &chunk(10, 0, b"cookie of the server"));
        new.send(ToClient, &chunk(11, 0, b""));
        new
    }

    fn send(&mut self, direction: Direction, chunks: &[u8]) {
        let tag = if direction == ToServer { 0x5e4e_0002 } else { 0xc11e_0001 };
        self.tagged(direction, tag, chunks);
    }

    fn tagged(&mut self, direction: Direction, tag: u32, chunks: &[u8]) {
        let (src, dst) = if direction == ToServer { (client(), server()) } else { (server(), client()) };
        // No checksum: nobody looks at it.
        let head =
            [&src.port().to_be_bytes()[..], &dst.port().to_be_bytes(), &tag.to_be_bytes(), &[0; 4]].concat();
        let packet = [&head, chunks].concat();
        let bytes = if self.encapsulated {
            udp(SocketAddr::new(src.ip(), 9899), SocketAddr::new(dst.ip(), 9899), &packet)
        } else {
            ip(src.ip(), dst.ip(), 132, &packet)
        };
        let time = START.plus_nanos(self.packets.len() as u64 * 1_000_000);
        self.packets.push(Packet { time, direction, bytes });
    }

    fn close(mut self) -> Vec<Packet> {
        self.send(ToServer, &chunk(7, 0, &5099u32.to_be_bytes()));
        self.send(ToClient, &chunk(8, 0, b""));
        self.send(ToServer, &chunk(14, 0, b""));
        self.packets
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: curl/8.5.0\r\n\r\n").into_bytes()
}

fn answer(body: &str) -> Vec<u8> {
    let len = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\n\r\n{body}").into_bytes()
}

pub(super) fn all() -> Vec<Capture> {
    let body = "0123456789".repeat(30);
    let reply = answer(&body);
    let (first, second, third) = (&reply[..150], &reply[150..300], &reply[300..]);

    let mut streams = Association::new(false);
    streams.send(ToServer, &[data(1000, 0, 0, 3, &get("/a")), data(1001, 1, 0, 3, &get("/b"))].concat());
    // Pieces of the first answer: the last comes first, then a retransmission, then what was missing.
    streams.send(ToClient, &[sack(1001), data(5000, 0, 0, 2, first)].concat());
    streams.send(ToClient, &data(5002, 0, 0, 1, third));
    streams.send(ToClient, &data(5000, 0, 0, 2, first));
    streams.send(ToClient, &data(5001, 0, 0, 0, second));
    streams.send(ToClient, &data(5003, 1, 0, 3, &answer("b")));
    streams.send(ToServer, &[sack(5003), data(1002, 0, 1, 3, &get("/c"))].concat());
    streams.send(ToClient, &[sack(1002), data(5004, 0, 1, 3, &answer("c"))].concat());
    streams.send(ToServer, &sack(5004));

    let mut lossy = Association::new(true);
    lossy.send(ToServer, &data(1000, 0, 0, 3, &get("/lost")));
    lossy.send(ToClient, &[sack(1000), data(5000, 0, 0, 2, first)].concat());
    lossy.send(ToClient, &data(5002, 0, 0, 1, third));
    // The client has everything; the mirror lost the middle.
    lossy.send(ToServer, &[sack(5002), data(1001, 0, 1, 3, &get("/after"))].concat());
    lossy.send(ToClient, &[sack(1001), data(5003, 0, 1, 3, &answer("after"))].concat());
    lossy.send(ToServer, &sack(5003));

    vec![
        ethernet(
            "sctp",
            &streams.close(),
            "one SCTP association with two streams; an answer in three chunks, out of order and one of them twice.",
            "three complete transactions, each stream a flow of its own; `network.transport` is `sctp`.",
        ),
        ethernet(
            "sctp-over-udp-gap",
            &lossy.close(),
            "SCTP in UDP (port 9899); the capture lacks the middle chunk of an answer, which the client had.",
            "a response with `response_gap`, and the transaction after it complete.",
        ),
    ]
}
