//! `stallbench bench --command ...`, `--url ...`, or a `--servers-file` with blockers in it: how many slow requests freeze a person's own server?
//!
//! The same probes and the same ladder of blockers as in `collateral`; what blocks is a request of the person's choice, and how long it
//! takes is measured first. The result is a round of its own, and a row among those that were recorded.

use super::bench::{create_with, settings, write_derived};
use super::print;
use crate::catalog::{self, Foreign, Program, Server, root};
use crate::cli::Bench;
use crate::console::progress::Progress;
use crate::driver::Target;
use crate::experiment::collateral::{Climb, Collateral, OWN, Plan};
use crate::experiment::{Outcome, Settings};
use crate::host::environment::Environment;
use crate::http::client::{Client, get};
use crate::process::Running;
use crate::process::builder;
use crate::report::{Format, headline, render};
use crate::round::{Entry, Header, Round, Trial, new_folder, newest};
use anyhow::{Context, Result, bail};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Name of the row where nobody gave it one.
const NAME: &str = "yours";
/// How often the blocker is asked alone to learn how long it takes; the median counts.
const ALONE: usize = 3;
/// A blocker that takes longer is no use in a trial of seconds.
const LONGEST: Duration = Duration::from_secs(10);
/// A step lasts so many blockers at least.
const BLOCKERS_PER_STEP: u32 = 3;

/// A person's own server, and what to ask it.
pub struct Own {
    name: String,
    place: Place,
    probe: String,
    blocker: String,
}

enum Place {
    /// Started for each trial by the shell; `{port}` stands for a free port.
    Shell(String),
    /// Started for each trial with these arguments, likewise.
    Program(Foreign, Vec<String>),
    /// Runs already.
    Address(SocketAddr),
}

/// What the arguments say of people's own servers; none if they do not.
///
/// # Errors
/// A command without a place for the port; no address; no path; a file that mixes them with servers that keep the contract.
pub fn of(arguments: &Bench) -> Result<Vec<Own>> {
    let owns = match (&arguments.command, &arguments.url, &arguments.servers_file) {
        (Some(command), ..) => vec![from_arguments(arguments, Place::Shell(command.clone()))?],
        (_, Some(url), _) => vec![from_arguments(arguments, Place::Address(super::drive::parse(url)?.0))?],
        (.., Some(file)) => from_file(file)?,
        _ => Vec::new(),
    };
    owns.iter().try_for_each(Own::check)?;
    Ok(owns)
}

fn from_arguments(arguments: &Bench, place: Place) -> Result<Own> {
    let blocker = arguments.blocker.clone().context("--blocker is missing: the path of a request that is slow")?;
    Ok(Own { name: NAME.into(), place, probe: arguments.probe.clone(), blocker })
}

fn from_file(file: &Path) -> Result<Vec<Own>> {
    let servers = catalog::read(file)?;
    let count = servers.len();
    let own = |server: Server| match (server.own, server.program) {
        (Some((probe, blocker)), Program::Foreign(foreign)) => {
            Some(Own { name: server.name, place: Place::Program(foreign, server.args), probe, blocker })
        }
        _ => None,
    };
    let owns: Vec<Own> = servers.into_iter().filter_map(own).collect();
    if !owns.is_empty() && owns.len() < count {
        bail!("{}: some servers have a blocker and some do not; put them into two files", file.display());
    }
    Ok(owns)
}

/// Measures them, keeps the round, and prints their rows among those of the newest recorded round.
///
/// # Errors
/// A server that does not start, or answers wrongly when asked alone.
pub fn run(owns: &[Own], arguments: &Bench) -> Result<ExitCode> {
    let blocks: Vec<(&Own, Duration)> = owns.iter().map(|own| Ok((own, own.block()?))).collect::<Result<_>>()?;
    let mut settings = settings(arguments)?;
    settings.experiments = vec!["collateral".into()];
    // Not one that a page may quote.
    settings.filters = owns.iter().map(|own| own.name.clone()).collect();
    let here = || new_folder(&root().join("bench-results"), &Environment::here().host, "-own");
    let folder = arguments.out.clone().unwrap_or_else(here);
    let entries = blocks.iter().map(|(own, block)| own.entry(*block)).collect();
    let mut round = create_with(Some(&folder), entries, settings)?;
    measure(&mut round, &blocks)?;
    write_derived(&round)?;
    let format = if arguments.json { Format::Json } else { Format::Text };
    print(&render(&[headline::headline(&among_recorded(&round))?], format)?);
    eprintln!("round: {}", round.folder.display());
    let is_valid = round.trials.iter().all(|trial| !matches!(trial.outcome, Outcome::Invalid { .. }));
    Ok(if is_valid { ExitCode::SUCCESS } else { ExitCode::from(crate::SOME_FAILED) })
}

fn measure(round: &mut Round, blocks: &[(&Own, Duration)]) -> Result<()> {
    let settings = round.header.settings.clone();
    let progress = Progress::new(u64::from(settings.trials) * blocks.len() as u64);
    progress.quiet();
    let started = Instant::now();
    for trial in 1..=settings.trials {
        for (own, block) in blocks {
            progress.say(&format!("trial {trial} of {}: {}", settings.trials, own.name));
            let seed = settings.seed.wrapping_add(u64::from(trial));
            let outcome = match own.trial(&settings, *block, seed) {
                Ok(collateral) => Outcome::Collateral(collateral),
                Err(error) if error.downcast_ref::<crate::console::interrupt::Interrupted>().is_some() => return Err(error),
                Err(error) => Outcome::Invalid { reason: format!("{error:#}") },
            };
            let at_s = started.elapsed().as_secs_f64();
            let (server, experiment) = (own.name.clone(), "collateral".to_owned());
            round.add(Trial { server, experiment, trial, seed, at_s, steal: 0.0, outcome })?;
            progress.step(1);
        }
    }
    Ok(())
}

impl Own {
    fn check(&self) -> Result<()> {
        let command = match &self.place {
            Place::Shell(command) => command.clone(),
            Place::Program(foreign, arguments) => [foreign.command.as_slice(), arguments].concat().join(" "),
            Place::Address(_) => "{port}".into(),
        };
        if !command.contains("{port}") {
            bail!("'{command}' does not say where its port goes: write {{port}} in its place");
        }
        for (name, path) in [("probe", &self.probe), ("blocker", &self.blocker)] {
            if !path.starts_with('/') {
                bail!("{name} '{path}' is no path: it begins with /");
            }
        }
        Ok(())
    }

    fn entry(&self, block: Duration) -> Entry {
        let what = match &self.place {
            Place::Shell(command) => command.clone(),
            Place::Program(foreign, arguments) => [foreign.command.as_slice(), arguments].concat().join(" "),
            Place::Address(address) => format!("http://{address}"),
        };
        let alone_ms = block.as_secs_f64() * 1e3;
        let own = format!("{what}: p99 of {} beside {}, which takes {alone_ms:.1} ms alone", self.probe, self.blocker);
        let word = || OWN.to_owned();
        Entry { name: self.name.clone(), runtime: word(), model: word(), http: word(), own: Some(own), ..Entry::default() }
    }

    /// How long the blocker takes when nothing else is asked.
    fn block(&self) -> Result<Duration> {
        let running = self.start()?;
        let mut times = Vec::new();
        for _ in 0..ALONE {
            let started = Instant::now();
            ask(running.address, &self.blocker)?;
            times.push(started.elapsed());
        }
        times.sort();
        let block = times[ALONE / 2];
        if block > LONGEST {
            let (found, most) = (block.as_secs_f64(), LONGEST.as_secs());
            bail!("{} takes {found:.0} s; choose one that takes {most} s at most", self.blocker);
        }
        Ok(block)
    }

    fn trial(&self, settings: &Settings, block: Duration, seed: u64) -> Result<Collateral> {
        let mut running = self.start()?;
        let plan = Plan {
            kind: OWN,
            block,
            window: Duration::from_secs(1).max(block * BLOCKERS_PER_STEP),
            limit: Duration::from_secs(1),
            blockers: settings.blockers.iter().copied().filter(|k| *k > 0).collect(),
        };
        let (probe, blocker) = (ask(running.address, &self.probe)?, ask(running.address, &self.blocker)?);
        let climb = Climb { plan: &plan, probe, blocker, placement: settings.placement, seed };
        let _driver = climb.placement.enter_driver(true);
        let baseline = running.explain(climb.measure(0))?;
        let run = running.explain(climb.run())?;
        Ok(Collateral { baseline, runs: vec![run] })
    }

    fn start(&self) -> Result<Running> {
        match &self.place {
            Place::Address(address) => Running::elsewhere(*address),
            Place::Program(foreign, arguments) => self.start_at(|port| builder::own_command(foreign, arguments, port)),
            Place::Shell(line) => self.start_at(|port| shell(&line.replace("{port}", &port.to_string()))),
        }
    }

    fn start_at(&self, command: impl Fn(u16) -> Command) -> Result<Running> {
        // Nobody holds it until the server binds it; the system does not give it out again so soon.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Running::foreign(command(port), &self.name, ([127, 0, 0, 1], port).into())
    }
}

fn shell(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("exec {line}")]);
    command
}

/// Asks once; later answers must have the same status. Their bytes may differ, as those of a live service do.
fn ask(address: SocketAddr, path: &str) -> Result<Target> {
    let request = get(path);
    let answer = Client::connect(address).and_then(|mut client| client.ask(&request)).with_context(|| format!("GET {path}"))?;
    if answer.status >= 400 {
        bail!("GET {path} is answered {}", answer.status);
    }
    Ok(Target { address, request, status: answer.status, body: None })
}

/// The newest recorded round with this one's row in it; this one alone where none is recorded.
fn among_recorded(own: &Round) -> Round {
    let recorded = newest(&root().join("bench-results"), Header::is_headline).and_then(|folder| Round::open(&folder));
    let Ok(mut shown) = recorded else { return own.clone() };
    shown.header.servers.extend(own.header.servers.iter().cloned());
    shown.trials.extend(own.trials.iter().cloned());
    shown
}
