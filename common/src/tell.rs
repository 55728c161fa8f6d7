//! What a server tells whoever keeps it: how many requests it has had, and for how long one of them held the threads that others wait for (the
//! lag of an event loop).
//!
//! It goes to `NOTIFY_SOCKET` as `STATUS=`, at most once a second and only if there is news. Forked workers tell nothing: there is one status,
//! and it belongs to their parent.

use crate::Threads;
use crate::args::Knobs;
use crate::dispatch::Seat;
use sd_notify::NotifyState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// News are as old as this at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest that a request has kept a thread since it was told last, in microseconds.
static LONGEST_US: AtomicU64 = AtomicU64::new(0);

/// A thread has worked on a request for so long.
pub(crate) fn held(time: Duration) {
    LONGEST_US.fetch_max(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Whether anybody listens.
pub(crate) fn is_heard() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some() && Seat::here().is_none()
}

/// What was told, and when.
pub(crate) struct Teller {
    /// Other connections wait for the threads that run handlers.
    has_lag: bool,
    requests: u64,
    at: Instant,
}

impl Teller {
    pub fn new(knobs: &Knobs) -> Self {
        let has_lag = knobs.blocking_threads == 0 && !matches!(knobs.model.handlers, Threads::PerConnection);
        Teller { has_lag, requests: 0, at: Instant::now() }
    }

    /// How long until there may be something to tell.
    pub fn wait(&self) -> Duration {
        INTERVAL.saturating_sub(self.at.elapsed())
    }

    /// Whether there is something to tell. A server whose HTTP is its own counts no requests here, and tells nothing.
    pub fn has_news(&self, requests: u64) -> bool {
        requests != self.requests || (requests > 0 && LONGEST_US.load(Ordering::Relaxed) > 0)
    }

    /// Tells it if it is time to.
    pub fn tell(&mut self, requests: u64) {
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
        // Whoever listened may be gone, and the service goes on either way.
        let _ = sd_notify::notify(&[NotifyState::Status(&format!("{requests} requests{lag}"))]);
    }
}
