//! The common server on embassy, an executor for microcontrollers that also runs on a thread of an operating system.
//!
//! A connection is a task from a fixed pool. The memory for all tasks is reserved at build time, so starting a task allocates
//! nothing. One thread runs all tasks and makes the blocking call inline. embassy has no reactor for operating systems, so the
//! sockets are those of async-io. Its helper thread waits for them and wakes the executor, so each wait involves two threads.
//!
//! The limit is the pool, whose size is fixed at build time and has no knob. If the pool is full, the server closes a new
//! connection at once and reports the count on stderr. In the results, look at the number of idle connections and at the cost of
//! a request.

mod executor;

use async_io::Async;
use common::{Knobs, Model, Runtime, Served, Server, Step};
use embassy_executor::Spawner;
use futures_lite::future::{or, pending, poll_fn, yield_now};
use futures_lite::{AsyncRead, AsyncWriteExt};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The maximum number of connections.
const TASKS: usize = 1024;

static EMBASSY: Runtime = Runtime { name: "embassy", package: Some("embassy-executor"), models: &MODELS, settings };

const MODELS: [Model; 1] =
    [Model { name: "task-pool", about: "one thread runs a fixed number of tasks", ..Model::one_thread(serve) }];

/// The number of connections closed because the pool was full.
static CLOSED: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    common::main(&EMBASSY)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    vec![("task-pool", TASKS.to_string())]
}

fn serve(server: Server) -> io::Result<()> {
    executor::run(|spawner| {
        let accept = accept(server, spawner).map_err(|full| io::Error::other(format!("{full:?}")))?;
        spawner.spawn(accept);
        Ok(())
    })
}

#[embassy_executor::task]
async fn accept(server: Server, spawner: Spawner) {
    common::or_exit(accept_all(server, spawner).await);
}

async fn accept_all(server: Server, spawner: Spawner) -> io::Result<()> {
    let (acceptor, stop) = (Async::new(server.acceptor)?, Async::new(server.stop)?);
    server.service.ready();
    let mut stopped = pin!(async { stop.readable().await.map(|()| true) });
    let is_acceptable = || async { acceptor.readable().await.map(|()| false) };
    while !or(&mut stopped, is_acceptable()).await? {
        for served in acceptor.get_ref().accept_some(Async::new_nonblocking) {
            match serve_connection(served) {
                Ok(task) => spawner.spawn(task),
                // Dropping the connection has closed it.
                Err(_) => count_closed(),
            }
        }
        // Serve them until they wait before accepting the next one, which an idle process may take.
        yield_now().await;
    }
    drop(acceptor);
    pending().await
}

/// Counts a closed connection, and reports on stderr each time the count has doubled.
fn count_closed() {
    let closed = CLOSED.fetch_add(1, Ordering::Relaxed) + 1;
    if closed.is_power_of_two() {
        common::say!("{closed} connections were closed at once because all {TASKS} tasks are in use");
    }
}

#[embassy_executor::task(pool_size = TASKS)]
async fn serve_connection(served: Served<Async<TcpStream>>) {
    // An error ends only this connection.
    let _ = serve_until_closed(served).await;
}

async fn serve_until_closed(mut served: Served<Async<TcpStream>>) -> io::Result<()> {
    let (stream, connection) = served.parts();
    loop {
        match connection.step() {
            Step::Read => {
                poll_fn(|context| connection.poll_read(|space| Pin::new(&mut *stream).poll_read(context, space))).await?;
            }
            Step::Write => {
                let count = stream.write(connection.unsent()).await?;
                connection.sent(count);
            }
            Step::Run(work) => connection.answer(&work.run()),
            Step::CloseSend => stream.get_ref().shutdown(Shutdown::Write)?,
            Step::Yield => yield_now().await,
            Step::Close => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};
    use std::task::Poll;
    use std::thread;
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
        thread::spawn(|| {
            executor::run(|spawner| {
                spawner.spawn(park_once(done).unwrap());
                Ok(())
            })
        });
        assert!(is_done.recv_timeout(Duration::from_secs(20)).is_ok());
    }
}
