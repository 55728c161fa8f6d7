//! Whether a command finds nothing wrong with a process.

use crate::channel::Key;
use crate::core::Checks;
use crate::proc::Identity;
use crate::user::As;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;

/// Most commands at once.
const MOST: usize = 8;

/// Runs the command for each process; returns each with the reason if it has failed.
pub fn run(checks: &Checks, command: &str) -> Vec<(Key, Option<String>)> {
    let mut all = Vec::new();
    for some in checks.processes.chunks(MOST) {
        all.extend(thread::scope(|scope| {
            let begin = |(key, process): &(Key, Identity)| {
                let (key, pid) = (*key, process.pid);
                let work = move || (key, one(checks, command, pid).err());
                thread::Builder::new().stack_size(super::STACK_SIZE).spawn_scoped(scope, work).ok()
            };
            let threads: Vec<_> = some.iter().filter_map(begin).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<_>>()
        }));
    }
    all
}

fn one(checks: &Checks, text: &str, pid: i32) -> Result<(), String> {
    let plain = |error: std::io::Error| error.to_string();
    let spec = &checks.spec;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text]).current_dir(&spec.directory).env_clear();
    command.envs(spec.environment.0.iter().map(|(name, value)| (name, value))).env("SUPERVISOR_PID", pid.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    if let Some(user) = As::of(&spec.options).map_err(|error| format!("{error:#}"))? {
        command.gid(user.gid.as_raw()).uid(user.uid.as_raw());
    }
    let mut child = command.spawn().map_err(plain)?;
    let leader = Pid::from_child(&child);
    let time = Timespec::try_from(checks.timeout).ok();
    let ended = pidfd_open(leader, PidfdFlags::empty())
        .and_then(|pidfd| poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], time.as_ref()))
        .map_err(|error| plain(error.into()));
    // Whatever it has left behind ends with it; the id is still taken.
    let _ = kill_process_group(leader, Signal::KILL);
    let status = child.wait().map_err(plain)?;
    if ended? == 0 {
        return Err(format!("the command did not end within {}", humantime::format_duration(checks.timeout)));
    }
    if status.success() {
        return Ok(());
    }
    let mut said = [0; 256];
    let count = child.stderr.take().map_or(Ok(0), |mut stderr| stderr.read(&mut said)).unwrap_or(0);
    let text = String::from_utf8_lossy(&said[..count]);
    let said = text.lines().next().map(|line| format!(": {line}")).unwrap_or_default();
    Err(format!("{status}{said}"))
}
