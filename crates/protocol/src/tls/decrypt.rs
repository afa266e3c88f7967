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

use std::collections::VecDeque;

use offpath_types::{Direction, Timestamp};

use super::keys::{KeyStore, Label, Random, Secret, Secrets};
use super::record::{APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, HEADER, Header, Opened, Opener};
use super::schedule::{Suite, next_secret, side_keys};

/// Bytes of a direction that wait for the other one. Past it: the connection is given up.
const WAITING_BYTES_MAX: usize = 256 << 10;
/// Bytes of one handshake message that is looked into (hellos, EncryptedExtensions). Past it: it is passed over.
const MESSAGE_BYTES_MAX: usize = 128 << 10;
/// Bytes of records of a handshake, or of refused 0-RTT data, that no key opens. Past it: the direction is given up.
const UNOPENED_BYTES_MAX: u64 = 2 << 20;
/// Bytes that may be tried after a gap; four times what is opened is added again, up to this.
const TRIAL_BYTES_MAX: u64 = 8 << 20;
/// What trying the shortest record costs.
const TRIAL_COST_MIN: usize = 512;
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

/// Which keys a direction is under. TLS 1.2 knows the first and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Plain,
    Early,
    Handshake,
    Traffic,
}

/// Where a direction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A record starts at `Half::at`.
    Aligned,
    /// Looking for the start of a record. The first lost record started at offset `from`; none starts before `skip`.
    Searching { from: u64, skip: u64 },
    /// Given up.
    Lost,
}

/// From which segment bytes came.
#[derive(Clone, Copy)]
struct Mark {
    at: usize,
    acked: Option<u64>,
    seen: Timestamp,
}

/// One direction.
// Invariants: `buf[at..]` starts at stream offset `base + at`; `marks` ascend, the first one covers `buf[at]`;
// `opener` is the one of `phase`, or not made yet.
struct Half {
    buf: Vec<u8>,
    at: usize,
    base: u64,
    marks: Vec<Mark>,
    place: Place,
    phase: Phase,
    opener: Option<Box<Opener>>,
    /// Number of the next record.
    seq: u64,
    /// TLS 1.3: what the next key update starts from.
    secret: Option<Secret>,
    messages: Messages,
    /// Offset of the next byte of plaintext.
    plain: u64,
    /// Ends of records with application data, as (stream offset, plaintext offset).
    ends: VecDeque<(u64, u64)>,
    ends_dropped: bool,
    trial_bytes: u64,
    unopened_bytes: u64,
    /// Bytes of the latest opened record.
    usual: u64,
    seen: Timestamp,
}

impl Default for Half {
    fn default() -> Self {
        Self {
            buf: Vec::new(),
            at: 0,
            base: 0,
            marks: Vec::new(),
            place: Place::Aligned,
            phase: Phase::Plain,
            opener: None,
            seq: 0,
            secret: None,
            messages: Messages::default(),
            plain: 0,
            ends: VecDeque::new(),
            ends_dropped: false,
            trial_bytes: TRIAL_BYTES_MAX,
            unopened_bytes: 0,
            usual: 1400,
            seen: Timestamp::ZERO,
        }
    }
}

impl Half {
    fn waiting(&self) -> &[u8] {
        &self.buf[self.at..]
    }

    /// Stream offset of the next byte to be looked at.
    fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Stream offset after the last byte taken.
    fn received(&self) -> u64 {
        self.base + self.buf.len() as u64
    }

    fn append(&mut self, bytes: &[u8], acked: Option<u64>, seen: Timestamp) {
        let same = self.marks.last().is_some_and(|m| (m.acked, m.seen) == (acked, seen));
        if !same && self.marks.len() < MARKS_MAX {
            self.marks.push(Mark { at: self.buf.len(), acked, seen });
        }
        self.buf.extend_from_slice(bytes);
        self.seen = self.seen.max(seen);
    }

    /// Drops what was looked at.
    fn compact(&mut self) {
        if self.at == self.buf.len() {
            self.base += self.at as u64;
            self.buf.clear();
            self.marks.clear();
            self.at = 0;
        } else if self.at > 0 {
            self.base += self.at as u64;
            self.buf.drain(..self.at);
            let covering = self.marks.iter().rposition(|m| m.at <= self.at).unwrap_or(0);
            self.marks.drain(..covering);
            for mark in &mut self.marks {
                mark.at = mark.at.saturating_sub(self.at);
            }
            self.at = 0;
        }
    }

    /// Drops everything that waits; returns how many bytes that was.
    fn discard(&mut self) -> u64 {
        let dropped = self.waiting().len() as u64;
        self.base += self.buf.len() as u64;
        self.buf = Vec::new();
        self.marks.clear();
        self.at = 0;
        dropped
    }

    /// Translates an offset of this direction that the other side acknowledged.
    fn acked_plain(&self, acked: u64) -> Option<u64> {
        if acked > self.received() {
            // The other side had something that is still to come here, so at least one byte more.
            return Some(self.plain + 1);
        }
        match self.ends.partition_point(|(end, _)| *end <= acked) {
            0 if self.ends_dropped => None,
            0 => Some(0),
            n => self.ends.get(n - 1).map(|(_, plain)| *plain),
        }
    }

    fn note_end(&mut self, end: u64) {
        if self.ends.len() == ENDS_MAX {
            self.ends.pop_front();
            self.ends_dropped = true;
        }
        self.ends.push_back((end, self.plain));
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.opener = None;
        self.secret = None;
        self.seq = 0;
    }
}

/// Puts the handshake messages of one direction together.
#[derive(Default)]
struct Messages {
    buf: Vec<u8>,
    /// Bytes of a message that nobody wants, still to come.
    skip: usize,
    /// Bytes were lost: nothing can be found until keys change.
    broken: bool,
}

pub(super) const CLIENT_HELLO: u8 = 1;
pub(super) const SERVER_HELLO: u8 = 2;
pub(super) const END_OF_EARLY_DATA: u8 = 5;
pub(super) const ENCRYPTED_EXTENSIONS: u8 = 8;
pub(super) const FINISHED: u8 = 20;
pub(super) const KEY_UPDATE: u8 = 24;

impl Messages {
    fn is_empty(&self) -> bool {
        self.buf.is_empty() && self.skip == 0
    }

    /// Takes bytes off `content` and returns the message that they complete; its body is empty where nobody wants it.
    fn next(&mut self, content: &mut &[u8]) -> Option<(u8, Vec<u8>)> {
        loop {
            let skipped = self.skip.min(content.len());
            *content = &content[skipped..];
            self.skip -= skipped;
            if self.broken || content.is_empty() {
                return None;
            }
            let header = 4usize.saturating_sub(self.buf.len()).min(content.len());
            self.buf.extend_from_slice(&content[..header]);
            *content = &content[header..];
            let [kind, a, b, c, ..] = self.buf[..] else { return None };
            let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            let wanted = matches!(kind, CLIENT_HELLO | SERVER_HELLO | ENCRYPTED_EXTENSIONS);
            if !wanted || len > MESSAGE_BYTES_MAX {
                self.buf.clear();
                self.skip = len;
                if wanted {
                    continue;
                }
                let now = len.min(content.len());
                *content = &content[now..];
                self.skip -= now;
                return Some((kind, Vec::new()));
            }
            let more = (4 + len - self.buf.len()).min(content.len());
            self.buf.extend_from_slice(&content[..more]);
            *content = &content[more..];
            if self.buf.len() < 4 + len {
                return None;
            }
            let mut body = std::mem::take(&mut self.buf);
            body.drain(..4);
            return Some((kind, body));
        }
    }
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
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
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
        }
    }

    /// Returns the offset of the next byte of plaintext of `dir`.
    pub(crate) fn plain_offset(&self, dir: Direction) -> u64 {
        self.halves[dir.index()].plain
    }

    /// Bytes that wait for something.
    pub(crate) fn buffered(&self) -> usize {
        self.halves.iter().map(|h| h.buf.len()).sum()
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
                half.messages = Messages { broken: true, ..Messages::default() };
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
    #[cfg(test)]
    pub(crate) fn resume<P: Plain>(&mut self, env: &mut Env<'_>, out: &mut P) -> Status {
        if self.given_up {
            return Status::GivenUp;
        }
        match self.run(env, Direction::ToServer, out) {
            Status::Going => self.run(env, Direction::ToClient, out),
            other => other,
        }
    }

    /// Ends `dir`: what was not read of it is a gap.
    pub(crate) fn end<P: Plain>(&mut self, env: &mut Env<'_>, dir: Direction, out: &mut P) {
        let half = &mut self.halves[dir.index()];
        let start = match half.place {
            Place::Searching { from, .. } => from,
            _ => half.offset(),
        };
        let missing = half.received().saturating_sub(start);
        let lost = half.place == Place::Lost;
        env.counters.bytes_unopened_total += half.discard();
        if self.given_up || (missing == 0 && !lost) || half.phase != Phase::Traffic {
            return;
        }
        let overhead = half.opener.as_ref().map_or(HEADER as u64 + 16, |o| o.overhead());
        let len = missing.saturating_sub(overhead).max(1);
        out.gap(dir, len, half.plain, half.seen);
        half.plain += len;
        half.place = Place::Aligned;
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
    }

    /// Reads records of `dir`, and of the other direction where that unlocks some.
    fn run<P: Plain>(&mut self, env: &mut Env<'_>, dir: Direction, out: &mut P) -> Status {
        let mut due = [false; 2];
        due[dir.index()] = true;
        let mut turn = dir;
        loop {
            if !due[turn.index()] {
                turn = turn.flip();
                if !due[turn.index()] {
                    break;
                }
            }
            due[turn.index()] = false;
            let done = self.process(env, turn, out);
            self.halves[turn.index()].compact();
            match done {
                Ok(true) => {
                    due = [true; 2];
                    turn = turn.flip();
                }
                Ok(false) => {}
                Err(Stop::Keys) => return Status::WantsKeys,
                Err(Stop::GivenUp(why)) => return self.give_up(env, why),
            }
        }
        if self.halves.iter().any(|h| h.buf.len() > WAITING_BYTES_MAX) {
            return self.give_up(env, Why::Malformed);
        }
        Status::Going
    }

    fn give_up(&mut self, env: &mut Env<'_>, why: Why) -> Status {
        self.given_up = true;
        self.secrets = None;
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
            match self.record(env, dir, header, out)? {
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
    fn record<P: Plain>(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        header: Header,
        out: &mut P,
    ) -> Result<Turn, Stop> {
        let half = &self.halves[dir.index()];
        let protected = match self.tls13 {
            Some(true) => header.kind == APPLICATION_DATA,
            Some(false) => half.opener.is_some(),
            None => false,
        };
        if protected {
            return self.protected(env, dir, header, out);
        }
        match header.kind {
            // Of a middlebox's sake (RFC 8446 appendix D.4).
            CHANGE_CIPHER_SPEC if self.tls13 == Some(true) => Ok(Turn::Next),
            CHANGE_CIPHER_SPEC => self.change_cipher(env, dir),
            HANDSHAKE => {
                // A mirror may show the server's hello before the client's.
                if self.handshake.is_none()
                    && half.messages.is_empty()
                    && half.waiting()[HEADER] != CLIENT_HELLO
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
    fn protected<P: Plain>(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        header: Header,
        out: &mut P,
    ) -> Result<Turn, Stop> {
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
            half.unopened_bytes += (HEADER + header.len) as u64;
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
        self.opened(env, dir, header, &opened, out)
    }

    /// Does what the content of an opened record says.
    fn opened<P: Plain>(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        header: Header,
        opened: &Opened,
        out: &mut P,
    ) -> Result<Turn, Stop> {
        let half = &self.halves[dir.index()];
        let fragment = half.at + HEADER;
        let content = fragment + opened.content.start..fragment + opened.content.end;
        match opened.kind {
            APPLICATION_DATA if half.phase == Phase::Early => {
                let len = content.len() as u64;
                if self.early() == Early::Taken {
                    env.counters.early_bytes_total += len;
                    self.deliver(env, dir, header, content, true, out);
                } else {
                    env.counters.early_refused_bytes_total += len;
                }
                Ok(Turn::Next)
            }
            APPLICATION_DATA if half.phase == Phase::Traffic => {
                self.deliver(env, dir, header, content, false, out);
                Ok(Turn::Next)
            }
            HANDSHAKE => self.messages(env, dir, content),
            CHANGE_CIPHER_SPEC if self.tls13 == Some(false) => {
                // This record is open already: there is no coming back to it.
                let wait = std::mem::replace(&mut env.wait, false);
                let turn = self.change_cipher(env, dir);
                env.wait = wait;
                match turn? {
                    Turn::Wait => Err(Stop::GivenUp(Why::Malformed)),
                    turn => {
                        env.counters.rekeyed_total += 1;
                        Ok(turn)
                    }
                }
            }
            _ => Ok(Turn::Next),
        }
    }

    /// Hands on the application data at `content` of the buffer.
    fn deliver<P: Plain>(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        header: Header,
        content: std::ops::Range<usize>,
        early: bool,
        out: &mut P,
    ) {
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

    /// Makes the opener of the phase that `dir` is in, if it can be made.
    fn prepare(&mut self, env: &mut Env<'_>, dir: Direction) -> Result<(), Stop> {
        let half = &self.halves[dir.index()];
        if half.opener.is_some() {
            return Ok(());
        }
        let phase = half.phase;
        let made = self.opener13(env, dir, phase)?;
        let half = &mut self.halves[dir.index()];
        if let Some((opener, secret)) = made {
            half.opener = Some(Box::new(opener));
            half.secret = (phase == Phase::Traffic).then_some(secret);
        }
        if phase == Phase::Traffic {
            if half.opener.is_none() {
                return Err(Stop::GivenUp(Why::NoSecrets));
            }
            self.drop_secrets();
        }
        Ok(())
    }

    /// Secrets that are in use are not kept twice.
    fn drop_secrets(&mut self) {
        if self.halves.iter().all(|h| h.phase == Phase::Traffic && h.opener.is_some()) {
            self.secrets = None;
        }
    }

    /// Makes the opener of a phase of TLS 1.3; `None` where its secret is not known.
    fn opener13(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        phase: Phase,
    ) -> Result<Option<(Opener, Secret)>, Stop> {
        let client = self.client == Some(dir);
        let label = match (phase, client) {
            (Phase::Early, true) => Label::ClientEarly,
            (Phase::Handshake, true) => Label::ClientHandshake,
            (Phase::Handshake, false) => Label::ServerHandshake,
            (Phase::Traffic, true) => Label::ClientTraffic,
            (Phase::Traffic, false) => Label::ServerTraffic,
            _ => return Ok(None),
        };
        let Some(suite) = self.handshake.as_ref().and_then(|h| h.suite) else { return Ok(None) };
        let Some(secret) = self.secret(env, label)? else { return Ok(None) };
        Ok(Opener::tls13(suite, &secret).map(|opener| (opener, secret)))
    }

    /// Looks a secret up.
    fn secret(&mut self, env: &Env<'_>, label: Label) -> Result<Option<Secret>, Stop> {
        let Some(handshake) = &self.handshake else { return Ok(None) };
        let secrets = self.secrets.get_or_insert_default();
        if secrets.get(label).is_none() {
            secrets.merge(&env.keys.get(&handshake.client_random));
        }
        match secrets.get(label) {
            Some(secret) => Ok(Some(secret.clone())),
            // Written before the others, so it will not come alone.
            None if env.wait && label != Label::ClientEarly => Err(Stop::Keys),
            None => Ok(None),
        }
    }

    /// Opens a record of a handshake under the key of its phase, or of a later one: what stands between may be lost,
    /// refused by the server, or its secret not known.
    fn open_early(&mut self, env: &mut Env<'_>, dir: Direction, header: Header) -> Option<Opened> {
        let d = dir.index();
        let half = &mut self.halves[d];
        let span = half.at..half.at + HEADER + header.len;
        let phase = half.phase;
        env.scratch.clear();
        env.scratch.extend_from_slice(&half.buf[span.clone()]);
        if let Some(opened) = open_in_place(half.opener.as_deref(), half.seq, env.scratch) {
            half.buf[span].copy_from_slice(env.scratch);
            return Some(opened);
        }
        for later in [Phase::Handshake, Phase::Traffic] {
            if later <= phase {
                continue;
            }
            let wait = std::mem::replace(&mut env.wait, false);
            let made = self.opener13(env, dir, later);
            env.wait = wait;
            let Ok(Some((opener, secret))) = made else { continue };
            let half = &mut self.halves[d];
            env.scratch.clear();
            env.scratch.extend_from_slice(&half.buf[span.clone()]);
            if let Some(opened) = open_in_place(Some(&opener), 0, env.scratch) {
                half.buf[span].copy_from_slice(env.scratch);
                half.enter(later);
                half.messages = Messages::default();
                half.opener = Some(Box::new(opener));
                half.secret = (later == Phase::Traffic).then_some(secret);
                self.server_told(dir, later);
                self.drop_secrets();
                return Some(opened);
            }
        }
        None
    }

    /// A server that is past its handshake has said all it will say about 0-RTT data.
    fn server_told(&mut self, dir: Direction, phase: Phase) {
        if let Some(handshake) = &mut self.handshake
            && phase == Phase::Traffic
            && self.client == Some(dir.flip())
            && handshake.early == Early::Open
        {
            handshake.early = Early::Refused;
        }
    }

    /// Puts `dir` under the keys that the handshake of TLS 1.2 agreed upon.
    fn change_cipher(&mut self, env: &mut Env<'_>, dir: Direction) -> Result<Turn, Stop> {
        let Some(client) = self.client else { return Ok(Turn::Wait) };
        let agreed = self.handshake.as_ref().and_then(|h| h.suite.zip(h.server_random));
        if self.tls13.is_none() || agreed.is_none() {
            return Ok(Turn::Wait);
        }
        let Some(opener) = self.opener12(env, dir, client)? else {
            return Err(Stop::GivenUp(Why::NoSecrets));
        };
        let half = &mut self.halves[dir.index()];
        half.enter(Phase::Traffic);
        half.opener = Some(Box::new(opener));
        half.messages = Messages::default();
        self.drop_secrets();
        Ok(Turn::Next)
    }

    /// Makes the opener of `dir` for the handshake in progress of TLS 1.2.
    fn opener12(&mut self, env: &Env<'_>, dir: Direction, client: Direction) -> Result<Option<Opener>, Stop> {
        let Some(master) = self.secret(env, Label::Master)? else { return Ok(None) };
        let Some(h) = &self.handshake else { return Ok(None) };
        let (Some(suite), Some(server_random)) = (h.suite, &h.server_random) else { return Ok(None) };
        let keys = side_keys(suite, &master, &h.client_random, server_random, dir == client);
        Ok(Opener::tls12(suite, &keys, h.encrypt_then_mac))
    }

    /// Reads handshake messages in `content` of the buffer.
    fn messages(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        content: std::ops::Range<usize>,
    ) -> Result<Turn, Stop> {
        let half = &mut self.halves[dir.index()];
        // Hellos and tickets: rare and small.
        let bytes = half.buf[content].to_vec();
        let mut rest = &bytes[..];
        let mut turn = Turn::Next;
        while let Some((kind, body)) = self.halves[dir.index()].messages.next(&mut rest) {
            if self.message(env, dir, kind, &body)? {
                turn = Turn::Unlocked;
            }
        }
        Ok(turn)
    }

    /// Does what a handshake message says; true where it may unlock the other direction.
    fn message(&mut self, env: &mut Env<'_>, dir: Direction, kind: u8, body: &[u8]) -> Result<bool, Stop> {
        let malformed = Stop::GivenUp(Why::Malformed);
        match kind {
            CLIENT_HELLO => {
                if self.client.is_some_and(|c| c != dir) {
                    return Err(malformed);
                }
                let Some(hello) = ClientHello::parse(body) else { return Err(malformed) };
                self.client = Some(dir);
                self.retrying = false;
                self.secrets = None;
                let early =
                    if hello.early_data && self.tls13.is_none() { Early::Open } else { Early::NotOffered };
                self.handshake = Some(Handshake {
                    client_random: hello.random,
                    server_random: None,
                    suite: None,
                    encrypt_then_mac: false,
                    early,
                });
                if !env.wait && !env.keys.knows(&hello.random) {
                    return Err(Stop::GivenUp(Why::NoSecrets));
                }
                Ok(true)
            }
            SERVER_HELLO => {
                let Some(client) = self.client.filter(|c| *c != dir) else { return Err(malformed) };
                let Some(hello) = ServerHello::parse(body) else { return Err(malformed) };
                let tls13 = match hello.version {
                    0x0304 => true,
                    0x0303 => false,
                    _ => return Err(Stop::GivenUp(Why::Unsupported)),
                };
                if self.tls13.is_some_and(|before| before != tls13) {
                    return Err(malformed);
                }
                let suite = Suite::of(hello.suite, tls13).filter(|_| hello.compression == 0);
                let Some(suite) = suite else { return Err(Stop::GivenUp(Why::Unsupported)) };
                self.tls13 = Some(tls13);
                let Some(handshake) = &mut self.handshake else { return Err(malformed) };
                if hello.random == RETRY {
                    handshake.early = Early::NotOffered;
                    self.retrying = true;
                    return Ok(true);
                }
                handshake.server_random = Some(hello.random);
                handshake.suite = Some(suite);
                handshake.encrypt_then_mac = hello.encrypt_then_mac;
                if tls13 {
                    let offered = handshake.early != Early::NotOffered;
                    self.halves[dir.index()].enter(Phase::Handshake);
                    let first = if offered { Phase::Early } else { Phase::Handshake };
                    self.halves[client.index()].enter(first);
                } else {
                    handshake.early = Early::NotOffered;
                }
                Ok(true)
            }
            ENCRYPTED_EXTENSIONS if self.tls13 == Some(true) => {
                if let Some(handshake) = &mut self.handshake
                    && handshake.early == Early::Open
                {
                    let taken = extension(Fields(body).vector(2).unwrap_or_default(), EARLY_DATA).is_some();
                    handshake.early = if taken { Early::Taken } else { Early::Refused };
                }
                Ok(true)
            }
            END_OF_EARLY_DATA if self.halves[dir.index()].phase == Phase::Early => {
                self.halves[dir.index()].enter(Phase::Handshake);
                Ok(false)
            }
            FINISHED if self.halves[dir.index()].phase == Phase::Handshake => {
                self.halves[dir.index()].enter(Phase::Traffic);
                self.server_told(dir, Phase::Traffic);
                Ok(true)
            }
            KEY_UPDATE if self.tls13 == Some(true) => {
                let suite = self.handshake.as_ref().and_then(|h| h.suite);
                let half = &mut self.halves[dir.index()];
                let (Some(suite), Some(secret)) = (suite, &half.secret) else { return Ok(false) };
                let next = next_secret(suite.hash, secret);
                half.opener = Opener::tls13(suite, &next).map(Box::new);
                half.secret = Some(next);
                half.seq = 0;
                env.counters.rekeyed_total += 1;
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn lose(&mut self, env: &mut Env<'_>, dir: Direction) {
        let half = &mut self.halves[dir.index()];
        half.place = Place::Lost;
        half.opener = None;
        half.secret = None;
        env.counters.directions_lost_total += 1;
        env.counters.bytes_unopened_total += half.discard();
        self.server_told(dir, Phase::Traffic);
    }

    /// Looks for the start of a record that can be opened; `None` where more bytes are needed, else whether the record
    /// that was found unlocks the other direction.
    fn search<P: Plain>(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        from: u64,
        skip: u64,
        out: &mut P,
    ) -> Result<Option<bool>, Stop> {
        loop {
            let tls13 = self.tls13;
            let half = &mut self.halves[dir.index()];
            let pass = |half: &mut Half, env: &mut Env<'_>, count: usize| {
                half.at += count;
                env.counters.bytes_unopened_total += count as u64;
            };
            if half.offset() < skip {
                let count = (skip - half.offset()).min(half.waiting().len() as u64);
                pass(half, env, count as usize);
                if half.waiting().is_empty() {
                    return Ok(None);
                }
            }
            let Some(tls13) = tls13 else {
                // Nothing can be tried before the server's hello.
                return Ok(None);
            };
            let skipped = candidate(half.waiting(), tls13);
            pass(half, env, skipped);
            let waiting = half.waiting();
            if waiting.len() < HEADER {
                return Ok(None);
            }
            let Some(header) = Header::parse(waiting) else {
                pass(half, env, 1);
                continue;
            };
            if waiting.len() < HEADER + header.len {
                return Ok(None);
            }
            // Keys change in plain sight the first time.
            if !tls13 && half.opener.is_none() && waiting[..6] == [CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1] {
                half.place = Place::Aligned;
                return Ok(Some(false));
            }
            let lost = half.offset() - from;
            match self.try_numbers(env, dir, header, lost)? {
                None if self.halves[dir.index()].trial_bytes == 0 => {
                    self.lose(env, dir);
                    return Ok(None);
                }
                None => pass(&mut self.halves[dir.index()], env, 1),
                Some((opened, missing)) => {
                    env.counters.resyncs_total += 1;
                    env.counters.records_opened_total += 1;
                    let half = &mut self.halves[dir.index()];
                    half.place = Place::Aligned;
                    half.usual = (HEADER + header.len) as u64;
                    // A lost record may have held the first part of a message.
                    half.messages = Messages { broken: half.phase != Phase::Traffic, ..Messages::default() };
                    if missing > 0 {
                        let seen = half.marks.first().map_or(half.seen, |m| m.seen);
                        out.gap(dir, missing, half.plain, seen);
                        half.plain += missing;
                    }
                    let turn = self.opened(env, dir, header, &opened, out)?;
                    self.took(env, dir, header);
                    return Ok(Some(matches!(turn, Turn::Unlocked)));
                }
            }
        }
    }

    /// Tries to open the record at the start of what waits, `lost` bytes after the first lost record began: under the
    /// key in use with later numbers, then under the keys that a lost message would have brought.
    ///
    /// Returns what it held and how many bytes of application data are missing before it.
    fn try_numbers(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        header: Header,
        lost: u64,
    ) -> Result<Option<(Opened, u64)>, Stop> {
        let tls13 = self.tls13 == Some(true);
        if tls13 && self.halves[dir.index()].phase != Phase::Plain {
            self.prepare(env, dir)?;
        }
        let d = dir.index();
        let most = (lost / (HEADER as u64 + 17) + 1).min(TRIAL_RECORDS_MAX);
        if self.halves[d].opener.is_some() {
            let half = &mut self.halves[d];
            // Part of at least one record was lost.
            let guess = (lost / half.usual.max(1)).clamp(1, most);
            for k in spiral(guess, most) {
                let seq = half.seq + k;
                let opener = half.opener.take();
                let opened = half.try_open(env, opener.as_deref(), seq, header);
                half.opener = opener;
                if let Some(opened) = opened {
                    let each = half.opener.as_ref().map_or(0, |o| o.overhead());
                    half.seq = seq + 1;
                    let missing = lost.saturating_sub(k * each);
                    let app = half.phase == Phase::Traffic;
                    return Ok(Some((opened, if app { missing } else { 0 })));
                }
                if half.trial_bytes == 0 {
                    return Ok(None);
                }
            }
        }
        let phase = self.halves[d].phase;
        let mut next = Vec::new();
        if !tls13 {
            // The keys of a renegotiation, or the first ones.
            if let (Some(client), true) =
                (self.client, self.handshake.as_ref().is_some_and(|h| h.suite.is_some()))
            {
                let fresh = self.halves[d].opener.is_none();
                if fresh && let Some(opener) = self.opener12(env, dir, client)? {
                    next.push((Phase::Traffic, opener, None));
                }
            }
        } else if phase == Phase::Traffic {
            let half = &self.halves[d];
            let suite = self.handshake.as_ref().and_then(|h| h.suite);
            if let (Some(suite), Some(secret)) = (suite, &half.secret) {
                let secret = next_secret(suite.hash, secret);
                next.extend(Opener::tls13(suite, &secret).map(|o| (phase, o, Some(secret))));
            }
        } else {
            for later in [Phase::Handshake, Phase::Traffic] {
                if later > phase || self.halves[d].opener.is_none() && later == phase {
                    let wait = std::mem::replace(&mut env.wait, false);
                    let made = self.opener13(env, dir, later);
                    env.wait = wait;
                    if let Ok(Some((opener, secret))) = made {
                        next.push((later, opener, (later == Phase::Traffic).then_some(secret)));
                    }
                }
            }
        }
        let half = &mut self.halves[d];
        for (later, opener, secret) in next {
            for seq in 0..most.min(TRIAL_NEXT_KEY_MAX) {
                if let Some(opened) = half.try_open(env, Some(&opener), seq, header) {
                    let same = half.phase == later && half.opener.is_some();
                    half.enter(later);
                    half.opener = Some(Box::new(opener));
                    half.secret = secret;
                    half.seq = seq + 1;
                    let missing =
                        if seq > 0 || same { lost.saturating_sub(seq * (HEADER as u64 + 17)) } else { 0 };
                    self.server_told(dir, later);
                    self.drop_secrets();
                    return Ok(Some((opened, if later == Phase::Traffic { missing } else { 0 })));
                }
                if half.trial_bytes == 0 {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }
}

impl Half {
    /// Tries to open the record at the start of what waits; it is overwritten only if that succeeds.
    fn try_open(
        &mut self,
        env: &mut Env<'_>,
        opener: Option<&Opener>,
        seq: u64,
        header: Header,
    ) -> Option<Opened> {
        let span = self.at..self.at + HEADER + header.len;
        self.trial_bytes = self.trial_bytes.saturating_sub(span.len().max(TRIAL_COST_MIN) as u64);
        env.scratch.clear();
        env.scratch.extend_from_slice(&self.buf[span.clone()]);
        let opened = open_in_place(opener, seq, env.scratch)?;
        self.buf[span].copy_from_slice(env.scratch);
        Some(opened)
    }
}

/// Opens `record`, header included.
fn open_in_place(opener: Option<&Opener>, seq: u64, record: &mut [u8]) -> Option<Opened> {
    let (header, fragment) = record.split_first_chunk_mut::<HEADER>()?;
    opener?.open(seq, header, fragment)
}

/// Returns how many bytes lie before the first that can be the start of a protected record.
fn candidate(bytes: &[u8], tls13: bool) -> usize {
    let mut at = 0;
    while let Some(found) = memchr::memchr(3, &bytes[at..]) {
        let version = at + found;
        if version > 0 {
            let kind = bytes[version - 1];
            let kinds = if tls13 {
                APPLICATION_DATA..=APPLICATION_DATA
            } else {
                CHANGE_CIPHER_SPEC..=APPLICATION_DATA
            };
            if kinds.contains(&kind) && bytes.get(version + 1).is_none_or(|minor| *minor == 3) {
                return version - 1;
            }
        }
        at = version + 1;
    }
    // The last byte may be a type.
    bytes.len().saturating_sub(1)
}

/// Yields 1 to `most`, those near `guess` first.
fn spiral(guess: u64, most: u64) -> impl Iterator<Item = u64> {
    let far = guess.max(most);
    std::iter::once(guess)
        .chain(
            (1..=far).flat_map(move |n| [guess.checked_add(n), guess.checked_sub(n)].into_iter().flatten()),
        )
        .filter(move |k| (1..=most).contains(k))
}

/// Of a ServerHello that is a HelloRetryRequest (RFC 8446 §4.1.3).
pub(super) const RETRY: Random = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
const ENCRYPT_THEN_MAC: u16 = 22;
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;

/// Takes fields off the start of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, len: usize) -> Option<usize> {
        Some(self.take(len)?.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
    }

    /// Takes a vector whose length stands before it in `len` bytes.
    fn vector(&mut self, len: usize) -> Option<&'a [u8]> {
        let count = self.number(len)?;
        self.take(count)
    }
}

/// Finds an extension in a list of them.
fn extension(list: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut fields = Fields(list);
    loop {
        let kind = fields.number(2)?;
        let data = fields.vector(2)?;
        if kind == usize::from(wanted) {
            return Some(data);
        }
    }
}

struct ClientHello {
    random: Random,
    early_data: bool,
}

impl ClientHello {
    fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        fields.take(2)?;
        let random = fields.take(32)?.try_into().ok()?;
        fields.vector(1)?;
        fields.vector(2)?;
        fields.vector(1)?;
        let list = fields.vector(2).unwrap_or_default();
        Some(Self { random, early_data: extension(list, EARLY_DATA).is_some() })
    }
}

struct ServerHello {
    version: u16,
    random: Random,
    suite: u16,
    compression: u8,
    encrypt_then_mac: bool,
}

impl ServerHello {
    fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let legacy = fields.number(2)? as u16;
        let random = fields.take(32)?.try_into().ok()?;
        fields.vector(1)?;
        let suite = fields.number(2)? as u16;
        let compression = fields.number(1)? as u8;
        let list = fields.vector(2).unwrap_or_default();
        let selected =
            extension(list, SUPPORTED_VERSIONS).and_then(|v| Some(u16::from_be_bytes(v.try_into().ok()?)));
        Some(Self {
            version: selected.unwrap_or(legacy),
            random,
            suite,
            compression,
            encrypt_then_mac: extension(list, ENCRYPT_THEN_MAC).is_some(),
        })
    }
}

#[cfg(test)]
mod tests;
