//! One scene: a client, a server, a table, and a sink that writes down what it is told.
#![allow(dead_code, reason = "each test binary uses its part")]

use offpath_packet::{SeqNum, TcpFlags, TcpSegment};
use offpath_stream::{FlowTable, StreamCounters, StreamLimits, StreamSink};
use offpath_types::{Chunk, Direction, FlowInfo, FlowKey, Host, Peer, Timestamp, TunnelId};

pub(crate) const CLIENT: u8 = 0;
pub(crate) const SERVER: u8 = 1;

/// Returns milliseconds as nanoseconds.
pub(crate) const fn ms(n: u64) -> u64 {
    n * 1_000_000
}

/// Writes `>` or `<`, offset, bytes and `@` what they acknowledged; `open*` where midstream.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) lines: Vec<String>,
    pub(crate) tired_after: u64,
    pub(crate) seen: u64,
    pub(crate) silent: bool,
    pub(crate) closed_at: Option<Timestamp>,
}

impl StreamSink for Notes {
    type Flow = ();

    fn open(&mut self, flow: &FlowInfo) {
        self.lines.push(if flow.midstream { "open*" } else { "open" }.to_owned());
    }

    fn chunk(
        &mut self,
        (): &mut (),
        _flow: &FlowInfo,
        direction: Direction,
        chunk: Chunk<'_>,
        _now: Timestamp,
    ) {
        let arrow = if direction == Direction::ToServer { '>' } else { '<' };
        let line = match chunk {
            Chunk::Data { bytes, offset, peer_acked, .. } => {
                self.seen += bytes.len() as u64;
                let acked = peer_acked.map_or(String::new(), |a| a.to_string());
                format!("{arrow}{offset}:{}@{acked}", String::from_utf8_lossy(bytes))
            }
            Chunk::Gap { len, offset, .. } => format!("{arrow}gap{offset}+{len}"),
            Chunk::End { reason, .. } => format!("{arrow}{reason:?}"),
        };
        if !self.silent {
            self.lines.push(line);
        }
    }

    fn wants(&self, (): &(), _direction: Direction) -> bool {
        self.tired_after == 0 || self.seen < self.tired_after
    }

    fn overlap_conflict(&mut self, (): &mut (), _flow: &FlowInfo, _direction: Direction) {
        self.lines.push("conflict".to_owned());
    }

    fn close(&mut self, (): (), _flow: &FlowInfo, now: Timestamp) {
        self.closed_at = Some(now);
        self.lines.push("close".to_owned());
    }
}

pub(crate) struct Scene {
    pub(crate) table: FlowTable<Notes>,
    pub(crate) sink: Notes,
    pub(crate) now: Timestamp,
    pub(crate) started: Timestamp,
    pub(crate) client_port: u16,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(StreamLimits::default())
    }

    pub(crate) fn with(limits: StreamLimits) -> Self {
        let now = Timestamp::from_parts(1_700_000_000, 0);
        let table = FlowTable::new(limits, 1);
        Self { table, sink: Notes::default(), now, started: now, client_port: 50_000 }
    }

    pub(crate) fn counters(&self) -> &StreamCounters {
        self.table.counters()
    }

    /// Returns what the sink was told since the last call.
    pub(crate) fn told(&mut self) -> String {
        std::mem::take(&mut self.sink.lines).join(" ")
    }

    pub(crate) fn wait(&mut self, nanos: u64) {
        self.now = self.now.plus_nanos(nanos);
    }

    pub(crate) fn idle(&mut self, nanos: u64) {
        self.wait(nanos);
        self.table.advance(self.now, &mut self.sink);
    }

    pub(crate) fn finish(&mut self) {
        self.table.finish(&mut self.sink);
        assert_eq!((self.table.flows_open(), self.table.held_bytes()), (0, 0));
        assert!(self.counters().is_balanced(0, 0), "{:?}", self.counters());
    }

    fn put(&mut self, who: u8, seq: u32, ack: Option<u32>, flags: TcpFlags, bytes: &[u8], len: u32) {
        let client = Peer { host: Host::from_v4([10, 0, 0, 1]), port: self.client_port };
        let server = Peer { host: Host::from_v4([10, 0, 0, 2]), port: 80 };
        let (src, dst) = if who == CLIENT { (client, server) } else { (server, client) };
        let (key, side) = FlowKey::new(src, dst, TunnelId(0));
        let flags = if ack.is_some() { flags.with(TcpFlags::ACK) } else { flags };
        let segment = TcpSegment {
            time: self.now,
            key,
            side,
            seq: SeqNum(seq),
            ack: SeqNum(ack.unwrap_or(0)),
            flags,
            window: 500,
            payload: bytes,
            payload_len: len,
            envelope: Default::default(),
        };
        self.table.segment(&segment, &mut self.sink);
        let c = self.table.counters();
        assert!(c.is_balanced(self.table.held_bytes(), self.table.flows_open()), "{segment:?} {c:?}");
    }

    pub(crate) fn segment(&mut self, who: u8, seq: u32, ack: Option<u32>, flags: TcpFlags, bytes: &[u8]) {
        self.put(who, seq, ack, flags, bytes, bytes.len() as u32);
    }

    pub(crate) fn cut(&mut self, who: u8, seq: u32, ack: u32, bytes: &[u8], len: u32) {
        self.put(who, seq, Some(ack), TcpFlags::default(), bytes, len);
    }

    pub(crate) fn handshake(&mut self, client_isn: u32, server_isn: u32) {
        self.segment(CLIENT, client_isn, None, TcpFlags::SYN, b"");
        self.segment(SERVER, server_isn, Some(client_isn.wrapping_add(1)), TcpFlags::SYN, b"");
        self.ack(CLIENT, client_isn.wrapping_add(1), server_isn.wrapping_add(1));
    }

    pub(crate) fn send(&mut self, who: u8, seq: u32, ack: u32, bytes: &[u8]) {
        self.segment(who, seq, Some(ack), TcpFlags::PSH, bytes);
    }

    pub(crate) fn ack(&mut self, who: u8, seq: u32, ack: u32) {
        self.segment(who, seq, Some(ack), TcpFlags::default(), b"");
    }

    pub(crate) fn fin(&mut self, who: u8, seq: u32, ack: u32) {
        self.segment(who, seq, Some(ack), TcpFlags::FIN, b"");
    }

    pub(crate) fn rst(&mut self, who: u8, seq: u32, ack: u32) {
        self.segment(who, seq, Some(ack), TcpFlags::RST, b"");
    }
}
