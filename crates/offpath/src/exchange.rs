//! Hands segments of tunnelled flows to the live worker that owns the flow.
//!
//! The kernel spreads frames over workers by their outer headers, so the two directions of an inner flow may arrive at
//! different ones. Each worker copies such segments into a batch per owner, its own included, and sends the batches off
//! at every turn; each owner puts what it got from all workers back in the order of time and reassembles it. So a
//! response is never seen before its request because one worker was quicker than the other.
//!
//! ```text
//! worker 0 ─ decode ─ plain ────────────────────────▶ its own flow table
//!               └──── tunnelled ─▶ [to 0] [to 1] ─┐
//!                                                 ├─▶ in time order ─▶ flow table of the owner
//! worker 1 ─ decode ─ tunnelled ─▶ [to 0] [to 1] ─┘
//! ```
//!
//! Queues are bounded, and so is what waits at a worker for the others: a full one drops the batch and counts it. Nobody
//! waits for a worker that lags by more than [`LAG_NANOS`]. What is sent to a worker that has ended is counted by the
//! sender or, where it crossed with the end, by [`Leftover`]. Nothing is copied, sent or delayed until the first segment that needs it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use offpath_packet::{SctpPacket, TcpSegment};
use offpath_types::{Envelope, FlowKey, Timestamp, counters};

use crate::judge::wall_now;
use crate::segments::SegmentBatch;
use crate::worker::Worker;

/// Batches that wait at one worker, per sender.
const QUEUE_BATCHES: usize = 32;
/// Payload bytes of a batch after which it is sent off early; with the queue this bounds what is in flight.
const BATCH_BYTES: usize = 1 << 20;
/// How far one worker may lag behind the others before they stop waiting for it.
const LAG_NANOS: u64 = 1_000_000_000;
/// Times that nothing comes for [`FINISH_WAIT`] before the others are not waited for any more at the end.
const FINISH_ROUNDS: u32 = 200;
/// One wait at the end.
const FINISH_WAIT: Duration = Duration::from_millis(10);
/// Longest wait at the end, whatever comes: some may live on for long.
const FINISH_NANOS: u64 = 5_000_000_000;
/// Batches, most of them small, that wait at one worker to be put in order, per sender. Past it, or past
/// [`QUEUE_BATCHES`] full ones, a worker takes nothing more from its queue.
const WAITING_BATCHES: usize = 8 * QUEUE_BATCHES;
/// Bytes of batches that a worker keeps to be filled again.
const SPARE_BYTES: usize = 8 << 20;

counters! {
    /// What was handed from one live worker to another.
    pub struct HandoverCounters {
        /// Segments and SCTP packets of tunnelled flows, with `capture.split_tap` of all flows, that were sent to the
        /// worker that owns the flow.
        segments_handed_over_total,
        /// Segments dropped because the owner's queue was full.
        segments_dropped_queue_full_total,
        /// Captured payload bytes of those.
        bytes_dropped_queue_full_total,
        /// Segments dropped because the owner had ended.
        segments_dropped_owner_ended_total,
        /// Captured payload bytes of those.
        bytes_dropped_owner_ended_total,
    }
}

/// What waits from one sender.
#[derive(Default)]
struct Waiting {
    batches: VecDeque<SegmentBatch>,
    /// Next segment of the first batch.
    next: usize,
    until: Timestamp,
    last: bool,
}

impl Waiting {
    /// Returns the time of the next segment.
    fn time(&self) -> Option<Timestamp> {
        Some(self.batches.front()?.get(self.next)?.1.time())
    }
}

/// One worker's end of the hand-over.
pub(crate) struct Exchange {
    seed: u64,
    me: usize,
    /// Every flow is handed over: the interfaces are the two directions of one tap.
    every_flow: bool,
    /// What goes to each worker at the next turn.
    open: Vec<SegmentBatch>,
    outs: Vec<Sender<(usize, SegmentBatch)>>,
    inbox: Receiver<(usize, SegmentBatch)>,
    /// Somebody has handed something over: from now on all tell all how far they are.
    active: Arc<AtomicBool>,
    /// Workers that take nothing any more.
    ended: Arc<[AtomicBool]>,
    waiting: Vec<Waiting>,
    /// Batches in `waiting`, and the payload bytes in them.
    waiting_batches: usize,
    waiting_bytes: usize,
    spare: Vec<SegmentBatch>,
    spare_bytes: usize,
    counters: HandoverCounters,
}

/// The queues of an exchange, for when everybody has ended.
pub(crate) struct Leftover(Vec<Receiver<(usize, SegmentBatch)>>);

impl Leftover {
    /// Counts what was sent to workers that had ended.
    pub(crate) fn count(self) -> HandoverCounters {
        let mut counters = HandoverCounters::default();
        for (_, batch) in self.0.iter().flat_map(Receiver::try_iter) {
            counters.segments_dropped_owner_ended_total += batch.len() as u64;
            counters.bytes_dropped_owner_ended_total += batch.bytes_len() as u64;
        }
        counters
    }
}

/// Makes the ends of `workers` workers.
pub(crate) fn exchange(workers: usize, seed: u64, every_flow: bool) -> (Vec<Exchange>, Leftover) {
    let active = Arc::new(AtomicBool::new(false));
    let ended: Arc<[AtomicBool]> = (0..workers).map(|_| AtomicBool::new(false)).collect();
    let (outs, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| bounded(QUEUE_BATCHES * workers)).unzip();
    let ends = inboxes.iter().enumerate().map(|(me, inbox)| Exchange {
        seed,
        me,
        every_flow,
        open: (0..workers).map(|_| SegmentBatch::default()).collect(),
        outs: outs.clone(),
        inbox: inbox.clone(),
        active: Arc::clone(&active),
        ended: Arc::clone(&ended),
        waiting: (0..workers).map(|_| Waiting::default()).collect(),
        waiting_batches: 0,
        waiting_bytes: 0,
        spare: Vec::new(),
        spare_bytes: 0,
        counters: HandoverCounters::default(),
    });
    (ends.collect(), Leftover(inboxes))
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.ended[self.me].store(true, Ordering::Release);
    }
}

impl Exchange {
    /// Tells whether what came in this envelope may belong to another worker than the one that captured it.
    #[inline]
    pub(crate) fn takes(&self, envelope: Envelope) -> bool {
        self.every_flow || envelope.tunnel().is_some()
    }

    /// Copies a segment for the worker that owns its flow; tells whether it is time for a turn.
    pub(crate) fn push(&mut self, segment: &TcpSegment<'_>) -> bool {
        let (hash, batch) = self.owner_of(&segment.key);
        batch.push(hash, segment);
        batch.bytes_len() >= BATCH_BYTES
    }

    /// The same for an SCTP packet.
    pub(crate) fn push_sctp(&mut self, packet: &SctpPacket<'_>) -> bool {
        let (hash, batch) = self.owner_of(&packet.key);
        batch.push_sctp(hash, packet);
        batch.bytes_len() >= BATCH_BYTES
    }

    fn owner_of(&mut self, key: &FlowKey) -> (u64, &mut SegmentBatch) {
        let hash = key.hash64(self.seed);
        // Flow tables use the low and the top bits.
        let owner = (hash >> 40) as usize % self.open.len();
        (hash, &mut self.open[owner])
    }

    /// Sends off what was pushed, and gives `worker` what is in order from all; returns the time up to which that is.
    ///
    /// `now` promises that nothing earlier will be pushed.
    pub(crate) fn turn(&mut self, now: Timestamp, worker: &mut Worker) -> Timestamp {
        if !self.active.load(Ordering::Relaxed) {
            if self.open.iter().all(|batch| batch.len() == 0) {
                return now;
            }
            self.active.store(true, Ordering::Relaxed);
        }
        self.send(now);
        self.receive();
        // Who has ended is at the end of time.
        let newest = self.waiting.iter().filter(|w| !w.last).map(|w| w.until).max().unwrap_or(now);
        let lagging = Timestamp::from_nanos(newest.as_nanos().saturating_sub(LAG_NANOS));
        let settled = self.waiting.iter().map(|w| w.until).min().unwrap_or(now).max(lagging).min(now);
        self.deliver(settled, worker);
        settled
    }

    /// Ends the hand-over: sends off the rest, waits a bounded time for that of the others, and delivers it.
    pub(crate) fn finish(&mut self, worker: &mut Worker) {
        for lane in 0..self.open.len() {
            let mut batch = std::mem::take(&mut self.open[lane]);
            (batch.until, batch.last) = (Timestamp::MAX, true);
            if lane == self.me {
                self.take_in(lane, batch);
                continue;
            }
            // Capture is over, so this may wait; but never for somebody who waits for us.
            for round in 0.. {
                self.receive();
                self.make_room(worker);
                let Err(e) = self.try_send(lane, batch) else { break };
                batch = e;
                if round == FINISH_ROUNDS {
                    self.drop_batch(batch);
                    break;
                }
                std::thread::sleep(FINISH_WAIT);
            }
        }
        let (started, mut rounds) = (wall_now(), 0);
        while self.active.load(Ordering::Relaxed) && self.others_live() {
            match self.inbox.recv_timeout(FINISH_WAIT) {
                Ok((from, batch)) => self.take_in(from, batch),
                Err(_) => rounds += 1,
            }
            self.make_room(worker);
            if rounds == FINISH_ROUNDS || wall_now().nanos_since(started) > FINISH_NANOS {
                break;
            }
        }
        while let Ok((from, batch)) = self.inbox.try_recv() {
            self.take_in(from, batch);
            self.make_room(worker);
        }
        self.deliver(Timestamp::MAX, worker);
    }

    /// Tells whether somebody may still send something.
    fn others_live(&self) -> bool {
        let mut others = self.waiting.iter().zip(&*self.ended);
        others.any(|(waiting, ended)| !waiting.last && !ended.load(Ordering::Acquire))
    }

    /// Tells whether as much waits as may.
    fn is_full(&self) -> bool {
        let workers = self.open.len();
        self.waiting_batches >= WAITING_BATCHES * workers
            || self.waiting_bytes >= QUEUE_BATCHES * workers * BATCH_BYTES
    }

    /// At the end: gives `worker` what is in order where too much waits, and all of it where that is not enough.
    fn make_room(&mut self, worker: &mut Worker) {
        if self.is_full() {
            let settled = self.waiting.iter().map(|w| w.until).min().unwrap_or(Timestamp::MAX);
            self.deliver(settled, worker);
            if self.is_full() {
                self.deliver(Timestamp::MAX, worker);
            }
        }
    }

    /// Returns the counts so far.
    pub(crate) fn counters(&self) -> HandoverCounters {
        self.counters
    }

    fn send(&mut self, until: Timestamp) {
        for lane in 0..self.open.len() {
            let empty = self.spare.pop().unwrap_or_default();
            self.spare_bytes -= empty.capacity_bytes();
            let mut batch = std::mem::replace(&mut self.open[lane], empty);
            (batch.until, batch.last) = (until, false);
            if lane == self.me {
                if self.is_full() {
                    self.count_full(&batch);
                    batch.clear();
                }
                self.take_in(lane, batch);
            } else if let Err(batch) = self.try_send(lane, batch) {
                self.drop_batch(batch);
            }
        }
    }

    /// Sends a batch to a worker, unless it has ended; gives it back where the queue is full.
    fn try_send(&mut self, lane: usize, batch: SegmentBatch) -> Result<(), SegmentBatch> {
        let segments = batch.len() as u64;
        let sent = if self.ended[lane].load(Ordering::Acquire) {
            Err(TrySendError::Disconnected((self.me, batch)))
        } else {
            self.outs[lane].try_send((self.me, batch))
        };
        match sent {
            Ok(()) => {
                self.counters.segments_handed_over_total += segments;
                Ok(())
            }
            Err(TrySendError::Full((_, batch))) => Err(batch),
            Err(TrySendError::Disconnected((_, batch))) => {
                self.counters.segments_dropped_owner_ended_total += segments;
                self.counters.bytes_dropped_owner_ended_total += batch.bytes_len() as u64;
                self.keep(batch);
                Ok(())
            }
        }
    }

    fn drop_batch(&mut self, batch: SegmentBatch) {
        self.count_full(&batch);
        self.keep(batch);
    }

    fn count_full(&mut self, batch: &SegmentBatch) {
        self.counters.segments_dropped_queue_full_total += batch.len() as u64;
        self.counters.bytes_dropped_queue_full_total += batch.bytes_len() as u64;
    }

    fn receive(&mut self) {
        while !self.is_full()
            && let Ok((from, batch)) = self.inbox.try_recv()
        {
            self.take_in(from, batch);
        }
    }

    fn take_in(&mut self, from: usize, batch: SegmentBatch) {
        let waiting = &mut self.waiting[from];
        waiting.until = waiting.until.max(batch.until);
        waiting.last |= batch.last;
        if batch.len() > 0 {
            self.waiting_batches += 1;
            self.waiting_bytes += batch.bytes_len();
            waiting.batches.push_back(batch);
        } else {
            self.keep(batch);
        }
    }

    fn keep(&mut self, mut batch: SegmentBatch) {
        let bytes = batch.capacity_bytes();
        if bytes > 0 && self.spare_bytes + bytes <= SPARE_BYTES {
            batch.clear();
            self.spare_bytes += bytes;
            self.spare.push(batch);
        }
    }

    /// Gives `worker` every segment before `until`, in the order of time, at equal times of senders.
    fn deliver(&mut self, until: Timestamp, worker: &mut Worker) {
        loop {
            let first = self.waiting.iter().enumerate().filter_map(|(i, w)| Some((w.time()?, i))).min();
            let Some((time, from)) = first else { return };
            if time >= until && until != Timestamp::MAX {
                return;
            }
            let waiting = &mut self.waiting[from];
            if let Some((hash, segment)) = waiting.batches.front().and_then(|b| b.get(waiting.next)) {
                worker.take_hashed(hash, &segment);
            }
            waiting.next += 1;
            if waiting.batches.front().is_some_and(|b| waiting.next >= b.len()) {
                waiting.next = 0;
                if let Some(batch) = waiting.batches.pop_front() {
                    self.waiting_batches -= 1;
                    self.waiting_bytes -= batch.bytes_len();
                    self.keep(batch);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use offpath_packet::{Decoder, Outcome};
    use offpath_testkit::packet_builder::vxlan;
    use offpath_testkit::{Conversation, Link};
    use offpath_types::{Frame, IdentityKey, LinkType, Transaction};

    use super::*;
    use crate::config::Config;

    /// The frames of `count` connections, each with one transaction, in VXLAN or bare.
    fn frames(count: u16, tunnelled: bool) -> Vec<(Timestamp, Vec<u8>)> {
        let mut frames = Vec::new();
        for port in 0..count {
            let start = Timestamp::from_nanos(1_000_000_000 + u64::from(port) * 7_000);
            let mut talk = Conversation::new(
                ([192, 0, 2, 1], 2000 + port).into(),
                ([198, 51, 100, 1], 80).into(),
                start,
            );
            talk.handshake();
            talk.script(">>>\nGET / HTTP/1.1\nHost: a.example\n\n<<<\nHTTP/1.1 204 No Content\n\n")
                .unwrap()
                .close();
            for packet in talk.packets() {
                let mut bytes = Link::Ethernet.wrap(&packet.bytes);
                if tunnelled {
                    let outer = vxlan([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 5, &bytes);
                    bytes = Link::Ethernet.wrap(&outer);
                }
                frames.push((packet.time, bytes));
            }
        }
        frames.sort_by_key(|(time, _)| *time);
        frames
    }

    struct Rig {
        decoders: Vec<Decoder>,
        workers: Vec<Worker>,
        ends: Vec<Exchange>,
        left: Leftover,
    }

    impl Rig {
        fn new(lanes: usize) -> Self {
            let (config, key) = (Config::default(), IdentityKey::new([7; 32]));
            let (ends, left) = exchange(lanes, key.seed(b"flow-hash"), false);
            Self {
                decoders: (0..lanes).map(|_| Decoder::new(config.decoder_limits(&key))).collect(),
                workers: (0..lanes).map(|_| config.worker_of_lane(lanes, &key)).collect(),
                ends,
                left,
            }
        }

        fn feed(&mut self, lane: usize, (time, bytes): &(Timestamp, Vec<u8>)) {
            let frame = Frame { time: *time, link: LinkType::Ethernet, wire_len: bytes.len() as u32, bytes };
            let Outcome::Tcp(segment) = self.decoders[lane].decode(&frame) else { panic!("no TCP") };
            if self.ends[lane].takes(segment.envelope) {
                self.ends[lane].push(&segment);
            } else {
                self.workers[lane].segment(&segment);
            }
        }

        fn turn(&mut self, lane: usize, now: Timestamp) -> Timestamp {
            self.ends[lane].turn(now, &mut self.workers[lane])
        }

        fn finish(mut self) -> (Vec<Transaction>, HandoverCounters, u64) {
            let (mut all, mut counters, mut segments) = (Vec::new(), HandoverCounters::default(), 0);
            std::thread::scope(|scope| {
                for (end, worker) in self.ends.iter_mut().zip(&mut self.workers) {
                    scope.spawn(move || end.finish(worker));
                }
            });
            for (end, worker) in self.ends.iter().zip(&mut self.workers) {
                worker.finish(&mut all);
                counters.merge(&end.counters());
                segments += worker.counters().stream.segments_total;
            }
            counters.merge(&self.left.count());
            (all, counters, segments)
        }
    }

    #[test]
    fn directions_that_arrive_at_different_workers_meet_at_one_in_order() {
        // Every frame at another worker, and the second one reads 40 ms late.
        let frames = frames(50, true);
        for lanes in 1..=3usize {
            let mut rig = Rig::new(lanes);
            for (i, frame) in frames.iter().enumerate() {
                rig.feed(i % lanes, frame);
                if i % 16 == 15 {
                    rig.turn(0, frame.0);
                }
                if i % 160 == 159 {
                    for lane in 1..lanes {
                        rig.turn(lane, frame.0);
                    }
                }
            }
            let (all, counters, segments) = rig.finish();
            assert_eq!(all.len(), 50, "{lanes} workers");
            assert!(all.iter().all(|tx| tx.complete), "{lanes} workers");
            assert_eq!(segments, frames.len() as u64);
            assert_eq!(counters.segments_handed_over_total > 0, lanes > 1);
            assert_eq!(counters.segments_dropped_queue_full_total, 0);
        }
    }

    #[test]
    fn plain_flows_stay_where_they_are_and_nothing_is_delayed() {
        let mut rig = Rig::new(2);
        let frames = frames(5, false);
        for frame in &frames {
            rig.feed(1, frame);
            assert_eq!(rig.turn(1, frame.0), frame.0);
        }
        let (all, counters, segments) = rig.finish();
        assert_eq!((all.len(), counters, segments), (5, HandoverCounters::default(), frames.len() as u64));
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_nobody_waits() {
        let mut rig = Rig::new(2);
        let frames = frames(400, true);
        // The second worker never takes a turn.
        for frame in &frames {
            rig.feed(0, frame);
            rig.turn(0, frame.0);
        }
        let (_, counters, segments) = rig.finish();
        assert!(counters.segments_dropped_queue_full_total > 0, "{counters:?}");
        assert_eq!(segments + counters.segments_dropped_queue_full_total, frames.len() as u64);
    }

    #[test]
    fn a_worker_that_lags_too_far_is_not_waited_for() {
        let mut rig = Rig::new(2);
        let frames = frames(1, true);
        let start = frames[0].0;
        for frame in &frames {
            rig.feed(0, frame);
        }
        assert_eq!(rig.turn(0, start.plus_secs(1)), start);
        assert_eq!(rig.turn(0, start.plus_secs(2)), start.plus_secs(1));
        // Once it tells where it is, it counts.
        rig.turn(1, start.plus_nanos(1_900_000_000));
        assert_eq!(rig.turn(0, start.plus_secs(2)), start.plus_nanos(1_900_000_000));
    }

    #[test]
    fn the_end_waits_for_one_who_is_still_sending() {
        // The second worker sends far more batches than the first one waits rounds.
        let mut rig = Rig::new(2);
        let frames = frames(200, true);
        rig.feed(1, &frames[0]);
        rig.turn(1, frames[0].0);
        let (first, second) = rig.workers.split_at_mut(1);
        let (one, two) = rig.ends.split_at_mut(1);
        let decoder = &mut rig.decoders[1];
        std::thread::scope(|scope| {
            scope.spawn(|| one[0].finish(&mut first[0]));
            for (time, bytes) in &frames[1..] {
                let frame =
                    Frame { time: *time, link: LinkType::Ethernet, wire_len: bytes.len() as u32, bytes };
                let Outcome::Tcp(segment) = decoder.decode(&frame) else { panic!("no TCP") };
                two[0].push(&segment);
                two[0].turn(*time, &mut second[0]);
                while two[0].outs[0].len() > QUEUE_BATCHES {
                    std::thread::yield_now();
                }
            }
            two[0].finish(&mut second[0]);
        });
        let mut all = Vec::new();
        rig.workers.iter_mut().for_each(|worker| worker.finish(&mut all));
        assert_eq!(all.iter().filter(|tx| tx.complete).count(), 200);
        let mut counters = rig.left.count();
        rig.ends.iter().for_each(|end| counters.merge(&end.counters()));
        assert_eq!(counters.segments_dropped_owner_ended_total, 0);
        assert_eq!(counters.segments_dropped_queue_full_total, 0);
    }

    #[test]
    fn what_is_sent_to_one_who_has_ended_has_its_own_counter_and_nobody_waits() {
        let mut rig = Rig::new(2);
        let frames = frames(40, true);
        // Sent and never taken.
        frames[..20].iter().for_each(|frame| rig.feed(0, frame));
        rig.turn(0, frames[19].0);
        let sent = rig.ends[0].counters().segments_handed_over_total;
        assert!(sent > 0);
        rig.ends.truncate(1);
        frames[20..].iter().for_each(|frame| rig.feed(0, frame));
        let started = wall_now();
        rig.ends[0].finish(&mut rig.workers[0]);
        assert!(wall_now().nanos_since(started) < 1_000_000_000);
        let mut counters = rig.ends[0].counters();
        counters.merge(&rig.left.count());
        assert!(counters.segments_dropped_owner_ended_total > sent, "{counters:?}");
        assert_eq!(counters.segments_dropped_queue_full_total, 0);
        let taken = rig.workers[0].counters().stream.segments_total;
        assert_eq!(taken + counters.segments_dropped_owner_ended_total, frames.len() as u64);
    }

    #[test]
    fn what_waits_for_one_who_lags_is_bounded() {
        let mut rig = Rig::new(2);
        let frames = frames(1, true);
        let (mut time, mut fed) = (frames[0].0, 0u64);
        // Within the lag that is waited for.
        for _ in 0..2 * 2 * WAITING_BATCHES as u64 {
            rig.feed(0, &(time, frames[0].1.clone()));
            time = time.plus_nanos(1000);
            rig.turn(0, time);
            fed += 1;
            assert!(rig.ends[0].waiting_batches <= 2 * WAITING_BATCHES);
            let spare: usize = rig.ends[0].spare.iter().map(SegmentBatch::capacity_bytes).sum();
            assert_eq!(spare, rig.ends[0].spare_bytes);
        }
        let (_, counters, segments) = rig.finish();
        assert!(counters.segments_dropped_queue_full_total > 0);
        assert_eq!(segments + counters.segments_dropped_queue_full_total, fed);
    }
}
