//! Flows of which only the handshake was seen, and closed flows that are still remembered.

use offpath_types::{FlowInfo, Side, Timestamp};

use crate::wheel::{Links, Timed};

/// Payload of a SYN (RFC 7413), kept until the handshake says whether the server took it.
pub(crate) struct Early {
    pub(crate) bytes: Vec<u8>,
    pub(crate) cut: u32,
    pub(crate) seen: Timestamp,
}

/// What the entry remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Handshake only; per side whether its initial sequence number is known.
    Opening { known: [bool; 2] },
    /// Closed.
    Closed(Past),
}

/// What is remembered of a closed connection, to tell its stragglers from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    /// Who reset it, if anybody.
    pub(crate) reset_by: Option<Side>,
    /// Per side: bytes before its next sequence number, up to [`Past::LEN_MAX`].
    pub(crate) lens: [u32; 2],
    /// Per side: whether anything of it was seen.
    pub(crate) seen: [bool; 2],
    /// Per side: whether its first byte is known to be the one after its SYN.
    pub(crate) whole: [bool; 2],
}

impl Past {
    /// Beyond, sequence numbers are about to be ambiguous.
    pub(crate) const LEN_MAX: u32 = 1 << 30;
}

/// About 110 bytes: what a SYN flood can buy.
pub(crate) struct Embryo {
    pub(crate) info: FlowInfo,
    pub(crate) last_seen: Timestamp,
    /// Opening: initial sequence numbers. Closed: next sequence numbers. By side.
    pub(crate) seqs: [u32; 2],
    pub(crate) links: Links,
    pub(crate) hash: u32,
    pub(crate) phase: Phase,
    pub(crate) early: Option<Box<Early>>,
}

impl Timed for Embryo {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Embryo {
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    /// Returns `side`'s initial sequence number, where known.
    pub(crate) fn isn(&self, side: Side) -> Option<u32> {
        match self.phase {
            Phase::Opening { known } if known[side as usize] => Some(self.seqs[side as usize]),
            _ => None,
        }
    }

    /// Notes `side`'s initial sequence number.
    pub(crate) fn set_isn(&mut self, side: Side, isn: u32) {
        if let Phase::Opening { known } = &mut self.phase {
            known[side as usize] = true;
            self.seqs[side as usize] = isn;
        }
    }
}
