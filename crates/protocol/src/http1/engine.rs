//! Takes chunks through a session's states: heads, bodies, gaps, ends.
//!
//! Every byte is taken by exactly one state and counted there; a head is looked at once, whoever cuts it.
//! Read RFC 9112 §6 and §7 before changing this file.

use std::ops::Range;
use std::sync::Arc;

use offpath_types::{
    Anomaly, Chunk, Direction, EndReason, FlowInfo, Host, HttpVersion, Timestamp, TlsFacts, Transaction,
};

use super::framing::Body;
use super::pairing::HELD_ITEMS_MAX;
use super::parse::{self, BlankLine, Head, Headers};
use super::proxy::{self, Preface};
use super::session::{
    Death, HeadRest, HeldItem, Marked, Owner, Place, Scan, Session, SizeStep, State, UNKNOWN,
};
use super::sniff::{Searcher, Sniff, UNDECIDED, Want, sniff};
use super::socks;
use super::whole;
use crate::stage::{Http, Kind, Leaving, Leftover, Next};

/// One call's view: the worker's stage, one flow's session, and where transactions go.
pub(super) struct Engine<'a> {
    pub(super) http: &'a mut Http,
    pub(super) s: &'a mut Session,
    pub(super) flow: &'a FlowInfo,
    pub(super) now: Timestamp,
    pub(super) out: &'a mut Vec<Transaction>,
}

impl Engine<'_> {
    pub(super) fn chunk(&mut self, dir: Direction, chunk: Chunk<'_>) {
        let before = self.s.buffered();
        self.s.halves[dir.index()].touched = true;
        match chunk {
            Chunk::Data { bytes, offset, peer_acked, seen } => {
                self.data(dir, bytes, Place { offset, acked: peer_acked.unwrap_or(UNKNOWN), seen });
            }
            Chunk::Gap { len, offset, .. } => self.gap_or_hold(dir, len, offset),
            Chunk::End { reason, .. } => self.end(dir, reason),
        }
        if self.s.held.is_some() {
            self.release_held(false);
        }
        let after = self.s.buffered();
        self.http.held_bytes = (self.http.held_bytes + after).saturating_sub(before);
        if after > before && self.http.holds_too_much() {
            self.shed();
        }
    }

    /// Ends both directions and emits what is open.
    pub(super) fn close(&mut self) {
        let before = self.s.buffered();
        let requests = self.s.request_dir();
        for dir in [requests, requests.flip()] {
            if !self.s.halves[dir.index()].ended {
                self.end(dir, EndReason::CaptureEnd);
            }
        }
        self.release_held(true);
        self.emit_all_open();
        debug_assert_eq!(self.s.buffered(), 0);
        for half in &mut self.s.halves {
            self.http.facts.discard(half.tap.take());
        }
        self.http.held_bytes = self.http.held_bytes.saturating_sub(before);
    }

    pub(super) fn is_request(&self, dir: Direction) -> bool {
        dir == self.s.request_dir()
    }

    pub(super) fn data(&mut self, dir: Direction, bytes: &[u8], place: Place) {
        if self.is_request(dir) {
            self.s.requests_silent = false;
        } else if self.s.held.is_some() {
            return self.hold(bytes, place);
        }
        self.feed(dir, bytes, place);
    }

    /// Takes bytes that follow what the direction's state has seen.
    fn feed(&mut self, dir: Direction, mut bytes: &[u8], mut place: Place) {
        let d = dir.index();
        if bytes.is_empty() {
            return;
        }
        self.s.halves[d].next = place.offset;
        while !bytes.is_empty() {
            let mut upto = bytes.len();
            let waiting = self.s.held.is_some() && self.is_request(dir);
            if waiting {
                // Stop where the server was when it sent what waits, so that cutting changes nothing.
                if let Some(left) = self.held_acked().and_then(|a| a.checked_sub(place.offset)) {
                    upto = shorter(bytes, left.max(1));
                }
            }
            let used = self.step(dir, &bytes[..upto], place);
            place.offset += used as u64;
            self.s.halves[d].next = place.offset;
            bytes = &bytes[used..];
            if waiting {
                self.release_due();
            }
        }
    }

    /// Takes bytes that were kept, from `at` on, each with the place it came from.
    fn feed_again(&mut self, dir: Direction, buf: &[u8], marks: &[(usize, Place)], at: usize) {
        for (i, (from, place)) in marks.iter().enumerate() {
            let to = marks.get(i + 1).map_or(buf.len(), |(next, _)| (*next).min(buf.len()));
            let start = (*from).max(at);
            if start < to {
                let place = Place { offset: place.offset + (start - from) as u64, ..*place };
                self.feed(dir, &buf[start..to], place);
            }
        }
    }

    /// Lets the direction's state take some of `bytes`; returns how many. 0 only with a change of state.
    fn step(&mut self, dir: Direction, bytes: &[u8], place: Place) -> usize {
        let d = dir.index();
        match self.s.halves[d].state {
            State::Start => self.start(dir, bytes, place),
            State::Fixed { left } => {
                if self.begins_next_response(dir, bytes, place) {
                    self.end_broken(dir, place.offset, place.seen, false);
                    return 0;
                }
                let n = shorter(bytes, left);
                self.body(dir, &bytes[..n], place.seen);
                self.s.halves[d].state = State::Fixed { left: left - n as u64 };
                if left == n as u64 {
                    self.message_end(dir, place.offset + n as u64, place.seen, true);
                }
                n
            }
            State::ChunkData { left } => {
                let n = shorter(bytes, left);
                self.body(dir, &bytes[..n], place.seen);
                let left = left - n as u64;
                self.s.halves[d].state =
                    if left == 0 { State::ChunkEnd { cr: false } } else { State::ChunkData { left } };
                n
            }
            State::ChunkSize { value, line, step } => {
                self.chunk_size(dir, bytes, place, ChunkLine { value, line, step })
            }
            State::ChunkEnd { cr } => self.chunk_end(dir, bytes, place, cr),
            State::Trailers { mut blank } => {
                let found = blank.find(bytes);
                let n = found.unwrap_or(bytes.len());
                self.http.counters.bytes_framing_total += n as u64;
                self.s.halves[d].state = State::Trailers { blank };
                if found.is_some() {
                    self.message_end(dir, place.offset + n as u64, place.seen, true);
                }
                n
            }
            State::Close => {
                self.body(dir, bytes, place.seen);
                bytes.len()
            }
            State::Head(scan) => self.slow(dir, scan, bytes, place),
            State::HeadRest { mut blank, then } => {
                let found = blank.find(bytes);
                let n = found.unwrap_or(bytes.len());
                self.http.counters.skipped_bytes_head_rest_total += n as u64;
                let half = &mut self.s.halves[d];
                half.state = State::HeadRest { blank, then };
                if let Some(rest) = &mut half.rest {
                    rest.take(&bytes[..n]);
                }
                if found.is_some() {
                    let then = self.head_rest_done(dir, then);
                    self.begin_body(dir, then, place.offset + n as u64, place.seen);
                }
                n
            }
            State::Search => self.search(dir, bytes, place),
            State::Fresh => self.fresh(dir, bytes, place),
            State::Preface { left } => {
                let n = shorter(bytes, u64::from(left));
                self.http.counters.bytes_framing_total += n as u64;
                let left = left - n as u32;
                self.s.halves[d].state =
                    if left == 0 { self.after_preface() } else { State::Preface { left } };
                n
            }
            State::Tunnel { junk: false } if self.tunnel_may_be_open(dir, bytes.len(), place) => {
                self.s.halves[d].keep(bytes, place);
                bytes.len()
            }
            State::Tunnel { .. } if !self.s.halves[d].buf.is_empty() => {
                self.release_tunnel(dir);
                0
            }
            State::Tunnel { junk } => {
                if junk || self.is_no_request(bytes) {
                    self.s.halves[d].state = State::Tunnel { junk: true };
                    self.http.counters.skipped_bytes_bypassed_total += bytes.len() as u64;
                    return bytes.len();
                }
                // The tunnel was refused and the client tries again; the refusal may come later.
                self.s.halves[d].state = State::Start;
                0
            }
            State::Dead(death) => {
                match death {
                    Death::NotHttp => self.http.counters.skipped_bytes_not_http_total += bytes.len() as u64,
                    Death::Left => self.leave_rest(dir, place.chunk(bytes)),
                }
                bytes.len()
            }
        }
    }

    /// First bytes of a direction: takes a PROXY preface or a SOCKS handshake off.
    fn fresh(&mut self, dir: Direction, bytes: &[u8], place: Place) -> usize {
        let d = dir.index();
        let to_server = dir == Direction::ToServer;
        // A body of HTTP/0.9 may begin with any byte.
        let expected =
            (to_server || self.s.socks || self.s.swapped.is_none()) && (self.s.prefaces == 0 || !to_server);
        let half = &mut self.s.halves[d];
        let first = half.buf.first().copied().unwrap_or(bytes[0]);
        let socks = expected && socks::may_begin(first, to_server);
        if half.buf.is_empty() {
            half.place = place;
            let proxied = to_server && matches!(first, b'P' | b'\r');
            if !(socks || proxied) {
                half.state = State::Start;
                return 0;
            }
        }
        let had = half.buf.len();
        // Never longer than a version 1 line, the addresses of version 2 or a handshake, plus this chunk.
        if had > 0 {
            half.keep(bytes, place);
        }
        let all = if had == 0 { bytes } else { &half.buf[..] };
        let preface = if socks { socks::parse(all, to_server) } else { proxy::parse(all) };
        match preface {
            Preface::More => {
                if had == 0 {
                    half.keep(bytes, place);
                }
                bytes.len()
            }
            Preface::None => {
                half.state = State::Start;
                let (buf, marks) = half.take_marked(had);
                self.feed_again(dir, &buf, &marks, 0);
                0
            }
            // What follows the addresses is waited for where it is of use, and short enough.
            Preface::Found { len, .. }
                if !socks
                    && self.http.config.outside.proxy_protocol
                    && (all.len()..=proxy::EXTENSIONS_MAX).contains(&(len - 1)) =>
            {
                if had == 0 {
                    half.keep(bytes, place);
                }
                bytes.len()
            }
            Preface::Found { len, client } => {
                let told = if socks || !self.http.config.outside.proxy_protocol {
                    None
                } else {
                    proxy::told(&all[..len.min(all.len())])
                };
                self.s.halves[d].take();
                let here = len - had;
                let n = here.min(bytes.len());
                // At most 16 + 65535.
                let left = (here - n) as u32;
                self.http.counters.bytes_framing_total += (had + n) as u64;
                if socks {
                    self.s.socks |= to_server;
                    self.http.counters.flows_socks_total += u64::from(to_server);
                } else {
                    self.preface(client, told);
                }
                let next = if socks { State::Start } else { self.after_preface() };
                self.s.halves[d].state = if left == 0 { next } else { State::Preface { left } };
                n
            }
        }
    }

    /// Takes what a PROXY preface says. The first is that of the proxy that is the flow's client; the next is that of whom
    /// the one before names, who is believed only if trusted as well.
    fn preface(&mut self, client: Option<Host>, told: Option<TlsFacts>) {
        self.s.prefaces += 1;
        self.http.counters.flows_proxy_protocol_total += u64::from(self.s.prefaces == 1);
        self.http.counters.prefaces_chained_total += u64::from(self.s.prefaces > 1);
        let writer = match self.s.context.proxied.as_deref() {
            Some(named) => *named,
            None => self.flow.client().host,
        };
        self.s.preface_doubted |= !self.believes_prefaces(&writer);
        if self.s.preface_doubted {
            return;
        }
        match client {
            Some(client) => self.s.context.proxied = Some(Box::new(client)),
            // The proxy speaks for itself, or does not know for whom.
            None => self.s.preface_doubted = true,
        }
        if told.is_some() {
            self.s.context.told = told.map(Arc::new);
        }
    }

    pub(super) fn believes_prefaces(&self, writer: &Host) -> bool {
        let writer = writer.to_ip();
        self.http.config.proxy_protocol.iter().any(|net| net.contains(&writer))
    }

    /// Where the proxies are chained, another preface may follow.
    fn after_preface(&self) -> State {
        if (1..proxy::PREFACES_MAX).contains(&self.s.prefaces) { State::Fresh } else { State::Start }
    }

    /// Between messages, with at least a byte.
    fn start(&mut self, dir: Direction, bytes: &[u8], place: Place) -> usize {
        if self.s.held.is_some() && !self.is_request(dir) {
            self.hold(bytes, place);
            return bytes.len();
        }
        // Only the request can tell what these bytes are (a body of HTTP/0.9, say), and it was received.
        let untold = self.s.swapped.is_none() && !self.flow.midstream && dir == Direction::ToClient;
        if untold && place.acked != UNKNOWN && self.must_hold(place) {
            self.hold(bytes, place);
            return bytes.len();
        }
        let empty = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        if empty > 0 {
            self.http.counters.bytes_framing_total += empty as u64;
            return empty;
        }
        let response = match self.s.swapped {
            Some(_) => !self.is_request(dir),
            None => bytes.starts_with(b"HTTP/"),
        };
        if response && self.s.swapped.is_some() {
            if self.must_hold(place) {
                self.hold(bytes, place);
                return bytes.len();
            }
            self.finish_http09(dir);
            if self.begins_http09_body(bytes) {
                self.begin_http09_body(dir);
                return 0;
            }
        }
        let limits = &self.http.config.limits;
        let mut headers = Headers::new();
        let parsed = if response {
            whole::response(bytes, limits.headers_max, &mut headers)
        } else {
            whole::request(bytes, limits.headers_max, &mut headers)
        };
        let Some((head, len)) = parsed.filter(|(_, len)| *len <= limits.head_bytes_max) else {
            return self.slow(dir, Scan::default(), bytes, place);
        };
        if self.s.swapped.is_none() {
            self.recognise(dir, response);
            if response && self.must_hold(place) {
                self.hold(bytes, place);
                return bytes.len();
            }
        }
        if self.switches_early(&head) {
            self.hold_switch(bytes, place);
            return bytes.len();
        }
        self.http.counters.heads_fast_total += 1;
        self.s.halves[dir.index()].place = place;
        self.head(dir, &head, &headers, len, place.seen, HeadEnd::Whole);
        len
    }

    /// A head that is unfinished here or in need of leniency.
    fn slow(&mut self, dir: Direction, mut scan: Scan, bytes: &[u8], place: Place) -> usize {
        let d = dir.index();
        let limits = &self.http.config.limits;
        let (max, unknown_max) = (limits.head_bytes_max, limits.sniff_bytes_max);
        let half = &mut self.s.halves[d];
        let had = half.buf.len();
        if had == 0 {
            half.place = place;
        }
        let window = &bytes[..bytes.len().min(max - had)];
        let mut taken = 0;
        if !scan.line_done {
            let line_end = memchr::memchr(b'\n', window);
            taken = line_end.map_or(window.len(), |i| i + 1);
            let verdict = if had == 0 {
                sniff(&window[..taken], line_end.is_some(), unknown_max)
            } else {
                half.keep(&window[..taken], place);
                sniff(&half.buf, line_end.is_some(), unknown_max)
            };
            let wanted = match (verdict, self.s.swapped) {
                (Sniff::More, _) => Sniff::More,
                (Sniff::Http2, _) if self.s.kind == Kind::Unknown => Sniff::Http2,
                (Sniff::Request | Sniff::Request09 | Sniff::Response, None) => verdict,
                (Sniff::Request | Sniff::Request09, Some(_)) if self.is_request(dir) => verdict,
                (Sniff::Response, Some(_)) if !self.is_request(dir) => verdict,
                _ => Sniff::Junk,
            };
            let half = &mut self.s.halves[d];
            match wanted {
                Sniff::More => {
                    if had == 0 {
                        half.keep(&window[..taken], place);
                    }
                    if half.buf.len() >= max {
                        if self.s.swapped.is_none() {
                            self.recognise(dir, self.s.halves[d].buf.starts_with(b"HTTP/"));
                        }
                        return self.slow_done(dir, &[], taken, HeadEnd::TooLong(BlankLine::Inside), place);
                    }
                    half.state = State::Head(scan);
                    return taken;
                }
                Sniff::Junk | Sniff::Http2 => {
                    let (buf, marks) = half.take_marked(had);
                    if wanted == Sniff::Http2 {
                        let anywhere = self.trim_for_frames(dir.flip());
                        self.leave(dir, Next::Http2 { requests: dir, anywhere });
                    } else {
                        self.junk(dir);
                    }
                    self.feed_again(dir, &buf, &marks, 0);
                    return 0;
                }
                Sniff::Request | Sniff::Request09 | Sniff::Response => {
                    if self.s.swapped.is_none() {
                        self.recognise(dir, wanted == Sniff::Response);
                    }
                    scan.line_done = true;
                    scan.line_09 = wanted == Sniff::Request09;
                    scan.blank = BlankLine::AfterLf;
                }
            }
        }
        let part = |from: usize| Place { offset: place.offset + from as u64, ..place };
        let rest = &window[taken..];
        scan.line_09 &= rest.is_empty();
        let found = scan.blank.find(rest);
        let whole = taken + found.unwrap_or(rest.len());
        let half = &mut self.s.halves[d];
        let end = match found {
            Some(_) => HeadEnd::Whole,
            None if had + window.len() >= max => HeadEnd::TooLong(scan.blank),
            None => {
                // The first line is in `buf` already where there was one to append to.
                let copied = if had == 0 { 0 } else { taken };
                half.keep(&window[copied..], part(copied));
                half.state = State::Head(scan);
                return window.len();
            }
        };
        if had == 0 {
            return self.slow_done(dir, &window[..whole], whole, end, place);
        }
        half.keep(&window[taken..whole], part(taken));
        self.slow_done(dir, &[], whole, end, place)
    }

    /// Parses a head leniently: `in_place`, or what `buf` holds where that is empty.
    fn slow_done(
        &mut self,
        dir: Direction,
        in_place: &[u8],
        used: usize,
        end: HeadEnd,
        place: Place,
    ) -> usize {
        let half = &mut self.s.halves[dir.index()];
        let buf = half.take();
        let bytes = if in_place.is_empty() { &buf[..] } else { in_place };
        let from = half.place;
        half.state = State::Start;
        if !self.is_request(dir) && self.must_hold(from) {
            // A head over the limit is held up to where it was seen; the rest follows it in there.
            self.hold(bytes, from);
            return used;
        }
        self.parse_slow(dir, bytes, end, place.seen);
        used
    }

    fn parse_slow(&mut self, dir: Direction, bytes: &[u8], end: HeadEnd, seen: Timestamp) {
        let request = self.is_request(dir);
        let headers_max = self.http.config.limits.headers_max;
        if end == HeadEnd::Whole {
            let mut headers = Headers::new();
            let fast = if request {
                whole::request(bytes, headers_max, &mut headers)
            } else {
                whole::response(bytes, headers_max, &mut headers)
            };
            if let Some((head, len)) = fast
                && len == bytes.len()
            {
                if self.switches_early(&head) {
                    return self.hold_switch(bytes, self.s.halves[dir.index()].place);
                }
                self.http.counters.heads_fast_total += 1;
                return self.head(dir, &head, &headers, len, seen, end);
            }
        }
        self.http.counters.heads_lenient_total += 1;
        let mut bytes = bytes;
        let len = bytes.len();
        if matches!(end, HeadEnd::TooLong(_)) {
            // A line that the limit cuts is read with the rest, unless it is the first.
            let mut rest = Box::<HeadRest>::default();
            if let Some(last) = memchr::memrchr(b'\n', bytes) {
                rest.take(&bytes[last + 1..]);
                bytes = &bytes[..=last];
            }
            self.s.halves[dir.index()].rest = Some(rest);
        }
        let unfolded = parse::unfold(bytes);
        let mut headers = Headers::new();
        let facts = &self.http.facts;
        let keeps = |name: &[u8]| request && facts.keeps_past_limit(name);
        let head = parse::lenient(request, bytes, unfolded.as_ref(), headers_max, keeps, &mut headers);
        if end == HeadEnd::Whole && self.switches_early(&head) {
            return self.hold_switch(bytes, self.s.halves[dir.index()].place);
        }
        self.head(dir, &head, &headers, len, seen, end);
    }

    /// A head past the limit on its length has ended; returns how its body ends, `then` by what lay within the limit.
    fn head_rest_done(&mut self, dir: Direction, then: Body) -> Body {
        let Some(rest) = self.s.halves[dir.index()].rest.take() else { return then };
        let HeadRest { mut framing, http10, .. } = *rest;
        framing.finish(http10);
        framing.anomalies.iter().for_each(|anomaly| self.mark(dir, anomaly));
        if self.is_request(dir) {
            let is_connect = self.s.request_mut().is_some_and(|open| open.is_connect);
            return if is_connect { then } else { framing.request_body() };
        }
        // By its status or the request's method a response has none, whatever its fields say.
        if then == Body::None { then } else { framing.response_body() }
    }

    /// Takes a parsed head of `len` bytes that began at the half's `place`.
    fn head(
        &mut self,
        dir: Direction,
        head: &Head<'_>,
        headers: &Headers<'_>,
        len: usize,
        seen: Timestamp,
        end: HeadEnd,
    ) {
        self.http.counters.bytes_head_total += len as u64;
        let d = dir.index();
        let from = self.s.halves[d].place;
        let offset = from.offset + len as u64;
        let mut head = *head;
        head.framing.anomalies.extend(std::mem::take(&mut self.s.halves[d].pending));
        let request = self.is_request(dir);
        match end {
            HeadEnd::TooLong(_) => {
                head.framing.anomalies.insert(Anomaly::HeadTooLong);
                if let Some(rest) = &mut self.s.halves[d].rest {
                    (rest.framing, rest.http10) = (head.framing, head.version == HttpVersion::V10);
                }
            }
            HeadEnd::Cut { gap } => head.framing.anomalies.insert(broken(request, gap)),
            HeadEnd::Whole => {}
        }
        let body = if request {
            Some(self.request_head(dir, &head, headers, offset, seen))
        } else {
            self.response_head(dir, &head, headers, seen)
        };
        let Some(body) = body else { return };
        match end {
            HeadEnd::Whole => self.begin_body(dir, body, offset, seen),
            HeadEnd::TooLong(blank) => self.s.halves[d].state = State::HeadRest { blank, then: body },
            HeadEnd::Cut { .. } => self.message_end(dir, offset, seen, false),
        }
    }

    fn begin_body(&mut self, dir: Direction, body: Body, offset: u64, seen: Timestamp) {
        let next = match body {
            Body::None => return self.message_end(dir, offset, seen, true),
            Body::Fixed(left) => State::Fixed { left },
            Body::Chunked => State::ChunkSize { value: 0, line: 0, step: SizeStep::Begin },
            Body::Close => State::Close,
        };
        self.s.halves[dir.index()].state = next;
    }

    /// Body bytes, dechunked.
    fn body(&mut self, dir: Direction, bytes: &[u8], seen: Timestamp) {
        self.http.counters.bytes_body_total += bytes.len() as u64;
        self.count_body(dir, bytes.len() as u64, seen);
        if let Some(tap) = self.s.halves[dir.index()].tap.as_deref_mut() {
            self.http.facts.body(tap, bytes);
        }
    }

    fn count_body(&mut self, dir: Direction, len: u64, seen: Timestamp) {
        let request = self.is_request(dir);
        let open = if request { self.s.request_mut() } else { self.s.owner_mut() };
        let Some(open) = open else { return };
        open.tx.ended = open.tx.ended.max(seen);
        let total = if request { &mut open.tx.request_body_bytes } else { &mut open.tx.response_body_bytes };
        *total = total.saturating_add(len);
    }

    pub(super) fn mark(&mut self, dir: Direction, anomaly: Anomaly) {
        self.s.mark(dir, anomaly);
    }

    fn chunk_size(&mut self, dir: Direction, bytes: &[u8], place: Place, mut at: ChunkLine) -> usize {
        let max = self.http.config.limits.chunk_line_bytes_max;
        let mut used = 0;
        let mut bare = None;
        let mut done = false;
        let mut valid = true;
        while used < bytes.len() && !done && valid {
            let b = bytes[used];
            used += 1;
            at.line += 1;
            valid = at.line <= max;
            match (at.step, b) {
                (SizeStep::Digits, b'\n') | (SizeStep::Extension, b'\n') => {
                    bare = Some(Anomaly::BareLf);
                    done = true;
                }
                (SizeStep::Cr, b'\n') => done = true,
                (SizeStep::Begin | SizeStep::Digits, b) if b.is_ascii_hexdigit() => {
                    let digit = match b {
                        b'0'..=b'9' => b - b'0',
                        _ => (b | 0x20) - b'a' + 10,
                    };
                    // 2^60 bytes is no chunk; more zeros than this are no habit but a trick.
                    valid &= at.value < 1 << 56 && at.line <= 32;
                    at.value = (at.value << 4) | u64::from(digit);
                    at.step = SizeStep::Digits;
                }
                (SizeStep::Begin, _) => valid = false,
                (SizeStep::Digits | SizeStep::Extension, b'\r') => at.step = SizeStep::Cr,
                (SizeStep::Digits, b';' | b' ' | b'\t') => at.step = SizeStep::Extension,
                (SizeStep::Digits, _) => valid = false,
                (SizeStep::Extension, _) => {}
                (SizeStep::Cr, _) => {
                    bare = Some(Anomaly::BareCr);
                    at.step = if b == b'\r' { SizeStep::Cr } else { SizeStep::Extension };
                }
            }
        }
        if let Some(anomaly) = bare {
            self.mark(dir, anomaly);
        }
        if !valid {
            // The byte that is wrong may begin the next message; the line before it is framing.
            used -= 1;
            self.http.counters.bytes_framing_total += used as u64;
            self.mark(dir, Anomaly::ChunkSizeInvalid);
            self.end_broken(dir, place.offset + used as u64, place.seen, false);
            self.stray(dir);
            return used;
        }
        self.http.counters.bytes_framing_total += used as u64;
        self.s.halves[dir.index()].state = match (done, at.value) {
            (false, _) => State::ChunkSize { value: at.value, line: at.line, step: at.step },
            (true, 0) => State::Trailers { blank: BlankLine::AfterLf },
            (true, left) => State::ChunkData { left },
        };
        used
    }

    fn chunk_end(&mut self, dir: Direction, bytes: &[u8], place: Place, cr: bool) -> usize {
        let d = dir.index();
        let next = State::ChunkSize { value: 0, line: 0, step: SizeStep::Begin };
        match (cr, bytes[0]) {
            (false, b'\r') => self.s.halves[d].state = State::ChunkEnd { cr: true },
            (true, b'\n') => self.s.halves[d].state = next,
            (false, b'\n') => {
                self.mark(dir, Anomaly::BareLf);
                self.s.halves[d].state = next;
            }
            _ => {
                self.mark(dir, Anomaly::ChunkEndInvalid);
                self.end_broken(dir, place.offset, place.seen, false);
                self.stray(dir);
                return 0;
            }
        }
        self.http.counters.bytes_framing_total += 1;
        1
    }

    /// Tells whether an orphan's body is cut short here by the next response: a later request shows that the
    /// client had all of the response before exactly here, and what begins may be a status line. (The request was HEAD, or the
    /// length was a lie.)
    fn begins_next_response(&self, dir: Direction, bytes: &[u8], place: Place) -> bool {
        self.s.owner == Owner::Orphan
            && !self.is_request(dir)
            && bytes.first() == Some(&b'H')
            && self.s.open.iter().any(|o| o.acked == place.offset)
    }

    /// Looks for a message start, and in a flow of an unknown kind for frames of HTTP/2: what is whole first wins.
    fn search(&mut self, dir: Direction, mut bytes: &[u8], place: Place) -> usize {
        let d = dir.index();
        let limits = &self.http.config.limits;
        let line_max = limits.search_line_bytes_max;
        let half = &mut self.s.halves[d];
        let unknown = self.s.kind == Kind::Unknown;
        if unknown {
            // A TLS handshake of a flow whose SYN was missed; what is none comes back.
            if half.searched == 0 && bytes[0] == 22 && self.s.context.depth == 0 && self.flow.midstream {
                self.leave(dir, Next::Unrecognised);
                return 0;
            }
            let left = limits.search_bytes_max.saturating_sub(half.searched);
            if left == 0 {
                self.give_up();
                return 0;
            }
            bytes = &bytes[..shorter(bytes, left)];
            half.searched += bytes.len() as u64;
        }
        let want = match self.s.swapped {
            None => Want::Either,
            Some(_) if self.is_request(dir) => Want::Request,
            Some(_) => Want::Response,
        };
        let half = &mut self.s.halves[d];
        let had = half.buf.len();
        if had == 0 {
            let start = self.http.searcher.find(bytes, 0, want, line_max);
            let mut keep = Searcher::keep_from(bytes, want, line_max);
            if unknown {
                let before = start.map_or(bytes, |start| &bytes[..start.whole - 1]);
                let (found, kept) = self.s.find_frames(dir, before, place.offset, false);
                keep = found.unwrap_or(keep.min(kept));
                if found.is_some() {
                    self.http.counters.skipped_bytes_search_total += keep as u64;
                    let from = Place { offset: place.offset + keep as u64, ..place };
                    self.s.halves[d].keep(&bytes[keep..], from);
                    self.leave_late(dir);
                    return bytes.len();
                }
            }
            if let Some(start) = start {
                self.found(d, start.at);
                return start.at;
            }
            let half = &mut self.s.halves[d];
            self.http.counters.skipped_bytes_search_total += keep as u64;
            half.keep(&bytes[keep..], Place { offset: place.offset + keep as u64, ..place });
            return bytes.len();
        }
        half.keep(bytes, place);
        let start = self.http.searcher.find(&half.buf, had.saturating_sub(UNDECIDED), want, line_max);
        // As `keep_from`, but only the new bytes are looked at, and bytes are moved only when half of them go.
        let line = if want == Want::Response { None } else { memchr::memrchr(b'\n', bytes) };
        let span = if want == Want::Response { UNDECIDED } else { line_max + UNDECIDED };
        let mut keep = line.map_or(half.buf.len().saturating_sub(span), |i| had + i + 1);
        if unknown {
            let from = half.place_of(0).offset;
            let buf = std::mem::take(&mut half.buf);
            let before = start.map_or(&buf[..], |start| &buf[..start.whole - 1]);
            let (found, kept) = self.s.find_frames(dir, before, from, false);
            self.s.halves[d].buf = buf;
            keep = found.unwrap_or(keep.min(kept));
            if found.is_some() {
                self.s.halves[d].forget(keep);
                self.http.counters.skipped_bytes_search_total += keep as u64;
                self.leave_late(dir);
                return bytes.len();
            }
        }
        let half = &mut self.s.halves[d];
        if let Some(start) = start {
            let (buf, marks) = half.take_marked(usize::MAX);
            self.found(d, start.at);
            self.feed_again(dir, &buf, &marks, start.at);
            return bytes.len();
        }
        if keep > half.buf.len() / 2 {
            half.forget(keep);
            self.http.counters.skipped_bytes_search_total += keep as u64;
        }
        bytes.len()
    }

    /// Frames of HTTP/2 were found where the buffer of `dir` begins.
    fn leave_late(&mut self, dir: Direction) {
        let preface = self.s.halves[dir.index()].buf.starts_with(b"PRI * HTTP/2.0");
        let anywhere = self.trim_for_frames(dir.flip());
        self.leave(
            dir,
            if preface { Next::Http2 { requests: dir, anywhere } } else { Next::Http2Late { anywhere } },
        );
    }

    /// Keeps of what a search holds only what may still begin a frame: how much more is there depends on the cuts.
    /// Returns `dir` if that begins inside of what was captured.
    fn trim_for_frames(&mut self, dir: Direction) -> Option<Direction> {
        let d = dir.index();
        let finder = self.s.finders.as_deref()?[d].as_ref().filter(|finder| !finder.is_at_begin())?;
        let half = &mut self.s.halves[d];
        let drop = finder.keep_from().saturating_sub(half.place_of(0).offset);
        let drop = usize::try_from(drop).unwrap_or(usize::MAX).min(half.buf.len());
        half.forget(drop);
        self.http.counters.skipped_bytes_search_total += drop as u64;
        Some(dir)
    }

    fn found(&mut self, d: usize, at: usize) {
        if let Some(finders) = self.s.finders.as_deref_mut() {
            finders[d] = None;
        }
        self.http.counters.skipped_bytes_search_total += at as u64;
        self.http.counters.resyncs_total += 1;
        self.s.halves[d].state = State::Start;
    }

    /// The content has told that `dir` carries responses, or requests.
    fn recognise(&mut self, dir: Direction, response: bool) {
        let swapped = (dir == Direction::ToClient) != response;
        self.s.kind = Kind::Http1;
        self.s.finders = None;
        self.s.swapped = Some(swapped);
        self.http.counters.flows_swapped_total += u64::from(swapped);
    }

    /// Bytes between messages are no message.
    fn junk(&mut self, dir: Direction) {
        let d = dir.index();
        if self.s.kind == Kind::Unknown {
            let from_the_start = !self.flow.midstream || self.s.context.depth > 0;
            if from_the_start && !self.s.halves.iter().any(|h| h.lost) {
                return self.leave(dir, Next::Unrecognised);
            }
            self.s.halves[d].state = State::Search;
            return;
        }
        if !self.is_request(dir) && self.begins_http09_body(b"?") {
            return self.begin_http09_body(dir);
        }
        if self.is_request(dir) && self.s.open.back().is_some_and(|o| o.is_connect && !o.response_done) {
            self.s.halves[d].state = State::Tunnel { junk: true };
            return;
        }
        self.s.halves[d].pending.insert(Anomaly::JunkBetweenMessages);
        self.stray(dir);
    }

    /// The place in the stream is lost: look for the next message, and pair by offsets until certain again.
    fn lose(&mut self, dir: Direction) {
        let half = &mut self.s.halves[dir.index()];
        if !matches!(half.state, State::Dead(_)) {
            half.state = State::Search;
        }
        half.lost = true;
        self.s.certain = false;
        self.s.owed = 0;
    }

    /// The bytes at hand are no message, though none is missing. A response among them would be found, so
    /// order still holds; a request that only the server understood would not.
    fn stray(&mut self, dir: Direction) {
        if self.is_request(dir) {
            self.lose(dir);
        } else {
            self.s.halves[dir.index()].state = State::Search;
        }
    }

    /// Stops parsing the flow: it is not HTTP.
    fn give_up(&mut self) {
        self.s.kind = Kind::NotHttp;
        let held = self.s.held.take();
        let mut dropped = 0;
        let mut gaps = 0;
        if let Some(held) = held {
            dropped += held.bytes.len();
            gaps += held
                .items
                .iter()
                .map(|i| if let HeldItem::Gap { len, .. } = i { *len } else { 0 })
                .sum::<u64>();
        }
        for half in &mut self.s.halves {
            dropped += half.take().len();
            self.http.facts.discard(half.tap.take());
            half.state = State::Dead(Death::NotHttp);
        }
        self.http.counters.gap_bytes_ignored_total += gaps;
        self.http.counters.skipped_bytes_not_http_total += dropped as u64;
    }

    /// The flow goes on as another layer, from here: what is held goes along.
    pub(super) fn leave(&mut self, dir: Direction, next: Next) {
        let mut rest = Leftover::default();
        let responses = self.s.request_dir().flip();
        if let Some(held) = self.s.held.take() {
            let mut at = 0;
            for item in &held.items {
                match *item {
                    HeldItem::Data { len, place } => {
                        rest.push(responses, place.chunk(&held.bytes[at..at + len]));
                        at += len;
                    }
                    HeldItem::Gap { len } => {
                        let offset = rest.end(responses).unwrap_or(self.s.halves[responses.index()].next);
                        rest.push(responses, Chunk::Gap { len, offset, seen: self.now });
                    }
                }
            }
        }
        // What came first goes first. The bytes at hand came last, also after the other direction's end: so the next
        // layer is told the same however they were cut.
        let [up, down] = &self.s.halves;
        let late = !up.buf.is_empty() && !down.buf.is_empty() && down.place_of(0).seen < up.place_of(0).seen;
        let first = if late { Direction::ToClient } else { Direction::ToServer };
        let other = dir.flip();
        let [mine, others] = [dir, other].map(|dir| {
            let half = &mut self.s.halves[dir.index()];
            self.http.facts.discard(half.tap.take());
            half.state = State::Dead(Death::Left);
            half.take_marked(usize::MAX)
        });
        let before = mine.1.len().saturating_sub(1);
        let kept = [(dir, &mine, 0..before), (other, &others, 0..others.1.len())];
        let [a, b] = if first == dir { kept } else { [kept[1].clone(), kept[0].clone()] };
        push_parts(&mut rest, a);
        push_parts(&mut rest, b);
        for (dir, parts) in [(other, 0..0), (dir, before..mine.1.len())] {
            push_parts(&mut rest, (dir, &mine, parts));
            if self.s.halves[dir.index()].ended {
                rest.push(dir, Chunk::End { reason: EndReason::Fin, seen: self.now });
            }
        }
        let [up, down] = &mut self.s.halves;
        self.s.leaving = Some(Box::new(Leaving {
            next,
            rest,
            kind: self.s.kind,
            pending: [std::mem::take(&mut up.pending), std::mem::take(&mut down.pending)],
            at: [up.next, down.next],
            context: std::mem::take(&mut self.s.context),
        }));
    }

    /// Adds what came after the layer left.
    fn leave_rest(&mut self, dir: Direction, chunk: Chunk<'_>) {
        if let Some(leaving) = self.s.leaving.as_deref_mut() {
            leaving.rest.push(dir, chunk);
        }
    }

    /// Drops what this session holds, because the worker holds too much.
    fn shed(&mut self) {
        let before = self.s.buffered();
        self.release_held(true);
        for dir in [Direction::ToServer, Direction::ToClient] {
            let half = &mut self.s.halves[dir.index()];
            let len = half.take().len();
            if len > 0 {
                self.http.counters.skipped_bytes_held_full_total += len as u64;
                self.lose(dir);
            }
        }
        self.http.held_bytes = (self.http.held_bytes + self.s.buffered()).saturating_sub(before);
    }

    fn gap_or_hold(&mut self, dir: Direction, len: u64, offset: u64) {
        if !self.is_request(dir)
            && let Some(held) = self.s.held.as_deref_mut()
        {
            held.items.push(HeldItem::Gap { len });
            if held.items.len() > HELD_ITEMS_MAX {
                self.release_held(true);
            }
            return;
        }
        self.gap(dir, len, offset);
    }

    /// Bytes that the capture never saw.
    pub(super) fn gap(&mut self, dir: Direction, len: u64, offset: u64) {
        if self.ends_in_frames(dir) {
            // Their connection goes on behind the gap.
            return self.leave_rest(dir, Chunk::Gap { len, offset, seen: self.now });
        }
        let d = dir.index();
        let mark = broken(self.is_request(dir), true);
        if matches!(self.s.halves[d].state, State::Tunnel { .. }) {
            self.release_tunnel(dir);
        }
        // What the body lacks, and whether its framing survives.
        let (inside, kept) = match self.s.halves[d].state {
            State::Dead(Death::Left) => {
                return self.leave_rest(dir, Chunk::Gap { len, offset, seen: self.now });
            }
            State::Dead(_) => {
                self.http.counters.gap_bytes_ignored_total += len;
                self.s.halves[d].next = offset.saturating_add(len);
                return;
            }
            State::Fixed { left } | State::ChunkData { left } => (len.min(left), len <= left),
            State::Close => (len, true),
            _ => (0, false),
        };
        if inside > 0 {
            self.http.counters.gap_bytes_body_total += inside;
            self.mark(dir, mark);
            self.count_body(dir, inside, Timestamp::ZERO);
            if let Some(tap) = self.s.halves[d].tap.as_deref_mut() {
                self.http.facts.body_gap(tap);
            }
        }
        self.http.counters.gap_bytes_lost_total += len - inside;
        let half = &mut self.s.halves[d];
        match half.state {
            State::Fixed { left } if left > inside => half.state = State::Fixed { left: left - inside },
            State::Fixed { .. } => self.message_end(dir, offset + inside, Timestamp::ZERO, true),
            State::ChunkData { left } if left > inside => {
                half.state = State::ChunkData { left: left - inside }
            }
            State::ChunkData { .. } if kept => half.state = State::ChunkEnd { cr: false },
            State::ChunkData { .. }
            | State::ChunkSize { .. }
            | State::ChunkEnd { .. }
            | State::Trailers { .. }
            | State::HeadRest { .. } => {
                self.mark(dir, mark);
                self.end_broken(dir, offset + inside, Timestamp::ZERO, true);
            }
            State::Head(scan) => self.salvage(dir, scan, true),
            State::Search | State::Fresh => {
                let len = half.take().len() as u64;
                self.http.counters.skipped_bytes_search_total += len;
            }
            State::Close | State::Start | State::Preface { .. } | State::Tunnel { .. } | State::Dead(_) => {}
        }
        if !kept {
            self.lose(dir);
            self.s.halves[d].missing = true;
        }
        self.s.halves[d].next = offset.saturating_add(len);
    }

    /// Uses what there is of an unfinished head, if its first line is there.
    fn salvage(&mut self, dir: Direction, scan: Scan, gap: bool) {
        let half = &mut self.s.halves[dir.index()];
        half.state = State::Start;
        let buf = half.take();
        if !scan.line_done {
            self.http.counters.skipped_bytes_truncated_total += buf.len() as u64;
            return;
        }
        let seen = half.place.seen;
        let end = if scan.line_09 && !gap { HeadEnd::Whole } else { HeadEnd::Cut { gap } };
        self.parse_slow(dir, &buf, end, seen);
    }

    /// A request of HTTP/0.9 has no end but its line; bytes of the response show that nothing follows.
    fn finish_http09(&mut self, response_dir: Direction) {
        let requests = response_dir.flip();
        if let State::Head(scan) = self.s.halves[requests.index()].state
            && scan.line_09
            && self.s.open.is_empty()
        {
            self.salvage(requests, scan, false);
        }
    }

    /// Tells whether the bytes are the response to a request of HTTP/0.9: a body and nothing else.
    fn begins_http09_body(&self, bytes: &[u8]) -> bool {
        let old = self.s.open.front().is_some_and(|o| o.tx.version == HttpVersion::V09 && !o.response_done);
        old && self.s.certain && !bytes.starts_with(b"HTTP/") && !b"HTTP/".starts_with(bytes)
    }

    fn begin_http09_body(&mut self, dir: Direction) {
        self.s.owner = Owner::Front;
        if let Some(open) = self.s.owner_mut() {
            open.responded = true;
        }
        self.s.halves[dir.index()].state = State::Close;
    }

    fn end(&mut self, dir: Direction, reason: EndReason) {
        let d = dir.index();
        if !self.is_request(dir) {
            self.release_held(true);
        }
        self.s.halves[d].ended = true;
        // No byte is seen here, so no time is noted.
        let (offset, seen) = (self.s.halves[d].next, Timestamp::ZERO);
        match self.s.halves[d].state {
            State::Head(scan) => self.salvage(dir, scan, false),
            State::Close if reason == EndReason::Fin => self.message_end(dir, offset, seen, true),
            State::HeadRest { .. }
            | State::Fixed { .. }
            | State::ChunkSize { .. }
            | State::ChunkData { .. }
            | State::ChunkEnd { .. }
            | State::Trailers { .. }
            | State::Close => self.end_broken(dir, offset, seen, false),
            State::Search | State::Fresh => {
                if self.ends_in_frames(dir) {
                    return;
                }
                let len = self.s.halves[d].take().len() as u64;
                self.http.counters.skipped_bytes_search_total += len;
            }
            State::Dead(Death::Left) => self.leave_rest(dir, Chunk::End { reason, seen: self.now }),
            State::Start | State::Preface { .. } | State::Tunnel { .. } | State::Dead(_) => {}
        }
        if !self.is_request(dir) {
            self.emit_finished_requests();
            self.release_tunnel(dir.flip());
            let requests = &mut self.s.halves[dir.flip().index()];
            if matches!(requests.state, State::Tunnel { .. }) {
                // Without a response to come, nobody will say that the tunnel was refused.
                requests.state = State::Tunnel { junk: true };
            }
        }
    }

    /// Tells whether `len` bytes at `place` behind a CONNECT request must wait for what the proxy said to that: their
    /// sender had it already, so the mirror has swapped them, and they may go through the tunnel.
    fn tunnel_may_be_open(&self, dir: Direction, len: usize, place: Place) -> bool {
        let [half, responses] = [&self.s.halves[dir.index()], &self.s.halves[dir.flip().index()]];
        let limits = &self.http.config.limits;
        let swapped = if half.buf.is_empty() {
            place.acked != UNKNOWN && place.acked > responses.next
        } else {
            self.now.nanos_since(half.place_of(0).seen) < limits.early_response_nanos_max
        };
        swapped
            && !responses.ended
            && half.buf.len() + len <= limits.early_response_bytes_max
            && self.s.open.back().is_some_and(|open| open.is_connect && !open.responded)
    }

    /// Tells whether `bytes` behind a CONNECT request cannot begin another.
    fn is_no_request(&self, bytes: &[u8]) -> bool {
        let line = memchr::memchr(b'\n', bytes).map_or(bytes, |e| &bytes[..=e]);
        sniff(line, line.ends_with(b"\n"), self.http.config.limits.sniff_bytes_max) == Sniff::Junk
    }

    /// Parses what was kept behind a CONNECT request: the tunnel was refused, or nobody has said in time.
    pub(super) fn release_tunnel(&mut self, dir: Direction) {
        let half = &mut self.s.halves[dir.index()];
        if half.buf.is_empty() || !matches!(half.state, State::Tunnel { .. } | State::Start) {
            return;
        }
        let (buf, marks) = half.take_marked(usize::MAX);
        if let State::Tunnel { junk } = half.state {
            let junk = junk || self.is_no_request(&buf);
            self.s.halves[dir.index()].state = if junk { State::Tunnel { junk } } else { State::Start };
        }
        self.feed_again(dir, &buf, &marks, 0);
        if self.s.halves[dir.index()].ended {
            self.end(dir, EndReason::Fin);
        }
    }

    /// Tells whether what was kept ends with frames of HTTP/2; if so, the flow goes on as that.
    fn ends_in_frames(&mut self, dir: Direction) -> bool {
        let d = dir.index();
        if self.s.kind != Kind::Unknown || !matches!(self.s.halves[d].state, State::Search) {
            return false;
        }
        let from = self.s.halves[d].place_of(0).offset;
        let buf = std::mem::take(&mut self.s.halves[d].buf);
        let (found, _) = self.s.find_frames(dir, &buf, from, true);
        self.s.halves[d].buf = buf;
        let Some(at) = found else { return false };
        self.s.halves[d].forget(at);
        self.http.counters.skipped_bytes_search_total += at as u64;
        self.leave_late(dir);
        true
    }

    /// Ends the message in progress before its framing does.
    fn end_broken(&mut self, dir: Direction, offset: u64, seen: Timestamp, gap: bool) {
        self.mark(dir, broken(self.is_request(dir), gap));
        self.message_end(dir, offset, seen, false);
    }
}

/// How a head's bytes end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadEnd {
    /// With its blank line.
    Whole,
    /// At the limit.
    TooLong(BlankLine),
    /// With the direction, or at a gap.
    Cut { gap: bool },
}

/// A chunk-size line in progress.
struct ChunkLine {
    value: u64,
    line: u32,
    step: SizeStep,
}

fn broken(request: bool, gap: bool) -> Anomaly {
    match (request, gap) {
        (true, true) => Anomaly::RequestGap,
        (true, false) => Anomaly::RequestTruncated,
        (false, true) => Anomaly::ResponseGap,
        (false, false) => Anomaly::ResponseTruncated,
    }
}

/// Adds pieces of a direction's buffer, by the numbers of their marks.
fn push_parts(rest: &mut Leftover, (dir, (buf, marks), parts): (Direction, &Marked, Range<usize>)) {
    for i in parts {
        let (from, place) = marks[i];
        let to = marks.get(i + 1).map_or(buf.len(), |(next, _)| *next);
        rest.push(dir, place.chunk(&buf[from..to]));
    }
}

fn shorter(bytes: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
}
