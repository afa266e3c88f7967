//! What happened to every segment, payload byte and flow.

offpath_types::counters! {
    /// Counts of one flow table.
    ///
    /// They balance at any time between two calls (see [`StreamCounters::is_balanced`]):
    /// ```text
    /// segments = empty + delivered + held + duplicate + bypassed + Σ segments_dropped
    /// payload_bytes = bytes_delivered + bytes_duplicate + bytes_bypassed + Σ bytes_dropped + held now
    /// flows_opened = Σ flows_closed + open now
    /// flows_given = flows_taken_back + given and open now
    /// ```
    pub struct StreamCounters {
        /// Segments taken.
        segments_total,
        /// Segments without payload: handshakes, acknowledgements, FIN, RST, keep-alives.
        segments_empty_total,
        /// Segments of which at least a byte was delivered at once.
        segments_delivered_total,
        /// Segments of which at least a byte was put on hold, and none delivered at once.
        segments_held_total,
        /// Segments with payload, all of it seen before (or come too late for its gap).
        segments_duplicate_total,
        /// Segments of directions that the sink has no more use for.
        segments_bypassed_total,
        /// Segments dropped: start outside the believable window.
        segments_dropped_out_of_window_total,
        /// Segments dropped: payload after the sender's FIN or a RST.
        segments_dropped_after_close_total,
        /// Segments dropped: payload on a SYN that could not be kept until the handshake.
        segments_dropped_syn_payload_total,

        /// Captured payload bytes taken.
        payload_bytes_total,
        /// Bytes delivered to the sink.
        bytes_delivered_total,
        /// Bytes seen before.
        bytes_duplicate_total,
        /// Bytes of directions that the sink has no more use for.
        bytes_bypassed_total,
        /// Bytes dropped: their gap had been given up already.
        bytes_dropped_late_total,
        /// Bytes dropped: behind a hole that their receiver asked for until they were given up.
        bytes_dropped_unacknowledged_total,
        /// Bytes dropped: before the byte at which a midstream flow was joined, or at which its SYN+ACK says a direction
        /// begins.
        bytes_dropped_before_base_total,
        /// Bytes dropped: start outside the believable window.
        bytes_dropped_out_of_window_total,
        /// Bytes dropped: after the sender's FIN or a RST.
        bytes_dropped_after_close_total,
        /// Bytes dropped: payload on a SYN that the server refused or that could not be kept.
        bytes_dropped_syn_payload_total,

        /// Bytes of a held overlap that differ from the first copy (also counted as duplicate).
        overlap_conflict_bytes_total,
        /// Gaps handed on.
        gaps_total,
        /// Bytes in them.
        gap_bytes_total,
        /// Holes given up because the receiver had acknowledged them.
        holes_acked_total,
        /// Holes given up because of their age.
        holes_old_total,
        /// Holes given up because a hold limit of their direction was reached.
        holes_direction_full_total,
        /// Holes given up because the table's hold limit was reached.
        holes_table_full_total,
        /// Holes given up because nothing filled them in time after a RST.
        holes_reset_total,
        /// Holes given up because their flow expired, was evicted or reused, or the capture ended.
        holes_ended_total,
        /// Bytes cut off by a snap length, handed on as gaps at once.
        snap_cut_bytes_total,

        /// Flows opened, embryonic ones included.
        flows_opened_total,
        /// Flows opened without their SYN.
        flows_midstream_total,
        /// Flows of which the sink was told.
        flows_given_total,
        /// Flow states given back to the sink.
        flows_taken_back_total,
        /// Flows closed by FIN of both sides.
        flows_closed_fin_total,
        /// Flows closed by RST.
        flows_closed_rst_total,
        /// Flows expired.
        flows_closed_expired_total,
        /// Flows evicted: carrying data, both sides seen.
        flows_closed_evicted_total,
        /// Flows evicted: without data, or of one side only.
        flows_closed_evicted_unproven_total,
        /// Flows evicted: embryonic.
        flows_closed_evicted_embryonic_total,
        /// Flows whose 5-tuple a new connection took over.
        flows_closed_reused_total,
        /// Flows closed by the end of the capture.
        flows_closed_capture_end_total,
        /// Closed flows forgotten before their time, because too many were remembered.
        closed_flows_forgotten_total,

        /// SYNs not followed because the table was full of better flows.
        syns_refused_total,
        /// SYNs and SYN+ACKs seen again, also for a second after their connection was closed.
        syns_repeated_total,
        /// SYNs that contradict a live flow; believed only once something confirms them.
        syns_doubted_total,
        /// Segments without payload that belong to no flow.
        segments_stray_total,
        /// RSTs whose sequence number no receiver would accept.
        resets_out_of_window_total,
        /// Flows that went on after a RST which their receiver therefore ignored, or after their client's FIN where the
        /// server is not seen.
        flows_revived_total,
        /// FINs that lie before bytes of the same sender, or before what the server acknowledged, or that alone were
        /// seen of a server whose SYN+ACK was lost; ignored.
        fins_contradicted_total,
        /// Acknowledgements too far from what was seen; ignored.
        acks_out_of_window_total,
        /// Segments with the urgent flag; their bytes are taken in line.
        segments_urgent_total,
        /// Segments of a flow captured before its latest one.
        clock_backwards_total,
    }
}

impl StreamCounters {
    /// Returns the flows closed, whatever the reason.
    pub fn flows_closed(&self) -> u64 {
        self.flows_closed_fin_total
            + self.flows_closed_rst_total
            + self.flows_closed_expired_total
            + self.flows_closed_evicted_total
            + self.flows_closed_evicted_unproven_total
            + self.flows_closed_evicted_embryonic_total
            + self.flows_closed_reused_total
            + self.flows_closed_capture_end_total
    }

    /// Returns the captured payload bytes dropped, whatever the reason.
    pub fn bytes_dropped(&self) -> u64 {
        self.bytes_dropped_late_total
            + self.bytes_dropped_unacknowledged_total
            + self.bytes_dropped_before_base_total
            + self.bytes_dropped_out_of_window_total
            + self.bytes_dropped_after_close_total
            + self.bytes_dropped_syn_payload_total
    }

    /// Returns the segments dropped, whatever the reason.
    pub fn segments_dropped(&self) -> u64 {
        self.segments_dropped_out_of_window_total
            + self.segments_dropped_after_close_total
            + self.segments_dropped_syn_payload_total
    }

    /// Tells whether the books balance, given what the table holds and has open now.
    pub fn is_balanced(&self, held_bytes_now: u64, flows_open_now: u64) -> bool {
        self.segments_total
            == self.segments_empty_total
                + self.segments_delivered_total
                + self.segments_held_total
                + self.segments_duplicate_total
                + self.segments_bypassed_total
                + self.segments_dropped()
            && self.payload_bytes_total
                == self.bytes_delivered_total
                    + self.bytes_duplicate_total
                    + self.bytes_bypassed_total
                    + self.bytes_dropped()
                    + held_bytes_now
            && self.flows_opened_total == self.flows_closed() + flows_open_now
            // Of the open flows, those that carried data are given: between none and all.
            && (self.flows_taken_back_total..=self.flows_taken_back_total + flows_open_now)
                .contains(&self.flows_given_total)
    }
}
