//! `offpath replay`: capture files through the whole pipeline, on packet time.
//!
//! One worker does everything in one thread. With more, a reader thread decodes and spreads segments over the workers
//! by shard, workers reassemble, parse and render record heads, and this thread merges, scores and writes. Queues are
//! bounded and a full one makes the sender wait: a file loses nothing.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, bounded};
use offpath_capture::{CaptureCounters, PacketSource, Polled};
use offpath_packet::{DecodeCounters, Decoder, Outcome};
use offpath_types::Timestamp;

use crate::args::{Format, ReplayArgs};
use crate::config::Config;
use crate::exit::Failure;
use crate::judge::Judge;
use crate::keys::Keys;
use crate::ledger::Ledger;
use crate::merge::{Batch, Eras, Mark, Merge};
use crate::progress::Progress;
use crate::records::RecordWriter;
use crate::segments::SegmentBatch;
use crate::sources::Input;
use crate::worker::{Worker, settled, shard_of};

/// Frames after which one thread that does everything turns from parsing to scoring: few, so that what is parsed is
/// still in the second-level cache when it is scored (with 2048, a replay took a tenth longer).
const TURN_FRAMES: u32 = 256;
/// Segments in a batch between threads: large enough that a queue operation costs nothing per packet.
const BATCH_SEGMENTS: u32 = 2048;
/// Payload bytes in a batch between threads.
const BATCH_BYTES: usize = 1 << 20;
/// Batches that wait in a queue; with `BATCH_BYTES` this bounds the segments in flight.
const QUEUE_BATCHES: usize = 8;
/// Largest batch of transactions that goes back to its worker to be freed and filled again: many may wait there. A
/// larger one is freed at once.
const BACK_BYTES: usize = 2 << 20;
/// Bytes of transactions in flight to the judge, of all workers; a worker past its share waits.
const IN_FLIGHT_BYTES: usize = 128 << 20;

/// What a finished replay found.
#[derive(Default)]
pub(crate) struct Replayed {
    /// Every counter.
    pub(crate) ledger: Ledger,
    /// Damage in the input, one line each.
    pub(crate) problems: Vec<String>,
}

/// Runs a replay to its end.
pub(crate) fn run(args: &ReplayArgs, config: &Config, judge: &mut Judge) -> Result<Replayed, Failure> {
    let mut keys = if config.decryption.live {
        Keys::follow(&args.keylog, config.live_key_limits(), args.output.quiet)?
    } else {
        Keys::load(&args.keylog)?
    };
    let mut source = Input::open(args, config)?;
    let workers = config.workers(args.workers);
    let progress = Progress::start(!args.output.quiet);
    let mut done = Replayed::default();
    let format = args.output.format;
    if workers == 1 {
        run_inline(format, config, judge, &mut source, &mut keys, &progress, &mut done)?;
    } else {
        run_threads(workers, format, config, judge, &mut source, &mut keys, &progress, &mut done)?;
    }
    progress.finish();
    (done.ledger.keys, done.ledger.live_keys) = keys.finish()?;
    done.problems.extend(source.problems());
    Ok(done)
}

fn run_inline(
    format: Format,
    config: &Config,
    judge: &mut Judge,
    source: &mut Input,
    keys: &mut Keys,
    progress: &Progress,
    replayed: &mut Replayed,
) -> Result<(), Failure> {
    let mut decoder = Decoder::new(config.decoder_limits(judge.key()));
    let mut worker = config.worker(0, 1, judge.key());
    worker.set_keys(keys.store());
    let mut writer = judge.records_wanted().then(|| RecordWriter::new(format));
    let mut merge = Merge::new(1);
    let following = matches!(source, Input::Stream(_));
    let (mut since, mut now) = (0u32, Timestamp::ZERO);
    let (mut batch, mut eras, mut era) = (Batch::default(), Eras::default(), 0);
    loop {
        let mut idle = false;
        match source.fresh_secrets() {
            Ok([]) => {}
            Ok(blocks) => worker.add_keys(&keys.read(blocks), now),
            Err(e) => {
                replayed.problems.push(e.to_string());
                break;
            }
        }
        if let Some(lines) = keys.fresh() {
            worker.add_keys(&lines, now);
            // What waited for them is handed on at the next pause.
            since += 1;
        }
        let era_ends = match source.next_frame() {
            Ok(Polled::Frame(frame)) => {
                now = frame.time;
                match decoder.decode(&frame) {
                    Outcome::Tcp(segment) => worker.segment(&segment),
                    Outcome::Sctp(packet) => worker.sctp(&packet),
                    Outcome::Udp(datagram) => worker.datagram(&datagram),
                    _ => {}
                }
                since += 1;
                eras.frame(settled(now), frame.bytes.len())
            }
            Ok(Polled::Idle(_)) => {
                idle = true;
                false
            }
            Ok(Polled::End) => break,
            Err(e) => {
                // What could be read is still processed and counted.
                replayed.problems.push(e.to_string());
                break;
            }
        };
        if since >= TURN_FRAMES || era_ends || idle && since > 0 {
            since = 0;
            let mark = collect(&mut worker, now, era, era_ends, &mut batch);
            if !batch.is_empty() {
                batch.finish(era, mark, writer.as_mut());
                merge.push(0, batch);
                judge.take(&mut merge, mark)?;
                batch = merge.take_spent().next().map(|(_, spent)| spent).unwrap_or_default();
                batch.clear();
            }
            era = mark.era;
            progress.update(source.progress());
            // A source that is busy is never idle, and somebody may watch.
            if idle || following {
                judge.flush()?;
            }
        }
    }
    keys.last().iter().for_each(|lines| worker.add_keys(lines, now));
    worker.collect(now, settled(now), &mut batch.transactions);
    worker.finish(&mut batch.transactions);
    worker.take_connections(&mut batch.connections);
    batch.finish(era, Mark::END, writer.as_mut());
    merge.push(0, batch);
    judge.take(&mut merge, Mark::END)?;
    judge.count_eras(eras.ended);
    judge.end_of_capture(now)?;
    replayed.ledger.add_source(source.counters(), *decoder.counters());
    replayed.ledger.add_worker(&worker);
    Ok(())
}

/// Moves what is settled at `now` into `batch`, or everything where the era ends; returns the mark that is reached.
fn collect(worker: &mut Worker, now: Timestamp, era: u32, era_ends: bool, batch: &mut Batch) -> Mark {
    let until = if era_ends { Timestamp::MAX } else { settled(now) };
    worker.collect(now, until, &mut batch.transactions);
    worker.take_connections(&mut batch.connections);
    if era_ends { Mark { era: era + 1, time: Timestamp::ZERO } } else { Mark { era, time: until } }
}

struct ReaderDone {
    capture: CaptureCounters,
    decode: DecodeCounters,
    last: Timestamp,
    eras: u32,
    error: Option<String>,
}

#[expect(clippy::too_many_arguments, reason = "all that a replay is made of")]
fn run_threads(
    workers: usize,
    format: Format,
    config: &Config,
    judge: &mut Judge,
    source: &mut Input,
    keys: &mut Keys,
    progress: &Progress,
    replayed: &mut Replayed,
) -> Result<(), Failure> {
    let records = judge.records_wanted();
    let following = matches!(source, Input::Stream(_));
    let key = judge.key().clone();
    let (done_tx, done_rx) = bounded::<(usize, Batch)>(QUEUE_BATCHES * workers);
    let gates: Vec<_> = (0..workers).map(|_| Gate::new(IN_FLIGHT_BYTES / workers)).collect();
    thread::scope(|scope| {
        // However this thread ends, nobody is left waiting for it.
        let gates = Gates(&gates);
        let (mut feeds, mut backs) = (Vec::new(), Vec::new());
        let mut joins = Vec::new();
        // Empty batches travel back to the reader, so that the steady state allocates nothing.
        let (spare_tx, spare_rx) = bounded::<SegmentBatch>(QUEUE_BATCHES * workers);
        for index in 0..workers {
            let (feed_tx, feed_rx) = bounded::<SegmentBatch>(QUEUE_BATCHES);
            feeds.push(feed_tx);
            let (back_tx, back_rx) = bounded::<Batch>(QUEUE_BATCHES * 2);
            backs.push(back_tx);
            let (done, spare, key) = (done_tx.clone(), spare_tx.clone(), key.clone());
            let (store, gate) = (keys.store(), &gates.0[index]);
            joins.push(
                thread::Builder::new()
                    .name(format!("worker-{index}"))
                    .spawn_scoped(scope, move || {
                        let mut writer = records.then(|| RecordWriter::new(format));
                        let mut worker = config.worker(index, workers, &key);
                        worker.set_keys(store);
                        let (feed, spare, done, back) = (&feed_rx, &spare, &done, &back_rx);
                        let lane = Lane { index, feed, spare, done, back, gate };
                        work(&lane, worker, writer.as_mut())
                    })
                    .context("cannot start a worker thread")
                    .map_err(Failure::ours)?,
            );
        }
        drop(done_tx);
        drop(spare_tx);
        let seed = key.seed(b"flow-hash");
        let decoder = Decoder::new(config.decoder_limits(&key));
        let reader = thread::Builder::new()
            .name("reader".into())
            .spawn_scoped(scope, move || read(source, decoder, seed, feeds, &spare_rx, keys, progress))
            .context("cannot start the reader thread")
            .map_err(Failure::ours)?;

        let mut merge = Merge::new(workers);
        let mut failure = None;
        for (lane, batch) in done_rx {
            merge.push(lane, batch);
            let until = merge.watermark();
            if failure.is_none()
                && let Err(e) = judge.take(&mut merge, until)
            {
                // Keep receiving so that no thread waits for ever; the error is reported below.
                failure = Some(e);
            }
            gates.leave(&mut merge);
            if failure.is_some() {
                gates.open();
            }
            if following && failure.is_none() {
                failure = judge.flush().err();
            }
            for (lane, spent) in merge.take_spent().filter(|(_, spent)| spent.bytes() <= BACK_BYTES) {
                // A full queue only means that the worker has enough.
                let _ = backs[lane].try_send(spent);
            }
        }
        for join in joins {
            match join.join() {
                Ok(worker) => replayed.ledger.add_worker(&worker),
                Err(_) => {
                    failure = failure.or(Some(Failure::ours(anyhow::anyhow!("a worker thread panicked"))))
                }
            }
        }
        let done = reader.join().map_err(|_| Failure::ours(anyhow::anyhow!("the reader thread panicked")))?;
        replayed.ledger.add_source(done.capture, done.decode);
        if let Some(failure) = failure {
            return Err(failure);
        }
        replayed.problems.extend(done.error);
        judge.count_eras(done.eras);
        judge.end_of_capture(done.last)
    })
}

fn read(
    source: &mut Input,
    mut decoder: Decoder,
    seed: u64,
    feeds: Vec<Sender<SegmentBatch>>,
    spare: &Receiver<SegmentBatch>,
    keys: &mut Keys,
    progress: &Progress,
) -> ReaderDone {
    let workers = feeds.len();
    let mut open: Vec<SegmentBatch> = (0..workers).map(|_| SegmentBatch::default()).collect();
    let (mut frames, mut bytes) = (0u32, 0usize);
    let mut now = Timestamp::ZERO;
    let mut error = None;
    let mut eras = Eras::default();
    let flush = |open: &mut Vec<SegmentBatch>, until: Timestamp, era_ends: bool, last: bool| -> bool {
        let mut alive = true;
        for (feed, slot) in feeds.iter().zip(open) {
            let mut batch = spare.try_recv().unwrap_or_default();
            batch.clear();
            std::mem::swap(slot, &mut batch);
            (batch.until, batch.era_ends, batch.last) = (until, era_ends, last);
            alive &= feed.send(batch).is_ok();
        }
        alive
    };
    loop {
        let mut idle = false;
        match source.fresh_secrets() {
            Ok([]) => {}
            Ok(blocks) => {
                let lines = Arc::new(keys.read(blocks));
                if !flush(&mut open, now, false, false) {
                    break;
                }
                (frames, bytes) = (0, 0);
                open.iter_mut().for_each(|batch| batch.keys.push(Arc::clone(&lines)));
            }
            Err(e) => {
                error = Some(e.to_string());
                break;
            }
        }
        if let Some(lines) = keys.fresh() {
            open.iter_mut().for_each(|batch| batch.keys.push(Arc::clone(&lines)));
            // They go with the frames that came before them, or at the next pause.
            frames += 1;
        }
        let era_ends = match source.next_frame() {
            Ok(Polled::Frame(frame)) => {
                now = frame.time;
                frames += 1;
                match decoder.decode(&frame) {
                    Outcome::Tcp(segment) => {
                        bytes += segment.payload.len();
                        let hash = segment.key.hash64(seed);
                        open[shard_of(hash) % workers].push(hash, &segment);
                    }
                    Outcome::Sctp(packet) => {
                        bytes += packet.payload.len();
                        let hash = packet.key.hash64(seed);
                        open[shard_of(hash) % workers].push_sctp(hash, &packet);
                    }
                    Outcome::Udp(datagram) => {
                        bytes += datagram.payload.len();
                        let hash = datagram.key.hash64(seed);
                        open[shard_of(hash) % workers].push_datagram(hash, &datagram);
                    }
                    _ => {}
                }
                eras.frame(settled(now), frame.bytes.len())
            }
            Ok(Polled::Idle(_)) => {
                idle = true;
                false
            }
            Ok(Polled::End) => break,
            Err(e) => {
                error = Some(e.to_string());
                break;
            }
        };
        if frames >= BATCH_SEGMENTS * workers as u32
            || bytes >= BATCH_BYTES * workers
            || era_ends
            || idle && frames > 0
        {
            (frames, bytes) = (0, 0);
            if !flush(&mut open, now, era_ends, false) {
                break;
            }
            progress.update(source.progress());
        }
    }
    for lines in keys.last() {
        open.iter_mut().for_each(|batch| batch.keys.push(Arc::clone(&lines)));
    }
    flush(&mut open, now, false, true);
    ReaderDone { capture: source.counters(), decode: *decoder.counters(), last: now, eras: eras.ended, error }
}

/// Bounds the bytes that a worker has in flight to the judge. No worker waits for ever: of the one that is furthest
/// behind, everything in flight is settled, and the reader has fed it all that the others wait for.
struct Gate {
    bytes_max: usize,
    /// Bytes in flight; `None` where nobody counts them any more.
    bytes: Mutex<Option<usize>>,
    left: Condvar,
}

impl Gate {
    const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: Mutex::new(Some(0)), left: Condvar::new() }
    }

    /// Waits until no more than may be is in flight: then one batch may be made, however large.
    fn wait(&self) {
        let held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |held: &mut Option<usize>| held.is_some_and(|held| held > self.bytes_max);
        drop(self.left.wait_while(held, full));
    }

    /// Adds what is sent.
    fn enter(&self, bytes: usize) {
        self.change(|held| Some(held + bytes));
    }

    fn change(&self, change: impl FnOnce(usize) -> Option<usize>) {
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *held = held.and_then(change);
        self.left.notify_one();
    }
}

/// The gates of all workers. They stand open once this is dropped, so that nobody waits for a judge that has gone.
struct Gates<'a>(&'a [Gate]);

impl Gates<'_> {
    /// Takes off what the judge has taken of each worker.
    fn leave(&self, merge: &mut Merge) {
        for (gate, bytes) in self.0.iter().zip(merge.handed_out()) {
            match std::mem::take(bytes) {
                0 => {}
                bytes => gate.change(|held| Some(held.saturating_sub(bytes))),
            }
        }
    }

    fn open(&self) {
        self.0.iter().for_each(|gate| gate.change(|_| None));
    }
}

impl Drop for Gates<'_> {
    fn drop(&mut self) {
        self.open();
    }
}

/// The queues of one worker.
struct Lane<'a> {
    index: usize,
    /// Segments from the reader, and where their batches go back to.
    feed: &'a Receiver<SegmentBatch>,
    spare: &'a Sender<SegmentBatch>,
    /// Transactions to the judge, and where their batches come back from.
    done: &'a Sender<(usize, Batch)>,
    back: &'a Receiver<Batch>,
    gate: &'a Gate,
}

fn work(lane: &Lane<'_>, mut worker: Worker, mut writer: Option<&mut RecordWriter>) -> Worker {
    let (mut sent, mut era, mut now) = (Mark::default(), 0, Timestamp::ZERO);
    for segments in lane.feed {
        let mut batch = lane.back.try_recv().unwrap_or_default();
        batch.clear();
        lane.gate.wait();
        segments.keys.iter().for_each(|lines| worker.add_keys(lines, now));
        now = segments.until;
        for (hash, segment) in segments.segments() {
            worker.take_hashed(hash, &segment);
        }
        for (hash, datagram) in segments.datagrams() {
            worker.datagram_hashed(hash, &datagram);
        }
        let mut mark = collect(&mut worker, segments.until, era, segments.era_ends, &mut batch);
        let last = segments.last;
        // A full spare queue only means that the reader has enough.
        let _ = lane.spare.try_send(segments);
        if last {
            worker.finish(&mut batch.transactions);
            worker.take_connections(&mut batch.connections);
            mark = Mark::END;
        }
        if mark == sent && batch.is_empty() {
            continue;
        }
        sent = mark;
        batch.finish(era, mark, writer.as_deref_mut());
        era = mark.era;
        lane.gate.enter(batch.bytes());
        if lane.done.send((lane.index, batch)).is_err() {
            break;
        }
    }
    worker
}

/// Tells whether an output error only says that the reader of a pipe has gone (`offpath replay … | head`).
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_worker_waits_for_what_is_in_flight_until_the_judge_takes_it_or_goes() {
        let gates = [Gate::new(100), Gate::new(100)];
        // One batch goes, however large, and what fits.
        gates[0].enter(1000);
        gates[1].enter(100);
        gates[1].enter(1);
        let (passed, told) = bounded(2);
        let silence = || told.recv_timeout(Duration::from_millis(50)).is_err();
        thread::scope(|scope| {
            for (lane, gate) in gates.iter().enumerate() {
                let passed = passed.clone();
                scope.spawn(move || {
                    gate.wait();
                    gate.enter(500);
                    passed.send(lane).unwrap();
                });
            }
            let opened = Gates(&gates);
            assert!(silence(), "both wait");
            let mut merge = Merge::new(2);
            merge.handed_out()[0] = 899;
            opened.leave(&mut merge);
            assert!(silence(), "a byte too much is in flight");
            merge.handed_out()[0] = 1;
            opened.leave(&mut merge);
            assert_eq!(told.recv(), Ok(0));
            assert_eq!(merge.handed_out(), [0, 0]);
            assert!(silence(), "each worker has its own share");
            drop(opened);
            assert_eq!(told.recv(), Ok(1));
            gates.iter().for_each(|gate| gate.enter(1000));
            gates.iter().for_each(Gate::wait);
        });
    }
}
