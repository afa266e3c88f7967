//! Turns verdicts into decisions, on packet time.
//!
//! In: transactions with their verdicts, in the total order. Out: [`Event`]s in an order that is a function
//! of the input alone. No I/O, no clock, no thread; everything is bounded.
//!
//! Rules, in this order: the allowlist; a decision in force is not repeated, and is extended when less than
//! half of the wished time is left; the blast radius, with narrower matches tried; the number in force; the
//! cap on new blocks per minute. Each proposal ends in exactly one place:
//!
//! `proposals = decided + extended + duplicate + allowlisted + allowed + blast_radius + rate_capped +
//! active_full + stale + scope_invalid`
//!
//! **Ids.** Each decision has its own id, also an extension and an `unblock`: they are separate webhooks.
//! What ties them together is `match`: a receiver keeps one entry per match, a later decision replaces it,
//! an `unblock` removes it.

use std::collections::BTreeMap;
use std::hash::Hash;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::IpNet;
use offpath_types::{
    Action, Decision, EntityKey, EntityKind, IdentityHash, MatchValue, Proposal, Reason, Timestamp,
    Transaction, Verdict,
};
use sha2::{Digest, Sha256};

use crate::neighbours::Neighbours;
use crate::{AccountAtRiskEvent, AddressSet, Alarm, AlarmKind, BlastRadius, Event};

/// What the planner may do.
#[derive(Clone, Debug)]
pub struct PlannerConfig {
    /// Only rehearse: decisions say so and nobody acts on them. Default: true.
    pub dry_run: bool,
    /// Addresses that no decision is ever made about.
    pub allow: Vec<IpNet>,
    /// Our own proxies, load balancers and monitors: as `allow`.
    pub own_proxies: Vec<IpNet>,
    /// Names of the policies, by [`Proposal::policy`].
    pub policies: Vec<String>,
    /// New blocks and challenges per minute of packet time; further ones are not made and raise an alarm.
    pub new_blocks_per_minute_max: u32,
    /// How much harm to people a block may do.
    pub blast_radius: BlastRadius,
    /// The longest time that a decision holds, in seconds; longer wishes are cut.
    pub ttl_max_secs: u32,
    /// Transactions named as evidence in one decision.
    pub evidence_max: usize,
    /// Blocks and challenges in force at a time; further ones are not made and raise an alarm.
    pub active_max: usize,
    /// Spreads load in tables; shows in no result while tables are not full.
    pub seed: u64,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        Self {
            dry_run: true,
            allow: Vec::new(),
            own_proxies: Vec::new(),
            policies: Vec::new(),
            new_blocks_per_minute_max: 600,
            blast_radius: BlastRadius::default(),
            ttl_max_secs: 86_400,
            evidence_max: 20,
            active_max: 100_000,
            seed: 0,
        }
    }
}

offpath_types::counters! {
    /// What planning did; the equation is in the module's documentation.
    pub struct PlannerCounters {
        /// Transactions seen.
        transactions_total,
        /// Proposals in their verdicts.
        proposals_total,
        /// Decisions made: new blocks, challenges, tags, reviews, notifications.
        decided_total,
        /// Decisions in force that were prolonged.
        extended_total,
        /// Proposals for what is in force already.
        duplicate_total,
        /// Proposals about a client, or a prefix, on the allowlist.
        allowlisted_total,
        /// Proposals that an `allow` policy ended.
        allowed_total,
        /// Blocks not made: too many who behave well share every match that was tried.
        blast_radius_total,
        /// Blocks not made: the cap per minute.
        rate_capped_total,
        /// Blocks not made: as many in force as may be.
        active_full_total,
        /// Blocks not made: their time was over before they could be made.
        stale_total,
        /// Proposals without a usable scope.
        scope_invalid_total,
        /// Decisions whose match is narrower than the policy wished (within decided and extended).
        narrowed_total,
        /// Blocks and challenges whose time ended.
        unblocked_total,
        /// Accounts reported at risk.
        account_at_risk_total,
        /// The same account at risk again within the hour.
        account_at_risk_duplicate_total,
        /// Alarms raised.
        alarms_total,
        /// Notifications forgotten early to make room: one may be repeated.
        quiet_evicted_total,
        /// Well-behaved values forgotten early to make room.
        neighbours_evicted_total,
    }
}

/// What decisions say until whoever counts the losses fills in the share of the traffic that was seen.
const OBSERVABILITY: f64 = 1.0;
/// Transactions remembered as possible evidence.
const EVIDENCE_ROWS: usize = 2048;
/// Confidence from which a transaction is remembered as possible evidence.
const EVIDENCE_FROM: u8 = 30;
/// Reasons named in one decision.
const REASONS_MAX: usize = 16;
const MINUTE_NANOS: u64 = 60_000_000_000;
/// An account at risk is reported once in this time.
const RISK_QUIET_SECS: u64 = 3600;
/// Kinds that say who, as opposed to what.
const WHO: [EntityKind; 5] =
    [EntityKind::Ip, EntityKind::Prefix, EntityKind::Session, EntityKind::User, EntityKind::Fingerprint];

/// A match as keys: at most one value per kind, in record order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct MatchKey([Option<EntityKey>; 6]);

impl MatchKey {
    fn get(&self, kind: EntityKind) -> Option<EntityKey> {
        self.0.get(kind as usize).copied().flatten()
    }

    fn set(&mut self, key: EntityKey) {
        if let Some(slot) = self.0.get_mut(key.kind() as usize) {
            *slot = Some(key);
        }
    }

    fn has(&self, kind: EntityKind) -> bool {
        self.get(kind).is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &EntityKey> {
        self.0.iter().flatten()
    }

    fn with(mut self, tx: &Transaction, kind: EntityKind) -> Option<Self> {
        self.set(tx.entity(kind)?);
        Some(self)
    }

    fn without(mut self, kind: EntityKind) -> Self {
        if let Some(slot) = self.0.get_mut(kind as usize) {
            *slot = None;
        }
        self
    }
}

/// A block or challenge in force.
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveDecision {
    /// Block or challenge.
    pub action: Action,
    /// Whom it is about.
    pub matches: Vec<MatchValue>,
    /// When it was made.
    pub since: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// The policy that made it.
    pub policy: String,
    /// The highest confidence that it was made or extended with.
    pub confidence: u8,
    /// The transaction that made it, or extended it last.
    pub transaction: String,
    // Tells apart what ends at the same time: order of making.
    number: u64,
}

/// One thing that is not repeated for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Quiet {
    Notify(u16, MatchKey),
    Risk(IdentityHash),
}

struct EvidenceRow {
    keys: MatchKey,
    flow_id: u64,
    index: u32,
}

/// Makes decisions; see the module's documentation.
// Invariant: `ends` has exactly one entry (expires, number) per entry of `active`, and `next_end` is the
// first of them. `quiet_ends` is the same for `quiet`.
pub struct Planner {
    config: PlannerConfig,
    allow: AddressSet,
    neighbours: Neighbours,
    active: HashMap<MatchKey, ActiveDecision, FixedState>,
    ends: BTreeMap<(Timestamp, u64), MatchKey>,
    next_end: Timestamp,
    quiet: HashMap<Quiet, (), FixedState>,
    quiet_ends: BTreeMap<(Timestamp, u64), Quiet>,
    evidence: Vec<EvidenceRow>,
    evidence_next: usize,
    now: Timestamp,
    numbers: u64,
    minute: u64,
    minute_blocks: u32,
    alarms: [AlarmState; 3],
    counters: PlannerCounters,
}

#[derive(Clone, Copy, Default)]
struct AlarmState {
    /// Minute of the last alarm, plus 1.
    minute: u64,
    held_back: u64,
}

impl Planner {
    /// Makes a planner with nothing in force.
    pub fn new(config: PlannerConfig) -> Self {
        let allow = AddressSet::new(config.allow.iter().chain(&config.own_proxies));
        let neighbours = Neighbours::new(config.blast_radius.clone(), config.seed);
        Self {
            allow,
            neighbours,
            active: HashMap::with_hasher(FixedState::with_seed(config.seed)),
            ends: BTreeMap::new(),
            next_end: Timestamp::MAX,
            quiet: HashMap::with_hasher(FixedState::with_seed(config.seed)),
            quiet_ends: BTreeMap::new(),
            evidence: Vec::new(),
            evidence_next: 0,
            now: Timestamp::ZERO,
            numbers: 0,
            minute: 0,
            minute_blocks: 0,
            alarms: [AlarmState::default(); 3],
            counters: PlannerCounters::default(),
            config,
        }
    }

    /// Takes in one transaction with its verdict and appends what follows to `out`.
    ///
    /// Calls [`Planner::advance`] with the transaction's `emitted` first. Cost: below 150 ns for a
    /// transaction without proposals.
    pub fn plan(&mut self, tx: &Transaction, verdict: &Verdict, out: &mut Vec<Event>) {
        self.advance(tx.emitted, out);
        self.counters.transactions_total += 1;
        self.neighbours.observe(tx, verdict, self.now);
        if verdict.confidence >= EVIDENCE_FROM {
            self.remember(tx);
        }
        if verdict.account_at_risk.is_some() {
            self.account_at_risk(tx, verdict, out);
        }
        if !verdict.proposals.is_empty() {
            self.propose(tx, verdict, out);
        }
    }

    /// Moves packet time to `now` (never back) and appends an `unblock` for each decision that ended, with
    /// exactly the time of its end.
    pub fn advance(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        self.now = self.now.max(now);
        while self.next_end <= self.now {
            let Some(((end, _), key)) = self.ends.pop_first() else { break };
            self.next_end = self.ends.first_key_value().map_or(Timestamp::MAX, |((t, _), _)| *t);
            let Some(ended) = self.active.remove(&key) else { continue };
            self.counters.unblocked_total += 1;
            out.push(Event::Decision(Decision {
                id: decision_id(&ended.policy, Action::Unblock, &ended.matches, end, ""),
                time: end,
                action: Action::Unblock,
                matches: ended.matches,
                ttl_secs: 0,
                confidence: ended.confidence,
                policy: ended.policy,
                campaign: None,
                reasons: Vec::new(),
                transactions: vec![ended.transaction],
                dry_run: self.config.dry_run,
                observability: OBSERVABILITY,
            }));
        }
        while let Some(entry) = self.quiet_ends.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            self.quiet.remove(&entry.remove());
        }
    }

    /// Returns the counters.
    pub fn counters(&self) -> PlannerCounters {
        PlannerCounters { neighbours_evicted_total: self.neighbours.evicted_total, ..self.counters }
    }

    /// Yields what is in force, soonest to end first.
    pub fn active(&self) -> impl Iterator<Item = &ActiveDecision> {
        self.ends.values().filter_map(|key| self.active.get(key))
    }

    fn propose(&mut self, tx: &Transaction, verdict: &Verdict, out: &mut Vec<Event>) {
        let allowlisted = self.allow.contains(tx.client);
        self.counters.proposals_total += verdict.proposals.len() as u64;
        for (at, proposal) in verdict.proposals.iter().enumerate() {
            if proposal.action == Action::Allow {
                self.counters.allowed_total += (verdict.proposals.len() - at) as u64;
                return;
            }
            if allowlisted {
                self.counters.allowlisted_total += 1;
                continue;
            }
            let Some(wish) = wish(tx, proposal) else {
                self.counters.scope_invalid_total += 1;
                continue;
            };
            match proposal.action {
                Action::Block | Action::Challenge => self.hold(tx, verdict, proposal, wish, out),
                Action::Notify => self.notify(tx, verdict, proposal, wish, out),
                Action::Tag | Action::Review => {
                    let id = tx.id();
                    self.counters.decided_total += 1;
                    let decision = self.decision(tx, verdict, proposal, &wish, vec![id], false);
                    out.push(Event::Decision(decision));
                }
                Action::Unblock | Action::Allow => self.counters.scope_invalid_total += 1,
            }
        }
    }

    fn hold(
        &mut self,
        tx: &Transaction,
        verdict: &Verdict,
        proposal: &Proposal,
        wish: MatchKey,
        out: &mut Vec<Event>,
    ) {
        let ttl_nanos = u64::from(self.ttl(proposal)) * 1_000_000_000;
        if tx.ended.plus_nanos(ttl_nanos) <= self.now {
            self.counters.stale_total += 1;
            return;
        }
        let budget = self.config.blast_radius.well_behaved_clients_max.min(BlastRadius::CLIENTS_MAX);
        let mut crowded = false;
        for (step, candidate) in candidates(&wish, tx).into_iter().flatten().enumerate() {
            let held = self.active.get(&candidate);
            let stronger =
                held.is_some_and(|h| h.action == Action::Block && proposal.action == Action::Challenge);
            let same = held.is_some_and(|h| h.action == proposal.action);
            let left = held.map_or(0, |h| h.expires.nanos_since(self.now));
            // A transaction that was handed on late may bring nothing that is not in force anyway.
            let longer = held.is_none_or(|h| tx.ended.plus_nanos(ttl_nanos) > h.expires);
            if stronger || (same && (left >= ttl_nanos / 2 || !longer)) {
                self.counters.duplicate_total += 1;
                return;
            }
            if let Some(EntityKey::Prefix(host)) = candidate.get(EntityKind::Prefix)
                && self.allow.overlaps_prefix_of(host)
            {
                continue;
            }
            let who = WHO.iter().any(|k| candidate.has(*k));
            if !who || self.neighbours.sharing(&candidate) > budget {
                crowded = true;
                continue;
            }
            self.enforce(tx, verdict, proposal, candidate, step > 0, same, out);
            return;
        }
        if !crowded {
            // Every match that was tried holds an address of the allowlist.
            self.counters.allowlisted_total += 1;
            return;
        }
        self.counters.blast_radius_total += 1;
        self.alarm(AlarmKind::BlastRadius, u64::from(budget), tx, proposal, &wish, out);
    }

    #[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename the list")]
    fn enforce(
        &mut self,
        tx: &Transaction,
        verdict: &Verdict,
        proposal: &Proposal,
        key: MatchKey,
        narrowed: bool,
        extend: bool,
        out: &mut Vec<Event>,
    ) {
        if !extend {
            let replaces = self.active.contains_key(&key);
            if !replaces && self.active.len() >= self.config.active_max {
                self.counters.active_full_total += 1;
                self.alarm(AlarmKind::ActiveFull, self.config.active_max as u64, tx, proposal, &key, out);
                return;
            }
            let minute = self.now.as_nanos() / MINUTE_NANOS;
            if minute != self.minute {
                (self.minute, self.minute_blocks) = (minute, 0);
            }
            if self.minute_blocks >= self.config.new_blocks_per_minute_max {
                self.counters.rate_capped_total += 1;
                let limit = u64::from(self.config.new_blocks_per_minute_max);
                self.alarm(AlarmKind::NewBlocksCapped, limit, tx, proposal, &key, out);
                return;
            }
            self.minute_blocks += 1;
            self.counters.decided_total += 1;
        } else {
            self.counters.extended_total += 1;
        }
        self.counters.narrowed_total += u64::from(narrowed);
        let evidence = self.evidence_of(&key, tx);
        let decision = self.decision(tx, verdict, proposal, &key, evidence, extend);
        let expires = decision.time.plus_secs(u64::from(decision.ttl_secs));
        self.numbers += 1;
        let mut entry = ActiveDecision {
            action: decision.action,
            matches: decision.matches.clone(),
            since: decision.time,
            expires,
            policy: decision.policy.clone(),
            confidence: decision.confidence,
            transaction: tx.id(),
            number: self.numbers,
        };
        if let Some(old) = self.active.get(&key) {
            self.ends.remove(&(old.expires, old.number));
            entry.confidence = entry.confidence.max(old.confidence);
            if extend {
                entry.since = old.since;
            }
        }
        self.ends.insert((entry.expires, entry.number), key);
        self.next_end = self.ends.first_key_value().map_or(Timestamp::MAX, |((t, _), _)| *t);
        self.active.insert(key, entry);
        out.push(Event::Decision(decision));
    }

    fn notify(
        &mut self,
        tx: &Transaction,
        verdict: &Verdict,
        proposal: &Proposal,
        wish: MatchKey,
        out: &mut Vec<Event>,
    ) {
        let ends = tx.ended.plus_secs(u64::from(self.ttl(proposal)));
        if !self.first_in(Quiet::Notify(proposal.policy, wish), ends) {
            self.counters.duplicate_total += 1;
            return;
        }
        self.counters.decided_total += 1;
        let evidence = self.evidence_of(&wish, tx);
        let decision = self.decision(tx, verdict, proposal, &wish, evidence, false);
        out.push(Event::Decision(decision));
    }

    fn account_at_risk(&mut self, tx: &Transaction, verdict: &Verdict, out: &mut Vec<Event>) {
        let Some(risk) = &verdict.account_at_risk else { return };
        if !self.first_in(Quiet::Risk(risk.user), tx.ended.plus_secs(RISK_QUIET_SECS)) {
            self.counters.account_at_risk_duplicate_total += 1;
            return;
        }
        self.counters.account_at_risk_total += 1;
        let user = risk.user.to_string();
        let entities = EntityKind::ALL
            .into_iter()
            .filter_map(|kind| Some(MatchValue { kind, value: tx.entity_text(kind)? }))
            .collect();
        let transaction = tx.id();
        out.push(Event::AccountAtRisk(AccountAtRiskEvent {
            id: hash_id(&[b"account_at_risk", user.as_bytes(), &tx.ended.as_nanos().to_be_bytes()]),
            time: tx.ended,
            user,
            failures_before: risk.failures_before,
            confidence: verdict.confidence,
            entities,
            transaction,
            dry_run: self.config.dry_run,
        }));
    }

    /// Tells whether `what` is not being kept quiet, and keeps it quiet until `ends`.
    fn first_in(&mut self, what: Quiet, ends: Timestamp) -> bool {
        if self.quiet.contains_key(&what) {
            return false;
        }
        if self.quiet.len() >= self.config.active_max.max(1)
            && let Some((_, soonest)) = self.quiet_ends.pop_first()
        {
            self.quiet.remove(&soonest);
            self.counters.quiet_evicted_total += 1;
        }
        self.numbers += 1;
        self.quiet.insert(what, ());
        self.quiet_ends.insert((ends, self.numbers), what);
        true
    }

    fn alarm(
        &mut self,
        kind: AlarmKind,
        limit: u64,
        tx: &Transaction,
        proposal: &Proposal,
        key: &MatchKey,
        out: &mut Vec<Event>,
    ) {
        let minute = self.now.as_nanos() / MINUTE_NANOS + 1;
        let Some(state) = self.alarms.get_mut(kind as usize) else { return };
        state.held_back += 1;
        if state.minute == minute {
            return;
        }
        state.minute = minute;
        let held_back = std::mem::take(&mut state.held_back);
        self.counters.alarms_total += 1;
        out.push(Event::Alarm(Alarm {
            id: hash_id(&[b"alarm", kind.name().as_bytes(), &self.now.as_nanos().to_be_bytes()]),
            time: self.now,
            kind,
            limit,
            held_back,
            policy: self.policy(proposal),
            matches: match_values(key, tx),
        }));
    }

    fn decision(
        &self,
        tx: &Transaction,
        verdict: &Verdict,
        proposal: &Proposal,
        key: &MatchKey,
        transactions: Vec<String>,
        extends: bool,
    ) -> Decision {
        let matches = match_values(key, tx);
        let policy = self.policy(proposal);
        // Two applications of one client at one time are two decisions, and so is what makes one last longer.
        let each = if extends || matches!(proposal.action, Action::Tag | Action::Review) {
            tx.id()
        } else {
            String::new()
        };
        let reason = |c: &offpath_types::Contribution| Reason {
            signal: c.signal.to_owned(),
            value: c.value,
            baseline: c.baseline,
            contribution: c.points,
        };
        Decision {
            id: decision_id(&policy, proposal.action, &matches, tx.ended, &each),
            time: tx.ended,
            action: proposal.action,
            matches,
            ttl_secs: self.ttl(proposal),
            confidence: verdict.confidence,
            policy,
            campaign: None,
            reasons: verdict.contributions.iter().take(REASONS_MAX).map(reason).collect(),
            transactions,
            dry_run: self.config.dry_run,
            observability: OBSERVABILITY,
        }
    }

    fn ttl(&self, proposal: &Proposal) -> u32 {
        proposal.ttl_secs.min(self.config.ttl_max_secs).max(1)
    }

    fn policy(&self, proposal: &Proposal) -> String {
        match self.config.policies.get(usize::from(proposal.policy)) {
            Some(name) => name.clone(),
            None => format!("policy-{}", proposal.policy),
        }
    }

    fn remember(&mut self, tx: &Transaction) {
        let mut keys = MatchKey::default();
        for kind in EntityKind::ALL {
            if let Some(key) = tx.entity(kind) {
                keys.set(key);
            }
        }
        let row = EvidenceRow { keys, flow_id: tx.flow_id, index: tx.index };
        match self.evidence.get_mut(self.evidence_next) {
            Some(old) => *old = row,
            None => self.evidence.push(row),
        }
        self.evidence_next = (self.evidence_next + 1) % EVIDENCE_ROWS;
    }

    /// Returns the latest remembered transactions that `key` matches, oldest first, the deciding one last.
    fn evidence_of(&self, key: &MatchKey, tx: &Transaction) -> Vec<String> {
        let (newer, older) = self.evidence.split_at(self.evidence_next.min(self.evidence.len()));
        let mut ids: Vec<String> = newer
            .iter()
            .rev()
            .chain(older.iter().rev())
            .filter(|row| (row.flow_id, row.index) != (tx.flow_id, tx.index))
            .filter(|row| key.iter().all(|k| row.keys.get(k.kind()) == Some(*k)))
            .take(self.config.evidence_max.saturating_sub(1))
            .map(|row| format!("{:016x}{:08x}", row.flow_id, row.index))
            .collect();
        ids.reverse();
        ids.push(tx.id());
        ids
    }
}

/// Returns the match that `proposal` wishes; `None` where it contradicts itself, names an endpoint other
/// than the transaction's (its text is not known here), or asks to block without saying whom.
fn wish(tx: &Transaction, proposal: &Proposal) -> Option<MatchKey> {
    let mut key = MatchKey::default();
    for part in &proposal.scope {
        let foreign_endpoint =
            part.kind() == EntityKind::Endpoint && tx.entity(EntityKind::Endpoint) != Some(*part);
        if foreign_endpoint || key.get(part.kind()).is_some_and(|k| k != *part) {
            return None;
        }
        key.set(*part);
    }
    let holds = matches!(proposal.action, Action::Block | Action::Challenge);
    (!holds || key.iter().next().is_some()).then_some(key)
}

/// Returns `wish` and what is narrower and still means the transaction's client, widest first.
fn candidates(wish: &MatchKey, tx: &Transaction) -> [Option<MatchKey>; 6] {
    use EntityKind::{Endpoint, Fingerprint, Ip, Prefix, Session, User};
    if wish.has(Session) {
        return [Some(*wish), None, None, None, None, None];
    }
    let session = MatchKey::default().with(tx, Session);
    // Narrower matches are about this transaction's client; a wish about somebody else has none.
    let ours = wish.iter().all(|k| tx.entity(k.kind()) == Some(*k));
    if !ours {
        return [Some(*wish), None, None, None, None, None];
    }
    if wish.has(User) {
        return [Some(*wish), wish.with(tx, Ip), session, None, None, None];
    }
    if wish.has(Ip) || wish.has(Prefix) {
        let ip = wish.without(Prefix).with(tx, Ip);
        let narrower = |k: Option<MatchKey>| k.filter(|k| k != wish);
        let ip_print = ip.and_then(|k| k.with(tx, Fingerprint));
        let here = ip_print.and_then(|k| k.with(tx, Endpoint));
        let prefix_print = if wish.has(Ip) { None } else { wish.with(tx, Fingerprint) };
        return [
            Some(*wish),
            narrower(prefix_print),
            narrower(ip),
            narrower(ip_print),
            narrower(here).filter(|k| ip_print != Some(*k)),
            session,
        ];
    }
    if wish.has(Fingerprint) {
        let here = wish.with(tx, Endpoint);
        let prefix = here.unwrap_or(*wish).with(tx, Prefix);
        let ip = here.unwrap_or(*wish).with(tx, Ip);
        return [Some(*wish), here.filter(|k| k != wish), prefix, ip, session, None];
    }
    // Only an endpoint: it names nobody, so look for the client at it.
    [
        Some(*wish),
        wish.with(tx, Ip),
        wish.with(tx, Ip).and_then(|k| k.with(tx, Fingerprint)),
        session,
        None,
        None,
    ]
}

fn match_values(key: &MatchKey, tx: &Transaction) -> Vec<MatchValue> {
    // An endpoint has a text only as this transaction's; `wish` made sure that it is.
    let own = |k: &EntityKey| tx.entity(k.kind()) == Some(*k) || k.kind() == EntityKind::Endpoint;
    let value = |k: &EntityKey| MatchValue {
        kind: k.kind(),
        value: if own(k) { tx.entity_text(k.kind()).unwrap_or_default() } else { k.to_string() },
    };
    key.iter().map(value).collect()
}

fn decision_id(policy: &str, action: Action, matches: &[MatchValue], time: Timestamp, each: &str) -> String {
    let mut parts: Vec<&[u8]> = vec![policy.as_bytes(), action.name().as_bytes(), each.as_bytes()];
    for m in matches {
        parts.push(m.kind.name().as_bytes());
        parts.push(m.value.as_bytes());
    }
    let nanos = time.as_nanos().to_be_bytes();
    parts.push(&nanos);
    hash_id(&parts)
}

/// Returns 32 hex digits of SHA-256 over the parts, each with its length before it.
fn hash_id(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut id = String::with_capacity(32);
    for byte in digest.iter().take(16) {
        for nibble in [byte >> 4, byte & 15] {
            id.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
    id
}

#[cfg(test)]
mod tests;
