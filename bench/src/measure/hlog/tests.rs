use super::*;
use crate::load::Recording;

const SAMPLES: usize = 1_000_000;

fn log(start_ms: u64, seconds: &[Histogram<u64>]) -> Log {
    let interval = |answers: &Histogram<u64>| Interval {
        length: Duration::from_secs(1),
        times: BTreeMap::from([(Outcome::Answered, answers.clone())]),
    };
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

/// The log of a run with this window.
fn written(lane: Recording, seconds: u64) -> Log {
    let seen = Observation {
        lanes: vec![lane],
        window_start: Duration::ZERO,
        window: Duration::from_secs(seconds),
        driver_load: 0.0,
        gave_up: false,
        is_cut_short: false,
        started: 1_000.0,
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    write_seconds(&path, &seen).unwrap();
    Log::read(&path).unwrap()
}

#[test]
fn what_is_late_has_a_time_and_what_was_due_before_the_window_a_rate() {
    let mut lane = Recording::default();
    for (at, outcome, ms) in [(0, Outcome::Early, 900), (0, Outcome::Answered, 1), (1, Outcome::Late, 5), (1, Outcome::Late, 5)] {
        lane.second(at * 1_000_000_000, outcome).record(ms * 1_000_000).unwrap();
    }
    let mut merged = written(lane.clone(), 2);
    merged.add(&written(lane, 2)).unwrap();
    let total = reread(&merged).total();
    assert_eq!((total.answered, total.late, total.in_window, total.unanswered), (6, 4, 4, 0));
    assert!(matches!(total.response_ms(1.0), Value::Exact(ms) if (ms - 5.0).abs() < 0.01), "{:?}", total.response_ms(1.0));
}

#[test]
fn a_window_is_as_long_in_a_log_though_its_end_was_silent() {
    let mut lane = Recording::default();
    lane.second(0, Outcome::Answered).record(1_000_000).unwrap();
    assert_eq!(written(lane, 4).total().length, Duration::from_secs(4));
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
            assert_eq!(interval.times[&Outcome::Answered], whole[second], "seed {seed}");
        }
        assert_eq!(merged.total().answered, 2 * SAMPLES as u64);
    }
}

#[test]
fn intervals_are_added_where_they_coincide() {
    let mut merged = log(3_000, &[one(10), one(20)]);
    merged.add(&log(1_960, &[one(30), one(40)])).unwrap();
    let counts: Vec<u64> = merged.intervals.iter().map(|interval| interval.times[&Outcome::Answered].len()).collect();
    assert_eq!((merged.start, counts), (Duration::from_millis(1_960), vec![1, 2, 1]));
}

#[test]
fn a_request_without_an_answer_stays_one_over_files_and_machines() {
    // A server that stands still from the middle of three seconds on: 500 answers, and then ages.
    let mut lane = Recording::default();
    (0..500).for_each(|_| lane.second(0, Outcome::Answered).record(1_000_000).unwrap());
    (2001..=4500).for_each(|age| lane.second(2_900_000_000, Outcome::Unanswered).record(age * 1_000_000).unwrap());
    let mut merged = written(lane, 3);
    merged.add(&merged.clone()).unwrap();
    let total = reread(&merged).total();
    assert_eq!((total.answered, total.unanswered, total.length), (1000, 5000, Duration::from_secs(3)));
    assert!(matches!(total.response_ms(0.1), Value::Exact(ms) if (ms - 1.0).abs() < 0.01), "{:?}", total.response_ms(0.1));
    // 99 % of 3,000 requests are 2,970: the ages up to the 2,470th.
    assert!(matches!(total.response_ms(0.99), Value::AtLeast(ms) if (ms - 4470.0).abs() < 5.0), "{:?}", total.response_ms(0.99));
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
