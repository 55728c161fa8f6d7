//! Bounds on the memory that all connections of this process hold together.

use crate::http::{MAX_BODY, Refusal, Status};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most bytes of all bodies of this process, from their first byte until they are answered. Beyond it a body is answered 503.
pub const MAX_BODIES: usize = 64 * MAX_BODY;
/// The most bytes that all handlers of this process need for their work. Beyond it a request is answered 503.
pub const MAX_WORK: usize = 768 * 1024 * 1024;

/// What all bodies hold.
pub(crate) static BODIES: Bound = Bound::new(MAX_BODIES, "too many bodies at a time");
/// What all running handlers hold.
pub(crate) static WORK: Bound = Bound::new(MAX_WORK, "too much memory in use by other requests");

/// A bound, and how much of it is held.
#[derive(Debug)]
pub(crate) struct Bound {
    most: usize,
    held: AtomicUsize,
    /// What requests that do not fit are told.
    reason: &'static str,
}

impl Bound {
    const fn new(most: usize, reason: &'static str) -> Self {
        Bound { most, held: AtomicUsize::new(0), reason }
    }
}

/// The part of a bound that one holds; dropping it frees that part.
#[derive(Debug)]
pub(crate) struct Share {
    bound: &'static Bound,
    bytes: usize,
}

impl Share {
    /// A share of nothing.
    pub const fn of(bound: &'static Bound) -> Self {
        Share { bound, bytes: 0 }
    }

    /// Grows to this many bytes.
    ///
    /// # Errors
    /// All together would hold too much.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let grown = |held: usize| held.checked_add(more).filter(|held| *held <= self.bound.most);
        if self.bound.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_err() {
            return Err(Refusal { status: Status::ServiceUnavailable, reason: self.bound.reason });
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.bound.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn all_shares_together_have_a_bound_and_what_is_dropped_is_free() {
        static BOUND: Bound = Bound::new(100, "full");
        let mut first = Share::of(&BOUND);
        assert!(first.grow(50).is_ok() && first.grow(50).is_ok(), "growing to the same size takes nothing");
        let mut second = Share::of(&BOUND);
        assert_eq!(second.grow(51).unwrap_err().status, Status::ServiceUnavailable);
        assert!(second.grow(usize::MAX).is_err());
        drop(first);
        assert!(second.grow(51).is_ok());
    }

    #[test]
    fn a_share_that_is_refused_takes_no_room_from_another_at_the_same_time() {
        static BOUND: Bound = Bound::new(100, "full");
        thread::scope(|scope| {
            let refused = scope.spawn(|| (0..100_000).for_each(|_| assert!(Share::of(&BOUND).grow(101).is_err())));
            while !refused.is_finished() {
                assert!(Share::of(&BOUND).grow(100).is_ok());
            }
        });
    }
}
