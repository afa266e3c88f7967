//! Unsuspicious traffic of known entities allocates nothing.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{Client, request};
use offpath_score::{ScoreConfig, Scorer};
use offpath_types::StackClass;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands every call to the system allocator unchanged; counting touches a thread-local integer only,
// which is const-initialised and has no destructor, so it never allocates itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

#[test]
fn ten_thousand_ordinary_transactions_allocate_nothing() {
    let mut scorer = Scorer::new(ScoreConfig::default(), Scorer::default_policies(), 1);
    let txs: Vec<_> = (0..10_000u32)
        .map(|i| {
            let ip = [10, 0, (i / 200 % 10) as u8, (i % 200) as u8];
            let c = Client::new(ip, 1, StackClass::Chromium, u64::from(i % 2000) + 1);
            request(c, f64::from(i) * 0.01, "GET", "/shop/7", "GET /shop/{id}", i % 5 == 0)
        })
        .collect();
    for tx in &txs[..5000] {
        scorer.observe(tx);
    }
    let before = ALLOCATIONS.with(Cell::get);
    for tx in &txs[5000..] {
        let verdict = scorer.observe(tx);
        assert!(verdict.confidence < 10);
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
}
