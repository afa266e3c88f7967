//! Connections as 48-byte segments over shared buffers, so that a large capture is made quickly.
//!
//! The sensor sits at the server: what the server sends is seen at once, what the client answers is seen
//! a round trip later.

use std::cell::Cell;
use std::net::SocketAddr;
use std::ops::Range;

use crate::packet_builder::{Link, Tcp, flags};
use crate::rng::Rng;

/// Payload bytes of a full segment: 1500 - 40 - 12 of timestamps.
const MSS: usize = 1448;
/// 1514 bytes at one gigabit a second.
const SEGMENT_NANOS: u64 = 12_112;
/// First congestion window (RFC 6928).
const WINDOW_FIRST: u32 = 10;

/// What a segment means for the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    None,
    RequestHead,
    ResponseHead,
}

/// One TCP segment; its payload is a piece of `arena` and then a piece of `filler`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) time: u64,
    pub(super) tx: u32,
    pub(super) mark: Mark,
    connection: u32,
    seq: u32,
    ack: u32,
    arena_at: u32,
    filler_at: u32,
    arena_len: u16,
    filler_len: u16,
    flags: u8,
    to_client: bool,
}

/// The two ends of a connection.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    client: SocketAddr,
    server: SocketAddr,
    clock: [u32; 2],
    /// Milliseconds of each side's last stamp so far, while frames are built in capture order.
    stamped: [Cell<u32>; 2],
}

/// State of an open connection.
#[derive(Clone, Debug)]
pub(super) struct Conn {
    id: u32,
    next: [u32; 2],
    rtt: u64,
    window: u32,
    /// When the client may send again.
    pub(super) free_at: u64,
    /// Requests so far.
    pub(super) requests: u32,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Close {
    Client,
    Server,
    Reset,
}

/// One request and its response, ready to be cut into segments.
pub(super) struct Exchange {
    pub(super) tx: u32,
    /// Request in the arena; its first `request_head` bytes are the head.
    pub(super) request: Range<usize>,
    pub(super) request_head: usize,
    /// Time the server takes.
    pub(super) think: u64,
    /// Response in the arena; its first `response_head` bytes are the head.
    pub(super) response: Range<usize>,
    pub(super) response_head: usize,
    /// Body bytes that follow out of the filler, from `filler_at` on.
    pub(super) filler_at: u32,
    pub(super) filler_len: usize,
}

/// All connections and their bytes.
pub(super) struct Wire {
    pub(super) arena: Vec<u8>,
    pub(super) segments: Vec<Segment>,
    pub(super) connections: Vec<Ends>,
    filler: Vec<u8>,
}

impl Wire {
    pub(super) fn new() -> Self {
        Self { arena: Vec::new(), segments: Vec::new(), connections: Vec::new(), filler: filler() }
    }

    pub(super) fn open(
        &mut self,
        client: SocketAddr,
        server: SocketAddr,
        rtt: u64,
        time: u64,
        rng: &mut Rng,
    ) -> Conn {
        let id = self.connections.len() as u32;
        self.connections.push(Ends {
            client,
            server,
            clock: [rng.next_u32() >> 4, rng.next_u32() >> 4],
            stamped: Default::default(),
        });
        let next = [rng.next_u32(), rng.next_u32()];
        let mut conn = Conn { id, next, rtt, window: WINDOW_FIRST, free_at: time + rtt, requests: 0 };
        self.bare(&conn, time, false, flags::SYN);
        conn.next[0] = conn.next[0].wrapping_add(1);
        self.bare(&conn, time + 25_000, true, flags::SYN | flags::ACK);
        conn.next[1] = conn.next[1].wrapping_add(1);
        self.bare(&conn, time + rtt, false, flags::ACK);
        conn
    }

    /// Adds the segments of one exchange whose request is sent at `time` (or when the connection is free).
    /// Returns when the client has the whole response.
    pub(super) fn exchange(&mut self, conn: &mut Conn, time: u64, x: &Exchange) -> u64 {
        let mut now = time.max(conn.free_at + 1000);
        let mut sent = 0;
        while sent < x.request.len() {
            let len = MSS.min(x.request.len() - sent);
            let last = sent + len == x.request.len();
            let mut segment =
                self.segment(conn, now, false, if last { flags::PSH | flags::ACK } else { flags::ACK });
            segment.tx = x.tx;
            segment.mark = if sent < x.request_head { Mark::RequestHead } else { Mark::None };
            segment.arena_at = (x.request.start + sent) as u32;
            segment.arena_len = len as u16;
            self.segments.push(segment);
            conn.next[0] = conn.next[0].wrapping_add(len as u32);
            sent += len;
            now += SEGMENT_NANOS;
        }
        // A delayed acknowledgment goes out after 40 ms where the answer takes longer.
        if x.think > 40_000_000 {
            self.bare(conn, now + 40_000_000, true, flags::ACK);
        }
        let done = self.respond(conn, now + x.think, x);
        conn.free_at = done;
        conn.requests += 1;
        done
    }

    /// Sends the response in bursts of the congestion window, one burst a round trip.
    fn respond(&mut self, conn: &mut Conn, start: u64, x: &Exchange) -> u64 {
        let total = x.response.len() + x.filler_len;
        let (mut sent, mut burst, mut in_burst, mut number) = (0, start, 0u32, 0u32);
        let mut now = start;
        while sent < total {
            if in_burst == conn.window {
                burst += conn.rtt.max(u64::from(in_burst) * SEGMENT_NANOS);
                conn.window = (conn.window * 2).min(64);
                in_burst = 0;
            }
            now = burst + u64::from(in_burst) * SEGMENT_NANOS;
            let len = MSS.min(total - sent);
            let last = sent + len == total;
            let from_arena = len.min(x.response.len().saturating_sub(sent));
            let mut segment =
                self.segment(conn, now, true, if last { flags::PSH | flags::ACK } else { flags::ACK });
            segment.tx = x.tx;
            segment.mark = if sent < x.response_head { Mark::ResponseHead } else { Mark::None };
            segment.arena_at = (x.response.start + sent.min(x.response.len())) as u32;
            segment.arena_len = from_arena as u16;
            segment.filler_at =
                self.filler_from(x.filler_at, (sent + from_arena).saturating_sub(x.response.len()));
            segment.filler_len = (len - from_arena) as u16;
            self.segments.push(segment);
            conn.next[1] = conn.next[1].wrapping_add(len as u32);
            sent += len;
            if last || number % 2 == 1 {
                self.bare(conn, now + conn.rtt, false, flags::ACK);
            }
            in_burst += 1;
            number += 1;
        }
        now + conn.rtt
    }

    pub(super) fn close(&mut self, mut conn: Conn, time: u64, how: Close) {
        let time = time.max(conn.free_at + 2000);
        let (first, second) = match how {
            Close::Reset => return self.bare(&conn, time, false, flags::RST | flags::ACK),
            Close::Client => (0, 1),
            Close::Server => (1, 0),
        };
        let later = [conn.rtt, 30_000][usize::from(first == 0)];
        self.bare(&conn, time, first == 1, flags::FIN | flags::ACK);
        conn.next[first] = conn.next[first].wrapping_add(1);
        self.bare(&conn, time + later, second == 1, flags::FIN | flags::ACK);
        conn.next[second] = conn.next[second].wrapping_add(1);
        self.bare(&conn, time + conn.rtt + 60_000, first == 1, flags::ACK);
    }

    /// Forgets segments that carry nothing but an acknowledgment.
    pub(super) fn drop_empty_acks(&mut self) {
        self.segments.retain(|s| s.flags != flags::ACK || s.arena_len + s.filler_len > 0);
    }

    /// Puts the segments in capture order.
    pub(super) fn sort(&mut self) {
        self.segments.sort_by_key(|s| s.time);
    }

    /// Returns the size of the capture file.
    pub(super) fn file_bytes(&self) -> u64 {
        let frame = |s: &Segment| {
            let ip = if self.connections[s.connection as usize].client.is_ipv4() { 20 } else { 40 };
            let options = if s.flags & flags::SYN == 0 { 12 } else { 20 };
            16 + 14 + ip + 20 + options + u64::from(s.arena_len) + u64::from(s.filler_len)
        };
        24 + self.segments.iter().map(frame).sum::<u64>()
    }

    /// Builds the Ethernet frame of `segment` in `out`, replacing what was there.
    pub(super) fn frame(&self, segment: &Segment, out: &mut Vec<u8>) {
        let ends = &self.connections[segment.connection as usize];
        let (from, src, dst) =
            if segment.to_client { (1, ends.server, ends.client) } else { (0, ends.client, ends.server) };
        let millis = (segment.time / 1_000_000) as u32;
        let mut options = [0u8; 20];
        let syn = segment.flags & flags::SYN != 0;
        // SYN: MSS, SACK permitted, timestamps, no-op, window scale; else no-op, no-op, timestamps.
        let stamps = if syn {
            options[..6].copy_from_slice(&[2, 4, 5, 180, 4, 2]);
            options[16..].copy_from_slice(&[1, 3, 3, 7]);
            6
        } else {
            options[..2].copy_from_slice(&[1, 1]);
            2
        };
        options[stamps..stamps + 2].copy_from_slice(&[8, 10]);
        options[stamps + 2..stamps + 6].copy_from_slice(&ends.clock[from].wrapping_add(millis).to_be_bytes());
        ends.stamped[from].set(millis);
        if segment.flags & flags::ACK != 0 {
            // The last stamp that the other side sent: receivers check it (RFC 7323 §4).
            let echo = ends.clock[1 - from].wrapping_add(ends.stamped[1 - from].get());
            options[stamps + 6..stamps + 10].copy_from_slice(&echo.to_be_bytes());
        }
        let tcp = Tcp::new(src, dst).seq(segment.seq).ack(segment.ack).flags(segment.flags).options(if syn {
            &options
        } else {
            &options[..12]
        });
        let arena = &self.arena[segment.arena_at as usize..][..usize::from(segment.arena_len)];
        let filler = &self.filler[segment.filler_at as usize..][..usize::from(segment.filler_len)];
        out.clear();
        // The link header mirrors the addresses, so the packet is built first and its header moved before it.
        out.resize(14, 0);
        tcp.push_packet(out, &[arena, filler]);
        let mut header = Vec::with_capacity(14);
        Link::Ethernet.push(&mut header, &out[14..]);
        out[..14].copy_from_slice(&header);
    }

    fn bare(&mut self, conn: &Conn, time: u64, to_client: bool, bits: u8) {
        let segment = self.segment(conn, time, to_client, bits);
        self.segments.push(segment);
    }

    fn segment(&self, conn: &Conn, time: u64, to_client: bool, bits: u8) -> Segment {
        let from = usize::from(to_client);
        Segment {
            time,
            tx: u32::MAX,
            mark: Mark::None,
            connection: conn.id,
            seq: conn.next[from],
            ack: if bits & flags::ACK == 0 { 0 } else { conn.next[1 - from] },
            arena_at: 0,
            filler_at: 0,
            arena_len: 0,
            filler_len: 0,
            flags: bits,
            to_client,
        }
    }

    fn filler_from(&self, start: u32, offset: usize) -> u32 {
        ((start as usize + offset) % (self.filler.len() - MSS)) as u32
    }
}

/// A mebibyte of text that looks like minified script and compresses like it.
fn filler() -> Vec<u8> {
    const WORDS: [&str; 24] = [
        "function(e,t)",
        "return ",
        "this.state",
        ".querySelector(",
        "\"click\"",
        "var n=",
        "=>{",
        "})",
        ";",
        "const ",
        "document",
        ".addEventListener(",
        "null",
        "!0",
        "price:",
        "item_",
        "(await ",
        ".json())",
        "/*",
        "*/",
        "margin:0 auto;",
        "data-id=\"",
        "cart.total",
        "Promise.all([",
    ];
    let mut rng = Rng::new(0x6669_6c6c);
    let mut out = Vec::with_capacity((1 << 20) + 32);
    while out.len() < 1 << 20 {
        out.extend_from_slice(rng.pick(&WORDS).as_bytes());
        if rng.percent(25.0) {
            out.extend_from_slice(rng.below(100_000).to_string().as_bytes());
        }
    }
    out
}
