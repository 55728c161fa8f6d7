//! Commands in progress.

use super::table::{App, Instance, Other, Table};
use super::worker::State;
use super::{Client, canary};
use crate::control::Pace;
use std::collections::VecDeque;

/// A command in progress.
pub struct Task {
    /// The client that waits for it; `None` if the daemon itself started it.
    pub client: Option<Client>,
    pub verb: Verb,
    /// The specification that it begins with has been written.
    pub is_prepared: bool,
    /// Addresses that it needs, and that the keeper does not listen on yet.
    pub missing: Vec<String>,
    /// Names of its apps, which no other command may change meanwhile.
    pub apps: Vec<String>,
    /// The instances that it waits for.
    pub ids: Vec<u32>,
    /// What has not ended although it was killed.
    pub left: Vec<String>,
}

/// The kind of a command in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    Start {
        /// The app is new, and goes again if it cannot be begun.
        is_new: bool,
        is_begun: bool,
    },
    Restart {
        /// The processes have been asked to end.
        is_begun: bool,
    },
    Stop,
    /// Wait until the instances are gone.
    Delete,
    /// Wait until the surplus instances are gone, or the new ones are online.
    Scale {
        /// The new number of instances.
        to: usize,
        /// Instances are being added.
        is_up: bool,
        is_begun: bool,
    },
    Reload {
        /// Ids of the instances that are still to be replaced.
        left: VecDeque<u32>,
        /// Ids of the instances that are being replaced.
        now: Vec<u32>,
        pace: Pace,
    },
}

impl Verb {
    /// Returns whether it starts instances, and has not begun to.
    pub fn is_about_to_start(&self) -> bool {
        matches!(
            self,
            Verb::Start { is_begun: false, .. }
                | Verb::Restart { is_begun: false }
                | Verb::Scale { is_up: true, is_begun: false, .. }
        )
    }

    /// Returns whether it starts an app's program, wherever that is by now.
    pub fn starts(&self) -> bool {
        matches!(self, Verb::Start { .. } | Verb::Restart { .. } | Verb::Reload { .. })
    }

    /// The name of the command.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Start { .. } => "start",
            Verb::Restart { .. } => "restart",
            Verb::Stop => "stop",
            Verb::Delete => "delete",
            Verb::Scale { .. } => "scale",
            Verb::Reload { .. } => "reload",
        }
    }
}

/// The progress of a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is waiting for an event.
    Wait,
    /// Its next step is due.
    Next,
    /// It has succeeded.
    Done,
    /// It has failed, with the reason.
    Failed(String),
}

impl Task {
    /// Creates a task that can begin at once.
    pub fn new(client: Option<Client>, verb: Verb, apps: Vec<String>, ids: Vec<u32>) -> Self {
        Task { client, verb, is_prepared: true, missing: Vec::new(), apps, ids, left: Vec::new() }
    }

    /// Returns the progress of the command.
    pub fn verdict(&self, table: &Table) -> Verdict {
        if !self.is_prepared || !self.missing.is_empty() {
            return Verdict::Wait;
        }
        let instances = || self.ids.iter().filter_map(|id| table.instance(*id));
        match &self.verb {
            Verb::Start { is_begun: false, .. } | Verb::Restart { is_begun: false } | Verb::Scale { is_begun: false, .. } => {
                Verdict::Next
            }
            Verb::Start { .. } | Verb::Restart { .. } | Verb::Scale { is_up: true, .. } => {
                if let Some((app, instance)) = instances().find(|(_, instance)| instance.failures > 0) {
                    return Verdict::Failed(why(app, instance));
                }
                // A job may have ended by now, as it should.
                wait_for(instances().all(|(_, instance)| instance.is_online() || instance.is_finished))
            }
            Verb::Stop => wait_for(instances().all(|(_, instance)| instance.is_over())),
            Verb::Delete | Verb::Scale { is_up: false, .. } => wait_for(instances().next().is_none()),
            Verb::Reload { left, now, pace } => {
                let mut at_work = 0;
                for id in now {
                    match progress(table, *id) {
                        Verdict::Failed(why) => return Verdict::Failed(why),
                        Verdict::Wait => at_work += 1,
                        _ => {}
                    }
                }
                if left.is_empty() {
                    return if at_work == 0 { Verdict::Next } else { Verdict::Wait };
                }
                let Some(next) = next(left, pace, table) else {
                    let apps = self.apps.join(", ");
                    return Verdict::Failed(format!("no instance of {apps} is online, and a canary runs beside one that is"));
                };
                // A replacement that a previous daemon began may still be in progress.
                let is_busy = table.instance(left[next]).is_some_and(|(_, instance)| instance.other.is_some());
                // Nothing else is replaced until the canary has taken over.
                let is_trial = instances().any(|(_, instance)| instance.trial.is_some());
                let most = if is_trial || pace.canary_ms.is_some() { 1 } else { pace.parallel as usize };
                if at_work < most && !is_busy { Verdict::Next } else { Verdict::Wait }
            }
        }
    }
}

fn wait_for(is_done: bool) -> Verdict {
    if is_done { Verdict::Done } else { Verdict::Wait }
}

/// Returns which of the instances that are left is to be replaced next: the canary, as long as there is to be one, runs beside a process that is online.
pub fn next(left: &VecDeque<u32>, pace: &Pace, table: &Table) -> Option<usize> {
    let is_online = |id: &u32| table.instance(*id).is_some_and(|(_, instance)| instance.is_online());
    if pace.canary_ms.is_some() { left.iter().position(is_online) } else { (!left.is_empty()).then_some(0) }
}

/// Returns how far the replacement of an instance has come.
pub fn progress(table: &Table, id: u32) -> Verdict {
    // It may have been deleted meanwhile.
    table.instance(id).map_or(Verdict::Next, |(app, instance)| replaced(app, instance))
}

fn replaced(app: &App, instance: &Instance) -> Verdict {
    if let Some(wrong) = canary::wrong(app, instance) {
        return Verdict::Failed(format!("{} ({}) {wrong}", app.spec.name, instance.id));
    }
    match &instance.other {
        Some(Other::Replacement(worker)) if worker.state.is_over() => Verdict::Failed(why(app, instance)),
        Some(_) => Verdict::Wait,
        None if instance.failures > 0 => Verdict::Failed(why(app, instance)),
        // A job may have ended by now, as it should.
        None if instance.is_finished || matches!(instance.worker.state, State::Online { .. }) => Verdict::Next,
        None => Verdict::Wait,
    }
}

fn why(app: &App, instance: &Instance) -> String {
    let end = instance.last_end.as_deref().unwrap_or("ended");
    format!("{} ({}) {end}", app.spec.name, instance.id)
}
