//! What one exchange costs: framing, heads, pairing, facts. `cargo bench -p offpath-protocol --bench http1`.
//!
//! `http1_byte_by_byte` is the worst an attacker can make of the same exchange.
#![expect(clippy::disallowed_methods, reason = "a bench measures wall time")]

use std::hint::black_box;
use std::time::Instant;

use offpath_protocol::{Http, ProtocolConfig};
use offpath_types::{Chunk, Direction, FlowInfo, FlowKey, Host, IdentityKey, Peer, Timestamp, TunnelId};

const REQUEST: &[u8] = b"GET /catalogue/items/4711?page=2 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: application/json\r\nAccept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nReferer: https://shop.example/catalogue\r\nCookie: sid=0123456789abcdef0123456789abcdef\r\nConnection: keep-alive\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 28\r\nCache-Control: no-store\r\nConnection: keep-alive\r\n\r\n{\"id\":4711,\"stock\":\"plenty\"}";

fn main() {
    run("http1_get_small", usize::MAX, 400_000);
    run("http1_byte_by_byte", 1, 20_000);
}

fn run(name: &str, piece: usize, rounds: u32) {
    let peer = |last, port| Peer { host: Host::from_v4([10, 0, 0, last]), port };
    let (key, client_side) = FlowKey::new(peer(1, 40000), peer(2, 80), TunnelId(0));
    let flow = FlowInfo {
        key,
        client_side,
        opened: Timestamp::from_nanos(1),
        midstream: false,
        envelope: Default::default(),
    };
    let mut http = Http::new(ProtocolConfig::default(), IdentityKey::new([7; 32]));
    let mut session = http.open(&flow);
    let (mut next, mut out, mut done) = ([0u64; 2], Vec::new(), 0usize);
    let start = Instant::now();
    for round in 0..rounds {
        let now = Timestamp::from_nanos(u64::from(round) * 1_000_000);
        for (dir, bytes) in [(Direction::ToServer, REQUEST), (Direction::ToClient, RESPONSE)] {
            for bytes in bytes.chunks(piece) {
                let offset = next[dir.index()];
                let peer_acked = Some(next[dir.flip().index()]);
                let chunk = Chunk::Data { bytes, offset, peer_acked, seen: now };
                http.chunk(&mut session, &flow, dir, black_box(chunk), now, &mut out);
                next[dir.index()] += bytes.len() as u64;
            }
        }
        done += out.iter().filter(|t| t.complete).count();
        out.clear();
    }
    let spent = start.elapsed();
    assert_eq!(done, rounds as usize, "{name}: every exchange is a whole transaction");
    let per = spent.as_nanos() as f64 / f64::from(rounds);
    let mib = (REQUEST.len() + RESPONSE.len()) as f64 * f64::from(rounds) / spent.as_secs_f64() / 1_048_576.0;
    println!("{name}: {per:.0} ns per transaction, {mib:.0} MiB/s");
}
