//! The headline: what do k blockers do to everybody else?
//!
//! Probes go to `/` at a fixed rate over kept-alive connections, and a few over fresh ones, while k blockers of length T are
//! kept in flight. k ascends until the probes' p99 passes the limit.

use super::{Latency, Mode, Session, learn, ms, warm_up};
use crate::driver::{self, Lane, Load, Pace, Recording, Report, Target};
use crate::placement::Placement;
use crate::validity;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Probes per second on kept-alive connections, and on how many. One is in flight on each, so there are enough of them that probes
/// due in half a second of silence find a free one: with fewer, the driver's own queue would be measured instead of the server's.
const PROBES: (f64, usize) = (1000.0, 512);
/// Probes per second on fresh connections.
const FRESH: f64 = 20.0;
/// Sent before the window, so that every connection is known to the server.
pub const WARMUP: Duration = Duration::from_millis(100);
/// From a blocker's answer to the next blocker on its connection. On loopback the next one would otherwise be there before the
/// server has looked at anybody else, which no client behind a network can do.
const THINK: Duration = Duration::from_millis(1);
/// A step whose driver did not do what it owed is taken again, so often at most.
const ATTEMPTS: usize = 3;
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
    /// What blockers ask for.
    pub path: String,
    /// T.
    pub block: Duration,
    /// Length of each step.
    pub window: Duration,
    /// The p99 at which k stops to ascend.
    pub limit: Duration,
    /// The numbers of blockers.
    pub blockers: Vec<usize>,
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
    for plan in plans(session) {
        let (first, run) = run_plan(session, &plan, baseline.is_none())?;
        baseline = baseline.or(first);
        runs.push(run);
    }
    let Some(baseline) = baseline else { bail!("no step without blockers was planned") };
    Ok(Collateral { baseline, runs })
}

fn plans(session: &Session<'_>) -> Vec<Plan> {
    let blockers: Vec<usize> = session.settings.blockers.iter().copied().filter(|k| *k > 0).collect();
    let second = Duration::from_secs(1);
    let window = Duration::from_millis(session.settings.window_ms);
    let plan = |kind, path: &str, block: Duration, window, limit, blockers: &[usize]| Plan {
        kind,
        path: path.replace("{T}", &block.as_millis().to_string()),
        block,
        window,
        limit,
        blockers: blockers.to_vec(),
    };
    let (sleep, cpu) = ("/sleep?ms={T}", "/timer?ms={T}&clock=cpu");
    let short = Duration::from_millis(100);
    let mut plans = vec![plan("sleep", sleep, short, window, second, &blockers)];
    // A quick round has time for one kind only.
    if session.settings.mode != Mode::Quick {
        plans.push(plan("cpu", cpu, short, window, second, &blockers));
    }
    if session.settings.mode == Mode::Thorough {
        // The limit of ten seconds needs blockers of a second and a window that is longer than the limit.
        plans.push(plan("sleep", sleep, second, 15 * second, 10 * second, &[1, 2, 4, 8, 16]));
    }
    plans
}

fn run_plan(session: &Session<'_>, plan: &Plan, with_baseline: bool) -> Result<(Option<Step>, Run)> {
    let mut running = session.start("collateral")?;
    let probe = learn(&mut running, "/")?;
    let blocker = learn(&mut running, &plan.path)?;
    let warm = warm_up(session, &probe);
    running.explain(warm)?;
    let climb = Climb { plan, probe, blocker, placement: session.settings.placement_of("collateral"), seed: session.seed };
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
        let load = self.load(k);
        let mut attempt = 0;
        loop {
            let report = driver::run(&load)?;
            let failed = self.invalid(k, &report);
            attempt += 1;
            if failed.is_none() || attempt == ATTEMPTS || report.lanes.iter().any(|lane| lane.errors > 0) {
                return Ok(step(k, &report, failed));
            }
        }
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
    fn invalid(&self, k: usize, report: &Report) -> Option<String> {
        let plan = self.plan;
        let ceiling = || {
            // Each blocker in flight takes T, and each processor gives a second per second. Nobody knows that of a person's own server.
            let at_once = match plan.kind {
                OWN => return Ok(()),
                "cpu" => k.min(self.placement.server_cores().len()),
                _ => k,
            };
            let answered = report.lanes.get(2).map_or(0, |blockers| blockers.answered);
            validity::blocker_ceiling(answered, at_once, plan.window.as_secs_f64(), plan.block.as_secs_f64())
        };
        let checked = (0..report.lanes.len()).try_for_each(|lane| validity::of_lane(report, lane)).and_then(|()| ceiling());
        checked.err().map(|failure| failure.to_string())
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
