//! The memory that the bodies of all connections hold together, from their first byte until they are answered.

use crate::http::{MAX_BODY, Refusal, Status};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most bytes of all bodies of this process. Beyond it a body is answered 503.
pub const MAX_BODIES: usize = 64 * MAX_BODY;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// The part that one connection holds; dropping it frees that part.
#[derive(Debug, Default)]
pub(crate) struct Share(usize);

impl Share {
    /// Grows to this many bytes.
    ///
    /// # Errors
    /// All bodies together would hold too much.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let more = bytes.saturating_sub(self.0);
        if HELD.fetch_add(more, Ordering::Relaxed) + more > MAX_BODIES {
            HELD.fetch_sub(more, Ordering::Relaxed);
            return Err(Refusal { status: Status::ServiceUnavailable, reason: "too many bodies at a time" });
        }
        self.0 += more;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.0 > 0 {
            HELD.fetch_sub(self.0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bodies_together_have_a_bound_and_what_is_dropped_is_free() {
        let mut first = Share::default();
        assert!(
            first.grow(MAX_BODIES / 2).is_ok() && first.grow(MAX_BODIES / 2).is_ok(),
            "growing to the same size takes nothing"
        );
        let mut second = Share::default();
        assert_eq!(second.grow(MAX_BODIES).unwrap_err().status, Status::ServiceUnavailable);
        drop(first);
        assert!(second.grow(MAX_BODIES / 2).is_ok());
    }
}
