//! What happened to every SCTP packet, chunk and association.

offpath_types::counters! {
    /// Counts of one table of SCTP associations.
    ///
    /// They balance at any time between two calls (see [`SctpCounters::is_balanced`]):
    /// ```text
    /// packets = taken + wrong_tag + stray
    /// data_chunks = passed + held + old + Σ chunks_dropped
    /// data_bytes = bytes_passed + bytes_held + bytes_dropped
    /// associations = held + closed + expired + evicted + capture_end
    /// ```
    pub struct SctpCounters {
        /// Packets taken.
        packets_total,
        /// Packets of an association, or that open one.
        packets_taken_total,
        /// Packets whose verification tag is not their association's.
        packets_wrong_tag_total,
        /// Packets that belong to no association and open none, or whose first chunk does not fit.
        packets_stray_total,
        /// Of those taken: packets with a chunk that does not fit; what follows it was not read.
        packets_malformed_total,
        /// Captured bytes of the packets, after the common header.
        packet_bytes_total,

        /// DATA chunks read.
        data_chunks_total,
        /// DATA chunks given to their flow.
        chunks_passed_total,
        /// DATA chunks held now: before them one is missing.
        chunks_held,
        /// DATA chunks that were seen before, or that came after they had been given up.
        chunks_old_total,
        /// DATA chunks dropped: too far ahead to be believed.
        chunks_dropped_out_of_window_total,
        /// DATA chunks dropped: they continue no message, or repeat the number of one.
        chunks_dropped_order_total,
        /// DATA chunks dropped: their association has too many streams.
        chunks_dropped_streams_full_total,
        /// DATA chunks dropped: after one that their receiver asked for until they were given up.
        chunks_dropped_unacknowledged_total,
        /// DATA chunks dropped: after the end of their association.
        chunks_dropped_after_close_total,
        /// Captured bytes in DATA chunks.
        data_bytes_total,
        /// Bytes given to flows.
        bytes_passed_total,
        /// Bytes held now.
        bytes_held,
        /// Bytes of chunks that are old or were dropped.
        bytes_dropped_total,
        /// Held chunks of which a second copy differed; the first was kept.
        chunks_conflicting_total,

        /// Times that missing chunks were given up.
        holes_total,
        /// Chunks in them.
        chunks_missing_total,
        /// Gaps handed to flows.
        gaps_total,
        /// Acknowledgements too far from what was seen; ignored.
        sacks_out_of_window_total,
        /// Segments made for the flow table: what is passed, gaps, and both ends of each stream.
        segments_total,

        /// Associations opened.
        associations_total,
        /// Associations opened without their INIT.
        associations_midstream_total,
        /// Associations open now, or remembered for their stragglers.
        associations_held,
        /// Associations that were shut down, aborted or replaced.
        associations_closed_total,
        /// Associations expired.
        associations_expired_total,
        /// Associations evicted to make room.
        associations_evicted_total,
        /// Associations that were open when the capture ended.
        associations_capture_end_total,
        /// Streams of associations that carried data.
        streams_total,
    }
}

impl SctpCounters {
    /// Returns the DATA chunks dropped, whatever the reason.
    pub fn chunks_dropped(&self) -> u64 {
        self.chunks_dropped_out_of_window_total
            + self.chunks_dropped_order_total
            + self.chunks_dropped_streams_full_total
            + self.chunks_dropped_unacknowledged_total
            + self.chunks_dropped_after_close_total
    }

    /// Returns the associations that are over, whatever the reason.
    pub fn associations_ended(&self) -> u64 {
        self.associations_closed_total
            + self.associations_expired_total
            + self.associations_evicted_total
            + self.associations_capture_end_total
    }

    /// Tells whether the books balance.
    pub fn is_balanced(&self) -> bool {
        self.packets_total
            == self.packets_taken_total + self.packets_wrong_tag_total + self.packets_stray_total
            && self.data_chunks_total
                == self.chunks_passed_total + self.chunks_held + self.chunks_old_total + self.chunks_dropped()
            && self.data_bytes_total == self.bytes_passed_total + self.bytes_held + self.bytes_dropped_total
            && self.associations_total == self.associations_held + self.associations_ended()
    }
}
