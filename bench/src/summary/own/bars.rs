//! A bar for each number of slow requests.

use super::{Service, SlowShare};
use crate::experiment::service;
use crate::metrics::{LIMITS_MS, Value};
use crate::report::{Grade, Terminal, count, value_text};
use anyhow::Result;
use std::fmt::Write;

/// Columns before a bar.
const INDENT: usize = 10;
/// Columns of the longest bar.
const BAR: usize = 30;

impl Service<'_> {
    /// A bar for each number of slow requests, on a logarithmic scale.
    pub(super) fn bars(&self, terminal: &Terminal, share: Option<SlowShare>) -> Result<String> {
        let mut text = format!("  {:>6}  quick requests wait, {}\n", "slow", self.settings.percentile_words());
        let marks = share.filter(|share| self.most_below(*share).is_none()).map(|share| share.numbers(self.mean_ms() / 1e3));
        for k in &self.settings.blockers {
            let Some(value) = self.response(*k) else {
                writeln!(text, "  {k:>6}  not measured")?;
                continue;
            };
            // The age of one that failed is no wait.
            let fails = self.fails(*k) && value != Value::NotReached;
            let waited = self.median(&service::wait_metrics(self.settings.block_ms, *k)[1]);
            let value = if fails { waited.unwrap_or(Value::AtLeast(0.0)) } else { value };
            let grade = if fails { Grade::of(Value::NotReached) } else { Grade::of(value) };
            let bar = "█".repeat(bar_length(value));
            let bar = terminal.paint(&bar, grade);
            let mark = marks.filter(|marks| marks.is_near(*k, &self.settings.blockers)).map_or("", |_| "  <- your load");
            let words = match value {
                Value::NotReached => "frozen with fewer already".to_owned(),
                _ if fails && waited.is_none() => "they fail".to_owned(),
                value if fails => format!("{} ms, or they fail", value_text(value)),
                value => format!("{} ms  {}", value_text(value), grade.name()),
            };
            let words_of =
                |failed: f64, what: &str| if failed > 0.0 { format!(", {} {what}", count(failed)) } else { String::new() };
            let failed = words_of(self.failed(*k).0, "failed") + &words_of(self.slow_failed(*k).0, "slow ones failed");
            let fresh = self.fresh(*k).map_or(String::new(), |words| format!(", new connections {words}"));
            let (first, rest) = (format!("{words}{mark}"), format!("{fresh}{failed}"));
            // What does not fit stands below.
            let taken = INDENT + bar_length(value) + 1 + first.chars().count() + rest.chars().count();
            let (end, below) =
                if taken <= terminal.text_width() { (rest.as_str(), "") } else { ("", rest.trim_start_matches(", ")) };
            writeln!(text, "  {k:>6}  {bar} {first}{end}")?;
            if !below.is_empty() {
                writeln!(text, "{:INDENT$}{below}", "")?;
            }
        }
        Ok(text)
    }
}

fn bar_length(value: Value) -> usize {
    let ms = value.number().unwrap_or(LIMITS_MS[1] * 2.0).clamp(0.1, LIMITS_MS[2]);
    // From 0.1 ms to 10 s: five powers of ten.
    1 + ((ms / 0.1).log10() / 5.0 * BAR as f64) as usize
}
