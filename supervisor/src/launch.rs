//! The launcher runs between fork and exec. It restores the environment of the `start` command, and becomes the worker.
//!
//! It waits for a confirmation on its standard input. If the keeper dies before it comes, nobody knows this process, and it ends.

use crate::cgroup::Delegated;
use crate::home::CHECK;
use crate::spec::Spec;
use crate::user::As;
use anyhow::{Context, Result, bail};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit, umask};
use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// The variable that makes Python write each line at once.
const UNBUFFERED: &str = "PYTHONUNBUFFERED";

/// What supervisors and systemd tell a process. Whoever has started an app may be one, and the app would take it for its own.
const TOLD: [&str; 14] = [
    CHECK,
    "SUPERVISOR_INSTANCE",
    "SUPERVISOR_LISTENERS",
    "SUPERVISOR_PID",
    "SUPERVISOR_PRELOAD",
    "SUPERVISOR_STOP_SIGNAL",
    "SUPERVISOR_WAIT_READY",
    "NODE_CHANNEL_FD",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
];

/// Exit code if the program cannot be run, as in a shell.
pub const CANNOT_RUN: u8 = 127;

/// Becomes the program of the specification file. It returns only if that fails, after it has reported the reason to the
/// worker's notify socket.
pub fn run(spec: &Path) -> ExitCode {
    if !matches!(std::io::stdin().read(&mut [0]), Ok(1)) {
        return ExitCode::FAILURE;
    }
    let Err(error) = launch(spec);
    let said = format!("STATUS={error:#}");
    if let Some(socket) = env::var_os("NOTIFY_SOCKET") {
        // If no process listens there, the message is still on standard error.
        let _ = UnixDatagram::unbound().and_then(|own| own.send_to(said.as_bytes(), socket));
    }
    let _ = writeln!(std::io::stderr(), "supervisor: {error:#}");
    ExitCode::from(CANNOT_RUN)
}

/// What the kernel reads of a program's first line.
const LONGEST_LINE: u64 = 256;

fn launch(path: &Path) -> Result<std::convert::Infallible> {
    let spec = fs::read(path).with_context(|| path.display().to_string())?;
    let spec: Spec = serde_json::from_slice(&spec).with_context(|| path.display().to_string())?;
    rustix::stdio::dup2_stdin(File::open("/dev/null").context("/dev/null")?)?;
    let program = spec.command.first().context("the command is empty")?;
    let mut command = Command::new(program);
    command.args(&spec.command[1..]).env_clear().envs(spec.environment.0.iter().map(|(name, value)| (name, value)));
    for name in TOLD {
        command.env_remove(name);
    }
    let user = As::of(&spec.options)?;
    let variables = user.as_ref().map(As::variables).unwrap_or_default();
    command.envs(variables.into_iter().filter(|(name, _)| !spec.declared.contains(*name)));
    for name in ["NOTIFY_SOCKET", "SUPERVISOR_INSTANCE", "LISTEN_FDS", "NODE_CHANNEL_FD"] {
        command.envs(env::var_os(name).map(|value| (name, value)));
    }
    if let Some(number) = env::var_os("SUPERVISOR_INSTANCE") {
        // PM2's name for it.
        command.env("NODE_APP_INSTANCE", number);
    }
    if let Some(preload) = env::var_os("SUPERVISOR_PRELOAD").filter(|_| spec.is_node) {
        let own = spec.environment.0.iter().find(|(name, _)| name == "NODE_OPTIONS").map(|(_, value)| value.to_string_lossy());
        let quoted = preload.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
        command.env("NODE_OPTIONS", format!("--require \"{quoted}\" {}", own.unwrap_or_default()).trim_end());
        command.env("SUPERVISOR_PID", std::process::id().to_string());
        command.env("SUPERVISOR_LISTENERS", spec.listeners.join(","));
        command.env("SUPERVISOR_STOP_SIGNAL", spec.options.stop_signal.name());
        command.envs(spec.options.wait_ready.then_some(("SUPERVISOR_WAIT_READY", "1")));
    }
    // Into a pipe, Python writes only when it has 8 KiB, and the log would stay empty. A program need not say that it runs in Python.
    let is_set = spec.environment.0.iter().any(|(name, _)| name == UNBUFFERED);
    command.envs((!is_set && !spec.is_node).then_some((UNBUFFERED, "1")));
    let stall = spec.options.health.stall;
    if !stall.is_zero() {
        // As systemd asks for signs of life.
        command.env("WATCHDOG_USEC", stall.as_micros().to_string()).env("WATCHDOG_PID", std::process::id().to_string());
    }
    if !spec.listeners.is_empty() {
        // Exec keeps the process id.
        command.env("LISTEN_PID", std::process::id().to_string());
    }
    umask(Mode::from_bits_truncate(spec.umask));
    env::set_current_dir(&spec.directory).with_context(|| format!("working directory {}", spec.directory.display()))?;
    for (resource, limit) in limits().into_iter().zip(&spec.limits) {
        // A worker cannot get more than the supervisor's own hard limit. `None` means unlimited.
        let most = getrlimit(resource).maximum;
        let at_most = |wanted: Option<u64>| wanted.map_or(most, |wanted| Some(most.map_or(wanted, |most| wanted.min(most))));
        let limit = Rlimit { current: at_most(limit.current), maximum: at_most(limit.maximum) };
        setrlimit(resource, limit).with_context(|| format!("limit {resource:?} {limit:?}"))?;
    }
    let entered = Delegated::find().and_then(|delegated| delegated.enter(&spec.options));
    if spec.options.has_limits() {
        // Without one, what it starts is found by its parents and its environment.
        entered.context("--memory-max and --cpu-max")?;
    }
    if let Some(nice) = spec.options.nice {
        setpriority_process(None, nice).with_context(|| format!("priority {nice}, which only root may raise"))?;
    }
    // At last, since it gives up the right to the rest.
    user.map_or(Ok(()), |user| user.become_it())?;
    // The standard library resets the signal mask and SIGPIPE on exec.
    let error = command.exec();
    let program = Path::new(&spec.command[0]);
    if error.kind() == ErrorKind::NotFound
        && let Some(why) = missing(program)
    {
        bail!("cannot run {}: {why}", program.display());
    }
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// What a program that is there needs, and is not there.
fn missing(program: &Path) -> Option<String> {
    let mut beginning = Vec::new();
    File::open(program).ok()?.take(LONGEST_LINE).read_to_end(&mut beginning).ok()?;
    if beginning.starts_with(b"\x7fELF") {
        return Some("its loader does not exist, so it was built for another system".into());
    }
    let line = beginning.split(|byte| *byte == b'\n').next().filter(|line| line.starts_with(b"#!"))?;
    let line = String::from_utf8_lossy(line);
    let hint = if line.ends_with('\r') { ": its lines end as on Windows, with CR LF" } else { "" };
    Some(format!("what its first line names, {:?}, does not exist{hint}", line.trim_end()))
}

/// The resource limits that a worker inherits from the `start` command, in a fixed order.
pub fn limits() -> [Resource; 9] {
    [
        Resource::Nofile,
        Resource::Core,
        Resource::Stack,
        Resource::Data,
        Resource::As,
        Resource::Fsize,
        Resource::Memlock,
        Resource::Nproc,
        Resource::Cpu,
    ]
}
