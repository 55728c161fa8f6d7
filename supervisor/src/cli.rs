//! The command line, which follows PM2's.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;
use supervisor::control::Size;
use supervisor::spec::{LONGEST, LONGEST_FORMAT, SMALLEST_LOG, StopSignal};

/// Starts any server as a cluster, keeps it alive, and replaces it without clients noticing
#[derive(Debug, Parser)]
#[command(name = "supervisor", version, disable_help_subcommand = true)]
pub struct Supervisor {
    #[command(subcommand)]
    pub command: Command,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a command, a supervisor.toml, or a stopped app
    Start(Box<Start>),
    /// Make the list what a supervisor.toml says: what is new starts, what has changed is reloaded
    Apply(Apply),
    /// Stop names, ids or all, and keep them in the list
    Stop(Targets),
    /// Stop and start again
    Restart(Change),
    /// Replace one instance after the other, without dropping a request
    Reload(Change),
    /// Stop, and remove from the list
    #[command(visible_alias = "del")]
    Delete(Targets),
    /// List all instances
    #[command(visible_aliases = ["ls", "status", "ps"])]
    List(Output),
    /// Show all details of a name, an id or all
    #[command(visible_aliases = ["describe", "info"])]
    Show(Show),
    /// Show logs
    #[command(visible_alias = "log")]
    Logs(Logs),
    /// Show what has happened to the apps, and when
    Events(Events),
    /// Print processes, restarts, memory and CPU in the text format of Prometheus, or serve them
    Metrics(Metrics),
    /// Run a supervisor.toml in the foreground until it ends, as a container does
    Run(Run),
    /// Convert an ecosystem file or a dump of PM2's to a supervisor.toml
    Import(Import),
    /// Show processes, their CPU and memory, and their logs, full-screen
    Monit,
    /// Set the restart counters to zero
    Reset(Targets),
    /// Send a signal, such as SIGUSR2, to the processes of names, ids or all
    #[command(visible_alias = "sendSignal")]
    SendSignal(SendSignal),
    /// Print the environment of a name or an id; values that look like secrets are masked
    Env(Env),
    /// Print the process ids of a name, an id or all
    Pid(Flush),
    /// Ask whether the supervisor answers
    Ping,
    /// Print a script that completes commands in a shell
    Completion(Completion),
    /// Empty logs
    Flush(Flush),
    /// Open all logs anew, after another program has moved them
    #[command(name = "reload-logs", visible_alias = "reloadLogs")]
    ReloadLogs,
    /// Change the number of instances of an app
    Scale(Scale),
    /// Save the list for `resurrect`
    #[command(visible_alias = "dump")]
    Save,
    /// Start the saved apps
    Resurrect(Resurrect),
    /// Replace the supervisor with the version of this program; apps keep running
    Update,
    /// Print a systemd unit that starts the saved apps at every boot
    Startup,
    /// Stop all apps and the supervisor
    Kill,
}

/// Arguments of `start`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Start {
    /// A command, a supervisor.toml, or a name or id from the list
    pub what: String,
    /// Number of instances; max or 0 for one per core, -1 for one less [default: 1]
    #[arg(short, long, allow_hyphen_values = true, value_parser = instances)]
    pub instances: Option<u32>,
    /// One log file for all instances and both streams [default: one file each, in the supervisor's folder]
    #[arg(short, long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Start it once more, under another name, if it is in the list
    #[arg(short, long)]
    pub force: bool,
    /// Name in the list [default: the command's]
    #[arg(short, long)]
    pub name: Option<String>,
    /// Program that runs the file, such as node, python3 or bun; none runs it itself [default: by its ending]
    #[arg(long, value_name = "COMMAND")]
    pub interpreter: Option<String>,
    /// Working directory [default: this one]
    #[arg(long, value_name = "FOLDER")]
    pub cwd: Option<PathBuf>,
    /// Listen on ADDR and pass the socket to all instances in LISTEN_FDS
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    #[command(flatten)]
    pub options: Options,
    /// Arguments of the command
    #[arg(last = true)]
    pub arguments: Vec<String>,
}

/// Restart, log and watch options of an app.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Options {
    /// Give up after this many early exits in a row
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
    /// Time between SIGTERM and SIGKILL
    #[arg(short, long, value_name = "TIME", default_value = "12s", value_parser = time)]
    pub kill_timeout: Duration,
    /// Time limit for a new process to send READY=1
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
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = mode)]
    pub log_mode: u32,
    /// Write the logs of all instances to one file
    #[arg(long)]
    pub merge_logs: bool,
    /// Reload the app when its program file changes
    #[arg(long)]
    pub watch: bool,
    /// Do not start a process again that has ended by itself: it is a job
    #[arg(long, conflicts_with = "on_failure")]
    pub no_autorestart: bool,
    /// Start a process again only if it did not exit with 0
    #[arg(long)]
    pub on_failure: bool,
    /// Exit codes after which a process is not started again, such as 0,143
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    pub stop_exit_codes: Vec<i32>,
    /// Name that stands for several apps in other commands
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Scheduling priority, from -20, the highest, to 19
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-20..=19))]
    pub nice: Option<i32>,
    /// A Node program is ready when it calls process.send('ready'), not as soon as it listens
    #[arg(long)]
    pub wait_ready: bool,
    /// Signal that asks a process to end: SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1 or SIGUSR2
    #[arg(long, value_name = "SIGNAL", default_value = "SIGTERM", value_parser = stop_signal)]
    pub stop_signal: StopSignal,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The file
    pub file: PathBuf,
    /// Only this app of the file
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Use the variables of [app.env.NAME] too
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// Delete apps that were started from this file and are not in it any more
    #[arg(long)]
    pub prune: bool,
    /// Print what differs, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Names, ids or all.
#[derive(Debug, Args)]
pub struct Targets {
    /// Names, ids or all
    #[arg(required = true)]
    pub targets: Vec<String>,
}

/// Arguments of `restart` and `reload`.
#[derive(Debug, Args)]
pub struct Change {
    /// Names, ids or all
    #[arg(required = true)]
    pub targets: Vec<String>,
    /// Use the environment of this command from now on
    #[arg(short = 'a', long)]
    pub update_env: bool,
}

/// Arguments of `resurrect`.
#[derive(Debug, Args)]
pub struct Resurrect {
    /// Start them once per boot, and do not wait until they are ready
    #[arg(long)]
    pub boot: bool,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct Output {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// A name, an id or all
    pub target: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `flush`.
#[derive(Debug, Args)]
pub struct Flush {
    /// A name, an id or all
    #[arg(default_value = "all")]
    pub target: String,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// A name, an id or all
    #[arg(default_value = "all")]
    pub target: String,
    /// Number of events to show
    #[arg(long, default_value_t = 50)]
    pub lines: usize,
    /// Keep printing new events
    #[arg(short, long)]
    pub follow: bool,
    /// Print JSON, one line each
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `metrics`.
#[derive(Debug, Args)]
pub struct Metrics {
    /// Serve /metrics on this address, such as 127.0.0.1:9209
    #[arg(long, value_name = "ADDR", conflicts_with = "socket")]
    pub listen: Option<std::net::SocketAddr>,
    /// Serve /metrics on this Unix socket
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The file
    pub file: PathBuf,
    /// Use the variables of [app.env.NAME] too
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// An ecosystem.config.js, .cjs or .json, or the dump.pm2 of `pm2 save`
    pub file: PathBuf,
    /// Write to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `send-signal`.
#[derive(Debug, Args)]
pub struct SendSignal {
    /// Name of the signal
    #[arg(value_parser = signal)]
    pub signal: i32,
    /// Names, ids or all
    #[arg(required = true)]
    pub targets: Vec<String>,
}

/// Arguments of `env`.
#[derive(Debug, Args)]
pub struct Env {
    /// A name or an id
    pub target: String,
    /// Print secrets too
    #[arg(long)]
    pub show: bool,
}

/// Arguments of `completion`.
#[derive(Debug, Args)]
pub struct Completion {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// A name, an id or all
    #[arg(default_value = "all")]
    pub target: String,
    /// Number of lines to show of each log
    #[arg(long, default_value_t = 15)]
    pub lines: usize,
    /// Keep printing new lines
    #[arg(short, long)]
    pub follow: bool,
    /// With --follow: do not mind if there are no apps yet
    #[arg(long, hide = true)]
    pub wait: bool,
    /// Print control characters as they are, on a terminal too
    #[arg(long)]
    pub raw: bool,
}

/// Arguments of `scale`.
#[derive(Debug, Args)]
pub struct Scale {
    /// Name of the app
    pub name: String,
    /// New count, or +N / -N to change it
    #[arg(allow_hyphen_values = true, value_parser = scale)]
    pub size: Size,
}

/// Parses a number of instances.
fn instances(text: &str) -> Result<u32, String> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as i64);
    let number = if text == "max" { Ok(0) } else { text.parse::<i64>() };
    match number {
        Ok(count @ 1..=1000) => Ok(count as u32),
        Ok(less @ -1000..=0) => Ok((cores + less).max(1) as u32),
        _ => Err("expected a number from 1 to 1000, max or 0 for one per core, or -1 for one less".into()),
    }
}

fn scale(text: &str) -> Result<Size, String> {
    let by = || text.parse().map(Size::By);
    let size = if text.starts_with(['+', '-']) { by() } else { text.parse().map(Size::To) };
    size.map_err(|_| "expected a number of instances, or +N, or -N".into())
}

/// Parses a duration of at most a day. The limit keeps additions to clock times from overflowing.
fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= LONGEST => Ok(time),
        Ok(_) => Err("expected at most a day".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Rejects date formats that strftime does not know, and those that would make each line a page.
fn date_format(text: &str) -> Result<String, String> {
    if text.len() > LONGEST_FORMAT {
        return Err(format!("expected at most {LONGEST_FORMAT} characters"));
    }
    jiff::fmt::strtime::format(text, &jiff::Zoned::now()).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Parses permissions, which must let the supervisor write.
fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o666 && mode & 0o111 == 0 && mode & 0o600 == 0o600 => Ok(mode),
        _ => Err("expected permissions such as 600, 640 or 644".into()),
    }
}

/// Parses the name of any signal, with or without SIG, or its number.
fn signal(text: &str) -> Result<i32, String> {
    let name = text.to_ascii_uppercase();
    let known = (1..32).find(|number| {
        let own = signal_hook::low_level::signal_name(*number).unwrap_or_default();
        own == name || own.trim_start_matches("SIG") == name || number.to_string() == name
    });
    known.ok_or_else(|| "expected the name of a signal, such as SIGUSR2".into())
}

/// Parses the name of a signal, with or without SIG.
fn stop_signal(text: &str) -> Result<StopSignal, String> {
    let name = text.to_ascii_uppercase();
    let is_meant = |signal: &StopSignal| signal.name() == name || signal.name()[3..] == name;
    StopSignal::ALL.into_iter().find(is_meant).ok_or_else(|| "expected SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1 or SIGUSR2".into())
}

/// Rejects sizes below a page, at which a log would be rotated more often than written.
fn log_size(text: &str) -> Result<u64, String> {
    size(text).and_then(|bytes| if bytes < SMALLEST_LOG { Err("expected at least 4K".into()) } else { Ok(bytes) })
}

/// Parses a number of bytes, such as `300M`.
fn size(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.char_indices().next_back() {
        Some((end, 'K' | 'k')) => (&text[..end], 1 << 10),
        Some((end, 'M' | 'm')) => (&text[..end], 1 << 20),
        Some((end, 'G' | 'g')) => (&text[..end], 1 << 30),
        _ => (text, 1),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "expected a number of bytes, or a size such as 300K, 300M or 3G".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_valid() {
        Supervisor::command().debug_assert();
    }

    #[test]
    fn sizes_and_numbers_are_parsed_and_nonsense_is_rejected() {
        assert_eq!(size("3K"), Ok(3072));
        assert_eq!(size("5"), Ok(5));
        assert!(["", "M", "0", "-1", "99999999999G"].iter().all(|text| size(text).is_err()));
        assert_eq!((scale("+2"), scale("-1"), scale("4")), (Ok(Size::By(2)), Ok(Size::By(-1)), Ok(Size::To(4))));
        assert!(["", "x", "1001", "-1001"].iter().all(|text| instances(text).is_err()));
        assert_eq!((instances("3"), instances("0"), instances("-1000")), (Ok(3), instances("max"), Ok(1)));
    }
}
