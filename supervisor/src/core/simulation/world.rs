//! The simulated world: a keeper, processes and a disk.

use super::apps::{JOB, Program};
use super::keeper::Keeper;
use crate::channel::{Key, Order, Report};
use crate::control::{Answer, Request};
use crate::core::{Checks, Core, Found, Input, Now, Output, Saved, Version};
use crate::home::Home;
use crate::spec::Spec;
use fastrand::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Instant, SystemTime};

/// A process of the simulated system.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Process {
    /// It waits for its confirmation, and ends with the keeper that could give it.
    Launching,
    Running {
        is_ready: bool,
        /// It never gets ready.
        is_bad: bool,
    },
    /// It has asked for its listener.
    Asking,
    /// It was asked to end.
    Ending,
}

/// What has to become of an app.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expected {
    /// It stays in the list, in whatever state.
    Kept,
    /// It runs, or was given up.
    Running,
    Stopped,
    Anything,
}

pub struct World {
    pub rng: Rng,
    pub now: Now,
    pub core: Core,
    pub keeper: Keeper,
    /// The last keeper has died, and the next has not been started.
    is_keeper_gone: bool,
    pub orders: VecDeque<Order>,
    pub reports: VecDeque<Report>,
    /// What the daemon hears from itself: the results of what it did.
    pub results: VecDeque<Input>,
    /// Checks that have begun.
    pub checks: Vec<Checks>,
    /// The memory that each process uses, if it is not left to chance.
    pub memory: Option<u64>,
    /// No process uses too much memory or fails a check any more.
    pub is_calm: bool,
    pub processes: BTreeMap<i32, (Key, Process, Vec<String>)>,
    pub programs: BTreeMap<i32, Program>,
    pub next_pid: i32,
    disk: Vec<u8>,
    /// The saved apps.
    dump: Option<Vec<u8>>,
    pub specs: BTreeMap<String, Spec>,
    /// Those that reloads try out.
    pub next_specs: BTreeMap<String, Spec>,
    /// Clients that wait, each with the app that its command is about and with what is expected of that afterwards.
    pub waiting: BTreeMap<u64, (String, Expected)>,
    next_client: u64,
    /// Apps about which commands were answered, and nothing has been asked since.
    pub expected: BTreeMap<String, Expected>,
    /// New processes never get ready.
    pub is_bad_build: bool,
    /// How often something dies, from 0 to 4.
    pub turbulence: u32,
    pub is_over: bool,
    log: Vec<String>,
}

pub fn home() -> Home {
    Home::at("/home/test")
}

impl World {
    pub fn new(seed: u64) -> Self {
        let now = Now { instant: Instant::now(), wall: SystemTime::UNIX_EPOCH };
        let mut world = World {
            rng: Rng::with_seed(seed),
            now,
            core: Core::new(home(), Found::default(), now),
            keeper: Keeper::default(),
            is_keeper_gone: false,
            orders: VecDeque::new(),
            reports: VecDeque::from([Report::Control, Report::Told]),
            results: VecDeque::new(),
            checks: Vec::new(),
            memory: None,
            is_calm: false,
            processes: BTreeMap::new(),
            programs: BTreeMap::new(),
            next_pid: 100,
            disk: serde_json::to_vec(&Saved::default()).unwrap(),
            dump: None,
            specs: BTreeMap::new(),
            next_specs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_client: 0,
            expected: BTreeMap::new(),
            is_bad_build: false,
            turbulence: seed as u32 % 5,
            is_over: false,
            log: Vec::new(),
        };
        world.calm_down();
        world.is_calm = false;
        world.is_bad_build = seed.is_multiple_of(3);
        world
    }

    pub fn note(&mut self, text: String) {
        self.log.push(text);
    }

    /// Lets the daemon handle an input, save its table, and do what it wants done.
    pub fn handle(&mut self, input: Input) {
        let outputs = self.core.handle(input, self.now);
        self.check_canary();
        let is_end_of_turn = self.rng.bool();
        let saved = if is_end_of_turn { self.core.take_changes() } else { self.core.take_urgent_changes() };
        if let Some(saved) = saved {
            self.disk = serde_json::to_vec(&saved).unwrap();
        }
        for output in outputs {
            match output {
                // Without a keeper it is lost; the next one gets a handover.
                Output::Order(_) if self.is_keeper_gone => {}
                Output::Order(order) => self.orders.push_back(order),
                Output::Answer(client, answer) => self.answered(client, &answer),
                Output::Prepare(spec, version) => {
                    let name = spec.name.clone();
                    let specs = if version == Version::Current { &mut self.specs } else { &mut self.next_specs };
                    specs.insert(name.clone(), *spec);
                    self.results.push_back(Input::Prepared(name, Ok(())));
                }
                Output::Remove(name) => drop(self.specs.remove(&name)),
                Output::Commit(name) => {
                    let next = self.next_specs.remove(&name);
                    self.specs.extend(next.map(|next| (name, next)));
                }
                Output::Discard(name) => drop(self.next_specs.remove(&name)),
                Output::Quit => self.is_over = true,
                Output::Measure(processes) => self.measure(processes),
                Output::Check(checks) => self.checks.push(*checks),
                Output::Save(client, dump, _) => {
                    self.dump = Some(serde_json::to_vec(&dump).unwrap());
                    self.answered(client, &Answer::Done("saved".into()));
                }
                Output::Event(_) | Output::Follow(_) => {}
            }
        }
    }

    pub fn answered(&mut self, client: u64, answer: &Answer) {
        self.note(format!("client {client}: {answer:?}"));
        let asked = self.waiting.remove(&client);
        let (name, expected) = asked.unwrap_or_else(|| panic!("client {client} has two answers:\n{}", self.history()));
        if matches!(answer, Answer::Done(_)) && expected != Expected::Anything {
            self.expected.insert(name, expected);
        }
    }

    pub fn history(&self) -> String {
        self.log.join("\n")
    }

    pub fn request(&mut self, request: Request) {
        // Clients are accepted only then.
        if self.core.is_recovering() {
            return;
        }
        self.next_client += 1;
        let client = self.next_client;
        self.note(format!("client {client} sends {request:?}"));
        let (name, expected) = match &request {
            // It has ended by itself.
            Request::Start { spec, .. } if spec.name == JOB => (JOB.into(), Expected::Kept),
            Request::Resume(name) | Request::Restart(name, _) if name == JOB => (JOB.into(), Expected::Kept),
            Request::Start { spec, .. } => (spec.name.clone(), Expected::Running),
            Request::Stop(name) => (name.clone(), Expected::Stopped),
            Request::Resume(name) | Request::Restart(name, _) => (name.clone(), Expected::Running),
            Request::Reload(name, ..) | Request::Scale(name, _) => (name.clone(), Expected::Kept),
            Request::Change { spec } => (spec.name.clone(), Expected::Kept),
            Request::Delete(name) => (name.clone(), Expected::Anything),
            _ => (String::new(), Expected::Anything),
        };
        if matches!(request, Request::Kill) {
            self.expected.clear();
        }
        match self.expected.get_mut(&name) {
            Some(before) if expected != Expected::Anything => *before = Expected::Kept,
            _ => drop(self.expected.remove(&name)),
        }
        self.waiting.insert(client, (name, expected));
        self.handle(Input::Request(client, request));
    }

    /// Lets a client save the apps.
    pub fn save(&mut self) {
        if self.core.is_recovering() {
            return;
        }
        self.next_client += 1;
        self.note(format!("client {} saves the apps", self.next_client));
        self.waiting.insert(self.next_client, (String::new(), Expected::Anything));
        let before = self.dump.as_deref().map(|dump| serde_json::from_slice(dump).unwrap());
        self.handle(Input::Save(self.next_client, before));
    }

    /// Lets a client ask for the saved apps, if there are any.
    pub fn resurrect(&mut self) {
        let Some(dump) = self.dump.as_deref().filter(|_| !self.core.is_recovering()) else { return };
        let dump = serde_json::from_slice(dump).unwrap();
        self.next_client += 1;
        let (client, is_boot) = (self.next_client, self.rng.bool());
        self.note(format!("client {client} wants the saved apps back"));
        self.waiting.insert(client, (String::new(), Expected::Anything));
        self.handle(Input::Resurrect { client, dump, is_boot });
    }

    /// Restarts the system, which ends everything. Nothing starts by itself.
    pub fn restart_system(&mut self) {
        self.note("the system is restarted".into());
        self.processes.clear();
        self.kill_both();
        self.core = Core::new(home(), Found { is_same_boot: false, ..self.found() }, self.now);
        self.expected.values_mut().filter(|one| **one == Expected::Running).for_each(|one| *one = Expected::Kept);
    }

    pub fn daemon_hears(&mut self) -> bool {
        if let Some(result) = self.results.pop_front() {
            self.handle(result);
            return true;
        }
        let Some(report) = self.reports.pop_front() else { return false };
        self.note(format!("daemon: {report:?}"));
        self.handle(Input::Report(Box::new(report)));
        true
    }

    /// Lets a process take its next step, if one can.
    pub fn process_acts(&mut self) -> bool {
        // Without a keeper, nobody hears what a process asks for.
        let is_heard =
            |pid: &i32, key: &Key| !matches!(self.programs[pid], Program::Node(_)) || self.keeper.workers.contains_key(key);
        let can_act = |(pid, (key, process, _)): &(&i32, &(Key, Process, Vec<String>))| match process {
            Process::Running { is_ready, is_bad } => !is_ready && !is_bad && is_heard(pid, key),
            Process::Ending => true,
            Process::Launching | Process::Asking => false,
        };
        let pids: Vec<i32> = self.processes.iter().filter(can_act).map(|(pid, _)| *pid).collect();
        let Some(pid) = self.rng.choice(pids) else { return false };
        let (key, process, _) = self.processes.get_mut(&pid).unwrap();
        match (process, &self.programs[&pid]) {
            (process @ Process::Running { .. }, Program::Node(address)) => {
                *process = Process::Asking;
                let (key, address) = (*key, address.clone());
                self.ask(key, address);
            }
            (Process::Running { is_ready, .. }, Program::Server) => *is_ready = true,
            _ => drop(self.processes.remove(&pid)),
        }
        true
    }

    pub fn crash(&mut self) {
        let pids: Vec<i32> = self.processes.keys().copied().collect();
        if let Some(pid) = pids.get(self.rng.usize(..pids.len().max(1))) {
            self.note(format!("process {pid} dies"));
            self.processes.remove(pid);
        }
    }

    /// Lets a process that is ready give no sign of life for too long.
    pub fn stall(&mut self) {
        let ready = self.processes.values().filter(|(_, process, _)| matches!(process, Process::Running { is_ready: true, .. }));
        let keys: Vec<Key> = ready.map(|(key, ..)| *key).filter(|key| self.keeper.workers.contains_key(key)).collect();
        self.reports.extend(self.rng.choice(keys).map(|key| Report::Stalled(key, 500)));
    }

    pub fn found(&self) -> Found {
        let mut saved: Saved = serde_json::from_slice(&self.disk).unwrap();
        saved.retain_processes(|process| self.processes.contains_key(&process.pid));
        let specs = self.specs.iter().map(|(name, spec)| (name.clone(), Ok(spec.clone()))).collect();
        let undone = self.next_specs.keys().cloned().collect();
        Found { saved, specs, undone, is_known: true, is_same_boot: true, trouble: None }
    }

    /// Kills the daemon. The keeper still reads what was sent, and tells the next daemon everything.
    pub fn kill_daemon(&mut self) {
        if self.is_keeper_gone {
            return self.kill_both();
        }
        self.note("the daemon dies".into());
        // What did not fit into the channel dies with the daemon.
        let sent = self.rng.usize(..=self.orders.len());
        self.orders.truncate(sent);
        self.forget();
        while self.keeper_acts() {}
        self.reports.clear();
        let found = self.found();
        self.next_specs.clear();
        self.core = Core::new(home(), found, self.now);
        self.tell_everything();
    }

    /// Drops what dies with the daemon.
    fn forget(&mut self) {
        self.waiting.clear();
        self.results.clear();
        self.reports.clear();
        self.checks.clear();
    }

    /// Kills the keeper. The daemon still reads what was sent.
    pub fn kill_keeper(&mut self) {
        if self.is_keeper_gone {
            return;
        }
        self.note("the keeper dies".into());
        let sent = self.rng.usize(..=self.reports.len());
        self.reports.truncate(sent);
        self.processes.retain(|_, (_, process, _)| *process != Process::Launching);
        while self.daemon_hears() {}
        self.keeper = Keeper::default();
        self.is_keeper_gone = true;
        self.orders.clear();
        self.handle(Input::KeeperDied);
    }

    /// Starts the next keeper, which gets what the last one held.
    pub fn start_keeper(&mut self) -> bool {
        if !std::mem::take(&mut self.is_keeper_gone) {
            return false;
        }
        self.orders.extend(self.core.handover());
        true
    }

    /// Kills both. The next supervisor finds the disk and the processes.
    pub fn kill_both(&mut self) {
        self.note("both die".into());
        self.next_specs.clear();
        self.forget();
        self.orders.clear();
        self.processes.retain(|_, (_, process, _)| *process != Process::Launching);
        self.keeper = Keeper::default();
        self.is_keeper_gone = false;
        self.core = Core::new(home(), self.found(), self.now);
        self.reports.extend([Report::Control, Report::Told]);
    }

    /// Lets one thing after another happen that is about to; returns whether there was any.
    pub fn moves(&mut self) -> bool {
        let steps = [Self::daemon_hears, Self::start_keeper, Self::keeper_acts, Self::keeper_looks, Self::process_acts];
        steps
            .into_iter()
            .chain([Self::check_ends as fn(&mut Self) -> bool])
            .map(|step| step(self))
            .fold(false, |all, one| all | one)
    }

    /// Lets everything happen that is about to, and all timers expire, except those that expire for ever.
    pub fn calm_down(&mut self) {
        (self.is_bad_build, self.is_calm) = (false, true);
        for _ in 0..10_000 {
            if self.moves() {
                continue;
            }
            let Some(due) = self.due() else { return };
            self.now.instant = self.now.instant.max(due);
            self.handle(Input::Tick);
        }
        panic!("it does not come to rest:\n{}", self.history());
    }
}
