//! Connections whose secrets have not come yet.
//!
//! A live key log tells of a connection a little after its packets pass by, often when the flow is over already. So a
//! connection that wants a secret leaves its flow and waits here; what the flow still brings is parked, in order. Once
//! the secret comes it goes on where it stopped, as if nothing had happened: only the time at which its transactions
//! are handed on is later.
//!
//! ```text
//! Tls ── WantsKeys ──▶ [ Inside | parked chunks ] ── secret comes ──▶ goes on ─┬─ back to its flow
//!                                               └─ time or room runs out ─▶ closed   └─ the flow is over: ended
//! ```
//! Bounded three ways, by [`DecryptLimits`]; the clock is the packets'. Bounds over several connections are those of one
//! shard, as everywhere.

use std::collections::{BTreeSet, HashMap};

use offpath_types::{Chunk, Direction, FlowInfo, Timestamp, Transaction};

use super::decrypt::{DecryptCounters, Status};
use super::inside::Inside;
use super::keys::{KeyLine, Want};
use crate::stage::Http;

/// Bounds of waiting for secrets; each with its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecryptLimits {
    /// How long a connection waits for a secret, nanoseconds of packet time; 0: not at all. Past it: it stays closed.
    pub wait_nanos: u64,
    /// Bytes that one connection holds meanwhile. Past it: it stays closed.
    pub wait_connection_bytes_max: usize,
    /// Bytes that all connections of a shard hold meanwhile. Past it: the one that has waited longest stays closed.
    pub wait_bytes_max: usize,
}

impl Default for DecryptLimits {
    fn default() -> Self {
        Self { wait_nanos: 0, wait_connection_bytes_max: 8 << 20, wait_bytes_max: 128 << 20 }
    }
}

/// What a connection that waits costs beside the bytes that it holds.
const CONNECTION_BYTES: usize = 2048;

/// Names a connection that has left its flow.
pub(super) type Ticket = u64;

/// A connection that has left its flow.
struct Entry {
    inside: Box<Inside>,
    flow: FlowInfo,
    shard: usize,
    /// What it waits for: any of these secrets, up to a time.
    wants: [Option<Want>; 2],
    until: Timestamp,
    /// Bytes that it is charged with.
    charge: usize,
    /// It waits; else its secrets have come, and its flow may take it back.
    waits: bool,
    /// The flow is over.
    over: bool,
}

/// What the connections of one shard wait for.
#[derive(Default)]
struct Queue {
    /// When each gives up.
    due: BTreeSet<(Timestamp, Ticket)>,
    /// Bytes that those who wait hold.
    held: usize,
}

/// All connections that have left their flows.
// Invariant: `by_want` and the `Queue::due` name every entry that waits and no other; `Queue::held` is the sum of their
// charges. Sets, since clients choose their randoms: any number of connections may have the same. By secret, so that
// each line of a key log wakes only those that go on with it.
#[derive(Default)]
pub(super) struct Waiting {
    entries: HashMap<Ticket, Entry>,
    by_want: BTreeSet<(Want, Ticket)>,
    shards: Vec<Queue>,
    next: Ticket,
}

impl Waiting {
    fn queue(&mut self, shard: usize) -> &mut Queue {
        if self.shards.len() <= shard {
            self.shards.resize_with(shard + 1, Queue::default);
        }
        &mut self.shards[shard]
    }

    /// Takes in a connection that waits.
    fn add(&mut self, entry: Entry) -> Ticket {
        self.next += 1;
        self.put(self.next, entry);
        self.next
    }

    /// Puts one in that waits.
    fn put(&mut self, ticket: Ticket, mut entry: Entry) {
        entry.charge = CONNECTION_BYTES + entry.inside.held();
        entry.wants = entry.inside.wants();
        let queue = self.queue(entry.shard);
        queue.held += entry.charge;
        queue.due.insert((entry.until, ticket));
        self.by_want.extend(entry.wants.iter().flatten().map(|want| (*want, ticket)));
        self.entries.insert(ticket, entry);
    }

    /// Takes one out that waits.
    fn take(&mut self, ticket: Ticket) -> Option<Entry> {
        let entry = self.entries.remove(&ticket)?;
        debug_assert!(entry.waits);
        let queue = self.queue(entry.shard);
        queue.held -= entry.charge;
        queue.due.remove(&(entry.until, ticket));
        for want in entry.wants.iter().flatten() {
            self.by_want.remove(&(*want, ticket));
        }
        Some(entry)
    }

    /// Returns those that wait for this secret.
    fn that_want(&self, want: Want) -> Vec<Ticket> {
        let range = (want, Ticket::MIN)..=(want, Ticket::MAX);
        self.by_want.range(range).map(|(_, ticket)| *ticket).collect()
    }

    /// Returns the connection of `shard` that has waited longest, and when it gives up.
    fn oldest(&self, shard: usize) -> Option<(Timestamp, Ticket)> {
        self.shards.get(shard)?.due.first().copied()
    }

    /// Returns a connection whose secrets have come to its flow; `Err`: it still waits.
    pub(super) fn take_ready(&mut self, ticket: Ticket) -> Result<Option<Box<Inside>>, ()> {
        match self.entries.get(&ticket) {
            Some(entry) if entry.waits => Err(()),
            Some(_) => Ok(self.entries.remove(&ticket).map(|entry| entry.inside)),
            None => Ok(None),
        }
    }

    /// Notes that the flow of a connection is over.
    pub(super) fn flow_is_over(&mut self, ticket: Ticket) {
        if let Some(entry) = self.entries.get_mut(&ticket) {
            entry.over = true;
        }
    }

    /// How many connections wait.
    pub(super) fn count(&self) -> usize {
        self.shards.iter().map(|queue| queue.due.len()).sum()
    }
}

/// Why a connection waits no longer.
#[derive(Clone, Copy)]
enum GaveUp {
    Expired,
    ConnectionFull,
    Full,
    Ended,
}

impl GaveUp {
    fn counter(self, c: &mut DecryptCounters) -> &mut u64 {
        match self {
            Self::Expired => &mut c.waits_expired_total,
            Self::ConnectionFull => &mut c.waits_connection_full_total,
            Self::Full => &mut c.waits_full_total,
            Self::Ended => &mut c.waits_ended_total,
        }
    }
}

impl Http {
    /// Adds secrets that came at `now`, and goes on with the connections that waited for them.
    pub fn add_keys(&mut self, lines: &[KeyLine], now: Timestamp, out: &mut Vec<Transaction>) {
        for line in lines {
            self.decryption.keys.add(line, now);
        }
        for told in lines.iter().map(KeyLine::told) {
            for ticket in self.decryption.waiting.that_want(told) {
                self.go_on(ticket, now, out);
            }
        }
    }

    /// Gives up the connections that have waited long enough, and wipes secrets that nobody came for.
    pub fn advance(&mut self, now: Timestamp, out: &mut Vec<Transaction>) {
        for shard in 0..self.decryption.waiting.shards.len() {
            while let Some((until, ticket)) = self.decryption.waiting.oldest(shard)
                && until <= now
            {
                self.stop_waiting(ticket, GaveUp::Expired, until, out);
            }
        }
        self.decryption.keys.advance(now);
    }

    /// Gives up every connection that waits: nothing more will come.
    pub fn end_waits(&mut self, now: Timestamp, out: &mut Vec<Transaction>) {
        for shard in 0..self.decryption.waiting.shards.len() {
            while let Some((_, ticket)) = self.decryption.waiting.oldest(shard) {
                self.stop_waiting(ticket, GaveUp::Ended, now, out);
            }
        }
    }

    /// Takes in a connection that wants a secret.
    pub(super) fn wait(
        &mut self,
        inside: Box<Inside>,
        flow: &FlowInfo,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) -> Ticket {
        let (shard, until) = (self.shard(), now.plus_nanos(self.config.decryption.wait_nanos));
        let (flow, wants) = (*flow, [None; 2]);
        let entry = Entry { inside, flow, shard, wants, until, charge: 0, waits: true, over: false };
        self.decryption.counters.waits_total += 1;
        let ticket = self.decryption.waiting.add(entry);
        self.make_room(ticket, shard, now, out);
        ticket
    }

    /// Parks a chunk of a connection that waits.
    pub(super) fn park(
        &mut self,
        ticket: Ticket,
        dir: Direction,
        chunk: Chunk<'_>,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) {
        let waiting = &mut self.decryption.waiting;
        let Some(entry) = waiting.entries.get_mut(&ticket) else { return };
        entry.inside.park(dir, chunk);
        let (before, shard) = (entry.charge, entry.shard);
        entry.charge = CONNECTION_BYTES + entry.inside.held();
        let more = entry.charge - before;
        waiting.queue(shard).held += more;
        self.make_room(ticket, shard, now, out);
    }

    /// Restores the bounds after connection `ticket` has grown.
    fn make_room(&mut self, ticket: Ticket, shard: usize, now: Timestamp, out: &mut Vec<Transaction>) {
        let limits = self.config.decryption;
        let held = self.decryption.waiting.entries.get(&ticket).map_or(0, |e| e.inside.held());
        if held > limits.wait_connection_bytes_max {
            self.stop_waiting(ticket, GaveUp::ConnectionFull, now, out);
        }
        while self.decryption.waiting.queue(shard).held > limits.wait_bytes_max
            && let Some((_, oldest)) = self.decryption.waiting.oldest(shard)
        {
            self.stop_waiting(oldest, GaveUp::Full, now, out);
        }
    }

    /// Goes on with a connection after the store has learned something of it.
    fn go_on(&mut self, ticket: Ticket, now: Timestamp, out: &mut Vec<Transaction>) {
        let Some(mut entry) = self.decryption.waiting.take(ticket) else { return };
        let selected = self.shard();
        self.select(entry.shard);
        let status = entry.inside.resume(self, &entry.flow, now, out);
        if status == Status::WantsKeys {
            self.decryption.waiting.put(ticket, entry);
        } else {
            self.decryption.counters.waits_served_total += 1;
            if entry.over || status == Status::GivenUp {
                entry.inside.close(self, &entry.flow, now, out);
            } else {
                entry.waits = false;
                self.held_bytes += entry.inside.held();
                self.decryption.waiting.entries.insert(ticket, entry);
            }
        }
        self.select(selected);
    }

    /// Gives up a connection that waits.
    fn stop_waiting(&mut self, ticket: Ticket, why: GaveUp, now: Timestamp, out: &mut Vec<Transaction>) {
        let Some(mut entry) = self.decryption.waiting.take(ticket) else { return };
        *why.counter(&mut self.decryption.counters) += 1;
        let selected = self.shard();
        self.select(entry.shard);
        entry.inside.abandon(self, &entry.flow, now, out);
        entry.inside.close(self, &entry.flow, now, out);
        self.select(selected);
    }
}

#[cfg(test)]
mod tests;
