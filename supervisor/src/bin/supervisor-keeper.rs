//! `supervisor-keeper`: the keeper, the daemon and the launcher, which run in the background. It is a separate program so that
//! these processes do not load the code of the `supervisor` commands.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match supervisor::play(std::env::args_os().skip(1)) {
        Some(Ok(code)) => code,
        Some(Err(error)) => {
            let _ = writeln!(std::io::stderr(), "supervisor-keeper: {error:#}");
            ExitCode::FAILURE
        }
        None => {
            let _ = writeln!(
                std::io::stderr(),
                "supervisor-keeper needs a role: use `supervisor start`, or systemd with `supervisor startup`"
            );
            ExitCode::from(2)
        }
    }
}
