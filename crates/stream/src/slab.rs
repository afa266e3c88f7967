//! Entries with stable small ids, in pages, so that growth never copies what is there.

/// No entry.
pub(crate) const NONE: u32 = u32::MAX;

/// 1024 entries a page: an empty table owns nothing, and the page list of a million flows fits a first-level
/// cache (with 128 it did not).
const PAGE_SHIFT: u32 = 10;
const PAGE_LEN: usize = 1 << PAGE_SHIFT;

// Invariant: every id below `high` is either occupied or in `free`, never both.
pub(crate) struct Slab<T> {
    pages: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
    high: u32,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { pages: Vec::new(), free: Vec::new(), high: 0 }
    }

    /// Returns how many entries there are.
    pub(crate) fn len(&self) -> u32 {
        self.high - self.free.len() as u32
    }

    /// Returns one more than the largest id ever used.
    pub(crate) fn high(&self) -> u32 {
        self.high
    }

    /// Adds an entry and returns its id: the one freed last, else a new one.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self.pages[(id >> PAGE_SHIFT) as usize][id as usize % PAGE_LEN] = Some(value);
            return id;
        }
        let id = self.high;
        if (id as usize).is_multiple_of(PAGE_LEN) {
            self.pages.push(Vec::with_capacity(PAGE_LEN));
        }
        self.pages[(id >> PAGE_SHIFT) as usize].push(Some(value));
        self.high += 1;
        id
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        self.pages.get((id >> PAGE_SHIFT) as usize)?.get(id as usize % PAGE_LEN)?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.pages.get_mut((id >> PAGE_SHIFT) as usize)?.get_mut(id as usize % PAGE_LEN)?.as_mut()
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let slot = self.pages.get_mut((id >> PAGE_SHIFT) as usize)?.get_mut(id as usize % PAGE_LEN)?;
        let value = slot.take()?;
        self.free.push(id);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_and_reused() {
        let mut slab = Slab::new();
        let ids: Vec<u32> = (0..3000).map(|n| slab.insert(n)).collect();
        assert_eq!((slab.len(), slab.high()), (3000, 3000));
        assert_eq!(slab.remove(ids[7]), Some(7));
        assert_eq!(slab.remove(ids[7]), None);
        assert_eq!(slab.get(ids[7]), None);
        assert_eq!(slab.get(ids[2999]), Some(&2999));
        assert_eq!(slab.get(NONE), None);
        assert_eq!(slab.insert(9000), ids[7]);
        assert_eq!((slab.len(), slab.high()), (3000, 3000));
    }
}
