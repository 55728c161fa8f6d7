//! The progress of commands: each advances as far as its processes have come.

use super::table::{Instance, Other};
use super::task::{Task, Verb, Verdict, next, progress};
use super::worker::{Event, State};
use super::{Core, Output, Version};
use crate::channel::{Key, Order};
use crate::control::Answer;
use std::time::Duration;

impl Core {
    /// Advances all tasks that can advance.
    pub(super) fn settle(&mut self) {
        if self.is_recovering() {
            return;
        }
        self.change_over();
        self.remove_gone();
        let mut number = 0;
        while number < self.tasks.len() {
            match self.tasks[number].verdict(&self.table) {
                Verdict::Wait => number += 1,
                Verdict::Next => {
                    // The same task is looked at again: this step may have been its last.
                    if self.advance(number) {
                        let task = self.tasks.remove(number);
                        self.finish(&task, None);
                    }
                }
                Verdict::Done => {
                    let task = self.tasks.remove(number);
                    self.finish(&task, None);
                }
                Verdict::Failed(why) => {
                    let task = self.tasks.remove(number);
                    self.fail(&task, &why);
                }
            }
        }
        self.tell_of_end();
        if let Some(client) = self.ending
            && self.table.apps.is_empty()
        {
            self.ending = None;
            if let Some(client) = client {
                self.answer(client, Answer::Done("all apps and the supervisor have stopped".into()));
            }
            for client in std::mem::take(&mut self.awaiting) {
                self.answer(client, Answer::Ended { text: "all apps and the supervisor were stopped".into(), code: 0 });
            }
            // What is to continue with is removed before the keeper has gone: the next command must not find it.
            self.out.push(Output::Quit);
            self.order(Order::Quit);
        }
    }

    /// Answers whoever wants to know of the end.
    fn tell_of_end(&mut self) {
        if self.awaiting.is_empty() || !self.tasks.is_empty() || self.table.apps.is_empty() {
            return;
        }
        let given_up = self.table.all().find(|(_, instance)| instance.worker.state == State::Errored);
        let failed = || self.table.all().find(|(_, instance)| instance.is_finished && instance.last_code != Some(0));
        // A job that has ended is started again when its time comes.
        let is_over = self.table.all().all(|(app, one)| one.is_over() && !(one.is_finished && app.spec.options.cron.is_some()));
        let (text, culprit) = match given_up {
            Some(culprit) => ("was given up", Some(culprit)),
            None if is_over => ("has failed, and all apps have ended", failed()),
            None => return,
        };
        let (text, code) = culprit.map_or_else(
            || ("all apps have ended".to_owned(), 0),
            |(app, instance)| {
                let how = instance.last_end.as_deref().unwrap_or("ended");
                let code = instance.last_code.and_then(|code| u8::try_from(code).ok()).filter(|code| *code > 0);
                (format!("{} ({}) {text}: {how}", app.spec.name, instance.id), code.unwrap_or(1))
            },
        );
        for client in std::mem::take(&mut self.awaiting) {
            self.answer(client, Answer::Ended { text: text.clone(), code });
        }
    }

    /// Puts ready replacements in place, retires the processes that they replace, and drops retired processes that have ended.
    fn change_over(&mut self) {
        self.begin_trials();
        let now = self.now.instant;
        let mut retiring = Vec::new();
        let mut has_changed = false;
        for instance in self.table.all_mut() {
            match instance.other.take() {
                Some(Other::Replacement(next))
                    if matches!(next.state, State::Online { .. })
                        && instance.trial.as_ref().is_none_or(|trial| trial.is_over(now)) =>
                {
                    (instance.failures, instance.trial) = (0, None);
                    let last = std::mem::replace(&mut instance.worker, next);
                    retiring.push(last.key);
                    instance.other = Some(Other::Retiring(last));
                }
                Some(Other::Retiring(worker)) if worker.state.is_over() => has_changed = true,
                // The replacement was asked to end. A replacement that failed is errored instead, which its task detects.
                Some(Other::Replacement(worker)) if worker.state == State::Stopped => has_changed = true,
                other => instance.other = other,
            }
        }
        self.is_dirty |= has_changed;
        let has_more = !retiring.is_empty();
        retiring.into_iter().for_each(|key| self.feed(key, Event::Stop));
        // A process that was not running any more has retired at once.
        if has_more {
            self.change_over();
        }
    }

    fn remove_gone(&mut self) {
        for app in &mut self.table.apps {
            app.instances.retain(|instance| !(instance.is_leaving && instance.is_over()));
        }
        let (there, gone): (Vec<_>, Vec<_>) = self.table.apps.drain(..).partition(|app| !app.instances.is_empty());
        self.table.apps = there;
        for app in gone {
            self.is_urgent = true;
            self.unbind_unused();
            self.gone.extend(app.spec.options.namespace.map(|namespace| (app.spec.name.clone(), namespace)));
            // What was said of it is of no use any more.
            let (one, lost) = (format!("{} (", app.spec.name), super::recover::lost(&app.spec.name));
            self.remarks.retain(|remark| !remark.starts_with(&one) && !remark.starts_with(&lost));
            self.out.push(Output::Remove(app.spec.name));
        }
    }

    /// Takes the next step of a task; returns true if none is left.
    fn advance(&mut self, number: usize) -> bool {
        let task = &mut self.tasks[number];
        match &mut task.verb {
            Verb::Start { is_begun, .. } | Verb::Scale { is_begun, .. } => {
                *is_begun = true;
                let ids = task.ids.clone();
                self.start(&ids);
                false
            }
            Verb::Restart { is_begun } => {
                *is_begun = true;
                let (ids, names) = (task.ids.clone(), task.apps.clone());
                // The old processes end now in any case.
                names.iter().for_each(|name| self.commit(name));
                for id in ids {
                    let Some(instance) = self.table.instance_mut(id) else { continue };
                    (instance.failures, instance.is_rebuilt) = (0, false);
                    instance.exits.clear();
                    let key = instance.worker.key;
                    self.feed(key, Event::Restart);
                }
                false
            }
            Verb::Reload { left, now, pace } => {
                now.retain(|id| progress(&self.table, *id) == Verdict::Wait);
                let Some(id) = next(left, pace, &self.table).and_then(|next| left.remove(next)) else { return true };
                now.push(id);
                let canary = pace.canary_ms.take();
                self.replace(id, canary.map(Duration::from_millis));
                false
            }
            _ => false,
        }
    }

    /// Starts instances that do not run.
    pub(super) fn start(&mut self, ids: &[u32]) {
        for id in ids {
            if let Some(instance) = self.table.instance_mut(*id) {
                (instance.failures, instance.is_ended_by_boot, instance.is_rebuilt) = (0, false, false);
                instance.exits.clear();
                let key = instance.worker.key;
                self.feed(key, Event::Start);
            }
        }
    }

    /// Lets the next specification of an app become its current one.
    fn commit(&mut self, name: &str) {
        let Some(app) = self.table.app_mut(name) else { return };
        let Some(next) = app.next.take() else { return };
        app.spec = next;
        // What was lost is known again.
        if app.damage.take().is_some() {
            let lost = super::recover::lost(name);
            self.remarks.retain(|remark| !remark.starts_with(&lost));
        }
        // Only a Node program asks.
        if !app.spec.is_node {
            app.asked.clear();
        }
        self.unbind_unused();
        let Some(app) = self.table.app_mut(name) else { return };
        self.is_urgent = true;
        app.instances.iter_mut().for_each(|instance| instance.is_rebuilt = false);
        app.instances.iter_mut().flat_map(Instance::workers_mut).for_each(|worker| worker.version = Version::Current);
        let spec = Box::new(app.spec.clone());
        self.out.push(Output::Commit(name.to_owned()));
        self.out.push(Output::Follow(spec));
    }

    /// Drops the specifications that a task tried out. What runs with one of them goes back.
    pub(super) fn discard(&mut self, task: &Task) {
        for name in &task.apps {
            let Some(app) = self.table.app_mut(name) else { continue };
            if app.next.take().is_some() {
                // It goes on until the one before takes its place.
                let runs = |one: &&Instance| one.serves() || matches!(one.worker.state, State::Starting { process: Some(_) });
                let changed = app.instances.iter().filter(|one| one.worker.version == Version::Next);
                let changed: Vec<u32> = changed.filter(runs).map(|one| one.id).collect();
                self.to_go_back.extend((!changed.is_empty()).then(|| (name.clone(), changed)));
                app.instances.iter_mut().flat_map(Instance::workers_mut).for_each(|worker| worker.version = Version::Current);
                self.out.push(Output::Discard(name.clone()));
                self.unbind_unused();
            }
        }
    }

    pub(super) fn finish(&mut self, task: &Task, trouble: Option<String>) {
        if trouble.is_none() {
            task.apps.iter().for_each(|name| self.commit(name));
            // A link on the path of its program may lead to another folder than before.
            let watched = self.table.apps.iter().filter(|app| app.spec.options.watch && app.damage.is_none());
            let watched = watched.filter(|app| task.apps.contains(&app.spec.name) && task.verb.starts());
            self.out.extend(watched.map(|app| Output::Follow(Box::new(app.spec.clone()))));
        }
        let instances = || task.ids.iter().filter_map(|id| self.table.instance(*id));
        let has_run = matches!(task.verb, Verb::Start { .. }) && instances().all(|(_, instance)| instance.is_finished);
        let result = |is_one| if has_run { "has run to its end".into() } else { past(task, is_one) };
        let what = if trouble.is_none() { result(true) } else { format!("{} failed", task.verb.name()) };
        task.apps.iter().for_each(|name| self.note(name, None, &what, trouble.clone()));
        let is_new = matches!(task.verb, Verb::Start { is_new: true, .. });
        let shared = task.apps.iter().filter(|_| is_new).filter_map(|name| self.shared_log(name));
        let more: String = task.left.iter().cloned().chain(shared).map(|more| format!("; {more}")).collect();
        let done = format!("{} {}{more}", task.apps.join(", "), result(task.apps.len() == 1));
        if let Some(client) = task.client {
            self.told(client, trouble.map_or(Ok(done), Err));
        } else if let Some(trouble) = trouble {
            // Nobody waits for it, but somebody will look.
            self.remark(trouble);
        }
    }

    fn fail(&mut self, task: &Task, why: &str) {
        // Drops the failed replacements; the processes that they were to replace keep running.
        let mut unwanted = Vec::new();
        for id in &task.ids {
            let Some(instance) = self.table.instance_mut(*id) else { continue };
            match &instance.other {
                Some(Other::Replacement(worker)) if worker.state.is_over() => instance.other = None,
                Some(Other::Replacement(worker)) => unwanted.push(worker.key),
                _ => {}
            }
        }
        unwanted.into_iter().for_each(|key| self.feed(key, Event::Stop));
        self.discard(task);
        let what = match &task.verb {
            Verb::Reload { left, now, .. } => {
                let keeps_running =
                    task.ids.iter().filter_map(|id| self.table.instance(*id)).all(|(_, instance)| instance.serves());
                let has_begun = !now.is_empty() || left.len() < task.ids.len();
                let rest = match (keeps_running, has_begun) {
                    (true, _) => "but its instances keep running",
                    (false, true) => "after the old process had ended",
                    (false, false) => "before it began",
                };
                format!(
                    "the reload of {} failed, {rest} (instances not replaced: {}): {why}",
                    task.apps.join(", "),
                    left.len() + now.len()
                )
            }
            verb => format!("cannot {}: {why}", verb.name()),
        };
        self.finish(task, Some(what));
    }

    /// Orders the start of the process of a key.
    pub(super) fn spawn(&mut self, key: Key) {
        let Some((app, instance)) = self.table.instance(key.instance) else { return };
        let Some(worker) = instance.workers().find(|worker| worker.key == key) else { return };
        let job = app.job(worker, instance.number, &self.home);
        self.order(Order::Spawn(job));
    }
}

/// Returns what has become of an app. Only stopping and deleting are done to several at once.
fn past(task: &Task, is_one: bool) -> String {
    match &task.verb {
        Verb::Start { .. } => "is online".into(),
        Verb::Restart { .. } => "was restarted".into(),
        Verb::Stop if is_one => "was stopped".into(),
        Verb::Stop => "were stopped".into(),
        Verb::Delete if is_one => "was deleted".into(),
        Verb::Delete => "were deleted".into(),
        Verb::Scale { to: 1, .. } => "has 1 instance".into(),
        Verb::Scale { to, .. } => format!("has {to} instances"),
        Verb::Reload { .. } if task.ids.is_empty() => "was changed, and stays stopped".into(),
        Verb::Reload { .. } => "was reloaded".into(),
    }
}
