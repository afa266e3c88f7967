//! Cost of reassembly per segment: `cargo bench -p offpath-stream`. Prints nanoseconds and bytes per second.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures wall time")]

use std::hint::black_box;
use std::time::Instant;

use offpath_packet::{SeqNum, TcpFlags, TcpSegment};
use offpath_stream::{FlowTable, StreamLimits, StreamSink};
use offpath_types::{Chunk, Direction, FlowInfo, FlowKey, Host, Peer, Timestamp, TunnelId};

struct Sum(u64);

impl StreamSink for Sum {
    type Flow = u64;
    fn open(&mut self, _: &FlowInfo) -> u64 {
        0
    }
    fn chunk(&mut self, state: &mut u64, _: &FlowInfo, _: Direction, chunk: Chunk<'_>, _: Timestamp) {
        if let Chunk::Data { bytes, .. } = chunk {
            *state += black_box(bytes).len() as u64;
        }
    }
    fn wants(&self, _: &u64, _: Direction) -> bool {
        true
    }
    fn close(&mut self, state: u64, _: &FlowInfo, _: Timestamp) {
        self.0 += state;
    }
}

static PAYLOAD: [u8; 1400] = [7; 1400];

fn flow(n: u32) -> (FlowKey, offpath_types::Side) {
    let [a, b, c, _] = n.to_be_bytes();
    let client = Peer { host: Host::from_v4([10, a, b, c]), port: 20_000 + (n & 0xff) as u16 };
    FlowKey::new(client, Peer { host: Host::from_v4([192, 0, 2, 1]), port: 80 }, TunnelId(0))
}

fn segment(n: u32, seq: u32, time: u64, flags: TcpFlags, payload: &'static [u8]) -> TcpSegment<'static> {
    let (key, side) = flow(n);
    let time = Timestamp::from_nanos(1_700_000_000_000_000_000 + time);
    let payload_len = payload.len() as u32;
    TcpSegment {
        time,
        key,
        side,
        seq: SeqNum(seq),
        ack: SeqNum(1),
        flags,
        window: 1,
        payload,
        payload_len,
        envelope: Default::default(),
    }
}

/// Sends `count` segments whose flow and sequence number `pick` chooses; prints the best of three rounds.
fn measure(
    name: &str,
    limits: &StreamLimits,
    count: u32,
    pick: impl Fn(u32) -> TcpSegment<'static>,
    warm: u32,
) {
    let mut best = f64::MAX;
    let mut bytes = 0;
    let mut open = 0;
    for _ in 0..3 {
        let mut table = FlowTable::new(limits.clone(), 42);
        let mut sink = Sum(0);
        for n in 0..warm {
            table.segment(&pick(n), &mut sink);
        }
        let before = table.counters().payload_bytes_total;
        let start = Instant::now();
        for n in warm..warm + count {
            table.segment(black_box(&pick(n)), &mut sink);
        }
        best = best.min(start.elapsed().as_secs_f64());
        bytes = table.counters().payload_bytes_total - before;
        open = table.flows_open();
        assert!(table.counters().is_balanced(table.held_bytes(), open));
    }
    let nanos = best * 1e9 / f64::from(count);
    println!("{name:32} {nanos:7.1} ns/segment {:7.2} GB/s {open:9} flows open", bytes as f64 / best / 1e9);
}

fn main() {
    let limits = StreamLimits { flows_max: 2_000_000, ..StreamLimits::default() };
    let ack = TcpFlags::ACK;
    let payload = &PAYLOAD[..];
    measure(
        "reassemble_in_order",
        &limits,
        4_000_000,
        |n| segment(1, n.wrapping_mul(1400), u64::from(n) * 1000, ack, payload),
        10,
    );
    let shuffled = |n: u32| match n % 20 {
        18 => n + 1,
        19 => n - 1,
        _ => n,
    };
    measure(
        "reassemble_10pct_reordered",
        &limits,
        4_000_000,
        |n| segment(1, shuffled(n).wrapping_mul(1400), u64::from(n) * 1000, ack, payload),
        20,
    );
    for flows in [1_000u32, 100_000, 1_000_000] {
        let spread = |n: u32| {
            let (round, at) = (n / flows, n % flows);
            // A fixed odd stride visits every flow, far apart in memory.
            let id = (u64::from(at) * 610_639 % u64::from(flows)) as u32;
            segment(id, round.wrapping_mul(100), u64::from(n) * 1000, ack, &payload[..100])
        };
        measure(&format!("in_order_{flows}_flows"), &limits, 2_000_000, spread, flows * 2);
    }
    let flood = |n: u32| segment(n, n, u64::from(n) * 100, TcpFlags::SYN, &[]);
    measure("syn_flood_1m", &StreamLimits::default(), 1_000_000, flood, 0);
    // Descending one-byte segments behind a hole that is never filled.
    let tiny = |n: u32| {
        segment(1, if n == 0 { 1 } else { 3_000_000 - n * 2 }, u64::from(n) * 1000, ack, &payload[..1])
    };
    measure("descending_tiny", &StreamLimits::default(), 1_000_000, tiny, 1);
}
