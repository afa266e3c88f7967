//! What a transaction leaves behind on its entities: counts, login outcomes, lessons, marks.

use offpath_types::{EntityKey, EntityKind, LoginOutcome, Pace, StackClass, Transaction};

use super::{Attempt, Endpoint, PLAIN, Scorer, Slots, UNSUSPICIOUS, touch};
use crate::config::{LoginRule, normal_path};
use crate::counters::ScoreCounters;
use crate::entity::{Entity, H1H, LoginState, RequestKind, bump};
use crate::login::{BASELINE_SECS, LoginEndpoint, is_attempt, is_read};
use crate::math::{exp_neg, mix};

/// Attempts in an hour by which one address teaches its endpoint's baseline.
const LESSONS_MAX: f32 = 2.0;
/// Guesses on one account in an hour up to which its success says that they were its owner's.
const TYPOS_MAX: f32 = 6.0;
/// Longest endpoint text kept for the report, in bytes.
const ENDPOINT_TEXT_MAX: usize = 200;

impl Scorer {
    /// Counts the transaction on each of its entities; returns what it shows of a login.
    pub(super) fn remember(&mut self, tx: &Transaction, slots: &mut Slots, epoch: u32) -> Option<Attempt> {
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
        let attempt = is_attempt.then(|| self.remember_attempt(tx, slots, rule, epoch));
        self.learn_sender(tx, slots);
        attempt
    }

    fn login_rule(&self, tx: &Transaction) -> Option<usize> {
        if self.config.logins.is_empty() {
            return None;
        }
        let (method, path) = (tx.text.get(tx.method), normal_path(tx.text.get(tx.path)));
        self.config.logins.iter().position(|r| r.applies(method, &path))
    }

    fn looks_like_attempt(&self, tx: &Transaction, slots: &Slots) -> bool {
        let known = slots[PLAIN]
            .and_then(|at| self.endpoints.get(at).login.as_ref())
            .is_some_and(|l| l.takes_passwords(is_read(tx)));
        is_attempt(tx, known)
    }

    /// Learns whether passwords are sent to an endpoint at which somebody tried to log in.
    fn learn_sender(&mut self, tx: &Transaction, slots: &Slots) {
        if let Some(at) = slots[PLAIN]
            && let Some(login) = &mut self.endpoints.get_mut(at).login
            && matches!(tx.text.get(tx.method), b"POST" | b"PUT")
        {
            login.sent(tx, mix(u128::from_be_bytes(*tx.client.octets())));
        }
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

    fn page_before(&self, slots: &Slots) -> bool {
        [EntityKind::Session, EntityKind::Ip]
            .into_iter()
            .any(|kind| self.entity(slots, kind).is_some_and(|e| e.pages > 0.05))
    }

    /// Lets an unsuspicious transaction teach the baselines.
    pub(super) fn learn(
        &mut self,
        tx: &Transaction,
        slots: &Slots,
        attempt: Option<&Attempt>,
        confidence: u8,
    ) {
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
                RequestKind::Call | RequestKind::Login | RequestKind::Waiting => {}
            }
        }
        let Some(attempt) = attempt else { return };
        let failed = attempt.outcome == LoginOutcome::Failure;
        // One address teaches little: before its own record convicts it, it must not have made itself usual.
        let by_client = self.login(slots, EntityKind::Ip).map_or(0.0, |l| l.attempts[H1H]);
        if by_client <= LESSONS_MAX
            && let Some(at) = slots[PLAIN]
            && let Some(login) = &mut self.endpoints.get_mut(at).login
        {
            login.learn_answer(tx);
            if attempt.outcome != LoginOutcome::Unknown {
                login.learn(now, failed, attempt.page_before);
            }
        }
        if attempt.outcome != LoginOutcome::Success {
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
    pub(super) fn mark(&mut self, slots: &Slots, confidence: u8) {
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

fn request_kind(tx: &Transaction) -> RequestKind {
    if tx.pace != Pace::AtOnce {
        return RequestKind::Waiting;
    }
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
