//! Builds capture files in memory, for tests.

use std::io::Write;

/// One frame: seconds, fraction in the file's units, bytes.
pub(crate) type Rec<'a> = (u32, u32, &'a [u8]);

fn order(big: bool, word: u32) -> [u8; 4] {
    if big { word.to_be_bytes() } else { word.to_le_bytes() }
}

fn order16(big: bool, word: u16) -> [u8; 2] {
    if big { word.to_be_bytes() } else { word.to_le_bytes() }
}

/// A classic file with any magic; 24-byte record headers where the magic says so.
pub(crate) fn pcap(
    big: bool,
    magic: u32,
    minor: u16,
    snaplen: u32,
    link: u32,
    records: &[Rec<'_>],
) -> Vec<u8> {
    let mut out = order(big, magic).to_vec();
    out.extend(order16(big, 2));
    out.extend(order16(big, minor));
    for word in [0, 0, snaplen, link] {
        out.extend(order(big, word));
    }
    for (secs, fraction, bytes) in records {
        out.extend(record(big, *secs, *fraction, bytes.len() as u32, bytes.len() as u32));
        if magic == 0xa1b2_cd34 {
            out.extend([0; 8]);
        }
        out.extend(*bytes);
    }
    out
}

pub(crate) fn record(big: bool, secs: u32, fraction: u32, a: u32, b: u32) -> Vec<u8> {
    [secs, fraction, a, b].iter().flat_map(|w| order(big, *w)).collect()
}

/// An ordinary little-endian microsecond Ethernet file.
pub(crate) fn plain(records: &[Rec<'_>]) -> Vec<u8> {
    pcap(false, 0xa1b2_c3d4, 4, 65_535, 1, records)
}

/// A pcapng block around `body`, padded.
pub(crate) fn block(big: bool, block_type: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let len = order(big, 12 + padded as u32);
    let mut out = order(big, block_type).to_vec();
    out.extend(len);
    out.extend(body);
    out.resize(8 + padded, 0);
    out.extend(len);
    out
}

pub(crate) fn section(big: bool, major: u16) -> Vec<u8> {
    let mut body = order(big, 0x1a2b_3c4d).to_vec();
    body.extend(order16(big, major));
    body.extend(order16(big, 0));
    body.extend([0xff; 8]);
    block(big, 0x0a0d_0d0a, &body)
}

pub(crate) fn option(big: bool, code: u16, value: &[u8]) -> Vec<u8> {
    let mut out = order16(big, code).to_vec();
    out.extend(order16(big, value.len() as u16));
    out.extend(value);
    out.resize(4 + value.len().next_multiple_of(4), 0);
    out
}

pub(crate) fn interface(big: bool, link: u16, snaplen: u32, options: &[u8]) -> Vec<u8> {
    let mut body = order16(big, link).to_vec();
    body.extend([0; 2]);
    body.extend(order(big, snaplen));
    body.extend(options);
    if !options.is_empty() {
        body.extend([0; 4]);
    }
    block(big, 1, &body)
}

pub(crate) fn enhanced(big: bool, interface: u32, units: u64, bytes: &[u8], wire_len: u32) -> Vec<u8> {
    let words = [interface, (units >> 32) as u32, units as u32, bytes.len() as u32, wire_len];
    let mut body: Vec<u8> = words.iter().flat_map(|w| order(big, *w)).collect();
    body.extend(bytes);
    block(big, 6, &body)
}

pub(crate) fn old_packet(big: bool, interface: u16, units: u64, bytes: &[u8]) -> Vec<u8> {
    let mut body = order16(big, interface).to_vec();
    body.extend([0; 2]);
    for word in [(units >> 32) as u32, units as u32, bytes.len() as u32, bytes.len() as u32] {
        body.extend(order(big, word));
    }
    body.extend(bytes);
    block(big, 2, &body)
}

pub(crate) fn simple(big: bool, wire_len: u32, bytes: &[u8]) -> Vec<u8> {
    let mut body = order(big, wire_len).to_vec();
    body.extend(bytes);
    block(big, 3, &body)
}

pub(crate) fn snoop(records: &[Rec<'_>]) -> Vec<u8> {
    let mut out = b"snoop\0\0\0".to_vec();
    out.extend([0, 0, 0, 2, 0, 0, 0, 4]);
    for (secs, micros, bytes) in records {
        let len = bytes.len() as u32;
        let padded = len.next_multiple_of(4);
        for word in [len, len, 24 + padded, 0, *secs, *micros] {
            out.extend(word.to_be_bytes());
        }
        out.extend(*bytes);
        out.extend(vec![0; (padded - len) as usize]);
    }
    out
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

pub(crate) fn zstd(data: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
}
