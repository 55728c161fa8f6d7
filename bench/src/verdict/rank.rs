//! Ranks: servers that cannot be told apart share one. The criteria count in their order: the first in which two servers differ decides.

use super::noise::Noise;
use super::{Pair, judge};
use crate::metrics::{Better, Metric, Numbers, Summary, Value};
use serde::Serialize;
use std::cmp::Ordering;

/// A server and its place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Place {
    /// From 1; servers that cannot be told apart share one, and the next rank counts them all.
    pub rank: usize,
    /// The server's name.
    pub server: String,
    /// The server above that beats it, and the criterion in which it does; `None` in the first group.
    pub beaten_by: Option<(String, String)>,
}

/// Ranks servers: a group holds those that no server left beats, so the better one is never below. Servers without a value of some criterion
/// are left out.
pub fn rank(numbers: &Numbers, servers: &[&str], criteria: &[Metric], noise: &Noise) -> Vec<Place> {
    let is_whole = |server: &&&str| criteria.iter().all(|metric| !numbers.values(server, metric).is_empty());
    let mut left: Vec<&str> = servers.iter().filter(is_whole).copied().collect();
    left.sort_by(|a, b| by_medians(numbers, criteria, a, b));
    let wins = Wins::new(numbers, &left, criteria, noise);
    let mut left: Vec<usize> = (0..left.len()).collect();
    let mut places: Vec<Place> = Vec::new();
    while !left.is_empty() {
        let beaten = |server: &usize| left.iter().filter(|other| wins.criterion(**other, *server).is_some()).count();
        // Differences beyond noise need not be transitive: in a ring, those that the fewest beat are the best.
        let fewest = left.iter().map(beaten).min().unwrap_or(0);
        let (group, rest): (Vec<usize>, Vec<usize>) = left.iter().partition(|server| beaten(server) == fewest);
        let rank = places.len() + 1;
        let placed: Vec<usize> = (0..wins.servers.len()).filter(|server| !left.contains(server)).collect();
        for server in group {
            let winner = placed.iter().find_map(|above| Some((*above, wins.criterion(*above, server)?)));
            let beaten_by = winner.map(|(above, criterion)| (wins.servers[above].to_owned(), criteria[criterion].to_string()));
            places.push(Place { rank, server: wins.servers[server].to_owned(), beaten_by });
        }
        left = rest;
    }
    places
}

fn by_medians(numbers: &Numbers, criteria: &[Metric], a: &str, b: &str) -> Ordering {
    let median = |server: &str, metric: &Metric| numbers.summary(server, metric).map_or(Value::NotReached, |one| one.median);
    let one = |metric: &Metric| better(metric, median(a, metric), median(b, metric)).reverse();
    criteria.iter().map(one).find(|order| order.is_ne()).unwrap_or_else(|| a.cmp(b))
}

/// Greater if `a` is better than `b`.
fn better(metric: &Metric, a: Value, b: Value) -> Ordering {
    let order = a.sort_order(&b);
    if metric.family.better == Better::More { order } else { order.reverse() }
}

/// Every server against every other.
struct Wins<'s> {
    servers: Vec<&'s str>,
    /// By winner and loser: the criterion that decides.
    decided: Vec<Vec<Option<usize>>>,
}

impl<'s> Wins<'s> {
    fn new(numbers: &Numbers, servers: &[&'s str], criteria: &[Metric], noise: &Noise) -> Self {
        let count = servers.len();
        let couples: Vec<(usize, usize)> = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).collect();
        let cell = |server: usize, metric: &Metric| numbers.cell(servers[server], metric).cloned().unwrap_or_default();
        let pairs: Vec<Pair<'_>> = couples
            .iter()
            .flat_map(|(a, b)| {
                criteria.iter().map(move |metric| Pair { metric, before: cell(*a, metric), after: cell(*b, metric) })
            })
            .collect();
        let judged = judge(&pairs, noise);
        let mut decided = vec![vec![None; count]; count];
        for ((a, b), judged) in couples.into_iter().zip(judged.chunks(criteria.len().max(1))) {
            let first = judged.iter().position(|one| one.as_ref().is_some_and(|one| one.differs));
            let Some((criterion, comparison)) = first.and_then(|at| Some((at, judged[at].as_ref()?))) else { continue };
            let median = |summary: &Summary| summary.median;
            match better(&criteria[criterion], median(&comparison.before), median(&comparison.after)) {
                Ordering::Greater => decided[a][b] = Some(criterion),
                Ordering::Less => decided[b][a] = Some(criterion),
                Ordering::Equal => {}
            }
        }
        Wins { servers: servers.to_vec(), decided }
    }

    fn criterion(&self, winner: usize, loser: usize) -> Option<usize> {
        self.decided[winner][loser]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{p99, threshold};
    use super::*;

    fn ranked(rows: &[(&str, [Value; 7], [f64; 7])]) -> Vec<(usize, String)> {
        let mut numbers = Numbers::default();
        for (server, freeze, p99_ms) in rows {
            numbers.add(server, freeze.map(|value| (threshold(), Ok(value))));
            numbers.add(server, p99_ms.map(|value| (p99(), Ok(Value::Exact(value)))));
        }
        let servers: Vec<&str> = rows.iter().map(|row| row.0).collect();
        let places = rank(&numbers, &servers, &[threshold(), p99()], &Noise::default());
        places.into_iter().map(|place| (place.rank, place.server)).collect()
    }

    fn around(value: f64) -> [f64; 7] {
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(|step| value * (1.0 + step / 200.0))
    }

    fn k(k: f64) -> [Value; 7] {
        [Value::Exact(k); 7]
    }

    #[test]
    fn the_freeze_threshold_counts_before_the_latency() {
        let never = [Value::Never { tried: 64.0 }; 7];
        let rows = [("quick-but-frozen", k(2.0), around(1.0)), ("slow-but-alive", never, around(90.0))];
        assert_eq!(ranked(&rows), [(1, "slow-but-alive".into()), (2, "quick-but-frozen".into())]);
    }

    #[test]
    fn a_threshold_of_four_in_every_trial_ranks_above_one_of_two() {
        let rows = [("two", k(2.0), around(200.0)), ("four", k(4.0), around(200.0))];
        assert_eq!(ranked(&rows), [(1, "four".into()), (2, "two".into())]);
    }

    #[test]
    fn servers_that_cannot_be_told_apart_share_a_rank_and_the_next_counts_them_all() {
        let rows = [("c", k(2.0), around(400.0)), ("a", k(4.0), around(200.0)), ("b", k(4.0), around(201.0))];
        assert_eq!(ranked(&rows), [(1, "a".into()), (1, "b".into()), (3, "c".into())]);
    }

    #[test]
    fn the_better_one_is_never_below_whatever_the_medians_of_what_does_not_differ() {
        // The thresholds cannot be told apart, though their medians differ; the latencies can.
        let unsure = [2.0, 4.0, 4.0, 4.0, 4.0, 2.0, 2.0].map(Value::Exact);
        let also = [2.0, 2.0, 4.0, 2.0, 4.0, 2.0, 4.0].map(Value::Exact);
        let rows = [("higher-median", unsure, around(400.0)), ("quicker", also, around(100.0))];
        assert_eq!(ranked(&rows), [(1, "quicker".into()), (2, "higher-median".into())]);
    }

    #[test]
    fn a_group_holds_what_nobody_left_beats() {
        // Neighbours are within noise of each other; the third is not within noise of the first.
        let rows = [("a", k(4.0), around(200.0)), ("b", k(4.0), around(208.0)), ("c", k(4.0), around(216.5))];
        assert_eq!(ranked(&rows), [(1, "a".into()), (1, "b".into()), (3, "c".into())]);
    }

    #[test]
    fn few_trials_tell_nobody_apart_and_missing_values_leave_a_server_out() {
        let mut numbers = Numbers::default();
        numbers.add("a", [(p99(), Ok(Value::Exact(1.0)))]);
        numbers.add("b", [(p99(), Ok(Value::Exact(900.0)))]);
        let places = rank(&numbers, &["a", "b", "c"], &[p99()], &Noise::default());
        assert_eq!(places.iter().map(|place| place.rank).collect::<Vec<_>>(), [1, 1]);
    }
}
