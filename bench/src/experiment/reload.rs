//! Transparency: a constant stream of requests while the processes that answer it are replaced, restarted, multiplied and killed.
//!
//! Servers that take their listener from the process that starts them run under this project's supervisor; Express under PM2 runs under PM2.
//! Both are told on their own command lines.

use super::contract::{Choices, Experiment, Needs};
use crate::catalog::{Row, Server};
use crate::http::Request;
use crate::load::{Lane, Load, Observation, Target};
use crate::measure::{Mode, Session, learn_request, ms};
use crate::metrics::{Family, Percentile, Reading, Role, Unit, Value};
use crate::process::deploy::manager::{self, Act, Manager};
use crate::report::{self, Cell, Figure, Places, Scale, Table, View};
use crate::stats::median;
use crate::validity;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::thread;
use std::time::{Duration, Instant};

/// Requests per second of each of the four streams: `GET` and `POST`, on kept-alive and on fresh connections.
const RATE: f64 = 245.0;
/// Connections that are kept.
const KEPT: usize = 16;
/// Requests per second to a route that takes 100 ms.
const SLOW_RATE: f64 = 5.0;
/// The least time from the start of a reload to that of the next.
const BETWEEN: Duration = Duration::from_millis(1200);
/// Stream that is left out: the first requests meet memory that was never touched.
const WARMUP: Duration = Duration::from_secs(1);
/// Stream before something is done, and after it.
const AROUND: Duration = Duration::from_millis(700);
/// A request that takes longer was delayed.
const DELAYED: Duration = Duration::from_millis(150);
/// Longest wait for answers.
const GRACE: Duration = Duration::from_secs(5);
/// The lanes of quick requests; the slow route's lane follows.
const QUICK: usize = 4;
/// Those of them on fresh connections.
const FRESH: [usize; 2] = [1, 3];

const FIRST_ANSWER: Family = Family::new("first_answer_ms", Unit::Ms, Role::Detail);
const MANAGER: Family = Family::new("manager_rss_mib", Unit::Mib, Role::Detail);
const FAILED: Family = Family::new("failed", Unit::Count, Role::Detail);
const REQUESTS: Family = Family::new("requests", Unit::Count, Role::Detail);
const DELAYED_COUNT: Family = Family::new("delayed", Unit::Count, Role::Detail);
const LONGEST: Family = Family::new("longest_ms", Unit::Ms, Role::Latency);
const TOOK: Family = Family::new("took_ms", Unit::Ms, Role::Detail);

/// One entry for each act.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reload {
    /// From `start` to the first right answer, the manager itself not yet running, in ms.
    first_answer_ms: f64,
    /// Resident memory of the manager's own processes, in MiB.
    manager_rss_mib: f64,
    /// The acts.
    steps: Vec<Done>,
}

/// An act, and what happened to requests meanwhile.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Done {
    act: Act,
    /// How often.
    times: usize,
    /// How long it took each time, in ms.
    took_ms: Vec<f64>,
    /// The reason why it did not work, in the manager's own words; that it refuses a bad build is right.
    trouble: Option<String>,
    /// Requests.
    planned: u64,
    /// Requests without a right answer.
    failed: u64,
    /// The reason of the first.
    first_failure: Option<String>,
    /// Answers that took longer than 150 ms, the slow route's left out; of stuck workers, only those on fresh connections.
    delayed: u64,
    /// The longest, likewise.
    max_ms: f64,
    /// The reason why times are invalid.
    #[serde(default)]
    invalid: Option<String>,
}

/// How it measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Reloads in a row.
    reloads: usize,
}

impl Experiment for Reload {
    const NAME: &'static str = "reload";
    type Settings = Settings;

    fn settings(mode: Mode, _: &Choices) -> Settings {
        Settings { reloads: if mode == Mode::Quick { 2 } else { 20 } }
    }

    fn settings_of_schema_1(_: &Json, mode: Mode) -> Settings {
        Self::settings(mode, &Choices::default())
    }

    fn seconds(settings: &Settings) -> f64 {
        36.0 + 1.6 * settings.reloads as f64
    }

    fn unsupported(server: &Server, _: &Settings) -> Option<String> {
        manager::unsupported(server).map(str::to_owned)
    }

    fn needs(server: &Server, _: &Settings) -> Needs {
        if manager::needs_supervisor(server) { Needs::Supervisor } else { Needs::Nothing }
    }

    fn run(session: &Session<'_>, settings: &Settings) -> Result<Self> {
        let started = Instant::now();
        let mut manager = Manager::start(session.server, &session.start_conditions())?;
        let host = manager.cluster().address.to_string();
        let mut learn = |name: &str, request: Request| learn_request(manager.cluster(), name, &request);
        let page = learn("/", Request::get(&host, "/"))?;
        let first_answer_ms = ms(started.elapsed());
        let posted = learn("POST /json/parse", Request::post_json(&host, "/json/parse", b"[1,2,3]".to_vec()))?;
        let slow = learn("/sleep", Request::get(&host, "/sleep?ms=100"))?;
        let lanes = lanes(&page, &posted, &slow);
        let manager_rss_mib = manager.rss_mib()?;
        let mut steps = Vec::new();
        for act in Act::ALL {
            if manager.can(act) {
                let times = if act == Act::Reload { settings.reloads } else { 1 };
                steps.push(step(session, &mut manager, act, times, &lanes)?);
            }
        }
        Ok(Reload { first_answer_ms, manager_rss_mib, steps })
    }

    fn read(&self, _: &Settings, _: Percentile) -> Result<Vec<Reading>> {
        let mut readings = vec![
            (FIRST_ANSWER.at(Self::NAME, ""), Ok(Value::Exact(self.first_answer_ms))),
            (MANAGER.at(Self::NAME, ""), Ok(Value::Exact(self.manager_rss_mib))),
        ];
        for done in &self.steps {
            let at = |family: Family| family.at(Self::NAME, done.act.name());
            let did = |value: f64| done.trouble.clone().map_or(Ok(Value::Exact(value)), Err);
            // A driver that is late changes how long an answer takes, not whether there is one.
            let in_time = |value: f64| done.invalid.clone().map_or(did(value), Err);
            readings.push((at(FAILED), did(done.failed as f64)));
            readings.push((at(REQUESTS), did(done.planned as f64)));
            readings.push((at(DELAYED_COUNT), in_time(done.delayed as f64)));
            readings.push((at(LONGEST), in_time(done.max_ms)));
            readings.extend(median(&done.took_ms).map(|took| (at(TOOK), did(took))));
        }
        Ok(readings)
    }

    fn families(_: Percentile) -> Vec<Family> {
        vec![LONGEST]
    }

    fn tables(_: &Settings, view: &View<'_>) -> Vec<Table> {
        let acts = acts(view);
        let columns = || acts.iter().map(|act| report::Column::number(act.name())).collect::<Vec<_>>();
        let wide = |head: &str| report::Column::number(head).wide();
        let at = |family: Family, place: &str| family.at(Self::NAME, place);
        // Over all trials: a median would hide what failed in one of them.
        let failed = |row: &Row, act: &Act| {
            let [failed, of] = [FAILED, REQUESTS].map(|family| view.sum(row, &at(family, act.name())));
            if of == 0.0 {
                view.cell(row, &at(FAILED, act.name()))
            } else {
                Cell::words(format!("{} of {}", report::count(failed), report::count(of)))
            }
        };
        let title = "Requests that failed, of those in all trials, while the processes of a cluster of two are replaced under a thousand a second, half of them on fresh connections";
        let own = ["first answer ms", "manager MiB", "reload took ms"].map(wide);
        let all = view.table(Self::NAME, title, columns().into_iter().chain(own).collect(), |row| {
            let own = [at(FIRST_ANSWER, ""), at(MANAGER, ""), at(TOOK, Act::Reload.name())].map(|metric| view.cell(row, &metric));
            acts.iter().map(|act| failed(row, act)).chain(own).collect()
        });
        let title = "The longest wait, in ms, of the requests that did not fail";
        let waits = view.table("reload-waits", title, columns(), |row| {
            acts.iter().map(|act| view.cell(row, &at(LONGEST, act.name()))).collect()
        });
        vec![all, waits]
    }

    fn figures(_: &Settings, view: &View<'_>) -> Vec<Figure> {
        let acts = acts(view);
        let x = Places::even("", &acts.iter().map(|act| act.name()).collect::<Vec<_>>());
        let scale = Scale { limits: Vec::new(), ..Scale::response_time(view.percentile) };
        let scale = Scale { label: "longest wait".into(), ..scale };
        let title = "The longest wait for an answer while the processes of a cluster are replaced";
        view.figure(Self::NAME, title, x, scale, |at| LONGEST.at(Self::NAME, acts[at].name())).into_iter().collect()
    }
}

/// The acts of a round: an older one lacks those that have been added since.
fn acts(view: &View<'_>) -> Vec<Act> {
    let is_there = |act: &Act| {
        let metric = FAILED.at(Reload::NAME, act.name());
        view.rows.iter().any(|row| view.numbers.cell(&row.name, &metric).is_some())
    };
    Act::ALL.into_iter().filter(is_there).collect()
}

fn lanes(page: &Target, posted: &Target, slow: &Target) -> Vec<Lane> {
    let mut lanes = Vec::new();
    for target in [page, posted] {
        lanes.push(Lane::open(target.clone(), KEPT, RATE, false));
        lanes.push(Lane { is_fresh: true, ..Lane::open(target.clone(), 1, RATE, false) });
    }
    lanes.push(Lane { is_fresh: true, ..Lane::open(slow.clone(), 1, SLOW_RATE, false) });
    lanes
}

fn step(session: &Session<'_>, manager: &mut Manager, act: Act, times: usize, lanes: &[Lane]) -> Result<Done> {
    let window = 2 * AROUND + manager.usual(act) * times as u32 + BETWEEN * (times as u32 - 1);
    let placement = session.placement;
    let load = Load { warmup: WARMUP, grace: GRACE, spin: placement.spin(), ..Load::of(lanes.to_vec(), window, session.seed) };
    let started = Instant::now();
    let (seen, (took_ms, trouble)) = session.drive_while(&load, || {
        let (took_ms, trouble) = act_on(manager, act, times);
        // What happens after the stream is seen by nobody.
        let is_over = started.elapsed() > WARMUP + window;
        (took_ms, trouble.or_else(|| is_over.then(|| "it took longer than the stream of requests".into())))
    })?;
    Ok(found(act, took_ms, trouble, &seen))
}

/// Does it as often as is wanted, or until it does not work.
fn act_on(manager: &mut Manager, act: Act, times: usize) -> (Vec<f64>, Option<String>) {
    thread::sleep(WARMUP + AROUND);
    let mut took_ms = Vec::new();
    for number in 0..times {
        let started = Instant::now();
        if let Err(error) = manager.act(act) {
            return (took_ms, Some(format!("{error:#}")));
        }
        took_ms.push(ms(started.elapsed()));
        if number + 1 < times {
            thread::sleep(BETWEEN.saturating_sub(started.elapsed()));
        }
    }
    (took_ms, None)
}

fn found(act: Act, took_ms: Vec<f64>, trouble: Option<String>, seen: &Observation) -> Done {
    // A kept connection belongs to its process, and waits while that is stuck.
    let counts = |lane: &usize| act != Act::Stick || FRESH.contains(lane);
    let quick: Vec<_> = (0..QUICK).filter(counts).map(|lane| &seen.lanes[lane]).collect();
    let delayed = DELAYED.as_nanos() as u64;
    Done {
        act,
        times: took_ms.len(),
        took_ms,
        trouble,
        planned: seen.lanes.iter().map(|lane| lane.planned).sum(),
        failed: seen.lanes.iter().map(|lane| lane.planned - lane.answered).sum(),
        first_failure: seen.lanes.iter().find_map(|lane| lane.first_error.clone()),
        delayed: quick.iter().map(|lane| lane.response.len() - lane.response.count_between(0, delayed)).sum(),
        max_ms: quick.iter().map(|lane| lane.response.max()).max().unwrap_or(0) as f64 / 1e6,
        // The slow route's answers are few, and none of them is claimed to be quick.
        invalid: (0..QUICK)
            .find_map(|lane| validity::of_driver(seen, lane, &seen.lanes[lane].response).err())
            .or(validity::any_answer(&quick).err())
            .map(|failure| failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Recording;

    #[test]
    fn a_request_that_failed_is_neither_delayed_nor_the_longest() {
        let lane = || {
            let mut lane = Recording { planned: 103, answered: 101, failed: 1, unanswered: 1, errors: 1, ..Recording::default() };
            lane.response.record_n(1_000_000, 100).unwrap();
            lane.response.record(200_000_000).unwrap();
            lane.lag.record_n(1_000, 103).unwrap();
            // A connection broke in the beginning, and a request was never answered.
            lane.ages.record_n(7_000_000_000, 2).unwrap();
            lane
        };
        let seen = Observation {
            lanes: (0..=QUICK).map(|_| lane()).collect(),
            window_start: WARMUP,
            window: Duration::from_secs(2),
            driver_load: 0.1,
            gave_up: false,
            is_cut_short: false,
            started: 0.0,
        };
        let done = found(Act::Reload, Vec::new(), None, &seen);
        assert_eq!((done.failed, done.delayed, done.max_ms.round()), (10, 4, 200.0));
        assert_eq!(done.invalid, None);
        // The old age of what failed allows the driver no more.
        let late = || Recording {
            lag: {
                let mut lag = lane().lag;
                lag.record_n(100_000_000, 103).unwrap();
                lag
            },
            ..lane()
        };
        let behind = Observation { lanes: (0..=QUICK).map(|_| late()).collect(), ..seen.clone() };
        assert!(found(Act::Reload, Vec::new(), None, &behind).invalid.unwrap().contains("behind its plan"));
        let nothing = Observation { lanes: (0..=QUICK).map(|_| Recording::default()).collect(), ..seen };
        assert!(found(Act::Reload, Vec::new(), None, &nothing).invalid.unwrap().contains("no request was answered"));
    }
}
