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
