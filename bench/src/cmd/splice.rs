//! Tables and pictures inside a page: the harness writes what stands between two marks, so that no number is typed by hand. Each first mark
//! holds the command whose tables follow it.

use super::tables;
use crate::cli::{Cli, Command, Tables};
use crate::console::output::say;
use crate::report::{self, Format};
use crate::round::{Header, Round, name_of};
use anyhow::{Context, Result, bail};
use clap::Parser;
use std::fs;
use std::path::{Path, PathBuf};

/// The marks around the tables of a command, which follows the first.
const TABLES: (&str, &str) = ("<!-- stallbench tables", "<!-- /stallbench -->");
/// The end of a first mark.
const END: &str = "-->";

/// Fills in what the marks of a page ask for.
///
/// # Errors
/// A page without marks; a command that prints nothing.
pub fn page(page: &Path, round: Option<&Path>) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    if !text.contains(TABLES.0) {
        bail!("{}: has no mark '{} ...{END}'", page.display(), TABLES.0);
    }
    let folder = page.parent().unwrap_or(Path::new("."));
    let text = filled(&text, round, folder).with_context(|| page.display().to_string())?;
    fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))?;
    say(&format!("{}: written", page.display()));
    Ok(())
}

/// Writes a table between the marks of its name, `<!-- stallbench NAME -->` and the closing one.
///
/// # Errors
/// A page that cannot be read or written, or without the marks.
pub fn one(page: &Path, name: &str, content: &str) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let mark = format!("<!-- stallbench {name} {END}");
    let parts = text.split_once(&mark).and_then(|(before, from)| Some((before, from.split_once(TABLES.1)?.1)));
    let Some((before, after)) = parts else { bail!("{}: has no marks '{mark}' and '{}'", page.display(), TABLES.1) };
    fs::write(page, format!("{before}{mark}\n\n{content}\n{}{after}", TABLES.1))
        .with_context(|| format!("cannot write {}", page.display()))?;
    say(&format!("{}: written", page.display()));
    Ok(())
}

fn filled(text: &str, round: Option<&Path>, folder: &Path) -> Result<String> {
    let mut written = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once(TABLES.0) {
        let (words, from) = from.split_once(END).with_context(|| format!("a mark is not closed by {END}"))?;
        let (_, after) = from.split_once(TABLES.1).with_context(|| format!("'{}' is missing", TABLES.1))?;
        let mut arguments = parse(words)?;
        // A mark without a round means the newest that a page may quote.
        let is_newest = arguments.round.is_none();
        if is_newest {
            arguments.round = Some(super::round_or_newest(round, Header::is_headline)?);
        }
        let content = if let Some(path) = &arguments.svg {
            let (file, shown): (PathBuf, _) = (folder.join(path), path.display());
            let figure = tables::figure(&arguments)?;
            fs::write(&file, report::svg(&figure)?).with_context(|| format!("cannot write {}", file.display()))?;
            format!("![{}]({shown})\n", figure.title)
        } else {
            tables::shown(&arguments, Format::Markdown)?
        };
        let source = if is_newest && arguments.svg.is_none() { source(&arguments)? } else { String::new() };
        written.push_str(&format!("{before}{}{words}{END}\n\n{content}{source}\n{}", TABLES.0, TABLES.1));
        rest = after;
    }
    Ok(written + rest)
}

fn parse(words: &str) -> Result<Tables> {
    let words = shell_words::split(words).with_context(|| format!("'{}' has an open quote", words.trim()))?;
    let command = ["stallbench".to_owned(), "tables".to_owned()].into_iter().chain(words);
    match Cli::try_parse_from(command).map_err(|error| anyhow::anyhow!(common::args::one_line(&error)))?.command {
        Command::Tables(arguments) => Ok(arguments),
        _ => bail!("the mark does not hold a command that prints tables"),
    }
}

/// The round that a table comes from, as a line below it.
fn source(arguments: &Tables) -> Result<String> {
    let folder = arguments.round.as_deref().context("no round")?;
    let round = Round::open(folder)?;
    let (name, environment) = (name_of(&round.folder), &round.header.environment);
    Ok(format!(
        "\nRound [{name}](bench-results/{name}/README.md): {}, {} cores, Linux {}.\n",
        environment.processor, environment.cores, environment.kernel
    ))
}
