//! Who behaves well behind an address, a prefix, a stack: what a block would cost people.
//!
//! In: every transaction. Out: how many well-behaved clients share a match, as far as it matters: counts
//! stop at [`BlastRadius::CLIENTS_MAX`] + 1.
//!
//! A *client* is a session, or, without one, an address with a stack. It behaves well once two of its
//! transactions in the window were rated below `well_behaved_below` and were no failed login; it stops
//! counting for a window once one is rated `suspect_from` or more. A single request with a made-up cookie
//! is therefore no client, so an attacker cannot cheaply surround itself with made-up people.
//!
//! Cost per transaction: one look-up in a filter of 256 KiB while a client repeats itself; one update the
//! first time in an eighth of the window that it visits an endpoint, five more the first time it is seen. Everything is a fixed table:
//! what does not fit replaces the value seen least recently (counted), never grows.

use foldhash::fast::FixedState;
use offpath_types::{EntityKey, Host, IdentityHash, LoginOutcome, Timestamp, Transaction, Verdict};
use std::hash::{BuildHasher, Hasher};

use crate::planner::MatchKey;

/// How much harm to people a block may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlastRadius {
    /// Well-behaved clients that may share a match; one more and a narrower match is sought.
    /// Range: 0 to [`BlastRadius::CLIENTS_MAX`]; higher values count as that.
    pub well_behaved_clients_max: u32,
    /// How far back a client counts, in seconds of packet time.
    pub window_secs: u32,
    /// Transactions rated below this confidence speak for a client.
    pub well_behaved_below: u8,
    /// A transaction rated at least this confidence silences its client for a window.
    pub suspect_from: u8,
    /// Values remembered in each of the two tables (addresses; stacks), 64 bytes each. Rounded up to a
    /// power of two.
    pub values_max: usize,
}

impl BlastRadius {
    /// The largest budget that can be told apart from "more".
    pub const CLIENTS_MAX: u32 = 8;
}

impl Default for BlastRadius {
    fn default() -> Self {
        Self {
            well_behaved_clients_max: 3,
            window_secs: 3600,
            well_behaved_below: 30,
            suspect_from: 50,
            values_max: 65_536,
        }
    }
}

/// Slots of one value: the largest budget and one more.
const CLIENTS: usize = BlastRadius::CLIENTS_MAX as usize + 1;
/// Epochs in a window: a client counts for between 8 and 9 eighths of it.
const EPOCHS: u16 = 8;
/// Entries of each direct-mapped filter (u32 each: 256 KiB).
const FILTER: usize = 1 << 16;
/// Values that share a place in the table.
const WAYS: usize = 4;

/// One value and the clients that were seen to behave well with it. 64 bytes: one cache line.
#[derive(Clone, Copy, Default)]
struct Value {
    key: u64,
    clients: [u32; CLIENTS],
    epochs: [u16; CLIENTS],
}

// Invariant: `values.len()` is `sets * WAYS` and `sets` is a power of two. Key 0 and client 0 mean empty.
struct Table {
    values: Vec<Value>,
    mask: usize,
}

impl Table {
    fn new(values_max: usize) -> Self {
        let sets = (values_max / WAYS).clamp(1, 1 << 22).next_power_of_two();
        Self { values: vec![Value::default(); sets * WAYS], mask: sets - 1 }
    }

    fn set(&self, key: u64) -> std::ops::Range<usize> {
        let at = ((key >> 32) as usize & self.mask) * WAYS;
        at..at + WAYS
    }

    fn find(&self, key: u64) -> Option<&Value> {
        self.values.get(self.set(key))?.iter().find(|v| v.key == key)
    }
}

pub(crate) struct Neighbours {
    config: BlastRadius,
    state: FixedState,
    addresses: Table,
    stacks: Table,
    /// Client × address × stack × endpoint × epoch that have been seen to.
    done: Vec<u32>,
    /// Client × address × stack × epoch, likewise: a client at one more endpoint costs one update, not six.
    met: Vec<u32>,
    /// Clients seen behaving well once.
    known: Vec<u32>,
    /// Clients that misbehaved, and when.
    suspects: Vec<(u32, u16)>,
    /// Epoch of the last of them: on quiet days none needs to be looked up.
    last_suspect: Option<u16>,
    epoch: u16,
    epoch_ends: u64,
    epoch_nanos: u64,
    /// Values that made room for others while clients still counted.
    pub(crate) evicted_total: u64,
}

impl Neighbours {
    pub(crate) fn new(config: BlastRadius, seed: u64) -> Self {
        let epoch_nanos = (u64::from(config.window_secs) * 1_000_000_000 / u64::from(EPOCHS)).max(1);
        let values = config.values_max;
        Self {
            config,
            state: FixedState::with_seed(seed),
            addresses: Table::new(values),
            stacks: Table::new(values),
            done: vec![0; FILTER],
            met: vec![0; FILTER],
            known: vec![0; FILTER],
            suspects: vec![(0, 0); FILTER],
            last_suspect: None,
            epoch: 0,
            epoch_ends: 0,
            epoch_nanos,
            evicted_total: 0,
        }
    }

    /// Takes note of a transaction at packet time `now`, which never goes back.
    pub(crate) fn observe(&mut self, tx: &Transaction, verdict: &Verdict, now: Timestamp) {
        if now.as_nanos() >= self.epoch_ends {
            let number = now.as_nanos() / self.epoch_nanos;
            // Ages are compared modulo 2^16 epochs: 341 days at the default window.
            self.epoch = number as u16;
            self.epoch_ends = (number + 1).saturating_mul(self.epoch_nanos);
        }
        if verdict.confidence >= self.config.suspect_from {
            let client = tag(self.client(tx));
            self.suspects[client as usize % FILTER] = (client, self.epoch);
            self.last_suspect = Some(self.epoch);
        } else if verdict.confidence < self.config.well_behaved_below
            && !matches!(verdict.login, Some(LoginOutcome::Failure | LoginOutcome::Unknown))
        {
            self.well_behaved(tx);
        }
    }

    /// Returns how many well-behaved clients share `wish`, at most [`CLIENTS`].
    ///
    /// A conjunction is shared by no more than any of its parts, so the smallest count that is kept for
    /// a part is an upper bound. Sessions and users are one client, and that one is the suspect.
    pub(crate) fn sharing(&self, wish: &MatchKey) -> u32 {
        let (mut ip, mut prefix, mut print, mut endpoint) = (None, None, None, None);
        for key in wish.iter() {
            match key {
                EntityKey::Session(_) | EntityKey::User(_) => return 0,
                EntityKey::Ip(host) => ip = Some(*host),
                EntityKey::Prefix(host) => prefix = Some(*host),
                EntityKey::Fingerprint(f) => print = Some(*f),
                EntityKey::Endpoint(e) => endpoint = Some(*e),
            }
        }
        let prefix = prefix.or(ip.map(|i| i.prefix()));
        let mut least = CLIENTS as u32;
        let mut consider = |table: &Table, key: u64| {
            least = least.min(table.find(key).map_or(0, |v| self.count(v)));
        };
        if let Some(ip) = ip {
            consider(&self.addresses, self.address_key(1, ip, 0));
        }
        if let Some(prefix) = prefix {
            consider(&self.addresses, self.address_key(2, prefix, 0));
        }
        if let Some(print) = print {
            consider(&self.stacks, self.stack_key(print, 0));
            if let Some(endpoint) = endpoint {
                consider(&self.stacks, self.stack_key(print, endpoint | 1));
            }
            if let Some(ip) = ip {
                consider(&self.addresses, self.address_key(3, ip, print));
            }
            if let Some(prefix) = prefix {
                consider(&self.addresses, self.address_key(4, prefix, print));
            }
        }
        least
    }

    fn well_behaved(&mut self, tx: &Transaction) {
        let client = self.client(tx);
        let epoch = u64::from(self.epoch) + 1;
        let meeting = self.hash(&[client, self.host_hash(tx.client), tx.fingerprint, epoch]);
        let visit = self.hash(&[meeting, tx.endpoint_hash]);
        let done = &mut self.done[(visit >> 48) as usize % FILTER];
        if *done == tag(visit) {
            return;
        }
        let client = tag(client);
        let known = &mut self.known[client as usize % FILTER];
        if *known != client {
            *known = client;
            return;
        }
        *done = tag(visit);
        if self.suspect(client) {
            return;
        }
        let (ip, print) = (tx.client, tx.fingerprint);
        if print != 0 {
            self.add(self.stack_key(print, tx.endpoint_hash | 1), client, true);
        }
        let met = &mut self.met[(meeting >> 48) as usize % FILTER];
        if *met == tag(meeting) {
            return;
        }
        *met = tag(meeting);
        for key in [self.address_key(1, ip, 0), self.address_key(2, ip.prefix(), 0)] {
            self.add(key, client, false);
        }
        if print != 0 {
            for key in [self.address_key(3, ip, print), self.address_key(4, ip.prefix(), print)] {
                self.add(key, client, false);
            }
            self.add(self.stack_key(print, 0), client, true);
        }
    }

    fn add(&mut self, key: u64, client: u32, stack: bool) {
        let table = if stack { &self.stacks } else { &self.addresses };
        let set = table.set(key);
        let Some(ways) = table.values.get(set.clone()) else { return };
        let (mut way, mut oldest) = (0, u16::MAX);
        let mut found = false;
        for (i, value) in ways.iter().enumerate() {
            if value.key == key {
                (way, found) = (i, true);
                break;
            }
            // The newest client of a value says how useful it still is; an empty value is oldest of all.
            let newest =
                (0..CLIENTS).filter(|&c| value.clients[c] != 0).map(|c| self.age(value.epochs[c])).min();
            let freshness = newest.map_or(0, |age| u16::MAX - age);
            if freshness < oldest {
                (way, oldest) = (i, freshness);
            }
        }
        let mut value = if found { ways[way] } else { Value { key, ..Value::default() } };
        if !found && oldest >= u16::MAX - EPOCHS {
            self.evicted_total += 1;
        }
        let place = (0..CLIENTS)
            .find(|&c| value.clients[c] == client)
            .or_else(|| (0..CLIENTS).find(|&c| value.clients[c] == 0 || self.age(value.epochs[c]) > EPOCHS))
            .or_else(|| (0..CLIENTS).find(|&c| self.suspect(value.clients[c])));
        // No place: more clients than any budget already.
        if let Some(c) = place {
            value.clients[c] = client;
            value.epochs[c] = self.epoch;
            let table = if stack { &mut self.stacks } else { &mut self.addresses };
            table.values[set.start + way] = value;
        }
    }

    fn count(&self, value: &Value) -> u32 {
        let live = |&c: &usize| {
            value.clients[c] != 0 && self.age(value.epochs[c]) <= EPOCHS && !self.suspect(value.clients[c])
        };
        (0..CLIENTS).filter(live).count() as u32
    }

    fn suspect(&self, client: u32) -> bool {
        if self.last_suspect.is_none_or(|epoch| self.age(epoch) > EPOCHS) {
            return false;
        }
        let (suspect, since) = self.suspects[client as usize % FILTER];
        suspect == client && self.age(since) <= EPOCHS
    }

    fn age(&self, epoch: u16) -> u16 {
        self.epoch.wrapping_sub(epoch)
    }

    fn client(&self, tx: &Transaction) -> u64 {
        match tx.session {
            Some(IdentityHash(bytes)) => self.hash(&words(&bytes)),
            None => self.hash(&[self.host_hash(tx.client), tx.fingerprint]),
        }
    }

    fn address_key(&self, kind: u64, host: Host, print: u64) -> u64 {
        let [a, b] = words(host.octets());
        self.hash(&[kind, a, b, print]) | 1
    }

    fn stack_key(&self, print: u64, endpoint: u64) -> u64 {
        self.hash(&[5, print, endpoint]) | 1
    }

    fn host_hash(&self, host: Host) -> u64 {
        self.hash(&words(host.octets()))
    }

    fn hash(&self, parts: &[u64]) -> u64 {
        let mut h = self.state.build_hasher();
        for part in parts {
            h.write_u64(*part);
        }
        h.finish()
    }
}

fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let whole = u128::from_le_bytes(*bytes);
    [whole as u64, (whole >> 64) as u64]
}

/// The low half of a hash, never 0.
fn tag(hash: u64) -> u32 {
    (hash as u32).max(1)
}
