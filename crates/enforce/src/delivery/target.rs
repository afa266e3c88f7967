//! The delivery thread: a task per target that sends, waits, and sends again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{ParkReason, Retry, Shared, Target};
use crate::outbox::{Ended, Row};
use crate::{clock, webhook};

/// Bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: usize = 4096;
/// Characters of an answer that are kept with a parked webhook.
const ANSWER_KEPT: usize = 200;

/// Rows on their way from the outbox thread to a target's task; bounded by the outbox thread.
#[derive(Default)]
pub(super) struct Queue {
    rows: Mutex<VecDeque<Row>>,
    ready: Notify,
}

impl Queue {
    pub(super) fn push(&self, row: Row) {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).push_back(row);
        self.ready.notify_one();
    }

    fn take(&self) -> VecDeque<Row> {
        std::mem::take(&mut *self.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs every target's task until `stopped` says so.
pub(super) fn run(
    runtime: &tokio::runtime::Runtime,
    shared: &Arc<Shared>,
    clients: Vec<reqwest::Client>,
    stopped: &watch::Receiver<bool>,
) {
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for (at, client) in clients.into_iter().enumerate() {
            let mut stopped = stopped.clone();
            let shared = Arc::clone(shared);
            tasks.spawn(async move {
                let Some(mut lane) = Lane::new(&shared, at, client) else { return };
                tokio::select! {
                    () = lane.work() => {}
                    _ = stopped.wait_for(|s| *s) => {}
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    });
}

/// How an attempt ended.
enum Outcome {
    Delivered,
    Refused(ParkReason, String),
    /// Try again; `gate` says that the whole target should be left alone for a while.
    Failed {
        cause: String,
        after: Option<Duration>,
        gate: bool,
    },
}

// Invariant: an entity is a key of `chains` exactly while one of its rows is in `ready`, in `waiting` or under
// way; its later rows are in the chain, in order.
struct Lane {
    shared: Arc<Shared>,
    at: usize,
    client: reqwest::Client,
    ready: VecDeque<Row>,
    waiting: BTreeMap<(Instant, u64), Row>,
    chains: HashMap<u64, VecDeque<Row>, FixedState>,
    under_way: JoinSet<(Row, Outcome)>,
    /// No attempt before this.
    gate: Option<Instant>,
    /// Failures of the target as a whole, in a row.
    failures: u32,
}

impl Lane {
    fn new(shared: &Arc<Shared>, at: usize, client: reqwest::Client) -> Option<Self> {
        shared.targets.get(at)?;
        Some(Self {
            shared: Arc::clone(shared),
            at,
            client,
            ready: VecDeque::new(),
            waiting: BTreeMap::new(),
            chains: HashMap::with_hasher(FixedState::default()),
            under_way: JoinSet::new(),
            gate: None,
            failures: 0,
        })
    }

    async fn work(&mut self) {
        let shared = Arc::clone(&self.shared);
        let Some(queue) = shared.queues.get(self.at) else { return };
        loop {
            for row in queue.take() {
                self.admit(row);
            }
            let wake = self.start_what_can_start();
            tokio::select! {
                () = queue.ready.notified() => {}
                Some(ended) = self.under_way.join_next(), if !self.under_way.is_empty() => {
                    if let Ok((row, outcome)) = ended {
                        self.settle(row, outcome);
                    }
                }
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    fn admit(&mut self, row: Row) {
        if row.entity != 0 {
            if let Some(chain) = self.chains.get_mut(&row.entity) {
                chain.push_back(row);
                return;
            }
            self.chains.insert(row.entity, VecDeque::new());
        }
        self.ready.push_back(row);
    }

    /// Starts attempts while there is room; returns when to look again.
    fn start_what_can_start(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if let Some(gate) = self.gate {
            if gate > now {
                return Some(gate);
            }
            self.gate = None;
        }
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                break;
            }
            self.ready.push_back(entry.remove());
        }
        let max = self.target().map_or(1, |t| t.max_in_flight.max(1));
        // A target that just failed gets one attempt at a time until one succeeds.
        let room = if self.failures > 0 { 1 } else { max };
        let wall_ms = clock::wall_ms();
        while self.under_way.len() < room {
            let Some(row) = self.ready.pop_front() else { break };
            if row.expires_ms != 0 && wall_ms >= row.expires_ms {
                self.shared.with_target(self.at, |s| {
                    s.expired += 1;
                    s.pending = s.pending.saturating_sub(1);
                });
                self.end(row, None);
                continue;
            }
            self.start(row);
        }
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    fn start(&mut self, row: Row) {
        let Some(target) = self.target() else { return };
        let seconds = clock::wall_ms() / 1000;
        let signature = webhook::sign(&target.secrets, &row.id, seconds, row.body.as_bytes());
        let request = self
            .client
            .post(&target.url)
            .header(CONTENT_TYPE, "application/json")
            .header(webhook::ID_HEADER, &*row.id)
            .header(webhook::TIMESTAMP_HEADER, seconds)
            .header(webhook::SIGNATURE_HEADER, signature)
            .body(Bytes::from_owner(BodyText(Arc::clone(&row.body))));
        self.under_way.spawn(async move {
            let outcome = attempt(request).await;
            (row, outcome)
        });
    }

    fn settle(&mut self, mut row: Row, outcome: Outcome) {
        match outcome {
            Outcome::Delivered => {
                self.failures = 0;
                let mut stats = self.shared.stats();
                if let Some(offered) = row.offered {
                    let us = clock::instant().saturating_duration_since(offered).as_micros();
                    let us = u64::try_from(us).unwrap_or(u64::MAX).max(1);
                    stats.decision_to_delivered_us.saturating_record(us);
                }
                if let Some(s) = stats.targets.get_mut(self.at) {
                    s.delivered += 1;
                    s.pending = s.pending.saturating_sub(1);
                }
                drop(stats);
                self.end(row, None);
            }
            Outcome::Refused(reason, cause) => {
                self.failures = 0;
                self.park(row, reason, cause);
            }
            Outcome::Failed { cause, after, gate } => {
                row.attempts += 1;
                let retry = self.shared.retry;
                let pause = |n: u32| after.map_or_else(|| backoff(&retry, n), |d| d.min(ms(retry.max_ms)));
                if gate {
                    self.failures += 1;
                    self.gate = Some(Instant::now() + pause(self.failures));
                }
                let age_ms = clock::wall_ms().saturating_sub(row.accepted_ms);
                if age_ms >= retry.give_up_after_secs.saturating_mul(1000) {
                    let text = format!("gave up after {} attempts: {cause}", row.attempts);
                    self.park(row, ParkReason::GaveUp, text);
                    return;
                }
                self.shared.with_target(self.at, |s| {
                    s.retried += 1;
                    s.last_error = Some(cause);
                });
                let at = Instant::now() + pause(row.attempts);
                self.waiting.insert((at, row.seq), row);
            }
        }
    }

    fn park(&mut self, row: Row, reason: ParkReason, cause: String) {
        tracing::warn!(target = self.target().map(|t| t.name.as_str()), id = %row.id, %cause, "a webhook is parked");
        self.shared.with_target(self.at, |s| {
            *s.parked.entry(reason).or_default() += 1;
            s.pending = s.pending.saturating_sub(1);
            s.last_error = Some(cause.clone());
        });
        self.end(row, Some(format!("{reason}: {cause}")));
    }

    fn end(&mut self, row: Row, parked: Option<String>) {
        if row.entity != 0 {
            match self.chains.get_mut(&row.entity).and_then(VecDeque::pop_front) {
                Some(next) => self.ready.push_front(next),
                None => {
                    self.chains.remove(&row.entity);
                }
            }
        }
        self.shared.end(Ended { target: self.at, row, parked });
    }

    fn target(&self) -> Option<&Target> {
        self.shared.targets.get(self.at)
    }
}

/// A row's body as the bytes of a request, without a copy for each attempt.
struct BodyText(Arc<str>);

impl AsRef<[u8]> for BodyText {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

async fn attempt(request: reqwest::RequestBuilder) -> Outcome {
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(e) if e.is_builder() => return Outcome::Refused(ParkReason::Refused(0), error_text(&e)),
        Err(e) => return Outcome::Failed { cause: error_text(&e), after: None, gate: true },
    };
    let status = response.status();
    let after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| retry_after(v, clock::wall_ms() / 1000));
    // Read to the end where that is cheap, so that the connection can be used again.
    let mut answer = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        answer.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX)]);
        if answer.len() > ANSWER_BYTES_MAX {
            break;
        }
    }
    if status.is_success() {
        return Outcome::Delivered;
    }
    let said: String =
        String::from_utf8_lossy(&answer).chars().filter(|c| !c.is_control()).take(ANSWER_KEPT).collect();
    let cause = format!("HTTP {} {said}", status.as_u16());
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Outcome::Failed { cause, after, gate: true }
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => Outcome::Failed { cause, after, gate: false },
        s if s.is_server_error() => Outcome::Failed { cause, after, gate: false },
        s if s.is_redirection() => Outcome::Refused(ParkReason::Redirected(s.as_u16()), cause),
        s => Outcome::Refused(ParkReason::Refused(s.as_u16()), cause),
    }
}

/// Writes an error with its causes, without the URL (it may hold credentials).
fn error_text(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        "no connection".to_owned()
    } else {
        "request failed".to_owned()
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Reads Retry-After: seconds, or an HTTP date (RFC 9110 §10.2.3).
fn retry_after(value: &str, now_secs: u64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(secs) = value.parse::<u64>() {
        return Some(Duration::from_secs(secs));
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp().as_second();
    Some(Duration::from_secs(u64::try_from(at).ok()?.saturating_sub(now_secs)))
}

/// Returns how long to wait after the `n`th failure.
fn backoff(retry: &Retry, n: u32) -> Duration {
    let doubled = retry.first_ms.saturating_mul(1 << n.saturating_sub(1).min(30));
    let whole = doubled.min(retry.max_ms).max(1) as f64;
    let mut random = [0u8; 4];
    // Without randomness the wait is merely regular.
    let _ = getrandom::fill(&mut random);
    let share = f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX);
    ms((whole * (1.0 - retry.jitter.clamp(0.0, 1.0) * share)) as u64)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit() {
        let retry = Retry { first_ms: 100, max_ms: 1000, give_up_after_secs: 1, jitter: 0.0 };
        let waits: Vec<u128> = [1, 2, 3, 4, 5, 99].iter().map(|n| backoff(&retry, *n).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        let jittered = Retry { jitter: 0.5, ..retry };
        for _ in 0..100 {
            let wait = backoff(&jittered, 3).as_millis();
            assert!((200..=400).contains(&wait), "{wait}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (value, want) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 08:48:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(value, 784_111_740).map(|d| d.as_secs()), want, "{value}");
        }
    }
}
