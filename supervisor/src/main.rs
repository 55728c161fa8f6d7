//! The `supervisor` command, which uses PM2's command names.

#![forbid(unsafe_code)]

mod cli;
mod command;

use clap::Parser;
use clap::error::ErrorKind;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let line = match cli::Supervisor::try_parse() {
        Ok(line) => line,
        // Nothing was asked for: the help says what can be.
        Err(help) if help.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = help.print();
            return ExitCode::from(2);
        }
        Err(error) if error.use_stderr() => {
            say(&one_line(&error.to_string()));
            return ExitCode::from(2);
        }
        // What was asked for, such as --help.
        Err(text) => return text.print().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
    };
    match command::run(&line.command) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "supervisor: {text}");
}

/// Returns a usage error and its tip in one line, without the usage.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    // Whoever follows clap's advice to pass an option as a value hands one of PM2's to the app, which ignores it.
    let told = lines.map(|line| if line.starts_with("tip: to pass") { "tip: what is for the app goes after --" } else { line });
    let words: Vec<&str> = told.filter(|line| !line.is_empty()).collect();
    format!("{}; see --help", words.join(" ").trim_start_matches("error: ").replace(" tip: ", "; "))
}
