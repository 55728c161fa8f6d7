//! The common server on monoio, a runtime of one thread over io_uring, made to run once per core.
//!
//! A connection is a task of the loop that accepted it, for good: there is nobody to steal it. The blocking call is made inline, and its
//! loop does nothing else meanwhile. In `per-core` each of W loops has a listener of its own (`SO_REUSEPORT`), and the kernel hashes
//! connections onto loops that block as well as onto others; in `per-core-shared` all accept on one. They wait until that is readable
//! and then accept, since an accept that is given to the kernel takes a connection even while its loop is blocked.
//!
//! The kernel reads into a buffer that it must own while a read is in flight, which is as long as a connection is idle: 4 KiB each,
//! given back only when it is closed. The knobs are `--threads` (W) and the size of the ring. Where the kernel or a limit refuses io_uring,
//! it says so and ends. In the numbers, look at the two ways to accept, and at the memory of an idle connection.

use common::{Acceptor, Connection, Knobs, Model, Runtime, Server, Service, Step, Stop};
use futures_lite::future::yield_now;
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};
use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread;

/// Places in the ring, as monoio has them.
const ENTRIES: u32 = 1024;
/// Buffer of each connection, in bytes.
const BUFFER: usize = 4 * 1024;

static MONOIO: Runtime = Runtime { name: "monoio", package: Some("monoio"), models: &MODELS, settings };

// The kernel waits for what is not there yet unless a socket says that it must not.
const MODELS: [Model; 2] =
    [Model { blocking_sockets: true, ..Model::PER_CORE }, Model { blocking_sockets: true, ..Model::PER_CORE_SHARED }];

fn main() -> ExitCode {
    common::main(&MONOIO, serve)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    vec![("ring-entries", ENTRIES.to_string()), ("connection-buffer", BUFFER.to_string())]
}

fn serve(server: Server) -> io::Result<()> {
    let Server { acceptor, siblings, stop, service, .. } = server;
    for (number, acceptor) in siblings.into_iter().enumerate() {
        let (thread, stop) = (thread::Builder::new().name(format!("core-{}", number + 1)), stop.clone());
        thread.spawn(move || common::or_exit(run_loop(acceptor, &stop, service)))?;
    }
    run_loop(acceptor, &stop, service)
}

fn run_loop(acceptor: Acceptor, stop: &Stop, service: Service) -> io::Result<()> {
    let runtime = RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES).build();
    runtime.map_err(|error| common::no_io_uring(&error))?.block_on(accept(acceptor, stop, service))
}

async fn accept(acceptor: Acceptor, stop: &Stop, service: Service) -> io::Result<()> {
    let (readable, stopped) = (watched(&acceptor)?, watched(stop)?);
    service.ready();
    loop {
        monoio::select! {
            biased;
            result = stopped.readable(false) => break result?,
            result = readable.readable(false) => result?,
        }
        if let Ok((stream, connection)) = acceptor.accept()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            monoio::spawn(serve_connection(stream, connection));
            // Serve it until it would block before the next is accepted, which another loop may be free to take.
            yield_now().await;
        }
    }
    drop((acceptor, readable));
    pending().await
}

/// The same open file in a listener's clothes: monoio waits for sockets only, and the kernel does not mind.
fn watched(source: &impl AsFd) -> io::Result<TcpListener> {
    TcpListener::from_std(source.as_fd().try_clone_to_owned()?.into())
}

async fn serve_connection(mut stream: TcpStream, mut connection: Connection) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        match connection.step() {
            Step::Read => {
                connection.rest();
                buffer.clear();
                let (result, filled) = stream.read(buffer).await;
                result?;
                connection.receive(&filled);
                buffer = filled;
            }
            Step::Write => {
                buffer.clear();
                buffer.extend_from_slice(connection.unsent());
                let (result, written) = stream.write(buffer).await;
                connection.sent(result?);
                buffer = written;
            }
            Step::Run(work) => connection.answer(&work.run()),
            Step::CloseSend => stream.shutdown().await?,
            Step::Close => return Ok(()),
        }
    }
}
