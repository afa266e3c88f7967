//! Joins what a TLS handshake showed outside of a terminator to the transactions inside it.
//!
//! In: handshakes and transactions in their total order, so the result depends on packets alone, not on workers.
//! A handshake is remembered by its client's address and port in its address plan. A transaction names that client by
//! PROXY protocol or a header of the terminator (`TlsFacts::outside`), or by its own flow where the terminator keeps
//! addresses. The handshake of the transaction's own plan is taken; without one, that of another plan (the two taps may
//! be mirrored in different tunnels), where only one plan has that client.
//! A transaction never waits: a handshake that is handed on after it is too late.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use offpath_types::{Handshake, Peer, Timestamp, TlsFacts, Transaction, TunnelId, counters};

counters! {
    /// What joining counted.
    ///
    /// - `transactions_total` = `transactions_joined_total` + `transactions_unmatched_total`;
    /// - `handshakes_total` = `handshakes_held` + `handshakes_replaced_total` + `handshakes_expired_total`
    ///   + `handshakes_evicted_total`.
    pub struct JoinCounters {
        /// Transactions that named a client to join by.
        transactions_total,
        /// Those for which a handshake was found.
        transactions_joined_total,
        /// Those for which none was.
        transactions_unmatched_total,
        /// Handshakes remembered.
        handshakes_total,
        /// Handshakes that a later one of the same client address and port replaced.
        handshakes_replaced_total,
        /// Handshakes forgotten after `join.window_secs` without use.
        handshakes_expired_total,
        /// Handshakes forgotten to make room.
        handshakes_evicted_total,
        /// Handshakes remembered now.
        handshakes_held,
    }
}

/// How handshakes are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JoinConfig {
    /// Whether anything is: without it nothing is remembered.
    pub(crate) enabled: bool,
    /// Transactions that name no outside client are joined by the address and port of their own flow.
    pub(crate) by_address: bool,
    /// Packet time without use after which a handshake is forgotten.
    pub(crate) window_nanos: u64,
    /// Handshakes remembered. Past it: the one that was unused longest goes.
    pub(crate) handshakes_max: usize,
}

/// Whether a transaction was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// It carries facts that it did not carry before.
    Changed,
    /// It is as it was.
    Same,
}

/// Whose handshake it was: a client in an address plan.
type Client = (Peer, TunnelId);

struct Remembered {
    facts: Arc<TlsFacts>,
    /// Of the flow, so that the second stage of a handshake takes the place of its first.
    flow: (u64, u32),
    used: Timestamp,
}

/// The handshakes of late, by their client.
// Invariant: every key of `known` is in `queue` exactly once, at its `used` or before it.
pub(crate) struct Join {
    config: JoinConfig,
    known: BTreeMap<Client, Remembered>,
    /// Clients, each with the time from which it is unused at the earliest.
    queue: BTreeSet<(Timestamp, Client)>,
    now: Timestamp,
    counters: JoinCounters,
}

impl Join {
    /// Makes a join that remembers nothing yet.
    pub(crate) fn new(config: JoinConfig) -> Self {
        Self {
            config,
            known: BTreeMap::new(),
            queue: BTreeSet::new(),
            now: Timestamp::ZERO,
            counters: JoinCounters::default(),
        }
    }

    /// Returns the counts so far.
    pub(crate) fn counters(&self) -> &JoinCounters {
        &self.counters
    }

    /// Remembers a handshake.
    pub(crate) fn remember(&mut self, handshake: &Handshake) {
        if !self.config.enabled || handshake.facts.ja4.is_none() {
            return;
        }
        self.advance(handshake.emitted);
        let client = (handshake.flow.client(), handshake.flow.key.tunnel());
        let flow = (handshake.flow_id, handshake.index);
        let facts = Arc::clone(&handshake.facts);
        match self.known.entry(client) {
            Entry::Occupied(mut old) => {
                let old = old.get_mut();
                if old.flow != flow {
                    self.counters.handshakes_total += 1;
                    self.counters.handshakes_replaced_total += 1;
                }
                *old = Remembered { facts, flow, used: self.now };
            }
            Entry::Vacant(new) => {
                new.insert(Remembered { facts, flow, used: self.now });
                self.queue.insert((self.now, client));
                self.counters.handshakes_total += 1;
                self.counters.handshakes_held += 1;
            }
        }
        if self.known.len() > self.config.handshakes_max {
            self.evict();
        }
    }

    /// Adds to a transaction what the handshake of its client showed.
    pub(crate) fn apply(&mut self, tx: &mut Transaction) -> Joined {
        if !self.config.enabled {
            return Joined::Same;
        }
        let outside = tx.tls.as_ref().and_then(|tls| tls.outside);
        let own = self.config.by_address && tx.tls.as_ref().is_none_or(|tls| tls.ja3.is_none());
        let Some(peer) = outside.or_else(|| own.then(|| tx.flow.client())) else { return Joined::Same };
        self.advance(tx.emitted);
        self.counters.transactions_total += 1;
        let client = self.known_client(peer, tx.flow.key.tunnel());
        let Some(found) = client.and_then(|client| self.known.get_mut(&client)) else {
            self.counters.transactions_unmatched_total += 1;
            return Joined::Same;
        };
        found.used = self.now;
        self.counters.transactions_joined_total += 1;
        let facts = match &tx.tls {
            None => Arc::clone(&found.facts),
            Some(told) => {
                let mut facts = TlsFacts::clone(&found.facts);
                facts.fill(told);
                Arc::new(facts)
            }
        };
        tx.attach_tls(facts);
        Joined::Changed
    }

    /// Returns the client of whom a handshake is remembered: in this plan, or else in the only one that has it.
    fn known_client(&self, peer: Peer, plan: TunnelId) -> Option<Client> {
        if self.known.contains_key(&(peer, plan)) {
            return Some((peer, plan));
        }
        let mut plans = self.known.range((peer, TunnelId(0))..=(peer, TunnelId(u64::MAX)));
        let (only, _) = plans.next()?;
        plans.next().is_none().then_some(*only)
    }

    /// Forgets what has not been used for the window.
    fn advance(&mut self, now: Timestamp) {
        // Eras of a replay may step back.
        self.now = self.now.max(now);
        while let Some((since, client)) = self.queue.first().copied()
            && self.now.nanos_since(since) > self.config.window_nanos
        {
            self.queue.pop_first();
            if self.requeue(since, client) {
                continue;
            }
            self.known.remove(&client);
            self.counters.handshakes_expired_total += 1;
            self.counters.handshakes_held -= 1;
        }
    }

    /// Forgets the handshake that was unused longest.
    fn evict(&mut self) {
        while let Some((since, client)) = self.queue.pop_first() {
            if !self.requeue(since, client) {
                self.known.remove(&client);
                self.counters.handshakes_evicted_total += 1;
                self.counters.handshakes_held -= 1;
                return;
            }
        }
    }

    /// Puts a client that was used since it was queued to where it belongs now; tells whether it was.
    /// Each use pays for at most one such move.
    fn requeue(&mut self, since: Timestamp, client: Client) -> bool {
        let Some(known) = self.known.get(&client) else { return true };
        if known.used <= since {
            return false;
        }
        self.queue.insert((known.used, client));
        true
    }
}

#[cfg(test)]
mod tests {
    use offpath_types::{FlowInfo, FlowKey, HandshakeStage, Host, Ja4, Side, Transport, TunnelId};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn flow(port: u16, at: u64) -> FlowInfo {
        let peer = |last, port| Peer { host: Host::from_v4([192, 0, 2, last]), port };
        let (key, client_side) = FlowKey::new(peer(1, port), peer(2, 443), TunnelId(0));
        assert_eq!(client_side, Side::Low);
        FlowInfo {
            key,
            client_side,
            opened: Timestamp::from_nanos(at),
            midstream: false,
            envelope: Default::default(),
        }
    }

    fn handshake(port: u16, flow_id: u64, name: &str, secs: u64) -> Handshake {
        let at = Timestamp::from_nanos(secs * SECOND);
        Handshake {
            flow: flow(port, at.as_nanos()),
            flow_id,
            index: 0,
            community_id: [0; 20],
            transport: Transport::Tcp,
            started: at,
            ended: at,
            emitted: at,
            stage: HandshakeStage::Done,
            facts: Arc::new(TlsFacts {
                server_name: Some(name.as_bytes().into()),
                ja3: Some([1; 16]),
                ja4: Ja4::new(b"t13d1516h2_8daaf6152771_e5627efa2ab1"),
                ..TlsFacts::default()
            }),
            complete: true,
        }
    }

    fn tx(port: u16, secs: u64) -> Transaction {
        let at = Timestamp::from_nanos(secs * SECOND);
        let mut tx = Transaction::new(flow(port, 1), 1, 0, at);
        tx.emitted = at;
        tx.fingerprint = 7;
        tx
    }

    fn outside(mut tx: Transaction, port: u16) -> Transaction {
        let peer = Peer { port, ..flow(1, 0).client() };
        let facts = TlsFacts { outside: Some(peer), version: Some(0x0304), ..TlsFacts::default() };
        tx.attach_tls(Arc::new(facts));
        tx
    }

    fn join(by_address: bool, handshakes_max: usize) -> Join {
        Join::new(JoinConfig { enabled: true, by_address, window_nanos: 60 * SECOND, handshakes_max })
    }

    fn name_of(join: &mut Join, mut tx: Transaction) -> Option<String> {
        let before = tx.fingerprint;
        let joined = join.apply(&mut tx);
        let name = tx.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        let name = name.map(|n| String::from_utf8_lossy(n).into_owned());
        assert_eq!(joined == Joined::Changed, name.is_some());
        assert_eq!(tx.fingerprint != before, name.is_some(), "the client's JA4 is part of its fingerprint");
        let c = join.counters();
        assert_eq!(c.transactions_total, c.transactions_joined_total + c.transactions_unmatched_total);
        assert_eq!(
            c.handshakes_total,
            c.handshakes_held
                + c.handshakes_replaced_total
                + c.handshakes_expired_total
                + c.handshakes_evicted_total
        );
        assert_eq!(
            (join.known.len(), join.queue.len()),
            (c.handshakes_held as usize, c.handshakes_held as usize)
        );
        name
    }

    #[test]
    fn transactions_find_the_handshake_of_the_client_they_name() {
        let mut j = join(false, 10);
        j.remember(&handshake(5000, 1, "a", 10));
        assert_eq!(name_of(&mut j, outside(tx(900, 11), 5000)).as_deref(), Some("a"));
        assert_eq!(name_of(&mut j, outside(tx(900, 11), 5001)), None);
        assert_eq!(name_of(&mut j, tx(5000, 11)), None, "by address only where that is configured");
        assert_eq!(j.counters().transactions_total, 2);

        let mut j = join(true, 10);
        j.remember(&handshake(5000, 1, "a", 10));
        assert_eq!(name_of(&mut j, tx(5000, 11)).as_deref(), Some("a"));
        // The port is used again; both stages of one handshake are one.
        j.remember(&handshake(5000, 2, "b", 12));
        j.remember(&handshake(5000, 2, "b", 12));
        assert_eq!(name_of(&mut j, tx(5000, 13)).as_deref(), Some("b"));
        assert_eq!((j.counters().handshakes_total, j.counters().handshakes_replaced_total), (2, 1));
    }

    #[test]
    fn equal_addresses_in_different_plans_are_different_clients() {
        let within = |mut flow: FlowInfo, plan| {
            let peers = (flow.client(), flow.server());
            (flow.key, flow.client_side) = FlowKey::new(peers.0, peers.1, TunnelId(plan));
            flow
        };
        let mut j = join(true, 10);
        for (plan, flow_id, name) in [(5, 1, "five"), (6, 2, "six")] {
            let mut handshake = handshake(5000, flow_id, name, 10);
            handshake.flow = within(handshake.flow, plan);
            j.remember(&handshake);
        }
        let mut name_in = |plan, port| {
            let mut tx = tx(port, 11);
            tx.flow = within(tx.flow, plan);
            name_of(&mut j, tx)
        };
        assert_eq!(name_in(5, 5000).as_deref(), Some("five"));
        assert_eq!(name_in(6, 5000).as_deref(), Some("six"));
        assert_eq!(name_in(0, 5000), None, "two plans have this client");
        // The tap inside is not in a tunnel, or in another one.
        let mut handshake = handshake(5001, 3, "seven", 10);
        handshake.flow = within(handshake.flow, 7);
        j.remember(&handshake);
        assert_eq!(name_of(&mut j, tx(5001, 11)).as_deref(), Some("seven"));
        assert_eq!(j.counters().handshakes_held, 3);
    }

    #[test]
    fn what_the_terminator_told_fills_what_the_handshake_lacks() {
        let mut j = join(false, 10);
        j.remember(&handshake(5000, 1, "a", 10));
        let mut tx = outside(tx(900, 11), 5000);
        j.apply(&mut tx);
        let tls = tx.tls.unwrap();
        assert_eq!((tls.version, tls.server_name.as_deref()), (Some(0x0304), Some(&b"a"[..])));
    }

    #[test]
    fn handshakes_expire_unless_they_are_used_and_are_bounded() {
        let mut j = join(true, 3);
        j.remember(&handshake(1, 1, "a", 0));
        j.remember(&handshake(2, 2, "b", 0));
        assert_eq!(name_of(&mut j, tx(1, 50)).as_deref(), Some("a"));
        assert_eq!(name_of(&mut j, tx(2, 61)), None);
        assert_eq!(name_of(&mut j, tx(1, 109)).as_deref(), Some("a"), "used at 50");
        assert_eq!(j.counters().handshakes_expired_total, 1);
        for (port, at) in [(3, 110), (4, 111), (5, 112)] {
            j.remember(&handshake(port, u64::from(port), "c", at));
        }
        assert_eq!(j.counters().handshakes_evicted_total, 1);
        assert_eq!(name_of(&mut j, tx(1, 113)), None, "the one that was unused longest");
        assert_eq!(name_of(&mut j, tx(5, 113)).as_deref(), Some("c"));
    }

    #[test]
    fn nothing_is_remembered_unless_something_is_joined() {
        let config = JoinConfig { enabled: false, by_address: true, window_nanos: SECOND, handshakes_max: 9 };
        let mut j = Join::new(config);
        j.remember(&handshake(5000, 1, "a", 10));
        assert_eq!(name_of(&mut j, tx(5000, 11)), None);
        assert_eq!(*j.counters(), JoinCounters::default());
    }
}
