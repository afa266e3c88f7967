//! Nanoseconds per transaction that nobody proposes anything about: nearly all of them.
//!
//! Run: `cargo bench -p offpath-enforce --bench planner`. Times are wall time of the best of five rounds.

use offpath_enforce::{Planner, PlannerConfig};
use offpath_types::{FlowInfo, FlowKey, Host, Peer, Timestamp, Transaction, TunnelId, Verdict};

/// A transaction of client `who` with one of 40 stacks.
fn transaction(who: u32, secs: u64, endpoint: u64) -> Transaction {
    let host = Host::from_v4(who.to_be_bytes());
    let server = Peer { host: Host::from_v4([10, 9, 9, 9]), port: 80 };
    let (key, client_side) = FlowKey::new(Peer { host, port: 40_000 }, server, TunnelId(0));
    let at = Timestamp::from_parts(1_700_000_040 + secs, 0);
    let flow = FlowInfo { key, client_side, opened: at, midstream: false, envelope: Default::default() };
    let mut tx = Transaction::new(flow, u64::from(who), 0, at);
    tx.fingerprint = u64::from(who % 40) + 1;
    tx.endpoint_hash = endpoint;
    tx
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn best_ns(txs: &[Transaction], verdict: &Verdict) -> f64 {
    let round = |_| {
        let (mut planner, mut out) = (Planner::new(PlannerConfig::default()), Vec::new());
        let start = std::time::Instant::now();
        for tx in txs {
            planner.plan(std::hint::black_box(tx), verdict, &mut out);
        }
        let nanos = start.elapsed().as_nanos() as f64;
        assert!(out.is_empty() && planner.counters().transactions_total == txs.len() as u64);
        nanos / txs.len() as f64
    };
    (0..5).map(round).fold(f64::MAX, f64::min)
}

fn main() {
    let verdict = Verdict { confidence: 3, ..Verdict::default() };
    for (name, clients, endpoints) in [
        ("plan_500_clients", 500u32, 20u64),
        ("plan_50_000_clients", 50_000, 20),
        ("plan_every_client_new", u32::MAX, 1),
    ] {
        let txs: Vec<_> = (0..200_000u32)
            .map(|n| {
                let who = n.wrapping_mul(2_654_435_761) % clients;
                transaction(who, u64::from(n / 1000), u64::from(n / 7) % endpoints)
            })
            .collect();
        println!("{name}: {:.0} ns per transaction", best_ns(&txs, &verdict));
    }
}
