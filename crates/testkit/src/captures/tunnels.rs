//! Captures of mirrors that wrap what they copy. `make tunnels-tshark` has tshark confirm each.

use std::io;
use std::net::{IpAddr, SocketAddr};

use offpath_types::Timestamp;

use super::{Capture, DialogueError, START, TWO, client, scripted, server};
use crate::conversation::{Conversation, Packet};
use crate::packet_builder::{
    Gre, Link, erspan1, erspan2, erspan3, geneve, gtp_u, ip_in_ip, pppoe, pseudowire, udp, vxlan, vxlan_gpe,
};
use crate::pcap_file::{PcapFormat, PcapWriter};

fn outer(end: u8) -> IpAddr {
    IpAddr::from([198, 51, 100, end])
}

/// Writes Ethernet frames as they are.
pub(super) fn pcap_of(frames: &[(Timestamp, Vec<u8>)]) -> Vec<u8> {
    let write = || -> io::Result<Vec<u8>> {
        let mut writer = PcapWriter::new(Vec::new(), PcapFormat::new(1))?;
        for (time, frame) in frames {
            writer.write(*time, frame)?;
        }
        writer.finish()
    };
    // Writing to memory does not fail.
    write().unwrap_or_default()
}

fn tunnelled(
    name: &'static str,
    packets: &[Packet],
    made: &'static str,
    expected: &'static str,
    wrap: impl Fn(&[u8]) -> Vec<u8>,
) -> Capture {
    let frames: Vec<_> = packets.iter().map(|p| (p.time, wrap(&p.bytes))).collect();
    Capture { name, file: "input.pcap", input: pcap_of(&frames), made, expected, config: None }
}

fn ethernet(packet: &[u8]) -> Vec<u8> {
    Link::Ethernet.wrap(packet)
}

pub(super) fn tunnels() -> Result<Vec<Capture>, DialogueError> {
    let packets = scripted(TWO)?;
    let mut v6 = Conversation::new(
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 10], 40_000)),
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 80], 80)),
        START,
    );
    v6.handshake().script(TWO)?.close();
    let v6 = v6.into_packets();
    let mut teredo = Conversation::new(
        SocketAddr::from(([0x2001, 0, 0xc633, 0x6401, 0, 0, 0, 10], 40_000)),
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 80], 80)),
        START,
    );
    teredo.handshake().script(TWO)?.close();

    let mut captures = vec![
        two_networks()?,
        tunnelled(
            "tunnel-geneve-options",
            &packets,
            "Ethernet in GENEVE, VNI 77, with two options (of 4 and 8 bytes) as cloud gateways add them.",
            "the two transactions of link-ethernet, with offpath.tunnel geneve 77.",
            |p| {
                let options = [1, 8, 1, 1, 0, 0, 0, 9, 1, 8, 2, 2, 1, 2, 3, 4, 5, 6, 7, 8];
                ethernet(&geneve(outer(1), outer(2), 77, &options, &ethernet(p)))
            },
        ),
        tunnelled(
            "tunnel-vxlan-gpe",
            &packets,
            "bare IPv4 in VXLAN-GPE, VNI 9.",
            "the two transactions of link-ethernet, with offpath.tunnel vxlan 9.",
            |p| ethernet(&vxlan_gpe(outer(1), outer(2), 9, 1, p)),
        ),
        tunnelled(
            "tunnel-gre-options",
            &v6,
            "IPv6 in GRE with checksum, key 99 and sequence number.",
            "the two transactions over IPv6, with offpath.tunnel gre 99.",
            |p| {
                ethernet(&Gre { checksum: true, key: Some(99), sequence: Some(5) }.wrap(
                    outer(1),
                    outer(2),
                    0x86dd,
                    p,
                ))
            },
        ),
        tunnelled(
            "tunnel-erspan-1",
            &packets,
            "ERSPAN type I: Ethernet in GRE without a header of its own.",
            "the two transactions of link-ethernet, with offpath.tunnel erspan.",
            |p| ethernet(&erspan1(outer(1), outer(2), &ethernet(p))),
        ),
        tunnelled(
            "tunnel-erspan-2",
            &packets,
            "ERSPAN type II, session 7, of VLAN 100.",
            "the two transactions of link-ethernet, with offpath.tunnel erspan 7 and network.vlan.id 100.",
            |p| ethernet(&erspan2(outer(1), outer(2), 7, 100, 1, &ethernet(p))),
        ),
        tunnelled(
            "tunnel-erspan-3",
            &packets,
            "ERSPAN type III, session 8, of VLAN 100, with a platform-specific subheader.",
            "the two transactions of link-ethernet, with offpath.tunnel erspan 8 and network.vlan.id 100.",
            |p| ethernet(&erspan3(outer(1), outer(2), 8, 100, 1, &ethernet(p))),
        ),
        tunnelled(
            "tunnel-mpls-control-word",
            &packets,
            "Ethernet in an MPLS pseudowire: labels 16 and 1000, and a control word.",
            "the two transactions of link-ethernet, with offpath.tunnel mpls 1000.",
            |p| pseudowire(&[16, 1000], 9, &ethernet(p)),
        ),
        tunnelled(
            "tunnel-pppoe",
            &packets,
            "a PPPoE session, 5.",
            "the two transactions of link-ethernet, with offpath.tunnel pppoe 5.",
            |p| pppoe(5, p),
        ),
        tunnelled(
            "tunnel-6in4",
            &v6,
            "IPv6 in IPv4, protocol 41.",
            "the two transactions over IPv6, with offpath.tunnel ip-in-ip.",
            |p| ethernet(&ip_in_ip(outer(1), outer(2), p)),
        ),
        tunnelled(
            "tunnel-teredo",
            teredo.packets(),
            "IPv6 in UDP port 3544, from a Teredo address.",
            "the two transactions over IPv6, with offpath.tunnel teredo.",
            |p| ethernet(&udp(SocketAddr::new(outer(1), 3544), SocketAddr::new(outer(2), 3544), p)),
        ),
        tunnelled(
            "tunnel-nested",
            &packets,
            "ERSPAN type II, session 7, of frames with VXLAN, VNI 5, of frames with two VLAN tags.",
            "the two transactions of link-ethernet, with offpath.tunnel vxlan 5, network.vlan.id 100 and network.inner.vlan.id 42.",
            |p| {
                let overlay = ethernet(&vxlan(outer(3), outer(4), 5, &Link::QinQ(100, 42).wrap(p)));
                ethernet(&erspan2(outer(1), outer(2), 7, 0, 1, &overlay))
            },
        ),
    ];
    // The two directions have tunnel ids of their own.
    let frames: Vec<_> = packets
        .iter()
        .map(|p| {
            let (from, to, id) = match p.direction {
                super::ToServer => (1, 2, 0x1001),
                super::ToClient => (2, 1, 0x2002),
            };
            (p.time, ethernet(&gtp_u(outer(from), outer(to), id, &p.bytes)))
        })
        .collect();
    captures.push(Capture {
        name: "tunnel-gtp-u",
        file: "input.pcap",
        input: pcap_of(&frames),
        made: "IPv4 in GTP-U: tunnel 4097 to the server, 8194 back.",
        expected: "the two transactions of link-ethernet, with offpath.tunnel gtp-u 4097.",
        config: None,
    });
    Ok(captures)
}

/// The same addresses, ports and sequence numbers behind two VNIs, at the same time, with different contents.
fn two_networks() -> Result<Capture, DialogueError> {
    let mut frames = Vec::new();
    for (vni, page) in [(100, "red"), (200, "blue")] {
        let mut c = Conversation::new(client(), server(), START);
        c.handshake().script(&format!(
            ">>>\nGET /{page} HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: {}\n\n{page}\\\n",
            page.len()
        ))?;
        c.close();
        frames.extend(
            c.packets()
                .iter()
                .map(|p| (p.time, ethernet(&vxlan(outer(1), outer(2), vni, &ethernet(&p.bytes))))),
        );
    }
    frames.sort_by_key(|(time, _)| *time);
    Ok(Capture {
        name: "tunnel-vxlan-two-networks",
        file: "input.pcap",
        input: pcap_of(&frames),
        made: "two connections with the same addresses, ports and sequence numbers, packet by packet in turn, in VXLAN with VNI 100 and 200.",
        expected: "GET /red 200 with offpath.tunnel vxlan 100, GET /blue 200 with vxlan 200, both complete.",
        config: None,
    })
}
