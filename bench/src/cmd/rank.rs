//! `stallbench rank`: which servers stand out, and which cannot be told apart.

use super::{newest_spread, print};
use crate::cli::Rank;
use crate::report::headline::Report;
use crate::report::numbers::{LIMITS_MS, Numbers};
use crate::report::{Format, Table, count, ms, render};
use crate::round::filter::narrow;
use crate::round::{Header, Round};
use crate::verdict::rank::{Place, rank};
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Number of blockers whose latency decides where the freeze thresholds do not.
const LAST_AT: usize = 4;

/// Prints the ranks of a round.
pub fn run(arguments: &Rank) -> Result<ExitCode> {
    let mut round = Round::open(&super::round_or_newest(arguments.round.as_deref(), Header::is_headline)?)?;
    narrow(&arguments.shape.filters, &mut round.header.servers)?;
    if round.header.settings.trials < 4 {
        bail!(
            "{} has {} trials of each cell: with fewer than four nothing can be told apart",
            round.folder.display(),
            round.header.settings.trials
        );
    }
    let numbers = Numbers::of(&round, arguments.shape.percentile)?;
    let kind = arguments.blockers.name();
    let mut criteria: Vec<String> = LIMITS_MS[..2].iter().map(|limit| format!("freeze_k[{kind},{limit}]")).collect();
    criteria.push(arguments.shape.percentile.metric(kind, LAST_AT));
    let spread = newest_spread(&round, None)?;
    let servers: Vec<&str> = round.header.servers.iter().map(|server| server.name.as_str()).collect();
    let places = rank(&numbers, &servers, &criteria, &spread);
    if places.is_empty() {
        bail!("{} has no freeze thresholds: collateral was not measured, or no cell is valid", round.folder.display());
    }
    let format = arguments.shape.format();
    let table = table(&round, numbers, &places, &criteria, &servers, spread.note());
    let shown = || render(std::slice::from_ref(&table), format);
    print(&match format {
        Format::Json => serde_json::to_string_pretty(&places)? + "\n",
        Format::Text => round.header.describe(&round.folder) + "\n\n" + &shown()?,
        _ => shown()?,
    });
    Ok(ExitCode::SUCCESS)
}

fn table(round: &Round, numbers: Numbers, places: &[Place], criteria: &[String], servers: &[&str], noise: String) -> Table {
    let report = Report::new(round, numbers);
    let mut columns = vec!["server".to_string(), "rank".into()];
    columns.extend(criteria.iter().cloned());
    columns.push("differs from the group above in".into());
    let row = |place: &Place| {
        let mut row = vec![place.server.clone(), place.rank.to_string()];
        let format = |metric: &str| if metric.starts_with("freeze") { count } else { ms };
        row.extend(criteria.iter().map(|metric| report.show(&place.server, metric, "collateral", format(metric))));
        row.push(place.differs_in.clone().unwrap_or_default());
        row
    };
    let mut notes =
        vec!["servers that share a rank cannot be told apart from the best of their group by these trials".to_owned(), noise];
    let left_out: Vec<&str> = servers.iter().copied().filter(|name| !places.iter().any(|place| place.server == *name)).collect();
    if !left_out.is_empty() {
        notes.push(format!("not ranked, since a criterion has no valid number: {}", left_out.join(", ")));
    }
    Table {
        title: "Ranks: by the number of blockers that freezes it, then by the latency beside a few".into(),
        columns,
        rows: places.iter().map(row).collect(),
        notes,
        ..Table::default()
    }
}
