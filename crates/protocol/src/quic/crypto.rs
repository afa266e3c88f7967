//! The handshake bytes that one side sent in CRYPTO frames, put in order.

use super::packet::Reader;

/// Longest run of handshake bytes that is put together: hellos reach 2 to 4 KiB.
pub(super) const CRYPTO_BYTES_MAX: usize = 16 << 10;
/// Pieces that are held apart. Chromium shuffles its hello into about ten.
const PIECES_MAX: usize = 128;

/// Why a hello is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CryptoError {
    /// It reaches beyond [`CRYPTO_BYTES_MAX`].
    TooLong,
    /// It came in more than [`PIECES_MAX`] pieces that do not touch.
    TooManyPieces,
}

/// Bytes by their offset.
// Invariants: `pieces` is sorted, disjoint, no two touch, all end within `bytes`.
#[derive(Debug, Default)]
pub(super) struct Crypto {
    bytes: Vec<u8>,
    pieces: Vec<(usize, usize)>,
    /// Messages before this offset are done with.
    from: usize,
}

impl Crypto {
    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Frees what is held.
    pub(super) fn clear(&mut self) {
        *self = Self { from: self.from, ..Self::default() };
    }

    /// Passes over the first message that is held.
    pub(super) fn skip_message(&mut self) {
        if let Some((_, body)) = self.message() {
            self.from += 4 + body.len();
        }
    }

    /// Takes the frames of a decrypted packet; returns type and body of the first message, once it is whole.
    ///
    /// Bytes that were held stay as they first came. Frames behind one that Initial packets cannot have are not read.
    pub(super) fn packet(&mut self, frames: &[u8]) -> Result<Option<(u8, &[u8])>, CryptoError> {
        let mut r = Reader { bytes: frames, at: 0 };
        while let Some(kind) = r.u8() {
            let read = match kind {
                // PADDING, PING.
                0 | 1 => Some(()),
                2 | 3 => skip_ack(&mut r, kind == 3),
                6 => {
                    let frame = crypto_frame(&mut r);
                    if let Some((offset, data)) = frame {
                        self.put(offset, data)?;
                    }
                    frame.map(|_| ())
                }
                _ => None,
            };
            if read.is_none() {
                break;
            }
        }
        Ok(self.message())
    }

    fn message(&self) -> Option<(u8, &[u8])> {
        let end = self.pieces.iter().find(|(start, end)| (*start..*end).contains(&self.from))?.1;
        let bytes = self.bytes.get(self.from..end)?;
        let (&[kind, a, b, c], rest) = bytes.split_first_chunk::<4>()?;
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        Some((kind, rest.get(..len)?))
    }

    /// Adds `data` at `offset`. Cost: at most [`PIECES_MAX`] steps and the bytes themselves.
    fn put(&mut self, offset: u64, data: &[u8]) -> Result<(), CryptoError> {
        let start = usize::try_from(offset).map_err(|_| CryptoError::TooLong)?;
        let end = start.checked_add(data.len()).ok_or(CryptoError::TooLong)?;
        if end > CRYPTO_BYTES_MAX {
            return Err(CryptoError::TooLong);
        }
        if data.is_empty() {
            return Ok(());
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        // Fill only what is not there yet.
        let mut at = start;
        let first = self.pieces.partition_point(|(_, e)| *e < start);
        let mut last = first;
        let (mut from, mut to) = (start, end);
        while let Some((s, e)) = self.pieces.get(last).copied()
            && s <= end
        {
            if at < s {
                self.bytes[at..s].copy_from_slice(&data[at - start..s - start]);
            }
            at = at.max(e);
            (from, to) = (from.min(s), to.max(e));
            last += 1;
        }
        if at < end {
            self.bytes[at..end].copy_from_slice(&data[at - start..]);
        }
        self.pieces.splice(first..last, [(from, to)]);
        if self.pieces.len() > PIECES_MAX { Err(CryptoError::TooManyPieces) } else { Ok(()) }
    }
}

fn crypto_frame<'a>(r: &mut Reader<'a>) -> Option<(u64, &'a [u8])> {
    let offset = r.varint()?;
    let len = usize::try_from(r.varint()?).ok()?;
    Some((offset, r.take(len)?))
}

/// RFC 9000 §19.3. Each range takes bytes, so the count is bounded by the packet.
fn skip_ack(r: &mut Reader<'_>, ecn: bool) -> Option<()> {
    let (_largest, _delay, ranges, _first) = (r.varint()?, r.varint()?, r.varint()?, r.varint()?);
    for _ in 0..ranges {
        let (_gap, _length) = (r.varint()?, r.varint()?);
    }
    if ecn {
        let (_ect0, _ect1, _ce) = (r.varint()?, r.varint()?, r.varint()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_read_up_to_the_first_unknown() {
        let crypto = |offset: u8, data: &[u8]| [&[6, offset, data.len() as u8][..], data].concat();
        let first = crypto(0, &[1, 0, 0, 3, 7]);
        let last = crypto(5, &[8, 9]);
        let ack = [&[2, 5, 0, 1, 0, 1, 0][..], &[3, 5, 0, 0, 0, 1, 1, 1]].concat();
        for (name, frames, want) in [
            ("in order", vec![first.clone(), last.clone()], true),
            (
                "out of order, padded",
                vec![vec![0; 9], last.clone(), vec![1], first.clone(), vec![0; 3]],
                true,
            ),
            ("after acknowledgements", vec![ack.clone(), first.clone(), ack, last.clone()], true),
            ("behind an unknown frame", vec![first.clone(), vec![0x1c, 0], last.clone()], false),
            ("cut", vec![first.clone(), last[..4].to_vec()], false),
        ] {
            let mut c = Crypto::default();
            let got = c.packet(&frames.concat()).unwrap();
            assert_eq!(got, want.then_some((1, &[7u8, 8, 9][..])), "{name}");
        }
    }

    #[test]
    fn bounds_hold() {
        let mut c = Crypto::default();
        assert_eq!(c.put(CRYPTO_BYTES_MAX as u64, b"x"), Err(CryptoError::TooLong));
        assert_eq!(c.put(u64::MAX >> 2, b"x"), Err(CryptoError::TooLong));
        assert_eq!(c.put(CRYPTO_BYTES_MAX as u64 - 1, b"x"), Ok(()));
        let mut c = Crypto::default();
        let apart = (0..).take_while(|i| c.put(i * 2, b"x").is_ok()).count();
        assert_eq!(apart, PIECES_MAX);
    }

    proptest! {
        /// Any pieces in any order, overlapping or not, hold what an array with marks would.
        #[test]
        fn pieces_equal_an_array(puts in prop::collection::vec((0usize..60, prop::collection::vec(any::<u8>(), 0..20)), 1..40)) {
            let (mut c, mut want) = (Crypto::default(), vec![None; 100]);
            for (offset, data) in &puts {
                prop_assert_eq!(c.put(*offset as u64, data), Ok(()));
                for (i, b) in data.iter().enumerate() {
                    want[offset + i].get_or_insert(*b);
                }
                let mut got = vec![None; 100];
                for (s, e) in &c.pieces {
                    (*s..*e).for_each(|i| got[i] = Some(c.bytes[i]));
                }
                prop_assert_eq!(&got, &want);
                prop_assert!(c.pieces.windows(2).all(|w| w[0].1 < w[1].0));
            }
        }
    }
}
