//! Captures of TLS and QUIC handshakes. `make fingerprints-tshark` has tshark confirm their fingerprints.

use std::net::SocketAddr;

use offpath_types::Timestamp;
use ring::{aead, hkdf};

use super::tunnels::pcap_of;
use super::{Capture, DialogueError, SECOND, START, ToClient, ToServer, client, ethernet, v4};
use crate::conversation::{Conversation, merge};
use crate::packet_builder::{Link, udp};

fn ext(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

fn server_name(name: &str) -> Vec<u8> {
    let entry = [&[0], &(name.len() as u16).to_be_bytes()[..], name.as_bytes()].concat();
    ext(0, &[&(entry.len() as u16).to_be_bytes()[..], &entry].concat())
}

fn alpn(names: &[&str]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|n| [&[n.len() as u8], n.as_bytes()].concat()).collect();
    ext(16, &[&(list.len() as u16).to_be_bytes()[..], &list].concat())
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &(body.len() as u32).to_be_bytes()[1..], body].concat()
}

fn hello_body(random: u8, before: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    let all = extensions.concat();
    [&[3, 3][..], &[random; 32], &[0], before, &(all.len() as u16).to_be_bytes(), &all].concat()
}

/// A ClientHello with GREASE in ciphers, extensions, groups and versions.
fn client_hello(first: Vec<u8>, more: &[Vec<u8>]) -> Vec<u8> {
    let suites = [0x2a, 0x2a, 0x13, 0x01, 0x13, 0x02, 0xc0, 0x2b, 0xc0, 0x2f];
    let before = [&[0, suites.len() as u8][..], &suites, &[1, 0]].concat();
    let mut extensions = vec![ext(0x1a1a, &[]), first];
    extensions.extend_from_slice(more);
    extensions.extend([
        ext(10, &[0, 6, 0x3a, 0x3a, 0, 29, 0, 23]),
        ext(11, &[1, 0]),
        ext(13, &[0, 6, 4, 3, 8, 4, 4, 1]),
        ext(43, &[6, 0x5a, 0x5a, 3, 4, 3, 3]),
    ]);
    message(1, &hello_body(7, &before, &extensions))
}

fn server_hello(cipher: u16, extensions: &[Vec<u8>]) -> Vec<u8> {
    message(2, &hello_body(9, &[&cipher.to_be_bytes()[..], &[0]].concat(), extensions))
}

fn records(bytes: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
    bytes.chunks(size).flat_map(record).collect()
}

const HIDDEN: [u8; 9] = [23, 3, 3, 0, 4, 1, 2, 3, 4];

pub(super) fn tls() -> Result<Vec<Capture>, DialogueError> {
    Ok(vec![hellos(), quic(), join()?])
}

fn server() -> SocketAddr {
    v4([203, 0, 113, 10], 443)
}

fn hellos() -> Capture {
    let started = |port, secs| {
        let at = START.plus_nanos(secs * SECOND);
        let mut talk = Conversation::new(v4([192, 0, 2, 10], port), server(), at);
        talk.handshake();
        talk
    };
    let hello = client_hello(server_name("shop.example"), &[alpn(&["h2", "http/1.1"])]);
    let mut cut = started(40_001, 0);
    cut.mss(37).send(ToServer, &records(&hello, 50));
    cut.send(ToClient, &records(&server_hello(0xc02f, &[alpn(&["h2"])]), 20)).mss(1448);
    cut.send(ToServer, &HIDDEN).send(ToClient, &HIDDEN).close();
    let mut cut = cut.into_packets();
    // Two segments of the ClientHello change places.
    let at = cut.iter().position(|p| p.bytes.len() > 60).unwrap_or_default();
    let (a, b) = (cut[at].time, cut[at + 1].time);
    cut.swap(at, at + 1);
    (cut[at].time, cut[at + 1].time) = (a, b);

    let mut hidden = started(40_002, 1);
    let outer = client_hello(server_name("provider.example"), &[ext(0xfe0d, &[0; 64])]);
    hidden.send(ToServer, &records(&outer, 16_384));
    hidden.send(ToClient, &records(&server_hello(0x1301, &[ext(43, &[3, 4])]), 16_384));
    hidden.send(ToServer, &HIDDEN).send(ToClient, &HIDDEN).close();

    let mut refused = started(40_003, 2);
    refused.send(ToServer, &records(&client_hello(server_name("none.example"), &[]), 16_384));
    refused.send(ToClient, &[21, 3, 3, 0, 2, 2, 40]).close();

    let all = merge(vec![cut, hidden.into_packets(), refused.into_packets()]);
    ethernet(
        "tls-hellos",
        &all,
        "three TLS connections: hellos in records of 50 and 20 bytes over segments of 37, two of them swapped; an \
         encrypted ClientHello (outer); one that is refused with an alert.",
        "three handshakes, the third without a ServerHello; GREASE is in no fingerprint.",
    )
}

/// What makes one QUIC version differ from another.
struct Version {
    number: u32,
    salt: [u8; 20],
    labels: [&'static str; 3],
    first: u8,
}

const V1: Version = Version {
    number: 1,
    salt: [
        0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc,
        0xbb, 0x7f, 0x0a,
    ],
    labels: ["quic key", "quic iv", "quic hp"],
    first: 0xc3,
};

const V2: Version = Version {
    number: 0x6b33_43cf,
    salt: [
        0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9,
        0xbd, 0x2e, 0xd9,
    ],
    labels: ["quicv2 key", "quicv2 iv", "quicv2 hp"],
    first: 0xd3,
};

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(secret: &hkdf::Prk, label: &str) -> Option<[u8; N]> {
    let label = format!("tls13 {label}");
    let info = [&[0, N as u8, label.len() as u8][..], label.as_bytes(), &[0]].concat();
    let mut out = [0; N];
    secret.expand(&[&info], Len(N)).and_then(|okm| okm.fill(&mut out)).ok()?;
    Some(out)
}

/// Protects an Initial packet (RFC 9001 §5); nothing for frames of fewer than 4 bytes.
fn initial(version: &Version, id: &[u8], server: bool, number: u32, frames: &[u8]) -> Option<Vec<u8>> {
    let initial = hkdf::Salt::new(hkdf::HKDF_SHA256, &version.salt).extract(id);
    let secret: [u8; 32] = expand(&initial, if server { "server in" } else { "client in" })?;
    let secret = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &secret);
    let [key, iv, header] = version.labels;
    let (key, mut nonce) = (expand::<16>(&secret, key)?, expand::<12>(&secret, iv)?);
    let protection =
        aead::quic::HeaderProtectionKey::new(&aead::quic::AES_128, &expand::<16>(&secret, header)?).ok()?;
    let to = if server { &[][..] } else { id };
    let mut head =
        [&[version.first][..], &version.number.to_be_bytes(), &[to.len() as u8], to, &[0, 0]].concat();
    head.extend((0x4000 | (4 + frames.len() + 16) as u16).to_be_bytes());
    let at = head.len();
    head.extend(number.to_be_bytes());
    nonce.iter_mut().skip(8).zip(number.to_be_bytes()).for_each(|(n, b)| *n ^= b);
    let mut body = frames.to_vec();
    let sealing = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_128_GCM, &key).ok()?);
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    sealing.seal_in_place_append_tag(nonce, aead::Aad::from(&head), &mut body).ok()?;
    let mut packet = [head, body].concat();
    let mask = protection.new_mask(packet.get(at + 4..at + 20)?).ok()?;
    packet[0] ^= mask[0] & 0x0f;
    packet[at..at + 4].iter_mut().zip(&mask[1..]).for_each(|(b, m)| *b ^= m);
    Some(packet)
}

fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    let varint = |n: usize| (0x4000 | n as u16).to_be_bytes();
    [&[6][..], &varint(offset), &varint(data.len()), data].concat()
}

fn padded(mut frames: Vec<u8>) -> Vec<u8> {
    frames.resize(frames.len().max(1162), 0);
    frames
}

fn quic() -> Capture {
    let hello = |name| client_hello(server_name(name), &[alpn(&["h3"]), ext(57, &[]), ext(51, &[1; 1300])]);
    let answer = server_hello(0x1301, &[ext(43, &[3, 4])]);
    let mut frames: Vec<(Timestamp, Vec<u8>)> = Vec::new();
    let mut send = |port, to_server, payload: Option<Vec<u8>>| {
        let (a, b) = (v4([192, 0, 2, 10], port), server());
        let (src, dst) = if to_server { (a, b) } else { (b, a) };
        let at = START.plus_nanos(frames.len() as u64 * 1_000_000);
        frames.push((at, Link::Ethernet.wrap(&udp(src, dst, &payload.unwrap_or_default()))));
    };
    for (port, version, id, name) in
        [(50_001, &V1, [1u8; 8], "one.example"), (50_002, &V2, [2; 8], "two.example")]
    {
        let hello = hello(name);
        let piece = |from: usize, to: usize| crypto(from, &hello[from..to.min(hello.len())]);
        let first = [piece(900, 1100), vec![1, 0, 0], piece(0, 300), piece(600, 900)].concat();
        let second = [piece(1100, hello.len()), piece(300, 600)].concat();
        send(port, true, initial(version, &id, false, 0, &padded(first)));
        send(port, true, initial(version, &id, false, 1, &padded(second)));
        send(port, false, initial(version, &id, true, 0, &padded(crypto(0, &answer))));
    }
    Capture {
        name: "quic-initial",
        file: "input.pcap",
        input: pcap_of(&frames),
        made: "two QUIC connections, versions 1 and 2, each with a ClientHello of 1.5 KB in five CRYPTO frames, shuffled \
               over two datagrams, and a ServerHello.",
        expected: "two handshakes with server name, JA4 of QUIC, version and cipher; no transactions.",
        config: None,
    }
}

fn join() -> Result<Capture, DialogueError> {
    let mut outside = Conversation::new(client(), server(), START);
    outside.handshake();
    let hello = client_hello(server_name("shop.example"), &[alpn(&["h2", "http/1.1"])]);
    outside.send(ToServer, &records(&hello, 16_384));
    outside.send(ToClient, &records(&server_hello(0x1301, &[ext(43, &[3, 4])]), 16_384));
    outside.send(ToServer, &HIDDEN).send(ToClient, &HIDDEN).close();

    let (proxy, app) = (v4([10, 0, 0, 5], 50_000), v4([10, 0, 0, 9], 8080));
    let mut inside = Conversation::new(proxy, app, START.plus_nanos(SECOND / 100));
    inside.handshake();
    let name = b"shop.example";
    let mut preface = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    preface.extend((12 + 3 + name.len() as u16).to_be_bytes());
    preface.extend([192, 0, 2, 10, 203, 0, 113, 10]);
    preface.extend(client().port().to_be_bytes());
    preface.extend([0x01, 0xbb, 2, 0, name.len() as u8]);
    preface.extend(name);
    inside.send(ToServer, &preface);
    inside
        .script(">>>\nGET /items HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 204 No Content\n\n")?
        .close();

    let mut stranger = Conversation::new(v4([10, 0, 0, 5], 50_001), app, START.plus_nanos(SECOND));
    stranger.handshake().send(ToServer, b"PROXY TCP4 192.0.2.77 203.0.113.10 999 443\r\n");
    stranger.script(
        ">>>\nGET /none HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 404 Not Found\nContent-Length: 0\n\n",
    )?;
    stranger.close();
    let all = merge(vec![outside.into_packets(), inside.into_packets(), stranger.into_packets()]);
    let mut capture = ethernet(
        "tls-join-proxy-protocol",
        &all,
        "both sides of a terminator: a TLS handshake outside, and inside two connections with PROXY protocol, version 2 \
         with a server name and version 1; the second one's handshake was not captured.",
        "two transactions; the first carries what the handshake showed and is joined, the second is unmatched.",
    );
    capture.config =
        Some("[client]\ntrusted_proxies = [\"10.0.0.0/8\"]\n\n[join]\nby = [\"proxy_protocol\"]\n");
    Ok(capture)
}
