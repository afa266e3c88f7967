//! Puts it together: one transaction in, one verdict out.
//!
//! A transaction is remembered on its entities, rated by what is remembered, learned from, and handed to the
//! policies; a module each.

mod cell;
mod propose;
mod rate;
mod remember;
mod report;

use offpath_types::{Action, EntityKind, LoginOutcome, Timestamp, Transaction, Verdict};

use self::cell::Cell;
use crate::Condition;
use crate::config::ScoreConfig;
use crate::counters::ScoreCounters;
use crate::distinct::Distinct;
use crate::entity::{Entity, LoginState, LoginStates};
use crate::evidence::Evidence;
use crate::judge::Weights;
use crate::login::LoginEndpoint;
use crate::policy::{Policy, Scope};
use crate::signals::Signal;
use crate::table::Table;

/// Confidence below which a transaction teaches the baselines, and from which an entity is worth reporting.
const UNSUSPICIOUS: u8 = 50;
/// Kinds in the plain tables; `Endpoint` has its own.
const PLAIN: usize = 5;

/// One endpoint.
#[derive(Debug)]
struct Endpoint {
    entity: Entity,
    text: Box<[u8]>,
    errors: u64,
    login: Option<Box<LoginEndpoint>>,
}

/// One password under watch.
#[derive(Debug)]
struct Password {
    users_failed: Distinct,
    /// Fading in an hour.
    successes: f32,
    last: Timestamp,
}

/// Where one transaction's entities are; by [`EntityKind`].
type Slots = [Option<usize>; 6];

/// What was found out about a login attempt.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    outcome: LoginOutcome,
    /// Client address and user, mixed for sketches.
    ip: u64,
    user: Option<u64>,
    baseline: f64,
    /// The same user and password were refused from here lately: nothing new was tried.
    repeated: bool,
    page_before: bool,
    endpoint_without_page: f64,
    /// How far the endpoint's attempts are over the threshold of a surge.
    surge: f64,
}

/// Rates transactions, one after the other, in their total order.
#[derive(Debug)]
pub struct Scorer {
    config: ScoreConfig,
    policies: Vec<Policy>,
    weights: Weights,
    counters: ScoreCounters,
    now: Timestamp,
    // Invariant: `entity.login` of every live entity is its own number in `logins`, or none.
    tables: [Table<Entity>; PLAIN],
    endpoints: Table<Endpoint>,
    cells: Table<Cell>,
    passwords: Table<Password>,
    logins: LoginStates,
    /// Threshold of the sequential tests, in nats.
    threshold: f32,
    // Habits of unsuspicious clients that claim to be browsers, fading in six hours.
    habits_last: Timestamp,
    browser_requests: f32,
    browser_contradicted: f32,
    browser_pages: f32,
    browser_assets: f32,
    /// All attempts, for shares.
    all: LoginState,
}

impl Scorer {
    /// Makes a scorer with empty memory. `seed` spreads load and never shows in a verdict.
    pub fn new(config: ScoreConfig, policies: Vec<Policy>, seed: u64) -> Self {
        let caps = config.entities_max;
        let mut weights = [1.0; Signal::COUNT];
        for (name, weight) in &config.weights {
            if let Some(signal) = Signal::ALL.iter().find(|s| s.name() == name) {
                weights[*signal as usize] = *weight;
            }
        }
        Self {
            policies,
            weights,
            counters: ScoreCounters::default(),
            now: Timestamp::ZERO,
            tables: [caps.ip, caps.prefix, caps.session, caps.user, caps.fingerprint]
                .map(|c| Table::new(c, seed)),
            endpoints: Table::new(caps.endpoint, seed),
            cells: Table::new(caps.cell, seed),
            passwords: Table::new(caps.password, seed),
            logins: LoginStates::default(),
            threshold: -(config.cell_error_rate.clamp(1e-12, 0.5).ln() as f32),
            habits_last: Timestamp::ZERO,
            browser_requests: 0.0,
            browser_contradicted: 0.0,
            browser_pages: 0.0,
            browser_assets: 0.0,
            all: LoginState::new(Timestamp::ZERO),
            config,
        }
    }

    /// Returns the policies that apply where an operator sets none: block what tries to take over accounts,
    /// notify of accounts at risk.
    pub fn default_policies() -> Vec<Policy> {
        let policy = |name: &str, condition: &str, action, scope, ttl_secs| {
            // Both texts compile (tested); were one not to, the policy would be missing, not wrong.
            let condition = Condition::compile(condition).ok()?;
            Some(Policy { name: name.to_owned(), condition, action, scope, ttl_secs })
        };
        [
            policy("block-account-takeover", "confidence >= 90 && login", Action::Block, Scope::Auto, 600),
            policy(
                "notify-account-at-risk",
                "account_at_risk",
                Action::Notify,
                Scope::Fixed(vec![EntityKind::User]),
                3600,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Returns the counters so far.
    pub const fn counters(&self) -> &ScoreCounters {
        &self.counters
    }

    /// Returns the policies in force, in order; a proposal's `policy` is an index into them.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// Rates one transaction. Cost: O(1), no allocation for unsuspicious traffic of known entities.
    pub fn observe(&mut self, tx: &Transaction) -> Verdict {
        self.counters.transactions_total += 1;
        if tx.emitted < self.now {
            self.counters.clock_backwards_total += 1;
        }
        self.now = self.now.max(tx.emitted);
        if !tx.has_request() {
            self.counters.without_request_total += 1;
            return Verdict::default();
        }
        self.counters.scored_total += 1;
        let epoch = self.epoch();

        let mut slots: Slots = [None; 6];
        let attempt = self.remember(tx, &mut slots, epoch);
        let mut ev = Evidence::new();
        let share = self.judge(tx, &slots, attempt.as_ref(), epoch, &mut ev);
        let confidence = ev.confidence(self.config.prior);

        let account_at_risk = attempt.and_then(|a| self.account_at_risk(tx, &slots, &a, confidence, &ev));
        self.learn(tx, &slots, attempt.as_ref(), confidence);
        self.mark(&slots, confidence);
        let mut verdict =
            Verdict { confidence, login: attempt.map(|a| a.outcome), account_at_risk, ..Verdict::default() };
        self.apply_policies(tx, &slots, &ev, share, &mut verdict);
        if confidence >= self.config.explain_confidence.max(1) || !verdict.proposals.is_empty() {
            verdict.contributions = ev.contributions();
        }
        verdict
    }

    fn epoch(&self) -> u32 {
        (self.now.as_nanos() / 1_000_000_000 / u64::from(self.config.distinct_window_secs.max(1))) as u32
    }

    fn entity(&self, slots: &Slots, kind: EntityKind) -> Option<&Entity> {
        let at = kind as usize;
        let slot = slots[at]?;
        Some(if at < PLAIN { self.tables[at].get(slot) } else { &self.endpoints.get(slot).entity })
    }

    fn login(&self, slots: &Slots, kind: EntityKind) -> Option<&LoginState> {
        self.entity(slots, kind).and_then(|e| self.logins.get(e))
    }
}

/// Finds or makes `key` in a table, and counts what that made and evicted: in total, and on the table's own
/// counter.
fn touch<V>(
    table: &mut Table<V>,
    counters: &mut ScoreCounters,
    evicted: impl FnOnce(&mut ScoreCounters) -> &mut u64,
    key: u128,
    make: impl FnOnce() -> V,
) -> (usize, Option<V>) {
    let before = table.made();
    let (at, old) = table.touch(key, make);
    counters.entities_made_total += table.made() - before;
    if old.is_some() {
        counters.entities_evicted_total += 1;
        *evicted(counters) += 1;
    }
    (at, old)
}
