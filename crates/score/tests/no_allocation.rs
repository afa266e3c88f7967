//! Unsuspicious traffic of known entities allocates nothing.

#[path = "../../testkit/allocations.rs"]
mod allocations;
mod common;

use allocations::allocations;
use common::{Client, request};
use offpath_score::{ScoreConfig, Scorer};
use offpath_types::StackClass;

#[test]
fn ten_thousand_ordinary_transactions_allocate_nothing() {
    let mut scorer = Scorer::new(ScoreConfig::default(), Scorer::default_policies(), 1);
    let txs: Vec<_> = (0..15_000u32)
        .map(|i| {
            let ip = [10, 0, (i / 200 % 10) as u8, (i % 200) as u8];
            let c = Client::new(ip, 1, StackClass::Chromium, u64::from(i % 2000) + 1);
            request(c, f64::from(i) * 0.01, "GET", "/shop/7", "GET /shop/{id}", i % 5 == 0)
        })
        .collect();
    for tx in &txs[..5000] {
        scorer.observe(tx);
    }
    let before = allocations();
    for tx in &txs[5000..] {
        let verdict = scorer.observe(tx);
        assert!(verdict.confidence < 10);
    }
    assert_eq!(allocations() - before, 0);
}
