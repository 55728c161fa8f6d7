//! The harness behind `stallbench`: shows what happens to a service when some of its requests block.
//!
//! Its rooms, each importing only from those above it: `console` and `host` (the user and the machine), `stats` (arithmetic), `http`, `catalog` (which
//! servers there are), `metrics` (values with units), `load` (what is asked, and what came of it), `process` (a server as a process), `driver` (a load on
//! sockets), `validity`, `measure` (one trial), `report` (tables as values), `experiment` (one file each), `round` (on disk), `verdict` (what differs),
//! `summary` (a round in tables), `page` (a round as HTML), `scale_out` (several hosts), `contract` and `selftest`, `cmd` (the verbs).

mod catalog;
mod cli;
mod cmd;
mod console;
mod contract;
mod driver;
mod experiment;
mod host;
mod http;
mod load;
mod measure;
mod metrics;
mod page;
mod process;
mod report;
mod round;
mod scale_out;
mod selftest;
pub mod stage;
mod stats;
mod summary;
mod validity;
mod verdict;

use clap::Parser;
use cli::{Cli, Command};
use console::output::{self, say};
use console::{interrupt, usage};
use std::io::Write;
use std::process::ExitCode;

/// The program `stallbench`.
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        if error.use_stderr() && error.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            say(&format!("stallbench: {}", common::args::one_line(&error)));
            std::process::exit(error.exit_code());
        }
        // Help, or the version: on a full disk, that is an error too.
        let printed = error.print().and_then(|()| std::io::stdout().flush());
        if let Err(failure) = printed.or_else(output::or_nobody_reads) {
            say(&format!("stallbench: cannot write to standard output: {failure}"));
            std::process::exit(1);
        }
        std::process::exit(error.exit_code());
    });
    if let Some(root) = cli.root.clone() {
        host::tree::set_root(root);
    }
    host::limits::raise();
    // Before any thread narrows its own.
    host::placement::cores();
    let keeps_trials = matches!(cli.command, Command::Bench(_) | Command::Ab(_));
    let result = interrupt::install().map_err(Into::into).and_then(|()| run(cli.command));
    result.unwrap_or_else(|error| {
        if error.downcast_ref::<interrupt::Interrupted>().is_some() {
            say(&format!("stallbench: interrupted{}", if keeps_trials { "; finished trials are kept" } else { "" }));
            return ExitCode::from(interrupt::exit_code());
        }
        say(&format!("stallbench: {error:#}"));
        error.downcast_ref::<usage::Usage>().map_or(ExitCode::FAILURE, |_| ExitCode::from(usage::EXIT_CODE))
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Servers { json, wide } => cmd::servers::run(json, wide),
        Command::Build { filters, allocator } => cmd::build::run(&filters, allocator),
        Command::Serve(arguments) => cmd::serve::run(&arguments),
        Command::Start(arguments) => cmd::start::run(&arguments),
        Command::Check(arguments) => cmd::check::run(&arguments),
        Command::Soak(arguments) => cmd::soak::run(&arguments),
        Command::Syscalls(arguments) => cmd::syscalls::run(&arguments),
        Command::Deploy(arguments) => cmd::deploy::run(&arguments),
        Command::ScaleOut(arguments) => cmd::scale_out::run(&arguments),
        Command::Drive(arguments) => cmd::drive::run(&arguments),
        Command::Import(arguments) => cmd::import::run(&arguments),
        Command::Merge(arguments) => cmd::merge::run(&arguments),
        Command::Bench(arguments) => cmd::bench::run(&arguments),
        Command::Ab(arguments) => cmd::ab::run(&arguments),
        Command::Tables(arguments) => cmd::tables::run(&arguments),
        Command::Compare(arguments) => cmd::compare::run(&arguments),
        Command::Rank(arguments) => cmd::rank::run(&arguments),
        Command::Report(arguments) => cmd::report::run(&arguments),
        Command::Lab { arguments } => cmd::lab::run(&arguments),
    }
}
