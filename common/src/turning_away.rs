//! What to do when no descriptor is left: tell clients so, and do not spin.

use crate::say_once_a_second;
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Clients that are turned away in a row, before connections that are open get their turn.
const MOST: usize = 16;
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

/// Handles an error of `accept`: turns some clients away if descriptors are missing, and pauses if the error would come again at once.
pub(crate) fn after(error: Errno, accept: impl Fn() -> nix::Result<OwnedFd>) {
    say_once_a_second!("cannot accept connections: {}", error.desc());
    let is_full = matches!(error, Errno::EMFILE | Errno::ENFILE);
    if !is_full || !(0..MOST).any(|_| turn_away(&accept)) {
        std::thread::sleep(PAUSE);
    }
}

/// Accepts one connection with the spare descriptor and closes it; true if no other waits.
fn turn_away(accept: impl Fn() -> nix::Result<OwnedFd>) -> bool {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    drop(spare.take());
    let accepted = accept();
    let is_last = matches!(accepted, Err(Errno::EAGAIN));
    drop(accepted);
    *spare = open();
    is_last
}

fn open() -> Option<File> {
    File::open("/dev/null").ok()
}
