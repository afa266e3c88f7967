//! People are left alone and bots are found: a simulated town, several seeds, every way of answering.

mod common;

use std::collections::BTreeMap;

use common::{Style, Town, Who};
use offpath_score::{ScoreConfig, Scorer};
use offpath_types::Transaction;

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
