//! The command line of `deploy`.

use clap::{Args, ValueEnum};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// `deploy`.
#[derive(Debug, Args)]
pub struct Deploy {
    /// What runs it
    #[arg(value_enum)]
    pub engine: Engine,
    /// Server or runtime
    pub name: String,
    /// Threads or processes on each host; for k6 and Locust, load generators
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub instances: u16,
    /// Hosts behind the balancer, each with its port if it has one of its own; Kubernetes and Compose take their number, k6 and Locust send to the
    /// first
    #[arg(long, value_name = "HOST", value_delimiter = ',', default_values = ["host1", "host2"])]
    pub hosts: Vec<String>,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// How HAProxy picks a host
    #[arg(long, value_enum, default_value = "roundrobin")]
    pub balance: Balance,
    /// Container image that has the server's program in its PATH [default: NAME:latest]
    #[arg(long)]
    pub image: Option<String>,
    /// Write the files into this folder instead of printing them
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Knobs passed on to the server, such as `-- --state sqlite:launches.db`
    #[arg(last = true)]
    pub knobs: Vec<String>,
}

/// An engine that keeps servers running, or distributes requests to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// A socket and a service
    Systemd,
    /// A balancer with health checks
    Haproxy,
    /// A Deployment, a Service and a disruption budget
    Kubernetes,
    /// Containers behind HAProxy, on one machine
    Compose,
    /// The collateral experiment, for k6 on several load generators
    K6,
    /// The collateral experiment, for Locust on several load generators
    Locust,
}

/// How HAProxy picks a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Balance {
    /// Each in turn
    RoundRobin,
    /// The one with the fewest connections
    LeastConn,
}

/// As HAProxy spells it.
impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Balance::RoundRobin => "roundrobin",
            Balance::LeastConn => "leastconn",
        })
    }
}
