//! The command line, in PM2's words.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;
use supervisor::control::Size;

/// Longest time of an option.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Starts any server of the workspace, or any command, as a cluster; keeps it alive; replaces it without anyone noticing
#[derive(Debug, Parser)]
#[command(name = "supervisor", version, disable_help_subcommand = true)]
pub struct Supervisor {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a server of the workspace, a command, or what is stopped
    Start(Box<Start>),
    /// End names, ids or all, and keep them in the list
    Stop(Targets),
    /// End and start anew
    Restart(Change),
    /// Replace one instance after the other, without dropping a request
    Reload(Change),
    /// End and forget
    #[command(visible_alias = "del")]
    Delete(Targets),
    /// What there is
    #[command(visible_aliases = ["ls", "status", "ps"])]
    List(Output),
    /// Everything about a name, an id or all
    #[command(visible_aliases = ["describe", "info"])]
    Show(Show),
    /// What it writes
    #[command(visible_alias = "log")]
    Logs(Logs),
    /// Processes, what they use and what they write, on the whole terminal
    Monit,
    /// Empty logs
    Flush(Flush),
    /// Run an app by more or fewer instances
    Scale(Scale),
    /// Keep what there is for `resurrect`
    #[command(visible_alias = "dump")]
    Save,
    /// Start what was saved
    Resurrect,
    /// Print a systemd unit that starts what was saved at every boot
    Startup,
    /// End everything, the supervisor included
    Kill,
}

/// `start`.
#[derive(Debug, Args)]
pub struct Start {
    /// A server (`smol`, `tokio-forked`), a command, a name or id of the list, or a supervisor.toml
    pub what: String,
    /// Instances: a number, or max for one per core [default: 1]
    #[arg(short, long, value_parser = instances)]
    pub instances: Option<u32>,
    /// File of the logs, of all instances and both streams [default: a file each, in the supervisor's folder]
    #[arg(short, long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Name in the list [default: that of the server or the command]
    #[arg(short, long)]
    pub name: Option<String>,
    /// Listen there and share it among the instances, which take it over by LISTEN_FDS; servers of the workspace: 127.0.0.1:8080
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    #[command(flatten)]
    pub options: Options,
    /// Arguments of the command
    #[arg(last = true)]
    pub arguments: Vec<String>,
}

/// How it is kept.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Ends too soon, in a row, after which it is given up
    #[arg(long, default_value_t = 16)]
    pub max_restarts: u32,
    /// What ends sooner has ended too soon
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    pub min_uptime: Duration,
    /// Pause before the third start in a row, doubled each time, up to 15 s
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time)]
    pub restart_delay: Duration,
    /// Replace an instance whose resident memory is more, such as 300M
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_memory_restart: Option<u64>,
    /// Time between SIGTERM and SIGKILL
    #[arg(short, long, value_name = "TIME", default_value = "12s", value_parser = time)]
    pub kill_timeout: Duration,
    /// Time to say READY=1
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = time)]
    pub listen_timeout: Duration,
    /// Size at which a log file is rotated, 4K at least
    #[arg(long, value_name = "SIZE", default_value = "10M", value_parser = log_size)]
    pub log_max_size: u64,
    /// Rotated files that are kept of each log
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub log_keep: u32,
    /// Put the date before each line, as strftime has it
    #[arg(long, value_name = "FORMAT")]
    pub log_date_format: Option<String>,
    /// One log for all instances
    #[arg(long)]
    pub merge_logs: bool,
    /// Reload when the file of the program changes
    #[arg(long)]
    pub watch: bool,
}

/// Names, ids or all.
#[derive(Debug, Args)]
pub struct Targets {
    /// Names, ids or all
    #[arg(required = true)]
    pub targets: Vec<String>,
}

/// `restart` and `reload`.
#[derive(Debug, Args)]
pub struct Change {
    /// Names, ids or all
    #[arg(required = true)]
    pub targets: Vec<String>,
    /// Take on the environment of this command
    #[arg(short = 'a', long)]
    pub update_env: bool,
}

/// `list`.
#[derive(Debug, Args)]
pub struct Output {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// A name, an id or all
    pub target: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `flush`.
#[derive(Debug, Args)]
pub struct Flush {
    /// A name, an id or all
    #[arg(default_value = "all")]
    pub target: String,
}

/// `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// A name, an id or all
    #[arg(default_value = "all")]
    pub target: String,
    /// Lines of each log
    #[arg(long, default_value_t = 15)]
    pub lines: usize,
    /// Go on with what comes
    #[arg(short, long)]
    pub follow: bool,
}

/// `scale`.
#[derive(Debug, Args)]
pub struct Scale {
    /// A name
    pub name: String,
    /// So many, or +N more, or -N less
    #[arg(allow_hyphen_values = true, value_parser = scale)]
    pub size: Size,
}

/// A number of instances.
fn instances(text: &str) -> Result<u32, String> {
    match text {
        "max" => Ok(std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)),
        _ => match text.parse() {
            Ok(count @ 1..=1000) => Ok(count),
            _ => Err("a number from 1 to 1000, or max for one per core".into()),
        },
    }
}

fn scale(text: &str) -> Result<Size, String> {
    let by = || text.parse().map(Size::By);
    let size = if text.starts_with(['+', '-']) { by() } else { text.parse().map(Size::To) };
    size.map_err(|_| "a number of instances, or +N, or -N".into())
}

/// A time, a day at most: it is added to clocks.
fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= LONGEST => Ok(time),
        Ok(_) => Err("a day at most".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Below a page a log would be rotated more often than it is written.
fn log_size(text: &str) -> Result<u64, String> {
    size(text).and_then(|bytes| if bytes < 4096 { Err("4K at least".into()) } else { Ok(bytes) })
}

/// Bytes, such as `300M`.
fn size(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.char_indices().next_back() {
        Some((end, 'K' | 'k')) => (&text[..end], 1 << 10),
        Some((end, 'M' | 'm')) => (&text[..end], 1 << 20),
        Some((end, 'G' | 'g')) => (&text[..end], 1 << 30),
        _ => (text, 1),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "bytes, or such as 300K, 300M, 3G".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Supervisor::command().debug_assert();
    }

    #[test]
    fn sizes_and_numbers_are_read_and_nonsense_is_not() {
        assert_eq!(size("3K"), Ok(3072));
        assert_eq!(size("5"), Ok(5));
        assert!(["", "M", "0", "-1", "99999999999G"].iter().all(|text| size(text).is_err()));
        assert_eq!((scale("+2"), scale("-1"), scale("4")), (Ok(Size::By(2)), Ok(Size::By(-1)), Ok(Size::To(4))));
        assert!(["0", "x", "-1", "1001"].iter().all(|text| instances(text).is_err()));
    }
}
