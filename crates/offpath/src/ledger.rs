//! The ledger: every frame, byte and transaction in exactly one place.

use offpath_capture::CaptureCounters;
use offpath_enforce::PlannerCounters;
use offpath_packet::DecodeCounters;
use offpath_protocol::KeyLogCounters;
use offpath_score::ScoreCounters;
use offpath_types::counters;
use serde_json::{Map, Value, json};

use crate::exchange::HandoverCounters;
use crate::inventory::InventoryCounters;
use crate::join::JoinCounters;
use crate::keys::LiveCounters;
use crate::worker::{ShardCounters, Worker};

counters! {
    /// What happened between parsing and output.
    pub struct PipelineCounters {
        /// Transactions that the parsers finished.
        transactions_total,
        /// Transactions that were scored.
        transactions_scored_total,
        /// Transactions dropped because the queue to scoring was full (live capture only).
        transactions_dropped_queue_full_total,
        /// Transactions that came after later ones had been scored (live capture only; they are scored all the same).
        transactions_late_total,
        /// Times that waiting transactions were handed on by eras, since packet time stood still (replay only).
        eras_total,
        /// Transaction records written.
        records_written_total,
        /// Decisions made, dry run or not.
        decisions_total,
        /// TLS and QUIC handshakes that the parsers handed on.
        handshakes_total,
        /// Handshakes dropped because the queue was full (live capture only).
        handshakes_dropped_queue_full_total,
        /// Ended WebSocket connections that the parsers handed on.
        websockets_total,
        /// Ended WebSocket connections dropped because the queue was full (live capture only).
        websockets_dropped_queue_full_total,
        /// Connection records written.
        connections_written_total,
        /// Times that the stats or the inventory could not be written while the run went on (live capture only).
        files_unwritten_total,
    }
}

/// Counters of every stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) capture: CaptureCounters,
    pub(crate) decode: DecodeCounters,
    /// Live only.
    pub(crate) handover: Option<HandoverCounters>,
    pub(crate) shards: ShardCounters,
    pub(crate) keys: KeyLogCounters,
    pub(crate) live_keys: LiveCounters,
    pub(crate) pipeline: PipelineCounters,
    pub(crate) join: JoinCounters,
    pub(crate) score: ScoreCounters,
    pub(crate) planner: PlannerCounters,
    /// Where one is made.
    pub(crate) inventory: Option<InventoryCounters>,
    pub(crate) flows_open: u64,
    pub(crate) held_bytes: u64,
}

/// One equation that must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Balance {
    /// What is balanced.
    pub(crate) name: &'static str,
    /// What came in.
    pub(crate) came_in: u64,
    /// Where it went, summed.
    pub(crate) went: u64,
}

impl Balance {
    /// Tells whether both sides are equal.
    pub(crate) fn holds(&self) -> bool {
        self.came_in == self.went
    }
}

impl Ledger {
    /// Adds what a source and its decoder counted.
    pub(crate) fn add_source(&mut self, capture: CaptureCounters, decode: DecodeCounters) {
        self.capture.merge(&capture);
        self.decode.merge(&decode);
    }

    /// Adds what a worker counted.
    pub(crate) fn add_worker(&mut self, worker: &Worker) {
        self.shards.merge(&worker.counters());
        self.flows_open += worker.flows_open();
        self.held_bytes += worker.held_bytes();
    }

    /// Adds what another lane's source and worker counted.
    pub(crate) fn merge_lane(&mut self, lane: &Self) {
        self.add_source(lane.capture, lane.decode);
        if let Some(handover) = &lane.handover {
            self.handover.get_or_insert_default().merge(handover);
        }
        self.shards.merge(&lane.shards);
        self.keys.merge(&lane.keys);
        self.flows_open += lane.flows_open;
        self.held_bytes += lane.held_bytes;
    }

    /// Returns the equations, from the wire to the decision.
    pub(crate) fn balances(&self) -> Vec<Balance> {
        let (d, t) = (&self.decode, &self.pipeline);
        let ShardCounters {
            stream: s, sctp: x, protocol: p, decryption: y, quic: q, facts: f, worker, ..
        } = &self.shards;
        let h = self.handover.unwrap_or_default();
        let mut list = vec![
            ("frames read = frames given to decoding", self.capture.frames_total, d.frames_total),
            (
                "frames = TCP + other + fragments held + duplicates + dropped",
                d.frames_total,
                d.frames_tcp_total
                    + d.frames_not_tcp()
                    + d.frames_fragment_held_total
                    + d.frames_duplicate_total
                    + d.frames_dropped(),
            ),
            (
                "TCP and SCTP frames + segments made of SCTP = taken by reassembly",
                d.frames_tcp_total + d.frames_sctp_total + x.segments_total,
                s.segments_total
                    + x.packets_total
                    + h.segments_dropped_queue_full_total
                    + h.segments_dropped_owner_ended_total,
            ),
            (
                "TCP and SCTP payload bytes decoded + made of SCTP = taken by reassembly",
                d.tcp_payload_bytes_total + d.sctp_payload_bytes_total + x.bytes_passed_total,
                s.payload_bytes_total
                    + x.packet_bytes_total
                    + h.bytes_dropped_queue_full_total
                    + h.bytes_dropped_owner_ended_total,
            ),
            (
                "SCTP packets = taken + wrong tag + stray",
                x.packets_total,
                x.packets_taken_total + x.packets_wrong_tag_total + x.packets_stray_total,
            ),
            (
                "SCTP data chunks = passed + held now + old + dropped",
                x.data_chunks_total,
                x.chunks_passed_total + x.chunks_held + x.chunks_old_total + x.chunks_dropped(),
            ),
            (
                "SCTP data bytes = passed + held now + dropped",
                x.data_bytes_total,
                x.bytes_passed_total + x.bytes_held + x.bytes_dropped_total,
            ),
            (
                "SCTP associations = held now + ended",
                x.associations_total,
                x.associations_held + x.associations_ended(),
            ),
            (
                "segments = empty + delivered + held + duplicate + bypassed + dropped",
                s.segments_total,
                s.segments_empty_total
                    + s.segments_delivered_total
                    + s.segments_held_total
                    + s.segments_duplicate_total
                    + s.segments_bypassed_total
                    + s.segments_dropped(),
            ),
            (
                "payload bytes = delivered + duplicate + bypassed + dropped + held now",
                s.payload_bytes_total,
                s.bytes_delivered_total
                    + s.bytes_duplicate_total
                    + s.bytes_bypassed_total
                    + s.bytes_dropped()
                    + self.held_bytes,
            ),
            ("flows opened = closed + open now", s.flows_opened_total, s.flows_closed() + self.flows_open),
        ];
        if worker.flows_poisoned_total == 0 {
            // A poisoned flow takes with it what its parser had not counted yet.
            list.push((
                "bytes delivered + decrypted = bytes taken by parsers",
                s.bytes_delivered_total + y.bytes_plain_total,
                p.bytes_in_total,
            ));
            list.push((
                "bytes taken by parsers = heads + bodies + framing + WebSocket + skipped",
                p.bytes_in_total,
                p.bytes_head_total
                    + p.bytes_body_total
                    + p.bytes_framing_total
                    + p.bytes_websocket_total
                    + p.bytes_tls_total
                    + p.skipped_bytes_not_http_total
                    + p.skipped_bytes_search_total
                    + p.skipped_bytes_bypassed_total
                    + p.skipped_bytes_truncated_total
                    + p.skipped_bytes_held_full_total
                    + p.skipped_bytes_head_rest_total,
            ));
            list.push((
                "transactions parsed = transactions handed on",
                p.transactions_total,
                t.transactions_total,
            ));
            list.push((
                "handshakes read = handshakes handed on",
                p.tls_handshakes_total + q.handshakes_total,
                t.handshakes_total,
            ));
            list.push((
                "WebSocket connections ended = handed on",
                p.websockets_ended_total,
                t.websockets_total,
            ));
            list.push((
                "waits for TLS secrets = served + expired + over a bound + ended + waiting now",
                y.waits_total,
                y.waits_served_total
                    + y.waits_expired_total
                    + y.waits_connection_full_total
                    + y.waits_full_total
                    + y.waits_ended_total
                    + y.waits_held,
            ));
            list.push(("QUIC frames = datagrams taken", d.frames_quic_total, q.datagrams_total));
            list.push((
                "QUIC packets = opened + undecryptable + other + malformed",
                q.packets_total,
                q.packets_opened_total
                    + q.packets_undecryptable_total
                    + q.packets_other_total
                    + q.packets_malformed_total,
            ));
            list.push((
                "QUIC flows = held now + expired + evicted + ended",
                q.flows_total,
                q.flows_held + q.flows_expired_total + q.flows_evicted_total + q.flows_ended_total,
            ));
        }
        let k = &self.keys;
        list.push((
            "key log lines = used + unused + invalid",
            k.lines_total,
            k.lines_used_total + k.lines_unused_total + k.lines_invalid_total,
        ));
        list.push((
            "connections that live key logs named = used + expired + evicted + kept now",
            y.known_total,
            y.known_used_total + y.known_expired_total + y.known_evicted_total + y.known_held,
        ));
        let j = &self.join;
        list.push((
            "transactions to be joined = joined + unmatched",
            j.transactions_total,
            j.transactions_joined_total + j.transactions_unmatched_total,
        ));
        list.push((
            "handshakes remembered = held now + replaced + expired + evicted",
            j.handshakes_total,
            j.handshakes_held
                + j.handshakes_replaced_total
                + j.handshakes_expired_total
                + j.handshakes_evicted_total,
        ));
        list.push((
            "body bytes = looked into + over the cap + after a gap",
            f.facts_body_bytes_total,
            f.facts_body_bytes_taken_total
                + f.facts_body_bytes_over_cap_total
                + f.facts_body_bytes_after_gap_total,
        ));
        list.push((
            "coded bodies = decoded + over the cap + over the ratio + broken",
            f.facts_bodies_coded_total,
            f.facts_bodies_coded_decoded_total
                + f.facts_bodies_coded_over_cap_total
                + f.facts_bodies_coded_over_ratio_total
                + f.facts_bodies_coded_broken_total,
        ));
        list.push((
            "transactions parsed = complete + incomplete + halves",
            p.transactions_total,
            p.transactions_complete_total
                + p.transactions_incomplete_total
                + p.transactions_request_only_total
                + p.transactions_response_only_total,
        ));
        list.push((
            "transactions = scored + dropped at a full queue",
            t.transactions_total,
            t.transactions_scored_total + t.transactions_dropped_queue_full_total,
        ));
        list.push((
            "transactions scored = counted by scoring",
            t.transactions_scored_total,
            self.score.transactions_total,
        ));
        list.push((
            "transactions scored = counted by planning",
            t.transactions_scored_total,
            self.planner.transactions_total,
        ));
        if let Some(i) = &self.inventory {
            list.push((
                "requests seen by the inventory = learned + nonsense + unlisted + no room",
                i.requests_total,
                i.learned_total + i.nonsense_total + i.unlisted_total + i.endpoints_full_total,
            ));
        }
        list.into_iter().map(|(name, came_in, went)| Balance { name, came_in, went }).collect()
    }

    /// Tells whether every equation holds.
    pub(crate) fn balanced(&self) -> bool {
        self.balances().iter().all(Balance::holds)
    }

    /// Returns the ledger as JSON: a section per stage, the equations, and `balanced`.
    pub(crate) fn to_json(&self) -> Value {
        let section = |fields: &[(&'static str, u64)]| {
            // What the section's name says already is left out.
            fields
                .iter()
                .map(|(k, v)| (k.trim_start_matches("facts_").to_owned(), json!(v)))
                .collect::<Map<_, _>>()
        };
        let shards = &self.shards;
        let anomalies: Map<_, _> = shards
            .anomalies
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(anomaly, count)| (anomaly.name().to_owned(), json!(count)))
            .collect();
        let balances: Vec<_> = self
            .balances()
            .iter()
            .map(|b| json!({"name": b.name, "in": b.came_in, "out": b.went, "balanced": b.holds()}))
            .collect();
        let mut all = json!({
            "capture": section(&self.capture.fields()),
            "decode": section(&self.decode.fields()),
            "stream": section(&shards.stream.fields()),
            "sctp": section(&shards.sctp.fields()),
            "protocol": section(&shards.protocol.fields()),
            "quic": section(&shards.quic.fields()),
            "keylog": section(&[&self.keys.fields()[..], &self.live_keys.fields()].concat()),
            "decryption": section(&shards.decryption.fields()),
            "facts": section(&shards.facts.fields()),
            "anomalies": anomalies,
            "worker": section(&shards.worker.fields()),
            "pipeline": section(&self.pipeline.fields()),
            "join": section(&self.join.fields()),
            "score": section(&self.score.fields()),
            "enforce": section(&self.planner.fields()),
            "balance": balances,
            "balanced": self.balanced(),
        });
        if let Some(all) = all.as_object_mut() {
            if let Some(handover) = &self.handover {
                all.insert("handover".to_owned(), section(&handover.fields()).into());
            }
            if let Some(inventory) = &self.inventory {
                all.insert("inventory".to_owned(), section(&inventory.fields()).into());
            }
        }
        all
    }
}
