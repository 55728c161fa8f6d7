//! A cluster under this project's supervisor.

use super::manager::{Act, PROCESSES, end, run, stick};
use super::package;
use crate::catalog::{Program, Server};
use crate::process::{Enter, Running, Start};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The time that a replacement has to get ready, so that one that never does is found out soon.
const LISTEN_TIMEOUT: &str = "1s";
/// Node takes longer to begin.
const NODE_TIMEOUT: &str = "3s";
/// Where a cluster heals itself, a process is replaced whose event loop one request has held for this time.
const STALL: &str = "1s";
/// The interpreter that the supervisor gives its listeners to, in programs that know nothing of it.
const NODE: &str = "node";

/// A cluster under the supervisor.
pub struct Supervised {
    app: App,
    /// Holds the supervisor's home, the file with the app, and the link that is its program.
    folder: TempDir,
    program: PathBuf,
    is_node: bool,
    enter: Enter,
    /// Dropped last, when there is nothing left to end.
    _guard: Option<Guard>,
    /// The cluster, as a client sees it.
    pub cluster: Running,
}

/// The app of a `supervisor.toml`.
#[derive(Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct App {
    start: String,
    name: &'static str,
    instances: usize,
    listen: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interpreter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_stall: Option<&'static str>,
    listen_timeout: &'static str,
    arguments: Vec<String>,
    /// What `apply` finds changed.
    env: BTreeMap<&'static str, usize>,
}

impl App {
    /// Writes the file into a folder, and returns its path.
    fn write(&self, folder: &Path) -> Result<String> {
        let path = folder.join("supervisor.toml");
        let text = toml::to_string(&BTreeMap::from([("app", [self])])).context("cannot write an app as TOML")?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    }
}

/// Where a cluster runs, and how large it is.
pub struct Site {
    /// The way onto its host.
    pub enter: Enter,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Number of processes.
    pub processes: usize,
    /// Whether a process that one request holds up for long is replaced. Whoever looks at what such a request does to the others wants it left alone.
    pub heals: bool,
}

impl Site {
    /// On this machine, at a free port.
    pub(super) fn here() -> Self {
        Site { enter: Enter::default(), listen: (Ipv4Addr::LOCALHOST, 0).into(), processes: PROCESSES, heals: true }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.supervisor(&["kill"]);
    }
}

/// A process that ends the cluster and removes its folder as soon as this one is gone, however it ends: the supervisor outlives whoever told it to start.
struct Guard(Child);

impl Guard {
    /// Starts it; another host needs none, since it ends with this process and everything on it.
    fn over(enter: &Enter, folder: &Path) -> Result<Option<Self>> {
        if enter.is_elsewhere() {
            return Ok(None);
        }
        let mut command = Command::new("/bin/sh");
        // Usually the cluster has ended by then, and its folder with it.
        let script = "read -r _; [ -d \"$2\" ] || exit 0; \"$1\" kill; rm -r \"$2\"";
        command.args(["-c", script, "guard"]).arg(package::supervisor()).arg(folder);
        command.env_clear().env("SUPERVISOR_HOME", folder.join("home")).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Some(Guard(command.spawn().context("cannot run /bin/sh")?)))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It reads the end of its input now.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Supervised {
    /// Starts the supervisor, and with it a cluster.
    ///
    /// # Errors
    /// One of both does not get ready.
    pub fn start(server: &Server, start: &Start, site: Site) -> Result<Self> {
        // A short path: it becomes that of sockets.
        let parent = if site.enter.is_elsewhere() { tempfile::env::temp_dir() } else { "/tmp".into() };
        let folder = tempfile::Builder::new().prefix("sb").tempdir_in(parent).context("cannot make a folder")?;
        let script = script(server);
        let program = folder.path().join(if script.is_some() { "server.js" } else { "server" });
        let node = package::binary(&server.program);
        symlink(script.as_ref().unwrap_or(&node), &program)?;
        let own = package::command(server, start.threads, &start.more);
        let own = own.get_args().map(|argument| argument.to_string_lossy().into_owned());
        // The first argument of Node is the script.
        let own: Vec<String> = own.skip(usize::from(script.is_some())).collect();
        let listen = site.listen.to_string();
        let mut app = App {
            start: program.to_string_lossy().into_owned(),
            name: "server",
            instances: site.processes,
            health_stall: site.heals.then_some(STALL),
            listen_timeout: LISTEN_TIMEOUT,
            ..App::default()
        };
        if script.is_some() {
            (app.listen_timeout, app.interpreter) = (NODE_TIMEOUT, Some(node.to_string_lossy().into_owned()));
            app.arguments.extend(["--listen".to_owned(), listen]);
        } else {
            app.listen.push(listen);
        }
        app.arguments.extend(own);
        let file = app.write(folder.path())?;
        let guard = Guard::over(&site.enter, folder.path())?;
        supervisor(&site.enter, folder.path(), &["start", &file])?;
        let listed = listed(&site.enter, folder.path())?;
        let address = listed["instances"][0]["listeners"][0].as_str().context("the supervisor names no address")?.parse()?;
        Ok(Supervised {
            cluster: Running::elsewhere(address)?,
            app,
            folder,
            program,
            is_node: script.is_some(),
            enter: site.enter,
            _guard: guard,
        })
    }

    fn supervisor(&self, arguments: &[&str]) -> Result<String> {
        supervisor(&self.enter, self.folder.path(), arguments)
    }

    /// Ends everything at once, without waiting for the requests in flight.
    pub fn end_at_once(&self) {
        let (own, workers) = (self.own_pids().unwrap_or_default(), self.pids().unwrap_or_default());
        // Stopped first, neither sees the other die and replaces it.
        let orders = [Signal::SIGSTOP, Signal::SIGKILL].into_iter().flat_map(|signal| own.iter().map(move |pid| (*pid, signal)));
        for (pid, signal) in orders.chain(workers.into_iter().map(|pid| (pid, Signal::SIGKILL))) {
            if let Ok(pid) = i32::try_from(pid) {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
    }

    /// Replaces all processes, and waits until that is done.
    ///
    /// # Errors
    /// The supervisor says that it cannot, or a process is still there.
    pub fn reload(&self) -> Result<()> {
        self.replace(&["reload", "all"])
    }

    fn replace(&self, command: &[&str]) -> Result<()> {
        let before = self.pids()?;
        self.supervisor(command)?;
        let after = self.pids()?;
        if let Some(pid) = before.iter().find(|pid| after.contains(pid)) {
            bail!("process {pid} was not replaced by `supervisor {}`", command.join(" "));
        }
        Ok(())
    }

    /// Changes the app's environment in its file, and applies that.
    fn apply(&mut self) -> Result<()> {
        *self.app.env.entry("APPLIED").or_default() += 1;
        let file = self.app.write(self.folder.path())?;
        self.replace(&["apply", &file])
    }

    /// Replaces the supervisor itself, and no process of the cluster.
    fn update(&self) -> Result<()> {
        let (own, workers) = (self.own_pids()?, self.pids()?);
        self.supervisor(&["update"])?;
        if self.own_pids()?.iter().any(|pid| own.contains(pid)) {
            bail!("a process of the supervisor was not replaced by `supervisor update`");
        }
        if self.pids()? != workers {
            bail!("`supervisor update` replaced a process of the cluster");
        }
        Ok(())
    }

    /// The processes that serve, as their host numbers them.
    ///
    /// # Errors
    /// The supervisor does not say.
    pub fn pids(&self) -> Result<Vec<i64>> {
        Ok(self.reports()?.into_iter().map(|(pid, _)| pid).collect())
    }

    /// The same, each with the status that it reports of itself, if it does.
    ///
    /// # Errors
    /// The supervisor does not say.
    pub fn reports(&self) -> Result<Vec<(i64, Option<String>)>> {
        let listed = self.listed()?;
        let instances = listed["instances"].as_array().context("the supervisor lists no instances")?;
        let report = |instance: &Value| Some((instance["pid"].as_i64()?, instance["says"].as_str().map(Into::into)));
        Ok(instances.iter().filter_map(report).collect())
    }

    /// Acts on a cluster of this machine: process ids of another host mean nothing here.
    pub(super) fn act(&mut self, act: Act) -> Result<()> {
        match act {
            Act::Reload => self.reload(),
            Act::Restart => self.supervisor(&["restart", "all"]).map(drop),
            Act::Scale => ["4", "1", "2"].iter().try_for_each(|count| self.supervisor(&["scale", "server", count]).map(drop)),
            Act::BadBuild => self.reload_badly(),
            Act::Apply => self.apply(),
            Act::Update => self.update(),
            Act::Stick => stick(self.cluster.address),
            Act::KillWorker => end(self.listed()?["instances"][0]["pid"].as_i64()),
            Act::KillDaemon => end(self.listed()?["supervisor"]["daemon"].as_i64()),
            Act::KillKeeper => end(self.listed()?["supervisor"]["keeper"].as_i64()),
        }
    }

    pub(super) fn own_pids(&self) -> Result<Vec<i64>> {
        let own = &self.listed()?["supervisor"];
        Ok(["keeper", "daemon"].iter().filter_map(|role| own[*role].as_i64()).collect())
    }

    /// Reloads into two bad builds; the supervisor must refuse both.
    fn reload_badly(&self) -> Result<()> {
        let good = fs::read_link(&self.program)?;
        let bad = if self.is_node() {
            ["process.exit(3);\n", "setTimeout(() => {}, 100_000);\n"]
        } else {
            ["#!/bin/sh\nexit 3\n", "#!/bin/sh\nexec sleep 100\n"]
        };
        let refused = bad.iter().try_for_each(|script| {
            fs::remove_file(&self.program)?;
            fs::write(&self.program, script)?;
            fs::set_permissions(&self.program, fs::Permissions::from_mode(0o755))?;
            match self.supervisor(&["reload", "all"]) {
                Ok(_) => bail!("the supervisor accepted a reload into `{}`", script.lines().last().unwrap_or_default()),
                Err(_) => Ok(()),
            }
        });
        fs::remove_file(&self.program)?;
        symlink(good, &self.program)?;
        refused
    }

    /// Whether it is a program for Node.
    pub(super) fn is_node(&self) -> bool {
        self.is_node
    }

    fn listed(&self) -> Result<Value> {
        listed(&self.enter, self.folder.path())
    }
}

/// The script of a server that Node runs in one process, of which the supervisor makes a cluster.
pub(super) fn script(server: &Server) -> Option<PathBuf> {
    let Program::Foreign(foreign) = &server.program else { return None };
    let is_one = server.is_one_process && foreign.command[0] == NODE;
    foreign.command.get(1).filter(|_| is_one).map(|script| foreign.folder.join(script))
}

fn listed(enter: &Enter, folder: &Path) -> Result<Value> {
    serde_json::from_str(&supervisor(enter, folder, &["list", "--json"])?).context("supervisor list --json")
}

fn supervisor(enter: &Enter, folder: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = enter.command(&package::supervisor())?;
    command.args(arguments).env_clear().env("SUPERVISOR_HOME", folder.join("home"));
    run(command)
}
