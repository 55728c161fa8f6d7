//! Services that mislead: cold or of several lengths, that fail, refuse, queue, or are held up by something else.

use super::*;
use crate::experiment::service::Lone;

const NEVER: Value = Value::Never { tried: 64.0 };

fn threshold(value: Value) -> (Metric, Value) {
    (service::threshold_metric(110.0, LIMITS_MS[0]), value)
}

fn response(k: usize, value: Value) -> (Metric, Value) {
    (service::response_metric(Percentile::default(), 110.0, k), value)
}

fn took(k: usize, value: Value) -> (Metric, Value) {
    (service::slow_time_metric(110.0, k), value)
}

fn served(k: usize, per_s: f64) -> (Metric, Value) {
    (service::served_metric(110.0, k), Value::Exact(per_s))
}

/// The quick requests beside k slow ones: how many failed, out of how many, and how many of the failed ones were refused with which status.
fn failed(k: usize, failed: f64, all: f64, (status, refused): (u16, f64)) -> Vec<(Metric, Value)> {
    let counts = service::failure_metrics(110.0, k).into_iter().zip([failed, all].map(Value::Exact));
    let refused = service::refused_metric(status, 110.0, k).map(|metric| (metric, Value::Exact(refused)));
    counts.chain([(service::fails_metric(110.0, k), Value::Exact(1.0))]).chain(refused).collect()
}

fn bars_on(readings: impl IntoIterator<Item = (Metric, Value)>) -> String {
    let row = Row { name: "yours".into(), ..Row::default() };
    let mut numbers = Numbers::default();
    numbers.add("yours", readings.into_iter().map(|(metric, value)| (metric, Ok(value))));
    let settings = settings();
    let terminal = Terminal::of_stdout(false, false);
    Service { row: &row, numbers: &numbers, settings: &settings }.bars(&terminal, None).unwrap()
}

#[test]
fn the_time_of_slow_requests_of_which_most_still_wait_is_told_as_a_bound_beside_what_their_rate_says() {
    let of = |ms: f64| verdict_on(&settings(), [threshold(NEVER), took(64, Value::AtLeast(ms)), served(64, 20.0)]);
    let wanted = "beside 64 at a time each takes over 1.15 s (about 3.20 s, by their rate), not 110 ms.";
    assert!(of(1150.0).ends_with(wanted), "{}", of(1150.0));
    // Where none was answered in the window, their ages tell.
    let none = verdict_on(&settings(), [threshold(NEVER), took(64, Value::AtLeast(2122.0)), served(64, 0.0)]);
    assert!(none.ends_with("beside 64 at a time each takes over 2.12 s, not 110 ms."), "{none}");
    // What is as quick as the quick request does not wait for its like.
    let cached = Settings { block_ms: 0.1, ..settings() };
    let readings =
        [(service::slow_time_metric(0.1, 64), Value::Exact(7.0)), (service::threshold_metric(0.1, LIMITS_MS[0]), NEVER)];
    let cached = verdict_on(&cached, readings);
    assert!(!cached.contains("wait for one another"), "{cached}");
    // A bound that is short says nothing against it.
    assert!(of(300.0).contains("each takes over 300 ms (about 3.20 s"), "{}", of(300.0));
}

#[test]
fn a_slow_request_of_two_lengths_is_no_cache_and_its_load_is_counted_with_the_mean() {
    let lone = Lone { mean_ms: 101.0, least_ms: 20.0, most_ms: 201.0 };
    let settings = Settings {
        lone: [("yours".to_owned(), lone)].into(),
        slow_ms: [("yours".to_owned(), 200.0)].into(),
        block_ms: 200.0,
        ..settings()
    };
    let at = |k: usize, ms: f64| (service::slow_time_metric(200.0, k), Value::Exact(ms));
    let never = (service::threshold_metric(200.0, LIMITS_MS[0]), NEVER);
    let said = verdict_on(&settings, [never, at(1, 200.0), at(4, 20.5), at(64, 21.0)]);
    assert!(said.contains("up to 64 slow requests of 200 ms at a time leave the quick ones alone"), "{said}");
    assert!(
        said.ends_with("Alone, nine of ten slow requests took 20.0 ms to 201 ms, and all of them 101 ms on average."),
        "{said}"
    );
    let (row, numbers) = (Row { name: "yours".into(), ..Row::default() }, Numbers::default());
    let load = Service { row: &row, numbers: &numbers, settings: &settings }.load(SlowShare { share: 0.05, rate: 2000.0 });
    assert!(load.contains("2000 x 0.05 x 0.101 = 10.10 slow requests"), "{load}");
}

#[test]
fn a_service_that_was_cold_when_it_was_asked_first_is_measured_by_what_one_at_a_time_took() {
    let times = |warm: f64| [1, 4, 64].map(|k| took(k, Value::Exact(warm)));
    let said = verdict_on(&settings(), std::iter::once(threshold(NEVER)).chain(times(40.0)));
    assert!(said.contains("up to 64 slow requests of 40.0 ms at a time leave the quick ones alone"), "{said}");
    assert!(said.contains("took 110 ms, and one at a time took 40.0 ms later, which counts: it starts cold"), "{said}");
    // What is as quick as a quick request did no work.
    let cached = verdict_on(&settings(), std::iter::once(threshold(NEVER)).chain(times(0.15)));
    assert!(cached.contains("this says nothing about what they do"), "{cached}");
}

#[test]
fn a_freeze_in_which_some_requests_fail_is_told_with_both_and_no_failed_request_has_a_time() {
    let [median, p99] = service::wait_metrics(110.0, 1);
    let on = |half_ms: f64, most: Value| {
        let found = [threshold(Value::Exact(1.0)), response(1, Value::AtLeast(6099.0)), (median.clone(), Value::Exact(half_ms))];
        found.into_iter().chain([(p99.clone(), most)]).chain(failed(1, 51.0, 766.0, (503, 0.0)))
    };
    let said = verdict_on(&settings(), on(1500.0, Value::AtLeast(2300.0)));
    assert!(said.contains("one slow request freezes every other request for over 2.30 s, and 7 % fail."), "{said}");
    let few = verdict_on(&settings(), on(0.2, Value::Exact(2300.0)));
    assert!(few.contains("freezes some of the others, but not half of them, for 2.30 s, and 7 % fail"), "{few}");
    // A bound below the limit is no freeze.
    for most in [Value::Exact(5.0), Value::AtLeast(5.0)] {
        let quick = verdict_on(&settings(), on(0.2, most));
        assert!(quick.contains("one slow request makes other requests fail."), "{quick}");
    }
    let shown = bars_on(on(1500.0, Value::AtLeast(2300.0)));
    assert!(shown.contains(">= 2300 ms, or they fail") && !shown.contains("6099"), "{shown}");
    // Rounds that do not say how long the others waited.
    let old = bars_on([response(1, Value::AtLeast(6099.0))].into_iter().chain(failed(1, 51.0, 766.0, (503, 0.0))));
    assert!(old.contains("they fail") && !old.contains("6099"), "{old}");
}

#[test]
fn a_limit_on_requests_is_not_blamed_on_connections_or_on_slow_requests() {
    let on = |k: usize, status: u16| {
        let step = failed(k, 432.0, 532.0, (status, 432.0));
        verdict_on(&settings(), std::iter::once(threshold(Value::Exact(k as f64))).chain(step))
    };
    for (k, status) in [(0, 429), (0, 503), (1, 429)] {
        let said = on(k, status);
        assert!(said.contains(&format!("it refuses 432 of 532 quick requests a second ({status})")), "{said}");
        assert!(said.contains("lift its limit for the measurement") && !said.contains("makes other"), "{said}");
    }
    assert!(on(1, 429).contains("beside one slow one, which its limit may count too"), "{}", on(1, 429));
    // What is shed only beside slow requests is harm that they do.
    assert!(on(1, 503).contains("one slow request makes other requests fail"), "{}", on(1, 503));
}

/// A round whose quick requests waited for 144 ms once without a slow one, as most of them did or did not.
fn outlier(waits: [f64; 3], half_ms: f64) -> Vec<(Metric, Value)> {
    let waits = settings().blockers.into_iter().skip(1).zip(waits).map(|(k, ms)| response(k, Value::Exact(ms)));
    let first = [threshold(Value::Exact(0.0)), response(0, Value::Exact(144.0))];
    first.into_iter().chain([(service::median_metric(110.0, 0), Value::Exact(half_ms))]).chain(waits).collect()
}

#[test]
fn one_wait_without_slow_requests_does_not_hide_what_they_do() {
    let calm = verdict_on(&settings(), outlier([8.5, 7.9, 21.6], 0.2));
    assert!(calm.contains("up to 64 slow requests of 110 ms at a time leave the quick ones alone"), "{calm}");
    let doubt = "Without a slow one they waited for 144 ms, but beside 1 for no more than 8.50 ms";
    assert!(calm.contains(doubt) && calm.contains("measure again, with more --trials"), "{calm}");
    let later = verdict_on(&settings(), outlier([150.0, 37.7, 756.0], 0.2));
    assert!(later.contains("up to 4 slow requests of 110 ms at a time are harmless; 64 freeze"), "{later}");
    // A number of which not all were handled freezes nothing if nobody waited.
    let refused = service::slow_failure_metrics(110.0, 64).into_iter().zip([200.0, 500.0].map(Value::Exact));
    let refused = verdict_on(&settings(), outlier([8.5, 7.9, 5.0], 0.2).into_iter().chain(refused));
    assert!(refused.contains("up to 4 slow requests of 110 ms at a time leave the quick ones alone"), "{refused}");
    // Nor does one of new connections.
    let fresh = [(0, 105.0), (1, 3.0), (4, 2.0), (64, 150.0)].map(|(k, ms)| (service::fresh_metric(110.0, k), Value::Exact(ms)));
    let held = (service::fresh_threshold_metric(110.0, LIMITS_MS[0]), Value::Exact(0.0));
    let new = verdict_on(&settings(), [threshold(NEVER), held].into_iter().chain(fresh));
    assert!(
        new.contains("up to 4 slow requests of 110 ms at a time are harmless; 64 let new connections wait for 150 ms"),
        "{new}"
    );
    // Where most of them wait, or beside any number of slow ones, it is no chance.
    for held in [outlier([8.5, 7.9, 21.6], 130.0), outlier([150.0, 200.0, 756.0], 0.2)] {
        let held = verdict_on(&settings(), held);
        assert!(held.contains("freeze without a single slow one"), "{held}");
    }
}

#[test]
fn slow_requests_that_are_harmless_only_one_after_another_are_told_so() {
    let on = |wait: f64| {
        let waits = [(0, 5.0), (1, 5.0), (4, wait), (64, 900.0)].map(|(k, ms)| response(k, Value::Exact(ms)));
        verdict_on(&settings(), std::iter::once(threshold(Value::Exact(64.0))).chain(waits))
    };
    let in_turn = on(28.0);
    assert!(in_turn.contains("are harmless while they start evenly, but hold the others up for 110 ms"), "{in_turn}");
    // Longer than a turn, they share the processors.
    for other in [6.0, 80.0] {
        assert!(on(other).contains("up to 4 slow requests of 110 ms at a time are harmless; 64 freeze"), "{}", on(other));
    }
}

#[test]
fn new_connections_whose_waits_grow_are_told_that_they_do() {
    let readings = [
        threshold(NEVER),
        (service::fresh_threshold_metric(110.0, LIMITS_MS[0]), Value::Exact(4.0)),
        (service::fresh_metric(110.0, 4), Value::AtLeast(640.0)),
        (service::fresh_grows_metric(110.0, 4), Value::Exact(1.0)),
    ];
    let said = verdict_on(&settings(), readings);
    assert!(said.contains("4 let new connections wait for over 640 ms, and for longer and longer"), "{said}");
}
