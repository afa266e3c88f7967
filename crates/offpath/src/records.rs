//! Transactions and decisions as JSON lines: the serialisable twins of the plain types.
//!
//! A transaction record is written in two steps, because they happen in two threads: the *head* (everything that is
//! known when the transaction is complete) by the worker, the *tail* (confidence, signals, login outcome) by scoring.

use std::ops::Range;

use offpath_types::{
    EntityKind, Envelope, Host, HttpVersion, Pace, RareFacts, Span, Transaction, Transport, Verdict,
};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::args::Format;
use crate::connections::{push_tls, push_tls_eve};
use crate::timefmt::TimeFormat;

/// Writes transaction records in one format.
#[derive(Debug)]
pub(crate) struct RecordWriter {
    format: Format,
    time: TimeFormat,
}

impl RecordWriter {
    /// Makes a writer for `format`.
    pub(crate) fn new(format: Format) -> Self {
        Self { format, time: TimeFormat::new() }
    }

    /// Appends the record up to what only scoring knows; the JSON object stays open.
    pub(crate) fn push_head(&mut self, tx: &Transaction, out: &mut Vec<u8>) {
        match self.format {
            Format::Ecs => self.push_ecs(tx, out),
            Format::Eve => self.push_eve(tx, out),
        }
    }

    /// Appends what scoring concluded, closes the object and ends the line.
    pub(crate) fn push_tail(&self, tx: &Transaction, verdict: &Verdict, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"confidence\":");
        push_number(u64::from(verdict.confidence), out);
        out.extend_from_slice(b",\"signals\":");
        push_json(&Signals(verdict), out);
        if let Some(outcome) = verdict.login {
            out.extend_from_slice(b",\"login\":{");
            if let Some(user) = tx.user {
                out.extend_from_slice(b"\"user\":\"");
                push_hex(&user.0, out);
                out.extend_from_slice(b"\",");
            }
            out.extend_from_slice(b"\"outcome\":\"");
            out.extend_from_slice(outcome.name().as_bytes());
            out.extend_from_slice(b"\"}");
        }
        out.extend_from_slice(b"}}\n");
    }

    fn push_ecs(&mut self, tx: &Transaction, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"@timestamp\":\"");
        self.time.push(tx.started, out);
        out.extend_from_slice(b"\",\"event\":{\"id\":\"");
        push_id(tx, out);
        out.extend_from_slice(b"\",\"duration\":");
        push_number(tx.ended.nanos_since(tx.started), out);
        let (client, server) = (tx.flow.client(), tx.flow.server());
        out.extend_from_slice(b"},\"client\":{\"ip\":");
        let client_ip = push_host(tx.client, out);
        out.extend_from_slice(b",\"port\":");
        push_number(u64::from(client.port), out);
        out.extend_from_slice(b"},\"source\":{\"ip\":");
        if client.host == tx.client {
            out.extend_from_within(client_ip.clone());
        } else {
            push_host(client.host, out);
        }
        out.extend_from_slice(b",\"port\":");
        push_number(u64::from(client.port), out);
        out.extend_from_slice(b"},\"destination\":{\"ip\":");
        push_host(server.host, out);
        out.extend_from_slice(b",\"port\":");
        push_number(u64::from(server.port), out);
        out.extend_from_slice(b"},\"network\":{\"transport\":\"");
        out.extend_from_slice(Transport::of(&tx.flow.key).name().as_bytes());
        out.extend_from_slice(b"\",\"community_id\":\"");
        push_community_id(&tx.community_id, out);
        out.push(b'"');
        push_vlans(tx.flow.envelope, out);
        out.extend_from_slice(b"},\"http\":{\"version\":\"");
        out.extend_from_slice(tx.version.name().as_bytes());
        out.push(b'"');
        if tx.has_request() {
            out.extend_from_slice(b",\"request\":{\"method\":");
            push_text(tx.text.get(tx.method), out);
            push_member(b"mime_type", tx, tx.request_content_type, out);
            push_member(b"referrer", tx, tx.referrer, out);
            out.extend_from_slice(b",\"body\":{\"bytes\":");
            push_number(tx.request_body_bytes, out);
            out.extend_from_slice(b"}}");
        }
        if let Some(status) = tx.status {
            out.extend_from_slice(b",\"response\":{\"status_code\":");
            push_number(u64::from(status), out);
            push_member(b"mime_type", tx, tx.response_content_type, out);
            // A stream's length is not known yet.
            if tx.pace != Pace::Streamed {
                out.extend_from_slice(b",\"body\":{\"bytes\":");
                push_number(tx.response_body_bytes, out);
                out.push(b'}');
            }
            out.push(b'}');
        }
        out.push(b'}');
        if tx.has_request() {
            // Without a target where the field that had it could not be resolved.
            let mut members = [(&b"original"[..], tx.target), (b"path", tx.path), (b"domain", tx.domain)]
                .into_iter()
                .filter(|(_, span)| !span.is_empty());
            if let Some((name, span)) = members.next() {
                out.extend_from_slice(b",\"url\":{\"");
                out.extend_from_slice(name);
                out.extend_from_slice(b"\":");
                push_text(tx.text.get(span), out);
                members.for_each(|(name, span)| push_member(name, tx, span, out));
                out.push(b'}');
            }
        }
        if !tx.user_agent.is_empty() {
            out.extend_from_slice(b",\"user_agent\":{\"original\":");
            push_text(tx.text.get(tx.user_agent), out);
            out.push(b'}');
        }
        if let Some(rare) = tx.rare.as_deref() {
            push_rpc(tx, rare, out);
        }
        if let Some(tls) = &tx.tls {
            push_tls(tls, out);
        }
        out.extend_from_slice(b",\"offpath\":{");
        push_offpath(tx, Some(client_ip), out);
    }

    fn push_eve(&mut self, tx: &Transaction, out: &mut Vec<u8>) {
        let (client, server) = (tx.flow.client(), tx.flow.server());
        out.extend_from_slice(b"{\"timestamp\":\"");
        self.time.push_eve(tx.started, out);
        out.extend_from_slice(b"\",\"flow_id\":");
        // EVE readers parse flow_id into a signed integer.
        push_number(tx.flow_id >> 1, out);
        out.extend_from_slice(b",\"event_type\":\"http\",\"src_ip\":");
        push_host(client.host, out);
        out.extend_from_slice(b",\"src_port\":");
        push_number(u64::from(client.port), out);
        out.extend_from_slice(b",\"dest_ip\":");
        push_host(server.host, out);
        out.extend_from_slice(b",\"dest_port\":");
        push_number(u64::from(server.port), out);
        out.extend_from_slice(match Transport::of(&tx.flow.key) {
            Transport::Sctp => b",\"proto\":\"SCTP\",\"community_id\":\"",
            _ => b",\"proto\":\"TCP\",\"community_id\":\"",
        });
        push_community_id(&tx.community_id, out);
        out.push(b'"');
        if let Some(vlan) = tx.flow.envelope.vlan() {
            out.extend_from_slice(b",\"vlan\":[");
            push_number(u64::from(vlan), out);
            if let Some(inner) = tx.flow.envelope.vlan_inner() {
                out.push(b',');
                push_number(u64::from(inner), out);
            }
            out.push(b']');
        }
        out.extend_from_slice(b",\"tx_id\":");
        push_number(u64::from(tx.index), out);
        out.extend_from_slice(b",\"http\":{\"protocol\":\"");
        out.extend_from_slice(match tx.version {
            HttpVersion::V09 => b"HTTP/0.9",
            HttpVersion::V10 => b"HTTP/1.0",
            HttpVersion::V11 => b"HTTP/1.1",
            HttpVersion::V2 => b"HTTP/2",
        });
        out.push(b'"');
        push_member(b"hostname", tx, tx.domain, out);
        push_member(b"url", tx, tx.target, out);
        push_member(b"http_user_agent", tx, tx.user_agent, out);
        push_member(b"http_content_type", tx, tx.response_content_type, out);
        push_member(b"http_refer", tx, tx.referrer, out);
        push_member(b"http_method", tx, tx.method, out);
        push_member(b"redirect", tx, tx.location, out);
        if let Some(status) = tx.status {
            out.extend_from_slice(b",\"status\":");
            push_number(u64::from(status), out);
        }
        if tx.pace != Pace::Streamed {
            out.extend_from_slice(b",\"length\":");
            push_number(tx.response_body_bytes, out);
        }
        out.push(b'}');
        if let Some(tls) = &tx.tls {
            push_tls_eve(tls, out);
        }
        out.extend_from_slice(b",\"offpath\":{");
        push_offpath(tx, None, out);
    }
}

/// The call of a remote procedure, as OpenTelemetry names it.
fn push_rpc(tx: &Transaction, rare: &RareFacts, out: &mut Vec<u8>) {
    let Some(rpc) = &rare.rpc else { return };
    out.extend_from_slice(b",\"rpc\":{\"system\":\"grpc\"");
    push_member(b"service", tx, rpc.service, out);
    push_member(b"method", tx, rpc.method, out);
    if let Some(status) = rpc.status {
        out.extend_from_slice(b",\"grpc\":{\"status_code\":");
        push_number(u64::from(status), out);
        out.push(b'}');
    }
    out.push(b'}');
}

/// Members of `offpath` that the transaction itself knows; the object stays open. `client_ip` is where `out` has the
/// client's address already.
fn push_offpath(tx: &Transaction, client_ip: Option<Range<usize>>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"entities\":{\"ip\":");
    match client_ip {
        Some(written) => out.extend_from_within(written),
        None => drop(push_host(tx.client, out)),
    }
    out.extend_from_slice(b",\"prefix\":\"");
    push_ip(tx.client.prefix(), out);
    out.push(b'/');
    push_number(u64::from(tx.client.prefix_len()), out);
    out.push(b'"');
    for (kind, hash) in [(EntityKind::Session, tx.session), (EntityKind::User, tx.user)] {
        if let Some(hash) = hash {
            push_key(kind.name(), out);
            out.push(b'"');
            push_hex(&hash.0, out);
            out.push(b'"');
        }
    }
    if tx.fingerprint != 0 {
        push_key(EntityKind::Fingerprint.name(), out);
        out.push(b'"');
        push_hex(&tx.fingerprint.to_be_bytes(), out);
        out.push(b'"');
    }
    if !tx.endpoint.is_empty() {
        push_key(EntityKind::Endpoint.name(), out);
        push_text(tx.text.get(tx.endpoint), out);
    }
    out.push(b'}');
    push_member(b"endpoint", tx, tx.endpoint, out);
    out.extend_from_slice(if tx.complete { b",\"complete\":true" } else { b",\"complete\":false" });
    if tx.tls.as_ref().is_some_and(|tls| tls.decrypted) {
        out.extend_from_slice(b",\"decrypted\":true");
    }
    out.extend_from_slice(b",\"anomalies\":[");
    for (i, anomaly) in tx.anomalies.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(anomaly.name().as_bytes());
        out.push(b'"');
    }
    out.push(b']');
    if tx.client_forwarded {
        out.extend_from_slice(b",\"client_forwarded\":true");
    }
    if let Some(pace) = tx.pace.name() {
        push_key("pace", out);
        out.push(b'"');
        out.extend_from_slice(pace.as_bytes());
        out.push(b'"');
    }
    if tx.tls.as_ref().is_some_and(|tls| tls.ech) {
        out.extend_from_slice(b",\"tls\":{\"ech\":true}");
    }
    if tx.interim_responses > 0 {
        out.extend_from_slice(b",\"interim_responses\":");
        push_number(u64::from(tx.interim_responses), out);
    }
    if let Some(stream) = tx.rare.as_deref().and_then(|rare| rare.stream) {
        out.extend_from_slice(b",\"stream\":");
        push_number(u64::from(stream), out);
    }
    push_tunnel(tx.flow.envelope, out);
}

/// Appends `tunnel` to the open object of `offpath`.
pub(crate) fn push_tunnel(envelope: Envelope, out: &mut Vec<u8>) {
    if let Some((kind, id)) = envelope.tunnel() {
        out.extend_from_slice(b",\"tunnel\":{\"type\":\"");
        out.extend_from_slice(kind.name().as_bytes());
        out.push(b'"');
        if let Some(id) = id {
            out.extend_from_slice(b",\"id\":");
            push_number(u64::from(id), out);
        }
        out.push(b'}');
    }
}

/// Appends `vlan.id` and `inner.vlan.id`, which ECS has as text, to the open object of `network`.
pub(crate) fn push_vlans(envelope: Envelope, out: &mut Vec<u8>) {
    let Some(vlan) = envelope.vlan() else { return };
    out.extend_from_slice(b",\"vlan\":{\"id\":\"");
    push_number(u64::from(vlan), out);
    out.extend_from_slice(b"\"}");
    if let Some(inner) = envelope.vlan_inner() {
        out.extend_from_slice(b",\"inner\":{\"vlan\":{\"id\":\"");
        push_number(u64::from(inner), out);
        out.extend_from_slice(b"\"}}");
    }
}

struct Signals<'a>(&'a Verdict);

impl Serialize for Signals<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.contributions.len()))?;
        for contribution in &self.0.contributions {
            list.serialize_element(&SignalRecord(contribution))?;
        }
        list.end()
    }
}

struct SignalRecord<'a>(&'a offpath_types::Contribution);

impl Serialize for SignalRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("signal", self.0.signal)?;
        map.serialize_entry("entity", self.0.entity.name())?;
        map.serialize_entry("value", &self.0.value)?;
        map.serialize_entry("baseline", &self.0.baseline)?;
        map.serialize_entry("contribution", &self.0.points)?;
        map.end()
    }
}

fn push_json(value: &impl Serialize, out: &mut Vec<u8>) {
    // Writing JSON into memory fails only on a map with non-string keys, which no record has.
    let written = serde_json::to_writer(&mut *out, value);
    debug_assert!(written.is_ok(), "{written:?}");
}

fn push_key(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn push_member(name: &[u8], tx: &Transaction, span: Span, out: &mut Vec<u8>) {
    if span.is_empty() {
        return;
    }
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name);
    out.extend_from_slice(b"\":");
    push_text(tx.text.get(span), out);
}

/// Appends a JSON string; bytes that are no UTF-8 become U+FFFD.
pub(crate) fn push_text(text: &[u8], out: &mut Vec<u8>) {
    // Most texts are printable ASCII without quotes: copied in one go. (A block at a time without an early exit, so that
    // it compiles to vector compares.)
    let plain = |b: &u8| matches!(b, 0x20..=0x7e) && *b != b'"' && *b != b'\\';
    if text.chunks(64).all(|block| block.iter().fold(true, |all, b| all & plain(b))) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
        return;
    }
    match std::str::from_utf8(text) {
        Ok(text) => push_json(&text, out),
        Err(_) => push_json(&String::from_utf8_lossy(text), out),
    }
}

pub(crate) fn push_number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends an address as a JSON string; returns where it is.
pub(crate) fn push_host(host: Host, out: &mut Vec<u8>) -> Range<usize> {
    let start = out.len();
    out.push(b'"');
    push_ip(host, out);
    out.push(b'"');
    start..out.len()
}

fn push_ip(host: Host, out: &mut Vec<u8>) {
    use std::io::Write;
    if host.is_v4() {
        let mut text = [b'.'; 15];
        let mut len = 0;
        for byte in &host.octets()[12..] {
            let (hundreds, tens, ones) = (byte / 100, byte / 10 % 10, byte % 10);
            let digits = [hundreds + b'0', tens + b'0', ones + b'0'];
            let skip = usize::from(hundreds == 0) + usize::from(*byte < 10);
            for digit in &digits[skip..] {
                text[len] = *digit;
                len += 1;
            }
            // Past the dot that is there already.
            len += 1;
        }
        out.extend_from_slice(&text[..len - 1]);
    } else {
        // Writing into a Vec cannot fail.
        let _ = write!(out, "{}", host.to_ip());
    }
}

pub(crate) fn push_hex<const N: usize>(bytes: &[u8; N], out: &mut Vec<u8>) {
    let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    let text = bytes.map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    out.extend_from_slice(text.as_flattened());
}

fn push_id(tx: &Transaction, out: &mut Vec<u8>) {
    push_hex(&tx.flow_id.to_be_bytes(), out);
    push_hex(&tx.index.to_be_bytes(), out);
}

/// Appends `1:` and the base64 of the 20 bytes (Community ID v1).
pub(crate) fn push_community_id(sha1: &[u8; 20], out: &mut Vec<u8>) {
    use base64::Engine;
    let mut text = [0u8; 28];
    // 20 bytes are 28 base64 characters with padding.
    let len = base64::engine::general_purpose::STANDARD.encode_slice(sha1, &mut text).unwrap_or_default();
    out.extend_from_slice(b"1:");
    out.extend_from_slice(&text[..len]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use offpath_types::{
        Anomaly, Contribution, FlowInfo, FlowKey, IdentityHash, LoginOutcome, Peer, Timestamp, TunnelId,
    };
    use serde_json::{Value, json};

    fn sample() -> Transaction {
        let client = Peer { host: Host::from_v4([192, 0, 2, 7]), port: 40_000 };
        let server = Peer { host: Host::from_v4([198, 51, 100, 1]), port: 8080 };
        let (key, client_side) = FlowKey::new(client, server, TunnelId(0));
        let opened = Timestamp::from_parts(1_700_000_000, 5);
        let mut tx = Transaction::new(
            FlowInfo { key, client_side, opened, midstream: false, envelope: Default::default() },
            0xabc,
            3,
            opened,
        );
        tx.method = tx.text.push(b"POST");
        tx.target = tx.text.push(b"/log\"in?x=\xff\n");
        tx.path = tx.text.push(b"/login");
        tx.endpoint = tx.text.push(b"POST /login");
        tx.user_agent = tx.text.push("Ünïcode".as_bytes());
        tx.fingerprint = 0x1234;
        tx.status = Some(401);
        tx.user = Some(IdentityHash([0xab; 16]));
        tx.ended = opened.plus_nanos(1500);
        tx.anomalies.insert(Anomaly::BareLf);
        tx.client_forwarded = true;
        tx
    }

    fn record(format: Format) -> Value {
        let verdict = Verdict {
            confidence: 97,
            contributions: vec![Contribution {
                signal: "login_failures_ip",
                entity: EntityKind::Ip,
                value: 12.5,
                baseline: 0.5,
                points: 31.0,
            }],
            login: Some(LoginOutcome::Failure),
            ..Verdict::default()
        };
        let (mut writer, mut out) = (RecordWriter::new(format), Vec::new());
        writer.push_head(&sample(), &mut out);
        writer.push_tail(&sample(), &verdict, &mut out);
        assert_eq!(out.pop(), Some(b'\n'));
        assert!(!out.contains(&b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn ecs_records_have_the_documented_names() {
        let r = record(Format::Ecs);
        for (pointer, want) in [
            ("/@timestamp", json!("2023-11-14T22:13:20.000000005Z")),
            ("/event/id", json!("0000000000000abc00000003")),
            ("/event/duration", json!(1500)),
            ("/client/ip", json!("192.0.2.7")),
            ("/source/port", json!(40_000)),
            ("/destination/port", json!(8080)),
            ("/http/version", json!("1.1")),
            ("/http/request/method", json!("POST")),
            ("/http/request/body/bytes", json!(0)),
            ("/http/response/status_code", json!(401)),
            ("/url/original", json!("/log\"in?x=\u{fffd}\n")),
            ("/url/path", json!("/login")),
            ("/user_agent/original", json!("Ünïcode")),
            ("/network/community_id", json!("1:AAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
            ("/offpath/entities/prefix", json!("192.0.2.0/24")),
            ("/offpath/entities/user", json!("ab".repeat(16))),
            ("/offpath/entities/fingerprint", json!("0000000000001234")),
            ("/offpath/entities/endpoint", json!("POST /login")),
            ("/offpath/complete", json!(false)),
            ("/offpath/anomalies", json!(["bare_lf"])),
            ("/offpath/client_forwarded", json!(true)),
            ("/offpath/confidence", json!(97)),
            ("/offpath/signals/0/signal", json!("login_failures_ip")),
            ("/offpath/login/outcome", json!("failure")),
        ] {
            assert_eq!(r.pointer(pointer), Some(&want), "{pointer} in {r}");
        }
    }

    #[test]
    fn addresses_and_hashes_are_written_as_std_writes_them() {
        let mut out = Vec::new();
        for n in 0..=255u8 {
            let host = Host::from_v4([n, 255 - n, n / 3, 7]);
            out.clear();
            let range = push_host(host, &mut out);
            assert_eq!(String::from_utf8_lossy(&out[range]), format!("\"{}\"", host.to_ip()));
            out.clear();
            push_hex(&[n, n ^ 0xa5], &mut out);
            assert_eq!(String::from_utf8_lossy(&out), format!("{n:02x}{:02x}", n ^ 0xa5));
        }
    }

    #[test]
    fn a_byte_that_needs_care_is_found_wherever_it_stands() {
        for at in 0..130 {
            for byte in [b'"', b'\\', 0, 0x1f, 0x7f, 0x80, 0xff, b' ', b'~'] {
                let mut text = vec![b'a'; 130];
                text[at] = byte;
                let mut out = Vec::new();
                push_text(&text, &mut out);
                let read: String = serde_json::from_slice(&out).unwrap();
                assert_eq!(read, String::from_utf8_lossy(&text), "{at} {byte}");
            }
        }
    }

    #[test]
    fn entities_in_records_equal_what_decisions_match() {
        let r = record(Format::Ecs);
        let tx = sample();
        for kind in EntityKind::ALL {
            let record = r.pointer(&format!("/offpath/entities/{}", kind.name())).and_then(Value::as_str);
            assert_eq!(record.map(str::to_owned), tx.entity_text(kind), "{}", kind.name());
        }
    }

    #[test]
    fn eve_records_have_suricatas_names() {
        let r = record(Format::Eve);
        for (pointer, want) in [
            ("/event_type", json!("http")),
            ("/src_ip", json!("192.0.2.7")),
            ("/dest_port", json!(8080)),
            ("/http/http_method", json!("POST")),
            ("/http/status", json!(401)),
            ("/http/protocol", json!("HTTP/1.1")),
            ("/tx_id", json!(3)),
            ("/offpath/confidence", json!(97)),
        ] {
            assert_eq!(r.pointer(pointer), Some(&want), "{pointer} in {r}");
        }
    }
}
