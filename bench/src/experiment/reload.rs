//! Is it transparent? A constant stream of requests while the processes that answer it are replaced, restarted, multiplied and killed.
//!
//! Servers that take their listener from whoever starts them run under this project's supervisor; Express under PM2 runs under PM2. Both are
//! asked on their own command lines.

mod manager;

use super::{Mode, Session, learn_request};
use crate::driver::{self, Lane, Load, Report, Target};
use crate::http::client::get;
use crate::validity;
use anyhow::{Context, Result};
use manager::Manager;
use serde::{Deserialize, Serialize};
use std::thread;
use std::time::{Duration, Instant};

pub use manager::{needs_supervisor, unsupported};

/// Requests per second of each of the four streams: `GET` and `POST`, on kept-alive and on fresh connections.
const RATE: f64 = 245.0;
/// Connections that are kept.
const KEPT: usize = 16;
/// Requests per second to a route that takes 100 ms.
const SLOW_RATE: f64 = 5.0;
/// Reloads in a row, of a quick round and otherwise; how far their starts are apart at least.
const RELOADS: (usize, usize, Duration) = (2, 20, Duration::from_millis(1200));
/// Stream that is left out: the first requests meet memory that was never touched.
const WARMUP: Duration = Duration::from_secs(1);
/// Stream before something is done, and after it.
const AROUND: Duration = Duration::from_millis(700);
/// A request that takes longer was delayed.
const DELAYED: Duration = Duration::from_millis(150);
/// Answers are waited for so long.
const GRACE: Duration = Duration::from_secs(5);

/// What is done while requests come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Replace the processes, many times.
    Reload,
    /// End them and start them anew.
    Restart,
    /// To four processes, to one, and back to two.
    Scale,
    /// Replace them by a program that ends at once, then by one that never gets ready.
    BadBuild,
    /// Kill one of the processes.
    KillWorker,
    /// Kill the manager's process that decides.
    KillDaemon,
    /// Kill the one that holds.
    KillKeeper,
}

impl Act {
    /// All of them, in the order of a trial: what may leave the server in ruins comes last.
    pub const ALL: [Act; 7] =
        [Act::Reload, Act::Restart, Act::Scale, Act::BadBuild, Act::KillWorker, Act::KillDaemon, Act::KillKeeper];

    /// As tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Act::Reload => "reload",
            Act::Restart => "restart",
            Act::Scale => "scale",
            Act::BadBuild => "bad build",
            Act::KillWorker => "worker killed",
            Act::KillDaemon => "daemon killed",
            Act::KillKeeper => "keeper killed",
        }
    }

    fn times(self, mode: Mode) -> usize {
        match (self, mode) {
            (Act::Reload, Mode::Quick) => RELOADS.0,
            (Act::Reload, _) => RELOADS.1,
            _ => 1,
        }
    }
}

/// One entry for each thing that was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reload {
    /// From `start` to the first right answer, the manager itself not yet running, in ms.
    pub first_answer_ms: f64,
    /// Memory of the manager's own processes, in MiB: resident.
    pub manager_rss_mib: f64,
    /// What was done.
    pub steps: Vec<Step>,
}

/// What was done, and what became of the requests meanwhile.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// What.
    pub act: Act,
    /// How often.
    pub times: usize,
    /// How long it took each time, in ms.
    pub took_ms: Vec<f64>,
    /// Why it did not work, by the manager's own word; that a bad build is refused is what is wanted.
    pub trouble: Option<String>,
    /// Requests.
    pub planned: u64,
    /// Those without a right answer.
    pub failed: u64,
    /// Why, of the first.
    pub first_failure: Option<String>,
    /// Answers that took longer than 150 ms, the slow route's left out.
    pub delayed: u64,
    /// The longest, likewise.
    pub max_ms: f64,
    /// What the driver owed and did not do.
    #[serde(default)]
    pub invalid: Option<String>,
}

/// Does all of it to one cluster of two processes.
///
/// # Errors
/// A server or a manager that does not start.
pub fn run(session: &Session<'_>) -> Result<Reload> {
    let started = Instant::now();
    let mut manager = Manager::start(session)?;
    let mut learn = |name: &str, request| manager.explain(|running| learn_request(running, name, request));
    let page = learn("/", get("/"))?;
    let first_answer_ms = super::ms(started.elapsed());
    let posted = learn("POST /json/parse", post("/json/parse", b"[1,2,3]"))?;
    let slow = learn("/sleep", get("/sleep?ms=100"))?;
    let lanes = lanes(&page, &posted, &slow);
    let manager_rss_mib = manager.rss_mib()?;
    let mut steps = Vec::new();
    for act in Act::ALL {
        if manager.can(act) {
            steps.push(step(session, &mut manager, act, &lanes)?);
        }
    }
    Ok(Reload { first_answer_ms, manager_rss_mib, steps })
}

fn lanes(page: &Target, posted: &Target, slow: &Target) -> Vec<Lane> {
    let lenient = |lane: Lane| Lane { may_fail: true, ..lane };
    let mut lanes = Vec::new();
    for target in [page, posted] {
        lanes.push(lenient(Lane::open(target.clone(), KEPT, RATE, false)));
        lanes.push(lenient(Lane { is_fresh: true, ..Lane::open(target.clone(), 1, RATE, false) }));
    }
    lanes.push(lenient(Lane { is_fresh: true, ..Lane::open(slow.clone(), 1, SLOW_RATE, false) }));
    lanes
}

fn step(session: &Session<'_>, manager: &mut Manager, act: Act, lanes: &[Lane]) -> Result<Step> {
    let times = act.times(session.settings.mode);
    let window = 2 * AROUND + manager.usual(act) * times as u32 + RELOADS.2 * (times as u32 - 1);
    let load = Load {
        lanes: lanes.to_vec(),
        warmup: WARMUP,
        window,
        grace: GRACE,
        give_up: None,
        spin: session.settings.placement_of("reload").spin(),
        seed: session.seed,
    };
    let placement = session.settings.placement_of("reload");
    let (report, took_ms, trouble) = thread::scope(|scope| {
        let driver = scope.spawn(|| {
            let _driver = placement.enter_driver(true);
            driver::run(&load)
        });
        let started = Instant::now();
        let (took_ms, trouble) = act_on(manager, act, times);
        // What happens after the stream is seen by nobody.
        let is_over = started.elapsed() > WARMUP + window;
        let trouble = trouble.or_else(|| is_over.then(|| "it took longer than the stream of requests".into()));
        (driver.join(), took_ms, trouble)
    });
    let report = report.ok().context("the driver panicked")??;
    Ok(found(act, took_ms, trouble, &report))
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
        took_ms.push(super::ms(started.elapsed()));
        if number + 1 < times {
            thread::sleep(RELOADS.2.saturating_sub(started.elapsed()));
        }
    }
    (took_ms, None)
}

fn found(act: Act, took_ms: Vec<f64>, trouble: Option<String>, report: &Report) -> Step {
    let quick = &report.lanes[..4];
    let delayed = DELAYED.as_nanos() as u64;
    Step {
        act,
        times: took_ms.len(),
        took_ms,
        trouble,
        planned: report.lanes.iter().map(|lane| lane.planned).sum(),
        failed: report.lanes.iter().map(|lane| lane.planned - lane.answered).sum(),
        first_failure: report.lanes.iter().find_map(|lane| lane.first_error.clone()),
        delayed: quick.iter().map(|lane| lane.response.len() - lane.response.count_between(0, delayed)).sum(),
        max_ms: quick.iter().map(|lane| lane.response.max()).max().unwrap_or(0) as f64 / 1e6,
        // The slow route's answers are few, and none of them is claimed to be quick.
        invalid: (0..4).find_map(|lane| validity::of_driver(report, lane).err()).map(|failure| failure.to_string()),
    }
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: stallbench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
