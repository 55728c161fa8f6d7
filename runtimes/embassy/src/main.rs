//! The common server on embassy, the executor of microcontrollers, which also runs on an operating system's thread.
//!
//! A connection is a task out of a fixed pool: the memory for all of them is set aside when the program is built, and nothing is
//! allocated to start one. One thread runs all tasks, the blocking call inline. embassy has no reactor for an operating system, so
//! sockets are those of async-io, whose helper thread waits for them and wakes the executor: each wait crosses two threads.
//!
//! The limit is the pool: a connection that finds it full is closed at once and counted, on stderr. Its size is fixed when the program is
//! built, so there is no knob. In the numbers, look at how many idle connections there can be, and at the price of a request.

use async_io::Async;
use common::{Connection, Knobs, Model, Runtime, Server, Step};
use embassy_executor::{Executor, Spawner};
use futures_lite::future::{or, pending, poll_fn, yield_now};
use futures_lite::{AsyncRead, AsyncWriteExt};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Connections at most.
const TASKS: usize = 1024;

static EMBASSY: Runtime = Runtime { name: "embassy", package: Some("embassy-executor"), models: &MODELS, settings };

const MODELS: [Model; 1] = [Model { name: "task-pool", about: "one thread runs a fixed number of tasks", ..Model::ONE_THREAD }];

/// Connections that found the pool full.
static CLOSED: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    common::main(&EMBASSY, serve)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    vec![("task-pool", TASKS.to_string())]
}

fn serve(server: Server) -> io::Result<()> {
    let executor: &'static mut Executor = Box::leak(Box::new(Executor::new()));
    executor.run(|spawner| match accept(server, spawner) {
        Ok(task) => spawner.spawn(task),
        Err(full) => common::or_exit(Err(io::Error::other(format!("{full:?}")))),
    })
}

#[embassy_executor::task]
async fn accept(server: Server, spawner: Spawner) {
    common::or_exit(accept_all(server, spawner).await);
}

async fn accept_all(server: Server, spawner: Spawner) -> io::Result<()> {
    let (acceptor, stop) = (Async::new(server.acceptor)?, Async::new(server.stop)?);
    server.service.ready();
    let is_stopped = || async { stop.readable().await.map(|()| true) };
    let is_acceptable = || async { acceptor.readable().await.map(|()| false) };
    while !or(is_stopped(), is_acceptable()).await? {
        if let Ok((stream, connection)) = acceptor.get_ref().accept()
            && let Ok(stream) = Async::new_nonblocking(stream)
        {
            match serve_connection(Served { connection, stream }) {
                Ok(task) => spawner.spawn(task),
                // It was closed when it was dropped.
                Err(_) => count_closed(),
            }
            // Serve it until it would block before the next is accepted, which another process may be free to take.
            yield_now().await;
        }
    }
    drop(acceptor);
    pending().await
}

/// Says so on stderr each time their number has doubled.
fn count_closed() {
    let closed = CLOSED.fetch_add(1, Ordering::Relaxed) + 1;
    if closed.is_power_of_two() {
        eprintln!("all {TASKS} tasks are taken: {closed} connections were closed at once");
    }
}

/// The connection first: it must be dropped before its socket.
struct Served {
    connection: Connection,
    stream: Async<TcpStream>,
}

#[embassy_executor::task(pool_size = TASKS)]
async fn serve_connection(served: Served) {
    // An error ends this connection only.
    let _ = serve_until_closed(served).await;
}

async fn serve_until_closed(mut served: Served) -> io::Result<()> {
    let Served { connection, stream } = &mut served;
    loop {
        match connection.step() {
            Step::Read => read(stream, connection).await?,
            Step::Write => {
                let count = stream.write(connection.unsent()).await?;
                connection.sent(count);
            }
            Step::Run(work) => connection.answer(&work.run()),
            Step::CloseSend => stream.get_ref().shutdown(Shutdown::Write)?,
            Step::Close => return Ok(()),
        }
    }
}

/// Waits without a buffer, then reads.
async fn read(stream: &mut Async<TcpStream>, connection: &mut Connection) -> io::Result<()> {
    let count = poll_fn(|context| {
        let result = Pin::new(&mut *stream).poll_read(context, connection.space());
        if result.is_pending() {
            connection.rest();
        }
        result
    });
    let count = count.await?;
    connection.received(count);
    Ok(())
}
