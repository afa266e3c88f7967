//! What there is behind the traffic: endpoints, parameters, credentials, responses; exported as OpenAPI 3.1.
//!
//! In:  transactions in their total order, with the outline that `protocol` made of each request. Out: one document,
//! the same for any number of workers. Nothing here ever sees a value.
//!
//! What a server answers to requests that are nonsense to it (400, 404, 405 … see [`answers_nonsense`]) proves no
//! endpoint and teaches no parameter: a scanner's requests stay out, and what is required is read from requests that
//! were understood.
//!
//! Every limit stands in [`InventoryLimits`] with what happens at it; [`InventoryCounters`] says that it did.

mod openapi;

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use offpath_types::{
    BodyOutline, CredentialKind, Outline, ParameterPlace, Timestamp, Transaction, ValueKinds, counters,
};

pub(crate) use openapi::{Syntax, write};

/// Bounds of the inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InventoryLimits {
    /// Endpoints remembered. Past it: the oldest one that no response has proved is forgotten; where all are proved,
    /// a new one is not learned.
    pub(crate) endpoints_max: usize,
    /// Parameters and body fields remembered of one endpoint. Past it: the one seen least often makes room.
    pub(crate) parameters_per_endpoint_max: usize,
}

/// Hosts remembered; one bit each. Past it: requests are learned without their host.
const HOSTS_MAX: usize = 64;
/// Kinds of credentials remembered (a cookie's name is one); one bit each. Past it: not noted.
const SCHEMES_MAX: usize = 32;
/// Combinations of credentials remembered of one endpoint. Past it: not noted.
const COMBINATIONS_MAX: usize = 8;
/// Content types remembered of one endpoint's requests, and of one status. Past it: not noted.
const MEDIA_TYPES_MAX: usize = 8;
/// Status codes remembered of one endpoint. Past it: not noted.
const STATUSES_MAX: usize = 32;
/// GraphQL operations remembered of one endpoint. Past it: not noted.
const OPERATIONS_MAX: usize = 128;
/// Longest content type that is believed to be one.
const MEDIA_TYPE_BYTES_MAX: usize = 80;

counters! {
    /// What became of every request.
    pub struct InventoryCounters {
        /// Requests seen: `learned + nonsense + unlisted + endpoints_full`.
        requests_total,
        /// Requests that taught their endpoint something.
        learned_total,
        /// Requests answered as nonsense (400, 404, 405 …): counted at their endpoint, no more.
        nonsense_total,
        /// Requests that OpenAPI has no place for: CONNECT, other methods, targets without a path.
        unlisted_total,
        /// Requests to a new endpoint that found no room.
        endpoints_full_total,
        /// Unproved endpoints forgotten to make room.
        endpoints_evicted_total,
        /// Parameters forgotten to make room.
        parameters_evicted_total,
        /// Names not taken: they look like values, or one request had too many.
        names_left_out_total,
        /// Requests whose host is no host name or found no room.
        hosts_left_out_total,
        /// Content types, status codes, credentials and GraphQL operations that found no room.
        details_left_out_total,
    }
}

/// What is known so far. A clone shares what does not change afterwards.
#[derive(Clone)]
pub(crate) struct Inventory {
    limits: InventoryLimits,
    /// By `METHOD /path` with holes; see `openapi::skeleton`.
    endpoints: HashMap<Arc<[u8]>, Arc<Endpoint>>,
    /// Endpoints that were unproved when they were added, oldest first; some have been proved since.
    unproved: VecDeque<Arc<[u8]>>,
    hosts: Vec<Host>,
    schemes: Vec<(CredentialKind, Box<[u8]>)>,
    first: Option<Timestamp>,
    last: Timestamp,
    scratch: Vec<u8>,
    key: Vec<u8>,
    holes: Vec<u8>,
    counters: InventoryCounters,
}

/// A host and port that requests were for.
#[derive(Clone)]
struct Host {
    name: Box<[u8]>,
    port: u16,
    requests: u64,
}

/// One method on one path template.
#[derive(Clone, Default)]
struct Endpoint {
    requests: u64,
    /// Requests that were understood: what `requests` of a parameter is compared with.
    learned: u64,
    first: Timestamp,
    last: Timestamp,
    /// For each placeholder of the path, which kinds it had; see `openapi::skeleton`.
    holes: Vec<u8>,
    /// Bit n: host n.
    hosts: u64,
    statuses: BTreeMap<u16, Status>,
    /// Sets of schemes, one bit each, with how many accepted requests had just these.
    credentials: Vec<(u32, u64)>,
    /// Content types of request bodies.
    bodies: Vec<Body>,
    /// GraphQL operations as endpoints have them (`mutation Login`), with how many requests were for each.
    operations: Vec<(Box<[u8]>, u64)>,
    /// By place, number of the body's content type, and name.
    parameters: HashMap<Arc<[u8]>, Learned>,
    /// Once there is no room for all: each parameter once, at what it was at some time.
    least: BTreeSet<(u64, Timestamp, Arc<[u8]>)>,
}

#[derive(Clone, Default)]
struct Status {
    responses: u64,
    media_types: Vec<(Box<str>, u64)>,
}

#[derive(Clone)]
struct Body {
    media_type: Box<str>,
    requests: u64,
    /// Some bodies were not read to the end, so nothing can be told to be required.
    partial: bool,
}

/// What is known of one parameter.
#[derive(Clone, Copy, Default)]
struct Learned {
    /// Requests that had it.
    requests: u64,
    /// How often it stood there: in a JSON body once for each object that has it.
    values: u64,
    kinds: ValueKinds,
    last: Timestamp,
}

impl Inventory {
    /// Makes an empty inventory.
    pub(crate) fn new(limits: InventoryLimits) -> Self {
        Self {
            limits,
            endpoints: HashMap::new(),
            unproved: VecDeque::new(),
            hosts: Vec::new(),
            schemes: Vec::new(),
            first: None,
            last: Timestamp::ZERO,
            scratch: Vec::new(),
            key: Vec::new(),
            holes: Vec::new(),
            counters: InventoryCounters::default(),
        }
    }

    /// Returns the counts so far.
    pub(crate) fn counters(&self) -> &InventoryCounters {
        &self.counters
    }

    /// Takes one transaction; responses without a request say nothing.
    pub(crate) fn observe(&mut self, tx: &Transaction) {
        let Some(outline) = tx.outline.as_deref() else { return };
        let counters = &mut self.counters;
        counters.requests_total += 1;
        counters.names_left_out_total += u64::from(outline.names_left_out);
        let (mut key, mut holes) = (std::mem::take(&mut self.key), std::mem::take(&mut self.holes));
        key.clear();
        holes.clear();
        match openapi::skeleton(tx.text.get(tx.endpoint), &mut key, &mut holes) {
            Some(operation) => self.request(&key, &holes, operation, tx, outline),
            None => counters.unlisted_total += 1,
        }
        (self.key, self.holes) = (key, holes);
    }

    /// Takes one request to the endpoint of this name.
    fn request(&mut self, key: &[u8], holes: &[u8], operation: &[u8], tx: &Transaction, outline: &Outline) {
        let nonsense = tx.status.is_some_and(answers_nonsense);
        if !self.endpoints.contains_key(key) && !self.make_room(key, nonsense) {
            self.counters.endpoints_full_total += 1;
            return;
        }
        let host = if nonsense { 0 } else { self.host(tx) };
        let schemes = if nonsense { 0 } else { self.schemes(outline) };
        self.first = Some(self.first.map_or(tx.started, |first| first.min(tx.started)));
        self.last = self.last.max(tx.started);
        let counters = &mut self.counters;
        let Some(endpoint) = self.endpoints.get_mut(key).map(Arc::make_mut) else { return };
        if endpoint.requests == 0 {
            endpoint.first = tx.started;
        }
        endpoint.requests += 1;
        endpoint.first = endpoint.first.min(tx.started);
        endpoint.last = endpoint.last.max(tx.started);
        endpoint.note_response(tx, counters);
        if nonsense {
            counters.nonsense_total += 1;
            return;
        }
        counters.learned_total += 1;
        endpoint.learned += 1;
        endpoint.hosts |= host;
        endpoint.holes.resize(holes.len(), 0);
        endpoint.holes.iter_mut().zip(holes).for_each(|(known, new)| *known |= new);
        if !operation.is_empty() {
            count(&mut endpoint.operations, operation, OPERATIONS_MAX, counters);
        }
        if !matches!(tx.status, Some(401 | 403 | 407)) {
            count(&mut endpoint.credentials, &schemes, COMBINATIONS_MAX, counters);
        }
        let body = endpoint.note_body(tx, outline, counters);
        for parameter in &outline.parameters {
            let of_body = matches!(parameter.place, ParameterPlace::Form | ParameterPlace::Json);
            let number = match (of_body, body) {
                (false, _) => 0,
                (true, Some(number)) => number,
                // The content type found no room.
                (true, None) => continue,
            };
            self.scratch.clear();
            self.scratch.extend_from_slice(&[parameter.place as u8, number]);
            self.scratch.extend_from_slice(outline.text.get(parameter.name));
            let max = self.limits.parameters_per_endpoint_max;
            let Some(learned) = endpoint.parameter(&self.scratch, max, counters) else { continue };
            learned.requests += 1;
            learned.values += u64::from(parameter.count);
            learned.kinds = learned.kinds.join(parameter.kinds);
            learned.last = tx.started;
        }
    }

    /// Makes an entry for a new endpoint; false where there is no room for it.
    fn make_room(&mut self, key: &[u8], nonsense: bool) -> bool {
        while self.endpoints.len() >= self.limits.endpoints_max {
            let Some(oldest) = self.unproved.pop_front() else { return false };
            if self.endpoints.get(&oldest).is_some_and(|e| e.learned == 0) {
                self.endpoints.remove(&oldest);
                self.counters.endpoints_evicted_total += 1;
            }
        }
        if nonsense {
            self.unproved.push_back(key.into());
        }
        self.endpoints.insert(key.into(), Arc::default());
        true
    }

    /// Returns the bit of the request's host; none where it has none that is usable.
    fn host(&mut self, tx: &Transaction) -> u64 {
        let (name, port) = (tx.text.get(tx.domain), tx.flow.server().port);
        if name.is_empty() {
            return 0;
        }
        if let Some(at) = self.hosts.iter().position(|h| *h.name == *name && h.port == port) {
            self.hosts[at].requests += 1;
            return 1 << at;
        }
        if self.hosts.len() == HOSTS_MAX || !openapi::is_host(name) {
            self.counters.hosts_left_out_total += 1;
            return 0;
        }
        self.hosts.push(Host { name: name.into(), port, requests: 1 });
        1 << (self.hosts.len() - 1)
    }

    /// Returns the bits of the request's credentials.
    fn schemes(&mut self, outline: &Outline) -> u32 {
        let mut bits = 0;
        for (kind, name) in &outline.credentials {
            let name = outline.text.get(*name);
            let known = self.schemes.iter().position(|(k, n)| k == kind && **n == *name);
            let at = known.unwrap_or(self.schemes.len());
            if at == SCHEMES_MAX {
                self.counters.details_left_out_total += 1;
                continue;
            }
            if known.is_none() {
                self.schemes.push((*kind, name.into()));
            }
            bits |= 1 << at;
        }
        bits
    }
}

impl Endpoint {
    fn note_response(&mut self, tx: &Transaction, counters: &mut InventoryCounters) {
        let Some(code) = tx.status else { return };
        if self.statuses.len() == STATUSES_MAX && !self.statuses.contains_key(&code) {
            counters.details_left_out_total += 1;
            return;
        }
        let status = self.statuses.entry(code).or_default();
        status.responses += 1;
        let Some(media_type) = media_type(tx.text.get(tx.response_content_type)) else { return };
        count(&mut status.media_types, &*media_type, MEDIA_TYPES_MAX, counters);
    }

    /// Notes a request's body; returns the number of its content type, `None` where there is none or no room.
    fn note_body(
        &mut self,
        tx: &Transaction,
        outline: &Outline,
        counters: &mut InventoryCounters,
    ) -> Option<u8> {
        if tx.request_body_bytes == 0 {
            return None;
        }
        let json = outline.parameters.iter().any(|p| p.place == ParameterPlace::Json);
        let form = outline.parameters.iter().any(|p| p.place == ParameterPlace::Form);
        let name = match media_type(tx.text.get(tx.request_content_type)) {
            Some(name) => name,
            None if json => "application/json".to_owned(),
            None if form => "application/x-www-form-urlencoded".to_owned(),
            None => "application/octet-stream".to_owned(),
        };
        let partial = outline.body == BodyOutline::Partial;
        let known = self.bodies.iter().position(|b| *b.media_type == *name);
        let at = match known {
            Some(at) => at,
            None if self.bodies.len() < MEDIA_TYPES_MAX => {
                self.bodies.push(Body { media_type: name.into(), requests: 0, partial: false });
                self.bodies.len() - 1
            }
            None => {
                counters.details_left_out_total += 1;
                return None;
            }
        };
        let body = &mut self.bodies[at];
        body.requests += 1;
        body.partial |= partial;
        u8::try_from(at).ok()
    }

    /// Returns the entry of a parameter; makes room for a new one by forgetting the one seen least often.
    fn parameter(
        &mut self,
        key: &[u8],
        max: usize,
        counters: &mut InventoryCounters,
    ) -> Option<&mut Learned> {
        if !self.parameters.contains_key(key) {
            if self.parameters.len() >= max {
                self.forget_least()?;
                counters.parameters_evicted_total += 1;
            }
            let name: Arc<[u8]> = key.into();
            if !self.least.is_empty() {
                self.least.insert((0, Timestamp::ZERO, Arc::clone(&name)));
            }
            self.parameters.insert(name, Learned::default());
        }
        self.parameters.get_mut(key)
    }

    /// Forgets the parameter seen least often. What was seen since it was put into order is put there anew: each
    /// sighting pays for at most one such move.
    fn forget_least(&mut self) -> Option<()> {
        if self.least.is_empty() {
            let all = self.parameters.iter().map(|(name, l)| (l.requests, l.last, Arc::clone(name)));
            self.least = all.collect();
        }
        loop {
            let (requests, last, name) = self.least.pop_first()?;
            let now = self.parameters.get(&name)?;
            if (now.requests, now.last) == (requests, last) {
                self.parameters.remove(&name);
                return Some(());
            }
            self.least.insert((now.requests, now.last, name));
        }
    }
}

/// Counts `key` in a short list; a new one past `max` is not noted.
fn count<K, Q>(list: &mut Vec<(K, u64)>, key: &Q, max: usize, counters: &mut InventoryCounters)
where
    K: Borrow<Q> + From<Q::Owned>,
    Q: ToOwned + PartialEq + ?Sized,
{
    match list.iter().position(|(known, _)| known.borrow() == key) {
        Some(at) => list[at].1 += 1,
        None if list.len() < max => list.push((key.to_owned().into(), 1)),
        None => counters.details_left_out_total += 1,
    }
}

/// Tells whether a server answers so to what means nothing to it: such requests teach nothing.
const fn answers_nonsense(status: u16) -> bool {
    matches!(status, 400 | 404 | 405 | 410 | 411 | 413..=417 | 421 | 422 | 426 | 431 | 501 | 505)
}

/// Returns a content type in lower case, where it is one.
fn media_type(text: &[u8]) -> Option<String> {
    let slash = text.iter().position(|c| *c == b'/')?;
    let is_token = |part: &[u8]| {
        !part.is_empty() && part.iter().all(|c| c.is_ascii_alphanumeric() || b"!#$&-^_.+*".contains(c))
    };
    let sound =
        text.len() <= MEDIA_TYPE_BYTES_MAX && is_token(&text[..slash]) && is_token(&text[slash + 1..]);
    sound.then(|| String::from_utf8_lossy(text).to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
