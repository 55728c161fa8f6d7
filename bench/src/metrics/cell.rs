//! One metric of one server over its trials.

use super::Value;
use crate::stats;
use serde::Serialize;

/// The trials of one metric of one server.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    /// Values of the valid trials.
    pub values: Vec<Value>,
    /// Reasons of the invalid ones.
    pub invalid: Vec<String>,
    /// Values are steps of a ladder, between which there is no mean.
    pub is_ordinal: bool,
}

/// A cell in short.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// The median over the valid trials.
    pub median: Value,
    /// An interval that encloses the true median with at least 95 % confidence; `None` below six trials, where no such interval exists.
    pub interval: Option<(Value, Value)>,
    /// Valid trials.
    pub trials: usize,
    /// The middles of two heaps, if the trials fall into two.
    pub heaps: Option<(f64, f64)>,
}

impl Cell {
    /// Median and interval of the valid trials; `None` without any.
    pub fn summary(&self) -> Option<Summary> {
        let mut sorted = self.values.clone();
        sorted.sort_by(Value::sort_order);
        let count = sorted.len();
        let middle = count.checked_sub(1)? / 2;
        let exact: Option<Vec<f64>> = sorted.iter().map(|value| value.exact()).collect();
        let heaps = exact.as_deref().filter(|_| !self.is_ordinal).and_then(stats::heaps);
        let has_mean = count.is_multiple_of(2) && !self.is_ordinal && heaps.is_none();
        let median = match exact.as_deref().filter(|_| has_mean).and_then(stats::median) {
            Some(mean) => Value::Exact(mean),
            // Of an even number the lower one: a mean would be a state that no trial was in.
            None => at(&sorted, middle),
        };
        let interval = stats::interval_rank(count).map(|rank| (at(&sorted, rank), at(&sorted, count - 1 - rank)));
        Some(Summary { median, interval, trials: count, heaps })
    }
}

/// The value at a rank. If any value below it is only a bound, the true value at that rank may be larger, so it is a bound too.
fn at(sorted: &[Value], rank: usize) -> Value {
    let value = sorted[rank];
    match value {
        Value::Exact(number) if sorted[..rank].iter().any(|below| below.is_open()) => Value::AtLeast(number),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Value::{AtLeast, Exact, Never, NotReached};

    fn summary(values: &[Value], is_ordinal: bool) -> Summary {
        Cell { values: values.to_vec(), invalid: Vec::new(), is_ordinal }.summary().unwrap()
    }

    #[test]
    fn a_percentile_below_a_bound_is_a_bound() {
        assert_eq!(summary(&[Exact(300.0), AtLeast(504.0), Exact(600.0)], false).median, AtLeast(504.0));
        assert_eq!(summary(&[AtLeast(504.0), Exact(600.0), Exact(700.0)], false).median, AtLeast(600.0));
        assert_eq!(summary(&[Exact(1.0), Exact(2.0), AtLeast(3.0)], false).median, Exact(2.0));
    }

    #[test]
    fn an_even_number_of_thresholds_or_of_two_heaps_has_no_mean() {
        assert_eq!(summary(&[Exact(2.0), Exact(4.0)], true).median, Exact(2.0));
        let tabs = [300.0, 301.0, 302.0, 600.0, 601.0, 602.0].map(Exact);
        let found = summary(&tabs, false);
        assert_eq!((found.median, found.heaps), (Exact(302.0), Some((301.0, 601.0))));
        assert_eq!(summary(&[Exact(1.0), Exact(2.0)], false).median, Exact(1.5));
    }

    #[test]
    fn never_is_a_median_when_most_trials_never_got_there() {
        let never = Never { tried: 64.0 };
        assert_eq!(summary(&[Exact(16.0), never, never], true).median, never);
        assert_eq!(summary(&[Exact(16.0), Exact(16.0), never], true).median, Exact(16.0));
        assert_eq!(summary(&[NotReached; 7], false).interval, Some((NotReached, NotReached)));
    }

    #[test]
    fn no_trials_have_no_summary() {
        assert_eq!(Cell::default().summary(), None);
    }
}
