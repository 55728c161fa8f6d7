//! Resolves the argument of `start`: a command.

use anyhow::{Context, Result, bail};
use rustix::fs::{Access, access};
use std::cell::RefCell;
use std::env;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Interpreters by the ending of the file that they run.
const INTERPRETERS: [(&str, &str); 7] =
    [("js", "node"), ("cjs", "node"), ("mjs", "node"), ("py", "python3"), ("rb", "ruby"), ("pl", "perl"), ("sh", "bash")];
/// What the kernel reads of the line after `#!`.
const LONGEST_LINE: u64 = 256;
/// The interpreter that our preload is for.
const NODE: &str = "node";
/// The interpreter that means none.
const NONE: &str = "none";

thread_local! {
    /// The folder that this process has gone to, as it was typed.
    static TYPED: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// A program to start.
pub struct Resolved {
    /// Its default name.
    pub name: String,
    /// The program as an absolute path, and its arguments.
    pub command: Vec<String>,
    /// The file that is run, if the command begins with its interpreter.
    pub script: Option<PathBuf>,
    /// It runs in Node.
    pub is_node: bool,
}

/// Resolves a command line, or the path of a program. A file that says nothing else runs in the interpreter of its ending.
///
/// # Errors
/// Fails if there is no such program, or it cannot be run.
pub fn command(word: &str, interpreter: Option<&str>) -> Result<Resolved> {
    // A path may contain spaces; otherwise they separate arguments.
    let words: Vec<&str> = if Path::new(word).is_file() { vec![word] } else { word.split_whitespace().collect() };
    let Some((program, arguments)) = words.split_first() else { bail!("the command is empty: name a program") };
    if word.contains(['\'', '"']) {
        bail!("cannot parse the quotes in {word}: put arguments after --");
    }
    if program.contains('=') && !arguments.is_empty() {
        bail!("no shell runs this command: write {program} before supervisor, or into the env of a supervisor.toml");
    }
    if arguments.iter().any(|argument| ["&&", "||", "|"].contains(argument)) {
        bail!("no shell runs this command: start sh -- -c '{word}'");
    }
    let file = Path::new(program);
    let usual = usual_interpreter(file);
    let named = interpreter_of(file);
    // With #!, an executable file says itself what runs it. A Node program gets its listeners only if Node is run here.
    let says_itself = named.is_some() && access(file, Access::EXEC_OK).is_ok();
    let named_node = named.as_deref().filter(|named| named.split_whitespace().next().is_some_and(runs_node));
    // A word without a slash means a command.
    let named_node = named_node.filter(|_| program.contains('/'));
    let chosen = match interpreter {
        Some(NONE) => None,
        Some(interpreter) => Some(interpreter),
        None => usual.filter(|interpreter| file.is_file() && (*interpreter == NODE || !says_itself)).or(named_node),
    };
    let has_ending = usual.is_some() || interpreter.is_some();
    let stem = |path: &Path| path.file_stem().map_or_else(|| (*program).to_owned(), |name| name.to_string_lossy().into_owned());
    let base = |path: &Path| path.file_name().map_or_else(|| (*program).to_owned(), |name| name.to_string_lossy().into_owned());
    let own = arguments.iter().map(|argument| (*argument).to_owned());
    let Some(chosen) = chosen else {
        // A file whose ending is that of a program is meant where it lies, as `start app.py` says it.
        let is_here = usual.is_some() && !program.contains('/') && file.is_file();
        let path = if is_here { format!("./{program}") } else { (*program).to_owned() };
        let path = find(
            &path,
            &format!(": to run a file, write ./{program}; to run a server of this project, `stallbench start {program}`"),
        )?;
        let is_node = runs_node(&path);
        let name = if usual.is_some() { stem(file) } else { base(file) };
        return Ok(Resolved { name, command: std::iter::once(path).chain(own).collect(), script: None, is_node });
    };
    if !file.is_file() {
        bail!(absent(file));
    }
    let mut runs = chosen.split_whitespace();
    let interpreter = runs.next().context("--interpreter is empty: name a program, or none")?;
    let script = std::path::absolute(here()?.join(file))?;
    let path = script.to_string_lossy().into_owned();
    let is_node = runs_node(interpreter);
    let found = find(interpreter, ": name another --interpreter, or none")?;
    let command = std::iter::once(found).chain(runs.map(str::to_owned)).chain([path]).chain(own);
    let name = if has_ending { stem(file) } else { base(file) };
    Ok(Resolved { name, command: command.collect(), script: Some(script), is_node })
}

/// Returns the interpreter of a file's ending.
fn usual_interpreter(file: &Path) -> Option<&'static str> {
    let ending = file.extension()?.to_str()?;
    INTERPRETERS.iter().find(|(own, _)| *own == ending).map(|(_, interpreter)| *interpreter)
}

/// Returns whether a program is Node.
pub(super) fn runs_node(program: &str) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == NODE || name == "nodejs")
}

/// Returns the interpreter that a file names itself, after `#!`, with its arguments; without `env`, which only looks for it.
fn interpreter_of(file: &Path) -> Option<String> {
    let mut beginning = Vec::new();
    // What is not a file may never end.
    let file = Some(file).filter(|file| file.is_file()).and_then(|file| fs::File::open(file).ok())?;
    file.take(LONGEST_LINE).read_to_end(&mut beginning).ok()?;
    let line = beginning.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_whitespace().peekable();
    if words.next_if(|word| Path::new(word).file_name().is_some_and(|name| name == "env")).is_some() {
        words.next_if_eq(&"-S");
    }
    Some(words.collect::<Vec<_>>().join(" "))
}

/// Goes to a folder, as [`here`] then returns it.
///
/// # Errors
/// Fails if there is no such folder.
pub fn go_to(folder: &Path) -> Result<()> {
    env::set_current_dir(folder).with_context(|| folder.display().to_string())?;
    TYPED.with(|typed| typed.replace(Some(folder.to_owned())));
    Ok(())
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
    let typed = TYPED.with(|typed| typed.borrow().clone());
    Ok(typed.or_else(|| env::var_os("PWD").map(PathBuf::from)).filter(|typed| same(typed)).unwrap_or(current))
}

/// Returns what is said of a file that is not there.
fn absent(file: &Path) -> String {
    if file.is_dir() {
        format!("{} is a folder: name the program in it", file.display())
    } else {
        format!("there is no file {}", file.display())
    }
}

/// Returns the absolute path of a program, which it finds as a shell does. Where there is none, `advice` says what to do.
fn find(program: &str, advice: &str) -> Result<String> {
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![here()?.join(program)]
    } else {
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).map(|folder| folder.join(program)).collect()
    };
    let there: Vec<&PathBuf> = candidates.iter().filter(|path| path.is_file()).collect();
    match there.iter().find(|path| access(path.as_path(), Access::EXEC_OK).is_ok()) {
        Some(path) => Ok(std::path::absolute(path)?.to_string_lossy().into_owned()),
        None if !there.is_empty() => {
            bail!("{} is not executable: run chmod +x on it, or name what runs it with --interpreter", there[0].display())
        }
        None if program.contains('/') => bail!(absent(Path::new(program))),
        None if usual_interpreter(Path::new(program)).is_some() => bail!("there is no file or command named {program}"),
        None => bail!("there is no command '{program}'{advice}"),
    }
}
