//! The command line.

use crate::catalog::{Allocator, Ask, Filter};
use crate::host::placement::Placement;
use crate::measure::Kind;
use crate::metrics::Percentile;
use crate::report::{Format, Terminal};
use crate::summary::workload::{Share, SlowShare};
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
    /// Start each server and verify its contract: routes, bytes, bad input, drain, exit code
    Check(Check),
    /// Load-test any HTTP server
    Drive(Drive),
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
    /// Null round that says what is noise [default: the newest of this machine with these settings]
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
    /// Kinds of blockers of collateral
    #[arg(long, value_enum, value_delimiter = ',')]
    pub blockers: Vec<Kind>,
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

/// `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Names, or regular expressions over names [default: all]; `harness` checks the harness itself
    pub filters: Vec<String>,
    /// With `harness`: skip the slow null test
    #[arg(long)]
    pub small: bool,
    /// With `harness`: the servers of the null test [default: those of a first look]
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "small")]
    pub servers: Vec<String>,
    /// Folder of the null test's round [default: bench-results/<date>-<host>-null]
    #[arg(long, value_name = "FOLDER", conflicts_with = "small")]
    pub out: Option<PathBuf>,
}

/// `drive`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("pace").required(true))]
pub struct Drive {
    /// Address, such as http://127.0.0.1:8080/
    pub url: String,
    /// Requests per second on a fixed schedule, whatever comes back
    #[arg(long, value_name = "PER SECOND", group = "pace")]
    pub rate: Option<f64>,
    /// Each connection asks again as soon as it is answered
    #[arg(long, group = "pace")]
    pub closed: bool,
    /// Connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// Seconds
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 1, requires = "closed", conflicts_with = "rate", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub pipeline: u16,
    /// Each request on a connection of its own
    #[arg(long, conflicts_with = "pipeline")]
    pub fresh: bool,
    /// Exponential gaps in the schedule instead of even ones
    #[arg(long, requires = "rate", conflicts_with = "closed")]
    pub poisson: bool,
    /// Method
    #[arg(long, default_value = "GET")]
    pub method: String,
    /// A header of every request; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub headers: Vec<(String, String)>,
    /// File whose content is the body of every request
    #[arg(long, value_name = "FILE")]
    pub body: Option<PathBuf>,
    /// The right status [default: that of the first answer, which must be a success]
    #[arg(long, value_name = "STATUS")]
    pub expect_status: Option<u16>,
    /// Every answer must have the body of the first one, byte for byte
    #[arg(long)]
    pub expect_body: bool,
    /// Write a histogram of each second to this file, in HdrHistogram's log format
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// Pin the driver to this core
    #[arg(long)]
    pub core: Option<usize>,
    /// Run the driver as a real-time thread on all cores, as rounds do where cores are few: for low rates only
    #[arg(long, requires = "rate", conflicts_with_all = ["core", "closed"])]
    pub real_time: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The questions to a user's own service.
#[derive(Debug, Args)]
pub struct OwnService {
    /// Path of a request that must stay quick
    #[arg(long, value_name = "PATH")]
    pub probe: Option<Ask>,
    /// Path of a slow request on your server; 'POST /path' for another method
    #[arg(long, value_name = "PATH")]
    pub blocker: Option<Ask>,
    /// A header of both requests; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub headers: Vec<(String, String)>,
    /// Connections of the quick requests [default: 256 to your server, 512 to ours]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: Option<u32>,
}

/// `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Names, or regular expressions over names [default: all servers but peers]
    pub filters: Vec<String>,
    /// Experiments [default: two-tabs, collateral, throughput, footprint]; also dose-response, blocking-functions, latency, scaling, reload
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub experiment: Vec<String>,
    /// Kinds of blockers of collateral [default: sleep, cpu; in a quick round sleep, in a thorough one all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub blockers: Vec<Kind>,
    /// One trial, no intervals: in three minutes once built
    #[arg(long, conflicts_with = "thorough")]
    pub quick: bool,
    /// Eleven trials, all experiments, and the limit of ten seconds: takes hours
    #[arg(long)]
    pub thorough: bool,
    /// Folder of the round [default: bench-results/<date>-<host>]
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Resume the round in --out, or the newest, with its original settings
    #[arg(long, conflicts_with_all = ["quick", "thorough", "trials", "threads", "placement", "seed", "allocator", "experiment", "blockers", "filters"])]
    pub resume: bool,
    /// Trials of each cell
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub trials: Option<u32>,
    /// W: threads or processes of each server [default: one for each of its processors, two at least]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Processors of server and driver
    #[arg(long, value_enum)]
    pub placement: Option<Placement>,
    /// Seed of all random order
    #[arg(long)]
    pub seed: Option<u64>,
    /// Allocators to compare
    #[arg(long, value_enum, default_value = "mimalloc")]
    pub allocator: Allocator,
    /// Measure your own server: a shell command that starts it, with {port} where its port goes
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["url", "filters", "experiment", "resume", "allocator", "peers"])]
    pub command: Option<String>,
    /// Measure the servers of a file of yours, in the format of servers.toml, instead of or besides those that are named
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "url", "resume", "peers"])]
    pub servers_file: Option<PathBuf>,
    /// Measure your own server that is running already; a path in the address is the probe's
    #[arg(long, conflicts_with_all = ["filters", "experiment", "resume", "allocator", "peers"])]
    pub url: Option<String>,
    /// Your own service
    #[command(flatten)]
    pub own: OwnService,
    /// Share of your requests that is slow, such as 5%: with --rate, marks the number of slow requests that you have at a time
    #[arg(long, value_name = "SHARE", requires = "rate")]
    pub slow_share: Option<Share>,
    /// Requests per second that your service gets
    #[arg(long, value_name = "PER SECOND", requires = "slow_share")]
    pub rate: Option<f64>,
    /// Measure your own service alone, without reference servers beside it
    #[arg(long)]
    pub alone: bool,
    /// Include third-party servers
    #[arg(long)]
    pub peers: bool,
    /// Build nothing, and measure what is built
    #[arg(long)]
    pub no_build: bool,
    /// Print the tables as JSON
    #[arg(long)]
    pub json: bool,
    /// Show every column
    #[arg(long)]
    pub wide: bool,
    /// Show the 95 % interval of each median
    #[arg(long)]
    pub intervals: bool,
}

impl Bench {
    /// The load that the user's service has, if the user says.
    pub fn load(&self) -> Option<SlowShare> {
        Some(SlowShare { share: self.slow_share?.0, rate: self.rate? })
    }
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
    /// Draw the response time against the number of blockers into this SVG file instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["format", "tables", "columns"])]
    pub svg: Option<PathBuf>,
    /// Fill in the tables that the marks in this page ask for
    #[arg(long, value_name = "PAGE", conflicts_with_all = ["format", "filters", "percentile", "tables", "columns", "svg"])]
    pub splice: Option<PathBuf>,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let wrong = || format!("'{}' does not have the form 'Name: value'", text.split(':').next().unwrap_or_default());
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let is_token =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    let value = value.trim();
    if !is_token || value.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(wrong());
    }
    Ok((name.to_owned(), value.to_owned()))
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
    fn headers_are_names_and_values_and_a_wrong_one_does_not_show_its_value() {
        assert_eq!(parse_header("X-A: b:c "), Ok(("X-A".into(), "b:c".into())));
        for wrong in ["Authorization secret", "A b: secret", "A: x\r\nB: secret", ": secret"] {
            let error = parse_header(wrong).unwrap_err();
            assert!(error.contains("Name: value"), "{error}");
        }
    }
}
