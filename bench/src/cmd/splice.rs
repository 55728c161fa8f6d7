//! Tables inside a page: what stands between two marks is written by the harness, so that no number is typed by hand.
//!
//! A page may have one headline, of the newest round that is one, and any number of tables whose first mark says which: the command that prints
//! them.

use crate::cli::{Cli, Command};
use crate::report::{Format, headline};
use crate::round::{Header, Round, name_of};
use anyhow::{Context, Result, bail};
use clap::Parser;
use std::fs;
use std::path::Path;

/// What stands around the headline.
const HEADLINE: (&str, &str) = ("<!-- headline: written by `just splice`, do not edit -->", "<!-- /headline -->");
/// What stands around the tables of a command, which follows the first.
const TABLES: (&str, &str) = ("<!-- stallbench tables ", "<!-- /stallbench -->");

/// Writes all that the marks of a page ask for.
///
/// # Errors
/// A page without marks; a command that prints nothing.
pub fn page(page: &Path, round: Option<&Path>) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    if !text.contains(HEADLINE.0) && !text.contains(TABLES.0) {
        bail!("{}: has neither '{}' nor '{}...'", page.display(), HEADLINE.0, TABLES.0);
    }
    let text = with_headline(&text, round).with_context(|| page.display().to_string())?;
    let text = with_tables(&text).with_context(|| page.display().to_string())?;
    fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))?;
    super::print(&format!("{}: written\n", page.display()));
    Ok(())
}

fn with_headline(text: &str, round: Option<&Path>) -> Result<String> {
    let Some((before, rest)) = text.split_once(HEADLINE.0) else { return Ok(text.into()) };
    let (_, after) = rest.split_once(HEADLINE.1).with_context(|| format!("'{}' is missing", HEADLINE.1))?;
    let round = Round::open(&super::round_or_newest(round, Header::is_headline)?)?;
    if !round.header.settings.experiments.iter().any(|name| name == "collateral") {
        bail!("{} has no headline, since collateral was not measured; name another round", round.folder.display());
    }
    let (name, environment) = (name_of(&round.folder), &round.header.environment);
    let source = format!(
        "Round [{name}](bench-results/{name}/README.md): {}, {} cores, Linux {}.",
        environment.processor, environment.cores, environment.kernel
    );
    let table = headline::headline(&round)?.to_markdown();
    Ok(format!("{before}{}\n\n{table}\n{source}\n\n{}{after}", HEADLINE.0, HEADLINE.1))
}

fn with_tables(text: &str) -> Result<String> {
    let mut written = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once(TABLES.0) {
        let (words, from) = from.split_once(" -->").context("a mark is not closed by -->")?;
        let (_, after) = from.split_once(TABLES.1).with_context(|| format!("'{}' is missing", TABLES.1))?;
        let command = ["stallbench", "tables"].into_iter().chain(words.split_whitespace());
        let Command::Tables(arguments) =
            Cli::try_parse_from(command).map_err(|error| anyhow::anyhow!(common::args::one_line(&error)))?.command
        else {
            bail!("'{words}' is no command that prints tables");
        };
        let tables = super::tables::shown(&arguments, Format::Markdown)?;
        written.push_str(&format!("{before}{}{words} -->\n\n{tables}{}", TABLES.0, TABLES.1));
        rest = after;
    }
    Ok(written + rest)
}
