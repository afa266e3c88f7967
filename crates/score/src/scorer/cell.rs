//! Cells: client stack × login endpoint, and the sequential test of their failures.

use offpath_types::{LoginOutcome, Timestamp};

use super::Attempt;
use crate::distinct::Distinct;
use crate::entity::Refused;
use crate::login::Surge;
use crate::math::exp_neg;

/// How long a cell's counts last, in seconds.
pub(super) const CELL_SECS: f32 = 1800.0;

/// One client stack at one login endpoint: what quiet attackers share.
#[derive(Debug)]
pub(super) struct Cell {
    last: Timestamp,
    pub(super) attempts: f32,
    pub(super) failures: f32,
    /// CUSUM of the failure test, in nats; hot from the threshold on, until it is back at 0.
    sum: f32,
    pub(super) hot: bool,
    /// Users refused last, so that one person's retries count once.
    recent: Refused,
    pub(super) ips_failed: Distinct,
    pub(super) surge: Surge,
}

impl Cell {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            last: now,
            attempts: 0.0,
            failures: 0.0,
            sum: 0.0,
            hot: false,
            recent: Refused::new(),
            ips_failed: Distinct::new(),
            surge: Surge::new(now),
        }
    }

    /// Takes an attempt into the sequential test; `counts`: it is not explained by its client's own record.
    pub(super) fn observe(
        &mut self,
        now: Timestamp,
        attempt: &Attempt,
        counts: bool,
        epoch: u32,
        threshold: f32,
    ) {
        let k = exp_neg(now.nanos_since(self.last) as f32 * 1e-9 / CELL_SECS);
        self.last = now;
        self.attempts *= k;
        self.failures *= k;
        if !counts || attempt.outcome == LoginOutcome::Unknown {
            return;
        }
        let failed = attempt.outcome == LoginOutcome::Failure;
        if failed && let Some(user) = attempt.user {
            let word = user as u32 | 1;
            if self.recent.contains(word) {
                return;
            }
            self.recent.insert(word);
        }
        self.attempts += 1.0;
        let baseline = (attempt.baseline as f32).clamp(0.08, 0.5);
        // The alternative is a cell where six in ten fail, or well above the baseline.
        let alternative = (baseline + 0.2).max(0.6);
        if failed {
            self.failures += 1.0;
            self.ips_failed.insert(attempt.ip, epoch);
            self.sum += (alternative / baseline).ln();
        } else {
            self.sum += ((1.0 - alternative) / (1.0 - baseline)).ln();
        }
        self.sum = self.sum.clamp(0.0, 2.0 * threshold);
        if self.sum >= threshold {
            self.hot = true;
        } else if self.sum == 0.0 {
            self.hot = false;
        }
    }
}
