//! A step of a climb: probes beside one number of blockers.

use crate::load::Recording;
use crate::measure::{Latency, Timeline};
use crate::metrics::{Percentile, Value};
use anyhow::Result;
use serde::{Deserialize, Serialize};

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
    /// Median time of the blockers that were answered, in ms; `None` without any, and in rounds before 2026-11-30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blockers_p50_ms: Option<f64>,
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
