//! `servers.toml`: the servers of one folder.

use super::named::read_named;
use super::needs::Need;
use super::server::{Ask, Blocking, Build, Foreign, Own, PinnedTo, Program, Server};
use crate::host::tree::root;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The longest manifest, in MiB.
const MOST_MIB: u64 = 1;

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
    unmaintained: Option<String>,
    http: String,
    /// What none of its servers can take part in.
    #[serde(default)]
    unsupported: BTreeMap<String, String>,
    server: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    model: String,
    args: Vec<String>,
    blocking: Blocking,
    #[serde(default)]
    runs_on: String,
    pinned_to: Option<PinnedTo>,
    about: String,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    rustflags: String,
    #[serde(default)]
    needs: Vec<Need>,
    #[serde(default)]
    one_process: bool,
    variant_of: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    /// For a user's own server, which does not keep the contract: a request that must stay quick, and one that is slow.
    probe: Option<String>,
    blocker: Option<String>,
    #[serde(default)]
    unsupported: BTreeMap<String, String>,
}

/// All servers of the checkout, in the order of their folders: runtimes first, then peers.
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
    refuse_same_names(&servers)?;
    if servers.is_empty() {
        bail!("no servers.toml below {}: run stallbench inside a checkout of it, or name one with --root", root().display());
    }
    Ok(servers)
}

/// Refuses servers of the same name: a round could not tell them apart.
///
/// # Errors
/// Two have the same name.
pub fn refuse_same_names(servers: &[Server]) -> Result<()> {
    let mut names = BTreeSet::new();
    match servers.iter().find(|server| !names.insert(&server.name)) {
        Some(twice) => bail!("two servers are named '{}': rename one of them in its servers.toml", twice.name),
        None => Ok(()),
    }
}

/// The servers of one manifest.
///
/// # Errors
/// It cannot be read, names no server, or contradicts itself.
pub fn read(path: &Path) -> Result<Vec<Server>> {
    let text = String::from_utf8(read_named(path, MOST_MIB)?).with_context(|| format!("{} is not text", path.display()))?;
    let manifest: Manifest = toml::from_str(&text).with_context(|| format!("{} is not a valid servers.toml", path.display()))?;
    let is_peer = manifest.peer.is_some();
    let Some(runtime) = manifest.runtime.clone().or(manifest.peer.clone()) else {
        bail!("{}: needs `runtime =` or `peer =`", path.display());
    };
    // Commands run inside the folder, so its path must not depend on the current directory.
    let folder = fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?;
    let folder = folder.parent().unwrap_or(Path::new("/")).to_path_buf();
    let program = |features, rustflags| match (&manifest.package, manifest.command.is_empty()) {
        (Some(package), true) => Ok(Program::Package(Build { package: package.clone(), features, rustflags, tree: None })),
        (None, false) => {
            let (command, build) = (manifest.command.clone(), manifest.build.clone());
            Ok(Program::Foreign(Foreign { folder: folder.clone(), command, build }))
        }
        _ => bail!("{}: needs either `package =` or `command =`", path.display()),
    };
    let server = |entry: Entry| {
        let own = own(&entry).map_err(|error| anyhow::anyhow!("{}: {}: {error}", path.display(), entry.name))?;
        Ok(Server {
            name: entry.name,
            runtime: runtime.clone(),
            model: entry.model,
            http: manifest.http.clone(),
            blocking: entry.blocking,
            runs_on: entry.runs_on,
            pinned_to: entry.pinned_to,
            about: entry.about,
            is_peer,
            unsupported: manifest.unsupported.clone().into_iter().chain(entry.unsupported).collect(),
            args: entry.args,
            program: program(entry.features, entry.rustflags)?,
            requires: manifest.requires.clone(),
            needs: entry.needs,
            is_one_process: entry.one_process,
            variant_of: entry.variant_of,
            tags: entry.tags,
            own,
            only_if_asked: manifest.only_if_asked.clone(),
            unmaintained: manifest.unmaintained.clone(),
        })
    };
    let servers: Vec<Server> = manifest.server.into_iter().map(server).collect::<Result<_>>()?;
    if servers.is_empty() {
        bail!("{}: names no server: add a [[server]]", path.display());
    }
    refuse_same_names(&servers).with_context(|| path.display().to_string())?;
    if let Some(wrong) = servers.iter().find(|server| !is_named_after_its_model(server)) {
        bail!(
            "{}: rename '{}' to '{}-{}', after its runtime and its model; the variant of a model may add a word",
            path.display(),
            wrong.name,
            wrong.runtime,
            wrong.model
        );
    }
    Ok(servers)
}

fn is_named_after_its_model(server: &Server) -> bool {
    let rest = server.name.strip_prefix(&format!("{}-{}", server.runtime, server.model));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-') && server.variant_of.is_some())
}

fn own(entry: &Entry) -> Result<Option<Own>, String> {
    let Some(blocker) = &entry.blocker else { return Ok(None) };
    let probe: Ask = entry.probe.as_deref().unwrap_or("/").parse()?;
    Ok(Some(Own { probe, blocker: blocker.parse()?, headers: Vec::new(), host: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_of_the_workspace_reads_and_names_are_unique() {
        for server in &load().unwrap() {
            assert!(server.name.starts_with(&server.runtime), "{} is not named after {}", server.name, server.runtime);
            assert!(!server.runs_on.is_empty(), "{} does not say what its blocking calls run on", server.name);
        }
    }

    #[test]
    fn a_manifest_is_found_by_its_bare_name_and_told_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let text = |top: &str| {
            format!(
                "{top}\nhttp = \"mine\"\n[[server]]\nname = \"a-b\"\nmodel = \"b\"\nargs = []\nblocking = \"inline\"\nabout = \"x\"\nblocker = \"/slow\"\n"
            )
        };
        fs::write(&path, text("runtime = \"a\"\ncommand = [\"./srv\"]")).unwrap();
        let servers = read(&path).unwrap();
        let Program::Foreign(foreign) = &servers[0].program else { panic!("{:?}", servers[0].program) };
        assert!(foreign.folder.is_absolute());
        fs::write(&path, text("command = [\"./srv\"]")).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("needs `runtime =` or `peer =`"));
    }
}
