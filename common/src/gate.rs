//! Admission to a pool for blocking work while all its threads are busy.
//!
//! With `--when-full wait` a request waits in the pool's own queue, or in front of it if the queue is bounded. With `refuse`
//! the server answers 503 at once, with `Retry-After`.

use crate::args::WhenFull;
use crate::http::Answer;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the admitted requests that have not ended.
#[derive(Debug)]
pub(crate) struct Gate {
    admitted: AtomicUsize,
    most: usize,
}

impl Gate {
    /// A gate for a pool and its queue with room for `places` requests in total.
    pub fn new(places: usize, when_full: WhenFull) -> Self {
        let most = if when_full == WhenFull::Wait { usize::MAX } else { places };
        Gate { admitted: AtomicUsize::new(0), most }
    }

    pub fn admit(&'static self) -> Result<Admitted, Answer> {
        // Count first and undo if the gate is full: two requests at once may both be refused, but never both admitted.
        let admitted = Admitted(self);
        if self.admitted.fetch_add(1, Ordering::Relaxed) < self.most {
            return Ok(admitted);
        }
        drop(admitted);
        Err(Answer::busy())
    }
}

/// Permission for one piece of blocking work; dropping it frees the place.
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
    fn a_gate_that_waits_admits_every_request() {
        let gate = gate(WhenFull::Wait);
        let admitted: Vec<_> = (0..100).map(|_| gate.admit()).collect();
        assert!(admitted.iter().all(Result::is_ok));
    }
}
