//! `stallbench bench`: measures servers side by side.

use super::{exit_code, own};
use crate::catalog::{self, Allocator, FIRST_SIGHT, Server};
use crate::cli::Bench;
use crate::console::output::{print, say};
use crate::console::progress::Progress;
use crate::console::usage::refuse;
use crate::experiment::{self, Choices, TwoTabs};
use crate::host::placement::default_threads;
use crate::measure::{Kinds, Mode};
use crate::metrics::Percentile;
use crate::process::deploy::package;
use crate::report::{Format, Terminal, render};
use crate::round::{self, Header, Outcome, Round, Settings};
use crate::summary;
use anyhow::{Context, Result, bail};
use std::fs;
use std::process::ExitCode;

/// Runs a round, or resumes one, and prints its tables.
///
/// # Errors
/// What keeps it from running; invalid cells are told by the exit code.
pub fn run(arguments: &Bench) -> Result<ExitCode> {
    let owns = own::of(arguments)?;
    if !owns.is_empty() {
        return own::run(owns, arguments);
    }
    refuse_own_words(arguments)?;
    let (mut round, servers) = if arguments.resume { resume(arguments)? } else { begin(arguments)? };
    round::measure(&mut round, &servers)?;
    let numbers = round::numbers(&round, Percentile::default())?;
    let tables = summary::tables(&round, &numbers, Percentile::default())?;
    print(&match arguments.json {
        true => summary::to_json(&round, &tables, &numbers)?,
        false => render(&tables, Format::Text, &Terminal::of_stdout(arguments.wide, arguments.intervals))?,
    })?;
    // Last, since the disk may be full.
    let report = super::report::at_the_end(&round, &numbers);
    say(&format!("round: {}{report}", round.folder.display()));
    Ok(exit_code(summary::is_complete(&round)?))
}

/// Words about a user's own service that would be ignored without one.
fn refuse_own_words(arguments: &Bench) -> Result<()> {
    let given = [("--slow-share", arguments.slow_share.is_some()), ("--alone", arguments.alone)];
    let other = given.into_iter().find_map(|(name, is_given)| is_given.then_some(name));
    match arguments.own.first_word().or(other) {
        Some(name) if arguments.servers_file.is_some() => {
            refuse!("{name} is about your own service: name its slow request with --blocker, or in the file")
        }
        Some(name) => {
            refuse!("{name} is about your own service: say how to reach it with --command, --url or --servers-file")
        }
        None => Ok(()),
    }
}

fn resume(arguments: &Bench) -> Result<(Round, Vec<Server>)> {
    let is_ours = |header: &Header| !header.settings.is_own() && header.finished.is_none();
    let folder = match &arguments.out {
        Some(folder) => super::round_or_newest(Some(folder), |_| true)?,
        None => super::round_or_newest(None, is_ours).context("no round is unfinished")?,
    };
    let mut round = Round::open(&folder)?;
    if round.header.settings.is_own() {
        bail!("{} measured a service of your own, which takes minutes: measure it again instead", folder.display());
    }
    let servers = servers_of(&round)?;
    for server in &servers {
        let then = round.header.servers.iter().find(|row| row.name == server.name).and_then(|row| row.receipt.as_ref());
        let conditions = &round.header.settings.conditions;
        let now = package::receipt(server, conditions.threads, &conditions.more)?;
        if then != Some(&now) {
            let name = folder.display();
            bail!("{} was rebuilt or reconfigured since {name} started: begin a new round", server.name);
        }
    }
    round.resume()?;
    Ok((round, servers))
}

/// The servers of a round that can be measured.
fn servers_of(round: &Round) -> Result<Vec<Server>> {
    // A server of the user's file may have the name of one that the round left out.
    let mut all = round.header.settings.servers_file.as_deref().map_or(Ok(Vec::new()), catalog::read)?;
    all.extend(catalog::with_second_names(&catalog::with_allocators(catalog::load()?, Allocator::Both)));
    let available = round.header.servers.iter().filter(|row| row.unavailable.is_none());
    available.map(|row| catalog::find(&all, &row.name)).collect()
}

fn begin(arguments: &Bench) -> Result<(Round, Vec<Server>)> {
    let mut settings = settings(arguments, &arguments.experiment)?;
    let mut servers = servers(arguments)?;
    if arguments.filters.is_empty() && arguments.servers_file.is_none() {
        round::cut(&mut servers, &mut settings)?;
    }
    for what in &settings.left_out {
        say(&format!("left out, so that the round ends in its time: {what}"));
    }
    if !arguments.no_build {
        if arguments.quick {
            first_look(&servers, &settings)?;
        }
        package::build_available(&servers, &Progress::new(package::programs(&servers)))?;
        round::prepare(&settings, &servers)?;
    }
    let rows = servers.iter().map(|server| round::row(server, &settings)).collect();
    let round = round::begin(arguments.out.as_deref(), rows, settings)?;
    let is_available = |server: &Server| {
        let row = round.header.servers.iter().find(|row| row.name == server.name);
        row.is_some_and(|row| row.unavailable.is_none())
    };
    servers.retain(is_available);
    Ok((round, servers))
}

/// The settings that the arguments ask for.
///
/// # Errors
/// An unknown experiment.
pub fn settings(arguments: &Bench, experiments: &[String]) -> Result<Settings> {
    let mode = match (arguments.quick, arguments.thorough) {
        (true, _) => Mode::Quick,
        (_, true) => Mode::Thorough,
        _ => Mode::Standard,
    };
    let connections = arguments.own.connections.map(|count| count as usize);
    let choices = Choices { kinds: Kinds::all(&arguments.blockers), connections };
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut settings = Settings::new(mode, experiments, &choices, seed)?;
    settings.trials = arguments.trials.unwrap_or(settings.trials);
    // An explicit number of trials is always honoured.
    settings.settled_width = (mode == Mode::Standard && arguments.trials.is_none()).then_some(round::SETTLED_WIDTH);
    settings.filters = arguments.filters.clone();
    settings.servers_file =
        arguments.servers_file.as_deref().map(fs::canonicalize).transpose().unwrap_or(arguments.servers_file.clone());
    let conditions = &mut settings.conditions;
    conditions.placement = arguments.placement.unwrap_or(conditions.placement);
    conditions.threads = arguments.threads.map_or_else(|| default_threads(conditions.placement), usize::from);
    Ok(settings)
}

fn servers(arguments: &Bench) -> Result<Vec<Server>> {
    if let Some(file) = &arguments.servers_file {
        let mut servers =
            if arguments.filters.is_empty() { Vec::new() } else { catalog::select(catalog::load()?, &arguments.filters)? };
        servers = catalog::with_allocators(servers, arguments.allocator);
        servers.extend(catalog::read(file)?);
        catalog::refuse_same_names(&servers)?;
        return Ok(servers);
    }
    let mut servers = catalog::select(catalog::load()?, &arguments.filters)?;
    if arguments.filters.is_empty() && !arguments.peers {
        servers.retain(|server| (!server.is_peer || server.needs_only_rust()) && server.only_if_asked.is_none());
    }
    Ok(catalog::with_allocators(servers, arguments.allocator))
}

/// Two servers, two tabs each, as a picture: the question in one look, minutes before the table.
fn first_look(servers: &[Server], settings: &Settings) -> Result<()> {
    let two_tabs = experiment::find("two-tabs")?;
    let Some(_) = settings.experiments.get(two_tabs.name()) else { return Ok(()) };
    let can =
        |server: &&Server| !round::unsupported(server, settings).contains_key(two_tabs.name()) && server.missing().is_none();
    let mut pair: Vec<Server> = servers.iter().filter(can).cloned().collect();
    // Of those that were asked for, the two that show it best.
    pair.sort_by_key(|server| !server.has_tag(FIRST_SIGHT));
    pair.truncate(2);
    let progress = Progress::new(pair.len() as u64);
    package::build(&pair, &progress)?;
    progress.quiet();
    let own = TwoTabs::first_look();
    let mut found = Vec::new();
    for server in &pair {
        match round::take(two_tabs, &own, server, settings)? {
            Outcome::Found(outcome) => found.push((server.name.as_str(), outcome)),
            Outcome::Invalid { reason } => progress.line(&format!("{}: invalid({reason})", server.name)),
            Outcome::Settled => {}
        }
    }
    drop(progress);
    let found: Vec<_> = found.iter().map(|(name, outcome)| (*name, outcome)).collect();
    if let Some(picture) = experiment::picture(&found) {
        say(&format!("Two browser tabs on /timer, opened at once: does the second wait for the first?\n\n{picture}"));
    }
    Ok(())
}
