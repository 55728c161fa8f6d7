//! Asking the daemon; starting a supervisor where there is none.

use super::print;
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use supervisor::control::{Answer, Request, Table};
use supervisor::files::tail;
use supervisor::home::Home;

/// Time of a supervisor that was told to end, after it has said that all it ran has ended.
const LAST_BREATH: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// Bytes of the supervisor's own log in which its last line is looked for.
const OWN_LOG_END: u64 = 4096;
/// A daemon that is alive answers sooner, or is at work.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks, prints what is answered.
///
/// # Errors
/// No supervisor runs, or its answer is an error.
pub fn ask(request: &Request) -> Result<()> {
    let stream = connect(&Home::open()?)?;
    // A reload of many instances takes its time.
    say(talk(stream, request)?)
}

/// Asks the same of each, and goes on when one of them fails.
///
/// # Errors
/// Those of all that failed.
pub fn ask_each(targets: &[String], request: impl Fn(String) -> Request) -> Result<()> {
    all(targets.iter().map(|target| ask(&request(target.clone()))))
}

/// The errors of all as one.
///
/// # Errors
/// There is one.
pub fn all(results: impl Iterator<Item = Result<()>>) -> Result<()> {
    let errors: Vec<String> = results.filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if errors.is_empty() { Ok(()) } else { bail!(errors.join("; ")) }
}

/// Asks what there is.
///
/// # Errors
/// It does not answer.
pub fn table() -> Result<Table> {
    let home = Home::open()?;
    let Ok(stream) = connect(&home) else { return Ok(Table::default()) };
    stream.set_read_timeout(Some(PATIENCE))?;
    match talk(stream, &Request::List)? {
        Answer::Table(table) => Ok(table),
        other => say(other).map(|()| Table::default()),
    }
}

/// Ends the supervisor with all it runs.
///
/// # Errors
/// It does not answer.
pub fn kill() -> Result<()> {
    let home = Home::open()?;
    let Ok(stream) = connect(&home) else {
        print("no supervisor runs\n");
        return Ok(());
    };
    // Held before it is told, so that its end can be awaited.
    let keeper = table()?.supervisor.and_then(|own| Pid::from_raw(own.keeper));
    let keeper = keeper.and_then(|keeper| pidfd_open(keeper, PidfdFlags::empty()).ok());
    let answer = talk(stream, &Request::Kill)?;
    if let Some(keeper) = keeper {
        poll(&mut [PollFd::new(&keeper, PollFlags::IN)], Some(&LAST_BREATH))?;
    }
    say(answer)
}

/// Where both keeper and daemon have died, what they ran is in their state file: another supervisor goes on with it.
fn connect(home: &Home) -> Result<UnixStream> {
    if UnixStream::connect(home.control()).is_err() && home.state().exists() {
        begin()?;
    }
    let none = || format!("no supervisor runs in {}: start something", home.path().display());
    UnixStream::connect(home.control()).with_context(none)
}

fn talk(mut stream: UnixStream, request: &Request) -> Result<Answer> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).context("the daemon does not listen")?;
    let mut answers = BufReader::new(stream);
    let mut line = String::new();
    if answers.read_line(&mut line).context("the daemon does not answer")? == 0 {
        bail!("the daemon ended before it had answered; another has taken its place: see `supervisor list`");
    }
    serde_json::from_str(&line).context("an answer of another version of this program")
}

fn say(answer: Answer) -> Result<()> {
    match answer {
        Answer::Error(error) => bail!(error),
        Answer::Done(text) => print(&format!("{text}\n")),
        Answer::Table(_) => {}
    }
    Ok(())
}

/// Sees to it that a supervisor runs.
///
/// # Errors
/// It does not start.
pub fn begin() -> Result<()> {
    let home = Home::open()?;
    if UnixStream::connect(home.control()).is_ok() {
        return Ok(());
    }
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(home.lock())?;
    flock(&lock, FlockOperation::LockExclusive).with_context(|| home.lock().display().to_string())?;
    // Another command may have started it while this one waited.
    if UnixStream::connect(home.control()).is_ok() {
        return Ok(());
    }
    let own_log = OpenOptions::new().append(true).create(true).mode(0o600).open(home.own_log())?;
    let program = std::env::current_exe()?.with_file_name("supervisord");
    let mut command = Command::new(&program);
    command
        .arg("keeper")
        .env_remove("NOTIFY_SOCKET")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(own_log);
    let mut keeper =
        command.spawn().with_context(|| format!("cannot start {}, which belongs beside this program", program.display()))?;
    let mut said = String::new();
    let output = keeper.stdout.take().context("the supervisor has no output")?;
    BufReader::new(output).read_line(&mut said)?;
    if said.trim() != "ready" {
        bail!("the supervisor did not start; {} ends: {}", home.own_log().display(), last_line(&home)?);
    }
    Ok(())
}

fn last_line(home: &Home) -> Result<String> {
    let text = tail(&home.own_log(), OWN_LOG_END)?;
    Ok(String::from_utf8_lossy(&text).trim_end().lines().last().unwrap_or_default().to_owned())
}
