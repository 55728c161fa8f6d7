//! A round for pages and programs: its page, its numbers as CSV, its cells as JSON.

use crate::catalog::{Filter, Row, takes_metric};
use crate::metrics::{Cell, Metric, Numbers, Percentile, Role, Value};
use crate::report::{Format, Table, Terminal, render};
use crate::round::{self, Round};
use anyhow::{Context, Result};
use serde_json::{Value as Json, json};
use std::fmt;
use std::fs;

/// Everything that a table has.
const WHOLE: Terminal = Terminal { width: None, has_color: false, wide: true, intervals: true };

/// The tables as a user sees them, and every number behind them.
///
/// # Errors
/// Numbers that JSON cannot hold.
pub fn to_json(round: &Round, tables: &[Table], numbers: &Numbers) -> Result<String> {
    let tables: Json = serde_json::from_str(&render(tables, Format::Json, &WHOLE)?)?;
    let mut cells = Vec::new();
    for row in &round.header.servers {
        for (metric, cell) in numbers.of_server(&row.name) {
            cells.push(json!({
                "server": row.name, "metric": metric.to_string(), "experiment": metric.experiment,
                "summary": cell.summary(), "values": cell.values, "invalid": cell.invalid,
            }));
        }
    }
    Ok(serde_json::to_string_pretty(&json!({ "round": round.folder, "tables": tables, "cells": cells }))? + "\n")
}

/// Every number of a round, a line each. A bound begins with `>=`, and what was not reached is named.
///
/// # Errors
/// Numbers that CSV cannot hold.
pub fn numbers_csv(round: &Round, numbers: &Numbers, filters: &[Filter]) -> Result<String> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(["server", "metric", "median", "low", "high", "trials", "invalid"])?;
    for row in &round.header.servers {
        for (metric, cell) in numbers.of_server(&row.name).filter(|(metric, _)| takes_metric(filters, &metric.to_string())) {
            let summary = cell.summary();
            let value = |value: Option<Value>| value.map_or(String::new(), |value| value.to_string());
            let interval = summary.and_then(|summary| summary.interval);
            csv.write_record([
                row.name.as_str(),
                &metric.to_string(),
                &value(summary.map(|summary| summary.median)),
                &value(interval.map(|interval| interval.0)),
                &value(interval.map(|interval| interval.1)),
                &summary.map_or(0, |summary| summary.trials).to_string(),
                cell.invalid.first().map_or("", String::as_str),
            ])?;
        }
    }
    Ok(String::from_utf8(csv.into_inner().map_err(csv::IntoInnerError::into_error)?)?)
}

/// Writes what follows from the trials: the tables as a page, and every number as CSV.
///
/// # Errors
/// A full disk.
pub fn write_derived(round: &Round) -> Result<()> {
    let header = &round.header;
    let environment = &header.environment;
    let name = round::name_of(&round.folder);
    let numbers = round::numbers(round, Percentile::default())?;
    let mut page = format!(
        "# Round {name}\n\nStarted {}, {}, by `{}`. {} on {} cores, {} MiB, Linux {}{}.\n\nWhat each number means: [METHODOLOGY.md](../../METHODOLOGY.md).\n\n",
        header.started,
        header.commits(),
        header.command.join(" "),
        environment.processor,
        environment.cores,
        environment.memory_mib,
        environment.kernel,
        if environment.is_virtual { ", virtual machine" } else { "" },
    );
    page.push_str(&render(&super::tables(round, &numbers, Percentile::default())?, Format::Markdown, &WHOLE)?);
    let cannot = || format!("cannot write into {}", round.folder.display());
    fs::write(round.folder.join("README.md"), page).with_context(cannot)?;
    let csv = numbers_csv(round, &numbers, &[])?;
    fs::write(round.folder.join("summary.csv"), csv).with_context(cannot)
}

/// A number that a round was to have and has not.
pub struct Hole {
    /// The name of its server.
    pub server: String,
    /// The metric, or the experiment of which every trial failed.
    metric: String,
    why: String,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.server, self.metric, self.why)
    }
}

/// Every cell of the available servers without a valid trial.
///
/// # Errors
/// A histogram that cannot be read.
pub fn holes(round: &Round) -> Result<Vec<Hole>> {
    let numbers = round::numbers(round, Percentile::default())?;
    let mut holes = Vec::new();
    for row in available(round) {
        let mut add = |metric: String, why: Option<&String>| {
            let why = why.map_or("not measured", String::as_str).to_owned();
            holes.push(Hole { server: row.name.clone(), metric, why });
        };
        let whole = round.header.settings.experiments.keys().filter(|name| !row.unsupported.contains_key(*name));
        for name in whole {
            let failures = numbers.failures(&row.name, name);
            if failures.len() >= round.header.settings.trials as usize {
                add(name.clone(), failures.first());
            }
        }
        // A maximum that the driver may have made is left out, but nothing is missing for that.
        let is_compared = |(metric, _): &&(Metric, Cell)| metric.family.role != Role::Detail;
        let mut cells = numbers.of_server(&row.name).filter(is_compared).peekable();
        if cells.peek().is_none() {
            add("in any trial".into(), None);
        }
        for (metric, cell) in cells.filter(|(_, cell)| cell.values.is_empty()) {
            add(metric.to_string(), cell.invalid.first());
        }
    }
    Ok(holes)
}

fn available(round: &Round) -> impl Iterator<Item = &Row> {
    round.header.servers.iter().filter(|row| row.unavailable.is_none())
}

/// Whether every cell of every available server has a valid trial.
///
/// # Errors
/// A histogram that cannot be read.
pub fn is_complete(round: &Round) -> Result<bool> {
    // A round in which nothing could be measured is not complete.
    Ok(available(round).next().is_some() && holes(round)?.is_empty())
}
