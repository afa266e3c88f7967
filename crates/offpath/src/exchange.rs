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
//! Queues are bounded: a full one drops the batch and counts it. Nobody waits for a worker that lags by more than
//! [`LAG_NANOS`]. Nothing is copied, sent or delayed until the first segment that needs it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use offpath_packet::TcpSegment;
use offpath_types::{Timestamp, counters};

use crate::segments::SegmentBatch;
use crate::worker::Worker;

/// Batches that wait at one worker, per sender.
const QUEUE_BATCHES: usize = 32;
/// Payload bytes of a batch after which it is sent off early; with the queue this bounds what is in flight.
const BATCH_BYTES: usize = 1 << 20;
/// How far one worker may lag behind the others before they stop waiting for it.
const LAG_NANOS: u64 = 1_000_000_000;
/// Longest wait for the others at the end.
const FINISH_ROUNDS: u32 = 200;
/// Batches that are kept to be filled again.
const SPARE_MAX: usize = 64;

counters! {
    /// What was handed from one live worker to another.
    pub struct HandoverCounters {
        /// Segments of tunnelled flows that were sent to the worker that owns the flow.
        segments_handed_over_total,
        /// Segments dropped because the owner's queue was full.
        segments_dropped_queue_full_total,
        /// Captured payload bytes of those.
        bytes_dropped_queue_full_total,
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
        Some(self.batches.front()?.get(self.next)?.1.time)
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
    waiting: Vec<Waiting>,
    spare: Vec<SegmentBatch>,
    counters: HandoverCounters,
}

/// Makes the ends of `workers` workers.
pub(crate) fn exchange(workers: usize, seed: u64, every_flow: bool) -> Vec<Exchange> {
    let active = Arc::new(AtomicBool::new(false));
    let queues: Vec<_> = (0..workers).map(|_| bounded(QUEUE_BATCHES * workers)).collect();
    let outs: Vec<_> = queues.iter().map(|(out, _)| out.clone()).collect();
    let ends = queues.into_iter().enumerate().map(|(me, (_, inbox))| Exchange {
        seed,
        me,
        every_flow,
        open: (0..workers).map(|_| SegmentBatch::default()).collect(),
        outs: outs.clone(),
        inbox,
        active: Arc::clone(&active),
        waiting: (0..workers).map(|_| Waiting::default()).collect(),
        spare: Vec::new(),
        counters: HandoverCounters::default(),
    });
    ends.collect()
}

impl Exchange {
    /// Tells whether `segment` may belong to another worker than the one that captured it.
    #[inline]
    pub(crate) fn takes(&self, segment: &TcpSegment<'_>) -> bool {
        self.every_flow || segment.envelope.tunnel().is_some()
    }

    /// Copies a segment for the worker that owns its flow; tells whether it is time for a turn.
    pub(crate) fn push(&mut self, segment: &TcpSegment<'_>) -> bool {
        let hash = segment.key.hash64(self.seed);
        // Flow tables use the low and the top bits.
        let owner = (hash >> 40) as usize % self.open.len();
        let batch = &mut self.open[owner];
        batch.push(hash, segment);
        batch.bytes_len() >= BATCH_BYTES
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
        let newest = self.waiting.iter().map(|w| w.until).max().unwrap_or(now);
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
                let Err(e) = self.try_send(lane, batch) else { break };
                batch = e;
                if round == FINISH_ROUNDS {
                    self.drop_batch(batch);
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        for _ in 0..FINISH_ROUNDS {
            if !self.active.load(Ordering::Relaxed) || self.waiting.iter().all(|w| w.last) {
                break;
            }
            if let Ok((from, batch)) = self.inbox.recv_timeout(Duration::from_millis(10)) {
                self.take_in(from, batch);
            }
        }
        self.receive();
        self.deliver(Timestamp::MAX, worker);
    }

    /// Returns the counts so far.
    pub(crate) fn counters(&self) -> HandoverCounters {
        self.counters
    }

    fn send(&mut self, until: Timestamp) {
        for lane in 0..self.open.len() {
            let mut batch = std::mem::replace(&mut self.open[lane], self.spare.pop().unwrap_or_default());
            (batch.until, batch.last) = (until, false);
            if lane == self.me {
                self.take_in(lane, batch);
            } else if let Err(batch) = self.try_send(lane, batch) {
                self.drop_batch(batch);
            }
        }
    }

    fn try_send(&mut self, lane: usize, batch: SegmentBatch) -> Result<(), SegmentBatch> {
        let segments = batch.len() as u64;
        match self.outs[lane].try_send((self.me, batch)) {
            Ok(()) => {
                self.counters.segments_handed_over_total += segments;
                Ok(())
            }
            Err(TrySendError::Full((_, batch)) | TrySendError::Disconnected((_, batch))) => Err(batch),
        }
    }

    fn drop_batch(&mut self, batch: SegmentBatch) {
        self.counters.segments_dropped_queue_full_total += batch.len() as u64;
        self.counters.bytes_dropped_queue_full_total += batch.bytes_len() as u64;
        self.keep(batch);
    }

    fn receive(&mut self) {
        while let Ok((from, batch)) = self.inbox.try_recv() {
            self.take_in(from, batch);
        }
    }

    fn take_in(&mut self, from: usize, batch: SegmentBatch) {
        let waiting = &mut self.waiting[from];
        waiting.until = waiting.until.max(batch.until);
        waiting.last |= batch.last;
        if batch.len() > 0 {
            waiting.batches.push_back(batch);
        } else {
            self.keep(batch);
        }
    }

    fn keep(&mut self, mut batch: SegmentBatch) {
        if self.spare.len() < SPARE_MAX {
            batch.clear();
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
                worker.segment_hashed(hash, &segment);
            }
            waiting.next += 1;
            if waiting.batches.front().is_some_and(|b| waiting.next >= b.len()) {
                waiting.next = 0;
                if let Some(batch) = waiting.batches.pop_front() {
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
    }

    impl Rig {
        fn new(lanes: usize) -> Self {
            let (config, key) = (Config::default(), IdentityKey::new([7; 32]));
            Self {
                decoders: (0..lanes).map(|_| Decoder::new(config.decoder_limits(&key))).collect(),
                workers: (0..lanes).map(|_| config.worker_of_lane(lanes, &key)).collect(),
                ends: exchange(lanes, key.seed(b"flow-hash"), false),
            }
        }

        fn feed(&mut self, lane: usize, (time, bytes): &(Timestamp, Vec<u8>)) {
            let frame = Frame { time: *time, link: LinkType::Ethernet, wire_len: bytes.len() as u32, bytes };
            let Outcome::Tcp(segment) = self.decoders[lane].decode(&frame) else { panic!("no TCP") };
            if self.ends[lane].takes(&segment) {
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
}
