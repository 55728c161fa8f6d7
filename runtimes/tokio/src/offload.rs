//! The places that make the blocking call.

use crate::workers::Workers;
use common::http::Answer;
use common::work::Work;
use common::{Knobs, Service};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::io;
use tokio::sync::oneshot;
use tokio::task::{block_in_place, spawn_blocking};

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
}

impl Place {
    /// The place for the model; it lives as long as the process.
    ///
    /// # Errors
    /// Fails if the system cannot start a thread.
    pub fn of(knobs: &Knobs) -> io::Result<&'static Self> {
        let place = match knobs.model.name {
            "spawn-blocking" => Place::Pool,
            "block-in-place" => Place::Worker,
            "worker-threads" => Place::Workers(Workers::start(knobs.blocking_threads, knobs.queue)?),
            "rayon" => {
                let pool = ThreadPoolBuilder::new().num_threads(knobs.blocking_threads).thread_name(|n| format!("rayon-{n}"));
                Place::Rayon(pool.build().map_err(io::Error::other)?)
            }
            _ => Place::Inline,
        };
        Ok(Box::leak(Box::new(place)))
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
            Place::Rayon(pool) => {
                let (answer, answered) = oneshot::channel();
                // Sending fails if the connection is gone, and then the answer is not needed.
                pool.spawn(|| drop(answer.send(work.run())));
                answered.await.map_err(io::Error::other)
            }
        }
    }
}
