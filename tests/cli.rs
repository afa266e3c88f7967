//! Arguments, exit codes, bad input, and the configuration.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::support::{Bench, assert_balanced, root};

fn demo() -> Vec<u8> {
    fs::read(root().join("captures/http1-pipelining/input.pcap")).unwrap()
}

#[test]
fn bad_input_ends_with_3_and_a_message_that_names_the_file() {
    let bench = Bench::new();
    let whole = demo();
    let mut huge = whole.clone();
    // The first record claims 4 GiB.
    huge[32..36].fill(0xff);
    let random: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (name, bytes) in [
        ("empty.pcap", vec![]),
        ("text.pcap", b"this is no capture\n".repeat(50)),
        ("half-header.pcap", whole[..12].to_vec()),
        ("random.pcap", random),
        ("huge-record.pcap", huge),
        ("cut-record.pcap", whole[..whole.len() - 7].to_vec()),
    ] {
        let path = bench.write(name, bytes);
        let run = bench.replay(&[&path], &[]);
        assert_eq!(run.code(), 3, "{name}: {}", run.stderr());
        assert!(run.stderr().contains(name), "{name}: {}", run.stderr());
        assert_balanced_if_any(&run.stats);
    }
}

fn assert_balanced_if_any(stats: &serde_json::Value) {
    if !stats.is_null() {
        assert_balanced(stats);
    }
}

#[test]
fn what_could_be_read_of_a_damaged_file_is_processed() {
    let bench = Bench::new();
    let whole = demo();
    let path = bench.write("whole.pcap", &whole);
    let all = bench.replay(&[&path], &[]).records().len();
    let cut = bench.write("cut.pcap", &whole[..whole.len() - 7]);
    let run = bench.replay(&[&cut], &[]);
    assert_eq!(run.code(), 3);
    assert!(all > 0 && run.records().len() == all, "{} of {all}", run.records().len());
    assert_balanced(&run.stats);
}

#[test]
fn a_missing_file_is_3_and_wrong_usage_is_2() {
    let bench = Bench::new();
    let run = bench.replay(&[&bench.path("nowhere.pcap")], &[]);
    assert_eq!(run.code(), 3, "{}", run.stderr());
    assert!(run.stderr().contains("nowhere.pcap"));
    for arguments in
        [&["replay"][..], &["replay", "x", "--workers", "0"], &["nonsense"], &["attach", "--workers", "99"]]
    {
        let output = bench.command().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_bad_configuration_is_2_with_line_key_and_nearest_name() {
    let bench = Bench::new();
    let path = bench.write("demo.pcap", demo());
    for (text, wants) in [
        ("[client]\ntrusted_proxie = []\n", &["line 2", "did you mean `trusted_proxies`?"][..]),
        ("[client]\ntrusted_proxies = [\"10.0.0.0/64\"]\n", &["line 2", "10.0.0.0/64"]),
        ("[capture]\nworkers = \"many\"\n", &["line 2", "capture.workers"]),
    ] {
        let config = bench.write("offpath.toml", text);
        let config = config.to_str().unwrap();
        let run = bench.replay(&[&path], &["--config", config]);
        assert_eq!(run.code(), 2, "{}", run.stderr());
        let check = bench.command().args(["check", config]).output().unwrap();
        assert_eq!(check.status.code(), Some(2));
        for want in wants {
            assert!(run.stderr().contains(want), "{want:?} in {}", run.stderr());
            assert!(String::from_utf8_lossy(&check.stderr).contains(want));
        }
    }
}

#[test]
fn check_prints_a_configuration_that_is_valid() {
    let bench = Bench::new();
    let empty = bench.write("empty.toml", "");
    let printed = bench.command().args(["check", "--print", empty.to_str().unwrap()]).output().unwrap();
    assert!(printed.status.success());
    let whole = bench.write("whole.toml", &printed.stdout);
    let again = bench.command().args(["check", whole.to_str().unwrap()]).output().unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
}

#[test]
fn an_output_never_overwrites_an_input_or_another_output() {
    let bench = Bench::new();
    let path = bench.write("demo.pcap", demo());
    let same = bench.path("same.jsonl");
    let (input, same) = (path.to_str().unwrap(), same.to_str().unwrap());
    let folder = path.parent().unwrap().to_str().unwrap();
    let keylog = bench.write("keys.log", "# none");
    let secrets = bench.write("secrets", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let key_file = bench.write("identity.key", "0".repeat(64));
    let webhook = "[[webhook]]\nname = \"a\"\nurl = \"http://127.0.0.1:1/\"\n";
    let text = format!(
        "[identity]\nkey_file = {key_file:?}\n[capture]\ninterfaces = [\"none\"]\n{webhook}secret_file = {secrets:?}\n"
    );
    let config = bench.write("config.toml", &text);
    let [config, keylog, secrets, key_file] =
        [&config, &keylog, &secrets, &key_file].map(|path| path.to_str().unwrap());
    let absent = bench.path("absent.pcap");
    let absent = absent.to_str().unwrap();
    // What is kept is safe in its default place, too, before it is there and under any name.
    let state = bench.path("state");
    fs::create_dir_all(&state).unwrap();
    fs::create_dir_all(bench.path("elsewhere")).unwrap();
    let receiver = state.join("receiver.redb");
    fs::write(&receiver, "kept").unwrap();
    let linked = bench.path("linked");
    fs::hard_link(&receiver, &linked).unwrap();
    let [outbox, crooked] =
        ["state/outbox.redb", "elsewhere/../state/outbox.redb"].map(|name| bench.path(name));
    let [outbox, crooked, linked] = [&outbox, &crooked, &linked].map(|path| path.to_str().unwrap());
    let same_crooked = bench.path("elsewhere/../same.jsonl");
    let same_crooked = same_crooked.to_str().unwrap();
    for arguments in [
        &["replay", input, "--transactions", input][..],
        &["replay", folder, "--stats", input],
        &["replay", input, "--transactions", same, "--decisions", same],
        &["replay", input, "--transactions", same, "--decisions", same_crooked],
        &["replay", input, "--transactions", outbox],
        &["replay", input, "--decisions", crooked],
        &["replay", input, "--connections", linked],
        &["attach", "--config", config, "--inventory", outbox],
        &["replay", "-", "-"],
        // One name that is not there yet takes nothing from the others.
        &["replay", "--follow", absent, input, "--transactions", input],
        &["replay", "--follow", absent, input, "--transactions", absent],
        &["replay", input, "--keylog", keylog, "--stats", keylog],
        &["replay", input, "--config", config, "--decisions", config],
        &["replay", input, "--config", config, "--inventory", key_file],
        &["attach", "--config", config, "--stats", config],
        &["attach", "--config", config, "--stats", key_file],
        &["attach", "--config", config, "--stats", secrets],
    ] {
        let output = bench.command().args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert_eq!(fs::read(&path).unwrap(), demo(), "{arguments:?}");
        assert!(
            text.contains("would overwrite") || text.contains("both go") || text.contains("only once"),
            "{text}"
        );
    }
    assert!(!fs::exists(outbox).unwrap() && !fs::exists(same).unwrap(), "nothing is made either");
    assert_eq!(fs::read_to_string(linked).unwrap(), "kept");
    assert_eq!(fs::read_to_string(keylog).unwrap(), "# none");
    assert_eq!(fs::read_to_string(config).unwrap(), text);
}

#[test]
fn standard_input_gives_what_the_file_gives() {
    let bench = Bench::new();
    let path = bench.write("demo.pcap", demo());
    let from_file = bench.replay(&[&path], &[]).transactions;
    let mut child = bench
        .command()
        .args(["replay", "-", "--transactions", "-", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&demo()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), from_file);
}

#[test]
fn completions_are_printed_for_common_shells() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = bench.command().args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("replay"), "{shell}");
    }
}

#[test]
fn attach_without_an_interface_says_what_to_do() {
    let bench = Bench::new();
    let output = bench.command().arg("attach").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("-i"));
}
