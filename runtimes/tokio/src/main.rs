//! The common server on tokio, the runtime that most services use.
//!
//! A connection is a task. In `current-thread` and `forked` one thread runs all tasks, polls I/O between them, and runs the
//! blocking call inline: while it runs, nothing else does, new connections included. In `multi-thread` W workers share the tasks
//! and steal from each other, and one of them at a time also polls I/O. A worker that blocks keeps its own next task (the LIFO
//! slot), and if it is the one that held the I/O driver when it woke, nobody polls until another worker parks and takes it over.
//!
//! The knobs are `--threads` (W) and those below, at tokio's own defaults. In the numbers, look at how few blockers freeze
//! `multi-thread`: as many as workers, or fewer.

use common::{Acceptor, Connection, Knobs, Model, Runtime, Server, Step, Threads};
use std::io::{self, ErrorKind};
use std::process::ExitCode;
use tokio::io::{AsyncWriteExt, unix::AsyncFd};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

/// Polls of tasks between two looks at the I/O driver.
const EVENT_INTERVAL: u32 = 61;
/// Stack of each worker, in bytes.
const STACK_SIZE: usize = 2 * 1024 * 1024;

static TOKIO: Runtime = Runtime { name: "tokio", package: Some("tokio"), models: &MODELS, settings };

const MODELS: [Model; 3] = [
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
    let mut builder = match server.knobs.model.name {
        "multi-thread" => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.worker_threads(server.knobs.threads).thread_stack_size(STACK_SIZE);
    let runtime = builder.event_interval(EVENT_INTERVAL).enable_io().build()?;
    // Spawned, so that it runs on a worker like every other task and not on the thread that waits here.
    runtime.block_on(async { tokio::spawn(accept(server)).await })?
}

async fn accept(server: Server) -> io::Result<()> {
    // SAFETY: both own their descriptor, never change it, and keep it open until they are dropped with their registration.
    let (acceptor, stop) = unsafe { (AsyncFd::register(server.acceptor)?, AsyncFd::register(server.stop)?) };
    server.service.ready();
    loop {
        let mut readable = tokio::select! {
            biased;
            _ = stop.readable() => break,
            readable = acceptor.readable() => readable?,
        };
        if let Ok(Ok((stream, connection))) = readable.try_io(|acceptor| Acceptor::accept(acceptor.get_ref()))
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            tokio::spawn(serve_connection(stream, connection));
            // Serve it until it would block before the next is accepted, which another process may be free to take.
            tokio::task::yield_now().await;
        }
    }
    drop(acceptor);
    std::future::pending().await
}

async fn serve_connection(mut stream: TcpStream, mut connection: Connection) -> io::Result<()> {
    loop {
        match connection.step() {
            Step::Read => read(&stream, &mut connection).await?,
            Step::Write => {
                let count = stream.write(connection.unsent()).await?;
                connection.sent(count);
            }
            Step::Run(work) => connection.answer(&work.run()),
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
