//! The command line of `bench`, and of a user's own service.

use crate::catalog::{Allocator, Ask};
use crate::host::placement::Placement;
use crate::measure::Kinds;
use crate::summary::workload::{Share, SlowShare};
use clap::Args;
use std::path::PathBuf;

/// The questions to a user's own service.
#[derive(Debug, Default, Args)]
pub struct OwnService {
    /// Path of a request that must stay quick
    #[arg(long, value_name = "PATH")]
    pub probe: Option<Ask>,
    /// Path of a slow request on your server; 'POST /path' for another method
    #[arg(long, value_name = "PATH")]
    pub blocker: Option<Ask>,
    /// File whose content is the body of the quick request, which is a POST then unless --probe names another method
    #[arg(long, value_name = "FILE", requires = "blocker")]
    pub probe_body: Option<PathBuf>,
    /// The same for the slow request
    #[arg(long, value_name = "FILE", requires = "blocker")]
    pub blocker_body: Option<PathBuf>,
    /// A header of both requests; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub headers: Vec<(String, String)>,
    /// Connections of the quick requests [default: 256 to your server, 512 to ours]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: Option<u32>,
}

impl OwnService {
    /// The first word about requests that is given, by its name.
    pub fn first_word(&self) -> Option<&'static str> {
        let header = (!self.headers.is_empty()).then_some("--header");
        self.first_question().or(header)
    }

    /// The same of those that say which requests are asked.
    pub fn first_question(&self) -> Option<&'static str> {
        let given = [
            ("--probe", self.probe.is_some()),
            ("--blocker", self.blocker.is_some()),
            ("--probe-body", self.probe_body.is_some()),
            ("--blocker-body", self.blocker_body.is_some()),
        ];
        given.into_iter().find_map(|(name, is_given)| is_given.then_some(name))
    }
}

/// `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Names, or regular expressions over names [default: all servers that build with Rust alone, except those measured only by name]
    pub filters: Vec<String>,
    /// Experiments [default: two-tabs, collateral, throughput, footprint]; also dose-response, blocking-functions, latency, scaling, reload, state, handoff-cost, rendezvous
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub experiment: Vec<String>,
    /// Kinds of blockers of collateral: sleep, cpu, pbkdf2, or launches, which saves launches in each backend that is installed (one of
    /// them: launches-memory, launches-sqlite, launches-sqlite-full, launches-postgres) [default: sleep, cpu; in a quick round sleep, in a
    /// thorough one pbkdf2 as well]
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub blockers: Vec<Kinds>,
    /// One trial without variants, sleeping blockers only: about six minutes once built
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
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["url", "filters", "experiment", "blockers", "resume", "allocator", "peers"])]
    pub command: Option<String>,
    /// Measure the servers of a file of yours, in the format of servers.toml, instead of or besides those that are named
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command", "url", "resume", "peers"])]
    pub servers_file: Option<PathBuf>,
    /// Measure your own server that is running already; a path in the address is the probe's
    #[arg(long, conflicts_with_all = ["filters", "experiment", "blockers", "resume", "allocator", "peers"])]
    pub url: Option<String>,
    /// Your own service
    #[command(flatten)]
    pub own: OwnService,
    /// Share of your requests that is slow, such as 5%: with --rate, marks the number of slow requests that you have at a time
    #[arg(long, value_name = "SHARE", requires = "rate")]
    pub slow_share: Option<Share>,
    /// Requests per second that your service gets
    #[arg(long, value_name = "PER SECOND", requires = "slow_share", value_parser = up_to::<1_000_000>)]
    pub rate: Option<f64>,
    /// Measure your own service alone, without reference servers beside it
    #[arg(long)]
    pub alone: bool,
    /// Include third-party servers in other languages, too
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

/// The least rate, per second, and the least time, in seconds: below it nothing can be measured.
const LEAST: f64 = 0.001;

/// A number from the least up to the greatest.
pub(super) fn up_to<const MOST: u32>(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (LEAST..=f64::from(MOST)).contains(number));
    number.ok_or_else(|| format!("it has to be a number from {LEAST} to {MOST}"))
}

pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    let wrong = || format!("'{}' does not have the form 'Name: value'", text.split(':').next().unwrap_or_default());
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let is_token =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    let value = value.trim();
    if !is_token || value.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(wrong());
    }
    if ["content-length", "transfer-encoding"].iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
        return Err(format!("{name} follows from the body, so it cannot be set"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::Parser;

    #[test]
    fn numbers_are_large_enough_to_be_measured_and_end_somewhere() {
        assert_eq!(up_to::<3600>("0.5"), Ok(0.5));
        for wrong in ["0", "1e-300", "1e-10", "-1", "nan", "inf", "3601", "ten", ""] {
            assert!(up_to::<3600>(wrong).unwrap_err().contains("from 0.001 to 3600"), "{wrong}");
        }
    }

    #[test]
    fn headers_that_frame_the_body_are_refused() {
        for wrong in ["Content-Length: 5", "transfer-encoding: chunked"] {
            assert!(parse_header(wrong).unwrap_err().contains("follows from the body"));
        }
    }

    #[test]
    fn headers_are_names_and_values_and_a_wrong_one_does_not_show_its_value() {
        assert_eq!(parse_header("X-A: b:c "), Ok(("X-A".into(), "b:c".into())));
        for wrong in ["Authorization secret", "A b: secret", "A: x\r\nB: secret", ": secret"] {
            let error = parse_header(wrong).unwrap_err();
            assert!(error.contains("Name: value"), "{error}");
        }
    }

    #[test]
    fn what_a_service_of_ones_own_cannot_take_is_refused() {
        for more in [["--blockers", "cpu"], ["--experiment", "footprint"], ["--allocator", "both"]] {
            let fixed = ["stallbench", "bench", "--command", "x {port}", "--blocker", "/slow"];
            let refused = Cli::try_parse_from(fixed.into_iter().chain(more)).unwrap_err().to_string();
            assert!(refused.contains(more[0]), "{refused}");
        }
    }
}
