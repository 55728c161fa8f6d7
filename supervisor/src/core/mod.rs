//! The daemon's decisions, without side effects: what happens goes in, and what is to be done about it comes out.
//!
//! Nothing here reads a clock, a file or a socket. [The daemon](crate::daemon) passes on what it hears, and carries out the
//! answer. So every order of events can be tried in a test, with a death of the daemon or the keeper at each of them.

mod answers;
mod app;
mod canary;
mod change;
mod checks;
mod ends;
mod forsaken;
mod listeners;
mod memory;
mod readiness;
mod recover;
mod reload;
mod remarks;
mod request;
mod saved;
mod settle;
#[cfg(test)]
mod simulation;
mod table;
mod task;
mod unfit;
mod view;
mod worker;

pub use checks::{Checked, Checks, Purpose, Test};
pub use saved::{Dump, Found, Saved};

use crate::channel::{End, Job, Key, Order, Report, Standing};
use crate::control::{self, Answer, Request};
use crate::home::Home;
use crate::launch::CANNOT_RUN;
use crate::proc::Identity;
use crate::spec::Spec;
use signal_hook::consts::SIGKILL;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Instant, SystemTime};
use table::Table;
use task::Task;
use worker::{Event, State};

/// Identifies a client of the daemon.
pub type Client = u64;

/// The time at which something happens.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For durations.
    pub instant: Instant,
    /// For people.
    pub wall: SystemTime,
}

impl Now {
    /// Reads the clocks.
    pub fn read() -> Self {
        Now { instant: Instant::now(), wall: SystemTime::now() }
    }
}

/// Something that happens to the daemon.
#[derive(Debug)]
pub enum Input {
    /// The keeper reports something.
    Report(Box<Report>),
    /// The keeper has died; the next one gets what [`Core::handover`] returns.
    KeeperDied,
    /// A client sends a command.
    Request(Client, Request),
    /// A client wants the apps saved; with those that were saved before.
    Save(Client, Option<Dump>),
    /// A client wants the apps back that were saved.
    Resurrect { client: Client, dump: Dump, is_boot: bool },
    /// A client has gone, and does not wait for its answer any more.
    Gone(Client),
    /// What [`Output::Prepare`] asked for is done, or could not be.
    Prepared(String, Result<(), String>),
    /// An app is to be reloaded: its program, which is watched, has changed, or a time in its schedule has come.
    Reload(String),
    /// The memory that processes use, in bytes.
    Memory(Vec<(Key, u64)>),
    /// What [`Output::Check`] asked for is done.
    Checked(Checked),
    /// Something that the user should know.
    Remark(String),
    /// A timer may have expired.
    Tick,
}

/// Something that the daemon has to do.
#[derive(Debug)]
pub enum Output {
    /// Send an order to the keeper.
    Order(Order),
    /// Answer a client.
    Answer(Client, Answer),
    /// Write the specification of an app, follow it as for [`Output::Follow`] if it is the current one, and say [`Input::Prepared`].
    Prepare(Box<Spec>, Version),
    /// The next specification of an app becomes its current one.
    Commit(String),
    /// The next specification of an app is not wanted any more.
    Discard(String),
    /// An app is gone, and with it its specification.
    Remove(String),
    /// Watch the program of an app and follow its schedule, as far as its specification asks for that.
    Follow(Box<Spec>),
    /// Measure the memory of these processes, and say [`Input::Memory`].
    Measure(Vec<(Key, Identity)>),
    /// Check processes, and say [`Input::Checked`]; other things may happen meanwhile.
    Check(Box<Checks>),
    /// Add to the event log.
    Event(control::Event),
    /// Save the apps for `resurrect`, and answer the client, also with the names of those that cannot be saved.
    Save(Client, Dump, Vec<String>),
    /// Everything has ended.
    Quit,
}

/// Which of an app's specifications is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The one that its processes run with.
    Current,
    /// The one that a reload tries out.
    Next,
}

/// Everything that the daemon knows and decides.
pub struct Core {
    home: Home,
    now: Now,
    out: Vec<Output>,
    table: Table,
    tasks: Vec<Task>,
    waiting: BTreeMap<Client, answers::Waiting>,
    /// Connections of a command in the foreground: everything ends with it.
    foreground: Vec<Client>,
    /// Clients that want to know when an app is given up, or all have ended.
    awaiting: Vec<Client>,
    /// The addresses that the keeper listens on, each with the actual one: the system may have chosen the port.
    listeners: BTreeMap<String, String>,
    /// What processes want to listen on and did not get yet, or got and did not say so.
    wishes: Vec<listeners::Wish>,
    /// The namespaces of apps whose deletion is not noted yet.
    gone: BTreeMap<String, String>,
    log_troubles: BTreeMap<PathBuf, String>,
    remarks: Vec<String>,
    /// Set until the keeper has reported what it holds.
    recovery: Option<recover::Recovery>,
    /// When memory was last measured.
    measured: Option<Instant>,
    bind_due: Option<Instant>,
    /// Apps that are to be reloaded, since their program has changed or their time has come, once no command is in progress for them.
    to_reload: BTreeSet<String>,
    /// Instances that run with a specification that was dropped.
    to_go_back: BTreeMap<String, Vec<u32>>,
    /// The table is that of an earlier daemon of the same boot.
    is_continued: bool,
    /// The table differs from the saved one.
    is_dirty: bool,
    /// The same, and what comes out must not happen before it is saved.
    is_urgent: bool,
    /// Set once all apps are to stop; holds the client that asked for it, if one did.
    ending: Option<Option<Client>>,
}

impl Core {
    /// Begins with a saved table, and waits for the reports of the keeper.
    pub fn new(home: Home, found: Found, now: Now) -> Self {
        Core {
            home,
            now,
            out: Vec::new(),
            table: Table::default(),
            tasks: Vec::new(),
            waiting: BTreeMap::new(),
            foreground: Vec::new(),
            awaiting: Vec::new(),
            listeners: BTreeMap::new(),
            wishes: Vec::new(),
            gone: BTreeMap::new(),
            log_troubles: BTreeMap::new(),
            remarks: Vec::new(),
            recovery: Some(recover::Recovery::new(found)),
            measured: None,
            bind_due: None,
            to_reload: BTreeSet::new(),
            to_go_back: BTreeMap::new(),
            is_continued: false,
            is_dirty: false,
            is_urgent: false,
            ending: None,
        }
    }

    /// Decides what to do about something that has happened.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Output> {
        self.now = now;
        match input {
            Input::Report(report) => self.hear(*report),
            Input::KeeperDied => {
                // The dead keeper will not report the rest. The next one opens the logs anew.
                self.recover();
                self.log_troubles.clear();
                self.remark("the keeper died and was replaced".into());
            }
            Input::Request(client, request) => self.begin(client, request),
            Input::Save(client, before) => self.save(client, before),
            Input::Resurrect { client, dump, is_boot } => self.resurrect(client, dump, is_boot),
            Input::Gone(client) => self.gone(client),
            Input::Prepared(name, result) => self.prepared(&name, result),
            Input::Reload(name) => drop(self.to_reload.insert(name)),
            Input::Memory(measured) => self.check_memory(&measured),
            Input::Checked(checked) => self.checked(checked),
            Input::Remark(remark) => self.remark(remark),
            Input::Tick => {}
        }
        self.times_over();
        self.settle();
        std::mem::take(&mut self.out)
    }

    /// Returns the earliest expiry of all timers.
    pub fn due(&self) -> Option<Instant> {
        let own = [self.table.due(), self.memory_due(), self.bind_due, self.forsaken_due()];
        own.into_iter().chain([self.check_due(), self.replacement_due()]).flatten().min()
    }

    /// Returns whether a command is in progress.
    pub fn is_at_work(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Returns whether the keeper is still to report what it holds.
    pub fn is_recovering(&self) -> bool {
        self.recovery.is_some()
    }

    /// Notes that the table that was last taken could not be saved.
    pub fn note_unsaved(&mut self) {
        self.is_dirty = true;
    }

    /// Returns the table in its saved form if it has changed since it was last taken.
    pub fn take_changes(&mut self) -> Option<Saved> {
        let is_urgent = std::mem::take(&mut self.is_urgent);
        (std::mem::take(&mut self.is_dirty) || is_urgent).then(|| Saved::of(&self.table))
    }

    /// Returns the table in its saved form if it has changed so that what comes out must not happen before it is saved: a command is not forgotten
    /// after it has begun.
    pub fn take_urgent_changes(&mut self) -> Option<Saved> {
        if self.is_urgent { self.take_changes() } else { None }
    }

    /// Returns the specification that a process is started with.
    pub fn spec_of(&self, job: &Job) -> Option<&Spec> {
        let (app, _) = self.table.instance(job.key.instance)?;
        Some(app.next.as_ref().filter(|_| job.spec == self.home.next_spec(&app.spec.name)).unwrap_or(&app.spec))
    }

    /// Returns the orders that tell a new keeper what the old one held.
    pub fn handover(&self) -> Vec<Order> {
        let mut orders = vec![Order::AdoptControl];
        orders.extend(self.listeners.keys().cloned().map(Order::AdoptListener));
        // Orders that the old keeper did not answer.
        orders.extend(self.tasks.iter().flat_map(|task| task.missing.iter().cloned().map(Order::Bind)));
        let mut again = Vec::new();
        for (app, instance) in self.table.all() {
            for worker in instance.workers() {
                let job = || app.job(worker, instance.number, &self.home);
                match (worker.state, worker.state.process()) {
                    (State::Starting { .. } | State::Stopping { .. }, None) => again.push(Order::Spawn(job())),
                    (_, None) => {}
                    (state, Some(process)) => {
                        let is_told_to_end = matches!(state, State::Stopping { .. }) && worker.is_told_to_end;
                        let (is_ready, sends_life) = (worker.online.is_some(), worker.sends_life);
                        let standing = Standing { is_ready, is_told_to_end, sends_life };
                        orders.push(Order::AdoptWorker(job(), process, standing));
                        if let State::Stopping { is_killed, .. } = state
                            && !is_told_to_end
                        {
                            let stop = app.spec.options.stop_signal.number();
                            again.push(Order::Signal(worker.key, if is_killed { SIGKILL } else { stop }));
                        }
                    }
                }
            }
        }
        orders.extend(again);
        // Those whose address is not bound yet get it with that.
        orders.extend(self.wishes.iter().filter(|wish| self.listeners.contains_key(&wish.address)).map(listeners::Wish::given));
        let unbound = self.wishes.iter().filter(|wish| !self.listeners.contains_key(&wish.address));
        orders.extend(unbound.map(|wish| Order::Bind(wish.address.clone())));
        orders.push(Order::Sweep(Vec::new()));
        orders
    }

    fn order(&mut self, order: Order) {
        self.out.push(Output::Order(order));
    }

    fn hear(&mut self, report: Report) {
        let report = match &mut self.recovery {
            Some(recovery) => recovery.take(report),
            None => Some(report),
        };
        let Some(report) = report else { return };
        match report {
            Report::Control => {}
            Report::Bound(address, actual) => self.bound(address, actual),
            Report::CannotBind(address, number, why) => self.cannot_bind(&address, number, &why),
            Report::Spawned(job, process) => self.spawned(&job, process),
            Report::CannotSpawn(key, why) => self.ended(key, &End { code: Some(CANNOT_RUN.into()), ..End::plain(why) }),
            Report::Ready(key) => {
                // It may have asked for more than it has got so far.
                self.wishes.retain(|wish| wish.key != key || !self.listeners.contains_key(&wish.address));
                self.feed(key, Event::Ready);
            }
            Report::Wants(key, number, address) => self.wish(listeners::Wish { key, number, address }),
            Report::Leaves(key, address) => self.leave(key, &address),
            Report::Lives(key) => self.lives(key),
            Report::Stalled(key, silence_ms) => self.stalled(key, silence_ms),
            Report::Status(key, says) => {
                if let Some(worker) = self.table.worker_mut(key) {
                    worker.record.add(&says);
                    worker.says = Some(says);
                }
            }
            Report::Signalled(key) => {
                if let Some(worker) = self.table.worker_mut(key) {
                    worker.is_told_to_end = true;
                }
            }
            Report::Exited(key, end) => self.ended(key, &end),
            Report::Vanished(key) => self.vanished(key),
            Report::LogTrouble(path, Some(why)) => drop(self.log_troubles.insert(path, why)),
            Report::LogTrouble(path, None) => drop(self.log_troubles.remove(&path)),
            Report::Remark(remark) => self.remark(remark),
            Report::Terminate => self.end_all(None),
            Report::Told => self.recover(),
        }
    }

    /// Handles all timers that have expired.
    fn times_over(&mut self) {
        if self.is_recovering() {
            return;
        }
        let now = self.now.instant;
        for key in self.table.expired(now) {
            self.feed(key, Event::Due);
        }
        self.begin_reloads();
        if self.ending.is_none() {
            self.replace_unfit();
        }
        self.begin_checks();
        if self.bind_due.is_some_and(|due| due <= now) {
            self.bind_again();
        }
        if self.forsaken_due().is_some_and(|due| due <= now) {
            self.close_forsaken();
        }
        if self.memory_due().is_some_and(|due| due <= now) {
            self.measure_memory();
        }
    }

    fn is_busy(&self, name: &str) -> bool {
        self.tasks.iter().any(|task| task.apps.iter().any(|app| app == name))
    }

    fn new_id(&mut self) -> u32 {
        self.table.next_id += 1;
        self.table.next_id - 1
    }
}
