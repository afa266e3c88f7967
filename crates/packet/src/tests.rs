//! Every envelope by itself and nested, cut at every length; fragments; random bytes.

use offpath_types::{Envelope, FlowKey, Frame, LinkType, Side, Timestamp, TunnelKind};
use proptest::prelude::*;

use crate::testing::*;
use crate::{
    DecodeCounters, DecodeError, Decoder, DecoderLimits, Layer, LengthSource, Outcome, SeqNum, TcpFlags,
    fuzz_decode_frame,
};

/// What a test keeps of an outcome.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Tcp { key: FlowKey, side: Side, payload: Vec<u8>, payload_len: u32 },
    NotTcp,
    Held,
    Error(DecodeError),
}

fn decode(decoder: &mut Decoder, frame: &Frame<'_>) -> Got {
    let got = match decoder.decode(frame) {
        Outcome::Tcp(s) => {
            assert_eq!((s.seq, s.ack, s.window), (SeqNum(1000), SeqNum(2000), 65_000));
            assert_eq!(s.flags, TcpFlags::PSH.with(TcpFlags::ACK));
            assert_eq!(s.time, frame.time);
            Got::Tcp { key: s.key, side: s.side, payload: s.payload.to_vec(), payload_len: s.payload_len }
        }
        Outcome::NotTcp | Outcome::Udp(_) | Outcome::Sctp(_) => Got::NotTcp,
        Outcome::FragmentHeld => Got::Held,
        Outcome::Duplicate => panic!("a copy"),
        Outcome::Undecodable(error) => Got::Error(error),
    };
    assert!(decoder.counters().is_balanced(), "{:?}", decoder.counters());
    got
}

fn decode_once(link: LinkType, bytes: &[u8]) -> Got {
    decode(&mut Decoder::default(), &frame(link, bytes))
}

fn error(got: Got) -> DecodeError {
    match got {
        Got::Error(error) => error,
        other => panic!("{other:?}"),
    }
}

/// Returns the sender, the receiver and the tunnel id of the segment in `got`, with its payload checked.
fn flow(name: &str, got: &Got) -> (String, String, u64) {
    let Got::Tcp { key, side, payload, payload_len } = got else { panic!("{name}: {got:?}") };
    assert_eq!(payload, HELLO, "{name}");
    assert_eq!(*payload_len as usize, HELLO.len(), "{name}");
    let text = |side| format!("{}:{}", key.peer(side).host, key.peer(side).port);
    (text(*side), text(side.flip()), key.tunnel().0)
}

const VXLAN: u64 = 1 << 32;
const GENEVE: u64 = 2 << 32;
const GRE_KEY: u64 = 3 << 32;
const VLAN: u64 = 5 << 32;

/// Every envelope: name, link type, frame, tunnel id.
fn envelopes() -> Vec<(&'static str, LinkType, Vec<u8>, u64)> {
    use LinkType::*;
    let v4 = ip4(6, &tcp(HELLO));
    let v6 = ip6(6, &tcp(HELLO));
    let inner = eth_tcp();
    let mac_then = |rest: &[u8]| cat(&[&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], rest]);
    let be = |n: usize| (n as u16).to_be_bytes();
    let mut rows = vec![
        ("ethernet v4", Ethernet, eth(0x0800, &v4), 0),
        ("ethernet v6", Ethernet, eth(0x86dd, &v6), 0),
        ("ethernet with padding", Ethernet, cat(&[&inner, &[0xee; 6]]), 0),
        (
            "802.3 snap",
            Ethernet,
            mac_then(&cat(&[&be(8 + v4.len()), &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &v4, &[0; 9]])),
            0,
        ),
        ("802.3 llc ip", Ethernet, mac_then(&cat(&[&be(3 + v4.len()), &[6, 6, 3], &v4])), 0),
        ("vlan", Ethernet, eth(0x8100, &cat(&[&[0, 42, 8, 0], &v4])), 0),
        ("qinq", Ethernet, eth(0x88a8, &cat(&[&[0, 42, 0x81, 0, 0, 43, 0x86, 0xdd], &v6])), 0),
        (
            "five tags",
            Ethernet,
            eth(
                0x9100,
                &cat(&[&[0, 1, 0x92, 0, 0, 2, 0x88, 0xa8, 0, 3, 0x81, 0, 0, 4, 0x81, 0, 0, 5, 8, 0], &v4]),
            ),
            0,
        ),
        (
            "vlan and snap",
            Ethernet,
            eth(0x8100, &cat(&[&[0, 42], &be(8 + v4.len()), &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &v4])),
            0,
        ),
        ("null little endian", Null, cat(&[&2u32.to_le_bytes(), &v4]), 0),
        ("null big endian", Null, cat(&[&2u32.to_be_bytes(), &v4]), 0),
        ("loop", Loop, cat(&[&24u32.to_be_bytes(), &v6]), 0),
        ("raw v4", Raw, v4.clone(), 0),
        ("raw v6", Raw, v6.clone(), 0),
        ("raw ipv4 only", RawIpv4, v4.clone(), 0),
        ("raw ipv6 only", RawIpv6, v6.clone(), 0),
        ("sll", LinuxSll, cat(&[&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0], &v4]), 0),
        (
            "sll vlan",
            LinuxSll,
            cat(&[&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 0x81, 0, 0, 7, 8, 0], &v4]),
            0,
        ),
        (
            "sll2",
            LinuxSll2,
            cat(&[&[0x86, 0xdd, 0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0], &v6]),
            0,
        ),
        ("ppp", Ppp, cat(&[&[0x00, 0x21], &v4]), 0),
        ("ppp framed", Ppp, cat(&[&[0xff, 0x03, 0x00, 0x57], &v6]), 0),
        ("ppp short protocol", Ppp, cat(&[&[0xff, 0x03, 0x21], &v4]), 0),
        ("ppp type with cisco hdlc", Ppp, cat(&[&[0x0f, 0, 8, 0], &v4]), 0),
        ("cisco hdlc", CiscoHdlc, cat(&[&[0x0f, 0, 0x86, 0xdd], &v6]), 0),
        ("mpls v4", Ethernet, eth(0x8847, &cat(&[&mpls_label(16, true), &v4])), 0),
        (
            "mpls three labels v6",
            Ethernet,
            eth(0x8847, &cat(&[&mpls_label(16, false), &mpls_label(17, false), &mpls_label(18, true), &v6])),
            0,
        ),
        (
            "mpls control word",
            Ethernet,
            eth(0x8848, &cat(&[&mpls_label(16, true), &[0, 0, 0, 9], &inner])),
            0,
        ),
        ("mpls ethernet, mac with 0", Ethernet, eth(0x8847, &cat(&[&mpls_label(16, true), &inner])), 0),
        (
            "mpls ethernet, mac with 4",
            Ethernet,
            eth(0x8847, &cat(&[&mpls_label(16, true), &[0x40], &inner[1..]])),
            0,
        ),
        (
            "mpls ethernet, mac with 1",
            Ethernet,
            eth(0x8847, &cat(&[&mpls_label(16, true), &[0x18], &inner[1..]])),
            0,
        ),
        (
            "mpls ethernet, mac with 6 and a",
            Ethernet,
            eth(0x8847, &cat(&[&mpls_label(16, true), &[0x6a, 0, 0, 0, 0xff, 0xff], &inner[6..]])),
            0,
        ),
        (
            "pppoe",
            Ethernet,
            eth(0x8864, &cat(&[&[0x11, 0, 0, 5], &be(2 + v4.len()), &[0, 0x21], &v4, &[0; 7]])),
            0,
        ),
        ("ip in ip", Ethernet, eth(0x0800, &outer4(4, &v4)), 0),
        ("6in4", Ethernet, eth(0x0800, &outer4(41, &v6)), 0),
        ("4in6", Ethernet, eth(0x86dd, &ip6(4, &v4)), 0),
        ("etherip", Ethernet, eth(0x0800, &outer4(97, &cat(&[&[0x30, 0], &inner]))), 0),
        ("mpls in ip", Ethernet, eth(0x0800, &outer4(137, &cat(&[&mpls_label(16, true), &v4]))), 0),
        ("ethernet in ipv6", Ethernet, eth(0x86dd, &ip6(143, &inner)), 0),
        ("gre", Ethernet, over_gre(&[0, 0, 8, 0], &v4), 0),
        (
            "gre checksum key sequence",
            Ethernet,
            over_gre(&[0xb0, 0, 0x86, 0xdd, 1, 2, 0, 0, 0, 0, 0, 99, 0, 0, 0, 1], &v6),
            GRE_KEY | 99,
        ),
        (
            "gre routing",
            Ethernet,
            over_gre(&[0x40, 0, 8, 0, 0, 0, 0, 0, 8, 0, 0, 4, 10, 0, 0, 9, 0, 0, 0, 0], &v4),
            0,
        ),
        ("gre ethernet", Ethernet, over_gre(&[0x20, 0, 0x65, 0x58, 0, 0, 0, 7], &inner), GRE_KEY | 7),
        ("gre mirror, one direction", Ethernet, over_gre(&[0x20, 0, 0x65, 0x58, 0, 0, 0, 0], &inner), 0),
        ("gre mirror, the other", Ethernet, over_gre(&[0x20, 0, 0x65, 0x58, 2, 0, 0, 0], &inner), 0),
        ("gre mpls", Ethernet, over_gre(&[0, 0, 0x88, 0x47], &cat(&[&mpls_label(3, true), &v4])), 0),
        (
            "pptp",
            Ethernet,
            over_gre(
                &cat(&[&[0x30, 0x81, 0x88, 0x0b], &be(4 + v4.len()), &[0, 5, 0, 0, 0, 1, 0, 0, 0, 0]]),
                &cat(&[&[0xff, 3, 0, 0x21], &v4]),
            ),
            0,
        ),
        ("erspan 1", Ethernet, over_gre(&[0, 0, 0x88, 0xbe], &inner), 0),
        ("erspan 1 with a key", Ethernet, over_gre(&[0x20, 0, 0x88, 0xbe, 2, 0, 0, 0], &inner), 0),
        (
            "erspan 2",
            Ethernet,
            over_gre(&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 10, 0xfc, 100, 0, 0, 0, 7], &inner),
            0,
        ),
        (
            "erspan 3",
            Ethernet,
            over_gre(&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 10, 0, 100, 0, 0, 0, 9, 0, 0, 0x80, 0], &inner),
            0,
        ),
        (
            "erspan 3 subheader",
            Ethernet,
            over_gre(
                &[
                    0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 10, 0, 100, 0, 0, 0, 9, 0, 0, 0x80, 1, 1, 2, 3, 4,
                    5, 6, 7, 8,
                ],
                &inner,
            ),
            0,
        ),
        (
            "erspan 3 bare ip",
            Ethernet,
            over_gre(&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 10, 0, 100, 0, 0, 0, 9, 0, 0, 0x08, 0], &v4),
            0,
        ),
        ("gre over udp", Ethernet, over_udp(4754, &cat(&[&[0x20, 0, 8, 0, 0, 0, 0, 8], &v4])), GRE_KEY | 8),
        ("fabricpath", Ethernet, eth(0x8903, &cat(&[&[0x40, 0x20], &inner])), 0),
        ("vxlan", Ethernet, over_udp(4789, &vxlan(4242, &inner)), VXLAN | 4242),
        ("vxlan linux port", Ethernet, over_udp(8472, &vxlan(1, &inner)), VXLAN | 1),
        (
            "vxlan over ipv6",
            Ethernet,
            eth(0x86dd, &ip6(17, &udp(5, 4789, &vxlan(4242, &inner)))),
            VXLAN | 4242,
        ),
        (
            "vxlan-gpe ethernet",
            Ethernet,
            over_udp(4790, &cat(&[&[0x0c, 0, 0, 3, 0, 0, 9, 0], &inner])),
            VXLAN | 9,
        ),
        ("vxlan-gpe v4", Ethernet, over_udp(4790, &cat(&[&[0x0c, 0, 0, 1, 0, 0, 9, 0], &v4])), VXLAN | 9),
        ("vxlan-gpe v6", Ethernet, over_udp(4790, &cat(&[&[0x0c, 0, 0, 2, 0, 0, 9, 0], &v6])), VXLAN | 9),
        (
            "vxlan-gpe nsh",
            Ethernet,
            over_udp(
                4790,
                &cat(&[&[0x0c, 0, 0, 4, 0, 0, 9, 0, 0, 3, 1, 3, 0, 0, 1, 255, 1, 2, 3, 4], &inner]),
            ),
            VXLAN | 9,
        ),
        (
            "geneve options ethernet",
            Ethernet,
            over_udp(
                6081,
                &cat(&[&[3, 0, 0x65, 0x58, 0, 0, 77, 0, 1, 8, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7], &inner]),
            ),
            GENEVE | 77,
        ),
        ("geneve v4, id 0", Ethernet, over_udp(6081, &cat(&[&[0, 0, 8, 0, 0, 0, 0, 0], &v4])), GENEVE),
        ("gtp-u", Ethernet, over_udp(2152, &cat(&[&[0x30, 255], &be(v4.len()), &[0, 0, 0, 9], &v4])), 0),
        (
            "gtp-u extension headers",
            Ethernet,
            over_udp(
                2152,
                &cat(&[
                    &[0x34, 255],
                    &be(16 + v6.len()),
                    &[0, 0, 0, 9, 0, 0, 0, 0x85, 1, 0x10, 9, 0xc0, 2, 1, 2, 3, 4, 5, 6, 0],
                    &v6,
                ]),
            ),
            0,
        ),
        ("vxlan datagram", Vxlan, vxlan(4242, &inner), VXLAN | 4242),
        ("vxlan-gpe datagram", Vxlan, cat(&[&[0x0c, 0, 0, 1, 0, 0, 9, 0], &v4]), VXLAN | 9),
        ("geneve datagram", Geneve, cat(&[&[1, 0, 0x86, 0xdd, 0, 0, 77, 0, 1, 8, 1, 0], &v6]), GENEVE | 77),
        ("teredo", Ethernet, over_udp(3544, &v6), 0),
        (
            "teredo with authentication and origin",
            Ethernet,
            over_udp(
                3544,
                &cat(&[&[0, 1, 1, 2, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4], &v6]),
            ),
            0,
        ),
        (
            "ip options",
            Raw,
            {
                let mut packet = cat(&[&v4[..20], &[1, 1, 1, 0], &v4[20..]]);
                packet[0] = 0x46;
                packet[3] += 4;
                packet
            },
            0,
        ),
        (
            "ipv6 extension headers",
            Raw,
            ip6(
                0,
                &cat(&[
                    // hop-by-hop, routing, destination, mobility, atomic fragment, AH
                    &[43, 0, 1, 4, 0, 0, 0, 0],
                    &[60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                    &[135, 0, 1, 4, 0, 0, 0, 0],
                    &[44, 0, 0, 0, 0, 0, 0, 0],
                    &[51, 0, 0, 0, 0, 0, 0, 1],
                    &[6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2],
                    &tcp(HELLO),
                ]),
            ),
            0,
        ),
        ("ipv4 ah", Raw, ip4(51, &cat(&[&[6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], &tcp(HELLO)])), 0),
        (
            "total length 0",
            Raw,
            {
                let mut packet = v4.clone();
                packet[2..4].fill(0);
                packet
            },
            0,
        ),
        (
            "payload length 0",
            Raw,
            {
                let mut packet = v6.clone();
                packet[4..6].fill(0);
                packet
            },
            0,
        ),
    ];
    // Nested: a mirror (ERSPAN) of an overlay (VXLAN) of tagged frames holding 6in4 in GRE.
    let gre = outer4(47, &cat(&[&[0, 0, 8, 0], &outer4(41, &v6)[..]]));
    let overlay = over_udp(4789, &vxlan(5, &eth(0x8100, &cat(&[&[0, 9, 8, 0], &gre]))));
    let nested = over_gre(&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 10, 0, 100, 0, 0, 0, 7], &overlay);
    let id = tunnel_id(&nested);
    rows.push(("nested", Ethernet, nested, id));
    rows
}

fn envelope(limits: DecoderLimits, link: LinkType, bytes: &[u8]) -> (Envelope, u64) {
    match Decoder::new(limits).decode(&frame(link, bytes)) {
        Outcome::Tcp(segment) => (segment.envelope, segment.key.tunnel().0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn tags_and_the_innermost_tunnel_are_noted() {
    use TunnelKind::*;
    type Row = (&'static str, Option<u16>, Option<u16>, Option<(TunnelKind, Option<u32>)>);
    let want: &[Row] = &[
        ("ethernet v4", None, None, None),
        ("vlan", Some(42), None, None),
        ("qinq", Some(42), Some(43), None),
        ("five tags", Some(1), Some(5), None),
        ("sll vlan", Some(7), None, None),
        ("mpls three labels v6", None, None, Some((Mpls, Some(18)))),
        ("mpls control word", None, None, Some((Mpls, Some(16)))),
        ("pppoe", None, None, Some((Pppoe, Some(5)))),
        ("6in4", None, None, Some((IpInIp, None))),
        ("etherip", None, None, Some((EtherIp, None))),
        ("ethernet in ipv6", None, None, Some((EtherIp, None))),
        ("gre", None, None, Some((Gre, None))),
        ("gre checksum key sequence", None, None, Some((Gre, Some(99)))),
        ("pptp", None, None, Some((Pptp, Some(5)))),
        ("erspan 1", None, None, Some((Erspan, None))),
        ("erspan 2", Some(10), None, Some((Erspan, Some(100)))),
        ("erspan 3 subheader", Some(10), None, Some((Erspan, Some(100)))),
        ("erspan 3 bare ip", Some(10), None, Some((Erspan, Some(100)))),
        ("fabricpath", None, None, Some((FabricPath, None))),
        ("vxlan", None, None, Some((Vxlan, Some(4242)))),
        ("vxlan-gpe nsh", None, None, Some((Nsh, Some(1)))),
        ("geneve options ethernet", None, None, Some((Geneve, Some(77)))),
        ("gtp-u", None, None, Some((GtpU, Some(9)))),
        ("teredo with authentication and origin", None, None, Some((Teredo, None))),
        ("nested", Some(9), None, Some((IpInIp, None))),
    ];
    let rows = envelopes();
    for (name, vlan, inner, tunnel) in want {
        let (_, link, bytes, _) = rows.iter().find(|row| row.0 == *name).unwrap();
        let (got, _) = envelope(DecoderLimits::default(), *link, bytes);
        assert_eq!((got.vlan(), got.vlan_inner(), got.tunnel()), (*vlan, *inner, *tunnel), "{name}");
    }
    // A tag that the mirrored frame kept counts instead of what ERSPAN's header says.
    let tagged = eth(0x8100, &cat(&[&[0, 42, 8, 0], &ip4(6, &tcp(HELLO))]));
    let bytes = over_gre(&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 42, 0, 100, 0, 0, 0, 7], &tagged);
    let (got, _) = envelope(DecoderLimits::default(), LinkType::Ethernet, &bytes);
    assert_eq!((got.vlan(), got.vlan_inner()), (Some(42), None));
}

#[test]
fn erspan_sessions_part_flows_only_when_asked_to() {
    let session = |low| {
        let header = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 42, 0xfc, low, 0, 0, 0, 7];
        over_gre(&header, &eth_tcp())
    };
    for (erspan_in_key, want) in [(false, [0, 0]), (true, [(4 << 32) | 1, (4 << 32) | 2])] {
        let limits = DecoderLimits { erspan_in_key, ..DecoderLimits::default() };
        let got = [1, 2].map(|low| envelope(limits, LinkType::Ethernet, &session(low)).1);
        assert_eq!(got, want, "{erspan_in_key}");
    }
}

fn tunnel_id(bytes: &[u8]) -> u64 {
    flow("tunnel_id", &decode_once(LinkType::Ethernet, bytes)).2
}

#[test]
fn every_envelope_leads_to_the_inner_segment() {
    for (name, link, bytes, tunnel) in envelopes() {
        let got = flow(name, &decode_once(link, &bytes));
        let v6 = got.0.starts_with("2001:db8::1:40000");
        let ends =
            if v6 { ("2001:db8::1:40000", "2001:db8::2:80") } else { ("10.0.0.1:40000", "10.0.0.2:80") };
        assert_eq!((got.0.as_str(), got.1.as_str(), got.2), (ends.0, ends.1, tunnel), "{name}");
    }
}

#[test]
fn every_prefix_is_an_error_a_short_segment_or_something_else_but_never_a_panic() {
    for (name, link, bytes, _) in envelopes() {
        for len in 0..bytes.len() {
            for wire_len in [len, bytes.len()] {
                let mut decoder = Decoder::default();
                let cut = Frame { wire_len: wire_len as u32, ..frame(link, &bytes[..len]) };
                match decode(&mut decoder, &cut) {
                    Got::Tcp { payload, payload_len, .. } => {
                        assert!(HELLO.starts_with(&payload), "{name} {len}");
                        // Without any length field in the way, only the capture knows what was cut.
                        if wire_len == bytes.len() || !name.ends_with("length 0") {
                            assert_eq!(payload_len as usize, HELLO.len(), "{name} {len}");
                        }
                    }
                    Got::Error(DecodeError::Truncated { needed, available, .. }) => {
                        assert!(available < needed && available as usize <= len, "{name} {len}");
                    }
                    // A tunnel header over UDP that is not whole is just UDP; so is what MPLS hides.
                    Got::NotTcp => {}
                    other => panic!("{name} {len}: {other:?}"),
                }
                assert_eq!(decoder.datagrams_open(), 0);
            }
        }
    }
}

#[test]
fn snap_cut_segments_keep_the_announced_length() {
    let bytes = eth_tcp();
    let headers = bytes.len() - HELLO.len();
    for keep in [0, 1, HELLO.len() - 1] {
        let cut =
            Frame { wire_len: bytes.len() as u32, ..frame(LinkType::Ethernet, &bytes[..headers + keep]) };
        let mut decoder = Decoder::default();
        let Got::Tcp { payload, payload_len, .. } = decode(&mut decoder, &cut) else { panic!("{keep}") };
        assert_eq!((payload.len(), payload_len as usize), (keep, HELLO.len()));
        assert_eq!(decoder.counters().tcp_payload_bytes_total, keep as u64);
        assert_eq!(decoder.counters().tcp_payload_cut_bytes_total, (HELLO.len() - keep) as u64);
    }
    assert_eq!(
        error(decode_once(LinkType::Ethernet, &bytes[..headers - 1])),
        DecodeError::Truncated {
            layer: Layer::Tcp,
            needed: 32,
            available: 31,
            length_from: LengthSource::Captured
        }
    );
}

/// An IPv6 packet whose source (1) or destination (2) is a Teredo address.
fn teredo_packet(end: usize) -> Vec<u8> {
    let mut packet = ip6(6, &tcp(HELLO));
    packet[end * 16 - 6..end * 16].fill(0);
    packet[end * 16 - 8..end * 16 - 4].copy_from_slice(&[0x20, 1, 0, 0]);
    packet
}

#[test]
fn teredo_between_peers_is_known_by_its_addresses() {
    // As in zeek's teredo_bubble_with_payload.pcap: ports 3797 and 32900.
    for (end, want) in [(1, "2001::1:40000"), (2, "2001:db8::1:40000")] {
        let got = flow("peers", &decode_once(LinkType::Ethernet, &over_udp(32900, &teredo_packet(end))));
        assert_eq!((got.0.as_str(), got.2), (want, 0), "{end}");
    }
}

#[test]
fn what_is_not_tcp_counts_under_its_kind() {
    let quote = ip4(6, &tcp(b""));
    let icmp_error = cat(&[&[3, 1, 0, 0, 0, 0, 0, 0], &quote]);
    type Counter = fn(&DecodeCounters) -> u64;
    let (udp_, icmp): (Counter, Counter) = (|c| c.frames_udp_total, |c| c.frames_icmp_total);
    let (other, non_ip): (Counter, Counter) = (|c| c.frames_ip_other_total, |c| c.frames_non_ip_total);
    let rows: Vec<(&str, Vec<u8>, Counter)> = vec![
        ("arp", eth(0x0806, &[0; 28]), non_ip),
        ("stp", eth(38, &[0x42, 0x42, 3, 0, 0, 0, 0]), non_ip),
        ("snap of another vendor", eth(20, &[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0, 1, 2]), non_ip),
        ("pppoe discovery", eth(0x8863, &[0x11, 9, 0, 0, 0, 0]), non_ip),
        ("pppoe padt", eth(0x8864, &[0x11, 0xa7, 0, 0, 0, 0]), non_ip),
        ("ppp lcp", eth(0x8864, &[0x11, 0, 0, 1, 0, 4, 0xc0, 0x21, 1, 1]), non_ip),
        ("mpls channel", eth(0x8847, &cat(&[&mpls_label(13, true), &[0x10, 0, 0, 7]])), non_ip),
        ("vxlan with arp", over_udp(4789, &vxlan(1, &eth(0x0806, &[0; 28]))), non_ip),
        ("gre keepalive", over_gre(&[0, 0, 0, 0], &[]), non_ip),
        ("dns", over_udp(53, &[0; 30]), udp_),
        ("vxlan port, no vxlan", over_udp(4789, &[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0]), udp_),
        ("vxlan port, short", over_udp(4789, &[0x08]), udp_),
        ("gpe port, unknown protocol", over_udp(4790, &[0x0c, 0, 0, 9, 0, 0, 1, 0]), udp_),
        ("gre port, no gre", over_udp(4754, &[0xff, 0xff, 8, 0, 1, 2, 3, 4]), udp_),
        ("geneve control", over_udp(6081, &[0, 0x80, 8, 0, 0, 0, 0, 0]), udp_),
        ("geneve options past the end", over_udp(6081, &[0x3f, 0, 8, 0, 0, 0, 0, 0]), udp_),
        ("gtp echo", over_udp(2152, &[0x32, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0]), udp_),
        ("gtp extension of length 0", over_udp(2152, &[0x34, 255, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]), udp_),
        ("ipv6 of no teredo address on some port", over_udp(32900, &ip6(6, &tcp(HELLO))), udp_),
        ("teredo address, other length", over_udp(32900, &cat(&[&teredo_packet(1), &[0]])), udp_),
        ("teredo bubble of another kind", over_udp(3544, &[0x45; 40]), udp_),
        ("icmp echo", eth(0x0800, &ip4(1, &[8, 0, 0, 0])), icmp),
        ("icmp error quoting tcp", eth(0x0800, &ip4(1, &icmp_error)), icmp),
        ("icmpv6 error quoting tcp", eth(0x86dd, &ip6(58, &icmp_error)), icmp),
        ("esp", eth(0x0800, &ip4(50, &[0; 20])), other),
        ("no next header", eth(0x86dd, &ip6(59, &[])), other),
        ("hop-by-hop number in ipv4", eth(0x0800, &ip4(0, &[6, 0, 0, 0, 0, 0, 0, 0])), other),
        ("pptp acknowledgement", over_gre(&[0x20, 0x81, 0x88, 0x0b, 0, 0, 0, 1, 0, 0, 0, 1], &[]), other),
        ("gre version 2", over_gre(&[0, 2, 8, 0], &quote), other),
    ];
    for (name, bytes, counter) in rows {
        let mut decoder = Decoder::default();
        assert_eq!(decode(&mut decoder, &frame(LinkType::Ethernet, &bytes)), Got::NotTcp, "{name}");
        assert_eq!(counter(decoder.counters()), 1, "{name}: {:?}", decoder.counters());
    }
}

#[test]
fn damaged_headers_are_named() {
    let v4 = ip4(6, &tcp(HELLO));
    let with = |at: usize, value: u8| {
        let mut packet = v4.clone();
        packet[at] = value;
        packet
    };
    let mut total_len = v4.clone();
    total_len[2..4].copy_from_slice(&19u16.to_be_bytes());
    let mut inside_tcp = v4.clone();
    inside_tcp[2..4].copy_from_slice(&45u16.to_be_bytes());
    let invalid = |layer, needed, available| DecodeError::HeaderInvalid { layer, needed, available };
    let rows = [
        ("version", LinkType::Raw, with(0, 0x55), invalid(Layer::Ipv4, 4, 5)),
        ("version behind an ethertype", LinkType::RawIpv4, with(0, 0x65), invalid(Layer::Ipv4, 4, 6)),
        ("ipv6 version", LinkType::RawIpv6, v4.clone(), invalid(Layer::Ipv6, 6, 4)),
        ("header length", LinkType::Raw, with(0, 0x44), invalid(Layer::Ipv4, 5, 4)),
        ("total length", LinkType::Raw, total_len, invalid(Layer::Ipv4, 20, 19)),
        ("data offset", LinkType::Raw, with(32, 0x40), invalid(Layer::Tcp, 5, 4)),
        (
            "tcp header past the ip length",
            LinkType::Raw,
            inside_tcp,
            DecodeError::Truncated {
                layer: Layer::Tcp,
                needed: 32,
                available: 25,
                length_from: LengthSource::Ipv4,
            },
        ),
        (
            "unsupported link",
            LinkType::Unsupported(147),
            v4.clone(),
            DecodeError::LinkUnsupported { number: 147 },
        ),
    ];
    for (name, link, bytes, want) in rows {
        let mut decoder = Decoder::default();
        assert_eq!(error(decode(&mut decoder, &frame(link, &bytes))), want, "{name}");
        assert_eq!(decoder.counters().frames_dropped(), 1, "{name}");
        assert!(!want.to_string().is_empty() && !want.name().is_empty());
    }
}

#[test]
fn depth_is_limited_for_tunnels_and_for_tags() {
    let limits = DecoderLimits { tunnel_depth_max: 3, ..DecoderLimits::default() };
    let too_deep = Got::Error(DecodeError::TunnelTooDeep { depth_max: 3 });
    for levels in 1..6 {
        let mut tunnels = ip4(6, &tcp(HELLO));
        let mut tags = cat(&[&[8, 0], &tunnels]);
        let mut labels = cat(&[&mpls_label(16, true), &tunnels]);
        for level in 0..levels {
            tunnels = outer4(4, &tunnels);
            tags = cat(&[&[0x81, 0, 0, 1], &tags]);
            if level > 0 {
                labels = cat(&[&mpls_label(17, false), &labels]);
            }
        }
        let tags = cat(&[&[0; 12], &tags]);
        for (name, bytes) in
            [("tunnels", eth(0x0800, &tunnels)), ("tags", tags), ("labels", eth(0x8847, &labels))]
        {
            let got = decode(&mut Decoder::new(limits), &frame(LinkType::Ethernet, &bytes));
            if levels <= 3 {
                flow(name, &got);
            } else {
                assert_eq!(got, too_deep, "{name} {levels}");
            }
        }
    }
}

#[test]
fn tunnel_ids_separate_address_plans_and_match_in_both_directions() {
    let inner = eth_tcp();
    let (a, b) = (over_udp(4789, &vxlan(1, &inner)), over_udp(4789, &vxlan(2, &inner)));
    let nested = |outer, inner_id| over_udp(4789, &vxlan(outer, &over_udp(8472, &vxlan(inner_id, &inner))));
    let ids = [
        tunnel_id(&inner),
        tunnel_id(&a),
        tunnel_id(&b),
        tunnel_id(&nested(1, 2)),
        tunnel_id(&nested(2, 1)),
        tunnel_id(&nested(1, 1)),
    ];
    for (i, x) in ids.iter().enumerate() {
        assert_eq!(ids.iter().filter(|y| *y == x).count(), 1, "{i}: {ids:?}");
    }
    assert_eq!(ids[0], 0);

    // Inner and outer addresses of the answer are swapped; the key is the same, the side is not.
    let mut answer_ip = ip4_with(6, 1, 0, [2, 1], &tcp(HELLO));
    answer_ip[20..24].copy_from_slice(&[0, 80, 0x9c, 0x40]);
    let answer = vxlan(1, &eth(0x0800, &answer_ip));
    let answer = eth(0x0800, &ip4_with(17, 9, 0, [202, 201], &udp(1234, 4789, &answer)));
    let (Got::Tcp { key: k1, side: s1, .. }, Got::Tcp { key: k2, side: s2, .. }) =
        (decode_once(LinkType::Ethernet, &a), decode_once(LinkType::Ethernet, &answer))
    else {
        panic!()
    };
    assert_eq!((k1, s1), (k2, s2.flip()));
}

#[test]
fn vlan_ids_are_part_of_the_key_only_on_request() {
    let tagged = |vlan: u8| eth(0x8100, &cat(&[&[0xe0, vlan, 8, 0], &ip4(6, &tcp(HELLO))]));
    let limits = DecoderLimits { vlan_in_key: true, ..DecoderLimits::default() };
    for (vlan, off, on) in [(7, 0, VLAN | 7), (8, 0, VLAN | 8), (0, 0, 0)] {
        let bytes = tagged(vlan);
        let frame = frame(LinkType::Ethernet, &bytes);
        assert_eq!(flow("off", &decode(&mut Decoder::default(), &frame)).2, off);
        assert_eq!(flow("on", &decode(&mut Decoder::new(limits), &frame)).2, on);
    }
}

/// Cuts the payload of one packet into IPv4 or IPv6 fragments of `size` bytes.
fn fragments(v6: bool, id: u16, protocol: u8, size: usize, payload: &[u8]) -> Vec<Vec<u8>> {
    let count = payload.len().div_ceil(size);
    let piece = |(i, piece): (usize, &[u8])| {
        let (offset, more) = ((i * size) as u16, i + 1 < count);
        if v6 {
            eth(0x86dd, &ip6(44, &frag6(protocol, u32::from(id), offset, more, piece)))
        } else {
            let field = (offset / 8) | if more { 0x2000 } else { 0 };
            // Padding must not be taken for a part of the datagram.
            cat(&[&eth(0x0800, &ip4_with(protocol, id, field, [1, 2], piece)), &[0xee; 5]])
        }
    };
    payload.chunks(size).enumerate().map(piece).collect()
}

#[test]
fn fragments_in_any_order_give_the_segment_with_the_frame_that_completes_it() {
    for v6 in [false, true] {
        for size in [8, 16, 24, 40] {
            for rotate in 0..6 {
                let mut frames = fragments(v6, 7, 6, size, &tcp(HELLO));
                let n = frames.len();
                frames.rotate_left(rotate % n);
                let mut decoder = Decoder::default();
                for (i, bytes) in frames.iter().enumerate() {
                    let got = decode(&mut decoder, &frame(LinkType::Ethernet, bytes));
                    if i + 1 < n {
                        assert_eq!(got, Got::Held, "{v6} {size} {rotate}");
                    } else {
                        flow("last", &got);
                    }
                }
                let c = decoder.counters();
                assert_eq!((c.frames_tcp_total, c.frames_fragment_held_total), (1, n as u64 - 1));
                assert_eq!((decoder.datagrams_open(), decoder.defrag_held_bytes()), (0, 0));
            }
        }
    }
}

#[test]
fn fragments_inside_a_fragmented_tunnel() {
    let inner = fragments(false, 7, 6, 24, &tcp(HELLO));
    let mut decoder = Decoder::default();
    let mut last = Got::Held;
    for (i, inner) in inner.iter().enumerate() {
        let outer = fragments(true, 100 + i as u16, 17, 32, &udp(1, 4789, &vxlan(3, inner)));
        for bytes in outer {
            assert_eq!(last, Got::Held);
            last = decode(&mut decoder, &frame(LinkType::Ethernet, &bytes));
        }
    }
    assert_eq!(flow("nested", &last).2, VXLAN | 3);
    let c = decoder.counters();
    assert_eq!(c.datagrams_completed_total, 1 + inner.len() as u64);
    assert_eq!(c.frames_total, c.frames_tcp_total + c.frames_fragment_held_total);
}

#[test]
fn fragments_of_different_tunnels_hosts_and_ids_do_not_mix() {
    let halves = fragments(false, 7, 6, 24, &tcp(HELLO));
    let strangers = [
        over_udp(4789, &vxlan(1, &halves[1])),
        fragments(false, 8, 6, 24, &tcp(HELLO))[1].clone(),
        fragments(false, 7, 17, 24, &tcp(HELLO))[1].clone(),
        fragments(true, 7, 6, 24, &tcp(HELLO))[1].clone(),
        {
            let mut other_host = halves[1].clone();
            other_host[33] = 77;
            other_host
        },
    ];
    let mut decoder = Decoder::default();
    for bytes in halves[..1].iter().chain(&strangers).chain(&halves[2..]) {
        assert_eq!(decode(&mut decoder, &frame(LinkType::Ethernet, bytes)), Got::Held);
    }
    flow("own", &decode(&mut decoder, &frame(LinkType::Ethernet, &halves[1])));
    assert_eq!(decoder.datagrams_open(), strangers.len());
}

#[test]
fn completed_datagrams_count_as_what_they_are() {
    let mut decoder = Decoder::default();
    let payload = udp(5000, 53, &[0; 40]);
    for bytes in fragments(false, 1, 17, 24, &payload) {
        decode(&mut decoder, &frame(LinkType::Ethernet, &bytes));
    }
    // A TCP header that does not fit in its whole datagram.
    let mut short = tcp(b"");
    short[12] = 0xf0;
    let mut last = Got::Held;
    for bytes in fragments(true, 2, 6, 16, &short) {
        last = decode(&mut decoder, &frame(LinkType::Ethernet, &bytes));
    }
    assert_eq!(
        error(last),
        DecodeError::Truncated {
            layer: Layer::Tcp,
            needed: 60,
            available: 32,
            length_from: LengthSource::Assembled
        }
    );
    let c = decoder.counters();
    assert_eq!((c.frames_udp_total, c.drop_truncated_total, c.datagrams_completed_total), (1, 1, 2));
}

#[test]
fn cut_fragments_are_dropped_and_late_ones_expire() {
    let frames = fragments(false, 7, 6, 24, &tcp(HELLO));
    let mut decoder = Decoder::default();
    let short = &frames[0][..14 + 20 + 10];
    assert_eq!(
        error(decode(&mut decoder, &frame(LinkType::Ethernet, short))),
        DecodeError::FragmentTruncated { needed: 24, available: 10 }
    );
    decode(&mut decoder, &frame(LinkType::Ethernet, &frames[0]));
    let late =
        Frame { time: Timestamp::from_parts(1_700_000_031, 0), ..frame(LinkType::Ethernet, &frames[1]) };
    assert_eq!(decode(&mut decoder, &late), Got::Held);
    assert_eq!(decoder.counters().datagrams_expired_total, 1);
    assert_eq!(decoder.datagrams_open(), 1);
}

#[test]
fn damaged_record_lengths_do_not_announce_gigabytes() {
    let mut packet = ip4(6, &tcp(HELLO));
    packet[2..4].fill(0);
    let huge = Frame { wire_len: u32::MAX, ..frame(LinkType::Raw, &packet) };
    let Got::Tcp { payload_len, .. } = decode(&mut Decoder::default(), &huge) else { panic!() };
    assert_eq!(payload_len as usize, HELLO.len() + (512 << 10));
}

#[test]
fn counters_name_and_balance_a_mixed_capture() {
    let mut decoder = Decoder::default();
    for (_, link, bytes, _) in envelopes() {
        for len in (0..=bytes.len()).step_by(7) {
            decode(&mut decoder, &frame(link, &bytes[..len]));
        }
        decode(&mut decoder, &frame(link, &bytes));
    }
    let c = decoder.counters();
    assert!(c.frames_tcp_total > 50 && c.frames_dropped() > 50 && c.frames_not_tcp() > 10);
    let drops: u64 = c.fields().iter().filter(|(name, _)| name.starts_with("drop_")).map(|(_, n)| n).sum();
    assert_eq!(drops, c.frames_dropped());
    let frames: u64 = c
        .fields()
        .iter()
        .filter(|(name, _)| name.starts_with("frames_") && *name != "frames_total")
        .map(|(_, n)| n)
        .sum();
    assert_eq!(c.frames_total, frames + drops);
}

/// Makes an input of the fuzz body from frames of one link type.
fn fuzz_input(link: u8, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut data = vec![link];
    for bytes in frames {
        data.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        data.extend_from_slice(bytes);
    }
    data
}

#[test]
fn fuzz_body_runs_on_seeds() {
    fuzz_decode_frame(&[]);
    for (_, _, bytes, _) in envelopes() {
        for link in 0..11 {
            fuzz_decode_frame(&fuzz_input(link, std::slice::from_ref(&bytes)));
        }
    }
    for v6 in [false, true] {
        fuzz_decode_frame(&fuzz_input(0, &fragments(v6, 7, 6, 8, &tcp(HELLO))));
    }
}

/// Writes the seeds of the fuzz target: `cargo test -p offpath-packet -- --ignored write_fuzz_seeds`.
#[test]
#[ignore = "writes files"]
fn write_fuzz_seeds() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/decode_frame");
    std::fs::create_dir_all(dir).unwrap();
    let links = [
        LinkType::Ethernet,
        LinkType::Null,
        LinkType::Loop,
        LinkType::Raw,
        LinkType::RawIpv4,
        LinkType::RawIpv6,
        LinkType::LinuxSll,
        LinkType::LinuxSll2,
        LinkType::Ppp,
        LinkType::CiscoHdlc,
    ];
    let write = |name: &str, data: &[u8]| {
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        std::fs::write(format!("{dir}/{name}.bin"), data).unwrap();
    };
    for (name, link, bytes, _) in envelopes() {
        let link = links.iter().position(|l| *l == link).unwrap() as u8;
        write(name, &fuzz_input(link, &[bytes]));
    }
    write("fragments v4", &fuzz_input(0, &fragments(false, 7, 6, 24, &tcp(HELLO))));
    write("fragments v6", &fuzz_input(0, &fragments(true, 7, 6, 24, &tcp(HELLO))));
}

proptest! {
    #[test]
    fn random_bytes_never_panic_and_always_balance(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        fuzz_decode_frame(&data);
    }

    #[test]
    fn damaged_envelopes_never_panic_and_always_balance(
        which in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let rows = envelopes();
        let (_, link, bytes, _) = &rows[which.index(rows.len())];
        let mut bytes = bytes.clone();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let mut decoder = Decoder::default();
        decoder.decode(&frame(*link, &bytes));
        prop_assert!(decoder.counters().is_balanced());
    }

    #[test]
    fn any_fragmentation_in_any_order_gives_the_same_segment(
        v6 in any::<bool>(),
        units in 1usize..4,
        seed in proptest::collection::vec(any::<u16>(), 16),
    ) {
        let mut frames = fragments(v6, 7, 6, units * 8, &tcp(HELLO));
        // Shuffle by sorting with random keys.
        let mut keyed: Vec<_> = frames.drain(..).enumerate().map(|(i, f)| (seed[i % seed.len()], i, f)).collect();
        keyed.sort();
        let mut decoder = Decoder::default();
        let mut last = Got::Held;
        for (_, _, bytes) in &keyed {
            prop_assert_eq!(&last, &Got::Held);
            last = decode(&mut decoder, &frame(LinkType::Ethernet, bytes));
        }
        flow("last", &last);
    }
}

#[test]
fn sctp_packets_are_handed_out_also_over_udp() {
    let common = [0x80, 0x44, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0];
    let data = [0, 3, 0, 18, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, b'h', b'i', 0, 0];
    let sctp = [&common[..], &data].concat();
    let packet = |protocol: u8, payload: &[u8]| {
        let len = 20 + payload.len() as u8;
        let ip = [0x45, 0, 0, len, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 203, 0, 113, 1];
        [&ip[..], payload].concat()
    };
    let udp = |src: u16, dst: u16, payload: &[u8]| {
        let len = 8 + payload.len() as u16;
        packet(17, &[&[src, dst, len, 0].map(u16::to_be_bytes).concat(), payload].concat())
    };
    let mut far = sctp.clone();
    far[14] = 0xff;
    for (name, bytes, cut, taken) in [
        ("over IP", packet(132, &sctp), 0, Some(20)),
        ("cut", packet(132, &sctp), 10, Some(10)),
        ("header only", packet(132, &common), 0, Some(0)),
        ("header cut", packet(132, &common), 1, None),
        ("to the port of encapsulation", udp(50_000, 9899, &sctp), 0, Some(20)),
        ("from it", udp(9899, 50_000, &sctp), 0, Some(20)),
        ("another UDP port", udp(50_000, 9898, &sctp), 0, None),
        ("something else on it", udp(50_000, 9899, b"GET / HTTP/1.1\r\n\r\n"), 0, None),
        ("a chunk that does not fit", udp(50_000, 9899, &far), 0, None),
        ("too short", udp(50_000, 9899, &sctp[..15]), 0, None),
    ] {
        let (time, wire_len) = (Timestamp::from_nanos(7), bytes.len() as u32);
        let captured = &bytes[..bytes.len() - cut];
        let frame = Frame { time, link: LinkType::Raw, wire_len, bytes: captured };
        let mut decoder = Decoder::new(DecoderLimits::default());
        match decoder.decode(&frame) {
            Outcome::Sctp(packet) => {
                assert_eq!(Some(packet.payload.len()), taken, "{name}");
                assert_eq!(packet.payload_len as usize, packet.payload.len() + cut, "{name}");
                assert_eq!((packet.tag, packet.time), (0x0102_0304, time), "{name}");
                let ports = [packet.side, packet.side.flip()].map(|side| packet.key.peer(side).port);
                assert_eq!(ports, [0x8044, 80], "the inner ports: {name}");
            }
            other => assert!(taken.is_none(), "{name}: {other:?}"),
        }
        let counters = decoder.counters();
        assert_eq!(counters.frames_sctp_total, u64::from(taken.is_some()), "{name}");
        assert_eq!(counters.sctp_payload_bytes_total, taken.unwrap_or(0) as u64, "{name}");
        assert!(counters.is_balanced(), "{name}");
    }
}

#[test]
fn datagrams_that_begin_like_quic_are_handed_out() {
    for (name, payload, quic) in [
        ("version 1", &[0xc3u8, 0, 0, 0, 1, 8, 9][..], true),
        ("version 2", &[0xd3, 0x6b, 0x33, 0x43, 0xcf], true),
        ("draft 29", &[0xc3, 0xff, 0, 0, 0x1d], true),
        ("version negotiation", &[0xc3, 0, 0, 0, 0], false),
        ("short header", &[0x43, 0, 0, 0, 1], false),
        ("without the fixed bit", &[0x83, 0, 0, 0, 1], false),
        ("cut", &[0xc3, 0, 0, 0], false),
        ("empty", &[], false),
    ] {
        let len = payload.len() as u8;
        let ip = [0x45, 0, 0, 28 + len, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 203, 0, 113, 1];
        let udp = [0xc3, 0x50, 0x01, 0xbb, 0, 8 + len, 0, 0];
        let bytes = [&ip[..], &udp, payload].concat();
        let (time, wire_len) = (Timestamp::from_nanos(7), bytes.len() as u32);
        let frame = Frame { time, link: LinkType::Raw, wire_len, bytes: &bytes };
        let mut decoder = Decoder::new(DecoderLimits::default());
        match decoder.decode(&frame) {
            Outcome::Udp(datagram) => {
                assert!(quic, "{name}");
                assert_eq!((datagram.payload, datagram.time), (payload, time), "{name}");
                assert_eq!(datagram.key.peer(datagram.side).port, 50000, "{name}");
            }
            other => assert!(!quic && matches!(other, Outcome::NotTcp), "{name}: {other:?}"),
        }
        assert_eq!(
            (decoder.counters().frames_udp_total, decoder.counters().frames_quic_total),
            (1, u64::from(quic))
        );
        assert!(decoder.counters().is_balanced());
    }
}
