//! The documentation names what there is: keys, options, anomalies, signals, fields, counters, and files linked to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use offpath_score::{Condition, Signal};
use offpath_types::Anomaly;
use serde_json::Value;

use crate::support::{Bench, root};

fn page(name: &str) -> String {
    let path = root().join("docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns the part of `text` below the second-level heading `title`, up to the next one.
fn section<'a>(text: &'a str, title: &str) -> Option<&'a str> {
    let start = text.find(&format!("\n## {title}\n"))?;
    let rest = &text[start + 1..];
    Some(rest.find("\n## ").map_or(rest, |end| &rest[..end]))
}

/// Returns what the binary prints for `arguments`.
fn printed(bench: &Bench, arguments: &[&str]) -> String {
    let output = bench.command().args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns every `section.key` that `offpath check --print` prints for a file, with the value's text.
fn keys(bench: &Bench, config: &str) -> BTreeMap<String, String> {
    let file = bench.write("docs.toml", config);
    let mut section = String::new();
    let mut keys = BTreeMap::new();
    for line in printed(bench, &["check", "--print", file.to_str().unwrap()]).lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, value)) = line.split_once(" = ")
            && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            && !section.is_empty()
        {
            // The names in this table are those of signals.
            let key = if section == "score.weights" { section.clone() } else { format!("{section}.{key}") };
            keys.insert(key, value.to_owned());
        }
    }
    keys
}

/// Sets every key that has no default, or stands in a list.
const FILLED: &str = r#"
[capture]
filter = "tcp"
[client]
header = "CF-Connecting-IP"
[join]
by = ["header"]
client_port_header = "X-Client-Port"
ja4_header = "X-JA4"
ja3_header = "X-JA3"
[identity]
key_file = "k"
[score.weights]
login_surge = 0.5
[[login]]
method = "POST"
path = "/login"
[login.success]
status = [302]
redirect_contains = "/home"
sets_cookie = true
body = "success"
[login.failure]
status = [401]
redirect_contains = "/login"
sets_cookie = false
body = "failure"
[[policy]]
name = "p"
when = "true"
action = "notify"
scope = ["ip"]
[[webhook]]
name = "w"
url = "http://192.0.2.1/"
secret = "whsec_b2ZmcGF0aCB0ZXN0IHNlY3JldCBvZiAzMiBieXRlcyE="
secret_file = "s"
[delivery]
outbox_file = "o"
[receive]
secret_file = "s"
state_file = "f"
admin_token_file = "t"
"#;

#[test]
fn every_configuration_key_is_documented_with_its_default() {
    let bench = Bench::new();
    let text = page("reference/configuration.md");
    let rows: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |").filter(|(key, _)| key.contains('.')))
        .collect();
    let defaults = keys(&bench, "");
    assert!(defaults.len() > 70, "`check --print` was not understood: {defaults:?}");
    let mut all = keys(&bench, FILLED);
    assert!(all.insert("webhook.secret".into(), String::new()).is_none(), "a secret must not be printed");
    for key in all.keys().chain(defaults.keys()) {
        assert!(rows.contains_key(key.as_str()), "`{key}` is missing in configuration.md");
    }
    for (key, value) in &defaults {
        // A list of several lines is described, not repeated.
        assert!(
            value == "[" || rows[key.as_str()].contains(&format!("| `{value}` |")),
            "configuration.md must say that the default of `{key}` is `{value}`: {}",
            rows[key.as_str()]
        );
    }
    for key in rows.keys() {
        assert!(all.contains_key(*key), "configuration.md names `{key}`, which there is not");
    }
}

#[test]
fn every_option_is_documented_at_its_command() {
    let bench = Bench::new();
    let text = page("reference/command-line.md");
    for command in ["replay", "attach", "receive", "check"] {
        let part = section(&text, &format!("`offpath {command}`"))
            .unwrap_or_else(|| panic!("command-line.md has no section for {command}"));
        let help = printed(&bench, &[command, "--help"]);
        let options: Vec<_> = help
            .lines()
            .filter(|line| line.trim_start().starts_with('-'))
            .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")))
            .collect();
        assert!(options.contains(&"--help"), "the help of {command} was not understood: {help}");
        for option in options {
            let named = |end: char| {
                part.contains(&format!("`{option}{end}")) || part.contains(&format!(" {option}{end}"))
            };
            assert!(
                named('`') || named(' '),
                "`{option}` of `offpath {command}` is missing in command-line.md"
            );
        }
    }
    for variable in ["OFFPATH_STATE_DIR", "OFFPATH_LOG"] {
        assert!(text.contains(&format!("`{variable}`")), "{variable}");
    }
}

#[test]
fn every_anomaly_signal_and_field_is_documented() {
    let anomalies = page("reference/anomalies.md");
    for anomaly in Anomaly::ALL {
        assert!(
            anomalies.contains(&format!("\n| `{}` |", anomaly.name())),
            "{} in anomalies.md",
            anomaly.name()
        );
    }
    let signals = page("reference/signals.md");
    for signal in Signal::ALL {
        let (low, high) = signal.range();
        let row = format!("\n| `{}` | {} | {low} to {high} |", signal.name(), signal.entity().name());
        assert!(signals.contains(&row), "{row} in signals.md");
    }
    let policies = page("how-to/write-a-policy.md");
    for field in Condition::field_names() {
        if field.starts_with("signals.") || field.ends_with(".value") {
            continue; // By rule: one of each for every signal.
        }
        // Counts of entities are listed once for all kinds that have them.
        let fact = field.split_once('.').map_or(field.as_str(), |(_, fact)| fact);
        let named = [field.as_str(), fact].iter().any(|name| policies.contains(&format!("`{name}`")));
        assert!(named, "the field `{field}` is missing in write-a-policy.md");
    }
}

#[test]
fn every_counter_is_documented_in_its_section() {
    let bench = Bench::new();
    let inventory = bench.path("inventory.json");
    let run = bench.replay(
        &[&root().join("captures/http1-pipelining/input.pcap")],
        &["--inventory", inventory.to_str().unwrap()],
    );
    assert_eq!(run.code(), 0, "{}", run.stderr());
    let ledger = page("how-to/read-the-ledger.md");
    for name in
        ledger.split('`').filter(|name| name.contains('.') && name.ends_with("_total") && !name.contains('*'))
    {
        let (section, counter) = name.split_once('.').unwrap();
        assert!(
            !run.stats[section][counter].is_null(),
            "read-the-ledger.md names `{name}`, which there is not"
        );
    }
    let text = page("reference/counters.md");
    for (name, value) in run.stats.as_object().unwrap() {
        if name == "balance" {
            for equation in value.as_array().unwrap() {
                let equation = equation["name"].as_str().unwrap();
                assert!(text.contains(&format!("| {equation} |")), "`{equation}` is missing in counters.md");
            }
            continue;
        }
        let Some(counters) = value.as_object() else {
            assert!(text.contains(&format!("`{name}`")), "`{name}` is missing in counters.md");
            continue;
        };
        let part = section(&text, &format!("`{name}`"))
            .unwrap_or_else(|| panic!("counters.md has no section {name}"));
        for counter in counters.keys() {
            assert!(part.contains(&format!("`{counter}`")), "`{name}.{counter}` is missing in counters.md");
        }
        for row in part.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()) {
            assert!(counters.contains_key(row), "counters.md names `{name}.{row}`, which there is not");
        }
    }
}

/// Returns the fenced blocks of one language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let found: Vec<_> = text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!found.is_empty(), "no block of {language}");
    found
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

#[test]
fn the_tutorial_shows_what_its_commands_print() {
    let bench = Bench::new();
    let text = page("tutorial/first-detection.md");
    let demo = root().join("captures/demo-account-takeover/input.pcap.gz");
    let run = bench.replay(&[&demo], &[]);
    let (records, decided) = (run.records(), run.decided());
    let count = |action: &str| decided.iter().filter(|d| d["action"] == action).count();
    let says = format!(
        "{} blocks, {} notices about accounts, and the ends of {} blocks",
        count("block"),
        count("notify"),
        count("unblock")
    );
    assert!(text.contains(&says), "the tutorial must say: {says}");

    let json = blocks(&text, "json");
    let stack =
        decided.iter().find(|d| d["action"] == "block" && !d["match"]["fingerprint"].is_null()).unwrap();
    let evidence: Vec<&str> =
        stack["transactions"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let mut shown = json_lines(json[0]).remove(0);
    assert_eq!(shown["evidence"].take(), evidence.len());
    for key in ["time", "match", "confidence"] {
        assert_eq!(shown[key], stack[key], "{key}");
    }
    let of = |id: &str| records.iter().find(|r| r["event"]["id"] == id).unwrap();
    let signals = of(evidence[evidence.len() - 1])["offpath"]["signals"].as_array().unwrap();
    let shown = json_lines(json[1]);
    assert_eq!(shown.len(), signals.len());
    for (shown, signal) in shown.iter().zip(signals) {
        for key in ["signal", "entity"] {
            assert_eq!(shown[key], signal[key]);
        }
        for key in ["value", "baseline", "contribution"] {
            assert_eq!(shown[key].as_f64(), signal[key].as_f64(), "{key}");
        }
    }
    let rows: Vec<String> = evidence
        .iter()
        .map(|id| {
            let r = of(id);
            let column = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            let columns = [
                &r["client"]["ip"],
                &r["url"]["path"],
                &r["http"]["response"]["status_code"],
                &r["offpath"]["login"]["outcome"],
                &r["offpath"]["confidence"],
            ];
            format!("{}\t{}", &column(&r["@timestamp"])[11..23], columns.map(column).join("\t"))
        })
        .collect();
    let shown = blocks(&text, "text");
    for line in shown[0].lines().filter(|line| *line != "…") {
        assert!(rows.iter().any(|row| row == line), "{line:?} is not in {rows:#?}");
    }

    let strict = bench.write("strict.toml", blocks(&text, "toml")[0]);
    let strict = bench.replay(&[&demo], &["--config", strict.to_str().unwrap()]).decided();
    let summary = |name: &str, decided: &[Value]| {
        let blocks: Vec<_> = decided.iter().filter(|d| d["action"] == "block").collect();
        let matches: BTreeSet<_> = blocks.iter().map(|d| d["match"].to_string()).collect();
        let first = &blocks[0]["time"].as_str().unwrap()[11..19];
        format!("{name}: {} matches, first at {first}\n", matches.len())
    };
    assert_eq!(shown[1], summary("decisions", &decided) + &summary("strict", &strict));
}

#[test]
fn the_samples_in_the_readme_are_what_the_demo_prints() {
    let bench = Bench::new();
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let decisions = bench.path("decisions.jsonl");
    let demo = root().join("captures/demo-account-takeover/input.pcap.gz");
    let report =
        printed(&bench, &["replay", demo.to_str().unwrap(), "--decisions", decisions.to_str().unwrap()]);
    for line in blocks(&text, "text")[0].lines() {
        assert!(
            report.lines().any(|l| l == line),
            "the demo's report does not say {line:?} any more:\n{report}"
        );
    }
    let sample: Value = serde_json::from_str(blocks(&text, "json")[0]).unwrap();
    let made = json_lines(&fs::read_to_string(decisions).unwrap());
    let decision = made
        .iter()
        .find(|d| d["id"] == sample["id"])
        .expect("the decision of README.md is not made any more");
    assert_eq!(*decision, sample);
}

/// Returns every Markdown file of the repository.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !path.is_symlink() {
                if !name.starts_with('.') && !name.starts_with("target") {
                    folders.push(path);
                }
            } else if name.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// Returns the anchors of a page's headings, as forges make them.
fn anchors(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let headings = prose(&text).into_iter().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Returns the lines outside fenced code.
fn prose(text: &str) -> Vec<&str> {
    let mut code = false;
    text.lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            code ^= fence;
            !code && !fence
        })
        .collect()
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut links = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for line in prose(&text) {
            for rest in line.split("](").skip(1) {
                let link = rest.split(')').next().unwrap();
                if link.contains("://") || link.starts_with("mailto:") {
                    continue;
                }
                links += 1;
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
                assert!(target.exists(), "{}: {link} leads nowhere", page.display());
                if !anchor.is_empty()
                    && file.rsplit('/').next().is_none_or(|f| f.is_empty() || f.ends_with(".md"))
                {
                    assert!(
                        anchors(&target).iter().any(|a| a == anchor),
                        "{}: no heading for {link}",
                        page.display()
                    );
                }
            }
        }
    }
    assert!(links > 50, "only {links} links were found");
}
