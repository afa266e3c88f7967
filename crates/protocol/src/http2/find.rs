//! Where do frames begin in bytes whose framing is unknown?
//!
//! In a flow joined late, or behind a gap, any byte may be the first of a frame header. A place is believed
//! when a chain of frames starts there: each header plausible ([`Frame::is_plausible`]), each ending where the next
//! begins. A header of nine random bytes passes once in 2^30, but bodies full of zeros are not random: there DATA,
//! which is type 0 on a small stream number, passes once in a hundred bytes, and any other type once in 10^5. So a DATA
//! frame is one point for the place and any other is two. The first byte of what was captured is the start of a
//! segment, where senders like to begin a frame: that is a point as well. The client's preface is believed there, and
//! nowhere else. A chain that ends exactly where the bytes end for good needs half of the points.
//!
//! Every byte is looked at once as a start; a chain costs its headers. What a peer can gain by building false chains
//! into its own bodies is that its own frames are found later or not at all.

use super::frame::{CONTINUATION, DATA, END_HEADERS, Frame, HEADER_BYTES, HEADERS, PREFACE, PUSH_PROMISE};

/// Chains followed at a time. Past it: no new ones are begun until one breaks.
const CHAINS_MAX: usize = 16;
/// Bytes kept from a chain's start. Past it: the chain is given up.
const WINDOW_BYTES: u64 = 128 << 10;

/// Points that prove HTTP/2 where nothing else says so.
pub(crate) const NEEDED_UNKNOWN: u32 = 6;
/// Points that prove a place on a connection known to be HTTP/2.
const NEEDED_KNOWN: u32 = 3;

/// The search in one direction.
// Invariant: `chains` ascend by `start`; no chain starts at another's frame.
pub(crate) struct FrameFinder {
    chains: Vec<Chain>,
    /// Offset of the first byte that is not looked at as a start.
    scanned: u64,
    /// Offset of the first byte of all.
    begin: u64,
    needed: u32,
    /// What was captured may begin with the client's preface.
    preface: bool,
}

/// Frames that follow each other.
#[derive(Clone, Copy)]
struct Chain {
    start: u64,
    /// Where the next header is.
    next: u64,
    /// What speaks for it: 1 for the beginning, 1 for each DATA, 2 for each other frame.
    points: u32,
    /// A header block is open on this stream.
    open: Option<u32>,
}

impl FrameFinder {
    /// Begins a search on a connection that is known to be HTTP/2.
    pub(super) fn known(begin: u64) -> Box<Self> {
        Box::new(Self::new(begin, NEEDED_KNOWN))
    }

    /// Begins a search at stream offset `begin`.
    pub(crate) fn new(begin: u64, needed: u32) -> Self {
        Self { chains: Vec::new(), scanned: begin, begin, needed, preface: true }
    }

    /// Goes on with the search: `bytes` are those from offset `from` on, everything since
    /// [`FrameFinder::keep_from`] among them. Returns the offset of a frame once one is believed; `last`: no more
    /// bytes come.
    pub(crate) fn find(&mut self, bytes: &[u8], from: u64, last: bool) -> Option<u64> {
        let end = from + bytes.len() as u64;
        if self.preface {
            let first = &bytes[(self.begin - from) as usize..];
            if first.starts_with(PREFACE) {
                return Some(self.begin);
            }
            self.preface = PREFACE.starts_with(first) && !last;
        }
        let mut at = self.scanned.max(from);
        while at < end {
            // A chain begins with a frame shorter than 64 KiB: its first byte is 0.
            let rest = &bytes[(at - from) as usize..];
            let Some(zero) = memchr::memchr(0, rest) else {
                at = end;
                break;
            };
            at += zero as u64;
            if end - at < HEADER_BYTES as u64 {
                break;
            }
            if self.chains.len() < CHAINS_MAX && !self.chains.iter().any(|c| c.next == at) {
                let mut chain =
                    Chain { start: at, next: at, points: u32::from(at == self.begin), open: None };
                if chain.step(bytes, from) {
                    self.chains.push(chain);
                }
            }
            at += 1;
        }
        self.scanned = at.max(self.scanned);
        let needed = self.needed;
        self.chains.retain_mut(|chain| {
            while chain.points < needed {
                let before = chain.next;
                if !chain.step(bytes, from) {
                    return false;
                }
                if chain.next == before {
                    break;
                }
            }
            chain.points >= needed || end - chain.start <= WINDOW_BYTES
        });
        let enough =
            |c: &&Chain| c.points >= needed || (last && c.next == end && c.points >= needed.div_ceil(2));
        self.chains.iter().find(enough).map(|chain| chain.start)
    }

    /// Returns the offset from which bytes must be kept for the next call.
    pub(crate) fn keep_from(&self) -> u64 {
        if self.preface {
            return self.begin;
        }
        self.chains.first().map_or(self.scanned, |chain| chain.start)
    }
}

impl Chain {
    /// Takes the next frame in, if all that matters of it is there; false where it is none.
    fn step(&mut self, bytes: &[u8], from: u64) -> bool {
        let at = usize::try_from(self.next - from).unwrap_or(usize::MAX);
        let Some(rest) = bytes.get(at..) else { return true };
        let Some(header) = rest.first_chunk::<HEADER_BYTES>() else { return true };
        let frame = Frame::parse(header);
        let follows = match self.open {
            Some(stream) => frame.kind == CONTINUATION && frame.stream == stream,
            None => frame.kind != CONTINUATION,
        };
        if !follows || !frame.is_plausible() {
            return false;
        }
        let content = &rest[HEADER_BYTES..];
        let needed = frame.content_bytes();
        if content.len() < needed {
            return true;
        }
        if !frame.content_is_plausible(&content[..needed]) {
            return false;
        }
        if matches!(frame.kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
            self.open = (!frame.has(END_HEADERS)).then_some(frame.stream);
        }
        self.next += HEADER_BYTES as u64 + u64::from(frame.len);
        self.points += if frame.kind == DATA { 1 } else { 2 };
        true
    }
}
