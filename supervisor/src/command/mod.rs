//! What a person types. Most of it is asked of the daemon; the rest is read from files.

mod client;
mod ecosystem;
mod list;
mod logs;
mod monit;
mod resolve;
mod show;
mod start;
mod startup;

use crate::cli::Command;
use crate::daemon::control::Request;
use anyhow::Result;
use std::process::ExitCode;

/// Does it.
///
/// # Errors
/// One line that says what, where, and what to do.
pub fn run(command: &Command) -> Result<ExitCode> {
    let environment = |update: bool| update.then(|| std::env::vars_os().collect());
    match command {
        Command::Start(start) => start::run(start)?,
        Command::Stop(target) => client::ask(&Request::Stop(target.target.clone()))?,
        Command::Restart(change) => client::ask(&Request::Restart(change.target.clone(), environment(change.update_env)))?,
        Command::Reload(change) => client::ask(&Request::Reload(change.target.clone(), environment(change.update_env)))?,
        Command::Delete(target) => client::ask(&Request::Delete(target.target.clone()))?,
        Command::Scale(scale) => client::ask(&Request::Scale(scale.name.clone(), scale.size))?,
        Command::Flush(flush) => client::ask(&Request::Flush(flush.target.clone()))?,
        Command::Save => client::ask(&Request::Save)?,
        Command::Resurrect => {
            client::begin()?;
            client::ask(&Request::Resurrect)?;
        }
        Command::Kill => client::kill()?,
        Command::List(output) => list::run(output)?,
        Command::Show(show) => show::run(show)?,
        Command::Logs(logs) => logs::run(logs)?,
        Command::Monit => monit::run()?,
        Command::Startup => startup::run()?,
    }
    Ok(ExitCode::SUCCESS)
}
