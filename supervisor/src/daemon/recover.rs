//! Recovery of a new daemon: it merges the saved table with the keeper's reports of the running processes.

use super::state::{self, Before};
use super::table::{App, Instance, Other, Table, Worker};
use super::task::{Task, Verb};
use super::worker::State;
use super::{Daemon, Event, Source};
use crate::channel::{Job, Key, Order, Report};
use crate::control;
use crate::home::Home;
use crate::proc::Identity;
use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// The state of a recovery until the keeper has reported everything.
pub struct Recovery {
    table: Table,
    before: Vec<Before>,
    remark: Option<String>,
    reported: BTreeMap<Key, ReportedProcess>,
}

/// A process that the keeper has reported.
struct ReportedProcess {
    job: Job,
    process: Identity,
    descriptors: Vec<OwnedFd>,
    is_ready: bool,
    says: Option<String>,
    end: Option<String>,
}

impl Recovery {
    /// Reads the saved table.
    pub fn begin(home: &Home) -> Self {
        let (table, before, remark) = state::load(home);
        Recovery { table, before, remark, reported: BTreeMap::new() }
    }

    /// Collects reports about processes; returns all other reports.
    pub fn take(&mut self, report: Report, descriptors: Vec<OwnedFd>) -> Option<(Report, Vec<OwnedFd>)> {
        match report {
            Report::Spawned(job, process) => {
                let reported = ReportedProcess { process, descriptors, is_ready: false, says: None, end: None, job };
                self.reported.insert(reported.job.key, reported);
            }
            Report::Ready(key) => self.reported.get_mut(&key)?.is_ready = true,
            Report::Status(key, says) => self.reported.get_mut(&key)?.says = Some(says),
            Report::Exited(key, how) => self.reported.get_mut(&key)?.end = Some(how),
            other => return Some((other, descriptors)),
        }
        None
    }
}

impl Daemon {
    /// Ends the recovery once the keeper has reported everything: puts running processes into the table, and starts missing ones.
    pub fn recover(&mut self) -> Result<()> {
        let Some(recovery) = self.recovery.take() else { return Ok(()) };
        self.table = recovery.table;
        self.remarks.extend(recovery.remark);
        self.is_dirty = true;
        let mut ended = Vec::new();
        let mut by_instance: BTreeMap<u32, Vec<(Key, ReportedProcess)>> = BTreeMap::new();
        for (key, reported) in recovery.reported {
            if reported.end.is_some() {
                ended.push((key, reported.end.clone().unwrap_or_default()));
            }
            by_instance.entry(key.instance).or_default().push((key, reported));
        }
        for (id, processes) in by_instance {
            self.place(id, processes)?;
        }
        let wanted: Vec<u32> = recovery.before.iter().filter(|before| before.is_wanted).map(|before| before.id).collect();
        self.end_orphans(&recovery.before);
        self.end_unwanted(&recovery.before)?;
        for (key, how) in ended {
            self.ended(key, how)?;
        }
        self.start_wanted(&wanted)?;
        let is_used = |address: &String| self.table.apps.iter().any(|app| app.spec.listeners.contains(address));
        let unused: Vec<String> = self.listeners.keys().filter(|address| !is_used(address)).cloned().collect();
        for address in unused {
            self.listeners.remove(&address);
            self.order(&Order::Unbind(address))?;
        }
        if let Some(control) = &self.control {
            self.poller.add(control, Source::Control)?;
        }
        for name in self.table.apps.iter().map(|app| app.spec.name.clone()).collect::<Vec<_>>() {
            if let Err(error) = self.watch(&name) {
                self.remarks.push(format!("{error:#}"));
            }
        }
        self.check_memory()
    }

    /// Finishes the stops that a previous daemon had begun.
    fn end_unwanted(&mut self, before: &[Before]) -> Result<()> {
        let unwanted = before.iter().filter(|before| !before.is_wanted).filter_map(|before| self.table.instance(before.id));
        let running = unwanted.flat_map(|(_, instance)| instance.workers()).filter(|worker| worker.state.process().is_some());
        let keys: Vec<Key> = running.map(|worker| worker.key).collect();
        keys.into_iter().try_for_each(|key| self.feed(key, Event::Stop))
    }

    /// Starts instances that should run and do not, once their listeners are bound.
    fn start_wanted(&mut self, wanted: &[u32]) -> Result<()> {
        for app in &self.table.apps {
            let is_missing = |instance: &&Instance| wanted.contains(&instance.id) && instance.worker.state == State::Stopped;
            let ids: Vec<u32> = app.instances.iter().filter(is_missing).map(|instance| instance.id).collect();
            let left: Vec<String> =
                app.spec.listeners.iter().filter(|address| !self.listeners.contains_key(*address)).cloned().collect();
            if !ids.is_empty() || !left.is_empty() {
                self.tasks.push(Task { client: None, verb: Verb::Bind { left }, apps: vec![app.spec.name.clone()], ids });
            }
        }
        self.bind_again()
    }

    /// Assigns reported processes to their instance.
    fn place(&mut self, id: u32, processes: Vec<(Key, ReportedProcess)>) -> Result<()> {
        if self.table.position(id).is_none() {
            let job = &processes[0].1.job;
            self.place_unknown(id, job);
        }
        let Some((app, _)) = self.table.instance(id) else { return Ok(()) };
        let (is_cluster, options) = (app.spec.is_cluster(), app.spec.options.clone());
        let Some(instance) = self.table.instance_mut(id) else { return Ok(()) };
        let mut retiring = None;
        // The processes come by generation. The newest takes the instance if it is ready or the only one.
        for (key, reported) in processes {
            let is_ready = reported.is_ready || !is_cluster;
            let mut worker = Worker::new(key);
            worker.state = if is_ready {
                State::Online { process: reported.process }
            } else {
                State::Starting { process: Some(reported.process) }
            };
            worker.online = is_ready.then(Instant::now);
            worker.due = (!is_ready).then(|| Instant::now() + options.listen_timeout);
            worker.descriptors = reported.descriptors;
            worker.says = reported.says;
            instance.generation = instance.generation.max(key.generation);
            if instance.worker.state.is_over() {
                instance.worker = worker;
            } else if is_ready {
                let last = std::mem::replace(&mut instance.worker, worker);
                retiring = Some(last.key);
                instance.other = Some(Other::Retiring(last));
            } else {
                instance.other = Some(Other::Replacement(worker));
            }
        }
        // The command that wanted the replacement ended with the last daemon.
        let unwanted = match &instance.other {
            Some(Other::Replacement(worker)) => Some(worker.key),
            _ => retiring,
        };
        let leaving = instance.is_leaving.then_some(instance.worker.key);
        unwanted.into_iter().chain(leaving).try_for_each(|key| self.feed(key, Event::Stop))
    }

    /// Restores an instance that the lost table held: the specification of its running process is still known.
    fn place_unknown(&mut self, id: u32, job: &Job) {
        let Ok(spec) = state::read_spec(&job.spec) else { return };
        let instance = Instance::new(id, job.number);
        self.table.next_id = self.table.next_id.max(id + 1);
        match self.table.apps.iter_mut().find(|app| app.spec.name == spec.name) {
            Some(app) => app.instances.push(instance),
            None => self.table.apps.push(App { spec, instances: vec![instance] }),
        }
    }

    /// Asks the processes to end that a dead keeper and a dead daemon left behind. They cannot be kept, since no process reads
    /// their output.
    fn end_orphans(&mut self, before: &[Before]) {
        let known: Vec<Identity> =
            self.table.all().flat_map(|(_, instance)| instance.workers()).filter_map(|worker| worker.state.process()).collect();
        let mut count = 0;
        for process in before.iter().flat_map(|before| &before.processes) {
            if !known.contains(process) && process.is_alive() {
                count += 1;
                if let Some(pid) = Pid::from_raw(process.pid) {
                    let _ = kill_process_group(pid, Signal::TERM);
                }
            }
        }
        if count > 0 {
            self.remarks.push(format!(
                "keeper and daemon had both died: the {count} processes that they left were asked to end and are being replaced"
            ));
        }
    }

    /// Returns the table for `list`.
    pub fn view(&self) -> control::Table {
        let instances = self.table.all().map(|(app, instance)| self.view_of(app, instance));
        control::Table {
            supervisor: Some(control::Own { keeper: self.keeper.pid, daemon: std::process::id() as i32 }),
            remarks: self.remarks.clone(),
            instances: instances.collect(),
        }
    }
}
