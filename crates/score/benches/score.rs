//! Nanoseconds per transaction: one hot entity, a million entities, and the attacks that cost most.
//!
//! Run: `cargo bench -p offpath-score`. Times are wall time of the best of five rounds.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::{Client, Rng, Style, login, request};
use offpath_score::{EntityCaps, ScoreConfig, Scorer};
use offpath_types::{StackClass, Transaction};

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn time(work: impl FnOnce()) -> Duration {
    let start = std::time::Instant::now();
    work();
    start.elapsed()
}

fn bench(name: &str, scorer: &mut Scorer, txs: &mut [Transaction]) {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let elapsed = time(|| {
            for tx in &*txs {
                std::hint::black_box(scorer.observe(tx));
            }
        });
        best = best.min(elapsed.as_nanos() as f64 / txs.len() as f64);
        let step = txs.last().map_or(0, |tx| tx.emitted.nanos_since(common::at(0.0)));
        for tx in &mut *txs {
            tx.emitted = tx.emitted.plus_nanos(step); // the next round is later
        }
    }
    println!("{name}: {best:.0} ns per transaction ({} transactions)", txs.len());
}

fn main() {
    let client = |ip: u32, session: u64| Client::new(ip.to_be_bytes(), 0xc1, StackClass::Chromium, session);
    let new = |caps: EntityCaps| {
        let config = ScoreConfig { entities_max: caps, ..ScoreConfig::default() };
        Scorer::new(config, Scorer::default_policies(), 7)
    };
    let n = 200_000u32;
    let get = |c: Client, i: u32| {
        request(c, 1.0 + f64::from(i) * 0.001, "GET", "/shop/1", "GET /shop/{id}", i.is_multiple_of(6))
    };

    let mut txs: Vec<_> = (0..n).map(|i| get(client(0x0a00_0001, 1), i)).collect();
    bench("score_hot_entity", &mut new(EntityCaps::default()), &mut txs);

    let million = EntityCaps { ip: 1_000_000, session: 1_000_000, ..EntityCaps::default() };
    let mut scorer = new(million);
    let mut rng = Rng(1);
    let fill = time(|| {
        for i in 0..1_000_000u32 {
            scorer.observe(&get(client(0x0a00_0000 + i, u64::from(i) + 1), 0));
        }
    });
    println!(
        "first sight of a million entities: {} ns each, making the transaction included",
        fill.as_nanos() / 1_000_000
    );
    let mut txs: Vec<_> = (0..n)
        .map(|i| {
            let k = rng.below(1_000_000) as u32;
            get(client(0x0a00_0000 + k, u64::from(k) + 1), i)
        })
        .collect();
    bench("score_million_entities", &mut scorer, &mut txs);

    let mut txs: Vec<_> = (0..n)
        .map(|i| {
            login(
                client(0x0a00_0001, 1),
                1.0 + f64::from(i) * 0.01,
                Style::Status,
                false,
                u64::from(i),
                u64::from(i),
                false,
            )
        })
        .collect();
    bench("score_failed_login_one_address", &mut new(EntityCaps::default()), &mut txs);

    let small = EntityCaps {
        ip: 10_000,
        prefix: 10_000,
        session: 10_000,
        user: 10_000,
        password: 10_000,
        ..EntityCaps::default()
    };
    let mut txs: Vec<_> = (0..n)
        .map(|i| {
            login(
                client(i.wrapping_mul(2_654_435_761), u64::from(i) + 1),
                1.0 + f64::from(i) * 0.01,
                Style::Status,
                false,
                u64::from(i),
                u64::from(i),
                false,
            )
        })
        .collect();
    bench("score_failed_login_all_new_and_evicting", &mut new(small), &mut txs);
}
