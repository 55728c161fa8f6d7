//! `stallbench ab`: two versions measured in turn, trial by trial, in one round, so that the machine is the same for both.

use super::compare::{list_metrics, report_failures};
use super::{noise, own};
use crate::catalog::{self, Foreign, Program, Row, Server};
use crate::cli::Ab;
use crate::console::output::{print, say};
use crate::console::progress::Progress;
use crate::console::usage::refuse;
use crate::experiment::Choices;
use crate::host::{environment::Environment, tree};
use crate::measure::{Kinds, Mode};
use crate::metrics::Numbers;
use crate::process::deploy::{self, package};
use crate::round::{self, Round, Settings, new_folder};
use crate::summary::comparison::{self, Sides};
use crate::summary::{self, gates};
use crate::verdict::gate::Gate;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The suffixes of the two versions of a server.
const SIDES: [&str; 2] = ["@A", "@B"];
/// The experiment of a user's own service.
const SERVICE: &str = "service";

/// The two versions of each server, and the names of the versions.
struct Versions {
    names: [String; 2],
    servers: [Vec<Server>; 2],
}

/// Measures two versions in turn and says what differs.
///
/// # Errors
/// What keeps them from being built or measured.
pub fn run(arguments: &Ab) -> Result<ExitCode> {
    refuse_own_words(arguments)?;
    let mut settings = settings(arguments)?;
    refuse_hopeless(arguments, &settings)?;
    let versions = versions(arguments)?;
    // Not one that a page may quote.
    settings.filters = versions.servers[0].iter().map(|server| server.name.clone()).collect();
    let all = versions.labelled();
    if !arguments.command.is_empty() {
        learn(&all, &mut settings, &arguments.gates.fail_if)?;
    }
    round::prepare(&settings, &all)?;
    let rows = all.iter().map(|server| row(server, &settings)).collect();
    let folder = || new_folder(&tree::results(), &Environment::here().host, "-ab");
    let mut round = round::begin(Some(&arguments.out.clone().unwrap_or_else(folder)), rows, settings)?;
    if let Some(row) = round.header.servers.iter().find(|row| row.unavailable.is_some()) {
        bail!("{} is unavailable: {}", row.name, row.unavailable.as_deref().unwrap_or_default());
    }
    round::measure(&mut round, &all)?;
    say(&format!("round: {}", round.folder.display()));
    let compared = compare(&round, &versions, arguments);
    // After the result, which a full disk must not cost.
    summary::write_derived(&round)?;
    compared
}

impl Versions {
    /// The servers of both versions, each under a name of its own.
    fn labelled(&self) -> Vec<Server> {
        let rename = |(servers, side): (&Vec<Server>, &str)| -> Vec<Server> {
            servers.iter().map(|server| Server { name: format!("{}{side}", server.name), ..server.clone() }).collect()
        };
        self.servers.iter().zip(SIDES).flat_map(rename).collect()
    }
}

/// Words about a user's own service that would be ignored without one.
fn refuse_own_words(arguments: &Ab) -> Result<()> {
    match arguments.own.first_word().filter(|_| arguments.command.is_empty()) {
        Some(word) => refuse!("{word} is about your own service: say how to start its two versions with --command, twice"),
        None => Ok(()),
    }
}

/// Refuses gates that could not be judged when all is measured.
fn refuse_hopeless(arguments: &Ab, settings: &Settings) -> Result<()> {
    let families: Vec<_> = settings.experiments().flat_map(|(one, _)| one.families(arguments.shape.percentile)).collect();
    gates::refuse_hopeless(&arguments.gates.fail_if, &families, settings.trials)
}

/// Learns how long the requests of both versions take. A gate would pass beside any number of slow requests that are not slow.
fn learn(all: &[Server], settings: &mut Settings, fail_if: &[Gate]) -> Result<()> {
    let learned = own::learn(all, settings)?;
    own::warn(all, &learned);
    let beside = fail_if.iter().find(|gate| !gate.is_beside_none());
    if let (Some(gate), false) = (beside, learned.has_slow_request()) {
        bail!("the gate '{gate}' cannot tell: no slow request was slow, so name one that is with --blocker");
    }
    settings.experiments.insert(SERVICE.into(), serde_json::to_value(learned)?);
    Ok(())
}

fn compare(round: &Round, versions: &Versions, arguments: &Ab) -> Result<ExitCode> {
    let shape = &arguments.shape;
    let measured = round::numbers(round, shape.percentile)?;
    let of_second = if arguments.gates.list_metrics { Vec::new() } else { tell_holes(round, &measured)? };
    let (numbers, notes) = summary::borne(round, &measured, shape.percentile)?;
    let sides = Sides {
        before: (&numbers, &versions.names[0]),
        after: (&numbers, &versions.names[1]),
        servers: versions.servers[0]
            .iter()
            .map(|server| (server.name.clone(), format!("{}{}", server.name, SIDES[0]), format!("{}{}", server.name, SIDES[1])))
            .collect(),
        // Interleaved, so the machine was the same for both.
        drift: BTreeMap::new(),
        cannot_judge_costs: false,
    };
    let noise = noise::within(round, None)?;
    let compared = comparison::compare(&sides, &noise, &arguments.gates.fail_if, &shape.filters, notes)?;
    if arguments.gates.list_metrics {
        return list_metrics(std::slice::from_ref(&compared));
    }
    print(&comparison::render(std::slice::from_ref(&compared), arguments.all, shape.format(), &shape.terminal())?)?;
    let failed = report_failures(vec![compared])?;
    Ok(super::exit_code(!failed && of_second.is_empty()))
}

/// Says what is invalid, and what the second version has no number of: that is what it returns. What the first one lacks is in no gate's way, since a bound
/// on a value looks at the second alone.
fn tell_holes(round: &Round, numbers: &Numbers) -> Result<Vec<String>> {
    summary::invalid(round, numbers)?.iter().for_each(|reason| say(reason));
    let holes = summary::holes(round)?;
    let of_second: Vec<String> = holes.iter().filter(|hole| hole.server.ends_with(SIDES[1])).map(ToString::to_string).collect();
    if !of_second.is_empty() {
        say(&format!("stallbench: the second version has no number of: {}", of_second.join("; ")));
    }
    Ok(of_second)
}

fn settings(arguments: &Ab) -> Result<Settings> {
    let names = if arguments.command.is_empty() { arguments.experiment.clone() } else { vec![SERVICE.into()] };
    let connections = arguments.own.connections.map(|count| count as usize);
    let choices = Choices { kinds: Kinds::all(&arguments.blockers), connections };
    let mut settings = Settings::new(Mode::Standard, &names, &choices, fastrand::u64(..))?;
    settings.trials = arguments.trials.unwrap_or(settings.trials);
    Ok(settings)
}

fn row(server: &Server, settings: &Settings) -> Row {
    if server.own.is_none() {
        return round::row(server, settings);
    }
    let what = deploy::own::describe(server);
    Row { unavailable: None, own: Some(what), ..Row::new(server, BTreeMap::new(), Err(String::new())) }
}

fn versions(arguments: &Ab) -> Result<Versions> {
    match (arguments.command.as_slice(), arguments.bin.as_slice()) {
        ([a, b], []) => of_commands([a, b], arguments),
        ([], [a, b]) => of_binaries([a, b], &arguments.words),
        ([], []) => of_revisions(&arguments.words),
        _ => refuse!("--bin and --command are given twice: once for each version"),
    }
}

fn of_commands(commands: [&String; 2], arguments: &Ab) -> Result<Versions> {
    if !arguments.words.is_empty() {
        refuse!("'{}' names a server of the checkout, but --command measures your own", arguments.words[0]);
    }
    let server = |command: &String| -> Result<Vec<Server>> {
        let server = own::server("yours", Program::Shell(command.clone()), &arguments.own, None)?;
        deploy::own::check(&server)?;
        Ok(vec![server])
    };
    Ok(Versions { names: commands.map(Clone::clone), servers: [server(commands[0])?, server(commands[1])?] })
}

fn of_binaries(bins: [&String; 2], words: &[String]) -> Result<Versions> {
    let [name] = words else {
        refuse!("with --bin, name the one server whose arguments both binaries get, such as tokio-multi-thread")
    };
    let server = catalog::find(&catalog::load()?, name)?;
    let version = |bin: &String| -> Result<(String, Vec<Server>)> {
        let (label, path) = bin.split_once('=').with_context(|| format!("'{bin}' does not have the form LABEL=PATH"))?;
        let path = std::fs::canonicalize(path).with_context(|| format!("cannot find {path}"))?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let command = vec![path.to_string_lossy().into_owned()];
        let program = Program::Foreign(Foreign { folder, command, build: Vec::new() });
        Ok((label.to_owned(), vec![Server { program, ..server.clone() }]))
    };
    let ((a, of_a), (b, of_b)) = (version(bins[0])?, version(bins[1])?);
    Ok(Versions { names: [a, b], servers: [of_a, of_b] })
}

fn of_revisions(words: &[String]) -> Result<Versions> {
    let [a, b, filters @ ..] = words else {
        refuse!("name two git revisions, such as `stallbench ab main HEAD tokio`, or give --bin or --command twice")
    };
    let version = |revision: &String| -> Result<Vec<Server>> {
        let tree = worktree(revision)?;
        let mut servers = catalog::select(catalog::load()?, filters)?;
        servers.retain(|server| matches!(server.program, Program::Package(_)) && server.missing().is_none());
        if filters.is_empty() {
            servers.retain(|server| !server.is_peer && server.only_if_asked.is_none() && server.variant_of.is_none());
        }
        for server in &mut servers {
            if let Program::Package(build) = &mut server.program {
                build.tree = Some(tree.clone());
            }
        }
        package::build(&servers, &Progress::new(package::programs(&servers)))?;
        Ok(servers)
    };
    Ok(Versions { names: [a.clone(), b.clone()], servers: [version(a)?, version(b)?] })
}

/// A worktree of a revision below the target folder, made once.
fn worktree(revision: &str) -> Result<PathBuf> {
    let git = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("git").current_dir(tree::root()).args(arguments).output().context("cannot run git")?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            bail!("git {}: {}", arguments.join(" "), words.trim().lines().last().unwrap_or_default());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--verify", "--end-of-options", &format!("{revision}^{{commit}}")])
        .with_context(|| format!("'{revision}' is not a revision of this checkout"))?;
    let folder = package::target().join("ab").join(&commit[..12.min(commit.len())]);
    if !folder.join("Cargo.toml").exists() {
        git(&["worktree", "prune"])?;
        git(&["worktree", "add", "--detach", "--force", &folder.to_string_lossy(), &commit])?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::super::own::tests::timed;
    use super::*;
    use crate::cli::{Cli, Command as Verb};
    use clap::Parser;

    fn learned(slow_ms: [u64; 2], fail_if: &[Gate]) -> Result<serde_json::Value> {
        let words = ["stallbench", "ab", "--command", "a {port}", "--command", "b {port}", "--blocker", "/slow"];
        let Verb::Ab(arguments) = Cli::parse_from(words).command else { panic!("ab") };
        let mut settings = settings(&arguments)?;
        let servers = slow_ms.map(|ms| vec![timed("yours", 1, ms)]);
        let versions = Versions { names: ["a".into(), "b".into()], servers };
        learn(&versions.labelled(), &mut settings, fail_if)?;
        Ok(settings.experiments[SERVICE].clone())
    }

    #[test]
    fn each_version_has_its_own_time_of_the_slow_request() {
        let settings = learned([20, 60], &[]).unwrap();
        let of = |key: &str, server: &str| settings[key][server].clone();
        let slow = ["yours@A", "yours@B"].map(|server| of("slow_ms", server).as_f64().unwrap());
        assert!(slow[0] >= 20.0 && slow[1] >= 60.0 && slow[0] != slow[1], "{slow:?}");
        assert!(of("lone", "yours@A").is_object() && of("lone", "yours@B").is_object(), "{settings}");
    }

    #[test]
    fn a_gate_beside_slow_requests_that_are_not_slow_is_refused_before_a_round_begins() {
        let gate: Gate = "freeze_k[100ms]<8".parse().unwrap();
        let refused = learned([1, 1], std::slice::from_ref(&gate)).unwrap_err().to_string();
        assert!(refused.contains("no slow request was slow, so name one that is with --blocker"), "{refused}");
        assert!(learned([1, 1], &[]).is_ok(), "without a gate there is a warning");
        assert!(learned([1, 60], &[gate]).is_ok(), "one of them is");
    }
}
