//! How a user's own service is to be measured: the time that its requests take alone, and a rate of probes and steps that fit them.

use super::{PROBES, QUICK_REFERENCE_MS, Settings, WINDOW_MS};
use crate::catalog::Server;
use crate::experiment::probes;
use crate::measure::{Mode, learn_own, ms};
use crate::process::{Start, deploy};
use anyhow::{Result, bail};
use std::time::Duration;

/// Probes a second on each connection at most. One is in flight on each, so that all that are due in half a second of silence find a free
/// one: with more, the driver's own queue would be measured.
const PER_CONNECTION: f64 = 2.0;
/// A step lasts at least this many blockers.
const BLOCKERS_PER_STEP: f64 = 3.0;
/// A step of a slow service lasts at least this many probes.
const LEAST_PROBES: f64 = 20.0;
/// The probes of both lanes together are at most this share of what the service can answer one after another, so that they are not what slows
/// it down.
const SHARE: f64 = 0.25;
/// The fewest probes a second on kept connections; what this is too much for is told so.
const LEAST_RATE: f64 = 2.0;
/// The slow request is asked alone this many times; the median is T.
const ALONE: usize = 3;
/// Probes are asked alone this many times to learn how fast the service is.
const PROBED: usize = 20;
/// Shortest and longest step of a quick round, in ms.
const QUICK_WINDOW_MS: (f64, f64) = (1000.0, 1000.0);

impl Settings {
    /// The share that the probes are of what the slowest service can answer one after another, if that is more than they should be.
    pub fn too_many_probes(&self) -> Option<f64> {
        let share = (self.rate + probes::fresh_rate(self.rate)) * self.probe_ms / 1e3;
        (share > SHARE * 1.01).then_some(share)
    }

    /// The settings for these services: T, a rate of probes that each of them bears, and steps long enough for both. Asks each service alone.
    ///
    /// # Errors
    /// A service that does not start, or that does not answer what it is asked.
    pub fn learn(self, servers: &[Server], start: &Start, mode: Mode) -> Result<Settings> {
        let (mut quick, mut slow) = (Duration::ZERO, Duration::ZERO);
        for server in servers {
            let alone = Self::ask_alone(server, start)?;
            (quick, slow) = (quick.max(alone.0), slow.max(alone.1));
        }
        Ok(self.fit(quick, slow, mode))
    }

    /// The times that the quick and the slow request of a service take alone.
    fn ask_alone(server: &Server, start: &Start) -> Result<(Duration, Duration)> {
        let Some(own) = &server.own else { bail!("{} keeps the contract, so nothing has to be learned", server.name) };
        let mut running = deploy::start(server, start)?;
        let median = |mut times: Vec<Duration>| {
            times.sort();
            times[times.len() / 2]
        };
        // The first request of each kind warms up.
        learn_own(&mut running, own, &own.probe)?;
        learn_own(&mut running, own, &own.blocker)?;
        let mut probes = Vec::new();
        for _ in 0..PROBED {
            probes.push(learn_own(&mut running, own, &own.probe)?.1);
        }
        let mut blockers = Vec::new();
        for _ in 0..ALONE {
            blockers.push(learn_own(&mut running, own, &own.blocker)?.1);
        }
        Ok((median(probes), median(blockers)))
    }

    /// The settings for services whose slowest quick and slow requests take these times alone.
    fn fit(self, quick: Duration, slow: Duration, mode: Mode) -> Settings {
        let most = self.rate.min(PER_CONNECTION * self.connections as f64);
        let rate = probes::kept_rate(SHARE / quick.as_secs_f64()).max(LEAST_RATE).min(most).floor();
        let block_ms = (ms(slow) * 10.0).round() / 10.0;
        let (shortest, longest) = if mode == Mode::Quick { QUICK_WINDOW_MS } else { WINDOW_MS };
        let least = (BLOCKERS_PER_STEP * block_ms).max((LEAST_PROBES / rate * 1e3).ceil());
        let window_ms = (PROBES / rate * 1e3).clamp(shortest, longest).max(least) as u64;
        let reference_window_ms = match mode {
            Mode::Quick => QUICK_REFERENCE_MS.max(least) as u64,
            _ => window_ms,
        };
        Settings { block_ms, probe_ms: ms(quick), window_ms, reference_window_ms, rate, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CONNECTIONS, Service};
    use super::*;
    use crate::experiment::{Choices, contract::Experiment};

    fn fitted(quick_ms: f64, slow_ms: f64) -> Settings {
        let choices = Choices::default();
        let times = [quick_ms, slow_ms].map(|ms| Duration::from_secs_f64(ms / 1e3));
        Service::settings(Mode::Standard, &choices).fit(times[0], times[1], Mode::Standard)
    }

    #[test]
    fn the_probes_of_both_lanes_leave_a_service_of_one_thread_most_of_its_time() {
        for quick_ms in [0.1, 1.0, 5.0, 25.0, 50.0, 90.0, 100.0] {
            let settings = fitted(quick_ms, 300.0);
            let share = (settings.rate + probes::fresh_rate(settings.rate)) * quick_ms / 1e3;
            assert!(share <= SHARE * 1.01, "{quick_ms} ms: {share}");
            assert!(settings.rate * settings.window_ms as f64 / 1e3 >= LEAST_PROBES, "{quick_ms} ms: {settings:?}");
            assert_eq!(settings.too_many_probes(), None);
        }
        assert_eq!(fitted(0.1, 300.0).rate, PER_CONNECTION * CONNECTIONS as f64);
        let slow = fitted(400.0, 2000.0);
        assert_eq!(slow.too_many_probes().map(|share| (share * 100.0).round()), Some(100.0));
    }
}
