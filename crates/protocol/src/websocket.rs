//! What a WebSocket connection carries (RFC 6455): messages and control frames, counted and not kept.
//!
//! ```text
//! ├ FIN RSV opcode ┼ MASK length ┼ 0, 2 or 8 bytes of length ┼ 0 or 4 of mask ┼ payload ┤
//! ```
//! In: chunks of both directions after a 101, or DATA of a stream of HTTP/2. Out: counters, and at the end one [`WebSocketEnd`]. The state is one frame's head per direction. A frame that
//! breaks the framing, and bytes that the capture missed outside of a payload, end the counting of their direction;
//! what breaks only a rule is counted and passed over.

use offpath_types::{Chunk, Direction, Timestamp, Transaction, WebSocketEnd, WebSocketSide};

use crate::ProtocolCounters;
use crate::stage::Kind;

/// Longest head of a frame: 2, 8 of length, 4 of mask.
const HEAD_BYTES_MAX: usize = 14;
/// A [`Side::code_len`] that says that the code is not known.
const CODE_LOST: u8 = u8::MAX;
/// The code of a close frame that has none (RFC 6455 §7.4.1).
const NO_STATUS: u16 = 1005;
/// Longest payload of a control frame (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: u64 = 125;

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PONG: u8 = 10;

/// Where in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In its head; so much of it is there.
    Head { len: usize },
    /// In its payload.
    Payload { left: u64 },
    /// The place in the stream is lost.
    Lost,
}

/// One direction.
#[derive(Clone, Copy, Debug)]
struct Side {
    state: State,
    head: [u8; HEAD_BYTES_MAX],
    /// A message has begun and its last frame has not come.
    open: bool,
    /// The code of a close frame, as far as it is there.
    code: [u8; 2],
    /// How much of it; [`CODE_LOST`] where the capture missed it.
    code_len: u8,
    told: WebSocketSide,
}

/// A frame's head, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    fin: bool,
    compressed: bool,
    opcode: u8,
    masked: bool,
    payload: u64,
}

/// What the first bytes of a head say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parsed {
    More,
    Frame(Frame),
    /// No frame of any version that is known.
    Invalid,
}

fn parse(head: &[u8]) -> Parsed {
    let [first, second, rest @ ..] = head else { return Parsed::More };
    let (opcode, masked) = (first & 0x0f, second & 0x80 != 0);
    // Only permessage-deflate (RFC 7692) has given a reserved bit a meaning: the first.
    if first & 0x30 != 0 || !matches!(opcode, CONTINUATION..=BINARY | CLOSE..=PONG) {
        return Parsed::Invalid;
    }
    let (payload, used) = match (second & 0x7f, rest) {
        (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 2),
        (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 8),
        (126 | 127, _) => return Parsed::More,
        (short, _) => (u64::from(short), 0),
    };
    let frame = Frame { fin: first & 0x80 != 0, compressed: first & 0x40 != 0, opcode, masked, payload };
    if payload > i64::MAX as u64 || frame.is_control() && (!frame.fin || payload > CONTROL_BYTES_MAX) {
        return Parsed::Invalid;
    }
    if rest.len() < used + if masked { 4 } else { 0 } { Parsed::More } else { Parsed::Frame(frame) }
}

impl Frame {
    fn is_control(&self) -> bool {
        self.opcode >= CLOSE
    }
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct WebSocket {
    sides: [Side; 2],
    /// Wire direction of what the client sends.
    requests: Direction,
    /// What the flow was recognised as before.
    pub(crate) kind: Kind,
    /// What is told at the end, but for the sides.
    end: WebSocketEnd,
}

impl WebSocket {
    /// Begins; `opened_by` was answered with 101, or in HTTP/2 with 200 (RFC 8441), and is to be emitted as number `index`
    /// of its flow, or as [`WebSocket::opened_as`] says later.
    pub(crate) fn new(requests: Direction, kind: Kind, opened_by: &Transaction, index: u32) -> Self {
        let side = Side {
            state: State::Head { len: 0 },
            head: [0; HEAD_BYTES_MAX],
            open: false,
            code: [0; 2],
            code_len: 0,
            told: WebSocketSide::default(),
        };
        let end = WebSocketEnd {
            flow: opened_by.flow,
            flow_id: opened_by.flow_id,
            index,
            community_id: opened_by.community_id,
            endpoint: opened_by.text.get(opened_by.endpoint).into(),
            started: opened_by.ended,
            ended: opened_by.ended,
            emitted: opened_by.ended,
            client: WebSocketSide::default(),
            server: WebSocketSide::default(),
        };
        Self { sides: [side; 2], requests, kind, end }
    }

    /// The transaction that opened it is number `index` of its flow.
    pub(crate) fn opened_as(&mut self, index: u32) {
        self.end.index = index;
    }

    /// Bytes of `dir` were lost, nobody knows how many.
    pub(crate) fn lose(&mut self, dir: Direction, counters: &mut ProtocolCounters) {
        self.sides[dir.index()].lose(counters);
    }

    /// Tells whether bytes of `dir` still matter.
    pub(crate) fn wants(&self, dir: Direction) -> bool {
        self.sides[dir.index()].state != State::Lost
    }

    /// Takes the next chunk of one direction.
    pub(crate) fn chunk(&mut self, dir: Direction, chunk: Chunk<'_>, counters: &mut ProtocolCounters) {
        let from_client = dir == self.requests;
        let side = &mut self.sides[dir.index()];
        match chunk {
            Chunk::Data { bytes, seen, .. } => {
                self.end.ended = self.end.ended.max(seen);
                side.data(bytes, from_client, counters);
            }
            Chunk::Gap { len, .. } => side.gap(len, from_client, counters),
            Chunk::End { .. } => {}
        }
    }

    /// Ends; returns what went over the connection.
    pub(crate) fn close(&mut self, now: Timestamp) -> WebSocketEnd {
        let told = |dir: Direction| {
            let side = &self.sides[dir.index()];
            WebSocketSide { lost: side.state == State::Lost, ..side.told }
        };
        let (client, server) = (told(self.requests), told(self.requests.flip()));
        WebSocketEnd { client, server, emitted: now, ..self.end.clone() }
    }
}

impl Side {
    fn data(&mut self, mut bytes: &[u8], from_client: bool, counters: &mut ProtocolCounters) {
        while !bytes.is_empty() {
            let used = match self.state {
                State::Lost => {
                    counters.skipped_bytes_bypassed_total += bytes.len() as u64;
                    return;
                }
                State::Head { len } => {
                    self.head[len] = bytes[0];
                    self.state = State::Head { len: len + 1 };
                    match parse(&self.head[..=len]) {
                        // A whole head is at most 14 bytes long, so there is room for the next byte.
                        Parsed::More => {}
                        Parsed::Frame(frame) => self.begin(frame, from_client, counters),
                        Parsed::Invalid => {
                            counters.websocket_frames_invalid_total += 1;
                            self.lose(counters);
                        }
                    }
                    1
                }
                State::Payload { left } => {
                    let take = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    self.payload(&bytes[..take]);
                    self.passed(take as u64, from_client, counters);
                    take
                }
            };
            counters.bytes_websocket_total += used as u64;
            self.told.bytes += used as u64;
            bytes = &bytes[used..];
        }
    }

    /// The opcode of the frame in progress.
    fn opcode(&self) -> u8 {
        self.head[0] & 0x0f
    }

    fn begin(&mut self, frame: Frame, from_client: bool, counters: &mut ProtocolCounters) {
        // Clients mask, servers do not (RFC 6455 §5.1).
        counters.websocket_masks_wrong_total += u64::from(frame.masked != from_client);
        if !frame.is_control() {
            // A message goes on exactly while one is open (§5.4), and says at its beginning whether it is compressed.
            let goes_on = frame.opcode == CONTINUATION;
            let odd = goes_on != self.open || goes_on && frame.compressed;
            counters.websocket_frames_out_of_order_total += u64::from(odd);
            let compressed = u64::from(frame.compressed && !goes_on);
            counters.websocket_messages_compressed_total += compressed;
            self.told.compressed += compressed;
            self.open = true;
        }
        self.code_len = 0;
        self.state = State::Payload { left: frame.payload };
        self.passed(0, from_client, counters);
    }

    /// Keeps the code of a close frame.
    fn payload(&mut self, bytes: &[u8]) {
        if self.opcode() != CLOSE {
            return;
        }
        for byte in bytes {
            if let Some(slot) = self.code.get_mut(usize::from(self.code_len)) {
                // A masked close frame is short: its mask lies directly behind the first two bytes.
                let mask =
                    if self.head[1] & 0x80 != 0 { self.head[2 + usize::from(self.code_len)] } else { 0 };
                *slot = byte ^ mask;
                self.code_len += 1;
            }
        }
    }

    /// So much of the payload has passed.
    fn passed(&mut self, len: u64, from_client: bool, counters: &mut ProtocolCounters) {
        let State::Payload { left } = self.state else { return };
        self.state = State::Payload { left: left - len };
        if left > len {
            return;
        }
        self.state = State::Head { len: 0 };
        match self.opcode() {
            CONTINUATION..=BINARY if self.head[0] & 0x80 != 0 => {
                self.open = false;
                self.told.messages += 1;
                counters.websocket_messages_to_server_total += u64::from(from_client);
                counters.websocket_messages_to_client_total += u64::from(!from_client);
            }
            CONTINUATION..=BINARY => {}
            opcode => {
                counters.websocket_control_frames_total += 1;
                self.told.control_frames += 1;
                if opcode == CLOSE {
                    counters.websocket_closes_total += 1;
                    // 1000 normal, 1001 going away (§7.4.1); without a code nothing is wrong either.
                    let code = u16::from_be_bytes(self.code);
                    let normal = self.code_len != 2 || matches!(code, 1000 | 1001);
                    let told = match self.code_len {
                        2 => Some(code),
                        CODE_LOST => None,
                        _ => Some(NO_STATUS),
                    };
                    self.told.close = self.told.close.or(told);
                    counters.websocket_closes_abnormal_total += u64::from(!normal);
                }
            }
        }
    }

    fn lose(&mut self, counters: &mut ProtocolCounters) {
        counters.websocket_directions_lost_total += u64::from(self.state != State::Lost);
        self.state = State::Lost;
    }

    fn gap(&mut self, len: u64, from_client: bool, counters: &mut ProtocolCounters) {
        match self.state {
            State::Lost => counters.gap_bytes_ignored_total += len,
            State::Payload { left } if left >= len => {
                counters.gap_bytes_body_total += len;
                if self.opcode() == CLOSE {
                    self.code_len = CODE_LOST;
                }
                self.passed(len, from_client, counters);
            }
            _ => {
                counters.gap_bytes_lost_total += len;
                self.lose(counters);
            }
        }
    }
}

/// A connection that nothing went over yet; the client is who sends `ToServer`.
fn fuzz_socket() -> WebSocket {
    use offpath_types::{FlowInfo, FlowKey, Host, Peer, TunnelId};
    let peer = |last, port| Peer { host: Host::from_v4([10, 0, 0, last]), port };
    let (key, client_side) = FlowKey::new(peer(1, 40_000), peer(2, 80), TunnelId(0));
    let opened = Timestamp::ZERO;
    let flow = FlowInfo { key, client_side, opened, midstream: false, envelope: Default::default() };
    WebSocket::new(Direction::ToServer, Kind::Http1, &Transaction::new(flow, 1, 0, opened), 0)
}

/// Fuzz body: frames cut at other places give the same counts, and every byte is counted once.
///
/// Byte 0 chooses the direction and how to cut.
#[doc(hidden)]
pub fn fuzz_websocket_frames(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    let run = |piece: usize| {
        let dir = if first & 1 == 0 { Direction::ToServer } else { Direction::ToClient };
        let (mut socket, mut counters) = (fuzz_socket(), ProtocolCounters::default());
        let mut offset = 0;
        for bytes in bytes.chunks(piece) {
            let seen = Timestamp::ZERO;
            socket.chunk(dir, Chunk::Data { bytes, offset, peer_acked: None, seen }, &mut counters);
            offset += bytes.len() as u64;
        }
        let counted = counters.bytes_websocket_total + counters.skipped_bytes_bypassed_total;
        assert_eq!(counted, bytes.len() as u64);
        let end = socket.close(Timestamp::ZERO);
        let messages =
            [counters.websocket_messages_to_server_total, counters.websocket_messages_to_client_total];
        assert_eq!([end.client.messages, end.server.messages], messages);
        assert_eq!(end.client.bytes + end.server.bytes, counters.bytes_websocket_total);
        (counters, end)
    };
    assert_eq!(run(usize::MAX), run(usize::from(first >> 1) % 17 + 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, mask: bool, payload: &[u8]) -> Vec<u8> {
        let bit = if mask { 0x80 } else { 0 };
        let mut out = vec![first];
        match payload.len() {
            0..=125 => out.push(bit | payload.len() as u8),
            126..=65_535 => {
                out.push(bit | 126);
                out.extend((payload.len() as u16).to_be_bytes());
            }
            _ => {
                out.push(bit | 127);
                out.extend((payload.len() as u64).to_be_bytes());
            }
        }
        let key = [1, 2, 3, 4];
        if mask {
            out.extend(key);
        }
        out.extend(payload.iter().enumerate().map(|(i, b)| if mask { b ^ key[i % 4] } else { *b }));
        out
    }

    fn run(dir: Direction, bytes: &[u8]) -> ProtocolCounters {
        let whole = run_cut(dir, bytes, usize::MAX);
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(run_cut(dir, bytes, piece), whole, "in pieces of {piece}");
        }
        whole
    }

    fn run_cut(dir: Direction, bytes: &[u8], piece: usize) -> ProtocolCounters {
        let (mut socket, mut c) = (fuzz_socket(), ProtocolCounters::default());
        for bytes in bytes.chunks(piece) {
            socket.chunk(
                dir,
                Chunk::Data { bytes, offset: 0, peer_acked: None, seen: Timestamp::ZERO },
                &mut c,
            );
        }
        assert_eq!(c.bytes_websocket_total + c.skipped_bytes_bypassed_total, bytes.len() as u64);
        assert_eq!(socket.wants(dir), c.websocket_directions_lost_total == 0);
        c
    }

    #[test]
    fn messages_and_control_frames_are_counted() {
        let client = [
            frame(0x81, true, b"hello"),
            frame(0x01, true, &[b'x'; 200]),
            frame(0x89, true, b"ping"),
            frame(0x80, true, &[b'y'; 70_000]),
            frame(0xc2, true, b""),
            frame(0x88, true, &[0x03, 0xe8, b'b']),
        ];
        let c = run(Direction::ToServer, &client.concat());
        assert_eq!((c.websocket_messages_to_server_total, c.websocket_messages_to_client_total), (3, 0));
        assert_eq!((c.websocket_control_frames_total, c.websocket_closes_total), (2, 1));
        assert_eq!((c.websocket_messages_compressed_total, c.websocket_closes_abnormal_total), (1, 0));
        let wrong = c.websocket_masks_wrong_total + c.websocket_frames_out_of_order_total;
        assert_eq!(wrong + c.websocket_frames_invalid_total, 0);
        let server = [frame(0x82, false, b"x"), frame(0x88, false, &[0x03, 0xea])];
        let c = run(Direction::ToClient, &server.concat());
        assert_eq!((c.websocket_messages_to_client_total, c.websocket_closes_abnormal_total), (1, 1));
    }

    #[test]
    fn broken_rules() {
        let counts = |bytes: &[u8]| {
            let c = run(Direction::ToServer, bytes);
            [
                c.websocket_masks_wrong_total,
                c.websocket_frames_out_of_order_total,
                c.websocket_frames_invalid_total,
                c.websocket_messages_to_server_total,
            ]
        };
        for (name, bytes, want) in [
            ("unmasked", frame(0x81, false, b"x"), [1, 0, 0, 1]),
            ("continuation of nothing", frame(0x80, true, b"x"), [0, 1, 0, 1]),
            ("begun twice", [frame(0x01, true, b"x"), frame(0x81, true, b"x")].concat(), [0, 1, 0, 1]),
            ("opcode", [frame(0x83, true, b"x"), frame(0x81, true, b"x")].concat(), [0, 0, 1, 0]),
            ("reserved bit", frame(0xa1, true, b"x"), [0, 0, 1, 0]),
            ("control in parts", frame(0x09, true, b"x"), [0, 0, 1, 0]),
            ("long control", frame(0x89, true, &[0; 126]), [0, 0, 1, 0]),
            ("length", vec![0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], [0, 0, 1, 0]),
            ("cut", frame(0x81, true, b"xyz")[..7].to_vec(), [0, 0, 0, 0]),
        ] {
            assert_eq!(counts(&bytes), want, "{name}");
        }
    }

    #[test]
    fn gaps() {
        let (mut socket, mut c) = (fuzz_socket(), ProtocolCounters::default());
        let dir = Direction::ToServer;
        let data = |bytes| Chunk::Data { bytes, offset: 0, peer_acked: None, seen: Timestamp::ZERO };
        let gap = |len| Chunk::Gap { len, offset: 0, seen: Timestamp::ZERO };
        let bytes = frame(0x82, true, &[0; 100]);
        socket.chunk(dir, data(&bytes[..16]), &mut c);
        socket.chunk(dir, gap(90), &mut c);
        assert_eq!((c.websocket_messages_to_server_total, c.gap_bytes_body_total), (1, 90));
        socket.chunk(dir, data(&bytes[..16]), &mut c);
        socket.chunk(dir, gap(91), &mut c);
        assert_eq!((c.websocket_directions_lost_total, c.gap_bytes_lost_total), (1, 91));
        assert!(!socket.wants(dir) && socket.wants(dir.flip()));
        socket.chunk(dir, data(b"more"), &mut c);
        socket.chunk(dir, gap(5), &mut c);
        assert_eq!((c.skipped_bytes_bypassed_total, c.gap_bytes_ignored_total), (4, 5));
    }

    #[test]
    fn any_bytes() {
        for seed in 0..200u8 {
            let bytes: Vec<u8> =
                (0..300u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect();
            fuzz_websocket_frames(&bytes);
        }
    }
}
