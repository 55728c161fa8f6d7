//! The command line.

mod bench;
mod deploy;
mod drive;
mod recording;

pub use bench::{Bench, OwnService};
pub use deploy::{Balance, Deploy, Engine, Host};
pub use drive::Drive;

use crate::catalog::{Allocator, Filter};
use crate::measure::{Kind, Kinds};
use crate::metrics::Percentile;
use crate::report::{Format, Terminal};
use crate::verdict::gate::Gate;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Shows what happens to a service when some of its requests block: one handler on many runtimes, measured side by side
#[derive(Debug, Parser)]
#[command(name = "stallbench", version, arg_required_else_help = true)]
pub struct Cli {
    /// Checkout to work on [default: the one around the current directory, or the one that stallbench was built from]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub root: Option<PathBuf>,
    /// Verb
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs; each has its file in `cmd/`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all servers
    Servers {
        /// Print JSON, with the receipts
        #[arg(long)]
        json: bool,
        /// Show every column
        #[arg(long)]
        wide: bool,
    },
    /// Build servers, each by itself
    Build {
        /// Names, or regular expressions over names [default: all]
        filters: Vec<String>,
        /// Allocators to build with
        #[arg(long, value_enum, default_value = "mimalloc")]
        allocator: Allocator,
    },
    /// Serve until Ctrl-C: a server by name, or a runtime's first
    Serve(Serve),
    /// Start a server as a cluster under the supervisor: a server by name, or a runtime's first
    Start(Start),
    /// Start each server and verify its contract: routes, bytes, bad input, drain, exit code
    Check(Check),
    /// Attack each server with slow, greedy and rude clients; verify that it serves the others and recovers
    Soak(Soak),
    /// Count the system calls and context switches of a request, for each server
    Syscalls(Syscalls),
    /// Print files that run a server under systemd, behind HAProxy, in Kubernetes or with Compose, or that load-test it with k6 or Locust
    Deploy(Deploy),
    /// Set one host against several, on this machine: clusters behind HAProxy, launches in PostgreSQL
    ScaleOut(ScaleOut),
    /// Load-test any HTTP server
    Drive(Drive),
    /// Add what several machines measured with `drive --hlog`, histogram by histogram
    Merge(Merge),
    /// Show what k6 or Locust found with the files of `deploy`, in our tables
    Import(Import),
    /// Measure servers side by side, or your own service beside references
    Bench(Bench),
    /// Measure two versions in turn, trial by trial, and say what differs
    Ab(Ab),
    /// Print the tables of a round
    Tables(Tables),
    /// Compare rounds: what changed, and what is only noise
    Compare(Compare),
    /// Rank the servers of a round; those that cannot be told apart share a rank
    Rank(Rank),
    /// Write a round, or two side by side, as one HTML page to look at
    Report(Report),
    /// Open a page on loopback where servers run side by side under the same load, live
    Lab {
        /// Servers, and options; `lab -- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// What is shown of a round, and how.
#[derive(Debug, Args)]
pub struct Shape {
    /// Only some rows: a regular expression over names, or over a field (server, runtime, model, http, kind, tag, metric); all must match
    #[arg(long = "filter", value_name = "[FIELD=]REGEX")]
    pub filters: Vec<Filter>,
    /// Read the round's histograms at another percentile
    #[arg(long, value_name = "P", default_value = "99")]
    pub percentile: Percentile,
    /// Show every column
    #[arg(long)]
    pub wide: bool,
    /// Show the 95 % interval of each median
    #[arg(long)]
    pub intervals: bool,
    /// Print Markdown
    #[arg(long, group = "format")]
    markdown: bool,
    /// Print CSV
    #[arg(long, group = "format")]
    csv: bool,
    /// Print JSON
    #[arg(long, group = "format")]
    json: bool,
}

impl Shape {
    /// The format that was asked for.
    pub fn format(&self) -> Format {
        match (self.markdown, self.csv, self.json) {
            (true, ..) => Format::Markdown,
            (_, true, _) => Format::Csv,
            (.., true) => Format::Json,
            _ => Format::Text,
        }
    }

    /// The terminal that text is shown on.
    pub fn terminal(&self) -> Terminal {
        Terminal::of_stdout(self.wide, self.intervals)
    }
}

/// Conditions that must not be met.
#[derive(Debug, Args)]
pub struct Gates {
    /// Exit with 3 if a metric changed by more, such as 'p99>10%', or is beyond a bound, such as 'freeze_k<8' or 'p99_ms[4]>50'
    #[arg(long, value_name = "METRIC>N[%]")]
    pub fail_if: Vec<Gate>,
    /// List the metrics that --fail-if can name
    #[arg(long)]
    pub list_metrics: bool,
}

/// `compare`.
#[derive(Debug, Args)]
pub struct Compare {
    /// Rounds, by name or folder; each is compared to the first
    #[arg(required = true, num_args = 2..)]
    pub rounds: Vec<PathBuf>,
    /// Show the cells that do not differ as well
    #[arg(long)]
    pub all: bool,
    /// Gates
    #[command(flatten)]
    pub gates: Gates,
    /// Null round, which measures the noise between identical servers [default: the newest of this machine with these settings]
    #[arg(long, value_name = "ROUND")]
    pub null: Option<PathBuf>,
    /// Shape of the table
    #[command(flatten)]
    pub shape: Shape,
}

/// `ab`.
#[derive(Debug, Args)]
pub struct Ab {
    /// Two git revisions of this checkout, and which servers to build of each
    pub words: Vec<String>,
    /// A binary instead of a revision, twice: a label and its path; then one server names how it is started
    #[arg(long, value_name = "LABEL=PATH", conflicts_with = "command")]
    pub bin: Vec<String>,
    /// Your own server instead, twice: a shell command with {port} where its port goes
    #[arg(long, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Your own service
    #[command(flatten)]
    pub own: OwnService,
    /// Experiments [default: the standard ones]
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "command")]
    pub experiment: Vec<String>,
    /// Kinds of blockers of collateral, as bench names them
    #[arg(long, value_name = "KIND", value_delimiter = ',', conflicts_with = "command")]
    pub blockers: Vec<Kinds>,
    /// Trials of each cell
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub trials: Option<u32>,
    /// Folder of the round [default: bench-results/<date>-<host>-ab]
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Show the cells that do not differ as well
    #[arg(long)]
    pub all: bool,
    /// Gates
    #[command(flatten)]
    pub gates: Gates,
    /// Shape of the table
    #[command(flatten)]
    pub shape: Shape,
}

/// `rank`.
#[derive(Debug, Args)]
pub struct Rank {
    /// Round, by name or folder [default: the newest]
    pub round: Option<PathBuf>,
    /// Kind of blocker
    #[arg(long, value_enum, default_value = "sleep")]
    pub blockers: Kind,
    /// Shape of the table
    #[command(flatten)]
    pub shape: Shape,
}

/// `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Round, by name or folder [default: the newest]
    pub round: Option<PathBuf>,
    /// Another round, which is set against the first
    pub beside: Option<PathBuf>,
    /// File of the page [default: report.html in the folder of the round]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Null round, which measures the noise between identical servers [default: the newest of this machine with these settings]
    #[arg(long, value_name = "ROUND")]
    pub null: Option<PathBuf>,
}

/// `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Server or runtime
    pub name: String,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: String,
    /// Knobs passed on to the server, such as --threads 4; `-- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub knobs: Vec<String>,
}

/// `start`.
#[derive(Debug, Args)]
pub struct Start {
    /// Server or runtime
    pub name: String,
    /// Options of `supervisor start`, such as -i 2; after --, knobs passed on to the server
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

/// `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Names, or regular expressions over names [default: all]; `harness` checks the harness itself, `database` launches in PostgreSQL
    pub filters: Vec<String>,
    /// Check servers as they were built last
    #[arg(long)]
    pub no_build: bool,
    /// With `harness`: skip the slow null test
    #[arg(long)]
    pub small: bool,
    /// With `harness`: the servers of the null test [default: the reference servers]
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "small")]
    pub servers: Vec<String>,
    /// Folder of the null test's round [default: bench-results/<date>-<host>-null]
    #[arg(long, value_name = "FOLDER", conflicts_with = "small")]
    pub out: Option<PathBuf>,
}

/// `soak`.
#[derive(Debug, Args)]
pub struct Soak {
    /// Names, or regular expressions over names [default: all]
    pub filters: Vec<String>,
    /// Seconds of load on each server
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Show every column
    #[arg(long, conflicts_with = "splice")]
    pub wide: bool,
    /// Write the table into this page, between its marks
    #[arg(long, value_name = "PAGE")]
    pub splice: Option<PathBuf>,
}

/// `syscalls`.
#[derive(Debug, Args)]
pub struct Syscalls {
    /// Names, or regular expressions over names [default: all]
    pub filters: Vec<String>,
    /// Print the table as JSON
    #[arg(long)]
    pub json: bool,
    /// Show every column
    #[arg(long)]
    pub wide: bool,
    /// Write the table into this page, between its marks
    #[arg(long, value_name = "PAGE", conflicts_with_all = ["json", "wide"])]
    pub splice: Option<PathBuf>,
}

/// `scale-out`.
#[derive(Debug, Args)]
pub struct ScaleOut {
    /// Server, or a runtime, which stands for its first
    #[arg(default_value = "tokio")]
    pub name: String,
    /// Hosts that are set against one
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=8))]
    pub hosts: u8,
    /// Processes on each host of one core
    #[arg(short, long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub instances: u8,
    /// Trials of each setup
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub trials: u32,
    /// Print the tables as JSON
    #[arg(long, conflicts_with = "splice")]
    pub json: bool,
    /// Show every column
    #[arg(long, conflicts_with = "splice")]
    pub wide: bool,
    /// Write the tables into this page, between its marks
    #[arg(long, value_name = "PAGE")]
    pub splice: Option<PathBuf>,
}

/// `merge`.
#[derive(Debug, Args)]
pub struct Merge {
    /// Logs of `drive --hlog`
    #[arg(required = true, value_name = "FILE", value_parser = recording::recording)]
    pub files: Vec<PathBuf>,
    /// Write one log of all into this file
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// What `k6 run --out json=FILE` or `locust --json-file FILE` wrote, all files of one run
    #[arg(required = true, value_name = "FILE", value_parser = recording::recording)]
    pub files: Vec<PathBuf>,
    /// Name of the row [default: that of the engine]
    #[arg(long)]
    pub name: Option<String>,
    /// Show every column
    #[arg(long)]
    pub wide: bool,
    /// Print the tables as JSON
    #[arg(long)]
    pub json: bool,
}

/// `tables`.
#[derive(Debug, Args)]
pub struct Tables {
    /// Round, by name or folder [default: the newest]
    pub round: Option<PathBuf>,
    /// Shape of the tables
    #[command(flatten)]
    pub shape: Shape,
    /// Only these tables, such as headline, sleep, cpu, costs, footprint
    #[arg(long = "table", value_name = "NAME", value_delimiter = ',')]
    pub tables: Vec<String>,
    /// Only these columns, by their heads
    #[arg(long = "columns", value_name = "HEAD", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Draw a figure into this SVG file instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["format", "tables", "columns"])]
    pub svg: Option<PathBuf>,
    /// Which figure, such as sleep, cpu, footprint, reload [default: the first]
    #[arg(long, value_name = "NAME", requires = "svg")]
    pub figure: Option<String>,
    /// Fill in the tables that the marks in this page ask for
    #[arg(long, value_name = "PAGE", conflicts_with_all = ["format", "filters", "percentile", "tables", "columns", "svg"])]
    pub splice: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn scale_out_takes_options_without_a_server() {
        let parsed = Cli::parse_from(["stallbench", "scale-out", "--trials", "1"]).command;
        assert!(matches!(parsed, Command::ScaleOut(ScaleOut { name, trials: 1, .. }) if name == "tokio"));
    }
}
