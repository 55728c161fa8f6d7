//! Worker threads as in Node: a fixed number of threads that take jobs from the event loop through a bounded queue.
//!
//! Jobs and answers travel as messages. In addition the threads share a buffer of atomics with the loop, like a
//! `SharedArrayBuffer`. Each worker records its finished jobs in its own words of the buffer. The loop reads all of them to
//! estimate how long a refused client should wait.

use common::http::Answer;
use common::work::Work;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;
use tokio::sync::oneshot;

/// The event loop's side.
pub struct Workers {
    jobs: async_channel::Sender<Job>,
    /// One line for each worker.
    shared: Arc<[Line]>,
}

/// A worker's words in the shared buffer, on their own cache line.
#[derive(Default)]
#[repr(align(64))]
struct Line {
    jobs_done: AtomicU64,
    busy_us: AtomicU64,
}

struct Job {
    work: Work,
    answer: oneshot::Sender<Answer>,
}

impl Workers {
    /// Starts `threads` threads behind a queue of `queue` places.
    ///
    /// # Errors
    /// Fails if the system cannot start a thread.
    pub fn start(threads: usize, queue: usize) -> io::Result<Self> {
        let (jobs, waiting) = async_channel::bounded(queue);
        let shared: Arc<[Line]> = std::iter::repeat_with(Line::default).take(threads).collect();
        for number in 0..threads {
            let (waiting, shared) = (waiting.clone(), shared.clone());
            let thread = thread::Builder::new().name(format!("worker-{number}"));
            thread.spawn(move || work(&waiting, &shared[number]))?;
        }
        Ok(Workers { jobs, shared })
    }

    /// Waits for a place in the queue, then lets a worker do the work.
    ///
    /// # Errors
    /// Fails if the worker has panicked.
    pub async fn run(&self, work: Work) -> io::Result<Answer> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job { work, answer }).await.map_err(io::Error::other)?;
        answered.await.map_err(io::Error::other)
    }

    /// The estimated time until the queue is empty, from the mean time of past jobs, in whole seconds; at least 1.
    pub fn seconds_until_free(&self) -> u32 {
        let sum = |word: fn(&Line) -> &AtomicU64| self.shared.iter().map(|line| word(line).load(Ordering::Relaxed)).sum::<u64>();
        let mean_us = sum(|line| &line.busy_us) / sum(|line| &line.jobs_done).max(1);
        let rounds = (self.jobs.len() / self.shared.len() + 1) as u64;
        u32::try_from((rounds * mean_us).div_ceil(1_000_000).max(1)).unwrap_or(u32::MAX)
    }
}

/// The body of each worker, which runs until the event loop ends.
fn work(waiting: &async_channel::Receiver<Job>, line: &Line) {
    while let Ok(Job { work, answer }) = waiting.recv_blocking() {
        let started = Instant::now();
        // Sending fails if the connection is gone, and then the answer is not needed.
        let _ = answer.send(work.run());
        line.busy_us.fetch_add(started.elapsed().as_micros() as u64, Ordering::Relaxed);
        line.jobs_done.fetch_add(1, Ordering::Relaxed);
    }
}
