//! What TLS and QUIC handshakes show and WebSocket connections carry, as JSON: a line of `--connections` each, and members
//! of other records.

use offpath_types::{FlowInfo, Handshake, Timestamp, TlsFacts, Transport, WebSocketEnd};

use crate::ciphers;
use crate::records::{
    push_community_id, push_hex, push_host, push_number, push_text, push_tunnel, push_vlans,
};
use crate::timefmt::TimeFormat;

/// Writes connection records: Elastic Common Schema, nested, whatever the format of transactions.
#[derive(Debug)]
pub(crate) struct ConnectionWriter {
    time: TimeFormat,
}

impl ConnectionWriter {
    /// Makes a writer.
    pub(crate) fn new() -> Self {
        Self { time: TimeFormat::new() }
    }

    /// Appends the record of a handshake, as one line.
    pub(crate) fn push(&mut self, handshake: &Handshake, out: &mut Vec<u8>) {
        let id = (handshake.flow_id, handshake.index);
        self.push_event(b"tls_handshake", id, (handshake.started, handshake.ended), out);
        push_peers(&handshake.flow, None, out);
        out.extend_from_slice(b",\"network\":{\"transport\":\"");
        out.extend_from_slice(handshake.transport.name().as_bytes());
        out.extend_from_slice(b"\",\"community_id\":\"");
        push_community_id(&handshake.community_id, out);
        out.push(b'"');
        push_vlans(handshake.flow.envelope, out);
        out.push(b'}');
        push_tls(&handshake.facts, out);
        out.extend_from_slice(b",\"offpath\":{\"tls\":{\"ech\":");
        out.extend_from_slice(if handshake.facts.ech { b"true" } else { b"false" });
        push_list(b",\"alpn\":", handshake.facts.alpn(), out);
        out.push(b'}');
        push_tunnel(handshake.flow.envelope, out);
        push_complete(handshake.complete, out);
    }

    /// Appends the record of a WebSocket connection, as one line.
    pub(crate) fn push_websocket(&mut self, websocket: &WebSocketEnd, out: &mut Vec<u8>) {
        let id = (websocket.flow_id, websocket.index);
        self.push_event(b"websocket", id, (websocket.started, websocket.ended), out);
        let (client, server) = (&websocket.client, &websocket.server);
        push_peers(&websocket.flow, Some([client.bytes, server.bytes]), out);
        out.extend_from_slice(b",\"network\":{\"transport\":\"");
        out.extend_from_slice(Transport::of(&websocket.flow.key).name().as_bytes());
        out.extend_from_slice(b"\",\"protocol\":\"websocket\",\"community_id\":\"");
        push_community_id(&websocket.community_id, out);
        out.push(b'"');
        push_vlans(websocket.flow.envelope, out);
        out.extend_from_slice(b"},\"offpath\":{");
        if !websocket.endpoint.is_empty() {
            out.extend_from_slice(b"\"endpoint\":");
            push_text(&websocket.endpoint, out);
            out.push(b',');
        }
        out.extend_from_slice(b"\"websocket\":{");
        for (name, side) in [(&b"\"client\":{"[..], client), (b",\"server\":{", server)] {
            out.extend_from_slice(name);
            out.extend_from_slice(b"\"messages\":");
            push_number(side.messages, out);
            out.extend_from_slice(b",\"compressed\":");
            push_number(side.compressed, out);
            out.extend_from_slice(b",\"control_frames\":");
            push_number(side.control_frames, out);
            if let Some(code) = side.close {
                out.extend_from_slice(b",\"close_code\":");
                push_number(u64::from(code), out);
            }
            out.push(b'}');
        }
        out.push(b'}');
        push_tunnel(websocket.flow.envelope, out);
        push_complete(!client.lost && !server.lost, out);
    }

    /// Begins a record with the event; `id`: flow and number on it.
    fn push_event(
        &mut self,
        action: &[u8],
        (flow_id, index): (u64, u32),
        (started, ended): (Timestamp, Timestamp),
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(b"{\"@timestamp\":\"");
        self.time.push(started, out);
        out.extend_from_slice(b"\",\"event\":{\"kind\":\"event\",\"category\":[\"network\"],\"action\":\"");
        out.extend_from_slice(action);
        out.extend_from_slice(b"\",\"id\":\"");
        push_hex(&flow_id.to_be_bytes(), out);
        push_hex(&index.to_be_bytes(), out);
        out.extend_from_slice(b"\",\"duration\":");
        push_number(ended.nanos_since(started), out);
        out.push(b'}');
    }
}

/// Appends both peers, with what each of them sent where that is given (client, server).
fn push_peers(flow: &FlowInfo, bytes: Option<[u64; 2]>, out: &mut Vec<u8>) {
    let [sent, received] = bytes.map_or([None; 2], |sides| sides.map(Some));
    for (name, peer, bytes) in [
        (&b",\"source\":{\"ip\":"[..], flow.client(), sent),
        (b",\"destination\":{\"ip\":", flow.server(), received),
    ] {
        out.extend_from_slice(name);
        push_host(peer.host, out);
        out.extend_from_slice(b",\"port\":");
        push_number(u64::from(peer.port), out);
        if let Some(bytes) = bytes {
            out.extend_from_slice(b",\"bytes\":");
            push_number(bytes, out);
        }
        out.push(b'}');
    }
}

/// Ends a record.
fn push_complete(complete: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if complete { b",\"complete\":true}}\n" } else { b",\"complete\":false}}\n" });
}

/// Appends `,"tls":{…}` with what is known; nothing where nothing is.
pub(crate) fn push_tls(tls: &TlsFacts, out: &mut Vec<u8>) {
    let mut object = Object::new(b",\"tls\":{");
    let mut client = Object::new(b"\"client\":{");
    client.text(b"server_name", tls.server_name.as_deref(), out, &mut object);
    client.hex(b"ja3", tls.ja3, out, &mut object);
    client.text(b"ja4", tls.ja4.as_ref().map(|j| &j.as_bytes()[..]), out, &mut object);
    client.close(out);
    let mut server = Object::new(b"\"server\":{");
    server.hex(b"ja3s", tls.ja3s, out, &mut object);
    server.close(out);
    let mut plain = Object::flat();
    let version = tls.version.map(version_name);
    plain.text(b"version", version.as_ref().map(|(text, _)| text.as_bytes()), out, &mut object);
    plain.text(b"version_protocol", version.map(|(_, protocol)| protocol.as_bytes()), out, &mut object);
    let cipher = tls.cipher.map(ciphers::name);
    plain.text(b"cipher", cipher.as_deref().map(str::as_bytes), out, &mut object);
    plain.text(b"next_protocol", tls.next_protocol.as_deref(), out, &mut object);
    object.close(out);
}

/// Appends `,"tls":{…}` with the names that Suricata's EVE has; nothing where nothing is known.
pub(crate) fn push_tls_eve(tls: &TlsFacts, out: &mut Vec<u8>) {
    let mut object = Object::new(b",\"tls\":{");
    let mut plain = Object::flat();
    plain.text(b"sni", tls.server_name.as_deref(), out, &mut object);
    plain.text(b"ja4", tls.ja4.as_ref().map(|j| &j.as_bytes()[..]), out, &mut object);
    for (name, hash) in [(&b"\"ja3\":{"[..], tls.ja3), (b"\"ja3s\":{", tls.ja3s)] {
        let mut inner = Object::new(name);
        inner.hex(b"hash", hash, out, &mut object);
        inner.close(out);
    }
    object.close(out);
}

/// A JSON object that is opened by its first member, inside one that is opened likewise.
struct Object {
    open: &'static [u8],
    begun: bool,
}

impl Object {
    fn new(open: &'static [u8]) -> Self {
        Self { open, begun: false }
    }

    /// Members that go into the outer object itself.
    fn flat() -> Self {
        Self { open: b"", begun: false }
    }

    fn member(&mut self, name: &[u8], out: &mut Vec<u8>, outer: &mut Self) {
        if !self.begun {
            let first = !outer.begun;
            if first {
                out.extend_from_slice(outer.open);
                outer.begun = true;
            } else {
                out.push(b',');
            }
            out.extend_from_slice(self.open);
            self.begun = true;
        } else {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(name);
        out.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>, outer: &mut Self) {
        if let Some(value) = value {
            self.member(name, out, outer);
            push_text(value, out);
        }
    }

    fn hex(&mut self, name: &[u8], value: Option<[u8; 16]>, out: &mut Vec<u8>, outer: &mut Self) {
        if let Some(value) = value {
            self.member(name, out, outer);
            out.push(b'"');
            push_hex(&value, out);
            out.push(b'"');
        }
    }

    fn close(self, out: &mut Vec<u8>) {
        if self.begun {
            out.push(b'}');
        }
    }
}

fn push_list<'a>(name: &[u8], values: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    let mut begun = false;
    for value in values {
        out.extend_from_slice(if begun { b"," } else { name });
        if !begun {
            out.push(b'[');
        }
        push_text(value, out);
        begun = true;
    }
    if begun {
        out.push(b']');
    }
}

/// Returns ECS' `tls.version` and `tls.version_protocol`.
fn version_name(version: u16) -> (String, &'static str) {
    match version {
        0x0300 => ("3.0".into(), "ssl"),
        0x0301..=0x0304 => (format!("1.{}", version - 0x0301), "tls"),
        // Drafts of TLS 1.3 and what nobody has named.
        other => (format!("0x{other:04x}"), "tls"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use offpath_types::{FlowInfo, FlowKey, HandshakeStage, Host, Ja4, Peer, TunnelId, WebSocketSide};
    use serde_json::{Value, json};

    use super::*;

    fn record(facts: TlsFacts, transport: Transport, complete: bool) -> Value {
        let peer = |last, port| Peer { host: Host::from_v4([192, 0, 2, last]), port };
        let (key, client_side) = FlowKey::new(peer(9, 40_000), peer(1, 443), TunnelId(0));
        let opened = Timestamp::from_parts(1_700_000_000, 0);
        let handshake = Handshake {
            flow: FlowInfo { key, client_side, opened, midstream: false, envelope: Default::default() },
            flow_id: 0xabc,
            index: 1,
            community_id: [0; 20],
            transport,
            started: opened,
            ended: opened.plus_nanos(7),
            emitted: opened,
            stage: HandshakeStage::Done,
            facts: Arc::new(facts),
            complete,
        };
        let mut out = Vec::new();
        ConnectionWriter::new().push(&handshake, &mut out);
        assert_eq!(out.pop(), Some(b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn connection_records_have_the_documented_names() {
        let facts = TlsFacts {
            decrypted: false,
            server_name: Some((*b"a\"b").into()),
            alpn_offered: (*b"\x02h2\x08http/1.1").into(),
            ja3: Some([0xab; 16]),
            ja4: Ja4::new(b"t13d1516h2_8daaf6152771_e5627efa2ab1"),
            ja3s: Some([0xcd; 16]),
            version: Some(0x0304),
            cipher: Some(0x1301),
            next_protocol: Some((*b"h2").into()),
            ech: true,
            outside: None,
        };
        let r = record(facts, Transport::Quic, true);
        for (pointer, want) in [
            ("/@timestamp", json!("2023-11-14T22:13:20.000000000Z")),
            ("/event/kind", json!("event")),
            ("/event/action", json!("tls_handshake")),
            ("/event/id", json!("0000000000000abc00000001")),
            ("/event/duration", json!(7)),
            ("/source/ip", json!("192.0.2.9")),
            ("/source/port", json!(40_000)),
            ("/destination/port", json!(443)),
            ("/network/transport", json!("quic")),
            ("/network/community_id", json!("1:AAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
            ("/tls/client/server_name", json!("a\"b")),
            ("/tls/client/ja3", json!("ab".repeat(16))),
            ("/tls/client/ja4", json!("t13d1516h2_8daaf6152771_e5627efa2ab1")),
            ("/tls/server/ja3s", json!("cd".repeat(16))),
            ("/tls/version", json!("1.3")),
            ("/tls/version_protocol", json!("tls")),
            ("/tls/cipher", json!("TLS_AES_128_GCM_SHA256")),
            ("/tls/next_protocol", json!("h2")),
            ("/offpath/tls/ech", json!(true)),
            ("/offpath/tls/alpn", json!(["h2", "http/1.1"])),
            ("/offpath/complete", json!(true)),
        ] {
            assert_eq!(r.pointer(pointer), Some(&want), "{pointer} in {r}");
        }
    }

    #[test]
    fn websocket_records_have_the_documented_names() {
        let peer = |last, port| Peer { host: Host::from_v4([192, 0, 2, last]), port };
        let (key, client_side) = FlowKey::new(peer(9, 40_000), peer(1, 80), TunnelId(0));
        let opened = Timestamp::from_parts(1_700_000_000, 0);
        let side = WebSocketSide { messages: 3, control_frames: 1, bytes: 99, ..Default::default() };
        let mut websocket = WebSocketEnd {
            flow: FlowInfo { key, client_side, opened, midstream: false, envelope: Default::default() },
            flow_id: 0xabc,
            index: 2,
            community_id: [0; 20],
            endpoint: (*b"GET /chat").into(),
            started: opened,
            ended: opened.plus_nanos(7),
            emitted: opened,
            client: WebSocketSide { close: Some(1001), ..side },
            server: WebSocketSide { compressed: 2, bytes: 98, lost: true, ..side },
        };
        let record = |websocket: &WebSocketEnd| {
            let mut out = Vec::new();
            ConnectionWriter::new().push_websocket(websocket, &mut out);
            assert_eq!(out.pop(), Some(b'\n'));
            serde_json::from_slice::<Value>(&out).unwrap()
        };
        let want = json!({
            "@timestamp": "2023-11-14T22:13:20.000000000Z",
            "event": {
                "kind": "event",
                "category": ["network"],
                "action": "websocket",
                "duration": 7,
                "id": "0000000000000abc00000002",
            },
            "source": {"ip": "192.0.2.9", "port": 40_000, "bytes": 99},
            "destination": {"ip": "192.0.2.1", "port": 80, "bytes": 98},
            "network": {
                "transport": "tcp",
                "protocol": "websocket",
                "community_id": "1:AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            },
            "offpath": {
                "endpoint": "GET /chat",
                "websocket": {
                    "client": {"messages": 3, "compressed": 0, "control_frames": 1, "close_code": 1001},
                    "server": {"messages": 3, "compressed": 2, "control_frames": 1},
                },
                "complete": false,
            },
        });
        assert_eq!(record(&websocket), want);
        websocket.endpoint = Box::default();
        websocket.server.lost = false;
        let record = record(&websocket);
        assert_eq!(record.pointer("/offpath/endpoint"), None);
        assert_eq!(record.pointer("/offpath/complete"), Some(&json!(true)));
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let nothing = record(TlsFacts::default(), Transport::Tcp, false);
        assert_eq!(nothing.pointer("/tls"), None);
        assert_eq!(nothing.pointer("/offpath"), Some(&json!({"tls": {"ech": false}, "complete": false})));
        let server = TlsFacts {
            ja3s: Some([1; 16]),
            version: Some(0x300),
            cipher: Some(0xfffe),
            ..TlsFacts::default()
        };
        let want = json!({
            "server": {"ja3s": "01".repeat(16)},
            "version": "3.0",
            "version_protocol": "ssl",
            "cipher": "0xfffe",
        });
        assert_eq!(record(server, Transport::Tcp, false).pointer("/tls"), Some(&want));
    }
}
