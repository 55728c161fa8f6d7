//! A step of a climb: probes beside one number of blockers.

use crate::load::Recording;
use crate::measure::{Latency, Timeline};
use crate::metrics::{Percentile, Value};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The statuses with which a server, or what stands before it, refuses what it could answer.
const REFUSALS: [u16; 2] = [429, 503];

/// One number of blockers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// Blockers in flight.
    pub k: usize,
    /// The reason why this step is invalid.
    pub invalid: Option<String>,
    /// Probes over kept-alive connections.
    pub probes: Latency,
    /// Probes over fresh connections.
    pub fresh: Latency,
    /// Share of kept-alive connections that were dead.
    pub dead: f64,
    /// Time from the last blocker's last byte until every probe scheduled before it was answered; `None` if that was not waited for.
    pub recovery_ms: Option<f64>,
    /// Blockers answered per second.
    pub blockers_per_s: f64,
    /// Blockers that failed.
    #[serde(default)]
    pub blockers_failed: u64,
    /// Blockers that were answered, failed, or still waited at the end; 0 in rounds before 2026-11-30.
    #[serde(default)]
    pub blockers_asked: u64,
    /// Median time of the blockers that did not fail, in ms: a bound where too many still waited. `None` without any, and in rounds before 2026-11-30; some of
    /// that day cover only those that were answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blockers_p50_ms: Option<Value>,
    /// Median and p99 of the probes on kept connections that did not fail, in ms, where some failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<[Value; 2]>,
    /// Probes that were refused, by status.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<u16, u64>,
    /// The first request that failed, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    /// Blockers answered 503 per second.
    #[serde(default)]
    pub shed_per_s: f64,
    /// Share of the window that the driver spent on a processor.
    pub driver_load: f64,
    /// The wait for answers was given up, since the limit was passed already.
    pub gave_up: bool,
    /// Each request, where the trial keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
}

/// The answers of these lanes that refuse.
pub(super) fn refused<'r>(lanes: impl IntoIterator<Item = &'r Recording>) -> BTreeMap<u16, u64> {
    let mut refused = BTreeMap::new();
    for lane in lanes {
        for (status, count) in lane.statuses.iter().filter(|(status, _)| REFUSALS.contains(status)) {
            *refused.entry(*status).or_default() += count;
        }
    }
    refused
}

impl Step {
    /// One that could not be taken, and why.
    pub(in crate::experiment) fn unmeasured(k: usize, reason: String) -> Self {
        let nothing = Latency::of(&Recording::default());
        Step {
            k,
            invalid: Some(reason),
            probes: nothing.clone(),
            fresh: nothing,
            dead: 0.0,
            recovery_ms: None,
            blockers_per_s: 0.0,
            blockers_failed: 0,
            blockers_asked: 0,
            blockers_p50_ms: None,
            waits: None,
            refused: BTreeMap::new(),
            first_error: None,
            shed_per_s: 0.0,
            driver_load: 0.0,
            gave_up: false,
            timeline: None,
        }
    }

    /// A value, unless the whole step is invalid.
    pub(super) fn valid(&self, value: Result<Value, String>) -> Result<Value, String> {
        self.invalid.clone().map_or(value, Err)
    }

    /// Whether anything failed, or got no answer.
    pub(in crate::experiment) fn has_failures(&self) -> bool {
        self.probes.unanswered + self.fresh.unanswered + self.blockers_failed > 0
    }

    /// Whether enough probes failed to put the percentile above every limit. For servers under the contract, such a step is invalid instead.
    pub(in crate::experiment) fn fails(&self, percentile: Percentile) -> bool {
        self.invalid.is_none() && self.probes.fails(percentile)
    }

    /// A percentile of the probes' response time.
    pub(super) fn response(&self, percentile: Percentile) -> Result<Value> {
        Ok(self.bound(self.probes.response_ms(percentile)?))
    }

    /// A time of a step that was given up is a lower bound, where rounds do not say how old the unanswered requests were.
    pub(super) fn bound(&self, value: Value) -> Value {
        let is_bound = self.gave_up && self.probes.youngest_us.is_none() && self.probes.unanswered > 0;
        if is_bound { value.number().map_or(value, Value::AtLeast) } else { value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_refuse_are_counted_by_status_and_other_failures_are_not() {
        let statuses = BTreeMap::from([(200, 5), (429, 3), (500, 2), (503, 1)]);
        let lane = Recording { statuses, ..Recording::default() };
        assert_eq!(refused([&lane, &lane]), BTreeMap::from([(429, 6), (503, 2)]));
    }
}
