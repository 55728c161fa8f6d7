//! What a lane has to say after a run.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Nanoseconds with three significant digits, up to ten minutes.
pub type Times = Histogram<u32>;

/// An empty histogram.
pub fn times() -> Times {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("constant bounds are valid")
}

/// Length of the intervals of a [`Part`] in time.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// A part of a lane's requests: those of one connection, or those that were due in one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Answered before the end.
    pub answered: u64,
    /// Longest response time, in microseconds; the age of what was not answered.
    pub max_us: u64,
}

impl Part {
    fn add(&mut self, response: u64, is_answered: bool) {
        self.answered += u64::from(is_answered);
        self.max_us = self.max_us.max(response / 1000);
    }
}

/// One request of a lane that keeps its samples.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Which connection of the lane.
    pub connection: usize,
    /// When it was due, since the start of the run.
    pub planned: Duration,
    /// From the plan to the last byte, or the age at the end of the run.
    pub response: Duration,
    /// False where the age stands for an answer that did not come.
    pub is_answered: bool,
}

/// What one lane did. Counts and times are those of the window.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Requests due in the window.
    pub planned: u64,
    /// Of these, sent or waiting for a connection that the server holds up: what the driver owed and did.
    pub released: u64,
    /// Of these, answered rightly before the end.
    pub answered: u64,
    /// Of these, not answered by the end; their age stands in `response`.
    pub unanswered: u64,
    /// Answers that were wrong, connections that failed: each takes the cell its validity.
    pub errors: u64,
    /// The first of them, in words.
    pub first_error: Option<String>,
    /// From the plan to the last byte.
    pub response: Times,
    /// From the send to the last byte.
    pub service: Times,
    /// From the plan to the send, where the connection was free: the driver's own delay.
    pub lag: Times,
    /// Each request, where the lane keeps them.
    pub samples: Vec<Sample>,
    /// By connection of the lane; a fresh lane has one part for all.
    pub by_connection: Vec<Part>,
    /// By the [`INTERVAL`] of the window in which they were due, or of a closed lane, in which they were sent.
    pub by_interval: Vec<Part>,
    /// When each answer's last byte came, of those few requests that a lane with `most` sends: (connection, since start).
    pub finished: Vec<(usize, Duration)>,
    /// When the last answer's last byte came, window or not.
    pub last_byte: Duration,
}

impl Recording {
    pub fn new() -> Self {
        Recording {
            planned: 0,
            released: 0,
            answered: 0,
            unanswered: 0,
            errors: 0,
            first_error: None,
            response: times(),
            service: times(),
            lag: times(),
            samples: Vec::new(),
            by_connection: Vec::new(),
            by_interval: Vec::new(),
            finished: Vec::new(),
            last_byte: Duration::ZERO,
        }
    }

    /// Counts a response time of the window, in nanoseconds; `at` is when it was due, since the window began.
    pub(super) fn count(&mut self, connection: usize, at: u64, response: u64, is_answered: bool) {
        self.response.saturating_record(response.max(1));
        part(&mut self.by_connection, connection).add(response, is_answered);
        let interval = at / u64::try_from(INTERVAL.as_nanos()).unwrap_or(u64::MAX);
        part(&mut self.by_interval, usize::try_from(interval).unwrap_or(0)).add(response, is_answered);
    }

    pub(super) fn fail(&mut self, what: impl Into<String>) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| what.into());
    }
}

fn part(parts: &mut Vec<Part>, index: usize) -> &mut Part {
    if index >= parts.len() {
        parts.resize(index + 1, Part::default());
    }
    &mut parts[index]
}

/// What a run has to say.
#[derive(Debug, Clone)]
pub struct Report {
    /// One for each lane of the load.
    pub lanes: Vec<Recording>,
    /// When the window began, since the start of the run.
    pub window_start: Duration,
    /// Length of the window.
    pub window: Duration,
    /// Share of the window that the driver's thread spent on a processor, without what it spent looking at the clock before a send.
    pub driver_load: f64,
    /// The wait was given up: the rest of the answers would not change what is known.
    pub gave_up: bool,
}

impl Report {
    /// Answers per second of a lane.
    pub fn per_second(&self, lane: usize) -> f64 {
        self.lanes[lane].answered as f64 / self.window.as_secs_f64()
    }
}
