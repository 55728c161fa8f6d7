//! The state file, which a daemon leaves to the next one: the table, always replaced as a whole.

use super::table::{App, Instance, Table};
use super::worker::State;
use crate::home::{Home, replace, replace_durably};
use crate::proc::{Identity, boot_id};
use crate::spec::Spec;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Version of the file format.
const SCHEMA: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    schema: u32,
    /// Process ids of another boot are meaningless.
    boot_id: String,
    next_id: u32,
    apps: Vec<SavedApp>,
}

#[derive(Serialize, Deserialize)]
struct SavedApp {
    name: String,
    instances: Vec<SavedInstance>,
}

#[derive(Serialize, Deserialize)]
struct SavedInstance {
    id: u32,
    number: u32,
    generation: u32,
    created_s: u64,
    restarts: u32,
    failures: u32,
    is_leaving: bool,
    last_end: Option<String>,
    is_stopped: bool,
    is_errored: bool,
    processes: Vec<Identity>,
}

/// An instance in the state file, and its processes at that time.
pub struct Before {
    /// Id of the instance.
    pub id: u32,
    /// The instance should run.
    pub is_wanted: bool,
    /// Its processes, if the system has not been rebooted since.
    pub processes: Vec<Identity>,
}

/// Writes the state file.
///
/// # Errors
/// Fails if the file cannot be written, for example because the disk is full.
pub fn save(table: &Table, home: &Home) -> Result<()> {
    let apps = table
        .apps
        .iter()
        .map(|app| SavedApp { name: app.spec.name.clone(), instances: app.instances.iter().map(saved).collect() });
    let all = Saved { schema: SCHEMA, boot_id: boot_id(), next_id: table.next_id, apps: apps.collect() };
    replace(&home.state(), &serde_json::to_vec(&all)?)
}

fn saved(instance: &Instance) -> SavedInstance {
    SavedInstance {
        id: instance.id,
        number: instance.number,
        generation: instance.generation,
        created_s: instance.created.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        restarts: instance.restarts,
        failures: instance.failures,
        is_leaving: instance.is_leaving,
        last_end: instance.last_end.clone(),
        is_stopped: matches!(instance.worker.state, State::Stopped | State::Stopping { then: super::worker::Then::Stop, .. }),
        is_errored: instance.worker.state == State::Errored,
        processes: instance.workers().filter_map(|worker| worker.state.process()).collect(),
    }
}

/// Reads the state file. If that fails, renames the file and returns a remark about it.
pub fn load(home: &Home) -> (Table, Vec<Before>, Option<String>) {
    let path = home.state();
    if !path.exists() {
        return (Table::default(), Vec::new(), None);
    }
    match read(&path, home) {
        Ok((table, before)) => (table, before, None),
        Err(error) => {
            let aside = path.with_extension("json.broken");
            let _ = fs::rename(&path, &aside);
            let remark = format!("{error:#}; it was renamed to {}, and the table is now empty", aside.display());
            (Table::default(), Vec::new(), Some(remark))
        }
    }
}

fn read(path: &Path, home: &Home) -> Result<(Table, Vec<Before>)> {
    let what = || format!("cannot read the state file {}", path.display());
    let all: Saved = serde_json::from_slice(&fs::read(path).with_context(what)?).with_context(what)?;
    if all.schema != SCHEMA {
        bail!("{}: it has schema {}, but this program needs schema {SCHEMA}", what(), all.schema);
    }
    let is_same_boot = all.boot_id == boot_id();
    let (mut apps, mut before) = (Vec::new(), Vec::new());
    for app in all.apps {
        // The app has been deleted since the file was written.
        let Ok(spec) = read_spec(&home.spec(&app.name)) else { continue };
        for instance in &app.instances {
            before.push(Before {
                id: instance.id,
                is_wanted: !instance.is_stopped && !instance.is_errored,
                processes: if is_same_boot { instance.processes.clone() } else { Vec::new() },
            });
        }
        apps.push(App { spec, instances: app.instances.into_iter().map(restored).collect() });
    }
    Ok((Table { apps, next_id: all.next_id }, before))
}

fn restored(saved: SavedInstance) -> Instance {
    let mut instance = Instance::new(saved.id, saved.number);
    instance.generation = saved.generation;
    instance.created = SystemTime::UNIX_EPOCH + Duration::from_secs(saved.created_s);
    instance.restarts = saved.restarts;
    instance.failures = saved.failures;
    instance.is_leaving = saved.is_leaving;
    instance.last_end = saved.last_end;
    instance.worker.key.generation = saved.generation;
    instance.worker.state = if saved.is_errored { State::Errored } else { State::Stopped };
    instance
}

/// Reads the specification in a file.
///
/// # Errors
/// Fails if the file cannot be read.
pub fn read_spec(path: &Path) -> Result<Spec> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&bytes).with_context(|| path.display().to_string())
}

/// The content of the file that `save` writes.
#[derive(Serialize, Deserialize)]
pub struct Dump {
    /// Each app with its number of instances.
    pub apps: Vec<(Spec, u32)>,
}

/// Saves the apps for `resurrect`, so that they survive a power loss.
///
/// # Errors
/// Fails if the file cannot be written, for example because the disk is full.
pub fn dump(table: &Table, home: &Home) -> Result<usize> {
    let apps: Vec<(Spec, u32)> = table.apps.iter().map(|app| (app.spec.clone(), app.instances.len() as u32)).collect();
    let count = apps.len();
    replace_durably(&home.dump(), &serde_json::to_vec(&Dump { apps })?)?;
    Ok(count)
}

/// Reads the saved apps.
///
/// # Errors
/// Fails if nothing was saved, or the file cannot be read.
pub fn dumped(home: &Home) -> Result<Dump> {
    let path = home.dump();
    if !path.exists() {
        bail!("there are no saved apps: run `supervisor save` first");
    }
    let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&bytes).with_context(|| path.display().to_string())
}
