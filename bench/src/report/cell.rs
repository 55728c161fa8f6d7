//! A cell of a table, before it is text.

use super::text;
use crate::metrics::{LIMITS_MS, Summary, Unit, Value};

/// A cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Words.
    Words(String),
    /// A measured quantity.
    Quantity(Quantity),
    /// No number, and why.
    Absent(Absence),
}

/// A measured quantity, or a sum over trials.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantity {
    /// Median, interval and trials.
    pub summary: Summary,
    /// Unit.
    pub unit: Unit,
    /// Remarks beside the number.
    pub marks: Vec<Mark>,
    /// What arithmetic gives, in the same unit.
    pub expected: Option<f64>,
    /// A response time, which people feel.
    pub is_felt: bool,
}

/// A remark beside a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Some of the trials were invalid.
    Invalid,
    /// Only in this many of the trials it froze at that threshold or before.
    Froze(usize, usize),
}

/// A reason for a missing number.
#[derive(Debug, Clone, PartialEq)]
pub enum Absence {
    /// It was not measured, or does not apply.
    Nothing,
    /// The server cannot take part.
    Unsupported(String),
    /// No trial was valid.
    Invalid(String),
    /// The server could not be started.
    Unavailable,
}

/// What people feel of a response time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Up to 0.1 s.
    Instant,
    /// Up to 1 s: the flow of thought is kept.
    Flow,
    /// Up to 10 s: the attention is kept.
    Attention,
    /// Longer.
    Lost,
}

impl Grade {
    /// The grade of a response time in ms.
    pub fn of(value: Value) -> Self {
        let passed = LIMITS_MS.iter().filter(|limit| value.is_above(**limit) == Some(true)).count();
        // A run stops at the limit of attention at the latest, so what was not reached is at least that bad.
        let passed = if value == Value::NotReached { passed.min(2) } else { passed };
        [Grade::Instant, Grade::Flow, Grade::Attention, Grade::Lost][passed.min(3)]
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Grade::Instant => "instant",
            Grade::Flow => "flow",
            Grade::Attention => "attention",
            Grade::Lost => "lost",
        }
    }
}

impl Cell {
    /// A cell without a number.
    pub const NOTHING: Cell = Cell::Absent(Absence::Nothing);

    /// Plain words.
    pub fn words(text: impl Into<String>) -> Self {
        Cell::Words(text.into())
    }

    /// A single number.
    pub fn number(number: f64, unit: Unit) -> Self {
        Cell::of(Value::Exact(number), unit)
    }

    /// A single value.
    pub fn of(value: Value, unit: Unit) -> Self {
        let summary = Summary { median: value, interval: None, trials: 1, heaps: None };
        Cell::Quantity(Quantity { summary, unit, marks: Vec::new(), expected: None, is_felt: false })
    }

    /// Whether some of its trials are invalid.
    pub fn has_invalid(&self) -> bool {
        matches!(self, Cell::Quantity(quantity) if quantity.marks.contains(&Mark::Invalid))
    }

    /// The grade of a response time.
    pub fn grade(&self) -> Option<Grade> {
        match self {
            // Of two heaps, people meet the upper one too.
            Cell::Quantity(quantity) if quantity.is_felt => {
                let summary = &quantity.summary;
                Some(Grade::of(summary.heaps.map_or(summary.median, |(_, upper)| Value::Exact(upper))))
            }
            _ => None,
        }
    }

    /// As text, with its interval or without; `noted` gives the number of a note that explains an absence.
    pub fn text(&self, with_interval: bool, noted: impl FnOnce(&Absence) -> Option<usize>) -> String {
        match self {
            Cell::Words(text) => text.clone(),
            Cell::Quantity(quantity) => quantity.text(with_interval),
            Cell::Absent(absence) => {
                let word = match absence {
                    Absence::Nothing => return "–".into(),
                    Absence::Unsupported(_) => "unsupported",
                    Absence::Invalid(_) => "invalid",
                    Absence::Unavailable => return "unavailable".into(),
                };
                noted(absence).map_or(word.into(), |number| format!("{word} ({number})"))
            }
        }
    }
}

impl Quantity {
    fn text(&self, with_interval: bool) -> String {
        let show = |value| text::value(value, self.unit);
        let mut shown = match self.summary.heaps {
            Some((low, high)) => format!("{} or {}", show(Value::Exact(low)), show(Value::Exact(high))),
            None => show(self.summary.median),
        };
        for mark in &self.marks {
            shown.push_str(&match mark {
                Mark::Invalid => "*".to_owned(),
                Mark::Froze(froze, all) => format!(" ({froze}/{all})"),
            });
        }
        if let Some((low, high)) = self.summary.interval.filter(|_| with_interval) {
            let (low, high) = (show(low), show(high));
            // Between twice the same words nothing lies.
            if low != high || low.starts_with(|first: char| first.is_ascii_digit()) {
                shown.push_str(&format!(" [{low}, {high}]"));
            }
        }
        if let Some(expected) = self.expected {
            shown.push_str(&format!(" of {}", show(Value::Exact(expected))));
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics;

    fn quantity(values: &[f64], unit: Unit) -> Quantity {
        let values = values.iter().copied().map(Value::Exact).collect();
        let summary = metrics::Cell { values, ..metrics::Cell::default() }.summary().unwrap();
        Quantity { summary, unit, marks: Vec::new(), expected: None, is_felt: true }
    }

    fn text(quantity: Quantity, with_interval: bool) -> String {
        Cell::Quantity(quantity).text(with_interval, |_| None)
    }

    #[test]
    fn a_cell_whose_trials_fall_into_two_heaps_says_so() {
        let tabs = quantity(&[300.0, 301.0, 600.0, 601.0, 300.0, 602.0, 600.0], Unit::Ms);
        assert_eq!(text(tabs.clone(), false), "300 or 600");
        assert_eq!(text(tabs, true), "300 or 600 [300, 602]");
    }

    #[test]
    fn heaps_on_both_sides_of_a_limit_have_the_grade_of_the_upper_one() {
        let tabs = quantity(&[57.7, 57.8, 57.9, 57.8, 107.0, 108.0, 109.0], Unit::Ms);
        assert_eq!(text(tabs.clone(), false), "57.8 or 108");
        assert_eq!(Cell::Quantity(tabs).grade(), Some(Grade::Flow));
    }

    #[test]
    fn valid_trials_and_frozen_trials_have_different_marks() {
        let freeze = quantity(&[4.0; 6], Unit::Blockers);
        assert_eq!(text(Quantity { marks: vec![Mark::Froze(5, 6)], ..freeze.clone() }, false), "k=4 (5/6)");
        assert_eq!(text(Quantity { marks: vec![Mark::Invalid], ..freeze }, false), "k=4*");
    }

    #[test]
    fn what_arithmetic_gives_stands_behind_the_number_and_its_interval() {
        let found = Quantity { expected: Some(107.8), ..quantity(&[98.0, 99.0, 100.0, 101.0, 102.0, 103.0, 104.0], Unit::Ms) };
        assert_eq!(text(found.clone(), false), "101 of 108");
        assert_eq!(text(found, true), "101 [98.0, 104] of 108");
    }

    #[test]
    fn grades_follow_the_limits_and_bounds_count_for_what_is_known() {
        let grades = [99.0, 101.0, 1001.0, 10_001.0].map(|ms| Grade::of(Value::Exact(ms)).name());
        assert_eq!(grades, ["instant", "flow", "attention", "lost"]);
        assert_eq!(Grade::of(Value::AtLeast(504.0)), Grade::Flow);
        assert_eq!(Grade::of(Value::NotReached), Grade::Attention);
    }
}
