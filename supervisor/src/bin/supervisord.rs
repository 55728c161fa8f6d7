//! What runs behind `supervisor`: keeper, daemon and launcher. Apart from it, so that none of what a person's commands need is part of what
//! runs all the time.

use std::process::ExitCode;

fn main() -> ExitCode {
    match supervisor::play(std::env::args_os().skip(1)) {
        Some(Ok(code)) => code,
        Some(Err(error)) => {
            eprintln!("supervisord: {error:#}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!(
                "supervisord is started by `supervisor start`, or by systemd as `supervisord keeper`: see `supervisor startup`"
            );
            ExitCode::from(2)
        }
    }
}
