//! One connection that is past its handshake, or was joined midway.

use offpath_types::{Direction, FlowInfo, Side, Timestamp};

use crate::StreamLimits;
use crate::slab::NONE;
use crate::wheel::{Links, Timed};

/// No FIN known.
pub(crate) const NO_FIN: u64 = u64::MAX;

/// `next` is known.
pub(crate) const BASED: u16 = 1;
/// `next` was derived from an acknowledgement only; nothing of the direction was seen.
pub(crate) const SOFT: u16 = 2;
/// Joined midway: offset 0 is not the first byte after the SYN.
pub(crate) const MIDSTREAM: u16 = 4;
/// A segment of this sender was seen.
pub(crate) const SEEN: u16 = 8;
/// The end was reached.
pub(crate) const ENDED: u16 = 16;
/// ... and the sink was told.
pub(crate) const END_GIVEN: u16 = 32;
/// The sink has no more use for the bytes.
pub(crate) const BYPASS: u16 = 64;
/// A RST came; the direction ends once nothing can be missing any more.
pub(crate) const RESET: u16 = 128;
/// The receiver acknowledged exactly one more than was seen: a FIN that the mirror lost, most likely.
pub(crate) const FIN_ACKED: u16 = 256;
/// Held copies of this direction's bytes differed before the sink had a state to be told of it.
pub(crate) const CONFLICT: u16 = 512;
/// The client's FIN is the next thing, and its server, which is seen, has not acknowledged it yet.
///
/// Of a server: its FIN is the next thing, and bytes of its client are missing that may still come.
pub(crate) const FIN_REACHED: u16 = 1024;
/// The connection was seen from its SYN and its answer was not, so bytes may be missing before the first ones:
/// everything is held, and `next` lies far before it, until it is known where the direction begins.
pub(crate) const UNBASED: u16 = 2048;

/// One direction, named after its sender's side.
///
/// ```text
///  offset 0            next_off               first held          fin_off
///  |--- delivered, gaps ---|------- hole --------|#### held ####|-----|
///  base seq              `next` (as seq)
/// ```
pub(crate) struct Dir {
    /// Stream offset of the next byte to deliver.
    pub(crate) next_off: u64,
    /// Stream offset of the FIN.
    pub(crate) fin_off: u64,
    /// End and length of the last gap handed on: bytes that come too late for it are told from duplicates.
    pub(crate) gap_end: u64,
    pub(crate) gap_len: u32,
    /// Sequence number of `next_off`.
    pub(crate) next: u32,
    /// Its `Hold`, where something waits or is known to be missing.
    pub(crate) hold: u32,
    pub(crate) flags: u16,
}

impl Dir {
    pub(crate) const fn new() -> Self {
        Self { next_off: 0, fin_off: NO_FIN, gap_end: 0, gap_len: 0, next: 0, hold: NONE, flags: 0 }
    }

    /// Makes a direction whose first byte has sequence number `base`.
    pub(crate) const fn based(base: u32, flags: u16) -> Self {
        Self { next: base, flags: BASED | flags, ..Self::new() }
    }

    #[inline]
    pub(crate) const fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// Tells whether anything of this sender was seen, be it only the answer to a handshake.
    pub(crate) const fn is_seen(&self) -> bool {
        self.has(SEEN) || self.flags & (BASED | MIDSTREAM) == BASED
    }

    /// Returns the sequence number of offset 0.
    pub(crate) const fn base(&self) -> u32 {
        self.next.wrapping_sub(self.next_off as u32)
    }

    /// Returns how far `seq` is after the next byte.
    #[inline]
    pub(crate) const fn ahead(&self, seq: u32) -> i32 {
        seq.wrapping_sub(self.next) as i32
    }
}

/// What few flows need.
#[derive(Default)]
pub(crate) struct Rare {
    /// A SYN or SYN+ACK that contradicts the flow, and waits for confirmation.
    pub(crate) doubt: Option<Doubt>,
    /// Per side: end and count of consecutive segments far out of window.
    pub(crate) runs: [(u32, u8); 2],
    /// Per side: an acknowledgement of it, far out of window.
    pub(crate) far_ack: [Option<u32>; 2],
}

/// A handshake that may replace the flow.
#[derive(Clone, Copy)]
pub(crate) struct Doubt {
    pub(crate) client_side: Side,
    pub(crate) client_isn: u32,
    /// Known where the doubt came from (or was strengthened by) a SYN+ACK.
    pub(crate) server_isn: Option<u32>,
    pub(crate) at: Timestamp,
}

/// A connection and the sink's state for it.
pub(crate) struct Conn<F> {
    pub(crate) info: FlowInfo,
    pub(crate) last_seen: Timestamp,
    /// By sender's side: `Side::Low`, `Side::High`.
    pub(crate) dirs: [Dir; 2],
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) links: Links,
    /// Deadline when the flow was put into its wheel.
    pub(crate) queued: Timestamp,
    pub(crate) hash: u32,
    /// Both sides seen, and data: evicted last.
    pub(crate) proven: bool,
    pub(crate) reset_by: Option<Side>,
    pub(crate) state: Option<F>,
}

impl<F> Timed for Conn<F> {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl<F> Conn<F> {
    pub(crate) fn new(info: FlowInfo, hash: u32) -> Self {
        Self {
            info,
            last_seen: info.opened,
            dirs: [Dir::new(), Dir::new()],
            rare: None,
            links: Links::OUT,
            queued: Timestamp::MAX,
            hash,
            proven: false,
            reset_by: None,
            state: None,
        }
    }

    #[inline]
    pub(crate) fn dir(&self, side: Side) -> &Dir {
        &self.dirs[side as usize]
    }

    #[inline]
    pub(crate) fn dir_mut(&mut self, side: Side) -> &mut Dir {
        &mut self.dirs[side as usize]
    }

    pub(crate) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Returns the direction of what `side` sends.
    #[inline]
    pub(crate) fn direction(&self, side: Side) -> Direction {
        if side == self.info.client_side { Direction::ToServer } else { Direction::ToClient }
    }

    /// Tells whether both directions ended.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.dirs[0].flags & self.dirs[1].flags & ENDED != 0
    }

    /// Returns when the flow expires unless a segment comes before.
    #[inline]
    pub(crate) fn deadline(&self, limits: &StreamLimits) -> Timestamp {
        let [a, b] = &self.dirs;
        let secs = if (a.flags | b.flags) & (ENDED | FIN_REACHED) == 0 {
            limits.established_idle_secs
        } else if (a.flags | b.flags) & FIN_ACKED != 0 {
            limits.closing_idle_secs
        } else {
            limits.half_closed_idle_secs
        };
        self.last_seen.plus_secs(u64::from(secs))
    }

    /// Returns the stream offset of `side`'s direction that acknowledgement number `ack` stands for.
    #[inline]
    pub(crate) fn acked_offset(&self, side: Side, ack: Option<u32>, ahead_max: u32) -> Option<u64> {
        let dir = self.dir(side);
        let ack = ack?;
        if dir.flags & (BASED | UNBASED) != BASED {
            return None;
        }
        let ahead = dir.ahead(ack);
        if ahead.unsigned_abs() > ahead_max {
            return None;
        }
        Some(dir.next_off.saturating_add_signed(i64::from(ahead)).min(dir.fin_off))
    }
}
