//! The control protocol between the commands and the daemon: a request and an answer, each one line of JSON.

use crate::environment::Environment;
use crate::selector::Selector;
use crate::spec::Spec;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A request of a command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Start an app.
    Start {
        /// The app's specification.
        spec: Box<Spec>,
        /// Number of instances.
        instances: u32,
    },
    /// Replace the specification of an app, and its processes as a reload does.
    Change {
        /// The new specification.
        spec: Box<Spec>,
    },
    /// Start the stopped instances of a target.
    Resume(String),
    /// Stop the instances of a target.
    Stop(String),
    /// Stop the instances and start them again, with a new environment if one is given.
    Restart(String, Option<Environment>),
    /// Replace one instance after the other, with a new environment if one is given.
    Reload(String, Option<Environment>, Pace),
    /// Stop the instances and remove them from the table.
    Delete(String),
    /// Change the number of instances of an app.
    Scale(String, Size),
    /// Return the table.
    List,
    /// Set the counters of the instances to zero.
    Reset(String),
    /// Send a signal, by its number, to the processes of the instances.
    Signal(String, i32),
    /// Empty the logs.
    Flush(String),
    /// Open all logs anew.
    ReloadLogs,
    /// Save the apps for `resurrect`.
    Save,
    /// Start the saved apps, and wait for that; or, at boot, start them unless the supervisor continues with its list, and do not wait.
    Resurrect {
        /// systemd has started the supervisor.
        is_boot: bool,
    },
    /// Replace the supervisor's own processes with those of this program.
    Update(PathBuf),
    /// Stop all apps and the supervisor once this client has gone. There is no answer but an error.
    Foreground,
    /// Answer once an app is given up, or all have ended by themselves.
    AwaitEnd,
    /// Stop all apps and the supervisor.
    Kill,
}

impl Request {
    /// Returns whether the list has to be written for this to outlive the daemon. What only ends processes is done in any case: they may be what fills the disk.
    pub fn needs_room(&self) -> bool {
        match self {
            Request::Start { .. }
            | Request::Change { .. }
            | Request::Resume(_)
            | Request::Restart(..)
            | Request::Reload(..)
            | Request::Scale(..)
            | Request::Save
            | Request::Resurrect { .. }
            | Request::Update(_) => true,
            Request::Stop(_)
            | Request::Delete(_)
            | Request::List
            | Request::Reset(_)
            | Request::Signal(..)
            | Request::Flush(_)
            | Request::ReloadLogs
            | Request::Foreground
            | Request::AwaitEnd
            | Request::Kill => false,
        }
    }
}

/// How a reload proceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Number of instances that are replaced at a time.
    pub parallel: u32,
    /// The first new process runs beside the old one for this number of milliseconds, and the reload goes on only if nothing is wrong with it.
    pub canary_ms: Option<u64>,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { parallel: 1, canary_ms: None }
    }
}

/// A new number of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// This number of instances.
    To(u32),
    /// This number of instances more, or fewer if it is negative.
    By(i32),
}

/// The daemon's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The command succeeded, with a message.
    Done(String),
    /// An app has ended, as the answer to `AwaitEnd`.
    Ended {
        /// What has ended, and how.
        text: String,
        /// The exit code to end with.
        code: u8,
    },
    /// The table, as the answer to `List`.
    Table(Table),
    /// The command failed, with the reason.
    Error(String),
}

/// All apps, and the supervisor's own state.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Table {
    /// The supervisor's own processes; `None` if no supervisor runs.
    pub supervisor: Option<Own>,
    /// Messages of the supervisor for the user.
    pub remarks: Vec<String>,
    /// All apps. What the instances of an app share is sent once: there may be a thousand of them.
    pub apps: Vec<AppView>,
}

impl Table {
    /// Returns all instances, each with its app.
    pub fn all(&self) -> impl Iterator<Item = (&AppView, &View)> {
        self.apps.iter().flat_map(|app| app.instances.iter().map(move |one| (app, one)))
    }

    /// Returns an app by its name.
    pub fn app(&self, name: &str) -> Option<&AppView> {
        self.apps.iter().find(|app| app.name == name)
    }

    /// Returns the names of all apps.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.apps.iter().map(|app| app.name.as_str())
    }
}

/// The part of the answer to `List` that all versions of the daemon share.
#[derive(Debug, Deserialize)]
pub struct Known {
    table: Option<KnownTable>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct KnownTable {
    supervisor: Option<Own>,
}

impl Known {
    /// Returns the supervisor's own processes.
    ///
    /// # Errors
    /// Fails if the answer is an error.
    pub fn own(self) -> Result<Option<Own>> {
        self.error.map_or_else(|| Ok(self.table.and_then(|table| table.supervisor)), |error| bail!(error))
    }
}

/// Something that has happened to an app, as the event log keeps it: one line of JSON each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Name of the app.
    pub app: String,
    /// Its namespace, if it has one.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Id of the instance, if it is about one.
    pub id: Option<u32>,
    /// What: `started`, `ready`, `stopped`, `ended`, `given up`, `reload` and so on.
    pub what: String,
    /// More about it, such as how a process ended.
    pub why: Option<String>,
}

/// The process ids of the supervisor itself.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Own {
    /// Process id of the keeper.
    pub keeper: i32,
    /// Process id of the daemon.
    pub daemon: i32,
}

/// The status of an instance whose specification is lost.
pub const DAMAGED: &str = "damaged";

/// An app, as `list` and `show` print it: what its instances have in common, and each of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AppView {
    /// Its name.
    pub name: String,
    /// `cluster` or `fork`.
    pub mode: String,
    /// Why its specification is lost, if it is.
    pub damage: Option<String>,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its working directory.
    pub directory: PathBuf,
    /// The addresses that it serves.
    pub listeners: Vec<String>,
    /// Its restart, log and watch options.
    pub options: crate::spec::Options,
    /// Its instances; none where each is printed with its app.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<View>,
}

impl AppView {
    /// Returns whether a target means this one of its instances.
    pub fn is_meant(&self, one: &View, selector: &Selector) -> bool {
        selector.means(&self.name, self.options.namespace.as_deref(), Some(one.id))
    }
}

/// An instance, as `list` and `show` print it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct View {
    /// Its id in the table.
    pub id: u32,
    /// Its number within its app.
    pub number: u32,
    /// The id of its process, if it has one.
    pub pid: Option<i32>,
    /// Milliseconds since it became ready.
    pub uptime_ms: Option<u64>,
    /// Number of times that it ended without being asked to.
    pub restarts: u32,
    /// Its state, such as `online`, or [`DAMAGED`], whether or not it runs.
    pub status: String,
    /// Number of processes that it has had.
    pub generation: u32,
    /// Its status text, from `STATUS=`.
    pub says: Option<String>,
    /// It sends signs of life.
    #[serde(default)]
    pub sends_life: bool,
    /// Checks in a row that it has failed.
    #[serde(default)]
    pub failed_checks: u32,
    /// How the last check failed, if it did.
    #[serde(default)]
    pub last_failure: Option<String>,
    /// Paths of the logs of standard output and error.
    pub logs: [PathBuf; 2],
    /// The reason that a log cannot be written, if it cannot.
    pub log_trouble: Option<String>,
    /// Time of its creation, in seconds since 1970.
    pub created_s: u64,
    /// Exit description of its previous process, if it had one.
    pub last_end: Option<String>,
}

impl View {
    /// Returns whether it was given up.
    pub fn is_errored(&self) -> bool {
        self.status == "errored"
    }

    /// Returns whether its process is ready, even if nothing else is known of it.
    pub fn serves(&self) -> bool {
        self.status == "online" || self.status == DAMAGED && self.uptime_ms.is_some()
    }
}
