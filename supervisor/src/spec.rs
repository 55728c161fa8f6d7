//! What is to be run, and how: everything that `start` was told, and the surroundings it was told in.

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An app: one command, run by any number of instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// The program as an absolute path, and its arguments.
    pub command: Vec<String>,
    /// Working directory.
    pub directory: PathBuf,
    /// Environment.
    pub environment: Vec<(OsString, OsString)>,
    /// File mode creation mask.
    pub umask: u32,
    /// Limits, in the order of `launch::limits`.
    pub limits: Vec<Limit>,
    /// Addresses that the supervisor listens on for it.
    pub listeners: Vec<String>,
    /// Why its workers may not get their listeners, if something speaks for that.
    pub doubt: Option<String>,
    /// Everything else.
    pub options: Options,
}

/// A resource limit; none is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Soft limit.
    pub current: Option<u64>,
    /// Hard limit.
    pub maximum: Option<u64>,
}

/// How an app is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Unstable ends in a row after which it is given up.
    pub max_restarts: u32,
    /// A worker that ends sooner was not stable.
    #[serde(rename = "min_uptime_ms", with = "milliseconds")]
    pub min_uptime: Duration,
    /// Pause before the second start in a row, doubled each time.
    #[serde(rename = "restart_delay_ms", with = "milliseconds")]
    pub restart_delay: Duration,
    /// A worker with more resident memory is replaced.
    pub max_memory_restart: Option<u64>,
    /// Time between SIGTERM and SIGKILL.
    #[serde(rename = "kill_timeout_ms", with = "milliseconds")]
    pub kill_timeout: Duration,
    /// Time to say READY=1.
    #[serde(rename = "listen_timeout_ms", with = "milliseconds")]
    pub listen_timeout: Duration,
    /// Bytes of a log file before it is rotated.
    pub log_max_size: u64,
    /// Rotated log files that are kept.
    pub log_keep: u32,
    /// Before each line of a log, as strftime has it.
    pub log_date_format: Option<String>,
    /// File of all logs, instead of one in the supervisor's folder for each instance and stream.
    pub log: Option<PathBuf>,
    /// One log for all instances.
    pub merge_logs: bool,
    /// Reload when the program's file changes.
    pub watch: bool,
}

/// Times as whole milliseconds, which their names say.
mod milliseconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// Longest pause between two starts.
pub const LONGEST_DELAY: Duration = Duration::from_secs(15);

impl Spec {
    /// Whether workers share listeners of the supervisor, so that one may replace another unnoticed; otherwise they are on their own.
    pub fn is_cluster(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// As PM2 calls it.
    pub fn mode(&self) -> &'static str {
        if self.is_cluster() { "cluster" } else { "fork" }
    }

    /// Path of an instance's log of a stream; `folder` is that of logs.
    pub fn log(&self, folder: &Path, number: u32, stream: &str) -> PathBuf {
        match &self.options.log {
            Some(path) => path.clone(),
            None if self.options.merge_logs => folder.join(format!("{}-{stream}.log", self.name)),
            None => folder.join(format!("{}-{number}-{stream}.log", self.name)),
        }
    }
}

#[cfg(test)]
#[allow(missing_docs, reason = "for tests of other modules")]
pub mod tests {
    use super::*;

    /// Those of a `start` that says nothing about them.
    pub fn options() -> Options {
        Options {
            max_restarts: 16,
            min_uptime: Duration::from_secs(1),
            restart_delay: Duration::from_millis(100),
            max_memory_restart: None,
            kill_timeout: Duration::from_secs(12),
            listen_timeout: Duration::from_secs(3),
            log_max_size: 10_000_000,
            log_keep: 3,
            log_date_format: None,
            log: None,
            merge_logs: false,
            watch: false,
        }
    }
}
