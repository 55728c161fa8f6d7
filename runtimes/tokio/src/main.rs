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
//! Others move the blocking call off a single event loop. `spawn-blocking` uses tokio's pool (`--blocking-threads`, by
//! default 512 as in tokio). The queue of that pool is unbounded, so `--when-full refuse` makes the server answer 503 instead.
//! `rayon` uses a pool for computation with one thread per core. `worker-threads` uses a fixed number of threads behind a queue
//! of `--queue` places. In `block-in-place` the worker makes the call itself, after it has handed its other tasks to a new thread
//! of tokio's pool. `multi-thread-spawn-blocking` has both: W workers, and the pool of tokio. The threads of that pool yield to all
//! others in `spawn-blocking-nice` (nice 19). `two-runtimes` has W workers for blocking handlers only, in a runtime of their own.
//!
//! In `nudged` a thread spawns an empty task every millisecond: a folk remedy for a worker that blocks while it holds the I/O
//! driver, since each task wakes another worker, which may take the driver over.
//!
//! `per-core` runs W loops side by side, each with its own listener (`SO_REUSEPORT`). The kernel distributes connections by hash,
//! even to blocked loops. In `per-core-shared` they share one listener.
//!
//! All other settings have tokio's defaults. In the results, look at the few blocking requests that freeze `multi-thread`: as
//! many as it has workers, or fewer.

mod offload;
mod way;
mod workers;

use common::{Knobs, Model, Pool, Runtime, Server, Threads};
use offload::Place;
use std::io;
use std::process::ExitCode;
use way::Way;

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
    ..Model::one_thread(inline)
};

const MODELS: &[Model] = &[
    Model::one_thread(inline),
    WORKERS,
    Model::forked(inline),
    Model {
        name: "local",
        about: "one thread runs everything, on a runtime whose tasks need not be Send",
        ..Model::one_thread(|server| Way { is_local: true, ..Way::INLINE }.serve(server))
    },
    Model {
        name: "spawn-blocking",
        about: "one event loop; blocking calls go to a pool",
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        ..Model::one_thread(|server| Way { place: |_| Ok(Place::Pool), ..Way::INLINE }.serve(server))
    },
    Model {
        name: "spawn-blocking-nice",
        about: "one event loop; blocking calls go to a pool whose threads have the lowest priority",
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        ..Model::one_thread(|server| Way { place: |_| Ok(Place::Pool), tune: offload::be_nice, ..Way::INLINE }.serve(server))
    },
    Model {
        name: "multi-thread-spawn-blocking",
        about: "W workers share the tasks; blocking calls go to a pool",
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        serve: |server| Way { place: |_| Ok(Place::Pool), ..Way::INLINE }.serve(server),
        ..WORKERS
    },
    Model {
        name: "two-runtimes",
        about: "W workers share the tasks; blocking calls are tasks of a second runtime with workers of its own",
        blocking_threads: Pool::PerCore,
        serve: |server| Way { place: Place::second_runtime, ..Way::INLINE }.serve(server),
        ..WORKERS
    },
    Model {
        name: "rayon",
        about: "one event loop; blocking calls go to a pool with one thread per core",
        blocking_threads: Pool::PerCore,
        ..Model::one_thread(|server| Way { place: Place::rayon, ..Way::INLINE }.serve(server))
    },
    Model {
        name: "worker-threads",
        about: "one event loop; blocking calls go to a fixed number of threads",
        blocking_threads: Pool::PerCore,
        queue: QUEUE,
        ..Model::one_thread(|server| Way { place: Place::workers, ..Way::INLINE }.serve(server))
    },
    Model {
        name: "block-in-place",
        about: "W workers share the tasks; before a worker blocks, it hands its other tasks on",
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        serve: |server| Way { place: |_| Ok(Place::Worker), ..Way::INLINE }.serve(server),
        ..WORKERS
    },
    Model {
        name: "nudged",
        about: "W workers share the tasks; a thread wakes one of them every millisecond",
        serve: |server| Way { is_nudged: true, ..Way::INLINE }.serve(server),
        ..WORKERS
    },
    Model::per_core(inline),
    Model::per_core_shared(inline),
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
        serve: |server| Way { tune: |builder| drop(builder.enable_eager_driver_handoff()), ..Way::INLINE }.serve(server),
        ..WORKERS
    },
    #[cfg(tokio_unstable)]
    Model {
        name: "no-lifo",
        about: "W workers share the tasks; every task can be stolen",
        serve: |server| Way { tune: |builder| drop(builder.disable_lifo_slot()), ..Way::INLINE }.serve(server),
        ..WORKERS
    },
];

fn main() -> ExitCode {
    common::main(&TOKIO)
}

fn inline(server: Server) -> io::Result<()> {
    Way::INLINE.serve(server)
}

fn settings(knobs: &Knobs) -> Vec<(&'static str, String)> {
    let mut settings = vec![("event-interval", EVENT_INTERVAL.to_string())];
    if knobs.model.has_threads {
        settings.push(("stack-size", STACK_SIZE.to_string()));
    }
    settings
}
