//! A closed loop: connections that ask again as soon as they are answered, and what each request costs the server.

use crate::load::{Lane, Load, Observation, Target};
use crate::measure::{Latency, Session};
use crate::metrics::{Family, Role, Unit};
use crate::process::Running;
use crate::process::trace::Switches;
use crate::validity;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Time before the window in which the loop gets going.
const WARMUP: Duration = Duration::from_millis(100);
/// Each slot in flight serves this many requests in a window, so that its ends do not matter, unless that takes longer than the second.
const TURNS: (f64, Duration) = (20.0, Duration::from_secs(5));

/// The server's processor time per request.
pub const CPU: Family = Family::new("cpu_us", Unit::Us, Role::Cost);

/// A closed loop, as it was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClosedLoop {
    /// How requests were sent.
    pub way: String,
    /// The reason why the numbers are invalid.
    pub invalid: Option<String>,
    /// Answers per second.
    pub per_s: f64,
    /// The server's processor time per request, in microseconds.
    pub cpu_us: f64,
    /// Share of it in user mode, from the kernel's ticks.
    pub user: f64,
    /// The driver had no time left, so the rate is a lower bound of what the server can do.
    pub is_driver_bound: bool,
    /// Times that a thread of the server waited, for each request: each ends with a wake-up.
    #[serde(default)]
    pub waits: f64,
    /// Share of the window that the driver spent on a processor.
    pub driver_load: f64,
    /// Times.
    pub latency: Latency,
}

/// How a loop is measured.
pub struct Way<'w> {
    /// What is asked, and how.
    pub name: &'w str,
    /// The request.
    pub target: &'w Target,
    /// Connections.
    pub connections: usize,
    /// Requests in flight on each.
    pub depth: usize,
    /// Each request has a connection of its own.
    pub is_fresh: bool,
    /// About as many answers a second as the server gives to `/`.
    pub per_s: f64,
    /// Length of the window; longer for slow servers.
    pub window: Duration,
}

impl Way<'_> {
    fn in_flight(&self) -> f64 {
        (self.connections * self.depth) as f64
    }

    fn load(&self, session: &Session<'_>) -> Load {
        let turns = Duration::from_secs_f64(TURNS.0 * self.in_flight() / self.per_s.max(1.0)).min(TURNS.1);
        let lane = Lane { is_fresh: self.is_fresh, ..Lane::closed(self.target.clone(), self.connections, self.depth) };
        Load {
            warmup: WARMUP,
            grace: Duration::from_secs(1),
            spin: session.placement.spin(),
            ..Load::of(vec![lane], turns.max(self.window), session.seed)
        }
    }

    /// Runs the loop.
    ///
    /// # Errors
    /// The driver cannot work.
    pub fn run(&self, session: &Session<'_>, running: &Running) -> Result<ClosedLoop> {
        let mut marks = Vec::new();
        let seen =
            session.driver.drive_marked(&self.load(session), &mut || marks.push((running.cpu(), Switches::of(running))))?;
        let [(cpu, switches), (cpu_after, switches_after)] = marks[..] else {
            bail!("the loop did not reach the end of its window")
        };
        Ok(self.found(session, &seen, cpu_after.since(cpu), switches_after.since(switches)))
    }

    fn found(&self, session: &Session<'_>, seen: &Observation, (used, user): (Duration, f64), switches: Switches) -> ClosedLoop {
        let lane = &seen.lanes[0];
        let cores = session.placement.server_cores().len();
        let checked = validity::of_lane(seen, 0)
            .and_then(|()| validity::cpu_ceiling(used.as_secs_f64(), cores, seen.window.as_secs_f64()))
            .and_then(|()| validity::answered_in_window(lane))
            // Fresh connections are also being opened, during which no request is in flight.
            .and_then(|()| if self.is_fresh { Ok(()) } else { validity::littles_law(lane, seen.window, self.in_flight()) });
        ClosedLoop {
            way: self.name.into(),
            invalid: checked.err().map(|failure| failure.to_string()),
            per_s: seen.per_second(0),
            cpu_us: used.as_secs_f64() * 1e6 / lane.answered.max(1) as f64,
            user,
            waits: switches.voluntary as f64 / lane.answered.max(1) as f64,
            is_driver_bound: seen.driver_load > validity::SATURATED,
            driver_load: seen.driver_load,
            latency: Latency::of(lane),
        }
    }
}
