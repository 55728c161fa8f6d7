//! A comparison in words, each verdict with its evidence.

use super::comparison::{Comparison, verdict_of};
use crate::metrics::{Change, Value};
use crate::report::significant;
use serde::Serialize;
use std::cmp::Ordering;

/// A compared cell in words.
#[derive(Serialize)]
pub struct Told {
    server: String,
    metric: String,
    unit: &'static str,
    before: Value,
    after: Value,
    /// The change, or that there is none.
    words: String,
    /// The evidence for it.
    why: String,
    /// The change in units of noise; one that is no ratio, such as from never to k=4, is larger than all that are.
    size: f64,
    differs: bool,
}

impl Comparison {
    /// Every cell in words, with the evidence for its verdict.
    pub fn told(&self) -> impl Iterator<Item = Told> {
        self.lines.iter().map(|line| {
            let one = &line.comparison;
            let (apart, all) = line.apart;
            let noise = one.noise.map_or("no relative noise".into(), |ratio| format!("noise x {}", significant(ratio)));
            Told {
                server: line.server.clone(),
                metric: line.metric.clone(),
                unit: line.unit.word(),
                before: one.before.median,
                after: one.after.median,
                words: verdict_of(line),
                why: format!("{apart} of {all} pairs of trials apart, p = {:.4}, {noise}", one.p),
                size: size(one.change, one.noise),
                differs: one.differs,
            }
        })
    }

    /// Notes for the reader.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// A change in units of noise, as far as it is known for certain. JSON has no infinity.
fn size(change: Change, noise: Option<f64>) -> f64 {
    let ratio = (1.0 + change.share()).ln().abs();
    (ratio / noise.map_or(1.0, |noise| noise.ln().max(1e-3))).min(f64::MAX)
}

/// The number of pairs of trials that are apart in the more frequent direction, and the number of pairs.
pub fn apart(before: &[Value], after: &[Value]) -> (usize, usize) {
    let orders = before.iter().flat_map(|before| after.iter().map(|after| before.known_order(after)));
    let (mut above, mut below, mut all) = (0, 0, 0);
    for order in orders {
        all += 1;
        above += usize::from(order == Some(Ordering::Less));
        below += usize::from(order == Some(Ordering::Greater));
    }
    (above.max(below), all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Value::{AtLeast, Exact, NotReached};

    #[test]
    fn the_more_is_known_of_a_change_the_larger_it_is_and_what_is_no_ratio_is_the_largest() {
        let sizes =
            [Change::Unknown, Change::RatioAtLeast(1.1), Change::Ratio(0.5), Change::RatioAtMost(0.02), Change::ReachedNow];
        let sizes = sizes.map(|change| size(change, Some(1.05)));
        assert!(sizes.is_sorted() && sizes[0] == 0.0, "{sizes:?}");
        assert_eq!([sizes[4], size(Change::NoLongerReached, None), size(Change::FromZero(2.0), None)], [f64::MAX; 3]);
    }

    #[test]
    fn pairs_are_apart_where_bounds_leave_no_doubt() {
        assert_eq!(apart(&[Exact(1.0), Exact(2.0)], &[Exact(3.0), Exact(1.5)]), (3, 4));
        assert_eq!(apart(&[Exact(1.0), AtLeast(9.0)], &[AtLeast(5.0), NotReached]), (2, 4));
        assert_eq!(apart(&[Exact(1.0)], &[]), (0, 0));
    }
}
