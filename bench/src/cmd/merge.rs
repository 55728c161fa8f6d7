//! `stallbench merge`: the histograms of several load generators as if one had put on the whole load.

use crate::cli::Merge;
use crate::console::output::{print, say};
use crate::console::usage::refuse;
use crate::measure::Log;
use crate::metrics::Value;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Percentiles that are printed.
const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];

/// Adds the logs, prints what they say together, and writes one log of all.
///
/// # Errors
/// A file that is no log, or logs whose intervals do not coincide or that do not overlap.
pub fn run(arguments: &Merge) -> Result<ExitCode> {
    each_once(&arguments.files)?;
    let mut merged = Log::read(&arguments.files[0])?;
    for path in &arguments.files[1..] {
        merged.add(&Log::read(path)?).with_context(|| path.display().to_string())?;
    }
    let total = merged.total();
    let seconds = total.length.as_secs_f64();
    let per_s = total.in_window as f64 / seconds;
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
    if total.late > 0 {
        let _ = writeln!(text, "  {} of them came after the window: they count in the times, and not in the rate", total.late);
    }
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

/// Refuses a file that is named twice, whatever its names: its requests would count twice.
///
/// # Errors
/// There is one.
pub(super) fn each_once(files: &[PathBuf]) -> Result<()> {
    let mut seen = Vec::new();
    for path in files {
        // Reading it says what is wrong with a file that is not there.
        let Ok(file) = fs::metadata(path) else { continue };
        let file = (file.dev(), file.ino());
        if seen.contains(&file) {
            refuse!("{} is named twice: name each file once", path.display());
        }
        seen.push(file);
    }
    Ok(())
}
