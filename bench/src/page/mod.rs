//! The report of a round: one HTML file, opened from disk. The page itself is built in `report/`; this room fills in the numbers.

mod data;
mod moments;
mod opening;
mod tables;
#[cfg(test)]
mod verdicts;

use crate::metrics::{Numbers, Percentile};
use crate::report::svg;
use crate::round::{Round, name_of};
use crate::summary::{self, comparison::Comparison};
use crate::verdict::noise::Noise;
use anyhow::{Context, Result, bail};
use data::Page;
use std::fs;
use std::path::{Path, PathBuf};

/// The name of the report in the folder of its round.
pub const NAME: &str = "report.html";
/// The page without numbers, as `npm run build` in `report/` makes it.
const SHELL: &str = include_str!("../../../report/dist/report.html");
/// The place for the numbers.
const HOLE: &str = "<!-- numbers -->";

/// Another round beside it, and what differs.
pub struct Beside<'b> {
    /// The other round.
    pub round: &'b Round,
    /// Its numbers.
    pub numbers: &'b Numbers,
    /// The comparison of the two.
    pub comparison: Comparison,
}

/// The report of a round as HTML.
///
/// # Errors
/// A round without numbers, or one that cannot be read.
pub fn html(round: &Round, numbers: &Numbers, noise: &Noise, beside: Option<&Beside<'_>>) -> Result<String> {
    if numbers.servers().next().is_none() {
        bail!("{} has no trial yet: nothing can be shown", round.folder.display());
    }
    let page = Page::of(round, numbers, noise, beside)?;
    // `<` may end a script, so it stands as an escape, which JSON allows in all strings.
    let json = serde_json::to_string(&page)?.replace('<', "\\u003c");
    let (before, after) = SHELL.split_once(HOLE).context("the page has no place for numbers")?;
    Ok(format!("{before}<script id=\"numbers\" type=\"application/json\">{json}</script>{after}"))
}

/// Writes the report, and its figures as SVG, into the folder of the round.
///
/// # Errors
/// As for [`html`], and a full disk.
pub fn write(round: &Round, numbers: &Numbers, noise: &Noise) -> Result<PathBuf> {
    let path = round.folder.join(NAME);
    write_to(&path, &html(round, numbers, noise, None)?)?;
    for mut figure in summary::figures(round, numbers, Percentile::default())? {
        let shown = opening::shown(round, figure.series.iter().map(|line| line.name.as_str()));
        figure.series.retain(|line| shown.contains(&line.name));
        write_to(&round.folder.join(format!("{}.svg", figure.name)), &svg(&figure)?)?;
    }
    Ok(path)
}

/// Writes a file at once, or not at all.
///
/// # Errors
/// A full disk, with the name of the file.
pub fn write_to(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    let written = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // On a full disk, a part of it would be in the way of all else.
        let _ = fs::remove_file(&new);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// A round's name on a page.
fn title(round: &Round) -> String {
    name_of(&round.folder)
}
