//! Finds the flow of a segment; opens, expires and evicts flows.

use hashbrown::HashTable;
use offpath_packet::TcpSegment;
use offpath_types::{EndReason, FlowInfo, FlowKey, Side, Timestamp};

use crate::assemble::{Accepted, Assembly, Core, Run};
use crate::conn::{BASED, Conn, Dir, Doubt, ENDED, FIN_REACHED, MIDSTREAM, SEEN, SOFT, UNBASED};
use crate::embryo::{Early, Embryo, Past, Phase};
use crate::hold::SEGMENT_OVERHEAD;
use crate::slab::{NONE, Slab};
use crate::wheel::{Links, Wheel};
use crate::{StreamCounters, StreamLimits, StreamSink};

/// Flow timers tick every 1.07 s.
const FLOW_TICK_SHIFT: u32 = 30;
/// Timers are looked at when packet time enters another 4.2 ms tick.
const CLOCK_SHIFT: u32 = 22;
/// How long after a close a SYN of the closed connection is taken for a late copy of it.
const CLOSED_COPIES_NANOS: u64 = 1_000_000_000;
/// Marks ids of connections; the others are embryos and closed flows.
const CONN: u32 = 1 << 31;

/// One flow in the index. The hash is kept, so that growing the index touches no flow.
#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    id: u32,
}

fn spread(hash: u32) -> u64 {
    // The index uses the low and the top bits; 2^64 / golden ratio spreads 32 bits over both.
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// All flows of one shard.
///
/// Time is that of the segments. A flow ends at its last segment plus its timeout, whenever that is noticed:
/// what the sink is given for a flow does not depend on how often [`FlowTable::advance`] is called. Segments
/// captured before an earlier one of the same flow are taken as they come.
///
/// Cost per segment: one hash lookup and one flow entry (about 220 bytes plus the sink's state); embryonic
/// and closed flows take about 110 bytes. Nothing is allocated for an in-order segment.
// Invariants: every entry of `index` leads to an occupied slot and back; every embryo stands in `opening`
// or `closed` by its phase, every connection in `unproven` or `proven` by its flag.
pub struct FlowTable<S: StreamSink> {
    core: Core,
    seed: u64,
    index: HashTable<Entry>,
    embryos: Slab<Embryo>,
    conns: Slab<Conn<S::Flow>>,
    opening: Wheel,
    closed: Wheel,
    unproven: Wheel,
    proven: Wheel,
    clock: Timestamp,
}

impl<S: StreamSink> FlowTable<S> {
    /// Coarsest tick of a timer: after [`FlowTable::advance`] to `now`, whatever fell due before the multiple
    /// of this at or before `now` has been handed on. What falls due later is handed on later, with the time
    /// at which it fell due.
    pub const TICK_NANOS: u64 = 1 << FLOW_TICK_SHIFT;

    /// Makes an empty table; it owns next to no memory until flows come.
    ///
    /// `seed` is secret and keys the hash; give the same one as for choosing the shard.
    pub fn new(limits: StreamLimits, seed: u64) -> Self {
        Self {
            core: Core::new(limits),
            seed,
            index: HashTable::new(),
            embryos: Slab::new(),
            conns: Slab::new(),
            opening: Wheel::new(FLOW_TICK_SHIFT),
            closed: Wheel::new(FLOW_TICK_SHIFT),
            unproven: Wheel::new(FLOW_TICK_SHIFT),
            proven: Wheel::new(FLOW_TICK_SHIFT),
            clock: Timestamp::ZERO,
        }
    }

    /// Takes one segment, in capture order.
    #[inline]
    pub fn segment(&mut self, segment: &TcpSegment<'_>, sink: &mut S) {
        self.segment_hashed(segment.key.hash64(self.seed), segment, sink);
    }

    /// Same as [`FlowTable::segment`], where the caller has `segment.key.hash64(seed)` already.
    pub fn segment_hashed(&mut self, hash: u64, segment: &TcpSegment<'_>, sink: &mut S) {
        if segment.time.as_nanos() >> CLOCK_SHIFT > self.clock.as_nanos() >> CLOCK_SHIFT {
            self.advance(segment.time, sink);
        }
        let counters = &mut self.core.counters;
        counters.segments_total += 1;
        counters.payload_bytes_total += segment.payload.len() as u64;
        counters.segments_urgent_total += u64::from(segment.flags.urg());
        // The shard is chosen by the top bits, so those are the same for all flows here.
        let hash = (hash ^ (hash >> 32)) as u32;
        match self.find(hash, &segment.key) {
            Some(id) if id & CONN != 0 => self.segment_of_conn(id & !CONN, hash, segment, sink),
            Some(id) => self.segment_of_embryo(id, hash, segment, sink),
            None => self.segment_of_nobody(hash, segment, None, sink),
        }
        if self.core.is_full() {
            self.relieve(segment.time, sink);
        }
    }

    /// Moves packet time on without a segment: expires flows and gives up holes that are due by `now`.
    ///
    /// A segment does the same for its own time, so this is needed only where none come; and before
    /// [`FlowTable::finish`], to give several tables the same idea of when the capture ended.
    pub fn advance(&mut self, now: Timestamp, sink: &mut S) {
        if now <= self.clock {
            return;
        }
        self.clock = now;
        while let Some(hold) = self.core.hole_wheel.pop_before(&mut self.core.holds, now) {
            self.hole_is_due(hold, now, sink);
        }
        while let Some(id) = self.opening.pop_before(&mut self.embryos, now) {
            let Some(embryo) = self.embryos.get(id) else { continue };
            let deadline = self.embryo_deadline(embryo);
            if deadline <= now {
                self.remove_embryo(id);
                self.core.counters.flows_closed_expired_total += 1;
            } else {
                self.opening.insert(&mut self.embryos, id, deadline);
            }
        }
        while let Some(id) = self.closed.pop_before(&mut self.embryos, now) {
            let Some(embryo) = self.embryos.get(id) else { continue };
            let deadline = self.embryo_deadline(embryo);
            if deadline <= now {
                self.remove_embryo(id);
            } else {
                self.closed.insert(&mut self.embryos, id, deadline);
            }
        }
        while let Some(id) = self.unproven.pop_before(&mut self.conns, now) {
            self.conn_is_due(id, now, sink);
        }
        while let Some(id) = self.proven.pop_before(&mut self.conns, now) {
            self.conn_is_due(id, now, sink);
        }
    }

    /// Ends all flows, with `EndReason::CaptureEnd` at the latest packet time.
    ///
    /// In the order in which their entries were made. What is due earlier should be given up earlier: call
    /// [`FlowTable::advance`] with the time of the last frame first.
    pub fn finish(&mut self, sink: &mut S) {
        for id in 0..self.conns.high() {
            if self.conns.get(id).is_some() {
                self.close_conn(id, EndReason::CaptureEnd, self.clock, sink);
                self.core.counters.flows_closed_capture_end_total += 1;
            }
        }
        for id in 0..self.embryos.high() {
            let Some(embryo) = self.embryos.get(id) else { continue };
            self.core.counters.flows_closed_capture_end_total += u64::from(!embryo.is_closed());
            self.remove_embryo(id);
        }
    }

    /// Returns the counts.
    pub fn counters(&self) -> &StreamCounters {
        &self.core.counters
    }

    /// Returns the flows open now, embryonic ones included.
    pub fn flows_open(&self) -> u64 {
        u64::from(self.conns.len()) + u64::from(self.opening.len())
    }

    /// Returns the captured bytes held now, behind holes and for handshakes to complete.
    pub fn held_bytes(&self) -> u64 {
        self.core.held_bytes
    }

    #[inline]
    fn find(&self, hash: u32, key: &FlowKey) -> Option<u32> {
        let same = |e: &Entry| {
            e.hash == hash
                && if e.id & CONN != 0 {
                    self.conns.get(e.id & !CONN).is_some_and(|c| c.info.key == *key)
                } else {
                    self.embryos.get(e.id).is_some_and(|c| c.info.key == *key)
                }
        };
        self.index.find(spread(hash), same).map(|e| e.id)
    }

    fn index_insert(&mut self, hash: u32, id: u32) {
        self.index.insert_unique(spread(hash), Entry { hash, id }, |e| spread(e.hash));
    }

    fn index_remove(&mut self, hash: u32, id: u32) {
        if let Ok(entry) = self.index.find_entry(spread(hash), |e| e.id == id) {
            entry.remove();
        }
    }

    // Connections.

    fn segment_of_conn(&mut self, id: u32, hash: u32, segment: &TcpSegment<'_>, sink: &mut S) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let time = segment.time;
        let deadline = conn.deadline(&self.core.limits);
        // A time at the end of the range (or a timeout of 0) is its own deadline: a flow seen now is not over.
        if deadline <= time && conn.last_seen < time {
            let client_side = conn.info.client_side;
            self.expire_conn(id, deadline, sink);
            self.segment_of_nobody(hash, segment, Some(client_side), sink);
            return;
        }
        let mut work = Assembly { core: &mut self.core, sink, conn, id };
        work.give_up_due(time, Timestamp::ZERO);
        if time >= work.conn.last_seen {
            work.conn.last_seen = time;
        } else {
            work.core.counters.clock_backwards_total += 1;
        }
        let flags = segment.flags;
        let side = segment.side;
        if work.conn.rare.is_some() || flags.syn() {
            match examine_handshake(&mut work, segment) {
                Handshake::No => {}
                Handshake::Repeated => work.core.counters.syns_repeated_total += 1,
                Handshake::Doubted => {
                    // Its payload, if any, would belong to the new connection.
                    work.core.counters.syns_doubted_total += 1;
                    count_syn_payload(work.core, segment);
                    return;
                }
                Handshake::Successor(doubt) => {
                    self.close_conn(id, EndReason::Reused, time, sink);
                    self.core.counters.flows_closed_reused_total += 1;
                    self.succeed(hash, segment, doubt, sink);
                    return;
                }
            }
        }
        if flags.ack() {
            work.acknowledge(side, segment.seq.0, segment.ack.0, time);
        }
        if flags.rst() {
            count_reset_payload(work.core, segment);
            work.reset(side, segment.seq.0, time);
        } else if let Accepted::Successor(client_side) = work.accept(side, &run_of(segment)) {
            self.close_conn(id, EndReason::Reused, time, sink);
            self.core.counters.flows_closed_reused_total += 1;
            self.segment_of_nobody(hash, segment, client_side, sink);
            return;
        }
        work.count_evidence(time);
        let conn = &*work.conn;
        if conn.is_over() {
            self.retire_conn(id, time, sink);
            return;
        }
        let [a, b] = &conn.dirs;
        let proves = !conn.proven && a.flags & b.flags & SEEN != 0 && conn.state.is_some();
        if proves || (a.flags | b.flags) & (ENDED | FIN_REACHED) != 0 {
            self.queue_conn(id, proves);
        }
    }

    /// Moves a connection to where its class and deadline want it.
    fn queue_conn(&mut self, id: u32, proves: bool) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let deadline = conn.deadline(&self.core.limits);
        if !proves && deadline >= conn.queued {
            return;
        }
        conn.queued = deadline;
        let was_proven = conn.proven;
        let now_proven = was_proven || proves;
        conn.proven = now_proven;
        let from = if was_proven { &mut self.proven } else { &mut self.unproven };
        from.remove(&mut self.conns, id);
        let to = if now_proven { &mut self.proven } else { &mut self.unproven };
        to.insert(&mut self.conns, id, deadline);
    }

    /// Called when the wheel yields a connection: expires it, or puts it back.
    fn conn_is_due(&mut self, id: u32, now: Timestamp, sink: &mut S) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let deadline = conn.deadline(&self.core.limits);
        if deadline <= now {
            self.expire_conn(id, deadline, sink);
            return;
        }
        conn.queued = deadline;
        let wheel = if conn.proven { &mut self.proven } else { &mut self.unproven };
        wheel.insert(&mut self.conns, id, deadline);
    }

    fn expire_conn(&mut self, id: u32, deadline: Timestamp, sink: &mut S) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        Assembly { core: &mut self.core, sink, conn, id }.give_up_due(deadline, Timestamp::ZERO);
        self.close_conn(id, EndReason::Expired, deadline, sink);
        self.core.counters.flows_closed_expired_total += 1;
    }

    /// Called when the wheel yields a hold: gives up what is due, or puts it back.
    fn hole_is_due(&mut self, hold_id: u32, now: Timestamp, sink: &mut S) {
        let Some(hold) = self.core.holds.get_mut(hold_id) else { return };
        hold.queued = Timestamp::MAX;
        let (id, due) = (hold.conn, hold.due);
        if due > now {
            hold.queued = due;
            self.core.hole_wheel.insert(&mut self.core.holds, hold_id, due);
            return;
        }
        let Some(conn) = self.conns.get_mut(id) else { return };
        let mut work = Assembly { core: &mut self.core, sink, conn, id };
        work.give_up_due(now, Timestamp::ZERO);
        if work.conn.is_over() {
            self.retire_conn(id, due, sink);
        } else {
            self.queue_conn(id, false);
        }
    }

    /// Brings the table's held bytes back under their limit: the holes nearest to their deadline go.
    #[cold]
    fn relieve(&mut self, now: Timestamp, sink: &mut S) {
        while self.core.is_full() {
            let Some(hold_id) = self.core.hole_wheel.first() else { return };
            let Some(hold) = self.core.holds.get(hold_id) else { return };
            let (id, side) = (hold.conn, hold.side);
            let Some(conn) = self.conns.get_mut(id) else { return };
            self.core.counters.holes_table_full_total += 1;
            let mut work = Assembly { core: &mut self.core, sink, conn, id };
            work.give_up_first(side, now);
            if work.conn.is_over() {
                self.retire_conn(id, now, sink);
            }
        }
    }

    /// Ends what has not ended and takes the connection out of the table.
    fn close_conn(
        &mut self,
        id: u32,
        reason: EndReason,
        now: Timestamp,
        sink: &mut S,
    ) -> Option<Conn<S::Flow>> {
        let conn = self.conns.get_mut(id)?;
        Assembly { core: &mut self.core, sink, conn, id }.finish(reason, now);
        debug_assert!(conn.dirs.iter().all(|dir| dir.hold == NONE), "a direction that ended holds nothing");
        let wheel = if conn.proven { &mut self.proven } else { &mut self.unproven };
        wheel.remove(&mut self.conns, id);
        let mut conn = self.conns.remove(id)?;
        self.index_remove(conn.hash, id | CONN);
        if let Some(state) = conn.state.take() {
            self.core.counters.flows_taken_back_total += 1;
            sink.close(state, &conn.info, now);
        }
        Some(conn)
    }

    /// Closes a connection of which both directions ended, and remembers it for its stragglers.
    fn retire_conn(&mut self, id: u32, now: Timestamp, sink: &mut S) {
        let Some(conn) = self.close_conn(id, EndReason::Fin, now, sink) else { return };
        match conn.reset_by {
            Some(_) => self.core.counters.flows_closed_rst_total += 1,
            None => self.core.counters.flows_closed_fin_total += 1,
        }
        if self.closed.len() >= self.core.limits.closed_flows_max {
            // The oldest; this one itself where none may be remembered.
            self.core.counters.closed_flows_forgotten_total += 1;
            if let Some(oldest) = self.closed.first() {
                self.remove_embryo(oldest);
            }
        }
        if self.closed.len() < self.core.limits.closed_flows_max {
            let dirs = &conn.dirs;
            let past = Past {
                reset_by: conn.reset_by,
                lens: [0, 1].map(|n| dirs[n].next_off.min(u64::from(Past::LEN_MAX)) as u32),
                seen: [0, 1].map(|n| dirs[n].has(BASED) && dirs[n].is_seen()),
                whole: [0, 1].map(|n| !dirs[n].has(MIDSTREAM)),
            };
            let embryo = Embryo {
                info: conn.info,
                last_seen: conn.last_seen,
                seqs: [dirs[0].next, dirs[1].next],
                links: Links::OUT,
                hash: conn.hash,
                phase: Phase::Closed(past),
                early: None,
            };
            let deadline = self.embryo_deadline(&embryo);
            let hash = conn.hash;
            let id = self.embryos.insert(embryo);
            self.closed.insert(&mut self.embryos, id, deadline);
            self.index_insert(hash, id);
        }
    }

    // Embryos and closed flows.

    fn embryo_deadline(&self, embryo: &Embryo) -> Timestamp {
        let limits = &self.core.limits;
        let secs = if embryo.is_closed() { limits.closing_idle_secs } else { limits.embryonic_idle_secs };
        embryo.last_seen.plus_secs(u64::from(secs))
    }

    /// Takes an embryo or closed flow out of the table; drops the payload of its SYN.
    fn remove_embryo(&mut self, id: u32) {
        let Some(embryo) = self.embryos.get(id) else { return };
        let wheel = if embryo.is_closed() { &mut self.closed } else { &mut self.opening };
        wheel.remove(&mut self.embryos, id);
        let Some(embryo) = self.embryos.remove(id) else { return };
        self.drop_early(embryo.early);
        self.index_remove(embryo.hash, id);
    }

    /// Takes the payload of a SYN off the books of held bytes.
    fn release_early(&mut self, early: Option<Box<Early>>) -> Option<Box<Early>> {
        let early = early?;
        self.core.held_bytes -= early.bytes.len() as u64;
        self.core.held_segments -= 1;
        Some(early)
    }

    fn drop_early(&mut self, early: Option<Box<Early>>) {
        if let Some(early) = self.release_early(early) {
            self.core.counters.bytes_dropped_syn_payload_total += early.bytes.len() as u64;
        }
    }

    fn segment_of_embryo(&mut self, id: u32, hash: u32, segment: &TcpSegment<'_>, sink: &mut S) {
        let Some(embryo) = self.embryos.get(id) else { return };
        let client_side = embryo.info.client_side;
        let phase = embryo.phase;
        if self.embryo_deadline(embryo) <= segment.time && embryo.last_seen < segment.time {
            self.core.counters.flows_closed_expired_total += u64::from(!embryo.is_closed());
            self.remove_embryo(id);
            self.segment_of_nobody(hash, segment, None, sink);
            return;
        }
        match phase {
            Phase::Closed(past) => self.segment_after_close(id, hash, segment, past, client_side, sink),
            Phase::Opening { .. } => self.segment_while_opening(id, hash, segment, sink),
        }
    }

    fn segment_after_close(
        &mut self,
        id: u32,
        hash: u32,
        segment: &TcpSegment<'_>,
        past: Past,
        client_side: Side,
        sink: &mut S,
    ) {
        let Some(embryo) = self.embryos.get(id) else { return };
        let (own, peer) = (segment.side as usize, segment.side.flip() as usize);
        let (next, peer_next) = (embryo.seqs[own], embryo.seqs[peer]);
        let window = i64::from(self.core.limits.window_ahead_max);
        let counters = &mut self.core.counters;
        if segment.flags.syn() && !segment.flags.rst() {
            let late = embryo.last_seen.plus_nanos(CLOSED_COPIES_NANOS) < segment.time;
            if !late && is_past_syn(segment, embryo, &past, client_side, window) {
                counters.syns_repeated_total += 1;
                let ends = segment.seq.0.wrapping_add(1).wrapping_add(segment.payload_len);
                if segment.payload.is_empty() || next.wrapping_sub(ends) > Past::LEN_MAX {
                    count_syn_payload(&mut self.core, segment);
                } else {
                    counters.segments_duplicate_total += 1;
                    counters.bytes_duplicate_total += segment.payload.len() as u64;
                }
                return;
            }
            self.remove_embryo(id);
            self.segment_of_nobody(hash, segment, None, sink);
            return;
        }
        if segment.payload_len == 0 || segment.flags.rst() {
            counters.segments_stray_total += 1;
            count_reset_payload(&mut self.core, segment);
            if !segment.flags.rst() {
                self.core.counters.segments_empty_total += 1;
            }
            return;
        }
        let ahead = segment.seq.0.wrapping_sub(next) as i32;
        let ends_ahead = i64::from(ahead) + i64::from(segment.payload_len);
        let counters = &mut self.core.counters;
        let bytes = segment.payload.len() as u64;
        let within =
            |ahead: i32, len: u32| (-window.max(i64::from(len))..=window).contains(&i64::from(ahead));
        let acks_past = !segment.flags.ack()
            || !past.seen[peer]
            || within(segment.ack.0.wrapping_sub(peer_next) as i32, past.lens[peer]);
        if !within(ahead, past.lens[own]) || !acks_past {
            // Another connection, whose SYN the mirror lost, or which repeats the sequence numbers of one side.
            self.remove_embryo(id);
            self.segment_of_nobody(hash, segment, None, sink);
        } else if past.reset_by == Some(segment.side) && ends_ahead > 0 {
            // Who sent the RST goes on sending: its receiver ignored it, so it was forged or out of place.
            counters.flows_revived_total += 1;
            self.remove_embryo(id);
            self.segment_of_nobody(hash, segment, Some(client_side), sink);
        } else {
            if segment.payload.is_empty() {
                counters.segments_empty_total += 1;
            } else if ends_ahead <= 0 {
                counters.segments_duplicate_total += 1;
                counters.bytes_duplicate_total += bytes;
            } else {
                counters.segments_dropped_after_close_total += 1;
                counters.bytes_dropped_after_close_total += bytes;
            }
        }
    }

    fn segment_while_opening(&mut self, id: u32, hash: u32, segment: &TcpSegment<'_>, sink: &mut S) {
        let Some(embryo) = self.embryos.get_mut(id) else { return };
        let (side, flags, time) = (segment.side, segment.flags, segment.time);
        embryo.last_seen = embryo.last_seen.max(time);
        let peer = side.flip();
        let own = embryo.isn(side);
        if flags.rst() {
            let fits_seq = own.is_none_or(|isn| segment.seq.0 == isn.wrapping_add(1) || segment.seq.0 == isn);
            let fits_ack = flags.ack()
                && embryo.isn(peer).is_some_and(|isn| {
                    let acked = segment.ack.0.wrapping_sub(isn);
                    acked >= 1
                        && acked <= 1 + embryo.early.as_ref().map_or(0, |e| e.bytes.len() as u32 + e.cut)
                });
            count_reset_payload(&mut self.core, segment);
            if fits_ack || (fits_seq && !(own.is_none() && flags.ack())) {
                self.remove_embryo(id);
                self.core.counters.flows_closed_rst_total += 1;
            } else {
                self.core.counters.resets_out_of_window_total += 1;
            }
            return;
        }
        if flags.syn() && !flags.ack() {
            match own {
                Some(isn) if isn == segment.seq.0 => self.core.counters.syns_repeated_total += 1,
                // The server answered the first one already, and will not take another.
                Some(_) if embryo.isn(peer).is_some() => self.core.counters.syns_doubted_total += 1,
                _ => {
                    embryo.set_isn(side, segment.seq.0);
                    let early = embryo.early.take();
                    self.drop_early(early);
                }
            }
            self.keep_early(id, segment);
            return;
        }
        if flags.syn() {
            let repeated = own == Some(segment.seq.0);
            embryo.set_isn(side, segment.seq.0);
            let acked_isn = segment.ack.0.wrapping_sub(1);
            let client_isn = embryo.isn(peer);
            let early_len = embryo.early.as_ref().map_or(0, |e| e.bytes.len() as u32 + e.cut);
            let taken = client_isn.is_some_and(|isn| {
                early_len > 0 && segment.ack.0 == isn.wrapping_add(1).wrapping_add(early_len)
            });
            if !taken {
                // The server's word on which SYN it took, and that it refused the SYN's payload.
                embryo.set_isn(peer, acked_isn);
                let early = embryo.early.take();
                self.drop_early(early);
            }
            self.core.counters.syns_repeated_total += u64::from(repeated);
            if segment.payload_len == 0 {
                self.core.counters.segments_empty_total += 1;
                return;
            }
        } else if segment.payload_len == 0 && !flags.fin() {
            // Only an ACK that completes this handshake buys a place among the connections.
            let fits = match own {
                Some(isn) => {
                    let ahead = i64::from(segment.seq.0.wrapping_sub(isn.wrapping_add(1)) as i32);
                    (0..=i64::from(self.core.limits.window_ahead_max)).contains(&ahead)
                }
                None => true,
            };
            if !fits {
                self.core.counters.segments_stray_total += 1;
                self.core.counters.segments_empty_total += 1;
                return;
            }
        }
        self.promote(id, hash, segment, sink);
    }

    /// Keeps the payload of a SYN until the handshake decides, if there is room.
    fn keep_early(&mut self, id: u32, segment: &TcpSegment<'_>) {
        let core = &mut self.core;
        if segment.payload.is_empty() {
            core.counters.segments_empty_total += 1;
            return;
        }
        let Some(embryo) = self.embryos.get_mut(id) else { return };
        let bytes = segment.payload.len() as u64;
        let full = core.held_bytes + bytes + (core.held_segments + 1) * SEGMENT_OVERHEAD;
        let ours = embryo.info.client_side == segment.side && embryo.isn(segment.side) == Some(segment.seq.0);
        if embryo.early.is_some() && ours {
            core.counters.segments_duplicate_total += 1;
            core.counters.bytes_duplicate_total += bytes;
        } else if full > core.limits.held_bytes_max || !ours {
            count_syn_payload(core, segment);
        } else {
            core.counters.segments_held_total += 1;
            core.held_bytes += bytes;
            core.held_segments += 1;
            embryo.early = Some(Box::new(Early {
                bytes: segment.payload.to_vec(),
                cut: cut_of(segment),
                seen: segment.time,
            }));
        }
    }

    /// Makes a connection of an embryo and gives it the segment.
    fn promote(&mut self, id: u32, hash: u32, segment: &TcpSegment<'_>, sink: &mut S) {
        let Some(embryo) = self.embryos.get_mut(id) else { return };
        let early = embryo.early.take();
        let mut conn = Conn::new(embryo.info, hash);
        conn.last_seen = embryo.last_seen;
        for side in [Side::Low, Side::High] {
            if let Some(isn) = embryo.isn(side) {
                *conn.dir_mut(side) = Dir::based(isn.wrapping_add(1), 0);
            }
        }
        let window = i64::from(self.core.limits.window_ahead_max);
        let own = conn.dir_mut(segment.side);
        let ahead = i64::from(own.ahead(segment.seq.0.wrapping_add(u32::from(segment.flags.syn()))));
        if own.flags != 0 && early.is_none() && !(-window..=window).contains(&ahead) {
            // The handshake was another connection's; its data says where it is.
            *own = Dir::new();
            conn.info.midstream = true;
        }
        let early = self.release_early(early);
        self.remove_embryo(id);
        let client_side = conn.info.client_side;
        let Some(id) = self.add_conn(conn, segment.time, sink) else { return };
        if let Some(early) = early
            && let Some(conn) = self.conns.get_mut(id)
        {
            let run = Run {
                seq: conn.dir(client_side).next,
                bytes: &early.bytes,
                cut: early.cut,
                fin: false,
                ack: None,
                seen: early.seen,
            };
            // It was counted as held; from here on it counts as whatever becomes of it now.
            self.core.counters.segments_held_total -= 1;
            Assembly { core: &mut self.core, sink, conn, id }.accept(client_side, &run);
        }
        self.segment_of_conn(id, hash, segment, sink);
    }

    // Flows not in the table.

    /// Opens a flow where the segment is worth one. `client_side` is given where an earlier flow knew it.
    fn segment_of_nobody(
        &mut self,
        hash: u32,
        segment: &TcpSegment<'_>,
        client_side: Option<Side>,
        sink: &mut S,
    ) {
        let flags = segment.flags;
        if flags.rst() {
            self.core.counters.segments_stray_total += 1;
            count_reset_payload(&mut self.core, segment);
        } else if flags.syn() {
            self.open_embryo(hash, segment, sink);
        } else if segment.payload_len == 0 {
            self.core.counters.segments_stray_total += 1;
            self.core.counters.segments_empty_total += 1;
        } else {
            let client_side = client_side.unwrap_or_else(|| guess_client(segment));
            let info = FlowInfo {
                key: segment.key,
                client_side,
                opened: segment.time,
                midstream: true,
                envelope: segment.envelope,
            };
            self.core.counters.flows_opened_total += 1;
            self.core.counters.flows_midstream_total += 1;
            if let Some(id) = self.add_conn(Conn::new(info, hash), segment.time, sink) {
                self.segment_of_conn(id, hash, segment, sink);
            }
        }
    }

    fn open_embryo(&mut self, hash: u32, segment: &TcpSegment<'_>, sink: &mut S) {
        let limits = &self.core.limits;
        let table_full = self.flows_open() >= u64::from(limits.flows_max);
        if self.opening.len() >= limits.embryonic_flows_max || table_full {
            if let Some(oldest) = self.opening.first() {
                self.remove_embryo(oldest);
                self.core.counters.flows_closed_evicted_embryonic_total += 1;
            } else {
                // A SYN is worth less than any connection. If data follows, that opens the flow.
                self.core.counters.syns_refused_total += 1;
                if segment.payload.is_empty() {
                    self.core.counters.segments_empty_total += 1;
                } else {
                    count_syn_payload(&mut self.core, segment);
                }
                return;
            }
        }
        let answer = segment.flags.ack();
        let side = segment.side;
        let client_side = if answer { side.flip() } else { side };
        let info = FlowInfo {
            key: segment.key,
            client_side,
            opened: segment.time,
            midstream: false,
            envelope: segment.envelope,
        };
        let mut embryo = Embryo {
            info,
            last_seen: segment.time,
            seqs: [0; 2],
            links: Links::OUT,
            hash,
            phase: Phase::Opening { known: [false; 2] },
            early: None,
        };
        embryo.set_isn(side, segment.seq.0);
        if answer {
            embryo.set_isn(client_side, segment.ack.0.wrapping_sub(1));
        }
        let deadline = self.embryo_deadline(&embryo);
        let id = self.embryos.insert(embryo);
        self.opening.insert(&mut self.embryos, id, deadline);
        self.index_insert(hash, id);
        self.core.counters.flows_opened_total += 1;
        if !answer {
            self.keep_early(id, segment);
        } else if segment.payload_len == 0 {
            self.core.counters.segments_empty_total += 1;
        } else {
            self.promote(id, hash, segment, sink);
        }
    }

    /// Opens the flow of a handshake that took over the 5-tuple, with the segment that confirmed it.
    fn succeed(&mut self, hash: u32, segment: &TcpSegment<'_>, doubt: Doubt, sink: &mut S) {
        if self.opening.len() >= self.core.limits.embryonic_flows_max.max(1)
            && let Some(oldest) = self.opening.first()
        {
            self.remove_embryo(oldest);
            self.core.counters.flows_closed_evicted_embryonic_total += 1;
        }
        let info = FlowInfo {
            key: segment.key,
            client_side: doubt.client_side,
            opened: doubt.at,
            midstream: false,
            envelope: segment.envelope,
        };
        let mut embryo = Embryo {
            info,
            last_seen: segment.time,
            seqs: [0; 2],
            links: Links::OUT,
            hash,
            phase: Phase::Opening { known: [false; 2] },
            early: None,
        };
        embryo.set_isn(doubt.client_side, doubt.client_isn);
        if let Some(isn) = doubt.server_isn {
            embryo.set_isn(doubt.client_side.flip(), isn);
        }
        let deadline = self.embryo_deadline(&embryo);
        let id = self.embryos.insert(embryo);
        self.opening.insert(&mut self.embryos, id, deadline);
        self.index_insert(hash, id);
        self.core.counters.flows_opened_total += 1;
        self.segment_while_opening(id, hash, segment, sink);
    }

    /// Adds a connection that is counted as opened already, making room where needed.
    fn add_conn(&mut self, conn: Conn<S::Flow>, now: Timestamp, sink: &mut S) -> Option<u32> {
        while self.flows_open() >= u64::from(self.core.limits.flows_max.max(1)) {
            if !self.evict(now, sink) {
                break;
            }
        }
        let hash = conn.hash;
        let deadline = conn.deadline(&self.core.limits);
        let id = self.conns.insert(conn);
        if let Some(conn) = self.conns.get_mut(id) {
            conn.queued = deadline;
        }
        self.unproven.insert(&mut self.conns, id, deadline);
        self.index_insert(hash, id | CONN);
        Some(id)
    }

    /// Evicts the flow that is worth least; false where there is none.
    #[cold]
    fn evict(&mut self, now: Timestamp, sink: &mut S) -> bool {
        if let Some(oldest) = self.opening.first() {
            self.remove_embryo(oldest);
            self.core.counters.flows_closed_evicted_embryonic_total += 1;
            return true;
        }
        for proven in [false, true] {
            let wheel = if proven { &mut self.proven } else { &mut self.unproven };
            while let Some(id) = wheel.first() {
                let Some(conn) = self.conns.get_mut(id) else { return false };
                let deadline = conn.deadline(&self.core.limits);
                if deadline > conn.queued {
                    // It was active since it was queued, and is not the least recent one after all.
                    conn.queued = deadline;
                    wheel.remove(&mut self.conns, id);
                    wheel.insert(&mut self.conns, id, deadline);
                    continue;
                }
                self.close_conn(id, EndReason::Evicted, now, sink);
                let counters = &mut self.core.counters;
                if proven {
                    counters.flows_closed_evicted_total += 1;
                } else {
                    counters.flows_closed_evicted_unproven_total += 1;
                }
                return true;
            }
        }
        false
    }
}

/// What a segment with SYN, or of a flow in doubt, means for the flow it falls on.
enum Handshake {
    /// Nothing.
    No,
    /// The flow's own, seen again.
    Repeated,
    /// It contradicts the flow; remembered, and otherwise ignored.
    Doubted,
    /// The segment confirms a doubted connection, which has the 5-tuple now.
    Successor(Doubt),
}

/// A client can send a SYN into its own live connection, which its server ignores. So a contradicting SYN
/// replaces a live flow only when another segment confirms it: of the server, where that is seen, a SYN+ACK or an
/// acknowledgement of what only the new connection can have sent; else data where it said.
fn examine_handshake<S: StreamSink>(work: &mut Assembly<'_, S>, segment: &TcpSegment<'_>) -> Handshake {
    let (side, flags, seq) = (segment.side, segment.flags, segment.seq.0);
    let doubt = work.conn.rare.as_ref().and_then(|r| r.doubt);
    if flags.rst() {
        return Handshake::No;
    }
    if !flags.syn() {
        let Some(doubt) = doubt else { return Handshake::No };
        let client = work.conn.dir(doubt.client_side);
        let begins = doubt.client_isn.wrapping_add(1);
        let confirmed = if side != doubt.client_side {
            let ack = segment.ack.0;
            let window = work.core.limits.window_ahead_max;
            flags.ack() && client.flags != 0 && client.ahead(ack) > 0 && ack.wrapping_sub(begins) <= window
        } else {
            // Of a direction that was never seen at most the other side's acknowledgements say where it is.
            let server = work.conn.dir(side.flip());
            let server_seen = server.has(SEEN) || server.flags & (BASED | SOFT) == BASED;
            seq == begins && client.ahead(seq) != 0 && !server_seen
        };
        return if confirmed { Handshake::Successor(doubt) } else { Handshake::No };
    }
    let dir = work.conn.dir(side);
    let based = dir.flags != 0;
    if based && seq.wrapping_add(1) == dir.base() {
        return Handshake::Repeated;
    }
    let fresh = if flags.ack() {
        let peer = work.conn.dir(side.flip());
        let acked = segment.ack.0;
        let mut found = Doubt {
            client_side: side.flip(),
            client_isn: acked.wrapping_sub(1),
            server_isn: Some(seq),
            at: segment.time,
        };
        if let Some(doubt) = doubt
            && doubt.client_side == found.client_side
            && doubt.client_isn == found.client_isn
        {
            found.at = doubt.at;
            return Handshake::Successor(found);
        }
        if dir.has(UNBASED) && u64::from(acked.wrapping_sub(peer.base())) <= peer.next_off {
            work.start_at(side, Some(seq.wrapping_add(1)), segment.time);
            return Handshake::No;
        }
        if peer.flags != 0 && acked == peer.base() && (!dir.has(BASED) || dir.next_off == 0 && !dir.has(SEEN))
        {
            // The flow's own SYN+ACK, late: now it is known where its direction begins.
            work.rebase(side, seq.wrapping_add(1));
            return Handshake::No;
        }
        found
    } else {
        Doubt { client_side: side, client_isn: seq, server_isn: None, at: segment.time }
    };
    work.conn.rare_mut().doubt = Some(fresh);
    Handshake::Doubted
}

fn cut_of(segment: &TcpSegment<'_>) -> u32 {
    segment.payload_len.saturating_sub(segment.payload.len() as u32)
}

fn run_of<'a>(segment: &TcpSegment<'a>) -> Run<'a> {
    Run {
        seq: segment.seq.0.wrapping_add(u32::from(segment.flags.syn())),
        bytes: segment.payload,
        cut: cut_of(segment),
        fin: segment.flags.fin(),
        ack: segment.flags.ack().then_some(segment.ack.0),
        seen: segment.time,
    }
}

/// The server is taken to own the lower port; between equal ports, to be the receiver.
fn guess_client(segment: &TcpSegment<'_>) -> Side {
    let own = segment.key.peer(segment.side).port;
    let peer = segment.key.peer(segment.side.flip()).port;
    if own >= peer { segment.side } else { segment.side.flip() }
}

/// Tells whether a SYN is the closed connection's own, seen again: a second mirrored port may be late by more than all of
/// a short connection.
///
/// A client can choose its sequence numbers, and use the old ones for a new connection. But not its server's: the SYN+ACK
/// tells, so the SYN alone is believed to be old only where the server was seen.
fn is_past_syn(
    segment: &TcpSegment<'_>,
    embryo: &Embryo,
    past: &Past,
    client_side: Side,
    window: i64,
) -> bool {
    let isn = |side: Side| embryo.seqs[side as usize].wrapping_sub(past.lens[side as usize]).wrapping_sub(1);
    let (side, peer) = (segment.side, segment.side.flip());
    if past.lens.contains(&Past::LEN_MAX) || !past.seen[client_side.flip() as usize] {
        return false;
    }
    if !segment.flags.ack() {
        return segment.seq.0 == isn(side);
    }
    // Where this side was joined after its SYN, that lies somewhere before.
    let own = isn(side).wrapping_sub(segment.seq.0);
    let own_fits = own == 0 || !past.whole[side as usize] && i64::from(own) <= window;
    own_fits && past.seen[peer as usize] && segment.ack.0.wrapping_sub(1) == isn(peer)
}

/// Accounts for the payload of a RST, which carries diagnostics at best (RFC 9293 §3.5.2).
fn count_reset_payload(core: &mut Core, segment: &TcpSegment<'_>) {
    if !segment.flags.rst() {
        return;
    }
    if segment.payload.is_empty() {
        core.counters.segments_empty_total += 1;
    } else {
        core.counters.segments_dropped_after_close_total += 1;
        core.counters.bytes_dropped_after_close_total += segment.payload.len() as u64;
    }
}

/// Accounts for a SYN whose payload, if any, is not kept.
fn count_syn_payload(core: &mut Core, segment: &TcpSegment<'_>) {
    if segment.payload.is_empty() {
        core.counters.segments_empty_total += 1;
    } else {
        core.counters.segments_dropped_syn_payload_total += 1;
        core.counters.bytes_dropped_syn_payload_total += segment.payload.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index entry is 9 bytes with its control byte, at a load between 7/16 and 7/8: at most 21 bytes.
    const INDEX_BYTES_MAX: usize = 21;

    #[test]
    fn flows_are_small() {
        let embryo = size_of::<Option<Embryo>>() + INDEX_BYTES_MAX;
        let conn = size_of::<Option<Conn<()>>>() + INDEX_BYTES_MAX;
        assert!(embryo <= 150, "{embryo}");
        assert!(conn <= 300, "{conn}");
    }
}
