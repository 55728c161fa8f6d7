//! Whether a command finds nothing wrong with a process.

use crate::channel::Key;
use crate::core::Checks;
use crate::home::{CHECK, Home};
use crate::proc::Identity;
use crate::user::As;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio, read};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Most of what a command writes that is kept, in bytes.
const MOST_SAID: usize = 256;
/// Most commands at once.
const MOST: usize = 8;

/// The commands that run, so that they end with the processes that they check.
#[derive(Default)]
pub struct Commands(Mutex<BTreeMap<Key, Pid>>);

impl Commands {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the command that checks a process, with all that it has started.
    pub fn end(&self, key: Key) {
        // Its id is still taken: it is removed before it is reaped.
        let _ = self.all().get(&key).map(|leader| kill_process_group(*leader, Signal::KILL));
    }

    /// Ends all commands.
    pub fn end_all(&self) {
        for leader in self.all().values() {
            let _ = kill_process_group(*leader, Signal::KILL);
        }
    }
}

/// Runs the command for each process; returns each with the reason if it has failed.
pub fn run(checks: &Checks, command: &str, home: &Home, commands: &Commands) -> Vec<(Key, Option<String>)> {
    let mut all = Vec::new();
    for some in checks.processes.chunks(MOST) {
        all.extend(thread::scope(|scope| {
            let begin = |(key, process): &(Key, Identity)| {
                let (key, process) = (*key, *process);
                let work = move || (key, one(checks, command, (key, process), home, commands).err());
                thread::Builder::new().name("check".into()).stack_size(super::STACK_SIZE).spawn_scoped(scope, work).ok()
            };
            let threads: Vec<_> = some.iter().filter_map(begin).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<_>>()
        }));
    }
    all
}

fn one(checks: &Checks, text: &str, (key, process): (Key, Identity), home: &Home, commands: &Commands) -> Result<(), String> {
    let mark = home.notify(key.instance, key.generation);
    let plain = |error: io::Error| error.to_string();
    let spec = &checks.spec;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text]).current_dir(&spec.directory).env_clear();
    command.envs(spec.environment.0.iter().map(|(name, value)| (name, value))).env("SUPERVISOR_PID", process.pid.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    // If the daemon dies, the keeper finds it by this.
    command.env(CHECK, mark);
    if let Some(user) = As::of(&spec.options).map_err(|error| format!("{error:#}"))? {
        command.gid(user.gid.as_raw()).uid(user.uid.as_raw());
    }
    // Whoever ends it meanwhile finds it.
    let mut all = commands.all();
    let mut child = command.spawn().map_err(plain)?;
    let leader = Pid::from_child(&child);
    all.insert(key, leader);
    drop(all);
    // It may have ended before there was anything to find.
    if !process.is_alive() {
        commands.end(key);
    }
    let stderr = child.stderr.take();
    let ended = wait(leader, stderr.as_ref(), checks.timeout);
    // Whatever it has left behind ends with it; the id is still taken.
    let _ = kill_process_group(leader, Signal::KILL);
    commands.all().remove(&key);
    let status = child.wait().map_err(plain)?;
    let Some(said) = ended.map_err(plain)? else {
        return Err(format!("the command did not end within {}", humantime::format_duration(checks.timeout)));
    };
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&said);
    let said = text.lines().next().map(|line| format!(": {}", line.replace(char::is_control, " "))).unwrap_or_default();
    Err(format!("{status}{said}"))
}

/// Waits until a process has ended; returns the beginning of what it has written meanwhile, or `None` if it takes too long. All of that is read, since a
/// full pipe would hold it up.
fn wait(leader: Pid, mut stderr: Option<&ChildStderr>, limit: Duration) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + limit;
    let end = pidfd_open(leader, PidfdFlags::empty())?;
    stderr.map_or(Ok(()), |stderr| ioctl_fionbio(stderr, true))?;
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A command that writes without a pause would keep it from ever finding nothing.
        if left.is_zero() {
            return Ok(None);
        }
        let sources = std::iter::once(PollFd::new(&end, PollFlags::IN));
        let mut sources: Vec<PollFd<'_>> = sources.chain(stderr.map(|stderr| PollFd::new(stderr, PollFlags::IN))).collect();
        match poll(&mut sources, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) => return Ok(None),
            Err(Errno::INTR) => continue,
            result => result?,
        };
        let has_ended = !sources[0].revents().is_empty();
        if let Some(pipe) = stderr {
            match read(pipe, &mut buffer) {
                Ok(count) if count > 0 => said.extend(&buffer[..count.min(MOST_SAID - said.len())]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Nobody writes any more.
                _ => stderr = None,
            }
        }
        if has_ended {
            return Ok(Some(said));
        }
    }
}
