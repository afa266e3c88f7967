//! How many different members a set has seen lately.

/// Members kept exactly before a sketch takes over.
const EXACT_MAX: usize = 16;
/// Registers of each of the two sketches: standard error 1.04/√256 = 6.5 %.
const REGISTERS: usize = 256;

/// A set that forgets: members count until one to two windows after they were last seen.
///
/// Exact up to 16 members, then a pair of HyperLogLog sketches (Flajolet et al. 2007, with linear counting
/// below 2.5 m), one per epoch; a new epoch drops the older one. 80 bytes, plus 528 once it is a sketch.
// Invariant: `small[..len]` holds different members; bit 0 is the parity of the epoch they were last seen in.
#[derive(Clone, Debug)]
pub(crate) struct Distinct {
    epoch: u32,
    len: u8,
    small: [u32; EXACT_MAX],
    sketch: Option<Box<Sketch>>,
}

#[derive(Clone, Debug)]
struct Sketch {
    /// Registers by parity of the epoch.
    registers: [[u8; REGISTERS]; 2],
    estimate: f32,
}

impl Distinct {
    pub(crate) const fn new() -> Self {
        Self { epoch: 0, len: 0, small: [0; EXACT_MAX], sketch: None }
    }

    /// Adds a member, given by 64 well mixed bits, during `epoch`. Allocates once, at the 17th member.
    pub(crate) fn insert(&mut self, hash: u64, epoch: u32) {
        self.turn(epoch);
        let parity = self.epoch & 1;
        if let Some(sketch) = &mut self.sketch {
            sketch.insert((hash as u32) & !1, parity as usize);
            return;
        }
        let word = (hash as u32) & !1;
        let len = usize::from(self.len);
        if let Some(have) = self.small[..len].iter_mut().find(|w| **w & !1 == word) {
            *have = word | parity;
        } else if len < EXACT_MAX {
            self.small[len] = word | parity;
            self.len += 1;
        } else {
            let mut sketch = Box::new(Sketch { registers: [[0; REGISTERS]; 2], estimate: 0.0 });
            for have in self.small {
                sketch.insert(have & !1, (have & 1) as usize);
            }
            sketch.insert(word, parity as usize);
            self.sketch = Some(sketch);
            self.len = 0;
        }
    }

    /// Returns the number of members seen lately, as of `epoch`. O(1), or O(256) when an epoch has passed.
    pub(crate) fn count(&mut self, epoch: u32) -> f64 {
        self.turn(epoch);
        match &self.sketch {
            Some(sketch) => f64::from(sketch.estimate),
            None => f64::from(self.len),
        }
    }

    /// Tells whether the set is still exact and `hash` a member, as of the last insertion.
    pub(crate) fn knows(&self, hash: u64) -> bool {
        let word = (hash as u32) & !1;
        self.small[..usize::from(self.len)].iter().any(|w| w & !1 == word)
    }

    /// Returns the number of members as of the last insertion.
    pub(crate) fn last_count(&self) -> f64 {
        self.sketch.as_ref().map_or(f64::from(self.len), |s| f64::from(s.estimate))
    }

    fn turn(&mut self, epoch: u32) {
        let passed = epoch.saturating_sub(self.epoch);
        if passed == 0 {
            return;
        }
        let stale = epoch & 1; // Parity of the new epoch, and so of the one before the last.
        self.epoch = epoch;
        if passed >= 2 {
            self.len = 0;
            self.sketch = None;
            return;
        }
        if let Some(sketch) = &mut self.sketch {
            sketch.registers[stale as usize] = [0; REGISTERS];
            sketch.update();
            return;
        }
        let mut kept = 0;
        for at in 0..usize::from(self.len) {
            if self.small[at] & 1 != stale {
                self.small[kept] = self.small[at];
                kept += 1;
            }
        }
        self.len = kept as u8;
    }
}

impl Sketch {
    /// Adds a member by the 31 bits that the exact form keeps of it, so that it counts once whether it
    /// came before or after the change to a sketch.
    fn insert(&mut self, word: u32, parity: usize) {
        let mixed = crate::math::mix(u128::from(word));
        let at = (mixed >> 56) as usize;
        let rank = ((mixed << 8) | 0x80).leading_zeros() as u8 + 1;
        if rank > self.registers[parity][at] {
            let grew = rank > self.registers[parity ^ 1][at];
            self.registers[parity][at] = rank;
            if grew {
                self.update();
            }
        }
    }

    fn update(&mut self) {
        let m = REGISTERS as f32;
        let (mut sum, mut zero) = (0.0f32, 0u32);
        for (a, b) in self.registers[0].iter().zip(&self.registers[1]) {
            let rank = *a.max(b);
            zero += u32::from(rank == 0);
            sum += f32::from_bits((127 - u32::from(rank)) << 23); // 2^-rank
        }
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        self.estimate = if raw <= 2.5 * m && zero > 0 {
            (f64::from(m) * f64::from(m / zero as f32).ln()) as f32
        } else {
            raw
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::mix;

    fn filled(n: u32, epoch: u32) -> Distinct {
        let mut set = Distinct::new();
        for i in 0..n {
            set.insert(mix(u128::from(i)), epoch);
        }
        set
    }

    #[test]
    fn exact_while_small_then_within_error() {
        for n in [0, 1, 2, 15, 16] {
            assert_eq!(filled(n, 3).count(3), f64::from(n));
            assert!(!filled(n, 3).knows(mix(u128::from(n))));
            assert!(n == 0 || filled(n, 3).knows(mix(0)));
        }
        for n in [17u32, 30, 100, 300, 1000, 10_000, 200_000] {
            let have = filled(n, 3).count(3);
            let err = (have - f64::from(n)).abs() / f64::from(n);
            assert!(err < 0.2, "{n}: {have}"); // three standard errors
        }
    }

    #[test]
    fn repeats_do_not_count() {
        for n in [5u32, 16, 40] {
            let mut set = filled(n, 1);
            let before = set.count(1);
            for i in 0..n {
                set.insert(mix(u128::from(i)), 1);
            }
            assert_eq!(set.count(1), before, "{n}");
        }
    }

    #[test]
    fn members_are_forgotten_after_two_epochs() {
        for n in [5u32, 200] {
            let mut set = filled(n, 10);
            let full = set.count(10);
            assert_eq!(set.count(11), full, "{n}");
            set.insert(mix(0), 11); // seen again: stays one epoch longer
            let again = set.count(12);
            assert!((0.9..1.1).contains(&again), "{n}: {again}");
            assert_eq!(set.count(14), 0.0, "{n}");
        }
    }
}
