//! What is inside a TLS connection whose secrets are known: decrypted, and read like any other flow.

use std::sync::Arc;

use offpath_types::{Anomaly, Chunk, Direction, FlowInfo, Timestamp, TlsFacts, Transaction};

use super::decrypt::{Connection, DecryptCounters, Env, Plain, PlainPlace, Status};
use super::keys::{KeyStore, Want};
use super::waiting::Waiting;
use crate::stage::{FlowContext, Http, Leftover, Session};

/// What the connections of a stage share.
#[derive(Default)]
pub(crate) struct Decryption {
    pub(crate) keys: KeyStore,
    pub(crate) counters: DecryptCounters,
    /// Connections whose secrets have not come.
    pub(super) waiting: Waiting,
    /// For records that are tried.
    scratch: Vec<u8>,
}

impl Decryption {
    /// Returns what was counted of connections, of those that wait, and of the secrets kept.
    pub(crate) fn counters(&self) -> DecryptCounters {
        let (known, known_held) = self.keys.counts();
        DecryptCounters {
            waits_held: self.waiting.count() as u64,
            known_total: known.known,
            known_used_total: known.used,
            known_expired_total: known.expired,
            known_evicted_total: known.evicted,
            known_held,
            ..self.counters
        }
    }

    fn env(&mut self, wait: bool) -> Env<'_> {
        Env { keys: &self.keys, counters: &mut self.counters, scratch: &mut self.scratch, wait }
    }
}

/// Bytes that a chunk costs which is held, beside its own.
const PIECE_BYTES: usize = 64;

/// A connection that may be decrypted, and the session inside.
pub(super) struct Inside {
    connection: Connection,
    /// Made with the first plaintext.
    session: Option<Session>,
    /// What the session is made with, if that is settled already.
    inner: Option<FlowContext>,
    /// What came while the connection waits for a secret.
    parked: Leftover,
    parked_chunks: usize,
}

/// Plaintext on its way from the connection to the session.
#[derive(Default)]
struct Pieces {
    chunks: Leftover,
    /// Some came as 0-RTT data.
    early: Option<Direction>,
}

impl Plain for Pieces {
    fn data(&mut self, dir: Direction, bytes: &[u8], place: PlainPlace, early: bool) {
        let PlainPlace { offset, peer_acked, seen } = place;
        self.chunks.push(dir, Chunk::Data { bytes, offset, peer_acked, seen });
        if early {
            self.early = Some(dir);
        }
    }

    fn gap(&mut self, dir: Direction, len: u64, offset: u64, seen: Timestamp) {
        self.chunks.push(dir, Chunk::Gap { len, offset, seen });
    }
}

impl Inside {
    pub(super) fn new() -> Self {
        Self {
            connection: Connection::new(),
            session: None,
            inner: None,
            parked: Leftover::default(),
            parked_chunks: 0,
        }
    }

    /// Bytes of records that are not whole, or that wait.
    pub(super) fn held(&self) -> usize {
        self.connection.buffered() + self.parked.len() + PIECE_BYTES * self.parked_chunks
    }

    /// The secrets of which any lets it go on.
    pub(super) fn wants(&self) -> [Option<Want>; 2] {
        self.connection.wants()
    }

    /// Settles what the session inside is made with: `context` is that of the flow, `facts` what the hellos have shown.
    pub(super) fn settle(&mut self, context: &mut FlowContext, facts: &Arc<TlsFacts>) {
        if self.session.is_none() && self.inner.is_none() {
            let facts = TlsFacts { decrypted: true, ..(**facts).clone() };
            self.inner = Some(context.within_tls(Arc::new(facts)));
        }
    }

    /// Takes the next chunk of the flow; `context` and `facts` as [`Inside::settle`] takes them.
    #[expect(clippy::too_many_arguments, reason = "those of a layer")]
    pub(super) fn chunk(
        &mut self,
        http: &mut Http,
        flow: &FlowInfo,
        context: &mut FlowContext,
        facts: &Arc<TlsFacts>,
        dir: Direction,
        chunk: Chunk<'_>,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) -> Status {
        let (status, pieces) = self.take(http, dir, chunk);
        if !pieces.chunks.is_empty() {
            self.settle(context, facts);
        }
        self.hand_over(http, flow, &pieces, now, out);
        self.note(http, flow, Some((dir, chunk)), status, now, out);
        status
    }

    /// Keeps a chunk until the secrets come.
    pub(super) fn park(&mut self, dir: Direction, chunk: Chunk<'_>) {
        self.parked.push(dir, chunk);
        self.parked_chunks += 1;
    }

    /// Goes on after the store has learned something, with all that was parked, as far as that goes.
    pub(super) fn resume(
        &mut self,
        http: &mut Http,
        flow: &FlowInfo,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) -> Status {
        let mut pieces = Pieces::default();
        let mut env = http.decryption.env(true);
        let mut status = self.connection.resume(&mut env, &mut pieces);
        self.hand_over(http, flow, &pieces, now, out);
        self.note(http, flow, None, status, now, out);
        if status == Status::WantsKeys {
            return status;
        }
        let parked = std::mem::take(&mut self.parked);
        self.parked_chunks = 0;
        for (dir, chunk) in parked.chunks() {
            if status == Status::WantsKeys {
                self.park(dir, chunk);
                continue;
            }
            // Where it was given up, the rest is counted.
            let before = status;
            let (after, pieces) = self.take(http, dir, chunk);
            status = after;
            self.hand_over(http, flow, &pieces, now, out);
            if before == Status::Going {
                self.note(http, flow, Some((dir, chunk)), status, now, out);
            }
        }
        status
    }

    /// Gives up what waits.
    pub(super) fn abandon(
        &mut self,
        http: &mut Http,
        flow: &FlowInfo,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) {
        self.connection.abandon(&mut http.decryption.env(true));
        self.note(http, flow, None, Status::GivenUp, now, out);
        let parked = std::mem::take(&mut self.parked);
        self.parked_chunks = 0;
        parked.chunks().for_each(|(dir, chunk)| drop(self.take(http, dir, chunk)));
    }

    /// Gives a chunk to the connection.
    fn take(&mut self, http: &mut Http, dir: Direction, chunk: Chunk<'_>) -> (Status, Pieces) {
        let mut pieces = Pieces::default();
        let mut env = http.decryption.env(http.config.decryption.wait_nanos > 0);
        let status = match chunk {
            Chunk::Data { bytes, offset, peer_acked, seen } => {
                self.connection.push(&mut env, dir, bytes, (offset, peer_acked, seen), &mut pieces)
            }
            Chunk::Gap { len, offset, seen } => {
                self.connection.gap(&mut env, dir, len, offset, seen, &mut pieces)
            }
            Chunk::End { .. } => self.connection.end(&mut env, dir, &mut pieces),
        };
        (status, pieces)
    }

    /// Gives plaintext to the session.
    fn hand_over(
        &mut self,
        http: &mut Http,
        flow: &FlowInfo,
        pieces: &Pieces,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) {
        let mut early = pieces.early;
        for (dir, chunk) in pieces.chunks.chunks() {
            if let Some(context) = self.inner.take() {
                self.session = Some(Session::within(context));
            }
            let Some(session) = &mut self.session else { continue };
            if early.take_if(|early| *early == dir).is_some() {
                http.mark(session, dir, Anomaly::EarlyData);
            }
            http.chunk(session, &inner(flow), dir, chunk, now, out);
        }
    }

    /// Tells the session how the connection goes on after `chunk`.
    fn note(
        &mut self,
        http: &mut Http,
        flow: &FlowInfo,
        chunk: Option<(Direction, Chunk<'_>)>,
        status: Status,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) {
        self.connection.take_served().for_each(|name| http.decryption.keys.served(&name, now));
        let Some(session) = &mut self.session else { return };
        if let Some((dir, chunk @ Chunk::End { .. })) = chunk {
            http.chunk(session, &inner(flow), dir, chunk, now, out);
        } else if status == Status::GivenUp {
            // What comes after is unknown, on both sides.
            for dir in [Direction::ToServer, Direction::ToClient] {
                let offset = self.connection.plain_offset(dir);
                http.chunk(session, &inner(flow), dir, Chunk::Gap { len: 1, offset, seen: now }, now, out);
            }
        }
    }

    /// Ends the connection and what is inside.
    pub(super) fn close(
        &mut self,
        http: &mut Http,
        flow: &FlowInfo,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) {
        self.connection.close(&mut http.decryption.env(false));
        self.connection.take_served().for_each(|name| http.decryption.keys.served(&name, now));
        if let Some(session) = self.session.take() {
            http.close_within(session, &inner(flow), now, out);
        }
    }
}

/// The flow as what is inside sees it: from its first byte.
fn inner(flow: &FlowInfo) -> FlowInfo {
    FlowInfo { midstream: false, ..*flow }
}
