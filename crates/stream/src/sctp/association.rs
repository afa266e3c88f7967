//! What is known of one association: its directions, its streams, who may take its place.

use std::collections::BTreeMap;

use offpath_packet::SctpPacket;
use offpath_types::{Envelope, FlowKey, Side, Timestamp};

use super::chunks::Place;
use crate::StreamLimits;
use crate::wheel::{Links, Timed};

/// A chunk that waits.
pub(super) struct Held {
    pub(super) place: Place,
    pub(super) bytes: Vec<u8>,
    pub(super) seen: Timestamp,
}

/// One direction of an association, named after its sender's side.
#[derive(Default)]
pub(super) struct Dir {
    /// The tag that this side's packets carry.
    pub(super) tag: Option<u32>,
    /// A packet of this side other than INIT or INIT ACK was seen.
    pub(super) seen: bool,
    /// It sent SHUTDOWN.
    pub(super) shutdown: bool,
    /// TSN of the next chunk, where known, and how many were before it.
    pub(super) next: Option<u32>,
    pub(super) next_off: u64,
    /// Chunks behind a hole, by offset.
    pub(super) held: BTreeMap<u64, Held>,
    /// Chunks before whose message another one of their stream is missing, by stream, SSN and offset.
    pub(super) parked: BTreeMap<(u16, u16, u64), Held>,
    pub(super) held_bytes: u64,
    /// The receiver has everything before this offset.
    pub(super) acked: u64,
    pub(super) acked_at: Timestamp,
    /// Packets of the association since.
    pub(super) evidence: u8,
    /// Since when chunks are held, and parked.
    pub(super) hole_since: Option<Timestamp>,
    pub(super) parked_since: Option<Timestamp>,
    /// The receiver asked for the hole since.
    pub(super) asked: bool,
    /// Holes given up so far, and the chunks missing in the last one.
    pub(super) holes: u32,
    pub(super) missing: u64,
    /// The stream whose message goes on with the next chunk, and how long its last chunk was.
    pub(super) open: Option<(u16, u64)>,
    /// Longest chunk so far.
    pub(super) chunk_max: u64,
    /// End and length of a run of chunks far ahead.
    pub(super) far: (u32, u8),
}

impl Dir {
    pub(super) fn based(tag: Option<u32>, next: Option<u32>) -> Self {
        Self { tag, next, ..Self::default() }
    }

    pub(super) fn is_asked_for_in_vain(&self) -> bool {
        self.asked && self.acked <= self.next_off
    }

    /// Returns when the first hole is given up, where there is one.
    pub(super) fn due(&self, limits: &StreamLimits) -> Option<Timestamp> {
        let acked = (self.acked > self.next_off).then(|| self.acked_at.plus_nanos(limits.hole_acked_nanos));
        let age = if self.asked { limits.hole_stalled_age_nanos } else { limits.hole_age_nanos };
        let old = self.hole_since.map(|since| since.plus_nanos(age));
        acked.into_iter().chain(old).chain(self.parked_due(limits)).min()
    }

    pub(super) fn parked_due(&self, limits: &StreamLimits) -> Option<Timestamp> {
        self.parked_since.map(|since| since.plus_nanos(limits.hole_age_nanos))
    }
}

/// One direction of a stream.
#[derive(Clone, Copy, Default)]
pub(super) struct Half {
    /// Sequence number of the next segment that is made.
    pub(super) seq: u32,
    /// SSN of the message that comes next or goes on, where known.
    pub(super) ssn: Option<u16>,
    pub(super) in_message: bool,
    /// the direction's holes at the last chunk, and at the last gap.
    pub(super) holes: u32,
    pub(super) gapped: u32,
}

pub(super) struct Stream {
    pub(super) id: u16,
    pub(super) halves: [Half; 2],
}

/// An INIT into an open association.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    pub(super) client: Side,
    /// Of the server's packets, and the first TSN of the client's.
    pub(super) tag: u32,
    pub(super) tsn: u32,
    /// From the INIT ACK: the tag of the client's packets, and the server's first TSN.
    pub(super) answer: Option<(u32, u32)>,
}

pub(super) struct Association {
    pub(super) key: FlowKey,
    pub(super) hash: u64,
    pub(super) envelope: Envelope,
    /// Who sent the INIT, where that was seen.
    pub(super) client: Option<Side>,
    pub(super) last_seen: Timestamp,
    /// Sequence number that streams begin with: far from what another association of the key had, most likely.
    pub(super) seq: u32,
    /// By sender's side.
    pub(super) dirs: [Dir; 2],
    /// Sorted by id.
    pub(super) streams: Vec<Stream>,
    pub(super) pending: Option<Pending>,
    /// Side, tag and number of consecutive packets with a tag that is not the association's.
    pub(super) strange: Option<(Side, u32, u8)>,
    pub(super) over: bool,
    pub(super) links: Links,
    pub(super) queued: Timestamp,
}

impl Timed for Association {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Association {
    pub(super) fn new(packet: &SctpPacket<'_>, hash: u64, client: Option<Side>, dirs: [Dir; 2]) -> Self {
        Self {
            key: packet.key,
            hash,
            envelope: packet.envelope,
            client,
            last_seen: packet.time,
            seq: ((hash ^ packet.time.as_nanos()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32,
            dirs,
            streams: Vec::new(),
            pending: None,
            strange: None,
            over: false,
            links: Links::OUT,
            queued: Timestamp::MAX,
        }
    }

    /// Makes what an INIT and its answer, where seen, have agreed on.
    pub(super) fn of_handshake(packet: &SctpPacket<'_>, hash: u64, pending: &Pending) -> Self {
        let (client_tag, server_tsn) = pending.answer.unzip();
        let mut dirs = [Dir::default(), Dir::default()];
        dirs[pending.client as usize] = Dir::based(client_tag, Some(pending.tsn));
        dirs[pending.client.flip() as usize] = Dir::based(Some(pending.tag), server_tsn);
        Self::new(packet, hash, Some(pending.client), dirs)
    }

    /// Tells whether `side` is the server's, who has no reason to deceive; by the lower port, where no INIT was seen.
    pub(super) fn is_server(&self, side: Side) -> bool {
        let port = |side| self.key.peer(side).port;
        self.client.map_or_else(|| port(side) < port(side.flip()), |client| side != client)
    }

    /// Returns when the association expires unless a packet comes before.
    pub(super) fn deadline(&self, limits: &StreamLimits) -> Timestamp {
        let secs = if self.over {
            limits.closing_idle_secs
        } else if self.dirs.iter().any(|dir| dir.seen) {
            limits.established_idle_secs
        } else {
            limits.embryonic_idle_secs
        };
        self.last_seen.plus_secs(u64::from(secs))
    }

    /// Returns when there is something to do without a packet.
    pub(super) fn due(&self, limits: &StreamLimits) -> Timestamp {
        let holes = self.dirs.iter().filter_map(|dir| dir.due(limits));
        holes.fold(self.deadline(limits), Timestamp::min)
    }
}
