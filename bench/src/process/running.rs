//! A running server: watched until it is ready, measured from outside, and ended for certain.

use super::deploy::package;
use super::guard::Hold;
use super::usage::{Cpu, Memory};
use super::words::Words;
use crate::catalog::Server;
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The time that a server has to get ready.
pub(super) const UNTIL_READY: Duration = Duration::from_secs(10);

/// The time after which the end of a process that has closed its sockets and outputs is seen.
const UNTIL_SEEN: Duration = Duration::from_millis(200);
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
    /// The guard of a user's own server; `None` for a server that stallbench did not start.
    child: Option<Child>,
    words: Words,
    /// Where it serves.
    pub address: SocketAddr,
    /// From the start of the process to the line that says it is ready.
    pub until_ready: Duration,
    /// What keeps the guard of a user's own server waiting.
    pub(super) hold: Option<Hold>,
    /// The time until which a user's own server may say that it is not ready yet.
    pub(super) warms_up_until: Option<Instant>,
    /// It has given an answer other than that it is not ready.
    has_answered: bool,
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

    /// A server that is running already and is left running.
    ///
    /// # Errors
    /// Nothing accepts there.
    pub fn elsewhere(address: SocketAddr) -> Result<Self> {
        TcpStream::connect_timeout(&address, UNTIL_READY).with_context(|| format!("cannot connect to {address}"))?;
        Ok(Running::at(address, None, Words::default()))
    }

    /// A process that has not said where it serves.
    pub(super) fn new(child: Child, words: Words) -> Self {
        Self::at(SocketAddr::from(([0, 0, 0, 0], 0)), Some(child), words)
    }

    fn at(address: SocketAddr, child: Option<Child>, words: Words) -> Self {
        Running { child, words, address, until_ready: Duration::ZERO, hold: None, warms_up_until: None, has_answered: false }
    }

    /// The time that a user's own server still has until its first answer; none once it has given it, or where stallbench did not start it.
    pub fn until_first_answer(&self) -> Duration {
        let until = self.warms_up_until.filter(|_| !self.has_answered);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// It has given its first answer.
    pub fn answered(&mut self) {
        self.has_answered = true;
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
        let words = Words::of_stderr()?;
        command.stdout(Stdio::piped()).stderr(words.stderr()?);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let mut running = Running::new(child, words);
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
        Ok(Running::at(address, Some(child), Words::default()))
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
                0 => {
                    // A process that dies closes its outputs before its end can be seen.
                    let status = self.wait(UNTIL_SEEN).map_or(String::new(), |status| format!(" with {}", how(status)));
                    bail!("ended{status} before it was ready{}", self.last_words());
                }
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

    /// The end of what it printed, as part of an error message.
    pub fn last_words(&self) -> String {
        self.words.last()
    }

    /// Adds to an error what the server has to say to it: that it has ended, and the last lines that it printed.
    ///
    /// # Errors
    /// The same error, with more words; an interrupt as it is.
    pub fn explain<T>(&mut self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            if error.downcast_ref::<crate::console::interrupt::Interrupted>().is_some() {
                return error;
            }
            // A process that dies closes its sockets before its end can be seen.
            let ended = self.wait(UNTIL_SEEN).map_or(String::new(), |status| format!("; the server ended with {}", how(status)));
            let words = self.last_words();
            if ended.is_empty() && words.is_empty() { error } else { anyhow::anyhow!("{error:#}{ended}{words}") }
        })
    }

    /// Whether it has ended, and how; a user's own server has when nothing is left of it.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// Its process, and the workers it has forked; of a user's own server, all that its command has started.
    pub fn pids(&self) -> Vec<Pid> {
        let mut all = self.child.as_ref().map_or(Vec::new(), |child| pids(child.id()));
        // The guard is not part of the server.
        all.drain(..all.len().min(usize::from(self.hold.is_some())));
        all
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.pids().first().copied() else { bail!("cannot control a server that stallbench did not start") };
        Ok(kill(pid, signal)?)
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
        if let Some(hold) = self.hold.take() {
            // The guard ends all, and then itself.
            drop(hold);
            let _ = child.wait();
            return;
        }
        let below: Vec<OwnedFd> =
            pids(child.id()).into_iter().skip(1).filter_map(|pid| pidfd_open(pid.as_raw().cast_unsigned()).ok()).collect();
        let _ = child.kill();
        let _ = child.wait();
        // What runs below ends with its parent, and may tidy up before it does; what has not ended then is ended, though not ours to reap.
        let end = Instant::now() + TIDY_UP;
        for pidfd in below {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)) != Ok(1) {
                pidfd_kill(&pidfd);
            }
        }
    }
}

/// How a process ended, in words such as `exit status 3`.
pub(super) fn how(status: ExitStatus) -> String {
    status.to_string().replacen(": ", " ", 1)
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

pub(super) fn pidfd_open(pid: u32) -> Result<OwnedFd> {
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
        assert_eq!(words, "ended with exit status 7 before it was ready; its stderr ends: first | no such table");
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
        assert_eq!(explained, "no answer; the server ended with exit status 9; its stderr ends: out of luck");
    }
}
