//! Checks of processes from outside: whether those that start are ready, and whether the others work.

use super::table::{App, Check, Instance, UnfitKind, Worker};
use super::worker::{Event, State};
use super::{Core, Output, Version};
use crate::channel::{Key, Order};
use crate::proc::Identity;
use crate::spec::{ReadyWhen, Spec, Target};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Pause between two looks at whether a process is ready.
const AGAIN: Duration = Duration::from_millis(100);

/// A check of some processes of an app, which takes time.
#[derive(Debug)]
pub struct Checks {
    /// The app, with the command and the environment that a check may need.
    pub spec: Box<Spec>,
    /// What is to be found out.
    pub purpose: Purpose,
    /// How.
    pub test: Test,
    /// Time limit of each.
    pub timeout: Duration,
    /// The addresses of the listeners that they share.
    pub listeners: Vec<String>,
    /// Other processes may answer in their place, so it is looked up who has.
    pub is_shared: bool,
    /// The processes.
    pub processes: Vec<(Key, Identity)>,
}

/// What a check is to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Whether processes that start are ready.
    Readiness,
    /// Whether processes that are ready work.
    Health,
}

/// How a process is checked.
#[derive(Debug)]
pub enum Test {
    /// It listens by itself; or it waits for connections on a listener of its app, if that has any.
    Listens,
    /// It answers a request to this address.
    Answers(String, Target),
    /// A command finds nothing wrong.
    Passes(String),
}

/// What a check has found.
#[derive(Debug)]
pub struct Checked {
    /// Name of the app.
    pub app: String,
    pub purpose: Purpose,
    /// Each process, with the reason if it has failed.
    pub processes: Vec<(Key, Option<String>)>,
}

impl Purpose {
    const ALL: [Purpose; 2] = [Purpose::Readiness, Purpose::Health];
}

impl Core {
    /// Begins the checks that are due.
    pub(super) fn begin_checks(&mut self) {
        let now = self.now.instant;
        for number in 0..self.table.apps.len() {
            for purpose in Purpose::ALL {
                let app = &self.table.apps[number];
                let check = app.checks[purpose as usize];
                let workers = to_check(app, purpose);
                if check.begun > 0 || workers.is_empty() {
                    continue;
                }
                let interval = interval(app, purpose);
                // A process that is just ready works; one that has just started may be ready at once.
                let due = check.due.unwrap_or(if purpose == Purpose::Health { now + interval } else { now });
                let versions = if due <= now { &[Version::Current, Version::Next][..] } else { &[] };
                let checks: Vec<Checks> = versions.iter().flat_map(|one| self.checks(app, purpose, *one, &workers)).collect();
                let check = &mut self.table.apps[number].checks[purpose as usize];
                check.due = Some(if due <= now { now + interval } else { due });
                check.begun = checks.len();
                self.out.extend(checks.into_iter().map(|checks| Output::Check(Box::new(checks))));
            }
        }
    }

    /// Returns the parts of a check, of the processes that are checked as a version of the specification says: those that listen elsewhere are asked
    /// elsewhere.
    fn checks(&self, app: &App, purpose: Purpose, version: Version, workers: &[&Worker]) -> Vec<Checks> {
        let workers: Vec<&Worker> = workers.iter().copied().filter(|worker| version_of(worker, purpose) == version).collect();
        if workers.is_empty() {
            return Vec::new();
        }
        let spec = app.spec_of(version);
        let options = &spec.options;
        let process = |worker: &Worker| Some((worker.key, worker.state.process()?));
        let all = || workers.iter().copied().filter_map(process).collect();
        let by_address = |target: &Target| {
            let mut parts: BTreeMap<String, Vec<(Key, Identity)>> = BTreeMap::new();
            for worker in &workers {
                // A Node program that starts has no listener yet as long as it has not asked for one; one that is ready should listen where the others did.
                let usual = app.asked.iter().filter(|_| purpose == Purpose::Health);
                let own = spec.listeners.iter().chain(&worker.asked).chain(usual).next();
                let own = own.map(|address| self.listeners.get(address).unwrap_or(address));
                if let Some(address) = target.address.as_ref().or(own) {
                    parts.entry(address.clone()).or_default().extend(process(worker));
                }
            }
            parts.into_iter().map(|(address, processes)| (Test::Answers(address, target.clone()), processes)).collect()
        };
        let parts: Vec<(Test, Vec<(Key, Identity)>)> = match (purpose, &options.ready_when, &options.health) {
            (Purpose::Readiness, Some(ReadyWhen::Listening), _) => vec![(Test::Listens, all())],
            (Purpose::Readiness, Some(ReadyWhen::Http(target)), _) => by_address(target),
            (Purpose::Readiness, _, _) => Vec::new(),
            (Purpose::Health, _, health) => match (&health.http, &health.exec) {
                (Some(target), _) => by_address(target),
                (None, Some(command)) => vec![(Test::Passes(command.clone()), all())],
                (None, None) => Vec::new(),
            },
        };
        let timeout = match purpose {
            Purpose::Readiness => options.listen_timeout,
            Purpose::Health => options.health.timeout,
        };
        let listeners: Vec<String> = app.listeners(version).cloned().collect();
        let is_shared = !listeners.is_empty() || app.instances.len() > 1;
        let checks = |(test, processes)| {
            let (spec, listeners) = (Box::new(spec.clone()), listeners.clone());
            Checks { spec, purpose, test, timeout, listeners, is_shared, processes }
        };
        parts.into_iter().map(checks).collect()
    }

    /// Returns when the next check is due.
    pub(super) fn check_due(&self) -> Option<Instant> {
        let apps = self.table.apps.iter();
        let checks = apps.flat_map(|app| Purpose::ALL.map(|purpose| (app, purpose)));
        let waiting =
            checks.filter(|(app, purpose)| app.checks[*purpose as usize].begun == 0 && !to_check(app, *purpose).is_empty());
        waiting.filter_map(|(app, purpose)| app.checks[purpose as usize].due).min()
    }

    /// Takes what a check has found.
    pub(super) fn checked(&mut self, checked: Checked) {
        let now = self.now.instant;
        let Some(app) = self.table.app_mut(&checked.app) else { return };
        let pause = interval(app, checked.purpose);
        let check = &mut app.checks[checked.purpose as usize];
        *check = Check { due: Some(now + pause), begun: check.begun.saturating_sub(1) };
        let retries = app.spec.options.health.retries;
        for (key, failure) in checked.processes {
            let Some(worker) = self.table.worker_mut(key) else { continue };
            worker.last_failure.clone_from(&failure);
            match (checked.purpose, failure) {
                (Purpose::Readiness, None) => {
                    self.feed(key, Event::Ready);
                    self.order(Order::Ready(key));
                }
                (Purpose::Readiness, Some(_)) => {}
                (Purpose::Health, None) => {
                    worker.failed_checks = 0;
                    worker.judge(UnfitKind::Health, None);
                }
                (Purpose::Health, Some(why)) => {
                    worker.failed_checks += 1;
                    let count = worker.failed_checks;
                    let why = (count >= retries).then(|| format!("failed {count} checks in a row ({why})"));
                    worker.judge(UnfitKind::Health, why);
                }
            }
        }
    }
}

/// Returns the processes that a check is about.
fn to_check(app: &App, purpose: Purpose) -> Vec<&Worker> {
    let is_wanted = |worker: &Worker| {
        let options = &app.spec_of(version_of(worker, purpose)).options;
        match purpose {
            Purpose::Readiness => matches!(options.ready_when, Some(ReadyWhen::Listening | ReadyWhen::Http(_))),
            Purpose::Health => options.health.is_checked(),
        }
    };
    let is_meant = |worker: &&Worker| match (purpose, worker.state) {
        (Purpose::Readiness, State::Starting { process: Some(_) }) | (Purpose::Health, State::Online { .. }) => is_wanted(worker),
        _ => false,
    };
    app.instances.iter().flat_map(Instance::workers).filter(is_meant).collect()
}

/// Returns the version of the specification that says how a process is checked: it starts with its own, which a reload may be trying out.
fn version_of(worker: &Worker, purpose: Purpose) -> Version {
    match purpose {
        Purpose::Readiness => worker.version,
        Purpose::Health => Version::Current,
    }
}

fn interval(app: &App, purpose: Purpose) -> Duration {
    match purpose {
        Purpose::Readiness => AGAIN,
        Purpose::Health => app.spec.options.health.interval,
    }
}
