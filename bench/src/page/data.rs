//! The numbers in a report, in the form that `report/src/data.ts` reads.

use super::moments::{Moments, Percentiles};
use super::opening::{self, Freezing, Opening};
use super::tables::{self, TableOf};
use super::{Beside, title};
use crate::metrics::{Better, Metric, Numbers, Percentile, Role, Value};
use crate::report::{Figure, Group};
use crate::round::{Header, Round};
use crate::summary::{self, Told};
use crate::verdict::noise::Noise;
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;

/// A whole report.
#[derive(Serialize)]
pub struct Page<'r> {
    name: String,
    #[serde(flatten)]
    opening: Opening,
    header: &'r Header,
    /// The seed as text: the numbers of a script have too few digits for it.
    seed: String,
    /// The trials of each cell that the round has; fewer than its settings say if it is not finished.
    trials_found: u32,
    /// The group of each server beside the first kind of slow request, in the order of the tables.
    order: Vec<(String, Option<&'static str>)>,
    /// The servers that are shown at first.
    shown: Vec<String>,
    tables: Vec<TableOf>,
    figures: Vec<Figure>,
    moments: Moments,
    metrics: Vec<MetricOf>,
    values: Values,
    /// The source of the noise.
    noise_note: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<BesideOf<'r>>,
}

/// A metric.
#[derive(Serialize)]
pub(super) struct MetricOf {
    name: String,
    /// Metrics of one family are judged as one table.
    family: String,
    experiment: &'static str,
    unit: &'static str,
    /// A step on a ladder, which has no relative noise.
    is_threshold: bool,
    /// More is better.
    is_more_better: bool,
    /// Differences below this are not claimed.
    least: f64,
}

/// One cell.
#[derive(Serialize)]
pub(super) struct ValuesOf {
    values: Vec<Value>,
    /// The ratio that a server measured twice stays within.
    #[serde(skip_serializing_if = "Option::is_none")]
    noise: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    invalid: Vec<String>,
}

#[derive(Serialize)]
struct BesideOf<'r> {
    name: String,
    header: &'r Header,
    trials_found: u32,
    figures: Vec<Figure>,
    freezing: Vec<Freezing>,
    lines: Vec<Told>,
    /// What the machine did to all servers alike was taken out of this round's values in `lines`.
    is_corrected: bool,
    notes: &'r [String],
}

impl<'r> Page<'r> {
    /// Collects everything for a page.
    ///
    /// # Errors
    /// Settings or trials that cannot be read.
    pub fn of(round: &'r Round, numbers: &Numbers, noise: &Noise, beside: Option<&'r Beside<'_>>) -> Result<Self> {
        let percentile = Percentile::default();
        let all = summary::tables(round, numbers, percentile)?;
        let order: Vec<(String, Option<Group>)> = summary::order(round, numbers, percentile)?;
        let percentiles = Percentiles::of(round)?;
        let mut figures = summary::figures(round, numbers, percentile)?;
        let names: Vec<&str> = order.iter().map(|(name, _)| name.as_str()).collect();
        figures.extend(percentiles.figures(&names));
        let shown = opening::shown(round, names.iter().copied());
        let (metrics, values) = cells(round.header.servers.iter().map(|row| row.name.as_str()), numbers, noise);
        let beside = beside.map(|other| -> Result<BesideOf<'r>> {
            let figures = summary::figures(other.round, other.numbers, percentile)?;
            let freezing = opening::freezing(other.round, other.numbers)?;
            let (lines, notes) = (other.comparison.told().collect(), other.comparison.notes());
            let is_corrected = other.comparison.is_corrected();
            let (name, header, trials_found) = (title(other.round), &other.round.header, other.round.trials_found());
            Ok(BesideOf { name, header, trials_found, figures, freezing, lines, is_corrected, notes })
        });
        Ok(Page {
            name: title(round),
            opening: Opening::of(round, numbers, &figures, &all)?,
            header: &round.header,
            seed: round.header.settings.seed.to_string(),
            trials_found: round.trials_found(),
            shown,
            order: order.into_iter().map(|(name, group)| (name, group.map(Group::name))).collect(),
            tables: all.iter().map(tables::of).collect(),
            figures,
            moments: Moments::of(round)?,
            metrics,
            values,
            noise_note: noise.note(),
            beside: beside.transpose()?,
        })
    }
}

/// By server: the values of each metric, by its position.
pub(super) type Values = BTreeMap<String, BTreeMap<usize, ValuesOf>>;

/// The cells of every compared metric.
pub(super) fn cells<'n>(servers: impl Iterator<Item = &'n str>, numbers: &Numbers, noise: &Noise) -> (Vec<MetricOf>, Values) {
    let mut metrics: Vec<MetricOf> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut values = BTreeMap::new();
    for server in servers {
        let mut own = BTreeMap::new();
        for (metric, cell) in numbers.of_server(server).filter(|(metric, _)| metric.family.role != Role::Detail) {
            let next = metrics.len();
            let at = *known.entry(format!("{} {metric}", metric.experiment)).or_insert(next);
            if at == next {
                metrics.push(MetricOf::of(metric));
            }
            let size = cell.summary().and_then(|summary| summary.median.number());
            let noise = size.filter(|_| metric.family.role != Role::Threshold).map(|size| noise.of(metric, size).exp());
            let noise = noise.map(|ratio| (ratio * 1e6).round() / 1e6);
            own.insert(at, ValuesOf { values: cell.values.iter().map(short).collect(), noise, invalid: cell.invalid.clone() });
        }
        values.insert(server.to_owned(), own);
    }
    (metrics, values)
}

impl MetricOf {
    fn of(metric: &Metric) -> Self {
        MetricOf {
            name: metric.to_string(),
            family: metric.family.name.to_string(),
            experiment: metric.experiment,
            unit: metric.family.unit.word(),
            is_threshold: metric.family.role == Role::Threshold,
            is_more_better: metric.family.better == Better::More,
            least: metric.family.least_claim(),
        }
    }
}

/// Without the digits that only a division has added. With fewer than these, values would tie that the tables tell apart.
fn short(value: &Value) -> Value {
    let digits = |number: f64| format!("{number:.9e}").parse().unwrap_or(number);
    match *value {
        Value::Exact(number) => Value::Exact(digits(number)),
        Value::AtLeast(number) => Value::AtLeast(digits(number)),
        other => other,
    }
}
