//! Checks of processes: whether one is ready that does not say so itself, and whether it still works.

use super::options::milliseconds;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Where a GET request goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// A numeric address such as `127.0.0.1:3000`; without it, the first one that the app listens on.
    pub address: Option<String>,
    /// The path and the query.
    pub path: String,
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => write!(formatter, "GET http://{address}{}", self.path),
            None => write!(formatter, "GET {}", self.path),
        }
    }
}

/// What tells that a process is ready that does not say so itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadyWhen {
    /// It listens; in cluster mode, it waits for connections on a listener that it was given.
    Listening,
    /// It answers this request with a status below 400.
    Http(Target),
    /// It writes a line with this text.
    Log(String),
}

impl ReadyWhen {
    /// What a process has not done that is not ready, such as `did not listen`.
    pub fn missing(&self) -> String {
        match self {
            ReadyWhen::Listening => "did not listen".into(),
            ReadyWhen::Http(target) => format!("did not answer {target}"),
            ReadyWhen::Log(text) => format!("did not write '{text}'"),
        }
    }
}

/// How the health of processes is checked. A process that fails is replaced as a reload does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// It answers this request with a status below 400.
    pub http: Option<Target>,
    /// This command exits with 0; it runs in a shell, with the id of the process in `SUPERVISOR_PID`.
    pub exec: Option<String>,
    /// Pause between two checks.
    #[serde(rename = "interval_ms", with = "milliseconds")]
    pub interval: Duration,
    /// Time limit of a check.
    #[serde(rename = "timeout_ms", with = "milliseconds")]
    pub timeout: Duration,
    /// Failures in a row after which the process is replaced.
    pub retries: u32,
    /// Longest time without `WATCHDOG=1` from a process that sends it; zero for any time.
    #[serde(rename = "stall_ms", with = "milliseconds")]
    pub stall: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            http: None,
            exec: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            retries: 3,
            stall: Duration::ZERO,
        }
    }
}

impl Health {
    /// Returns whether processes are checked from outside.
    pub fn is_checked(&self) -> bool {
        self.http.is_some() || self.exec.is_some()
    }
}
