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
    /// Closed; who reset it, if anybody.
    Closed { reset_by: Option<Side> },
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
        matches!(self.phase, Phase::Closed { .. })
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
