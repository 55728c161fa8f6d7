//! `stallbench tables`: the tables of a round, and the headline spliced into a page.

use crate::cli::Tables;
use crate::filter::{Filter, narrow, takes_metric};
use crate::round::{Header, Round, name_of};
use crate::table::numbers::{Cell, Numbers, Percentile};
use crate::table::{Format, Table, headline, render};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// What stands around the generated part of a page.
const MARKS: (&str, &str) = ("<!-- headline: written by `just splice`, do not edit -->", "<!-- /headline -->");

/// Prints or splices.
pub fn run(arguments: &Tables) -> Result<ExitCode> {
    let name = arguments.round.as_deref();
    if let Some(page) = &arguments.splice {
        let round = Round::open(&super::round_or_newest(name, Header::is_headline)?)?;
        splice(page, &round)?;
        super::print(&format!("{}: headline of {}\n", page.display(), round.folder.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let mut round = Round::open(&super::round_or_newest(name, |header| !header.settings.is_null)?)?;
    narrow(&arguments.shape.filters, &mut round.header.servers)?;
    let (percentile, format) = (arguments.shape.percentile, arguments.shape.format());
    let tables = headline::tables(&round, percentile)?;
    super::print(&match format {
        Format::Json => to_json(&round, &tables, percentile)?,
        Format::Csv => numbers_csv(&round, percentile, &arguments.shape.filters)?,
        Format::Text => round.header.describe(&round.folder) + "\n\n" + &render(&tables, format)?,
        Format::Markdown => render(&tables, format)?,
    });
    Ok(ExitCode::SUCCESS)
}

/// The tables as a person sees them, and every number behind them.
///
/// # Errors
/// A histogram that cannot be read.
pub fn to_json(round: &Round, tables: &[Table], percentile: Percentile) -> Result<String> {
    let numbers = Numbers::of(round, percentile)?;
    let cell = |server: &str, metric: &str, cell: &Cell| json!({ "server": server, "metric": metric, "summary": cell.summary(), "values": cell.values, "invalid": cell.invalid });
    let names = round.header.servers.iter().map(|server| server.name.as_str());
    let cells: Vec<_> =
        names.flat_map(|name| numbers.of_server(name).map(move |(metric, one)| cell(name, metric, one))).collect();
    let tables: serde_json::Value = serde_json::from_str(&render(tables, Format::Json)?)?;
    Ok(serde_json::to_string_pretty(&json!({ "round": round.folder, "tables": tables, "cells": cells }))? + "\n")
}

/// Every number of a round, a line each.
///
/// # Errors
/// A histogram that cannot be read.
pub fn numbers_csv(round: &Round, percentile: Percentile, filters: &[Filter]) -> Result<String> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(["server", "metric", "median", "low", "high", "trials", "invalid"])?;
    let numbers = Numbers::of(round, percentile)?;
    for server in &round.header.servers {
        for (metric, cell) in numbers.of_server(&server.name).filter(|(metric, _)| takes_metric(filters, metric)) {
            let summary = cell.summary();
            let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
            let interval = summary.and_then(|summary| summary.interval);
            csv.write_record([
                server.name.as_str(),
                metric,
                &number(summary.map(|summary| summary.median)),
                &number(interval.map(|interval| interval.0)),
                &number(interval.map(|interval| interval.1)),
                &summary.map_or(0, |summary| summary.trials).to_string(),
                cell.invalid.first().map_or("", String::as_str),
            ])?;
        }
    }
    Ok(String::from_utf8(csv.into_inner().map_err(csv::IntoInnerError::into_error)?)?)
}

fn splice(page: &Path, round: &Round) -> Result<()> {
    if !round.header.settings.experiments.iter().any(|name| name == "collateral") {
        bail!("{} has no headline, since collateral was not measured; name another round", round.folder.display());
    }
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let parts = text.split_once(MARKS.0).and_then(|(before, rest)| Some((before, rest.split_once(MARKS.1)?.1)));
    let (before, after) = parts.with_context(|| format!("{}: has no '{}' ... '{}'", page.display(), MARKS.0, MARKS.1))?;
    let name = name_of(&round.folder);
    let environment = &round.header.environment;
    let source = format!(
        "Round [{name}](bench-results/{name}/README.md): {}, {} cores, Linux {}.",
        environment.processor, environment.cores, environment.kernel
    );
    let table = headline::headline(round)?.to_markdown();
    fs::write(page, format!("{before}{}\n\n{table}\n{source}\n\n{}{after}", MARKS.0, MARKS.1))?;
    Ok(())
}
