//! The numbers of a round by server and metric, each over its trials. Tables, comparisons and CSV all start from here.

use crate::experiment::blocking_functions::BlockingFunctions;
use crate::experiment::collateral::OWN;
use crate::experiment::dose_response::DoseResponse;
use crate::experiment::latency::LatencyBelowPeak;
use crate::experiment::reload::Reload;
use crate::experiment::scaling::Scaling;
use crate::experiment::{
    Latency, Outcome, collateral::Collateral, footprint::Footprint, throughput::Throughput, two_tabs::TwoTabs,
};
use crate::round::{Round, Trial};
use crate::stats::{Summary, summarize};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A metric's name, with its unit last: `p99_ms[sleep,4]`.
pub type Metric = String;

/// The limits of response-time research, in ms.
pub const LIMITS_MS: [f64; 3] = [100.0, 1000.0, 10_000.0];

/// What p99 may be while a handler blocks, in ms: unnoticed, and instant.
pub const BEARABLE_MS: [f64; 2] = [10.0, 100.0];

/// Which percentile of the response times stands for a trial: 99 unless a round is read anew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentile(f64);

impl Default for Percentile {
    fn default() -> Self {
        Percentile(99.0)
    }
}

impl Percentile {
    /// As a share of all samples.
    pub fn quantile(self) -> f64 {
        self.0 / 100.0
    }

    /// The metric of this percentile beside so many blockers of a kind.
    pub fn metric(self, kind: &str, k: usize) -> Metric {
        if k == 0 { format!("{self}_ms[0]") } else { format!("{self}_ms[{kind},{k}]") }
    }
}

impl fmt::Display for Percentile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl FromStr for Percentile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim_start_matches('p').parse().ok().filter(|number| *number > 0.0 && *number < 100.0);
        number.map(Percentile).ok_or_else(|| format!("'{text}' is no percentile between 0 and 100"))
    }
}

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
    ///
    /// # Errors
    /// A histogram that cannot be read, with file and line.
    pub fn of(round: &Round, percentile: Percentile) -> Result<Self> {
        let mut numbers = Numbers::default();
        for (index, trial) in round.trials.iter().enumerate() {
            let taken = take_apart(trial, &round.header.settings.blockers, percentile);
            let taken = taken.with_context(|| format!("{}:{}", round.folder.join("trials.jsonl").display(), index + 1))?;
            let cells = numbers.cells.entry(trial.server.clone()).or_default();
            if let Outcome::Invalid { reason } = &trial.outcome {
                cells.entry(trial.experiment.clone()).or_default().invalid.push(reason.clone());
            }
            for (metric, value) in taken {
                let cell = cells.entry(metric).or_default();
                match value {
                    Ok(value) => cell.values.push(value),
                    Err(reason) => cell.invalid.push(reason),
                }
            }
        }
        Ok(numbers)
    }

    /// Puts made-up values in.
    #[cfg(test)]
    pub fn put(&mut self, server: &str, metric: &str, values: &[f64]) {
        let cells = self.cells.entry(server.into()).or_default();
        cells.entry(metric.into()).or_default().values.extend_from_slice(values);
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

fn take_apart(trial: &Trial, blockers: &[usize], percentile: Percentile) -> Result<Values> {
    Ok(match &trial.outcome {
        Outcome::Invalid { .. } => Vec::new(),
        Outcome::TwoTabs(tabs) => of_tabs(tabs),
        Outcome::Collateral(collateral) => of_collateral(collateral, blockers, percentile)?,
        Outcome::Throughput(throughput) => of_throughput(throughput),
        Outcome::Footprint(footprint) => of_footprint(footprint),
        Outcome::DoseResponse(found) => of_dose(found, percentile)?,
        Outcome::BlockingFunctions(found) => of_functions(found, percentile)?,
        Outcome::Latency(found) => of_latency(found, percentile)?,
        Outcome::Scaling(found) => of_scaling(found, percentile)?,
        Outcome::Reload(found) => of_reload(found),
    })
}

/// A percentile of response time, in ms.
fn response_ms(latency: &Latency, percentile: Percentile) -> Result<f64> {
    Ok(latency.response_us(percentile.quantile())? / 1e3)
}

fn of_tabs(tabs: &TwoTabs) -> Values {
    let fall = |fall: &crate::experiment::two_tabs::Fall| {
        let first = fall.finished_ms.first().copied().unwrap_or(f64::NAN);
        let last = fall.finished_ms.last().copied().unwrap_or(f64::NAN);
        [(format!("first_ms[{}]", fall.tabs), Ok(first)), (format!("last_ms[{}]", fall.tabs), Ok(last))]
    };
    tabs.falls.iter().flat_map(fall).collect()
}

fn of_collateral(collateral: &Collateral, blockers: &[usize], percentile: Percentile) -> Result<Values> {
    let mut values = Values::new();
    let base = &collateral.baseline;
    values.push((percentile.metric("", 0), valid(&base.invalid, response_ms(&base.probes, percentile)?)));
    values.push(("p50_ms[0]".into(), valid(&base.invalid, base.probes.p50_us / 1e3)));
    for run in &collateral.runs {
        // The long blockers of a thorough round are a cell of their own.
        let kind =
            if run.block_ms == 100 || run.kind == OWN { run.kind.clone() } else { format!("{}{}", run.kind, run.block_ms) };
        let mut ladder = Vec::new();
        for step in &run.steps {
            let k = step.k;
            let mut put = |name: &str, value| values.push((format!("{name}[{kind},{k}]"), valid(&step.invalid, value)));
            let response = response_ms(&step.probes, percentile)?;
            put(&format!("{percentile}_ms"), response);
            put("max_ms", step.probes.max_us / 1e3);
            put("fresh_max_ms", step.fresh.max_us / 1e3);
            put("dead", step.dead);
            put("blockers_per_s", step.blockers_per_s);
            if let Some(recovery) = step.recovery_ms {
                put("recovery_ms", recovery);
            }
            ladder.push((k, valid(&step.invalid, response)));
        }
        // Beyond the last step the limit was passed already, unless that step is itself worth nothing.
        let (reached, invalid) = run.steps.last().map_or((0, None), |step| (step.k, step.invalid.clone()));
        for k in blockers.iter().filter(|k| **k > reached) {
            values.push((percentile.metric(&kind, *k), valid(&invalid, f64::INFINITY)));
        }
        for limit_ms in LIMITS_MS.into_iter().filter(|limit_ms| *limit_ms <= run.limit_ms as f64) {
            values.push((format!("freeze_k[{kind},{limit_ms}]"), freeze_k(&ladder, limit_ms)));
        }
    }
    Ok(values)
}

/// One trial's smallest number of blockers whose percentile passes the limit; infinity if none of those measured does. What is
/// worth nothing on the way up makes the answer worth nothing.
fn freeze_k(ladder: &[(usize, Result<f64, String>)], limit_ms: f64) -> Result<f64, String> {
    for (k, response) in ladder {
        if response.clone()? > limit_ms {
            return Ok(*k as f64);
        }
    }
    Ok(f64::INFINITY)
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
    values.extend(offload_us(throughput).map(|cost| ("offload_us".into(), cost)));
    values
}

/// What a blocking request that does nothing costs more than `/`: the way to the pool and back.
fn offload_us(throughput: &Throughput) -> Option<Result<f64, String>> {
    let of = |way: &str| throughput.loops.iter().find(|one| one.way == way);
    let (there, plain) = (of("offloaded")?, of("kept-alive")?);
    let invalid = there.invalid.clone().or_else(|| plain.invalid.clone());
    Some(invalid.map_or(Ok(there.cpu_us - plain.cpu_us), Err))
}

/// What a cell is worth, if it is worth anything.
fn valid(invalid: &Option<String>, value: f64) -> Result<f64, String> {
    invalid.clone().map_or(Ok(value), Err)
}

fn of_dose(found: &DoseResponse, percentile: Percentile) -> Result<Values> {
    let mut values = Values::new();
    let mut ladder = Vec::new();
    for stream in &found.lengths {
        let response = valid(&stream.invalid, response_ms(&stream.probes, percentile)?);
        ladder.push((stream.name.parse::<f64>().unwrap_or(f64::NAN), response.clone()));
        values.push((format!("{percentile}_ms[dose,{}]", stream.name), response));
    }
    values.extend(BEARABLE_MS.map(|limit| (format!("bearable_ms[{limit}]"), bearable(&ladder, limit))));
    Ok(values)
}

/// The longest blockers beside which the percentile stays within the limit, as do all that are shorter; 0 if there are none.
fn bearable(ladder: &[(f64, Result<f64, String>)], limit_ms: f64) -> Result<f64, String> {
    let mut longest = 0.0;
    for (length, response) in ladder {
        if response.clone()? > limit_ms {
            break;
        }
        longest = *length;
    }
    Ok(longest)
}

fn of_functions(found: &BlockingFunctions, percentile: Percentile) -> Result<Values> {
    let mut values = Values::new();
    for stream in &found.functions {
        let (name, invalid) = (&stream.name, &stream.invalid);
        values.push((format!("{percentile}_ms[function,{name}]"), valid(invalid, response_ms(&stream.probes, percentile)?)));
        values.push((format!("max_ms[function,{name}]"), valid(invalid, stream.probes.max_us / 1e3)));
        values.push((format!("function_ms[{name}]"), valid(invalid, stream.requests.p50_us / 1e3)));
    }
    Ok(values)
}

fn of_latency(found: &LatencyBelowPeak, percentile: Percentile) -> Result<Values> {
    let mut values = vec![
        ("peak_per_s".into(), Ok(found.peak_per_s)),
        ("driver_bound[peak]".into(), Ok(f64::from(u8::from(found.is_driver_bound)))),
    ];
    for share in &found.shares {
        let percent = share.percent;
        values.push((format!("p50_ms[share,{percent}]"), valid(&share.invalid, share.latency.p50_us / 1e3)));
        values
            .push((format!("{percentile}_ms[share,{percent}]"), valid(&share.invalid, response_ms(&share.latency, percentile)?)));
    }
    Ok(values)
}

fn of_reload(found: &Reload) -> Values {
    let mut values =
        vec![("first_answer_ms".into(), Ok(found.first_answer_ms)), ("manager_rss_mib".into(), Ok(found.manager_rss_mib))];
    for step in &found.steps {
        let name = step.act.name();
        let of = |metric: &str| format!("{metric}[{name}]");
        let mut took = step.took_ms.clone();
        took.sort_by(f64::total_cmp);
        let did = |value: f64| step.trouble.clone().map_or(Ok(value), Err);
        // A driver that is late changes how long an answer takes, not whether there is one.
        let in_time = |value: f64| step.invalid.clone().map_or(did(value), Err);
        values.push((of("failed"), did(step.failed as f64)));
        values.push((of("requests"), did(step.planned as f64)));
        values.push((of("delayed"), in_time(step.delayed as f64)));
        values.push((of("longest_ms"), in_time(step.max_ms)));
        values.push((of("took_ms"), did(took.get(took.len() / 2).copied().unwrap_or(f64::NAN))));
    }
    values
}

fn of_scaling(found: &Scaling, percentile: Percentile) -> Result<Values> {
    let mut values = Values::new();
    for size in &found.sizes {
        let width = size.width;
        let mut ladder = Vec::new();
        for step in &size.sleep.steps {
            ladder.push((step.k, valid(&step.invalid, response_ms(&step.probes, percentile)?)));
        }
        values.push((format!("freeze_k[width,{width}]"), freeze_k(&ladder, size.sleep.limit_ms as f64)));
        for step in &size.work.steps {
            values.push((format!("work_per_s[{width}]"), valid(&step.invalid, step.blockers_per_s)));
            values.push((format!("{percentile}_ms[work,{width}]"), valid(&step.invalid, response_ms(&step.probes, percentile)?)));
        }
    }
    Ok(values)
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
    // One that allows no more is a result; the tables say what it said.
    values.push(("idle_connections".into(), Ok(footprint.reached.unwrap_or(most) as f64)));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trial_freezes_at_the_smallest_number_of_blockers_that_passes_the_limit() {
        let ladder = [(1, Ok(99.0)), (2, Ok(150.0)), (4, Ok(120.0)), (16, Ok(1600.0))];
        assert_eq!(freeze_k(&ladder, 100.0), Ok(2.0));
        assert_eq!(freeze_k(&ladder, 1000.0), Ok(16.0));
        assert_eq!(freeze_k(&ladder[..1], 100.0), Ok(f64::INFINITY));
    }

    #[test]
    fn a_worthless_step_below_the_threshold_makes_it_worthless_but_not_one_above_it() {
        let bad = || Err("lag".to_owned());
        assert_eq!(freeze_k(&[(1, bad()), (2, Ok(500.0))], 100.0), bad());
        assert_eq!(freeze_k(&[(1, Ok(500.0)), (2, bad())], 100.0), Ok(1.0));
    }

    #[test]
    fn the_longest_bearable_blocker_is_the_last_before_the_limit_is_passed() {
        let ladder = [(0.1, Ok(1.0)), (1.0, Ok(9.0)), (5.0, Ok(40.0)), (10.0, Ok(8.0)), (50.0, Ok(200.0))];
        assert_eq!(bearable(&ladder, 10.0), Ok(1.0));
        assert_eq!(bearable(&ladder, 100.0), Ok(10.0));
        assert_eq!(bearable(&ladder, 0.5), Ok(0.0));
        assert!(bearable(&[(0.1, Err("lag".into()))], 10.0).is_err());
    }

    #[test]
    fn percentiles_are_read_as_people_write_them() {
        assert_eq!("99.9".parse::<Percentile>().unwrap().metric("sleep", 4), "p99.9_ms[sleep,4]");
        assert_eq!("p50".parse::<Percentile>().unwrap().to_string(), "p50");
        for wrong in ["0", "100", "-1", "much", "NaN"] {
            assert!(wrong.parse::<Percentile>().unwrap_err().contains(wrong));
        }
    }
}
