//! What the parser counted.

use offpath_types::{Anomalies, Anomaly};

offpath_types::counters! {
    /// What became of every byte and message. Books that balance once all sessions are closed:
    ///
    /// - `bytes_in_total` = `bytes_head_total` + `bytes_body_total` + `bytes_framing_total` + `bytes_websocket_total`
    ///   + `bytes_tls_total` + every `skipped_bytes_*_total` (while sessions are open: + bytes held in their buffers);
    /// - `gap_bytes_total` = `gap_bytes_body_total` + `gap_bytes_lost_total` + `gap_bytes_ignored_total`;
    /// - `transactions_total` = `transactions_complete_total` + `transactions_incomplete_total`
    ///   + `transactions_request_only_total` + `transactions_response_only_total`;
    /// - `flows_opened_total` = `flows_http1_total` + `flows_http2_total` + `flows_tls_total`
    ///   + `flows_not_http_total` + `flows_unrecognised_total` (ended before one could tell).
    pub struct ProtocolCounters {
        /// Sessions opened.
        flows_opened_total,
        /// Closed sessions that carried HTTP/1.
        flows_http1_total,
        /// Closed sessions that began with the HTTP/2 preface.
        flows_http2_total,
        /// Closed sessions that carried TLS.
        flows_tls_total,
        /// Closed sessions that were given up as not HTTP.
        flows_not_http_total,
        /// Closed sessions that showed too little to tell.
        flows_unrecognised_total,
        /// Flows whose guessed roles were swapped because the content said so.
        flows_swapped_total,
        /// Flows that began with a PROXY protocol preface.
        flows_proxy_protocol_total,
        /// PROXY protocol prefaces behind a flow's first.
        prefaces_chained_total,
        /// Flows that began with a SOCKS handshake.
        flows_socks_total,
        /// Flows that became tunnels (CONNECT).
        flows_tunnelled_total,
        /// Flows that switched protocols (101).
        flows_upgraded_total,
        /// Bytes delivered in data chunks.
        bytes_in_total,
        /// Bytes of message heads that were parsed.
        bytes_head_total,
        /// Bytes of message bodies, after dechunking.
        bytes_body_total,
        /// Bytes of chunk framing, trailers, empty lines between messages, PROXY prefaces, SOCKS handshakes.
        bytes_framing_total,
        /// Bytes of WebSocket frames.
        bytes_websocket_total,
        /// Bytes of TLS flows: hellos, and what was delivered after them.
        bytes_tls_total,
        /// Bytes of flows that are not HTTP/1, up to and after giving up.
        skipped_bytes_not_http_total,
        /// Bytes passed over while looking for a message start.
        skipped_bytes_search_total,
        /// Bytes after an upgrade or inside a tunnel.
        skipped_bytes_bypassed_total,
        /// Bytes of unfinished heads whose flow was cut before their first line ended.
        skipped_bytes_truncated_total,
        /// Bytes in buffers dropped because `held_bytes_max` was reached.
        skipped_bytes_held_full_total,
        /// Bytes of heads beyond `head_bytes_max`.
        skipped_bytes_head_rest_total,
        /// Bytes the capture missed.
        gap_bytes_total,
        /// Missing bytes that lay inside a body and cost nothing else.
        gap_bytes_body_total,
        /// Missing bytes that cost the place in the stream.
        gap_bytes_lost_total,
        /// Missing bytes on flows no longer parsed.
        gap_bytes_ignored_total,
        /// Message starts found again after the place in the stream was lost.
        resyncs_total,
        /// Heads that were well formed and came in one piece, or were once put together.
        heads_fast_total,
        /// Heads that needed the lenient parser.
        heads_lenient_total,
        /// Transactions handed on.
        transactions_total,
        /// Transactions with both messages seen whole.
        transactions_complete_total,
        /// Transactions with both messages, not both whole.
        transactions_incomplete_total,
        /// Requests whose response was not seen.
        transactions_request_only_total,
        /// Responses whose request was not seen.
        transactions_response_only_total,
        /// What looked like requests behind a CONNECT and went through the tunnel; not handed on.
        requests_tunnelled_total,
        /// HTTP/2 frames taken.
        http2_frames_total,
        /// HTTP/2 frames that their receiver must refuse (length, stream or order).
        http2_frames_invalid_total,
        /// HTTP/2 heads on streams that were over.
        http2_heads_stale_total,
        /// HTTP/2 header blocks decoded.
        http2_blocks_total,
        /// HTTP/2 header blocks not decoded: over a limit, with a part missing, or malformed.
        http2_blocks_lost_total,
        /// Fields whose name or value is not known, because they refer to what was never seen.
        http2_fields_unresolved_total,
        /// Fields not kept because their head is over `http2_list_bytes_max`.
        http2_fields_over_limit_total,
        /// Streams that either side reset.
        http2_streams_reset_total,
        /// Resets past `http2_resets_max`.
        http2_rapid_resets_total,
        /// Frames past `http2_useless_max`.
        http2_frames_flood_total,
        /// Requests that a server promised and answered by itself.
        http2_pushes_total,
        /// Requests given up because too many were open.
        pipeline_overflow_total,
        /// Of those, while open requests kept as much as `held_bytes_max` lets them.
        pipeline_overflow_held_full_total,
        /// Responses held back for their request, or (101) for its end.
        early_responses_held_total,
        /// Responses parsed before that because they had been held too long or were too many bytes.
        early_responses_released_total,
        /// Pairings established again after a gap.
        repaired_total,
        /// Event streams (`text/event-stream`), handed on at their heads.
        event_streams_total,
        /// Responses that the server held back for 5 s or more: long polls.
        long_polls_total,
        /// Flows, and streams of HTTP/2, that became WebSocket connections.
        flows_websocket_total,
        /// WebSocket connections that ended and were handed on.
        websockets_ended_total,
        /// WebSocket messages of clients.
        websocket_messages_to_server_total,
        /// WebSocket messages of servers.
        websocket_messages_to_client_total,
        /// Of both, those compressed (permessage-deflate).
        websocket_messages_compressed_total,
        /// WebSocket pings, pongs and closes.
        websocket_control_frames_total,
        /// Of those, closes.
        websocket_closes_total,
        /// Of those, with another code than 1000 (normal) or 1001 (going away).
        websocket_closes_abnormal_total,
        /// Frames that a client did not mask, or a server did.
        websocket_masks_wrong_total,
        /// Frames that go on with a message that has not begun, or begin one within another.
        websocket_frames_out_of_order_total,
        /// Frames that are none: the counting of their direction ends there.
        websocket_frames_invalid_total,
        /// Directions of WebSocket connections whose counting ended early, by such a frame or a gap.
        websocket_directions_lost_total,
        /// ClientHellos read, the first of each flow.
        tls_client_hellos_total,
        /// ServerHellos read (requests for another ClientHello apart).
        tls_server_hellos_total,
        /// Hellos that were cut by a gap or the flow's end, too long, or malformed.
        tls_hellos_unreadable_total,
        /// Hellos of SSL 2.0, which are not looked into.
        tls_hellos_sslv2_total,
        /// ClientHellos with an encrypted one inside, or bytes that pretend to be one (GREASE).
        tls_ech_total,
        /// TLS handshakes of which at least one hello was read.
        tls_handshakes_total,
    }
}

/// How many transactions were handed on with each anomaly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnomalyCounts([u64; Anomaly::ALL.len()]);

impl Default for AnomalyCounts {
    fn default() -> Self {
        Self([0; Anomaly::ALL.len()])
    }
}

impl AnomalyCounts {
    /// Counts the members of `set`.
    pub fn add(&mut self, set: Anomalies) {
        if !set.is_empty() {
            set.iter().for_each(|a| self.0[a as usize] += 1);
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a += b);
    }

    /// Returns how many had `anomaly`.
    pub fn get(&self, anomaly: Anomaly) -> u64 {
        self.0[anomaly as usize]
    }

    /// Yields every anomaly with its count, in record order.
    pub fn iter(&self) -> impl Iterator<Item = (Anomaly, u64)> {
        Anomaly::ALL.iter().map(|a| (*a, self.0[*a as usize]))
    }
}
