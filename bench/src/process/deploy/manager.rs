//! Process managers that keep a cluster of two, each told on its own command line.

use super::pm2::{self, Pm2};
use super::supervisor::{self, Site, Supervised};
use crate::catalog::Server;
use crate::http::{Client, get};
use crate::process::{Running, Start};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long one request holds an event loop.
const STUCK: Duration = Duration::from_secs(4);
/// Connections that are tried until each process has one.
const TRIES: usize = 1000;
/// Processes of each cluster.
pub(super) const PROCESSES: usize = 2;

/// What is done to a cluster while requests come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Replace the processes, many times.
    Reload,
    /// End them and start them anew.
    Restart,
    /// To four processes, to one, and back to two.
    Scale,
    /// Replace them by a program that ends at once, then by one that never gets ready.
    BadBuild,
    /// Kill one of the processes.
    KillWorker,
    /// Apply a file in which the app has changed.
    Apply,
    /// Replace the manager itself.
    Update,
    /// Hold the event loops of all processes, each with one request.
    Stick,
    /// Kill the manager's process that decides.
    KillDaemon,
    /// Kill the manager's process that holds listeners and children.
    KillKeeper,
}

impl Act {
    /// All of them, in the order of a trial: what may leave the server in ruins comes last.
    pub const ALL: [Act; 10] = [
        Act::Reload,
        Act::Restart,
        Act::Scale,
        Act::BadBuild,
        Act::Apply,
        Act::Update,
        Act::Stick,
        Act::KillWorker,
        Act::KillDaemon,
        Act::KillKeeper,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Act::Reload => "reload",
            Act::Restart => "restart",
            Act::Scale => "scale",
            Act::BadBuild => "bad build",
            Act::Apply => "apply",
            Act::Update => "update",
            Act::Stick => "workers stuck",
            Act::KillWorker => "worker killed",
            Act::KillDaemon => "daemon killed",
            Act::KillKeeper => "keeper killed",
        }
    }
}

/// The reason why a server cannot run under a manager.
pub fn unsupported(server: &Server) -> Option<&'static str> {
    let can = !server.is_peer || pm2::keeps(server) || supervisor::script(server).is_some();
    (!can).then_some("does not take its listener from the process that starts it")
}

/// Whether the supervisor of this workspace has to be built for it.
pub fn needs_supervisor(server: &Server) -> bool {
    !pm2::keeps(server)
}

/// A cluster and its manager.
pub enum Manager {
    /// This project's.
    Supervisor(Box<Supervised>),
    /// PM2, with a home of its own.
    Pm2(Pm2),
}

impl Manager {
    /// Starts a cluster of two.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn start(server: &Server, start: &Start) -> Result<Self> {
        if pm2::keeps(server) {
            Pm2::start(server, start).map(Manager::Pm2)
        } else {
            Supervised::start(server, start, Site::here()).map(Box::new).map(Manager::Supervisor)
        }
    }

    /// Whether it can be told to.
    pub fn can(&self, act: Act) -> bool {
        matches!(self, Manager::Supervisor(_)) || Pm2::can(act)
    }

    /// Does it, and waits until the manager says that it is done.
    ///
    /// # Errors
    /// The manager says that it cannot, or knows no such act.
    pub fn act(&mut self, act: Act) -> Result<()> {
        match self {
            Manager::Supervisor(supervised) => supervised.act(act),
            Manager::Pm2(pm2) => pm2.act(act),
        }
    }

    /// About how long that takes.
    pub fn usual(&self, act: Act) -> Duration {
        let is_node = matches!(self, Manager::Supervisor(supervised) if supervised.is_node());
        let (ours, pm2) = match act {
            Act::Reload | Act::Apply if is_node => (1500, 2500),
            Act::Reload | Act::Apply => (300, 2500),
            Act::Restart => (2500, 2500),
            Act::Scale => (2500, 5000),
            Act::BadBuild if is_node => (7000, 0),
            Act::BadBuild => (2500, 0),
            // The request, and that it may have begun late.
            Act::Stick => (STUCK.as_millis() as u64 + 1000, STUCK.as_millis() as u64 + 1000),
            Act::Update | Act::KillWorker | Act::KillDaemon | Act::KillKeeper => (1000, 3000),
        };
        Duration::from_millis(if matches!(self, Manager::Pm2(_)) { pm2 } else { ours })
    }

    /// The cluster, as a client sees it.
    pub fn cluster(&mut self) -> &mut Running {
        match self {
            Manager::Supervisor(supervised) => &mut supervised.cluster,
            Manager::Pm2(pm2) => &mut pm2.cluster,
        }
    }

    /// Resident memory of the manager's own processes.
    ///
    /// # Errors
    /// It does not say which these are.
    pub fn rss_mib(&self) -> Result<f64> {
        let pids = match self {
            Manager::Supervisor(supervised) => supervised.own_pids()?,
            Manager::Pm2(pm2) => pm2.daemon().map(i64::from).into_iter().collect(),
        };
        Ok(pids.into_iter().filter_map(rss_kib).sum::<u64>() as f64 / 1024.0)
    }
}

/// Holds the event loop of each process with a request, until these are answered. The manager is told nothing: it must notice.
pub(super) fn stick(address: SocketAddr) -> Result<()> {
    let mut clients = one_to_each(address)?;
    for client in &mut clients {
        client.send(&get(&format!("/sleep?ms={}", STUCK.as_millis())))?;
    }
    // Each client is answered, whatever becomes of its process.
    for client in &mut clients {
        let status = client.receive(false)?.status;
        if status != 200 {
            bail!("a request that held an event loop was answered {status}");
        }
    }
    Ok(())
}

/// Opens a connection to each process of a cluster; one that is kept stays with the process that has accepted it.
fn one_to_each(address: SocketAddr) -> Result<Vec<Client>> {
    let mut found = BTreeMap::new();
    for _ in 0..TRIES {
        let mut client = Client::connect(address)?;
        client.send(&get("/"))?;
        let worker = client.receive(false)?.header("X-Worker").context("an answer without X-Worker")?.to_owned();
        found.entry(worker).or_insert(client);
        if found.len() == PROCESSES {
            return Ok(found.into_values().collect());
        }
    }
    bail!("only {} of {PROCESSES} processes accepted one of {TRIES} connections", found.len())
}

/// Runs a command and returns its output.
pub(super) fn run(mut command: Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or("it failed without a word"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Kills a process of the cluster.
pub(super) fn end(pid: Option<i64>) -> Result<()> {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1).context("there is no such process")?;
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}

fn rss_kib(pid: i64) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
