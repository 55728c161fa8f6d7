//! `stallbench build`: each package by itself.

use crate::catalog::{self, Allocator};
use crate::console::progress::Progress;
use crate::process::builder;
use anyhow::Result;
use std::process::ExitCode;

/// Builds the servers that the filters match.
pub fn run(filters: &[String], allocator: Allocator) -> Result<ExitCode> {
    let servers = catalog::with_allocators(catalog::select(catalog::load()?, filters)?, allocator);
    let progress = Progress::new(builder::programs(&servers));
    builder::build(&servers, &progress)?;
    drop(progress);
    super::print(&format!("{} servers are built\n", servers.len()));
    Ok(ExitCode::SUCCESS)
}
