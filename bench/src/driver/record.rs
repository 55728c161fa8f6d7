//! What a lane has to say after a run.

use hdrhistogram::Histogram;
use std::time::Duration;

/// Nanoseconds with three significant digits, up to ten minutes.
pub type Times = Histogram<u32>;

/// An empty histogram.
pub fn times() -> Times {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("constant bounds are valid")
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
            finished: Vec::new(),
            last_byte: Duration::ZERO,
        }
    }

    pub(super) fn fail(&mut self, what: impl Into<String>) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| what.into());
    }
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
    /// Share of the window that the driver's thread spent on a processor.
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
