//! The channel between daemon and keeper. It carries messages with descriptors, each message whole, in order.

mod socket;

pub use socket::{Channel, pair};

use crate::proc::Identity;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// Identifies one process of an instance; the generation rises with each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Id of the instance in the table.
    pub instance: u32,
    /// Number of processes of the instance that were started before this one.
    pub generation: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.instance, self.generation)
    }
}

/// Settings of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogPlan {
    /// Path of the log file.
    pub path: PathBuf,
    /// Size in bytes at which the log is rotated.
    pub max_size: u64,
    /// Number of rotated files to keep.
    pub keep: u32,
    /// Date format (strftime) of the prefix of each line.
    pub date_format: Option<String>,
    /// Permissions of its files.
    pub mode: u32,
}

/// The data that the keeper needs to start and keep a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Identifies the worker.
    pub key: Key,
    /// Name of its app.
    pub app: String,
    /// Path of the app's specification, which says what to run.
    pub spec: PathBuf,
    /// Number of the instance within its app.
    pub number: u32,
    /// Addresses of the listeners that the worker inherits.
    pub listeners: Vec<String>,
    /// Addresses of those that it has asked for and got.
    #[serde(default)]
    pub asked: Vec<String>,
    /// It has closed one of those.
    #[serde(default)]
    pub has_left: bool,
    /// Logs of its standard output and error.
    pub logs: [LogPlan; 2],
    /// It is a Node program that runs with our preload.
    pub is_node: bool,
    /// Its listeners block, for a server that accepts on a thread and does not say so itself.
    #[serde(default)]
    pub blocks: bool,
    /// It runs as another user, who may not enter the supervisor's folder.
    #[serde(default)]
    pub has_user: bool,
    /// It is ready once it writes a line with this text.
    #[serde(default)]
    pub ready_text: Option<String>,
    /// Longest time without a sign of life, in milliseconds, once it has sent one.
    #[serde(default)]
    pub stall_ms: Option<u64>,
}

/// The state of a worker that a new keeper takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The worker has reported that it is ready.
    pub is_ready: bool,
    /// The worker was asked to end. A second request would mean "end at once".
    pub is_told_to_end: bool,
    /// It sends signs of life.
    #[serde(default)]
    pub sends_life: bool,
}

/// The end of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How it ended, such as `exited with 1`.
    pub how: String,
    /// Its exit code, if it exited and somebody saw it.
    pub code: Option<i32>,
    /// The last line of its standard error that says something.
    pub last_line: Option<String>,
    /// The name of a process that it had started when it was asked to end, if there was one.
    pub child: Option<String>,
}

impl End {
    /// An end about which nothing else is known.
    pub fn plain(how: String) -> Self {
        End { how, code: None, last_line: None, child: None }
    }
}

/// An order from the daemon to the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Listen on an address.
    Bind(String),
    /// Stop listening on an address.
    Unbind(String),
    /// Start a worker.
    Spawn(Job),
    /// The daemon knows the worker, which may now become its program.
    Confirm(Key),
    /// Give a worker the listener of an address, which it wants under this number.
    Give(Key, u64, String),
    /// Tell a worker that it does not get the listener that it wants, with the system's number of the error and the reason.
    Refuse(Key, u64, i32, String),
    /// A worker was seen to be ready; the next daemon has to know it.
    Ready(Key),
    /// Send a signal to a worker's process group.
    Signal(Key, i32),
    /// Send any signal to a worker's leader, which goes on unless the signal ends it.
    Raise(Key, i32),
    /// Empty the logs at these paths, and remove their rotated files: at most the given number for each log.
    Flush(Vec<(PathBuf, u32)>),
    /// Open all logs anew: another program has moved them.
    Reopen,
    /// Drop a worker that has ended; the daemon knows of its end.
    Forget(Key),
    /// Hold a listener of the previous keeper; comes with its descriptor.
    AdoptListener(String),
    /// Hold a worker of the previous keeper; comes with its descriptors.
    AdoptWorker(Job, Identity, Standing),
    /// Hold the control socket and the lock of the previous keeper; comes with their descriptors.
    AdoptControl,
    /// End whatever earlier keepers have started and nobody knows any more: these processes, and those that carry the mark of a worker.
    Sweep(Vec<Identity>),
    /// This daemon ends on purpose, and another is to take its place.
    Leave,
    /// Exit: all workers have ended.
    Quit,
}

/// A report from the keeper to the daemon. A new daemon first gets reports of everything that the keeper holds.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The control socket; comes with its descriptor and that of the lock.
    Control,
    /// The keeper listens on this address, and the actual one; comes with the listener's descriptor.
    Bound(String, String),
    /// The keeper cannot listen on this address, with the system's number of the error and the reason.
    CannotBind(String, i32, String),
    /// A worker has started; comes with the descriptors of its pipes and its notify socket.
    Spawned(Box<Job>, Identity),
    /// A worker could not be started, and the reason.
    CannotSpawn(Key, String),
    /// A worker reports that it is ready.
    Ready(Key),
    /// A worker wants to listen on an address; the number identifies its wish.
    Wants(Key, u64, String),
    /// A worker has closed the listener of an address, which it had asked for.
    Leaves(Key, String),
    /// A worker's status text, from `STATUS=`.
    Status(Key, String),
    /// A worker sends signs of life: this is the first, or the first after a pause that was too long.
    Lives(Key),
    /// A worker has sent none for this number of milliseconds.
    Stalled(Key, u64),
    /// A worker was sent the signal to end.
    Signalled(Key),
    /// A worker ended.
    Exited(Key, End),
    /// A worker could not be taken over from the previous keeper, since it had ended.
    Vanished(Key),
    /// Something that the user should know.
    Remark(String),
    /// A log cannot be written, with the reason; or can be written again (`None`).
    LogTrouble(PathBuf, Option<String>),
    /// The supervisor has received a signal to end.
    Terminate,
    /// The keeper has now reported everything that it holds.
    Told,
}
