//! A table as a value, and its writers for pages and programs.

use super::{Absence, Cell, Format, Terminal};
use crate::metrics::Value;
use anyhow::Result;
use regex_lite::Regex;
use serde_json::{Value as Json, json};
use std::cmp::Ordering;

/// What the mark of a cell means of which some trials are invalid.
const INVALID: &str = "*: some trials are invalid; the reasons stand below the tables of each experiment";

/// A table: its name, its columns, its lines, and the notes below it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// A word for it: what was measured.
    pub name: &'static str,
    /// One line above it.
    pub title: String,
    /// The columns; the first is the server's.
    pub columns: Vec<Column>,
    /// The lines.
    pub lines: Vec<Line>,
    /// Notes below it; reasons of missing numbers are added when it is written.
    pub notes: Vec<String>,
    /// What its marks mean.
    pub legend: Vec<Legend>,
    /// Notes that only matter to a reader of every detail.
    pub details: Vec<String>,
}

/// What a mark in a cell means: it stands below the table only if the mark stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Legend {
    /// A regular expression that the text of a cell matches if it has the mark.
    pub mark: &'static str,
    /// Its meaning.
    pub text: String,
}

impl Legend {
    /// What the cells of thresholds and of loads that were not tried mean.
    pub fn of_freezing() -> [Legend; 2] {
        [
            (r"^k=\d+ \(\d", "k=4 (5/6): it froze there or before in five of six trials"),
            ("^frozen$", "frozen: not tried, since fewer blockers froze it already"),
        ]
        .map(|(mark, text)| Legend { mark, text: text.into() })
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its head, with the unit.
    pub head: String,
    /// It is left out where there is little room, unless it is asked for.
    pub is_wide: bool,
    /// Its cells are words, which begin at the left.
    pub is_words: bool,
    /// What it shows, if its head does not say all of it; stands below the table if the column is shown.
    pub about: Option<String>,
}

impl Column {
    /// A column of numbers that answers the question of the table.
    pub fn number(head: impl Into<String>) -> Self {
        Column { head: head.into(), is_wide: false, is_words: false, about: None }
    }

    /// A column of words.
    pub fn words(head: impl Into<String>) -> Self {
        Column { is_words: true, ..Column::number(head) }
    }

    /// The same column, shown where there is room.
    pub fn wide(self) -> Self {
        Column { is_wide: true, ..self }
    }

    /// The same column, with what it shows.
    pub fn explained(self, about: impl Into<String>) -> Self {
        Column { about: Some(about.into()), ..self }
    }
}

/// A line of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The group that it stands in; lines of one group stand together.
    pub group: Option<Group>,
    /// Its cells, one for each column.
    pub cells: Vec<Cell>,
}

/// Groups of lines, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// No number of blockers that was tried freezes it.
    NeverFreezes,
    /// It takes more blockers than it has threads.
    FreezesLate,
    /// It takes one blocker for each of its threads, or fewer.
    FreezesAtOnce,
    /// Nothing is known.
    Unknown,
}

/// The place of a row in the headline.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// Its group.
    pub group: Group,
    /// How much slow requests harm the others; less is better.
    pub harm: f64,
    /// Slow requests that it serves a second. It decides among equals: none is on top by doing less.
    pub served: f64,
}

impl Standing {
    /// The better one is less.
    pub fn compare(&self, other: &Standing) -> Ordering {
        self.group.cmp(&other.group).then(self.harm.total_cmp(&other.harm)).then(other.served.total_cmp(&self.served))
    }
}

impl Group {
    /// The group of a freeze threshold, with this number of threads.
    pub fn of(threshold: Option<Value>, threads: u32) -> Self {
        match threshold {
            Some(Value::Never { .. }) => Group::NeverFreezes,
            Some(Value::Exact(k)) if k > f64::from(threads) => Group::FreezesLate,
            Some(_) => Group::FreezesAtOnce,
            None => Group::Unknown,
        }
    }

    /// Its heading.
    pub fn name(self) -> &'static str {
        match self {
            Group::NeverFreezes => "never freezes",
            Group::FreezesLate => "freezes late",
            Group::FreezesAtOnce => "freezes at once",
            Group::Unknown => "not measured",
        }
    }
}

/// Writes tables one below the other; as JSON, a list of them.
///
/// # Errors
/// A table that CSV or JSON cannot hold.
pub fn render(tables: &[Table], format: Format, terminal: &Terminal) -> Result<String> {
    Ok(match format {
        Format::Text => tables.iter().map(|table| terminal.show(table) + "\n").collect(),
        Format::Markdown => tables.iter().map(|table| table.to_markdown(terminal.intervals) + "\n").collect(),
        Format::Csv => tables.iter().map(Table::to_csv).collect::<Result<Vec<_>>>()?.join("\n"),
        Format::Json => serde_json::to_string_pretty(&tables.iter().map(Table::to_json).collect::<Vec<_>>())? + "\n",
    })
}

impl Table {
    /// The cells as text, and the notes that explain missing numbers.
    pub fn texts(&self, with_intervals: bool) -> (Vec<Vec<String>>, Vec<String>) {
        let mut reasons: Vec<String> = Vec::new();
        let mut number_of = |absence: &Absence| {
            let (Absence::Unsupported(reason) | Absence::Invalid(reason)) = absence else { return None };
            let known = reasons.iter().position(|known| known == reason);
            Some(
                known.unwrap_or_else(|| {
                    reasons.push(reason.clone());
                    reasons.len() - 1
                }) + 1,
            )
        };
        let rows =
            self.lines.iter().map(|line| line.cells.iter().map(|cell| cell.text(with_intervals, &mut number_of)).collect());
        let rows = rows.collect();
        (rows, reasons.iter().enumerate().map(|(number, reason)| format!("({}) {reason}", number + 1)).collect())
    }

    /// The notes below it if these columns are shown, with these texts in the cells.
    pub fn notes_below(&self, shown: &[usize], rows: &[Vec<String>]) -> Vec<String> {
        let about = |column: &usize| Some(format!("{}: {}", self.columns[*column].head, self.columns[*column].about.as_ref()?));
        let stands = |legend: &&Legend| {
            let mark = Regex::new(legend.mark).expect("marks are written in this program");
            rows.iter().any(|row| shown.iter().any(|column| row.get(*column).is_some_and(|text| mark.is_match(text))))
        };
        let legend = self.legend.iter().filter(stands).map(|legend| legend.text.clone());
        let shows_invalid = |line: &Line| shown.iter().any(|column| line.cells.get(*column).is_some_and(Cell::has_invalid));
        let invalid = self.lines.iter().any(shows_invalid).then(|| INVALID.to_owned());
        self.notes.iter().cloned().chain(invalid).chain(shown.iter().filter_map(about)).chain(legend).collect()
    }

    /// All notes below it if every column is shown.
    pub fn all_notes(&self, rows: &[Vec<String>]) -> Vec<String> {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        self.notes_below(&all, rows).into_iter().chain(self.details.iter().cloned()).collect()
    }

    /// For a page.
    pub fn to_markdown(&self, with_intervals: bool) -> String {
        let (rows, reasons) = self.texts(with_intervals);
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = format!("**{}**\n\n", self.title);
        text.push_str(&line(self.columns.iter().map(|column| column.head.clone()).collect()));
        text.push_str(&line(self.columns.iter().map(|column| if column.is_words { "---" } else { "---:" }.into()).collect()));
        rows.iter().for_each(|row| text.push_str(&line(row.iter().map(|cell| cell.replace('|', "\\|")).collect())));
        text.push('\n');
        reasons.iter().chain(&self.all_notes(&rows)).fold(text, |text, note| text + "- " + note + "\n")
    }

    fn to_csv(&self) -> Result<String> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(self.columns.iter().map(|column| &column.head))?;
        self.texts(true).0.iter().try_for_each(|row| csv.write_record(row))?;
        Ok(String::from_utf8(csv.into_inner().map_err(csv::IntoInnerError::into_error)?)?)
    }

    fn to_json(&self) -> Json {
        let (rows, reasons) = self.texts(true);
        let row = |row: Vec<String>| -> Json {
            let named = self.columns.iter().zip(row).map(|(column, cell)| (column.head.clone(), Json::from(cell)));
            named.collect::<serde_json::Map<_, _>>().into()
        };
        let notes: Vec<String> = reasons.into_iter().chain(self.all_notes(&rows)).collect();
        json!({ "name": self.name, "title": self.title, "rows": rows.into_iter().map(row).collect::<Vec<_>>(), "notes": notes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let line = |name: &str, cell: Cell| Line { group: None, cells: vec![Cell::words(name), cell] };
        Table {
            title: "Title".into(),
            columns: vec![Column::words("server"), Column::number("p99 ms")],
            lines: vec![
                line("tokio|forked", Cell::number(0.12, crate::metrics::Unit::Ms)),
                line("smol", Cell::Absent(Absence::Invalid("lag: late".into()))),
                line("may", Cell::Absent(Absence::Invalid("lag: late".into()))),
            ],
            notes: vec!["a note".into()],
            ..Table::default()
        }
    }

    #[test]
    fn among_rows_that_do_equal_harm_none_is_on_top_by_doing_less() {
        let standing = |group, harm, served| Standing { group, harm, served };
        let best_first = [
            standing(Group::NeverFreezes, 0.7, 36.0),
            standing(Group::NeverFreezes, 0.7, 18.0),
            standing(Group::NeverFreezes, 0.8, 40.0),
            standing(Group::FreezesAtOnce, 0.1, 99.0),
        ];
        assert!(best_first.is_sorted_by(|one, other| one.compare(other) == Ordering::Less));
    }

    #[test]
    fn a_page_gets_the_golden_text_with_each_reason_once() {
        assert_eq!(
            table().to_markdown(false),
            "**Title**\n\n| server | p99 ms |\n| --- | ---: |\n| tokio\\|forked | 0.12 |\n| smol | invalid (1) |\n| may | invalid (1) |\n\n- (1) lag: late\n- a note\n"
        );
    }

    #[test]
    fn marks_and_columns_are_explained_where_they_are_shown() {
        let explained = Table {
            columns: vec![Column::words("server"), Column::number("p99 ms").explained("of all probes")],
            legend: [("^invalid", "invalid: why"), ("^frozen$", "frozen: why")]
                .map(|(mark, text)| Legend { mark, text: text.into() })
                .into(),
            ..table()
        };
        let (rows, _) = explained.texts(false);
        assert_eq!(explained.notes_below(&[0, 1], &rows), ["a note", "p99 ms: of all probes", "invalid: why"]);
        assert_eq!(explained.notes_below(&[0], &rows), ["a note"]);
    }

    #[test]
    fn the_mark_of_invalid_trials_is_explained_in_every_table_that_shows_it() {
        let mut marked = table();
        let Cell::Quantity(quantity) = &mut marked.lines[0].cells[1] else { panic!("a number") };
        quantity.marks.push(crate::report::Mark::Invalid);
        let (rows, _) = marked.texts(false);
        assert_eq!(rows[0][1], "0.12*");
        assert_eq!(marked.notes_below(&[0, 1], &rows), ["a note", INVALID]);
        assert_eq!(marked.notes_below(&[0], &rows), ["a note"], "the column is not shown");
    }

    #[test]
    fn programs_get_every_cell() {
        let plain = Terminal { width: None, has_color: false, wide: true, intervals: true };
        assert!(render(&[table()], Format::Csv, &plain).unwrap().starts_with("server,p99 ms\ntokio|forked,0.12\n"));
        let json: Json = serde_json::from_str(&render(&[table()], Format::Json, &plain).unwrap()).unwrap();
        assert_eq!(json[0]["rows"][1]["p99 ms"], "invalid (1)");
    }
}
