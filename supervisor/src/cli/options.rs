//! The options of an app, on the command line.

use super::values::{cron, date_format, log_mode, log_size, percent, ready_when, size, stop_signal, target, time};
use clap::Args;
use std::time::Duration;
use supervisor::spec::{self, Health, ReadyWhen, Restart, StopSignal, Target};

/// The date format of `--time`.
const TIME: &str = "%Y-%m-%dT%H:%M:%S";

/// Restart, log and watch options of an app.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Options {
    /// Give an instance up after more than this many early exits in a row, or restarts within a minute
    #[arg(long, default_value_t = 16)]
    pub max_restarts: u32,
    /// An exit before this uptime is an early exit
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    pub min_uptime: Duration,
    /// Pause before the third start in a row; it doubles for each later one, up to 15 s, or to this pause if it is longer
    #[arg(long, alias = "exp-backoff-restart-delay", value_name = "TIME", default_value = "100ms", value_parser = time)]
    pub restart_delay: Duration,
    /// Replace an instance that uses more resident memory than this, such as 300M
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_memory_restart: Option<u64>,
    /// Memory limit of a process and its descendants: the kernel kills what wants more (needs a delegated cgroup)
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory_max: Option<u64>,
    /// CPU limit of a process and its descendants, such as 50% or 150% of one processor (needs a delegated cgroup)
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub cpu_max: Option<u32>,
    /// Time between SIGTERM and SIGKILL
    #[arg(short, long, value_name = "TIME", default_value = "12s", value_parser = time)]
    pub kill_timeout: Duration,
    /// Time limit for a new process to become ready
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = time)]
    pub listen_timeout: Duration,
    /// Size at which a log file is rotated, at least 4K
    #[arg(long, value_name = "SIZE", default_value = "10M", value_parser = log_size)]
    pub log_max_size: u64,
    /// Rotated files to keep of each log
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub log_keep: u32,
    /// Prefix each log line with the date, in this strftime format
    #[arg(long, value_name = "FORMAT", value_parser = date_format)]
    pub log_date_format: Option<String>,
    /// Prefix each log line with the date, such as 2026-01-31T12:00:00
    #[arg(long, conflicts_with = "log_date_format")]
    pub time: bool,
    /// Permissions of log files, such as 640 for a log shipper of their group
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = log_mode)]
    pub log_mode: u32,
    /// Write the logs of all instances to one file
    #[arg(long)]
    pub merge_logs: bool,
    /// Reload the app when its program file changes
    #[arg(long)]
    pub watch: bool,
    /// Do not restart a process that ends by itself (for jobs)
    #[arg(long, conflicts_with = "on_failure")]
    pub no_autorestart: bool,
    /// Restart a process that ends by itself only if it did not exit with 0
    #[arg(long)]
    pub on_failure: bool,
    /// Exit codes after which a process is not started again, such as 0,143
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    pub stop_exit_codes: Vec<i32>,
    /// Name that stands for several apps in other commands
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Reload the app, or start a job again that has ended, at these times: minute, hour, day, month, day of the week, such as '0 3 * * *'
    #[arg(long, alias = "cron-restart", value_name = "PATTERN", value_parser = cron)]
    pub cron: Option<String>,
    /// User that the processes run as, by name or number; only root can choose another
    #[arg(long, alias = "user", value_name = "USER")]
    pub uid: Option<String>,
    /// Group that they run as [default: the user's]
    #[arg(long, alias = "group", value_name = "GROUP")]
    pub gid: Option<String>,
    /// Scheduling priority, from -20, the highest, to 19
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-20..=19))]
    pub nice: Option<i32>,
    /// A Node program is ready when it calls process.send('ready'), not as soon as it listens
    #[arg(long)]
    pub wait_ready: bool,
    /// Readiness check for a process that does not send READY=1: listening, http:PATH, http://ADDR/PATH, or log:TEXT
    #[arg(long, value_name = "WHEN", value_parser = ready_when)]
    pub ready_when: Option<ReadyWhen>,
    /// Replace a process that does not answer GET requests for this path, or http://ADDR/PATH, with a status below 400
    #[arg(long, value_name = "PATH", value_parser = target)]
    pub health_http: Option<Target>,
    /// Replace a process for which this command does not exit with 0; its id is in SUPERVISOR_PID
    #[arg(long, value_name = "COMMAND", conflicts_with = "health_http")]
    pub health_exec: Option<String>,
    /// Pause between two checks of a process
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub health_interval: Duration,
    /// Time limit of a check
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    pub health_timeout: Duration,
    /// Failures in a row after which a process is replaced
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub health_retries: u32,
    /// Replace a process whose event loop one request has held for this time, if it sends WATCHDOG=1
    #[arg(long, value_name = "TIME", default_value = "0s", hide_default_value = true, value_parser = time)]
    pub health_stall: Duration,
    /// Pass listeners that block, for a server that accepts on a thread and does not set that itself
    #[arg(long)]
    pub blocking_listener: bool,
    /// Signal that asks a process to end: SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1 or SIGUSR2
    #[arg(long, value_name = "SIGNAL", default_value = "SIGTERM", value_parser = stop_signal)]
    pub stop_signal: StopSignal,
}

impl From<&Options> for spec::Options {
    fn from(options: &Options) -> Self {
        spec::Options {
            max_restarts: options.max_restarts,
            min_uptime: options.min_uptime,
            restart_delay: options.restart_delay,
            max_memory_restart: options.max_memory_restart,
            memory_max: options.memory_max,
            cpu_max: options.cpu_max,
            kill_timeout: options.kill_timeout,
            listen_timeout: options.listen_timeout,
            log_max_size: options.log_max_size,
            log_keep: options.log_keep,
            log_date_format: if options.time { Some(TIME.into()) } else { options.log_date_format.clone() },
            // Paths, which are relative to the working directory.
            log: None,
            output: None,
            error: None,
            log_mode: options.log_mode,
            merge_logs: options.merge_logs,
            watch: options.watch,
            restart: match (options.no_autorestart, options.on_failure) {
                (true, _) => Restart::Never,
                (false, true) => Restart::OnFailure,
                (false, false) => Restart::Always,
            },
            stop_exit_codes: options.stop_exit_codes.clone(),
            namespace: options.namespace.clone(),
            cron: options.cron.clone(),
            uid: options.uid.clone(),
            gid: options.gid.clone(),
            nice: options.nice,
            wait_ready: options.wait_ready,
            ready_when: options.ready_when.clone(),
            health: Health {
                http: options.health_http.clone(),
                exec: options.health_exec.clone(),
                interval: options.health_interval,
                timeout: options.health_timeout,
                retries: options.health_retries,
                stall: options.health_stall,
            },
            blocking_listener: options.blocking_listener,
            stop_signal: options.stop_signal,
        }
    }
}
