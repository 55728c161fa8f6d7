//! The keeper's handling of ends: of workers, of what they leave behind, and of orphans.

use super::Keeper;
use crate::channel::{Key, Report};
use crate::proc;
use anyhow::Result;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::path::Path;

impl Keeper {
    /// Reaps orphans, which have no other parent, and workers whose group's last process has ended.
    pub(super) fn reap_orphans(&mut self) -> Result<()> {
        let is_daemon = |pid| self.daemon.as_ref().is_some_and(|daemon| daemon.is(pid));
        let is_known = |pid| is_daemon(pid) || self.workers.values().any(|worker| worker.is(pid));
        let orphans: Vec<Pid> = proc::children().into_iter().filter_map(Pid::from_raw).filter(|pid| !is_known(*pid)).collect();
        for pid in orphans {
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
        // Adopted workers are not children of this keeper; their pidfds report their end.
        let own: Vec<Key> = self.workers.iter().filter(|(_, worker)| worker.is_own).map(|(key, _)| *key).collect();
        own.into_iter().try_for_each(|key| self.reap(key))?;
        self.end_strays();
        Ok(())
    }

    pub(super) fn reap(&mut self, key: Key) -> Result<()> {
        // The last messages of the worker must not get lost.
        self.hear(key)?;
        let Some(worker) = self.workers.get_mut(&key) else { return Ok(()) };
        if !worker.reap(&mut self.poller) {
            return Ok(());
        }
        for stream in 0..2 {
            // Two reads take the pipe's content. There is no third, since another process may keep writing to the pipe.
            for _ in 0..2 {
                if self.workers.get(&key).is_some_and(|worker| worker.has_output(stream)) {
                    self.log(key, stream)?;
                }
            }
            self.log_rest(key, stream, true)?;
            if let Some(worker) = self.workers.get_mut(&key) {
                worker.close(stream, &mut self.poller);
            }
        }
        match self.workers.get(&key).and_then(super::worker::Worker::end) {
            Some(end) => self.report(&Report::Exited(key, end)),
            None => Ok(()),
        }
    }

    /// Closes the files that no worker writes to any more.
    pub(super) fn close_logs(&mut self) {
        let workers = &self.workers;
        let is_used = |path: &Path| workers.values().any(|worker| worker.job.logs.iter().any(|plan| plan.path == path));
        self.logs.retain(|path, _| is_used(path));
    }
}
