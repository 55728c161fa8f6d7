//! How far identical servers are apart: what a null round says, which has each server under two names.

use super::family;
use crate::report::numbers::Numbers;
use crate::stats::{mann_whitney, quantile, share_at_least, summarize};
use std::collections::BTreeMap;

/// Taken where no null round says better.
const UNKNOWN: f64 = 0.05;
/// Of the changes between identical servers, the share that the spread covers.
const COVERED: f64 = 0.95;
/// Trials of one comparison, as many as a standard round has.
pub const BATCH: usize = 6;
/// Metrics that only say again what others say.
const REPEATED: [&str; 2] = ["per_cpu_s", "driver_bound"];
/// What the second name of a server ends with.
pub const AGAIN: &str = "@again";
/// The null test fails if more than this share of comparisons is flagged.
const MOST_FLAGGED: f64 = 0.05;

/// The change of a median that noise alone makes. It depends on what is measured and on how large it is: the p99 of an idle server
/// doubles for no reason, that of a frozen one is arithmetic. So it is kept by kind of metric and by power of ten.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spread {
    shares: BTreeMap<String, BTreeMap<i32, f64>>,
    /// The null round that it comes from.
    pub source: Option<String>,
}

impl Spread {
    /// Takes it from comparisons of servers with themselves.
    pub fn from_null(comparisons: &[NullComparison], source: String) -> Self {
        let mut changes: BTreeMap<(String, i32), Vec<f64>> = BTreeMap::new();
        for one in comparisons {
            changes.entry((family(&one.metric).to_owned(), magnitude(one.median))).or_default().push(one.change.abs());
        }
        let mut shares: BTreeMap<String, BTreeMap<i32, f64>> = BTreeMap::new();
        for ((family, magnitude), changes) in changes {
            let share = quantile(&changes, COVERED).unwrap_or(UNKNOWN);
            shares.entry(family).or_default().insert(magnitude, share);
        }
        Spread { shares, source: Some(source) }
    }

    /// The change that noise alone makes in a metric of this size, as a share; of the nearest size that is known.
    pub fn of(&self, metric: &str, median: f64) -> f64 {
        let near = |(known, _): &(&i32, &f64)| (**known - magnitude(median)).abs();
        let known = self.shares.get(family(metric)).and_then(|by_size| by_size.iter().min_by_key(near));
        known.map_or(UNKNOWN, |(_, share)| *share)
    }

    /// A line for below a table.
    pub fn note(&self) -> String {
        match &self.source {
            Some(source) => format!("noise: what identical servers differed by in the null round {source}"),
            None => format!(
                "noise: taken as {:.0} %, since no null round of this machine is at hand; make one with `stallbench check harness`",
                UNKNOWN * 100.0
            ),
        }
    }
}

/// One metric of one server against itself, over one batch of trials.
#[derive(Debug, Clone, PartialEq)]
pub struct NullComparison {
    /// Metric.
    pub metric: String,
    /// The first median.
    pub median: f64,
    /// Change of the median, as a share.
    pub change: f64,
    /// Two-sided p-value.
    pub p: f64,
}

/// Compares each server with itself, batch by batch of so many trials. What was never reached, or never varies, is left out: nothing
/// can be found there.
pub fn null_comparisons(numbers: &Numbers, servers: &[&str], batch: usize) -> Vec<NullComparison> {
    let mut all = Vec::new();
    for server in servers.iter().filter(|server| !server.ends_with(AGAIN)) {
        for (metric, cell) in numbers.of_server(server).filter(|(metric, _)| !REPEATED.contains(&family(metric))) {
            let again = numbers.values(&format!("{server}{AGAIN}"), metric);
            for (a, b) in cell.values.chunks_exact(batch).zip(again.chunks_exact(batch)) {
                all.extend(null_comparison(metric, a, b));
            }
        }
    }
    all
}

fn null_comparison(metric: &str, a: &[f64], b: &[f64]) -> Option<NullComparison> {
    let (first, second) = (summarize(a)?.median, summarize(b)?.median);
    let change = second / first - 1.0;
    let varies = a.iter().chain(b).any(|value| *value != a[0]);
    (change.is_finite() && varies).then(|| NullComparison { metric: metric.into(), median: first, change, p: mann_whitney(a, b) })
}

/// The power of ten at or below a value.
fn magnitude(value: f64) -> i32 {
    value.abs().clamp(1e-9, 1e12).log10().floor() as i32
}

/// What a null test came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NullResult {
    /// Comparisons of a server with itself.
    pub comparisons: usize,
    /// Of these, those with p below 5 %, before any correction.
    pub flagged: usize,
    /// Lower end of the 95 % interval of the share flagged.
    pub at_least: f64,
}

impl NullResult {
    /// Counts.
    pub fn of(comparisons: &[NullComparison]) -> Self {
        let flagged = comparisons.iter().filter(|one| one.p < 0.05).count();
        NullResult { comparisons: comparisons.len(), flagged, at_least: share_at_least(flagged, comparisons.len()) }
    }

    /// No more was flagged than chance flags.
    pub fn passes(&self) -> bool {
        self.comparisons > 0 && self.at_least <= MOST_FLAGGED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_up(shift: f64) -> Vec<NullComparison> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut values = |shift: f64| -> Vec<f64> { (0..6).map(|_| random.f64() + 1.0 + shift).collect() };
        (0..400).filter_map(|_| null_comparison("p99_ms[0]", &values(0.0), &values(shift))).collect()
    }

    #[test]
    fn four_hundred_comparisons_of_equals_pass_and_of_unequals_fail() {
        let equal = NullResult::of(&made_up(0.0));
        assert!(equal.passes() && equal.comparisons == 400, "{equal:?}");
        let shifted = NullResult::of(&made_up(0.3));
        assert!(!shifted.passes(), "{shifted:?}");
        assert!(!NullResult::of(&[]).passes(), "nothing was compared");
    }

    #[test]
    fn the_spread_covers_nearly_all_changes_between_equals() {
        let spread = Spread::from_null(&made_up(0.0), "made up".into());
        let covered = made_up(0.0).iter().filter(|one| one.change.abs() <= spread.of("p99_ms[0]", 1.5)).count();
        assert!((380..=400).contains(&covered), "{covered}");
        assert_eq!(spread.of("p99_ms[sleep,4]", 400.0), spread.of("p99_ms[0]", 1.5), "the nearest size that is known");
        assert_eq!(spread.of("cpu_us[x]", 1.5), 0.05, "nothing is known");
    }

    #[test]
    fn small_values_may_be_noisier_than_large_ones() {
        let one = |median: f64, change: f64| NullComparison { metric: "p99_ms[0]".into(), median, change, p: 0.5 };
        let spread = Spread::from_null(&[one(0.2, 0.9), one(0.3, -0.8), one(400.0, 0.01), one(200.0, -0.02)], "made up".into());
        assert_eq!([0.25, 300.0, 5000.0].map(|median| spread.of("p99_ms[sleep,1]", median)), [0.9, 0.02, 0.02]);
    }

    #[test]
    fn what_was_never_reached_is_no_comparison() {
        assert_eq!(null_comparison("p99_ms[sleep,64]", &[f64::INFINITY; 6], &[f64::INFINITY; 6]), None);
        assert_eq!(null_comparison("threads", &[2.0; 6], &[2.0; 6]), None);
    }
}
