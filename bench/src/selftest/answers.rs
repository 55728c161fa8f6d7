//! Comparisons of known answer: stored trials with one thing changed in them are scored again, and the verdict must be that one thing.

use crate::host::tree::recorded;
use crate::metrics::{Numbers, Percentile, Reading, Value};
use crate::round::{self, Round};
use crate::summary::comparison::{self, Sides};
use crate::verdict::noise::Noise;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

/// A recorded standard round whose trials are scored again.
const ROUND: &str = "2026-11-22-vm";

/// A comparison of known answer: its name, and the attempt.
type Answer = (&'static str, fn() -> Result<String>);

/// Comparisons whose answer is known.
pub const ANSWERS: &[Answer] = &[
    ("same", || judge("the same trials twice", &|_, reading| reading, &[])),
    ("doubled-cost", doubled_cost),
    ("moved-threshold", moved_threshold),
    ("frozen", frozen),
];

/// One runtime's processor time per request doubles. With six trials a single cell among two dozen could not be told from chance.
fn doubled_cost() -> Result<String> {
    let double = |server: &str, (metric, value): Reading| {
        let factor = if server.starts_with("smol-") && metric.family.name == "cpu_us" { 2.0 } else { 1.0 };
        (metric, value.map(|value| value.map(|value| value * factor)))
    };
    let cells = [
        "smol-current-thread cpu_us[kept-alive]",
        "smol-current-thread cpu_us[pipelined]",
        "smol-forked cpu_us[kept-alive]",
        "smol-forked cpu_us[pipelined]",
        "smol-multi-thread cpu_us[kept-alive]",
        "smol-multi-thread cpu_us[pipelined]",
    ];
    judge("one runtime's doubled cost", &double, &cells)
}

/// One server's freeze threshold halves in every trial.
fn moved_threshold() -> Result<String> {
    let halve = |server: &str, (metric, value): Reading| {
        let is_it = server == "smol-multi-thread" && metric.to_string() == "freeze_k[sleep@100,100ms]";
        (metric, value.map(|value| if is_it { value.map(|k| k / 2.0) } else { value }))
    };
    judge("one halved threshold", &halve, &["smol-multi-thread freeze_k[sleep@100,100ms]"])
}

/// One server that never froze freezes.
fn frozen() -> Result<String> {
    let freeze = |server: &str, (metric, value): Reading| {
        let is_it = server == "std-thread-per-connection" && metric.to_string() == "freeze_k[sleep@100,100ms]";
        (metric, value.map(|value| if is_it { Value::Exact(4.0) } else { value }))
    };
    judge("one that froze", &freeze, &["std-thread-per-connection freeze_k[sleep@100,100ms]"])
}

/// Scores a recorded round against a copy in which each reading was changed; exactly the wanted cells must differ.
fn judge(what: &str, change: &dyn Fn(&str, Reading) -> Reading, wanted: &[&str]) -> Result<String> {
    let round = Round::open(&recorded().join(ROUND)).context("the recorded round")?;
    let (mut before, mut after) = (Numbers::default(), Numbers::default());
    for trial in &round.trials {
        let readings = round::readings(&round, trial, Percentile::default())?;
        after.add(&trial.server, readings.iter().cloned().map(|reading| change(&trial.server, reading)));
        before.add(&trial.server, readings);
    }
    let servers = before.servers().map(|name| (name.to_owned(), name.to_owned(), name.to_owned())).collect();
    let sides = Sides {
        before: (&before, "before"),
        after: (&after, "after"),
        servers,
        drift: BTreeMap::new(),
        cannot_judge_costs: false,
    };
    let compared = comparison::compare(&sides, &Noise::default(), &[], &[], Vec::new())?;
    let found = compared.differing();
    if found != wanted {
        bail!("{what}: found {found:?} instead of {wanted:?}");
    }
    Ok(format!(
        "{what}: {}",
        if found.is_empty() { "no difference found".into() } else { found.join(", ") + " found, and nothing else" }
    ))
}
