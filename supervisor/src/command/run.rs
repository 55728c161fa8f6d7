//! `run` is for containers: it starts the apps of a file, prints their logs, and ends with them.

use super::{apply, client};
use crate::cli::Run;
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};
use supervisor::control::{Answer, Request};
use supervisor::home::Home;
use supervisor::signals::readable;
use supervisor::spec::Spec;

/// A process that prints the logs and ends within this time would do so again.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Time limit for the last lines of the logs to be printed.
const LAST_LINES: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Starts the apps, and waits until one is given up, all have ended by themselves, or a signal comes. Everything ends with this process.
///
/// # Errors
/// Fails if a supervisor runs already, or an app does not start.
pub fn run(run: &Run) -> Result<ExitCode> {
    let (signals, children) = (readable(&[SIGTERM, SIGINT, SIGQUIT, SIGHUP])?, readable(&[SIGCHLD])?);
    let specs = apply::specs(&run.file, run.env.as_deref(), &[])?;
    let home = Home::open()?;
    if !client::begin()? {
        bail!(
            "a supervisor runs in {}, and would end with this command: use `supervisor apply {}`, or set SUPERVISOR_HOME to another folder",
            home.path().display(),
            run.file.display()
        );
    }
    let mut foreground = Foreground { signals, children, logs: None, printing: None, unanswered: None };
    let outcome = foreground.keep(specs);
    let killed = client::kill_quietly();
    drop(foreground);
    killed.and(outcome)
}

/// What a command in the foreground looks at.
struct Foreground {
    signals: UnixStream,
    children: UnixStream,
    /// What prints the logs, and the other end of its standard input.
    logs: Option<(Child, UnixStream)>,
    /// When it was last started again.
    printing: Option<Instant>,
    /// The request that a signal came before. Were it given up, the daemon would begin to end everything, and might be gone before it is told to.
    unanswered: Option<BufReader<UnixStream>>,
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let Some((mut logs, input)) = self.logs.take() else { return };
        // It prints what the apps have written last, and ends.
        drop(input);
        if let Ok(end) = pidfd_open(Pid::from_child(&logs), PidfdFlags::empty()) {
            let _ = retry_on_intr(|| poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&LAST_LINES)));
        }
        let _ = logs.kill();
        let _ = logs.wait();
    }
}

impl Foreground {
    fn keep(&mut self, specs: Vec<(Spec, u32)>) -> Result<ExitCode> {
        // What a container that was killed has left in the list is not what the file says.
        if !client::table()?.apps.is_empty() {
            client::ask_quietly(&Request::Delete("all".into()))?;
        }
        let (child, mut input) = logs()?;
        // If it cannot watch, it says why and ends.
        let _ = input.read(&mut [0]);
        self.logs = Some((child, input));
        let mut errors = Vec::new();
        for (spec, instances) in specs {
            // The list, which the next daemon continues with, has it.
            let name = spec.name.clone();
            let again = Request::Resume(name.clone());
            match self.ask(&Request::Start { spec: spec.into(), instances }, &again)? {
                None => return Ok(ExitCode::SUCCESS),
                // It is in the list, and tried again.
                Some(Answer::Error(why)) if client::table()?.app(&name).is_some() => super::remark(&why),
                Some(Answer::Error(why)) => errors.push(why),
                Some(_) => {}
            }
        }
        if !errors.is_empty() {
            bail!(errors.join("; "));
        }
        match self.ask(&Request::AwaitEnd, &Request::AwaitEnd)? {
            Some(Answer::Ended { text, code }) => {
                super::remark(&text);
                Ok(ExitCode::from(code))
            }
            Some(Answer::Error(why)) => bail!(why),
            _ => Ok(ExitCode::SUCCESS),
        }
    }

    /// Starts the process that prints the logs again, unless it has ended at once. The apps go on in any case.
    fn print_again(&mut self) {
        let ended = self.logs.take();
        let is_old = self.printing.replace(Instant::now()).is_none_or(|began| began.elapsed() > AT_ONCE);
        let again = if is_old { logs().map(Some) } else { Ok(None) };
        super::remark(match again {
            Ok(Some(_)) => "the process that prints the logs has ended, and is started again",
            _ => "the process that prints the logs has ended, and cannot be started again: see `supervisor logs`",
        });
        self.logs = again.unwrap_or_default();
        drop(ended);
    }

    /// Returns the answer to a request, or `None` if a signal to end comes first; `again` is what a daemon is asked that has replaced another one.
    fn ask(&mut self, request: &Request, again: &Request) -> Result<Option<Answer>> {
        let mut answers = BufReader::new(client::send(request)?);
        loop {
            let sources = [&self.signals, &self.children, answers.get_ref()];
            let mut sources = sources.map(|source| PollFd::new(source, PollFlags::IN));
            if poll(&mut sources, None) == Err(Errno::INTR) {
                continue;
            }
            let [is_told, has_child, has_answer] = sources.map(|source| !source.revents().is_empty());
            if is_told {
                self.unanswered = Some(answers);
                return Ok(None);
            }
            if has_child {
                let _ = (&self.children).read(&mut [0; 64]);
                if reap(self.logs.as_mut().map(|(logs, _)| logs)) {
                    self.print_again();
                }
            }
            if has_answer {
                let mut line = String::new();
                answers.read_line(&mut line)?;
                match serde_json::from_str(&line) {
                    Ok(answer) => return Ok(Some(answer)),
                    // The daemon was replaced.
                    Err(_) => answers = BufReader::new(client::send(again)?),
                }
            }
        }
    }
}

/// Another process of this program prints the logs, until its standard input is closed.
fn logs() -> Result<(Child, UnixStream)> {
    let (own, its) = UnixStream::pair()?;
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    // Ctrl-C is not for it: it prints what the apps write while they end.
    command.args(["logs", "all", "--follow", "--lines", "0", "--wait"]).stdin(OwnedFd::from(its)).process_group(0);
    Ok((command.spawn().context("cannot print the logs")?, own))
}

/// Reaps orphans, which become children of the first process of a container. Returns whether the process that prints the logs has ended.
fn reap(mut logs: Option<&mut Child>) -> bool {
    let mut has_ended = logs.as_mut().is_some_and(|logs| matches!(logs.try_wait(), Ok(Some(_))));
    if std::process::id() == 1 {
        while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
            has_ended |= logs.as_ref().is_some_and(|logs| pid == Pid::from_child(logs));
        }
    }
    has_ended
}
