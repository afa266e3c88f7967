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
//!
//! However the bytes come, the search goes as if they came one by one: the chain that has its points first is believed,
//! and of two that have them with the same byte the one that starts first. So a chain is begun only after every other
//! one has taken in what came before that start's header was whole.

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
// Invariant: `chains` ascend by `start`; no chain starts at another's frame; `due` is the least of their `due`s.
pub(crate) struct FrameFinder {
    chains: Vec<Chain>,
    /// Offset after the first byte that some chain waits for.
    due: u64,
    /// Offset of the first byte that is not looked at as a start.
    scanned: u64,
    /// Offset of the first byte of all, if that is the first of a segment; else `u64::MAX`.
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
    /// Offset after the last byte that it takes to go on: of that header, or of what matters behind it.
    wants: u64,
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

    /// Begins a search on a connection that is known to be HTTP/2, at a byte that nothing speaks for.
    pub(super) fn known_anywhere(from: u64) -> Box<Self> {
        Box::new(Self { begin: u64::MAX, preface: false, ..Self::new(from, NEEDED_KNOWN) })
    }

    /// Begins a search at stream offset `begin`.
    pub(crate) fn new(begin: u64, needed: u32) -> Self {
        Self { chains: Vec::new(), due: u64::MAX, scanned: begin, begin, needed, preface: true }
    }

    /// Goes on with the search: `bytes` are those from offset `from` on, everything since
    /// [`FrameFinder::keep_from`] among them. Returns the offset of a frame once one is believed; `last`: no more
    /// bytes come.
    pub(crate) fn find(&mut self, bytes: &[u8], from: u64, last: bool) -> Option<u64> {
        const HEADER: u64 = HEADER_BYTES as u64;
        let end = from + bytes.len() as u64;
        if self.preface {
            let first = &bytes[(self.begin - from) as usize..];
            if first.starts_with(PREFACE) {
                return Some(self.begin);
            }
            self.preface = PREFACE.starts_with(first) && !last;
        }
        self.scanned = self.scanned.max(from);
        loop {
            // A chain begins with a frame shorter than 64 KiB: its first byte is 0.
            let rest = &bytes[((self.scanned - from) as usize).min(bytes.len())..];
            let zero = memchr::memchr(0, rest).map(|zero| self.scanned + zero as u64);
            let start = zero.filter(|start| end - start >= HEADER);
            // What comes before the last byte of the header that would begin there.
            let until = start.map_or(end, |start| start + HEADER - 1);
            if self.due <= until
                && let Some(believed) = self.follow(bytes, from, until)
            {
                return Some(believed);
            }
            let Some(start) = start else {
                self.scanned = zero.unwrap_or(end);
                break;
            };
            self.scanned = start + 1;
            if self.chains.len() < CHAINS_MAX && !self.chains.iter().any(|chain| chain.next == start) {
                let points = u32::from(start == self.begin);
                let chain = Chain { start, next: start, wants: start + HEADER, points, open: None };
                if chain.header(bytes, from).is_some() {
                    self.due = self.due.min(chain.due());
                    self.chains.push(chain);
                }
            }
        }
        let half = self.needed.div_ceil(2);
        let ends = |chain: &&Chain| last && chain.next == end && chain.points >= half;
        self.chains.iter().find(ends).map(|chain| chain.start)
    }

    /// Lets every chain take in what there is up to offset `until`; returns where the believed one starts.
    fn follow(&mut self, bytes: &[u8], from: u64, until: u64) -> Option<u64> {
        let needed = self.needed;
        let mut believed = None;
        self.chains.retain_mut(|chain| {
            while chain.points < needed {
                if chain.due() > until {
                    return true;
                }
                let at = chain.wants;
                if at > chain.start + WINDOW_BYTES || !chain.step(bytes, from) {
                    return false;
                }
                if chain.points >= needed {
                    let proof = (at, chain.start);
                    believed = Some(believed.map_or(proof, |other: (u64, u64)| other.min(proof)));
                }
            }
            true
        });
        self.due = self.chains.iter().map(Chain::due).min().unwrap_or(u64::MAX);
        believed.map(|(_, start)| start)
    }

    /// Tells whether bytes from the very first on are still looked at.
    pub(crate) fn is_at_begin(&self) -> bool {
        self.keep_from() == self.begin
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
    /// Offset after the byte with which it goes on, or is given up.
    fn due(&self) -> u64 {
        self.wants.min(self.start + WINDOW_BYTES + 1)
    }

    /// Returns the next frame with its content, if its header is there and follows what was before.
    fn header<'b>(&self, bytes: &'b [u8], from: u64) -> Option<(Frame, &'b [u8])> {
        let rest = bytes.get(usize::try_from(self.next - from).ok()?..)?;
        let (header, content) = rest.split_first_chunk::<HEADER_BYTES>()?;
        let frame = Frame::parse(header);
        let follows = match self.open {
            Some(stream) => frame.kind == CONTINUATION && frame.stream == stream,
            None => frame.kind != CONTINUATION,
        };
        (follows && frame.is_plausible()).then_some((frame, content))
    }

    /// Takes in the bytes that it waited for; false where they are no frame.
    fn step(&mut self, bytes: &[u8], from: u64) -> bool {
        let Some((frame, content)) = self.header(bytes, from) else { return false };
        let needed = frame.content_bytes();
        let behind = self.next + HEADER_BYTES as u64;
        if self.wants < behind + needed as u64 {
            self.wants = behind + needed as u64;
            return true;
        }
        if !content.get(..needed).is_some_and(|content| frame.content_is_plausible(content)) {
            return false;
        }
        if matches!(frame.kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
            self.open = (!frame.has(END_HEADERS)).then_some(frame.stream);
        }
        self.next = behind + u64::from(frame.len);
        self.wants = self.next + HEADER_BYTES as u64;
        self.points += if frame.kind == DATA { 1 } else { 2 };
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `bytes` in pieces, keeping no more than it is told to; returns what is found, and after how many bytes.
    fn search(bytes: &[u8], pieces: &[usize], needed: u32) -> (Option<u64>, u64) {
        let mut finder = FrameFinder::new(100, needed);
        let (mut kept, mut done) = (0, 0);
        let mut pieces = pieces.iter().cycle();
        while done < bytes.len() {
            done = (done + pieces.next().copied().unwrap_or(usize::MAX).max(1)).min(bytes.len());
            let found = finder.find(&bytes[kept..done], 100 + kept as u64, done == bytes.len());
            if found.is_some() {
                return (found, done as u64);
            }
            kept = (finder.keep_from() - 100) as usize;
        }
        (None, done as u64)
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(
            // Small frames that lie about their lengths, and zeros: chains overlap, break and meet.
            parts in prop::collection::vec(
                prop_oneof![
                    (0u8..12, prop::sample::select(vec![0u8, 1, 3, 4, 8, 9]), prop::sample::select(vec![0u8, 1, 4, 5]), 0u8..4, 0usize..12)
                        .prop_map(|(len, kind, flags, stream, more)| {
                            let mut bytes = vec![0, 0, len, kind, flags, 0, 0, 0, stream];
                            bytes.resize(9 + more, 0x82);
                            bytes
                        }),
                    prop::collection::vec(prop::sample::select(vec![0u8, 1, 4, 0x82]), 0..12),
                ],
                0..24,
            ),
            pieces in prop::collection::vec(1usize..20, 1..5),
            known: bool,
        ) {
            let bytes = parts.concat();
            let needed = if known { NEEDED_KNOWN } else { NEEDED_UNKNOWN };
            let (one_by_one, at) = search(&bytes, &[1], needed);
            prop_assert_eq!(search(&bytes, &[usize::MAX], needed).0, one_by_one);
            let (cut, done) = search(&bytes, &pieces, needed);
            prop_assert_eq!(cut, one_by_one);
            prop_assert!(done >= at && done < at + 20);
        }
    }

    #[test]
    fn a_long_window_ends_where_it_ends_however_the_bytes_come() {
        // A frame of the largest plausible length, another one, and so past the window.
        for gap in [WINDOW_BYTES - 40, WINDOW_BYTES, WINDOW_BYTES + 40] {
            let mut bytes = vec![1; 9];
            let mut left = gap as usize;
            while left > 9 {
                let len = (left - 9).min(16_384);
                bytes.extend_from_slice(&[0, (len >> 8) as u8, len as u8, 0, 1, 0, 0, 0, 1]);
                bytes.resize(bytes.len() + len, b'x');
                left -= 9 + len;
            }
            for needed in [8, 9, 10, 11] {
                let want = search(&bytes, &[usize::MAX], needed);
                for piece in [1, 9, 1000, 40_000] {
                    assert_eq!(search(&bytes, &[piece], needed).0, want.0, "{gap} {needed} {piece}");
                }
            }
        }
    }
}
