//! Tests of the file reader as a whole.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use offpath_types::LinkType;
use proptest::prelude::*;

use crate::testing::*;
use crate::*;

const MICRO: u32 = 0xa1b2_c3d4;
const NANO: u32 = 0xa1b2_3c4d;
const MODIFIED: u32 = 0xa1b2_cd34;

/// A frame as tests compare it: nanoseconds, link, bytes on the wire, bytes.
type Got = (u64, LinkType, u32, Vec<u8>);

fn drain(source: &mut FileSource) -> Vec<Got> {
    let mut got = Vec::new();
    loop {
        match source.next_frame().unwrap() {
            Polled::Frame(f) => got.push((f.time.as_nanos(), f.link, f.wire_len, f.bytes.to_vec())),
            Polled::Idle(_) => panic!("files are never idle"),
            Polled::End => break,
        }
    }
    assert!(matches!(source.next_frame(), Ok(Polled::End)), "the end stays");
    let c = source.counters();
    assert_eq!(c.frames_total, got.len() as u64);
    assert_eq!(c.bytes_total, got.iter().map(|g| g.3.len() as u64).sum::<u64>());
    assert_eq!(
        c.stream_bytes_total,
        c.bytes_total + c.overhead_bytes_total + c.damaged_bytes_total,
        "books balance: {c:?}"
    );
    got
}

fn try_read(data: &[u8], buffer_bytes: usize) -> Result<(Vec<Got>, FileSource), SourceError> {
    let options = FileOptions { buffer_bytes, ..FileOptions::default() };
    let mut source = FileSource::from_reader("mem", Cursor::new(data.to_vec()), options)?;
    let got = drain(&mut source);
    Ok((got, source))
}

fn read(data: &[u8]) -> (Vec<Got>, FileSource) {
    try_read(data, 64).unwrap()
}

fn eth(nanos: u64, bytes: &[u8]) -> Got {
    (nanos, LinkType::Ethernet, bytes.len() as u32, bytes.to_vec())
}

/// One valid file of each format.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let records: &[Rec<'_>] = &[(10, 5, b"alpha"), (10, 7, b"beta"), (11, 0, b""), (12, 1, &[9; 300])];
    let mut ng = section(true, 1);
    ng.extend(interface(true, 1, 0, &[]));
    ng.extend(enhanced(true, 0, 10_000_005, b"alpha", 5));
    ng.extend(block(true, 4, &[0; 8]));
    ng.extend(old_packet(true, 0, 10_000_007, b"beta"));
    ng.extend(simple(true, 3, b"sim"));
    ng.extend(section(false, 1));
    ng.extend(interface(false, 101, 0, &option(false, 9, &[9])));
    ng.extend(enhanced(false, 0, 12_000_000_000, &[9; 300], 400));
    vec![
        ("micro le", plain(records)),
        ("micro be", pcap(true, MICRO, 4, 0, 1, records)),
        ("nano le", pcap(false, NANO, 4, 0, 1, records)),
        ("nano be", pcap(true, NANO, 4, 0, 1, records)),
        ("modified", pcap(false, MODIFIED, 4, 0, 1, records)),
        ("snoop", snoop(records)),
        ("pcapng", ng),
    ]
}

#[test]
fn classic_in_every_byte_order_precision_and_version() {
    let records: &[Rec<'_>] = &[(10, 5, b"alpha"), (10, 7, b"be")];
    let rows = [
        ("micro le", false, MICRO, 4, 1, 1000),
        ("micro be", true, MICRO, 4, 1, 1000),
        ("nano le", false, NANO, 4, 1, 1),
        ("nano be", true, NANO, 4, 1, 1),
        ("modified le", false, MODIFIED, 4, 1, 1000),
        ("modified be", true, MODIFIED, 4, 1, 1000),
        ("version 2.3", false, MICRO, 3, 1, 1000),
        ("version 2.2", false, MICRO, 2, 1, 1000),
        ("with FCS length", false, MICRO, 4, 0x2400_0001 | 0x1000_0000, 1000),
    ];
    for (name, big, magic, minor, link, unit) in rows {
        let (got, source) = read(&pcap(big, magic, minor, 65_535, link, records));
        let want = [eth(10_000_000_000 + 5 * unit, b"alpha"), eth(10_000_000_000 + 7 * unit, b"be")];
        assert_eq!(got, want, "{name}");
        assert!(source.problems().is_empty(), "{name}");
    }
    // A cut frame; and in 2.2 the lengths are the other way round.
    for (minor, a, b) in [(4, 3, 90), (2, 90, 3), (3, 90, 3), (3, 3, 90)] {
        let mut data = pcap(false, MICRO, minor, 65_535, 101, &[]);
        data.extend(record(false, 1, 0, a, b));
        data.extend(b"abc");
        let (got, source) = read(&data);
        assert_eq!(got, [(1_000_000_000, LinkType::Raw, 90, b"abc".to_vec())], "2.{minor}");
        assert_eq!(source.counters().frames_snapped_total, 1);
    }
    assert!(matches!(try_read(&pcap(false, MICRO, 4, 0, 1, &[]), 64), Ok((got, _)) if got.is_empty()));
}

#[test]
fn snoop_frames_are_unpadded() {
    let (got, source) = read(&snoop(&[(3, 4, b"alpha"), (5, 0, b"beta")]));
    assert_eq!(got, [eth(3_000_004_000, b"alpha"), eth(5_000_000_000, b"beta")]);
    assert!(source.problems().is_empty());
}

#[test]
fn pcapng_sections_interfaces_and_time_units() {
    for big in [false, true] {
        let secs = |s: i64| if big { s.to_be_bytes() } else { s.to_le_bytes() };
        // if_tsresol (option 9), if_tsoffset (14), units, wanted nanoseconds.
        let rows: &[(&str, Vec<u8>, u64, u64)] = &[
            ("default is microseconds", vec![], 1_000_001, 1_000_001_000),
            ("nanoseconds", option(big, 9, &[9]), 1_000_001, 1_000_001),
            ("seconds", option(big, 9, &[0]), 17, 17_000_000_000),
            ("picoseconds", option(big, 9, &[12]), 5_999, 5),
            ("finer than any", option(big, 9, &[127]), u64::MAX, 0),
            ("2^-10", option(big, 9, &[0x8a]), 1536, 1_500_000_000),
            ("2^-127", option(big, 9, &[0xff]), u64::MAX, 0),
            ("2^0", option(big, 9, &[0x80]), 3, 3_000_000_000),
            ("offset", option(big, 14, &secs(100)), 1, 100_000_001_000),
            ("before the epoch", option(big, 14, &secs(-100)), 1, 0),
            ("offset at the edge", option(big, 14, &secs(i64::MAX)), 1, u64::MAX),
            ("units overflow", vec![], u64::MAX, u64::MAX),
        ];
        for (name, options, units, want) in rows {
            let mut data = section(big, 1);
            data.extend(interface(big, 1, 0, options));
            data.extend(enhanced(big, 0, *units, b"odd", 3));
            assert_eq!(read(&data).0, [eth(*want, b"odd")], "{name} {big}");
        }
    }
    let mut data = section(false, 1);
    data.extend(interface(false, 1, 4, &[]));
    data.extend(interface(false, 113, 0, &option(false, 9, &[3])));
    data.extend(enhanced(false, 1, 2000, b"cooked", 6));
    data.extend(old_packet(false, 0, 3_000_000, b"old"));
    data.extend(simple(false, 9, b"simple"));
    data.extend(section(true, 1));
    data.extend(interface(true, 101, 0, &[]));
    data.extend(enhanced(true, 0, 4_000_000, b"raw", 3));
    // Interface 1 belongs to the section before: unknown here, and the frame behind it is read.
    data.extend(enhanced(true, 1, 4_000_000, b"lost", 4));
    data.extend(enhanced(true, 0, 5_000_000, b"raw2", 4));
    let (got, source) = read(&data);
    let want = [
        (2_000_000_000, LinkType::LinuxSll, 6, b"cooked".to_vec()),
        (3_000_000_000, LinkType::Ethernet, 3, b"old".to_vec()),
        (3_000_000_000, LinkType::Ethernet, 9, b"simp".to_vec()),
        (4_000_000_000, LinkType::Raw, 3, b"raw".to_vec()),
        (5_000_000_000, LinkType::Raw, 4, b"raw2".to_vec()),
    ];
    assert_eq!(got, want);
    let whats: Vec<_> = source.problems().iter().map(|p| (p.what, p.skipped)).collect();
    assert_eq!(whats, [(Damage::InterfaceUnknown { interface: 1 }, Some(36))]);
}

#[test]
fn pcapng_blocks_without_frames() {
    let mut data = section(false, 1);
    data.extend(block(false, 10, &[b"KSLT\x05\0\0\0keys\n".as_slice()].concat()));
    data.extend(interface(false, 1, 0, &[]));
    data.extend(block(false, 4, b"names..."));
    data.extend(block(false, 0x8000_0bad, b"unknown"));
    let counts = |received: u64, dropped: u64| {
        let mut body = vec![0; 12];
        body.extend(option(false, 4, &received.to_le_bytes()));
        body.extend(option(false, 5, &1u64.to_le_bytes()));
        body.extend(option(false, 7, &dropped.to_le_bytes()));
        block(false, 5, &body)
    };
    data.extend(counts(10, 2));
    data.extend(counts(15, 3));
    data.extend(enhanced(false, 0, 1, b"x", 1));
    data.extend(section(false, 2));
    data.extend(enhanced(false, 0, 1, b"in a section of version 2", 1));
    data.extend(section(false, 1));
    data.extend(interface(false, 1, 0, &[]));
    data.extend(enhanced(false, 0, 2, b"y", 1));
    let (got, source) = read(&data);
    assert_eq!(got, [eth(1000, b"x"), eth(2000, b"y")]);
    assert_eq!(source.secrets(), [Secrets { kind: 0x544c_534b, data: b"keys\n".to_vec() }]);
    assert!(!format!("{:?}", source.secrets()).contains("keys"), "secrets stay out of logs");
    let c = source.counters();
    assert_eq!((c.kernel_received, c.kernel_dropped, c.interface_dropped), (15, 3, 1));
    assert_eq!(c.blocks_skipped_total, 3);
    let whats: Vec<_> = source.problems().iter().map(|p| p.what).collect();
    assert_eq!(whats, [Damage::SectionVersionUnknown { major: 2 }]);
}

#[test]
fn secrets_are_capped() {
    let mut data = section(false, 1);
    let mut body = b"KSLT\0\0\x10\0".to_vec();
    body.resize(8 + 0x10_0000, b'k');
    for _ in 0..6 {
        data.extend(block(false, 10, &body));
    }
    let (_, source) = read(&data);
    assert_eq!(source.secrets().len(), 3);
    assert_eq!(source.counters().secrets_dropped_bytes_total, 3 * 0x10_0000);
}

/// Every prefix of every format: no panic, and what is delivered is a prefix of the whole.
#[test]
fn truncation_sweep() {
    for (name, data) in samples() {
        let (whole, source) = read(&data);
        assert!(whole.len() >= 4 && source.problems().is_empty(), "{name}");
        for cut in 0..data.len() {
            match try_read(&data[..cut], 64) {
                Ok((got, source)) => {
                    assert_eq!(got, whole[..got.len()], "{name} cut at {cut}");
                    assert!(source.problems().len() <= 1, "{name} cut at {cut}");
                    if let Some(p) = source.problems().first() {
                        assert!(matches!(p.what, Damage::Cut { .. }), "{name} cut at {cut}: {p}");
                        assert!(p.offset < cut as u64 && p.skipped.is_none());
                    }
                }
                Err(SourceError::NotACapture { .. }) => assert!(cut < 28, "{name} cut at {cut}"),
                Err(e) => panic!("{name} cut at {cut}: {e}"),
            }
        }
    }
}

/// Any bit may flip: no panic, books balance (checked by the fuzz body).
#[test]
fn bit_flips_and_seeds() {
    for (_, data) in samples() {
        for at in 0..data.len() {
            for bit in [0, 7] {
                let mut bad = data.clone();
                bad[at] ^= 1 << bit;
                fuzz_pcap_file(&bad);
            }
        }
        fuzz_pcap_file(&gzip(&data));
        fuzz_pcap_file(&zstd(&data));
        let packed = [gzip(&data), zstd(&data)];
        for whole in packed {
            for cut in (0..whole.len()).step_by(7) {
                fuzz_pcap_file(&whole[..cut]);
            }
        }
    }
    for seed in [&b""[..], b"\0", b"text\n", &[0; 40], &[0xff; 40], b"\x0a\x0d\x0d\x0a", b"\x1f\x8b\x08"] {
        fuzz_pcap_file(seed);
    }
}

/// Half a record header after every sixteenth byte looks sound and its successor does not: the search must
/// stay linear (a step that moves the whole window makes this take minutes).
#[test]
fn searching_for_a_sound_record_is_linear() {
    let mut data = plain(&[(10, 0, b"before")]);
    data.extend(record(false, 10, 0, u32::MAX, u32::MAX));
    let near_miss = record(false, 10, 0, 262_143, 262_143);
    for _ in 0..1 << 16 {
        data.extend(&near_miss);
    }
    // Further than a near miss reaches, so that none of them points at the sound records.
    data.resize(data.len() + 300_000, 0);
    data.extend(&plain(&[(11, 0, &[0; 40]), (12, 0, b"after")])[24..]);
    for buffer in [64, 1 << 17, 1 << 20] {
        let (got, source) = try_read(&data, buffer).unwrap();
        assert_eq!(got.len(), 3, "{:?}", source.problems());
        assert_eq!(source.counters().damaged_bytes_total, 16 + (16 << 16) + 300_000);
    }
}

#[test]
fn sources_can_move_to_a_worker_thread() {
    fn check<T: Send>() {}
    check::<FileSource>();
    check::<LiveSource>();
    check::<FaultySource<MemorySource>>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What was written is read, whatever the sizes, whatever the buffer.
    #[test]
    fn any_frames_round_trip(
        frames in prop::collection::vec((0u32..4, 0u32..1_000_000, prop::collection::vec(any::<u8>(), 0..200)), 0..20),
        big: bool,
        buffer in 64usize..600,
    ) {
        let mut sorted: Vec<_> = frames.iter().map(|(s, f, b)| (*s, *f, b.as_slice())).collect();
        sorted.sort_by_key(|(s, f, _)| (*s, *f));
        let want: Vec<Got> = sorted
            .iter()
            .map(|(s, f, b)| eth(u64::from(*s) * 1_000_000_000 + u64::from(*f) * 1000, b))
            .collect();
        let classic = pcap(big, MICRO, 4, 0, 1, &sorted);
        let mut ng = [section(big, 1), interface(big, 1, 0, &[])].concat();
        for (s, f, b) in &sorted {
            ng.extend(enhanced(big, 0, u64::from(*s) * 1_000_000 + u64::from(*f), b, b.len() as u32));
        }
        for data in [classic, ng, snoop(&sorted)] {
            let (got, source) = try_read(&data, buffer).unwrap();
            prop_assert_eq!(&got, &want);
            prop_assert!(source.problems().is_empty());
        }
    }

    /// Bytes are cut out, put in and overwritten: the books balance and nothing panics.
    #[test]
    fn any_damage_is_survived(
        which in 0usize..7,
        edits in prop::collection::vec((0usize..1000, 0usize..40, prop::collection::vec(any::<u8>(), 0..40)), 1..6),
    ) {
        let mut data = samples()[which].1.clone();
        for (at, cut, put) in edits {
            let at = at % (data.len() + 1);
            let end = (at + cut).min(data.len());
            data.splice(at..end, put);
        }
        fuzz_pcap_file(&data);
    }
}

/// The buffer's size must not show.
#[test]
fn buffer_sizes_make_no_difference() {
    for (name, data) in samples() {
        let want = read(&data).0;
        for buffer in [65, 100, 333, 1 << 16] {
            assert_eq!(try_read(&data, buffer).unwrap().0, want, "{name} with {buffer}");
        }
    }
}

#[test]
fn a_record_of_4_gigabytes_is_damage_and_the_rest_is_read() {
    let mut data = plain(&[(10, 0, b"before")]);
    let bad_at = data.len() as u64;
    data.extend(record(false, 10, 0, u32::MAX, u32::MAX));
    data.extend(b"some bytes of the bad record");
    let behind: &[Rec<'_>] = &[(11, 0, b"after one"), (12, 0, b"after two")];
    let resumed = data.len() as u64;
    data.extend(&plain(behind)[24..]);
    let (got, source) = read(&data);
    let want = [(10, &b"before"[..]), (11, b"after one"), (12, b"after two")];
    assert_eq!(got, want.map(|(s, b)| eth(s * 1_000_000_000, b)));
    let [p] = source.problems() else { panic!("{:?}", source.problems()) };
    assert_eq!((p.offset, p.skipped), (bad_at, Some(resumed - bad_at)));
    assert!(p.to_string().contains("claims 4294967295 bytes"), "{p}");

    // Nothing sound behind it: the rest is given up, with its place.
    let mut data = plain(&[(10, 0, b"before")]);
    data.extend(record(false, 10, 0, u32::MAX, u32::MAX));
    data.extend([0xee; 5000]);
    let (got, source) = read(&data);
    assert_eq!((got.len(), source.problems()[0].skipped), (1, None));
    assert_eq!(source.counters().damaged_bytes_total, 5016);

    // The same as a block, and in the very first record.
    let mut data = section(false, 1);
    data.extend(interface(false, 1, 0, &[]));
    data.extend(6u32.to_le_bytes());
    data.extend(0xffff_fffcu32.to_le_bytes());
    data.extend([7; 31]);
    data.extend(enhanced(false, 0, 1, b"x", 1));
    data.extend(enhanced(false, 0, 2, b"y", 1));
    assert_eq!(read(&data).0.len(), 2);
    let mut data = plain(&[]);
    data.extend(record(false, 0, 0, u32::MAX, 0));
    data.extend(&plain(behind)[24..]);
    assert_eq!(read(&data).0.len(), 2);
    let mut data = snoop(&[(1, 0, b"before")]);
    data.extend([0xff; 24]);
    data.extend(&snoop(behind)[16..]);
    assert_eq!(read(&data).0.len(), 3);
}

#[test]
fn lengths_that_contradict_each_other() {
    let start = [section(false, 1), interface(false, 1, 0, &[])].concat();
    let good = [enhanced(false, 0, 1, b"x", 1), enhanced(false, 0, 2, b"y", 1)].concat();
    let mut differ = enhanced(false, 0, 1, b"abcd", 4);
    *differ.last_mut().unwrap() = 1;
    let mut odd = enhanced(false, 0, 1, b"abcd", 4);
    odd[4] += 1;
    let mut over = enhanced(false, 0, 1, b"abcd", 4);
    over[20] = 5;
    for (name, bad) in [("differ", differ), ("odd", odd), ("over", over)] {
        let (got, source) = read(&[&start[..], &bad, &good].concat());
        assert_eq!(got.len(), 2, "{name}: {:?}", source.problems());
        assert_eq!(source.problems().len(), 1, "{name}");
    }
}

#[test]
fn damage_everywhere_stays_bounded() {
    let mut data = plain(&[]);
    for i in 0..300u32 {
        data.extend(&plain(&[(10 + i, 0, b"good"), (10 + i, 1, b"fine")])[24..]);
        data.extend([0xff; 16]);
    }
    let (got, source) = read(&data);
    assert_eq!(got.len(), 600);
    assert_eq!((source.problems().len(), source.counters().records_damaged_total), (100, 300));
}

#[test]
fn what_is_no_capture_says_so() {
    let rows: &[(&str, Vec<u8>, &str)] = &[
        ("empty", vec![], "is empty"),
        ("text", b"GET / HTTP/1.1\r\n".to_vec(), "looks like text"),
        ("short text", b"hi".to_vec(), "looks like text"),
        ("half a header", plain(&[])[..12].to_vec(), "ends within its pcap header (12 of 24 bytes)"),
        ("half a section", section(false, 1)[..20].to_vec(), "ends within its pcapng header"),
        ("no order", [&section(false, 1)[..8], &[0; 40]].concat(), "unknown version or byte order"),
        ("random", vec![0x93, 1, 2, 3, 4, 5, 6, 7, 8], "starts with 93 01 02 03"),
        ("gzip of text", gzip(b"hello hello hello"), "looks like text inside gzip"),
        ("gzip of nothing", gzip(b""), "is empty inside gzip"),
        ("cut gzip", gzip(&plain(&[]))[..12].to_vec(), "can't be decompressed"),
        ("bzip2", b"BZh91AY&SY".to_vec(), "bzip2"),
        ("xz", vec![0xfd, b'7', b'z', b'X', b'Z', 0, 0, 4], "xz"),
        (
            "bad version",
            pcap(false, MICRO, 4, 0, 1, &[])
                .iter()
                .enumerate()
                .map(|(i, b)| if i == 4 { 9 } else { *b })
                .collect(),
            "unknown version",
        ),
        ("too deep", gzip(&gzip(&gzip(&gzip(&plain(&[]))))), "starts with 1f 8b"),
    ];
    for (name, data, want) in rows {
        let e = try_read(data, 64).err().unwrap_or_else(|| panic!("{name} was read")).to_string();
        assert!(e.contains(want) && e.contains("mem") && e.contains("expected"), "{name}: {e}");
    }
}

#[test]
fn compressed_by_content() {
    let data = plain(&[(1, 0, b"one"), (2, 0, &[5; 2000]), (3, 0, b"three")]);
    let want = read(&data).0;
    let (half, rest) = data.split_at(30);
    let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9][..], &zstd(&data)].concat();
    let rows: &[(&str, Vec<u8>)] = &[
        ("gzip", gzip(&data)),
        ("two gzip members", [gzip(half), gzip(rest)].concat()),
        ("zstd", zstd(&data)),
        ("two zstd frames", [zstd(half), zstd(rest)].concat()),
        ("skippable first", skippable.clone()),
        ("skippable last", [&zstd(&data)[..], &skippable[..11]].concat()),
        ("gzip in zstd", zstd(&gzip(&data))),
    ];
    for (name, packed) in rows {
        let (got, source) = read(packed);
        assert_eq!(got, want, "{name}");
        assert!(source.problems().is_empty(), "{name}: {:?}", source.problems());
    }
    // Written by zstd 1.5.4 with --check.
    let by_command = [
        0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x68, 0x6d, 0x01, 0x00, 0xf8, 0xd4, 0xc3, 0xb2, 0xa1, 0x02, 0x00, 0x04,
        0x00, 0xff, 0xff, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x0a, 0x00, 0x04, 0x00, 0x00, 0x0b, 0x01, 0x01,
        0x01, 0x01, 0x0c, 0x02, 0x02, 0x02, 0x02, 0x05, 0x00, 0xa0, 0xd3, 0x9b, 0x9d, 0x05, 0x55, 0x1c, 0x18,
        0x9d, 0x00, 0x5c, 0x12, 0x8b, 0x89, 0x5a,
    ];
    let got = read(&by_command).0;
    assert_eq!(got.iter().map(|g| g.3.clone()).collect::<Vec<_>>(), [vec![0; 4], vec![1; 4], vec![2; 4]]);
    let mut wrong = by_command;
    *wrong.last_mut().unwrap() ^= 1;
    let (got, source) = read(&wrong);
    assert_eq!(got.len(), 3);
    assert!(matches!(source.problems()[0].what, Damage::Compression(_)), "the checksum differs");
    // Cut: what came before is delivered.
    let noise: Vec<u8> = (0..60_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let records: Vec<Rec<'_>> = noise.chunks(600).map(|c| (1, 0, c)).collect();
    let long = gzip(&plain(&records));
    let (got, source) = read(&long[..long.len() / 2]);
    assert!((10..90).contains(&got.len()), "{}", got.len());
    let [p] = source.problems() else { panic!("{:?}", source.problems()) };
    assert!(matches!(p.what, Damage::Compression(_)) && p.to_string().contains("mem"), "{p}");
}

#[test]
fn times_that_go_back_are_clamped_and_counted() {
    let (got, source) = read(&plain(&[(10, 0, b"a"), (8, 0, b"b"), (9, 0, b"c"), (11, 0, b"d")]));
    assert_eq!(got.iter().map(|g| g.0 / 1_000_000_000).collect::<Vec<_>>(), [10, 10, 10, 11]);
    assert_eq!(source.counters().time_backwards_total, 2);
}

fn write(dir: &Path, name: &str, data: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, data).unwrap();
    path
}

fn open(paths: &[PathBuf]) -> Result<(String, FileSource), SourceError> {
    let mut source = FileSource::open(paths, FileOptions::default())?;
    let text = drain(&mut source).iter().map(|g| String::from_utf8_lossy(&g.3).into_owned()).collect();
    Ok((text, source))
}

#[test]
fn files_are_merged_by_time_then_by_order() {
    let dir = tempfile::tempdir().unwrap();
    let a = write(dir.path(), "a.pcap", &plain(&[(1, 0, b"a"), (4, 0, b"d"), (6, 0, b"g")]));
    let b = write(dir.path(), "b.pcap.gz", &gzip(&plain(&[(2, 0, b"b"), (4, 0, b"e"), (7, 0, b"h")])));
    let c = write(dir.path(), "c.snoop", &snoop(&[(3, 0, b"c"), (5, 0, b"f"), (5, 0, b"F")]));
    let (text, source) = open(&[a.clone(), b.clone(), c.clone()]).unwrap();
    assert_eq!(text, "abcdefFgh");
    let size = |p: &Path| std::fs::metadata(p).unwrap().len();
    let total = size(&a) + size(&b) + size(&c);
    assert_eq!(source.progress(), (total, Some(total)));
    assert_eq!((source.counters().files_total, source.counters().files_failed_total), (3, 0));
    // At equal times the order named decides.
    assert_eq!(open(&[b, a, c]).unwrap().0, "abcedfFgh");
}

#[test]
fn many_files_one_after_another_need_one_open_file() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..40u32 {
        write(
            dir.path(),
            &format!("{:02}.pcap", 39 - i),
            &plain(&[(i, 0, &[b'a' + i as u8 % 26]), (i, 1, b".")]),
        );
    }
    let options = FileOptions { open_files_max: 1, ..FileOptions::default() };
    let mut source = FileSource::open(&[dir.path().to_path_buf()], options).unwrap();
    let text: Vec<u8> = drain(&mut source).iter().map(|g| g.3[0]).collect();
    assert!(text.starts_with(b"a.b.c.d.") && text.len() == 80);
    // Three that overlap don't fit in two.
    let overlap: Vec<PathBuf> =
        (0..3).map(|i| write(dir.path(), &format!("o{i}"), &plain(&[(i, 0, b"x"), (9, 0, b"y")]))).collect();
    let options = FileOptions { open_files_max: 2, ..FileOptions::default() };
    let mut source = FileSource::open(&overlap, options).unwrap();
    let mut frames = 0;
    let e = loop {
        match source.next_frame() {
            Ok(Polled::Frame(_)) => frames += 1,
            Ok(_) => panic!("no error"),
            Err(e) => break e,
        }
    };
    assert!(frames >= 1 && e.to_string().contains("more than 2 capture files overlap"), "{frames} {e}");
    assert!(matches!(source.next_frame(), Ok(Polled::End)), "nothing follows an error");
}

#[test]
fn patterns_directories_and_second_names() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let a = write(d, "a.pcap", &plain(&[(1, 0, b"a")]));
    write(d, "b.pcap", &plain(&[(2, 0, b"b")]));
    write(d, "c[1].pcap", &plain(&[(3, 0, b"c")]));
    write(d, "notes.txt", b"not a capture");
    write(d, ".hidden.pcap", &plain(&[(0, 0, b"h")]));
    write(d, "empty.pcap", b"");
    std::fs::create_dir(d.join("sub")).unwrap();
    std::os::unix::fs::symlink(&a, d.join("z-link.pcap")).unwrap();
    let (text, source) = open(&[d.to_path_buf()]).unwrap();
    assert_eq!(text, "abc");
    assert_eq!(source.counters().files_skipped_total, 3, "text, empty, second name");
    assert!(source.problems().is_empty());
    assert_eq!(open(&[d.join("[ab].pcap")]).unwrap().0, "ab");
    assert_eq!(open(&[d.join("c[1].pcap")]).unwrap().0, "c", "a name that exists is no pattern");
    assert_eq!(open(&[a.clone(), d.join("*.pcap"), a.clone()]).unwrap().0, "abc");
    // A bad file among good ones is a problem; alone it is an error.
    let (text, source) = open(&[d.join("notes.txt"), a]).unwrap();
    assert_eq!((text.as_str(), source.counters().files_failed_total), ("a", 1));
    assert!(
        source.problems()[0].to_string().contains("notes.txt looks like text"),
        "{}",
        source.problems()[0]
    );
    // So is a name that stands for nothing.
    let names = [d.join("nope.pcap"), d.join("a.pcap"), d.join("nope*.pcap"), d.join("sub")];
    let (text, source) = open(&names).unwrap();
    assert_eq!((text.as_str(), source.counters().files_failed_total), ("a", 2));
    let problems: Vec<String> = source.problems().iter().map(ToString::to_string).collect();
    assert!(problems[0].contains("nope.pcap") && problems[0].contains("No such file"), "{problems:?}");
    assert!(problems[1].contains("no capture file found"), "{problems:?}");
    let error = |paths: &[PathBuf]| open(paths).err().unwrap().to_string();
    assert!(error(&[d.join("notes.txt")]).contains("looks like text"));
    assert!(error(&[d.join("nope.pcap")]).contains("nope.pcap: No such file"));
    assert!(error(&[d.join("nope*.pcap")]).contains("no capture file found"));
    assert!(error(&[d.join("a***.pcap")]).contains("bad pattern"));
    assert!(error(&[d.join("sub")]).contains("no capture file found"));
    assert!(error(&[]).contains("no path was given"));
}

/// A pipe can be read only once, also among several files.
#[test]
fn pipes_are_merged_too() {
    let dir = tempfile::tempdir().unwrap();
    let a = write(dir.path(), "a.pcap", &plain(&[(1, 0, b"a"), (3, 0, b"c")]));
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, plain(&[(2, 0, b"b"), (4, 0, b"d")])).unwrap()
    });
    let (text, source) = open(&[a, pipe]).unwrap();
    writer.join().unwrap();
    assert_eq!(text, "abcd");
    assert_eq!(source.progress().1, None);
}

/// The reading itself: nothing but the header costs.
#[test]
fn frames_are_borrowed_from_the_buffer() {
    let data = plain(&[(1, 0, b"abcd"), (1, 0, b"efgh")]);
    let mut source = FileSource::from_reader("mem", Cursor::new(data), FileOptions::default()).unwrap();
    let mut at = Vec::new();
    while let Polled::Frame(f) = source.next_frame().unwrap() {
        at.push(f.bytes.as_ptr() as usize);
    }
    assert_eq!(at[1] - at[0], 20, "the second frame lies 16 + 4 bytes behind the first");
}
