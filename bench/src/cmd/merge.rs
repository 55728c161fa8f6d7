//! `stallbench merge`: the histograms of several load generators as if one had put on the whole load.

use crate::cli::Merge;
use crate::console::output::{print, say};
use crate::measure::{Log, ms};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Percentiles that are printed.
const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];

/// Adds the logs, prints what they say together, and writes one log of all.
///
/// # Errors
/// A file that is no log, or logs whose intervals do not coincide.
pub fn run(arguments: &Merge) -> Result<ExitCode> {
    let mut merged = Log::read(&arguments.files[0])?;
    for path in &arguments.files[1..] {
        merged.add(&Log::read(path)?).with_context(|| path.display().to_string())?;
    }
    let (times, length) = merged.total();
    let value = |nanoseconds: u64| ms(Duration::from_nanos(nanoseconds));
    let mut text = format!(
        "{} answers, {:.0} a second over {:.1} s\n  response time ms:",
        times.len(),
        times.len() as f64 / length.as_secs_f64(),
        length.as_secs_f64()
    );
    for percentile in PERCENTILES {
        // Writing into a string does not fail.
        let _ = write!(text, " p{percentile} {:.3},", value(times.value_at_percentile(percentile)));
    }
    print(&format!("{text} max {:.3}\n", value(times.max())))?;
    if let Some(path) = &arguments.out {
        merged.write(path)?;
        say(&format!("{}: written", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}
