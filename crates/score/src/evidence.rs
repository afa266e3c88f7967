//! Points that signals give to one transaction, and what they add up to.

use offpath_types::{Contribution, EntityKind};

use crate::math::{logit, sigmoid};
use crate::signals::Signal;

/// One signal's part; all zero where the signal is silent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) points: f64,
    pub(crate) value: f64,
    pub(crate) baseline: f64,
    pub(crate) entity: EntityKind,
}

const SILENT: Part = Part { points: 0.0, value: 0.0, baseline: 0.0, entity: EntityKind::Ip };

/// How much more a wider or later entity must give to take over a signal from the one named first.
const TAKE_OVER: f64 = 1.2;

/// The parts of all signals for one transaction. No allocation.
#[derive(Debug)]
pub(crate) struct Evidence {
    parts: [Part; Signal::COUNT],
    /// Some part is set.
    any: bool,
}

impl Evidence {
    pub(crate) const fn new() -> Self {
        Self { parts: [SILENT; Signal::COUNT], any: false }
    }

    /// Sets a signal's part, in points before weighting: clamped to the signal's range, weighted, rounded
    /// to a tenth. Of several entities the one that gives most counts, not their sum: address, session and
    /// prefix of one client are one observation. Ask for narrow entities first.
    pub(crate) fn set(
        &mut self,
        signal: Signal,
        entity: EntityKind,
        points: f64,
        value: f64,
        baseline: f64,
        weights: &[f64; Signal::COUNT],
    ) {
        let (low, high) = signal.range();
        let points = (points.clamp(low, high) * weights[signal as usize] * 10.0).round() / 10.0;
        let part = &mut self.parts[signal as usize];
        if points != 0.0 && (part.points == 0.0 || points.abs() > part.points.abs() * TAKE_OVER) {
            *part = Part { points, value, baseline, entity };
            self.any = true;
        }
    }

    pub(crate) const fn part(&self, signal: Signal) -> &Part {
        &self.parts[signal as usize]
    }

    pub(crate) fn points(&self, signals: &[Signal]) -> f64 {
        signals.iter().map(|s| self.parts[*s as usize].points).sum()
    }

    /// Points of the signals whose part names `entity`, of those given.
    pub(crate) fn points_on(&self, signals: &[Signal], entity: EntityKind) -> f64 {
        signals.iter().map(|s| self.part(*s)).filter(|p| p.entity == entity).map(|p| p.points).sum()
    }

    /// Returns the probability of automated abuse × 100, rounded down, from `prior` and all parts.
    pub(crate) fn confidence(&self, prior: f64) -> u8 {
        if !self.any {
            return (prior * 100.0) as u8;
        }
        let sum: f64 = self.parts.iter().map(|p| p.points).sum();
        (sigmoid(logit(prior) + sum / 10.0) * 100.0) as u8
    }

    /// Lists the parts, largest first; equal ones in the order of the signals.
    pub(crate) fn contributions(&self) -> Vec<Contribution> {
        let mut list: Vec<Contribution> = Signal::ALL
            .iter()
            .zip(&self.parts)
            .filter(|(_, p)| p.points != 0.0)
            .map(|(s, p)| Contribution {
                signal: s.name(),
                entity: p.entity,
                value: p.value,
                baseline: p.baseline,
                points: p.points,
            })
            .collect();
        list.sort_by(|a, b| b.points.total_cmp(&a.points));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: [f64; Signal::COUNT] = [1.0; Signal::COUNT];

    #[test]
    fn points_add_up_to_the_confidence() {
        let mut e = Evidence::new();
        assert_eq!(e.confidence(0.005), 0);
        e.set(Signal::LoginFailureRate, EntityKind::Ip, 700.0, 1.0, 0.0, &W);
        assert_eq!(e.part(Signal::LoginFailureRate).points, 70.0);
        e.set(Signal::DistinctUsers, EntityKind::Ip, 5.04, 1.0, 0.0, &W);
        assert_eq!(e.confidence(0.005), 90); // −5.29 + 7.5
        let list = e.contributions();
        assert_eq!(list.iter().map(|c| c.points).collect::<Vec<_>>(), [70.0, 5.0]);
    }

    #[test]
    fn of_several_entities_the_clearly_largest_counts() {
        let mut e = Evidence::new();
        e.set(Signal::DistinctUsers, EntityKind::Ip, 20.0, 1.0, 0.0, &W);
        e.set(Signal::DistinctUsers, EntityKind::Session, 22.0, 1.0, 0.0, &W);
        assert_eq!(e.part(Signal::DistinctUsers).entity, EntityKind::Ip);
        e.set(Signal::DistinctUsers, EntityKind::Prefix, 40.0, 1.0, 0.0, &W);
        assert_eq!(e.part(Signal::DistinctUsers).entity, EntityKind::Prefix);
        assert_eq!(e.points_on(&[Signal::DistinctUsers], EntityKind::Prefix), 40.0);
    }
}
