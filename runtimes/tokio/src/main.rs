//! The common server on tokio, the most widely used runtime.
//!
//! A connection is a task. In `current-thread` and `forked` one thread runs all tasks, polls I/O between them, and makes the
//! blocking call inline. Meanwhile the thread does nothing else and accepts no connections. `local` is the same on a runtime
//! whose tasks need not be `Send`. In `multi-thread` W workers (`--threads`) share the tasks and steal from each other, and one
//! worker at a time also polls I/O. A blocked worker keeps its own next task (the LIFO slot). If it held the I/O driver when it
//! woke, no worker polls until another one parks and takes over. `eager-handoff` wakes another worker for polling before each
//! task, and `no-lifo` has no LIFO slot. Both need `--cfg tokio_unstable`; their baseline `unstable` is `multi-thread` built with
//! that flag.
//!
//! Three models move the blocking call off a single event loop. `spawn-blocking` uses tokio's pool (`--blocking-threads`, by
//! default 512 as in tokio). The queue of that pool is unbounded, so `--when-full refuse` makes the server answer 503 instead.
//! `rayon` uses a pool for computation with one thread per core. `worker-threads` uses a fixed number of threads behind a queue
//! of `--queue` places. In `block-in-place` the worker makes the call itself, after it has handed its other tasks to a new thread
//! of tokio's pool.
//!
//! `per-core` runs W loops side by side, each with its own listener (`SO_REUSEPORT`). The kernel distributes connections by hash,
//! even to blocked loops.
//!
//! All other settings have tokio's defaults. In the results, look at the few blocking requests that freeze `multi-thread`: as
//! many as it has workers, or fewer.

mod offload;
mod workers;

use common::{Acceptor, Connection, Knobs, Loops, Model, Pool, Runtime, Served, Server, Service, Step, Stop, Threads};
use offload::Place;
use std::io::{self, ErrorKind};
use std::process::ExitCode;
use std::thread;
use tokio::io::{AsyncWriteExt, unix::AsyncFd};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{spawn_local, yield_now};

/// The number of task polls between two polls of the I/O driver.
const EVENT_INTERVAL: u32 = 61;
/// The number of threads in the pool for blocking work; tokio's default.
const BLOCKING_THREADS: usize = 512;
/// The length of the queue in front of the worker threads.
const QUEUE: usize = 64;
/// The stack size of each worker, in bytes.
const STACK_SIZE: usize = 2 * 1024 * 1024;

static TOKIO: Runtime = Runtime { name: "tokio", package: Some("tokio"), models: MODELS, settings };

/// W workers that share the tasks.
const WORKERS: Model = Model {
    name: "multi-thread",
    about: "W workers share the tasks",
    has_threads: true,
    handlers: Threads::Knob,
    pollers: Threads::Knob,
    ..Model::ONE_THREAD
};

const MODELS: &[Model] = &[
    Model::ONE_THREAD,
    WORKERS,
    Model { name: "forked", about: "single-threaded processes", ..Model::ONE_THREAD },
    Model { name: "local", about: "one thread runs everything, on a runtime whose tasks need not be Send", ..Model::ONE_THREAD },
    Model {
        name: "spawn-blocking",
        about: "one event loop; blocking calls go to a pool",
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        ..Model::ONE_THREAD
    },
    Model {
        name: "rayon",
        about: "one event loop; blocking calls go to a pool with one thread per core",
        blocking_threads: Pool::PerCore,
        ..Model::ONE_THREAD
    },
    Model {
        name: "worker-threads",
        about: "one event loop; blocking calls go to a fixed number of threads",
        blocking_threads: Pool::PerCore,
        queue: QUEUE,
        ..Model::ONE_THREAD
    },
    Model {
        name: "block-in-place",
        about: "W workers share the tasks; before a worker blocks, it hands its other tasks on",
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        ..WORKERS
    },
    Model::PER_CORE,
    #[cfg(tokio_unstable)]
    Model {
        name: "unstable",
        about: "W workers share the tasks; built with unstable features but without using them",
        ..WORKERS
    },
    #[cfg(tokio_unstable)]
    Model {
        name: "eager-handoff",
        about: "W workers share the tasks; a worker hands the I/O driver on before it runs a task",
        ..WORKERS
    },
    #[cfg(tokio_unstable)]
    Model { name: "no-lifo", about: "W workers share the tasks; every task can be stolen", ..WORKERS },
];

fn main() -> ExitCode {
    common::main(&TOKIO, serve)
}

fn settings(knobs: &Knobs) -> Vec<(&'static str, String)> {
    let mut settings = vec![("event-interval", EVENT_INTERVAL.to_string())];
    if knobs.model.has_threads {
        settings.push(("stack-size", STACK_SIZE.to_string()));
    }
    settings
}

fn serve(server: Server) -> io::Result<()> {
    let Server { knobs, acceptor, siblings, stop, service } = server;
    let place = Place::of(&knobs)?;
    for (number, acceptor) in siblings.into_iter().enumerate() {
        let (thread, stop) = (thread::Builder::new().name(format!("core-{}", number + 1)), stop.clone());
        thread.spawn(move || common::or_exit(run_loop(knobs, acceptor, stop, place, service)))?;
    }
    run_loop(knobs, acceptor, stop, place, service)
}

fn run_loop(knobs: Knobs, acceptor: Acceptor, stop: Stop, place: &'static Place, service: Service) -> io::Result<()> {
    let accept = accept(knobs.model.name == "local", acceptor, stop, place, service);
    if knobs.model.name == "local" {
        return builder(&knobs).build_local(LocalOptions::default())?.block_on(accept);
    }
    // Spawn the accept loop, so that it runs on a worker like every other task and not on the waiting main thread.
    builder(&knobs).build()?.block_on(async { tokio::spawn(accept).await })?
}

fn builder(knobs: &Knobs) -> Builder {
    let has_workers = knobs.model.has_threads && knobs.model.loops == Loops::One;
    let mut builder = if has_workers { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    builder.worker_threads(knobs.threads).thread_stack_size(STACK_SIZE);
    // tokio's own pool needs at least one thread, even in models that do not use it.
    builder.max_blocking_threads(knobs.blocking_threads.max(1));
    #[cfg(tokio_unstable)]
    match knobs.model.name {
        "eager-handoff" => drop(builder.enable_eager_driver_handoff()),
        "no-lifo" => drop(builder.disable_lifo_slot()),
        _ => {}
    }
    builder.event_interval(EVENT_INTERVAL).enable_io();
    builder
}

async fn accept(is_local: bool, acceptor: Acceptor, stop: Stop, place: &'static Place, service: Service) -> io::Result<()> {
    // SAFETY: both own their descriptor, never change it, and keep it open until they and their registration are dropped.
    let (acceptor, stop) = unsafe { (AsyncFd::register(acceptor)?, AsyncFd::register(stop)?) };
    service.ready();
    loop {
        let mut readable = tokio::select! {
            biased;
            _ = stop.readable() => break,
            readable = acceptor.readable() => readable?,
        };
        if let Ok(Ok(served)) = readable.try_io(|acceptor| acceptor.get_ref().accept(TcpStream::from_std)) {
            let connection = serve_connection(served, place, service);
            drop(if is_local { spawn_local(connection) } else { tokio::spawn(connection) });
            // Serve this connection until it waits before accepting the next one, which an idle process may take.
            yield_now().await;
        }
    }
    drop(acceptor);
    std::future::pending().await
}

async fn serve_connection(mut served: Served<TcpStream>, place: &'static Place, service: Service) -> io::Result<()> {
    let (stream, connection) = served.parts();
    loop {
        match connection.step() {
            Step::Read => read(stream, connection).await?,
            Step::Write => {
                let count = stream.write(connection.unsent()).await?;
                connection.sent(count);
            }
            Step::Run(work) => connection.answer(&place.run(work, service).await?),
            Step::CloseSend => stream.shutdown().await?,
            Step::Close => return Ok(()),
        }
    }
}

/// Waits without holding a buffer, then reads.
async fn read(stream: &TcpStream, connection: &mut Connection) -> io::Result<()> {
    loop {
        match stream.try_read(connection.space()) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                connection.rest();
                stream.readable().await?;
            }
            result => {
                connection.received(result?);
                return Ok(());
            }
        }
    }
}
