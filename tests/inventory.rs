//! `--inventory`: what is written is OpenAPI, says what was used and no value. `make inventory-check` has a validator
//! of others look at it.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::{Bench, root};

/// Makes the inventory of a golden capture under a file name.
fn inventory(bench: &Bench, capture: &str, name: &str) -> String {
    let path = bench.path(name);
    let run =
        bench.replay(&[&root().join("captures").join(capture)], &["--inventory", path.to_str().unwrap()]);
    assert_eq!(run.code(), 0, "{}", run.stderr());
    let c = &run.stats["inventory"];
    let of = |name: &str| c[name].as_u64().unwrap();
    assert_eq!(
        of("requests_total"),
        of("learned_total") + of("nonsense_total") + of("unlisted_total") + of("endpoints_full_total"),
        "{c}"
    );
    fs::read_to_string(path).unwrap()
}

/// Asserts what OpenAPI 3.1 asks of a document and what can be seen without its schema.
fn assert_sound(doc: &Value) {
    assert!(doc["openapi"].as_str().unwrap().starts_with("3.1."), "{}", doc["openapi"]);
    assert!(doc["info"]["title"].is_string() && doc["info"]["version"].is_string());
    let schemes = &doc["components"]["securitySchemes"];
    let mut skeletons = BTreeSet::new();
    for (path, item) in doc["paths"].as_object().unwrap() {
        assert!(path.starts_with('/') && path.is_ascii(), "{path}");
        let skeleton: Vec<&str> = path.split(['{', '}']).step_by(2).collect();
        assert!(skeletons.insert(skeleton.join("{}")), "{path} is there twice");
        let declared: BTreeSet<_> = item["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|p| {
                assert!(
                    p["in"] == "path" && p["required"] == true && p["schema"]["type"] == "string",
                    "{path}"
                );
                p["name"].as_str().unwrap()
            })
            .collect();
        assert_eq!(declared, path.split(['{', '}']).skip(1).step_by(2).collect(), "{path}");
        for (method, operation) in item.as_object().unwrap() {
            if matches!(method.as_str(), "parameters" | "servers") {
                continue;
            }
            let at = format!("{method} {path}");
            let methods = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
            assert!(methods.contains(&method.as_str()), "{at}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(!responses.is_empty(), "{at}");
            for (code, response) in responses {
                assert!(
                    code == "default" || code.parse::<u16>().is_ok_and(|c| (100..600).contains(&c)),
                    "{at}"
                );
                assert!(response["description"].is_string(), "{at}");
            }
            let mut names = BTreeSet::new();
            for p in operation["parameters"].as_array().into_iter().flatten() {
                assert!(["query", "header"].contains(&p["in"].as_str().unwrap()), "{at}");
                assert!(names.insert((p["in"].to_string(), p["name"].to_string())), "{at}: {p}");
                assert!(p["schema"]["type"].is_string(), "{at}: {p}");
            }
            for set in operation["security"].as_array().into_iter().flatten() {
                for scheme in set.as_object().unwrap().keys() {
                    assert!(schemes[scheme].is_object(), "{at}: {scheme}");
                }
            }
            for field in ["x-offpath-first-seen", "x-offpath-last-seen"] {
                assert!(operation[field].is_string(), "{at}");
            }
        }
    }
}

#[test]
fn an_inventory_is_openapi_and_holds_no_value() {
    let bench = Bench::new();
    let text = inventory(&bench, "inventory-api/input.pcap", "api.json");
    let doc: Value = serde_json::from_str(&text).unwrap();
    assert_sound(&doc);
    let paths: Vec<_> = doc["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/account",
            "/account/photo",
            "/graphql",
            "/session",
            "/v1/items",
            "/v1/items/{id}",
            "/v1/orders",
            "/v1/orders/{value}"
        ]
    );
    let yaml = inventory(&bench, "inventory-api/input.pcap", "api.yaml");
    assert!(yaml.starts_with("openapi: \"3.1.0\"\n"), "{yaml}");
    for text in [text, yaml] {
        for secret in ["S3cr3t", "ann", "bob", "theme", "3f2504e0", ".git", "itemz"] {
            assert!(!text.contains(secret), "{secret} is in\n{text}");
        }
    }
    assert_sound(
        &serde_json::from_str(&inventory(&bench, "demo-account-takeover/input.pcap.gz", "demo.json"))
            .unwrap(),
    );
    assert_sound(&serde_json::from_str(&inventory(&bench, "http1-targets/input.pcap", "odd.json")).unwrap());
}

#[test]
fn an_inventory_changes_no_record() {
    let bench = Bench::new();
    let capture = root().join("captures/inventory-api/input.pcap");
    let plain = bench.replay(&[&capture], &[]);
    let with = bench.replay(&[&capture], &["--inventory", bench.path("api.json").to_str().unwrap()]);
    assert_eq!((plain.transactions, plain.decisions), (with.transactions, with.decisions));
    assert!(plain.stats["inventory"].is_null());
}
