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
        for dependency in dependencies(&manifest(&name)) {
            if let Some(ours) = dependency.strip_prefix("offpath-") {
                assert!(allowed.contains(&ours), "{name} may not depend on {ours}");
            }
        }
    }
}

/// Packages that a manifest depends on, for every platform, under their own names; those of tests aside.
fn dependencies(manifest: &toml::Table) -> Vec<String> {
    let platforms = manifest.get("target").and_then(toml::Value::as_table);
    let tables = platforms.into_iter().flatten().filter_map(|(_, of)| of.as_table()).chain([manifest]);
    let mut found = Vec::new();
    for table in tables {
        for section in ["dependencies", "build-dependencies"] {
            for (name, value) in table.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                let package = value.get("package").and_then(toml::Value::as_str).unwrap_or(name);
                found.push(package.to_owned());
            }
        }
    }
    found
}

const TESTS: &str = "#[cfg(test)]\nmod tests {";

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
                // The test module is the last item of its file, or this test is blind behind it.
                let (code, tests) = text.split_once(TESTS).unwrap_or((&text, ""));
                let behind = tests.split_once("\n}\n").map_or("", |(_, behind)| behind);
                assert_eq!(behind, "", "{} goes on behind its tests", path.display());
                files.push((path.display().to_string(), code.to_owned()));
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
                "std::process",
                "std::env",
                "fs::",
                "thread::",
                "process::",
                "env::",
                "TcpStream",
                "TcpListener",
                "UdpSocket",
                // A grouped import could hide what stands above.
                "std::{",
                "SystemTime",
                "Instant",
                "tracing::",
                "print!",
                "println!",
                "eprintln!",
                "dbg!",
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
        // A library and a binary beside it are two crates to the compiler: each must say so.
        let src = root().join("crates").join(name).join("src");
        let roots: Vec<_> =
            ["lib.rs", "main.rs"].iter().filter_map(|f| fs::read_to_string(src.join(f)).ok()).collect();
        assert!(!roots.is_empty(), "{name}");
        for text in roots {
            assert_eq!(text.contains("#![forbid(unsafe_code)]"), name != "capture", "{name}");
        }
    }
    let types = dependencies(&manifest("types"));
    assert!(!types.iter().any(|d| d == "serde"), "types are plain data; twins live in offpath and enforce");
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
