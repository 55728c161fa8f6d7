//! The specification of an app: all `start` options, and the environment in which `start` was run.
//!
//! It is kept in a file, which later versions of this program have to read: what an older one did not know has a default.

mod options;

pub use options::{Options, Restart, StopSignal};

use crate::environment::Environment;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
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
        let text = include_str!("../../tests/files/first-spec.json");
        let spec: Spec = serde_json::from_str(text).unwrap();
        assert_eq!((spec.name.as_str(), spec.listeners.as_slice()), ("api", &["127.0.0.1:8081".to_owned()][..]));
        assert!(spec.environment.0.contains(&("PATH".into(), "/usr/bin:/bin".into())));
        spec.check().unwrap();
    }
}
