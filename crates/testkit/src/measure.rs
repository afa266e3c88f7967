//! Compares what Offpath found with what the generator knows.
//!
//! Every generated request carries its number in its target (`…?tx=17`), so records are joined by it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::impair::Kept;

/// What the generator knows of one transaction: one line of a truth file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    /// Number of the transaction.
    pub tx: u64,
    /// Who made it: `person`, `office`, `app`, `partner`, or the kind of attack.
    pub label: String,
    /// The client's address.
    pub client: String,
    /// Request method.
    pub method: String,
    /// Request target.
    pub target: String,
    /// Host field.
    pub host: String,
    /// Status of the response.
    pub status: u16,
    /// Request body bytes.
    pub request_body: u64,
    /// Response body bytes, after dechunking.
    pub response_body: u64,
    /// Numbers (from 0) of the frames that carry the request's head.
    pub request_head_frames: Vec<u64>,
    /// Numbers (from 0) of the frames that carry the response's head.
    pub response_head_frames: Vec<u64>,
    /// `success` or `failure` where it is a login.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub login: Option<String>,
    /// The user name of a login.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
}

impl Truth {
    /// Tells whether somebody honest made it.
    pub fn is_benign(&self) -> bool {
        matches!(self.label.as_str(), "person" | "office" | "app" | "partner")
    }

    /// Tells whether the frames of both heads came through whole.
    pub fn heads_survived(&self, kept: &Kept) -> bool {
        self.request_head_frames.iter().chain(&self.response_head_frames).all(|f| kept.survived(*f))
    }
}

/// Reads a truth file.
pub fn read_truth(input: impl BufRead) -> io::Result<Vec<Truth>> {
    input.lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

/// What a record of Offpath says, as far as it is compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Number of the transaction, out of its target.
    pub tx: Option<u64>,
    method: String,
    status: Option<u64>,
    request_body: Option<u64>,
    response_body: Option<u64>,
    complete: bool,
    confidence: Option<f64>,
}

/// Reads Offpath's transactions.
///
/// # Errors
/// A line that is no JSON; the error names it.
pub fn read_found(input: impl BufRead) -> io::Result<Vec<Found>> {
    let parse = |(i, line): (usize, io::Result<String>)| {
        let value: Value = serde_json::from_str(&line?)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {e}", i + 1)))?;
        Ok(found(&value))
    };
    input.lines().enumerate().map(parse).collect()
}

fn found(record: &Value) -> Found {
    let number = |path: &[&str]| member(record, path).and_then(Value::as_u64);
    let text = |path: &[&str]| member(record, path).and_then(Value::as_str);
    Found {
        tx: text(&["url", "original"]).and_then(tx_of_target),
        method: text(&["http", "request", "method"]).unwrap_or_default().to_owned(),
        status: number(&["http", "response", "status_code"]),
        request_body: number(&["http", "request", "body", "bytes"]),
        response_body: number(&["http", "response", "body", "bytes"]),
        complete: member(record, &["offpath", "complete"]).and_then(Value::as_bool).unwrap_or(false),
        confidence: member(record, &["offpath", "confidence"]).and_then(Value::as_f64),
    }
}

/// Follows nested objects, and keys with dots in their names where a level is flattened.
fn member<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(value);
    }
    (1..=path.len()).find_map(|n| member(value.get(path[..n].join("."))?, &path[n..]))
}

/// Returns the number behind `tx=` in a target.
pub fn tx_of_target(target: &str) -> Option<u64> {
    let at = target.rfind("tx=")?;
    if !matches!(target.as_bytes().get(at.checked_sub(1)?), Some(b'?' | b'&')) {
        return None;
    }
    let digits = &target[at + 3..];
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

/// How much of what could be recovered was recovered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// Transactions in the truth.
    pub transactions: u64,
    /// Those whose two heads survived.
    pub survivors: u64,
    /// Survivors that were found with their method and status.
    pub recovered: u64,
    /// Survivors that were found without their response.
    pub without_response: u64,
    /// Survivors that were not found at all.
    pub missing: u64,
    /// Found transactions whose heads did not both survive (duplicates, or recovered in spite of it).
    pub beyond: u64,
    /// Found transactions paired with a response that is not theirs.
    pub wrong: u64,
    /// Second records of the same transaction.
    pub repeated: u64,
    /// Records without a known number (responses without request, foreign traffic).
    pub unknown: u64,
    /// The first numbers of wrong, missing or response-less transactions, for looking into.
    pub examples: Vec<u64>,
}

impl Recovery {
    /// Percentage of the survivors that were recovered; 100 where there are none.
    pub fn percent(&self) -> f64 {
        if self.survivors == 0 { 100.0 } else { 100.0 * self.recovered as f64 / self.survivors as f64 }
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "transactions            {:>10}", self.transactions)?;
        writeln!(f, "both heads survived     {:>10}", self.survivors)?;
        writeln!(f, "recovered of those      {:>10}  {:.3} %", self.recovered, self.percent())?;
        writeln!(f, "  without response      {:>10}", self.without_response)?;
        writeln!(f, "  missing               {:>10}", self.missing)?;
        writeln!(f, "found beyond those      {:>10}", self.beyond)?;
        writeln!(f, "wrongly paired          {:>10}", self.wrong)?;
        writeln!(f, "repeated                {:>10}", self.repeated)?;
        writeln!(f, "without known number    {:>10}", self.unknown)?;
        if !self.examples.is_empty() {
            writeln!(f, "examples (tx): {:?}", self.examples)?;
        }
        Ok(())
    }
}

/// Joins truth, survivors and findings. Survivors balance: recovered + wrong ones + without response +
/// missing.
pub fn recovery(truth: &[Truth], kept: &Kept, found: &[Found]) -> Recovery {
    let mut result = Recovery { transactions: truth.len() as u64, ..Recovery::default() };
    let mut by_tx: BTreeMap<u64, Vec<&Found>> = BTreeMap::new();
    let known: std::collections::BTreeSet<u64> = truth.iter().map(|t| t.tx).collect();
    for record in found {
        match record.tx.filter(|tx| known.contains(tx)) {
            Some(tx) => by_tx.entry(tx).or_default().push(record),
            None => result.unknown += 1,
        }
    }
    for row in truth {
        let survived = row.heads_survived(kept);
        result.survivors += u64::from(survived);
        let records = by_tx.get(&row.tx).map(Vec::as_slice).unwrap_or_default();
        result.repeated += (records.len() as u64).saturating_sub(1);
        // The best of several records counts, so that a repetition is counted once, as one.
        let best = records.iter().max_by_key(|r| (r.status.is_some(), !is_wrong(row, r)));
        let slot = match best {
            Some(r) if r.status.is_some() && is_wrong(row, r) => &mut result.wrong,
            Some(r) if r.status.is_some() && survived => &mut result.recovered,
            Some(_) if !survived => &mut result.beyond,
            Some(_) => &mut result.without_response,
            None if survived => &mut result.missing,
            None => continue,
        };
        *slot += 1;
        let good = best.is_some_and(|r| r.status.is_some() && !is_wrong(row, r));
        if survived && !good && result.examples.len() < 10 {
            result.examples.push(row.tx);
        }
    }
    result
}

fn is_wrong(truth: &Truth, found: &Found) -> bool {
    let differs = |got: Option<u64>, want: u64| got.is_some_and(|v| v != want);
    found.method != truth.method
        || differs(found.status, u64::from(truth.status))
        || (found.complete
            && (differs(found.request_body, truth.request_body)
                || differs(found.response_body, truth.response_body)))
}

/// How well the confidence tells attacks from people.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Detection {
    /// Transactions, and those at or over the threshold, by label.
    pub by_label: BTreeMap<String, Rated>,
    /// Mean of the coverage over the kinds of attack, in per cent.
    pub coverage_percent: f64,
    /// Percentage of people's (and offices', apps', partners') transactions at or over the threshold.
    pub false_positive_percent: f64,
    /// Mean distance of confidence and truth, weighted by how many are in each decile; 0..=1.
    pub calibration_error: f64,
    /// By decile of confidence: how many, mean confidence and share of attacks, both 0..=1.
    pub deciles: Vec<Decile>,
    /// Records that could not be joined or carry no confidence.
    pub unknown: u64,
}

/// One label's row of a [`Detection`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rated {
    /// Transactions found.
    pub transactions: u64,
    /// Those at or over the threshold.
    pub flagged: u64,
}

/// One decile of a [`Detection`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Decile {
    /// Transactions in it.
    pub transactions: u64,
    /// Their mean confidence.
    pub confidence: f64,
    /// The share that were attacks.
    pub attacks: f64,
}

impl fmt::Display for Detection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, r) in &self.by_label {
            let percent = 100.0 * r.flagged as f64 / (r.transactions as f64).max(1.0);
            writeln!(
                f,
                "{label:<12} {:>9} transactions {:>9} flagged {percent:>8.3} %",
                r.transactions, r.flagged
            )?;
        }
        writeln!(f, "coverage, mean over kinds of attack  {:>8.3} %", self.coverage_percent)?;
        writeln!(f, "false positives                      {:>8.4} %", self.false_positive_percent)?;
        writeln!(f, "calibration error                    {:>8.4}", self.calibration_error)?;
        for (i, d) in self.deciles.iter().enumerate().filter(|(_, d)| d.transactions > 0) {
            let (low, high) = (i * 10, if i == 9 { 100 } else { i * 10 + 9 });
            writeln!(
                f,
                "  confidence {low:>2}..{high:<3} {:>9} transactions, mean {:.3}, attacks {:.3}",
                d.transactions, d.confidence, d.attacks
            )?;
        }
        writeln!(f, "not joined                           {:>8}", self.unknown)
    }
}

/// Rates the confidences of `found` against the labels of `truth`.
pub fn detection(truth: &[Truth], found: &[Found], threshold: f64) -> Detection {
    let rows: BTreeMap<u64, &Truth> = truth.iter().map(|t| (t.tx, t)).collect();
    let mut result = Detection { deciles: vec![Decile::default(); 10], ..Detection::default() };
    for record in found {
        let row = record.tx.and_then(|tx| rows.get(&tx));
        let (Some(row), Some(confidence)) = (row, record.confidence) else {
            result.unknown += 1;
            continue;
        };
        let rated = result.by_label.entry(row.label.clone()).or_default();
        rated.transactions += 1;
        rated.flagged += u64::from(confidence >= threshold);
        let decile = &mut result.deciles[((confidence / 10.0) as usize).min(9)];
        decile.transactions += 1;
        decile.confidence += confidence / 100.0;
        decile.attacks += if row.is_benign() { 0.0 } else { 1.0 };
    }
    let total: u64 = result.deciles.iter().map(|d| d.transactions).sum();
    for decile in result.deciles.iter_mut().filter(|d| d.transactions > 0) {
        let n = decile.transactions as f64;
        result.calibration_error += (decile.confidence - decile.attacks).abs() / total as f64;
        decile.confidence /= n;
        decile.attacks /= n;
    }
    let benign = |label: &str| Truth { label: label.to_owned(), ..Truth::default() }.is_benign();
    let (mut people, mut kinds) = (Rated::default(), Vec::new());
    for (label, rated) in &result.by_label {
        if benign(label) {
            people.transactions += rated.transactions;
            people.flagged += rated.flagged;
        } else {
            kinds.push(100.0 * rated.flagged as f64 / rated.transactions as f64);
        }
    }
    result.coverage_percent = kinds.iter().sum::<f64>() / (kinds.len() as f64).max(1.0);
    result.false_positive_percent = 100.0 * people.flagged as f64 / (people.transactions as f64).max(1.0);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tx: u64, label: &str, frames: [u64; 2]) -> Truth {
        Truth {
            tx,
            label: label.into(),
            method: "GET".into(),
            target: format!("/?tx={tx}"),
            status: 200,
            response_body: 10 + tx,
            request_head_frames: vec![frames[0]],
            response_head_frames: vec![frames[1]],
            ..Truth::default()
        }
    }

    fn record(tx: u64, status: &str, body: u64, confidence: u64) -> String {
        format!(
            r#"{{"url":{{"original":"/a?b=1&tx={tx}"}},"http":{{"request":{{"method":"GET","body":{{"bytes":0}}}},"response":{{{status}"body":{{"bytes":{body}}}}}}},"offpath":{{"complete":true,"confidence":{confidence}}}}}"#
        )
    }

    #[test]
    fn numbers_come_out_of_targets() {
        for (target, want) in [
            ("/?tx=5", Some(5)),
            ("/a?b=c&tx=17&z=1", Some(17)),
            ("/ctx=5", None),
            ("tx=5", None),
            ("/?tx=", None),
        ] {
            assert_eq!(tx_of_target(target), want, "{target}");
        }
    }

    #[test]
    fn recovery_counts_each_transaction_once() {
        let truth: Vec<_> = (0..6).map(|i| row(i, "person", [2 * i, 2 * i + 1])).collect();
        let kept = Kept { frames_in: 12, dropped: vec![3], ..Kept::default() };
        let ok = r#""status_code":200,"#;
        let lines = [
            record(0, ok, 10, 0),
            record(1, "", 0, 0),
            record(2, r#""status_code":404,"#, 12, 0),
            record(3, ok, 99, 0),
            record(4, "", 0, 0),
            record(0, ok, 10, 0),
            record(77, ok, 10, 0),
        ]
        .join("\n");
        let got = recovery(&truth, &kept, &read_found(lines.as_bytes()).unwrap());
        let want = Recovery {
            transactions: 6,
            survivors: 5,
            recovered: 1,
            without_response: 1,
            missing: 1,
            beyond: 1,
            wrong: 2,
            repeated: 1,
            unknown: 1,
            examples: vec![2, 3, 4, 5],
        };
        assert_eq!(got, want);
        assert!((got.percent() - 20.0).abs() < 1e-9);
    }

    #[test]
    fn detection_rates_kinds_alike_and_measures_calibration() {
        let truth = [row(0, "person", [0, 1]), row(1, "ato-fast", [2, 3]), row(2, "ato-slow", [4, 5])];
        let lines = [record(0, "", 0, 10), record(1, "", 0, 95), record(2, "", 0, 40), record(9, "", 0, 1)]
            .join("\n");
        let got = detection(&truth, &read_found(lines.as_bytes()).unwrap(), 90.0);
        assert!((got.coverage_percent - 50.0).abs() < 1e-9);
        assert!(got.false_positive_percent.abs() < 1e-9);
        assert!((got.calibration_error - (0.1 + 0.05 + 0.6) / 3.0).abs() < 1e-9, "{got}");
        assert_eq!(got.unknown, 1);
    }

    #[test]
    fn flattened_records_are_read_too() {
        let record: Value =
            serde_json::from_str(r#"{"url.original":"/?tx=3","http":{"request.method":"GET"}}"#).unwrap();
        assert_eq!(found(&record).tx, Some(3));
        assert_eq!(found(&record).method, "GET");
    }
}
