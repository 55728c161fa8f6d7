//! The command line of `drive`.

use super::bench::{parse_header, up_to};
use clap::Args;
use std::path::PathBuf;

/// `drive`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("pace").required(true))]
pub struct Drive {
    /// Address, such as http://127.0.0.1:8080/
    pub url: String,
    /// Requests per second on a fixed schedule, whatever comes back
    #[arg(long, value_name = "PER SECOND", group = "pace", value_parser = up_to::<1_000_000>)]
    pub rate: Option<f64>,
    /// Closed loop: each connection sends the next request as soon as it is answered
    #[arg(long, group = "pace")]
    pub closed: bool,
    /// Connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// Seconds
    #[arg(long, default_value = "10", value_parser = up_to::<3600>)]
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
    /// Method, in capitals [default: GET, or POST with --body]
    #[arg(long, value_parser = parse_method)]
    pub method: Option<String>,
    /// A header of every request; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub headers: Vec<(String, String)>,
    /// File whose content is the body of every request
    #[arg(long, value_name = "FILE")]
    pub body: Option<PathBuf>,
    /// Seconds that the first answer, which is learned from, may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = up_to::<600>)]
    pub timeout: f64,
    /// The right status [default: that of the first answer, which must be a success]
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(200..=599))]
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
    /// Require that the driver runs as a real-time thread, as it does by itself up to 5,000 requests a second where the system permits that
    #[arg(long, requires = "rate", conflicts_with_all = ["core", "closed"])]
    pub real_time: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn parse_method(text: &str) -> Result<String, String> {
    let is_method = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
    if is_method { Ok(text.to_owned()) } else { Err("it has to be a method in capitals, such as POST".into()) }
}
