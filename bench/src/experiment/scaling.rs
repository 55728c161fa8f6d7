//! Up or out: the same server with more threads or processes, how much work it gets done, and the blockers that freeze it.

use super::climb::{FREEZE_K, Ladder, Run};
use super::contract::{Choices, Experiment};
use super::probes;
use super::steps::freeze_k;
use crate::catalog::{Row, Server};
use crate::host::placement::cores;
use crate::measure::{Conditions, Kind, Mode, Session};
use crate::metrics::{Family, Metric, Percentile, Reading, Role, Unit, Value};
use crate::report::{self, Cell, Figure, Places, Scale, Table, View};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Numbers of blockers; the climb ends at the limit.
const BLOCKERS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// Blockers of the run that measures how much work gets done.
const WORKERS: [usize; 1] = [16];
/// The limit: what feels instant, in ms.
const LIMIT_MS: f64 = 100.0;
/// T, in ms, and T in rounds of schema 1.
const BLOCK_MS: (f64, f64) = (110.0, 100.0);

const WORK: Family = Family::new("work_per_s", Unit::PerSecond, Role::Cost).more_is_better();

/// One entry for each number of threads or processes, ascending.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scaling {
    sizes: Vec<Size>,
}

/// A number of threads or processes.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Size {
    /// W.
    width: usize,
    /// Blockers that wait, until `/` freezes.
    sleep: Run,
    /// Blockers that work, many at once.
    work: Run,
}

/// How it measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Values of W.
    widths: Vec<usize>,
    /// T, in ms.
    block_ms: f64,
    /// Length of each step, in ms.
    window_ms: u64,
}

impl Experiment for Scaling {
    const NAME: &'static str = "scaling";
    type Settings = Settings;

    fn settings(_: Mode, _: &Choices) -> Settings {
        let most = 2 * cores().len();
        let widths = std::iter::successors(Some(1), |width| Some(width * 2)).take_while(|width| *width <= most).collect();
        Settings { widths, block_ms: BLOCK_MS.0, window_ms: 1000 }
    }

    fn settings_of_schema_1(_: &Json, mode: Mode) -> Settings {
        Settings { block_ms: BLOCK_MS.1, ..Self::settings(mode, &Choices::default()) }
    }

    fn seconds(settings: &Settings) -> f64 {
        5.3 * settings.widths.len() as f64
    }

    fn unsupported(server: &Server, _: &Settings) -> Option<String> {
        let has_width = server.args.iter().any(|argument| argument.contains("{W}"));
        (!has_width).then(|| "no number of threads or processes to change".into())
    }

    fn run(session: &Session<'_>, settings: &Settings) -> Result<Self> {
        let sizes = settings.widths.iter().map(|width| {
            let conditions = Conditions { threads: *width, ..session.conditions.clone() };
            let session = Session { conditions: &conditions, ..*session };
            let ladder = Ladder {
                block_ms: settings.block_ms,
                window_ms: settings.window_ms,
                limit_ms: LIMIT_MS,
                rate: probes::RATE,
                connections: probes::CONNECTIONS,
            };
            let sleep = ladder.run(&session, Kind::Sleep, &BLOCKERS)?;
            Ok(Size { width: *width, sleep, work: ladder.run(&session, Kind::Cpu, &WORKERS)? })
        });
        Ok(Scaling { sizes: sizes.collect::<Result<_>>()? })
    }

    fn read(&self, _: &Settings, percentile: Percentile) -> Result<Vec<Reading>> {
        let mut readings = Vec::new();
        for size in &self.sizes {
            let mut ladder = Vec::new();
            for step in &size.sleep.steps {
                let response = step.probes.response_ms(percentile)?;
                ladder.push((step.k, step.invalid.clone().map_or(Ok(response), Err)));
            }
            readings.push((threshold(size.width), freeze_k(&ladder, size.sleep.limit_ms)));
            for step in &size.work.steps {
                let valid = |value: Value| step.invalid.clone().map_or(Ok(value), Err);
                readings.push((work(size.width), valid(Value::Exact(step.blockers_per_s))));
                readings.push((beside_work(percentile, size.width), valid(step.probes.response_ms(percentile)?)));
            }
        }
        Ok(readings)
    }

    fn families(percentile: Percentile) -> Vec<Family> {
        vec![FREEZE_K, WORK, percentile.family()]
    }

    fn tables(settings: &Settings, view: &View<'_>) -> Vec<Table> {
        let head = |what: &str| -> Vec<report::Column> {
            settings.widths.iter().map(|width| report::Column::number(format!("{what} W={width}"))).collect()
        };
        let columns = [head("freezes at"), head("work/s"), head(&view.percentile.to_string())].concat();
        let title = format!(
            "Up or out: with W threads or processes, the number of blockers of {} ms (/sleep) that freezes / at 0.1 s; how many of {} ms of work it does a second when asked for 16 at once, and {} of / in ms meanwhile",
            settings.block_ms, settings.block_ms, view.percentile
        );
        let cells = |row: &Row| -> Vec<Cell> {
            let each = |metric: &dyn Fn(usize) -> Metric| -> Vec<Cell> {
                settings.widths.iter().map(|width| view.cell(row, &metric(*width))).collect()
            };
            [each(&threshold), each(&work), each(&|width| beside_work(view.percentile, width))].concat()
        };
        vec![view.table(Self::NAME, title, columns, cells)]
    }

    fn figures(settings: &Settings, view: &View<'_>) -> Vec<Figure> {
        let places = || Places::even("threads or processes (W)", &settings.widths);
        let title = format!("Blockers of {} ms (/sleep) that freeze / at 0.1 s", settings.block_ms);
        let freezes = view.figure("scaling-freezes", title, places(), Scale::logarithmic("freezes at k", ""), |at| {
            threshold(settings.widths[at])
        });
        let title = format!("Work of {} ms done each second, when asked for 16 at once", settings.block_ms);
        let works =
            view.figure("scaling-work", title, places(), Scale::linear("work done", "/s"), |at| work(settings.widths[at]));
        freezes.into_iter().chain(works).collect()
    }
}

fn threshold(width: usize) -> Metric {
    FREEZE_K.at(Scaling::NAME, format!("width,{width}"))
}

fn work(width: usize) -> Metric {
    WORK.at(Scaling::NAME, width.to_string())
}

fn beside_work(percentile: Percentile, width: usize) -> Metric {
    percentile.family().at(Scaling::NAME, format!("work,{width}"))
}
