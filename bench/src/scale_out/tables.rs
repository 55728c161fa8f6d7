//! The tables of one host against several.

use super::outage::{BACK, FAILED, IN_FLIGHT, LONGEST, LOST_HOST, RELOAD, REQUESTS};
use super::{BLOCK_MS, BLOCKERS, Found, NAME};
use crate::catalog::Row;
use crate::experiment::{freeze_head, freeze_metric, freezing, place, table_of_kept};
use crate::measure::{Backend, Kind};
use crate::metrics::{Family, LIMITS_MS, Percentile};
use crate::report::{Cell, Column, Table, Trials, View, count};

/// Numbers of blockers that are shown where there is room.
const WIDE: [usize; 2] = [8, 64];

/// All tables; a note says what a single machine cannot show.
pub fn tables(found: &Found, cluster: &str, trials: u32) -> Vec<Table> {
    let view = View {
        rows: found.rows.iter().collect(),
        groups: vec![None; found.rows.len()],
        numbers: &found.numbers,
        percentile: Percentile::default(),
        conditions: &found.conditions,
        trials: Trials::all(trials),
    };
    let mut tables = vec![collateral(&view, cluster), outages(&view), table_of_kept(&view, NAME, Backend::Memory)];
    match &found.without_database {
        None => tables.push(table_of_kept(&view, NAME, Backend::Postgres)),
        Some(reason) => tables[2].notes.push(format!("launches in PostgreSQL: unavailable({reason})")),
    }
    for table in &mut tables {
        table.columns[0].head = "hosts".into();
        table.notes.extend(view.invalid_trials(NAME).into_iter().filter(|_| table.title.starts_with("Response")));
    }
    let shared = format!(
        "hosts, balancer, database and client share {} processors: what one more machine would add in work per second cannot be seen here, only who waits for whom",
        crate::host::placement::cores().len()
    );
    tables[0].notes.push(shared);
    tables
}

fn collateral(view: &View<'_>, cluster: &str) -> Table {
    let kind = Kind::Sleep.name();
    let trials = view.trials;
    let title = format!(
        "Response time of / in ms ({}) through HAProxy beside k slow requests that block for {BLOCK_MS} ms each; {cluster} under the supervisor, {trials}",
        view.percentile
    );
    let response = |k: usize| view.percentile.family().at(NAME, place(kind, BLOCK_MS, k));
    let column = |k: &usize| {
        let column = Column::number(format!("k={k}"));
        if WIDE.contains(k) { column.wide() } else { column }
    };
    let mut columns: Vec<Column> = BLOCKERS.iter().map(column).collect();
    let limits: Vec<f64> = LIMITS_MS.into_iter().filter(|limit| *limit <= super::LIMIT_MS).collect();
    columns.extend(limits.iter().map(|limit| Column::number(freeze_head(*limit))));
    let cells = |row: &Row| -> Vec<Cell> {
        let times = BLOCKERS.iter().map(|k| view.cell(row, &response(*k)));
        let thresholds = limits.iter().map(|limit| freezing(view, row, &freeze_metric(NAME, kind, BLOCK_MS, *limit)));
        times.chain(thresholds).collect()
    };
    view.table(NAME, title, columns, cells)
}

fn outages(view: &View<'_>) -> Table {
    let columns = vec![
        Column::number("reload: failed"),
        Column::number("longest ms").wide(),
        Column::number("host killed: failed"),
        Column::number("in flight on it"),
        Column::number("longest wait ms").wide(),
        Column::number("back after ms"),
    ];
    let title = "500 requests a second through HAProxy while every host is reloaded, and while one is killed and boots again: failed in all trials";
    let cells = |row: &Row| -> Vec<Cell> {
        let at = |family: Family, place: &str| family.at(NAME, place);
        let failed = |place: &str| {
            let [failed, of] = [FAILED, REQUESTS].map(|family| view.sum(row, &at(family, place)));
            if of == 0.0 { Cell::NOTHING } else { Cell::words(format!("{} of {}", count(failed), count(of))) }
        };
        let in_flight = at(IN_FLIGHT, LOST_HOST);
        let has_lost = !view.numbers.values(&row.name, &in_flight).is_empty();
        vec![
            failed(RELOAD),
            view.cell(row, &at(LONGEST, RELOAD)),
            failed(LOST_HOST),
            if has_lost { Cell::words(count(view.sum(row, &in_flight))) } else { Cell::NOTHING },
            view.cell(row, &at(LONGEST, LOST_HOST)),
            view.cell(row, &at(BACK, LOST_HOST)),
        ]
    };
    view.table(NAME, title, columns, cells)
}
