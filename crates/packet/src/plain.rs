//! The frame that nearly all frames are: Ethernet, IPv4 without options or fragmentation, TCP, captured whole.
//!
//! Everything else, and everything odd, is left to [`walk`](crate::walk): this takes a frame only where it says the
//! same (`what_is_taken_is_what_walking_finds`).

use offpath_types::{Envelope, FlowKey, Frame, Host, LinkType, Peer, TunnelId};

use crate::duplicates::Found;
use crate::{SeqNum, TcpFlags, TcpSegment};

/// Ethernet and the two headers without options.
const HEADERS: usize = 14 + 20 + 20;

/// Returns the segment of a plain frame; `None` says nothing about others.
#[inline]
pub(crate) fn segment<'b>(frame: &Frame<'b>) -> Option<Found<'b>> {
    let head = frame.bytes.first_chunk::<HEADERS>()?;
    // EtherType IPv4, version 4 with 5 words, no fragment (RFC 791 §3.1), TCP.
    let plain = head[12..15] == [0x08, 0x00, 0x45] && head[20] & 0x3f == 0 && head[21] == 0 && head[23] == 6;
    if !plain || frame.link != LinkType::Ethernet {
        return None;
    }
    let at = |i: usize| u16::from_be_bytes([head[i], head[i + 1]]);
    let word = |i: usize| u32::from_be_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
    let end = 14 + usize::from(at(16));
    let start = 34 + usize::from(head[46] >> 4) * 4;
    if start < HEADERS || start > end {
        return None;
    }
    // Not there where the frame was cut.
    let payload = frame.bytes.get(start..end)?;
    let src = Peer { host: Host::from_v4([head[26], head[27], head[28], head[29]]), port: at(34) };
    let dst = Peer { host: Host::from_v4([head[30], head[31], head[32], head[33]]), port: at(36) };
    let (key, side) = FlowKey::new(src, dst, TunnelId(0));
    let segment = TcpSegment {
        time: frame.time,
        key,
        side,
        seq: SeqNum(word(38)),
        ack: SeqNum(word(42)),
        flags: TcpFlags::from_bits(head[47]),
        window: at(48),
        payload,
        payload_len: (end - start) as u32,
        envelope: Envelope::NONE,
    };
    Some(Found { segment, options: frame.bytes.get(HEADERS..start)?, ip_id: at(18) })
}

#[cfg(test)]
mod tests {
    use offpath_types::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::walk::{Context, Cursor, Leaf, first_layer, walk};

    /// Compares with the walk; tells whether the frame was taken.
    fn check(bytes: &[u8], wire_len: u32) -> bool {
        let frame = Frame { time: Timestamp::from_nanos(5), link: LinkType::Ethernet, wire_len, bytes };
        let Some(plain) = segment(&frame) else { return false };
        let context = Context { time: frame.time, depth_max: 4, vlan_in_key: true, erspan_in_key: true };
        let next = first_layer(frame.link).unwrap();
        let Leaf::Tcp(walked) = walk(&context, Cursor::new(bytes, wire_len), next) else {
            panic!("walking finds no segment in {bytes:x?}");
        };
        assert_eq!(format!("{plain:?}"), format!("{walked:?}"));
        true
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADERS];
        bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
        bytes[16..18].copy_from_slice(&(40 + payload.len() as u16).to_be_bytes());
        bytes[23] = 6;
        bytes[26..34].copy_from_slice(&[192, 0, 2, 1, 198, 51, 100, 2]);
        bytes[34..38].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        bytes[38..46].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        bytes[46..50].copy_from_slice(&[0x50, 0x18, 0x10, 0]);
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn plain_frames_are_taken_and_cut_or_odd_ones_are_not() {
        let whole = frame(b"GET / HTTP/1.1\r\n\r\n");
        assert!(check(&whole, whole.len() as u32));
        let mut padded = whole.clone();
        padded.extend_from_slice(&[0; 9]);
        assert!(check(&padded, padded.len() as u32));
        for len in 0..whole.len() {
            assert!(!check(&whole[..len], whole.len() as u32), "{len}");
        }
        for (name, at, byte) in [
            ("ARP", 13, 6),
            ("options", 14, 0x46),
            ("version", 14, 0x65),
            ("more fragments", 20, 0x20),
            ("offset", 21, 1),
            ("UDP", 23, 17),
            ("length too long", 16, 1),
            ("length 0", 17, 0),
            ("short TCP header", 46, 0x40),
            ("long TCP header", 46, 0xf0),
        ] {
            let mut odd = whole.clone();
            odd[at] = byte;
            assert!(!check(&odd, odd.len() as u32), "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_walking_finds(
            payload in prop::collection::vec(any::<u8>(), 0..80),
            changes in prop::collection::vec((12usize..54, any::<u8>()), 0..4),
            more: u8,
        ) {
            let mut bytes = frame(&payload);
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let wire_len = bytes.len() as u32 + u32::from(more % 3);
            check(&bytes, wire_len);
        }
    }
}
