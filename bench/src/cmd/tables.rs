//! `stallbench tables`: the tables of a round.

use super::splice;
use crate::catalog::narrow;
use crate::cli::Tables;
use crate::console::hint::nearest;
use crate::console::output::{print, say};
use crate::console::usage::refuse;
use crate::metrics::Numbers;
use crate::report::{self, Figure, Format, Table, render, wrap};
use crate::round::{self, Round};
use crate::summary;
use anyhow::{Context, Result, bail};
use std::fs;
use std::process::ExitCode;

/// Prints, or writes into a page or a picture.
///
/// # Errors
/// A round or a table that does not exist; filters that leave nothing.
pub fn run(arguments: &Tables) -> Result<ExitCode> {
    if let Some(page) = &arguments.splice {
        splice::page(page, arguments.round.as_deref())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = &arguments.svg {
        let svg = report::svg(&figure(arguments)?)?;
        fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
        say(&format!("{}: written", path.display()));
        return Ok(ExitCode::SUCCESS);
    }
    print(&shown(arguments, arguments.shape.format())?)?;
    Ok(ExitCode::SUCCESS)
}

fn open(arguments: &Tables) -> Result<(Round, Numbers)> {
    let mut round = Round::open(&super::round_to_show(arguments.round.as_deref())?)?;
    let filters = &arguments.shape.filters;
    if let Some(metric) = filters.iter().find(|filter| filter.is_about_metrics())
        && arguments.shape.format() != Format::Csv
    {
        refuse!("--filter {metric} narrows the numbers of --csv; choose tables with --table and columns with --columns");
    }
    narrow(filters, &mut round.header.servers)?;
    let numbers = round::numbers(&round, arguments.shape.percentile)?;
    Ok((round, numbers))
}

/// The tables that the arguments ask for, as text.
///
/// # Errors
/// A round, a table or a column that does not exist; filters that leave nothing.
pub fn shown(arguments: &Tables, format: Format) -> Result<String> {
    let (round, numbers) = open(arguments)?;
    let percentile = arguments.shape.percentile;
    let mut tables = select(summary::tables(&round, &numbers, percentile)?, &arguments.tables)?;
    choose_columns(&mut tables, &arguments.columns)?;
    let terminal = arguments.shape.terminal();
    Ok(match format {
        Format::Json => summary::to_json(&round, &tables, &numbers)?,
        Format::Csv => summary::numbers_csv(&round, &numbers, &arguments.shape.filters)?,
        Format::Text => {
            wrap(&round.header.describe(&round.folder), terminal.text_width(), "") + "\n\n" + &render(&tables, format, &terminal)?
        }
        Format::Markdown => render(&tables, format, &terminal)?,
    })
}

/// The figure that the arguments ask for.
///
/// # Errors
/// A round or a figure that does not exist; filters that leave nothing.
pub fn figure(arguments: &Tables) -> Result<Figure> {
    let (round, numbers) = open(arguments)?;
    let figures = summary::figures(&round, &numbers, arguments.shape.percentile)?;
    let known: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
    let Some(first) = known.first() else { bail!("{} has nothing to draw", round.folder.display()) };
    let wanted = arguments.figure.as_deref().unwrap_or(first);
    let Some(at) = known.iter().position(|name| *name == wanted) else {
        refuse!("this round has no figure '{wanted}'; {}", nearest(wanted, &known));
    };
    Ok(figures[at].clone())
}

fn select(tables: Vec<Table>, names: &[String]) -> Result<Vec<Table>> {
    let known: Vec<&str> = tables.iter().map(|table| table.name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        refuse!("this round has no table '{unknown}'; {}", nearest(unknown, &known));
    }
    let is_wanted = |table: &Table| names.is_empty() || names.iter().any(|name| name == table.name);
    Ok(tables.into_iter().filter(is_wanted).collect())
}

/// Keeps the first column and those that are named, in their order.
fn choose_columns(tables: &mut [Table], heads: &[String]) -> Result<()> {
    if heads.is_empty() {
        return Ok(());
    }
    for table in tables {
        let mut chosen = vec![0];
        for head in heads {
            let found = table.columns.iter().position(|column| column.head == *head);
            let known: Vec<&str> = table.columns.iter().map(|column| column.head.as_str()).collect();
            let Some(at) = found else { refuse!("the table {} has no column '{head}'; {}", table.name, nearest(head, &known)) };
            chosen.push(at);
        }
        table.columns = chosen.iter().map(|at| table.columns[*at].clone()).collect();
        for line in &mut table.lines {
            line.cells = chosen.iter().map(|at| line.cells[*at].clone()).collect();
        }
        table.details.clear();
    }
    Ok(())
}
