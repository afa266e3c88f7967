//! The state of one flow: two directions, the transactions that are open, and what pairs them.

use std::collections::VecDeque;

use offpath_types::{Anomalies, Chunk, Direction, Timestamp, Transaction};

use super::framing::{Body, FramingFields};
use super::parse::BlankLine;
use crate::facts::BodyTap;
use crate::http2::{FrameFinder, NEEDED_UNKNOWN};
use crate::stage::{FlowContext, Kind, Leaving};

/// An offset that is not known.
pub(super) const UNKNOWN: u64 = u64::MAX;

/// Where in a stream, and when, a byte was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Offset in its own direction.
    pub(super) offset: u64,
    /// Offset of the other direction that its sender had received; [`UNKNOWN`] where that is not known.
    pub(super) acked: u64,
    /// When its segment was seen.
    pub(super) seen: Timestamp,
}

impl Place {
    /// Returns `bytes`, which came from here, as the chunk they were.
    pub(super) fn chunk(self, bytes: &[u8]) -> Chunk<'_> {
        let peer_acked = (self.acked != UNKNOWN).then_some(self.acked);
        Chunk::Data { bytes, offset: self.offset, peer_acked, seen: self.seen }
    }
}

/// Bytes, and where their pieces came from: (index of the first byte, place), ascending.
pub(super) type Marked = (Vec<u8>, Vec<(usize, Place)>);

/// A message start that is not yet parsed: how far it was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scan {
    /// The first line is there and accepted.
    pub(super) line_done: bool,
    /// It has the shape of HTTP/0.9 and nothing follows it yet.
    pub(super) line_09: bool,
    /// Search for the blank line.
    pub(super) blank: BlankLine,
}

/// Where a direction stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// First bytes of a direction: a PROXY preface or a SOCKS handshake may come.
    Fresh,
    /// Inside a preface, this many bytes before its end.
    Preface { left: u32 },
    /// Between messages.
    Start,
    /// Inside a head; what there is of it is in `buf`.
    Head(Scan),
    /// Inside a head over the limit, which was parsed as far as it was kept.
    HeadRest { blank: BlankLine, then: Body },
    /// Inside a body of known length.
    Fixed { left: u64 },
    /// Inside a chunk-size line.
    ChunkSize { value: u64, line: u32, step: SizeStep },
    /// Inside a chunk.
    ChunkData { left: u64 },
    /// After a chunk's data.
    ChunkEnd { cr: bool },
    /// In the trailers.
    Trailers { blank: BlankLine },
    /// Inside a body that ends with the direction.
    Close,
    /// Looking for a message start; `buf` holds the last bytes.
    Search,
    /// After a CONNECT request: no HTTP follows unless the tunnel is refused.
    /// `junk` once other bytes came. `buf`: what the client sent when it had a reply that is still to be seen.
    Tunnel { junk: bool },
    /// Done with.
    Dead(Death),
}

/// Where in a chunk-size line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SizeStep {
    /// Before the first digit.
    Begin,
    /// In the digits.
    Digits,
    /// After them: white space or an extension.
    Extension,
    /// After a CR.
    Cr,
}

/// Why nothing more is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    NotHttp,
    /// Another layer goes on: see `Session::leaving`.
    Left,
}

/// The part of a head past the limit on its length. Only framing fields are read there: servers read them too.
#[derive(Default)]
pub(super) struct HeadRest {
    /// What the framing fields of the whole head say so far.
    pub(super) framing: FramingFields,
    pub(super) http10: bool,
    /// The line in progress, up to [`REST_LINE_BYTES_MAX`].
    line: Vec<u8>,
}

/// Bytes of a line that are looked at. Past it: what it says is not known.
const REST_LINE_BYTES_MAX: usize = 256;

impl HeadRest {
    /// Takes bytes of the head, up to its end at most.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let room = REST_LINE_BYTES_MAX - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.line_done();
            }
        }
    }

    fn line_done(&mut self) {
        let line = self.line.trim_ascii_end();
        if let Some(colon) = memchr::memchr(b':', line) {
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            let odd = name.ends_with(b" ") || name.ends_with(b"\t");
            self.framing.note(name.trim_ascii_end(), value, odd);
        }
        self.line.clear();
    }
}

/// One direction.
pub(super) struct Half {
    pub(super) state: State,
    /// Bytes of an unfinished head, preface or searched line; empty (and unallocated) otherwise.
    pub(super) buf: Vec<u8>,
    /// Place of the first byte in `buf`, or of the message in progress.
    pub(super) place: Place,
    /// Where the latest pieces of `buf` came from, as (index in `buf`, place), ascending.
    pub(super) marks: Vec<(usize, Place)>,
    /// Offset after the last byte taken.
    pub(super) next: u64,
    /// Looks into the body in progress.
    pub(super) tap: Option<Box<BodyTap>>,
    /// Of a head past its limit: what its framing fields say so far.
    pub(super) rest: Option<Box<HeadRest>>,
    /// Goes to the next message of this direction.
    pub(super) pending: Anomalies,
    /// Bytes searched before the flow was recognised.
    pub(super) searched: u64,
    /// A chunk of any kind has come.
    pub(super) touched: bool,
    /// No more will come.
    pub(super) ended: bool,
    /// Bytes that may have held a message start were lost since the last message start.
    pub(super) lost: bool,
    /// They were not captured, as opposed to not understood.
    pub(super) missing: bool,
}

impl Half {
    fn new(state: State) -> Self {
        Self {
            state,
            buf: Vec::new(),
            place: Place { offset: 0, acked: UNKNOWN, seen: Timestamp::ZERO },
            marks: Vec::new(),
            next: 0,
            tap: None,
            rest: None,
            pending: Anomalies::default(),
            searched: 0,
            touched: false,
            ended: false,
            lost: false,
            missing: false,
        }
    }
}

/// Pieces of which the place is remembered: a status line is recognised within so many bytes, so within so
/// many pieces; a request line of more pieces gets the place of an earlier piece, which never pairs it wrongly.
const MARKS_MAX: usize = 16;

impl Half {
    /// Adds bytes that came at `place` to `buf`.
    pub(super) fn keep(&mut self, bytes: &[u8], place: Place) {
        let same = self.marks.last().is_some_and(|(_, p)| (p.acked, p.seen) == (place.acked, place.seen));
        if !same && !bytes.is_empty() {
            if self.marks.len() == MARKS_MAX {
                self.marks.remove(1);
            }
            self.marks.push((self.buf.len(), place));
        }
        self.buf.extend_from_slice(bytes);
    }

    /// Returns where byte `at` of `buf` came from.
    pub(super) fn place_of(&self, at: usize) -> Place {
        match self.marks.iter().rev().find(|(from, _)| *from <= at) {
            Some((from, place)) => Place { offset: place.offset + (at - from) as u64, ..*place },
            None => self.place,
        }
    }

    /// Drops the first `count` bytes of `buf`.
    pub(super) fn forget(&mut self, count: usize) {
        if count >= self.buf.len() {
            self.buf.clear();
            self.marks.clear();
            return;
        }
        let first = self.place_of(count);
        self.buf.drain(..count);
        self.marks.retain(|(from, _)| *from > count);
        self.marks.iter_mut().for_each(|(from, _)| *from -= count);
        self.marks.insert(0, (0, first));
    }

    /// Takes the bytes of `buf` out.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.marks = Vec::new();
        std::mem::take(&mut self.buf)
    }

    /// Takes the first `count` bytes of `buf` out with their marks, forgets the rest.
    pub(super) fn take_marked(&mut self, count: usize) -> Marked {
        let mut buf = std::mem::take(&mut self.buf);
        buf.truncate(count);
        (buf, std::mem::take(&mut self.marks))
    }
}

/// A transaction that is not finished.
pub(super) struct Open {
    pub(super) tx: Transaction,
    /// Bytes of its texts that are on the shard's books.
    pub(super) kept: usize,
    /// Offset of the request's first byte.
    pub(super) start: u64,
    /// Offset after its head.
    pub(super) head_end: u64,
    /// Offset after its last byte; [`UNKNOWN`] until then.
    pub(super) end: u64,
    /// How much of the response stream the client had when it sent the request.
    pub(super) acked: u64,
    /// How much of the request stream the server had when it began a final response before the request's end.
    pub(super) early_at: u64,
    /// How much of the request stream the server had when it began a final response.
    pub(super) answered_at: u64,
    /// A final response began.
    pub(super) responded: bool,
    pub(super) request_done: bool,
    pub(super) request_whole: bool,
    pub(super) response_done: bool,
    pub(super) response_whole: bool,
    pub(super) is_head: bool,
    pub(super) is_connect: bool,
    /// A request that nobody saw may lie directly before this one.
    pub(super) after_loss: bool,
    /// Bytes that were not captured lie directly before it.
    pub(super) after_missing: bool,
}

/// The latest response, of which the end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Offset after its last byte; [`UNKNOWN`] where the place in the stream was lost.
    pub(super) end: u64,
    /// Where its request ended, at the latest; [`UNKNOWN`] where nothing tells.
    pub(super) request_end: u64,
}

impl Answer {
    pub(super) const NONE: Self = Self { end: UNKNOWN, request_end: UNKNOWN };
}

/// Whose response is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// None is.
    Nobody,
    /// The oldest open request's.
    Front,
    /// That of a request nobody saw: `Session::orphan`.
    Orphan,
    /// An event stream, whose transaction was handed on.
    Streamed,
}

/// Something of the response direction that waits for its request.
pub(super) enum HeldItem {
    Data { len: usize, place: Place },
    Gap { len: u64 },
}

/// Response bytes that came before their request.
#[derive(Default)]
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    pub(super) items: Vec<HeldItem>,
    /// It begins with a 101 to a request that has not ended.
    pub(super) switches: bool,
}

/// The HTTP state of one flow. An idle keep-alive flow costs this struct and a queue of a few pointers.
// Invariants: `halves` is indexed by wire direction. `open` is in request order; only its last may have
// `request_done == false`; `owner == Front` means `open` is not empty. While `certain`, the next response
// belongs to the first of `open` after `owed` responses that belong to nobody.
pub(crate) struct Session {
    pub(super) halves: [Half; 2],
    pub(super) open: VecDeque<Box<Open>>,
    pub(super) orphan: Option<Box<Open>>,
    pub(super) held: Option<Box<Held>>,
    pub(crate) context: FlowContext,
    /// Frames of HTTP/2 are looked for while nothing is recognised on a flow joined late.
    pub(super) finders: Option<Box<[Option<FrameFinder>; 2]>>,
    /// Set once another layer goes on.
    pub(crate) leaving: Option<Box<Leaving>>,
    pub(super) owner: Owner,
    pub(super) kind: Kind,
    /// `None` until content has told who is the client; then whether the flow's guess was wrong.
    pub(super) swapped: Option<bool>,
    /// Request and response order are known to match.
    pub(super) certain: bool,
    /// A request was sent before the response to the one before it had arrived.
    pub(super) pipelined: bool,
    /// Offsets would have paired wrongly here: the client keeps several requests on the way at all times.
    pub(super) windowed: bool,
    /// Held responses are let go.
    pub(super) release: bool,
    /// The client began with a SOCKS handshake.
    pub(super) socks: bool,
    /// Waiting for requests was in vain and none has come since.
    pub(super) requests_silent: bool,
    /// Responses to come whose requests were given up.
    pub(super) owed: u32,
    /// `acked` of the request before.
    pub(super) request_acked: u64,
    /// Where the latest response started that came before anything of the requests' direction.
    pub(super) unasked: u64,
    /// The response before the one to come.
    pub(super) answer: Answer,
    /// PROXY prefaces that were taken off.
    pub(super) prefaces: u8,
    /// Who wrote the next preface is not believed.
    pub(super) preface_doubted: bool,
}

impl Session {
    pub(crate) fn new(midstream: bool) -> Self {
        let first = if midstream { State::Search } else { State::Fresh };
        Self {
            halves: [Half::new(first), Half::new(first)],
            open: VecDeque::new(),
            orphan: None,
            held: None,
            context: FlowContext::default(),
            finders: None,
            leaving: None,
            owner: Owner::Nobody,
            kind: Kind::Unknown,
            swapped: None,
            certain: true,
            pipelined: false,
            windowed: false,
            release: false,
            socks: false,
            requests_silent: false,
            owed: 0,
            request_acked: UNKNOWN,
            unasked: UNKNOWN,
            answer: if midstream { Answer::NONE } else { Answer { end: 0, request_end: 0 } },
            prefaces: 0,
            preface_doubted: false,
        }
    }

    /// Makes the state of what begins inside another layer; `at`: offsets of the first bytes to come.
    pub(crate) fn inside(context: FlowContext, at: [u64; 2]) -> Self {
        let mut session = Self::new(false);
        for (half, at) in session.halves.iter_mut().zip(at) {
            half.state = State::Start;
            half.next = at;
        }
        session.answer = Answer::NONE;
        session.context = context;
        session
    }

    /// The same, where the flow was joined in the middle and nothing is known yet.
    pub(crate) fn searching(context: FlowContext, at: [u64; 2]) -> Self {
        let mut session = Self::inside(context, at);
        for half in &mut session.halves {
            half.state = State::Search;
            half.lost = true;
        }
        session
    }

    /// Wire direction of the requests; the flow's guess while nothing is known.
    pub(super) fn request_dir(&self) -> Direction {
        if self.swapped == Some(true) { Direction::ToClient } else { Direction::ToServer }
    }

    /// Looks for HTTP/2 in `bytes`, which begin at offset `from`; returns where it begins, and from where bytes must be
    /// kept. `last`: no more come.
    pub(super) fn find_frames(
        &mut self,
        dir: Direction,
        bytes: &[u8],
        from: u64,
        last: bool,
    ) -> (Option<usize>, usize) {
        let finders = self.finders.get_or_insert_default();
        let new = || FrameFinder::new(from, NEEDED_UNKNOWN);
        let finder = finders[dir.index()].get_or_insert_with(new);
        if finder.keep_from() < from {
            // Bytes that it needs were lost or given up: the search begins anew.
            *finder = new();
        }
        let place = |offset: u64| usize::try_from(offset - from).unwrap_or(usize::MAX).min(bytes.len());
        (finder.find(bytes, from, last).map(place), place(finder.keep_from()))
    }

    /// Bytes in buffers.
    pub(super) fn buffered(&self) -> usize {
        self.halves[0].buf.len() + self.halves[1].buf.len() + self.held.as_ref().map_or(0, |h| h.bytes.len())
    }

    pub(super) fn owner_mut(&mut self) -> Option<&mut Open> {
        match self.owner {
            Owner::Nobody | Owner::Streamed => None,
            Owner::Front => self.open.front_mut().map(|o| &mut **o),
            Owner::Orphan => self.orphan.as_deref_mut(),
        }
    }

    /// The request that is not finished.
    pub(super) fn request_mut(&mut self) -> Option<&mut Open> {
        self.open.back_mut().map(|o| &mut **o).filter(|o| !o.request_done)
    }
}
