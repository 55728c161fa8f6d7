//! Status a server reports to its supervisor: its number of requests and its lag.
//!
//! The lag is the longest time for which one request held a thread that other requests wait for. The status goes to
//! `NOTIFY_SOCKET` as `STATUS=`, at most once a second and only if it has changed. Forked workers report nothing, because the
//! only status belongs to their parent.

use crate::Threads;
use crate::args::Knobs;
use crate::dispatch::WorkerSlot;
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

/// Sends the status, and remembers the last report and its time.
pub(crate) struct StatusReporter {
    /// Other connections wait for the threads that run handlers, so the status includes the lag.
    has_lag: bool,
    requests: u64,
    at: Instant,
}

impl StatusReporter {
    pub fn new(knobs: &Knobs) -> Self {
        let has_lag = knobs.blocking_threads == 0 && !matches!(knobs.model.handlers, Threads::PerConnection);
        StatusReporter { has_lag, requests: 0, at: Instant::now() }
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
