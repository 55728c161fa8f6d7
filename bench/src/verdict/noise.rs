//! Noise: how far apart identical servers are, by family and by size.

use super::null::NullComparison;
use crate::metrics::{Family, Metric, Role, Unit};
use crate::stats::weighted_quantile;
use std::collections::BTreeMap;

/// Taken where no null round says better.
const UNKNOWN: f64 = 1.05;
/// Of the ratios between identical servers, the share that noise covers.
const COVERED: f64 = 0.95;
/// Comparisons that an estimate rests on at least; families of the same unit, then of the same role, are pooled until there are as many. Fewer do not
/// tell what 95 % of them stay within: then the largest of them is taken.
const LEAST: usize = 20;
/// The comparisons nearest in size that a local estimate rests on.
const NEAREST: usize = 40;
/// Sizes within this distance, as a logarithm, count alike: a factor of two.
const ALIKE: f64 = 0.7;

/// The noise of a median: the ratio, as a natural logarithm, that identical servers stay within. It is one of ratios, so that a half is as
/// far from one as a double is. It depends on the kind of metric and on its size: the p99 of an idle server doubles for no reason, that of a
/// frozen one is arithmetic.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Noise {
    pools: Vec<Pool>,
    /// The largest ratio of each role that has too few comparisons for an estimate.
    largest: Vec<(Role, f64)>,
    /// The least noise of a family, from elsewhere.
    floors: BTreeMap<String, f64>,
    source: Option<String>,
}

/// The metrics that an estimate is made from.
#[derive(Debug, Clone, PartialEq)]
enum Scope {
    Family(String),
    Unit(Unit, Role),
    Role(Role),
}

/// Local estimates over sizes.
#[derive(Debug, Clone, PartialEq)]
struct Pool {
    scope: Scope,
    /// Logarithm of a size, and the logarithm of the ratio that covers the comparisons around it.
    nodes: Vec<(f64, f64)>,
}

impl Scope {
    fn of(family: &Family) -> [Scope; 3] {
        [Scope::Family(family.name.to_string()), Scope::Unit(family.unit, family.role), Scope::Role(family.role)]
    }
}

impl Noise {
    /// Estimates it from comparisons of servers with themselves; `source` is what the tables say below.
    pub fn from_null(comparisons: &[NullComparison], source: String) -> Self {
        let mut scopes: Vec<(Scope, Vec<(f64, f64)>)> = Vec::new();
        for one in comparisons {
            let Some(ratio) = one.log_ratio.map(f64::abs) else { continue };
            let point = (one.size.max(f64::MIN_POSITIVE).ln(), ratio);
            for scope in Scope::of(&one.metric.family) {
                match scopes.iter_mut().find(|(known, _)| *known == scope) {
                    Some((_, points)) => points.push(point),
                    None => scopes.push((scope, vec![point])),
                }
            }
        }
        let largest = scopes.iter().filter_map(|(scope, points)| match scope {
            Scope::Role(role) if points.len() < LEAST => {
                Some((*role, points.iter().map(|(_, ratio)| *ratio).fold(UNKNOWN.ln(), f64::max)))
            }
            _ => None,
        });
        let largest = largest.collect();
        let pools = scopes.into_iter().filter(|(_, points)| points.len() >= LEAST);
        let pool = |(scope, points): (Scope, Vec<(f64, f64)>)| {
            let nodes = points.iter().filter_map(|(size, _)| Some((*size, local(&points, *size)?))).collect();
            Pool { scope, nodes }
        };
        Noise { pools: pools.map(pool).collect(), largest, source: Some(source), floors: BTreeMap::new() }
    }

    /// The same noise, but at least this much in a family.
    pub fn with_floor(mut self, family: &str, log_ratio: f64) -> Self {
        self.floors.insert(family.to_owned(), log_ratio);
        self
    }

    /// The noise of a metric at a size, as the logarithm of a ratio.
    pub fn of(&self, metric: &Metric, size: f64) -> f64 {
        let floor = self.floors.get(metric.family.name.as_ref()).copied().unwrap_or(0.0);
        let scopes = Scope::of(&metric.family);
        let pool = scopes.iter().find_map(|scope| self.pools.iter().find(|pool| pool.scope == *scope));
        let largest =
            || self.largest.iter().find(|(role, _)| *role == metric.family.role).map_or(UNKNOWN.ln(), |(_, ratio)| *ratio);
        pool.map_or_else(largest, |pool| smooth(&pool.nodes, size.max(f64::MIN_POSITIVE).ln())).max(floor)
    }

    /// A line for below a table.
    pub fn note(&self) -> String {
        match &self.source {
            Some(source) => format!(
                "noise: the ratio that 95 % of comparisons of a server with itself stay within; of fewer than {LEAST} comparisons the largest, or x {UNKNOWN} ({source})"
            ),
            None => format!(
                "noise: taken as x {UNKNOWN}, since no null round of this machine with these settings is recorded; `stallbench check harness` records one"
            ),
        }
    }
}

/// The ratio that covers the comparisons nearest in size, all of those alike included.
fn local(points: &[(f64, f64)], size: f64) -> Option<f64> {
    let mut near: Vec<(f64, f64)> = points.iter().map(|(at, ratio)| ((at - size).abs(), *ratio)).collect();
    near.sort_by(|a, b| a.0.total_cmp(&b.0));
    let reach = near.get(NEAREST.min(near.len()).saturating_sub(1)).map_or(0.0, |(distance, _)| *distance).max(ALIKE);
    let weighted: Vec<(f64, f64)> =
        near.iter().take_while(|(distance, _)| *distance <= reach).map(|(_, ratio)| (*ratio, 1.0)).collect();
    weighted_quantile(&weighted, COVERED)
}

/// The mean of the local estimates, each weighing less the farther away it is (a Gaussian), so that it is smooth in size.
fn smooth(nodes: &[(f64, f64)], size: f64) -> f64 {
    let nearest = nodes.iter().map(|(at, _)| (at - size).abs()).fold(f64::INFINITY, f64::min);
    // Distances count beyond that of the nearest, so that far from all that was measured the nearest still weigh something.
    let weight = |at: f64| (-(((at - size).abs() - nearest) / ALIKE).powi(2) / 2.0).exp();
    let total: f64 = nodes.iter().map(|(at, _)| weight(*at)).sum();
    nodes.iter().map(|(at, ratio)| weight(*at) * ratio).sum::<f64>() / total
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cpu, p99};
    use super::*;

    fn one(metric: Metric, size: f64, ratio: f64) -> NullComparison {
        NullComparison { server: "a".into(), metric, size, log_ratio: Some(ratio.ln()), p: 0.5, can_differ: true }
    }

    #[test]
    fn noise_covers_nearly_all_ratios_of_either_direction() {
        let ratios: Vec<f64> = (1..=100).map(|i| 1.0 + f64::from(i) / 1000.0).collect();
        let points: Vec<_> = ratios
            .iter()
            .enumerate()
            .map(|(i, ratio)| one(p99(), 100.0, if i % 2 == 0 { *ratio } else { 1.0 / ratio }))
            .collect();
        let noise = Noise::from_null(&points[40..], "made up".into()).of(&p99(), 100.0).exp();
        assert!(noise > 1.085 && noise < 1.1, "{noise}");
    }

    #[test]
    fn small_values_may_be_noisier_than_large_ones_without_a_jump_between() {
        let small = (0..40).map(|i| one(p99(), 0.2 + f64::from(i) / 400.0, if i % 2 == 0 { 2.0 } else { 0.5 }));
        let large = (0..40).map(|i| one(p99(), 300.0 + f64::from(i), 1.01));
        let noise = Noise::from_null(&small.chain(large).collect::<Vec<_>>(), "made up".into());
        assert!(noise.of(&p99(), 0.25).exp() > 1.9 && noise.of(&p99(), 310.0).exp() < 2.0);
        let steps: Vec<f64> = (0..200).map(|i| noise.of(&p99(), 0.2 * 1.04_f64.powi(i))).collect();
        let jump = steps.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f64::max);
        assert!(jump < 0.1, "neighbouring sizes have neighbouring noise, not {jump}");
    }

    #[test]
    fn few_comparisons_of_a_family_are_pooled_with_others_of_its_unit_or_the_largest_of_them_counts() {
        let few: Vec<_> = (0..5).map(|_| one(p99(), 1.0, 9.0)).collect();
        assert_eq!(Noise::from_null(&few, "made up".into()).of(&p99(), 1.0), 9_f64.ln(), "the largest of too few");
        assert_eq!(Noise::from_null(&few, "made up".into()).of(&cpu(), 1.0), UNKNOWN.ln());
        let max = Metric { family: Family::new("fresh_max_ms", Unit::Ms, Role::Latency), ..p99() };
        let more: Vec<_> = few.into_iter().chain((0..30).map(|_| one(max.clone(), 1.0, 1.2))).collect();
        assert!(Noise::from_null(&more, "made up".into()).of(&p99(), 1.0) > 1.15_f64.ln());
        assert_eq!(Noise::from_null(&more, "made up".into()).of(&cpu(), 1.0), UNKNOWN.ln(), "a cost is not a latency");
    }
}
