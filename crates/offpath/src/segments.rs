//! Segments in batches, with their bytes: what one thread decodes and another reassembles.

use std::sync::Arc;

use offpath_packet::{SctpPacket, SeqNum, TcpFlags, TcpSegment};
use offpath_protocol::KeyLine;
use offpath_types::{Datagram, Envelope, FlowKey, Side, Timestamp};

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

/// What a segment or SCTP packet was, without its bytes, which lie in the batch.
#[derive(Clone, Copy)]
struct SegmentMeta {
    time: Timestamp,
    key: FlowKey,
    /// Of the key, by the pipeline's seed.
    hash: u64,
    side: Side,
    /// An SCTP packet, whose tag is `seq`.
    sctp: bool,
    seq: SeqNum,
    ack: SeqNum,
    flags: TcpFlags,
    window: u16,
    payload_len: u32,
    envelope: Envelope,
    start: u32,
    len: u32,
}

/// What a datagram was, likewise.
#[derive(Clone, Copy)]
struct DatagramMeta {
    time: Timestamp,
    key: FlowKey,
    hash: u64,
    side: Side,
    envelope: Envelope,
    start: u32,
    len: u32,
}

/// Segments on their way from the thread that decoded them to the one that owns their flows.
#[derive(Default)]
pub(crate) struct SegmentBatch {
    metas: Vec<SegmentMeta>,
    datagrams: Vec<DatagramMeta>,
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
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(segment.payload);
        self.metas.push(SegmentMeta {
            time: segment.time,
            key: segment.key,
            hash,
            side: segment.side,
            sctp: false,
            seq: segment.seq,
            ack: segment.ack,
            flags: segment.flags,
            window: segment.window,
            payload_len: segment.payload_len,
            envelope: segment.envelope,
            start,
            len: segment.payload.len() as u32,
        });
    }

    /// Copies `packet`, whose key has this `hash`, to the end.
    pub(crate) fn push_sctp(&mut self, hash: u64, packet: &SctpPacket<'_>) {
        let &SctpPacket { time, key, side, tag, payload, payload_len, envelope } = packet;
        let (seq, ack, flags) = (SeqNum(tag), SeqNum(0), TcpFlags::default());
        self.push(
            hash,
            &TcpSegment { time, key, side, seq, ack, flags, window: 0, payload, payload_len, envelope },
        );
        if let Some(meta) = self.metas.last_mut() {
            meta.sctp = true;
        }
    }

    /// Copies `datagram`, whose key has this `hash`, to the end.
    pub(crate) fn push_datagram(&mut self, hash: u64, datagram: &Datagram<'_>) {
        let (start, len) = (self.bytes.len() as u32, datagram.payload.len() as u32);
        self.bytes.extend_from_slice(datagram.payload);
        let Datagram { time, key, side, envelope, .. } = *datagram;
        self.datagrams.push(DatagramMeta { time, key, hash, side, envelope, start, len });
    }

    /// Yields the datagrams, each with the hash of its key. No flow has both segments and datagrams, so their order does
    /// not matter.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (u64, Datagram<'_>)> {
        self.datagrams.iter().map(|m| {
            let payload = self.bytes.get(m.start as usize..(m.start + m.len) as usize).unwrap_or_default();
            let DatagramMeta { time, key, hash, side, envelope, .. } = *m;
            (hash, Datagram { time, key, side, envelope, payload })
        })
    }

    /// Yields the segments and SCTP packets, each with the hash of its key.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (u64, Segment<'_>)> {
        self.metas.iter().map(|m| self.segment_of(m))
    }

    /// Returns segment `index` with the hash of its key.
    pub(crate) fn get(&self, index: usize) -> Option<(u64, Segment<'_>)> {
        self.metas.get(index).map(|m| self.segment_of(m))
    }

    /// Returns how many segments there are.
    pub(crate) fn len(&self) -> usize {
        self.metas.len()
    }

    /// Returns how many payload bytes they carry.
    pub(crate) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns how many bytes of memory it takes, filled or not.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.metas.capacity() * size_of::<SegmentMeta>()
            + self.datagrams.capacity() * size_of::<DatagramMeta>()
    }

    fn segment_of(&self, m: &SegmentMeta) -> (u64, Segment<'_>) {
        let payload = self.bytes.get(m.start as usize..(m.start + m.len) as usize).unwrap_or_default();
        if m.sctp {
            let SegmentMeta { time, key, side, seq: SeqNum(tag), payload_len, envelope, .. } = *m;
            let packet = SctpPacket { time, key, side, tag, payload, payload_len, envelope };
            return (m.hash, Segment::Sctp(packet));
        }
        let segment = TcpSegment {
            time: m.time,
            key: m.key,
            side: m.side,
            seq: m.seq,
            ack: m.ack,
            flags: m.flags,
            window: m.window,
            payload_len: m.payload_len,
            envelope: m.envelope,
            payload,
        };
        (m.hash, Segment::Tcp(segment))
    }

    /// Forgets the segments and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.metas.clear();
        self.datagrams.clear();
        self.bytes.clear();
    }
}
