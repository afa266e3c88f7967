//! Answers to questions that come again and again: most requests ask for a path that was asked for before.

use super::hash::StableHash;

/// Longest text whose answer is kept; longer ones are rare and cost what they cost.
const TEXT_BYTES_MAX: usize = 128;
/// Answers kept.
const SLOTS: usize = 256;

/// What was found out about short texts. Direct-mapped, with a full comparison: forgetting one only means that it is
/// found out again, so a result never depends on what is kept.
pub(super) struct Memo<V> {
    slots: Vec<Slot<V>>,
}

struct Slot<V> {
    /// 0 where the slot is empty.
    len: u8,
    /// What else the answer depends on.
    context: u64,
    text: [u8; TEXT_BYTES_MAX],
    value: V,
}

/// Where an answer is, or would be kept.
#[derive(Clone, Copy)]
pub(super) struct Place(usize);

impl<V: Default> Memo<V> {
    /// Makes an empty one; allocates nothing until the first answer.
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new() }
    }

    /// Returns the answer about `text` in `context`, or where to [`keep`](Self::keep) it; `Err(None)` where it is not
    /// worth keeping.
    #[inline]
    pub(super) fn find(&self, context: u64, text: &[u8]) -> Result<&V, Option<Place>> {
        if text.is_empty() || text.len() > TEXT_BYTES_MAX {
            return Err(None);
        }
        let mut hash = StableHash::new(context);
        hash.write(text);
        let place = Place((hash.finish() >> 32) as usize % SLOTS);
        match self.slots.get(place.0) {
            Some(slot) if slot.context == context && slot.text.get(..usize::from(slot.len)) == Some(text) => {
                Ok(&slot.value)
            }
            _ => Err(Some(place)),
        }
    }

    /// Keeps an answer in a `place` that [`find`](Self::find) gave for the same text and context.
    pub(super) fn keep(&mut self, place: Place, context: u64, text: &[u8], value: V) {
        if self.slots.is_empty() {
            let empty = || Slot { len: 0, context: 0, text: [0; TEXT_BYTES_MAX], value: V::default() };
            self.slots.resize_with(SLOTS, empty);
        }
        let Some(slot) = self.slots.get_mut(place.0) else { return };
        let Some(kept) = slot.text.get_mut(..text.len()) else { return };
        kept.copy_from_slice(text);
        slot.len = text.len() as u8;
        (slot.context, slot.value) = (context, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_text_in_the_same_context_is_found() {
        let mut memo = Memo::<usize>::new();
        // More texts than slots, so that they push one another out.
        let texts: Vec<String> = (0..SLOTS * 3).map(|n| "/a/".repeat(n % 40) + &n.to_string()).collect();
        for round in 0..3 {
            for (n, text) in texts.iter().enumerate() {
                for context in [1, 2] {
                    let value = n * 10 + context as usize;
                    match memo.find(context, text.as_bytes()) {
                        Ok(found) => assert_eq!((*found, round > 0), (value, true), "{text}"),
                        Err(Some(place)) => memo.keep(place, context, text.as_bytes(), value),
                        Err(None) => assert!(text.is_empty() || text.len() > TEXT_BYTES_MAX, "{text}"),
                    }
                    let found = memo.find(context, text.as_bytes()).ok().copied();
                    assert_eq!(found, (text.len() <= TEXT_BYTES_MAX).then_some(value), "{text}");
                }
            }
        }
        assert!(memo.find(1, b"").is_err() && memo.find(3, texts[0].as_bytes()).is_err());
    }
}
