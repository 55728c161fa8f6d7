//! The specification of an app: all `start` options, and the environment in which `start` was run.
//!
//! It is kept in a file, which later versions of this program have to read: what an older one did not know has a default.

use crate::environment::Environment;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use std::collections::BTreeSet;
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
    pub environment: Environment,
    /// File mode creation mask.
    pub umask: u32,
    /// Resource limits, in the order of `launch::limits`.
    pub limits: Vec<Limit>,
    /// Addresses that the supervisor listens on for the app.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// The file that the app was read from, if it was.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// The environment variables that the file sets.
    #[serde(default)]
    pub declared: BTreeSet<String>,
    /// It is a Node program that runs with our preload.
    #[serde(default)]
    pub is_node: bool,
    /// Restart, log and watch options.
    #[serde(default)]
    pub options: Options,
}

/// Longest duration of an option. The limit keeps additions to clock times from overflowing.
pub const LONGEST: Duration = Duration::from_secs(86_400);
/// Most rotated files of a log.
pub const MOST_KEPT: u32 = 1000;
/// Smallest size at which a log is rotated, a page: below, it would be rotated more often than written.
pub const SMALLEST_LOG: u64 = 4096;
/// Longest date format, in bytes.
pub const LONGEST_FORMAT: usize = 100;

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
#[serde(default)]
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
    /// Permissions of log files.
    pub log_mode: u32,
    /// Write the logs of all instances to one file.
    pub merge_logs: bool,
    /// Reload the app when its program file changes.
    pub watch: bool,
    /// When a process that ends by itself is started again.
    pub restart: Restart,
    /// Exit codes after which it is not, in any case.
    pub stop_exit_codes: Vec<i32>,
    /// Apps of a namespace can be named together.
    pub namespace: Option<String>,
    /// Scheduling priority, from -20, the highest, to 19.
    pub nice: Option<i32>,
    /// A Node program is ready when it says so, not as soon as it listens.
    pub wait_ready: bool,
    /// The signal that asks a process to end.
    pub stop_signal: StopSignal,
}

/// When a process that ends by itself is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// However it ended.
    #[default]
    Always,
    /// Unless it exited with 0.
    OnFailure,
    /// Not at all: it is a job.
    Never,
}

impl Options {
    /// Returns whether a process that has ended by itself is started again; a process that was killed has no exit code.
    pub fn restarts(&self, code: Option<i32>) -> bool {
        let is_stop = code.is_some_and(|code| self.stop_exit_codes.contains(&code));
        !is_stop
            && match self.restart {
                Restart::Always => true,
                Restart::OnFailure => code != Some(0),
                Restart::Never => false,
            }
    }
}

/// A signal that asks a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum StopSignal {
    /// What systemd, Kubernetes and most others send.
    #[default]
    #[serde(rename = "SIGTERM")]
    Term,
    /// What PM2 sends.
    #[serde(rename = "SIGINT")]
    Int,
    /// What servers such as nginx take as: finish first.
    #[serde(rename = "SIGQUIT")]
    Quit,
    /// A hang-up.
    #[serde(rename = "SIGHUP")]
    Hup,
    /// The first signal without a meaning.
    #[serde(rename = "SIGUSR1")]
    Usr1,
    /// The second one.
    #[serde(rename = "SIGUSR2")]
    Usr2,
}

impl StopSignal {
    /// All of them.
    pub const ALL: [StopSignal; 6] =
        [StopSignal::Term, StopSignal::Int, StopSignal::Quit, StopSignal::Hup, StopSignal::Usr1, StopSignal::Usr2];

    /// Its name, such as `SIGTERM`.
    pub fn name(self) -> &'static str {
        match self {
            StopSignal::Term => "SIGTERM",
            StopSignal::Int => "SIGINT",
            StopSignal::Quit => "SIGQUIT",
            StopSignal::Hup => "SIGHUP",
            StopSignal::Usr1 => "SIGUSR1",
            StopSignal::Usr2 => "SIGUSR2",
        }
    }

    /// Its number.
    pub fn number(self) -> i32 {
        match self {
            StopSignal::Term => SIGTERM,
            StopSignal::Int => SIGINT,
            StopSignal::Quit => SIGQUIT,
            StopSignal::Hup => SIGHUP,
            StopSignal::Usr1 => SIGUSR1,
            StopSignal::Usr2 => SIGUSR2,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_restarts: 16,
            min_uptime: Duration::from_secs(1),
            restart_delay: Duration::from_millis(100),
            max_memory_restart: None,
            kill_timeout: Duration::from_secs(12),
            listen_timeout: Duration::from_secs(3),
            log_max_size: 10 << 20,
            log_keep: 3,
            log_date_format: None,
            log: None,
            log_mode: 0o600,
            merge_logs: false,
            watch: false,
            restart: Restart::Always,
            stop_exit_codes: Vec::new(),
            namespace: None,
            nice: None,
            wait_ready: false,
            stop_signal: StopSignal::Term,
        }
    }
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
    /// Returns a placeholder for the specification of an app of which only the name is known.
    pub fn lost(name: &str) -> Self {
        Spec {
            name: name.to_owned(),
            command: Vec::new(),
            directory: PathBuf::from("/"),
            environment: Environment::default(),
            umask: 0o077,
            limits: Vec::new(),
            listeners: Vec::new(),
            file: None,
            declared: BTreeSet::new(),
            is_node: false,
            options: Options::default(),
        }
    }

    /// Checks what a request can contain and the commands never send.
    ///
    /// # Errors
    /// Fails with the first value that cannot be used.
    pub fn check(&self) -> Result<()> {
        check_name(&self.name)?;
        let Options { min_uptime, restart_delay, kill_timeout, listen_timeout, .. } = self.options;
        let times = [min_uptime, restart_delay, kill_timeout, listen_timeout];
        let format = self.options.log_date_format.as_deref().unwrap_or_default();
        if !self.command.first().is_some_and(|program| Path::new(program).is_absolute()) {
            bail!("the command of {} does not begin with the absolute path of a program", self.name);
        }
        if !self.directory.is_absolute() {
            bail!("the directory of {} is not an absolute path", self.name);
        }
        if times.iter().any(|time| *time > LONGEST) {
            bail!("a duration of {} is longer than a day", self.name);
        }
        if self.options.log_max_size < SMALLEST_LOG || self.options.log_keep > MOST_KEPT {
            bail!("the logs of {} are rotated at less than {SMALLEST_LOG} bytes, or more than {MOST_KEPT} are kept", self.name);
        }
        if format.len() > LONGEST_FORMAT {
            bail!("the date format of {} is longer than {LONGEST_FORMAT} characters", self.name);
        }
        if self.options.log.as_ref().is_some_and(|log| !log.is_absolute()) {
            bail!("the log of {} is not an absolute path", self.name);
        }
        if let Some(address) = self.listeners.iter().find(|address| address.parse::<std::net::SocketAddr>().is_err()) {
            bail!("{} cannot listen on '{address}', which is not an address such as 127.0.0.1:8080", self.name);
        }
        Ok(())
    }

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

/// Checks a name, which becomes part of file names and must not look like an id.
///
/// # Errors
/// Fails if the name is not valid.
pub fn check_name(name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_alphanumeric() || "-_.@".contains(c);
    if name.is_empty() || name == "all" || name.starts_with('.') || name.len() > 64 || !name.chars().all(is_plain) {
        bail!("'{name}' is not a valid name: use up to 64 letters, digits, - _ . and @, no leading dot, not 'all'; set --name");
    }
    if name.parse::<u32>().is_ok() {
        bail!("'{name}' looks like an id: choose another name with --name");
    }
    Ok(())
}

#[cfg(test)]
#[allow(missing_docs, reason = "for tests of other modules")]
pub mod tests {
    use super::*;

    /// The default options of `start`.
    pub fn options() -> Options {
        Options::default()
    }

    #[test]
    fn the_file_of_the_first_version_can_be_read() {
        let text = include_str!("../tests/files/first-spec.json");
        let spec: Spec = serde_json::from_str(text).unwrap();
        assert_eq!((spec.name.as_str(), spec.listeners.as_slice()), ("api", &["127.0.0.1:8081".to_owned()][..]));
        assert!(spec.environment.0.contains(&("PATH".into(), "/usr/bin:/bin".into())));
        spec.check().unwrap();
    }
}
