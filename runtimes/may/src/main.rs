//! The common server on may, whose tasks are green threads: code that looks blocking, on small stacks of its own.
//!
//! A connection is a coroutine. W workers run them, each with its own queue and its own poller, and steal from each other; a
//! connection belongs to the poller `descriptor % W` for good. The blocking call is made inline and blocks the worker, since may
//! cannot see that it blocks: that worker's poller stops, and whoever is tied to it waits even while other workers idle.
//!
//! The knobs are `--threads` (W) and the size of the stacks, which is raised from may's 32 KiB because real handlers need it.
//! Pinning of workers to cores is off: every forked process would sit on the first core. In the numbers, look at
//! the share of dead connections: it follows the share of blocked workers.

use common::{Acceptor, Connection, Knobs, Model, Runtime, Server, Step, Threads};
use may::coroutine::{JoinHandle, yield_now};
use may::go;
use may::io::{CoIo, WaitIo};
use may::net::TcpStream;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Stack of each coroutine, in bytes.
const STACK_SIZE: usize = 256 * 1024;

static MAY: Runtime = Runtime { name: "may", package: Some("may"), models: &MODELS, settings };

const MODELS: [Model; 2] = [
    Model {
        name: "green-threads",
        about: "W workers run coroutines",
        has_threads: true,
        handlers: Threads::Knob,
        pollers: Threads::Knob,
        ..Model::ONE_THREAD
    },
    Model { name: "forked", about: "processes of one worker each", ..Model::ONE_THREAD },
];

fn main() -> ExitCode {
    common::main(&MAY, serve)
}

fn settings(_: &Knobs) -> Vec<(&'static str, String)> {
    vec![("stack-size", STACK_SIZE.to_string()), ("pin-workers", "off".into())]
}

fn serve(server: Server) -> io::Result<()> {
    // may counts stacks in machine words.
    may::config().set_workers(server.knobs.threads).set_stack_size(STACK_SIZE / size_of::<usize>()).set_worker_pin(false);
    let acceptor = CoIo::new(server.acceptor).map_err(io::Error::from)?;
    let waker = acceptor.waker();
    let is_stopped = Arc::new(AtomicBool::new(false));
    let seen = is_stopped.clone();
    let _accept: JoinHandle<()> = go!(move || accept(acceptor, &seen));
    server.service.ready();

    // The main thread runs no coroutines, so it may wait as threads do.
    while poll(&mut [PollFd::new(server.stop.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).is_err() {}
    is_stopped.store(true, Ordering::SeqCst);
    waker.wakeup();
    loop {
        thread::park();
    }
}

fn accept(acceptor: CoIo<Acceptor>, is_stopped: &AtomicBool) {
    while !is_stopped.load(Ordering::SeqCst) {
        match acceptor.inner().accept() {
            Ok((stream, connection)) => {
                // SAFETY: the descriptor is open and handed over to the one that takes it here.
                let stream = unsafe { TcpStream::from_raw_fd(stream.into_raw_fd()) };
                go!(move || serve_connection(stream, connection));
                // Serve it until it would block before the next is accepted, which another process may be free to take.
                yield_now();
            }
            Err(_) => {
                acceptor.wait_io();
            }
        }
    }
    // Taken out of the poller before it is closed.
    drop(acceptor.into_inner());
}

fn serve_connection(mut stream: TcpStream, mut connection: Connection) -> io::Result<()> {
    loop {
        match connection.step() {
            Step::Read => read(&mut stream, &mut connection)?,
            Step::Write => {
                let count = stream.write(connection.unsent())?;
                connection.sent(count);
            }
            Step::Run(work) => connection.answer(&work.run()),
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
