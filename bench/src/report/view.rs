//! A round as tables see it: its rows and its numbers.

use super::{Absence, Cell, Column, Counted, Figure, Group, Legend, Line, Mark, Places, Point, Quantity, Scale, Series, Table};
use crate::catalog::Row;
use crate::measure::Conditions;
use crate::metrics::{Metric, Numbers, Percentile, Role, Summary, Unit, Value};
use std::fmt;

/// What the tables of one round share.
pub struct View<'r> {
    /// The rows, in the order of the tables.
    pub rows: Vec<&'r Row>,
    /// The group of each row.
    pub groups: Vec<Option<Group>>,
    /// The numbers.
    pub numbers: &'r Numbers,
    /// The percentile that response times are read at.
    pub percentile: Percentile,
    /// The conditions of the round.
    pub conditions: &'r Conditions,
    /// Trials of each cell.
    pub trials: Trials,
}

/// The number of trials of each cell, as part of a title: a round that is not finished has fewer than it will have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trials {
    /// Those that it has.
    pub found: u32,
    /// Those that it has in the end.
    pub planned: u32,
}

impl Trials {
    /// All of them were taken.
    pub fn all(planned: u32) -> Self {
        Trials { found: planned, planned }
    }
}

impl fmt::Display for Trials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Trials { found, planned } if found < planned => write!(f, "{found} of {planned} trials so far"),
            Trials { planned: 1, .. } => write!(f, "one trial"),
            Trials { planned, .. } => write!(f, "medians of {planned} trials"),
        }
    }
}

impl<'r> View<'r> {
    /// A cell: the quantity, or the reason why there is none.
    pub fn cell(&self, row: &Row, metric: &Metric) -> Cell {
        if row.unavailable.is_some() {
            return Cell::Absent(Absence::Unavailable);
        }
        if let Some(reason) = row.unsupported.get(metric.experiment) {
            return Cell::Absent(Absence::Unsupported(format!("{}: {reason}", metric.experiment)));
        }
        let failures = self.numbers.failures(&row.name, metric.experiment);
        let cell = self.numbers.cell(&row.name, metric);
        match self.summary(row, metric) {
            Some(summary) => {
                let marks = if self.counted(row, metric).has_invalid() { vec![Mark::Invalid] } else { Vec::new() };
                let is_felt = metric.family.role == Role::Latency && metric.family.unit == Unit::Ms;
                Cell::Quantity(Quantity { summary, unit: metric.family.unit, marks, expected: None, is_felt })
            }
            None => {
                let of_cell = cell.and_then(|cell| cell.invalid.first()).map(|reason| (reason, metric.to_string()));
                let whole = failures.first().map(|reason| (reason, metric.experiment.to_owned()));
                of_cell.or(whole).map_or(Cell::NOTHING, |(reason, place)| {
                    Cell::Absent(Absence::Invalid(format!("{} {place}: invalid({reason})", row.name)))
                })
            }
        }
    }

    /// A cell in short. Two heaps that are closer than what is claimed are noise.
    fn summary(&self, row: &Row, metric: &Metric) -> Option<Summary> {
        let summary = self.numbers.summary(&row.name, metric)?;
        let is_apart = |(low, high): &(f64, f64)| high - low >= metric.family.least_claim();
        Some(Summary { heaps: summary.heaps.filter(is_apart), ..summary })
    }

    /// The trials behind a cell.
    pub fn counted(&self, row: &Row, metric: &Metric) -> Counted {
        let (valid, invalid) =
            self.numbers.cell(&row.name, metric).map_or((0, 0), |cell| (cell.values.len(), cell.invalid.len()));
        Counted { valid, all: valid + invalid + self.numbers.failures(&row.name, metric.experiment).len() }
    }

    /// The median of a metric.
    pub fn median(&self, row: &Row, metric: &Metric) -> Option<Value> {
        Some(self.numbers.summary(&row.name, metric)?.median)
    }

    /// A figure of one quantity: the metric of each place of `x`, by its position among them.
    pub fn figure(
        &self,
        name: impl Into<String>,
        title: impl Into<String>,
        x: Places,
        y: Scale,
        metric: impl Fn(usize) -> Metric,
    ) -> Option<Figure> {
        let points = |row: &Row| -> Vec<Point> {
            let at = |(index, (at, _)): (usize, &(f64, String))| {
                let metric = metric(index);
                Point::of(*at, &self.summary(row, &metric)?, self.counted(row, &metric))
            };
            x.ticks.iter().enumerate().filter_map(at).collect()
        };
        let lines = self.rows.iter().map(|row| Series { name: row.name.clone(), points: points(row) });
        let series: Vec<Series> = lines.filter(|line| !line.points.is_empty()).collect();
        (!series.is_empty()).then(|| Figure { name: name.into(), title: title.into(), x, y, series })
    }

    /// The sum of a metric over all trials.
    pub fn sum(&self, row: &Row, metric: &Metric) -> f64 {
        self.numbers.values(&row.name, metric).iter().filter_map(|value| value.number()).sum()
    }

    /// A table with a line for each row; below it, why rows are unavailable and trials invalid.
    pub fn table(
        &self,
        name: &'static str,
        title: impl Into<String>,
        columns: Vec<Column>,
        cells: impl Fn(&Row) -> Vec<Cell>,
    ) -> Table {
        let mut all = vec![Column::words("server")];
        all.extend(columns);
        let mut table = Table { name, title: title.into(), columns: all, ..Table::default() };
        for (row, group) in self.rows.iter().zip(&self.groups) {
            let mut line = vec![Cell::words(label(row))];
            line.extend(cells(row));
            line.resize(table.columns.len(), Cell::NOTHING);
            table.lines.push(Line { group: *group, cells: line });
            table.notes.extend(row.unavailable.as_ref().map(|reason| format!("{}: unavailable({reason})", row.name)));
        }
        table.legend.push(Legend { mark: r" \^$", text: "^: a third-party server".into() });
        table
    }

    /// What trials of an experiment are invalid, and why: a line for each server and kind of reason, with the first one in full.
    pub fn invalid_trials(&self, experiment: &str) -> Vec<String> {
        let mut notes = Vec::new();
        for row in &self.rows {
            let whole = self.numbers.failures(&row.name, experiment).iter().map(|reason| (experiment.to_owned(), reason));
            let cells = self.numbers.of_server(&row.name).filter(|(metric, _)| metric.experiment == experiment);
            let cells = cells.filter(|(metric, _)| metric.family.role != Role::Detail);
            let of_cells = cells.flat_map(|(metric, cell)| cell.invalid.iter().map(move |reason| (metric.to_string(), reason)));
            let mut seen: Vec<(&str, usize, String)> = Vec::new();
            for (place, reason) in whole.chain(of_cells) {
                let kind = reason.split(": ").next().unwrap_or_default();
                match seen.iter_mut().find(|(known, ..)| *known == kind) {
                    Some((_, count, _)) => *count += 1,
                    None => seen.push((kind, 1, format!("{place} is invalid({reason})"))),
                }
            }
            for (_, count, first) in seen {
                let more =
                    if count > 1 { format!(", and {} more of its numbers for such a reason", count - 1) } else { String::new() };
                notes.push(format!("{}: in a trial, {first}{more}", row.name));
            }
        }
        notes
    }
}

/// A third-party server has a mark, which a note explains.
fn label(row: &Row) -> String {
    if row.is_peer { format!("{} ^", row.name) } else { row.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Family;

    /// A figure of one response time of one server.
    fn point_of(values: &[f64], invalid: &[&str], failures: &[&str]) -> Point {
        let metric = Family::new("p99_ms", Unit::Ms, Role::Latency).at("latency", "95");
        let row = Row { name: "one".into(), ..Row::default() };
        let mut numbers = Numbers::default();
        values.iter().for_each(|value| numbers.add("one", [(metric.clone(), Ok(Value::Exact(*value)))]));
        invalid.iter().for_each(|reason| numbers.add("one", [(metric.clone(), Err((*reason).to_owned()))]));
        failures.iter().for_each(|reason| numbers.fail("one", "latency", reason));
        let conditions = Conditions::here(crate::measure::Mode::Quick);
        let view = View {
            rows: vec![&row],
            groups: vec![None],
            numbers: &numbers,
            percentile: Percentile::default(),
            conditions: &conditions,
            trials: Trials::all(6),
        };
        let places = Places::even("", &[95]);
        let figure = view.figure("latency", "", places, Scale::linear("", "ms"), |_| metric.clone()).unwrap();
        figure.series[0].points[0]
    }

    #[test]
    fn a_point_counts_its_trials_and_those_that_are_invalid_by_themselves_or_as_a_whole() {
        assert_eq!(point_of(&[1.0; 6], &[], &[]).counted, Counted { valid: 6, all: 6 });
        let one = point_of(&[599.0], &["lag", "lag", "lag"], &["it did not start", "it did not start"]);
        assert_eq!(one.counted, Counted { valid: 1, all: 6 });
    }

    #[test]
    fn heaps_of_a_point_that_are_closer_than_what_is_claimed_are_one() {
        let heaps = |low: f64, high: f64| point_of(&[low, low, low, high, high, high], &[], &[]).heaps();
        assert_eq!(heaps(300.0, 600.0), Some((300.0, 600.0)));
        assert_eq!(heaps(0.2, 0.4), None);
    }

    #[test]
    fn titles_say_how_many_trials_there_are() {
        let words = |found, planned| Trials { found, planned }.to_string();
        assert_eq!(words(1, 1), "one trial");
        assert_eq!(words(6, 6), "medians of 6 trials");
        assert_eq!(words(1, 6), "1 of 6 trials so far");
    }
}
