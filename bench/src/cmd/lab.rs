//! `stallbench lab`: becomes the lab, a program of its own that is built when it is asked for.

use crate::console::progress::Progress;
use crate::process::deploy::package;
use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Builds the lab if needed, and runs it in place of this process.
///
/// # Errors
/// It does not build, or cannot be run.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let progress = Progress::new(1);
    progress.say("building the lab (a minute, the first time)");
    let program = package::build_lab()?;
    drop(progress);
    let error = Command::new(&program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}
