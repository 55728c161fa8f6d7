//! The headline: the harm that k blockers do to every other client.
//!
//! Probes go to `/` at a fixed rate over kept-alive connections, a few over fresh ones, while k blockers of length T are kept in flight. k ascends
//! until the probes' p99 passes the limit. Each kind of blocker has a fresh process, and climbs from no blockers on.

use super::climb::{self, Ladder, Run, Step, freeze_metric, place};
use super::contract::{Choices, Column, Experiment, Needs, Scene, conditions, keeps_launches};
use super::{expected, probes};
use crate::catalog::{Row, Server};
use crate::measure::{Kind, Mode, Session};
use crate::metrics::{Family, LIMITS_MS, Metric, Percentile, Reading, Value};
use crate::report::{self, Cell, Figure, Group, Legend, Mark, Places, Point, Scale, Series, Standing, Table, View};
use crate::validity::LEAST_CLAIM;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// T. Not 100 ms: one loop beside one blocker would stand on the edge of the limit of 0.1 s, and half its trials fall to each side.
const BLOCK_MS: f64 = 110.0;
/// T in rounds of schema 1.
const BLOCK_MS_OF_SCHEMA_1: f64 = 100.0;
/// Length of each step. In a shorter one, two stalls of the machine of a few milliseconds each would be p99.
const WINDOW_MS: u64 = 1000;
/// The p99 at which k stops to ascend, in ms.
const LIMIT_MS: f64 = 1000.0;
/// The limit of ten seconds needs blockers of a second and a window that is longer than the limit: T, window and limit in ms, and k.
const LONG: (f64, u64, f64, [usize; 5]) = (1000.0, 15_000, 10_000.0, [1, 2, 4, 8, 16]);
/// Number of blockers at which details are given: every mode of a round measures it.
const DETAILS_AT: usize = 4;
/// The numbers of blockers that answer the question.
const TELLING: [usize; 4] = [0, 1, 4, 64];

/// What was found for each kind of blocker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Collateral {
    /// Of a round of schema 1: the step without blockers, on the process of the first run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    baseline: Option<Step>,
    runs: Vec<Run>,
}

/// How it measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Kinds of blockers.
    kinds: Vec<Kind>,
    /// Numbers of blockers, ascending from 0.
    blockers: Vec<usize>,
    /// T, in ms.
    block_ms: f64,
    /// Length of each step, in ms.
    window_ms: u64,
    /// Connections of the probes.
    connections: usize,
    /// Whether long blockers climb to the limit of ten seconds.
    has_long: bool,
}

impl Experiment for Collateral {
    const NAME: &'static str = "collateral";
    const IS_STANDARD: bool = true;
    type Settings = Settings;

    fn settings(mode: Mode, choices: &Choices) -> Settings {
        let kinds = match mode {
            Mode::Quick => vec![Kind::Sleep],
            Mode::Standard => vec![Kind::Sleep, Kind::Cpu],
            Mode::Thorough => vec![Kind::Sleep, Kind::Cpu, Kind::Pbkdf2],
        };
        Settings {
            kinds: if choices.kinds.is_empty() { kinds } else { choices.kinds.clone() },
            blockers: if mode == Mode::Quick { TELLING.to_vec() } else { vec![0, 1, 2, 4, 16, 64] },
            block_ms: BLOCK_MS,
            window_ms: WINDOW_MS,
            connections: choices.connections.unwrap_or(probes::CONNECTIONS),
            has_long: mode == Mode::Thorough,
        }
    }

    fn settings_of_schema_1(old: &Json, mode: Mode) -> Settings {
        let standard = Settings { has_long: false, ..Self::settings(mode, &Choices::default()) };
        let field = |name: &str| old.get(name).cloned();
        Settings {
            kinds: field("kinds")
                .and_then(|kinds| serde_json::from_value(kinds).ok())
                .unwrap_or_else(|| vec![Kind::Sleep, Kind::Cpu]),
            blockers: field("blockers").and_then(|k| serde_json::from_value(k).ok()).unwrap_or(standard.blockers),
            window_ms: field("window_ms").and_then(|ms| ms.as_u64()).unwrap_or(standard.window_ms),
            block_ms: BLOCK_MS_OF_SCHEMA_1,
            ..standard
        }
    }

    fn seconds(settings: &Settings) -> f64 {
        let step = settings.window_ms as f64 / 1e3 + 0.15;
        let long = if settings.has_long { LONG.3.len() as f64 * 16.0 } else { 0.0 };
        // Most servers freeze before the last steps; warming up takes half a second.
        settings.kinds.len() as f64 * (1.0 + 0.9 * step * settings.blockers.len() as f64) + long
    }

    fn unsupported(server: &Server, settings: &Settings) -> Option<String> {
        let is_other = settings.kinds.iter().any(|kind| kind.backend().is_none());
        if is_other { None } else { keeps_launches(server).err() }
    }

    fn needs(server: &Server, settings: &Settings) -> Needs {
        let needs = settings.kinds.contains(&Kind::LaunchesPostgres) && keeps_launches(server).is_ok();
        if needs { Needs::Postgres } else { Needs::Nothing }
    }

    fn run(session: &Session<'_>, settings: &Settings) -> Result<Self> {
        let usual = Ladder {
            block_ms: settings.block_ms,
            window_ms: settings.window_ms,
            limit_ms: LIMIT_MS,
            rate: probes::RATE,
            connections: settings.connections,
        };
        let mut runs = Vec::new();
        for kind in settings.kinds.iter().filter(|kind| kind.backend().is_none() || keeps_launches(session.server).is_ok()) {
            runs.push(usual.run(session, *kind, &settings.blockers)?);
        }
        if settings.has_long {
            let ladder = Ladder { block_ms: LONG.0, window_ms: LONG.1, limit_ms: LONG.2, ..usual };
            runs.push(ladder.run(session, Kind::Sleep, &LONG.3)?);
        }
        Ok(Collateral { baseline: None, runs })
    }

    fn read(&self, settings: &Settings, percentile: Percentile) -> Result<Vec<Reading>> {
        let mut readings = Vec::new();
        for (number, run) in self.runs.iter().enumerate() {
            let base = self.baseline.iter().filter(|_| number == 0).cloned();
            let run = Run { steps: base.chain(run.steps.iter().cloned()).collect(), ..run.clone() };
            let blockers: &[usize] = if run.block_ms == LONG.0 { &LONG.3 } else { &settings.blockers };
            readings.extend(run.read(Self::NAME, blockers, percentile)?);
        }
        Ok(readings)
    }

    fn families(percentile: Percentile) -> Vec<Family> {
        climb::families(percentile)
    }

    fn title(settings: &Settings, view: &View<'_>) -> Option<String> {
        let (percentile, kind) = (view.percentile, settings.kind().unwrap_or(Kind::Sleep));
        Some(format!(
            "Response time of / in ms ({percentile}) beside k {}, and the number of them that freezes it; {}",
            settings.beside(kind),
            conditions(view)
        ))
    }

    fn headline(settings: &Settings, _view: &View<'_>) -> Vec<Column> {
        let Some(kind) = settings.kind() else { return Vec::new() };
        let block = settings.block_ms(kind);
        let mut columns: Vec<Column> = settings.blockers.iter().map(|k| response(kind, block, *k)).collect();
        // The other side of the price: who blocks less often harms others less.
        let served = climb::BLOCKERS_PER_S.at(Self::NAME, place(kind.name(), block, DETAILS_AT));
        let about = format!(
            "slow requests answered each second at k={DETAILS_AT}; a server that runs fewer at once delays others less, but serves fewer"
        );
        columns.push(Column {
            column: report::Column::number("slow/s").explained(about),
            cell: Box::new(move |view, row| view.cell(row, &served)),
        });
        for limit_ms in LIMITS_MS {
            // Beyond the limit of a climb nothing was measured; long blockers climb to the last one.
            let (block, is_known) = if limit_ms <= LIMIT_MS { (block, true) } else { (LONG.0, settings.has_long) };
            let column = if is_known { report::Column::number(freeze_head(limit_ms)) } else { continue };
            let metric = freeze_metric(Self::NAME, kind.name(), block, limit_ms);
            columns.push(Column {
                column: if limit_ms > LIMITS_MS[0] { column.wide() } else { column },
                cell: Box::new(move |view, row| freezing(view, row, &metric)),
            });
        }
        let metric = climb::SLOWDOWN.at(Self::NAME, place(kind.name(), block, DETAILS_AT));
        columns.push(Column {
            column: report::Column::number(format!("slowdown at k={DETAILS_AT}")).wide(),
            cell: Box::new(move |view, row| view.cell(row, &metric)),
        });
        columns
    }

    fn standing(settings: &Settings, view: &View<'_>, row: &Row) -> Option<Standing> {
        let kind = settings.kind()?;
        let p99 = |k: &usize| {
            let value = view.median(row, &response_metric(view.percentile, kind, settings.block_ms(kind), *k));
            value
                .map_or(2.0 * LIMIT_MS, |value| value.number().unwrap_or(2.0 * LIMIT_MS))
                .clamp(LEAST_CLAIM as f64 / 1e6, 2.0 * LIMIT_MS)
        };
        // Nothing is claimed below the least; the geometric mean over all numbers of blockers; what passed the limit counts as twice the limit.
        let harm = settings.blockers.iter().filter(|k| **k > 0).map(|k| p99(k).ln()).sum();
        let threshold = view.median(row, &freeze_metric(Self::NAME, kind.name(), settings.block_ms(kind), LIMITS_MS[0]));
        let group = Group::of(threshold, view.conditions.threads as u32);
        let served = climb::BLOCKERS_PER_S.at(Self::NAME, place(kind.name(), settings.block_ms(kind), DETAILS_AT));
        let served = view.median(row, &served).and_then(Value::number).unwrap_or(0.0).round();
        Some(Standing { group, harm, served })
    }

    fn criteria(settings: &Settings, kind: Kind, percentile: Percentile) -> Vec<(String, Metric)> {
        let block = settings.block_ms(kind);
        let limits = LIMITS_MS.into_iter().filter(|limit| *limit <= LIMIT_MS);
        let threshold = |limit: f64| (freeze_head(limit), freeze_metric(Self::NAME, kind.name(), block, limit));
        let response = response_metric(percentile, kind, block, DETAILS_AT);
        limits.map(threshold).chain([(format!("{percentile} at k={DETAILS_AT}"), response)]).collect()
    }

    fn figures(settings: &Settings, view: &View<'_>) -> Vec<Figure> {
        let curves = settings.kinds.iter().filter_map(|kind| {
            let metric = |at: usize| response_metric(view.percentile, *kind, settings.block_ms(*kind), settings.blockers[at]);
            let title = format!("{} of / beside k {}", view.percentile, settings.beside(*kind));
            view.figure(kind.name(), title, settings.places(), Scale::response_time(view.percentile), metric)
        });
        curves.chain(settings.kinds.iter().filter_map(|kind| settings.frozen(view, *kind))).collect()
    }

    fn scenes(self) -> Vec<Scene> {
        self.runs.into_iter().flat_map(Run::scenes).collect()
    }

    fn tables(settings: &Settings, view: &View<'_>) -> Vec<Table> {
        settings.kinds.iter().map(|kind| details(settings, view, *kind)).collect()
    }
}

impl Settings {
    /// The kind of blocker that the headline is about.
    fn kind(&self) -> Option<Kind> {
        self.kinds.first().copied()
    }

    /// The numbers of blockers, as an axis.
    fn places(&self) -> Places {
        Places::even("slow requests at a time (k)", &self.blockers)
    }

    /// The share of trials that each number of blockers freezes at 0.1 s. A trial that was frozen by fewer counts.
    fn frozen(&self, view: &View<'_>, kind: Kind) -> Option<Figure> {
        let metric = freeze_metric(Collateral::NAME, kind.name(), self.block_ms(kind), LIMITS_MS[0]);
        let line = |row: &&Row| {
            let thresholds = view.numbers.values(&row.name, &metric);
            let share = |k: usize| {
                let frozen = thresholds.iter().filter(|value| value.exact().is_some_and(|at| at <= k as f64)).count();
                frozen as f64 / thresholds.len() as f64
            };
            let counted = view.counted(row, &metric);
            let at = |(x, k): (usize, &usize)| Point { x: x as f64, y: share(*k), interval: None, is_bound: false, counted };
            let points = self.blockers.iter().enumerate().map(at).collect();
            (!thresholds.is_empty()).then(|| Series { name: row.name.clone(), points })
        };
        let series: Vec<Series> = view.rows.iter().filter_map(line).collect();
        let title = format!("Share of trials in which / is frozen at {} s by k {}", LIMITS_MS[0] / 1e3, self.beside(kind));
        let y = Scale { label: "trials frozen".into(), unit: "%", is_log: false, limits: Vec::new() };
        (!series.is_empty()).then(|| Figure { name: format!("frozen-{}", kind.name()), title, x: self.places(), y, series })
    }

    /// T of a kind, in ms.
    fn block_ms(&self, kind: Kind) -> f64 {
        kind.block_ms(self.block_ms)
    }

    /// The requests or clients that k counts, in words.
    fn beside(&self, kind: Kind) -> String {
        let block = self.block_ms;
        match kind {
            Kind::Sleep => format!("slow requests that block for {block} ms each (/sleep)"),
            Kind::Cpu => format!("slow requests that work for {block} ms each (/timer?clock=cpu)"),
            Kind::Pbkdf2 => format!("slow requests that derive keys for {block} ms each (/pbkdf2)"),
            _ => {
                let backend = kind.backend().map(|backend| backend.to_string()).unwrap_or_default();
                let pause = climb::THINK_OF_SHORT.as_millis();
                format!("clients that save launches in {backend} (POST /launches), {pause} ms apart each")
            }
        }
    }
}

/// The metric of response time beside k blockers.
fn response_metric(percentile: Percentile, kind: Kind, block_ms: f64, k: usize) -> Metric {
    percentile.family().at(Collateral::NAME, place(kind.name(), block_ms, k))
}

fn response(kind: Kind, block_ms: f64, k: usize) -> Column {
    let column = report::Column::number(format!("k={k}"));
    Column {
        column: if TELLING.contains(&k) { column } else { column.wide() },
        cell: Box::new(move |view, row| view.cell(row, &response_metric(view.percentile, kind, block_ms, k))),
    }
}

/// The head of a column of thresholds.
pub fn freeze_head(limit_ms: f64) -> String {
    format!("freezes at {} s", limit_ms / 1e3)
}

/// A threshold, with the share of trials that froze there or before, if not all did.
pub fn freezing(view: &View<'_>, row: &Row, metric: &Metric) -> Cell {
    let mut cell = view.cell(row, metric);
    if let Cell::Quantity(quantity) = &mut cell
        && let Value::Exact(k) = quantity.summary.median
    {
        let values = view.numbers.values(&row.name, metric);
        let froze = values.iter().filter(|value| value.exact().is_some_and(|one| one <= k)).count();
        if froze < values.len() {
            quantity.marks.push(Mark::Froze(froze, values.len()));
        }
    }
    cell
}

/// One kind of blocker in detail.
fn details(settings: &Settings, view: &View<'_>, kind: Kind) -> Table {
    let block = settings.block_ms(kind);
    let title = format!(
        "Added {} of / in ms beside k {}; the number of them that freezes it; the columns behind that at k={DETAILS_AT}",
        view.percentile,
        settings.beside(kind)
    );
    let loads: Vec<usize> = settings.blockers.iter().copied().filter(|k| *k > 0).collect();
    let mut columns: Vec<report::Column> = loads
        .iter()
        .map(|k| {
            let column = report::Column::number(format!("k={k}"));
            if TELLING.contains(k) { column } else { column.wide() }
        })
        .collect();
    let limits: Vec<f64> = LIMITS_MS.into_iter().filter(|limit| *limit <= LIMIT_MS).collect();
    columns.extend(limits.iter().map(|limit| report::Column::number(freeze_head(*limit))));
    let mut families = vec![
        ("dead", climb::DEAD, "the share of kept-alive connections whose median probe takes over 0.1 s"),
        ("fresh max ms", climb::FRESH_MAX, "the longest first request on a new connection"),
        ("recovery ms", climb::RECOVERY, "from the last blocker's end until the delayed probes are answered"),
        ("blockers/s", climb::BLOCKERS_PER_S, "slow requests that were served"),
    ];
    let of = |family: &Family| family.clone().at(Collateral::NAME, place(kind.name(), block, DETAILS_AT));
    if view.rows.iter().any(|row| view.sum(row, &of(&climb::SHED_PER_S)) > 0.0) {
        families.push(("shed/s", climb::SHED_PER_S, "slow requests that were answered 503"));
    }
    columns.extend(families.iter().map(|(head, _, about)| report::Column::number(*head).wide().explained(*about)));
    let mut table = view.table(kind.name(), title, columns, |row| {
        let mut cells: Vec<Cell> = loads.iter().map(|k| added(settings, view, row, kind, *k)).collect();
        cells
            .extend(limits.iter().map(|limit| freezing(view, row, &freeze_metric(Collateral::NAME, kind.name(), block, *limit))));
        cells.extend(families.iter().map(|(_, family, _)| view.cell(row, &of(family))));
        cells
    });
    let expected = "of: what arithmetic gives where each connection stays on one loop, and connections are spread evenly over the loops: T (1 - (1 - q) / f), f being the share of connections and time behind the blocker; where all are on one loop, T (k - (1 - q)) - 1 ms for several";
    table.legend.push(Legend { mark: r" of \d", text: expected.into() });
    table.legend.extend(Legend::of_freezing());
    table
}

/// What blockers add; where the climb ended before, that it is frozen.
fn added(settings: &Settings, view: &View<'_>, row: &Row, kind: Kind, k: usize) -> Cell {
    let at = place(kind.name(), settings.block_ms(kind), k);
    let whole = response_metric(view.percentile, kind, settings.block_ms(kind), k);
    match view.median(row, &whole) {
        Some(Value::NotReached) => view.cell(row, &whole),
        _ => {
            let mut cell = view.cell(row, &view.percentile.added().at(Collateral::NAME, at));
            if let (Cell::Quantity(quantity), Some(pinned), Kind::Sleep) = (&mut cell, row.pinned_to, kind) {
                let loops = pinned.loops(view.conditions.threads);
                quantity.expected = expected::behind(k, settings.block_ms(kind), loops, view.percentile);
            }
            cell
        }
    }
}
