//! A naive HPACK decoder, and the fuzz body that compares the real ones with it.
//!
//! It shares nothing with them but the tables of RFC 7541's appendices: bits are read one by one, every
//! field is copied, sizes are added up anew each time.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::hpack::{Decoder, HpackError, HpackLimits};
use super::huffman::LENGTHS;
use super::static_table::STATIC_TABLE;

/// A field, and what a decoder that joined late must know of it: name, value.
#[derive(Clone, Debug, PartialEq)]
struct ModelField {
    name: Vec<u8>,
    value: Vec<u8>,
    forbidden: bool,
    knows: (bool, bool),
}

/// One direction's decoder, as plainly as RFC 7541 puts it.
struct Model {
    /// Newest first; with whether name and value were inserted since [`Model::forget`].
    table: Vec<(Vec<u8>, Vec<u8>, bool, bool)>,
    size_max: u64,
    allowed: u64,
}

impl Model {
    fn new() -> Self {
        Self { table: Vec::new(), size_max: 4096, allowed: 4096 }
    }

    fn allow(&mut self, size: u32) {
        self.allowed = self.allowed.max(u64::from(size));
    }

    /// From here on a decoder that joins knows nothing of the table.
    fn forget(&mut self) {
        for entry in &mut self.table {
            (entry.2, entry.3) = (false, false);
        }
    }

    fn block(&mut self, bytes: &[u8]) -> Result<Vec<ModelField>, HpackError> {
        let (mut at, mut fields) = (0, Vec::new());
        while let Some(&first) = bytes.get(at) {
            if first & 0x80 != 0 {
                let index = integer(bytes, &mut at, 7)?;
                let (name, value, knows_name, knows_value) = self.entry(index)?;
                fields.push(ModelField { name, value, forbidden: false, knows: (knows_name, knows_value) });
            } else if first & 0xe0 == 0x20 {
                let size = integer(bytes, &mut at, 5)?;
                if !fields.is_empty() {
                    return Err(HpackError::TableSizeLate);
                }
                if size > self.allowed {
                    return Err(HpackError::TableSizeTooLarge);
                }
                self.size_max = size;
                self.evict();
            } else {
                let inserted = first & 0x40 != 0;
                let index = integer(bytes, &mut at, if inserted { 6 } else { 4 })?;
                let (name, knows_name) = if index == 0 {
                    (string(bytes, &mut at)?, true)
                } else {
                    let entry = self.entry(index)?;
                    (entry.0, entry.2)
                };
                let value = string(bytes, &mut at)?;
                if inserted {
                    self.table.insert(0, (name.clone(), value.clone(), knows_name, true));
                    self.evict();
                }
                let forbidden = first & 0xf0 == 0x10;
                fields.push(ModelField { name, value, forbidden, knows: (knows_name, true) });
            }
        }
        Ok(fields)
    }

    fn entry(&self, index: u64) -> Result<(Vec<u8>, Vec<u8>, bool, bool), HpackError> {
        let place = index.checked_sub(1).ok_or(HpackError::IndexInvalid)? as usize;
        if let Some((name, value)) = STATIC_TABLE.get(place) {
            return Ok((name.to_vec(), value.to_vec(), true, true));
        }
        self.table.get(place - STATIC_TABLE.len()).cloned().ok_or(HpackError::IndexInvalid)
    }

    fn evict(&mut self) {
        while self.table.iter().map(|e| e.0.len() + e.1.len() + 32).sum::<usize>() as u64 > self.size_max {
            self.table.pop();
        }
    }
}

fn integer(bytes: &[u8], at: &mut usize, prefix: u32) -> Result<u64, HpackError> {
    let full = (1u64 << prefix) - 1;
    let mut value = u64::from(bytes[*at]) & full;
    *at += 1;
    if value < full {
        return Ok(value);
    }
    for n in 0..9 {
        let byte = *bytes.get(*at).ok_or(HpackError::BlockCut)?;
        *at += 1;
        value += u64::from(byte % 128) << (7 * n);
        if value >= 1 << 32 {
            return Err(HpackError::IntegerTooLong);
        }
        if byte < 128 {
            return Ok(value);
        }
    }
    Err(HpackError::IntegerTooLong)
}

fn string(bytes: &[u8], at: &mut usize) -> Result<Vec<u8>, HpackError> {
    let huffman = bytes.get(*at).ok_or(HpackError::BlockCut)? & 0x80 != 0;
    let len = integer(bytes, at, 7)? as usize;
    let text = bytes.get(*at..).and_then(|rest| rest.get(..len)).ok_or(HpackError::BlockCut)?;
    *at += len;
    if huffman { unhuffman(text) } else { Ok(text.to_vec()) }
}

/// Symbol of each (length, code): the canonical code counts up in order of (length, symbol).
static SYMBOLS: LazyLock<BTreeMap<(u8, u32), usize>> = LazyLock::new(|| {
    let mut order: Vec<usize> = (0..LENGTHS.len()).collect();
    order.sort_by_key(|symbol| LENGTHS[*symbol]);
    let (mut symbols, mut code, mut length) = (BTreeMap::new(), 0u32, 0);
    for symbol in order {
        code <<= LENGTHS[symbol] - length;
        length = LENGTHS[symbol];
        symbols.insert((length, code), symbol);
        code += 1;
    }
    symbols
});

fn unhuffman(bytes: &[u8]) -> Result<Vec<u8>, HpackError> {
    let (mut out, mut code, mut length) = (Vec::new(), 0u32, 0u8);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)) {
        code = code << 1 | u32::from(bit);
        length += 1;
        if let Some(symbol) = SYMBOLS.get(&(length, code)) {
            out.push(u8::try_from(*symbol).map_err(|_| HpackError::HuffmanInvalid)?);
            (code, length) = (0, 0);
        }
    }
    if length < 8 && code == (1 << length) - 1 { Ok(out) } else { Err(HpackError::HuffmanInvalid) }
}

/// Runs blocks through four decoders and compares them with the model: one that saw everything, one that
/// joined late, one with little memory, and one that lost bytes in between.
///
/// Input: two bytes of options, then records of a control byte, a length of two bytes, and that many
/// bytes: a header block, or with control bits of 3 a table size that is allowed from there on.
#[doc(hidden)]
pub fn fuzz_hpack_block(data: &[u8]) {
    let [join, memory, records @ ..] = data else { return };
    if data.len() > 16 << 10 {
        return; // The model has no bound: half of it one entry, the other half references to it.
    }
    let join = usize::from(*join) % 16;
    let wide = HpackLimits { table_bytes_max: u32::MAX, list_bytes_max: u32::MAX };
    let narrow = HpackLimits {
        table_bytes_max: u32::from(memory >> 4) * 20,
        list_bytes_max: u32::from(memory & 15) * 50,
    };
    let (mut model, mut known) = (Model::new(), Model::new());
    let (mut whole, mut small) = (Decoder::new(wide), Decoder::new(narrow));
    let mut late = Decoder::midstream(wide);
    let mut lossy = Decoder::midstream(narrow);
    for (n, (control, bytes)) in Records(records).enumerate() {
        if n == join {
            known.forget();
            late.lose();
        }
        if control & 3 == 3 {
            let size = bytes.iter().take(4).fold(0, |size, byte| size << 8 | u32::from(*byte));
            model.allow(size);
            known.allow(size);
            for decoder in [&mut whole, &mut small, &mut late, &mut lossy] {
                decoder.allow(size);
            }
            continue;
        }
        if control & 4 != 0 {
            lossy.lose();
        }
        let want = model.block(bytes);
        assert_eq!(run(&mut whole, bytes), want.clone().map(|fields| fields.iter().map(all).collect()));
        let Ok(fields) = want else { return };
        let Ok(seen) = known.block(bytes) else { unreachable!("two models differ") };
        let Ok(got) = run(&mut late, bytes) else {
            unreachable!("what is right is right for one who joins late")
        };
        if n >= join {
            let want: Vec<_> = seen
                .into_iter()
                .map(|f| (f.knows.0.then_some(f.name), f.knows.1.then_some(f.value), f.forbidden))
                .collect();
            assert_eq!(got, want, "late");
        }
        check_narrow(&mut small, bytes, &fields, narrow);
        check_narrow(&mut lossy, bytes, &fields, narrow);
    }
}

/// Every field that comes out is among `fields`, in order, and what is known of it is right.
fn check_narrow(decoder: &mut Decoder, bytes: &[u8], fields: &[ModelField], limits: HpackLimits) {
    let (mut rest, mut handed) = (fields.iter(), 0);
    let outcome = decoder.block(bytes, |name, value, forbidden| {
        handed += 32 + name.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        assert!(
            rest.any(|f| {
                name.is_none_or(|n| n == f.name)
                    && value.is_none_or(|v| v == f.value)
                    && forbidden == f.forbidden
            }),
            "invented"
        );
    });
    let Ok(outcome) = outcome else { unreachable!("what is right is right with little memory") };
    assert_eq!(outcome.fields as usize, fields.len());
    assert!(handed <= limits.list_bytes_max as usize);
    assert!(outcome.fields_over > 0 || outcome.list_bytes <= u64::from(limits.list_bytes_max));
    let entries = limits.table_bytes_max as usize / 32 + 2;
    assert!(decoder.held_bytes() < 16 * limits.table_bytes_max as usize + 24 * entries + (16 << 10));
}

type Handed = (Option<Vec<u8>>, Option<Vec<u8>>, bool);

fn all(field: &ModelField) -> Handed {
    (Some(field.name.clone()), Some(field.value.clone()), field.forbidden)
}

fn run(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Handed>, HpackError> {
    let mut fields = Vec::new();
    decoder.block(bytes, |name, value, forbidden| {
        fields.push((name.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec), forbidden));
    })?;
    Ok(fields)
}

/// Splits the records of [`fuzz_hpack_block`].
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [control, high, low, rest @ ..] = self.0 else { return None };
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (bytes, after) = rest.split_at(len);
        self.0 = after;
        Some((*control, bytes))
    }
}

/// Decodes the header blocks of one connection; returns fields and bytes of text. For the bench.
#[doc(hidden)]
pub fn bench_hpack_blocks(blocks: &[Vec<u8>]) -> (u64, u64) {
    let mut decoder = Decoder::new(HpackLimits { table_bytes_max: 1 << 16, list_bytes_max: 1 << 16 });
    let (mut fields, mut bytes) = (0, 0);
    for block in blocks {
        let outcome = decoder.block(block, |name, value, _| {
            bytes += name.map_or(0, <[u8]>::len) as u64 + value.map_or(0, <[u8]>::len) as u64;
        });
        fields += outcome.map_or(0, |o| u64::from(o.fields));
    }
    (fields, bytes)
}
