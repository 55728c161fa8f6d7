//! `stallbench serve`: becomes the server, so that signals reach it and nothing stands between.

use crate::catalog;
use crate::cli::Serve;
use crate::console::output::say;
use crate::console::progress::Progress;
use crate::host::placement::{Placement, default_threads};
use crate::process::deploy::package;
use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

/// Builds the server if needed, and runs it in place of this process.
///
/// # Errors
/// An unknown server, or one that cannot run here.
pub fn run(arguments: &Serve) -> Result<ExitCode> {
    let server = catalog::find(&catalog::load()?, &arguments.name)?;
    if let Some(missing) = server.missing() {
        bail!("{} cannot run here: {missing}", server.name);
    }
    let state = arguments.knobs.iter().skip_while(|knob| *knob != "--state").nth(1);
    let server = server.with_state(state.map_or("", String::as_str));
    package::build(std::slice::from_ref(&server), &Progress::new(1))?;
    let mut more = vec!["--listen".to_string(), arguments.listen.clone()];
    more.extend_from_slice(&arguments.knobs);
    say(&format!("{}: {}", server.name, server.about));
    let error = package::command(&server, default_threads(Placement::Shared), &more).exec();
    Err(error).with_context(|| format!("cannot run {}", package::binary(&server.program).display()))
}
