//! `stallbench import`: what k6 or Locust found, in our tables.

use super::merge::each_once;
use crate::catalog::Row;
use crate::cli::Import;
use crate::console::output::print;
use crate::experiment::{freeze_head, freeze_k, freeze_metric, freezing, place};
use crate::measure::{Beside, Conditions, Foreign, Kind, Latency, Mode};
use crate::metrics::{LIMITS_MS, Numbers, Percentile, Reading, Unit, Value};
use crate::report::{Cell, Column, Format, Line, Table, Terminal, Trials, View, render};
use anyhow::Result;
use std::process::ExitCode;

/// The name of the metrics and tables.
const NAME: &str = "import";

/// Reads the files of one run, and prints them.
///
/// # Errors
/// A file that neither engine wrote, or files that do not belong together.
pub fn run(arguments: &Import) -> Result<ExitCode> {
    each_once(&arguments.files)?;
    let foreign = Foreign::read(&arguments.files)?;
    let percentile = Percentile::default();
    let row = Row { name: arguments.name.clone().unwrap_or_else(|| foreign.engine.name().into()), ..Row::default() };
    let mut numbers = Numbers::default();
    numbers.add(&row.name, readings(&foreign, percentile)?);
    let conditions = Conditions::here(Mode::Quick);
    let trials = Trials::all(1);
    let view = View { rows: vec![&row], groups: vec![None], numbers: &numbers, percentile, conditions: &conditions, trials };
    let tables = [beside(&view, &foreign), steps(&foreign, percentile)?];
    let format = if arguments.json { Format::Json } else { Format::Text };
    print(&render(&tables, format, &Terminal::of_stdout(arguments.wide, false))?)?;
    Ok(ExitCode::SUCCESS)
}

fn readings(foreign: &Foreign, percentile: Percentile) -> Result<Vec<Reading>> {
    let kind = Kind::Sleep.name();
    let (mut readings, mut ladder) = (Vec::new(), Vec::new());
    for (k, step) in &foreign.steps {
        let latency = Latency::of(&step.probes);
        let response = if step.probes.answered == 0 {
            Err("answers: no probe was answered".to_owned())
        } else {
            Ok(latency.response_ms(percentile)?)
        };
        readings.push((percentile.family().at(NAME, place(kind, foreign.block_ms, *k)), response.clone()));
        ladder.push((*k, if latency.fails(percentile) { Ok(Value::NotReached) } else { response }));
    }
    for limit_ms in LIMITS_MS {
        readings.push((freeze_metric(NAME, kind, foreign.block_ms, limit_ms), freeze_k(&ladder, limit_ms)));
    }
    Ok(readings)
}

/// The headline of collateral.
fn beside(view: &View<'_>, foreign: &Foreign) -> Table {
    let (kind, block) = (Kind::Sleep.name(), foreign.block_ms);
    let title = format!(
        "Response time of / in ms ({}) beside k slow requests that block for {block} ms each, as {} measured it, and the number of them that freezes it",
        view.percentile,
        foreign.engine.name()
    );
    let blockers: Vec<usize> = foreign.steps.keys().copied().collect();
    let mut columns: Vec<Column> = blockers.iter().map(|k| Column::number(format!("k={k}"))).collect();
    columns.extend(LIMITS_MS.iter().map(|limit| Column::number(freeze_head(*limit))));
    let mut table = view.table(NAME, title, columns, |row| {
        let times = blockers.iter().map(|k| view.cell(row, &view.percentile.family().at(NAME, place(kind, block, *k))));
        let limits = LIMITS_MS.iter().map(|limit| freezing(view, row, &freeze_metric(NAME, kind, block, *limit)));
        times.chain(limits).collect()
    });
    table.columns[0].head = "measured by".into();
    table.notes.push(foreign.engine.resolution().into());
    table.notes.extend(foreign.notes.iter().cloned());
    table
}

/// A line for each number of blockers.
fn steps(foreign: &Foreign, percentile: Percentile) -> Result<Table> {
    let heads = ["probes", "not sent", "failed", "p50 ms", &format!("{percentile} ms"), "max ms", "blockers"];
    let mut columns = vec![Column::words("k")];
    columns.extend(heads.map(Column::number));
    let mut lines = Vec::new();
    for (k, step) in &foreign.steps {
        lines.push(Line { group: None, cells: step_cells(*k, step, percentile)? });
    }
    let title = format!("The same by step, of {}", foreign.engine.name());
    let notes = vec!["not sent: probes that the engine was too busy to send in time; what they would have waited is not known, and what failed is never answered, so times may be bounds (>=)".into()];
    Ok(Table { name: NAME, title, columns, lines, notes, ..Table::default() })
}

fn step_cells(k: usize, step: &Beside, percentile: Percentile) -> Result<Vec<Cell>> {
    let probes = &step.probes;
    let latency = Latency::of(probes);
    let count = |count: u64| Cell::number(count as f64, Unit::Count);
    let ms = |value: Value| if probes.answered == 0 { Cell::NOTHING } else { Cell::of(value, Unit::Ms) };
    Ok(vec![
        Cell::words(format!("k={k}")),
        count(probes.planned),
        count(probes.unanswered),
        count(probes.errors),
        ms(latency.median_ms()?),
        ms(latency.response_ms(percentile)?),
        latency.max_ms().map_or(Cell::NOTHING, ms),
        count(step.blockers),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Recording;

    fn step(answered: u64, failed: u64, unanswered: u64) -> Beside {
        let mut probes =
            Recording { planned: answered + failed + unanswered, answered, failed, unanswered, ..Recording::default() };
        (0..answered).for_each(|_| probes.count(0, 0, 1_000_000, true));
        Beside { probes, blockers: 0 }
    }

    #[test]
    fn times_beside_probes_that_were_not_sent_are_bounds() {
        let cells = |step: &Beside| -> Vec<String> {
            let cells = step_cells(1, step, Percentile::default()).unwrap();
            cells[4..7].iter().map(|cell| cell.text(false, |_| None)).collect()
        };
        assert!(cells(&step(100, 0, 0)).iter().all(|cell| !cell.contains(">=")));
        assert!(cells(&step(100, 0, 100)).iter().all(|cell| cell.contains(">=")), "{:?}", cells(&step(100, 0, 100)));
    }

    #[test]
    fn a_step_whose_probes_fail_is_frozen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locust.json");
        let entry = |k: usize, failed: u64| {
            format!(r#"{{"name":"probe-{k}-110","num_requests":1000,"num_failures":{failed},"response_times":{{"1":1000}}}}"#)
        };
        std::fs::write(&path, format!("[{},{}]", entry(0, 0), entry(1, 100))).unwrap();
        let readings = readings(&Foreign::read(&[path]).unwrap(), Percentile::default()).unwrap();
        let freeze = readings.iter().filter(|(metric, _)| metric.to_string().starts_with("freeze_k"));
        assert!(freeze.map(|(_, value)| value.clone()).all(|value| value == Ok(Value::Exact(1.0))), "{readings:?}");
    }
}
