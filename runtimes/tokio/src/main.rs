//! The common server on tokio, the runtime that most services use.
//!
//! A connection is a task. In `current-thread` and `forked` one thread runs all tasks, polls I/O between them, and runs the
//! blocking call inline: while it runs, nothing else does, new connections included. In `multi-thread` W workers share the tasks
//! and steal from each other, and one of them at a time also polls I/O. A worker that blocks keeps its own next task (the LIFO
//! slot), and if it is the one that held the I/O driver when it woke, nobody polls until another worker parks and takes it over.
//!
//! `spawn-blocking` sends the blocking call from one event loop to tokio's pool (`--blocking-threads`, 512 as in tokio itself; its
//! queue has no end, so `--when-full refuse` answers 503 instead). `block-in-place` makes it on the worker, which hands its other
//! tasks to a fresh thread of the same pool first.
//!
//! `per-core` runs W such loops side by side, each on a listener of its own (`SO_REUSEPORT`): the kernel hashes connections onto
//! threads that block as well as onto others.
//!
//! The knobs are `--threads` (W) and those below, at tokio's own defaults. In the numbers, look at how few blockers freeze
//! `multi-thread`: as many as workers, or fewer.

use common::http::Answer;
use common::work::Work;
use common::{Acceptor, Connection, Knobs, Model, Runtime, Server, Service, Step, Stop, Threads};
use std::io::{self, ErrorKind};
use std::process::ExitCode;
use std::thread;
use tokio::io::{AsyncWriteExt, unix::AsyncFd};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::{block_in_place, spawn_blocking};

/// Polls of tasks between two looks at the I/O driver.
const EVENT_INTERVAL: u32 = 61;
/// Threads of the pool for blocking work, as tokio has them.
const BLOCKING_THREADS: usize = 512;
/// Stack of each worker, in bytes.
const STACK_SIZE: usize = 2 * 1024 * 1024;

static TOKIO: Runtime = Runtime { name: "tokio", package: Some("tokio"), models: &MODELS, settings };

const MODELS: [Model; 6] = [
    Model::ONE_THREAD,
    Model {
        name: "multi-thread",
        about: "W workers share the tasks",
        has_threads: true,
        handlers: Threads::Knob,
        pollers: Threads::Knob,
        ..Model::ONE_THREAD
    },
    Model { name: "forked", about: "processes of one thread each", ..Model::ONE_THREAD },
    Model {
        name: "spawn-blocking",
        about: "one thread runs everything but what blocks, which a pool does",
        blocking_threads: BLOCKING_THREADS,
        ..Model::ONE_THREAD
    },
    Model {
        name: "block-in-place",
        about: "W workers share the tasks; one that blocks hands its own on",
        has_threads: true,
        blocking_threads: BLOCKING_THREADS,
        handlers: Threads::Knob,
        pollers: Threads::Knob,
        ..Model::ONE_THREAD
    },
    Model {
        name: "per-core",
        about: "W threads, each with a runtime and a listener of its own",
        has_threads: true,
        can_fork: false,
        handlers: Threads::Knob,
        pollers: Threads::Knob,
        is_per_core: true,
        ..Model::ONE_THREAD
    },
];

/// Where the blocking call is made.
#[derive(Clone, Copy)]
enum Place {
    Inline,
    Pool,
    Worker,
}

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
    for (number, acceptor) in siblings.into_iter().enumerate() {
        let (thread, stop) = (thread::Builder::new().name(format!("core-{}", number + 1)), stop.clone());
        thread.spawn(move || common::or_exit(run_loop(knobs, acceptor, stop, service)))?;
    }
    run_loop(knobs, acceptor, stop, service)
}

fn run_loop(knobs: Knobs, acceptor: Acceptor, stop: Stop, service: Service) -> io::Result<()> {
    let mut builder = match knobs.model.name {
        "multi-thread" | "block-in-place" => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.worker_threads(knobs.threads).thread_stack_size(STACK_SIZE);
    // One that is not set is tokio's own, which nothing here uses.
    builder.max_blocking_threads(knobs.blocking_threads.max(1));
    let runtime = builder.event_interval(EVENT_INTERVAL).enable_io().build()?;
    // Spawned, so that it runs on a worker like every other task and not on the thread that waits here.
    runtime.block_on(async { tokio::spawn(accept(knobs, acceptor, stop, service)).await })?
}

async fn accept(knobs: Knobs, acceptor: Acceptor, stop: Stop, service: Service) -> io::Result<()> {
    let place = match knobs.model.name {
        "spawn-blocking" => Place::Pool,
        "block-in-place" => Place::Worker,
        _ => Place::Inline,
    };
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
            tokio::spawn(serve_connection(stream, connection, place, service));
            // Serve it until it would block before the next is accepted, which another process may be free to take.
            tokio::task::yield_now().await;
        }
    }
    drop(acceptor);
    std::future::pending().await
}

async fn serve_connection(mut stream: TcpStream, mut connection: Connection, place: Place, service: Service) -> io::Result<()> {
    loop {
        match connection.step() {
            Step::Read => read(&stream, &mut connection).await?,
            Step::Write => {
                let count = stream.write(connection.unsent()).await?;
                connection.sent(count);
            }
            Step::Run(work) => connection.answer(&run(work, place, service).await?),
            Step::CloseSend => stream.shutdown().await?,
            Step::Close => return Ok(()),
        }
    }
}

/// Makes the blocking call where the model wants it.
async fn run(work: Work, place: Place, service: Service) -> io::Result<Answer> {
    if matches!(place, Place::Inline) {
        return Ok(work.run());
    }
    match service.admit() {
        Err(full) => Ok(full),
        Ok(_admitted) if matches!(place, Place::Worker) => Ok(block_in_place(|| work.run())),
        Ok(_admitted) => Ok(spawn_blocking(|| work.run()).await?),
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
