//! `list` prints all instances as a table.

use super::readings::Readings;
use super::{client, print};
use crate::cli::Output;
use anyhow::Result;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Row, Table as Grid, presets};
use serde::Serialize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use supervisor::control::{AppView, Own, Table, View};
use supervisor::home::Home;
use supervisor::proc::Groups;

/// An instance and its app, with measurements of its process.
#[derive(Serialize)]
pub struct Measured {
    #[serde(flatten)]
    pub app: Arc<AppView>,
    #[serde(flatten)]
    pub view: View,
    /// CPU use of the process and its group as a share of one core, since a moment ago.
    pub cpu: Option<f64>,
    /// Memory of the process and its group in bytes.
    pub memory: Option<u64>,
}

/// The column titles.
pub const COLUMNS: usize = 9;
pub const HEAD: [&str; COLUMNS] = ["id", "name", "mode", "pid", "uptime", "restarts", "status", "cpu", "memory"];

impl Measured {
    /// Returns the instance as a row of the table.
    pub fn row(&self) -> [String; COLUMNS] {
        let none = || "–".to_owned();
        let view = &self.view;
        [
            view.id.to_string(),
            self.app.name.clone(),
            self.app.mode.clone(),
            view.pid.map_or_else(none, |pid| pid.to_string()),
            view.uptime_ms.map_or_else(none, |ms| uptime(Duration::from_millis(ms))),
            view.restarts.to_string(),
            view.status.clone(),
            self.cpu.map_or_else(none, |cpu| format!("{:.0} %", cpu * 100.0)),
            self.memory.map_or_else(none, size),
        ]
    }
}

/// The JSON output.
#[derive(Serialize)]
struct Listed {
    supervisor: Option<Own>,
    remarks: Vec<String>,
    instances: Vec<Measured>,
}

/// Prints the table.
///
/// # Errors
/// Fails if the daemon does not answer.
pub fn run(output: &Output) -> Result<()> {
    let (table, groups) = look()?;
    let (supervisor, remarks) = (table.supervisor, table.remarks.clone());
    let measured = measure(table, groups)?;
    if output.json {
        let listed = Listed { supervisor, remarks, instances: measured };
        print(&(serde_json::to_string_pretty(&listed)? + "\n"))?;
        return Ok(());
    }
    for remark in &remarks {
        super::remark(remark);
    }
    if measured.is_empty() {
        print("no apps yet: run `supervisor start`\n")?;
    } else {
        print(&format!("{}\n", grid(measured.iter().map(Measured::row))))?;
    }
    Ok(())
}

/// Requests the table, and reads the processes of the system meanwhile: where there are many, either takes long.
///
/// # Errors
/// Fails if the daemon does not answer.
pub fn look() -> Result<(Table, Groups)> {
    let reading = thread::Builder::new().name("processes".into()).spawn(Groups::read);
    let table = client::table()?;
    let groups = reading.ok().and_then(|reading| reading.join().ok());
    // Without a thread for them, they are read now.
    Ok((table, groups.unwrap_or_else(Groups::read)))
}

/// Measures every process: its memory, and its CPU use since a moment ago.
///
/// # Errors
/// Fails if there is no folder.
pub fn measure(table: Table, groups: Groups) -> Result<Vec<Measured>> {
    let file = Home::open()?.readings();
    let mut readings = Readings::load(&file);
    let measured = readings.measure(table, groups);
    readings.save(&file);
    Ok(measured)
}

fn grid(rows: impl Iterator<Item = [String; COLUMNS]>) -> Grid {
    let mut grid = plain();
    // An instance is a line: on a terminal that is too narrow, the end of its name is missing.
    grid.set_content_arrangement(ContentArrangement::Dynamic).set_truncation_indicator("…");
    grid.set_header(line(HEAD));
    grid.add_rows(rows.map(line));
    for column in grid.column_iter_mut() {
        column.set_padding((0, 1));
        if HEAD[column.index] != "name" {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        if [0, 3, 4, 5, 7, 8].contains(&column.index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    grid
}

fn line<T: Into<Cell>>(cells: [T; COLUMNS]) -> Row {
    let mut row = Row::from(cells);
    row.max_height(1);
    row
}

/// A table without borders, except for a line below its header.
pub fn plain() -> Grid {
    let mut grid = Grid::new();
    grid.load_style(presets::NOTHING.header_separator(LineStyle::none().fill('─').junction('─')));
    grid
}

/// Formats a duration with its two largest units.
pub fn uptime(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// Formats a number of bytes for users.
pub fn size(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_their_two_largest_units() {
        let of = |seconds| uptime(Duration::from_secs(seconds));
        assert_eq!([of(5), of(65), of(3700), of(90000)], ["5s", "1m 5s", "1h 1m", "1d 1h"]);
    }

    #[test]
    fn each_instance_is_a_line_that_fits_the_screen() {
        let row = |name: &str| {
            ["12", name, "cluster", "1234567", "12d 23h", "3", "online", "100 %", "1234.5 MiB"].map(ToOwned::to_owned)
        };
        let shown = |width: u16| grid(["api", &"long-name-".repeat(9)].map(row).into_iter()).set_width(width).to_string();
        for width in [80, 100, 200] {
            let text = shown(width);
            assert_eq!(text.lines().count(), 4, "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= usize::from(width)), "{text}");
            assert_eq!(text.contains("…"), width < 200, "{text}");
        }
    }
}
