//! Puts IP datagrams together from their fragments.
//!
//! In: fragments in capture order, inside tunnels too. Out: whole datagram payloads.
//! Keeps at most `DecoderLimits::defrag_bytes_max` bytes (bookkeeping included) in at most
//! `defrag_datagrams_max` datagrams; the oldest are evicted to make room. A datagram is given up
//! `defrag_timeout_secs` of packet time after its first seen fragment; this is noticed when the next
//! fragment of any datagram arrives, which is also the only time that memory is asked for.
//!
//! Overlaps: an exact repetition is normal (mirrors duplicate). Otherwise IPv4 keeps the first copy of each
//! byte, as reassembly of TCP does, and IPv6 discards the datagram with all that still comes of it
//! (RFC 5722). Read RFC 791 §3.2, RFC 8200 §4.5 and RFC 5722 before changing this file.
//! etherparse's `IpDefragPool` was considered and has no cap.

use std::collections::BTreeMap;

use offpath_types::{Envelope, Timestamp};

use crate::walk::{Cursor, Ends, Fragment, FragmentKey, Next};
use crate::{DecodeCounters, DecodeError, DecoderLimits, LengthSource};

/// Largest payload of a datagram (16-bit lengths).
const DATAGRAM_LEN_MAX: u32 = 65_535;
/// What a held piece and a datagram cost besides their bytes: tree node shares and allocator overhead,
/// rounded up. Charged so that many tiny fragments cannot exceed the cap.
const PIECE_OVERHEAD: usize = 64;
const DATAGRAM_OVERHEAD: usize = 256;

/// Unfinished datagrams.
// Invariant: `by_age` holds exactly the keys of `datagrams`, each under its `arrival`; `held_bytes` is the
// sum of their `cost`; `rejected` is how many of them are.
// Ordered trees rather than hash tables: fragments are rare, the order is needed for eviction, and there is
// no seed whose effect could show.
#[derive(Debug, Default)]
pub(crate) struct Defrag {
    datagrams: BTreeMap<FragmentKey, Datagram>,
    by_age: BTreeMap<u64, FragmentKey>,
    arrivals: u64,
    held_bytes: usize,
    rejected: usize,
}

// Invariant: `pieces` are disjoint, none is empty, each lies within 0..`end` where that is known;
// `covered` is the sum of their lengths and `highest` the largest end.
#[derive(Debug)]
struct Datagram {
    arrival: u64,
    first_seen: Timestamp,
    pieces: BTreeMap<u32, Box<[u8]>>,
    covered: u32,
    highest: u32,
    /// Payload length, known once the last fragment was seen.
    end: Option<u32>,
    /// What the payload begins with, from the fragment at offset 0.
    number: u8,
    cost: usize,
    /// An IPv6 datagram with an overlap; only kept to recognise the rest of it.
    rejected: bool,
}

/// What became of a fragment.
pub(crate) enum Added {
    /// It is held, or repeats what is held.
    Held,
    /// It completed its datagram.
    Complete(Whole),
    /// It cannot be used.
    Dropped(DecodeError),
}

/// A completed datagram: its payload and how to go on.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    bytes: Vec<u8>,
    surroundings: Option<Surroundings>,
}

#[derive(Clone, Copy, Debug)]
struct Surroundings {
    next_number: u8,
    /// Source and destination; IPv4 uses the first 8 bytes.
    ends: [u8; 32],
    v6: bool,
    tunnel: u64,
    depth: u8,
    tags: u8,
    envelope: Envelope,
}

impl Whole {
    fn new(bytes: Vec<u8>, next_number: u8, fragment: &Fragment<'_>) -> Self {
        let key = &fragment.key;
        let mut ends = [0; 32];
        if key.v6 {
            ends[..16].copy_from_slice(key.src.octets());
            ends[16..].copy_from_slice(key.dst.octets());
        } else {
            ends[..4].copy_from_slice(&key.src.octets()[12..]);
            ends[4..8].copy_from_slice(&key.dst.octets()[12..]);
        }
        let surroundings = Surroundings {
            next_number,
            ends,
            v6: key.v6,
            tunnel: key.tunnel,
            depth: fragment.cursor.depth,
            tags: fragment.cursor.tags,
            envelope: fragment.cursor.envelope,
        };
        Self { bytes, surroundings: Some(surroundings) }
    }

    /// Returns where to go on: the payload and what it begins with. `None` before the first datagram.
    pub(crate) fn resume(&self) -> Option<(Cursor<'_>, Next<'_>)> {
        let s = self.surroundings.as_ref()?;
        let cursor = Cursor {
            bytes: &self.bytes,
            cut: 0,
            bound: LengthSource::Assembled,
            tunnel: s.tunnel,
            depth: s.depth,
            tags: s.tags,
            envelope: s.envelope,
            // Its fragments had one; none is told from the other any more.
            ip_id: 0,
        };
        let ends = if s.v6 { Ends::V6(&s.ends) } else { Ends::V4(s.ends.first_chunk()?) };
        Some((cursor, Next::Transport { number: s.next_number, ends }))
    }
}

impl Defrag {
    /// Returns how many datagrams are unfinished and may still complete.
    pub(crate) fn open(&self) -> usize {
        self.datagrams.len() - self.rejected
    }

    /// Returns the bytes held, bookkeeping included.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Takes one fragment in. Cost: O(log n) in what is held, plus linear in the fragment.
    pub(crate) fn add(
        &mut self,
        time: Timestamp,
        fragment: &Fragment<'_>,
        limits: &DecoderLimits,
        counters: &mut DecodeCounters,
    ) -> Added {
        self.expire(time, limits, counters);
        match self.hold(time, fragment, limits, counters) {
            Ok(()) => {}
            Err(error) => return Added::Dropped(error),
        }
        self.complete(fragment, counters).map_or(Added::Held, Added::Complete)
    }

    fn hold(
        &mut self,
        time: Timestamp,
        fragment: &Fragment<'_>,
        limits: &DecoderLimits,
        counters: &mut DecodeCounters,
    ) -> Result<(), DecodeError> {
        let bytes = fragment.cursor.bytes;
        if fragment.cursor.cut > 0 {
            return Err(DecodeError::FragmentTruncated {
                needed: fragment.cursor.wire_len(),
                available: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            });
        }
        let start = fragment.offset;
        let end = u32::try_from(bytes.len()).unwrap_or(u32::MAX).saturating_add(start);
        if bytes.is_empty() || end > DATAGRAM_LEN_MAX || (fragment.more && !bytes.len().is_multiple_of(8)) {
            return Err(DecodeError::FragmentInvalid);
        }

        let known = self.datagrams.get(&fragment.key);
        let (holes, cost) = match known {
            Some(datagram) if datagram.rejected => return Err(DecodeError::FragmentOverlap),
            Some(datagram) => {
                datagram.check_end(end, fragment.more)?;
                match datagram.compare(start, bytes) {
                    Overlap::Repeats => {
                        counters.fragments_duplicate_total += 1;
                        return Ok(());
                    }
                    Overlap::Conflicts if fragment.key.v6 => {
                        counters.fragments_overlapping_total += 1;
                        self.reject(&fragment.key, counters);
                        return Err(DecodeError::FragmentOverlap);
                    }
                    Overlap::Conflicts => {
                        counters.fragments_overlapping_total += 1;
                        let holes = datagram.holes(start, end);
                        let cost = holes.iter().map(|(s, e)| (e - s) as usize + PIECE_OVERHEAD).sum();
                        (Some(holes), cost)
                    }
                    Overlap::None => (None, bytes.len() + PIECE_OVERHEAD),
                }
            }
            None => (None, bytes.len() + PIECE_OVERHEAD + DATAGRAM_OVERHEAD),
        };
        let new = known.is_none();
        self.make_room(&fragment.key, new, cost, limits, counters)?;

        if new {
            self.arrivals += 1;
            self.by_age.insert(self.arrivals, fragment.key);
            counters.datagrams_total += 1;
        }
        let arrival = self.arrivals;
        let datagram = self.datagrams.entry(fragment.key).or_insert_with(|| Datagram {
            arrival,
            first_seen: time,
            pieces: BTreeMap::new(),
            covered: 0,
            highest: 0,
            end: None,
            number: fragment.number,
            cost: 0,
            rejected: false,
        });
        datagram.cost += cost;
        self.held_bytes += cost;
        datagram.highest = datagram.highest.max(end);
        if !fragment.more {
            datagram.end = Some(end);
        }
        if start == 0 {
            datagram.number = fragment.number;
        }
        let whole = [(start, end)];
        for &(hole_start, hole_end) in holes.as_deref().unwrap_or(&whole) {
            let piece = bytes.get((hole_start - start) as usize..(hole_end - start) as usize);
            let piece = piece.unwrap_or_default();
            datagram.covered += hole_end - hole_start;
            datagram.pieces.insert(hole_start, piece.into());
        }
        Ok(())
    }

    /// Takes the fragment's datagram out, if that is whole.
    fn complete(&mut self, fragment: &Fragment<'_>, counters: &mut DecodeCounters) -> Option<Whole> {
        let datagram = self.datagrams.get(&fragment.key)?;
        if datagram.end != Some(datagram.covered) {
            return None;
        }
        let datagram = self.remove(&fragment.key)?;
        counters.datagrams_completed_total += 1;
        let mut bytes = Vec::with_capacity(datagram.covered as usize);
        for piece in datagram.pieces.values() {
            bytes.extend_from_slice(piece);
        }
        Some(Whole::new(bytes, datagram.number, fragment))
    }

    /// Gives up what has waited too long.
    fn expire(&mut self, time: Timestamp, limits: &DecoderLimits, counters: &mut DecodeCounters) {
        let timeout_nanos = u64::from(limits.defrag_timeout_secs) * 1_000_000_000;
        while let Some((_, &key)) = self.by_age.first_key_value() {
            if self.datagrams.get(&key).is_some_and(|d| time.nanos_since(d.first_seen) <= timeout_nanos) {
                return;
            }
            if self.remove(&key).is_some_and(|d| !d.rejected) {
                counters.datagrams_expired_total += 1;
            }
        }
    }

    /// Evicts the oldest datagrams until `cost` more bytes fit. Fails where they cannot, or where that would
    /// evict the datagram they are for.
    fn make_room(
        &mut self,
        key: &FragmentKey,
        new: bool,
        cost: usize,
        limits: &DecoderLimits,
        counters: &mut DecodeCounters,
    ) -> Result<(), DecodeError> {
        if cost > limits.defrag_bytes_max || limits.defrag_datagrams_max == 0 {
            return Err(DecodeError::FragmentOverCap);
        }
        while self.held_bytes + cost > limits.defrag_bytes_max
            || (new && self.datagrams.len() >= limits.defrag_datagrams_max)
        {
            let Some((_, &oldest)) = self.by_age.first_key_value() else { break };
            if self.remove(&oldest).is_some_and(|d| !d.rejected) {
                counters.datagrams_evicted_total += 1;
            }
            if oldest == *key {
                return Err(DecodeError::FragmentOverCap);
            }
        }
        Ok(())
    }

    fn remove(&mut self, key: &FragmentKey) -> Option<Datagram> {
        let datagram = self.datagrams.remove(key)?;
        self.by_age.remove(&datagram.arrival);
        self.held_bytes -= datagram.cost;
        self.rejected -= usize::from(datagram.rejected);
        Some(datagram)
    }

    /// Frees what is held of an IPv6 datagram and remembers to take no more of it.
    fn reject(&mut self, key: &FragmentKey, counters: &mut DecodeCounters) {
        let Some(datagram) = self.datagrams.get_mut(key) else { return };
        self.held_bytes -= datagram.cost - DATAGRAM_OVERHEAD;
        datagram.cost = DATAGRAM_OVERHEAD;
        datagram.pieces.clear();
        datagram.rejected = true;
        self.rejected += 1;
        counters.datagrams_rejected_total += 1;
    }
}

enum Overlap {
    None,
    Repeats,
    Conflicts,
}

impl Datagram {
    /// Checks a fragment against the end that is known, or that it would set.
    fn check_end(&self, end: u32, more: bool) -> Result<(), DecodeError> {
        let fits = match self.end {
            Some(known) if more => end <= known,
            Some(known) => end == known,
            None => more || self.highest <= end,
        };
        if fits { Ok(()) } else { Err(DecodeError::FragmentInvalid) }
    }

    /// Tells how a fragment lies to what is held.
    fn compare(&self, start: u32, bytes: &[u8]) -> Overlap {
        if self.pieces.get(&start).is_some_and(|held| **held == *bytes) {
            return Overlap::Repeats;
        }
        let end = start + bytes.len() as u32;
        let before = self.pieces.range(..start).next_back();
        let reaches_in = before.is_some_and(|(s, piece)| s + piece.len() as u32 > start);
        if reaches_in || self.pieces.range(start..end).next().is_some() {
            Overlap::Conflicts
        } else {
            Overlap::None
        }
    }

    /// Returns the parts of `start..end` that are not held. Linear in the pieces that it spans.
    fn holes(&self, start: u32, end: u32) -> Vec<(u32, u32)> {
        let mut holes = Vec::new();
        let before = self.pieces.range(..start).next_back();
        let mut at = before.map_or(start, |(s, piece)| start.max(s + piece.len() as u32));
        for (&held, piece) in self.pieces.range(start..end) {
            if at < held {
                holes.push((at, held));
            }
            at = held + piece.len() as u32;
        }
        if at < end {
            holes.push((at, end));
        }
        holes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offpath_types::Host;

    struct Bench {
        defrag: Defrag,
        counters: DecodeCounters,
        limits: DecoderLimits,
        now_secs: u64,
    }

    impl Bench {
        fn new(limits: DecoderLimits) -> Self {
            Self { defrag: Defrag::default(), counters: DecodeCounters::default(), limits, now_secs: 1000 }
        }

        fn add(&mut self, id: u32, v6: bool, start: u32, bytes: &[u8], more: bool) -> Added {
            let (src, dst) = (Host::from_v4([1; 4]), Host::from_v4([2; 4]));
            let key = FragmentKey { id, number: if v6 { 0 } else { 6 }, tunnel: 0, src, dst, v6 };
            let cursor = Cursor::new(bytes, bytes.len() as u32);
            let fragment = Fragment { key, offset: start, more, number: 6, cursor };
            let time = Timestamp::from_parts(self.now_secs, 0);
            let added = self.defrag.add(time, &fragment, &self.limits, &mut self.counters);
            self.check();
            added
        }

        /// Asserts the invariants and the books.
        fn check(&self) {
            let d = &self.defrag;
            assert_eq!(d.held_bytes, d.datagrams.values().map(|x| x.cost).sum::<usize>());
            assert_eq!(d.rejected, d.datagrams.values().filter(|x| x.rejected).count());
            assert_eq!(d.datagrams.len(), d.by_age.len());
            assert!(d.held_bytes <= self.limits.defrag_bytes_max);
            assert!(d.datagrams.len() <= self.limits.defrag_datagrams_max);
            for (key, datagram) in &d.datagrams {
                assert_eq!(d.by_age[&datagram.arrival], *key);
                let mut at = 0;
                let mut covered = 0;
                for (start, piece) in &datagram.pieces {
                    assert!(*start >= at && !piece.is_empty());
                    at = start + piece.len() as u32;
                    covered += piece.len() as u32;
                }
                assert!(datagram.rejected || datagram.covered == covered);
            }
            let c = &self.counters;
            assert_eq!(
                c.datagrams_total,
                c.datagrams_completed_total
                    + c.datagrams_expired_total
                    + c.datagrams_evicted_total
                    + c.datagrams_rejected_total
                    + d.open() as u64
            );
        }
    }

    fn payload(added: Added) -> Option<Vec<u8>> {
        match added {
            Added::Complete(whole) => Some(whole.bytes),
            _ => None,
        }
    }

    fn error(added: Added) -> Option<DecodeError> {
        match added {
            Added::Dropped(error) => Some(error),
            _ => None,
        }
    }

    /// Offset, bytes, more to come.
    type Part<'a> = (u32, &'a [u8], bool);

    const A: [u8; 8] = *b"aaaaaaaa";
    const B: [u8; 8] = *b"bbbbbbbb";
    const C: [u8; 3] = *b"ccc";

    #[test]
    fn any_order_and_any_duplicates_give_the_same_datagram() {
        let parts: [Part<'_>; 3] = [(0, &A, true), (8, &B, true), (16, &C, false)];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            for repeat in [1, 3] {
                for v6 in [false, true] {
                    let mut bench = Bench::new(DecoderLimits::default());
                    let mut got = None;
                    for (n, i) in order.into_iter().enumerate() {
                        for _ in 0..if n < 2 { repeat } else { 1 } {
                            let (start, bytes, more) = parts[i];
                            got = payload(bench.add(7, v6, start, bytes, more));
                        }
                    }
                    assert_eq!(
                        got.as_deref(),
                        Some(&b"aaaaaaaabbbbbbbbccc"[..]),
                        "{order:?} x{repeat} v6={v6}"
                    );
                    assert_eq!(bench.counters.fragments_duplicate_total, 2 * (repeat - 1));
                    assert_eq!(bench.counters.fragments_overlapping_total, 0);
                    assert_eq!((bench.defrag.open(), bench.defrag.held_bytes()), (0, 0));
                }
            }
        }
    }

    #[test]
    fn ipv4_overlaps_keep_the_first_copy() {
        // (name, fragments after A at 0 and B at 16, the datagram)
        let cases: [(&str, &[Part<'_>], &[u8]); 5] = [
            ("covers the hole", &[(8, &[b'x'; 8], true), (24, &C, false)], b"aaaaaaaaxxxxxxxxbbbbbbbbccc"),
            ("reaches into both", &[(0, &[b'x'; 24], true), (24, &C, false)], b"aaaaaaaaxxxxxxxxbbbbbbbbccc"),
            ("over everything", &[(0, &[b'x'; 27], false)], b"aaaaaaaaxxxxxxxxbbbbbbbbxxx"),
            (
                "same place, other bytes",
                &[(0, &[b'x'; 8], true), (8, &[b'y'; 19], false)],
                b"aaaaaaaayyyyyyyybbbbbbbbyyy",
            ),
            ("tail inside", &[(8, &[b'x'; 16], false)], b"aaaaaaaaxxxxxxxxbbbbbbbb"),
        ];
        for (name, fragments, want) in cases {
            let mut bench = Bench::new(DecoderLimits::default());
            bench.add(1, false, 0, &A, true);
            bench.add(1, false, 16, &B, true);
            let mut got = None;
            for (start, bytes, more) in fragments {
                got = payload(bench.add(1, false, *start, bytes, *more)).or(got);
            }
            assert_eq!(got.as_deref(), Some(want), "{name}");
        }
    }

    #[test]
    fn ipv6_overlaps_discard_the_datagram_and_the_rest_of_it() {
        let mut bench = Bench::new(DecoderLimits::default());
        bench.add(1, true, 0, &A, true);
        assert_eq!(error(bench.add(1, true, 0, &B, true)), Some(DecodeError::FragmentOverlap));
        assert_eq!(bench.defrag.held_bytes(), DATAGRAM_OVERHEAD);
        assert_eq!(error(bench.add(1, true, 8, &C, false)), Some(DecodeError::FragmentOverlap));
        // Another datagram of the same hosts is not concerned, and the id is free again after the timeout.
        bench.add(2, true, 0, &A, true);
        assert!(payload(bench.add(2, true, 8, &C, false)).is_some());
        bench.now_secs += 31;
        bench.add(1, true, 0, &A, true);
        assert!(payload(bench.add(1, true, 8, &C, false)).is_some());
        assert_eq!(bench.counters.datagrams_rejected_total, 1);
        assert_eq!(bench.counters.datagrams_expired_total, 0);
    }

    #[test]
    fn impossible_fragments_are_refused_and_change_nothing() {
        let long = vec![0; 65_000];
        let cases: [(&str, u32, &[u8], bool); 7] = [
            ("empty", 8, &[], true),
            ("odd length", 8, &C, true),
            ("ping of death", 65_528, &A, false),
            ("past the end", 24, &A, true),
            ("another end", 24, &C, false),
            ("teardrop: an end before the end", 0, &C, false),
            ("far past", 1_000, &long, true),
        ];
        for (name, start, bytes, more) in cases {
            let mut bench = Bench::new(DecoderLimits::default());
            bench.add(1, false, 16, &B, false);
            let held = bench.defrag.held_bytes();
            assert_eq!(
                error(bench.add(1, false, start, bytes, more)),
                Some(DecodeError::FragmentInvalid),
                "{name}"
            );
            assert_eq!(bench.defrag.held_bytes(), held, "{name}");
            assert!(payload(bench.add(1, false, 0, &[b'z'; 16], true)).is_some(), "{name}");
        }
        // The first fragment of a datagram is checked too, and the largest one fits.
        let mut bench = Bench::new(DecoderLimits::default());
        assert_eq!(error(bench.add(1, false, 65_528, &A, false)), Some(DecodeError::FragmentInvalid));
        assert!(error(bench.add(1, false, 65_528, &A[..7], false)).is_none());
    }

    #[test]
    fn the_oldest_are_evicted_for_count_and_for_bytes() {
        let each = DATAGRAM_OVERHEAD + PIECE_OVERHEAD + 8;
        for (name, limits) in [
            ("count", DecoderLimits { defrag_datagrams_max: 3, ..DecoderLimits::default() }),
            ("bytes", DecoderLimits { defrag_bytes_max: 3 * each + 20, ..DecoderLimits::default() }),
        ] {
            let mut bench = Bench::new(limits);
            for id in 0..5 {
                bench.add(id, false, 0, &A, true);
            }
            assert_eq!(bench.counters.datagrams_evicted_total, 2, "{name}");
            assert_eq!(bench.defrag.open(), 3, "{name}");
            // 0 is gone: its end opens a new datagram, which evicts 2.
            assert!(payload(bench.add(0, false, 8, &C, false)).is_none(), "{name}");
            assert_eq!(bench.counters.datagrams_evicted_total, 3, "{name}");
        }
    }

    #[test]
    fn a_fragment_without_room_is_dropped() {
        for limits in [
            DecoderLimits { defrag_datagrams_max: 0, ..DecoderLimits::default() },
            DecoderLimits { defrag_bytes_max: 0, ..DecoderLimits::default() },
            DecoderLimits { defrag_bytes_max: DATAGRAM_OVERHEAD, ..DecoderLimits::default() },
        ] {
            let mut bench = Bench::new(limits);
            assert_eq!(error(bench.add(1, false, 0, &A, true)), Some(DecodeError::FragmentOverCap));
        }
        // A datagram that alone fills the cap gives way itself.
        let room_for_two = DATAGRAM_OVERHEAD + 2 * (PIECE_OVERHEAD + 8);
        let mut bench =
            Bench::new(DecoderLimits { defrag_bytes_max: room_for_two, ..DecoderLimits::default() });
        bench.add(1, false, 0, &A, true);
        bench.add(1, false, 8, &A, true);
        assert_eq!(error(bench.add(1, false, 16, &A, true)), Some(DecodeError::FragmentOverCap));
        assert_eq!((bench.defrag.open(), bench.defrag.held_bytes()), (0, 0));
    }

    #[test]
    fn datagrams_expire_on_packet_time_even_if_kept_alive() {
        let mut bench = Bench::new(DecoderLimits::default());
        bench.add(1, false, 0, &A, true);
        bench.now_secs += 30;
        bench.add(1, false, 8, &B, true);
        assert_eq!(bench.counters.datagrams_expired_total, 0);
        bench.now_secs += 1;
        assert!(payload(bench.add(1, false, 16, &C, false)).is_none());
        assert_eq!(bench.counters.datagrams_expired_total, 1);
        // A clock that steps back expires nothing.
        bench.now_secs -= 500;
        bench.add(2, false, 0, &A, true);
        assert_eq!((bench.counters.datagrams_expired_total, bench.defrag.open()), (1, 2));
    }

    #[test]
    fn tiny_pieces_are_charged_and_one_large_fragment_fills_all_holes() {
        let mut bench = Bench::new(DecoderLimits::default());
        for i in (0..512).rev() {
            bench.add(1, false, i * 16, &A, true);
        }
        assert_eq!(bench.defrag.held_bytes(), DATAGRAM_OVERHEAD + 512 * (PIECE_OVERHEAD + 8));
        let whole = payload(bench.add(1, false, 0, &[b'x'; 8192], false)).unwrap();
        let want: Vec<u8> = (0..512).flat_map(|_| *b"aaaaaaaaxxxxxxxx").collect();
        assert!(whole == want);
    }
}
