//! Puts both directions of one connection in order.
//!
//! In: the segments of one flow, in capture order. Out: chunks to the sink. First copy wins on overlap.

use std::collections::VecDeque;

use offpath_types::{Chunk, EndReason, Side, Timestamp};

use crate::conn::{
    BASED, BYPASS, CONFLICT, Conn, Dir, END_GIVEN, ENDED, FIN_ACKED, FIN_REACHED, MIDSTREAM, NO_FIN, RESET,
    SEEN, SOFT, UNBASED,
};
use crate::hold::{Acked, Fresh, Held, Hold, SEGMENT_OVERHEAD};
use crate::slab::{NONE, Slab};
use crate::wheel::Wheel;
use crate::{StreamCounters, StreamLimits, StreamSink};

/// Hole timers tick every 34 ms, so that the longest wait (15 s) fits the wheel. A hole is given up as of
/// the time it was due; the tick only bounds how late a quiet flow's hole is noticed.
const HOLE_TICK_SHIFT: u32 = 25;
/// Buffers kept for reuse, so that ordinary reordering allocates nothing.
const SPARE_BUFFERS_MAX: usize = 64;
const SPARE_BUFFER_BYTES_MAX: usize = 4096;
const SPARE_QUEUES_MAX: usize = 16;
/// Consecutive segments that make a position far out of window believable.
const RUN_SEGMENTS: u8 = 3;
/// Believable distance behind the next byte; beyond, sequence numbers are about to be ambiguous.
const BEHIND_MAX: i32 = 1 << 30;

/// What all connections of a table share.
pub(crate) struct Core {
    pub(crate) limits: StreamLimits,
    pub(crate) counters: StreamCounters,
    pub(crate) holds: Slab<Hold>,
    pub(crate) hole_wheel: Wheel,
    /// Captured bytes held now.
    pub(crate) held_bytes: u64,
    pub(crate) held_segments: u64,
    spare_buffers: Vec<Vec<u8>>,
    spare_queues: Vec<VecDeque<Held>>,
}

impl Core {
    pub(crate) fn new(limits: StreamLimits) -> Self {
        Self {
            limits,
            counters: StreamCounters::default(),
            holds: Slab::new(),
            hole_wheel: Wheel::new(HOLE_TICK_SHIFT),
            held_bytes: 0,
            held_segments: 0,
            spare_buffers: Vec::new(),
            spare_queues: Vec::new(),
        }
    }

    /// Tells whether the table holds more than it may.
    pub(crate) fn is_full(&self) -> bool {
        self.held_bytes + self.held_segments * SEGMENT_OVERHEAD > self.limits.held_bytes_max
    }

    /// Takes a held run off the books and keeps its buffer for reuse, if it is an ordinary one.
    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare_buffers.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BUFFER_BYTES_MAX {
            buffer.clear();
            self.spare_buffers.push(buffer);
        }
    }

    /// Removes a hold; returns the captured bytes that were still in it.
    pub(crate) fn remove_hold(&mut self, hold: u32) -> u64 {
        self.hole_wheel.remove(&mut self.holds, hold);
        let Some(mut hold) = self.holds.remove(hold) else { return 0 };
        self.held_bytes -= hold.bytes;
        self.held_segments -= hold.held.len() as u64;
        while let Some(held) = hold.held.pop_front() {
            self.recycle(held.bytes);
        }
        if self.spare_queues.len() < SPARE_QUEUES_MAX && hold.held.capacity() <= SPARE_BUFFERS_MAX {
            self.spare_queues.push(hold.held);
        }
        hold.bytes
    }
}

/// The payload of one segment.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    /// Sequence number of the first byte (after the SYN, if there is one).
    pub(crate) seq: u32,
    pub(crate) bytes: &'a [u8],
    /// Bytes after `bytes` that a snap length cut off.
    pub(crate) cut: u32,
    pub(crate) fin: bool,
    pub(crate) ack: Option<u32>,
    pub(crate) seen: Timestamp,
}

impl Run<'_> {
    fn len(&self) -> u64 {
        self.bytes.len() as u64 + u64::from(self.cut)
    }
}

/// Whose segment it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// This connection's; it is accounted for.
    Ours,
    /// Of a connection that took over the 5-tuple without a SYN being seen, with its client where that is known; not
    /// accounted for.
    Successor(Option<Side>),
}

enum Window {
    Inside,
    Outside,
    Successor,
}

/// One connection at work.
pub(crate) struct Assembly<'a, S: StreamSink> {
    pub(crate) core: &'a mut Core,
    pub(crate) sink: &'a mut S,
    pub(crate) conn: &'a mut Conn<S::Flow>,
    /// The connection's id.
    pub(crate) id: u32,
}

impl<S: StreamSink> Assembly<'_, S> {
    /// Takes the payload and FIN of a segment that `side` sent.
    #[inline]
    pub(crate) fn accept(&mut self, side: Side, run: &Run<'_>) -> Accepted {
        let dir = self.conn.dir_mut(side);
        let in_order = run.seq == dir.next
            && dir.flags & (BASED | SOFT | ENDED | BYPASS | RESET | UNBASED) == BASED
            && dir.hold == NONE
            && dir.fin_off == NO_FIN;
        if in_order && !run.fin && !run.bytes.is_empty() {
            dir.flags |= SEEN;
            self.core.counters.segments_delivered_total += 1;
            self.give_data(side, run.bytes, run.ack, run.seen, run.seen);
            if run.cut > 0 {
                self.give_cut(side, run.cut, run.seen);
            }
            return Accepted::Ours;
        }
        self.accept_slow(side, run)
    }

    #[inline(never)]
    fn accept_slow(&mut self, side: Side, run: &Run<'_>) -> Accepted {
        let now = run.seen;
        if run.len() == 0 && !run.fin {
            self.conn.dir_mut(side).flags |= SEEN;
            self.core.counters.segments_empty_total += 1;
            return Accepted::Ours;
        }
        self.find_base(side, run);
        match self.window(side, run) {
            Window::Inside => {}
            Window::Successor => return Accepted::Successor(None),
            Window::Outside => {
                let counters = &mut self.core.counters;
                if run.bytes.is_empty() {
                    counters.segments_empty_total += 1;
                } else {
                    counters.segments_dropped_out_of_window_total += 1;
                    counters.bytes_dropped_out_of_window_total += run.bytes.len() as u64;
                }
                return Accepted::Ours;
            }
        }
        let dir = self.conn.dir_mut(side);
        dir.flags |= SEEN;
        let next_off = dir.next_off;
        // Signed: a midstream flow may see bytes from before its offset 0.
        let from = next_off as i64 + i64::from(dir.ahead(run.seq));
        let to = from + run.len() as i64;
        let old = (next_off as i64 - from).clamp(0, run.len() as i64) as u64;
        let old_bytes = old.min(run.bytes.len() as u64);
        self.count_old(side, from, old_bytes);
        let bytes = &run.bytes[old_bytes as usize..];
        let cut = run.cut - (old - old_bytes) as u32;
        let start = (from + old as i64).max(0) as u64;
        let end = start + bytes.len() as u64 + u64::from(cut);
        let counters = &mut self.core.counters;
        let dir = self.conn.dir_mut(side);

        if dir.has(ENDED) {
            if old == 0 && !bytes.is_empty() && self.ended_unheard(side) {
                self.core.counters.flows_revived_total += 1;
                return Accepted::Successor(Some(side));
            }
            let counters = &mut self.core.counters;
            if bytes.is_empty() {
                count_used_up(counters, run);
            } else {
                counters.segments_dropped_after_close_total += 1;
                counters.bytes_dropped_after_close_total += bytes.len() as u64;
            }
            return Accepted::Ours;
        }
        if dir.fin_off != NO_FIN && end > dir.fin_off && start < end {
            // The sender itself shows that its FIN was none. Believing the FIN would hide the bytes.
            withdraw_fin(dir, counters);
        }
        if dir.has(BYPASS) {
            if run.bytes.is_empty() {
                counters.segments_empty_total += 1;
            } else {
                counters.segments_bypassed_total += 1;
                counters.bytes_bypassed_total += bytes.len() as u64;
            }
            if start < end {
                advance(dir, end - next_off);
            }
        } else if start == end {
            count_used_up(counters, run);
        } else if start == next_off && !dir.has(UNBASED) {
            if bytes.is_empty() {
                counters.segments_empty_total += 1;
            } else {
                counters.segments_delivered_total += 1;
            }
            let first_held = self.hold(side).and_then(Hold::first_start);
            if first_held.is_none_or(|first| first >= end) {
                self.give_data(side, bytes, run.ack, run.seen, now);
                if cut > 0 {
                    self.give_cut(side, cut, now);
                }
            } else {
                self.put_on_hold(side, Fresh { start, bytes, cut, ack: run.ack, seen: run.seen });
            }
            self.drain(side, now);
            if let Some(hold) = self.hold_mut(side)
                && hold.hole_since.is_some()
            {
                // The sender goes on before the hole, so it is no older than this.
                hold.hole_since = Some(now);
            }
        } else {
            let held = self.put_on_hold(side, Fresh { start, bytes, cut, ack: run.ack, seen: run.seen });
            let counters = &mut self.core.counters;
            if run.bytes.is_empty() {
                counters.segments_empty_total += 1;
            } else if held > 0 {
                counters.segments_held_total += 1;
            } else {
                counters.segments_duplicate_total += 1;
            }
            self.restore_bound(side, now);
        }
        if run.fin {
            self.note_fin(side, to, now);
        }
        self.settle(side, now);
        Accepted::Ours
    }

    /// Takes an acknowledgement sent by `acker`, in a segment that begins at `seq`: what it says about the other direction.
    #[inline]
    pub(crate) fn acknowledge(&mut self, acker: Side, seq: u32, ack: u32, now: Timestamp) {
        let side = acker.flip();
        let dir = self.conn.dir_mut(side);
        if dir.flags & BASED != 0 && dir.hold == NONE {
            let ahead = dir.ahead(ack);
            if ahead <= 0 && ahead > -BEHIND_MAX {
                return;
            }
        }
        self.acknowledge_slow(side, seq, ack, now);
    }

    #[cold]
    fn acknowledge_slow(&mut self, side: Side, seq: u32, ack: u32, now: Timestamp) {
        let ahead_max = self.core.limits.ack_ahead_max;
        // A client begins with an acknowledgement of the server's SYN alone; what it says later proves no start.
        let first = !self.expects_answer(side) || seq == self.conn.dir(side.flip()).base();
        let dir = self.conn.dir_mut(side);
        if !dir.has(BASED) {
            if first {
                *dir = Dir::based(ack, SOFT | MIDSTREAM);
            }
            return;
        }
        if dir.has(UNBASED) {
            let (ahead, fin_off) = (i64::from(dir.ahead(ack)), dir.fin_off);
            let shown = self.hold(side).and_then(Hold::first_start).unwrap_or(fin_off);
            let before = i64::try_from(shown).unwrap_or(i64::MAX).saturating_sub(ahead);
            if first && (0..=i64::from(self.core.limits.window_ahead_max)).contains(&before) {
                self.start_at(side, Some(ack), now);
            }
            return;
        }
        let ahead = dir.ahead(ack);
        if ahead.unsigned_abs() > ahead_max {
            self.core.counters.acks_out_of_window_total += 1;
            self.conn.rare_mut().far_ack[side as usize] = Some(ack);
            return;
        }
        if dir.has(ENDED) {
            return;
        }
        let next_off = dir.next_off;
        if ahead <= 0 {
            if ahead == 0
                && let Some(hold) = self.hold_mut(side)
                && hold.hole_since.is_some()
            {
                hold.stalled = true;
                self.settle(side, now);
            }
            return;
        }
        if dir.has(FIN_REACHED) && ahead == 1 {
            if side == self.conn.info.client_side {
                self.conn.dir_mut(side).flags |= FIN_ACKED;
                self.settle(side, now);
            }
            return;
        }
        if dir.has(BYPASS) {
            advance(dir, ahead as u64);
            if dir.has(FIN_REACHED) {
                withdraw_fin(dir, &mut self.core.counters);
            }
            return;
        }
        let upto = next_off + ahead as u64;
        // One past the end is a FIN that the mirror lost as well as a byte: no gap is made of it, unless
        // bytes beyond show the hole.
        if ahead == 1 && dir.hold == NONE {
            dir.flags |= FIN_ACKED;
            return;
        }
        let beyond_fin = upto > dir.fin_off.saturating_add(1);
        if beyond_fin && side == self.conn.info.client_side {
            // The server has taken more than ends with that FIN, so it never took the FIN.
            withdraw_fin(self.conn.dir_mut(side), &mut self.core.counters);
        }
        let dir = self.conn.dir(side);
        if upto.min(dir.fin_off) <= next_off {
            return;
        }
        if let Some(hold) = self.ensure_hold(side) {
            hold.acked = hold.acked.max(upto);
        }
        self.settle(side, now);
    }

    /// Takes a RST from `side`; returns whether its receiver would believe it.
    ///
    /// Both directions end as soon as nothing that the mirror may have delayed is missing.
    pub(crate) fn reset(&mut self, side: Side, seq: u32, now: Timestamp) -> bool {
        if self.conn.dir(side).has(UNBASED) {
            self.start_at(side, None, now);
        }
        let limits = &self.core.limits;
        let dir = self.conn.dir(side);
        let mut overtaken = 0;
        if dir.has(BASED) {
            let ahead = i64::from(dir.ahead(seq));
            if ahead > i64::from(limits.window_ahead_max) || ahead < -i64::from(limits.reset_behind_max) {
                self.core.counters.resets_out_of_window_total += 1;
                return false;
            }
            overtaken = dir.next_off + ahead.max(0) as u64;
        }
        self.conn.reset_by = Some(side);
        let client = self.conn.info.client_side;
        for s in [client, client.flip()] {
            let reach = if s == side { overtaken } else { 0 };
            let dir = self.conn.dir_mut(s);
            if dir.has(ENDED) {
                continue;
            }
            if dir.has(FIN_REACHED) {
                if s == client || !self.lacks(client) {
                    self.end(s, EndReason::Fin, now);
                }
                continue;
            }
            let dir = self.conn.dir_mut(s);
            dir.flags |= RESET;
            let reach = if dir.has(BYPASS) { 0 } else { reach };
            if dir.hold != NONE || reach > dir.next_off {
                if let Some(hold) = self.ensure_hold(s) {
                    hold.reset = Some((now, reach));
                }
                self.settle(s, now);
            } else {
                self.end(s, EndReason::Rst, now);
            }
        }
        true
    }

    /// Gives up what is due by `now`, each at its own time, or at `not_before` where that is later.
    #[inline]
    pub(crate) fn give_up_due(&mut self, now: Timestamp, not_before: Timestamp) {
        if self.conn.dirs[0].hold & self.conn.dirs[1].hold == NONE {
            return;
        }
        let client = self.conn.info.client_side;
        loop {
            let due = |side| self.hold(side).filter(|h| h.is_timed() && h.due <= now).map(|h| h.due);
            // The earlier first: the end of one direction may end the other.
            let side = match (due(client), due(client.flip())) {
                (None, None) => return,
                (Some(own), Some(other)) if own <= other => client,
                (Some(_), None) => client,
                _ => client.flip(),
            };
            self.give_up_next(side, not_before);
        }
    }

    /// Counts a segment as further evidence, and gives up what that makes due.
    #[inline]
    pub(crate) fn count_evidence(&mut self, now: Timestamp) {
        if self.conn.dirs[0].hold & self.conn.dirs[1].hold == NONE {
            return;
        }
        for side in [Side::Low, Side::High] {
            let Some(hold) = self.hold_mut(side) else { continue };
            let Some(evidence) = &mut hold.evidence else { continue };
            evidence.segments_after = evidence.segments_after.saturating_add(1);
            self.settle(side, now);
        }
        // The evidence is complete only now, although its time may have been up before.
        self.give_up_due(now, now);
    }

    /// Gives up the first hole of `side`, because memory is needed.
    pub(crate) fn give_up_first(&mut self, side: Side, now: Timestamp) {
        if self.conn.dir(side).has(UNBASED) {
            self.start_at(side, None, now);
            return;
        }
        let fin_off = self.conn.dir(side).fin_off;
        let Some(hold) = self.hold(side) else { return };
        let target = match (hold.first_start(), hold.evidence) {
            (Some(first), _) => first,
            (None, Some(acked)) => acked.upto,
            (None, None) => fin_off,
        };
        if target == NO_FIN {
            self.end(side, EndReason::Rst, now);
            return;
        }
        self.skip_to(side, target, now);
        self.settle(side, now);
    }

    /// Ends both directions: flushes what is held, with gaps, then says why.
    pub(crate) fn finish(&mut self, reason: EndReason, now: Timestamp) {
        let client = self.conn.info.client_side;
        for side in [client, client.flip()] {
            if self.conn.dir(side).has(ENDED) {
                continue;
            }
            self.core.counters.holes_ended_total += self.flush(side, now);
            if !self.conn.dir(side).has(ENDED) {
                self.end(side, reason, now);
            }
        }
    }

    /// Moves the start of a direction of which nothing was seen.
    pub(crate) fn rebase(&mut self, side: Side, base: u32) {
        self.drop_hold(side);
        *self.conn.dir_mut(side) = Dir::based(base, 0);
    }

    /// Tells whether `side` is a server whose SYN+ACK is yet to say where it begins, in a connection seen from its SYN.
    fn expects_answer(&self, side: Side) -> bool {
        let client = self.conn.info.client_side;
        side != client && self.conn.dir(client).flags & (BASED | SOFT | MIDSTREAM) == BASED
    }

    /// Lets a direction begin that was held because its start was not known: at `base`, or with the first bytes held
    /// where nothing told.
    #[cold]
    pub(crate) fn start_at(&mut self, side: Side, base: Option<u32>, now: Timestamp) {
        let window = i64::from(self.core.limits.window_ahead_max);
        let dir = self.conn.dir_mut(side);
        dir.flags &= !UNBASED;
        let (from, fin_off, hold_id) = (dir.next, dir.fin_off, dir.hold);
        let Some(hold) = self.core.holds.get_mut(hold_id) else { return };
        let shown = hold.first_start();
        let first = shown.unwrap_or(fin_off).min(i64::MAX as u64) as i64;
        let by = base.map_or(first, |base| i64::from(base.wrapping_sub(from) as i32));
        if first.saturating_sub(by).saturating_abs() > window || base.is_none() && shown.is_none() {
            // Bytes of another connection, or nothing but a FIN, which says too little: it must not hide what comes.
            self.core.counters.fins_contradicted_total += u64::from(fin_off != NO_FIN);
            self.core.counters.bytes_dropped_out_of_window_total += self.drop_hold(side);
            *self.conn.dir_mut(side) = base.map_or(Dir::new(), |base| Dir::based(base, SEEN));
            return;
        }
        let (bytes, segments) = hold.shift(by);
        hold.hole_since = hold.held.front().map(|held| held.seen).or(hold.hole_since);
        self.core.held_bytes -= bytes;
        self.core.held_segments -= segments;
        self.core.counters.bytes_dropped_before_base_total += bytes;
        let dir = self.conn.dir_mut(side);
        dir.next = from.wrapping_add(by as u32);
        if fin_off != NO_FIN {
            match fin_off.checked_add_signed(-by) {
                Some(offset) => dir.fin_off = offset,
                None => withdraw_fin(dir, &mut self.core.counters),
            }
        }
        self.drain(side, now);
        self.settle(side, now);
    }

    /// Tells whether bytes or a FIN of `side` are missing that may still come.
    fn lacks(&self, side: Side) -> bool {
        !self.conn.dir(side).has(ENDED) && self.hold(side).is_some_and(Hold::lacks)
    }

    fn hold(&self, side: Side) -> Option<&Hold> {
        self.core.holds.get(self.conn.dir(side).hold)
    }

    fn hold_mut(&mut self, side: Side) -> Option<&mut Hold> {
        self.core.holds.get_mut(self.conn.dir(side).hold)
    }

    fn ensure_hold(&mut self, side: Side) -> Option<&mut Hold> {
        let dir = &mut self.conn.dirs[side as usize];
        if dir.hold == NONE {
            let mut hold = Hold::new(self.id, side);
            hold.held = self.core.spare_queues.pop().unwrap_or_default();
            dir.hold = self.core.holds.insert(hold);
        }
        self.core.holds.get_mut(dir.hold)
    }

    /// Removes the hold of `side`; returns the captured bytes that were still in it.
    fn drop_hold(&mut self, side: Side) -> u64 {
        let dir = self.conn.dir_mut(side);
        let hold = std::mem::replace(&mut dir.hold, NONE);
        if hold == NONE { 0 } else { self.core.remove_hold(hold) }
    }

    /// Finds out where the stream begins, at the first bytes of a midstream direction.
    fn find_base(&mut self, side: Side, run: &Run<'_>) {
        let window = i64::from(self.core.limits.window_ahead_max);
        let expects_answer = self.expects_answer(side);
        let dir = self.conn.dir_mut(side);
        if !dir.has(BASED) && expects_answer {
            let base = run.seq.wrapping_sub(self.core.limits.window_ahead_max / 2);
            *dir = Dir::based(base, MIDSTREAM | UNBASED | dir.flags);
        } else if !dir.has(BASED) {
            *dir = Dir::based(run.seq, MIDSTREAM | dir.flags);
        } else if dir.has(SOFT) && run.len() > 0 {
            dir.flags &= !SOFT;
            // Bytes from below the acknowledgement that set the base are old, but nothing was delivered
            // yet: start there. Bytes just after it show a hole.
            let ahead = i64::from(dir.ahead(run.seq));
            if dir.next_off == 0 && !(0..=window).contains(&ahead) {
                dir.next = run.seq;
                self.drop_hold(side);
            }
        }
    }

    /// Tells whether a segment's place in sequence space is believable.
    fn window(&mut self, side: Side, run: &Run<'_>) -> Window {
        let limits = &self.core.limits;
        let dir = self.conn.dir(side);
        let ahead = dir.ahead(run.seq);
        if ahead > -BEHIND_MAX && i64::from(ahead) <= i64::from(limits.window_ahead_max) {
            return Window::Inside;
        }
        let window = u64::from(limits.window_ahead_max);
        let believable_gap = ahead > 0 && ahead as u32 <= limits.ack_ahead_max;
        let from = dir.next_off.saturating_add_signed(i64::from(ahead));
        if believable_gap && self.hold(side).is_some_and(|h| h.acked.saturating_add(window) >= from) {
            return Window::Inside;
        }
        let peer_seen = self.conn.dir(side.flip()).has(SEEN);
        let rare = self.conn.rare_mut();
        let (expected, count) = &mut rare.runs[side as usize];
        *count = if *count > 0 && *expected == run.seq { count.saturating_add(1) } else { 1 };
        *expected = run.seq.wrapping_add(run.len() as u32);
        if *count < RUN_SEGMENTS {
            return Window::Outside;
        }
        // Where the other side is seen, it must agree: a client could otherwise send bytes that its server
        // ignores, and have us ignore those that the server takes.
        let agreed = rare.far_ack[side as usize]
            .is_some_and(|ack| u64::from((ack.wrapping_sub(run.seq) as i32).unsigned_abs()) <= window);
        match (peer_seen, believable_gap) {
            (false, true) => Window::Inside,
            (false, false) => Window::Successor,
            (true, _) if agreed => Window::Successor,
            (true, _) => Window::Outside,
        }
    }

    /// Accounts for `len` captured bytes from offset `from` on, all before the next expected one.
    fn count_old(&mut self, side: Side, from: i64, len: u64) {
        if len == 0 {
            return;
        }
        let dir = self.conn.dir(side);
        let counters = &mut self.core.counters;
        let to = from + len as i64;
        let mut duplicate = len;
        if from < 0 && dir.has(MIDSTREAM) {
            let before = (-from).min(len as i64) as u64;
            counters.bytes_dropped_before_base_total += before;
            duplicate -= before;
        }
        let gap_end = dir.gap_end as i64;
        let gap_start = gap_end - i64::from(dir.gap_len);
        let late = (to.min(gap_end) - from.max(gap_start)).max(0) as u64;
        counters.bytes_dropped_late_total += late;
        counters.bytes_duplicate_total += duplicate - late;
    }

    fn note_fin(&mut self, side: Side, to: i64, now: Timestamp) {
        let held_end = self.hold(side).map_or(0, Hold::last_end);
        // The server's word; a client's is none, since it may have acknowledged what was not sent yet.
        let from_client = side == self.conn.info.client_side;
        let acked = self.hold(side).filter(|_| from_client).map_or(0, |hold| hold.acked.saturating_sub(1));
        let dir = self.conn.dir_mut(side);
        if dir.has(ENDED) || dir.fin_off != NO_FIN {
            return;
        }
        if to < dir.next_off.max(held_end).max(acked) as i64 {
            self.core.counters.fins_contradicted_total += 1;
            return;
        }
        dir.fin_off = to as u64;
        let behind_hole = dir.next_off < dir.fin_off && !dir.has(BYPASS);
        if behind_hole && let Some(hold) = self.ensure_hold(side) {
            hold.hole_since.get_or_insert(now);
        }
    }

    /// Holds bytes; returns how many captured ones were new.
    fn put_on_hold(&mut self, side: Side, fresh: Fresh<'_>) -> u64 {
        let mut spare = std::mem::take(&mut self.core.spare_buffers);
        let Some(hold) = self.ensure_hold(side) else { return 0 };
        let done = hold.insert(fresh, &mut spare);
        hold.hole_since.get_or_insert(fresh.seen);
        self.core.spare_buffers = spare;
        self.core.held_bytes += done.bytes;
        self.core.held_segments += done.segments;
        self.core.counters.bytes_duplicate_total += fresh.bytes.len() as u64 - done.bytes;
        if done.conflict_bytes > 0 {
            self.core.counters.overlap_conflict_bytes_total += done.conflict_bytes;
            let direction = self.conn.direction(side);
            match &mut self.conn.state {
                Some(state) => self.sink.overlap_conflict(state, &self.conn.info, direction),
                // Told when the flow is opened.
                None => self.conn.dir_mut(side).flags |= CONFLICT,
            }
        }
        done.bytes
    }

    /// Gives up first holes until `side` holds no more than it may.
    fn restore_bound(&mut self, side: Side, now: Timestamp) {
        loop {
            let limits = &self.core.limits;
            let Some(hold) = self.hold(side) else { return };
            let Some(first) = hold.first_start() else { return };
            if hold.bytes <= u64::from(limits.held_bytes_per_direction_max)
                && hold.held.len() <= limits.held_segments_per_direction_max as usize
            {
                return;
            }
            if self.conn.dir(side).has(UNBASED) {
                self.start_at(side, None, now);
                continue;
            }
            if hold.stalled {
                // What the receiver has not taken may be made up; the bytes that it asks for come first.
                let bytes = limits.held_bytes_per_direction_max;
                let segments = limits.held_segments_per_direction_max;
                self.drop_held(side, u64::from(bytes), segments as usize);
                return;
            }
            self.core.counters.holes_direction_full_total += 1;
            self.skip_to(side, first, now);
        }
    }

    /// Drops held bytes, the last first, until no more than so many bytes and segments are left.
    fn drop_held(&mut self, side: Side, bytes_max: u64, segments_max: usize) {
        let id = self.conn.dir(side).hold;
        loop {
            let Some(hold) = self.core.holds.get_mut(id) else { return };
            if hold.bytes <= bytes_max && hold.held.len() <= segments_max {
                break;
            }
            let Some(held) = hold.held.pop_back() else { break };
            let len = held.bytes.len() as u64;
            hold.bytes -= len;
            self.core.held_bytes -= len;
            self.core.held_segments -= 1;
            self.core.counters.bytes_dropped_unacknowledged_total += len;
            self.core.recycle(held.bytes);
        }
        if let Some(hold) = self.core.holds.get_mut(id)
            && hold.held.is_empty()
        {
            hold.hole_since = None;
            hold.stalled = false;
        }
    }

    fn give_up_next(&mut self, side: Side, not_before: Timestamp) {
        let limits = &self.core.limits;
        let fin_off = self.conn.dir(side).fin_off;
        let Some(hold) = self.core.holds.get_mut(self.conn.dir(side).hold) else { return };
        let (due, at) = (hold.due, hold.due.max(not_before));
        // Where the other side begins is to be known when bytes that acknowledge it go on.
        for side in [side.flip(), side] {
            if self.conn.dir(side).has(UNBASED) {
                self.start_at(side, None, at);
                return;
            }
        }
        if let Some(acked) = hold.evidence
            && hold.acked_due(limits).is_some_and(|t| t <= due)
        {
            hold.evidence = None;
            self.core.counters.holes_acked_total += 1;
            self.skip_to(side, acked.upto, at);
        } else if hold.stalled && hold.age_due(limits).is_some_and(|t| t <= due) {
            // The receiver still asks for what is before: it has taken nothing of what is behind, and the sender has
            // not sent the rest again. A sender can make such bytes up, to have the rest of the connection ignored.
            self.drop_held(side, 0, 0);
            self.conn.dir_mut(side).fin_off = NO_FIN;
        } else if hold.age_due(limits).is_some_and(|t| t <= due) {
            let target = hold.first_start().unwrap_or(fin_off);
            self.core.counters.holes_old_total += 1;
            if target != NO_FIN {
                self.skip_to(side, target, at);
            }
        } else {
            // The time after a RST is over.
            self.core.counters.holes_reset_total += self.flush(side, at);
            if !self.conn.dir(side).has(ENDED) {
                self.end(side, EndReason::Rst, at);
            }
        }
        self.settle(side, at);
    }

    /// Turns what is missing before `target` into gaps, and delivers what lies between; returns how many holes that
    /// were.
    fn skip_to(&mut self, side: Side, target: u64, now: Timestamp) -> u64 {
        let mut holes = 0;
        loop {
            let dir = self.conn.dir(side);
            let target = target.min(dir.fin_off);
            if dir.next_off >= target || dir.has(BYPASS | ENDED) {
                return holes;
            }
            let next_off = dir.next_off;
            let hole_end = self.hold(side).and_then(Hold::first_start).map_or(target, |f| f.min(target));
            holes += u64::from(hole_end > next_off);
            self.give_gap(side, hole_end.saturating_sub(next_off), now);
            self.drain(side, now);
        }
    }

    /// Delivers everything held, with gaps for what is known to be missing; returns how many holes that were.
    fn flush(&mut self, side: Side, now: Timestamp) -> u64 {
        if self.conn.dir(side).has(UNBASED) {
            self.start_at(side, None, now);
        }
        let Dir { fin_off, next_off, .. } = *self.conn.dir(side);
        let Some(hold) = self.hold(side) else { return 0 };
        let acked = if hold.evidence.is_some() || hold.acked > next_off + 1 { hold.acked } else { 0 };
        let target = hold.last_end().max(acked);
        self.skip_to(side, if fin_off == NO_FIN { target } else { fin_off }, now)
    }

    /// Delivers held bytes that are in order now.
    fn drain(&mut self, side: Side, now: Timestamp) {
        let mut moved = false;
        loop {
            let dir = self.conn.dir(side);
            let next_off = dir.next_off;
            let Some(hold) = self.core.holds.get_mut(dir.hold) else { return };
            let Some(held) = hold.take_at(next_off) else {
                if moved {
                    // The next hole is as old as the bytes behind it. Where the receiver asked for the one
                    // before, it will ask for this one too, so `stalled` stays.
                    hold.hole_since = hold.held.front().map(|h| h.seen);
                }
                return;
            };
            moved = true;
            self.core.held_bytes -= held.bytes.len() as u64;
            self.core.held_segments -= 1;
            self.give_data(side, &held.bytes, held.ack, held.seen, now);
            if held.cut > 0 {
                self.give_cut(side, held.cut, now);
            }
            self.core.recycle(held.bytes);
        }
    }

    /// Ends the direction if its end is reached, and brings its hold's timers up to date.
    fn settle(&mut self, side: Side, now: Timestamp) {
        self.settle_own(side, now);
        let server = self.conn.info.client_side.flip();
        if side != server
            && self.conn.dir(server).flags & (FIN_REACHED | ENDED) == FIN_REACHED
            && !self.lacks(side)
        {
            self.settle_own(server, now);
        }
    }

    fn settle_own(&mut self, side: Side, now: Timestamp) {
        let dir = self.conn.dir(side);
        let (next_off, fin_off, flags) = (dir.next_off, dir.fin_off, dir.flags);
        let hold_id = dir.hold;
        if flags & ENDED == 0 && next_off >= fin_off {
            let server = side != self.conn.info.client_side;
            let taken = flags & FIN_ACKED != 0 || self.hold(side).is_some_and(|h| h.acked > fin_off);
            // Responses end when the requests that they answer are there: the mirror may have delayed those.
            let over = if server { !self.lacks(side.flip()) } else { taken || !self.awaits_ack(side) };
            if over {
                self.end(side, EndReason::Fin, now);
                return;
            }
            self.conn.dir_mut(side).flags |= FIN_REACHED;
        }
        let doubted = self.doubts_acks(side);
        let Some(hold) = self.core.holds.get_mut(hold_id) else {
            if flags & (RESET | ENDED) == RESET {
                self.end(side, EndReason::Rst, now);
            }
            return;
        };
        let hole = !hold.held.is_empty() || fin_off != NO_FIN && next_off < fin_off;
        if hole {
            hold.hole_since.get_or_insert(now);
        } else {
            hold.hole_since = None;
            hold.stalled = false;
        }
        let shown =
            if doubted && fin_off == NO_FIN && hold.reset.is_none() { hold.last_end() } else { fin_off };
        let acked = hold.acked.min(shown);
        if acked > next_off + u64::from(!hole) {
            if hold.evidence.is_none_or(|e| e.upto <= next_off) {
                hold.evidence = Some(Acked { upto: acked, since: now, segments_after: 0 });
            }
        } else {
            hold.evidence = None;
        }
        let missing = hole || hold.evidence.is_some();
        match hold.reset {
            Some((_, reach)) if !missing && next_off >= reach => {
                self.end(side, EndReason::Rst, now);
                return;
            }
            None if !missing && hold.acked <= next_off + 1 => {
                let fin_acked = hold.acked > next_off;
                self.drop_hold(side);
                if fin_acked {
                    self.conn.dir_mut(side).flags |= FIN_ACKED;
                }
                return;
            }
            _ => {}
        }
        let limits = &self.core.limits;
        let age_due = match hold.hole_since {
            Some(since) if flags & UNBASED != 0 => Some(since.plus_nanos(limits.hole_acked_nanos)),
            _ => hold.age_due(limits),
        };
        let dues = [hold.acked_due(limits), age_due, hold.reset_due(limits)];
        // A hole that is overdue as soon as it becomes the first one is due now: bytes held behind it may have
        // been seen after its own time was up.
        hold.due = dues.into_iter().flatten().min().unwrap_or(Timestamp::MAX).max(now);
        if hold.due != hold.queued {
            // Kept exact, not lazy: under memory pressure the holes nearest to their deadline go first.
            hold.queued = hold.due;
            let (due, timed) = (hold.due, hold.is_timed());
            self.core.hole_wheel.remove(&mut self.core.holds, hold_id);
            if timed {
                self.core.hole_wheel.insert(&mut self.core.holds, hold_id, due);
            }
        }
    }

    /// Tells whether the client's FIN waits for its server's word: a client can send one that only the mirror takes, to
    /// have the rest of the connection ignored.
    fn awaits_ack(&self, side: Side) -> bool {
        let peer = self.conn.dir(side.flip());
        side == self.conn.info.client_side && peer.is_seen() && !peer.has(ENDED | FIN_REACHED)
    }

    /// Tells whether the client's FIN ended the direction without its server being seen at all.
    fn ended_unheard(&self, side: Side) -> bool {
        let (dir, peer) = (self.conn.dir(side), self.conn.dir(side.flip()));
        side == self.conn.info.client_side && !dir.has(RESET) && !peer.is_seen() && !peer.has(ENDED)
    }

    /// Tells whether acknowledgements of what `side` sends show nothing by themselves: a client may acknowledge what its
    /// server, which is seen, is yet to send. A gap made of that would hide the answer.
    fn doubts_acks(&self, side: Side) -> bool {
        side != self.conn.info.client_side && self.conn.dir(side).is_seen()
    }

    #[inline]
    fn give_data(&mut self, side: Side, bytes: &[u8], ack: Option<u32>, seen: Timestamp, now: Timestamp) {
        if bytes.is_empty() {
            return;
        }
        if self.conn.state.is_none() {
            self.open(now);
        }
        let peer_acked = self.conn.acked_offset(side.flip(), ack, self.core.limits.ack_ahead_max);
        let direction = self.conn.direction(side);
        let dir = self.conn.dir_mut(side);
        let offset = dir.next_off;
        advance(dir, bytes.len() as u64);
        self.core.counters.bytes_delivered_total += bytes.len() as u64;
        let chunk = Chunk::Data { bytes, offset, peer_acked, seen };
        if let Some(state) = &mut self.conn.state {
            self.sink.chunk(state, &self.conn.info, direction, chunk, now);
            if !self.sink.wants(state, direction) {
                self.bypass(side);
            }
        }
    }

    /// Hands on bytes that a snap length cut off: no use waiting for them.
    fn give_cut(&mut self, side: Side, cut: u32, now: Timestamp) {
        self.core.counters.snap_cut_bytes_total += u64::from(cut);
        self.give_gap(side, u64::from(cut), now);
    }

    fn give_gap(&mut self, side: Side, len: u64, now: Timestamp) {
        if len == 0 {
            return;
        }
        if self.conn.dir(side).has(BYPASS) {
            advance(self.conn.dir_mut(side), len);
            return;
        }
        if self.conn.state.is_none() {
            self.open(now);
        }
        let direction = self.conn.direction(side);
        let dir = self.conn.dir_mut(side);
        let offset = dir.next_off;
        advance(dir, len);
        dir.gap_end = dir.next_off;
        dir.gap_len = u32::try_from(len).unwrap_or(u32::MAX);
        self.core.counters.gaps_total += 1;
        self.core.counters.gap_bytes_total += len;
        if let Some(state) = &mut self.conn.state {
            let chunk = Chunk::Gap { len, offset, seen: now };
            self.sink.chunk(state, &self.conn.info, direction, chunk, now);
        }
    }

    #[cold]
    fn open(&mut self, now: Timestamp) {
        self.core.counters.flows_given_total += 1;
        let mut state = self.sink.open(&self.conn.info);
        for side in [Side::Low, Side::High] {
            if self.conn.dir(side).has(CONFLICT) {
                let direction = self.conn.direction(side);
                self.sink.overlap_conflict(&mut state, &self.conn.info, direction);
            }
        }
        self.conn.state = Some(state);
        // A side may have finished without a byte before the other sent its first.
        for side in [Side::Low, Side::High] {
            let dir = self.conn.dir(side);
            if dir.has(ENDED) && !dir.has(END_GIVEN) {
                let reason = if dir.has(RESET) { EndReason::Rst } else { EndReason::Fin };
                self.give_end(side, reason, now);
            }
        }
    }

    fn end(&mut self, side: Side, reason: EndReason, now: Timestamp) {
        let left = self.drop_hold(side);
        self.core.counters.bytes_dropped_after_close_total += left;
        let dir = self.conn.dir_mut(side);
        dir.flags |= ENDED;
        let reason = if dir.next_off >= dir.fin_off { EndReason::Fin } else { reason };
        if reason == EndReason::Rst {
            dir.flags |= RESET;
        }
        self.give_end(side, reason, now);
        if self.conn.dir(side.flip()).flags & (FIN_REACHED | ENDED) == FIN_REACHED {
            // The server ends too, so nothing that matters can follow.
            self.end(side.flip(), EndReason::Fin, now);
        }
    }

    fn give_end(&mut self, side: Side, reason: EndReason, now: Timestamp) {
        let direction = self.conn.direction(side);
        if let Some(state) = &mut self.conn.state {
            self.conn.dirs[side as usize].flags |= END_GIVEN;
            self.sink.chunk(state, &self.conn.info, direction, Chunk::End { reason, seen: now }, now);
        }
    }

    #[cold]
    fn bypass(&mut self, side: Side) {
        let last = self.hold(side).map_or(0, |h| h.last_end().max(h.acked));
        let reset = self.hold(side).is_some_and(|h| h.reset.is_some());
        let left = self.drop_hold(side);
        self.core.counters.bytes_bypassed_total += left;
        let dir = self.conn.dir_mut(side);
        dir.flags |= BYPASS;
        if last > dir.next_off {
            let by = last - dir.next_off;
            advance(dir, by);
        }
        debug_assert!(!reset || dir.has(RESET), "a hold with a reset belongs to a reset direction");
    }
}

fn advance(dir: &mut Dir, by: u64) {
    dir.next_off += by;
    dir.next = dir.next.wrapping_add(by as u32);
    dir.flags &= !(FIN_ACKED | SOFT);
}

/// Forgets a FIN that its sender or receiver showed to be none.
fn withdraw_fin(dir: &mut Dir, counters: &mut StreamCounters) {
    dir.fin_off = NO_FIN;
    dir.flags &= !FIN_REACHED;
    counters.fins_contradicted_total += 1;
}

/// Counts a segment of which nothing is left after the old bytes were taken off.
fn count_used_up(counters: &mut StreamCounters, run: &Run<'_>) {
    if run.bytes.is_empty() {
        counters.segments_empty_total += 1;
    } else {
        counters.segments_duplicate_total += 1;
    }
}
