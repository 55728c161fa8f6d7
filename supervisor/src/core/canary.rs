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
/// In fewer reports than this, a long lag may be chance: a busy machine, a collection of garbage.
const FEWEST_LAGS: u32 = 2;
/// A single lag that is longer than this is not chance.
const NO_CHANCE_MS: f64 = 1000.0;

/// What a process has reported, since its start or since a trial began.
#[derive(Debug, Default, Clone, Copy)]
pub struct Record {
    now: Reported,
    before: Reported,
    longest_lag_ms: f64,
    /// Reports of a lag that people notice.
    noticed: u32,
}

impl Record {
    /// Adds a report.
    pub fn add(&mut self, says: &str) {
        let Some(reported) = Reported::read(says) else { return };
        let lag = reported.lag_ms.unwrap_or_default();
        self.longest_lag_ms = self.longest_lag_ms.max(lag);
        self.noticed += u32::from(lag > NOTICED_MS);
        self.now = reported;
    }

    /// Begins to count anew.
    fn begin(&mut self) {
        *self = Record { now: self.now, before: self.now, ..Record::default() };
    }

    /// Whether it has held its event loop for far longer than is usual: more than once for a time that people notice, or once for very long.
    fn is_slow(&self, usual_lag_ms: f64) -> bool {
        (self.noticed >= FEWEST_LAGS || self.longest_lag_ms > NO_CHANCE_MS) && self.longest_lag_ms > WORSE * usual_lag_ms
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
    let usual_lag = others.iter().map(|worker| worker.record.longest_lag_ms).fold(0.0, f64::max);
    if canary.record.is_slow(usual_lag) {
        let lag = canary.record.longest_lag_ms;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(lags: &[f64]) -> Record {
        let mut record = Record::default();
        lags.iter().for_each(|lag| record.add(&format!("7 requests, 0 failed, lag up to {lag} ms")));
        record
    }

    #[test]
    fn one_long_lag_may_be_chance_and_a_second_one_is_not() {
        assert!(!record(&[0.5, 240.0, 0.7, 90.0]).is_slow(1.0));
        assert!(record(&[0.5, 240.0, 101.0]).is_slow(1.0));
        assert!(record(&[0.5, 20_000.0]).is_slow(1.0), "that is no chance");
        assert!(!record(&[300.0, 240.0]).is_slow(151.0), "the others are nearly as slow");
    }

    #[test]
    fn what_came_before_the_trial_does_not_count() {
        let mut record = record(&[300.0, 300.0]);
        record.begin();
        record.add("9 requests, 2 failed, lag up to 150 ms");
        assert!(!record.is_slow(1.0));
        assert_eq!((record.requests(), record.failed()), (2, 2));
    }
}
