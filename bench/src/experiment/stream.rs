//! Probes beside a stream of one kind of request: shared by two experiments.
//!
//! The requests arrive as people do, at random (Poisson) and whatever comes back, so that now and then several meet.

use super::probes::{self, KEPT, OTHERS};
use crate::load::{Lane, Load, Target};
use crate::measure::{Latency, Session};
use crate::metrics::Value;
use crate::validity;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Time before the window: each connection of the stream is used by then, which costs a server more than later requests do.
const WARMUP: Duration = Duration::from_millis(500);
/// Connections of the stream: the most requests that may wait at once.
const CONNECTIONS: usize = 64;

/// The effect of a stream on the probes, and its own times.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stream {
    /// The requests.
    pub name: String,
    /// Requests per second.
    pub rate: f64,
    /// The reason why the numbers are invalid.
    pub invalid: Option<String>,
    /// Probes over kept-alive connections.
    pub probes: Latency,
    /// The requests of the stream.
    pub requests: Latency,
}

impl Stream {
    /// Sends requests at a rate for a window, beside probes.
    ///
    /// # Errors
    /// The driver cannot work.
    pub fn run(
        session: &Session<'_>,
        name: &str,
        (probe, requests): (&Target, &Target),
        rate: f64,
        window: Duration,
    ) -> Result<Self> {
        let stream = Lane::open(requests.clone(), CONNECTIONS, rate, true);
        let load = probes::beside(probe, stream, window, session.seed);
        let load = Load { warmup: WARMUP, spin: session.placement.spin(), ..load };
        let (seen, invalid) = session.until_valid(&load, validity::of_all)?;
        let (probes, requests) = (Latency::of(&seen.lanes[KEPT]), Latency::of(&seen.lanes[OTHERS]));
        Ok(Stream { name: name.into(), rate, invalid, probes, requests })
    }

    /// A value, unless the stream is invalid.
    ///
    /// # Errors
    /// The reason.
    pub fn valid(&self, value: Value) -> Result<Value, String> {
        self.invalid.clone().map_or(Ok(value), Err)
    }
}
