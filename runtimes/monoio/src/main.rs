//! The common server on monoio, a single-threaded runtime over io_uring, run once per core.
//!
//! A connection is a task of the loop that accepted it and stays there, because no loop steals tasks. The loop makes the blocking
//! call inline and does nothing else meanwhile. In `per-core` each of W loops (`--threads`) has its own listener
//! (`SO_REUSEPORT`), and the kernel distributes connections by hash, even to blocked loops. In `per-core-shared` all loops accept
//! on one listener. A loop waits until the listener is readable and then accepts: an accept submitted to the kernel would take a
//! connection even while its loop is blocked. In `offloaded` (built with the feature of that name) blocking calls go to the pool of
//! the crate `blocking`, which all loops share.
//!
//! The kernel owns the buffer of a read in flight, so an idle connection holds 4 KiB until it closes. The size of the ring is
//! monoio's default. If the kernel or a limit refuses io_uring, the server reports the error and exits. In the results, compare
//! the two ways to accept, and look at the memory of an idle connection.

#[cfg(feature = "offloaded")]
mod offload;

use common::{Acceptor, Knobs, Model, Runtime, Served, Server, Service, Step, Stop};
use futures_lite::future::yield_now;
use io_uring::IoUring;
use monoio::buf::IoBuf;
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};
#[cfg(feature = "offloaded")]
use offload::run;
use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::process::ExitCode;
use std::thread;

/// The number of entries in the ring; monoio's default.
const ENTRIES: u32 = 1024;
/// The number of threads in the pool for blocking work, which all loops share; the default of the crate `blocking`.
#[cfg(feature = "offloaded")]
const BLOCKING_THREADS: usize = 500;
/// The size of each connection's buffer, in bytes.
const BUFFER: usize = 4 * 1024;

static MONOIO: Runtime = Runtime { name: "monoio", package: Some("monoio"), models: MODELS, settings };

// On a non-blocking socket the kernel would return `EAGAIN` instead of waiting for data.
#[cfg(not(feature = "offloaded"))]
const MODELS: &[Model] = &[
    Model { blocking_sockets: true, ..Model::per_core(serve) },
    Model { blocking_sockets: true, ..Model::per_core_shared(serve) },
];
// A build of its own: with wakes from other threads, every wake costs more.
#[cfg(feature = "offloaded")]
const MODELS: &[Model] = &[Model {
    name: "offloaded",
    about: "W threads, each with its own event loop and listener; blocking calls go to a pool",
    blocking_threads: common::Pool::Of(BLOCKING_THREADS),
    blocking_sockets: true,
    ..Model::per_core(serve)
}];

fn main() -> ExitCode {
    common::main_with_environment(&MONOIO, environment)
}

/// The pool reads its size from this variable only.
fn environment(knobs: &Knobs) -> Vec<(&'static str, String)> {
    vec![("BLOCKING_MAX_THREADS", knobs.blocking_threads.max(1).to_string())]
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    vec![
        ("ring-entries", ENTRIES.to_string()),
        ("ring-flags", "single-issuer, coop-taskrun".into()),
        ("connection-buffer", BUFFER.to_string()),
    ]
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
    let mut ring = IoUring::builder();
    // One thread submits, and it asks for completions when it has nothing else to do, so the kernel need not interrupt it.
    ring.setup_single_issuer().setup_coop_taskrun();
    let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES).uring_builder(ring);
    #[cfg(feature = "offloaded")]
    let builder = builder.attach_thread_pool(Box::new(offload::Pool));
    builder.build().map_err(|error| common::no_io_uring(&error))?.block_on(accept(acceptor, stop, service))
}

async fn accept(acceptor: Acceptor, stop: &Stop, service: Service) -> io::Result<()> {
    let (readable, stopped) = (watched(&acceptor)?, watched(stop)?);
    let mut stopped = pin!(stopped.readable(false));
    service.ready();
    loop {
        monoio::select! {
            biased;
            result = &mut stopped => break result?,
            result = readable.readable(false) => result?,
        }
        for served in acceptor.accept_some(TcpStream::from_std) {
            monoio::spawn(serve_connection(served, service));
        }
        // Serve them until they wait before accepting the next one, which an idle loop may take.
        yield_now().await;
    }
    drop((acceptor, readable));
    pending().await
}

/// The same open file as a `TcpListener`: monoio can wait only for sockets, but the kernel accepts any descriptor.
fn watched(source: &impl AsFd) -> io::Result<TcpListener> {
    TcpListener::from_std(source.as_fd().try_clone_to_owned()?.into())
}

/// Makes the blocking call on the loop.
#[cfg(not(feature = "offloaded"))]
async fn run(work: common::work::Work, _service: Service) -> io::Result<common::http::Answer> {
    Ok(work.run())
}

async fn serve_connection(mut served: Served<TcpStream>, service: Service) -> io::Result<()> {
    let (stream, connection) = served.parts();
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
                let (output, sent) = connection.lend_output();
                let (result, written) = stream.write(output.slice(sent..)).await;
                connection.hand_back(written.into_inner(), result?);
            }
            Step::Run(work) => connection.answer(&run(work, service).await?),
            Step::CloseSend => stream.shutdown().await?,
            // Each read and each write waits for the ring.
            Step::Yield => {}
            Step::Close => return Ok(()),
        }
    }
}
