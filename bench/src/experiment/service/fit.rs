//! How a user's own service is to be measured: the time that its requests take alone, and a rate of probes and steps that fit them.

use super::{Lone, PROBES, QUICK_REFERENCE_MS, Settings, WINDOW_MS};
use crate::catalog::{Ask, Server};
use crate::console::interrupt;
use crate::experiment::probes;
use crate::measure::{Kept, Mode, learn_on, learn_own, ms};
use crate::process::{Start, deploy};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Probes a second on each connection at most. One is in flight on each, so that all that are due in half a second of silence find a free
/// one: with more, the driver's own queue would be measured.
const PER_CONNECTION: f64 = 2.0;
/// A step lasts at least this many blockers.
const BLOCKERS_PER_STEP: f64 = 3.0;
/// The connections last for a wait of this many slow requests, of which the last one comes a little late.
const HELD_UP: f64 = 1.25;
/// A step of a slow service lasts at least this many probes.
const LEAST_PROBES: f64 = 20.0;
/// The probes of both lanes together are at most this share of what the service can answer one after another, so that they are not what slows
/// it down.
const SHARE: f64 = 0.25;
/// The fewest probes a second on kept connections; what this is too much for is told so.
const LEAST_RATE: f64 = 2.0;
/// The quick request is asked alone this many times over new connections.
const ALONE: usize = 3;
/// The slow request is asked alone this many times at least and at most, and no more after this time; the median is T.
const SLOW_ALONE: (usize, usize, Duration) = (3, 20, Duration::from_secs(2));
/// A request that takes less than this share of all before it was asked of a warmer service than they were.
const WARMER: f64 = 0.7;
/// Probes are asked alone this many times to learn how fast the service is.
const PROBED: usize = 20;

/// The times that the requests of a service take alone.
#[derive(Clone, Copy, Default)]
struct Alone {
    /// The quick request.
    quick: Duration,
    /// The same over a connection that is opened for it.
    fresh: Duration,
    /// The slow request.
    slow: Duration,
}
/// Shortest and longest step of a quick round, in ms.
const QUICK_WINDOW_MS: (f64, f64) = (1000.0, 1000.0);

impl Settings {
    /// The share that the probes are of what the slowest service can answer one after another, if that is more than they should be.
    pub fn too_many_probes(&self) -> Option<f64> {
        let share = probes::share(self.rate, self.probe_ms / 1e3, self.fresh_ms / 1e3);
        (share > SHARE * 1.01).then_some(share)
    }

    /// The settings for these services: T, a rate of probes that each of them bears, and steps long enough for both. Asks each service alone.
    ///
    /// # Errors
    /// A service that does not start, or that does not answer what it is asked.
    pub fn learn(self, servers: &[Server], start: &Start, mode: Mode) -> Result<Settings> {
        let (mut slowest, mut slow_ms, mut lone) = (Alone::default(), BTreeMap::new(), BTreeMap::new());
        for server in servers {
            let (Alone { quick, fresh, slow }, one) = Self::ask_alone(server, start)?;
            slow_ms.insert(server.name.clone(), ms(slow));
            lone.insert(server.name.clone(), one);
            slowest = Alone { quick: slowest.quick.max(quick), fresh: slowest.fresh.max(fresh), slow: slowest.slow.max(slow) };
        }
        Ok(Settings { slow_ms, lone, ..self.fit(slowest, mode) })
    }

    /// Asks a service alone, over connections that are kept as those of its clients are: what a new one costs is no part of a request.
    fn ask_alone(server: &Server, start: &Start) -> Result<(Alone, Lone)> {
        let Some(own) = &server.own else { bail!("{} keeps the contract, so nothing has to be learned", server.name) };
        let mut running = deploy::start(server, start)?;
        let median = |mut times: Vec<Duration>| {
            times.sort();
            times[times.len() / 2]
        };
        let mut times = |kept: &mut Option<Kept>, ask: &Ask, count: usize| -> Result<Duration> {
            let mut one = || match kept {
                Some(kept) => learn_on(kept, &mut running, own, ask),
                None => learn_own(&mut running, own, ask),
            };
            // The first request of each kind warms up, and opens the connection.
            one()?;
            let times: Vec<Duration> = (0..count).map(|_| Ok(one()?.1)).collect::<Result<_>>()?;
            Ok(median(times))
        };
        // One at a time: some servers serve one connection at a time.
        let fresh = times(&mut None, &own.probe, ALONE)?;
        let mut kept = Some(Kept::default());
        let quick = times(&mut kept, &own.probe, PROBED)?;
        let mut kept = kept.unwrap_or_default();
        let mut slow = warm_times(|| Ok(learn_on(&mut kept, &mut running, own, &own.blocker)?.1))?;
        let (median, lone) = Lone::of(&mut slow);
        Ok((Alone { quick, fresh, slow: median }, lone))
    }

    /// The settings for services whose slowest requests take these times alone.
    fn fit(self, Alone { quick, fresh, slow }: Alone, mode: Mode) -> Settings {
        let connections = self.connections as f64;
        // Each connection carries one request at a time. If one slow request holds all of them up, those that are due meanwhile must not wait here.
        let while_held_up = connections / (HELD_UP * slow.as_secs_f64()).max(f64::MIN_POSITIVE);
        let most = self.rate.min(PER_CONNECTION * connections).max(LEAST_RATE).min(while_held_up);
        let rate = probes::kept_rate(SHARE, quick.as_secs_f64(), fresh.as_secs_f64()).max(LEAST_RATE).min(most);
        let rate = if rate < 1.0 { rate } else { rate.floor() };
        let block_ms = (ms(slow) * 10.0).round() / 10.0;
        let (shortest, longest) = if mode == Mode::Quick { QUICK_WINDOW_MS } else { WINDOW_MS };
        let least = (BLOCKERS_PER_STEP * block_ms).max((LEAST_PROBES / rate * 1e3).ceil());
        let window_ms = (PROBES / rate * 1e3).clamp(shortest, longest).max(least).ceil() as u64;
        let reference_window_ms = match mode {
            Mode::Quick => QUICK_REFERENCE_MS.max(least).ceil() as u64,
            _ => window_ms,
        };
        Settings { block_ms, probe_ms: ms(quick), fresh_ms: ms(fresh), window_ms, reference_window_ms, rate, ..self }
    }
}

/// The times of a slow request that is asked again and again. Those of a service that was not warm yet are left out: a much shorter one follows.
fn warm_times(mut ask: impl FnMut() -> Result<Duration>) -> Result<Vec<Duration>> {
    let (least, most, longest) = SLOW_ALONE;
    let (started, mut shortest, mut times) = (Instant::now(), Duration::MAX, Vec::new());
    while times.len() < least || times.len() < most && started.elapsed() < longest {
        interrupt::check()?;
        let took = ask()?;
        // The first one warms up, and opens the connection. One that is much shorter than all before it only ends the cold ones: to count it would be to choose it.
        if took < shortest.mul_f64(WARMER) {
            times.clear()
        } else {
            times.push(took)
        }
        shortest = shortest.min(took);
    }
    Ok(times)
}

impl Lone {
    /// The median of some times, and how they vary.
    fn of(times: &mut [Duration]) -> (Duration, Lone) {
        times.sort();
        let count = times.len();
        let mean_ms = times.iter().map(|time| ms(*time)).sum::<f64>() / count as f64;
        (times[count / 2], Lone { mean_ms, least_ms: ms(times[0]), most_ms: ms(times[(count * 9).div_ceil(10) - 1]) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CONNECTIONS, Service};
    use super::*;
    use crate::experiment::{Choices, contract::Experiment};

    fn fitted(quick_ms: f64, fresh_ms: f64, slow_ms: f64) -> Settings {
        let choices = Choices::default();
        let [quick, fresh, slow] = [quick_ms, fresh_ms, slow_ms].map(|ms| Duration::from_secs_f64(ms / 1e3));
        Service::settings(Mode::Standard, &choices).fit(Alone { quick, fresh, slow }, Mode::Standard)
    }

    fn warm(times_ms: &[u64]) -> (f64, Lone) {
        let mut times = times_ms.iter().chain(std::iter::repeat(&times_ms[times_ms.len() - 1]));
        let mut times = warm_times(|| Ok(Duration::from_millis(*times.next().unwrap()))).unwrap();
        let (median, lone) = Lone::of(&mut times);
        (ms(median), lone)
    }

    #[test]
    fn a_slow_request_that_starts_cold_is_known_by_what_it_takes_when_warm() {
        let (median, lone) = warm(&[900, 300, 300, 300, 300, 300, 100]);
        assert_eq!((median, lone.mean_ms, lone.most_ms), (100.0, 100.0, 100.0));
    }

    #[test]
    fn a_slow_request_of_two_lengths_has_the_mean_and_the_shortest_of_both() {
        let both: Vec<u64> = (0..40).map(|number| if number % 2 == 0 { 200 } else { 20 }).collect();
        let (median, lone) = warm(&both);
        assert!([20.0, 200.0].contains(&median), "{median}");
        assert_eq!((lone.mean_ms, lone.least_ms, lone.most_ms), (110.0, 20.0, 200.0));
    }

    #[test]
    fn the_probes_of_both_lanes_leave_a_service_of_one_thread_most_of_its_time() {
        for connecting_ms in [0.0, 0.1, 2.0, 150.0] {
            for quick_ms in [0.1, 1.0, 5.0, 25.0, 50.0] {
                let settings = fitted(quick_ms, quick_ms + connecting_ms, 300.0);
                let fresh_rate = probes::fresh_rate(settings.rate);
                let share = (settings.rate * quick_ms + fresh_rate * (quick_ms + connecting_ms)) / 1e3;
                assert!(share <= SHARE * 1.01, "{quick_ms} ms and {connecting_ms} ms: {share}");
                assert!(settings.rate * settings.window_ms as f64 / 1e3 >= LEAST_PROBES, "{quick_ms} ms: {settings:?}");
                assert_eq!(settings.too_many_probes(), None);
            }
        }
        assert_eq!(fitted(100.0, 100.0, 300.0).too_many_probes(), None);
        // Beside a slow request that holds up everything, no probe waits for a connection of the driver.
        for slow_ms in [50.0, 110.0, 1000.0, 2500.0, 10_000.0] {
            let settings = fitted(0.1, 0.2, slow_ms);
            assert!(settings.rate * slow_ms / 1e3 <= settings.connections as f64, "{slow_ms} ms: {settings:?}");
        }
        assert_eq!(fitted(0.1, 0.2, 110.0).percentile_words(), "p99");
        assert_eq!(fitted(0.1, 0.2, 300.0).rate, PER_CONNECTION * CONNECTIONS as f64);
        let slow = fitted(400.0, 400.0, 2000.0);
        assert_eq!(slow.too_many_probes().map(|share| (share * 100.0).round()), Some(100.0));
    }
}
