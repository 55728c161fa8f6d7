//! `stallbench serve`: becomes the server, so that signals reach it and nobody stands between.

use crate::catalog;
use crate::cli::Serve;
use crate::console::progress::Progress;
use crate::host::placement::default_threads;
use crate::process::builder;
use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

/// Builds the server if needed, and runs it in place of this process.
pub fn run(arguments: &Serve) -> Result<ExitCode> {
    let server = catalog::find(&catalog::load()?, &arguments.name)?;
    builder::build(std::slice::from_ref(&server), &Progress::new(1))?;
    let mut more = vec!["--listen".to_string(), arguments.listen.clone()];
    more.extend_from_slice(&arguments.knobs);
    eprintln!("{}: {}", server.name, server.about);
    if let Some(missing) = server.missing() {
        bail!("{} cannot run here: {missing}", server.name);
    }
    let error = builder::command(&server, default_threads(), &more).exec();
    Err(error).with_context(|| format!("cannot run {}", builder::binary(&server.program).display()))
}
