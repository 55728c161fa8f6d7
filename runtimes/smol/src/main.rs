//! The common server on smol, an executor of a few hundred lines over async-io.
//!
//! A connection is a task of one executor, which one thread runs in `current-thread` and `forked`, and W threads in
//! `multi-thread`. The blocking call is made inline: its thread runs nothing else meanwhile, and the others steal its tasks.
//! `smol::spawn` would run on a single thread unless told otherwise, so the executor here is our own.
//!
//! The reactor belongs to nobody: whichever thread idles in `block_on` polls it, and a helper thread named `async-io` does
//! when none is there. So smol cannot lose its I/O driver to a blocked thread; in the numbers, compare the freeze threshold with tokio's.

use common::{Connection, Knobs, Model, Runtime, Server, Step, Threads};
use smol::future::{or, pending, poll_fn, yield_now};
use smol::io::{AsyncRead, AsyncWriteExt};
use smol::{Async, Executor, block_on};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::process::ExitCode;
use std::thread;

static SMOL: Runtime = Runtime { name: "smol", package: Some("smol"), models: &MODELS, settings };

const MODELS: [Model; 3] = [
    Model { pollers: Threads::KnobAnd(1), ..Model::ONE_THREAD },
    Model {
        name: "multi-thread",
        about: "W threads run one executor",
        has_threads: true,
        handlers: Threads::Knob,
        pollers: Threads::KnobAnd(1),
        ..Model::ONE_THREAD
    },
    Model { name: "forked", about: "processes of one thread each", pollers: Threads::KnobAnd(1), ..Model::ONE_THREAD },
];

static EXECUTOR: Executor<'static> = Executor::new();

fn main() -> ExitCode {
    common::main(&SMOL, serve)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    Vec::new()
}

fn serve(server: Server) -> io::Result<()> {
    for number in 1..server.knobs.threads {
        let thread = thread::Builder::new().name(format!("smol-{number}"));
        thread.spawn(|| block_on(EXECUTOR.run(pending::<()>())))?;
    }
    block_on(EXECUTOR.run(EXECUTOR.spawn(accept(server))))
}

async fn accept(server: Server) -> io::Result<()> {
    let acceptor = Async::new(server.acceptor)?;
    let stop = Async::new(server.stop)?;
    server.service.ready();
    let is_stopped = || async { stop.readable().await.map(|()| true) };
    let is_acceptable = || async { acceptor.readable().await.map(|()| false) };
    while !or(is_stopped(), is_acceptable()).await? {
        if let Ok((stream, connection)) = acceptor.get_ref().accept()
            && let Ok(stream) = Async::new_nonblocking(stream)
        {
            EXECUTOR.spawn(serve_connection(stream, connection)).detach();
            // Serve it until it would block before the next is accepted, which another process may be free to take.
            yield_now().await;
        }
    }
    drop(acceptor);
    pending().await
}

async fn serve_connection(mut stream: Async<TcpStream>, mut connection: Connection) -> io::Result<()> {
    loop {
        match connection.step() {
            Step::Read => read(&mut stream, &mut connection).await?,
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
