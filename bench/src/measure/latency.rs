//! The times of a lane, as a round keeps them.

use crate::load::{Part, Recording, Times};
use crate::metrics::{Percentile, Value};
use crate::validity;
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};

/// Samples that must lie beyond a percentile.
const BEYOND: f64 = 10.0;
/// The share of few requests that most of them are.
const MOST: f64 = 0.9;
/// A value that moves by less than this share is the same one.
const LITTLE: f64 = 0.99;
/// A histogram keeps three digits, so a time may stand in it a little lower.
const ROUNDING: f64 = 0.999;

/// Times of a lane, in microseconds, with the histogram of its response times.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Latency {
    /// Requests due in the window.
    pub planned: u64,
    /// Answered before the end.
    pub answered: u64,
    /// Without a right answer at the end, those that failed included; they count with their age.
    pub unanswered: u64,
    /// Requests that failed.
    #[serde(default)]
    pub failed: u64,
    /// The shortest age among the unanswered requests; `None` without any, and in rounds of schema 1.
    #[serde(default)]
    pub youngest_us: Option<f64>,
    /// Median response time.
    pub p50_us: f64,
    /// 99th percentile of response time; if fewer than ten samples lie beyond it, the longest time, of those that did not fail unless it lies among these.
    pub p99_us: f64,
    /// Longest response time.
    pub max_us: f64,
    /// The longest time of a request that did not fail: it was answered, or still waits. `None` in rounds before 2026-11-30.
    #[serde(default)]
    pub longest_us: Option<f64>,
    /// 99th percentile of service time, likewise.
    pub service_p99_us: f64,
    /// 99th percentile of the driver's lag behind its plan.
    pub lag_p99_us: f64,
    /// Its maximum; `None` in rounds that did not keep it.
    #[serde(default)]
    pub lag_max_us: Option<f64>,
    /// By the tenth of a second in which they were due: answered, and the longest response time.
    #[serde(default)]
    pub by_interval: Vec<Part>,
    /// Response times: HDR histogram in nanoseconds, V2, base64.
    pub response: String,
}

impl Latency {
    /// Takes the times out of a recording.
    pub fn of(recording: &Recording) -> Self {
        let times = recording.all_times();
        let longest_us = recording.response.max().max(recording.waits.max()) as f64 / 1e3;
        let mut latency = Latency {
            planned: recording.planned,
            answered: recording.answered,
            unanswered: recording.unanswered + recording.failed,
            failed: recording.failed,
            youngest_us: (!recording.ages.is_empty()).then(|| recording.ages.min() as f64 / 1e3),
            p50_us: times.value_at_quantile(0.5) as f64 / 1e3,
            p99_us: 0.0,
            max_us: times.max() as f64 / 1e3,
            longest_us: Some(longest_us),
            service_p99_us: quantile_us(&recording.service, 0.99),
            lag_p99_us: recording.lag.value_at_quantile(0.99) as f64 / 1e3,
            lag_max_us: Some(recording.lag.max() as f64 / 1e3),
            by_interval: recording.by_interval.clone(),
            response: encode(&times),
        };
        latency.p99_us = latency.of_few(&times, Percentile::default()).unwrap_or_else(|| quantile_us(&times, 0.99));
        latency
    }

    /// The longest time among the requests that did not fail, where it stands for a percentile: too few samples lie beyond that, and some requests failed,
    /// but not so many that the percentile is one of them. A failed request counts with its age at the end of the run, and one among hundreds of quick answers
    /// must not make the percentile that long.
    fn of_few(&self, times: &Times, percentile: Percentile) -> Option<f64> {
        let is_few = !has_enough(times, percentile.quantile());
        self.longest_us.filter(|_| is_few && self.failed > 0 && !self.fails(percentile))
    }

    /// A percentile of the stored response times, in ms. Requests that were not answered stand in the histogram with their age, so a
    /// percentile that is not below the shortest age is only a lower bound; of no times at all nothing is known but that.
    ///
    /// # Errors
    /// A histogram that cannot be read.
    pub fn response_ms(&self, percentile: Percentile) -> Result<Value> {
        let times = self.times()?;
        let quantile = percentile.quantile();
        if let Some(longest) = self.of_few(&times, percentile) {
            let value = longest / 1e3;
            return Ok(if self.unanswered > self.failed { Value::AtLeast(value) } else { Value::Exact(value) });
        }
        Ok(known(&times, self.unanswered, self.youngest_us, (quantile, quantile_us(&times, quantile))))
    }

    /// The middle of the stored response times, in ms, however few they are; a lower bound as any other percentile.
    ///
    /// # Errors
    /// A histogram that cannot be read.
    pub fn median_ms(&self) -> Result<Value> {
        Ok(known(&self.times()?, self.unanswered, self.youngest_us, (0.5, self.p50_us)))
    }

    /// The time within which nine of ten of few requests were answered, and all but one of very few, in ms: one of them may be unlucky. `None` if
    /// there were fewer than two.
    ///
    /// # Errors
    /// A histogram that cannot be read.
    pub fn most_ms(&self) -> Result<Option<Value>> {
        let times = self.times()?;
        let count = times.len();
        if count < 2 {
            return Ok(None);
        }
        let rank = ((count as f64 * MOST).ceil() as u64).min(count - 1);
        let quantile = rank as f64 / count as f64;
        let value_us = times.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Some(known(&times, self.unanswered, self.youngest_us, (quantile, value_us))))
    }

    /// Whether a percentile lies among the failed requests. These are never answered, so it is above every limit.
    pub fn fails(&self, percentile: Percentile) -> bool {
        self.failed as f64 > (1.0 - percentile.quantile()) * (self.answered + self.unanswered) as f64
    }

    /// The response times, as they were counted.
    ///
    /// # Errors
    /// A histogram that cannot be read.
    pub fn times(&self) -> Result<Times> {
        decode(&self.response)
    }

    /// The longest response time, in ms.
    ///
    /// # Errors
    /// The reason why it may be the driver's own.
    pub fn max_ms(&self) -> Result<Value, String> {
        let lag = self.lag_max_us.unwrap_or_default();
        let allowed = validity::allowed_in_maximum((self.max_us * 1e3) as u64) as f64 / 1e3;
        if lag > allowed {
            return Err(format!(
                "lag: the driver was {:.3} ms behind its plan once, more than {:.3} ms",
                lag / 1e3,
                allowed / 1e3
            ));
        }
        let value = self.max_us / 1e3;
        Ok(if self.unanswered > 0 || self.answered == 0 { Value::AtLeast(value) } else { Value::Exact(value) })
    }
}

/// What is known, in ms, of a quantile and its value in microseconds, if that many of the times are ages of requests that were not answered.
pub fn known<C: Counter>(
    times: &Histogram<C>,
    unanswered: u64,
    youngest_us: Option<f64>,
    (quantile, value_us): (f64, f64),
) -> Value {
    let is_old = youngest_us.is_none_or(|youngest| value_us >= youngest * ROUNDING);
    // Had those requests taken for ever, a larger share would lie above the value: few of them move it by less than it is rounded.
    let above = quantile + unanswered as f64 / times.len().max(1) as f64;
    let is_moved = above >= 1.0 || !has_enough(times, quantile) || quantile_us(times, above) * LITTLE > value_us;
    let is_bound = times.is_empty() || unanswered > 0 && is_old && is_moved;
    let value = value_us / 1e3;
    if is_bound { Value::AtLeast(value) } else { Value::Exact(value) }
}

/// The same of a quantile of those requests that did not fail; `None` without any.
pub fn of_unfailed(recording: &Recording, quantile: f64) -> Option<Value> {
    let mut times = recording.response.clone();
    // Histograms with the same bounds always fit.
    times.add(&recording.waits).unwrap_or_default();
    let youngest_us = (!recording.waits.is_empty()).then(|| recording.waits.min() as f64 / 1e3);
    // The middle is one of few as well; a maximum stands for p99 of them.
    let value_us = if quantile > 0.5 { quantile_us(&times, quantile) } else { times.value_at_quantile(quantile) as f64 / 1e3 };
    (!times.is_empty()).then(|| known(&times, recording.unanswered, youngest_us, (quantile, value_us)))
}

/// A quantile in microseconds, or the maximum where fewer than ten samples lie beyond it.
fn quantile_us<C: Counter>(times: &Histogram<C>, quantile: f64) -> f64 {
    (if has_enough(times, quantile) { times.value_at_quantile(quantile) } else { times.max() }) as f64 / 1e3
}

fn has_enough<C: Counter>(times: &Histogram<C>, quantile: f64) -> bool {
    // Rounded up a little: one percent of a thousand is ten, whatever floating point makes of it.
    times.len() as f64 * (1.0 - quantile) > BEYOND - 1e-6
}

fn encode(times: &Times) -> String {
    let mut bytes = Vec::new();
    // Writing to memory fails only for histograms beyond what ours can hold.
    let _ = V2Serializer::new().serialize(times, &mut bytes);
    STANDARD.encode(bytes)
}

fn decode(text: &str) -> Result<Times> {
    let bytes = STANDARD.decode(text).context("a histogram is not base64")?;
    let times = Deserializer::new().deserialize(&mut bytes.as_slice());
    times.map_err(|error| anyhow::anyhow!("a histogram does not decode: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(answered: u64, unanswered: u64) -> Latency {
        let mut recording = Recording { answered, unanswered, ..Recording::default() };
        (0..answered).for_each(|_| recording.count(0, 0, 1_000_000, true));
        recording.count_ages(504_000_000, unanswered as u32);
        Latency::of(&recording)
    }

    #[test]
    fn percentiles_that_are_not_below_the_shortest_age_are_lower_bounds() {
        let at = |latency: &Latency, percentile: &str| latency.response_ms(percentile.parse().unwrap()).unwrap();
        let half = latency(500, 600);
        assert!(matches!(at(&half, "50"), Value::AtLeast(ms) if (ms - 504.0).abs() < 1.0), "{:?}", at(&half, "50"));
        assert!(matches!(at(&half, "40"), Value::Exact(ms) if (ms - 1.0).abs() < 0.01));
        // One of thousands that was still young when the run was cut short.
        let cut = Latency { youngest_us: Some(10.0), unanswered: 1, ..latency(5000, 0) };
        assert!(matches!(at(&cut, "50"), Value::Exact(_)) && matches!(cut.max_ms(), Ok(Value::AtLeast(_))));
        let all = latency(2000, 0);
        assert!(matches!(at(&all, "99"), Value::Exact(_)) && matches!(all.max_ms(), Ok(Value::Exact(_))));
        assert!(matches!(half.max_ms(), Ok(Value::AtLeast(_))));
        let late = Latency { lag_max_us: Some(1500.0), ..all };
        assert!(late.max_ms().unwrap_err().contains("1.500 ms behind"), "a maximum of 1 ms may be the driver's");
    }

    #[test]
    fn what_fails_is_never_answered_and_no_times_are_not_a_time_of_zero() {
        let p99 = Percentile::default();
        // A server that refuses at once: each of its failures is as old as the run at its end.
        let failing = |answered: u64, failed: u64| {
            let mut recording = Recording { failed, errors: failed, ..Recording::default() };
            recording.answered = answered;
            (0..answered).for_each(|_| recording.count(0, 0, 200_000, true));
            recording.count_ages(900_000_000, failed as u32);
            Latency::of(&recording)
        };
        let some = failing(980, 20);
        assert!(some.fails(p99) && matches!(some.response_ms(p99).unwrap(), Value::AtLeast(ms) if ms > 899.0));
        assert!(matches!(some.median_ms().unwrap(), Value::Exact(ms) if ms < 0.21));
        assert!(matches!(failing(0, 1000).median_ms().unwrap(), Value::AtLeast(ms) if ms > 899.0));
        assert!(!failing(999, 1).fails(p99));
        let nothing = Latency::of(&Recording::default());
        assert_eq!((nothing.response_ms(p99).unwrap(), nothing.max_ms()), (Value::AtLeast(0.0), Ok(Value::AtLeast(0.0))));
    }

    #[test]
    fn one_failure_among_few_requests_is_not_their_percentile_and_what_stands_for_it_is_a_bound_only_if_others_wait() {
        let of = |answered: u64, failed: u64, waiting_ms: Option<u64>| {
            let mut recording = Recording { answered, failed, errors: failed, ..Recording::default() };
            (0..answered).for_each(|_| recording.count(0, 0, 8_000_000, true));
            recording.count_ages(1_600_000_000, failed as u32);
            if let Some(ms) = waiting_ms {
                recording.unanswered += 1;
                recording.waits.saturating_record(ms * 1_000_000);
                recording.count_ages(ms * 1_000_000, 1);
            }
            let latency = Latency::of(&recording);
            (latency.response_ms(Percentile::default()).unwrap(), latency.p99_us / 1e3)
        };
        assert!(matches!(of(399, 1, None), (Value::Exact(ms), p99) if ms < 8.1 && p99 < 8.1), "{:?}", of(399, 1, None));
        // Two of a hundred: p99 is one of those that are never answered.
        assert!(matches!(of(98, 2, None).0, Value::AtLeast(ms) if ms > 1590.0));
        assert!(matches!(of(398, 1, Some(700)).0, Value::AtLeast(ms) if (699.0..701.0).contains(&ms)));
    }

    #[test]
    fn a_median_is_the_middle_of_few_and_a_bound_where_answers_are_missing() {
        let mut few = Recording { answered: 3, ..Recording::default() };
        [1_000_000, 2_000_000, 90_000_000].into_iter().for_each(|ns| few.count(0, 0, ns, true));
        assert!(matches!(Latency::of(&few).median_ms().unwrap(), Value::Exact(ms) if (ms - 2.0).abs() < 0.01));
        assert!(matches!(latency(500, 600).median_ms().unwrap(), Value::AtLeast(ms) if (ms - 504.0).abs() < 1.0));
    }

    #[test]
    fn a_request_that_failed_has_no_time_and_one_that_still_waits_has_at_least_its_age() {
        let of = |answered: u64, waiting: u64, failed: u64| {
            let mut recording = Recording { answered, unanswered: waiting, failed, ..Recording::default() };
            (0..answered).for_each(|_| recording.count(0, 0, 100_000_000, true));
            recording.count_ages(2_000_000_000, waiting as u32);
            recording.count_ages(9_000_000_000, failed as u32);
            recording.waits.saturating_record_n(2_000_000_000, waiting as u32);
            recording
        };
        let at = |recording: &Recording, quantile: f64| of_unfailed(recording, quantile);
        let is =
            |value: Option<Value>, wanted: f64| value.and_then(Value::exact).is_some_and(|ms| (ms / wanted - 1.0).abs() < 0.01);
        // More of them failed than were answered, and some still wait.
        assert!(is(at(&of(30, 0, 70), 0.5), 100.0) && is(at(&of(30, 0, 70), 0.99), 100.0));
        assert!(matches!(at(&of(30, 40, 0), 0.5), Some(Value::AtLeast(ms)) if (1990.0..2010.0).contains(&ms)));
        assert!(matches!(at(&of(60, 5, 5), 0.99), Some(Value::AtLeast(ms)) if (1990.0..2010.0).contains(&ms)));
        assert_eq!(at(&of(0, 0, 5), 0.5), None);
        // Also where one has just begun to wait.
        let mut many = of(10, 83, 7);
        many.count_ages(1_000, 1);
        many.waits.saturating_record(1_000);
        assert!(matches!(at(&many, 0.99), Some(Value::AtLeast(ms)) if ms > 1990.0), "{:?}", at(&many, 0.99));
    }

    #[test]
    fn a_broken_histogram_is_refused() {
        let broken = Latency { response: "AAAA".into(), ..latency(1, 0) };
        assert!(broken.response_ms(Percentile::default()).unwrap_err().to_string().contains("does not decode"));
    }
}
