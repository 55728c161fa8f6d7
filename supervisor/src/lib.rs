//! The supervisor starts any server of the workspace, or any command, as a cluster. It keeps the cluster alive, shows it,
//! and replaces its processes without clients noticing.
//!
//! Users run `supervisor`, which sends requests to the *daemon* over a Unix socket. `supervisor-keeper` has three roles:
//!
//! - The daemon makes the decisions, in its *core*: it owns the table of apps, and nothing else.
//! - The *keeper* follows the daemon's orders. It starts and reaps the *workers* (the processes of the apps), and holds
//!   listeners, log pipes and log files.
//! - The *launcher* runs between fork and exec of a worker, and then becomes the worker.
//!
//! If the daemon or the keeper dies, the other one restarts it: each holds a copy of every descriptor. `supervisor-keeper` is a
//! separate program so that it stays small.

#![forbid(unsafe_code)]

pub mod control;
pub mod environment;
pub mod files;
pub mod home;
pub mod proc;
pub mod reports;
pub mod selector;
pub mod signals;
pub mod spec;
pub mod user;

mod cgroup;
mod channel;
mod core;
mod daemon;
mod keeper;
mod launch;
mod poll;

pub use daemon::rest;
pub use keeper::rotated;
pub use launch::limits;

use anyhow::Result;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// What `supervisor-keeper version` prints.
const IDENTITY: &str = concat!("supervisor-keeper ", env!("CARGO_PKG_VERSION"));

/// Runs the role given on the command line of `supervisor-keeper`: `keeper`, `adopt` (a keeper that replaces a dead one),
/// `daemon`, or `launch SPEC`. Returns `None` for anything else.
///
/// # Errors
/// Fails on an error from which the role cannot recover.
pub fn play(arguments: impl IntoIterator<Item = OsString>) -> Option<Result<ExitCode>> {
    let mut arguments = arguments.into_iter();
    let role = arguments.next()?;
    Some(match (role.to_str()?, arguments.next()) {
        ("keeper", None) => keeper::begin(),
        ("adopt", None) => keeper::adopt(),
        ("daemon", None) => daemon::run(),
        // Without anybody to read it, there is nothing to do about it.
        ("version", None) => Ok(writeln!(std::io::stdout(), "{IDENTITY}").map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)),
        ("launch", Some(spec)) => Ok(launch::run(Path::new(&spec))),
        _ => return None,
    })
}
