//! Segments in batches, with their bytes: what one thread decodes and another reassembles.

use std::sync::Arc;

use offpath_packet::{SctpPacket, TcpSegment};
use offpath_protocol::KeyLine;
use offpath_types::{Datagram, Timestamp};

/// What reassembly takes.
#[derive(Clone, Copy)]
pub(crate) enum Segment<'a> {
    /// A TCP segment.
    Tcp(TcpSegment<'a>),
    /// An SCTP packet.
    Sctp(SctpPacket<'a>),
}

impl Segment<'_> {
    /// Returns when it was captured.
    pub(crate) fn time(&self) -> Timestamp {
        match self {
            Self::Tcp(segment) => segment.time,
            Self::Sctp(packet) => packet.time,
        }
    }
}

/// Something whose bytes lie in the batch.
#[derive(Clone, Copy)]
struct Stored<T> {
    /// All but its bytes.
    what: T,
    /// Of the key, by the pipeline's seed.
    hash: u64,
    start: u32,
    len: u32,
}

/// Segments on their way from the thread that decoded them to the one that owns their flows.
#[derive(Default)]
pub(crate) struct SegmentBatch {
    segments: Vec<Stored<Segment<'static>>>,
    datagrams: Vec<Stored<Datagram<'static>>>,
    bytes: Vec<u8>,
    /// TLS secrets that come before everything here.
    pub(crate) keys: Vec<Arc<Vec<KeyLine>>>,
    /// Every later segment of the sender is at this time or after it.
    pub(crate) until: Timestamp,
    /// The last frame of the batch ends an era (files only).
    pub(crate) era_ends: bool,
    /// Nothing follows from the sender.
    pub(crate) last: bool,
}

impl SegmentBatch {
    /// Copies `segment`, whose key has this `hash`, to the end.
    pub(crate) fn push(&mut self, hash: u64, segment: &TcpSegment<'_>) {
        let &TcpSegment { time, key, side, seq, ack, flags, window, payload, payload_len, envelope } =
            segment;
        let what =
            TcpSegment { time, key, side, seq, ack, flags, window, payload: &[], payload_len, envelope };
        let stored = self.store(Segment::Tcp(what), hash, payload);
        self.segments.push(stored);
    }

    /// Copies `packet`, whose key has this `hash`, to the end.
    pub(crate) fn push_sctp(&mut self, hash: u64, packet: &SctpPacket<'_>) {
        let &SctpPacket { time, key, side, tag, payload, payload_len, envelope } = packet;
        let what = SctpPacket { time, key, side, tag, payload: &[], payload_len, envelope };
        let stored = self.store(Segment::Sctp(what), hash, payload);
        self.segments.push(stored);
    }

    /// Copies `datagram`, whose key has this `hash`, to the end.
    pub(crate) fn push_datagram(&mut self, hash: u64, datagram: &Datagram<'_>) {
        let &Datagram { time, key, side, envelope, payload } = datagram;
        let stored = self.store(Datagram { time, key, side, envelope, payload: &[] }, hash, payload);
        self.datagrams.push(stored);
    }

    fn store<T>(&mut self, what: T, hash: u64, payload: &[u8]) -> Stored<T> {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(payload);
        Stored { what, hash, start, len: payload.len() as u32 }
    }

    fn bytes_of<T>(&self, stored: &Stored<T>) -> &[u8] {
        let Stored { start, len, .. } = *stored;
        self.bytes.get(start as usize..(start + len) as usize).unwrap_or_default()
    }

    /// Yields the datagrams, each with the hash of its key. No flow has both segments and datagrams, so their order does
    /// not matter.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (u64, Datagram<'_>)> {
        self.datagrams.iter().map(|d| (d.hash, Datagram { payload: self.bytes_of(d), ..d.what }))
    }

    /// Yields the segments and SCTP packets, each with the hash of its key.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (u64, Segment<'_>)> {
        self.segments.iter().map(|m| self.segment_of(m))
    }

    /// Returns segment `index` with the hash of its key.
    pub(crate) fn get(&self, index: usize) -> Option<(u64, Segment<'_>)> {
        self.segments.get(index).map(|m| self.segment_of(m))
    }

    /// Returns how many segments there are.
    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    /// Returns how many payload bytes they carry.
    pub(crate) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns how many bytes of memory it takes, filled or not.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.segments.capacity() * size_of::<Stored<Segment<'_>>>()
            + self.datagrams.capacity() * size_of::<Stored<Datagram<'_>>>()
    }

    fn segment_of(&self, stored: &Stored<Segment<'static>>) -> (u64, Segment<'_>) {
        let payload = self.bytes_of(stored);
        let segment = match stored.what {
            Segment::Tcp(segment) => Segment::Tcp(TcpSegment { payload, ..segment }),
            Segment::Sctp(packet) => Segment::Sctp(SctpPacket { payload, ..packet }),
        };
        (stored.hash, segment)
    }

    /// Forgets the segments and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.segments.clear();
        self.datagrams.clear();
        self.bytes.clear();
    }
}
