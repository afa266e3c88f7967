use offpath_types::{Host, Peer, TunnelId};
use ring::{aead, hkdf};

use super::*;
use crate::tls::hello::tests::{client_body, ext, message, server_body, sni};

const DCID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
const V1: u32 = 1;
const V2: u32 = 0x6b33_43cf;
const DRAFT: u32 = 0xff00_001d;

/// One packet, before it is protected.
struct Plain<'a> {
    version: u32,
    server: bool,
    /// The id that keys are made of, and the one in the header.
    key_id: &'a [u8],
    destination: &'a [u8],
    token: &'a [u8],
    number: u32,
    frames: Vec<u8>,
}

fn plain(frames: Vec<u8>) -> Plain<'static> {
    Plain { version: V1, server: false, key_id: &DCID, destination: &DCID, token: &[], number: 0, frames }
}

fn expand(secret: &hkdf::Prk, label: &str, out: &mut [u8]) {
    struct L(usize);
    impl hkdf::KeyType for L {
        fn len(&self) -> usize {
            self.0
        }
    }
    let label = format!("tls13 {label}");
    let info = [&[0, out.len() as u8, label.len() as u8][..], label.as_bytes(), &[0]].concat();
    secret.expand(&[&info], L(out.len())).unwrap().fill(out).unwrap();
}

/// Protects a packet as RFC 9001 §5 says; written apart from the code under test.
fn seal(p: &Plain<'_>) -> Vec<u8> {
    let (salt, prefix) = match p.version {
        V1 => ("38762cf7f55934b34d179ae6a4c80cadccbb7f0a", "quic"),
        DRAFT => ("afbfec289993d24c9e9786f19c6111e04390a899", "quic"),
        _ => ("0dede3def700a6db819381be6e269dcbf9bd2ed9", "quicv2"),
    };
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &unhex(salt));
    let mut secret = [0; 32];
    expand(&salt.extract(p.key_id), if p.server { "server in" } else { "client in" }, &mut secret);
    let secret = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &secret);
    let (mut key, mut nonce, mut hp) = ([0; 16], [0; 12], [0; 16]);
    expand(&secret, &format!("{prefix} key"), &mut key);
    expand(&secret, &format!("{prefix} iv"), &mut nonce);
    expand(&secret, &format!("{prefix} hp"), &mut hp);

    let kind = if p.version == V2 { 0xd3 } else { 0xc3 };
    let mut header = [&[kind][..], &p.version.to_be_bytes(), &[p.destination.len() as u8]].concat();
    header.extend(p.destination);
    header.push(0);
    header.push(p.token.len() as u8);
    header.extend(p.token);
    header.extend((0x4000 | (4 + p.frames.len() + 16) as u16).to_be_bytes());
    let at = header.len();
    header.extend(p.number.to_be_bytes());
    nonce.iter_mut().skip(8).zip(p.number.to_be_bytes()).for_each(|(n, b)| *n ^= b);
    let mut body = p.frames.clone();
    let sealing = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_128_GCM, &key).unwrap());
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    sealing.seal_in_place_append_tag(nonce, aead::Aad::from(&header), &mut body).unwrap();
    let mut packet = [header, body].concat();
    let hp = aead::quic::HeaderProtectionKey::new(&aead::quic::AES_128, &hp).unwrap();
    let mask = hp.new_mask(&packet[at + 4..at + 20]).unwrap();
    packet[0] ^= mask[0] & 0x0f;
    (0..4).for_each(|i| packet[at + i] ^= mask[1 + i]);
    packet
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    let varint = |n: usize| (0x8000_0000 | n as u32).to_be_bytes();
    [&[6][..], &varint(offset), &varint(data.len()), data].concat()
}

fn padded(mut frames: Vec<u8>) -> Vec<u8> {
    frames.resize(frames.len().max(1162), 0);
    frames
}

fn hello(padding: usize) -> Vec<u8> {
    let exts = [
        sni("quic.example"),
        ext(16, b"\0\x03\x02h3"),
        ext(43, &[2, 3, 4]),
        ext(13, &[0, 2, 4, 3]),
        ext(57, &[]),
        ext(21, &vec![0; padding]),
    ];
    message(CLIENT_HELLO, &client_body(0x303, &[0x1301, 0x1302], &exts))
}

fn answer() -> Vec<u8> {
    message(SERVER_HELLO, &server_body(0x303, 0x1301, &[ext(43, &[3, 4])]))
}

fn ends() -> (FlowKey, Side) {
    let peer = |last, port| Peer { host: Host::from_v4([10, 0, 0, last]), port };
    FlowKey::new(peer(9, 50_000), peer(2, 443), TunnelId(0))
}

fn send(quic: &mut Quic, key: FlowKey, side: Side, payload: &[u8], time: Timestamp) {
    quic.datagram(&Datagram { time, key, side, envelope: Envelope::NONE, payload });
}

/// Runs datagrams, each from the client or the server, one millisecond apart.
fn run(datagrams: &[(bool, Vec<u8>)]) -> Quic {
    let mut quic = Quic::new(QuicLimits::default());
    let (key, client) = ends();
    for (i, (server, bytes)) in datagrams.iter().enumerate() {
        let side = if *server { client.flip() } else { client };
        send(&mut quic, key, side, bytes, Timestamp::from_nanos(1_000_000 * (i as u64 + 1)));
    }
    quic.finish();
    quic
}

/// Returns `(stage, server name, ja4, complete)` of each handshake.
fn found(quic: &mut Quic) -> Vec<(HandshakeStage, String, String, bool)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    std::mem::take(quic.handshakes())
        .iter()
        .map(|h| {
            assert_eq!((h.transport, h.flow.client().port), (Transport::Quic, 50_000));
            let ja4 = h.facts.ja4.map(|j| j.to_string()).unwrap_or_default();
            (h.stage, text(h.facts.server_name.as_deref().unwrap_or_default()), ja4, h.complete)
        })
        .collect()
}

const JA4_START: &str = "q13d0206h3_";

fn check(name: &str, datagrams: &[(bool, Vec<u8>)], complete: bool) -> Quic {
    let mut quic = run(datagrams);
    let got = found(&mut quic);
    assert_eq!(got.len(), 2, "{name}: {got:?} {:?}", quic.counters());
    for ((stage, server_name, ja4, done), want) in
        got.iter().zip([HandshakeStage::ClientHello, HandshakeStage::Done])
    {
        assert_eq!((*stage, server_name.as_str()), (want, "quic.example"), "{name}");
        assert!(ja4.starts_with(JA4_START), "{name}: {ja4}");
        assert_eq!(*done, complete && want == HandshakeStage::Done, "{name}");
    }
    quic
}

#[test]
fn keys_are_those_of_the_specifications() {
    // RFC 9001 §A.1 and RFC 9369 §A.1: client key, iv, hp of 0x8394c8f03e515708.
    for (version, want) in [
        (
            V1,
            [
                "1f369613dd76d5467730efcbe3b1a22d",
                "fa044b2f42a3fd3b46fb255c",
                "9f50449e04a0e810283a1e9933adedd2",
            ],
        ),
        (
            V2,
            [
                "8b1a0bc121284290a29e0971b5cd045d",
                "91f73e2351d8fa91660e909f",
                "45b95e15235d6f45a6b19cbcb0294ba9",
            ],
        ),
    ] {
        // What is sealed with the published keys is opened by those that are derived.
        let mut frames = padded(crypto(0, &hello(0)));
        frames.truncate(1162);
        let packet = seal(&Plain { version, ..plain(frames.clone()) });
        let (parsed, rest) = LongPacket::parse(&packet).unwrap();
        assert!(rest.is_empty());
        let at = parsed.number_at;
        let hp = aead::quic::HeaderProtectionKey::new(&aead::quic::AES_128, &unhex(want[2])).unwrap();
        let mask = hp.new_mask(&packet[at + 4..at + 20]).unwrap();
        let mut header = packet[..at + 4].to_vec();
        header[0] ^= mask[0] & 0x0f;
        (0..4).for_each(|i| header[at + i] ^= mask[1 + i]);
        let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_128_GCM, &unhex(want[0])).unwrap());
        let nonce = aead::Nonce::try_assume_unique_for_key(&unhex(want[1])).unwrap();
        let mut body = packet[at + 4..].to_vec();
        assert_eq!(
            key.open_in_place(nonce, aead::Aad::from(&header), &mut body).unwrap(),
            frames,
            "{version:x}"
        );

        let mut keys = InitialKeys::new(parsed.version, parsed.destination);
        let mut out = Vec::new();
        assert_eq!(keys.open(Sender::Client, &parsed, &mut out), Some(()));
        assert_eq!(out, frames);
        assert_eq!(keys.open(Sender::Server, &parsed, &mut out), None);
    }
}

#[test]
fn hellos_come_out_of_one_datagram_of_either_version() {
    for version in [V1, V2, DRAFT] {
        let client = seal(&Plain { version, ..plain(padded(crypto(0, &hello(0)))) });
        let server = seal(&Plain { version, server: true, destination: &[], ..plain(crypto(0, &answer())) });
        let quic = check("both hellos", &[(false, client.clone()), (true, server)], true);
        let c = quic.counters();
        assert_eq!((c.client_hellos_total, c.server_hellos_total, c.handshakes_total), (1, 1, 1));
        check("one-sided", &[(false, client)], false);
    }
}

#[test]
fn frames_are_shuffled_over_packets_and_datagrams() {
    // A post-quantum hello is longer than a datagram.
    let long = hello(1500);
    let pieces: Vec<_> = long.chunks(150).enumerate().map(|(i, part)| crypto(i * 150, part)).collect();
    let packet = |number: u32, pieces: &[&Vec<u8>]| {
        let frames = pieces.iter().flat_map(|p| [&[0u8, 1][..], p].concat()).collect();
        seal(&Plain { number, ..plain(frames) })
    };
    let p = &pieces;
    let second = packet(1, &[&p[7], &p[9], &p[5], &p[1]]);
    let first = packet(0, &[&p[3], &p[10], &p[0], &p[8], &p[3]]);
    let third = packet(2, &[&p[4], &p[6], &p[2]]);
    let rest = packet(3, &p[11..].iter().collect::<Vec<_>>());
    for order in
        [[&first, &second, &third, &rest], [&rest, &third, &second, &first], [&second, &first, &rest, &third]]
    {
        let apart: Vec<_> = order.iter().map(|d| (false, (*d).clone())).collect();
        check("a packet in a datagram", &apart, false);
        check("all in one datagram", &[(false, order.map(Clone::clone).concat())], false);
        let twice: Vec<_> = apart.iter().flat_map(|d| [d.clone(), d.clone()]).collect();
        check("each twice", &twice, false);
    }
}

#[test]
fn what_stands_beside_an_initial_packet_is_passed_over() {
    let initial = seal(&plain(padded(crypto(0, &hello(0)))));
    // 0-RTT and Handshake packets with a length, bytes of a short header behind them.
    let other = |bits: u8| [&[0xc0 | bits << 4, 0, 0, 0, 1, 1, 7, 0, 20][..], &[9; 20]].concat();
    let datagram = [other(1), initial, other(2), vec![0x40, 1, 2, 3]].concat();
    let quic = check("coalesced", &[(false, datagram)], false);
    let c = quic.counters();
    assert_eq!((c.packets_total, c.packets_opened_total, c.packets_other_total), (4, 1, 3));
}

#[test]
fn a_retry_changes_the_keys_and_is_one_handshake() {
    let first = seal(&plain(padded(crypto(0, &hello(0)))));
    let retry = [&[0xf0, 0, 0, 0, 1, 0, 4, 1, 2, 3, 4][..], &[5; 40]].concat();
    let id: &[u8] = &[1, 2, 3, 4];
    let again = Plain {
        key_id: id,
        destination: id,
        token: &[5; 24],
        number: 1,
        ..plain(padded(crypto(0, &hello(0))))
    };
    let server = Plain { key_id: id, destination: &[], server: true, ..plain(crypto(0, &answer())) };
    let all = [(false, first), (true, retry), (false, seal(&again)), (true, seal(&server))];
    check("retry", &all, true);
}

#[test]
fn ports_that_are_used_again_are_another_handshake() {
    let client = |id| seal(&Plain { key_id: id, destination: id, ..plain(padded(crypto(0, &hello(0)))) });
    let server =
        |id| seal(&Plain { key_id: id, destination: &[], server: true, ..plain(crypto(0, &answer())) });
    let mut quic = run(&[
        (false, client(&[1; 8])),
        (true, server(&[1; 8])),
        (false, client(&[2; 8])),
        (true, server(&[2; 8])),
    ]);
    let indexes: Vec<_> = quic.handshakes().iter().map(|h| (h.index, h.stage)).collect();
    use HandshakeStage::{ClientHello, Done};
    assert_eq!(indexes, [(0, ClientHello), (0, Done), (1, ClientHello), (1, Done)]);
}

#[test]
fn what_cannot_be_opened_is_counted_and_every_cut_is_harmless() {
    let whole = seal(&plain(padded(crypto(0, &hello(0)))));
    for cut in 0..whole.len() {
        let quic = run(&[(false, whole[..cut].to_vec())]);
        let c = quic.counters();
        assert_eq!(
            (c.client_hellos_total, c.packets_malformed_total),
            (0, u64::from(cut > 0)),
            "cut at {cut}"
        );
    }
    for at in [0, 6, 17, 20, 60, 1000, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let quic = run(&[(false, bytes)]);
        assert_eq!(quic.counters().client_hellos_total, 0, "byte {at}");
    }
    let quic = run(&[(true, seal(&Plain { server: true, ..plain(crypto(0, &answer())) }))]);
    assert_eq!(quic.counters().packets_undecryptable_total, 1, "a server's packet without its client's");
}

#[test]
fn flows_are_bounded_and_expire_on_packet_time() {
    let limits = QuicLimits { flows_max: 3, held_bytes_max: 4000, flow_nanos_max: 1000 };
    let start = seal(&plain(padded(crypto(100, &hello(0)[100..]))));
    let whole = seal(&plain(padded(crypto(0, &hello(0)))));
    let key = |port| {
        let peer = |last, port| Peer { host: Host::from_v4([10, 0, 0, last]), port };
        FlowKey::new(peer(9, port), peer(2, 443), TunnelId(0))
    };
    let mut quic = Quic::new(limits);
    for port in 0..10 {
        let (key, side) = key(port);
        send(&mut quic, key, side, &start, Timestamp::from_nanos(1 + u64::from(port)));
    }
    assert_eq!((quic.flows.len(), quic.counters().flows_evicted_total), (3, 7));
    let (key, side) = key(77);
    send(&mut quic, key, side, &whole, Timestamp::from_nanos(500));
    quic.advance(Timestamp::from_nanos(1499));
    assert_eq!(quic.flows.len(), 1);
    quic.advance(Timestamp::from_nanos(1_000_000));
    assert_eq!((quic.flows.len(), quic.held_bytes, quic.counters().flows_held), (0, 0, 0));
    let last = quic.handshakes().last().map(|h| (h.stage, h.emitted, h.complete));
    assert_eq!(
        last,
        Some((HandshakeStage::Done, Timestamp::from_nanos(1500), false)),
        "at its time, not when noticed"
    );
}

#[test]
fn fuzz_body_runs_on_seeds() {
    let record =
        |control: u8, bytes: &[u8]| [&[control][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let client = seal(&plain(padded(crypto(0, &hello(0)))));
    let server = seal(&Plain { server: true, destination: &[], ..plain(crypto(0, &answer())) });
    let both = [record(0, &client), record(8, &server)].concat();
    for cut in (0..both.len()).step_by(37) {
        fuzz_quic_initial(&both[..cut]);
    }
    let many: Vec<u8> = (0..20u8).flat_map(|i| record(i << 4 | i & 7, &client)).collect();
    fuzz_quic_initial(&many);
}
