//! `supervisord`: the keeper, the daemon and the launcher, which run in the background. It is a separate program so that
//! these processes do not load the code of the `supervisor` commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    match supervisor::play(std::env::args_os().skip(1)) {
        Some(Ok(code)) => code,
        Some(Err(error)) => {
            eprintln!("supervisord: {error:#}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("supervisord needs a role: use `supervisor start`, or systemd with `supervisor startup`");
            ExitCode::from(2)
        }
    }
}
