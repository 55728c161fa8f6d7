//! A user's own service: the harm that its slow requests do to its quick ones, beside reference servers with blockers of the same length, measured
//! in the same round on the same machine.

use super::climb::{self, Climb, Ladder, Run, freeze_metric, place};
use super::contract::{Choices, Column, Experiment, Scene, conditions};
use super::probes;
use crate::catalog::{Row, Server};
use crate::measure::{Kind, Mode, Session, learn_own, lenient, ms};
use crate::metrics::{Family, LIMITS_MS, Metric, Percentile, Reading, Role, Unit, Value};
use crate::process::{Start, deploy};
use crate::report::{self, Cell, Figure, Group, Places, Scale, Standing, Table, View};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The kind of blocker in metrics, whatever a service does in it.
const KIND: &str = "slow";
/// Connections of the probes.
const CONNECTIONS: usize = 256;
/// Probes a second on each connection at most. One is in flight on each, so that all that are due in half a second of silence find a free
/// one: with more, the driver's own queue would be measured.
const PER_CONNECTION: f64 = 2.0;
/// A step lasts at least this many blockers.
const BLOCKERS_PER_STEP: f64 = 3.0;
/// Probes of a step for which p99 is more than the maximum.
const PROBES: f64 = 1000.0;
/// A step of a slow service lasts at least this many probes.
const LEAST_PROBES: f64 = 20.0;
/// Shortest and longest step, in ms, unless blockers are longer; in a quick round, and of references in a quick round.
const WINDOW_MS: (f64, f64) = (1000.0, 4000.0);
const QUICK_WINDOW_MS: (f64, f64) = (1000.0, 1000.0);
const QUICK_REFERENCE_MS: f64 = 500.0;
/// The p99 at which k stops to ascend, in ms.
const LIMIT_MS: f64 = 1000.0;
/// The probes of both lanes together are at most this share of what the service can answer one after another, so that they are not what slows
/// it down.
const SHARE: f64 = 0.25;
/// The fewest probes a second on kept connections; what this is too much for is told so.
const LEAST_RATE: f64 = 2.0;
/// A service that answers one request at a time has worked off the queue that the warm-up leaves within this time, in ms, and before the first step.
const WARM_QUEUE_MS: f64 = 500.0;
/// The least time of a slow request, in ms, and its least ratio to the time of the quick one.
const LEAST_BLOCK_MS: f64 = 5.0;
const LEAST_RATIO: f64 = 2.0;
/// The slow request is asked alone this many times; the median is T.
const ALONE: usize = 3;
/// Probes are asked alone this many times to learn how fast the service is.
const PROBED: usize = 20;

/// Quick requests, and those of them that failed.
const QUICK: Family = Family::new("quick", Unit::Count, Role::Detail);
const QUICK_FAILED: Family = Family::new("quick_failed", Unit::Count, Role::Detail);
/// Slow requests, and those of them that failed.
const SLOW: Family = Family::new("slow", Unit::Count, Role::Detail);
const SLOW_FAILED: Family = Family::new("slow_failed", Unit::Count, Role::Detail);

/// A climb.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Service {
    run: Run,
}

/// How it measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Numbers of blockers, ascending from 0.
    pub blockers: Vec<usize>,
    /// T: the time that the slow request takes alone, in ms.
    pub block_ms: f64,
    /// The time that the quick request takes alone, in ms.
    #[serde(default)]
    pub probe_ms: f64,
    /// Length of each step, in ms.
    pub window_ms: u64,
    /// Numbers of blockers of the references; the same as above if empty.
    #[serde(default)]
    pub reference_blockers: Vec<usize>,
    /// Length of each of their steps, in ms.
    #[serde(default)]
    pub reference_window_ms: u64,
    /// Probes per second.
    pub rate: f64,
    /// Connections of the probes.
    pub connections: usize,
}

impl Experiment for Service {
    const NAME: &'static str = "service";
    const IS_OWN: bool = true;
    type Settings = Settings;

    fn settings(mode: Mode, choices: &Choices) -> Settings {
        let is_quick = mode == Mode::Quick;
        let blockers = vec![0, 1, 2, 4, 16, 64];
        Settings {
            // In a quick round, references only show how their kinds differ.
            reference_blockers: if is_quick { vec![1, 4, 64] } else { blockers.clone() },
            reference_window_ms: if is_quick { QUICK_REFERENCE_MS } else { WINDOW_MS.0 } as u64,
            blockers,
            block_ms: 0.0,
            probe_ms: 0.0,
            window_ms: WINDOW_MS.0 as u64,
            rate: probes::RATE,
            connections: choices.connections.unwrap_or(CONNECTIONS),
        }
    }

    fn seconds(settings: &Settings) -> f64 {
        1.5 + settings.blockers.len() as f64 * (settings.window_ms as f64 / 1e3 + 0.3)
    }

    fn run(session: &Session<'_>, settings: &Settings) -> Result<Self> {
        let run = match &session.server.own {
            Some(_) => climb_own(session, settings)?,
            None => climb_reference(session, settings)?,
        };
        Ok(Service { run })
    }

    fn read(&self, settings: &Settings, percentile: Percentile) -> Result<Vec<Reading>> {
        let mut readings = self.run.read(Self::NAME, &settings.blockers, percentile)?;
        for step in &self.run.steps {
            let quick = [&step.probes, &step.fresh];
            let counts = [
                (QUICK, quick.iter().map(|lane| lane.planned).sum()),
                (QUICK_FAILED, quick.iter().map(|lane| lane.failed).sum()),
                (SLOW, step.blockers_asked),
                (SLOW_FAILED, step.blockers_failed),
            ];
            // Without blockers, and in rounds that did not count them, there are none to speak of.
            let counts = counts.iter().take(if step.blockers_asked > 0 { 4 } else { 2 });
            readings.extend(
                counts.map(|(family, count)| (count_metric(family, settings.block_ms, step.k), Ok(Value::Exact(*count as f64)))),
            );
        }
        Ok(readings)
    }

    fn title(settings: &Settings, view: &View<'_>) -> Option<String> {
        Some(format!(
            "Response time of the quick request in ms ({}) beside k slow ones that take {} ms alone, and the number of them that freezes it; {}",
            view.percentile,
            report::significant(settings.block_ms),
            conditions(view)
        ))
    }

    fn headline(settings: &Settings, _: &View<'_>) -> Vec<Column> {
        let block = settings.block_ms;
        let response = |k: &usize| {
            let k = *k;
            Column {
                column: report::Column::number(format!("k={k}")),
                cell: Box::new(move |view, row| view.cell(row, &response_metric(view.percentile, block, k))),
            }
        };
        let threshold = |limit_ms: f64| Column {
            column: report::Column::number(super::collateral::freeze_head(limit_ms)),
            cell: Box::new(move |view, row| super::collateral::freezing(view, row, &threshold_metric(block, limit_ms))),
        };
        let mut columns: Vec<Column> = settings.blockers.iter().map(response).collect();
        columns.extend(LIMITS_MS.into_iter().filter(|limit| *limit <= LIMIT_MS).map(threshold));
        columns
    }

    fn standing(settings: &Settings, view: &View<'_>, row: &Row) -> Option<Standing> {
        let k = view.median(row, &threshold_metric(settings.block_ms, LIMITS_MS[0]));
        let harm = match k {
            Some(Value::Exact(k)) => -k,
            Some(_) => f64::MIN,
            None => 0.0,
        };
        Some(Standing { group: Group::Unknown, harm, served: 0.0 })
    }

    fn tables(settings: &Settings, view: &View<'_>) -> Vec<Table> {
        let columns = settings.blockers.iter().map(|k| report::Column::number(format!("failed, k={k}"))).collect();
        let cells = |row: &Row| -> Vec<Cell> {
            let failed = |k: &usize| {
                let metric = climb::FAILED.at(Self::NAME, place(KIND, settings.block_ms, *k));
                Cell::words(report::count(view.sum(row, &metric)))
            };
            settings.blockers.iter().map(failed).collect()
        };
        let has_failed = view.rows.iter().any(|row| {
            settings
                .blockers
                .iter()
                .any(|k| view.sum(row, &climb::FAILED.at(Self::NAME, place(KIND, settings.block_ms, *k))) > 0.0)
        });
        let title = "Requests that failed in all trials: a wrong status, or a connection that broke";
        if has_failed { vec![view.table("failures", title, columns, cells)] } else { Vec::new() }
    }

    fn figures(settings: &Settings, view: &View<'_>) -> Vec<Figure> {
        let block = settings.block_ms;
        let alone = report::significant(block);
        let title = format!("{} of the quick request beside k slow ones that take {alone} ms alone", view.percentile);
        let scale = Scale::response_time(view.percentile);
        let scale = Scale { label: format!("response time ({})", view.percentile), ..scale };
        let x = Places::even("slow requests at a time (k)", &settings.blockers);
        let metric = |at: usize| response_metric(view.percentile, block, settings.blockers[at]);
        view.figure(KIND, title, x, scale, metric).into_iter().collect()
    }

    fn scenes(self) -> Vec<Scene> {
        self.run.scenes()
    }
}

/// The response time of the quick request beside k slow ones.
pub fn response_metric(percentile: Percentile, block_ms: f64, k: usize) -> Metric {
    percentile.family().at(Service::NAME, place(KIND, block_ms, k))
}

/// The numbers of quick requests beside k slow ones: of those that failed, and of all.
pub fn failure_metrics(block_ms: f64, k: usize) -> [Metric; 2] {
    [QUICK_FAILED, QUICK].map(|family| count_metric(&family, block_ms, k))
}

/// The same of the slow ones.
pub fn slow_failure_metrics(block_ms: f64, k: usize) -> [Metric; 2] {
    [SLOW_FAILED, SLOW].map(|family| count_metric(&family, block_ms, k))
}

fn count_metric(family: &Family, block_ms: f64, k: usize) -> Metric {
    family.at(Service::NAME, place(KIND, block_ms, k))
}

/// The freeze threshold at a limit.
pub fn threshold_metric(block_ms: f64, limit_ms: f64) -> Metric {
    freeze_metric(Service::NAME, KIND, block_ms, limit_ms)
}

impl Settings {
    /// Whether the slow request is slow enough to show anything.
    pub fn has_slow_request(&self) -> bool {
        self.block_ms >= LEAST_BLOCK_MS && self.block_ms >= LEAST_RATIO * self.probe_ms
    }

    /// What the response times of a step stand for: p99, or the longest of few probes.
    pub fn percentile_words(&self) -> String {
        let probes = self.rate * self.window_ms as f64 / 1e3;
        if probes >= PROBES { "p99".into() } else { format!("the longest of {probes:.0}") }
    }

    /// The share that the probes are of what the slowest service can answer one after another, if that is more than they should be.
    pub fn too_many_probes(&self) -> Option<f64> {
        let share = (self.rate + probes::fresh_rate(self.rate)) * self.probe_ms / 1e3;
        (share > SHARE * 1.01).then_some(share)
    }

    /// The settings for these services: T, a rate of probes that each of them bears, and steps long enough for both. Asks each service alone.
    ///
    /// # Errors
    /// A service that does not start, or that does not answer what it is asked.
    pub fn learn(self, servers: &[Server], start: &Start, mode: Mode) -> Result<Settings> {
        let (mut quick, mut slow) = (Duration::ZERO, Duration::ZERO);
        for server in servers {
            let alone = Self::ask_alone(server, start)?;
            (quick, slow) = (quick.max(alone.0), slow.max(alone.1));
        }
        Ok(self.fit(quick, slow, mode))
    }

    /// The times that the quick and the slow request of a service take alone.
    fn ask_alone(server: &Server, start: &Start) -> Result<(Duration, Duration)> {
        let Some(own) = &server.own else { bail!("{} keeps the contract, so nothing has to be learned", server.name) };
        let mut running = deploy::start(server, start)?;
        let median = |mut times: Vec<Duration>| {
            times.sort();
            times[times.len() / 2]
        };
        // The first request of each kind warms up.
        learn_own(&mut running, own, &own.probe)?;
        learn_own(&mut running, own, &own.blocker)?;
        let mut probes = Vec::new();
        for _ in 0..PROBED {
            probes.push(learn_own(&mut running, own, &own.probe)?.1);
        }
        let mut blockers = Vec::new();
        for _ in 0..ALONE {
            blockers.push(learn_own(&mut running, own, &own.blocker)?.1);
        }
        Ok((median(probes), median(blockers)))
    }

    /// The settings for services whose slowest quick and slow requests take these times alone.
    fn fit(self, quick: Duration, slow: Duration, mode: Mode) -> Settings {
        let most = self.rate.min(PER_CONNECTION * self.connections as f64);
        let rate = probes::kept_rate(SHARE / quick.as_secs_f64()).max(LEAST_RATE).min(most).floor();
        let block_ms = (ms(slow) * 10.0).round() / 10.0;
        let (shortest, longest) = if mode == Mode::Quick { QUICK_WINDOW_MS } else { WINDOW_MS };
        let least = (BLOCKERS_PER_STEP * block_ms).max((LEAST_PROBES / rate * 1e3).ceil());
        let window_ms = (PROBES / rate * 1e3).clamp(shortest, longest).max(least) as u64;
        let reference_window_ms = match mode {
            Mode::Quick => QUICK_REFERENCE_MS.max(least) as u64,
            _ => window_ms,
        };
        Settings { block_ms, probe_ms: ms(quick), window_ms, reference_window_ms, rate, ..self }
    }
}

fn climb_own(session: &Session<'_>, settings: &Settings) -> Result<Run> {
    let Some(own) = &session.server.own else { bail!("{} is not a user's own server", session.server.name) };
    let mut running = session.start()?;
    let probe = lenient(learn_own(&mut running, own, &own.probe)?.0);
    let blocker = lenient(learn_own(&mut running, own, &own.blocker)?.0);
    let at_once = (WARM_QUEUE_MS / settings.probe_ms).max(1.0) as usize;
    let warm = session.warm_up(&probe, settings.connections.min(at_once));
    running.explain(warm)?;
    let climb = Climb {
        kind: KIND,
        block_ms: settings.block_ms,
        window: Duration::from_millis(settings.window_ms),
        limit: Duration::from_secs_f64(LIMIT_MS / 1e3),
        blockers: &settings.blockers,
        probe: (&probe, settings.rate, settings.connections),
        blocker: &blocker,
        at_once: &|_| None,
        is_lenient: true,
    };
    let _driver = session.placement.enter_driver(true);
    running.explain(climb.run(session))
}

fn climb_reference(session: &Session<'_>, settings: &Settings) -> Result<Run> {
    let ladder = Ladder {
        block_ms: settings.block_ms,
        window_ms: settings.reference_window_ms,
        limit_ms: LIMIT_MS,
        rate: settings.rate,
        connections: settings.connections,
    };
    let run = ladder.run(session, Kind::Sleep, &settings.reference_blockers)?;
    Ok(Run { kind: KIND.into(), ..run })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(quick_ms: f64, slow_ms: f64) -> Settings {
        let choices = Choices::default();
        let times = [quick_ms, slow_ms].map(|ms| Duration::from_secs_f64(ms / 1e3));
        Service::settings(Mode::Standard, &choices).fit(times[0], times[1], Mode::Standard)
    }

    #[test]
    fn the_probes_of_both_lanes_leave_a_service_of_one_thread_most_of_its_time() {
        for quick_ms in [0.1, 1.0, 5.0, 25.0, 50.0, 90.0, 100.0] {
            let settings = fitted(quick_ms, 300.0);
            let share = (settings.rate + probes::fresh_rate(settings.rate)) * quick_ms / 1e3;
            assert!(share <= SHARE * 1.01, "{quick_ms} ms: {share}");
            assert!(settings.rate * settings.window_ms as f64 / 1e3 >= LEAST_PROBES, "{quick_ms} ms: {settings:?}");
            assert_eq!(settings.too_many_probes(), None);
        }
        assert_eq!(fitted(0.1, 300.0).rate, PER_CONNECTION * CONNECTIONS as f64);
        let slow = fitted(400.0, 2000.0);
        assert_eq!(slow.too_many_probes().map(|share| (share * 100.0).round()), Some(100.0));
    }
}
