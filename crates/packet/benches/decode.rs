//! Nanoseconds per frame of the decoder: `cargo bench -p offpath-packet`.
//!
//! Frames are made here, so that the figures do not depend on which captures are at hand. Several frames in
//! turn, 64 KiB of them, so that neither branch history nor the first cache level flatters too much.
#![expect(clippy::disallowed_methods, reason = "a bench measures wall time")]

use std::hint::black_box;
use std::time::Instant;

use offpath_packet::{Decoder, DecoderLimits, Outcome};
use offpath_types::{Frame, LinkType, Timestamp};

// Short rounds, so that one of them is undisturbed on a busy machine.
const ROUNDS: usize = 1_000;
const PASSES: usize = 300;

fn main() {
    let plain: Vec<Vec<u8>> = (0..48).map(|n| ethernet(0x0800, &tcp_v4(n))).collect();
    let plain_v6: Vec<Vec<u8>> = (0..48).map(|n| ethernet(0x86dd, &tcp_v6(n))).collect();
    let vlan: Vec<Vec<u8>> =
        (0..48).map(|n| ethernet(0x8100, &[&[0, 42, 8, 0], &tcp_v4(n)[..]].concat())).collect();
    let vxlan: Vec<Vec<u8>> = plain.iter().map(|inner| ethernet(0x0800, &in_vxlan(inner))).collect();
    for (name, frames) in [
        ("decode_tcp_v4", &plain),
        ("decode_tcp_v6", &plain_v6),
        ("decode_tcp_v4_vlan", &vlan),
        ("decode_tcp_v4_in_vxlan", &vxlan),
    ] {
        bench(name, frames);
    }
}

/// Prints the best of several rounds; all frames must be TCP.
fn bench(name: &str, frames: &[Vec<u8>]) {
    let mut decoder = Decoder::new(DecoderLimits::default());
    let mut best_ns = f64::MAX;
    // Each frame comes 20 ms after the one before it, or it would be a copy of an earlier one.
    let mut nanos_now = 0;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for _ in 0..PASSES {
            for bytes in frames {
                let wire_len = bytes.len() as u32;
                nanos_now += 20_000_000;
                let time = Timestamp::from_nanos(nanos_now);
                let frame = Frame { time, link: LinkType::Ethernet, wire_len, bytes };
                match decoder.decode(black_box(&frame)) {
                    Outcome::Tcp(segment) => {
                        black_box(&segment);
                    }
                    other => panic!("{name}: {other:?}"),
                }
            }
        }
        let nanos = begin.elapsed().as_nanos() as f64;
        best_ns = best_ns.min(nanos / (PASSES * frames.len()) as f64);
    }
    let bytes: usize = frames.iter().map(Vec::len).sum();
    let gib_per_sec = bytes as f64 / frames.len() as f64 / best_ns * 1e9 / f64::from(1 << 30);
    println!("{name:24} {best_ns:6.1} ns/frame {:6.1} Mframes/s {gib_per_sec:6.1} GiB/s", 1e3 / best_ns);
}

fn tcp(n: u8) -> Vec<u8> {
    let mut header = vec![0; 32];
    // Both directions in turn.
    let (src, dst) =
        if n.is_multiple_of(2) { (40_000 + u16::from(n), 80) } else { (80, 40_000 + u16::from(n)) };
    header[..2].copy_from_slice(&src.to_be_bytes());
    header[2..4].copy_from_slice(&dst.to_be_bytes());
    header[12] = 0x80;
    header[13] = 0x18;
    header.extend(vec![b'x'; 100 + 25 * usize::from(n)]);
    header
}

fn ipv4(protocol: u8, src: u8, dst: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (20 + payload.len() as u16).to_be_bytes();
    let header = [0x45, 0, high, low, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, src, 10, 0, 0, dst];
    [&header, payload].concat()
}

fn tcp_v4(n: u8) -> Vec<u8> {
    let (src, dst) = if n.is_multiple_of(2) { (1, 2) } else { (2, 1) };
    ipv4(6, src, dst, &tcp(n))
}

fn tcp_v6(n: u8) -> Vec<u8> {
    let segment = tcp(n);
    let [high, low] = (segment.len() as u16).to_be_bytes();
    let mut header = vec![0x60, 0, 0, 0, high, low, 6, 64];
    let (src, dst) = if n.is_multiple_of(2) { (1, 2) } else { (2, 1) };
    for last in [src, dst] {
        header.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    [header, segment].concat()
}

fn in_vxlan(inner: &[u8]) -> Vec<u8> {
    let [high, low] = (16 + inner.len() as u16).to_be_bytes();
    let header = [0xc0, 0, 0x12, 0xb5, high, low, 0, 0, 0x08, 0, 0, 0, 0, 0, 42, 0];
    ipv4(17, 8, 9, &[&header, inner].concat())
}

fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], &ether_type.to_be_bytes()[..], payload].concat()
}
