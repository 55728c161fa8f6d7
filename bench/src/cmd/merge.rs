//! `stallbench merge`: the histograms of several load generators as if one had put on the whole load.

use crate::cli::Merge;
use crate::console::output::{print, say};
use crate::measure::Log;
use crate::metrics::Value;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::process::ExitCode;

/// Percentiles that are printed.
const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];

/// Adds the logs, prints what they say together, and writes one log of all.
///
/// # Errors
/// A file that is no log, or logs whose intervals do not coincide or that do not overlap.
pub fn run(arguments: &Merge) -> Result<ExitCode> {
    let mut merged = Log::read(&arguments.files[0])?;
    for path in &arguments.files[1..] {
        merged.add(&Log::read(path)?).with_context(|| path.display().to_string())?;
    }
    let total = merged.total();
    let seconds = total.length.as_secs_f64();
    let per_s = total.answered as f64 / seconds;
    let mut text = format!("{} answers, {per_s:.0} a second over {seconds:.1} s\n  response time ms:", total.answered);
    let time = |quantile: f64| match total.response_ms(quantile) {
        Value::AtLeast(ms) => format!(">= {ms:.3}"),
        value => format!("{:.3}", value.number().unwrap_or_default()),
    };
    for percentile in PERCENTILES {
        // Writing into a string does not fail.
        let _ = write!(text, " p{percentile} {},", time(percentile / 100.0));
    }
    let _ = writeln!(text, " max {}", time(1.0));
    if total.unanswered > 0 {
        let _ = writeln!(text, "  {} requests got no right answer; they count with their age", total.unanswered);
    }
    print(&text)?;
    if let Some(path) = &arguments.out {
        merged.write(path)?;
        say(&format!("{}: written", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}
