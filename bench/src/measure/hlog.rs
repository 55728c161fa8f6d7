//! Response times as HdrHistogram's logs hold them, a histogram for each interval: written, read, and several added to one.
//!
//! Histograms of several machines add exactly. Percentiles do not: their mean is the percentile of nothing.

use super::latency::known;
use crate::load::Observation;
use crate::metrics::Value;
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use hdrhistogram::{Counter, Histogram};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The share of an interval by which the intervals of two logs may be apart.
const APART: f64 = 0.1;
/// Values are divided by this in the column of the maximum: nanoseconds to milliseconds.
const MAX_DIVISOR: f64 = 1_000_000.0;

/// The tags of the histograms of an interval: of the response times of its answers, and of the ages of requests that never got one.
const ANSWERS: &str = "lane-0";
const AGES: &str = "lane-0-unanswered";
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
    answers: Histogram<u64>,
    ages: Histogram<u64>,
}

/// All intervals of a log together.
#[derive(Debug)]
pub struct Total {
    /// Right answers.
    pub answered: u64,
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
    let seconds = seen.lanes[0].seconds.iter().enumerate().map(|(number, second)| {
        let left = seen.window.saturating_sub(Duration::from_secs(number as u64));
        (left.clamp(*LENGTHS.start(), Duration::from_secs(1)), &second.answers, &second.ages)
    });
    write(path, start, seconds)
}

fn write<'t, C: Counter + 't>(
    path: &Path,
    start: Duration,
    intervals: impl Iterator<Item = (Duration, &'t Histogram<C>, &'t Histogram<C>)>,
) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    let epoch = SystemTime::UNIX_EPOCH + start;
    builder.add_comment("response times of stallbench drive, in nanoseconds").with_start_time(epoch).with_base_time(epoch);
    builder.with_max_value_divisor(MAX_DIVISOR);
    let mut log = builder.begin_log_with(&mut file, &mut serializer)?;
    let mut from = Duration::ZERO;
    for (length, answers, ages) in intervals {
        for (times, tag) in [(answers, ANSWERS), (ages, AGES)] {
            if tag == ANSWERS || !times.is_empty() {
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
            match interval.tag().as_deref() {
                Some(AGES) if number + 1 == intervals.len() => intervals[number].ages = times,
                Some(AGES) => bail!("it has ages of requests without the answers of the same interval"),
                _ if number == intervals.len() => {
                    intervals.push(Interval { length, ages: Histogram::new_from(&times), answers: times });
                }
                _ => bail!("its intervals do not follow one another"),
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
        let intervals = self.intervals.iter().map(|interval| (interval.length, &interval.answers, &interval.ages));
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
            let nothing = Histogram::new_from(&interval.answers);
            self.intervals.push(Interval { length, answers: nothing.clone(), ages: nothing });
        }
        let own = &mut self.intervals[index];
        own.length = own.length.max(interval.length);
        for (own, times) in [(&mut own.answers, &interval.answers), (&mut own.ages, &interval.ages)] {
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
        let all = |of: fn(&Interval) -> &Histogram<u64>| {
            let mut total = Histogram::new_from(of(&self.intervals[0]));
            total.auto(true);
            // All are of one resolution, and it grows as needed.
            for interval in &self.intervals {
                let _ = total.add(of(interval));
            }
            total
        };
        let (mut times, ages) = (all(|interval| &interval.answers), all(|interval| &interval.ages));
        let (answered, unanswered, youngest) = (times.len(), ages.len(), ages.min());
        let _ = times.add(&ages);
        let length = self.intervals.iter().map(|interval| interval.length).sum();
        Total { answered, unanswered, length, youngest, times }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Recording;

    const SAMPLES: usize = 1_000_000;

    fn log(start_ms: u64, seconds: &[Histogram<u64>]) -> Log {
        let interval =
            |answers: &Histogram<u64>| Interval { length: Duration::from_secs(1), answers: answers.clone(), ages: histogram() };
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
                assert_eq!(interval.answers, whole[second], "seed {seed}");
            }
            assert_eq!(merged.total().answered, 2 * SAMPLES as u64);
        }
    }

    #[test]
    fn intervals_are_added_where_they_coincide() {
        let mut merged = log(3_000, &[one(10), one(20)]);
        merged.add(&log(1_960, &[one(30), one(40)])).unwrap();
        let counts: Vec<u64> = merged.intervals.iter().map(|interval| interval.answers.len()).collect();
        assert_eq!((merged.start, counts), (Duration::from_millis(1_960), vec![1, 2, 1]));
    }

    #[test]
    fn a_request_without_an_answer_stays_one_over_files_and_machines() {
        // A server that stands still from the middle of three seconds on: 500 answers, and then ages.
        let mut lane = Recording::default();
        (0..500).for_each(|_| lane.second(0).answers.record(1_000_000).unwrap());
        (2001..=4500).for_each(|age| lane.second(2_900_000_000).ages.record(age * 1_000_000).unwrap());
        let seen = Observation {
            lanes: vec![lane],
            window_start: Duration::ZERO,
            window: Duration::from_secs(3),
            driver_load: 0.0,
            gave_up: false,
            is_cut_short: false,
            started: 1_000.0,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        write_seconds(&path, &seen).unwrap();
        let mut merged = Log::read(&path).unwrap();
        merged.add(&Log::read(&path).unwrap()).unwrap();
        let total = reread(&merged).total();
        assert_eq!((total.answered, total.unanswered, total.length), (1000, 5000, Duration::from_secs(3)));
        assert!(matches!(total.response_ms(0.1), Value::Exact(ms) if (ms - 1.0).abs() < 0.01), "{:?}", total.response_ms(0.1));
        // 99 % of 3,000 requests are 2,970: the ages up to the 2,470th.
        assert!(
            matches!(total.response_ms(0.99), Value::AtLeast(ms) if (ms - 4470.0).abs() < 5.0),
            "{:?}",
            total.response_ms(0.99)
        );
    }

    #[test]
    fn logs_that_do_not_overlap_are_refused_whichever_comes_first() {
        let day = 86_400_000;
        for (first, second) in [(0, day), (day, 0), (0, 2_000)] {
            let error = log(first, &[one(1), one(1)]).add(&log(second, &[one(1)])).unwrap_err().to_string();
            assert!(error.contains("after another, which was over by then"), "{error}");
        }
    }

    #[test]
    fn a_log_with_a_hole_or_with_intervals_of_no_length_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        log(1_000, &[one(1), one(2)]).write(&path).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        assert!(Log::parse(whole.as_bytes()).is_ok());
        for (is, becomes, wanted) in [
            (",1.000,1.000,", ",1.000,0.000,", "an interval of 0ns"),
            (",1.000,1.000,", ",86400.000,1.000,", "do not follow one another"),
            (",1.000,1.000,", ",1.000,18446744073709551615.000,", "is damaged"),
            (",1.000,1.000,", ",18446744073709551615.000,1.000,", "beyond all time"),
        ] {
            assert!(whole.contains(is), "{whole}");
            let error = format!("{:#}", Log::parse(whole.replace(is, becomes).as_bytes()).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
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
