//! The common server on glommio, a single-threaded runtime over three rings, made for databases that run it once per core.
//!
//! A connection is a task of the loop that accepted it and stays there, because no loop steals tasks. The loop makes the blocking
//! call inline and does nothing else meanwhile. In `per-core` each of W loops (`--threads`) has its own listener
//! (`SO_REUSEPORT`), and the kernel distributes connections by hash, even to blocked loops. In `per-core-shared` all loops accept
//! on one listener. In `offloaded` each loop sends blocking calls to a pool of its own (`--blocking-threads` for each).
//!
//! glommio can accept but cannot wait for a listener. An accept submitted to the kernel would take a connection even while
//! its loop is blocked. So a second thread per loop waits for the listener and notifies the loop, which then accepts. The loop
//! reads a stream only once it is readable, so that idle connections hold no buffers.
//!
//! The depth of the rings is glommio's default. glommio needs 512 KiB of locked memory, and its build runs git and a configure
//! script, so it is built only on request. In the results, compare it with monoio and compio.

mod doorbell;

use common::{Acceptor, Knobs, Model, Pool, Runtime, Served, Server, Service, Step, Stop};
use doorbell::Doorbell;
use futures_lite::AsyncRead;
use futures_lite::AsyncWriteExt;
use futures_lite::future::{pending, poll_fn, yield_now};
use glommio::net::TcpStream;
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement, PoolPlacement, executor, spawn_local};
use std::io;
use std::net::Shutdown;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// The depth of each ring; glommio's default.
const RING_DEPTH: usize = 128;

/// How long a connection that has had its turn waits at least: a time that has not passed when it is first looked at.
const TURN: Duration = Duration::from_micros(50);

/// Memory for the buffers of files, which are not used, in bytes; glommio's default is 10 MiB for each loop.
const IO_MEMORY: usize = 64 * 1024;

static GLOMMIO: Runtime = Runtime { name: "glommio", package: Some("glommio"), models: &MODELS, settings };

// The second thread of each loop is ours and polls no connection, so it is not counted.
const MODELS: [Model; 3] = [
    Model::per_core(|server| serve(server, false)),
    Model::per_core_shared(|server| serve(server, false)),
    Model {
        name: "offloaded",
        about: "W threads, each with its own event loop and listener; blocking calls go to a pool of each loop",
        blocking_threads: Pool::PerCore,
        pool_per_loop: true,
        ..Model::per_core(|server| serve(server, true))
    },
];

fn main() -> ExitCode {
    common::main(&GLOMMIO)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    vec![("ring-depth", RING_DEPTH.to_string()), ("io-memory", IO_MEMORY.to_string())]
}

fn serve(server: Server, offloads: bool) -> io::Result<()> {
    let Server { knobs, acceptor, siblings, stop, service } = server;
    let offloading = offloads.then_some(service);
    for (number, acceptor) in siblings.into_iter().enumerate() {
        let (thread, stop) = (thread::Builder::new().name(format!("core-{}", number + 1)), stop.clone());
        thread.spawn(move || common::or_exit(run_loop(&knobs, acceptor, &stop, service, offloading)))?;
    }
    run_loop(&knobs, acceptor, &stop, service, offloading)
}

fn run_loop(knobs: &Knobs, acceptor: Acceptor, stop: &Stop, service: Service, offloading: Option<Service>) -> io::Result<()> {
    let pool = PoolPlacement::Unbound(knobs.blocking_threads.max(1));
    let builder = LocalExecutorBuilder::new(Placement::Unbound).blocking_thread_pool_placement(pool);
    let executor = builder.ring_depth(RING_DEPTH).io_memory(IO_MEMORY).make();
    executor.map_err(|error| io::Error::other(error.to_string()))?.run(accept(acceptor, stop, service, offloading))
}

async fn accept(acceptor: Acceptor, stop: &Stop, service: Service, offloading: Option<Service>) -> io::Result<()> {
    let mut doorbell = Doorbell::start(&acceptor, stop)?;
    service.ready();
    while doorbell.ring().await? {
        // SAFETY: the descriptor is open, and the new stream becomes its only owner.
        let take = |stream: std::net::TcpStream| Ok(unsafe { TcpStream::from_raw_fd(stream.into_raw_fd()) });
        for served in acceptor.accept_some(take) {
            spawn_local(serve_connection(served, offloading)).detach();
        }
        // Serve them until they wait before accepting the next one, which an idle loop may take.
        yield_now().await;
    }
    drop((acceptor, doorbell));
    pending().await
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
                        service.offload(work, |work| async { Ok(executor().spawn_blocking(|| work.run()).await) }).await?
                    }
                    None => work.run(),
                };
                connection.answer(&answer);
            }
            Step::CloseSend => stream.shutdown(Shutdown::Write).await?,
            // A task that only yields would run again before the rings are asked.
            Step::Yield => sleep(TURN).await,
            Step::Close => return Ok(()),
        }
    }
}
