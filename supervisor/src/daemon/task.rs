//! What somebody has asked for and is not done yet.

use super::table::{App, Instance, Other, Table};
use super::worker::State;
use std::collections::VecDeque;

/// A command under way.
pub struct Task {
    /// Who waits for it; none if the daemon itself asked.
    pub client: Option<u64>,
    pub verb: Verb,
    /// Names of the apps it is about, which no other may touch meanwhile.
    pub apps: Vec<String>,
    /// The instances it waits for.
    pub ids: Vec<u32>,
}

/// What is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Its listeners are being bound; then its instances start.
    Bind {
        /// Addresses that are still to be bound.
        left: Vec<String>,
    },
    Start,
    Restart,
    Stop,
    /// Wait until they are gone.
    Delete,
    Reload {
        /// Those still to be replaced.
        left: VecDeque<u32>,
        /// The one being replaced.
        now: Option<u32>,
    },
}

impl Verb {
    /// As a person calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Bind { .. } | Verb::Start => "start",
            Verb::Restart => "restart",
            Verb::Stop => "stop",
            Verb::Delete => "delete",
            Verb::Reload { .. } => "reload",
        }
    }
}

/// How a command stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Something is still to happen.
    Wait,
    /// The next step of a reload is due.
    Next,
    /// It is done.
    Done,
    /// It is not done, and why.
    Failed(String),
}

impl Task {
    /// How it stands.
    pub fn verdict(&self, table: &Table) -> Verdict {
        let instances = || self.ids.iter().filter_map(|id| table.instance(*id));
        match &self.verb {
            Verb::Bind { left } => {
                if left.is_empty() {
                    Verdict::Next
                } else {
                    Verdict::Wait
                }
            }
            Verb::Start | Verb::Restart => {
                if let Some((app, instance)) = instances().find(|(_, instance)| instance.failures > 0) {
                    return Verdict::Failed(why(app, instance));
                }
                wait_for(instances().all(|(_, instance)| instance.is_online()))
            }
            Verb::Stop => wait_for(instances().all(|(_, instance)| instance.is_over())),
            Verb::Delete => wait_for(instances().next().is_none()),
            Verb::Reload { left, now } => {
                let step = match now.and_then(|id| table.instance(id)) {
                    // The first, or it was deleted meanwhile.
                    None => Verdict::Next,
                    Some((app, instance)) => replaced(app, instance),
                };
                let next = left.front().and_then(|id| table.instance(*id));
                // What a daemon before this one began to replace.
                let is_busy = next.is_some_and(|(_, instance)| instance.other.is_some());
                if step == Verdict::Next && is_busy { Verdict::Wait } else { step }
            }
        }
    }
}

fn wait_for(is_done: bool) -> Verdict {
    if is_done { Verdict::Done } else { Verdict::Wait }
}

fn replaced(app: &App, instance: &Instance) -> Verdict {
    match &instance.other {
        Some(Other::Replacement(worker)) if worker.state.is_over() => Verdict::Failed(why(app, instance)),
        Some(_) => Verdict::Wait,
        None if instance.failures > 0 => Verdict::Failed(why(app, instance)),
        None if matches!(instance.worker.state, State::Online { .. }) => Verdict::Next,
        None => Verdict::Wait,
    }
}

fn why(app: &App, instance: &Instance) -> String {
    let end = instance.last_end.as_deref().unwrap_or("ended");
    format!("{} ({}) {end}", app.spec.name, instance.id)
}
