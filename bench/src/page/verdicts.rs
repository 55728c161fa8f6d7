//! The verdicts that the page's script has to reach by itself from the values in the page: a file that the script is tested against.

use super::data::{MetricOf, Values, cells};
use crate::metrics::{Change, Family, Metric, Numbers, Percentile, Role, Unit, Value};
use crate::round::{self, Round};
use crate::verdict::noise::Noise;
use crate::verdict::{Pair, judge};
use serde::Serialize;
use std::cmp::Ordering;
use std::path::Path;

/// If this environment variable is set, the file is written first.
const WRITE: &str = "WRITE_VERDICTS";

/// Values as a page holds them, and the verdicts over pairs of servers.
#[derive(Serialize)]
struct Judged {
    metrics: Vec<MetricOf>,
    values: Values,
    pairs: Vec<PairOf>,
}

#[derive(Serialize)]
struct PairOf {
    first: String,
    second: String,
    lines: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    metric: String,
    change: Change,
    p: f64,
    can_differ: bool,
    differs: bool,
    /// The median of the second is larger: 1; smaller: -1.
    order: i8,
}

/// Every server against every other, all metrics of a pair at a time.
fn judged(servers: &[&str], numbers: &Numbers, noise: &Noise) -> Judged {
    let mut pairs = Vec::new();
    for first in servers {
        for second in servers.iter().filter(|second| *second != first) {
            let own = numbers.of_server(first).filter(|(metric, _)| metric.family.role != Role::Detail);
            let both: Vec<Pair<'_>> = own
                .filter_map(|(metric, before)| {
                    let after = numbers.cell(second, metric)?.clone();
                    Some(Pair { metric, before: before.clone(), after })
                })
                .collect();
            let found = judge(&both, noise);
            let lines = both.iter().zip(found).filter_map(|(pair, one)| {
                let one = one?;
                let order = match one.after.median.sort_order(&one.before.median) {
                    Ordering::Less => -1,
                    Ordering::Equal => 0,
                    Ordering::Greater => 1,
                };
                let metric = pair.metric.to_string();
                Some(Line { metric, change: one.change, p: one.p, can_differ: one.can_differ, differs: one.differs, order })
            });
            pairs.push(PairOf { first: (*first).into(), second: (*second).into(), lines: lines.collect() });
        }
    }
    let (metrics, values) = cells(servers.iter().copied(), numbers, noise);
    Judged { metrics, values, pairs }
}

/// A server, and what its seven trials say of a threshold, a response time, and a cost.
type MadeUp = (&'static str, [Value; 7], [Value; 7], [Value; 7]);

/// Each kind of value against each other, in a threshold, a response time, and a cost.
fn made_up() -> Judged {
    use Value::{AtLeast, Exact, Never, NotReached};
    let never = Never { tried: 64.0 };
    let around = |value: f64| [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(|step| Exact(value * (1.0 + step / 200.0)));
    let threshold = Family::new("freeze_k", Unit::Blockers, Role::Threshold).more_is_better().at("collateral", "sleep@110,100");
    let p99 = Percentile::default().family().at("collateral", "sleep@110,4");
    let cost = |place: &str| Family::new("cpu_us", Unit::Us, Role::Cost).at("throughput", place);
    let servers: [MadeUp; 9] = [
        ("two", [Exact(2.0); 7], around(200.0), around(10.0)),
        ("64", [Exact(64.0); 7], around(1.0), around(10.4)),
        ("never", [never; 7], around(1.5), around(20.0)),
        ("mostly never", [Exact(16.0), never, never, never, never, Exact(16.0), never], around(3.9), around(19.0)),
        (
            "sometimes never",
            [Exact(2.0), Exact(4.0), never, Exact(2.0), Exact(4.0), never, Exact(2.0)],
            around(150.0),
            [Exact(0.0); 7],
        ),
        ("frozen", [Exact(1.0); 7], [NotReached; 7], around(10.0)),
        (
            "mostly frozen",
            [Exact(1.0); 7],
            [NotReached, NotReached, Exact(90.0), NotReached, NotReached, Exact(95.0), NotReached],
            around(11.0),
        ),
        (
            "without an answer",
            [NotReached; 7],
            [AtLeast(504.0); 7],
            around(10.0).map(|value| AtLeast(value.number().unwrap_or(0.0))),
        ),
        (
            "two heaps",
            [Exact(1.0), Exact(1.0), Exact(2.0), Exact(2.0), Exact(4.0), Exact(4.0), Exact(4.0)],
            [300.0, 301.0, 302.0, 600.0, 601.0, 602.0, 603.0].map(Exact),
            around(10.2),
        ),
    ];
    let mut numbers = Numbers::default();
    let add = |numbers: &mut Numbers, server: &str, metric: &Metric, values: &[Value]| {
        values.iter().for_each(|value| numbers.add(server, [(metric.clone(), Ok(*value))]));
    };
    for (server, freezes, latencies, costs) in &servers {
        add(&mut numbers, server, &threshold, freezes);
        add(&mut numbers, server, &p99, latencies);
        add(&mut numbers, server, &cost("kept-alive"), costs);
        // Trials that are too few, and values that are all the same, leave the table of their family.
        add(&mut numbers, server, &cost("pipelined"), &costs[..3]);
        add(&mut numbers, server, &cost("fresh"), &[Exact(5.0); 7]);
    }
    judged(&servers.map(|one| one.0), &numbers, &Noise::default())
}

/// A few servers of a recorded round.
fn recorded() -> Judged {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench-results/2026-11-29-vm");
    let mut round = Round::open(&folder).unwrap();
    round.header.servers.retain(|row| row.tags.iter().any(|tag| tag == "readme"));
    round.header.servers.truncate(3);
    let servers: Vec<String> = round.header.servers.iter().map(|row| row.name.clone()).collect();
    round.trials.retain(|trial| servers.contains(&trial.server));
    let numbers = round::numbers(&round, Percentile::default()).unwrap();
    judged(&servers.iter().map(String::as_str).collect::<Vec<_>>(), &numbers, &Noise::default())
}

#[test]
fn the_file_that_the_page_is_tested_against_holds_the_verdicts_that_compare_reaches() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../report/test/verdicts.json");
    let made = serde_json::to_string(&[made_up(), recorded()]).unwrap().replace("},{", "},\n{") + "\n";
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "{} is not what is found now: write it anew with {WRITE}=1, and run the tests of report/",
        path.display()
    );
}
