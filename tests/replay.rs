//! Replays: the same answer for any number of workers, and what loss may cost.

use std::fs;

use offpath_testkit::impair::{Impairment, impair_file};
use offpath_testkit::measure::{read_found, read_truth, recovery};
use offpath_testkit::traffic::{Scenario, Traffic, TrafficOptions};
use offpath_testkit::{Conversation, Link, Packet, PcapFormat, PcapWriter};
use offpath_types::Timestamp;

use crate::support::{Bench, assert_balanced, traffic};

#[test]
fn one_two_and_four_workers_give_the_same_bytes() {
    let bench = Bench::new();
    traffic(&bench, Scenario::Mixed, 4000, 11);
    // Loss makes it harder: gaps, expiry and repairs must not depend on the number of workers either.
    let impairment = Impairment {
        loss_percent: 2.0,
        duplicate_percent: 2.0,
        swap_percent: 2.0,
        seed: 5,
        ..Impairment::default()
    };
    let clean = fs::read(bench.path("traffic.pcap")).unwrap();
    let mut bad = Vec::new();
    impair_file(&clean[..], &mut bad, impairment).unwrap();
    for bytes in [clean, bad] {
        let path = bench.write("input.pcap", bytes);
        let one = bench.replay(&[&path], &["--workers", "1"]);
        assert_eq!(one.code(), 0, "{}", one.stderr());
        assert_balanced(&one.stats);
        assert!(one.records().len() > 3000);
        assert!(!one.decisions.is_empty(), "the attacks in it must lead to decisions");
        for workers in ["2", "3", "4", "16"] {
            let many = bench.replay(&[&path], &["--workers", workers]);
            assert_eq!(many.code(), 0, "{}", many.stderr());
            assert!(many.transactions == one.transactions, "transactions differ with {workers} workers");
            assert!(many.decisions == one.decisions, "decisions differ with {workers} workers");
            assert_eq!(many.stats["balance"], one.stats["balance"], "{workers} workers");
        }
    }
}

/// Timers end flows and holes between two frames; what they end must keep its place in the order.
#[test]
fn what_timers_end_comes_in_order_with_any_number_of_workers() {
    let bench = Bench::new();
    traffic(&bench, Scenario::AtoSlow, 3000, 2);
    let clean = fs::read(bench.path("traffic.pcap")).unwrap();
    for seed in 0..8 {
        let impairment = Impairment {
            loss_percent: 5.0,
            duplicate_percent: 5.0,
            swap_percent: 5.0,
            seed,
            ..Impairment::default()
        };
        let mut bad = Vec::new();
        impair_file(&clean[..], &mut bad, impairment).unwrap();
        let path = bench.write("bad.pcap", bad);
        let one = bench.replay(&[&path], &["--workers", "1"]);
        assert_eq!(one.code(), 0, "seed {seed}: {}", one.stderr());
        assert_eq!(one.stats["pipeline"]["transactions_late_total"], 0, "seed {seed}");
        for workers in ["2", "4"] {
            let many = bench.replay(&[&path], &["--workers", workers]);
            assert!(many.transactions == one.transactions, "seed {seed}: {workers} workers differ");
        }
    }
}

#[test]
fn tight_limits_do_not_depend_on_the_number_of_workers_either() {
    let bench = Bench::new();
    traffic(&bench, Scenario::Mixed, 3000, 3);
    let path = bench.path("traffic.pcap");
    let config = bench.write(
        "tight.toml",
        "[stream]\nflows_max = 64\nembryonic_flows_max = 16\nclosed_flows_max = 16\nheld_bytes_max = 65536\n\
         [http]\nopen_transactions_max = 32\nheld_bytes_max = 65536\n\
         [score.entities_max]\nip = 50\nprefix = 20\nsession = 50\nuser = 50\nfingerprint = 5\nendpoint = 10\ncell = 5\npassword = 10\n",
    );
    let config = ["--config", config.to_str().unwrap()];
    let one = bench.replay(&[&path], &[&config[..], &["--workers", "1"]].concat());
    assert_eq!(one.code(), 0, "{}", one.stderr());
    assert!(one.stats["stream"]["flows_closed_evicted_total"].as_u64().unwrap() > 0, "the limit must bite");
    assert_balanced(&one.stats);
    for workers in ["2", "4"] {
        let many = bench.replay(&[&path], &[&config[..], &["--workers", workers]].concat());
        assert!(many.transactions == one.transactions, "transactions differ with {workers} workers");
        assert!(many.decisions == one.decisions, "decisions differ with {workers} workers");
    }
}

/// Share of the transactions whose two heads survived that come out right, and how many come out wrong.
fn recovered(impairment: Impairment, seed: u64) -> (f64, u64) {
    let bench = Bench::new();
    traffic(&bench, Scenario::People, 6000, seed);
    let clean = fs::read(bench.path("traffic.pcap")).unwrap();
    let mut bad = Vec::new();
    let kept = impair_file(&clean[..], &mut bad, impairment).unwrap();
    let path = bench.write("bad.pcap", bad);
    let run = bench.replay(&[&path], &[]);
    assert_eq!(run.code(), 0, "{}", run.stderr());
    assert_balanced(&run.stats);
    let truth = read_truth(fs::read(bench.path("truth.jsonl")).unwrap().as_slice()).unwrap();
    let found = read_found(run.transactions.as_bytes()).unwrap();
    let got = recovery(&truth, &kept, &found);
    (got.percent(), got.wrong)
}

#[test]
fn loss_costs_only_what_was_lost() {
    for (name, loss, want) in [("1 %", 1.0, 97.0), ("5 %", 5.0, 93.0)] {
        for seed in [1, 2] {
            let (share, wrong) =
                recovered(Impairment { loss_percent: loss, seed, ..Impairment::default() }, seed);
            assert!(share >= want, "at {name} loss (seed {seed}) {share:.2} % came out, wanted {want}");
            assert!(wrong <= 3, "at {name} loss (seed {seed}) {wrong} transactions were paired wrongly");
        }
    }
}

#[test]
fn duplicates_and_swapped_neighbours_cost_nothing() {
    let impairment =
        Impairment { duplicate_percent: 1.0, swap_percent: 1.0, seed: 7, ..Impairment::default() };
    let (share, wrong) = recovered(impairment, 3);
    assert!(share >= 100.0, "only {share:.3} % came out");
    assert_eq!(wrong, 0);
}

/// A clock that stands still settles nothing; what waits for it is bounded, and the bound depends on the file alone.
#[test]
fn a_clock_that_stands_still_holds_nothing_for_ever() {
    let bench = Bench::new();
    let options =
        TrafficOptions { transactions: 4000, bytes: Some(40 << 20), seed: 9, ..TrafficOptions::default() };
    let (mut pcap, mut stopped) = (Vec::new(), Vec::new());
    Traffic::generate(&options).write(&mut pcap, std::io::sink()).unwrap();
    let mut reader = offpath_testkit::PcapReader::new(&pcap[..]).unwrap();
    let mut writer = PcapWriter::new(&mut stopped, PcapFormat::new(Link::Ethernet.number())).unwrap();
    while let Some(record) = reader.next_record().unwrap() {
        writer.write(Timestamp::from_parts(1_767_600_000, 0), &record.bytes).unwrap();
    }
    writer.finish().unwrap();
    let path = bench.write("stopped.pcap", stopped);
    let one = bench.replay(&[&path], &["--workers", "1"]);
    assert_eq!(one.code(), 0, "{}", one.stderr());
    assert!(one.stats["pipeline"]["eras_total"].as_u64().unwrap() >= 2);
    assert!(one.records().len() > 3000);
    for workers in ["2", "4"] {
        let many = bench.replay(&[&path], &["--workers", workers]);
        assert!(many.transactions == one.transactions, "transactions differ with {workers} workers");
        assert_eq!(many.stats["pipeline"], one.stats["pipeline"]);
    }
}

fn hello(start: Timestamp, port: u16) -> Vec<Packet> {
    let mut talk = Conversation::new(([192, 0, 2, 1], port).into(), ([198, 51, 100, 2], 8080).into(), start);
    talk.handshake();
    talk.script(
        ">>>\nGET /hello HTTP/1.1\nHost: a.example\n\n<<<\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok\\\n",
    )
    .unwrap();
    talk.close();
    talk.into_packets()
}

#[test]
fn the_last_possible_time_is_no_endless_loop() {
    let bench = Bench::new();
    let mut file = fs::File::create(bench.path("input.pcap")).unwrap();
    // 2^32 - 1 s is as far as a classic capture reaches; pcapng reaches the end of our range.
    offpath_testkit::conversation::write_pcap(
        &mut file,
        Link::Ethernet,
        &hello(Timestamp::from_parts(4_294_967_290, 0), 4000),
    )
    .unwrap();
    let run = bench.replay(&[&bench.path("input.pcap")], &[]);
    assert_eq!(run.code(), 0, "{}", run.stderr());
    assert_eq!(run.records().len(), 1);
    let mut ng = offpath_testkit::PcapNgWriter::new(Vec::new(), false).unwrap();
    let interface = ng.interface(1, "eth0", true).unwrap();
    for packet in hello(Timestamp::from_parts(1, 0), 4001) {
        ng.write(
            interface,
            Timestamp::MAX,
            &Link::Ethernet.wrap(&packet.bytes),
            packet.bytes.len() as u32 + 14,
        )
        .unwrap();
    }
    let path = bench.write("input.pcapng", ng.finish().unwrap());
    let run = bench.replay(&[&path], &[]);
    assert_eq!(run.code(), 0, "{}", run.stderr());
    assert_eq!(run.records().len(), 1);
}
