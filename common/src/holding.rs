//! The threads that a handler holds, and since when.
//!
//! A thread writes the start of its handler into a place of its own, so that noting it costs two stores and no lock.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The number of places. With more threads than that, some share a place; a server with so many threads has no event loop.
const PLACES: usize = 256;

/// The start of the handler that runs in each place, in microseconds since [`epoch`]; 0 without one.
static SINCE_US: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];
static TAKEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A moment before any handler.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

fn place() -> &'static AtomicU64 {
    let place = PLACE.get();
    if place < PLACES {
        return &SINCE_US[place];
    }
    let place = TAKEN.fetch_add(1, Ordering::Relaxed) % PLACES;
    PLACE.set(place);
    &SINCE_US[place]
}

fn since_epoch(moment: Instant) -> u64 {
    u64::try_from(moment.saturating_duration_since(epoch()).as_micros()).unwrap_or(u64::MAX).max(1)
}

/// Notes that a handler has started on this thread.
pub(crate) fn begin(since: Instant) {
    place().store(since_epoch(since), Ordering::Relaxed);
}

/// Notes that the handler on this thread has ended.
pub(crate) fn end() {
    place().store(0, Ordering::Relaxed);
}

/// How long the handler has run that has run for longest; zero if none runs.
pub(crate) fn longest() -> Duration {
    since(&SINCE_US).map_or(Duration::ZERO, |first| epoch().elapsed().saturating_sub(first))
}

/// The first of the starts that are noted in these places.
fn since(places: &[AtomicU64]) -> Option<Duration> {
    let starts = places.iter().map(|since| since.load(Ordering::Relaxed)).filter(|since| *since > 0);
    starts.min().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handler_that_has_run_for_longest_counts() {
        let places = [0, 7, 0, 5].map(AtomicU64::new);
        assert_eq!(since(&places), Some(Duration::from_micros(5)));
        places[3].store(0, Ordering::Relaxed);
        assert_eq!(since(&places), Some(Duration::from_micros(7)));
        places[1].store(0, Ordering::Relaxed);
        assert_eq!(since(&places), None);
    }

    #[test]
    fn a_handler_is_noted_as_long_as_it_runs() {
        std::thread::spawn(|| {
            let moment = Instant::now();
            begin(moment);
            assert!(longest() <= epoch().elapsed() && place().load(Ordering::Relaxed) == since_epoch(moment));
            end();
            assert_eq!(place().load(Ordering::Relaxed), 0);
        })
        .join()
        .unwrap();
    }
}
