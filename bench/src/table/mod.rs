//! Tables that a person can compare: on a terminal, in Markdown, as CSV and as JSON, all from one description.

pub mod headline;
pub mod numbers;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table as Grid, presets};

/// A table: what it shows, its columns, its rows as text, and what stands below it.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// One line above it.
    pub title: String,
    /// Heads of the columns; the first is the server's.
    pub columns: Vec<String>,
    /// Cells.
    pub rows: Vec<Vec<String>>,
    /// Lines below it.
    pub notes: Vec<String>,
}

impl Table {
    /// For a terminal.
    pub fn to_terminal(&self) -> String {
        let mut grid = Grid::new();
        let style = presets::NOTHING.header_separator(LineStyle::none().fill('─').junction('─'));
        grid.load_style(style).set_content_arrangement(ContentArrangement::Disabled);
        grid.set_header(&self.columns);
        grid.add_rows(&self.rows);
        for column in grid.column_iter_mut() {
            column.set_padding((0, 1));
            if column.index > 0 {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let notes: String = self.notes.iter().fold(String::new(), |text, note| text + "  " + note + "\n");
        format!("{}\n{grid}\n{notes}", self.title)
    }

    /// For a page.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("**{}**\n\n", self.title);
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text.push_str(&line(&self.columns));
        let rule: Vec<String> =
            (0..self.columns.len()).map(|column| if column == 0 { "---".into() } else { "---:".into() }).collect();
        text.push_str(&line(&rule));
        self.rows.iter().for_each(|row| text.push_str(&line(row)));
        text.push('\n');
        self.notes.iter().fold(text, |text, note| text + "- " + note + "\n")
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
    fn numbers_have_three_significant_digits() {
        assert_eq!([0.123, 1.0, 12.34, 99.96, 123.4].map(significant), ["0.12", "1.00", "12.3", "100", "123"]);
        assert_eq!([999.0, 1000.5, f64::INFINITY].map(ms), ["999", "> 1 s", "–"]);
    }
}
