//! `stallbench tables`: the tables of a round.

use super::splice;
use crate::catalog::nearest;
use crate::cli::Tables;
use crate::report::numbers::{Cell, Numbers, Percentile};
use crate::report::{Format, Table, headline, render};
use crate::round::Round;
use crate::round::filter::{Filter, narrow, takes_metric};
use anyhow::{Result, bail};
use serde_json::json;
use std::process::ExitCode;

/// Prints, or writes into a page.
pub fn run(arguments: &Tables) -> Result<ExitCode> {
    if let Some(page) = &arguments.splice {
        splice::page(page, arguments.round.as_deref())?;
        return Ok(ExitCode::SUCCESS);
    }
    super::print(&shown(arguments, arguments.shape.format())?);
    Ok(ExitCode::SUCCESS)
}

/// What the arguments ask for.
///
/// # Errors
/// A round or a table that there is not; filters that leave nothing.
pub fn shown(arguments: &Tables, format: Format) -> Result<String> {
    let mut round = Round::open(&super::round_or_newest(arguments.round.as_deref(), |header| !header.settings.is_null)?)?;
    narrow(&arguments.shape.filters, &mut round.header.servers)?;
    let percentile = arguments.shape.percentile;
    let tables = select(headline::tables(&round, percentile)?, &arguments.tables)?;
    Ok(match format {
        Format::Json => to_json(&round, &tables, percentile)?,
        Format::Csv => numbers_csv(&round, percentile, &arguments.shape.filters)?,
        Format::Text => round.header.describe(&round.folder) + "\n\n" + &render(&tables, format)?,
        Format::Markdown => render(&tables, format)?,
    })
}

fn select(tables: Vec<Table>, names: &[String]) -> Result<Vec<Table>> {
    let known: Vec<&str> = tables.iter().map(|table| table.name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("this round has no table '{unknown}'; {}", nearest(unknown, &known));
    }
    let is_wanted = |table: &Table| names.is_empty() || names.iter().any(|name| name == table.name);
    Ok(tables.into_iter().filter(is_wanted).collect())
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
