//! The recovery of a new daemon: it merges the saved table with the keeper's reports of the running processes.

use super::listeners::Wish;
use super::readiness::Readiness;
use super::saved::Found;
use super::table::{App, Instance, Other, Worker};
use super::task::Verb;
use super::worker::{Event, State, Then};
use super::{Core, Output, Version};
use crate::channel::{End, Job, Key, Order, Report};
use crate::proc::Identity;
use crate::spec::Spec;
use signal_hook::consts::SIGKILL;
use std::collections::BTreeMap;

/// What is known until the keeper has reported everything.
pub(super) struct Recovery {
    found: Found,
    reported: BTreeMap<Key, Reported>,
}

/// A process that the keeper has reported.
struct Reported {
    job: Job,
    process: Identity,
    is_ready: bool,
    is_told_to_end: bool,
    says: Option<String>,
    sends_life: bool,
    stalled_ms: Option<u64>,
    wishes: Vec<Wish>,
    end: Option<End>,
}

impl Recovery {
    pub fn new(found: Found) -> Self {
        Recovery { found, reported: BTreeMap::new() }
    }

    /// Collects reports about processes; returns all other reports.
    pub fn take(&mut self, report: Report) -> Option<Report> {
        match report {
            Report::Spawned(job, process) => {
                let reported = Reported {
                    process,
                    is_ready: false,
                    is_told_to_end: false,
                    says: None,
                    sends_life: false,
                    stalled_ms: None,
                    wishes: Vec::new(),
                    end: None,
                    job: *job,
                };
                self.reported.insert(reported.job.key, reported);
            }
            Report::Ready(key) => self.reported.get_mut(&key)?.is_ready = true,
            Report::Signalled(key) => self.reported.get_mut(&key)?.is_told_to_end = true,
            Report::Status(key, says) => self.reported.get_mut(&key)?.says = Some(says),
            Report::Lives(key) => self.reported.get_mut(&key)?.sends_life = true,
            Report::Stalled(key, silence_ms) => self.reported.get_mut(&key)?.stalled_ms = Some(silence_ms),
            Report::Exited(key, end) => self.reported.get_mut(&key)?.end = Some(end),
            Report::Wants(key, number, address) => self.reported.get_mut(&key)?.wishes.push(Wish { key, number, address }),
            other => return Some(other),
        }
        None
    }
}

/// The beginning of the remark about an app whose specification is lost.
pub(super) fn lost(name: &str) -> String {
    format!("the specification of {name} is lost")
}

impl Core {
    /// Ends the recovery once the keeper has reported everything: puts running processes into the table, and starts missing ones.
    pub(super) fn recover(&mut self) {
        let Some(Recovery { mut found, reported }) = self.recovery.take() else { return };
        self.is_urgent = true;
        self.is_continued = found.is_known && found.is_same_boot;
        self.table.next_id = found.saved.next_id();
        let saved = std::mem::take(&mut found.saved.apps);
        for app in &saved {
            let instances = app.instances.iter().map(|instance| instance.restored(found.is_same_boot)).collect();
            let (spec, damage) = match found.specs.remove(&app.name) {
                Some(Ok(spec)) => (spec, None),
                Some(Err(why)) => (Spec::lost(&app.name), Some(why)),
                None => (Spec::lost(&app.name), Some("its file is missing".into())),
            };
            self.table.apps.push(App { asked: app.asked.clone(), ..App::new(spec, damage, instances) });
        }
        let mut ended = Vec::new();
        let mut by_instance: BTreeMap<u32, Vec<(Key, Reported)>> = BTreeMap::new();
        let mut wishes = Vec::new();
        for (key, mut reported) in reported {
            wishes.append(&mut reported.wishes);
            ended.extend(reported.end.clone().map(|end| (key, end)));
            by_instance.entry(key.instance).or_default().push((key, reported));
        }
        for (id, processes) in by_instance {
            self.place(id, processes, &mut found);
        }
        if let Some(trouble) = found.trouble.take() {
            self.remark(trouble);
            // Nobody can tell how many instances they had, or whether they ran.
            for (name, spec) in std::mem::take(&mut found.specs) {
                let (spec, damage) = spec.map_or_else(|why| (Spec::lost(&name), Some(why)), |spec| (spec, None));
                let instance = Instance { is_rebuilt: true, ..Instance::new(self.new_id(), 0, self.now.wall) };
                self.table.apps.push(App::new(spec, damage, vec![instance]));
            }
        }
        self.to_reload.extend(std::mem::take(&mut found.undone).into_iter().filter(|_| found.is_same_boot));
        let instances = || saved.iter().flat_map(|app| &app.instances);
        let unwanted: Vec<u32> = instances().filter(|one| !one.is_wanted()).map(|one| one.id).collect();
        self.end_unwanted(&unwanted);
        ended.iter().for_each(|(key, end)| self.ended(*key, end));
        if found.is_same_boot {
            let wanted: Vec<u32> = instances().filter(|one| one.is_wanted()).map(|one| one.id).collect();
            self.start_wanted(&wanted);
            let known: Vec<Identity> =
                self.table.all().flat_map(|(_, one)| one.workers()).filter_map(|worker| worker.state.process()).collect();
            let left = instances().flat_map(|one| &one.processes).filter(|process| !known.contains(process)).copied();
            let left: Vec<Identity> = left.collect();
            if !left.is_empty() {
                self.remark(format!(
                    "keeper and daemon had both died: the {} processes that they left were asked to end and are being replaced",
                    left.len()
                ));
            }
            self.order(Order::Sweep(left));
        } else if self.table.all().any(|(_, instance)| instance.is_ended_by_boot) {
            self.remark(
                "the system was restarted: run `supervisor resurrect` to start the saved apps, or `supervisor start all`".into(),
            );
        }
        wishes.into_iter().for_each(|wish| self.wish(wish));
        self.unbind_unused();
        for app in &self.table.apps {
            if let Some(why) = &app.damage {
                let remark = format!(
                    "{} ({why}): `supervisor resurrect` starts it if it was saved, and `supervisor apply` if it is in a file",
                    lost(&app.spec.name)
                );
                self.remarks.push(remark);
            } else {
                self.out.push(Output::Follow(Box::new(app.spec.clone())));
            }
        }
    }

    /// Finishes the stops that a previous daemon had begun.
    fn end_unwanted(&mut self, ids: &[u32]) {
        let unwanted = ids.iter().filter_map(|id| self.table.instance(*id));
        let running = unwanted.flat_map(|(_, instance)| instance.workers()).filter(|worker| worker.state.process().is_some());
        let keys: Vec<Key> = running.map(|worker| worker.key).collect();
        keys.into_iter().for_each(|key| self.feed(key, Event::Stop));
    }

    /// Starts instances that should run and do not, once their listeners are bound.
    fn start_wanted(&mut self, wanted: &[u32]) {
        let mut missing = Vec::new();
        for app in self.table.apps.iter().filter(|app| app.damage.is_none()) {
            let is_missing = |instance: &&Instance| wanted.contains(&instance.id) && instance.worker.state == State::Stopped;
            let ids: Vec<u32> = app.instances.iter().filter(is_missing).map(|instance| instance.id).collect();
            let is_bound = app.spec.listeners.iter().all(|address| self.listeners.contains_key(address));
            if !ids.is_empty() || !is_bound && !app.instances.iter().all(Instance::is_over) {
                missing.push((app.spec.name.clone(), ids));
            }
        }
        for (name, ids) in missing {
            self.push_one(None, Verb::Start { is_new: false, is_begun: false }, name, ids);
        }
    }

    /// Closes the listeners that no app has any more.
    pub(super) fn unbind_unused(&mut self) {
        let unused: Vec<String> = self.listeners.keys().filter(|address| !self.is_used(address)).cloned().collect();
        for address in unused {
            self.listeners.remove(&address);
            self.order(Order::Unbind(address));
        }
    }

    /// Assigns reported processes to their instance.
    fn place(&mut self, id: u32, processes: Vec<(Key, Reported)>, found: &mut Found) {
        if self.table.position(id).is_none() {
            if found.is_known {
                // Its app was deleted, and the order to forget it got lost.
                return processes.iter().for_each(|(key, _)| self.order(Order::Signal(*key, SIGKILL)));
            }
            self.place_unknown(id, &processes[0].1.job, found);
        }
        let now = self.now.instant;
        let lost = self.table.position(id).map(|(number, _)| &mut self.table.apps[number]).filter(|app| app.damage.is_some());
        if let Some(app) = lost {
            // They are all that is known of it, and its processes hold them.
            app.spec.listeners.clone_from(&processes[0].1.job.listeners);
        }
        let Some((app_number, _)) = self.table.position(id) else { return };
        let app = &mut self.table.apps[app_number];
        for address in processes.iter().flat_map(|(_, reported)| &reported.job.asked) {
            if !app.has_listener(address) {
                app.asked.push(address.clone());
            }
        }
        let (readiness, options) = (app.readiness(Version::Current), app.spec.options.clone());
        let Some(instance) = self.table.instance_mut(id) else { return };
        let (mut unwanted, mut confirmed, mut surplus, mut stalled) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        // The processes come by generation. The newest takes the instance if it is ready or the only one.
        for (key, reported) in processes {
            let process = reported.process;
            let is_ready = reported.is_ready || readiness == Readiness::Uptime;
            let (state, due) = match (reported.is_told_to_end, is_ready) {
                (true, _) => (
                    State::Stopping { process: Some(process), then: Then::Restart, is_killed: false },
                    Some(options.kill_timeout),
                ),
                (false, true) => (State::Online { process }, None),
                (false, false) => (State::Starting { process: Some(process) }, Some(options.listen_timeout)),
            };
            let mut worker = Worker::new(key, state, Version::Current);
            // Nothing tells when it became ready, which is soon after its start.
            let age = process.age().unwrap_or_default();
            worker.online = is_ready.then(|| now.checked_sub(age).unwrap_or(now));
            worker.due = due.map(|due| now + due);
            worker.is_told_to_end = reported.is_told_to_end;
            worker.says = reported.says;
            worker.asked = reported.job.asked;
            worker.left = reported.job.has_left.then_some(now);
            worker.logs = Some(reported.job.logs.map(|plan| plan.path));
            worker.sends_life = reported.sends_life;
            stalled.extend(reported.stalled_ms.map(|silence_ms| (key, silence_ms)));
            confirmed.extend(reported.end.is_none().then_some(key));
            instance.generation = instance.generation.max(key.generation);
            if instance.worker.state.is_over() {
                instance.worker = worker;
                continue;
            }
            // What an earlier daemon was trying out does not take over.
            let before = if is_ready && instance.tried != Some(key.generation) {
                let last = std::mem::replace(&mut instance.worker, worker);
                unwanted.push(last.key);
                instance.other.replace(Other::Retiring(last))
            } else {
                // The command that wanted the replacement ended with the last daemon.
                unwanted.push(key);
                instance.other.replace(Other::Replacement(worker))
            };
            // An instance has room for two.
            surplus.extend(before.map(|other| other.worker().key));
        }
        (instance.is_ended_by_boot, instance.tried) = (false, None);
        let leaving = instance.is_leaving.then_some(instance.worker.key);
        stalled.into_iter().for_each(|(key, silence_ms)| self.stalled(key, silence_ms));
        surplus.into_iter().for_each(|key| self.order(Order::Signal(key, SIGKILL)));
        confirmed.into_iter().for_each(|key| self.order(Order::Confirm(key)));
        unwanted.into_iter().chain(leaving).for_each(|key| self.feed(key, Event::Stop));
    }

    /// Restores an instance that the saved table does not have: the specification of its running process is still known.
    fn place_unknown(&mut self, id: u32, job: &Job, found: &mut Found) {
        let instance = Instance::new(id, job.number, self.now.wall);
        self.table.next_id = self.table.next_id.max(id.saturating_add(1));
        match self.table.app_mut(&job.app) {
            Some(app) => app.instances.push(instance),
            None => {
                let (spec, damage) = match found.specs.remove(&job.app) {
                    Some(Ok(spec)) => (spec, None),
                    Some(Err(why)) => (Spec::lost(&job.app), Some(why)),
                    None => (Spec::lost(&job.app), Some("its file is missing".into())),
                };
                self.table.apps.push(App::new(spec, damage, vec![instance]));
            }
        }
    }
}
