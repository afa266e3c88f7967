//! Where frames come from besides files: UDP listeners, pcap-over-IP, files that grow.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use offpath_testkit::conversation::write_pcap;
use offpath_testkit::{Conversation, Link, Packet};
use offpath_types::{Direction, Timestamp};
use serde_json::Value;

use crate::support::{Bench, assert_balanced, root};

const SCRIPT: &str = ">>>
GET /catalogue HTTP/1.1
Host: shop.example

<<<
HTTP/1.1 200 OK
Content-Length: 2

ok\\
>>>
GET /basket HTTP/1.1
Host: shop.example

<<<
HTTP/1.1 404 Not Found
Content-Length: 0

";

/// The packets of one connection with two transactions.
fn connection(port: u16) -> Vec<Packet> {
    connection_at(1_767_600_000, port)
}

/// The same, a microsecond later for each port.
fn connection_at(secs: u64, port: u16) -> Vec<Packet> {
    let start = Timestamp::from_parts(secs, u64::from(port) * 1000);
    let mut talk = Conversation::new(([192, 0, 2, 1], port).into(), ([198, 51, 100, 1], 80).into(), start);
    talk.handshake().script(SCRIPT).unwrap().close();
    talk.into_packets()
}

fn capture(connections: u16) -> Vec<u8> {
    let packets: Vec<_> = (0..connections).flat_map(|n| connection(2000 + n)).collect();
    write_pcap(Vec::new(), Link::Ethernet, &packets).unwrap()
}

/// A capture with `early` connections, and one that comes so much later that the early ones are settled.
fn capture_in_two(early: u16) -> Vec<u8> {
    let mut packets: Vec<_> = (0..early).flat_map(|n| connection(2000 + n)).collect();
    packets.extend(connection_at(1_767_600_600, 2000));
    write_pcap(Vec::new(), Link::Ethernet, &packets).unwrap()
}

/// Waits until so many records are written.
fn wait_for_lines(bench: &Bench, name: &str, want: usize) {
    for _ in 0..3000 {
        if lines(bench, name) >= want {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{name} has {} of {want} lines after 30 s", lines(bench, name));
}

fn stop(child: &Child) {
    signal(child, "-TERM");
}

fn signal(child: &Child, name: &str) {
    let done = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(done.success());
}

fn lines(bench: &Bench, name: &str) -> usize {
    fs::read_to_string(bench.path(name)).unwrap_or_default().lines().count()
}

/// A cloud mirror to a listener of two workers: the two directions come from different ports, so that the kernel gives
/// them to different sockets. All transactions come out, whole, with their VNI. Needs no privilege.
#[test]
fn a_listener_of_several_workers_sees_both_directions_of_each_flow() {
    // A terminal that is closed ends it as any signal does.
    for (scheme, header, end) in [("vxlan", [8, 0, 0, 0], "-TERM"), ("geneve", [0, 0, 0x65, 0x58], "-HUP")] {
        let bench = Bench::new();
        let probe = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut child = bench
            .command()
            .args(["attach", "--listen", &format!("{scheme}://{probe}"), "--workers", "2", "--transactions"])
            .arg(bench.path("tx.jsonl"))
            .arg("--stats")
            .arg(bench.path("stats.json"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut notices = BufReader::new(child.stderr.take().unwrap()).lines();
        let attached = notices.by_ref().map(Result::unwrap).find(|line| line.contains("attached to"));
        assert!(attached.is_some_and(|line| line.contains("with 2 workers")), "attach ended at once");
        let connections = 60;
        // A socket per flow and direction: the source port of a mirror is a hash of the inner flow.
        for n in 0..connections {
            let [up, down] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
            for packet in connection(2000 + n) {
                let mut datagram = header.to_vec();
                datagram.extend([0, 0, 77, 0]);
                datagram.extend(Link::Ethernet.wrap(&packet.bytes));
                let from = if packet.direction == Direction::ToServer { &up } else { &down };
                from.send_to(&datagram, probe).unwrap();
            }
            // On a busy machine the sockets of a listener that gets no time would overflow.
            thread::sleep(Duration::from_millis(5));
        }
        // What the sockets hold is read before the end.
        signal(&child, end);
        assert!(notices.map(Result::unwrap).all(|line| !line.contains("panicked")));
        assert!(child.wait().unwrap().success(), "{scheme}");
        let records: Vec<Value> = fs::read_to_string(bench.path("tx.jsonl"))
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(records.len(), 2 * usize::from(connections), "{scheme}");
        for record in &records {
            assert_eq!(record["offpath"]["complete"], true, "{record}");
            assert_eq!(record["offpath"]["tunnel"], serde_json::json!({"type": scheme, "id": 77}));
        }
        let stats: Value =
            serde_json::from_str(&fs::read_to_string(bench.path("stats.json")).unwrap()).unwrap();
        assert_balanced(&stats);
        assert!(
            stats["handover"]["segments_handed_over_total"].as_u64().unwrap() > 0,
            "{}",
            stats["handover"]
        );
        assert_eq!(stats["handover"]["segments_dropped_queue_full_total"], 0);
    }
}

#[test]
fn a_pcap_over_ip_server_is_replayed_like_the_file_that_it_sends() {
    let bench = Bench::new();
    let bytes = capture(30);
    let file = bench.write("whole.pcap", &bytes);
    let want = bench.replay(&[&file], &[]);
    assert_eq!(want.records().len(), 60);
    for workers in ["1", "2"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("tcp://{}", listener.local_addr().unwrap());
        let bytes = bytes.clone();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for piece in bytes.chunks(997) {
                stream.write_all(piece).unwrap();
            }
        });
        let got = bench.replay(&[name.as_ref()], &["--workers", workers]);
        server.join().unwrap();
        assert_eq!(got.code(), 0, "{}", got.stderr());
        assert_eq!(got.transactions, want.transactions, "{workers} workers");
        assert_balanced(&got.stats);
    }
    let gone: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let got = bench.replay(&[format!("tcp://{gone}").as_ref()], &[]);
    assert_eq!(got.code(), 3);
    assert!(got.stderr().contains(&gone.to_string()), "{}", got.stderr());
}

#[test]
fn attach_reads_a_pcap_over_ip_server() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("tcp://{}", listener.local_addr().unwrap());
    let child = bench
        .command()
        .args(["attach", "--quiet", "--pcap-over-ip", &server, "--transactions"])
        .arg(bench.path("tx.jsonl"))
        .spawn()
        .unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(&capture(10)).unwrap();
    // Once the server has closed and the sensor comes back, all that was sent has been read.
    drop(stream);
    let (_again, _) = listener.accept().unwrap();
    stop(&child);
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(lines(&bench, "tx.jsonl"), 20);
}

#[test]
fn a_followed_file_gives_what_the_whole_file_gives_and_is_written_as_it_grows() {
    let bench = Bench::new();
    let early = 1500;
    let bytes = capture_in_two(early);
    let file = bench.write("whole.pcap", &bytes);
    let want = bench.replay(&[&file], &[]);
    let records = 2 * usize::from(early);
    assert_eq!(want.records().len(), records + 2);
    for workers in ["1", "2"] {
        let name = format!("followed-{workers}.jsonl");
        fs::create_dir_all(bench.path("live")).unwrap();
        let path = bench.path("live").join("a.pcap");
        let mut writer = fs::File::create(&path).unwrap();
        let child = bench
            .command()
            .args(["replay", "--quiet", "--follow", "--workers", workers, "--transactions"])
            .arg(bench.path(&name))
            .arg(bench.path("live"))
            .spawn()
            .unwrap();
        // All but the last record, without its end: what is early comes out while the rest is still missing.
        let (first, second) = bytes.split_at(bytes.len() - 7);
        writer.write_all(first).unwrap();
        wait_for_lines(&bench, &name, records);
        writer.write_all(second).unwrap();
        stop(&child);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let got = fs::read_to_string(bench.path(&name)).unwrap();
        assert!(got == want.transactions, "{workers} workers: {} lines", got.lines().count());
        fs::remove_dir_all(bench.path("live")).unwrap();
    }
}

#[test]
fn a_signal_ends_a_replay_of_a_server_that_keeps_its_connection() {
    let bench = Bench::new();
    let (early, whole) = (50, capture_in_two(50));
    for (workers, busy) in [("1", false), ("2", false), ("1", true)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("tcp://{}", listener.local_addr().unwrap());
        let name = format!("{workers}-{busy}.jsonl");
        let child = bench
            .command()
            .args(["replay", "--quiet", &server, "--workers", workers, "--transactions"])
            .arg(bench.path(&name))
            .arg("--stats")
            .arg(bench.path("stats.json"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        // It ends within a record, or never stops sending: records of two bytes, which are no frame.
        let mut record = [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 2];
        record[..4].copy_from_slice(&1_767_600_601u32.to_le_bytes());
        stream.write_all(&whole).unwrap();
        stream.write_all(&record[..9]).unwrap();
        let sender = busy.then(|| {
            let mut stream = stream.try_clone().unwrap();
            thread::spawn(move || {
                let _ = stream.write_all(&record[9..]);
                while stream.write_all(&record).is_ok() {}
            })
        });
        wait_for_lines(&bench, &name, 2 * early);
        // The last connection is read by then, also on a busy machine; it may not be written before the end.
        thread::sleep(Duration::from_millis(300));
        stop(&child);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(lines(&bench, &name), 2 * early + 2, "{workers} {busy}");
        let stats: Value =
            serde_json::from_str(&fs::read_to_string(bench.path("stats.json")).unwrap()).unwrap();
        assert_balanced(&stats);
        let capture = |name: &str| stats["capture"][name].as_u64().unwrap();
        assert_eq!(
            capture("stream_bytes_total"),
            capture("bytes_total") + capture("overhead_bytes_total") + capture("damaged_bytes_total")
        );
        assert!(capture("stream_bytes_total") > 0);
        drop(stream);
        if let Some(sender) = sender {
            sender.join().unwrap();
        }
    }
}

/// `tcpdump -w - | offpath replay -` and Ctrl-C: both get the signal, and what tcpdump still writes is read.
#[test]
fn standard_input_is_read_to_its_end_after_an_interrupt() {
    let bench = Bench::new();
    let whole = capture(20);
    let mut child = bench
        .command()
        .args(["replay", "--quiet", "-", "--transactions"])
        .arg(bench.path("tx.jsonl"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&whole[..whole.len() / 2]).unwrap();
    // It handles signals before it reads.
    for _ in 0..3000 {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        if u64::from_str_radix(&caught, 16).unwrap() & 2 != 0 {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    signal(&child, "-INT");
    input.write_all(&whole[whole.len() / 2..]).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    assert_eq!(lines(&bench, "tx.jsonl"), 40);
}

#[test]
fn files_of_a_ring_are_followed_over_the_names_that_come_and_go() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("ring")).unwrap();
    let child = bench
        .command()
        .args(["replay", "--quiet", "--follow", "--transactions"])
        .arg(bench.path("tx.jsonl"))
        // Not there yet, and no reason not to see the other.
        .arg(bench.path("absent.pcap"))
        .arg(bench.path("ring"))
        .spawn()
        .unwrap();
    // Two names, each written anew in place.
    for round in 0..4u16 {
        let at = 1_767_600_000 + u64::from(round) * 600;
        let packets: Vec<_> = (0..5).flat_map(|n| connection_at(at, 2000 + round * 5 + n)).collect();
        let bytes = write_pcap(Vec::new(), Link::Ethernet, &packets).unwrap();
        fs::write(bench.path("ring").join(if round % 2 == 0 { "0.pcap" } else { "1.pcap" }), bytes).unwrap();
        // What came with the round before is settled by what comes now.
        wait_for_lines(&bench, "tx.jsonl", usize::from(round) * 10);
    }
    stop(&child);
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(lines(&bench, "tx.jsonl"), 40);
}

#[test]
fn secrets_in_a_stream_decrypt_what_follows_them() {
    let bench = Bench::new();
    let file = root().join("captures/tls13-decrypted-pcapng/input.pcapng");
    let want = bench.replay(&[&file], &[]).transactions;
    assert!(!want.is_empty());
    let bytes = fs::read(&file).unwrap();
    for workers in ["1", "2"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("tcp://{}", listener.local_addr().unwrap());
        let bytes = bytes.clone();
        let server = thread::spawn(move || listener.accept().unwrap().0.write_all(&bytes).unwrap());
        let got = bench.replay(&[name.as_ref()], &["--workers", workers]);
        server.join().unwrap();
        assert_eq!(got.transactions, want, "{workers} workers");
        assert!(got.stats["keylog"]["lines_used_total"].as_u64() > Some(0));
    }
    // Live, the records are the same but for what depends on all that came before.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let child = bench
        .command()
        .args(["attach", "--quiet", "--pcap-over-ip", &format!("tcp://{}", listener.local_addr().unwrap())])
        .arg("--transactions")
        .arg(bench.path("live.jsonl"))
        .spawn()
        .unwrap();
    listener.accept().unwrap().0.write_all(&bytes).unwrap();
    // It comes back once it has read everything.
    let _again = listener.accept().unwrap();
    stop(&child);
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(lines(&bench, "live.jsonl"), want.lines().count());
}

#[test]
fn a_followed_file_that_grows_after_it_was_left_is_told() {
    let bench = Bench::new();
    let (older, newer) =
        (capture_in_two(5), write_pcap(Vec::new(), Link::Ethernet, &connection_at(1_767_609_999, 3000)));
    let path = bench.write("older.pcap", &older);
    let child = bench
        .command()
        .args(["replay", "--follow", "--transactions"])
        .arg(bench.path("tx.jsonl"))
        .arg(bench.path("*.pcap"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_lines(&bench, "tx.jsonl", 10);
    bench.write("newer.pcap", newer.unwrap());
    wait_for_lines(&bench, "tx.jsonl", 12);
    let more = connection_at(1_767_608_888, 4000);
    let more = write_pcap(Vec::new(), Link::Ethernet, &more).unwrap();
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(&more[24..]).unwrap();
    stop(&child);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains("1 grew after they were left"), "{report}");
    assert_eq!(lines(&bench, "tx.jsonl"), 14);
}
