//! The part of the harness that the lab uses: servers by name, started and reliably ended, and loads that report events while they run.

pub use crate::catalog::{Server, find};
pub use crate::console::interrupt;
pub use crate::console::output::{print, say};
pub use crate::driver::Sockets;
pub use crate::host::placement::{Placement, set_of};
pub use crate::load::{Drive, Event, Lane, Live, Load, Pace, Target, What, watch};
pub use common::args::one_line;

use crate::catalog::{self, FIRST_SIGHT, Program, SELF_TEST};
pub use crate::cli::OwnService;
use crate::cmd;
use crate::console::progress::Progress;
use crate::http::{Client, Response, get};
use crate::measure::{learn, learn_own, lenient, save_launch};
use crate::process::deploy::{self, Site, Supervised, package};
use crate::process::{Enter, Running, Start};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// All servers of the catalog that can run here.
///
/// # Errors
/// A `servers.toml` that is wrong.
pub fn servers() -> Result<Vec<Server>> {
    Ok(catalog::load()?.into_iter().filter(|server| server.missing().is_none()).collect())
}

/// The servers that a first look compares, the one with a single loop first: it is the one that stalls.
pub fn first(servers: &[Server]) -> Vec<String> {
    let mut pair = catalog::tagged(servers, FIRST_SIGHT);
    pair.sort_by_key(|server| !server.has_tag(SELF_TEST));
    pair.into_iter().map(|server| server.name).collect()
}

/// A user's own server.
///
/// # Errors
/// Neither command nor address, a command without a place for its port, or no slow request.
pub fn own(command: Option<&str>, url: Option<&str>, service: &OwnService) -> Result<Option<Server>> {
    cmd::own_server(command, url, service)
}

/// Builds servers, and the supervisor that keeps clusters of them.
///
/// # Errors
/// The compiler's words.
pub fn build(servers: &[Server]) -> Result<()> {
    package::build(servers, &Progress::new(package::programs(servers)))?;
    package::build_supervisor()
}

/// The folder of built things.
pub fn target() -> PathBuf {
    package::target()
}

/// Clients that look for a launch after it was saved.
const LOOKS: usize = 20;

/// What became of a launch.
pub struct Launch {
    /// Clients who have found it.
    found: usize,
    /// Clients whom the process that saved it has answered; `None` if the server does not name its processes.
    met_saver: Option<usize>,
}

impl fmt::Display for Launch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a launch was saved: {} of {LOOKS} clients who then looked for it found it", self.found)?;
        match self.met_saver {
            Some(met) => write!(out, "; {met} of {LOOKS} were answered by the process that saved it"),
            None => Ok(()),
        }
    }
}

/// A server that is kept running: ours under the supervisor, others by themselves.
pub enum Kept {
    /// A cluster.
    Cluster(Box<Supervised>),
    /// One process, or several that it forks by itself.
    Alone(Box<Running>),
}

impl Kept {
    /// Starts it.
    ///
    /// # Errors
    /// It does not get ready, with the end of its stderr.
    pub fn start(server: &Server, threads: usize, processes: usize, placement: Placement) -> Result<Self> {
        let start = Start { threads, more: Vec::new(), cores: set_of(&placement.server_cores()) };
        let forks = server.args.iter().any(|argument| argument == "--processes");
        let is_ours = matches!(server.program, Program::Package(_)) && !server.is_peer && server.own.is_none();
        if is_ours && !forks {
            let listen: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
            let site = Site { enter: Enter::default(), listen, processes, heals: false };
            return Ok(Kept::Cluster(Box::new(Supervised::start(server, &start, site)?)));
        }
        Ok(Kept::Alone(Box::new(deploy::start(
            server,
            &Start { threads: if forks { processes.max(2) } else { threads }, ..start },
        )?)))
    }

    fn running(&mut self) -> &mut Running {
        match self {
            Kept::Cluster(cluster) => &mut cluster.cluster,
            Kept::Alone(running) => running,
        }
    }

    /// Its address.
    pub fn address(&mut self) -> SocketAddr {
        self.running().address
    }

    /// A request whose answer is judged by its status alone.
    ///
    /// # Errors
    /// It is not answered, or not with a success.
    pub fn target(&mut self, path: &str) -> Result<Target> {
        learn(self.running(), path).map(lenient)
    }

    /// The quick and the slow request of a user's own server.
    ///
    /// # Errors
    /// One of them is not answered, or not with a success.
    pub fn own_targets(&mut self, server: &Server) -> Result<(Target, Target)> {
        let own = server.own.clone().with_context(|| format!("{} is not a server of your own", server.name))?;
        let quick = learn_own(self.running(), &own, &own.probe)?.0;
        Ok((quick, learn_own(self.running(), &own, &own.blocker)?.0))
    }

    /// Saves a launch, and looks for it on connections of their own.
    ///
    /// # Errors
    /// It does not keep launches, or is not answered.
    pub fn launch(&mut self) -> Result<Launch> {
        let address = self.address();
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let mission = format!("Kepler {}", COUNT.fetch_add(1, Ordering::Relaxed));
        let saved = Client::connect(address)?.ask(&save_launch(&address.to_string(), &mission).to_bytes())?;
        if saved.status != 201 {
            bail!("it keeps no launches: it answers {} to one", saved.status);
        }
        let launch: Value = serde_json::from_slice(&saved.body).context("the launch that it has saved")?;
        let path = format!("/launches/{}", launch["flight_number"]);
        // All ask before the first is answered: one after the other they could take turns with the connections of another load, and all meet one process.
        let ask = || {
            let mut client = Client::connect(address)?;
            client.send(&get(&path)).map(|()| client)
        };
        let mut clients: Vec<Client> = (0..LOOKS).map(|_| ask()).collect::<Result<_>>()?;
        let looks: Vec<Response> = clients.iter_mut().map(|client| client.receive(false)).collect::<Result<_>>()?;
        // Another process may have given the same number to another launch.
        let has_it =
            |found: &&Response| serde_json::from_slice::<Value>(&found.body).is_ok_and(|found| found["mission"] == *mission);
        let met_saver =
            saved.header("X-Worker").map(|saver| looks.iter().filter(|look| look.header("X-Worker") == Some(saver)).count());
        Ok(Launch { found: looks.iter().filter(has_it).count(), met_saver })
    }

    /// Replaces its processes one after another.
    ///
    /// # Errors
    /// It is not kept by a supervisor, or the supervisor says that it cannot.
    pub fn reload(&self) -> Result<()> {
        match self {
            Kept::Cluster(cluster) => cluster.reload(),
            Kept::Alone(_) => bail!("it is not kept by the supervisor, which is what replaces processes without a gap"),
        }
    }

    /// Returns whether it can be reloaded.
    pub fn can_reload(&self) -> bool {
        matches!(self, Kept::Cluster(_))
    }

    /// Returns whether its processes are known, and so can be killed.
    pub fn can_kill(&self) -> bool {
        match self {
            Kept::Cluster(_) => true,
            Kept::Alone(running) => !running.pids().is_empty(),
        }
    }

    /// Kills one of the processes that serve.
    ///
    /// # Errors
    /// There is none.
    pub fn kill_worker(&mut self) -> Result<()> {
        let pid = *self.workers()?.last().context("no process serves")?;
        Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
    }

    /// The processes that serve.
    ///
    /// # Errors
    /// The supervisor does not say.
    pub fn workers(&mut self) -> Result<Vec<i32>> {
        Ok(self.reports()?.into_iter().map(|(pid, _)| pid).collect())
    }

    /// The same, each with the status that it reports to the supervisor, if it does.
    ///
    /// # Errors
    /// The supervisor does not say.
    pub fn reports(&mut self) -> Result<Vec<(i32, Option<String>)>> {
        match self {
            Kept::Cluster(cluster) => {
                Ok(cluster.reports()?.into_iter().filter_map(|(pid, said)| Some((i32::try_from(pid).ok()?, said))).collect())
            }
            Kept::Alone(running) => {
                let all: Vec<(i32, Option<String>)> = running.pids().into_iter().map(|pid| (pid.as_raw(), None)).collect();
                Ok(if all.len() > 1 { all[1..].to_vec() } else { all })
            }
        }
    }

    /// Ends it at once, without waiting for the requests in flight.
    pub fn end(self) {
        if let Kept::Cluster(cluster) = &self {
            cluster.end_at_once();
        }
    }

    /// If it has ended by itself: its status and the end of its stderr.
    pub fn ended(&mut self) -> Option<String> {
        let running = self.running();
        let status = running.ended()?;
        Some(format!("it ended: {status}{}", running.last_words()))
    }
}
