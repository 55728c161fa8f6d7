//! What to do when no descriptor is left: tell clients so, and do not spin.

use crate::acceptor::BACKLOG;
use crate::say_once_a_second;
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Clients that are turned away in a row: all that a listener can hold, because an edge-triggered runtime does not hear again of those that are left.
const MOST: usize = BACKLOG as usize;
/// The pause behind an error that will come again at once. It holds up the loop that accepts, which is better than one that spins.
const PAUSE: Duration = Duration::from_millis(10);

/// A spare descriptor, one for the whole process. Closing it makes room to accept a connection and to close that, so that its client learns
/// at once that there is no room. Another thread may take the descriptor meanwhile; then the spare is missing until one is free again.
static SPARE: Mutex<Option<File>> = Mutex::new(None);

/// Opens the spare descriptor, while there are some.
pub(crate) fn prepare() {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    if spare.is_none() {
        *spare = open();
    }
}

/// Whether no descriptor was left.
#[must_use]
pub fn is_full(error: i32) -> bool {
    matches!(Errno::from_raw(error), Errno::EMFILE | Errno::ENFILE)
}

/// Handles an error of `accept`: turns some clients away if descriptors are missing, and pauses if the error would come again at once. True if nobody
/// waits any more.
pub(crate) fn after(error: Errno, accept: impl Fn() -> nix::Result<OwnedFd>) -> bool {
    say_once_a_second!("cannot accept connections: {}", error.desc());
    match is_full(error as i32).then(|| turn_away(accept)) {
        Some(Ok(nobody_waits)) => nobody_waits,
        _ => {
            std::thread::sleep(PAUSE);
            false
        }
    }
}

/// Room for one descriptor, as long as it lives.
pub struct Room;

impl Room {
    /// Gives up the spare descriptor for a while.
    #[must_use]
    pub fn make() -> Self {
        drop(SPARE.lock().unwrap_or_else(PoisonError::into_inner).take());
        Room
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        prepare();
    }
}

/// Accepts the connections that wait, with the spare descriptor, and closes them. True if it has met the last one.
fn turn_away(accept: impl Fn() -> nix::Result<OwnedFd>) -> nix::Result<bool> {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..MOST {
        drop(spare.take());
        let accepted = accept().map(drop);
        *spare = open();
        match accepted {
            Ok(()) => {}
            Err(Errno::EAGAIN) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn open() -> Option<File> {
    File::open("/dev/null").ok()
}
