//! A 64-bit hash that is the same on every machine, in every run and in every version.
//!
//! Fingerprints and endpoints are named by it in records, decisions and models, so it has no seed and must
//! not change. It is no defence against chosen collisions: whoever makes two endpoints collide has made
//! their own traffic look alike.
//!
//! The state `h` starts at a constant per use. A field is taken as little-endian words of 8 bytes, the last
//! one filled up with zeros:
//!
//! ```text
//! h = fold(h ^ word, A)                  for each whole word
//! h = fold(h ^ last, B ^ field length)   for the rest, also where it is empty
//! finish: fold(h, C); 0 becomes 1
//! fold(x, y) = low 64 bits of x*y  ^  high 64 bits of x*y      (as in wyhash, Wang Yi, 2019)
//! ```

const A: u64 = 0x9e37_79b9_7f4a_7c15;
const B: u64 = 0xd6e8_feb8_6659_fd93;
const C: u64 = 0xff51_afd7_ed55_8ccd;

/// The running state.
#[derive(Clone, Copy)]
pub(super) struct StableHash(u64);

impl StableHash {
    /// Starts a hash for one use; different uses of the same bytes differ.
    pub(super) const fn new(purpose: u64) -> Self {
        Self(purpose ^ 0x5bd1_e995_7b7d_159f)
    }

    /// Adds a field; its length counts, so that moving a byte to the next field changes the result.
    pub(super) fn write(&mut self, field: &[u8]) {
        let (words, rest) = field.as_chunks::<8>();
        let mut h = self.0;
        for word in words {
            h = fold(h ^ u64::from_le_bytes(*word), A);
        }
        self.0 = fold(h ^ last_word(rest), B ^ field.len() as u64);
    }

    /// Returns the result; never 0, which means "none" in a transaction.
    pub(super) fn finish(self) -> u64 {
        fold(self.0, C).max(1)
    }
}

/// Returns up to 7 bytes as a little-endian word, filled up with zeros. By overlapping loads: copying a length
/// that the compiler does not know is a call.
fn last_word(rest: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        let shift = 8 * (rest.len() - 4) as u32;
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << shift;
    }
    rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn fold(a: u64, b: u64) -> u64 {
    let m = u128::from(a) * u128::from(b);
    (m as u64) ^ ((m >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[&str]) -> u64 {
        let mut h = StableHash::new(1);
        for f in fields {
            h.write(f.as_bytes());
        }
        h.finish()
    }

    #[test]
    fn values_are_pinned() {
        // Records and models hold these: a change here is a breaking change. Computed apart, in Python.
        assert_eq!(of(&[]), 0xee0f_a751_0114_bc05);
        assert_eq!(of(&["POST /login"]), 0x9c73_d4d0_57d2_4ac0);
    }

    #[test]
    fn order_lengths_and_bytes_count() {
        let all = [
            of(&["ab", "c"]),
            of(&["a", "bc"]),
            of(&["abc"]),
            of(&["c", "ab"]),
            of(&["abc", ""]),
            of(&["abd"]),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{i}");
        }
    }
    #[test]
    fn last_words_are_the_bytes_filled_up_with_zeros() {
        for len in 0..8 {
            let bytes: Vec<u8> = (0..len).map(|i| 0x81 + i as u8).collect();
            let mut want = [0; 8];
            want[..len].copy_from_slice(&bytes);
            assert_eq!(last_word(&bytes), u64::from_le_bytes(want), "{len}");
        }
    }
}
