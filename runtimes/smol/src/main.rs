//! The common server on smol, an executor of a few hundred lines over async-io.
//!
//! A connection is a task of one executor. One thread runs that executor in `current-thread` and `forked`, and W threads
//! (`--threads`) run it in `multi-thread`. A thread makes the blocking call inline and runs nothing else meanwhile, while the
//! other threads steal its tasks. The server uses its own executor because `smol::spawn` runs on a single thread by default.
//!
//! `unblock` moves the blocking call from one event loop to the pool of the crate `blocking` (`--blocking-threads`, by default
//! 500 as in the crate). The queue of that pool is unbounded, so `--when-full refuse` makes the server answer 503 instead.
//! `per-core` runs W executors side by side, each with one thread and its own listener (`SO_REUSEPORT`).
//!
//! No executor owns the reactor: any thread that idles in `block_on` polls it, and otherwise a helper thread named `async-io`
//! does. So a blocked thread cannot keep smol from polling. In the results, compare the freeze threshold with tokio's: the fewest
//! blocking requests that push p99 of `/` over a limit.

use common::{Acceptor, Knobs, Loops, Model, Pool, Runtime, Served, Server, Service, Step, Stop, Threads};
use smol::future::{or, pending, poll_fn, yield_now};
use smol::io::{AsyncRead, AsyncWriteExt};
use smol::{Async, Executor, block_on, unblock};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::thread;

static SMOL: Runtime = Runtime { name: "smol", package: Some("smol"), models: &MODELS, settings };

/// The number of threads in the pool for blocking work; the default of the crate `blocking`.
const BLOCKING_THREADS: usize = 500;

const MODELS: [Model; 5] = [
    Model { pollers: Threads::KnobAnd(1), ..Model::one_thread(serve) },
    Model {
        name: "multi-thread",
        about: "W threads run one executor",
        has_threads: true,
        handlers: Threads::Knob,
        pollers: Threads::KnobAnd(1),
        ..Model::one_thread(serve)
    },
    Model { pollers: Threads::KnobAnd(1), ..Model::forked(serve) },
    Model {
        name: "unblock",
        about: "one event loop; blocking calls go to a pool",
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        pollers: Threads::KnobAnd(1),
        ..Model::one_thread(serve)
    },
    Model { pollers: Threads::KnobAnd(1), ..Model::per_core(serve) },
];

fn main() -> ExitCode {
    common::main_with_environment(&SMOL, environment)
}

/// The pool reads its size from this variable only.
fn environment(knobs: &Knobs) -> Vec<(&'static str, String)> {
    vec![("BLOCKING_MAX_THREADS", knobs.blocking_threads.max(1).to_string())]
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    Vec::new()
}

fn serve(server: Server) -> io::Result<()> {
    let Server { knobs, acceptor, siblings, stop, service } = server;
    let executor = executor();
    let run = move |executor: &'static Executor<'static>, acceptor, stop| {
        block_on(executor.run(executor.spawn(accept(executor, knobs, acceptor, stop, service))))
    };
    // The other threads run the same executor; in `per-core` each sibling below runs its own.
    let helpers = if knobs.model.loops == Loops::OwnListeners { 1 } else { knobs.threads };
    for number in 1..helpers {
        named(number).spawn(move || block_on(executor.run(pending::<()>())))?;
    }
    for (number, acceptor) in siblings.into_iter().enumerate() {
        let stop = stop.clone();
        named(number + 1).spawn(move || common::or_exit(run(self::executor(), acceptor, stop)))?;
    }
    run(executor, acceptor, stop)
}

/// An executor that lives as long as the process.
fn executor() -> &'static Executor<'static> {
    Box::leak(Box::default())
}

fn named(number: usize) -> thread::Builder {
    thread::Builder::new().name(format!("smol-{number}"))
}

async fn accept(
    executor: &'static Executor<'static>,
    knobs: Knobs,
    acceptor: Acceptor,
    stop: Stop,
    service: Service,
) -> io::Result<()> {
    // The shared reactor registers a descriptor only once, so each loop waits on its own copy of the event.
    let (acceptor, stop) = (Async::new(acceptor)?, Async::new(stop.as_fd().try_clone_to_owned()?)?);
    service.ready();
    let is_offloading = knobs.blocking_threads > 0;
    let mut stopped = pin!(async { stop.readable().await.map(|()| true) });
    let is_acceptable = || async { acceptor.readable().await.map(|()| false) };
    while !or(&mut stopped, is_acceptable()).await? {
        for served in acceptor.get_ref().accept_some(Async::new_nonblocking) {
            executor.spawn(serve_connection(served, is_offloading.then_some(service))).detach();
        }
        // Serve them until they wait before accepting the next one, which an idle process may take.
        yield_now().await;
    }
    drop(acceptor);
    pending().await
}

async fn serve_connection(mut served: Served<Async<TcpStream>>, offloading: Option<Service>) -> io::Result<()> {
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
                    Some(service) => service.offload(work, |work| async { Ok(unblock(|| work.run()).await) }).await?,
                    None => work.run(),
                };
                connection.answer(&answer);
            }
            Step::CloseSend => stream.get_ref().shutdown(Shutdown::Write)?,
            Step::Yield => yield_now().await,
            Step::Close => return Ok(()),
        }
    }
}
