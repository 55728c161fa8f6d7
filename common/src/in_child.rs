//! Tries something in a child process, so that this one keeps nothing of it but the outcome.

use crate::say;
use nix::libc;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use std::io::{Read, Write};

/// Runs `attempt` in a child. This process must have a single thread.
///
/// # Errors
/// Returns the child's error, or that of the system.
pub(crate) fn check(attempt: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let (mut ours, mut theirs) = std::io::pipe().map_err(|error| format!("no pipe: {error}"))?;
    // SAFETY: this process has a single thread, so the child may run any code.
    match unsafe { fork() }.map_err(|error| format!("no child process: {}", error.desc()))? {
        ForkResult::Child => {
            let outcome = attempt().map_or_else(|error| error, |()| DONE.to_owned());
            if let Err(error) = theirs.write_all(outcome.as_bytes()) {
                say!("cannot tell the outcome: {error}");
            }
            // SAFETY: ends the process at once, without running what the parent has registered for its own end.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            let mut outcome = String::new();
            let read = ours.read_to_string(&mut outcome);
            let ended = waitpid(child, None);
            match (read, ended) {
                (Ok(_), Ok(_)) if outcome == DONE => Ok(()),
                (Ok(_), Ok(_)) if !outcome.is_empty() => Err(outcome),
                _ => Err("a process that was to try the settings ended without a word".into()),
            }
        }
    }
}

/// What the child writes if the attempt succeeds; no error has this text.
const DONE: &str = "done";
