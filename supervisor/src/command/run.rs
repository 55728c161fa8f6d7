//! `run` is for containers: it starts the apps of a file, prints their logs, and ends with them.

use super::{apply, client};
use crate::cli::Run;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitOptions, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};
use supervisor::control::{Answer, Request};

/// Starts the apps, and waits until one is given up, all have ended by themselves, or a signal comes. Everything ends with this process.
///
/// # Errors
/// Fails if an app does not start.
pub fn run(run: &Run) -> Result<ExitCode> {
    let signals = readable(&[SIGTERM, SIGINT, SIGQUIT, SIGHUP])?;
    let children = readable(&[SIGCHLD])?;
    let specs = apply::specs(&run.file, run.env.as_deref(), &[])?;
    client::begin()?;
    let mut logs = logs()?;
    let started = client::all(
        specs.into_iter().map(|(spec, instances)| client::ask_quietly(&Request::Start { spec: spec.into(), instances })),
    );
    let code = match started {
        Ok(()) => wait_for_end(&signals, &children, &mut logs),
        Err(error) => Err(error),
    };
    let killed = client::kill_quietly();
    // What they have written last.
    let _ = logs.kill();
    let _ = logs.wait();
    killed?;
    code
}

/// Another process of this program prints the logs.
fn logs() -> Result<Child> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.args(["logs", "all", "--follow", "--lines", "0", "--wait"]).stdin(Stdio::null());
    command.spawn().context("cannot print the logs")
}

fn wait_for_end(signals: &UnixStream, children: &UnixStream, logs: &mut Child) -> Result<ExitCode> {
    let mut end = BufReader::new(client::send(&Request::AwaitEnd)?);
    loop {
        let mut sources = [
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(children, PollFlags::IN),
            PollFd::new(end.get_ref(), PollFlags::IN),
        ];
        if poll(&mut sources, None) == Err(rustix::io::Errno::INTR) {
            continue;
        }
        let [is_told, has_child, has_answer] = sources.map(|source| !source.revents().is_empty());
        if is_told {
            return Ok(ExitCode::SUCCESS);
        }
        if has_child {
            let _ = (&mut &*children).read(&mut [0; 64]);
            reap(logs);
        }
        if has_answer {
            let mut line = String::new();
            end.read_line(&mut line)?;
            return match serde_json::from_str(&line) {
                Ok(Answer::Ended { text, code }) => {
                    super::remark(&text);
                    Ok(ExitCode::from(code))
                }
                Ok(Answer::Error(why)) => anyhow::bail!(why),
                // The daemon was replaced.
                _ => {
                    end = BufReader::new(client::send(&Request::AwaitEnd)?);
                    continue;
                }
            };
        }
    }
}

/// Reaps orphans, which become children of the first process of a container.
fn reap(logs: &mut Child) {
    let _ = logs.try_wait();
    if std::process::id() == 1 {
        while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
            if Some(pid) == Pid::from_raw(logs.id() as i32) {
                break;
            }
        }
    }
}

/// Returns a stream that becomes readable once one of these signals has come.
fn readable(signals: &[i32]) -> Result<UnixStream> {
    let (read, raised) = UnixStream::pair()?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, raised.try_clone()?)?;
    }
    read.set_nonblocking(true)?;
    Ok(read)
}
