//! The receiver's HTTP side.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::serve::{IncomingStream, Listener};
use offpath_types::Action;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, Sleep};

use super::applier::{Begun, Change, Job, Outcome, keeps};
use super::state::Block;
use super::stateless::Outputs;
use super::{Message, ReceiverConfig, ReceiverCounters, Subject, interpret};
use crate::webhook::{self, Headers, same_text};
use crate::{AddressSet, DecisionRecord, clock};

/// How long a body may take to arrive.
const BODY_MAX: Duration = Duration::from_secs(10);
/// A connection that sends nothing for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a stop waits for what is under way.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Counters that both threads bump, rarely.
#[derive(Default)]
pub(super) struct Shared(Mutex<ReceiverCounters>);

impl Shared {
    pub(super) fn bump(&self, change: impl FnOnce(&mut ReceiverCounters)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn snapshot(&self) -> ReceiverCounters {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Site {
    pub(super) config: Arc<ReceiverConfig>,
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) outputs: Arc<Outputs>,
    pub(super) shared: Arc<Shared>,
}

/// A site with what is derived from its configuration once.
struct Desk {
    site: Site,
    allow: AddressSet,
}

pub(super) async fn serve(site: Site, listener: std::net::TcpListener, mut stopped: watch::Receiver<bool>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(inner) => Limited { inner, permits: Arc::new(Semaphore::new(site.config.connections_max.max(1))) },
        Err(error) => {
            tracing::error!(%error, "the listening socket cannot be used");
            return;
        }
    };
    let allow = AddressSet::new(&site.config.allow);
    let desk = Arc::new(Desk { site, allow });
    let router = Router::new()
        .route("/v1/blocks", get(list))
        .route("/v1/blocks/{id}", axum::routing::delete(undo))
        .route("/metrics", get(metrics))
        .fallback(receive)
        .with_state(desk);
    let mut stopping = stopped.clone();
    let server = axum::serve(listener, router.into_make_service_with_connect_info::<Caller>())
        .with_graceful_shutdown(async move {
            let _ = stopped.wait_for(|s| *s).await;
        });
    let cut = async {
        let _ = stopping.wait_for(|s| *s).await;
        tokio::time::sleep(STOP_MAX).await;
    };
    tokio::select! {
        result = server.into_future() => {
            if let Err(error) = result {
                tracing::error!(%error, "receiving ended");
            }
        }
        () = cut => {}
    }
}

async fn receive(State(desk): State<Arc<Desk>>, method: Method, headers: HeaderMap, body: Body) -> Response {
    if method != Method::POST {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "webhooks are sent with POST");
    }
    desk.bump(|c| c.requests_total += 1);
    let read = axum::body::to_bytes(body, desk.site.config.body_bytes_max);
    let body = match tokio::time::timeout(BODY_MAX, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            desk.bump(|c| c.invalid_total += 1);
            return answer(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long, or broke off");
        }
        Err(_) => {
            desk.bump(|c| c.failed_total += 1);
            return answer(StatusCode::REQUEST_TIMEOUT, "the body took too long");
        }
    };
    // A task of its own: a sender that hangs up does not leave a decision half applied.
    match tokio::spawn(handle(Arc::clone(&desk), headers, body)).await {
        Ok(response) => response,
        Err(_) => {
            desk.bump(|c| c.failed_total += 1);
            answer(StatusCode::INTERNAL_SERVER_ERROR, "the receiver failed")
        }
    }
}

async fn handle(desk: Arc<Desk>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let signed = Headers {
        id: text(webhook::ID_HEADER),
        timestamp: text(webhook::TIMESTAMP_HEADER),
        signature: text(webhook::SIGNATURE_HEADER),
    };
    let config = &desk.site.config;
    let now_secs = clock::wall_ms() / 1000;
    if let Err(error) = webhook::verify(&config.secrets, signed, &body, now_secs, config.tolerance_secs) {
        desk.bump(|c| c.unauthenticated_total += 1);
        return answer(StatusCode::UNAUTHORIZED, &error.to_string());
    }
    let message = match interpret(&body) {
        Ok(message) => message,
        Err(problem) => {
            desk.bump(|c| c.invalid_total += 1);
            return answer(StatusCode::BAD_REQUEST, problem);
        }
    };
    let id = signed.id.to_owned();
    match desk.ask(|reply| Job::Begin { id: id.clone(), reply }).await {
        Some(Begun::Fresh) => {}
        Some(Begun::Duplicate) => {
            desk.bump(|c| c.duplicate_total += 1);
            return Json(json!({"id": id, "duplicate": true})).into_response();
        }
        Some(Begun::Unwritable) => {
            desk.bump(|c| c.failed_total += 1);
            return later("the receiver's state cannot be written");
        }
        Some(Begun::Busy) | None => {
            desk.bump(|c| c.failed_total += 1);
            return later("the same id is being worked on");
        }
    }
    match message {
        Message::Other(line, rehearsal) => {
            let told = desk.site.outputs.tell(&line, rehearsal).await;
            desk.finish(id, Change::Nothing, told, Done::PassedOn).await
        }
        Message::Decision { record, action, subject } => desk.decide(id, *record, action, subject).await,
    }
}

/// Where an accepted request is counted.
#[derive(Clone, Copy)]
enum Done {
    Applied,
    DryRun,
    Allowlisted,
    Unblocked,
    PassedOn,
}

impl Desk {
    fn bump(&self, change: impl FnOnce(&mut ReceiverCounters)) {
        self.site.shared.bump(change);
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.site.jobs.send(job(reply)).await.ok()?;
        answer.await.ok()
    }

    async fn decide(&self, id: String, record: DecisionRecord, action: Action, subject: Subject) -> Response {
        let line = serde_json::to_string(&record).unwrap_or_default();
        if record.dry_run {
            tracing::info!(id = record.id, action = record.action, "a rehearsal; not applied");
            let told = self.site.outputs.tell(&line, true).await;
            return self.finish(id, Change::Nothing, told, Done::DryRun).await;
        }
        if action == Action::Unblock {
            let told = self.site.outputs.tell(&line, false).await;
            return self.finish(id, Change::Take { key: subject.key }, told, Done::Unblocked).await;
        }
        if !matches!(action, Action::Block | Action::Challenge) {
            if self.site.outputs.is_empty() {
                return self.refuse(id, "only a command or a log can take this action").await;
            }
            let told = self.site.outputs.tell(&line, false).await;
            return self.finish(id, Change::Nothing, told, Done::Applied).await;
        }
        let config = &self.site.config;
        if let Some(net) = &subject.net {
            let widest = if net.addr().is_ipv4() { config.prefix_v4_min } else { config.prefix_v6_min };
            if net.prefix_len() < widest {
                return self.refuse(id, "the prefix is wider than this receiver blocks").await;
            }
        }
        // Also where the match names more than an address: the address alone says whom it would hurt.
        let named = ["ip", "prefix"].iter().filter_map(|k| record.matches.get(*k)).filter_map(|v| {
            v.parse().ok().or_else(|| v.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from))
        });
        if subject.net.into_iter().chain(named).any(|net| self.allow.overlaps(&net)) {
            tracing::warn!(id = record.id, key = subject.key, "an allowlisted address; not applied");
            return self.finish(id, Change::Nothing, Vec::new(), Done::Allowlisted).await;
        }
        let now = clock::wall_ms();
        let ttl_secs = u64::from(record.ttl_secs).min(config.ttl_max_secs).max(1);
        let block = Block {
            record,
            net: subject.net,
            received_ms: now,
            expires_ms: now.saturating_add(ttl_secs.saturating_mul(1000)),
        };
        let kept = config.to.iter().any(|p| keeps(p, &block));
        if !kept && self.site.outputs.is_empty() {
            return self.refuse(id, "no provider here can hold this match and action").await;
        }
        let told = self.site.outputs.tell(&line, false).await;
        let change = Change::Put { key: subject.key, block: Box::new(block) };
        self.finish(id, change, told, Done::Applied).await
    }

    /// Ends the work on an id that can never be applied; a repeat is judged anew, since the configuration may
    /// have changed by then.
    async fn refuse(&self, id: String, why: &str) -> Response {
        let job = |reply| Job::Finish { id, remember: false, change: Change::Nothing, reply };
        let _ = self.ask(job).await;
        self.bump(|c| c.unsupported_total += 1);
        answer(StatusCode::UNPROCESSABLE_ENTITY, why)
    }

    async fn finish(
        &self,
        id: String,
        change: Change,
        told: Vec<(String, Result<(), String>)>,
        done: Done,
    ) -> Response {
        let remember = told.iter().all(|(_, result)| result.is_ok());
        let outcome = self.ask(|reply| Job::Finish { id: id.clone(), remember, change, reply }).await;
        let Outcome { providers, found } = match outcome {
            Some(Ok(outcome)) => outcome,
            Some(Err(problem)) => {
                self.bump(|c| c.failed_total += 1);
                return later(&problem);
            }
            None => {
                self.bump(|c| c.failed_total += 1);
                return later("the receiver is stopping");
            }
        };
        let mut each = Map::new();
        for (name, status) in providers {
            each.insert(name, Value::String(status));
        }
        for (name, result) in told {
            let status = result.map_or_else(|e| format!("failed: {e}"), |()| "applied".to_owned());
            each.insert(name, Value::String(status));
        }
        if !remember {
            self.bump(|c| c.failed_total += 1);
            let body = Json(json!({"id": id, "error": "a provider failed", "providers": each}));
            return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], body).into_response();
        }
        let (applied, note) = match done {
            Done::Applied => (true, None),
            Done::PassedOn => (true, None),
            Done::Unblocked => (found, None),
            Done::DryRun => (false, Some("dry_run")),
            Done::Allowlisted => (false, Some("allowlisted")),
        };
        self.bump(|c| match done {
            Done::Applied => c.applied_total += 1,
            Done::PassedOn => c.passed_on_total += 1,
            Done::Unblocked => c.undone_by_sender_total += 1,
            Done::DryRun => c.dry_run_total += 1,
            Done::Allowlisted => c.allowlisted_total += 1,
        });
        Json(json!({"id": id, "applied": applied, "reason": note, "providers": each})).into_response()
    }

    /// Tells whether a caller may see and undo.
    fn admits(&self, caller: Caller, headers: &HeaderMap) -> bool {
        match &self.site.config.admin_token {
            Some(token) => {
                let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
                given.and_then(|v| v.strip_prefix("Bearer ")).is_some_and(|given| same_text(given, token))
            }
            // A connection whose source is the address we listen on comes from this host too: no other host
            // can complete a handshake with it.
            None => {
                let ip = caller.0.ip().to_canonical();
                ip.is_loopback() || ip == self.site.config.listen.ip().to_canonical()
            }
        }
    }
}

async fn list(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    headers: HeaderMap,
) -> Response {
    if !desk.admits(caller, &headers) {
        return answer(StatusCode::FORBIDDEN, "not for you");
    }
    match desk.ask(|reply| Job::List { reply }).await {
        Some(blocks) => Json(blocks).into_response(),
        None => later("the receiver is stopping"),
    }
}

async fn undo(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    if !desk.admits(caller, &headers) {
        return answer(StatusCode::FORBIDDEN, "not for you");
    }
    match desk.ask(|reply| Job::Undo { id: id.clone(), reply }).await {
        Some(true) => Json(json!({"id": id, "undone": true})).into_response(),
        Some(false) => answer(StatusCode::NOT_FOUND, "no decision with this id is in force"),
        None => later("the receiver is stopping"),
    }
}

async fn metrics(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    headers: HeaderMap,
) -> Response {
    if !desk.admits(caller, &headers) {
        return answer(StatusCode::FORBIDDEN, "not for you");
    }
    let mut text = String::new();
    for (name, value) in desk.site.shared.snapshot().fields() {
        text.push_str(&format!("# TYPE receive_{name} counter\nreceive_{name} {value}\n"));
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn answer(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({"error": error}))).into_response()
}

fn later(error: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], Json(json!({"error": error})))
        .into_response()
}

/// Who is calling.
#[derive(Clone, Copy)]
struct Caller(SocketAddr);

impl Connected<IncomingStream<'_, Limited>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Limited>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// A listener that holds at most so many connections; the next waits in the system's queue.
struct Limited {
    inner: TcpListener,
    permits: Arc<Semaphore>,
}

impl Listener for Limited {
    type Io = Guarded;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guarded, SocketAddr) {
        loop {
            // The semaphore is never closed; were it, the pause below keeps this from spinning.
            if let Ok(permit) = self.permits.clone().acquire_owned().await {
                match self.inner.accept().await {
                    Ok((stream, addr)) => {
                        let _ = stream.set_nodelay(true);
                        let idle = Box::pin(tokio::time::sleep(IDLE_MAX));
                        return (Guarded { stream, idle, _permit: permit }, addr);
                    }
                    Err(error) => tracing::warn!(%error, "a connection could not be accepted"),
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection that gives up its place when nothing arrives for a while.
struct Guarded {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.idle.as_mut().reset(Instant::now() + IDLE_MAX);
        } else if self.idle.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
