//! `stallbench drive`: the load driver alone.

use crate::cli::Drive;
use crate::driver::record::Part;
use crate::driver::{self, Lane, Load, Pace, Report, Target};
use crate::experiment::{Latency, ms};
use crate::host::placement::{Placement, set_of};
use crate::http::client::{Client, get};
use crate::validity;
use anyhow::{Context, Result, bail};
use nix::sched::sched_setaffinity;
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;
use serde::Serialize;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Serialize)]
struct Driven {
    url: String,
    duration_s: f64,
    per_s: f64,
    planned: u64,
    released: u64,
    answered: u64,
    unanswered: u64,
    errors: u64,
    first_error: Option<String>,
    driver_load: f64,
    invalid: Option<String>,
    lag_p99_us: f64,
    lag_p999_us: f64,
    service_p50_us: f64,
    latency: Latency,
    /// By connection, in the order in which they were opened.
    connections: Vec<Part>,
    /// Most memory that this process ever had, in MiB.
    peak_rss_mib: f64,
}

/// Drives a server and prints what came of it.
pub fn run(arguments: &Drive) -> Result<ExitCode> {
    if !(arguments.duration > 0.0 && arguments.duration <= 3600.0) {
        bail!("--duration takes seconds from 0 to 3600, not {}", arguments.duration);
    }
    if let Some(rate) = arguments.rate.filter(|rate| !(*rate > 0.0 && *rate <= 1e6)) {
        bail!("--rate takes requests per second from 0 to 1000000, not {rate}");
    }
    let target = learn(&arguments.url)?;
    if let Some(core) = arguments.core {
        sched_setaffinity(Pid::from_raw(0), &set_of(&[core])).with_context(|| format!("cannot run on core {core}"))?;
    }
    let real_time = arguments.real_time.then(|| Placement::Shared.enter_driver(true));
    if real_time.as_ref().is_some_and(|driver| !driver.is_real_time()) {
        bail!("--real-time: the system does not permit SCHED_FIFO; run as root, or with CAP_SYS_NICE");
    }
    let pace = match arguments.rate {
        Some(rate) => Pace::Open { rate, is_poisson: arguments.poisson },
        None => Pace::Closed { depth: arguments.pipeline.into(), stagger: Duration::ZERO, most: None, think: Duration::ZERO },
    };
    let connections = arguments.connections as usize;
    let load = Load {
        lanes: vec![Lane {
            target,
            pace,
            connections,
            is_fresh: arguments.fresh,
            is_introduced: false,
            keeps_samples: false,
            may_fail: false,
        }],
        warmup: Duration::from_secs_f64(arguments.duration.min(1.0) / 10.0),
        window: Duration::from_secs_f64(arguments.duration),
        grace: Duration::from_secs(2),
        give_up: None,
        // A driver with a core of its own may spin on it.
        spin: if arguments.core.is_some() { Placement::Split.spin() } else { Placement::Shared.spin() },
        seed: 0,
    };
    let driven = summarize(&arguments.url, &driver::run(&load)?);
    let is_valid = driven.invalid.is_none();
    super::print(&if arguments.json { serde_json::to_string_pretty(&driven)? + "\n" } else { describe(&driven) });
    Ok(if is_valid { ExitCode::SUCCESS } else { ExitCode::from(crate::SOME_FAILED) })
}

/// Asks once: what comes back now is what must come back under load.
fn learn(url: &str) -> Result<Target> {
    let (address, path) = parse(url)?;
    let request = get(&path);
    let answer = Client::connect(address).and_then(|mut client| client.ask(&request)).with_context(|| url.to_owned())?;
    Ok(Target { address, request, status: answer.status, body: Some(answer.body) })
}

/// Address and path of a URL.
///
/// # Errors
/// Anything but `http://HOST[:PORT][/PATH]`, or a host that cannot be found.
pub fn parse(url: &str) -> Result<(SocketAddr, String)> {
    let Some(rest) = url.strip_prefix("http://") else { bail!("'{url}' is no address of the form http://HOST:PORT/PATH") };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let authority = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let mut addresses = authority.to_socket_addrs().with_context(|| format!("cannot find {authority}"))?;
    let address = addresses.next().with_context(|| format!("{authority} has no address"))?;
    Ok((address, format!("/{path}")))
}

fn summarize(url: &str, report: &Report) -> Driven {
    let lane = &report.lanes[0];
    let us = |times: &driver::record::Times, quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    Driven {
        url: url.into(),
        duration_s: report.window.as_secs_f64(),
        per_s: report.per_second(0),
        planned: lane.planned,
        released: lane.released,
        answered: lane.answered,
        unanswered: lane.unanswered,
        errors: lane.errors,
        first_error: lane.first_error.clone(),
        driver_load: report.driver_load,
        invalid: validity::of_lane(report, 0).err().map(|failure| failure.to_string()),
        lag_p99_us: us(&lane.lag, 0.99),
        lag_p999_us: us(&lane.lag, 0.999),
        service_p50_us: us(&lane.service, 0.5),
        latency: Latency::of(lane),
        connections: lane.by_connection.clone(),
        peak_rss_mib: getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| usage.max_rss() as f64 / 1024.0),
    }
}

fn describe(driven: &Driven) -> String {
    let latency = &driven.latency;
    let time = |us: f64| ms(Duration::from_secs_f64(us / 1e6));
    let mut text = format!(
        "{}: {:.0} answers/s over {} s\n  response time ms: p50 {:.3}, p99 {:.3}, max {:.3}\n  driver: {:.0} % of its core, lag p99 {:.1} µs\n",
        driven.url,
        driven.per_s,
        driven.duration_s,
        time(latency.p50_us),
        time(latency.p99_us),
        time(latency.max_us),
        driven.driver_load * 100.0,
        driven.lag_p99_us,
    );
    if driven.unanswered > 0 {
        text.push_str(&format!("  {} requests were not answered; they count with their age\n", driven.unanswered));
    }
    if let Some(reason) = &driven.invalid {
        text.push_str(&format!("  invalid({reason})\n"));
    }
    text
}
