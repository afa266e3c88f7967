//! Delivery of decisions, as the binary sets it up and reports it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use offpath_enforce::webhook::Secret;
use offpath_enforce::{Delivery, DeliveryConfig, DeliveryStats, Retry, Target};
use serde_json::{Value, json};

use crate::config::{Config, WebhookSection};
use crate::exit::Failure;
use crate::output::{latency, latency_line};

/// Longest secret file that is read, in bytes.
const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;

/// Starts delivery to the configured targets; `None` where there are none.
pub(crate) fn start(config: &Config) -> Result<Option<Delivery>, Failure> {
    if config.webhook.is_empty() {
        return Ok(None);
    }
    let d = &config.delivery;
    let outbox_path = (!d.memory_only).then(|| config.outbox_file());
    if let Some(path) = &outbox_path {
        crate::identity::make_folder_of(path)
            .with_context(|| format!("cannot make the folder of the outbox {}", path.display()))
            .map_err(Failure::usage)?;
    }
    let targets = config.webhook.iter().map(target).collect::<Result<Vec<_>, _>>()?;
    let started = Delivery::start(DeliveryConfig {
        targets,
        outbox_path,
        queue_max: d.queue_max,
        held_max: d.held_max,
        outbox_rows_max: d.outbox_rows_max,
        retry: Retry {
            first_ms: d.retry_first_ms,
            max_ms: d.retry_max_ms,
            give_up_after_secs: d.give_up_after_secs,
            jitter: d.jitter,
        },
    });
    started.map(Some).map_err(|e| Failure::usage(e.into()))
}

fn target(section: &WebhookSection) -> Result<Target, Failure> {
    let mut secrets = Vec::new();
    if let Some(secret) = &section.secret {
        secrets.push(parse_secret(secret.expose()).map_err(|e| webhook_failure(section, e))?);
    }
    if let Some(path) = &section.secret_file {
        secrets.extend(read_secrets(path).map_err(|e| webhook_failure(section, e))?);
    }
    if secrets.is_empty() {
        return Err(webhook_failure(
            section,
            anyhow::anyhow!("needs `secret` or `secret_file`: webhooks are signed"),
        ));
    }
    Ok(Target {
        timeout_ms: section.timeout_ms,
        actions: section.actions.iter().map(|a| a.0).collect(),
        confidence_min: section.confidence_min,
        deliver_dry_run: section.deliver_dry_run,
        other_events: section.other_events,
        max_in_flight: section.max_in_flight,
        ..Target::new(section.name.clone(), section.url.clone(), secrets)
    })
}

fn webhook_failure(section: &WebhookSection, error: anyhow::Error) -> Failure {
    Failure::usage(error.context(format!("webhook `{}`", section.name)))
}

fn parse_secret(text: &str) -> anyhow::Result<Secret> {
    Secret::parse(text).map_err(|e| anyhow::anyhow!("the secret is not usable: {e}"))
}

/// Reads signing secrets, one a line; empty lines and lines that start with `#` are left out.
pub(crate) fn read_secrets(path: &Path) -> anyhow::Result<Vec<Secret>> {
    let name = path.display();
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {name}"))?.len();
    anyhow::ensure!(size <= SECRET_FILE_BYTES_MAX, "{name}: {size} bytes is no secret file");
    let text = zeroize::Zeroizing::new(
        std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?,
    );
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let secrets =
        lines.map(parse_secret).collect::<anyhow::Result<Vec<_>>>().with_context(|| name.to_string())?;
    anyhow::ensure!(!secrets.is_empty(), "{name} holds no secret");
    Ok(secrets)
}

/// Waits for deliveries, for a bounded time.
pub(crate) fn drain(delivery: &Delivery, config: &Config) {
    if !delivery.drain(Duration::from_secs(config.delivery.drain_secs)) {
        tracing::warn!(
            "some webhooks are not delivered yet; an outbox on disk keeps them for the next start"
        );
    }
}

/// Returns the state of delivery for the stats.
pub(crate) fn stats(s: &DeliveryStats) -> Value {
    let targets: Vec<_> = s
        .targets
        .iter()
        .map(|t| {
            let parked: serde_json::Map<_, _> =
                t.parked.iter().map(|(reason, n)| (reason.to_string(), json!(n))).collect();
            json!({
                "name": t.name, "accepted": t.accepted, "resumed": t.resumed, "delivered": t.delivered,
                "retried": t.retried, "parked": parked, "expired": t.expired, "dropped": t.dropped,
                "pending": t.pending, "last_error": t.last_error,
            })
        })
        .collect();
    json!({
        "offered": s.offered, "coalesced": s.coalesced, "refused": s.refused, "taken": s.taken,
        "commits": s.commits, "commit_failures": s.commit_failures, "targets": targets,
        "decision_to_delivered_us": latency(&s.decision_to_delivered_us),
    })
}

/// Returns the lines of the report.
pub(crate) fn report(s: &DeliveryStats) -> String {
    let mut out = String::new();
    for t in &s.targets {
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "Webhook {}: {} delivered, {} retried, {} parked, {} expired, {} dropped, {} pending{}",
            t.name,
            t.delivered,
            t.retried,
            t.parked.values().sum::<u64>(),
            t.expired,
            t.dropped,
            t.pending,
            t.last_error.as_ref().map(|e| format!(" (last failure: {e})")).unwrap_or_default()
        );
    }
    out.push_str(&latency_line("decision to delivered", &s.decision_to_delivered_us));
    out
}
