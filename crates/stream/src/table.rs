//! Finds the flow of a segment; opens, expires and evicts flows.

use offpath_packet::TcpSegment;
use offpath_types::Timestamp;

use crate::{StreamCounters, StreamLimits, StreamSink};

/// All flows of one shard.
pub struct FlowTable<S: StreamSink> {
    limits: StreamLimits,
    seed: u64,
    counters: StreamCounters,
    clock: Timestamp,
    states: Vec<S::Flow>,
}

impl<S: StreamSink> FlowTable<S> {
    /// Makes an empty table; it owns next to no memory until flows come.
    ///
    /// `seed` is secret and keys the hash; give the same one as for choosing the shard.
    pub fn new(limits: StreamLimits, seed: u64) -> Self {
        Self { limits, seed, counters: StreamCounters::default(), clock: Timestamp::ZERO, states: Vec::new() }
    }

    /// Takes one segment, in capture order.
    pub fn segment(&mut self, segment: &TcpSegment<'_>, sink: &mut S) {
        self.segment_hashed(segment.key.hash64(self.seed), segment, sink);
    }

    /// Same as [`FlowTable::segment`], where the caller has `segment.key.hash64(seed)` already.
    pub fn segment_hashed(&mut self, hash: u64, segment: &TcpSegment<'_>, sink: &mut S) {
        let _ = (hash, segment, sink);
    }

    /// Moves packet time on without a segment: expires flows and gives up holes that are due by `now`.
    pub fn advance(&mut self, now: Timestamp, sink: &mut S) {
        let _ = sink;
        self.clock = self.clock.max(now);
    }

    /// Ends all flows, with `EndReason::CaptureEnd` at the latest packet time.
    pub fn finish(&mut self, sink: &mut S) {
        let _ = (sink, self.limits.flows_max);
        self.states.clear();
    }

    /// Drops the flow in whose callback the sink panicked, without calling the sink again.
    ///
    /// Call after catching a panic out of any other method; the table is usable afterwards.
    pub fn drop_poisoned(&mut self) -> bool {
        false
    }

    /// Returns the counts.
    pub fn counters(&self) -> &StreamCounters {
        &self.counters
    }

    /// Returns the flows open now, embryonic ones included.
    pub fn flows_open(&self) -> u64 {
        0
    }

    /// Returns the captured bytes held now, behind holes and for handshakes to complete.
    pub fn held_bytes(&self) -> u64 {
        0
    }
}
