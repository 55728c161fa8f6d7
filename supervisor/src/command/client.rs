//! Asking the daemon; starting a supervisor where there is none.

use crate::daemon::control::{Answer, Request, Table};
use crate::home::Home;
use crate::keeper::role;
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

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

/// Asks what there is.
///
/// # Errors
/// It does not answer.
pub fn table() -> Result<Table> {
    let home = Home::open()?;
    let Ok(stream) = UnixStream::connect(home.control()) else { return Ok(Table::default()) };
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
    match UnixStream::connect(home.control()) {
        Ok(stream) => say(talk(stream, &Request::Kill)?),
        Err(_) => {
            println!("no supervisor runs");
            Ok(())
        }
    }
}

fn connect(home: &Home) -> Result<UnixStream> {
    UnixStream::connect(home.control())
        .with_context(|| format!("no supervisor runs in {}: start something", home.path().display()))
}

fn talk(mut stream: UnixStream, request: &Request) -> Result<Answer> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).context("the daemon does not listen")?;
    let mut answers = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if answers.read_line(&mut line).context("the daemon does not answer")? == 0 {
            bail!("the daemon ended before it had answered; another has taken its place: see `supervisor list`");
        }
        match serde_json::from_str(&line).context("an answer of another version of this program")? {
            Answer::Progress(text) => eprintln!("{text}"),
            answer => return Ok(answer),
        }
    }
}

fn say(answer: Answer) -> Result<()> {
    match answer {
        Answer::Error(error) => bail!(error),
        Answer::Done(text) => println!("{text}"),
        Answer::Progress(_) | Answer::Table(_) => {}
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
    let mut command = role("keeper");
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(own_log);
    let mut keeper = command.spawn().context("cannot start the supervisor")?;
    let mut said = String::new();
    let output = keeper.stdout.take().context("the supervisor has no output")?;
    BufReader::new(output).read_line(&mut said)?;
    if said.trim() != "ready" {
        bail!("the supervisor did not start; {} ends: {}", home.own_log().display(), last_line(&home)?);
    }
    Ok(())
}

fn last_line(home: &Home) -> Result<String> {
    let mut text = String::new();
    File::open(home.own_log())?.read_to_string(&mut text)?;
    Ok(text.lines().last().unwrap_or_default().to_owned())
}
