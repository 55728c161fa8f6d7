//! The command line, which follows PM2's.

mod options;
mod values;

pub use options::Options;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;
use supervisor::control::Size;
use values::{instances, scale, signal};

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
    Start(Box<Begin>),
    /// Make the list what a supervisor.toml says: what is new starts, what has changed is reloaded
    Apply(Apply),
    /// Stop apps or instances, and keep them in the list
    Stop(Targets),
    /// Stop and start again
    Restart(Change),
    /// Replace one instance after the other, without dropping a request
    Reload(Reload),
    /// Stop, and remove from the list
    #[command(visible_alias = "del")]
    Delete(Targets),
    /// List all instances
    #[command(visible_aliases = ["ls", "status", "ps"], alias = "l")]
    List(Output),
    /// Show all details of apps or instances
    #[command(visible_aliases = ["describe", "info"], alias = "desc")]
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
    #[command(alias = "dash")]
    Monit,
    /// Set the restart counters to zero
    Reset(Targets),
    /// Send a signal, such as SIGUSR2, to the processes of apps or instances
    #[command(visible_alias = "sendSignal")]
    SendSignal(SendSignal),
    /// Print the environment of an app or an instance; values that look like secrets are masked
    Env(Env),
    /// Print the process ids of apps or instances
    Pid(OptionalTarget),
    /// Ask whether the supervisor answers
    Ping,
    /// Print a script that completes commands in a shell
    Completion(Completion),
    /// Empty logs
    Flush(OptionalTarget),
    /// Open all logs anew, after another program has moved them
    #[command(name = "reload-logs", visible_alias = "reloadLogs")]
    ReloadLogs,
    /// Change the number of instances of an app
    Scale(Scale),
    /// Save the list for `resurrect`
    #[command(visible_alias = "dump")]
    Save(Save),
    /// Start the saved apps
    Resurrect(Resurrect),
    /// Replace the supervisor with the version of this program; apps keep running
    #[command(alias = "updatePM2")]
    Update,
    /// Print a systemd unit that starts the saved apps at every boot
    Startup,
    /// Print the commands that remove that unit
    Unstartup,
    /// Stop all apps and the supervisor
    Kill,
}

/// Arguments of `start`.
#[derive(Debug, Args)]
pub struct Begin {
    #[command(flatten)]
    pub start: Start,
    /// With a supervisor.toml: also use the variables of [app.env.NAME]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// With a supervisor.toml: start only these apps
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Vec<String>,
}

/// An app, as a command line or a file describes it.
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
    /// Log file for standard output; later instances have their number before its ending, unless --merge-logs is given
    #[arg(short, long, value_name = "FILE", conflicts_with = "log")]
    pub output: Option<PathBuf>,
    /// Log file for standard error, numbered in the same way
    #[arg(short, long, value_name = "FILE", conflicts_with = "log")]
    pub error: Option<PathBuf>,
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
    /// Listen on ADDR, such as 127.0.0.1:8080 or unix:/run/app.sock, and pass the socket to all instances in LISTEN_FDS
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    #[command(flatten)]
    pub options: Options,
    /// Arguments of the command
    #[arg(last = true)]
    pub arguments: Vec<String>,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The file
    pub file: PathBuf,
    /// Only these apps of the file
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Also use the variables of [app.env.NAME]
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
    /// Delete apps that were started from this file and are not in it any more
    #[arg(long)]
    pub prune: bool,
    /// Print what differs, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Targets.
#[derive(Debug, Args)]
pub struct Targets {
    /// Names, patterns such as 'api-*', namespaces, ids, or all
    #[arg(required = true)]
    pub targets: Vec<String>,
}

/// Arguments of `reload`.
#[derive(Debug, Args)]
pub struct Reload {
    #[command(flatten)]
    pub change: Change,
    /// Number of instances that are replaced at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub parallel: u32,
    /// Run the first new process beside the old one for a while, and go on only if it stays up and does no worse than the others
    #[arg(long)]
    pub canary: bool,
    /// How long it runs beside the old one
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "canary", value_parser = values::time)]
    pub canary_for: Duration,
}

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub struct Change {
    /// Names, patterns such as 'api-*', namespaces, ids, or all
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
    /// A name, a pattern such as 'api-*', a namespace, an id, or all
    pub target: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `flush` and `pid`.
#[derive(Debug, Args)]
pub struct OptionalTarget {
    /// A name, a pattern such as 'api-*', a namespace, an id, or all
    #[arg(default_value = "all")]
    pub target: String,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// A name, a pattern such as 'api-*', a namespace, an id, or all
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
    /// Also use the variables of [app.env.NAME]
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
    /// Names, patterns such as 'api-*', namespaces, ids, or all
    #[arg(required = true)]
    pub targets: Vec<String>,
}

/// Arguments of `env`.
#[derive(Debug, Args)]
pub struct Env {
    /// A name, a pattern such as 'api-*', a namespace, or an id
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
    /// A name, a pattern such as 'api-*', a namespace, an id, or all
    #[arg(default_value = "all")]
    pub target: String,
    /// Number of lines to show of each log
    #[arg(long, default_value_t = 15)]
    pub lines: usize,
    /// Keep printing new lines
    #[arg(short, long)]
    pub follow: bool,
    /// Has no effect; PM2 follows the logs unless this is given
    #[arg(long, hide = true, conflicts_with = "follow")]
    pub nostream: bool,
    /// Show only the logs of standard output
    #[arg(long, conflicts_with = "err")]
    pub out: bool,
    /// Show only the logs of standard error
    #[arg(long)]
    pub err: bool,
    /// Print control characters as they are, on a terminal too
    #[arg(long)]
    pub raw: bool,
}

/// Arguments of `save`.
#[derive(Debug, Args)]
pub struct Save {
    /// Save the list even if it is empty
    #[arg(short, long)]
    pub force: bool,
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use supervisor::spec;

    #[test]
    fn the_command_line_is_valid() {
        Supervisor::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_a_specification() {
        let line = Supervisor::try_parse_from(["supervisor", "start", "app"]).unwrap();
        let Command::Start(begin) = line.command else { panic!("it is another command") };
        assert_eq!(spec::Options::from(&begin.start.options), spec::Options::default());
    }
}
