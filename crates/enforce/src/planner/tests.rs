use std::net::IpAddr;

use offpath_types::{AccountAtRisk, Contribution, FlowInfo, FlowKey, Host, LoginOutcome, Peer, TunnelId};
use proptest::prelude::*;

use super::*;

const START: u64 = 1_700_000_040; // a whole minute

fn at(secs: u64) -> Timestamp {
    Timestamp::from_parts(START + secs, 0)
}

/// A transaction of `client` with stack `print` at second `secs`.
fn tx(client: &str, print: u64, secs: u64) -> Transaction {
    let host = Host::from(client.parse::<IpAddr>().unwrap());
    let server = Peer { host: Host::from_v4([10, 9, 9, 9]), port: 80 };
    let (key, client_side) = FlowKey::new(Peer { host, port: 40_000 }, server, TunnelId(0));
    let flow =
        FlowInfo { key, client_side, opened: at(secs), midstream: false, envelope: Default::default() };
    let mut tx = Transaction::new(flow, u64::from(host.octets()[15]) << 32 | secs, 0, at(secs));
    tx.fingerprint = print;
    tx.endpoint = tx.text.push(b"POST /login");
    tx.endpoint_hash = 77;
    tx
}

fn with_session(mut tx: Transaction, session: u8) -> Transaction {
    tx.session = Some(IdentityHash([session; 16]));
    tx
}

fn benign() -> Verdict {
    Verdict { confidence: 3, ..Verdict::default() }
}

fn verdict(tx: &Transaction, action: Action, scope: &[EntityKind], ttl_secs: u32) -> Verdict {
    let scope = scope.iter().map(|k| tx.entity(*k).unwrap()).collect();
    Verdict {
        confidence: 95,
        contributions: vec![Contribution {
            signal: "failed_logins",
            entity: EntityKind::Ip,
            value: 30.0,
            baseline: 0.1,
            points: 45.0,
        }],
        proposals: vec![Proposal { policy: 0, action, scope, ttl_secs }],
        ..Verdict::default()
    }
}

fn config() -> PlannerConfig {
    PlannerConfig { dry_run: false, policies: vec!["ato".into()], ..PlannerConfig::default() }
}

/// Plans one proposal and returns what came out as short texts.
fn plan(planner: &mut Planner, tx: &Transaction, verdict: &Verdict) -> Vec<String> {
    let mut out = Vec::new();
    planner.plan(tx, verdict, &mut out);
    out.iter().map(short).collect()
}

fn advance(planner: &mut Planner, secs: u64) -> Vec<String> {
    let mut out = Vec::new();
    planner.advance(at(secs), &mut out);
    out.iter().map(short).collect()
}

fn short(event: &Event) -> String {
    let list = |m: &[MatchValue]| {
        m.iter().map(|m| format!("{}={}", m.kind.name(), m.value)).collect::<Vec<_>>().join("+")
    };
    let secs = (event.time().as_nanos() / 1_000_000_000).saturating_sub(START);
    match event {
        Event::Decision(d) => format!("{secs}: {} {} {}", d.action.name(), list(&d.matches), d.ttl_secs),
        Event::AccountAtRisk(a) => format!("{secs}: risk {} {}", &a.user[..4], a.failures_before),
        Event::Alarm(a) => format!("{secs}: alarm {} {}", a.kind.name(), a.held_back),
    }
}

fn assert_balanced(planner: &Planner) {
    let c = planner.counters();
    assert_eq!(
        c.proposals_total,
        c.decided_total
            + c.extended_total
            + c.duplicate_total
            + c.allowlisted_total
            + c.allowed_total
            + c.blast_radius_total
            + c.rate_capped_total
            + c.active_full_total
            + c.stale_total
            + c.scope_invalid_total,
        "{c:?}"
    );
}

/// Makes `count` clients with sessions of their own behave well behind `client` with `print`.
fn neighbours(planner: &mut Planner, client: &str, print: u64, count: u8, secs: u64) {
    for session in 0..count {
        for _ in 0..2 {
            let tx = with_session(tx(client, print, secs), 100 + session);
            assert_eq!(plan(planner, &tx, &benign()), Vec::<String>::new());
        }
    }
}

const IP: &[EntityKind] = &[EntityKind::Ip];
const NOTHING: [&str; 0] = [];

#[test]
fn a_block_is_made_once_extended_late_and_taken_back_on_time() {
    let mut p = Planner::new(config());
    let mut go = |secs: u64| {
        let tx = tx("192.0.2.1", 5, secs);
        let v = verdict(&tx, Action::Block, IP, 100);
        plan(&mut p, &tx, &v)
    };
    assert_eq!(go(0), ["0: block ip=192.0.2.1 100"]);
    assert_eq!(go(1), NOTHING);
    assert_eq!(go(50), NOTHING, "half is left");
    assert_eq!(go(51), ["51: block ip=192.0.2.1 100"], "less than half is left");
    assert_eq!(go(101), NOTHING, "it was prolonged");
    assert_eq!(p.active().map(|a| (a.since, a.expires)).collect::<Vec<_>>(), [(at(0), at(151))]);
    assert_eq!(advance(&mut p, 150), NOTHING);
    assert_eq!(advance(&mut p, 9999), ["151: unblock ip=192.0.2.1 0"], "with the time of its end");
    assert_eq!(p.active().count(), 0);
    assert_balanced(&p);
    let c = p.counters();
    assert_eq!((c.decided_total, c.extended_total, c.duplicate_total, c.unblocked_total), (1, 1, 3, 1));
}

#[test]
fn a_decision_says_who_why_and_by_what_evidence() {
    let mut p = Planner::new(PlannerConfig { evidence_max: 3, dry_run: true, ..config() });
    let mut out = Vec::new();
    for secs in 0..5 {
        let tx = tx("192.0.2.1", 5, secs);
        p.plan(&tx, &Verdict { confidence: 60, ..Verdict::default() }, &mut out);
        let other = tx_other(secs);
        p.plan(&other, &Verdict { confidence: 60, ..Verdict::default() }, &mut out);
    }
    let last = tx("192.0.2.1", 5, 9);
    p.plan(&last, &verdict(&last, Action::Block, IP, 60), &mut out);
    let Some(Event::Decision(d)) = out.pop() else { panic!("{out:?}") };
    assert!(out.is_empty());
    let ids: Vec<String> = [3, 4, 9].iter().map(|s| tx("192.0.2.1", 5, *s).id()).collect();
    assert_eq!(d.transactions, ids);
    assert_eq!((d.policy.as_str(), d.confidence, d.dry_run, d.observability), ("ato", 95, true, 1.0));
    assert_eq!(d.reasons[0].signal, "failed_logins");
    assert_eq!((d.reasons[0].value, d.reasons[0].baseline, d.reasons[0].contribution), (30.0, 0.1, 45.0));
    assert_eq!(d.id.len(), 32);
    // The same input gives the same id; the unblock and an extension have ids of their own.
    let again = decision_id("ato", Action::Block, &d.matches, d.time, "");
    assert_eq!(d.id, again);
    assert_ne!(d.id, decision_id("ato", Action::Unblock, &d.matches, d.time, ""));
    assert_ne!(d.id, decision_id("ato", Action::Block, &d.matches, at(10), ""));
}

fn tx_other(secs: u64) -> Transaction {
    tx("192.0.2.200", 5, secs)
}

#[test]
fn the_allowlist_comes_first() {
    let nets = |t: &[&str]| t.iter().map(|n| n.parse().unwrap()).collect::<Vec<IpNet>>();
    let mut p = Planner::new(PlannerConfig {
        allow: nets(&["192.0.2.0/28", "2001:db8::/64"]),
        own_proxies: nets(&["10.0.0.1/32"]),
        ..config()
    });
    for client in ["192.0.2.15", "10.0.0.1", "2001:db8::1"] {
        let tx = tx(client, 5, 0);
        for action in [Action::Block, Action::Challenge, Action::Tag, Action::Review, Action::Notify] {
            assert_eq!(plan(&mut p, &tx, &verdict(&tx, action, IP, 60)), NOTHING, "{client}");
        }
    }
    assert_eq!(p.counters().allowlisted_total, 15);
    // A prefix that holds an allowlisted address is not blocked; the address beside it is.
    let tx = tx("192.0.2.77", 5, 1);
    let v = verdict(&tx, Action::Block, &[EntityKind::Prefix], 60);
    assert_eq!(plan(&mut p, &tx, &v), ["1: block ip=192.0.2.77 60"]);
    assert_balanced(&p);
}

#[test]
fn blast_radius_seeks_a_narrower_match() {
    type Row<'a> = (&'a str, u8, u64, &'a [EntityKind], bool, &'a [&'a str]);
    let (own, same) = (5, 6);
    let rows: [Row<'_>; 10] = [
        ("within budget", 3, own, IP, false, &["9: block ip=192.0.2.1 60"]),
        ("office, own stack", 4, own, IP, false, &["9: block ip=192.0.2.1+fingerprint=0000000000000005 60"]),
        (
            "office, same stack, session",
            4,
            same,
            IP,
            true,
            &["9: block session=07070707070707070707070707070707 60"],
        ),
        ("office, same stack, nothing left", 4, same, IP, false, &["9: alarm blast_radius 1"]),
        (
            "prefix, own stack",
            4,
            own,
            &[EntityKind::Prefix],
            false,
            &["9: block prefix=192.0.2.0/24+fingerprint=0000000000000005 60"],
        ),
        ("common stack", 4, same, &[EntityKind::Fingerprint], false, &["9: alarm blast_radius 1"]),
        (
            "rare stack",
            4,
            own,
            &[EntityKind::Fingerprint],
            false,
            &["9: block fingerprint=0000000000000005 60"],
        ),
        (
            "user",
            9,
            same,
            &[EntityKind::Session],
            true,
            &["9: block session=07070707070707070707070707070707 60"],
        ),
        (
            "endpoint alone names nobody",
            0,
            own,
            &[EntityKind::Endpoint],
            false,
            &["9: block ip=192.0.2.1+endpoint=POST /login 60"],
        ),
        (
            "stack at endpoint",
            4,
            own,
            &[EntityKind::Fingerprint, EntityKind::Endpoint],
            false,
            &["9: block fingerprint=0000000000000005+endpoint=POST /login 60"],
        ),
    ];
    for (name, count, print, scope, session, want) in rows {
        let mut p = Planner::new(config());
        neighbours(&mut p, "192.0.2.1", 6, count, 1);
        let mut tx = tx("192.0.2.1", print, 9);
        if session {
            tx = with_session(tx, 7);
        }
        assert_eq!(plan(&mut p, &tx, &verdict(&tx, Action::Block, scope, 60)), want, "{name}");
        assert_balanced(&p);
    }
    // A common stack, but nobody well-behaved elsewhere: narrowed to the prefix, then found free.
    let mut p = Planner::new(config());
    neighbours(&mut p, "198.51.100.1", 6, 4, 1);
    let tx = tx("192.0.2.1", 6, 9);
    let v = verdict(&tx, Action::Block, &[EntityKind::Fingerprint], 60);
    assert_eq!(
        plan(&mut p, &tx, &v),
        ["9: block prefix=192.0.2.0/24+fingerprint=0000000000000006+endpoint=POST /login 60"]
    );
    assert_eq!(p.counters().narrowed_total, 1);
}

#[test]
fn who_counts_as_well_behaved() {
    let blocked = |prepare: &dyn Fn(&mut Planner), secs: u64| {
        let mut p = Planner::new(config());
        prepare(&mut p);
        let tx = tx("192.0.2.1", 5, secs);
        let v = verdict(&tx, Action::Block, IP, 60);
        plan(&mut p, &tx, &v)[0].contains("block ip=192.0.2.1 60")
    };
    assert!(!blocked(&|p| neighbours(p, "192.0.2.1", 6, 4, 1), 3600), "within the window");
    assert!(blocked(&|p| neighbours(p, "192.0.2.1", 6, 4, 1), 3600 + 1000), "an hour and an eighth later");
    let once = |p: &mut Planner| {
        for session in 0..100 {
            plan(p, &with_session(tx("192.0.2.1", 6, 1), session), &benign());
        }
    };
    assert!(blocked(&once, 9), "a made-up session per request is no client");
    let failing = |p: &mut Planner| {
        for session in 0..20 {
            for _ in 0..2 {
                let v = Verdict { login: Some(LoginOutcome::Failure), ..benign() };
                plan(p, &with_session(tx("192.0.2.1", 6, 1), session), &v);
            }
        }
    };
    assert!(blocked(&failing, 9), "failed logins speak for nobody");
    let turned = |p: &mut Planner| {
        neighbours(p, "192.0.2.1", 6, 5, 1);
        for session in 0..2 {
            let v = Verdict { confidence: 80, ..Verdict::default() };
            plan(p, &with_session(tx("192.0.2.1", 6, 2), 100 + session), &v);
        }
    };
    assert!(blocked(&turned, 9), "two of five turned out bad, three are within the budget");
}

#[test]
fn new_blocks_are_capped_per_minute_with_one_alarm() {
    let mut p = Planner::new(PlannerConfig { new_blocks_per_minute_max: 2, ..config() });
    let mut go = |last: u8, secs: u64| {
        let tx = tx(&format!("192.0.2.{last}"), 5, secs);
        let v = verdict(&tx, Action::Block, IP, 600);
        plan(&mut p, &tx, &v)
    };
    assert_eq!(go(1, 0), ["0: block ip=192.0.2.1 600"]);
    assert_eq!(go(2, 1), ["1: block ip=192.0.2.2 600"]);
    assert_eq!(go(3, 2), ["2: alarm new_blocks_capped 1"]);
    assert_eq!(go(4, 3), NOTHING);
    assert_eq!(go(1, 4), NOTHING, "in force: neither new nor capped");
    assert_eq!(go(3, 60), ["60: block ip=192.0.2.3 600"], "the next minute");
    assert_eq!(go(4, 61), ["61: block ip=192.0.2.4 600"]);
    assert_eq!(go(5, 62), ["62: alarm new_blocks_capped 2"], "with what was held back since");
    assert_balanced(&p);
    assert_eq!(p.counters().rate_capped_total, 3);
}

#[test]
fn what_is_in_force_is_bounded() {
    let mut p = Planner::new(PlannerConfig { active_max: 1, ..config() });
    let (a, b) = (tx("192.0.2.1", 5, 0), tx("192.0.2.2", 5, 1));
    assert_eq!(plan(&mut p, &a, &verdict(&a, Action::Challenge, IP, 60)), ["0: challenge ip=192.0.2.1 60"]);
    assert_eq!(plan(&mut p, &b, &verdict(&b, Action::Block, IP, 60)), ["1: alarm active_full 1"]);
    // A block replaces the challenge of the same match, and a challenge is nothing beside a block.
    assert_eq!(plan(&mut p, &a, &verdict(&a, Action::Block, IP, 60)), ["0: block ip=192.0.2.1 60"]);
    assert_eq!(plan(&mut p, &a, &verdict(&a, Action::Challenge, IP, 60)), NOTHING);
    assert_eq!(advance(&mut p, 60), ["60: unblock ip=192.0.2.1 0"]);
    assert_balanced(&p);
}

#[test]
fn other_actions() {
    let mut p = Planner::new(config());
    let tx0 = tx("192.0.2.1", 5, 0);
    let tag = verdict(&tx0, Action::Tag, IP, 60);
    let (a, b) = (plan(&mut p, &tx0, &tag), plan(&mut p, &tx0, &tag));
    assert_eq!(
        (a.as_slice(), b.as_slice()),
        (["0: tag ip=192.0.2.1 60".to_owned()].as_slice(), a.as_slice())
    );
    let notify = verdict(&tx0, Action::Notify, IP, 60);
    assert_eq!(plan(&mut p, &tx0, &notify), ["0: notify ip=192.0.2.1 60"]);
    assert_eq!(plan(&mut p, &tx0, &notify), NOTHING);
    let late = tx("192.0.2.1", 5, 60);
    assert_eq!(plan(&mut p, &late, &notify), ["60: notify ip=192.0.2.1 60"], "and no unblock before it");
    // `allow` ends the list; contradictory or empty scopes are refused.
    let mut v = verdict(&tx0, Action::Allow, IP, 60);
    v.proposals.push(tag.proposals[0].clone());
    assert_eq!(plan(&mut p, &tx0, &v), NOTHING);
    let mut twice = verdict(&tx0, Action::Block, IP, 60);
    twice.proposals[0].scope.push(EntityKey::Ip(Host::from_v4([9, 9, 9, 9])));
    let mut empty = verdict(&tx0, Action::Block, IP, 60);
    empty.proposals[0].scope.clear();
    let mut foreign = verdict(&tx0, Action::Block, IP, 60);
    foreign.proposals[0].scope.push(EntityKey::Endpoint(123));
    for v in [&twice, &empty, &foreign, &verdict(&tx0, Action::Unblock, IP, 60)] {
        assert_eq!(plan(&mut p, &tx0, v), NOTHING);
    }
    assert_eq!(p.counters().scope_invalid_total, 4);
    assert_eq!(p.counters().allowed_total, 2);
    // Too late to be of use.
    let mut old = tx("192.0.2.9", 5, 0);
    old.emitted = at(70);
    assert_eq!(plan(&mut p, &old, &verdict(&old, Action::Block, IP, 60)), NOTHING);
    assert_eq!(p.counters().stale_total, 1);
    assert_balanced(&p);
}

#[test]
fn an_account_at_risk_is_reported_once_an_hour() {
    let mut p = Planner::new(config());
    let mut go = |secs: u64| {
        let tx = tx("192.0.2.1", 5, secs);
        let risk = AccountAtRisk { user: IdentityHash([0xab; 16]), failures_before: 12 };
        plan(&mut p, &tx, &Verdict { account_at_risk: Some(risk), ..benign() })
    };
    assert_eq!(go(0), ["0: risk abab 12"]);
    assert_eq!(go(3599), NOTHING);
    assert_eq!(go(3600), ["3600: risk abab 12"]);
}

#[test]
fn what_makes_a_block_last_longer_is_a_decision_of_its_own() {
    let mut p = Planner::new(config());
    let mut out = Vec::new();
    let scope: &[EntityKind] = &[EntityKind::Ip, EntityKind::Endpoint];
    // Two transactions that end at one time, the second with a longer life; and again, which brings nothing.
    for (number, ttl) in [(0, 1), (1, 96), (2, 96)] {
        let tx = with_session(tx("192.0.2.32", number, 7), 32);
        p.plan(&tx, &verdict(&tx, Action::Block, scope, ttl), &mut out);
    }
    let ids: Vec<&str> = out.iter().map(Event::id).collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    // Handed on so late that most of the first block is over: the same end, so no other decision.
    let mut late = with_session(tx("192.0.2.32", 3, 7), 32);
    late.emitted = late.ended.plus_secs(90);
    p.plan(&late, &verdict(&late, Action::Block, scope, 96), &mut out);
    assert_eq!((out.len(), p.counters().duplicate_total), (2, 2));
    assert_balanced(&p);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Never a block on the allowlist; every block is taken back or in force, exactly once; ids are unique;
    /// the cap holds in every minute; the books balance; a second run gives the same.
    #[test]
    fn invariants(steps in proptest::collection::vec(
        (0u8..40, 0u64..3, 0u64..40, 0u8..6, 0usize..5, 1u32..200, any::<bool>()), 1..300,
    )) {
        let run = || {
            let mut p = Planner::new(PlannerConfig {
                allow: vec!["192.0.2.0/29".parse().unwrap()],
                new_blocks_per_minute_max: 3,
                active_max: 8,
                ..config()
            });
            let mut out = Vec::new();
            let mut secs = 0;
            for (last, print, step, kind, scope, ttl, good) in &steps {
                secs += step;
                let tx = with_session(tx(&format!("192.0.2.{last}"), *print, secs), *last);
                if *good {
                    p.plan(&tx, &benign(), &mut out);
                    continue;
                }
                let action = [
                    Action::Block, Action::Challenge, Action::Notify, Action::Tag, Action::Allow, Action::Block,
                ][usize::from(*kind)];
                let scope: &[EntityKind] = [
                    IP, &[EntityKind::Prefix], &[EntityKind::Session], &[EntityKind::Endpoint], &[EntityKind::Ip, EntityKind::Endpoint],
                ][*scope];
                p.plan(&tx, &verdict(&tx, action, scope, *ttl), &mut out);
            }
            let in_force: Vec<Vec<MatchValue>> = p.active().map(|a| a.matches.clone()).collect();
            assert_balanced(&p);
            (out, in_force, p.counters())
        };
        let (events, in_force, counters) = run();
        prop_assert_eq!(&run().0, &events);
        let mut held: BTreeMap<Vec<MatchValue>, Timestamp> = BTreeMap::new();
        let mut ids = std::collections::BTreeSet::new();
        let mut last = Timestamp::ZERO;
        for event in &events {
            prop_assert!(ids.insert(event.id().to_owned()), "id twice: {:?}", event);
            let Some(d) = event.decision() else { continue };
            prop_assert!(d.time >= last, "time goes back");
            last = d.time;
            for m in &d.matches {
                let allowed = m.kind == EntityKind::Ip && (0..8).any(|n| m.value == format!("192.0.2.{n}"));
                let prefix = m.kind == EntityKind::Prefix && d.action != Action::Notify && d.action != Action::Tag;
                prop_assert!(!allowed && !prefix, "{:?}", d);
            }
            match d.action {
                Action::Block | Action::Challenge => {
                    prop_assert!(!d.matches.is_empty());
                    held.insert(d.matches.clone(), d.time.plus_secs(u64::from(d.ttl_secs)));
                }
                Action::Unblock => prop_assert_eq!(held.remove(&d.matches), Some(d.time)),
                _ => {}
            }
        }
        let mut left: Vec<_> = held.into_keys().collect();
        let mut in_force = in_force;
        left.sort();
        in_force.sort();
        prop_assert_eq!(left, in_force);
        prop_assert_eq!(counters.transactions_total, steps.len() as u64);
    }
}
