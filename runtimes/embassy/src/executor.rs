//! The loop of the executor. embassy's own for operating systems takes a mutex and signals a condition variable at each wake; this one makes a
//! system call only if the loop sleeps.

use embassy_executor::{Spawner, raw};
use std::io;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

/// The thread of the loop, the only one in a process.
static LOOP: OnceLock<Thread> = OnceLock::new();
/// A task is ready to run. That the thread was unparked does not say so for long: a blocking call may park it too, and uses that up.
static IS_WOKEN: AtomicBool = AtomicBool::new(false);

/// Runs tasks on this thread for ever, the first of which `start` spawns.
///
/// # Errors
/// Returns the error of `start`.
pub fn run(start: impl FnOnce(Spawner) -> io::Result<()>) -> io::Result<()> {
    LOOP.get_or_init(thread::current);
    let executor: &'static raw::Executor = Box::leak(Box::new(raw::Executor::new(null_mut())));
    start(executor.spawner())?;
    loop {
        // SAFETY: only this thread polls, and no task does.
        unsafe { executor.poll() };
        while !IS_WOKEN.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

/// embassy calls this when a task is ready to run.
#[unsafe(export_name = "__pender")]
fn pend(_context: *mut ()) {
    // If one was ready before, the loop has not looked yet, and will.
    if !IS_WOKEN.swap(true, Ordering::Release)
        && let Some(thread) = LOOP.get()
    {
        thread.unpark();
    }
}
