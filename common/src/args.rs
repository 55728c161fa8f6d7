//! The command line of a server, parsed once and checked against the knobs of its model.

use crate::state::Setting;
use crate::{Forks, Loops, Model, Pool, Runtime, Threads};
use clap::builder::PossibleValuesParser;
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use std::net::SocketAddr;
use std::time::Duration;

/// The common server: short and blocking routes over HTTP/1.1
#[derive(Debug, Parser)]
#[command(disable_version_flag = true, args_override_self = true)]
struct Args {
    /// Concurrency model
    #[arg(long)]
    model: Option<String>,
    /// Address to listen on; port 0 picks a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Threads that run handlers [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Worker processes [default: 1; one per core with model `forked`]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    processes: Option<u16>,
    /// Distribution of connections to the worker processes [default: shared]
    #[arg(long, value_enum)]
    dispatch: Option<Dispatch>,
    /// Maximum number of threads in the pool for blocking work
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    blocking_threads: Option<u16>,
    /// Length of the queue in front of the pool
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    queue: Option<u16>,
    /// When pool and queue are full: wait, or answer 503 [default: wait]
    #[arg(long, value_enum)]
    when_full: Option<WhenFull>,
    /// Longest time that `/timer` and `/sleep` accept
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    max_block: Duration,
    /// Time limit for the server to end after SIGTERM or SIGINT
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    drain: Duration,
    /// Time that an idle connection stays open while the server drains
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    drain_idle: Duration,
    /// Time limit for receiving the head of a request
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = limit)]
    header_timeout: Duration,
    /// Time limit for receiving the body of a request
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = limit)]
    request_timeout: Duration,
    /// Time for which nothing may move on a connection: neither a request nor an answer
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = limit)]
    idle_timeout: Duration,
    /// Where the launches are kept: memory, each process for itself; sqlite:PATH[?synchronous=full]; or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "STATE", default_value = "memory")]
    state: String,
    /// Print the receipt: the server's versions, its build, and the resolved value of every knob
    #[arg(long)]
    version: bool,
}

/// The longest time that any option takes; clocks hold it, and what is added to them, without overflow.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest time limit: limits are checked a few times within the shortest of them.
const SHORTEST: Duration = Duration::from_millis(10);

fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time > LONGEST => Err("it has to be a day at most".into()),
        other => other.map_err(|error| error.to_string()),
    }
}

fn limit(text: &str) -> Result<Duration, String> {
    match time(text)? {
        time if time < SHORTEST => Err("it has to be 10ms at least".into()),
        time => Ok(time),
    }
}

/// The distribution of connections to the worker processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dispatch {
    /// All workers accept on one socket
    Shared,
    /// Each worker has its own socket, and the kernel distributes connections by hash
    Reuseport,
    /// The parent accepts and hands connections to idle workers in turn
    RoundRobin,
}

impl Dispatch {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Dispatch::Shared => "shared",
            Dispatch::Reuseport => "reuseport",
            Dispatch::RoundRobin => "round-robin",
        }
    }
}

/// The treatment of a request that finds the pool and its queue full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WhenFull {
    /// Wait: in the pool's queue if it is unbounded, otherwise in front of it
    Wait,
    /// Answer 503 with Retry-After
    Refuse,
}

impl WhenFull {
    pub(crate) fn name(self) -> &'static str {
        match self {
            WhenFull::Wait => "wait",
            WhenFull::Refuse => "refuse",
        }
    }
}

/// Time limits, the same for every model.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest time that `/timer` and `/sleep` accept.
    pub max_block: Duration,
    /// The time limit for the server to end.
    pub drain: Duration,
    /// The time that an idle connection stays open while the server drains.
    pub drain_idle: Duration,
    /// The time limit for a complete head.
    pub header_timeout: Duration,
    /// The time limit for a complete body.
    pub request_timeout: Duration,
    /// The time for which nothing may move on a connection that has no request at work.
    pub idle_timeout: Duration,
}

impl Limits {
    /// The time limit for the server to end, for a library that takes whole seconds: rounded up, since the side thread ends the process in time.
    #[must_use]
    pub fn drain_seconds(&self) -> u64 {
        self.drain.as_secs() + u64::from(self.drain.subsec_nanos() > 0)
    }
}

/// The resolved value of every knob.
#[derive(Debug, Clone, Copy)]
pub struct Knobs {
    /// The model to run.
    pub model: &'static Model,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The threads that run handlers, if the model has that knob; otherwise 1.
    pub threads: usize,
    /// The number of worker processes.
    pub processes: usize,
    /// The distribution of connections to them; `None` with a single process.
    pub dispatch: Option<Dispatch>,
    /// The maximum number of threads in a pool for blocking work; 0 if the model has no pool.
    pub blocking_threads: usize,
    /// The length of the queue in front of a pool; 0 if the model does not bound it.
    pub queue: usize,
    /// The treatment of a request that finds the pool and its queue full.
    pub when_full: WhenFull,
    /// Where the launches are kept.
    pub state: &'static Setting,
    /// The time limits.
    pub limits: Limits,
}

impl Knobs {
    /// The number of event loops in one process that accept connections.
    pub(crate) fn loops(&self) -> usize {
        if self.model.loops == Loops::One { 1 } else { self.threads }
    }

    /// The number of threads in all pools of one process for blocking work.
    pub(crate) fn pool_threads(&self) -> usize {
        self.blocking_threads * if self.model.pool_per_loop { self.loops() } else { 1 }
    }

    /// The number of running handlers at which a connection might have to wait.
    pub(crate) fn capacity(&self) -> u32 {
        let handlers = match (self.model.handlers, self.model.pollers) {
            (Threads::PerConnection, _) => return u32::MAX,
            // If the handler threads also poll, a single blocked one may be the one that should have polled.
            (Threads::Knob, Threads::Knob) | (Threads::One, _) => 1,
            (Threads::Knob | Threads::KnobAnd(_), _) => self.threads,
        };
        u32::try_from(handlers + self.pool_threads()).unwrap_or(u32::MAX)
    }
}

/// The command that the command line asks for.
pub(crate) enum Command {
    Serve(Knobs),
    PrintReceipt(Knobs),
}

/// Parses the command line of this process.
///
/// # Errors
/// Returns a one-line message that names the wrong argument.
pub(crate) fn parse(runtime: &'static Runtime) -> Result<Command, String> {
    let names = PossibleValuesParser::new(runtime.models.iter().map(|model| model.name));
    let command =
        Args::command().name(runtime.name).mut_arg("model", |arg| arg.value_parser(names).default_value(runtime.models[0].name));
    let matches = command.try_get_matches().map_err(|error| or_exit(&error))?;
    let args = Args::from_arg_matches(&matches).map_err(|error| or_exit(&error))?;
    let is_receipt = args.version;
    let knobs = resolve(runtime, args)?;
    Ok(if is_receipt { Command::PrintReceipt(knobs) } else { Command::Serve(knobs) })
}

fn resolve(runtime: &'static Runtime, args: Args) -> Result<Knobs, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = args.model.unwrap_or_default();
    let model = runtime.models.iter().find(|model| model.name == wanted).unwrap_or(&runtime.models[0]);
    let refuse = |knob: &str| Err(format!("model {} does not take {knob}: {}", model.name, model.about));
    if args.threads.is_some() && !model.has_threads {
        return refuse("--threads");
    }
    if args.blocking_threads.is_some() && model.blocking_threads == Pool::None {
        return refuse("--blocking-threads");
    }
    if args.queue.is_some() && model.queue == 0 {
        return refuse("--queue");
    }
    if args.when_full.is_some() && !model.can_be_full() {
        return refuse("--when-full");
    }
    if args.processes.is_some_and(|count| count > 1) && model.forks == Forks::Never {
        return refuse("--processes");
    }
    // Not read by clap, which would repeat a wrong value, and its password.
    let state = Setting::parse(&args.state).map_err(|reason| format!("--state: {reason}"))?;
    let processes = args.processes.map_or(if model.forks == Forks::PerCore { cores } else { 1 }, usize::from);
    if args.dispatch.is_some() && processes == 1 {
        return Err(format!("model {} does not take --dispatch with one process: add --processes 2 or more", model.name));
    }
    let blocking_threads = match model.blocking_threads {
        Pool::None => 0,
        Pool::Of(threads) => threads,
        Pool::PerCore => cores,
    };
    Ok(Knobs {
        model,
        listen: args.listen,
        threads: if model.has_threads { args.threads.map_or(cores, usize::from) } else { 1 },
        processes,
        dispatch: (processes > 1).then(|| args.dispatch.unwrap_or(Dispatch::Shared)),
        blocking_threads: args.blocking_threads.map_or(blocking_threads, usize::from),
        queue: args.queue.map_or(model.queue, usize::from),
        when_full: args.when_full.unwrap_or(WhenFull::Wait),
        state: Box::leak(Box::new(state)),
        limits: Limits {
            max_block: args.max_block,
            drain: args.drain,
            drain_idle: args.drain_idle,
            header_timeout: args.header_timeout,
            request_timeout: args.request_timeout,
            idle_timeout: args.idle_timeout,
        },
    })
}

/// Prints the help text and ends the process if `--help` was given; otherwise returns the error in one line.
fn or_exit(error: &clap::Error) -> String {
    if !error.use_stderr() {
        // A write error means that the reader, such as a pager, is gone.
        let _ = error.print();
        std::process::exit(0);
    }
    one_line(error)
}

/// A usage error in one line, with a suggestion or the valid values.
#[must_use]
pub fn one_line(error: &clap::Error) -> String {
    let rendered = error.to_string();
    let first = rendered.lines().next().unwrap_or_default();
    let mut line = first.trim_start_matches("error: ").trim_end_matches(':').to_string();
    if line.ends_with("not provided") || line.ends_with("cannot be used with") {
        let rest: Vec<&str> = rendered.lines().skip(1).map(str::trim).take_while(|line| !line.is_empty()).collect();
        line = format!("{line}: {}", rest.join(", "));
    }
    let names = |kind| match error.get(kind) {
        Some(ContextValue::String(name)) => Some(name.clone()),
        Some(ContextValue::Strings(names)) if !names.is_empty() => Some(names.join(", ")),
        _ => None,
    };
    let suggested = [ContextKind::SuggestedValue, ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand];
    match (suggested.into_iter().find_map(names), names(ContextKind::ValidValue).or_else(|| names(ContextKind::ValidSubcommand)))
    {
        (Some(near), _) => format!("{line}; did you mean {near}?"),
        (None, Some(known)) => format!("{line}; valid values: {known}"),
        (None, None) => format!("{line}; see --help"),
    }
}
