//! A SYN flood around connections that stay open: what a table's limits are measured with.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use offpath_types::Timestamp;

use crate::packet_builder::{Link, Tcp, flags};
use crate::pcap_file::{PcapFormat, PcapWriter};
use crate::rng::Rng;

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 80)), 80);
/// Packet time between two frames of the flood: a million a second.
const STEP_NANOS: u64 = 1000;

/// Writes `flows` connections with a request before the flood of `syns` SYNs and `rounds - 1` after it; returns the
/// number of frames. Every connection is left open: `rounds × flows` transactions must come out.
///
/// # Errors
/// What `out` answers.
pub fn write<W: Write>(out: W, flows: u32, syns: u32, rounds: u32) -> io::Result<u64> {
    let mut pcap = PcapWriter::new(out, PcapFormat::new(Link::Ethernet.number()))?;
    let mut time = Timestamp::from_parts(1_767_600_000, 0);
    let mut frames = 0;
    let mut put = |frame: Vec<u8>, time: Timestamp| {
        frames += 1;
        pcap.write(time, &frame)
    };
    for round in 0..rounds {
        for flow in 0..flows {
            for frame in exchange(flow, round) {
                time = time.plus_nanos(STEP_NANOS);
                put(frame, time)?;
            }
        }
        if round == 0 {
            let mut rng = Rng::new(7);
            for _ in 0..syns {
                time = time.plus_nanos(STEP_NANOS);
                put(syn(&mut rng), time)?;
            }
        }
    }
    pcap.finish()?.flush()?;
    Ok(frames)
}

/// Returns the frames of one request and its response; the first round begins with the handshake.
fn exchange(flow: u32, round: u32) -> Vec<Vec<u8>> {
    // 10.0.0.0/8 with 50 ports an address: more than ten million connections.
    let [_, b, c, d] = (flow / 50 + 1).to_be_bytes();
    let client = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, b, c, d)), 20_000 + (flow % 50) as u16);
    let request =
        // One digit, so that all requests of a connection have the same length.
        format!("GET /r{}/{flow:08} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: flood-test\r\n\r\n", round % 10);
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (asked, answered) = (request.len() as u32, response.len() as u32);
    let (c0, s0) =
        (1000u32.wrapping_add(round.wrapping_mul(asked)), 5000u32.wrapping_add(round.wrapping_mul(answered)));
    let push = flags::PSH | flags::ACK;
    let mut frames = Vec::with_capacity(5);
    if round == 0 {
        frames.push(Tcp::new(client, SERVER).seq(c0 - 1).flags(flags::SYN).frame(Link::Ethernet));
        let answer = Tcp::new(SERVER, client).seq(s0 - 1).ack(c0).flags(flags::SYN | flags::ACK);
        frames.push(answer.frame(Link::Ethernet));
    }
    let ask = Tcp::new(client, SERVER).seq(c0).ack(s0).flags(push).payload(request.as_bytes());
    let answer = Tcp::new(SERVER, client).seq(s0).ack(c0 + asked).flags(push).payload(response.as_bytes());
    frames.push(ask.frame(Link::Ethernet));
    frames.push(answer.frame(Link::Ethernet));
    frames
}

fn syn(rng: &mut Rng) -> Vec<u8> {
    let random = rng.next_u64();
    // 44.0.0.0/8, far from the connections.
    let address = Ipv4Addr::from(0x2c00_0000 | (random as u32 & 0x00ff_ffff));
    let client = SocketAddr::new(IpAddr::V4(address), (random >> 32) as u16 | 1);
    Tcp::new(client, SERVER).seq((random >> 16) as u32).flags(flags::SYN).frame(Link::Ethernet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_has_the_frames_it_says() {
        let mut bytes = Vec::new();
        assert_eq!(write(&mut bytes, 10, 100, 2).unwrap(), 10 * 4 + 100 + 10 * 2);
        let mut reader = crate::PcapReader::new(&bytes[..]).unwrap();
        let mut count = 0;
        while reader.next_record().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 160);
    }
}
