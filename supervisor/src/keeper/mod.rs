//! The keeper starts and reaps workers, and holds listeners, log pipes and log files. It makes no decisions of its own.
//!
//! It is small, so that little in it can fail. If the daemon dies, the keeper reports everything it holds to a new daemon. If
//! the keeper dies, nothing is lost either, since the daemon has a copy of each descriptor.

mod daemon;
mod ipc;
mod lines;
mod listeners;
mod log;
mod notify;
mod output;
mod pace;
mod reap;
mod start;
mod surroundings;
mod sweep;
mod tail;
mod worker;

pub use log::rotated;
pub use start::{adopt, begin};
pub use surroundings::role_of;

use crate::cgroup::Delegated;
use crate::channel::{Job, Key, Order, Report, Standing};
use crate::home::Home;
use crate::poll::{Poller, Token};
use crate::proc::Identity;
use crate::signals::readable;
use anyhow::Result;
use daemon::Daemon;
use listeners::Listener;
use log::Log;
use rustix::process::{getpid, set_child_subreaper, setsid};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use surroundings::{forget_the_caller, role, watchdog};
use sweep::Left;
use worker::Worker;

/// Bytes read from a pipe at once: the capacity of a pipe.
const CHUNK: usize = 64 * 1024;

/// The purpose of a watched descriptor.
#[derive(Debug, Clone, Copy)]
enum Source {
    Daemon,
    /// A client has come, and the daemon has not accepted it yet.
    Control,
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
    /// The channel of a Node program.
    Ipc(Key),
}

struct Keeper {
    home: Home,
    poller: Poller<Source>,
    daemon: Option<Daemon>,
    /// Time at which to start a daemon after the last one ended too soon.
    daemon_due: Option<Instant>,
    /// The daemon has said that it ends on purpose.
    is_left: bool,
    /// A signal to end has come; each daemon is told.
    is_asked_to_end: bool,
    /// Something that the next daemon should know about the last one.
    remark: Option<String>,
    control: Option<OwnedFd>,
    /// Held as long as a supervisor runs.
    lock: Option<OwnedFd>,
    control_token: Option<Token>,
    listeners: BTreeMap<String, Listener>,
    workers: BTreeMap<Key, Worker>,
    /// Processes that have ended, and whose cgroups are not removed yet.
    cgroups: BTreeSet<i32>,
    /// Processes that earlier keepers have left, and that were asked to end.
    left: Option<Left>,
    logs: BTreeMap<PathBuf, Log>,
    signals: UnixStream,
    hangups: UnixStream,
    children: UnixStream,
    buffer: Vec<u8>,
    /// How often systemd wants a sign of life, if it does, and when the next one is due.
    watchdog: Option<Duration>,
    watchdog_due: Option<Instant>,
    is_over: bool,
}

impl Keeper {
    fn new(home: Home) -> Result<Self> {
        // A session of its own, so that closing a terminal does not end it. Under systemd it already has one.
        let _ = setsid();
        forget_the_caller()?;
        // Orphaned children of workers become children of the keeper, which reaps them.
        set_child_subreaper(Some(getpid()))?;
        Delegated::get().into_iter().for_each(Delegated::tidy);
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
            is_left: false,
            is_asked_to_end: false,
            remark: None,
            control: None,
            lock: None,
            control_token: None,
            listeners: BTreeMap::new(),
            workers: BTreeMap::new(),
            cgroups: BTreeSet::new(),
            left: None,
            logs: BTreeMap::new(),
            signals,
            hangups,
            children,
            buffer: vec![0; CHUNK],
            watchdog: watchdog(),
            watchdog_due: None,
            is_over: false,
        })
    }

    fn run(mut self) -> Result<ExitCode> {
        while !self.is_over {
            let silence = self.daemon.as_ref().and_then(|daemon| daemon.channel.due());
            let left = self.left.as_ref().map(|left| left.due);
            let due = self
                .workers
                .values()
                .filter_map(Worker::due)
                .chain(self.daemon_due)
                .chain(silence)
                .chain(left)
                .chain(self.watchdog_due)
                .min();
            let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
            for source in self.poller.wait(timeout)? {
                self.handle(source)?;
            }
            if self.daemon_due.is_some_and(|due| due <= Instant::now()) {
                self.try_daemon();
            }
            self.check_daemon()?;
            self.tell_systemd();
            self.tick()?;
            if let Some(daemon) = &self.daemon {
                self.poller.set_interest(daemon.token, &daemon.channel, true, daemon.channel.has_unsent())?;
            }
        }
        if self.owns_home() {
            let _ = fs::remove_file(self.home.control());
            let _ = fs::remove_file(self.home.shared_preload());
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Gives systemd the sign of life that it wants.
    fn tell_systemd(&mut self) {
        let Some(every) = self.watchdog else { return };
        let now = Instant::now();
        if self.watchdog_due.is_none_or(|due| due <= now) {
            self.watchdog_due = Some(now + every);
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }

    fn handle(&mut self, source: Source) -> Result<()> {
        match source {
            Source::Daemon => self.obey(),
            Source::Control => self.check_for_client(),
            Source::Signals => {
                let _ = self.signals.read(&mut self.buffer);
                self.is_asked_to_end = true;
                self.report(&Report::Terminate)
            }
            Source::Hangups => {
                let _ = self.hangups.read(&mut self.buffer);
                self.reopen_logs();
                self.restore()
            }
            Source::Children => {
                let _ = self.children.read(&mut self.buffer);
                self.reap_orphans()
            }
            Source::Output(key, stream) => self.log(key, stream),
            Source::Notify(key) => self.hear(key),
            Source::Ipc(key) => {
                let Self { workers, poller, .. } = self;
                let reports = workers.get_mut(&key).map(|worker| worker.hear_node(poller)).unwrap_or_default();
                reports.iter().try_for_each(|report| self.report(report))
            }
            Source::End(key) => self.reap(key),
        }
    }

    /// Does what workers have due: the status of one that sends many is reported now and then, and the beginning of a line is written at last.
    fn tick(&mut self) -> Result<()> {
        let now = Instant::now();
        self.left.take_if(|left| left.due <= now).iter().for_each(Left::kill);
        let is_due = |worker: &&mut Worker| worker.due().is_some_and(|due| due <= now);
        let (mut reports, mut rests) = (Vec::new(), Vec::new());
        for worker in self.workers.values_mut().filter(is_due) {
            reports.extend(worker.tick(&mut self.poller)?);
            let is_late = |stream: &usize| worker.lines[*stream].due().is_some_and(|due| due <= now);
            rests.extend((0..2).filter(is_late).map(|stream| (worker.job.key, stream)));
        }
        rests.into_iter().try_for_each(|(key, stream)| self.log_rest(key, stream, false))?;
        reports.iter().try_for_each(|report| self.report(report))
    }

    fn report(&mut self, report: &Report) -> Result<()> {
        // A new daemon gets all reports when it starts.
        if let Some(daemon) = &mut self.daemon {
            daemon.channel.send(report, &[])?;
        }
        Ok(())
    }

    fn execute(&mut self, order: Order, mut descriptors: Vec<OwnedFd>) -> Result<()> {
        match order {
            Order::Bind(address) => self.bind(address),
            Order::Unbind(address) => self.unbind(&address),
            Order::Spawn(job) => self.spawn(job),
            Order::Confirm(key) => {
                self.workers.get_mut(&key).into_iter().for_each(Worker::confirm);
                Ok(())
            }
            Order::Ready(key) => {
                self.workers.get_mut(&key).into_iter().for_each(Worker::is_seen_ready);
                Ok(())
            }
            Order::Signal(key, signal) => match self.workers.get_mut(&key) {
                Some(worker) => {
                    worker.signal(signal, &self.home);
                    self.report(&Report::Signalled(key))
                }
                None => Ok(()),
            },
            Order::Raise(key, signal) => {
                self.workers.get(&key).into_iter().for_each(|worker| worker.raise(signal));
                Ok(())
            }
            Order::Give(key, wish, address) => {
                if let Some(app) = self.workers.get(&key).map(|worker| worker.job.app.clone()) {
                    self.listen_again(&app, std::slice::from_ref(&address))?;
                }
                if let (Some(worker), Some(listener)) = (self.workers.get_mut(&key), self.listeners.get(&address)) {
                    worker.node().into_iter().for_each(|node| node.give(wish, listener.socket.as_fd()));
                    // The next daemon has to know it.
                    if !worker.job.asked.contains(&address) {
                        worker.job.asked.push(address);
                    }
                }
                Ok(())
            }
            Order::Refuse(key, wish, number, why) => {
                let node = self.workers.get_mut(&key).and_then(Worker::node);
                node.into_iter().for_each(|node| node.refuse(wish, number, &why));
                Ok(())
            }
            Order::Sweep(suspects) => self.sweep(&suspects),
            Order::Flush(paths) => {
                for (path, keep) in paths {
                    match self.logs.get_mut(&path) {
                        Some(log) => log.flush(),
                        None => log::flush(&path, keep),
                    }
                }
                Ok(())
            }
            Order::Reopen => {
                self.reopen_logs();
                self.restore()
            }
            Order::Forget(key) => self.forget(key),
            Order::AdoptControl => {
                self.lock = descriptors.pop();
                self.control = descriptors.pop();
                // Whoever finds the lock held can find this keeper, unless the disk is full.
                let _ = fs::write(self.home.alive(), std::process::id().to_string());
                Ok(())
            }
            Order::AdoptListener(address) => {
                let listener = descriptors.pop().map(|socket| Listener::new(&address, socket));
                self.listeners.extend(listener.map(|listener| (address, listener)));
                Ok(())
            }
            Order::AdoptWorker(job, identity, standing) => self.adopt_worker(job, identity, standing, descriptors),
            Order::Leave => {
                self.is_left = true;
                Ok(())
            }
            Order::Quit => {
                // Nothing else is left to do.
                self.left.take().iter().for_each(|left| {
                    left.wait();
                    left.kill();
                });
                self.end_orphans();
                Delegated::get().into_iter().for_each(Delegated::tidy);
                self.is_over = true;
                Ok(())
            }
        }
    }

    fn spawn(&mut self, job: Job) -> Result<()> {
        let key = job.key;
        self.listen_again(&job.app, &job.listeners)?;
        let listeners = job.listeners.iter().filter_map(|address| self.listeners.get(address)).map(|listener| &listener.socket);
        let listeners: Vec<&OwnedFd> = listeners.collect();
        for listener in &listeners {
            // The flag is shared with all that have the listener, and all of them want it so.
            rustix::io::ioctl_fionbio(listener, !job.blocks)?;
        }
        match Worker::spawn(&self.home, job, &listeners) {
            Ok(worker) => self.keep(key, worker),
            Err(error) => self.report(&Report::CannotSpawn(key, format!("{error:#}"))),
        }
    }

    fn adopt_worker(&mut self, job: Job, identity: Identity, standing: Standing, descriptors: Vec<OwnedFd>) -> Result<()> {
        let key = job.key;
        match Worker::adopt(job, identity, standing, descriptors) {
            Ok(worker) => self.keep(key, worker),
            // It has ended meanwhile.
            Err(_) => self.report(&Report::Vanished(key)),
        }
    }

    /// Watches a new worker, and reports it to the daemon.
    fn keep(&mut self, key: Key, mut worker: Worker) -> Result<()> {
        for plan in &worker.job.logs {
            // Where there can be no such folder, the first write says why.
            let _ = log::Place::of(&plan.path, true);
            match self.logs.get_mut(&plan.path) {
                Some(log) => log.plan(plan.clone()),
                None => drop(self.logs.insert(plan.path.clone(), Log::new(plan.clone()))),
            }
        }
        worker.watch(&mut self.poller)?;
        if let Some(daemon) = &mut self.daemon {
            worker.tell(&mut daemon.channel)?;
        }
        // Its cgroup is not that of an earlier process with its id.
        self.cgroups.remove(&worker.pid());
        self.workers.insert(key, worker);
        Ok(())
    }

    /// Reads a worker's messages. Each is reported before it is taken from the socket: if this keeper died in between, the next one would read it again.
    fn hear(&mut self, key: Key) -> Result<()> {
        for _ in 0..notify::MOST_WORDS {
            let Some(worker) = self.workers.get_mut(&key) else { return Ok(()) };
            let Some(reports) = worker.read_word() else { return Ok(()) };
            reports.iter().try_for_each(|report| self.report(report))?;
            self.workers.get_mut(&key).into_iter().for_each(|worker| worker.drop_word());
        }
        let Self { workers, poller, .. } = self;
        workers.get_mut(&key).into_iter().for_each(|worker| worker.pause(poller));
        Ok(())
    }
}

/// Writes a message to the supervisor's own log. A full disk is not a reason to end.
fn tell(home: &Home, text: &str) {
    let _ = home.tell(text);
}
