//! The body of the fuzz target `reassemble_ops`: the table against an obviously correct model.

use offpath_packet::{SeqNum, TcpFlags, TcpSegment};
use offpath_types::{Chunk, Direction, FlowInfo, FlowKey, Host, Peer, Side, Timestamp, TunnelId};

use crate::{FlowTable, StreamLimits, StreamSink};

/// Bytes that each direction of the modelled flow carries.
const STREAM_LEN: usize = 4000;

/// A byte's first copy, the acknowledgement it came with, and when.
type FirstCopy = (u8, Option<u64>, Timestamp);

/// One direction as the capture saw it.
struct Model {
    first: Vec<Option<FirstCopy>>,
    /// Everything before was delivered or reported as a gap.
    told: u64,
    ended: bool,
    /// A FIN of it was captured.
    fin: bool,
    /// A gap was told, and nothing behind it had been captured.
    unshown: bool,
    base: u32,
}

struct Judge {
    models: [Model; 2],
    opened: u32,
    closed: u32,
    log: Vec<(Direction, String)>,
    /// Bytes whose first copy was captured and not told.
    forgotten: u64,
}

impl StreamSink for Judge {
    type Flow = ();

    fn open(&mut self, _flow: &FlowInfo) {
        self.opened += 1;
    }

    fn chunk(
        &mut self,
        (): &mut (),
        _flow: &FlowInfo,
        direction: Direction,
        chunk: Chunk<'_>,
        now: Timestamp,
    ) {
        if self.closed > 0 {
            // The flow expired, and its last segment opened another, which has other offsets.
            return;
        }
        let model = &mut self.models[direction.index()];
        assert!(!model.ended, "nothing follows the end");
        let line = match chunk {
            Chunk::Data { bytes, offset, peer_acked, seen } => {
                assert_eq!(offset, model.told, "no byte is skipped or told twice");
                assert!(!bytes.is_empty() && seen <= now);
                // What a client acknowledges may never have been sent: it must not cost what comes then.
                assert!(
                    direction == Direction::ToServer || !model.unshown,
                    "a gap hid what came at {offset}"
                );
                for (at, byte) in (offset as usize..).zip(bytes) {
                    // First copy, own acknowledgement.
                    self.forgotten += u64::from(model.first[at] != Some((*byte, peer_acked, seen)));
                }
                model.told += bytes.len() as u64;
                String::new()
            }
            Chunk::Gap { len, offset, seen } => {
                assert_eq!(offset, model.told);
                assert!(len > 0);
                for at in offset..offset + len {
                    let captured = model.first.get(at as usize).copied().flatten();
                    // A hole that was due before a segment came is given up before that segment is taken.
                    let kept = captured.is_some_and(|(_, _, when)| when < seen || seen == now && when < now);
                    self.forgotten += u64::from(kept);
                }
                model.told += len;
                model.unshown =
                    !model.fin && model.first.iter().skip((offset + len) as usize).all(Option::is_none);
                format!("gap {offset}+{len} {seen} {now}")
            }
            Chunk::End { reason, seen } => {
                model.ended = true;
                format!("end {reason:?} at {} {seen}", model.told)
            }
        };
        if !line.is_empty() {
            self.log.push((direction, line));
        }
    }

    fn wants(&self, (): &(), _direction: Direction) -> bool {
        true
    }

    fn close(&mut self, (): (), _flow: &FlowInfo, _now: Timestamp) {
        assert!(self.models.iter().all(|m| m.ended));
        self.closed += 1;
    }
}

/// Runs the table on the operations that `data` spells, and compares with the model after each.
///
/// Twice, once with `advance` called all the time: what the sink is told must not depend on that.
#[doc(hidden)]
pub fn fuzz_reassemble_ops(data: &[u8]) {
    let told = run(data, false);
    assert_eq!(told, run(data, true), "the result depends on how often time is moved on");
}

fn run(data: &[u8], advance_often: bool) -> Vec<(Direction, String)> {
    use Direction::{ToClient, ToServer};

    let mut input = data.iter().copied();
    let mut next = move || input.next();
    let bases = [u32::MAX - u32::from(next().unwrap_or(0)) * 16, u32::MAX - u32::from(next().unwrap_or(0))];
    let limits = StreamLimits {
        held_segments_per_direction_max: 12,
        held_bytes_per_direction_max: 900,
        held_bytes_max: 2400,
        ..StreamLimits::default()
    };
    let client = Peer { host: Host::from_v4([10, 0, 0, 1]), port: 50_000 };
    let server = Peer { host: Host::from_v4([10, 0, 0, 2]), port: 80 };
    let (key, client_side) = FlowKey::new(client, server, TunnelId(0));
    let model = |base| Model {
        first: vec![None; STREAM_LEN],
        told: 0,
        ended: false,
        fin: false,
        unshown: false,
        base,
    };
    let mut judge = Judge { models: bases.map(model), opened: 0, closed: 0, log: Vec::new(), forgotten: 0 };
    let mut table: FlowTable<Judge> = FlowTable::new(limits, 7);
    let mut now = Timestamp::from_parts(1_000, 0);
    let side_of = |direction| match direction {
        ToServer => client_side,
        ToClient => client_side.flip(),
    };
    let make = |time, direction, seq: u32, ack: Option<u32>, flags: TcpFlags| {
        let flags = if ack.is_some() { flags.with(TcpFlags::ACK) } else { flags };
        let (seq, ack) = (SeqNum(seq), SeqNum(ack.unwrap_or(0)));
        let side: Side = side_of(direction);
        TcpSegment {
            time,
            key,
            side,
            seq,
            ack,
            flags,
            window: 1000,
            payload: &[][..],
            payload_len: 0,
            envelope: Default::default(),
        }
    };
    let [cb, sb] = bases;
    table.segment(&make(now, ToServer, cb.wrapping_sub(1), None, TcpFlags::SYN), &mut judge);
    table.segment(&make(now, ToClient, sb.wrapping_sub(1), Some(cb), TcpFlags::SYN), &mut judge);
    table.segment(&make(now, ToServer, cb, Some(sb), TcpFlags::default()), &mut judge);

    // How far each direction's sender has got, whether or not the capture saw it.
    let mut sent = [0usize; 2];
    // Where the client sent FINs that its server never takes, what the server acknowledged, and whether it seemed to
    // have taken one.
    let (mut decoys, mut acks, mut taken) = (Vec::new(), Vec::new(), false);
    while let (Some(op), Some(a), Some(b)) = (next(), next(), next()) {
        let direction = if op & 1 == 0 { ToServer } else { ToClient };
        let (own, peer) = (direction.index(), direction.flip().index());
        let micros = match (op >> 1) & 7 {
            7 => 40_000 * u64::from(b),
            6 => 1_000,
            _ => 20,
        };
        now = now.plus_nanos(micros * 1_000);
        if advance_often {
            for part in (0..3).rev() {
                let at = Timestamp::from_nanos(now.as_nanos() - part * micros * 300);
                table.advance(at, &mut judge);
            }
        }
        let acked = if op & 0x20 == 0 { sent[peer] as u64 } else { sent[peer] as u64 / 2 };
        let mut content = [0u8; 256];
        let (start, len, flags) = match (op >> 6) & 3 {
            // The next bytes, captured or not.
            0 | 1 => {
                let start = sent[own];
                let len = (usize::from(a) + 1).min(STREAM_LEN - start);
                sent[own] += len;
                if a % 11 == 0 {
                    continue;
                }
                (start, len, TcpFlags::PSH)
            }
            // Earlier bytes again (or for the first time), perhaps with other content.
            2 => {
                let start = sent[own].saturating_sub(usize::from(a) * 4);
                (start, usize::from(b).min(sent[own] - start), TcpFlags::default())
            }
            // Of the client, an acknowledgement of what is yet to be sent, or a FIN that only the mirror takes.
            _ if b >= 0xc0 && direction == ToServer => {
                let beyond = sent[peer] + 2 + usize::from(a);
                let ack = bases[peer].wrapping_add(if b & 1 == 0 { sent[peer] } else { beyond } as u32);
                let flags = if b & 1 == 0 { TcpFlags::FIN } else { TcpFlags::default() };
                if b & 1 == 0 {
                    decoys.push(sent[own]);
                }
                let seq = bases[own].wrapping_add(sent[own] as u32);
                table.segment(&make(now, direction, seq, Some(ack), flags), &mut judge);
                if judge.closed > 0 || table.counters().flows_opened_total > 1 {
                    break;
                }
                continue;
            }
            // Bytes from ahead, an acknowledgement, or a FIN at the end.
            _ => {
                let start = (sent[own] + usize::from(a)).min(STREAM_LEN);
                let len = usize::from(b % 64).min(STREAM_LEN - start);
                sent[own] = sent[own].max(start + len);
                let fin = start + len == STREAM_LEN;
                judge.models[own].fin |= fin;
                (start, len, if fin { TcpFlags::FIN } else { TcpFlags::default() })
            }
        };
        if direction == ToClient {
            acks.push(acked as usize);
        }
        taken |= acks.iter().any(|acked| decoys.iter().any(|fin| *acked == fin + 1));
        let twist = u8::from((op >> 6) & 3 == 2 && b % 5 == 0);
        for (at, byte) in content.iter_mut().enumerate().take(len) {
            *byte = ((start + at) as u8).wrapping_mul(31).wrapping_add(own as u8 + twist);
        }
        let payload = &content[..len];
        let ack = bases[peer].wrapping_add(acked as u32);
        let seq = judge.models[own].base.wrapping_add(start as u32);
        for (at, byte) in (start..).zip(payload) {
            judge.models[own].first[at].get_or_insert((*byte, Some(acked), now));
        }
        let segment =
            TcpSegment { payload, payload_len: len as u32, ..make(now, direction, seq, Some(ack), flags) };
        table.segment(&segment, &mut judge);
        let counters = table.counters();
        assert!(counters.is_balanced(table.held_bytes(), table.flows_open()), "{counters:?}");
        assert!(table.held_bytes() <= 900 * 2 + 256);
        if counters.flows_opened_total > 1 {
            // A handshake expired without the sink being told, and the flow began anew: the model knows one only.
            break;
        }
        // A FIN that the server did not take hides nothing.
        let hidden = counters.bytes_dropped_after_close_total > 0;
        assert!(taken || judge.models.iter().any(|m| m.fin) || !hidden, "{counters:?}");
        if judge.closed > 0 {
            // Closed by FINs or expired; the model knows one flow only.
            break;
        }
    }
    table.advance(now.plus_secs(1), &mut judge);
    table.finish(&mut judge);
    assert_eq!(judge.opened, judge.closed, "what was opened is closed");
    assert_eq!((table.held_bytes(), table.flows_open()), (0, 0));
    assert!(table.counters().is_balanced(0, 0), "{:?}", table.counters());
    // Nothing else that was captured is given up, or told from another copy than the first.
    let again = table.counters().flows_opened_total > 1;
    assert!(taken || again || judge.forgotten <= table.counters().bytes_dropped_unacknowledged_total);
    judge.log.sort_by_key(|(direction, _)| *direction);
    judge.log
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seeds() {
        fuzz_reassemble_ops(&[]);
        for seed in 0u32..300 {
            let mut x = seed.wrapping_mul(0x9e37_79b9) | 1;
            let data: Vec<u8> = (0..900)
                .map(|_| {
                    x ^= x << 13;
                    x ^= x >> 17;
                    x ^= x << 5;
                    (x >> 24) as u8
                })
                .collect();
            fuzz_reassemble_ops(&data);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn table_agrees_with_the_model(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            fuzz_reassemble_ops(&data);
        }
    }
}
