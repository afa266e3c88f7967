//! TLS key logs that come after the packets: files that grow, and the socket.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use offpath_testkit::conversation::write_pcap;
use offpath_testkit::{Conversation, Link};
use offpath_types::Timestamp;
use serde_json::Value;

use crate::support::{Bench, assert_balanced, root};

/// A golden capture, and the key log of its one connection.
fn capture(folder: &str, file: &str) -> (Vec<u8>, String) {
    let dir = root().join("captures").join(folder);
    let mut bytes = fs::read(dir.join(file)).unwrap();
    let log = fs::read_to_string(dir.join("keylog.txt")).unwrap_or_else(|_| {
        // Of a decryption secrets block.
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let starts = ["CLIENT_", "SERVER_"].iter().flat_map(|label| text.match_indices(label));
        let lines = starts.filter_map(|(at, _)| text[at..].split_once('\n'));
        lines.map(|(line, _)| format!("{line}\n")).filter(|line| line.split(' ').count() == 3).collect()
    });
    assert!(log.lines().count() > 0, "{folder}");
    if file.ends_with("ng") {
        bytes = without_secrets(&bytes);
    }
    (bytes, log)
}

/// Leaves out the decryption secrets blocks of a pcapng file.
fn without_secrets(mut bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    while let [k, i, n, d, a, b, c, e, ..] = *bytes {
        let (block, rest) = bytes.split_at(u32::from_le_bytes([a, b, c, e]) as usize);
        if [k, i, n, d] != [10, 0, 0, 0] {
            kept.extend_from_slice(block);
        }
        bytes = rest;
    }
    kept
}

fn captures() -> [(Vec<u8>, String); 3] {
    [
        capture("tls12-decrypted", "input.pcap"),
        capture("tls12-rsa-premaster", "input.pcap"),
        capture("tls13-decrypted-pcapng", "input.pcapng"),
    ]
}

/// A run that reads its packets from here.
struct Sensor {
    child: Child,
    listener: TcpListener,
    again: Option<TcpStream>,
}

impl Sensor {
    /// Starts `attach` or `replay --follow` as the user who runs the tests.
    fn start(bench: &Bench, command: &str, keylog: &str, more: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("tcp://{}", listener.local_addr().unwrap());
        let config = bench.write("offpath.toml", "[capture]\nuser = \"\"\n");
        let source = if command == "attach" { ["--pcap-over-ip", &server] } else { ["--follow", &server] };
        let child = bench
            .command()
            .env("OFFPATH_LOG", "trace")
            .arg(command)
            .args(source)
            .args(["--keylog", keylog, "--config"])
            .arg(config)
            .arg("--transactions")
            .arg(bench.path("tx.jsonl"))
            .arg("--stats")
            .arg(bench.path("stats.json"))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, listener, again: None }
    }

    /// Sends a capture, and waits until all of it was read.
    fn send(&mut self, bytes: &[u8]) {
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.write_all(bytes).unwrap();
        // Once the server has closed and the sensor comes back, all that was sent has been read.
        drop(stream);
        let (mut again, _) = self.listener.accept().unwrap();
        // A server that has sent no header yet would keep a replay from stopping.
        let start = Timestamp::from_parts(1, 0);
        let mut other = Conversation::new(([192, 0, 2, 1], 2000).into(), ([192, 0, 2, 2], 80).into(), start);
        other.handshake();
        again.write_all(&write_pcap(Vec::new(), Link::Ethernet, other.packets()).unwrap()).unwrap();
        self.again = Some(again);
    }

    fn stop(self) -> Output {
        assert!(
            Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success()
        );
        self.child.wait_with_output().unwrap()
    }
}

fn stats(bench: &Bench) -> Value {
    serde_json::from_str(&fs::read_to_string(bench.path("stats.json")).unwrap()).unwrap()
}

/// Asserts that nothing that the run wrote shows a secret.
fn assert_silent(bench: &Bench, log: &str, output: &Output) {
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy);
    let written = ["tx.jsonl", "stats.json"].map(|name| fs::read_to_string(bench.path(name)).unwrap());
    for secret in log.lines().filter_map(|line| line.split(' ').nth(2)) {
        assert!(said.iter().all(|text| !text.contains(secret)));
        assert!(written.iter().all(|text| !text.contains(secret)));
    }
}

#[test]
fn keys_that_come_after_the_packets_open_what_has_passed() {
    for (bytes, log) in captures() {
        let bench = Bench::new();
        let name = if log.contains("TRAFFIC") { "a.pcapng" } else { "a.pcap" };
        let keys = bench.write("early.txt", &log);
        let file = bench.write(name, &bytes);
        let want = bench.replay(&[&file], &["--keylog", keys.to_str().unwrap()]);
        assert_eq!(want.records().len(), 2);
        for (command, workers) in [("replay", "1"), ("replay", "2"), ("attach", "1")] {
            let path = bench.path("late.txt");
            let mut sensor = Sensor::start(&bench, command, path.to_str().unwrap(), &["--workers", workers]);
            sensor.send(&bytes);
            fs::write(&path, format!("nonsense\n{log}")).unwrap();
            let output = sensor.stop();
            let name = format!("{command}, {workers} workers");
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            let got = fs::read_to_string(bench.path("tx.jsonl")).unwrap();
            assert_eq!(got, want.transactions, "{name}");
            let stats = stats(&bench);
            assert_balanced(&stats);
            let (c, k) = (&stats["decryption"], &stats["keylog"]);
            // Several workers get packets in batches, and the keys may come with them.
            let waits = u64::from(workers == "1");
            assert!(c["waits_total"].as_u64().unwrap() >= waits, "{name}: {c}");
            assert_eq!(c["waits_total"], c["waits_served_total"], "{name}: {c}");
            assert_eq!(c["known_total"], workers.parse::<u64>().unwrap(), "{name}: each worker is told");
            assert_eq!(k["lines_invalid_total"], 1, "{name}");
            assert_silent(&bench, &log, &output);
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn programs_stream_keys_to_a_socket() {
    let (bytes, log) = capture("tls13-decrypted-pcapng", "input.pcapng");
    for command in ["attach", "replay"] {
        let bench = Bench::new();
        let path = bench.path("keys.sock");
        // What an earlier run left behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let mut sensor = Sensor::start(&bench, command, &format!("unix://{}", path.display()), &[]);
        sensor.send(&bytes);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // Two writers take turns; the last line has no end.
        let mut writers = [(); 2].map(|()| UnixStream::connect(&path).unwrap());
        for (n, line) in log.lines().enumerate() {
            let (first, second) = line.split_at(40);
            writers[n % 2].write_all(if n < 2 { "" } else { "\n" }.as_bytes()).unwrap();
            writers[n % 2].write_all(first.as_bytes()).unwrap();
            writers[n % 2].write_all(second.as_bytes()).unwrap();
        }
        drop(writers);
        let output = sensor.stop();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read_to_string(bench.path("tx.jsonl")).unwrap().lines().count(), 2, "{command}");
        let stats = stats(&bench);
        assert_balanced(&stats);
        assert_eq!(stats["keylog"]["writers_total"], 2, "{command}");
        assert_eq!(stats["decryption"]["connections_opened_total"], 1, "{command}");
        assert_silent(&bench, &log, &output);
        assert!(!path.exists(), "{command}: the socket goes with its process");
    }
}

#[test]
fn what_no_key_comes_for_stays_closed_and_is_counted() {
    let (bytes, _) = capture("tls12-decrypted", "input.pcap");
    let bench = Bench::new();
    let keys = bench.write("keys.txt", "");
    let mut sensor = Sensor::start(&bench, "attach", keys.to_str().unwrap(), &[]);
    sensor.send(&bytes);
    assert!(sensor.stop().status.success());
    assert_eq!(fs::read_to_string(bench.path("tx.jsonl")).unwrap(), "");
    let stats = stats(&bench);
    assert_balanced(&stats);
    let c = &stats["decryption"];
    assert_eq!((&c["waits_ended_total"], &c["connections_without_secrets_total"]), (&1.into(), &1.into()));
}

#[test]
fn key_logs_that_cannot_be_are_refused() {
    let bench = Bench::new();
    let file = bench.write("a.pcap", capture("tls12-decrypted", "input.pcap").0);
    let socket = format!("unix://{}", bench.path("keys.sock").display());
    let got = bench.replay(&[&file], &["--keylog", &socket]);
    assert_eq!(got.code(), 2, "{}", got.stderr());
    assert!(got.stderr().contains("--follow"), "{}", got.stderr());
    let folder = bench.path("");
    let got = bench.replay(&[&file], &["--follow", "--keylog", folder.to_str().unwrap()]);
    assert_eq!(got.code(), 3, "{}", got.stderr());
    // A log that records are written to is none.
    let tx = bench.path("tx.jsonl");
    fs::write(&tx, "").unwrap();
    let attach = |keylog: &Path| {
        let mut command = bench.command();
        command.args(["attach", "--pcap-over-ip", "tcp://127.0.0.1:9", "--transactions"]).arg(&tx);
        command.arg("--keylog").arg(keylog).output().unwrap().status.code()
    };
    assert_eq!(attach(&tx), Some(2));
}

#[test]
fn a_key_log_that_is_rotated_is_read_on() {
    let (bytes, log) = capture("tls12-decrypted", "input.pcap");
    let bench = Bench::new();
    let keys = bench.write("keys.txt", log.replace(' ', " 00"));
    let mut sensor = Sensor::start(&bench, "attach", keys.to_str().unwrap(), &[]);
    sensor.send(&bytes);
    fs::rename(&keys, bench.path("keys.1")).unwrap();
    fs::write(&keys, &log).unwrap();
    assert!(sensor.stop().status.success());
    let stats = stats(&bench);
    assert_balanced(&stats);
    let k = &stats["keylog"];
    assert_eq!((&k["lines_invalid_total"], &k["files_reopened_total"]), (&1.into(), &1.into()), "{k}");
    assert_eq!(stats["decryption"]["waits_served_total"], 1);
}
