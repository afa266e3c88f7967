//! `offpath receive`: checks decisions that arrive and puts them into force beside the WAF.
//!
//! ```text
//! POST ─▶ signature, age ─▶ seen before? ─▶ dry run, allowlist ─▶ commands, log ─▶ applier thread ─▶ 2xx
//!                                                                  HAProxy map, nginx file, then the store
//! ```
//! - **Answers.** 200: taken (also for a repeat, a rehearsal, an allowlisted address). 400, 401, 413, 422: never
//!   try again. 503: try again. So an at-least-once sender ends every decision in exactly one place.
//! - **Time** is the wall's: a decision holds from its receipt for `ttl_secs`, at most `ttl_max_secs`. Its own
//!   time is the packet's and may be long ago in a replay.
//! - **State** is the list of what should be in force; it is durable. HAProxy and nginx are made to agree with it
//!   at the start, with each decision, and every `reconcile_ms` (HAProxy forgets its map when it restarts). The
//!   map and the file belong to the receiver: entries that it does not know are removed.
//! - **Pending**: a block is also taken (200) where a list does not hold it yet: HAProxy is down, or nginx has yet
//!   to reload. The answer says so per provider, and it is tried until it is in force or its time is over.
//! - **One match, one entry**: a later decision about the same match replaces the earlier one and its time.
//! - **Nothing is passed on as text**: what reaches HAProxy or nginx was parsed as an address and printed again.
//!   A match that a provider cannot hold exactly is never widened: it is `unsupported` there.
//!
//! `requests = applied + duplicate + dry_run + allowlisted + unsupported + invalid + unauthenticated + failed +
//! passed_on + undone_by_sender`.

mod applier;
mod haproxy;
mod http;
mod nginx;
mod program;
mod state;
mod stateless;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;
use offpath_types::Action;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::DecisionRecord;
use crate::webhook::Secret;

/// How to receive.
#[derive(Clone)]
pub struct ReceiverConfig {
    /// Where to listen. Default: 127.0.0.1:8790.
    pub listen: SocketAddr,
    /// Secrets of the senders; any of them may have signed.
    pub secrets: Vec<Secret>,
    /// How old, or how far ahead, a webhook may be.
    pub tolerance_secs: u64,
    /// Where what is in force is kept; without one it is in memory and lost with the process.
    pub state_path: Option<PathBuf>,
    /// Addresses that are never blocked, whoever says so.
    pub allow: Vec<IpNet>,
    /// Where decisions go.
    pub to: Vec<ProviderConfig>,
    /// Bearer token of the admin endpoints; without one they answer loopback only.
    pub admin_token: Option<Zeroizing<String>>,
    /// The longest time that a decision holds here.
    pub ttl_max_secs: u64,
    /// The widest IPv4 prefix that may be blocked, as a length. Default: 16.
    pub prefix_v4_min: u8,
    /// The widest IPv6 prefix that may be blocked, as a length. Default: 32.
    pub prefix_v6_min: u8,
    /// Decisions in force at a time; more are answered 503.
    pub blocks_max: usize,
    /// How long an id is remembered, so that a repeat is recognised.
    pub ids_keep_secs: u64,
    /// Ids remembered; the oldest go first.
    pub ids_max: u64,
    /// Bytes of one webhook.
    pub body_bytes_max: usize,
    /// Connections at a time; further ones wait to be accepted.
    pub connections_max: usize,
    /// How often HAProxy is compared with the state.
    pub reconcile_ms: u64,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8790)),
            secrets: Vec::new(),
            tolerance_secs: 300,
            state_path: None,
            allow: Vec::new(),
            to: Vec::new(),
            admin_token: None,
            ttl_max_secs: 86_400,
            prefix_v4_min: 16,
            prefix_v6_min: 32,
            blocks_max: 200_000,
            ids_keep_secs: 7 * 86_400,
            ids_max: 1_000_000,
            body_bytes_max: 256 << 10,
            connections_max: 256,
            reconcile_ms: 3_000,
        }
    }
}

/// Something that decisions are applied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderConfig {
    /// HAProxy's runtime socket: `haproxy:/run/haproxy.sock?map=/etc/haproxy/offpath.map` (or `?acl=…`).
    Haproxy {
        /// The stats socket, level admin.
        socket: PathBuf,
        /// The map or ACL file as HAProxy's configuration names it.
        list: String,
        /// It is a map (value: the action) rather than an ACL.
        map: bool,
    },
    /// A file of `deny` lines: `nginx:/etc/nginx/offpath-deny.conf?reload=nginx -s reload`.
    Nginx {
        /// The file.
        path: PathBuf,
        /// Run by `/bin/sh -c` after the file changed; everything after `reload=` is the command.
        reload: Option<String>,
    },
    /// A program that gets the decision as one JSON line on standard input: `command:/path/prog`.
    Command {
        /// The program; it is run without arguments.
        program: PathBuf,
    },
    /// A file of JSON lines: `log:/path.jsonl`, or `log:-` for standard output.
    Log {
        /// The file; `None` is standard output.
        path: Option<PathBuf>,
    },
}

/// Why a text names no provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no provider: {problem}")]
pub struct ProviderError {
    text: String,
    problem: &'static str,
}

impl FromStr for ProviderConfig {
    type Err = ProviderError;

    fn from_str(text: &str) -> Result<Self, ProviderError> {
        let wrong = |problem| ProviderError { text: text.to_owned(), problem };
        let (kind, rest) = text
            .split_once(':')
            .ok_or_else(|| wrong("write `haproxy:`, `nginx:`, `command:` or `log:` and a path"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if path.is_empty() {
            return Err(wrong("the path is missing"));
        }
        let file = PathBuf::from(path);
        match kind {
            "haproxy" => {
                let (map, list) = match query.split_once('=') {
                    Some(("map", list)) => (true, list),
                    Some(("acl", list)) => (false, list),
                    None if query.is_empty() => (true, "/etc/haproxy/offpath.map"),
                    _ => return Err(wrong("after `?` comes `map=` or `acl=` and a path")),
                };
                let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-@+".contains(&b);
                if list.is_empty() || !list.bytes().all(plain) {
                    return Err(wrong("the map's path may hold letters, digits and /._-@+ only"));
                }
                Ok(Self::Haproxy { socket: file, list: list.to_owned(), map })
            }
            "nginx" => match query.strip_prefix("reload=") {
                Some("") => Err(wrong("the reload command is missing")),
                Some(command) => Ok(Self::Nginx { path: file, reload: Some(command.to_owned()) }),
                None if query.is_empty() => Ok(Self::Nginx { path: file, reload: None }),
                None => Err(wrong("after `?` comes `reload=` and a command")),
            },
            "command" | "log" if !query.is_empty() => Err(wrong("it takes no options")),
            "command" => Ok(Self::Command { program: file }),
            "log" => Ok(Self::Log { path: (path != "-").then_some(file) }),
            _ => Err(wrong("write `haproxy:`, `nginx:`, `command:` or `log:` and a path")),
        }
    }
}

impl fmt::Display for ProviderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Haproxy { socket, list, map } => {
                write!(f, "haproxy:{}?{}={list}", socket.display(), if *map { "map" } else { "acl" })
            }
            Self::Nginx { path, .. } => write!(f, "nginx:{}", path.display()),
            Self::Command { program } => write!(f, "command:{}", program.display()),
            Self::Log { path: Some(path) } => write!(f, "log:{}", path.display()),
            Self::Log { path: None } => f.write_str("log:-"),
        }
    }
}

/// Why receiving cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// No secret: anybody could block anybody.
    #[error("receiving needs at least one webhook secret")]
    NoSecret,
    /// No provider: nothing would ever be applied.
    #[error("receiving needs at least one provider (`log:-` at the least)")]
    NoProvider,
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {problem}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        problem: std::io::Error,
    },
    /// The state cannot be opened.
    #[error("state {}: {problem}", path.display())]
    State {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A log cannot be written.
    #[error("log {}: {problem}", path.display())]
    Log {
        /// Its file.
        path: PathBuf,
        /// What the system says.
        problem: std::io::Error,
    },
    /// The system gave no thread or runtime.
    #[error("receiving cannot start: {0}")]
    System(#[from] std::io::Error),
}

offpath_types::counters! {
    /// What receiving did; the equation is in the module's documentation.
    pub struct ReceiverCounters {
        /// Webhooks that arrived.
        requests_total,
        /// Blocks, challenges, tags, reviews and notifications put into force or passed on.
        applied_total,
        /// Repeats of an id.
        duplicate_total,
        /// Rehearsals.
        dry_run_total,
        /// Matches that hold an address of the allowlist.
        allowlisted_total,
        /// Decisions that no provider can hold.
        unsupported_total,
        /// Bodies that are no decision, or one that may not be applied.
        invalid_total,
        /// Signature, time or headers wrong.
        unauthenticated_total,
        /// Answered 408, 500 or 503: the sender was slow, or a provider, the store, the space or we failed.
        failed_total,
        /// Other types (accounts at risk, alarms) passed to commands and logs.
        passed_on_total,
        /// Blocks taken back by an `unblock`.
        undone_by_sender_total,
        /// Blocks undone by a person.
        undone_by_admin_total,
        /// Blocks whose time ended.
        expired_total,
        /// Times a provider could not be made to agree with the state; it is tried again.
        provider_failures_total,
        /// Entries that HAProxy lacked, or had without our knowing, and that were put right.
        reconciled_total,
    }
}

/// One decision in force, as the admin endpoint lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockRecord {
    /// Id of the latest decision about the match.
    pub id: String,
    /// `block` or `challenge`.
    pub action: String,
    /// Whom it is about.
    #[serde(rename = "match")]
    pub matches: BTreeMap<String, String>,
    /// The policy that made it.
    pub policy: String,
    /// With what confidence.
    pub confidence: u8,
    /// When it was received, RFC 3339.
    pub received: String,
    /// When it ends, RFC 3339.
    pub expires: String,
    /// How long that is from now.
    pub expires_in_secs: u64,
}

/// A running receiver.
pub struct Receiver {
    addr: SocketAddr,
    counters: Arc<http::Shared>,
    stop: tokio::sync::watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Receiver {
    /// Opens the state, listens, and brings the providers into line.
    pub fn start(config: ReceiverConfig) -> Result<Self, ReceiverError> {
        if config.secrets.is_empty() {
            return Err(ReceiverError::NoSecret);
        }
        if config.to.is_empty() {
            return Err(ReceiverError::NoProvider);
        }
        for provider in &config.to {
            if let ProviderConfig::Log { path: Some(path) } = provider {
                stateless::open_log(path)
                    .map_err(|problem| ReceiverError::Log { path: path.clone(), problem })?;
            }
        }
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (web, work) = (runtime()?, runtime()?);
        let listener = std::net::TcpListener::bind(config.listen)
            .and_then(|l| l.set_nonblocking(true).map(|()| l))
            .map_err(|problem| ReceiverError::Listen { address: config.listen, problem })?;
        let addr = listener.local_addr()?;
        let state = state::State::open(&config).map_err(|problem| ReceiverError::State {
            path: config.state_path.clone().unwrap_or_default(),
            problem,
        })?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let config = Arc::new(config);
        let shared = Arc::new(http::Shared::default());
        let outputs = Arc::new(stateless::Outputs::new(&config.to));
        let (jobs, inbox) = tokio::sync::mpsc::channel(1024);
        let applier = applier::Applier::new(config.clone(), state, outputs.clone(), shared.clone());
        let site = http::Site { config, jobs, outputs, shared: shared.clone() };
        let spawn = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let applier_thread = spawn("offpath-apply").spawn(move || work.block_on(applier.run(inbox)))?;
        let web_thread =
            spawn("offpath-receive").spawn(move || web.block_on(http::serve(site, listener, stopped)))?;
        Ok(Self { addr, counters: shared, stop, threads: vec![web_thread, applier_thread] })
    }

    /// Returns the address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the counters.
    pub fn counters(&self) -> ReceiverCounters {
        self.counters.snapshot()
    }

    /// Receives until `shutdown` is set (looked at ten times a second), then does as [`Receiver::stop`].
    pub fn stop_on(self, shutdown: &AtomicBool) -> ReceiverCounters {
        while !shutdown.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        self.stop()
    }

    /// Stops listening, finishes what is under way (at most a few seconds), and returns the counters.
    /// What is in force stays in force in HAProxy and nginx, and in the state.
    pub fn stop(mut self) -> ReceiverCounters {
        self.shut_down();
        self.counters.snapshot()
    }

    fn shut_down(&mut self) {
        let _ = self.stop.send(true);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Why an admin request failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No receiver there, or no answer.
    #[error("no answer from the receiver at {addr}: {problem}")]
    Unreachable {
        /// The address.
        addr: String,
        /// What went wrong.
        problem: String,
    },
    /// It wants another token, or a caller on loopback.
    #[error("the receiver does not let us: set its admin token, or call it from its own machine")]
    Forbidden,
    /// No such decision is in force.
    #[error("no decision with this id is in force")]
    NotFound,
    /// Anything else.
    #[error("the receiver answered {0}")]
    Status(u16),
}

/// Asks the receiver at `addr` (`host:port`) what is in force.
pub fn list(addr: &str, token: Option<&str>) -> Result<Vec<BlockRecord>, AdminError> {
    let text = admin(addr, token, reqwest::Method::GET, "")?;
    serde_json::from_str(&text)
        .map_err(|e| AdminError::Unreachable { addr: addr.to_owned(), problem: e.to_string() })
}

/// Has the receiver at `addr` undo the decision `id`.
pub fn undo(addr: &str, token: Option<&str>, id: &str) -> Result<(), AdminError> {
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err(AdminError::NotFound);
    }
    admin(addr, token, reqwest::Method::DELETE, &format!("/{id}")).map(|_| ())
}

fn admin(addr: &str, token: Option<&str>, method: reqwest::Method, path: &str) -> Result<String, AdminError> {
    let unreachable =
        |e: &dyn fmt::Display| AdminError::Unreachable { addr: addr.to_owned(), problem: e.to_string() };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| unreachable(&e))?;
    runtime.block_on(async {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .timeout(Duration::from_secs(10))
            .build()
            .map_err(|e| unreachable(&e))?;
        let mut request = client.request(method, format!("http://{addr}/v1/blocks{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(|e| unreachable(&e))?;
        match answer.status().as_u16() {
            200..=299 => answer.text().await.map_err(|e| unreachable(&e)),
            401 | 403 => Err(AdminError::Forbidden),
            404 => Err(AdminError::NotFound),
            other => Err(AdminError::Status(other)),
        }
    })
}

/// What a webhook's body means.
#[derive(Debug)]
enum Message {
    Decision {
        record: Box<DecisionRecord>,
        action: Action,
        subject: Subject,
    },
    /// Anything else that was signed: the line, and whether it is a rehearsal.
    Other(String, bool),
}

/// Whom a decision is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    /// Equal for equal matches.
    key: String,
    /// What it is in terms of addresses alone; `None` where the match needs more than that.
    net: Option<IpNet>,
}

#[derive(Deserialize)]
struct Envelope {
    r#type: String,
    data: serde_json::Value,
}

/// Reads a webhook's body; the error says what is wrong with it.
fn interpret(body: &[u8]) -> Result<Message, &'static str> {
    let envelope: Envelope =
        serde_json::from_slice(body).map_err(|_| "the body is no webhook with `type` and `data`")?;
    if envelope.r#type != "offpath.decision.v1" {
        // Printed again: one line, whatever white space the sender put in.
        let rehearsal = envelope.data.get("dry_run").and_then(serde_json::Value::as_bool).unwrap_or(false);
        return Ok(Message::Other(envelope.data.to_string(), rehearsal));
    }
    let record: DecisionRecord =
        serde_json::from_value(envelope.data).map_err(|_| "`data` is no decision")?;
    let action = record.action().ok_or("the action is unknown")?;
    if record.id.is_empty() || record.id.len() > 128 {
        return Err("the decision's id is empty or too long");
    }
    let holds = matches!(action, Action::Block | Action::Challenge | Action::Unblock);
    if holds && record.matches.is_empty() {
        return Err("a block needs a match");
    }
    if record.matches.len() > 16 || record.matches.iter().any(|(k, v)| k.len() > 64 || v.len() > 4096) {
        return Err("the match is too long");
    }
    let net = match record.matches.iter().next() {
        Some((kind, value)) if record.matches.len() == 1 => match kind.as_str() {
            "ip" => {
                let ip: IpAddr = value.parse().map_err(|_| "the match's `ip` is no address")?;
                Some(IpNet::from(ip.to_canonical()))
            }
            "prefix" => {
                let net: IpNet = value.parse().map_err(|_| "the match's `prefix` is no network")?;
                Some(net.trunc())
            }
            _ => None,
        },
        _ => None,
    };
    let key = match &net {
        Some(net) => net.to_string(),
        None => serde_json::to_string(&record.matches).unwrap_or_default(),
    };
    Ok(Message::Decision { record: Box::new(record), action, subject: Subject { key, net } })
}

pub(crate) fn fuzz_body(data: &[u8]) {
    if let Ok(Message::Decision { subject: Subject { key, net: Some(net) }, .. }) = interpret(data) {
        // What goes to a provider is an address and nothing else.
        assert!(key.parse::<IpNet>().is_ok_and(|again| again == net));
        assert!(key.bytes().all(|b| b.is_ascii_hexdigit() || b"./:".contains(&b)));
    }
}

#[cfg(test)]
mod tests;
