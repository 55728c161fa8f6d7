//! The verbs of the command line, a file each.

pub mod bench;
pub mod build;
pub mod check;
pub mod compare;
pub mod drive;
pub mod rank;
pub mod serve;
pub mod servers;
pub mod tables;

use crate::catalog::root;
use crate::round::{Round, newest, newest_null};
use crate::table::numbers::{Numbers, Percentile};
use crate::verdict::spread::{Spread, null_comparisons};
use anyhow::{Result, bail};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The round that a person names, or the newest.
///
/// # Errors
/// There is none.
pub fn round_or_newest(folder: Option<&Path>) -> Result<PathBuf> {
    folder.map_or_else(|| newest(&root().join("bench-results")), |folder| Ok(folder.to_path_buf()))
}

/// How far identical servers are apart on the machine of this round: by the null round that is named, or by the newest that was made
/// there. Without one, an assumption, and the tables say so.
///
/// # Errors
/// The one that is named is no null round, or cannot be read.
pub fn newest_spread(round: &Round, named: Option<&Path>) -> Result<Spread> {
    let null = match named {
        Some(folder) => Round::open(folder)?,
        None => match newest_null(&root().join("bench-results"), round) {
            Some(null) => null,
            None => return Ok(Spread::default()),
        },
    };
    let comparisons = null_test(&null)?;
    if comparisons.is_empty() {
        bail!("{} is no null round: no server stands in it twice", null.folder.display());
    }
    let name = null.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Spread::from_null(&comparisons, name))
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
