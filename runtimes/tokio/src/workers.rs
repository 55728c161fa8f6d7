//! Worker threads as Node has them: a fixed number, fed by the event loop through a bounded queue, sharing one buffer with it.
//!
//! A job and its answer travel as messages. The buffer is made of atomics, as a `SharedArrayBuffer` is: each worker writes down what
//! it has done in words of its own, and the loop reads all of them when it has to say how long the queue in front of a request is.

use common::http::Answer;
use common::work::Work;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;
use tokio::sync::oneshot;

/// The event loop's end.
pub struct Workers {
    jobs: async_channel::Sender<Job>,
    /// A line for each worker.
    shared: Arc<[Line]>,
}

/// A worker's words in the shared buffer, alone on their cache line.
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
    /// Starts so many threads behind a queue of so many places.
    ///
    /// # Errors
    /// The system has no threads to give.
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

    /// Has a worker do it; waits for a place in the queue first.
    ///
    /// # Errors
    /// The worker has panicked.
    pub async fn run(&self, work: Work) -> io::Result<Answer> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job { work, answer }).await.map_err(io::Error::other)?;
        answered.await.map_err(io::Error::other)
    }

    /// How long it takes to work off what is in the queue, if jobs go on to be as long as they were: in whole seconds, and one at least.
    pub fn seconds_until_free(&self) -> u32 {
        let sum = |word: fn(&Line) -> &AtomicU64| self.shared.iter().map(|line| word(line).load(Ordering::Relaxed)).sum::<u64>();
        let mean_us = sum(|line| &line.busy_us) / sum(|line| &line.jobs_done).max(1);
        let rounds = (self.jobs.len() / self.shared.len() + 1) as u64;
        u32::try_from((rounds * mean_us).div_ceil(1_000_000).max(1)).unwrap_or(u32::MAX)
    }
}

/// What each worker does, as long as the loop lives.
fn work(waiting: &async_channel::Receiver<Job>, line: &Line) {
    while let Ok(Job { work, answer }) = waiting.recv_blocking() {
        let started = Instant::now();
        // Nobody waits for it once the connection is gone.
        let _ = answer.send(work.run());
        line.busy_us.fetch_add(started.elapsed().as_micros() as u64, Ordering::Relaxed);
        line.jobs_done.fetch_add(1, Ordering::Relaxed);
    }
}
