//! The end of processes that nobody knows any more: what workers leave behind, and what an earlier keeper has left.
//!
//! Every process inherits the mark of its worker, the path of its notify socket, in its first environment.

use super::Keeper;
use crate::cgroup::Delegated;
use crate::channel::{Key, Report};
use crate::home::{CHECK, Home};
use crate::proc::{self, Identity};
use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time for a process of an earlier keeper to answer its remaining requests and end.
const PATIENCE: Duration = Duration::from_secs(12);

/// The program of a supervisor, and the roles in which it is one.
const PROGRAM: &[u8] = b"supervisor-keeper";
const ROLES: [&[u8]; 3] = [b"keeper", b"adopt", b"daemon"];

/// Processes that were asked to end.
pub struct Left {
    processes: Vec<Identity>,
    /// When they are killed.
    pub due: Instant,
}

impl Left {
    /// Waits until all have ended, or are due to be killed.
    pub fn wait(&self) {
        for process in &self.processes {
            let Some(pidfd) = Pid::from_raw(process.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
                continue;
            };
            // From here on, no other process can get this id. The end of the daemon interrupts the wait.
            while process.is_alive() {
                let rest = Timespec::try_from(self.due.saturating_duration_since(Instant::now())).ok();
                if poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], rest.as_ref()) != Err(Errno::INTR) {
                    break;
                }
            }
        }
    }

    /// Kills those that have not ended.
    pub fn kill(&self) {
        kill(&self.processes);
    }
}

/// Kills those of these processes that have not ended.
pub fn kill(processes: &[Identity]) {
    for process in processes.iter().filter(|process| process.is_alive()) {
        let _ = Pid::from_raw(process.pid).map(|pid| kill_process(pid, Signal::KILL));
    }
}

impl Keeper {
    /// Kills what workers have left behind in sessions of their own. An orphan becomes a child of the keeper, unless another one had started its worker.
    pub(super) fn end_strays(&self) {
        let known = self.leaders();
        for pid in proc::children().into_iter().filter(|pid| !known.contains(pid)).filter_map(Pid::from_raw) {
            if mark(&self.home, pid.as_raw_pid()).is_some_and(|key| !self.runs(key)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Kills all that is left when no worker is: orphans that bear no mark, whoever's they were. Other supervisors are none of them: like this one, they
    /// are meant to outlive whoever has started them.
    pub(super) fn end_orphans(&self) {
        let is_daemon = |pid: &i32| self.daemon.as_ref().is_some_and(|daemon| daemon.pid == *pid);
        for pid in proc::children().into_iter().filter(|pid| !is_daemon(pid) && !is_supervisor(*pid)) {
            let all: Vec<Identity> = Identity::of(pid).into_iter().chain(descendants(pid)).collect();
            kill(&all);
        }
    }

    /// Asks processes to end that earlier keepers have left: these, with their groups, and all that bear a mark of which no worker is known.
    pub(super) fn sweep(&mut self, suspects: &[Identity]) -> Result<()> {
        let known = self.leaders();
        let marked =
            proc::all().into_iter().filter(|pid| mark(&self.home, *pid).is_some_and(|key| !self.workers.contains_key(&key)));
        let mut left: Vec<Identity> = marked.filter_map(Identity::of).collect();
        for process in suspects.iter().filter(|process| process.is_alive() && !known.contains(&process.pid)) {
            let _ = Pid::from_raw(process.pid).map(|pid| kill_process_group(pid, Signal::TERM));
            left.extend((!left.contains(process)).then_some(*process));
        }
        if left.is_empty() {
            return Ok(());
        }
        // A second signal would mean "end at once" to some.
        for process in left.iter().filter(|process| !suspects.contains(process)) {
            let _ = Pid::from_raw(process.pid).map(|pid| kill_process(pid, Signal::TERM));
        }
        let count = left.len();
        self.left = Some(Left { processes: left, due: Instant::now() + PATIENCE });
        if suspects.is_empty() {
            self.report(&Report::Remark(format!("{count} processes that nobody knew were asked to end")))?;
        }
        Ok(())
    }

    /// Kills the commands of checks that a daemon has left behind.
    pub(super) fn end_checks(&self) {
        // A supervisor that a check has started is independent of it.
        let is_check = |pid: &i32| named(&self.home, *pid, CHECK).is_some() && !is_supervisor(*pid);
        for pid in proc::all().into_iter().filter(is_check).filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Returns whether a process bears the mark of a worker that runs.
    pub(super) fn is_marked(&self, pid: i32) -> bool {
        mark(&self.home, pid).is_some_and(|key| self.runs(key))
    }

    fn runs(&self, key: Key) -> bool {
        self.workers.get(&key).is_some_and(super::worker::Worker::runs)
    }
}

/// Returns what a worker has started: what descends from it, and what is in its cgroup, in whatever session and with whatever environment.
pub fn started_by(home: &Home, pid: i32) -> Vec<Identity> {
    descendants(pid).into_iter().chain(in_cgroup(home, pid)).collect()
}

/// Returns what is in the cgroup of a worker besides its leader. If that has limits, they hold for other supervisors too, which then end with it. If not,
/// those are independent, with what they have started and what an earlier one of them has.
pub fn in_cgroup(home: &Home, pid: i32) -> Vec<Identity> {
    let Some(delegated) = Delegated::get() else { return Vec::new() };
    let members = delegated.members(pid);
    let is_free = !delegated.is_limited(pid);
    let supervisors: Vec<i32> = members.iter().copied().filter(|pid| is_free && is_supervisor(*pid)).collect();
    let below = |pid: &i32| proc::descendants(*pid, |_| false).into_iter().map(|process| process.pid);
    let apart: BTreeSet<i32> = supervisors.iter().flat_map(below).chain(supervisors.iter().copied()).chain([pid]).collect();
    let is_spared = |pid: &i32| apart.contains(pid) || is_free && is_of_another(home, *pid);
    members.into_iter().filter(|pid| !is_spared(pid)).filter_map(Identity::of).collect()
}

/// Returns whether another supervisor has started a process as one of an app's.
fn is_of_another(home: &Home, pid: i32) -> bool {
    let environment = proc::environment(pid);
    environment.split(|byte| *byte == 0).any(|one| one.starts_with(b"SUPERVISOR_INSTANCE=")) && mark(home, pid).is_none()
}

/// Returns what descends from a process. Other supervisors are independent of whoever has started them, even while that still waits for them.
pub fn descendants(pid: i32) -> Vec<Identity> {
    proc::descendants(pid, is_supervisor)
}

/// Returns whether a process is the keeper or the daemon of a supervisor, of whatever version.
fn is_supervisor(pid: i32) -> bool {
    let is_ours = proc::program(pid).is_some_and(|name| name.as_bytes().starts_with(PROGRAM));
    is_ours && proc::arguments(pid).split(|byte| *byte == 0).nth(1).is_some_and(|role| ROLES.contains(&role))
}

/// Returns the processes that bear the mark of a worker.
pub fn marked(home: &Home, key: Key) -> impl Iterator<Item = i32> {
    proc::all().into_iter().filter(move |pid| mark(home, *pid) == Some(key))
}

/// Returns the worker whose mark a process bears.
fn mark(home: &Home, pid: i32) -> Option<Key> {
    named(home, pid, "NOTIFY_SOCKET")
}

/// Returns the worker that a variable of a process names by its notify socket.
fn named(home: &Home, pid: i32, variable: &str) -> Option<Key> {
    let environment = proc::environment(pid);
    let value = |one: &[u8]| Some(one.strip_prefix(variable.as_bytes())?.strip_prefix(b"=")?.to_owned());
    let socket = environment.split(|byte| *byte == 0).find_map(value)?;
    let (instance, generation) = home.key_of(Path::new(OsStr::from_bytes(&socket)))?;
    Some(Key { instance, generation })
}
