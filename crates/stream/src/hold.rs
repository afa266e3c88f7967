//! Keeps what one direction cannot deliver yet: bytes behind a hole, and what is known about the hole.

use std::collections::VecDeque;

use offpath_types::{Side, Timestamp};

use crate::StreamLimits;
use crate::wheel::{Links, Timed};

/// Bookkeeping bytes counted per held segment against the table's limit.
pub(crate) const SEGMENT_OVERHEAD: u64 = 64;

/// One run of bytes from one segment, waiting.
pub(crate) struct Held {
    /// Stream offset of the first byte.
    pub(crate) start: u64,
    pub(crate) bytes: Vec<u8>,
    /// Bytes after `bytes` that a snap length cut off: known to be missing for good.
    pub(crate) cut: u32,
    /// The acknowledgement number that the segment carried.
    pub(crate) ack: Option<u32>,
    pub(crate) seen: Timestamp,
}

impl Held {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64 + u64::from(self.cut)
    }
}

/// Bytes to hold, still borrowed from their segment.
#[derive(Clone, Copy)]
pub(crate) struct Fresh<'a> {
    pub(crate) start: u64,
    pub(crate) bytes: &'a [u8],
    pub(crate) cut: u32,
    pub(crate) ack: Option<u32>,
    pub(crate) seen: Timestamp,
}

/// What [`Hold::insert`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inserted {
    /// Captured bytes newly held.
    pub(crate) bytes: u64,
    /// Segments (pieces) newly held.
    pub(crate) segments: u64,
    /// Overlapped bytes that differ from the first copy.
    pub(crate) conflict_bytes: u64,
}

/// Acknowledged bytes that were not seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acked {
    /// The stream offset up to which they were acknowledged when `since` was taken.
    pub(crate) upto: u64,
    pub(crate) since: Timestamp,
    /// Segments of the flow seen since, the one that brought the acknowledgement included.
    pub(crate) segments_after: u8,
}

/// A direction with a hole, or with bytes acknowledged beyond those seen.
// Invariant: `held` is sorted by start and disjoint; `bytes` is the sum of its captured bytes.
pub(crate) struct Hold {
    pub(crate) conn: u32,
    pub(crate) side: Side,
    pub(crate) links: Links,
    pub(crate) held: VecDeque<Held>,
    pub(crate) bytes: u64,
    /// Highest stream offset acknowledged by the receiver.
    pub(crate) acked: u64,
    pub(crate) evidence: Option<Acked>,
    /// Since when bytes or a FIN behind a hole are known.
    pub(crate) hole_since: Option<Timestamp>,
    /// The receiver asked for the hole's first byte since then.
    pub(crate) stalled: bool,
    /// When a RST came that may have overtaken bytes, and the offset it stood at.
    pub(crate) reset: Option<(Timestamp, u64)>,
    /// When something is to be given up next.
    pub(crate) due: Timestamp,
    /// `due` when the hold was put into its wheel.
    pub(crate) queued: Timestamp,
}

impl Timed for Hold {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Hold {
    pub(crate) fn new(conn: u32, side: Side) -> Self {
        Self {
            conn,
            side,
            links: Links::OUT,
            held: VecDeque::new(),
            bytes: 0,
            acked: 0,
            evidence: None,
            hole_since: None,
            stalled: false,
            reset: None,
            due: Timestamp::MAX,
            queued: Timestamp::MAX,
        }
    }

    /// Tells whether anything is to be given up; what the client acknowledged of its server may only be remembered.
    pub(crate) const fn is_timed(&self) -> bool {
        self.evidence.is_some() || self.hole_since.is_some() || self.reset.is_some()
    }

    /// Returns when the acknowledged bytes are given up.
    pub(crate) fn acked_due(&self, limits: &StreamLimits) -> Option<Timestamp> {
        let evidence = self.evidence?;
        let wait = if evidence.segments_after > limits.hole_acked_segments {
            limits.hole_acked_min_nanos.min(limits.hole_acked_nanos)
        } else {
            limits.hole_acked_nanos
        };
        Some(evidence.since.plus_nanos(wait))
    }

    /// Returns when the first hole is given up for its age.
    pub(crate) fn age_due(&self, limits: &StreamLimits) -> Option<Timestamp> {
        let wait = if self.stalled {
            limits.hole_stalled_age_nanos.max(limits.hole_age_nanos)
        } else {
            limits.hole_age_nanos
        };
        Some(self.hole_since?.plus_nanos(wait))
    }

    /// Returns when everything is given up because of a RST.
    pub(crate) fn reset_due(&self, limits: &StreamLimits) -> Option<Timestamp> {
        Some(self.reset?.0.plus_nanos(limits.reset_linger_nanos))
    }

    /// Returns the offset of the first held byte.
    pub(crate) fn first_start(&self) -> Option<u64> {
        self.held.front().map(|h| h.start)
    }

    /// Returns the offset after the last held byte.
    pub(crate) fn last_end(&self) -> u64 {
        self.held.back().map_or(0, Held::end)
    }

    /// Takes the first held run where it starts at `offset`.
    pub(crate) fn take_at(&mut self, offset: u64) -> Option<Held> {
        if self.first_start()? != offset {
            return None;
        }
        let held = self.held.pop_front()?;
        self.bytes -= held.bytes.len() as u64;
        Some(held)
    }

    /// Moves the start of what is held `by` bytes on (or back); returns the captured bytes and segments that lie before
    /// it, which are dropped.
    pub(crate) fn shift(&mut self, by: i64) -> (u64, u64) {
        let (mut bytes, mut segments) = (0, 0);
        while self.held.front().is_some_and(|held| held.end() as i64 <= by) {
            bytes += self.held.pop_front().map_or(0, |held| held.bytes.len() as u64);
            segments += 1;
        }
        if let Some(held) = self.held.front_mut()
            && let before @ 1.. = by - held.start as i64
        {
            let captured = (before as usize).min(held.bytes.len());
            held.bytes.drain(..captured);
            held.cut -= (before as u64 - captured as u64) as u32;
            held.start = by as u64;
            bytes += captured as u64;
        }
        for held in &mut self.held {
            held.start = held.start.saturating_add_signed(-by);
        }
        self.bytes -= bytes;
        (bytes, segments)
    }

    /// Tells whether bytes or a FIN are missing that may still come.
    pub(crate) const fn lacks(&self) -> bool {
        self.hole_since.is_some() || self.evidence.is_some()
    }

    /// Keeps the bytes that are not held yet; what is held already stays (first copy wins).
    ///
    /// Cost: a binary search, and the shorter side of the queue is moved; linear in the queue only where
    /// the segment spans several held ones.
    pub(crate) fn insert(&mut self, new: Fresh<'_>, spare: &mut Vec<Vec<u8>>) -> Inserted {
        let (start, data_end) = (new.start, new.start + new.bytes.len() as u64);
        let end = data_end + u64::from(new.cut);
        let mut done = Inserted::default();
        let first = self.held.partition_point(|h| h.end() <= start);
        if self.held.get(first).is_none_or(|h| h.start >= end) {
            // Nothing overlaps: the ordinary case, kept free of allocation.
            let mut bytes = spare.pop().unwrap_or_default();
            bytes.extend_from_slice(new.bytes);
            self.bytes += bytes.len() as u64;
            let done = Inserted { bytes: bytes.len() as u64, segments: 1, conflict_bytes: 0 };
            self.held.insert(first, Held { start, bytes, cut: new.cut, ack: new.ack, seen: new.seen });
            return done;
        }
        let slice = |from: u64, to: u64| &new.bytes[(from - start) as usize..(to - start) as usize];
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        let mut at = start;
        let mut last = first;
        while let Some(h) = self.held.get(last).filter(|h| h.start < end) {
            let free_until = h.start.min(data_end);
            if at < free_until {
                pieces.push((at, free_until));
            }
            let (from, to) = (start.max(h.start), data_end.min(h.start + h.bytes.len() as u64));
            if from < to {
                let second = slice(from, to);
                let kept = &h.bytes[(from - h.start) as usize..(to - h.start) as usize];
                if second != kept {
                    done.conflict_bytes += second.iter().zip(kept).filter(|(a, b)| a != b).count() as u64;
                }
            }
            at = at.max(h.end());
            last += 1;
        }
        // The cut-off tail is worth keeping only where it is free.
        let tail_cut = if at <= data_end { new.cut } else { 0 };
        if at < data_end {
            pieces.push((at, data_end));
        }
        let mut make = |(from, to): (u64, u64)| {
            let mut bytes = spare.pop().unwrap_or_default();
            bytes.extend_from_slice(slice(from, to));
            done.bytes += to - from;
            done.segments += 1;
            let cut = if to == data_end { tail_cut } else { 0 };
            Held { start: from, bytes, cut, ack: new.ack, seen: new.seen }
        };
        match pieces[..] {
            [] => {}
            [piece] => {
                let held = make(piece);
                let index = self.held.partition_point(|h| h.start < piece.0);
                self.held.insert(index, held);
            }
            _ => {
                let rest = self.held.split_off(first);
                let mut pieces = pieces.into_iter().peekable();
                for h in rest {
                    while let Some(piece) = pieces.next_if(|p| p.0 < h.start) {
                        self.held.push_back(make(piece));
                    }
                    self.held.push_back(h);
                }
                self.held.extend(pieces.map(make));
            }
        }
        self.bytes += done.bytes;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(start: u64, bytes: &[u8], cut: u32) -> Fresh<'_> {
        Fresh { start, bytes, cut, ack: None, seen: Timestamp::ZERO }
    }

    /// Renders what is held as `start:bytes+cut` runs.
    fn show(hold: &Hold) -> String {
        let runs: Vec<String> = hold
            .held
            .iter()
            .map(|h| {
                let cut = if h.cut > 0 { format!("+{}", h.cut) } else { String::new() };
                format!("{}:{}{cut}", h.start, String::from_utf8_lossy(&h.bytes))
            })
            .collect();
        runs.join(" ")
    }

    type Row = (&'static str, &'static [(u64, &'static str, u32)], &'static str, u64);

    #[test]
    fn first_copy_wins() {
        let rows: &[Row] = &[
            ("apart", &[(10, "ab", 0), (20, "cd", 0), (15, "x", 0)], "10:ab 15:x 20:cd", 0),
            ("touching", &[(10, "ab", 0), (12, "cd", 0), (8, "xy", 0)], "8:xy 10:ab 12:cd", 0),
            ("same twice", &[(10, "abcd", 0), (10, "abcd", 0)], "10:abcd", 0),
            ("inside, differs", &[(10, "abcd", 0), (11, "bX", 0)], "10:abcd", 1),
            ("left overlap", &[(10, "abcd", 0), (8, "xyab", 0)], "8:xy 10:abcd", 0),
            ("right overlap", &[(10, "abcd", 0), (12, "cdef", 0)], "10:abcd 14:ef", 0),
            ("around", &[(10, "ab", 0), (8, "xyQQzw", 0)], "8:xy 10:ab 12:zw", 2),
            (
                "over several",
                &[(10, "a", 0), (12, "b", 0), (14, "c", 0), (9, "123456789", 0)],
                "9:1 10:a 11:3 12:b 13:5 14:c 15:789",
                3,
            ),
            ("cut tail free", &[(10, "ab", 3), (20, "cd", 0)], "10:ab+3 20:cd", 0),
            ("cut tail taken", &[(12, "cd", 0), (10, "ab", 2)], "10:ab 12:cd", 0),
            ("all cut", &[(10, "", 5)], "10:+5", 0),
            ("bytes over a cut tail", &[(10, "ab", 4), (12, "cdefgh", 0)], "10:ab+4 16:gh", 0),
        ];
        for (name, inserts, want, want_conflict) in rows {
            let mut hold = Hold::new(0, Side::Low);
            let mut conflict = 0;
            for (start, bytes, cut) in *inserts {
                let before = hold.bytes;
                let done = hold.insert(fresh(*start, bytes.as_bytes(), *cut), &mut Vec::new());
                assert_eq!(hold.bytes, before + done.bytes, "{name}");
                conflict += done.conflict_bytes;
            }
            assert_eq!(show(&hold), *want, "{name}");
            assert_eq!(conflict, *want_conflict, "{name}");
            assert_eq!(hold.bytes, hold.held.iter().map(|h| h.bytes.len() as u64).sum::<u64>(), "{name}");
        }
    }
}
