//! Which response belongs to which request.
//!
//! As long as no byte that could hold a head was lost, order decides: the next response is that of the
//! oldest request without one. Two facts veto even that: a server cannot answer a request of which it had
//! received nothing, and a response that the client held when it sent a request is not the answer to it.
//! ```text
//! requests   ───[ request k     )───────────      S  offset where a response starts
//!               ▲ start_k       ▲ end_k           A  what its sender had received of the requests
//! responses  ───[ response k )[ response k+1      R  what the client had received when it sent request k
//!               ▲ S                               veto: A <= start_k, or S < R_k
//! ```
//! After a loss, order proves nothing. A client without pipelining sends request k when it has all of the
//! response before it and nothing more: its response starts exactly at R_k. So the first open request with
//! R == S (and end <= A) owns the response, everything older than it has lost its own, and order holds
//! again. Where the client pipelines, R == S is proof only for the first request of a burst, whose
//! predecessor was seen with a smaller R. A request behind a gap is not that where the bytes before S answer
//! one that ended before the gap: S is the response to what the gap hid. Where the client keeps requests on
//! the way all the time, nothing is proof and both come out as halves: two halves are better than one wrong
//! pair. A veto by R is void where A shows that the server had all of the only request: R is what a client says.

use offpath_types::{Anomalies, Anomaly, Direction, FlowInfo, Pace, Timestamp, Transaction};

use super::engine::Engine;
use super::framing::Body;
use super::parse::{Head, Headers, StartLine};
use super::session::{Answer, Death, HeldItem, Open, Owner, Place, State, UNKNOWN};
use crate::head::{RequestHead, ResponseHead};
use crate::stage::{Next, Seen, Upgrade, Upgraded};

/// How long a request waits for a response on a flow that never showed one, after a later request has
/// proved that there was one: longer than mirrors reorder.
const ONE_SIDED_WAIT_NANOS: u64 = 200_000_000;

/// How long a server holds a request back before that is a long poll: longer than any page may take.
pub(crate) const LONG_POLL_NANOS: u64 = 5_000_000_000;

/// Data pieces and gaps held for one flow: each costs 48 bytes whatever its length.
pub(super) const HELD_ITEMS_MAX: usize = 256;

impl Engine<'_> {
    /// Opens a transaction; returns how the request's body ends.
    pub(super) fn request_head(
        &mut self,
        dir: Direction,
        head: &Head<'_>,
        headers: &Headers<'_>,
        head_end: u64,
        seen: Timestamp,
    ) -> Body {
        let StartLine::Request { method, target } = head.start else { return Body::None };
        let half = &mut self.s.halves[dir.index()];
        let place = half.place;
        let after_loss = std::mem::take(&mut half.lost);
        let after_missing = std::mem::take(&mut half.missing);
        let mut open = self.new_open(place, head.framing.anomalies);
        open.tx.version = head.version;
        open.tx.ended = seen;
        open.start = place.offset;
        open.head_end = head_end;
        open.acked = place.acked;
        open.after_loss = after_loss;
        open.after_missing = after_missing;
        open.is_head = method == b"HEAD";
        open.is_connect = method == b"CONNECT";
        if let Some(client) = self.s.context.proxied.as_deref() {
            open.tx.client = *client;
            open.tx.client_forwarded = true;
        }
        if (open.is_connect || method == b"TRACE") && head.framing.announces_body() {
            open.tx.anomalies.insert(Anomaly::BodyUnexpected);
        }
        let says_empty = head.framing.says_empty();
        let parsed = RequestHead { method, target, version: head.version, headers, says_empty };
        let tap = self.http.facts.request_head(&parsed, &mut open.tx);
        self.http.attach_tls(self.s.context.told.as_ref(), self.flow, headers, &mut open.tx);
        let before = std::mem::replace(&mut self.s.halves[dir.index()].tap, tap);
        self.http.facts.discard(before);
        let body = if open.is_connect { Body::None } else { head.framing.request_body() };
        self.note_request_order(&open);
        self.emit_one_sided(&open);
        self.make_room();
        self.http.open_requests += 1;
        open.kept = open.tx.text.len();
        self.http.facts.kept.add(open.kept);
        self.s.open.push_back(open);
        body
    }

    fn new_open(&mut self, place: Place, anomalies: Anomalies) -> Box<Open> {
        let names = self.s.context.names(self.flow);
        let client_side = match self.s.swapped {
            Some(true) => self.flow.client_side.flip(),
            _ => self.flow.client_side,
        };
        let flow = FlowInfo { client_side, ..*self.flow };
        let mut tx = Transaction::new(flow, names.flow_id, 0, place.seen);
        tx.community_id = names.community_id;
        tx.anomalies = anomalies;
        Box::new(Open {
            tx,
            kept: 0,
            start: UNKNOWN,
            head_end: UNKNOWN,
            end: UNKNOWN,
            acked: UNKNOWN,
            early_at: UNKNOWN,
            answered_at: UNKNOWN,
            responded: false,
            request_done: false,
            request_whole: false,
            response_done: false,
            response_whole: false,
            is_head: false,
            is_connect: false,
            after_loss: false,
            after_missing: false,
        })
    }

    fn note_request_order(&mut self, open: &Open) {
        let unasked = std::mem::replace(&mut self.s.unasked, UNKNOWN);
        if unasked != UNKNOWN && open.acked != UNKNOWN && open.acked <= unasked {
            // The mirror swapped the first request of a flow joined in the middle with its response, or the client
            // pipelines: what comes next may be the answer to a later request.
            self.s.certain = false;
        }
        if !open.after_loss {
            self.s.pipelined |= match (open.acked, self.s.request_acked) {
                (UNKNOWN, _) | (_, UNKNOWN) => self.s.open.back().is_some_and(|o| !o.response_done),
                (this, before) => this == before,
            };
        }
        self.s.request_acked = open.acked;
    }

    /// On a flow of which only the requests are captured: emits those that were certainly answered.
    fn emit_one_sided(&mut self, newest: &Open) {
        if self.s.halves[self.s.request_dir().flip().index()].touched {
            return;
        }
        while let Some(first) = self.s.open.front() {
            let next = self.s.open.get(1).map_or(newest, |o| o);
            let answered = first.acked != UNKNOWN && next.acked != UNKNOWN && next.acked > first.acked;
            let waited = self.now.nanos_since(next.tx.started) >= ONE_SIDED_WAIT_NANOS;
            if !(first.request_done && answered && waited) {
                break;
            }
            self.emit_front();
        }
    }

    /// Keeps the number of open requests bounded: the oldest without a response in progress goes.
    fn make_room(&mut self) {
        while self.is_crowded() {
            let at = usize::from(self.s.owner == Owner::Front);
            let Some(mut open) = self.s.open.remove(at) else { break };
            open.tx.anomalies.insert(Anomaly::PipelineOverflow);
            self.http.count_overflow(self.s.open.len() + 1);
            if self.s.certain {
                self.s.owed = self.s.owed.saturating_add(1);
            }
            self.emit_request(open);
        }
    }

    fn is_crowded(&self) -> bool {
        let open = self.s.open.len();
        let per_flow = self.http.config.limits.open_transactions_per_flow_max.max(2);
        open >= per_flow || open > 0 && self.http.is_crowded(open)
    }

    /// Finds the owner of a response; returns how its body ends, `None` where nothing follows as HTTP.
    pub(super) fn response_head(
        &mut self,
        dir: Direction,
        head: &Head<'_>,
        headers: &Headers<'_>,
        seen: Timestamp,
    ) -> Option<Body> {
        let StartLine::Response { status } = head.start else { return Some(Body::None) };
        let place = self.s.halves[dir.index()].place;
        self.s.halves[dir.index()].lost = false;
        let interim = (100..200).contains(&status) && status != 101;
        let owner = self.claim(place, !interim);
        if interim {
            if owner == Owner::Front
                && let Some(open) = self.s.open.front_mut()
            {
                open.tx.interim_responses = open.tx.interim_responses.saturating_add(1);
                open.tx.anomalies.extend(head.framing.anomalies);
                open.tx.ended = open.tx.ended.max(seen);
            }
            return Some(Body::None);
        }
        if owner == Owner::Orphan {
            let mut orphan = self.new_open(place, Anomalies::default());
            orphan.tx.version = head.version;
            orphan.request_done = true;
            self.s.orphan = Some(orphan);
        }
        self.s.owner = owner;
        let Some(open) = self.s.owner_mut() else { return Some(Body::None) };
        if open.request_done
            && place.seen.nanos_since(open.tx.ended) >= LONG_POLL_NANOS
            && owner == Owner::Front
        {
            open.tx.pace = Pace::Held;
            self.http.counters.long_polls_total += 1;
        }
        open.tx.status = Some(status);
        open.responded = true;
        open.answered_at = place.acked;
        open.tx.ended = open.tx.ended.max(seen);
        open.tx.anomalies.extend(head.framing.anomalies);
        let forbidden = matches!(status, 101 | 204 | 205) && head.framing.announces_body();
        if forbidden {
            open.tx.anomalies.insert(Anomaly::BodyUnexpected);
        }
        let says_empty = head.framing.says_empty();
        let parsed = ResponseHead { version: head.version, status, headers, says_empty };
        let tap = self.http.facts.response_head(&parsed, &mut open.tx);
        if !open.request_done {
            open.early_at = place.acked;
            if place.acked == UNKNOWN {
                open.tx.anomalies.insert(Anomaly::ResponseEarly);
            }
        }
        let tunnel = open.is_connect && (200..300).contains(&status);
        let bodyless = open.is_head || matches!(status, 204 | 304);
        if bodyless && open.tx.pace == Pace::Streamed {
            open.tx.pace = Pace::AtOnce;
        }
        let streamed = open.tx.pace == Pace::Streamed;
        let before = std::mem::replace(&mut self.s.halves[dir.index()].tap, tap);
        self.http.facts.discard(before);
        if tunnel || status == 101 {
            let protocol = headers.iter().find(|h| h.name.eq_ignore_ascii_case(b"upgrade")).map(|h| h.value);
            self.leave_http(dir, place, seen, (!tunnel).then(|| Upgrade::of(protocol.unwrap_or_default())));
            return None;
        }
        if bodyless {
            return Some(Body::None);
        }
        let body = head.framing.response_body();
        if streamed && body != Body::None {
            self.emit_streamed();
        }
        Some(body)
    }

    /// An event stream may go on for hours, and nothing of it is looked into: its transaction is handed on with its head,
    /// once the request is there. What follows is counted and belongs to nobody.
    fn emit_streamed(&mut self) {
        if self.s.owner != Owner::Front {
            return;
        }
        let Some(open) = self.s.open.front_mut().filter(|o| o.request_done && o.tx.pace == Pace::Streamed)
        else {
            return;
        };
        open.response_done = true;
        open.response_whole = !open.tx.anomalies.contains(Anomaly::ResponseGap)
            && !open.tx.anomalies.contains(Anomaly::ResponseTruncated);
        self.http.counters.event_streams_total += 1;
        self.emit_front();
        self.s.owner = Owner::Streamed;
    }

    /// The flow goes on as something else: inside a tunnel, or as what `upgrade` says, and then the transaction
    /// that made it so is the next layer's to finish.
    fn leave_http(&mut self, dir: Direction, place: Place, seen: Timestamp, upgrade: Option<Upgrade>) {
        if let Some(open) = self.s.owner_mut() {
            open.tx.anomalies.insert(if upgrade.is_none() { Anomaly::Tunnelled } else { Anomaly::Upgraded });
            if !open.request_done {
                open.request_done = true;
                open.request_whole = true;
            }
        }
        let Some(to) = upgrade else {
            self.http.counters.flows_tunnelled_total += 1;
            // What is kept behind the CONNECT goes along.
            self.s.halves[dir.flip().index()].state = State::Dead(Death::Left);
            self.message_end(dir, place.offset, seen, true);
            // What looked like requests behind the CONNECT went through the tunnel.
            self.http.counters.requests_tunnelled_total += self.s.open.len() as u64;
            self.http.open_requests -= self.s.open.len();
            self.s.open.drain(..).for_each(|open| self.http.facts.kept.remove(open.kept));
            return self.leave(dir, Next::Tunnel);
        };
        self.http.counters.flows_upgraded_total += 1;
        let owner = std::mem::replace(&mut self.s.owner, Owner::Nobody);
        let open = match owner {
            Owner::Nobody | Owner::Streamed => None,
            Owner::Front => self.s.open.pop_front().inspect(|open| {
                self.http.open_requests -= 1;
                self.http.facts.kept.remove(open.kept);
            }),
            Owner::Orphan => self.s.orphan.take(),
        };
        let Some(open) = open else { return };
        let (mut tx, has_request) = (open.tx, owner == Owner::Front);
        tx.complete = has_request && open.request_whole && !tx.anomalies.contains(Anomaly::ResponseGap);
        let requests = dir.flip();
        self.emit_all_open();
        self.leave(dir, Next::Upgraded(Upgraded { to, tx, has_request, requests }));
    }

    /// Says whose response starts at `place`.
    fn claim(&mut self, place: Place, last: bool) -> Owner {
        if self.s.certain { self.claim_by_order(place, last) } else { self.claim_by_offsets(place) }
    }

    fn claim_by_order(&mut self, place: Place, last: bool) -> Owner {
        if self.s.owed > 0 {
            self.s.owed -= u32::from(last);
            return Owner::Orphan;
        }
        let Some(front) = self.s.open.front().filter(|o| !o.response_done) else {
            if self.flow.midstream && !self.s.halves[self.s.request_dir().index()].touched {
                self.s.unasked = place.offset;
            }
            return Owner::Orphan;
        };
        let unheard = place.acked != UNKNOWN && place.acked <= front.start;
        let stale = front.acked != UNKNOWN && place.offset < front.acked;
        // A response of a server that had all of the only request was not there before it: what the client said that it
        // had is not true, or was said by somebody else.
        let stale = stale
            && !(self.s.open.len() == 1
                && front.request_done
                && place.acked != UNKNOWN
                && place.acked >= front.end);
        if unheard || stale {
            return Owner::Orphan;
        }
        if front.acked != place.offset && self.s.open.iter().skip(1).any(|o| o.acked == place.offset) {
            self.s.windowed = true;
        }
        Owner::Front
    }

    fn claim_by_offsets(&mut self, place: Place) -> Owner {
        if self.s.windowed {
            return Owner::Orphan;
        }
        if self.follows_lost_request(place) {
            self.s.pipelined = true;
            return Owner::Orphan;
        }
        let pipelined = self.s.pipelined;
        let heard = |o: &Open| {
            let needed = if o.request_done { o.end } else { o.head_end };
            place.acked == UNKNOWN || place.acked >= needed
        };
        let exact = self.s.open.iter().position(|o| !o.response_done && o.acked == place.offset);
        let found = exact.filter(|k| {
            let open = &self.s.open[*k];
            heard(open) && !(open.after_loss && pipelined)
        });
        // A request whose R is unknown is still the one if it is the only one and the last that was heard.
        let found = found.or_else(|| match self.s.open.front() {
            Some(only) if self.s.open.len() == 1 && !pipelined && !only.response_done => {
                (only.acked == UNKNOWN && place.acked == only.end && only.request_done).then_some(0)
            }
            _ => None,
        });
        let Some(k) = found else {
            if !pipelined {
                // Their responses started before this one and were lost.
                while self.s.open.front().is_some_and(|o| o.request_done && o.acked < place.offset) {
                    self.emit_front();
                }
            }
            return Owner::Orphan;
        };
        for _ in 0..k {
            self.emit_front();
        }
        let requests = &self.s.halves[self.s.request_dir().index()];
        self.s.certain = !requests.lost && !self.s.open.iter().skip(1).any(|o| o.after_loss);
        self.http.counters.repaired_total += 1;
        if let Some(open) = self.s.open.front_mut() {
            open.tx.anomalies.insert(Anomaly::Repaired);
        }
        Owner::Front
    }

    /// Tells whether the response that starts at `place` directly follows the answer to an earlier request, and the request
    /// that claims it does not follow that: a lost one lies between, sent before this response as well.
    fn follows_lost_request(&self, place: Place) -> bool {
        let Answer { end, request_end } = self.s.answer;
        // What is lost at the start of a flow may be a PROXY preface.
        let preface = end == 0 && self.believes_prefaces(&self.flow.client().host);
        end == place.offset
            && request_end != UNKNOWN
            && !preface
            && self
                .s
                .open
                .iter()
                .find(|o| !o.response_done && o.acked == place.offset)
                .is_some_and(|open| open.after_missing && request_end < open.start)
    }

    /// Tells whether a response that starts at `place` must wait for requests that are still to come.
    pub(super) fn must_hold(&self, place: Place) -> bool {
        let requests = &self.s.halves[self.s.request_dir().index()];
        if self.s.release
            || self.s.requests_silent
            || self.s.owed > 0
            || requests.ended
            || matches!(requests.state, State::Dead(_))
        {
            return false;
        }
        if self.s.certain && self.s.open.front().is_some_and(|o| !o.response_done) {
            return false;
        }
        match place.acked {
            // Without acknowledgements only the request itself can end the wait.
            UNKNOWN => self.s.certain,
            acked => acked > requests.next,
        }
    }

    /// Tells whether `head` switches protocols before the request in progress has ended: the rest of that, of which the
    /// place is known, is HTTP still (RFC 7540 §3.2, RFC 9110 §7.8).
    pub(super) fn switches_early(&self, head: &Head<'_>) -> bool {
        matches!(head.start, StartLine::Response { status: 101 }) && self.request_continues()
    }

    fn request_continues(&self) -> bool {
        let requests = &self.s.halves[self.s.request_dir().index()];
        !self.s.release
            && !requests.ended
            && !matches!(requests.state, State::Dead(_))
            && self.s.open.front().is_some_and(|open| !open.request_done && !open.responded)
    }

    /// Keeps a response that switches protocols, and what follows it, until its request has ended.
    pub(super) fn hold_switch(&mut self, bytes: &[u8], place: Place) {
        self.s.held.get_or_insert_default().switches = true;
        self.hold(bytes, place);
    }

    /// Tells whether what is held, which starts at `place`, must wait on.
    fn waits(&self, place: Place) -> bool {
        self.switch_waits() || self.must_hold(place)
    }

    fn switch_waits(&self) -> bool {
        self.s.held.as_deref().is_some_and(|held| held.switches) && self.request_continues()
    }

    /// Parses held bytes if their request has come, however long that took.
    pub(super) fn release_due(&mut self) {
        let first = self.s.held.as_deref().and_then(|h| h.items.first());
        if let Some(HeldItem::Data { place, .. }) = first
            && !self.waits(*place)
        {
            self.release_held(false);
        }
    }

    /// How much of the request stream the server had received when it sent what is held first.
    pub(super) fn held_acked(&self) -> Option<u64> {
        match self.s.held.as_deref()?.items.first()? {
            HeldItem::Data { place, .. } => Some(place.acked).filter(|a| *a != UNKNOWN),
            HeldItem::Gap { .. } => None,
        }
    }

    /// Keeps response bytes for later.
    pub(super) fn hold(&mut self, bytes: &[u8], place: Place) {
        let held = self.s.held.get_or_insert_default();
        self.http.counters.early_responses_held_total += u64::from(held.items.is_empty());
        held.bytes.extend_from_slice(bytes);
        held.items.push(HeldItem::Data { len: bytes.len(), place });
        if held.bytes.len() > self.http.config.limits.early_response_bytes_max
            || held.items.len() > HELD_ITEMS_MAX
        {
            self.release_held(true);
        }
    }

    /// Parses held bytes if their request has come or will not come; at once where `now_or_never`.
    pub(super) fn release_held(&mut self, now_or_never: bool) {
        let Some(HeldItem::Data { place, .. }) = self.s.held.as_deref().and_then(|h| h.items.first()) else {
            return;
        };
        let mut force = now_or_never;
        if !force && self.waits(*place) {
            // A request in progress ends one way or another.
            force = !self.switch_waits()
                && self.now.nanos_since(place.seen) >= self.http.config.limits.early_response_nanos_max;
            if !force {
                return;
            }
        }
        if force {
            self.http.counters.early_responses_released_total += 1;
            self.s.requests_silent = true;
        }
        let Some(held) = self.s.held.take() else { return };
        let dir = self.s.request_dir().flip();
        self.s.release = force;
        let mut at = 0;
        for item in &held.items {
            match *item {
                HeldItem::Data { len, place } => {
                    self.data(dir, &held.bytes[at..at + len], place);
                    at += len;
                }
                HeldItem::Gap { len } => match self.s.held.as_deref_mut() {
                    Some(again) => again.items.push(HeldItem::Gap { len }),
                    None => {
                        let offset = self.s.halves[dir.index()].next;
                        self.gap(dir, len, offset);
                    }
                },
            }
        }
        self.s.release = false;
    }

    /// Ends the message in progress in `dir` at stream offset `offset`; `seen` is when its last byte was
    /// seen, zero where it was not.
    pub(super) fn message_end(&mut self, dir: Direction, offset: u64, seen: Timestamp, whole: bool) {
        let d = dir.index();
        if !matches!(self.s.halves[d].state, State::Dead(_)) {
            self.s.halves[d].state = State::Start;
        }
        let tap = self.s.halves[d].tap.take();
        if self.is_request(dir) {
            let Some(open) = self.s.request_mut() else { return self.http.facts.discard(tap) };
            if let Some(tap) = tap {
                self.http.facts.request_body_end(tap, &mut open.tx);
            }
            open.end = offset;
            open.request_done = true;
            open.request_whole = whole && !open.tx.anomalies.contains(Anomaly::RequestGap);
            open.tx.ended = open.tx.ended.max(seen);
            if open.early_at != UNKNOWN && (open.early_at < offset || !whole) {
                open.tx.anomalies.insert(Anomaly::ResponseEarly);
            }
            let (answered, connect) = (open.response_done, open.is_connect);
            let responses = dir.flip().index();
            if connect && whole {
                // Without a response to come, nobody will say that the tunnel was refused.
                self.s.halves[d].state = State::Tunnel { junk: self.s.halves[responses].ended };
            }
            if answered {
                self.emit_back();
            } else if self.s.open.len() == 1 && self.s.owner == Owner::Front {
                self.emit_streamed();
            } else if self.s.halves[responses].ended && self.s.owner == Owner::Nobody {
                self.emit_finished_requests();
            }
            return;
        }
        let owner = std::mem::replace(&mut self.s.owner, Owner::Nobody);
        let open = match owner {
            Owner::Nobody => return self.http.facts.discard(tap),
            Owner::Streamed => {
                self.http.facts.discard(tap);
                self.s.answer = Answer::NONE;
                // A request that was sent before the client had all of this response.
                self.s.pipelined |=
                    whole && self.s.open.front().is_some_and(|o| o.acked != UNKNOWN && o.acked < offset);
                return;
            }
            Owner::Front => self.s.open.front_mut(),
            Owner::Orphan => self.s.orphan.as_mut(),
        };
        let Some(open) = open else { return self.http.facts.discard(tap) };
        if let Some(tap) = tap {
            self.http.facts.response_body_end(tap, &mut open.tx);
        }
        open.response_done = true;
        open.response_whole = whole && !open.tx.anomalies.contains(Anomaly::ResponseGap);
        open.tx.ended = open.tx.ended.max(seen);
        let (request_done, connect) = (open.request_done, open.is_connect);
        let request_end = match owner {
            Owner::Front if open.request_whole => open.end,
            _ if open.early_at != UNKNOWN || !request_done => UNKNOWN,
            // The server answers a request when it has it.
            _ => open.answered_at,
        };
        self.s.answer = Answer { end: if whole { offset } else { UNKNOWN }, request_end };
        match owner {
            Owner::Orphan => {
                if let Some(orphan) = self.s.orphan.take() {
                    self.emit(orphan, false);
                }
            }
            _ => {
                // A request that was sent before the client had all of this response.
                self.s.pipelined |=
                    whole && self.s.open.get(1).is_some_and(|o| o.acked != UNKNOWN && o.acked < offset);
                if request_done {
                    self.emit_front();
                }
                let requests = &mut self.s.halves[dir.flip().index()];
                if connect && matches!(requests.state, State::Tunnel { .. }) {
                    requests.state = State::Start;
                    self.release_tunnel(dir.flip());
                }
            }
        }
    }

    /// Emits every open request whose end was seen: no response will come.
    pub(super) fn emit_finished_requests(&mut self) {
        while self.s.open.front().is_some_and(|o| o.request_done) {
            self.emit_front();
        }
    }

    pub(super) fn emit_all_open(&mut self) {
        while !self.s.open.is_empty() {
            self.emit_front();
        }
    }

    fn emit_front(&mut self) {
        if let Some(open) = self.s.open.pop_front() {
            self.emit_request(open);
        }
    }

    fn emit_back(&mut self) {
        if let Some(open) = self.s.open.pop_back() {
            self.emit_request(open);
        }
    }

    fn emit_request(&mut self, open: Box<Open>) {
        self.http.open_requests -= 1;
        self.http.facts.kept.remove(open.kept);
        self.emit(open, true);
    }

    fn emit(&mut self, open: Box<Open>, has_request: bool) {
        let mut open = *open;
        open.tx.complete = has_request && open.request_whole && open.response_whole;
        if open.early_at != UNKNOWN && open.end == UNKNOWN {
            open.tx.anomalies.insert(Anomaly::ResponseEarly);
        }
        let seen = if !has_request { Seen::Response } else { Seen::of_request(open.responded) };
        self.http.emit(&mut self.s.context, self.flow, self.now, open.tx, seen, self.out);
    }
}
