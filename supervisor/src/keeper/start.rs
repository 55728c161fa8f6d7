//! The start of a keeper: the first one, or one that replaces another.

use super::listeners::{Listener, address_of_stored};
use super::{Keeper, tell};
use crate::channel::Channel;
use crate::control::{Known, Request};
use crate::home::{Home, publish, replace};
use crate::proc;
use crate::spec::UNIX;
use anyhow::{Context, Result};
use listenfd::ListenFd;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use sd_notify::NotifyState;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// What Node programs load before themselves.
const PRELOAD: &[u8] = include_bytes!("preload.cjs");
/// How often the supervisor that holds the lock is looked for, and the pause in between.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Runs a keeper without workers, which listens for commands and starts its daemon.
///
/// # Errors
/// Fails if another supervisor runs, or a system call fails.
pub fn begin() -> Result<ExitCode> {
    let stored = stored_listeners();
    close_inherited(&stored);
    let home = Home::open()?;
    let control = home.control();
    let lock = open_lock(&home)?;
    if let Some(other) = take(&lock, &home)? {
        return stand_back(other, &control);
    }
    // The socket is a leftover: whoever made it has ended.
    let _ = fs::remove_file(&control);
    // A full disk must not keep it from starting. A command that finds no id there asks on the control socket.
    let _ = fs::write(home.alive(), std::process::id().to_string());
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        let _ = fs::write(home.systemd(), "");
    } else {
        let _ = fs::remove_file(home.systemd());
    }
    let control = UnixListener::bind(&control).with_context(|| format!("cannot listen on {}", control.display()))?;
    let mut keeper = Keeper::new(home)?;
    write_preload(&keeper.home);
    keeper.control = Some(control.into());
    keeper.lock = Some(lock.into());
    keeper.listeners = stored;
    keeper.start_daemon()?;
    // The command or systemd that started this process can continue.
    sd_notify::notify(&[NotifyState::Ready]).context("cannot notify systemd over NOTIFY_SOCKET")?;
    // A command that has gone does not wait for it.
    let _ = writeln!(io::stdout(), "ready");
    keeper.run()
}

fn open_lock(home: &Home) -> Result<File> {
    let lock = File::options().write(true).create(true).truncate(false).mode(0o600).open(home.alive());
    lock.with_context(|| home.alive().display().to_string())
}

/// Takes the lock of a folder that was made anew; `None` if another supervisor holds it.
///
/// # Errors
/// Fails if it cannot be opened, for example because there is no descriptor left.
pub fn lock(home: &Home) -> Result<Option<OwnedFd>> {
    let lock = open_lock(home)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot lock {}", home.alive().display())),
    }
    // Who finds no id there, since the disk is full, asks on the control socket.
    let _ = fs::write(home.alive(), std::process::id().to_string());
    Ok(Some(lock.into()))
}

/// Writes what Node programs load, of this version. Where that cannot be done, those of Node may not start, and all others do.
pub fn write_preload(home: &Home) {
    let is_there = |path: &Path| fs::read(path).is_ok_and(|content| content == PRELOAD);
    let own = if is_there(&home.preload()) { Ok(()) } else { replace(&home.preload(), PRELOAD) };
    // Only root can start programs as other users.
    let shared = if geteuid().is_root() { publish(&home.shared_preload(), PRELOAD) } else { Ok(()) };
    for error in [own, shared].into_iter().filter_map(Result::err) {
        tell(home, &format!("{error:#}"));
    }
}

/// Takes the listeners that systemd has kept since the last keeper and daemon have both died.
fn stored_listeners() -> BTreeMap<String, Listener> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut stored = ListenFd::from_env();
    let mut listeners = BTreeMap::new();
    for (number, name) in names.split(':').enumerate().take(stored.len()) {
        let address = address_of_stored(name);
        let socket: Option<OwnedFd> = if address.starts_with(UNIX) {
            stored.take_unix_listener(number).ok().flatten().map(OwnedFd::from)
        } else {
            stored.take_tcp_listener(number).ok().flatten().map(OwnedFd::from)
        };
        listeners.extend(socket.map(|socket| (address.clone(), Listener::new(&address, socket))));
    }
    listeners
}

/// Closes what the caller's shell has left open, such as the lock of a deploy script: it would be held as long as the supervisor runs.
fn close_inherited(stored: &BTreeMap<String, Listener>) {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let is_stored = |number: i32| stored.values().any(|listener| listener.socket.as_raw_fd() == number);
    for number in numbers.into_iter().filter(|number| *number > 2 && !is_stored(*number)) {
        // The listing's own descriptor is closed already.
        let _ = nix::unistd::close(number);
    }
}

/// Takes the lock, or connects to the supervisor that holds it. If its socket was removed, it makes another when it is told to.
fn take(lock: &File, home: &Home) -> Result<Option<UnixStream>> {
    for _ in 0..TRIES {
        // Whoever holds it may die at any time.
        if flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(None);
        }
        if let Ok(stream) = UnixStream::connect(home.control()) {
            return Ok(Some(stream));
        }
        let keeper = fs::read_to_string(home.alive()).ok().and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?));
        // Only a process that holds the lock is meant: the id may be another's by now.
        let holds_lock = |keeper: &Pid| proc::holds(keeper.as_raw_pid(), &home.alive().to_string_lossy());
        if let Some(keeper) = keeper.filter(holds_lock) {
            let _ = kill_process(keeper, Signal::HUP);
        }
        thread::sleep(PAUSE);
    }
    anyhow::bail!("a supervisor holds {} and does not answer on {}", home.alive().display(), home.control().display())
}

/// Leaves the work to the running supervisor. Under systemd, its keeper becomes the main process: the daemon has started it
/// in place of the keeper that systemd had started and that has died.
fn stand_back(mut stream: UnixStream, control: &Path) -> Result<ExitCode> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        anyhow::bail!("a supervisor is already running: it answers on {}", control.display());
    }
    stream.write_all(&[&serde_json::to_vec(&Request::List)?[..], b"\n"].concat())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if let Some(keeper) = serde_json::from_str::<Known>(&line)?.own()?.and_then(|own| u32::try_from(own.keeper).ok()) {
        sd_notify::notify(&[NotifyState::MainPid(keeper), NotifyState::Ready])
            .context("cannot notify systemd over NOTIFY_SOCKET")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a keeper that replaces a dead one. The daemon, its parent, tells it what to hold.
///
/// # Errors
/// Fails if a system call fails.
pub fn adopt() -> Result<ExitCode> {
    let mut keeper = Keeper::new(Home::open()?)?;
    // It may be of another version than the last keeper.
    write_preload(&keeper.home);
    keeper.take_daemon(Channel::new(io::stdin().as_fd().try_clone_to_owned()?), None)?;
    keeper.run()
}
