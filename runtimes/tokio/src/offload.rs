//! The places that make the blocking call.

use crate::STACK_SIZE;
use crate::workers::Workers;
use common::http::Answer;
use common::work::Work;
use common::{Knobs, Service};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::io;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::{block_in_place, spawn_blocking};

/// The lowest priority there is.
const NICE: i32 = 19;

/// Gives every thread of the pool the lowest priority, so that what it computes takes no time from the event loop. A runtime with one thread
/// calls this on no other.
pub fn be_nice(builder: &mut Builder) {
    builder.on_thread_start(|| {
        // SAFETY: it takes no pointers; on Linux 0 means the calling thread.
        let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } != 0;
        if refused {
            common::say_once_a_second!("a thread of the pool keeps its priority: {}", io::Error::last_os_error());
        }
    });
}

/// The place that makes the blocking call, the same for all connections of a process.
pub enum Place {
    /// The thread that serves the connection.
    Inline,
    /// A thread of tokio's own pool.
    Pool,
    /// The thread that serves the connection, after it has handed its other tasks on.
    Worker,
    /// One of a fixed number of threads that share a buffer with the event loop.
    Workers(Workers),
    /// A thread of a pool for computation.
    Rayon(ThreadPool),
    /// A worker of a second runtime.
    Runtime(Runtime),
}

impl Place {
    /// A pool for computation.
    ///
    /// # Errors
    /// Fails if the system cannot start a thread.
    pub fn rayon(knobs: &Knobs) -> io::Result<Self> {
        let pool = ThreadPoolBuilder::new().num_threads(knobs.blocking_threads).thread_name(|n| format!("rayon-{n}"));
        Ok(Place::Rayon(pool.build().map_err(io::Error::other)?))
    }

    /// A fixed number of threads behind a queue.
    ///
    /// # Errors
    /// Fails if the system cannot start a thread.
    pub fn workers(knobs: &Knobs) -> io::Result<Self> {
        Ok(Place::Workers(Workers::start(knobs.blocking_threads, knobs.queue)?))
    }

    /// A second runtime.
    ///
    /// # Errors
    /// Fails if the system cannot start a thread.
    pub fn second_runtime(knobs: &Knobs) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(knobs.blocking_threads).thread_name("second").thread_stack_size(STACK_SIZE);
        Ok(Place::Runtime(builder.build()?))
    }

    /// Makes the blocking call.
    ///
    /// # Errors
    /// Fails if the thread that made the call has panicked.
    pub async fn run(&self, work: Work, service: Service) -> io::Result<Answer> {
        if let Place::Inline = self {
            return Ok(work.run());
        }
        let _admitted = match (service.admit(), self) {
            (Ok(admitted), _) => admitted,
            (Err(full), Place::Workers(workers)) => {
                return Ok(Answer { retry_after: Some(workers.seconds_until_free()), ..full });
            }
            (Err(full), _) => return Ok(full),
        };
        match self {
            Place::Inline => Ok(work.run()),
            Place::Pool => Ok(spawn_blocking(|| work.run()).await?),
            Place::Worker => Ok(block_in_place(|| work.run())),
            Place::Workers(workers) => workers.run(work).await,
            Place::Runtime(second) => Ok(second.spawn(async { work.run() }).await?),
            Place::Rayon(pool) => {
                let (answer, answered) = oneshot::channel();
                // Sending fails if the connection is gone, and then the answer is not needed.
                pool.spawn(|| drop(answer.send(work.run())));
                answered.await.map_err(io::Error::other)
            }
        }
    }
}
