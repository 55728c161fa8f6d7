//! Ranks: servers that cannot be told apart share one. The freeze threshold counts first, then what a few blockers do.

use super::spread::Spread;
use super::{Comparison, Pair, judge, more_is_better};
use crate::report::numbers::Numbers;
use crate::stats::summarize;
use serde::Serialize;
use std::cmp::Ordering;

/// A server and its place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Place {
    /// From 1; servers that cannot be told apart share one, and the next rank counts them all.
    pub rank: usize,
    /// Server.
    pub server: String,
    /// The criterion in which it differs from the best of the group above, if there is one.
    pub differs_in: Option<String>,
}

/// Ranks servers by criteria, the first that differs decides. A group ends where a server differs from the best of the group.
/// Servers without a value of some criterion are left out.
pub fn rank(numbers: &Numbers, servers: &[&str], criteria: &[String], spread: &Spread) -> Vec<Place> {
    let is_whole = |server: &&&str| criteria.iter().all(|metric| !numbers.values(server, metric).is_empty());
    let mut order: Vec<&str> = servers.iter().filter(is_whole).copied().collect();
    order.sort_by(|a, b| by_medians(numbers, criteria, a, b));
    let verdicts = Verdicts::new(numbers, &order, criteria, spread);
    let mut places: Vec<Place> = Vec::new();
    let mut best = 0;
    for (index, server) in order.iter().enumerate() {
        let differs_in = if index == 0 { None } else { verdicts.first_difference(best, index) };
        if differs_in.is_some() {
            best = index;
        }
        places.push(Place { rank: best + 1, server: (*server).to_owned(), differs_in });
    }
    places
}

fn by_medians(numbers: &Numbers, criteria: &[String], a: &str, b: &str) -> Ordering {
    let median = |server: &str, metric: &str| summarize(numbers.values(server, metric)).map_or(f64::NAN, |one| one.median);
    let one = |metric: &String| {
        let order = median(a, metric).total_cmp(&median(b, metric));
        if more_is_better(metric) { order.reverse() } else { order }
    };
    criteria.iter().map(one).find(|order| order.is_ne()).unwrap_or_else(|| a.cmp(b))
}

/// Every server against every later one, judged as one table.
struct Verdicts<'c> {
    criteria: &'c [String],
    servers: usize,
    judged: Vec<Option<Comparison>>,
}

impl<'c> Verdicts<'c> {
    fn new(numbers: &Numbers, order: &[&str], criteria: &'c [String], spread: &Spread) -> Self {
        let mut pairs = Vec::new();
        for (index, better) in order.iter().enumerate() {
            for worse in &order[index + 1..] {
                let pair = |metric: &'c String| Pair {
                    metric,
                    before: numbers.values(better, metric),
                    after: numbers.values(worse, metric),
                };
                pairs.extend(criteria.iter().map(pair));
            }
        }
        Verdicts { criteria, servers: order.len(), judged: judge(&pairs, spread) }
    }

    fn first_difference(&self, better: usize, worse: usize) -> Option<String> {
        // Pairs stand in rows that get shorter by one each.
        let row = better * self.servers - better * (better + 1) / 2;
        let start = (row + worse - better - 1) * self.criteria.len();
        let judged = &self.judged[start..start + self.criteria.len()];
        let differs = judged.iter().position(|one| one.as_ref().is_some_and(|one| one.differs));
        differs.map(|criterion| self.criteria[criterion].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(rows: &[(&str, [f64; 6], [f64; 6])]) -> Numbers {
        let mut numbers = Numbers::default();
        for (server, freeze, p99) in rows {
            numbers.put(server, "freeze_k[sleep,100]", freeze);
            numbers.put(server, "p99_ms[sleep,4]", p99);
        }
        numbers
    }

    fn ranked(rows: &[(&str, [f64; 6], [f64; 6])]) -> Vec<(usize, String)> {
        let servers: Vec<&str> = rows.iter().map(|row| row.0).collect();
        let criteria = ["freeze_k[sleep,100]".to_owned(), "p99_ms[sleep,4]".to_owned()];
        let places = rank(&numbers(rows), &servers, &criteria, &Spread::default());
        places.into_iter().map(|place| (place.rank, place.server)).collect()
    }

    fn around(value: f64) -> [f64; 6] {
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0].map(|step| value * (1.0 + step / 200.0))
    }

    #[test]
    fn the_freeze_threshold_counts_before_the_latency() {
        let rows = [("quick-but-frozen", [2.0; 6], around(1.0)), ("slow-but-alive", [f64::INFINITY; 6], around(90.0))];
        assert_eq!(ranked(&rows), [(1, "slow-but-alive".into()), (2, "quick-but-frozen".into())]);
    }

    #[test]
    fn servers_that_cannot_be_told_apart_share_a_rank_and_the_next_counts_them_all() {
        let rows = [("c", [2.0; 6], around(400.0)), ("a", [4.0; 6], around(200.0)), ("b", [4.0; 6], around(201.0))];
        assert_eq!(ranked(&rows), [(1, "a".into()), (1, "b".into()), (3, "c".into())]);
    }

    #[test]
    fn a_group_ends_at_what_differs_from_its_best_and_not_from_its_last() {
        // Neighbours are within noise of each other; the third is not within noise of the first.
        let rows = [("a", [4.0; 6], around(200.0)), ("b", [4.0; 6], around(208.0)), ("c", [4.0; 6], around(216.5))];
        assert_eq!(ranked(&rows), [(1, "a".into()), (1, "b".into()), (3, "c".into())]);
    }

    #[test]
    fn few_trials_tell_nobody_apart_and_missing_values_leave_a_server_out() {
        let mut numbers = Numbers::default();
        numbers.put("a", "p99_ms[sleep,4]", &[1.0]);
        numbers.put("b", "p99_ms[sleep,4]", &[900.0]);
        let places = rank(&numbers, &["a", "b", "c"], &["p99_ms[sleep,4]".into()], &Spread::default());
        assert_eq!(places.iter().map(|place| place.rank).collect::<Vec<_>>(), [1, 1]);
    }
}
