//! From the offer of a decision to the target's 2xx, with a durable outbox and a target on loopback.
//!
//! Run: `cargo bench -p offpath-enforce --bench delivery`. The disk is that of the temporary directory.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use offpath_enforce::webhook::Secret;
use offpath_enforce::{Delivery, DeliveryConfig, Event, Target};
use offpath_types::{Action, Decision, EntityKind, MatchValue, Timestamp};

/// Starts a target that takes everything; returns its URL.
fn target() -> Result<String, Box<dyn Error>> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let url = format!("http://{}/", listener.local_addr()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, Router::new().fallback(async || "")).await
        })
    });
    Ok(url)
}

fn block(n: u32) -> Event {
    Event::Decision(Decision {
        id: format!("d{n}"),
        time: Timestamp::from_parts(1_700_000_000, 0),
        action: Action::Block,
        matches: vec![MatchValue { kind: EntityKind::Ip, value: format!("10.0.{}.{}", n / 250, n % 250) }],
        ttl_secs: 600,
        confidence: 95,
        policy: "ato".to_owned(),
        campaign: None,
        reasons: Vec::new(),
        transactions: Vec::new(),
        dry_run: false,
        observability: 1.0,
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let url = target()?;
    for (name, count, pause) in [
        ("deliver_one_each_4_ms", 500u32, Some(Duration::from_millis(4))),
        ("deliver_burst_of_1000", 1000, None),
    ] {
        let secret = Secret::parse(&Secret::generate()?)?;
        let delivery = Delivery::start(DeliveryConfig {
            targets: vec![Target::new("t", &url, vec![secret])],
            outbox_path: Some(dir.path().join(name)),
            ..DeliveryConfig::default()
        })?;
        for n in 0..count {
            delivery.offer(block(n));
            if let Some(pause) = pause {
                std::thread::sleep(pause);
            }
        }
        assert!(delivery.drain(Duration::from_secs(60)), "not delivered in a minute");
        let stats = delivery.stop();
        assert_eq!(stats.delivered(), u64::from(count), "{stats:?}");
        let h = stats.decision_to_delivered_us;
        let (p50, p99) = (h.value_at_quantile(0.5), h.value_at_quantile(0.99));
        println!("{name}: p50 {p50} us, p99 {p99} us, longest {} us", h.max());
    }
    Ok(())
}
