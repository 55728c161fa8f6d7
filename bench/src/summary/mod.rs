//! A round in tables: the headline first, put together from the columns of its experiments, then each experiment's own tables.

pub mod comparison;
mod export;
pub mod gates;
mod missing;
mod own;
mod power;
mod told;
mod untold;
pub mod workload;

pub use export::{holes, is_complete, numbers_csv, to_json, write_derived};
pub use own::{borne, screen};
pub use told::Told;

use crate::catalog::Row;
use crate::experiment::{self, Column};
use crate::metrics::{Numbers, Percentile};
use crate::report::{self, Cell, Figure, Group, Legend, Standing, Table, Trials, View};
use crate::round::{Outcome, Round, remarks};
use anyhow::Result;

/// The name of the headline among tables.
const HEADLINE: &str = "headline";

/// All tables of a round.
///
/// # Errors
/// Settings that are not those of their experiment.
pub fn tables(round: &Round, numbers: &Numbers, percentile: Percentile) -> Result<Vec<Table>> {
    let view = view(round, numbers, percentile)?;
    let mut tables = Vec::new();
    tables.extend(headline_of(round, &view)?);
    for (one, settings) in round.header.settings.experiments() {
        let mut own = one.tables(settings, &view)?;
        if let Some(first) = own.first_mut() {
            first.notes.extend(view.invalid_trials(one.name()));
        }
        tables.extend(own);
    }
    if round.header.settings.is_null {
        tables.push(power::table(round, numbers));
    }
    Ok(tables)
}

/// The reasons of all invalid trials.
///
/// # Errors
/// Settings that are not those of their experiment.
pub fn invalid(round: &Round, numbers: &Numbers) -> Result<Vec<String>> {
    let view = view(round, numbers, Percentile::default())?;
    Ok(round.header.settings.experiments().flat_map(|(one, _)| view.invalid_trials(one.name())).collect())
}

/// All figures of a round, in the order of a trial's experiments, the lines in the order of its tables.
///
/// # Errors
/// Settings that are not those of their experiment.
pub fn figures(round: &Round, numbers: &Numbers, percentile: Percentile) -> Result<Vec<Figure>> {
    let view = view(round, numbers, percentile)?;
    let mut figures = Vec::new();
    for (one, own) in round.header.settings.experiments() {
        figures.extend(one.figures(own, &view)?);
    }
    Ok(figures)
}

/// The servers of a round in the order of its tables, each with its group.
///
/// # Errors
/// Settings that are not those of their experiment.
pub fn order(round: &Round, numbers: &Numbers, percentile: Percentile) -> Result<Vec<(String, Option<Group>)>> {
    let view = view(round, numbers, percentile)?;
    Ok(view.rows.iter().map(|row| row.name.clone()).zip(view.groups.iter().copied()).collect())
}

/// The rows of a round in the order of its tables, the least harmed first.
fn view<'r>(round: &'r Round, numbers: &'r Numbers, percentile: Percentile) -> Result<View<'r>> {
    let settings = &round.header.settings;
    let mut view = View {
        rows: round.header.servers.iter().collect(),
        groups: vec![None; round.header.servers.len()],
        numbers,
        percentile,
        conditions: &settings.conditions,
        trials: Trials { found: round.trials_found(), planned: settings.trials },
    };
    for (one, own) in settings.experiments() {
        let standing = |row: &&'r Row| one.standing(own, &view, row);
        let standings: Vec<Option<Standing>> = view.rows.iter().map(standing).collect::<Result<_>>()?;
        if standings.iter().all(Option::is_none) {
            continue;
        }
        let unknown = || Standing { group: Group::Unknown, harm: f64::MAX, served: 0.0 };
        let standings = standings.into_iter().map(|standing| standing.unwrap_or_else(unknown));
        let mut order: Vec<(Standing, &Row)> = standings.zip(view.rows.iter().copied()).collect();
        order.sort_by(|(a, one), (b, other)| a.compare(b).then_with(|| one.name.cmp(&other.name)));
        let is_grouped = order.iter().any(|(standing, _)| standing.group != Group::Unknown);
        view.groups = order.iter().map(|(standing, _)| is_grouped.then_some(standing.group)).collect();
        view.rows = order.into_iter().map(|(_, row)| row).collect();
        break;
    }
    Ok(view)
}

fn headline_of(round: &Round, view: &View<'_>) -> Result<Option<Table>> {
    let settings = &round.header.settings;
    let mut title = None;
    let mut columns: Vec<Column> = Vec::new();
    for (one, own) in settings.experiments() {
        // The experiment with a title is what the round is about, so its columns come first.
        let of_title = one.title(own, view)?;
        let own = one.headline(own, view)?;
        let at = if of_title.is_some() { 0 } else { columns.len() };
        columns.splice(at..at, own);
        title = title.or(of_title);
    }
    let Some(title) = title else { return Ok(None) };
    let has_words = view.rows.iter().any(|row| !row.runs_on.is_empty());
    let mut heads: Vec<report::Column> =
        has_words.then(|| report::Column::words("blocking call runs on").wide()).into_iter().collect();
    heads.extend(columns.iter().map(|column| column.column.clone()));
    let threads_head = report::Column::words("threads").wide();
    heads.push(threads_head.explained("those that run handlers / those that may poll I/O, in each process"));
    let mut table = view.table(HEADLINE, title, heads, |row| {
        let mut cells: Vec<Cell> = has_words.then(|| Cell::words(runs_on(row, view.conditions.threads))).into_iter().collect();
        cells.extend(columns.iter().map(|column| (column.cell)(view, row)));
        cells.push(Cell::words(threads(row)));
        cells
    });
    table.notes.extend(own_servers(view));
    table.legend.extend(Legend::of_freezing());
    table.details.extend(settings.left_out.iter().map(|what| format!("left out: {what}")));
    table.details.extend(settled(round));
    table.details.extend(statuses(view));
    table.details.extend(broken(view));
    table.details.extend(remarks(round));
    Ok(Some(table))
}

/// How many trials a round did without.
fn settled(round: &Round) -> Option<String> {
    let width = round.header.settings.settled_width?;
    let count = round.trials.iter().filter(|trial| matches!(trial.outcome, Outcome::Settled)).count();
    let (all, percent) = (round.trials.len(), width * 100.0);
    (count > 0).then(|| {
        format!("{count} of {all} trials were skipped: every compared cell of that server and experiment was settled, its interval within {percent} % of the median")
    })
}

/// The thread that a blocking call runs on, in words.
fn runs_on(row: &Row, threads: usize) -> String {
    row.runs_on.replace("{W}", &threads.to_string())
}

/// Handler threads / threads that may poll I/O, in each process.
fn threads(row: &Row) -> String {
    let short = |threads: &str| threads.replace(" per connection", "/conn");
    let Some(receipt) = &row.receipt else { return "–".into() };
    let (handlers, pollers) = (short(&receipt.handler_threads), short(&receipt.io_threads));
    match receipt.knobs.get("processes").map(String::as_str) {
        Some("1") | None => format!("{handlers} / {pollers}"),
        Some(processes) => format!("{processes} x {handlers} / {pollers}"),
    }
}

/// A user's own servers, in the user's words.
fn own_servers(view: &View<'_>) -> Vec<String> {
    view.rows.iter().filter_map(|row| Some(format!("{}: {}", row.name, row.own.as_ref()?))).collect()
}

/// Remarks of receipts, such as "discontinued".
fn statuses(view: &View<'_>) -> Vec<String> {
    let status = |row: &&Row| {
        let status = row.receipt.as_ref()?.knobs.get("status")?;
        Some(format!("{}: {status}", row.name))
    };
    view.rows.iter().filter_map(status).collect()
}

/// The servers that cannot keep all of the contract, in one line.
fn broken(view: &View<'_>) -> Option<String> {
    // What concerns an experiment stands in its table.
    let is_check = |name: &str| !experiment::ALL.iter().any(|one| one.name() == name);
    let lines = |row: &Row| row.unsupported.keys().filter(|name| is_check(name)).count();
    let each: Vec<String> =
        view.rows.iter().filter(|row| lines(row) > 0).map(|row| format!("{} {}", row.name, lines(row))).collect();
    (!each.is_empty()).then(|| format!("contract checks not met, by server (servers.toml says why): {}", each.join(", ")))
}
