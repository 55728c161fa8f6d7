//! The daemon: one loop that owns the table of apps, receives events, and gives orders.
//!
//! It sleeps until an event occurs: a command, a report of the keeper, or the expiry of a timer. Its decisions follow the
//! table in [`worker`], which has no side effects; the daemon carries them out by sending orders to the keeper.
//!
//! If the daemon dies, the keeper starts another. The new daemon reads the table from disk, and the keeper reports the running
//! workers to it. If the keeper dies, the daemon starts another and hands it copies of every descriptor that the old one held.

mod clients;
mod keeper;
mod recover;
mod serve;
mod settle;
mod state;
mod table;
mod task;
mod watch;
mod worker;

use crate::channel::{Job, Key, Order, Report};
use crate::files::tail;
use crate::home::Home;
use crate::poll::Poller;
use crate::proc::{self, Identity};
use anyhow::{Context, Result};
use clients::Clients;
use keeper::Keeper;
use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGTERM};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use table::{Other, Table, Worker, failures};
use task::{Task, Verb};
use worker::{Action, Event, Policy, State, Then};

/// Interval between memory checks of apps with a memory limit; other apps are never checked.
const MEMORY_CHECK: Duration = Duration::from_secs(1);
/// Largest delay of the clock that file timestamps use.
const TICK: Duration = Duration::from_millis(10);
/// Number of remarks to keep.
const MOST_REMARKS: usize = 10;
/// Number of bytes at the end of an error log that are searched for its last line.
const TAIL: u64 = 2048;

/// The purpose of a watched descriptor.
#[derive(Debug, Clone, Copy)]
enum Source {
    Keeper,
    Control,
    Client(u64),
    /// The folders of watched programs.
    Programs,
}

/// The daemon.
struct Daemon {
    home: Home,
    poller: Poller<Source>,
    keeper: Keeper,
    control: Option<UnixListener>,
    clients: Clients,
    table: Table,
    tasks: Vec<Task>,
    /// Copies, in case the keeper dies.
    listeners: BTreeMap<String, OwnedFd>,
    log_troubles: BTreeMap<PathBuf, String>,
    remarks: Vec<String>,
    recovery: Option<recover::Recovery>,
    memory_due: Option<Instant>,
    /// Time to retry listeners that could not be bound.
    bind_due: Option<Instant>,
    watch: watch::Watch,
    is_dirty: bool,
    /// Set once all apps are to stop; holds the client that asked for it, if one did.
    ending: Option<Option<u64>>,
    is_over: bool,
}

/// Runs the daemon; the keeper is at the other end of standard input.
///
/// # Errors
/// Fails on an error from which the daemon cannot recover; the keeper then starts another.
pub fn run() -> Result<ExitCode> {
    // A signal to the process group reaches the keeper too, which tells the daemon to end everything in order.
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::default()).context("cannot ignore a signal")?;
    }
    let mut poller = Poller::new()?;
    let keeper = Keeper::parent(&mut poller)?;
    let home = Home::open()?;
    let recovery = recover::Recovery::begin(&home);
    let mut daemon = Daemon {
        home,
        poller,
        keeper,
        control: None,
        clients: Clients::default(),
        table: Table::default(),
        tasks: Vec::new(),
        listeners: BTreeMap::new(),
        log_troubles: BTreeMap::new(),
        remarks: Vec::new(),
        recovery: Some(recovery),
        memory_due: None,
        bind_due: None,
        watch: watch::Watch::default(),
        is_dirty: false,
        ending: None,
        is_over: false,
    };
    while !daemon.is_over {
        daemon.turn()?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Daemon {
    /// Waits for events, and handles them.
    fn turn(&mut self) -> Result<()> {
        let now = Instant::now();
        let due = [self.table.due(), self.memory_due, self.bind_due, self.keeper.due, self.clients.due(), self.watch.due()]
            .into_iter()
            .flatten()
            .min();
        for source in self.poller.wait(due.map(|due| due.saturating_duration_since(now)))? {
            match source {
                Source::Keeper => self.hear()?,
                Source::Control => self.accept()?,
                Source::Client(id) => self.serve_client(id)?,
                Source::Programs => self.note_changes(),
            }
        }
        self.times_over()?;
        self.settle()?;
        if self.is_dirty {
            self.is_dirty = false;
            // A full disk must not stop the apps; `list` shows the error.
            if let Err(error) = state::save(&self.table, &self.home) {
                self.remark(format!("{error:#}"));
            }
        }
        self.clients.flush(&mut self.poller);
        self.keeper.watch(&self.poller)
    }

    fn remark(&mut self, remark: String) {
        if self.remarks.last() != Some(&remark) {
            self.remarks.push(remark);
            // Drops the oldest remark, so that a recurring error does not fill the memory.
            self.remarks.drain(..self.remarks.len().saturating_sub(MOST_REMARKS));
        }
    }

    /// Reads the keeper's reports, and notices its end.
    fn hear(&mut self) -> Result<()> {
        loop {
            self.keeper.channel.flush();
            match self.keeper.channel.receive::<Report>() {
                Ok(None) => return Ok(()),
                Ok(Some((report, descriptors))) => self.note(report, descriptors)?,
                Err(_) if self.is_over => return Ok(()),
                Err(_) => return self.lose_keeper(),
            }
        }
    }

    fn note(&mut self, report: Report, mut descriptors: Vec<OwnedFd>) -> Result<()> {
        if let Some(recovery) = &mut self.recovery {
            let Some((report, rest)) = recovery.take(report, descriptors) else { return Ok(()) };
            descriptors = rest;
            if matches!(report, Report::Told) {
                return self.recover();
            }
            return self.note_now(report, descriptors);
        }
        self.note_now(report, descriptors)
    }

    fn note_now(&mut self, report: Report, mut descriptors: Vec<OwnedFd>) -> Result<()> {
        match report {
            Report::Control => {
                let control = UnixListener::from(descriptors.pop().context("the control socket came without its descriptor")?);
                control.set_nonblocking(true)?;
                // Clients are not accepted before the keeper has reported everything.
                self.control = Some(control);
            }
            Report::Bound(address) => {
                self.listeners.extend(descriptors.pop().map(|listener| (address.clone(), listener)));
                self.bound(&address);
            }
            Report::CannotBind(address, why) => self.cannot_bind(&address, &why),
            Report::Spawned(job, process) => self.spawned(&job, process, descriptors)?,
            Report::CannotSpawn(key, why) => self.ended(key, why)?,
            Report::Ready(key) => self.feed(key, Event::Ready)?,
            Report::Status(key, says) => {
                if let Some(worker) = self.table.worker_mut(key) {
                    worker.says = Some(says);
                }
            }
            Report::Exited(key, how) => self.ended(key, how)?,
            Report::LogTrouble(path, Some(why)) => drop(self.log_troubles.insert(path, why)),
            Report::LogTrouble(path, None) => drop(self.log_troubles.remove(&path)),
            Report::Terminate => self.end_all(None)?,
            Report::Told => {}
        }
        Ok(())
    }

    fn spawned(&mut self, job: &Job, process: Identity, descriptors: Vec<OwnedFd>) -> Result<()> {
        let Some(worker) = self.table.worker_mut(job.key) else {
            // The worker is no longer wanted.
            return self.order(&Order::Signal(job.key, SIGKILL));
        };
        worker.descriptors = descriptors;
        self.feed(job.key, Event::Spawned(process))
    }

    /// Handles the end of a process, or a failed start.
    fn ended(&mut self, key: Key, how: String) -> Result<()> {
        self.order(&Order::Forget(key))?;
        let home = self.home.clone();
        let Some((app_number, number)) = self.table.position(key.instance) else { return Ok(()) };
        let app = &mut self.table.apps[app_number];
        let (options, log) = (&app.spec.options, app.spec.log(&home.logs(), app.instances[number].number, "error"));
        let (min_uptime, listen_timeout, most) = (options.min_uptime, options.listen_timeout, options.max_restarts);
        let signals_readiness = app.spec.is_cluster();
        let instance = &mut app.instances[number];
        let is_current = instance.worker.key == key;
        let before = instance.failures;
        let Some(worker) = instance.workers_mut().find(|worker| worker.key == key) else { return Ok(()) };
        worker.descriptors.clear();
        let was_asked = matches!(worker.state, State::Stopping { then: Then::Stop | Then::Restart, .. });
        let failures = if was_asked {
            before
        } else {
            failures(before, worker.online, if signals_readiness { min_uptime } else { Duration::ZERO })
        };
        let how = match (worker.state, worker.online, &worker.says) {
            (State::Stopping { then: Then::Fail, .. }, ..) => format!(
                "did not send READY=1 within {}; if the command cannot send it, start it without --listen",
                humantime::format_duration(listen_timeout)
            ),
            (_, None, Some(says)) => format!("{how}: {says}"),
            (_, None, None) => format!("{how}{}", last_line(&log, worker.begun)),
            _ => how,
        };
        instance.last_end = Some(how);
        let is_too_often = !was_asked && is_current && instance.exits_too_often(most);
        let failures = if is_too_often { failures.max(before + 1).max(2) } else { failures };
        if is_current {
            instance.failures = failures;
            instance.restarts += u32::from(!was_asked);
        }
        self.feed(key, Event::Ended { failures })
    }

    /// Moves a worker to its next state, and takes the resulting actions.
    fn feed(&mut self, key: Key, event: Event) -> Result<()> {
        let Some((app_number, number)) = self.table.position(key.instance) else { return Ok(()) };
        let app = &mut self.table.apps[app_number];
        let instance = &mut app.instances[number];
        let is_replacement = matches!(&instance.other, Some(Other::Replacement(worker)) if worker.key == key);
        let Some(worker) = instance.workers_mut().find(|worker| worker.key == key) else { return Ok(()) };
        let policy = Policy { options: &app.spec.options, is_replacement, signals_readiness: app.spec.is_cluster() };
        let Some((state, actions)) = worker.state.after(event, policy) else { return Ok(()) };
        worker.state = state;
        if matches!(state, State::Online { .. }) {
            worker.online = Some(Instant::now());
        }
        self.is_dirty = true;
        let mut key = key;
        for action in actions {
            match action {
                Action::Spawn => key = self.spawn(app_number, number, key)?,
                Action::Ask => self.order(&Order::Signal(key, SIGTERM))?,
                Action::Kill => self.order(&Order::Signal(key, SIGKILL))?,
                Action::GiveUp => self.give_up(key),
                Action::Timer(after) => {
                    if let Some(worker) = self.table.worker_mut(key) {
                        worker.due = after.map(|after| Instant::now() + after);
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes that a process has not ended although it was killed.
    fn give_up(&mut self, key: Key) {
        let Some((app_number, number)) = self.table.position(key.instance) else { return };
        let app = &mut self.table.apps[app_number];
        let instance = &mut app.instances[number];
        let how = "was killed and has not ended: it may be waiting for a device";
        instance.last_end = Some(how.into());
        let remark = format!("a process of {} ({}) {how}", app.spec.name, instance.id);
        self.remark(remark);
    }

    /// Orders the start of a process, under a new key.
    fn spawn(&mut self, app_number: usize, number: usize, key: Key) -> Result<Key> {
        let app = &mut self.table.apps[app_number];
        let instance = &mut app.instances[number];
        let next = instance.next_key();
        if let Some(worker) = instance.workers_mut().find(|worker| worker.key == key) {
            *worker = Worker { state: worker.state, ..Worker::new(next) };
        }
        let job = app.job(next, app.instances[number].number, &self.home);
        self.order(&Order::Spawn(job))?;
        Ok(next)
    }

    /// Handles all timers that have expired.
    fn times_over(&mut self) -> Result<()> {
        let now = Instant::now();
        let is_over = |worker: &&Worker| worker.due.is_some_and(|due| due <= now);
        let keys: Vec<Key> =
            self.table.all().flat_map(|(_, instance)| instance.workers()).filter(is_over).map(|worker| worker.key).collect();
        for key in keys {
            if let Some(worker) = self.table.worker_mut(key) {
                worker.due = None;
            }
            self.feed(key, Event::Due)?;
        }
        self.clients.end_hanging(&mut self.poller);
        self.reload_changed();
        if self.keeper.due.is_some_and(|due| due <= now) {
            self.start_keeper()?;
        }
        if self.bind_due.is_some_and(|due| due <= now) {
            self.bind_again()?;
        }
        if self.memory_due.is_some_and(|due| due <= now) {
            self.check_memory()?;
        }
        Ok(())
    }

    /// Replaces instances that use too much memory, as a reload does.
    fn check_memory(&mut self) -> Result<()> {
        let mut too_big = Vec::new();
        let mut is_bounded = false;
        for app in &mut self.table.apps {
            let Some(most) = app.spec.options.max_memory_restart else { continue };
            is_bounded = true;
            if self.tasks.iter().any(|task| task.apps.contains(&app.spec.name)) {
                continue;
            }
            for instance in app.instances.iter_mut().filter(|instance| instance.is_online() && !instance.worker.is_too_big) {
                let process = instance.worker.state.process();
                if process.and_then(|process| proc::memory(process.pid)).is_some_and(|memory| memory > most) {
                    instance.worker.is_too_big = true;
                    too_big.push((app.spec.name.clone(), instance.id));
                }
            }
        }
        self.memory_due = is_bounded.then(|| Instant::now() + MEMORY_CHECK);
        for (name, id) in too_big {
            let verb = Verb::Reload { left: [id].into(), now: None };
            self.tasks.push(Task { client: None, verb, apps: vec![name], ids: vec![id] });
        }
        Ok(())
    }
}

/// Returns the last line of a log as the end of a sentence, if the log has been written to since the given time.
fn last_line(path: &Path, since: SystemTime) -> String {
    let is_newer = fs::metadata(path).and_then(|metadata| metadata.modified()).is_ok_and(|written| written + TICK >= since);
    let text = if is_newer { tail(path, TAIL).unwrap_or_default() } else { Vec::new() };
    let text = String::from_utf8_lossy(&text);
    match text.trim_end().lines().last() {
        Some(line) if !line.is_empty() => format!("; last line of its stderr: {line}"),
        _ => String::new(),
    }
}
