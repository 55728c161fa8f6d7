//! The table of apps, their instances, and the processes of each.

use super::worker::State;
use crate::channel::{Job, Key, LogPlan};
use crate::home::Home;
use crate::spec::Spec;
use anyhow::{Result, bail};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

/// The time in which exits are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// All apps, in the order of their start.
#[derive(Default)]
pub struct Table {
    pub apps: Vec<App>,
    pub next_id: u32,
}

/// One command, run by any number of instances.
pub struct App {
    pub spec: Spec,
    pub instances: Vec<Instance>,
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
    /// The instance is removed once its processes have ended.
    pub is_leaving: bool,
    pub last_end: Option<String>,
    pub worker: Worker,
    /// During a reload: the next process, or the previous one.
    pub other: Option<Other>,
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
    /// Time at which it was ordered.
    pub begun: SystemTime,
    pub due: Option<Instant>,
    pub online: Option<Instant>,
    /// Its replacement because of its memory is already ordered, so it is not ordered again.
    pub is_too_big: bool,
    pub says: Option<String>,
    /// Copies of its pipes and its notify socket, in case the keeper dies.
    pub descriptors: Vec<OwnedFd>,
}

impl Worker {
    /// Creates a worker without a process.
    pub fn new(key: Key) -> Self {
        Worker {
            key,
            state: State::Stopped,
            begun: SystemTime::now(),
            due: None,
            online: None,
            is_too_big: false,
            says: None,
            descriptors: Vec::new(),
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
    pub fn new(id: u32, number: u32) -> Self {
        Instance {
            id,
            number,
            generation: 0,
            created: SystemTime::now(),
            restarts: 0,
            failures: 0,
            exits: VecDeque::new(),
            is_leaving: false,
            last_end: None,
            worker: Worker::new(Key { instance: id, generation: 0 }),
            other: None,
        }
    }

    /// Returns the key of its next process.
    pub fn next_key(&mut self) -> Key {
        self.generation += 1;
        Key { instance: self.id, generation: self.generation }
    }

    /// Notes an exit that nobody asked for; returns whether there were more than `most` within a minute. Each of them may have been up for long
    /// enough, and still no process should be restarted many times a second for ever.
    pub fn exits_too_often(&mut self, most: u32) -> bool {
        let now = Instant::now();
        self.exits.push_back(now);
        while self.exits.front().is_some_and(|exit| now - *exit > MINUTE) {
            self.exits.pop_front();
        }
        self.exits.len() > most as usize
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

    /// Returns whether none of its processes runs or is about to.
    pub fn is_over(&self) -> bool {
        self.other.is_none() && self.worker.state.is_over()
    }
}

impl App {
    /// Returns the data that the keeper needs to start a process of an instance.
    pub fn job(&self, key: Key, number: u32, home: &Home) -> Job {
        let options = &self.spec.options;
        let logs = ["out", "error"].map(|stream| LogPlan {
            path: self.spec.log(&home.logs(), number, stream),
            max_size: options.log_max_size,
            keep: options.log_keep,
            date_format: options.log_date_format.clone(),
        });
        Job { key, spec: home.spec(&self.spec.name), number, listeners: self.spec.listeners.clone(), logs }
    }
}

impl Table {
    /// Returns all instances with their apps.
    pub fn all(&self) -> impl Iterator<Item = (&App, &Instance)> {
        self.apps.iter().flat_map(|app| app.instances.iter().map(move |instance| (app, instance)))
    }

    /// Returns the positions of an id's app and instance.
    pub fn position(&self, id: u32) -> Option<(usize, usize)> {
        self.apps.iter().enumerate().find_map(|(app_number, app)| {
            app.instances.iter().position(|instance| instance.id == id).map(|number| (app_number, number))
        })
    }

    /// Returns the instance of an id, mutably.
    pub fn instance_mut(&mut self, id: u32) -> Option<&mut Instance> {
        self.apps.iter_mut().flat_map(|app| &mut app.instances).find(|instance| instance.id == id)
    }

    /// Returns the instance of an id, with its app.
    pub fn instance(&self, id: u32) -> Option<(&App, &Instance)> {
        self.all().find(|(_, instance)| instance.id == id)
    }

    /// Returns the ids that a user means by a name, an id or `all`.
    ///
    /// # Errors
    /// Fails if there is no such app or id; the error suggests a similar name.
    pub fn select(&self, target: &str) -> Result<Vec<u32>> {
        let ids: Vec<u32> = match target.parse::<u32>() {
            _ if target == "all" => return Ok(self.all().map(|(_, instance)| instance.id).collect()),
            Ok(id) => self.instance(id).map(|(_, instance)| instance.id).into_iter().collect(),
            Err(_) => Vec::new(),
        };
        if !ids.is_empty() {
            return Ok(ids);
        }
        if let Some(app) = self.apps.iter().find(|app| app.spec.name == target) {
            return Ok(app.instances.iter().map(|instance| instance.id).collect());
        }
        let names: Vec<&str> = self.apps.iter().map(|app| app.spec.name.as_str()).collect();
        let near =
            names.iter().map(|name| (strsim::jaro_winkler(target, name), *name)).max_by(|one, two| one.0.total_cmp(&two.0));
        match near {
            Some((likeness, name)) if likeness > 0.6 => bail!("there is no app or id '{target}'; did you mean {name}?"),
            Some(_) => bail!("there is no app or id '{target}'; the apps are: {}", names.join(", ")),
            None => bail!("there is no app or id '{target}'; no apps yet: run `supervisor start`"),
        }
    }

    /// Returns the process of a key.
    pub fn worker_mut(&mut self, key: Key) -> Option<&mut Worker> {
        self.instance_mut(key.instance)?.workers_mut().find(|worker| worker.key == key)
    }

    /// Returns the earliest expiry of all timers.
    pub fn due(&self) -> Option<Instant> {
        self.all().flat_map(|(_, instance)| instance.workers()).filter_map(|worker| worker.due).min()
    }
}

/// Returns the number of early exits in a row after one more exit.
pub fn failures(before: u32, online: Option<Instant>, min_uptime: Duration) -> u32 {
    if online.is_some_and(|online| online.elapsed() >= min_uptime) { 0 } else { before + 1 }
}
