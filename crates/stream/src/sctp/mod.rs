//! SCTP beside TCP (RFC 9260): puts DATA chunks in order, and gives each stream's bytes to the flow table as a flow.
//!
//! In: [`SctpPacket`]s in capture order. Out: TCP segments made for [`FlowTable`], one flow per stream id (a client's
//! stream and the server's of the same number are its two directions), always in order: SYN and SYN+ACK where the
//! association was seen from its start, then data and gaps, FIN or RST at its end. So whatever holds for flows
//! (limits, expiry, the sink's calls) is the flow table's.
//!
//! ```text
//!  packet ─▶ chunks ─▶ by TSN (Dir: one direction) ─▶ by SSN (Stream) ─▶ segment ─▶ FlowTable
//! ```
//!
//! Senders number chunks in the order of their messages, so order by TSN is order within each stream; SSN shows which
//! stream lost something where chunks were never seen, and undoes a sender that contradicts itself. TSNs count chunks, not
//! bytes: within a message a gap is as long as so many of its chunks, elsewhere as so many of the longest of its direction;
//! either is hardly ever less than what is missing, so that what follows a gap is not taken for the body before it.
//!
//! Checksums are not verified, as everywhere; verification tags are: nobody ends or feeds an association without them.

mod association;
mod chunks;
mod counters;
mod fuzz;
#[cfg(test)]
mod tests;
mod work;

use std::collections::HashMap;

use offpath_packet::SctpPacket;
use offpath_types::{FlowKey, Timestamp};

use self::association::{Association, Dir, Pending};
use self::chunks::{Chunk, Chunks};
pub use self::counters::SctpCounters;
#[doc(hidden)]
pub use self::fuzz::fuzz_sctp_packets;
use self::work::Work;
use crate::slab::Slab;
use crate::wheel::Wheel;
use crate::{FlowTable, StreamLimits, StreamSink};

/// As the flow table's timers tick.
const TICK_SHIFT: u32 = 30;

/// Why an association leaves the table.
#[derive(Clone, Copy)]
enum Leave {
    Closed,
    Expired,
    Evicted,
    CaptureEnd,
}

/// All SCTP associations of one shard; stands beside its flow table.
///
/// Time is the packets'; what is given to the flow table does not depend on how often [`SctpTable::advance`] is
/// called, as with [`FlowTable`].
// Invariants: every entry of `index` leads to an association and back; each stands in the wheel at `queued`, which is
// never after it is due.
pub struct SctpTable {
    limits: StreamLimits,
    counters: SctpCounters,
    index: HashMap<FlowKey, u32>,
    associations: Slab<Association>,
    wheel: Wheel,
    /// What chunks held take, with their bookkeeping.
    held_cost: u64,
    clock: Timestamp,
}

impl SctpTable {
    /// Makes an empty table; it owns next to no memory until associations come.
    pub fn new(limits: StreamLimits) -> Self {
        Self {
            limits,
            counters: SctpCounters::default(),
            index: HashMap::new(),
            associations: Slab::new(),
            wheel: Wheel::new(TICK_SHIFT),
            held_cost: 0,
            clock: Timestamp::ZERO,
        }
    }

    /// Takes one packet, in capture order. `hash` is its key's, by the seed of `table`.
    pub fn packet<S: StreamSink>(
        &mut self,
        hash: u64,
        packet: &SctpPacket<'_>,
        table: &mut FlowTable<S>,
        sink: &mut S,
    ) {
        if packet.time.as_nanos() >> TICK_SHIFT > self.clock.as_nanos() >> TICK_SHIFT {
            self.advance(packet.time, table, sink);
        }
        self.counters.packets_total += 1;
        self.counters.packet_bytes_total += packet.payload.len() as u64;
        let Some(id) = self.association_of(hash, packet, table, sink) else {
            self.counters.packets_stray_total += 1;
            return;
        };
        let Some(mut work) = self.work(id, table, sink) else { return };
        work.give_up_due(packet.time);
        if let Some(successor) = work.take(packet) {
            work.flush(packet.time);
            work.end(Some(packet.side), packet.time);
            self.remove(id, Leave::Closed);
            let id = self.open(successor);
            self.counters.associations_midstream_total += u64::from(self.is_midstream(id));
            if let Some(mut work) = self.work(id, table, sink) {
                work.take(packet);
            }
            self.queue(id);
            return;
        }
        self.queue(id);
    }

    /// Moves packet time on without a packet, as [`FlowTable::advance`] does; to be called before that.
    pub fn advance<S: StreamSink>(&mut self, now: Timestamp, table: &mut FlowTable<S>, sink: &mut S) {
        if now <= self.clock {
            return;
        }
        self.clock = now;
        while let Some(id) = self.wheel.pop_before(&mut self.associations, now) {
            let Some(mut work) = self.work(id, table, sink) else { continue };
            let deadline = work.association.deadline(work.limits);
            work.give_up_due(now.min(deadline));
            if deadline > now {
                work.association.queued = Timestamp::MAX;
                self.queue(id);
                continue;
            }
            work.flush(deadline);
            self.remove(id, Leave::Expired);
        }
    }

    /// Gives what is held to the flow table and forgets all associations; to be called before [`FlowTable::finish`].
    pub fn finish<S: StreamSink>(&mut self, table: &mut FlowTable<S>, sink: &mut S) {
        let now = self.clock;
        for id in 0..self.associations.high() {
            if let Some(mut work) = self.work(id, table, sink) {
                work.flush(now);
                self.remove(id, Leave::CaptureEnd);
            }
        }
    }

    /// Returns the counts.
    pub fn counters(&self) -> &SctpCounters {
        &self.counters
    }

    fn is_midstream(&self, id: u32) -> bool {
        self.associations.get(id).is_some_and(|association| association.client.is_none())
    }

    fn work<'a, S: StreamSink>(
        &'a mut self,
        id: u32,
        table: &'a mut FlowTable<S>,
        sink: &'a mut S,
    ) -> Option<Work<'a, S>> {
        let association = self.associations.get_mut(id)?;
        let (limits, counters) = (&self.limits, &mut self.counters);
        Some(Work { limits, counters, held_cost: &mut self.held_cost, table, sink, association })
    }

    /// Finds or opens the association of a packet.
    fn association_of<S: StreamSink>(
        &mut self,
        hash: u64,
        packet: &SctpPacket<'_>,
        table: &mut FlowTable<S>,
        sink: &mut S,
    ) -> Option<u32> {
        let first = Chunks::new(packet.payload, packet.payload_len).next()?.ok()?;
        let opens = matches!(first, Chunk::Init { answer: false, .. });
        if let Some(&id) = self.index.get(&packet.key) {
            let association = self.associations.get(id)?;
            let deadline = association.deadline(&self.limits);
            let expired = deadline <= packet.time && association.last_seen < packet.time;
            if !(expired || association.over && opens) {
                return Some(id);
            }
            let (at, why) = if expired { (deadline, Leave::Expired) } else { (packet.time, Leave::Closed) };
            let mut work = self.work(id, table, sink)?;
            work.give_up_due(at);
            work.flush(at);
            self.remove(id, why);
        }
        let association = match first {
            Chunk::Init { answer: false, tag, tsn } if packet.tag == 0 => {
                let pending = Pending { client: packet.side, tag, tsn, answer: None };
                Association::of_handshake(packet, hash, &pending)
            }
            Chunk::Init { answer: true, .. } => {
                // Its packet's tag is that of the INIT; the rest is read below.
                let mut dirs = [Dir::default(), Dir::default()];
                dirs[packet.side as usize].tag = Some(packet.tag);
                Association::new(packet, hash, Some(packet.side.flip()), dirs)
            }
            _ => {
                let mut chunks = Chunks::new(packet.payload, packet.payload_len);
                if !chunks.any(|chunk| matches!(chunk, Ok(Chunk::Data { .. }))) {
                    return None;
                }
                self.counters.associations_midstream_total += 1;
                Association::new(packet, hash, None, [Dir::default(), Dir::default()])
            }
        };
        while self.associations.len() >= self.limits.sctp_associations_max.max(1) {
            if !self.evict(packet.time, table, sink) {
                break;
            }
        }
        Some(self.open(association))
    }

    fn open(&mut self, association: Association) -> u32 {
        let key = association.key;
        self.counters.associations_total += 1;
        self.counters.associations_held += 1;
        let id = self.associations.insert(association);
        self.index.insert(key, id);
        self.queue(id);
        id
    }

    /// Moves an association to where the wheel wants it, unless it stands early enough.
    fn queue(&mut self, id: u32) {
        let Some(association) = self.associations.get_mut(id) else { return };
        let due = association.due(&self.limits);
        if due < association.queued {
            association.queued = due;
            self.wheel.remove(&mut self.associations, id);
            self.wheel.insert(&mut self.associations, id, due);
        }
    }

    /// Evicts the association whose deadline is the nearest; false where there is none.
    #[cold]
    fn evict<S: StreamSink>(&mut self, now: Timestamp, table: &mut FlowTable<S>, sink: &mut S) -> bool {
        while let Some(id) = self.wheel.first() {
            let Some(association) = self.associations.get_mut(id) else { return false };
            if association.due(&self.limits) > association.queued {
                // It was active since it was queued.
                association.queued = Timestamp::MAX;
                self.queue(id);
                continue;
            }
            if let Some(mut work) = self.work(id, table, sink) {
                work.flush(now);
                // What may follow begins anew.
                work.end(None, now);
            }
            self.remove(id, Leave::Evicted);
            return true;
        }
        false
    }

    fn remove(&mut self, id: u32, why: Leave) {
        self.wheel.remove(&mut self.associations, id);
        let Some(association) = self.associations.remove(id) else { return };
        debug_assert!(association.dirs.iter().all(|dir| dir.held_bytes == 0), "it was flushed");
        self.index.remove(&association.key);
        let counters = &mut self.counters;
        counters.associations_held -= 1;
        *match why {
            Leave::Evicted => &mut counters.associations_evicted_total,
            _ if association.over => &mut counters.associations_closed_total,
            Leave::Closed => &mut counters.associations_closed_total,
            Leave::Expired => &mut counters.associations_expired_total,
            Leave::CaptureEnd => &mut counters.associations_capture_end_total,
        } += 1;
    }
}
