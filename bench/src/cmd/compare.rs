//! `stallbench compare`: what differs between rounds, and by more than noise.

use super::noise;
use crate::catalog::{Filter, takes_server};
use crate::cli::Compare;
use crate::console::output::{print, say};
use crate::metrics::{Numbers, Percentile};
use crate::round::{self, Round};
use crate::summary;
use crate::summary::comparison::{self, Comparison, Sides, only_in_one};
use crate::verdict::drift;
use crate::verdict::gate::Gate;
use anyhow::{Result, bail};
use std::path::Path;
use std::process::ExitCode;

/// Compares each further round to the first.
///
/// # Errors
/// Rounds that cannot be read or have nothing in common; a gate that cannot fail.
pub fn run(arguments: &Compare) -> Result<ExitCode> {
    let folders = arguments.rounds.iter().map(|name| super::round_or_newest(Some(name), |_| true));
    let rounds: Vec<Round> = folders.map(|folder| Round::open(&folder?)).collect::<Result<_>>()?;
    let percentile = arguments.shape.percentile;
    let numbers: Vec<Numbers> = rounds.iter().map(|round| round::numbers(round, percentile)).collect::<Result<_>>()?;
    let wanted = Wanted {
        null: arguments.null.as_deref(),
        gates: &arguments.gates.fail_if,
        filters: &arguments.shape.filters,
        percentile,
    };
    let mut compared = Vec::new();
    for (after, theirs) in rounds[1..].iter().zip(&numbers[1..]) {
        let notes = only_in_one(&numbers[0], theirs);
        compared.push(between((&rounds[0], &numbers[0]), (after, theirs), &wanted, notes)?);
    }
    if arguments.gates.list_metrics {
        return list_metrics(&compared);
    }
    let shape = &arguments.shape;
    print(&comparison::render(&compared, arguments.all, shape.format(), &shape.terminal())?)?;
    Ok(super::exit_code(!report_failures(compared)?))
}

/// What is wanted of a comparison.
#[derive(Default)]
pub struct Wanted<'w> {
    /// The null round that says what is noise, if it is named.
    pub null: Option<&'w Path>,
    /// Gates.
    pub gates: &'w [Gate],
    /// Filters over servers and metrics.
    pub filters: &'w [Filter],
    /// The percentile that the numbers are read at.
    pub percentile: Percentile,
}

/// Compares two rounds.
///
/// # Errors
/// Rounds that have nothing in common; a gate that cannot fail.
pub fn between(
    (before, old): (&Round, &Numbers),
    (after, new): (&Round, &Numbers),
    wanted: &Wanted<'_>,
    mut notes: Vec<String>,
) -> Result<Comparison> {
    let (borne, said) = summary::borne(before, old, wanted.percentile)?;
    notes.extend(said.into_iter().map(|note| format!("first: {note}")));
    let old = &borne;
    let (borne, said) = summary::borne(after, new, wanted.percentile)?;
    notes.extend(said.into_iter().map(|note| format!("second: {note}")));
    let new = &borne;
    // T of a user's own service is measured in each round, and metrics are named by it.
    let without;
    let (old, new) = match [before, after].map(slow_ms) {
        [Some(theirs), Some(ours)] if theirs != ours => {
            notes.push(format!(
                "the slow requests took {theirs} and {ours} ms alone; `stallbench ab` measures two versions under one load"
            ));
            without = [old.without(&format!("@{theirs}")), new.without(&format!("@{ours}"))];
            (&without[0], &without[1])
        }
        _ => (old, new),
    };
    let is_shown = |name: &str| {
        let row = before.header.servers.iter().find(|row| row.name == name);
        row.is_some_and(|row| takes_server(wanted.filters, row))
    };
    let servers: Vec<(String, String, String)> =
        old.servers().filter(|name| is_shown(name)).map(|name| (name.to_owned(), name.to_owned(), name.to_owned())).collect();
    let names = [before, after].map(|round| round.folder.display().to_string());
    if !servers.iter().any(|(name, ..)| new.servers().any(|theirs| theirs == name)) {
        bail!("{} and {} have no server and metric in common that the filters let through", names[0], names[1]);
    }
    // The same round twice is the same time.
    let is_same_time = before.header.started == after.header.started;
    let drift = if is_same_time { Default::default() } else { drift::between(old, new) };
    let shared = drift.values().map(|drift| drift.servers).max().unwrap_or(0);
    let cannot_judge_costs = !is_same_time && shared < drift::LEAST_SERVERS;
    let mut noise = noise::between(before, wanted.null)?;
    for (family, drift) in &drift {
        if drift.servers >= drift::LEAST_SERVERS {
            noise = noise.with_floor(family, drift.scatter);
        }
    }
    notes.extend(warnings(before, after));
    let sides = Sides { before: (old, &names[0]), after: (new, &names[1]), servers, drift, cannot_judge_costs };
    comparison::compare(&sides, &noise, wanted.gates, wanted.filters, notes)
}

/// T of a round of a user's own service, in ms.
fn slow_ms(round: &Round) -> Option<f64> {
    round.header.settings.experiments.get("service")?.get("block_ms")?.as_f64()
}

/// Prints the metrics that gates can name.
///
/// # Errors
/// Standard output cannot be written.
pub fn list_metrics(compared: &[Comparison]) -> Result<ExitCode> {
    let mut names: Vec<String> = compared.iter().flat_map(Comparison::metrics).collect();
    names.dedup();
    print(&(names.join("\n") + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Says which gates failed; returns whether any did.
///
/// # Errors
/// A gate that cannot fail.
pub fn report_failures(mut compared: Vec<Comparison>) -> Result<bool> {
    // What fails is told, also beside a gate that cannot.
    let checked = compared.iter_mut().try_for_each(Comparison::check_gates);
    let failed: Vec<String> = compared.iter().flat_map(Comparison::failed).cloned().collect();
    if !failed.is_empty() {
        say(&format!("stallbench: {} beyond what --fail-if allows: {}", failed.len(), failed.join("; ")));
    }
    checked.map(|()| !failed.is_empty())
}

/// Other differences of the rounds, and what the trials cannot tell.
fn warnings(before: &Round, after: &Round) -> Vec<String> {
    let mut notes = Vec::new();
    let (a, b) = (&before.header, &after.header);
    let mut differences: Vec<String> = a.environment.differences(&b.environment).into_iter().map(str::to_owned).collect();
    differences.extend(a.settings.differences(&b.settings));
    if !differences.is_empty() {
        notes.push(format!("warning: the rounds also differ in: {}", differences.join(", ")));
    }
    for row in &a.servers {
        let other = b.servers.iter().find(|other| other.name == row.name).and_then(|other| other.receipt.as_ref());
        if let (Some(receipt), Some(other)) = (&row.receipt, other) {
            let differences = receipt.differences(other);
            if !differences.is_empty() {
                notes.push(format!("warning: {} is another build or has other knobs: {}", row.name, differences.join(", ")));
            }
        }
    }
    if a.settings.trials.min(b.settings.trials) < 4 {
        notes.push("with fewer than four trials on each side no difference can be shown".into());
    }
    notes
}
