//! `stallbench compare`: what differs between rounds, and by more than noise.

use super::{newest_spread, print};
use crate::cli::Compare;
use crate::report::numbers::Numbers;
use crate::report::{Format, Table, render, significant};
use crate::round::Round;
use crate::round::filter::{Filter, takes_metric, takes_server};
use crate::stats::{Summary, geometric_mean};
use crate::verdict::{Comparison, Pair, family, judge, spread::Spread};
use anyhow::{Result, bail};
use serde::Serialize;
use std::collections::BTreeSet;
use std::process::ExitCode;

/// Metrics that are compared; the others only repeat them.
const COMPARED: [&str; 9] =
    ["fresh_max_ms", "freeze_k", "first_ms", "last_ms", "cpu_us", "per_s", "idle_pss_mib", "connection_kib", "ready_ms"];

/// Two rounds beside each other.
#[derive(Serialize)]
struct Rounds {
    before: String,
    after: String,
    lines: Vec<Line>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Line {
    server: String,
    metric: String,
    #[serde(flatten)]
    comparison: Comparison,
    /// The gate that this line does not pass.
    failed: Option<String>,
}

/// Compares each further round to the first.
pub fn run(arguments: &Compare) -> Result<ExitCode> {
    let folders = arguments.rounds.iter().map(|name| super::round_or_newest(Some(name), |_| true));
    let rounds: Vec<Round> = folders.map(|folder| Round::open(&folder?)).collect::<Result<_>>()?;
    let spread = newest_spread(&rounds[0], arguments.null.as_deref())?;
    let compared = rounds[1..].iter().map(|after| compare(&rounds[0], after, arguments, &spread));
    let compared: Vec<Rounds> = compared.collect::<Result<_>>()?;
    let format = arguments.shape.format();
    print(&match format {
        Format::Json => serde_json::to_string_pretty(&compared)? + "\n",
        _ => render(&compared.iter().map(|rounds| table(rounds, arguments.all)).collect::<Vec<_>>(), format)?,
    });
    let failed: Vec<String> = compared.iter().flat_map(|rounds| &rounds.lines).filter_map(|line| line.failed.clone()).collect();
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("stallbench: {} beyond what --fail-if allows: {}", failed.len(), failed.join("; "));
    Ok(ExitCode::from(crate::SOME_FAILED))
}

fn compare(before: &Round, after: &Round, arguments: &Compare, spread: &Spread) -> Result<Rounds> {
    let (old, new) = (Numbers::of(before, arguments.shape.percentile)?, Numbers::of(after, arguments.shape.percentile)?);
    let in_common = common_cells(before, &old, &new, arguments);
    let (a, b) = (before.folder.display().to_string(), after.folder.display().to_string());
    if in_common.is_empty() {
        bail!(
            "{a} and {b} have no server and metric in common{}",
            if arguments.shape.filters.is_empty() { "" } else { " that the filters let through" }
        );
    }
    let pairs: Vec<Pair> = in_common
        .iter()
        .map(|(server, metric)| Pair { metric, before: old.values(server, metric), after: new.values(server, metric) })
        .collect();
    let judged = judge(&pairs, spread);
    let lines = in_common.iter().zip(judged).filter_map(|((server, metric), comparison)| {
        let comparison = comparison?;
        let failed = arguments.fail_if.iter().any(|gate| gate.fails(metric, &comparison));
        let failed = failed.then(|| format!("{server} {metric} {}", change(&comparison)));
        Some(Line { server: server.clone(), metric: metric.clone(), comparison, failed })
    });
    let lines: Vec<Line> = lines.collect();
    let mut notes = warnings(before, after);
    notes.extend(means(&lines));
    notes.push(format!(
        "~: no difference that a Mann-Whitney test finds (5 %, Benjamini-Hochberg over each kind of metric) and that exceeds noise; {}",
        spread.note()
    ));
    Ok(Rounds { before: a, after: b, lines, notes })
}

/// Server and metric of all cells that both rounds have a number for.
fn common_cells(before: &Round, old: &Numbers, new: &Numbers, arguments: &Compare) -> Vec<(String, String)> {
    let percentile = format!("{}_ms", arguments.shape.percentile);
    let filters: &[Filter] = &arguments.shape.filters;
    let servers = before.header.servers.iter().filter(|server| takes_server(filters, server));
    let cells =
        servers.flat_map(|server| old.of_server(&server.name).map(|(metric, cell)| (server.name.clone(), metric.clone(), cell)));
    let is_compared = |metric: &str| family(metric) == percentile || COMPARED.contains(&family(metric));
    let both = cells.filter(|(server, metric, cell)| {
        is_compared(metric) && takes_metric(filters, metric) && !cell.values.is_empty() && !new.values(server, metric).is_empty()
    });
    both.map(|(server, metric, _)| (server, metric)).collect()
}

/// The cells that differ, or all of them.
fn table(rounds: &Rounds, all: bool) -> Table {
    let columns = ["server", "metric", "before", "after", "change", "noise", "p"].map(String::from).to_vec();
    let row = |line: &Line| {
        let one = &line.comparison;
        vec![
            line.server.clone(),
            line.metric.clone(),
            summary(&one.before),
            summary(&one.after),
            if one.differs { change(one) } else { "~".into() },
            format!("{:.0} %", one.noise * 100.0),
            format!("{:.3}", one.p),
        ]
    };
    let differs = rounds.lines.iter().filter(|line| line.comparison.differs).count();
    let mut notes = rounds.notes.clone();
    if !all {
        notes.insert(0, format!("{differs} of {} cells differ; --all shows the others too", rounds.lines.len()));
    }
    let shown = rounds.lines.iter().filter(|line| all || line.comparison.differs);
    Table {
        title: format!("{} -> {}: medians [95 % interval]", rounds.before, rounds.after),
        columns,
        rows: shown.map(row).collect(),
        notes,
        ..Table::default()
    }
}

fn summary(summary: &Summary) -> String {
    let interval = summary.interval.map_or(String::new(), |(low, high)| format!(" [{}, {}]", number(low), number(high)));
    number(summary.median) + &interval
}

fn number(value: f64) -> String {
    if value.is_finite() { significant(value) } else { "∞".into() }
}

fn change(comparison: &Comparison) -> String {
    match comparison.change {
        Some(change) => format!("{:+.0} %", change * 100.0),
        None if comparison.after.median.is_infinite() => "not reached any more".into(),
        None => "reached now".into(),
    }
}

/// The overall change by kind of metric: only over cells that both rounds have, and only a summary.
fn means(lines: &[Line]) -> Option<String> {
    let families: BTreeSet<&str> = lines.iter().map(|line| family(&line.metric)).collect();
    let mean = |name: &&str| {
        let of_family = lines.iter().filter(|line| family(&line.metric) == *name);
        let ratios: Vec<f64> = of_family.filter_map(|line| Some(line.comparison.change? + 1.0)).collect();
        geometric_mean(&ratios).map(|mean| format!("{name} x {mean:.2} ({})", ratios.len()))
    };
    let means: Vec<String> = families.iter().filter_map(mean).collect();
    (!means.is_empty()).then(|| {
        format!("geometric mean of the changes, over the cells that both rounds reached (their number): {}; it hides which server changed", means.join(", "))
    })
}

/// What else is different, and what the trials cannot tell.
fn warnings(before: &Round, after: &Round) -> Vec<String> {
    let mut notes = Vec::new();
    let (a, b) = (&before.header, &after.header);
    let mut differences = a.environment.differences(&b.environment);
    let settings = [
        ("placement", a.settings.placement != b.settings.placement),
        ("threads", a.settings.threads != b.settings.threads),
        ("mode", a.settings.mode != b.settings.mode),
        ("blockers", a.settings.blockers != b.settings.blockers),
        ("trials", a.settings.trials != b.settings.trials),
    ];
    differences.extend(settings.into_iter().filter_map(|(name, differs)| differs.then_some(name)));
    if !differences.is_empty() {
        notes.push(format!("warning: the rounds also differ in: {}", differences.join(", ")));
    }
    for entry in &a.servers {
        let other = b.servers.iter().find(|other| other.name == entry.name).and_then(|other| other.receipt.as_ref());
        if let (Some(receipt), Some(other)) = (&entry.receipt, other) {
            let differences = receipt.differences(other);
            if !differences.is_empty() {
                notes.push(format!("warning: {} is another build or has other knobs: {}", entry.name, differences.join(", ")));
            }
        }
    }
    if a.settings.trials.min(b.settings.trials) < 4 {
        notes.push("with fewer than four trials on each side no difference can be shown".into());
    }
    notes
}
