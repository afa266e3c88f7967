//! Streams: which heads and bodies make a transaction, and when it is finished (RFC 9113 §5, §8).
//!
//! A transaction is handed on when both of its messages have ended, when either side resets the stream, or
//! when nothing more can come. A client's reset says nothing of the answer, which may be on its way: it is awaited for
//! a moment. The stream's number pairs them, so loss costs what was lost and no more. A number that is not open is
//! either over (what comes is stale: frames that crossed a reset), or its request was lost or is still to come: which
//! of them, the highest number and the losses of the direction tell.

use offpath_types::{
    Anomaly, BodyHint, Chunk, Connection, Direction, FlowInfo, HttpVersion, Pace, RpcFacts, Span, Timestamp,
    Transaction,
};

use super::engine::{Engine, broken, has_gap};
use super::fields::Fields;
use super::session::{Block, Side, Stream};
use crate::head::{RequestHead, ResponseHead};
use crate::http1::LONG_POLL_NANOS;
use crate::kept::OPEN_SHARE;
use crate::stage::{Kind, Seen};
use crate::websocket::WebSocket;

/// How long a request waits for a response on a flow that never showed one: longer than mirrors reorder.
const ONE_SIDED_WAIT_NANOS: u64 = 200_000_000;
/// How long an answer is awaited that may have crossed the client's reset: longer than a round trip.
const CROSSING_WAIT_NANOS: u64 = 1_000_000_000;
/// Streams of a flow whose answer is awaited so. Past it: the oldest is given up.
const CROSSINGS_MAX: usize = 16;
/// Resets of unanswered requests that are forgotten a second.
const RESETS_LEAK: u64 = 10;

impl Engine<'_> {
    /// A header block was decoded, or could not be.
    pub(super) fn head(&mut self, dir: Direction, block: &Block, fields: &Fields, seen: Timestamp) {
        if self.s.requests.is_none()
            && !block.is_promise
            && let Some(request) = fields.is_request()
        {
            let requests = if request { dir } else { dir.flip() };
            self.s.requests = Some(requests);
            self.http.counters.flows_swapped_total += u64::from(requests == Direction::ToClient);
        }
        if block.is_promise {
            self.promise(dir, block, fields, seen);
        } else if self.is_request(dir) {
            self.request(dir, block, fields, seen);
        } else {
            self.response(dir, block, fields, seen);
        }
    }

    fn request(&mut self, dir: Direction, block: &Block, fields: &Fields, seen: Timestamp) {
        let id = block.stream;
        let lossy = self.half(dir).lossy;
        match self.s.streams.get_mut(&id) {
            Some(stream) if stream.request.head => {
                if stream.request.done {
                    self.http.counters.http2_heads_stale_total += 1;
                    return;
                }
                stream.tx.anomalies.extend(fields.anomalies);
                mark_trailers(&mut stream.tx, block, fields);
                stream.tx.ended = stream.tx.ended.max(seen);
                if block.end_stream {
                    self.message_end(dir, id, seen, true);
                }
                return;
            }
            Some(_) => {}
            None if (id <= self.s.highest && !lossy) || is_lost_trailer(fields, lossy) => {
                self.http.counters.http2_heads_stale_total += 1;
                return;
            }
            None => {}
        }
        self.s.highest = self.s.highest.max(id);
        self.s.asked = true;
        self.emit_one_sided();
        self.open(id, block.started, false);
        let Some(mut stream) = self.s.streams.remove(&id) else { return };
        stream.tx.started = stream.tx.started.min(block.started);
        stream.tx.ended = stream.tx.ended.max(seen);
        self.read_request(&mut stream, fields);
        stream.tx.fingerprint = match &self.s.print {
            Some(print) if fields.unresolved == 0 && !fields.is_cut => {
                print.of_request(stream.tx.fingerprint, &fields.pseudo_order)
            }
            // Another print than the one that this client has would be worse than none.
            _ => 0,
        };
        self.http.attach_tls(self.s.context.told.as_ref(), self.flow, &fields.headers(), &mut stream.tx);
        self.s.streams.insert(id, stream);
        self.count_kept(id);
        if block.end_stream {
            self.message_end(dir, id, seen, true);
        }
    }

    /// Fills a stream from a request's head.
    fn read_request(&mut self, stream: &mut Stream, fields: &Fields) {
        let tx = &mut stream.tx;
        tx.anomalies.extend(fields.anomalies);
        if fields.request_lacks() {
            tx.anomalies.insert(Anomaly::PseudoHeaderInvalid);
        }
        let headers = fields.headers();
        let (method, target) = (fields.method(), fields.target());
        // Frames tell whether there is a body, whatever the fields say.
        let head = RequestHead { method, target, version: tx.version, headers: &headers, says_empty: false };
        stream.request.tap = self.http.facts.request_head(&head, tx);
        stream.request.head = true;
        stream.request.unread = fields.anomalies.contains(Anomaly::HeaderBlockLost);
        stream.request.content_length = fields.framing.length();
        stream.is_head = method == b"HEAD";
        stream.is_connect = method == b"CONNECT";
        stream.asks_websocket = stream.is_connect && fields.is_websocket;
        if (stream.is_connect || method == b"TRACE") && fields.framing.announces_body() {
            tx.anomalies.insert(Anomaly::BodyUnexpected);
        }
        if method.is_empty() || !(fields.path_known() || stream.is_connect) {
            tx.endpoint = Span::ABSENT;
            tx.endpoint_hash = 0;
        }
        if fields.is_grpc {
            name_procedure(tx);
        }
    }

    fn response(&mut self, dir: Direction, block: &Block, fields: &Fields, seen: Timestamp) {
        let id = block.stream;
        let lossy = self.half(dir).lossy || self.half(dir.flip()).lossy;
        let over = id <= self.s.highest || id.is_multiple_of(2);
        let is_owed = !self.s.streams.contains_key(&id) && self.s.settle_owed(id);
        if !self.s.streams.contains_key(&id)
            && !is_owed
            && ((over && !lossy) || is_lost_trailer(fields, lossy))
        {
            self.http.counters.http2_heads_stale_total += 1;
            return;
        }
        self.open(id, block.started, is_owed);
        let Some(stream) = self.s.streams.get_mut(&id) else { return };
        stream.tx.anomalies.extend(fields.anomalies);
        let waited = block.started.nanos_since(stream.tx.ended);
        stream.tx.ended = stream.tx.ended.max(seen);
        if let Some(status) = fields.grpc_status {
            rpc(&mut stream.tx).status = Some(status);
        }
        let trailers = stream.response.head && !(stream.tx.status.is_none() && fields.has_status());
        let interim = matches!(fields.status, Some(100 | 102..=199));
        if trailers {
            mark_trailers(&mut stream.tx, block, fields);
        } else if interim && !block.end_stream {
            stream.tx.interim_responses = stream.tx.interim_responses.saturating_add(1);
        } else {
            if interim {
                // No answer follows.
                stream.tx.anomalies.insert(Anomaly::StatusLineInvalid);
            }
            if !fields.has_status() && fields.unresolved == 0 && !fields.is_cut {
                stream.tx.anomalies.insert(Anomaly::PseudoHeaderInvalid);
            }
            stream.response.head = true;
            stream.response.unread = fields.anomalies.contains(Anomaly::HeaderBlockLost);
            stream.response.content_length = fields.framing.length();
            if matches!(fields.status, Some(204 | 205)) && fields.framing.announces_body() {
                stream.tx.anomalies.insert(Anomaly::BodyUnexpected);
            }
            // A 101 that led here was no answer yet.
            stream.tx.status = fields.status;
            let headers = fields.headers();
            let status = fields.status.unwrap_or(0);
            let head =
                ResponseHead { version: stream.tx.version, status, headers: &headers, says_empty: false };
            let pace = match stream.request.head && stream.request.done && waited >= LONG_POLL_NANOS {
                true => Pace::Held,
                false => Pace::AtOnce,
            };
            self.http.counters.long_polls_total += u64::from(pace == Pace::Held);
            stream.tx.pace = pace;
            let tap = self.http.facts.response_head(&head, &mut stream.tx);
            self.http.facts.discard(std::mem::replace(&mut stream.response.tap, tap));
            if stream.is_head || block.end_stream {
                stream.tx.pace = pace;
            }
            if stream.is_connect && (200..300).contains(&status) {
                stream.tx.anomalies.insert(Anomaly::Tunnelled);
                if stream.asks_websocket && !block.end_stream {
                    self.http.counters.flows_websocket_total += 1;
                    stream.websocket = Some(Box::new(WebSocket::new(dir.flip(), Kind::Http2, &stream.tx, 0)));
                }
            }
        }
        let streamed = stream.tx.pace == Pace::Streamed;
        self.count_kept(id);
        if block.end_stream {
            self.message_end(dir, id, seen, true);
        } else if streamed {
            self.settle(id);
        }
    }

    /// The server promises the answer to a request that it makes up (RFC 9113 §8.4).
    fn promise(&mut self, dir: Direction, block: &Block, fields: &Fields, seen: Timestamp) {
        let Some(id) = block.promised.filter(|id| *id > 0 && id.is_multiple_of(2)) else { return };
        if self.is_request(dir) || self.s.streams.contains_key(&id) {
            self.http.counters.http2_heads_stale_total += 1;
            return;
        }
        self.http.counters.http2_pushes_total += 1;
        self.open(id, block.started, false);
        let Some(mut stream) = self.s.streams.remove(&id) else { return };
        stream.tx.ended = stream.tx.ended.max(seen);
        self.read_request(&mut stream, fields);
        self.http.facts.discard(stream.request.tap.take());
        stream.request.done = true;
        stream.request.whole = true;
        stream.tx.anomalies.insert(Anomaly::Pushed);
        // The client did not write this.
        stream.tx.fingerprint = 0;
        stream.tx.stack_contradicted = false;
        self.s.streams.insert(id, stream);
        self.count_kept(id);
    }

    /// Makes sure that stream `id` is open; `late`: for the answer to a request that was given up.
    fn open(&mut self, id: u32, started: Timestamp, late: bool) {
        if self.s.streams.contains_key(&id) {
            return;
        }
        while self.is_crowded(late) {
            let Some(oldest) = self.s.streams.first_key_value().map(|(id, _)| *id) else { break };
            self.give_up_open(oldest);
        }
        let client_side = match self.s.request_dir() {
            Direction::ToServer => self.flow.client_side,
            Direction::ToClient => self.flow.client_side.flip(),
        };
        let names = self.s.context.names(self.flow);
        let mut tx = Transaction::new(FlowInfo { client_side, ..*self.flow }, names.flow_id, 0, started);
        tx.community_id = names.community_id;
        tx.version = HttpVersion::V2;
        if let Some(client) = self.s.context.proxied.as_deref() {
            tx.client = *client;
            tx.client_forwarded = true;
        }
        self.add(id, tx, Side::default());
    }

    /// Tells whether a stream must be given up for another. A late answer has some room of its own: else each would
    /// cost another request its answer.
    fn is_crowded(&self, late: bool) -> bool {
        let open = self.s.streams.len();
        let max = self.http.config.limits.http2_streams_max.max(1);
        if late {
            return open >= max + OPEN_SHARE || self.http.is_crowded(open.min(OPEN_SHARE));
        }
        open >= max || self.http.is_crowded(open)
    }

    /// Gives up stream `id` because too many are open; its answer comes out as a half.
    fn give_up_open(&mut self, id: u32) {
        self.http.count_overflow(self.s.streams.len());
        let unanswered = self.s.streams.get(&id).is_some_and(|s| s.request.head && !s.response.head);
        if unanswered && !id.is_multiple_of(2) {
            self.s.owe(id);
        }
        self.abort(id, &[Anomaly::PipelineOverflow]);
    }

    /// Counts what stream `id` keeps by now. Past what its shard may keep: the oldest others of the flow are given up.
    fn count_kept(&mut self, id: u32) {
        let Some(stream) = self.s.streams.get_mut(&id) else { return };
        let before = std::mem::replace(&mut stream.kept, stream.tx.text.len());
        self.http.facts.kept.add(stream.kept);
        self.http.facts.kept.remove(before);
        while self.http.facts.kept.is_full(self.s.streams.len()) {
            let Some(oldest) = self.s.streams.keys().find(|other| **other != id).copied() else { break };
            self.give_up_open(oldest);
        }
    }

    /// Opens stream `id`.
    pub(super) fn add(&mut self, id: u32, mut tx: Transaction, request: Side) {
        tx.rare.get_or_insert_default().stream = Some(id);
        let kept = tx.text.len();
        self.http.facts.kept.add(kept);
        let stream = Stream {
            tx,
            kept,
            request,
            response: Side::default(),
            is_head: false,
            is_connect: false,
            asks_websocket: false,
            websocket: None,
            is_taken_back: false,
        };
        self.http.open_requests += 1;
        self.s.streams.insert(id, Box::new(stream));
    }

    /// Body bytes without their padding.
    pub(super) fn body(&mut self, dir: Direction, id: u32, bytes: &[u8], seen: Timestamp) {
        let request = self.is_request(dir);
        let counters = &mut self.http.counters;
        let Some(stream) = self.s.streams.get_mut(&id) else {
            counters.bytes_body_total += bytes.len() as u64;
            return;
        };
        match stream.websocket.as_deref_mut() {
            Some(socket) => {
                let chunk = Chunk::Data { bytes, offset: 0, peer_acked: None, seen };
                socket.chunk(dir, chunk, counters);
            }
            None => counters.bytes_body_total += bytes.len() as u64,
        }
        let (side, tx) = stream.side(request);
        if side.done {
            return;
        }
        count(tx, request, bytes.len() as u64);
        tx.ended = tx.ended.max(seen);
        if let Some(tap) = side.tap.as_deref_mut() {
            self.http.facts.body(tap, bytes);
        }
    }

    /// Missing body bytes of which the length is known.
    pub(super) fn body_gap(&mut self, dir: Direction, id: u32, len: u64) {
        let request = self.is_request(dir);
        let seen = self.now;
        let counters = &mut self.http.counters;
        let Some(stream) = self.s.streams.get_mut(&id) else {
            counters.gap_bytes_body_total += len;
            return;
        };
        match stream.websocket.as_deref_mut() {
            Some(socket) => socket.chunk(dir, Chunk::Gap { len, offset: 0, seen }, counters),
            None => counters.gap_bytes_body_total += len,
        }
        let (side, tx) = stream.side(request);
        if side.done {
            return;
        }
        count(tx, request, len);
        tx.anomalies.insert(broken(request, true));
        if let Some(tap) = side.tap.as_deref_mut() {
            self.http.facts.body_gap(tap);
        }
    }

    /// Ends the message of `dir` on stream `id`; `seen` is when its last byte was seen, zero where it was not.
    pub(super) fn message_end(&mut self, dir: Direction, id: u32, seen: Timestamp, whole: bool) {
        let request = self.is_request(dir);
        let Some(stream) = self.s.streams.get_mut(&id) else { return };
        if stream.side(request).0.done {
            return;
        }
        let bodyless = !request && (stream.is_head || matches!(stream.tx.status, Some(204 | 304)));
        let (side, tx) = stream.side(request);
        side.done = true;
        tx.ended = tx.ended.max(seen);
        let read = side.head && !side.unread && (request || tx.status.is_some());
        side.whole = whole && read && !side.cut && !has_gap(tx.anomalies, request);
        if !side.head && !request {
            tx.anomalies.insert(Anomaly::ResponseGap);
        }
        let bytes = if request { tx.request_body_bytes } else { tx.response_body_bytes };
        if side.whole && !bodyless && side.content_length.is_some_and(|n| n != bytes) {
            // A gateway to HTTP/1 that passes both on is open to smuggling.
            tx.anomalies.insert(Anomaly::ContentLengthConflict);
        }
        if bodyless && bytes > 0 {
            tx.anomalies.insert(Anomaly::BodyUnexpected);
        }
        if let Some(tap) = side.tap.take() {
            if request {
                self.http.facts.request_body_end(tap, tx);
            } else {
                self.http.facts.response_body_end(tap, tx);
            }
        }
        self.settle(id);
    }

    /// Emits stream `id` if nothing more can come of it.
    fn settle(&mut self, id: u32) {
        let requests = self.s.request_dir();
        let (lossy, responses_ended) = (self.half(requests).lossy, self.half(requests.flip()).ended);
        let Some(stream) = self.s.streams.get_mut(&id) else { return };
        let (request, response) = (&stream.request, &mut stream.response);
        let unasked = !request.head && (lossy || id <= self.s.highest);
        let asked = request.done || request.cut || unasked;
        if asked && !response.done && stream.tx.pace == Pace::Streamed {
            // An event stream may go on for hours, and nothing of it is looked into: its transaction ends with its head.
            response.done = true;
            let read = !response.unread && stream.tx.status.is_some();
            response.whole = read && !response.cut && !has_gap(stream.tx.anomalies, false);
            self.http.counters.event_streams_total += 1;
        }
        if response.done && asked || request.done && responses_ended {
            self.abort(id, &[]);
        }
    }

    /// RST_STREAM.
    pub(super) fn reset(&mut self, dir: Direction, id: u32, seen: Timestamp) {
        let by_client = self.is_request(dir);
        let responses_ended = self.half(self.s.request_dir().flip()).ended;
        let Some(stream) = self.s.streams.get_mut(&id) else { return };
        if by_client && stream.is_taken_back {
            return;
        }
        stream.tx.ended = stream.tx.ended.max(seen);
        self.http.counters.http2_streams_reset_total += 1;
        let unanswered = by_client && !stream.response.head && !id.is_multiple_of(2);
        let max = self.http.config.limits.http2_resets_max;
        if unanswered && self.s.resets.add(seen, RESETS_LEAK, max) {
            self.http.counters.http2_rapid_resets_total += 1;
            return self.abort(id, &[Anomaly::StreamReset, Anomaly::RapidReset]);
        }
        if !(unanswered && stream.request.done) || responses_ended {
            return self.abort(id, &[Anomaly::StreamReset]);
        }
        stream.is_taken_back = true;
        stream.tx.anomalies.insert(Anomaly::StreamReset);
        self.s.crossings.push_back((id, seen));
        if self.s.crossings.len() > CROSSINGS_MAX {
            self.give_up_crossing();
        }
    }

    /// Emits the streams that the client reset and whose answer has been awaited long enough.
    pub(super) fn emit_crossings(&mut self) {
        while let Some((_, reset)) = self.s.crossings.front()
            && self.now.nanos_since(*reset) >= CROSSING_WAIT_NANOS
        {
            self.give_up_crossing();
        }
    }

    /// Emits the oldest stream that the client reset, unless that has happened.
    fn give_up_crossing(&mut self) {
        let Some((id, _)) = self.s.crossings.pop_front() else { return };
        if self.s.streams.get(&id).is_some_and(|stream| stream.is_taken_back) {
            self.abort(id, &[]);
        }
    }

    /// Frames of `dir` were lost: any message in progress may lack some, its end among them.
    pub(super) fn cut_open(&mut self, dir: Direction) {
        let request = self.is_request(dir);
        let mut answered = Vec::new();
        for (id, stream) in &mut self.s.streams {
            let done = stream.side(request).0.done;
            if let Some(socket) = stream.websocket.as_deref_mut().filter(|_| !done) {
                socket.lose(dir, &mut self.http.counters);
            }
            let (side, tx) = stream.side(request);
            if side.head && !side.done {
                side.cut = true;
                tx.anomalies.insert(broken(request, true));
                if let Some(tap) = side.tap.as_deref_mut() {
                    self.http.facts.body_gap(tap);
                }
                if request && (stream.response.done || stream.tx.pace == Pace::Streamed) {
                    answered.push(*id);
                }
            }
        }
        answered.into_iter().for_each(|id| self.settle(id));
    }

    /// No more requests come: those that are unfinished end here.
    pub(super) fn end_requests(&mut self) {
        let dir = self.s.request_dir();
        let open: Vec<u32> = self
            .s
            .streams
            .iter()
            .filter(|(_, s)| s.request.head && !s.request.done)
            .map(|(id, _)| *id)
            .collect();
        for id in open {
            if let Some(stream) = self.s.streams.get_mut(&id)
                && !stream.request.cut
            {
                stream.tx.anomalies.insert(Anomaly::RequestTruncated);
            }
            self.message_end(dir, id, Timestamp::ZERO, false);
        }
        let answered: Vec<u32> =
            self.s.streams.iter().filter(|(_, s)| s.response.done).map(|(id, _)| *id).collect();
        answered.into_iter().for_each(|id| self.abort(id, &[]));
    }

    /// Nothing more comes: everything that is open is emitted.
    pub(super) fn emit_all(&mut self) {
        while let Some(id) = self.s.streams.first_key_value().map(|(id, _)| *id) {
            self.abort(id, &[]);
        }
    }

    /// On a flow of which only the requests are captured: emits what has waited long enough.
    fn emit_one_sided(&mut self) {
        if self.half(self.s.request_dir().flip()).touched {
            return;
        }
        while let Some((id, stream)) = self.s.streams.first_key_value()
            && stream.request.done
            && self.now.nanos_since(stream.tx.ended) >= ONE_SIDED_WAIT_NANOS
        {
            let id = *id;
            self.abort(id, &[]);
        }
    }

    /// Emits stream `id` as it is.
    fn abort(&mut self, id: u32, anomalies: &[Anomaly]) {
        let Some(mut stream) = self.s.streams.remove(&id) else { return };
        self.http.open_requests -= 1;
        self.http.facts.kept.remove(stream.kept);
        anomalies.iter().for_each(|a| stream.tx.anomalies.insert(*a));
        for request in [true, false] {
            let (side, tx) = stream.side(request);
            if side.head && !side.done {
                side.whole = false;
                if !side.cut {
                    tx.anomalies.insert(broken(request, false));
                }
            }
            match side.tap.take() {
                Some(tap) if request => self.http.facts.request_body_end(tap, tx),
                Some(tap) => self.http.facts.response_body_end(tap, tx),
                None => {}
            }
        }
        let Stream { mut tx, request, response, websocket, .. } = *stream;
        tx.complete = request.whole && response.whole;
        judge_rpc(&mut tx);
        let upgraded = tx.status == Some(101);
        let seen = if !request.head { Seen::Response } else { Seen::of_request(response.head || upgraded) };
        if let Some(mut socket) = websocket {
            self.http.counters.websockets_ended_total += 1;
            socket.opened_as(self.s.context.emitted);
            self.http.connections().push(Connection::WebSocket(Box::new(socket.close(self.now))));
        }
        self.http.emit(&mut self.s.context, self.flow, self.now, tx, seen, self.out);
    }
}

impl Stream {
    /// Returns one of its messages, and the transaction.
    fn side(&mut self, request: bool) -> (&mut Side, &mut Transaction) {
        (if request { &mut self.request } else { &mut self.response }, &mut self.tx)
    }
}

/// Tells whether a head on a stream that nobody opened is a trailer of a message whose head was lost.
fn is_lost_trailer(fields: &Fields, lossy: bool) -> bool {
    lossy && fields.is_request().is_none() && fields.unresolved == 0 && !fields.is_cut
}

/// Marks a second head that trailers cannot be: a response within the response, for one.
fn mark_trailers(tx: &mut Transaction, block: &Block, fields: &Fields) {
    if fields.has_pseudo() {
        tx.anomalies.insert(Anomaly::PseudoHeaderInvalid);
    }
    if !block.end_stream {
        tx.anomalies.insert(Anomaly::TrailersInvalid);
    }
}

fn count(tx: &mut Transaction, request: bool, len: u64) {
    let total = if request { &mut tx.request_body_bytes } else { &mut tx.response_body_bytes };
    *total = total.saturating_add(len);
}

fn rpc(tx: &mut Transaction) -> &mut RpcFacts {
    tx.rare.get_or_insert_default().rpc.get_or_insert_default()
}

/// Takes service and method from the path of a gRPC call: `/package.Service/Method`.
fn name_procedure(tx: &mut Transaction) {
    let path = tx.text.get(tx.path).strip_prefix(b"/").unwrap_or_default();
    let cut = memchr::memrchr(b'/', path);
    let (service, method) = match cut {
        Some(at) => (path[..at].to_vec(), path[at + 1..].to_vec()),
        None => (Vec::new(), path.to_vec()),
    };
    let [service, method] = [service, method].map(|name| match &name[..] {
        [] => Span::ABSENT,
        name => tx.text.push(name),
    });
    let rpc = rpc(tx);
    (rpc.service, rpc.method) = (service, method);
}

/// A gRPC call fails under the status 200: what its own status says of a login.
fn judge_rpc(tx: &mut Transaction) {
    let Some(status) = tx.rare.as_ref().and_then(|r| r.rpc).and_then(|r| r.status) else { return };
    let login = tx.login.password.is_some() || tx.login.path_looks_like_login;
    if login && tx.login.body_hint == BodyHint::None {
        tx.login.body_hint = match status {
            0 => BodyHint::Success,
            // INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION, UNAUTHENTICATED: the caller's
            // fault. The others are the server's or the network's.
            3 | 5 | 7 | 9 | 16 => BodyHint::Failure,
            _ => BodyHint::None,
        };
    }
}
