//! The harness behind `stallbench`: shows what happens to a service when some of its requests block.

mod catalog;
mod cli;
mod cmd;
mod console;
mod contract;
mod driver;
mod experiment;
mod host;
mod http;
mod process;
mod report;
mod round;
mod selftest;
mod stats;
mod validity;
mod verdict;

use clap::Parser;
use cli::{Cli, Command};
use console::interrupt;
use std::process::ExitCode;

/// Everything went well, but some cells or checks did not.
const SOME_FAILED: u8 = 3;

/// The program `stallbench`.
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        if !error.use_stderr() || error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            error.exit();
        }
        eprintln!("stallbench: {}", common::args::one_line(&error));
        std::process::exit(2);
    });
    // Before any thread narrows its own.
    host::placement::cores();
    let keeps_trials = matches!(cli.command, Command::Bench(_));
    let result = interrupt::install().map_err(Into::into).and_then(|()| run(cli.command));
    result.unwrap_or_else(|error| {
        if error.downcast_ref::<interrupt::Interrupted>().is_some() {
            eprintln!("stallbench: interrupted{}", if keeps_trials { "; trials that were finished are kept" } else { "" });
            return ExitCode::from(130);
        }
        eprintln!("stallbench: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Servers { json } => cmd::servers::run(json),
        Command::Build { filters, allocator } => cmd::build::run(&filters, allocator),
        Command::Serve(arguments) => cmd::serve::run(&arguments),
        Command::Check(arguments) => cmd::check::run(&arguments),
        Command::Drive(arguments) => cmd::drive::run(&arguments),
        Command::Bench(arguments) => cmd::bench::run(&arguments),
        Command::Tables(arguments) => cmd::tables::run(&arguments),
        Command::Compare(arguments) => cmd::compare::run(&arguments),
        Command::Rank(arguments) => cmd::rank::run(&arguments),
    }
}
