//! What open transactions keep until they are handed on, by the byte, and how a shard shares it out.
//!
//! Counted: the texts of requests that wait for their response; what taps keep of bodies (coded bytes, texts for
//! outlines, GraphQL documents) and the taps themselves. Each changes with what was sent and never with how it was cut,
//! so what the limit does is the same however packets are.
//!
//! Whoever has much open must leave the last eighth to those who have little: one client cannot starve the others.

/// Requests that a flow may have open before it counts as having many.
pub(crate) const OPEN_SHARE: usize = 8;
/// What may be kept of one body before that counts as much: more than a login takes.
const BODY_SHARE: usize = 4 << 10;

/// The part of `max` that is there for a flow with `open` requests open.
pub(crate) fn share(max: usize, open: usize) -> usize {
    if open > OPEN_SHARE { less_reserve(max) } else { max }
}

fn less_reserve(max: usize) -> usize {
    max - max / 8
}

/// Bytes that the open transactions of a shard keep.
pub(crate) struct Kept {
    bytes: usize,
    max: usize,
}

impl Kept {
    /// Nothing yet, of the three quarters of `held_bytes_max` that there are: buffers have the rest.
    pub(crate) fn of(held_bytes_max: usize) -> Self {
        Self { bytes: 0, max: held_bytes_max - held_bytes_max / 4 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Says how many are kept: another shard's.
    pub(crate) fn set(&mut self, bytes: usize) {
        self.bytes = bytes;
    }

    /// Bytes that buffers must leave to what is kept.
    pub(crate) fn claimed(&self) -> usize {
        self.bytes.min(self.max)
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(crate) fn remove(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.bytes, "removed what was not kept");
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Tells whether a flow with `open` requests open must give one up.
    #[inline]
    pub(crate) fn is_full(&self, open: usize) -> bool {
        self.bytes > share(self.max, open)
    }

    /// Takes room for `want` more bytes of a body of which `has` are kept; returns how many there is room for.
    pub(crate) fn take(&mut self, has: usize, want: usize) -> usize {
        let few = want.min(BODY_SHARE.saturating_sub(has));
        let mut taken = few.min(self.max.saturating_sub(self.bytes));
        if taken == few {
            let room = less_reserve(self.max).saturating_sub(self.bytes + taken);
            taken += (want - few).min(room);
        }
        self.bytes += taken;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_eighth_is_for_those_with_little() {
        assert_eq!([8, 9].map(|open| share(800, open)), [800, 700]);
        assert_eq!(share(3, 100), 3, "a limit too small to be shared");
        let full = Kept { bytes: 701, max: 800 };
        assert_eq!([8, 9].map(|open| full.is_full(open)), [false, true]);
    }

    #[test]
    fn room_is_the_same_however_a_body_is_cut() {
        for (before, want, taken) in [
            (0, 100, 100),
            (0, 30_000, 14_000),
            (10_000, 3_000, 3_000),
            (10_000, 30_000, 4_096),
            (15_999, 2, 1),
            (20_000, 100, 0),
        ] {
            for step in [usize::MAX, 1000, 7, 1] {
                let mut kept = Kept { bytes: before, max: 16_000 };
                let (mut has, mut left) = (0, want);
                while left > 0 {
                    let ask = left.min(step);
                    let got = kept.take(has, ask);
                    (has, left) = (has + got, left - ask);
                    if got < ask {
                        break;
                    }
                }
                assert_eq!((has, kept.bytes()), (taken, before + taken), "{before} {want} by {step}");
            }
        }
    }
}
