//! What moved all servers alike between two rounds: rounds at two times are not exchangeable, since the machine is not the same twice.
//!
//! The median over the servers of each server's log ratio is taken out of a family before its cells are judged, and what is left scatters
//! from server to server by as much as two rounds of unchanged servers do.

use crate::metrics::{Cell, Change, Metric, Numbers, Role};
use crate::stats::median;
use std::collections::BTreeMap;

/// With fewer servers in both rounds the machine cannot be told from the servers.
pub const LEAST_SERVERS: usize = 8;
/// From a median absolute deviation to three standard deviations of a normal distribution: hundreds of cells are judged at once.
const COVERS: f64 = 3.0 * 1.4826;

/// The drift of one family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// Logarithm of the ratio common to all servers.
    pub log_factor: f64,
    /// How far from it the servers scatter, as a logarithm of a ratio.
    pub scatter: f64,
    /// Servers in both rounds.
    pub servers: usize,
}

/// The drift of each family whose values have ratios.
pub fn between(old: &Numbers, new: &Numbers) -> BTreeMap<String, Drift> {
    let mut by_family: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for server in old.servers() {
        let mut ratios: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (metric, cell) in old.of_server(server) {
            let other = new.cell(server, metric);
            let ratio = other.and_then(|other| log_ratio(metric, cell, other));
            ratios.entry(metric.family.name.to_string()).or_default().extend(ratio);
        }
        for (family, ratios) in ratios {
            by_family.entry(family).or_default().extend(median(&ratios));
        }
    }
    by_family.into_iter().filter_map(|(family, ratios)| Some((family, of(&ratios)?))).collect()
}

fn of(ratios: &[f64]) -> Option<Drift> {
    let log_factor = median(ratios)?;
    let deviations: Vec<f64> = ratios.iter().map(|ratio| (ratio - log_factor).abs()).collect();
    Some(Drift { log_factor, scatter: COVERS * median(&deviations)?, servers: ratios.len() })
}

fn log_ratio(metric: &Metric, old: &Cell, new: &Cell) -> Option<f64> {
    if !matches!(metric.family.role, Role::Cost | Role::Latency) {
        return None;
    }
    Change::between(old.summary()?.median, new.summary()?.median).log_ratio()
}

/// A cell of the second round as it would be on the machine of the first.
pub fn without(drift: Option<&Drift>, cell: &Cell) -> Cell {
    let factor = drift.filter(|drift| drift.servers >= LEAST_SERVERS).map_or(1.0, |drift| drift.log_factor.exp());
    Cell { values: cell.values.iter().map(|value| value.map(|value| value / factor)).collect(), ..cell.clone() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cpu, exact};
    use super::*;
    use crate::metrics::Value;

    fn numbers(costs: &[f64]) -> Numbers {
        let mut numbers = Numbers::default();
        for (server, cost) in costs.iter().enumerate() {
            let trials = [0.98, 0.99, 1.0, 1.01, 1.02].map(|luck| (cpu(), Ok(Value::Exact(cost * luck))));
            numbers.add(&server.to_string(), trials);
        }
        numbers
    }

    #[test]
    fn a_slower_machine_is_taken_out_and_one_server_that_changed_is_not() {
        let before = [6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 170.0];
        let mut after = before.map(|cost| cost * 1.29);
        after[2] *= 2.0;
        let drift = between(&numbers(&before), &numbers(&after))["cpu_us"];
        assert!((drift.log_factor.exp() - 1.29).abs() < 0.01 && drift.servers == 8, "{drift:?}");
        let left = without(Some(&drift), &exact(&[after[2]; 5])).summary().unwrap().median.exact().unwrap();
        assert!((left / before[2] - 2.0).abs() < 0.02, "{left}");
    }

    #[test]
    fn with_few_servers_nothing_is_taken_out() {
        let drift = between(&numbers(&[6.0, 7.0]), &numbers(&[12.0, 14.0]))["cpu_us"];
        assert_eq!(without(Some(&drift), &exact(&[12.0])), exact(&[12.0]));
    }
}
