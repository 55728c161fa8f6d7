//! The code that all servers share, independent of their runtime.
//!
//! A runtime crate calls [`main`] with a description of itself. Each of its models has a function that serves. It gets a [`Server`]: an
//! [`Acceptor`] that hands out connections, and a stop event. For each connection it loops over [`Connection::step`] and
//! performs each step with the runtime's own I/O. This crate depends on no runtime.
//!
//! Throughout the project, W is the number of threads or processes that a server is given.

mod acceptor;
pub mod args;
mod blocking;
mod connection;
mod dealer;
mod dispatch;
mod fork;
mod gate;
mod hits;
mod holding;
pub mod http;
mod in_child;
mod input;
pub mod receipt;
mod rendezvous;
pub mod routes;
pub mod say;
mod served;
mod service;
mod share;
pub mod state;
mod tell;
mod turning_away;
mod watch;
pub mod work;

pub use acceptor::{Acceptor, Unseen};
pub use args::{Dispatch, Knobs, WhenFull};
pub use blocking::serve_blocking;
pub use connection::{Connection, Step};
pub use gate::Admitted;
pub use receipt::Receipt;
pub use served::{Registered, Served};
pub use service::Service;
pub use share::MAX_BODIES;
pub use turning_away::{Room, is_full as is_out_of_descriptors};

use acceptor::Source;
use args::Command;
use fork::Role;
use nix::sys::eventfd::EventFd;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

#[cfg(all(not(feature = "system-allocator"), not(test)))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An allocator that lets tests count allocations and bytes.
#[cfg(test)]
mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    struct Counting;

    thread_local! {
        static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
        static HELD: Cell<isize> = const { Cell::new(0) };
        static MOST_HELD: Cell<isize> = const { Cell::new(0) };
    }

    fn hold(bytes: isize) {
        HELD.set(HELD.get() + bytes);
        MOST_HELD.set(MOST_HELD.get().max(HELD.get()));
    }

    // SAFETY: every call is passed unchanged to the system's allocator.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
            hold(layout.size().cast_signed());
            // SAFETY: the caller upholds the contract of `alloc`.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            hold(-layout.size().cast_signed());
            // SAFETY: the caller upholds the contract of `dealloc`, and the pointer came from the same allocator.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    /// The number of allocations that this thread has made.
    pub fn allocations() -> usize {
        ALLOCATIONS.get()
    }

    /// The most bytes that this thread holds at a time during a call, beyond those that it held before.
    pub fn most_held(call: impl FnOnce()) -> usize {
        let before = HELD.get();
        MOST_HELD.set(before);
        call();
        (MOST_HELD.get() - before).cast_unsigned()
    }
}

/// The description of a runtime, provided by its crate.
pub struct Runtime {
    /// The runtime's name, which is also the first part of its servers' names.
    pub name: &'static str,
    /// The package whose locked version the receipt gives; `None` for the standard library.
    pub package: Option<&'static str>,
    /// The runtime's models; the first is the default.
    pub models: &'static [Model],
    /// Further settings for the receipt, as pairs of name and value.
    pub settings: fn(&Knobs) -> Vec<(&'static str, String)>,
}

/// Serves in one process until the side thread ends it. It starts its runtime and calls [`Service::ready`] when its accept loop runs. It ends
/// that loop when [`Server::stop`] becomes readable and keeps the runtime running; the side thread ends the process once all connections are
/// closed. If it returns while the server drains, the process still waits for that.
pub type Serve = fn(Server) -> io::Result<()>;

/// A concurrency model: the threads and processes that run a server's work.
#[derive(Debug)]
pub struct Model {
    /// The function that serves in this model.
    pub serve: Serve,
    /// The model's name, which is also the second part of the server's name.
    pub name: &'static str,
    /// A few words on which thread runs which work; part of the message that refuses a knob.
    pub about: &'static str,
    /// The model takes `--threads`.
    pub has_threads: bool,
    /// The use of `--processes`.
    pub forks: Forks,
    /// The default size of the pool for blocking work.
    pub blocking_threads: Pool,
    /// Each event loop has a pool of that size of its own.
    pub pool_per_loop: bool,
    /// The default length of the queue in front of a pool; 0 if the model does not bound it.
    pub queue: usize,
    /// The threads that may run a handler.
    pub handlers: Threads,
    /// The threads that may poll I/O.
    pub pollers: Threads,
    /// Accepted sockets are in blocking mode.
    pub blocking_sockets: bool,
    /// The event loops that accept connections.
    pub loops: Loops,
}

impl Model {
    /// One thread that does everything, without knobs; other models start from it.
    #[must_use]
    pub const fn one_thread(serve: Serve) -> Model {
        Model {
            serve,
            name: "current-thread",
            about: "one thread runs everything",
            has_threads: false,
            forks: Forks::IfAsked,
            blocking_threads: Pool::None,
            pool_per_loop: false,
            queue: 0,
            handlers: Threads::One,
            pollers: Threads::One,
            blocking_sockets: false,
            loops: Loops::One,
        }
    }

    /// A process per core, each with one thread that does everything.
    #[must_use]
    pub const fn forked(serve: Serve) -> Model {
        Model { name: "forked", about: "single-threaded processes", forks: Forks::PerCore, ..Model::one_thread(serve) }
    }

    /// W threads, each with its own event loop and listener.
    #[must_use]
    pub const fn per_core(serve: Serve) -> Model {
        Model {
            name: "per-core",
            about: "W threads, each with its own event loop and listener",
            has_threads: true,
            forks: Forks::Never,
            handlers: Threads::Knob,
            pollers: Threads::Knob,
            loops: Loops::OwnListeners,
            ..Model::one_thread(serve)
        }
    }

    /// Like [`Model::per_core`], but all loops accept on one listener.
    #[must_use]
    pub const fn per_core_shared(serve: Serve) -> Model {
        Model {
            name: "per-core-shared",
            about: "W threads, each with its own event loop, share one listener",
            loops: Loops::SharedListener,
            ..Model::per_core(serve)
        }
    }

    /// A request may find all threads for it busy.
    fn can_be_full(&self) -> bool {
        self.blocking_threads != Pool::None || self.queue > 0
    }
}

/// The number of processes that a model runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forks {
    /// One.
    Never,
    /// One, or as many as `--processes` says.
    IfAsked,
    /// One per core, or as many as `--processes` says.
    PerCore,
}

/// The event loops of one process that accept connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loops {
    /// One loop, whichever threads then serve the connections.
    One,
    /// One loop on each of the `--threads`, with its own listener (`SO_REUSEPORT`): a per-core model.
    OwnListeners,
    /// One loop on each of the `--threads`, all on one listener.
    SharedListener,
}

/// The pool for blocking work, in addition to the threads that serve connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// No pool.
    None,
    /// At most this many threads.
    Of(usize),
    /// One thread per core.
    PerCore,
}

/// A number of threads.
#[derive(Debug, Clone, Copy)]
pub enum Threads {
    /// One thread.
    One,
    /// `--threads` threads.
    Knob,
    /// `--threads` threads and this many helpers.
    KnobAnd(usize),
    /// One thread per connection.
    PerConnection,
}

/// An event that becomes readable when the accept loops must end.
pub type Stop = Arc<EventFd>;

/// Everything that a runtime needs to serve.
pub struct Server {
    /// The resolved value of every knob.
    pub knobs: Knobs,
    /// The source of connections.
    pub acceptor: Acceptor,
    /// The acceptors of the other threads in a per-core model; otherwise empty.
    pub siblings: Vec<Acceptor>,
    /// Becomes readable when the accept loop must end. Open connections are served until the side thread ends the process.
    pub stop: Stop,
    /// State shared by all connections; [`Service::ready`] reports that the accept loop runs.
    pub service: Service,
}

/// Runs a server: parses the command line, opens listeners, forks, blocks signals, and calls [`Model::serve`] in each serving process.
pub fn main(runtime: &'static Runtime) -> ExitCode {
    main_with_environment(runtime, |_| Vec::new())
}

/// Like [`main`], for a runtime that reads settings from environment variables only; `environment` tells which.
pub fn main_with_environment(runtime: &'static Runtime, environment: fn(&Knobs) -> Vec<(&'static str, String)>) -> ExitCode {
    // The usual hook writes where a reader may be gone or asleep.
    std::panic::set_hook(Box::new(|panic| say!("{panic}")));
    let result = match args::parse(runtime) {
        Err(message) => Err((message, 2)),
        Ok(Command::PrintReceipt(knobs)) => print_receipt(&Receipt::new(runtime, &knobs)).map_err(|error| (error.to_string(), 1)),
        Ok(Command::Serve(knobs)) => {
            for (name, value) in environment(&knobs) {
                // SAFETY: this process has a single thread until `serve_here` starts the side thread.
                unsafe { std::env::set_var(name, value) };
            }
            run(knobs).map_err(|message| (message, 1))
        }
    };
    result.unwrap_or_else(|(message, code)| {
        say!("runtime-{}: {message}", runtime.name);
        ExitCode::from(code)
    })
}

/// Ends the process if an additional event loop fails, because the connections it accepted would otherwise hang.
pub fn or_exit(result: io::Result<()>) {
    if let Err(error) = result {
        say!("an event loop failed: {error}; the server stops");
        std::process::exit(1);
    }
}

/// The error for a kernel or a limit that refuses io_uring.
#[must_use]
pub fn no_io_uring(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot set up io_uring: {error}; see io_uring_setup(2) and `ulimit -l`"))
}

fn print_receipt(receipt: &Receipt) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, receipt)?;
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}

fn run(knobs: Knobs) -> Result<ExitCode, String> {
    raise_descriptor_limit();
    without_huge_pages();
    turning_away::prepare();
    hits::prepare(knobs.processes).map_err(|error| format!("cannot share memory between processes: {}", error.desc()))?;
    if knobs.processes == 1 {
        state::open(knobs.state)?;
    } else {
        // A database survives no fork, and one that cannot be used is said once, not by each worker.
        in_child::check(|| state::open(knobs.state))?;
    }
    let mut listeners = acceptor::listeners(&knobs)?;
    let address = listeners[0].local_addr().map_err(|error| error.to_string())?;
    let (sources, signals) = if knobs.processes == 1 {
        (listeners.drain(..).map(Source::Listener).collect(), SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]))
    } else {
        // Ctrl-C reaches the whole process group. Workers keep SIGINT blocked and react only to the parent's SIGTERM.
        match fork::run(&knobs, listeners, || announce(address))
            .map_err(|error| format!("cannot run workers: {}", error.desc()))?
        {
            Role::Parent(code) => return Ok(ExitCode::from(code)),
            Role::Worker(source) => {
                state::open(knobs.state)?;
                (vec![source], SigSet::from(Signal::SIGTERM))
            }
        }
    };
    let served = serve_here(knobs, address, sources, &signals);
    served.map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string())
}

/// Refuses huge pages. The allocator would take one for each thread: 2 MiB for a connection's few KiB, and when hundreds of threads end at once,
/// giving them back stalls every other thread of the process for up to a second.
fn without_huge_pages() {
    // A kernel without huge pages need not be told.
    let _ = nix::sys::prctl::set_thp_disable(true);
}

fn serve_here(knobs: Knobs, address: SocketAddr, sources: Vec<Source>, signals: &SigSet) -> io::Result<()> {
    // Block the signals before any thread starts: all threads inherit the mask, so only the side thread takes signals.
    signals.thread_block()?;
    let service = Service::new(knobs, address, sources.len())?;
    // Before the side thread, which ends a process without acceptors as soon as it drains.
    let acceptors: Vec<_> = sources.into_iter().map(|source| Acceptor::new(source, service, &knobs)).collect();
    service.watch().start(signals, tell::StatusReporter::new(&knobs), tell::Heartbeat::wanted(&knobs))?;
    let mut acceptors = acceptors.into_iter();
    let acceptor = acceptors.next().ok_or(io::ErrorKind::NotFound)?;
    (knobs.model.serve)(Server { knobs, acceptor, siblings: acceptors.collect(), stop: service.watch().stop(), service })?;
    while service.is_draining() {
        // A library that has ended may have left connections to other threads; the side thread ends the process behind the last one.
        std::thread::park();
    }
    Ok(())
}

/// Writes the ready line to stdout and sends `READY=1` to a service manager, if there is one.
fn announce(address: SocketAddr) {
    // If stdout is closed or full, no process waits for this line, and the service is up either way.
    say::write_line(io::stdout().as_fd(), format_args!("ready http://{address}"));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// Raises the limit of open files to its hard maximum.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        say!("cannot raise the limit of open files from {soft} to {hard}: {}", error.desc());
    }
}
