//! What every server serves, whatever runtime it runs on.
//!
//! A runtime crate calls [`main`] with a description of itself and a function that serves. That function gets a [`Server`]: an
//! [`Acceptor`] that hands out connections, and a stop event. On each connection it does what [`Connection::step`] says, in the
//! runtime's own words. This crate knows no runtime.

mod acceptor;
pub mod args;
mod connection;
mod dealer;
mod dispatch;
mod fork;
mod gate;
pub mod http;
mod input;
pub mod receipt;
pub mod routes;
mod tell;
mod watch;
pub mod work;

pub use acceptor::Acceptor;
pub use args::{Dispatch, Knobs, WhenFull};
pub use connection::{Connection, Step};
pub use gate::Admitted;
pub use receipt::Receipt;

use acceptor::Source;
use args::Command;
use dispatch::Seat;
use fork::Role;
use gate::Gate;
use nix::sys::eventfd::EventFd;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Once, OnceLock};
use watch::Watch;

#[cfg(all(not(feature = "system-allocator"), not(test)))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tests count what they allocate.
#[cfg(test)]
mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    struct Counting;

    thread_local! {
        static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    }

    // SAFETY: every call goes to the system's allocator as it is.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
            // SAFETY: the caller keeps the contract of `alloc`.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // SAFETY: the caller keeps the contract of `dealloc`, and the pointer came from the same allocator.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    /// Allocations of this thread so far.
    pub fn allocations() -> usize {
        ALLOCATIONS.get()
    }
}

/// A runtime, as its crate describes it.
pub struct Runtime {
    /// Name, and first part of its servers' names.
    pub name: &'static str,
    /// The package whose locked version the receipt gives; none for the standard library.
    pub package: Option<&'static str>,
    /// Its models; the first is the default.
    pub models: &'static [Model],
    /// What else is set, by name, for the receipt.
    pub settings: fn(&Knobs) -> Vec<(&'static str, String)>,
}

/// How work meets threads and processes.
#[derive(Debug)]
pub struct Model {
    /// Name, and second part of the server's name.
    pub name: &'static str,
    /// In a few words, who runs what; said when a knob is refused.
    pub about: &'static str,
    /// Has `--threads`.
    pub has_threads: bool,
    /// Has `--processes`.
    pub can_fork: bool,
    /// Threads of the pool for blocking work, unless told otherwise.
    pub blocking_threads: Pool,
    /// Places in the queue before a pool, unless told otherwise; 0 without such a bound.
    pub queue: usize,
    /// Threads that may run a handler.
    pub handlers: Threads,
    /// Threads that may poll I/O.
    pub pollers: Threads,
    /// Sockets block, as threads want them.
    pub blocking_sockets: bool,
    /// Which loops accept connections.
    pub loops: Loops,
}

impl Model {
    /// A model without knobs in which one thread does everything, to start from.
    pub const ONE_THREAD: Model = Model {
        name: "current-thread",
        about: "one thread runs everything",
        has_threads: false,
        can_fork: true,
        blocking_threads: Pool::None,
        queue: 0,
        handlers: Threads::One,
        pollers: Threads::One,
        blocking_sockets: false,
        loops: Loops::One,
    };

    /// W threads, each with an event loop and a listener of its own.
    pub const PER_CORE: Model = Model {
        name: "per-core",
        about: "W threads, each with an event loop and a listener of its own",
        has_threads: true,
        can_fork: false,
        handlers: Threads::Knob,
        pollers: Threads::Knob,
        loops: Loops::OwnListeners,
        ..Model::ONE_THREAD
    };

    /// The same, but all accept on one listener.
    pub const PER_CORE_SHARED: Model = Model {
        name: "per-core-shared",
        about: "W threads, each with an event loop of its own, on one listener",
        loops: Loops::SharedListener,
        ..Model::PER_CORE
    };

    /// There may be no thread for a request.
    fn can_be_full(&self) -> bool {
        self.blocking_threads != Pool::None || self.queue > 0
    }
}

/// Event loops of one process that accept connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loops {
    /// One, whatever threads then serve them.
    One,
    /// Each of the `--threads` runs one, on a listener of its own (`SO_REUSEPORT`), which makes a model per core.
    OwnListeners,
    /// The same, but all accept on one listener.
    SharedListener,
}

/// A pool for blocking work beside the threads that serve connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// There is none.
    None,
    /// So many threads at most.
    Of(usize),
    /// A thread for each core.
    PerCore,
}

/// A number of threads.
#[derive(Debug, Clone, Copy)]
pub enum Threads {
    /// One.
    One,
    /// As many as `--threads` says.
    Knob,
    /// As many as `--threads` says, and so many helpers.
    KnobAnd(usize),
    /// As many as `--threads` says, and a helper for each.
    KnobTwice,
    /// One for each connection.
    PerConnection,
}

/// Becomes readable when the accept loops must end.
pub type Stop = Arc<EventFd>;

/// What a runtime serves.
pub struct Server {
    /// Every knob as resolved.
    pub knobs: Knobs,
    /// Hands out connections.
    pub acceptor: Acceptor,
    /// Of a model per core, those of the other threads.
    pub siblings: Vec<Acceptor>,
    /// Becomes readable when the accept loop must end. What runs then goes on until the process is ended from elsewhere.
    pub stop: Stop,
    /// Whom to tell that the accept loop runs.
    pub service: Service,
}

/// What is common to all connections of this process.
#[derive(Clone, Copy)]
pub struct Service(&'static Inner);

struct Inner {
    watch: Watch,
    gate: Gate,
    ready: Once,
    knobs: Knobs,
    address: SocketAddr,
}

impl Service {
    fn new(knobs: Knobs, address: SocketAddr) -> io::Result<Self> {
        let gate = Gate::new(knobs.blocking_threads + knobs.queue, knobs.when_full);
        Ok(Service(Box::leak(Box::new(Inner { watch: Watch::new(knobs.limits)?, gate, ready: Once::new(), knobs, address }))))
    }

    /// Says that requests are answered from now on: to the person on stdout, to a service manager, or to the parent. Of several
    /// threads that say so, the first is heard.
    pub fn ready(self) {
        self.0.ready.call_once(|| match Seat::here() {
            Some(seat) => seat.ready(self.capacity()),
            None => announce(self.0.address),
        });
    }

    /// What the routes need to know.
    #[must_use]
    pub fn context(self) -> routes::Context {
        routes::Context { max_block: self.0.knobs.limits.max_block, is_draining: self.is_draining() }
    }

    /// Handles a request and, if it blocks, blocks: for peers, whose HTTP is their own.
    #[must_use]
    pub fn answer(self, method: &str, target: &str, body: Vec<u8>) -> http::Answer {
        match routes::handle(self.context(), method, target, body) {
            routes::Outcome::Instant(answer) => answer,
            routes::Outcome::Blocking(work) => work.run(),
        }
    }

    /// The value of `X-Worker` in this process.
    pub fn worker(self) -> &'static str {
        static WORKER: OnceLock<String> = OnceLock::new();
        WORKER.get_or_init(|| std::process::id().to_string())
    }

    /// Asks for the right to send blocking work to a pool; keep it until the work is done.
    ///
    /// # Errors
    /// The answer to give instead, if the pool is full and `--when-full` says to refuse.
    pub fn admit(self) -> Result<Admitted, http::Answer> {
        self.0.gate.admit()
    }

    /// Where this process serves.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.0.address
    }

    /// The state of a connection on this socket.
    #[doc(hidden)]
    #[must_use]
    pub fn connection(self, socket: &impl std::os::fd::AsFd) -> Connection {
        Connection::new(self, socket)
    }

    fn watch(self) -> &'static Watch {
        &self.0.watch
    }

    fn is_draining(self) -> bool {
        self.watch().is_draining()
    }

    /// Handlers that may run before a fresh connection might have to wait.
    fn capacity(self) -> u32 {
        let knobs = &self.0.knobs;
        let handlers = match (knobs.model.handlers, knobs.model.pollers) {
            (Threads::PerConnection, _) => return u32::MAX,
            // Where the threads that run handlers also poll, a single one that blocks may be the one that would have polled.
            (Threads::Knob, Threads::Knob) | (Threads::One, _) => 1,
            (Threads::Knob | Threads::KnobAnd(_) | Threads::KnobTwice, _) => knobs.threads,
        };
        u32::try_from(handlers + knobs.blocking_threads).unwrap_or(u32::MAX)
    }

    /// A service that listens nowhere, for benches and tests of a connection.
    ///
    /// # Panics
    /// Without descriptors for its events.
    #[doc(hidden)]
    #[must_use]
    pub fn for_tests() -> Self {
        use std::time::Duration;
        let second = Duration::from_secs(1);
        let limits = args::Limits { max_block: second, drain: second, drain_idle: second, header_timeout: second };
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let model = &Model::ONE_THREAD;
        let knobs = Knobs {
            model,
            listen,
            threads: 1,
            processes: 1,
            dispatch: None,
            blocking_threads: 0,
            queue: 0,
            when_full: WhenFull::Wait,
            limits,
        };
        Self::new(knobs, listen).expect("event descriptors")
    }
}

/// Runs a server: arguments, listeners, fork, signals, then `serve` in this process or in each worker.
///
/// `serve` starts its runtime, calls [`Service::ready`] when its accept loop runs, ends that loop when [`Server::stop`] becomes
/// readable, and keeps its runtime running; once all connections are closed, the process is ended.
pub fn main(runtime: &'static Runtime, serve: fn(Server) -> io::Result<()>) -> ExitCode {
    let result = match args::parse(runtime) {
        Err(message) => Err((message, 2)),
        Ok(Command::PrintReceipt(knobs)) => print_receipt(&Receipt::new(runtime, &knobs)).map_err(|error| (error.to_string(), 1)),
        Ok(Command::Serve(knobs)) => run(knobs, serve).map_err(|message| (message, 1)),
    };
    result.unwrap_or_else(|(message, code)| {
        eprintln!("runtime-{}: {message}", runtime.name);
        ExitCode::from(code)
    })
}

/// Ends the process if an event loop besides the first one fails: what it had accepted would wait for ever.
pub fn or_exit(result: io::Result<()>) {
    if let Err(error) = result {
        eprintln!("an event loop has failed: {error}");
        std::process::exit(1);
    }
}

/// What to say where the kernel or a limit refuses io_uring.
#[must_use]
pub fn no_io_uring(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("io_uring: {error}; see io_uring_setup(2) and `ulimit -l`"))
}

fn print_receipt(receipt: &Receipt) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, receipt)?;
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}

fn run(knobs: Knobs, serve: fn(Server) -> io::Result<()>) -> Result<ExitCode, String> {
    raise_descriptor_limit();
    let mut listeners = acceptor::listeners(&knobs)?;
    let address = listeners[0].local_addr().map_err(|error| error.to_string())?;
    let (sources, signals) = if knobs.processes == 1 {
        (listeners.drain(..).map(Source::Listener).collect(), SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]))
    } else {
        // Ctrl-C reaches the whole group, but it is the parent who asks its workers to end; they take that for the first signal.
        match fork::run(&knobs, listeners, || announce(address)).map_err(|error| format!("fork: {}", error.desc()))? {
            Role::Parent(code) => return Ok(ExitCode::from(code)),
            Role::Worker(source) => (vec![source], SigSet::from(Signal::SIGTERM)),
        }
    };
    let served = serve_here(knobs, address, sources, &signals, serve);
    served.map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string())
}

fn serve_here(
    knobs: Knobs,
    address: SocketAddr,
    sources: Vec<Source>,
    signals: &SigSet,
    serve: fn(Server) -> io::Result<()>,
) -> io::Result<()> {
    // Before any thread starts, so that all inherit it and only the side thread takes signals.
    signals.thread_block()?;
    let service = Service::new(knobs, address)?;
    service.watch().start(signals, tell::Teller::new(&knobs))?;
    let mut acceptors = sources.into_iter().map(|source| Acceptor::new(source, service, knobs.model.blocking_sockets));
    let acceptor = acceptors.next().ok_or(io::ErrorKind::NotFound)?;
    serve(Server { knobs, acceptor, siblings: acceptors.collect(), stop: service.watch().stop(), service })
}

/// One line on stdout, and `READY=1` where somebody waits for it.
fn announce(address: SocketAddr) {
    // Whoever closed our stdout does not wait for this line, and the service is up either way.
    let _ = writeln!(io::stdout(), "ready http://{address}");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// As many connections as the system allows without asking anybody.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        eprintln!("the limit of open files stays at {soft}: {}", error.desc());
    }
}
