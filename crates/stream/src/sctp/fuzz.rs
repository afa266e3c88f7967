//! The body of the fuzz target `sctp_packets`.

use offpath_packet::SctpPacket;
use offpath_types::{Chunk, Direction, Envelope, FlowInfo, FlowKey, Host, Peer, Timestamp, TunnelId};

use super::SctpTable;
use crate::{FlowTable, StreamLimits, StreamSink};

/// Counts what flows are given.
#[derive(Default)]
struct Told {
    bytes: u64,
    open: u64,
}

impl StreamSink for Told {
    type Flow = [u64; 2];

    fn open(&mut self, flow: &FlowInfo) -> [u64; 2] {
        assert!(flow.key.stream().is_some());
        self.open += 1;
        [0; 2]
    }

    fn chunk(&mut self, at: &mut [u64; 2], _: &FlowInfo, side: Direction, chunk: Chunk<'_>, _: Timestamp) {
        let at = &mut at[side.index()];
        match chunk {
            Chunk::Data { bytes, offset, .. } => {
                assert_eq!(offset, *at, "in order");
                *at += bytes.len() as u64;
                self.bytes += bytes.len() as u64;
            }
            Chunk::Gap { len, offset, .. } => {
                assert_eq!(offset, *at, "in order");
                *at += len;
            }
            Chunk::End { .. } => {}
        }
    }

    fn wants(&self, _: &[u64; 2], _: Direction) -> bool {
        true
    }

    fn close(&mut self, _: [u64; 2], _: &FlowInfo, _: Timestamp) {
        self.open -= 1;
    }
}

/// Feeds made-up packets of one address pair to a table with small limits, and asserts what must hold for any input.
///
/// Shape: records of two bytes and a payload. The first byte: bit 0, the side; bits 1 and 2, the tag (0, 1 or 2: both
/// sides use 1, 3: another); bit 3, another pair; bit 4, a second has passed; bit 5, a minute has. The second: the
/// payload's length. Bit 6 of the first: the frame was cut.
pub fn fuzz_sctp_packets(data: &[u8]) {
    let limits = StreamLimits {
        held_segments_per_direction_max: 8,
        sctp_held_bytes_max: 2048,
        sctp_associations_max: 2,
        sctp_streams_max: 4,
        ..StreamLimits::default()
    };
    let (mut sctp, mut table) = (SctpTable::new(limits.clone()), FlowTable::new(limits.clone(), 7));
    let (mut told, mut rest, mut now) = (Told::default(), data, Timestamp::from_parts(1_000, 0));
    while let Some(([shape, len], tail)) = rest.split_first_chunk() {
        let (payload, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        now = now.plus_nanos(1_000_000).plus_secs(u64::from(shape >> 4 & 1) + 60 * u64::from(shape >> 5 & 1));
        let peer = |last| Peer { host: Host::from_v4([192, 0, 2, last]), port: 80 + u16::from(last) };
        let (a, b) = (peer(1), peer(2 + (shape >> 3 & 1)));
        let (src, dst) = if shape & 1 == 0 { (a, b) } else { (b, a) };
        let (key, side) = FlowKey::new(src, dst, TunnelId(0));
        let payload_len = payload.len() as u32 + 9 * u32::from(shape >> 6 & 1);
        let (tag, time, envelope) = (u32::from(shape >> 1 & 3), now, Envelope::NONE);
        let packet = SctpPacket { time, key, side, tag, payload, payload_len, envelope };
        sctp.packet(key.hash64(7), &packet, &mut table, &mut told);
        let x = sctp.counters();
        assert!(x.is_balanced(), "{x:?}");
        assert!(
            x.associations_held <= 2 && x.chunks_held <= 32 && x.bytes_held <= limits.sctp_held_bytes_max
        );
        assert_eq!(x.segments_total, table.counters().segments_total);
        assert_eq!(x.bytes_passed_total, table.counters().payload_bytes_total);
    }
    sctp.finish(&mut table, &mut told);
    table.finish(&mut told);
    let (x, s) = (sctp.counters(), table.counters());
    assert!(x.is_balanced() && s.is_balanced(0, 0), "{x:?} {s:?}");
    assert_eq!((x.chunks_held, x.associations_held, told.open), (0, 0, 0));
    assert_eq!(told.bytes, s.bytes_delivered_total);
}
