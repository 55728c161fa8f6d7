//! The commands. Most send a request to the daemon; the others read files.

mod apply;
mod client;
mod dotenv;
mod ecosystem;
mod events;
mod growing;
mod import;
mod list;
mod logs;
mod metrics;
mod monit;
mod names;
mod places;
mod pm2;
mod readings;
mod resolve;
mod run;
mod show;
mod start;
mod startup;

use crate::cli::{self, Change, Command, Reload, SendSignal, Targets};
use anyhow::{Context, Result};
use clap::CommandFactory;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;
use supervisor::control::{Pace, Request};

/// Time between attempts to write where there was no room.
const ROOM_EVERY: Duration = Duration::from_millis(200);

/// Prints text. A reader that has gone away, such as `head`, is not an error.
///
/// # Errors
/// Fails if standard output is full or closed.
fn print(text: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Prints what goes on for as long as somebody reads it: without a reader, the program ends.
///
/// # Errors
/// Fails if standard output is full or closed.
fn stream(text: &[u8]) -> Result<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.context("cannot write to standard output"),
    }
}

/// Prints what must not be lost: where there is no room for it, it waits until there is. Notes how much was printed each time.
///
/// # Errors
/// Fails if nobody reads it.
fn patient(text: &[u8], note: impl Fn(usize)) -> Result<()> {
    let output = std::io::stdout();
    let mut rest = text;
    let mut is_told = false;
    while !rest.is_empty() {
        match rustix::io::write(&output, rest) {
            Ok(written) => {
                rest = &rest[written..];
                note(written);
            }
            Err(Errno::INTR) => {}
            // Whoever started this program has made it so.
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&output, PollFlags::OUT)], None)),
            Err(why @ (Errno::NOSPC | Errno::DQUOT)) => {
                if !std::mem::replace(&mut is_told, true) {
                    remark(&format!("cannot write to standard output: {why}; make room, and the logs go on"));
                }
                // No event tells that there is room.
                std::thread::sleep(ROOM_EVERY);
            }
            Err(why) => return Err(why).context("cannot write to standard output"),
        }
    }
    Ok(())
}

/// Prints a remark. Without anybody to read it, there is nothing to do about it.
fn remark(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Runs a command.
///
/// # Errors
/// Fails with one line that says what failed, why, and what to do.
pub fn run(command: &Command) -> Result<ExitCode> {
    let environment = |update: bool| update.then(|| std::env::vars_os().collect());
    match command {
        Command::Start(start) => start::run(start)?,
        Command::Apply(apply) => apply::run(apply)?,
        Command::Stop(Targets { targets }) => client::ask_each(targets, Request::Stop)?,
        Command::Delete(Targets { targets }) => client::ask_each(targets, Request::Delete)?,
        Command::Restart(Change { targets, update_env }) => {
            client::ask_each(targets, |target| Request::Restart(target, environment(*update_env)))?;
        }
        Command::Reload(Reload { change: Change { targets, update_env }, parallel, canary, canary_for }) => {
            let canary_ms = canary.then(|| u64::try_from(canary_for.as_millis()).unwrap_or(u64::MAX));
            let pace = Pace { parallel: *parallel, canary_ms };
            client::ask_each(targets, |target| Request::Reload(target, environment(*update_env), pace))?;
        }
        Command::Scale(scale) => client::ask(&Request::Scale(scale.name.clone(), scale.size))?,
        Command::Flush(flush) => client::ask(&Request::Flush(flush.target.clone()))?,
        Command::Reset(Targets { targets }) => client::ask_each(targets, Request::Reset)?,
        Command::SendSignal(SendSignal { signal, targets }) => {
            client::ask_each(targets, |target| Request::Signal(target, *signal))?;
        }
        Command::Env(env) => show::environment(env)?,
        Command::Pid(pid) => show::pids(&pid.target)?,
        Command::Ping => {
            client::begin()?;
            let own = client::own()?;
            print(&own.map_or_else(String::new, |own| format!("pong: keeper {}, daemon {}\n", own.keeper, own.daemon)))?;
        }
        Command::Completion(completion) => {
            let mut script = Vec::new();
            clap_complete::generate(completion.shell, &mut cli::Supervisor::command(), "supervisor", &mut script);
            print(&String::from_utf8_lossy(&script))?;
        }
        Command::ReloadLogs => client::ask(&Request::ReloadLogs)?,
        Command::Save(save) => client::save(save.force)?,
        Command::Resurrect(resurrect) => {
            client::begin()?;
            client::ask(&Request::Resurrect { is_boot: resurrect.boot })?;
        }
        Command::Update => client::update()?,
        Command::Kill => client::kill()?,
        Command::List(output) => list::run(output)?,
        Command::Show(show) => show::run(show)?,
        Command::Logs(logs) => logs::run(logs)?,
        Command::Monit => monit::run()?,
        Command::Events(events) => events::run(events)?,
        Command::Metrics(metrics) => metrics::run(metrics)?,
        Command::Run(run) => return run::run(run),
        Command::Import(import) => import::run(import)?,
        Command::Startup => startup::run()?,
        Command::Unstartup => startup::undo()?,
    }
    Ok(ExitCode::SUCCESS)
}
