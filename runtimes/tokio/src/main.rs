//! The common server on tokio, the runtime that most services use.
//!
//! A connection is a task. In `current-thread` and `forked` one thread runs all tasks, polls I/O between them, and runs the
//! blocking call inline: while it runs, nothing else does, new connections included. `local` is the same on a runtime whose tasks need
//! not be `Send`. In `multi-thread` W workers share the tasks and steal from each other, and one of them at a time also polls I/O. A
//! worker that blocks keeps its own next task (the LIFO slot), and if it is the one that held the I/O driver when it woke, nobody polls
//! until another worker parks and takes it over. `eager-handoff` wakes another worker for that before each task, `no-lifo` has
//! no such slot; both need `--cfg tokio_unstable`, and `unstable` is `multi-thread` built the same way, to compare them with.
//!
//! From one event loop, `spawn-blocking` sends the blocking call to tokio's pool (`--blocking-threads`, 512 as in tokio itself; its
//! queue has no end, so `--when-full refuse` answers 503 instead), `rayon` to a pool of one thread per core made for computing, and
//! `worker-threads` to a fixed number of threads behind a queue of `--queue` places. `block-in-place` makes it on the worker, which
//! hands its other tasks to a fresh thread of tokio's pool first.
//!
//! `per-core` runs W loops side by side, each on a listener of its own (`SO_REUSEPORT`): the kernel hashes connections onto
//! threads that block as well as onto others.
//!
//! The knobs are `--threads` (W) and those below, at tokio's own defaults. In the numbers, look at how few blockers freeze
//! `multi-thread`: as many as workers, or fewer.

mod offload;
mod workers;

use common::{Acceptor, Connection, Knobs, Loops, Model, Pool, Runtime, Server, Service, Step, Stop, Threads};
use offload::Place;
use std::io::{self, ErrorKind};
use std::process::ExitCode;
use std::thread;
use tokio::io::{AsyncWriteExt, unix::AsyncFd};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{spawn_local, yield_now};

/// Polls of tasks between two looks at the I/O driver.
const EVENT_INTERVAL: u32 = 61;
/// Threads of the pool for blocking work, as tokio has them.
const BLOCKING_THREADS: usize = 512;
/// Places in the queue before the worker threads.
const QUEUE: usize = 64;
/// Stack of each worker, in bytes.
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
    Model { name: "forked", about: "processes of one thread each", ..Model::ONE_THREAD },
    Model { name: "local", about: "one thread runs everything, on a runtime for tasks that stay there", ..Model::ONE_THREAD },
    Model {
        name: "spawn-blocking",
        about: "one thread runs everything but what blocks, which a pool does",
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        ..Model::ONE_THREAD
    },
    Model {
        name: "rayon",
        about: "one thread runs everything but what blocks, which a pool of one thread per core does",
        blocking_threads: Pool::PerCore,
        ..Model::ONE_THREAD
    },
    Model {
        name: "worker-threads",
        about: "one thread runs everything but what blocks, which a fixed number of threads does",
        blocking_threads: Pool::PerCore,
        queue: QUEUE,
        ..Model::ONE_THREAD
    },
    Model {
        name: "block-in-place",
        about: "W workers share the tasks; one that blocks hands its own on",
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        ..WORKERS
    },
    Model::PER_CORE,
    #[cfg(tokio_unstable)]
    Model {
        name: "unstable",
        about: "W workers share the tasks, built with unstable features and without using them",
        ..WORKERS
    },
    #[cfg(tokio_unstable)]
    Model { name: "eager-handoff", about: "W workers share the tasks; one that got events hands the I/O driver on", ..WORKERS },
    #[cfg(tokio_unstable)]
    Model { name: "no-lifo", about: "W workers share the tasks, all of which can be stolen", ..WORKERS },
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
    // Spawned, so that it runs on a worker like every other task and not on the thread that waits here.
    builder(&knobs).build()?.block_on(async { tokio::spawn(accept).await })?
}

fn builder(knobs: &Knobs) -> Builder {
    let has_workers = knobs.model.has_threads && knobs.model.loops == Loops::One;
    let mut builder = if has_workers { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    builder.worker_threads(knobs.threads).thread_stack_size(STACK_SIZE);
    // One that is not set is tokio's own, which nothing here uses.
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
    // SAFETY: both own their descriptor, never change it, and keep it open until they are dropped with their registration.
    let (acceptor, stop) = unsafe { (AsyncFd::register(acceptor)?, AsyncFd::register(stop)?) };
    service.ready();
    loop {
        let mut readable = tokio::select! {
            biased;
            _ = stop.readable() => break,
            readable = acceptor.readable() => readable?,
        };
        if let Ok(Ok((stream, connection))) = readable.try_io(|acceptor| Acceptor::accept(acceptor.get_ref()))
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            let connection = serve_connection(stream, connection, place, service);
            drop(if is_local { spawn_local(connection) } else { tokio::spawn(connection) });
            // Serve it until it would block before the next is accepted, which another process may be free to take.
            yield_now().await;
        }
    }
    drop(acceptor);
    std::future::pending().await
}

async fn serve_connection(
    mut stream: TcpStream,
    mut connection: Connection,
    place: &'static Place,
    service: Service,
) -> io::Result<()> {
    loop {
        match connection.step() {
            Step::Read => read(&stream, &mut connection).await?,
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

/// Waits without a buffer, then reads.
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
