//! The lab: a page on loopback where two to four servers run side by side under the same load, live.
//!
//! Four kinds of threads: one for each pane, which keeps its server (the kernel ends a server with the thread that started it); the driver, which sends
//! the probes of all panes on one schedule; one for each slow load that somebody has asked for; and the stage, which collects what happens into frames, 20 a second
//! however fast the load is. The page's server has a thread of its own. When no page is open, everything is ended but the lab itself.

mod arguments;
mod bounds;
mod desk;
mod load;
mod pane;
mod shown;
mod stage;
mod web;

use anyhow::{Context, Result, bail};
use arguments::Arguments;
use bench::stage as harness;
use bench::stage::interrupt::{self, Interrupted};
use clap::Parser;
use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;

/// Messages that wait for a page that is busy: about two seconds of them, so that what it shows next is no older.
const BACKLOG: usize = 40;

fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|error| {
        if error.use_stderr() {
            harness::say(&format!("stallbench lab: {}", harness::one_line(&error)));
            std::process::exit(error.exit_code());
        }
        error.exit()
    });
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            harness::say(&format!("stallbench lab: {error:#}"));
            let is_interrupted = error.downcast_ref::<Interrupted>().is_some();
            if is_interrupted { ExitCode::from(interrupt::exit_code()) } else { ExitCode::FAILURE }
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    interrupt::install()?;
    let own = harness::own(arguments.command.as_deref(), arguments.url.as_deref(), &arguments.own)?;
    if let (None, Some(word)) = (&own, arguments.own.first_word()) {
        bail!("{word} is about your own service: say where it is with --url, or how to start it with --command");
    }
    let mut servers = harness::servers()?;
    let mut first = if arguments.servers.is_empty() { harness::first(&servers) } else { arguments.servers.clone() };
    if let Some(own) = own {
        first.insert(0, own.name.clone());
        servers.push(own);
    }
    first.truncate(bounds::PANES);
    let chosen = first.iter().map(|name| harness::find(&servers, name)).collect::<Result<Vec<_>>>()?;
    let _only = only_one()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port))
        .with_context(|| format!("cannot listen on port {}: choose another with --port, or 0 for a free one", arguments.port))?;
    harness::build(&chosen)?;
    let address = listener.local_addr()?;
    let token: String = std::iter::repeat_with(fastrand::alphanumeric).take(24).collect();
    let (asks, asked) = channel();
    let (frames, _) = tokio::sync::broadcast::channel(BACKLOG);
    let web = web::Web { address, token: token.clone(), asks, frames: frames.clone() };
    thread::Builder::new().name("web".into()).spawn(move || web.serve(listener)).context("cannot start a thread")?;
    harness::print(&format!("http://{address}/?token={token}\n"))?;
    harness::say("stallbench lab: open this address; Ctrl-C ends it");
    stage::Stage::new(servers, first, frames).run(&asked)?;
    interrupt::check()
}

/// Two labs at once would measure one another.
fn only_one() -> Result<File> {
    let path = harness::target().join("lab.lock");
    std::fs::create_dir_all(harness::target())?;
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another lab is running, and the two would disturb each other: end it first"),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}
