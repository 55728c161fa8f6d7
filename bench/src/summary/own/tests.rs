//! The verdict on a user's own service, in words.

mod cases;

use super::*;
use crate::metrics::LIMITS_MS;

pub(super) fn settings() -> Settings {
    Settings {
        blockers: vec![0, 1, 4, 64],
        block_ms: 110.0,
        slow_ms: Default::default(),
        lone: Default::default(),
        probe_ms: 0.1,
        fresh_ms: 0.2,
        window_ms: 1000,
        reference_blockers: Vec::new(),
        reference_window_ms: 1000,
        rate: 1000.0,
        connections: 256,
    }
}

fn verdict_on(settings: &Settings, readings: impl IntoIterator<Item = (Metric, Value)>) -> String {
    let row = Row { name: "yours".into(), ..Row::default() };
    let mut numbers = Numbers::default();
    numbers.add("yours", readings.into_iter().map(|(metric, value)| (metric, Ok(value))));
    Service { row: &row, numbers: &numbers, settings }.verdict()
}

/// The verdict on a service that never froze, of whose slow requests these failed: (k, failed, all).
fn verdict(slow: &[(usize, f64, f64)]) -> String {
    let never = (service::threshold_metric(110.0, LIMITS_MS[0]), Value::Never { tried: 64.0 });
    let failed = slow
        .iter()
        .flat_map(|(k, failed, all)| service::slow_failure_metrics(110.0, *k).into_iter().zip([*failed, *all].map(Value::Exact)));
    verdict_on(&settings(), std::iter::once(never).chain(failed))
}

#[test]
fn what_lets_new_clients_wait_is_not_harmless_to_those_that_are_connected() {
    let never = Value::Never { tried: 64.0 };
    let on = |kept: Value, fresh: f64| {
        let readings = [
            (service::threshold_metric(110.0, LIMITS_MS[0]), kept),
            (service::fresh_threshold_metric(110.0, LIMITS_MS[0]), Value::Exact(fresh)),
            (service::fresh_metric(110.0, fresh as usize), Value::AtLeast(1740.0)),
        ];
        verdict_on(&settings(), readings)
    };
    assert_eq!(
        on(never, 4.0),
        "yours: one slow request of 110 ms at a time is harmless; 4 let new connections wait for over 1.74 s (2 to 3 were not tried), while the 256 that are open are served."
    );
    assert!(on(Value::Exact(64.0), 4.0).ends_with("are served; 64 freeze these too."), "{}", on(Value::Exact(64.0), 4.0));
    assert!(on(never, 0.0).contains("beside 256 open connections, new ones wait for over 1.74 s without a single slow request"));
    // A server with a limit on connections refuses any further one at once.
    let refused = [
        (service::threshold_metric(110.0, LIMITS_MS[0]), never),
        (service::fresh_threshold_metric(110.0, LIMITS_MS[0]), Value::Exact(1.0)),
        (service::fresh_metric(110.0, 1), Value::AtLeast(1740.0)),
        (service::fresh_failed_metric(110.0, 1), Value::Exact(20.0)),
    ];
    let refused = verdict_on(&settings(), refused);
    assert!(refused.contains("one slow request lets new connections fail, while the 256 that are open are served"), "{refused}");
    // Where all wait, one sentence says so.
    assert!(!on(Value::Exact(4.0), 4.0).contains("new connections"), "{}", on(Value::Exact(4.0), 4.0));
}

#[test]
fn a_quick_request_that_takes_long_itself_is_judged_at_a_second_or_not_at_all() {
    let never = |limit_ms| [(service::threshold_metric(110.0, limit_ms), Value::Never { tried: 64.0 })];
    let slow = verdict_on(&Settings { probe_ms: 159.0, ..settings() }, never(LIMITS_MS[1]));
    assert!(slow.contains("up to 64 slow requests of 110 ms at a time leave the quick ones alone (p99 within 1 s)"), "{slow}");
    let slower = verdict_on(&Settings { probe_ms: 800.0, ..settings() }, never(LIMITS_MS[1]));
    assert!(slower.contains("a quick request takes 800 ms alone") && slower.contains("--probe"), "{slower}");
}

#[test]
fn only_slow_requests_that_were_answered_are_called_harmless() {
    let whole = verdict(&[(1, 0.0, 9.0), (4, 0.0, 36.0), (64, 2.0, 500.0)]);
    assert!(
        whole.contains("up to 64 slow requests of 110 ms at a time leave the quick ones alone (p99 within 0.1 s). Slow"),
        "{whole}"
    );
    assert!(whole.ends_with("Slow requests failed: 2 of 500 with 64 slow."), "{whole}");
    let part = verdict(&[(1, 0.0, 9.0), (4, 0.0, 36.0), (64, 200.0, 500.0)]);
    assert!(part.contains("up to 4 slow requests") && part.contains("; with more, slow requests failed."), "{part}");
    let nothing = verdict(&[(1, 9.0, 9.0), (4, 36.0, 36.0), (64, 500.0, 500.0)]);
    assert!(nothing.contains("this says nothing about what they do") && !nothing.contains("alone"), "{nothing}");
    // Rounds that did not count them.
    assert!(verdict(&[]).contains("up to 64"));
}

#[test]
fn slow_requests_that_take_less_time_together_than_alone_are_not_called_harmless() {
    let never = (service::threshold_metric(110.0, LIMITS_MS[0]), Value::Never { tried: 64.0 });
    let took = |times: [(usize, f64); 3]| {
        let times = times.map(|(k, ms)| (service::slow_time_metric(110.0, k), Value::Exact(ms)));
        verdict_on(&settings(), std::iter::once(never.clone()).chain(times))
    };
    let cached = took([(1, 0.3), (4, 0.3), (64, 0.3)]);
    assert_eq!(
        cached,
        "yours: a slow request that is repeated took only 0.30 ms, so this says nothing about what they do to the quick ones."
    );
    let later = took([(1, 110.0), (4, 440.0), (64, 0.3)]);
    assert!(
        later.contains("up to 4 slow") && later.ends_with("; with more, each of 64 slow requests at a time took only 0.30 ms."),
        "{later}"
    );
    assert!(took([(1, 110.0), (4, 110.0), (64, 900.0)]).contains("up to 64"));
}

/// The verdict on p99 beside 0, 1, 4 and 64 slow requests.
fn verdict_of(threshold: Option<Value>, waits: [f64; 4]) -> String {
    let waits = settings().blockers.into_iter().zip(waits);
    let waits = waits.map(|(k, ms)| (service::response_metric(Percentile::default(), 110.0, k), Value::Exact(ms)));
    let threshold = threshold.map(|threshold| (service::threshold_metric(110.0, LIMITS_MS[0]), threshold));
    verdict_on(&settings(), threshold.into_iter().chain(waits))
}

#[test]
fn a_freeze_that_more_slow_requests_do_not_repeat_is_told_with_a_doubt() {
    // Plain tokio on two workers is like that: one blocker may hold the worker that polls.
    let lucky = verdict_of(Some(Value::Exact(1.0)), [1.0, 108.0, 58.0, 302.0]);
    assert!(lucky.contains("one slow request freezes every other request for 108 ms"), "{lucky}");
    assert!(lucky.contains("Beside 4 they waited for no more than 58.0 ms, so luck decides here"), "{lucky}");
    let sure = verdict_of(Some(Value::Exact(4.0)), [1.0, 2.0, 150.0, 1000.0]);
    assert!(sure.contains("4 freeze every other request for 150 ms") && !sure.contains("luck"), "{sure}");
    let undecided = verdict_of(Some(Value::Exact(4.0)), [1.0, 2.0, 17.3, 400.0]);
    assert!(undecided.contains("4 freeze every other request in some trials"), "{undecided}");
    // Beside slow requests that did not do their work, nothing shows.
    let hurried = [
        (service::threshold_metric(110.0, LIMITS_MS[0]), Value::Exact(4.0)),
        (service::response_metric(Percentile::default(), 110.0, 4), Value::Exact(240.0)),
        (service::response_metric(Percentile::default(), 110.0, 64), Value::Exact(2.0)),
        (service::slow_time_metric(110.0, 64), Value::Exact(0.2)),
    ];
    assert!(!verdict_on(&settings(), hurried).contains("luck"));
}

#[test]
fn nothing_is_called_harmless_or_doubted_where_the_threshold_is_not_known() {
    let unknown = verdict_of(None, [1.0, 2.0, 500.0, 2.0]);
    assert_eq!(unknown, "yours: no valid measurement; the reasons stand below.");
}

#[test]
fn each_of_several_services_is_compared_with_its_own_slow_request() {
    let times = [("yours".to_owned(), 40.0), ("slower".to_owned(), 110.0)];
    let settings = Settings { slow_ms: times.into_iter().collect(), ..settings() };
    let never = (service::threshold_metric(110.0, LIMITS_MS[0]), Value::Never { tried: 64.0 });
    let took = [1, 4, 64].map(|k| (service::slow_time_metric(110.0, k), Value::Exact(40.0)));
    let verdict = verdict_on(&settings, std::iter::once(never).chain(took));
    assert!(verdict.contains("up to 64 slow requests"), "{verdict}");
}

#[test]
fn what_freezes_without_slow_requests_is_blamed_on_the_rate_only_where_most_wait() {
    let on = |median: f64| {
        verdict_on(
            &settings(),
            [
                (service::threshold_metric(110.0, LIMITS_MS[0]), Value::Exact(0.0)),
                (service::response_metric(Percentile::default(), 110.0, 0), Value::Exact(300.0)),
                (service::median_metric(110.0, 0), Value::Exact(median)),
            ],
        )
    };
    assert!(on(200.0).contains("are too many for it; try fewer with --connections"), "{}", on(200.0));
    assert!(on(0.4).contains("Half of them take no more than 0.40 ms, so it is not too many requests"), "{}", on(0.4));
}

#[test]
fn slow_requests_that_stand_in_line_are_told_though_the_quick_ones_do_not_wait() {
    let never = (service::threshold_metric(110.0, LIMITS_MS[0]), Value::Never { tried: 64.0 });
    let on = |took: f64, served: f64| {
        let readings = [
            never.clone(),
            (service::slow_time_metric(110.0, 64), Value::Exact(took)),
            (service::served_metric(110.0, 64), Value::Exact(served)),
        ];
        verdict_on(&settings(), readings)
    };
    let queued = on(7040.0, 9.0);
    assert!(
        queued.ends_with("Slow requests wait for one another: beside 64 at a time each takes 7.04 s, not 110 ms."),
        "{queued}"
    );
    assert!(!on(150.0, 400.0).contains("wait for one another"));
    let none = on(150.0, 0.0);
    assert!(none.ends_with("Of 64 slow requests at a time, none was answered within the measurement."), "{none}");
}

#[test]
fn a_load_of_more_slow_requests_than_a_service_answers_has_no_number_of_them_at_a_time() {
    let row = Row { name: "yours".into(), ..Row::default() };
    let mut numbers = Numbers::default();
    let served = [(1, 9.0), (4, 9.0), (64, 5.0)].map(|(k, per_s)| (service::served_metric(110.0, k), Ok(Value::Exact(per_s))));
    numbers.add("yours", served);
    let settings = settings();
    let service = Service { row: &row, numbers: &numbers, settings: &settings };
    let load = |rate: f64| service.load(SlowShare { share: 0.05, rate });
    assert!(
        load(250.0).starts_with("Your load brings 12.5 slow requests a second, and yours answered 9.00 at most"),
        "{}",
        load(250.0)
    );
    assert!(load(100.0).contains("0.55 slow requests at a time on average"), "{}", load(100.0));
    // Where more clients get more answers, and where only one was tried, the limit is not known.
    for served in [&[(1, 9.0), (4, 36.0), (64, 576.0)][..], &[(1, 9.0)]] {
        let mut numbers = Numbers::default();
        numbers.add("yours", served.iter().map(|(k, per_s)| (service::served_metric(110.0, *k), Ok(Value::Exact(*per_s)))));
        let service = Service { row: &row, numbers: &numbers, settings: &settings };
        assert_eq!(service.most_below(SlowShare { share: 0.05, rate: 20_000.0 }), None);
    }
}

#[test]
fn a_service_that_ends_beside_slow_requests_is_told_first() {
    let row = Row { name: "yours".into(), ..Row::default() };
    let mut numbers = Numbers::default();
    let of = |k: usize| service::response_metric(Percentile::default(), 110.0, k);
    let reason = "beside k=4 the measurement broke off; the server ended with exit status 7";
    numbers.add("yours", [(of(0), Ok(Value::Exact(0.2))), (of(1), Ok(Value::Exact(0.2))), (of(4), Err(reason.to_owned()))]);
    let settings = settings();
    let said = Service { row: &row, numbers: &numbers, settings: &settings }.verdict();
    assert_eq!(
        said,
        "yours: one slow request of 110 ms at a time is harmless; 4 slow requests at a time end it: the server ended with exit status 7."
    );
}

#[test]
fn few_connections_that_wait_are_not_every_other_request() {
    let of = |probe_ms: f64, median: f64| {
        let readings = [
            (service::threshold_metric(110.0, LIMITS_MS[0]), Value::Exact(1.0)),
            (service::response_metric(Percentile::default(), 110.0, 1), Value::Exact(124.0)),
            (service::median_metric(110.0, 1), Value::Exact(median)),
        ];
        verdict_on(&Settings { probe_ms, ..settings() }, readings)
    };
    let on = |median: f64| of(0.1, median);
    // More than half wait for longer than the limit, or for no more than a little while.
    assert!(of(25.0, 200.0).contains("freezes every other request"), "{}", of(25.0, 200.0));
    assert!(on(1.5).contains("but not half of them"), "{}", on(1.5));
    assert!(on(0.08).contains("one slow request freezes some of the others, but not half of them, for 124 ms"), "{}", on(0.08));
    assert!(on(120.0).contains("one slow request freezes every other request for 124 ms"), "{}", on(120.0));
}
