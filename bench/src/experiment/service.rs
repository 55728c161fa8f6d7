//! A user's own service: the harm that its slow requests do to its quick ones, beside reference servers with blockers of the same length, measured
//! in the same round on the same machine.

mod fit;
mod fresh;
mod measure;
mod named;

pub use measure::ending;
pub use named::{
    compared_metrics, fails_metric, failure_metrics, fresh_failed_metric, fresh_grows_metric, fresh_metric,
    fresh_threshold_metric, median_metric, refused_metric, response_metric, served_metric, slow_failure_metrics,
    slow_time_metric, threshold_metric, wait_metrics,
};

use super::climb::{self, Run, Step, place};
use super::contract::{Choices, Column, Experiment, Scene, conditions};
use super::probes;
use crate::catalog::Row;
use crate::measure::{Mode, Session};
use crate::metrics::{Family, LIMITS_MS, Percentile, Reading, Value};
use crate::report::{self, Cell, Figure, Group, Places, Scale, Standing, Table, View};
use anyhow::Result;
use measure::{climb_own, climb_reference};
use named::{FRESH_FREEZE, QUICK, QUICK_FAILED, SLOW, SLOW_FAILED, count_metric};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
/// The least time of a slow request, in ms, and its least ratio to the time of the quick one.
const LEAST_BLOCK_MS: f64 = 5.0;
const LEAST_RATIO: f64 = 2.0;

/// A climb.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Service {
    run: Run,
}

/// The times that the slow request of a service takes alone, in ms; their median stands beside them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Lone {
    /// Their mean.
    pub mean_ms: f64,
    /// The shortest.
    pub least_ms: f64,
    /// That of nine in ten.
    pub most_ms: f64,
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
    /// How that time varies, by name; empty in rounds before 2026-12.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lone: BTreeMap<String, Lone>,
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
            lone: BTreeMap::new(),
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
                readings.push((slow_time_metric(settings.block_ms, step.k), Ok(took)));
            }
            if let (None, Some(waits)) = (&step.invalid, step.waits.or_else(|| longest(step))) {
                let metrics = wait_metrics(settings.block_ms, step.k);
                readings.extend(metrics.into_iter().zip(waits.map(Ok)));
            }
            readings.extend(step.refused.iter().filter_map(|(status, count)| {
                Some((refused_metric(*status, settings.block_ms, step.k)?, Ok(Value::Exact(*count as f64))))
            }));
            // Without blockers, and in rounds that did not count them, there are none to speak of.
            let counts = counts.iter().take(if step.blockers_asked > 0 { 4 } else { 2 });
            readings.extend(
                counts.map(|(family, count)| (count_metric(family, settings.block_ms, step.k), Ok(Value::Exact(*count as f64)))),
            );
        }
        Ok(readings)
    }

    fn families(percentile: Percentile) -> Vec<Family> {
        climb::families(percentile).into_iter().chain([FRESH_FREEZE]).collect()
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

/// The longest wait of the probes that did not fail, for those of them that say no more.
fn longest(step: &Step) -> Option<[Value; 2]> {
    let probes = &step.probes;
    if probes.answered + probes.unanswered <= probes.failed {
        return None;
    }
    let longest_ms = probes.longest_us.filter(|_| probes.failed > 0)? / 1e3;
    let value = if probes.unanswered > probes.failed { Value::AtLeast(longest_ms) } else { Value::Exact(longest_ms) };
    Some([Value::AtLeast(0.0), value])
}

/// The first request of a trial that failed, in words.
pub fn first_failure(found: &serde_json::Value) -> Option<String> {
    let service: Service = serde_json::from_value(found.clone()).ok()?;
    service.run.steps.into_iter().find_map(|step| step.first_error)
}

/// Whether the service ended during a trial.
pub fn has_ended(found: &serde_json::Value) -> bool {
    let service = serde_json::from_value::<Service>(found.clone());
    service.is_ok_and(|service| service.run.steps.iter().any(|step| step.invalid.as_deref().and_then(ending).is_some()))
}

impl Settings {
    /// Whether the slow request is slow enough to show anything.
    pub fn has_slow_request(&self) -> bool {
        self.is_slow(self.block_ms)
    }

    /// The time that the slow request of one service takes alone, in ms.
    pub fn slow_ms(&self, server: &str) -> f64 {
        self.slow_ms.get(server).copied().unwrap_or(self.block_ms)
    }

    /// Whether a request that takes this long alone is slow enough to show anything.
    pub fn is_slow(&self, ms: f64) -> bool {
        ms >= LEAST_BLOCK_MS && ms >= LEAST_RATIO * self.probe_ms
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
