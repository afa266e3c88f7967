//! Puts it together: one transaction in, one verdict out.

use offpath_types::{
    AccountAtRisk, Action, EntityKey, EntityKind, Host, IdentityHash, LoginOutcome, Proposal, Span,
    StackClass, Timestamp, Transaction, Verdict,
};

use crate::Condition;
use crate::condition::{Facts, Flag, Number, Text};
use crate::config::{LoginRule, ScoreConfig};
use crate::counters::ScoreCounters;
use crate::distinct::Distinct;
use crate::entity::{Entity, H1H, H10M, LoginState, LoginStates, Refused, RequestKind, bump};
use crate::evidence::Evidence;
use crate::judge::{self, CELL_IPS_MIN, CLIENT, Habits, OTHERS, Weights};
use crate::login::{BASELINE_SECS, LoginEndpoint, Surge, is_attempt};
use crate::math::{exp_neg, mix};
use crate::policy::{Policy, Scope};
use crate::signals::Signal;
use crate::summary::{EndpointSummary, EntitySummary, LoginSummary, ScoreSummary};
use crate::table::Table;

/// Confidence below which a transaction teaches the baselines.
const UNSUSPICIOUS: u8 = 50;
/// Attempts in an hour by which one address teaches its endpoint's baseline.
const LESSONS_MAX: f32 = 2.0;
/// Points of a client's own record from which its attempts no longer speak about its cell.
const EXPLAINED: f64 = 60.0;
/// How long a cell's counts last, in seconds.
const CELL_SECS: f32 = 1800.0;
/// Guesses on one account in an hour up to which its success says that they were its owner's.
const TYPOS_MAX: f32 = 6.0;
/// Longest endpoint text kept for the report, in bytes.
const ENDPOINT_TEXT_MAX: usize = 200;
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

/// One client stack at one login endpoint: what quiet attackers share.
#[derive(Debug)]
struct Cell {
    last: Timestamp,
    attempts: f32,
    failures: f32,
    /// CUSUM of the failure test, in nats; hot from the threshold on, until it is back at 0.
    sum: f32,
    hot: bool,
    /// Users refused last, so that one person's retries count once.
    recent: Refused,
    ips_failed: Distinct,
    surge: Surge,
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

    /// Counts the transaction on each of its entities; returns what it shows of a login.
    fn remember(&mut self, tx: &Transaction, slots: &mut Slots, epoch: u32) -> Option<Attempt> {
        let now = self.now;
        for (at, kind) in EntityKind::ALL.into_iter().enumerate().take(PLAIN) {
            let Some(key) = tx.entity(kind).map(key_of) else { continue };
            let counters = &mut self.counters;
            let (slot, old) =
                touch(&mut self.tables[at], counters, |c| evicted(c, kind), key, || Entity::new(now));
            slots[at] = Some(slot);
            if let Some(old) = old {
                self.logins.release(&old);
            }
        }
        if let Some(key) = tx.entity(EntityKind::Endpoint).map(key_of) {
            let make = || {
                let text = tx.text.get(tx.endpoint);
                Endpoint {
                    entity: Entity::new(now),
                    text: text[..text.len().min(ENDPOINT_TEXT_MAX)].into(),
                    errors: 0,
                    login: None,
                }
            };
            let counters = &mut self.counters;
            let (slot, old) =
                touch(&mut self.endpoints, counters, |c| evicted(c, EntityKind::Endpoint), key, make);
            slots[PLAIN] = Some(slot);
            if let Some(old) = old {
                self.logins.release(&old.entity);
            }
        }

        let rule = self.login_rule(tx);
        let is_attempt = rule.is_some() || (self.config.logins_learned && self.looks_like_attempt(tx, slots));
        let what = if is_attempt { RequestKind::Login } else { request_kind(tx) };
        for (at, slot) in slots.iter().enumerate() {
            let Some(slot) = *slot else { continue };
            let entity = if at < PLAIN {
                self.tables[at].get_mut(slot)
            } else {
                let endpoint = self.endpoints.get_mut(slot);
                endpoint.errors += u64::from(tx.status.is_some_and(|s| s >= 400));
                &mut endpoint.entity
            };
            entity.request(now, what);
            if !is_attempt && let Some(login) = self.logins.get_mut(entity) {
                login.refresh(now, epoch);
            }
        }
        is_attempt.then(|| self.remember_attempt(tx, slots, rule, epoch))
    }

    fn login_rule(&self, tx: &Transaction) -> Option<usize> {
        if self.config.logins.is_empty() {
            return None;
        }
        let (method, path) = (tx.text.get(tx.method), tx.text.get(tx.path));
        self.config.logins.iter().position(|r| r.applies(method, path))
    }

    fn looks_like_attempt(&self, tx: &Transaction, slots: &Slots) -> bool {
        let known = slots[PLAIN]
            .and_then(|at| self.endpoints.get(at).login.as_ref())
            // An endpoint that takes passwords now and then is no login; most of its attempts must carry one.
            .is_some_and(|l| l.passwords >= 3 && l.passwords * 2 > l.attempts);
        is_attempt(tx, known)
    }

    fn remember_attempt(
        &mut self,
        tx: &Transaction,
        slots: &Slots,
        rule: Option<usize>,
        epoch: u32,
    ) -> Attempt {
        let now = self.now;
        self.counters.login_attempts_total += 1;
        let mut attempt = Attempt {
            outcome: LoginOutcome::Unknown,
            ip: mix(u128::from_be_bytes(*tx.client.octets())),
            user: tx.user.map(|u| mix(u128::from_be_bytes(u.0))),
            baseline: self.config.failure_ratio_prior,
            repeated: false,
            page_before: self.page_before(slots),
            endpoint_without_page: 0.3,
            surge: 0.0,
        };
        let rule: Option<&LoginRule> = rule.and_then(|at| self.config.logins.get(at));
        if let Some(at) = slots[PLAIN] {
            let endpoint = self.endpoints.get_mut(at);
            let login = endpoint.login.get_or_insert_with(|| Box::new(LoginEndpoint::new(now)));
            attempt.outcome = login.conclude(tx, rule);
            attempt.baseline = login.baseline(&self.config);
            attempt.endpoint_without_page = login.without_page();
            attempt.surge = login.surge.observe(now, self.threshold);
        } else {
            attempt.outcome = LoginEndpoint::new(now).conclude(tx, rule);
        }
        match attempt.outcome {
            LoginOutcome::Success => self.counters.login_successes_total += 1,
            LoginOutcome::Failure => self.counters.login_failures_total += 1,
            LoginOutcome::Unknown => self.counters.login_unknown_total += 1,
        }

        let (ip, user) = (attempt.ip, attempt.user);
        let failed = attempt.outcome == LoginOutcome::Failure;
        let guess = if failed { guess(tx, user) } else { None };
        let mut known_account = false;
        if let Some(guess) = guess {
            let refused = |l: &LoginState| l.refused.contains(guess);
            known_account = self.login(slots, EntityKind::User).is_some_and(refused);
            // Behind one address many may repeat theirs: then the account remembers where it refused it.
            attempt.repeated = self.login(slots, EntityKind::Ip).is_some_and(refused)
                || known_account
                    && self.login(slots, EntityKind::User).is_some_and(|l| l.peers_failed.knows(ip));
        }
        let owner = attempt.outcome == LoginOutcome::Success
            && self
                .login(slots, EntityKind::User)
                .is_some_and(|l| l.guesses[H1H] <= TYPOS_MAX && l.peers_failed.knows(ip));
        for (at, kind) in EntityKind::ALL.into_iter().enumerate() {
            let Some(slot) = slots[at] else { continue };
            let entity = if at < PLAIN {
                self.tables[at].get_mut(slot)
            } else {
                &mut self.endpoints.get_mut(slot).entity
            };
            let login = self.logins.of(entity, now);
            login.refresh(now, epoch);
            if let (EntityKind::Ip, true, Some(user)) = (kind, owner, user) {
                login.let_in.insert(user, epoch);
            }
            let known = if kind == EntityKind::User { known_account } else { attempt.repeated };
            count_outcome(login, attempt.outcome, known);
            if let Some(guess) = guess
                && matches!(kind, EntityKind::Ip | EntityKind::User)
            {
                login.refused.insert(guess);
            }
            login.baseline = attempt.baseline as f32;
            let peer = if kind == EntityKind::User { Some(ip) } else { user };
            if let Some(peer) = peer {
                login.peers.insert(peer, epoch);
                if failed && (kind == EntityKind::User || !attempt.repeated) {
                    login.peers_failed.insert(peer, epoch);
                }
            }
            if failed && !attempt.repeated && !matches!(kind, EntityKind::Ip | EntityKind::User) {
                login.ips_failed.insert(ip, epoch);
            }
        }
        self.all.refresh(now, epoch);
        count_outcome(&mut self.all, attempt.outcome, attempt.repeated);
        attempt
    }

    fn entity(&self, slots: &Slots, kind: EntityKind) -> Option<&Entity> {
        let at = kind as usize;
        let slot = slots[at]?;
        Some(if at < PLAIN { self.tables[at].get(slot) } else { &self.endpoints.get(slot).entity })
    }

    fn login(&self, slots: &Slots, kind: EntityKind) -> Option<&LoginState> {
        self.entity(slots, kind).and_then(|e| self.logins.get(e))
    }

    fn page_before(&self, slots: &Slots) -> bool {
        [EntityKind::Session, EntityKind::Ip]
            .into_iter()
            .any(|kind| self.entity(slots, kind).is_some_and(|e| e.pages > 0.05))
    }

    /// Sets all signals; returns the share of automated clients in the transaction's cell.
    fn judge(
        &mut self,
        tx: &Transaction,
        slots: &Slots,
        attempt: Option<&Attempt>,
        epoch: u32,
        ev: &mut Evidence,
    ) -> f64 {
        for kind in [EntityKind::Ip, EntityKind::Session, EntityKind::Prefix] {
            if let Some(login) = self.login(slots, kind) {
                judge::client(ev, kind, login, &self.weights);
            }
        }
        let browser =
            matches!(tx.stack_claimed, StackClass::Chromium | StackClass::Firefox | StackClass::Safari);
        let habits = self.habits();
        for kind in [EntityKind::Ip, EntityKind::Session] {
            if let Some(entity) = self.entity(slots, kind) {
                judge::rhythm(ev, kind, entity, browser, tx.stack_contradicted, &habits, &self.weights);
            }
        }
        if tx.stack_contradicted {
            judge::contradiction(ev, &habits, &self.weights);
        }
        match attempt {
            Some(attempt) => self.judge_attempt(tx, slots, attempt, epoch, ev),
            None => self.judge_request(slots, ev),
        }
    }

    /// A request that is no login inherits from its stack, as far as that stack does little but log in.
    fn judge_request(&self, slots: &Slots, ev: &mut Evidence) -> f64 {
        let Some(entity) = self.entity(slots, EntityKind::Fingerprint) else { return 0.0 };
        let Some(login) = self.logins.get(entity) else { return 0.0 };
        if login.cell_share < 0.05
            || self.now.nanos_since(login.cell_share_at) > CELL_SECS as u64 * 1_000_000_000
        {
            return 0.0;
        }
        // A stack that people use too: its requests other than logins are mostly theirs.
        if login.good > 3.0 + 0.02 * login.attempts[H1H] {
            return 0.0;
        }
        let part = f64::from(login.attempts[H10M]) / f64::from(entity.requests[H10M]).max(1.0);
        // Automated clients make one other request per attempt, or none.
        let share = f64::from(login.cell_share) * (2.0 * part).min(1.0);
        let points = judge::share_points(share, self.config.prior);
        ev.set(
            Signal::CellFailureRatio,
            EntityKind::Fingerprint,
            points,
            share,
            f64::from(login.baseline),
            &self.weights,
        );
        self.judge_history(slots, false, ev);
        share
    }

    fn judge_history(&self, slots: &Slots, known_device: bool, ev: &mut Evidence) {
        let Some(client) =
            self.entity(slots, EntityKind::Session).or_else(|| self.entity(slots, EntityKind::Ip))
        else {
            return;
        };
        let tried = self
            .logins
            .get(client)
            .map_or((0.0, 0.0), |l| (f64::from(l.attempts[H1H]), l.peers.last_count()));
        judge::history(ev, client, tried, known_device, &self.weights);
    }

    fn judge_attempt(
        &mut self,
        tx: &Transaction,
        slots: &Slots,
        attempt: &Attempt,
        epoch: u32,
        ev: &mut Evidence,
    ) -> f64 {
        if let Some(client) = self.entity(slots, EntityKind::Ip)
            && let Some(login) = self.logins.get(client)
            && login.untold >= judge::UNTOLD_MIN
        {
            judge::untold(ev, client, login, self.browsing(), &self.weights);
        }
        let failed = attempt.outcome == LoginOutcome::Failure;
        let ip_failures = self.login(slots, EntityKind::Ip).map_or(0.0, |l| l.guesses[H1H]);
        if let Some(user) = self.login(slots, EntityKind::User) {
            // The owner of an account under attack logs in too, from an address that did not fail.
            let own = if (failed && !attempt.repeated) || ip_failures >= 3.0 { 1.0 } else { 0.4 };
            judge::account(ev, user, own, &self.weights);
        }
        self.judge_password(tx, attempt, epoch, ev);
        if !attempt.page_before {
            let usual = self.without_page(tx, slots, attempt);
            let points = (0.9 / usual.max(0.05)).ln() * 10.0;
            ev.set(Signal::LoginWithoutPage, EntityKind::Ip, points.max(0.0), 1.0, usual, &self.weights);
        }
        if let (Some(login), true) = (self.login(slots, EntityKind::Fingerprint), failed) {
            let failures = f64::from(login.guesses[H1H] / self.all.guesses[H1H].max(1.0));
            let successes = f64::from(login.successes[H1H] / self.all.successes[H1H].max(1.0));
            if self.all.guesses[H1H] >= 20.0
                && self.all.successes[H1H] >= 20.0
                && failures > 0.1
                && successes < 0.02
            {
                let points = crate::math::ramp(failures, 0.1, 0.3) * 15.0;
                ev.set(
                    Signal::FingerprintRare,
                    EntityKind::Fingerprint,
                    points,
                    failures,
                    successes,
                    &self.weights,
                );
            }
        }
        let share = self.judge_cell(tx, slots, attempt, epoch, ev);
        // A hot cell explains the surge: the same attempts must not speak twice.
        if share == 0.0 && attempt.outcome != LoginOutcome::Success && attempt.surge >= 1.0 {
            ev.set(Signal::LoginSurge, EntityKind::Endpoint, 10.0, attempt.surge, 1.0, &self.weights);
        }
        if attempt.outcome != LoginOutcome::Unknown {
            judge::outcome(ev, failed, attempt.baseline, &self.weights);
        }
        self.judge_history(slots, self.known_device(tx, slots, attempt), ev);
        share
    }

    fn judge_password(&mut self, tx: &Transaction, attempt: &Attempt, epoch: u32, ev: &mut Evidence) {
        let (Some(password), Some(user)) = (tx.login.password, attempt.user) else { return };
        let key = u128::from_be_bytes(password.0);
        let failed = attempt.outcome == LoginOutcome::Failure;
        let now = self.now;
        let at = if failed {
            let make = || Password { users_failed: Distinct::new(), successes: 0.0, last: now };
            touch(&mut self.passwords, &mut self.counters, |c| &mut c.evicted_password_total, key, make).0
        } else if let Some(at) = self.passwords.find(key) {
            at
        } else {
            return;
        };
        let watched = self.passwords.get_mut(at);
        watched.successes *= exp_neg(now.nanos_since(watched.last) as f32 * 1e-9 / 3600.0);
        watched.last = now;
        match attempt.outcome {
            LoginOutcome::Failure => watched.users_failed.insert(user, epoch),
            LoginOutcome::Success => watched.successes += 1.0,
            LoginOutcome::Unknown => {}
        }
        let users = watched.users_failed.count(epoch);
        let successes = f64::from(watched.successes);
        judge::password(ev, users, successes, failed, &self.weights);
        let points = ev.points(&[Signal::PasswordSprayed]);
        self.passwords.credit(at, points.min(100.0) as u8);
    }

    /// Returns how usual it is for clients like this one to log in without a page before.
    fn without_page(&self, tx: &Transaction, slots: &Slots, attempt: &Attempt) -> f64 {
        // Applications and libraries load no pages and say so.
        let declared = matches!(tx.stack_claimed, StackClass::App | StackClass::Library);
        let prior = if declared { 0.9 } else { attempt.endpoint_without_page };
        let (good, without) = self
            .login(slots, EntityKind::Fingerprint)
            .map_or((0.0, 0.0), |l| (f64::from(l.good), f64::from(l.good_without_page)));
        (without + 10.0 * prior) / (good + 10.0)
    }

    /// Feeds and reads the cell (client stack × endpoint); returns its share of automated attempts.
    fn judge_cell(
        &mut self,
        tx: &Transaction,
        slots: &Slots,
        attempt: &Attempt,
        epoch: u32,
        ev: &mut Evidence,
    ) -> f64 {
        if tx.fingerprint == 0 {
            return 0.0;
        }
        let now = self.now;
        let key = (u128::from(tx.fingerprint) << 64) | u128::from(tx.endpoint_hash);
        let counters = &mut self.counters;
        let (at, _) = touch(&mut self.cells, counters, |c| &mut c.evicted_cell_total, key, || Cell::new(now));
        let cell = self.cells.get_mut(at);
        let surge = cell.surge.observe(now, self.threshold);
        // A client that its own record convicts explains its failures; its cell is not to blame.
        let explained =
            ev.points_on(&CLIENT, EntityKind::Ip) + ev.points_on(&CLIENT, EntityKind::Session) >= EXPLAINED;
        cell.observe(now, attempt, !explained && !attempt.repeated, epoch, self.threshold);
        let share = if cell.hot && cell.ips_failed.count(epoch) >= CELL_IPS_MIN {
            judge::cell_share(f64::from(cell.failures), f64::from(cell.attempts), attempt.baseline)
        } else {
            0.0
        };
        let ratio = f64::from(cell.failures / cell.attempts.max(1.0));
        self.cells.credit(at, (share * 100.0) as u8);
        ev.set(
            Signal::CellFailureRatio,
            EntityKind::Fingerprint,
            judge::share_points(share, self.config.prior),
            ratio,
            attempt.baseline,
            &self.weights,
        );
        if share == 0.0 && attempt.outcome != LoginOutcome::Success && surge >= 1.0 {
            ev.set(
                Signal::CellLoginSurge,
                EntityKind::Fingerprint,
                surge.min(2.0) * 12.5,
                surge,
                1.0,
                &self.weights,
            );
        }
        let fingerprint = EntityKind::Fingerprint as usize;
        if let Some(slot) = slots[fingerprint]
            && let Some(login) = self.logins.get_mut(self.tables[fingerprint].get(slot))
        {
            if share > 0.0 {
                login.cell_share = share as f32;
                login.cell_share_at = now;
            } else {
                login.cell_share *= 0.98; // another cell of this stack, or this one cooled
            }
        }
        share
    }

    fn known_device(&self, tx: &Transaction, slots: &Slots, attempt: &Attempt) -> bool {
        tx.fingerprint != 0
            && self
                .login(slots, EntityKind::User)
                .is_some_and(|l| l.good_ip == attempt.ip && l.good_fingerprint == tx.fingerprint)
    }

    fn habits(&self) -> Habits {
        let requests = f64::from(self.browser_requests);
        let pages = f64::from(self.browser_pages);
        Habits {
            // Prior: 2 % of 200 transactions.
            contradicted: (f64::from(self.browser_contradicted) + 4.0) / (requests + 200.0),
            // Prior: one page in twenty requests, one asset per page, weighing 20 of each.
            pages: (pages + 1.0) / (requests + 20.0),
            assets: (f64::from(self.browser_assets) + 10.0) / (pages + 20.0),
        }
    }

    /// Returns the share of unsuspicious browsers' requests that load pages and assets; 0.5 until it is known.
    fn browsing(&self) -> f64 {
        // The prior weighs as much as 100 requests: more than an attack makes before it is suspect.
        f64::from(self.browser_pages + self.browser_assets + 50.0) / f64::from(self.browser_requests + 100.0)
    }

    fn account_at_risk(
        &mut self,
        tx: &Transaction,
        slots: &Slots,
        attempt: &Attempt,
        confidence: u8,
        ev: &Evidence,
    ) -> Option<AccountAtRisk> {
        let user = tx.user?;
        if attempt.outcome != LoginOutcome::Success || self.known_device(tx, slots, attempt) {
            return None;
        }
        let (on_user, guesses) =
            self.login(slots, EntityKind::User).map_or((0.0, 0.0), |l| (l.failures[H1H], l.guesses[H1H]));
        let by_client = self.login(slots, EntityKind::Ip).map_or(0.0, |l| l.failures[H1H]);
        // Failures are few once they have faded; half a failure is still one that was seen.
        let hammered = f64::from(guesses) + 0.5 >= f64::from(self.config.risk_failures);
        let attacked =
            confidence >= self.config.risk_confidence && ev.points(&CLIENT) + ev.points(&OTHERS) > 0.0;
        if !hammered && !attacked {
            return None;
        }
        self.counters.accounts_at_risk_total += 1;
        Some(AccountAtRisk { user, failures_before: on_user.max(by_client).round() as u32 })
    }

    /// Lets an unsuspicious transaction teach the baselines.
    fn learn(&mut self, tx: &Transaction, slots: &Slots, attempt: Option<&Attempt>, confidence: u8) {
        if confidence >= UNSUSPICIOUS {
            return;
        }
        let now = self.now;
        if matches!(tx.stack_claimed, StackClass::Chromium | StackClass::Firefox | StackClass::Safari) {
            let k = exp_neg(now.nanos_since(self.habits_last) as f32 * 1e-9 / BASELINE_SECS);
            self.habits_last = now;
            for count in [
                &mut self.browser_requests,
                &mut self.browser_contradicted,
                &mut self.browser_pages,
                &mut self.browser_assets,
            ] {
                *count *= k;
            }
            self.browser_requests += 1.0;
            self.browser_contradicted += f32::from(u8::from(tx.stack_contradicted));
            match request_kind(tx) {
                RequestKind::Asset => self.browser_assets += 1.0,
                RequestKind::Page => self.browser_pages += 1.0,
                RequestKind::Call | RequestKind::Login => {}
            }
        }
        let Some(attempt) = attempt else { return };
        if attempt.outcome == LoginOutcome::Unknown {
            return;
        }
        let failed = attempt.outcome == LoginOutcome::Failure;
        // One address teaches little: before its own record convicts it, it must not have made itself usual.
        let by_client = self.login(slots, EntityKind::Ip).map_or(0.0, |l| l.attempts[H1H]);
        if by_client <= LESSONS_MAX
            && let Some(at) = slots[PLAIN]
            && let Some(login) = &mut self.endpoints.get_mut(at).login
        {
            login.learn(now, failed, attempt.page_before);
        }
        if failed {
            return;
        }
        let login_of =
            |kind: EntityKind| slots[kind as usize].map(|slot| self.tables[kind as usize].get(slot));
        if let Some(login) = login_of(EntityKind::Fingerprint).and_then(|e| self.logins.get_mut(e)) {
            login.good += 1.0;
            login.good_without_page += if attempt.page_before { 0.0 } else { 1.0 };
            if login.good > 1000.0 {
                login.good /= 2.0;
                login.good_without_page /= 2.0;
            }
        }
        if let Some(login) = login_of(EntityKind::User).and_then(|e| self.logins.get_mut(e)) {
            login.good_ip = attempt.ip;
            login.good_fingerprint = tx.fingerprint;
            // The owner remembered: the typos before are forgiven.
            for count in login.failures.iter_mut().chain(&mut login.guesses) {
                *count *= 0.25;
            }
        }
    }

    /// Writes the confidence to the entities, for the report and against eviction.
    fn mark(&mut self, slots: &Slots, confidence: u8) {
        let confident = u32::from(confidence >= 90);
        self.counters.confident_total += u64::from(confident);
        if confidence < 25 {
            return;
        }
        for (at, slot) in slots.iter().enumerate() {
            let Some(slot) = *slot else { continue };
            let entity = if at < PLAIN {
                self.tables[at].credit(slot, confidence);
                self.tables[at].get_mut(slot)
            } else {
                &mut self.endpoints.get_mut(slot).entity
            };
            entity.peak = entity.peak.max(confidence);
            entity.confident = entity.confident.saturating_add(confident);
        }
    }

    fn apply_policies(
        &mut self,
        tx: &Transaction,
        slots: &Slots,
        ev: &Evidence,
        share: f64,
        verdict: &mut Verdict,
    ) {
        let (mut held, mut allowed, mut absent) = (0, 0, 0);
        let view = View { scorer: self, tx, slots, ev, verdict };
        let mut proposals = Vec::new();
        for (number, policy) in self.policies.iter().enumerate() {
            if !policy.condition.holds(&view) {
                continue;
            }
            held += 1;
            if policy.action == Action::Allow {
                allowed += 1;
                break;
            }
            let auto;
            let kinds: &[EntityKind] = match &policy.scope {
                Scope::Fixed(kinds) => kinds,
                Scope::Auto => {
                    auto = auto_scope(tx, ev, share);
                    auto
                }
            };
            let scope: Option<Vec<EntityKey>> = kinds.iter().map(|kind| tx.entity(*kind)).collect();
            match scope {
                Some(scope) if !scope.is_empty() => proposals.push(Proposal {
                    policy: number as u16,
                    action: policy.action,
                    scope,
                    ttl_secs: policy.ttl_secs,
                }),
                _ => absent += 1,
            }
        }
        self.counters.policies_held_total += held;
        self.counters.policies_allowed_total += allowed;
        self.counters.proposals_without_entity_total += absent;
        self.counters.proposals_total += proposals.len() as u64;
        verdict.proposals = proposals;
    }

    /// Returns what a report says; visits every entity, so call it at the end or now and then.
    pub fn summary(&self) -> ScoreSummary {
        let text = |t: &[u8]| String::from_utf8_lossy(t).into_owned();
        let mut endpoints = Vec::new();
        let mut logins = Vec::new();
        let mut entities = Vec::new();
        for (key, endpoint) in self.endpoints.iter() {
            let login = endpoint.login.as_deref();
            endpoints.push(EndpointSummary {
                endpoint: text(&endpoint.text),
                requests: u64::from(endpoint.entity.total),
                errors: endpoint.errors,
                logins: login.map_or(0, |l| l.attempts),
                failures: login.map_or(0, |l| l.failures),
            });
            if let Some(login) = login {
                logins.push(LoginSummary {
                    endpoint: text(&endpoint.text),
                    configured: login.configured,
                    success_from: login.source(0),
                    failure_from: login.source(1),
                    attempts: login.attempts,
                    successes: login.successes,
                    failures: login.failures,
                    unknown: login.unknown,
                    failure_ratio_baseline: login.baseline(&self.config),
                });
            }
            entities.extend(entity_summary(EntityKey::Endpoint(key as u64), &endpoint.entity));
        }
        let mut live = Vec::new();
        for (kind, table) in EntityKind::ALL.into_iter().zip(&self.tables) {
            live.push((kind, table.len() as u64));
            entities.extend(table.iter().filter_map(|(key, e)| entity_summary(entity_key(kind, key), e)));
        }
        live.push((EntityKind::Endpoint, self.endpoints.len() as u64));
        endpoints.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.endpoint.cmp(&b.endpoint)));
        endpoints.truncate(20);
        logins.sort_by(|a, b| b.attempts.cmp(&a.attempts).then_with(|| a.endpoint.cmp(&b.endpoint)));
        logins.truncate(50);
        entities.sort_by(|a: &EntitySummary, b| {
            (b.confident > 0, b.confidence, b.confident)
                .cmp(&(a.confident > 0, a.confidence, a.confident))
                .then_with(|| a.key.cmp(&b.key))
        });
        entities.truncate(50);
        ScoreSummary { endpoints, logins, entities, live }
    }
}

impl Cell {
    fn new(now: Timestamp) -> Self {
        Self {
            last: now,
            attempts: 0.0,
            failures: 0.0,
            sum: 0.0,
            hot: false,
            recent: Refused::new(),
            ips_failed: Distinct::new(),
            surge: Surge::new(now),
        }
    }

    /// Takes an attempt into the sequential test; `counts`: it is not explained by its client's own record.
    fn observe(&mut self, now: Timestamp, attempt: &Attempt, counts: bool, epoch: u32, threshold: f32) {
        let k = exp_neg(now.nanos_since(self.last) as f32 * 1e-9 / CELL_SECS);
        self.last = now;
        self.attempts *= k;
        self.failures *= k;
        if !counts || attempt.outcome == LoginOutcome::Unknown {
            return;
        }
        let failed = attempt.outcome == LoginOutcome::Failure;
        if failed && let Some(user) = attempt.user {
            let word = user as u32 | 1;
            if self.recent.contains(word) {
                return;
            }
            self.recent.insert(word);
        }
        self.attempts += 1.0;
        let baseline = (attempt.baseline as f32).clamp(0.08, 0.5);
        // The alternative is a cell where six in ten fail, or well above the baseline.
        let alternative = (baseline + 0.2).max(0.6);
        if failed {
            self.failures += 1.0;
            self.ips_failed.insert(attempt.ip, epoch);
            self.sum += (alternative / baseline).ln();
        } else {
            self.sum += ((1.0 - alternative) / (1.0 - baseline)).ln();
        }
        self.sum = self.sum.clamp(0.0, 2.0 * threshold);
        if self.sum >= threshold {
            self.hot = true;
        } else if self.sum == 0.0 {
            self.hot = false;
        }
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

const fn evicted(counters: &mut ScoreCounters, kind: EntityKind) -> &mut u64 {
    match kind {
        EntityKind::Ip => &mut counters.evicted_ip_total,
        EntityKind::Prefix => &mut counters.evicted_prefix_total,
        EntityKind::Session => &mut counters.evicted_session_total,
        EntityKind::User => &mut counters.evicted_user_total,
        EntityKind::Fingerprint => &mut counters.evicted_fingerprint_total,
        EntityKind::Endpoint => &mut counters.evicted_endpoint_total,
    }
}

fn count_outcome(login: &mut LoginState, outcome: LoginOutcome, known: bool) {
    bump(&mut login.attempts);
    match outcome {
        LoginOutcome::Success => bump(&mut login.successes),
        LoginOutcome::Failure => {
            bump(&mut login.failures);
            if !known {
                bump(&mut login.guesses);
            }
        }
        LoginOutcome::Unknown => login.untold += 1.0,
    }
}

/// Returns 32 bits of what an attempt tries, never 0; `None` where it shows no password.
fn guess(tx: &Transaction, user: Option<u64>) -> Option<u32> {
    let password = mix(u128::from_be_bytes(tx.login.password?.0));
    Some(mix(u128::from(user.unwrap_or(0)) << 64 | u128::from(password)) as u32 | 1)
}

/// Chooses the narrowest entity that carries the evidence.
fn auto_scope(tx: &Transaction, ev: &Evidence, share: f64) -> &'static [EntityKind] {
    let ip = ev.points_on(&CLIENT, EntityKind::Ip);
    let session = ev.points_on(&CLIENT, EntityKind::Session);
    let prefix = ev.points_on(&CLIENT, EntityKind::Prefix);
    let cell = ev.points(&[Signal::CellFailureRatio, Signal::CellLoginSurge]);
    if cell > ip.max(session).max(prefix) && share >= 0.9 && tx.entity(EntityKind::Endpoint).is_some() {
        return &[EntityKind::Fingerprint, EntityKind::Endpoint];
    }
    if session > ip && session >= prefix && tx.session.is_some() {
        return &[EntityKind::Session];
    }
    if prefix > ip.max(session) {
        return &[EntityKind::Prefix];
    }
    &[EntityKind::Ip]
}

fn request_kind(tx: &Transaction) -> RequestKind {
    if tx.text.get(tx.method) != b"GET" {
        return RequestKind::Call;
    }
    if tx.navigation || !is_asset(tx.text.get(tx.path)) { RequestKind::Page } else { RequestKind::Asset }
}

/// Tells whether a path ends like a static asset's.
fn is_asset(path: &[u8]) -> bool {
    const ENDINGS: [&[u8]; 17] = [
        b"js", b"mjs", b"css", b"map", b"png", b"jpg", b"jpeg", b"gif", b"webp", b"avif", b"svg", b"ico",
        b"woff", b"woff2", b"ttf", b"mp4", b"wasm",
    ];
    let tail = &path[path.len().saturating_sub(6)..];
    match tail.iter().rposition(|b| *b == b'.') {
        Some(dot) => ENDINGS.contains(&&tail[dot + 1..]),
        None => false,
    }
}

fn key_of(key: EntityKey) -> u128 {
    match key {
        EntityKey::Ip(host) | EntityKey::Prefix(host) => u128::from_be_bytes(*host.octets()),
        EntityKey::Session(hash) | EntityKey::User(hash) => u128::from_be_bytes(hash.0),
        EntityKey::Fingerprint(n) | EntityKey::Endpoint(n) => u128::from(n),
    }
}

fn entity_key(kind: EntityKind, key: u128) -> EntityKey {
    let bytes = key.to_be_bytes();
    match kind {
        EntityKind::Ip => EntityKey::Ip(Host::from_v6(bytes)),
        EntityKind::Prefix => EntityKey::Prefix(Host::from_v6(bytes)),
        EntityKind::Session => EntityKey::Session(IdentityHash(bytes)),
        EntityKind::User => EntityKey::User(IdentityHash(bytes)),
        EntityKind::Fingerprint => EntityKey::Fingerprint(key as u64),
        EntityKind::Endpoint => EntityKey::Endpoint(key as u64),
    }
}

fn entity_summary(key: EntityKey, entity: &Entity) -> Option<EntitySummary> {
    (entity.peak >= UNSUSPICIOUS).then(|| EntitySummary {
        key,
        kind: key.kind(),
        confidence: entity.peak,
        confident: u64::from(entity.confident),
        requests: u64::from(entity.total),
    })
}

/// What conditions see of one rated transaction.
struct View<'a> {
    scorer: &'a Scorer,
    tx: &'a Transaction,
    slots: &'a Slots,
    ev: &'a Evidence,
    verdict: &'a Verdict,
}

impl Facts for View<'_> {
    fn number(&self, number: Number) -> f64 {
        match number {
            Number::Literal(n) => n,
            Number::Confidence => f64::from(self.verdict.confidence),
            Number::Status => self.tx.status.map_or(0.0, f64::from),
            Number::RequestBytes => self.tx.request_body_bytes as f64,
            Number::ResponseBytes => self.tx.response_body_bytes as f64,
            Number::Points(signal) => self.ev.part(signal).points,
            Number::Value(signal) => self.ev.part(signal).value,
            Number::Entity(kind, fact) => {
                self.scorer.entity(self.slots, kind).map_or(0.0, |e| fact.read(e, self.scorer.logins.get(e)))
            }
        }
    }

    fn text(&self, text: Text) -> &[u8] {
        let get = |span: Span| self.tx.text.get(span);
        match text {
            Text::Endpoint => get(self.tx.endpoint),
            Text::Method => get(self.tx.method),
            Text::Path => get(self.tx.path),
            Text::Domain => get(self.tx.domain),
            Text::UserAgent => get(self.tx.user_agent),
            Text::LoginOutcome => self.verdict.login.map_or("", LoginOutcome::name).as_bytes(),
        }
    }

    fn flag(&self, flag: Flag) -> bool {
        match flag {
            Flag::Login => self.verdict.login.is_some(),
            Flag::Complete => self.tx.complete,
            Flag::Navigation => self.tx.navigation,
            Flag::StackContradicted => self.tx.stack_contradicted,
            Flag::AccountAtRisk => self.verdict.account_at_risk.is_some(),
            Flag::Anomaly(anomaly) => self.tx.anomalies.contains(anomaly),
        }
    }
}
