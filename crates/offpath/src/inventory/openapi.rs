//! The inventory as an OpenAPI 3.1 document, in JSON or YAML.
//!
//! Everything is sorted, so that equal inventories give equal documents. What OpenAPI has no words for (counts, times)
//! stands under `x-offpath-…`. Read <https://spec.openapis.org/oas/v3.1.1> before changing this file.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use offpath_enforce::rfc3339;
use offpath_types::{CredentialKind, ParameterPlace, ValueKinds};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::{Endpoint, Inventory, Learned};

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// Indented JSON.
    Json,
    /// Block YAML.
    Yaml,
}

impl Syntax {
    /// Returns the syntax that a file's name asks for: YAML for `.yaml` and `.yml`.
    pub(crate) fn of(path: &Path) -> Self {
        match path.extension().and_then(|e| e.to_str()) {
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::Json,
        }
    }
}

/// Writes the document; no more than one of its paths is in memory at once.
pub(crate) fn write(inventory: &Inventory, syntax: Syntax, out: &mut impl Write) -> io::Result<()> {
    let document = Document::of(inventory);
    match syntax {
        Syntax::Json => {
            serde_json::to_writer_pretty(&mut *out, &document)?;
            out.write_all(b"\n")
        }
        Syntax::Yaml => {
            let mut text = String::new();
            yaml(&document.head().into(), 0, &mut text);
            text.push_str(if document.paths.is_empty() { "paths: {}\n" } else { "paths:\n" });
            for path in &document.paths {
                yaml(&Node::Map(vec![(path.path.clone(), document.item(path))]), 2, &mut text);
                out.write_all(text.as_bytes())?;
                text.clear();
            }
            yaml(&document.tail().into(), 0, &mut text);
            out.write_all(text.as_bytes())
        }
    }
}

/// A piece of a document; maps keep their order.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Bool(bool),
    Number(u64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => serializer.serialize_u64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Map(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Node {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// A map under construction.
#[derive(Default)]
struct Members(Vec<(String, Node)>);

impl Members {
    fn with(mut self, key: impl Into<String>, value: impl Into<Node>) -> Self {
        self.0.push((key.into(), value.into()));
        self
    }

    /// Adds a member unless it is an empty list or map.
    fn with_any(self, key: impl Into<String>, value: Node) -> Self {
        let nothing = match &value {
            Node::List(items) => items.is_empty(),
            Node::Map(members) => members.is_empty(),
            _ => false,
        };
        if nothing { self } else { self.with(key, value) }
    }
}

impl From<Members> for Node {
    fn from(members: Members) -> Self {
        Self::Map(members.0)
    }
}

/// Placeholders of endpoint templates, with the names that path parameters get.
const PLACEHOLDERS: [(&str, &str); 8] = [
    ("{id}", "id"),
    ("{uuid}", "uuid"),
    ("{hex}", "hex"),
    ("{token}", "token"),
    ("{date}", "date"),
    ("{email}", "email"),
    ("{slug}", "slug"),
    ("{…}", "rest"),
];
const UUID: u8 = 1 << 1;

/// Methods that a path item has a place for.
const METHODS: [&[u8]; 8] = [b"GET", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"HEAD", b"PATCH", b"TRACE"];

/// Appends `METHOD /path` to `out` as a document names it: `{}` for every placeholder, anything that no URL may hold
/// percent-encoded. `holes` gets the placeholders, one bit each. Returns the GraphQL operation that the endpoint names,
/// empty where it names none; `None` where OpenAPI has no place for the endpoint.
///
/// OpenAPI takes paths that differ in the names of their parameters for the same path, so the kind of placeholder is
/// no part of it.
pub(super) fn skeleton<'a>(endpoint: &'a [u8], out: &mut Vec<u8>, holes: &mut Vec<u8>) -> Option<&'a [u8]> {
    let space = endpoint.iter().position(|c| *c == b' ')?;
    let (method, path) = (&endpoint[..space], &endpoint[space + 1..]);
    if !METHODS.contains(&method) || !path.starts_with(b"/") {
        return None;
    }
    let (path, operation) = split_operation(path);
    out.extend_from_slice(&endpoint[..=space]);
    let mut rest = path;
    while let Some((&c, after)) = rest.split_first() {
        let hole = PLACEHOLDERS.iter().position(|(text, _)| rest.starts_with(text.as_bytes()));
        if let Some(hole) = hole {
            out.extend_from_slice(b"{}");
            holes.push(1 << hole);
            rest = &rest[PLACEHOLDERS[hole].0.len()..];
            continue;
        }
        let encoded = c == b'%' && after.iter().take(2).filter(|c| c.is_ascii_hexdigit()).count() == 2;
        if encoded || c.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&c) {
            out.push(c);
        } else {
            // Writing into a Vec cannot fail.
            let _ = write!(out, "%{c:02X}");
        }
        rest = after;
    }
    Some(operation)
}

/// Splits `/graphql mutation Login` into path and operation.
fn split_operation(path: &[u8]) -> (&[u8], &[u8]) {
    let Some(space) = path.iter().position(|c| *c == b' ') else { return (path, &[]) };
    let operation = &path[space + 1..];
    let kind = operation.split(|c| *c == b' ').next().unwrap_or_default();
    // A request whose path has a space in it names no operation.
    if matches!(kind, b"query" | b"mutation" | b"subscription" | b"operation") {
        (&path[..space], operation)
    } else {
        (path, &[])
    }
}

/// Tells whether `name` is a host name or address, as a server's URL holds it.
pub(super) fn is_host(name: &[u8]) -> bool {
    let plain = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    match name {
        [b'[', inside @ .., b']'] => inside.iter().all(|c| c.is_ascii_hexdigit() || matches!(c, b':' | b'.')),
        _ => !name.is_empty() && name.iter().all(plain),
    }
}

/// A document that is made as it is written.
struct Document<'a> {
    inventory: &'a Inventory,
    schemes: Vec<String>,
    /// Sorted by `path`.
    paths: Vec<PathItem<'a>>,
}

/// One path of a document.
struct PathItem<'a> {
    path: String,
    /// Its parameters.
    parameters: Vec<Node>,
    /// By method, in the order of [`METHODS`].
    endpoints: Vec<(&'a str, &'a Endpoint)>,
}

impl<'a> Document<'a> {
    fn of(inventory: &'a Inventory) -> Self {
        let mut paths: BTreeMap<&str, Vec<(&str, &Endpoint)>> = BTreeMap::new();
        for (key, endpoint) in inventory.endpoints.iter().filter(|(_, e)| e.learned > 0) {
            // Keys are ASCII: see `skeleton`.
            let Some((method, path)) = std::str::from_utf8(key).ok().and_then(|k| k.split_once(' ')) else {
                continue;
            };
            paths.entry(path).or_default().push((method, endpoint));
        }
        let mut paths: Vec<_> = paths
            .into_iter()
            .map(|(path, mut endpoints)| {
                endpoints.sort_by_key(|(method, _)| METHODS.iter().position(|m| *m == method.as_bytes()));
                let (path, parameters) = path_of(path, &endpoints);
                PathItem { path, parameters, endpoints }
            })
            .collect();
        paths.sort_by(|a, b| a.path.cmp(&b.path));
        Self { inventory, schemes: scheme_names(inventory), paths }
    }

    /// Returns what stands before the paths.
    fn head(&self) -> Members {
        let last = rfc3339(self.inventory.last);
        Members::default()
            .with("openapi", "3.1.0")
            .with(
                "info",
                Members::default()
                    .with("title", "Interface learned from traffic")
                    .with("version", &last[..10])
                    .with(
                        "description",
                        "What clients asked for and servers understood, seen by Offpath on a copy of the traffic. \
                         What nobody used is not in it.",
                    ),
            )
            .with_any("servers", servers(self.inventory, None))
    }

    /// Returns what stands under a path.
    fn item(&self, path: &PathItem<'_>) -> Node {
        let hosts = path.endpoints.iter().fold(0, |all, (_, e)| all | e.hosts);
        let item = Members::default()
            .with_any("servers", servers(self.inventory, Some(hosts)))
            .with_any("parameters", Node::List(path.parameters.clone()));
        let operations = path.endpoints.iter();
        let item = operations.fold(item, |item, (method, endpoint)| {
            item.with(method.to_ascii_lowercase(), operation(endpoint, &self.schemes))
        });
        item.into()
    }

    /// Returns what stands behind the paths.
    fn tail(&self) -> Members {
        let counters = &self.inventory.counters;
        let left_out = counters.fields().into_iter().filter(|(name, count)| {
            *count > 0
                && (name.contains("_full_") || name.contains("_evicted_") || name.contains("_left_out_"))
        });
        let left_out = left_out.map(|(name, count)| (name.to_owned(), Node::Number(count))).collect();
        Members::default().with_any("components", components(self.inventory, &self.schemes)).with(
            "x-offpath-inventory",
            Members::default()
                .with("requests", Node::Number(counters.requests_total))
                .with("understood", Node::Number(counters.learned_total))
                .with("first-seen", rfc3339(self.inventory.first.unwrap_or_default()))
                .with("last-seen", rfc3339(self.inventory.last))
                .with_any("left-out", Node::Map(left_out)),
        )
    }
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.head().0.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.serialize_entry("paths", &Paths(self))?;
        self.tail().0.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

/// The paths of a document.
struct Paths<'a>(&'a Document<'a>);

impl Serialize for Paths<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.paths.len()))?;
        self.0.paths.iter().try_for_each(|path| map.serialize_entry(&path.path, &self.0.item(path)))?;
        map.end()
    }
}

/// Returns the servers whose bit is in `hosts`, most requests first, and nothing where that is all of them; without
/// `hosts` all of them, with how many requests each had.
fn servers(inventory: &Inventory, hosts: Option<u64>) -> Node {
    let all = inventory.hosts.iter().enumerate();
    let mut named: Vec<_> =
        all.filter(|(at, _)| hosts.is_none_or(|set| set & (1 << at) != 0)).map(|(_, host)| host).collect();
    if hosts.is_some() && named.len() == inventory.hosts.len() {
        return Node::List(Vec::new());
    }
    named.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| (&a.name, a.port).cmp(&(&b.name, b.port))));
    let server = |host: &&super::Host| {
        let name = String::from_utf8_lossy(&host.name);
        let url = match host.port {
            80 => format!("http://{name}"),
            443 => format!("https://{name}"),
            port => format!("http://{name}:{port}"),
        };
        let server = Members::default().with("url", url);
        match hosts {
            None => server.with("x-offpath-requests", Node::Number(host.requests)).into(),
            Some(_) => server.into(),
        }
    };
    Node::List(named.iter().map(server).collect())
}

/// Fills the holes of a path with names; returns the path and its parameters.
fn path_of(path: &str, endpoints: &[(&str, &Endpoint)]) -> (String, Vec<Node>) {
    let mut out = String::new();
    let mut names: Vec<String> = Vec::new();
    let mut parameters = Vec::new();
    for (at, piece) in path.split("{}").enumerate() {
        if at > 0 {
            let kinds =
                endpoints.iter().fold(0, |all, (_, e)| all | e.holes.get(at - 1).copied().unwrap_or(0));
            let alone = PLACEHOLDERS.iter().enumerate().find(|(bit, _)| kinds == 1 << bit);
            let base = alone.map_or("value", |(_, (_, name))| name);
            let same =
                names.iter().filter(|n| n.trim_end_matches(|c: char| c.is_ascii_digit()) == base).count();
            let name = if same == 0 { base.to_owned() } else { format!("{base}{}", same + 1) };
            let schema = Members::default().with("type", "string");
            let schema = if kinds == UUID { schema.with("format", "uuid") } else { schema };
            parameters.push(
                Members::default()
                    .with("name", name.clone())
                    .with("in", "path")
                    .with("required", Node::Bool(true))
                    .with("schema", schema)
                    .into(),
            );
            out.push('{');
            out.push_str(&name);
            out.push('}');
            names.push(name);
        }
        out.push_str(piece);
    }
    (out, parameters)
}

fn operation(endpoint: &Endpoint, schemes: &[String]) -> Node {
    let mut parameters: Vec<_> = named(endpoint, ParameterPlace::Query, 0)
        .into_iter()
        .map(|p| (p, "query"))
        .chain(named(endpoint, ParameterPlace::Header, 0).into_iter().map(|p| (p, "header")))
        .collect();
    parameters.sort_by(|((a, _), p), ((b, _), q)| (q, a).cmp(&(p, b)));
    let parameters = parameters.into_iter().map(|((name, learned), place)| {
        let parameter = Members::default().with("name", name).with("in", place);
        let parameter = if learned.requests == endpoint.learned {
            parameter.with("required", Node::Bool(true))
        } else {
            parameter
        };
        parameter
            .with("schema", schema(learned.kinds))
            .with("x-offpath-requests", Node::Number(learned.requests))
            .into()
    });
    Members::default()
        .with_any("parameters", Node::List(parameters.collect()))
        .with_any("requestBody", request_body(endpoint))
        .with("responses", responses(endpoint))
        .with_any("security", security(endpoint, schemes))
        .with_any("x-offpath-operations", graphql(endpoint))
        .with("x-offpath-requests", Node::Number(endpoint.requests))
        .with("x-offpath-first-seen", rfc3339(endpoint.first))
        .with("x-offpath-last-seen", rfc3339(endpoint.last))
        .into()
}

/// Returns the GraphQL operations of an endpoint, by name.
fn graphql(endpoint: &Endpoint) -> Node {
    let mut operations: Vec<_> = endpoint.operations.iter().collect();
    operations.sort_unstable();
    let operation = |(text, requests): &&(Box<[u8]>, u64)| {
        let text = String::from_utf8_lossy(text);
        let (kind, name) = text.split_once(' ').unwrap_or((&text, ""));
        let operation = Members::default().with("type", kind);
        let operation = if name.is_empty() { operation } else { operation.with("name", name) };
        operation.with("x-offpath-requests", Node::Number(*requests)).into()
    };
    Node::List(operations.iter().map(operation).collect())
}

/// Returns the parameters of one place (and one content type), by name.
fn named(endpoint: &Endpoint, place: ParameterPlace, body: u8) -> Vec<(String, &Learned)> {
    let mut list: Vec<_> = endpoint
        .parameters
        .iter()
        .filter(|(key, _)| key.starts_with(&[place as u8, body]))
        .map(|(key, learned)| (String::from_utf8_lossy(&key[2..]).into_owned(), learned))
        .collect();
    list.sort_by(|(a, _), (b, _)| a.cmp(b));
    list
}

fn request_body(endpoint: &Endpoint) -> Node {
    let mut content: Vec<(String, Node)> = Vec::new();
    let mut requests = 0;
    for (number, body) in endpoint.bodies.iter().enumerate() {
        let number = number as u8;
        requests += body.requests;
        let json = named(endpoint, ParameterPlace::Json, number);
        let form = named(endpoint, ParameterPlace::Form, number);
        let schema = if !json.is_empty() {
            json_schema(&json, body.partial)
        } else if !form.is_empty() {
            let required =
                |(_, learned): &&(String, &Learned)| !body.partial && learned.requests == body.requests;
            let required: Vec<_> =
                form.iter().filter(required).map(|(name, _)| name.as_str().into()).collect();
            let properties = form.iter().map(|(name, learned)| (name.clone(), schema(learned.kinds)));
            Members::default()
                .with("type", "object")
                .with("properties", Node::Map(properties.collect()))
                .with_any("required", Node::List(required))
                .into()
        } else {
            Node::Map(Vec::new())
        };
        let media = Members::default()
            .with_any("schema", schema)
            .with("x-offpath-requests", Node::Number(body.requests));
        content.push((body.media_type.to_string(), media.into()));
    }
    content.sort_by(|(a, _), (b, _)| a.cmp(b));
    if content.is_empty() {
        return Node::Map(content);
    }
    let body = Members::default().with("content", Node::Map(content));
    if requests == endpoint.learned { body.with("required", Node::Bool(true)).into() } else { body.into() }
}

fn responses(endpoint: &Endpoint) -> Node {
    let mut responses = Vec::new();
    for (code, status) in &endpoint.statuses {
        let mut types: Vec<_> = status.media_types.iter().map(|(name, _)| name.to_string()).collect();
        types.sort_unstable();
        let content = types.into_iter().map(|name| (name, Node::Map(Vec::new()))).collect();
        let response = Members::default()
            .with("description", reason(*code))
            .with_any("content", Node::Map(content))
            .with("x-offpath-responses", Node::Number(status.responses));
        // Other codes than these OpenAPI has no place for.
        if (100..600).contains(code) {
            responses.push((code.to_string(), response.into()));
        }
    }
    if responses.is_empty() {
        responses.push((
            "default".to_owned(),
            Members::default().with("description", "No response was seen.").into(),
        ));
    }
    Node::Map(responses)
}

/// Returns what a status code is called (RFC 9110 §15), or its class.
const fn reason(code: u16) -> &'static str {
    match code {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => match code / 100 {
            1 => "Informational",
            2 => "Successful",
            3 => "Redirection",
            4 => "Client Error",
            _ => "Server Error",
        },
    }
}

/// Returns the sets of credentials that requests were accepted with, most often first; nothing where none ever had any.
fn security(endpoint: &Endpoint, schemes: &[String]) -> Node {
    let mut sets = endpoint.credentials.clone();
    if sets.iter().all(|(set, _)| *set == 0) {
        return Node::List(Vec::new());
    }
    sets.sort_by(|a, b| b.1.cmp(&a.1).then(b.0.cmp(&a.0)));
    let alternative = |(set, _): &(u32, u64)| {
        let mut names: Vec<_> =
            schemes.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0).map(|(_, name)| name).collect();
        names.sort_unstable();
        Node::Map(names.into_iter().map(|name| (name.clone(), Node::List(Vec::new()))).collect())
    };
    Node::List(sets.iter().map(alternative).collect())
}

/// Returns the names that the schemes have in the document: `bearer`, `header_x-api-key`, `cookie_sid`.
fn scheme_names(inventory: &Inventory) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (kind, name) in &inventory.schemes {
        let prefix = match kind {
            CredentialKind::Basic => "basic",
            CredentialKind::Bearer => "bearer",
            CredentialKind::Digest => "digest",
            CredentialKind::Header => "header_",
            CredentialKind::Cookie => "cookie_",
            CredentialKind::Query => "query_",
        };
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
        let mut text: String = prefix.to_owned();
        text.extend(String::from_utf8_lossy(name).chars().map(plain));
        while names.contains(&text) {
            text.push('_');
        }
        names.push(text);
    }
    names
}

fn components(inventory: &Inventory, names: &[String]) -> Node {
    let mut schemes: Vec<(String, Node)> = Vec::new();
    for ((kind, name), key) in inventory.schemes.iter().zip(names) {
        let http = |scheme: &str| Members::default().with("type", "http").with("scheme", scheme);
        let key_in = |place: &str| {
            let name = String::from_utf8_lossy(name).into_owned();
            Members::default().with("type", "apiKey").with("in", place).with("name", name)
        };
        let scheme = match kind {
            CredentialKind::Basic => http("basic"),
            CredentialKind::Bearer => http("bearer"),
            CredentialKind::Digest => http("digest"),
            CredentialKind::Header => key_in("header"),
            CredentialKind::Cookie => key_in("cookie"),
            CredentialKind::Query => key_in("query"),
        };
        schemes.push((key.clone(), scheme.into()));
    }
    schemes.sort_by(|(a, _), (b, _)| a.cmp(b));
    Members::default().with_any("securitySchemes", Node::Map(schemes)).into()
}

/// Returns the schema of a parameter or form field, where every value is text.
fn schema(kinds: ValueKinds) -> Node {
    let item: Node = match scalar(kinds.without(ValueKinds::REPEATED), false) {
        Some((name, format)) => typed(name, format).into(),
        None if kinds.contains(ValueKinds::FILE) => Members::default()
            .with("type", "string")
            .with("contentMediaType", "application/octet-stream")
            .into(),
        None => Members::default().with("type", "string").into(),
    };
    if kinds.contains(ValueKinds::REPEATED) {
        return Members::default().with("type", "array").with("items", item).into();
    }
    item
}

fn typed(name: &str, format: Option<&str>) -> Members {
    let members = Members::default().with("type", name);
    match format {
        Some(format) => members.with("format", format),
        None => members,
    }
}

/// Returns the narrowest type, and format, that all of `kinds` are of; `None` where there is no scalar among them, or
/// in JSON no single type.
fn scalar(kinds: ValueKinds, json: bool) -> Option<(&'static str, Option<&'static str>)> {
    use ValueKinds as K;
    let of = |set: K| !kinds.is_empty() && set.contains(kinds);
    let numbers = K::INTEGER.join(K::NUMBER);
    let texts = [K::UUID, K::DATE, K::DATE_TIME, K::EMAIL, K::STRING, K::EMPTY]
        .into_iter()
        .fold(K::default(), K::join);
    for (kind, name, format) in [
        (K::INTEGER, "integer", None),
        (numbers, "number", None),
        (K::BOOLEAN, "boolean", None),
        (K::UUID, "string", Some("uuid")),
        (K::DATE, "string", Some("date")),
        (K::DATE_TIME, "string", Some("date-time")),
        (K::EMAIL, "string", Some("email")),
        (texts, "string", None),
    ] {
        if of(kind) {
            return Some((name, format));
        }
    }
    // Text holds anything; JSON says what is no text.
    let all = texts.join(numbers).join(K::BOOLEAN);
    (!json && of(all)).then_some(("string", None))
}

/// A JSON body's values as the tree they are.
#[derive(Default)]
struct Tree<'a> {
    learned: Option<&'a Learned>,
    children: BTreeMap<String, Tree<'a>>,
}

fn json_schema(list: &[(String, &Learned)], partial: bool) -> Node {
    let mut root = Tree::default();
    for (pointer, learned) in list {
        let mut tree = &mut root;
        for step in pointer.split('/').skip(1) {
            tree = tree.children.entry(step.to_owned()).or_default();
        }
        tree.learned = Some(learned);
    }
    tree_schema(&root, partial)
}

/// Depth is bounded by what an outline looks into.
fn tree_schema(tree: &Tree<'_>, partial: bool) -> Node {
    use ValueKinds as K;
    // A value that was forgotten, though what is in it was not, is what it must have been.
    let kinds = tree.learned.map_or(K::default(), |l| l.kinds);
    let element = tree.children.get("*");
    let object = kinds.contains(K::OBJECT) || tree.children.keys().any(|k| k != "*");
    let array = kinds.contains(K::ARRAY) || element.is_some();
    let mut types: Vec<&str> = Vec::new();
    let mut format = None;
    let rest = kinds.without(K::OBJECT.join(K::ARRAY).join(K::NULL));
    match scalar(rest, true) {
        Some((name, with)) => {
            types.push(name);
            format = with;
        }
        None => {
            let numbers = K::INTEGER.join(K::NUMBER);
            let others = rest.without(numbers).without(K::BOOLEAN);
            let has = |set: K| rest.without(set) != rest;
            types.extend(has(K::BOOLEAN).then_some("boolean"));
            types.extend(has(K::NUMBER).then_some("number"));
            types.extend((has(K::INTEGER) && !has(K::NUMBER)).then_some("integer"));
            types.extend((!others.is_empty()).then_some("string"));
        }
    }
    types.extend(object.then_some("object"));
    types.extend(array.then_some("array"));
    types.extend(kinds.contains(K::NULL).then_some("null"));
    let mut members = match types.as_slice() {
        [] => Members::default(),
        [one] => Members::default().with("type", *one),
        many => Members::default().with("type", Node::List(many.iter().map(|t| (*t).into()).collect())),
    };
    if let Some(format) = format {
        members = members.with("format", format);
    }
    if object {
        let fields = tree.children.iter().filter(|(k, _)| *k != "*");
        let (maps, fields): (Vec<_>, Vec<_>) = fields.partition(|(k, _)| is_placeholder(k));
        let objects = tree.learned.map_or(u64::MAX, |l| l.values);
        let required =
            fields.iter().filter(|(_, t)| !partial && t.learned.is_some_and(|l| l.values >= objects));
        let required = required.map(|(name, _)| unescaped(name).into()).collect();
        let properties = fields.iter().map(|(name, t)| (unescaped(name), tree_schema(t, partial))).collect();
        members =
            members.with_any("properties", Node::Map(properties)).with_any("required", Node::List(required));
        match maps.as_slice() {
            [] => {}
            [(_, one)] => members = members.with("additionalProperties", tree_schema(one, partial)),
            _ => members = members.with("additionalProperties", Node::Bool(true)),
        }
    }
    if array {
        let items = element.map_or(Node::Map(Vec::new()), |e| tree_schema(e, partial));
        members = members.with_any("items", items);
    }
    members.into()
}

/// Tells whether a step of a pointer stands for members whose names are data. A name as it was sent has no braces.
fn is_placeholder(step: &str) -> bool {
    step.starts_with('{') && step.find('}') == Some(step.len() - 1)
}

fn unescaped(step: &str) -> String {
    step.replace("~2", "*").replace("~1", "/").replace("~0", "~")
}

/// Appends `node` as block YAML 1.2, `indent` spaces in.
fn yaml(node: &Node, indent: usize, out: &mut String) {
    match node {
        Node::Map(members) if !members.is_empty() => {
            for (key, value) in members {
                out.extend(std::iter::repeat_n(' ', indent));
                yaml_text(key, out);
                out.push(':');
                yaml_value(value, indent, out);
            }
        }
        Node::List(items) if !items.is_empty() => {
            for item in items {
                let start = out.len() + indent;
                match item {
                    Node::Map(inside) if !inside.is_empty() => {
                        yaml(item, indent + 2, out);
                        // The dash stands where the first member's indentation is.
                        out.replace_range(start..=start, "-");
                    }
                    _ => {
                        out.extend(std::iter::repeat_n(' ', indent));
                        out.push('-');
                        yaml_value(item, indent, out);
                    }
                }
            }
        }
        _ => yaml_value(node, indent, out),
    }
}

fn yaml_value(value: &Node, indent: usize, out: &mut String) {
    match value {
        Node::Map(members) if members.is_empty() => out.push_str(" {}\n"),
        Node::List(items) if items.is_empty() => out.push_str(" []\n"),
        Node::Map(_) | Node::List(_) => {
            out.push('\n');
            yaml(value, indent + 2, out);
        }
        Node::Bool(value) => out.push_str(if *value { " true\n" } else { " false\n" }),
        Node::Number(value) => {
            out.push(' ');
            out.push_str(&value.to_string());
            out.push('\n');
        }
        Node::Text(text) => {
            out.push(' ');
            yaml_text(text, out);
            out.push('\n');
        }
    }
}

/// Appends a text: plain where nobody could take it for anything else, in double quotes otherwise.
fn yaml_text(text: &str, out: &mut String) {
    // What YAML 1.1 takes for a truth value, too.
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'/'))
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    if plain {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ if c.is_alphanumeric() => out.push(c),
            _ => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out.push('"');
}
