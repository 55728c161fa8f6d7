//! What a person means by a word: a server of the workspace, or a command.

use anyhow::{Context, Result, bail};
use rustix::fs::{Access, access};
use serde::Deserialize;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

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
}

/// Finds it: first among the servers of the workspace around this program, then as a command.
///
/// # Errors
/// Neither is there, or it cannot be run.
pub fn what(word: &str) -> Result<Resolved> {
    if let Some(server) = server(word)? {
        return Ok(server);
    }
    let mut parts = word.split_whitespace().map(str::to_owned);
    let program = parts.next().context("what is to be started has no name")?;
    let path = find(&program)?;
    let base = Path::new(&program).file_name().map_or_else(|| program.clone(), |name| name.to_string_lossy().into_owned());
    let doubt = WRAPPERS
        .contains(&base.as_str())
        .then(|| format!("{base} starts the server as its child, which LISTEN_PID does not name: it may not take the listeners"));
    let command = std::iter::once(path).chain(parts).collect();
    let name = base.trim_end_matches(".sh").to_owned();
    Ok(Resolved { name, command, doubt, is_server: false })
}

/// The folder of the workspace: the one that this program was built in.
fn workspace() -> Option<PathBuf> {
    let program = env::current_exe().ok()?;
    program.ancestors().find(|folder| folder.join("runtimes").is_dir()).map(Path::to_path_buf)
}

/// A server by its name, or the first of a runtime.
fn server(word: &str) -> Result<Option<Resolved>> {
    let Some(root) = workspace() else { return Ok(None) };
    let Ok(folders) = fs::read_dir(root.join("runtimes")) else { return Ok(None) };
    for folder in folders.flatten() {
        let path = folder.path().join("servers.toml");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let manifest: Manifest = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let is_runtime = manifest.runtime.as_deref() == Some(word);
        let (Some(package), Some(server)) =
            (&manifest.package, manifest.server.iter().find(|server| is_runtime || server.name == word))
        else {
            continue;
        };
        let program = target(&root, server).join("release").join(package);
        if !program.exists() {
            bail!("{} is not built: `cargo run --release -- build {}`", server.name, server.name);
        }
        let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
        let arguments = server.args.iter().map(|argument| argument.replace("{W}", &cores.to_string()));
        let command = std::iter::once(program.to_string_lossy().into_owned()).chain(arguments).collect();
        return Ok(Some(Resolved { name: server.name.clone(), command, doubt: None, is_server: true }));
    }
    Ok(None)
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
        Some(path) => Ok(path.to_string_lossy().into_owned()),
        None if !there.is_empty() => bail!("{} is not executable: chmod +x it", there[0].display()),
        None if program.contains('/') => bail!("there is no {program}"),
        None => bail!("there is no server and no command '{program}': see `stallbench servers`, or name a file as ./{program}"),
    }
}
