//! Checks that decide whether a cell is valid. Each has a name; the first that fails stands in the cell instead of a number:
//! `invalid(lag: ...)`.
//!
//! Only the *driver's* obligations can fail here, and what cannot be true. A server that is slow, frozen or dead is a result.

use crate::load::{Observation, Recording, Times};
use std::fmt;
use std::time::Duration;

/// The share of due requests that must have been released in time.
const RELEASED: f64 = 0.99;
/// Nothing is claimed about differences below this, in nanoseconds, so the driver's delay need not be smaller than its tenth.
pub const LEAST_CLAIM: u64 = 2_000_000;
/// With fewer requests than this, a percentile would be the maximum: one delay of the driver can be all that it shows, so it may be late by more,
/// but by less than could make a difference.
const DELAYS: u64 = 1000;
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

impl Failure {
    /// Whether the server answered wrongly, which another attempt of the driver does not change.
    pub fn is_of_server(&self) -> bool {
        self.check == "answers"
    }
}

fn check(name: &'static str, holds: bool, words: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure { check: name, words: words() }) }
}

/// Whether the reason in a cell is that of a check of the driver or the machine, so that taking the trial again may help.
pub fn is_of_driver(reason: &str) -> bool {
    reason.split_once(": ").is_some_and(|(check, _)| ["lag", "rate", "driver", "steal"].contains(&check))
}

/// Checks every lane: answers, and what the driver owed.
///
/// # Errors
/// The first check that fails.
pub fn of_all(observation: &Observation) -> Result<(), Failure> {
    (0..observation.lanes.len()).try_for_each(|lane| of_lane(observation, lane))
}

/// Checks one lane: `driver`, `answers`, `lag`, and `rate`.
///
/// # Errors
/// The first check that fails.
pub fn of_lane(observation: &Observation, lane: usize) -> Result<(), Failure> {
    let recording = &observation.lanes[lane];
    // Before the answers: a request that never left is no wrong answer of the server.
    could_connect(recording)?;
    check("answers", recording.errors == 0, || {
        format!("{} wrong: {}", recording.errors, recording.first_error.as_deref().unwrap_or("unknown"))
    })?;
    check("answers", recording.unasked == 0, || format!("{} that nobody asked for", recording.unasked))?;
    of_driver(observation, lane, &recording.all_times())
}

/// Checks what the driver owed in a lane, whatever the server answered; `claimed` are the times that are said to be the server's.
///
/// # Errors
/// The first check that fails.
pub fn of_driver(observation: &Observation, lane: usize, claimed: &Times) -> Result<(), Failure> {
    let recording = &observation.lanes[lane];
    could_connect(recording)?;
    let allowed = allowed_delay(claimed);
    for (delays, what) in [(&recording.lag, "behind its plan"), (&recording.read_lag, "late to read answers")] {
        let delay = typical(delays);
        // In a closed loop the driver is asked as fast as it can answer: how busy it was says whether it was the limit.
        let is_owed = recording.planned > 0;
        check("lag", !is_owed || delay <= allowed, || {
            format!("the driver was {:.3} ms {what}, more than the {:.3} ms allowed", delay as f64 / 1e6, allowed as f64 / 1e6)
        })?;
    }
    let in_time = recording.lag.count_between(0, allowed);
    check("rate", in_time as f64 >= RELEASED * recording.planned as f64, || {
        format!("the driver released {in_time} of {} requests in time", recording.planned)
    })?;
    check("driver", recording.planned == 0 || observation.driver_load <= SATURATED, || {
        format!("the driver was busy for {:.0} % of the time", observation.driver_load * 100.0)
    })
}

/// The driver had what it needs for its connections.
fn could_connect(recording: &Recording) -> Result<(), Failure> {
    check("driver", recording.own_failure.is_none(), || recording.own_failure.clone().unwrap_or_default())
}

/// A tenth of what is claimed: of p99 where there are samples enough for it, otherwise of the maximum, which then stands for it.
fn allowed_delay(claimed: &Times) -> u64 {
    let least = if claimed.len() < DELAYS { LEAST_CLAIM / 2 } else { LEAST_CLAIM / 10 };
    (typical(claimed) / 10).max(least)
}

/// The delay of the driver that a maximum may hold, in nanoseconds.
pub fn allowed_in_maximum(maximum: u64) -> u64 {
    (maximum / 10).max(LEAST_CLAIM / 2)
}

/// p99, or the maximum of few.
fn typical(times: &Times) -> u64 {
    if times.len() < DELAYS { times.max() } else { times.value_at_quantile(0.99) }
}

/// Some request of these lanes was answered, so that the longest response time is one.
///
/// # Errors
/// None was.
pub fn any_answer(lanes: &[&Recording]) -> Result<(), Failure> {
    check("answers", lanes.iter().any(|lane| !lane.response.is_empty()), || "no request was answered".into())
}

/// Some request of this lane was answered within the window, so that its cost is that of requests.
///
/// # Errors
/// None was.
pub fn answered_in_window(lane: &Recording) -> Result<(), Failure> {
    check("answers", lane.answered > 0, || {
        "no request was answered in the window, some behind it at most: measure for longer".into()
    })
}

/// Little's law (1961): in a closed loop, rate times response time is the number of requests in flight. Requests that began before the window
/// or are not done at its end may shift it by the share that the longest of them is of the window.
///
/// # Errors
/// It does not hold.
pub fn littles_law(lane: &Recording, window: Duration, in_flight: f64) -> Result<(), Failure> {
    let window_ns = window.as_nanos() as f64;
    let times = lane.all_times();
    let found = lane.answered as f64 * times.mean() / window_ns;
    let edges = times.max() as f64 / window_ns;
    check("littles-law", (found / in_flight - 1.0).abs() < LITTLE + edges, || {
        format!("rate times response time is {found:.1} requests in flight instead of {in_flight}")
    })
}

/// No more blockers are answered than can be: `at_once` for the window's length, and those that began before it.
///
/// # Errors
/// More are.
pub fn blocker_ceiling(answered: u64, at_once: usize, window_s: f64, block_s: f64) -> Result<(), Failure> {
    let most = (window_s / block_s * SLACK + 1.0) * at_once as f64;
    check("ceiling", answered as f64 <= most, || format!("{answered} blockers were answered where at most {most:.0} can be"))
}

/// No server uses more processor time than its cores have.
///
/// # Errors
/// It does.
pub fn cpu_ceiling(used_s: f64, cores: usize, window_s: f64) -> Result<(), Failure> {
    // The window is measured by the driver, processor time from outside around it.
    let most = cores as f64 * (window_s * SLACK + 0.05);
    check("ceiling", used_s <= most, || format!("{used_s:.2} s of processor time on {cores} cores in {window_s:.2} s"))
}

/// No request that takes a known time is answered before.
///
/// # Errors
/// It is.
pub fn block_floor(first_ms: f64, length_ms: f64) -> Result<(), Failure> {
    check("ceiling", first_ms >= length_ms, || format!("a request of {length_ms} ms was answered after {first_ms:.1} ms"))
}

/// The hypervisor left the trial alone.
///
/// # Errors
/// It did not.
pub fn steal(share: f64) -> Result<(), Failure> {
    check("steal", share <= MOST_STEAL, || format!("the hypervisor took {:.0} % of the processors, several times", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observation(change: impl FnOnce(&mut Observation)) -> Observation {
        let mut recording = Recording { planned: 2000, answered: 2000, ..Recording::default() };
        recording.response.record_n(1_000_000, 2000).unwrap();
        recording.lag.record_n(10_000, 2000).unwrap();
        recording.read_lag.record_n(10_000, 2000).unwrap();
        let mut observation = Observation {
            lanes: vec![recording],
            window_start: Duration::ZERO,
            window: Duration::from_secs(2),
            driver_load: 0.1,
            gave_up: false,
            is_cut_short: false,
            started: 0.0,
        };
        change(&mut observation);
        observation
    }

    fn failed(change: impl FnOnce(&mut Observation)) -> String {
        of_lane(&observation(change), 0).err().map_or("none".into(), |failure| failure.check.into())
    }

    #[test]
    fn each_failure_is_named() {
        assert_eq!(failed(|_| ()), "none");
        assert_eq!(failed(|seen| seen.lanes[0].errors = 1), "answers");
        assert_eq!(failed(|seen| seen.lanes[0].planned = 2030), "rate");
        assert_eq!(failed(|seen| seen.lanes[0].lag.record_n(300_000, 100).unwrap()), "lag");
        assert_eq!(failed(|seen| seen.lanes[0].read_lag.record_n(300_000, 100).unwrap()), "lag");
        assert_eq!(failed(|seen| seen.driver_load = 0.99), "driver");
        let without_a_port = |seen: &mut Observation| {
            seen.lanes[0].own_failure = Some("no port".into());
            seen.lanes[0].fail("no port");
        };
        assert_eq!(failed(without_a_port), "driver");
    }

    #[test]
    fn of_nothing_there_is_no_longest() {
        let nothing = Recording::default();
        assert!(any_answer(&[&nothing]).unwrap_err().to_string().starts_with("answers: no request"));
        assert!(any_answer(&[&nothing, &observation(|_| ()).lanes[0]]).is_ok());
        let mut late = observation(|_| ()).lanes.remove(0);
        assert!(answered_in_window(&late).is_ok());
        late.answered = 0;
        assert!(answered_in_window(&late).unwrap_err().to_string().starts_with("answers: no request"));
    }

    #[test]
    fn released_by_the_end_of_the_window_is_not_in_time() {
        // Enough are late to miss the rate, too few to move p99.
        assert_eq!(failed(|seen| seen.lanes[0].lag.record_n(900_000_000, 15).unwrap()), "none");
        let late = |seen: &mut Observation| {
            seen.lanes[0].lag.reset();
            seen.lanes[0].lag.record_n(10_000, 1979).unwrap();
            seen.lanes[0].lag.record_n(900_000_000, 19).unwrap();
        };
        assert_eq!(failed(late), "rate");
    }

    #[test]
    fn few_samples_are_judged_by_their_maximum() {
        let few = |seen: &mut Observation| {
            let lane = &mut seen.lanes[0];
            (lane.planned, lane.answered) = (20, 20);
            lane.lag.reset();
            lane.lag.record_n(10_000, 19).unwrap();
            lane.response.reset();
            lane.response.record_n(1_000_000, 20).unwrap();
            lane.lag.record(1_300_000).unwrap();
        };
        assert_eq!(failed(few), "lag");
    }

    #[test]
    fn lag_may_be_a_tenth_of_what_is_claimed() {
        let frozen = |seen: &mut Observation| {
            seen.lanes[0].lag.record_n(300_000, 100).unwrap();
            seen.lanes[0].response.record_n(400_000_000, 100).unwrap();
        };
        assert_eq!(failed(frozen), "none");
    }

    #[test]
    fn what_cannot_be_true_is_refused() {
        let lane = |response_ns| {
            let mut lane = Recording { answered: 64_000, ..Recording::default() };
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
