//! One worker of the keeper: its start, its pipes and its messages.

mod end;
mod remains;
mod words;

use super::ipc::Ipc;
use super::lines::Lines;
use super::notify::Notify;
use super::tail::Tail;
use super::{Source, role};
use crate::channel::{Channel, End, Job, Key, Report, Standing};
use crate::home::Home;
use crate::poll::{Poller, Token};
use crate::proc::{self, Identity};
use anyhow::{Context, Result, bail};
use command_fds::{CommandFdExt, FdMapping};
use remains::Remains;
use rustix::net::sockopt::set_socket_passcred;
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::time::Instant;

/// First descriptor of inherited listeners, as systemd defines it.
const FIRST_LISTENER: i32 = 3;
/// Descriptors that each worker has: two pipes and the notify socket.
const SOCKETS: usize = 3;
/// What a worker writes to its standard error.
const ERROR: usize = 1;

/// A worker.
pub struct Worker {
    pub job: Job,
    identity: Identity,
    pidfd: OwnedFd,
    /// This keeper started it, so the keeper can wait for its exit status.
    pub is_own: bool,
    /// Where its confirmation goes. Until then, it is the launcher, which ends if this end is closed without one.
    confirmation: Option<OwnedFd>,
    is_ready: bool,
    /// Read ends of standard output and error.
    outputs: [Option<(OwnedFd, Option<Token>)>; 2],
    /// What it has written since the end of a line.
    pub lines: [Lines; 2],
    tail: Tail,
    /// The end of a line whose own end was not written yet, as long as the worker is not ready.
    begun: [Vec<u8>; 2],
    /// The name of a process that it had started and that was not ready, when it was asked to end.
    child: Option<String>,
    /// What descended from it when it was asked to end, in whatever session and with whatever environment.
    descendants: Vec<Identity>,
    notify: Notify,
    /// When it has last sent a sign of life; and it has sent none for too long since, which was reported.
    life: Option<Instant>,
    is_stalled: bool,
    /// The channel of a Node program.
    ipc: Option<Ipc>,
    end_token: Option<Token>,
    is_told_to_end: bool,
    /// Exit status of its leader, as text, and the exit code.
    last_word: Option<(String, Option<i32>)>,
    /// What it has left behind, if another keeper had started it.
    remains: Remains,
    /// No process of its group is left.
    is_over: bool,
}

impl Worker {
    /// Starts the launcher, which does the remaining steps and becomes the worker once it is confirmed.
    ///
    /// # Errors
    /// Fails if a system call fails.
    pub fn spawn(home: &Home, job: Job, listeners: &[&OwnedFd]) -> Result<Self> {
        let mut path = home.notify(job.key.instance, job.key.generation).into_os_string();
        let _ = fs::remove_file(&path);
        let notify = if job.has_user {
            // Every user could take a name that can be guessed, and so keep the worker from being started.
            path.push(format!("-{}", proc::random().context("nothing random")?));
            let address = SocketAddr::from_abstract_name(path.as_encoded_bytes())?;
            path = [OsStr::new("@"), &path].into_iter().collect();
            UnixDatagram::bind_addr(&address)
        } else {
            UnixDatagram::bind(&path)
        };
        let notify = notify.with_context(|| format!("cannot listen on {}", path.to_string_lossy()))?;
        notify.set_nonblocking(true)?;
        // The kernel then tells the sender of each message.
        set_socket_passcred(&notify, true)?;
        let [output, error] = [(); 2].map(|()| pipe());
        let (output, error) = (output?, error?);
        let (input, confirmation) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut command = role("launch");
        command.arg(&job.spec).env("NOTIFY_SOCKET", &path).env("SUPERVISOR_INSTANCE", job.number.to_string());
        command.stdin(input).stdout(output.1).stderr(error.1).process_group(0);
        let mut passed = listeners.iter().map(|listener| listener.try_clone()).collect::<io::Result<Vec<_>>>()?;
        if !listeners.is_empty() {
            command.env("LISTEN_FDS", listeners.len().to_string());
        }
        let mut ipc = None;
        if job.is_node {
            let (own, other) = Ipc::pair()?;
            // Only root can start it as a user who may not enter the folder, so only root publishes the file.
            let preload = if job.has_user && geteuid().is_root() { home.shared_preload() } else { home.preload() };
            command.env("NODE_CHANNEL_FD", (FIRST_LISTENER as usize + passed.len()).to_string());
            command.env("SUPERVISOR_PRELOAD", preload);
            passed.push(other);
            ipc = Some(own);
        }
        let mappings = passed.into_iter().zip(FIRST_LISTENER..).map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mappings.collect()).context("cannot pass listeners on")?;
        let child = command.spawn().context("cannot start a process")?;
        let pid = Pid::from_child(&child);
        // The child exists until the keeper waits for it, even if only as a zombie.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("cannot open a pidfd")?;
        let identity = Identity::of(pid.as_raw_pid()).context("the process is not in /proc")?;
        let worker = Worker::new(job, (identity, pidfd), [output.0, error.0], notify);
        Ok(Worker { is_own: true, confirmation: Some(confirmation), ipc, ..worker })
    }

    /// Takes over a worker of a keeper that died.
    ///
    /// # Errors
    /// Fails if the worker has ended meanwhile.
    pub fn adopt(job: Job, identity: Identity, standing: Standing, mut descriptors: Vec<OwnedFd>) -> Result<Self> {
        let pid = Pid::from_raw(identity.pid).context("not a process id")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let ipc = if descriptors.len() > SOCKETS { descriptors.pop().map(Ipc::new).transpose()? } else { None };
        let Ok([output, error, notify]) = <[OwnedFd; 3]>::try_from(descriptors) else { bail!("its descriptors are missing") };
        // The check comes after the pidfd is open: from then on, no other process can get this id.
        if !identity.is_alive() {
            bail!("it has ended");
        }
        let worker = Worker::new(job, (identity, pidfd), [output, error], notify.into());
        // The last sign of life may be that of a moment ago.
        let life = standing.sends_life.then(Instant::now);
        Ok(Worker { is_ready: standing.is_ready, is_told_to_end: standing.is_told_to_end, life, ipc, ..worker })
    }

    fn new(job: Job, (identity, pidfd): (Identity, OwnedFd), [output, error]: [OwnedFd; 2], notify: UnixDatagram) -> Self {
        Worker {
            job,
            identity,
            pidfd,
            is_own: false,
            confirmation: None,
            is_ready: false,
            outputs: [Some((output, None)), Some((error, None))],
            lines: Default::default(),
            tail: Tail::default(),
            begun: Default::default(),
            child: None,
            descendants: Vec::new(),
            notify: Notify::new(notify),
            life: None,
            is_stalled: false,
            ipc: None,
            end_token: None,
            is_told_to_end: false,
            last_word: None,
            remains: Remains::default(),
            is_over: false,
        }
    }

    /// Lets the launcher become the worker.
    pub fn confirm(&mut self) {
        // One that has ended needs no confirmation.
        let _ = self.confirmation.take().map(|confirmation| rustix::io::write(confirmation, b"!"));
    }

    /// Notes that a check of the daemon has found it ready.
    pub fn is_seen_ready(&mut self) {
        self.is_ready = true;
    }

    /// Returns how it ended, once no process of its group is left.
    pub fn end(&self) -> Option<End> {
        let (how, code) = self.last_word.clone().filter(|_| self.is_over)?;
        Some(End { how, code, last_line: self.tail.telling_line(), child: self.child.clone() })
    }

    /// The process id of its leader.
    pub fn pid(&self) -> i32 {
        self.identity.pid
    }

    /// Returns whether its leader runs.
    pub fn runs(&self) -> bool {
        self.last_word.is_none()
    }

    fn key(&self) -> Key {
        self.job.key
    }

    /// Watches the worker's end, its output and its notify socket.
    pub fn watch(&mut self, poller: &mut Poller<Source>) -> io::Result<()> {
        let key = self.key();
        self.end_token = Some(poller.add(&self.pidfd, Source::End(key))?);
        self.notify.watch(key, poller)?;
        self.ipc.as_mut().map_or(Ok(()), |ipc| ipc.watch(key, poller))?;
        for (stream, output) in self.outputs.iter_mut().enumerate() {
            if let Some((pipe, token)) = output {
                *token = Some(poller.add(pipe, Source::Output(key, stream))?);
            }
        }
        Ok(())
    }

    /// Reports the worker's full state to a daemon.
    pub fn tell(&self, channel: &mut Channel) -> io::Result<()> {
        let ends = self.outputs.iter().filter_map(|output| output.as_ref().map(|(pipe, _)| pipe.as_fd()));
        let descriptors: Vec<BorrowedFd<'_>> =
            ends.chain([self.notify.as_fd()]).chain(self.ipc.as_ref().map(AsFd::as_fd)).collect();
        // A worker without its pipes has ended, and no keeper will have to adopt it.
        let descriptors = if descriptors.len() >= SOCKETS { descriptors } else { Vec::new() };
        channel.send(&Report::Spawned(Box::new(self.job.clone()), self.identity), &descriptors)?;
        if self.is_ready {
            channel.send(&Report::Ready(self.key()), &[])?;
        }
        if let Some(status) = self.notify.status() {
            channel.send(&Report::Status(self.key(), status), &[])?;
        }
        for (wish, address) in self.ipc.iter().flat_map(Ipc::wishes) {
            channel.send(&Report::Wants(self.key(), *wish, address.clone()), &[])?;
        }
        if self.life.is_some() {
            channel.send(&Report::Lives(self.key()), &[])?;
        }
        if let Some(stalled) = self.stalled() {
            channel.send(&stalled, &[])?;
        }
        if self.is_told_to_end {
            channel.send(&Report::Signalled(self.key()), &[])?;
        }
        if let Some(end) = self.end() {
            channel.send(&Report::Exited(self.key(), end), &[])?;
        }
        Ok(())
    }

    /// Returns whether a pipe has unread output.
    pub fn has_output(&self, stream: usize) -> bool {
        self.outputs[stream].as_ref().is_some_and(|(pipe, _)| rustix::io::ioctl_fionread(pipe).is_ok_and(|count| count > 0))
    }

    /// Reads from a pipe; returns the number of bytes, if there were any.
    pub fn read(&mut self, stream: usize, buffer: &mut [u8], poller: &mut Poller<Source>) -> Option<usize> {
        let (pipe, _) = self.outputs[stream].as_ref()?;
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => {
                // The descriptor stays open, so that another keeper gets all three.
                if let Some((pipe, token)) = &mut self.outputs[stream]
                    && let Some(token) = token.take()
                {
                    poller.remove(token, &*pipe);
                }
                None
            }
            Ok(count) => {
                if stream == ERROR {
                    self.tail.push(&buffer[..count]);
                }
                Some(count)
            }
            Err(_) => None,
        }
    }

    /// Stops reading a pipe, and closes it.
    pub fn close(&mut self, stream: usize, poller: &mut Poller<Source>) {
        if let Some((pipe, Some(token))) = self.outputs[stream].take() {
            poller.remove(token, pipe);
        }
    }

    /// Stops watching the worker's end and its messages.
    fn unwatch(&mut self, poller: &mut Poller<Source>) {
        if let Some(token) = self.end_token.take() {
            poller.remove(token, &self.pidfd);
        }
        self.notify.close(poller);
        self.ipc.iter_mut().for_each(|ipc| ipc.unwatch(poller));
    }
}

/// Creates a pipe: its read end, which never blocks, and its write end.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}
