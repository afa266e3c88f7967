//! More than scoring can take: capture goes on, what is dropped is counted, and the books balance.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use offpath_capture::{FaultOptions, FaultySource, FileOptions, FileSource, PacketSource, Polled};
use offpath_testkit::traffic::Scenario;
use offpath_testkit::{PcapFormat, PcapWriter};
use serde_json::Value;

use crate::support::{Bench, assert_balanced, traffic};

/// Each request is a batch of its own, being more than 5 ms after the one before: with those that fill the pipe that
/// nobody reads (24 KB a record), more than the queue of 256 takes. Slower is the same; capture has all the time.
const REQUESTS: usize = 500;
const PACE: Duration = Duration::from_millis(6);
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Sends `REQUESTS` requests over one connection of the loopback interface.
fn requests(listener: TcpListener, port: u16) {
    let long = "x".repeat(8000);
    let request = format!("GET /{long} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: {long}\r\n\r\n");
    let len = request.len();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; len];
        while stream.read_exact(&mut request).is_ok() {
            stream.write_all(RESPONSE).unwrap();
        }
    });
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut response = [0; RESPONSE.len()];
    for _ in 0..REQUESTS {
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_exact(&mut response).unwrap();
        thread::sleep(PACE);
    }
    drop(stream);
    server.join().unwrap();
}

/// Nobody reads the records for a while, so scoring stands still and its queue fills.
#[test]
#[ignore = "needs root: run by make unit-root"]
fn a_full_queue_drops_transactions_and_counts_each() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut child = bench
        .command()
        .args(["attach", "-i", "lo", "-f", &format!("tcp port {port}"), "--transactions", "-", "--stats"])
        .arg(bench.path("stats.json"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut notices = BufReader::new(child.stderr.take().unwrap()).lines();
    let attached = notices.by_ref().map(Result::unwrap).find(|line| line.contains("attached to lo"));
    assert!(attached.is_some(), "attach ended at once");
    let notices = thread::spawn(move || notices.map(Result::unwrap).collect::<Vec<_>>().join("\n"));
    requests(listener, port);
    let interrupt = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    let records = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).count();
    let status = child.wait().unwrap();
    let notices = notices.join().unwrap();
    assert_eq!(status.code(), Some(0), "{notices}");

    let stats: Value = serde_json::from_str(&fs::read_to_string(bench.path("stats.json")).unwrap()).unwrap();
    assert_balanced(&stats);
    let count = |section: &str, name: &str| stats[section][name].as_u64().unwrap();
    let dropped = count("pipeline", "transactions_dropped_queue_full_total");
    let scored = count("pipeline", "transactions_scored_total");
    assert!(dropped > 0, "the queue must overflow: {:#}", stats["pipeline"]);
    assert_eq!(records as u64, scored, "every scored transaction has its record");
    assert_eq!(dropped + scored, count("protocol", "transactions_total"));
    if count("capture", "kernel_dropped") == 0 {
        assert_eq!(dropped + scored, REQUESTS as u64, "capture must not wait for scoring");
    }
}

#[test]
fn faults_of_every_kind_at_once_cost_no_balance_and_no_order() {
    let bench = Bench::new();
    traffic(&bench, Scenario::Mixed, 1500, 9);
    let clean = bench.path("traffic.pcap");
    for seed in 0..6 {
        let faults = FaultOptions {
            drop_ppm: 20_000,
            duplicate_ppm: 20_000,
            reorder_ppm: 20_000,
            reorder_distance: 4,
            truncate_ppm: 20_000,
            ..FaultOptions::new(seed)
        };
        let source = FileSource::open(std::slice::from_ref(&clean), FileOptions::default()).unwrap();
        let mut source = FaultySource::new(source, faults);
        let mut writer = PcapWriter::new(Vec::new(), PcapFormat::new(1)).unwrap();
        while let Polled::Frame(frame) = source.next_frame().unwrap() {
            writer.write_cut(frame.time, frame.bytes, frame.wire_len).unwrap();
        }
        let counters = source.counters();
        for (name, faults) in [
            ("dropped", counters.fault_dropped_total),
            ("duplicated", counters.fault_duplicated_total),
            ("reordered", counters.fault_reordered_total),
            ("truncated", counters.fault_truncated_total),
        ] {
            assert!(faults > 20, "seed {seed}: only {faults} {name}");
        }
        let path = bench.write("faulty.pcap", writer.finish().unwrap());
        let one = bench.replay(&[&path], &["--workers", "1"]);
        assert_eq!(one.code(), 0, "seed {seed}: {}", one.stderr());
        assert_balanced(&one.stats);
        assert!(one.records().len() > 1000, "seed {seed}: {}", one.records().len());
        assert_eq!(one.stats["worker"]["flows_poisoned_total"], 0, "seed {seed}");
        let many = bench.replay(&[&path], &["--workers", "4"]);
        assert!(many.transactions == one.transactions, "seed {seed}: transactions differ with 4 workers");
        assert!(many.decisions == one.decisions, "seed {seed}: decisions differ with 4 workers");
    }
}
