//! One association at work: packets in, segments of its streams out.

use offpath_packet::{SctpPacket, SeqNum, TcpFlags, TcpSegment};
use offpath_types::{Side, Timestamp};

use super::SctpCounters;
use super::association::{Association, Dir, Half, Held, Pending, Stream};
use super::chunks::{Chunk, Chunks, Place};
use crate::hold::SEGMENT_OVERHEAD;
use crate::{FlowTable, StreamLimits, StreamSink};

/// Furthest believable chunk after the next one.
const AHEAD_MAX: i32 = 1 << 16;
/// Furthest believable acknowledgement after the next chunk.
const ACK_AHEAD_MAX: i32 = 1 << 20;
/// Consecutive packets or chunks that make an association believable whose other side was never seen.
const RUN: u8 = 3;

/// One association at work.
pub(super) struct Work<'a, S: StreamSink> {
    pub(super) limits: &'a StreamLimits,
    pub(super) counters: &'a mut SctpCounters,
    pub(super) held_cost: &'a mut u64,
    pub(super) table: &'a mut FlowTable<S>,
    pub(super) sink: &'a mut S,
    pub(super) association: &'a mut Association,
}

impl<S: StreamSink> Work<'_, S> {
    /// Takes a packet, or returns the association that it shows to have taken this one's place.
    pub(super) fn take(&mut self, packet: &SctpPacket<'_>) -> Option<Association> {
        let (side, now) = (packet.side, packet.time);
        let mut chunks = Chunks::new(packet.payload, packet.payload_len).peekable();
        let a = &mut *self.association;
        match chunks.peek() {
            // INIT stands alone (RFC 9260 §3.3.2).
            Some(&Ok(Chunk::Init { answer: false, tag, tsn })) if packet.tag == 0 => {
                let known = a.client == Some(side) && a.dirs[side.flip() as usize].tag == Some(tag);
                if !known {
                    // Anybody can send one; the association is replaced once the server shows that it took it.
                    a.pending = Some(Pending { client: side, tag, tsn, answer: None });
                }
                a.last_seen = a.last_seen.max(now);
                self.counters.packets_taken_total += 1;
                return None;
            }
            Some(&Ok(Chunk::Init { answer: true, tag, tsn })) => {
                self.take_answer(packet, tag, tsn);
                return None;
            }
            _ => {}
        }
        let dir = &a.dirs[side as usize];
        let reflected = matches!(
            chunks.peek(),
            Some(Ok(Chunk::Abort { reflected: true } | Chunk::ShutdownComplete { reflected: true }))
        );
        let tag = if reflected { a.dirs[side.flip() as usize].tag } else { dir.tag };
        match tag {
            Some(tag) if tag == packet.tag => {}
            // A forged ABORT says nothing about whose tag it has.
            None if !matches!(chunks.peek(), Some(Ok(Chunk::Abort { .. }))) && !reflected => {
                a.dirs[side as usize].tag = Some(packet.tag);
            }
            _ => return self.take_strange(packet),
        }
        a.strange = None;
        a.dirs[side as usize].seen = true;
        a.last_seen = a.last_seen.max(now);
        self.counters.packets_taken_total += 1;
        for chunk in chunks {
            let Ok(chunk) = chunk else {
                self.counters.packets_malformed_total += 1;
                break;
            };
            self.take_chunk(side, &chunk, now);
        }
        self.count_evidence(now);
        None
    }

    /// Takes an INIT ACK: the server's, who may answer an INIT that was repeated once more, and otherwise.
    fn take_answer(&mut self, packet: &SctpPacket<'_>, tag: u32, tsn: u32) {
        let a = &mut *self.association;
        let (server, client) = (packet.side as usize, packet.side.flip());
        if a.client == Some(client) && a.dirs[server].tag == Some(packet.tag) {
            if !a.dirs[client as usize].seen {
                let first = a.dirs[client as usize].tag.is_none_or(|known| known == tag);
                // Of two answers nobody knows which one the client takes: its packets and the server's will say.
                a.dirs[client as usize].tag = first.then_some(tag);
                a.dirs[server].next = first.then_some(tsn);
            }
        } else if let Some(pending) = &mut a.pending
            && pending.client == client
            && pending.tag == packet.tag
        {
            pending.answer = Some((tag, tsn));
        } else {
            self.counters.packets_wrong_tag_total += 1;
            return;
        }
        a.last_seen = a.last_seen.max(packet.time);
        self.counters.packets_taken_total += 1;
    }

    /// Takes a packet whose tag is not the association's: of its successor, where it has one.
    fn take_strange(&mut self, packet: &SctpPacket<'_>) -> Option<Association> {
        let a = &mut *self.association;
        let hash = a.hash;
        if let Some(pending) = a.pending
            && pending.client != packet.side
            && pending.tag == packet.tag
        {
            // Only who took the client's cookie sends with that tag.
            return Some(Association::of_handshake(packet, hash, &pending));
        }
        // Whom nobody can contradict, or who is the server, is believed who goes on with a tag.
        let peer_seen = a.dirs[packet.side.flip() as usize].seen;
        if a.is_server(packet.side) || !peer_seen {
            let count = match a.strange {
                Some((side, tag, count)) if (side, tag) == (packet.side, packet.tag) => count + 1,
                _ => 1,
            };
            a.strange = Some((packet.side, packet.tag, count));
            if count >= RUN {
                return Some(Association::new(packet, hash, None, [Dir::default(), Dir::default()]));
            }
        }
        self.counters.packets_wrong_tag_total += 1;
        None
    }

    fn take_chunk(&mut self, side: Side, chunk: &Chunk<'_>, now: Timestamp) {
        match *chunk {
            Chunk::Data { tsn, place, bytes } => self.data(side, tsn, place, bytes, now),
            Chunk::Sack { cumulative } => self.acknowledge(side, cumulative, now),
            Chunk::Shutdown { cumulative } => {
                self.acknowledge(side, cumulative, now);
                self.association.dirs[side as usize].shutdown = true;
            }
            // Both sides have everything. Without the other's SHUTDOWN nobody believes it (RFC 9260 §9.2), and of a
            // SHUTDOWN COMPLETE only who has sent a SHUTDOWN ACK, which has ended it already.
            Chunk::ShutdownAck | Chunk::ShutdownComplete { .. } => {
                let peer = &self.association.dirs[side.flip() as usize];
                if !peer.seen || peer.shutdown && matches!(chunk, Chunk::ShutdownAck) {
                    self.flush(now);
                    self.end(None, now);
                }
            }
            Chunk::Abort { .. } => {
                self.flush(now);
                self.end(Some(side), now);
            }
            // Streams may begin at SSN 0 again: nothing is lost, but what they go on with is taken as it comes.
            Chunk::Reconfig => self.association.dirs.iter_mut().for_each(|dir| dir.holes += 1),
            Chunk::Init { .. } | Chunk::Other => {}
        }
    }

    /// Takes a chunk with user data.
    fn data(&mut self, side: Side, tsn: u32, place: Place, bytes: &[u8], now: Timestamp) {
        let len = bytes.len() as u64;
        self.counters.data_chunks_total += 1;
        self.counters.data_bytes_total += len;
        if self.association.over {
            self.counters.chunks_dropped_after_close_total += 1;
            self.counters.bytes_dropped_total += len;
            return;
        }
        let peer_seen = self.association.dirs[side.flip() as usize].seen;
        let dir = &mut self.association.dirs[side as usize];
        dir.chunk_max = dir.chunk_max.max(len + u64::from(place.cut));
        let ahead = tsn.wrapping_sub(*dir.next.get_or_insert(tsn)) as i32;
        if ahead > AHEAD_MAX {
            let run = if dir.far.0 == tsn { dir.far.1.saturating_add(1) } else { 1 };
            dir.far = (tsn.wrapping_add(1), run);
            if peer_seen || run < RUN {
                self.counters.chunks_dropped_out_of_window_total += 1;
                self.counters.bytes_dropped_total += len;
                return;
            }
            dir.far = (0, 0);
            let target = dir.next_off + ahead as u64;
            self.give_up_before(side, target, now);
            return self.data_at(side, target, place, bytes, now);
        }
        if ahead < 0 {
            self.counters.chunks_old_total += 1;
            self.counters.bytes_dropped_total += len;
            return;
        }
        let offset = dir.next_off + ahead as u64;
        self.data_at(side, offset, place, bytes, now);
    }

    /// Takes a chunk at or after the next one.
    fn data_at(&mut self, side: Side, offset: u64, place: Place, bytes: &[u8], now: Timestamp) {
        let dir = &mut self.association.dirs[side as usize];
        if offset == dir.next_off {
            self.next(side);
            self.deliver(side, offset, place, bytes, now);
            self.drain(side, now);
            let dir = &mut self.association.dirs[side as usize];
            // The sender goes on before the hole, so it is no older than this.
            dir.hole_since = (!dir.held.is_empty()).then_some(now);
            dir.asked = false;
            self.restore_bound(side, now);
        } else if let Some(held) = dir.held.get(&offset) {
            self.counters.chunks_conflicting_total += u64::from(held.bytes != bytes || held.place != place);
            self.counters.chunks_old_total += 1;
            self.counters.bytes_dropped_total += bytes.len() as u64;
        } else {
            dir.held.insert(offset, Held { place, bytes: bytes.to_vec(), seen: now });
            dir.hole_since.get_or_insert(now);
            self.count_held(side, bytes.len());
            self.restore_bound(side, now);
        }
    }

    fn next(&mut self, side: Side) {
        let dir = &mut self.association.dirs[side as usize];
        dir.next = dir.next.map(|next| next.wrapping_add(1));
        dir.next_off += 1;
    }

    fn count_held(&mut self, side: Side, len: usize) {
        self.association.dirs[side as usize].held_bytes += len as u64;
        *self.held_cost += len as u64 + SEGMENT_OVERHEAD;
        self.counters.chunks_held += 1;
        self.counters.bytes_held += len as u64;
    }

    /// Takes a chunk off the books of what is held.
    fn release(&mut self, side: Side, len: usize) {
        self.association.dirs[side as usize].held_bytes -= len as u64;
        *self.held_cost -= len as u64 + SEGMENT_OVERHEAD;
        self.counters.chunks_held -= 1;
        self.counters.bytes_held -= len as u64;
    }

    /// Brings what a direction holds back under its limits, and what the table holds.
    fn restore_bound(&mut self, side: Side, now: Timestamp) {
        loop {
            let dir = &mut self.association.dirs[side as usize];
            let chunks = dir.held.len() + dir.parked.len();
            let full = chunks > self.limits.held_segments_per_direction_max as usize
                || dir.held_bytes > u64::from(self.limits.held_bytes_per_direction_max)
                || *self.held_cost > self.limits.sctp_held_bytes_max;
            if !full || chunks == 0 {
                return;
            }
            if dir.is_asked_for_in_vain()
                && let Some((_, last)) = dir.held.pop_last()
            {
                if dir.held.is_empty() {
                    dir.hole_since = None;
                }
                self.drop_unacknowledged(side, &last);
            } else if dir.held.is_empty() {
                self.unpark_all(side, now);
            } else {
                self.give_up_first(side, now);
            }
        }
    }

    fn drop_unacknowledged(&mut self, side: Side, held: &Held) {
        self.release(side, held.bytes.len());
        self.counters.chunks_dropped_unacknowledged_total += 1;
        self.counters.bytes_dropped_total += held.bytes.len() as u64;
    }

    /// Takes what `acker` says to have got of the other side.
    fn acknowledge(&mut self, acker: Side, cumulative: u32, now: Timestamp) {
        let believed =
            self.association.is_server(acker) || !self.association.dirs[acker.flip() as usize].seen;
        let dir = &mut self.association.dirs[acker.flip() as usize];
        let Some(next) = dir.next else { return };
        let ahead = cumulative.wrapping_add(1).wrapping_sub(next) as i32;
        if ahead > ACK_AHEAD_MAX {
            self.counters.sacks_out_of_window_total += 1;
        } else if ahead > 0 {
            let upto = dir.next_off + ahead as u64;
            // A client can acknowledge what its server has yet to send: of that counts what was seen behind the hole.
            let behind = dir.held.last_key_value().map_or(dir.next_off, |(offset, _)| *offset);
            let upto = if believed { upto } else { upto.min(behind) };
            if dir.acked <= dir.next_off {
                (dir.acked_at, dir.evidence) = (now, 0);
            }
            dir.acked = dir.acked.max(upto);
        } else if ahead == 0 {
            dir.asked |= dir.hole_since.is_some();
        }
    }

    /// Counts a packet as evidence that what was acknowledged and not seen will not come.
    fn count_evidence(&mut self, now: Timestamp) {
        for side in [Side::Low, Side::High] {
            let dir = &mut self.association.dirs[side as usize];
            if dir.acked <= dir.next_off {
                continue;
            }
            dir.evidence = dir.evidence.saturating_add(1);
            let waited = now.nanos_since(dir.acked_at);
            // The acknowledgement's own packet is the first.
            if dir.evidence > self.limits.hole_acked_segments && waited >= self.limits.hole_acked_min_nanos {
                let acked = dir.acked;
                self.give_up_before(side, acked, now);
            }
        }
    }

    /// Gives up every hole that was due by `now`, as of when it was.
    pub(super) fn give_up_due(&mut self, now: Timestamp) {
        for side in [Side::Low, Side::High] {
            while let Some(due) =
                self.association.dirs[side as usize].due(self.limits).filter(|due| *due <= now)
            {
                let dir = &mut self.association.dirs[side as usize];
                if dir.parked_due(self.limits) == Some(due) {
                    self.unpark_all(side, due);
                } else if dir.is_asked_for_in_vain() {
                    // The receiver has not taken what is behind the hole.
                    (dir.hole_since, dir.asked) = (None, false);
                    for held in std::mem::take(&mut dir.held).into_values() {
                        self.drop_unacknowledged(side, &held);
                    }
                } else {
                    self.give_up_first(side, due);
                }
            }
        }
    }

    /// Gives up every hole before `target`.
    fn give_up_before(&mut self, side: Side, target: u64, now: Timestamp) {
        loop {
            let dir = &self.association.dirs[side as usize];
            if dir.next_off >= target {
                return;
            }
            let first = dir.held.first_key_value().map_or(target, |(offset, _)| *offset);
            self.jump(side, first.min(target), now);
        }
    }

    /// Gives up the first hole.
    fn give_up_first(&mut self, side: Side, now: Timestamp) {
        let dir = &self.association.dirs[side as usize];
        let acked = (dir.acked > dir.next_off).then_some(dir.acked);
        let held = dir.held.first_key_value().map(|(offset, _)| *offset);
        if let Some(target) = acked.into_iter().chain(held).min() {
            self.jump(side, target, now);
        }
    }

    /// Gives up all holes of both sides, and what waits for a message.
    pub(super) fn flush(&mut self, now: Timestamp) {
        for side in [Side::Low, Side::High] {
            while let Some((&offset, _)) = self.association.dirs[side as usize].held.first_key_value() {
                self.jump(side, offset, now);
            }
            self.unpark_all(side, now);
        }
    }

    /// Goes on at `target`, before which nothing is held: the chunks up to it are missing.
    fn jump(&mut self, side: Side, target: u64, now: Timestamp) {
        let dir = &mut self.association.dirs[side as usize];
        let missing = target - dir.next_off;
        dir.next = dir.next.map(|next| next.wrapping_add(missing as u32));
        dir.next_off = target;
        dir.holes += 1;
        dir.missing = missing;
        self.counters.holes_total += 1;
        self.counters.chunks_missing_total += missing;
        self.unpark_all(side, now);
        if let Some((id, len)) = self.association.dirs[side as usize].open.take()
            && let Ok(at) = self.association.streams.binary_search_by_key(&id, |stream| stream.id)
        {
            // All chunks of a message but the last are equally long.
            self.gap(at, side, len, now);
        }
        self.drain(side, now);
        let dir = &mut self.association.dirs[side as usize];
        dir.hole_since = dir.held.first_key_value().map(|(_, held)| held.seen);
        dir.asked = false;
    }

    /// Delivers what is held and has become the next.
    fn drain(&mut self, side: Side, now: Timestamp) {
        loop {
            let dir = &mut self.association.dirs[side as usize];
            let next_off = dir.next_off;
            let Some(entry) = dir.held.first_entry().filter(|entry| *entry.key() == next_off) else {
                return;
            };
            let held = entry.remove();
            self.release(side, held.bytes.len());
            self.next(side);
            self.deliver(side, next_off, held.place, &held.bytes, now);
        }
    }

    /// Takes the next chunk of a direction to its stream.
    fn deliver(&mut self, side: Side, offset: u64, place: Place, bytes: &[u8], now: Timestamp) {
        let len = bytes.len() as u64 + u64::from(place.cut);
        self.association.dirs[side as usize].open = (!place.ends).then_some((place.stream, len));
        let Some(at) = self.stream(place.stream, now) else {
            self.counters.chunks_dropped_streams_full_total += 1;
            self.counters.bytes_dropped_total += bytes.len() as u64;
            return;
        };
        self.deliver_to(at, side, offset, place, bytes, now, false);
        if !place.ends || place.unordered {
            return;
        }
        // What waited for this message goes after it.
        loop {
            let Some(ssn) = self.association.streams[at].halves[side as usize].ssn else { return };
            let parked = &mut self.association.dirs[side as usize].parked;
            let next = parked.range((place.stream, ssn, 0)..=(place.stream, ssn, u64::MAX)).next();
            let Some(key) = next.map(|(key, _)| *key) else { return };
            let Some(held) = parked.remove(&key) else { return };
            self.unparked(side, held.bytes.len());
            self.deliver_to(at, side, key.2, held.place, &held.bytes, now, false);
        }
    }

    fn unparked(&mut self, side: Side, len: usize) {
        let dir = &mut self.association.dirs[side as usize];
        if dir.parked.is_empty() {
            dir.parked_since = None;
        }
        self.release(side, len);
    }

    /// Delivers whatever waits for a message: nobody knows what was in it.
    fn unpark_all(&mut self, side: Side, now: Timestamp) {
        while let Some(((id, _, offset), held)) = self.association.dirs[side as usize].parked.pop_first() {
            self.unparked(side, held.bytes.len());
            if let Some(at) = self.stream(id, now) {
                self.deliver_to(at, side, offset, held.place, &held.bytes, now, true);
            }
        }
    }

    /// Delivers a chunk if its message is the next one of its stream; otherwise it waits.
    ///
    /// `given_up`: it has waited, and waits no more.
    #[expect(clippy::too_many_arguments, reason = "a chunk, its place, and when")]
    fn deliver_to(
        &mut self,
        at: usize,
        side: Side,
        offset: u64,
        place: Place,
        bytes: &[u8],
        now: Timestamp,
        given_up: bool,
    ) {
        let holes = self.association.dirs[side as usize].holes;
        let after_hole = self.association.streams[at].halves[side as usize].holes != holes;
        if !place.unordered {
            let half = &mut self.association.streams[at].halves[side as usize];
            if half.ssn.is_none() {
                // Joined in the middle.
                half.in_message = !place.begins;
            }
            let ahead = place.ssn.wrapping_sub(*half.ssn.get_or_insert(place.ssn)) as i16;
            if ahead != 0 || !(place.begins || half.in_message) {
                if after_hole || given_up {
                    half.ssn = Some(place.ssn);
                    // A hole is told of once, a message that never came each time.
                    if given_up || half.gapped != holes {
                        let len = self.association.dirs[side as usize].chunk_max;
                        self.gap(at, side, len, now);
                    }
                } else if ahead > 0 {
                    let held = Held { place, bytes: bytes.to_vec(), seen: now };
                    let dir = &mut self.association.dirs[side as usize];
                    dir.parked.insert((place.stream, place.ssn, offset), held);
                    dir.parked_since.get_or_insert(now);
                    return self.count_held(side, bytes.len());
                } else {
                    self.counters.chunks_dropped_order_total += 1;
                    self.counters.bytes_dropped_total += bytes.len() as u64;
                    return;
                }
            }
        }
        self.counters.chunks_passed_total += 1;
        self.counters.bytes_passed_total += bytes.len() as u64;
        self.make(at, side, TcpFlags::default(), bytes, bytes.len() as u32 + place.cut, now);
        let half = &mut self.association.streams[at].halves[side as usize];
        half.holes = holes;
        half.in_message = !place.ends;
        if place.ends && !place.unordered {
            half.ssn = Some(place.ssn.wrapping_add(1));
        }
    }

    /// Tells a stream that it lost something in the last hole, where a chunk has `len`.
    fn gap(&mut self, at: usize, side: Side, len: u64, now: Timestamp) {
        let dir = &self.association.dirs[side as usize];
        self.association.streams[at].halves[side as usize].gapped = dir.holes;
        let len = dir.missing.max(1).saturating_mul(len.max(1)).min(1 << 30) as u32;
        self.counters.gaps_total += 1;
        self.make(at, side, TcpFlags::default(), &[], len, now);
    }

    /// Finds or opens a stream.
    fn stream(&mut self, id: u16, now: Timestamp) -> Option<usize> {
        let a = &mut *self.association;
        let at = match a.streams.binary_search_by_key(&id, |stream| stream.id) {
            Ok(at) => return Some(at),
            Err(at) => at,
        };
        if a.streams.len() >= self.limits.sctp_streams_max as usize {
            return None;
        }
        // A stream begins at 0; where it was joined nobody knows in the middle.
        let half = Half { seq: a.seq, ssn: a.client.map(|_| 0), ..Half::default() };
        a.streams.insert(at, Stream { id, halves: [half; 2] });
        self.counters.streams_total += 1;
        if let Some(client) = a.client {
            self.make(at, client, TcpFlags::SYN, &[], 0, now);
            self.make(at, client.flip(), TcpFlags::SYN.with(TcpFlags::ACK), &[], 0, now);
        }
        Some(at)
    }

    /// Ends all streams; `aborted_by` tells who did not wait for the other.
    pub(super) fn end(&mut self, aborted_by: Option<Side>, now: Timestamp) {
        if std::mem::replace(&mut self.association.over, true) {
            return;
        }
        for at in 0..self.association.streams.len() {
            if let Some(side) = aborted_by {
                self.make(at, side, TcpFlags::RST, &[], 0, now);
            } else {
                self.make(at, Side::Low, TcpFlags::FIN, &[], 0, now);
                self.make(at, Side::High, TcpFlags::FIN, &[], 0, now);
            }
        }
    }

    /// Gives the flow table the next segment of a stream.
    fn make(
        &mut self,
        at: usize,
        side: Side,
        flags: TcpFlags,
        payload: &[u8],
        payload_len: u32,
        now: Timestamp,
    ) {
        let a = &mut *self.association;
        let stream = &mut a.streams[at];
        // Of the SYN+ACK the next one is the client's first byte, as its SYN has been made.
        let ack = SeqNum(stream.halves[side.flip() as usize].seq);
        let half = &mut stream.halves[side as usize];
        let (key, envelope) = (a.key.with_stream(stream.id), a.envelope);
        let seq = SeqNum(half.seq);
        half.seq = half.seq.wrapping_add(payload_len + u32::from(flags.syn()));
        // Streams of one association must not meet in one place of the flow table's index.
        let hash = a.hash ^ (u64::from(stream.id) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let segment =
            TcpSegment { time: now, key, side, seq, ack, flags, window: 0, payload, payload_len, envelope };
        self.counters.segments_total += 1;
        self.table.segment_hashed(hash, &segment, self.sink);
    }
}
