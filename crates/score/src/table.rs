//! Bounded tables: find or make in O(1), evict the least useful in O(1).

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Slots that one eviction looks at.
const PROBES_MAX: usize = 16;
/// Highest credit: suspicion buys at most this many passes of the hand.
const CREDIT_MAX: u8 = 5;

/// A hash table with a cap. When full, a clock hand walks over the slots in the order they were made:
/// each pass takes one credit, and the first slot without credit goes (after [`PROBES_MAX`] slots, the one
/// with least). A slot earns credit when it is touched again, and more when its entity is suspicious: a
/// flood of entities seen once evicts itself first, suspects last.
///
/// The seed decides only where the index keeps a key; eviction follows slot order, so it never shows.
// Invariant: `index` holds exactly the numbers of all `slots`, by the hash of their key.
#[derive(Debug)]
pub(crate) struct Table<V> {
    index: HashTable<u32>,
    slots: Vec<Slot<V>>,
    capacity: usize,
    hand: usize,
    state: FixedState,
    made: u64,
}

#[derive(Debug)]
struct Slot<V> {
    key: u128,
    credit: u8,
    value: V,
}

impl<V> Table<V> {
    pub(crate) fn new(capacity: u32, seed: u64) -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            capacity: capacity.max(1) as usize,
            hand: 0,
            state: FixedState::with_seed(seed),
            made: 0,
        }
    }

    /// Returns the slot number of `key`, making it where it is new; second, the value evicted for it.
    pub(crate) fn touch(&mut self, key: u128, make: impl FnOnce() -> V) -> (usize, Option<V>) {
        let hash = self.state.hash_one(key);
        let slots = &self.slots;
        if let Some(at) = self.index.find(hash, |i| slots[*i as usize].key == key) {
            let at = *at as usize;
            let slot = &mut self.slots[at];
            slot.credit = slot.credit.max(1);
            return (at, None);
        }
        self.made += 1;
        let new = Slot { key, credit: 0, value: make() };
        let (at, old) = if self.slots.len() < self.capacity {
            self.slots.push(new);
            (self.slots.len() - 1, None)
        } else {
            let at = self.victim();
            let old_hash = self.state.hash_one(self.slots[at].key);
            if let Ok(entry) = self.index.find_entry(old_hash, |i| *i as usize == at) {
                entry.remove();
            }
            (at, Some(std::mem::replace(&mut self.slots[at], new).value))
        };
        let (slots, state) = (&self.slots, &self.state);
        self.index.insert_unique(hash, at as u32, |i| state.hash_one(slots[*i as usize].key));
        (at, old)
    }

    fn victim(&mut self) -> usize {
        let mut best = (u8::MAX, self.hand);
        for _ in 0..PROBES_MAX.min(self.slots.len()) {
            let at = self.hand;
            self.hand = if at + 1 < self.slots.len() { at + 1 } else { 0 };
            let slot = &mut self.slots[at];
            if slot.credit < best.0 {
                best = (slot.credit, at);
            }
            if slot.credit == 0 {
                break;
            }
            slot.credit -= 1;
        }
        best.1
    }

    pub(crate) fn find(&self, key: u128) -> Option<usize> {
        let hash = self.state.hash_one(key);
        self.index.find(hash, |i| self.slots[*i as usize].key == key).map(|i| *i as usize)
    }

    /// Returns the value in slot `at`, a number that `touch` or `find` gave since the last `touch`.
    pub(crate) fn get(&self, at: usize) -> &V {
        &self.slots[at].value
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> &mut V {
        &mut self.slots[at].value
    }

    /// Lets confidence (0..=100) buy slot `at` credit against eviction.
    pub(crate) fn credit(&mut self, at: usize, confidence: u8) {
        let slot = &mut self.slots[at];
        slot.credit = slot.credit.max((1 + confidence / 25).min(CREDIT_MAX));
    }

    /// Yields keys and values in slot order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u128, &V)> {
        self.slots.iter().map(|s| (s.key, &s.value))
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) const fn made(&self) -> u64 {
        self.made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_under_its_cap_and_the_books_balance() {
        for seed in [1, 99] {
            let mut table = Table::new(8, seed);
            let mut evicted = 0;
            for key in 0..200_000u128 {
                evicted += u64::from(table.touch(key, || key).1.is_some());
            }
            assert_eq!(table.len(), 8);
            assert_eq!((table.made(), evicted), (200_000, 200_000 - 8));
            for (key, value) in table.iter() {
                assert_eq!(key, *value);
                assert!(table.find(key).is_some());
            }
        }
    }

    #[test]
    fn a_flood_evicts_itself_before_suspects_and_regulars() {
        let mut table = Table::new(64, 7);
        let (suspect, _) = table.touch(1, || ());
        table.credit(suspect, 100);
        for key in 1000..1300u128 {
            table.touch(key, || ());
            table.touch(2, || ()); // comes back all the time
        }
        assert!(table.find(1).is_some() && table.find(2).is_some());
        assert!(table.find(1000).is_none());
    }

    #[test]
    fn evictions_do_not_depend_on_the_seed() {
        let run = |seed| {
            let mut table = Table::new(32, seed);
            let mut gone = Vec::new();
            for n in 0..5000u128 {
                let key = (n * n * 31) % 211;
                let (at, old) = table.touch(key, || key);
                table.credit(at, (key % 101) as u8);
                gone.extend(old);
            }
            gone
        };
        assert!(run(1).len() > 100);
        assert_eq!(run(1), run(2));
    }
}
