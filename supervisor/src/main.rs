//! The `supervisor` command, which uses PM2's command names.

mod cli;
mod command;

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match command::run(&cli::Supervisor::parse().command) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "supervisor: {error:#}");
            ExitCode::FAILURE
        }
    }
}
