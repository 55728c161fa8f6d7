//! Resolves the argument of `start`: a command.

use anyhow::{Context, Result, bail};
use rustix::fs::{Access, access};
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A program to start.
pub struct Resolved {
    /// Its default name.
    pub name: String,
    /// The program as an absolute path, and its arguments.
    pub command: Vec<String>,
}

/// Resolves a command line, or the path of a program.
///
/// # Errors
/// Fails if there is no such program, or it cannot be run.
pub fn command(word: &str) -> Result<Resolved> {
    // A path may contain spaces; otherwise they separate arguments.
    let words: Vec<&str> = if Path::new(word).is_file() { vec![word] } else { word.split_whitespace().collect() };
    let Some((program, arguments)) = words.split_first() else { bail!("the command is empty: name a program") };
    if word.contains(['\'', '"']) {
        bail!("cannot parse the quotes in {word}: put arguments after --");
    }
    let path = find(program)?;
    let base = Path::new(program).file_name().map_or_else(|| (*program).to_owned(), |name| name.to_string_lossy().into_owned());
    let command = std::iter::once(path).chain(arguments.iter().map(|argument| (*argument).to_owned())).collect();
    Ok(Resolved { name: base.trim_end_matches(".sh").to_owned(), command })
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
            "there is no command '{program}': to run a file, write ./{program}; to run a server of this project, `stallbench start {program}`"
        ),
    }
}
