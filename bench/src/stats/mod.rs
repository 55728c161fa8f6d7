//! Statistics of a round: computation only, no I/O.
//!
//! Results of a few trials on a shared machine have no known distribution, so everything rests on ranks: order statistics with exact
//! intervals, the permutation test on ranks, and the Benjamini-Hochberg step over a table.

mod discovery;
mod order;
mod rank_sum;

pub use discovery::{discoveries, share_at_least};
pub use order::{heaps, interval_rank, median, weighted_quantile};
pub use rank_sum::{RankSum, rank_sum};

/// The geometric mean of positive numbers; `None` without numbers or with one that has no logarithm.
pub fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    let is_usable = !ratios.is_empty() && ratios.iter().all(|ratio| ratio.is_finite() && *ratio > 0.0);
    is_usable.then(|| (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometric_means_refuse_what_has_no_logarithm() {
        assert!((geometric_mean(&[2.0, 8.0]).unwrap() - 4.0).abs() < 1e-12);
        assert_eq!(geometric_mean(&[]), None);
        assert_eq!(geometric_mean(&[1.0, 0.0]), None);
        assert_eq!(geometric_mean(&[1.0, f64::INFINITY]), None);
    }
}
