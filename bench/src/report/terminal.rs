//! Tables on a terminal: as wide as there is room, grouped, and in colour where that is wanted.

use super::{Grade, Group, Table};
use comfy_table::{Attribute, CellAlignment, Color, ContentArrangement, LineStyle, Table as Grid, presets};
use std::io::IsTerminal;

/// The room where nobody says how much there is.
const USUAL_WIDTH: usize = 100;
/// A table is not squeezed below this.
const LEAST_WIDTH: usize = 80;

/// The terminal that tables are shown on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Columns of text; `None` for no limit.
    pub width: Option<usize>,
    /// Colours are shown and wanted.
    pub has_color: bool,
    /// Show every column.
    pub wide: bool,
    /// Show intervals.
    pub intervals: bool,
}

impl Terminal {
    /// Standard output, as far as the system tells: a pipe gets no escape codes, nor does anybody who sets `NO_COLOR`.
    pub fn of_stdout(wide: bool, intervals: bool) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let asked = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let width = told.or_else(|| if is_terminal { terminal_width() } else { None }).unwrap_or(USUAL_WIDTH);
        let has_color = is_terminal && !asked("NO_COLOR") && std::env::var("TERM").is_ok_and(|term| term != "dumb");
        Terminal { width: (!wide).then_some(width.max(LEAST_WIDTH)), has_color, wide, intervals }
    }

    /// The width that text may take.
    pub fn text_width(&self) -> usize {
        self.width.unwrap_or(usize::MAX)
    }

    /// A table as text.
    pub fn show(&self, table: &Table) -> String {
        let (rows, reasons) = table.texts(self.intervals);
        let widths: Vec<usize> = (0..table.columns.len()).map(|column| width_of(table, &rows, column)).collect();
        let shown = self.choose(table, &widths);
        let mut text = wrap(&table.title, self.text_width(), "") + "\n\n";
        let has_groups = table.lines.iter().any(|line| line.group.is_some());
        let mut groups: Vec<Option<Group>> = table.lines.iter().map(|line| line.group).collect();
        groups.dedup();
        let mut grid = self.grid(table, &shown);
        let mut headings: Vec<(usize, &str)> = Vec::new();
        let mut at = 0;
        for group in groups {
            let lines = table.lines.iter().zip(&rows).filter(|(line, _)| line.group == group);
            headings.extend(group.filter(|_| has_groups).map(|group| (at, group.name())));
            for (line, row) in lines {
                grid.add_row(shown.iter().map(|column| {
                    let cell = comfy_table::Cell::new(&row[*column]);
                    self.paint_cell(cell, &line.cells[*column])
                }));
                at += 1;
            }
        }
        text.push_str(&with_headings(&grid.to_string(), &headings, self.has_color));
        text.push('\n');
        let left_out = table.columns.len() - shown.len();
        let hidden = (left_out > 0).then(|| format!("{left_out} more column{}: --wide", if left_out == 1 { "" } else { "s" }));
        let details = if self.wide { table.details.as_slice() } else { &[] };
        for note in reasons.iter().chain(&table.notes_below(&shown, &rows)).chain(details).chain(&hidden) {
            text.push_str(&(wrap(note, self.text_width().saturating_sub(2), "  ") + "\n"));
        }
        text
    }

    /// The columns that fit: those that answer the question first, then as many of the others as there is room for.
    fn choose(&self, table: &Table, widths: &[usize]) -> Vec<usize> {
        let Some(room) = self.width else { return (0..table.columns.len()).collect() };
        let order = |is_wide: bool| (0..widths.len()).filter(move |column| table.columns[*column].is_wide == is_wide);
        let (mut shown, mut used) = (Vec::new(), 0);
        for column in order(false).chain(order(true)) {
            let wanted = widths[column] + 2;
            if used + wanted > room + 1 && !shown.is_empty() {
                continue;
            }
            used += wanted;
            shown.push(column);
        }
        shown.sort_unstable();
        shown
    }

    fn grid(&self, table: &Table, shown: &[usize]) -> Grid {
        let mut grid = Grid::new();
        let style = presets::NOTHING.header_separator(LineStyle::none().fill('─').junction('─'));
        grid.load_style(style).set_content_arrangement(ContentArrangement::Disabled);
        if self.has_color {
            grid.enforce_styling();
        } else {
            grid.force_no_tty();
        }
        grid.set_header(shown.iter().map(|column| table.columns[*column].head.clone()));
        for (column, index) in grid.column_iter_mut().zip(shown) {
            column.set_padding((0, 1));
            if !table.columns[*index].is_words {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        grid
    }

    /// Text in the colour of a grade, where colours are wanted.
    pub fn paint(&self, text: &str, grade: Grade) -> String {
        let code = match grade {
            Grade::Instant => "32",
            Grade::Flow => "33",
            Grade::Attention => "31",
            Grade::Lost => "1;31",
        };
        if self.has_color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn paint_cell(&self, cell: comfy_table::Cell, content: &super::Cell) -> comfy_table::Cell {
        let Some(grade) = content.grade().filter(|_| self.has_color) else { return cell };
        match grade {
            Grade::Instant => cell.fg(Color::Green),
            Grade::Flow => cell.fg(Color::Yellow),
            Grade::Attention => cell.fg(Color::Red),
            Grade::Lost => cell.fg(Color::Red).add_attribute(Attribute::Bold),
        }
    }
}

fn width_of(table: &Table, rows: &[Vec<String>], column: usize) -> usize {
    let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
    cells.chain([table.columns[column].head.chars().count()]).max().unwrap_or(0)
}

/// Puts the headings of groups above their first lines; the grid's own first two lines are its head.
fn with_headings(grid: &str, headings: &[(usize, &str)], has_color: bool) -> String {
    let mut text = String::new();
    for (number, line) in grid.lines().enumerate() {
        if let Some((_, name)) = headings.iter().find(|(at, _)| number == at + 2) {
            let heading = if has_color { format!("\u{1b}[1m{name}\u{1b}[0m") } else { (*name).to_owned() };
            text.push_str(&format!("{heading}\n"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Breaks text between words.
pub fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is always a line");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines.iter().map(|line| format!("{indent}{line}")).collect::<Vec<_>>().join("\n")
}

/// The width that the kernel has for the terminal on standard output.
fn terminal_width() -> Option<usize> {
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes into a structure of the right type that outlives it.
    let result = unsafe { nix::libc::ioctl(nix::libc::STDOUT_FILENO, nix::libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then(|| usize::from(size.ws_col))
}

#[cfg(test)]
mod tests {
    use super::super::{Cell, Column, Line};
    use super::*;
    use crate::metrics::Unit;

    fn table() -> Table {
        let line = |name: &str, group| Line {
            group: Some(group),
            cells: vec![Cell::words(name), Cell::number(0.14, Unit::Ms), Cell::number(5.6, Unit::Us)],
        };
        Table {
            title: "A title".into(),
            columns: vec![
                Column::words("server"),
                Column::number("p99"),
                Column::number("a column of little interest".repeat(3)).wide(),
            ],
            lines: vec![line("tokio-rayon", Group::NeverFreezes), line("tokio-current-thread", Group::FreezesAtOnce)],
            ..Table::default()
        }
    }

    fn terminal(width: Option<usize>, has_color: bool) -> Terminal {
        Terminal { width, has_color, wide: width.is_none(), intervals: false }
    }

    #[test]
    fn columns_that_do_not_fit_are_left_out_and_counted() {
        let text = terminal(Some(80), false).show(&table());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("1 more column: --wide") && !text.contains("little interest"), "{text}");
        assert!(terminal(None, false).show(&table()).contains("little interest"));
    }

    #[test]
    fn groups_have_headings_and_pipes_no_escape_codes() {
        let text = terminal(Some(80), false).show(&table());
        let lines: Vec<&str> = text.lines().collect();
        let heading = lines.iter().position(|line| *line == "never freezes").unwrap();
        assert!(lines[heading + 1].starts_with("tokio-rayon"), "{text}");
        assert!(text.contains("\nfreezes at once\ntokio-current-thread"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(terminal(Some(80), true).show(&table()).contains('\u{1b}'));
    }

    #[test]
    fn long_notes_are_broken_between_words() {
        assert_eq!(wrap("one two three", 7, "  "), "  one two\n  three");
        assert_eq!(wrap("unbreakable", 3, ""), "unbreakable");
    }
}
