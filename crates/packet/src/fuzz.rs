//! The body of the fuzz target `decode_frame`.

use offpath_types::{Frame, LinkType, Timestamp};

use crate::{Decoder, DecoderLimits, DuplicateSearch, Outcome};

/// Decodes a made-up capture and asserts what must hold for any input.
///
/// Shape: one byte of link type (index into the supported ones), then records of 2 bytes length (big
/// endian; bit 15: the frame was cut by a snap length; bit 14: a second has passed) and as many bytes.
/// The last record may be short.
pub fn fuzz_decode_frame(data: &[u8]) {
    const LINKS: [u32; 11] = [1, 0, 108, 101, 228, 229, 113, 276, 9, 104, 147];
    const LIMITS: DecoderLimits = DecoderLimits {
        tunnel_depth_max: 4,
        defrag_bytes_max: 4096,
        defrag_datagrams_max: 4,
        defrag_timeout_secs: 5,
        vlan_in_key: true,
        erspan_in_key: true,
        duplicates: DuplicateSearch::On,
        duplicates_window_nanos: 10_000_000,
        seed: 7,
    };

    let Some((first, mut rest)) = data.split_first() else { return };
    let link = LinkType::from_number(LINKS[usize::from(*first) % LINKS.len()]);
    let mut decoder = Decoder::new(LIMITS);
    let mut secs = 0;
    while let Some(([high, low], tail)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([*high & 0x3f, *low])).min(tail.len());
        secs += u64::from(*high >> 6 & 1);
        let (bytes, tail) = tail.split_at(len);
        rest = tail;
        let cut = u32::from(*high >> 7) * 100;
        let frame =
            Frame { time: Timestamp::from_parts(secs, 0), link, wire_len: bytes.len() as u32 + cut, bytes };
        match decoder.decode(&frame) {
            Outcome::Tcp(segment) => {
                assert!(segment.payload.len() as u64 <= u64::from(segment.payload_len));
                assert!(segment.payload.len() <= 65_535 || segment.payload.len() <= bytes.len());
                assert_eq!(segment.time, frame.time);
            }
            Outcome::Sctp(packet) => {
                assert!(packet.payload.len() as u64 <= u64::from(packet.payload_len));
                assert_eq!(packet.time, frame.time);
            }
            _ => {}
        }
        assert!(decoder.defrag_held_bytes() <= LIMITS.defrag_bytes_max);
        assert!(decoder.datagrams_open() <= LIMITS.defrag_datagrams_max);
    }
    let counters = decoder.counters();
    assert!(counters.is_balanced());
    assert_eq!(
        counters.datagrams_total,
        counters.datagrams_completed_total
            + counters.datagrams_expired_total
            + counters.datagrams_evicted_total
            + counters.datagrams_rejected_total
            + decoder.datagrams_open() as u64
    );
}
