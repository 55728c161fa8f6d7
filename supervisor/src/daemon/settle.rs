//! The daemon's progress with commands: each advances as far as its processes have come.

use super::Daemon;
use super::table::{Other, Worker};
use super::task::{Task, Verb, Verdict};
use super::worker::{Event, State};
use crate::channel::{Key, Order};
use crate::control;
use anyhow::Result;
use std::fs;

impl Daemon {
    /// Advances all tasks that can advance.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.change_over()?;
        self.remove_gone()?;
        let mut number = 0;
        while number < self.tasks.len() {
            match self.tasks[number].verdict(&self.table) {
                Verdict::Wait => number += 1,
                Verdict::Next => {
                    // The same task is looked at again: this step may have been its last.
                    if self.advance(number)? {
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
        if let Some(client) = self.ending
            && self.table.apps.is_empty()
        {
            if let Some(client) = client {
                self.clients.answer(client, &control::Answer::Done("all apps and the supervisor have stopped".into()));
            }
            self.clients.flush(&mut self.poller);
            self.order(&Order::Quit)?;
            self.is_over = true;
            // The table is not saved again: after a requested end, the next daemon has nothing to resume.
            self.is_dirty = false;
            let _ = fs::remove_file(self.home.state());
        }
        Ok(())
    }

    /// Puts ready replacements in place, retires the processes that they replace, and drops retired processes that have ended.
    fn change_over(&mut self) -> Result<()> {
        let mut retiring = Vec::new();
        for instance in self.table.apps.iter_mut().flat_map(|app| &mut app.instances) {
            match instance.other.take() {
                Some(Other::Replacement(next)) if matches!(next.state, State::Online { .. }) => {
                    instance.failures = 0;
                    let last = std::mem::replace(&mut instance.worker, next);
                    retiring.push(last.key);
                    instance.other = Some(Other::Retiring(last));
                }
                Some(Other::Retiring(worker)) if worker.state.is_over() => self.is_dirty = true,
                // The replacement was asked to end. A replacement that failed is errored instead, which its task detects.
                Some(Other::Replacement(worker)) if worker.state == State::Stopped => self.is_dirty = true,
                other => instance.other = other,
            }
        }
        let has_more = !retiring.is_empty();
        retiring.into_iter().try_for_each(|key| self.feed(key, Event::Stop))?;
        // A process that was not running any more has retired at once.
        if has_more { self.change_over() } else { Ok(()) }
    }

    fn remove_gone(&mut self) -> Result<()> {
        for app in &mut self.table.apps {
            app.instances.retain(|instance| !(instance.is_leaving && instance.is_over()));
        }
        let (there, gone): (Vec<_>, Vec<_>) = self.table.apps.drain(..).partition(|app| !app.instances.is_empty());
        self.table.apps = there;
        for app in gone {
            self.is_dirty = true;
            self.watch.forget(&app.spec.name);
            for address in app.spec.listeners {
                self.listeners.remove(&address);
                self.order(&Order::Unbind(address))?;
            }
            let _ = fs::remove_file(self.home.spec(&app.spec.name));
        }
        Ok(())
    }

    /// Takes the next step of a task; returns true if none is left.
    fn advance(&mut self, number: usize) -> Result<bool> {
        let task = &mut self.tasks[number];
        match &mut task.verb {
            Verb::Bind { .. } => {
                task.verb = Verb::Start;
                self.start(&self.tasks[number].ids.clone())?;
                Ok(false)
            }
            Verb::Reload { left, now } => {
                *now = left.pop_front();
                let Some(id) = *now else { return Ok(true) };
                self.replace(id)?;
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// Begins to replace an instance.
    fn replace(&mut self, id: u32) -> Result<()> {
        let Some((app, _)) = self.table.instance(id) else { return Ok(()) };
        let is_cluster = app.spec.is_cluster();
        let Some(instance) = self.table.instance_mut(id) else { return Ok(()) };
        instance.failures = 0;
        let key = instance.worker.key;
        if !is_cluster || !matches!(instance.worker.state, State::Online { .. }) {
            return self.feed(key, Event::Restart);
        }
        // The start assigns the real generation.
        let key = Key { instance: id, generation: u32::MAX };
        instance.other = Some(Other::Replacement(Worker::new(key)));
        self.feed(key, Event::Start)
    }

    pub(super) fn start(&mut self, ids: &[u32]) -> Result<()> {
        for id in ids {
            if let Some(instance) = self.table.instance_mut(*id) {
                instance.failures = 0;
                let key = instance.worker.key;
                self.feed(key, Event::Start)?;
            }
        }
        if self.memory_due.is_none() {
            self.check_memory()?;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, task: &Task, trouble: Option<String>) {
        let done = format!("{} {}", task.apps.join(", "), past(&task.verb));
        if let Some(client) = task.client {
            self.clients.finish(client, done, trouble);
        }
    }

    fn fail(&mut self, task: &Task, why: &str) {
        // Drops the failed replacements; the processes that they were to replace keep running.
        for id in &task.ids {
            if let Some(instance) = self.table.instance_mut(*id)
                && matches!(&instance.other, Some(Other::Replacement(worker)) if worker.state.is_over())
            {
                instance.other = None;
            }
        }
        let what = match &task.verb {
            Verb::Reload { left, .. } => {
                let keeps_running =
                    task.ids.iter().filter_map(|id| self.table.instance(*id)).all(|(_, instance)| instance.is_online());
                let rest = if keeps_running { "but its instances keep running" } else { "after the old process had ended" };
                format!(
                    "the reload of {} failed, {rest} (instances not replaced: {}): {why}",
                    task.apps.join(", "),
                    left.len() + 1
                )
            }
            verb => format!("cannot {}: {why}", verb.name()),
        };
        self.finish(task, Some(what));
    }
}

fn past(verb: &Verb) -> String {
    match verb {
        Verb::Bind { .. } | Verb::Start => "is online".into(),
        Verb::Restart => "was restarted".into(),
        Verb::Stop => "was stopped".into(),
        Verb::Delete => "was deleted".into(),
        Verb::Scale { to: 1, .. } => "has 1 instance".into(),
        Verb::Scale { to, .. } => format!("has {to} instances"),
        Verb::Reload { .. } => "was reloaded".into(),
    }
}
