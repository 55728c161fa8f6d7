//! A climb: probes beside more and more blockers, on one process, until `/` freezes.

mod step;

pub use step::Step;

use super::contract::{self, Scene};
use super::probes::{self, FRESH, KEPT, OTHERS};
use super::steps::{added, freeze_k, slowdown};
use crate::console::interrupt;
use crate::load::{Lane, Load, Observation, Pace, Recording, Target};
use crate::measure::{Kind, Latency, Session, Timeline, learn, ms, of_unfailed};
use crate::metrics::{Family, LIMITS_MS, Metric, Percentile, Reading, Role, Unit, Value};
use crate::validity::{self, Failure};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Time before the window, in which every connection is used.
const WARMUP: Duration = Duration::from_millis(100);
/// From a blocker's answer to the next blocker on its connection. On loopback the next one would otherwise be there before the server has
/// looked at any other client, which no client behind a network can do.
pub const THINK: Duration = Duration::from_millis(1);
/// The same for blockers without a length: they may be so short that the load alone would keep every processor busy.
pub const THINK_OF_SHORT: Duration = Duration::from_millis(10);

pub const FREEZE_K: Family = Family::new("freeze_k", Unit::Blockers, Role::Threshold).more_is_better();
pub const FRESH_MAX: Family = Family::new("fresh_max_ms", Unit::Ms, Role::Latency);
pub const SLOWDOWN: Family = Family::new("slowdown", Unit::Ratio, Role::Detail);
pub const DEAD: Family = Family::new("dead", Unit::Share, Role::Detail);
pub const RECOVERY: Family = Family::new("recovery_ms", Unit::Ms, Role::Detail);
pub const BLOCKERS_PER_S: Family = Family::new("blockers_per_s", Unit::PerSecond, Role::Detail).more_is_better();
pub const SHED_PER_S: Family = Family::new("shed_per_s", Unit::PerSecond, Role::Detail);
pub const FAILED: Family = Family::new("failed", Unit::Count, Role::Detail);
const MAX: Family = Family::new("max_ms", Unit::Ms, Role::Detail);
pub const P50: Family = Family::new("p50_ms", Unit::Ms, Role::Detail);

/// One climb, by ascending k. A step without blockers comes first in rounds of schema 2.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// The kind of blocker.
    pub kind: String,
    /// T, the time that a blocker takes alone, in ms; 0 if it takes as long as it takes.
    pub block_ms: f64,
    /// The p99 at which k stops to ascend, in ms.
    pub limit_ms: f64,
    /// The steps.
    pub steps: Vec<Step>,
}

/// How the climbs of an experiment are made, whatever blocks.
pub struct Ladder {
    /// T, in ms.
    pub block_ms: f64,
    /// Length of each step, in ms.
    pub window_ms: u64,
    /// The p99 at which k stops to ascend, in ms.
    pub limit_ms: f64,
    /// Probes per second.
    pub rate: f64,
    /// Connections of the probes.
    pub connections: usize,
}

impl Ladder {
    /// A climb on a fresh process of a server that keeps the contract.
    ///
    /// # Errors
    /// A server that does not start or answers wrongly.
    pub fn run(&self, session: &Session<'_>, kind: Kind, blockers: &[usize]) -> Result<Run> {
        let mut serving = kind.start(session)?;
        let running = serving.running();
        let block_ms = kind.block_ms(self.block_ms);
        let probe = learn(running, "/")?;
        let blocker = kind.target(Duration::from_secs_f64(block_ms / 1e3), running)?;
        let warm = session.warm_up(&probe, self.connections);
        running.explain(warm)?;
        let cores = session.placement.server_cores().len();
        let climb = Climb {
            kind: kind.name(),
            block_ms,
            connecting: Duration::ZERO,
            window: Duration::from_millis(self.window_ms),
            limit: Duration::from_secs_f64(self.limit_ms / 1e3),
            blockers,
            probe: (&probe, self.rate, self.connections),
            blocker: &blocker,
            at_once: &|k| kind.at_once(k, cores),
            is_lenient: false,
        };
        let _driver = session.placement.enter_driver(true);
        running.explain(climb.run(session))
    }
}

/// How to climb.
pub struct Climb<'c> {
    /// The name of the kind of blocker.
    pub kind: &'c str,
    /// T, in ms: the number that names the metrics, so it goes through no other form.
    pub block_ms: f64,
    /// The time after which a new connection is served.
    pub connecting: Duration,
    /// Length of each step.
    pub window: Duration,
    /// The p99 at which k stops to ascend.
    pub limit: Duration,
    /// Numbers of blockers, ascending.
    pub blockers: &'c [usize],
    /// The probes' target, their rate, and their connections.
    pub probe: (&'c Target, f64, usize),
    /// The blockers' target.
    pub blocker: &'c Target,
    /// The most blockers that can be answered at once, if that is known.
    pub at_once: &'c dyn Fn(usize) -> Option<usize>,
    /// The server is a user's own: what it refuses or breaks is a result, and the client retries as clients do.
    pub is_lenient: bool,
}

impl Climb<'_> {
    /// All steps, until p99 passes the limit.
    ///
    /// # Errors
    /// The driver cannot work.
    pub fn run(&self, session: &Session<'_>) -> Result<Run> {
        let mut steps = Vec::new();
        for k in self.blockers {
            (session.tell)(&format!("k={k} of {}", self.blockers.iter().max().unwrap_or(k)));
            let step = match self.step(session, *k) {
                // What was measured stays: a user's own server may bear so much and no more.
                Err(error) if self.is_lenient && !steps.is_empty() && !interrupt::is_requested() => {
                    steps.push(Step::unmeasured(*k, format!("{error:#}")));
                    break;
                }
                step => step?,
            };
            let is_frozen = step.probes.p99_us > self.limit.as_secs_f64() * 1e6 || step.fails(Percentile::default());
            steps.push(step);
            if is_frozen {
                break;
            }
        }
        Ok(Run { kind: self.kind.into(), block_ms: self.block_ms, limit_ms: ms(self.limit), steps })
    }

    fn block(&self) -> Duration {
        Duration::from_secs_f64(self.block_ms / 1e3)
    }

    /// One number of blockers; retried if the driver did not do what it owed.
    fn step(&self, session: &Session<'_>, k: usize) -> Result<Step> {
        let (seen, invalid) = session.until_valid(&self.load(session, k), |seen| self.check(k, seen))?;
        let blockers = seen.lanes.get(OTHERS);
        Ok(Step {
            k,
            invalid,
            probes: Latency::of(&seen.lanes[KEPT]),
            fresh: Latency::of(&seen.lanes[FRESH]),
            dead: probes::dead_share(&seen, self.probe.2),
            recovery_ms: blockers.and_then(|one| probes::recovery(&seen.lanes[KEPT], one, seen.gave_up)).map(ms),
            blockers_per_s: if k > 0 { seen.per_second(OTHERS) } else { 0.0 },
            blockers_failed: blockers.map_or(0, |one| one.errors),
            blockers_asked: blockers.map_or(0, |one| one.answered + one.errors + one.unanswered),
            blockers_p50_ms: blockers.and_then(|one| of_unfailed(one, 0.5)),
            waits: waits(&seen.lanes[KEPT]),
            refused: step::refused([&seen.lanes[KEPT], &seen.lanes[FRESH]]),
            first_error: first_error(&seen),
            shed_per_s: blockers.map_or(0.0, |one| one.shed as f64 / seen.window.as_secs_f64()),
            driver_load: seen.driver_load,
            gave_up: seen.gave_up,
            timeline: session.keeps_timelines.then(|| Timeline::of(&seen, &seen.lanes[KEPT], blockers)),
        })
    }

    fn load(&self, session: &Session<'_>, k: usize) -> Load {
        let (target, rate, connections) = self.probe;
        let mut lanes = probes::lanes(target, rate, connections);
        if k > 0 {
            let think = if self.block_ms == 0.0 { THINK_OF_SHORT } else { THINK };
            let pace = Pace::Closed { depth: 1, stagger: self.block().max(think), most: None, think };
            // A refused client waits as long as it would have been served, or refusals would be retried far more often than answers.
            let pause = (self.block_ms > 0.0).then(|| self.block());
            let (sheds, rests) = if self.is_lenient { (None, pause) } else { (pause, None) };
            lanes.push(Lane {
                pace,
                sheds,
                rests,
                keeps_samples: session.keeps_timelines,
                primer: self.is_lenient.then(|| target.clone()),
                ..Lane::closed(self.blocker.clone(), k, 1)
            });
        }
        lanes.iter_mut().for_each(|lane| lane.retries = self.is_lenient);
        Load {
            // Connections that are not served yet would make the first probes wait.
            warmup: WARMUP.max(2 * self.connecting),
            // Long enough for the probes of the window to pass the limit for certain.
            grace: self.limit + self.block(),
            give_up: Some(self.limit),
            spin: session.placement.spin(),
            ..Load::of(lanes, self.window, session.seed ^ k as u64)
        }
    }

    fn check(&self, k: usize, seen: &Observation) -> Result<(), Failure> {
        (0..seen.lanes.len()).try_for_each(|lane| match self.is_lenient {
            true => validity::of_driver(seen, lane, &seen.lanes[lane].all_times()),
            false => validity::of_lane(seen, lane),
        })?;
        let Some(at_once) = (self.at_once)(k) else { return Ok(()) };
        let answered = seen.lanes.get(OTHERS).map_or(0, |blockers| blockers.answered);
        validity::blocker_ceiling(answered, at_once, self.window.as_secs_f64(), self.block_ms / 1e3)
    }
}

/// The first failure of the lanes of which some are counted; those of the warm-up are not.
fn first_error(seen: &Observation) -> Option<String> {
    let counted = |(lane, one): &(usize, &Recording)| one.failed > 0 || *lane == OTHERS && one.errors > 0;
    seen.lanes.iter().enumerate().filter(counted).find_map(|(_, one)| one.first_error.clone())
}

/// Half of the probes that did not fail, and all but a hundredth of them, took this long; `None` where none failed, since the others say so then.
fn waits(probes: &Recording) -> Option<[Value; 2]> {
    let of = |quantile: f64| of_unfailed(probes, quantile);
    (probes.failed > 0).then(|| Some([of(0.5)?, of(0.99)?]))?
}

/// The place of a metric beside k blockers of a kind and length.
pub fn place(kind: &str, block_ms: f64, k: usize) -> String {
    format!("{},{k}", blocker(kind, block_ms))
}

/// A kind of blocker with its length, if it has one.
fn blocker(kind: &str, block_ms: f64) -> String {
    if block_ms == 0.0 { kind.to_owned() } else { format!("{kind}@{block_ms}") }
}

/// The families of a climb that are compared.
pub fn families(percentile: Percentile) -> Vec<Family> {
    vec![percentile.family(), FRESH_MAX, FREEZE_K]
}

/// The freeze threshold at a limit.
pub fn freeze_metric(experiment: &'static str, kind: &str, block_ms: f64, limit_ms: f64) -> Metric {
    FREEZE_K.at(experiment, format!("{},{limit_ms}ms", blocker(kind, block_ms)))
}

impl Run {
    /// The metrics of a climb over these numbers of blockers.
    ///
    /// # Errors
    /// A histogram that cannot be read.
    pub fn read(&self, experiment: &'static str, blockers: &[usize], percentile: Percentile) -> Result<Vec<Reading>> {
        let mut readings: Vec<Reading> = Vec::new();
        let mut ladder = Vec::new();
        let mut base = None;
        for step in &self.steps {
            let at = |family: Family| family.at(experiment, place(&self.kind, self.block_ms, step.k));
            let valid = |value: Value| step.valid(Ok(value));
            let response = valid(step.response(percentile)?);
            readings.push((at(percentile.family()), response.clone()));
            if percentile.family().name != P50.name {
                readings.push((at(P50), valid(step.bound(step.probes.median_ms()?))));
            }
            readings.push((at(MAX), step.valid(step.probes.max_ms())));
            let failed = step.probes.failed + step.fresh.failed + step.blockers_failed;
            readings.push((at(FAILED), Ok(Value::Exact(failed as f64))));
            // A server that is frozen without blockers freezes at k=0; if that step is invalid, the others still tell.
            if step.k > 0 || response.is_ok() {
                ladder.push((step.k, if step.fails(percentile) { Ok(Value::NotReached) } else { response.clone() }));
            }
            if step.k == 0 {
                base = Some(response);
                continue;
            }
            readings.push((at(FRESH_MAX), step.valid(step.fresh.max_ms())));
            readings.push((at(DEAD), valid(Value::Exact(step.dead))));
            readings.push((at(BLOCKERS_PER_S), valid(Value::Exact(step.blockers_per_s))));
            readings.push((at(SHED_PER_S), valid(Value::Exact(step.shed_per_s))));
            readings.extend(step.recovery_ms.map(|recovery| (at(RECOVERY), valid(Value::Exact(recovery)))));
            if let Some(base) = &base {
                readings.push((at(percentile.added()), added(base, &response)));
                readings.extend(slowdown(base, &response).map(|ratio| (at(SLOWDOWN), Ok(ratio))));
            }
        }
        // Beyond the last step the limit was passed already, unless that step is itself invalid.
        let last = self.steps.last();
        for k in blockers.iter().filter(|k| last.is_some_and(|last| **k > last.k)) {
            let value = last.and_then(|last| last.invalid.clone()).map_or(Ok(Value::NotReached), Err);
            for family in [percentile.family(), FRESH_MAX] {
                readings.push((family.at(experiment, place(&self.kind, self.block_ms, *k)), value.clone()));
            }
        }
        for limit_ms in LIMITS_MS.into_iter().filter(|limit_ms| *limit_ms <= self.limit_ms) {
            let metric = freeze_metric(experiment, &self.kind, self.block_ms, limit_ms);
            readings.push((metric, freeze_k(&ladder, limit_ms)));
        }
        Ok(readings)
    }

    /// Each step, to be looked at.
    pub fn scenes(self) -> Vec<Scene> {
        let Run { kind, block_ms, steps, .. } = self;
        let scene = |one: Step| Scene::Step {
            step: contract::Step { kind: kind.clone(), k: one.k },
            block_ms,
            invalid: one.invalid,
            times: Box::new(one.probes),
            timeline: one.timeline,
        };
        steps.into_iter().map(scene).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Value::{AtLeast, Exact, Never};

    /// A step whose probes are answered in 0.2 ms, but for those that fail.
    fn step(k: usize, answered: u64, failed: u64, invalid: Option<&str>) -> Step {
        let mut probes = Recording { planned: answered + failed, answered, failed, ..Recording::default() };
        (0..answered).for_each(|_| probes.count(0, 0, 200_000, true));
        probes.count_ages(700_000_000, failed as u32);
        Step { invalid: invalid.map(str::to_owned), probes: Latency::of(&probes), ..Step::unmeasured(k, String::new()) }
    }

    #[test]
    fn a_server_whose_probes_fail_is_frozen_at_every_limit_however_fast_it_says_so() {
        let read = |steps: Vec<Step>| {
            let run = Run { kind: "slow".into(), block_ms: 110.0, limit_ms: 1000.0, steps };
            run.read("service", &[0, 1, 2], Percentile::default()).unwrap()
        };
        let of = |readings: &[Reading], name: &str| {
            readings.iter().find(|(metric, _)| metric.to_string() == name).unwrap_or_else(|| panic!("{name}")).1.clone()
        };
        let failing = read(vec![step(0, 1000, 0, None), step(1, 900, 100, None)]);
        for limit in ["100ms", "1000ms"] {
            assert_eq!(of(&failing, &format!("freeze_k[slow@110,{limit}]")), Ok(Exact(1.0)));
        }
        assert!(matches!(of(&failing, "p99_ms[slow@110,1]"), Ok(AtLeast(ms)) if ms > 699.0));
        assert!(matches!(of(&failing, "p50_ms[slow@110,1]"), Ok(Exact(ms)) if ms < 0.21));
        for family in ["p99_ms", "fresh_max_ms"] {
            assert_eq!(of(&failing, &format!("{family}[slow@110,2]")), Ok(Value::NotReached));
        }
        // Fewer than the percentile leaves beyond it do not make it one that never comes.
        let few = read(vec![step(0, 1000, 0, None), step(1, 1999, 1, None)]);
        assert_eq!(of(&few, "freeze_k[slow@110,100ms]"), Ok(Never { tried: 1.0 }));
        // For a server under the contract, a wrong answer makes the step invalid.
        let broken = read(vec![step(0, 1000, 0, None), step(1, 0, 1000, Some("answers: 1000 wrong"))]);
        assert_eq!(of(&broken, "freeze_k[slow@110,100ms]"), Err("answers: 1000 wrong".into()));
    }
}
