//! Two requests that meet: `/wait` blocks its thread until another connection calls `/release`. A runtime on which nobody looks at the other
//! connection meanwhile is stuck, as it is when a task waits for a lock whose holder needs the same thread.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Those that wait: their ticket, and a number of their own, since several may wait with one ticket.
static WAITING: Mutex<BTreeSet<(u32, u64)>> = Mutex::new(BTreeSet::new());
static RELEASED: Condvar = Condvar::new();

/// Blocks until somebody releases this ticket, but no longer than `most`; whether somebody has.
pub(crate) fn wait(ticket: u32, most: Duration) -> bool {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let own = (ticket, NEXT.fetch_add(1, Ordering::Relaxed));
    let mut waiting = waiting();
    waiting.insert(own);
    let is_held = |waiting: &mut BTreeSet<(u32, u64)>| waiting.contains(&own);
    waiting = RELEASED.wait_timeout_while(waiting, most, is_held).unwrap_or_else(PoisonError::into_inner).0;
    !waiting.remove(&own)
}

/// Releases all that wait with a ticket; false if nobody does.
pub(crate) fn release(ticket: u32) -> bool {
    let mut waiting = waiting();
    let before = waiting.len();
    waiting.retain(|(held, _)| *held != ticket);
    RELEASED.notify_all();
    waiting.len() < before
}

fn waiting() -> MutexGuard<'static, BTreeSet<(u32, u64)>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_wait_ends_when_its_ticket_is_released_and_in_vain_when_nobody_comes() {
        assert!(!wait(1, Duration::ZERO));
        assert!(!release(1), "nobody waits any more");
        let two = [(); 2].map(|()| thread::spawn(|| wait(2, Duration::from_secs(60))));
        while waiting().len() < 2 {
            thread::yield_now();
        }
        assert!(release(2));
        assert_eq!(two.map(|one| one.join().unwrap()), [true; 2]);
    }
}
