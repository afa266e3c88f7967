//! Frames held in memory: for tests, benches and fuzzing.

use offpath_types::{Frame, LinkType, Timestamp};

use crate::{CaptureCounters, PacketSource, Polled, SourceError};

struct Entry {
    time: Timestamp,
    link: LinkType,
    wire_len: u32,
    start: usize,
    len: usize,
}

/// Frames in memory, handed out in the order they were pushed; can be played again.
#[derive(Default)]
pub struct MemorySource {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    next: usize,
    newest: Timestamp,
    counters: CaptureCounters,
}

impl MemorySource {
    /// Makes a source without frames.
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies frames out of `source` until its end or until `bytes_max` captured bytes are held.
    ///
    /// # Errors
    /// Those of `source`.
    pub fn load(source: &mut impl PacketSource, bytes_max: usize) -> Result<Self, SourceError> {
        let mut out = Self::new();
        loop {
            match source.next_frame()? {
                Polled::Frame(frame) if out.bytes.len() + frame.bytes.len() <= bytes_max => out.push(&frame),
                Polled::Idle(_) => {}
                Polled::Frame(_) | Polled::End => return Ok(out),
            }
        }
    }

    /// Adds a copy of `frame` at the end.
    pub fn push(&mut self, frame: &Frame<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame.bytes);
        let (time, link, wire_len) = (frame.time, frame.link, frame.wire_len);
        self.entries.push(Entry { time, link, wire_len, start, len: frame.bytes.len() });
    }

    /// Starts again from the first frame; counters too.
    pub fn rewind(&mut self) {
        self.next = 0;
        self.newest = Timestamp::ZERO;
        self.counters = CaptureCounters::default();
    }

    /// Returns how many frames are held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether no frame is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns how many captured bytes are held.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }
}

impl PacketSource for MemorySource {
    fn next_frame(&mut self) -> Result<Polled<'_>, SourceError> {
        let Some(entry) = self.entries.get(self.next) else { return Ok(Polled::End) };
        self.next += 1;
        let c = &mut self.counters;
        c.time_backwards_total += u64::from(entry.time < self.newest);
        self.newest = self.newest.max(entry.time);
        c.frames_total += 1;
        c.bytes_total += entry.len as u64;
        c.frames_snapped_total += u64::from(entry.wire_len as usize > entry.len);
        let bytes = &self.bytes[entry.start..entry.start + entry.len];
        Ok(Polled::Frame(Frame { time: self.newest, link: entry.link, wire_len: entry.wire_len, bytes }))
    }

    fn counters(&self) -> CaptureCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plays_what_was_pushed_and_clamps_time() {
        let mut source = MemorySource::new();
        for (nanos, bytes) in [(5, &b"one"[..]), (3, b"two"), (9, b"")] {
            source.push(&Frame {
                time: Timestamp::from_nanos(nanos),
                link: LinkType::Raw,
                wire_len: 3,
                bytes,
            });
        }
        for _ in 0..2 {
            let mut got = Vec::new();
            while let Polled::Frame(f) = source.next_frame().unwrap() {
                got.push((f.time.as_nanos(), f.bytes.to_vec()));
            }
            assert_eq!(got, [(5, b"one".to_vec()), (5, b"two".to_vec()), (9, vec![])]);
            let c = source.counters();
            assert_eq!((c.frames_total, c.bytes_total, c.time_backwards_total), (3, 6, 1));
            assert_eq!(c.frames_snapped_total, 1);
            source.rewind();
        }
        assert_eq!(MemorySource::load(&mut source, 5).unwrap().len(), 1);
    }
}
