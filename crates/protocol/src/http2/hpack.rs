//! Decodes the header blocks of one direction of an HTTP/2 connection (RFC 7541).
//!
//! In: whole header blocks, in order. Out: fields, each of whose name and value is known or said not to be.
//!
//! # What is known after joining late
//!
//! An index of the dynamic table counts insertions back from the newest one. So whatever was inserted
//! before we looked, or while bytes were lost, the entries inserted since stand at known indices, and every
//! index past them means something we never saw: its fields are handed on as unknown.
//!
//! ```text
//!  index 62        63        64    │   65 …
//!      newest ◄── inserted since ──┤   older: not seen
//! ```
//!
//! Of an entry whose name came from an unseen one, the value is known and the name is not, nor is the
//! entry's size. Eviction goes by the smallest size it can have, against the largest size the table can
//! have: an entry goes only when the peer has surely evicted it, and then everything older has gone as
//! well, so the unseen part is empty. An entry that the peer has already evicted may be kept longer, which
//! is harmless, because no correct peer refers to it.
//!
//! Memory is bounded all the same: entries beyond [`HpackLimits::table_bytes_max`] are forgotten, oldest
//! first, and join the unseen ones. So that bound costs knowledge, never correctness.

use std::collections::VecDeque;
use std::sync::Arc;

use super::huffman;
use super::static_table::{STATIC_TABLE, StaticEntry};

/// Bounds of one decoder; each with its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HpackLimits {
    /// Dynamic table entries kept, bytes as RFC 7541 §4.1 counts them. Past it: the oldest become unknown.
    pub(crate) table_bytes_max: u32,
    /// Field bytes handed on of one block, each field counted with 32 bytes more (RFC 9113 §6.5.2). Past
    /// it: a field that does not fit is decoded for the table only.
    pub(crate) list_bytes_max: u32,
}

/// Table size that HTTP/2 starts with (RFC 9113 §6.5.2).
const TABLE_BYTES_START: u32 = 4096;
/// What an entry counts beside its name and value (RFC 7541 §4.1).
const ENTRY_OVERHEAD: u64 = 32;
/// Longest block that is looked at: positions in it fit 32 bits whatever is decoded from it. The caller's
/// own bound is far lower.
const BLOCK_BYTES_MAX: usize = 64 << 20;
/// Memory that is not worth giving back.
const SLACK_BYTES: usize = 1024;
/// Longest name that is copied for each entry that takes it over from an earlier one, two bytes on the wire. Entries
/// share longer ones.
const NAME_COPY_BYTES_MAX: u32 = 128;

/// What the peer did that ends the decoding of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HpackError {
    /// The block ends inside a field, or is longer than any peer takes.
    BlockCut,
    /// An index that neither table can have.
    IndexInvalid,
    /// An integer above 2^32 - 1, or in more than ten bytes.
    IntegerTooLong,
    /// A string that is not Huffman code, or ends wrong.
    HuffmanInvalid,
    /// A table size above what the other side allowed.
    TableSizeTooLarge,
    /// A table size change after a field.
    TableSizeLate,
}

/// What a block held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockOutcome {
    /// Fields in the block.
    pub(crate) fields: u32,
    /// Fields among them whose name or value is unknown.
    pub(crate) fields_unknown: u32,
    /// Fields among them that were not handed on because of [`HpackLimits::list_bytes_max`].
    pub(crate) fields_over: u32,
    /// Size of the whole list, bytes, 32 more for each field; unknown texts count nothing.
    pub(crate) list_bytes: u64,
}

/// HPACK state of one direction.
//
// Invariants: `entries` are the newest insertions, oldest in front, their texts in `texts` in the same
// order without anything between, but for long names; `size_min` is the sum of their smallest sizes, at most
// `limits.table_bytes_max` and `size_max` between blocks; `shared_bytes` that of their long names, as if
// none were shared. `seen_all`: the peer's table holds nothing older.
pub(crate) struct Decoder {
    limits: HpackLimits,
    entries: VecDeque<Entry>,
    /// Texts of the entries, after some dead bytes of evicted ones; the end serves as scratch.
    texts: Vec<u8>,
    /// Position of `texts[0]`: positions only grow (modulo 2^32), whatever is dropped in front.
    base: u32,
    size_min: u64,
    shared_bytes: usize,
    /// Largest size that the peer's table can have now.
    size_max: u32,
    /// Largest size that the peer was ever allowed; `None`: not known.
    allowed: Option<u32>,
    /// The other side may have allowed more, in what was not seen of it yet.
    pub(super) unheard: bool,
    seen_all: bool,
}

/// One insertion: name and value lie one after the other at `at`; a long name lies elsewhere.
struct Entry {
    at: u32,
    /// [`Entry::NAME_UNKNOWN`], or the length.
    name_len: u32,
    value_len: u32,
    /// The name where it is longer than [`NAME_COPY_BYTES_MAX`].
    long_name: Option<LongName>,
}

/// A name that entries share; the box makes it one pointer in each of them.
type LongName = Arc<Box<[u8]>>;

impl Entry {
    const NAME_UNKNOWN: u32 = u32::MAX;

    fn name_len(&self) -> Option<u32> {
        (self.name_len != Self::NAME_UNKNOWN).then_some(self.name_len)
    }

    fn size_min(&self) -> u64 {
        ENTRY_OVERHEAD + u64::from(self.name_len().unwrap_or(0)) + u64::from(self.value_len)
    }

    fn shared_bytes(&self) -> usize {
        self.long_name.as_ref().map_or(0, |name| name.len())
    }
}

/// Where a text is: in the block or the static table, at a position of `texts`, or apart.
enum Text<'a> {
    Wire(&'a [u8]),
    Held { at: u32, len: u32 },
    Shared(LongName),
}

impl Decoder {
    /// State at the start of a connection: both tables are known, the dynamic one is empty.
    pub(crate) fn new(limits: HpackLimits) -> Self {
        Self {
            limits,
            entries: VecDeque::new(),
            texts: Vec::new(),
            base: 0,
            size_min: 0,
            shared_bytes: 0,
            size_max: TABLE_BYTES_START,
            allowed: Some(TABLE_BYTES_START),
            unheard: false,
            seen_all: true,
        }
    }

    /// State of a connection joined late: content and size of the dynamic table are unknown.
    pub(crate) fn midstream(limits: HpackLimits) -> Self {
        let mut decoder = Self::new(limits);
        decoder.lose();
        decoder
    }

    /// Forgets everything: bytes of this direction were lost, and with them any number of insertions.
    pub(crate) fn lose(&mut self) {
        self.entries = VecDeque::new();
        self.texts = Vec::new();
        self.size_min = 0;
        self.shared_bytes = 0;
        self.size_max = u32::MAX;
        self.allowed = None;
        self.seen_all = false;
    }

    /// The decoding side said SETTINGS_HEADER_TABLE_SIZE.
    ///
    /// A lower value binds the encoder only once it has acknowledged it, so the largest one counts. When
    /// bytes of the other direction were lost, `u32::MAX` says that any size may have been allowed.
    pub(crate) fn allow(&mut self, size: u32) {
        self.allowed = self.allowed.map(|allowed| allowed.max(size));
    }

    /// Decodes one whole header block: calls `field` with name, value (`None`: unknown) and whether the
    /// sender forbids indexing, which marks secrets (RFC 7541 §6.2.3).
    ///
    /// Costs time linear in the block's length, whatever it refers to, plus `field`'s.
    ///
    /// Errors: the peer broke RFC 7541; the fields before were handed on, and nothing that was known
    /// before may be used any more: the decoder has lost its place, as after [`Decoder::lose`].
    pub(crate) fn block(
        &mut self,
        bytes: &[u8],
        field: impl FnMut(Option<&[u8]>, Option<&[u8]>, bool),
    ) -> Result<BlockOutcome, HpackError> {
        let outcome = self.fields(bytes, field);
        if outcome.is_err() {
            self.lose();
        }
        self.tidy();
        outcome
    }

    /// Bytes of memory in use.
    pub(crate) fn held_bytes(&self) -> usize {
        self.texts.capacity() + self.entries.capacity() * size_of::<Entry>() + self.shared_bytes
    }

    fn fields(
        &mut self,
        bytes: &[u8],
        field: impl FnMut(Option<&[u8]>, Option<&[u8]>, bool),
    ) -> Result<BlockOutcome, HpackError> {
        if bytes.len() > BLOCK_BYTES_MAX {
            return Err(HpackError::BlockCut);
        }
        let mut input = Input(bytes);
        let mut output =
            Output { field, left: u64::from(self.limits.list_bytes_max), outcome: BlockOutcome::default() };
        while let Some(first) = input.byte() {
            match first {
                // Indexed field, §6.1.
                0x80.. => {
                    let index = input.integer(first, 7)?;
                    self.indexed(index, &mut output)?;
                }
                // Literal field, to be inserted, §6.2.1.
                0x40.. => self.literal(&mut input, first, 6, &mut output)?,
                // Table size change, §6.3: before the first field only, §4.2.
                0x20.. => {
                    let size = input.integer(first, 5)?;
                    if output.outcome.fields > 0 {
                        return Err(HpackError::TableSizeLate);
                    }
                    self.resize(size)?;
                }
                // Literal field, not inserted, §6.2.2 and §6.2.3.
                _ => self.literal(&mut input, first, 4, &mut output)?,
            }
        }
        Ok(output.outcome)
    }

    fn resize(&mut self, size: u32) -> Result<(), HpackError> {
        if self.allowed.is_some_and(|allowed| size > allowed) {
            if !self.unheard {
                return Err(HpackError::TableSizeTooLarge);
            }
            self.allow(size);
        }
        self.size_max = size;
        self.evict();
        Ok(())
    }

    fn indexed<F: FnMut(Option<&[u8]>, Option<&[u8]>, bool)>(
        &mut self,
        index: u32,
        output: &mut Output<F>,
    ) -> Result<(), HpackError> {
        if let Some((name, value)) = static_entry(index)? {
            output.hand(Some(name), Some(value), false);
        } else if let Some(entry) = self.dynamic_entry(index)? {
            let from = self.slot(entry.at);
            let (name, middle) = match (&entry.long_name, entry.name_len()) {
                (Some(name), _) => (Some(&name[..]), from),
                (None, Some(len)) => (Some(&self.texts[from..from + len as usize]), from + len as usize),
                (None, None) => (None, from),
            };
            output.hand(name, Some(&self.texts[middle..middle + entry.value_len as usize]), false);
        } else {
            output.hand(None, None, false);
        }
        Ok(())
    }

    /// A literal field, whose name's index has `prefix` bits: 6 when it is to be inserted.
    fn literal<'a, F: FnMut(Option<&[u8]>, Option<&[u8]>, bool)>(
        &mut self,
        input: &mut Input<'a>,
        first: u8,
        prefix: u32,
        output: &mut Output<F>,
    ) -> Result<(), HpackError> {
        let inserted = prefix == 6;
        // Huffman code is decoded to the end of `texts`, where both texts of an insertion are to stay.
        let at = self.end();
        let mut name = match input.integer(first, prefix)? {
            0 => Some(self.string(input)?),
            index => match static_entry(index)? {
                Some((name, _)) => Some(Text::Wire(name)),
                None => self.dynamic_entry(index)?.and_then(|entry| {
                    Some(match &entry.long_name {
                        Some(name) => Text::Shared(Arc::clone(name)),
                        None => Text::Held { at: entry.at, len: entry.name_len()? },
                    })
                }),
            },
        };
        if inserted {
            name = name.map(|text| self.keep_name(text, at));
        }
        let value_at = self.end();
        let mut value = self.string(input)?;
        if inserted {
            value = self.keep(value, value_at);
        }
        let forbidden = !inserted && first & 0x10 != 0;
        output.hand(name.as_ref().map(|text| self.text(text)), Some(self.text(&value)), forbidden);
        if inserted {
            let name_len = name.as_ref().map_or(Entry::NAME_UNKNOWN, Text::len);
            let long_name = if let Some(Text::Shared(name)) = name { Some(name) } else { None };
            let entry = Entry { at, name_len, value_len: value.len(), long_name };
            self.size_min += entry.size_min();
            self.shared_bytes += entry.shared_bytes();
            self.entries.push_back(entry);
            self.evict();
        } else {
            self.texts.truncate(self.slot(at));
        }
        Ok(())
    }

    /// Drops what the peer has surely evicted, then what is too much for us.
    fn evict(&mut self) {
        while self.size_min > u64::from(self.size_max) && self.drop_oldest() {
            self.seen_all = true;
        }
        self.seen_all |= u64::from(self.size_max) - self.size_min < ENTRY_OVERHEAD;
        while self.size_min > u64::from(self.limits.table_bytes_max) && self.drop_oldest() {
            self.seen_all = false;
        }
        // Moving as many bytes as have died since the last move keeps the cost per byte constant.
        let live_from = self.entries.front().map_or(self.texts.len(), |oldest| self.slot(oldest.at));
        let live = self.texts.len() - live_from;
        if live_from > live + SLACK_BYTES {
            self.texts.copy_within(live_from.., 0);
            self.texts.truncate(live);
            self.base = self.base.wrapping_add(live_from as u32);
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.entries.pop_front() else { return false };
        self.size_min -= oldest.size_min();
        self.shared_bytes -= oldest.shared_bytes();
        true
    }

    /// Gives back memory that one unusual block needed.
    fn tidy(&mut self) {
        if self.texts.capacity() > 4 * self.texts.len() + 8 * SLACK_BYTES {
            self.texts.shrink_to(2 * self.texts.len() + SLACK_BYTES);
        }
    }

    /// The dynamic entry at `index` of the wire (62 or more); `None`: one that was not seen.
    fn dynamic_entry(&self, index: u32) -> Result<Option<&Entry>, HpackError> {
        let age = index as usize - STATIC_TABLE.len() - 1;
        if let Some(place) = self.entries.len().checked_sub(age + 1) {
            return Ok(Some(&self.entries[place]));
        }
        // The unseen entries from here on to ours must have room beside ours.
        let unseen = (age + 1 - self.entries.len()) as u64;
        let room = u64::from(self.size_max).saturating_sub(self.size_min);
        if self.seen_all || unseen * ENTRY_OVERHEAD > room { Err(HpackError::IndexInvalid) } else { Ok(None) }
    }

    /// Reads a string literal, §5.2; Huffman code is decoded to the end of `texts`.
    fn string<'a>(&mut self, input: &mut Input<'a>) -> Result<Text<'a>, HpackError> {
        let first = input.byte().ok_or(HpackError::BlockCut)?;
        let len = input.integer(first, 7)?;
        let bytes = input.take(len)?;
        if first & 0x80 == 0 {
            return Ok(Text::Wire(bytes));
        }
        let at = self.end();
        huffman::decode(bytes, &mut self.texts)?;
        Ok(Text::Held { at, len: self.end().wrapping_sub(at) })
    }

    /// Sees to it that the name of an insertion stays, at `at` as [`Decoder::keep`] does or apart.
    fn keep_name<'a>(&mut self, text: Text<'a>, at: u32) -> Text<'a> {
        if text.len() <= NAME_COPY_BYTES_MAX || matches!(text, Text::Shared(_)) {
            return self.keep(text, at);
        }
        let name = LongName::new(self.text(&text).into());
        self.texts.truncate(self.slot(at));
        Text::Shared(name)
    }

    /// Sees to it that `text` is in `texts` from position `at` on, which is the end unless it is there; what is apart
    /// stays there.
    fn keep<'a>(&mut self, text: Text<'a>, at: u32) -> Text<'a> {
        match text {
            Text::Wire(bytes) => self.texts.extend_from_slice(bytes),
            Text::Held { at: here, len } if here != at => {
                let from = self.slot(here);
                self.texts.extend_from_within(from..from + len as usize);
            }
            Text::Held { .. } => {}
            Text::Shared(_) => return text,
        }
        Text::Held { at, len: text.len() }
    }

    fn text<'a>(&'a self, text: &'a Text<'_>) -> &'a [u8] {
        match text {
            Text::Wire(bytes) => bytes,
            Text::Held { at, len } => &self.texts[self.slot(*at)..][..*len as usize],
            Text::Shared(name) => name,
        }
    }

    /// Position after the last text.
    fn end(&self) -> u32 {
        self.base.wrapping_add(self.texts.len() as u32)
    }

    /// Where position `at` is in `texts`.
    fn slot(&self, at: u32) -> usize {
        at.wrapping_sub(self.base) as usize
    }
}

impl Text<'_> {
    fn len(&self) -> u32 {
        match self {
            Self::Wire(bytes) => bytes.len() as u32,
            Self::Held { len, .. } => *len,
            Self::Shared(name) => name.len() as u32,
        }
    }
}

/// Name and value of `index` if it lies in the static table.
fn static_entry(index: u32) -> Result<Option<StaticEntry>, HpackError> {
    let place = (index as usize).checked_sub(1).ok_or(HpackError::IndexInvalid)?;
    Ok(STATIC_TABLE.get(place).copied())
}

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, len: u32) -> Result<&'a [u8], HpackError> {
        let (bytes, rest) = self.0.split_at_checked(len as usize).ok_or(HpackError::BlockCut)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Reads an integer whose first bits are the last `prefix` ones of `first`, §5.1.
    fn integer(&mut self, first: u8, prefix: u32) -> Result<u32, HpackError> {
        let full = (1u8 << prefix) - 1;
        if first & full < full {
            return Ok(u32::from(first & full));
        }
        let mut value = u64::from(full);
        // Nine more bytes are as long as a number of 63 bits; zeros in front are legal, and some peers
        // take as many.
        for shift in (0..63).step_by(7) {
            let byte = self.byte().ok_or(HpackError::BlockCut)?;
            value += u64::from(byte & 0x7f) << shift;
            if value > u64::from(u32::MAX) {
                return Err(HpackError::IntegerTooLong);
            }
            if byte & 0x80 == 0 {
                return Ok(value as u32);
            }
        }
        Err(HpackError::IntegerTooLong)
    }
}

/// Where fields go, within the bound.
struct Output<F> {
    field: F,
    left: u64,
    outcome: BlockOutcome,
}

impl<F: FnMut(Option<&[u8]>, Option<&[u8]>, bool)> Output<F> {
    fn hand(&mut self, name: Option<&[u8]>, value: Option<&[u8]>, forbidden: bool) {
        let size = ENTRY_OVERHEAD + name.map_or(0, <[u8]>::len) as u64 + value.map_or(0, <[u8]>::len) as u64;
        self.outcome.fields += 1;
        self.outcome.fields_unknown += u32::from(name.is_none() || value.is_none());
        self.outcome.list_bytes += size;
        if let Some(left) = self.left.checked_sub(size) {
            self.left = left;
            (self.field)(name, value, forbidden);
        } else {
            self.outcome.fields_over += 1;
        }
    }
}

#[cfg(test)]
mod tests;
