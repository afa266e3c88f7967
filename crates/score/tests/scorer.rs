//! What the scorer promises as a whole: short captures, accounts at risk, policies, caps, repeatability.

mod common;

use common::{Client, Rng, Style, Town, Who, identity, login, request};
use offpath_score::{
    Condition, EntityCaps, LoginRule, OutcomeRule, OutcomeSource, Policy, Scope, ScoreConfig, Scorer,
};
use offpath_types::{
    Action, BodyHint, EntityKey, EntityKind, Host, LoginOutcome, StackClass, Transaction, Verdict,
};

const STYLES: [Style; 4] = [Style::Status, Style::Redirect, Style::FormAgain, Style::Body];

fn scorer() -> Scorer {
    Scorer::new(ScoreConfig::default(), Scorer::default_policies(), 5)
}

fn client(last: u8, fingerprint: u64) -> Client {
    Client::library([198, 51, 100, last], fingerprint)
}

#[expect(clippy::unwrap_used, reason = "a test's condition compiles")]
fn policy(condition: &str, action: Action, scope: Scope) -> Policy {
    Policy {
        name: "p".into(),
        condition: Condition::compile(condition).unwrap(),
        action,
        scope,
        ttl_secs: 60,
    }
}

#[test]
fn the_demo_is_found_by_the_fifteenth_attempt_without_any_history() {
    for style in STYLES {
        let mut s = scorer();
        let first = (0..60u32)
            .find(|i| {
                let t = f64::from(*i) * 0.5;
                let tx = login(client(7, 1), t, style, false, u64::from(*i), 1000 + u64::from(*i), false);
                let verdict = s.observe(&tx);
                assert_eq!(verdict.login, Some(LoginOutcome::Failure), "{style:?}");
                verdict.confidence >= 90
            })
            .unwrap();
        assert!((3..15).contains(&first), "{style:?}: {first}");
        for i in first + 1..60 {
            let t = f64::from(i) * 0.5;
            let tx = login(client(7, 1), t, style, false, u64::from(i), 1000 + u64::from(i), false);
            let verdict = s.observe(&tx);
            assert!(verdict.confidence >= 90, "{style:?} {i}: {verdict:?}");
            assert_eq!(verdict.proposals[0].scope, [EntityKey::Ip(Host::from_v4([198, 51, 100, 7]))]);
        }
        // The hit is part of the attack, and its account is at risk.
        let hit = s.observe(&login(client(7, 1), 30.5, style, false, 777, 778, true));
        assert_eq!(hit.login, Some(LoginOutcome::Success), "{style:?}");
        assert!(hit.confidence >= 90, "{hit:?}");
        let risk = hit.account_at_risk.as_ref().unwrap();
        assert_eq!(risk.user, identity(2, 777));
        assert!(risk.failures_before >= 55, "{risk:?}");
        assert_eq!(
            hit.proposals.iter().map(|p| p.action).collect::<Vec<_>>(),
            [Action::Block, Action::Notify]
        );
        // What the client asks for otherwise inherits, but the default policy blocks at logins only.
        let other = s.observe(&request(client(7, 1), 31.0, "GET", "/account", "GET /account", false));
        assert!(other.confidence >= 90 && other.proposals.is_empty(), "{other:?}");
        let points: f64 = other.contributions.iter().map(|c| c.points).sum();
        let logit = (0.005f64 / 0.995).ln() + points / 10.0;
        assert_eq!(other.confidence, (100.0 / (1.0 + (-logit).exp())) as u8, "contributions add up");
    }
}

#[test]
fn a_forgetful_person_is_no_attack_and_no_account_at_risk() {
    for style in STYLES {
        let mut s = scorer();
        let c = Client::new([198, 51, 100, 9], 3, StackClass::Firefox, 4);
        s.observe(&request(c, 0.0, "GET", "/login", "GET /login", true));
        for i in 0..6u32 {
            let tx = login(c, 5.0 + 8.0 * f64::from(i), style, false, 1, 50 + u64::from(i), false);
            let verdict = s.observe(&tx);
            assert!(verdict.confidence < 50 && verdict.proposals.is_empty(), "{style:?} {i} {verdict:?}");
        }
        let verdict = s.observe(&login(c, 70.0, style, false, 1, 60, true));
        assert!(verdict.confidence < 50 && verdict.account_at_risk.is_none(), "{style:?} {verdict:?}");
    }
}

#[test]
fn the_owner_of_a_hammered_account_gets_in() {
    let mut s = scorer();
    let owner = Client::new([192, 0, 2, 1], 8, StackClass::Chromium, 4);
    let browse = |s: &mut Scorer, from: f64| {
        for i in 0..12u32 {
            let tx = request(owner, from + f64::from(i), "GET", "/", "GET /", i % 4 == 0);
            assert!(s.observe(&tx).confidence < 50);
        }
    };
    browse(&mut s, 0.0);
    s.observe(&login(owner, 20.0, Style::Redirect, false, 1, 1, true));
    for i in 0..100u32 {
        let c = client((i % 90) as u8, 0xbad);
        let verdict =
            s.observe(&login(c, 100.0 + f64::from(i), Style::Redirect, false, 1, 100 + u64::from(i), false));
        assert!(i < 40 || verdict.confidence >= 90, "{i} {verdict:?}");
    }
    browse(&mut s, 210.0);
    for (t, good) in [(230.0, false), (240.0, true)] {
        let verdict = s.observe(&login(owner, t, Style::Redirect, false, 1, if good { 1 } else { 2 }, good));
        assert!(verdict.confidence < 90 && verdict.account_at_risk.is_none(), "{verdict:?}");
    }
    // Somebody else who gets in has found the password.
    for i in 0..20u32 {
        let c = client((i % 90) as u8, 0xbad);
        s.observe(&login(c, 250.0 + f64::from(i), Style::Redirect, false, 1, 500 + u64::from(i), false));
    }
    let verdict = s.observe(&login(client(91, 0xbad), 280.0, Style::Redirect, false, 1, 1, true));
    assert_eq!(verdict.account_at_risk.map(|r| r.user), Some(identity(2, 1)));
}

#[test]
fn quiet_members_of_a_cell_inherit_and_are_named_by_their_stack() {
    let mut s = scorer();
    let mut town = Town::new(4, Style::Redirect);
    town.people(0.5);
    town.attack(Who::SlowRotating, 600.0, 300);
    let mut last: Option<(Transaction, Verdict)> = None;
    for (who, tx) in town.sorted() {
        let verdict = s.observe(&tx);
        if who == Who::SlowRotating && verdict.login == Some(LoginOutcome::Failure) {
            last = Some((tx, verdict));
        }
    }
    let (tx, verdict) = last.unwrap();
    assert_eq!(
        verdict.proposals[0].scope,
        [EntityKey::Fingerprint(0xe2), EntityKey::Endpoint(tx.endpoint_hash)],
        "{verdict:?}"
    );
    // A member never seen before inherits with its first request.
    let fresh = Client::new([9, 9, 9, 9], 0xe2, StackClass::Chromium, 0);
    let t = tx.emitted.nanos_since(common::at(0.0)) as f64 / 1e9;
    let verdict = s.observe(&request(fresh, t + 1.0, "GET", "/login", "GET /login", true));
    assert!(verdict.confidence >= 90, "{verdict:?}");
}

#[test]
fn when_the_login_breaks_for_everybody_nobody_is_blamed() {
    let mut s = scorer();
    let mut rng = Rng(6);
    let mut hits = 0;
    for i in 0..2400u64 {
        let t = i as f64 * 1.5;
        let n = rng.next();
        let ip = [20 + (n % 50) as u8, (n >> 8) as u8, (n >> 16) as u8, 5];
        let fingerprint = 0xc1 + rng.below(5);
        let c = Client::new(ip, fingerprint, StackClass::Chromium, 10 + i);
        s.observe(&request(c, t, "GET", "/login", "GET /login", true));
        s.observe(&request(c, t + 0.1, "GET", "/static/a.css", "GET /static/{file}", false));
        let broken = (1800..2200).contains(&i);
        let verdict = s.observe(&login(c, t + 1.0, Style::Status, false, i, i, !broken && !rng.chance(0.07)));
        hits += u32::from(verdict.confidence >= 90);
    }
    assert_eq!(hits, 0);
}

#[test]
fn policies_propose_in_order_and_allow_ends_them() {
    let fixed = |kinds: &[EntityKind]| Scope::Fixed(kinds.to_vec());
    let policies = vec![
        policy("path == '/a'", Action::Tag, fixed(&[EntityKind::Session])),
        policy(
            "ip.requests_1m >= 2 && path == '/a'",
            Action::Challenge,
            fixed(&[EntityKind::Ip, EntityKind::Endpoint]),
        ),
        policy("path == '/free'", Action::Allow, fixed(&[])),
        policy("method == 'GET'", Action::Review, Scope::Auto),
    ];
    let mut s = Scorer::new(ScoreConfig::default(), policies, 1);
    let ask = |s: &mut Scorer, t: f64, path: &str| {
        let tx = request(client(1, 1), t, "GET", path, "GET /x", false);
        s.observe(&tx).proposals.iter().map(|p| (p.policy, p.scope.len())).collect::<Vec<_>>()
    };
    assert_eq!(ask(&mut s, 0.0, "/a"), [(3, 1)], "no session, one request");
    assert_eq!(ask(&mut s, 0.1, "/a"), [(3, 1)], "1.998 requests");
    assert_eq!(ask(&mut s, 0.2, "/a"), [(1, 2), (3, 1)]);
    assert_eq!(ask(&mut s, 0.3, "/free"), []);
    let c = s.counters();
    assert_eq!(c.proposals_without_entity_total, 3);
    assert_eq!(
        c.policies_held_total,
        c.proposals_total + c.proposals_without_entity_total + c.policies_allowed_total
    );
}

#[test]
fn default_policies_compile() {
    let names: Vec<_> = Scorer::default_policies().into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["block-account-takeover", "notify-account-at-risk"]);
}

#[test]
fn configured_logins_win_and_the_summary_names_the_rules() {
    let config = ScoreConfig {
        logins: vec![LoginRule {
            path: "/enter/*".into(),
            success: OutcomeRule {
                body_hint: Some(BodyHint::None),
                statuses: vec![204..=204],
                ..OutcomeRule::default()
            },
            ..LoginRule::default()
        }],
        ..ScoreConfig::default()
    };
    let mut s = Scorer::new(config, Vec::new(), 1);
    for (i, status) in [204u16, 200, 200].into_iter().enumerate() {
        let mut tx = request(client(1, 1), i as f64, "POST", "/enter/a", "POST /enter/{id}", false);
        tx.status = Some(status);
        let want = if status == 204 { LoginOutcome::Success } else { LoginOutcome::Failure };
        assert_eq!(s.observe(&tx).login, Some(want));
    }
    s.observe(&login(client(2, 1), 9.0, Style::Redirect, false, 1, 1, true));
    let mut again = login(client(2, 1), 10.0, Style::FormAgain, false, 1, 2, false);
    again.login.body_hint = BodyHint::None;
    s.observe(&again);
    let logins = s.summary().logins;
    let rows: Vec<_> = logins
        .iter()
        .map(|l| (l.endpoint.as_str(), l.configured, l.success_from, l.failure_from, l.attempts, l.failures))
        .collect();
    assert_eq!(
        rows,
        [
            ("POST /enter/{id}", true, OutcomeSource::Configured, OutcomeSource::Configured, 3, 2),
            ("POST /login", false, OutcomeSource::Redirect, OutcomeSource::FormShownAgain, 2, 1),
        ]
    );
}

#[test]
fn settings_do_what_they_say() {
    let last = |config: ScoreConfig| {
        let mut s = Scorer::new(config, Vec::new(), 1);
        let attempts = (0..8u32).map(|i| {
            login(client(7, 1), f64::from(i), Style::Status, false, u64::from(i), u64::from(i), false)
        });
        attempts.map(|tx| s.observe(&tx)).last().unwrap()
    };
    let points = |v: &Verdict, signal: &str| {
        v.contributions.iter().find(|c| c.signal == signal).map_or(0.0, |c| c.points)
    };
    let usual = last(ScoreConfig::default());
    assert!(points(&usual, "login_failure_ratio") > 10.0, "{usual:?}");
    assert!(points(&usual, "distinct_users") > 10.0, "{usual:?}");

    let weights = vec![("login_failure_ratio".to_owned(), 0.5), ("distinct_users".to_owned(), 0.0)];
    let weighted = last(ScoreConfig { weights, explain_confidence: 0, ..ScoreConfig::default() });
    let (half, whole) = (points(&weighted, "login_failure_ratio"), points(&usual, "login_failure_ratio"));
    assert!((half * 2.0 - whole).abs() <= 0.1, "{half} {whole}");
    assert_eq!(points(&weighted, "distinct_users"), 0.0);
    assert!(weighted.confidence < usual.confidence);

    let quiet = last(ScoreConfig { explain_confidence: usual.confidence + 1, ..ScoreConfig::default() });
    assert_eq!((quiet.confidence, quiet.contributions.len()), (usual.confidence, 0));
    let cautious = last(ScoreConfig { prior: 0.0001, ..ScoreConfig::default() });
    assert!(cautious.confidence < usual.confidence, "{cautious:?}");
    let lenient = last(ScoreConfig { failure_ratio_prior: 0.4, ..ScoreConfig::default() });
    assert!(points(&lenient, "login_failure_ratio") < whole, "{lenient:?}");
    let blind = last(ScoreConfig { logins_learned: false, ..ScoreConfig::default() });
    assert_eq!((blind.login, blind.confidence), (None, 0));
}

#[test]
fn a_success_after_as_many_guesses_as_configured_puts_the_account_at_risk() {
    for (guesses, repeated, at_risk) in [(4u64, false, false), (5, false, true), (30, true, false)] {
        let mut s = Scorer::new(ScoreConfig { risk_failures: 5, ..ScoreConfig::default() }, Vec::new(), 1);
        for i in 0..guesses {
            let password = if repeated { 1 } else { 10 + i };
            let c = client(if repeated { 1 } else { i as u8 }, 1);
            s.observe(&login(c, i as f64, Style::Status, false, 9, password, false));
        }
        let hit = s.observe(&login(client(200, 2), 40.0, Style::Status, false, 9, 9, true));
        assert_eq!(hit.account_at_risk.is_some(), at_risk, "{guesses} {repeated} {hit:?}");
        assert_eq!(s.counters().accounts_at_risk_total, u64::from(at_risk));
    }
}

fn small() -> ScoreConfig {
    ScoreConfig {
        entities_max: EntityCaps {
            ip: 50,
            prefix: 20,
            session: 30,
            user: 40,
            fingerprint: 4,
            endpoint: 3,
            cell: 5,
            password: 20,
        },
        ..ScoreConfig::default()
    }
}

#[test]
fn verdicts_repeat_whatever_the_seed_even_when_memory_is_short() {
    let mut town = Town::new(8, Style::Redirect);
    town.people(0.3);
    for who in Who::BOTS {
        town.attack(who, 300.0, 150);
    }
    let events = town.sorted();
    for config in [ScoreConfig::default(), small()] {
        let run = |seed| {
            let mut s = Scorer::new(config.clone(), Scorer::default_policies(), seed);
            let verdicts: Vec<Verdict> = events.iter().map(|(_, tx)| s.observe(tx)).collect();
            (verdicts, s.summary(), *s.counters())
        };
        let first = run(1);
        assert!(first == run(1) && first == run(0xdead_beef));
        assert!(first.1.entities.iter().any(|e| e.kind == EntityKind::Ip && e.confidence >= 90));
        assert!(first.0.iter().filter(|v| v.confidence >= 90).count() > 500);
    }
}

#[test]
fn floods_of_entities_stay_under_the_caps_and_the_books_balance() {
    let mut s = Scorer::new(small(), Scorer::default_policies(), 3);
    for i in 0..200_000u64 {
        let n = i as u32;
        let c = Client::new(n.to_be_bytes(), i + 1, StackClass::Unknown, i);
        let mut tx = login(c, i as f64 * 0.01, STYLES[(i % 4) as usize], false, i, i / 3, i % 7 == 0);
        tx.endpoint_hash ^= i;
        if i % 50 == 0 {
            tx.method = offpath_types::Span::ABSENT;
        }
        s.observe(&tx);
    }
    let c = *s.counters();
    let live = s.summary().live;
    assert_eq!(live.iter().map(|l| l.1).collect::<Vec<_>>(), [50, 20, 30, 40, 4, 3]);
    assert_eq!(c.transactions_total, c.scored_total + c.without_request_total);
    assert_eq!(c.without_request_total, 4000);
    assert_eq!(
        c.login_attempts_total,
        c.login_successes_total + c.login_failures_total + c.login_unknown_total
    );
    assert_eq!(
        c.policies_held_total,
        c.proposals_total + c.proposals_without_entity_total + c.policies_allowed_total
    );
    let by_kind = c.evicted_ip_total
        + c.evicted_prefix_total
        + c.evicted_session_total
        + c.evicted_user_total
        + c.evicted_fingerprint_total
        + c.evicted_endpoint_total
        + c.evicted_cell_total
        + c.evicted_password_total;
    assert_eq!(c.entities_evicted_total, by_kind);
    assert_eq!(c.entities_made_total, by_kind + 50 + 20 + 30 + 40 + 4 + 3 + 5 + 20);
}

#[test]
fn time_that_runs_backwards_is_clamped_and_counted() {
    let mut s = scorer();
    for t in [100.0, 50.0, 101.0, 0.0] {
        s.observe(&request(client(1, 1), t, "GET", "/", "GET /", true));
    }
    assert_eq!(s.counters().clock_backwards_total, 2);
}
