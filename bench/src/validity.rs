//! What makes a cell a number. Each check has a name; the first that fails stands in the cell instead of one: `invalid(lag: ...)`.
//!
//! Only what the *driver* owes can fail here, and what cannot be true. A server that is slow, frozen or dead is a result.

use crate::driver::{Recording, Report};
use std::fmt;
use std::time::Duration;

/// Of what was planned, the share that must have been released in time.
const RELEASED: f64 = 0.99;
/// Nothing is claimed about differences below this, in nanoseconds, so lag need not be smaller than its tenth.
const LEAST_CLAIM: u64 = 2_000_000;
/// Fewer requests have no percentile of lag.
const LAGS: u64 = 100;
/// A driver that is busier than this may be what limits the rate.
pub const SATURATED: f64 = 0.98;
/// How far rate times response time may be from the requests in flight.
const LITTLE: f64 = 0.1;
/// How far a rate may be above what is possible: clocks are read at different times.
const SLACK: f64 = 1.02;
/// A trial from which the hypervisor took more than this share of the processors, again and again, says nothing.
const MOST_STEAL: f64 = 0.25;

/// A check that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    check: &'static str,
    words: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.words)
    }
}

impl std::error::Error for Failure {}

fn check(name: &'static str, holds: bool, words: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure { check: name, words: words() }) }
}

/// What the driver owes in a lane: `answers`, `rate`, `lag`, and of an open lane `driver`.
pub fn of_lane(report: &Report, lane: usize) -> Result<(), Failure> {
    let recording = &report.lanes[lane];
    check("answers", recording.errors == 0, || {
        format!("{} wrong: {}", recording.errors, recording.first_error.as_deref().unwrap_or("unknown"))
    })?;
    of_driver(report, lane)
}

/// What the driver owes, whatever the server answers.
///
/// # Errors
/// The first check that fails.
pub fn of_driver(report: &Report, lane: usize) -> Result<(), Failure> {
    let recording = &report.lanes[lane];
    let owed = RELEASED * recording.planned as f64;
    check("rate", recording.released as f64 >= owed, || {
        format!("the driver released {} of {} requests in time", recording.released, recording.planned)
    })?;
    let lag = recording.lag.value_at_quantile(0.99);
    let claimed = recording.response.value_at_quantile(0.99).max(LEAST_CLAIM);
    check("lag", recording.lag.len() < LAGS || lag <= claimed / 10, || {
        format!("the driver was {:.2} ms behind its plan at p99", lag as f64 / 1e6)
    })?;
    let is_open = recording.planned > 0;
    check("driver", !is_open || report.driver_load <= SATURATED, || {
        format!("the driver was busy for {:.0} % of the time", report.driver_load * 100.0)
    })
}

/// Little's law (1961): in a closed loop, rate times response time is the number of requests in flight.
/// What was begun before the window and what is not done at its end may be as wrong as the longest of them is a share of it.
pub fn littles_law(lane: &Recording, window: Duration, in_flight: f64) -> Result<(), Failure> {
    let window_ns = window.as_nanos() as f64;
    let found = lane.answered as f64 * lane.response.mean() / window_ns;
    let edges = lane.response.max() as f64 / window_ns;
    check("littles-law", (found / in_flight - 1.0).abs() < LITTLE + edges, || {
        format!("rate times response time is {found:.1} requests in flight instead of {in_flight}")
    })
}

/// No more blockers are answered than can be: so many at once for the window's length, and those that began before it.
pub fn blocker_ceiling(answered: u64, at_once: usize, window_s: f64, block_s: f64) -> Result<(), Failure> {
    let most = (window_s / block_s * SLACK + 1.0) * at_once as f64;
    check("ceiling", answered as f64 <= most, || format!("{answered} blockers were answered where at most {most:.0} can be"))
}

/// No server uses more processor time than its cores have.
pub fn cpu_ceiling(used_s: f64, cores: usize, window_s: f64) -> Result<(), Failure> {
    // The window is measured by the driver, processor time from outside around it.
    let most = cores as f64 * (window_s * SLACK + 0.05);
    check("ceiling", used_s <= most, || format!("{used_s:.2} s of processor time on {cores} cores in {window_s:.2} s"))
}

/// No request that takes so long is answered before.
pub fn block_floor(first_ms: f64, length_ms: f64) -> Result<(), Failure> {
    check("ceiling", first_ms >= length_ms, || format!("a request of {length_ms} ms was answered after {first_ms:.1} ms"))
}

/// The hypervisor left the trial alone.
pub fn steal(share: f64) -> Result<(), Failure> {
    check("steal", share <= MOST_STEAL, || format!("the hypervisor took {:.0} % of the processors, several times", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(change: impl FnOnce(&mut Report)) -> Report {
        let mut recording = Recording::new();
        (recording.planned, recording.released, recording.answered) = (1000, 1000, 1000);
        for _ in 0..1000 {
            recording.response.record(1_000_000).unwrap();
            recording.lag.record(10_000).unwrap();
        }
        let window = Duration::from_secs(1);
        let mut report =
            Report { lanes: vec![recording], window_start: Duration::ZERO, window, driver_load: 0.1, gave_up: false };
        change(&mut report);
        report
    }

    fn failed(change: impl FnOnce(&mut Report)) -> String {
        of_lane(&report(change), 0).err().map_or("none".into(), |failure| failure.check.into())
    }

    #[test]
    fn each_failure_is_named() {
        assert_eq!(failed(|_| ()), "none");
        assert_eq!(failed(|report| report.lanes[0].errors = 1), "answers");
        assert_eq!(failed(|report| report.lanes[0].released = 989), "rate");
        assert_eq!(failed(|report| (0..100).for_each(|_| report.lanes[0].lag.record(300_000).unwrap())), "lag");
        assert_eq!(failed(|report| report.driver_load = 0.99), "driver");
    }

    #[test]
    fn lag_may_be_a_tenth_of_what_is_claimed() {
        let frozen = |report: &mut Report| {
            (0..100).for_each(|_| report.lanes[0].lag.record(300_000).unwrap());
            (0..100).for_each(|_| report.lanes[0].response.record(400_000_000).unwrap());
        };
        assert_eq!(failed(frozen), "none");
    }

    #[test]
    fn what_cannot_be_true_is_refused() {
        let lane = |response_ns| {
            let mut lane = Recording::new();
            lane.answered = 64_000;
            lane.response.record_n(response_ns, 64_000).unwrap();
            lane
        };
        assert!(littles_law(&lane(1_000_000), Duration::from_secs(1), 64.0).is_ok());
        assert!(littles_law(&lane(2_000_000), Duration::from_secs(1), 64.0).is_err());
        assert!(blocker_ceiling(22, 2, 1.0, 0.1).is_ok());
        assert!(blocker_ceiling(23, 2, 1.0, 0.1).is_err());
        assert!(cpu_ceiling(2.0, 2, 1.0).is_ok());
        assert!(cpu_ceiling(2.3, 2, 1.0).is_err());
        assert!(block_floor(300.0, 300.0).is_ok());
        assert!(block_floor(250.0, 300.0).unwrap_err().to_string().starts_with("ceiling: "));
        assert!(steal(0.2).is_ok() && steal(0.3).is_err());
    }
}
