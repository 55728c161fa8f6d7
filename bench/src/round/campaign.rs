//! A campaign: taking the trials of a round.

use super::find::new_folder;
use super::header::{Header, SCHEMA, Settings};
use super::read::readings;
use super::settled;
use super::store::{Round, now};
use super::trial::{Outcome, Trial};
use crate::catalog::{Program, Row, Server};
use crate::console::{interrupt, output::say, progress::Progress};
use crate::driver::Sockets;
use crate::experiment::{Any, Needs};
use crate::host::{environment::Environment, placement::Placement, steal::StealMeter, tree};
use crate::measure::Session;
use crate::metrics::{Percentile, Role};
use crate::process::{Database, deploy::own, deploy::package};
use crate::validity;
use anyhow::Result;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// A trial during which the hypervisor took more than this share of the processors is retried, at most this many times.
const MOST_STEAL: (f64, u32) = (0.02, 2);
/// How often trials that the driver or the machine spoiled are taken again.
const AGAIN: u32 = 2;
/// If more trials than this share of a round are spoiled, and more than this number, the machine is not fit, and nothing is taken again.
const MOST_SPOILED: (f64, usize) = (0.25, 4);

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
        command: std::iter::once("stallbench".into()).chain(without_secrets(std::env::args().skip(1))).collect(),
        resumed: Vec::new(),
        servers,
        settings,
        environment,
    };
    Round::create(&folder, header)
}

/// A command line without the values of headers, which let requests in and are nobody else's; the names are kept.
fn without_secrets(words: impl Iterator<Item = String>) -> Vec<String> {
    const OPTION: &str = "--header";
    let hidden = |header: &str| format!("{}: ...", header.split(':').next().unwrap_or_default().trim());
    let mut is_header = false;
    let shown = words.map(|word| {
        let value = word.strip_prefix(OPTION).and_then(|rest| rest.strip_prefix('='));
        let shown = match value {
            _ if is_header => hidden(&word),
            Some(header) => format!("{OPTION}={}", hidden(header)),
            None => word.clone(),
        };
        is_header = !is_header && word == OPTION;
        shown
    });
    shown.collect()
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

/// One trial that a round is made of.
#[derive(Clone, Copy)]
struct Planned<'p> {
    trial: u32,
    server: &'p Server,
    one: &'p dyn Any,
    own: &'p Json,
}

/// Takes every trial that is missing: by trial, then over the servers in a random order, then over the experiments. Those that the driver spoiled
/// are taken again in the end, when whatever kept it from its work may be over.
///
/// # Errors
/// An interrupt, or a full disk.
pub fn measure(round: &mut Round, servers: &[Server]) -> Result<()> {
    let settings = round.header.settings.clone();
    let mut all: Vec<Planned<'_>> = Vec::new();
    for trial in 1..=settings.trials {
        let mut order: Vec<&Server> = servers.iter().collect();
        fastrand::Rng::with_seed(settings.seed ^ u64::from(trial)).shuffle(&mut order);
        for server in order {
            let cannot = unsupported(server, &settings);
            let wanted = settings.experiments().filter(|(one, _)| !cannot.contains_key(one.name()));
            all.extend(wanted.map(|(one, own)| Planned { trial, server, one, own }));
        }
    }
    let is_missing = |one: &&Planned<'_>| round.of(&one.server.name, one.one.name(), one.trial).is_none();
    let missing: Vec<Planned<'_>> = all.iter().filter(is_missing).copied().collect();
    let started = Instant::now();
    take_each(round, &settings, &missing, started)?;
    for _ in 0..AGAIN {
        let mut spoiled: Vec<Planned<'_>> = Vec::new();
        for one in &all {
            if is_spoiled(round, one)? {
                spoiled.push(*one);
            }
        }
        if spoiled.is_empty() || spoiled.len() > MOST_SPOILED.1.max((MOST_SPOILED.0 * all.len() as f64) as usize) {
            break;
        }
        say(&format!("retrying {} of {} trials: the driver or the machine spoiled them", spoiled.len(), all.len()));
        take_each(round, &settings, &spoiled, started)?;
    }
    round.finish()
}

/// Whether a trial says nothing of something that is compared, for a reason that lies with the driver or the machine.
fn is_spoiled(round: &Round, Planned { trial, server, one, .. }: &Planned<'_>) -> Result<bool> {
    let Some(trial) = round.of(&server.name, one.name(), *trial) else { return Ok(false) };
    // Nobody here can start it again.
    if trial.has_ended() && matches!(server.program, Program::Address(_)) {
        return Ok(false);
    }
    is_of_driver(round, trial)
}

/// The same of any trial.
fn is_of_driver(round: &Round, trial: &Trial) -> Result<bool> {
    if let Outcome::Invalid { reason } = &trial.outcome {
        return Ok(validity::is_of_driver(reason));
    }
    let readings = readings(round, trial, Percentile::default())?;
    Ok(readings.iter().any(|(metric, value)| {
        metric.family.role != Role::Detail && value.as_ref().is_err_and(|reason| validity::is_of_driver(reason))
    }))
}

fn take_each(round: &mut Round, settings: &Settings, trials: &[Planned<'_>], started: Instant) -> Result<()> {
    let weight = |one: &Planned<'_>| one.one.seconds(one.own).map_or(10, |seconds| (seconds * 10.0) as u64);
    let progress = Progress::new(trials.iter().map(weight).sum());
    progress.quiet();
    // Services that ended and did not come back; nobody here can start them.
    let mut gone: Vec<&String> = Vec::new();
    for planned in trials {
        let Planned { trial, server, one, own } = *planned;
        if gone.contains(&&server.name) {
            leave_out(round, planned, started)?;
            progress.step(weight(planned));
            continue;
        }
        if let Some(width) = settings.settled_width
            && round.of(&server.name, one.name(), trial).is_none()
            && settled::is_settled(round, &server.name, one.name(), width)?
        {
            let (server, experiment, at_s) = (server.name.clone(), one.name().to_owned(), started.elapsed().as_secs_f64());
            round.add(Trial { server, experiment, trial, seed: 0, at_s, steal: 0.0, outcome: Outcome::Settled, line: 0 })?;
            progress.step(weight(planned));
            continue;
        }
        let doing = format!("trial {trial} of {}: {} {}", settings.trials, server.name, one.name());
        progress.say(&doing);
        let down = own::wait(server, || progress.line(&format!("{}: is down; waits until it is up again", server.name)))?;
        match down {
            Some(Duration::ZERO) => {}
            Some(down) => progress.line(&format!("{}: it was down for {:.1} s", server.name, down.as_secs_f64())),
            None if ended_before(round, server) => {
                progress.line(&format!("{}: is still down, so its other trials are left out", server.name));
                gone.push(&server.name);
                leave_out(round, planned, started)?;
                progress.step(weight(planned));
                continue;
            }
            None => progress.line(&format!("{}: is still down", server.name)),
        }
        let seed = settings.seed.wrapping_add(u64::from(trial).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let tell = |what: &str| progress.at(&format!("{doing}, {what}"));
        let (outcome, steal) = undisturbed(one, own, &session(server, settings, one, (seed, trial == 1), &tell))?;
        if let Outcome::Invalid { reason } = &outcome {
            progress.line(&format!("{} {}: invalid({reason})", server.name, one.name()));
        }
        let at_s = started.elapsed().as_secs_f64();
        let (server, experiment) = (server.name.clone(), one.name().to_owned());
        round.add(Trial { server, experiment, trial, seed, at_s, steal, outcome, line: 0 })?;
        progress.step(weight(planned));
    }
    Ok(())
}

/// Notes that a trial could not be taken.
fn leave_out(round: &mut Round, Planned { trial, server, one, .. }: &Planned<'_>, started: Instant) -> Result<()> {
    if round.of(&server.name, one.name(), *trial).is_some() {
        return Ok(());
    }
    let outcome = Outcome::Invalid { reason: "it ended in an earlier trial, and did not come back".into() };
    let (server, experiment, at_s) = (server.name.clone(), one.name().to_owned(), started.elapsed().as_secs_f64());
    round.add(Trial { server, experiment, trial: *trial, seed: 0, at_s, steal: 0.0, outcome, line: 0 })
}

/// Whether a server ended during one of its trials.
fn ended_before(round: &Round, server: &Server) -> bool {
    round.trials.iter().any(|trial| trial.server == server.name && trial.has_ended())
}

fn session<'s>(
    server: &'s Server,
    settings: &'s Settings,
    one: &dyn Any,
    (seed, keeps_timelines): (u64, bool),
    tell: &'s (dyn Fn(&str) + Sync),
) -> Session<'s> {
    let conditions = &settings.conditions;
    let placement = if one.keeps_driver_busy() { Placement::Split } else { conditions.placement };
    Session { server, conditions, seed, placement, keeps_timelines, driver: &Sockets, tell }
}

/// One trial; whatever goes wrong in it but an interrupt is an outcome.
///
/// # Errors
/// An interrupt.
pub fn take(one: &dyn Any, own: &Json, server: &Server, settings: &Settings) -> Result<Outcome> {
    outcome(one, own, &session(server, settings, one, (settings.seed, false), &|_| ()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round::store::tests::header;
    use serde_json::json;

    #[test]
    fn the_value_of_a_header_is_not_kept_with_the_command_and_its_name_is() {
        let words = [
            "bench",
            "--header",
            "Authorization: Bearer x:y",
            "--header=X-Key:z",
            "--header",
            "--header",
            "--out",
            "of --header=a",
        ];
        let kept = without_secrets(words.iter().map(ToString::to_string));
        let wanted = [
            "bench",
            "--header",
            "Authorization: ...",
            "--header=X-Key: ...",
            "--header",
            "--header: ...",
            "--out",
            "of --header=a",
        ];
        assert_eq!(kept, wanted);
    }

    #[test]
    fn a_trial_is_spoiled_by_the_driver_or_the_machine_and_not_by_what_the_server_did() {
        let base = tempfile::tempdir().unwrap();
        let mut header = header(crate::measure::Mode::Quick);
        let own = json!({ "blockers": [0, 4], "block_ms": 50.0, "window_ms": 1000, "rate": 1000.0, "connections": 256 });
        header.settings.experiments.insert("service".into(), own);
        let mut round = Round::create(&base.path().join("r"), header).unwrap();
        let mut is = |outcome: Outcome, experiment: &str| {
            let trial = Trial {
                server: "a".into(),
                experiment: experiment.into(),
                trial: 1,
                seed: 1,
                at_s: 0.0,
                steal: 0.0,
                outcome,
                line: 0,
            };
            round.add(trial).unwrap();
            is_of_driver(&round, round.of("a", experiment, 1).unwrap()).unwrap()
        };
        let invalid = |reason: &str| Outcome::Invalid { reason: reason.into() };
        assert!(is(invalid("lag: the driver was 0.784 ms behind its plan"), "collateral"));
        assert!(is(invalid("steal: the hypervisor took 30 % of the processors, several times"), "collateral"));
        assert!(!is(invalid("answers: 3 wrong: status 500"), "collateral"));
        assert!(!is(invalid("a-b does not get ready"), "collateral"));
        // A trial that found something, but not all.
        let latency = json!({
            "planned": 0, "answered": 1, "unanswered": 0, "p50_us": 1.0, "p99_us": 1.0, "max_us": 1.0, "service_p99_us": 1.0,
            "lag_p99_us": 1.0, "response": "",
        });
        let found = |invalid: Option<&str>| {
            let one = json!({
                "way": "kept-alive", "invalid": invalid, "per_s": 1.0, "cpu_us": 1.0, "user": 0.5, "is_driver_bound": false,
                "driver_load": 0.5, "latency": latency,
            });
            Outcome::Found(json!({ "loops": [one] }))
        };
        // Where the service ended later, a new one tells what was spoiled before.
        let nothing = json!(crate::measure::Latency::of(&crate::load::Recording::default()));
        let step = |k: usize, invalid: Option<&str>| {
            json!({
                "k": k, "invalid": invalid, "probes": nothing, "fresh": nothing, "dead": 0.0, "recovery_ms": null,
                "blockers_per_s": 0.0, "driver_load": 0.5, "gave_up": false,
            })
        };
        let climb = |steps: [serde_json::Value; 2]| {
            Outcome::Found(json!({ "run": { "kind": "slow", "block_ms": 50.0, "limit_ms": 1000.0, "steps": steps } }))
        };
        let lag = || step(0, Some("lag: the driver was 0.784 ms behind its plan"));
        let ended = "beside k=4 the measurement broke off; the server ended and nothing listens at 127.0.0.1:1 any more";
        assert!(is(climb([lag(), step(4, None)]), "service"));
        assert!(is(climb([lag(), step(4, Some(ended))]), "service"));
        assert!(!is(climb([step(0, None), step(4, Some(ended))]), "service"));
        assert!(!is(found(None), "throughput"));
        assert!(!is(found(Some("littles-law: 9 requests in flight instead of 64")), "throughput"));
        assert!(is(found(Some("driver: the driver was busy for 99 % of the time")), "throughput"));
    }
}
