//! A running server: watched until it is ready, measured from outside, and ended for certain.

use super::deploy::package;
use super::guard::Guard;
use super::usage::{Cpu, Memory};
use crate::catalog::Server;
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpid, getppid};
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The time that a server has to get ready.
const UNTIL_READY: Duration = Duration::from_secs(10);
/// The time that a user's own server has: some load a virtual machine and a framework first.
const UNTIL_OWN_READY: Duration = Duration::from_secs(30);

/// How long the processes below a server that was killed may go on to tidy up.
const TIDY_UP: Duration = Duration::from_secs(5);

/// The conditions of a start.
#[derive(Debug, Clone)]
pub struct Start {
    /// W.
    pub threads: usize,
    /// Arguments besides those of `servers.toml`.
    pub more: Vec<String>,
    /// The cores it may use.
    pub cores: CpuSet,
}

/// A server that runs. Dropped, it is killed and reaped; if this process dies first, the kernel does that.
pub struct Running {
    /// `None` for a server that stallbench did not start.
    child: Option<Child>,
    stderr: File,
    /// Where it serves.
    pub address: SocketAddr,
    /// From the start of the process to the line that says it is ready.
    pub until_ready: Duration,
    /// That of a user's own server, whose processes know nothing of their parent's end.
    guard: Option<Guard>,
}

impl Running {
    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// One that ends or stays silent instead, with the last lines of its stderr.
    pub fn start(server: &Server, start: &Start) -> Result<Self> {
        let mut command = package::command(server, start.threads, &start.more);
        let (cores, harness) = (start.cores, getpid());
        let prepare = move || {
            set_pdeathsig(Signal::SIGKILL)?;
            // A daemon that leaves its parent stays below the server, and so is measured and ended with it.
            set_child_subreaper(true)?;
            if getppid() != harness {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            Ok(sched_setaffinity(Pid::from_raw(0), &cores)?)
        };
        // SAFETY: between fork and exec it makes system calls only; nothing is allocated or locked.
        unsafe { command.pre_exec(prepare) };
        Self::spawn(command).with_context(|| server.name.clone())
    }

    /// Starts a user's own server, in this environment, and waits until it accepts at the port, on either loopback address.
    ///
    /// # Errors
    /// One that ends or stays silent instead, with the last lines of its stderr.
    pub fn own(mut command: Command, name: &str, port: u16, cores: CpuSet) -> Result<Self> {
        let stderr = tempfile::tempfile().context("cannot make a file for the server's stderr")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.try_clone()?);
        let prepare = move || {
            set_pdeathsig(Signal::SIGKILL)?;
            Ok(sched_setaffinity(Pid::from_raw(0), &cores)?)
        };
        // SAFETY: between fork and exec it makes system calls only; nothing is allocated or locked.
        unsafe { command.pre_exec(prepare) };
        let started = Instant::now();
        let child = command.process_group(0).spawn();
        let child = child.with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let guard = Guard::of(&child);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut running = Running { child: Some(child), stderr, address: nowhere, until_ready: Duration::ZERO, guard: None };
        running.guard = Some(guard?);
        let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
        loop {
            let is_there = |address: &&SocketAddr| TcpStream::connect_timeout(address, UNTIL_READY).is_ok();
            if let Some(address) = addresses.iter().find(is_there) {
                running.address = *address;
                break;
            }
            crate::console::interrupt::check()?;
            if running.ended().is_some() {
                bail!("'{name}' ended before it was ready{}", running.last_words());
            }
            if started.elapsed() > UNTIL_OWN_READY {
                let most = UNTIL_OWN_READY.as_secs();
                bail!(
                    "'{name}' does not accept at port {port} within {most} s: does its command use {{port}}?{}",
                    running.last_words()
                );
            }
            // Nothing tells when a foreign server listens.
            std::thread::sleep(Duration::from_millis(10));
        }
        running.until_ready = started.elapsed();
        Ok(running)
    }

    /// A server that is running already and is left running.
    ///
    /// # Errors
    /// Nothing accepts there.
    pub fn elsewhere(address: SocketAddr) -> Result<Self> {
        TcpStream::connect_timeout(&address, UNTIL_READY).with_context(|| format!("cannot connect to {address}"))?;
        let stderr = tempfile::tempfile().context("cannot make a file")?;
        Ok(Running { child: None, stderr, address, until_ready: Duration::ZERO, guard: None })
    }

    fn spawn(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null());
        Self::spawn_with_stdin(command)
    }

    /// Runs a command that says when it is ready.
    ///
    /// # Errors
    /// One that ends or stays silent instead, with the last lines of its stderr.
    pub fn spawn_with_stdin(mut command: Command) -> Result<Self> {
        let stderr = tempfile::tempfile().context("cannot make a file for the server's stderr")?;
        command.stdout(Stdio::piped()).stderr(stderr.try_clone()?);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut running = Running { child: Some(child), stderr, address, until_ready: Duration::ZERO, guard: None };
        running.address = running.wait_until_ready(started)?;
        running.until_ready = started.elapsed();
        Ok(running)
    }

    /// Runs a command that serves at a known address, with outputs that nobody reads.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn spawn_unheard(mut command: Command, address: SocketAddr) -> Result<Self> {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        command.stdout(writer.try_clone()?).stderr(writer);
        let prepare = || {
            set_pdeathsig(Signal::SIGKILL)?;
            Ok(set_child_subreaper(true)?)
        };
        // SAFETY: between fork and exec it makes system calls only; nothing is allocated or locked.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let stderr = tempfile::tempfile().context("cannot make a file")?;
        Ok(Running { child: Some(child), stderr, address, until_ready: Duration::ZERO, guard: None })
    }

    fn wait_until_ready(&mut self, started: Instant) -> Result<SocketAddr> {
        let stdout = self.child.as_mut().and_then(|child| child.stdout.take());
        let Some(mut stdout) = stdout else { bail!("has no stdout") };
        let mut line = Vec::new();
        while !line.contains(&b'\n') {
            let left = UNTIL_READY.saturating_sub(started.elapsed());
            let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::try_from(left)?).unwrap_or(0) == 0 {
                crate::console::interrupt::check()?;
                if left.is_zero() {
                    bail!("was not ready within {} s{}", UNTIL_READY.as_secs(), self.last_words());
                }
                continue;
            }
            let mut piece = [0; 256];
            match stdout.read(&mut piece)? {
                0 => bail!("ended before it was ready{}", self.last_words()),
                count => line.extend_from_slice(&piece[..count]),
            }
        }
        // Kept open: a server that prints more must not be ended by that.
        if let Some(child) = &mut self.child {
            child.stdout = Some(stdout);
        }
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        let address = line.strip_prefix("ready http://").and_then(|address| address.parse().ok());
        address.with_context(|| format!("said '{line}' instead of 'ready http://ADDRESS'"))
    }

    /// The end of its stderr, as part of an error message.
    pub fn last_words(&mut self) -> String {
        let mut text = String::new();
        let read = self.stderr.rewind().and_then(|()| self.stderr.read_to_string(&mut text));
        let lines: Vec<&str> = text.lines().collect();
        match (read, &lines[lines.len().saturating_sub(5)..]) {
            (Err(_), _) | (_, []) => String::new(),
            (_, last) => format!("; its stderr ends: {}", last.join(" | ")),
        }
    }

    /// Adds to an error what the server has to say to it: that it has ended, and the last lines of its stderr.
    ///
    /// # Errors
    /// The same error, with more words; an interrupt as it is.
    pub fn explain<T>(&mut self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            if error.downcast_ref::<crate::console::interrupt::Interrupted>().is_some() {
                return error;
            }
            // A process that dies closes its sockets before its end can be seen.
            let ended =
                self.wait(Duration::from_millis(200)).map_or(String::new(), |status| format!("; the server ended: {status}"));
            let words = self.last_words();
            if ended.is_empty() && words.is_empty() { error } else { anyhow::anyhow!("{error:#}{ended}{words}") }
        })
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// Its process, and the workers it has forked.
    pub fn pids(&self) -> Vec<Pid> {
        self.child.as_ref().map_or(Vec::new(), |child| pids(child.id()))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let Some(child) = &self.child else { bail!("cannot control a server that stallbench did not start") };
        Ok(kill(Pid::from_raw(child.id().cast_signed()), signal)?)
    }

    /// Waits for its end, for so long at most.
    ///
    /// # Errors
    /// One that does not end.
    pub fn wait(&mut self, most: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        let Some(child) = &mut self.child else { bail!("cannot control a server that stallbench did not start") };
        let pidfd = pidfd_open(child.id())?;
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::try_from(most)?)? == 0 {
            bail!("has not ended within {} s", most.as_secs());
        }
        Ok(child.wait()?)
    }

    /// Processor time used so far by all its processes.
    pub fn cpu(&self) -> Cpu {
        Cpu::of(&self.pids())
    }

    /// Memory and threads of all its processes.
    pub fn memory(&self) -> Memory {
        Memory::of(&self.pids())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        let below: Vec<OwnedFd> =
            pids(child.id()).into_iter().skip(1).filter_map(|pid| pidfd_open(pid.as_raw().cast_unsigned()).ok()).collect();
        if self.guard.is_some() {
            // While its first process is not reaped, the group keeps its id.
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        }
        let _ = child.kill();
        let _ = child.wait();
        // What runs below ends with its parent, and may tidy up before it does; what has not ended then is ended, though not ours to reap.
        let end = Instant::now() + if self.guard.is_some() { Duration::ZERO } else { TIDY_UP };
        for pidfd in below {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)) != Ok(1) {
                pidfd_kill(&pidfd);
            }
        }
    }
}

/// A process and all below it, whatever thread has started them.
fn pids(root: u32) -> Vec<Pid> {
    let mut all = vec![Pid::from_raw(root.cast_signed())];
    let mut next = 0;
    while next < all.len() {
        let threads = fs::read_dir(format!("/proc/{}/task", all[next])).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse().ok()).map(Pid::from_raw));
        }
        next += 1;
    }
    all
}

fn pidfd_kill(pidfd: &OwnedFd) {
    // SAFETY: a plain system call on a descriptor that is open.
    unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), Signal::SIGKILL as i32, 0, 0) };
}

fn pidfd_open(pid: u32) -> Result<OwnedFd> {
    // SAFETY: a plain system call; the descriptor it returns is new and owned by nobody else.
    unsafe {
        let fd = nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0);
        if fd < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(OwnedFd::from_raw_fd(i32::try_from(fd)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(script: &str) -> String {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Running::spawn(command).err().map(|error| format!("{error:#}")).unwrap_or_default()
    }

    #[test]
    fn a_server_that_ends_before_it_is_ready_is_quoted() {
        let words = failure("echo first >&2; echo 'no such table' >&2; exit 7");
        assert_eq!(words, "ended before it was ready; its stderr ends: first | no such table");
    }

    #[test]
    fn a_server_that_says_something_else_is_quoted() {
        assert_eq!(failure("echo hello; sleep 60"), "said 'hello' instead of 'ready http://ADDRESS'");
    }

    #[test]
    fn a_server_that_dies_later_is_named_in_what_failed_because_of_it() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo ready http://127.0.0.1:1; read line; echo 'out of luck' >&2; exit 9"]);
        command.stdin(Stdio::piped());
        let mut running = Running::spawn_with_stdin(command).unwrap();
        drop(running.child.as_mut().unwrap().stdin.take());
        running.wait(Duration::from_secs(10)).unwrap();
        let explained = running.explain::<()>(Err(anyhow::anyhow!("no answer"))).unwrap_err().to_string();
        assert_eq!(explained, "no answer; the server ended: exit status: 9; its stderr ends: out of luck");
    }
}
