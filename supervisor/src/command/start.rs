//! `start` runs an app in the environment of this command.

use super::resolve::{self, Resolved};
use super::{apply, client};
use crate::cli::{self, Begin, Start};
use anyhow::{Context, Result, bail};
use clap::Parser;
use std::collections::BTreeSet;
use std::fs;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use supervisor::control::{Request, Table};
use supervisor::home::Home;
use supervisor::home::current_umask;
use supervisor::limits;
use supervisor::selector::Selector;
use supervisor::spec::{Limit, Options, Spec, UNIX};

/// Starts an app, and waits until it is ready.
///
/// # Errors
/// Fails if there is no such program, or it does not become ready.
pub fn run(begin: &Begin) -> Result<()> {
    let Begin { start, env, only } = begin;
    let is_file = Path::new(&start.what).extension().is_some_and(|extension| extension == "toml");
    if start.interpreter.is_none() && is_pm2s(Path::new(&start.what)) {
        bail!(
            "{0} is an ecosystem file of PM2's: run `supervisor import {0} -o supervisor.toml`, then `supervisor start supervisor.toml`",
            start.what
        );
    }
    if !is_file && (env.is_some() || !only.is_empty()) {
        bail!("--env and --only choose from a supervisor.toml, and {} is not one", start.what);
    }
    let table = client::table()?;
    let selector = Selector::new(&start.what);
    // With a name of its own, it is a new app, whatever the others are called.
    if start.name.is_none() && !start.force && table.all().any(|(app, one)| app.is_meant(one, &selector)) {
        if !is_bare(start) {
            bail!("{0} is in the list, and start does not change its options: run `supervisor delete {0}` first", start.what);
        }
        return client::ask(&Request::Resume(start.what.clone()));
    }
    if is_file {
        if !is_bare(start) {
            bail!("options beside {} have no effect: write them into it", start.what);
        }
        // All apps are read before the first one starts.
        let specs = apply::specs(Path::new(&start.what), env.as_deref(), only)?;
        // If one app fails, the others still start, now and on the next attempt.
        return client::all(specs.into_iter().map(|(spec, instances)| begin_declared(spec, instances, &table, &start.what)));
    }
    let mut spec = spec(start)?;
    if start.force {
        let is_taken = |name: &str| table.app(name).is_some();
        let names = (2..).map(|number| format!("{}-{number}", spec.name));
        if let Some(free) = std::iter::once(spec.name.clone()).chain(names).find(|name| !is_taken(name)) {
            spec.name = free;
        }
    }
    self::begin(spec, start.instances)
}

/// Returns whether PM2 would read a file as a list of apps, and not run it.
fn is_pm2s(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.is_file()
        && [".config.js", ".config.cjs", ".config.mjs", ".json", ".yml", ".yaml"].iter().any(|ending| name.ends_with(ending))
}

/// Returns whether nothing but the argument itself was given.
fn is_bare(start: &Start) -> bool {
    let bare = cli::Supervisor::try_parse_from(["supervisor", "start", &start.what]);
    matches!(bare.map(|line| line.command), Ok(cli::Command::Start(bare)) if bare.start == *start)
}

/// Starts an app of a file. One that is in the list has to be as the file says.
fn begin_declared(spec: Spec, instances: u32, table: &Table, file: &str) -> Result<()> {
    let Some(app) = table.app(&spec.name) else {
        return begin(spec, Some(instances));
    };
    let old = fs::read(Home::open()?.spec(&spec.name)).ok().and_then(|text| serde_json::from_slice::<Spec>(&text).ok());
    let mut differ = old.map(|old| apply::differences(&old, &spec)).unwrap_or_default();
    differ.extend((app.instances.len() != instances as usize).then(|| "number of instances".to_owned()));
    match differ.as_slice() {
        [] => client::ask(&Request::Resume(spec.name)),
        differ => bail!("{} differs from {file} ({}): run `supervisor apply {file}`", spec.name, differ.join(", ")),
    }
}

fn begin(spec: Spec, instances: Option<u32>) -> Result<()> {
    client::begin()?;
    client::ask(&Request::Start { spec: Box::new(spec), instances: instances.unwrap_or(1) })
}

/// Returns the specification of a command line, with the environment of this process.
///
/// # Errors
/// Fails if there is no such program, or an option has no meaning.
pub fn spec(start: &Start) -> Result<Spec> {
    let Resolved { name, mut command, script, is_node } = resolve::command(&start.what, start.interpreter.as_deref())?;
    command.extend(start.arguments.iter().cloned());
    let here = resolve::here()?;
    let directory = start.cwd.as_ref().map_or(here.clone(), |folder| here.join(folder));
    if !directory.is_dir() {
        bail!("--cwd {} is not a folder", directory.display());
    }
    let spec = Spec {
        name: start.name.clone().unwrap_or(name),
        command,
        directory,
        environment: std::env::vars_os().collect(),
        umask: current_umask(),
        limits: limits().into_iter().map(limit).collect(),
        file: None,
        declared: BTreeSet::new(),
        script,
        is_node,
        listeners: start.listen.iter().map(|address| resolved(address)).collect::<Result<Vec<_>>>()?,
        options: Options {
            log: absolute(start.log.as_ref())?,
            output: absolute(start.output.as_ref())?,
            error: absolute(start.error.as_ref())?,
            ..(&start.options).into()
        },
    };
    spec.check()?;
    spec.check_new()?;
    Ok(spec)
}

/// Returns a path that stays the same in another folder.
fn absolute(path: Option<&PathBuf>) -> Result<Option<PathBuf>> {
    let Some(path) = path else { return Ok(None) };
    let path = std::path::absolute(resolve::here()?.join(path))?;
    if path.is_dir() {
        bail!("{} is a folder: name the file of the log in it", path.display());
    }
    Ok(Some(path))
}

/// Resolves an address to numbers, so that the keeper never waits for a name server.
fn resolved(address: &str) -> Result<String> {
    if let Some(path) = address.strip_prefix(UNIX) {
        return Ok(format!("{UNIX}{}", resolve::here()?.join(path).display()));
    }
    let all = address
        .to_socket_addrs()
        .with_context(|| format!("--listen {address} is not an address such as 127.0.0.1:8080 or unix:/run/app.sock"))?;
    let mut all: Vec<String> = all.map(|one| one.to_string()).collect();
    all.sort();
    all.dedup();
    match all.as_slice() {
        [] => bail!("--listen {address} has no IP address"),
        [one] => Ok(one.clone()),
        // Taking one of them in silence would leave the other's clients outside.
        _ => bail!("--listen {address} means {}: name one of them, or both with --listen each", all.join(" and ")),
    }
}

fn limit(resource: rustix::process::Resource) -> Limit {
    let limit = rustix::process::getrlimit(resource);
    Limit { current: limit.current, maximum: limit.maximum }
}
