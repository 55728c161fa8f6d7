//! The common server on may, whose tasks are green threads: code that looks blocking and runs on small stacks.
//!
//! A connection is a coroutine. W workers (`--threads`) run the coroutines. Each worker has its own queue and poller, and steals
//! from the others. A connection always belongs to the poller `descriptor % W`. A worker makes the blocking call inline. may
//! cannot detect that, so the worker's poller stops, and the connections tied to it wait even while other workers are idle.
//!
//! `offloaded` sends the call to the pool of the crate `blocking` (`--blocking-threads`), since may has none, and parks the coroutine.
//! The queue of that pool is unbounded, so `--when-full refuse` makes the server answer 503 instead. `rand-work-steal` is
//! `green-threads` with may's build option of that name: an idle worker steals from a random worker instead of from its
//! neighbour.
//!
//! The stack size is raised from may's 32 KiB because real handlers need more. Pinning of workers to cores is off, because it
//! would put every forked process on the first core. In the results, look at the share of dead connections, whose median request
//! takes over 0.1 s: it follows the share of blocked workers.

mod offload;

use common::http::Answer;
use common::work::Work;
use common::{Acceptor, Connection, Knobs, Model, Pool, Runtime, Served, Server, Service, Step, Threads};
use may::coroutine::JoinHandle;
use may::go;
use may::io::{CoIo, WaitIo};
use may::net::TcpStream;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd};
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The stack size of each coroutine, in bytes.
const STACK_SIZE: usize = 256 * 1024;
/// The number of threads for blocking work; the default of the crate `blocking`.
const BLOCKING_THREADS: usize = 500;
/// Until the loop that accepts tries again after an error.
const PAUSE: Duration = Duration::from_millis(10);

static MAY: Runtime = Runtime { name: "may", package: Some("may"), models: MODELS, settings };

/// W workers that run coroutines.
const WORKERS: Model = Model {
    name: "green-threads",
    about: "W workers run coroutines",
    has_threads: true,
    handlers: Threads::Knob,
    pollers: Threads::Knob,
    ..Model::one_thread(serve)
};

const MODELS: &[Model] = &[
    WORKERS,
    Model { about: "processes with one worker each", ..Model::forked(serve) },
    Model {
        name: "offloaded",
        about: "W workers run coroutines; blocking calls go to a pool of threads",
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        ..WORKERS
    },
    #[cfg(feature = "rand-work-steal")]
    Model { name: "rand-work-steal", about: "W workers run coroutines and steal from a random worker", ..WORKERS },
];

/// The place that makes the blocking call: the pool of threads, or the worker itself.
struct Place {
    workers: usize,
    offloads: bool,
    service: Service,
}

impl Place {
    fn run(&self, work: Work) -> io::Result<Answer> {
        if !self.offloads {
            return Ok(work.run());
        }
        match self.service.admit() {
            Ok(_admitted) => offload::run(work),
            Err(full) => Ok(full),
        }
    }
}

fn main() -> ExitCode {
    common::main_with_environment(&MAY, environment)
}

/// The pool reads its size from this variable only.
fn environment(knobs: &Knobs) -> Vec<(&'static str, String)> {
    vec![("BLOCKING_MAX_THREADS", knobs.blocking_threads.max(1).to_string())]
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    vec![("stack-size", STACK_SIZE.to_string()), ("pin-workers", "off".into())]
}

fn serve(server: Server) -> io::Result<()> {
    let offloads = server.knobs.blocking_threads > 0;
    let place: &'static Place = Box::leak(Box::new(Place { workers: server.knobs.threads, offloads, service: server.service }));
    // may takes the stack size in machine words.
    may::config().set_workers(server.knobs.threads).set_stack_size(STACK_SIZE / size_of::<usize>()).set_worker_pin(false);
    let acceptor = CoIo::new(server.acceptor).map_err(io::Error::from)?;
    let waker = acceptor.waker();
    let is_stopped = Arc::new(AtomicBool::new(false));
    let seen = is_stopped.clone();
    let _accept: JoinHandle<()> = go!(move || accept(acceptor, place, seen));
    server.service.ready();

    // The main thread runs no coroutines, so it may block.
    while poll(&mut [PollFd::new(server.stop.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).is_err() {}
    is_stopped.store(true, Ordering::SeqCst);
    waker.wakeup();
    loop {
        thread::park();
    }
}

/// Registers a socket. may panics if the system refuses that, and no coroutine would accept any more. (`CoIo` reports it, but closes a socket
/// before it leaves the poller, where the next socket of the same number then misses its events.)
fn register(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    // SAFETY: the descriptor is open, and the new stream becomes its only owner.
    let registered = catch_unwind(|| unsafe { TcpStream::from_raw_fd(stream.into_raw_fd()) });
    registered.map_err(|_| io::Error::other("may cannot register a socket"))
}

fn accept(acceptor: CoIo<Acceptor>, place: &'static Place, is_stopped: Arc<AtomicBool>) {
    let mut in_a_row = 0;
    while !is_stopped.load(Ordering::SeqCst) {
        match acceptor.inner().accept(register) {
            Ok(served) => {
                in_a_row += 1;
                // An error ends only this connection.
                let serve = move || drop(serve_connection(served, place));
                if place.workers == 1 && in_a_row >= acceptor.inner().in_a_row() {
                    // Serve these connections until they wait before accepting the next one, which an idle process may take.
                    // So a new coroutine accepts, because it starts only once these wait; a coroutine that yields would
                    // run again at once. With several workers the new coroutine might get stuck behind a blocked one.
                    go!(move || accept(acceptor, place, is_stopped));
                    return serve();
                }
                go!(serve);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                in_a_row = 0;
                acceptor.wait_io();
            }
            // Others may wait, of whom the poller does not tell again. Connections have their turn first: they may end, and make room.
            Err(_) => may::coroutine::sleep(PAUSE),
        }
    }
    // Remove the acceptor from the poller before closing it.
    drop(acceptor.into_inner());
}

fn serve_connection(mut served: Served<TcpStream>, place: &Place) -> io::Result<()> {
    let (stream, connection) = served.parts();
    loop {
        match connection.step() {
            Step::Read => read(stream, connection)?,
            Step::Write => {
                let count = stream.write(connection.unsent())?;
                connection.sent(count);
            }
            Step::Run(work) => connection.answer(&place.run(work)?),
            Step::CloseSend => stream.shutdown(Shutdown::Write)?,
            Step::Yield => pass(stream.as_raw_fd() as usize, place.workers),
            Step::Close => return Ok(()),
        }
    }
}

/// Lets everybody have a turn, also those whose event is still in the poller of a connection: a coroutine that only yields would run again before that is
/// asked.
fn pass(connection: usize, workers: usize) {
    // Other pollers may wait for a worker that is blocked. What does not fit is held, or its number would be given out again.
    let mut others = Vec::new();
    while others.len() < workers {
        match EventFd::from_value(1) {
            Ok(event) if event.as_raw_fd() as usize % workers != connection % workers => others.push(event),
            Ok(event) => {
                let Ok(event) = CoIo::new(event) else { break };
                event.wait_io();
                // It leaves the poller before it is closed.
                return drop(event.into_inner());
            }
            Err(_) => break,
        }
    }
    may::coroutine::yield_now();
}

/// Waits without holding a buffer, then reads.
fn read(stream: &mut TcpStream, connection: &mut Connection) -> io::Result<()> {
    loop {
        match stream.inner_mut().read(connection.space()) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                connection.rest();
                stream.wait_io();
            }
            result => {
                connection.received(result?);
                return Ok(());
            }
        }
    }
}
