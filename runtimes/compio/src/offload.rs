//! The pool for blocking work: compio's own, with a queue in front of it.
//!
//! While all threads of its pool are busy, compio's loop tries again and again to hand a call over and does nothing else. So each call first
//! waits, without holding up its loop, for one of as many permits as there are threads.

use async_lock::Semaphore;
use common::http::Answer;
use common::work::Work;
use common::{Knobs, Service};
use compio::driver::AsyncifyPool;
use compio::runtime::spawn_blocking;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long a thread waits for more work; compio's default.
const IDLE: Duration = Duration::from_secs(60);

/// The pool of all loops, and the permits to use it.
#[derive(Clone)]
pub struct Pool {
    /// What a loop is built with.
    pub threads: AsyncifyPool,
    permits: Arc<Semaphore>,
    service: Service,
}

impl Pool {
    pub fn new(knobs: &Knobs, service: Service) -> Self {
        // A loop cannot be built without a pool, even if nothing uses it.
        let count = knobs.blocking_threads.max(1);
        Pool { threads: AsyncifyPool::new(count, IDLE), permits: Arc::new(Semaphore::new(count)), service }
    }

    /// Makes the blocking call on a thread of the pool.
    ///
    /// # Errors
    /// Fails if the thread has panicked.
    pub async fn run(&self, work: Work) -> io::Result<Answer> {
        let pool = async |work: Work| {
            let permit = self.permits.acquire_arc().await;
            let run = move || {
                let answer = work.run();
                // Its thread is free a moment later, for which the loop of the next call does spin.
                drop(permit);
                answer
            };
            spawn_blocking(run).await.map_err(|_| io::Error::other("the pool dropped the work"))
        };
        self.service.offload(work, pool).await
    }
}
