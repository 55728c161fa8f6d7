//! The rank-sum test of Wilcoxon, Mann and Whitney, exact whether or not values tie or are only known as bounds.
//!
//! Each value is scored by how many values of both samples it exceeds, less how many exceed it. Without bounds that is its mid-rank on
//! another scale; with them it is Gehan's score (1965), in which a pair whose order is unknown counts as a tie. Under the null hypothesis
//! every choice of the first sample's members from all values is equally likely, so the distribution of their scores' sum is counted
//! instead of approximated: ties are the normal case here (thresholds, "never"), and approximations are wrong there.

use std::cmp::Ordering;

/// Up to this many values in both samples together, the distribution is counted.
const COUNTED: usize = 64;

/// The result of a test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankSum {
    /// Two-sided p-value: the share of all choices whose sum is at least as far from zero as the one observed.
    pub p: f64,
    /// The smallest p-value that any order of these values could have had. If it is not below 5 %, the data could not have shown a
    /// difference, whatever it was.
    pub least_p: f64,
}

/// Tests whether `a` and `b` come from one distribution. `compare` returns `None` where the order of two values is unknown.
pub fn rank_sum<T>(a: &[T], b: &[T], compare: impl Fn(&T, &T) -> Option<Ordering>) -> RankSum {
    if a.is_empty() || b.is_empty() {
        return RankSum { p: 1.0, least_p: 1.0 };
    }
    let all: Vec<&T> = a.iter().chain(b).collect();
    let scores: Vec<i64> = all.iter().map(|x| all.iter().map(|y| sign(compare(x, y))).sum()).collect();
    let observed = scores[..a.len()].iter().sum::<i64>().abs();
    if all.len() <= COUNTED { counted(&scores, a.len(), observed) } else { approximated(&scores, a.len(), observed) }
}

fn sign(order: Option<Ordering>) -> i64 {
    match order {
        Some(Ordering::Less) => -1,
        Some(Ordering::Greater) => 1,
        _ => 0,
    }
}

fn counted(scores: &[i64], m: usize, observed: i64) -> RankSum {
    let most = usize::try_from(scores.iter().map(|score| score.abs()).sum::<i64>()).unwrap_or(0);
    // ways[j][most + s]: choices of j of the values seen so far with the sum s.
    let mut ways = vec![vec![0.0_f64; 2 * most + 1]; m + 1];
    ways[0][most] = 1.0;
    for score in scores {
        for j in (1..=m).rev() {
            for to in 0..=2 * most {
                let from = to as i64 - score;
                if let Some(from) = usize::try_from(from).ok().filter(|from| *from <= 2 * most) {
                    let more = ways[j - 1][from];
                    ways[j][to] += more;
                }
            }
        }
    }
    let total: f64 = ways[m].iter().sum();
    let at_least = |distance: i64| -> f64 {
        let is_as_far = |at: &usize| (*at as i64 - most as i64).abs() >= distance;
        (0..=2 * most).filter(is_as_far).map(|at| ways[m][at]).sum::<f64>() / total
    };
    let farthest = (0..=2 * most).filter(|at| ways[m][*at] > 0.0).map(|at| (at as i64 - most as i64).abs()).max().unwrap_or(0);
    RankSum { p: at_least(observed).min(1.0), least_p: at_least(farthest).min(1.0) }
}

/// For large samples the sum is normal, with the variance of sampling without replacement.
fn approximated(scores: &[i64], m: usize, observed: i64) -> RankSum {
    let (m, all) = (m as f64, scores.len() as f64);
    let squares: f64 = scores.iter().map(|score| (score * score) as f64).sum();
    let variance = m * (all - m) / (all * (all - 1.0)) * squares;
    if variance <= 0.0 {
        return RankSum { p: 1.0, least_p: 1.0 };
    }
    RankSum { p: libm::erfc(observed as f64 / (2.0 * variance).sqrt()), least_p: 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(a: &[f64], b: &[f64]) -> RankSum {
        rank_sum(a, b, |x, y| Some(x.total_cmp(y)))
    }

    #[test]
    fn p_values_agree_with_the_table_that_another_program_enumerated() {
        let table = include_str!("../../tests/oracles/rank_sum.csv");
        let mut count = 0;
        for line in table.lines().filter(|line| !line.starts_with('#') && !line.starts_with("a,")) {
            let fields: Vec<&str> = line.split(',').collect();
            let values = |text: &str| -> Vec<f64> { text.split_whitespace().map(|value| value.parse().unwrap()).collect() };
            let found = test(&values(fields[0]), &values(fields[1]));
            let (p, least_p): (f64, f64) = (fields[2].parse().unwrap(), fields[3].parse().unwrap());
            assert!((found.p - p).abs() < 1e-9 && (found.least_p - least_p).abs() < 1e-9, "{line}: {found:?}");
            count += 1;
        }
        assert!(count >= 40, "{count} rows");
    }

    #[test]
    fn published_values_of_samples_without_ties() {
        // The smallest two-sided p of 3 against 3 is 2/20, of 6 against 6 it is 2/924.
        assert!((test(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]).p - 0.1).abs() < 1e-12);
        // Tortoises and hares, U = 11 of 36: 0.3095 by the exact table.
        let found = test(&[1.0, 7.0, 8.0, 9.0, 10.0, 11.0], &[2.0, 3.0, 4.0, 5.0, 6.0, 12.0]);
        assert!((found.p - 0.309_523_8).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn equal_or_empty_samples_cannot_differ_and_say_so() {
        assert_eq!(test(&[1.0; 6], &[1.0; 6]), RankSum { p: 1.0, least_p: 1.0 });
        assert_eq!(test(&[], &[1.0]).p, 1.0);
        assert!(test(&[1.0, 2.0], &[3.0, 4.0]).least_p > 0.05, "two against two show nothing");
    }

    #[test]
    fn a_pair_whose_order_is_unknown_counts_as_a_tie() {
        // The second value of each is a bound: at least 504, at least 510.
        let order = |x: &(f64, bool), y: &(f64, bool)| match (x.1, y.1) {
            (true, true) => None,
            (true, false) => (y.0 <= x.0).then_some(Ordering::Greater),
            (false, true) => (x.0 <= y.0).then_some(Ordering::Less),
            (false, false) => Some(x.0.total_cmp(&y.0)),
        };
        let (a, b) = ([(504.0, true); 6], [(510.0, true); 6]);
        assert_eq!(rank_sum(&a, &b, order).p, 1.0);
        let below = [(100.0, false); 6];
        assert!(rank_sum(&below, &b, order).p < 0.01);
    }

    #[test]
    fn large_samples_are_close_to_what_counting_would_give() {
        let a: Vec<f64> = (0..40).map(|i| f64::from(i * 37 % 101)).collect();
        let b: Vec<f64> = (0..40).map(|i| f64::from(i * 53 % 101) + 12.0).collect();
        let near = test(&a, &b).p;
        let exact = test(&a[..32], &b[..32]).p;
        assert!(near > 0.0 && near < 0.5 && exact > 0.0 && exact < 0.7, "{near} {exact}");
    }
}
