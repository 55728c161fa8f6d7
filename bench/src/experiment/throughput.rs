//! What does a request cost? Closed loops on a server core and a driver core; the number that counts is processor time per request.

use super::{Latency, Mode, Session, learn};
use crate::driver::{self, Lane, Load, Pace, Target};
use crate::process::Running;
use crate::validity;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Connections of each loop.
const CONNECTIONS: usize = 64;
/// Requests in flight on each connection of the pipelined loop.
const DEPTH: usize = 16;

/// One entry for each way to send.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Throughput {
    /// The loops: `kept-alive`, `pipelined`, and in a thorough round `fresh`.
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
    let mut ways = vec![("kept-alive", 1, false), ("pipelined", DEPTH, false)];
    if session.settings.mode == Mode::Thorough {
        ways.push(("fresh", 1, true));
    }
    let mut loops = Vec::new();
    for (way, depth, is_fresh) in ways {
        let one = run_loop(session, &running, &target, way, depth, is_fresh);
        loops.push(running.explain(one)?);
    }
    Ok(Throughput { loops })
}

fn run_loop(session: &Session<'_>, running: &Running, target: &Target, way: &str, depth: usize, is_fresh: bool) -> Result<Loop> {
    let load = |length| Load {
        lanes: vec![Lane {
            target: target.clone(),
            pace: Pace::Closed { depth, stagger: Duration::ZERO, most: None, think: Duration::ZERO },
            connections: CONNECTIONS,
            is_fresh,
            is_introduced: false,
            keeps_samples: false,
        }],
        warmup: Duration::ZERO,
        window: length,
        grace: Duration::from_secs(1),
        give_up: None,
        spin: session.settings.placement_of("throughput").spin(),
        seed: session.seed,
    };
    // The warm-up is a run of its own, so that processor time and answers cover the same span.
    driver::run(&load(Duration::from_millis(session.settings.throughput_ms / 4)))?;
    let before = running.cpu();
    let report = driver::run(&load(Duration::from_millis(session.settings.throughput_ms)))?;
    let (used, user) = running.cpu().since(before);
    let lane = &report.lanes[0];
    let per_s = report.per_second(0);
    let in_flight = (CONNECTIONS * depth) as f64;
    let cores = session.settings.placement_of("throughput").server_cores().len();
    let checked = validity::of_lane(&report, 0)
        .and_then(|()| validity::cpu_ceiling(used.as_secs_f64(), cores, report.window.as_secs_f64()))
        // Fresh connections are also being opened, which is no request in flight.
        .and_then(|()| if is_fresh { Ok(()) } else { validity::littles_law(per_s, lane.response.mean(), in_flight) });
    Ok(Loop {
        way: way.into(),
        invalid: checked.err().map(|failure| failure.to_string()),
        per_s,
        cpu_us: used.as_secs_f64() * 1e6 / lane.answered.max(1) as f64,
        user,
        is_driver_bound: report.driver_load > validity::SATURATED,
        driver_load: report.driver_load,
        latency: Latency::of(lane),
    })
}
