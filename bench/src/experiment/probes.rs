//! Probes: requests to `/` on a fixed schedule, which show what every other client feels.

use crate::load::{Lane, Load, Observation, Recording, Target};
use std::time::Duration;

/// Requests per second on kept-alive connections.
pub const RATE: f64 = 1000.0;
/// Those connections. One request is in flight on each, so there are enough of them that probes due in half a second of silence find a free
/// one: with fewer, the driver's own queue would be measured instead of the server's.
pub const CONNECTIONS: usize = 512;
/// Requests per second on fresh connections, and the share of those on kept ones that they are at most.
const FRESH_RATE: f64 = 20.0;
const FRESH_SHARE: f64 = 0.25;
/// A connection is dead if its median probe takes longer.
const DEAD: Duration = Duration::from_millis(100);

/// The lanes of probes of a load, which always come first.
pub const KEPT: usize = 0;
/// The lane over fresh connections.
pub const FRESH: usize = 1;
/// The first lane behind the probes.
pub const OTHERS: usize = 2;

/// The rate of the kept lane if both lanes together are to take up this share of a server, of which a request over a kept and one over a fresh
/// connection take these times, in seconds.
pub fn kept_rate(share: f64, kept: f64, fresh: f64) -> f64 {
    ((share - FRESH_RATE * fresh) / kept).max(share / (kept + FRESH_SHARE * fresh))
}

/// The share of such a server that both lanes take up at this rate of the kept one.
pub fn share(rate: f64, kept: f64, fresh: f64) -> f64 {
    rate * kept + fresh_rate(rate) * fresh
}

/// How often the lane of fresh connections asks beside this rate of the kept one.
pub fn fresh_rate(kept: f64) -> f64 {
    FRESH_RATE.min(kept * FRESH_SHARE)
}

/// The lanes of the clients that do not block: over kept-alive connections, and over fresh ones.
pub fn lanes(target: &Target, rate: f64, connections: usize) -> Vec<Lane> {
    let kept = Lane { primer: Some(target.clone()), keeps_samples: true, ..Lane::open(target.clone(), connections, rate, false) };
    let fresh = Lane { is_fresh: true, ..Lane::open(target.clone(), 1, fresh_rate(rate), false) };
    vec![kept, fresh]
}

/// Probes at the usual rate beside another lane.
pub fn beside(target: &Target, other: Lane, window: Duration, seed: u64) -> Load {
    let mut all = lanes(target, RATE, CONNECTIONS);
    all.push(other);
    Load::of(all, window, seed)
}

/// The share of kept-alive connections that were dead.
pub fn dead_share(observation: &Observation, connections: usize) -> f64 {
    let window = observation.window_start..observation.window_start + observation.window;
    let mut by_connection = vec![Vec::new(); connections];
    for sample in observation.lanes[KEPT].samples.iter().filter(|sample| window.contains(&sample.planned)) {
        by_connection[sample.connection % connections].push(sample.response);
    }
    let is_dead = |times: &mut Vec<Duration>| {
        times.sort();
        times.get(times.len() / 2).is_some_and(|median| *median > DEAD)
    };
    by_connection.iter_mut().filter_map(|times| is_dead(times).then_some(())).count() as f64 / connections as f64
}

/// The time from the last blocker's last byte until every probe scheduled before it was answered; `None` if one was not.
pub fn recovery(probes: &Recording, blockers: &Recording, gave_up: bool) -> Option<Duration> {
    let end = blockers.last_byte;
    let before = probes.samples.iter().filter(|sample| sample.planned <= end);
    if gave_up || before.clone().any(|sample| !sample.is_answered) {
        return None;
    }
    before.map(|sample| (sample.planned + sample.response).saturating_sub(end)).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Sample;

    const MS: Duration = Duration::from_millis(1);

    fn recording(samples: &[(usize, u32, u32, bool)], last_byte: Duration) -> Recording {
        let sample = |&(connection, planned, response, is_answered): &(usize, u32, u32, bool)| Sample {
            connection,
            planned: planned * MS,
            response: response * MS,
            is_answered,
        };
        Recording { samples: samples.iter().map(sample).collect(), last_byte, ..Recording::default() }
    }

    fn observation(probes: Recording) -> Observation {
        Observation {
            lanes: vec![probes],
            window_start: Duration::ZERO,
            window: Duration::from_secs(1),
            driver_load: 0.0,
            gave_up: false,
            is_cut_short: false,
            started: 0.0,
        }
    }

    #[test]
    fn a_connection_is_dead_if_its_median_probe_in_the_window_is_slow() {
        let samples = [
            (0, 1, 500, true),
            (0, 2, 500, false),
            (0, 3, 1, true),
            (1, 1, 1, true),
            (1, 2, 1, true),
            (1, 3, 900, true),
            (1, 2000, 900, true),
        ];
        assert_eq!(dead_share(&observation(recording(&samples, MS)), 2), 0.5);
        assert_eq!(dead_share(&observation(recording(&[], MS)), 2), 0.0);
    }

    #[test]
    fn recovery_lasts_until_the_last_probe_scheduled_before_the_last_blockers_end_is_answered() {
        let blockers = recording(&[], 100 * MS);
        let probes = recording(&[(0, 50, 60, true), (1, 90, 30, true), (0, 110, 500, true)], MS);
        assert_eq!(recovery(&probes, &blockers, false), Some(20 * MS));
        assert_eq!(recovery(&recording(&[(0, 50, 10, true)], MS), &blockers, false), Some(Duration::ZERO));
        assert_eq!(recovery(&recording(&[(0, 50, 60, false)], MS), &blockers, false), None);
    }
}
