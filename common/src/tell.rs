//! Status a server reports to its supervisor: its number of requests and its lag.
//!
//! The lag is the longest time for which one request held a thread that other requests wait for. The status goes to
//! `NOTIFY_SOCKET` as `STATUS=`, at most once a second and only if it has changed. Forked workers report nothing, because the
//! only status belongs to their parent.
//!
//! A supervisor that asks for signs of life (`WATCHDOG_USEC`) gets them (`WATCHDOG=1`), but not while one request holds such a thread.

use crate::Threads;
use crate::args::Knobs;
use crate::dispatch::WorkerSlot;
use crate::holding;
use sd_notify::NotifyState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The shortest time between two reports.
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest time for which a request has held a thread since the last report, in microseconds.
static LONGEST_US: AtomicU64 = AtomicU64::new(0);

/// Records that a request held its thread for `time`.
pub(crate) fn held(time: Duration) {
    LONGEST_US.fetch_max(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// True if a supervisor listens and this process is not a forked worker.
pub(crate) fn has_listener() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some() && WorkerSlot::here().is_none()
}

/// Returns whether other connections wait for the threads that run handlers.
fn has_lag(knobs: &Knobs) -> bool {
    knobs.blocking_threads == 0 && !matches!(knobs.model.handlers, Threads::PerConnection)
}

/// The signs of life that a supervisor wants.
pub(crate) struct Heartbeat {
    /// The time between two of them, a quarter of the longest one that the supervisor accepts.
    every: Duration,
    due: Instant,
    has_lag: bool,
}

impl Heartbeat {
    /// `None` if nobody asks for it.
    pub fn wanted(knobs: &Knobs) -> Option<Self> {
        let every = sd_notify::watchdog_enabled().filter(|_| has_listener())? / 4;
        Some(Heartbeat { every, due: Instant::now(), has_lag: has_lag(knobs) })
    }

    /// The time until the next one is due.
    pub fn wait(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Sends one if it is due, unless one request has held a thread since the last one.
    pub fn beat(&mut self) {
        if self.wait() > Duration::ZERO {
            return;
        }
        self.due = Instant::now() + self.every;
        if !self.has_lag || holding::longest() < self.every {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
    }
}

/// Sends the status, and remembers the last report and its time.
pub(crate) struct StatusReporter {
    /// Other connections wait for the threads that run handlers, so the status includes the lag.
    has_lag: bool,
    requests: u64,
    at: Instant,
}

impl StatusReporter {
    pub fn new(knobs: &Knobs) -> Self {
        StatusReporter { has_lag: has_lag(knobs), requests: 0, at: Instant::now() }
    }

    /// The time until the next report is allowed.
    pub fn wait(&self) -> Duration {
        INTERVAL.saturating_sub(self.at.elapsed())
    }

    /// True if the status has changed. A server with its own HTTP counts no requests here, so it never reports.
    pub fn has_news(&self, requests: u64) -> bool {
        requests != self.requests || (requests > 0 && LONGEST_US.load(Ordering::Relaxed) > 0)
    }

    /// Sends the status if it has changed and the next report is allowed.
    pub fn report(&mut self, requests: u64) {
        if self.wait() > Duration::ZERO {
            return;
        }
        self.at = Instant::now();
        if !self.has_news(requests) {
            return;
        }
        self.requests = requests;
        let longest_us = LONGEST_US.swap(0, Ordering::Relaxed);
        let lag = if self.has_lag { format!(", lag up to {:.1} ms", longest_us as f64 / 1e3) } else { String::new() };
        // If the supervisor is gone, the server keeps running without it.
        let _ = sd_notify::notify(&[NotifyState::Status(&format!("{requests} requests{lag}"))]);
    }
}
