//! `stallbench build`: each package by itself.

use crate::catalog::{self, Allocator};
use crate::console::output::print;
use crate::console::progress::Progress;
use crate::process::deploy::package;
use anyhow::Result;
use std::process::ExitCode;

/// Builds the servers that the filters match.
///
/// # Errors
/// One that does not build.
pub fn run(filters: &[String], allocator: Allocator) -> Result<ExitCode> {
    let servers = catalog::with_allocators(catalog::select(catalog::load()?, filters)?, allocator);
    let progress = Progress::new(package::programs(&servers));
    package::build(&servers, &progress)?;
    drop(progress);
    print(&format!("{} servers are built\n", servers.len()))?;
    Ok(ExitCode::SUCCESS)
}
