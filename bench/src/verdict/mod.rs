//! Which results differ by more than noise: the one judgement behind `compare`, `rank` and the null test. No I/O in here.
//!
//! Two cells differ if a Mann-Whitney test says so after Benjamini-Hochberg over all cells of the same kind of metric, *and* their
//! medians differ by more than identical servers did in the null test.

pub mod gate;
pub mod rank;
pub mod spread;

use crate::stats::{Summary, discoveries, mann_whitney, summarize};
use serde::Serialize;
use spread::Spread;
use std::collections::BTreeMap;

/// Share of false discoveries over a table.
const RATE: f64 = 0.05;
/// Differences between latencies that are smaller, in ms, are not claimed: the driver's own lag may be a tenth of that.
const LEAST_MS: f64 = 2.0;

/// Two cells beside each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Median and interval before.
    pub before: Summary,
    /// Median and interval after.
    pub after: Summary,
    /// Change of the median as a share of `before`; none where one of them was not reached.
    pub change: Option<f64>,
    /// Two-sided p-value.
    pub p: f64,
    /// The change that identical servers show, as a share.
    pub noise: f64,
    /// Whether they differ.
    pub differs: bool,
}

/// What is compared: the metric's name, and the values of both sides.
pub struct Pair<'v> {
    /// Metric.
    pub metric: &'v str,
    /// Values of its trials.
    pub before: &'v [f64],
    /// Values of its trials.
    pub after: &'v [f64],
}

/// Judges pairs, those of each kind of metric as one table; nothing is said of a pair with an empty side.
pub fn judge(pairs: &[Pair<'_>], spread: &Spread) -> Vec<Option<Comparison>> {
    let p_values: Vec<f64> = pairs.iter().map(|pair| mann_whitney(pair.before, pair.after)).collect();
    let mut tables: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, pair) in pairs.iter().enumerate() {
        tables.entry(family(pair.metric)).or_default().push(index);
    }
    let mut is_discovery = vec![false; pairs.len()];
    for table in tables.values() {
        let found = discoveries(&table.iter().map(|index| p_values[*index]).collect::<Vec<_>>(), RATE);
        table.iter().zip(found).for_each(|(index, found)| is_discovery[*index] = found);
    }
    let judged = pairs.iter().zip(p_values).zip(is_discovery);
    judged.map(|((pair, p), is_discovery)| one(pair, p, is_discovery, spread)).collect()
}

fn one(pair: &Pair<'_>, p: f64, is_discovery: bool, spread: &Spread) -> Option<Comparison> {
    let (before, after) = (summarize(pair.before)?, summarize(pair.after)?);
    let noise = spread.of(pair.metric, before.median);
    let change = Some(after.median / before.median - 1.0).filter(|change| change.is_finite());
    let is_large = match change {
        Some(change) => change.abs() > noise && !is_below_claim(pair.metric, before.median, after.median),
        // One was reached and the other was not; or neither was, and then p says so.
        None => before.median != after.median,
    };
    Some(Comparison { before, after, change, p, noise, differs: is_discovery && is_large })
}

fn is_below_claim(metric: &str, before: f64, after: f64) -> bool {
    let name = family(metric);
    name.ends_with("_ms") && name != "ready_ms" && (after - before).abs() < LEAST_MS
}

/// A metric's name without what is in brackets.
pub fn family(metric: &str) -> &str {
    metric.split('[').next().unwrap_or(metric)
}

/// Whether more of this metric is better.
pub fn more_is_better(metric: &str) -> bool {
    ["per_s", "per_cpu_s", "freeze_k", "idle_connections", "blockers_per_s"].contains(&family(metric))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: [f64; 6] = [10.0, 10.1, 10.2, 10.3, 10.4, 10.5];
    const HIGH: [f64; 6] = [20.0, 20.1, 20.2, 20.3, 20.4, 20.5];
    const NEVER: [f64; 6] = [f64::INFINITY; 6];

    fn verdict(metric: &str, before: &[f64], after: &[f64]) -> Comparison {
        judge(&[Pair { metric, before, after }], &Spread::default()).remove(0).unwrap()
    }

    #[test]
    fn doubled_values_differ_and_equal_ones_do_not() {
        assert!(verdict("p99_ms[0]", &LOW, &HIGH).differs);
        assert!(!verdict("p99_ms[0]", &LOW, &LOW).differs);
        assert_eq!(verdict("p99_ms[0]", &LOW, &LOW).change, Some(0.0));
    }

    #[test]
    fn a_sure_but_small_change_is_none() {
        let slightly = LOW.map(|value| value * 1.06 - 0.3);
        assert!(!verdict("cpu_us[kept-alive]", &LOW, &slightly).differs, "within what the null test found");
        let tiny = LOW.map(|value| value / 100.0);
        assert!(!verdict("p99_ms[0]", &tiny, &HIGH.map(|value| value / 100.0)).differs, "0.1 ms against 0.2 ms");
        assert!(verdict("cpu_us[kept-alive]", &tiny, &HIGH.map(|value| value / 100.0)).differs);
    }

    #[test]
    fn what_was_never_reached_differs_from_every_number_and_not_from_itself() {
        assert!(verdict("p99_ms[sleep,64]", &LOW, &NEVER).differs);
        assert_eq!(verdict("p99_ms[sleep,64]", &LOW, &NEVER).change, None);
        assert!(!verdict("p99_ms[sleep,64]", &NEVER, &NEVER).differs);
    }

    #[test]
    fn too_few_trials_never_differ_and_nothing_is_said_of_none() {
        assert!(!verdict("p99_ms[0]", &LOW[..3], &HIGH[..3]).differs);
        assert_eq!(judge(&[Pair { metric: "p99_ms[0]", before: &[], after: &LOW }], &Spread::default()), [None]);
    }

    #[test]
    fn one_good_result_among_many_equal_ones_must_be_surer() {
        // 2 of 70 orders: p = 0.029, enough alone and not among twenty.
        let lone = Pair { metric: "cpu_us[x]", before: &LOW[..4], after: &HIGH[..4] };
        assert!(judge(&[lone], &Spread::default())[0].as_ref().unwrap().differs);
        let mut many: Vec<Pair> = (0..20).map(|_| Pair { metric: "cpu_us[x]", before: &LOW, after: &LOW }).collect();
        many.push(Pair { metric: "cpu_us[x]", before: &LOW[..4], after: &HIGH[..4] });
        assert!(!judge(&many, &Spread::default())[20].as_ref().unwrap().differs);
    }

    #[test]
    fn many_equal_results_of_one_kind_do_not_hide_a_change_of_another() {
        let mut pairs: Vec<Pair> = (0..400).map(|_| Pair { metric: "p99_ms[x]", before: &LOW, after: &LOW }).collect();
        pairs.push(Pair { metric: "cpu_us[x]", before: &LOW, after: &HIGH });
        assert!(judge(&pairs, &Spread::default())[400].as_ref().unwrap().differs);
    }
}
