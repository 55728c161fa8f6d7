//! The supervisor: starts any server of the workspace, or any command, as a cluster; keeps it alive; shows it; and replaces it without
//! anyone noticing.
//!
//! `supervisor` is what a person types: it asks the *daemon* over a Unix socket. `supervisord` has three roles. The daemon decides: it owns the
//! table of what runs, and nothing else. The *keeper* does what it is told: it starts and reaps the workers, and holds listeners, log pipes and
//! log files. Each of the two starts the other again when it dies, since each holds a copy of every descriptor. Between fork and exec of a worker a
//! process is the *launcher*, which becomes the worker. It is a program of its own so that it stays small.

pub mod control;
pub mod files;
pub mod home;
pub mod proc;
pub mod spec;

mod channel;
mod daemon;
mod keeper;
mod launch;
mod poll;

pub use keeper::rotated;
pub use launch::limits;

use anyhow::Result;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Plays the role that `supervisord` was started in: `keeper`, `adopt` (a keeper in place of one that died), `daemon`, or `launch SPEC`.
/// None if it is none of these.
///
/// # Errors
/// What is beyond repair.
pub fn play(arguments: impl IntoIterator<Item = OsString>) -> Option<Result<ExitCode>> {
    let mut arguments = arguments.into_iter();
    let role = arguments.next()?;
    Some(match (role.to_str()?, arguments.next()) {
        ("keeper", None) => keeper::begin(),
        ("adopt", None) => keeper::adopt(),
        ("daemon", None) => daemon::run(),
        ("launch", Some(spec)) => Ok(launch::run(Path::new(&spec))),
        _ => return None,
    })
}
