//! The report at the end of a run: what a person wants to know first.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use offpath_enforce::{Event, rfc3339};
use offpath_score::ScoreSummary;
use offpath_types::{Action, Decision, EntityKey, EntityKind, LoginOutcome, Timestamp, Transaction, Verdict};

use crate::ledger::Ledger;

/// Decisions that the report lists.
const DECISIONS_SHOWN: usize = 12;
/// Entities whose first failed login is remembered, to tell how long detection took.
const FIRST_FAILURES_MAX: usize = 100_000;
/// Endpoints and entities that the report lists.
const ROWS_SHOWN: usize = 10;

/// What is collected along the way for the report; bounded.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    first: Option<Timestamp>,
    last: Timestamp,
    transactions: u64,
    complete: u64,
    one_half: u64,
    with_anomalies: u64,
    status_classes: [u64; 6],
    logins: u64,
    login_failures: u64,
    rated_90: u64,
    accounts_at_risk: u64,
    alarms: u64,
    decisions: Vec<DecisionLine>,
    decisions_by: BTreeMap<(Action, String), u64>,
    /// When a login of this address, prefix, session or stack first failed.
    first_failures: HashMap<EntityKey, Timestamp>,
    /// From that failure to the block, in ns, for each block with one.
    detect_nanos: Vec<u64>,
    dry_run: bool,
}

#[derive(Debug)]
struct DecisionLine {
    time: Timestamp,
    text: String,
    reasons: String,
}

impl Findings {
    /// Takes one rated transaction.
    pub(crate) fn observe(&mut self, tx: &Transaction, verdict: &Verdict) {
        self.first = Some(self.first.map_or(tx.started, |t| t.min(tx.started)));
        self.last = self.last.max(tx.ended);
        self.transactions += 1;
        self.complete += u64::from(tx.complete);
        self.one_half += u64::from(tx.status.is_none() || !tx.has_request());
        self.with_anomalies += u64::from(!tx.anomalies.is_empty());
        self.status_classes[tx.status.map_or(0, |s| usize::from(s / 100).min(5))] += 1;
        if let Some(outcome) = verdict.login {
            self.logins += 1;
            self.login_failures += u64::from(outcome == LoginOutcome::Failure);
            if outcome == LoginOutcome::Failure {
                self.remember_failure(tx);
            }
        }
        self.rated_90 += u64::from(verdict.confidence >= 90);
    }

    fn remember_failure(&mut self, tx: &Transaction) {
        for kind in [EntityKind::Ip, EntityKind::Prefix, EntityKind::Session, EntityKind::Fingerprint] {
            if self.first_failures.len() >= FIRST_FAILURES_MAX {
                return;
            }
            if let Some(key) = tx.entity(kind) {
                self.first_failures.entry(key).or_insert(tx.started);
            }
        }
    }

    /// Takes one decision; `deciding` is the transaction that it is about.
    pub(crate) fn decided(&mut self, decision: &Decision, deciding: Option<&Transaction>) {
        *self.decisions_by.entry((decision.action, decision.policy.clone())).or_default() += 1;
        self.dry_run |= decision.dry_run;
        if decision.action == Action::Block
            && self.detect_nanos.len() < FIRST_FAILURES_MAX
            && let Some(tx) = deciding
        {
            // The narrowest match is the one whose failures began last.
            let keys = decision.matches.iter().filter_map(|m| tx.entity(m.kind));
            let began = keys.filter_map(|key| self.first_failures.get(&key)).max();
            self.detect_nanos.extend(began.map(|began| decision.time.nanos_since(*began)));
        }
        if self.decisions.len() >= DECISIONS_SHOWN || decision.action == Action::Unblock {
            return;
        }
        let matches: Vec<_> =
            decision.matches.iter().map(|m| format!("{}={}", m.kind.name(), m.value)).collect();
        let reasons: Vec<_> = decision
            .reasons
            .iter()
            .take(3)
            .map(|r| format!("{} {} (usual {})", r.signal, number(r.value), number(r.baseline)))
            .collect();
        self.decisions.push(DecisionLine {
            time: decision.time,
            text: format!(
                "{} {} for {} s, confidence {}, policy {}, evidence: {}",
                decision.action.name(),
                matches.join(" "),
                decision.ttl_secs,
                decision.confidence,
                decision.policy,
                match decision.transactions.len() {
                    1 => "1 transaction".to_owned(),
                    n => format!("{n} transactions"),
                }
            ),
            reasons: reasons.join("; "),
        });
    }

    /// Takes any other event.
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Decision(_) => {}
            Event::AccountAtRisk(_) => self.accounts_at_risk += 1,
            Event::Alarm(_) => self.alarms += 1,
        }
    }

    /// Renders the report.
    pub(crate) fn render(&self, ledger: &Ledger, summary: &ScoreSummary, problems: &[String]) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = self.write(&mut out, ledger, summary, problems);
        out
    }

    fn write(
        &self,
        out: &mut String,
        ledger: &Ledger,
        summary: &ScoreSummary,
        problems: &[String],
    ) -> std::fmt::Result {
        let first = self.first.unwrap_or_default();
        let span = self.last.nanos_since(first) as f64 / 1e9;
        writeln!(out, "Offpath report")?;
        if self.transactions > 0 {
            writeln!(out, "  packet time      {} to {} ({span:.1} s)", rfc3339(first), rfc3339(self.last))?;
        }
        writeln!(
            out,
            "  frames           {} read, {} TCP, {} other, {} undecodable",
            ledger.capture.frames_total,
            ledger.decode.frames_tcp_total,
            ledger.decode.frames_not_tcp(),
            ledger.decode.frames_dropped()
        )?;
        writeln!(
            out,
            "  transactions     {} ({} complete, {} with one half only, {} with anomalies)",
            self.transactions, self.complete, self.one_half, self.with_anomalies
        )?;
        let [none, s1, s2, s3, s4, s5] = self.status_classes;
        writeln!(out, "  status           2xx {s2}, 3xx {s3}, 4xx {s4}, 5xx {s5}, 1xx {s1}, none {none}")?;
        writeln!(
            out,
            "  logins           {} attempts, {} failed; {} accounts at risk",
            self.logins, self.login_failures, self.accounts_at_risk
        )?;
        writeln!(out, "  rated 90 or more {} transactions", self.rated_90)?;
        self.write_endpoints(out, summary)?;
        self.write_entities(out, summary)?;
        self.write_decisions(out)?;
        self.write_losses(out, ledger)?;
        for problem in problems {
            writeln!(out, "  input problem    {problem}")?;
        }
        Ok(())
    }

    fn write_endpoints(&self, out: &mut String, summary: &ScoreSummary) -> std::fmt::Result {
        if !summary.endpoints.is_empty() {
            writeln!(
                out,
                "\nTop endpoints{:>39} {:>9} {:>9} {:>9}",
                "requests", "errors", "logins", "failures"
            )?;
            for e in summary.endpoints.iter().take(ROWS_SHOWN) {
                let (name, requests) = (shorten(&e.endpoint, 42), e.requests);
                writeln!(
                    out,
                    "  {name:<42} {requests:>7} {:>9} {:>9} {:>9}",
                    e.errors, e.logins, e.failures
                )?;
            }
        }
        if !summary.logins.is_empty() {
            writeln!(
                out,
                "\nLogin endpoints found (confirm or override them with [[login]] in the configuration)"
            )?;
            for l in summary.logins.iter().take(ROWS_SHOWN) {
                writeln!(
                    out,
                    "  {}: {} attempts, {} in, {} refused, {} unknown; refusal read from {}, success from {}",
                    shorten(&l.endpoint, 60),
                    l.attempts,
                    l.successes,
                    l.failures,
                    l.unknown,
                    l.failure_from.name(),
                    l.success_from.name()
                )?;
            }
        }
        Ok(())
    }

    fn write_entities(&self, out: &mut String, summary: &ScoreSummary) -> std::fmt::Result {
        if summary.entities.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nEntities rated highest{:>30} {:>9} {:>9}", "confidence", "rated 90", "requests")?;
        for e in summary.entities.iter().take(ROWS_SHOWN) {
            let text = format!("{} {}", e.kind.name(), e.text);
            writeln!(
                out,
                "  {:<42} {:>7} {:>9} {:>9}",
                shorten(&text, 42),
                e.confidence,
                e.confident,
                e.requests
            )?;
        }
        Ok(())
    }

    fn write_decisions(&self, out: &mut String) -> std::fmt::Result {
        let total: u64 = self.decisions_by.values().sum();
        if total == 0 {
            return writeln!(out, "\nNo decisions.");
        }
        writeln!(
            out,
            "\nDecisions: {total}{}",
            if self.dry_run { " (dry run: nobody acts on them)" } else { "" }
        )?;
        for ((action, policy), count) in &self.decisions_by {
            writeln!(out, "  {:<9} {count:>6}  policy {policy}", action.name())?;
        }
        if !self.detect_nanos.is_empty() {
            let mut sorted = self.detect_nanos.clone();
            sorted.sort_unstable();
            let secs = |nanos: u64| nanos as f64 / 1e9;
            writeln!(
                out,
                "  time to detect, from the first failed login of what is blocked: median {:.3} s, worst {:.3} s",
                secs(sorted[sorted.len() / 2]),
                sorted.last().map_or(0.0, |n| secs(*n))
            )?;
        }
        let first = self.first.unwrap_or_default();
        for line in &self.decisions {
            let after = line.time.nanos_since(first) as f64 / 1e9;
            writeln!(out, "  +{after:.3} s {}", line.text)?;
            if !line.reasons.is_empty() {
                writeln!(out, "      because {}", line.reasons)?;
            }
        }
        let listed: u64 =
            self.decisions_by.iter().filter(|((a, _), _)| *a != Action::Unblock).map(|(_, n)| n).sum();
        if listed > self.decisions.len() as u64 {
            writeln!(out, "  … and {} more", listed - self.decisions.len() as u64)?;
        }
        Ok(())
    }

    fn write_losses(&self, out: &mut String, ledger: &Ledger) -> std::fmt::Result {
        writeln!(out)?;
        if ledger.capture.kernel_dropped > 0 || ledger.capture.interface_dropped > 0 {
            writeln!(
                out,
                "Lost before us: {} frames dropped by the kernel, {} by the interface",
                ledger.capture.kernel_dropped, ledger.capture.interface_dropped
            )?;
        }
        let grown = ledger.capture.files_grown_late_total;
        if grown > 0 {
            writeln!(
                out,
                "Files: {grown} grew after they were left for a newer one; what was added to them was not read"
            )?;
        }
        let back = ledger.capture.time_backwards_total;
        if back > 0 {
            writeln!(
                out,
                "Clock: {back} of {} frames were older than the frame before them and took its time; if that is many, \
                 one frame's time lies far ahead",
                ledger.capture.frames_total
            )?;
        }
        let balances = ledger.balances();
        if balances.iter().all(crate::ledger::Balance::holds) {
            writeln!(out, "Ledger: balanced ({} equations)", balances.len())?;
        } else {
            writeln!(out, "Ledger: NOT BALANCED (please report this)")?;
            for b in balances.iter().filter(|b| !b.holds()) {
                writeln!(out, "  {}: {} against {}", b.name, b.came_in, b.went)?;
            }
        }
        Ok(())
    }
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn shorten(text: &str, max: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if clean.chars().count() <= max { clean } else { clean.chars().take(max - 1).chain(['…']).collect() }
}
