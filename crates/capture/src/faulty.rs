//! A source that loses, repeats, delays and cuts frames, as mirrors do; repeatable by seed.

use offpath_types::{Frame, LinkType, Timestamp};

use crate::{CaptureCounters, PacketSource, Polled, SourceError};

/// How often each fault happens, in frames per million; each is drawn on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultOptions {
    /// Same seed, same faults.
    pub seed: u64,
    /// Frames lost.
    pub drop_ppm: u32,
    /// Frames handed out twice, the copy right behind.
    pub duplicate_ppm: u32,
    /// Frames that are overtaken by others. One frame is held at a time.
    pub reorder_ppm: u32,
    /// By how many frames; 1 swaps neighbours.
    pub reorder_distance: u32,
    /// Frames cut at a random length, as a snap length does (`wire_len` stays).
    pub truncate_ppm: u32,
}

impl FaultOptions {
    /// Makes options without faults.
    pub const fn new(seed: u64) -> Self {
        Self { seed, drop_ppm: 0, duplicate_ppm: 0, reorder_ppm: 0, reorder_distance: 1, truncate_ppm: 0 }
    }
}

/// A copy of a frame.
struct Copied {
    time: Timestamp,
    link: LinkType,
    wire_len: u32,
    bytes: Vec<u8>,
}

impl Copied {
    const fn new() -> Self {
        Self { time: Timestamp::ZERO, link: LinkType::Raw, wire_len: 0, bytes: Vec::new() }
    }

    fn take(&mut self, frame: &Frame<'_>, len: usize) {
        (self.time, self.link, self.wire_len) = (frame.time, frame.link, frame.wire_len);
        self.bytes.clear();
        self.bytes.extend_from_slice(&frame.bytes[..len]);
    }
}

/// Passes on the frames of another source with faults.
///
/// Times stay monotonic: a frame that comes late carries the time at which it comes, as it would had the
/// wire delayed it. Frames are copied; this is for tests.
pub struct FaultySource<S> {
    inner: S,
    options: FaultOptions,
    random: u64,
    out: Copied,
    held: Copied,
    /// Frames that still overtake `held`; `None` when nothing is held.
    overtakers: Option<u32>,
    repeat: bool,
    newest: Timestamp,
    counters: CaptureCounters,
}

impl<S: PacketSource> FaultySource<S> {
    /// Puts faults between `inner` and its reader.
    pub fn new(inner: S, options: FaultOptions) -> Self {
        Self {
            inner,
            options,
            random: options.seed,
            out: Copied::new(),
            held: Copied::new(),
            overtakers: None,
            repeat: false,
            newest: Timestamp::ZERO,
            counters: CaptureCounters::default(),
        }
    }

    /// Returns the source inside.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// Draws from SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    const fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws with a chance of `ppm` in a million.
    const fn chance(&mut self, ppm: u32) -> bool {
        self.draw() % 1_000_000 < ppm as u64
    }

    /// Hands out what is in `out`.
    fn deliver(&mut self) -> Polled<'_> {
        self.newest = self.newest.max(self.out.time);
        self.counters.frames_total += 1;
        self.counters.bytes_total += self.out.bytes.len() as u64;
        Polled::Frame(Frame {
            time: self.newest,
            link: self.out.link,
            wire_len: self.out.wire_len,
            bytes: &self.out.bytes,
        })
    }

    /// Hands out the held frame.
    fn release(&mut self) -> Polled<'_> {
        self.overtakers = None;
        std::mem::swap(&mut self.out, &mut self.held);
        self.counters.fault_reordered_total += 1;
        self.deliver()
    }
}

impl<S: PacketSource> PacketSource for FaultySource<S> {
    fn next_frame(&mut self) -> Result<Polled<'_>, SourceError> {
        if std::mem::take(&mut self.repeat) {
            self.counters.fault_duplicated_total += 1;
            return Ok(self.deliver());
        }
        if self.overtakers == Some(0) {
            return Ok(self.release());
        }
        loop {
            // Always five draws per frame, so that changing one rate leaves the other faults where they are.
            let drop = self.chance(self.options.drop_ppm);
            let duplicate = self.chance(self.options.duplicate_ppm);
            let reorder = self.chance(self.options.reorder_ppm);
            let truncate = self.chance(self.options.truncate_ppm);
            let cut = self.draw();
            match self.inner.next_frame()? {
                // A frame in hand must not wait for a quiet wire; the source is idle again next time.
                Polled::Idle(time) => {
                    if self.overtakers.is_some() {
                        return Ok(self.release());
                    }
                    self.newest = self.newest.max(time);
                    return Ok(Polled::Idle(time));
                }
                Polled::End => {
                    return Ok(if self.overtakers.is_some() { self.release() } else { Polled::End });
                }
                Polled::Frame(_) if drop => self.counters.fault_dropped_total += 1,
                Polled::Frame(frame) => {
                    let mut len = frame.bytes.len();
                    if truncate && len > 0 {
                        self.counters.fault_truncated_total += 1;
                        len = (cut % len as u64) as usize;
                    }
                    if reorder && self.overtakers.is_none() {
                        self.held.take(&frame, len);
                        self.overtakers = Some(self.options.reorder_distance.max(1));
                        continue;
                    }
                    self.out.take(&frame, len);
                    self.repeat = duplicate;
                    self.overtakers = self.overtakers.map(|n| n.saturating_sub(1));
                    return Ok(self.deliver());
                }
            }
        }
    }

    /// Returns the inner source's counters, with what was handed out here and the faults.
    fn counters(&self) -> CaptureCounters {
        let mut c = self.inner.counters();
        c.frames_total = 0;
        c.bytes_total = 0;
        c.merge(&self.counters);
        c
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemorySource;

    fn frames(n: u32) -> MemorySource {
        let mut source = MemorySource::new();
        for i in 0..n {
            source.push(&Frame {
                time: Timestamp::from_nanos(u64::from(i) * 10),
                link: LinkType::Ethernet,
                wire_len: 8,
                bytes: &[i.to_be_bytes(), [7; 4]].concat(),
            });
        }
        source
    }

    fn play(options: FaultOptions, n: u32) -> (Vec<(u64, Vec<u8>)>, CaptureCounters) {
        let mut source = FaultySource::new(frames(n), options);
        let mut got: Vec<(u64, Vec<u8>)> = Vec::new();
        while let Polled::Frame(f) = source.next_frame().unwrap() {
            assert!(got.last().is_none_or(|(t, _)| *t <= f.time.as_nanos()), "{options:?}: time went back");
            got.push((f.time.as_nanos(), f.bytes.to_vec()));
        }
        let (c, inner) = (source.counters(), source.inner().counters());
        assert_eq!(c.frames_total, inner.frames_total - c.fault_dropped_total + c.fault_duplicated_total);
        assert_eq!(c.frames_total, got.len() as u64);
        (got, c)
    }

    #[test]
    fn without_faults_nothing_changes() {
        let (got, c) = play(FaultOptions::new(1), 50);
        assert_eq!(got.len(), 50);
        assert!(got.iter().enumerate().all(|(i, (t, b))| *t == i as u64 * 10 && b[3] == i as u8));
        assert_eq!(c.fault_dropped_total + c.fault_duplicated_total + c.fault_reordered_total, 0);
    }

    #[test]
    fn the_seed_decides() {
        let options = |seed| FaultOptions {
            drop_ppm: 50_000,
            duplicate_ppm: 50_000,
            reorder_ppm: 50_000,
            reorder_distance: 3,
            truncate_ppm: 50_000,
            ..FaultOptions::new(seed)
        };
        let (a, c) = play(options(7), 10_000);
        let (b, d) = play(options(7), 10_000);
        assert!(a == b && c == d, "same seed, same faults");
        let (other, _) = play(options(8), 10_000);
        assert!(a != other, "another seed, other faults");
        for (name, count) in [
            ("dropped", c.fault_dropped_total),
            ("duplicated", c.fault_duplicated_total),
            ("reordered", c.fault_reordered_total),
            ("truncated", c.fault_truncated_total),
        ] {
            assert!((300..700).contains(&count), "{name}: {count} of 10000 at 5 %");
        }
    }

    #[test]
    fn each_fault_alone() {
        let numbers = |got: &[(u64, Vec<u8>)]| got.iter().map(|(_, b)| b[3]).collect::<Vec<_>>();
        let all = 1_000_000;
        let (got, c) = play(FaultOptions { drop_ppm: all, ..FaultOptions::new(1) }, 5);
        assert_eq!((numbers(&got), c.fault_dropped_total), (vec![], 5));
        let (got, c) = play(FaultOptions { duplicate_ppm: all, ..FaultOptions::new(1) }, 2);
        assert_eq!((numbers(&got), c.fault_duplicated_total), (vec![0, 0, 1, 1], 2));
        let (got, c) = play(FaultOptions { reorder_ppm: all, ..FaultOptions::new(1) }, 4);
        assert_eq!((numbers(&got), c.fault_reordered_total), (vec![1, 0, 3, 2], 2));
        let (got, _) =
            play(FaultOptions { reorder_ppm: all, reorder_distance: 3, ..FaultOptions::new(1) }, 6);
        assert_eq!(numbers(&got), [1, 2, 3, 0, 5, 4], "the last one held is handed out at the end");
        let (got, c) = play(FaultOptions { truncate_ppm: all, ..FaultOptions::new(1) }, 4);
        assert!(got.iter().all(|(_, b)| b.len() < 8));
        assert_eq!(c.fault_truncated_total, 4);
    }
}
