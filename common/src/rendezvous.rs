//! Two requests that meet: `/wait` blocks its thread until another connection calls `/release`. A runtime on which nobody looks at the other
//! connection meanwhile is stuck, as it is when a task waits for a lock whose holder needs the same thread.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Those that wait, by ticket, and whether they have been released.
static WAITING: Mutex<BTreeMap<u32, bool>> = Mutex::new(BTreeMap::new());
static RELEASED: Condvar = Condvar::new();

/// Blocks until somebody releases this ticket, but no longer than `most`; whether somebody has.
pub(crate) fn wait(ticket: u32, most: Duration) -> bool {
    let mut waiting = waiting();
    waiting.insert(ticket, false);
    let is_held = |waiting: &mut BTreeMap<u32, bool>| waiting.get(&ticket) == Some(&false);
    waiting = RELEASED.wait_timeout_while(waiting, most, is_held).unwrap_or_else(PoisonError::into_inner).0;
    waiting.remove(&ticket) == Some(true)
}

/// Releases a ticket; false if nobody waits with it.
pub(crate) fn release(ticket: u32) -> bool {
    let is_there = waiting().get_mut(&ticket).map(|is_released| *is_released = true).is_some();
    RELEASED.notify_all();
    is_there
}

fn waiting() -> MutexGuard<'static, BTreeMap<u32, bool>> {
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
        let one = thread::spawn(|| wait(2, Duration::from_secs(60)));
        while !release(2) {
            thread::yield_now();
        }
        assert!(one.join().unwrap());
    }
}
