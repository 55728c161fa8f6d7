//! How close to the edge? Response times while a server is asked at shares of what it can do at most.

use super::{Latency, Session, all_lanes, learn, until_valid, warm_up};
use crate::driver::{self, Lane, Load};
use crate::validity;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Shares of the peak, in percent.
pub const SHARES: [u32; 4] = [50, 75, 90, 95];
/// Connections: of the closed loop that finds the peak, and of the open ones below it.
const CONNECTIONS: (usize, usize) = (64, 256);
/// Length of each run.
const WINDOW: Duration = Duration::from_secs(1);

/// The peak, and what happens below it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LatencyBelowPeak {
    /// Answers per second of a closed loop.
    pub peak_per_s: f64,
    /// The driver had no time left at the peak, so the server can do more, and the shares are of what the driver can.
    pub is_driver_bound: bool,
    /// By ascending share.
    pub shares: Vec<Share>,
}

/// A share of the peak.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Share {
    /// In percent.
    pub percent: u32,
    /// Why the numbers are none.
    pub invalid: Option<String>,
    /// Times.
    pub latency: Latency,
}

/// Runs all shares on one fresh process.
///
/// # Errors
/// A server that does not start or answers wrongly.
pub fn run(session: &Session<'_>) -> Result<LatencyBelowPeak> {
    let mut running = session.start("latency")?;
    let target = learn(&mut running, "/")?;
    let placement = session.settings.placement_of("latency");
    // At these rates the driver never sleeps, so it has a core of its own instead of a priority.
    let _driver = placement.enter_driver(false);
    let warm = warm_up(session, &target);
    running.explain(warm)?;
    let load = |lane| Load {
        lanes: vec![lane],
        warmup: Duration::from_millis(100),
        window: WINDOW,
        grace: Duration::from_secs(2),
        give_up: None,
        spin: placement.spin(),
        seed: session.seed,
    };
    let peak = driver::run(&load(Lane::closed(target.clone(), CONNECTIONS.0, 1)));
    let peak = running.explain(peak)?;
    let peak_per_s = peak.per_second(0);
    let mut shares = Vec::new();
    for percent in SHARES {
        let rate = peak_per_s * f64::from(percent) / 100.0;
        let found = until_valid(&load(Lane::open(target.clone(), CONNECTIONS.1, rate, true)), all_lanes);
        let (report, invalid) = running.explain(found)?;
        shares.push(Share { percent, invalid, latency: Latency::of(&report.lanes[0]) });
    }
    Ok(LatencyBelowPeak { peak_per_s, is_driver_bound: peak.driver_load > validity::SATURATED, shares })
}
