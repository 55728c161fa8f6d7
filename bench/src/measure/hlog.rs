//! Response times as HdrHistogram's logs hold them, a histogram for each interval: written, read, and several added to one.
//!
//! Histograms of several machines add exactly. Percentiles do not: their mean is the percentile of nothing.

use crate::load::Observation;
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use hdrhistogram::{Counter, Histogram};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The share of an interval by which the intervals of two logs may be apart.
const APART: f64 = 0.1;
/// Values are divided by this in the column of the maximum: nanoseconds to milliseconds.
const MAX_DIVISOR: f64 = 1_000_000.0;

/// A log.
#[derive(Debug, Clone)]
pub struct Log {
    /// The start of the first interval, since 1970.
    start: Duration,
    /// Histograms in nanoseconds, one for each interval, in order.
    intervals: Vec<Interval>,
}

/// The response times of one interval.
#[derive(Debug, Clone)]
struct Interval {
    length: Duration,
    times: Histogram<u64>,
}

/// Writes the seconds of a run's first lane.
///
/// # Errors
/// The file cannot be written.
pub fn write_seconds(path: &Path, seen: &Observation) -> Result<()> {
    let start = Duration::from_secs_f64(seen.started.max(0.0));
    let seconds = seen.lanes[0].seconds.iter().enumerate().map(|(second, times)| {
        let left = seen.window.saturating_sub(Duration::from_secs(second as u64));
        (left.min(Duration::from_secs(1)), times)
    });
    write(path, start, seconds)
}

fn write<'t, C: Counter + 't>(
    path: &Path,
    start: Duration,
    intervals: impl Iterator<Item = (Duration, &'t Histogram<C>)>,
) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    let epoch = SystemTime::UNIX_EPOCH + start;
    builder.add_comment("response times of stallbench drive, in nanoseconds").with_start_time(epoch).with_base_time(epoch);
    builder.with_max_value_divisor(MAX_DIVISOR);
    let mut log = builder.begin_log_with(&mut file, &mut serializer)?;
    let (tag, mut from) = (Tag::new("lane-0"), Duration::ZERO);
    for (length, times) in intervals {
        log.write_histogram(times, from, length, tag).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        from += length;
    }
    Ok(file.flush()?)
}

impl Log {
    /// Reads a file.
    ///
    /// # Errors
    /// It is no such log, or it has holes between its intervals.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&bytes).with_context(|| path.display().to_string())
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.trim_ascii_start().starts_with(b"{") {
            bail!("holds percentiles, which cannot be merged: write histograms with `drive --hlog FILE`");
        }
        let (mut base, mut start, mut intervals) = (Duration::ZERO, None, Vec::new());
        let mut deserializer = Deserializer::new();
        for entry in IntervalLogIterator::new(bytes) {
            let interval = match entry {
                Err(_) => bail!("is no HdrHistogram log: write one with `drive --hlog FILE`"),
                Ok(LogEntry::StartTime(_)) => continue,
                Ok(LogEntry::BaseTime(time)) => {
                    base = time;
                    continue;
                }
                Ok(LogEntry::Interval(interval)) => interval,
            };
            let encoded = BASE64_STANDARD.decode(interval.encoded_histogram()).context("a histogram is not in base64")?;
            let times = deserializer
                .deserialize(&mut encoded.as_slice())
                .map_err(|error| anyhow::anyhow!("a histogram is damaged: {error}"))?;
            start.get_or_insert(base + interval.start_timestamp());
            intervals.push(Interval { length: interval.duration(), times });
        }
        let Some(start) = start else { bail!("holds no interval") };
        Ok(Log { start, intervals })
    }

    /// Writes a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let intervals = self.intervals.iter().map(|interval| (interval.length, &interval.times));
        write(path, self.start, intervals).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Adds the intervals of another log to those of this one that they coincide with.
    ///
    /// # Errors
    /// Their intervals differ in length or resolution, or are apart by more than a tenth: then a clock is wrong, or the runs were started at
    /// different times.
    pub fn add(&mut self, other: &Log) -> Result<()> {
        let length = self.intervals[0].length;
        if length != other.intervals[0].length {
            bail!("its intervals take {:?}, not {length:?}", other.intervals[0].length);
        }
        if other.start < self.start {
            // The earlier one is the ruler.
            let later = std::mem::replace(self, other.clone());
            return self.add(&later);
        }
        let offset = (other.start - self.start).as_secs_f64() / length.as_secs_f64();
        let first = offset.round();
        if (offset - first).abs() > APART {
            let apart = (offset - first).abs() * length.as_secs_f64() * 1e3;
            bail!(
                "its intervals are {apart:.0} ms apart from the others, more than a tenth of {length:?}: synchronize the clocks and start at one time"
            );
        }
        for (number, interval) in other.intervals.iter().enumerate() {
            self.add_to(first as usize + number, interval)?;
        }
        Ok(())
    }

    fn add_to(&mut self, index: usize, interval: &Interval) -> Result<()> {
        let length = self.intervals[0].length;
        while self.intervals.len() <= index {
            // Nothing was measured there until now.
            let times = Histogram::new_from(&interval.times);
            self.intervals.push(Interval { length, times });
        }
        let own = &mut self.intervals[index];
        if own.times.sigfig() != interval.times.sigfig() {
            bail!("its histograms have {} significant digits, not {}", interval.times.sigfig(), own.times.sigfig());
        }
        own.length = own.length.max(interval.length);
        own.times.auto(true);
        own.times.add(&interval.times).map_err(|error| anyhow::anyhow!("its histograms do not fit: {error}"))
    }

    /// All intervals in one histogram, and the time that they take.
    pub fn total(&self) -> (Histogram<u64>, Duration) {
        let mut total = Histogram::new_from(&self.intervals[0].times);
        total.auto(true);
        for interval in &self.intervals {
            // All are of one resolution, and it grows as needed.
            let _ = total.add(&interval.times);
        }
        (total, self.intervals.iter().map(|interval| interval.length).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: usize = 1_000_000;

    fn log(start_ms: u64, seconds: &[Histogram<u64>]) -> Log {
        let interval = |times: &Histogram<u64>| Interval { length: Duration::from_secs(1), times: times.clone() };
        Log { start: Duration::from_millis(start_ms), intervals: seconds.iter().map(interval).collect() }
    }

    fn histogram() -> Histogram<u64> {
        Histogram::new_with_bounds(1, 600_000_000_000, 3).unwrap()
    }

    fn one(value: u64) -> Histogram<u64> {
        let mut one = histogram();
        one.record(value).unwrap();
        one
    }

    /// Written to a file and read again.
    fn reread(log: &Log) -> Log {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        log.write(&path).unwrap();
        Log::read(&path).unwrap()
    }

    #[test]
    fn merged_logs_are_bit_exact_with_one_histogram_of_all_samples() {
        for seed in 0..3 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut whole = [histogram(), histogram()];
            let mut parts = [whole.clone(), whole.clone()];
            for sample in 0..2 * SAMPLES {
                // From a microsecond to minutes, every order of magnitude alike.
                let value = (1e3 * 10f64.powf(random.f64() * 8.0)) as u64;
                let second = random.usize(0..2);
                whole[second].record(value).unwrap();
                parts[sample % 2][second].record(value).unwrap();
            }
            let mut merged = reread(&log(5_000_000, &parts[0]));
            merged.add(&reread(&log(5_000_040, &parts[1]))).unwrap();
            let merged = reread(&merged);
            for (second, interval) in merged.intervals.iter().enumerate() {
                assert_eq!(interval.times, whole[second], "seed {seed}");
            }
            assert_eq!(merged.total().0.len(), 2 * SAMPLES as u64);
        }
    }

    #[test]
    fn intervals_are_added_where_they_coincide() {
        let mut merged = log(3_000, &[one(10), one(20)]);
        merged.add(&log(1_960, &[one(30), one(40)])).unwrap();
        let counts: Vec<u64> = merged.intervals.iter().map(|interval| interval.times.len()).collect();
        assert_eq!((merged.start, counts), (Duration::from_millis(1_960), vec![1, 2, 1]));
    }

    #[test]
    fn logs_that_do_not_belong_together_are_refused() {
        let error = log(1_000, &[one(1)]).add(&log(1_400, &[one(1)])).unwrap_err().to_string();
        assert!(error.contains("400 ms apart"), "{error}");
        let mut short = log(1_000, &[one(1)]);
        short.intervals[0].length = Duration::from_millis(100);
        let error = log(1_000, &[one(1)]).add(&short).unwrap_err().to_string();
        assert!(error.contains("100ms, not 1s"), "{error}");
        let rough = log(1_000, &[Histogram::new_with_bounds(1, 600_000_000_000, 2).unwrap()]);
        let error = log(1_000, &[one(1)]).add(&rough).unwrap_err().to_string();
        assert!(error.contains("2 significant digits, not 3"), "{error}");
    }

    #[test]
    fn what_is_no_log_is_refused_with_what_it_is() {
        for (bytes, wanted) in [
            ("{\"p99_ms\": 5}", "percentiles, which cannot be merged"),
            ("hello", "is no HdrHistogram log"),
            ("", "holds no interval"),
        ] {
            let error = format!("{:#}", Log::parse(bytes.as_bytes()).expect_err(bytes));
            assert!(error.contains(wanted), "{bytes}: {error}");
        }
    }
}
