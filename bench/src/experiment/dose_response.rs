//! How long may a handler block? The same work cut into pieces of different length: at every length the blockers take the same share of one
//! processor, so what differs is only how long each of them holds whoever serves it.

use super::stream::{self, Stream};
use super::{Session, learn, warm_up};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Lengths of a blocker, in ms.
pub const LENGTHS_MS: [f64; 8] = [0.1, 0.5, 1.0, 5.0, 10.0, 20.0, 50.0, 200.0];
/// Share of one processor that the blockers take.
pub const UTILISATION: f64 = 0.3;
/// So many blockers come in a window at least, on average.
const BLOCKERS: f64 = 10.0;

/// One entry for each length.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DoseResponse {
    /// By ascending length; its name is the length in ms.
    pub lengths: Vec<Stream>,
}

/// Runs all lengths on one fresh process.
///
/// # Errors
/// A server that does not start or answers wrongly.
pub fn run(session: &Session<'_>) -> Result<DoseResponse> {
    let mut running = session.start("dose-response")?;
    let probe = learn(&mut running, "/")?;
    let warm = warm_up(session, &probe);
    running.explain(warm)?;
    let mut lengths = Vec::new();
    for length_ms in LENGTHS_MS {
        let blocker = learn(&mut running, &format!("/timer?ms={length_ms}&clock=cpu"))?;
        let rate = UTILISATION * 1e3 / length_ms;
        let window = Duration::from_millis(session.settings.window_ms).max(Duration::from_secs_f64(BLOCKERS / rate));
        let _driver = session.settings.placement_of("dose-response").enter_driver(true);
        let found = stream::run(session, &length_ms.to_string(), (&probe, &blocker), rate, window);
        lengths.push(running.explain(found)?);
    }
    Ok(DoseResponse { lengths })
}
