//! `stallbench start`: hands a server to the supervisor, which keeps it as a cluster.

use crate::catalog::{self, Server};
use crate::cli::Start;
use crate::console::progress::Progress;
use crate::host::placement::{Placement, default_threads};
use crate::process::deploy::package;
use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Where it listens unless told otherwise.
const LISTEN: &str = "127.0.0.1:8080";

/// Builds the server and the supervisor if needed, and becomes `supervisor start`.
///
/// # Errors
/// An unknown server, one that cannot run here, or one that opens its own listener.
pub fn run(arguments: &Start) -> Result<ExitCode> {
    let server = catalog::find(&catalog::load()?, &arguments.name)?;
    if let Some(missing) = server.missing() {
        bail!("{} cannot run here: {missing}", server.name);
    }
    if let Some(reason) = server.unsupported.get("inherited-listener") {
        bail!("{} cannot use a listener of the supervisor: {reason}", server.name);
    }
    package::build(std::slice::from_ref(&server), &Progress::new(1))?;
    package::build_supervisor()?;
    let error = command(&server, &arguments.options).exec();
    Err(error).with_context(|| format!("cannot run {}", package::supervisor().display()))
}

/// The command line of the supervisor; what follows `--` goes to the server.
fn command(server: &Server, options: &[String]) -> Command {
    let (options, knobs) = match options.iter().position(|word| word == "--") {
        Some(end) => (&options[..end], &options[end + 1..]),
        None => (options, &[][..]),
    };
    let has = |long: &str, short: &str| {
        options.iter().any(|word| word.starts_with(long) || !short.is_empty() && word.starts_with(short))
    };
    let program = package::command(server, default_threads(Placement::Shared), knobs);
    let mut command = Command::new(package::supervisor());
    command.arg("start").arg(program.get_program()).args(options);
    if !has("--name", "-n") {
        command.args(["--name", &server.name]);
    }
    if !has("--listen", "") {
        command.args(["--listen", LISTEN]);
    }
    command.arg("--").args(program.get_args());
    command
}
