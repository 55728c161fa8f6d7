//! The simulated world: a keeper, processes and a disk.

use super::keeper::Keeper;
use crate::channel::{Key, Order, Report};
use crate::control::{Answer, Request};
use crate::core::table::{Instance, Other};
use crate::core::worker::State;
use crate::core::{Core, Found, Input, Now, Output, Saved, Version};
use crate::home::Home;
use crate::spec::{Options, Restart, Spec};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
    core: Core,
    pub keeper: Keeper,
    /// The last keeper has died, and the next has not been started.
    is_keeper_gone: bool,
    pub orders: VecDeque<Order>,
    pub reports: VecDeque<Report>,
    /// What the daemon hears from itself: the results of what it did.
    results: VecDeque<Input>,
    pub processes: BTreeMap<i32, (Key, Process, Vec<String>)>,
    pub next_pid: i32,
    disk: Vec<u8>,
    specs: BTreeMap<String, Spec>,
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

/// A job, whose processes end by themselves. All other apps are servers.
pub const JOB: &str = "job";

pub fn spec(name: &str) -> Spec {
    let restart = if name == JOB { Restart::Never } else { Restart::Always };
    let options = Options { restart, ..crate::spec::tests::options() };
    let listeners = address_of(name).into_iter().collect();
    Spec { name: name.into(), command: vec!["/bin/app".into()], directory: "/".into(), listeners, options, ..Spec::lost(name) }
}

/// The address of an app, if it has one.
fn address_of(name: &str) -> Option<String> {
    (name != JOB).then(|| format!("127.0.0.1:{}", name.as_bytes()[0]))
}

fn home() -> Home {
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
            processes: BTreeMap::new(),
            next_pid: 100,
            disk: serde_json::to_vec(&Saved::default()).unwrap(),
            specs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_client: 0,
            expected: BTreeMap::new(),
            is_bad_build: false,
            turbulence: seed as u32 % 5,
            is_over: false,
            log: Vec::new(),
        };
        world.calm_down();
        world.is_bad_build = seed.is_multiple_of(3);
        world
    }

    pub fn note(&mut self, text: String) {
        self.log.push(text);
    }

    /// Checks that nothing else is replaced while a canary is on trial.
    fn check_canary(&self) {
        for app in &self.core.table.apps {
            let is_new = |instance: &&Instance| {
                let other = instance.other.as_ref();
                other.is_some_and(|other| matches!(other, Other::Replacement(new) if !matches!(new.state, State::Stopping { .. })))
            };
            let trials = app.instances.iter().filter(|instance| instance.trial.is_some()).count();
            let new = app.instances.iter().filter(is_new).count();
            assert!(trials == 0 || new <= 1, "{new} are replaced beside a canary:\n{}", self.history());
        }
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
                    if version == Version::Current {
                        self.specs.insert(name.clone(), *spec);
                    }
                    self.results.push_back(Input::Prepared(name, Ok(())));
                }
                Output::Remove(name) => drop(self.specs.remove(&name)),
                Output::Quit => self.is_over = true,
                Output::Event(_)
                | Output::Commit(_)
                | Output::Discard(_)
                | Output::Follow(_)
                | Output::Measure(_)
                | Output::Check(_)
                | Output::Save(..) => {}
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
        let can_act = |process: &Process| match process {
            Process::Running { is_ready, is_bad } => !is_ready && !is_bad,
            Process::Ending => true,
            Process::Launching => false,
        };
        let pids: Vec<i32> = self.processes.iter().filter(|(_, (_, process, _))| can_act(process)).map(|(pid, _)| *pid).collect();
        let Some(pid) = self.rng.choice(pids) else { return false };
        let key = self.processes[&pid].0;
        let is_job = self.core.table.instance(key.instance).is_some_and(|(app, _)| app.spec.name == JOB);
        match &mut self.processes.get_mut(&pid).unwrap().1 {
            Process::Running { is_ready, .. } if !is_job => *is_ready = true,
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
        Found { saved, specs, is_known: true, is_same_boot: true, trouble: None }
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
        self.waiting.clear();
        self.results.clear();
        self.reports.clear();
        while self.keeper_acts() {}
        self.reports.clear();
        self.core = Core::new(home(), self.found(), self.now);
        self.tell_everything();
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
        self.waiting.clear();
        self.orders.clear();
        self.reports.clear();
        self.results.clear();
        self.processes.retain(|_, (_, process, _)| *process != Process::Launching);
        self.keeper = Keeper::default();
        self.is_keeper_gone = false;
        self.core = Core::new(home(), self.found(), self.now);
        self.reports.extend([Report::Control, Report::Told]);
    }

    /// Lets everything happen that is about to, and all timers expire.
    pub fn calm_down(&mut self) {
        self.is_bad_build = false;
        for _ in 0..10_000 {
            let is_moving = [Self::daemon_hears, Self::start_keeper, Self::keeper_acts, Self::keeper_looks, Self::process_acts]
                .map(|step| step(self))
                .contains(&true);
            if is_moving {
                continue;
            }
            let Some(due) = self.core.due() else { return };
            self.now.instant = self.now.instant.max(due);
            self.handle(Input::Tick);
        }
        panic!("it does not come to rest:\n{}", self.history());
    }

    pub fn check(&mut self) {
        let history = || self.history();
        assert!(self.waiting.is_empty(), "{:?} are not answered:\n{}", self.waiting, history());
        if self.is_over {
            assert!(self.processes.is_empty(), "{:?} outlive the supervisor:\n{}", self.processes, history());
            return;
        }
        assert!(!self.core.is_at_work(), "a command never ends:\n{}", history());
        let table = self.core.view();
        let listed: BTreeSet<i32> = table.instances.iter().filter_map(|one| one.pid).collect();
        let running: BTreeSet<i32> = self.processes.keys().copied().collect();
        assert_eq!(listed, running, "the list and the processes differ:\n{}", history());
        for one in &table.instances {
            match (one.status.as_str(), one.pid) {
                ("online", Some(pid)) => {
                    let Some(address) = address_of(&one.name) else { continue };
                    let is_ready = matches!(self.processes[&pid].1, Process::Running { is_ready: true, .. });
                    assert!(is_ready, "{} is called online and is {:?}:\n{}", one.id, self.processes[&pid], history());
                    assert!(self.keeper.listeners.contains(&address), "{} has no listener:\n{}", one.name, history());
                }
                ("stopped" | "errored", None) => {}
                (status, pid) => panic!("instance {} stays {status} with {pid:?}:\n{}", one.id, history()),
            }
        }
        let names: BTreeSet<&str> = table.instances.iter().map(|one| one.name.as_str()).collect();
        for (name, expected) in &self.expected {
            assert!(names.contains(name.as_str()), "{name} is lost:\n{}", history());
            let states: BTreeSet<&str> =
                table.instances.iter().filter(|one| one.name == *name).map(|one| one.status.as_str()).collect();
            match expected {
                Expected::Stopped => assert_eq!(states, BTreeSet::from(["stopped"]), "{name}:\n{}", history()),
                Expected::Running => assert!(!states.contains("stopped"), "{name} is stopped:\n{}", history()),
                Expected::Kept | Expected::Anything => {}
            }
        }
        for (_, instance) in self.core.table.all() {
            assert!(instance.other.is_none(), "{} still has a second process:\n{}", instance.id, history());
        }
        for address in &self.keeper.listeners {
            assert!(names.iter().any(|name| address_of(name).as_ref() == Some(address)), "{address} is bound for nobody:\n{}", history());
        }
    }
}
