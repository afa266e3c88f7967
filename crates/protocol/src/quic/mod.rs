//! QUIC connections, as far as their first packets show: the hellos of versions 1 and 2.
//!
//! ```text
//! datagram ─▶ packet (headers, coalesced packets) ─▶ keys (Initial secrets) ─▶ crypto (frames in order) ─▶ hellos
//! ```
//! Initial packets are encrypted with keys that anybody can derive from the first one (RFC 9001 §5.2), so no key
//! log is needed. Nothing after the hellos is read.
//! Read RFC 9000 §17.2, RFC 9001 §5 and RFC 9369 before changing this file.

mod crypto;
mod keys;
mod packet;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use offpath_types::{
    Datagram, Envelope, FlowInfo, FlowKey, Handshake, HandshakeStage, Side, Timestamp, TlsFacts, Transport,
    counters,
};

use self::crypto::{Crypto, CryptoError};
use self::keys::{InitialKeys, Sender};
use self::packet::{Kind, LongPacket};
use crate::ident::FlowNames;
use crate::tls::hello::{CLIENT_HELLO, ClientHello, SERVER_HELLO, ServerHello};
use crate::tls::{take_client, take_server};

counters! {
    /// What became of every datagram, packet and flow.
    ///
    /// - `packets_total` = `packets_opened_total` + `packets_undecryptable_total` + `packets_other_total`
    ///   + `packets_malformed_total`;
    /// - `flows_total` = `flows_held` + `flows_expired_total` + `flows_evicted_total` + `flows_ended_total`.
    pub struct QuicCounters {
        /// Datagrams that began like a long header of QUIC version 1 or 2, or of its last drafts.
        datagrams_total,
        /// Packets in them.
        packets_total,
        /// Initial packets that were decrypted.
        packets_opened_total,
        /// Initial packets that could not be: damaged, cut, or of a connection whose start was not seen.
        packets_undecryptable_total,
        /// 0-RTT, Handshake and Retry packets, and bytes behind the last long header.
        packets_other_total,
        /// Packets whose lengths contradict the datagram.
        packets_malformed_total,
        /// Flows remembered.
        flows_total,
        /// Flows remembered now.
        flows_held,
        /// Flows forgotten after their time.
        flows_expired_total,
        /// Flows forgotten to make room.
        flows_evicted_total,
        /// Flows forgotten at the end of the capture.
        flows_ended_total,
        /// ClientHellos read.
        client_hellos_total,
        /// ServerHellos read.
        server_hellos_total,
        /// Hellos that were malformed, too long or in too many pieces.
        hellos_unreadable_total,
        /// ClientHellos with an encrypted one inside, or bytes that pretend to be one (GREASE).
        ech_total,
        /// Handshakes of which a ClientHello was read.
        handshakes_total,
    }
}

/// Bounds of the QUIC stage; each with its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuicLimits {
    /// Flows remembered. Past it: the oldest is forgotten.
    pub flows_max: usize,
    /// Bytes of unfinished hellos over all flows. Past it: as above.
    pub held_bytes_max: usize,
    /// Packet time after a flow's first packet at which it is forgotten, nanoseconds. A hello that is not whole
    /// by then is given up.
    pub flow_nanos_max: u64,
}

impl Default for QuicLimits {
    fn default() -> Self {
        Self { flows_max: 65_536, held_bytes_max: 64 << 20, flow_nanos_max: 10_000_000_000 }
    }
}

/// One connection.
struct Flow {
    opened: Timestamp,
    envelope: Envelope,
    /// Number of the connection on its addresses and ports.
    index: u32,
    client: Side,
    keys: Box<InitialKeys>,
    /// What each side sent, by [`Sender`].
    crypto: [Crypto; 2],
    seen: [bool; 2],
    started: Timestamp,
    ended: Timestamp,
    facts: Arc<TlsFacts>,
    done: bool,
}

/// The QUIC stage of one worker: short-lived state per flow, and what was found.
// Invariant: every flow in `flows` is in `queue` exactly once; `queue` is in order of opening.
pub struct Quic {
    limits: QuicLimits,
    flows: HashMap<FlowKey, Flow>,
    queue: VecDeque<(Timestamp, FlowKey)>,
    held_bytes: usize,
    /// The latest time seen.
    now: Timestamp,
    /// A packet being decrypted.
    scratch: Vec<u8>,
    counters: QuicCounters,
    handshakes: Vec<Handshake>,
}

impl Quic {
    /// Makes the stage.
    pub fn new(limits: QuicLimits) -> Self {
        Self {
            limits,
            flows: HashMap::new(),
            queue: VecDeque::new(),
            held_bytes: 0,
            now: Timestamp::ZERO,
            scratch: Vec::new(),
            counters: QuicCounters::default(),
            handshakes: Vec::new(),
        }
    }

    /// Returns the counts so far.
    pub fn counters(&self) -> &QuicCounters {
        &self.counters
    }

    /// Handshakes found since they were last taken out.
    pub fn handshakes(&mut self) -> &mut Vec<Handshake> {
        &mut self.handshakes
    }

    /// Takes a datagram.
    ///
    /// Cost: each packet is decrypted at most twice, and only until both hellos are known.
    pub fn datagram(&mut self, datagram: &Datagram<'_>) {
        self.advance(datagram.time);
        self.counters.datagrams_total += 1;
        let mut rest = datagram.payload;
        while !rest.is_empty() {
            // A short header ends the datagram (RFC 9000 §12.2).
            if rest[0] & 0x80 == 0 {
                self.counters.packets_total += 1;
                self.counters.packets_other_total += 1;
                return;
            }
            self.counters.packets_total += 1;
            let Some((packet, after)) = LongPacket::parse(rest) else {
                self.counters.packets_malformed_total += 1;
                return;
            };
            rest = after;
            if packet.kind == Kind::Initial {
                self.initial(datagram, &packet);
            } else {
                self.counters.packets_other_total += 1;
            }
        }
    }

    /// Forgets flows whose time was over before `now`.
    pub fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        while let Some((opened, key)) = self.queue.front().copied() {
            let due = opened.plus_nanos(self.limits.flow_nanos_max);
            if due > now {
                return;
            }
            self.queue.pop_front();
            self.counters.flows_expired_total += 1;
            self.forget(&key, due);
        }
    }

    /// Forgets every flow; what is known of their handshakes is handed on.
    pub fn finish(&mut self) {
        while let Some((_, key)) = self.queue.pop_front() {
            self.counters.flows_ended_total += 1;
            self.forget(&key, self.now);
        }
    }

    /// Forgets every flow and hands nothing on: after a panic, nothing that is held can be relied on.
    pub fn forget_all(&mut self) {
        self.counters.flows_ended_total += self.counters.flows_held;
        self.counters.flows_held = 0;
        self.flows.clear();
        self.queue.clear();
        self.held_bytes = 0;
    }

    fn forget(&mut self, key: &FlowKey, now: Timestamp) {
        if let Some(mut flow) = self.flows.remove(key) {
            self.counters.flows_held -= 1;
            self.held_bytes -= flow.held();
            if flow.seen[Sender::Client as usize] && !flow.done {
                flow.done = true;
                self.emit(key, &flow, HandshakeStage::Done, now);
            }
        }
    }

    fn initial(&mut self, datagram: &Datagram<'_>, packet: &LongPacket<'_>) {
        let (key, side, now) = (&datagram.key, datagram.side, datagram.time);
        if let Some(mut flow) = self.flows.remove(key) {
            let held = flow.held();
            let sender = if side == flow.client { Sender::Client } else { Sender::Server };
            let opened = if flow.done && flow.keys.matches(packet.version, packet.destination) {
                // Sent again after all is known: not worth decrypting.
                self.counters.packets_other_total += 1;
                Some(())
            } else {
                self.open(&mut flow.keys, sender, packet).map(|()| {
                    self.counters.packets_opened_total += 1;
                    if !flow.done {
                        self.frames(key, &mut flow, sender, now);
                    }
                })
            };
            // After a Retry, or on ports that are used again, keys follow the new destination.
            if opened.is_none() && !(sender == Sender::Client && self.begin(key, &mut flow, packet, now)) {
                self.counters.packets_undecryptable_total += 1;
            }
            self.held_bytes = self.held_bytes + flow.held() - held;
            self.flows.insert(*key, flow);
        } else {
            let mut flow = Flow::new(side, packet, datagram.envelope, now);
            if self.open(&mut flow.keys, Sender::Client, packet).is_none() {
                self.counters.packets_undecryptable_total += 1;
                return;
            }
            self.counters.packets_opened_total += 1;
            self.frames(key, &mut flow, Sender::Client, now);
            self.counters.flows_total += 1;
            self.counters.flows_held += 1;
            self.held_bytes += flow.held();
            self.flows.insert(*key, flow);
            self.queue.push_back((now, *key));
        }
        while self.flows.len() > self.limits.flows_max || self.held_bytes > self.limits.held_bytes_max {
            let Some((_, oldest)) = self.queue.pop_front() else { return };
            self.counters.flows_evicted_total += 1;
            self.forget(&oldest, now);
        }
    }

    /// Decrypts a packet into `scratch`.
    fn open(&mut self, keys: &mut InitialKeys, sender: Sender, packet: &LongPacket<'_>) -> Option<()> {
        keys.open(sender, packet, &mut self.scratch)
    }

    /// Takes a packet of the client as the first of a connection with other keys; tells whether it is.
    fn begin(&mut self, key: &FlowKey, flow: &mut Flow, packet: &LongPacket<'_>, now: Timestamp) -> bool {
        let mut fresh = Flow::new(flow.client, packet, flow.envelope, now);
        if self.open(&mut fresh.keys, Sender::Client, packet).is_none() {
            return false;
        }
        self.counters.packets_opened_total += 1;
        fresh.opened = flow.opened;
        if flow.seen[Sender::Server as usize] || flow.done {
            if !flow.done {
                self.emit(key, flow, HandshakeStage::Done, now);
            }
            fresh.index = flow.index + 1;
        } else {
            // The server asked for a token: the same hello comes again.
            fresh.index = flow.index;
            fresh.started = flow.started;
            fresh.seen = flow.seen;
            fresh.facts = Arc::clone(&flow.facts);
        }
        *flow = fresh;
        self.frames(key, flow, Sender::Client, now);
        true
    }

    /// Takes the CRYPTO frames of the packet in `scratch`.
    fn frames(&mut self, key: &FlowKey, flow: &mut Flow, sender: Sender, now: Timestamp) {
        let s = sender as usize;
        flow.ended = now;
        if flow.seen[s] {
            return;
        }
        let message = match flow.crypto[s].packet(&self.scratch) {
            Ok(None) => return,
            Ok(Some((kind, body))) => Some((kind, body)),
            Err(CryptoError::TooLong | CryptoError::TooManyPieces) => None,
        };
        let read = match (sender, message) {
            (Sender::Client, Some((CLIENT_HELLO, body))) => ClientHello::parse(body).map(|hello| {
                self.counters.client_hellos_total += 1;
                self.counters.ech_total += u64::from(hello.has_ech());
                take_client(Arc::make_mut(&mut flow.facts), &hello, b'q');
            }),
            (Sender::Server, Some((SERVER_HELLO, body))) => match ServerHello::parse(body) {
                Some(hello) if hello.is_retry() => {
                    // Another ClientHello and ServerHello follow; what was offered is known.
                    flow.crypto[s].skip_message();
                    return;
                }
                hello => hello.map(|hello| {
                    self.counters.server_hellos_total += 1;
                    take_server(Arc::make_mut(&mut flow.facts), &hello);
                }),
            },
            _ => None,
        };
        flow.crypto[s].clear();
        flow.seen[s] = read.is_some();
        if read.is_none() {
            self.counters.hellos_unreadable_total += 1;
            flow.done = true;
        } else if flow.seen == [true, true] {
            flow.done = true;
            self.emit(key, flow, HandshakeStage::Done, now);
        } else if sender == Sender::Client {
            self.emit(key, flow, HandshakeStage::ClientHello, now);
        }
        if flow.done {
            flow.crypto.iter_mut().for_each(Crypto::clear);
        }
    }

    fn emit(&mut self, key: &FlowKey, flow: &Flow, stage: HandshakeStage, now: Timestamp) {
        let info = FlowInfo {
            key: *key,
            client_side: flow.client,
            opened: flow.opened,
            midstream: false,
            envelope: flow.envelope,
        };
        let names = FlowNames::of(&info, Transport::Quic);
        self.counters.handshakes_total += u64::from(stage == HandshakeStage::Done);
        self.handshakes.push(Handshake {
            flow: info,
            flow_id: names.flow_id,
            index: flow.index,
            community_id: names.community_id,
            transport: Transport::Quic,
            started: flow.started,
            ended: flow.ended,
            emitted: now,
            stage,
            facts: Arc::clone(&flow.facts),
            complete: flow.seen == [true, true],
        });
    }
}

impl Flow {
    fn new(client: Side, packet: &LongPacket<'_>, envelope: Envelope, now: Timestamp) -> Self {
        Self {
            opened: now,
            envelope,
            index: 0,
            client,
            keys: Box::new(InitialKeys::new(packet.version, packet.destination)),
            crypto: Default::default(),
            seen: [false; 2],
            started: now,
            ended: now,
            facts: Arc::default(),
            done: false,
        }
    }

    fn held(&self) -> usize {
        self.crypto.iter().map(Crypto::held).sum()
    }
}

/// Fuzz body: datagrams in any number and shape; the books balance and the bounds hold.
///
/// Records: a control byte (sender, ports, time step), a length in two bytes, that many bytes.
#[doc(hidden)]
pub fn fuzz_quic_initial(mut data: &[u8]) {
    use offpath_types::{Host, Peer, TunnelId};
    let limits = QuicLimits { flows_max: 4, held_bytes_max: 1 << 16, flow_nanos_max: 1_000_000_000 };
    let mut quic = Quic::new(limits);
    let mut now = Timestamp::from_nanos(1);
    while let [control, high, low, rest @ ..] = data {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (payload, after) = rest.split_at(len);
        data = after;
        let peer = |last, port| Peer { host: Host::from_v4([10, 0, 0, last]), port };
        let client = peer(1, 4000 + u16::from(control & 7));
        let (key, side) = FlowKey::new(client, peer(2, 443), TunnelId(0));
        let side = if control & 8 == 0 { side } else { side.flip() };
        now = now.plus_nanos(u64::from(control >> 4) * 100_000_000);
        quic.datagram(&Datagram { time: now, key, side, envelope: Envelope::NONE, payload });
        assert!(quic.flows.len() <= 4 && quic.held_bytes <= 1 << 16);
        assert_eq!(quic.flows.len(), quic.queue.len());
    }
    quic.finish();
    let c = quic.counters();
    assert_eq!(
        c.packets_total,
        c.packets_opened_total
            + c.packets_undecryptable_total
            + c.packets_other_total
            + c.packets_malformed_total
    );
    assert_eq!(
        c.flows_total,
        c.flows_held + c.flows_expired_total + c.flows_evicted_total + c.flows_ended_total
    );
    assert_eq!((quic.held_bytes, c.flows_held), (0, 0));
    let done = quic.handshakes.iter().filter(|h| h.stage == HandshakeStage::Done).count();
    assert_eq!(done as u64, c.handshakes_total);
}

#[cfg(test)]
mod tests;
