//! The command line of `deploy`.

use clap::{Args, ValueEnum};
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

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
    pub hosts: Vec<Host>,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080", value_parser = listen)]
    pub listen: SocketAddr,
    /// How HAProxy picks a host
    #[arg(long, value_enum, default_value = "roundrobin")]
    pub balance: Balance,
    /// Container image that has the server's program in its PATH [default: NAME:latest]
    #[arg(long, value_parser = image)]
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

/// A host that files may name as it is, with its port if it has one of its own.
#[derive(Debug, Clone)]
pub struct Host {
    /// IPv6 addresses are in brackets.
    name: String,
    port: Option<u16>,
}

impl Host {
    /// As `HOST:PORT`, with this port unless it has one of its own.
    pub fn with_port(&self, port: u16) -> String {
        format!("{}:{}", self.name, self.port.unwrap_or(port))
    }
}

impl FromStr for Host {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const REFUSAL: &str = "not a host, such as host1, 10.0.0.1:81 or [::1]:81";
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(Host { name: format!("[{text}]"), port: None });
        }
        let colon = text.rfind(':').filter(|at| !text[*at..].contains(']'));
        let (name, port) = text.split_at(colon.unwrap_or(text.len()));
        let port = match port.strip_prefix(':') {
            Some(digits) => Some(nonzero(digits).ok_or("its port is not a number from 1 to 65535")?),
            None => None,
        };
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_host = match address {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(is_label),
        };
        if is_host { Ok(Host { name: name.into(), port }) } else { Err(REFUSAL) }
    }
}

/// A part of a host's name between dots.
fn is_label(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    (1..=63).contains(&text.len()) && is_plain && !text.starts_with('-') && !text.ends_with('-')
}

fn nonzero(digits: &str) -> Option<u16> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| is_number && *port > 0)
}

/// An address that files name, so that the system cannot pick its port.
fn listen(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|error: std::net::AddrParseError| error.to_string())?;
    if address.port() == 0 { Err("name a port above 0".into()) } else { Ok(address) }
}

/// The name of an image, as `[REGISTRY/]NAME[:TAG][@DIGEST]`.
fn image(text: &str) -> Result<String, &'static str> {
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let tag = name.rfind(':').filter(|at| !name[*at..].contains('/'));
    let (name, tag) = tag.map_or((name, None), |at| (&name[..at], Some(&name[at + 1..])));
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if first == "localhost" || first.contains(['.', ':']) => (Some(first), path),
        _ => (None, name),
    };
    let is_word = |text: &str, others: &[u8]| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
    };
    let is_part = |part: &str| {
        is_word(part, b"._-")
            && !part.contains(char::is_uppercase)
            && !part.starts_with(['.', '_', '-'])
            && !part.ends_with(['.', '_', '-'])
    };
    let is_image = registry.is_none_or(|registry| registry.parse::<Host>().is_ok())
        && path.split('/').all(is_part)
        && tag.is_none_or(|tag| is_word(tag, b"._-") && tag.len() <= 128 && !tag.starts_with(['.', '-']))
        && digest
            .is_none_or(|digest| digest.split_once(':').is_some_and(|(kind, hex)| is_word(kind, b"+._-") && is_word(hex, b"")));
    if is_image { Ok(text.into()) } else { Err("not the name of an image, such as registry.example/team/app:1.2") }
}
