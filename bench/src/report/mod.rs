//! Tables that a person can compare: on a terminal, in Markdown, as CSV and as JSON, all from one description.

pub mod headline;
pub mod numbers;
pub mod picture;
mod series;

use anyhow::Result;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table as Grid, presets};
use serde_json::json;

/// How tables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For a terminal
    Text,
    /// For a page
    Markdown,
    /// For a spreadsheet
    Csv,
    /// For a program
    Json,
}

/// Writes tables one below the other; as JSON, a list of them.
///
/// # Errors
/// None that a table can cause.
pub fn render(tables: &[Table], format: Format) -> Result<String> {
    Ok(match format {
        Format::Text => tables.iter().map(|table| table.to_terminal() + "\n").collect(),
        Format::Markdown => tables.iter().map(|table| table.to_markdown() + "\n").collect(),
        Format::Csv => tables.iter().map(Table::to_csv).collect::<Result<Vec<_>>>()?.join("\n"),
        Format::Json => serde_json::to_string_pretty(&tables.iter().map(Table::to_json).collect::<Vec<_>>())? + "\n",
    })
}

/// A table: what it shows, its columns, its rows as text, and what stands below it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// A word for it: what was measured.
    pub name: &'static str,
    /// One line above it.
    pub title: String,
    /// Heads of the columns; the first is the server's.
    pub columns: Vec<String>,
    /// Cells.
    pub rows: Vec<Vec<String>>,
    /// Lines below it.
    pub notes: Vec<String>,
    /// Columns after the first that hold words, and so begin at the left.
    pub words: usize,
    /// Intervals stand below their values, since there are too many columns for one line.
    pub is_stacked: bool,
}

impl Table {
    /// For a terminal.
    pub fn to_terminal(&self) -> String {
        let mut grid = Grid::new();
        let style = presets::NOTHING.header_separator(LineStyle::none().fill('─').junction('─'));
        grid.load_style(style).set_content_arrangement(ContentArrangement::Disabled);
        grid.set_header(&self.columns);
        grid.add_rows(self.rows.iter().map(|row| row.iter().map(|cell| self.stacked(cell, "\n"))));
        for column in grid.column_iter_mut() {
            column.set_padding((0, 1));
            if column.index > self.words {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let notes: String = self.notes.iter().fold(String::new(), |text, note| text + "  " + note + "\n");
        format!("{}\n{grid}\n{notes}", self.title)
    }

    /// For a page.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("**{}**\n\n", self.title);
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| self.stacked(cell, "<br>")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        text.push_str(&line(&self.columns));
        let rule: Vec<String> =
            (0..self.columns.len()).map(|column| if column == 0 { "---".into() } else { "---:".into() }).collect();
        text.push_str(&line(&rule));
        self.rows.iter().for_each(|row| text.push_str(&line(row)));
        text.push('\n');
        self.notes.iter().fold(text, |text, note| text + "- " + note + "\n")
    }

    fn stacked(&self, cell: &str, separator: &str) -> String {
        if self.is_stacked { cell.replace(" [", &format!("{separator}[")) } else { cell.to_owned() }
    }

    fn to_csv(&self) -> Result<String> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(&self.columns)?;
        self.rows.iter().try_for_each(|row| csv.write_record(row))?;
        Ok(String::from_utf8(csv.into_inner().map_err(csv::IntoInnerError::into_error)?)?)
    }

    fn to_json(&self) -> serde_json::Value {
        let row = |row: &Vec<String>| {
            self.columns.iter().cloned().zip(row.iter().cloned().map(Into::into)).collect::<serde_json::Map<_, _>>()
        };
        json!({ "title": self.title, "rows": self.rows.iter().map(row).collect::<Vec<_>>(), "notes": self.notes })
    }
}

/// Milliseconds with three significant digits, seconds from a thousand on.
pub fn ms(value: f64) -> String {
    match value {
        value if value.is_infinite() => "–".into(),
        value if value > 1000.0 => "> 1 s".into(),
        value => significant(value),
    }
}

/// A number of things, whole.
pub fn count(value: f64) -> String {
    if value.is_infinite() { "never".into() } else { format!("{value:.0}") }
}

/// Three significant digits, without an exponent.
pub fn significant(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_as_the_golden_text() {
        let table = Table {
            title: "Title".into(),
            columns: vec!["server".into(), "p99".into()],
            rows: vec![vec!["tokio-forked".into(), "0.12".into()], vec!["smol".into(), "> 1 s".into()]],
            notes: vec!["a note".into()],
            ..Table::default()
        };
        assert_eq!(
            table.to_markdown(),
            "**Title**\n\n| server | p99 |\n| --- | ---: |\n| tokio-forked | 0.12 |\n| smol | > 1 s |\n\n- a note\n"
        );
        let terminal = table.to_terminal();
        assert!(terminal.contains("tokio-forked   0.12"), "{terminal}");
        assert!(terminal.ends_with("  a note\n"), "{terminal}");
    }

    #[test]
    fn intervals_stand_below_their_values_where_columns_are_many() {
        let table =
            Table { columns: vec!["p99".into()], rows: vec![vec!["98 [97, 99]".into()]], is_stacked: true, ..Table::default() };
        assert!(table.to_markdown().ends_with("| 98<br>[97, 99] |\n\n"), "{}", table.to_markdown());
        assert!(table.to_terminal().contains("\n98       \n[97, 99]"), "{}", table.to_terminal());
        assert_eq!(render(&[table], Format::Csv).unwrap(), "p99\n\"98 [97, 99]\"\n");
    }

    #[test]
    fn numbers_have_three_significant_digits() {
        assert_eq!([0.123, 1.0, 12.34, 99.96, 123.4].map(significant), ["0.12", "1.00", "12.3", "100", "123"]);
        assert_eq!([999.0, 1000.5, f64::INFINITY].map(ms), ["999", "> 1 s", "–"]);
    }
}
