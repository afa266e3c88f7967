//! Every bound of one flow table, with what happens at the bound.

/// Limits of one [`FlowTable`](crate::FlowTable). A process that runs several tables multiplies them.
///
/// # When a hole is given up
///
/// A hole is a run of bytes that is missing in front of bytes, a FIN or an acknowledgement that was seen.
/// It is filled by whatever arrives, and becomes a `Chunk::Gap` at the first of:
///
/// 1. *Acknowledged.* The receiver acknowledged bytes of the hole: it has them, so nobody will send them
///    again. The mirror may still deliver them late (it may reorder the two directions), so the hole waits
///    `hole_acked_nanos`, or only `hole_acked_min_nanos` once `hole_acked_segments` more segments of the flow
///    have been seen. Everything the acknowledgement covered is given up in one go. This also finds bytes that
///    were lost at the end of a message, where no later bytes show a hole; an acknowledgement exactly one
///    past what was seen does not count for that: it is as well a lost FIN. What a client acknowledges of a server that
///    is seen counts only up to bytes or a FIN that were seen, or at the end of the flow: it may not have been sent yet,
///    and a gap would hide it when it comes.
/// 2. *Old.* `hole_age_nanos` have passed since bytes behind the hole were seen; `hole_stalled_age_nanos`
///    where the receiver was seen asking for the hole's first byte meanwhile (the loss is on the network,
///    so a retransmission will come). Where none comes, what is behind the hole is dropped: the receiver has
///    not taken it, and its sender may have made it up to have the rest of the connection ignored.
/// 3. *Full.* A hold limit was reached: the first hole goes, never the newer bytes. Where the receiver asks for the
///    hole, the last bytes behind it go.
/// 4. *Over.* The flow is reset, expires, is evicted, reused, or the capture ends. After a RST, segments
///    that it overtook on the mirror have `reset_linger_nanos` left to appear.
///
/// Times 1 and 2 are packet time, and the gap carries the time at which it fell due, not when that was noticed.
///
/// # Where a direction begins
///
/// After its sender's SYN. Where the client's SYN was seen and nothing tells yet where its server begins, neither the
/// SYN+ACK nor what the client acknowledged first, the mirror may have the two in another order: the server's bytes
/// wait for either, at most `hole_acked_nanos` and within the hold limits, and then begin with the first of them.
///
/// # When a direction ends
///
/// A server's FIN ends its direction once everything before it was seen or given up, and what is missing of its client
/// as well: requests may come late, and belong to responses that were seen. A client's FIN does so once its
/// server, where that is seen, acknowledged it or ends too: a client can send one that only the mirror takes. Bytes
/// behind it that come before, and an acknowledgement of more, say that it was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Flows open at once, embryonic ones included.
    /// At the bound the oldest embryonic flow is evicted; else the least recently active of the flows
    /// that were seen from one side only or carried no data; else the least recently active flow. A mere
    /// SYN evicts no flow but an embryonic one: without any, it is not followed (`syns_refused_total`).
    pub flows_max: u32,
    /// Embryonic flows (handshake seen, nothing else) open at once; the oldest is evicted.
    pub embryonic_flows_max: u32,
    /// Closed flows remembered, to tell their stragglers from a new flow; the oldest is forgotten
    /// (`closed_flows_forgotten_total`). For a second after a close its SYN is a straggler too: a second mirrored port
    /// may be late by more than all of a short connection.
    pub closed_flows_max: u32,
    /// Captured bytes that one direction holds behind a hole; at the bound its first hole is given up.
    pub held_bytes_per_direction_max: u32,
    /// Segments that one direction holds behind a hole; at the bound its first hole is given up.
    pub held_segments_per_direction_max: u32,
    /// Bytes that the whole table holds, 64 counted per held segment beside its payload; at the bound the
    /// holes nearest to their deadline are given up, whichever flow they are in.
    pub held_bytes_max: u64,
    /// SCTP associations known at once; at the bound the one nearest to its deadline is forgotten: half-open ones
    /// first, then the least recently active. Its streams end; what follows joins in the middle.
    pub sctp_associations_max: u32,
    /// Streams of one SCTP association that become flows; the chunks of further ones are dropped.
    pub sctp_streams_max: u32,
    /// Bytes that all SCTP associations hold behind missing chunks, 64 counted per chunk beside its payload; at the
    /// bound the direction that came last gives up its first hole. The two limits per direction hold as well.
    pub sctp_held_bytes_max: u64,
    /// Furthest start of a believable segment after the next expected byte, in bytes. Beyond, a segment is
    /// dropped (`out_of_window`), unless the receiver acknowledged data that near, or three consecutive
    /// segments agree on the new position and the other side was never seen.
    pub window_ahead_max: u32,
    /// Furthest believable acknowledgement after the next expected byte, and so the longest believable gap.
    pub ack_ahead_max: u32,
    /// Furthest start of a believable RST before the next expected byte.
    pub reset_behind_max: u32,
    /// Nanoseconds that an acknowledged hole waits for bytes that the mirror reordered.
    pub hole_acked_nanos: u64,
    /// Further segments of the flow after which an acknowledged hole waits no more than
    /// `hole_acked_min_nanos`.
    pub hole_acked_segments: u8,
    /// Nanoseconds that an acknowledged hole waits at least: two mirror ports' queues may be this far apart.
    pub hole_acked_min_nanos: u64,
    /// Nanoseconds that an unacknowledged hole waits.
    pub hole_age_nanos: u64,
    /// Nanoseconds that a hole waits while the receiver is seen asking for it.
    pub hole_stalled_age_nanos: u64,
    /// Nanoseconds that holes may still fill after a RST.
    pub reset_linger_nanos: u64,
    /// Seconds without a packet after which an embryonic flow expires.
    pub embryonic_idle_secs: u32,
    /// Seconds without a packet after which an established flow expires.
    pub established_idle_secs: u32,
    /// Seconds without a packet after which a flow expires of which one side has finished.
    pub half_closed_idle_secs: u32,
    /// Seconds without a packet after which a flow expires of which one side has finished and the other
    /// side's FIN was acknowledged though not seen; and for which closed flows are remembered.
    pub closing_idle_secs: u32,
}

impl Default for StreamLimits {
    /// Returns limits for one table of sixteen: 2 million flows and 256 MiB held bytes in the process.
    fn default() -> Self {
        const MS: u64 = 1_000_000;
        Self {
            flows_max: 131_072,
            embryonic_flows_max: 32_768,
            closed_flows_max: 32_768,
            // The bandwidth-delay product of 160 Mbit/s over 100 ms.
            held_bytes_per_direction_max: 2 << 20,
            held_segments_per_direction_max: 1024,
            held_bytes_max: 16 << 20,
            sctp_associations_max: 1024,
            sctp_streams_max: 64,
            sctp_held_bytes_max: 2 << 20,
            // Linux' and most others' largest automatic receive window is 6 to 16 MiB.
            window_ahead_max: 16 << 20,
            // The largest window that scaling can announce (RFC 7323 §2.2).
            ack_ahead_max: 1 << 30,
            reset_behind_max: 64 << 10,
            hole_acked_nanos: 100 * MS,
            hole_acked_segments: 3,
            hole_acked_min_nanos: 2 * MS,
            hole_age_nanos: 2_000 * MS,
            // Four retransmission timeouts of 1, 2, 4 and 8 s (RFC 6298).
            hole_stalled_age_nanos: 15_000 * MS,
            reset_linger_nanos: 100 * MS,
            embryonic_idle_secs: 10,
            established_idle_secs: 300,
            half_closed_idle_secs: 60,
            closing_idle_secs: 5,
        }
    }
}
