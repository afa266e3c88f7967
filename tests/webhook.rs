//! Webhooks end to end: a replay that delivers, a receiver that applies.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::{Bench, Run, root};

const SECRET: &str = "whsec_b2ZmcGF0aCB0ZXN0IHNlY3JldCBvZiAzMiBieXRlcyE=";

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `offpath receive` with a log provider; returns it with its port once it says that it listens.
fn receiver(bench: &Bench) -> (Daemon, u16) {
    let secret = bench.write("secret", format!("# test\n{SECRET}\n"));
    let mut child = bench
        .command()
        .args(["receive", "--listen", "127.0.0.1:0", "--secret-file"])
        .arg(secret)
        .arg("--state")
        // The folder is not there on the first run.
        .arg(bench.path("state/of/receiver.redb"))
        .arg("--to")
        .arg(format!("log:{}", bench.path("applied.jsonl").display()))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let daemon = Daemon(child);
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("receiving"), "{first}");
    std::thread::spawn(move || lines.for_each(drop));
    let port = first.split("127.0.0.1:").nth(1).and_then(|rest| rest.split('/').next()?.parse().ok());
    let port: u16 = port.unwrap_or_else(|| panic!("no port in {first}"));
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    (daemon, port)
}

fn attack(bench: &Bench, enforce: &str, webhooks: &str, deliver: bool) -> Run {
    let text = format!("[delivery]\nretry_first_ms = 20\ndrain_secs = 5\n{enforce}{webhooks}");
    let config = bench.write("offpath.toml", text);
    let input = root().join("captures/login-failures/input.pcap");
    let mut args = vec!["--config", config.to_str().unwrap()];
    if deliver {
        args.push("--deliver");
    }
    bench.replay(&[&input], &args)
}

fn webhook(name: &str, port: u16) -> String {
    format!(
        "[[webhook]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:{port}/v1/decisions\"\nsecret = \"{SECRET}\"\ntimeout_ms = 1000\n"
    )
}

fn applied(bench: &Bench) -> Vec<Value> {
    let text = fs::read_to_string(bench.path("applied.jsonl")).unwrap_or_default();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn a_block_reaches_the_receiver_is_listed_and_undone() {
    let bench = Bench::new();
    let (_daemon, port) = receiver(&bench);
    let run = attack(&bench, "[enforce]\ndry_run = false\n", &webhook("waf", port), true);
    assert_eq!(run.code(), 0, "{}", run.stderr());
    let blocks: Vec<_> = run.decided().into_iter().filter(|d| d["action"] == "block").collect();
    assert!(!blocks.is_empty(), "the capture must lead to a block");
    assert_eq!(run.stats["delivery"]["targets"][0]["pending"], 0, "{}", run.stats["delivery"]);
    let ids: Vec<String> = applied(&bench).iter().map(|v| v.to_string()).collect();
    let id = blocks[0]["id"].as_str().unwrap();
    assert!(ids.iter().any(|line| line.contains(id)), "{id} in {ids:?}");

    let ask = |more: &[&str]| {
        let listen = format!("127.0.0.1:{port}");
        let output = bench.command().args(["receive", "--listen", &listen]).args(more).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, listed) = ask(&["--list"]);
    assert_eq!(code, Some(0));
    let ip = blocks[0]["match"]["ip"].as_str().unwrap();
    assert!(listed.contains(ip), "{ip} in {listed}");
    let held: Value = listed
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .find(|v: &Value| v.to_string().contains(ip))
        .unwrap();
    let (code, _) = ask(&["--undo", held["id"].as_str().unwrap()]);
    assert_eq!(code, Some(0));
    assert!(!ask(&["--list"]).1.contains(ip));
}

#[test]
fn nothing_is_sent_in_dry_run_nor_by_a_replay_that_was_not_told_to() {
    let bench = Bench::new();
    let (_daemon, port) = receiver(&bench);
    for (enforce, deliver) in [("", true), ("[enforce]\ndry_run = false\n", false)] {
        let run = attack(&bench, enforce, &webhook("waf", port), deliver);
        assert_eq!(run.code(), 0, "{}", run.stderr());
        assert!(run.decided().iter().any(|d| d["action"] == "block"));
        let dry: Vec<_> = run.decided().iter().map(|d| d["dry_run"].as_bool().unwrap()).collect();
        assert!(dry.iter().all(|d| *d == enforce.is_empty()));
        assert_eq!(applied(&bench).iter().filter(|v| v.to_string().contains("block")).count(), 0);
    }
}

#[test]
fn a_hanging_and_a_closed_target_delay_nothing_and_the_outbox_keeps_what_they_miss() {
    let bench = Bench::new();
    let closed = free_port();
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_daemon, good) = receiver(&bench);
    let hooks = [("hangs", hanging.local_addr().unwrap().port()), ("closed", closed), ("good", good)];
    let hooks: String = hooks.iter().map(|(name, port)| webhook(name, *port)).collect();
    let run = attack(&bench, "[enforce]\ndry_run = false\n", &hooks, true);
    assert_eq!(run.code(), 0, "{}", run.stderr());
    let targets = run.stats["delivery"]["targets"].as_array().unwrap();
    let of = |name: &str| targets.iter().find(|t| t["name"] == name).unwrap();
    assert!(of("good")["delivered"].as_u64().unwrap() > 0);
    assert_eq!(of("good")["pending"], 0);
    assert!(of("closed")["pending"].as_u64().unwrap() > 0, "{}", of("closed"));
    assert!(of("hangs")["pending"].as_u64().unwrap() > 0);
    // The next run finds in the outbox what was not delivered.
    let again = attack(&bench, "[enforce]\ndry_run = false\n", &hooks, true);
    let targets = again.stats["delivery"]["targets"].as_array().unwrap();
    let closed = targets.iter().find(|t| t["name"] == "closed").unwrap();
    assert!(closed["resumed"].as_u64().unwrap() > 0, "{closed}");
}
