//! The classic pcap format (draft-ietf-opsawg-pcap): a 24-byte header, then records.
//!
//! Written by hand over the refillable buffer: each record costs its 16-byte header and nothing else.

use offpath_types::{LinkType, Timestamp};

use crate::Damage;
use crate::buffer::{Refill, u16_at, u32_at};
use crate::reader::{FRAME_BYTES_MAX, FRAME_BYTES_USUAL, Meta, Step};

/// Bytes of the file header.
pub(crate) const FILE_HEADER: usize = 24;

pub(crate) struct Classic {
    big: bool,
    nanos_per_unit: u64,
    /// 16; 24 in the files of Alexey Kuznetsov's patched libpcap.
    record_header: usize,
    link: LinkType,
    limit: u32,
    lengths: Lengths,
    /// Seconds of the newest sound record: after damage, a record that is far from it is not believed.
    seconds: Option<u32>,
}

/// Which of a record's two lengths comes first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lengths {
    CapturedFirst,
    /// Files of version 2.0 to 2.2.
    WireFirst,
    /// Version 2.3 was written both ways: the smaller is the captured one.
    SmallerIsCaptured,
}

/// Tells the byte order, nanoseconds per unit and record header length by the magic number.
fn by_magic(magic: [u8; 4]) -> Option<(bool, u64, usize)> {
    let kind = |m: u32| match m {
        0xa1b2_c3d4 => Some((1000, 16)),
        0xa1b2_3c4d => Some((1, 16)),
        0xa1b2_cd34 => Some((1000, 24)),
        _ => None,
    };
    if let Some((nanos, header)) = kind(u32::from_le_bytes(magic)) {
        return Some((false, nanos, header));
    }
    kind(u32::from_be_bytes(magic)).map(|(nanos, header)| (true, nanos, header))
}

impl Classic {
    /// Tells whether `start` begins with a magic number of the format.
    pub(crate) fn is(start: &[u8]) -> bool {
        start.first_chunk().is_some_and(|m| by_magic(*m).is_some())
    }

    /// Reads the file header, which is whole; `None` where magic or version are not of this format.
    pub(crate) fn new(header: &[u8]) -> Option<Self> {
        let (big, nanos_per_unit, record_header) = by_magic(*header.first_chunk()?)?;
        let (major, minor) = (u16_at(header, 4, big), u16_at(header, 6, big));
        // 543.0 is DG/UX, which writes like 2.2.
        if major != 2 && major != 543 {
            return None;
        }
        let lengths = match (major, minor) {
            (543, _) | (_, 0..=2) => Lengths::WireFirst,
            (_, 3) => Lengths::SmallerIsCaptured,
            _ => Lengths::CapturedFirst,
        };
        let snaplen = u32_at(header, 16, big);
        // The top 6 bits tell of frame check sequences (draft-ietf-opsawg-pcap §4).
        let link = LinkType::from_number(u32_at(header, 20, big) & 0x03ff_ffff);
        let limit = snaplen.clamp(FRAME_BYTES_USUAL, FRAME_BYTES_MAX);
        Some(Self { big, nanos_per_unit, record_header, link, limit, lengths, seconds: None })
    }

    #[inline]
    fn lens(&self, record: &[u8]) -> (u32, u32) {
        let (a, b) = (u32_at(record, 8, self.big), u32_at(record, 12, self.big));
        match self.lengths {
            Lengths::CapturedFirst => (a, b),
            Lengths::WireFirst => (b, a),
            Lengths::SmallerIsCaptured => (a.min(b), a.max(b)),
        }
    }

    /// Finds the next frame in `buf`.
    #[inline]
    pub(crate) fn next(&mut self, buf: &mut Refill) -> Step {
        let header = self.record_header;
        if !buf.ensure(header) {
            return match buf.window().len() {
                0 => Step::End,
                have => Step::cut(header, have),
            };
        }
        let record = buf.window();
        let seconds = u32_at(record, 0, self.big);
        let fraction = u32_at(record, 4, self.big);
        let (len, wire_len) = self.lens(record);
        if len > self.limit {
            return Step::Bad { what: Damage::RecordTooLong { len, limit: self.limit }, skip: None };
        }
        let total = header + len as usize;
        if !buf.ensure(total) {
            return Step::cut(total, buf.window().len());
        }
        self.seconds = Some(seconds);
        Step::Frame(Meta {
            time: Timestamp::from_nanos(
                u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.nanos_per_unit,
            ),
            link: self.link,
            wire_len,
            at: header,
            len: len as usize,
            total,
        })
    }

    /// Returns the length of the record that seems to start `at` bytes into the window.
    pub(crate) fn plausible(&self, buf: &mut Refill, at: usize, near: Option<u32>) -> Option<(usize, u32)> {
        const DAY: u32 = 86_400;
        if !buf.ensure(at + self.record_header) {
            return None;
        }
        let record = &buf.window()[at..];
        let seconds = u32_at(record, 0, self.big);
        let (len, wire_len) = self.lens(record);
        let units = 1_000_000_000 / self.nanos_per_unit;
        let sound = u64::from(u32_at(record, 4, self.big)) < units
            && (1..=FRAME_BYTES_USUAL).contains(&len)
            && (len..=FRAME_BYTES_MAX).contains(&wire_len)
            && near.or(self.seconds).is_none_or(|s| s.abs_diff(seconds) <= DAY);
        sound.then_some((self.record_header + len as usize, seconds))
    }
}
