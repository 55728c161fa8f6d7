//! A reload with a canary: the first new process runs beside the old one for a while, and what it reports is held against what the others report.

use super::Core;
use super::table::{App, Instance, Other, Worker};
use super::worker::State;
use crate::reports::Reported;
use std::time::{Duration, Instant};

/// A shorter lag is never a reason to go back, since people do not notice it.
const NOTICED_MS: f64 = 100.0;
/// The reload goes back if the lag of the new process, or its share of failed requests, is more than this many times that of the others.
const WORSE: f64 = 2.0;
/// Fewer failures than this may be chance.
const FEWEST_FAILURES: u64 = 5;

/// What a process has reported, since its start or since a trial began.
#[derive(Debug, Default, Clone, Copy)]
pub struct Record {
    now: Reported,
    before: Reported,
    longest_lag_ms: f64,
}

impl Record {
    /// Adds a report.
    pub fn add(&mut self, says: &str) {
        let Some(reported) = Reported::read(says) else { return };
        self.longest_lag_ms = self.longest_lag_ms.max(reported.lag_ms.unwrap_or_default());
        self.now = reported;
    }

    /// Begins to count anew.
    fn begin(&mut self) {
        (self.before, self.longest_lag_ms) = (self.now, 0.0);
    }

    fn failed(&self) -> u64 {
        self.now.failed.saturating_sub(self.before.failed)
    }

    fn requests(&self) -> u64 {
        self.now.requests.saturating_sub(self.before.requests)
    }
}

/// The time in which a new process is tried out.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    length: Duration,
    /// `None` until the process is ready.
    until: Option<Instant>,
}

impl Trial {
    pub fn new(length: Duration) -> Self {
        Trial { length, until: None }
    }

    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    pub fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl Core {
    /// Begins the trials of new processes that have become ready.
    pub(super) fn begin_trials(&mut self) {
        let now = self.now.instant;
        for app in &mut self.table.apps {
            let mut has_begun = false;
            for instance in &mut app.instances {
                let is_ready =
                    matches!(&instance.other, Some(Other::Replacement(next)) if matches!(next.state, State::Online { .. }));
                if instance.other.is_none() {
                    instance.trial = None;
                }
                if let Some(trial) = instance.trial.as_mut().filter(|trial| is_ready && trial.until.is_none()) {
                    trial.until = Some(now + trial.length);
                    has_begun = true;
                }
            }
            if has_begun {
                app.instances.iter_mut().flat_map(Instance::workers_mut).for_each(|worker| worker.record.begin());
            }
        }
    }
}

/// Returns what is wrong with the process that is tried out in an instance, if something is.
pub fn wrong(app: &App, instance: &Instance) -> Option<String> {
    instance.trial?.until?;
    let Some(Other::Replacement(canary)) = &instance.other else { return None };
    if let Some(unfit) = &canary.unfit {
        return Some(unfit.why.clone());
    }
    let others: Vec<&Worker> =
        app.instances.iter().flat_map(Instance::workers).filter(|worker| worker.key != canary.key).collect();
    let lag = canary.record.longest_lag_ms;
    let usual_lag = others.iter().map(|worker| worker.record.longest_lag_ms).fold(0.0, f64::max);
    if lag > NOTICED_MS && lag > WORSE * usual_lag {
        return Some(format!("held its event loop for up to {lag:.0} ms, and the others for up to {usual_lag:.0}"));
    }
    let share = |failed: u64, requests: u64| if requests == 0 { 0.0 } else { failed as f64 / requests as f64 };
    let (failed, requests) = (canary.record.failed(), canary.record.requests());
    let sum = |of: fn(&Record) -> u64| others.iter().map(|worker| of(&worker.record)).sum::<u64>();
    let (others_failed, others_requests) = (sum(Record::failed), sum(Record::requests));
    let is_worse = share(failed, requests) > WORSE * share(others_failed, others_requests);
    (failed >= FEWEST_FAILURES && is_worse)
        .then(|| format!("failed {failed} of {requests} requests, and the others {others_failed} of {others_requests}"))
}
