//! The headline: what do k blockers do to everybody else?
//!
//! Probes go to `/` at a fixed rate over kept-alive connections, and a few over fresh ones, while k blockers of length T are
//! kept in flight. k ascends until the probes' p99 passes the limit.

use super::{Latency, Mode, Session, all_lanes, learn, ms, until_valid, warm_up};
use crate::driver::{Lane, Load, Pace, Recording, Report, Target};
use crate::host::placement::Placement;
use crate::http::client::{Client, get};
use crate::process::Running;
use crate::validity::{self, Failure};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// T of the blockers, but for the long ones.
pub const BLOCK: Duration = Duration::from_millis(100);
/// Probes per second on kept-alive connections, and on how many. One is in flight on each, so there are enough of them that probes
/// due in half a second of silence find a free one: with fewer, the driver's own queue would be measured instead of the server's.
const PROBES: (f64, usize) = (1000.0, 512);
/// Probes per second on fresh connections.
const FRESH: f64 = 20.0;
/// Sent before the window, so that every connection is known to the server.
const WARMUP: Duration = Duration::from_millis(100);
/// From a blocker's answer to the next blocker on its connection. On loopback the next one would otherwise be there before the
/// server has looked at anybody else, which no client behind a network can do.
const THINK: Duration = Duration::from_millis(1);
/// A connection is dead if its median probe takes longer.
const DEAD: Duration = Duration::from_millis(100);

/// What was found for each kind of blocker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Collateral {
    /// Without blockers.
    pub baseline: Step,
    /// With them.
    pub runs: Vec<Run>,
}

/// One kind of blocker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// `sleep` (blocked threads) or `cpu` (work).
    pub kind: String,
    /// T, in ms.
    pub block_ms: u64,
    /// The p99 at which k stops to ascend, in ms.
    pub limit_ms: u64,
    /// By ascending k.
    pub steps: Vec<Step>,
}

/// One number of blockers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// Blockers in flight.
    pub k: usize,
    /// Why the numbers of this step are none.
    pub invalid: Option<String>,
    /// Probes over kept-alive connections.
    pub probes: Latency,
    /// Probes over fresh connections.
    pub fresh: Latency,
    /// Share of kept-alive connections that were dead.
    pub dead: f64,
    /// From the last blocker's last byte until no planned probe was overdue; none if that was not waited for.
    pub recovery_ms: Option<f64>,
    /// Blockers answered per second.
    pub blockers_per_s: f64,
    /// Share of the window that the driver spent on a processor.
    pub driver_load: f64,
    /// The wait for answers was given up, since the limit was passed already: times are lower bounds.
    pub gave_up: bool,
}

/// What blocks, for how long, and until when k ascends.
pub struct Plan {
    /// Name of the kind of blocker.
    pub kind: &'static str,
    /// T.
    pub block: Duration,
    /// Length of each step.
    pub window: Duration,
    /// The p99 at which k stops to ascend.
    pub limit: Duration,
    /// The numbers of blockers.
    pub blockers: Vec<usize>,
}

/// What the blockers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Threads that wait
    Sleep,
    /// Threads that work, for a time on their own clock
    Cpu,
    /// Threads that derive a key, as many rounds as take this server as long
    Pbkdf2,
}

impl Kind {
    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Sleep => "sleep",
            Kind::Cpu => "cpu",
            Kind::Pbkdf2 => "pbkdf2",
        }
    }

    /// The kinds that rounds had before they could be chosen.
    pub fn standard() -> Vec<Kind> {
        vec![Kind::Sleep, Kind::Cpu]
    }

    /// What takes this server so long when it is asked alone.
    fn path(self, length: Duration, running: &Running) -> Result<String> {
        let ms = length.as_millis();
        Ok(match self {
            Kind::Sleep => format!("/sleep?ms={ms}"),
            Kind::Cpu => format!("/timer?ms={ms}&clock=cpu"),
            Kind::Pbkdf2 => format!("/pbkdf2?iterations={}", rounds(length, running)?),
        })
    }
}

/// Rounds of key derivation that take a server about so long.
fn rounds(length: Duration, running: &Running) -> Result<u64> {
    const ASKED: u32 = 50_000;
    let mut client = Client::connect(running.address)?;
    let mut alone = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        client.ask(&get(&format!("/pbkdf2?iterations={ASKED}")))?;
        alone.push(started.elapsed());
    }
    alone.sort();
    Ok((f64::from(ASKED) * length.as_secs_f64() / alone[1].as_secs_f64()) as u64)
}

/// The kind of blocker of a person's own server.
pub const OWN: &str = "own";

/// Runs each kind on a fresh process.
///
/// # Errors
/// A server that does not start or answers wrongly.
pub fn run(session: &Session<'_>) -> Result<Collateral> {
    let mut baseline = None;
    let mut runs = Vec::new();
    for (kind, plan) in plans(session) {
        let (first, run) = climb_on_fresh(session, "collateral", kind, &plan, baseline.is_none())?;
        baseline = baseline.or(first);
        runs.push(run);
    }
    let Some(baseline) = baseline else { bail!("no step without blockers was planned") };
    Ok(Collateral { baseline, runs })
}

fn plans(session: &Session<'_>) -> Vec<(Kind, Plan)> {
    let blockers: Vec<usize> = session.settings.blockers.iter().copied().filter(|k| *k > 0).collect();
    let second = Duration::from_secs(1);
    let window = Duration::from_millis(session.settings.window_ms);
    let plan = |kind: &Kind| {
        let plan = Plan { kind: kind.name(), block: BLOCK, window, limit: second, blockers: blockers.clone() };
        (*kind, plan)
    };
    let mut plans: Vec<(Kind, Plan)> = session.settings.kinds.iter().map(plan).collect();
    if session.settings.mode == Mode::Thorough {
        // The limit of ten seconds needs blockers of a second and a window that is longer than the limit.
        let (block, window, limit) = (second, 15 * second, 10 * second);
        let plan = Plan { kind: Kind::Sleep.name(), block, window, limit, blockers: vec![1, 2, 4, 8, 16] };
        plans.push((Kind::Sleep, plan));
    }
    plans
}

/// One way up on a process of its own, and before it a step without blockers if that is wanted.
///
/// # Errors
/// A server that does not start or answers wrongly.
pub fn climb_on_fresh(
    session: &Session<'_>,
    experiment: &str,
    kind: Kind,
    plan: &Plan,
    with_baseline: bool,
) -> Result<(Option<Step>, Run)> {
    let mut running = session.start(experiment)?;
    let probe = learn(&mut running, "/")?;
    let path = kind.path(plan.block, &running)?;
    let blocker = learn(&mut running, &path)?;
    let warm = warm_up(session, &probe);
    running.explain(warm)?;
    let climb = Climb { plan, probe, blocker, placement: session.settings.placement_of(experiment), seed: session.seed };
    let _driver = climb.placement.enter_driver(true);
    let baseline = if with_baseline { Some(running.explain(climb.measure(0))?) } else { None };
    Ok((baseline, running.explain(climb.run())?))
}

/// One way up, from few blockers to many, on one process.
pub struct Climb<'p> {
    /// How.
    pub plan: &'p Plan,
    /// What the probes ask for.
    pub probe: Target,
    /// What the blockers ask for.
    pub blocker: Target,
    /// Where driver and server are.
    pub placement: Placement,
    /// Seed of this trial.
    pub seed: u64,
}

impl Climb<'_> {
    /// All steps, until p99 passes the limit.
    ///
    /// # Errors
    /// The driver cannot work.
    pub fn run(&self) -> Result<Run> {
        let plan = self.plan;
        let mut steps = Vec::new();
        for k in &plan.blockers {
            let step = self.measure(*k)?;
            let is_frozen = step.probes.p99_us > plan.limit.as_secs_f64() * 1e6;
            steps.push(step);
            if is_frozen {
                break;
            }
        }
        let (block_ms, limit_ms) = (plan.block.as_millis() as u64, plan.limit.as_millis() as u64);
        Ok(Run { kind: plan.kind.into(), block_ms, limit_ms, steps })
    }

    /// One number of blockers; taken again if the driver did not do what it owed.
    ///
    /// # Errors
    /// The driver cannot work.
    pub fn measure(&self, k: usize) -> Result<Step> {
        let (report, failed) = until_valid(&self.load(k), |report| self.check(k, report))?;
        Ok(step(k, &report, failed))
    }

    fn load(&self, k: usize) -> Load {
        let plan = self.plan;
        let mut lanes = probes(&self.probe);
        if k > 0 {
            let pace = Pace::Closed { depth: 1, stagger: plan.block, most: None, think: THINK };
            lanes.push(Lane { pace, ..Lane::closed(self.blocker.clone(), k, 1) });
        }
        Load {
            lanes,
            warmup: WARMUP,
            window: plan.window,
            // Long enough for the probes of the window to pass the limit for certain.
            grace: plan.limit + plan.block,
            give_up: Some(plan.limit),
            spin: self.placement.spin(),
            seed: self.seed ^ k as u64,
        }
    }

    /// The first check that fails.
    fn check(&self, k: usize, report: &Report) -> Result<(), Failure> {
        let plan = self.plan;
        let ceiling = || {
            // Each blocker in flight takes T, and each processor gives a second per second.
            let at_once = match plan.kind {
                // How long a person's own takes varies, and so does a function's time.
                OWN | "pbkdf2" => return Ok(()),
                "cpu" => k.min(self.placement.server_cores().len()),
                _ => k,
            };
            let answered = report.lanes.get(2).map_or(0, |blockers| blockers.answered);
            validity::blocker_ceiling(answered, at_once, plan.window.as_secs_f64(), plan.block.as_secs_f64())
        };
        all_lanes(report).and_then(|()| ceiling())
    }
}

/// The lanes of those who do not block: over kept-alive connections, and over fresh ones.
pub fn probes(target: &Target) -> Vec<Lane> {
    let kept = Lane { is_introduced: true, keeps_samples: true, ..Lane::open(target.clone(), PROBES.1, PROBES.0, false) };
    let fresh = Lane { is_fresh: true, ..Lane::open(target.clone(), 1, FRESH, false) };
    vec![kept, fresh]
}

fn step(k: usize, report: &Report, invalid: Option<String>) -> Step {
    let probes = &report.lanes[0];
    Step {
        k,
        invalid,
        probes: Latency::of(probes),
        fresh: Latency::of(&report.lanes[1]),
        dead: dead_share(probes, PROBES.1, report),
        recovery_ms: report.lanes.get(2).and_then(|blockers| recovery_ms(probes, blockers, report.gave_up)),
        blockers_per_s: if k > 0 { report.per_second(2) } else { 0.0 },
        driver_load: report.driver_load,
        gave_up: report.gave_up,
    }
}

/// Share of connections whose median probe took longer than [`DEAD`].
fn dead_share(probes: &Recording, connections: usize, report: &Report) -> f64 {
    let window = report.window_start..report.window_start + report.window;
    let mut by_connection = vec![Vec::new(); connections];
    for sample in probes.samples.iter().filter(|sample| window.contains(&sample.planned)) {
        by_connection[sample.connection % connections].push(sample.response);
    }
    let is_dead = |times: &mut Vec<Duration>| {
        times.sort();
        times.get(times.len() / 2).is_some_and(|median| *median > DEAD)
    };
    by_connection.iter_mut().filter_map(|times| is_dead(times).then_some(())).count() as f64 / connections as f64
}

/// How long after the last blocker's last byte the last probe that was planned before it got its answer.
fn recovery_ms(probes: &Recording, blockers: &Recording, gave_up: bool) -> Option<f64> {
    let end = blockers.last_byte;
    let before = probes.samples.iter().filter(|sample| sample.planned <= end);
    if gave_up || before.clone().any(|sample| !sample.is_answered) {
        return None;
    }
    before.map(|sample| ms((sample.planned + sample.response).saturating_sub(end))).max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::record::Sample;

    const MS: Duration = Duration::from_millis(1);

    fn recording(samples: &[(usize, u32, u32, bool)], last_byte: Duration) -> Recording {
        let sample = |&(connection, planned, response, is_answered): &(usize, u32, u32, bool)| Sample {
            connection,
            planned: planned * MS,
            response: response * MS,
            is_answered,
        };
        Recording { samples: samples.iter().map(sample).collect(), last_byte, ..Recording::new() }
    }

    fn report() -> Report {
        Report {
            lanes: Vec::new(),
            window_start: Duration::ZERO,
            window: Duration::from_secs(1),
            driver_load: 0.0,
            gave_up: false,
        }
    }

    #[test]
    fn a_connection_is_dead_if_its_median_probe_in_the_window_is_slow() {
        let samples = [
            (0, 1, 500, true),
            (0, 2, 500, false),
            (0, 3, 1, true),
            (1, 1, 1, true),
            (1, 2, 1, true),
            (1, 3, 900, true),
            (1, 2000, 900, true),
        ];
        assert_eq!(dead_share(&recording(&samples, MS), 2, &report()), 0.5);
        assert_eq!(dead_share(&recording(&[], MS), 2, &report()), 0.0);
    }

    #[test]
    fn recovery_lasts_until_the_last_probe_planned_before_the_last_blockers_end_is_answered() {
        let blockers = recording(&[], 100 * MS);
        assert_eq!(
            recovery_ms(&recording(&[(0, 50, 60, true), (1, 90, 30, true), (0, 110, 500, true)], MS), &blockers, false),
            Some(20.0)
        );
        assert_eq!(recovery_ms(&recording(&[(0, 50, 10, true)], MS), &blockers, false), Some(0.0));
        assert_eq!(recovery_ms(&recording(&[(0, 50, 60, false)], MS), &blockers, false), None);
    }
}
