//! `stallbench report`: a round as one HTML page.

use super::compare::{self, Wanted};
use super::noise;
use crate::cli::Report;
use crate::console::output::say;
use crate::metrics::{Numbers, Percentile};
use crate::page::{self, Beside};
use crate::round::{self, Round, name_of};
use crate::summary::{self, comparison::only_in_one};
use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;

/// Writes the page, and says where it is.
///
/// # Errors
/// Rounds that cannot be read, have no trial or nothing in common; a full disk.
pub fn run(arguments: &Report) -> Result<ExitCode> {
    let round = Round::open(&super::round_to_show(arguments.round.as_deref())?)?;
    let path = match &arguments.beside {
        None => alone(&round, arguments)?,
        Some(_) => beside(&round, arguments)?,
    };
    say(&format!("{}: written; open it in a browser", path.display()));
    Ok(ExitCode::SUCCESS)
}

/// Writes what follows from the trials at the end of a measurement, and the report; returns a line that says where it is, or why there is none: what
/// was measured is kept all the same. Nothing for a round in which nothing could be measured.
pub fn at_the_end(round: &Round, numbers: &Numbers) -> String {
    let derived = summary::write_derived(round);
    if round.trials.is_empty() && derived.is_ok() {
        return String::new();
    }
    let written = derived.and_then(|()| page::write(round, numbers, &noise::within(round, None)?));
    match written {
        Ok(path) => format!("\nreport: {}", path.display()),
        Err(error) => {
            let folder = round.folder.display();
            format!("\nwarning: {error:#}; the trials are kept, so write it with `stallbench report {folder}`")
        }
    }
}

fn alone(round: &Round, arguments: &Report) -> Result<PathBuf> {
    let numbers = round::numbers(round, Percentile::default())?;
    let noise = noise::within(round, arguments.null.as_deref())?;
    match &arguments.out {
        None => {
            // A full disk may have kept them from being written at the end of the round.
            summary::write_derived(round)?;
            page::write(round, &numbers, &noise)
        }
        Some(path) => {
            page::write_to(path, &page::html(round, &numbers, &noise, None)?)?;
            Ok(path.clone())
        }
    }
}

fn beside(round: &Round, arguments: &Report) -> Result<PathBuf> {
    let other = Round::open(&super::round_or_newest(arguments.beside.as_deref(), |_| true)?)?;
    let [numbers, theirs] = [round, &other].map(|one| round::numbers(one, Percentile::default()));
    let (numbers, theirs) = (numbers?, theirs?);
    let wanted = Wanted { null: arguments.null.as_deref(), ..Wanted::default() };
    let comparison = compare::between((round, &numbers), (&other, &theirs), &wanted, only_in_one(&numbers, &theirs))?;
    let noise = noise::within(round, arguments.null.as_deref())?;
    let html = page::html(round, &numbers, &noise, Some(&Beside { round: &other, numbers: &theirs, comparison }))?;
    let usual = || other.folder.join(format!("report-against-{}.html", name_of(&round.folder)));
    let path = arguments.out.clone().unwrap_or_else(usual);
    page::write_to(&path, &html)?;
    Ok(path)
}
