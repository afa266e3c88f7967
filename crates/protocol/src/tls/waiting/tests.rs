//! Secrets that come late: the same transactions, or a counted end.

use offpath_types::{EndReason, Envelope, FlowKey, Host, IdentityKey, Peer, TunnelId};

use super::super::decrypt::FINISHED;
use super::super::fuzz::{Sealer, client_hello, message, plain, sealed_keys, server_hello};
use super::super::keys::{KeyLimits, KeyLogParser, KeyStore, Label};
use super::*;
use crate::{ProtocolConfig, Session};

const UP: Direction = Direction::ToServer;
const DOWN: Direction = Direction::ToClient;
const SECOND: u64 = 1_000_000_000;

/// Two requests and their responses in TLS 1.3, a record a chunk; then both sides end.
fn talk() -> Vec<(Direction, Vec<u8>)> {
    let [_, mut ch, mut sh, mut ct, mut st] = [1, 2, 3, 4, 5].map(Sealer::new);
    let mut all = vec![
        (UP, client_hello(false)),
        (DOWN, [server_hello([9; 32]), plain(20, &[1])].concat()),
        (DOWN, sh.seal(22, &message(FINISHED, &[0; 32]))),
        (UP, ch.seal(22, &message(FINISHED, &[0; 32]))),
    ];
    for n in 0..2 {
        let request = format!("GET /{n} HTTP/1.1\r\nHost: a.example\r\n\r\n");
        all.push((UP, ct.seal(23, request.as_bytes())));
        all.push((DOWN, st.seal(23, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")));
    }
    all.extend([(UP, Vec::new()), (DOWN, Vec::new())]);
    all
}

fn lines() -> Vec<KeyLine> {
    let (mut parser, mut lines) = (KeyLogParser::default(), Vec::new());
    parser.push(sealed_keys().as_bytes(), &mut lines);
    lines
}

struct Rig {
    http: Http,
    out: Vec<Transaction>,
    now: Timestamp,
    flow: FlowInfo,
    session: Option<Session>,
    next: [u64; 2],
}

impl Rig {
    fn new(limits: DecryptLimits) -> Self {
        let config = ProtocolConfig { decryption: limits, ..ProtocolConfig::default() };
        let mut http = Http::new(config, IdentityKey::new([3; 32]));
        http.set_keys(KeyStore::new(KeyLimits { connections_max: 9, keep_nanos: Some(60 * SECOND) }));
        let peer = |last, port| Peer { host: Host::from_v4([10, 0, 0, last]), port };
        let (key, client_side) = FlowKey::new(peer(1, 40000), peer(2, 443), TunnelId(0));
        let now = Timestamp::from_parts(1000, 0);
        let flow = FlowInfo { key, client_side, opened: now, midstream: false, envelope: Envelope::NONE };
        let session = Some(http.open(&flow));
        Self { http, out: Vec::new(), now, flow, session, next: [0; 2] }
    }

    fn push(&mut self, dir: Direction, bytes: &[u8]) {
        self.now = self.now.plus_nanos(1_000_000);
        let (d, seen) = (dir.index(), self.now);
        let chunk = match bytes {
            [] => Chunk::End { reason: EndReason::Fin, seen },
            bytes => Chunk::Data { bytes, offset: self.next[d], peer_acked: Some(self.next[1 - d]), seen },
        };
        self.next[d] += bytes.len() as u64;
        let session = self.session.as_mut().unwrap();
        self.http.chunk(session, &self.flow, dir, chunk, seen, &mut self.out);
        self.check();
    }

    fn keys(&mut self, lines: &[KeyLine]) {
        self.http.add_keys(lines, self.now, &mut self.out);
        self.check();
    }

    fn close(&mut self) {
        if let Some(session) = self.session.take() {
            self.http.close(session, &self.flow, self.now, &mut self.out);
        }
        self.check();
    }

    /// A flow after this one, with the same bytes.
    fn reopen(&mut self) {
        self.close();
        (self.session, self.next) = (Some(self.http.open(&self.flow)), [0; 2]);
    }

    /// Asserts what holds at any time.
    fn check(&mut self) {
        let c = self.http.decrypt_counters();
        let over = c.waits_expired_total + c.waits_connection_full_total + c.waits_full_total;
        assert_eq!(c.waits_total, c.waits_served_total + over + c.waits_ended_total + c.waits_held, "{c:?}");
        assert_eq!(
            c.known_total,
            c.known_used_total + c.known_expired_total + c.known_evicted_total + c.known_held
        );
        let waiting = &self.http.decryption.waiting;
        let waits = || waiting.entries.iter().filter(|(_, e)| e.waits);
        let held: usize = waits().map(|(_, e)| e.charge).sum();
        assert_eq!(waiting.shards.iter().map(|q| q.held).sum::<usize>(), held);
        assert!(held <= self.http.config.decryption.wait_bytes_max);
        let wants = |e: &Entry| e.wants.into_iter().flatten();
        let wanted: usize = waits().map(|(_, e)| wants(e).count()).sum();
        assert_eq!((waiting.by_want.len(), waiting.count()), (wanted, waits().count()));
        for (ticket, e) in waits() {
            assert!(wants(e).all(|want| waiting.by_want.contains(&(want, *ticket))));
            assert!(waiting.shards[e.shard].due.contains(&(e.until, *ticket)));
            assert!(e.inside.wants() == e.wants && e.wants[0].is_some(), "what it waits for");
        }
    }

    /// Ends everything; returns the transactions, without the time at which they were handed on.
    fn finish(mut self) -> (Vec<String>, DecryptCounters) {
        self.close();
        self.http.end_waits(self.now, &mut self.out);
        self.check();
        let c = self.http.decrypt_counters();
        assert_eq!((self.http.held_bytes(), self.http.open_requests()), (0, 0));
        assert!(self.http.decryption.waiting.entries.is_empty());
        assert_eq!(c.bytes_in_total, c.bytes_opened_total + c.bytes_unopened_total);
        let told = |mut tx: Transaction| {
            tx.emitted = Timestamp::ZERO;
            format!("{tx:?}")
        };
        (self.out.into_iter().map(told).collect(), c)
    }
}

fn limits() -> DecryptLimits {
    DecryptLimits { wait_nanos: 5 * SECOND, ..DecryptLimits::default() }
}

#[test]
fn late_secrets_give_the_transactions_that_early_ones_give() {
    let talk = talk();
    let mut rig = Rig::new(limits());
    rig.keys(&lines());
    talk.iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
    let (want, c) = rig.finish();
    assert_eq!((want.len(), c.waits_total), (2, 0));
    let lines = lines();
    // Each line of the five comes after another chunk, or after the flow is over.
    for first in 0..=talk.len() {
        for step in [0, 1, 2, 5] {
            for split in [usize::MAX, 1, 7] {
                let mut rig = Rig::new(limits());
                for (n, (dir, bytes)) in talk.iter().enumerate() {
                    for line in (0..lines.len()).filter(|line| first + line * step == n) {
                        rig.keys(&lines[line..=line]);
                    }
                    match &bytes[..] {
                        [] => rig.push(*dir, bytes),
                        bytes => bytes.chunks(split).for_each(|bytes| rig.push(*dir, bytes)),
                    }
                }
                rig.close();
                for line in (0..lines.len()).filter(|line| first + line * step >= talk.len()) {
                    rig.keys(&lines[line..=line]);
                }
                let name = format!("from chunk {first}, every {step}, pieces of {split}");
                let (got, c) = rig.finish();
                if split == usize::MAX {
                    assert_eq!(got, want, "{name}");
                }
                assert_eq!(got.len(), 2, "{name}");
                assert_eq!(c.waits_served_total, c.waits_total, "{name}");
                assert_eq!((c.bytes_unopened_total, c.connections_opened_total), (0, 1), "{name}");
            }
        }
    }
}

#[test]
fn a_connection_that_agrees_upon_keys_anew_waits_for_those() {
    // As TLS 1.2 does it; who seals here speaks 1.3.
    let (again, message_of) = ([8; 32], |record: Vec<u8>| record[5..].to_vec());
    let mut hello = message_of(client_hello(false));
    hello[6..38].copy_from_slice(&again);
    let [_, mut ch, mut sh, mut ct, mut st] = [1, 2, 3, 4, 5].map(Sealer::new);
    let [mut client, mut server] = [4, 5].map(Sealer::new);
    // One request and its response under the first keys: those are in use.
    let mut talk = talk();
    talk.truncate(6);
    let _ = [&mut client, &mut server].map(|sealer| sealer.seal(23, b"in talk"));
    talk.extend([
        (UP, client.seal(22, &hello)),
        (DOWN, server.seal(22, &message_of(server_hello([9; 32])))),
        (DOWN, sh.seal(22, &message(FINISHED, &[0; 32]))),
        (UP, ch.seal(22, &message(FINISHED, &[0; 32]))),
        (UP, ct.seal(23, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")),
        (DOWN, st.seal(23, b"HTTP/1.1 204 No Content\r\n\r\n")),
    ]);
    let log = sealed_keys().replace(&"07".repeat(32), &"08".repeat(32));
    let mut second = Vec::new();
    KeyLogParser::default().push(log.as_bytes(), &mut second);
    let mut rig = Rig::new(limits());
    talk.iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
    rig.keys(&lines());
    let c = rig.http.decrypt_counters();
    assert_eq!((c.waits_served_total, c.waits_held), (0, 1), "the first ones are not enough");
    rig.keys(&second);
    let (got, c) = rig.finish();
    assert_eq!((got.len(), c.waits_total, c.waits_served_total, c.bytes_unopened_total), (2, 1, 1, 0));
}

#[test]
fn a_line_wakes_those_alone_that_go_on_with_it() {
    // Clients choose their randoms, so they may share one that many lines name.
    let mut rig = Rig::new(limits());
    talk()[..3].iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
    let name = lines()[0].told().0;
    let waiting = |rig: &Rig| {
        let waits = &rig.http.decryption.waiting;
        [Label::Master, Label::ServerHandshake, Label::ClientTraffic]
            .map(|l| waits.that_want((name, l)).len())
    };
    assert_eq!(waiting(&rig), [0, 1, 0]);
    rig.keys(&lines()[2..3]);
    assert_eq!((waiting(&rig), rig.http.decrypt_counters().waits_served_total), ([0; 3], 1));
    talk()[3..5].iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
    rig.keys(&lines()[1..2]);
    assert_eq!(waiting(&rig), [0, 0, 1], "of the secrets of one connection, one after the other");
}

#[test]
fn what_does_not_come_in_time_leaves_the_connection_closed() {
    let talk = talk();
    for over in [false, true] {
        let mut rig = Rig::new(limits());
        talk.iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
        if over {
            rig.close();
        }
        // The wait began with the third chunk, 2 ms before the end of the fifth.
        rig.http.advance(Timestamp::from_parts(1005, 2_000_000), &mut rig.out);
        assert_eq!(rig.http.decrypt_counters().waits_held, 1);
        rig.http.advance(Timestamp::from_parts(1005, 3_000_000), &mut rig.out);
        let c = rig.http.decrypt_counters();
        assert_eq!((c.waits_held, c.waits_expired_total, c.connections_without_secrets_total), (0, 1, 1));
        assert!(rig.http.decryption.waiting.by_want.is_empty());
        rig.keys(&lines());
        let (got, c) = rig.finish();
        assert_eq!((got.len(), c.waits_total, c.known_held), (0, 1, 1), "too late");
    }
}

#[test]
fn bytes_of_one_connection_are_bounded() {
    let mut rig = Rig::new(DecryptLimits { wait_connection_bytes_max: 2000, ..limits() });
    let talk = talk();
    talk[..4].iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
    let mut server = Sealer::new(5);
    for _ in 0..8 {
        rig.push(DOWN, &server.seal(23, &[b'x'; 300]));
    }
    let c = rig.http.decrypt_counters();
    assert_eq!((c.waits_connection_full_total, c.waits_held), (1, 0));
    assert!(!rig.http.wants(rig.session.as_ref().unwrap(), DOWN), "the rest is bypassed");
    rig.keys(&lines());
    assert_eq!(rig.finish().0.len(), 0);
}

#[test]
fn bytes_of_all_connections_are_bounded_and_the_oldest_goes() {
    // Room for two that hold little.
    let mut rig = Rig::new(DecryptLimits { wait_bytes_max: 3 * CONNECTION_BYTES, ..limits() });
    let talk = talk();
    for _ in 0..3 {
        talk[..4].iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
        rig.reopen();
    }
    let c = rig.http.decrypt_counters();
    assert_eq!((c.waits_total, c.waits_full_total, c.waits_held), (3, 1, 2));
    rig.keys(&lines());
    let (_, c) = rig.finish();
    assert_eq!((c.waits_served_total, c.waits_held), (2, 0));
}

#[test]
fn a_connection_that_a_mirror_shows_twice_is_opened_twice_and_its_secrets_are_wiped() {
    let talk = talk();
    let mut rig = Rig::new(limits());
    talk.iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
    rig.reopen();
    talk[..6].iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
    assert_eq!(rig.http.decrypt_counters().waits_held, 2);
    rig.keys(&lines());
    assert_eq!(rig.http.decrypt_counters().waits_served_total, 2);
    talk[6..].iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
    let later = rig.now.plus_secs(1);
    rig.http.advance(later, &mut rig.out);
    let (got, c) = rig.finish();
    assert_eq!((got.len(), c.known_used_total, c.known_held), (4, 1, 0));
}

#[test]
fn the_end_of_the_capture_ends_all_waits() {
    let mut rig = Rig::new(limits());
    talk().iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
    let (got, c) = rig.finish();
    assert_eq!((got.len(), c.waits_ended_total, c.connections_without_secrets_total), (0, 1, 1));
}

#[test]
fn without_a_live_key_log_nothing_waits() {
    let mut rig = Rig::new(DecryptLimits::default());
    talk().iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
    rig.keys(&lines());
    let (got, c) = rig.finish();
    assert_eq!((got.len(), c.waits_total, c.connections_without_secrets_total), (0, 0, 0));
}
