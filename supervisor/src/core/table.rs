//! The table of apps, their instances, and the processes of each.

use super::Version;
use super::canary::{Record, Trial};
use super::worker::State;
use crate::channel::Key;
use crate::selector::Selector;
use crate::spec::Spec;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// The time in which exits are counted.
const MINUTE: Duration = Duration::from_secs(60);
/// Shortest and longest time between two replacements of an unfit process.
const REPLACEMENT_PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(900)];

/// All apps, in the order of their start.
#[derive(Default)]
pub struct Table {
    pub apps: Vec<App>,
    pub next_id: u32,
}

/// One command, run by any number of instances.
pub struct App {
    pub spec: Spec,
    /// The specification that a reload tries out. It becomes the current one if the reload succeeds.
    pub next: Option<Spec>,
    /// The reason that the specification is not known, if it is not: the app can then only be stopped and deleted.
    pub damage: Option<String>,
    /// Where it listens beside what its specification says: a Node program names an address only when it runs.
    pub asked: Vec<String>,
    /// When a process has last closed each of those.
    pub left: BTreeMap<String, Instant>,
    pub instances: Vec<Instance>,
    /// When its processes are checked next: whether those that start are ready, and whether the others work.
    pub checks: [Check; 2],
}

/// A check of an app's processes that is repeated.
#[derive(Debug, Clone, Copy, Default)]
pub struct Check {
    pub due: Option<Instant>,
    /// The number of its parts that have begun, and whose results have not come yet.
    pub begun: usize,
}

/// A slot of an app, which one process after the other fills.
pub struct Instance {
    pub id: u32,
    /// Its number within its app.
    pub number: u32,
    /// The generation of its most recently started process.
    pub generation: u32,
    pub created: SystemTime,
    pub restarts: u32,
    /// Number of early exits in a row.
    pub failures: u32,
    /// The unasked exits of the last minute.
    pub exits: VecDeque<Instant>,
    pub replacements: Replacements,
    /// The instance is removed once its processes have ended.
    pub is_leaving: bool,
    pub last_end: Option<String>,
    pub last_code: Option<i32>,
    /// Its process has ended by itself, and is not started again.
    pub is_finished: bool,
    /// It ran until the system was shut down, and has not been started since.
    pub is_ended_by_boot: bool,
    /// Only the specification of its app was left: nobody knows how many instances it had, or whether they ran, and nobody has said so since.
    pub is_rebuilt: bool,
    pub worker: Worker,
    /// During a reload: the next process, or the previous one.
    pub other: Option<Other>,
    /// The next process is tried out beside the present one.
    pub trial: Option<Trial>,
    /// The generation of a process that an earlier daemon was trying out.
    pub tried: Option<u32>,
}

/// Replacements of an instance's processes that were unfit.
#[derive(Default)]
pub struct Replacements {
    count: u32,
    /// Time of the last one, and the pause after it.
    last: Option<(Instant, Duration)>,
}

impl Replacements {
    /// Returns how many there were.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns the end of the pause after the last one.
    pub fn due(&self) -> Option<Instant> {
        self.last.map(|(last, pause)| last + pause)
    }

    /// Notes a replacement. The pause after it doubles, unless the last one was long ago.
    pub fn note(&mut self, now: Instant) {
        let [shortest, longest] = REPLACEMENT_PAUSE;
        let again = self.last.filter(|(last, pause)| now.duration_since(*last) < 4 * *pause);
        self.count += 1;
        self.last = Some((now, again.map_or(shortest, |(_, pause)| (2 * pause).min(longest))));
    }
}

/// A second process of an instance.
pub enum Other {
    /// It is starting, and will take over the instance.
    Replacement(Worker),
    /// It answers its remaining requests, and then ends.
    Retiring(Worker),
}

/// A process, or the slot for one that has not started.
pub struct Worker {
    pub key: Key,
    pub state: State,
    /// The specification that it runs with.
    pub version: Version,
    pub due: Option<Instant>,
    pub online: Option<Instant>,
    /// Addresses that it has asked for.
    pub asked: Vec<String>,
    /// When it has first closed one of them.
    pub left: Option<Instant>,
    /// It has asked for one while it started, whether or not it got it.
    pub has_asked: bool,
    /// Its logs, if an earlier daemon has started it: the specification may name others by now.
    pub logs: Option<[PathBuf; 2]>,
    /// The keeper has sent it the signal to end.
    pub is_told_to_end: bool,
    pub says: Option<String>,
    /// What it has reported so far.
    pub record: Record,
    /// It sends signs of life.
    pub sends_life: bool,
    /// Checks in a row that it has failed, and how the last one failed.
    pub failed_checks: u32,
    pub last_failure: Option<String>,
    /// Why it is to be replaced, if it is.
    pub unfit: Option<Unfit>,
}

/// Why a process is to be replaced, such as `used 310.0 MiB of at most 300.0`.
pub struct Unfit {
    pub kind: UnfitKind,
    pub why: String,
}

/// What has found a process unfit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnfitKind {
    Memory,
    Health,
    Stall,
}

impl Worker {
    /// Creates a worker without a process.
    pub fn new(key: Key, state: State, version: Version) -> Self {
        Worker {
            key,
            state,
            version,
            due: None,
            online: None,
            asked: Vec::new(),
            left: None,
            has_asked: false,
            logs: None,
            is_told_to_end: false,
            says: None,
            record: Record::default(),
            sends_life: false,
            failed_checks: 0,
            last_failure: None,
            unfit: None,
        }
    }

    /// Notes whether it is to be replaced, as one kind of observer sees it.
    pub fn judge(&mut self, kind: UnfitKind, why: Option<String>) {
        match why {
            Some(why) => self.unfit = Some(Unfit { kind, why }),
            None => drop(self.unfit.take_if(|unfit| unfit.kind == kind)),
        }
    }
}

impl Other {
    pub fn worker(&self) -> &Worker {
        match self {
            Other::Replacement(worker) | Other::Retiring(worker) => worker,
        }
    }

    pub fn worker_mut(&mut self) -> &mut Worker {
        match self {
            Other::Replacement(worker) | Other::Retiring(worker) => worker,
        }
    }
}

impl Instance {
    /// Creates an instance that has not started.
    pub fn new(id: u32, number: u32, created: SystemTime) -> Self {
        Instance {
            id,
            number,
            generation: 0,
            created,
            restarts: 0,
            failures: 0,
            exits: VecDeque::new(),
            replacements: Replacements::default(),
            is_leaving: false,
            last_end: None,
            last_code: None,
            is_finished: false,
            is_ended_by_boot: false,
            is_rebuilt: false,
            worker: Worker::new(Key { instance: id, generation: 0 }, State::Stopped, Version::Current),
            other: None,
            trial: None,
            tried: None,
        }
    }

    /// Returns the key of its next process.
    pub fn next_key(&mut self) -> Key {
        self.generation += 1;
        Key { instance: self.id, generation: self.generation }
    }

    /// Notes an exit that nobody asked for; returns whether there were more than `most` within a minute. Each of them may have been up for long
    /// enough, and still no process should be restarted many times a second for ever.
    pub fn exits_too_often(&mut self, most: u32, now: Instant) -> bool {
        self.exits.push_back(now);
        while self.exits.front().is_some_and(|exit| now - *exit > MINUTE) {
            self.exits.pop_front();
        }
        self.exits.len() > most as usize
    }

    /// Returns whether a key is that of the process that is to take over.
    pub fn is_replacement(&self, key: Key) -> bool {
        matches!(&self.other, Some(Other::Replacement(worker)) if worker.key == key)
    }

    /// Returns its processes, mutably.
    pub fn workers_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        std::iter::once(&mut self.worker).chain(self.other.as_mut().map(Other::worker_mut))
    }

    /// Returns its processes.
    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        std::iter::once(&self.worker).chain(self.other.as_ref().map(Other::worker))
    }

    /// Returns whether its only process is ready.
    pub fn is_online(&self) -> bool {
        self.other.is_none() && matches!(self.worker.state, State::Online { .. })
    }

    /// Returns whether a process of it is ready, whatever becomes of another one.
    pub fn serves(&self) -> bool {
        self.workers().any(|worker| matches!(worker.state, State::Online { .. }))
    }

    /// Returns whether none of its processes runs or is about to.
    pub fn is_over(&self) -> bool {
        self.other.is_none() && self.worker.state.is_over()
    }
}

impl Table {
    /// Returns all instances with their apps.
    pub fn all(&self) -> impl Iterator<Item = (&App, &Instance)> {
        self.apps.iter().flat_map(|app| app.instances.iter().map(move |instance| (app, instance)))
    }

    /// Returns all instances, mutably.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Instance> {
        self.apps.iter_mut().flat_map(|app| &mut app.instances)
    }

    /// Returns the app of a name.
    pub fn app(&self, name: &str) -> Option<&App> {
        self.apps.iter().find(|app| app.spec.name == name)
    }

    /// Returns the app of a name, mutably.
    pub fn app_mut(&mut self, name: &str) -> Option<&mut App> {
        self.apps.iter_mut().find(|app| app.spec.name == name)
    }

    /// Returns the positions of an id's app and instance.
    pub fn position(&self, id: u32) -> Option<(usize, usize)> {
        self.apps.iter().enumerate().find_map(|(app_number, app)| {
            app.instances.iter().position(|instance| instance.id == id).map(|number| (app_number, number))
        })
    }

    /// Returns the instance of an id, mutably.
    pub fn instance_mut(&mut self, id: u32) -> Option<&mut Instance> {
        self.all_mut().find(|instance| instance.id == id)
    }

    /// Returns the instance of an id, with its app.
    pub fn instance(&self, id: u32) -> Option<(&App, &Instance)> {
        self.all().find(|(_, instance)| instance.id == id)
    }

    /// Returns the ids that a user means by a name, a pattern such as `api-*`, a namespace, an id or `all`.
    ///
    /// # Errors
    /// Fails if there is no such app or id; the error suggests a similar name.
    pub fn select(&self, target: &str) -> Result<Vec<u32>> {
        let selector = Selector::new(target);
        let is_meant = |(app, instance): &(&App, &Instance)| {
            selector.means(&app.spec.name, app.spec.options.namespace.as_deref(), Some(instance.id))
        };
        let ids: Vec<u32> = self.all().filter(is_meant).map(|(_, instance)| instance.id).collect();
        if ids.is_empty() && target != "all" {
            bail!(selector.nothing(self.apps.iter().map(|app| app.spec.name.as_str())));
        }
        Ok(ids)
    }

    /// Returns the process of a key.
    pub fn worker_mut(&mut self, key: Key) -> Option<&mut Worker> {
        self.instance_mut(key.instance)?.workers_mut().find(|worker| worker.key == key)
    }

    /// Returns the earliest expiry of all timers.
    pub fn due(&self) -> Option<Instant> {
        let workers = self.all().flat_map(|(_, instance)| instance.workers()).filter_map(|worker| worker.due);
        workers.chain(self.all().filter_map(|(_, instance)| instance.trial.as_ref()?.until())).min()
    }

    /// Clears the timers that have expired, and returns their workers.
    pub fn expired(&mut self, now: Instant) -> Vec<Key> {
        let workers = self.all_mut().flat_map(Instance::workers_mut).filter(|worker| worker.due.is_some_and(|due| due <= now));
        workers.map(|worker| (worker.due.take(), worker.key).1).collect()
    }
}
