//! The common server on async-std, which was discontinued in March 2025 but is still in use.
//!
//! A connection is a task of the global executor, which W threads run (`--threads`); the main thread only waits. A thread makes
//! the blocking call inline and runs nothing else meanwhile, while the other threads steal its tasks. In `forked` each process
//! has one such thread.
//!
//! `spawn-blocking` moves the blocking call to the pool of the crate `blocking` (`--blocking-threads`). The queue of that pool is
//! unbounded, so `--when-full refuse` makes the server answer 503 instead.
//!
//! The server passes W in the environment variable `ASYNC_STD_THREAD_COUNT`, because async-std has no other interface for it.
//! async-std uses smol's reactor with its helper thread `async-io`, so expect both to have similar results.

use async_io::Async;
use async_std::future::poll_fn;
use async_std::io::Read;
use async_std::net::TcpStream;
use async_std::prelude::*;
use async_std::task;
use common::{Knobs, Model, Pool, Runtime, Served, Server, Service, Step, Threads};
use futures_lite::future::or;
use std::future::pending;
use std::io;
use std::net::Shutdown;
use std::panic::catch_unwind;
use std::pin::{Pin, pin};
use std::process::ExitCode;

static ASYNC_STD: Runtime = Runtime { name: "async-std", package: Some("async-std"), models: &MODELS, settings };

/// The number of threads in the pool for blocking work; the default of the crate `blocking`.
const BLOCKING_THREADS: usize = 500;

const MODELS: [Model; 3] = [
    Model {
        name: "multi-thread",
        about: "W threads run the global executor",
        has_threads: true,
        handlers: Threads::Knob,
        pollers: Threads::KnobAnd(2),
        ..Model::one_thread(serve)
    },
    Model { about: "processes with one handler thread each", pollers: Threads::KnobAnd(2), ..Model::forked(serve) },
    Model {
        name: "spawn-blocking",
        about: "W threads run the tasks; blocking calls go to a pool",
        has_threads: true,
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        handlers: Threads::Knob,
        pollers: Threads::KnobAnd(2),
        ..Model::one_thread(serve)
    },
];

fn main() -> ExitCode {
    common::main_with_environment(&ASYNC_STD, environment)
}

/// The library and its pool read their sizes from these variables only.
fn environment(knobs: &Knobs) -> Vec<(&'static str, String)> {
    vec![
        ("ASYNC_STD_THREAD_COUNT", knobs.threads.to_string()),
        ("BLOCKING_MAX_THREADS", knobs.blocking_threads.max(1).to_string()),
    ]
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    vec![("status", "discontinued 2025-03".into())]
}

fn serve(server: Server) -> io::Result<()> {
    task::block_on(task::spawn(accept(server)))
}

async fn accept(server: Server) -> io::Result<()> {
    let acceptor = Async::new(server.acceptor)?;
    let stop = Async::new(server.stop)?;
    server.service.ready();
    let is_offloading = server.knobs.blocking_threads > 0;
    let mut stopped = pin!(async { stop.readable().await.map(|()| true) });
    let is_acceptable = || async { acceptor.readable().await.map(|()| false) };
    while !or(&mut stopped, is_acceptable()).await? {
        for served in acceptor.get_ref().accept_some(register) {
            task::spawn(serve_connection(served, is_offloading.then_some(server.service)));
        }
        // Serve them until they wait before accepting the next one, which an idle process may take.
        task::yield_now().await;
    }
    drop(acceptor);
    pending().await
}

/// Registers a socket. async-std panics if the system refuses that, which must cost the connection and not the process.
fn register(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    catch_unwind(|| TcpStream::from(stream)).map_err(|_| io::Error::other("async-std cannot register a socket"))
}

async fn serve_connection(mut served: Served<TcpStream>, offloading: Option<Service>) -> io::Result<()> {
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
            Step::Run(work) => {
                let answer = match offloading {
                    // On a thread of the pool.
                    Some(service) => {
                        service.offload(work, |work| async { Ok(task::spawn_blocking(|| work.run()).await) }).await?
                    }
                    None => work.run(),
                };
                connection.answer(&answer);
            }
            Step::CloseSend => stream.shutdown(Shutdown::Write)?,
            Step::Yield => task::yield_now().await,
            Step::Close => return Ok(()),
        }
    }
}
