//! A flow's protocols, one after the other: which layer reads it, and how one hands over to the next.
//!
//! ```text
//! chunk ─▶ Http::chunk ─▶ enter ─▶ the session's layer ─┬─▶ Transaction
//!                           ▲                           └─▶ leaves ─▶ Http::next_layer
//!                           └── what it took and did not use ◀──────────┘ makes the next
//! ```
//! Every flow begins as HTTP/1, so plain HTTP/1 pays for one comparison and nothing else. A layer leaves by
//! setting its `leaving`, at any byte: from then on it adds what it is given to [`Leaving::rest`], with offsets
//! and times. When the call that it does so in is over, [`Http::next_layer`] looks at [`Leaving::next`] and
//! makes the layer that goes on, and the rest enters that one as chunks like any other. What belongs to the flow
//! and not to a layer (names, the client of a PROXY preface, the number of the next transaction) goes along in
//! the [`FlowContext`].
//!
//! To add a protocol: a variant of [`Layer`] with its arms below; where the one before it is left, a variant of
//! [`Next`], or a row in `undecided::judge` where the first bytes tell it. A layer that decrypts holds a [`Session`] of its
//! own for what is inside ([`Session::within`]) and gives it chunks through [`Http::chunk`], with offsets and
//! acknowledgements of the inner streams: those are counted as bytes that came in, so the layer counts each
//! byte that it took off as skipped or framing, as if it had carried nothing.
//!
//! Counted here: bytes and gaps when they come in (once, however many layers pass them on), transactions when they
//! are handed on ([`Http::emit`]), flows when they end, by the last protocol that was recognised.

mod leftover;
mod undecided;

use std::sync::Arc;

use offpath_types::{
    Anomalies, Anomaly, Chunk, Connection, Direction, FlowInfo, Host, IdentityKey, Timestamp, TlsFacts,
    Transaction,
};

pub(crate) use self::leftover::Leftover;
use self::undecided::Undecided;
use crate::facts::Facts;
use crate::http1::{self, Searcher};
use crate::http2;
use crate::ident::FlowNames;
use crate::kept::{self, Kept};
use crate::tls::{DecryptCounters, Decryption, KeyStore, Tls};
use crate::websocket::WebSocket;
use crate::{AnomalyCounts, ProtocolConfig, ProtocolCounters};

/// Layers that a flow may go through. A tunnel in a tunnel in a tunnel is somebody's trick: past it, bypassed.
const LAYERS_MAX: u8 = 8;

/// The HTTP stage of one worker: configuration, scratch space and counters, shared by its sessions.
///
/// Limits over several flows are those of one shard: see [`Http::select`].
pub struct Http {
    pub(crate) config: ProtocolConfig,
    pub(crate) facts: Facts,
    pub(crate) searcher: Searcher,
    pub(crate) counters: ProtocolCounters,
    /// Scratch space.
    pub(crate) fields: http2::Fields,
    anomalies: AnomalyCounts,
    /// Bytes in the buffers of the shard's sessions.
    pub(crate) held_bytes: usize,
    /// Requests open in the shard's sessions.
    pub(crate) open_requests: usize,
    /// The shard whose flows come now.
    shard: usize,
    /// The other shards' books.
    others: Vec<Books>,
    /// TLS handshakes and ended WebSocket connections that nobody has taken yet.
    pub(crate) connections: Vec<Connection>,
    /// What TLS connections are decrypted with.
    pub(crate) decryption: Decryption,
}

/// What the flows of a shard hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Books {
    /// Bytes in buffers.
    held: usize,
    /// Bytes that open transactions keep.
    kept: usize,
    /// Requests open.
    requests: usize,
}

/// The state of one flow: the layer that reads it now.
pub struct Session {
    layer: Layer,
}

/// Who reads a flow.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every flow is HTTP/1 and stays so: no second allocation"
)]
enum Layer {
    Http1(http1::Session),
    Http2(Box<http2::Session>),
    /// The first bytes may still be another protocol's.
    Undecided(Box<Undecided>),
    WebSocket(Box<WebSocket>),
    Tls(Box<Tls>),
    Opaque(Opaque),
}

/// Nothing more is parsed; bytes are counted.
#[derive(Clone, Copy)]
struct Opaque {
    kind: Kind,
    /// After an upgrade or in a tunnel, rather than of a flow that is not HTTP.
    bypassed: bool,
}

/// What the flow carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Unknown,
    Http1,
    Http2,
    Tls,
    NotHttp,
}

/// What stays with the flow, whoever reads it.
#[derive(Default)]
pub(crate) struct FlowContext {
    names: Option<Box<FlowNames>>,
    /// The client that a believed PROXY preface named.
    pub(crate) proxied: Option<Box<Host>>,
    /// What is known of the TLS connection around this layer, or outside of the proxy that named the client.
    pub(crate) told: Option<Arc<TlsFacts>>,
    /// Transactions emitted.
    pub(crate) emitted: u32,
    /// Layers left behind: 0 on the wire itself.
    pub(crate) depth: u8,
    /// What was recognised on the flow before this layer.
    carried: Kind,
}

/// Which messages of a transaction were seen, whole or in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Request,
    Response,
    Both,
}

impl Seen {
    /// With a request, and a response or none.
    pub(crate) fn of_request(responded: bool) -> Self {
        if responded { Self::Both } else { Self::Request }
    }
}

/// What a layer leaves behind.
pub(crate) struct Leaving {
    /// What goes on.
    pub(crate) next: Next,
    /// Chunks that it took and did not use, from both directions.
    pub(crate) rest: Leftover,
    /// The layer's verdict on the flow.
    pub(crate) kind: Kind,
    /// By wire direction: anomalies for the next message.
    pub(crate) pending: [Anomalies; 2],
    /// By wire direction: offset of the first byte that the layer did not use.
    pub(crate) at: [u64; 2],
    pub(crate) context: FlowContext,
}

/// Why a layer leaves.
#[expect(clippy::large_enum_variant, reason = "short-lived, and always within a box")]
pub(crate) enum Next {
    /// The first bytes, from the start of the flow or of a tunnel, are no HTTP/1: `undecided::judge` decides.
    Unrecognised,
    /// Nor are they anything else that is known.
    Nothing,
    /// TLS begins here.
    Tls,
    /// The HTTP/2 connection preface begins here (RFC 9113 §3.4), sent by this direction's sender. `anywhere`: as below.
    Http2 { requests: Direction, anywhere: Option<Direction> },
    /// Frames of HTTP/2 were found in the middle of a connection. `anywhere`: what is left of this direction begins at
    /// a byte that nothing speaks for.
    Http2Late { anywhere: Option<Direction> },
    /// A proxy answered CONNECT with 2xx: the rest begins anew.
    Tunnel,
    /// A server answered 101.
    Upgraded(Upgraded),
}

/// A transaction that switched protocols, not yet emitted.
pub(crate) struct Upgraded {
    pub(crate) to: Upgrade,
    pub(crate) tx: Transaction,
    /// A request was seen.
    pub(crate) has_request: bool,
    /// Wire direction of the requests.
    pub(crate) requests: Direction,
}

/// What a 101 switches to (its Upgrade field).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// HTTP/2 in the clear (RFC 7540 §3.2).
    H2c,
    /// RFC 6455.
    WebSocket,
    /// Anything else.
    Other,
}

impl Kind {
    /// Returns this kind, or `before` where this one says less.
    fn or(self, before: Self) -> Self {
        match (self, before) {
            (Self::Unknown, _) | (Self::NotHttp, Self::Http1 | Self::Http2 | Self::Tls) => before,
            _ => self,
        }
    }
}

impl FlowContext {
    /// Returns the flow's names.
    pub(crate) fn names(&mut self, flow: &FlowInfo) -> FlowNames {
        **self.names.get_or_insert_with(|| Box::new(FlowNames::new(flow)))
    }

    /// Returns the context of what is inside this TLS connection.
    pub(crate) fn within_tls(&mut self, facts: Arc<TlsFacts>) -> Self {
        Self {
            names: self.names.take(),
            proxied: self.proxied.take(),
            told: Some(facts),
            emitted: self.emitted,
            depth: self.depth + 1,
            carried: Kind::Tls,
        }
    }

    /// Tells whether this is inside something that was recognised: a tunnel, an upgrade.
    pub(crate) fn inside(&self) -> bool {
        self.carried != Kind::Unknown
    }
}

impl Upgrade {
    /// Reads the value of an Upgrade field.
    pub(crate) fn of(value: &[u8]) -> Self {
        match value.trim_ascii() {
            v if v.eq_ignore_ascii_case(b"h2c") => Self::H2c,
            v if v.eq_ignore_ascii_case(b"websocket") => Self::WebSocket,
            _ => Self::Other,
        }
    }
}

impl Session {
    /// Makes the session of what is inside another one.
    pub(crate) fn within(context: FlowContext) -> Self {
        Self { layer: Layer::Http1(http1::Session::inside(context, [0; 2])) }
    }
}

impl Layer {
    /// Returns what the layer leaves behind, if it leaves.
    fn leaving(&mut self) -> Option<Box<Leaving>> {
        match self {
            Self::Http1(http1) => http1.leaving.take(),
            Self::Undecided(undecided) => undecided.leaving.take(),
            Self::Http2(_) | Self::Tls(_) | Self::WebSocket(_) | Self::Opaque(_) => None,
        }
    }
}

impl Http {
    /// Makes the stage; `key` turns identities into hashes.
    pub fn new(config: ProtocolConfig, key: IdentityKey) -> Self {
        let mut facts = Facts::new(config.facts.clone(), key);
        facts.kept = Kept::of(config.limits.held_bytes_max);
        Self {
            facts,
            config,
            searcher: Searcher::new(),
            counters: ProtocolCounters::default(),
            fields: http2::Fields::default(),
            anomalies: AnomalyCounts::default(),
            held_bytes: 0,
            open_requests: 0,
            connections: Vec::new(),
            decryption: Decryption::default(),
            shard: 0,
            others: Vec::new(),
        }
    }

    /// Says whose flows come next: what a shard's flows hold together is bounded for it alone, so that what a bound
    /// does never depends on which shards share a stage. 0 where nothing was said.
    #[inline]
    pub fn select(&mut self, shard: usize) {
        if shard != self.shard {
            self.change_shard(shard);
        }
    }

    /// Opens the state of a new flow.
    pub fn open(&mut self, flow: &FlowInfo) -> Session {
        self.counters.flows_opened_total += 1;
        Session { layer: Layer::Http1(http1::Session::new(flow.midstream)) }
    }

    /// Takes the next chunk of one direction; finished transactions are appended to `out`.
    ///
    /// `dir` is relative to the flow's `client_side`, right or wrong. Chunks of a direction come in stream
    /// order without holes (a hole is a [`Chunk::Gap`]). `now` is the packet time of the call.
    pub fn chunk(
        &mut self,
        s: &mut Session,
        flow: &FlowInfo,
        dir: Direction,
        chunk: Chunk<'_>,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) {
        match chunk {
            Chunk::Data { bytes, .. } => self.counters.bytes_in_total += bytes.len() as u64,
            Chunk::Gap { len, .. } => self.counters.gap_bytes_total += len,
            Chunk::End { .. } => {}
        }
        self.enter(s, flow, dir, chunk, now, out);
    }

    /// Notes that overlapping segments of `dir` disagreed: the message in progress (or the next) is marked.
    pub fn overlap_conflict(&mut self, s: &mut Session, dir: Direction) {
        self.mark(s, dir, Anomaly::OverlapConflict);
    }

    /// Marks the message of `dir` that is in progress, or the next.
    pub(crate) fn mark(&mut self, s: &mut Session, dir: Direction, anomaly: Anomaly) {
        match &mut s.layer {
            Layer::Http1(http1) => http1.mark(dir, anomaly),
            Layer::Http2(http2) => http2.mark(dir, anomaly),
            Layer::Undecided(undecided) => undecided.pending[dir.index()].insert(anomaly),
            Layer::Tls(_) | Layer::WebSocket(_) | Layer::Opaque(_) => {}
        }
    }

    /// Tells whether bytes of `dir` still matter: false once the flow is known not to be HTTP, was upgraded
    /// or became a tunnel of something else. Bytes delivered all the same are counted and passed over.
    pub fn wants(&self, s: &Session, dir: Direction) -> bool {
        match &s.layer {
            Layer::Http1(http1) => http1.wants(dir),
            Layer::Http2(http2) => http2.wants(dir),
            Layer::Undecided(_) => true,
            Layer::WebSocket(websocket) => websocket.wants(dir),
            Layer::Tls(tls) => tls.wants(dir),
            Layer::Opaque(_) => false,
        }
    }

    /// Ends the flow; whatever is open is appended to `out`.
    pub fn close(&mut self, s: Session, flow: &FlowInfo, now: Timestamp, out: &mut Vec<Transaction>) {
        let kind = self.finish(s, flow, now, out);
        let counters = &mut self.counters;
        match kind {
            Kind::Unknown => counters.flows_unrecognised_total += 1,
            Kind::Http1 => counters.flows_http1_total += 1,
            Kind::Http2 => counters.flows_http2_total += 1,
            Kind::Tls => counters.flows_tls_total += 1,
            Kind::NotHttp => counters.flows_not_http_total += 1,
        }
    }

    /// Ends a session that is inside of another, which is the flow's.
    pub(crate) fn close_within(
        &mut self,
        s: Session,
        flow: &FlowInfo,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) {
        self.finish(s, flow, now, out);
    }

    fn finish(
        &mut self,
        mut s: Session,
        flow: &FlowInfo,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) -> Kind {
        let (mut kind, mut carried);
        loop {
            (kind, carried) = match &mut s.layer {
                Layer::Http1(http1) => {
                    http1.close(self, flow, now, out);
                    (http1.kind(), http1.context.carried)
                }
                Layer::Http2(http2) => {
                    http2.close(self, flow, now, out);
                    (http2.kind(), http2.context.carried)
                }
                Layer::Undecided(undecided) => {
                    self.held_bytes -= undecided.rest.len();
                    self.pass(undecided.context.inside(), undecided.rest.len());
                    (Kind::Unknown, undecided.context.carried)
                }
                Layer::WebSocket(websocket) => {
                    self.counters.websockets_ended_total += 1;
                    self.connections.push(Connection::WebSocket(Box::new(websocket.close(now))));
                    (websocket.kind, Kind::Unknown)
                }
                Layer::Tls(tls) => {
                    tls.close(self, flow, now, out);
                    (Kind::Tls, tls.context.carried)
                }
                Layer::Opaque(opaque) => (opaque.kind, Kind::Unknown),
            };
            // What was held until now may have shown another protocol.
            let Some(leaving) = s.layer.leaving() else { break };
            self.change(&mut s, leaving, flow, now, out);
        }
        kind.or(carried)
    }

    /// Says which secrets TLS connections are decrypted with.
    pub fn set_keys(&mut self, keys: KeyStore) {
        self.decryption.keys = keys;
    }

    /// Returns what became of TLS connections and their secrets.
    pub fn decrypt_counters(&self) -> DecryptCounters {
        self.decryption.counters()
    }

    /// TLS handshakes found, and WebSocket connections ended, since they were last taken out; whoever calls
    /// [`Http::chunk`] takes them.
    pub fn connections(&mut self) -> &mut Vec<Connection> {
        &mut self.connections
    }

    /// Returns the counts so far.
    pub fn counters(&self) -> &ProtocolCounters {
        &self.counters
    }

    /// Returns how many transactions had each anomaly.
    pub fn anomaly_counts(&self) -> &AnomalyCounts {
        &self.anomalies
    }

    /// Returns what was found in heads and bodies.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Bytes that open sessions hold in buffers, and their open transactions keep.
    pub fn held_bytes(&self) -> usize {
        let others: usize = self.others.iter().map(|books| books.held + books.kept).sum();
        self.held_bytes + self.facts.kept.bytes() + others
    }

    /// Requests that wait for their response in open sessions.
    pub fn open_requests(&self) -> usize {
        self.open_requests + self.others.iter().map(|books| books.requests).sum::<usize>()
    }
}

impl Http {
    /// The shard whose flows come now.
    pub(crate) fn shard(&self) -> usize {
        self.shard
    }

    fn change_shard(&mut self, shard: usize) {
        let needed = shard.max(self.shard) + 1;
        if self.others.len() < needed {
            self.others.resize(needed, Books::default());
        }
        let kept = &mut self.facts.kept;
        self.others[self.shard] =
            Books { held: self.held_bytes, kept: kept.bytes(), requests: self.open_requests };
        let books = std::mem::take(&mut self.others[shard]);
        kept.set(books.kept);
        (self.held_bytes, self.open_requests) = (books.held, books.requests);
        self.shard = shard;
    }

    /// Tells whether buffers hold more than there is room for.
    #[inline]
    pub(crate) fn holds_too_much(&self) -> bool {
        self.held_bytes + self.facts.kept.claimed() > self.config.limits.held_bytes_max
    }

    /// Tells whether a flow with `open` requests open must give one up for another, for the sake of the shard.
    #[inline]
    pub(crate) fn is_crowded(&self, open: usize) -> bool {
        self.open_requests >= kept::share(self.config.limits.open_transactions_max, open)
            || self.facts.kept.is_full(open)
    }

    /// Counts a request that is given up because too many are open; `open` on its flow.
    pub(crate) fn count_overflow(&mut self, open: usize) {
        self.counters.pipeline_overflow_total += 1;
        self.counters.pipeline_overflow_held_full_total += u64::from(self.facts.kept.is_full(open));
    }

    /// Hands a transaction on: the last step of every layer. `tx.complete` is set already.
    #[inline]
    pub(crate) fn emit(
        &mut self,
        context: &mut FlowContext,
        flow: &FlowInfo,
        now: Timestamp,
        mut tx: Transaction,
        seen: Seen,
        out: &mut Vec<Transaction>,
    ) {
        tx.index = context.emitted;
        tx.emitted = now;
        context.emitted = context.emitted.wrapping_add(1);
        if flow.midstream && (tx.index == 0 || !tx.complete) {
            tx.anomalies.insert(Anomaly::Midstream);
        }
        let counters = &mut self.counters;
        counters.transactions_total += 1;
        match seen {
            Seen::Both if tx.complete => counters.transactions_complete_total += 1,
            Seen::Both => counters.transactions_incomplete_total += 1,
            Seen::Request => {
                tx.anomalies.insert(Anomaly::ResponseMissing);
                counters.transactions_request_only_total += 1;
            }
            Seen::Response => {
                tx.anomalies.insert(Anomaly::RequestMissing);
                counters.transactions_response_only_total += 1;
            }
        }
        self.anomalies.add(tx.anomalies);
        out.push(tx);
    }

    /// Gives a chunk to the layer that reads the flow, and the flow to the next one where that leaves.
    fn enter(
        &mut self,
        s: &mut Session,
        flow: &FlowInfo,
        dir: Direction,
        chunk: Chunk<'_>,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) {
        let leaving = match &mut s.layer {
            Layer::Http1(http1) => {
                http1.chunk(self, flow, dir, chunk, now, out);
                http1.leaving.take()
            }
            Layer::Http2(http2) => {
                http2.chunk(self, flow, dir, chunk, now, out);
                None
            }
            Layer::Undecided(undecided) => {
                self.held_bytes -= undecided.rest.len();
                undecided.chunk(dir, chunk);
                self.held_bytes += undecided.rest.len();
                undecided.leaving.take()
            }
            Layer::Tls(tls) => {
                tls.chunk(self, flow, dir, chunk, now, out);
                None
            }
            Layer::WebSocket(websocket) => {
                websocket.chunk(dir, chunk, &mut self.counters);
                None
            }
            Layer::Opaque(opaque) => {
                let bypassed = opaque.bypassed;
                match chunk {
                    Chunk::Data { bytes, .. } => self.pass(bypassed, bytes.len()),
                    Chunk::Gap { len, .. } => self.counters.gap_bytes_ignored_total += len,
                    Chunk::End { .. } => {}
                }
                None
            }
        };
        if let Some(leaving) = leaving {
            self.change(s, leaving, flow, now, out);
        }
    }

    /// Makes the next layer and gives it what the one before left. Depth: at most [`LAYERS_MAX`].
    #[cold]
    fn change(
        &mut self,
        s: &mut Session,
        leaving: Box<Leaving>,
        flow: &FlowInfo,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) {
        let Leaving { next, rest, kind, pending, at, mut context } = *leaving;
        context.depth += 1;
        context.carried = kind.or(context.carried);
        let at = [Direction::ToServer, Direction::ToClient].map(|d| rest.start(d).unwrap_or(at[d.index()]));
        s.layer = self.next_layer(next, pending, at, context, flow, now, out);
        for (dir, chunk) in rest.chunks() {
            self.enter(s, flow, dir, chunk, now, out);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that a layer may need, in one place")]
    fn next_layer(
        &mut self,
        next: Next,
        pending: [Anomalies; 2],
        at: [u64; 2],
        mut context: FlowContext,
        flow: &FlowInfo,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) -> Layer {
        let carried = context.carried;
        match next {
            Next::Upgraded(upgraded) if upgraded.to == Upgrade::H2c && context.depth < LAYERS_MAX => {
                let start = http2::Start::Upgrade { requests: upgraded.requests };
                let mut session = Box::new(self.http2(&start, context, pending, at));
                session.take_upgraded(self, flow, now, out, upgraded);
                Layer::Http2(session)
            }
            Next::Upgraded(Upgraded { to, tx, has_request, requests }) => {
                let seen = if has_request { Seen::Both } else { Seen::Response };
                let websocket = (to == Upgrade::WebSocket)
                    .then(|| Box::new(WebSocket::new(requests, carried, &tx, context.emitted)));
                self.emit(&mut context, flow, now, tx, seen, out);
                if let Some(websocket) = websocket {
                    self.counters.flows_websocket_total += 1;
                    return Layer::WebSocket(websocket);
                }
                Layer::Opaque(Opaque { kind: carried, bypassed: true })
            }
            _ if context.depth >= LAYERS_MAX => Layer::Opaque(Opaque { kind: carried, bypassed: true }),
            Next::Tunnel => Layer::Http1(http1::Session::inside(context, at)),
            Next::Unrecognised => Layer::Undecided(Box::new(Undecided::new(context, pending, at))),
            Next::Tls => {
                let secrets = !self.decryption.keys.is_empty() || self.config.decryption.wait_nanos > 0;
                Layer::Tls(Box::new(Tls::new(context, secrets)))
            }
            Next::Nothing if flow.midstream && !context.inside() => {
                Layer::Http1(http1::Session::searching(context, at))
            }
            Next::Http2 { requests, anywhere } => {
                self.counters.flows_swapped_total += u64::from(requests == Direction::ToClient);
                let start = http2::Start::Preface { requests, midstream: flow.midstream, anywhere };
                Layer::Http2(Box::new(self.http2(&start, context, pending, at)))
            }
            Next::Http2Late { anywhere } => {
                let start = http2::Start::Late { anywhere };
                Layer::Http2(Box::new(self.http2(&start, context, pending, at)))
            }
            Next::Nothing => {
                Layer::Opaque(Opaque { kind: Kind::NotHttp.or(carried), bypassed: context.inside() })
            }
        }
    }

    fn http2(
        &self,
        start: &http2::Start,
        context: FlowContext,
        pending: [Anomalies; 2],
        at: [u64; 2],
    ) -> http2::Session {
        http2::Session::new(start, &self.config.limits, context, pending, at)
    }

    /// Counts bytes that nobody parses.
    pub(crate) fn pass(&mut self, bypassed: bool, len: usize) {
        if bypassed {
            self.counters.skipped_bytes_bypassed_total += len as u64;
        } else {
            self.counters.skipped_bytes_not_http_total += len as u64;
        }
    }
}
