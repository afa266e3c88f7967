//! Captures of mirrors that misbehave: copies, clocks, restarts.

use std::net::IpAddr;

use super::tunnels::pcap_of;
use super::{Capture, DialogueError, SECOND, START, ToClient, ToServer, client, scripted, server};
use crate::conversation::{Conversation, Packet};
use crate::packet_builder::{Link, checksum, flags, vxlan};

const THREE: [&str; 3] = ["/one", "/two", "/three"];

fn exchange(path: &str) -> String {
    format!(
        ">>>\nGET {path} HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: {}\n\n{path}\\\n",
        path.len()
    )
}

/// Gives an IPv4 packet another id and hop limit.
fn with_id(packet: &[u8], id: u16, hop_limit: u8) -> Vec<u8> {
    let mut out = packet.to_vec();
    out[4..6].copy_from_slice(&id.to_be_bytes());
    out[8] = hop_limit;
    out[10..12].fill(0);
    let sum = checksum(0, &out[..20]);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    out
}

/// A connection with a retransmission: the second request is sent twice, 3 ms apart, with an id of its own.
fn retransmitting() -> Result<Vec<(Packet, u16)>, DialogueError> {
    let mut c = Conversation::new(client(), server(), START);
    c.handshake().script(&exchange("/one"))?;
    let request = b"GET /two HTTP/1.1\r\nHost: shop.example\r\n\r\n";
    c.auto_ack(false).send(ToServer, request).wait(3_000_000);
    c.stray(ToServer, -(request.len() as i32), flags::ACK | flags::PSH, request).auto_ack(true);
    c.send(ToClient, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo").script(&exchange("/three"))?.close();
    Ok(c.into_packets().into_iter().enumerate().map(|(i, p)| (p, 100 + i as u16)).collect())
}

pub(super) fn mirrors() -> Result<Vec<Capture>, DialogueError> {
    Ok(vec![
        twice(
            "mirror-two-ports",
            "every packet twice, 20 µs apart, as where the ports on both sides of a router are mirrored: one copy with a VLAN tag, the other with a hop less. One request is retransmitted after 3 ms, with another IP id.",
            "/one, /two and /three, 200 and complete, each once; every second copy is a duplicate frame, the retransmission (both its copies) is not one of the first.",
            |packet, id| {
                (Link::Vlan(42).wrap(&with_id(packet, id, 64)), Link::Ethernet.wrap(&with_id(packet, id, 63)))
            },
        )?,
        twice(
            "mirror-two-ports-tunnel",
            "every packet twice, 20 µs apart: one copy bare, one in ERSPAN type I, as where a switch and a remote mirror overlap.",
            "/one, /two and /three, 200 and complete, each once.",
            |packet, id| {
                let bare = Link::Ethernet.wrap(&with_id(packet, id, 64));
                let [from, to] = [1, 2].map(|end| IpAddr::from([198, 51, 100, end]));
                let inside = Link::Ethernet.wrap(&crate::packet_builder::erspan1(from, to, &bare));
                (bare, inside)
            },
        )?,
        clock_step()?,
        restarted()?,
        equal_addresses()?,
    ])
}

fn twice(
    name: &'static str,
    made: &'static str,
    expected: &'static str,
    copies: impl Fn(&[u8], u16) -> (Vec<u8>, Vec<u8>),
) -> Result<Capture, DialogueError> {
    let mut frames = Vec::new();
    for (packet, id) in retransmitting()? {
        let (first, second) = copies(&packet.bytes, id);
        frames.push((packet.time, first));
        frames.push((packet.time.plus_nanos(20_000), second));
    }
    let input = pcap_of(&frames);
    let config = Some("[decode]\nduplicates = \"on\"\n");
    Ok(Capture { name, file: "input.pcap", input, made, expected, config })
}

fn clock_step() -> Result<Capture, DialogueError> {
    let mut c = Conversation::new(client(), server(), START.plus_secs(10));
    c.handshake();
    let mut step = 0;
    for path in THREE {
        c.script(&exchange(path))?;
        if path == "/one" {
            step = c.packets().len();
        }
    }
    c.close();
    let frames: Vec<_> = c
        .packets()
        .iter()
        .enumerate()
        .map(|(i, p)| {
            let back = if i < step { 0 } else { 5 * SECOND };
            (offpath_types::Timestamp::from_nanos(p.time.as_nanos() - back), Link::Ethernet.wrap(&p.bytes))
        })
        .collect();
    Ok(Capture {
        name: "mirror-clock-step-back",
        file: "input.pcap",
        input: pcap_of(&frames),
        made: "the clock of the capture is set back by five seconds after the first transaction.",
        expected: "/one, /two and /three, 200 and complete; the frames after the step take the time of the newest before it, and are counted.",
        config: None,
    })
}

fn restarted() -> Result<Capture, DialogueError> {
    let body = "x".repeat(6000);
    let mut c = Conversation::new(client(), server(), START);
    c.handshake().script(&exchange("/one"))?;
    let from = c.packets().len() + 4;
    c.script(&format!(
        ">>>\nGET /long HTTP/1.1\nHost: shop.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 6000\n\n{body}\\\n"
    ))?;
    c.script(&exchange("/unseen"))?;
    // In the middle of the request after the one that was missed as a whole.
    let to = c.packets().len();
    c.wait(4 * SECOND).script(&exchange("/two"))?.script(&exchange("/three"))?.close();
    let frames: Vec<_> = c
        .packets()
        .iter()
        .enumerate()
        .filter(|(i, _)| !(from..to).contains(i))
        .map(|(_, p)| (p.time, Link::Ethernet.wrap(&p.bytes)))
        .collect();
    Ok(Capture {
        name: "mirror-restarted",
        file: "input.pcap",
        input: pcap_of(&frames),
        made: "the capture was stopped within the body of /long, and started again four seconds later on the same connection: the rest of that body and all of /unseen are missing.",
        expected: "/one, /two and /three 200 and complete; /long 200 with response_gap and not complete; nothing of /unseen.",
        config: None,
    })
}

/// The same packets behind two VNIs are two networks, not copies.
fn equal_addresses() -> Result<Capture, DialogueError> {
    let packets = scripted(&exchange("/same"))?;
    let [from, to] = [1, 2].map(|end| IpAddr::from([198, 51, 100, end]));
    let mut frames = Vec::new();
    for packet in &packets {
        for vni in [100, 200] {
            let inner = Link::Ethernet.wrap(&packet.bytes);
            frames.push((packet.time, Link::Ethernet.wrap(&vxlan(from, to, vni, &inner))));
        }
    }
    Ok(Capture {
        name: "mirror-equal-networks",
        file: "input.pcap",
        input: pcap_of(&frames),
        made: "the same packets, byte for byte and at the same time, in VXLAN with VNI 100 and 200: two networks with equal plans doing the same.",
        expected: "/same 200 twice, once per VNI; no duplicate frame.",
        config: Some("[decode]\nduplicates = \"on\"\n"),
    })
}
