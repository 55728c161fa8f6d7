//! What the keeper gets from the process that starts it, and what it starts itself.

use crate::launch::limits;
use anyhow::{Context, Result};
use rustix::fs::Mode;
use rustix::process::{Rlimit, getrlimit, setrlimit, umask};
use signal_hook::consts::{FORBIDDEN, SIGXCPU, SIGXFSZ};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Drops what the first caller's shell has set for itself: its file mode mask, the signals that it ignores, and its limits as far as possible. Each app has those of its own `start`.
pub fn forget_the_caller() -> Result<()> {
    umask(Mode::RWXG | Mode::RWXO);
    for resource in limits() {
        let limit = getrlimit(resource);
        let unlimited = Rlimit { current: None, maximum: None };
        // Only root may raise the hard limit; the soft one can always be raised to it.
        if setrlimit(resource, unlimited).is_err() {
            setrlimit(resource, Rlimit { current: limit.maximum, ..limit })
                .with_context(|| format!("cannot raise the limit {resource:?}"))?;
        }
    }
    // A log that reaches the limit on file sizes is an error like a full disk, not an end.
    for signal in [SIGXFSZ, SIGXCPU] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    // A shell lets commands in the background ignore signals, which every app would inherit, but not a handler.
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    for signal in ignored(&status).filter(|signal| !FORBIDDEN.contains(signal)) {
        // The C library keeps two for itself.
        let _ = signal_hook::flag::register(signal, Arc::default());
    }
    Ok(())
}

/// Returns the signals that a process ignores, from its status in /proc.
fn ignored(status: &str) -> impl Iterator<Item = i32> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    (1..=64).filter(move |signal| mask >> (signal - 1) & 1 == 1)
}

/// Builds a command that runs this program in another role. Its standard error is that of this process.
pub fn role(name: &str) -> Command {
    role_of(None, name)
}

/// Like [`role`], for another program.
pub fn role_of(program: Option<&Path>, name: &str) -> Command {
    // The link leads to this very program, even if its file has been replaced.
    let mut command = Command::new(program.unwrap_or(Path::new("/proc/self/exe")));
    command.arg(name);
    command
}

/// Returns how often systemd wants a sign of life, twice as often as it has to be. It may come from a keeper that systemd has not started itself.
pub fn watchdog() -> Option<Duration> {
    let time: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some(Duration::from_micros(time) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_the_bits_of_a_mask() {
        let ignored = |status: &str| ignored(status).collect::<Vec<_>>();
        assert_eq!(ignored("Name:\tx\nSigIgn:\t8000000000001006\nSigCgt:\tffff\n"), [2, 3, 13, 64]);
        assert_eq!(ignored("SigIgn:\tx\n"), [0; 0]);
    }
}
