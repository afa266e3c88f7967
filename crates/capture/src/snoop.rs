//! The snoop format of Solaris (RFC 1761): a 16-byte header, then records; all big-endian.

use offpath_types::{LinkType, Timestamp};

use crate::Damage;
use crate::buffer::{Refill, u32_at};
use crate::reader::{FRAME_BYTES_USUAL, Meta, Step};

/// Bytes of the file header.
pub(crate) const FILE_HEADER: usize = 16;
const RECORD_HEADER: usize = 24;
const MAGIC: &[u8] = b"snoop\0\0\0";

pub(crate) struct Snoop {
    link: LinkType,
}

impl Snoop {
    /// Tells whether `start` begins with the format's magic.
    pub(crate) fn is(start: &[u8]) -> bool {
        start.starts_with(MAGIC)
    }

    /// Reads the file header, which is whole; `None` where the version is not 2.
    pub(crate) fn new(header: &[u8]) -> Option<Self> {
        if u32_at(header, 8, true) != 2 {
            return None;
        }
        // RFC 1761 and the snoop registry of IANA: 0 is IEEE 802.3, 4 is Ethernet.
        let link = match u32_at(header, 12, true) {
            0 | 4 => LinkType::Ethernet,
            other => LinkType::Unsupported(other),
        };
        Some(Self { link })
    }

    /// Finds the next frame in `buf`.
    pub(crate) fn next(&mut self, buf: &mut Refill) -> Step {
        if !buf.ensure(RECORD_HEADER) {
            return match buf.window().len() {
                0 => Step::End,
                have => Step::cut(RECORD_HEADER, have),
            };
        }
        let record = buf.window();
        let (wire_len, len) = (u32_at(record, 0, true), u32_at(record, 4, true));
        let total = u32_at(record, 8, true);
        if len > FRAME_BYTES_USUAL {
            return Step::Bad { what: Damage::RecordTooLong { len, limit: FRAME_BYTES_USUAL }, skip: None };
        }
        let total_len = total as usize;
        if total_len < RECORD_HEADER + len as usize || total > 2 * FRAME_BYTES_USUAL {
            return Step::Bad { what: Damage::LengthInvalid { len: total }, skip: None };
        }
        let (seconds, micros) = (u32_at(record, 16, true), u32_at(record, 20, true));
        if !buf.ensure(total_len) {
            // The last record may come without its padding.
            if !buf.ensure(RECORD_HEADER + len as usize) {
                return Step::cut(total_len, buf.window().len());
            }
        }
        Step::Frame(Meta {
            time: Timestamp::from_nanos(u64::from(seconds) * 1_000_000_000 + u64::from(micros) * 1000),
            link: self.link,
            wire_len,
            at: RECORD_HEADER,
            len: len as usize,
            total: total_len.min(buf.window().len()),
        })
    }

    /// Returns the length of the record that seems to start `at` bytes into the window.
    pub(crate) fn plausible(&self, buf: &mut Refill, at: usize) -> Option<usize> {
        if !buf.ensure(at + RECORD_HEADER) {
            return None;
        }
        let record = &buf.window()[at..];
        let (wire_len, len) = (u32_at(record, 0, true), u32_at(record, 4, true));
        let total = u32_at(record, 8, true);
        let sound = (1..=FRAME_BYTES_USUAL).contains(&len)
            && wire_len >= len
            && total >= len + RECORD_HEADER as u32
            && total <= len + RECORD_HEADER as u32 + 8
            && u32_at(record, 20, true) < 1_000_000;
        sound.then_some(total as usize)
    }
}
