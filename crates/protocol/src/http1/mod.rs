//! HTTP/1.x on one flow: framing, state, pairing.

use offpath_types::{Chunk, Direction, FlowInfo, IdentityKey, Timestamp, Transaction};

use crate::facts::Facts;
use crate::{AnomalyCounts, ProtocolConfig, ProtocolCounters};

/// The HTTP stage of one worker: configuration, scratch space and counters, shared by its sessions.
pub struct Http {
    config: ProtocolConfig,
    facts: Facts,
    counters: ProtocolCounters,
    anomalies: AnomalyCounts,
}

/// The HTTP state of one flow.
pub struct Session {}

impl Http {
    /// Makes the stage; `key` turns identities into hashes.
    pub fn new(config: ProtocolConfig, key: IdentityKey) -> Self {
        let facts = Facts::new(config.facts.clone(), key);
        Self { config, facts, counters: ProtocolCounters::default(), anomalies: AnomalyCounts::default() }
    }

    /// Opens the state of a new flow.
    pub fn open(&mut self, _flow: &FlowInfo) -> Session {
        self.counters.flows_opened_total += 1;
        Session {}
    }

    /// Takes the next chunk of one direction; finished transactions are appended to `out`.
    pub fn chunk(
        &mut self,
        _s: &mut Session,
        _flow: &FlowInfo,
        _dir: Direction,
        _chunk: Chunk<'_>,
        _now: Timestamp,
        _out: &mut Vec<Transaction>,
    ) {
        let _ = &self.config.limits;
    }

    /// Notes that overlapping segments of `dir` disagreed: the message in progress (or the next) is marked.
    pub fn overlap_conflict(&mut self, _s: &mut Session, _dir: Direction) {}

    /// Tells whether bytes of `dir` still matter: false once the flow is known not to be HTTP, was upgraded
    /// or became a tunnel.
    pub fn wants(&self, _s: &Session, _dir: Direction) -> bool {
        true
    }

    /// Ends the flow; whatever is open is appended to `out`.
    pub fn close(&mut self, _s: Session, _flow: &FlowInfo, _now: Timestamp, _out: &mut Vec<Transaction>) {}

    /// Returns the counts so far.
    pub fn counters(&self) -> &ProtocolCounters {
        &self.counters
    }

    /// Returns how many transactions had each anomaly.
    pub fn anomaly_counts(&self) -> &AnomalyCounts {
        &self.anomalies
    }

    /// Returns what was found in heads and bodies.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}

/// Fuzz body; see the tests.
#[doc(hidden)]
pub fn fuzz_http1_cuts(_data: &[u8]) {}
