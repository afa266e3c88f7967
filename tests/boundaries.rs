//! The architecture, checked: who may depend on whom, and who may touch the outside world.

use std::collections::BTreeMap;
use std::fs;

use crate::support::root;

/// Our crates, and which of ours each may depend on (development dependencies aside).
const MAY_DEPEND: [(&str, &[&str]); 9] = [
    ("types", &[]),
    ("packet", &["types"]),
    ("capture", &["types"]),
    ("stream", &["types", "packet"]),
    ("protocol", &["types"]),
    ("score", &["types"]),
    ("enforce", &["types"]),
    ("testkit", &["types"]),
    ("offpath", &["types", "packet", "capture", "stream", "protocol", "score", "enforce"]),
];

fn manifest(name: &str) -> toml::Table {
    fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap().parse().unwrap()
}

#[test]
fn crates_depend_only_to_the_left() {
    let known: BTreeMap<_, _> = MAY_DEPEND.into_iter().collect();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "fuzz" {
            continue;
        }
        let allowed =
            known.get(name.as_str()).unwrap_or_else(|| panic!("crate {name} has no place in the order"));
        let manifest = manifest(&name);
        for section in ["dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for dependency in table.keys().filter_map(|k| k.strip_prefix("offpath-")) {
                assert!(allowed.contains(&dependency), "{name} may not depend on {dependency}");
            }
        }
    }
}

/// Source lines of a crate outside its test modules.
fn sources(name: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().join("crates").join(name).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
                files.push((path.display().to_string(), code));
            }
        }
    }
    files
}

#[test]
fn the_inner_crates_touch_no_clock_thread_file_or_log() {
    for name in ["types", "packet", "stream", "protocol", "score"] {
        for (path, code) in sources(name) {
            for banned in [
                "std::fs",
                "std::thread",
                "std::net::Tcp",
                "std::net::Udp",
                "SystemTime",
                "Instant::now",
                "tracing::",
                "println!",
                "eprintln!",
                "std::env",
                "tokio",
            ] {
                let line = code.lines().find(|l| l.contains(banned) && !l.trim_start().starts_with("//"));
                assert!(line.is_none(), "{path} uses {banned}: {line:?}");
            }
        }
    }
}

#[test]
fn only_capture_has_unsafe_code_and_types_are_not_serialisable() {
    for (name, _) in MAY_DEPEND {
        let root_file = if name == "offpath" { "main.rs" } else { "lib.rs" };
        let text = fs::read_to_string(root().join("crates").join(name).join("src").join(root_file)).unwrap();
        assert_eq!(text.contains("#![forbid(unsafe_code)]"), name != "capture", "{name}");
    }
    let types = manifest("types");
    let dependencies = types["dependencies"].as_table().unwrap();
    assert!(!dependencies.contains_key("serde"), "types are plain data; twins live in offpath and enforce");
}

#[test]
fn protocol_does_not_know_tcp_and_stream_does_not_know_http() {
    for (name, words) in
        [("protocol", &["SeqNum", "TcpSegment", "etherparse"][..]), ("stream", &["http", "Http"])]
    {
        for (path, code) in sources(name) {
            for word in words {
                let line = code.lines().find(|l| l.contains(word) && !l.trim_start().starts_with("//"));
                assert!(line.is_none(), "{path} knows {word}: {line:?}");
            }
        }
    }
}
