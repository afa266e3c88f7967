//! HTTP/2 on one flow (RFC 9113): frames, header blocks, streams.
//!
//! ```text
//! chunk ─▶ engine (frames, bytes) ─▶ hpack (blocks) ─▶ fields (heads) ─▶ streams (who answers whom) ─▶ facts ─▶ Transaction
//!             │ lost its place? ─▶ find::FrameFinder finds the next frame
//! ```
//! Heads become those of HTTP/1 before anything is read from them: the authority is the Host field, the path the
//! target, cookie crumbs are joined.

mod engine;
mod fields;
mod find;
mod frame;
mod hpack;
mod hpack_model;
mod huffman;
mod session;
mod static_table;
mod streams;
#[cfg(test)]
mod tests;

use offpath_types::{Chunk, Direction, FlowInfo, Timestamp, Transaction};

use self::engine::Engine;
pub(crate) use self::fields::Fields;
pub(crate) use self::find::{FrameFinder, NEEDED_UNKNOWN};
pub use self::hpack_model::{bench_hpack_blocks, fuzz_hpack_block};
use self::session::Side;
pub(crate) use self::session::{Session, Start};
use crate::stage::{Http, Upgraded};

/// What the stage asks of its HTTP/2 layer: see [`Http`].
impl Session {
    pub(crate) fn chunk(
        &mut self,
        http: &mut Http,
        flow: &FlowInfo,
        dir: Direction,
        chunk: Chunk<'_>,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) {
        Engine { http, s: self, flow, now, out }.chunk(dir, chunk);
    }

    pub(crate) fn close(
        &mut self,
        http: &mut Http,
        flow: &FlowInfo,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) {
        Engine { http, s: self, flow, now, out }.close();
    }

    /// Takes the transaction that was upgraded: its response comes on stream 1.
    pub(crate) fn take_upgraded(
        &mut self,
        http: &mut Http,
        flow: &FlowInfo,
        now: Timestamp,
        out: &mut Vec<Transaction>,
        upgraded: Upgraded,
    ) {
        let Upgraded { tx, has_request, .. } = upgraded;
        self.highest = 1;
        let request = Side { head: has_request, done: true, whole: tx.complete, ..Side::default() };
        Engine { http, s: self, flow, now, out }.add(1, tx, request);
    }
}

/// Fuzz body: frames cut at other places give the same transactions, and the books balance.
///
/// First byte: bit 0 joined late, bits 1 to 7 where to cut. Then records: a control byte (bit 0 direction, bits 1 to 3
/// what: a frame, bytes, a gap, an end), type, flags, stream and length of a frame, that many bytes.
#[doc(hidden)]
pub fn fuzz_http2_frames(data: &[u8]) {
    let Some((first, records)) = data.split_first() else { return };
    let late = first & 1 == 1;
    let whole = fuzz_run(records, late, usize::MAX);
    let cut = fuzz_run(records, late, usize::from(first >> 1) % 23 + 1);
    assert_eq!(whole, cut);
}

/// Runs the records of [`fuzz_http2_frames`] in pieces of at most `piece` bytes.
fn fuzz_run(mut records: &[u8], midstream: bool, piece: usize) -> Vec<Transaction> {
    use offpath_types::{EndReason, FlowKey, Host, IdentityKey, Peer, TunnelId};
    let peer = |last, port| Peer { host: Host::from_v4([10, 0, 0, last]), port };
    let (key, client_side) = FlowKey::new(peer(1, 40_000), peer(2, 80), TunnelId(0));
    let opened = Timestamp::from_nanos(1);
    let flow = FlowInfo { key, client_side, opened, midstream, envelope: Default::default() };
    let mut http = Http::new(crate::ProtocolConfig::default(), IdentityKey::new([3; 32]));
    let mut session = http.open(&flow);
    let (mut out, mut next, mut ended) = (Vec::new(), [0u64; 2], [false; 2]);
    let mut now = opened;
    let mut pending = vec![(Direction::ToServer, frame::PREFACE.to_vec())];
    if midstream {
        pending.clear();
    }
    loop {
        let (dir, bytes) = if let Some(first) = pending.pop() {
            first
        } else if let [control, kind, flags, stream, len, rest @ ..] = records {
            let (payload, after) = rest.split_at(usize::from(*len).min(rest.len()));
            records = after;
            let dir = if control & 1 == 0 { Direction::ToServer } else { Direction::ToClient };
            let d = dir.index();
            now = now.plus_nanos(1_000_000);
            if ended[d] {
                continue;
            }
            match (control >> 1) & 7 {
                5 if !payload.is_empty() => {
                    let chunk = Chunk::Gap { len: payload.len() as u64, offset: next[d], seen: now };
                    http.chunk(&mut session, &flow, dir, chunk, now, &mut out);
                    next[d] += payload.len() as u64;
                    continue;
                }
                6 => {
                    let chunk = Chunk::End { reason: EndReason::Fin, seen: now };
                    http.chunk(&mut session, &flow, dir, chunk, now, &mut out);
                    ended[d] = true;
                    continue;
                }
                7 => (dir, payload.to_vec()),
                _ => {
                    let mut frame = vec![0, 0, payload.len() as u8, kind % 11, *flags, 0, 0, 0, *stream];
                    frame.extend(payload);
                    (dir, frame)
                }
            }
        } else {
            break;
        };
        let d = dir.index();
        for bytes in bytes.chunks(piece) {
            let chunk = Chunk::Data { bytes, offset: next[d], peer_acked: Some(next[1 - d]), seen: now };
            http.chunk(&mut session, &flow, dir, chunk, now, &mut out);
            next[d] += bytes.len() as u64;
        }
    }
    http.close(session, &flow, now, &mut out);
    crate::http1::assert_balanced(http.counters());
    assert_eq!(http.counters().transactions_total, out.len() as u64);
    assert_eq!((http.held_bytes(), http.open_requests), (0, 0));
    out
}
