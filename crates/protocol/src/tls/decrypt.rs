//! One TLS connection, decrypted from outside.
//!
//! In:  the bytes and gaps of both directions in the order of capture, and a [`KeyStore`]. Out: application data and
//! gaps, to a [`Plain`].
//! Keeps at most one record per direction; where a direction must wait for the other one (a mirror swapped them, or
//! 0-RTT data whose fate the server has not told yet), at most [`WAITING_BYTES_MAX`].
//!
//! ```text
//! ciphertext  ──[ record s ][ record s+1 ]░░░ gap ░░░░[ record s+k ]──     found by a plausible header, and proved by
//! plaintext   ──[  data   ][    data    ]░░ estimate ░[   data    ]──     opening with sequence number s+2 … s+k
//! ```
//! Every byte of plaintext keeps the time and the acknowledgement of the segment that carried it, and acknowledged
//! offsets are those of plaintext: what the peer had of a record that it had not whole is nothing.
//! After a gap, record numbers are tried around the most probable one under a budget of bytes. With an AEAD suite
//! the length of what is lost in plaintext is exact if all of it was application data without padding; in CBC suites
//! it is an estimate, so what is inside must not trust it blindly: it is a gap, and gaps are looked at again.
//! Read RFC 8446 §4 to §5 and appendix D.4, RFC 5246 §6 to §7 before changing this file.

mod exchange;
mod half;
mod keying;
mod messages;
mod search;

use offpath_types::{Direction, Timestamp};

use self::exchange::Exchange;
use self::half::{Half, Phase, Place};
use self::messages::Messages;
pub(super) use self::messages::{
    CLIENT_HELLO, ENCRYPTED_EXTENSIONS, END_OF_EARLY_DATA, FINISHED, KEY_UPDATE, RETRY, SERVER_HELLO,
};
use super::keys::{KeyStore, Label, Name, Random, Secrets, Want};
use super::record::{APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, HEADER, Header, Opened, Opener};
use super::schedule::Suite;

/// Bytes of a direction that wait for the other one. Past it: the connection is given up.
const WAITING_BYTES_MAX: usize = 256 << 10;
/// Bytes of one handshake message that is looked into (hellos, EncryptedExtensions, ClientKeyExchange). Past it: it is
/// passed over.
const MESSAGE_BYTES_MAX: usize = 128 << 10;
/// Bytes of handshake messages kept per direction, as long as an extended master secret may be derived from them. Past
/// it: it can not.
const TRANSCRIPT_BYTES_MAX: usize = 64 << 10;
/// Bytes of records of a handshake, or of refused 0-RTT data, that no key opens; the shortest count as
/// [`TRIAL_COST_MIN`]. Past it: the direction is given up.
const UNOPENED_BYTES_MAX: u64 = 2 << 20;
/// Bytes that may be tried after a gap; four times what is opened is added again, up to this.
const TRIAL_BYTES_MAX: u64 = 8 << 20;
/// What trying the shortest record costs.
const TRIAL_COST_MIN: usize = 512;
/// What making the keys of another phase costs while a place is looked for.
const TRIAL_KEYS_COST: u64 = 8 << 10;
/// Record numbers tried after a gap, in each direction from the most probable one.
const TRIAL_RECORDS_MAX: u64 = 1 << 16;
/// Numbers tried under a key that a lost message would have brought.
const TRIAL_NEXT_KEY_MAX: u64 = 64;
/// Ends of records kept per direction, to translate acknowledgements.
const ENDS_MAX: usize = 256;
/// Pieces of a record whose time and acknowledgement are kept; later pieces share the last.
const MARKS_MAX: usize = 64;

offpath_types::counters! {
    /// What became of TLS connections of which secrets were known, or might have been.
    ///
    /// `bytes_in_total` = `bytes_opened_total` + `bytes_unopened_total` once all connections are closed.
    pub struct DecryptCounters {
        /// Connections whose application data was opened.
        connections_opened_total,
        /// Connections given up since no secret was known of them, nor came in time.
        connections_without_secrets_total,
        /// Connections given up for their version, cipher suite or compression.
        connections_unsupported_total,
        /// Connections given up since their handshake was not seen, or is none.
        connections_malformed_total,
        /// Connections that ended before it was clear whether they can be opened.
        connections_unfinished_total,
        /// Bytes of records taken.
        bytes_in_total,
        /// Bytes of records that were read: plain ones, and those that a key opened.
        bytes_opened_total,
        /// Bytes that were not.
        bytes_unopened_total,
        /// Bytes of application data handed on.
        bytes_plain_total,
        /// Records opened with a key.
        records_opened_total,
        /// Records that no key opened.
        records_failed_total,
        /// Times that the place in the records was found again after a gap.
        resyncs_total,
        /// Directions of which nothing more was read, since the place was lost for good.
        directions_lost_total,
        /// Key updates (TLS 1.3) and renegotiations (TLS 1.2) followed.
        rekeyed_total,
        /// Times that a connection had to wait for a secret (live key logs only).
        waits_total,
        /// … and went on, since the secret came.
        waits_served_total,
        /// … and was given up, since it did not come in time.
        waits_expired_total,
        /// … and was given up, since it had more to hold than one connection may.
        waits_connection_full_total,
        /// … and was given up, since it had waited longest when all together held more than they may.
        waits_full_total,
        /// … and was given up at the end of the capture.
        waits_ended_total,
        /// Connections that wait now.
        waits_held,
        /// Connections of which a live key log told secrets; each worker counts all of them, and premaster secrets apart.
        known_total,
        /// Connections whose secrets were wiped, since the connection needed them no more or had ended.
        known_used_total,
        /// Connections whose secrets were wiped, since none needed them in time.
        known_expired_total,
        /// Connections whose secrets were wiped to make room for later ones.
        known_evicted_total,
        /// Connections whose secrets are kept now.
        known_held,
        /// Bytes of 0-RTT data that the server took.
        early_bytes_total,
        /// Bytes of 0-RTT data that the server refused, or of which it is not known; the client sends them again.
        early_refused_bytes_total,
    }
}

/// Where plaintext goes.
pub(crate) trait Plain {
    /// Takes the next bytes of `dir`, at least one. `early`: they came as 0-RTT data, which may have been replayed.
    fn data(&mut self, dir: Direction, bytes: &[u8], place: PlainPlace, early: bool);
    /// Notes that about `len` bytes of `dir` are missing, at least 1.
    fn gap(&mut self, dir: Direction, len: u64, offset: u64, seen: Timestamp);
}

/// Where in a direction, and when, bytes were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlainPlace {
    /// Offset in the plaintext of the direction.
    pub(crate) offset: u64,
    /// Offset in the plaintext of the other direction that the sender had received.
    pub(crate) peer_acked: Option<u64>,
    /// When the segment that carried the bytes was seen.
    pub(crate) seen: Timestamp,
}

/// What a connection needs from outside.
pub(crate) struct Env<'a> {
    pub(crate) keys: &'a KeyStore,
    pub(crate) counters: &'a mut DecryptCounters,
    /// For records that are tried.
    pub(crate) scratch: &'a mut Vec<u8>,
    /// A secret that is missing may still come.
    pub(crate) wait: bool,
}

/// How a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Status {
    /// It takes more.
    Going,
    /// It waits for a secret: `resume` comes before anything more is pushed.
    WantsKeys,
    /// It is given up.
    GivenUp,
}

/// Why no record more is taken for now.
enum Stop {
    Keys,
    GivenUp(Why),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    NoSecrets,
    Unsupported,
    Malformed,
}

/// What became of 0-RTT data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Early {
    NotOffered,
    /// The server has not said.
    Open,
    Taken,
    Refused,
}

/// The handshake in progress, or the last one.
struct Handshake {
    client_random: Random,
    server_random: Option<Random>,
    suite: Option<Suite>,
    encrypt_then_mac: bool,
    early: Early,
    exchange: Exchange,
}

/// One TLS connection.
// Invariant: `tls13` and `client` never change once known.
pub(crate) struct Connection {
    halves: [Half; 2],
    /// Which direction the client's bytes go, known with its hello.
    client: Option<Direction>,
    tls13: Option<bool>,
    handshake: Option<Handshake>,
    /// What the store knew of the connection; gone once both directions have their keys.
    secrets: Option<Box<Secrets>>,
    /// The server asked for another hello, which has not come.
    retrying: bool,
    given_up: bool,
    opened: bool,
    /// The secret that it waits for, of the handshake in progress.
    missing: Option<Label>,
    /// The names by which a key log need not know the connection any more.
    served: [Option<Name>; 2],
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

/// A whole record at the start of what waits of a direction.
#[derive(Clone, Copy)]
struct Record {
    dir: Direction,
    header: Header,
}

/// What a record did.
enum Turn {
    /// The next one.
    Next,
    /// The other direction may go on first.
    Unlocked,
    /// It has to wait for the other direction.
    Wait,
}

impl Connection {
    /// Makes a connection of which nothing has been seen.
    pub(crate) fn new() -> Self {
        Self {
            halves: [Half::default(), Half::default()],
            client: None,
            tls13: None,
            handshake: None,
            secrets: None,
            retrying: false,
            given_up: false,
            opened: false,
            missing: None,
            served: [None; 2],
        }
    }

    /// Returns the offset of the next byte of plaintext of `dir`.
    pub(crate) fn plain_offset(&self, dir: Direction) -> u64 {
        self.halves[dir.index()].plain
    }

    /// Bytes held: what waits for something, and unfinished messages.
    pub(crate) fn buffered(&self) -> usize {
        let halves: usize = self.halves.iter().map(|h| h.buf.len() + h.messages.held()).sum();
        halves + self.handshake.as_ref().map_or(0, |h| h.exchange.held())
    }

    /// Takes the next bytes of `dir`, which start at stream offset `offset` and acknowledge `acked`.
    pub(crate) fn push<P: Plain>(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        bytes: &[u8],
        (offset, acked, seen): (u64, Option<u64>, Timestamp),
        out: &mut P,
    ) -> Status {
        env.counters.bytes_in_total += bytes.len() as u64;
        if self.given_up {
            env.counters.bytes_unopened_total += bytes.len() as u64;
            return Status::GivenUp;
        }
        let half = &mut self.halves[dir.index()];
        if half.buf.is_empty() {
            half.base = offset;
        }
        half.append(bytes, acked, seen);
        self.run(env, dir, out)
    }

    /// Notes that `len` bytes of `dir` at `offset` will never come.
    pub(crate) fn gap<P: Plain>(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        len: u64,
        offset: u64,
        seen: Timestamp,
        out: &mut P,
    ) -> Status {
        if self.given_up {
            return Status::GivenUp;
        }
        let half = &mut self.halves[dir.index()];
        half.seen = half.seen.max(seen);
        let (start, after) = (if half.buf.is_empty() { offset } else { half.offset() }, offset + len);
        match half.place {
            Place::Lost => {}
            Place::Searching { from, skip } => half.place = Place::Searching { from, skip: skip.max(after) },
            Place::Aligned => {
                // The end of the record in progress is known where its header was seen.
                let end = match half.waiting() {
                    bytes if bytes.len() >= HEADER => {
                        Header::parse(bytes).map_or(after, |h| start + (HEADER + h.len) as u64)
                    }
                    _ => after,
                };
                half.place = Place::Searching { from: start, skip: end.max(after) };
            }
        }
        env.counters.bytes_unopened_total += half.discard();
        half.base = after;
        if self.handshake.is_none() {
            return self.give_up(env, Why::Malformed);
        }
        self.run(env, dir, out)
    }

    /// Goes on after the store has learned something.
    pub(crate) fn resume<P: Plain>(&mut self, env: &mut Env<'_>, out: &mut P) -> Status {
        if self.given_up {
            return Status::GivenUp;
        }
        match self.run(env, Direction::ToServer, out) {
            Status::Going => self.run(env, Direction::ToClient, out),
            other => other,
        }
    }

    /// Gives the connection up, since what it waits for has not come in time.
    pub(crate) fn abandon(&mut self, env: &mut Env<'_>) {
        let _ = self.give_up(env, Why::NoSecrets);
    }

    /// Returns the names of the connection in a key log, as far as they are known.
    fn names(&self) -> [Option<Name>; 2] {
        let Some(handshake) = &self.handshake else { return [None; 2] };
        [Some(Name::Client(handshake.client_random)), handshake.exchange.name()]
    }

    /// Returns the secrets of which any lets a connection go on that waits.
    pub(crate) fn wants(&self) -> [Option<Want>; 2] {
        let Some(missing) = self.missing else { return [None; 2] };
        let [client, encrypted] = self.names();
        let encrypted = encrypted.filter(|_| missing == Label::Master);
        [client.map(|name| (name, missing)), encrypted.map(|name| (name, Label::Premaster))]
    }

    /// Returns the names of the connection, once, when it needs nothing more of a key log.
    pub(crate) fn take_served(&mut self) -> impl Iterator<Item = Name> + use<> {
        std::mem::take(&mut self.served).into_iter().flatten()
    }

    /// Ends `dir`: what was not read of it is a gap.
    pub(crate) fn end<P: Plain>(&mut self, env: &mut Env<'_>, dir: Direction, out: &mut P) -> Status {
        let half = &mut self.halves[dir.index()];
        let start = match half.place {
            Place::Searching { from, .. } => from,
            _ => half.offset(),
        };
        let missing = half.received().saturating_sub(start);
        let lost = half.place == Place::Lost;
        env.counters.bytes_unopened_total += half.discard();
        if self.given_up {
            return Status::GivenUp;
        }
        if (missing == 0 && !lost) || half.phase != Phase::Traffic {
            return Status::Going;
        }
        let overhead = half.opener.as_ref().map_or(HEADER as u64 + 16, |o| o.overhead());
        let len = missing.saturating_sub(overhead).max(1);
        out.gap(dir, len, half.plain, half.seen);
        half.plain += len;
        half.place = Place::Aligned;
        Status::Going
    }

    /// Closes the books of the connection.
    pub(crate) fn close(&mut self, env: &mut Env<'_>) {
        for half in &mut self.halves {
            env.counters.bytes_unopened_total += half.discard();
        }
        if !self.given_up && !self.opened {
            env.counters.connections_unfinished_total += 1;
        }
        self.given_up = true;
        self.serve();
    }

    /// Reads records of `dir`, and of the other direction where that unlocks some.
    fn run<P: Plain>(&mut self, env: &mut Env<'_>, dir: Direction, out: &mut P) -> Status {
        let done = self.turns(env, dir, out);
        // Once for all of them: each copies what is left.
        self.halves.iter_mut().for_each(Half::compact);
        match done {
            Err(Stop::Keys) => Status::WantsKeys,
            Err(Stop::GivenUp(why)) => self.give_up(env, why),
            Ok(()) if self.halves.iter().any(|h| h.buf.len() > WAITING_BYTES_MAX) => {
                self.give_up(env, Why::Malformed)
            }
            Ok(()) => Status::Going,
        }
    }

    /// Lets the directions read by turns for as long as one unlocks the other.
    fn turns<P: Plain>(&mut self, env: &mut Env<'_>, dir: Direction, out: &mut P) -> Result<(), Stop> {
        let mut due = [false; 2];
        due[dir.index()] = true;
        let mut turn = dir;
        loop {
            if !due[turn.index()] {
                turn = turn.flip();
                if !due[turn.index()] {
                    return Ok(());
                }
            }
            due[turn.index()] = false;
            if self.process(env, turn, out)? {
                due = [true; 2];
                turn = turn.flip();
            }
        }
    }

    fn give_up(&mut self, env: &mut Env<'_>, why: Why) -> Status {
        self.given_up = true;
        self.serve();
        for half in &mut self.halves {
            env.counters.bytes_unopened_total += half.discard();
            half.opener = None;
            half.secret = None;
        }
        if !self.opened {
            let c = &mut env.counters;
            *match why {
                Why::NoSecrets => &mut c.connections_without_secrets_total,
                Why::Unsupported => &mut c.connections_unsupported_total,
                Why::Malformed => &mut c.connections_malformed_total,
            } += 1;
        }
        Status::GivenUp
    }

    /// Reads records of `dir` until bytes run out; true where the other direction may go on first.
    fn process<P: Plain>(&mut self, env: &mut Env<'_>, dir: Direction, out: &mut P) -> Result<bool, Stop> {
        loop {
            let half = &mut self.halves[dir.index()];
            match half.place {
                Place::Aligned => {}
                Place::Lost => {
                    env.counters.bytes_unopened_total += half.discard();
                    return Ok(false);
                }
                Place::Searching { from, skip } => match self.search(env, dir, from, skip, out)? {
                    Some(unlocked) if unlocked => return Ok(true),
                    Some(_) => continue,
                    None => return Ok(false),
                },
            }
            let waiting = half.waiting();
            if waiting.len() < HEADER {
                return Ok(false);
            }
            let Some(header) = Header::parse(waiting) else {
                if half.opener.is_none() {
                    return Err(Stop::GivenUp(Why::Malformed));
                }
                let from = half.offset();
                half.place = Place::Searching { from, skip: from + 1 };
                continue;
            };
            if waiting.len() < HEADER + header.len {
                return Ok(false);
            }
            match self.record(env, Record { dir, header }, out)? {
                Turn::Next => self.took(env, dir, header),
                Turn::Unlocked => {
                    self.took(env, dir, header);
                    return Ok(true);
                }
                Turn::Wait => return Ok(false),
            }
        }
    }

    fn took(&mut self, env: &mut Env<'_>, dir: Direction, header: Header) {
        let half = &mut self.halves[dir.index()];
        if half.place == Place::Aligned {
            env.counters.bytes_opened_total += (HEADER + header.len) as u64;
            half.at += HEADER + header.len;
        }
    }

    /// Reads the whole record at the start of what waits.
    fn record<P: Plain>(&mut self, env: &mut Env<'_>, record: Record, out: &mut P) -> Result<Turn, Stop> {
        let Record { dir, header } = record;
        let half = &self.halves[dir.index()];
        let protected = match self.tls13 {
            Some(true) => header.kind == APPLICATION_DATA,
            Some(false) => half.opener.is_some(),
            None => false,
        };
        if protected {
            return self.protected(env, record, out);
        }
        match header.kind {
            // Of a middlebox's sake (RFC 8446 appendix D.4).
            CHANGE_CIPHER_SPEC if self.tls13 == Some(true) => Ok(Turn::Next),
            CHANGE_CIPHER_SPEC => self.change_cipher(env, dir),
            HANDSHAKE => {
                // A mirror may show the server's hello before the client's.
                if self.handshake.is_none()
                    && half.messages.is_empty()
                    && half.waiting()[HEADER..HEADER + header.len].first() != Some(&CLIENT_HELLO)
                {
                    return Ok(Turn::Wait);
                }
                if half.phase > Phase::Early {
                    return Ok(Turn::Next);
                }
                let at = half.at + HEADER;
                self.messages(env, dir, at..at + header.len)
            }
            // 0-RTT data, or a mirror swapped the directions.
            APPLICATION_DATA if self.tls13.is_none() && self.handshake.is_some() => Ok(Turn::Wait),
            APPLICATION_DATA => Err(Stop::GivenUp(Why::Malformed)),
            _ => Ok(Turn::Next),
        }
    }

    /// Opens a protected record, in place.
    fn protected<P: Plain>(&mut self, env: &mut Env<'_>, record: Record, out: &mut P) -> Result<Turn, Stop> {
        let Record { dir, header } = record;
        if self.halves[dir.index()].changing && matches!(self.change_cipher(env, dir)?, Turn::Wait) {
            return Ok(Turn::Wait);
        }
        let phase = self.halves[dir.index()].phase;
        if self.tls13 == Some(true) {
            if phase == Phase::Plain {
                // Between the two hellos of a retry nothing is protected but refused 0-RTT data.
                return Ok(if self.retrying { Turn::Next } else { Turn::Wait });
            }
            if phase == Phase::Early && self.early() == Early::Open && self.server_may_tell() {
                return Ok(Turn::Wait);
            }
            self.prepare(env, dir)?;
        }
        let d = dir.index();
        let taken = self.early() == Early::Taken;
        let opened = if phase == Phase::Traffic {
            let half = &mut self.halves[d];
            let at = half.at;
            let bytes = &mut half.buf[at..at + HEADER + header.len];
            open_in_place(half.opener.as_deref(), half.seq, bytes)
        } else {
            self.open_early(env, dir, header)
        };
        let half = &mut self.halves[d];
        let Some(opened) = opened else {
            env.counters.records_failed_total += 1;
            if phase == Phase::Traffic && half.opener.is_some() {
                let from = half.offset();
                half.place = Place::Searching { from, skip: from + (HEADER + header.len) as u64 };
                half.messages = Messages { broken: true, ..Messages::default() };
                return Ok(Turn::Next);
            }
            half.unopened_bytes += (HEADER + header.len).max(TRIAL_COST_MIN) as u64;
            if phase == Phase::Early && taken {
                let len = header.len.saturating_sub(17).max(1) as u64;
                out.gap(dir, len, half.plain, half.seen);
                half.plain += len;
            }
            if half.unopened_bytes > UNOPENED_BYTES_MAX {
                self.lose(env, dir);
            }
            return Ok(Turn::Next);
        };
        half.seq += 1;
        half.usual = (HEADER + header.len) as u64;
        half.trial_bytes = (half.trial_bytes + 4 * half.usual).min(TRIAL_BYTES_MAX);
        env.counters.records_opened_total += 1;
        self.opened(env, record, &opened, out)
    }

    /// Does what the content of an opened record says.
    fn opened<P: Plain>(
        &mut self,
        env: &mut Env<'_>,
        record: Record,
        opened: &Opened,
        out: &mut P,
    ) -> Result<Turn, Stop> {
        let dir = record.dir;
        let half = &self.halves[dir.index()];
        let fragment = half.at + HEADER;
        let content = fragment + opened.content.start..fragment + opened.content.end;
        match opened.kind {
            APPLICATION_DATA if half.phase == Phase::Early => {
                let len = content.len() as u64;
                if self.early() == Early::Taken {
                    env.counters.early_bytes_total += len;
                    self.deliver(env, record, content, true, out);
                } else {
                    env.counters.early_refused_bytes_total += len;
                }
                Ok(Turn::Next)
            }
            APPLICATION_DATA if half.phase == Phase::Traffic => {
                self.deliver(env, record, content, false, out);
                Ok(Turn::Next)
            }
            HANDSHAKE => self.messages(env, dir, content),
            CHANGE_CIPHER_SPEC if self.tls13 == Some(false) => {
                // This record is open already, and there is no coming back to it: the next one changes keys.
                self.halves[dir.index()].changing = true;
                env.counters.rekeyed_total += 1;
                Ok(Turn::Next)
            }
            _ => Ok(Turn::Next),
        }
    }

    /// Hands on the application data at `content` of the buffer.
    fn deliver<P: Plain>(
        &mut self,
        env: &mut Env<'_>,
        record: Record,
        content: std::ops::Range<usize>,
        early: bool,
        out: &mut P,
    ) {
        let Record { dir, header } = record;
        if content.is_empty() {
            return;
        }
        if !self.opened {
            self.opened = true;
            env.counters.connections_opened_total += 1;
        }
        env.counters.bytes_plain_total += content.len() as u64;
        let [first, second] = &mut self.halves;
        let (half, other) = if dir.index() == 0 { (first, &*second) } else { (second, &*first) };
        let record_end = half.offset() + (HEADER + header.len) as u64;
        let mut from = content.start;
        let mut n = half.marks.iter().rposition(|m| m.at <= from).unwrap_or(0);
        while from < content.end {
            let to = half.marks.get(n + 1).map_or(content.end, |next| next.at.min(content.end));
            let (acked, seen) = half.marks.get(n).map_or((None, half.seen), |m| (m.acked, m.seen));
            let peer_acked = acked.and_then(|acked| other.acked_plain(acked));
            let place = PlainPlace { offset: half.plain, peer_acked, seen };
            if to > from {
                out.data(dir, &half.buf[from..to], place, early);
                half.plain += (to - from) as u64;
            }
            from = to.max(from);
            n += 1;
        }
        half.note_end(record_end);
    }

    fn early(&self) -> Early {
        self.handshake.as_ref().map_or(Early::NotOffered, |h| h.early)
    }

    /// Tells whether the server's EncryptedExtensions may still be read.
    fn server_may_tell(&self) -> bool {
        let Some(client) = self.client else { return false };
        let server = &self.halves[client.flip().index()];
        server.phase < Phase::Traffic && server.place == Place::Aligned
    }

    fn lose(&mut self, env: &mut Env<'_>, dir: Direction) {
        let half = &mut self.halves[dir.index()];
        half.place = Place::Lost;
        half.opener = None;
        half.secret = None;
        env.counters.directions_lost_total += 1;
        env.counters.bytes_unopened_total += half.discard();
        self.server_told(dir, Phase::Traffic);
        self.drop_secrets();
    }
}

/// Opens `record`, header included.
fn open_in_place(opener: Option<&Opener>, seq: u64, record: &mut [u8]) -> Option<Opened> {
    let (header, fragment) = record.split_first_chunk_mut::<HEADER>()?;
    opener?.open(seq, header, fragment)
}

#[cfg(test)]
mod tests;
