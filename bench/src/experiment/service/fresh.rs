//! What new clients experience beside slow requests.

use super::{Service, Settings, fresh_failed_metric, fresh_grows_metric, fresh_metric, fresh_threshold_metric};
use crate::experiment::steps::freeze_k;
use crate::measure::Latency;
use crate::metrics::{LIMITS_MS, Reading, Value};
use anyhow::Result;

/// The intervals by which a lane is counted, in microseconds.
const INTERVAL_US: u64 = 100_000;
/// Waits grow if the last is this many times the first, and each at least this share of the one before it.
const GROWS: f64 = 1.5;
const RISES: f64 = 0.9;

impl Service {
    /// What new clients experience: a server with a limit on connections lets them wait, while those already connected are served as before.
    pub(super) fn fresh(&self, settings: &Settings) -> Result<Vec<Reading>> {
        let (block_ms, mut readings, mut ladder) = (settings.block_ms, Vec::new(), Vec::new());
        for step in &self.run.steps {
            let value = match (&step.invalid, step.fresh.most_ms()?) {
                (Some(reason), _) => Err(reason.clone()),
                (None, Some(value)) => Ok(value),
                (None, None) => continue,
            };
            let shown = match value.clone() {
                Ok(value) if value.is_above(LIMITS_MS[0]) == Some(true) => {
                    let (is_bound, grows) = unsettled(&step.fresh);
                    readings.extend(grows.then(|| (fresh_grows_metric(block_ms, step.k), Ok(Value::Exact(1.0)))));
                    Ok(value.number().filter(|_| is_bound).map_or(value, Value::AtLeast))
                }
                shown => shown,
            };
            readings.push((fresh_metric(block_ms, step.k), shown));
            readings.push((fresh_failed_metric(block_ms, step.k), Ok(Value::Exact(step.fresh.failed as f64))));
            // By what was seen in a step of this length: a bound below a limit would hide what lies above it.
            ladder.push((step.k, value));
        }
        // Where the climb ended since all were frozen, nothing is known of more slow requests.
        let is_whole = ladder.last().map(|(k, _)| *k) >= settings.blockers.last().copied();
        for limit_ms in LIMITS_MS.into_iter().filter(|limit_ms| *limit_ms <= self.run.limit_ms && !ladder.is_empty()) {
            let threshold = freeze_k(&ladder, limit_ms);
            let is_known = match threshold {
                Ok(Value::Never { .. }) => is_whole,
                Ok(_) => true,
                // A wait that was cut short below the limit is no fault; an invalid step is.
                Err(_) => ladder.iter().any(|(_, value)| value.is_err()),
            };
            if is_known {
                readings.push((fresh_threshold_metric(block_ms, limit_ms), threshold));
            }
        }
        Ok(readings)
    }
}

/// Whether the waits of a lane are only a lower bound, and whether they grew. No slow request follows the end of a step, so the queue drains then: a request
/// that is answered later waited less than it would have if the step had gone on. Only those answered before the end count.
fn unsettled(lane: &Latency) -> (bool, bool) {
    if lane.failed > 0 {
        return (false, false);
    }
    let end_us = lane.by_interval.len() as u64 * INTERVAL_US;
    let waits = lane.by_interval.iter().enumerate().filter(|(_, part)| part.max_us > 0);
    let within = waits.clone().take_while(|(at, part)| *at as u64 * INTERVAL_US + part.max_us <= end_us);
    let within: Vec<f64> = within.map(|(_, part)| part.max_us as f64).collect();
    let rises = within.windows(2).all(|pair| pair[1] >= RISES * pair[0]);
    let grows = within.len() > 2 && rises && within[within.len() - 1] > GROWS * within[0];
    (grows || within.len() * 3 < waits.count(), grows)
}

#[cfg(test)]
mod tests {
    use super::super::{KIND, LIMIT_MS};
    use super::*;
    use crate::experiment::climb::{Run, Step};
    use crate::experiment::{Choices, contract::Experiment};
    use crate::load::Recording;
    use crate::measure::Mode;
    use crate::metrics::Role;

    /// The thresholds of new connections, of which each step says how many were answered at once, and the ages of those that still waited.
    fn thresholds(steps: &[(usize, u64, u64, u64)]) -> Vec<(String, Result<Value, String>)> {
        let step = |&(k, answered, waiting, age_ms): &(usize, u64, u64, u64)| {
            let mut fresh = Recording { planned: answered + waiting, answered, unanswered: waiting, ..Recording::default() };
            (0..answered).for_each(|_| fresh.count(0, 0, 200_000, true));
            fresh.count_ages(age_ms * 1_000_000, waiting as u32);
            Step { invalid: None, fresh: Latency::of(&fresh), ..Step::unmeasured(k, String::new()) }
        };
        let run = Run { kind: KIND.into(), block_ms: 110.0, limit_ms: LIMIT_MS, steps: steps.iter().map(step).collect() };
        let settings = Settings { block_ms: 110.0, ..Service::settings(Mode::Quick, &Choices::default()) };
        let readings = Service { run }.fresh(&settings).unwrap();
        let is_threshold = |(metric, _): &Reading| metric.family.role == Role::Threshold;
        readings.into_iter().filter(is_threshold).map(|(metric, value)| (metric.place, value)).collect()
    }

    #[test]
    fn the_length_of_a_queue_that_still_grows_is_a_bound() {
        let of = |waits_ms: [u64; 10]| {
            let mut fresh = Recording { planned: 20, answered: 20, ..Recording::default() };
            for (at, ms) in waits_ms.into_iter().enumerate() {
                (0..2).for_each(|_| fresh.count(0, at as u64 * 100_000_000, ms * 1_000_000, true));
            }
            unsettled(&Latency::of(&fresh))
        };
        // Half of them were answered when the slow requests had ended.
        assert_eq!(of([298, 408, 522, 630, 693, 599, 499, 400, 300, 200]), (true, true));
        // Hardly one was answered before that.
        assert_eq!(of([813, 1020, 972, 873, 773, 673, 573, 474, 374, 274]), (true, false));
        // As long as it gets beside sixteen of them on four threads.
        assert_eq!(of([348, 360, 373, 386, 404, 416, 432, 447, 404, 418]), (false, false));
        // Something else held it up once.
        assert_eq!(of([1, 1, 1, 1, 1, 2, 203, 154, 54, 2]), (false, false));
    }

    #[test]
    fn new_connections_that_wait_are_told_and_a_wait_that_was_cut_short_below_a_limit_is_no_fault() {
        let at = |limit_ms: u32, k: f64| (format!("slow@110,{limit_ms}ms"), Ok(Value::Exact(k)));
        assert_eq!(thresholds(&[(0, 20, 0, 0), (1, 20, 0, 0), (4, 0, 20, 1740)]), [at(100, 4.0), at(1000, 4.0)]);
        // The climb was given up, since all others had waited for a second by then.
        assert_eq!(thresholds(&[(0, 20, 0, 0), (1, 0, 20, 900)]), [at(100, 1.0)]);
        assert_eq!(thresholds(&[(0, 20, 0, 0), (1, 19, 1, 900)]), [], "one may be unlucky");
    }
}
