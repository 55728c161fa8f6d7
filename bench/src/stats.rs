//! The statistics of a round. No I/O in here.
//!
//! Results of few trials on a shared machine have no known distribution, so everything rests on ranks: the median with its exact
//! order-statistic interval, the Mann-Whitney test, and the Benjamini-Hochberg step over a table.

use serde::Serialize;

/// A value over its trials: the median, and an interval that holds the true median with at least 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// Median.
    pub median: f64,
    /// The interval; none with fewer than six trials, where no such interval exists.
    pub interval: Option<(f64, f64)>,
    /// Number of trials.
    pub trials: usize,
}

/// Summarizes values in any order; none without values.
pub fn summarize(values: &[f64]) -> Option<Summary> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = match sorted.len() {
        0 => return None,
        n if n % 2 == 1 => sorted[n / 2],
        n => midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    };
    let interval = interval_rank(sorted.len()).map(|rank| (sorted[rank], sorted[sorted.len() - 1 - rank]));
    Some(Summary { median, interval, trials: sorted.len() })
}

/// Infinities stand for "more than was measured", and two of them have a midpoint too.
fn midpoint(a: f64, b: f64) -> f64 {
    if a.is_infinite() || b.is_infinite() { b } else { f64::midpoint(a, b) }
}

/// The largest r such that the r-th smallest and r-th largest of n values (from 0) hold the median with 95 %: the number of values
/// below the median is binomial with p = 1/2.
fn interval_rank(n: usize) -> Option<usize> {
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

/// Two-sided p-value of the Mann-Whitney test that `a` and `b` come from one distribution: exact up to 20 values each without
/// ties, otherwise the normal approximation with the correction for ties and continuity. 1 where either is empty or all are equal.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return 1.0;
    }
    let u =
        a.iter().flat_map(|x| b.iter().map(move |y| f64::from(u8::from(x > y)) + 0.5 * f64::from(u8::from(x == y)))).sum::<f64>();
    let mut all: Vec<f64> = a.iter().chain(b).copied().collect();
    all.sort_by(f64::total_cmp);
    let ties: Vec<usize> = all.chunk_by(|x, y| x == y).map(<[f64]>::len).collect();
    let has_ties = ties.iter().any(|count| *count > 1);
    if a.len() <= 20 && b.len() <= 20 && !has_ties {
        let below = u.min((a.len() * b.len()) as f64 - u);
        return (2.0 * exact_tail(a.len(), b.len(), below)).min(1.0);
    }
    let (m, n) = (a.len() as f64, b.len() as f64);
    let total = m + n;
    let tied: f64 = ties.iter().map(|count| (count.pow(3) - count) as f64).sum();
    let variance = m * n / 12.0 * ((total + 1.0) - tied / (total * (total - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let distance = ((u - m * n / 2.0).abs() - 0.5).max(0.0);
    libm::erfc(distance / variance.sqrt() / std::f64::consts::SQRT_2)
}

/// P(U <= u) over all orders of m and n distinct values, counted by the recurrence of Mann and Whitney (1947).
fn exact_tail(m: usize, n: usize, u: f64) -> f64 {
    // counts[j][k]: ways to get U = k with j values of the second sample among the values taken so far.
    let most = m * n;
    let mut counts = vec![vec![0.0; most + 1]; n + 1];
    for row in &mut counts {
        row[0] = 1.0;
    }
    for _ in 0..m {
        let mut next = vec![vec![0.0; most + 1]; n + 1];
        next[0][0] = 1.0;
        for j in 1..=n {
            for k in 0..=most {
                let with = if k >= j { counts[j][k - j] } else { 0.0 };
                next[j][k] = with + next[j - 1][k];
            }
        }
        counts = next;
    }
    let ways: f64 = counts[n].iter().sum();
    let below: f64 = counts[n].iter().take(u.floor() as usize + 1).sum();
    below / ways
}

/// The geometric mean of ratios; none where there is no ratio, or one that is not a positive number.
pub fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    let is_usable = !ratios.is_empty() && ratios.iter().all(|ratio| ratio.is_finite() && *ratio > 0.0);
    is_usable.then(|| (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp())
}

/// The value below which a share of all values lies (the nearest rank, so one that was seen); none without values.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The lower end of the one-sided 95 % interval of a share of which `hits` of `all` were seen (Clopper and Pearson, 1934): the
/// smallest share that would give as many hits with a chance of 5 %.
pub fn share_at_least(hits: usize, all: usize) -> f64 {
    if hits == 0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    // Each step halves what is left: sixty are all that a double can hold.
    for _ in 0..60 {
        let share = f64::midpoint(low, high);
        if binomial_tail(hits, all, share) < 0.05 { low = share } else { high = share }
    }
    low
}

/// P(X >= hits) of a binomial with `all` draws.
fn binomial_tail(hits: usize, all: usize, share: f64) -> f64 {
    let log_choose =
        |k: usize| libm::lgamma(all as f64 + 1.0) - libm::lgamma(k as f64 + 1.0) - libm::lgamma((all - k) as f64 + 1.0);
    (hits..=all).map(|k| (log_choose(k) + k as f64 * share.ln() + (all - k) as f64 * (-share).ln_1p()).exp()).sum()
}

/// Which of these p-values are discoveries at the given rate of false ones (Benjamini and Hochberg, 1995).
pub fn discoveries(p_values: &[f64], rate: f64) -> Vec<bool> {
    let mut sorted = p_values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let ranked = sorted.iter().enumerate().filter(|(rank, p)| **p <= (rank + 1) as f64 / count * rate);
    let threshold = ranked.map(|(_, p)| *p).fold(-1.0, f64::max);
    p_values.iter().map(|p| *p <= threshold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_unsorted_equal_and_single_values() {
        assert_eq!(summarize(&[]), None);
        assert_eq!(summarize(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(summarize(&[4.0, 1.0, 3.0, 2.0]).unwrap().median, 2.5);
        assert_eq!(summarize(&[7.0]).unwrap(), Summary { median: 7.0, interval: None, trials: 1 });
        assert_eq!(summarize(&[5.0; 6]).unwrap().interval, Some((5.0, 5.0)));
    }

    #[test]
    fn what_was_never_reached_stands_above_every_number() {
        assert_eq!(summarize(&[f64::INFINITY, 1.0, f64::INFINITY, f64::INFINITY]).unwrap().median, f64::INFINITY);
        assert_eq!(summarize(&[f64::INFINITY, 1.0, 2.0]).unwrap().median, 2.0);
    }

    #[test]
    fn intervals_exist_from_six_trials_on_and_have_the_published_ranks() {
        assert_eq!(interval_rank(5), None);
        // Ranks from the binomial table in Conover, Practical Nonparametric Statistics, counted from 0.
        let ranks: Vec<_> = [6, 8, 9, 10, 12, 15, 20].iter().map(|n| interval_rank(*n)).collect();
        assert_eq!(ranks, [Some(0), Some(0), Some(1), Some(1), Some(2), Some(3), Some(5)]);
    }

    #[test]
    fn mann_whitney_agrees_with_published_values() {
        // The smallest two-sided p of 3 against 3 is 2/20, of 6 against 6 it is 2/924.
        assert!((mann_whitney(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]) - 0.1).abs() < 1e-12);
        let (low, high): (Vec<f64>, Vec<f64>) = ((0..6).map(f64::from).collect(), (6..12).map(f64::from).collect());
        assert!((mann_whitney(&low, &high) - 2.0 / 924.0).abs() < 1e-12);
        // Tortoises and hares, U = 11 of 36: 0.3095 by the exact table.
        let (a, b) = ([1.0, 7.0, 8.0, 9.0, 10.0, 11.0], [2.0, 3.0, 4.0, 5.0, 6.0, 12.0]);
        assert!((mann_whitney(&a, &b) - 0.309_523_8).abs() < 1e-6, "{}", mann_whitney(&a, &b));
    }

    #[test]
    fn mann_whitney_of_equal_empty_and_tied_values() {
        assert_eq!(mann_whitney(&[1.0; 6], &[1.0; 6]), 1.0);
        assert_eq!(mann_whitney(&[], &[1.0]), 1.0);
        let p = mann_whitney(&[1.0, 1.0, 2.0, 2.0, 3.0, 3.0], &[1.0, 2.0, 2.0, 3.0, 3.0, 3.0]);
        assert!(p > 0.5 && p <= 1.0, "{p}");
        assert!((mann_whitney(&[3.0, 1.0], &[2.0, 9.0]) - mann_whitney(&[2.0, 9.0], &[1.0, 3.0])).abs() < 1e-12);
    }

    #[test]
    fn benjamini_hochberg_takes_the_published_example() {
        // The 15 p-values of the paper's section 4: the first four are discoveries at 5 %.
        let p =
            [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0];
        assert_eq!(discoveries(&p, 0.05).iter().filter(|is| **is).count(), 4);
        assert!(discoveries(&[], 0.05).is_empty());
        assert_eq!(discoveries(&[0.9, 0.04], 0.05), [false, false]);
    }

    #[test]
    fn geometric_means_refuse_what_has_no_logarithm() {
        assert!((geometric_mean(&[2.0, 8.0]).unwrap() - 4.0).abs() < 1e-12);
        assert_eq!(geometric_mean(&[]), None);
        assert_eq!(geometric_mean(&[1.0, 0.0]), None);
        assert_eq!(geometric_mean(&[1.0, f64::INFINITY]), None);
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        assert_eq!(quantile(&[5.0, 1.0, 3.0, 2.0, 4.0], 0.95), Some(5.0));
        assert_eq!(quantile(&[5.0, 1.0, 3.0, 2.0, 4.0], 0.6), Some(3.0));
        assert_eq!(quantile(&[7.0], 0.0), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn bounds_of_shares_agree_with_published_values() {
        // Clopper-Pearson, one-sided: 10 of 100 gives 0.0553; all of n gives 0.05 to the power of 1/n.
        assert!((share_at_least(10, 100) - 0.0553).abs() < 1e-4, "{}", share_at_least(10, 100));
        assert!((share_at_least(5, 5) - 0.05_f64.powf(0.2)).abs() < 1e-9);
        assert_eq!(share_at_least(0, 400), 0.0);
    }
}
