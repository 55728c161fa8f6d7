//! The simulated keeper.

use super::apps::CHECKED;
use super::world::{Process, World};
use crate::channel::{End, Job, Key, Order, Report};
use crate::proc::Identity;
use rustix::io::Errno;
use signal_hook::consts::SIGKILL;
use std::collections::{BTreeMap, BTreeSet};

/// What the keeper holds.
#[derive(Default)]
pub struct Keeper {
    pub listeners: BTreeSet<String>,
    pub workers: BTreeMap<Key, (Job, Identity, Said)>,
}

/// What the keeper has reported of a worker.
#[derive(Debug, Clone, Default)]
pub struct Said {
    ready: bool,
    /// What it has asked for and did not get yet.
    asks: Option<String>,
    signalled: bool,
    ended: bool,
}

impl World {
    /// Lets the keeper execute one order.
    pub fn keeper_acts(&mut self) -> bool {
        let Some(order) = self.orders.pop_front() else { return false };
        self.note(format!("keeper: {order:?}"));
        match order {
            Order::Bind(address) => {
                let is_held = self.processes.values().any(|(_, _, held)| held.contains(&address));
                if self.keeper.listeners.contains(&address) || !is_held {
                    self.keeper.listeners.insert(address.clone());
                    self.reports.push_back(Report::Bound(address.clone(), address));
                } else {
                    self.reports.push_back(Report::CannotBind(address, Errno::ADDRINUSE.raw_os_error(), "in use".into()));
                }
            }
            Order::Unbind(address) => drop(self.keeper.listeners.remove(&address)),
            Order::Spawn(job) => {
                self.next_pid += 1;
                let identity = Identity { pid: self.next_pid, started: 1 };
                self.processes.insert(self.next_pid, (job.key, Process::Launching, job.listeners.clone()));
                self.programs.insert(self.next_pid, self.program_of(&job));
                self.reports.push_back(Report::Spawned(Box::new(job.clone()), identity));
                self.keeper.workers.insert(job.key, (job, identity, Said::default()));
            }
            Order::Confirm(key) => {
                let is_bad = self.is_bad_build;
                if let Some(process) = self.process_of(key)
                    && *process == Process::Launching
                {
                    *process = Process::Running { is_ready: false, is_bad };
                }
            }
            Order::Signal(key, signal) => {
                let Some((_, identity, said)) = self.keeper.workers.get_mut(&key) else { return true };
                said.signalled = true;
                let pid = identity.pid;
                self.reports.push_back(Report::Signalled(key));
                let is_dead = signal == SIGKILL || self.process_of(key).is_some_and(|process| *process == Process::Launching);
                if is_dead {
                    self.processes.remove(&pid);
                } else if let Some(process) = self.process_of(key) {
                    *process = Process::Ending;
                }
            }
            Order::Forget(key) => drop(self.keeper.workers.remove(&key)),
            Order::AdoptListener(address) => drop(self.keeper.listeners.insert(address)),
            Order::AdoptWorker(job, identity, standing) => {
                if self.processes.contains_key(&identity.pid) {
                    let said = Said { ready: standing.is_ready, signalled: standing.is_told_to_end, ended: false, asks: None };
                    self.reports.push_back(Report::Spawned(Box::new(job.clone()), identity));
                    self.keeper.workers.insert(job.key, (job, identity, said));
                } else {
                    self.reports.push_back(Report::Vanished(job.key));
                }
            }
            Order::Sweep(_) => {
                let known: Vec<Key> = self.keeper.workers.keys().copied().collect();
                self.processes.retain(|_, (key, ..)| known.contains(key));
            }
            Order::Give(key, _, address) => {
                if let Some((job, identity, said)) = self.keeper.workers.get_mut(&key)
                    && self.keeper.listeners.contains(&address)
                {
                    said.asks = None;
                    job.asked.push(address.clone());
                    if let Some((_, process, held)) = self.processes.get_mut(&identity.pid) {
                        held.push(address);
                        if *process == Process::Asking {
                            *process = Process::Running { is_ready: true, is_bad: false };
                        }
                    }
                }
            }
            Order::Refuse(key, ..) => {
                if let Some((_, identity, said)) = self.keeper.workers.get_mut(&key) {
                    said.asks = None;
                    // It does not expect that.
                    self.processes.remove(&identity.pid);
                }
            }
            Order::Ready(key) => {
                if let Some((.., said)) = self.keeper.workers.get_mut(&key) {
                    said.ready = true;
                }
            }
            Order::AdoptControl | Order::Flush(_) | Order::Reopen | Order::Raise(..) => {}
            Order::Leave => {}
            Order::Quit => self.is_over = true,
        }
        true
    }

    /// Hears what a process asks for.
    pub fn ask(&mut self, key: Key, address: String) {
        if let Some((_, _, said)) = self.keeper.workers.get_mut(&key) {
            said.asks = Some(address.clone());
            self.reports.push_back(Report::Wants(key, 1, address));
        }
    }

    /// Lets each process close the listeners that it has asked for, and go on.
    pub fn close_listeners(&mut self) {
        for (key, (job, identity, _)) in &mut self.keeper.workers {
            let Some((_, _, held)) = self.processes.get_mut(&identity.pid) else { continue };
            for address in std::mem::take(&mut job.asked) {
                job.has_left = true;
                held.retain(|one| *one != address);
                self.reports.push_back(Report::Leaves(*key, address));
            }
        }
    }

    pub fn process_of(&mut self, key: Key) -> Option<&mut Process> {
        self.processes.values_mut().find(|(own, ..)| *own == key).map(|(_, process, _)| process)
    }

    /// Lets the keeper see what its processes did.
    pub fn keeper_looks(&mut self) -> bool {
        let mut has_seen = false;
        for (key, (job, identity, said)) in &mut self.keeper.workers {
            let process = self.processes.get(&identity.pid).map(|(_, process, _)| *process);
            let says_so = job.app != CHECKED;
            if matches!(process, Some(Process::Running { is_ready: true, .. })) && !said.ready && says_so {
                said.ready = true;
                self.reports.push_back(Report::Ready(*key));
                has_seen = true;
            }
            if process.is_none() && !said.ended {
                said.ended = true;
                self.reports.push_back(Report::Exited(*key, End::plain("ended".into())));
                has_seen = true;
            }
        }
        has_seen
    }

    pub fn tell_everything(&mut self) {
        self.reports.push_back(Report::Control);
        self.reports.extend(self.keeper.listeners.iter().map(|address| Report::Bound(address.clone(), address.clone())));
        for (key, (job, identity, said)) in &self.keeper.workers {
            self.reports.push_back(Report::Spawned(Box::new(job.clone()), *identity));
            self.reports.extend(said.ready.then_some(Report::Ready(*key)));
            self.reports.extend(said.asks.clone().map(|address| Report::Wants(*key, 1, address)));
            self.reports.extend(said.signalled.then_some(Report::Signalled(*key)));
            self.reports.extend(said.ended.then(|| Report::Exited(*key, End::plain("ended".into()))));
        }
        self.reports.push_back(Report::Told);
    }
}
