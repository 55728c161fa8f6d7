//! The metrics of a user's own service, by name.

use super::super::climb::{self, freeze_metric, place};
use super::{KIND, Service};
use crate::experiment::contract::Experiment;
use crate::metrics::{Family, Metric, Percentile, Role, Unit};

/// Quick requests, and those of them that failed.
pub(super) const QUICK: Family = Family::new("quick", Unit::Count, Role::Detail);
pub(super) const QUICK_FAILED: Family = Family::new("quick_failed", Unit::Count, Role::Detail);
/// The time within which most requests over new connections are answered, and the number of slow requests that pushes it over a limit.
const FRESH: Family = Family::new("fresh_ms", Unit::Ms, Role::Detail);
const FRESH_FAILED: Family = Family::new("fresh_failed", Unit::Count, Role::Detail);
pub(super) const FRESH_FREEZE: Family = Family::new("fresh_freeze_k", Unit::Blockers, Role::Threshold).more_is_better();
/// 1 if more quick requests on open connections failed than the percentile leaves beyond it, else 0.
const FAILS: Family = Family::new("quick_fails", Unit::Count, Role::Detail);
/// The times of the quick requests on open connections that did not fail, where some failed: half of them, and all but a hundredth.
const WAITS: [Family; 2] =
    [Family::new("quick_wait_p50_ms", Unit::Ms, Role::Detail), Family::new("quick_wait_p99_ms", Unit::Ms, Role::Detail)];
/// The quick requests that were refused, by status.
const REFUSED: [(u16, Family); 2] =
    [(429, Family::new("quick_429", Unit::Count, Role::Detail)), (503, Family::new("quick_503", Unit::Count, Role::Detail))];
/// 1 if the waits of new connections grew throughout the step.
const FRESH_GROWS: Family = Family::new("fresh_grows", Unit::Count, Role::Detail);
/// Slow requests, and those of them that failed.
pub(super) const SLOW: Family = Family::new("slow", Unit::Count, Role::Detail);
pub(super) const SLOW_FAILED: Family = Family::new("slow_failed", Unit::Count, Role::Detail);
/// The median time of the slow requests that did not fail.
const SLOW_MS: Family = Family::new("slow_ms", Unit::Ms, Role::Detail);

/// The time within which most requests over new connections are answered beside k slow ones.
pub fn fresh_metric(block_ms: f64, k: usize) -> Metric {
    count_metric(&FRESH, block_ms, k)
}

/// Those of them that failed.
pub fn fresh_failed_metric(block_ms: f64, k: usize) -> Metric {
    count_metric(&FRESH_FAILED, block_ms, k)
}

/// The number of slow requests that pushes it over a limit.
pub fn fresh_threshold_metric(block_ms: f64, limit_ms: f64) -> Metric {
    Metric { family: FRESH_FREEZE, ..threshold_metric(block_ms, limit_ms) }
}

/// The response time of the quick request beside k slow ones.
pub fn response_metric(percentile: Percentile, block_ms: f64, k: usize) -> Metric {
    percentile.family().at(Service::NAME, place(KIND, block_ms, k))
}

/// What is compared of a step beside k slow requests.
pub fn compared_metrics(percentile: Percentile, block_ms: f64, k: usize) -> [Metric; 2] {
    [response_metric(percentile, block_ms, k), count_metric(&climb::FRESH_MAX, block_ms, k)]
}

/// The numbers of quick requests beside k slow ones: of those that failed, and of all.
pub fn failure_metrics(block_ms: f64, k: usize) -> [Metric; 2] {
    [QUICK_FAILED, QUICK].map(|family| count_metric(&family, block_ms, k))
}

/// Whether p99 of the quick requests is one of those that failed; absent in rounds before 2026-11-30.
pub fn fails_metric(block_ms: f64, k: usize) -> Metric {
    count_metric(&FAILS, block_ms, k)
}

/// The median and p99 of the quick requests that did not fail, where some did.
pub fn wait_metrics(block_ms: f64, k: usize) -> [Metric; 2] {
    WAITS.map(|family| count_metric(&family, block_ms, k))
}

/// The quick requests that were refused with this status; `None` for one that is no refusal.
pub fn refused_metric(status: u16, block_ms: f64, k: usize) -> Option<Metric> {
    REFUSED.iter().find(|(one, _)| *one == status).map(|(_, family)| count_metric(family, block_ms, k))
}

/// Whether the waits of new connections grew throughout the step.
pub fn fresh_grows_metric(block_ms: f64, k: usize) -> Metric {
    count_metric(&FRESH_GROWS, block_ms, k)
}

/// The same of the slow ones.
pub fn slow_failure_metrics(block_ms: f64, k: usize) -> [Metric; 2] {
    [SLOW_FAILED, SLOW].map(|family| count_metric(&family, block_ms, k))
}

/// The median response time of the quick request beside k slow ones.
pub fn median_metric(block_ms: f64, k: usize) -> Metric {
    count_metric(&climb::P50, block_ms, k)
}

/// The slow requests that were answered each second beside k of them.
pub fn served_metric(block_ms: f64, k: usize) -> Metric {
    count_metric(&climb::BLOCKERS_PER_S, block_ms, k)
}

/// The time that k slow requests took each.
pub fn slow_time_metric(block_ms: f64, k: usize) -> Metric {
    count_metric(&SLOW_MS, block_ms, k)
}

pub(super) fn count_metric(family: &Family, block_ms: f64, k: usize) -> Metric {
    family.at(Service::NAME, place(KIND, block_ms, k))
}

/// The freeze threshold at a limit.
pub fn threshold_metric(block_ms: f64, limit_ms: f64) -> Metric {
    freeze_metric(Service::NAME, KIND, block_ms, limit_ms)
}
