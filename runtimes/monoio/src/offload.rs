//! The pool for blocking work: that of the crate `blocking`, since monoio brings only one that starts all its threads at once.

use blocking::unblock;
use common::Service;
use common::http::Answer;
use common::work::Work;
use monoio::blocking::{BlockingTask, ThreadPool};
use std::io;

/// Where monoio sends its blocking tasks.
pub struct Pool;

impl ThreadPool for Pool {
    fn schedule_task(&self, task: BlockingTask) {
        unblock(|| task.run()).detach();
    }
}

/// Makes the blocking call on a thread of the pool.
///
/// # Errors
/// Fails if the thread has panicked.
pub async fn run(work: Work, service: Service) -> io::Result<Answer> {
    let pool = |work: Work| async {
        monoio::spawn_blocking(|| work.run()).await.map_err(|_| io::Error::other("the pool dropped the work"))
    };
    service.offload(work, pool).await
}
