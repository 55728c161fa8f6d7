//! `run` is for containers: it starts the apps of a file, prints their logs, and ends with them.

use super::{apply, client, logs};
use crate::cli::Run;
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use supervisor::control::{Answer, Request};
use supervisor::home::Home;
use supervisor::signals::readable;
use supervisor::spec::Spec;

/// Time limit for another daemon to listen, and the pause between two looks.
const NEXT_DAEMON: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(50);
/// Time limit for whoever reads the last lines of the logs to take some of them.
const LAST_LINES: Duration = Duration::from_secs(5);

/// Starts the apps, and waits until one is given up, all have ended by themselves, or a signal comes. Everything ends with this process.
///
/// # Errors
/// Fails if a supervisor runs already, or an app does not start.
pub fn run(run: &Run) -> Result<ExitCode> {
    let (signals, children) = (readable(&[SIGTERM, SIGINT, SIGQUIT, SIGHUP])?, readable(&[SIGCHLD])?);
    let specs = apply::specs(&run.file, run.env.as_deref(), &[])?;
    let home = Home::open()?;
    // What a container that was killed has left in the list is not what the file says, and is not started for it.
    if !client::begin_at_rest()? {
        bail!(
            "a supervisor runs in {}, and would end with this command: use `supervisor apply {}`, or set SUPERVISOR_HOME to another folder",
            home.path().display(),
            run.file.display()
        );
    }
    let mut foreground = Foreground { signals, children, logs: None, held: None, unanswered: None };
    let outcome = foreground.keep(specs);
    let killed = client::kill_quietly();
    drop(foreground);
    killed.and(outcome)
}

/// The logs, which a thread prints until this is dropped: it then prints what the apps have written last, and ends.
struct Printed {
    end: UnixStream,
    /// Bytes that were printed.
    count: Arc<AtomicUsize>,
}

impl Printed {
    fn begin() -> Result<Self> {
        let (mut own, its) = UnixStream::pair()?;
        own.set_read_timeout(Some(LAST_LINES))?;
        let count = Arc::new(AtomicUsize::new(0));
        let printed = count.clone();
        std::thread::Builder::new().name("logs".into()).spawn(move || {
            if let Err(why) = logs::run_until_closed(&its, &printed) {
                super::remark(&format!("the logs are printed no more, and the apps go on: {why:#}; see `supervisor logs`"));
            }
        })?;
        // If it cannot watch, it says why and ends.
        let _ = own.read_exact(&mut [0]);
        Ok(Printed { end: own, count })
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        let _ = self.end.shutdown(Shutdown::Write);
        loop {
            let before = self.count.load(Ordering::Relaxed);
            // Its own end is closed when it has printed all.
            match self.end.read_exact(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => return,
            }
            if self.count.load(Ordering::Relaxed) == before {
                super::remark("the last lines of the logs were not printed in time: see the files of the logs");
                return;
            }
        }
    }
}

/// What a command in the foreground looks at.
struct Foreground {
    signals: UnixStream,
    children: UnixStream,
    logs: Option<Printed>,
    /// The connection by which the daemon sees that this process has ended.
    held: Option<UnixStream>,
    /// The request that a signal came before. Were it given up, the daemon would begin to end everything, and might be gone before it is told to.
    unanswered: Option<BufReader<UnixStream>>,
}

impl Foreground {
    fn keep(&mut self, specs: Vec<(Spec, u32)>) -> Result<ExitCode> {
        if !client::table()?.apps.is_empty() {
            client::ask_quietly(&Request::Delete("all".into()))?;
        }
        // From now on the apps end with this process, also if it is killed while it is still starting some.
        self.held = Some(client::send(&Request::Foreground)?);
        self.logs = Some(Printed::begin().context("cannot print the logs")?);
        let mut errors = Vec::new();
        for (spec, instances) in specs {
            let name = spec.name.clone();
            let start = Request::Start { spec: spec.into(), instances };
            let mut answer = self.ask(&start, &Request::List)?;
            // The daemon was replaced. The new one carries on with the apps in its list; an app that never got there is started again.
            while matches!(&answer, Some(Answer::Table(table)) if table.app(&name).is_none()) {
                answer = self.ask(&start, &Request::List)?;
            }
            match answer {
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

    /// Returns the answer to a request, or `None` if a signal to end comes first; `again` is what a daemon is asked that has replaced another one.
    fn ask(&mut self, request: &Request, again: &Request) -> Result<Option<Answer>> {
        let mut answers = BufReader::new(client::send(request)?);
        loop {
            let held = self.held.as_ref().unwrap_or(answers.get_ref());
            let sources = [&self.signals, &self.children, answers.get_ref(), held];
            let mut sources = sources.map(|source| PollFd::new(source, PollFlags::IN));
            if poll(&mut sources, None) == Err(Errno::INTR) {
                continue;
            }
            let [is_told, has_child, has_answer, is_let_go] = sources.map(|source| !source.revents().is_empty());
            if is_told {
                self.unanswered = Some(answers);
                return Ok(None);
            }
            if has_child {
                let _ = (&self.children).read(&mut [0; 64]);
                reap();
            }
            if has_answer {
                let mut line = String::new();
                // One that has gone may have left a part of it, or reset the connection.
                let _ = answers.read_line(&mut line);
                match serde_json::from_str(&line) {
                    Ok(answer) => return Ok(Some(answer)),
                    Err(_) => answers = BufReader::new(send_to_next(again)?),
                }
            }
            if is_let_go {
                // The daemon that held it was replaced, perhaps between two requests.
                self.held = Some(send_to_next(&Request::Foreground)?);
            }
        }
    }
}

/// Sends a request to the daemon that has replaced an earlier one. If keeper and daemon have both died, this starts a new supervisor, which carries on with
/// their list.
fn send_to_next(request: &Request) -> Result<UnixStream> {
    let begun = Instant::now();
    loop {
        match client::send(request) {
            // A daemon that is about to end may still have been listening.
            Err(_) if begun.elapsed() < NEXT_DAEMON => std::thread::sleep(AGAIN),
            result => return result,
        }
    }
}

/// Reaps orphans, which become children of the first process of a container.
fn reap() {
    if std::process::id() == 1 {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}
