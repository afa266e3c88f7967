//! What decoding counted, and how the counts balance.

use crate::DecodeError;

offpath_types::counters! {
    /// What decoding counted.
    ///
    /// Every frame is in exactly one place:
    /// `frames_total = frames_tcp_total + frames_sctp_total + frames_udp_total + frames_icmp_total
    /// + frames_ip_other_total + frames_non_ip_total + frames_fragment_held_total + frames_duplicate_total + Σ drop_*_total`.
    /// A frame whose fragment completes a datagram counts as what the datagram is, not as held.
    ///
    /// Every datagram that came in fragments too: `datagrams_total = datagrams_completed_total
    /// + datagrams_expired_total + datagrams_evicted_total + datagrams_rejected_total` + those still open
    /// ([`crate::Decoder::datagrams_open`]).
    pub struct DecodeCounters {
        /// Frames given to the decoder.
        frames_total,
        /// Frames that were TCP segments.
        frames_tcp_total,
        /// Frames with a TCP segment that was captured twice: the second copy, which goes no further.
        frames_duplicate_total,
        /// Frames that were SCTP packets, also over UDP.
        frames_sctp_total,
        /// Frames that were UDP and no tunnel.
        frames_udp_total,
        /// Those of them that begin with a long header of QUIC version 1 or 2, or of its last drafts.
        frames_quic_total,
        /// Frames that were ICMP or ICMPv6 (also those that quote a TCP packet).
        frames_icmp_total,
        /// Frames of another IP protocol.
        frames_ip_other_total,
        /// Frames whose innermost readable layer is not IP (ARP, LLDP, PPP control …).
        frames_non_ip_total,
        /// Frames whose fragment is held, is a duplicate, or is otherwise waiting for the rest.
        frames_fragment_held_total,
        /// Frames of a link type that is not decoded.
        drop_link_unsupported_total,
        /// Frames cut within a header.
        drop_truncated_total,
        /// Frames with a header that contradicts itself.
        drop_header_invalid_total,
        /// Frames with too many tunnels, tags or labels.
        drop_tunnel_too_deep_total,
        /// Fragments that no datagram can contain.
        drop_fragment_invalid_total,
        /// Fragments that were cut by a snap length.
        drop_fragment_truncated_total,
        /// Fragments of IPv6 datagrams that were discarded for an overlap (RFC 5722).
        drop_fragment_overlap_total,
        /// Fragments that found no room.
        drop_fragment_over_cap_total,
        /// Captured TCP payload bytes handed out.
        tcp_payload_bytes_total,
        /// TCP payload bytes that were on the wire and not captured.
        tcp_payload_cut_bytes_total,
        /// Captured bytes of SCTP packets handed out, after the common header.
        sctp_payload_bytes_total,
        /// Fragments that repeated one that was held.
        fragments_duplicate_total,
        /// Fragments that overlapped held bytes: IPv4 kept the first copy, IPv6 discarded the datagram.
        fragments_overlapping_total,
        /// Datagrams of which a first fragment was held.
        datagrams_total,
        /// Datagrams put together.
        datagrams_completed_total,
        /// Datagrams given up after the timeout.
        datagrams_expired_total,
        /// Datagrams given up to make room.
        datagrams_evicted_total,
        /// IPv6 datagrams discarded for an overlap.
        datagrams_rejected_total,
    }
}

impl DecodeCounters {
    /// Counts one dropped frame under its reason.
    pub(crate) fn drop_frame(&mut self, error: DecodeError) {
        let counter = match error {
            DecodeError::LinkUnsupported { .. } => &mut self.drop_link_unsupported_total,
            DecodeError::Truncated { .. } => &mut self.drop_truncated_total,
            DecodeError::HeaderInvalid { .. } => &mut self.drop_header_invalid_total,
            DecodeError::TunnelTooDeep { .. } => &mut self.drop_tunnel_too_deep_total,
            DecodeError::FragmentInvalid => &mut self.drop_fragment_invalid_total,
            DecodeError::FragmentTruncated { .. } => &mut self.drop_fragment_truncated_total,
            DecodeError::FragmentOverlap => &mut self.drop_fragment_overlap_total,
            DecodeError::FragmentOverCap => &mut self.drop_fragment_over_cap_total,
        };
        *counter += 1;
    }

    /// Returns the frames that were dropped, for all reasons.
    pub fn frames_dropped(&self) -> u64 {
        self.drop_link_unsupported_total
            + self.drop_truncated_total
            + self.drop_header_invalid_total
            + self.drop_tunnel_too_deep_total
            + self.drop_fragment_invalid_total
            + self.drop_fragment_truncated_total
            + self.drop_fragment_overlap_total
            + self.drop_fragment_over_cap_total
    }

    /// Returns the frames that were decoded and are not TCP.
    pub fn frames_not_tcp(&self) -> u64 {
        self.frames_sctp_total
            + self.frames_udp_total
            + self.frames_icmp_total
            + self.frames_ip_other_total
            + self.frames_non_ip_total
    }

    /// Tells whether every frame is in exactly one place.
    pub fn is_balanced(&self) -> bool {
        self.frames_total
            == self.frames_tcp_total
                + self.frames_not_tcp()
                + self.frames_fragment_held_total
                + self.frames_duplicate_total
                + self.frames_dropped()
    }
}
