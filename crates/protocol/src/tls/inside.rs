//! What is inside a TLS connection whose secrets are known: decrypted, and read like any other flow.

use std::sync::Arc;

use offpath_types::{Anomaly, Chunk, Direction, FlowInfo, Timestamp, TlsFacts, Transaction};

use super::decrypt::{Connection, DecryptCounters, Env, Plain, PlainPlace, Status};
use super::keys::KeyStore;
use crate::stage::{FlowContext, Http, Leftover, Session};

/// What the connections of a stage share.
#[derive(Default)]
pub(crate) struct Decryption {
    pub(crate) keys: KeyStore,
    pub(crate) counters: DecryptCounters,
    /// For records that are tried.
    scratch: Vec<u8>,
}

/// A connection that may be decrypted, and the session inside.
pub(super) struct Inside {
    connection: Connection,
    /// Made with the first plaintext.
    session: Option<Session>,
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
        Self { connection: Connection::new(), session: None }
    }

    /// Bytes of records that are not whole.
    pub(super) fn held(&self) -> usize {
        self.connection.buffered()
    }

    /// Takes the next chunk of the flow; false once the connection is given up.
    ///
    /// `context` is that of the flow, `facts` what the hellos have shown.
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
    ) -> bool {
        let mut pieces = Pieces::default();
        let Decryption { keys, counters, scratch } = &mut http.decryption;
        let mut env = Env { keys, counters, scratch, wait: false };
        let status = match chunk {
            Chunk::Data { bytes, offset, peer_acked, seen } => {
                self.connection.push(&mut env, dir, bytes, (offset, peer_acked, seen), &mut pieces)
            }
            Chunk::Gap { len, offset, seen } => {
                self.connection.gap(&mut env, dir, len, offset, seen, &mut pieces)
            }
            Chunk::End { .. } => {
                self.connection.end(&mut env, dir, &mut pieces);
                Status::Going
            }
        };
        let inner = FlowInfo { midstream: false, ..*flow };
        for (dir, chunk) in pieces.chunks.chunks() {
            let session = self.session.get_or_insert_with(|| {
                let facts = TlsFacts { decrypted: true, ..(**facts).clone() };
                Session::within(context.within_tls(Arc::new(facts)))
            });
            if pieces.early.take_if(|early| *early == dir).is_some() {
                http.mark(session, dir, Anomaly::EarlyData);
            }
            http.chunk(session, &inner, dir, chunk, now, out);
        }
        let going = status == Status::Going;
        if let Some(session) = &mut self.session {
            if let Chunk::End { .. } = chunk {
                http.chunk(session, &inner, dir, chunk, now, out);
            } else if !going {
                // What comes after is unknown, on both sides.
                for dir in [Direction::ToServer, Direction::ToClient] {
                    let offset = self.connection.plain_offset(dir);
                    http.chunk(session, &inner, dir, Chunk::Gap { len: 1, offset, seen: now }, now, out);
                }
            }
        }
        going
    }

    /// Ends the connection and what is inside.
    pub(super) fn close(
        &mut self,
        http: &mut Http,
        flow: &FlowInfo,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) {
        let Decryption { keys, counters, scratch } = &mut http.decryption;
        self.connection.close(&mut Env { keys, counters, scratch, wait: false });
        if let Some(session) = self.session.take() {
            http.close_within(session, &FlowInfo { midstream: false, ..*flow }, now, out);
        }
    }
}
