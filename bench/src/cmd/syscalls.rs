//! `stallbench syscalls`: what a request costs each server in system calls and context switches.

use super::splice;
use crate::catalog::{self, Server};
use crate::cli::Syscalls;
use crate::console::interrupt;
use crate::console::output::print;
use crate::console::progress::Progress;
use crate::driver::Sockets;
use crate::host::environment::Environment;
use crate::host::placement::{Placement, default_threads, set_of};
use crate::load::{Drive, Lane, Load, Target};
use crate::measure::learn;
use crate::metrics::Unit;
use crate::process::deploy::{self, package};
use crate::process::trace::{Strace, Switches};
use crate::process::{Start, trace};
use crate::report::{Absence, Cell, Column, Format, Line, Table, Terminal, render};
use anyhow::Result;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

/// The name of the marks in a page.
const NAME: &str = "syscalls";
/// Connections that are kept alive and never idle.
const CONNECTIONS: usize = 16;
/// How long requests are sent for each count.
const WINDOW: Duration = Duration::from_secs(1);
/// System calls that are named: those that at least this share of requests make.
const NAMED: f64 = 0.05;

/// What one server did, for each request.
struct Counted {
    calls: BTreeMap<String, f64>,
    voluntary: f64,
    involuntary: f64,
}

/// Counts for the servers that the filters match.
///
/// # Errors
/// What keeps a server from being built; a page that cannot be written; an interrupt.
pub fn run(arguments: &Syscalls) -> Result<ExitCode> {
    if let Some(reason) = trace::missing() {
        print(&format!("{NAME}: unavailable({reason})\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut servers = catalog::select(catalog::load()?, &arguments.filters)?;
    if arguments.filters.is_empty() {
        servers.retain(|server| server.only_if_asked.is_none());
    }
    package::build(&servers, &Progress::new(package::programs(&servers)))?;
    let progress = Progress::new(servers.len() as u64);
    let mut lines = Vec::new();
    for server in &servers {
        progress.say(&server.name);
        let counted =
            if server.missing().is_some() { Err(Absence::Unavailable) } else { count(server).map_err(|error| invalid(&error)) };
        interrupt::check()?;
        lines.push(line(&server.name, counted));
        progress.step(1);
    }
    drop(progress);
    let tables = [table(lines)];
    let shown = |format| render(&tables, format, &Terminal::of_stdout(arguments.wide, false));
    match &arguments.splice {
        Some(page) => splice::one(page, NAME, &shown(Format::Markdown)?)?,
        None => print(&shown(if arguments.json { Format::Json } else { Format::Text })?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn invalid(error: &anyhow::Error) -> Absence {
    Absence::Invalid(format!("{error:#}"))
}

/// Two loads on one process: context switches without strace, which causes some, then system calls with it.
fn count(server: &Server) -> Result<Counted> {
    let threads = default_threads(Placement::Shared);
    let cores = set_of(&Placement::Shared.server_cores());
    let mut running = deploy::start(server, &Start { threads, more: Vec::new(), cores })?;
    let target = learn(&mut running, "/")?;
    ask(&target)?;
    let before = Switches::of(&running);
    let plain = ask(&target)?;
    let switches = Switches::of(&running).since(before);
    let strace = Strace::attach(&running)?;
    let traced = ask(&target)?;
    let calls = strace.finish()?;
    let share = |count: u64, requests: f64| count as f64 / requests.max(1.0);
    Ok(Counted {
        calls: calls.into_iter().map(|(name, count)| (name, share(count, traced))).collect(),
        voluntary: share(switches.voluntary, plain),
        involuntary: share(switches.involuntary, plain),
    })
}

/// Keeps connections busy for a while; returns how many requests were answered.
fn ask(target: &Target) -> Result<f64> {
    let lane = Lane::closed(target.clone(), CONNECTIONS, 1);
    let seen = Sockets.drive(&Load::of(vec![lane], WINDOW, 1))?;
    Ok(seen.lanes[0].answered as f64)
}

fn line(name: &str, counted: Result<Counted, Absence>) -> Line {
    let mut cells = match counted {
        Err(absence) => vec![Cell::Absent(absence)],
        Ok(counted) => {
            let mut named: Vec<(&String, &f64)> = counted.calls.iter().filter(|(_, each)| **each >= NAMED).collect();
            named.sort_by(|a, b| b.1.total_cmp(a.1));
            let words: Vec<String> = named.iter().map(|(name, each)| format!("{name} {each:.2}")).collect();
            vec![
                Cell::number(counted.calls.values().sum(), Unit::PerRequest),
                Cell::number(counted.voluntary, Unit::PerRequest),
                Cell::number(counted.involuntary, Unit::PerRequest),
                Cell::words(words.join(", ")),
            ]
        }
    };
    cells.insert(0, Cell::words(name));
    cells.resize(5, Cell::Absent(Absence::Nothing));
    Line { group: None, cells }
}

/// Where counts come from that stand on a page without a round.
fn measured_on(Environment { commit, processor, cores, kernel, .. }: &Environment) -> String {
    format!("commit {commit}, {processor}, {cores} cores, Linux {kernel}")
}

fn table(lines: Vec<Line>) -> Table {
    let columns = vec![
        Column::words("server"),
        Column::number("calls"),
        Column::number("waits"),
        Column::number("preempted"),
        Column::words("system calls of a request"),
    ];
    let title =
        format!("System calls and context switches for each request, {CONNECTIONS} connections kept alive and never idle");
    let notes = vec![
        "calls: counted by strace, which slows the server; waits and preempted: voluntary and involuntary context switches, counted without it".into(),
        "a loop that finds many requests waiting shares one epoll_wait or io_uring_enter among them".into(),
        measured_on(&Environment::here()),
    ];
    Table { name: NAME, title, columns, lines, notes, ..Table::default() }
}
