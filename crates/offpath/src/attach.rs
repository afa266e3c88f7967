//! `offpath attach`: live detection on mirror ports.
//!
//! One thread per worker and interface captures, decodes, reassembles and parses; this thread merges, scores and
//! writes. A full queue between them drops the newest batch and counts it: capture never waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{RecvTimeoutError, Sender, TrySendError, bounded};
use offpath_capture::{
    CaptureCounters, LiveOptions, LiveSource, PacketSource, Polled, PrivilegeError, SourceError,
    drop_privileges,
};
use offpath_packet::{DecodeCounters, Decoder, Outcome};
use offpath_types::Timestamp;

use crate::args::{AttachArgs, Format};
use crate::config::Config;
use crate::exit::Failure;
use crate::judge::{Judge, wall_now};
use crate::ledger::Ledger;
use crate::merge::{Batch, Merge};
use crate::output::StatsFile;
use crate::records::RecordWriter;
use crate::worker::{SHARDS, Worker};

/// Batches that wait for scoring, per lane.
const QUEUE_BATCHES: usize = 256;
/// Frames after which a busy worker hands on what is finished.
const FLUSH_FRAMES: u32 = 512;
/// Packet time after which a worker hands on what is finished.
const FLUSH_NANOS: u64 = 5_000_000;
/// How far one lane may lag behind the others before they stop waiting for it.
const LANE_LAG_NANOS: u64 = 1_000_000_000;
/// Longest drain of the kernel ring at the end.
const DRAIN_NANOS: u64 = 2_000_000_000;

/// What a lane publishes about itself about once a second.
#[derive(Clone, Default)]
struct Snapshot {
    capture: CaptureCounters,
    decode: DecodeCounters,
    worker: Ledger,
}

/// What the threads share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Transactions that found the queue full.
    dropped: AtomicU64,
    snapshots: Mutex<Vec<Snapshot>>,
}

impl Shared {
    fn publish(&self, lane: usize, source: &LiveSource, decoder: &Decoder, worker: &Worker) {
        let mut snapshot =
            Snapshot { capture: source.counters(), decode: *decoder.counters(), worker: Ledger::default() };
        snapshot.worker.add_worker(worker);
        let mut all = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = all.get_mut(lane) {
            *slot = snapshot;
        }
    }

    fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for s in self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            ledger.add_source(s.capture, s.decode);
            ledger.stream.merge(&s.worker.stream);
            ledger.protocol.merge(&s.worker.protocol);
            ledger.worker.merge(&s.worker.worker);
            ledger.flows_open += s.worker.flows_open;
        }
        ledger
    }
}

/// Runs until a signal, the given duration, or the end of every interface.
pub(crate) fn run(
    args: &AttachArgs,
    config: &Config,
    judge: &mut Judge,
    stats: &mut Option<StatsFile>,
) -> Result<Ledger, Failure> {
    let interfaces = if args.interface.is_empty() { &config.capture.interfaces } else { &args.interface };
    if interfaces.is_empty() {
        return Err(Failure::usage(anyhow::anyhow!(
            "no interface: give one with -i, or set capture.interfaces in the configuration"
        )));
    }
    if let Some(twice) = interfaces.iter().enumerate().find(|(i, name)| interfaces[..*i].contains(name)) {
        return Err(Failure::usage(anyhow::anyhow!("interface {} is named twice", twice.1)));
    }
    let workers = usize::from(args.workers.map_or(config.capture.workers as u8, u8::from)).clamp(1, SHARDS);
    let mut sources = Vec::new();
    for (number, interface) in interfaces.iter().enumerate() {
        for worker in 0..workers {
            let options = live_options(args, config, interface, number, worker, workers);
            sources.push(LiveSource::open(&options).map_err(|e| source_failure(interface, e))?);
        }
    }
    let user = args.user.as_deref().unwrap_or(&config.capture.user);
    if !user.is_empty() {
        drop_privileges(Some(user)).map_err(|e| match e {
            PrivilegeError::NoUser { .. } | PrivilegeError::NotRoot { .. } => Failure::usage(e.into()),
            e => Failure::ours(e.into()),
        })?;
    }
    let shared = Arc::new(Shared::default());
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let shared = Arc::clone(&shared);
        // A second signal ends the process at once.
        // The handler only sets a flag.
        signal_flag(signal, shared)?;
    }
    let lanes = sources.len();
    shared.snapshots.lock().unwrap_or_else(PoisonError::into_inner).resize(lanes, Snapshot::default());
    if !args.output.quiet {
        eprintln!("offpath: attached to {} with {lanes} workers; stop with Ctrl-C", interfaces.join(", "));
    }
    let (sender, receiver) = bounded::<(usize, Batch)>(QUEUE_BATCHES * lanes);
    let mut joins = Vec::new();
    for (lane, source) in sources.into_iter().enumerate() {
        let (shared, sender, format) = (Arc::clone(&shared), sender.clone(), args.output.format);
        let decoder = Decoder::new(config.decoder_limits());
        let worker = config.worker_of_lane(lanes, judge.key());
        let records = judge.records_wanted();
        let body =
            move || capture_loop(lane, source, decoder, worker, &sender, &shared, records.then_some(format));
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
                if batch.watermark != Timestamp::MAX {
                    newest = newest.max(batch.watermark);
                }
                merge.push(lane, batch);
                let lagging = Timestamp::from_nanos(newest.as_nanos().saturating_sub(LANE_LAG_NANOS));
                // A single lane is in order by itself; with several, none may run ahead of the others.
                let until = if lanes == 1 && merge.watermark() != Timestamp::MAX {
                    newest.plus_nanos(1)
                } else {
                    merge.watermark().max(lagging)
                };
                judge.take(&mut merge, until)?;
                if until != Timestamp::MAX {
                    judge.advance(until)?;
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
    judge.take(&mut merge, Timestamp::MAX)?;
    let mut failure = None;
    for join in joins {
        match join.join() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => failure = Some(Failure::ours(e.into())),
            Err(_) => failure = Some(Failure::ours(anyhow::anyhow!("a capture thread panicked"))),
        }
    }
    judge.count_dropped(shared.dropped.load(Ordering::Relaxed));
    judge.end_of_capture(newest)?;
    match failure {
        Some(failure) => Err(failure),
        None => Ok(shared.ledger()),
    }
}

fn live_options(
    args: &AttachArgs,
    config: &Config,
    interface: &str,
    number: usize,
    worker: usize,
    workers: usize,
) -> LiveOptions {
    LiveOptions {
        interface: interface.to_owned(),
        worker: worker as u16,
        workers: workers as u16,
        // Different for each interface and process; the kernel keeps groups by this number per network namespace.
        fanout_group: (std::process::id() as u16).wrapping_mul(31).wrapping_add(number as u16),
        filter: args.filter.clone().or_else(|| config.capture.filter.clone()).unwrap_or_default(),
        snaplen: args.snaplen.unwrap_or(config.capture.snaplen_bytes),
        ring_bytes: args.ring_mib.unwrap_or(config.capture.ring_mib).saturating_mul(1 << 20),
        promiscuous: config.capture.promiscuous && !args.no_promiscuous,
        poll_ms: config.capture.poll_ms as u16,
    }
}

fn source_failure(interface: &str, error: SourceError) -> Failure {
    let kind = if matches!(error, SourceError::Filter { .. }) { Failure::usage } else { Failure::input };
    kind(anyhow::Error::new(error).context(format!("cannot capture on {interface}")))
}

fn signal_flag(signal: i32, shared: Arc<Shared>) -> Result<(), Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))
        .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
        .context("cannot handle signals")
        .map_err(Failure::ours)?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
            }
            shared.stop.store(true, Ordering::Relaxed);
        })
        .map(drop)
        .context("cannot start the signal thread")
        .map_err(Failure::ours)
}

fn capture_loop(
    lane: usize,
    mut source: LiveSource,
    mut decoder: Decoder,
    mut worker: Worker,
    sender: &Sender<(usize, Batch)>,
    shared: &Shared,
    format: Option<Format>,
) -> Result<(), SourceError> {
    let mut writer = format.map(RecordWriter::new);
    let (mut frames, mut flushed, mut published) = (0u32, Timestamp::ZERO, Timestamp::ZERO);
    let mut stopping: Option<Timestamp> = None;
    let mut result = Ok(());
    loop {
        let (now, idle) = match source.next_frame() {
            Ok(Polled::Frame(frame)) => {
                frames += 1;
                if let Outcome::Tcp(segment) = decoder.decode(&frame) {
                    worker.segment(&segment);
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
            hand_on(lane, now, &mut worker, sender, shared, writer.as_mut());
        }
        if now.nanos_since(published) >= 1_000_000_000 {
            published = now;
            shared.publish(lane, &source, &decoder, &worker);
        }
        if shared.stop.load(Ordering::Relaxed) {
            // What the kernel still holds is read before the end, for a bounded time.
            let since = *stopping.get_or_insert(now);
            if idle || now.nanos_since(since) >= DRAIN_NANOS {
                break;
            }
        }
    }
    let mut finished = Vec::new();
    worker.collect(flushed, Timestamp::MAX, &mut finished);
    worker.finish(&mut finished);
    // The last batch may wait: capture is over.
    let _ = sender.send((lane, Batch::new(finished, Timestamp::MAX, writer.as_mut())));
    shared.publish(lane, &source, &decoder, &worker);
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
    if let Err(TrySendError::Full((_, batch))) = sender.try_send((lane, Batch::new(finished, now, writer))) {
        shared.dropped.fetch_add(batch.transactions.len() as u64, Ordering::Relaxed);
    }
}

/// What runs beside the traffic: notices about loss, the stats file.
struct Housekeeping {
    noticed: Timestamp,
    written: Timestamp,
    lost_before: u64,
    frames_before: u64,
    lost_frames_before: u64,
}

impl Housekeeping {
    fn new(now: Timestamp) -> Self {
        Self { noticed: now, written: now, lost_before: 0, frames_before: 0, lost_frames_before: 0 }
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
            stats.write(&ledger, judge, true)?;
        }
        Ok(())
    }
}
