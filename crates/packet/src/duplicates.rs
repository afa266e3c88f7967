//! Finds packets that were captured twice: both ports of a switch mirrored, or both sides of a router.
//!
//! In: TCP segments with what their headers say. Out: whether the same packet was seen a moment ago.
//!
//! Two captures are the same packet if everything agrees that is the same on both ports: addresses and ports, address
//! plan, IP id, the whole TCP header but its checksum, and every captured payload byte, within a window of packet time.
//! Link headers, VLAN tags that are no part of the flow key, hop limits and checksums do not count: they differ between
//! ports, or are left to the network card. A retransmission has another IP id or timestamp option, or comes later than
//! the window; it is kept, since what it says about the network is worth knowing.
//!
//! Bare acknowledgements without an IP id (IPv6, or an id of 0) may repeat in earnest and are never taken for copies.
//!
//! Bounds: a table of fixed size, allocated with the first look; the newest packet takes the place of an older one.

use offpath_types::Timestamp;

use crate::TcpSegment;

/// When packets are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DuplicateSearch {
    /// Never: copies reach reassembly, which delivers each byte once.
    Off,
    /// One packet in 64, chosen by its contents, and every packet while one in twenty of those is a copy.
    #[default]
    Auto,
    /// Always.
    On,
}

/// A TCP segment and what else tells packets apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'b> {
    pub(crate) segment: TcpSegment<'b>,
    /// Options of the TCP header.
    pub(crate) options: &'b [u8],
    /// Of the innermost IPv4 header; 0 of IPv6.
    pub(crate) ip_id: u16,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    print: u64,
    seen: Timestamp,
}

/// Remembers the packets of a short while.
// Invariant: `entries` is empty or has ENTRIES; the entry of a packet stands at one of two places its print names.
#[derive(Default)]
pub(crate) struct Duplicates {
    entries: Vec<Entry>,
    /// Every packet is compared.
    armed: bool,
    samples: u32,
    samples_copied: u32,
}

/// 256 KiB; at 10 ms, more than two million packets a second before places are lost.
const ENTRIES: usize = 1 << 14;
/// Of the sampled packets: how many make a verdict, and which share arms the search.
const SAMPLES: u32 = 64;
const ARMED_FROM: u32 = SAMPLES / 20;

impl Duplicates {
    /// Tells whether `found` was seen within `window_nanos` before, and remembers it.
    #[inline]
    pub(crate) fn is_copy(
        &mut self,
        search: DuplicateSearch,
        window_nanos: u64,
        seed: u64,
        found: &Found<'_>,
    ) -> bool {
        let sampled = match search {
            DuplicateSearch::Off => return false,
            DuplicateSearch::On => false,
            DuplicateSearch::Auto => {
                // The top 6 bits of a product are as good as random; both copies agree on them.
                let sampled = found.segment.seq.0.wrapping_mul(0x9e37_79b1) >> 26 == 0;
                if !sampled && !self.armed {
                    return false;
                }
                sampled
            }
        };
        self.look(window_nanos, seed, found, sampled)
    }

    #[cold]
    fn look(&mut self, window_nanos: u64, seed: u64, found: &Found<'_>, sampled: bool) -> bool {
        let segment = &found.segment;
        let bare =
            segment.payload_len == 0 && !(segment.flags.syn() || segment.flags.fin() || segment.flags.rst());
        if bare && found.ip_id == 0 {
            return false;
        }
        if self.entries.is_empty() {
            self.entries = vec![Entry::default(); ENTRIES];
        }
        let print = print(seed, found);
        let places = [print as usize % ENTRIES, (print >> 32) as usize % ENTRIES];
        let held = |place: usize| {
            let entry = &self.entries[place];
            entry.print == print && segment.time.nanos_since(entry.seen) <= window_nanos
        };
        let copy = places.into_iter().any(held);
        if !copy {
            let [a, b] = places;
            let place = if self.entries[a].seen <= self.entries[b].seen { a } else { b };
            self.entries[place] = Entry { print, seen: segment.time };
        }
        if sampled {
            self.samples += 1;
            self.samples_copied += u32::from(copy);
            if self.samples == SAMPLES {
                self.armed = self.samples_copied > ARMED_FROM;
                (self.samples, self.samples_copied) = (0, 0);
            }
        }
        copy
    }
}

impl std::fmt::Debug for Duplicates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Duplicates").field("armed", &self.armed).finish_non_exhaustive()
    }
}

/// Returns a seeded hash of everything that two captures of one packet have in common. Without the seed nobody can make
/// a packet that is taken for another one.
fn print(seed: u64, found: &Found<'_>) -> u64 {
    let s = &found.segment;
    let mut hash = s.key.hash64(seed);
    let mut mix = |word: u64| hash = fold(hash ^ word, seed ^ 0xa076_1d64_78bd_642f);
    mix(u64::from(s.seq.0) << 32 | u64::from(s.ack.0));
    mix(u64::from(found.ip_id) << 48
        | u64::from(s.window) << 32
        | u64::from(s.flags.bits()) << 8
        | s.side as u64);
    mix(u64::from(s.payload_len) << 32 | s.payload.len() as u64);
    for bytes in [found.options, s.payload] {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        mix(u64::from_le_bytes(last) ^ (rest.len() as u64) << 56);
    }
    hash
}

/// The 128-bit folded multiply of wyhash (Wang Yi, 2019).
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use offpath_types::{Frame, LinkType};

    use super::*;
    use crate::testing::*;
    use crate::{Decoder, DecoderLimits, Outcome};

    fn decoder(duplicates: DuplicateSearch) -> Decoder {
        Decoder::new(DecoderLimits { duplicates, seed: 99, ..DecoderLimits::default() })
    }

    /// Decodes `bytes` at `micros`; tells whether they were a copy.
    fn copy(decoder: &mut Decoder, micros: u64, bytes: &[u8]) -> bool {
        let time = Timestamp::from_nanos(1_000_000_000 + micros * 1000);
        let frame = Frame { time, link: LinkType::Ethernet, wire_len: bytes.len() as u32, bytes };
        let copy = match decoder.decode(&frame) {
            Outcome::Tcp(_) => false,
            Outcome::Duplicate => true,
            other => panic!("{other:?}"),
        };
        assert!(decoder.counters().is_balanced());
        copy
    }

    fn changed(at: usize, value: u8) -> Vec<u8> {
        let mut bytes = eth_tcp();
        bytes[at] = value;
        bytes
    }

    #[test]
    fn what_differs_between_ports_does_not_count_and_what_tells_packets_apart_does() {
        let plain = eth_tcp();
        let (ip, tcp) = (14, 34);
        let tagged = eth(0x8100, &cat(&[&[0, 42], &plain[12..]]));
        let rows: Vec<(&str, Vec<u8>, bool)> = vec![
            ("the same", plain.clone(), true),
            ("another MAC address", changed(0, 0x12), true),
            ("a VLAN tag", tagged, true),
            ("padding", cat(&[&plain, &[0; 9]]), true),
            ("hop limit", changed(ip + 8, 63), true),
            ("IP checksum", changed(ip + 10, 1), true),
            ("TCP checksum", changed(tcp + 16, 1), true),
            ("in ERSPAN", over_gre(&[0, 0, 0x88, 0xbe], &plain), true),
            ("IP id: a retransmission", changed(ip + 5, 2), false),
            ("timestamp option: a retransmission", changed(tcp + 27, 9), false),
            ("sequence number", changed(tcp + 7, 1), false),
            ("acknowledgement", changed(tcp + 11, 1), false),
            ("flags", changed(tcp + 13, 0x10), false),
            ("window", changed(tcp + 15, 1), false),
            ("the last payload byte", changed(plain.len() - 1, b'x'), false),
            ("the source address", changed(ip + 15, 7), false),
            ("in VXLAN, another network", over_udp(4789, &vxlan(7, &plain)), false),
        ];
        for (name, bytes, want) in rows {
            let mut decoder = decoder(DuplicateSearch::On);
            assert!(!copy(&mut decoder, 0, &plain), "{name}");
            assert_eq!(copy(&mut decoder, 300, &bytes), want, "{name}");
            assert_eq!(decoder.counters().frames_duplicate_total, u64::from(want), "{name}");
        }
    }

    #[test]
    fn the_window_is_packet_time_and_starts_with_the_first_copy() {
        let plain = eth_tcp();
        let mut decoder = decoder(DuplicateSearch::On);
        for (micros, want) in [(0, false), (9_000, true), (10_000, true), (10_001, false), (20_001, true)] {
            assert_eq!(copy(&mut decoder, micros, &plain), want, "{micros}");
        }
        // Off: the reassembly sees both.
        let mut off = self::decoder(DuplicateSearch::Off);
        assert!(!copy(&mut off, 0, &plain) && !copy(&mut off, 0, &plain));
        assert!(off.counters().frames_duplicate_total == 0);
    }

    #[test]
    fn bare_acknowledgements_without_an_id_are_kept_and_other_bare_segments_are_not() {
        let with = |id: u8, flags: u8| {
            let mut bytes = eth(0x0800, &ip4(6, &tcp(b"")));
            (bytes[14 + 4], bytes[14 + 5], bytes[34 + 13]) = (0, id, flags);
            bytes
        };
        for (name, bytes, want) in [
            ("ACK, id 0", with(0, 0x10), false),
            ("ACK, id 5", with(5, 0x10), true),
            ("SYN, id 0", with(0, 0x02), true),
            ("FIN, id 0", with(0, 0x11), true),
            ("ACK over IPv6", eth(0x86dd, &ip6(6, &tcp(b""))), false),
            ("data over IPv6", eth(0x86dd, &ip6(6, &tcp(HELLO))), true),
        ] {
            let mut decoder = decoder(DuplicateSearch::On);
            assert!(!copy(&mut decoder, 0, &bytes), "{name}");
            assert_eq!(copy(&mut decoder, 1, &bytes), want, "{name}");
        }
    }

    #[test]
    fn the_search_arms_itself_where_packets_come_twice_and_rests_again() {
        let mut decoder = decoder(DuplicateSearch::Auto);
        let mut number = 0u32;
        let mut removed = |decoder: &mut Decoder, packets: u32, twice: bool| {
            let before = decoder.counters().frames_duplicate_total;
            for _ in 0..packets {
                number += 1;
                let mut bytes = eth_tcp();
                bytes[34 + 4..34 + 8].copy_from_slice(&number.wrapping_mul(1448).to_be_bytes());
                // The helper's decode asserts on nothing that depends on the sequence number.
                copy(decoder, u64::from(number) * 10, &bytes);
                if twice {
                    copy(decoder, u64::from(number) * 10 + 3, &bytes);
                }
            }
            decoder.counters().frames_duplicate_total - before
        };
        assert_eq!(removed(&mut decoder, 20_000, false), 0);
        let learning = removed(&mut decoder, 20_000, true);
        assert!(learning > 12_000, "{learning}");
        assert_eq!(removed(&mut decoder, 5_000, true), 5_000, "armed");
        removed(&mut decoder, 20_000, false);
        let sampled = removed(&mut decoder, 1_000, true);
        assert!(sampled < 200, "rests: {sampled} of 1000");
        // The table is full many times over by now: it forgets, and never grows.
        assert_eq!(decoder.counters().frames_total, 92_000);
    }
}
