//! Does to a capture what mirrors do: loses, repeats, swaps and cuts frames, from a seed.
//!
//! What happened is kept: [`Kept`] names the frames of the input that did not come through whole, so a
//! test can tell what was recoverable (see [`crate::measure`]).

use std::io::{self, BufRead, Read, Write};

use offpath_types::{Direction, Timestamp};
use serde::{Deserialize, Serialize};

use crate::pcap_file::{PcapReader, PcapWriter, Record};
use crate::rng::Rng;

/// What to do. The default does nothing.
#[derive(Clone, Debug)]
pub struct Impairment {
    /// Percentage of frames that are lost, each on its own.
    pub loss_percent: f64,
    /// Percentage of frames that are seen twice, the second copy right after the first.
    pub duplicate_percent: f64,
    /// Percentage of frames that change places with the next one. Times stay in order.
    pub swap_percent: f64,
    /// Keeps only this direction.
    pub only: Option<Direction>,
    /// The server's port, which tells the direction; without it the lower port is the server's.
    pub server_port: Option<u16>,
    /// Drops everything before this many nanoseconds after the first frame.
    pub start_after_nanos: u64,
    /// Drops this many frames at the start.
    pub start_after_frames: u64,
    /// Cuts frames at this length.
    pub snaplen: Option<u32>,
    /// After this many frames the clock steps by so many nanoseconds, once; negative is backwards.
    pub time_step: Option<(u64, i64)>,
    /// Seed of all chances.
    pub seed: u64,
}

impl Default for Impairment {
    fn default() -> Self {
        Self {
            loss_percent: 0.0,
            duplicate_percent: 0.0,
            swap_percent: 0.0,
            only: None,
            server_port: None,
            start_after_nanos: 0,
            start_after_frames: 0,
            snaplen: None,
            time_step: None,
            seed: 1,
        }
    }
}

/// Which frames of the input came through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Frames in the input.
    pub frames_in: u64,
    /// Frames written.
    pub frames_out: u64,
    /// Frames written twice.
    pub duplicated: u64,
    /// Pairs of frames that changed places.
    pub swapped: u64,
    /// Numbers (from 0, ascending) of input frames that were not written.
    pub dropped: Vec<u64>,
    /// Numbers (from 0, ascending) of input frames that were written, but cut.
    pub cut: Vec<u64>,
}

impl Kept {
    /// Reads what [`Kept::write`] wrote.
    pub fn read(mut input: impl BufRead) -> io::Result<Self> {
        let mut line = String::new();
        input.by_ref().take(1 << 30).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Writes one line of JSON.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut out, self)?;
        out.write_all(b"\n")
    }

    /// Tells whether frame `index` of the input was written whole.
    pub fn survived(&self, index: u64) -> bool {
        self.dropped.binary_search(&index).is_err() && self.cut.binary_search(&index).is_err()
    }
}

/// Applies an [`Impairment`] to frames given one by one.
#[derive(Debug)]
pub struct Impairer {
    impairment: Impairment,
    link: u32,
    rng: Rng,
    start: Option<Timestamp>,
    held: Option<Record>,
    kept: Kept,
}

impl Impairer {
    /// Makes one for frames of data link type `link`.
    pub fn new(impairment: Impairment, link: u32) -> Self {
        let rng = Rng::new(impairment.seed);
        Self { impairment, link, rng, start: None, held: None, kept: Kept::default() }
    }

    /// Takes the next frame and hands what comes out of it to `emit`.
    pub fn push<E>(
        &mut self,
        mut record: Record,
        emit: &mut impl FnMut(&Record) -> Result<(), E>,
    ) -> Result<(), E> {
        let index = self.kept.frames_in;
        self.kept.frames_in += 1;
        // Every frame draws the same number of chances, so one setting does not shift another's choices.
        let lost = self.rng.percent(self.impairment.loss_percent);
        let twice = self.rng.percent(self.impairment.duplicate_percent);
        let swap = self.rng.percent(self.impairment.swap_percent);
        let start = *self.start.get_or_insert(record.time);
        let early = record.time.nanos_since(start) < self.impairment.start_after_nanos
            || index < self.impairment.start_after_frames;
        if lost || early || self.is_other_direction(&record) {
            self.kept.dropped.push(index);
            return Ok(());
        }
        if let Some((after, nanos)) = self.impairment.time_step
            && index >= after
        {
            record.time = Timestamp::from_nanos(record.time.as_nanos().saturating_add_signed(nanos));
        }
        if let Some(snaplen) = self.impairment.snaplen
            && record.bytes.len() > snaplen as usize
        {
            record.bytes.truncate(snaplen as usize);
            self.kept.cut.push(index);
        }
        if let Some(mut earlier) = self.held.take() {
            std::mem::swap(&mut earlier.time, &mut record.time);
            self.kept.swapped += 1;
            self.write(&record, twice, emit)?;
            return self.write(&earlier, false, emit);
        }
        if swap {
            self.held = Some(record);
            return Ok(());
        }
        self.write(&record, twice, emit)
    }

    /// Hands out what is still held, and returns the books.
    pub fn finish<E>(mut self, emit: &mut impl FnMut(&Record) -> Result<(), E>) -> Result<Kept, E> {
        if let Some(record) = self.held.take() {
            self.write(&record, false, emit)?;
        }
        Ok(self.kept)
    }

    fn write<E>(
        &mut self,
        record: &Record,
        twice: bool,
        emit: &mut impl FnMut(&Record) -> Result<(), E>,
    ) -> Result<(), E> {
        emit(record)?;
        self.kept.frames_out += 1;
        if twice {
            emit(record)?;
            self.kept.frames_out += 1;
            self.kept.duplicated += 1;
        }
        Ok(())
    }

    fn is_other_direction(&self, record: &Record) -> bool {
        let Some(only) = self.impairment.only else { return false };
        let Some((src, dst)) = ports(self.link, &record.bytes) else { return false };
        let to_server = match self.impairment.server_port {
            Some(port) => dst == port,
            None => dst < src,
        };
        to_server != (only == Direction::ToServer)
    }
}

/// Impairs a whole classic pcap file.
pub fn impair_file<R: Read, W: Write>(input: R, out: W, impairment: Impairment) -> io::Result<Kept> {
    let mut reader = PcapReader::new(input)?;
    let mut writer = PcapWriter::new(out, reader.format())?;
    let mut impairer = Impairer::new(impairment, reader.format().link);
    let mut emit = |r: &Record| writer.write_cut(r.time, &r.bytes, r.wire_len);
    while let Some(record) = reader.next_record()? {
        impairer.push(record, &mut emit)?;
    }
    let kept = impairer.finish(&mut emit)?;
    writer.finish()?;
    Ok(kept)
}

/// Returns source and destination port of a TCP or UDP frame with at most two VLAN tags.
fn ports(link: u32, frame: &[u8]) -> Option<(u16, u16)> {
    let half = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let mut at = match link {
        1 => {
            let mut at = 12;
            while matches!(half(at)?, 0x8100 | 0x88a8) {
                at += 4;
            }
            at + 2
        }
        113 => 16,
        276 => 20,
        0 | 108 => 4,
        _ => 0,
    };
    let first = *frame.get(at)?;
    at += if first >> 4 == 4 { usize::from(first & 15) * 4 } else { 40 };
    Some((half(at)?, half(at + 2)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::{Conversation, write_pcap};
    use crate::packet_builder::Link;

    fn capture(packets: usize) -> Vec<u8> {
        let (client, server) = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let mut c = Conversation::new(client, server, Timestamp::from_parts(1, 0));
        for _ in 0..packets / 2 {
            c.ack(Direction::ToServer).ack(Direction::ToClient);
        }
        write_pcap(Vec::new(), Link::Vlan(3), c.packets()).unwrap()
    }

    fn run(impairment: Impairment) -> (Kept, Vec<Record>) {
        let mut out = Vec::new();
        let kept = impair_file(&capture(10_000)[..], &mut out, impairment).unwrap();
        let mut reader = PcapReader::new(&out[..]).unwrap();
        let mut records = Vec::new();
        while let Some(record) = reader.next_record().unwrap() {
            records.push(record);
        }
        (kept, records)
    }

    #[test]
    fn the_books_balance_and_the_seed_decides() {
        let impairment = Impairment {
            loss_percent: 1.0,
            duplicate_percent: 2.0,
            swap_percent: 3.0,
            seed: 7,
            ..Impairment::default()
        };
        let (kept, records) = run(impairment.clone());
        assert_eq!(kept.frames_in, 10_000);
        assert_eq!(kept.frames_out, records.len() as u64);
        assert_eq!(kept.frames_out, kept.frames_in - kept.dropped.len() as u64 + kept.duplicated);
        assert!((60..140).contains(&kept.dropped.len()), "{}", kept.dropped.len());
        assert!((140..260).contains(&kept.duplicated), "{}", kept.duplicated);
        assert!((220..380).contains(&kept.swapped), "{}", kept.swapped);
        assert!(records.is_sorted_by_key(|r| r.time));
        assert!(!kept.survived(kept.dropped[0]) && kept.dropped[0] > 0 && kept.survived(0));
        assert_eq!(run(impairment.clone()), (kept.clone(), records));
        assert_ne!(run(Impairment { seed: 8, ..impairment }).0, kept);
        let mut line = Vec::new();
        kept.write(&mut line).unwrap();
        assert_eq!(Kept::read(&line[..]).unwrap(), kept);
    }

    #[test]
    fn direction_start_snap_and_clock() {
        let (kept, _) = run(Impairment { only: Some(Direction::ToClient), ..Impairment::default() });
        assert_eq!((kept.frames_out, kept.dropped[0]), (5_000, 0));
        let (kept, _) = run(Impairment { start_after_nanos: 100_000_000, ..Impairment::default() });
        assert_eq!(kept.frames_out, 9_000);
        let (kept, _) = run(Impairment { start_after_frames: 7, ..Impairment::default() });
        assert_eq!((kept.frames_out, kept.dropped), (9_993, (0..7).collect()));
        let (kept, records) = run(Impairment { snaplen: Some(40), ..Impairment::default() });
        assert_eq!((kept.cut.len(), records[0].bytes.len()), (10_000, 40));
        let (_, records) = run(Impairment { time_step: Some((10, -5)), ..Impairment::default() });
        assert_eq!(records[10].time.nanos_since(records[9].time), 100_000 - 5);
    }
}
