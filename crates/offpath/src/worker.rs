//! One worker's share of the data path: segments in, finished transactions out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use offpath_packet::{SctpPacket, TcpSegment};
use offpath_protocol::facts::FactsCounters;
use offpath_protocol::{
    AnomalyCounts, DecryptCounters, Http, KeyLine, KeyStore, ProtocolConfig, ProtocolCounters, Quic,
    QuicCounters, Session,
};
use offpath_stream::{FlowTable, SctpCounters, SctpTable, StreamCounters, StreamLimits, StreamSink};
use offpath_types::{
    Chunk, Connection, Datagram, Direction, FlowInfo, IdentityKey, Timestamp, Transaction, counters,
};

use crate::merge::take_before;
use crate::segments::Segment;

/// Flow tables that flows are spread over by hash, whatever the number of workers.
///
/// Limits are per shard and a shard is never split, so that what a limit does (which flow is evicted, say) does not
/// depend on how many workers share the shards. Also the largest number of workers.
pub(crate) const SHARDS: usize = 16;

/// Returns the shard that owns a flow with this hash.
pub(crate) const fn shard_of(hash: u64) -> usize {
    (hash >> 60) as usize
}

/// Returns the time before which nothing more can be finished once flow tables have advanced to `now`.
///
/// A timer is noticed up to a tick of its wheel late (2^30 ns, `FlowTable::TICK_NANOS`) and stamps what it ends with
/// the time at which it fell due, so the last tick is never settled.
pub(crate) const fn settled(now: Timestamp) -> Timestamp {
    let tick = FlowTable::<Sink>::TICK_NANOS;
    Timestamp::from_nanos(now.as_nanos() / tick * tick)
}

counters! {
    /// What went wrong on our side and was contained.
    pub struct WorkerCounters {
        /// Flows whose parser panicked; the flow was closed, the worker lives on.
        flows_poisoned_total,
    }
}

/// What shards counted, summed.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardCounters {
    pub(crate) stream: StreamCounters,
    pub(crate) sctp: SctpCounters,
    pub(crate) protocol: ProtocolCounters,
    pub(crate) quic: QuicCounters,
    pub(crate) decryption: DecryptCounters,
    pub(crate) facts: FactsCounters,
    pub(crate) anomalies: AnomalyCounts,
    pub(crate) worker: WorkerCounters,
}

impl ShardCounters {
    /// Adds the counts of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.stream.merge(&other.stream);
        self.sctp.merge(&other.sctp);
        self.protocol.merge(&other.protocol);
        self.quic.merge(&other.quic);
        self.decryption.merge(&other.decryption);
        self.facts.merge(&other.facts);
        self.anomalies.merge(&other.anomalies);
        self.worker.merge(&other.worker);
    }
}

/// The shards of one worker.
pub(crate) struct Worker {
    shards: Vec<FlowTable<Sink>>,
    /// The SCTP associations of each shard.
    sctp: Vec<SctpTable>,
    /// Index into `shards` by shard number; `u8::MAX` for one that another worker owns.
    index_of: [u8; SHARDS],
    seed: u64,
    /// The parser of all shards; it keeps their limits apart. Holds what was finished, in that order.
    sink: Sink,
    /// The QUIC stage of each shard.
    quic: Vec<Quic>,
    /// TLS and QUIC handshakes and ended WebSocket connections that are due.
    connections: Vec<Connection>,
    /// What was emitted before this has been moved out.
    taken_until: Timestamp,
    /// Time of the latest turn.
    now: Timestamp,
}

impl Worker {
    /// Makes worker `index` of `workers`: it owns the shards that are `index` modulo `workers`.
    ///
    /// `stream` and `protocol` carry the limits of one shard.
    pub(crate) fn new(
        index: usize,
        workers: usize,
        stream: &StreamLimits,
        protocol: &ProtocolConfig,
        key: &IdentityKey,
    ) -> Self {
        let mut index_of = [u8::MAX; SHARDS];
        let owned = (index..SHARDS).step_by(workers.max(1));
        for (at, shard) in owned.clone().enumerate() {
            index_of[shard] = at as u8;
        }
        Self::with_shards(owned.count(), index_of, stream, protocol, key)
    }

    /// Makes a worker that owns every flow it is given, in one shard: for live capture, where the kernel spreads flows.
    pub(crate) fn sole(stream: &StreamLimits, protocol: &ProtocolConfig, key: &IdentityKey) -> Self {
        Self::with_shards(1, [0; SHARDS], stream, protocol, key)
    }

    fn with_shards(
        count: usize,
        index_of: [u8; SHARDS],
        stream: &StreamLimits,
        protocol: &ProtocolConfig,
        key: &IdentityKey,
    ) -> Self {
        let seed = key.seed(b"flow-hash");
        Self {
            shards: (0..count).map(|_| FlowTable::new(stream.clone(), seed)).collect(),
            sctp: (0..count).map(|_| SctpTable::new(stream.clone())).collect(),
            index_of,
            seed,
            sink: Sink::new(protocol, key),
            quic: (0..count).map(|_| Quic::new(protocol.quic)).collect(),
            connections: Vec::new(),
            taken_until: Timestamp::ZERO,
            now: Timestamp::ZERO,
        }
    }

    /// Says which TLS secrets are known from the start.
    pub(crate) fn set_keys(&mut self, keys: KeyStore) {
        self.sink.http.set_keys(keys);
    }

    /// Adds TLS secrets that came at `now`, and reads what waited for them.
    pub(crate) fn add_keys(&mut self, lines: &[KeyLine], now: Timestamp) {
        self.sink.contain(|sink| sink.http.add_keys(lines, now, &mut sink.out));
    }

    /// Takes one segment of a flow that one of this worker's shards owns.
    pub(crate) fn segment(&mut self, segment: &TcpSegment<'_>) {
        self.segment_hashed(segment.key.hash64(self.seed), segment);
    }

    /// The same, where the caller knows the hash of the key by this pipeline's seed.
    pub(crate) fn segment_hashed(&mut self, hash: u64, segment: &TcpSegment<'_>) {
        let index = usize::from(self.index_of[shard_of(hash)]);
        if let Some(table) = self.shards.get_mut(index) {
            self.sink.http.select(index);
            table.segment_hashed(hash, segment, &mut self.sink);
        } else {
            debug_assert!(false, "segment of a foreign shard");
        }
    }

    /// Takes one SCTP packet of an association that one of this worker's shards owns.
    pub(crate) fn sctp(&mut self, packet: &SctpPacket<'_>) {
        self.take_hashed(packet.key.hash64(self.seed), &Segment::Sctp(*packet));
    }

    /// Takes what one of this worker's shards owns, where the caller knows the hash of the key by this pipeline's seed.
    pub(crate) fn take_hashed(&mut self, hash: u64, segment: &Segment<'_>) {
        let packet = match segment {
            Segment::Tcp(segment) => return self.segment_hashed(hash, segment),
            Segment::Sctp(packet) => packet,
        };
        let index = usize::from(self.index_of[shard_of(hash)]);
        if let (Some(table), Some(sctp)) = (self.shards.get_mut(index), self.sctp.get_mut(index)) {
            self.sink.http.select(index);
            sctp.packet(hash, packet, table, &mut self.sink);
        } else {
            debug_assert!(false, "packet of a foreign shard");
        }
    }

    /// Takes one datagram of a flow that one of this worker's shards owns.
    pub(crate) fn datagram(&mut self, datagram: &Datagram<'_>) {
        self.datagram_hashed(datagram.key.hash64(self.seed), datagram);
    }

    /// The same, where the caller knows the hash of the key by this pipeline's seed.
    pub(crate) fn datagram_hashed(&mut self, hash: u64, datagram: &Datagram<'_>) {
        let index = usize::from(self.index_of[shard_of(hash)]);
        if let Some(quic) = self.quic.get_mut(index) {
            // A panic costs the shard's QUIC flows and nothing else.
            if self.sink.contain(|_| quic.datagram(datagram)).is_none() {
                quic.forget_all();
            }
        } else {
            debug_assert!(false, "datagram of a foreign shard");
        }
    }

    /// Expires what ended before `now`, and moves every transaction that was finished before `until` into `out`.
    ///
    /// Whoever needs the total order takes [`settled`] of `now` for `until`; `Timestamp::MAX` takes everything.
    pub(crate) fn collect(&mut self, now: Timestamp, until: Timestamp, out: &mut Vec<Transaction>) {
        for (index, (table, sctp)) in self.shards.iter_mut().zip(&mut self.sctp).enumerate() {
            self.sink.http.select(index);
            sctp.advance(now, table, &mut self.sink);
            table.advance(now, &mut self.sink);
        }
        self.now = self.now.max(now);
        self.sink.contain(|sink| sink.http.advance(now, &mut sink.out));
        self.quic.iter_mut().for_each(|quic| quic.advance(now));
        // Looking through what waits costs its length, so it is done once a tick, not once a turn.
        if until == Timestamp::MAX {
            self.collect_connections(until);
            out.append(&mut self.sink.out);
        } else if until > self.taken_until {
            self.taken_until = until;
            self.collect_connections(until);
            take_before(until, &mut self.sink.out, out);
        }
    }

    /// Moves what [`Worker::collect`] and [`Worker::finish`] found to be told of connections into `out`.
    pub(crate) fn take_connections(&mut self, out: &mut Vec<Connection>) {
        out.append(&mut self.connections);
    }

    fn collect_connections(&mut self, until: Timestamp) {
        let is_due = |emitted| emitted < until || until == Timestamp::MAX;
        for found in self.quic.iter_mut().map(Quic::handshakes).filter(|found| !found.is_empty()) {
            let due = found.extract_if(.., |h| is_due(h.emitted)).map(Connection::Handshake);
            self.connections.extend(due);
        }
        let found = self.sink.http.connections();
        if !found.is_empty() {
            self.connections.extend(found.extract_if(.., |c| is_due(c.emitted())));
        }
    }

    /// Ends every flow, and what waits for secrets.
    pub(crate) fn finish(&mut self, out: &mut Vec<Transaction>) {
        for (index, (table, sctp)) in self.shards.iter_mut().zip(&mut self.sctp).enumerate() {
            self.sink.http.select(index);
            sctp.finish(table, &mut self.sink);
            table.finish(&mut self.sink);
        }
        let now = self.now;
        self.sink.contain(|sink| sink.http.end_waits(now, &mut sink.out));
        out.append(&mut self.sink.out);
        self.quic.iter_mut().for_each(Quic::finish);
        self.collect_connections(Timestamp::MAX);
    }

    /// Sums the counters of the shards.
    pub(crate) fn counters(&self) -> ShardCounters {
        let mut sum = ShardCounters {
            protocol: *self.sink.http.counters(),
            decryption: self.sink.http.decrypt_counters(),
            facts: *self.sink.http.facts().counters(),
            anomalies: self.sink.http.anomaly_counts().clone(),
            worker: self.sink.counters,
            ..ShardCounters::default()
        };
        self.shards.iter().for_each(|table| sum.stream.merge(table.counters()));
        self.sctp.iter().for_each(|table| sum.sctp.merge(table.counters()));
        self.quic.iter().for_each(|quic| sum.quic.merge(quic.counters()));
        sum
    }

    /// Bytes that reassembly holds behind holes now.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.shards.iter().map(FlowTable::held_bytes).sum()
    }

    /// Flows open now.
    pub(crate) fn flows_open(&self) -> u64 {
        self.shards.iter().map(FlowTable::flows_open).sum()
    }
}

/// Connects reassembly to the HTTP parser.
struct Sink {
    http: Http,
    out: Vec<Transaction>,
    counters: WorkerCounters,
}

impl Sink {
    fn new(protocol: &ProtocolConfig, key: &IdentityKey) -> Self {
        Self {
            http: Http::new(protocol.clone(), key.clone()),
            out: Vec::new(),
            counters: WorkerCounters::default(),
        }
    }

    /// Runs `work` so that a panic costs its flow the parser and nothing else: `None`, and the flow is counted.
    fn contain<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(|| work(self))).ok();
        self.counters.flows_poisoned_total += u64::from(done.is_none());
        done
    }

    /// The same for work on a flow's session, where it still has one; after a panic further bytes are bypassed.
    fn contain_in(&mut self, state: &mut Option<Session>, work: impl FnOnce(&mut Self, &mut Session)) {
        let Some(session) = state else { return };
        if self.contain(|sink| work(sink, session)).is_none() {
            *state = None;
        }
    }
}

impl StreamSink for Sink {
    type Flow = Option<Session>;

    fn open(&mut self, flow: &FlowInfo) -> Self::Flow {
        self.contain(|sink| sink.http.open(flow))
    }

    fn chunk(
        &mut self,
        state: &mut Self::Flow,
        flow: &FlowInfo,
        direction: Direction,
        chunk: Chunk<'_>,
        now: Timestamp,
    ) {
        self.contain_in(state, |sink, session| {
            sink.http.chunk(session, flow, direction, chunk, now, &mut sink.out);
        });
    }

    fn overlap_conflict(&mut self, state: &mut Self::Flow, _flow: &FlowInfo, direction: Direction) {
        self.contain_in(state, |sink, session| sink.http.overlap_conflict(session, direction));
    }

    fn wants(&self, state: &Self::Flow, direction: Direction) -> bool {
        state.as_ref().is_some_and(|session| self.http.wants(session, direction))
    }

    fn close(&mut self, mut state: Self::Flow, flow: &FlowInfo, now: Timestamp) {
        if let Some(session) = state.take() {
            self.contain(|sink| sink.http.close(session, flow, now, &mut sink.out));
        }
    }
}

#[cfg(test)]
mod tests {
    use offpath_types::{FlowKey, Host, Peer, TunnelId};

    use super::*;

    #[test]
    fn a_panic_in_a_parser_costs_its_flow_only() {
        let mut sink = Sink::new(&ProtocolConfig::default(), &IdentityKey::new([1; 32]));
        let peer = |last, port| Peer { host: Host::from_v4([192, 0, 2, last]), port };
        let (key, client_side) = FlowKey::new(peer(1, 50_000), peer(2, 80), TunnelId(0));
        let opened = Timestamp::from_parts(1_000, 0);
        let flow = FlowInfo { key, client_side, opened, midstream: false, envelope: Default::default() };
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let request = Chunk::Data { bytes, offset: 0, peer_acked: None, seen: opened };

        let (mut sick, mut sound) = (sink.open(&flow), sink.open(&flow));
        assert!(sink.wants(&sick, Direction::ToServer));
        sink.contain_in(&mut sick, |_, _| panic!("as the test wants it"));
        assert!(sick.is_none());
        assert!(!sink.wants(&sick, Direction::ToServer), "the rest is bypassed");
        sink.contain_in(&mut sick, |_, _| unreachable!("it has no parser any more"));
        sink.close(sick, &flow, opened);
        assert_eq!((sink.counters.flows_poisoned_total, sink.out.len()), (1, 0));

        sink.chunk(&mut sound, &flow, Direction::ToServer, request, opened);
        sink.close(sound, &flow, opened);
        assert_eq!((sink.counters.flows_poisoned_total, sink.out.len()), (1, 1), "the other flow lives on");
    }
}
