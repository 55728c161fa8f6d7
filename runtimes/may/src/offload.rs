//! Threads for blocking work, which may does not provide.

use common::http::Answer;
use common::work::Work;
use may::sync::mpsc as coroutines;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

/// The unbounded queue in front of the threads.
pub struct Offload(mpsc::Sender<Job>);

type Job = (Work, coroutines::Sender<Answer>);

impl Offload {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// Fails if the system cannot start a thread.
    pub fn start(threads: usize) -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..threads {
            let jobs = jobs.clone();
            thread::Builder::new().name(format!("blocking-{number}")).spawn(move || work(&jobs))?;
        }
        Ok(Offload(sender))
    }

    /// Makes the blocking call on one of the threads. Meanwhile this coroutine is parked and its worker runs others.
    ///
    /// # Errors
    /// Fails if the thread has panicked.
    pub fn run(&self, work: Work) -> io::Result<Answer> {
        let (answer, answered) = coroutines::channel();
        self.0.send((work, answer)).map_err(io::Error::other)?;
        answered.recv().map_err(io::Error::other)
    }
}

fn work(jobs: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((work, answer)) = job else { return };
        // Sending fails if the connection is gone, and then the answer is not needed.
        let _ = answer.send(work.run());
    }
}
