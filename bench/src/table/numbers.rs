//! The numbers of a round by server and metric, each over its trials. Tables, comparisons and CSV all start from here.

use crate::experiment::{Outcome, collateral::Collateral, footprint::Footprint, throughput::Throughput, two_tabs::TwoTabs};
use crate::round::Round;
use crate::stats::{Summary, summarize};
use std::collections::BTreeMap;

/// A metric's name, with its unit last: `p99_ms[sleep,4]`.
pub type Metric = String;

/// One metric of one server over its trials.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// Values of the valid trials. Infinity stands for "not measured, since a smaller load had passed the limit already".
    pub values: Vec<f64>,
    /// Reasons of the invalid ones.
    pub invalid: Vec<String>,
}

impl Cell {
    /// Median and interval of the valid trials.
    pub fn summary(&self) -> Option<Summary> {
        summarize(&self.values)
    }
}

/// All cells of a round.
#[derive(Debug, Default)]
pub struct Numbers {
    cells: BTreeMap<String, BTreeMap<Metric, Cell>>,
}

impl Numbers {
    /// Takes a round apart.
    pub fn of(round: &Round) -> Self {
        let mut numbers = Numbers::default();
        for trial in &round.trials {
            let cells = numbers.cells.entry(trial.server.clone()).or_default();
            if let Outcome::Invalid { reason } = &trial.outcome {
                cells.entry(trial.experiment.clone()).or_default().invalid.push(reason.clone());
            }
            for (metric, value) in take_apart(&trial.outcome, &round.header.settings.blockers) {
                let cell = cells.entry(metric).or_default();
                match value {
                    Ok(value) => cell.values.push(value),
                    Err(reason) => cell.invalid.push(reason),
                }
            }
        }
        numbers
    }

    /// A cell, if anything is known of it; a server's experiment that was invalid as a whole stands for its metrics.
    pub fn cell(&self, server: &str, metric: &str, experiment: &str) -> Option<&Cell> {
        let cells = self.cells.get(server)?;
        cells.get(metric).or_else(|| cells.get(experiment))
    }

    /// The median of a metric.
    pub fn median(&self, server: &str, metric: &str) -> Option<f64> {
        Some(self.cells.get(server)?.get(metric)?.summary()?.median)
    }

    /// The values of a metric.
    pub fn values(&self, server: &str, metric: &str) -> &[f64] {
        self.cells.get(server).and_then(|cells| cells.get(metric)).map_or(&[], |cell| &cell.values)
    }

    /// All cells of a server, by metric.
    pub fn of_server(&self, server: &str) -> impl Iterator<Item = (&Metric, &Cell)> {
        self.cells.get(server).into_iter().flatten()
    }
}

type Values = Vec<(Metric, Result<f64, String>)>;

fn take_apart(outcome: &Outcome, blockers: &[usize]) -> Values {
    match outcome {
        Outcome::Invalid { .. } => Vec::new(),
        Outcome::TwoTabs(tabs) => of_tabs(tabs),
        Outcome::Collateral(collateral) => of_collateral(collateral, blockers),
        Outcome::Throughput(throughput) => of_throughput(throughput),
        Outcome::Footprint(footprint) => of_footprint(footprint),
    }
}

fn of_tabs(tabs: &TwoTabs) -> Values {
    let fall = |fall: &crate::experiment::two_tabs::Fall| {
        let first = fall.finished_ms.first().copied().unwrap_or(f64::NAN);
        let last = fall.finished_ms.last().copied().unwrap_or(f64::NAN);
        [(format!("first_ms[{}]", fall.tabs), Ok(first)), (format!("last_ms[{}]", fall.tabs), Ok(last))]
    };
    tabs.falls.iter().flat_map(fall).collect()
}

fn of_collateral(collateral: &Collateral, blockers: &[usize]) -> Values {
    let mut values = Values::new();
    let mut put = |metric: String, invalid: &Option<String>, value: f64| {
        values.push((metric, invalid.clone().map_or(Ok(value), Err)));
    };
    let base = &collateral.baseline;
    put("p99_ms[0]".into(), &base.invalid, base.probes.p99_us / 1e3);
    put("p50_ms[0]".into(), &base.invalid, base.probes.p50_us / 1e3);
    for run in &collateral.runs {
        // The long blockers of a thorough round are a cell of their own.
        let kind = if run.block_ms == 100 { run.kind.clone() } else { format!("{}{}", run.kind, run.block_ms) };
        for step in &run.steps {
            let k = step.k;
            put(format!("p99_ms[{kind},{k}]"), &step.invalid, step.probes.p99_us / 1e3);
            put(format!("max_ms[{kind},{k}]"), &step.invalid, step.probes.max_us / 1e3);
            put(format!("fresh_max_ms[{kind},{k}]"), &step.invalid, step.fresh.max_us / 1e3);
            put(format!("dead[{kind},{k}]"), &step.invalid, step.dead);
            put(format!("blockers_per_s[{kind},{k}]"), &step.invalid, step.blockers_per_s);
            if let Some(recovery) = step.recovery_ms {
                put(format!("recovery_ms[{kind},{k}]"), &step.invalid, recovery);
            }
        }
        // Beyond the last step the limit was passed already, unless that step is itself worth nothing.
        let (reached, invalid) = run.steps.last().map_or((0, None), |step| (step.k, step.invalid.clone()));
        for k in blockers.iter().filter(|k| **k > reached) {
            put(format!("p99_ms[{kind},{k}]"), &invalid, f64::INFINITY);
        }
    }
    values
}

fn of_throughput(throughput: &Throughput) -> Values {
    let mut values = Values::new();
    for one in &throughput.loops {
        let mut put =
            |name: &str, value| values.push((format!("{name}[{}]", one.way), one.invalid.clone().map_or(Ok(value), Err)));
        put("cpu_us", one.cpu_us);
        put("user_us", one.cpu_us * one.user);
        put("per_cpu_s", 1e6 / one.cpu_us);
        put("per_s", one.per_s);
        put("driver_bound", f64::from(u8::from(one.is_driver_bound)));
    }
    values
}

fn of_footprint(footprint: &Footprint) -> Values {
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    let mut values = vec![
        ("binary_mib".into(), Ok(mib(footprint.binary_bytes))),
        ("ready_ms".into(), Ok(footprint.until_ready_ms)),
        ("idle_rss_mib".into(), Ok(mib(footprint.idle.rss_bytes))),
        ("idle_pss_mib".into(), Ok(mib(footprint.idle.pss_bytes))),
        ("threads".into(), Ok(footprint.idle.threads as f64)),
    ];
    values.extend(footprint.per_connection().map(|bytes| ("connection_kib".into(), Ok(bytes / 1024.0))));
    let most = footprint.levels.last().map_or(0, |level| level.connections);
    values.push(("idle_connections".into(), footprint.cap.clone().map_or(Ok(most as f64), Err)));
    values
}
