//! The options of an app: how its processes are started again, watched and ended, and what becomes of what they write.

use super::checks::{Health, ReadyWhen};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use std::path::PathBuf;
use std::time::Duration;

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
    /// The kernel lets a process and all that it starts use at most this memory, in bytes.
    pub memory_max: Option<u64>,
    /// And at most this share of one processor, in percent.
    pub cpu_max: Option<u32>,
    /// Time between SIGTERM and SIGKILL.
    #[serde(rename = "kill_timeout_ms", with = "milliseconds")]
    pub kill_timeout: Duration,
    /// Time limit for a new worker to become ready.
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
    /// File for what the first instance writes to standard output, in place of that in the supervisor's folder; others are numbered.
    pub output: Option<PathBuf>,
    /// The same for standard error.
    pub error: Option<PathBuf>,
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
    /// Times at which the app is reloaded, or started again if it is a job that has ended: a pattern of cron.
    pub cron: Option<String>,
    /// The user that its processes run as, by name or number; only root can choose another.
    pub uid: Option<String>,
    /// Their group.
    pub gid: Option<String>,
    /// Scheduling priority, from -20, the highest, to 19.
    pub nice: Option<i32>,
    /// A Node program is ready when it says so, not as soon as it listens.
    pub wait_ready: bool,
    /// What tells that a process is ready that does not say so itself.
    pub ready_when: Option<ReadyWhen>,
    /// How the health of its processes is checked.
    pub health: Health,
    /// The listeners block, for a server that accepts on a thread.
    pub blocking_listener: bool,
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
    /// Returns whether its processes have limits that take a cgroup.
    pub fn has_limits(&self) -> bool {
        self.memory_max.is_some() || self.cpu_max.is_some()
    }

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
            memory_max: None,
            cpu_max: None,
            kill_timeout: Duration::from_secs(12),
            listen_timeout: Duration::from_secs(3),
            log_max_size: 10 << 20,
            log_keep: 3,
            log_date_format: None,
            log: None,
            output: None,
            error: None,
            log_mode: 0o600,
            merge_logs: false,
            watch: false,
            restart: Restart::Always,
            stop_exit_codes: Vec::new(),
            namespace: None,
            cron: None,
            uid: None,
            gid: None,
            nice: None,
            wait_ready: false,
            ready_when: None,
            health: Health::default(),
            blocking_listener: false,
            stop_signal: StopSignal::Term,
        }
    }
}

/// Durations as whole milliseconds; the field names end in `_ms`.
pub(super) mod milliseconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
