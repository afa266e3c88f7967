//! HTTP/1.x on one flow: framing, state, pairing.
//!
//! ```text
//! chunk ─▶ engine (states, bytes) ─▶ parse (heads) ─▶ pairing (who answers whom) ─▶ facts ─▶ Transaction
//!             │ lost its place? ─▶ sniff::Searcher finds the next message start
//! ```

mod engine;
mod framing;
mod lanes;
mod pairing;
mod parse;
mod proxy;
mod session;
mod sniff;
mod socks;
#[cfg(test)]
mod tests;
mod whole;

use offpath_types::{Anomaly, Chunk, Direction, FlowInfo, IdentityKey, Timestamp, Transaction};

use self::engine::Engine;
pub(crate) use self::framing::{FramingFields, trim_ows};
pub(crate) use self::pairing::LONG_POLL_NANOS;
pub(crate) use self::parse::is_odd_in_target;
pub(crate) use self::session::Session;
use self::session::{Owner, State};
pub(crate) use self::sniff::{Searcher, is_known_method, is_token};
use crate::stage::{Http, Kind};
use crate::{ProtocolConfig, ProtocolCounters};

/// What the stage asks of its HTTP/1 layer: see [`Http`].
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

    /// Marks the message of `dir` that is in progress, or the next.
    pub(crate) fn mark(&mut self, dir: Direction, anomaly: Anomaly) {
        let request = dir == self.request_dir();
        if !request && self.owner == Owner::Streamed {
            return;
        }
        let open = if request { self.request_mut() } else { self.owner_mut() };
        match open {
            Some(open) => open.tx.anomalies.insert(anomaly),
            None => self.halves[dir.index()].pending.insert(anomaly),
        }
    }

    pub(crate) fn wants(&self, dir: Direction) -> bool {
        !matches!(self.halves[dir.index()].state, State::Dead(_))
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

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }
}

/// Fuzz body: a flow cut at other places gives the same transactions, and the books balance.
///
/// First byte: whether the flow is midstream, and where to cut. Then records: a control byte (direction, gap,
/// end), a length, that many bytes.
#[doc(hidden)]
pub fn fuzz_http1_cuts(data: &[u8]) {
    let Some((first, records)) = data.split_first() else { return };
    let whole = fuzz_run(records, first & 1 == 1, usize::MAX);
    let cut = fuzz_run(records, first & 1 == 1, usize::from(first >> 1) % 23 + 1);
    assert_eq!(whole, cut);
}

/// Runs the records of [`fuzz_http1_cuts`] in pieces of at most `piece` bytes.
/// Asserts the equations of [`ProtocolCounters`], once all sessions are closed.
pub(crate) fn assert_balanced(c: &ProtocolCounters) {
    let skipped: u64 =
        c.fields().iter().filter(|(n, _)| n.starts_with("skipped_bytes_")).map(|(_, v)| v).sum();
    assert_eq!(
        c.bytes_in_total,
        c.bytes_head_total
            + c.bytes_body_total
            + c.bytes_framing_total
            + c.bytes_websocket_total
            + c.bytes_tls_total
            + skipped,
        "bytes: {c:?}"
    );
    assert_eq!(
        c.gap_bytes_total,
        c.gap_bytes_body_total + c.gap_bytes_lost_total + c.gap_bytes_ignored_total,
        "gaps: {c:?}"
    );
    assert_eq!(
        c.transactions_total,
        c.transactions_complete_total
            + c.transactions_incomplete_total
            + c.transactions_request_only_total
            + c.transactions_response_only_total,
        "transactions: {c:?}"
    );
    assert_eq!(
        c.flows_opened_total,
        c.flows_http1_total
            + c.flows_http2_total
            + c.flows_tls_total
            + c.flows_not_http_total
            + c.flows_unrecognised_total
    );
}

fn fuzz_run(mut records: &[u8], midstream: bool, piece: usize) -> Vec<Transaction> {
    use offpath_types::{EndReason, FlowKey, Host, Peer, TunnelId};
    let peer = |last, port| Peer { host: Host::from_v4([10, 0, 0, last]), port };
    let (key, client_side) = FlowKey::new(peer(1, 40000), peer(2, 80), TunnelId(0));
    let flow = FlowInfo {
        key,
        client_side,
        opened: Timestamp::from_nanos(1),
        midstream,
        envelope: Default::default(),
    };
    let mut http = Http::new(ProtocolConfig::default(), IdentityKey::new([3; 32]));
    let mut session = http.open(&flow);
    let (mut out, mut next, mut ended) = (Vec::new(), [0u64; 2], [false; 2]);
    let mut now = Timestamp::from_nanos(1);
    while let [control, len, rest @ ..] = records {
        let (bytes, after) = rest.split_at(usize::from(*len).min(rest.len()));
        records = after;
        let dir = if control & 1 == 0 { Direction::ToServer } else { Direction::ToClient };
        let d = dir.index();
        now = now.plus_nanos(1_000_000);
        if ended[d] {
            continue;
        }
        let peer_acked = (control & 2 == 0).then_some(next[1 - d]);
        if control & 0xf0 == 0x50 && !bytes.is_empty() {
            let len = bytes.len() as u64 * if control & 4 == 0 { 1 } else { 1 << 40 };
            http.chunk(
                &mut session,
                &flow,
                dir,
                Chunk::Gap { len, offset: next[d], seen: now },
                now,
                &mut out,
            );
            next[d] += len;
            continue;
        }
        if control & 0xf0 == 0xa0 {
            let reason = if control & 4 == 0 { EndReason::Fin } else { EndReason::Rst };
            http.chunk(&mut session, &flow, dir, Chunk::End { reason, seen: now }, now, &mut out);
            ended[d] = true;
            continue;
        }
        for bytes in bytes.chunks(piece) {
            let chunk = Chunk::Data { bytes, offset: next[d], peer_acked, seen: now };
            http.chunk(&mut session, &flow, dir, chunk, now, &mut out);
            next[d] += bytes.len() as u64;
        }
    }
    http.close(session, &flow, now, &mut out);
    assert_balanced(http.counters());
    assert_eq!(http.counters().transactions_total, out.len() as u64);
    assert_eq!((http.held_bytes(), http.open_requests), (0, 0));
    out
}

/// How many bytes were looked at, so that a test can tell linear from quadratic.
#[cfg(test)]
mod examined {
    use std::cell::Cell;

    thread_local!(static TOTAL: Cell<usize> = const { Cell::new(0) });

    pub(super) fn reset() {
        TOTAL.set(0);
    }

    pub(super) fn total() -> usize {
        TOTAL.get()
    }

    pub(super) fn add(bytes: usize) {
        TOTAL.set(TOTAL.get() + bytes);
    }
}
