//! `stallbench rank`: which servers stand out, and which cannot be told apart.

use super::noise;
use crate::catalog::narrow;
use crate::cli::Rank;
use crate::console::output::print;
use crate::metrics::{Metric, Numbers};
use crate::report::{Cell, Column, Format, Line, Quantity, Table, render};
use crate::round::{self, Header, Round};
use crate::verdict::rank::{Place, rank};
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Prints the ranks of a round.
///
/// # Errors
/// A round that cannot be ranked.
pub fn run(arguments: &Rank) -> Result<ExitCode> {
    let mut round = Round::open(&super::round_or_newest(arguments.round.as_deref(), Header::is_headline)?)?;
    narrow(&arguments.shape.filters, &mut round.header.servers)?;
    let folder = round.folder.display();
    if round.header.settings.trials < 4 {
        let trials = round.header.settings.trials;
        bail!("{folder} has {trials} trials of each cell: with fewer than four no two servers can be told apart");
    }
    let percentile = arguments.shape.percentile;
    let numbers = round::numbers(&round, percentile)?;
    let mut criteria: Vec<(String, Metric)> = Vec::new();
    for (one, own) in round.header.settings.experiments() {
        criteria.extend(one.criteria(own, arguments.blockers, percentile)?);
    }
    let (heads, criteria): (Vec<String>, Vec<Metric>) = criteria.into_iter().unzip();
    if criteria.is_empty() {
        bail!("{folder} has no criteria to rank by: collateral was not measured");
    }
    let servers: Vec<&str> = round.header.servers.iter().map(|row| row.name.as_str()).collect();
    let noise = noise::within(&round, None)?;
    let places = rank(&numbers, &servers, &criteria, &noise);
    if places.is_empty() {
        bail!("{folder} has no freeze thresholds beside {}: no cell is valid", arguments.blockers.name());
    }
    let format = arguments.shape.format();
    if format == Format::Json {
        print(&(serde_json::to_string_pretty(&places)? + "\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let table = table(&numbers, &places, (&heads, &criteria), &servers, noise.note());
    let shown = render(std::slice::from_ref(&table), format, &arguments.shape.terminal())?;
    let above = if format == Format::Text { round.header.describe(&round.folder) + "\n\n" } else { String::new() };
    print(&(above + &shown))?;
    Ok(ExitCode::SUCCESS)
}

fn table(
    numbers: &Numbers,
    places: &[Place],
    (heads, criteria): (&[String], &[Metric]),
    servers: &[&str],
    noise: String,
) -> Table {
    let mut columns = vec![Column::number("rank"), Column::words("server")];
    columns.extend(heads.iter().map(Column::number));
    columns.push(Column::words("beaten by, in"));
    let line = |place: &Place| {
        let mut cells = vec![Cell::words(place.rank.to_string()), Cell::words(place.server.clone())];
        cells.extend(criteria.iter().map(|metric| match numbers.summary(&place.server, metric) {
            Some(summary) => {
                Cell::Quantity(Quantity { summary, unit: metric.family.unit, marks: Vec::new(), expected: None, is_felt: false })
            }
            None => Cell::NOTHING,
        }));
        let beaten = place.beaten_by.as_ref().map_or(String::new(), |(winner, metric)| format!("{winner}, {metric}"));
        cells.push(Cell::words(beaten));
        Line { group: None, cells }
    };
    let mut notes = vec!["servers that share a rank: none of them beats another by more than noise".to_owned(), noise];
    let left_out: Vec<&str> = servers.iter().copied().filter(|name| !places.iter().any(|place| place.server == *name)).collect();
    if !left_out.is_empty() {
        notes.push(format!("not ranked, since a criterion has no valid number: {}", left_out.join(", ")));
    }
    Table {
        name: "rank",
        title: "Ranks: by the number of blockers that freezes it, then by the latency beside a few".into(),
        columns,
        lines: places.iter().map(line).collect(),
        notes,
        ..Table::default()
    }
}
