//! Probes beside a stream of one kind of request: what two experiments have in common.
//!
//! The requests come as people do, at random (Poisson) and whatever comes back, so that now and then several meet.

use super::collateral::probes;
use super::{Latency, Session, all_lanes, until_valid};
use crate::driver::{Lane, Load, Target};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Time before the window: each connection of the stream is used by then, which costs a server more than later requests do.
const WARMUP: Duration = Duration::from_millis(500);
/// Connections of the stream: so many may wait at once.
const CONNECTIONS: usize = 64;

/// What a stream did to the probes, and how it fared itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stream {
    /// What the requests are.
    pub name: String,
    /// Requests per second.
    pub rate: f64,
    /// Why the numbers are none.
    pub invalid: Option<String>,
    /// Probes over kept-alive connections.
    pub probes: Latency,
    /// The requests of the stream.
    pub requests: Latency,
}

/// Sends `requests` at `rate` for so long, beside probes.
///
/// # Errors
/// The driver cannot work.
pub fn run(
    session: &Session<'_>,
    name: &str,
    (probe, requests): (&Target, &Target),
    rate: f64,
    window: Duration,
) -> Result<Stream> {
    let mut lanes = probes(probe);
    lanes.push(Lane::open(requests.clone(), CONNECTIONS, rate, true));
    let load = Load {
        lanes,
        warmup: WARMUP,
        window,
        grace: Duration::from_secs(2),
        give_up: None,
        spin: session.settings.placement.spin(),
        seed: session.seed,
    };
    let (report, invalid) = until_valid(&load, all_lanes)?;
    Ok(Stream {
        name: name.into(),
        rate,
        invalid,
        probes: Latency::of(&report.lanes[0]),
        requests: Latency::of(&report.lanes[2]),
    })
}
