//! What does a request cost? Closed loops on a server core and a driver core; the number that counts is processor time per request.

use super::{Latency, Mode, Session, learn, warm_up};
use crate::catalog::Blocking;
use crate::driver::{self, Lane, Load, Report, Target};
use crate::process::Running;
use crate::validity;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Connections of each loop.
const CONNECTIONS: usize = 64;
/// Requests in flight on each connection of the pipelined loop.
const DEPTH: usize = 16;
/// Time before the window in which the loop gets going.
const WARMUP: Duration = Duration::from_millis(100);
/// Each place in flight is used so often in a window at least, so that its ends do not matter, if that takes no longer than the second.
const TURNS: (f64, Duration) = (20.0, Duration::from_secs(5));
/// A blocking request that does nothing: what it costs more than `/` is the way to the pool and back.
const NOTHING: &str = "/timer?ms=0";

/// One entry for each way to send.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Throughput {
    /// The loops: `kept-alive`; unless the round is quick or long, `pipelined`; unless it is quick, of servers that offload `offloaded`; in a thorough one `fresh`.
    pub loops: Vec<Loop>,
}

/// A closed loop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Loop {
    /// How requests were sent.
    pub way: String,
    /// Why the numbers are none.
    pub invalid: Option<String>,
    /// Answers per second.
    pub per_s: f64,
    /// Server's processor time per request, in microseconds.
    pub cpu_us: f64,
    /// Share of it in user mode, from the kernel's ticks.
    pub user: f64,
    /// The driver had no time left, so the rate is a lower bound of what the server can do.
    pub is_driver_bound: bool,
    /// Share of the window that the driver spent on a processor.
    pub driver_load: f64,
    /// Times.
    pub latency: Latency,
}

/// Runs all loops on one fresh process.
///
/// # Errors
/// A server that does not start or answers wrongly.
pub fn run(session: &Session<'_>) -> Result<Throughput> {
    let mut running = session.start("throughput")?;
    let target = learn(&mut running, "/")?;
    let _driver = session.settings.placement_of("throughput").enter_driver(false);
    let per_s = warm_up(session, &target)?;
    let mut ways = vec![("kept-alive", &target, 1, false)];
    let is_quick = session.settings.mode == Mode::Quick;
    if session.settings.is_pipelined {
        ways.push(("pipelined", &target, DEPTH, false));
    }
    let offloads = session.server.blocking != Blocking::Inline && !is_quick;
    let nothing = if offloads { Some(learn(&mut running, NOTHING)?) } else { None };
    ways.extend(nothing.as_ref().map(|nothing| ("offloaded", nothing, 1, false)));
    if session.settings.mode == Mode::Thorough {
        ways.push(("fresh", &target, 1, true));
    }
    let mut loops = Vec::new();
    for (way, target, depth, is_fresh) in ways {
        let plan = Plan { way, target, depth, is_fresh, per_s };
        let one = plan.run(session, &running);
        loops.push(running.explain(one)?);
    }
    Ok(Throughput { loops })
}

/// How a loop is measured.
struct Plan<'p> {
    way: &'p str,
    target: &'p Target,
    depth: usize,
    is_fresh: bool,
    /// About as many answers a second as the server gives to `/`.
    per_s: f64,
}

impl Plan<'_> {
    fn in_flight(&self) -> f64 {
        (CONNECTIONS * self.depth) as f64
    }

    fn load(&self, session: &Session<'_>) -> Load {
        let turns = Duration::from_secs_f64(TURNS.0 * self.in_flight() / self.per_s.max(1.0)).min(TURNS.1);
        Load {
            lanes: vec![Lane { is_fresh: self.is_fresh, ..Lane::closed(self.target.clone(), CONNECTIONS, self.depth) }],
            warmup: WARMUP,
            window: turns.max(Duration::from_millis(session.settings.throughput_ms)),
            grace: Duration::from_secs(1),
            give_up: None,
            spin: session.settings.placement_of("throughput").spin(),
            seed: session.seed,
        }
    }

    fn run(&self, session: &Session<'_>, running: &Running) -> Result<Loop> {
        let mut cpu = Vec::new();
        let report = driver::run_marked(&self.load(session), &mut || cpu.push(running.cpu()))?;
        let [before, after] = cpu[..] else { bail!("the loop did not reach the end of its window") };
        self.found(session, &report, after.since(before))
    }

    fn found(&self, session: &Session<'_>, report: &Report, (used, user): (Duration, f64)) -> Result<Loop> {
        let lane = &report.lanes[0];
        let per_s = report.per_second(0);
        let cores = session.settings.placement_of("throughput").server_cores().len();
        let checked = validity::of_lane(report, 0)
            .and_then(|()| validity::cpu_ceiling(used.as_secs_f64(), cores, report.window.as_secs_f64()))
            // Fresh connections are also being opened, which is no request in flight.
            .and_then(|()| if self.is_fresh { Ok(()) } else { validity::littles_law(lane, report.window, self.in_flight()) });
        Ok(Loop {
            way: self.way.into(),
            invalid: checked.err().map(|failure| failure.to_string()),
            per_s,
            cpu_us: used.as_secs_f64() * 1e6 / lane.answered.max(1) as f64,
            user,
            is_driver_bound: report.driver_load > validity::SATURATED,
            driver_load: report.driver_load,
            latency: Latency::of(lane),
        })
    }
}
