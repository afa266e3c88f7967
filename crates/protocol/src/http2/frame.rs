//! Frame headers, and how far nine bytes look like one (RFC 9113 §4.1, §6).

/// What a client's connection begins with (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame header.
pub(super) const HEADER_BYTES: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// RFC 7838, RFC 8336, RFC 9218: the extensions that are in use.
const ALTSVC: u8 = 0xa;
const ORIGIN: u8 = 0xc;
const PRIORITY_UPDATE: u8 = 0x10;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY_FLAG: u8 = 0x20;

/// SETTINGS_HEADER_TABLE_SIZE.
pub(super) const HEADER_TABLE_SIZE: u16 = 1;

/// Longest frame that is not DATA which peers send: nobody announces a larger SETTINGS_MAX_FRAME_SIZE for heads.
const PLAUSIBLE_BYTES: u32 = 1 << 14;
/// Longest DATA frame that peers send (Go's HTTP/2 server announces 1 MiB).
const PLAUSIBLE_DATA_BYTES: u32 = 1 << 20;
/// Streams that a connection gets to in practice; RFC 9113 allows 2^31.
const PLAUSIBLE_STREAMS: u32 = 1 << 26;

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) len: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// The reserved bit, which must be 0.
    reserved: bool,
}

impl Frame {
    pub(super) fn parse(h: &[u8; HEADER_BYTES]) -> Self {
        let stream = u32::from_be_bytes([h[5], h[6], h[7], h[8]]);
        Self {
            len: u32::from_be_bytes([0, h[0], h[1], h[2]]),
            kind: h[3],
            flags: h[4],
            stream: stream & 0x7fff_ffff,
            reserved: stream >> 31 != 0,
        }
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Tells whether a receiver would take this length and stream for this type.
    pub(super) fn is_valid(self) -> bool {
        match self.kind {
            DATA | HEADERS | CONTINUATION => self.stream != 0,
            PUSH_PROMISE => self.stream != 0 && self.len >= 4,
            PRIORITY => self.stream != 0 && self.len == 5,
            RST_STREAM => self.stream != 0 && self.len == 4,
            SETTINGS => self.stream == 0 && self.len.is_multiple_of(6) && !(self.has(ACK) && self.len > 0),
            PING => self.stream == 0 && self.len == 8,
            GOAWAY => self.stream == 0 && self.len >= 8,
            WINDOW_UPDATE => self.len == 4,
            _ => true,
        }
    }

    /// Tells whether this may be a frame of a sender that does nothing unusual. Of random bytes about one in 2^30
    /// does.
    pub(super) fn is_plausible(self) -> bool {
        let (flags, len_min, len_max) = match self.kind {
            DATA => (END_STREAM | PADDED, u32::from(!self.has(END_STREAM)), PLAUSIBLE_DATA_BYTES),
            HEADERS => (END_STREAM | END_HEADERS | PADDED | PRIORITY_FLAG, 1, PLAUSIBLE_BYTES),
            CONTINUATION => (END_HEADERS, 1, PLAUSIBLE_BYTES),
            PUSH_PROMISE => (END_HEADERS | PADDED, 5, PLAUSIBLE_BYTES),
            SETTINGS => (ACK, if self.has(ACK) { 0 } else { 6 }, 6 * 64),
            PING => (ACK, 8, 8),
            PRIORITY | RST_STREAM | WINDOW_UPDATE => (0, 4, 5),
            GOAWAY | ALTSVC | ORIGIN | PRIORITY_UPDATE => (0, 2, PLAUSIBLE_BYTES),
            _ => return false,
        };
        let room = u32::from(self.has(PADDED) && self.kind != CONTINUATION)
            + if self.kind == HEADERS && self.has(PRIORITY_FLAG) { 5 } else { 0 };
        !self.reserved
            && self.flags & !flags == 0
            && (len_min.max(room)..=len_max).contains(&self.len)
            && self.stream < PLAUSIBLE_STREAMS
            && self.is_valid()
    }

    /// Bytes of the payload that [`Frame::content_is_plausible`] looks at.
    pub(super) fn content_bytes(self) -> usize {
        match self.kind {
            DATA | PUSH_PROMISE if self.has(PADDED) => 1,
            HEADERS if self.has(PADDED) => 1,
            HEADERS if !self.has(PRIORITY_FLAG) => 1,
            RST_STREAM | WINDOW_UPDATE => 4,
            SETTINGS => (self.len as usize).min(6),
            GOAWAY => 8,
            _ => 0,
        }
    }

    /// Looks at the payload's first [`Frame::content_bytes`].
    pub(super) fn content_is_plausible(self, content: &[u8]) -> bool {
        let word =
            |at: usize| content.get(at..at + 4).map_or(0, |w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
        match (self.kind, content) {
            (DATA | PUSH_PROMISE | HEADERS, [pad, ..]) if self.has(PADDED) => u32::from(*pad) < self.len,
            // Index 0 is none, and a name in full is none of the pseudo-header fields, with which a head begins.
            (HEADERS, [first, ..]) => !matches!(first, 0x00 | 0x80),
            (RST_STREAM, _) => word(0) <= 0xd,
            (WINDOW_UPDATE, _) => (1..1 << 31).contains(&word(0)),
            (SETTINGS, [a, b, ..]) => {
                let id = u16::from_be_bytes([*a, *b]);
                (1..=0x10).contains(&id) || id & 0x0f0f == 0x0a0a
            }
            (GOAWAY, _) => word(0) < PLAUSIBLE_STREAMS || word(0) == 0x7fff_ffff,
            _ => true,
        }
    }
}
