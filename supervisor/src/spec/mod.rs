//! The specification of an app: all `start` options, and the environment in which `start` was run.
//!
//! It is kept in a file, which later versions of this program have to read: what an older one did not know has a default.

mod checks;
mod options;

pub use checks::{Health, ReadyWhen, Target};
pub use options::{Options, Restart, StopSignal};

use crate::environment::Environment;
use anyhow::{Context, Result, bail};
use croner::Cron;
use humantime::format_duration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
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
    /// The file that is run, if the command begins with its interpreter.
    #[serde(default)]
    pub script: Option<PathBuf>,
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
/// Least memory in bytes above which an app can be replaced.
const SMALLEST_MEMORY: u64 = 4096;
/// Shortest pause between two checks of a process.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// Shares of one processor that a process can be limited to, in percent: the kernel knows none below the first.
pub const PERCENT: RangeInclusive<u32> = 1..=100_000;
/// Longest date format, in bytes.
pub const LONGEST_FORMAT: usize = 100;
/// Longest path of a log, in bytes: Linux knows no longer one.
const LONGEST_PATH: usize = 4095;
/// Longest text of the line that tells that a process is ready, in bytes.
const LONGEST_TEXT: usize = 4096;

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
            script: None,
            is_node: false,
            options: Options::default(),
        }
    }

    /// Checks what no user means, and what earlier versions took: saved apps may have it.
    ///
    /// # Errors
    /// Fails with the first of these values.
    pub fn check_new(&self) -> Result<()> {
        let name = &self.name;
        if let Some(namespace) = &self.options.namespace {
            check_plain("namespace", "--namespace", namespace)?;
        }
        if let Some(most) = self.options.max_memory_restart.filter(|most| *most < SMALLEST_MEMORY) {
            bail!("--max-memory-restart of {name} is {most} bytes, and every process takes more: write it as in 300M");
        }
        if self.options.wait_ready && !self.is_node {
            bail!("--wait-ready of {name} has no effect, since it is not a Node program: send READY=1, or use --ready-when");
        }
        if self.options.blocking_listener && self.listeners.is_empty() {
            bail!("--blocking-listener of {name} has no effect without a listener: add --listen ADDR");
        }
        let (health, default) = (&self.options.health, Health::default());
        let timing = [
            ("--health-interval", health.interval != default.interval),
            ("--health-timeout", health.timeout != default.timeout),
            ("--health-retries", health.retries != default.retries),
        ];
        if let Some((option, _)) = timing.iter().find(|(_, is_set)| *is_set && !health.is_checked()) {
            bail!("{option} of {name} has no effect without a check: add --health-http or --health-exec");
        }
        Ok(())
    }

    /// Checks what a request can contain and the commands never send.
    ///
    /// # Errors
    /// Fails with the first value that cannot be used.
    pub fn check(&self) -> Result<()> {
        let name = &self.name;
        check_name(name)?;
        let Options { min_uptime, restart_delay, kill_timeout, listen_timeout, log_max_size, log_keep, .. } = self.options;
        let Health { interval, timeout, stall, retries, .. } = self.options.health;
        let times = [
            ("--min-uptime", min_uptime),
            ("--restart-delay", restart_delay),
            ("--kill-timeout", kill_timeout),
            ("--listen-timeout", listen_timeout),
            ("--health-interval", interval),
            ("--health-timeout", timeout),
            ("--health-stall", stall),
        ];
        let format = self.options.log_date_format.as_deref().unwrap_or_default();
        if !self.command.first().is_some_and(|program| Path::new(program).is_absolute()) {
            bail!("the command of {name} does not begin with the absolute path of a program");
        }
        if !self.directory.is_absolute() {
            bail!("the directory of {name} is not an absolute path");
        }
        if let Some((option, time)) = times.iter().find(|(_, time)| *time > LONGEST) {
            bail!("{option} of {name} is {}: use at most a day", format_duration(*time));
        }
        if interval < SHORTEST_INTERVAL {
            bail!("--health-interval of {name} is {}: use at least {SHORTEST_INTERVAL:?}", format_duration(interval));
        }
        if timeout.is_zero() || retries == 0 {
            bail!("--health-timeout of {name} is {}, and --health-retries {retries}: use more than 0", format_duration(timeout));
        }
        if !stall.is_zero() && stall < SHORTEST_INTERVAL {
            bail!("--health-stall of {name} is {}: use at least {SHORTEST_INTERVAL:?}", format_duration(stall));
        }
        if let Some(target) = self.targets().find(|target| target.address.is_none())
            && !self.is_node
            && self.listeners.first().is_none_or(|address| address.starts_with(UNIX))
        {
            bail!("{target}: {name} has no TCP listener: add --listen, or write the whole address, http://ADDR/PATH");
        }
        if log_max_size < SMALLEST_LOG {
            bail!("--log-max-size of {name} is {log_max_size} bytes: use at least {SMALLEST_LOG}");
        }
        if log_keep > MOST_KEPT {
            bail!("--log-keep of {name} is {log_keep}: use at most {MOST_KEPT}");
        }
        if let Some(percent) = self.options.cpu_max.filter(|percent| !PERCENT.contains(percent)) {
            bail!("--cpu-max of {name} is {percent} %: use {} to {} %", PERCENT.start(), PERCENT.end());
        }
        crate::user::As::of(&self.options).with_context(|| format!("the user of {name}"))?;
        if let Some(pattern) = &self.options.cron {
            schedule(pattern).with_context(|| format!("the schedule of {name}"))?;
        }
        if format.len() > LONGEST_FORMAT {
            bail!("the date format of {name} is longer than {LONGEST_FORMAT} characters");
        }
        let Options { log, output, error, .. } = &self.options;
        let mut logs = [log, output, error].into_iter().flatten();
        if logs.clone().any(|log| !log.is_absolute()) {
            bail!("the log of {name} is not an absolute path");
        }
        if logs.any(|log| log.as_os_str().len() > LONGEST_PATH) {
            bail!("the path of a log of {name} is longer than {LONGEST_PATH} bytes");
        }
        if let Some(ReadyWhen::Log(text)) = &self.options.ready_when
            && text.len() > LONGEST_TEXT
        {
            bail!("the text that tells that {name} is ready is longer than {LONGEST_TEXT} bytes");
        }
        if let Some(address) = self.listeners.iter().find(|address| !is_address(address)) {
            bail!("{name} cannot listen on '{address}', which is not an address such as 127.0.0.1:8080 or unix:/run/app.sock");
        }
        Ok(())
    }

    /// Returns where the requests of its checks go.
    fn targets(&self) -> impl Iterator<Item = &Target> {
        let ready = self.options.ready_when.iter().filter_map(|when| match when {
            ReadyWhen::Http(target) => Some(target),
            ReadyWhen::Listening | ReadyWhen::Log(_) => None,
        });
        ready.chain(&self.options.health.http)
    }

    /// Path of the log of an instance's stream; `folder` is the folder of logs.
    pub fn log(&self, folder: &Path, number: u32, stream: &str) -> PathBuf {
        let Options { log, output, error, merge_logs, .. } = &self.options;
        let own = if stream == ERROR { error } else { output };
        match log.as_ref().or(own.as_ref()) {
            // A device such as /dev/null has no numbered neighbours.
            Some(path) if log.is_some() || *merge_logs || number == 0 || path.starts_with("/dev") => path.clone(),
            Some(path) => numbered(path, number),
            None if *merge_logs && ends_with_number(&self.name) => folder.join(format!("{}+{stream}.log", self.name)),
            None if *merge_logs => folder.join(format!("{}-{stream}.log", self.name)),
            None => folder.join(format!("{}-{number}-{stream}.log", self.name)),
        }
    }
}

/// The streams of a process, as they stand in the names of logs.
pub const STREAMS: [&str; 2] = ["out", ERROR];
const ERROR: &str = "error";

/// Returns whether a name ends as the log of an instance does: that of `api-0` must not be that of the first instance of `api`. No name contains the
/// plus sign that it gets instead.
fn ends_with_number(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(_, number)| number.parse::<u32>().is_ok())
}

/// Puts a number before the ending of a path: `api.log` becomes `api-1.log`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
}

/// Begins the address of a Unix socket, before its path.
pub const UNIX: &str = "unix:";
/// Begins the address of a listener for IPv6 alone, which a Node program may ask for. Any other at `[::]` takes IPv4 too.
pub const ONLY_IPV6: &str = "ipv6only:";
/// Longest path of a Unix socket on Linux, without its final zero byte.
pub const LONGEST_SOCKET: usize = 107;
/// Longest address of a listener, in bytes.
pub const LONGEST_ADDRESS: usize = UNIX.len() + LONGEST_SOCKET;

/// Returns whether this is the address of a listener: numeric, or a Unix socket.
pub fn is_address(text: &str) -> bool {
    match text.strip_prefix(UNIX) {
        // Addresses are handed on in a list.
        Some(path) => Path::new(path).is_absolute() && path.len() <= LONGEST_SOCKET && !path.contains(','),
        // A port may begin with any number of zeros.
        None => text.len() <= LONGEST_ADDRESS && text.parse::<SocketAddr>().is_ok(),
    }
}

/// Returns where a listener listens, unless that is a Unix socket.
pub fn socket_address(address: &str) -> Option<SocketAddr> {
    address.strip_prefix(ONLY_IPV6).unwrap_or(address).parse().ok()
}

/// Parses a pattern of cron, such as `0 3 * * *`.
///
/// # Errors
/// Fails if it is none, or has no next time.
pub fn schedule(text: &str) -> Result<Cron> {
    let pattern = Cron::from_str(text).with_context(|| format!("'{text}' is not a pattern such as '0 3 * * *'"))?;
    pattern.find_next_occurrence(&jiff::Zoned::now(), false).with_context(|| format!("'{text}' never comes"))?;
    Ok(pattern)
}

/// Checks a name, which becomes part of file names and must not look like an id.
///
/// # Errors
/// Fails if the name is not valid.
pub fn check_name(name: &str) -> Result<()> {
    check_plain("name", "--name", name)
}

/// Checks a name or a namespace. Either may be the target of a command, as ids and `all` are.
fn check_plain(what: &str, option: &str, name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_alphanumeric() || "-_.@".contains(c);
    if name.is_empty() || name == "all" || name.starts_with('.') || name.len() > 64 || !name.chars().all(is_plain) {
        bail!(
            "'{name}' is not a valid {what}: use up to 64 letters, digits, - _ . and @, no leading dot, not 'all'; set {option}"
        );
    }
    if name.parse::<u32>().is_ok() {
        bail!("'{name}' looks like an id: choose another {what} with {option}");
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

    #[test]
    fn an_option_that_would_have_no_effect_is_refused() {
        let refused = |spec: &Spec| spec.check_new().unwrap_err().to_string();
        let with = |options: Options| Spec { options, ..Spec::lost("api") };
        let health = |change: fn(&mut Health)| {
            let mut options = options();
            change(&mut options.health);
            assert!(refused(&with(options.clone())).contains("add --health-http or --health-exec"));
            options.health.exec = Some("true".into());
            with(options).check_new().unwrap();
        };
        health(|health| health.interval = Duration::from_secs(1));
        health(|health| health.timeout = Duration::from_secs(1));
        health(|health| health.retries = 1);
        let spec = with(Options { wait_ready: true, ..options() });
        assert!(refused(&spec).starts_with("--wait-ready of api"));
        Spec { is_node: true, ..spec }.check_new().unwrap();
        let spec = with(Options { blocking_listener: true, ..options() });
        assert!(refused(&spec).contains("add --listen ADDR"));
        Spec { listeners: vec!["127.0.0.1:1".into()], ..spec }.check_new().unwrap();
    }

    #[test]
    fn each_instance_has_logs_of_its_own_unless_they_are_merged() {
        let logs = |options: Options, number: u32| {
            let spec = Spec { options, ..Spec::lost("api") };
            STREAMS.map(|stream| spec.log(Path::new("/logs"), number, stream).display().to_string())
        };
        let files = Options { output: Some("/srv/api.out.log".into()), error: Some("/dev/null".into()), ..options() };
        assert_eq!(logs(options(), 1), ["/logs/api-1-out.log", "/logs/api-1-error.log"]);
        assert_eq!(logs(files.clone(), 0), ["/srv/api.out.log", "/dev/null"]);
        assert_eq!(logs(files.clone(), 1), ["/srv/api.out-1.log", "/dev/null"]);
        assert_eq!(logs(Options { merge_logs: true, ..files.clone() }, 1), ["/srv/api.out.log", "/dev/null"]);
        assert_eq!(logs(Options { error: None, ..files }, 1), ["/srv/api.out-1.log", "/logs/api-1-error.log"]);
        assert_eq!(logs(Options { log: Some("/srv/all".into()), ..options() }, 1), ["/srv/all", "/srv/all"]);
        let merged = Spec { options: Options { merge_logs: true, ..options() }, ..Spec::lost("api-1") };
        let logs = STREAMS.map(|stream| merged.log(Path::new("/logs"), 0, stream).display().to_string());
        assert_eq!(logs, ["/logs/api-1+out.log", "/logs/api-1+error.log"]);
    }
}
