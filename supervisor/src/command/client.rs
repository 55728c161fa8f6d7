//! Requests to the daemon, and the start of a supervisor where none runs.

use super::print;
use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use supervisor::control::{Answer, Known, Own, Request, Table};
use supervisor::files::tail;
use supervisor::home::{CHECK, Home};

/// Time limit for the supervisor to exit, after it has answered that all its apps have stopped: it may wait for processes that an earlier one has left.
const LAST_BREATH: Timespec = Timespec { tv_sec: 15, tv_nsec: 0 };
/// Number of bytes at the end of the supervisor's own log that are searched for its last line.
const OWN_LOG_END: u64 = 4096;
/// Pause before the next look whether another daemon answers.
const AGAIN: Duration = Duration::from_millis(20);
/// The longest time until systemd has started a supervisor anew.
const SYSTEMD_TAKES: Duration = Duration::from_secs(5);
/// Bytes that are read of an answer at once.
const PIECE: usize = 256 * 1024;
/// Time limit for the daemon to answer `list`, and time after which a command that waits looks whether it still does.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends a request, and prints the answer.
///
/// # Errors
/// Fails if no supervisor runs, or the answer is an error.
pub fn ask(request: &Request) -> Result<()> {
    let stream = connect(&Home::open()?)?;
    // There is no time limit: a reload of many instances takes long.
    say(talk(stream, request)?)
}

/// Saves the list. An empty one would replace what was saved before, so it is saved only if that is forced.
///
/// # Errors
/// Fails if no supervisor runs, or the list is empty.
pub fn save(is_forced: bool) -> Result<()> {
    if is_forced {
        begin()?;
    }
    ensure!(
        is_forced || !is_there(&Home::open()?)? || !table()?.apps.is_empty(),
        "there are no apps to save: to forget those that were saved, run `supervisor save --force`"
    );
    ask(&Request::Save)
}

/// Like [`ask`], and prints no success.
///
/// # Errors
/// Fails if no supervisor runs, or the answer is an error.
pub fn ask_quietly(request: &Request) -> Result<()> {
    match talk(connect(&Home::open()?)?, request)? {
        Answer::Error(error) => bail!(error),
        _ => Ok(()),
    }
}

/// Sends a request; its answer can be read from the connection.
///
/// # Errors
/// Fails if no supervisor runs.
pub fn send(request: &Request) -> Result<UnixStream> {
    let mut stream = connect(&Home::open()?)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).context("cannot send the request to the daemon")?;
    Ok(stream)
}

/// Sends a request for each target, even if some of them fail.
///
/// # Errors
/// Fails if any request fails, with the errors of all.
pub fn ask_each(targets: &[String], request: impl Fn(String) -> Request) -> Result<()> {
    all(targets.iter().map(|target| {
        let is_no_app = || table().is_ok_and(|table| table.supervisor.is_some() && table.app(target).is_none());
        let result = ask(&request(target.clone()));
        if result.is_err() && target.contains('.') && Path::new(target).is_file() && is_no_app() {
            bail!("{target} is a file, and no app has that name: name an app, as `supervisor list` shows it");
        }
        result
    }))
}

/// Joins the errors of all results.
///
/// # Errors
/// Fails if any result is an error.
pub fn all(results: impl Iterator<Item = Result<()>>) -> Result<()> {
    let errors: Vec<String> = results.filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if errors.is_empty() { Ok(()) } else { bail!(errors.join("; ")) }
}

/// Requests the table; it is empty if no supervisor runs.
///
/// # Errors
/// Fails if the daemon does not answer.
pub fn table() -> Result<Table> {
    let home = Home::open()?;
    if !is_there(&home)? {
        return Ok(Table::default());
    }
    match list(|| connect(&home))? {
        Answer::Table(table) => Ok(table),
        other => say(other).map(|()| Table::default()),
    }
}

/// Requests the process ids of the supervisor itself, of whatever version it is; `None` if no supervisor runs.
///
/// # Errors
/// Fails if the daemon does not answer.
pub fn own() -> Result<Option<Own>> {
    let home = Home::open()?;
    if is_there(&home)? { list::<Known>(|| connect(&home))?.own() } else { Ok(None) }
}

/// Asks for the table. A daemon that has just been replaced did not get to answer; the next one does.
fn list<A: DeserializeOwned>(connect: impl Fn() -> Result<UnixStream>) -> Result<A> {
    let ask = || talk(connect()?, &Request::List);
    let begun = Instant::now();
    // One that hangs is asked once.
    ask().or_else(|error| if begun.elapsed() < PATIENCE { ask() } else { Err(error) })
}

/// Stops all apps and the supervisor.
///
/// # Errors
/// Fails if the daemon does not answer.
pub fn kill() -> Result<()> {
    end()?.map_or_else(|| print("no supervisor is running\n"), say)
}

/// Like [`kill`], and prints nothing.
///
/// # Errors
/// Fails if the daemon does not answer.
pub fn kill_quietly() -> Result<()> {
    end().map(drop)
}

/// Stops all apps and the supervisor; returns its answer, if one runs.
fn end() -> Result<Option<Answer>> {
    let home = Home::open()?;
    // Whoever starts a supervisor meanwhile waits for the end of this one, and finds nothing to continue with.
    let lock = Lock::take(&home)?;
    if !is_there(&home)? {
        return Ok(None);
    }
    lock.begin_at_rest()?;
    let connect = || UnixStream::connect(home.control()).context("cannot connect to the daemon");
    // Opened before the request, so that this command can wait for the keeper's end.
    let own = list::<Known>(connect)?.own()?;
    let keeper = own.and_then(|own| Pid::from_raw(own.keeper));
    let keeper = keeper.and_then(|keeper| pidfd_open(keeper, PidfdFlags::empty()).ok());
    let answer = talk(connect()?, &Request::Kill)?;
    if let Some(keeper) = keeper {
        retry_on_intr(|| poll(&mut [PollFd::new(&keeper, PollFlags::IN)], Some(&LAST_BREATH)))?;
    }
    Ok(Some(answer))
}

/// Returns whether a supervisor runs, or has left something to continue with.
fn is_there(home: &Home) -> Result<bool> {
    match UnixStream::connect(home.control()) {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(home.state().exists()),
        Err(error) => Err(error).with_context(|| format!("cannot connect to {}", home.control().display())),
    }
}

/// Returns whether nobody listens for commands.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

/// Connects to the daemon. If both keeper and daemon have died, starts a supervisor, which continues from their state file.
fn connect(home: &Home) -> Result<UnixStream> {
    if UnixStream::connect(home.control()).is_err() && home.state().exists() {
        let lock = Lock::take(home)?;
        // It may have been ended on request while this command waited.
        if home.state().exists() {
            lock.begin()?;
        }
    }
    match UnixStream::connect(home.control()) {
        Err(error) if is_absent(&error) => {
            bail!("no supervisor is running in {}: run `supervisor start`", home.path().display())
        }
        connected => connected.with_context(|| format!("cannot connect to {}", home.control().display())),
    }
}

fn talk<A: DeserializeOwned>(mut stream: UnixStream, request: &Request) -> Result<A> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    // A daemon that does not want the request says why, even if it does not read all of it.
    let sent = stream.write_all(&line).context("cannot send the request to the daemon");
    stream.set_read_timeout(Some(PATIENCE))?;
    // A long table comes in few pieces.
    let mut answers = BufReader::with_capacity(PIECE, stream);
    let mut line = String::new();
    let read = loop {
        match answers.read_line(&mut line) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && !matches!(request, Request::List) => is_alive()?,
            read => break read.with_context(silent),
        }
    };
    if line.is_empty() {
        sent?;
        read?;
        bail!("the daemon ended before it answered, and another has replaced it: check `supervisor list`");
    }
    serde_json::from_str(&line)
        .context("cannot read the answer: the supervisor is perhaps of another version; run `supervisor update`")
}

/// Makes sure that the daemon answers, since it may take any time for what it was asked.
fn is_alive() -> Result<()> {
    let stream = UnixStream::connect(Home::open()?.control()).with_context(silent)?;
    talk::<Known>(stream, &Request::List).map(drop)
}

fn silent() -> String {
    let (log, keeper) = Home::open().map(|home| (home.own_log(), home.alive())).unwrap_or_default();
    format!(
        "the daemon does not answer: see {}; if it stays so, kill the process whose id stands in {}",
        log.display(),
        keeper.display()
    )
}

fn say(answer: Answer) -> Result<()> {
    match answer {
        Answer::Error(error) => bail!(error),
        Answer::Done(text) => print(&format!("{text}\n")),
        Answer::Table(_) | Answer::Ended { .. } => Ok(()),
    }
}

/// The program of the keeper and the daemon, beside this one.
fn background() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("supervisor-keeper"))
}

/// Lets the supervisor replace itself, and waits until the next one answers.
///
/// # Errors
/// Fails if no supervisor runs, or it refuses.
pub fn update() -> Result<()> {
    let home = Home::open()?;
    let before = own()?;
    let answer = talk(connect(&home)?, &Request::Update(background()?))?;
    // The last one ends after its answer, and the next one accepts as soon as it knows everything.
    if let Answer::Done(_) = answer {
        let is_replaced = || Ok(own()?.is_none_or(|own| before.is_none_or(|before| before.daemon != own.daemon)));
        ensure!(is_soon(PATIENCE, is_replaced)?, "the supervisor has not replaced itself yet: check `supervisor list`");
    }
    say(answer)
}

/// Starts a supervisor if none is running; returns whether this command has started it.
///
/// # Errors
/// Fails if the supervisor does not start.
pub fn begin() -> Result<bool> {
    let home = Home::open()?;
    if UnixStream::connect(home.control()).is_ok() { Ok(false) } else { Lock::take(&home)?.begin() }
}

/// Like [`begin`], and starts nothing of what the last supervisor has left, should it have died.
///
/// # Errors
/// Fails if the supervisor does not start.
pub fn begin_at_rest() -> Result<bool> {
    Lock::take(&Home::open()?)?.begin_at_rest()
}

/// The right to start or end a supervisor, which one command has at a time.
struct Lock<'h> {
    home: &'h Home,
    /// Locked until it is closed.
    _file: File,
}

impl<'h> Lock<'h> {
    /// Waits for the right.
    fn take(home: &'h Home) -> Result<Self> {
        let path = home.lock();
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        flock(&file, FlockOperation::LockExclusive).with_context(|| path.display().to_string())?;
        Ok(Lock { home, _file: file })
    }

    /// Like [`Self::begin`], and starts nothing of what the last supervisor has left.
    fn begin_at_rest(&self) -> Result<bool> {
        // systemd starts its own whenever it wants, which then must find what it has left.
        if !self.home.systemd().exists() {
            supervisor::rest(self.home)?;
        }
        self.begin()
    }

    /// Starts a supervisor if none is running; returns whether it has.
    fn begin(&self) -> Result<bool> {
        let home = self.home;
        let is_there = || UnixStream::connect(home.control()).is_ok();
        if is_there() {
            return Ok(false);
        }
        if home.state().exists() && home.systemd().exists() {
            let path = home.systemd();
            // Only that one gets the listeners that systemd has kept.
            ensure!(
                is_soon(SYSTEMD_TAKES, || Ok(is_there()))?,
                "systemd has not started the supervisor again yet: see `systemctl status`, or remove {} to go on without systemd",
                path.display()
            );
            return Ok(false);
        }
        let own_log = home.open_own_log()?;
        let program = background()?;
        let mut command = Command::new(&program);
        // If an app runs this command, its supervisor is not that of the new one.
        command.arg("keeper").env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove(CHECK).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(own_log);
        let mut keeper =
            command.spawn().with_context(|| format!("cannot start {}: it must be next to this program", program.display()))?;
        let mut said = String::new();
        let output = keeper.stdout.take().context("the supervisor has no output")?;
        BufReader::new(output).read_line(&mut said)?;
        let has_started = said.trim() == "ready";
        // Another supervisor ran, and only its socket was missing.
        if !has_started && UnixStream::connect(home.control()).is_err() {
            // Its log says nothing of a full disk.
            home.check_room().context("the supervisor did not start")?;
            bail!("the supervisor did not start; last line of {}: {}", home.own_log().display(), last_line(home)?);
        }
        Ok(has_started)
    }
}

/// Looks again and again whether something is so; returns whether it was in time.
fn is_soon(limit: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if is_so()? {
            return Ok(true);
        }
        std::thread::sleep(AGAIN);
    }
    Ok(false)
}

fn last_line(home: &Home) -> Result<String> {
    let text = tail(&home.own_log(), OWN_LOG_END)?;
    Ok(String::from_utf8_lossy(&text).trim_end().lines().last().unwrap_or_default().to_owned())
}
