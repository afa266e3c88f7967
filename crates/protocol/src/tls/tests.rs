use offpath_types::{EndReason, Envelope, FlowKey, Host, IdentityKey, Peer, TunnelId};

use super::hello::tests::{client_body, ext, message, records, server_body, sni};
use super::*;
use crate::{ProtocolConfig, ProtocolCounters};

const UP: Direction = Direction::ToServer;
const DOWN: Direction = Direction::ToClient;

#[derive(Clone)]
enum What {
    Bytes(Vec<u8>),
    Gap(u64),
    End,
}

/// What came of a flow: its handshakes, what was wanted at its end, the counts, and how many transactions.
struct Outcome {
    handshakes: Vec<Handshake>,
    wants: [bool; 2],
    counters: ProtocolCounters,
    transactions: usize,
}

fn run(midstream: bool, events: &[(Direction, What)]) -> Outcome {
    let peer = |last, port| Peer { host: Host::from_v4([10, 0, 0, last]), port };
    let (key, client_side) = FlowKey::new(peer(1, 40000), peer(2, 443), TunnelId(0));
    let mut now = Timestamp::from_nanos(1);
    let flow = FlowInfo { key, client_side, opened: now, midstream, envelope: Envelope::NONE };
    let mut http = Http::new(ProtocolConfig::default(), IdentityKey::new([3; 32]));
    let (mut s, mut out, mut next) = (http.open(&flow), Vec::new(), [0u64; 2]);
    for (dir, what) in events {
        now = now.plus_nanos(1_000_000);
        let offset = next[dir.index()];
        let chunk = match what {
            What::Bytes(bytes) => Chunk::Data { bytes, offset, peer_acked: None, seen: now },
            What::Gap(len) => Chunk::Gap { len: *len, offset, seen: now },
            What::End => Chunk::End { reason: EndReason::Fin, seen: now },
        };
        next[dir.index()] += match what {
            What::Bytes(bytes) => bytes.len() as u64,
            What::Gap(len) => *len,
            What::End => 0,
        };
        http.chunk(&mut s, &flow, *dir, chunk, now, &mut out);
    }
    let wants = [http.wants(&s, UP), http.wants(&s, DOWN)];
    http.close(s, &flow, now, &mut out);
    let c = *http.counters();
    assert_eq!(http.held_bytes(), 0);
    let skipped: u64 =
        c.fields().iter().filter(|(n, _)| n.starts_with("skipped_bytes_")).map(|(_, v)| v).sum();
    assert_eq!(
        c.bytes_in_total,
        c.bytes_head_total + c.bytes_body_total + c.bytes_framing_total + c.bytes_tls_total + skipped
    );
    Outcome { handshakes: fuzz_handshakes(&mut http), wants, counters: c, transactions: out.len() }
}

fn bytes(dir: Direction, bytes: &[u8]) -> (Direction, What) {
    (dir, What::Bytes(bytes.to_vec()))
}

fn client() -> Vec<u8> {
    let exts = [sni("a.example"), ext(16, b"\0\x0c\x02h2\x08http/1.1"), ext(43, &[4, 3, 4, 3, 3])];
    message(CLIENT_HELLO, &client_body(0x303, &[0x1301, 0xc02b], &exts))
}

fn server() -> Vec<u8> {
    message(SERVER_HELLO, &server_body(0x303, 0xc02b, &[ext(16, b"\0\x03\x02h2")]))
}

/// Asserts one handshake with both hellos, told early.
fn assert_whole(name: &str, outcome: &Outcome, client_side_as_guessed: bool) {
    let c = &outcome.counters;
    let stages: Vec<_> = outcome.handshakes.iter().map(|h| (h.stage, h.complete)).collect();
    assert_eq!(stages, [(HandshakeStage::ClientHello, false), (HandshakeStage::Done, true)], "{name}: {c:?}");
    let last = &outcome.handshakes[1];
    assert_eq!(last.flow.client().port == 40000, client_side_as_guessed, "{name}");
    let f = &last.facts;
    assert_eq!(f.server_name.as_deref(), Some(&b"a.example"[..]), "{name}");
    assert_eq!(f.next_protocol.as_deref(), Some(&b"h2"[..]), "{name}");
    assert_eq!((f.version, f.cipher, f.ech), (Some(0x303), Some(0xc02b), false), "{name}");
    assert_eq!(f.ja4.map(|j| j.to_string()[..10].to_owned()).as_deref(), Some("t13d0203h2"), "{name}");
    assert!(f.ja3.is_some() && f.ja3s.is_some(), "{name}");
    assert_eq!(outcome.wants, [false, false], "{name}: the rest of the flow costs nothing");
    assert_eq!((c.flows_tls_total, c.tls_handshakes_total, outcome.transactions), (1, 1, 0), "{name}");
}

#[test]
fn both_hellos_are_read_whoever_cuts_them() {
    for size in [1, 7, 100, 16384] {
        let (up, down) =
            (records(&client(), size), records(&[server(), message(11, &[0; 500])].concat(), size));
        for piece in [1, 2, 5, 6, 7, 40, usize::MAX] {
            let cut =
                |dir, all: &[u8]| -> Vec<_> { all.chunks(piece).map(|part| bytes(dir, part)).collect() };
            let events = [cut(UP, &up), cut(DOWN, &down)].concat();
            assert_whole(&format!("records {size}, pieces {piece}"), &run(false, &events), true);
        }
    }
}

#[test]
fn a_handshake_is_found_where_flows_begin_oddly() {
    let (up, down) = (records(&client(), 999), records(&server(), 999));
    let swapped = [bytes(DOWN, &up), bytes(UP, &down)];
    assert_whole("joined midstream, the wrong side taken for the client", &run(true, &swapped), false);
    assert_whole("midstream", &run(true, &[bytes(UP, &up), bytes(DOWN, &down)]), true);
    let proxied =
        [bytes(UP, &[b"PROXY TCP4 192.0.2.1 10.0.0.1 5 443\r\n", &up[..]].concat()), bytes(DOWN, &down)];
    assert_whole("behind a PROXY preface", &run(false, &proxied), true);
    let mut socks = vec![bytes(UP, b"\x05\x01\0"), bytes(DOWN, b"\x05\0")];
    socks.push(bytes(UP, b"\x05\x01\0\x01\x01\x02\x03\x04\x01\xbb"));
    socks.push(bytes(DOWN, b"\x05\0\0\x01\x01\x02\x03\x04\x01\xbb"));
    socks.extend([bytes(UP, &up), bytes(DOWN, &down)]);
    assert_whole("behind SOCKS", &run(false, &socks), true);
    let mut tunnel = vec![bytes(UP, b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n")];
    tunnel.push(bytes(DOWN, b"HTTP/1.1 200 OK\r\n\r\n"));
    tunnel.extend([bytes(UP, &up), bytes(DOWN, &down)]);
    let outcome = run(false, &tunnel);
    assert_eq!((outcome.transactions, outcome.handshakes.len()), (1, 2), "in a tunnel");
    // The server's side first, as a mirror may have it.
    let early = run(false, &[bytes(DOWN, &down), bytes(UP, &up)]);
    assert_eq!(early.handshakes.len(), 1, "told once, when it is whole");
    assert!(early.handshakes[0].complete && early.wants == [false, false]);
}

#[test]
fn half_a_handshake_is_told_at_its_end() {
    let (up, down) = (records(&client(), 999), records(&server(), 999));
    let alert = [21, 3, 3, 0, 2, 2, 40];
    let retry = server_body(0x303, 0x1301, &[]);
    let random = [
        0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
        0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
    ];
    let retry = records(&message(SERVER_HELLO, &[&retry[..2], &random, &retry[34..]].concat()), 999);
    // (events, handshakes told, of these whole, client hellos, server hellos, unreadable)
    type Row = (&'static str, Vec<(Direction, What)>, [u64; 5]);
    let rows: [Row; 9] = [
        ("only the client is captured", vec![bytes(UP, &up)], [2, 0, 1, 0, 0]),
        ("only the server is captured", vec![bytes(DOWN, &down)], [1, 0, 0, 1, 0]),
        ("refused", vec![bytes(UP, &up), bytes(DOWN, &alert)], [2, 0, 1, 0, 0]),
        (
            "another hello was asked for",
            vec![bytes(UP, &up), bytes(DOWN, &retry), bytes(UP, &up), bytes(DOWN, &down)],
            [2, 1, 1, 1, 0],
        ),
        (
            "a gap in the client's hello",
            vec![bytes(UP, &up[..40]), (UP, What::Gap(20)), bytes(UP, &up[60..]), bytes(DOWN, &down)],
            [1, 0, 0, 1, 1],
        ),
        (
            "a gap in the server's",
            vec![bytes(UP, &up), bytes(DOWN, &down[..20]), (DOWN, What::Gap(9))],
            [2, 0, 1, 0, 1],
        ),
        ("ends in the hello", vec![bytes(UP, &up[..40]), (UP, What::End)], [0, 0, 0, 0, 1]),
        (
            "malformed",
            vec![bytes(UP, &records(&message(CLIENT_HELLO, &[3; 50]), 99)), bytes(DOWN, &down)],
            [1, 0, 0, 1, 1],
        ),
        (
            "longer than a hello can be",
            vec![bytes(UP, &[22, 3, 1, 0, 9, 1, 9, 0, 0]), bytes(DOWN, &alert)],
            [0, 0, 0, 0, 1],
        ),
    ];
    for (name, events, want) in rows {
        let o = run(false, &events);
        let (c, whole) = (&o.counters, o.handshakes.iter().filter(|h| h.complete).count() as u64);
        let got = [
            o.handshakes.len() as u64,
            whole,
            c.tls_client_hellos_total,
            c.tls_server_hellos_total,
            c.tls_hellos_unreadable_total,
        ];
        assert_eq!((got, c.flows_tls_total), (want, 1), "{name}");
        assert_eq!(c.tls_handshakes_total, u64::from(want[0] > 0), "{name}");
    }
}

#[test]
fn old_and_encrypted_hellos_are_counted() {
    let v2 = [&[0x80, 40, 1, 3, 1, 0, 15, 0, 0, 0, 16][..], &[7; 31]].concat();
    let o = run(false, &[bytes(UP, &v2), bytes(DOWN, &records(&server(), 999))]);
    assert_eq!((o.counters.tls_hellos_sslv2_total, o.counters.flows_tls_total), (1, 1));
    assert_eq!(
        o.handshakes.iter().map(|h| (h.complete, h.facts.ja3.is_some())).collect::<Vec<_>>(),
        [(false, false)]
    );

    let exts = [sni("outer.example"), ext(0xfe0d, &[0; 60])];
    let hello = records(&message(CLIENT_HELLO, &client_body(0x303, &[0x1301], &exts)), 999);
    let o = run(false, &[bytes(UP, &hello)]);
    assert_eq!((o.counters.tls_ech_total, o.handshakes[0].facts.ech), (1, true));
}

#[test]
fn what_only_looks_like_tls_goes_where_it_went_before() {
    for (name, first) in
        [("other message", &[22u8, 3, 1, 0, 9, 11][..]), ("binary", &[0x80, 1, 2, 3, 4]), ("short", &[22, 9])]
    {
        for piece in [1, usize::MAX] {
            let junk: Vec<_> = first.chunks(piece).map(|part| bytes(UP, part)).collect();
            let o = run(false, &junk);
            assert_eq!((o.counters.flows_not_http_total, o.wants), (1, [false, false]), "{name}");
            // Joined in the middle, a request is found behind it.
            let mut events = junk.clone();
            events.push(bytes(UP, b"\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(run(true, &events).transactions, 1, "{name}");
        }
    }
}

#[test]
fn fuzz_body_runs_on_seeds() {
    let record = |control: u8, part: &[u8]| [&[control, part.len() as u8][..], part].concat();
    let up: Vec<_> = records(&client(), 60).chunks(200).flat_map(|p| record(0, p)).collect();
    let down: Vec<_> = records(&server(), 60).chunks(200).flat_map(|p| record(1, p)).collect();
    for first in 0..=60 {
        let all = [&[first][..], &up, &down].concat();
        fuzz_tls_hello(&all);
        fuzz_tls_hello(&all[..all.len() - usize::from(first)]);
        fuzz_tls_hello(&[&[first][..], &up[..60], &record(0x50, &[0; 9]), &down].concat());
    }
}
