//! What a command asks the daemon, and what it is answered: one line of JSON each.

use crate::spec::Spec;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Run this by so many instances.
    Start {
        /// What.
        spec: Box<Spec>,
        /// How many.
        instances: u32,
    },
    /// Start what is stopped: a name, an id or `all`.
    Resume(String),
    /// End.
    Stop(String),
    /// End, then start anew, with another environment if one is given.
    Restart(String, Option<Environment>),
    /// Replace one instance after the other, with another environment if one is given.
    Reload(String, Option<Environment>),
    /// End and forget.
    Delete(String),
    /// Run by so many instances.
    Scale(String, Size),
    /// Tell what there is.
    List,
    /// Empty logs.
    Flush(String),
    /// Keep what there is for `resurrect`.
    Save,
    /// Start what was saved.
    Resurrect,
    /// End everything, the supervisor included.
    Kill,
}

/// An environment.
pub type Environment = Vec<(OsString, OsString)>;

/// A number of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// So many.
    To(u32),
    /// So many more, or less.
    By(i32),
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Done(String),
    /// What there is.
    Table(Table),
    /// It is not done, and why.
    Error(String),
}

/// What there is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Table {
    /// Processes of the supervisor itself; none if there is none.
    pub supervisor: Option<Own>,
    /// What a person should know.
    pub remarks: Vec<String>,
    /// All instances, by id.
    pub instances: Vec<View>,
}

/// The processes of the supervisor itself.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Own {
    /// Holds what runs.
    pub keeper: i32,
    /// Decides.
    pub daemon: i32,
}

/// An instance, as it is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct View {
    /// Its number in the table.
    pub id: u32,
    /// Name of its app.
    pub name: String,
    /// `cluster` or `fork`.
    pub mode: String,
    /// Its number in its app.
    pub number: u32,
    /// Its process.
    pub pid: Option<i32>,
    /// Milliseconds since it is ready.
    pub uptime_ms: Option<u64>,
    /// Times that it ended by itself.
    pub restarts: u32,
    /// What it does.
    pub status: String,
    /// How many processes it has had.
    pub generation: u32,
    /// What runs.
    pub command: Vec<String>,
    /// Where.
    pub directory: PathBuf,
    /// The addresses that it serves.
    pub listeners: Vec<String>,
    /// Why it may not get them.
    pub doubt: Option<String>,
    /// What it says of itself.
    pub says: Option<String>,
    /// Standard output and error.
    pub logs: [PathBuf; 2],
    /// Why those cannot be written.
    pub log_trouble: Option<String>,
    /// Seconds since 1970 when it was made.
    pub created_s: u64,
    /// How the process before this one ended, if there was one.
    pub last_end: Option<String>,
    /// What it was told about being kept.
    pub options: crate::spec::Options,
}
