//! One direction of a connection: its bytes, where it stands, and its keys.

use std::collections::VecDeque;

use offpath_types::Timestamp;

use super::messages::Messages;
use super::{ENDS_MAX, Env, MARKS_MAX, TRIAL_BYTES_MAX, TRIAL_COST_MIN, open_in_place};
use crate::tls::keys::Secret;
use crate::tls::record::{HEADER, Header, Opened, Opener};

/// Which keys a direction is under. TLS 1.2 knows the first and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Plain,
    Early,
    Handshake,
    Traffic,
}

/// Where a direction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A record starts at `Half::at`.
    Aligned,
    /// Looking for the start of a record. The first lost record started at offset `from`; none starts before `skip`.
    Searching { from: u64, skip: u64 },
    /// Given up.
    Lost,
}

/// From which segment bytes came.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub(super) at: usize,
    pub(super) acked: Option<u64>,
    pub(super) seen: Timestamp,
}

/// One direction.
// Invariants: `buf[at..]` starts at stream offset `base + at`; `marks` ascend, the first one covers `buf[at]`;
// `opener` is the one of `phase`, or not made yet.
pub(super) struct Half {
    pub(super) buf: Vec<u8>,
    pub(super) at: usize,
    pub(super) base: u64,
    pub(super) marks: Vec<Mark>,
    pub(super) place: Place,
    pub(super) phase: Phase,
    pub(super) opener: Option<Box<Opener>>,
    /// TLS 1.2: the next record is under the keys of a renegotiation.
    pub(super) changing: bool,
    /// Number of the next record.
    pub(super) seq: u64,
    /// TLS 1.3: what the next key update starts from.
    pub(super) secret: Option<Secret>,
    pub(super) messages: Messages,
    /// Offset of the next byte of plaintext.
    pub(super) plain: u64,
    /// Ends of records with application data, as (stream offset, plaintext offset).
    pub(super) ends: VecDeque<(u64, u64)>,
    pub(super) ends_dropped: bool,
    pub(super) trial_bytes: u64,
    pub(super) unopened_bytes: u64,
    /// Bytes of the latest opened record.
    pub(super) usual: u64,
    pub(super) seen: Timestamp,
}

impl Default for Half {
    fn default() -> Self {
        Self {
            buf: Vec::new(),
            at: 0,
            base: 0,
            marks: Vec::new(),
            place: Place::Aligned,
            phase: Phase::Plain,
            opener: None,
            changing: false,
            seq: 0,
            secret: None,
            messages: Messages::default(),
            plain: 0,
            ends: VecDeque::new(),
            ends_dropped: false,
            trial_bytes: TRIAL_BYTES_MAX,
            unopened_bytes: 0,
            usual: 1400,
            seen: Timestamp::ZERO,
        }
    }
}

impl Half {
    pub(super) fn waiting(&self) -> &[u8] {
        &self.buf[self.at..]
    }

    /// Stream offset of the next byte to be looked at.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Stream offset after the last byte taken.
    pub(super) fn received(&self) -> u64 {
        self.base + self.buf.len() as u64
    }

    pub(super) fn append(&mut self, bytes: &[u8], acked: Option<u64>, seen: Timestamp) {
        let same = self.marks.last().is_some_and(|m| (m.acked, m.seen) == (acked, seen));
        if !same && self.marks.len() < MARKS_MAX {
            self.marks.push(Mark { at: self.buf.len(), acked, seen });
        }
        self.buf.extend_from_slice(bytes);
        self.seen = self.seen.max(seen);
    }

    /// Drops what was looked at.
    pub(super) fn compact(&mut self) {
        if self.at == self.buf.len() {
            self.base += self.at as u64;
            self.buf.clear();
            self.marks.clear();
            self.at = 0;
        } else if self.at > 0 {
            self.base += self.at as u64;
            self.buf.drain(..self.at);
            let covering = self.marks.iter().rposition(|m| m.at <= self.at).unwrap_or(0);
            self.marks.drain(..covering);
            for mark in &mut self.marks {
                mark.at = mark.at.saturating_sub(self.at);
            }
            self.at = 0;
        }
    }

    /// Drops everything that waits, with the message in progress; returns how many bytes waited.
    pub(super) fn discard(&mut self) -> u64 {
        let dropped = self.waiting().len() as u64;
        self.base += self.buf.len() as u64;
        self.buf = Vec::new();
        self.marks.clear();
        self.at = 0;
        self.messages = Messages { broken: true, ..Messages::default() };
        dropped
    }

    /// Translates an offset of this direction that the other side acknowledged.
    pub(super) fn acked_plain(&self, acked: u64) -> Option<u64> {
        if acked > self.received() {
            // The other side had something that is still to come here, so at least one byte more.
            return Some(self.plain + 1);
        }
        match self.ends.partition_point(|(end, _)| *end <= acked) {
            0 if self.ends_dropped => None,
            0 => Some(0),
            n => self.ends.get(n - 1).map(|(_, plain)| *plain),
        }
    }

    pub(super) fn note_end(&mut self, end: u64) {
        if self.ends.len() == ENDS_MAX {
            self.ends.pop_front();
            self.ends_dropped = true;
        }
        self.ends.push_back((end, self.plain));
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.opener = None;
        self.changing = false;
        self.secret = None;
        self.seq = 0;
    }
}

impl Half {
    /// Tries to open the record at the start of what waits; it is overwritten only if that succeeds.
    pub(super) fn try_open(
        &mut self,
        env: &mut Env<'_>,
        opener: Option<&Opener>,
        seq: u64,
        header: Header,
    ) -> Option<Opened> {
        let span = self.at..self.at + HEADER + header.len;
        self.trial_bytes = self.trial_bytes.saturating_sub(span.len().max(TRIAL_COST_MIN) as u64);
        env.scratch.clear();
        env.scratch.extend_from_slice(&self.buf[span.clone()]);
        let opened = open_in_place(opener, seq, env.scratch)?;
        self.buf[span].copy_from_slice(env.scratch);
        Some(opened)
    }
}
