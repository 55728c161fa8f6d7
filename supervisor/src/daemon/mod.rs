//! The daemon: one loop that receives events, lets [the core](crate::core) decide about them, and carries out its decisions.
//!
//! It sleeps until an event occurs: a command, a report of the keeper, or the expiry of a timer.
//!
//! If the daemon dies, the keeper starts another. The new daemon reads the table from disk, and the keeper reports the running
//! workers to it. If the keeper dies, the daemon starts another and hands it copies of every descriptor that the old one held.

mod checks;
mod clients;
mod cron;
mod folder;
mod keeper;
mod leaving;
mod store;
mod watch;

pub use store::rest;

use crate::channel::{Key, Order, Report};
use crate::control::{Answer, Own, Request};
use crate::core::{Core, Input, Now, Output, Version};
use crate::home::Home;
use crate::poll::{Poller, Token};
use crate::proc::Groups;
use crate::spec::Spec;
use anyhow::{Context, Result};
use clients::{Clients, Word};
use keeper::Keeper;
use leaving::Leaving;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXCPU, SIGXFSZ};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause before clients are accepted again, after there was no descriptor left for one.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// Most reports of the keeper that are handled before clients get their turn.
const MOST_REPORTS: usize = 1024;

/// The purpose of a watched descriptor.
#[derive(Debug, Clone, Copy)]
enum Source {
    Keeper,
    Control,
    Client(u64),
    /// The folders of watched programs, and the supervisor's own.
    Programs,
    /// A check of processes has a result.
    Checks,
}

/// The daemon.
struct Daemon {
    home: Home,
    core: Core,
    poller: Poller<Source>,
    keeper: Keeper,
    control: Option<UnixListener>,
    /// Held as long as a supervisor runs.
    lock: Option<OwnedFd>,
    /// `None` while clients are not accepted.
    control_token: Option<Token>,
    /// Time at which they are accepted again.
    accept_due: Option<Instant>,
    /// Time at which the state is saved again that could not be.
    save_due: Option<Instant>,
    /// Why it could not be, which is no longer said once it could.
    save_trouble: Option<String>,
    clients: Clients,
    /// Copies of what the keeper holds, in case it dies: listeners, and the pipes and the notify socket of each worker.
    listeners: BTreeMap<String, OwnedFd>,
    workers: BTreeMap<Key, Vec<OwnedFd>>,
    watch: watch::Watch,
    schedule: cron::Schedule,
    checking: checks::Checking,
    /// Another version of this program is taking over.
    leaving: Option<Leaving>,
    is_over: bool,
}

/// Runs the daemon; the keeper is at the other end of standard input.
///
/// # Errors
/// Fails on an error from which the daemon cannot recover; the keeper then starts another.
pub fn run() -> Result<ExitCode> {
    // A signal to the process group reaches the keeper too, which tells the daemon to end everything in order.
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGXFSZ, SIGXCPU] {
        signal_hook::flag::register(signal, Arc::default()).context("cannot ignore a signal")?;
    }
    let mut poller = Poller::new()?;
    let keeper = Keeper::parent(&mut poller)?;
    let home = Home::open()?;
    let found = store::load(&home);
    let checking = checks::Checking::new(&mut poller)?;
    let schedule = cron::Schedule::resume(&home);
    let mut daemon = Daemon {
        core: Core::new(home.clone(), found, Now::read()),
        home,
        poller,
        keeper,
        control: None,
        lock: None,
        control_token: None,
        accept_due: None,
        save_due: None,
        save_trouble: None,
        clients: Clients::default(),
        listeners: BTreeMap::new(),
        workers: BTreeMap::new(),
        watch: watch::Watch::default(),
        schedule,
        checking,
        leaving: None,
        is_over: false,
    };
    // The last orders are of use only if the keeper gets them.
    while !daemon.is_over || daemon.keeper.channel.has_unsent() {
        daemon.turn()?;
    }
    daemon.checking.commands.end_all();
    Ok(ExitCode::SUCCESS)
}

impl Daemon {
    /// Waits for events, and handles them.
    fn turn(&mut self) -> Result<()> {
        let own = [self.core.due(), self.keeper.due(), self.clients.due(), self.watch.due(), self.schedule.due()];
        let due = own.into_iter().chain([self.accept_due, self.save_due]).flatten().min();
        for source in self.poller.wait(due.map(|due| due.saturating_duration_since(Instant::now())))? {
            match source {
                Source::Keeper => self.hear()?,
                Source::Control => self.accept()?,
                Source::Client(id) => self.serve(id)?,
                Source::Programs => self.watch.note_changes(),
                Source::Checks => self.checking.take().into_iter().try_for_each(|input| self.handle(input))?,
            }
        }
        self.check_keeper()?;
        if self.watch.is_home_lost() && !self.is_over {
            self.restore_home()?;
        }
        self.find_programs();
        self.clients.end_hanging(&mut self.poller);
        // What is due while another version takes over, it finds due as well, or a moment later.
        if self.leaving.is_none() {
            for name in self.watch.take_changed().into_iter().chain(self.schedule.take_due(&self.home)) {
                self.handle(Input::Reload(name))?;
            }
        }
        self.handle(Input::Tick)?;
        if self.save_due.is_some_and(|due| due <= Instant::now()) {
            self.core.note_unsaved();
        }
        if let Some(saved) = self.core.take_changes() {
            self.save(saved)?;
        }
        self.watch_control()?;
        self.clients.flush(&mut self.poller);
        self.leave()?;
        self.keeper.watch(&self.poller)
    }

    /// Lets the core decide about an input, and carries out its decisions. What is to outlive this process is written before anything is done about it.
    fn handle(&mut self, input: Input) -> Result<()> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let outputs = self.core.handle(input, Now::read());
            // A list that names an app without its specification would be damaged.
            let is_first = |output: &Output| matches!(output, Output::Prepare(_, Version::Current));
            let (first, rest): (Vec<_>, Vec<_>) = outputs.into_iter().partition(is_first);
            for output in first {
                inputs.extend(self.carry_out(output)?);
            }
            if let Some(saved) = self.core.take_urgent_changes() {
                self.save(saved)?;
            }
            for output in rest {
                inputs.extend(self.carry_out(output)?);
            }
        }
        Ok(())
    }

    /// Does what the core wants done; returns what is to be told to it about that.
    fn carry_out(&mut self, output: Output) -> Result<Option<Input>> {
        let remark = |result: Result<()>| result.err().map(|error| Input::Remark(format!("{error:#}")));
        match output {
            Output::Order(order) => return self.order(&order),
            Output::Answer(client, mut answer) => {
                if let Answer::Table(table) = &mut answer {
                    table.supervisor = Some(Own { keeper: self.keeper.pid, daemon: std::process::id() as i32 });
                }
                self.clients.answer(client, &answer);
            }
            // Another supervisor's specifications stay as they are.
            Output::Prepare(spec, _) if !self.owns_home() => return Ok(Some(Input::Prepared(spec.name, Err(self.lost())))),
            Output::Commit(_) | Output::Discard(_) | Output::Event(_) if !self.owns_home() => {}
            Output::Save(client, ..) if !self.owns_home() => self.clients.answer(client, &Answer::Error(self.lost())),
            Output::Prepare(spec, version) => {
                let result = store::write(&spec, version, &self.home);
                // A slow disk is no hang.
                self.keeper.channel.live()?;
                self.schedule.begin();
                let result = result.and_then(|()| if version == Version::Current { self.follow(&spec) } else { Ok(()) });
                return Ok(Some(Input::Prepared(spec.name.clone(), result.map_err(|error| format!("{error:#}")))));
            }
            Output::Commit(name) => return Ok(remark(store::commit(&name, &self.home))),
            Output::Discard(name) => store::remove(&name, Version::Next, &self.home),
            Output::Remove(name) => {
                self.watch.forget(&name);
                self.schedule.forget(&name);
                if self.owns_home() {
                    store::remove(&name, Version::Current, &self.home);
                }
            }
            Output::Follow(spec) => return Ok(remark(self.follow(&spec))),
            Output::Measure(processes) => {
                let groups = Groups::read();
                let memory = processes.into_iter().filter_map(|(key, process)| Some((key, groups.memory(process.pid)?)));
                return Ok(Some(Input::Memory(memory.collect())));
            }
            Output::Check(checks) => return Ok(self.check(*checks)),
            // A full disk must not stop the apps, and is told elsewhere.
            Output::Event(event) => drop(store::note(&event, &self.home)),
            Output::Save(client, dump, unknown) => {
                let answer = store::dump(&dump, &unknown, &self.home);
                let answer = answer.map_or_else(|error| Answer::Error(format!("{error:#}")), Answer::Done);
                self.clients.answer(client, &answer);
            }
            Output::Quit => {
                self.clients.flush(&mut self.poller);
                self.is_over = true;
                if self.owns_home() {
                    store::forget(&self.home);
                }
            }
        }
        Ok(None)
    }

    /// Watches the program of an app and follows its schedule, as far as it asks for that.
    fn follow(&mut self, spec: &Spec) -> Result<()> {
        self.schedule(spec);
        self.watch_program(spec)
    }

    /// Sends an order to the keeper. One that is not running gets it when it takes over.
    fn order(&mut self, order: &Order) -> Result<Option<Input>> {
        let mut remark = None;
        match order {
            Order::Unbind(address) => drop(self.listeners.remove(address)),
            Order::Forget(key) => {
                self.workers.remove(key);
                self.checking.commands.end(*key);
            }
            Order::Spawn(job) => {
                if !self.owns_home() {
                    return Ok(Some(Input::Report(Box::new(Report::CannotSpawn(job.key, self.lost())))));
                }
                if let Some(spec) = self.core.spec_of(job) {
                    remark = match store::repair(spec, &job.spec) {
                        Ok(false) => None,
                        Ok(true) => Some(format!("{} was damaged, and has been written anew", job.spec.display())),
                        Err(error) => Some(format!("{error:#}")),
                    };
                }
            }
            _ => {}
        }
        let is_sent = self.keeper.channel.order(order)?;
        Ok(if is_sent { remark.map(Input::Remark) } else { Some(keeper::too_long(order)) })
    }

    /// Reads the keeper's reports, and notices its end.
    fn hear(&mut self) -> Result<()> {
        for _ in 0..MOST_REPORTS {
            self.keeper.channel.flush();
            match self.keeper.channel.receive::<Report>() {
                Ok(None) => return Ok(()),
                Ok(Some((report, descriptors))) => {
                    self.keep(&report, descriptors)?;
                    self.handle(Input::Report(Box::new(report)))?;
                }
                Err(_) if self.is_over => return Ok(()),
                Err(_) => return self.lose_keeper(),
            }
        }
        Ok(())
    }

    /// Keeps the descriptors of a report.
    fn keep(&mut self, report: &Report, mut descriptors: Vec<OwnedFd>) -> Result<()> {
        match report {
            Report::Control => {
                self.lock = descriptors.pop();
                let control = UnixListener::from(descriptors.pop().context("the control socket came without its descriptor")?);
                control.set_nonblocking(true)?;
                // The last one was removed, and this one takes its place.
                if let (Some(before), Some(token)) = (&self.control, self.control_token.take()) {
                    self.poller.remove(token, before);
                }
                let is_anew = self.control.replace(control).is_some();
                if is_anew {
                    self.watch.home_due = Some(Instant::now());
                } else {
                    self.watch_home()?;
                }
            }
            Report::Bound(address, _) => {
                self.listeners.extend(descriptors.pop().map(|listener| (address.clone(), listener)));
            }
            Report::Spawned(job, _) => drop(self.workers.insert(job.key, descriptors)),
            _ => {}
        }
        Ok(())
    }

    /// Watches for clients as soon as the keeper has reported everything, and again when there is room for them.
    fn watch_control(&mut self) -> Result<()> {
        if self.accept_due.is_some_and(|due| due <= Instant::now()) {
            self.accept_due = None;
        }
        if let Some(control) = &self.control
            && self.control_token.is_none()
            && self.accept_due.is_none()
            && self.leaving.is_none()
            && !self.core.is_recovering()
        {
            self.control_token = Some(self.poller.add(control, Source::Control)?);
        }
        Ok(())
    }

    /// Accepts new clients.
    fn accept(&mut self) -> Result<()> {
        let Some(control) = self.control.as_ref().filter(|_| self.leaving.is_none()) else { return Ok(()) };
        loop {
            let accepted = control.accept().and_then(|(stream, _)| self.clients.accept(stream, &mut self.poller));
            match accepted {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                // The clients wait in the socket's queue meanwhile.
                Err(_) => {
                    if let Some(token) = self.control_token.take() {
                        self.poller.remove(token, control);
                    }
                    self.accept_due = Some(Instant::now() + ACCEPT_AGAIN);
                    return Ok(());
                }
            }
        }
    }

    /// Reads a client's request, and begins to handle it.
    fn serve(&mut self, id: u64) -> Result<()> {
        match self.clients.read(id, &self.poller) {
            Word::None => Ok(()),
            Word::Gone => {
                self.clients.drop(id, &mut self.poller);
                self.handle(Input::Gone(id))
            }
            Word::Wrong(why) => {
                self.clients.answer(id, &Answer::Error(why));
                Ok(())
            }
            // It would begin what another daemon has to end.
            Word::Request(request) if self.leaving.is_some() && !matches!(request, Request::List) => {
                self.clients.answer(id, &Answer::Error("the supervisor is just being replaced: retry".into()));
                Ok(())
            }
            Word::Request(request) if request.needs_room() && self.refuse_without_room(id) => Ok(()),
            Word::Request(Request::Save) => self.handle(Input::Save(id, store::dumped(&self.home).ok())),
            Word::Request(Request::Update(program)) => self.update(id, program),
            Word::Request(Request::Resurrect { is_boot }) => match store::dumped(&self.home) {
                Ok(dump) => self.handle(Input::Resurrect { client: id, dump, is_boot }),
                // Nothing has to be saved for a supervisor to be started.
                Err(_) if is_boot && !self.home.dump().exists() => {
                    self.clients.answer(id, &Answer::Done("there are no saved apps".into()));
                    Ok(())
                }
                Err(error) => {
                    self.clients.answer(id, &Answer::Error(format!("{error:#}")));
                    Ok(())
                }
            },
            Word::Request(request) => self.handle(Input::Request(id, request)),
        }
    }
}
