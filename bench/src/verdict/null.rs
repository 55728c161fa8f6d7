//! The null test: servers compared with themselves, where every difference is chance.

use crate::catalog::AGAIN;
use crate::metrics::{Cell, Change, Metric, Numbers, Role, Value};
use crate::stats::{rank_sum, share_at_least};
use std::collections::BTreeSet;

/// The null test fails if more than this share of comparisons is flagged.
const MOST_FLAGGED: f64 = 0.05;

/// One metric of one server against itself.
#[derive(Debug, Clone, PartialEq)]
pub struct NullComparison {
    /// The server's first name.
    pub server: String,
    /// The metric.
    pub metric: Metric,
    /// The first median.
    pub size: f64,
    /// The logarithm of the second median divided by the first; `None` for thresholds and where there is no ratio.
    pub log_ratio: Option<f64>,
    /// Two-sided p-value.
    pub p: f64,
    /// Whether the data could have shown a difference at all.
    pub can_differ: bool,
}

/// Compares each server of a null round with itself.
pub fn within(numbers: &Numbers) -> Vec<NullComparison> {
    let firsts: Vec<&str> = numbers.servers().filter(|server| !server.ends_with(AGAIN)).collect();
    let mut all = Vec::new();
    for server in firsts {
        let again = format!("{server}{AGAIN}");
        for (metric, cell) in numbers.of_server(server) {
            all.extend(numbers.cell(&again, metric).and_then(|other| compare(server, metric, cell, other)));
        }
    }
    all
}

/// Compares a server with itself; `None` for what is only shown, was never measured, or never varies.
pub fn compare(server: &str, metric: &Metric, a: &Cell, b: &Cell) -> Option<NullComparison> {
    if metric.family.role == Role::Detail {
        return None;
    }
    let (first, second) = (a.summary()?.median, b.summary()?.median);
    let size = first.number()?;
    let varies = a.values.iter().chain(&b.values).any(|value| *value != a.values[0]);
    let log_ratio = Change::between(first, second).log_ratio().filter(|_| metric.family.role != Role::Threshold);
    let test = rank_sum(&a.values, &b.values, Value::known_order);
    let (server, metric) = (server.to_owned(), metric.clone());
    varies.then_some(NullComparison { server, metric, size, log_ratio, p: test.p, can_differ: test.least_p < MOST_FLAGGED })
}

/// The result of a null test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NullResult {
    /// Independent comparisons of a server with itself.
    pub comparisons: usize,
    /// Of these, those with p below 5 %, before any correction.
    pub flagged: usize,
    /// The lower end of the 95 % interval of the share flagged.
    pub at_least: f64,
}

impl NullResult {
    /// Counts one metric of each family and server. Several metrics of one family come from the same processes, and often from the same
    /// probes, so they are not independent: what makes one look different makes the others look so too.
    pub fn of(comparisons: &[NullComparison]) -> Self {
        let mut seen = BTreeSet::new();
        let is_first = |one: &&NullComparison| seen.insert((one.server.clone(), one.metric.family.name.to_string()));
        let counted: Vec<&NullComparison> = comparisons.iter().filter(|one| one.can_differ).filter(is_first).collect();
        let flagged = counted.iter().filter(|one| one.p < MOST_FLAGGED).count();
        NullResult { comparisons: counted.len(), flagged, at_least: share_at_least(flagged, counted.len()) }
    }

    /// Whether no more is flagged than chance flags.
    pub fn passes(&self) -> bool {
        self.comparisons > 0 && self.at_least <= MOST_FLAGGED
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{all, exact, p99, threshold};
    use super::*;

    fn made_up(shift: f64, servers: usize) -> Vec<NullComparison> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut values = |shift: f64| exact(&(0..7).map(|_| random.f64() + 1.0 + shift).collect::<Vec<_>>());
        (0..servers).filter_map(|number| compare(&number.to_string(), &p99(), &values(0.0), &values(shift))).collect()
    }

    #[test]
    fn comparisons_of_equals_pass_and_of_unequals_fail() {
        let equal = NullResult::of(&made_up(0.0, 200));
        assert!(equal.passes() && equal.comparisons == 200, "{equal:?}");
        assert!(!NullResult::of(&made_up(0.4, 200)).passes());
        assert!(!NullResult::of(&[]).passes(), "nothing was compared");
    }

    #[test]
    fn metrics_of_the_same_probes_count_once() {
        let one = made_up(0.0, 1).remove(0);
        let same: Vec<NullComparison> = (0..9).map(|_| NullComparison { p: 0.001, ..one.clone() }).collect();
        assert_eq!(NullResult::of(&same).comparisons, 1);
    }

    #[test]
    fn never_and_what_never_varies_is_not_a_comparison_and_a_threshold_has_no_ratio() {
        let never = all(Value::Never { tried: 64.0 });
        assert_eq!(compare("a", &threshold(), &never, &never), None);
        assert_eq!(compare("a", &p99(), &exact(&[2.0; 7]), &exact(&[2.0; 7])), None);
        let found = compare("a", &threshold(), &all(Value::Exact(2.0)), &all(Value::Exact(4.0))).unwrap();
        assert_eq!(found.log_ratio, None);
    }
}
