//! Response times as HdrHistogram's logs hold them, a histogram for each interval: written, read, and several added to one.
//!
//! Histograms of several machines add exactly. Percentiles do not: their mean is the percentile of nothing.

use super::latency::known;
use crate::load::{Observation, Outcome, Second};
use crate::metrics::Value;
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use hdrhistogram::{Counter, Histogram};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The share of an interval by which the intervals of two logs may be apart.
const APART: f64 = 0.1;
/// Values are divided by this in the column of the maximum: nanoseconds to milliseconds.
const MAX_DIVISOR: f64 = 1_000_000.0;

/// The tags of the histograms of an interval; that of the answers is in each.
const TAGS: [(Outcome, &str); 4] = [
    (Outcome::Answered, "lane-0"),
    (Outcome::Early, "lane-0-warmup"),
    (Outcome::Late, "lane-0-late"),
    (Outcome::Unanswered, "lane-0-unanswered"),
];
/// Significant digits of a histogram.
const DIGITS: u8 = 3;
/// The shortest and the longest interval: a log is written to the millisecond.
const LENGTHS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(86_400);

/// A log.
#[derive(Debug, Clone)]
pub struct Log {
    /// The start of the first interval, since 1970.
    start: Duration,
    /// Histograms in nanoseconds, one for each interval, in order.
    intervals: Vec<Interval>,
}

/// The times of one interval.
#[derive(Debug, Clone)]
struct Interval {
    length: Duration,
    /// Those of `Outcome::Answered` are there even if there are none.
    times: BTreeMap<Outcome, Histogram<u64>>,
}

/// All intervals of a log together.
#[derive(Debug)]
pub struct Total {
    /// Right answers that have a time: all but those to requests of the warm-up.
    pub answered: u64,
    /// Those of them that came after the window.
    pub late: u64,
    /// Right answers that came in the window.
    pub in_window: u64,
    /// Requests without one, which count with their age.
    pub unanswered: u64,
    /// The time that the intervals take.
    pub length: Duration,
    youngest: u64,
    times: Histogram<u64>,
}

impl Total {
    /// A quantile of response time, in ms.
    pub fn response_ms(&self, quantile: f64) -> Value {
        let youngest_us = (self.unanswered > 0).then_some(self.youngest as f64 / 1e3);
        known(&self.times, self.unanswered, youngest_us, (quantile, self.times.value_at_quantile(quantile) as f64 / 1e3))
    }
}

/// Writes the seconds of a run's first lane.
///
/// # Errors
/// The file cannot be written.
pub fn write_seconds(path: &Path, seen: &Observation) -> Result<()> {
    let start = Duration::from_secs_f64(seen.started.max(0.0));
    let seconds = &seen.lanes[0].seconds;
    // A server that stood still had its seconds too.
    let count = seconds.len().max(usize::try_from(seen.window.as_nanos().div_ceil(1_000_000_000))?);
    let nothing = Second::new();
    let intervals = (0..count).map(|number| {
        let left = seen.window.saturating_sub(Duration::from_secs(number as u64));
        (left.clamp(*LENGTHS.start(), Duration::from_secs(1)), seconds.get(number).unwrap_or(&nothing))
    });
    write(path, start, intervals)
}

fn write<'t, C: Counter + 't>(
    path: &Path,
    start: Duration,
    intervals: impl Iterator<Item = (Duration, &'t BTreeMap<Outcome, Histogram<C>>)>,
) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    let epoch = SystemTime::UNIX_EPOCH + start;
    builder.add_comment("response times of stallbench drive, in nanoseconds").with_start_time(epoch).with_base_time(epoch);
    builder.with_max_value_divisor(MAX_DIVISOR);
    let mut log = builder.begin_log_with(&mut file, &mut serializer)?;
    let nothing = Histogram::<C>::new(DIGITS)?;
    let mut from = Duration::ZERO;
    for (length, all) in intervals {
        for (outcome, tag) in TAGS {
            let times = all.get(&outcome).unwrap_or(&nothing);
            if outcome == Outcome::Answered || !times.is_empty() {
                log.write_histogram(times, from, length, Tag::new(tag)).map_err(|error| anyhow::anyhow!("{error:?}"))?;
            }
        }
        from += length;
    }
    Ok(file.flush()?)
}

impl Log {
    /// Reads a file.
    ///
    /// # Errors
    /// The file is not such a log, or it has holes between its intervals.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&bytes).with_context(|| path.display().to_string())
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.trim_ascii_start().starts_with(b"{") {
            bail!("holds percentiles, which cannot be merged: write histograms with `drive --hlog FILE`");
        }
        let (mut base, mut start, mut intervals) = (Duration::ZERO, None, Vec::<Interval>::new());
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
            let length = interval.duration();
            if !LENGTHS.contains(&length) {
                bail!("an interval of {length:?} is damaged: one takes {:?} to {:?}", LENGTHS.start(), LENGTHS.end());
            }
            let at = base.checked_add(interval.start_timestamp()).context("an interval begins beyond all time")?;
            let first = *start.get_or_insert(at);
            let number =
                at.saturating_sub(first).as_secs_f64() / intervals.first().map_or(length, |one| one.length).as_secs_f64();
            let number = number.round() as usize;
            let tag = interval.tag();
            let outcome =
                TAGS.iter().find(|(_, one)| tag.as_deref() == Some(*one)).map_or(Outcome::Answered, |(outcome, _)| *outcome);
            if outcome == Outcome::Answered && number == intervals.len() {
                intervals.push(Interval { length, times: BTreeMap::from([(outcome, times)]) });
            } else if outcome == Outcome::Answered {
                bail!("its intervals do not follow one another");
            } else if number + 1 == intervals.len() {
                intervals[number].times.insert(outcome, times);
            } else {
                bail!("it has other requests without the answers of the same interval");
            }
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
    /// Their intervals differ in length or resolution, or are apart by more than a tenth, or the logs do not overlap: then a clock is wrong, or
    /// the runs were started at different times.
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
        if first >= self.intervals.len() as f64 {
            let after = other.start - self.start;
            bail!("it begins {after:.0?} after another, which was over by then: merge runs of the same time");
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
            let nothing = interval.times.iter().take(1).map(|(outcome, times)| (*outcome, Histogram::new_from(times)));
            self.intervals.push(Interval { length, times: nothing.collect() });
        }
        let own = &mut self.intervals[index];
        own.length = own.length.max(interval.length);
        for (outcome, times) in &interval.times {
            let own = own.times.entry(*outcome).or_insert_with(|| Histogram::new_from(times));
            if own.sigfig() != times.sigfig() {
                bail!("its histograms have {} significant digits, not {}", times.sigfig(), own.sigfig());
            }
            own.auto(true);
            own.add(times).map_err(|error| anyhow::anyhow!("its histograms do not fit: {error}"))?;
        }
        Ok(())
    }

    /// All intervals together.
    pub fn total(&self) -> Total {
        let all = || self.intervals.iter().flat_map(|interval| &interval.times);
        let count =
            |wanted: fn(Outcome) -> bool| all().filter(|(outcome, _)| wanted(**outcome)).map(|(_, times)| times.len()).sum();
        let mut times = Histogram::new_from(&self.intervals[0].times[&Outcome::Answered]);
        times.auto(true);
        // All are of one resolution, and it grows as needed.
        for (_, more) in all().filter(|(outcome, _)| outcome.is_timed()) {
            let _ = times.add(more);
        }
        let ages = all().filter(|(outcome, _)| **outcome == Outcome::Unanswered);
        Total {
            answered: count(|outcome| outcome.is_timed() && outcome != Outcome::Unanswered),
            late: count(|outcome| outcome == Outcome::Late),
            in_window: count(Outcome::is_in_rate),
            unanswered: count(|outcome| outcome == Outcome::Unanswered),
            length: self.intervals.iter().map(|interval| interval.length).sum(),
            youngest: ages.map(|(_, times)| times.min()).min().unwrap_or(0),
            times,
        }
    }
}

#[cfg(test)]
mod tests;
