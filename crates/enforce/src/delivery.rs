//! Delivers events as signed webhooks, without ever making the caller wait.
//!
//! ```text
//! offer ─▶ intake (bounded) ─▶ outbox thread ─▶ queue per target ─▶ task per target ═ HTTP ═▶
//!            full: latest per entity   │  ▲                           │
//!            wins                      │  └─ ended: delivered, parked ┘
//!                                      └─▶ one commit per batch, once it is handed on
//! ```
//! - The wire does not wait for the disk: a batch is handed to the targets and then committed. `kill -9` in
//!   between loses what no target has; [`Delivery::kept`] tells what is past that. What a failing disk did not take is
//!   written with the next commit, a second later at the latest.
//! - The outbox thread owns the store; the delivery thread runs one tokio runtime with a task per target,
//!   so a slow disk delays no retry and a hanging target delays no other.
//! - At least once: a row leaves the outbox after the target said 2xx, refused it for good, or its time
//!   was over. Repeats carry the same `webhook-id`.
//! - Rows about the same match keep their order at each target; others overtake.
//! - Memory: at most `queue_max` events in the intake and [`DeliveryConfig::held_max`] rows per target; with
//!   an outbox the rest waits on disk (up to `outbox_rows_max` per target), without one it is dropped.
//!
//! The books: `offered = coalesced + refused + taken` and, per target,
//! `accepted + resumed = delivered + parked + expired + dropped + pending`.

mod pump;
mod target;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hdrhistogram::Histogram;
use offpath_types::{Action, Decision};

use crate::outbox::{Ended, Outbox, OutboxError};
use crate::webhook::Secret;
use crate::{Event, clock};

/// One place that webhooks go to. Its URL is never printed: it may hold credentials.
#[derive(Clone)]
pub struct Target {
    /// Names it in statistics and in the outbox; unique.
    pub name: String,
    /// Where to POST: `http://` or `https://`.
    pub url: String,
    /// Every one of them signs; at least one.
    pub secrets: Vec<Secret>,
    /// How long one attempt may take.
    pub timeout_ms: u64,
    /// Decisions with these actions are sent; empty means all. `unblock` goes wherever a `block` or
    /// `challenge` goes.
    pub actions: Vec<Action>,
    /// Decisions of lower confidence are not sent.
    pub confidence_min: u8,
    /// Also send rehearsals. Default: false.
    pub deliver_dry_run: bool,
    /// Also send accounts at risk and alarms. Default: true.
    pub other_events: bool,
    /// Requests under way at a time.
    pub max_in_flight: usize,
}

impl Target {
    /// Makes a target with the defaults.
    pub fn new(name: impl Into<String>, url: impl Into<String>, secrets: Vec<Secret>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            secrets,
            timeout_ms: 10_000,
            actions: Vec::new(),
            confidence_min: 0,
            deliver_dry_run: false,
            other_events: true,
            max_in_flight: 32,
        }
    }

    fn wants(&self, event: &Event) -> bool {
        match event {
            Event::Decision(d) => {
                let holds = [Action::Block, Action::Challenge];
                let listed = self.actions.is_empty()
                    || self.actions.contains(&d.action)
                    || (d.action == Action::Unblock && holds.iter().any(|a| self.actions.contains(a)));
                // The confidence of an `unblock` is the highest of what it takes back, so it is never
                // held back where the block was sent.
                listed && d.confidence >= self.confidence_min && (self.deliver_dry_run || !d.dry_run)
            }
            Event::AccountAtRisk(a) => self.other_events && (self.deliver_dry_run || !a.dry_run),
            Event::Alarm(_) => self.other_events,
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Wait after the first failure; doubles with each.
    pub first_ms: u64,
    /// Longest wait, also for a target's Retry-After.
    pub max_ms: u64,
    /// A webhook older than this is parked.
    pub give_up_after_secs: u64,
    /// Share of each wait that is random, 0..=1, so that many rows do not come back at once.
    pub jitter: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first_ms: 250, max_ms: 60_000, give_up_after_secs: 86_400, jitter: 0.5 }
    }
}

/// How to deliver.
#[derive(Clone, Debug)]
pub struct DeliveryConfig {
    /// Where to; may be empty.
    pub targets: Vec<Target>,
    /// The outbox's file; without one everything is in memory and lost with the process.
    pub outbox_path: Option<PathBuf>,
    /// Events waiting for the outbox thread.
    pub queue_max: usize,
    /// Rows per target held in memory.
    pub held_max: usize,
    /// Rows per target waiting in the outbox.
    pub outbox_rows_max: u64,
    /// When to try again.
    pub retry: Retry,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            outbox_path: None,
            queue_max: 10_000,
            held_max: 1_000,
            outbox_rows_max: 100_000,
            retry: Retry::default(),
        }
    }
}

/// Why delivery cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// A target is not usable as configured.
    #[error("target `{name}`: {problem}")]
    Target {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The outbox cannot be opened.
    #[error("outbox {}: {problem}", path.display())]
    Outbox {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The system gave no thread, runtime or TLS set-up.
    #[error("delivery cannot start: {0}")]
    System(String),
}

/// Why a webhook is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParkReason {
    /// The target refused it with this status.
    Refused(u16),
    /// The target sent it elsewhere; redirects are not followed, since the signature is for the target.
    Redirected(u16),
    /// It was tried for as long as it may be.
    GaveUp,
}

/// The name used in statistics: `refused_410`, `redirected_302`, `gave_up`.
impl fmt::Display for ParkReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "refused_{status}"),
            Self::Redirected(status) => write!(f, "redirected_{status}"),
            Self::GaveUp => f.write_str("gave_up"),
        }
    }
}

/// What became of one target's webhooks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetStats {
    /// The target.
    pub name: String,
    /// Webhooks that were for it.
    pub accepted: u64,
    /// Webhooks found in the outbox at the start.
    pub resumed: u64,
    /// Answered with 2xx.
    pub delivered: u64,
    /// Attempts that failed and were repeated, or will be.
    pub retried: u64,
    /// Refused for good or given up, by reason.
    pub parked: BTreeMap<ParkReason, u64>,
    /// Decisions whose time was over before they could be delivered.
    pub expired: u64,
    /// No room: in memory, or in the outbox, or the outbox could not be written.
    pub dropped: u64,
    /// Not finished yet.
    pub pending: u64,
    /// The last failure, for people.
    pub last_error: Option<String>,
}

/// What delivery did.
#[derive(Clone)]
pub struct DeliveryStats {
    /// Events offered.
    pub offered: u64,
    /// Events replaced in a full queue by a later one about the same match.
    pub coalesced: u64,
    /// Events refused: the queue was full.
    pub refused: u64,
    /// Events that the outbox thread took.
    pub taken: u64,
    /// Commits of the outbox.
    pub commits: u64,
    /// Commits that failed. Their webhooks were sent all the same, and what has not ended is written with the next
    /// commit; until then it would not survive the process. Those that were to wait on disk are `dropped`.
    pub commit_failures: u64,
    /// Per target.
    pub targets: Vec<TargetStats>,
    /// From the offer to the target's 2xx, in µs.
    pub decision_to_delivered_us: Histogram<u64>,
}

impl DeliveryStats {
    /// Sums `delivered` over targets.
    pub fn delivered(&self) -> u64 {
        self.targets.iter().map(|t| t.delivered).sum()
    }

    /// Sums `pending` over targets.
    pub fn pending(&self) -> u64 {
        self.targets.iter().map(|t| t.pending).sum()
    }

    /// Sums `parked` over targets and reasons.
    pub fn parked(&self) -> u64 {
        self.targets.iter().flat_map(|t| t.parked.values()).sum()
    }
}

/// The histograms in short: printed whole they are thousands of zeros.
impl fmt::Debug for DeliveryStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offered, coalesced, refused, taken, commits, commit_failures, targets, .. } = self;
        let short = |h: &Histogram<u64>| format!("{} values up to {}", h.len(), h.max());
        f.debug_struct("DeliveryStats")
            .field("offered", offered)
            .field("coalesced", coalesced)
            .field("refused", refused)
            .field("taken", taken)
            .field("commits", commits)
            .field("commit_failures", commit_failures)
            .field("targets", targets)
            .field("decision_to_delivered_us", &short(&self.decision_to_delivered_us))
            .finish()
    }
}

/// Longest latency told apart: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;

struct Offered {
    event: Event,
    entity: u64,
    at: Instant,
}

// Invariant: `last` maps an entity to the absolute number of its latest event in `events`; the number of
// `events[0]` is `first`.
struct Intake {
    events: VecDeque<Offered>,
    first: u64,
    last: HashMap<u64, u64, FixedState>,
    ended: Vec<Ended>,
    /// Events in the intake or in the outbox thread's hands, and rows that have not ended.
    unfinished: u64,
    stop: bool,
}

struct Shared {
    targets: Vec<Target>,
    queue_max: usize,
    held_max: usize,
    outbox_rows_max: u64,
    retry: Retry,
    /// Events that the outbox thread is done with: committed, or counted as not.
    kept: AtomicU64,
    intake: Mutex<Intake>,
    intake_ready: Condvar,
    idle: Condvar,
    queues: Vec<target::Queue>,
    stats: Mutex<DeliveryStats>,
}

impl Shared {
    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats(&self) -> MutexGuard<'_, DeliveryStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_target(&self, target: usize, change: impl FnOnce(&mut TargetStats)) {
        if let Some(stats) = self.stats().targets.get_mut(target) {
            change(stats);
        }
    }

    /// Hands a row that ended back to the outbox thread.
    fn end(&self, ended: Ended) {
        self.intake().ended.push(ended);
        self.intake_ready.notify_one();
    }
}

/// A running delivery; share it in an `Arc`. Dropping it stops it: with an outbox nothing is lost.
pub struct Delivery {
    shared: Arc<Shared>,
    stop: tokio::sync::watch::Sender<bool>,
    sender: Option<JoinHandle<()>>,
    pump: Option<JoinHandle<()>>,
}

impl Delivery {
    /// Starts the two threads and takes up what the outbox still holds.
    pub fn start(config: DeliveryConfig) -> Result<Self, DeliveryError> {
        let system = |e: &dyn fmt::Display| DeliveryError::System(e.to_string());
        // Fails where somebody installed a provider before; that one is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clients = config.targets.iter().map(client).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<String> = config.targets.iter().map(|t| t.name.clone()).collect();
        if let Some((at, name)) = names.iter().enumerate().find(|(at, n)| names[..*at].contains(n)) {
            return Err(target_error(name, format!("target {} has the same name as one before", at + 1)));
        }
        let mut targets: Vec<TargetStats> =
            names.iter().map(|n| TargetStats { name: n.clone(), ..TargetStats::default() }).collect();
        let mut next_seq = 1;
        let mut outbox = None;
        if let Some(path) = &config.outbox_path {
            let problem =
                |e: OutboxError| DeliveryError::Outbox { path: path.clone(), problem: e.to_string() };
            let mut opened = Outbox::open(path, names).map_err(problem)?;
            let strangers = opened.park_strangers().map_err(problem)?;
            if strangers > 0 {
                tracing::warn!(
                    strangers,
                    "the outbox held webhooks of targets that are gone; they are parked"
                );
            }
            let (waiting, next) = opened.survey().map_err(problem)?;
            for (stats, waiting) in targets.iter_mut().zip(waiting) {
                stats.resumed = waiting;
                stats.pending = waiting;
            }
            next_seq = next;
            outbox = Some(opened);
        }
        let histogram = || Histogram::new_with_bounds(1, LATENCY_US_MAX, 2).map_err(|e| system(&e));
        let unfinished = targets.iter().map(|t| t.pending).sum();
        let shared = Arc::new(Shared {
            queues: config.targets.iter().map(|_| target::Queue::default()).collect(),
            targets: config.targets,
            queue_max: config.queue_max.max(1),
            held_max: config.held_max.max(2),
            outbox_rows_max: config.outbox_rows_max.max(1),
            retry: config.retry,
            kept: AtomicU64::new(0),
            intake: Mutex::new(Intake {
                events: VecDeque::new(),
                first: 0,
                last: HashMap::with_hasher(FixedState::default()),
                ended: Vec::new(),
                unfinished,
                stop: false,
            }),
            intake_ready: Condvar::new(),
            idle: Condvar::new(),
            stats: Mutex::new(DeliveryStats {
                offered: 0,
                coalesced: 0,
                refused: 0,
                taken: 0,
                commits: 0,
                commit_failures: 0,
                targets,
                decision_to_delivered_us: histogram()?,
            }),
        });
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| system(&e))?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut delivery = Self { shared: shared.clone(), stop, sender: None, pump: None };
        let spawn = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let theirs = shared.clone();
        let sender = spawn("offpath-send")
            .spawn(move || target::run(&runtime, &theirs, clients, &stopped))
            .map_err(|e| system(&e))?;
        delivery.sender = Some(sender);
        let pump = pump::Pump::new(shared, outbox, next_seq);
        delivery.pump = Some(spawn("offpath-outbox").spawn(move || pump.run()).map_err(|e| system(&e))?);
        Ok(delivery)
    }

    /// Offers an event and returns at once; false where it was refused (full and nothing to replace).
    pub fn offer(&self, event: Event) -> bool {
        let entity = event.decision().map_or(0, entity_of);
        let offered = Offered { event, entity, at: clock::instant() };
        self.shared.stats().offered += 1;
        let mut intake = self.shared.intake();
        let number = intake.first + intake.events.len() as u64;
        if intake.events.len() >= self.shared.queue_max {
            let latest = if entity == 0 { None } else { intake.last.get(&entity).copied() };
            let place = latest.and_then(|n| usize::try_from(n.checked_sub(intake.first)?).ok());
            let replaced = place.and_then(|at| intake.events.get_mut(at)).map(|old| *old = offered).is_some();
            drop(intake);
            let mut stats = self.shared.stats();
            if replaced {
                stats.coalesced += 1;
            } else {
                stats.refused += 1;
            }
            return replaced;
        }
        if entity != 0 {
            if intake.last.len() >= 2 * self.shared.queue_max {
                let first = intake.first;
                intake.last.retain(|_, n| *n >= first);
            }
            intake.last.insert(entity, number);
        }
        intake.events.push_back(offered);
        intake.unfinished += 1;
        drop(intake);
        self.shared.intake_ready.notify_one();
        true
    }

    /// Returns how many of the offered events are settled: in the outbox, replaced by a later one, or refused.
    ///
    /// A record of a decision that is written only once it is among them names no decision that `kill -9` can lose.
    /// An outbox that cannot be written holds nothing back: its events count as settled, and in `commit_failures`.
    pub fn kept(&self) -> u64 {
        let kept = self.shared.kept.load(Ordering::Acquire);
        let stats = self.shared.stats();
        kept + stats.coalesced + stats.refused
    }

    /// Waits until everything offered has ended, at most `timeout`; returns whether it has.
    ///
    /// What has not ended goes on being tried, and with an outbox survives the process.
    pub fn drain(&self, timeout: Duration) -> bool {
        let intake = self.shared.intake();
        let (intake, _) = self
            .shared
            .idle
            .wait_timeout_while(intake, timeout, |i| i.unfinished > 0)
            .unwrap_or_else(PoisonError::into_inner);
        intake.unfinished == 0
    }

    /// Returns a snapshot.
    pub fn stats(&self) -> DeliveryStats {
        self.shared.stats().clone()
    }

    /// Stops and returns the final figures. Call [`Delivery::drain`] first.
    pub fn stop(mut self) -> DeliveryStats {
        self.shut_down();
        self.stats()
    }

    fn shut_down(&mut self) {
        let _ = self.stop.send(true);
        if let Some(sender) = self.sender.take() {
            let _ = sender.join();
        }
        // Last, so that what ended while the tasks stopped is still written down.
        self.shared.intake().stop = true;
        self.shared.intake_ready.notify_all();
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn target_error(name: &str, problem: String) -> DeliveryError {
    DeliveryError::Target { name: name.to_owned(), problem }
}

fn client(target: &Target) -> Result<reqwest::Client, DeliveryError> {
    let url = reqwest::Url::parse(&target.url)
        .map_err(|e| target_error(&target.name, format!("its url is no URL: {e}")))?;
    if target.secrets.is_empty() {
        return Err(target_error(&target.name, "has no secret to sign with".to_owned()));
    }
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("offpath/", env!("CARGO_PKG_VERSION")))
        .timeout(Duration::from_millis(target.timeout_ms.max(1)))
        .redirect(reqwest::redirect::Policy::none())
        .pool_idle_timeout(Duration::from_secs(30))
        // Proxy variables of the environment would send decisions through a third party unasked.
        .no_proxy()
        .tcp_nodelay(true);
    match url.scheme() {
        // No TLS, so no need for the system's certificates, which a bare machine may not have.
        "http" => builder = builder.tls_certs_only([]),
        "https" => {}
        other => return Err(target_error(&target.name, format!("`{other}` is neither http nor https"))),
    }
    builder.build().map_err(|e| target_error(&target.name, format!("no HTTP client: {e}")))
}

/// Returns a hash of whom a block, challenge or unblock is about; 0 for everything else.
fn entity_of(decision: &Decision) -> u64 {
    if !matches!(decision.action, Action::Block | Action::Challenge | Action::Unblock) {
        return 0;
    }
    let mut hash = FixedState::default().build_hasher();
    for m in &decision.matches {
        hash.write_u8(m.kind as u8);
        hash.write(m.value.as_bytes());
        hash.write_u8(0xff);
    }
    hash.finish().max(1)
}

/// Returns the wall time at which `event` is pointless; 0 for never.
fn expires_ms(event: &Event, accepted_ms: u64) -> u64 {
    match event {
        Event::Decision(d) if matches!(d.action, Action::Block | Action::Challenge) => {
            accepted_ms.saturating_add(u64::from(d.ttl_secs) * 1000)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
