//! What came of a load, lane by lane.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Nanoseconds with three significant digits, up to ten minutes.
pub type Times = Histogram<u32>;

/// An empty histogram.
pub fn times() -> Times {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("constant bounds are valid")
}

/// The length of the intervals that requests are counted by.
const INTERVAL: Duration = Duration::from_millis(100);

/// A part of a lane's requests: those of one connection, or those due in one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Answered before the end.
    pub answered: u64,
    /// Longest response time, in microseconds; of a request that was not answered its age at the end, or when it failed.
    pub max_us: u64,
}

impl Part {
    fn add(&mut self, response: u64, is_answered: bool) {
        self.answered += u64::from(is_answered);
        self.max_us = self.max_us.max(response / 1000);
    }
}

/// One request of a lane that keeps its samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Connection of the lane.
    pub connection: usize,
    /// When it was due, since the start of the run.
    pub planned: Duration,
    /// From then to the last byte, or its age at the end of the run.
    pub response: Duration,
    /// False where the age stands for an answer that did not come.
    pub is_answered: bool,
}

/// One lane's requests. Counts and times are those of the window.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Requests due in the window.
    pub planned: u64,
    /// Answered rightly: of an open lane, requests due in the window; of a closed one, within it.
    pub answered: u64,
    /// Right answers that came within the window, whenever they were due: what the rate is made of.
    pub in_window: u64,
    /// Still without an answer at the end.
    pub unanswered: u64,
    /// Requests that count and failed.
    pub failed: u64,
    /// All requests that failed, those of the warm-up too: a wrong answer, or a connection that broke.
    pub errors: u64,
    /// The first of them, in words.
    pub first_error: Option<String>,
    /// Times that bytes came on a connection without a request in flight, which is then closed; not the 408 with which a server says that it closes.
    pub unasked: u64,
    /// Requests that were answered 503 in the window, where the lane lets a server shed them.
    pub shed: u64,
    /// Requests sent again since their connection closed before any byte of the answer.
    pub resent: u64,
    /// Connections that the server closed while they were idle.
    pub idle_closes: u64,
    /// Attempts to connect that were refused, or whose connection closed before its first answer when it was opened.
    pub refused: u64,
    /// The first of them, in words.
    pub first_refusal: Option<String>,
    /// What kept the driver itself from opening a connection, and what to do about it.
    pub own_failure: Option<String>,
    /// Answers by status, right or wrong, to the requests that count.
    pub statuses: BTreeMap<u16, u64>,
    /// From the planned instant to the last byte of a right answer.
    pub response: Times,
    /// The age at the end of each request that counts and never got a right answer, whether it still waits or failed.
    pub ages: Times,
    /// The same of those only that still wait.
    pub waits: Times,
    /// From the send to the last byte.
    pub service: Times,
    /// From the planned instant to its release: the driver's own delay.
    pub lag: Times,
    /// From the moment at which an answer could have been read to the moment at which it was: the driver's own delay.
    pub read_lag: Times,
    /// The seconds of the window, where the load keeps them.
    pub seconds: Vec<Second>,
    /// Each request, where the lane keeps them.
    pub samples: Vec<Sample>,
    /// By connection of the lane; a lane of fresh connections has one part for all.
    pub by_connection: Vec<Part>,
    /// By the tenth of a second of the window in which they were due.
    pub by_interval: Vec<Part>,
    /// When each answer's last byte came, of the few requests of a lane with an end: (connection, since the start).
    pub finished: Vec<(usize, Duration)>,
    /// When the last answer's last byte came, in the window or after it.
    pub last_byte: Duration,
}

impl Default for Recording {
    fn default() -> Self {
        Recording {
            planned: 0,
            answered: 0,
            in_window: 0,
            unanswered: 0,
            failed: 0,
            errors: 0,
            first_error: None,
            unasked: 0,
            shed: 0,
            resent: 0,
            idle_closes: 0,
            refused: 0,
            first_refusal: None,
            own_failure: None,
            statuses: BTreeMap::new(),
            response: times(),
            ages: times(),
            waits: times(),
            service: times(),
            lag: times(),
            read_lag: times(),
            seconds: Vec::new(),
            samples: Vec::new(),
            by_connection: Vec::new(),
            by_interval: Vec::new(),
            finished: Vec::new(),
            last_byte: Duration::ZERO,
        }
    }
}

impl Recording {
    /// Counts a right answer, in nanoseconds; `at` is when it was due, since the window began.
    pub fn count(&mut self, connection: usize, at: u64, response: u64, is_in_time: bool) {
        self.response.saturating_record(response.max(1));
        self.count_part(connection, at, response, is_in_time);
    }

    /// Counts a request by connection and interval alone: with its response time, or with its age where no right answer came.
    pub fn count_part(&mut self, connection: usize, at: u64, response: u64, is_answered: bool) {
        part(&mut self.by_connection, connection).add(response, is_answered);
        let interval = at / u64::try_from(INTERVAL.as_nanos()).unwrap_or(u64::MAX);
        part(&mut self.by_interval, usize::try_from(interval).unwrap_or(0)).add(response, is_answered);
    }

    /// Counts the ages at the end of requests without a right answer, in nanoseconds.
    pub fn count_ages(&mut self, age: u64, requests: u32) {
        self.ages.saturating_record_n(age.max(1), requests);
    }

    /// The times of an outcome in a second of the window, by an instant since it began, in nanoseconds.
    pub fn second(&mut self, at: u64, outcome: Outcome) -> &mut Times {
        let second = usize::try_from(at / 1_000_000_000).unwrap_or(0);
        while self.seconds.len() <= second {
            self.seconds.push(Second::new());
        }
        self.seconds[second].entry(outcome).or_insert_with(times)
    }

    /// The times of all requests that count; those without a right answer have their age.
    pub fn all_times(&self) -> Times {
        let mut all = self.response.clone();
        // Histograms with the same bounds always fit.
        let _ = all.add(&self.ages);
        all
    }

    /// Counts a failed request.
    pub fn fail(&mut self, what: &str) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| what.to_owned());
    }

    /// Notes what the driver itself lacked.
    pub fn lack(&mut self, what: &str) {
        self.own_failure.get_or_insert_with(|| what.to_owned());
    }

    /// Counts a refused attempt to connect.
    pub fn refuse(&mut self, what: &str) {
        self.refused += 1;
        self.first_refusal.get_or_insert_with(|| what.to_owned());
    }
}

fn part(parts: &mut Vec<Part>, index: usize) -> &mut Part {
    if index >= parts.len() {
        parts.resize(index + 1, Part::default());
    }
    &mut parts[index]
}

/// The times of one second.
pub type Second = BTreeMap<Outcome, Times>;

/// What became of a request, as far as times and rates differ in what they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A right answer came in the window.
    Answered,
    /// The same, to a request of the warm-up: it counts in the rate alone.
    Early,
    /// A right answer came after the window: its time counts, and it is not in the rate. It belongs to the last second.
    Late,
    /// No right answer came: the age at the end counts as its time. It belongs to the last second as well.
    Unanswered,
}

impl Outcome {
    /// Whether a request has a time that counts.
    pub fn is_timed(self) -> bool {
        self != Outcome::Early
    }

    /// Whether an answer counts in the rate.
    pub fn is_in_rate(self) -> bool {
        matches!(self, Outcome::Answered | Outcome::Early)
    }
}

/// What came of a load.
#[derive(Debug, Clone)]
pub struct Observation {
    /// One for each lane of the load.
    pub lanes: Vec<Recording>,
    /// When the window began, since the start of the run.
    pub window_start: Duration,
    /// Length of the window; shorter than planned if the run was cut short.
    pub window: Duration,
    /// Share of the window that the driver's thread spent on a processor, without what it spent looking at the clock before a send.
    pub driver_load: f64,
    /// The wait was given up: the rest of the answers would not change what is known.
    pub gave_up: bool,
    /// An interrupt cut the run short.
    pub is_cut_short: bool,
    /// When the run began, in seconds since 1970.
    pub started: f64,
}

impl Observation {
    /// Answers per second of a lane within the window; those that came after it are not part of its rate.
    pub fn per_second(&self, lane: usize) -> f64 {
        self.lanes[lane].in_window as f64 / self.window.as_secs_f64()
    }
}
