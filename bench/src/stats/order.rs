//! Order statistics: medians, quantiles, and the interval around a median.

/// A gap between two heaps is this many times wider than the widest gap inside either of them.
const GAP: f64 = 3.0;
/// The upper heap starts this many times above the end of the lower one.
const APART: f64 = 1.25;
/// A single value is an outlier, not a heap.
const LEAST_HEAP: usize = 2;

/// The largest r such that the r-th smallest and the r-th largest of n values (counted from 0) enclose the median with 95 % confidence:
/// the number of values below the median is binomial with p = 1/2. `None` below six values, where no such interval exists.
pub fn interval_rank(n: usize) -> Option<usize> {
    let mut tail = 0.0;
    let mut best = None;
    for rank in 0..n / 2 {
        tail += choose(n, rank) * 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
        if 2.0 * tail > 0.05 {
            break;
        }
        best = Some(rank);
    }
    best
}

fn choose(n: usize, k: usize) -> f64 {
    (0..k).fold(1.0, |product, i| product * (n - i) as f64 / (i + 1) as f64)
}

/// The median; the mean of the middle two of an even number. `None` without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[n / 2]),
        n => Some(f64::midpoint(sorted[n / 2 - 1], sorted[n / 2])),
    }
}

/// The quantile of weighted values, interpolated between their cumulative weights, so that it moves smoothly with the weights. `None`
/// without a positive weight.
pub fn weighted_quantile(pairs: &[(f64, f64)], share: f64) -> Option<f64> {
    let mut pairs: Vec<(f64, f64)> = pairs.iter().copied().filter(|(_, weight)| *weight > 0.0).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = pairs.iter().map(|(_, weight)| weight).sum();
    let wanted = share * total;
    let mut below = 0.0;
    let mut last: Option<(f64, f64)> = None;
    for (value, weight) in pairs {
        // Each value stands in the middle of its own weight.
        let center = below + weight / 2.0;
        if center >= wanted {
            return Some(match last {
                Some((at, lower)) => lower + (value - lower) * (wanted - at) / (center - at),
                None => value,
            });
        }
        below += weight;
        last = Some((center, value));
    }
    last.map(|(_, value)| value)
}

/// The middles of two heaps, if the values clearly fall into two: a server whose connections are split by luck takes 300 ms or 600 ms,
/// and nothing between. `None` for fewer than five values or for one heap.
pub fn heaps(values: &[f64]) -> Option<(f64, f64)> {
    let sorted = sorted(values);
    if sorted.len() < 2 * LEAST_HEAP + 1 {
        return None;
    }
    let gap = |cut: usize| sorted[cut] - sorted[cut - 1];
    let cut = (LEAST_HEAP..=sorted.len() - LEAST_HEAP).max_by(|a, b| gap(*a).total_cmp(&gap(*b)))?;
    let widest = (1..sorted.len()).filter(|other| *other != cut).map(gap).fold(0.0, f64::max);
    let is_split = gap(cut) > GAP * widest && sorted[cut] >= APART * sorted[cut - 1];
    is_split.then(|| Some((median(&sorted[..cut])?, median(&sorted[cut..])?))).flatten()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_unsorted_and_single_values() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[7.0]), Some(7.0));
    }

    #[test]
    fn intervals_exist_from_six_trials_on_and_have_the_published_ranks() {
        assert_eq!(interval_rank(5), None);
        // Ranks from the binomial table in Conover, Practical Nonparametric Statistics, counted from 0.
        let ranks: Vec<_> = [6, 7, 8, 9, 10, 12, 15, 20].iter().map(|n| interval_rank(*n)).collect();
        assert_eq!(ranks, [Some(0), Some(0), Some(0), Some(1), Some(1), Some(2), Some(3), Some(5)]);
    }

    #[test]
    fn weighted_quantiles_of_equal_weights_lie_between_neighbours_and_follow_the_weights() {
        let even: Vec<(f64, f64)> = [1.0, 2.0, 3.0, 4.0].map(|value| (value, 1.0)).to_vec();
        assert_eq!(weighted_quantile(&even, 0.5), Some(2.5));
        assert_eq!(weighted_quantile(&[(1.0, 1.0), (9.0, 0.0)], 0.99), Some(1.0));
        let heavier = weighted_quantile(&[(1.0, 1.0), (2.0, 3.0)], 0.5).unwrap();
        assert!(heavier > 1.5 && heavier < 2.0, "{heavier}");
        assert_eq!(weighted_quantile(&[], 0.5), None);
    }

    #[test]
    fn two_heaps_are_seen_and_one_wide_heap_or_an_outlier_is_not() {
        assert_eq!(heaps(&[300.0, 301.0, 600.0, 602.0, 300.0, 601.0, 299.0]), Some((300.0, 601.0)));
        assert_eq!(heaps(&[300.0, 310.0, 330.0, 360.0, 400.0, 450.0, 500.0]), None);
        assert_eq!(heaps(&[300.0, 301.0, 299.0, 302.0, 900.0]), None, "an outlier is not a heap");
        assert_eq!(heaps(&[1.0, 1.0, 2.0, 2.0]), None, "too few");
        assert_eq!(heaps(&[5.0; 7]), None);
    }
}
