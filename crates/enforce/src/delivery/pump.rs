//! The outbox thread: takes what was offered, hands it to the targets, writes it down.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Intake, Offered, Shared, expires_ms};
use crate::clock;
use crate::outbox::{Ended, Outbox, PARKED_MAX, Row};
use crate::record::webhook_body;

/// Events written in one commit.
const BATCH_MAX: usize = 1024;
/// Ended rows alone are not urgent: they wait this long for company.
const ENDED_WAIT: Duration = Duration::from_millis(20);
/// Pause before rows that could not be read or written are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

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

/// What the outbox is to be told: the news of a batch, and what commits that failed left over.
///
/// Bounded by what the targets hold ([`DeliveryConfig::held_max`](super::DeliveryConfig::held_max)) and what is on disk.
#[derive(Default)]
struct Owed {
    rows: Vec<(usize, Row)>,
    ended: Vec<Ended>,
}

impl Owed {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.ended.is_empty()
    }

    /// Keeps, after a commit that failed, what the next one has to write: neither the rows of `lost`, nor those that have
    /// ended meanwhile, nor the ends of rows that are not on disk.
    fn keep(&mut self, lost: &[(usize, u64)]) {
        let lost: HashSet<_> = lost.iter().copied().collect();
        let ended: HashSet<_> = self.ended.iter().map(|end| (end.target, end.row.seq)).collect();
        let fresh: HashSet<_> = self.rows.iter().map(|(target, row)| (*target, row.seq)).collect();
        self.rows.retain(|(target, row)| {
            let key = (*target, row.seq);
            !lost.contains(&key) && !ended.contains(&key)
        });
        let mut parked = 0;
        // From the last on, since of too many parked ones the oldest go.
        self.ended.reverse();
        self.ended.retain_mut(|end| {
            let on_disk = !fresh.contains(&(end.target, end.row.seq));
            parked += u64::from(end.parked.is_some());
            if end.parked.is_none() || parked > PARKED_MAX {
                // Only its place is needed, to remove it.
                end.parked = None;
                end.row.body = "".into();
                return on_disk;
            }
            true
        });
        self.ended.reverse();
    }
}

pub(super) struct Pump {
    shared: Arc<Shared>,
    outbox: Option<Outbox>,
    next_seq: u64,
    lanes: Vec<Lane>,
    /// Rows could not be read from disk: tried again although nothing else happens.
    unread: bool,
    owed: Owed,
}

impl Pump {
    pub(super) fn new(shared: Arc<Shared>, outbox: Option<Outbox>, next_seq: u64) -> Self {
        let lane =
            |pending: u64| Lane { held: 0, waiting: pending, spilled_from: (pending > 0).then_some(0) };
        let lanes = shared.stats().targets.iter().map(|t| lane(t.pending)).collect();
        Self { shared, outbox, next_seq, lanes, unread: false, owed: Owed::default() }
    }

    pub(super) fn run(mut self) {
        self.refill();
        let mut last_try = false;
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
            let gone: Vec<usize> = ended.iter().map(|end| end.target).collect();
            finished += gone.len() as u64;
            if let Some(outbox) = &mut self.outbox {
                self.owed.rows.extend(rows);
                self.owed.ended.extend(ended);
                if !self.owed.is_empty() {
                    let result = outbox.commit(&self.owed.rows, &self.owed.ended);
                    let mut stats = self.shared.stats();
                    stats.commits += 1;
                    match result {
                        Ok(()) => self.owed = Owed::default(),
                        Err(error) => {
                            stats.commit_failures += 1;
                            drop(stats);
                            // What was handed out is sent all the same, and written with the next commit: a decision that
                            // is delivered but not durable beats one that is lost. What was to wait on disk is nowhere.
                            tracing::error!(%error, "the outbox cannot be written");
                            self.owed.keep(&spilled);
                            finished += spilled.len() as u64;
                            self.lose(&spilled);
                        }
                    }
                }
            }
            // On disk now, where there is a disk that can be written: what comes next may be killed at any moment.
            self.shared.kept.fetch_add(taken, Ordering::Release);
            for target in gone {
                if let Some(lane) = self.lanes.get_mut(target) {
                    lane.held = lane.held.saturating_sub(1);
                    lane.waiting = lane.waiting.saturating_sub(1);
                }
            }
            self.refill();
            let mut intake = self.shared.intake();
            intake.unfinished = (intake.unfinished + added).saturating_sub(finished);
            if intake.unfinished == 0 {
                self.shared.idle.notify_all();
            }
            if stop && intake.events.is_empty() && intake.ended.is_empty() {
                if self.owed.is_empty() || last_try {
                    return;
                }
                last_try = true;
            }
        }
    }

    fn wait(&self) -> (Vec<Offered>, Vec<Ended>, bool) {
        let nothing = |i: &mut Intake| i.events.is_empty() && i.ended.is_empty() && !i.stop;
        let lock = self.shared.intake();
        let ready = &self.shared.intake_ready;
        let mut intake = if self.unread || !self.owed.is_empty() {
            let waited = ready.wait_timeout_while(lock, TRY_AGAIN, nothing);
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

    /// Hands rows to their targets; returns target and number of those that there is no room for: they wait on disk.
    fn hand_out(&mut self, rows: &[(usize, Row)]) -> Vec<(usize, u64)> {
        let mut spilled = Vec::new();
        for (target, row) in rows {
            let (Some(lane), Some(queue)) = (self.lanes.get_mut(*target), self.shared.queues.get(*target))
            else {
                continue;
            };
            if self.outbox.is_some() && (lane.spilled_from.is_some() || lane.held >= self.shared.held_max) {
                lane.spilled_from.get_or_insert(row.seq);
                spilled.push((*target, row.seq));
                continue;
            }
            lane.held += 1;
            queue.push(row.clone());
        }
        spilled
    }

    /// Takes rows that are neither held nor on disk off the books.
    fn lose(&mut self, rows: &[(usize, u64)]) {
        for &(target, _) in rows {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::testing::row;

    #[test]
    fn only_what_the_disk_lacks_is_owed_to_it() {
        let end =
            |seq, parked: Option<&str>| Ended { target: 0, row: row(seq), parked: parked.map(str::to_owned) };
        // 1 to 4 are on disk or were; 5 to 9 are new, of which 9 was to wait on disk.
        let mut owed = Owed {
            rows: (5..10).map(|seq| (0, row(seq))).collect(),
            ended: vec![end(1, None), end(2, Some("gave_up")), end(5, None), end(6, Some("gave_up"))],
        };
        owed.keep(&[(0, 9)]);
        let rows: Vec<_> = owed.rows.iter().map(|(_, row)| row.seq).collect();
        let ended: Vec<_> =
            owed.ended.iter().map(|e| (e.row.seq, e.parked.is_some(), e.row.body.len())).collect();
        assert_eq!(rows, [7, 8]);
        assert_eq!(ended, [(1, false, 0), (2, true, 2), (6, true, 2)]);

        let mut owed = Owed::default();
        owed.ended.extend((0..PARKED_MAX + 2).map(|seq| end(seq, Some("gave_up"))));
        owed.rows.push((0, row(1)));
        owed.keep(&[]);
        let parked = owed.ended.iter().filter(|e| e.parked.is_some()).count() as u64;
        assert_eq!((parked, owed.ended.len() as u64, owed.ended[0].row.seq), (PARKED_MAX, PARKED_MAX + 1, 0));
    }
}
