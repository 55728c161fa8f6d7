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
use crate::process::deploy::{self, package};
use crate::round::{self, Round, Settings, new_folder};
use crate::summary;
use crate::summary::comparison::{self, Sides};
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
    let versions = versions(arguments)?;
    let mut settings = settings(arguments, &versions)?;
    if !arguments.command.is_empty() {
        let all: Vec<Server> = versions.servers.concat();
        settings.experiments.insert(SERVICE.into(), serde_json::to_value(own::learn(&all, &settings)?)?);
    }
    round::prepare(&settings, &versions.servers.concat())?;
    let labelled = |side: usize| {
        let rename = move |server: &Server| Server { name: format!("{}{}", server.name, SIDES[side]), ..server.clone() };
        versions.servers[side].iter().map(rename).collect::<Vec<_>>()
    };
    let all: Vec<Server> = [labelled(0), labelled(1)].concat();
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

fn compare(round: &Round, versions: &Versions, arguments: &Ab) -> Result<ExitCode> {
    let shape = &arguments.shape;
    let numbers = round::numbers(round, shape.percentile)?;
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
    let compared = comparison::compare(&sides, &noise, &arguments.gates.fail_if, &shape.filters, Vec::new())?;
    if arguments.gates.list_metrics {
        return list_metrics(std::slice::from_ref(&compared));
    }
    print(&comparison::render(std::slice::from_ref(&compared), arguments.all, shape.format(), &shape.terminal())?)?;
    let failed = report_failures(std::slice::from_ref(&compared));
    Ok(if failed || !summary::is_complete(round)? { ExitCode::from(super::SOME_FAILED) } else { ExitCode::SUCCESS })
}

fn settings(arguments: &Ab, versions: &Versions) -> Result<Settings> {
    let names = if arguments.command.is_empty() { arguments.experiment.clone() } else { vec![SERVICE.into()] };
    let connections = arguments.own.connections.map(|count| count as usize);
    let choices = Choices { kinds: Kinds::all(&arguments.blockers), connections };
    let mut settings = Settings::new(Mode::Standard, &names, &choices, fastrand::u64(..))?;
    settings.trials = arguments.trials.unwrap_or(settings.trials);
    // Not one that a page may quote.
    settings.filters = versions.servers[0].iter().map(|server| server.name.clone()).collect();
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
