//! The beginning of each command.

use super::saved::AtRest;
use super::table::{App, Instance, Other};
use super::task::{Task, Verb};
use super::worker::{Event, State};
use super::{Client, Core, Output, Version};
use crate::channel::{Key, Order};
use crate::control::{Answer, Request, Size};
use crate::spec::Spec;
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Most logs that one order empties; each has a path of at most 4 KiB.
const FLUSHED: usize = 8;
/// Most instances of one app.
pub const MOST_INSTANCES: u32 = 1000;

impl Core {
    /// Begins a command.
    pub(super) fn begin(&mut self, client: Client, request: Request) {
        if let Err(error) = self.try_begin(client, request) {
            self.answer(client, Answer::Error(format!("{error:#}")));
        }
    }

    fn try_begin(&mut self, client: Client, request: Request) -> Result<()> {
        match request {
            Request::List => {
                let table = self.view();
                self.answer(client, Answer::Table(table));
                Ok(())
            }
            // Nobody waits for the end yet.
            Request::Kill if self.ending == Some(None) => {
                self.end_all(Some(client));
                Ok(())
            }
            _ if self.ending.is_some() => bail!("the supervisor is shutting down: retry once it has stopped"),
            Request::Start { spec, instances } => self.begin_start(Some(client), *spec, instances, &AtRest::default()),
            Request::Change { spec } => self.begin_change(Some(client), *spec, &AtRest::default()),
            Request::Resume(target) => {
                let ids = self.free(&target)?;
                self.refuse_damaged(&ids)?;
                for name in self.names(&ids) {
                    let own = self.of(&ids, &name);
                    self.push_one(Some(client), Verb::Start { is_new: false, is_begun: false }, name, own);
                }
                Ok(())
            }
            Request::Stop(target) => {
                self.take_over(&target, "stop")?;
                let ids = self.free(&target)?;
                self.stop(&ids);
                self.push(client, Verb::Stop, self.names(&ids), ids);
                Ok(())
            }
            Request::Restart(target, environment) => {
                let ids = self.free(&target)?;
                self.refuse_damaged(&ids)?;
                for name in self.names(&ids) {
                    let own = self.of(&ids, &name);
                    let has_next = self.prepare_next(&name, environment.as_ref());
                    self.push_one(Some(client), Verb::Restart { is_begun: false }, name, own).is_prepared = !has_next;
                }
                Ok(())
            }
            Request::Reload(target, environment, pace) => self.begin_reload(client, &target, environment.as_ref(), pace),
            Request::Delete(target) => {
                self.take_over(&target, "delete")?;
                let ids = self.free(&target)?;
                self.table.all_mut().filter(|one| ids.contains(&one.id)).for_each(|one| one.is_leaving = true);
                self.stop(&ids);
                self.push(client, Verb::Delete, self.names(&ids), ids);
                Ok(())
            }
            Request::Scale(target, size) => self.begin_scale(client, &target, size),
            Request::Reset(target) => {
                let ids = self.table.select(&target)?;
                for instance in self.table.all_mut().filter(|instance| ids.contains(&instance.id)) {
                    (instance.restarts, instance.failures) = (0, 0);
                    instance.exits.clear();
                    instance.replacements = super::table::Replacements::default();
                }
                self.is_urgent = true;
                self.answer(client, Answer::Done(format!("the counters of {target} are zero")));
                Ok(())
            }
            Request::Signal(target, signal) => {
                let ids = self.table.select(&target)?;
                let meant =
                    self.table.all().filter(|(_, instance)| ids.contains(&instance.id)).map(|(_, instance)| &instance.worker);
                let keys: Vec<Key> = meant.filter(|worker| worker.state.process().is_some()).map(|worker| worker.key).collect();
                if keys.is_empty() {
                    bail!("{target} has no process to send a signal to");
                }
                let count = keys.len();
                keys.into_iter().for_each(|key| self.order(Order::Raise(key, signal)));
                self.answer(client, Answer::Done(format!("sent to {count} processes of {target}")));
                Ok(())
            }
            Request::Flush(target) => self.flush_logs(client, &target),
            Request::ReloadLogs => {
                self.order(Order::Reopen);
                self.answer(client, Answer::Done("all logs are being opened anew".into()));
                Ok(())
            }
            // The daemon reads the saved apps first.
            Request::Save | Request::Resurrect { .. } | Request::Update(_) => bail!("the daemon does this itself"),
            Request::Foreground => {
                self.foreground.push(client);
                Ok(())
            }
            Request::AwaitEnd => {
                // It may have asked another daemon for the rest.
                self.foreground.push(client);
                self.awaiting.push(client);
                Ok(())
            }
            Request::Kill => {
                self.end_all(Some(client));
                Ok(())
            }
        }
    }

    /// Adds an app to the list, and starts its instances except for those at these positions.
    pub(super) fn begin_start(&mut self, client: Option<Client>, spec: Spec, instances: u32, at_rest: &AtRest) -> Result<()> {
        let ids = self.add(&spec, instances)?;
        for id in (0..).zip(&ids).filter(|(position, _)| at_rest.finished.contains(position)).map(|(_, id)| *id) {
            self.table.instance_mut(id).into_iter().for_each(|instance| instance.is_finished = true);
        }
        let wanted: Vec<u32> = (0..).zip(ids).filter(|(position, _)| !at_rest.has(*position)).map(|(_, id)| id).collect();
        if !wanted.is_empty() {
            self.push_one(client, Verb::Start { is_new: true, is_begun: false }, spec.name, wanted).is_prepared = false;
        }
        Ok(())
    }

    /// Adds an app to the list; returns the ids of its instances.
    fn add(&mut self, spec: &Spec, instances: u32) -> Result<Vec<u32>> {
        spec.check()?;
        if !(1..=MOST_INSTANCES).contains(&instances) {
            bail!("{} cannot have {instances} instances, only 1 to {MOST_INSTANCES}", spec.name);
        }
        if self.table.app(&spec.name).is_some_and(|app| app.damage.is_some()) {
            bail!("{0} is in the list, and its specification is lost: run `supervisor delete {0}` first", spec.name);
        }
        if self.table.app(&spec.name).is_some() {
            bail!(
                "{0} is in the list already: `supervisor restart {0}` starts it as it is there; to start it otherwise, run `supervisor \
                 delete {0}` first, or choose another name with --name",
                spec.name
            );
        }
        self.refuse_taken(spec)?;
        let created = self.created((0..instances).collect());
        let ids = created.iter().map(|instance| instance.id).collect();
        self.out.push(Output::Prepare(Box::new(spec.clone()), Version::Current));
        self.table.apps.push(App::new(spec.clone(), None, created));
        self.is_urgent = true;
        Ok(ids)
    }

    fn created(&mut self, numbers: Vec<u32>) -> Vec<Instance> {
        numbers.into_iter().map(|number| Instance::new(self.new_id(), number, self.now.wall)).collect()
    }

    /// Continues with the tasks of an app once its specification is written, or ends them if it cannot be.
    pub(super) fn prepared(&mut self, name: &str, result: Result<(), String>) {
        let is_meant = |task: &Task| !task.is_prepared && task.apps.iter().any(|app| app == name);
        match result {
            Ok(()) => self.tasks.iter_mut().filter(|task| is_meant(task)).for_each(|task| task.is_prepared = true),
            Err(why) if !self.tasks.iter().any(is_meant) => self.remark(why),
            Err(why) => {
                while let Some(number) = self.tasks.iter().position(is_meant) {
                    let task = self.tasks.remove(number);
                    self.undo(&task);
                    self.finish(&task, Some(format!("cannot {}: {why}", task.verb.name())));
                }
            }
        }
    }

    /// Returns the instances that a command starts as soon as it can: its address may not be there yet.
    pub(super) fn about_to_start(&self) -> BTreeSet<u32> {
        self.tasks.iter().filter(|task| task.verb.is_about_to_start()).flat_map(|task| task.ids.iter().copied()).collect()
    }

    /// Asks all processes of these instances to end, those too that are being replaced.
    pub(super) fn stop(&mut self, ids: &[u32]) {
        self.is_urgent = true;
        for id in ids {
            let Some(instance) = self.table.instance_mut(*id) else { continue };
            (instance.failures, instance.is_finished) = (0, false);
            // From now on, it is not the end of the system that keeps it from running.
            (instance.is_ended_by_boot, instance.is_rebuilt) = (false, false);
            let keys: Vec<Key> = instance.workers().map(|worker| worker.key).collect();
            keys.into_iter().for_each(|key| self.feed(key, Event::Stop));
        }
    }

    /// Lets a client wait until these instances are as the command wants them.
    fn push(&mut self, client: Client, verb: Verb, apps: Vec<String>, ids: Vec<u32>) {
        self.tasks.push(Task::new(Some(client), verb, apps, ids));
        self.wait(client);
    }

    /// Begins a task for some instances of an app, as soon as the keeper listens on its addresses.
    pub(super) fn push_one(&mut self, client: Option<Client>, verb: Verb, name: String, ids: Vec<u32>) -> &mut Task {
        let app = self.table.app(&name);
        let declared = app.into_iter().flat_map(|app| &app.spec_of(Version::Next).listeners);
        // A process asks for the others itself. If nobody waits, it need not be the one to find that an old process still has them.
        let asked = app.into_iter().filter(|_| client.is_none()).flat_map(|app| &app.asked);
        let missing = declared.chain(asked).filter(|address| !self.listeners.contains_key(*address)).cloned();
        let missing: Vec<String> = missing.collect();
        missing.iter().cloned().for_each(|address| self.order(Order::Bind(address)));
        client.into_iter().for_each(|client| self.wait(client));
        if client.is_none() && matches!(verb, Verb::Start { .. }) {
            // Its address may come late, and the next daemon must not take it for one that was stopped on purpose.
            let over = self.table.all_mut().filter(|one| ids.contains(&one.id) && one.is_over());
            over.for_each(|instance| instance.worker.state = State::Waiting);
            self.is_urgent = true;
        }
        let number = self.tasks.len();
        self.tasks.push(Task { missing, ..Task::new(client, verb, vec![name], ids) });
        &mut self.tasks[number]
    }

    pub(super) fn names(&self, ids: &[u32]) -> Vec<String> {
        let has_one = |app: &&App| app.instances.iter().any(|instance| ids.contains(&instance.id));
        self.table.apps.iter().filter(has_one).map(|app| app.spec.name.clone()).collect()
    }

    /// Returns those of the ids that belong to an app.
    pub(super) fn of(&self, ids: &[u32], name: &str) -> Vec<u32> {
        let own = self.table.app(name).into_iter().flat_map(|app| &app.instances).map(|instance| instance.id);
        own.filter(|id| ids.contains(id)).collect()
    }

    /// Ends the commands in progress for a target, so that whoever wants to stop it need not wait for them.
    fn take_over(&mut self, target: &str, verb: &str) -> Result<()> {
        let names = self.names(&self.table.select(target)?);
        let is_meant = |task: &Task| task.apps.iter().any(|name| names.contains(name)) && task.verb != Verb::Delete;
        for task in self.tasks.iter_mut().filter(|task| is_meant(task)) {
            if let Verb::Start { is_new, .. } = &mut task.verb {
                // Whoever stops it expects to find it in the list.
                *is_new = false;
            }
        }
        self.cancel(is_meant, &format!("`supervisor {verb} {target}` was run meanwhile"));
        Ok(())
    }

    /// Ends commands in progress, and tells whoever waits for them.
    pub(super) fn cancel(&mut self, is_meant: impl Fn(&Task) -> bool, why: &str) {
        while let Some(number) = self.tasks.iter().position(&is_meant) {
            let task = self.tasks.remove(number);
            self.undo(&task);
            self.finish(&task, Some(format!("the {} of {} was cancelled: {why}", task.verb.name(), task.apps.join(", "))));
        }
    }

    /// Undoes what a command has begun and what cannot stay half done.
    pub(super) fn undo(&mut self, task: &Task) {
        let mut unwanted = Vec::new();
        if matches!(task.verb, Verb::Start { is_new: true, is_begun: false }) {
            // It was never started, and those of its instances that were to stay stopped are of no use without the others.
            let apps = self.table.apps.iter_mut().filter(|app| task.apps.contains(&app.spec.name));
            for instance in apps.flat_map(|app| &mut app.instances) {
                instance.is_leaving = true;
                unwanted.push(instance.worker.key);
            }
        }
        for id in &task.ids {
            let Some(instance) = self.table.instance_mut(*id) else { continue };
            if let (Verb::Reload { .. }, Some(Other::Replacement(worker))) = (&task.verb, &instance.other) {
                unwanted.push(worker.key);
            }
        }
        self.is_urgent = true;
        unwanted.into_iter().for_each(|key| self.feed(key, Event::Stop));
        self.discard(task);
    }

    /// Returns the ids of a target, if no other command is at work on its apps.
    pub(super) fn free(&self, target: &str) -> Result<Vec<u32>> {
        let ids = self.table.select(target)?;
        if ids.is_empty() {
            bail!("no apps yet: run `supervisor start`");
        }
        let names = self.names(&ids);
        let is_leaving = |app: &&App| names.contains(&app.spec.name) && app.instances.iter().all(|instance| instance.is_leaving);
        let leaving = self.table.apps.iter().find(is_leaving).map(|app| &app.spec.name);
        let busy = self.tasks.iter().find_map(|task| Some((task, task.apps.iter().find(|name| names.contains(name))?)));
        if let Some((task, name)) = busy {
            bail!("another command ({}) is in progress for {name}: retry when it is done", task.verb.name());
        }
        if let Some(name) = leaving {
            bail!("{name} is being deleted: retry when it is gone");
        }
        Ok(ids)
    }

    fn begin_scale(&mut self, client: Client, target: &str, size: Size) -> Result<()> {
        let ids = self.free(target)?;
        let Some(app) = self.table.app(target) else {
            bail!("cannot scale '{target}': give the name of an app, not an id or all");
        };
        let have = app.instances.len();
        let want = match size {
            Size::To(count) => i64::from(count),
            Size::By(more) => have as i64 + i64::from(more),
        };
        let Some(want) = usize::try_from(want).ok().filter(|want| (1..=MOST_INSTANCES as usize).contains(want)) else {
            bail!(
                "{target} cannot have {want} instances, only 1 to {MOST_INSTANCES}: to stop it, run `supervisor stop {target}`"
            );
        };
        if want <= have {
            let surplus: Vec<u32> = app.instances[want..].iter().map(|instance| instance.id).collect();
            self.table.all_mut().filter(|one| surplus.contains(&one.id)).for_each(|one| one.is_leaving = true);
            self.stop(&surplus);
            self.push(client, Verb::Scale { to: want, is_up: false, is_begun: true }, vec![target.into()], surplus);
        } else {
            self.refuse_damaged(&ids)?;
            let taken: Vec<u32> = app.instances.iter().map(|instance| instance.number).collect();
            let created = self.created((0..).filter(|number| !taken.contains(number)).take(want - have).collect());
            let ids: Vec<u32> = created.iter().map(|instance| instance.id).collect();
            if let Some(app) = self.table.app_mut(target) {
                app.instances.extend(created);
            }
            self.push_one(Some(client), Verb::Scale { to: want, is_up: true, is_begun: false }, target.into(), ids);
        }
        self.is_urgent = true;
        Ok(())
    }

    fn flush_logs(&mut self, client: Client, target: &str) -> Result<()> {
        let ids = self.table.select(target)?;
        let meant = self.table.all().filter(|(_, one)| ids.contains(&one.id));
        let logs = meant.flat_map(|(app, one)| self.logs(app, one).map(|path| (path, app.spec.options.log_keep)));
        let paths: Vec<(PathBuf, u32)> = logs.collect();
        let count = paths.len();
        // The size of a message is limited.
        paths.chunks(FLUSHED).for_each(|some| self.order(Order::Flush(some.to_vec())));
        self.answer(client, Answer::Done(format!("{count} logs are being emptied")));
        Ok(())
    }

    /// A client has gone: nobody waits for the answer.
    pub(super) fn gone(&mut self, client: Client) {
        self.waiting.remove(&client);
        // The apps of a command in the foreground end with it, however it has ended.
        self.awaiting.retain(|one| *one != client);
        if self.foreground.contains(&client) && self.ending.is_none() {
            self.end_all(None);
        }
        self.cancel(|task| task.client == Some(client), "its command was interrupted");
    }

    /// Stops all apps, even if other commands are in progress.
    pub(super) fn end_all(&mut self, client: Option<Client>) {
        // Whoever asked first is told as well.
        if let Some(Some(before)) = self.ending.replace(client) {
            self.answer(before, Answer::Done("another command stops all apps and the supervisor".into()));
        }
        for task in std::mem::take(&mut self.tasks) {
            self.discard(&task);
            self.finish(&task, Some("the supervisor is shutting down".into()));
        }
        self.table.all_mut().for_each(|instance| instance.is_leaving = true);
        let ids: Vec<u32> = self.table.all().map(|(_, instance)| instance.id).collect();
        self.stop(&ids);
        self.is_urgent = true;
    }
}
