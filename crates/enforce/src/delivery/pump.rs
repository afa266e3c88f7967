//! The outbox thread: takes what was offered, hands it to the targets, writes it down.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Intake, Offered, Shared, expires_ms};
use crate::clock;
use crate::outbox::{Ended, Outbox, Row};
use crate::record::webhook_body;

/// Events written in one commit.
const BATCH_MAX: usize = 1024;
/// Ended rows alone are not urgent: they wait this long for company.
const ENDED_WAIT: Duration = Duration::from_millis(20);
/// Pause before rows that could not be read are tried again.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// What the outbox thread knows of one target.
#[derive(Clone, Copy, Default)]
struct Lane {
    /// Rows in the target's hands.
    held: usize,
    /// Rows on the books: held or on disk only.
    waiting: u64,
    /// The first row that is on disk only; later ones are too.
    spilled_from: Option<u64>,
}

pub(super) struct Pump {
    shared: Arc<Shared>,
    outbox: Option<Outbox>,
    next_seq: u64,
    lanes: Vec<Lane>,
    /// Rows could not be read from disk: tried again although nothing else happens.
    unread: bool,
}

impl Pump {
    pub(super) fn new(shared: Arc<Shared>, outbox: Option<Outbox>, next_seq: u64) -> Self {
        let lane =
            |pending: u64| Lane { held: 0, waiting: pending, spilled_from: (pending > 0).then_some(0) };
        let lanes = shared.stats().targets.iter().map(|t| lane(t.pending)).collect();
        Self { shared, outbox, next_seq, lanes, unread: false }
    }

    pub(super) fn run(mut self) {
        self.refill();
        loop {
            let (offered, ended, stop) = self.wait();
            let mut finished = offered.len() as u64;
            let taken = finished;
            let rows = self.rows(offered);
            let added = rows.len() as u64;
            // The wire does not wait for the disk: a repeat after `kill -9` is harmless (the id is the same), and who
            // wants to name only decisions that cannot be lost asks `Delivery::kept`. A row that ends meanwhile is
            // taken with the next batch, so its removal is always committed after its insertion.
            let spilled = self.hand_out(&rows);
            if (!rows.is_empty() || !ended.is_empty())
                && let Some(outbox) = &mut self.outbox
            {
                let result = outbox.commit(&rows, &ended);
                let mut stats = self.shared.stats();
                stats.commits += 1;
                if let Err(error) = result {
                    stats.commit_failures += 1;
                    drop(stats);
                    // What was handed out is sent all the same: a decision that is delivered but not durable beats
                    // one that is lost. What was to wait on disk is nowhere.
                    tracing::error!(%error, "the outbox cannot be written");
                    finished += spilled.len() as u64;
                    self.lose(spilled);
                }
            }
            // On disk now, where there is a disk that can be written: what comes next may be killed at any moment.
            self.shared.kept.fetch_add(taken, Ordering::Release);
            for end in &ended {
                if let Some(lane) = self.lanes.get_mut(end.target) {
                    lane.held = lane.held.saturating_sub(1);
                    lane.waiting = lane.waiting.saturating_sub(1);
                }
            }
            finished += ended.len() as u64;
            self.refill();
            let mut intake = self.shared.intake();
            intake.unfinished = (intake.unfinished + added).saturating_sub(finished);
            if intake.unfinished == 0 {
                self.shared.idle.notify_all();
            }
            if stop && intake.events.is_empty() && intake.ended.is_empty() {
                return;
            }
        }
    }

    fn wait(&self) -> (Vec<Offered>, Vec<Ended>, bool) {
        let nothing = |i: &mut Intake| i.events.is_empty() && i.ended.is_empty() && !i.stop;
        let lock = self.shared.intake();
        let ready = &self.shared.intake_ready;
        let mut intake = if self.unread {
            let waited = ready.wait_timeout_while(lock, READ_AGAIN, nothing);
            waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
        } else {
            ready.wait_while(lock, nothing).unwrap_or_else(std::sync::PoisonError::into_inner)
        };
        if intake.events.is_empty() && !intake.stop && self.outbox.is_some() {
            let alone = |i: &mut Intake| i.events.is_empty() && !i.stop && i.ended.len() < BATCH_MAX;
            (intake, _) = self
                .shared
                .intake_ready
                .wait_timeout_while(intake, ENDED_WAIT, alone)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let take = intake.events.len().min(BATCH_MAX);
        let offered: Vec<Offered> = intake.events.drain(..take).collect();
        intake.first += take as u64;
        if intake.events.is_empty() {
            intake.last.clear();
        }
        (offered, std::mem::take(&mut intake.ended), intake.stop)
    }

    /// Makes a row for each target that wants an event and has room.
    fn rows(&mut self, offered: Vec<Offered>) -> Vec<(usize, Row)> {
        let now_ms = clock::wall_ms();
        let mut rows = Vec::new();
        let mut stats = self.shared.stats();
        for Offered { event, entity, at } in offered {
            stats.taken += 1;
            let mut body: Option<Arc<str>> = None;
            for (target, config) in self.shared.targets.iter().enumerate().filter(|(_, t)| t.wants(&event)) {
                let (Some(lane), Some(counts)) = (self.lanes.get_mut(target), stats.targets.get_mut(target))
                else {
                    continue;
                };
                counts.accepted += 1;
                let room = match self.outbox {
                    Some(_) => lane.waiting < self.shared.outbox_rows_max,
                    None => lane.waiting < self.shared.held_max as u64,
                };
                let text = match &body {
                    Some(text) => Arc::clone(text),
                    // Strings and finite numbers only: serialising cannot fail.
                    None => body.insert(webhook_body(&event).unwrap_or_default().into()).clone(),
                };
                if !room || text.is_empty() {
                    counts.dropped += 1;
                    tracing::debug!(target = config.name, id = event.id(), "no room for a webhook");
                    continue;
                }
                lane.waiting += 1;
                counts.pending += 1;
                rows.push((
                    target,
                    Row {
                        seq: self.next_seq,
                        id: event.id().into(),
                        entity,
                        body: text,
                        accepted_ms: now_ms,
                        expires_ms: expires_ms(&event, now_ms),
                        offered: Some(at),
                        attempts: 0,
                    },
                ));
                self.next_seq += 1;
            }
        }
        rows
    }

    /// Hands rows to their targets; returns the targets of those that there is no room for: they wait on disk.
    fn hand_out(&mut self, rows: &[(usize, Row)]) -> Vec<usize> {
        let mut spilled = Vec::new();
        for (target, row) in rows {
            let (Some(lane), Some(queue)) = (self.lanes.get_mut(*target), self.shared.queues.get(*target))
            else {
                continue;
            };
            if self.outbox.is_some() && (lane.spilled_from.is_some() || lane.held >= self.shared.held_max) {
                lane.spilled_from.get_or_insert(row.seq);
                spilled.push(*target);
                continue;
            }
            lane.held += 1;
            queue.push(row.clone());
        }
        spilled
    }

    /// Takes rows that are neither held nor on disk off the books, one per entry of `targets`.
    fn lose(&mut self, targets: Vec<usize>) {
        for target in targets {
            if let Some(lane) = self.lanes.get_mut(target) {
                lane.waiting = lane.waiting.saturating_sub(1);
            }
            self.shared.with_target(target, |s| {
                s.dropped += 1;
                s.pending = s.pending.saturating_sub(1);
            });
        }
    }

    /// Brings rows back from disk to targets that have worked off half of what they may hold.
    fn refill(&mut self) {
        let Some(outbox) = &self.outbox else { return };
        self.unread = false;
        for (target, lane) in self.lanes.iter_mut().enumerate() {
            let Some(from) = lane.spilled_from else { continue };
            let Some(queue) = self.shared.queues.get(target) else { continue };
            if lane.held > self.shared.held_max / 2 {
                continue;
            }
            let want = self.shared.held_max - lane.held;
            match outbox.load(target, from, want) {
                Ok(rows) => {
                    lane.spilled_from = match rows.last() {
                        Some(last) if rows.len() == want => Some(last.seq + 1),
                        _ => None,
                    };
                    lane.held += rows.len();
                    rows.into_iter().for_each(|row| queue.push(row));
                }
                Err(error) => {
                    self.unread = true;
                    tracing::error!(%error, "the outbox cannot be read; trying again");
                }
            }
        }
    }
}
