//! Takes chunks through the frames of a connection.
//!
//! Every byte is taken by one state and counted there. Read RFC 9113 §4 to §6 before changing this file.

use std::collections::VecDeque;

use offpath_types::{Anomalies, Anomaly, Chunk, Direction, FlowInfo, Timestamp, Transaction};

use super::find::FrameFinder;
use super::frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, HEADER_BYTES, HEADER_TABLE_SIZE, HEADERS,
    PADDED, PING, PREFACE, PRIORITY, PRIORITY_FLAG, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use super::hpack::Decoder;
use super::session::{Block, Half, Session, State, TRIAL_FRAMES, hpack_limits};
use crate::facts::ClientPrint;
use crate::stage::Http;

/// SETTINGS frames that are looked at; there are nine settings.
const SETTINGS_BYTES_MAX: u32 = 6 << 10;

/// Bytes that a search takes at a time. What is found is read again from there, and may be lost again a few bytes on:
/// so this bounds what is copied for that, and how deep it nests.
const FIND_BYTES: usize = 512;

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
        let before = self.s.held_bytes();
        self.half(dir).touched = true;
        self.emit_crossings();
        match chunk {
            Chunk::Data { bytes, offset, seen, peer_acked } => {
                // A mirror swapped the directions, or has only one of them: SETTINGS that the sender read may be unseen.
                let other = &self.s.halves[dir.flip().index()];
                let unheard = !other.touched || peer_acked.is_some_and(|acked| acked > other.next);
                let half = self.half(dir);
                half.decoder.unheard = unheard;
                half.next = offset;
                self.data(dir, bytes, seen);
            }
            Chunk::Gap { len, offset, .. } => self.gap(dir, len, offset),
            Chunk::End { .. } => self.end(dir),
        }
        let after = self.s.held_bytes();
        self.http.held_bytes = (self.http.held_bytes + after).saturating_sub(before);
        if after > before && self.http.holds_too_much() {
            self.shed();
        }
    }

    /// Ends both directions and emits what is open.
    pub(super) fn close(&mut self) {
        let before = self.s.held_bytes();
        let requests = self.s.request_dir();
        for dir in [requests, requests.flip()] {
            if !self.s.halves[dir.index()].ended {
                self.end(dir);
            }
        }
        self.emit_all();
        self.http.held_bytes = self.http.held_bytes.saturating_sub(before);
    }

    pub(super) fn is_request(&self, dir: Direction) -> bool {
        dir == self.s.request_dir()
    }

    pub(super) fn half(&mut self, dir: Direction) -> &mut Half {
        &mut self.s.halves[dir.index()]
    }

    fn data(&mut self, dir: Direction, mut bytes: &[u8], seen: Timestamp) {
        while !bytes.is_empty() {
            let used = self.step(dir, bytes, seen);
            self.half(dir).next += used as u64;
            bytes = &bytes[used..];
        }
    }

    /// Lets the direction's state take some of `bytes`; returns how many. 0 only with a change of state.
    fn step(&mut self, dir: Direction, bytes: &[u8], seen: Timestamp) -> usize {
        let half = &mut self.s.halves[dir.index()];
        half.seen = seen;
        match half.state {
            State::Header => {
                let had = half.buf.len();
                if had == 0 {
                    half.frame_seen = seen;
                    if let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
                        let frame = Frame::parse(header);
                        if self.is_late(dir, frame) {
                            let at = self.half(dir).next;
                            self.search_late(dir, at);
                            return 0;
                        }
                        self.begin_frame(dir, frame);
                        return HEADER_BYTES;
                    }
                }
                let n = bytes.len().min(HEADER_BYTES - had);
                half.buf.extend_from_slice(&bytes[..n]);
                if let Some(header) = half.buf.first_chunk::<HEADER_BYTES>().copied() {
                    half.buf.clear();
                    let frame = Frame::parse(&header);
                    if self.is_late(dir, frame) {
                        let half = self.half(dir);
                        let (at, began) = (half.next - had as u64, half.frame_seen);
                        self.search_late(dir, at);
                        self.find(dir, &header[..had], began, false);
                        return 0;
                    }
                    self.begin_frame(dir, frame);
                }
                n
            }
            State::Payload { frame } => {
                let had = half.buf.len();
                let n = bytes.len().min(frame.len as usize - had);
                if had == 0 && n == frame.len as usize {
                    half.state = State::Header;
                    self.payload(dir, frame, &bytes[..n], seen);
                    return n;
                }
                half.buf.extend_from_slice(&bytes[..n]);
                if half.buf.len() == frame.len as usize {
                    let buf = std::mem::take(&mut half.buf);
                    half.state = State::Header;
                    self.payload(dir, frame, &buf, seen);
                }
                n
            }
            State::Data { stream, left, pad, end } => {
                let (n, pad) = match pad {
                    None => {
                        let pad = u32::from(bytes[0]);
                        if pad >= left {
                            self.http.counters.http2_frames_invalid_total += 1;
                        }
                        self.http.counters.bytes_framing_total += 1;
                        (1, pad.min(left - 1))
                    }
                    Some(pad) if left > pad => {
                        let n = bytes.len().min((left - pad) as usize);
                        self.body(dir, stream, &bytes[..n], seen);
                        (n, pad)
                    }
                    Some(pad) => {
                        let n = bytes.len().min(left as usize);
                        self.http.counters.bytes_framing_total += n as u64;
                        (n, pad)
                    }
                };
                let left = left - n as u32;
                if left > 0 {
                    self.half(dir).state = State::Data { stream, left, pad: Some(pad), end };
                } else {
                    self.data_end(dir, stream, end, seen);
                }
                n
            }
            State::Skip { left } => {
                let n = bytes.len().min(left as usize);
                self.http.counters.bytes_framing_total += n as u64;
                half.state = skip(left - n as u32);
                n
            }
            State::Preface => {
                let had = half.buf.len();
                let n = bytes.len().min(PREFACE.len() - had);
                if PREFACE[had..had + n] != bytes[..n] {
                    self.give_up();
                    return 0;
                }
                half.buf.extend_from_slice(&bytes[..n]);
                if half.buf.len() == PREFACE.len() {
                    half.buf = Vec::new();
                    half.state = State::Header;
                    self.s.is_http2 = true;
                    self.http.counters.bytes_framing_total += PREFACE.len() as u64;
                }
                n
            }
            State::Find { .. } => {
                let n = bytes.len().min(FIND_BYTES);
                self.find(dir, &bytes[..n], seen, false);
                n
            }
            State::Dead => {
                self.http.pass(self.s.context.inside(), bytes.len());
                bytes.len()
            }
        }
    }

    /// Tells whether the first frame of a server shows that earlier ones were missed: those of a connection that was an
    /// HTTP/1 one when it began, of which the client's preface was seen and not the answer to its upgrade.
    fn is_late(&self, dir: Direction, frame: Frame) -> bool {
        let half = &self.s.halves[dir.index()];
        !self.s.is_http2 && half.trial == TRIAL_FRAMES && frame.kind != SETTINGS
    }

    /// A direction that seemed to begin at offset `at` is in the middle.
    fn search_late(&mut self, dir: Direction, at: u64) {
        let hpack = hpack_limits(&self.http.config.limits);
        let half = self.half(dir);
        half.decoder = Decoder::midstream(hpack);
        half.lossy = true;
        half.trial = 0;
        half.state = State::find(FrameFinder::known(at), at);
    }

    fn begin_frame(&mut self, dir: Direction, frame: Frame) {
        let requests = self.is_request(dir);
        self.http.counters.bytes_framing_total += HEADER_BYTES as u64;
        self.http.counters.http2_frames_total += 1;
        let half = &mut self.s.halves[dir.index()];
        if half.trial > 0 {
            half.trial -= 1;
            if !frame.is_plausible() {
                let at = half.next + HEADER_BYTES as u64;
                return self.lose(dir, FrameFinder::known_anywhere(at), at);
            }
        }
        if !self.s.is_http2 {
            if frame.kind != SETTINGS || !frame.is_valid() {
                return self.give_up();
            }
            self.s.is_http2 = true;
        }
        half.state = skip(frame.len);
        let follows = match &half.block {
            Some(block) => frame.kind == CONTINUATION && frame.stream == block.stream,
            None => frame.kind != CONTINUATION,
        };
        if !follows || !frame.is_valid() {
            self.http.counters.http2_frames_invalid_total += 1;
            if !follows {
                // The receiver would hang up. Whatever that block was, the table is not what it was.
                self.block_lost(dir);
            }
            return;
        }
        match frame.kind {
            DATA => self.begin_data(dir, frame),
            HEADERS | PUSH_PROMISE | CONTINUATION => self.begin_fragment(dir, frame),
            SETTINGS if frame.has(ACK) => {}
            SETTINGS => {
                self.useless(dir);
                if frame.len > SETTINGS_BYTES_MAX {
                    self.half(dir.flip()).decoder.allow(u32::MAX);
                } else {
                    self.begin_payload(dir, frame);
                }
            }
            RST_STREAM => self.begin_payload(dir, frame),
            WINDOW_UPDATE | PRIORITY => {
                let first = requests && !self.s.asked;
                if frame.kind == PRIORITY {
                    self.useless(dir);
                }
                if first && (frame.kind == PRIORITY || frame.stream == 0) {
                    self.begin_payload(dir, frame);
                }
            }
            PING if frame.has(ACK) => {}
            _ => self.useless(dir),
        }
    }

    fn begin_payload(&mut self, dir: Direction, frame: Frame) {
        if frame.len == 0 {
            let seen = self.half(dir).seen;
            self.payload(dir, frame, &[], seen);
        } else {
            self.half(dir).state = State::Payload { frame };
        }
    }

    fn begin_data(&mut self, dir: Direction, frame: Frame) {
        let end = frame.has(END_STREAM);
        if frame.len > 0 {
            let pad = (!frame.has(PADDED)).then_some(0);
            self.half(dir).state = State::Data { stream: frame.stream, left: frame.len, pad, end };
        } else {
            if !end {
                self.useless(dir);
            }
            let seen = self.half(dir).seen;
            self.data_end(dir, frame.stream, end, seen);
        }
    }

    fn data_end(&mut self, dir: Direction, stream: u32, end: bool, seen: Timestamp) {
        self.half(dir).state = State::Header;
        if end {
            self.message_end(dir, stream, seen, true);
        }
    }

    /// A frame of a header block begins.
    fn begin_fragment(&mut self, dir: Direction, frame: Frame) {
        let limits = &self.http.config.limits;
        let (bytes_max, frames_max) = (limits.http2_block_bytes_max, limits.http2_block_frames_max);
        let half = &mut self.s.halves[dir.index()];
        let started = half.frame_seen;
        let block = half.block.get_or_insert(Block {
            stream: frame.stream,
            promised: None,
            end_stream: frame.kind == HEADERS && frame.has(END_STREAM),
            is_promise: frame.kind == PUSH_PROMISE,
            started,
            frames: 0,
            broken: false,
        });
        block.frames += 1;
        block.broken |= half.fragments.len() + frame.len as usize > bytes_max || block.frames > frames_max;
        if block.broken {
            self.http.counters.bytes_framing_total += half.fragments.len() as u64;
            half.fragments = Vec::new();
            if frame.has(END_HEADERS) {
                self.block_lost(dir);
            }
            return;
        }
        if frame.len == 0 && frame.kind == CONTINUATION {
            self.useless(dir);
        }
        self.begin_payload(dir, frame);
    }

    /// A payload is there as a whole.
    fn payload(&mut self, dir: Direction, frame: Frame, bytes: &[u8], seen: Timestamp) {
        if matches!(frame.kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
            return self.fragment(dir, frame, bytes, seen);
        }
        self.http.counters.bytes_framing_total += bytes.len() as u64;
        let first = self.is_request(dir) && !self.s.asked;
        match frame.kind {
            SETTINGS => {
                for setting in bytes.as_chunks::<6>().0 {
                    let [a, b, v @ ..] = *setting;
                    if u16::from_be_bytes([a, b]) == HEADER_TABLE_SIZE {
                        self.half(dir.flip()).decoder.allow(u32::from_be_bytes(v));
                    }
                }
                if let Some(print) = self.s.print.as_mut().filter(|_| first) {
                    print.settings(bytes);
                }
            }
            RST_STREAM => self.reset(dir, frame.stream, seen),
            _ => {
                if let Some(print) = self.s.print.as_mut().filter(|_| first) {
                    print.frame(frame.stream, bytes);
                }
            }
        }
    }

    /// A frame of a header block is there as a whole.
    fn fragment(&mut self, dir: Direction, frame: Frame, payload: &[u8], seen: Timestamp) {
        let (mut bytes, mut padding) = (payload, 0);
        let mut promised = None;
        if frame.kind != CONTINUATION
            && frame.has(PADDED)
            && let Some((pad, rest)) = bytes.split_first()
        {
            (padding, bytes) = (usize::from(*pad), rest);
        }
        if frame.kind == HEADERS && frame.has(PRIORITY_FLAG) {
            bytes = bytes.get(5..).unwrap_or_default();
        }
        if frame.kind == PUSH_PROMISE
            && let Some((id, rest)) = bytes.split_first_chunk::<4>()
        {
            (promised, bytes) = (Some(u32::from_be_bytes(*id) & 0x7fff_ffff), rest);
        }
        let whole = bytes.len().checked_sub(padding).map(|len| &bytes[..len]);
        let half = &mut self.s.halves[dir.index()];
        let Some(block) = half.block.as_mut() else { return };
        block.promised = block.promised.or(promised);
        let Some(fragment) = whole else {
            self.http.counters.http2_frames_invalid_total += 1;
            self.http.counters.bytes_framing_total += payload.len() as u64;
            block.broken = true;
            if frame.has(END_HEADERS) {
                self.block_lost(dir);
            }
            return;
        };
        self.http.counters.bytes_framing_total += (payload.len() - fragment.len()) as u64;
        if !frame.has(END_HEADERS) {
            half.fragments.extend_from_slice(fragment);
            return;
        }
        let Some(block) = half.block.take() else { return };
        if half.fragments.is_empty() {
            return self.block_done(dir, &block, fragment, seen);
        }
        let mut bytes = std::mem::take(&mut half.fragments);
        bytes.extend_from_slice(fragment);
        self.block_done(dir, &block, &bytes, seen);
    }

    /// A header block is there as a whole.
    fn block_done(&mut self, dir: Direction, block: &Block, bytes: &[u8], seen: Timestamp) {
        let counters = &mut self.http.counters;
        counters.bytes_head_total += bytes.len() as u64;
        let mut fields = std::mem::take(&mut self.http.fields);
        fields.clear();
        let headers_max = self.http.config.limits.headers_max;
        let facts = &self.http.facts;
        let decoder = &mut self.s.halves[dir.index()].decoder;
        let decoded = decoder.block(bytes, |name, value, _| {
            fields.push(name, value, headers_max, |name| facts.keeps_past_limit(name));
        });
        fields.end();
        let half = &mut self.s.halves[dir.index()];
        fields.anomalies.extend(std::mem::take(&mut half.pending));
        match decoded {
            Ok(outcome) => {
                counters.http2_blocks_total += 1;
                counters.http2_fields_unresolved_total += u64::from(outcome.fields_unknown);
                counters.http2_fields_over_limit_total += u64::from(outcome.fields_over);
                fields.is_cut = outcome.fields_over > 0;
                if fields.is_cut {
                    fields.anomalies.insert(Anomaly::HeadTooLong);
                }
            }
            Err(_) => {
                counters.http2_blocks_lost_total += 1;
                fields.is_cut = true;
                fields.anomalies.insert(Anomaly::HeaderBlockLost);
            }
        }
        if fields.unresolved > 0 {
            fields.anomalies.insert(Anomaly::HeaderUnresolved);
        }
        self.head(dir, block, &fields, seen);
        self.http.fields = fields;
    }

    /// The header block in progress cannot be decoded, nor can what refers to it.
    fn block_lost(&mut self, dir: Direction) {
        let half = &mut self.s.halves[dir.index()];
        half.decoder.lose();
        let fragments = std::mem::take(&mut half.fragments).len();
        let (block, seen) = (half.block.take(), half.seen);
        self.http.counters.bytes_framing_total += fragments as u64;
        self.http.counters.http2_blocks_lost_total += 1;
        let Some(block) = block else { return };
        let mut fields = std::mem::take(&mut self.http.fields);
        fields.clear();
        fields.is_cut = true;
        fields.anomalies.insert(Anomaly::HeaderBlockLost);
        fields.anomalies.extend(std::mem::take(&mut self.half(dir).pending));
        self.head(dir, &block, &fields, seen);
        self.http.fields = fields;
    }

    /// A frame that carries nothing has begun.
    fn useless(&mut self, dir: Direction) {
        let max = self.http.config.limits.http2_useless_max;
        let half = &mut self.s.halves[dir.index()];
        if half.useless.add(half.seen, 100, max) {
            self.http.counters.http2_frames_flood_total += 1;
            match self.s.streams.last_entry() {
                Some(mut stream) => stream.get_mut().tx.anomalies.insert(Anomaly::FrameFlood),
                None => half.pending.insert(Anomaly::FrameFlood),
            }
        }
    }

    /// Looks for frames that end exactly where the bytes do: at a gap, or at the end.
    fn end_search(&mut self, dir: Direction) {
        if matches!(self.s.halves[dir.index()].state, State::Find { .. }) {
            let seen = self.half(dir).seen;
            self.find(dir, &[], seen, true);
        }
    }

    /// Looks for a frame among what was kept and `bytes`.
    fn find(&mut self, dir: Direction, bytes: &[u8], seen: Timestamp, last: bool) {
        let half = &mut self.s.halves[dir.index()];
        let State::Find { finder, from, marks } = &mut half.state else { return };
        marks.add(*from + half.buf.len() as u64, seen);
        half.buf.extend_from_slice(bytes);
        let found = finder.find(&half.buf, *from, last);
        let keep = found.unwrap_or_else(|| finder.keep_from());
        let drop = usize::try_from(keep - *from).unwrap_or(usize::MAX).min(half.buf.len());
        let Some(start) = found else {
            if drop > half.buf.len() / 2 {
                half.buf.drain(..drop);
                *from += drop as u64;
                self.http.counters.skipped_bytes_search_total += drop as u64;
            }
            return;
        };
        self.http.counters.skipped_bytes_search_total += drop as u64;
        self.http.counters.resyncs_total += 1;
        let marks = std::mem::take(marks);
        let buf = std::mem::take(&mut half.buf);
        let after = half.next;
        half.next = start;
        half.trial = TRIAL_FRAMES;
        self.s.is_http2 = true;
        half.state = State::Header;
        if buf[drop..].starts_with(PREFACE) {
            // Not so late after all.
            half.state = State::Preface;
            half.decoder = Decoder::new(hpack_limits(&self.http.config.limits));
            half.lossy = false;
            self.s.requests = Some(dir);
            self.s.print = Some(ClientPrint::default());
        }
        for (part, seen) in marks.parts(&buf[drop..], start) {
            self.data(dir, part, seen);
        }
        self.half(dir).next = after;
    }

    /// The place in the stream is lost; what comes next, at offset `at`, is for `finder` to search.
    fn lose(&mut self, dir: Direction, finder: Box<FrameFinder>, at: u64) {
        let half = &mut self.s.halves[dir.index()];
        let dropped = half.drop_uncounted() as u64;
        if matches!(half.state, State::Find { .. }) {
            self.http.counters.skipped_bytes_search_total += dropped;
        } else {
            self.http.counters.skipped_bytes_truncated_total += dropped;
        }
        half.block = None;
        half.decoder.lose();
        half.lossy = true;
        half.trial = 0;
        half.state = State::find(finder, at);
        // SETTINGS may be among what was lost.
        self.half(dir.flip()).decoder.allow(u32::MAX);
        self.print_lost(dir);
        self.cut_open(dir);
    }

    /// What the client says of its stack before its first request has a hole, if this is before it.
    fn print_lost(&mut self, dir: Direction) {
        if self.is_request(dir) && !self.s.asked {
            self.s.print = None;
        }
    }

    /// Not HTTP/2 after all.
    fn give_up(&mut self) {
        let inside = self.s.context.inside();
        for half in &mut self.s.halves {
            let dropped = half.drop_uncounted();
            self.http.pass(inside, dropped);
            half.block = None;
            half.state = State::Dead;
        }
        self.s.is_http2 = false;
        self.emit_all();
    }

    /// Drops what this session holds, because the worker holds too much.
    fn shed(&mut self) {
        let before = self.s.held_bytes();
        self.s.owed = VecDeque::new();
        for dir in [Direction::ToServer, Direction::ToClient] {
            let half = &mut self.s.halves[dir.index()];
            let dropped = half.drop_uncounted();
            let (next, dead) = (half.next, matches!(half.state, State::Dead));
            self.http.counters.skipped_bytes_held_full_total += dropped as u64;
            if dropped > 0 && !dead {
                self.lose(dir, FrameFinder::known(next), next);
            } else {
                self.half(dir).decoder.lose();
            }
        }
        self.http.held_bytes = (self.http.held_bytes + self.s.held_bytes()).saturating_sub(before);
    }

    /// Bytes that the capture never saw.
    fn gap(&mut self, dir: Direction, len: u64, offset: u64) {
        self.end_search(dir);
        let after = offset.saturating_add(len);
        let mark = broken(self.is_request(dir), true);
        let half = &mut self.s.halves[dir.index()];
        half.next = after;
        let counters = &mut self.http.counters;
        match half.state {
            State::Dead => counters.gap_bytes_ignored_total += len,
            State::Data { stream, left, pad, end } => {
                let pad = pad.unwrap_or(0);
                let inside = len.min(u64::from(left));
                let body = inside.min(u64::from(left - pad));
                counters.gap_bytes_body_total += inside - body;
                counters.gap_bytes_lost_total += len - inside;
                self.body_gap(dir, stream, body);
                if len > u64::from(left) {
                    if end {
                        // Its end is among what is missing, and certain.
                        self.message_end(dir, stream, Timestamp::ZERO, true);
                    }
                    return self.lose(dir, FrameFinder::known(after), after);
                }
                let left = left - inside as u32;
                if left > 0 {
                    self.half(dir).state = State::Data { stream, left, pad: Some(pad.min(left)), end };
                } else {
                    self.data_end(dir, stream, end, Timestamp::ZERO);
                }
            }
            State::Skip { left } if len <= u64::from(left) => {
                counters.gap_bytes_lost_total += len;
                half.state = skip(left - len as u32);
            }
            State::Payload { frame } if len <= u64::from(frame.len) - half.buf.len() as u64 => {
                counters.gap_bytes_lost_total += len;
                counters.skipped_bytes_truncated_total += half.buf.len() as u64;
                half.state = skip(frame.len - half.buf.len() as u32 - len as u32);
                half.buf = Vec::new();
                match frame.kind {
                    HEADERS | PUSH_PROMISE | CONTINUATION => {
                        if let Some(block) = half.block.as_mut() {
                            block.broken = true;
                            half.pending.insert(mark);
                        }
                        if frame.has(END_HEADERS) {
                            self.block_lost(dir);
                        }
                    }
                    SETTINGS => {
                        self.half(dir.flip()).decoder.allow(u32::MAX);
                        self.print_lost(dir);
                    }
                    _ => self.print_lost(dir),
                }
            }
            _ => {
                counters.gap_bytes_lost_total += len;
                self.lose(dir, FrameFinder::known(after), after);
            }
        }
    }

    fn end(&mut self, dir: Direction) {
        self.end_search(dir);
        let half = &mut self.s.halves[dir.index()];
        half.ended = true;
        let dropped = half.drop_uncounted() as u64;
        half.block = None;
        match half.state {
            State::Dead => {}
            State::Find { .. } => self.http.counters.skipped_bytes_search_total += dropped,
            _ => {
                self.http.counters.skipped_bytes_truncated_total += dropped;
                half.state = State::Header;
            }
        }
        if let State::Find { from, .. } = &mut half.state {
            *from += dropped;
        }
        if self.is_request(dir) {
            self.end_requests();
        } else {
            self.emit_all();
        }
    }
}

/// The state that passes over `left` bytes.
fn skip(left: u32) -> State {
    if left == 0 { State::Header } else { State::Skip { left } }
}

pub(super) fn broken(request: bool, gap: bool) -> Anomaly {
    match (request, gap) {
        (true, true) => Anomaly::RequestGap,
        (true, false) => Anomaly::RequestTruncated,
        (false, true) => Anomaly::ResponseGap,
        (false, false) => Anomaly::ResponseTruncated,
    }
}

/// Tells whether `set` says that bytes of the message were missed.
pub(super) fn has_gap(set: Anomalies, request: bool) -> bool {
    set.contains(broken(request, true))
}
