//! The keeper's handling of ends: of workers, of what they leave behind, and of orphans.

use super::worker::Worker;
use super::{Keeper, sweep};
use crate::cgroup::Delegated;
use crate::channel::{Key, Report};
use crate::proc;
use anyhow::Result;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::collections::BTreeSet;

impl Keeper {
    /// Reaps orphans, which have no other parent, and workers whose group's last process has ended.
    pub(super) fn reap_orphans(&mut self) -> Result<()> {
        let is_daemon = |pid| self.daemon.as_ref().is_some_and(|daemon| daemon.is(pid));
        let known = self.leaders();
        let children = proc::children().into_iter().filter(|pid| !known.contains(pid)).filter_map(Pid::from_raw);
        let orphans: Vec<Pid> = children.filter(|pid| !is_daemon(*pid)).collect();
        for pid in orphans {
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
        // The end of a leader is reported by its pidfd; that of the last process of its group is not.
        let left: Vec<Key> =
            self.workers.iter().filter(|(_, worker)| worker.is_own && !worker.runs()).map(|(key, _)| *key).collect();
        left.into_iter().try_for_each(|key| self.reap(key))?;
        self.end_strays();
        self.remove_cgroups();
        Ok(())
    }

    /// Removes the cgroups of workers that have ended. What is left in one is killed, and it can be removed after the next end.
    fn remove_cgroups(&mut self) {
        let Some(delegated) = Delegated::get().filter(|_| !self.cgroups.is_empty()) else { return };
        self.cgroups.retain(|pid| {
            sweep::kill(&sweep::in_cgroup(&self.home, *pid));
            !delegated.remove(*pid)
        });
    }

    /// The process ids of the workers.
    pub(super) fn leaders(&self) -> BTreeSet<i32> {
        self.workers.values().map(Worker::pid).collect()
    }

    pub(super) fn reap(&mut self, key: Key) -> Result<()> {
        // The last messages of the worker must not get lost.
        self.hear(key)?;
        let Some(worker) = self.workers.get_mut(&key) else { return Ok(()) };
        if !worker.reap(&self.home, &mut self.poller) {
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
        self.cgroups.extend(self.workers.get(&key).map(Worker::pid));
        self.remove_cgroups();
        match self.workers.get(&key).and_then(Worker::end) {
            Some(end) => self.report(&Report::Exited(key, end)),
            None => Ok(()),
        }
    }

    /// Forgets a worker, and closes its logs unless another one writes to them.
    pub(super) fn forget(&mut self, key: Key) -> Result<()> {
        let Some(worker) = self.workers.remove(&key) else { return Ok(()) };
        for plan in &worker.job.logs {
            let is_used = self.workers.values().any(|other| other.job.logs.iter().any(|own| own.path == plan.path));
            // The next one at this path knows nothing of the trouble of this one.
            if !is_used && self.logs.remove(&plan.path).is_some_and(|log| log.trouble().is_some()) {
                self.report(&Report::LogTrouble(plan.path.clone(), None))?;
            }
        }
        Ok(())
    }
}
