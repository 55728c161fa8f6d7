//! Admission to a pool for blocking work: what happens to a request when all threads of the pool are busy.
//!
//! With `--when-full wait` it stands in the pool's own queue, or before it where that has an end; with `refuse` it is answered 503 at
//! once, and asked to come again.

use crate::args::WhenFull;
use crate::http::Answer;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what was admitted and has not ended.
#[derive(Debug)]
pub(crate) struct Gate {
    admitted: AtomicUsize,
    most: usize,
}

impl Gate {
    /// For a pool and its queue of so many places in all.
    pub fn new(places: usize, when_full: WhenFull) -> Self {
        let most = if when_full == WhenFull::Wait { usize::MAX } else { places };
        Gate { admitted: AtomicUsize::new(0), most }
    }

    pub fn admit(&'static self) -> Result<Admitted, Answer> {
        // Counted first and taken back if it was too much: two at once can both be refused, never both be admitted.
        let admitted = Admitted(self);
        if self.admitted.fetch_add(1, Ordering::Relaxed) < self.most {
            return Ok(admitted);
        }
        drop(admitted);
        Err(Answer::busy())
    }
}

/// The right to one piece of blocking work; dropped, it is free for the next.
#[derive(Debug)]
pub struct Admitted(&'static Gate);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Status;

    fn gate(when_full: WhenFull) -> &'static Gate {
        Box::leak(Box::new(Gate::new(2, when_full)))
    }

    #[test]
    fn a_full_pool_refuses_until_one_is_done() {
        let gate = gate(WhenFull::Refuse);
        let (first, _second) = (gate.admit().unwrap(), gate.admit().unwrap());
        let refused = gate.admit().unwrap_err();
        assert_eq!((refused.status, refused.retry_after), (Status::ServiceUnavailable, Some(1)));
        drop(first);
        assert!(gate.admit().is_ok());
    }

    #[test]
    fn a_pool_with_a_queue_admits_everybody() {
        let gate = gate(WhenFull::Wait);
        let admitted: Vec<_> = (0..100).map(|_| gate.admit()).collect();
        assert!(admitted.iter().all(Result::is_ok));
    }
}
