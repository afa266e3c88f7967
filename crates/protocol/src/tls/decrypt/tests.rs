//! Tests of decryption: recorded sessions of OpenSSL, and sealed ones for what its tools do not show.

use offpath_types::Direction::{self, ToClient, ToServer};
use offpath_types::Timestamp;

use super::super::fuzz::{Sealer, client_hello, message, plain, sealed_keys, server_hello};
use super::super::keys::{KeyLimits, KeyLogParser, KeyStore};
use super::*;

/// Made by `crates/testkit/lab/tls-sessions.py`.
const SESSIONS: &str = include_str!("../sessions.txt");
const ROUNDS: usize = 3;
const SIZE: usize = 12;

struct Session {
    name: String,
    keys: String,
    flights: Vec<(Direction, Vec<u8>)>,
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn sessions() -> Vec<Session> {
    let mut all: Vec<Session> = Vec::new();
    for line in SESSIONS.lines().filter(|l| !l.starts_with('#')) {
        if let Some(name) = line.strip_prefix("= ") {
            all.push(Session { name: name.into(), keys: String::new(), flights: Vec::new() });
            continue;
        }
        let session = all.last_mut().unwrap();
        match line.split_at(2) {
            ("> ", bytes) => session.flights.push((ToServer, hex(bytes))),
            ("< ", bytes) => session.flights.push((ToClient, hex(bytes))),
            _ => session.keys += &format!("{line}\n"),
        }
    }
    all
}

fn want(dir: Direction) -> Vec<u8> {
    let word = if dir == ToServer { "request" } else { "response" };
    (0..ROUNDS).flat_map(|n| format!("{word} {n} ").repeat(SIZE).into_bytes()).collect()
}

fn store(keys: &str) -> KeyStore {
    let (mut parser, mut lines) = (KeyLogParser::default(), Vec::new());
    parser.push(keys.as_bytes(), &mut lines);
    parser.finish(&mut lines);
    let mut store = KeyStore::new(KeyLimits::default());
    lines.into_iter().for_each(|line| store.add(&line, Timestamp::ZERO));
    store
}

/// What came out of a direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Got {
    bytes: Vec<u8>,
    /// As (offset, length).
    gaps: Vec<(u64, u64)>,
    early: usize,
    places: Vec<PlainPlace>,
}

#[derive(Default)]
struct Collect([Got; 2]);

impl Plain for Collect {
    fn data(&mut self, dir: Direction, bytes: &[u8], place: PlainPlace, early: bool) {
        let got = &mut self.0[dir.index()];
        let missing: u64 = got.gaps.iter().map(|(_, len)| len).sum();
        assert_eq!(place.offset, got.bytes.len() as u64 + missing, "offsets count gaps");
        got.bytes.extend_from_slice(bytes);
        got.early += if early { bytes.len() } else { 0 };
        got.places.push(place);
    }

    fn gap(&mut self, dir: Direction, len: u64, offset: u64, _seen: Timestamp) {
        assert!(len > 0);
        self.0[dir.index()].gaps.push((offset, len));
    }
}

/// A connection with all it needs.
struct Rig {
    connection: Connection,
    keys: KeyStore,
    counters: DecryptCounters,
    scratch: Vec<u8>,
    out: Collect,
    next: [u64; 2],
    wait: bool,
    status: Status,
    clock: u64,
}

impl Rig {
    fn new(keys: &str) -> Self {
        Self {
            connection: Connection::new(),
            keys: store(keys),
            counters: DecryptCounters::default(),
            scratch: Vec::new(),
            out: Collect::default(),
            next: [0; 2],
            wait: false,
            status: Status::Going,
            clock: 0,
        }
    }

    fn run(&mut self, work: impl FnOnce(&mut Connection, &mut Env<'_>, &mut Collect) -> Status) {
        let mut env = Env {
            keys: &self.keys,
            counters: &mut self.counters,
            scratch: &mut self.scratch,
            wait: self.wait,
        };
        self.status = work(&mut self.connection, &mut env, &mut self.out);
    }

    fn push(&mut self, dir: Direction, bytes: &[u8]) {
        self.clock += 1;
        let place =
            (self.next[dir.index()], Some(self.next[1 - dir.index()]), Timestamp::from_nanos(self.clock));
        self.next[dir.index()] += bytes.len() as u64;
        self.run(|c, env, out| c.push(env, dir, bytes, place, out));
    }

    fn gap(&mut self, dir: Direction, len: usize) {
        let offset = self.next[dir.index()];
        self.next[dir.index()] += len as u64;
        self.run(|c, env, out| c.gap(env, dir, len as u64, offset, Timestamp::ZERO, out));
    }

    fn finish(&mut self) -> &[Got; 2] {
        self.run(|c, env, out| {
            let _ = c.end(env, ToServer, out);
            let _ = c.end(env, ToClient, out);
            c.close(env);
            Status::Going
        });
        let c = &self.counters;
        assert_eq!(c.bytes_in_total, c.bytes_opened_total + c.bytes_unopened_total, "{c:?}");
        let plain: usize = self.out.0.iter().map(|g| g.bytes.len()).sum();
        assert_eq!(c.bytes_plain_total, plain as u64);
        assert_eq!(self.connection.buffered(), 0);
        &self.out.0
    }
}

#[test]
fn recorded_sessions_come_out_whatever_the_cuts() {
    let all = sessions();
    assert_eq!(all.len(), 18);
    for session in &all {
        for piece in [usize::MAX, 1, 2, 3, 5, 7, 64, 1000] {
            let mut rig = Rig::new(&session.keys);
            for (dir, bytes) in &session.flights {
                bytes.chunks(piece).for_each(|bytes| rig.push(*dir, bytes));
            }
            let [requests, responses] = rig.finish();
            let name = &session.name;
            assert_eq!(
                String::from_utf8_lossy(&requests.bytes),
                String::from_utf8_lossy(&want(ToServer)),
                "{name}"
            );
            assert_eq!(
                String::from_utf8_lossy(&responses.bytes),
                String::from_utf8_lossy(&want(ToClient)),
                "{name}"
            );
            assert!(requests.gaps.is_empty() && responses.gaps.is_empty(), "{name}, {piece}");
            let c = rig.counters;
            assert_eq!(
                (c.bytes_unopened_total, c.connections_opened_total, c.records_failed_total),
                (0, 1, 0),
                "{name}"
            );
        }
    }
}

#[test]
fn every_prefix_is_safe_and_gives_a_prefix() {
    for session in sessions().iter().step_by(5) {
        let whole: Vec<_> =
            session.flights.iter().flat_map(|(d, b)| b.iter().map(move |b| (*d, *b))).collect();
        for cut in (0..whole.len()).step_by(3) {
            let mut rig = Rig::new(&session.keys);
            for run in whole[..cut].chunk_by(|a, b| a.0 == b.0) {
                rig.push(run[0].0, &run.iter().map(|(_, b)| *b).collect::<Vec<_>>());
            }
            let [requests, responses] = rig.finish();
            assert!(
                want(ToServer).starts_with(&requests.bytes) && want(ToClient).starts_with(&responses.bytes)
            );
        }
    }
}

#[test]
fn acknowledgements_and_times_are_those_of_the_segments() {
    for session in sessions() {
        let mut rig = Rig::new(&session.keys);
        for (dir, bytes) in &session.flights {
            let (first, second) = bytes.split_at(bytes.len() / 2);
            rig.push(*dir, first);
            rig.push(*dir, second);
        }
        let [requests, responses] = rig.finish();
        let (each, answer) = ("request 0 ".len() * SIZE, "response 0 ".len() * SIZE);
        for n in 0..ROUNDS {
            // The client had every response before it asked again, whatever tickets came between.
            let asked = requests.places.iter().find(|p| p.offset == (n * each) as u64).unwrap();
            assert_eq!(asked.peer_acked, Some((n * answer) as u64), "{}, round {n}", session.name);
            let told = responses.places.iter().find(|p| p.offset == (n * answer) as u64).unwrap();
            assert_eq!(told.peer_acked, Some(((n + 1) * each) as u64), "{}, round {n}", session.name);
            assert!(told.seen > asked.seen);
        }
        assert_eq!(requests.places.len(), 2 * ROUNDS, "{}: two pieces of each record", session.name);
    }
}

#[test]
fn what_is_lost_is_a_gap_and_the_rest_is_found_again() {
    for session in sessions() {
        let first = session.flights.len() - 2 - 2 * ROUNDS;
        for lost in first..first + 2 * ROUNDS - 2 {
            for part in ["whole", "start", "middle", "end"] {
                let mut rig = Rig::new(&session.keys);
                for (n, (dir, bytes)) in session.flights.iter().enumerate() {
                    let range = match part {
                        _ if n != lost => 0..0,
                        "whole" => 0..bytes.len(),
                        "start" => 0..7,
                        "middle" => 20..30,
                        _ => bytes.len() - 3..bytes.len(),
                    };
                    if range.start > 0 {
                        rig.push(*dir, &bytes[..range.start]);
                    }
                    if !range.is_empty() {
                        rig.gap(*dir, range.len());
                    }
                    if range.end < bytes.len() {
                        rig.push(*dir, &bytes[range.end..]);
                    }
                }
                let dir = session.flights[lost].0;
                let name = format!("{}, flight {lost}, {part}", session.name);
                let got = rig.finish();
                let (hurt, sound) = (&got[dir.index()], &got[1 - dir.index()]);
                assert_eq!(sound.bytes, want(dir.flip()), "{name}");
                let all = want(dir);
                let round = (lost - first) / 2;
                let each = all.len() / ROUNDS;
                let rest = [&all[..round * each], &all[(round + 1) * each..]].concat();
                assert_eq!(String::from_utf8_lossy(&hurt.bytes), String::from_utf8_lossy(&rest), "{name}");
                let [(offset, len)] = hurt.gaps[..] else { panic!("{name}: {:?}", hurt.gaps) };
                assert_eq!(offset, (round * each) as u64, "{name}");
                if ["GCM", "CCM", "CHACHA", "TLS"].iter().any(|aead| session.name.contains(aead)) {
                    assert_eq!(
                        len, each as u64,
                        "{name}: the length of what is lost in an AEAD suite is exact"
                    );
                }
                assert_eq!(rig.counters.resyncs_total, 1, "{name}");
            }
        }
    }
}

#[test]
fn a_hole_in_the_handshake_costs_no_data() {
    let mut kept = 0;
    for session in sessions() {
        let tls13 = session.name.starts_with("TLS");
        // The server's certificate flight; its hello is at the start of it.
        let flights: Vec<_> = session.flights.clone();
        let flight = flights.iter().rposition(|(d, b)| *d == ToClient && b[0] == 22 && b[5] == 2).unwrap();
        let (_, bytes) = &flights[flight];
        let hello = 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
        let mut rig = Rig::new(&session.keys);
        for (n, (dir, bytes)) in flights.iter().enumerate() {
            if n == flight {
                let upto = (bytes.len() - 90).min(hello + 200);
                rig.push(*dir, &bytes[..hello + 30]);
                rig.gap(*dir, upto - hello - 30);
                rig.push(*dir, &bytes[upto..]);
            } else {
                rig.push(*dir, bytes);
            }
        }
        let [requests, responses] = rig.finish();
        assert_eq!(requests.bytes, want(ToServer), "{}", session.name);
        assert_eq!(
            String::from_utf8_lossy(&responses.bytes),
            String::from_utf8_lossy(&want(ToClient)),
            "{}",
            session.name
        );
        kept += usize::from(tls13);
    }
    assert_eq!(kept, 6);
}

#[test]
fn secrets_may_come_late_one_by_one() {
    for session in sessions() {
        let mut rig = Rig::new("");
        rig.wait = true;
        let (mut parser, mut lines) = (KeyLogParser::default(), Vec::new());
        parser.push(session.keys.as_bytes(), &mut lines);
        let mut lines = lines.into_iter();
        let mut waits = 0;
        for (dir, bytes) in &session.flights {
            rig.push(*dir, bytes);
            while rig.status == Status::WantsKeys {
                waits += 1;
                let line = lines.next().expect("all secrets are there");
                rig.keys.add(&line, Timestamp::ZERO);
                rig.run(|c, env, out| c.resume(env, out));
            }
        }
        let [requests, responses] = rig.finish();
        assert_eq!(
            (&requests.bytes, &responses.bytes),
            (&want(ToServer), &want(ToClient)),
            "{}",
            session.name
        );
        assert!(waits > 0);
    }
}

#[test]
fn connections_that_cannot_be_opened_are_given_up_at_once() {
    let all = sessions();
    let session = &all[0];
    type Case = (&'static str, fn(&mut Session), fn(&DecryptCounters) -> u64);
    let cases: [Case; 6] = [
        ("no secrets", |s| s.keys.clear(), |c| c.connections_without_secrets_total),
        (
            "another suite",
            |s| s.flights[1].1[5 + 4 + 2 + 32 + 1 + 32 + 1] = 0xff,
            |c| c.connections_unsupported_total,
        ),
        (
            "compression",
            |s| s.flights[1].1[5 + 4 + 2 + 32 + 1 + 32 + 2] = 1,
            |c| c.connections_unsupported_total,
        ),
        ("no TLS", |s| s.flights[0].1[1] = 9, |c| c.connections_malformed_total),
        ("no hello", |s| drop(s.flights.drain(..2)), |c| c.connections_malformed_total),
        ("two clients", |s| s.flights[1].1 = s.flights[0].1.clone(), |c| c.connections_malformed_total),
    ];
    for (name, change, counter) in cases {
        let mut session =
            Session { name: name.into(), keys: session.keys.clone(), flights: session.flights.clone() };
        change(&mut session);
        let mut rig = Rig::new(&session.keys);
        for (dir, bytes) in &session.flights {
            rig.push(*dir, bytes);
        }
        let gave_up = rig.status == Status::GivenUp;
        assert_eq!(counter(&rig.counters), u64::from(gave_up), "{name}: {:?}", rig.counters);
        assert!(gave_up, "{name}");
        assert_eq!(rig.connection.buffered(), 0);
        rig.finish();
        assert_eq!(rig.out.0[0].bytes, b"", "{name}");
    }
}

#[test]
fn early_data_is_marked_if_taken_and_dropped_if_refused() {
    for (name, taken, retry, keys, early, got) in [
        ("taken", true, false, sealed_keys(), 5, "earlylate"),
        ("refused", false, false, sealed_keys(), 0, "late"),
        ("refused by a retry", false, true, sealed_keys(), 0, "late"),
        ("taken, its secret unknown", true, false, sealed_keys().replace("CLIENT_EARLY", "X"), 0, "late"),
    ] {
        let [mut e, mut ch, mut sh, mut ct, mut st] = [1, 2, 3, 4, 5].map(Sealer::new);
        let mut rig = Rig::new(&keys);
        rig.push(ToServer, &client_hello(true));
        rig.push(ToServer, &plain(20, &[1]));
        rig.push(ToServer, &e.seal(23, b"early"));
        if retry {
            rig.push(ToClient, &server_hello(RETRY));
            rig.push(ToServer, &client_hello(false));
        }
        rig.push(ToClient, &server_hello([9; 32]));
        assert_eq!(rig.out.0[0].bytes, b"", "{name}: nothing before the server has told");
        let extensions: &[u8] = if taken { &[0, 4, 0, 42, 0, 0] } else { &[0, 0] };
        rig.push(ToClient, &sh.seal(22, &message(ENCRYPTED_EXTENSIONS, extensions)));
        rig.push(ToClient, &sh.seal(22, &message(FINISHED, &[0; 32])));
        // What the server says before the client has finished.
        rig.push(ToClient, &st.seal(23, b"hi"));
        if taken {
            rig.push(ToServer, &e.seal(22, &message(END_OF_EARLY_DATA, &[])));
        }
        rig.push(ToServer, &ch.seal(22, &message(FINISHED, &[0; 32])));
        rig.push(ToServer, &ct.seal(23, b"late"));
        let [requests, responses] = rig.finish();
        assert_eq!(String::from_utf8_lossy(&requests.bytes), got, "{name}");
        // What no key opens may be data: the record that ends it counts as well.
        let gaps = if keys.contains('X') { 2 } else { 0 };
        assert_eq!((requests.early, requests.gaps.len()), (early, gaps), "{name}");
        assert_eq!(responses.bytes, b"hi", "{name}");
    }
}

#[test]
fn keys_are_updated_also_in_a_gap() {
    for lose in [false, true] {
        let [_, mut ch, mut sh, mut ct, mut st] = [1, 2, 3, 4, 5].map(Sealer::new);
        let mut rig = Rig::new(&sealed_keys());
        rig.push(ToServer, &client_hello(false));
        rig.push(ToClient, &server_hello([9; 32]));
        rig.push(ToClient, &sh.seal(22, &message(FINISHED, &[0; 32])));
        rig.push(ToServer, &ch.seal(22, &message(FINISHED, &[0; 32])));
        rig.push(ToServer, &ct.seal(23, b"one "));
        let update = ct.seal(22, &message(KEY_UPDATE, &[0]));
        ct.update();
        if lose {
            rig.gap(ToServer, update.len());
        } else {
            rig.push(ToServer, &update);
        }
        rig.push(ToServer, &ct.seal(23, b"two "));
        rig.push(ToServer, &ct.seal(23, b"three"));
        rig.push(ToClient, &st.seal(23, b"yes"));
        let [requests, responses] = rig.finish();
        assert_eq!((&requests.bytes[..], &responses.bytes[..]), (&b"one two three"[..], &b"yes"[..]));
        assert_eq!(rig.counters.rekeyed_total, u64::from(!lose));
    }
}

#[test]
fn a_mirror_may_swap_the_directions_of_the_handshake() {
    for session in sessions() {
        let mut rig = Rig::new(&session.keys);
        let mut flights = session.flights.clone();
        flights.swap(0, 1);
        flights.swap(2, 3);
        for (dir, bytes) in &flights {
            rig.push(*dir, bytes);
        }
        let [requests, responses] = rig.finish();
        assert_eq!(
            (&requests.bytes, &responses.bytes),
            (&want(ToServer), &want(ToClient)),
            "{}",
            session.name
        );
    }
}

#[test]
fn records_of_nothing_at_the_end_of_what_has_come_are_read() {
    let nothing = [HANDSHAKE, 3, 3, 0, 0];
    for session in sessions() {
        // Before the client's hello: it waits, as any record of the server does.
        let mut rig = Rig::new(&session.keys);
        rig.push(ToClient, &nothing);
        session.flights.iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
        assert_eq!(rig.finish()[1].bytes, want(ToClient), "{}", session.name);
        // Where a place is looked for after a gap.
        let mut rig = Rig::new(&session.keys);
        session.flights[..2].iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
        rig.gap(ToServer, 10);
        rig.push(ToServer, &nothing);
        assert_eq!(rig.status, Status::Going, "{}", session.name);
        rig.finish();
    }
}

#[test]
fn searching_costs_a_bounded_number_of_trials() {
    let [_, mut ch, mut sh, mut ct, _] = [1, 2, 3, 4, 5].map(Sealer::new);
    let mut rig = Rig::new(&sealed_keys());
    rig.push(ToServer, &client_hello(false));
    rig.push(ToClient, &server_hello([9; 32]));
    rig.push(ToClient, &sh.seal(22, &message(FINISHED, &[0; 32])));
    rig.push(ToServer, &ch.seal(22, &message(FINISHED, &[0; 32])));
    rig.push(ToServer, &ct.seal(23, b"one"));
    rig.gap(ToServer, 1 << 30);
    // Every third byte looks like the start of a record.
    let bait = [23, 3, 3, 3, 3].repeat(4000);
    for _ in 0..50 {
        rig.push(ToServer, &bait);
    }
    assert_eq!(rig.counters.directions_lost_total, 1);
    rig.push(ToServer, &ct.seal(23, b"two"));
    let got = rig.finish();
    assert_eq!((&got[0].bytes[..], got[0].gaps.len()), (&b"one"[..], 1), "the rest is one gap");
}

#[test]
fn bytes_that_wait_are_bounded() {
    let mut rig = Rig::new(&sealed_keys());
    rig.push(ToServer, &client_hello(true));
    let mut early = Sealer::new(1);
    for _ in 0..100 {
        rig.push(ToServer, &early.seal(23, &[b'x'; 10_000]));
        assert!(rig.connection.buffered() <= WAITING_BYTES_MAX);
    }
    assert_eq!((rig.status, rig.counters.connections_malformed_total), (Status::GivenUp, 1));
    rig.finish();
}

/// A connection of TLS 1.3 after its handshake, and the sides that go on; the client's records come after `more`.
fn established(more: impl FnOnce(&mut Rig)) -> (Rig, Sealer, Sealer) {
    let [_, mut ch, mut sh, ct, st] = [1, 2, 3, 4, 5].map(Sealer::new);
    let mut rig = Rig::new(&sealed_keys());
    rig.push(ToServer, &client_hello(false));
    rig.push(ToClient, &server_hello([9; 32]));
    rig.push(ToClient, &sh.seal(22, &message(FINISHED, &[0; 32])));
    more(&mut rig);
    rig.push(ToServer, &ch.seal(22, &message(FINISHED, &[0; 32])));
    (rig, ct, st)
}

#[test]
fn a_record_changes_keys_once() {
    let (mut rig, mut ct, _) = established(|_| {});
    rig.push(ToServer, &ct.seal(22, &message(KEY_UPDATE, &[0]).repeat(3000)));
    ct.update();
    rig.push(ToServer, &ct.seal(23, b"data"));
    assert_eq!(rig.finish()[0].bytes, b"data");
    assert_eq!(rig.counters.rekeyed_total, 1);
}

#[test]
fn records_that_nothing_opens_are_tried_a_bounded_number_of_times() {
    let short = plain(APPLICATION_DATA, &[0; 20]);
    let (most, mut got) = (UNOPENED_BYTES_MAX / TRIAL_COST_MIN as u64, Vec::new());
    for count in [most, most + 1] {
        let (mut rig, mut ct, _) = established(|rig| {
            (0..count).for_each(|_| rig.push(ToServer, &short));
        });
        rig.push(ToServer, &ct.seal(23, b"data"));
        got.push((rig.counters.directions_lost_total, rig.finish()[0].bytes.len()));
    }
    assert_eq!(got, [(0, 4), (1, 0)]);
}

#[test]
fn making_keys_is_part_of_what_a_search_may_cost() {
    let session = sessions().into_iter().find(|s| s.name == "ECDHE-ECDSA-AES128-GCM-SHA256").unwrap();
    let mut rig = Rig::new(&session.keys);
    session.flights[..2].iter().for_each(|(dir, bytes)| rig.push(*dir, bytes));
    rig.gap(ToServer, 10);
    let bait = plain(APPLICATION_DATA, &[0; 10]);
    let (mut spent, mut lost) = (0, 10);
    while spent < TRIAL_BYTES_MAX {
        assert_eq!(rig.counters.directions_lost_total, 0, "{spent}");
        rig.push(ToServer, &bait);
        spent += TRIAL_KEYS_COST + TRIAL_COST_MIN as u64 * (lost / 22 + 1).min(TRIAL_NEXT_KEY_MAX);
        lost += bait.len() as u64;
    }
    assert_eq!(rig.counters.directions_lost_total, 1);
    rig.finish();
}

#[test]
fn messages_in_progress_are_held_bytes_and_go_with_the_connection() {
    let hello = message(CLIENT_HELLO, &[0; 60_000]);
    let mut rig = Rig::new(&sealed_keys());
    hello.chunks(10_000).take(5).for_each(|part| rig.push(ToServer, &plain(HANDSHAKE, part)));
    assert_eq!(rig.connection.buffered(), 50_000);
    rig.finish();
}

#[test]
fn secrets_of_a_direction_that_is_lost_are_not_kept() {
    let (mut rig, _, mut st) = established(|rig| {
        rig.gap(ToServer, 1 << 30);
        let bait = [23, 3, 3, 3, 3].repeat(4000);
        (0..50).for_each(|_| rig.push(ToServer, &bait));
    });
    assert_eq!(rig.counters.directions_lost_total, 1);
    assert!(rig.connection.secrets.is_some() && rig.connection.take_served().next().is_none());
    rig.push(ToClient, &st.seal(23, b"hi"));
    assert!(rig.connection.secrets.is_none() && rig.connection.take_served().next().is_some());
    rig.push(ToClient, &st.seal(23, b" there"));
    assert_eq!(rig.finish()[1].bytes, b"hi there");
}

/// Sessions with an RSA key exchange; their key logs know the premaster secret alone.
fn rsa_sessions() -> Vec<Session> {
    let mut all = sessions();
    all.retain(|session| session.keys.starts_with("RSA "));
    for session in &mut all {
        session.keys = session.keys.lines().take(1).collect();
    }
    assert_eq!(all.len(), 4);
    all
}

#[test]
fn premaster_secrets_open_a_connection_whoever_cuts_it() {
    for session in rsa_sessions() {
        let name = &session.name;
        let whole = session.flights.iter().map(|(_, bytes)| bytes.len()).max().unwrap();
        for piece in [1, 7, 64, 1000, whole] {
            let mut rig = Rig::new(&session.keys);
            for (dir, bytes) in &session.flights {
                bytes.chunks(piece).for_each(|bytes| rig.push(*dir, bytes));
            }
            let [requests, responses] = rig.finish();
            assert_eq!((&requests.bytes, &responses.bytes), (&want(ToServer), &want(ToClient)), "{name}");
            assert_eq!((rig.counters.bytes_unopened_total, rig.counters.records_failed_total), (0, 0));
        }
        // Of a mirror that swaps directions: whatever keeps each in its order.
        for order in [[0, 2, 1, 3], [1, 0, 2, 3], [0, 1, 3, 2], [1, 0, 3, 2], [1, 3, 0, 2]] {
            let mut rig = Rig::new(&session.keys);
            let first = order.map(|n| &session.flights[n]);
            first.into_iter().chain(&session.flights[4..]).for_each(|(dir, bytes)| rig.push(*dir, bytes));
            let [requests, responses] = rig.finish();
            let texts = [requests, responses].map(|got| String::from_utf8_lossy(&got.bytes));
            assert_eq!(texts, [ToServer, ToClient].map(|d| String::from_utf8(want(d)).unwrap()), "{order:?}");
        }
    }
}

#[test]
fn without_what_the_key_exchange_needs_a_connection_is_given_up() {
    for session in rsa_sessions() {
        let extended = !session.name.contains("without extended");
        // Flight 2 is the client's certificate, key exchange, CCS and Finished: the last two are these bytes.
        let (_, bytes) = &session.flights[2];
        let ccs = bytes.windows(6).position(|w| w == [CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1]).unwrap();
        type Change<'a> = &'a dyn Fn(&mut Rig, usize, Direction, &[u8]);
        let cases: [(&str, bool, Change<'_>); 5] = [
            ("no key exchange, as in a session that is resumed", false, &|rig, n, dir, bytes| {
                rig.push(dir, if n == 2 { &bytes[ccs..] } else { bytes });
            }),
            ("a hole in it", false, &|rig, n, dir, bytes| match n {
                2 => {
                    rig.push(dir, &bytes[..20]);
                    rig.gap(dir, 10);
                    rig.push(dir, &bytes[30..]);
                }
                _ => rig.push(dir, bytes),
            }),
            ("a hole in the server's certificate", !extended, &|rig, n, dir, bytes| match n {
                1 => {
                    rig.push(dir, &bytes[..200]);
                    rig.gap(dir, 10);
                    rig.push(dir, &bytes[210..]);
                }
                _ => rig.push(dir, bytes),
            }),
            ("more messages than are kept", !extended, &|rig, n, dir, bytes| {
                rig.push(dir, bytes);
                if n == 0 {
                    rig.push(dir.flip(), &plain(HANDSHAKE, &[0, 0, 0, 0]));
                    (0..5).for_each(|_| rig.push(dir, &plain(HANDSHAKE, &message(30, &[0; 15_000]))));
                    assert!(rig.connection.buffered() <= 2 * TRANSCRIPT_BYTES_MAX);
                }
            }),
            ("the encrypted one does not fit its length", false, &|rig, n, dir, bytes| {
                let mut bytes = bytes.to_vec();
                if n == 2 {
                    let exchange = bytes.windows(4).position(|w| w == [16, 0, 1, 2]).unwrap();
                    bytes[exchange + 4] = 9;
                }
                rig.push(dir, &bytes);
            }),
        ];
        for (name, opens, change) in cases {
            let mut rig = Rig::new(&session.keys);
            for (n, (dir, bytes)) in session.flights.iter().enumerate() {
                change(&mut rig, n, *dir, bytes);
            }
            let name = format!("{}: {name}", session.name);
            assert_eq!(rig.status == Status::Going, opens, "{name}");
            assert_eq!(rig.counters.connections_without_secrets_total, u64::from(!opens), "{name}");
            assert_eq!((rig.connection.buffered(), rig.connection.secrets.is_some()), (0, false), "{name}");
            rig.finish();
        }
    }
}

#[test]
fn premaster_secrets_may_come_late() {
    for session in rsa_sessions() {
        let (mut parser, mut lines) = (KeyLogParser::default(), Vec::new());
        parser.push(format!("{}\n", session.keys).as_bytes(), &mut lines);
        let mut rig = Rig::new("");
        rig.wait = true;
        let mut waits = 0;
        for (dir, bytes) in &session.flights {
            rig.push(*dir, bytes);
            if rig.status == Status::WantsKeys {
                waits += 1;
                let [Some((Name::Client(_), Label::Master)), Some(second)] = rig.connection.wants() else {
                    panic!("{}", session.name);
                };
                assert!(second == lines[0].told());
                rig.keys.add(&lines[0], Timestamp::ZERO);
                rig.run(|c, env, out| c.resume(env, out));
                assert_eq!(rig.status, Status::Going);
            }
        }
        assert_eq!((waits, rig.connection.buffered()), (1, 0));
        let served: Vec<_> = rig.connection.take_served().collect();
        assert!(served.contains(&lines[0].told().0) && served.len() == 2, "both names");
        assert_eq!(rig.finish()[0].bytes, want(ToServer));
    }
}
