//! TLS on one flow: both hellos are read, what they show is handed on, the rest is decrypted or bypassed.
//!
//! ```text
//! bytes ─▶ hello::MessageReader (records, messages) ─▶ hello::{ClientHello, ServerHello} ─▶ fingerprint ─▶ Handshake
//! ```
//!
//! A flow (or a tunnel) whose first bytes are a handshake record with a hello comes here. Once both hellos are read,
//! or can not be, nothing more of the flow is wanted, unless a key log has secrets of it: then `inside` gets every byte.
//! Where the secrets may still come, it waits for them (`waiting`).

mod decrypt;
pub(crate) mod fingerprint;
mod fuzz;
pub(crate) mod hello;
mod inside;
mod keys;
pub(crate) mod outside;
mod record;
mod schedule;
mod waiting;

use std::sync::Arc;

use offpath_types::{
    Chunk, Connection, Direction, FlowInfo, Handshake, HandshakeStage, Timestamp, TlsFacts, Transaction,
    Transport,
};

pub use self::decrypt::DecryptCounters;
use self::decrypt::Status;
pub use self::fuzz::fuzz_tls_records;
use self::hello::{CLIENT_HELLO, ClientHello, MessageReader, SERVER_HELLO, ServerHello, Stop};
pub(crate) use self::inside::Decryption;
use self::inside::Inside;
pub use self::keys::{KeyLimits, KeyLine, KeyLogCounters, KeyLogParser, KeyStore, fuzz_keylog};
pub use self::waiting::DecryptLimits;
use self::waiting::Ticket;
use crate::stage::{FlowContext, Http};

/// One direction.
#[derive(Default)]
struct Half {
    /// What is read of the hello; gone once nothing more is.
    reader: Option<Box<MessageReader>>,
    /// First byte of the direction.
    started: Option<Timestamp>,
    /// Last byte that was read.
    ended: Timestamp,
    /// Nothing more of it is read.
    over: bool,
}

/// The TLS state of one flow.
pub(crate) struct Tls {
    pub(crate) context: FlowContext,
    halves: [Half; 2],
    /// Wire direction of the client, once a hello has told.
    client: Option<Direction>,
    facts: Arc<TlsFacts>,
    client_seen: bool,
    server_seen: bool,
    /// The handshake was handed on.
    done: bool,
    inside: Decrypts,
}

/// What decrypts a flow.
enum Decrypts {
    /// Nothing: there is no hope.
    Not,
    Here(Box<Inside>),
    /// It waits for secrets, or has waited and not come back yet.
    Away(Ticket),
}

impl Tls {
    /// Starts at the first byte of a flow, or of a tunnel.
    ///
    /// `secrets`: some are known or may come, so it may be possible to decrypt it.
    pub(crate) fn new(context: FlowContext, secrets: bool) -> Self {
        Self {
            context,
            halves: Default::default(),
            client: None,
            facts: Arc::default(),
            client_seen: false,
            server_seen: false,
            done: false,
            inside: if secrets { Decrypts::Here(Box::new(Inside::new())) } else { Decrypts::Not },
        }
    }

    /// Tells whether bytes of `dir` still matter.
    pub(crate) fn wants(&self, dir: Direction) -> bool {
        !matches!(self.inside, Decrypts::Not) || !self.halves[dir.index()].over
    }

    /// Takes the next chunk of one direction.
    pub(crate) fn chunk(
        &mut self,
        http: &mut Http,
        flow: &FlowInfo,
        dir: Direction,
        chunk: Chunk<'_>,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) {
        self.come_back(http);
        let before = self.held();
        match chunk {
            Chunk::Data { bytes, seen, .. } => {
                http.counters.bytes_tls_total += bytes.len() as u64;
                self.data(http, flow, dir, bytes, seen, now);
            }
            Chunk::Gap { len, .. } => {
                http.counters.gap_bytes_ignored_total += len;
                self.stop(http, flow, dir, now);
            }
            Chunk::End { .. } => self.stop(http, flow, dir, now),
        }
        match &mut self.inside {
            Decrypts::Not => {}
            Decrypts::Away(ticket) => http.park(*ticket, dir, chunk, now, out),
            Decrypts::Here(inside) => {
                match inside.chunk(http, flow, &mut self.context, &self.facts, dir, chunk, now, out) {
                    Status::Going => {}
                    Status::WantsKeys => self.wait(http, flow, now, out),
                    Status::GivenUp => self.leave(http, flow, now, out),
                }
            }
        }
        http.held_bytes = http.held_bytes + self.held() - before;
        if self.held() > before && http.holds_too_much() {
            let before = self.held();
            self.stop(http, flow, dir, now);
            self.leave(http, flow, now, out);
            http.held_bytes = http.held_bytes + self.held() - before;
        }
    }

    /// Decrypts no more.
    fn leave(&mut self, http: &mut Http, flow: &FlowInfo, now: Timestamp, out: &mut Vec<Transaction>) {
        match std::mem::replace(&mut self.inside, Decrypts::Not) {
            Decrypts::Not => {}
            Decrypts::Here(mut inside) => inside.close(http, flow, now, out),
            Decrypts::Away(ticket) => http.decryption.waiting.flow_is_over(ticket),
        }
    }

    /// Waits for secrets.
    fn wait(&mut self, http: &mut Http, flow: &FlowInfo, now: Timestamp, out: &mut Vec<Transaction>) {
        if let Decrypts::Here(mut inside) = std::mem::replace(&mut self.inside, Decrypts::Not) {
            inside.settle(&mut self.context, &self.facts);
            self.inside = Decrypts::Away(http.wait(inside, flow, now, out));
        }
    }

    /// Takes back what need not wait any more.
    fn come_back(&mut self, http: &mut Http) {
        if let Decrypts::Away(ticket) = self.inside
            && let Ok(back) = http.decryption.waiting.take_ready(ticket)
        {
            self.inside = back.map_or(Decrypts::Not, Decrypts::Here);
        }
    }

    /// Ends the flow.
    pub(crate) fn close(
        &mut self,
        http: &mut Http,
        flow: &FlowInfo,
        now: Timestamp,
        out: &mut Vec<Transaction>,
    ) {
        self.come_back(http);
        http.held_bytes -= self.held();
        self.leave(http, flow, now, out);
        self.stop(http, flow, Direction::ToServer, now);
        self.stop(http, flow, Direction::ToClient, now);
    }

    /// Bytes held of unfinished hellos.
    fn held(&self) -> usize {
        let hellos: usize = self.halves.iter().filter_map(|h| h.reader.as_ref()).map(|r| r.held()).sum();
        let inside = if let Decrypts::Here(inside) = &self.inside { inside.held() } else { 0 };
        hellos + inside
    }

    fn data(
        &mut self,
        http: &mut Http,
        flow: &FlowInfo,
        dir: Direction,
        mut bytes: &[u8],
        seen: Timestamp,
        now: Timestamp,
    ) {
        let half = &mut self.halves[dir.index()];
        if half.over {
            return;
        }
        half.started.get_or_insert(seen);
        half.ended = seen;
        let mut reader = half.reader.take().unwrap_or_default();
        while !bytes.is_empty() {
            let (used, got) = reader.next(bytes);
            bytes = &bytes[used..];
            let over = match got {
                Ok(None) => false,
                Ok(Some((CLIENT_HELLO, body))) => {
                    self.client_hello(http, flow, dir, body, now);
                    true
                }
                Ok(Some((SERVER_HELLO, body))) => self.server_hello(http, dir, body),
                // A server may ask for a hello at any time (RFC 5246 §7.4.1.1).
                Ok(Some((0, []))) => false,
                Ok(Some(_)) | Err(Stop::NotTls | Stop::Over) => true,
                Err(Stop::TooLong) => {
                    http.counters.tls_hellos_unreadable_total += 1;
                    true
                }
                Err(Stop::Sslv2) => {
                    http.counters.tls_hellos_sslv2_total += 1;
                    self.client.get_or_insert(dir);
                    true
                }
            };
            if over {
                self.halves[dir.index()].over = true;
                return self.settle(http, flow, now);
            }
        }
        self.halves[dir.index()].reader = Some(reader);
    }

    /// Nothing more of `dir` can be read: bytes were lost, it has ended, or what it holds must go.
    fn stop(&mut self, http: &mut Http, flow: &FlowInfo, dir: Direction, now: Timestamp) {
        let half = &mut self.halves[dir.index()];
        if half.over {
            return;
        }
        half.over = true;
        let cut = half.reader.take().is_some_and(|r| r.held() > 0);
        http.counters.tls_hellos_unreadable_total += u64::from(cut);
        self.settle(http, flow, now);
    }

    fn client_hello(
        &mut self,
        http: &mut Http,
        flow: &FlowInfo,
        dir: Direction,
        body: &[u8],
        now: Timestamp,
    ) {
        let Some(hello) = ClientHello::parse(body).filter(|_| !self.client_seen) else {
            http.counters.tls_hellos_unreadable_total += 1;
            return;
        };
        http.counters.tls_client_hellos_total += 1;
        http.counters.tls_ech_total += u64::from(hello.has_ech());
        self.client = Some(dir);
        self.client_seen = true;
        take_client(Arc::make_mut(&mut self.facts), &hello, b't');
        if !self.server_seen {
            self.emit(http, flow, HandshakeStage::ClientHello, now);
        }
    }

    /// Takes a ServerHello; tells whether it is the last.
    fn server_hello(&mut self, http: &mut Http, dir: Direction, body: &[u8]) -> bool {
        let Some(hello) = ServerHello::parse(body).filter(|_| !self.server_seen) else {
            http.counters.tls_hellos_unreadable_total += 1;
            return true;
        };
        if hello.is_retry() {
            // What the client offers next differs in its key share alone.
            return false;
        }
        http.counters.tls_server_hellos_total += 1;
        self.client.get_or_insert(dir.flip());
        self.server_seen = true;
        take_server(Arc::make_mut(&mut self.facts), &hello);
        true
    }

    /// Hands the handshake on once nothing more of it will be read.
    fn settle(&mut self, http: &mut Http, flow: &FlowInfo, now: Timestamp) {
        let known = self.client_seen || self.server_seen;
        if self.done || !known || !self.halves.iter().all(|h| h.over) {
            return;
        }
        self.done = true;
        http.counters.tls_handshakes_total += 1;
        self.emit(http, flow, HandshakeStage::Done, now);
    }

    fn emit(&mut self, http: &mut Http, flow: &FlowInfo, stage: HandshakeStage, now: Timestamp) {
        let client = self.client.unwrap_or(Direction::ToServer);
        let client_side =
            if client == Direction::ToServer { flow.client_side } else { flow.client_side.flip() };
        let names = self.context.names(flow);
        let [a, b] = &self.halves;
        let started = self.halves[client.index()].started.or(a.started).or(b.started);
        http.connections.push(Connection::Handshake(Handshake {
            flow: FlowInfo { client_side, ..*flow },
            flow_id: names.flow_id,
            index: u32::from(self.context.depth),
            community_id: names.community_id,
            transport: Transport::of(&flow.key),
            started: started.unwrap_or(now),
            ended: a.ended.max(b.ended),
            emitted: now,
            stage,
            facts: Arc::clone(&self.facts),
            complete: self.client_seen && self.server_seen,
        }));
    }
}

/// Notes what a ClientHello says; `transport` is JA4's letter.
pub(crate) fn take_client(facts: &mut TlsFacts, hello: &ClientHello<'_>, transport: u8) {
    facts.server_name = hello.server_name().map(Box::from);
    facts.alpn_offered = hello.alpn().into();
    facts.ja3 = Some(fingerprint::ja3(hello));
    facts.ja4 = fingerprint::ja4(hello, transport);
    facts.ech = hello.has_ech();
}

/// Notes what a ServerHello says.
pub(crate) fn take_server(facts: &mut TlsFacts, hello: &ServerHello<'_>) {
    facts.ja3s = Some(fingerprint::ja3s(hello));
    facts.version = Some(hello.version());
    facts.cipher = Some(hello.cipher);
    facts.next_protocol = hello.alpn().map(Box::from);
}

/// Takes the handshakes out.
fn fuzz_handshakes(http: &mut Http) -> Vec<Handshake> {
    let found = std::mem::take(http.connections()).into_iter();
    found
        .filter_map(|c| if let Connection::Handshake(handshake) = c { Some(handshake) } else { None })
        .collect()
}

/// Fuzz body: the hellos of a flow are the same whoever cuts it, and the books balance.
///
/// First byte: where to cut, and whether the flow is midstream. Then records: a control byte (direction, gap), a
/// length, that many bytes.
#[doc(hidden)]
pub fn fuzz_tls_hello(data: &[u8]) {
    let Some((first, records)) = data.split_first() else { return };
    let whole = fuzz_run(records, first & 1 == 1, usize::MAX);
    let cut = fuzz_run(records, first & 1 == 1, usize::from(first >> 1) % 23 + 1);
    assert_eq!(whole, cut);
}

fn fuzz_run(mut records: &[u8], midstream: bool, piece: usize) -> Vec<Handshake> {
    use offpath_types::{Envelope, FlowKey, Host, IdentityKey, Peer, TunnelId};
    let peer = |last, port| Peer { host: Host::from_v4([10, 0, 0, last]), port };
    let (key, client_side) = FlowKey::new(peer(1, 40000), peer(2, 443), TunnelId(0));
    let mut now = Timestamp::from_nanos(1);
    let flow = FlowInfo { key, client_side, opened: now, midstream, envelope: Envelope::NONE };
    let mut http = Http::new(crate::ProtocolConfig::default(), IdentityKey::new([3; 32]));
    let (mut session, mut out, mut next) = (http.open(&flow), Vec::new(), [0u64; 2]);
    while let [control, len, rest @ ..] = records {
        let (bytes, after) = rest.split_at(usize::from(*len).min(rest.len()));
        records = after;
        let dir = if control & 1 == 0 { Direction::ToServer } else { Direction::ToClient };
        let offset = next[dir.index()];
        now = now.plus_nanos(1_000_000);
        next[dir.index()] += bytes.len() as u64;
        if control & 0xf0 == 0x50 && !bytes.is_empty() {
            let gap = Chunk::Gap { len: bytes.len() as u64, offset, seen: now };
            http.chunk(&mut session, &flow, dir, gap, now, &mut out);
            continue;
        }
        for (i, bytes) in bytes.chunks(piece).enumerate() {
            let offset = offset + (i * piece) as u64;
            let chunk = Chunk::Data { bytes, offset, peer_acked: None, seen: now };
            http.chunk(&mut session, &flow, dir, chunk, now, &mut out);
        }
    }
    http.close(session, &flow, now, &mut out);
    let c = *http.counters();
    assert_eq!(http.held_bytes(), 0);
    assert!(c.tls_handshakes_total <= c.tls_client_hellos_total + c.tls_server_hellos_total);
    let handshakes = fuzz_handshakes(&mut http);
    let done = handshakes.iter().filter(|h| h.stage == HandshakeStage::Done).count();
    assert_eq!(done as u64, c.tls_handshakes_total);
    handshakes
}

#[cfg(test)]
mod tests;
