//! The keeper starts and reaps workers, and holds listeners, log pipes and log files. It makes no decisions of its own.
//!
//! It is small, so that little in it can fail. If the daemon dies, the keeper reports everything it holds to a new daemon. If
//! the keeper dies, nothing is lost either, since the daemon has a copy of each descriptor.

mod log;
mod reap;
mod start;
mod worker;

pub use log::rotated;
pub use start::{adopt, begin};

use crate::channel::{Channel, Job, Key, Order, Report, Standing, pair};
use crate::home::Home;
use crate::poll::{Poller, Token};
use crate::proc::Identity;
use anyhow::{Context, Result};
use log::Log;
use rustix::process::{Resource, Rlimit, getpid, getrlimit, set_child_subreaper, setrlimit, setsid};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use worker::Worker;

/// Bytes read from a pipe at once: the capacity of a pipe.
const CHUNK: usize = 64 * 1024;
/// Connections that the kernel queues until a worker accepts them.
const BACKLOG: i32 = 4096;
/// If a daemon ends within this time, the next one starts only after it.
const DAEMON_PAUSE: Duration = Duration::from_millis(500);

/// The purpose of a watched descriptor.
#[derive(Debug, Clone, Copy)]
enum Source {
    Daemon,
    /// A signal to end has come.
    Signals,
    /// A signal to reopen the logs has come.
    Hangups,
    /// A child or an adopted orphan has ended.
    Children,
    /// A worker's pidfd, readable once the worker has ended.
    End(Key),
    /// A worker's standard output or error.
    Output(Key, usize),
    /// A worker's notify socket.
    Notify(Key),
}

struct Keeper {
    home: Home,
    poller: Poller<Source>,
    daemon: Option<Daemon>,
    /// Time at which to start a daemon after the last one ended too soon.
    daemon_due: Option<Instant>,
    control: Option<OwnedFd>,
    listeners: BTreeMap<String, OwnedFd>,
    workers: BTreeMap<Key, Worker>,
    logs: BTreeMap<PathBuf, Log>,
    signals: UnixStream,
    hangups: UnixStream,
    children: UnixStream,
    buffer: Vec<u8>,
    is_over: bool,
}

struct Daemon {
    channel: Channel,
    token: Token,
    /// `None` if the daemon started this keeper.
    child: Option<Child>,
    started: Instant,
}

impl Keeper {
    fn new(home: Home) -> Result<Self> {
        // A session of its own, so that closing a terminal does not end it. Under systemd it already has one.
        let _ = setsid();
        // Each worker needs four descriptors.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
            .context("cannot raise the limit on open files")?;
        // Orphaned children of workers become children of the keeper, which reaps them.
        set_child_subreaper(Some(getpid()))?;
        let mut poller = Poller::new()?;
        let (signals, hangups, children) = (readable(&[SIGTERM, SIGINT])?, readable(&[SIGHUP])?, readable(&[SIGCHLD])?);
        poller.add(&signals, Source::Signals)?;
        poller.add(&hangups, Source::Hangups)?;
        poller.add(&children, Source::Children)?;
        Ok(Keeper {
            home,
            poller,
            daemon: None,
            daemon_due: None,
            control: None,
            listeners: BTreeMap::new(),
            workers: BTreeMap::new(),
            logs: BTreeMap::new(),
            signals,
            hangups,
            children,
            buffer: vec![0; CHUNK],
            is_over: false,
        })
    }

    fn run(mut self) -> Result<ExitCode> {
        while !self.is_over {
            let due = self.workers.values().filter_map(Worker::due).chain(self.daemon_due).min();
            let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
            for source in self.poller.wait(timeout)? {
                self.handle(source)?;
            }
            if self.daemon_due.is_some_and(|due| due <= Instant::now()) {
                self.try_daemon();
            }
            self.tick()?;
            if let Some(daemon) = &self.daemon {
                self.poller.set_writable(daemon.token, &daemon.channel, daemon.channel.has_unsent())?;
            }
        }
        let _ = fs::remove_file(self.home.control());
        Ok(ExitCode::SUCCESS)
    }

    fn handle(&mut self, source: Source) -> Result<()> {
        match source {
            Source::Daemon => self.obey(),
            Source::Signals => {
                let _ = self.signals.read(&mut self.buffer);
                self.report(&Report::Terminate)
            }
            Source::Hangups => {
                let _ = self.hangups.read(&mut self.buffer);
                self.logs.values_mut().for_each(Log::reopen);
                Ok(())
            }
            Source::Children => {
                let _ = self.children.read(&mut self.buffer);
                self.reap_orphans()
            }
            Source::Output(key, stream) => self.log(key, stream),
            Source::Notify(key) => self.hear(key),
            Source::End(key) => self.reap(key),
        }
    }

    /// Does what workers have due: the status of one that sends many is reported now and then.
    fn tick(&mut self) -> Result<()> {
        let now = Instant::now();
        let is_due = |worker: &&mut Worker| worker.due().is_some_and(|due| due <= now);
        let mut reports = Vec::new();
        for worker in self.workers.values_mut().filter(is_due) {
            reports.extend(worker.tick(&mut self.poller)?);
        }
        reports.iter().try_for_each(|report| self.report(report))
    }

    fn report(&mut self, report: &Report) -> Result<()> {
        // A new daemon gets all reports when it starts.
        if let Some(daemon) = &mut self.daemon {
            daemon.channel.send(report, &[])?;
        }
        Ok(())
    }

    fn take_daemon(&mut self, channel: Channel, child: Option<Child>) -> Result<()> {
        let token = self.poller.add(&channel, Source::Daemon)?;
        self.daemon = Some(Daemon { channel, token, child, started: Instant::now() });
        self.daemon_due = None;
        Ok(())
    }

    fn start_daemon(&mut self) -> Result<()> {
        let (own, other) = pair()?;
        let child = role("daemon").stdin(other).stdout(Stdio::null()).spawn().context("cannot start the daemon")?;
        self.take_daemon(Channel::new(own), Some(child))?;
        self.tell_everything()
    }

    fn tell_everything(&mut self) -> Result<()> {
        let Some(Daemon { channel, .. }) = &mut self.daemon else { return Ok(()) };
        if let Some(control) = &self.control {
            channel.send(&Report::Control, &[control.as_fd()])?;
        }
        for (address, listener) in &self.listeners {
            channel.send(&Report::Bound(address.clone()), &[listener.as_fd()])?;
        }
        for worker in self.workers.values() {
            worker.tell(channel)?;
        }
        channel.send(&Report::Told, &[])?;
        Ok(())
    }

    /// Executes the daemon's orders, or replaces the daemon if it has died.
    fn obey(&mut self) -> Result<()> {
        loop {
            let Some(daemon) = &mut self.daemon else { return Ok(()) };
            daemon.channel.flush();
            match daemon.channel.receive::<Order>() {
                Ok(None) => return Ok(()),
                Ok(Some((order, descriptors))) => self.execute(order, descriptors)?,
                Err(_) if self.is_over => return Ok(()),
                Err(_) => return self.replace_daemon(),
            }
        }
    }

    fn replace_daemon(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        self.poller.remove(daemon.token, &daemon.channel);
        if let Some(child) = &mut daemon.child {
            // The old daemon must not run beside the new one, whatever made it stop answering.
            let _ = child.kill();
            let status = child.wait()?;
            tell(&format!("the daemon ended ({status}) and is being restarted"));
        }
        if daemon.started.elapsed() < DAEMON_PAUSE {
            self.daemon_due = Some(Instant::now() + DAEMON_PAUSE);
        } else {
            self.try_daemon();
        }
        Ok(())
    }

    /// Starts a daemon, or retries later: a temporary shortage, such as of memory, must not end the workers.
    fn try_daemon(&mut self) {
        let Err(error) = self.start_daemon() else { return };
        tell(&format!("{error:#}"));
        if let Some(mut daemon) = self.daemon.take() {
            self.poller.remove(daemon.token, &daemon.channel);
            if let Some(child) = &mut daemon.child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        self.daemon_due = Some(Instant::now() + DAEMON_PAUSE);
    }

    fn execute(&mut self, order: Order, mut descriptors: Vec<OwnedFd>) -> Result<()> {
        match order {
            Order::Bind(address) => self.bind(address),
            Order::Unbind(address) => {
                self.listeners.remove(&address);
                Ok(())
            }
            Order::Spawn(job) => self.spawn(job),
            Order::Signal(key, signal) => {
                if let Some(worker) = self.workers.get_mut(&key) {
                    worker.signal(signal);
                }
                Ok(())
            }
            Order::Flush(paths) => {
                for (path, keep) in paths {
                    match self.logs.get_mut(&path) {
                        Some(log) => log.flush(),
                        None => log::flush(&path, keep),
                    }
                }
                Ok(())
            }
            Order::Forget(key) => {
                self.workers.remove(&key);
                self.close_logs();
                Ok(())
            }
            Order::AdoptControl => {
                self.control = descriptors.pop();
                Ok(())
            }
            Order::AdoptListener(address) => {
                self.listeners.extend(descriptors.pop().map(|listener| (address, listener)));
                Ok(())
            }
            Order::AdoptWorker(job, identity, standing) => self.adopt_worker(job, identity, standing, descriptors),
            Order::Quit => {
                self.is_over = true;
                Ok(())
            }
        }
    }

    fn bind(&mut self, address: String) -> Result<()> {
        if !self.listeners.contains_key(&address) {
            let listener = TcpListener::bind(&address).and_then(|listener| {
                // The flag belongs to the open file, so it holds for all processes that share it.
                listener.set_nonblocking(true)?;
                // A second listen with a longer queue, for clients that connect while a restart leaves no process to accept.
                rustix::net::listen(&listener, BACKLOG)?;
                Ok(listener)
            });
            match listener {
                Ok(listener) => self.listeners.insert(address.clone(), listener.into()),
                Err(error) => return self.report(&Report::CannotBind(address, error.to_string())),
            };
        }
        let (Some(daemon), Some(listener)) = (&mut self.daemon, self.listeners.get(&address)) else { return Ok(()) };
        Ok(daemon.channel.send(&Report::Bound(address), &[listener.as_fd()])?)
    }

    fn spawn(&mut self, job: Job) -> Result<()> {
        let key = job.key;
        let listeners: Vec<&OwnedFd> = job.listeners.iter().filter_map(|address| self.listeners.get(address)).collect();
        match Worker::spawn(&self.home, job, &listeners) {
            Ok(worker) => self.keep(key, worker),
            Err(error) => self.report(&Report::CannotSpawn(key, format!("{error:#}"))),
        }
    }

    fn adopt_worker(&mut self, job: Job, identity: Identity, standing: Standing, descriptors: Vec<OwnedFd>) -> Result<()> {
        let key = job.key;
        match Worker::adopt(job, identity, standing, descriptors) {
            Ok(worker) => self.keep(key, worker),
            Err(error) => self.report(&Report::Exited(key, format!("{error:#}"))),
        }
    }

    /// Watches a new worker, and reports it to the daemon.
    fn keep(&mut self, key: Key, mut worker: Worker) -> Result<()> {
        for plan in &worker.job.logs {
            match self.logs.get_mut(&plan.path) {
                Some(log) => log.plan(plan.clone()),
                None => drop(self.logs.insert(plan.path.clone(), Log::new(plan.clone()))),
            }
        }
        worker.watch(&mut self.poller)?;
        if let Some(daemon) = &mut self.daemon {
            worker.tell(&mut daemon.channel)?;
        }
        self.workers.insert(key, worker);
        Ok(())
    }

    /// Moves a worker's new output to its log.
    fn log(&mut self, key: Key, stream: usize) -> Result<()> {
        let Some(worker) = self.workers.get_mut(&key) else { return Ok(()) };
        let Some(count) = worker.read(stream, &mut self.buffer, &mut self.poller) else { return Ok(()) };
        let path = worker.job.logs[stream].path.clone();
        let Some(log) = self.logs.get_mut(&path) else { return Ok(()) };
        match log.write(&self.buffer[..count]) {
            Some(trouble) => self.report(&Report::LogTrouble(path, trouble)),
            None => Ok(()),
        }
    }

    fn hear(&mut self, key: Key) -> Result<()> {
        let Some(worker) = self.workers.get_mut(&key) else { return Ok(()) };
        let reports = worker.hear(&mut self.poller);
        reports.iter().try_for_each(|report| self.report(report))
    }
}

/// Builds a command that runs this program in another role. Its standard error is that of this process.
pub fn role(name: &str) -> Command {
    // The link leads to this very program, even if its file has been replaced.
    let mut command = Command::new("/proc/self/exe");
    command.arg(name).env_remove("NOTIFY_SOCKET");
    command
}

/// Returns a stream that becomes readable once one of these signals has come.
fn readable(signals: &[i32]) -> io::Result<UnixStream> {
    let (read, raised) = UnixStream::pair()?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, raised.try_clone()?)?;
    }
    read.set_nonblocking(true)?;
    Ok(read)
}

/// Writes a message to the supervisor's own log. A full disk is not a reason to end.
fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
