//! The common server on compio, a single-threaded runtime over io_uring, run once per core. compio also runs on Windows and
//! macOS.
//!
//! A connection is a task of the loop that accepted it and stays there, because no loop steals tasks. The loop makes the blocking
//! call inline and does nothing else meanwhile. In `per-core` each of W loops (`--threads`) has its own listener
//! (`SO_REUSEPORT`), and the kernel distributes connections by hash, even to blocked loops. In `per-core-shared` all loops accept
//! on one listener. A loop waits until the listener is readable and then accepts: an accept submitted to the kernel would take a
//! connection even while its loop is blocked. In `offloaded` blocking calls go to compio's own pool (`--blocking-threads`), which all
//! loops share; while it is full, they wait in a queue of ours.
//!
//! The kernel takes a buffer from the loop's pool once there is something to read, so an idle connection holds none. The size of the
//! ring is compio's default. If the kernel or a limit refuses io_uring, the server reports the error and exits. In the results, compare
//! compio with monoio, another implementation of the same idea.

mod offload;

use common::{Acceptor, Knobs, Model, Runtime, Served, Server, Service, Step, Stop};
use compio::BufResult;
use compio::buf::{IntoInner, IoBuf};
use compio::driver::{DriverType, ProactorBuilder};
use compio::io::{AsyncRead, AsyncReadManaged, AsyncWrite};
use compio::net::TcpStream;
use compio::runtime::RuntimeBuilder;
use compio::runtime::fd::PollFd;
use futures_lite::future::{or, pending, yield_now};
use offload::Pool;
use std::io::{self, ErrorKind};
use std::num::NonZero;
use std::pin::pin;
use std::process::ExitCode;
use std::thread;

/// The number of entries in the ring; compio's default.
const ENTRIES: u32 = 1024;
/// The number of threads in the pool for blocking work, which all loops share; compio's default.
const BLOCKING_THREADS: usize = 256;
/// The number and the size in bytes of the buffers that a loop has for reads in flight.
const BUFFERS: NonZero<u16> = NonZero::new(256).unwrap();
const BUFFER: usize = 4 * 1024;

static COMPIO: Runtime = Runtime { name: "compio", package: Some("compio"), models: &MODELS, settings };

// On a non-blocking socket the kernel would return `EAGAIN` instead of waiting for data.
const MODELS: [Model; 3] = [
    Model { blocking_sockets: true, ..Model::per_core(|server| serve(server, false)) },
    Model { blocking_sockets: true, ..Model::per_core_shared(|server| serve(server, false)) },
    Model {
        name: "offloaded",
        about: "W threads, each with its own event loop and listener; blocking calls go to a pool",
        blocking_threads: common::Pool::Of(BLOCKING_THREADS),
        blocking_sockets: true,
        ..Model::per_core(|server| serve(server, true))
    },
];

fn main() -> ExitCode {
    common::main(&COMPIO)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    vec![
        ("ring-entries", ENTRIES.to_string()),
        ("ring-flags", "single-issuer, coop-taskrun, taskrun-flag".into()),
        ("ring-buffers", format!("{BUFFERS} of {BUFFER} bytes")),
    ]
}

fn serve(server: Server, offloads: bool) -> io::Result<()> {
    let Server { knobs, acceptor, siblings, stop, service } = server;
    let pool = Pool::new(&knobs, service);
    for (number, acceptor) in siblings.into_iter().enumerate() {
        let (thread, stop) = (thread::Builder::new().name(format!("core-{}", number + 1)), stop.clone());
        let pool = pool.clone();
        thread.spawn(move || common::or_exit(run_loop(pool, acceptor, stop, service, offloads)))?;
    }
    run_loop(pool, acceptor, stop, service, offloads)
}

fn run_loop(pool: Pool, acceptor: Acceptor, stop: Stop, service: Service, offloads: bool) -> io::Result<()> {
    let mut driver = ProactorBuilder::new();
    driver.capacity(ENTRIES).driver_type(DriverType::IoUring).reuse_thread_pool(pool.threads.clone());
    // One thread submits, and it asks for completions when it has nothing else to do, so the kernel need not interrupt it.
    driver.single_issuer(true).coop_taskrun(true).taskrun_flag(true);
    driver.buffer_pool_size(BUFFERS).buffer_pool_buffer_len(BUFFER);
    let offloading = offloads.then_some(pool);
    let runtime = RuntimeBuilder::new().with_proactor(driver).build();
    runtime.map_err(|error| common::no_io_uring(&error))?.block_on(accept(acceptor, stop, service, offloading))
}

async fn accept(acceptor: Acceptor, stop: Stop, service: Service, offloading: Option<Pool>) -> io::Result<()> {
    let (acceptor, stop) = (PollFd::new(acceptor)?, PollFd::new(stop)?);
    service.ready();
    let mut stopped = pin!(async { stop.read_ready().await.map(|()| true) });
    let is_acceptable = || async { acceptor.accept_ready().await.map(|()| false) };
    while !or(&mut stopped, is_acceptable()).await? {
        for served in acceptor.accept_some(TcpStream::from_std) {
            compio::runtime::spawn(serve_connection(served, offloading.clone())).detach();
        }
        // Serve them until they wait before accepting the next one, which an idle loop may take.
        yield_now().await;
    }
    drop(acceptor);
    pending().await
}

async fn serve_connection(mut served: Served<TcpStream>, offloading: Option<Pool>) -> io::Result<()> {
    let (stream, connection) = served.parts();
    loop {
        match connection.step() {
            Step::Read => {
                connection.rest();
                match stream.read_managed(0).await {
                    Ok(filled) => connection.receive(filled.as_deref().unwrap_or_default()),
                    // All buffers are in use by connections that have not run yet.
                    Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                        let BufResult(result, filled) = stream.read(Vec::with_capacity(BUFFER)).await;
                        result?;
                        connection.receive(&filled);
                    }
                    Err(error) => return Err(error),
                }
            }
            Step::Write => {
                let (output, sent) = connection.lend_output();
                let BufResult(result, written) = stream.write(output.slice(sent..)).await;
                connection.hand_back(written.into_inner(), result?);
            }
            Step::Run(work) => {
                let answer = match &offloading {
                    Some(pool) => pool.run(work).await?,
                    None => work.run(),
                };
                connection.answer(&answer);
            }
            Step::CloseSend => stream.shutdown().await?,
            // Each read and each write waits for the ring.
            Step::Yield => {}
            Step::Close => return Ok(()),
        }
    }
}
