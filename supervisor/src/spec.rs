//! The specification of an app: all `start` options, and the environment in which `start` was run.

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An app: one command, run by any number of instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The app's name.
    pub name: String,
    /// The program as an absolute path, and its arguments.
    pub command: Vec<String>,
    /// Working directory.
    pub directory: PathBuf,
    /// Environment.
    pub environment: Vec<(OsString, OsString)>,
    /// File mode creation mask.
    pub umask: u32,
    /// Resource limits, in the order of `launch::limits`.
    pub limits: Vec<Limit>,
    /// Addresses that the supervisor listens on for the app.
    pub listeners: Vec<String>,
    /// The reason to doubt that the workers get their listeners, if there is one.
    pub doubt: Option<String>,
    /// Restart, log and watch options.
    pub options: Options,
}

/// A resource limit; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Soft limit.
    pub current: Option<u64>,
    /// Hard limit.
    pub maximum: Option<u64>,
}

/// Restart, log and watch options of an app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Number of early exits in a row after which the supervisor gives up.
    pub max_restarts: u32,
    /// An exit before this uptime is an early exit.
    #[serde(rename = "min_uptime_ms", with = "milliseconds")]
    pub min_uptime: Duration,
    /// Pause before the third start in a row; it doubles for each later one.
    #[serde(rename = "restart_delay_ms", with = "milliseconds")]
    pub restart_delay: Duration,
    /// The supervisor replaces a worker that uses more resident memory than this.
    pub max_memory_restart: Option<u64>,
    /// Time between SIGTERM and SIGKILL.
    #[serde(rename = "kill_timeout_ms", with = "milliseconds")]
    pub kill_timeout: Duration,
    /// Time limit for a new worker to send READY=1.
    #[serde(rename = "listen_timeout_ms", with = "milliseconds")]
    pub listen_timeout: Duration,
    /// Size in bytes at which a log file is rotated.
    pub log_max_size: u64,
    /// Number of rotated files to keep of each log.
    pub log_keep: u32,
    /// Date format (strftime) of the prefix of each log line.
    pub log_date_format: Option<String>,
    /// One file for all logs, instead of one for each instance and stream in the supervisor's folder.
    pub log: Option<PathBuf>,
    /// Write the logs of all instances to one file.
    pub merge_logs: bool,
    /// Reload the app when its program file changes.
    pub watch: bool,
}

/// Durations as whole milliseconds; the field names end in `_ms`.
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

/// Longest pause between two starts, unless the app's own is longer.
pub const LONGEST_DELAY: Duration = Duration::from_secs(15);

impl Spec {
    /// Returns whether the workers share listeners that the supervisor holds, so that one can replace another unnoticed. If not,
    /// each worker binds for itself.
    pub fn is_cluster(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// PM2's name for the mode: `cluster` or `fork`.
    pub fn mode(&self) -> &'static str {
        if self.is_cluster() { "cluster" } else { "fork" }
    }

    /// Path of the log of an instance's stream; `folder` is the folder of logs.
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

    /// The default options of `start`.
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
