//! The verbs of the command line, a file each: they parse, call and print.

pub mod ab;
pub mod bench;
pub mod build;
pub mod check;
pub mod compare;
pub mod deploy;
pub mod drive;
pub mod import;
pub mod lab;
pub mod merge;
mod noise;
mod own;
pub mod rank;
pub mod report;
pub mod scale_out;
pub mod serve;
pub mod servers;
pub mod soak;
mod splice;
pub mod start;
pub mod syscalls;
pub mod tables;

pub use own::single as own_server;

use crate::host::tree;
use crate::round::{self, Header};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Everything went well, but a cell, a check or a gate did not.
pub const SOME_FAILED: u8 = 3;

/// The round that a user names, or the newest of a kind.
///
/// # Errors
/// There is none.
fn round_or_newest(name: Option<&Path>, is_wanted: impl Fn(&Header) -> bool) -> Result<PathBuf> {
    let bases = bases();
    match name {
        Some(name) => round::find(&bases, name),
        None => {
            let found = bases.iter().map(|base| round::newest(base, &is_wanted));
            found.reduce(Result::or).unwrap_or_else(|| round::newest(&tree::recorded(), &is_wanted))
        }
    }
}

/// The round of a name, or the newest one that says something about servers; one that goes on only if none is finished.
fn round_to_show(name: Option<&Path>) -> Result<PathBuf> {
    let says_something = |header: &Header| !header.settings.is_null;
    let finished = round_or_newest(name, |header| says_something(header) && header.finished.is_some());
    finished.or_else(|_| round_or_newest(name, says_something))
}

/// The folders of rounds: around the current directory, and of the checkout.
fn bases() -> Vec<PathBuf> {
    let mut bases = vec![tree::results()];
    if tree::recorded() != bases[0] {
        bases.push(tree::recorded());
    }
    bases
}

fn exit_code(is_well: bool) -> ExitCode {
    if is_well { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) }
}
