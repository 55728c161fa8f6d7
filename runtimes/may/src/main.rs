//! The common server on may, whose tasks are green threads: code that looks blocking, on small stacks of its own.
//!
//! A connection is a coroutine. W workers run them, each with its own queue and its own poller, and steal from each other; a
//! connection belongs to the poller `descriptor % W` for good. The blocking call is made inline and blocks the worker, since may
//! cannot see that it blocks: that worker's poller stops, and whoever is tied to it waits even while other workers idle.
//!
//! `offloaded` sends the call to threads of the system instead (`--blocking-threads`, started before the first coroutine; their queue has
//! no end, so `--when-full refuse` answers 503) and parks the coroutine. `rand-work-steal` is `green-threads` with may's build
//! option of that name: a worker without work steals from a random one instead of from its neighbour.
//!
//! The knobs are `--threads` (W) and the size of the stacks, which is raised from may's 32 KiB because real handlers need it.
//! Pinning of workers to cores is off: every forked process would sit on the first core. In the numbers, look at
//! the share of dead connections: it follows the share of blocked workers.

mod offload;

use common::http::Answer;
use common::work::Work;
use common::{Acceptor, Connection, Knobs, Model, Pool, Runtime, Server, Service, Step, Threads};
use may::coroutine::JoinHandle;
use may::go;
use may::io::{CoIo, WaitIo};
use may::net::TcpStream;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use offload::Offload;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Stack of each coroutine, in bytes.
const STACK_SIZE: usize = 256 * 1024;
/// Threads for blocking work.
const BLOCKING_THREADS: usize = 64;

static MAY: Runtime = Runtime { name: "may", package: Some("may"), models: MODELS, settings };

/// W workers that run coroutines.
const WORKERS: Model = Model {
    name: "green-threads",
    about: "W workers run coroutines",
    has_threads: true,
    handlers: Threads::Knob,
    pollers: Threads::Knob,
    ..Model::ONE_THREAD
};

const MODELS: &[Model] = &[
    WORKERS,
    Model { name: "forked", about: "processes of one worker each", ..Model::ONE_THREAD },
    Model {
        name: "offloaded",
        about: "W workers run coroutines, and threads what blocks",
        blocking_threads: Pool::Of(BLOCKING_THREADS),
        ..WORKERS
    },
    #[cfg(feature = "rand-work-steal")]
    Model { name: "rand-work-steal", about: "W workers run coroutines and steal them at random", ..WORKERS },
];

/// Where the blocking call is made.
struct Place {
    has_one_worker: bool,
    offload: Option<Offload>,
    service: Service,
}

impl Place {
    fn run(&self, work: Work) -> io::Result<Answer> {
        let Some(offload) = &self.offload else { return Ok(work.run()) };
        match self.service.admit() {
            Ok(_admitted) => offload.run(work),
            Err(full) => Ok(full),
        }
    }
}

fn main() -> ExitCode {
    common::main(&MAY, serve)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    vec![("stack-size", STACK_SIZE.to_string()), ("pin-workers", "off".into())]
}

fn serve(server: Server) -> io::Result<()> {
    // Threads first: what a coroutine waits for is there before there are coroutines.
    let threads = server.knobs.blocking_threads;
    let offload = if threads > 0 { Some(Offload::start(threads)?) } else { None };
    let place: &'static Place =
        Box::leak(Box::new(Place { has_one_worker: server.knobs.threads == 1, offload, service: server.service }));
    // may counts stacks in machine words.
    may::config().set_workers(server.knobs.threads).set_stack_size(STACK_SIZE / size_of::<usize>()).set_worker_pin(false);
    let acceptor = CoIo::new(server.acceptor).map_err(io::Error::from)?;
    let waker = acceptor.waker();
    let is_stopped = Arc::new(AtomicBool::new(false));
    let seen = is_stopped.clone();
    let _accept: JoinHandle<()> = go!(move || accept(acceptor, place, seen));
    server.service.ready();

    // The main thread runs no coroutines, so it may wait as threads do.
    while poll(&mut [PollFd::new(server.stop.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).is_err() {}
    is_stopped.store(true, Ordering::SeqCst);
    waker.wakeup();
    loop {
        thread::park();
    }
}

fn accept(acceptor: CoIo<Acceptor>, place: &'static Place, is_stopped: Arc<AtomicBool>) {
    while !is_stopped.load(Ordering::SeqCst) {
        match acceptor.inner().accept() {
            Ok((stream, connection)) => {
                // SAFETY: the descriptor is open and handed over to the one that takes it here.
                let stream = unsafe { TcpStream::from_raw_fd(stream.into_raw_fd()) };
                // An error ends this connection only.
                let serve = move || drop(serve_connection(stream, connection, place));
                if place.has_one_worker {
                    // Served until it would block before the next is accepted, which another process may be free to take: a coroutine that is
                    // started waits for that, one that yields would have its turn at once. Of several workers the next might be blocked.
                    go!(move || accept(acceptor, place, is_stopped));
                    return serve();
                }
                go!(serve);
            }
            Err(_) => {
                acceptor.wait_io();
            }
        }
    }
    // Taken out of the poller before it is closed.
    drop(acceptor.into_inner());
}

fn serve_connection(mut stream: TcpStream, mut connection: Connection, place: &Place) -> io::Result<()> {
    loop {
        match connection.step() {
            Step::Read => read(&mut stream, &mut connection)?,
            Step::Write => {
                let count = stream.write(connection.unsent())?;
                connection.sent(count);
            }
            Step::Run(work) => connection.answer(&place.run(work)?),
            Step::CloseSend => stream.shutdown(Shutdown::Write)?,
            Step::Close => return Ok(()),
        }
    }
}

/// Waits without a buffer, then reads.
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
