//! Reading allocates when a file is opened, and never per frame.

#[path = "../../testkit/allocations.rs"]
mod allocations;

use allocations::allocations;
use offpath_capture::{FileOptions, FileSource, PacketSource, Polled};

fn word(big: bool, value: u32) -> [u8; 4] {
    if big { value.to_be_bytes() } else { value.to_le_bytes() }
}

/// 10,000 frames of mixed sizes as pcap.
fn classic() -> Vec<u8> {
    let mut out = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    for n in 0..10_000u32 {
        let len = [60, 1514, 400][n as usize % 3];
        for value in [n, 0, len, len] {
            out.extend(word(false, value));
        }
        out.resize(out.len() + len as usize, 7);
    }
    out
}

/// The same as pcapng with an option (epb_flags) on each packet.
fn ng() -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |values: &[u32], bytes: &[u8], tail: &[u32]| {
        out.extend(values.iter().flat_map(|v| word(true, *v)));
        out.extend(bytes);
        out.extend(tail.iter().flat_map(|v| word(true, *v)));
    };
    put(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 0x0001_0000, u32::MAX, u32::MAX, 28], &[], &[]);
    put(&[1, 20, 0x0001_0000, 0, 20], &[], &[]);
    for n in 0..10_000u32 {
        let len = [60, 1516, 400][n as usize % 3];
        let total = 32 + len + 12;
        put(&[6, total, 0, 0, n, len, len], &vec![7; len as usize], &[0x0002_0004, 1, 0, total]);
    }
    out
}

#[test]
fn frames_cost_no_allocation() {
    for (name, data) in [("pcap", classic()), ("pcapng", ng())] {
        let input = std::io::Cursor::new(data);
        let mut source = FileSource::from_reader(name, input, FileOptions::default()).unwrap();
        assert!(matches!(source.next_frame(), Ok(Polled::Frame(_))));
        let before = allocations();
        let mut frames = 1;
        while let Ok(Polled::Frame(_)) = source.next_frame() {
            frames += 1;
        }
        let allocated = allocations() - before;
        assert_eq!((frames, allocated), (10_000, 0), "{name}");
    }
}
