//! Reads a capture with `FileSource` and prints what it cost, to be set beside `tcpdump -r F -w /dev/null`.
//!
//! `cargo bench -p offpath-capture --bench read -- FILE… [--peer pcap-parser] [--buffer KIB] [--runs N]`
//! `… -- --live INTERFACE --seconds N [--workers N]` counts what a live interface brings instead.
//! Without a file it writes one of 64 MiB into the temporary directory and reads that.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use offpath_capture::{FileOptions, FileSource, LiveOptions, LiveSource, PacketSource, Polled};
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{LegacyPcapReader, PcapBlockOwned, PcapError, PcapNGReader};

fn main() -> ExitCode {
    let (mut files, mut peer, mut buffer, mut runs) = (Vec::new(), false, 0, 5);
    let (mut live, mut seconds, mut workers) = (None, 5, 1);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--peer" => peer = args.next().is_some_and(|p| p == "pcap-parser"),
            "--buffer" => buffer = args.next().and_then(|n| n.parse().ok()).unwrap_or(0) * 1024,
            "--runs" => runs = args.next().and_then(|n| n.parse().ok()).unwrap_or(5),
            "--live" => live = args.next(),
            "--seconds" => seconds = args.next().and_then(|n| n.parse().ok()).unwrap_or(5),
            "--workers" => workers = args.next().and_then(|n| n.parse().ok()).unwrap_or(1),
            file => files.push(PathBuf::from(file)),
        }
    }
    if let Some(interface) = live {
        let handles: Vec<_> = (0..workers)
            .map(|worker| {
                let options = LiveOptions { worker, workers, ..LiveOptions::new(&interface) };
                std::thread::spawn(move || listen(&options, seconds))
            })
            .collect();
        for handle in handles {
            if handle.join().is_err() {
                return ExitCode::FAILURE;
            }
        }
        return ExitCode::SUCCESS;
    }
    let made = if files.is_empty() {
        match make() {
            Ok(file) => {
                files.push(file.path().to_path_buf());
                Some(file)
            }
            Err(e) => {
                eprintln!("{e}");
                return ExitCode::FAILURE;
            }
        }
    } else {
        None
    };
    for _ in 0..runs {
        let (before, cpu) = (Clock::now(), cpu_ms());
        let (frames, bytes, sum) = if peer { read_peer(&files[0], buffer) } else { read(&files, buffer) };
        let (wall, cpu) = (before.elapsed_ms(), cpu_ms() - cpu);
        println!(
            "{frames} frames {bytes} bytes  wall {wall:.1} ms  cpu {cpu:.0} ms  {:.1} Mframes/s {:.2} GB/s  (check {sum:x})",
            frames as f64 / wall / 1e3,
            bytes as f64 / wall / 1e6,
        );
    }
    drop(made);
    ExitCode::SUCCESS
}

/// Counts frames of an interface.
fn listen(options: &LiveOptions, seconds: u64) {
    let mut source = LiveSource::open(options).unwrap_or_else(|e| panic!("{e}"));
    let (start, mut idle) = (Clock::now(), 0u64);
    let mut n = 0u32;
    loop {
        match source.next_frame() {
            Ok(Polled::Frame(_)) => {}
            Ok(Polled::Idle(_)) => idle += 1,
            Ok(Polled::End) => break,
            Err(e) => panic!("{e}"),
        }
        n = n.wrapping_add(1);
        if (n.is_multiple_of(256) || idle % 8 == 7) && start.elapsed_ms() > seconds as f64 * 1e3 {
            break;
        }
    }
    source.refresh();
    let c = source.counters();
    println!(
        "worker {}: {} frames {} bytes  kernel {} dropped {}  idle {idle}  process cpu {:.0} ms",
        options.worker,
        c.frames_total,
        c.bytes_total,
        c.kernel_received,
        c.kernel_dropped,
        cpu_ms(),
    );
}

/// Reads with ours; the sum touches one byte of each frame.
fn read(files: &[PathBuf], buffer: usize) -> (u64, u64, u64) {
    let mut options = FileOptions::default();
    if buffer > 0 {
        options.buffer_bytes = buffer;
    }
    let mut source = match FileSource::open(files, options) {
        Ok(source) => source,
        Err(e) => panic!("{e}"),
    };
    let mut sum = 0u64;
    loop {
        match source.next_frame() {
            Ok(Polled::Frame(f)) => {
                sum = sum.wrapping_add(f.time.as_nanos() ^ u64::from(f.bytes.first().copied().unwrap_or(0)));
            }
            Ok(_) => break,
            Err(e) => panic!("{e}"),
        }
    }
    for problem in source.problems() {
        eprintln!("{problem}");
    }
    let c = source.counters();
    (c.frames_total, c.bytes_total, sum)
}

/// Reads the same with pcap-parser's streaming reader.
fn read_peer(file: &PathBuf, buffer: usize) -> (u64, u64, u64) {
    let buffer = if buffer > 0 { buffer } else { 1 << 20 };
    let open = || std::fs::File::open(file).unwrap_or_else(|e| panic!("{e}"));
    let mut reader: Box<dyn PcapReaderIterator> = match LegacyPcapReader::new(buffer, open()) {
        Ok(reader) => Box::new(reader),
        Err(_) => match PcapNGReader::new(buffer, open()) {
            Ok(reader) => Box::new(reader),
            Err(e) => panic!("{e}"),
        },
    };
    let (mut frames, mut bytes, mut sum) = (0, 0, 0u64);
    loop {
        match reader.next() {
            Ok((consumed, block)) => {
                let data = match &block {
                    PcapBlockOwned::Legacy(b) => Some((b.data, u64::from(b.ts_sec) + u64::from(b.ts_usec))),
                    PcapBlockOwned::NG(pcap_parser::Block::EnhancedPacket(b)) => {
                        Some((&b.data[..b.caplen as usize], u64::from(b.ts_high) << 32 | u64::from(b.ts_low)))
                    }
                    _ => None,
                };
                if let Some((data, time)) = data {
                    frames += 1;
                    bytes += data.len() as u64;
                    sum = sum.wrapping_add(time ^ u64::from(data.first().copied().unwrap_or(0)));
                }
                reader.consume(consumed);
            }
            Err(PcapError::Eof) => return (frames, bytes, sum),
            Err(PcapError::Incomplete(_)) => {
                if let Err(e) = reader.refill() {
                    panic!("{e}");
                }
            }
            Err(e) => panic!("{e}"),
        }
    }
}

/// Writes a capture of frames of the sizes that web traffic has.
fn make() -> std::io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    let mut out = std::io::BufWriter::new(&mut file);
    out.write_all(&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0])?;
    let (mut written, mut n) = (0usize, 0u32);
    while written < 64 << 20 {
        let len = [66u32, 400, 66, 1514, 1514, 66, 600][n as usize % 7];
        for word in [1_700_000_000 + n / 1000, n % 1000 * 1000, len, len] {
            out.write_all(&word.to_le_bytes())?;
        }
        out.write_all(&vec![n as u8; len as usize])?;
        written += 16 + len as usize;
        n += 1;
    }
    out.flush()?;
    drop(out);
    Ok(file)
}

struct Clock(std::time::Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
    fn now() -> Self {
        Self(std::time::Instant::now())
    }

    fn elapsed_ms(&self) -> f64 {
        self.0.elapsed().as_secs_f64() * 1e3
    }
}

/// Returns user and system time of the process in milliseconds, to the clock tick.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    // utime and stime are fields 14 and 15 of proc(5); ticks are 10 ms on every Linux in use.
    fields.skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum::<f64>() * 10.0
}
