//! A user's own server: started by the user's command, or running already.

use super::package::{binary, in_place};
use crate::catalog::{Foreign, Program, Server};
use crate::console::usage::refuse;
use crate::http::Url;
use crate::process::own::wait_until_up;
use crate::process::{Running, Start};
use anyhow::{Context, Result, bail};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

/// The place in a command where its port goes.
const PORT: &str = "{port}";

/// A fresh process that listens at a free port.
///
/// # Errors
/// It does not get ready.
pub fn start(server: &Server, start: &Start) -> Result<Running> {
    match &server.program {
        Program::Address(address) => Running::elsewhere(Url::parse(address)?.resolve()?),
        Program::Shell(line) => at_free_port(server, start, |port| shell(&line.replace(PORT, &port))),
        Program::Foreign(foreign) => at_free_port(server, start, |port| command(foreign, &server.args, &port)),
        Program::Package(_) => bail!("{} is a package of the workspace, which keeps the contract", server.name),
    }
}

/// Waits for a service that is running already, should it be down, and returns for how long it was, or `None` if it still is; `is_down` is told that at once.
///
/// # Errors
/// An interrupt; an address that is none.
pub fn wait(server: &Server, is_down: impl FnOnce()) -> Result<Option<Duration>> {
    let Program::Address(address) = &server.program else { return Ok(Some(Duration::ZERO)) };
    wait_until_up(&Url::parse(address)?, is_down)
}

/// The command or address, as the user wrote it.
pub fn describe(server: &Server) -> String {
    match &server.program {
        Program::Address(text) | Program::Shell(text) => text.clone(),
        Program::Foreign(foreign) => [foreign.command.as_slice(), &server.args].concat().join(" "),
        Program::Package(build) => build.package.clone(),
    }
}

/// Refuses a command that does not say where its port goes, or says it as a shell would: `$41234` is no port.
///
/// # Errors
/// It does not.
pub fn check(server: &Server) -> Result<()> {
    let line = describe(server);
    if line.contains("${port}") {
        refuse!("'{line}' names a variable of the shell: write {PORT} without $");
    }
    if !matches!(server.program, Program::Address(_)) && !line.contains(PORT) {
        refuse!("'{line}' does not say where its port goes: write {PORT} in its place");
    }
    Ok(())
}

fn at_free_port(server: &Server, start: &Start, command: impl Fn(String) -> Command) -> Result<Running> {
    // Nobody holds it until the server binds it; the system does not give it out again so soon.
    let port = TcpListener::bind("127.0.0.1:0").context("no free port")?.local_addr()?.port();
    Running::own(command(port.to_string()), &server.name, port, start.cores)
}

fn shell(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]);
    command
}

fn command(foreign: &Foreign, arguments: &[String], port: &str) -> Command {
    let in_place = |word: &String| in_place(word).replace(PORT, port);
    let mut command = Command::new(binary(&Program::Foreign(foreign.clone())));
    command.current_dir(&foreign.folder).args(foreign.command[1..].iter().chain(arguments).map(in_place));
    command
}
