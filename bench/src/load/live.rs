//! Watching a load while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Events that can wait for the watcher. Further ones are dropped, since the load must not wait.
const ROOM: usize = 65_536;

/// Watches a load, and can end it early.
#[derive(Debug, Clone)]
pub struct Live {
    /// The number of this load, for a watcher of several.
    pub source: u32,
    epoch: Instant,
    events: SyncSender<Event>,
    is_over: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
}

/// One request at one instant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event {
    /// The load.
    pub source: u32,
    /// The lane.
    pub lane: usize,
    /// The connection of the lane; 0 for fresh ones.
    pub connection: usize,
    /// When the request was due, since the watch began.
    pub planned: Duration,
    /// The event.
    pub what: What,
}

/// An event of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum What {
    /// It was released, this long after it was due: the driver's own delay.
    Due(Duration),
    /// It was answered after this time, by a worker with this process id, if the server says so.
    Answered(Duration, Option<u32>),
    /// It failed after this time.
    Failed(Duration),
}

/// Creates a watch, and the channel that its events come from.
pub fn watch() -> (Live, Receiver<Event>) {
    let (events, watched) = sync_channel(ROOM);
    let live = Live { source: 0, epoch: Instant::now(), events, is_over: Arc::default(), dropped: Arc::default() };
    (live, watched)
}

impl Live {
    /// For another load that the same watcher sees, which ends by itself.
    pub fn of(&self, source: u32) -> Self {
        Live { source, is_over: Arc::default(), ..self.clone() }
    }

    /// Ends the load as soon as the driver looks.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Returns whether the load is to end.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Time since the watch began.
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Number of events that were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Reports an event of a request that was due `planned` after its load began.
    pub fn tell(&self, began: Instant, lane: usize, connection: usize, planned: Duration, what: What) {
        let planned = planned + began.saturating_duration_since(self.epoch);
        // The watcher polls: waking it up would cost the driver microseconds.
        if self.events.try_send(Event { source: self.source, lane, connection, planned, what }).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_that_does_not_look_costs_events_and_not_time() {
        let (live, watched) = watch();
        let began = Instant::now();
        (0..ROOM + 3).for_each(|_| live.tell(began, 0, 0, Duration::ZERO, What::Failed(Duration::ZERO)));
        assert_eq!((live.dropped(), watched.try_iter().count()), (3, ROOM));
    }

    #[test]
    fn each_load_ends_by_itself() {
        let (live, _watched) = watch();
        let other = live.of(1);
        other.end();
        assert!(other.is_over() && !live.is_over());
    }
}
