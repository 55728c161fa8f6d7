//! The servers there are, as their `servers.toml` say. No other list names them.

pub mod needs;

use crate::verdict::spread::AGAIN;
use anyhow::{Context, Result, bail};
use needs::{Need, find_program};
use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder's `servers.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    runtime: Option<String>,
    peer: Option<String>,
    package: Option<String>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    build: Vec<String>,
    #[serde(default)]
    requires: Vec<String>,
    only_if_asked: Option<String>,
    http: String,
    server: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    model: String,
    args: Vec<String>,
    blocking: Blocking,
    about: String,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    rustflags: String,
    #[serde(default)]
    needs: Vec<Need>,
    /// Its threads are the cluster: it does not fork.
    #[serde(default)]
    one_process: bool,
    /// The server of which this one is a variant, which a quick round leaves out.
    variant_of: Option<String>,
    /// Of a person's own server, which knows no contract: what must stay quick, and what is slow.
    probe: Option<String>,
    blocker: Option<String>,
    #[serde(default)]
    unsupported: BTreeMap<String, String>,
}

/// One runtime in one model: a row in every table.
#[derive(Debug, Clone)]
pub struct Server {
    /// `<runtime>-<model>`, and `@system` behind it with the system's allocator.
    pub name: String,
    /// The library that schedules work, or the peer.
    pub runtime: String,
    /// How work meets threads and processes.
    pub model: String,
    /// Whose HTTP codec answers.
    pub http: String,
    /// Where blocking work runs.
    pub blocking: Blocking,
    /// One sentence.
    pub about: String,
    /// Others wrote it.
    pub is_peer: bool,
    /// Experiments and checks that it cannot take part in, with the reason.
    pub unsupported: BTreeMap<String, String>,
    /// Command line, with `{W}` for the number of threads or processes.
    pub args: Vec<String>,
    /// How it is built and started.
    pub program: Program,
    /// Its threads are the cluster: it does not fork.
    pub is_one_process: bool,
    /// A variant of another, which a quick round leaves out.
    pub variant_of: Option<String>,
    /// Of one that knows no contract: a path that must stay quick, and one that is slow.
    pub own: Option<(String, String)>,
    /// Programs that building or running it takes.
    pub requires: Vec<String>,
    /// What it takes of the kernel and its limits.
    pub needs: Vec<Need>,
    /// Built, checked and measured only where it is asked for, and why.
    pub only_if_asked: Option<String>,
}

impl Server {
    /// Why it cannot run here; none if it can.
    pub fn missing(&self) -> Option<String> {
        let program = self.requires.iter().find(|name| find_program(name).is_none()).map(|name| format!("{name} not found"));
        program.or_else(|| self.needs.iter().find_map(|need| need.missing()))
    }
}

/// Where blocking work runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blocking {
    /// On the thread that serves the connection.
    Inline,
    /// On a thread of a pool of its own.
    Offloaded,
    /// On the thread that serves the connection, after the runtime was told.
    InPlace,
}

impl fmt::Display for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Blocking::Inline => "inline",
            Blocking::Offloaded => "offloaded",
            Blocking::InPlace => "in-place",
        })
    }
}

/// How a server is built and started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// A package of the workspace.
    Package(Build),
    /// Whatever else runs, inside its folder.
    Foreign(Foreign),
}

/// A program that cargo does not build. In both commands `{target}` stands for the folder of built things.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    /// The folder of its `servers.toml`.
    pub folder: PathBuf,
    /// What starts it; arguments follow.
    pub command: Vec<String>,
    /// What builds it; empty if nothing has to.
    pub build: Vec<String>,
}

/// What makes one binary differ from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Build {
    /// Cargo's package.
    pub package: String,
    /// Cargo's features.
    pub features: Vec<String>,
    /// Flags to the compiler.
    pub rustflags: String,
}

/// Which allocators a round compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Allocator {
    /// The one that every server has unless told otherwise
    Mimalloc,
    /// The operating system's
    System,
    /// One row for each
    Both,
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// All servers, in the order of their folders: runtimes first, then peers.
///
/// # Errors
/// A manifest that cannot be read, with its path and what is wrong with it.
pub fn load() -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for group in ["runtimes", "peers"] {
        let mut folders: Vec<PathBuf> = match fs::read_dir(root().join(group)) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(_) => continue,
        };
        folders.sort();
        for manifest in folders.iter().map(|folder| folder.join("servers.toml")).filter(|path| path.exists()) {
            servers.extend(read(&manifest)?);
        }
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = servers.iter().find(|server| !names.insert(&server.name)) {
        bail!("two servers are named '{}': one of the servers.toml that say so was copied and not changed", twice.name);
    }
    if servers.is_empty() {
        bail!("no servers.toml below {}: run this inside the checkout it was built from", root().display());
    }
    Ok(servers)
}

/// The servers of one manifest.
///
/// # Errors
/// It cannot be read, or says what cannot be.
pub fn read(path: &Path) -> Result<Vec<Server>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: Manifest = toml::from_str(&text).with_context(|| format!("{} is not a valid servers.toml", path.display()))?;
    let is_peer = manifest.peer.is_some();
    let Some(runtime) = manifest.runtime.or(manifest.peer) else {
        bail!("{}: says neither runtime = nor peer =", path.display());
    };
    let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
    let program = |features, rustflags| match (&manifest.package, manifest.command.is_empty()) {
        (Some(package), true) => Ok(Program::Package(Build { package: package.clone(), features, rustflags })),
        (None, false) => {
            let (command, build) = (manifest.command.clone(), manifest.build.clone());
            Ok(Program::Foreign(Foreign { folder: folder.clone(), command, build }))
        }
        _ => bail!("{}: says neither package = nor command =, or both", path.display()),
    };
    let server = |entry: Entry| {
        Ok(Server {
            name: entry.name,
            runtime: runtime.clone(),
            model: entry.model,
            http: manifest.http.clone(),
            blocking: entry.blocking,
            about: entry.about,
            is_peer,
            unsupported: entry.unsupported,
            args: entry.args,
            program: program(entry.features, entry.rustflags)?,
            requires: manifest.requires.clone(),
            needs: entry.needs,
            is_one_process: entry.one_process,
            variant_of: entry.variant_of,
            own: entry.blocker.map(|blocker| (entry.probe.unwrap_or_else(|| "/".into()), blocker)),
            only_if_asked: manifest.only_if_asked.clone(),
        })
    };
    let servers: Vec<Server> = manifest.server.into_iter().map(server).collect::<Result<_>>()?;
    if let Some(wrong) = servers.iter().find(|server| server.name != format!("{}-{}", server.runtime, server.model)) {
        bail!(
            "{}: '{}' should be named '{}-{}', after its runtime and its model",
            path.display(),
            wrong.name,
            wrong.runtime,
            wrong.model
        );
    }
    Ok(servers)
}

/// The servers that one of the filters matches: a server's name, a runtime's, or a regular expression over names. No filter takes all.
///
/// # Errors
/// A filter that matches nothing, with the nearest known names.
pub fn select(servers: Vec<Server>, filters: &[String]) -> Result<Vec<Server>> {
    if filters.is_empty() {
        return Ok(servers);
    }
    let mut is_wanted = vec![false; servers.len()];
    for filter in filters {
        if filter.is_empty() {
            bail!("an empty filter matches nothing in particular; leave it out to take all servers");
        }
        // A name is that server, a runtime's name all of its servers, and anything else a pattern.
        let is_server = servers.iter().any(|server| server.name == *filter);
        let is_runtime = servers.iter().any(|server| server.runtime == *filter);
        let pattern = Regex::new(filter).with_context(|| format!("'{filter}' is neither a server nor a regular expression"))?;
        let mut found = false;
        for (server, is_wanted) in servers.iter().zip(&mut is_wanted) {
            let matches = match (is_server, is_runtime) {
                (true, _) => server.name == *filter,
                (_, true) => server.runtime == *filter,
                _ => pattern.is_match(&server.name),
            };
            *is_wanted |= matches;
            found |= matches;
        }
        if !found {
            let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
            bail!("no server matches '{filter}'; {}", nearest(filter, &names));
        }
    }
    Ok(servers.into_iter().zip(is_wanted).filter_map(|(server, is_wanted)| is_wanted.then_some(server)).collect())
}

/// The one server that a person means: by name, or a runtime's first.
///
/// # Errors
/// A name that nobody has, with the nearest known ones.
pub fn find(servers: &[Server], name: &str) -> Result<Server> {
    let by_name = servers.iter().find(|server| server.name == name);
    if let Some(server) = by_name.or_else(|| servers.iter().find(|server| server.runtime == name)) {
        return Ok(server.clone());
    }
    let names: Vec<&str> = servers.iter().flat_map(|server| [server.name.as_str(), server.runtime.as_str()]).collect();
    bail!("there is no server or runtime '{name}'; {}", nearest(name, &names))
}

/// The rows of a round: each server with each allocator.
pub fn with_allocators(servers: Vec<Server>, allocator: Allocator) -> Vec<Server> {
    // Only what is built from this workspace has a choice.
    let system = |server: &Server| {
        let mut server = server.clone();
        let Program::Package(build) = &mut server.program else { return None };
        build.features.push("system-allocator".into());
        server.name.push_str("@system");
        Some(server)
    };
    match allocator {
        Allocator::Mimalloc => servers,
        Allocator::System => servers.iter().filter_map(system).collect(),
        Allocator::Both => servers.iter().flat_map(|server| [Some(server.clone()), system(server)]).flatten().collect(),
    }
}

/// The rows of a null round: each server under two names.
pub fn with_second_names(servers: &[Server]) -> Vec<Server> {
    let again = |server: &Server| Server { name: format!("{}{AGAIN}", server.name), ..server.clone() };
    servers.iter().flat_map(|server| [server.clone(), again(server)]).collect()
}

/// A hint at what may have been meant.
pub fn nearest(wanted: &str, known: &[&str]) -> String {
    // A runtime is named by each of its servers.
    let known: BTreeSet<&str> = known.iter().copied().collect();
    let mut ranked: Vec<(f64, &str)> = known.iter().map(|name| (strsim::jaro_winkler(wanted, name), *name)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<&str> = ranked.iter().take(3).filter(|(score, _)| *score > 0.6).map(|(_, name)| *name).collect();
    if near.is_empty() {
        format!("there are: {}", Vec::from_iter(known).join(", "))
    } else {
        format!("did you mean {}?", near.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_of_the_workspace_reads_and_names_are_unique() {
        let servers = load().unwrap();
        let mut names: Vec<_> = servers.iter().map(|server| server.name.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), servers.len());
        for server in &servers {
            assert!(server.name.starts_with(&server.runtime), "{} is not named after {}", server.name, server.runtime);
        }
    }

    #[test]
    fn filters_take_names_and_patterns_and_refuse_what_matches_nothing() {
        let names = |filters: &[&str]| -> Result<Vec<String>> {
            let filters: Vec<String> = filters.iter().map(ToString::to_string).collect();
            Ok(select(load()?, &filters)?.into_iter().map(|server| server.name).collect())
        };
        assert_eq!(names(&["smol-forked"]).unwrap(), ["smol-forked"]);
        assert_eq!(names(&["std"]).unwrap(), ["std-thread-per-connection", "std-thread-pool"], "not async-std");
        assert_eq!(
            names(&["^smol-.*thread$", "tokio-forked"]).unwrap(),
            ["smol-current-thread", "smol-multi-thread", "tokio-forked"]
        );
        let error = names(&["smoll-forked"]).unwrap_err().to_string();
        assert!(error.contains("did you mean smol-forked"), "{error}");
        assert!(names(&["("]).is_err());
        assert!(names(&[""]).is_err());
    }

    #[test]
    fn a_runtime_stands_for_its_first_server() {
        assert_eq!(find(&load().unwrap(), "smol").unwrap().name, "smol-current-thread");
        assert!(find(&load().unwrap(), "smal").unwrap_err().to_string().contains("did you mean smol"));
    }
}
