//! Tables for a page: each cell with the text that is shown and the number that it is sorted by.

use crate::metrics::Value;
use crate::report::{Absence, Cell, Table};
use serde::Serialize;

/// A table.
#[derive(Serialize)]
pub struct TableOf {
    name: &'static str,
    title: String,
    columns: Vec<ColumnOf>,
    rows: Vec<RowOf>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct ColumnOf {
    head: String,
    is_wide: bool,
    is_words: bool,
}

#[derive(Serialize)]
struct RowOf {
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'static str>,
    cells: Vec<CellOf>,
}

/// A cell. The names are short, since a page has thousands: `t` is the text, `n` the number to sort by, `i` the text with its interval, `g` the grade,
/// and `w` the reason why there is no number.
#[derive(Serialize)]
struct CellOf {
    t: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    i: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    g: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    w: Option<String>,
}

/// A table as a page holds it.
pub fn of(table: &Table) -> TableOf {
    let column = |column: &crate::report::Column| ColumnOf {
        head: column.head.clone(),
        is_wide: column.is_wide,
        is_words: column.is_words,
    };
    let row = |line: &crate::report::Line| RowOf {
        group: line.group.map(crate::report::Group::name),
        cells: line.cells.iter().map(cell).collect(),
    };
    TableOf {
        name: table.name,
        title: table.title.clone(),
        columns: table.columns.iter().map(column).collect(),
        rows: table.lines.iter().map(row).collect(),
        notes: table.all_notes(&table.texts(true).0),
    }
}

fn cell(cell: &Cell) -> CellOf {
    let (short, long) = (cell.text(false, |_| None), cell.text(true, |_| None));
    let why = match cell {
        Cell::Absent(Absence::Invalid(reason) | Absence::Unsupported(reason)) => Some(reason.clone()),
        _ => None,
    };
    let i = (long != short).then_some(long);
    CellOf { n: number(cell), i, g: cell.grade().map(crate::report::Grade::name), w: why, t: short }
}

/// The number that a cell is sorted by; a bound sorts right above its number.
fn number(cell: &Cell) -> Option<f64> {
    let Cell::Quantity(quantity) = cell else { return None };
    Some(match quantity.summary.median {
        Value::Exact(number) => number,
        Value::AtLeast(number) => number * 1.000_001,
        Value::Never { tried } => tried * 2.0,
        Value::NotReached => 1e12,
    })
}
