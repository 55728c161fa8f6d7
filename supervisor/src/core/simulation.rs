//! Tests of the decisions in a simulated world: a keeper, processes and a disk, where anything may happen in any order and where the daemon, the keeper
//! or both may die at any time.
//!
//! Whatever happened, once things calm down the list must be true: what it calls online runs and is ready, nothing else runs, no address is bound that
//! nobody uses, no app is lost, and every command has its answer.

use super::{Core, Found, Input, Now, Output, Saved, Version};
use crate::channel::{End, Job, Key, Order, Report};
use crate::control::{Answer, Request, Size};
use crate::environment::Environment;
use crate::home::Home;
use crate::proc::Identity;
use crate::spec::Spec;
use fastrand::Rng;
use signal_hook::consts::SIGKILL;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

/// A process of the simulated system.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Process {
    /// It waits for its confirmation, and ends with the keeper that could give it.
    Launching,
    Running { is_ready: bool },
    /// It was asked to end.
    Ending,
}

/// What the keeper holds.
#[derive(Default)]
struct Keeper {
    listeners: BTreeSet<String>,
    workers: BTreeMap<Key, (Job, Identity, Said)>,
}

/// What the keeper has reported of a worker.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    ready: bool,
    signalled: bool,
    ended: bool,
}

struct World {
    rng: Rng,
    now: Now,
    core: Core,
    keeper: Keeper,
    orders: VecDeque<Order>,
    reports: VecDeque<Report>,
    /// What the daemon hears from itself: the results of what it did.
    results: VecDeque<Input>,
    processes: BTreeMap<i32, (Key, Process, Vec<String>)>,
    next_pid: i32,
    disk: Vec<u8>,
    specs: BTreeMap<String, Spec>,
    /// Clients that wait, with the app that theirs would start.
    waiting: BTreeMap<u64, Option<String>>,
    next_client: u64,
    /// Apps that were started, and that nobody wanted to delete since.
    kept: BTreeSet<String>,
    /// New processes never get ready.
    is_bad_build: bool,
    is_over: bool,
    log: Vec<String>,
}

fn spec(name: &str) -> Spec {
    let options = crate::spec::tests::options();
    let listeners = vec![format!("{name}:1")];
    Spec { name: name.into(), command: vec!["/bin/app".into()], directory: "/".into(), listeners, options, ..Spec::lost(name) }
}

fn home() -> Home {
    Home::at("/home/test")
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Now { instant: Instant::now(), wall: SystemTime::UNIX_EPOCH };
        let mut world = World {
            rng: Rng::with_seed(seed),
            now,
            core: Core::new(home(), Found::default(), now),
            keeper: Keeper::default(),
            orders: VecDeque::new(),
            reports: VecDeque::from([Report::Control, Report::Told]),
            results: VecDeque::new(),
            processes: BTreeMap::new(),
            next_pid: 100,
            disk: serde_json::to_vec(&Saved::default()).unwrap(),
            specs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_client: 0,
            kept: BTreeSet::new(),
            is_bad_build: false,
            is_over: false,
            log: Vec::new(),
        };
        world.calm_down();
        world
    }

    fn note(&mut self, text: String) {
        self.log.push(text);
    }

    /// Lets the daemon handle an input, save its table, and do what it wants done.
    fn handle(&mut self, input: Input) {
        let outputs = self.core.handle(input, self.now);
        let is_end_of_turn = self.rng.bool();
        let saved = if is_end_of_turn { self.core.take_changes() } else { self.core.take_urgent_changes() };
        if let Some(saved) = saved {
            self.disk = serde_json::to_vec(&saved).unwrap();
        }
        for output in outputs {
            match output {
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
                Output::Commit(_) | Output::Discard(_) | Output::Watch(..) | Output::Measure(_) | Output::Save(..) => {}
            }
        }
    }

    fn answered(&mut self, client: u64, answer: &Answer) {
        self.note(format!("client {client}: {answer:?}"));
        let started = self.waiting.remove(&client).unwrap_or_else(|| panic!("client {client} has two answers:\n{}", self.history()));
        if let (Some(name), Answer::Done(_)) = (started, answer) {
            self.kept.insert(name);
        }
    }

    fn history(&self) -> String {
        self.log.join("\n")
    }

    fn request(&mut self, request: Request) {
        self.next_client += 1;
        let client = self.next_client;
        self.note(format!("client {client} sends {request:?}"));
        let starts = match &request {
            Request::Start { spec, .. } => Some(spec.name.clone()),
            _ => None,
        };
        match &request {
            Request::Delete(name) => drop(self.kept.remove(name)),
            Request::Kill => self.kept.clear(),
            _ => {}
        }
        self.waiting.insert(client, starts);
        self.handle(Input::Request(client, request));
    }

    /// Lets the keeper execute one order.
    fn keeper_acts(&mut self) -> bool {
        let Some(order) = self.orders.pop_front() else { return false };
        self.note(format!("keeper: {order:?}"));
        match order {
            Order::Bind(address) => {
                let is_held = self.processes.values().any(|(_, _, held)| held.contains(&address));
                if self.keeper.listeners.contains(&address) || !is_held {
                    self.keeper.listeners.insert(address.clone());
                    self.reports.push_back(Report::Bound(address.clone(), address));
                } else {
                    self.reports.push_back(Report::CannotBind(address, "in use".into()));
                }
            }
            Order::Unbind(address) => drop(self.keeper.listeners.remove(&address)),
            Order::Spawn(job) => {
                self.next_pid += 1;
                let identity = Identity { pid: self.next_pid, started: 1 };
                self.processes.insert(self.next_pid, (job.key, Process::Launching, job.listeners.clone()));
                self.reports.push_back(Report::Spawned(job.clone(), identity));
                self.keeper.workers.insert(job.key, (job, identity, Said::default()));
            }
            Order::Confirm(key) => {
                if let Some(process) = self.process_of(key)
                    && *process == Process::Launching
                {
                    *process = Process::Running { is_ready: false };
                }
            }
            Order::Signal(key, signal) => {
                let Some((_, identity, said)) = self.keeper.workers.get_mut(&key) else { return true };
                said.signalled = true;
                let pid = identity.pid;
                self.reports.push_back(Report::Signalled(key));
                let is_dead = signal == SIGKILL || self.process_of(key).is_some_and(|process| *process == Process::Launching);
                if is_dead {
                    self.processes.remove(&pid);
                } else if let Some(process) = self.process_of(key) {
                    *process = Process::Ending;
                }
            }
            Order::Forget(key) => drop(self.keeper.workers.remove(&key)),
            Order::AdoptListener(address) => drop(self.keeper.listeners.insert(address)),
            Order::AdoptWorker(job, identity, standing) => {
                if self.processes.contains_key(&identity.pid) {
                    let said = Said { ready: standing.is_ready, signalled: standing.is_told_to_end, ended: false };
                    self.reports.push_back(Report::Spawned(job.clone(), identity));
                    self.keeper.workers.insert(job.key, (job, identity, said));
                } else {
                    self.reports.push_back(Report::Vanished(job.key));
                }
            }
            Order::Sweep(_) => {
                let known: Vec<Key> = self.keeper.workers.keys().copied().collect();
                self.processes.retain(|_, (key, ..)| known.contains(key));
            }
            Order::AdoptControl | Order::Flush(_) => {}
            Order::Quit => self.is_over = true,
        }
        true
    }

    fn process_of(&mut self, key: Key) -> Option<&mut Process> {
        self.processes.values_mut().find(|(own, ..)| *own == key).map(|(_, process, _)| process)
    }

    /// Lets the keeper see what its processes did.
    fn keeper_looks(&mut self) -> bool {
        let mut has_seen = false;
        for (key, (_, identity, said)) in &mut self.keeper.workers {
            let process = self.processes.get(&identity.pid).map(|(_, process, _)| *process);
            if process == Some(Process::Running { is_ready: true }) && !said.ready {
                said.ready = true;
                self.reports.push_back(Report::Ready(*key));
                has_seen = true;
            }
            if process.is_none() && !said.ended {
                said.ended = true;
                self.reports.push_back(Report::Exited(*key, End::plain("ended".into())));
                has_seen = true;
            }
        }
        has_seen
    }

    fn daemon_hears(&mut self) -> bool {
        if let Some(result) = self.results.pop_front() {
            self.handle(result);
            return true;
        }
        let Some(report) = self.reports.pop_front() else { return false };
        self.note(format!("daemon: {report:?}"));
        self.handle(Input::Report(report));
        true
    }

    /// Lets a process take its next step, if one can.
    fn process_acts(&mut self) -> bool {
        let is_bad = self.is_bad_build;
        let can_act = |process: &Process| match process {
            Process::Running { is_ready } => !is_ready && !is_bad,
            Process::Ending => true,
            Process::Launching => false,
        };
        let pids: Vec<i32> = self.processes.iter().filter(|(_, (_, process, _))| can_act(process)).map(|(pid, _)| *pid).collect();
        let Some(pid) = self.rng.choice(pids) else { return false };
        match &mut self.processes.get_mut(&pid).unwrap().1 {
            Process::Running { is_ready } => *is_ready = true,
            _ => drop(self.processes.remove(&pid)),
        }
        true
    }

    fn crash(&mut self) {
        let pids: Vec<i32> = self.processes.keys().copied().collect();
        if let Some(pid) = pids.get(self.rng.usize(..pids.len().max(1))) {
            self.note(format!("process {pid} dies"));
            self.processes.remove(pid);
        }
    }

    fn found(&self) -> Found {
        let specs = self.specs.iter().map(|(name, spec)| (name.clone(), Ok(spec.clone()))).collect();
        Found { saved: serde_json::from_slice(&self.disk).unwrap(), specs, is_same_boot: true, trouble: None }
    }

    /// Kills the daemon. The keeper still reads what was sent, and tells the next daemon everything.
    fn kill_daemon(&mut self) {
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

    fn tell_everything(&mut self) {
        self.reports.push_back(Report::Control);
        self.reports.extend(self.keeper.listeners.iter().map(|address| Report::Bound(address.clone(), address.clone())));
        for (key, (job, identity, said)) in &self.keeper.workers {
            self.reports.push_back(Report::Spawned(job.clone(), *identity));
            self.reports.extend(said.ready.then_some(Report::Ready(*key)));
            self.reports.extend(said.signalled.then_some(Report::Signalled(*key)));
            self.reports.extend(said.ended.then(|| Report::Exited(*key, End::plain("ended".into()))));
        }
        self.reports.push_back(Report::Told);
    }

    /// Kills the keeper. The daemon still reads what was sent, and hands over to the next keeper.
    fn kill_keeper(&mut self) {
        self.note("the keeper dies".into());
        let sent = self.rng.usize(..=self.reports.len());
        self.reports.truncate(sent);
        self.orders.clear();
        self.processes.retain(|_, (_, process, _)| *process != Process::Launching);
        while self.daemon_hears() {}
        self.orders.clear();
        self.keeper = Keeper::default();
        let outputs = self.core.handover();
        self.orders.extend(outputs);
        self.handle(Input::KeeperDied);
    }

    /// Kills both. The next supervisor finds the disk and the processes.
    fn kill_both(&mut self) {
        self.note("both die".into());
        self.waiting.clear();
        self.orders.clear();
        self.reports.clear();
        self.results.clear();
        self.processes.retain(|_, (_, process, _)| *process != Process::Launching);
        self.keeper = Keeper::default();
        self.core = Core::new(home(), self.found(), self.now);
        self.reports.extend([Report::Control, Report::Told]);
    }

    /// Lets everything happen that is about to, and all timers expire.
    fn calm_down(&mut self) {
        self.is_bad_build = false;
        for _ in 0..10_000 {
            let is_moving =
                [Self::daemon_hears, Self::keeper_acts, Self::keeper_looks, Self::process_acts].map(|step| step(self)).contains(&true);
            if is_moving {
                continue;
            }
            let Some(due) = self.core.due() else { return };
            self.now.instant = self.now.instant.max(due);
            self.handle(Input::Tick);
        }
        panic!("it does not come to rest:\n{}", self.history());
    }

    fn check(&mut self) {
        let history = || self.history();
        assert!(self.waiting.is_empty(), "{:?} are not answered:\n{}", self.waiting, history());
        if self.is_over {
            assert!(self.processes.is_empty(), "{:?} outlive the supervisor:\n{}", self.processes, history());
            return;
        }
        let table = self.core.view();
        let listed: BTreeSet<i32> = table.instances.iter().filter_map(|one| one.pid).collect();
        let running: BTreeSet<i32> = self.processes.keys().copied().collect();
        assert_eq!(listed, running, "the list and the processes differ:\n{}", history());
        for one in &table.instances {
            match (one.status.as_str(), one.pid) {
                ("online", Some(pid)) => {
                    let is_ready = self.processes[&pid].1 == Process::Running { is_ready: true };
                    assert!(is_ready, "{} is called online and is {:?}:\n{}", one.id, self.processes[&pid], history());
                    assert!(self.keeper.listeners.contains(&format!("{}:1", one.name)), "{} has no listener:\n{}", one.name, history());
                }
                ("stopped" | "errored", None) => {}
                (status, pid) => panic!("instance {} stays {status} with {pid:?}:\n{}", one.id, history()),
            }
        }
        let names: BTreeSet<&str> = table.instances.iter().map(|one| one.name.as_str()).collect();
        for name in &self.kept {
            assert!(names.contains(name.as_str()), "{name} is lost:\n{}", history());
        }
        for address in &self.keeper.listeners {
            let name = address.trim_end_matches(":1");
            assert!(names.contains(name), "{address} is bound for nobody:\n{}", history());
        }
    }

    /// Lets one thing happen, whichever.
    fn step(&mut self) {
        let name = ["a", "b"][self.rng.usize(..2)].to_owned();
        match self.rng.u32(..100) {
            0..6 => {
                let instances = self.rng.u32(1..4);
                self.request(Request::Start { spec: Box::new(spec(&name)), instances });
            }
            6..10 => self.request(Request::Stop(name)),
            10..14 => self.request(Request::Restart(name, None)),
            14..19 => self.request(Request::Reload(name, None)),
            19..21 => self.request(Request::Reload(name, Some(Environment(vec![("X".into(), "2".into())])))),
            21..23 => self.request(Request::Delete(name)),
            23..27 => {
                let to = self.rng.u32(1..5);
                self.request(Request::Scale(name, Size::To(to)));
            }
            27..29 => self.request(Request::Resume(name)),
            29..31 => {
                let gone = self.waiting.keys().next().copied();
                if let Some(client) = gone {
                    self.note(format!("client {client} goes"));
                    self.waiting.remove(&client);
                    self.handle(Input::Gone(client));
                }
            }
            31..34 => self.crash(),
            34..36 => self.is_bad_build ^= true,
            36..39 => self.kill_daemon(),
            39..42 => self.kill_keeper(),
            42..43 => self.kill_both(),
            43..47 => {
                self.now.instant += Duration::from_millis(self.rng.u64(..4000));
                self.handle(Input::Tick);
            }
            47..65 => drop(self.keeper_acts()),
            65..75 => drop(self.keeper_looks()),
            75..88 => drop(self.daemon_hears()),
            _ => drop(self.process_acts()),
        }
    }
}

#[test]
fn whatever_happens_in_whatever_order_the_list_is_true_in_the_end() {
    for seed in 0..1500 {
        let mut world = World::new(seed);
        for _ in 0..120 {
            world.step();
        }
        world.calm_down();
        world.note(format!("seed {seed}"));
        world.check();
    }
}

/// Runs a command to its end, except that something dies after so many steps; returns whether that was before the end.
fn with_a_death(request: &Request, kill: fn(&mut World), after: usize) -> bool {
    let mut world = World::new(after as u64);
    world.request(Request::Start { spec: Box::new(spec("a")), instances: 2 });
    world.calm_down();
    world.request(request.clone());
    let mut steps = 0;
    let mut has_died = false;
    loop {
        let is_moving = world.daemon_hears() || world.keeper_acts() || world.keeper_looks() || world.process_acts();
        steps += 1;
        if steps == after {
            kill(&mut world);
            has_died = true;
        }
        if !is_moving {
            break;
        }
    }
    world.note(format!("{request:?}, with a death after {after} steps"));
    world.calm_down();
    world.check();
    has_died
}

#[test]
fn a_death_at_any_moment_of_any_command_leaves_a_true_list() {
    let name = || "a".to_owned();
    let next = Some(Environment(vec![("X".into(), "2".into())]));
    for request in [
        Request::Reload(name(), None),
        Request::Reload(name(), next),
        Request::Restart(name(), None),
        Request::Stop(name()),
        Request::Delete(name()),
        Request::Scale(name(), Size::To(4)),
        Request::Scale(name(), Size::To(1)),
        Request::Start { spec: Box::new(spec("b")), instances: 2 },
        Request::Kill,
    ] {
        for kill in [World::kill_daemon, World::kill_keeper, World::kill_both] {
            let tried = (1..).take_while(|after| with_a_death(&request, kill, *after)).count();
            assert!(tried > 3, "{request:?} took {tried} steps");
        }
    }
}
