//! `stallbench bench`: measures servers side by side.

use crate::catalog::{self, Server, nearest, root};
use crate::cli::Bench;
use crate::cmd::own;
use crate::console::progress::Progress;
use crate::experiment::reload;
use crate::experiment::scaling::has_width;
use crate::experiment::{ALL, Mode, Outcome, Session, Settings, two_tabs::TwoTabs};
use crate::host::environment::{Environment, StealMeter};
use crate::host::placement::default_threads;
use crate::process::builder;
use crate::report::numbers::{Numbers, Percentile};
use crate::report::picture::waterfall;
use crate::report::{Format, headline, render};
use crate::round::plan;
use crate::round::{Entry, Header, Round, SCHEMA, Trial, new_folder, now};
use crate::validity;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// A trial during which the hypervisor took more than this share of the processors is taken again, so often at most.
const MOST_STEAL: (f64, u32) = (0.02, 2);
/// Drawn before anything else is built: the one that freezes, and the one that does not.
const FIRST_SIGHT: [&str; 2] = ["tokio-current-thread", "std-thread-per-connection"];

/// Runs a round, or goes on with one, and prints its tables.
pub fn run(arguments: &Bench) -> Result<ExitCode> {
    let owns = own::of(arguments)?;
    if !owns.is_empty() {
        return own::run(&owns, arguments);
    }
    let mut round = if arguments.resume { resume(arguments)? } else { begin(arguments)? };
    measure(&mut round)?;
    write_derived(&round)?;
    let tables = headline::tables(&round, Percentile::default())?;
    super::print(&match arguments.json {
        true => super::tables::to_json(&round, &tables, Percentile::default())?,
        false => render(&tables, Format::Text)?,
    });
    eprintln!("round: {}", round.folder.display());
    Ok(if is_complete(&round)? { ExitCode::SUCCESS } else { ExitCode::from(crate::SOME_FAILED) })
}

fn resume(arguments: &Bench) -> Result<Round> {
    let is_ours = |header: &Header| header.servers.iter().all(|entry| entry.own.is_none());
    let mut round = Round::open(&super::round_or_newest(arguments.out.as_deref(), is_ours)?)?;
    let folder = &round.folder;
    if !is_ours(&round.header) {
        bail!("{} measured a server of your own, which takes a minute: measure it again instead", folder.display());
    }
    for server in &servers_of(&round)? {
        let then = round.header.servers.iter().find(|entry| entry.name == server.name).and_then(|entry| entry.receipt.as_ref());
        let now = builder::receipt(server, round.header.settings.threads, &round.header.settings.more)?;
        if then != Some(&now) {
            bail!(
                "{} is not what it was when {} was begun: its receipt has changed; begin a new round",
                server.name,
                folder.display()
            );
        }
    }
    round.resume()?;
    Ok(round)
}

/// The servers of a round that can be measured.
fn servers_of(round: &Round) -> Result<Vec<Server>> {
    let mut all = catalog::with_second_names(&catalog::with_allocators(catalog::load()?, catalog::Allocator::Both));
    all.extend(round.header.settings.servers_file.as_deref().map_or(Ok(Vec::new()), catalog::read)?);
    let available = round.header.servers.iter().filter(|entry| entry.unavailable.is_none());
    available.map(|entry| catalog::find(&all, &entry.name)).collect()
}

fn begin(arguments: &Bench) -> Result<Round> {
    let mut settings = settings(arguments)?;
    let mut servers = servers(arguments)?;
    if arguments.filters.is_empty() && arguments.servers_file.is_none() {
        plan::cut(&mut servers, &mut settings);
    }
    for what in &settings.left_out {
        eprintln!("left out, so that the round ends in its time: {what}");
    }
    if !arguments.no_build {
        if arguments.quick && settings.experiments.iter().any(|name| name == "two-tabs") {
            first_sight(&servers, &settings)?;
        }
        builder::build(&servers, &Progress::new(builder::programs(&servers)))?;
        if settings.experiments.iter().any(|name| name == "reload") && servers.iter().any(reload::needs_supervisor) {
            builder::build_supervisor()?;
        }
    }
    create(arguments.out.as_deref(), &servers, settings)
}

/// A new round of these servers, in the folder that is named or in a new one of its own.
///
/// # Errors
/// The folder exists, or cannot be written.
pub fn create(folder: Option<&Path>, servers: &[Server], settings: Settings) -> Result<Round> {
    let entries = servers.iter().map(|server| entry(server, &settings)).collect();
    create_with(folder, entries, settings)
}

/// The same, of entries.
///
/// # Errors
/// As above.
pub fn create_with(folder: Option<&Path>, servers: Vec<Entry>, settings: Settings) -> Result<Round> {
    let environment = Environment::here();
    let folder =
        folder.map_or_else(|| new_folder(&root().join("bench-results"), &environment.host, settings.suffix()), Path::to_path_buf);
    let header = Header {
        schema: SCHEMA,
        started: now(),
        command: std::iter::once("stallbench".into()).chain(std::env::args().skip(1)).collect(),
        resumed: Vec::new(),
        servers,
        settings,
        environment,
    };
    Round::create(&folder, header)
}

/// How a round measures that is asked for like this.
///
/// # Errors
/// An experiment that there is not.
pub fn settings(arguments: &Bench) -> Result<Settings> {
    let mode = match (arguments.quick, arguments.thorough) {
        (true, _) => Mode::Quick,
        (_, true) => Mode::Thorough,
        _ => Mode::Standard,
    };
    let threads = arguments.threads.map_or_else(default_threads, usize::from);
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut settings = Settings::of(mode, threads, seed);
    settings.trials = arguments.trials.unwrap_or(settings.trials);
    settings.filters = arguments.filters.clone();
    settings.servers_file =
        arguments.servers_file.as_deref().map(fs::canonicalize).transpose().unwrap_or(arguments.servers_file.clone());
    if !arguments.blockers.is_empty() {
        settings.kinds = arguments.blockers.clone();
    }
    settings.placement = arguments.placement.unwrap_or(settings.placement);
    for experiment in &arguments.experiment {
        if !ALL.contains(&experiment.as_str()) {
            bail!("there is no experiment '{experiment}'; {}", nearest(experiment, &ALL));
        }
    }
    if !arguments.experiment.is_empty() {
        settings.experiments =
            ALL.iter().filter(|name| arguments.experiment.iter().any(|e| e == *name)).map(ToString::to_string).collect();
    }
    Ok(settings)
}

fn servers(arguments: &Bench) -> Result<Vec<Server>> {
    let file = arguments.servers_file.as_deref().map_or(Ok(Vec::new()), catalog::read)?;
    if !file.is_empty() {
        let others =
            if arguments.filters.is_empty() { Vec::new() } else { catalog::select(catalog::load()?, &arguments.filters)? };
        return Ok(others.into_iter().chain(file).collect());
    }
    let mut servers = catalog::select(catalog::load()?, &arguments.filters)?;
    if arguments.filters.is_empty() && !arguments.peers {
        servers.retain(|server| !server.is_peer && server.only_if_asked.is_none());
    }
    Ok(catalog::with_allocators(servers, arguments.allocator))
}

/// No receipt, no result: a server that does not say what it is, is unavailable.
fn entry(server: &Server, settings: &Settings) -> Entry {
    let receipt = builder::receipt(server, settings.threads, &settings.more);
    Entry {
        name: server.name.clone(),
        runtime: server.runtime.clone(),
        model: server.model.clone(),
        http: server.http.clone(),
        is_peer: server.is_peer,
        unsupported: unsupported(server),
        unavailable: receipt.as_ref().err().map(|error| format!("{error:#}")),
        receipt: receipt.ok(),
        own: None,
    }
}

/// What it cannot take part in, by its own word or by what it is.
fn unsupported(server: &Server) -> BTreeMap<String, String> {
    let mut unsupported = server.unsupported.clone();
    if !has_width(server) {
        unsupported.insert("scaling".into(), "no number of threads or processes to change".into());
    }
    unsupported.extend(reload::unsupported(server).map(|why| ("reload".to_string(), why.to_string())));
    unsupported
}

/// Two servers, two tabs each, as a picture: what this is all about, minutes before the table.
fn first_sight(servers: &[Server], settings: &Settings) -> Result<()> {
    let mut pair: Vec<&Server> = servers.iter().filter(|server| !server.unsupported.contains_key("two-tabs")).collect();
    // Of those that were asked for, the two that show it best.
    pair.sort_by_key(|server| FIRST_SIGHT.iter().position(|name| server.name == *name).unwrap_or(FIRST_SIGHT.len()));
    let pair: Vec<Server> = pair.into_iter().take(FIRST_SIGHT.len()).cloned().collect();
    let progress = Progress::new(pair.len() as u64);
    builder::build(&pair, &progress)?;
    progress.quiet();
    let mut settings = settings.clone();
    (settings.tabs, settings.tab_ms) = (vec![2], 500);
    let mut drawn: Vec<(&str, TwoTabs)> = Vec::new();
    for server in &pair {
        match (Session { server, settings: &settings, seed: settings.seed }).run("two-tabs")? {
            Outcome::TwoTabs(tabs) => drawn.push((&server.name, tabs)),
            Outcome::Invalid { reason } => progress.line(&format!("{}: invalid({reason})", server.name)),
            _ => {}
        }
    }
    drop(progress);
    let drawn: Vec<(&str, &TwoTabs)> = drawn.iter().map(|(name, tabs)| (*name, tabs)).collect();
    eprintln!("Two browser tabs on /timer, opened at once: does the second wait for the first?\n\n{}", waterfall(&drawn));
    Ok(())
}

/// Takes every trial that is missing: by trial, then over the servers in a random order, then over the experiments.
///
/// # Errors
/// An interrupt, or a disk that refuses.
pub fn measure(round: &mut Round) -> Result<()> {
    let settings = round.header.settings.clone();
    let servers = servers_of(round)?;
    let mut trials = Vec::new();
    for trial in 1..=settings.trials {
        let mut order: Vec<&Server> = servers.iter().collect();
        fastrand::Rng::with_seed(settings.seed ^ u64::from(trial)).shuffle(&mut order);
        for server in order {
            let cannot = unsupported(server);
            let wanted = settings.experiments.iter().filter(|name| !cannot.contains_key(*name));
            trials.extend(wanted.map(|experiment| (trial, server, experiment.as_str())));
        }
    }
    trials.retain(|(trial, server, experiment)| !round.has(&server.name, experiment, *trial));

    let progress = Progress::new(trials.iter().map(|(_, _, experiment)| plan::weight(experiment, &settings)).sum());
    progress.quiet();
    let started = Instant::now();
    for (trial, server, experiment) in trials {
        progress.say(&format!("trial {trial} of {}: {} {experiment}", settings.trials, server.name));
        let seed = settings.seed.wrapping_add(u64::from(trial).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (outcome, steal) = take(&Session { server, settings: &settings, seed }, experiment)?;
        if let Outcome::Invalid { reason } = &outcome {
            progress.line(&format!("{} {experiment}: invalid({reason})", server.name));
        }
        let at_s = started.elapsed().as_secs_f64();
        let (server, experiment) = (server.name.clone(), experiment.to_owned());
        progress.step(plan::weight(&experiment, &settings));
        round.add(Trial { server, experiment, trial, seed, at_s, steal, outcome })?;
    }
    Ok(())
}

/// One trial, taken again if the hypervisor disturbed it.
fn take(session: &Session<'_>, experiment: &str) -> Result<(Outcome, f64)> {
    let mut attempt = 0;
    loop {
        let meter = StealMeter::start();
        let outcome = session.run(experiment)?;
        let steal = meter.share();
        attempt += 1;
        // What a server weighs does not depend on time.
        if experiment == "footprint" || steal <= MOST_STEAL.0 {
            return Ok((outcome, steal));
        }
        if attempt > MOST_STEAL.1 {
            let disturbed = validity::steal(steal).err().map(|failure| Outcome::Invalid { reason: failure.to_string() });
            return Ok((disturbed.unwrap_or(outcome), steal));
        }
    }
}

/// Writes what follows from the trials: the tables as a page, and every number as CSV.
///
/// # Errors
/// A disk that refuses.
pub fn write_derived(round: &Round) -> Result<()> {
    let header = &round.header;
    let environment = &header.environment;
    let name = round.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut page = format!(
        "# Round {name}\n\nStarted {}, commit {}, by `{}`. {} on {} cores, {} MiB, Linux {}{}.\n\nWhat each number means: [METHODOLOGY.md](../../METHODOLOGY.md).\n\n",
        header.started,
        environment.commit,
        header.command.join(" "),
        environment.processor,
        environment.cores,
        environment.memory_mib,
        environment.kernel,
        if environment.is_virtual { ", virtual machine" } else { "" },
    );
    page.push_str(&render(&headline::tables(round, Percentile::default())?, Format::Markdown)?);
    let cannot = || format!("cannot write into {}", round.folder.display());
    fs::write(round.folder.join("README.md"), page).with_context(cannot)?;
    let csv = super::tables::numbers_csv(round, Percentile::default(), &[])?;
    fs::write(round.folder.join("summary.csv"), csv).with_context(cannot)
}

/// Every cell of every available server is a number.
fn is_complete(round: &Round) -> Result<bool> {
    let numbers = Numbers::of(round, Percentile::default())?;
    let mut available = round.header.servers.iter().filter(|entry| entry.unavailable.is_none());
    Ok(available.all(|entry| {
        let mut cells = numbers.of_server(&entry.name).peekable();
        cells.peek().is_some() && cells.all(|(_, cell)| !cell.values.is_empty())
    }))
}
