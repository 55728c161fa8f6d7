//! How a worker is asked to end, and how its end is seen.

use super::Worker;
use crate::cgroup::Delegated;
use crate::home::Home;
use crate::keeper::{Source, sweep};
use crate::poll::Poller;
use crate::proc;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, kill_process_group, pidfd_send_signal,
    test_kill_process_group, waitid,
};
use std::os::fd::AsFd;

/// Description of the exit of a worker that another keeper had started: the kernel tells only a parent the exit status.
const UNSEEN: &str = "ended, with unknown exit status: its parent, the previous keeper, has died";

impl Worker {
    /// Asks the worker's leader to end, or kills its whole group.
    pub fn signal(&mut self, signal: i32, home: &Home) {
        let (Some(signal), Some(pid)) = (Signal::from_named_raw(signal), Pid::from_raw(self.identity.pid)) else { return };
        let was_told = std::mem::replace(&mut self.is_told_to_end, true);
        let runs = self.runs();
        if runs && !self.is_ready && !self.job.listeners.is_empty() {
            self.child = proc::group(self.identity.pid).into_iter().find(|pid| *pid != self.identity.pid).and_then(proc::name);
        }
        if runs {
            // Those whose parent has ended since the first signal are not below it any more.
            self.descendants.extend(sweep::started_by(home, self.identity.pid));
        }
        // A process that has already ended does not need the signal.
        let _ = match (self.is_over, signal == Signal::KILL) {
            (true, _) => Ok(()),
            // The leader may ask its own children to end. A second signal would tell them to end at once, so it is not sent.
            (false, false) if runs && was_told => Ok(()),
            (false, false) if runs => pidfd_send_signal(&self.pidfd, signal),
            (false, _) => kill_process_group(pid, signal),
        };
    }

    /// Sends a signal to the leader, whatever it makes of it.
    pub fn raise(&self, signal: i32) {
        // A process that has already ended does not need it.
        let _ = Signal::from_named_raw(signal).map(|signal| pidfd_send_signal(&self.pidfd, signal));
    }

    /// Returns whether its whole group has ended just now. If the leader was asked to end, the processes that it leaves behind are asked to end too,
    /// while its process id is still taken. Otherwise, they are killed.
    pub fn reap(&mut self, home: &Home, poller: &mut Poller<Source>) -> bool {
        let Some(leader) = Pid::from_raw(self.identity.pid).filter(|_| !self.is_over) else { return false };
        if self.last_word.is_none() {
            let how = if self.is_own { self.reap_leader(leader) } else { Some(self.end_adopted(leader)) };
            if how.is_none() {
                return false;
            }
            self.last_word = how;
            self.unwatch(poller);
        }
        // The process id belongs to the group while one of its processes exists.
        self.is_over = if self.is_own { test_kill_process_group(leader).is_err() } else { !self.has_remains(home, poller) };
        if self.is_over {
            sweep::kill(&self.descendants);
            sweep::kill(&sweep::in_cgroup(home, self.identity.pid));
        }
        self.is_over
    }

    /// Returns the exit description of the leader, if it has ended.
    fn reap_leader(&self, leader: Pid) -> Option<(String, Option<i32>)> {
        let exited = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let leader_fd = || WaitId::PidFd(self.pidfd.as_fd());
        waitid(leader_fd(), exited | WaitIdOptions::NOWAIT).ok().flatten()?;
        let _ = kill_process_group(leader, if self.is_told_to_end { Signal::TERM } else { Signal::KILL });
        let status = waitid(leader_fd(), exited).ok().flatten()?;
        // One that the supervisor has killed may have been short of memory long before.
        let is_killed = status.killed() && !self.is_told_to_end;
        let is_out_of_memory = is_killed && Delegated::get().is_some_and(|delegated| delegated.ran_out_of_memory(self.pid()));
        let why = if is_out_of_memory { ": all of its --memory-max was in use" } else { "" };
        Some((format!("{}{why}", describe(&status)), status.exit_status()))
    }

    /// Like [`Self::reap_leader`], for an adopted worker: its pidfd has become readable, so it has ended.
    fn end_adopted(&self, leader: Pid) -> (String, Option<i32>) {
        let _ = kill_process_group(leader, if self.is_told_to_end { Signal::TERM } else { Signal::KILL });
        (UNSEEN.into(), None)
    }

    /// Watches what an adopted worker has left behind; returns whether anything is left. What it has started in sessions of their own is killed.
    fn has_remains(&mut self, home: &Home, poller: &mut Poller<Source>) -> bool {
        let key = self.key();
        let group = proc::group(self.identity.pid);
        let strays: Vec<i32> = sweep::marked(home, key).filter(|pid| !group.contains(pid)).collect();
        for stray in strays.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            let _ = kill_process(stray, Signal::KILL);
        }
        self.remains.watch(group.into_iter().chain(strays), key, poller)
    }
}

fn describe(status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => {
            format!("killed by {}", signal_hook::low_level::signal_name(signal).unwrap_or("a signal without a name"))
        }
        (None, None) => "ended".into(),
    }
}
