//! The forms in which the table is saved: for the next daemon, and for `resurrect`.

use super::request::MOST_INSTANCES;
use super::table::{App, Instance, Table};
use super::worker::{State, Then};
use crate::proc::Identity;
use crate::spec::Spec;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The table, for the next daemon. What it does not know takes its default, so that a file of another version can be read.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Saved {
    #[serde(default)]
    next_id: u32,
    #[serde(default)]
    pub(super) apps: Vec<SavedApp>,
}

/// What the daemon finds when it starts.
#[derive(Debug, Default)]
pub struct Found {
    /// Apps of which a reload was not done: some of their instances may run with what it tried out.
    pub undone: BTreeSet<String>,
    /// The saved table.
    pub saved: Saved,
    /// There was a saved table, and it could be read.
    pub is_known: bool,
    /// The specifications by name, or the reason that one cannot be read.
    pub specs: BTreeMap<String, Result<Spec, String>>,
    /// The table was saved since the system was started.
    pub is_same_boot: bool,
    /// The table could not be read, and why.
    pub trouble: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedApp {
    pub name: String,
    #[serde(default)]
    pub asked: Vec<String>,
    pub instances: Vec<SavedInstance>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SavedInstance {
    pub id: u32,
    pub number: u32,
    pub generation: u32,
    pub created_s: u64,
    pub restarts: u32,
    pub failures: u32,
    pub is_leaving: bool,
    pub last_end: Option<String>,
    pub last_code: Option<i32>,
    pub is_ended_by_boot: bool,
    pub is_rebuilt: bool,
    pub is_stopped: bool,
    pub is_errored: bool,
    pub is_finished: bool,
    /// The generation of a process that is only tried out.
    pub tried: Option<u32>,
    pub processes: Vec<Identity>,
}

impl Default for SavedInstance {
    fn default() -> Self {
        SavedInstance::of(&Instance::new(0, 0, UNIX_EPOCH))
    }
}

impl Saved {
    /// Returns the saved form of a table.
    pub(super) fn of(table: &Table) -> Self {
        let app = |app: &App| SavedApp {
            name: app.spec.name.clone(),
            asked: app.asked.clone(),
            instances: app.instances.iter().map(SavedInstance::of).collect(),
        };
        Saved { next_id: table.next_id, apps: table.apps.iter().map(app).collect() }
    }

    /// Drops the processes that have ended meanwhile.
    pub fn retain_processes(&mut self, is_alive: impl Fn(&Identity) -> bool) {
        self.apps.iter_mut().flat_map(|app| &mut app.instances).for_each(|instance| instance.processes.retain(&is_alive));
    }

    /// Lets nothing run any more.
    pub fn rest(&mut self) {
        self.apps.iter_mut().flat_map(|app| &mut app.instances).for_each(|instance| instance.is_stopped = true);
    }

    /// Returns an id that no instance has.
    pub(super) fn next_id(&self) -> u32 {
        let ids = self.apps.iter().flat_map(|app| &app.instances).map(|instance| instance.id.saturating_add(1));
        ids.chain([self.next_id]).max().unwrap_or(0)
    }
}

impl SavedInstance {
    fn of(instance: &Instance) -> Self {
        let state = instance.worker.state;
        SavedInstance {
            id: instance.id,
            number: instance.number,
            generation: instance.generation,
            created_s: instance.created.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            restarts: instance.restarts,
            failures: instance.failures,
            is_leaving: instance.is_leaving,
            last_end: instance.last_end.clone(),
            last_code: instance.last_code,
            is_ended_by_boot: instance.is_ended_by_boot,
            is_rebuilt: instance.is_rebuilt,
            is_stopped: matches!(state, State::Stopped | State::Stopping { then: Then::Stop, .. }),
            is_errored: state == State::Errored,
            is_finished: instance.is_finished,
            tried: instance.trial.is_some().then_some(instance.generation),
            processes: instance.workers().filter_map(|worker| worker.state.process()).collect(),
        }
    }

    /// Returns whether it is to run.
    pub(super) fn is_wanted(&self) -> bool {
        !self.is_stopped && !self.is_errored && !self.is_leaving
    }

    /// Returns the instance, without its processes.
    pub(super) fn restored(&self, is_same_boot: bool) -> Instance {
        let created = SystemTime::UNIX_EPOCH + Duration::from_secs(self.created_s.min(u64::from(u32::MAX)));
        let mut instance = Instance::new(self.id, self.number, created);
        instance.generation = self.generation;
        instance.restarts = self.restarts;
        instance.failures = self.failures;
        (instance.is_leaving, instance.is_finished) = (self.is_leaving, self.is_finished);
        instance.last_end.clone_from(&self.last_end);
        instance.last_code = self.last_code;
        instance.is_ended_by_boot = self.is_ended_by_boot || !is_same_boot && self.is_wanted();
        (instance.is_rebuilt, instance.tried) = (self.is_rebuilt, self.tried);
        instance.worker.key.generation = self.generation;
        instance.worker.state = if self.is_errored { State::Errored } else { State::Stopped };
        instance
    }
}

/// The apps that `save` keeps for `resurrect`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Dump {
    /// All apps, in the order of their start.
    pub apps: Vec<Dumped>,
}

/// An app in a [`Dump`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(from = "AnyDumped")]
pub struct Dumped {
    pub spec: Spec,
    pub instances: u32,
    /// The instances that are not started again.
    #[serde(flatten)]
    pub at_rest: AtRest,
    /// None of them is: for versions that know nothing else.
    pub is_stopped: bool,
}

/// The instances of an app that did not run when it was saved, and are not to be started again: their positions.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct AtRest {
    /// Somebody has stopped them.
    pub stopped: BTreeSet<u32>,
    /// They had done what they were started for; a scheduled job is due again.
    #[serde(default)]
    pub finished: BTreeSet<u32>,
}

impl AtRest {
    /// Returns whether the instance at a position is not started again.
    pub(super) fn has(&self, position: u32) -> bool {
        self.stopped.contains(&position) || self.finished.contains(&position)
    }
}

/// The forms in which an app was saved so far.
#[derive(Deserialize)]
#[serde(untagged)]
enum AnyDumped {
    First(Spec, u32),
    Second {
        spec: Spec,
        instances: u32,
        /// All of them were.
        #[serde(default)]
        is_stopped: bool,
        #[serde(default)]
        stopped: Option<BTreeSet<u32>>,
        #[serde(default)]
        finished: BTreeSet<u32>,
    },
}

impl From<AnyDumped> for Dumped {
    fn from(any: AnyDumped) -> Self {
        match any {
            AnyDumped::First(spec, instances) => Dumped { spec, instances, at_rest: AtRest::default(), is_stopped: false },
            AnyDumped::Second { spec, instances, is_stopped, stopped, finished } => {
                let all = || (0..if is_stopped { instances.min(MOST_INSTANCES) } else { 0 }).collect();
                Dumped { spec, instances, at_rest: AtRest { stopped: stopped.unwrap_or_else(all), finished }, is_stopped }
            }
        }
    }
}

/// Returns whether somebody has stopped an instance. One that was given up is worth another try, and one that the system's shutdown has ended is to run.
fn is_stopped(instance: &Instance) -> bool {
    instance.is_over() && instance.worker.state != State::Errored && !instance.is_finished && !instance.is_ended_by_boot
}

/// Returns whether nobody has done anything with an instance that was rebuilt from its specification alone.
pub(super) fn is_untouched(instance: &Instance) -> bool {
    instance.is_rebuilt && instance.is_over()
}

impl Dump {
    /// Returns the apps of a table, and the names of those that cannot be saved; these instances are about to start. An app whose specification is lost
    /// stays as it was saved before, if it was: nothing else may know it any more.
    pub(super) fn of(table: &Table, about_to_start: &BTreeSet<u32>, before: Option<Dump>) -> (Self, Vec<String>) {
        let mut before: BTreeMap<String, Dumped> =
            before.into_iter().flat_map(|dump| dump.apps).map(|app| (app.spec.name.clone(), app)).collect();
        let (mut apps, mut unknown) = (Vec::new(), Vec::new());
        for app in &table.apps {
            let saved = before.remove(&app.spec.name);
            match (&app.damage, saved) {
                (Some(_), Some(saved)) => apps.push(saved),
                (Some(_), None) => unknown.push(app.spec.name.clone()),
                // How many instances it had, and whether they ran, is lost with the list.
                (None, Some(saved)) if app.instances.iter().all(|one| is_untouched(one) && !about_to_start.contains(&one.id)) => {
                    apps.push(Dumped { spec: app.spec.clone(), ..saved });
                }
                (None, _) => apps.push(Dumped::of(app, about_to_start)),
            }
        }
        (Dump { apps }, unknown)
    }
}

impl Dumped {
    fn of(app: &App, about_to_start: &BTreeSet<u32>) -> Self {
        let those = |is: &dyn Fn(&Instance) -> bool| {
            let resting = |one: &Instance| is(one) && !about_to_start.contains(&one.id);
            (0..).zip(&app.instances).filter(|(_, one)| resting(one)).map(|(position, _)| position).collect::<BTreeSet<u32>>()
        };
        let at_rest = AtRest { stopped: those(&is_stopped), finished: those(&|one| one.is_over() && one.is_finished) };
        let is_stopped = at_rest.stopped.len() + at_rest.finished.len() == app.instances.len();
        Dumped { spec: app.spec.clone(), instances: app.instances.len() as u32, at_rest, is_stopped }
    }
}
