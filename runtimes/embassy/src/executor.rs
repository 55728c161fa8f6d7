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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::poll_fn;
    use std::sync::mpsc::{Sender, channel};
    use std::task::Poll;
    use std::time::Duration;

    /// Is ready again at once, and makes a call that parks the thread.
    #[embassy_executor::task]
    async fn park_once(done: Sender<()>) {
        let mut is_first = true;
        poll_fn(|context| {
            if !std::mem::take(&mut is_first) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            thread::current().unpark();
            thread::park();
            Poll::Pending
        })
        .await;
        done.send(()).unwrap();
    }

    #[test]
    fn a_task_runs_that_was_woken_before_a_blocking_call_has_parked_the_thread() {
        let (done, is_done) = channel();
        thread::spawn(|| run(|spawner| Ok(spawner.spawn(park_once(done).unwrap()))));
        assert!(is_done.recv_timeout(Duration::from_secs(20)).is_ok());
    }
}
