//! Several short texts in one allocation.

/// A range of a [`TextArena`]; the empty span at 0 means "absent".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// Nothing there.
    pub const ABSENT: Self = Self { start: 0, len: 0 };

    /// Length in bytes.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Tells whether the span covers no byte.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The texts that one transaction keeps (method, target, host …), as raw bytes in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextArena {
    bytes: Vec<u8>,
}

impl TextArena {
    /// Makes room for `additional` more bytes, so that the pushes that follow allocate at most once.
    pub fn reserve(&mut self, additional: usize) {
        self.bytes.reserve(additional);
    }

    /// Copies `text` in and returns where it is. Callers cap what they push; past 4 GiB nothing is kept.
    pub fn push(&mut self, text: &[u8]) -> Span {
        let (Ok(start), Ok(len)) = (u32::try_from(self.bytes.len()), u32::try_from(text.len())) else {
            return Span::ABSENT;
        };
        self.bytes.extend_from_slice(text);
        Span { start, len }
    }

    /// Makes the text of `span` longer by `more` and returns where it is now. The last text stays in its place; another
    /// one is copied, and its old place is lost.
    pub fn append(&mut self, span: Span, more: &[u8]) -> Span {
        if span.start as usize + span.len() != self.bytes.len() {
            let text = self.get(span).to_vec();
            let copied = self.push(&text);
            if copied.is_empty() {
                return span;
            }
            return self.append(copied, more);
        }
        let Ok(len) = u32::try_from(span.len() + more.len()) else { return span };
        self.bytes.extend_from_slice(more);
        Span { len, ..span }
    }

    /// Returns the bytes of `span`; empty for a span of another arena that does not fit.
    pub fn get(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        self.bytes.get(start..start + span.len as usize).unwrap_or_default()
    }

    /// Bytes kept.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Tells whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_grow_in_their_place_or_move() {
        let mut arena = TextArena::default();
        let first = arena.push(b"ab");
        let last = arena.push(b"cd");
        let last = arena.append(last, b"ef");
        assert_eq!((arena.get(first), arena.get(last), arena.len()), (&b"ab"[..], &b"cdef"[..], 6));
        let moved = arena.append(first, b"x");
        assert_eq!((arena.get(moved), arena.get(last), arena.len()), (&b"abx"[..], &b"cdef"[..], 9));
        let absent = TextArena::default().append(Span::ABSENT, b"");
        assert_eq!(absent, Span::ABSENT);
    }
}
