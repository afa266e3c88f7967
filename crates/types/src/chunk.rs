//! What reassembly hands to a protocol parser.

use crate::Timestamp;

/// One piece of one direction of a flow, in stream order.
///
/// Offsets count bytes of this direction from the first byte after the SYN (or from where a midstream
/// flow was joined); gaps count too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// Contiguous bytes, borrowed for the call.
    Data {
        /// The bytes; never empty.
        bytes: &'a [u8],
        /// Stream offset of the first byte.
        offset: u64,
        /// Stream offset of the *other* direction that the carrying segment acknowledged: everything
        /// before it had reached the sender of these bytes. `None` where no ACK was set or it is unusable.
        peer_acked: Option<u64>,
        /// When the carrying segment was captured (earlier than "now" for bytes that waited for a hole).
        seen: Timestamp,
    },
    /// Bytes that the capture never saw.
    Gap {
        /// How many; at least 1.
        len: u64,
        /// Stream offset of the first missing byte.
        offset: u64,
        /// When the gap was given up.
        seen: Timestamp,
    },
    /// The direction ends here; nothing follows.
    End {
        /// Why.
        reason: EndReason,
        /// When.
        seen: Timestamp,
    },
}

/// Why a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// FIN reached in order.
    Fin,
    /// Either side reset the connection.
    Rst,
    /// No packet for the configured time.
    Expired,
    /// Evicted to make room.
    Evicted,
    /// The 5-tuple was reused by a new connection.
    Reused,
    /// The capture ended.
    CaptureEnd,
}
