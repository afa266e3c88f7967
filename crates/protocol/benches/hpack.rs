//! What a header field costs: `cargo bench -p offpath-protocol --bench hpack`.
//!
//! Prints the best of several rounds in ns, which is the steadiest figure on a shared machine.
//! `hpack_requests.hex` holds the 100 request heads of one browser-like connection, 18 fields each, as
//! python-hpack 4.2.0 encodes them (Huffman code, dynamic table); the others are the worst of their kind.
#![expect(clippy::disallowed_methods, reason = "a bench measures wall time")]

use std::hint::black_box;
use std::time::Instant;

use offpath_protocol::bench_hpack_blocks;

fn main() {
    let unhex = |line: &str| {
        let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
        line.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect::<Vec<u8>>()
    };
    let requests: Vec<_> = include_str!("hpack_requests.hex").lines().map(unhex).collect();
    run("requests of a browser", 200, &requests);
    // Literals that are not inserted, each one long string of one symbol: of 5 bits, of 30.
    let huffman = |code: &[u8]| {
        // The length, 16 380, is 127 + 0x7d + (0x7e << 7).
        let head = [0x00, 0x01, b'a', 0xff, 0xfd, 0x7e];
        [&head[..], &code.repeat(16_380 / code.len())].concat()
    };
    run("16 KB of Huffman code, short symbols", 200, &[huffman(&[0])]);
    run(
        "16 KB of Huffman code, long symbols",
        200,
        &[huffman(&[
            0xff, 0xff, 0xff, 0xf3, 0xff, 0xff, 0xff, 0xcf, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0xfc,
        ])],
    );
    let entry = [&[0x40, 0x01, b'a', 0x7f, 0x90, 0x1e][..], &[b'x'; 3983]].concat();
    run("16 KB of references to an entry of 4 KB", 200, &[entry, vec![0xbe; 16_384]]);
    run("16 KB of the smallest insertions", 200, &[[0x40, 0x00, 0x00].repeat(5_461)]);
}

fn run(name: &str, times: u32, blocks: &[Vec<u8>]) {
    let (fields, text) = bench_hpack_blocks(blocks);
    let wire: usize = blocks.iter().map(Vec::len).sum();
    let mut best = f64::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        for _ in 0..times {
            black_box(bench_hpack_blocks(black_box(blocks)));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(times));
    }
    println!(
        "{name}: {:.0} ns per field, {:.2} ns per byte on the wire ({fields} fields, {wire} bytes, {text} handed on)",
        best / fields as f64,
        best / wire as f64,
    );
}
