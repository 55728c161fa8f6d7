//! Builds each server's package on its own, since features of packages that are built together are unified; other programs as their
//! `servers.toml` says.

use crate::catalog::{Build, Foreign, Program, Server, find_program};
use crate::console::interrupt::{self, Interrupted};
use crate::console::output::say;
use crate::console::progress::Progress;
use crate::host::tree::root;
use crate::process::running::pidfd_open;
use anyhow::{Context, Error, Result, bail};
use common::Receipt;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpid, getppid};
use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::SystemTime;

/// The time after which an interrupt is noticed while something is built, in ms.
const LOOK: u16 = 50;
/// The time that an interrupted build has to tidy up, in ms.
const TIDY_UP: u16 = 1000;

/// The path of a server's program, built or not. Each set of build options has its own target directory.
pub fn binary(program: &Program) -> PathBuf {
    match program {
        Program::Package(build) => target_dir(build).join("release").join(&build.package),
        Program::Foreign(foreign) => {
            let name = in_place(&foreign.command[0]);
            find_program(&name).unwrap_or_else(|| foreign.folder.join(name))
        }
        Program::Shell(_) | Program::Address(_) => PathBuf::new(),
    }
}

/// The folder of built things.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn target_dir(build: &Build) -> PathBuf {
    let base = build.tree.as_ref().map_or_else(target, |tree| tree.join("target"));
    if build.features.is_empty() && build.rustflags.is_empty() {
        return base;
    }
    let options: Vec<String> = build.features.iter().cloned().chain(build.rustflags.split_whitespace().map(Into::into)).collect();
    let name: String = options.join("+").chars().map(|c| if c.is_alphanumeric() || c == '+' { c } else { '-' }).collect();
    base.join("options").join(name)
}

pub(super) fn in_place(word: &str) -> String {
    word.replace("{target}", &target().to_string_lossy())
}

/// How many programs these servers are.
pub fn programs(servers: &[Server]) -> u64 {
    servers.iter().map(|server| &server.program).collect::<BTreeSet<_>>().len() as u64
}

/// Builds the programs of servers, each once, except those that cannot run here anyway. The first error stops it.
///
/// # Errors
/// The program that does not build, with the compiler's words.
pub fn build(servers: &[Server], progress: &Progress) -> Result<()> {
    build_each(servers, progress, |_, error| Err(error))
}

/// Builds the programs of servers, except that programs in other languages may fail: their servers are unavailable then.
///
/// # Errors
/// The package that does not build, with the compiler's words.
pub fn build_available(servers: &[Server], progress: &Progress) -> Result<()> {
    build_each(servers, progress, |program, error| match program {
        Program::Foreign(_) if error.downcast_ref::<Interrupted>().is_none() => {
            let text = format!("{error:#}");
            say(&format!("{}; its servers are unavailable", text.lines().take(2).collect::<Vec<_>>().join(" ")));
            Ok(())
        }
        _ => Err(error),
    })
}

fn build_each(servers: &[Server], progress: &Progress, failed: impl Fn(&Program, Error) -> Result<()>) -> Result<()> {
    let programs: BTreeSet<(&Program, bool)> = servers
        .iter()
        .filter(|server| matches!(server.program, Program::Package(_) | Program::Foreign(_)))
        .map(|server| (&server.program, server.missing().is_none()))
        .collect();
    let count = programs.len();
    for (number, (program, can_run)) in programs.into_iter().enumerate() {
        interrupt::check()?;
        let name = match program {
            Program::Package(build) => build.package.clone(),
            Program::Foreign(foreign) => folder_name(foreign),
            Program::Shell(line) => line.clone(),
            Program::Address(address) => address.clone(),
        };
        progress.say(&format!("building {name} ({} of {count})", number + 1));
        match program {
            _ if !can_run => {}
            Program::Package(build) => run(&name, cargo(build)).or_else(|error| failed(program, error))?,
            Program::Foreign(foreign) => build_foreign(&name, foreign).or_else(|error| failed(program, error))?,
            Program::Shell(_) | Program::Address(_) => {}
        }
        progress.step(1);
    }
    Ok(())
}

/// Builds a program of this workspace that is not a server.
///
/// # Errors
/// It does not build, with the compiler's words.
fn build_program(package: &str) -> Result<()> {
    let build = Build { package: package.into(), features: Vec::new(), rustflags: String::new(), tree: None };
    run(package, cargo(&build))
}

/// Builds the process manager of this workspace.
///
/// # Errors
/// It does not build, with the compiler's words.
pub fn build_supervisor() -> Result<()> {
    build_program("supervisor")
}

/// Where it then is.
pub fn supervisor() -> PathBuf {
    target().join("release/supervisor")
}

/// Builds the lab, and says where it is.
///
/// # Errors
/// It does not build, with the compiler's words.
pub fn build_lab() -> Result<PathBuf> {
    build_program("lab")?;
    Ok(target().join("release/stallbench-lab"))
}

fn cargo(build: &Build) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(build.tree.clone().unwrap_or_else(root)).args([
        "build",
        "--release",
        "--quiet",
        "--package",
        &build.package,
    ]);
    command.arg("--target-dir").arg(target_dir(build));
    if !build.features.is_empty() {
        command.arg("--features").arg(build.features.join(","));
    }
    if !build.rustflags.is_empty() {
        command.env("RUSTFLAGS", &build.rustflags);
    }
    command
}

/// The size of a server's program, in bytes; `None` if an interpreter runs it, whose size says nothing.
///
/// # Errors
/// It is not there.
pub fn size(server: &Server) -> Result<Option<u64>> {
    // What stands behind an interpreter is its script.
    if matches!(&server.program, Program::Foreign(foreign) if foreign.command.len() > 1) {
        return Ok(None);
    }
    let binary = binary(&server.program);
    Ok(Some(fs::metadata(&binary).with_context(|| format!("cannot read {}", binary.display()))?.len()))
}

/// Builds a user's own servers, each program once, and whatever was built before: nobody here knows what they are made of.
///
/// # Errors
/// The one that does not build, with the words of its command.
pub fn build_services(servers: &[Server]) -> Result<()> {
    let foreign = |server: &Server| if let Program::Foreign(foreign) = &server.program { Some(foreign.clone()) } else { None };
    for foreign in servers.iter().filter_map(foreign).filter(|foreign| !foreign.build.is_empty()).collect::<BTreeSet<_>>() {
        interrupt::check()?;
        say(&format!("building {} with `{}`", folder_name(&foreign), foreign.build.join(" ")));
        run_build(&folder_name(&foreign), &foreign)?;
    }
    Ok(())
}

/// Builds it unless nothing in its folder has changed since the last time.
fn build_foreign(name: &str, foreign: &Foreign) -> Result<()> {
    if foreign.build.is_empty() {
        return Ok(());
    }
    let stamp = stamp(name);
    if fs::metadata(&stamp).and_then(|stamp| stamp.modified()).is_ok_and(|built| newest_source(&foreign.folder) < Some(built)) {
        return Ok(());
    }
    run_build(name, foreign)?;
    fs::create_dir_all(target().join("peers"))
        .and_then(|()| fs::write(&stamp, ""))
        .with_context(|| format!("{}", stamp.display()))
}

fn run_build(name: &str, foreign: &Foreign) -> Result<()> {
    let Some((program, arguments)) = foreign.build.split_first() else { return Ok(()) };
    let mut command = Command::new(in_place(program));
    command.current_dir(&foreign.folder).args(arguments.iter().map(|word| in_place(word)));
    run(name, command)
}

/// When the newest file of a folder, not of those below it, was changed.
fn newest_source(folder: &Path) -> Option<SystemTime> {
    let files = fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.metadata().ok()).filter(fs::Metadata::is_file);
    files.filter_map(|file| file.modified().ok()).max()
}

/// Runs a build in a process group of its own, which is ended if the user asks to stop.
fn run(name: &str, mut command: Command) -> Result<()> {
    let cannot = format!("cannot run {}: install it, or see that PATH has it", command.get_program().display());
    let mut stderr = tempfile::tempfile().context("cannot make a file for the compiler's words")?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.try_clone()?).process_group(0);
    let harness = getpid();
    let prepare = move || {
        // Outside of the harness's group, it would outlive one that is killed. The thread that starts it also waits for it.
        set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != harness { Err(ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec it makes system calls only; nothing is allocated or locked.
    unsafe { command.pre_exec(prepare) };
    let status = wait(command.spawn().context(cannot)?)?;
    if !status.success() {
        let mut words = Vec::new();
        stderr.rewind().and_then(|()| stderr.read_to_end(&mut words)).context("cannot read the compiler's words")?;
        bail!("{name} does not build:\n{}", String::from_utf8_lossy(&words).trim_end());
    }
    Ok(())
}

/// Waits for the end of a build.
///
/// # Errors
/// The user asks to stop: then the build has ended, with everything in its group.
fn wait(mut build: Child) -> Result<ExitStatus> {
    let pidfd = pidfd_open(build.id())?;
    let has_ended_within = |most: u16| poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], most) == Ok(1);
    let group = Pid::from_raw(build.id().cast_signed());
    let is_interrupted = loop {
        if has_ended_within(LOOK) {
            break false;
        }
        if interrupt::is_requested() {
            break true;
        }
    };
    if is_interrupted {
        let _ = killpg(group, Signal::SIGTERM);
        has_ended_within(TIDY_UP);
        // Until it is reaped, its number is nobody else's.
        let _ = killpg(group, Signal::SIGKILL);
    }
    let status = build.wait()?;
    interrupt::check()?;
    Ok(status)
}

/// What starts a server, in a clean environment; other people's programs find their own in `PATH`.
pub fn command(server: &Server, threads: usize, more: &[String]) -> Command {
    let mut command = Command::new(binary(&server.program));
    command.env_clear();
    if let Program::Foreign(foreign) = &server.program {
        command.current_dir(&foreign.folder).args(foreign.command[1..].iter().map(|word| in_place(word)));
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    }
    command.args(arguments(server, threads, more));
    command
}

/// The command line of a server: its own arguments with W in place, but for those that are given anew in what is added.
fn arguments(server: &Server, threads: usize, more: &[String]) -> Vec<String> {
    let mut own = server.args.iter();
    let mut all = Vec::new();
    while let Some(name) = own.next() {
        let value = own.next();
        if !more.contains(name) {
            all.push(name.clone());
            all.extend(value.map(|value| value.replace("{W}", &threads.to_string())));
        }
    }
    all.extend_from_slice(more);
    all
}

/// Whether a server's program is built, as far as its files tell.
///
/// # Errors
/// The reason why it is not.
pub fn is_built(server: &Server) -> Result<(), String> {
    let missing = match &server.program {
        Program::Package(_) => !binary(&server.program).exists(),
        Program::Foreign(foreign) => {
            let stamped = foreign.build.is_empty() || stamp(&folder_name(foreign)).exists();
            if !stamped {
                return Err(format!("not built: `{}` has not run", foreign.build.join(" ")));
            }
            !binary(&server.program).exists()
        }
        Program::Shell(_) | Program::Address(_) => false,
    };
    if missing { Err("not built".into()) } else { Ok(()) }
}

fn stamp(name: &str) -> PathBuf {
    target().join("peers").join(format!("{name}.built"))
}

fn folder_name(foreign: &Foreign) -> String {
    foreign.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Asks a server what it is.
///
/// # Errors
/// A server that cannot run here, is not built or does not say.
pub fn receipt(server: &Server, threads: usize, more: &[String]) -> Result<Receipt> {
    if let Some(missing) = server.missing() {
        bail!(missing);
    }
    let binary = binary(&server.program);
    if let Err(reason) = is_built(server) {
        bail!("{reason}; run `stallbench build {}`", server.name);
    }
    let more: Vec<String> = more.iter().cloned().chain(["--version".into()]).collect();
    let output = command(server, threads, &more).output().with_context(|| format!("cannot run {}", binary.display()))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{} gives no receipt with --version", server.name))
}
