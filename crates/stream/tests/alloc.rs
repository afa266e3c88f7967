//! An in-order segment allocates nothing.

#[path = "../../testkit/allocations.rs"]
mod allocations;

use allocations::allocations;
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
            *state += bytes.len() as u64;
        }
    }
    fn wants(&self, _: &u64, _: Direction) -> bool {
        true
    }
    fn close(&mut self, state: u64, _: &FlowInfo, _: Timestamp) {
        self.0 += state;
    }
}

#[test]
fn in_order_and_ordinarily_reordered_segments_allocate_nothing() {
    let payload = [7u8; 1400];
    let client = Peer { host: Host::from_v4([10, 0, 0, 1]), port: 50_000 };
    let server = Peer { host: Host::from_v4([10, 0, 0, 2]), port: 80 };
    let (key, side) = FlowKey::new(client, server, TunnelId(0));
    let mut table = FlowTable::new(StreamLimits::default(), 1);
    let mut sink = Sum(0);
    let mut time = Timestamp::from_parts(1_700_000_000, 0);
    let mut send = |table: &mut FlowTable<Sum>, sink: &mut Sum, n: u32| {
        time = time.plus_nanos(100_000);
        let seq = SeqNum(n.wrapping_mul(1400));
        let segment = TcpSegment {
            time,
            key,
            side,
            seq,
            ack: SeqNum(1),
            flags: TcpFlags::ACK,
            window: 1,
            payload: &payload,
            payload_len: 1400,
            envelope: Default::default(),
        };
        table.segment(&segment, sink);
    };
    for n in [0, 2, 1] {
        send(&mut table, &mut sink, n);
    }
    let before = allocations();
    for n in 3..10_003 {
        send(&mut table, &mut sink, n);
    }
    assert_eq!(allocations() - before, 0, "in order");
    // Swapped neighbours reuse the buffers of the first swap, above; what is left is the queue of pieces.
    for n in (10_003..20_003).step_by(2) {
        send(&mut table, &mut sink, n + 1);
        send(&mut table, &mut sink, n);
    }
    assert_eq!(allocations() - before, 0, "swapped neighbours");
    table.finish(&mut sink);
    assert_eq!(sink.0, 20_003 * 1400);
}
