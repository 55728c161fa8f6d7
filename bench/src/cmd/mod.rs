//! The verbs of the command line, a file each.

pub mod bench;
pub mod build;
pub mod check;
pub mod compare;
pub mod drive;
pub mod own;
pub mod rank;
pub mod serve;
pub mod servers;
mod splice;
pub mod tables;

use crate::catalog::root;
use crate::report::numbers::{Numbers, Percentile};
use crate::round::{self, Header, Round};
use crate::verdict::spread::{Spread, null_comparisons};
use anyhow::{Result, bail};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The round that a person names, or the newest of a kind.
///
/// # Errors
/// There is none.
pub fn round_or_newest(name: Option<&Path>, is_wanted: impl Fn(&Header) -> bool) -> Result<PathBuf> {
    let base = root().join("bench-results");
    name.map_or_else(|| round::newest(&base, is_wanted), |name| round::find(&base, name))
}

/// How far identical servers are apart on the machine of this round: by the null round that is named, or by the newest that was made
/// there. Without one, an assumption, and the tables say so.
///
/// # Errors
/// The one that is named is no null round, or cannot be read.
pub fn newest_spread(round: &Round, named: Option<&Path>) -> Result<Spread> {
    let base = root().join("bench-results");
    if let Some(name) = named {
        return spread_of(&round::find(&base, name)?);
    }
    let Some(folder) = round::newest_null(&base, round) else { return Ok(Spread::default()) };
    // A null round that is broken is no reason not to look at others.
    Ok(spread_of(&folder).unwrap_or_else(|error| {
        eprintln!("stallbench: {error:#}; going on without it");
        Spread::default()
    }))
}

fn spread_of(folder: &Path) -> Result<Spread> {
    let comparisons = null_test(&Round::open(folder)?)?;
    if comparisons.is_empty() {
        bail!("{} is no null round: no server stands in it twice", folder.display());
    }
    Ok(Spread::from_null(&comparisons, round::name_of(folder)))
}

/// Every server of a null round against itself.
///
/// # Errors
/// A histogram that cannot be read.
pub fn null_test(null: &Round) -> Result<Vec<crate::verdict::spread::NullComparison>> {
    let numbers = Numbers::of(null, Percentile::default())?;
    let servers: Vec<&str> = null.header.servers.iter().map(|server| server.name.as_str()).collect();
    Ok(null_comparisons(&numbers, &servers, crate::verdict::spread::BATCH))
}

/// Prints to stdout; a reader that has gone away, such as `head`, is no error.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
