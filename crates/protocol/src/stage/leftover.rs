//! Chunks kept from one layer to the next.

use offpath_types::{Chunk, Direction, EndReason, Timestamp};

/// Chunks in the order they came, with their bytes.
// Invariant: the lengths in `pieces` add up to `bytes`.
#[derive(Default)]
pub(crate) struct Leftover {
    bytes: Vec<u8>,
    pieces: Vec<(Direction, Piece)>,
}

/// A [`Chunk`] whose bytes are elsewhere.
enum Piece {
    Data { len: usize, offset: u64, peer_acked: Option<u64>, seen: Timestamp },
    Gap { len: u64, offset: u64, seen: Timestamp },
    End { reason: EndReason, seen: Timestamp },
}

impl Leftover {
    /// Adds a chunk.
    pub(crate) fn push(&mut self, dir: Direction, chunk: Chunk<'_>) {
        let piece = match chunk {
            Chunk::Data { bytes, offset, peer_acked, seen } => {
                self.bytes.extend_from_slice(bytes);
                Piece::Data { len: bytes.len(), offset, peer_acked, seen }
            }
            Chunk::Gap { len, offset, seen } => Piece::Gap { len, offset, seen },
            Chunk::End { reason, seen } => Piece::End { reason, seen },
        };
        self.pieces.push((dir, piece));
    }

    /// Bytes that it holds.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Tells whether there is no chunk.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Returns where what is there of `dir` starts, if anything is.
    pub(crate) fn start(&self, dir: Direction) -> Option<u64> {
        self.pieces.iter().find(|(d, _)| *d == dir).and_then(|(_, piece)| match piece {
            Piece::Data { offset, .. } | Piece::Gap { offset, .. } => Some(*offset),
            Piece::End { .. } => None,
        })
    }

    /// Returns the offset after what is there of `dir`, if anything is.
    pub(crate) fn end(&self, dir: Direction) -> Option<u64> {
        self.pieces.iter().rev().filter(|(d, _)| *d == dir).find_map(|(_, piece)| match piece {
            Piece::Data { offset, len, .. } => Some(offset + *len as u64),
            Piece::Gap { offset, len, .. } => Some(offset.saturating_add(*len)),
            Piece::End { .. } => None,
        })
    }

    /// Yields the chunks as they came.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (Direction, Chunk<'_>)> {
        let mut at = 0;
        self.pieces.iter().map(move |(dir, piece)| {
            let chunk = match *piece {
                Piece::Data { len, offset, peer_acked, seen } => {
                    let bytes = &self.bytes[at..at + len];
                    at += len;
                    Chunk::Data { bytes, offset, peer_acked, seen }
                }
                Piece::Gap { len, offset, seen } => Chunk::Gap { len, offset, seen },
                Piece::End { reason, seen } => Chunk::End { reason, seen },
            };
            (*dir, chunk)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_out_as_they_went_in() {
        let (up, down, seen) = (Direction::ToServer, Direction::ToClient, Timestamp::from_nanos(7));
        let chunks = [
            (up, Chunk::Data { bytes: b"abc", offset: 5, peer_acked: None, seen }),
            (down, Chunk::Gap { len: 9, offset: 1, seen }),
            (down, Chunk::Data { bytes: b"d", offset: 10, peer_acked: Some(8), seen }),
            (up, Chunk::End { reason: EndReason::Fin, seen }),
        ];
        let mut rest = Leftover::default();
        assert_eq!((rest.start(up), rest.end(up)), (None, None));
        chunks.iter().for_each(|(dir, chunk)| rest.push(*dir, *chunk));
        assert_eq!(rest.chunks().collect::<Vec<_>>(), chunks);
        assert_eq!(rest.len(), 4);
        assert_eq!((rest.start(up), rest.end(up)), (Some(5), Some(8)));
        assert_eq!((rest.start(down), rest.end(down)), (Some(1), Some(11)));
    }
}
