//! The end of the pipeline: scoring, planning, records, and what the report needs.

use std::collections::VecDeque;

use hdrhistogram::Histogram;
use offpath_enforce::{Delivery, Event, Planner, decision_record};
use offpath_score::Scorer;
use offpath_types::{
    Action, Connection, Handshake, HandshakeStage, IdentityKey, Timestamp, Transaction, WebSocketEnd,
};

use crate::args::OutputArgs;
use crate::config::Config;
use crate::connections::ConnectionWriter;
use crate::exit::Failure;
use crate::inventory::Inventory;
use crate::join::{Join, Joined};
use crate::ledger::{Ledger, PipelineCounters};
use crate::merge::{Item, Mark, Merge};
use crate::output::{InventoryFile, Lines};
use crate::records::RecordWriter;
use crate::report::Findings;

/// Scores transactions in their total order, makes decisions of the verdicts, writes both.
pub(crate) struct Judge {
    key: IdentityKey,
    scorer: Scorer,
    planner: Planner,
    writer: RecordWriter,
    transactions: Option<Lines>,
    decisions: Option<Lines>,
    connections: Option<(Lines, ConnectionWriter)>,
    join: Join,
    line: Vec<u8>,
    /// The head of a record, rendered again.
    head: Vec<u8>,
    events: Vec<Event>,
    delivery: Option<Delivery>,
    /// Events offered to delivery so far.
    offered: u64,
    /// Decision records that wait until the outbox has their decision: the number of their offer, and the line.
    unkept: VecDeque<(u64, Vec<u8>)>,
    inventory: Option<(Inventory, InventoryFile)>,
    live: bool,
    observed: Observability,
    counters: PipelineCounters,
    /// What the report shows.
    pub(crate) findings: Findings,
    /// From the deciding packet to the decision, in µs; live capture only.
    pub(crate) detection_us: Histogram<u64>,
}

impl Judge {
    /// Opens the outputs. `live` says that packet time is wall time, so that latencies mean something.
    pub(crate) fn new(
        output: &OutputArgs,
        config: &Config,
        key: IdentityKey,
        delivery: Option<Delivery>,
        live: bool,
    ) -> Result<Self, Failure> {
        let open = |path: &Option<std::path::PathBuf>| path.as_deref().map(Lines::open).transpose();
        let seed = key.seed(b"score-tables");
        Ok(Self {
            scorer: Scorer::new(config.score_config(), config.policies(), seed),
            planner: Planner::new(config.planner_config(key.seed(b"planner-tables"))),
            writer: RecordWriter::new(output.format),
            transactions: open(&output.transactions)?,
            decisions: open(&output.decisions)?,
            connections: open(&output.connections)?.map(|out| (out, ConnectionWriter::new())),
            join: Join::new(config.join_config()),
            line: Vec::with_capacity(4096),
            head: Vec::new(),
            events: Vec::new(),
            delivery,
            offered: 0,
            unkept: VecDeque::new(),
            inventory: match output.inventory.as_deref() {
                Some(path) => Some((Inventory::new(config.inventory_limits()), InventoryFile::open(path)?)),
                None => None,
            },
            live,
            observed: Observability::default(),
            counters: PipelineCounters::default(),
            findings: Findings::default(),
            detection_us: Histogram::new_with_bounds(1, 3_600_000_000, 3)
                .map_err(|e| Failure::ours(anyhow::anyhow!("latency histogram: {e:?}")))?,
            key,
        })
    }

    /// Returns the identity key.
    pub(crate) fn key(&self) -> &IdentityKey {
        &self.key
    }

    /// Tells whether transaction records are written.
    pub(crate) fn records_wanted(&self) -> bool {
        self.transactions.is_some()
    }

    /// Scores everything before `until`, in order.
    pub(crate) fn take(&mut self, merge: &mut Merge, until: Mark) -> Result<(), Failure> {
        let mut result = Ok(());
        merge.drain(until, |item| {
            if result.is_ok() {
                result = match item {
                    Item::Transaction(tx, head) => self.judge(tx, head),
                    Item::Connection(Connection::Handshake(handshake)) => self.handshake(&handshake),
                    Item::Connection(Connection::WebSocket(websocket)) => self.websocket(&websocket),
                };
            }
        });
        self.counters.transactions_late_total = merge.late_total;
        result
    }

    /// Ends TTLs up to `now`; live capture calls it on idle links too.
    pub(crate) fn advance(&mut self, now: Timestamp) -> Result<(), Failure> {
        self.planner.advance(now, &mut self.events);
        if self.events.is_empty() { Ok(()) } else { self.publish(None) }
    }

    /// Ends TTLs that end within the capture, and writes out what is buffered.
    pub(crate) fn end_of_capture(&mut self, now: Timestamp) -> Result<(), Failure> {
        self.advance(now)?;
        self.flush()
    }

    /// Writes out what is buffered, and the records of decisions that the outbox has.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.write_kept(false)?;
        let connections = self.connections.as_mut().map(|(out, _)| out);
        let outputs = [self.transactions.as_mut(), self.decisions.as_mut(), connections];
        for output in outputs.into_iter().flatten() {
            output.flush()?;
        }
        Ok(())
    }

    /// Writes out everything, delivered or not.
    pub(crate) fn close(&mut self) -> Result<(), Failure> {
        self.write_kept(true)?;
        self.flush()
    }

    /// Writes the records of decisions that `kill -9` cannot lose any more.
    pub(crate) fn write_kept(&mut self, all: bool) -> Result<(), Failure> {
        if self.unkept.is_empty() {
            return Ok(());
        }
        let kept = if all { u64::MAX } else { self.delivery.as_ref().map_or(u64::MAX, Delivery::kept) };
        let Some(out) = &mut self.decisions else { return Ok(()) };
        while self.unkept.front().is_some_and(|(number, _)| *number <= kept) {
            let Some((_, line)) = self.unkept.pop_front() else { break };
            out.write(&line)?;
        }
        if self.live { out.flush() } else { Ok(()) }
    }

    /// Says which share of `frames` on the wire reached us lately; live capture only.
    pub(crate) fn set_frames_seen(&mut self, share: f64, frames: u64) {
        if frames > 0 {
            self.observed.frames_seen = share.clamp(0.0, 1.0);
        }
    }

    /// Counts transactions that a full queue kept from scoring, handshakes that it kept from being joined, and WebSocket
    /// connections that it kept from being written.
    pub(crate) fn count_dropped(&mut self, transactions: u64, handshakes: u64, websockets: u64) {
        self.counters.transactions_total += transactions;
        self.counters.transactions_dropped_queue_full_total += transactions;
        self.counters.handshakes_total += handshakes;
        self.counters.handshakes_dropped_queue_full_total += handshakes;
        self.counters.websockets_total += websockets;
        self.counters.websockets_dropped_queue_full_total += websockets;
    }

    /// Counts eras that the reader ended.
    pub(crate) fn count_eras(&mut self, eras: u32) {
        self.counters.eras_total = u64::from(eras);
    }

    /// Adds the counters of scoring and planning.
    pub(crate) fn fill(&self, ledger: &mut Ledger) {
        ledger.pipeline = self.counters;
        ledger.join = *self.join.counters();
        ledger.score = *self.scorer.counters();
        ledger.planner = self.planner.counters();
        ledger.inventory = self.inventory.as_ref().map(|(inventory, _)| *inventory.counters());
    }

    /// Writes the inventory as it is now, where one is made.
    pub(crate) fn write_inventory(&mut self) -> Result<(), Failure> {
        match &mut self.inventory {
            Some((inventory, file)) => file.write(inventory),
            None => Ok(()),
        }
    }

    /// Begins to write the inventory as it is now, beside the traffic.
    pub(crate) fn write_inventory_aside(&mut self) -> Result<(), Failure> {
        match &mut self.inventory {
            Some((inventory, file)) => file.write_aside(inventory),
            None => Ok(()),
        }
    }

    /// Counts a file about the run that could not be written while it goes on.
    pub(crate) fn count_unwritten(&mut self, what: &str, failure: &Failure) {
        self.counters.files_unwritten_total += 1;
        tracing::warn!("cannot write the {what}, trying again later: {failure}");
    }

    /// Returns the scorer, for its summary.
    pub(crate) fn scorer(&self) -> &Scorer {
        &self.scorer
    }

    /// Returns the delivery, where decisions are sent.
    pub(crate) fn delivery(&mut self) -> Option<&mut Delivery> {
        self.delivery.as_mut()
    }

    /// Remembers what a handshake shows for transactions to come, and writes it.
    fn handshake(&mut self, handshake: &Handshake) -> Result<(), Failure> {
        self.join.remember(handshake);
        if handshake.stage != HandshakeStage::Done {
            return Ok(());
        }
        self.counters.handshakes_total += 1;
        self.write_connection(|writer, line| writer.push(handshake, line))
    }

    /// Writes what went over a WebSocket connection.
    fn websocket(&mut self, websocket: &WebSocketEnd) -> Result<(), Failure> {
        self.counters.websockets_total += 1;
        self.write_connection(|writer, line| writer.push_websocket(websocket, line))
    }

    fn write_connection(
        &mut self,
        push: impl FnOnce(&mut ConnectionWriter, &mut Vec<u8>),
    ) -> Result<(), Failure> {
        if let Some((out, writer)) = &mut self.connections {
            self.line.clear();
            push(writer, &mut self.line);
            out.write(&self.line)?;
            self.counters.connections_written_total += 1;
        }
        Ok(())
    }

    fn judge(&mut self, tx: &mut Transaction, head: &[u8]) -> Result<(), Failure> {
        self.counters.transactions_total += 1;
        let (mut again, mut head) = (std::mem::take(&mut self.head), head);
        let joined = self.join.apply(tx) == Joined::Changed;
        if (joined || head.is_empty()) && self.transactions.is_some() {
            // The worker rendered the head before this was known, or had rendered enough.
            again.clear();
            self.writer.push_head(tx, &mut again);
            head = &again;
        }
        let tx = &*tx;
        let verdict = self.scorer.observe(tx);
        self.counters.transactions_scored_total += 1;
        self.observed.observe(tx);
        self.findings.observe(tx, &verdict);
        if let Some((inventory, _)) = &mut self.inventory {
            inventory.observe(tx);
        }
        self.planner.plan(tx, &verdict, &mut self.events);
        if let Some(out) = &mut self.transactions {
            self.line.clear();
            self.writer.push_tail(tx, &verdict, &mut self.line);
            out.write(head)?;
            out.write(&self.line)?;
            self.counters.records_written_total += 1;
        }
        self.head = again;
        if self.events.is_empty() { Ok(()) } else { self.publish(Some(tx)) }
    }

    /// Writes and sends what planning made; `deciding` is the transaction that did it.
    fn publish(&mut self, deciding: Option<&Transaction>) -> Result<(), Failure> {
        for mut event in self.events.drain(..) {
            if let Event::Decision(decision) = &mut event {
                decision.observability = self.observed.share();
                self.counters.decisions_total += 1;
                // An `unblock` comes of time, whichever transaction showed that it had passed.
                let deciding = deciding.filter(|_| decision.action != Action::Unblock);
                self.findings.decided(decision, deciding);
                if let Some(tx) = deciding.filter(|_| self.live) {
                    self.detection_us.saturating_record(wall_now().nanos_since(tx.emitted) / 1000);
                }
                if self.decisions.is_some() {
                    let mut line = serde_json::to_vec(&decision_record(decision))
                        .map_err(|e| Failure::ours(e.into()))?;
                    line.push(b'\n');
                    // Written once the outbox has the decision; without delivery at once.
                    let number = if self.delivery.is_some() { self.offered + 1 } else { 0 };
                    self.unkept.push_back((number, line));
                }
            }
            self.findings.event(&event);
            if let Some(delivery) = &mut self.delivery {
                // A full queue is counted there; nothing here waits.
                delivery.offer(event);
                self.offered += 1;
            }
        }
        self.write_kept(false)
    }
}

/// Returns the wall clock as packet time; live capture only.
#[expect(clippy::disallowed_methods, reason = "live packet time is wall time; a replay never calls this")]
pub(crate) fn wall_now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_parts(since.as_secs(), u64::from(since.subsec_nanos()))
}

/// Share of the recent traffic that was seen: of the frames that reached the capture, times of the transactions that
/// are whole (a moving average over about 1000).
#[derive(Debug)]
struct Observability {
    whole: f64,
    frames_seen: f64,
}

impl Default for Observability {
    fn default() -> Self {
        Self { whole: 1.0, frames_seen: 1.0 }
    }
}

impl Observability {
    fn observe(&mut self, tx: &Transaction) {
        let whole = f64::from(u8::from(tx.complete));
        self.whole += (whole - self.whole) / 1000.0;
    }

    /// Returns the share, 0..=1, in steps of 0.001.
    fn share(&self) -> f64 {
        (self.whole * self.frames_seen * 1000.0).round() / 1000.0
    }
}
