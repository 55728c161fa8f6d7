//! A user's own service: the harm that its slow requests do to its quick ones, beside reference servers with blockers of the same length, measured
//! in the same round on the same machine.

mod fit;
mod named;

pub use named::{
    fails_metric, failure_metrics, fresh_failed_metric, fresh_metric, fresh_threshold_metric, median_metric, response_metric,
    served_metric, slow_failure_metrics, slow_time_metric, threshold_metric,
};

use super::climb::{self, Climb, Ladder, Run, Step, place};
use super::contract::{Choices, Column, Experiment, Scene, conditions};
use super::probes;
use super::steps::freeze_k;
use crate::catalog::Row;
use crate::measure::{Kind, Mode, Session, learn_own, lenient};
use crate::metrics::{LIMITS_MS, Percentile, Reading, Value};
use crate::process::Running;
use crate::report::{self, Cell, Figure, Group, Places, Scale, Standing, Table, View};
use anyhow::{Result, bail};
use named::{QUICK, QUICK_FAILED, SLOW, SLOW_FAILED, count_metric};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

/// The kind of blocker in metrics, whatever a service does in it.
const KIND: &str = "slow";
/// Connections of the probes.
const CONNECTIONS: usize = 256;
/// Probes of a step for which p99 is more than the maximum.
const PROBES: f64 = 1000.0;
/// Shortest and longest step, in ms, unless blockers are longer; and the shortest of references in a quick round.
const WINDOW_MS: (f64, f64) = (1000.0, 4000.0);
const QUICK_REFERENCE_MS: f64 = 500.0;
/// The p99 at which k stops to ascend, in ms.
const LIMIT_MS: f64 = 1000.0;
/// A service that answers one request at a time has worked off the queue that the warm-up leaves within this time, in ms, and before the first step.
const WARM_QUEUE_MS: f64 = 500.0;
/// A server that has just failed requests, but is there, accepts a connection within this time.
const UNTIL_REFUSED: Duration = Duration::from_secs(1);
/// The least time of a slow request, in ms, and its least ratio to the time of the quick one.
const LEAST_BLOCK_MS: f64 = 5.0;
const LEAST_RATIO: f64 = 2.0;

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
    /// The time that the slow request of each service takes alone, in ms, by name; T is the longest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slow_ms: BTreeMap<String, f64>,
    /// The time that the quick request takes alone, in ms.
    #[serde(default)]
    pub probe_ms: f64,
    /// The same over a new connection; 0 in rounds before 2026-11-30.
    #[serde(default)]
    pub fresh_ms: f64,
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
            slow_ms: BTreeMap::new(),
            probe_ms: 0.0,
            fresh_ms: 0.0,
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
        readings.extend(self.fresh(settings)?);
        for step in &self.run.steps {
            let quick = [&step.probes, &step.fresh];
            let counts = [
                (QUICK, quick.iter().map(|lane| lane.planned).sum()),
                (QUICK_FAILED, quick.iter().map(|lane| lane.failed).sum()),
                (SLOW, step.blockers_asked),
                (SLOW_FAILED, step.blockers_failed),
            ];
            if step.invalid.is_none() {
                let fails = f64::from(u8::from(step.fails(percentile)));
                readings.push((fails_metric(settings.block_ms, step.k), Ok(Value::Exact(fails))));
            }
            if let (None, Some(took)) = (&step.invalid, step.blockers_p50_ms) {
                readings.push((slow_time_metric(settings.block_ms, step.k), Ok(Value::Exact(took))));
            }
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

impl Service {
    /// What new clients experience: a server with a limit on connections lets them wait, while those already connected are served as before.
    fn fresh(&self, settings: &Settings) -> Result<Vec<Reading>> {
        let (block_ms, mut readings, mut ladder) = (settings.block_ms, Vec::new(), Vec::new());
        for step in &self.run.steps {
            let value = match (&step.invalid, step.fresh.most_ms()?) {
                (Some(reason), _) => Err(reason.clone()),
                (None, Some(value)) => Ok(value),
                (None, None) => continue,
            };
            readings.push((fresh_metric(block_ms, step.k), value.clone()));
            readings.push((fresh_failed_metric(block_ms, step.k), Ok(Value::Exact(step.fresh.failed as f64))));
            ladder.push((step.k, value));
        }
        // Where the climb ended since all were frozen, nothing is known of more slow requests.
        let is_whole = ladder.last().map(|(k, _)| *k) >= settings.blockers.last().copied();
        for limit_ms in LIMITS_MS.into_iter().filter(|limit_ms| *limit_ms <= self.run.limit_ms && !ladder.is_empty()) {
            let threshold = freeze_k(&ladder, limit_ms);
            let is_known = match threshold {
                Ok(Value::Never { .. }) => is_whole,
                Ok(_) => true,
                // A wait that was cut short below the limit is no fault; an invalid step is.
                Err(_) => ladder.iter().any(|(_, value)| value.is_err()),
            };
            if is_known {
                readings.push((fresh_threshold_metric(block_ms, limit_ms), threshold));
            }
        }
        Ok(readings)
    }
}

/// The first request of a trial that failed, in words.
pub fn first_failure(found: &serde_json::Value) -> Option<String> {
    let service: Service = serde_json::from_value(found.clone()).ok()?;
    service.run.steps.into_iter().find_map(|step| step.first_error)
}

impl Settings {
    /// Whether the slow request is slow enough to show anything.
    pub fn has_slow_request(&self) -> bool {
        self.block_ms >= LEAST_BLOCK_MS && self.block_ms >= LEAST_RATIO * self.probe_ms
    }

    /// The time that the slow request of one service takes alone, in ms.
    pub fn slow_ms(&self, server: &str) -> f64 {
        self.slow_ms.get(server).copied().unwrap_or(self.block_ms)
    }

    /// The time above which the quick request counts as frozen, in ms: far above what it takes alone. `None` if it is too slow for any.
    pub fn limit_ms(&self) -> Option<f64> {
        limit_above(self.probe_ms)
    }

    /// The same of one over a new connection.
    pub fn fresh_limit_ms(&self) -> Option<f64> {
        limit_above(self.probe_ms.max(self.fresh_ms))
    }

    /// What the response times of a step stand for: p99, or the longest of few probes.
    pub fn percentile_words(&self) -> String {
        let probes = self.rate * self.window_ms as f64 / 1e3;
        if probes.round() >= PROBES { "p99".into() } else { format!("the longest of {probes:.0}") }
    }
}

/// The least limit that is far above what a request takes alone.
fn limit_above(alone_ms: f64) -> Option<f64> {
    LIMITS_MS.into_iter().find(|limit_ms| *limit_ms >= LEAST_RATIO * alone_ms).filter(|limit_ms| *limit_ms <= LIMIT_MS)
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
        connecting: Duration::from_secs_f64(settings.fresh_ms / 1e3),
        window: Duration::from_millis(settings.window_ms),
        limit: Duration::from_secs_f64(LIMIT_MS / 1e3),
        blockers: &settings.blockers,
        probe: (&probe, settings.rate, settings.connections),
        blocker: &blocker,
        at_once: &|_| None,
        is_lenient: true,
    };
    let _driver = session.placement.enter_driver(true);
    let mut run = running.explain(climb.run(session))?;
    if let Some(last) = run.steps.last_mut().filter(|last| last.invalid.is_some() || last.has_failures()) {
        explain(last, &mut running);
    }
    Ok(run)
}

/// Says why a step could not be measured, or that the server did not outlive it: what died has no response times.
fn explain(last: &mut Step, running: &mut Running) {
    let reason = last.invalid.clone().unwrap_or_else(|| format!("beside k={} the measurement broke off", last.k));
    let Err(error) = running.explain::<()>(Err(anyhow::anyhow!("{reason}"))) else { return };
    let is_gone = running.ended().is_some();
    if last.invalid.is_some() || is_gone {
        last.invalid = Some(error.to_string());
    } else if let Err(refusal) = TcpStream::connect_timeout(&running.address, UNTIL_REFUSED)
        && refusal.kind() == ErrorKind::ConnectionRefused
    {
        last.invalid = Some(format!("{reason}: no server listens there any more"));
    }
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
    use crate::load::Recording;
    use crate::measure::Latency;
    use crate::metrics::Role;

    /// The thresholds of new connections, of which each step says how many were answered at once, and the ages of those that still waited.
    fn thresholds(steps: &[(usize, u64, u64, u64)]) -> Vec<(String, Result<Value, String>)> {
        let step = |&(k, answered, waiting, age_ms): &(usize, u64, u64, u64)| {
            let mut fresh = Recording { planned: answered + waiting, answered, unanswered: waiting, ..Recording::default() };
            (0..answered).for_each(|_| fresh.count(0, 0, 200_000, true));
            fresh.count_ages(age_ms * 1_000_000, waiting as u32);
            Step { invalid: None, fresh: Latency::of(&fresh), ..Step::unmeasured(k, String::new()) }
        };
        let run = Run { kind: KIND.into(), block_ms: 110.0, limit_ms: LIMIT_MS, steps: steps.iter().map(step).collect() };
        let settings = Settings { block_ms: 110.0, ..Service::settings(Mode::Quick, &Choices::default()) };
        let readings = Service { run }.fresh(&settings).unwrap();
        let is_threshold = |(metric, _): &Reading| metric.family.role == Role::Threshold;
        readings.into_iter().filter(is_threshold).map(|(metric, value)| (metric.place, value)).collect()
    }

    #[test]
    fn new_connections_that_wait_are_told_and_a_wait_that_was_cut_short_below_a_limit_is_no_fault() {
        let at = |limit_ms: u32, k: f64| (format!("slow@110,{limit_ms}ms"), Ok(Value::Exact(k)));
        assert_eq!(thresholds(&[(0, 20, 0, 0), (1, 20, 0, 0), (4, 0, 20, 1740)]), [at(100, 4.0), at(1000, 4.0)]);
        // The climb was given up, since all others had waited for a second by then.
        assert_eq!(thresholds(&[(0, 20, 0, 0), (1, 0, 20, 900)]), [at(100, 1.0)]);
        assert_eq!(thresholds(&[(0, 20, 0, 0), (1, 19, 1, 900)]), [], "one may be unlucky");
    }
}
