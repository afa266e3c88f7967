//! Timers: a ring of 512 buckets of packet time, linked through the entries themselves.

use offpath_types::Timestamp;

use crate::slab::{NONE, Slab};

const BUCKETS: u64 = 512;

/// Where an entry stands in its wheel; part of the entry, so that a timer allocates nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    prev: u32,
    next: u32,
    /// `NONE` where the entry is in no bucket.
    bucket: u32,
}

impl Links {
    pub(crate) const OUT: Self = Self { prev: NONE, next: NONE, bucket: NONE };
}

/// An entry that can stand in a wheel.
pub(crate) trait Timed {
    fn links(&mut self) -> &mut Links;
}

/// Yields entries once their time is in the past; coarse and lazy.
///
/// An entry stands where it was due when it was inserted. Its owner re-checks the real time when the wheel
/// yields it, and inserts it again where that is later: touching a flow costs nothing here, and each
/// insertion is paid for by a packet or a timeout. Times beyond the ring stand in its last bucket.
// Invariants: each bucket is a circular list, `heads[b]` its oldest entry; bit b of `bits` is set where
// the list is not empty; all entries stand in ticks `cursor .. cursor + BUCKETS`.
pub(crate) struct Wheel {
    shift: u32,
    cursor: u64,
    len: u32,
    bits: [u64; 8],
    heads: Vec<u32>,
}

impl Wheel {
    /// Makes an empty wheel of ticks of 2^`shift` nanoseconds; it owns no memory until first used.
    pub(crate) const fn new(shift: u32) -> Self {
        Self { shift, cursor: 0, len: 0, bits: [0; 8], heads: Vec::new() }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    fn tick(&self, at: Timestamp) -> u64 {
        at.as_nanos() >> self.shift
    }

    /// Puts entry `id` where it is yielded once `due` is past.
    pub(crate) fn insert<T: Timed>(&mut self, slab: &mut Slab<T>, id: u32, due: Timestamp) {
        if self.heads.is_empty() {
            self.heads = vec![NONE; BUCKETS as usize];
        }
        let tick = self.tick(due).clamp(self.cursor, self.cursor + BUCKETS - 1);
        let bucket = (tick % BUCKETS) as u32;
        let head = self.heads[bucket as usize];
        let tail = if head == NONE { id } else { slab.get_mut(head).map_or(id, |e| e.links().prev) };
        let Some(entry) = slab.get_mut(id) else { return };
        debug_assert_eq!(entry.links().bucket, NONE);
        *entry.links() = Links { prev: tail, next: if head == NONE { id } else { head }, bucket };
        if head == NONE {
            self.heads[bucket as usize] = id;
            self.bits[(bucket / 64) as usize] |= 1 << (bucket % 64);
        } else {
            if let Some(e) = slab.get_mut(tail) {
                e.links().next = id;
            }
            if let Some(e) = slab.get_mut(head) {
                e.links().prev = id;
            }
        }
        self.len += 1;
    }

    /// Takes entry `id` out, where it is in.
    pub(crate) fn remove<T: Timed>(&mut self, slab: &mut Slab<T>, id: u32) {
        let Some(entry) = slab.get_mut(id) else { return };
        let Links { prev, next, bucket } = std::mem::replace(entry.links(), Links::OUT);
        if bucket == NONE {
            return;
        }
        self.len -= 1;
        if next == id {
            self.heads[bucket as usize] = NONE;
            self.bits[(bucket / 64) as usize] &= !(1 << (bucket % 64));
            return;
        }
        if let Some(e) = slab.get_mut(prev) {
            e.links().next = next;
        }
        if let Some(e) = slab.get_mut(next) {
            e.links().prev = prev;
        }
        if self.heads[bucket as usize] == id {
            self.heads[bucket as usize] = next;
        }
    }

    /// Returns the distance from the cursor to the first bucket that is not empty.
    fn first_distance(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let start = self.cursor % BUCKETS;
        let (word0, bit0) = ((start / 64) as usize, start % 64);
        for i in 0..=8 {
            let word = (word0 + i) % 8;
            let mut bits = self.bits[word];
            if i == 0 {
                bits &= !0 << bit0;
            } else if i == 8 {
                bits &= !(!0 << bit0);
            }
            if bits != 0 {
                let bucket = word as u64 * 64 + u64::from(bits.trailing_zeros());
                return Some((bucket + BUCKETS - start) % BUCKETS);
            }
        }
        None
    }

    /// Returns the oldest entry of the earliest bucket; leaves it in.
    pub(crate) fn first(&self) -> Option<u32> {
        let distance = self.first_distance()?;
        Some(self.heads[((self.cursor + distance) % BUCKETS) as usize])
    }

    /// Takes out one entry whose bucket lies wholly before `now`; `None` once there is none.
    ///
    /// Which entries come out by `now` does not depend on how often this is called.
    pub(crate) fn pop_before<T: Timed>(&mut self, slab: &mut Slab<T>, now: Timestamp) -> Option<u32> {
        let now_tick = self.tick(now);
        if now_tick <= self.cursor {
            return None;
        }
        match self.first_distance() {
            Some(distance) if self.cursor + distance < now_tick => {
                self.cursor += distance;
                let id = self.heads[(self.cursor % BUCKETS) as usize];
                self.remove(slab, id);
                Some(id)
            }
            _ => {
                self.cursor = now_tick;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Entry(Links);

    impl Timed for Entry {
        fn links(&mut self) -> &mut Links {
            &mut self.0
        }
    }

    fn at(tick: u64) -> Timestamp {
        Timestamp::from_nanos(tick << 10)
    }

    fn drain(wheel: &mut Wheel, slab: &mut Slab<Entry>, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| wheel.pop_before(slab, at(now))).collect()
    }

    #[test]
    fn entries_come_out_in_time_order_and_fifo() {
        let mut slab = Slab::new();
        let mut wheel = Wheel::new(10);
        assert_eq!(drain(&mut wheel, &mut slab, 1_000_000), []);
        let ids: Vec<u32> = (0..6).map(|_| slab.insert(Entry(Links::OUT))).collect();
        for (id, tick) in ids.iter().zip([30, 5, 30, 511, 900, 0]) {
            let due = if tick == 0 { 0 } else { 1_000_000 + tick };
            wheel.insert(&mut slab, *id, at(due));
        }
        assert_eq!(wheel.first(), Some(ids[5]), "a time in the past comes first");
        assert_eq!(drain(&mut wheel, &mut slab, 1_000_000), [], "its bucket is not over yet");
        assert_eq!(drain(&mut wheel, &mut slab, 1_000_001), [ids[5]]);
        assert_eq!(drain(&mut wheel, &mut slab, 1_000_030), [ids[1]]);
        wheel.remove(&mut slab, ids[0]);
        wheel.remove(&mut slab, ids[0]);
        assert_eq!(drain(&mut wheel, &mut slab, 1_000_400), [ids[2]]);
        assert_eq!(wheel.len(), 2);
        assert_eq!(drain(&mut wheel, &mut slab, 9_000_000), [ids[3], ids[4]], "far times are clamped");
        assert_eq!((wheel.len(), wheel.first()), (0, None));
    }

    #[test]
    fn every_bucket_is_found_from_every_cursor() {
        for cursor in [0u64, 1, 63, 64, 100, 511, 512, 777] {
            for ahead in 0..BUCKETS {
                let mut slab = Slab::new();
                let mut wheel = Wheel::new(10);
                wheel.pop_before(&mut slab, at(cursor));
                let id = slab.insert(Entry(Links::OUT));
                wheel.insert(&mut slab, id, at(cursor + ahead));
                assert_eq!(wheel.first_distance(), Some(ahead), "cursor {cursor}");
            }
        }
    }
}
