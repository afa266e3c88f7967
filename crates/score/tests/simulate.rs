//! People are left alone and bots are found: a simulated town, several seeds, every way of answering.

mod common;

use std::collections::BTreeMap;

use common::{Client, Rng, Style, Town, Who, login, request};
use offpath_score::{ScoreConfig, Scorer};
use offpath_types::{BodyHint, LoginOutcome, RedirectClass, StackClass, Transaction};

const SEEDS: [u64; 3] = [1, 22, 333];

#[derive(Default, Debug)]
struct Tally {
    transactions: u64,
    confident: u64,
    after_warm_up: u64,
    confident_after: u64,
    /// Number of the first transaction rated 90.
    first: Option<u64>,
}

fn run(events: &[(Who, Transaction)], warm_up: u64) -> BTreeMap<Who, Tally> {
    let mut scorer = Scorer::new(ScoreConfig::default(), Scorer::default_policies(), 9);
    let mut tallies: BTreeMap<Who, Tally> = BTreeMap::new();
    for (who, tx) in events {
        let verdict = scorer.observe(tx);
        let tally = tallies.entry(*who).or_default();
        tally.transactions += 1;
        let confident = verdict.confidence >= 90;
        tally.confident += u64::from(confident);
        if tally.transactions > warm_up {
            tally.after_warm_up += 1;
            tally.confident_after += u64::from(confident);
        }
        if confident && tally.first.is_none() {
            tally.first = Some(tally.transactions);
        }
    }
    tallies
}

fn check(name: &str, tallies: &BTreeMap<Who, Tally>) {
    let (mut people, mut hit) = (0, 0);
    for (who, t) in tallies {
        println!(
            "{name} {who:?}: {} transactions, {} at 90, {}/{} after warm-up, first at {:?}",
            t.transactions, t.confident, t.confident_after, t.after_warm_up, t.first
        );
        if who.is_bot() {
            let share = t.confident_after as f64 / t.after_warm_up as f64;
            assert!(share >= 0.9, "{name} {who:?}: {share:.3} {t:?}");
            // Time to detect, in transactions of the attacker's.
            assert!(t.first.is_some_and(|first| first <= 40), "{name} {who:?}: {t:?}");
        } else {
            people += t.transactions;
            hit += t.confident;
        }
    }
    assert!(hit as f64 <= people as f64 * 0.0005, "{name}: {hit} of {people} people's transactions");
}

/// Bots are counted from this transaction of theirs on.
const WARM_UP: u64 = 60;

#[test]
fn each_attack_alone() {
    for (i, who) in Who::BOTS.into_iter().enumerate() {
        let style = [Style::Status, Style::Redirect, Style::FormAgain, Style::Body][i % 4];
        let mut town = Town::new(SEEDS[i % 3], style);
        town.people(1.0);
        town.attack(who, 1800.0, 600);
        check(&format!("alone {style:?}"), &run(&town.sorted(), WARM_UP));
    }
}

#[test]
fn all_at_once() {
    for (seed, style) in SEEDS.into_iter().zip([Style::Redirect, Style::Status, Style::Body]) {
        let mut town = Town::new(seed, style);
        town.people(2.0);
        for who in Who::BOTS {
            town.attack(who, 3600.0 + 60.0 * f64::from(who as u8), 500);
        }
        check(&format!("all {seed} {style:?}"), &run(&town.sorted(), WARM_UP));
    }
}

/// Makes a login's answer of a success or a failure.
type Answer = fn(&mut Transaction, bool);

/// Ways of answering that no status, cookie or plain redirect tells apart.
const ANSWERS: [(&str, bool, Answer); 6] = [
    ("a page each, the form says no", true, |tx, good| {
        tx.response_content_type = tx.text.push(b"text/html");
        tx.login.body_hint = if good { BodyHint::None } else { BodyHint::Failure };
    }),
    ("an error in JSON", true, |tx, good| {
        tx.response_content_type = tx.text.push(b"application/json");
        tx.login.body_hint = if good { BodyHint::None } else { BodyHint::Failure };
    }),
    ("a redirect each, the query says no", true, |tx, good| {
        tx.status = Some(302);
        tx.login.redirect = RedirectClass::Elsewhere;
        tx.location = tx.text.push(if good { b"/" } else { b"/?login=failed" });
    }),
    ("nothing", false, |_, _| {}),
    ("204 or 200", false, |tx, good| tx.status = Some(if good { 204 } else { 200 })),
    ("a page each, unread", false, |tx, _| tx.response_content_type = tx.text.push(b"text/html")),
];

/// One of the people logs in: the form, maybe a typo, in; then what the site is for.
fn visit(events: &mut Vec<(Who, Transaction)>, c: Client, start: f64, user: u64, typo: bool, answer: Answer) {
    let attempt = |events: &mut Vec<_>, t: f64, password: u64, good: bool| {
        let mut tx = login(c, t, Style::Status, false, user, password, true);
        answer(&mut tx, good);
        events.push((Who::Person, tx));
    };
    let ask = |t: f64, path: &str, endpoint: &str, page| {
        (Who::Person, request(c, start + t, "GET", path, endpoint, page))
    };
    events.push(ask(0.0, "/login", "GET /login", true));
    events.push(ask(0.1, "/static/app.js", "GET /static/{file}", false));
    if typo {
        attempt(events, start + 4.0, 1_000_000 + user, false);
    }
    attempt(events, start + 9.0, user, true);
    for i in 0..5 {
        events.push(ask(15.0 + 4.0 * f64::from(i), "/orders", "GET /orders", true));
    }
}

#[test]
fn whichever_way_a_login_answers() {
    for (name, readable, answer) in ANSWERS {
        for seed in SEEDS {
            let mut rng = Rng(seed);
            let mut events = Vec::new();
            let browser = |ip, session| Client::new(ip, 0xc1 + session % 4, StackClass::Chromium, session);
            for user in 0..300u64 {
                let c = browser([20, 1, (user % 20) as u8, rng.below(250) as u8], user + 1);
                visit(&mut events, c, rng.unit() * 3600.0, user, rng.chance(0.08), answer);
            }
            // An office: all of them within five minutes, from one address.
            for user in 1000..1120u64 {
                let start = 1000.0 + rng.unit() * 300.0;
                visit(&mut events, browser([80, 1, 1, 1], user), start, user, rng.chance(0.08), answer);
            }
            let bot = Client::library([45, 1, 1, 1], 0xbad);
            for i in 0..200u64 {
                let t = 1200.0 + 2.0 * i as f64;
                let mut tx = login(bot, t, Style::Status, false, 5000 + i, 9000 + i, true);
                answer(&mut tx, false);
                events.push((Who::FastStuffing, tx));
            }
            events.sort_by_key(|(_, tx)| tx.order());

            let mut scorer = Scorer::new(ScoreConfig::default(), Scorer::default_policies(), 9);
            let (mut people, mut found, mut misread) = (0, 0, 0);
            for (who, tx) in &events {
                let verdict = scorer.observe(tx);
                let confident = u32::from(verdict.confidence >= 90);
                if who.is_bot() {
                    found += confident;
                    misread += u32::from(verdict.login == Some(LoginOutcome::Success));
                } else {
                    people += confident;
                }
            }
            assert_eq!((people, misread), (0, 0), "{name} {seed}");
            let least = if readable { 185 } else { 175 };
            assert!(found >= least, "{name} {seed}: {found} of 200");
        }
    }
}

#[test]
fn a_forgotten_job_repeats_its_password_and_is_left_alone() {
    for (name, every, basic, jobs) in [
        ("partner, 10 s", 10.0, false, 1),
        ("partner, 30 s", 30.0, false, 1),
        ("partner, Basic", 10.0, true, 1),
        ("monitor", 60.0, false, 1),
        ("thirty jobs behind one address", 20.0, false, 30u64),
    ] {
        let mut town = Town::new(22, Style::Status);
        town.people(1.0);
        let mut events = town.events;
        let c = Client::library([192, 0, 2, 6], 0xabc);
        let (mut t, end) = (600.0, 3500.0);
        while t < end {
            for job in 0..jobs {
                let at = t + job as f64 * every / jobs as f64;
                let mut tx = login(c, at, Style::Status, false, 70_000 + job, 80_000 + job, false);
                if basic {
                    tx.method = tx.text.push(b"GET");
                }
                events.push((Who::Partner, tx));
            }
            t += every;
        }
        events.sort_by_key(|(_, tx)| tx.order());
        let tallies = run(&events, 0);
        let partner = &tallies[&Who::Partner];
        if jobs == 1 {
            assert_eq!(partner.confident, 0, "{name}");
        } else {
            // Thirty users refused at once look like a list, until it shows that they only repeat themselves.
            let share = partner.confident as f64 / partner.transactions as f64;
            println!("{name}: {share:.3} of {}", partner.transactions);
            assert!(share < 0.9, "{name}: {share}");
        }
        for (who, tally) in &tallies {
            assert!(*who == Who::Partner || tally.confident == 0, "{name}: {who:?} {tally:?}");
        }
    }
}

#[test]
fn an_office_whose_passwords_have_expired_gets_in_by_and_by() {
    let mut rng = Rng(5);
    let mut town = Town::new(1, Style::Status);
    town.people(1.0);
    let mut events = town.events;
    for user in 0..300u64 {
        let c = Client::new([198, 51, 100, 7], 0xc1, StackClass::Chromium, 10_000 + user);
        let mut t = 1800.0 + rng.unit() * 360.0;
        events.push((Who::Office, request(c, t, "GET", "/login", "GET /login", true)));
        for i in 0..1 + rng.below(2) {
            t += 4.0 + rng.wait(5.0);
            let password = 90_000 + user * 4 + i;
            events.push((Who::Office, login(c, t, Style::Status, false, 60_000 + user, password, false)));
        }
        t += 5.0 + rng.wait(5.0);
        events.push((Who::Office, login(c, t, Style::Status, false, 60_000 + user, user, true)));
        for i in 0..5 {
            let at = t + 3.0 * f64::from(i + 1);
            events.push((Who::Office, request(c, at, "GET", "/orders", "GET /orders", true)));
        }
    }
    events.sort_by_key(|(_, tx)| tx.order());
    let tallies = run(&events, 0);
    for (who, tally) in &tallies {
        // The first minute of it looks like a list; it must not stay so once they get in.
        let most = if *who == Who::Office { 500 } else { 0 };
        assert!(tally.confident <= most, "{who:?} {tally:?}");
    }
}

#[test]
fn repeating_guesses_hides_no_brute_force() {
    // Every password twice, then new ones: half of the attempts are news.
    let mut scorer = Scorer::new(ScoreConfig::default(), Scorer::default_policies(), 9);
    let c = Client::library([192, 0, 2, 6], 0xabc);
    let mut found = 0;
    for i in 0..200u64 {
        let tx = login(c, 3.0 * i as f64, Style::Status, false, 7, 100 + i / 2, false);
        found += u32::from(scorer.observe(&tx).confidence >= 90);
    }
    assert!(found >= 140, "{found}");
}
