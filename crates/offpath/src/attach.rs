//! `offpath attach`: live detection on mirror ports.
//!
//! One thread per worker and interface captures, decodes, reassembles and parses; this thread merges, scores and
//! writes. A full queue between them drops the newest batch and counts it: capture never waits.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use offpath_capture::{Polled, PrivilegeError, SourceError, drop_privileges};
use offpath_packet::{Decoder, Outcome};
use offpath_protocol::KeyStore;
use offpath_types::{Connection, HandshakeStage, Timestamp};

use crate::args::{AttachArgs, Format};
use crate::config::Config;
use crate::exchange::{Exchange, exchange};
use crate::exit::{Failure, stop_on_signal};
use crate::judge::{Judge, wall_now};
use crate::keys::{Feed, Keys, Lines, Logs, last_lines};
use crate::ledger::Ledger;
use crate::merge::{Batch, Mark, Merge};
use crate::output::StatsFile;
use crate::records::RecordWriter;
use crate::sources::{Live, open_live};
use crate::worker::Worker;

/// Batches that wait for scoring, per lane.
const QUEUE_BATCHES: usize = 256;
/// Bytes of the batches that wait, of all lanes: a few bytes of HTTP/2 can stand for kilobytes of texts.
const WAITING_BYTES_MAX: usize = 512 << 20;
/// Frames after which a busy worker hands on what is finished.
const FLUSH_FRAMES: u32 = 512;
/// Packet time after which a worker hands on what is finished.
const FLUSH_NANOS: u64 = 5_000_000;
/// How far one lane may lag behind the others before they stop waiting for it.
const LANE_LAG_NANOS: u64 = 1_000_000_000;
/// Longest drain of the kernel ring at the end.
const DRAIN_NANOS: u64 = 2_000_000_000;

/// What the threads share.
#[derive(Default)]
struct Shared {
    stop: Arc<AtomicBool>,
    /// Bytes of the batches that are not scored yet.
    waiting: AtomicUsize,
    /// Transactions that found the queue full.
    dropped: AtomicU64,
    /// TLS handshakes that did.
    dropped_handshakes: AtomicU64,
    /// Ended WebSocket connections that did.
    dropped_websockets: AtomicU64,
    /// What each lane publishes about itself about once a second, and at its end.
    ledgers: Mutex<Vec<Ledger>>,
    /// What reads key logs.
    feed: Mutex<Option<Feed>>,
}

impl Shared {
    fn new(stop: Arc<AtomicBool>, lanes: usize, feed: Option<Feed>) -> Self {
        Self {
            stop,
            waiting: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            dropped_handshakes: AtomicU64::new(0),
            dropped_websockets: AtomicU64::new(0),
            ledgers: Mutex::new(vec![Ledger::default(); lanes]),
            feed: Mutex::new(feed),
        }
    }

    fn publish(
        &self,
        lane: usize,
        source: &Live,
        blocks: &Keys,
        decoder: &Decoder,
        exchange: &Exchange,
        worker: &Worker,
    ) {
        let handover = Some(exchange.counters());
        let mut ledger = Ledger { handover, keys: blocks.counters(), ..Ledger::default() };
        ledger.add_source(source.counters(), *decoder.counters());
        ledger.add_worker(worker);
        if let Some(slot) = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner).get_mut(lane) {
            *slot = ledger;
        }
    }

    fn ledger(&self) -> Ledger {
        let mut sum = Ledger::default();
        for lane in self.ledgers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            sum.merge_lane(lane);
        }
        if let Some(feed) = self.feed.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let (keys, live_keys) = feed.counters();
            sum.keys.merge(&keys);
            sum.live_keys = live_keys;
        }
        sum
    }
}

/// Runs until a signal, the given duration, or the end of every interface.
///
/// Also returns what went wrong with a capture thread, so that what the others saw is still reported.
pub(crate) fn run(
    args: &AttachArgs,
    config: &Config,
    judge: &mut Judge,
    stats: &mut Option<StatsFile>,
) -> Result<(Ledger, Option<Failure>), Failure> {
    let stop = stop_on_signal()?;
    let sources = open_live(args, config, &stop)?;
    let logs = Logs::open(&config.decryption.keylog, args.output.quiet)?;
    let user = args.user.as_deref().unwrap_or(&config.capture.user);
    if !user.is_empty() {
        let dropped = match drop_privileges(Some(user)) {
            // The default is meant for root. Without a packet socket there was no need to be root.
            Err(PrivilegeError::NotRoot { .. }) if args.user.is_none() && !sources.interfaces => {
                drop_privileges(None)
            }
            other => other,
        };
        dropped.map_err(|e| match e {
            PrivilegeError::NoUser { .. } | PrivilegeError::NotRoot { .. } => Failure::usage(e.into()),
            e => Failure::ours(e.into()),
        })?;
    }
    let (lanes, streams) = (sources.groups.iter().map(Vec::len).sum(), sources.streams);
    let (feed, keys) = logs.start(lanes, Arc::clone(&stop))?;
    let shared = Arc::new(Shared::new(stop, lanes, Some(feed)));
    if !args.output.quiet {
        eprintln!("offpath: attached to {} with {lanes} workers; stop with Ctrl-C", sources.names.join(", "));
    }
    let seed = judge.key().seed(b"flow-hash");
    let (exchanges, leftovers): (Vec<_>, Vec<_>) = if config.capture.split_tap {
        [exchange(lanes, seed, true)].into_iter().unzip()
    } else {
        sources.groups.iter().map(|group| exchange(group.len(), seed, false)).unzip()
    };
    let (sender, receiver) = bounded::<(usize, Batch)>(QUEUE_BATCHES * lanes);
    let mut joins = Vec::new();
    let pipes = sources.groups.into_iter().flatten().zip(exchanges.into_iter().flatten()).zip(keys);
    for (lane, ((source, exchange), keys)) in pipes.enumerate() {
        let (shared, sender, format) = (Arc::clone(&shared), sender.clone(), args.output.format);
        let decoder = Decoder::new(config.decoder_limits(judge.key()));
        let mut worker = config.worker_of_lane(lanes, judge.key());
        worker.set_keys(KeyStore::new(config.live_key_limits()));
        let (records, has_secrets) = (judge.records_wanted(), lane >= lanes - streams);
        let body = move || {
            let pipe = Pipe { source, has_secrets, decoder, exchange, worker, keys };
            capture_loop(lane, pipe, &sender, &shared, records.then_some(format))
        };
        joins.push(
            thread::Builder::new()
                .name(format!("capture-{lane}"))
                .spawn(body)
                .context("cannot start a capture thread")
                .map_err(Failure::ours)?,
        );
    }
    drop(sender);

    let mut merge = Merge::new(lanes);
    let mut newest = Timestamp::ZERO;
    let started = wall_now();
    let mut housekeeping = Housekeeping::new(started);
    loop {
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok((lane, batch)) => {
                if batch.watermark != Mark::END {
                    newest = newest.max(batch.watermark.time);
                }
                merge.push(lane, batch);
                let lagging = Timestamp::from_nanos(newest.as_nanos().saturating_sub(LANE_LAG_NANOS));
                // A single lane is in order by itself; with several, none may run ahead of the others.
                let until = if lanes == 1 && merge.watermark() != Mark::END {
                    Mark::live(newest.plus_nanos(1))
                } else {
                    merge.watermark().max(Mark::live(lagging))
                };
                judge.take(&mut merge, until)?;
                // Every batch is a new one here.
                merge.take_spent().for_each(drop);
                let scored = merge.handed_out().iter_mut().map(std::mem::take).sum();
                shared.waiting.fetch_sub(scored, Ordering::Relaxed);
                if until != Mark::END {
                    judge.advance(until.time)?;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = wall_now();
        if args.duration.is_some_and(|secs| now.nanos_since(started) >= secs.saturating_mul(1_000_000_000)) {
            shared.stop.store(true, Ordering::Relaxed);
        }
        judge.write_kept(false)?;
        housekeeping.run(now, &shared, judge, stats)?;
    }
    judge.take(&mut merge, Mark::END)?;
    let mut failure = None;
    for join in joins {
        match join.join() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => failure = Some(Failure::ours(e.into())),
            Err(_) => failure = Some(Failure::ours(anyhow::anyhow!("a capture thread panicked"))),
        }
    }
    shared.stop.store(true, Ordering::Relaxed);
    if let Some(feed) = shared.feed.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        feed.finish()?;
    }
    judge.count_dropped(
        shared.dropped.load(Ordering::Relaxed),
        shared.dropped_handshakes.load(Ordering::Relaxed),
        shared.dropped_websockets.load(Ordering::Relaxed),
    );
    judge.end_of_capture(newest)?;
    let mut ledger = shared.ledger();
    for left in leftovers {
        ledger.handover.get_or_insert_default().merge(&left.count());
    }
    Ok((ledger, failure))
}

/// What one worker is made of, from the source to the flow table.
struct Pipe {
    source: Live,
    /// The source may hold decryption secrets.
    has_secrets: bool,
    decoder: Decoder,
    exchange: Exchange,
    worker: Worker,
    /// Lines of key logs.
    keys: Receiver<Lines>,
}

fn capture_loop(
    lane: usize,
    pipe: Pipe,
    sender: &Sender<(usize, Batch)>,
    shared: &Shared,
    format: Option<Format>,
) -> Result<(), SourceError> {
    let Pipe { mut source, has_secrets, mut decoder, mut exchange, mut worker, keys } = pipe;
    let mut blocks = Keys::default();
    let mut writer = format.map(RecordWriter::new);
    let (mut frames, mut flushed, mut published) = (0u32, Timestamp::ZERO, Timestamp::ZERO);
    let mut stopping: Option<Timestamp> = None;
    let mut result = Ok(());
    loop {
        let told = stopping.is_some();
        // An error comes again from the next call.
        if has_secrets && let Ok(found @ [_, ..]) = source.fresh_secrets() {
            worker.add_keys(&blocks.read(found), flushed);
        }
        let (now, idle) = match source.next_frame() {
            Ok(Polled::Frame(frame)) => {
                frames += 1;
                match decoder.decode(&frame) {
                    Outcome::Tcp(segment) => {
                        if !exchange.takes(segment.envelope) {
                            worker.segment(&segment);
                        } else if exchange.push(&segment) {
                            frames = FLUSH_FRAMES;
                        }
                    }
                    Outcome::Sctp(packet) => {
                        if !exchange.takes(packet.envelope) {
                            worker.sctp(&packet);
                        } else if exchange.push_sctp(&packet) {
                            frames = FLUSH_FRAMES;
                        }
                    }
                    Outcome::Udp(datagram) => worker.datagram(&datagram),
                    _ => {}
                }
                (frame.time, false)
            }
            Ok(Polled::Idle(now)) => (now, true),
            Ok(Polled::End) => break,
            Err(e) => {
                result = Err(e);
                break;
            }
        };
        if idle || frames >= FLUSH_FRAMES || now.nanos_since(flushed) >= FLUSH_NANOS {
            (frames, flushed) = (0, now);
            let settled = exchange.turn(now, &mut worker);
            keys.try_iter().for_each(|lines| worker.add_keys(&lines, settled));
            hand_on(lane, settled, &mut worker, sender, shared, writer.as_mut());
        }
        if now.nanos_since(published) >= 1_000_000_000 {
            published = now;
            shared.publish(lane, &source, &blocks, &decoder, &exchange, &worker);
        }
        if shared.stop.load(Ordering::Relaxed) {
            // What the kernel still holds is read before the end, for a bounded time. A source that was idle before we
            // were told to stop may have got something since.
            let since = *stopping.get_or_insert(now);
            if idle && told || now.nanos_since(since) >= DRAIN_NANOS {
                break;
            }
        }
    }
    exchange.finish(&mut worker);
    if shared.stop.load(Ordering::Relaxed) {
        last_lines(&keys).for_each(|lines| worker.add_keys(&lines, flushed));
    }
    let mut finished = Vec::new();
    worker.collect(flushed, Timestamp::MAX, &mut finished);
    worker.finish(&mut finished);
    let mut connections = Vec::new();
    worker.take_connections(&mut connections);
    let last = Batch::live(finished, connections, Mark::END, writer.as_mut());
    shared.waiting.fetch_add(last.bytes(), Ordering::Relaxed);
    // The last batch may wait: capture is over.
    let _ = sender.send((lane, last));
    // The kernel's last word on what it dropped.
    source.refresh();
    shared.publish(lane, &source, &blocks, &decoder, &exchange, &worker);
    result
}

/// Hands finished transactions on; never waits.
fn hand_on(
    lane: usize,
    now: Timestamp,
    worker: &mut Worker,
    sender: &Sender<(usize, Batch)>,
    shared: &Shared,
    writer: Option<&mut RecordWriter>,
) {
    let mut finished = Vec::new();
    // Live, being early is worth more than the order of what a timer ended a moment ago.
    worker.collect(now, Timestamp::MAX, &mut finished);
    let mut connections = Vec::new();
    worker.take_connections(&mut connections);
    let batch = Batch::live(finished, connections, Mark::live(now), writer);
    if let Some(batch) = offer(lane, batch, sender, shared) {
        shared.dropped.fetch_add(batch.transactions.len() as u64, Ordering::Relaxed);
        for connection in &batch.connections {
            let dropped = match connection {
                Connection::Handshake(h) if h.stage != HandshakeStage::Done => continue,
                Connection::Handshake(_) => &shared.dropped_handshakes,
                Connection::WebSocket(_) => &shared.dropped_websockets,
            };
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Puts a batch in the queue; returns it where that is full, by number or by bytes.
fn offer(lane: usize, batch: Batch, sender: &Sender<(usize, Batch)>, shared: &Shared) -> Option<Batch> {
    let bytes = batch.bytes();
    // Counted before it is sent, so that it is never taken off first. One batch alone always goes.
    let waiting = shared.waiting.fetch_add(bytes, Ordering::Relaxed);
    let refused = if waiting > 0 && bytes > 0 && waiting + bytes > WAITING_BYTES_MAX {
        Some(batch)
    } else {
        match sender.try_send((lane, batch)) {
            Err(TrySendError::Full((_, batch))) => Some(batch),
            // Where nobody receives any more, everything ends.
            Ok(()) | Err(TrySendError::Disconnected(_)) => None,
        }
    };
    if refused.is_some() {
        shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
    refused
}

/// What runs beside the traffic: notices about loss, the stats file.
struct Housekeeping {
    noticed: Timestamp,
    written: Timestamp,
    /// When the inventory was written: it is larger than the stats.
    inventoried: Timestamp,
    lost_before: u64,
    frames_before: u64,
    lost_frames_before: u64,
}

impl Housekeeping {
    fn new(now: Timestamp) -> Self {
        Self {
            noticed: now,
            written: now,
            inventoried: now,
            lost_before: 0,
            frames_before: 0,
            lost_frames_before: 0,
        }
    }

    fn run(
        &mut self,
        now: Timestamp,
        shared: &Shared,
        judge: &mut Judge,
        stats: &mut Option<StatsFile>,
    ) -> Result<(), Failure> {
        if now.nanos_since(self.noticed) >= 5_000_000_000 {
            self.noticed = now;
            judge.flush()?;
            let c = shared.ledger().capture;
            let queue = shared.dropped.load(Ordering::Relaxed);
            let lost_frames = c.kernel_dropped + c.interface_dropped;
            let lost = lost_frames + queue;
            let seen = c.frames_total.saturating_sub(self.frames_before);
            let missed = lost_frames.saturating_sub(self.lost_frames_before);
            judge.set_frames_seen(seen as f64 / (seen + missed).max(1) as f64, seen + missed);
            (self.frames_before, self.lost_frames_before) = (c.frames_total, lost_frames);
            if lost > self.lost_before {
                tracing::warn!(
                    kernel = c.kernel_dropped,
                    interface = c.interface_dropped,
                    queue,
                    "traffic is being lost: {} more since the last notice",
                    lost - self.lost_before
                );
                self.lost_before = lost;
            }
        }
        if let Some(stats) = stats
            && now.nanos_since(self.written) >= 10_000_000_000
        {
            self.written = now;
            let mut ledger = shared.ledger();
            judge.fill(&mut ledger);
            if let Err(e) = stats.write(&ledger, judge, true) {
                judge.count_unwritten("stats", &e);
            }
        }
        if now.nanos_since(self.inventoried) >= 60_000_000_000 {
            self.inventoried = now;
            if let Err(e) = judge.write_inventory_aside() {
                judge.count_unwritten("inventory", &e);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use offpath_testkit::{Conversation, Link};
    use offpath_types::{Frame, IdentityKey, LinkType, Transaction};

    use super::*;
    use crate::config::Config;

    /// Feeds `count` connections with one transaction each, from client port `first` on.
    fn feed(worker: &mut Worker, ledger: &mut Ledger, first: u16, count: u16) {
        let mut decoder = Decoder::new(Config::default().decoder_limits(&IdentityKey::new([7; 32])));
        for port in first..first + count {
            let start = Timestamp::from_parts(1, 0);
            let mut talk =
                Conversation::new(([192, 0, 2, 1], port).into(), ([198, 51, 100, 1], 80).into(), start);
            talk.handshake();
            let script = ">>>\nGET / HTTP/1.1\nHost: a.example\n\n<<<\nHTTP/1.1 204 No Content\n\n";
            talk.script(script).unwrap().close();
            for packet in talk.packets() {
                let bytes = Link::Ethernet.wrap(&packet.bytes);
                let wire_len = bytes.len() as u32;
                let frame = Frame { time: packet.time, link: LinkType::Ethernet, wire_len, bytes: &bytes };
                ledger.capture.frames_total += 1;
                if let Outcome::Tcp(segment) = decoder.decode(&frame) {
                    worker.segment(&segment);
                }
            }
        }
        ledger.decode.merge(decoder.counters());
    }

    #[test]
    fn a_full_queue_drops_counts_and_balances_and_never_waits() {
        let config = Config::default();
        let key = IdentityKey::new([7; 32]);
        let output = crate::args::OutputArgs::default();
        let mut judge = Judge::new(&output, &config, key.clone(), None, true).unwrap();
        let mut worker = config.worker_of_lane(1, &key);
        let shared = Shared::new(Arc::default(), 1, None);
        let mut ledger = Ledger::default();
        let (sender, receiver) = bounded(1);
        // Nobody receives: the first batch fills the queue, the two after it are dropped.
        for (round, transactions) in [3, 5, 7].into_iter().enumerate() {
            feed(&mut worker, &mut ledger, 2000 + 100 * round as u16, transactions);
            let now = Timestamp::from_parts(2 + round as u64, 0);
            hand_on(0, now, &mut worker, &sender, &shared, None);
        }
        assert_eq!(shared.dropped.load(Ordering::Relaxed), 5 + 7);
        drop(sender);
        let mut merge = Merge::new(1);
        for (lane, batch) in receiver {
            merge.push(lane, batch);
        }
        judge.take(&mut merge, Mark::END).unwrap();
        judge.count_dropped(
            shared.dropped.load(Ordering::Relaxed),
            shared.dropped_handshakes.load(Ordering::Relaxed),
            shared.dropped_websockets.load(Ordering::Relaxed),
        );
        worker.finish(&mut Vec::new());
        ledger.add_worker(&worker);
        judge.fill(&mut ledger);
        assert_eq!(ledger.pipeline.transactions_scored_total, 3);
        assert_eq!(ledger.pipeline.transactions_dropped_queue_full_total, 12);
        assert!(ledger.balanced(), "{:#?}", ledger.balances());
    }

    #[test]
    fn what_waits_is_bounded_by_its_bytes_but_one_batch_always_goes() {
        let config = Config::default();
        let mut worker = config.worker_of_lane(1, &IdentityKey::new([7; 32]));
        let shared = Shared::new(Arc::default(), 1, None);
        let (sender, receiver) = bounded(8);
        let mut first = 2000;
        let mut hand = |transactions, bytes_waiting| {
            first += 100;
            feed(&mut worker, &mut Ledger::default(), first, transactions);
            shared.waiting.store(bytes_waiting, Ordering::Relaxed);
            hand_on(0, Timestamp::from_parts(2, 0), &mut worker, &sender, &shared, None);
            (receiver.try_iter().count(), shared.waiting.load(Ordering::Relaxed) - bytes_waiting)
        };
        let (sent, bytes) = hand(3, 0);
        assert!(sent == 1 && bytes > 3 * size_of::<Transaction>(), "{bytes}");
        assert_eq!(hand(3, WAITING_BYTES_MAX - bytes), (1, bytes), "as much as may wait");
        assert_eq!(hand(3, WAITING_BYTES_MAX - bytes + 1), (0, 0), "a byte too much");
        assert_eq!(hand(0, WAITING_BYTES_MAX), (1, 0), "a watermark takes up nothing");
        assert_eq!(shared.dropped.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn files_about_the_run_that_cannot_be_written_are_counted_and_detection_goes_on() {
        let full = std::path::PathBuf::from("/dev/full");
        let output = crate::args::OutputArgs { inventory: Some(full.clone()), ..Default::default() };
        let mut judge =
            Judge::new(&output, &Config::default(), IdentityKey::new([7; 32]), None, true).unwrap();
        let mut stats = Some(StatsFile::open(&full).unwrap());
        let shared = Shared::new(Arc::default(), 1, None);
        let mut now = Timestamp::from_parts(1000, 0);
        let mut housekeeping = Housekeeping::new(now);
        let mut ledger = Ledger::default();
        // The stats each time, the inventory from the second time on: it is written aside.
        while ledger.pipeline.files_unwritten_total < 3 {
            now = now.plus_secs(61);
            housekeeping.run(now, &shared, &mut judge, &mut stats).unwrap();
            judge.fill(&mut ledger);
        }
        assert!(judge.write_inventory().is_err(), "the last time it is our failure");
    }
}
