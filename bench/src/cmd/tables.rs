//! `stallbench tables`: the tables of a round, and the headline spliced into a page.

use crate::catalog::root;
use crate::cli::Tables;
use crate::round::{self, Round};
use crate::table::{Table, headline};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// What stands around the generated part of a page.
const MARKS: (&str, &str) = ("<!-- headline: written by `just splice`, do not edit -->", "<!-- /headline -->");

/// Prints or splices.
pub fn run(arguments: &Tables) -> Result<ExitCode> {
    let folder = match &arguments.round {
        Some(folder) => folder.clone(),
        None => round::newest(&root().join("bench-results"))?,
    };
    let round = Round::open(&folder)?;
    if let Some(page) = &arguments.splice {
        splice(page, &round)?;
        super::print(&format!("{}: headline of {}\n", page.display(), folder.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let tables = headline::tables(&round);
    super::print(&match (arguments.json, arguments.markdown) {
        (true, _) => to_json(&tables)?,
        (_, true) => tables.iter().map(|table| table.to_markdown() + "\n").collect(),
        _ => tables.iter().map(|table| table.to_terminal() + "\n").collect(),
    });
    Ok(ExitCode::SUCCESS)
}

/// Tables for a program.
pub fn to_json(tables: &[Table]) -> Result<String> {
    let table = |table: &Table| {
        let row = |row: &Vec<String>| {
            table.columns.iter().cloned().zip(row.iter().cloned().map(Into::into)).collect::<serde_json::Map<_, _>>()
        };
        json!({ "title": table.title, "rows": table.rows.iter().map(row).collect::<Vec<_>>(), "notes": table.notes })
    };
    Ok(serde_json::to_string_pretty(&tables.iter().map(table).collect::<Vec<_>>())? + "\n")
}

fn splice(page: &Path, round: &Round) -> Result<()> {
    if !round.header.settings.experiments.iter().any(|name| name == "collateral") {
        bail!("{} has no headline, since collateral was not measured; name another round", round.folder.display());
    }
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let parts = text.split_once(MARKS.0).and_then(|(before, rest)| Some((before, rest.split_once(MARKS.1)?.1)));
    let (before, after) = parts.with_context(|| format!("{}: has no '{}' ... '{}'", page.display(), MARKS.0, MARKS.1))?;
    let name = round.folder.file_name().unwrap_or_default().to_string_lossy();
    let environment = &round.header.environment;
    let source = format!(
        "Round [{name}](bench-results/{name}/README.md): {}, {} cores, Linux {}.",
        environment.processor, environment.cores, environment.kernel
    );
    let table = headline::headline(round).to_markdown();
    fs::write(page, format!("{before}{}\n\n{table}\n{source}\n\n{}{after}", MARKS.0, MARKS.1))?;
    Ok(())
}
