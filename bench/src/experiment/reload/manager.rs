//! Who keeps the processes, and how each is told what to do: on its own command line.

use super::Act;
use crate::catalog::{Program, Server};
use crate::experiment::Session;
use crate::process::Running;
use crate::process::builder;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Processes of each cluster.
const PROCESSES: usize = 2;
/// Time that a replacement has to get ready under the supervisor, so that one that never does is found out soon.
const LISTEN_TIMEOUT: &str = "1s";
/// The model whose processes PM2 keeps.
const PM2: &str = "pm2";

/// Why a server cannot take part.
pub fn unsupported(server: &Server) -> Option<&'static str> {
    let can = !server.is_peer || server.model == PM2;
    (!can).then_some("does not take its listener from whoever starts it")
}

/// Whether the supervisor has to be built for it.
pub fn needs_supervisor(server: &Server) -> bool {
    !server.is_peer
}

/// A cluster and who keeps it.
pub enum Manager {
    /// This project's.
    Supervisor(Supervised),
    /// PM2, with a home of its own.
    Pm2(Pm2),
}

/// Under the supervisor.
pub struct Supervised {
    /// Holds the supervisor's home, and the link that is its program.
    folder: TempDir,
    program: PathBuf,
    cluster: Running,
}

/// Under PM2.
pub struct Pm2 {
    cluster: Running,
    program: PathBuf,
    home: PathBuf,
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.supervisor(&["kill"]);
    }
}

impl Manager {
    /// Starts a cluster of two.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn start(session: &Session<'_>) -> Result<Self> {
        if session.server.model == PM2 {
            Pm2::start(session).map(Manager::Pm2)
        } else {
            Supervised::start(session).map(Manager::Supervisor)
        }
    }

    /// Whether it can be told to.
    pub fn can(&self, act: Act) -> bool {
        matches!(self, Manager::Supervisor(_)) || !matches!(act, Act::BadBuild | Act::KillKeeper)
    }

    /// Does it, and waits until it says that it is done.
    ///
    /// # Errors
    /// It says that it cannot.
    pub fn act(&mut self, act: Act) -> Result<()> {
        match self {
            Manager::Supervisor(supervised) => supervised.act(act),
            Manager::Pm2(pm2) => pm2.act(act),
        }
    }

    /// About how long that takes.
    pub fn usual(&self, act: Act) -> Duration {
        let (ours, pm2) = match act {
            Act::Reload => (300, 2500),
            Act::Restart => (2500, 2500),
            Act::Scale => (2500, 5000),
            Act::BadBuild => (2500, 0),
            Act::KillWorker | Act::KillDaemon | Act::KillKeeper => (1000, 3000),
        };
        Duration::from_millis(if matches!(self, Manager::Pm2(_)) { pm2 } else { ours })
    }

    /// Lets something ask the cluster, and explains what goes wrong.
    ///
    /// # Errors
    /// What goes wrong.
    pub fn explain<T>(&mut self, ask: impl FnOnce(&mut Running) -> Result<T>) -> Result<T> {
        let cluster = match self {
            Manager::Supervisor(supervised) => &mut supervised.cluster,
            Manager::Pm2(pm2) => &mut pm2.cluster,
        };
        ask(cluster)
    }

    /// Resident memory of its own processes.
    ///
    /// # Errors
    /// It does not say which these are.
    pub fn rss_mib(&self) -> Result<f64> {
        let pids: Vec<i64> = match self {
            Manager::Supervisor(supervised) => {
                let own = &supervised.listed()?["supervisor"];
                ["keeper", "daemon"].iter().filter_map(|role| own[*role].as_i64()).collect()
            }
            Manager::Pm2(pm2) => pm2.daemon().map(i64::from).into_iter().collect(),
        };
        Ok(pids.into_iter().filter_map(rss_kib).sum::<u64>() as f64 / 1024.0)
    }
}

impl Supervised {
    fn start(session: &Session<'_>) -> Result<Self> {
        // A short path: it becomes that of sockets.
        let folder = tempfile::Builder::new().prefix("sb").tempdir_in("/tmp").context("cannot make a folder")?;
        let program = folder.path().join("server");
        symlink(builder::binary(&session.server.program), &program)?;
        // Not there yet: whoever answers first is asked then.
        let own = builder::command(session.server, session.settings.threads, &session.settings.more);
        let own: Vec<String> = own.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let path = program.to_string_lossy().into_owned();
        let count = PROCESSES.to_string();
        let start = ["start", &path, "-i", &count, "--listen", "127.0.0.1:0", "--listen-timeout", LISTEN_TIMEOUT, "--"];
        let mut start: Vec<&str> = start.to_vec();
        start.extend(own.iter().map(String::as_str));
        supervisor(folder.path(), &start)?;
        let listed = listed(folder.path())?;
        let address = listed["instances"][0]["listeners"][0].as_str().context("the supervisor names no address")?.parse()?;
        Ok(Supervised { cluster: Running::elsewhere(address)?, folder, program })
    }

    fn supervisor(&self, arguments: &[&str]) -> Result<String> {
        supervisor(self.folder.path(), arguments)
    }

    fn act(&mut self, act: Act) -> Result<()> {
        match act {
            Act::Reload => self.supervisor(&["reload", "all"]).map(drop),
            Act::Restart => self.supervisor(&["restart", "all"]).map(drop),
            Act::Scale => ["4", "1", "2"].iter().try_for_each(|count| self.supervisor(&["scale", "server", count]).map(drop)),
            Act::BadBuild => self.reload_badly(),
            Act::KillWorker => end(self.listed()?["instances"][0]["pid"].as_i64()),
            Act::KillDaemon => end(self.listed()?["supervisor"]["daemon"].as_i64()),
            Act::KillKeeper => end(self.listed()?["supervisor"]["keeper"].as_i64()),
        }
    }

    /// Each of them must be refused.
    fn reload_badly(&self) -> Result<()> {
        let good = fs::read_link(&self.program)?;
        let refused = ["exit 3", "exec sleep 100"].iter().try_for_each(|script| {
            fs::remove_file(&self.program)?;
            fs::write(&self.program, format!("#!/bin/sh\n{script}\n"))?;
            fs::set_permissions(&self.program, fs::Permissions::from_mode(0o755))?;
            match self.supervisor(&["reload", "all"]) {
                Ok(_) => bail!("a reload into `{script}` is said to have worked"),
                Err(_) => Ok(()),
            }
        });
        fs::remove_file(&self.program)?;
        symlink(good, &self.program)?;
        refused
    }

    /// What there is, the supervisor's own processes included.
    fn listed(&self) -> Result<Value> {
        listed(self.folder.path())
    }
}

fn listed(folder: &Path) -> Result<Value> {
    serde_json::from_str(&supervisor(folder, &["list", "--json"])?).context("supervisor list --json")
}

fn home(folder: &Path) -> PathBuf {
    folder.join("home")
}

fn supervisor(folder: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(builder::supervisor());
    command.args(arguments).env_clear().env("SUPERVISOR_HOME", home(folder));
    run(command)
}

impl Pm2 {
    fn start(session: &Session<'_>) -> Result<Self> {
        let mut session = Session { ..*session };
        let settings = crate::experiment::Settings { threads: PROCESSES, ..session.settings.clone() };
        session.settings = &settings;
        let cluster = session.start("reload")?;
        let home = cluster.pids().into_iter().find_map(|pid| variable(pid, "PM2_HOME"));
        let home = home.context("no process of PM2's has a PM2_HOME")?;
        let Program::Foreign(foreign) = &session.server.program else { bail!("PM2 is no package of this workspace") };
        Ok(Pm2 { cluster, program: foreign.folder.join("node_modules/.bin/pm2"), home: home.into() })
    }

    fn pm2(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("HOME", &self.home).env("PM2_HOME", &self.home).env("PM2_DISABLE_VERSION_CHECK", "true");
        run(command)
    }

    fn act(&mut self, act: Act) -> Result<()> {
        match act {
            Act::Reload => self.pm2(&["reload", "all"]).map(drop),
            Act::Restart => self.pm2(&["restart", "all"]).map(drop),
            Act::Scale => ["4", "1", "2"].iter().try_for_each(|count| self.pm2(&["scale", "express", count]).map(drop)),
            Act::KillWorker => {
                let listed = self.pm2(&["jlist"])?;
                let begin = listed.find('[').context("pm2 jlist prints no list")?;
                let listed: Value = serde_json::from_str(&listed[begin..]).context("pm2 jlist")?;
                end(listed[0]["pid"].as_i64())
            }
            Act::KillDaemon => end(self.daemon().map(i64::from)),
            Act::BadBuild | Act::KillKeeper => Ok(()),
        }
    }

    fn daemon(&self) -> Option<i32> {
        fs::read_to_string(self.home.join("pm2.pid")).ok()?.trim().parse().ok()
    }
}

/// Runs a command, and gives what it prints.
fn run(mut command: Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or("no word"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Kills a process of the cluster's.
fn end(pid: Option<i64>) -> Result<()> {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1).context("there is no such process")?;
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}

fn variable(pid: Pid, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variables = environment.split(|byte| *byte == 0).filter_map(|variable| std::str::from_utf8(variable).ok());
    variables.filter_map(|variable| variable.split_once('=')).find(|(own, _)| *own == name).map(|(_, value)| value.to_owned())
}

fn rss_kib(pid: i64) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
