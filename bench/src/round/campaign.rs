//! A campaign: taking the trials of a round.

use super::find::new_folder;
use super::header::{Header, SCHEMA, Settings};
use super::store::{Round, now};
use super::trial::{Outcome, Trial};
use crate::catalog::{Row, Server};
use crate::console::{interrupt, progress::Progress};
use crate::driver::Sockets;
use crate::experiment::{Any, Needs};
use crate::host::{environment::Environment, placement::Placement, steal::StealMeter, tree};
use crate::measure::Session;
use crate::process::{Database, deploy::package};
use crate::validity;
use anyhow::Result;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// A trial during which the hypervisor took more than this share of the processors is retried, at most this many times.
const MOST_STEAL: (f64, u32) = (0.02, 2);

/// Builds whatever the experiments of a round need besides the servers.
///
/// # Errors
/// It does not build.
pub fn prepare(settings: &Settings, servers: &[Server]) -> Result<()> {
    let mut needs = Vec::new();
    for (one, own) in settings.experiments() {
        for server in servers {
            needs.push((server, one.needs(server, own)?));
        }
    }
    if needs.iter().any(|(_, needed)| *needed == Needs::Supervisor) {
        package::build_supervisor()?;
    }
    let keeps = |(server, needed): &(&Server, Needs)| (*needed == Needs::Postgres).then(|| server.with_state(Database::ANY));
    let servers: Vec<Server> = needs.iter().filter_map(keeps).collect();
    if !servers.is_empty() && Database::missing().is_none() {
        package::build(&servers, &Progress::new(package::programs(&servers)))?;
    }
    Ok(())
}

/// The row of a server in a round: with its receipt, or with the reason why it is unavailable.
pub fn row(server: &Server, settings: &Settings) -> Row {
    let conditions = &settings.conditions;
    let receipt = package::receipt(server, conditions.threads, &conditions.more).map_err(|error| format!("{error:#}"));
    Row::new(server, unsupported(server, settings), receipt)
}

/// A new round with these rows, in the folder that is named or in a new one of its own.
///
/// # Errors
/// The folder exists, or cannot be written.
pub fn begin(folder: Option<&Path>, servers: Vec<Row>, settings: Settings) -> Result<Round> {
    let environment = Environment::here();
    let folder = folder.map_or_else(|| new_folder(&tree::results(), &environment.host, settings.suffix()), Path::to_path_buf);
    let header = Header {
        schema: SCHEMA,
        started: now(),
        finished: None,
        command: std::iter::once("stallbench".into()).chain(std::env::args().skip(1)).collect(),
        resumed: Vec::new(),
        servers,
        settings,
        environment,
    };
    Round::create(&folder, header)
}

/// Everything that a server cannot take part in, each with the reason: what its manifest says, and the experiments of a round.
pub fn unsupported(server: &Server, settings: &Settings) -> BTreeMap<String, String> {
    let mut unsupported = server.unsupported.clone();
    for (one, own) in settings.experiments() {
        let reason = one.unsupported(server, own).unwrap_or_else(|error| Some(format!("{error:#}")));
        unsupported.extend(reason.map(|reason| (one.name().to_owned(), reason)));
    }
    unsupported
}

/// Takes every trial that is missing: by trial, then over the servers in a random order, then over the experiments.
///
/// # Errors
/// An interrupt, or a full disk.
pub fn measure(round: &mut Round, servers: &[Server]) -> Result<()> {
    let settings = round.header.settings.clone();
    let mut trials: Vec<(u32, &Server, &dyn Any, &Json)> = Vec::new();
    for trial in 1..=settings.trials {
        let mut order: Vec<&Server> = servers.iter().collect();
        fastrand::Rng::with_seed(settings.seed ^ u64::from(trial)).shuffle(&mut order);
        for server in order {
            let cannot = unsupported(server, &settings);
            let wanted = settings.experiments().filter(|(one, _)| !cannot.contains_key(one.name()));
            trials.extend(wanted.map(|(one, own)| (trial, server, one, own)));
        }
    }
    trials.retain(|(trial, server, one, _)| !round.has(&server.name, one.name(), *trial));
    let weight = |one: &dyn Any, own: &Json| one.seconds(own).map_or(10, |seconds| (seconds * 10.0) as u64);
    let progress = Progress::new(trials.iter().map(|(_, _, one, own)| weight(*one, own)).sum());
    progress.quiet();
    let started = Instant::now();
    for (trial, server, one, own) in trials {
        progress.say(&format!("trial {trial} of {}: {} {}", settings.trials, server.name, one.name()));
        let seed = settings.seed.wrapping_add(u64::from(trial).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (outcome, steal) = undisturbed(one, own, &session(server, &settings, one, seed))?;
        if let Outcome::Invalid { reason } = &outcome {
            progress.line(&format!("{} {}: invalid({reason})", server.name, one.name()));
        }
        let at_s = started.elapsed().as_secs_f64();
        let (server, experiment) = (server.name.clone(), one.name().to_owned());
        round.add(Trial { server, experiment, trial, seed, at_s, steal, outcome })?;
        progress.step(weight(one, own));
    }
    round.finish()
}

fn session<'s>(server: &'s Server, settings: &'s Settings, one: &dyn Any, seed: u64) -> Session<'s> {
    let conditions = &settings.conditions;
    let placement = if one.keeps_driver_busy() { Placement::Split } else { conditions.placement };
    Session { server, conditions, seed, placement, driver: &Sockets }
}

/// One trial; whatever goes wrong in it but an interrupt is an outcome.
///
/// # Errors
/// An interrupt.
pub fn take(one: &dyn Any, own: &Json, server: &Server, settings: &Settings) -> Result<Outcome> {
    outcome(one, own, &session(server, settings, one, settings.seed))
}

fn outcome(one: &dyn Any, own: &Json, session: &Session<'_>) -> Result<Outcome> {
    match one.run(session, own) {
        Err(error) if error.downcast_ref::<interrupt::Interrupted>().is_some() => Err(error),
        // What an interrupt spoils on its way is not a result.
        Err(_) if interrupt::is_requested() => Err(interrupt::Interrupted.into()),
        Err(error) => Ok(Outcome::Invalid { reason: format!("{error:#}") }),
        Ok(found) => Ok(Outcome::Found(found)),
    }
}

/// One trial, retried if the hypervisor disturbed it.
fn undisturbed(one: &dyn Any, own: &Json, session: &Session<'_>) -> Result<(Outcome, f64)> {
    let mut attempt = 0;
    loop {
        let meter = StealMeter::start();
        let outcome = outcome(one, own, session)?;
        let steal = meter.share();
        attempt += 1;
        if one.is_timeless() || steal <= MOST_STEAL.0 {
            return Ok((outcome, steal));
        }
        if attempt > MOST_STEAL.1 {
            let disturbed = validity::steal(steal).err().map(|failure| Outcome::Invalid { reason: failure.to_string() });
            return Ok((disturbed.unwrap_or(outcome), steal));
        }
    }
}
