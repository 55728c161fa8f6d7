//! `supervisor`: starts any server of the workspace, or any command, as a cluster; keeps it alive; shows it; and replaces it
//! without anyone noticing.
//!
//! One binary has four roles. The *command* that a person types asks the *daemon* over a Unix socket. The daemon decides: it owns the
//! table of what runs, and nothing else. The *keeper* does what it is told: it starts and reaps the workers, and holds listeners, log pipes and
//! log files. Each of the two starts the other again when it dies, since each holds a copy of every descriptor. Between
//! fork and exec of a worker a process is the *launcher*, which becomes the worker.

mod channel;
mod cli;
mod command;
mod daemon;
mod home;
mod keeper;
mod launch;
mod poll;
mod proc;
mod spec;

use anyhow::Result;
use clap::Parser;
use std::path::Path;
use std::process::ExitCode;

/// The role that this program was started in by itself. Not parsed as what a person types: what these processes touch, they keep for long.
fn role() -> Option<Result<ExitCode>> {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next()?;
    Some(match (role.to_str()?, arguments.next()) {
        ("keeper", None) => keeper::begin(),
        ("adopt", None) => keeper::adopt(),
        ("daemon", None) => daemon::run(),
        ("launch", Some(spec)) => Ok(launch::run(Path::new(&spec))),
        _ => return None,
    })
}

fn main() -> ExitCode {
    match role().unwrap_or_else(|| command::run(&cli::Supervisor::parse().command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("supervisor: {error:#}");
            ExitCode::FAILURE
        }
    }
}
