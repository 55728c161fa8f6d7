//! The keeper's handling of ends: of workers, of what they leave behind, and of orphans.

use super::Keeper;
use crate::channel::{Key, Report};
use anyhow::Result;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

impl Keeper {
    /// Reaps orphans, which have no other parent, and workers whose group's last process has ended.
    pub(super) fn reap_orphans(&mut self) -> Result<()> {
        let daemon = self.daemon.as_ref().and_then(|daemon| Some(Pid::from_child(daemon.child.as_ref()?)));
        let is_known = |pid| Some(pid) == daemon || self.workers.values().any(|worker| worker.is(pid));
        let orphans: Vec<Pid> = children().into_iter().filter(|pid| !is_known(*pid)).collect();
        for pid in orphans {
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
        // Adopted workers are not children of this keeper; their pidfds report their end.
        let own: Vec<Key> = self.workers.iter().filter(|(_, worker)| worker.is_own).map(|(key, _)| *key).collect();
        own.into_iter().try_for_each(|key| self.reap(key))?;
        self.end_strays();
        Ok(())
    }

    /// Kills what workers have left behind in sessions of their own. An orphan becomes a child of the keeper, and its first environment says whose it was.
    fn end_strays(&self) {
        for pid in children().into_iter().filter(|pid| !self.workers.values().any(|worker| worker.is(*pid))) {
            let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).unwrap_or_default();
            let socket = environment.split(|byte| *byte == 0).find_map(|one| one.strip_prefix(b"NOTIFY_SOCKET="));
            let key = socket.and_then(|socket| self.home.key_of(Path::new(OsStr::from_bytes(socket))));
            let is_left = key.is_some_and(|(instance, generation)| {
                self.workers.get(&Key { instance, generation }).is_none_or(|worker| !worker.runs())
            });
            if is_left {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    pub(super) fn reap(&mut self, key: Key) -> Result<()> {
        // The last messages of the worker must not get lost.
        self.hear(key)?;
        let Some(worker) = self.workers.get_mut(&key) else { return Ok(()) };
        let Some(how) = worker.reap(&mut self.poller) else { return Ok(()) };
        for stream in 0..2 {
            // Two reads take the pipe's content. There is no third, since another process may keep writing to the pipe.
            for _ in 0..2 {
                if self.workers.get(&key).is_some_and(|worker| worker.has_output(stream)) {
                    self.log(key, stream)?;
                }
            }
            if let Some(worker) = self.workers.get_mut(&key) {
                worker.close(stream, &mut self.poller);
            }
        }
        self.report(&Report::Exited(key, how))
    }

    /// Closes the files that no worker writes to any more.
    pub(super) fn close_logs(&mut self) {
        let workers = &self.workers;
        let is_used = |path: &Path| workers.values().any(|worker| worker.job.logs.iter().any(|plan| plan.path == path));
        self.logs.retain(|path, _| is_used(path));
    }
}

/// The children of this thread, the only thread of the process.
fn children() -> Vec<Pid> {
    let pids = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    pids.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}
