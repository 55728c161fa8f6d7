//! `stallbench compare`: which numbers of one round differ from another's by more than noise.

use crate::round::Round;
use crate::stats::{discoveries, mann_whitney};
use crate::table::numbers::Numbers;
use crate::table::{Table, significant};
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::ExitCode;

/// Share of false discoveries over a table.
const RATE: f64 = 0.05;
/// Smaller changes are not called changes, however sure: one machine's days differ by as much.
const LEAST_CHANGE: f64 = 0.05;
/// Metrics that are compared, and those left out because they only repeat others.
const COMPARED: [&str; 8] = ["p99_ms", "fresh_max_ms", "first_ms", "last_ms", "cpu_us", "per_s", "idle_pss_mib", "ready_ms"];

struct Line {
    server: String,
    metric: String,
    before: f64,
    after: f64,
    p: f64,
    interval: Option<(f64, f64)>,
}

/// Compares each further round to the first.
pub fn run(folders: &[PathBuf], json: bool) -> Result<ExitCode> {
    let rounds: Vec<Round> = folders.iter().map(|folder| Round::open(folder)).collect::<Result<_>>()?;
    let mut tables = Vec::new();
    for other in &rounds[1..] {
        tables.push(compare(&rounds[0], other)?);
    }
    let text =
        if json { super::tables::to_json(&tables)? } else { tables.iter().map(|table| table.to_terminal() + "\n").collect() };
    super::print(&text);
    Ok(ExitCode::SUCCESS)
}

fn compare(before: &Round, after: &Round) -> Result<Table> {
    let lines = lines(before, after);
    if lines.is_empty() {
        bail!("{} and {} have no server and metric in common", before.folder.display(), after.folder.display());
    }
    let p_values: Vec<f64> = lines.iter().map(|line| line.p).collect();
    let is_discovery = discoveries(&p_values, RATE);
    let rows = lines.iter().zip(is_discovery).map(|(line, is_discovery)| row(line, is_discovery)).collect();
    let columns = ["server", "metric", "before", "after", "95 % of after", "change", "p"].map(String::from).to_vec();
    let title = format!("{} -> {}", before.folder.display(), after.folder.display());
    Ok(Table { title, columns, rows, notes: warnings(before, after) })
}

fn lines(before: &Round, after: &Round) -> Vec<Line> {
    let (old, new) = (Numbers::of(before), Numbers::of(after));
    let mut lines = Vec::new();
    for server in before.header.servers.iter().map(|entry| &entry.name) {
        for (metric, cell) in old.of_server(server) {
            let name = metric.split('[').next().unwrap_or_default();
            let values = new.values(server, metric);
            if !COMPARED.contains(&name) || values.is_empty() || cell.values.is_empty() {
                continue;
            }
            let (Some(a), Some(b)) = (cell.summary(), crate::stats::summarize(values)) else { continue };
            lines.push(Line {
                server: server.clone(),
                metric: metric.clone(),
                before: a.median,
                after: b.median,
                p: mann_whitney(&cell.values, values),
                interval: b.interval,
            });
        }
    }
    lines
}

fn row(line: &Line, is_discovery: bool) -> Vec<String> {
    let change = line.after / line.before - 1.0;
    let differs = is_discovery && (change.abs() >= LEAST_CHANGE || !change.is_finite());
    let interval = line.interval.map_or("–".into(), |(low, high)| format!("[{}, {}]", number(low), number(high)));
    let change = if differs { format!("{:+.0} %", change * 100.0) } else { "~".into() };
    vec![
        line.server.clone(),
        line.metric.clone(),
        number(line.before),
        number(line.after),
        interval,
        change,
        format!("{:.3}", line.p),
    ]
}

fn number(value: f64) -> String {
    if value.is_finite() { significant(value) } else { "not reached".into() }
}

/// What else is different, and what the trials cannot tell.
fn warnings(before: &Round, after: &Round) -> Vec<String> {
    let mut notes = Vec::new();
    let (a, b) = (&before.header, &after.header);
    let mut differences = a.environment.differences(&b.environment);
    if a.settings.placement != b.settings.placement {
        differences.push("placement");
    }
    if a.settings.threads != b.settings.threads {
        differences.push("threads");
    }
    if !differences.is_empty() {
        notes.push(format!("warning: the rounds also differ in: {}", differences.join(", ")));
    }
    for entry in &a.servers {
        let other = b.servers.iter().find(|other| other.name == entry.name).and_then(|other| other.receipt.as_ref());
        if let (Some(receipt), Some(other)) = (&entry.receipt, other)
            && receipt != other
        {
            notes.push(format!("warning: {} has another receipt (build or knobs)", entry.name));
        }
    }
    if a.settings.trials.min(b.settings.trials) < 4 {
        notes.push("with fewer than four trials on each side no difference can be shown".into());
    }
    notes
}
