//! From a rated transaction to proposals: which policies hold, and whom they name.

use offpath_types::{Action, EntityKey, EntityKind, LoginOutcome, Proposal, Span, Transaction, Verdict};

use super::{Scorer, Slots};
use crate::condition::{Facts, Flag, Number, Text};
use crate::evidence::Evidence;
use crate::judge::CLIENT;
use crate::policy::Scope;
use crate::signals::Signal;

impl Scorer {
    pub(super) fn apply_policies(
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
