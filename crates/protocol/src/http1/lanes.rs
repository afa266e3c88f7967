//! Many bytes of a head at once: which of them are control characters, where a name ends.
//!
//! In: blocks of bytes. Out: a mask, bit n for byte n.

use wide::u8x16;

/// Bytes of a block.
pub(super) const BLOCK: usize = 64;
/// Bytes of a part of a name.
pub(super) const PART: usize = 16;

/// Returns which bytes of the first [`BLOCK`] of `bytes` are control characters: below 0x20, or DEL. Bits past the end
/// of `bytes` are 0.
#[inline]
pub(super) fn controls(bytes: &[u8]) -> u64 {
    let mut filled = [b' '; BLOCK];
    let block = bytes.first_chunk::<BLOCK>().unwrap_or_else(|| {
        filled[..bytes.len()].copy_from_slice(bytes);
        &filled
    });
    let (parts, _) = block.as_chunks::<PART>();
    let mut mask = 0;
    for (number, part) in parts.iter().enumerate() {
        mask |= u64::from(part_controls(*part)) << (number * PART);
    }
    mask
}

/// Which of these bytes are control characters.
#[inline]
fn part_controls(part: [u8; PART]) -> u32 {
    let bytes = u8x16::from(part);
    (at_most(bytes, 0x1f) | bytes.simd_eq(u8x16::splat(0x7f))).to_bitmask()
}

/// Which of these bytes are neither letters nor dashes.
#[inline]
pub(super) fn part_others(part: [u8; PART]) -> u32 {
    let bytes = u8x16::from(part);
    let letters = at_most((bytes | u8x16::splat(0x20)) - u8x16::splat(b'a'), b'z' - b'a');
    !(letters | bytes.simd_eq(u8x16::splat(b'-'))).to_bitmask() & 0xffff
}

/// Which bytes are at most `last`.
#[inline]
fn at_most(bytes: u8x16, last: u8) -> u8x16 {
    bytes.min(u8x16::splat(last)).simd_eq(bytes)
}

/// The control characters of a head, one after the other, found a block at a time.
pub(super) struct Controls {
    /// Where the block under way begins, and which of its bytes they are.
    start: usize,
    mask: u64,
}

impl Controls {
    /// Begins with `bytes`.
    #[inline]
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self { start: 0, mask: controls(bytes) }
    }

    /// Returns where the first control character of `bytes` at or after `from` is. `bytes` stays the same, and `from`
    /// never goes back.
    #[inline]
    pub(super) fn next(&mut self, bytes: &[u8], from: usize) -> Option<usize> {
        if from - self.start >= BLOCK {
            *self = Self { start: from, mask: controls(bytes.get(from..)?) };
        }
        let ahead = self.mask >> (from - self.start);
        if ahead != 0 {
            return Some(from + ahead.trailing_zeros() as usize);
        }
        loop {
            self.start += BLOCK;
            self.mask = controls(bytes.get(self.start..).filter(|rest| !rest.is_empty())?);
            if self.mask != 0 {
                return Some(self.start + self.mask.trailing_zeros() as usize);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_says_it_of_each_byte() {
        for byte in 0..=255u8 {
            let control = byte < 0x20 || byte == 0x7f;
            let other = !byte.is_ascii_alphabetic() && byte != b'-';
            for at in 0..PART {
                for filler in [b'x', b'-', 0xff, 0x1f, 0x20, 0x80] {
                    let mut part = [filler; PART];
                    part[at] = byte;
                    let mut want = (0, 0);
                    for (n, b) in part.iter().enumerate() {
                        want.0 |= u32::from(*b < 0x20 || *b == 0x7f) << n;
                        want.1 |= u32::from(!b.is_ascii_alphabetic() && *b != b'-') << n;
                    }
                    assert_eq!((want.0 >> at & 1 == 1, want.1 >> at & 1 == 1), (control, other));
                    assert_eq!((part_controls(part), part_others(part)), want, "{byte} {at} {filler}");
                }
            }
        }
    }

    #[test]
    fn every_control_character_is_found_wherever_it_stands() {
        for len in 0..=3 * BLOCK {
            for gap in [1, 2, 7, 61, 64, 65, 130] {
                let bytes: Vec<u8> =
                    (0..len).map(|n| if n % gap == gap - 1 { b'\n' } else { b'x' }).collect();
                let want: Vec<usize> = (0..len).filter(|n| bytes[*n] == b'\n').collect();
                let (mut found, mut from) = (Vec::new(), 0);
                let mut controls = Controls::new(&bytes);
                while let Some(at) = controls.next(&bytes, from) {
                    found.push(at);
                    from = at + 1;
                }
                assert_eq!(found, want, "{len} {gap}");
                // From any place on, also far from the last one.
                for from in 0..len {
                    let first = Controls::new(&bytes).next(&bytes, from);
                    assert_eq!(first, want.iter().copied().find(|at| *at >= from), "{len} {gap} {from}");
                }
            }
        }
    }
}
