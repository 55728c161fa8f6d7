//! Resolves the argument of `start`: a server of the workspace, or a command.

use anyhow::{Context, Result, bail};
use rustix::fs::{Access, access};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that start the server as their child, whose process id `LISTEN_PID` does not name.
const WRAPPERS: [&str; 8] = ["npm", "npx", "yarn", "pnpm", "sh", "bash", "cargo", "just"];

/// A program to start.
pub struct Resolved {
    /// Its default name.
    pub name: String,
    /// The program as an absolute path, and its arguments.
    pub command: Vec<String>,
    /// The reason to doubt that listeners reach it, if there is one.
    pub doubt: Option<String>,
    /// It is a server of the workspace, which accepts listeners.
    pub is_server: bool,
}

/// The part of a `servers.toml` that describes how to start a server.
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
    /// The features that it does not support, each with the reason.
    #[serde(default)]
    unsupported: BTreeMap<String, String>,
}

/// The key in `unsupported` for a server that binds its own listener.
const INHERITED: &str = "inherited-listener";

/// Resolves a word: first as a server of the workspace that this program was built in, then as a command.
///
/// # Errors
/// Fails if there is neither a server nor a command of this name, or it cannot be run.
pub fn what(word: &str) -> Result<Resolved> {
    match server(word)? {
        Some(server) => Ok(server),
        None => command(word),
    }
}

fn command(word: &str) -> Result<Resolved> {
    // A path may contain spaces; otherwise they separate arguments.
    let words: Vec<&str> = if Path::new(word).is_file() { vec![word] } else { word.split_whitespace().collect() };
    let Some((program, arguments)) = words.split_first() else { bail!("the command is empty: name a server or a command") };
    if word.contains(['\'', '"']) {
        bail!("cannot parse the quotes in {word}: put arguments after --");
    }
    let path = find(program)?;
    let base = Path::new(program).file_name().map_or_else(|| (*program).to_owned(), |name| name.to_string_lossy().into_owned());
    let doubt = WRAPPERS
        .contains(&base.as_str())
        .then(|| format!("{base} starts the server as its child, which LISTEN_PID does not name: it may get no listeners"));
    let command = std::iter::once(path).chain(arguments.iter().map(|argument| (*argument).to_owned())).collect();
    Ok(Resolved { name: base.trim_end_matches(".sh").to_owned(), command, doubt, is_server: false })
}

/// Returns the folder of the workspace that this program was built in, if it still exists.
fn workspace() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    root.join("runtimes").is_dir().then(|| root.to_path_buf())
}

/// Finds a server by its name, or the first server of a runtime that accepts listeners.
fn server(word: &str) -> Result<Option<Resolved>> {
    let Some(root) = workspace() else { return Ok(None) };
    let Ok(folders) = fs::read_dir(root.join("runtimes")) else { return Ok(None) };
    let mut folders: Vec<PathBuf> = folders.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    for folder in folders {
        // `stallbench` reports errors in unreadable files.
        let Ok(text) = fs::read_to_string(folder.join("servers.toml")) else { continue };
        let Ok(manifest) = toml::from_str::<Manifest>(&text) else { continue };
        let is_runtime = manifest.runtime.as_deref() == Some(word);
        let is_meant = |server: &&Server| is_runtime && !server.unsupported.contains_key(INHERITED) || server.name == word;
        let (Some(package), Some(server)) = (&manifest.package, manifest.server.iter().find(is_meant)) else { continue };
        if let Some(reason) = server.unsupported.get(INHERITED) {
            bail!("{} cannot use a listener of the supervisor: {reason}", server.name);
        }
        return built(&root, package, server).map(Some);
    }
    Ok(None)
}

/// Returns the command of a server, and builds its program if it does not exist.
fn built(root: &Path, package: &str, server: &Server) -> Result<Resolved> {
    let target = target(root, server);
    let program = target.join("release").join(package);
    if !program.exists() {
        super::remark(&format!("building {package}"));
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(root).args(["build", "--release", "--quiet", "--package", package, "--target-dir"]).arg(&target);
        if !server.features.is_empty() {
            cargo.arg("--features").arg(server.features.join(","));
        }
        if !server.rustflags.is_empty() {
            cargo.env("RUSTFLAGS", &server.rustflags);
        }
        if !cargo.status().context("cannot run cargo: install it, or add it to PATH")?.success() {
            bail!("cannot build {package}: see cargo's output above");
        }
    }
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let arguments = server.args.iter().map(|argument| argument.replace("{W}", &cores.to_string()));
    let command = std::iter::once(program.to_string_lossy().into_owned()).chain(arguments).collect();
    Ok(Resolved { name: server.name.clone(), command, doubt: None, is_server: true })
}

/// Returns the target folder of a server's program. Each set of build options has its own.
fn target(root: &Path, server: &Server) -> PathBuf {
    let base = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let options: Vec<&str> = server.features.iter().map(String::as_str).chain(server.rustflags.split_whitespace()).collect();
    if options.is_empty() {
        return base;
    }
    let name = options.join("+").chars().map(|c| if c.is_alphanumeric() || c == '+' { c } else { '-' }).collect::<String>();
    base.join("options").join(name)
}

/// Returns the working directory as the user typed it. A `current` link that is moved later leads to the new release then.
///
/// # Errors
/// Fails if the directory has been deleted.
pub fn here() -> Result<PathBuf> {
    let current = env::current_dir().context("cannot read the working directory, which may have been deleted")?;
    let same = |one: &Path| {
        let id = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
        one.is_absolute() && id(one).is_some() && id(one) == id(&current)
    };
    Ok(env::var_os("PWD").map(PathBuf::from).filter(|typed| same(typed)).unwrap_or(current))
}

/// Returns the absolute path of a program, which it finds as a shell does.
fn find(program: &str) -> Result<String> {
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![here()?.join(program)]
    } else {
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).map(|folder| folder.join(program)).collect()
    };
    let there: Vec<&PathBuf> = candidates.iter().filter(|path| path.is_file()).collect();
    match there.iter().find(|path| access(path.as_path(), Access::EXEC_OK).is_ok()) {
        Some(path) => Ok(std::path::absolute(path)?.to_string_lossy().into_owned()),
        None if !there.is_empty() => bail!("{} is not executable: run chmod +x on it", there[0].display()),
        None if program.contains('/') => bail!("there is no file {program}"),
        None => bail!(
            "there is no server or command '{program}': `stallbench servers` lists servers, but peers cannot be started here; \
             to run a file, write ./{program}"
        ),
    }
}
