//! The experiments. Each has its file; what they share is here: how a trial is set up, and what it leaves behind.

pub mod blocking_functions;
pub mod collateral;
pub mod dose_response;
pub mod footprint;
pub mod latency;
pub mod reload;
pub mod scaling;
pub mod stream;
pub mod throughput;
pub mod two_tabs;

use crate::catalog::Server;
use crate::driver::record::{Part, Times};
use crate::driver::{self, Lane, Load, Recording, Report, Target};
use crate::host::placement::{Placement, set_of};
use crate::http::client::{Client, get};
use crate::process::{Running, Start};
use crate::validity::{self, Failure};
use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

pub use collateral::Kind;

/// The experiments that there are, in the order of a trial.
pub const ALL: [&str; 9] =
    ["two-tabs", "collateral", "throughput", "footprint", "dose-response", "blocking-functions", "latency", "scaling", "reload"];
/// Those of a round that does not say which.
const IN_STANDARD: usize = 4;

/// How thorough a round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One trial, no intervals, no ranks.
    Quick,
    /// Six trials.
    Standard,
    /// Ten trials, and the limit of ten seconds.
    Thorough,
}

/// How a round measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How thorough.
    pub mode: Mode,
    /// Trials of each cell.
    pub trials: u32,
    /// Seed of all random order.
    pub seed: u64,
    /// W: threads or processes of a server.
    pub threads: usize,
    /// Placement of the experiments that measure latency.
    pub placement: Placement,
    /// Each server is measured under two names, to see how far equals are apart.
    #[serde(default)]
    pub is_null: bool,
    /// Which servers were asked for; none if all.
    #[serde(default)]
    pub filters: Vec<String>,
    /// A person's own file of servers, some of which are measured.
    #[serde(default)]
    pub servers_file: Option<PathBuf>,
    /// Which experiments.
    pub experiments: Vec<String>,
    /// Arguments to every server besides its own.
    pub more: Vec<String>,
    /// Numbers of blockers.
    pub blockers: Vec<usize>,
    /// Kinds of blockers.
    #[serde(default = "Kind::standard")]
    pub kinds: Vec<Kind>,
    /// Numbers of tabs.
    pub tabs: Vec<usize>,
    /// Window of each number of blockers, in ms.
    #[serde(default = "second")]
    pub window_ms: u64,
    /// Length of a tab's request, in ms.
    pub tab_ms: u64,
    /// Window of throughput, in ms.
    pub throughput_ms: u64,
    /// Whether throughput is also measured with requests in flight behind others.
    #[serde(default = "yes")]
    pub is_pipelined: bool,
    /// Numbers of idle connections.
    pub idle: Vec<usize>,
    /// What a round of its mode has and this one has not, so that it ends in its time.
    #[serde(default)]
    pub left_out: Vec<String>,
}

impl Settings {
    /// The settings of a mode.
    pub fn of(mode: Mode, threads: usize, seed: u64) -> Self {
        let is_quick = mode == Mode::Quick;
        Settings {
            mode,
            trials: match mode {
                Mode::Quick => 1,
                Mode::Standard => 6,
                Mode::Thorough => 10,
            },
            seed,
            threads,
            placement: Placement::default_here(),
            is_null: false,
            filters: Vec::new(),
            servers_file: None,
            experiments: ALL[..if mode == Mode::Thorough { ALL.len() } else { IN_STANDARD }]
                .iter()
                .map(ToString::to_string)
                .collect(),
            kinds: match mode {
                Mode::Quick => vec![Kind::Sleep],
                Mode::Standard => vec![Kind::Sleep, Kind::Cpu],
                Mode::Thorough => vec![Kind::Sleep, Kind::Cpu, Kind::Pbkdf2],
            },
            more: Vec::new(),
            blockers: if is_quick { vec![0, 1, 4, 64] } else { vec![0, 1, 2, 4, 16, 64] },
            window_ms: second(),
            tabs: if is_quick { vec![2] } else { vec![2, 8] },
            tab_ms: if is_quick { 200 } else { 300 },
            throughput_ms: if is_quick { 500 } else { 1500 },
            is_pipelined: !is_quick,
            idle: if is_quick { vec![1000] } else { vec![10, 100, 1000, 10_000] },
            left_out: Vec::new(),
        }
    }

    /// What the folder of such a round ends with.
    pub fn suffix(&self) -> &'static str {
        match (self.is_null, self.mode) {
            (true, _) => "-null",
            // Ignored by git: it has no intervals, so nothing can be learnt from it later.
            (_, Mode::Quick) => "-quick",
            _ => "",
        }
    }

    /// The settings of the null test: many metrics of many servers in little time, each server under two names.
    pub fn null(threads: usize, seed: u64) -> Self {
        Settings {
            trials: 6,
            is_null: true,
            blockers: vec![0, 1, 4],
            window_ms: 300,
            tabs: vec![2],
            tab_ms: 100,
            throughput_ms: 300,
            idle: vec![100],
            ..Settings::of(Mode::Standard, threads, seed)
        }
    }

    /// The placement that an experiment has.
    pub fn placement_of(&self, experiment: &str) -> Placement {
        // These keep the driver busy all the time, which needs a core of its own.
        if ["throughput", "latency"].contains(&experiment) { Placement::Split } else { self.placement }
    }
}

fn yes() -> bool {
    true
}

fn second() -> u64 {
    1000
}

/// What an experiment found in one trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "experiment", rename_all = "kebab-case")]
#[allow(clippy::large_enum_variant, reason = "a round has a few hundred")]
pub enum Outcome {
    /// No number, and why.
    Invalid {
        /// In words.
        reason: String,
    },
    /// Two browser tabs.
    TwoTabs(two_tabs::TwoTabs),
    /// What blockers do to everybody else.
    Collateral(collateral::Collateral),
    /// What a request costs.
    Throughput(throughput::Throughput),
    /// What the server weighs.
    Footprint(footprint::Footprint),
    /// How long a handler may block.
    DoseResponse(dose_response::DoseResponse),
    /// Which functions hurt.
    BlockingFunctions(blocking_functions::BlockingFunctions),
    /// How close to the edge.
    Latency(latency::LatencyBelowPeak),
    /// Up or out.
    Scaling(scaling::Scaling),
    /// Is it transparent.
    Reload(reload::Reload),
}

/// One trial of one server.
pub struct Session<'s> {
    /// The server.
    pub server: &'s Server,
    /// How the round measures.
    pub settings: &'s Settings,
    /// Seed of this trial.
    pub seed: u64,
}

impl Session<'_> {
    /// Runs an experiment on fresh processes.
    ///
    /// # Errors
    /// Only an interrupt; whatever else goes wrong is an outcome.
    pub fn run(&self, experiment: &str) -> Result<Outcome> {
        let result = match experiment {
            "two-tabs" => two_tabs::run(self).map(Outcome::TwoTabs),
            "collateral" => collateral::run(self).map(Outcome::Collateral),
            "throughput" => throughput::run(self).map(Outcome::Throughput),
            "footprint" => footprint::run(self).map(Outcome::Footprint),
            "dose-response" => dose_response::run(self).map(Outcome::DoseResponse),
            "blocking-functions" => blocking_functions::run(self).map(Outcome::BlockingFunctions),
            "latency" => latency::run(self).map(Outcome::Latency),
            "scaling" => scaling::run(self).map(Outcome::Scaling),
            "reload" => reload::run(self).map(Outcome::Reload),
            other => bail!("there is no experiment '{other}'"),
        };
        match result {
            Err(error) if error.downcast_ref::<crate::console::interrupt::Interrupted>().is_some() => Err(error),
            // What an interrupt spoils on its way is no result.
            Err(_) if crate::console::interrupt::is_requested() => Err(crate::console::interrupt::Interrupted.into()),
            Err(error) => Ok(Outcome::Invalid { reason: format!("{error:#}") }),
            outcome => outcome,
        }
    }

    /// A fresh process of the server, where the experiment's placement puts it.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn start(&self, experiment: &str) -> Result<Running> {
        let cores = set_of(&self.settings.placement_of(experiment).server_cores());
        let start = Start { threads: self.settings.threads, more: self.settings.more.clone(), cores };
        Running::start(self.server, &start)
    }
}

/// Asks once to learn what the right answer is.
///
/// # Errors
/// Any status but 200.
pub fn learn(running: &mut Running, path: &str) -> Result<Target> {
    learn_request(running, path, get(path))
}

/// The same, of a request as it is; `name` is what an error calls it.
///
/// # Errors
/// As above.
pub fn learn_request(running: &mut Running, name: &str, request: Vec<u8>) -> Result<Target> {
    let answer = Client::connect(running.address).and_then(|mut client| client.ask(&request));
    let answer = running.explain(answer.with_context(|| name.to_owned()))?;
    if answer.status != 200 {
        bail!("{name} is answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body).trim());
    }
    Ok(Target { address: running.address, request, status: 200, body: Some(answer.body) })
}

/// A run whose driver did not do what it owed is taken again, so often at most.
const ATTEMPTS: usize = 3;

/// Puts the load on until `check` finds nothing wrong with what came of it, or the server itself is what is wrong.
///
/// # Errors
/// The driver cannot work.
pub fn until_valid(load: &Load, check: impl Fn(&Report) -> Result<(), Failure>) -> Result<(Report, Option<String>)> {
    let mut attempt = 0;
    loop {
        let report = driver::run(load)?;
        let failed = check(&report).err().map(|failure| failure.to_string());
        attempt += 1;
        if failed.is_none() || attempt == ATTEMPTS || report.lanes.iter().any(|lane| lane.errors > 0) {
            return Ok((report, failed));
        }
    }
}

/// Every lane is as the driver owes it.
///
/// # Errors
/// The first check that fails.
pub fn all_lanes(report: &Report) -> Result<(), Failure> {
    (0..report.lanes.len()).try_for_each(|lane| validity::of_lane(report, lane))
}

/// Length of a slice of the warm-up, how many there are at most, and how far the rates of two in a row may be apart at its end.
const WARM: (Duration, usize, f64) = (Duration::from_millis(100), 30, 0.05);
/// Answers that a warm-up takes at least.
const WARM_ANSWERS: f64 = 10_000.0;

/// Asks as fast as the server answers until it is warm, and says how many a second it answered in the end: allocators have filled their
/// pools by then, and engines have compiled what they run often.
///
/// # Errors
/// The driver cannot work.
pub fn warm_up(session: &Session<'_>, target: &Target) -> Result<f64> {
    let load = Load {
        lanes: vec![Lane::closed(target.clone(), 64, 1)],
        warmup: Duration::ZERO,
        window: WARM.0,
        grace: Duration::from_secs(1),
        give_up: None,
        spin: Duration::ZERO,
        seed: session.seed,
    };
    // Those of a quick round need none.
    let least = if session.settings.mode == Mode::Quick && !session.server.is_peer { 0.0 } else { WARM_ANSWERS };
    let (mut rate, mut answers) = (0.0, 0.0);
    for _ in 0..WARM.1 {
        let last = rate;
        rate = driver::run(&load)?.per_second(0);
        answers += rate * WARM.0.as_secs_f64();
        if answers >= least && (least == 0.0 || (rate - last).abs() < WARM.2 * rate) {
            break;
        }
    }
    Ok(rate)
}

/// Times of a lane, in microseconds, with the histograms they come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Latency {
    /// Requests due in the window.
    pub planned: u64,
    /// Answered before the end.
    pub answered: u64,
    /// Not answered by the end; they count with their age.
    pub unanswered: u64,
    /// Median response time.
    pub p50_us: f64,
    /// 99th percentile of response time; the maximum if fewer than ten samples are beyond it.
    pub p99_us: f64,
    /// Longest response time.
    pub max_us: f64,
    /// 99th percentile of service time, likewise.
    pub service_p99_us: f64,
    /// 99th percentile of the driver's lag behind the plan.
    pub lag_p99_us: f64,
    /// By the tenth of a second in which they were due: answered, and the longest response time.
    #[serde(default)]
    pub by_interval: Vec<Part>,
    /// Response times: HDR histogram in nanoseconds, V2, base64.
    pub response: String,
    /// Service times, likewise.
    pub service: String,
}

impl Latency {
    /// A quantile of the stored response times, in microseconds; the maximum where fewer than ten samples are beyond it.
    ///
    /// # Errors
    /// A histogram that cannot be read.
    pub fn response_us(&self, quantile: f64) -> Result<f64> {
        Ok(quantile_us(&decode(&self.response)?, quantile))
    }

    /// Takes the times out of a recording.
    pub fn of(recording: &Recording) -> Self {
        Latency {
            planned: recording.planned,
            answered: recording.answered,
            unanswered: recording.unanswered,
            p50_us: recording.response.value_at_quantile(0.5) as f64 / 1e3,
            p99_us: quantile_us(&recording.response, 0.99),
            max_us: recording.response.max() as f64 / 1e3,
            service_p99_us: quantile_us(&recording.service, 0.99),
            lag_p99_us: recording.lag.value_at_quantile(0.99) as f64 / 1e3,
            by_interval: recording.by_interval.clone(),
            response: encode(&recording.response),
            service: encode(&recording.service),
        }
    }
}

/// A quantile in microseconds, or the maximum where fewer than ten samples are beyond it.
fn quantile_us(times: &Times, quantile: f64) -> f64 {
    // Rounded up a little: one percent of a thousand is ten, whatever floating point makes of it.
    let has_enough = times.len() as f64 * (1.0 - quantile) > 10.0 - 1e-6;
    (if has_enough { times.value_at_quantile(quantile) } else { times.max() }) as f64 / 1e3
}

fn encode(times: &Times) -> String {
    let mut bytes = Vec::new();
    // Writing to memory fails only for histograms beyond what ours can hold.
    let _ = V2Serializer::new().serialize(times, &mut bytes);
    STANDARD.encode(bytes)
}

fn decode(text: &str) -> Result<Times> {
    let bytes = STANDARD.decode(text).context("a histogram is not base64")?;
    let times = Deserializer::new().deserialize(&mut bytes.as_slice());
    times.map_err(|error| anyhow::anyhow!("a histogram does not decode: {error}"))
}

/// Rounds a time to milliseconds as floating point.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
