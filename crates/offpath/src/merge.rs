//! Puts the transactions of several workers into one total order.
//!
//! Each worker sends batches that are sorted and carry a watermark: "nothing earlier will come from me". What lies
//! before the lowest watermark of all lanes is handed out, ordered by (time, flow, index), so that scoring sees the
//! same sequence whatever the number of workers.
//!
//! What is not settled waits, and a capture whose clock stands still settles nothing. So the reader of a file ends an
//! *era* now and then, at a frame that depends on the file alone ([`Eras`]): everything finished by then is handed out,
//! and eras are never mixed.

use std::collections::VecDeque;

use offpath_types::{Connection, Timestamp, Transaction};

use crate::records::RecordWriter;

/// Batches that are kept to be filled again.
const SPENT_MAX: usize = 64;

/// Frames after which an era ends, if packet time has not moved on by a tick.
const ERA_FRAMES_MAX: u32 = 1 << 17;
/// Captured bytes after which it ends. What waits is what they stand for: of HTTP/1 up to fifty times as much, of HTTP/2,
/// where an index of one byte stands for a text, three hundred times. To count what waits instead, all workers would
/// have to agree on it before the reader could go on.
const ERA_BYTES_MAX: u64 = 1 << 20;

/// Bytes of record heads after which a batch gets no more of them: a batch may hold all that a capture found, and the
/// heads are its texts once again. What has none is rendered where it is written.
const HEADS_BYTES_MAX: usize = 16 << 20;

/// How far a lane has told everything: the era, and the packet time within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    /// Number of the era, from 0; always 0 in live capture.
    pub(crate) era: u32,
    /// Packet time.
    pub(crate) time: Timestamp,
}

impl Mark {
    /// After everything.
    pub(crate) const END: Self = Self { era: u32::MAX, time: Timestamp::MAX };

    /// Returns the mark at `time` of a live capture, which has one era.
    pub(crate) const fn live(time: Timestamp) -> Self {
        Self { era: 0, time }
    }
}

/// Decides at which frames of a file eras end; bounds what waits to be settled.
#[derive(Debug, Default)]
pub(crate) struct Eras {
    settled: Timestamp,
    frames: u32,
    bytes: u64,
    /// How many have ended.
    pub(crate) ended: u32,
}

impl Eras {
    /// Takes the next frame, of `bytes`, after which `settled` is settled; tells whether it ends an era.
    pub(crate) fn frame(&mut self, settled: Timestamp, bytes: usize) -> bool {
        if settled != self.settled {
            (self.settled, self.frames, self.bytes) = (settled, 0, 0);
        }
        self.frames += 1;
        self.bytes += bytes as u64;
        if self.frames < ERA_FRAMES_MAX && self.bytes < ERA_BYTES_MAX {
            return false;
        }
        (self.frames, self.bytes) = (0, 0);
        self.ended += 1;
        true
    }
}

/// Finished transactions of one worker, sorted by [`Transaction::order`], with the heads of their records.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The transactions.
    pub(crate) transactions: Vec<Transaction>,
    /// TLS handshakes and ended WebSocket connections.
    pub(crate) connections: Vec<Connection>,
    /// Record heads, one after the other; empty when no records are written.
    heads: Vec<u8>,
    /// End of each head in `heads`, of as many transactions as have one.
    head_ends: Vec<usize>,
    /// Era of the transactions.
    era: u32,
    /// What the transactions and heads take up, about.
    bytes: usize,
    /// Every later transaction of this worker is at this mark or after it.
    pub(crate) watermark: Mark,
}

impl Batch {
    /// Makes a batch of live capture: sorts `transactions` and renders their record heads where there is a `writer`.
    pub(crate) fn live(
        transactions: Vec<Transaction>,
        connections: Vec<Connection>,
        watermark: Mark,
        writer: Option<&mut RecordWriter>,
    ) -> Self {
        let mut batch = Self { transactions, connections, ..Self::default() };
        batch.finish(0, watermark, writer);
        batch
    }

    /// Tells whether there is nothing to hand on.
    pub(crate) fn is_empty(&self) -> bool {
        self.transactions.is_empty() && self.connections.is_empty()
    }

    /// Frees what the batch held and keeps its memory for the next use.
    pub(crate) fn clear(&mut self) {
        self.transactions.clear();
        self.connections.clear();
        self.heads.clear();
        self.head_ends.clear();
    }

    /// Sorts what is in `transactions`, all of one era, and renders record heads where there is a `writer`, up to
    /// [`HEADS_BYTES_MAX`].
    pub(crate) fn finish(&mut self, era: u32, watermark: Mark, writer: Option<&mut RecordWriter>) {
        self.era = era;
        self.watermark = watermark;
        sort(&mut self.transactions);
        self.connections.sort_unstable_by(Connection::cmp_order);
        if let Some(writer) = writer {
            self.render(writer, HEADS_BYTES_MAX);
        }
        let texts: usize = self.transactions.iter().map(|tx| tx.text.len()).sum();
        self.bytes = size_of_val(self.transactions.as_slice()) + texts + self.heads.len();
    }

    /// Renders heads while they take up less than `bytes_max`.
    fn render(&mut self, writer: &mut RecordWriter, bytes_max: usize) {
        for tx in &self.transactions {
            if self.heads.len() >= bytes_max {
                break;
            }
            writer.push_head(tx, &mut self.heads);
            self.head_ends.push(self.heads.len());
        }
    }

    /// Returns what the transactions and their record heads take up, about.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the transactions, and the head of the record of one of them; empty where none was rendered.
    fn parts(&mut self, index: usize) -> (&mut [Transaction], &[u8]) {
        let start = if index == 0 { 0 } else { self.head_ends.get(index - 1).copied().unwrap_or(0) };
        let end = self.head_ends.get(index).copied().unwrap_or(start);
        (&mut self.transactions, self.heads.get(start..end).unwrap_or_default())
    }
}

/// Moves what was emitted before `until` from `from` to `out`.
///
/// What was emitted at `until` itself waits for the next batch, where whatever else is emitted at that time can still
/// come before it: within a lane, batches are handed out one after the other.
pub(crate) fn take_before(until: Timestamp, from: &mut Vec<Transaction>, out: &mut Vec<Transaction>) {
    let later: Vec<_> = from.extract_if(.., |tx| tx.emitted >= until).collect();
    if out.is_empty() {
        std::mem::swap(from, out);
    } else {
        out.append(from);
    }
    from.extend(later);
}

/// Sorts by [`Transaction::order`]. A worker's list comes nearly sorted by time, and comparing whole orders is dear:
/// times are compared first, and only what was emitted at the same time is looked at closer.
fn sort(transactions: &mut [Transaction]) {
    if !transactions.is_sorted_by_key(|tx| tx.emitted) {
        transactions.sort_by_key(|tx| tx.emitted);
    }
    for same in transactions.chunk_by_mut(|a, b| a.emitted == b.emitted).filter(|same| same.len() > 1) {
        same.sort_unstable_by_key(Transaction::order);
    }
}

#[derive(Debug, Default)]
struct Lane {
    batches: VecDeque<Batch>,
    /// What is told of connections in all batches, each with its era.
    connections: VecDeque<(u32, Connection)>,
    /// Next transaction in the first batch.
    next: usize,
    watermark: Mark,
}

impl Lane {
    fn peek(&self) -> Option<(u32, &Transaction)> {
        self.batches.front().and_then(|b| Some((b.era, b.transactions.get(self.next)?)))
    }

    /// Moves on; returns the batch that this ended.
    fn step(&mut self) -> Option<Batch> {
        self.next += 1;
        if self.batches.front().is_some_and(|b| self.next >= b.transactions.len()) {
            self.next = 0;
            return self.batches.pop_front();
        }
        None
    }
}

/// What a merge hands out.
pub(crate) enum Item<'a> {
    /// Something told of a connection.
    Connection(Connection),
    /// A transaction, with the head of its record; empty where that is still to be rendered.
    Transaction(&'a mut Transaction, &'a [u8]),
}

/// The merge of several lanes.
#[derive(Debug)]
pub(crate) struct Merge {
    lanes: Vec<Lane>,
    /// What is told of connections and waits in all lanes.
    connections: usize,
    /// Bytes of the batches of each lane that were handed out whole: see [`Merge::handed_out`].
    handed_out: Vec<usize>,
    /// Transactions that arrived behind what was already handed out (live capture only: a late lane).
    pub(crate) late_total: u64,
    done: Mark,
    /// Batches that were handed out whole, with their lanes.
    spent: Vec<(usize, Batch)>,
}

impl Merge {
    /// Makes a merge of `lanes` lanes.
    pub(crate) fn new(lanes: usize) -> Self {
        Self {
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            connections: 0,
            handed_out: vec![0; lanes],
            late_total: 0,
            done: Mark::default(),
            spent: Vec::new(),
        }
    }

    /// Takes a batch of lane `lane`.
    pub(crate) fn push(&mut self, lane: usize, mut batch: Batch) {
        let Some(lane) = self.lanes.get_mut(lane) else { return };
        self.connections += batch.connections.len();
        lane.connections.extend(batch.connections.drain(..).map(|c| (batch.era, c)));
        lane.watermark = lane.watermark.max(batch.watermark);
        let done = self.done;
        let late = |tx: &&Transaction| Mark { era: batch.era, time: tx.emitted } < done;
        self.late_total += batch.transactions.iter().take_while(late).count() as u64;
        if !batch.transactions.is_empty() {
            lane.batches.push_back(batch);
        }
    }

    /// Returns, by lane, the bytes ([`Batch::bytes`]) of what was handed out since this was set back to 0: they wait no
    /// more. What is told of connections has none.
    pub(crate) fn handed_out(&mut self) -> &mut [usize] {
        &mut self.handed_out
    }

    /// Returns the mark before which every lane has told everything.
    pub(crate) fn watermark(&self) -> Mark {
        self.lanes.iter().map(|l| l.watermark).min().unwrap_or(Mark::END)
    }

    /// Returns era, time and lane of the first thing told of a connection that waits.
    fn first_connection(&self) -> Option<(Mark, usize)> {
        if self.connections == 0 {
            return None;
        }
        let fronts =
            self.lanes.iter().enumerate().filter_map(|(i, lane)| {
                lane.connections.front().map(|(era, connection)| (*era, connection, i))
            });
        let first = fronts
            .min_by(|(era, a, i), (other, b, j)| era.cmp(other).then_with(|| a.cmp_order(b)).then(i.cmp(j)));
        first.map(|(era, connection, i)| (Mark { era, time: connection.emitted() }, i))
    }

    /// Hands out what is told of connections and lies before `until`, and not after `before` where that is given.
    fn drain_connections(&mut self, until: Mark, before: Option<Mark>, take: &mut impl FnMut(Item<'_>)) {
        while let Some((mark, i)) = self.first_connection()
            && mark < until
            && before.is_none_or(|before| mark <= before)
        {
            if let Some((_, connection)) = self.lanes[i].connections.pop_front() {
                self.connections -= 1;
                take(Item::Connection(connection));
            }
        }
    }

    /// Hands out, in order, everything that lies before `until`. Of the same time, handshakes come first: what they show
    /// can be joined to a transaction.
    pub(crate) fn drain(&mut self, until: Mark, mut take: impl FnMut(Item<'_>)) {
        self.done = self.done.max(until);
        loop {
            let first = self
                .lanes
                .iter()
                .enumerate()
                .filter_map(|(i, lane)| lane.peek().map(|(era, tx)| (era, tx.order(), i)))
                .min();
            let first = first.map(|(era, order, i)| (Mark { era, time: order.0 }, i));
            if self.connections > 0 {
                self.drain_connections(until, first.map(|(mark, _)| mark), &mut take);
            }
            let Some((mark, i)) = first else { return };
            if mark >= until {
                return;
            }
            let lane = &mut self.lanes[i];
            if let Some(batch) = lane.batches.front_mut() {
                let (transactions, head) = batch.parts(lane.next);
                take(Item::Transaction(&mut transactions[lane.next], head));
            }
            if let Some(batch) = lane.step() {
                self.handed_out[i] += batch.bytes;
                if self.spent.len() < SPENT_MAX {
                    self.spent.push((i, batch));
                }
            }
        }
    }

    /// Yields batches that were handed out, so that their makers can free and fill them again: memory that one thread
    /// takes and another gives back is dear.
    pub(crate) fn take_spent(&mut self) -> impl Iterator<Item = (usize, Batch)> {
        self.spent.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;
    use offpath_types::{FlowInfo, FlowKey, Host, Peer, TunnelId};

    fn tx(emitted: u64, port: u16, index: u32) -> Transaction {
        let peer = |last, port| Peer { host: Host::from_v4([10, 0, 0, last]), port };
        let (key, client_side) = FlowKey::new(peer(1, port), peer(2, 80), TunnelId(0));
        let opened = Timestamp::from_nanos(1);
        let mut tx = Transaction::new(
            FlowInfo { key, client_side, opened, midstream: false, envelope: Default::default() },
            1,
            index,
            opened,
        );
        tx.emitted = Timestamp::from_nanos(emitted);
        tx
    }

    fn mark(nanos: u64) -> Mark {
        Mark::live(Timestamp::from_nanos(nanos))
    }

    fn drained(merge: &mut Merge, until: Mark) -> Vec<(u64, u16)> {
        let mut got = Vec::new();
        merge.drain(until, |item| {
            got.push(match item {
                Item::Transaction(tx, _) => (tx.emitted.as_nanos(), tx.flow.client().port),
                Item::Connection(Connection::Handshake(h)) => {
                    (h.emitted.as_nanos(), 10_000 + h.flow.client().port)
                }
                Item::Connection(Connection::WebSocket(w)) => {
                    (w.emitted.as_nanos(), 20_000 + w.flow.client().port)
                }
            });
        });
        got
    }

    #[test]
    fn the_order_is_the_same_however_the_lanes_are_cut() {
        let all: Vec<_> = (0..200u64).map(|i| tx(i / 3, (i * 7 % 50) as u16 + 1000, i as u32)).collect();
        let mut want: Vec<_> = all.clone();
        want.sort_by_key(Transaction::order);
        let want: Vec<_> = want.iter().map(|t| (t.emitted.as_nanos(), t.flow.client().port)).collect();
        for lanes in 1..=4usize {
            let mut merge = Merge::new(lanes);
            let mut got = Vec::new();
            for step in 0..8u64 {
                let mark = mark((step + 1) * 10);
                for lane in 0..lanes {
                    let share = all
                        .iter()
                        .filter(|t| usize::from(t.flow.client().port) % lanes == lane)
                        .filter(|t| t.emitted.as_nanos() / 10 == step)
                        .cloned()
                        .collect();
                    merge.push(lane, Batch::live(share, Vec::new(), mark, None));
                }
                let until = merge.watermark();
                got.extend(drained(&mut merge, until));
            }
            assert_eq!(got, want, "{lanes} lanes");
            assert_eq!(merge.late_total, 0);
        }
    }

    #[test]
    fn a_batch_may_end_between_two_of_the_same_time() {
        // In the order of the wire; the flow that comes last sorts first.
        let all = [tx(5, 3, 0), tx(7, 2, 0), tx(7, 1, 0), tx(9, 1, 1)];
        for cut in 0..=all.len() {
            let (mut merge, mut got, mut finished) = (Merge::new(1), Vec::new(), Vec::new());
            for part in [&all[..cut], &all[cut..]] {
                finished.extend(part.iter().cloned());
                let until = part.last().map_or(Timestamp::ZERO, |tx| tx.emitted);
                let mut batch = Vec::new();
                take_before(until, &mut finished, &mut batch);
                merge.push(0, Batch::live(batch, Vec::new(), Mark::live(until), None));
                got.extend(drained(&mut merge, Mark::live(until)));
            }
            merge.push(0, Batch::live(finished, Vec::new(), Mark::END, None));
            got.extend(drained(&mut merge, Mark::END));
            assert_eq!(got, [(5, 3), (7, 1), (7, 2), (9, 1)], "cut at {cut}");
        }
    }

    #[test]
    fn nothing_passes_the_lowest_watermark_and_late_ones_are_counted() {
        let mut merge = Merge::new(2);
        merge.push(0, Batch::live(vec![tx(5, 1, 0), tx(9, 1, 1)], Vec::new(), mark(10), None));
        let until = merge.watermark();
        assert_eq!(drained(&mut merge, until), []);
        merge.push(1, Batch::live(vec![], Vec::new(), mark(6), None));
        assert_eq!(drained(&mut merge, mark(6)), [(5, 1)]);
        merge.push(1, Batch::live(vec![tx(3, 2, 0)], Vec::new(), mark(11), None));
        assert_eq!(merge.late_total, 1);
        assert_eq!(drained(&mut merge, mark(10)), [(3, 2), (9, 1)]);
    }

    #[test]
    fn what_waits_is_measured_and_heads_past_their_limit_are_left_to_the_writer() {
        let texts = [&b"/first"[..], b"/second", b"/third"];
        let list = texts.iter().enumerate().map(|(i, text)| {
            let mut tx = tx(5, 1, i as u32);
            tx.user_agent = tx.text.push(text);
            tx
        });
        let list: Vec<_> = list.collect();
        let mut writer = RecordWriter::new(Format::Ecs);
        let heads_of = |bytes_max: usize, writer: &mut RecordWriter| {
            let mut batch = Batch { transactions: list.clone(), ..Batch::default() };
            batch.render(writer, bytes_max);
            (0..list.len())
                .map(|i| String::from_utf8_lossy(batch.parts(i).1).into_owned())
                .collect::<Vec<_>>()
        };
        let whole = heads_of(usize::MAX, &mut writer);
        assert!(whole.iter().zip(texts).all(|(head, text)| head.contains(&*String::from_utf8_lossy(text))));
        for kept in 0..=list.len() {
            let bytes_max: usize = whole[..kept].iter().map(String::len).sum();
            let heads = heads_of(bytes_max, &mut writer);
            assert_eq!(heads[..kept], whole[..kept]);
            assert!(heads[kept..].iter().all(String::is_empty), "{kept}: {heads:?}");
        }

        let batch = Batch::live(list.clone(), Vec::new(), mark(10), Some(&mut writer));
        let texts: usize = texts.iter().map(|text| text.len()).sum();
        let heads: usize = whole.iter().map(String::len).sum();
        assert_eq!(batch.bytes(), 3 * size_of::<Transaction>() + texts + heads);
        let (bytes, mut merge) = (batch.bytes(), Merge::new(2));
        merge.push(1, batch);
        drained(&mut merge, mark(5));
        assert_eq!(merge.handed_out(), [0, 0], "it waits still");
        drained(&mut merge, mark(6));
        assert_eq!(merge.handed_out(), [0, bytes]);
    }

    #[test]
    fn eras_are_never_mixed_and_end_at_frames_and_bytes_without_time() {
        let mut merge = Merge::new(2);
        let mut batch = |lane, era, list: Vec<Transaction>, watermark| {
            let mut batch = Batch { transactions: list, ..Batch::default() };
            batch.finish(era, watermark, None);
            merge.push(lane, batch);
        };
        let next = Mark { era: 1, time: Timestamp::ZERO };
        batch(0, 0, vec![tx(9, 1, 0)], next);
        batch(1, 0, vec![tx(8, 2, 0)], next);
        // Earlier in time, but of the next era.
        batch(0, 1, vec![tx(7, 1, 1)], Mark::END);
        batch(1, 1, vec![], Mark::END);
        assert_eq!(drained(&mut merge, next), [(8, 2), (9, 1)]);
        assert_eq!(drained(&mut merge, Mark::END), [(7, 1)]);
        assert_eq!(merge.late_total, 0);

        let stopped = Timestamp::from_nanos(1);
        let ends = |bytes: usize, frames: u32| {
            let mut eras = Eras::default();
            (0..frames).filter(|_| eras.frame(stopped, bytes)).count()
        };
        assert_eq!(ends(4, ERA_FRAMES_MAX * 3), 3);
        assert_eq!(ends(1 << 16, 64), 4);
        let mut eras = Eras::default();
        let ticking =
            (0..ERA_FRAMES_MAX * 3).filter(|i| eras.frame(Timestamp::from_nanos(u64::from(i / 1000)), 64));
        assert_eq!(ticking.count(), 0, "time that moves on settles by itself");
    }
}
