//! The wire format: serialisable twins of events. JSON field names live here and nowhere else.

use std::collections::BTreeMap;

use offpath_types::{Action, Decision, MatchValue, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{AccountAtRiskEvent, Alarm, Event};

/// A decision as records and webhooks carry it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Unique and repeatable.
    pub id: String,
    /// Packet time, RFC 3339 in UTC with nanoseconds.
    pub time: String,
    /// `block`, `challenge`, `tag`, `review`, `notify`, `unblock`.
    pub action: String,
    /// Every named entity value must equal.
    #[serde(rename = "match")]
    pub matches: BTreeMap<String, String>,
    /// How long it holds; 0 for `unblock`.
    pub ttl_secs: u32,
    /// Confidence of the deciding transaction, 0..=100.
    #[serde(default)]
    pub confidence: u8,
    /// Name of the policy.
    #[serde(default)]
    pub policy: String,
    /// Id of the campaign, where there is one.
    #[serde(default)]
    pub campaign: Option<String>,
    /// Why.
    #[serde(default)]
    pub reasons: Vec<ReasonRecord>,
    /// Ids of the transactions that are evidence, the deciding one last.
    #[serde(default)]
    pub transactions: Vec<String>,
    /// Only a rehearsal. A record that does not say is one: on doubt nothing is blocked.
    #[serde(default = "yes")]
    pub dry_run: bool,
    /// Share of the traffic that was seen when it was made, 0..=1.
    #[serde(default = "whole")]
    pub observability: f64,
}

/// One reason of a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReasonRecord {
    /// Name of the signal.
    pub signal: String,
    /// What was observed.
    pub value: f64,
    /// What would be usual.
    pub baseline: f64,
    /// How much it added.
    pub contribution: f64,
}

const fn yes() -> bool {
    true
}

const fn whole() -> f64 {
    1.0
}

/// Returns the serialisable twin of `decision`.
pub fn decision_record(decision: &Decision) -> DecisionRecord {
    DecisionRecord {
        id: decision.id.clone(),
        time: rfc3339(decision.time),
        action: decision.action.name().to_owned(),
        matches: match_map(&decision.matches),
        ttl_secs: decision.ttl_secs,
        confidence: decision.confidence,
        policy: decision.policy.clone(),
        campaign: decision.campaign.clone(),
        reasons: decision
            .reasons
            .iter()
            .map(|r| ReasonRecord {
                signal: r.signal.clone(),
                value: r.value,
                baseline: r.baseline,
                contribution: r.contribution,
            })
            .collect(),
        transactions: decision.transactions.clone(),
        dry_run: decision.dry_run,
        observability: decision.observability,
    }
}

impl DecisionRecord {
    /// Returns the action, where the name is one of a decision (`allow` is a policy's).
    pub fn action(&self) -> Option<Action> {
        [Action::Block, Action::Challenge, Action::Tag, Action::Review, Action::Notify, Action::Unblock]
            .into_iter()
            .find(|a| a.name() == self.action)
    }
}

/// An account at risk as webhooks carry it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AccountAtRiskRecord {
    /// Unique and repeatable.
    pub id: String,
    /// Packet time, RFC 3339.
    pub time: String,
    /// The hashed user.
    pub user: String,
    /// Failures before the success.
    pub failures_before: u32,
    /// Confidence that the login was automated.
    pub confidence: u8,
    /// Every entity of the login.
    pub entities: BTreeMap<String, String>,
    /// Id of the login's transaction.
    pub transaction: String,
    /// Only a rehearsal.
    pub dry_run: bool,
}

/// Returns the serialisable twin of `event`.
pub fn account_at_risk_record(event: &AccountAtRiskEvent) -> AccountAtRiskRecord {
    AccountAtRiskRecord {
        id: event.id.clone(),
        time: rfc3339(event.time),
        user: event.user.clone(),
        failures_before: event.failures_before,
        confidence: event.confidence,
        entities: match_map(&event.entities),
        transaction: event.transaction.clone(),
        dry_run: event.dry_run,
    }
}

/// An alarm as webhooks carry it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlarmRecord {
    /// Unique and repeatable.
    pub id: String,
    /// Packet time, RFC 3339.
    pub time: String,
    /// `new_blocks_capped`, `blast_radius`, `active_full`.
    pub alarm: &'static str,
    /// The limit that was met.
    pub limit: u64,
    /// How many decisions were held back since the alarm before.
    pub held_back: u64,
    /// The policy that wished for the decision.
    pub policy: String,
    /// What it wished to match.
    #[serde(rename = "match")]
    pub matches: BTreeMap<String, String>,
}

/// Returns the serialisable twin of `alarm`.
pub fn alarm_record(alarm: &Alarm) -> AlarmRecord {
    AlarmRecord {
        id: alarm.id.clone(),
        time: rfc3339(alarm.time),
        alarm: alarm.kind.name(),
        limit: alarm.limit,
        held_back: alarm.held_back,
        policy: alarm.policy.clone(),
        matches: match_map(&alarm.matches),
    }
}

/// Returns `event` as one JSON object: what a line of a decisions file or a webhook's `data` holds.
pub fn event_json(event: &Event) -> serde_json::Result<String> {
    match event {
        Event::Decision(d) => serde_json::to_string(&decision_record(d)),
        Event::AccountAtRisk(a) => serde_json::to_string(&account_at_risk_record(a)),
        Event::Alarm(a) => serde_json::to_string(&alarm_record(a)),
    }
}

/// Returns the body of the webhook: `{"type":…,"timestamp":…,"data":…}`.
pub fn webhook_body(event: &Event) -> serde_json::Result<String> {
    let data = event_json(event)?;
    Ok(format!(r#"{{"type":"{}","timestamp":"{}","data":{data}}}"#, event.kind(), rfc3339(event.time())))
}

/// Writes a packet time as RFC 3339 in UTC with nanoseconds.
pub fn rfc3339(time: Timestamp) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(time.as_nanos())) {
        Ok(t) => t.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string(),
        // Every u64 of nanoseconds is before 2555, inside jiff's range.
        Err(_) => time.to_string(),
    }
}

fn match_map(values: &[MatchValue]) -> BTreeMap<String, String> {
    values.iter().map(|m| (m.kind.name().to_owned(), m.value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use offpath_types::{EntityKind, Reason};

    use super::*;
    use crate::AlarmKind;

    fn decision() -> Decision {
        Decision {
            id: "d1".into(),
            time: Timestamp::from_parts(1_700_000_000, 5),
            action: Action::Block,
            matches: vec![
                MatchValue { kind: EntityKind::Ip, value: "192.0.2.1".into() },
                MatchValue { kind: EntityKind::Fingerprint, value: "00000000000000ff".into() },
            ],
            ttl_secs: 600,
            confidence: 97,
            policy: "ato \"x\"".into(),
            campaign: None,
            reasons: vec![Reason { signal: "s".into(), value: 9.0, baseline: 0.5, contribution: 40.0 }],
            transactions: vec!["t1".into()],
            dry_run: true,
            observability: 0.99,
        }
    }

    #[test]
    fn a_decision_is_written_with_the_names_of_the_contract() {
        let want = concat!(
            r#"{"id":"d1","time":"2023-11-14T22:13:20.000000005Z","action":"block","#,
            r#""match":{"fingerprint":"00000000000000ff","ip":"192.0.2.1"},"ttl_secs":600,"confidence":97,"#,
            r#""policy":"ato \"x\"","campaign":null,"#,
            r#""reasons":[{"signal":"s","value":9.0,"baseline":0.5,"contribution":40.0}],"#,
            r#""transactions":["t1"],"dry_run":true,"observability":0.99}"#
        );
        assert_eq!(serde_json::to_string(&decision_record(&decision())).unwrap(), want);
        let body = webhook_body(&Event::Decision(decision())).unwrap();
        assert_eq!(
            body,
            format!(
                r#"{{"type":"offpath.decision.v1","timestamp":"2023-11-14T22:13:20.000000005Z","data":{want}}}"#
            )
        );
        let back: DecisionRecord = serde_json::from_str(want).unwrap();
        assert_eq!(back, decision_record(&decision()));
        assert_eq!(back.action(), Some(Action::Block));
    }

    #[test]
    fn a_record_that_does_not_say_is_a_rehearsal() {
        let text = r#"{"id":"a","time":"","action":"block","match":{},"ttl_secs":1}"#;
        assert!(serde_json::from_str::<DecisionRecord>(text).unwrap().dry_run);
    }

    #[test]
    fn other_events_have_their_own_types() {
        let alarm = Alarm {
            id: "a".into(),
            time: Timestamp::ZERO,
            kind: AlarmKind::BlastRadius,
            limit: 3,
            held_back: 2,
            policy: "p".into(),
            matches: vec![],
        };
        assert_eq!(
            webhook_body(&Event::Alarm(alarm)).unwrap(),
            concat!(
                r#"{"type":"offpath.alarm.v1","timestamp":"1970-01-01T00:00:00.000000000Z","data":{"id":"a","#,
                r#""time":"1970-01-01T00:00:00.000000000Z","alarm":"blast_radius","limit":3,"held_back":2,"#,
                r#""policy":"p","match":{}}}"#
            )
        );
        assert_eq!(rfc3339(Timestamp::MAX), "2554-07-21T23:34:33.709551615Z");
    }
}
