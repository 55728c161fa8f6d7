//! The common server on the operating system's threads alone.
//!
//! `thread-per-connection` gives each connection a thread, which reads, runs the blocking call inline and writes; only that
//! connection waits. Its limit is what a thread costs: a stack, the kernel's records, and a read buffer held while idle.
//!
//! `thread-pool` has W threads and one more that waits for all idle connections at once (epoll) and hands the readable ones to the
//! pool through a queue of `--queue` places. With W handlers blocked everything else waits in that queue; when it is full, that thread waits
//! too, and accepts nobody, or with `--when-full refuse` turns whoever comes away with 503.
//!
//! The knobs are `--threads` (W, of the pool), the queue's length, and the size of the stacks. In the numbers, `thread-per-connection` is what the
//! operating system can do about blocking by itself; its price is in `footprint`.

mod per_connection;
mod pool;

use common::{Knobs, Model, Runtime, Server, Threads};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread;

/// Stack of each thread, in bytes.
const STACK_SIZE: usize = 256 * 1024;

/// Places in the queue before the pool.
const QUEUE: usize = 1024;

static STD: Runtime = Runtime { name: "std", package: None, models: &MODELS, settings };

const MODELS: [Model; 2] = [
    Model {
        name: "thread-per-connection",
        about: "each connection has a thread of its own",
        handlers: Threads::PerConnection,
        pollers: Threads::PerConnection,
        blocking_sockets: true,
        ..Model::ONE_THREAD
    },
    Model {
        name: "thread-pool",
        about: "W threads take turns",
        has_threads: true,
        queue: QUEUE,
        handlers: Threads::Knob,
        ..Model::ONE_THREAD
    },
];

fn main() -> ExitCode {
    common::main(&STD, serve)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    vec![("stack-size", STACK_SIZE.to_string())]
}

fn serve(server: Server) -> io::Result<()> {
    match server.knobs.model.name {
        "thread-pool" => pool::serve(server),
        _ => per_connection::serve(server),
    }
}

/// Waits until one of the two is readable; true as soon as it is the stop event.
fn is_stopped(stop: &impl AsFd, source: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(stop.as_fd(), PollFlags::POLLIN), PollFd::new(source.as_fd(), PollFlags::POLLIN)];
    // Interrupted, it says that neither is, and the caller comes again.
    poll(&mut fds, PollTimeout::NONE).is_ok() && fds[0].any() == Some(true)
}

fn named(name: &str) -> thread::Builder {
    thread::Builder::new().name(name.into()).stack_size(STACK_SIZE)
}
