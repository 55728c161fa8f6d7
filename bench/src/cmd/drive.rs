//! `stallbench drive`: the load driver alone.

use super::exit_code;
use crate::catalog::{MOST_BODY_MIB, read_named};
use crate::cli::Drive;
use crate::console::interrupt;
use crate::console::output::{print, say};
use crate::driver::Sockets;
use crate::host::placement::{Placement, set_of};
use crate::http::{Client, Request, Url};
use crate::load::{Drive as _, Lane, Load, Observation, Pace, Part, Target, Times};
use crate::measure::{Latency, of_first, refusal, write_seconds};
use crate::metrics::{LIMITS_MS, Percentile, Value};
use crate::report::significant;
use crate::validity;
use anyhow::{Context, Result, bail};
use nix::sched::sched_setaffinity;
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{Pid, Uid};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Up to this many requests a second the driver runs in real time where that is permitted: it takes little, and must be on time.
const REAL_TIME_RATE: f64 = 5000.0;
/// Answers are waited for this many times as long as the first one took.
const PATIENCE: u32 = 3;
/// A response time of more than this many times the service time was mostly spent waiting for a connection.
const WAITED: f64 = 2.0;
/// The same of p99, of which the service time has its own queues.
const TURNS: f64 = 3.0;
/// In a closed loop, a longest response time of this many times p99 is called a stall.
const STALL: f64 = 10.0;

#[derive(Serialize)]
struct Driven {
    url: String,
    duration_s: f64,
    per_s: f64,
    planned: u64,
    answered: u64,
    unanswered: u64,
    errors: u64,
    first_error: Option<String>,
    /// Times that bytes came which nobody had asked for.
    unasked: u64,
    statuses: BTreeMap<u16, u64>,
    /// Requests sent again since their connection closed before any byte of the answer.
    resent: u64,
    /// Connections that the server closed while they were idle.
    idle_closes: u64,
    /// Attempts to connect that were refused.
    refused: u64,
    first_refusal: Option<String>,
    is_cut_short: bool,
    driver_load: f64,
    invalid: Option<String>,
    lag_p99_us: f64,
    lag_p999_us: f64,
    lag_max_us: f64,
    read_lag_p99_us: f64,
    service_p50_us: f64,
    service_p99_us: f64,
    latency: Latency,
    /// By connection, in the order in which they were opened.
    connections: Vec<Part>,
    /// Most memory that this process ever had, in MiB.
    peak_rss_mib: f64,
}

/// Drives a server and prints what came of it.
///
/// # Errors
/// A load that cannot be put on; what the server does wrong is told by the exit code.
pub fn run(arguments: &Drive) -> Result<ExitCode> {
    // Found out now, and not when the measurement is over.
    let log = arguments.hlog.as_deref().map(LogFile::open).transpose()?;
    let (target, alone) = learn(arguments)?;
    if let Some(core) = arguments.core {
        sched_setaffinity(Pid::from_raw(0), &set_of(&[core])).with_context(|| format!("cannot run on core {core}"))?;
    }
    let is_slow = arguments.core.is_none() && arguments.rate.is_some_and(|rate| rate <= REAL_TIME_RATE);
    let real_time = (is_slow || arguments.real_time).then(|| Placement::Shared.enter_driver(true));
    if arguments.real_time && real_time.as_ref().is_some_and(|driver| !driver.is_real_time()) {
        bail!("--real-time: the system does not permit SCHED_FIFO; run as root, or with CAP_SYS_NICE");
    }
    let seen = Sockets.drive(&load(arguments, target, alone))?;
    let driven = summarize(&arguments.url, &seen);
    if driven.planned == 0 && arguments.rate.is_some() && !driven.is_cut_short {
        bail!("no request was due: {} s at {} a second are too short", arguments.duration, arguments.rate.unwrap_or(0.0));
    }
    print(&if arguments.json { serde_json::to_string_pretty(&driven)? + "\n" } else { describe(&driven, arguments) })?;
    if let Some(log) = log
        && !(seen.is_cut_short && seen.lanes[0].seconds.is_empty())
    {
        log.write(&seen)?;
    }
    if driven.is_cut_short {
        say("stallbench: interrupted: the run was cut short, and this is what came of it until then");
        return Ok(ExitCode::from(interrupt::exit_code()));
    }
    Ok(exit_code(driven.invalid.is_none() && driven.errors == 0 && driven.unasked == 0 && driven.unanswered == 0))
}

/// A log that can be written. Dropped, it is as it was before, unless it was written.
struct LogFile<'p> {
    path: &'p Path,
    /// A pipe has a reader that would take a second opening for another log.
    _open: File,
    is_new: bool,
}

impl<'p> LogFile<'p> {
    fn open(path: &'p Path) -> Result<Self> {
        let is_new = !path.exists();
        let open = File::options().append(true).create(true).open(path);
        let open = open.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(LogFile { path, _open: open, is_new })
    }

    fn write(mut self, seen: &Observation) -> Result<()> {
        self.is_new = false;
        write_seconds(self.path, seen).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

impl Drop for LogFile<'_> {
    fn drop(&mut self) {
        if self.is_new {
            let _ = fs::remove_file(self.path);
        }
    }
}

/// The load; `alone` is the time that the request takes without it.
fn load(arguments: &Drive, target: Target, alone: Duration) -> Load {
    let pace = match arguments.rate {
        Some(rate) => Pace::Open { rate, is_poisson: arguments.poisson },
        None => Pace::Closed { depth: arguments.pipeline.into(), stagger: Duration::ZERO, most: None, think: Duration::ZERO },
    };
    let connections = arguments.connections as usize;
    let lane = Lane { pace, is_fresh: arguments.fresh, retries: true, ..Lane::closed(target, connections, 1) };
    // A driver with a core of its own may spin on it.
    let spin = if arguments.core.is_some() { Placement::Split.spin() } else { Placement::Shared.spin() };
    let usual = Load::of(vec![lane], Duration::from_secs_f64(arguments.duration), 0);
    Load {
        warmup: Duration::from_secs_f64(arguments.duration.min(1.0) / 10.0),
        grace: usual.grace.max(alone * PATIENCE),
        spin,
        keeps_seconds: arguments.hlog.is_some(),
        can_be_cut_short: true,
        ..usual
    }
}

/// Asks once, and says how long that took: the status that comes back now must come back under load.
fn learn(arguments: &Drive) -> Result<(Target, Duration)> {
    let url = Url::parse(&arguments.url)?;
    let address = url.resolve()?;
    let body = arguments.body.as_deref().map(|path| read_named(path, MOST_BODY_MIB)).transpose()?;
    let request = Request {
        method: arguments.method.clone().unwrap_or_else(|| if arguments.body.is_some() { "POST" } else { "GET" }.into()),
        headers: arguments.headers.clone(),
        body,
        ..Request::get(url.authority, url.path)
    };
    let bytes = request.to_bytes();
    let asked = Instant::now();
    let patience = Duration::from_secs_f64(arguments.timeout);
    let mut client = Client::connect_with(address, patience).with_context(|| arguments.url.clone())?;
    let response =
        client.ask(&bytes).map_err(of_first).with_context(|| format!("{} (--timeout {})", arguments.url, arguments.timeout))?;
    let took = asked.elapsed();
    let status = response.status;
    match arguments.expect_status {
        Some(wanted) if wanted != status => bail!("{} is answered {status}, not {wanted}", arguments.url),
        None if status >= 300 => {
            let refusal = refusal(&response, "check the path");
            bail!("{} is answered {refusal}; or say --expect-status {status} if that is right", arguments.url)
        }
        _ => {}
    }
    let body = arguments.expect_body.then(|| response.body.into());
    Ok((Target { address, request: bytes.into(), is_head: request.method == "HEAD", status, body }, took))
}

fn summarize(url: &str, seen: &Observation) -> Driven {
    let lane = &seen.lanes[0];
    let us = |times: &Times, quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    // A closed loop whose answers all came too late has no rate and no times, though nothing failed.
    let has_late_answers = lane.planned == 0 && !lane.response.is_empty();
    let in_window = if has_late_answers { validity::answered_in_window(lane) } else { Ok(()) };
    Driven {
        url: url.into(),
        duration_s: seen.window.as_secs_f64(),
        per_s: seen.per_second(0),
        planned: lane.planned,
        answered: lane.answered,
        unanswered: lane.unanswered,
        errors: lane.errors,
        first_error: lane.first_error.clone(),
        unasked: lane.unasked,
        statuses: lane.statuses.clone(),
        resent: lane.resent,
        idle_closes: lane.idle_closes,
        refused: lane.refused,
        first_refusal: lane.first_refusal.clone(),
        is_cut_short: seen.is_cut_short,
        driver_load: seen.driver_load,
        invalid: validity::of_driver(seen, 0, &lane.all_times()).and(in_window).err().map(|failure| failure.to_string()),
        lag_p99_us: us(&lane.lag, 0.99),
        lag_p999_us: us(&lane.lag, 0.999),
        lag_max_us: lane.lag.max() as f64 / 1e3,
        read_lag_p99_us: us(&lane.read_lag, 0.99),
        service_p50_us: us(&lane.service, 0.5),
        service_p99_us: us(&lane.service, 0.99),
        latency: Latency::of(lane),
        connections: lane.by_connection.clone(),
        peak_rss_mib: getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| usage.max_rss() as f64 / 1024.0),
    }
}

fn describe(driven: &Driven, arguments: &Drive) -> String {
    let latency = &driven.latency;
    let statuses: Vec<String> = driven.statuses.iter().map(|(status, count)| format!("{count} x {status}")).collect();
    let time = |value: Value| match (value, latency.answered + latency.unanswered) {
        (_, 0) => "–".to_owned(),
        (Value::AtLeast(ms), _) => format!(">= {ms:.3}"),
        (value, _) => format!("{:.3}", value.number().unwrap_or_default()),
    };
    let percentile = |p: Percentile| latency.response_ms(p).map_or("–".into(), time);
    let max = latency.max_ms();
    let lag = format!(", of which the driver's own lag may be {:.3}", driven.lag_max_us / 1e3);
    let mut text = format!(
        "{}: {:.0} answers/s over {:.1} s, by status {}\n  response time ms: p50 {}, p99 {}, max {}{}\n  service time ms, from the send: p50 {:.3}, p99 {:.3}\n  driver: {:.0} % of its core, lag p99 {:.1} µs\n",
        driven.url,
        driven.per_s,
        driven.duration_s,
        if statuses.is_empty() { "none".into() } else { statuses.join(", ") },
        percentile(Percentile::MEDIAN),
        percentile(Percentile::default()),
        max.as_ref().map_or_else(|_| time(Value::Exact(latency.max_us / 1e3)), |max| time(*max)),
        if max.is_err() { lag.as_str() } else { "" },
        driven.service_p50_us / 1e3,
        driven.service_p99_us / 1e3,
        driven.driver_load * 100.0,
        driven.lag_p99_us,
    );
    let mut add = |count: u64, what: &str| {
        if count > 0 {
            text.push_str(&format!("  {count} {what}\n"));
        }
    };
    let first = driven.first_error.as_deref().unwrap_or_default();
    add(driven.errors, &format!("requests failed; those of the window count as never answered; the first: {first}"));
    add(driven.unasked, "times bytes came that nobody had asked for, behind a right answer; their connection was closed");
    add(driven.unanswered, "requests got no answer; they count with their age");
    add(driven.resent, "requests were sent again, since the server closed their connection before it answered");
    let first = driven.first_refusal.as_deref().unwrap_or_default();
    add(driven.refused, &format!("attempts to connect were refused; the first: {first}"));
    add(driven.idle_closes, "idle connections were closed by the server and opened again");
    if let Some(reason) = &driven.invalid {
        text.push_str(&format!("  invalid({reason})\n"));
        if reason.starts_with("lag:") {
            text.push_str(quieter(Uid::effective().is_root()));
        }
    }
    let open = arguments.rate.filter(|_| !arguments.fresh);
    let carried = open.and_then(|rate| {
        let most = carried_per_s(arguments.connections, driven.service_p50_us, latency.p50_us);
        most.filter(|most| *most < rate)
    });
    if let Some(most) = carried {
        let (count, s, carry) = match arguments.connections {
            1 => (1, "", "carries"),
            count => (count, "s", "carry"),
        };
        text.push_str(&format!(
            "  the connections could not carry the rate: each answer took about {} ms, so {count} connection{s} {carry} at most {} a second, and requests waited for one: raise --connections, unless the server is the limit\n",
            significant(driven.service_p50_us / 1e3),
            significant(most),
        ));
    }
    if carried.is_none() && open.is_some() && waited_their_turn(driven.service_p99_us, latency.p99_us) {
        text.push_str(&format!(
            "  some requests waited for their connection, of which each has a turn: p99 is {} ms from the schedule and {} ms from the send: raise --connections\n",
            significant(latency.p99_us / 1e3),
            significant(driven.service_p99_us / 1e3),
        ));
    }
    let is_stall = latency.max_us > LIMITS_MS[0] * 1e3 && latency.max_us > latency.p99_us * STALL;
    if arguments.closed && is_stall && driven.errors == 0 {
        text.push_str(
            "  a closed loop sends nothing during a stall, so p99 hides it: --rate shows what other clients would feel\n",
        );
    }
    text
}

/// How to get a driver that is not kept waiting.
fn quieter(is_root: bool) -> &'static str {
    if is_root {
        "  the machine kept the driver waiting: try again, or with --core and a core that the server does not use\n"
    } else {
        "  the machine kept the driver waiting: try again, as root, or with --core and a core that the server does not use\n"
    }
}

/// What connections carry a second if each has one request at a time, where requests waited for a connection longer than for their answers; times
/// are medians in microseconds. `None` where they did not.
fn carried_per_s(connections: u32, service_us: f64, response_us: f64) -> Option<f64> {
    (service_us > 0.0 && response_us > WAITED * service_us).then(|| f64::from(connections) * 1e6 / service_us)
}

/// Whether p99 of the response time, in microseconds, is mostly a wait in the driver: by more than it may be late itself.
fn waited_their_turn(service_us: f64, response_us: f64) -> bool {
    service_us > 0.0 && response_us > TURNS * service_us && response_us - service_us > validity::LEAST_CLAIM as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    #[test]
    fn root_is_not_told_to_become_root() {
        assert!(quieter(false).contains("as root") && !quieter(true).contains("root"));
    }

    #[test]
    fn what_connections_carry_follows_from_their_number_and_the_service_time() {
        // 20 ms each: one connection carries 50 a second, and two 100.
        assert_eq!(carried_per_s(1, 20_000.0, 500_000.0), Some(50.0));
        assert_eq!(carried_per_s(2, 20_000.0, 40_001.0), Some(100.0));
        assert_eq!(carried_per_s(1, 20_000.0, 40_000.0), None, "they did not wait longer than for their answers");
        assert_eq!(carried_per_s(1, 0.0, 500_000.0), None, "no answer");
    }

    #[test]
    fn a_queue_of_the_driver_shows_in_p99_where_it_is_longer_than_the_answers_and_than_the_driver_may_be_late() {
        assert!(waited_their_turn(20_000.0, 300_000.0));
        assert!(!waited_their_turn(20_000.0, 50_000.0), "the server is the limit");
        assert!(!waited_their_turn(100.0, 1_500.0), "the driver may be late by so much");
        assert!(!waited_their_turn(0.0, 300_000.0), "no answer");
    }

    #[test]
    fn a_slow_route_is_waited_for_in_proportion() {
        let parsed = Cli::parse_from(["stallbench", "drive", "http://127.0.0.1:1/", "--closed"]);
        let Command::Drive(arguments) = parsed.command else { panic!("drive") };
        let target = Target { address: ([127, 0, 0, 1], 1).into(), request: [].into(), is_head: false, status: 200, body: None };
        let grace = |seconds| load(&arguments, target.clone(), Duration::from_secs(seconds)).grace.as_secs();
        assert_eq!([0, 3, 20].map(grace), [2, 9, 60]);
    }
}
