use offpath_types::{FlowInfo, FlowKey, Parameter, Peer, TunnelId};
use serde_json::Value;

use super::*;

const DEFAULTS: InventoryLimits = InventoryLimits { endpoints_max: 100, parameters_per_endpoint_max: 100 };

/// What a request was: endpoint, status, and names with their kinds.
struct Request<'a> {
    endpoint: &'a str,
    status: Option<u16>,
    parameters: &'a [(ParameterPlace, &'a str, ValueKinds, u32)],
    credentials: &'a [(CredentialKind, &'a str)],
    content_type: &'a str,
    body: BodyOutline,
    host: &'a str,
    second: u64,
}

impl Default for Request<'_> {
    fn default() -> Self {
        Self {
            endpoint: "GET /",
            status: Some(200),
            parameters: &[],
            credentials: &[],
            content_type: "",
            body: BodyOutline::Unread,
            host: "shop.example",
            second: 0,
        }
    }
}

fn transaction(r: &Request<'_>) -> Transaction {
    let (key, client_side) = FlowKey::new(Peer::default(), Peer { port: 80, ..Peer::default() }, TunnelId(0));
    let started = Timestamp::from_parts(1_700_000_000 + r.second, 0);
    let flow = FlowInfo { key, client_side, opened: started, midstream: false, envelope: Default::default() };
    let mut tx = Transaction::new(flow, 1, 0, started);
    tx.endpoint = tx.text.push(r.endpoint.as_bytes());
    tx.domain = tx.text.push(r.host.as_bytes());
    tx.request_content_type = tx.text.push(r.content_type.as_bytes());
    tx.response_content_type = tx.text.push(b"text/html");
    tx.request_body_bytes = u64::from(!r.content_type.is_empty());
    tx.status = r.status;
    let mut outline = Outline { body: r.body, ..Outline::default() };
    for (place, name, kinds, count) in r.parameters {
        let name = outline.text.push(name.as_bytes());
        outline.parameters.push(Parameter { place: *place, name, kinds: *kinds, count: *count });
    }
    for (kind, name) in r.credentials {
        let name = outline.text.push(name.as_bytes());
        outline.credentials.push((*kind, name));
    }
    tx.outline = Some(Box::new(outline));
    tx
}

fn learn(limits: InventoryLimits, requests: &[Request<'_>]) -> Inventory {
    let mut inventory = Inventory::new(limits);
    requests.iter().for_each(|r| inventory.observe(&transaction(r)));
    let c = inventory.counters;
    assert_eq!(
        c.requests_total,
        c.learned_total + c.nonsense_total + c.unlisted_total + c.endpoints_full_total,
        "{c:?}"
    );
    inventory
}

fn document(inventory: &Inventory) -> Value {
    let (mut text, mut again) = (Vec::new(), Vec::new());
    write(inventory, Syntax::Json, &mut text).unwrap();
    write(inventory, Syntax::Json, &mut again).unwrap();
    assert_eq!(text, again);
    serde_json::from_slice(&text).unwrap()
}

use ParameterPlace::{Form, Header, Json, Query};
use ValueKinds as K;

#[test]
fn parameters_are_required_where_all_had_them_and_as_wide_as_they_were() {
    let doc = document(&learn(
        DEFAULTS,
        &[
            Request {
                parameters: &[
                    (Query, "q", K::STRING, 1),
                    (Query, "page", K::INTEGER, 1),
                    (Header, "x-t", K::UUID, 1),
                ],
                ..Request::default()
            },
            Request {
                parameters: &[(Query, "q", K::INTEGER, 1), (Query, "id", K::UUID.join(K::REPEATED), 2)],
                ..Request::default()
            },
            // Not understood: teaches nothing.
            Request { status: Some(400), parameters: &[(Query, "zz", K::STRING, 1)], ..Request::default() },
        ],
    ));
    let list = &doc["paths"]["/"]["get"]["parameters"];
    let row =
        |p: &Value| format!("{} {} {} {}", p["in"], p["name"], p["required"], p["schema"]).replace('"', "");
    assert_eq!(
        list.as_array().unwrap().iter().map(row).collect::<Vec<_>>(),
        [
            "query id null {items:{format:uuid,type:string},type:array}",
            "query page null {type:integer}",
            "query q true {type:string}",
            "header x-t null {format:uuid,type:string}",
        ]
    );
    assert_eq!(doc["paths"]["/"]["get"]["x-offpath-requests"], 3);
    assert_eq!(doc["paths"]["/"]["get"]["responses"]["400"]["x-offpath-responses"], 1);
}

#[test]
fn kinds_become_types() {
    for (kinds, json, want) in [
        (K::INTEGER, false, r#"{"type":"integer"}"#),
        (K::INTEGER.join(K::NUMBER), false, r#"{"type":"number"}"#),
        (K::BOOLEAN, false, r#"{"type":"boolean"}"#),
        (K::BOOLEAN.join(K::INTEGER), false, r#"{"type":"string"}"#),
        (K::DATE, false, r#"{"type":"string","format":"date"}"#),
        (K::DATE.join(K::DATE_TIME), false, r#"{"type":"string"}"#),
        (K::EMAIL, false, r#"{"type":"string","format":"email"}"#),
        (K::EMAIL.join(K::EMPTY), false, r#"{"type":"string"}"#),
        (K::INTEGER.join(K::EMPTY), false, r#"{"type":"string"}"#),
        (K::INTEGER.join(K::REPEATED), false, r#"{"type":"array","items":{"type":"integer"}}"#),
        (K::FILE, false, r#"{"type":"string","contentMediaType":"application/octet-stream"}"#),
        (K::INTEGER.join(K::NULL), true, r#"{"type":["integer","null"]}"#),
        (K::INTEGER.join(K::UUID), true, r#"{"type":["integer","string"]}"#),
        (
            K::BOOLEAN.join(K::NUMBER).join(K::INTEGER).join(K::STRING),
            true,
            r#"{"type":["boolean","number","string"]}"#,
        ),
        (K::NULL, true, r#"{"type":"null"}"#),
        (K::OBJECT.join(K::ARRAY), true, r#"{"type":["object","array"]}"#),
    ] {
        let place = if json { Json } else { Form };
        let name = if json { "" } else { "f" };
        let doc = document(&learn(
            DEFAULTS,
            &[Request {
                endpoint: "POST /",
                parameters: &[(place, name, kinds, 1)],
                content_type: "text/x",
                body: BodyOutline::Whole,
                ..Request::default()
            }],
        ));
        let schema = &doc["paths"]["/"]["post"]["requestBody"]["content"]["text/x"]["schema"];
        let schema = if json { schema } else { &schema["properties"]["f"] };
        let want: Value = serde_json::from_str(want).unwrap();
        assert_eq!(*schema, want, "{kinds:?}");
    }
}

#[test]
fn json_bodies_become_schemas() {
    let body = |parameters, body| Request {
        endpoint: "POST /orders",
        content_type: "application/json",
        parameters,
        body,
        ..Request::default()
    };
    let whole = [
        (Json, "", K::OBJECT, 1),
        (Json, "/items", K::ARRAY, 1),
        (Json, "/items/*", K::OBJECT, 2),
        (Json, "/items/*/sku", K::STRING, 2),
        (Json, "/items/*/n", K::INTEGER, 1),
        (Json, "/by", K::OBJECT, 1),
        (Json, "/by/{id}", K::NUMBER, 3),
        (Json, "/a~1b~2", K::BOOLEAN, 1),
    ];
    let doc = document(&learn(DEFAULTS, &[body(&whole, BodyOutline::Whole)]));
    let post = &doc["paths"]["/orders"]["post"];
    let want: Value = serde_json::from_str(
        r#"{"type":"object","properties":{
            "a/b*":{"type":"boolean"},
            "by":{"type":"object","additionalProperties":{"type":"number"}},
            "items":{"type":"array","items":{"type":"object","properties":{"n":{"type":"integer"},"sku":{"type":"string"}},
            "required":["sku"]}}},"required":["a/b*","by","items"]}"#,
    )
    .unwrap();
    assert_eq!(post["requestBody"]["content"]["application/json"]["schema"], want);
    assert_eq!(post["requestBody"]["required"], true);

    let first = [(Json, "", K::OBJECT, 1), (Json, "/a", K::STRING, 1)];
    let cut = [(Json, "", K::OBJECT, 1)];
    let doc =
        document(&learn(DEFAULTS, &[body(&first, BodyOutline::Whole), body(&cut, BodyOutline::Partial)]));
    let schema = &doc["paths"]["/orders"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(schema["required"], Value::Null, "a body that was cut says nothing of what is required");
}

#[test]
fn paths_have_named_holes_and_no_two_mean_the_same() {
    let endpoints = [
        "GET /orders/{id}",
        "GET /orders/{uuid}",
        "PUT /orders/{id}",
        "GET /a/{id}/b/{id}/{slug}-{id}.js",
        "GET /u/{uuid}",
        "GET /x/{…}",
        "GET /odd/{brace}/\u{fc}/a%2Fb/%zz",
        "GET *",
        "CONNECT {authority}",
        "OTHER /x",
    ];
    let requests: Vec<_> = endpoints.iter().map(|e| Request { endpoint: e, ..Request::default() }).collect();
    let inventory = learn(DEFAULTS, &requests);
    let doc = document(&inventory);
    let paths = doc["paths"].as_object().unwrap();
    assert_eq!(
        paths.keys().collect::<Vec<_>>(),
        [
            "/a/{id}/b/{id2}/{slug}-{id3}.js",
            "/odd/%7Bbrace%7D/%C3%BC/a%2Fb/%25zz",
            "/orders/{value}",
            "/u/{uuid}",
            "/x/{rest}"
        ]
    );
    assert_eq!(paths["/orders/{value}"]["get"]["x-offpath-requests"], 2);
    assert_eq!(paths["/u/{uuid}"]["parameters"][0]["schema"]["format"], "uuid");
    for (path, item) in paths {
        let declared: Vec<_> = item["parameters"].as_array().into_iter().flatten().collect();
        assert_eq!(declared.len(), path.matches('{').count(), "{path}");
        for p in declared {
            assert!(path.contains(&format!("{{{}}}", p["name"].as_str().unwrap())), "{path}");
        }
    }
    assert_eq!(inventory.counters.unlisted_total, 3);
}

#[test]
fn servers_credentials_and_content_types() {
    let doc = document(&learn(
        DEFAULTS,
        &[
            Request { credentials: &[(CredentialKind::Bearer, "")], ..Request::default() },
            Request {
                credentials: &[(CredentialKind::Cookie, "sid"), (CredentialKind::Header, "x-api-key")],
                host: "api.example",
                endpoint: "GET /api",
                ..Request::default()
            },
            Request { endpoint: "GET /api", ..Request::default() },
            Request { endpoint: "GET /api", host: "bad host", ..Request::default() },
            // Refused for want of credentials: says nothing of what is needed.
            Request {
                endpoint: "GET /api",
                status: Some(401),
                credentials: &[(CredentialKind::Basic, "")],
                ..Request::default()
            },
            Request { endpoint: "POST /in", content_type: "Text/XML", ..Request::default() },
            Request { endpoint: "POST /in", content_type: "not a type", ..Request::default() },
        ],
    ));
    let urls = |v: &Value| -> Vec<String> {
        v.as_array().into_iter().flatten().map(|s| s["url"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(urls(&doc["servers"]), ["http://shop.example", "http://api.example"]);
    assert_eq!(urls(&doc["paths"]["/"]["servers"]), ["http://shop.example"]);
    assert_eq!(doc["paths"]["/api"]["servers"], Value::Null, "all of them");
    assert_eq!(doc["paths"]["/"]["get"]["security"].to_string(), r#"[{"bearer":[]}]"#);
    assert_eq!(
        doc["paths"]["/api"]["get"]["security"].to_string(),
        r#"[{},{"cookie_sid":[],"header_x-api-key":[]}]"#
    );
    let schemes = doc["components"]["securitySchemes"].as_object().unwrap();
    assert_eq!(schemes.keys().collect::<Vec<_>>(), ["basic", "bearer", "cookie_sid", "header_x-api-key"]);
    assert_eq!(schemes["cookie_sid"].to_string(), r#"{"in":"cookie","name":"sid","type":"apiKey"}"#);
    let content = doc["paths"]["/in"]["post"]["requestBody"]["content"].as_object().unwrap();
    assert_eq!(content.keys().collect::<Vec<_>>(), ["application/octet-stream", "text/xml"]);
}

#[test]
fn limits_hold_and_are_counted() {
    let few = InventoryLimits { endpoints_max: 2, parameters_per_endpoint_max: 2 };
    let at = |endpoint, status| Request { endpoint, status: Some(status), ..Request::default() };
    // A scanner's guesses make room for what exists, oldest first.
    let inventory =
        learn(few.clone(), &[at("GET /a", 404), at("GET /b", 404), at("GET /c", 200), at("GET /b", 200)]);
    assert_eq!(inventory.counters.endpoints_evicted_total, 1);
    let doc = document(&inventory);
    assert_eq!(doc["paths"].as_object().unwrap().keys().collect::<Vec<_>>(), ["/b", "/c"]);
    // What exists makes room for nothing.
    let inventory =
        learn(few.clone(), &[at("GET /a", 200), at("GET /b", 200), at("GET /c", 200), at("GET /d", 404)]);
    assert_eq!((inventory.counters.endpoints_full_total, inventory.endpoints.len()), (2, 2));
    assert_eq!(document(&inventory)["x-offpath-inventory"]["left-out"]["endpoints_full_total"], 2);

    // The parameter seen least often goes.
    let with = |parameters, second| Request { parameters, second, ..Request::default() };
    let (ab, c): (&[_], &[_]) =
        (&[(Query, "a", K::INTEGER, 1), (Query, "b", K::INTEGER, 1)], &[(Query, "c", K::INTEGER, 1)]);
    let inventory = learn(few, &[with(ab, 0), with(&ab[..1], 1), with(c, 2)]);
    assert_eq!(inventory.counters.parameters_evicted_total, 1);
    let names = document(&inventory)["paths"]["/"]["get"]["parameters"].to_string();
    assert!(names.contains(r#""a""#) && names.contains(r#""c""#) && !names.contains(r#""b""#), "{names}");

    let hosts: Vec<String> = (0..=HOSTS_MAX).map(|n| format!("h{n}.example")).collect();
    let requests: Vec<_> = hosts.iter().map(|host| Request { host, ..Request::default() }).collect();
    assert_eq!(learn(DEFAULTS, &requests).counters.hosts_left_out_total, 1);
    let cookies: Vec<String> = (0..=SCHEMES_MAX).map(|n| format!("sid{n}")).collect();
    let sets: Vec<_> = cookies.iter().map(|c| [(CredentialKind::Cookie, c.as_str())]).collect();
    let requests: Vec<_> =
        sets.iter().map(|set| Request { credentials: set, ..Request::default() }).collect();
    let inventory = learn(DEFAULTS, &requests);
    assert_eq!(inventory.schemes.len(), SCHEMES_MAX);
    // One scheme found no room, and the combinations over the limit.
    assert_eq!(inventory.counters.details_left_out_total as usize, 1 + SCHEMES_MAX + 1 - COMBINATIONS_MAX);
    let types: Vec<String> = (0..=MEDIA_TYPES_MAX).map(|n| format!("a/{n}")).collect();
    let requests: Vec<_> = types
        .iter()
        .map(|t| Request { content_type: t, parameters: &[(Form, "f", K::INTEGER, 1)], ..Request::default() })
        .collect();
    let inventory = learn(DEFAULTS, &requests);
    assert_eq!(inventory.counters.details_left_out_total, 1);
    assert_eq!(inventory.endpoints.values().next().unwrap().parameters.len(), MEDIA_TYPES_MAX);
}

#[test]
fn an_unanswered_request_is_learned_and_an_empty_inventory_is_a_document() {
    let doc = document(&learn(DEFAULTS, &[Request { status: None, ..Request::default() }]));
    assert_eq!(doc["paths"]["/"]["get"]["responses"]["default"]["description"], "No response was seen.");
    let empty = document(&Inventory::new(DEFAULTS));
    assert_eq!(empty["openapi"], "3.1.0");
    assert_eq!(empty["paths"], Value::Object(serde_json::Map::new()));
}

#[test]
fn yaml_says_the_same_as_json() {
    let inventory = learn(
        DEFAULTS,
        &[
            Request {
                endpoint: "POST /a/{id}",
                parameters: &[(Form, "true", K::INTEGER, 1), (Form, "q: \u{fc}\u{2028}#", K::EMAIL, 1)],
                content_type: "application/x-www-form-urlencoded",
                credentials: &[(CredentialKind::Basic, "")],
                ..Request::default()
            },
            Request { endpoint: "POST /a/{id}", ..Request::default() },
        ],
    );
    let mut text = Vec::new();
    write(&inventory, Syntax::Yaml, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    for part in [
        "openapi: \"3.1.0\"\n",
        "paths:\n  \"/a/{id}\":\n    parameters:\n      - name: id\n        in: path\n        required: true\n",
        "      responses:\n        \"200\":\n          description: OK\n",
        "\"true\":\n                  type: integer\n",
        "\"q: \u{fc}\\U00002028#\":\n                  type: string\n                  format: email\n",
        "      security:\n        - basic: []\n        - {}\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert_eq!(Syntax::of("a/b.yaml".as_ref()), Syntax::Yaml);
    assert_eq!(Syntax::of("b.yml".as_ref()), Syntax::Yaml);
    assert_eq!(Syntax::of("-".as_ref()), Syntax::Json);
}

#[test]
fn graphql_operations_stand_at_their_path() {
    let requests: Vec<_> = [
        "POST /graphql mutation Login",
        "POST /graphql mutation Login",
        "POST /graphql query {slug} {batch}",
        "POST /graphql query",
        "POST /graphql operation {persisted}",
        "POST /graphql",
        // A space in a path is no operation.
        "GET /a b",
    ]
    .into_iter()
    .map(|endpoint| Request { endpoint, ..Request::default() })
    .collect();
    let doc = document(&learn(DEFAULTS, &requests));
    let paths = doc["paths"].as_object().unwrap();
    assert_eq!(paths.keys().collect::<Vec<_>>(), ["/a%20b", "/graphql"]);
    let post = &paths["/graphql"]["post"];
    assert_eq!(post["x-offpath-requests"], 6);
    let row = |o: &Value| format!("{} {} {}", o["type"], o["name"], o["x-offpath-requests"]).replace('"', "");
    assert_eq!(
        post["x-offpath-operations"].as_array().unwrap().iter().map(row).collect::<Vec<_>>(),
        ["mutation Login 2", "operation {persisted} 1", "query null 1", "query {slug} {batch} 1"]
    );
    assert_eq!(paths["/a%20b"]["get"]["x-offpath-operations"], Value::Null);
    // Their names are the client's choice.
    let names: Vec<_> = (0..OPERATIONS_MAX + 3).map(|n| format!("POST /graphql query Q{n}")).collect();
    let requests: Vec<_> = names.iter().map(|endpoint| Request { endpoint, ..Request::default() }).collect();
    let inventory = learn(DEFAULTS, &requests);
    assert_eq!(inventory.counters.details_left_out_total, 3);
}

#[test]
fn forgetting_the_parameter_seen_least_often_is_exact_and_takes_no_look_at_all_of_them() {
    // Against what is obviously right, for names that come again with luck.
    let max = 8;
    let limits = InventoryLimits { parameters_per_endpoint_max: max, ..DEFAULTS };
    let mut inventory = Inventory::new(limits);
    let mut plain: Vec<(u64, u64, String)> = Vec::new();
    let mut seed = 1u64;
    for second in 0..3000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let name = format!("{:02}", ((seed >> 33) % 60).min((seed >> 40) % 60));
        inventory.observe(&transaction(&Request {
            parameters: &[(Query, &name, K::INTEGER, 1)],
            second,
            ..Request::default()
        }));
        match plain.iter_mut().find(|(.., known)| *known == name) {
            Some((requests, last, _)) => (*requests, *last) = (*requests + 1, second),
            None => {
                if plain.len() == max {
                    plain.sort();
                    plain.remove(0);
                }
                plain.push((1, second, name));
            }
        }
        let endpoint = inventory.endpoints.values().next().unwrap();
        let mut known: Vec<_> =
            endpoint.parameters.keys().map(|k| String::from_utf8_lossy(&k[2..])).collect();
        known.sort();
        let mut want: Vec<_> = plain.iter().map(|(.., name)| name.as_str()).collect();
        want.sort_unstable();
        assert_eq!(known, want, "{second}");
        assert!(endpoint.least.len() <= max);
    }
    assert!(inventory.counters.parameters_evicted_total > 500);

    // As many as a configuration may ask for: a look at all of them for each would take minutes.
    let limits = InventoryLimits { parameters_per_endpoint_max: 65_536, ..DEFAULTS };
    let mut inventory = Inventory::new(limits);
    for round in 0..1000u64 {
        let names: Vec<_> = (0..256).map(|n| format!("{round}-{n}")).collect();
        let parameters: Vec<_> = names.iter().map(|n| (Query, n.as_str(), K::INTEGER, 1)).collect();
        inventory.observe(&transaction(&Request {
            parameters: &parameters,
            second: round,
            ..Request::default()
        }));
    }
    assert_eq!(inventory.counters.parameters_evicted_total, 256_000 - 65_536);
}

#[test]
fn a_clone_stays_as_it_was() {
    let mut inventory = learn(DEFAULTS, &[Request::default()]);
    let then = inventory.clone();
    let want = document(&then);
    inventory.observe(&transaction(&Request { second: 9, host: "b.example", ..Request::default() }));
    inventory.observe(&transaction(&Request { endpoint: "GET /b", ..Request::default() }));
    assert_eq!(document(&then), want);
    assert_eq!(document(&inventory)["paths"]["/"]["get"]["x-offpath-requests"], 2);
}
