//! The gates of a comparison: the cells that fail them, those that leave them open, and gates that no cell can fail.

use super::comparison::{Judged, Sides, words};
use super::missing::Missing;
use crate::catalog::{Filter, takes_metric};
use crate::console::hint::nearest;
use crate::console::usage::refuse;
use crate::metrics::{Family, Metric, Role, Summary, Value};
use crate::report::value_in_words;
use crate::verdict;
use crate::verdict::gate::Gate;
use anyhow::{Result, bail};
use std::collections::BTreeSet;

/// Trials on each side that a gate on a change takes: with fewer, not even values that are all apart differ by the rank-sum test.
const LEAST_OF_CHANGE: usize = 4;
/// Trials of the second side that a gate on a value takes.
const LEAST_OF_VALUE: usize = 2;

/// The trials that a gate takes.
fn least(gate: &Gate) -> usize {
    if gate.is_about_change() { LEAST_OF_CHANGE } else { LEAST_OF_VALUE }
}

/// The same in words.
fn least_in_words(gate: &Gate) -> &'static str {
    if gate.is_about_change() { "four trials on each side" } else { "more than one trial" }
}

/// Refuses gates that are about none of the families that are to be measured, or take more trials than are planned.
///
/// # Errors
/// There is one.
pub fn refuse_hopeless(gates: &[Gate], families: &[Family], trials: u32) -> Result<()> {
    for gate in gates {
        if !families.iter().any(|family| family.is_covered_by(gate.name())) {
            let known: BTreeSet<&str> = families.iter().map(|family| family.name.as_ref()).collect();
            refuse_name(gate, known)?;
        }
        if (trials as usize) < least(gate) {
            refuse!("the gate '{gate}' takes {}, and {trials} would be taken: raise --trials", least_in_words(gate));
        }
    }
    Ok(())
}

fn refuse_name(gate: &Gate, known: BTreeSet<&str>) -> Result<()> {
    let known = Vec::from_iter(known);
    refuse!("the gate '{gate}' covers no metric; {} (--list-metrics shows all)", nearest(gate.name(), &known));
}

/// The gates that a cell of both sides fails, or of which it cannot tell, in words. `raw` is the second median as it was measured: an absolute bound is not
/// about what the first machine would have shown.
pub(super) fn failed(gates: &[Gate], metric: &Metric, raw: Option<Value>, judged: &Judged) -> Vec<String> {
    let server = &judged.server;
    let mut failed = Vec::new();
    for gate in gates.iter().filter(|gate| gate.covers(metric)) {
        let fails = if gate.is_about_change() {
            gate.fails(&judged.comparison)
        } else {
            raw.is_some_and(|value| gate.fails_value(value))
        };
        if fails {
            let unit = metric.family.unit;
            let value = raw.filter(|_| !gate.is_about_change()).map(|value| format!("is {}", value_in_words(value, unit)));
            failed.push(format!("{server} {metric} {} ({gate})", value.unwrap_or_else(|| words(&judged.comparison, unit))));
        } else if gate.is_open_fall(&judged.comparison) || is_lost_rise(gate, &judged.comparison) {
            failed.push(open(gate, server, metric, judged.comparison.after.median));
        }
        failed.extend(raw.filter(|value| gate.is_open(*value)).map(|value| open(gate, server, metric, value)));
        failed.extend((trials_of(gate, judged) < least(gate)).then(|| too_few(gate, server, metric)));
    }
    failed
}

/// Whether a rise is of unknown size and so fails its gate. A gate on a whole family lets pass what was only known as a bound before: such a server
/// hung in both versions.
fn is_lost_rise(gate: &Gate, comparison: &verdict::Comparison) -> bool {
    let was_known = matches!(comparison.before.median, Value::Exact(_));
    gate.is_open_rise(comparison) && (gate.names_a_place() || was_known)
}

/// The trials of a cell that a gate rests on.
fn trials_of(gate: &Gate, judged: &Judged) -> usize {
    let (before, after) = (judged.comparison.before.trials, judged.comparison.after.trials);
    if gate.is_about_change() { before.min(after) } else { after }
}

fn open(gate: &Gate, server: &str, metric: &Metric, value: Value) -> String {
    let known = value_in_words(value, metric.family.unit);
    format!("{server} {metric} is only known to be {known}: the gate '{gate}' cannot tell")
}

fn too_few(gate: &Gate, server: &str, metric: &Metric) -> String {
    format!("{server} {metric} rests on too few trials: the gate '{gate}' takes {}", least_in_words(gate))
}

/// That whole families were gated on a rise of which some cells cannot tell, since the wait for their answers was given up.
pub(super) fn open_note(gates: &[Gate], cells: &[(&Metric, &Judged)]) -> Option<String> {
    let is_open = |(metric, judged): &&(&Metric, &Judged)| {
        let mut gates = gates.iter().filter(|gate| gate.covers(metric) && !gate.names_a_place());
        gates.any(|gate| gate.is_open_rise(&judged.comparison) && !is_lost_rise(gate, &judged.comparison))
    };
    let open: Vec<String> = cells.iter().filter(is_open).map(|(metric, judged)| format!("{} {metric}", judged.server)).collect();
    (!open.is_empty()).then(|| {
        format!(
            "no gate can tell whether these rose, since the wait for answers was given up: {}; a gate that names their place fails on them",
            open.join(", ")
        )
    })
}

/// A number of the second side where the first has none: a bound on the value looks at it alone.
pub(super) struct Single<'s> {
    server: &'s str,
    metric: &'s Metric,
    summary: Summary,
}

impl Single<'_> {
    /// Whether a gate is about it.
    pub(super) fn is_of(&self, gate: &Gate) -> bool {
        !gate.is_about_change() && gate.covers(self.metric)
    }
}

/// All of them.
pub(super) fn singles<'s>(sides: &'s Sides<'_>, filters: &[Filter]) -> Vec<Single<'s>> {
    let mut all = Vec::new();
    for (server, before, after) in &sides.servers {
        for (metric, cell) in sides.after.0.of_server(after) {
            let counts = metric.family.role != Role::Detail && takes_metric(filters, &metric.to_string());
            let is_common = sides.before.0.cell(before, metric).is_some_and(|cell| !cell.values.is_empty());
            let summary = cell.summary().filter(|_| counts && !is_common);
            all.extend(summary.map(|summary| Single { server, metric, summary }));
        }
    }
    all
}

/// The gates that these numbers fail, or of which they cannot tell, in words.
pub(super) fn failed_singles(gates: &[Gate], singles: &[Single<'_>]) -> Vec<String> {
    let mut failed = Vec::new();
    for single @ Single { server, metric, summary } in singles {
        for gate in gates.iter().filter(|gate| single.is_of(gate)) {
            let value = summary.median;
            if gate.fails_value(value) {
                failed.push(format!("{server} {metric} is {} ({gate})", value_in_words(value, metric.family.unit)));
            } else if gate.is_open(value) {
                failed.push(open(gate, server, metric, value));
            }
            failed.extend((summary.trials < least(gate)).then(|| too_few(gate, server, metric)));
        }
    }
    failed
}

/// A gate that can never fail is a mistake, not a pass, and so is one that cannot be judged. One that is about something lost fails in any case.
///
/// # Errors
/// There is one.
pub(super) fn check(gates: &[Gate], cells: &[(&Metric, &Judged)], singles: &[Single<'_>], lost: &[Missing<'_>]) -> Result<()> {
    for gate in gates {
        let covered: Vec<&Judged> = cells.iter().filter(|(metric, _)| gate.covers(metric)).map(|(_, line)| *line).collect();
        let single: Vec<&Single<'_>> = singles.iter().filter(|one| one.is_of(gate)).collect();
        if !covered.is_empty() && !covered.iter().any(|line| line.is_judged) {
            bail!("the gate '{gate}' is about costs, which cannot be judged between these rounds: use `stallbench ab`");
        }
        if lost.iter().any(|one| one.is_of(gate)) {
            continue;
        }
        if covered.is_empty() && single.is_empty() {
            let known = cells.iter().map(|(metric, _)| *metric).chain(singles.iter().map(|one| one.metric));
            refuse_name(gate, known.map(|metric| metric.family.name.as_ref()).collect())?;
        }
        let trials = covered.iter().map(|line| trials_of(gate, line)).chain(single.iter().map(|one| one.summary.trials));
        if trials.max() < Some(least(gate)) {
            bail!("the gate '{gate}' rests on too few trials: it takes {}", least_in_words(gate));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Percentile;
    use crate::round::{self, Round};
    use std::path::Path;

    #[test]
    fn every_compared_family_of_the_recorded_rounds_is_one_that_its_experiment_names_before() {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench-results");
        let of = |number: u32| format!("2026-11-29-vm.{number}");
        let names = (2..=7).map(of).chain(["2026-11-28-vm-state", "2026-11-29-vm-null"].map(str::to_owned));
        for name in names {
            let round = Round::open(&results.join(&name)).unwrap();
            let numbers = round::numbers(&round, Percentile::default()).unwrap();
            let named: Vec<Family> =
                round.header.settings.experiments().flat_map(|(one, _)| one.families(Percentile::default())).collect();
            assert!(named.iter().all(|family| family.role != Role::Detail), "{name}");
            let cells = numbers.servers().flat_map(|server| numbers.of_server(server));
            for (metric, _) in cells.filter(|(metric, _)| metric.family.role != Role::Detail) {
                assert!(named.contains(&metric.family), "{name}: {metric}");
            }
        }
    }

    #[test]
    fn a_gate_that_no_result_could_be_judged_by_is_refused_before() {
        let refused = |gate: &str, trials: u32| {
            let families = [Percentile::default().family()];
            refuse_hopeless(&[gate.parse().unwrap()], &families, trials).map_err(|error| error.to_string())
        };
        assert!(refused("p99>20%", 4).is_ok() && refused("p99_ms[4]>50", 2).is_ok());
        assert!(refused("p99>20%", 3).unwrap_err().contains("takes four trials on each side"));
        assert!(refused("p99_ms[4]>50", 1).unwrap_err().contains("takes more than one trial"));
        assert!(refused("p98>20%", 7).unwrap_err().contains("did you mean p99_ms"));
    }
}
