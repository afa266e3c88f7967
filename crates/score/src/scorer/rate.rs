//! From what is remembered of a transaction's entities to evidence.

use offpath_types::{AccountAtRisk, EntityKind, LoginOutcome, StackClass, Transaction};

use super::cell::{CELL_SECS, Cell};
use super::{Attempt, Password, Scorer, Slots, touch};
use crate::distinct::Distinct;
use crate::entity::{H1H, H10M};
use crate::evidence::Evidence;
use crate::judge::{self, CELL_IPS_MIN, CLIENT, Habits, OTHERS};
use crate::math::{exp_neg, ramp};
use crate::signals::Signal;

/// Points of a client's own record from which its attempts no longer speak about its cell.
const EXPLAINED: f64 = 60.0;

impl Scorer {
    /// Sets all signals; returns the share of automated clients in the transaction's cell.
    pub(super) fn judge(
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
                let points = ramp(failures, 0.1, 0.3) * 15.0;
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

    pub(super) fn account_at_risk(
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
}
