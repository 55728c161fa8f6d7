//! What a person means by a word: a server of the workspace, or a command.

use anyhow::{Context, Result, bail};
use rustix::fs::{Access, access};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that start another one as their child, which then is not the one that `LISTEN_PID` names.
const WRAPPERS: [&str; 8] = ["npm", "npx", "yarn", "pnpm", "sh", "bash", "cargo", "just"];

/// What is to run.
pub struct Resolved {
    /// Its name, unless it is given another.
    pub name: String,
    /// Absolute path, and arguments.
    pub command: Vec<String>,
    /// Why listeners may not reach it.
    pub doubt: Option<String>,
    /// It is one of the workspace, which takes listeners.
    pub is_server: bool,
}

/// The part of a `servers.toml` that says how to start a server.
#[derive(Deserialize)]
struct Manifest {
    runtime: Option<String>,
    package: Option<String>,
    server: Vec<Server>,
}

#[derive(Deserialize)]
struct Server {
    name: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    rustflags: String,
    /// What it cannot do, with the reason.
    #[serde(default)]
    unsupported: BTreeMap<String, String>,
}

/// What stands in `unsupported` of a server that binds for itself.
const INHERITED: &str = "inherited-listener";

/// Finds it: first among the servers of the workspace around this program, then as a command.
///
/// # Errors
/// Neither is there, or it cannot be run.
pub fn what(word: &str) -> Result<Resolved> {
    match server(word)? {
        Some(server) => Ok(server),
        None => command(word),
    }
}

fn command(word: &str) -> Result<Resolved> {
    // A path may have spaces; otherwise they separate arguments.
    let words: Vec<&str> = if Path::new(word).is_file() { vec![word] } else { word.split_whitespace().collect() };
    let Some((program, arguments)) = words.split_first() else { bail!("what is to be started has no name") };
    if word.contains(['\'', '"']) {
        bail!("quotes are not read in {word}: put arguments after --");
    }
    let path = find(program)?;
    let base = Path::new(program).file_name().map_or_else(|| (*program).to_owned(), |name| name.to_string_lossy().into_owned());
    let doubt = WRAPPERS
        .contains(&base.as_str())
        .then(|| format!("{base} starts the server as its child, which LISTEN_PID does not name: it may not take the listeners"));
    let command = std::iter::once(path).chain(arguments.iter().map(|argument| (*argument).to_owned())).collect();
    Ok(Resolved { name: base.trim_end_matches(".sh").to_owned(), command, doubt, is_server: false })
}

/// The folder of the workspace that this program was built in, if it still is there.
fn workspace() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    root.join("runtimes").is_dir().then(|| root.to_path_buf())
}

/// A server by its name, or the first of a runtime that can be given its listener.
fn server(word: &str) -> Result<Option<Resolved>> {
    let Some(root) = workspace() else { return Ok(None) };
    let Ok(folders) = fs::read_dir(root.join("runtimes")) else { return Ok(None) };
    let mut folders: Vec<PathBuf> = folders.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    for folder in folders {
        // `stallbench` says what is wrong with one that does not read.
        let Ok(text) = fs::read_to_string(folder.join("servers.toml")) else { continue };
        let Ok(manifest) = toml::from_str::<Manifest>(&text) else { continue };
        let is_runtime = manifest.runtime.as_deref() == Some(word);
        let is_meant = |server: &&Server| is_runtime && !server.unsupported.contains_key(INHERITED) || server.name == word;
        let (Some(package), Some(server)) = (&manifest.package, manifest.server.iter().find(is_meant)) else { continue };
        if let Some(reason) = server.unsupported.get(INHERITED) {
            bail!("{} cannot be given a listener: {reason}", server.name);
        }
        return built(&root, package, server).map(Some);
    }
    Ok(None)
}

/// A server with its program, which is built if it is not there.
fn built(root: &Path, package: &str, server: &Server) -> Result<Resolved> {
    let target = target(root, server);
    let program = target.join("release").join(package);
    if !program.exists() {
        eprintln!("building {package}");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(root).args(["build", "--release", "--quiet", "--package", package, "--target-dir"]).arg(&target);
        if !server.features.is_empty() {
            cargo.arg("--features").arg(server.features.join(","));
        }
        if !server.rustflags.is_empty() {
            cargo.env("RUSTFLAGS", &server.rustflags);
        }
        if !cargo.status().context("cannot run cargo: install it, or see that PATH has it")?.success() {
            bail!("{package} does not build");
        }
    }
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let arguments = server.args.iter().map(|argument| argument.replace("{W}", &cores.to_string()));
    let command = std::iter::once(program.to_string_lossy().into_owned()).chain(arguments).collect();
    Ok(Resolved { name: server.name.clone(), command, doubt: None, is_server: true })
}

/// Where a server's program is built: each set of build options has a folder of its own.
fn target(root: &Path, server: &Server) -> PathBuf {
    let base = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let options: Vec<&str> = server.features.iter().map(String::as_str).chain(server.rustflags.split_whitespace()).collect();
    if options.is_empty() {
        return base;
    }
    let name = options.join("+").chars().map(|c| if c.is_alphanumeric() || c == '+' { c } else { '-' }).collect::<String>();
    base.join("options").join(name)
}

/// The absolute path of a program, as a shell finds it.
fn find(program: &str) -> Result<String> {
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![std::path::absolute(program)?]
    } else {
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).map(|folder| folder.join(program)).collect()
    };
    let there: Vec<&PathBuf> = candidates.iter().filter(|path| path.is_file()).collect();
    match there.iter().find(|path| access(path.as_path(), Access::EXEC_OK).is_ok()) {
        Some(path) => Ok(std::path::absolute(path)?.to_string_lossy().into_owned()),
        None if !there.is_empty() => bail!("{} is not executable: chmod +x it", there[0].display()),
        None if program.contains('/') => bail!("there is no {program}"),
        None => bail!(
            "there is no server and no command '{program}': `stallbench servers` lists servers (peers cannot be started here); a file is named as ./{program}"
        ),
    }
}
