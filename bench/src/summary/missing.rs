//! What a second measurement has lost: cells of which the first has a number and the second, which set out to measure them, has none, or few beside
//! the trials in which the server failed.

use super::comparison::Sides;
use crate::catalog::{Filter, takes_metric};
use crate::metrics::{Metric, Numbers, Role};
use crate::validity;
use crate::verdict::gate::Gate;
use std::collections::BTreeSet;

/// A cell without a number in the second measurement, which set out to measure it.
pub(super) struct Missing<'s> {
    server: &'s str,
    metric: &'s Metric,
    /// The reason of its first trial, if any was taken.
    why: Option<&'s str>,
    /// The first measurement has a number there.
    is_lost: bool,
}

impl Missing<'_> {
    /// Whether a gate is about it: a bound on the value looks at the second measurement alone.
    pub(super) fn is_of(&self, gate: &Gate) -> bool {
        gate.covers(self.metric) && (self.is_lost || !gate.is_about_change())
    }
}

/// How many of these cells have a number in the first measurement.
pub(super) fn of_first(missing: &[Missing<'_>]) -> usize {
    missing.iter().filter(|one| one.is_lost).count()
}

/// All cells that the second measurement has lost. Those of a server that failed in most trials are among them: the others may be its luck. What it did not measure of any server is not lost: it had other settings.
pub(super) fn missing<'s>(sides: &'s Sides<'_>, filters: &[Filter]) -> Vec<Missing<'s>> {
    let second = sides.after.0;
    let mut all = Vec::new();
    for (server, before, after) in &sides.servers {
        for (metric, cell) in sides.before.0.of_server(before) {
            let counts = metric.family.role != Role::Detail && takes_metric(filters, &metric.to_string());
            let found = second.cell(after, metric);
            let failures =
                || second.failures(after, metric.experiment).iter().chain(found.iter().flat_map(|found| &found.invalid));
            let by_server = failures().filter(|reason| !validity::is_of_driver(reason)).count();
            if !counts || cell.values.is_empty() || found.is_some_and(|found| found.values.len() > by_server) {
                continue;
            }
            let reasons: Vec<&String> = failures().collect();
            let was_wanted = !reasons.is_empty() || !has_server(second, after) || is_measured(second, metric);
            let why = reasons.first().map(|reason| reason.as_str());
            all.extend(was_wanted.then_some(Missing { server, metric, why, is_lost: true }));
        }
        // What neither has.
        for (metric, cell) in second.of_server(after).filter(|(_, cell)| cell.values.is_empty()) {
            let counts = metric.family.role != Role::Detail && takes_metric(filters, &metric.to_string());
            let is_lost = sides.before.0.cell(before, metric).is_some_and(|cell| !cell.values.is_empty());
            let why = cell.invalid.first().map(String::as_str);
            all.extend((counts && !is_lost).then_some(Missing { server, metric, why, is_lost }));
        }
    }
    all
}

fn has_server(numbers: &Numbers, name: &str) -> bool {
    numbers.servers().any(|server| server == name)
}

fn is_measured(numbers: &Numbers, metric: &Metric) -> bool {
    numbers.servers().any(|server| numbers.cell(server, metric).is_some())
}

/// The lost cells that gates are about, in words: a server of which nothing is left is named once.
pub(super) fn in_words(missing: &[Missing<'_>], gates: &[Gate], left: &BTreeSet<&str>) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for one in missing.iter().filter(|one| gates.iter().any(|gate| one.is_of(gate))) {
        let metric = if left.contains(one.server) { format!(" {}", one.metric) } else { String::new() };
        let why = one.why.map_or(String::new(), |why| format!(" ({why})"));
        let said = format!("missing in the second: {}{metric}", one.server);
        // The reason of the first of its cells stands for those of a server.
        let is_known = words.iter().any(|known| *known == said || known.starts_with(&format!("{said} (")));
        words.extend((!is_known).then(|| format!("{said}{why}")));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::comparison::compare;
    use super::*;
    use crate::metrics::{Percentile, Value};
    use crate::verdict::noise::Noise;
    use std::collections::BTreeMap;

    fn p99(k: usize) -> Metric {
        Percentile::default().family().at("collateral", format!("sleep@110,{k}"))
    }

    /// Seven trials of two servers beside one and four blockers, changed by `change`: (server, k) to what each trial says.
    fn numbers(change: impl Fn(&str, usize) -> Option<Result<Value, String>>) -> Numbers {
        let mut numbers = Numbers::default();
        for server in ["a", "b"] {
            for trial in 0..7 {
                let usual = Ok(Value::Exact(10.0 + f64::from(trial)));
                let reading = |k| (p99(k), change(server, k).unwrap_or(usual.clone()));
                numbers.add(server, [1, 4].map(reading));
            }
        }
        numbers
    }

    fn failed(after: &Numbers, gate: &str) -> Result<Vec<String>, String> {
        failed_since(&numbers(|_, _| None), after, gate)
    }

    fn failed_since(before: &Numbers, after: &Numbers, gate: &str) -> Result<Vec<String>, String> {
        let sides = Sides {
            before: (before, "before"),
            after: (after, "after"),
            servers: ["a", "b"].map(|name| (name.to_owned(), name.to_owned(), name.to_owned())).to_vec(),
            drift: BTreeMap::new(),
            cannot_judge_costs: false,
        };
        let mut compared = compare(&sides, &Noise::default(), &[gate.parse().unwrap()], &[], Vec::new()).unwrap();
        compared.check_gates().map_err(|error| error.to_string())?;
        Ok(compared.failed().cloned().collect())
    }

    #[test]
    fn a_cell_that_is_invalid_in_every_trial_fails_its_gate_and_no_other() {
        let after = numbers(|server, k| (server == "a" && k == 4).then(|| Err("lag: late".into())));
        assert_eq!(failed(&after, "p99>10%").unwrap(), ["missing in the second: a p99_ms[sleep@110,4] (lag: late)"]);
        assert!(failed(&after, "p99_ms[1]>10%").unwrap().is_empty());
    }

    #[test]
    fn a_server_that_crashes_in_most_trials_fails_its_gates_whatever_the_others_say() {
        let (mut most, mut few) = (numbers(|_, _| None), numbers(|_, _| None));
        (0..7).for_each(|_| most.fail("a", "collateral", "a does not get ready"));
        few.fail("a", "collateral", "a does not get ready");
        let lost = [1, 4].map(|k| format!("missing in the second: a p99_ms[sleep@110,{k}] (a does not get ready)"));
        assert_eq!(failed(&most, "p99>10%").unwrap(), lost);
        assert!(failed(&few, "p99>10%").unwrap().is_empty());
    }

    #[test]
    fn a_server_that_crashes_in_every_trial_fails_each_gate_once_also_where_it_is_the_only_one() {
        let mut crashed = Numbers::default();
        (0..7).for_each(|_| crashed.fail("a", "collateral", "a does not get ready"));
        let mut both = crashed.clone();
        (0..7).for_each(|trial| both.add("b", [1, 4].map(|k| (p99(k), Ok(Value::Exact(10.0 + f64::from(trial)))))));
        assert_eq!(failed(&both, "p99>10%").unwrap(), ["missing in the second: a (a does not get ready)"]);
        let of_both = ["missing in the second: a (a does not get ready)", "missing in the second: b"];
        assert_eq!(failed(&crashed, "p99_ms[4]>50").unwrap(), of_both);
    }

    #[test]
    fn what_the_second_did_not_set_out_to_measure_is_not_missing() {
        let mut after = Numbers::default();
        for server in ["a", "b"] {
            (0..7).for_each(|trial| after.add(server, [(p99(1), Ok(Value::Exact(10.0 + f64::from(trial))))]));
        }
        assert!(failed(&after, "p99>10%").unwrap().is_empty());
        assert!(failed(&after, "p99_ms[4]>10%").unwrap_err().contains("covers no metric"));
    }

    #[test]
    fn a_cell_with_too_few_trials_to_judge_fails_its_gate_though_another_has_enough() {
        let mut after = Numbers::default();
        for (server, trials) in [("a", 3), ("b", 7)] {
            (0..trials).for_each(|trial| after.add(server, [1, 4].map(|k| (p99(k), Ok(Value::Exact(10.0 + f64::from(trial)))))));
        }
        let found = failed(&after, "p99_ms[4]>10%").unwrap();
        let words = "a p99_ms[sleep@110,4] rests on too few trials: the gate 'p99_ms[4]>10%' takes four trials on each side";
        assert_eq!(found, [words]);
        assert!(failed(&after, "p99_ms[4]>50").unwrap().is_empty(), "three are enough for a bound on the value");
    }

    #[test]
    fn a_bound_on_a_value_is_judged_by_the_second_side_alone_where_the_first_has_no_number() {
        let of_a = |value: Result<Value, String>| numbers(move |server, k| (server == "a" && k == 4).then(|| value.clone()));
        let (invalid, high) = (of_a(Err("lag: late".into())), of_a(Ok(Value::Exact(443.0))));
        for gate in ["p99_ms[4]>300", "p99>300"] {
            let words = format!("a p99_ms[sleep@110,4] is 443 ms ({gate})");
            assert_eq!(failed_since(&invalid, &high, gate).unwrap(), [words], "{gate}");
        }
        assert!(failed_since(&invalid, &high, "p99_ms[4]>500").unwrap().is_empty());
        assert!(failed_since(&invalid, &high, "p99_ms[4]>10%").unwrap().is_empty(), "nothing is known of a change");
        // Nor does a first side that knows nothing at all leave the gate without a cell.
        let only = |value: Value| {
            let mut numbers = Numbers::default();
            (0..7).for_each(|_| numbers.add("a", [(p99(4), Ok(value))]));
            numbers
        };
        let mut crashed = Numbers::default();
        crashed.fail("a", "collateral", "a does not get ready");
        assert_eq!(failed_since(&crashed, &only(Value::Exact(443.0)), "p99_ms[4]>300").unwrap().len(), 1);
        assert!(failed_since(&crashed, &only(Value::Exact(43.0)), "p99_ms[4]>300").is_ok());
    }

    #[test]
    fn what_neither_side_knows_fails_a_bound_on_the_value_and_no_bound_on_a_change() {
        let invalid = numbers(|server, k| (server == "a" && k == 4).then(|| Err("answers: wrong".into())));
        let found = failed_since(&invalid, &invalid, "p99>300").unwrap();
        assert_eq!(found, ["missing in the second: a p99_ms[sleep@110,4] (answers: wrong)"]);
        assert!(failed_since(&invalid, &invalid, "p99>10%").unwrap().is_empty());
    }

    #[test]
    fn a_gate_above_what_is_known_of_a_hanging_server_cannot_tell() {
        let hangs = numbers(|server, k| (server == "a" && k == 4).then_some(Ok(Value::AtLeast(1000.0))));
        let open = |gate: &str| format!("a p99_ms[sleep@110,4] is only known to be >= 1000 ms: the gate '{gate}' cannot tell");
        for gate in ["p99_ms[4]>1500", "p99>1500"] {
            assert_eq!(failed(&hangs, gate).unwrap(), [open(gate)]);
        }
        assert_eq!(failed(&hangs, "p99_ms[4]>900").unwrap().len(), 1, "it fails, and is not open as well");
        // Two versions that hang have not changed as far as a whole family is asked, but a gate on this very place cannot tell.
        assert!(failed_since(&hangs, &hangs, "p99>20%").unwrap().is_empty());
        assert_eq!(failed_since(&hangs, &hangs, "p99_ms[4]>20%").unwrap(), [open("p99_ms[4]>20%")]);
        // One that answered slowly before, and hangs now, may have risen by any amount.
        let slow = numbers(|server, k| (server == "a" && k == 4).then_some(Ok(Value::Exact(916.0))));
        assert_eq!(failed_since(&slow, &hangs, "p99>20%").unwrap(), [open("p99>20%")]);
    }

    #[test]
    fn a_comparison_says_where_a_lone_change_would_pass_for_chance() {
        let notes = |trials: u32| {
            let mut numbers = Numbers::default();
            for trial in 0..trials {
                let reading = |k| (p99(k), Ok(Value::Exact(10.0 + f64::from(trial) + k as f64)));
                numbers.add("a", (1..=30).map(reading));
            }
            let sides = Sides {
                before: (&numbers, "before"),
                after: (&numbers, "after"),
                servers: vec![("a".into(), "a".into(), "a".into())],
                drift: BTreeMap::new(),
                cannot_judge_costs: false,
            };
            compare(&sides, &Noise::default(), &[], &[], Vec::new()).unwrap().notes.join("\n")
        };
        let (few, enough) = (notes(4), notes(7));
        assert!(few.contains("passes for chance: of p99_ms (30 cells: 7 trials on each side would do)"), "{few}");
        assert!(!enough.contains("passes for chance"), "{enough}");
    }
}
