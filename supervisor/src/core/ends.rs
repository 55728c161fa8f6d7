//! The lives of processes: their starts and ends move them through [the lifecycle](super::worker).

use super::readiness::Readiness;
use super::table::{Instance, Worker};
use super::task::Task;
use super::worker::{Action, Event, Policy, State, Then};
use super::{Core, Version};
use crate::channel::{End, Job, Key, Order};
use crate::launch::CANNOT_RUN;
use crate::proc::Identity;
use crate::spec::Options;
use signal_hook::consts::SIGKILL;
use std::time::Duration;

impl Core {
    /// Confirms a process that the keeper has started: it becomes the app's program only then.
    pub(super) fn spawned(&mut self, job: &Job, process: Identity) {
        if self.table.worker_mut(job.key).is_none() {
            // It is no longer wanted.
            return self.order(Order::Signal(job.key, SIGKILL));
        }
        self.order(Order::Confirm(job.key));
        self.feed(job.key, Event::Spawned(process));
    }

    /// Handles the end of a process while no keeper was running.
    pub(super) fn vanished(&mut self, key: Key) {
        let is_starting = self.table.worker_mut(key).is_some_and(|worker| matches!(worker.state, State::Starting { .. }));
        if is_starting {
            // Nobody had confirmed it, so it has ended by itself. That is no fault of the app.
            self.order(Order::Forget(key));
            return self.feed(key, Event::Lost);
        }
        self.ended(key, &End::plain("ended while no keeper was running, so its exit status is unknown".into()));
    }

    /// Handles the end of a process, or a failed start.
    pub(super) fn ended(&mut self, key: Key, end: &End) {
        self.order(Order::Forget(key));
        self.wishes.retain(|wish| wish.key != key);
        let now = self.now.instant;
        let Some((app_number, number)) = self.table.position(key.instance) else { return };
        let app = &mut self.table.apps[app_number];
        let Some(version) = app.instances[number].workers().find(|one| one.key == key).map(|one| one.version) else { return };
        let spec = app.spec_of(version);
        let (options, is_node) = (spec.options.clone(), spec.is_node);
        // A process that does not say when it is ready is online after this time, and has been up for long enough then.
        let readiness = app.readiness(version);
        let min_uptime = if readiness == Readiness::Uptime { Duration::ZERO } else { options.min_uptime };
        let most = options.max_restarts;
        let instance = &mut app.instances[number];
        let is_current = instance.worker.key == key;
        let before = instance.failures;
        let Some(worker) = instance.workers_mut().find(|worker| worker.key == key) else { return };
        let worker_state = worker.state;
        if worker_state.is_over() {
            // It was given up long ago, when it had not ended although it was killed.
            instance.last_end = Some(end.how.clone());
            return;
        }
        let was_asked = matches!(worker.state, State::Stopping { then: Then::Stop | Then::Restart, .. });
        let was_ready = worker.online.is_some();
        let was_up = worker.online.is_some_and(|online| now.duration_since(online) >= min_uptime);
        let mut failures = match (was_asked, was_up) {
            (true, _) => before,
            (false, true) => 0,
            (false, false) => before + 1,
        };
        let how = match (worker.state, worker.online) {
            (State::Stopping { then: Then::Fail, .. }, _) => not_ready(&options, is_node, worker.last_failure.as_deref(), end),
            (_, None) => describe(worker, end),
            _ => end.how.clone(),
        };
        (instance.last_end, instance.last_code) = (Some(how), end.code);
        if !was_asked && !matches!(worker_state, State::Stopping { .. }) && !options.restarts(end.code) {
            if is_current {
                // One that could not be run, or was to be ready first and never was, has not done its job.
                let has_begun = end.code != Some(i32::from(CANNOT_RUN)) && (was_ready || readiness != Readiness::Signal);
                (instance.is_finished, instance.failures) = (true, if has_begun { 0 } else { failures });
            }
            return self.feed(key, Event::Finished);
        }
        if !was_asked && is_current && instance.exits_too_often(most, now) {
            failures = failures.max(most.saturating_add(1));
        }
        if is_current {
            instance.failures = failures;
            instance.restarts += u32::from(!was_asked);
        }
        if app.damage.is_some() && version == Version::Current {
            // Nothing is known that could be started in its place, unless a reload brings it.
            self.feed(key, Event::Stop);
        }
        self.feed(key, Event::Ended { failures });
    }

    /// Moves a worker to its next state, and takes the resulting actions.
    pub(super) fn feed(&mut self, key: Key, event: Event) {
        let now = self.now.instant;
        let Some((app_number, number)) = self.table.position(key.instance) else { return };
        let app = &self.table.apps[app_number];
        let instance = &app.instances[number];
        let Some(worker) = instance.workers().find(|worker| worker.key == key) else { return };
        let spec = app.spec_of(worker.version);
        let (is_replacement, readiness) = (instance.is_replacement(key), app.readiness(worker.version));
        let policy = Policy { options: &spec.options, is_replacement, readiness };
        let Some((state, actions)) = worker.state.after(event, policy) else { return };
        let told = told(worker.state, state).map(|what| {
            // The process that it was to replace runs on.
            let what = if is_replacement && what == GIVEN_UP { "replacement failed" } else { what };
            (spec.name.clone(), what, instance.last_end.clone())
        });
        let stop_signal = spec.options.stop_signal.number();
        if let Some(worker) = self.table.worker_mut(key) {
            worker.state = state;
            if matches!(state, State::Online { .. }) {
                worker.online = Some(now);
            }
        }
        self.is_dirty = true;
        if let Some((name, what, last_end)) = told {
            let why = match (what, state.process()) {
                ("ended" | "stopped" | "replacement failed" | GIVEN_UP, _) => last_end,
                (_, process) => process.map(|process| format!("process {}", process.pid)),
            };
            self.note(&name, Some(key.instance), what, why);
        }
        let mut key = key;
        for action in actions {
            match action {
                Action::Spawn => key = self.spawn_again(key),
                Action::Ask => self.order(Order::Signal(key, stop_signal)),
                Action::Kill => self.order(Order::Signal(key, SIGKILL)),
                Action::GiveUp => self.give_up(key),
                Action::Timer(after) => {
                    if let Some(worker) = self.table.worker_mut(key) {
                        worker.due = after.map(|after| now + after);
                    }
                }
            }
        }
    }

    /// Notes that a process has not ended although it was killed.
    fn give_up(&mut self, key: Key) {
        let Some((app_number, number)) = self.table.position(key.instance) else { return };
        let app = &mut self.table.apps[app_number];
        let instance: &mut Instance = &mut app.instances[number];
        let how = "was killed and has not ended: it may be waiting for a device";
        instance.last_end = Some(how.into());
        instance.failures = instance.failures.max(1);
        let remark = format!("a process of {} ({}) {how}", app.spec.name, instance.id);
        let waits = |task: &&mut Task| task.ids.contains(&key.instance);
        self.tasks.iter_mut().filter(waits).for_each(|task| task.left.push(remark.clone()));
        self.remark(remark);
    }

    /// Orders the start of a process in place of another, under a new key.
    fn spawn_again(&mut self, key: Key) -> Key {
        let Some(instance) = self.table.instance_mut(key.instance) else { return key };
        instance.is_finished = false;
        let next = instance.next_key();
        if let Some(worker) = instance.workers_mut().find(|worker| worker.key == key) {
            *worker = Worker::new(next, worker.state, worker.version);
        }
        self.spawn(next);
        next
    }
}

const GIVEN_UP: &str = "given up";

/// Returns the name of a change of state in the event log, if it is worth one.
fn told(before: State, now: State) -> Option<&'static str> {
    match (before, now) {
        (_, State::Errored) => Some(GIVEN_UP),
        (_, State::Waiting) => Some("ended"),
        // It is started again at once.
        (
            State::Starting { process: Some(_) } | State::Online { .. } | State::Stopping { .. },
            State::Starting { process: None },
        ) => Some("ended"),
        (State::Starting { process: None }, State::Starting { process: Some(_) }) => Some("started"),
        (State::Starting { .. }, State::Online { .. }) => Some("ready"),
        (State::Stopping { .. } | State::Online { .. } | State::Starting { .. }, State::Stopped) => Some("stopped"),
        _ => None,
    }
}

/// Describes the end of a process that was not ready in time.
fn not_ready(options: &Options, is_node: bool, failure: Option<&str>, end: &End) -> String {
    let limit = humantime::format_duration(options.listen_timeout);
    if let Some(when) = &options.ready_when {
        let failure = failure.map(|failure| format!(": {failure}")).unwrap_or_default();
        return format!("{} within {limit}{failure}", when.missing());
    }
    if is_node {
        let what = if options.wait_ready { "did not call process.send('ready')" } else { "did not listen" };
        return format!("{what} within {limit}; if it takes longer, raise --listen-timeout");
    }
    match &end.child {
        Some(child) => format!(
            "did not send READY=1 within {limit}; it has started {child}, which does not get its listeners: \
             start that program itself, or with exec"
        ),
        None => format!("did not send READY=1 within {limit}; if the command cannot send it, see --ready-when"),
    }
}

/// Describes the end of a process that was never ready: its own words say most about it.
fn describe(worker: &Worker, end: &End) -> String {
    let how = &end.how;
    match (&worker.says, &end.last_line) {
        (Some(says), _) => format!("{how}: {says}"),
        (None, Some(line)) => format!("{how}; last line of its stderr: {line}"),
        (None, None) => how.clone(),
    }
}
