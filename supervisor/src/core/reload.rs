//! Reloads: those that a command asks for, and those that a time or a changed program begins.

use super::canary::Trial;
use super::table::{App, Instance, Other, Worker};
use super::task::{Task, Verb};
use super::worker::{Event, State};
use super::{Client, Core, Output, Version};
use crate::control::Pace;
use crate::environment::Environment;
use crate::spec::{LONGEST, Restart, Spec};
use anyhow::{Result, bail};
use std::ffi::OsString;
use std::time::Duration;

impl Core {
    /// Prepares a specification with another environment, in which a file still sets what it has set; returns whether there is one.
    pub(super) fn prepare_next(&mut self, name: &str, environment: Option<&Environment>) -> bool {
        let (Some(environment), Some(app)) = (environment, self.table.app_mut(name)) else { return false };
        let is_declared = |name: &OsString| name.to_str().is_some_and(|name| app.spec.declared.contains(name));
        let declared = app.spec.environment.0.iter().filter(|(name, _)| is_declared(name));
        let others = environment.0.iter().filter(|(name, _)| !is_declared(name));
        let next = Spec { environment: declared.chain(others).cloned().collect(), ..app.spec.clone() };
        app.next = Some(next.clone());
        self.out.push(Output::Prepare(Box::new(next), Version::Next));
        true
    }

    pub(super) fn begin_reload(
        &mut self,
        client: Client,
        target: &str,
        environment: Option<&Environment>,
        pace: Pace,
    ) -> Result<()> {
        if pace.parallel == 0 || pace.canary_ms.is_some_and(|length| Duration::from_millis(length) > LONGEST) {
            bail!("a reload replaces at least one instance at a time, and tries a process out for a day at most");
        }
        let mut ids = self.free(target)?;
        // Somebody stopped the others on purpose, and a target that names several does not mean them.
        let is_named = |app: &App, id: u32| app.spec.name == target || id.to_string() == target;
        ids.retain(|id| self.table.instance(*id).is_some_and(|(app, one)| !one.is_over() || is_named(app, *id)));
        if ids.is_empty() {
            bail!("'{target}' means only stopped apps: name the one to start");
        }
        self.refuse_damaged(&ids)?;
        let apps = ids.iter().filter_map(|id| self.table.instance(*id)).map(|(app, _)| app);
        if let Some(app) = apps.filter(|_| pace.canary_ms.is_some()).find(|app| !app.is_cluster(Version::Current)) {
            bail!(
                "{} runs in fork mode, in which no new process runs beside the old one: reload it without --canary",
                app.spec.name
            );
        }
        // Each app has its own task, so that one failure does not stop the others.
        for name in self.names(&ids) {
            let own = self.of(&ids, &name);
            let has_next = self.prepare_next(&name, environment);
            let task = self.push_reload(Some(client), name, own);
            task.is_prepared = !has_next;
            if let Verb::Reload { pace: own, .. } = &mut task.verb {
                *own = pace;
            }
        }
        Ok(())
    }

    /// Begins to replace instances of an app, one after another.
    pub(super) fn push_reload(&mut self, client: Option<Client>, name: String, ids: Vec<u32>) -> &mut Task {
        let verb = Verb::Reload { left: ids.iter().copied().collect(), now: Vec::new(), pace: Pace::default() };
        self.push_one(client, verb, name, ids)
    }

    /// Reloads apps, or starts jobs again that have ended, unless another command is at work on them: it may still start the old program.
    pub(super) fn begin_reloads(&mut self) {
        for (name, mut ids) in std::mem::take(&mut self.to_go_back) {
            ids.retain(|id| self.table.instance(*id).is_some_and(|(_, one)| !one.is_over() && !one.is_leaving));
            if self.ending.is_some() || ids.is_empty() {
                continue;
            }
            if self.is_busy(&name) {
                self.to_go_back.insert(name, ids);
            } else {
                self.push_reload(None, name, ids);
            }
        }
        for name in std::mem::take(&mut self.to_reload) {
            if self.ending.is_some() {
                continue;
            }
            if self.is_busy(&name) {
                self.to_reload.insert(name);
                continue;
            }
            let Some(app) = self.table.app(&name).filter(|app| app.damage.is_none()) else { continue };
            let staying = || app.instances.iter().filter(|one| !one.is_leaving);
            let running: Vec<u32> = staying().filter(|one| !one.is_over()).map(|one| one.id).collect();
            // A job is due again, whatever became of it the last time.
            let is_job = app.spec.options.restart == Restart::Never;
            let is_due = |one: &&Instance| one.is_finished || is_job && one.worker.state == State::Errored;
            let ended: Vec<u32> = staying().filter(is_due).map(|one| one.id).collect();
            if !running.is_empty() {
                self.push_reload(None, name, running);
            } else if !ended.is_empty() {
                self.push_one(None, Verb::Start { is_new: false, is_begun: false }, name, ended);
            }
        }
    }

    /// Begins to replace an instance. With `canary`, the new process runs beside the old one for this time before it takes over.
    pub(super) fn replace(&mut self, id: u32, canary: Option<Duration>) {
        let Some((app, _)) = self.table.instance(id) else { return };
        let version = if app.next.is_some() { Version::Next } else { Version::Current };
        let is_cluster = app.is_cluster(version) && app.is_cluster(Version::Current);
        let Some(instance) = self.table.instance_mut(id) else { return };
        (instance.failures, instance.is_rebuilt) = (0, false);
        instance.exits.clear();
        if !is_cluster || !matches!(instance.worker.state, State::Online { .. }) {
            instance.worker.version = version;
            let key = instance.worker.key;
            return self.feed(key, Event::Restart);
        }
        let key = instance.next_key();
        instance.trial = canary.map(Trial::new);
        // The next daemon has to know that it is only tried out.
        self.is_urgent |= canary.is_some();
        let Some(instance) = self.table.instance_mut(id) else { return };
        instance.other = Some(Other::Replacement(Worker::new(key, State::Starting { process: None }, version)));
        self.is_dirty = true;
        self.spawn(key);
    }
}
