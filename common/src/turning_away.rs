//! What to do when no descriptor is left: tell clients so, and do not spin.

use crate::acceptor::BACKLOG;
use crate::say_once_a_second;
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Clients that are turned away in a row: all that a listener can hold, because an edge-triggered runtime does not hear again of those that are left.
const MOST: usize = BACKLOG as usize;
/// The pause behind an error that will come again at once. It holds up the loop that accepts, which is better than one that spins.
const PAUSE: Duration = Duration::from_millis(10);

/// A spare descriptor, one for the whole process. Closing it makes room to accept a connection and to close that, so that its client learns
/// at once that there is no room. Another loop may accept a connection with it meanwhile: [`unless_spare`] gets it back.
static SPARE: Mutex<Option<File>> = Mutex::new(None);

/// The spare is in use or missing: set before it is closed, and cleared once it is there again.
static IS_SPARE_OUT: AtomicBool = AtomicBool::new(false);

/// Opens the spare descriptor, while there are some.
pub(crate) fn prepare() {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    if spare.is_none() {
        *spare = open();
    }
    IS_SPARE_OUT.store(spare.is_none(), SeqCst);
}

/// A connection that was accepted, unless it may have got the spare descriptor. Then it is turned away and the spare restored: without a spare, all
/// that come would wait until another connection closes.
pub(crate) fn unless_spare<S>(connection: S) -> Option<S> {
    if !IS_SPARE_OUT.load(SeqCst) {
        return Some(connection);
    }
    drop(connection);
    prepare();
    None
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
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        IS_SPARE_OUT.store(true, SeqCst);
        drop(spare.take());
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
    IS_SPARE_OUT.store(true, SeqCst);
    let end = (0..MOST).find_map(|_| {
        drop(spare.take());
        let accepted = accept().map(drop);
        *spare = open();
        match accepted {
            Ok(()) => None,
            Err(Errno::EAGAIN) => Some(Ok(true)),
            Err(error) => Some(Err(error)),
        }
    });
    IS_SPARE_OUT.store(spare.is_none(), SeqCst);
    end.unwrap_or(Ok(false))
}

fn open() -> Option<File> {
    File::open("/dev/null").ok()
}
