//! The fuzz body of decryption, and a peer that seals records for it and for tests.

use offpath_types::{Direction, Timestamp};
use ring::aead;

use super::decrypt::{
    CLIENT_HELLO, Connection, DecryptCounters, ENCRYPTED_EXTENSIONS, END_OF_EARLY_DATA, Env, FINISHED,
    KEY_UPDATE, Plain, PlainPlace, RETRY, SERVER_HELLO, Status,
};
use super::keys::{KeyLimits, KeyLogParser, KeyStore, Secret};
use super::schedule::{Hash, expand_label, next_secret};

/// One side of a TLS 1.3 session with AES-128-GCM.
pub(super) struct Sealer {
    secret: Secret,
    seq: u64,
}

impl Sealer {
    /// Makes a side whose traffic secret is this byte over and over.
    pub(super) fn new(byte: u8) -> Self {
        Self { secret: Secret::new(&[byte; 32]), seq: 0 }
    }

    /// Returns a record with two zeros of padding; an empty one where sealing fails.
    pub(super) fn seal(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let (mut key, mut iv) = ([0; 16], [0; 12]);
        expand_label(Hash::Sha256, self.secret.bytes(), b"key", &mut key);
        expand_label(Hash::Sha256, self.secret.bytes(), b"iv", &mut iv);
        iv[4..].iter_mut().zip(self.seq.to_be_bytes()).for_each(|(i, s)| *i ^= s);
        self.seq += 1;
        let mut text = [content, &[kind, 0, 0]].concat();
        let len = (text.len() + 16) as u16;
        let header = [23, 3, 3, (len >> 8) as u8, len as u8];
        let Ok(key) = aead::UnboundKey::new(&aead::AES_128_GCM, &key) else { return Vec::new() };
        let nonce = aead::Nonce::assume_unique_for_key(iv);
        let sealed =
            aead::LessSafeKey::new(key).seal_in_place_append_tag(nonce, aead::Aad::from(header), &mut text);
        if sealed.is_ok() { [&header[..], &text].concat() } else { Vec::new() }
    }

    /// Goes over to the next secret.
    pub(super) fn update(&mut self) {
        self.secret = next_secret(Hash::Sha256, &self.secret);
        self.seq = 0;
    }
}

/// Returns a handshake message.
pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0, (body.len() >> 8) as u8, body.len() as u8][..], body].concat()
}

/// Returns a record in plain text.
pub(super) fn plain(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3, (content.len() >> 8) as u8, content.len() as u8][..], content].concat()
}

/// Returns a hello of the client that [`sealed_keys`] knows.
pub(super) fn client_hello(early: bool) -> Vec<u8> {
    let extensions: &[u8] = if early { &[0, 42, 0, 0] } else { &[] };
    let lens = [0, 0, 2, 0x13, 1, 1, 0, 0, extensions.len() as u8];
    let body = [&[3, 3][..], &[7; 32], &lens, extensions].concat();
    plain(22, &message(CLIENT_HELLO, &body))
}

/// Returns the hello that answers it, for TLS 1.3 with AES-128-GCM.
pub(super) fn server_hello(random: [u8; 32]) -> Vec<u8> {
    let body = [&[3, 3][..], &random, &[0, 0x13, 1, 0, 0, 6, 0, 43, 0, 2, 3, 4]].concat();
    plain(22, &message(SERVER_HELLO, &body))
}

/// Returns the key log of the five secrets: bytes 1 (early data) to 5 (the server's traffic) over and over.
pub(super) fn sealed_keys() -> String {
    let random = "07".repeat(32);
    [
        ("CLIENT_EARLY_TRAFFIC_SECRET", "01"),
        ("CLIENT_HANDSHAKE_TRAFFIC_SECRET", "02"),
        ("SERVER_HANDSHAKE_TRAFFIC_SECRET", "03"),
        ("CLIENT_TRAFFIC_SECRET_0", "04"),
        ("SERVER_TRAFFIC_SECRET_0", "05"),
    ]
    .map(|(label, byte)| format!("{label} {random} {}\n", byte.repeat(32)))
    .concat()
}

/// What a fuzz run saw: bytes, and gaps as (offset, length), of both directions.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    bytes: [Vec<u8>; 2],
    gaps: [Vec<(u64, u64)>; 2],
}

impl Plain for Seen {
    fn data(&mut self, dir: Direction, bytes: &[u8], place: PlainPlace, _early: bool) {
        let d = dir.index();
        let missing: u64 = self.gaps[d].iter().map(|(_, len)| len).sum();
        assert_eq!(place.offset, self.bytes[d].len() as u64 + missing);
        self.bytes[d].extend_from_slice(bytes);
    }

    fn gap(&mut self, dir: Direction, len: u64, offset: u64, _seen: Timestamp) {
        assert!(len > 0, "a gap of nothing");
        self.gaps[dir.index()].push((offset, len));
    }
}

/// Fuzz body: a connection of raw and sealed records with gaps. Cutting the bytes changes nothing, the books balance,
/// memory is bounded.
///
/// First byte: where to cut. Then operations: what, a length, that many bytes.
#[doc(hidden)]
pub fn fuzz_tls_records(data: &[u8]) {
    let Some((first, operations)) = data.split_first() else { return };
    let whole = run(operations, usize::MAX);
    let cut = run(operations, usize::from(*first) % 37 + 1);
    assert_eq!(whole, cut);
}

fn run(mut operations: &[u8], piece: usize) -> (Seen, DecryptCounters) {
    let mut keys = KeyStore::new(KeyLimits::default());
    let (mut parser, mut lines) = (KeyLogParser::default(), Vec::new());
    parser.push(sealed_keys().as_bytes(), &mut lines);
    lines.into_iter().for_each(|line| keys.add(&line, Timestamp::ZERO));
    let mut connection = Connection::new();
    let (mut counters, mut scratch) = (DecryptCounters::default(), Vec::new());
    let (mut seen, mut next) = (Seen::default(), [0u64; 2]);
    let mut sealers = [1, 2, 3, 4, 5].map(Sealer::new);
    let mut going = true;
    while let [what, len, rest @ ..] = operations {
        let (bytes, after) = rest.split_at(usize::from(*len).min(rest.len()));
        operations = after;
        let sealer = usize::from(what >> 4) % 5;
        let side = if matches!(sealer, 2 | 4) { Direction::ToClient } else { Direction::ToServer };
        let raw = if what & 0x10 == 0 { Direction::ToServer } else { Direction::ToClient };
        let (dir, record) = match what & 0xf {
            0 => (raw, bytes.to_vec()),
            1 => (Direction::ToServer, client_hello(what & 0x10 != 0)),
            2 => (Direction::ToClient, server_hello(if what & 0x10 != 0 { RETRY } else { [9; 32] })),
            3 => (raw, plain(20, &[1])),
            4 => (side, sealers[sealer].seal(22, &message(FINISHED, &[0; 32]))),
            5 => {
                let taken: &[u8] = if len & 1 == 0 { &[0, 4, 0, 42, 0, 0] } else { &[0, 0] };
                (side, sealers[sealer].seal(22, &message(ENCRYPTED_EXTENSIONS, taken)))
            }
            6 => (side, sealers[sealer].seal(22, &message(END_OF_EARLY_DATA, &[]))),
            7 => {
                let record = sealers[sealer].seal(22, &message(KEY_UPDATE, &[0]));
                sealers[sealer].update();
                (side, record)
            }
            8 => (side, sealers[sealer].seal(22, bytes)),
            9 => {
                // Lost on the way.
                let lost = sealers[sealer].seal(23, bytes).len() as u64;
                gap(&mut connection, &keys, &mut counters, &mut scratch, side, lost, &mut next, &mut seen);
                continue;
            }
            10 => {
                let lost = u64::from(*len) + 1;
                gap(&mut connection, &keys, &mut counters, &mut scratch, raw, lost, &mut next, &mut seen);
                continue;
            }
            _ => (side, sealers[sealer].seal(23, bytes)),
        };
        for bytes in record.chunks(piece) {
            let d = dir.index();
            let mut env = Env { keys: &keys, counters: &mut counters, scratch: &mut scratch, wait: false };
            let place = (next[d], Some(next[1 - d]), Timestamp::ZERO);
            next[d] += bytes.len() as u64;
            let status = connection.push(&mut env, dir, bytes, place, &mut seen);
            assert!(status != Status::WantsKeys, "nothing to wait for");
            going &= status == Status::Going;
            assert!(going || status == Status::GivenUp, "given up for good");
        }
    }
    let mut env = Env { keys: &keys, counters: &mut counters, scratch: &mut scratch, wait: false };
    for dir in [Direction::ToServer, Direction::ToClient] {
        assert!(connection.end(&mut env, dir, &mut seen) != Status::WantsKeys);
    }
    connection.close(&mut env);
    assert_eq!(counters.bytes_in_total, counters.bytes_opened_total + counters.bytes_unopened_total);
    assert_eq!(counters.bytes_plain_total, seen.bytes.iter().map(|b| b.len() as u64).sum::<u64>());
    assert_eq!(connection.buffered(), 0);
    (seen, counters)
}

#[expect(clippy::too_many_arguments, reason = "the state of a fuzz run")]
fn gap(
    connection: &mut Connection,
    keys: &KeyStore,
    counters: &mut DecryptCounters,
    scratch: &mut Vec<u8>,
    dir: Direction,
    len: u64,
    next: &mut [u64; 2],
    seen: &mut Seen,
) {
    let offset = next[dir.index()];
    next[dir.index()] += len;
    let mut env = Env { keys, counters, scratch, wait: false };
    let status = connection.gap(&mut env, dir, len, offset, Timestamp::ZERO, seen);
    assert!(status != Status::WantsKeys);
}
