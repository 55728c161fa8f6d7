//! The common server on plain threads of the operating system.
//!
//! `thread-per-connection` gives each connection a thread, which reads, makes the blocking call inline and writes; only that
//! connection waits. The limit is the cost of a thread: a stack, kernel data structures, and a read buffer that it holds while
//! idle.
//!
//! `thread-pool` has W threads (`--threads`) and one more thread, which waits for all idle connections with epoll. That thread
//! hands readable connections to the pool through a queue of `--queue` places. While W handlers block, all other requests wait in
//! the queue. If the queue is full, the thread stops accepting until a place is free; with `--when-full refuse` it answers new
//! requests with 503.
//!
//! `event-loop` is one thread that waits with epoll and makes the blocking call inline, without any runtime: two system calls for a
//! request, and one for as many as wait. It is what other servers are compared with, not a bound: a runtime on io_uring makes fewer
//! system calls and may be cheaper, and the cost measured here varies from trial to trial as well.
//!
//! In the results, `thread-per-connection` shows the operating system's own protection against blocking; `footprint` shows its
//! cost.

mod event_loop;
mod per_connection;
mod pool;
mod turn;

use common::{Knobs, Model, Runtime, Threads};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread;

/// The stack size of each thread, in bytes.
const STACK_SIZE: usize = 256 * 1024;

/// The length of the queue in front of the pool.
const QUEUE: usize = 1024;

static STD: Runtime = Runtime { name: "std", package: None, models: &MODELS, settings };

const MODELS: [Model; 3] = [
    Model {
        name: "thread-per-connection",
        about: "each connection has its own thread",
        handlers: Threads::PerConnection,
        pollers: Threads::PerConnection,
        blocking_sockets: true,
        ..Model::one_thread(per_connection::serve)
    },
    Model {
        name: "thread-pool",
        about: "W threads share the readable connections",
        has_threads: true,
        queue: QUEUE,
        handlers: Threads::Knob,
        ..Model::one_thread(pool::serve)
    },
    Model { name: "event-loop", about: "one thread, with nothing between it and epoll", ..Model::one_thread(event_loop::serve) },
];

fn main() -> ExitCode {
    common::main(&STD)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    vec![("stack-size", STACK_SIZE.to_string())]
}

/// Waits until one of the two is readable; true if the stop event is.
fn is_stopped(stop: &impl AsFd, source: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(stop.as_fd(), PollFlags::POLLIN), PollFd::new(source.as_fd(), PollFlags::POLLIN)];
    // If a signal interrupts the wait, this returns false, and the caller tries again.
    poll(&mut fds, PollTimeout::NONE).is_ok() && fds[0].any() == Some(true)
}

fn named(name: &str) -> thread::Builder {
    thread::Builder::new().name(name.into()).stack_size(STACK_SIZE)
}
