//! Several hosts on one machine: each has a network, processes and processors of its own, and all are joined by a bridge.
//!
//! A host is a process namespace. Its first process reads from a pipe that only this process holds, and with it ends everything on the host: nothing
//! is left, however this process ends. Files stand in a file system of this process's own, which vanishes as well.

use crate::catalog::find_program;
use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use std::fs;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A folder that every machine has, and that nothing else of ours uses: the private file system is mounted there.
const FILES: &str = "/dev/shm";
/// The programs that it takes, of iproute2 and util-linux.
const TOOLS: [&str; 4] = ["ip", "unshare", "nsenter", "taskset"];
/// The bridge, and the prefix of every address.
const BRIDGE: &str = "bridge";
const PREFIX: [u8; 3] = [10, 77, 0];

/// The network that this thread, and what it starts from now on, is in.
pub struct Network {
    _private: (),
}

impl Network {
    /// The reason why there can be none here; `None` if there can.
    pub fn missing() -> Option<String> {
        if let Some(tool) = TOOLS.iter().find(|tool| find_program(tool).is_none()) {
            return Some(format!("{tool} not found: install iproute2 and util-linux"));
        }
        if !Uid::effective().is_root() {
            return Some("hosts are network namespaces, which take root".into());
        }
        let namespaces = ["--net", "--pid", "--mount-proc", "--fork", "true"];
        run("unshare", &namespaces).err().map(|error| format!("{error:#}"))
    }

    /// Leaves the machine's network for a fresh one, in which this process has the first address.
    ///
    /// # Errors
    /// The system does not permit it.
    pub fn enter() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("cannot make namespaces")?;
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).context("cannot make mounts private")?;
        mount(Some("tmpfs"), FILES, Some("tmpfs"), MsFlags::empty(), Some("mode=1777"))
            .with_context(|| format!("cannot mount a file system at {FILES}"))?;
        let _ = tempfile::env::override_temp_dir(std::path::Path::new(FILES));
        ip(&["link", "set", "lo", "up"])?;
        // Of its own, a bridge changes its address with its links, and its neighbours remember the one before.
        ip(&["link", "add", BRIDGE, "address", &mac(1), "type", "bridge"])?;
        ip(&["address", "add", &format!("{}/24", Self::address(1)), "dev", BRIDGE])?;
        ip(&["link", "set", BRIDGE, "up"])?;
        Ok(Network { _private: () })
    }

    /// The address of a host; number 1 is this process's.
    pub fn address(number: u8) -> Ipv4Addr {
        let [a, b, c] = PREFIX;
        Ipv4Addr::new(a, b, c, number)
    }

    /// A host with this number, whose processes run on these cores.
    ///
    /// # Errors
    /// The system does not permit it, or the number is taken.
    pub fn host(&self, number: u8, cores: &[usize]) -> Result<Host> {
        let mut init = Command::new(program("unshare")?)
            .args(["--net", "--pid", "--mount-proc", "--fork", "--kill-child", "sh", "-c", "echo up; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run unshare")?;
        let mut up = [0; 3];
        if init.stdout.as_mut().is_none_or(|output| output.read_exact(&mut up).is_err()) {
            let mut words = String::new();
            let _ = init.stderr.take().map(|mut stderr| stderr.read_to_string(&mut words));
            let _ = init.wait();
            bail!("cannot make a host: {}", words.trim());
        }
        let children = format!("/proc/{0}/task/{0}/children", init.id());
        let pid = fs::read_to_string(&children).with_context(|| format!("cannot read {children}"))?;
        let pid: i32 = pid.trim().parse().with_context(|| format!("{children} names no process"))?;
        let cores = cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let enter = Enter(vec!["--target".into(), pid.to_string(), "--net".into(), "--pid".into(), "--mount".into()], cores);
        let host = Host { init, pid: Pid::from_raw(pid), number, enter, is_gone: false };
        let link = link(number);
        // A machine that boots again has the address that its neighbours remember.
        let peer = ["peer", "name", "eth0", "address", &mac(number), "netns", &pid.to_string()];
        ip(&[&["link", "add", &link, "type", "veth"][..], &peer].concat())?;
        ip(&["link", "set", &link, "master", BRIDGE, "up"])?;
        host.ip(&["link", "set", "lo", "up"])?;
        host.ip(&["address", "add", &format!("{}/24", Self::address(number)), "dev", "eth0"])?;
        host.ip(&["link", "set", "eth0", "up"])?;
        Ok(host)
    }
}

/// A host. Dropped, all of its processes are killed and its network is gone.
pub struct Host {
    init: Child,
    pid: Pid,
    number: u8,
    enter: Enter,
    is_gone: bool,
}

impl Host {
    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        Network::address(self.number)
    }

    /// The way to start something on it.
    pub fn enter(&self) -> Enter {
        self.enter.clone()
    }

    /// Stops all of its processes, as a machine stands still.
    ///
    /// # Errors
    /// It is down.
    pub fn freeze(&self) -> Result<()> {
        checked(self.enter.command(&program("sh")?)?.args(["-c", "kill -s STOP -- -1"]))
    }

    /// Kills all of its processes, as a machine loses its power, and waits until they are gone; its network stays.
    pub fn strike(&mut self) {
        // Once it has been waited for, its process id may be another's.
        if matches!(self.init.try_wait(), Ok(None)) {
            // The kernel ends every process of a namespace whose first process ends, before that one is gone.
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = self.init.wait();
        }
    }

    /// Kills it, with its network, and waits until it is gone.
    pub fn kill(&mut self) {
        // Another host may have its name by now.
        if std::mem::replace(&mut self.is_gone, true) {
            return;
        }
        self.strike();
        // It takes its time with the network.
        let _ = ip(&["link", "delete", &link(self.number)]);
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        checked(self.enter.command(&program("ip")?)?.args(arguments))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The way onto a host: arguments of `nsenter`, and the cores. The default is this machine itself.
#[derive(Clone, Default)]
pub struct Enter(Vec<String>, String);

impl Enter {
    /// It leads to another host.
    pub fn is_elsewhere(&self) -> bool {
        !self.0.is_empty()
    }

    /// A command that runs there.
    ///
    /// # Errors
    /// A program that it takes is missing.
    pub fn command(&self, wanted: &std::path::Path) -> Result<Command> {
        if !self.is_elsewhere() {
            return Ok(Command::new(wanted));
        }
        let mut command = Command::new(program("nsenter")?);
        command.args(&self.0).arg("--").arg(program("taskset")?).args(["-c", &self.1]).arg(wanted);
        Ok(command)
    }
}

/// The address of a host's network card.
fn mac(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

/// This process's end of the cable.
fn link(number: u8) -> String {
    format!("host{number}")
}

fn program(name: &str) -> Result<PathBuf> {
    find_program(name).with_context(|| format!("{name} not found"))
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn run(name: &str, arguments: &[&str]) -> Result<()> {
    checked(Command::new(program(name)?).args(arguments))
}

/// Runs a command, and fails with its words.
fn checked(command: &mut Command) -> Result<()> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{}: {}", command.get_program().display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
