//! Threads for blocking work, which may does not provide: those of the crate `blocking`, started as work comes.

use blocking::unblock;
use common::http::Answer;
use common::work::Work;
use may::sync::mpsc;
use std::io;

/// Makes the blocking call on a thread of the pool. Meanwhile this coroutine is parked and its worker runs others.
///
/// # Errors
/// Fails if the thread has panicked.
pub fn run(work: Work) -> io::Result<Answer> {
    let (answer, answered) = mpsc::channel();
    // Sending fails if the connection is gone, and then the answer is not needed.
    unblock(move || drop(answer.send(work.run()))).detach();
    answered.recv().map_err(io::Error::other)
}
