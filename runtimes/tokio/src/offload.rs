//! Where the blocking call is made.

use crate::workers::Workers;
use common::http::Answer;
use common::work::Work;
use common::{Knobs, Service};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::io;
use tokio::sync::oneshot;
use tokio::task::{block_in_place, spawn_blocking};

/// The place, one for all connections of a process.
pub enum Place {
    /// On the thread that serves the connection.
    Inline,
    /// On a thread of tokio's own pool.
    Pool,
    /// On the thread that serves the connection, once its other tasks are handed on.
    Worker,
    /// On one of a fixed number of threads that share a buffer with the loop.
    Workers(Workers),
    /// On a pool made for computing.
    Rayon(ThreadPool),
}

impl Place {
    /// The place that the model wants; it lives as long as the process.
    ///
    /// # Errors
    /// The system has no threads to give.
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
    /// The thread that made it has panicked.
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
                // Nobody waits for it once the connection is gone.
                pool.spawn(|| drop(answer.send(work.run())));
                answered.await.map_err(io::Error::other)
            }
        }
    }
}
