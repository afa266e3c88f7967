//! The state of one flow that carries HTTP/2: two directions of frames, and the streams that are open.

use std::collections::{BTreeMap, VecDeque};

use offpath_types::{Anomalies, Anomaly, Direction, Timestamp, Transaction};

use super::find::FrameFinder;
use super::frame::Frame;
use super::hpack::{Decoder, HpackLimits};
use crate::ProtocolLimits;
use crate::facts::{BodyTap, ClientPrint};
use crate::stage::{FlowContext, Kind};
use crate::websocket::WebSocket;

/// Where a direction stands.
pub(super) enum State {
    /// Inside the client's preface.
    Preface,
    /// Before or in a frame header; what there is of it is in `buf`.
    Header,
    /// Inside a frame that is looked at whole; what there is of its payload is in `buf`.
    Payload { frame: Frame },
    /// Inside DATA: `left` bytes of the payload to come, the last `pad` of them padding (`None` until its length
    /// was read).
    Data { stream: u32, left: u32, pad: Option<u32>, end: bool },
    /// Inside a payload that is not looked at.
    Skip { left: u32 },
    /// Looking for a frame; `buf` holds the bytes from offset `from` on.
    Find { finder: Box<FrameFinder>, from: u64, marks: Marks },
    /// Not HTTP/2 after all.
    Dead,
}

/// A header block in progress, or broken off.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) is_promise: bool,
    /// The stream that a PUSH_PROMISE opens.
    pub(super) promised: Option<u32>,
    pub(super) end_stream: bool,
    /// When its first byte was seen.
    pub(super) started: Timestamp,
    pub(super) frames: u32,
    /// Some of it is missing: it cannot be decoded.
    pub(super) broken: bool,
}

/// One direction.
// Invariant: `fragments` is empty unless `block` is open.
pub(super) struct Half {
    pub(super) state: State,
    pub(super) buf: Vec<u8>,
    pub(super) block: Option<Block>,
    /// Header block fragments of `block` so far.
    pub(super) fragments: Vec<u8>,
    pub(super) decoder: Decoder,
    /// When the frame in progress began.
    pub(super) frame_seen: Timestamp,
    /// Offset after the last byte taken.
    pub(super) next: u64,
    /// When the last byte was seen.
    pub(super) seen: Timestamp,
    /// Goes to the next message of this direction.
    pub(super) pending: Anomalies,
    pub(super) touched: bool,
    pub(super) ended: bool,
    /// Frames of this direction were never seen: stream ids prove nothing.
    pub(super) lossy: bool,
    /// Frames to come, behind a place that was found, of which one that is not plausible says that it was wrong.
    pub(super) trial: u8,
    /// Frames that carry nothing.
    pub(super) useless: Bucket,
}

/// One message of a stream.
#[derive(Default)]
pub(super) struct Side {
    /// Its head was seen (of a response: the final one).
    pub(super) head: bool,
    pub(super) done: bool,
    pub(super) whole: bool,
    /// Its head could not be read.
    pub(super) unread: bool,
    /// Frames of its direction were lost while it was open: its end may be among them.
    pub(super) cut: bool,
    pub(super) content_length: Option<u64>,
    pub(super) tap: Option<Box<BodyTap>>,
}

/// A transaction that is not finished.
pub(super) struct Stream {
    pub(super) tx: Transaction,
    /// Bytes of its texts that are on the shard's books.
    pub(super) kept: usize,
    pub(super) request: Side,
    pub(super) response: Side,
    pub(super) is_head: bool,
    pub(super) is_connect: bool,
    pub(super) asks_websocket: bool,
    /// Counts what it carries, once it is a WebSocket connection.
    pub(super) websocket: Option<Box<WebSocket>>,
    /// The client reset it before it was answered.
    pub(super) is_taken_back: bool,
}

/// The HTTP/2 state of one flow.
// Invariant: `streams` holds at most `http2_streams_max`, and each has a head of either direction.
pub(crate) struct Session {
    pub(super) halves: [Half; 2],
    pub(super) streams: BTreeMap<u32, Box<Stream>>,
    /// Wire direction of the requests, once it is known.
    pub(super) requests: Option<Direction>,
    pub(crate) context: FlowContext,
    /// Highest stream that a request was seen on.
    pub(super) highest: u32,
    /// A request came as HTTP/2.
    pub(super) asked: bool,
    /// What the client says of itself before its first request; `None` where its start was not seen.
    pub(super) print: Option<ClientPrint>,
    /// Requests that the client took back before they were answered.
    pub(super) resets: Bucket,
    /// Streams that the client reset and when, oldest first, whose answer may still come. Some may be over.
    pub(super) crossings: VecDeque<(u32, Timestamp)>,
    /// Streams whose request was given up and whose answer may come, ascending.
    pub(super) owed: VecDeque<u32>,
    pub(super) is_http2: bool,
}

/// Streams that are remembered as owed an answer. Past it: the oldest is forgotten, and its answer is stale.
const OWED_MAX: usize = 1024;

/// How the flow was recognised.
pub(crate) enum Start {
    /// The client's preface comes, or the server's SETTINGS. `midstream`: the flow's first bytes may be missing, as where
    /// the client upgraded to HTTP/2. `anywhere`: as in `Late`.
    Preface { requests: Direction, midstream: bool, anywhere: Option<Direction> },
    /// After `101 Switching Protocols`.
    Upgrade { requests: Direction },
    /// In the middle of a connection. `anywhere`: the bytes of this direction begin at no place that tells anything.
    Late { anywhere: Option<Direction> },
}

/// Frames behind a place that was found, or is not certain, which must be plausible.
pub(super) const TRIAL_FRAMES: u8 = 4;

pub(super) fn hpack_limits(limits: &ProtocolLimits) -> HpackLimits {
    HpackLimits { table_bytes_max: limits.http2_table_bytes_max, list_bytes_max: limits.http2_list_bytes_max }
}

impl State {
    /// The search with `finder` begins at offset `from`.
    pub(super) fn find(finder: Box<FrameFinder>, from: u64) -> Self {
        Self::Find { finder, from, marks: Marks::default() }
    }
}

impl Half {
    fn new(state: State, limits: &ProtocolLimits, late: bool, at: u64, pending: Anomalies) -> Self {
        let hpack = hpack_limits(limits);
        Self {
            state,
            buf: Vec::new(),
            block: None,
            fragments: Vec::new(),
            decoder: if late { Decoder::midstream(hpack) } else { Decoder::new(hpack) },
            frame_seen: Timestamp::ZERO,
            next: at,
            seen: Timestamp::ZERO,
            pending,
            touched: false,
            ended: false,
            lossy: late,
            trial: 0,
            useless: Bucket::default(),
        }
    }

    /// Bytes that it took and did not count yet.
    fn uncounted(&self) -> usize {
        self.buf.len() + self.fragments.len()
    }

    /// Drops those; returns how many.
    pub(super) fn drop_uncounted(&mut self) -> usize {
        let count = self.uncounted();
        self.buf = Vec::new();
        self.fragments = Vec::new();
        count
    }
}

impl Session {
    /// Begins; `at`: by wire direction, the offsets of the first bytes to come.
    pub(crate) fn new(
        start: &Start,
        limits: &ProtocolLimits,
        context: FlowContext,
        pending: [Anomalies; 2],
        at: [u64; 2],
    ) -> Self {
        let (requests, late) = match start {
            Start::Preface { requests, .. } | Start::Upgrade { requests } => (Some(*requests), false),
            Start::Late { .. } => (None, true),
        };
        let anywhere = match start {
            Start::Late { anywhere } | Start::Preface { anywhere, .. } => *anywhere,
            Start::Upgrade { .. } => None,
        };
        let half = |dir: Direction| {
            let at = at[dir.index()];
            let state = match requests {
                Some(requests) if requests == dir => State::Preface,
                _ if anywhere == Some(dir) => State::find(FrameFinder::known_anywhere(at), at),
                None => State::find(FrameFinder::known(at), at),
                Some(_) => State::Header,
            };
            let late = matches!(state, State::Find { .. });
            Half::new(state, limits, late, at, pending[dir.index()])
        };
        let mut session = Self {
            halves: [half(Direction::ToServer), half(Direction::ToClient)],
            streams: BTreeMap::new(),
            requests,
            context,
            highest: 0,
            asked: false,
            print: (!late).then(ClientPrint::default),
            resets: Bucket::default(),
            crossings: VecDeque::new(),
            owed: VecDeque::new(),
            is_http2: !matches!(start, Start::Preface { .. }),
        };
        if let Start::Preface { requests, midstream: true, anywhere: None } = start {
            session.halves[requests.flip().index()].trial = TRIAL_FRAMES;
        }
        if let Start::Upgrade { requests } = start {
            // The HTTP2-Settings field of the request may have said any size.
            session.halves[requests.flip().index()].decoder.allow(u32::MAX);
        }
        session
    }

    /// Wire direction of the requests; the flow's guess while nothing is known.
    pub(super) fn request_dir(&self) -> Direction {
        self.requests.unwrap_or(Direction::ToServer)
    }

    /// Bytes in buffers and header tables, and of what is owed.
    pub(super) fn held_bytes(&self) -> usize {
        let halves: usize = self.halves.iter().map(|h| h.uncounted() + h.decoder.held_bytes()).sum();
        halves + self.owed.len() * size_of::<u32>()
    }

    /// The request on stream `id` is given up before its answer came.
    pub(super) fn owe(&mut self, id: u32) {
        let Err(at) = self.owed.binary_search(&id) else { return };
        self.owed.insert(at, id);
        if self.owed.len() > OWED_MAX {
            self.owed.pop_front();
        }
    }

    /// Tells whether the answer on stream `id` is to a request that was given up; once.
    pub(super) fn settle_owed(&mut self, id: u32) -> bool {
        self.owed.binary_search(&id).is_ok_and(|at| self.owed.remove(at).is_some())
    }

    /// Marks the message of `dir` that is in progress, or the next.
    pub(crate) fn mark(&mut self, dir: Direction, anomaly: Anomaly) {
        let half = &self.halves[dir.index()];
        let stream = match (&half.state, &half.block) {
            (State::Data { stream, .. }, _) => Some(*stream),
            (State::Payload { frame }, None) => Some(frame.stream),
            (_, Some(block)) => Some(block.stream),
            _ => None,
        };
        match stream.and_then(|id| self.streams.get_mut(&id)) {
            Some(stream) => stream.tx.anomalies.insert(anomaly),
            None => self.halves[dir.index()].pending.insert(anomaly),
        }
    }

    pub(crate) fn wants(&self, dir: Direction) -> bool {
        !matches!(self.halves[dir.index()].state, State::Dead)
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.halves[0].state {
            _ if self.is_http2 => Kind::Http2,
            State::Dead => Kind::NotHttp,
            _ => Kind::Unknown,
        }
    }
}

/// When the bytes of a buffer were seen: (stream offset, time), ascending.
#[derive(Default)]
pub(super) struct Marks(Vec<(u64, Timestamp)>);

/// Times that are remembered. Past it: later bytes take the last one's.
const MARKS_MAX: usize = 256;

impl Marks {
    /// The bytes from offset `at` on were seen at `seen`.
    pub(super) fn add(&mut self, at: u64, seen: Timestamp) {
        if self.0.len() < MARKS_MAX && self.0.last().is_none_or(|(_, last)| *last != seen) {
            self.0.push((at, seen));
        }
    }

    /// Yields `bytes`, which begin at offset `from`, in pieces with their times.
    pub(super) fn parts<'a>(
        &self,
        bytes: &'a [u8],
        from: u64,
    ) -> impl Iterator<Item = (&'a [u8], Timestamp)> {
        let place =
            move |at: u64| usize::try_from(at.saturating_sub(from)).unwrap_or(usize::MAX).min(bytes.len());
        self.0.iter().enumerate().filter_map(move |(i, (at, seen))| {
            let end = self.0.get(i + 1).map_or(bytes.len(), |(next, _)| place(*next));
            let part = &bytes[place(*at)..end];
            (!part.is_empty()).then_some((part, *seen))
        })
    }
}

/// Counts what is harmless now and then and an attack in masses: it leaks.
#[derive(Default)]
pub(super) struct Bucket {
    /// Millionths.
    level: u64,
    at: Timestamp,
}

impl Bucket {
    /// Adds one; returns whether there are more than `max` now. `leak` of them are forgotten a second.
    pub(super) fn add(&mut self, now: Timestamp, leak: u64, max: u32) -> bool {
        let micros = now.nanos_since(self.at) / 1_000;
        self.at = self.at.max(now);
        self.level = self.level.saturating_sub(micros.saturating_mul(leak)) + 1_000_000;
        self.level > u64::from(max) * 1_000_000
    }
}
