//! The command line.

use crate::catalog::Allocator;
use crate::experiment::Kind;
use crate::host::placement::Placement;
use crate::report::Format;
use crate::report::numbers::Percentile;
use crate::round::filter::Filter;
use crate::verdict::gate::Gate;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// What happens to a service when some of its requests block: one server on many runtimes, measured side by side
#[derive(Debug, Parser)]
#[command(name = "stallbench", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs; each has its file in `cmd/`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the servers there are
    Servers {
        /// Print JSON, with the receipts
        #[arg(long)]
        json: bool,
    },
    /// Build servers, each by itself
    Build {
        /// Names, or regular expressions over names [default: all]
        filters: Vec<String>,
        /// Which allocators
        #[arg(long, value_enum, default_value = "mimalloc")]
        allocator: Allocator,
    },
    /// Serve until Ctrl-C: a server by name, or a runtime's first
    Serve(Serve),
    /// Start each server and verify its contract: routes, bytes, bad input, drain, exit code
    Check(Check),
    /// Put a load on any HTTP server
    Drive(Drive),
    /// Measure servers side by side; prints the tables and adds a round to bench-results/
    Bench(Bench),
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
    /// Only some rows: a regular expression over names, or over a field (server, runtime, model, http, kind, metric); all must match
    #[arg(long = "filter", value_name = "[FIELD=]REGEX")]
    pub filters: Vec<Filter>,
    /// Read the round's histograms at another percentile
    #[arg(long, value_name = "P", default_value = "99")]
    pub percentile: Percentile,
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
}

/// `compare`.
#[derive(Debug, Args)]
pub struct Compare {
    /// Folders of rounds; the first is the one that the others are compared to
    #[arg(required = true, num_args = 2..)]
    pub rounds: Vec<PathBuf>,
    /// Show the cells that do not differ as well
    #[arg(long)]
    pub all: bool,
    /// Exit with 3 if a metric differs by more than this, such as 'p99>10%' or 'per_s<-5%'
    #[arg(long, value_name = "METRIC>N%")]
    pub fail_if: Vec<Gate>,
    /// The null round that says what is noise [default: the newest of this machine in bench-results/]
    #[arg(long, value_name = "ROUND")]
    pub null: Option<PathBuf>,
    /// What to show
    #[command(flatten)]
    pub shape: Shape,
}

/// `rank`.
#[derive(Debug, Args)]
pub struct Rank {
    /// Folder of the round [default: the newest]
    pub round: Option<PathBuf>,
    /// Beside which blockers
    #[arg(long, value_enum, default_value = "sleep")]
    pub blockers: Kind,
    /// What to show
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
    /// Of the harness, only what takes seconds: no null test
    #[arg(long)]
    pub small: bool,
    /// Folder of the null test's round [default: bench-results/<date>-<host>-null]
    #[arg(long, value_name = "FOLDER", conflicts_with = "small")]
    pub out: Option<PathBuf>,
}

/// `drive`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("pace").required(true))]
pub struct Drive {
    /// What to ask, such as http://127.0.0.1:8080/
    pub url: String,
    /// Requests per second at planned instants, whatever comes back
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
    #[arg(long, default_value_t = 1, requires = "closed", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub pipeline: u16,
    /// Each request on a connection of its own
    #[arg(long)]
    pub fresh: bool,
    /// Exponential gaps between planned instants instead of even ones
    #[arg(long, requires = "rate")]
    pub poisson: bool,
    /// Pin the driver to this core
    #[arg(long)]
    pub core: Option<usize>,
    /// Run the driver as a real-time thread on all cores, as rounds do where cores are few: for low rates only
    #[arg(long, requires = "rate", conflicts_with = "core")]
    pub real_time: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Names, or regular expressions over names [default: all servers but peers]
    pub filters: Vec<String>,
    /// Experiments: two-tabs, collateral, throughput, footprint [default: these]; dose-response, blocking-functions, latency, scaling, reload
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub experiment: Vec<String>,
    /// What the blockers of collateral do [default: sleep, cpu; of a quick round sleep, of a thorough one all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub blockers: Vec<Kind>,
    /// One trial, no intervals: in three minutes once built
    #[arg(long, conflicts_with = "thorough")]
    pub quick: bool,
    /// Ten trials, all experiments, and the limit of ten seconds: takes hours
    #[arg(long)]
    pub thorough: bool,
    /// Folder of the round [default: bench-results/<date>-<host>]
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Go on with the round in --out, or with the newest one, as it was begun
    #[arg(long, conflicts_with_all = ["quick", "thorough", "trials", "threads", "placement", "seed", "allocator", "experiment", "blockers", "filters"])]
    pub resume: bool,
    /// Trials of each cell
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub trials: Option<u32>,
    /// W: threads or processes of each server [default: one for each core, two at least]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Where server and driver run
    #[arg(long, value_enum)]
    pub placement: Option<Placement>,
    /// Seed of all random order
    #[arg(long)]
    pub seed: Option<u64>,
    /// Which allocators to compare
    #[arg(long, value_enum, default_value = "mimalloc")]
    pub allocator: Allocator,
    /// Measure a server of yours instead: how to start it, with {port} where its port goes
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["url", "filters", "experiment", "resume", "allocator", "peers"])]
    pub command: Option<String>,
    /// Measure the servers of a file instead, or besides those that are named: a servers.toml of yours
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "url", "resume", "peers"])]
    pub servers_file: Option<PathBuf>,
    /// Measure a server of yours that runs already
    #[arg(long, conflicts_with_all = ["filters", "experiment", "resume", "allocator", "peers"])]
    pub url: Option<String>,
    /// Of yours: the path of a request that must stay quick
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub probe: String,
    /// Of yours: the path of a request that is slow
    #[arg(long, value_name = "PATH")]
    pub blocker: Option<String>,
    /// Include other people's servers
    #[arg(long)]
    pub peers: bool,
    /// Measure what is built and build nothing
    #[arg(long)]
    pub no_build: bool,
    /// Print the tables as JSON
    #[arg(long)]
    pub json: bool,
}

/// `tables`.
#[derive(Debug, Args)]
pub struct Tables {
    /// Folder of the round [default: the newest]
    pub round: Option<PathBuf>,
    /// What to show
    #[command(flatten)]
    pub shape: Shape,
    /// Only these tables: headline, sleep, cpu, pbkdf2, costs, dose-response, blocking-functions, latency, scaling, reload
    #[arg(long = "table", value_name = "NAME", value_delimiter = ',')]
    pub tables: Vec<String>,
    /// Write what the marks in this page ask for between them: the headline, or the tables of a command
    #[arg(long, value_name = "PAGE", conflicts_with_all = ["format", "filters", "percentile", "tables"])]
    pub splice: Option<PathBuf>,
}
