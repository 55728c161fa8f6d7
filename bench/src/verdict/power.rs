//! Power: how large a change has to be for a comparison to find it, estimated from servers that were measured twice.

use super::noise::Noise;
use super::{Pair, RATE, one};
use crate::catalog::AGAIN;
use crate::metrics::{Cell, Family, Metric, Numbers, Role, Value};
use crate::stats::{self, rank_sum};

/// A change counts as found if it is found in this share of cases.
const FOUND: f64 = 0.9;
/// Cases that are drawn from each cell.
const DRAWS: usize = 100;
/// The factors that are tried, ascending.
const FACTORS: [f64; 14] = [1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.75, 2.0, 3.0, 5.0, 10.0, 20.0];

/// A metric of a server, and its values in all trials under both names.
type Trials = (Metric, Vec<f64>);

/// What a comparison finds in one family of metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Power {
    /// The family.
    pub family: Family,
    /// Cells that cases were drawn from: those of a size that differences are claimed of.
    pub cells: usize,
    /// The smallest factor that is found in nine of ten cases; `None` if none that was tried is. Of thresholds, only a doubling is tried.
    pub factor: Option<f64>,
    /// The share of cases in which that factor, or the largest that was tried, is found.
    pub share: f64,
}

/// The power of comparing two cells of this many trials each, for each family of a null round. A lone change among the family's cells is looked for: both
/// sides are drawn, with replacement, from all trials of a server under its two names, and the second is multiplied by the factor.
pub fn of(numbers: &Numbers, noise: &Noise, trials: usize, seed: u64) -> Vec<Power> {
    let mut families: Vec<(Family, Vec<Trials>)> = Vec::new();
    for server in numbers.servers().filter(|server| !server.ends_with(AGAIN)) {
        for (metric, _) in numbers.of_server(server).filter(|(metric, _)| metric.family.role != Role::Detail) {
            let names = [server.to_owned(), format!("{server}{AGAIN}")];
            let values: Vec<f64> =
                names.iter().flat_map(|name| numbers.values(name, metric)).filter_map(|value| value.exact()).collect();
            let least = metric.family.least_claim();
            let is_large = stats::median(&values).is_some_and(|median| median > 0.0 && median >= least);
            if values.len() < trials || !is_large || values.iter().any(|value| *value <= 0.0) {
                continue;
            }
            match families.iter_mut().find(|(family, _)| *family == metric.family) {
                Some((_, cells)) => cells.push((metric.clone(), values)),
                None => families.push((metric.family.clone(), vec![(metric.clone(), values)])),
            }
        }
    }
    families.into_iter().map(|(family, cells)| search(family, &cells, noise, trials, seed)).collect()
}

/// The smallest factor that is found, by bisection: a larger one is not found less often.
fn search(family: Family, cells: &[Trials], noise: &Noise, trials: usize, seed: u64) -> Power {
    let factors: &[f64] = if family.role == Role::Threshold { &[2.0] } else { &FACTORS };
    let share_of = |factor: f64| share_found(cells, factor, noise, trials, seed);
    let first = factors.partition_point(|factor| share_of(*factor) < FOUND);
    let factor = factors.get(first).copied();
    let share = share_of(factor.unwrap_or(factors[factors.len() - 1]));
    Power { family, cells: cells.len(), factor, share }
}

fn share_found(cells: &[Trials], factor: f64, noise: &Noise, trials: usize, seed: u64) -> f64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut found = 0;
    for (metric, values) in cells {
        let mut draw = |factor: f64| {
            let values = (0..trials).map(|_| Value::Exact(values[random.usize(..values.len())] * factor)).collect();
            Cell { values, is_ordinal: metric.family.role == Role::Threshold, ..Cell::default() }
        };
        for _ in 0..DRAWS {
            let pair = Pair { metric, before: draw(1.0), after: draw(factor) };
            let test = rank_sum(&pair.before.values, &pair.after.values, Value::known_order);
            // The first p-value of Benjamini and Hochberg's procedure is held against the rate divided by the number of cells.
            let is_discovery = test.p <= RATE / cells.len() as f64;
            found += usize::from(one(&pair, test, is_discovery, noise).is_some_and(|comparison| comparison.differs));
        }
    }
    found as f64 / (cells.len() * DRAWS) as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cpu, p99, threshold};
    use super::*;

    fn numbers(metric: &Metric, values: [f64; 14]) -> Numbers {
        let mut numbers = Numbers::default();
        for (number, value) in values.into_iter().enumerate() {
            let name = if number < 7 { "a".to_owned() } else { format!("a{AGAIN}") };
            numbers.add(&name, [(metric.clone(), Ok(Value::Exact(value)))]);
        }
        numbers
    }

    fn power(metric: &Metric, spread: f64) -> Power {
        let mut random = fastrand::Rng::with_seed(3);
        let values = std::array::from_fn(|_| 100.0 * (spread * (random.f64() - 0.5)).exp());
        of(&numbers(metric, values), &Noise::default(), 7, 1).remove(0)
    }

    #[test]
    fn steadier_values_show_smaller_changes() {
        let (steady, noisy) = (power(&cpu(), 0.02), power(&cpu(), 0.8));
        // Below the noise that is assumed without a null round nothing is claimed.
        assert_eq!(steady.factor, Some(1.1));
        assert!(noisy.factor > Some(1.4) && noisy.share >= FOUND, "{noisy:?}");
    }

    #[test]
    fn a_doubled_threshold_is_found_where_all_trials_agree_and_small_latencies_are_not_claimed() {
        let fixed = of(&numbers(&threshold(), [2.0; 14]), &Noise::default(), 7, 1).remove(0);
        assert_eq!((fixed.factor, fixed.share), (Some(2.0), 1.0));
        assert_eq!(of(&numbers(&p99(), [0.05; 14]), &Noise::default(), 7, 1), []);
    }
}
