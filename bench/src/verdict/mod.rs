//! Which results differ by more than noise: the one judgement behind `compare`, `ab`, `rank` and the null test. No I/O in here.
//!
//! Two cells differ if the exact rank-sum test says so after Benjamini-Hochberg over all cells of the same family, *and*, unless they are
//! thresholds, their medians differ by more than identical servers did in a null round.

pub mod drift;
pub mod gate;
pub mod noise;
pub mod null;
pub mod power;
pub mod rank;

use crate::metrics::{Cell, Change, Metric, Role, Summary, Value};
use crate::stats::{RankSum, discoveries, rank_sum};
use noise::Noise;
use serde::Serialize;
use std::collections::BTreeMap;

/// The share of false discoveries over a table.
pub(crate) const RATE: f64 = 0.05;

/// Two cells side by side.
pub struct Pair<'m> {
    /// The metric of both.
    pub metric: &'m Metric,
    /// The first.
    pub before: Cell,
    /// The second.
    pub after: Cell,
}

/// A judged pair.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Median and interval of the first cell.
    pub before: Summary,
    /// Median and interval of the second.
    pub after: Summary,
    /// The change of the median.
    pub change: Change,
    /// Two-sided p-value of the rank-sum test.
    pub p: f64,
    /// The smallest that these values could have had in any order.
    #[serde(skip)]
    pub least_p: f64,
    /// The ratio that identical servers reach; `None` for thresholds, which have no relative noise.
    pub noise: Option<f64>,
    /// Whether the data could have shown a difference at all: with too few trials, or where all tie, they cannot.
    pub can_differ: bool,
    /// Whether they differ.
    pub differs: bool,
}

/// Judges pairs, those of each family as one table; `None` for a pair with an empty side.
pub fn judge(pairs: &[Pair<'_>], noise: &Noise) -> Vec<Option<Comparison>> {
    let tests: Vec<RankSum> =
        pairs.iter().map(|pair| rank_sum(&pair.before.values, &pair.after.values, Value::known_order)).collect();
    let mut tables: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, pair) in pairs.iter().enumerate() {
        // What cannot be a discovery would only make the others harder to see.
        if tests[index].least_p < RATE {
            tables.entry(&pair.metric.family.name).or_default().push(index);
        }
    }
    let mut is_discovery = vec![false; pairs.len()];
    for table in tables.values() {
        let found = discoveries(&table.iter().map(|index| tests[*index].p).collect::<Vec<_>>(), RATE);
        table.iter().zip(found).for_each(|(index, found)| is_discovery[*index] = found);
    }
    pairs.iter().zip(tests).zip(is_discovery).map(|((pair, test), is)| one(pair, test, is, noise)).collect()
}

fn one(pair: &Pair<'_>, test: RankSum, is_discovery: bool, noise: &Noise) -> Option<Comparison> {
    let (before, after) = (pair.before.summary()?, pair.after.summary()?);
    let change = Change::between(before.median, after.median);
    let ratio = noise_of(pair.metric, before.median, noise);
    let is_large = match change {
        Change::Ratio(found) if pair.metric.family.role == Role::Threshold => found != 1.0,
        Change::Ratio(_) | Change::FromZero(_) | Change::RatioAtLeast(_) | Change::RatioAtMost(_) => {
            is_claimed(pair.metric, before.median, after.median) && exceeds(change, ratio)
        }
        Change::NoLongerReached | Change::ReachedNow => true,
        Change::Unknown => false,
    };
    let can_differ = test.least_p < RATE;
    let (p, least_p) = (test.p, test.least_p);
    Some(Comparison { before, after, change, p, least_p, noise: ratio, can_differ, differs: is_discovery && is_large })
}

fn noise_of(metric: &Metric, before: Value, noise: &Noise) -> Option<f64> {
    let size = before.number().unwrap_or(0.0);
    (metric.family.role != Role::Threshold).then(|| noise.of(metric, size).exp())
}

/// Both directions alike: a half is as far from one as a double is.
fn exceeds(change: Change, noise: Option<f64>) -> bool {
    let (Some(noise), Some(ratio)) = (noise, Some(change.share() + 1.0)) else { return true };
    !ratio.is_finite() || ratio <= 0.0 || ratio.ln().abs() > noise.ln()
}

fn is_claimed(metric: &Metric, before: Value, after: Value) -> bool {
    match (before.number(), after.number()) {
        (Some(before), Some(after)) => (after - before).abs() >= metric.family.least_claim(),
        _ => true,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::metrics::{Family, Percentile, Unit};

    pub const LOW: [f64; 7] = [10.0, 10.1, 10.2, 10.3, 10.4, 10.5, 10.6];

    pub fn exact(values: &[f64]) -> Cell {
        Cell { values: values.iter().copied().map(Value::Exact).collect(), ..Cell::default() }
    }

    pub fn all(value: Value) -> Cell {
        Cell { values: vec![value; 7], is_ordinal: true, ..Cell::default() }
    }

    pub fn p99() -> Metric {
        Percentile::default().family().at("collateral", "sleep@110,4")
    }

    pub fn cpu() -> Metric {
        Family::new("cpu_us", Unit::Us, Role::Cost).at("throughput", "kept-alive")
    }

    pub fn threshold() -> Metric {
        Family::new("freeze_k", Unit::Blockers, Role::Threshold).more_is_better().at("collateral", "sleep@110,100")
    }

    fn verdict(metric: &Metric, before: Cell, after: Cell) -> Comparison {
        judge(&[Pair { metric, before, after }], &Noise::default()).remove(0).unwrap()
    }

    fn scaled(factor: f64) -> Cell {
        exact(&LOW.map(|value| value * factor))
    }

    #[test]
    fn doubled_and_halved_values_differ_and_equal_ones_do_not() {
        assert!(verdict(&p99(), scaled(1.0), scaled(2.0)).differs);
        assert!(verdict(&p99(), scaled(1.0), scaled(0.5)).differs);
        assert!(!verdict(&p99(), scaled(1.0), scaled(1.0)).differs);
    }

    #[test]
    fn a_sure_but_small_change_is_none() {
        let slightly = exact(&LOW.map(|value| value * 1.04));
        assert!(!verdict(&cpu(), scaled(1.0), slightly).differs, "within noise");
        assert!(!verdict(&p99(), scaled(0.01), scaled(0.02)).differs, "0.1 ms against 0.2 ms");
        assert!(verdict(&cpu(), scaled(0.01), scaled(0.02)).differs);
    }

    #[test]
    fn a_threshold_that_halves_or_doubles_in_every_trial_differs_either_way() {
        let k = |k: f64| all(Value::Exact(k));
        assert!(verdict(&threshold(), k(4.0), k(2.0)).differs);
        assert!(verdict(&threshold(), k(2.0), k(4.0)).differs);
        assert!(!verdict(&threshold(), k(4.0), k(4.0)).differs);
        assert_eq!(verdict(&threshold(), k(4.0), k(2.0)).noise, None);
    }

    #[test]
    fn reached_and_never_reached_differ_and_never_does_not_differ_from_itself() {
        let never = || all(Value::Never { tried: 64.0 });
        assert_eq!(verdict(&threshold(), all(Value::Exact(4.0)), never()).change, Change::NoLongerReached);
        assert!(verdict(&threshold(), all(Value::Exact(4.0)), never()).differs);
        assert!(verdict(&threshold(), never(), all(Value::Exact(4.0))).differs);
        assert!(!verdict(&threshold(), never(), never()).differs);
        assert!(!verdict(&p99(), all(Value::AtLeast(504.0)), all(Value::AtLeast(900.0))).differs, "bounds tie");
    }

    #[test]
    fn cells_that_cannot_differ_leave_the_table() {
        let metric = cpu();
        let few = |factor: f64| exact(&LOW[..3].iter().map(|value| value * factor).collect::<Vec<_>>());
        let lone = verdict(&metric, few(1.0), few(2.0));
        assert!(!lone.can_differ && !lone.differs);
        // Nineteen cells in which everything ties do not hide the one that could differ.
        let four = |factor: f64| exact(&LOW[..4].iter().map(|value| value * factor).collect::<Vec<_>>());
        let mut pairs: Vec<Pair> =
            (0..19).map(|_| Pair { metric: &metric, before: exact(&[5.0; 4]), after: exact(&[5.0; 4]) }).collect();
        pairs.push(Pair { metric: &metric, before: four(1.0), after: four(2.0) });
        assert!(judge(&pairs, &Noise::default())[19].as_ref().unwrap().differs);
    }

    #[test]
    fn one_good_result_among_many_equal_ones_must_be_surer() {
        let metric = cpu();
        let four = |factor: f64| exact(&LOW[..4].iter().map(|value| value * factor).collect::<Vec<_>>());
        let mut many: Vec<Pair> = (0..20).map(|_| Pair { metric: &metric, before: scaled(1.0), after: scaled(1.0) }).collect();
        many.push(Pair { metric: &metric, before: four(1.0), after: four(2.0) });
        assert!(!judge(&many, &Noise::default())[20].as_ref().unwrap().differs);
    }

    #[test]
    fn nothing_is_said_of_an_empty_cell() {
        assert_eq!(judge(&[Pair { metric: &p99(), before: Cell::default(), after: scaled(1.0) }], &Noise::default()), [None]);
    }
}
