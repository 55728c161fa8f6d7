//! The command line.

use bench::stage::OwnService;
use clap::Parser;

/// A page where servers run side by side under the same load, live
#[derive(Debug, Parser)]
#[command(name = "stallbench lab", bin_name = "stallbench lab", version)]
pub struct Arguments {
    /// Servers that are shown at first, four at most [default: those of a first look]
    pub servers: Vec<String>,
    /// Port on 127.0.0.1; 0 for a free one
    #[arg(long, default_value_t = 7700)]
    pub port: u16,
    /// A server of your own: a shell command that starts it, with {port} where its port goes
    #[arg(long, conflicts_with = "url")]
    pub command: Option<String>,
    /// A server of your own that is running already
    #[arg(long)]
    pub url: Option<String>,
    /// The requests to press on it
    #[command(flatten)]
    pub own: OwnService,
}
