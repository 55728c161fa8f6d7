//! One trial of one server.

use super::{Conditions, Mode};
use crate::catalog::Server;
use crate::console::interrupt;
use crate::host::placement::{Placement, set_of};
use crate::load::{Drive, Lane, Load, Observation, Target};
use crate::process::{Running, Start, deploy};
use crate::validity::Failure;
use anyhow::{Context, Result};
use std::thread;
use std::time::{Duration, Instant};

/// A run whose driver did not do what it owed is retried, up to this many times in all.
const ATTEMPTS: usize = 3;
/// Length of a slice of the warm-up, the most slices, and how far the rates of two in a row may be apart at its end.
const WARM: (Duration, usize, f64) = (Duration::from_millis(100), 30, 0.05);
/// Answers that a warm-up takes at least.
const WARM_ANSWERS: f64 = 10_000.0;
/// The most connections of a warm-up.
pub const WARM_CONNECTIONS: usize = 64;

/// One trial of one server.
pub struct Session<'s> {
    /// The server.
    pub server: &'s Server,
    /// The conditions of the round.
    pub conditions: &'s Conditions,
    /// Seed of this trial.
    pub seed: u64,
    /// The placement of this experiment.
    pub placement: Placement,
    /// Each request is kept, to be looked at.
    pub keeps_timelines: bool,
    /// What bears the load.
    pub driver: &'s (dyn Drive + Sync),
    /// Is told what comes next, at moments without a load.
    pub tell: &'s (dyn Fn(&str) + Sync),
}

impl Session<'_> {
    /// A fresh process of the server, on its cores.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn start(&self) -> Result<Running> {
        deploy::start(self.server, &self.start_conditions())
    }

    /// The conditions of a start.
    pub fn start_conditions(&self) -> Start {
        let cores = set_of(&self.placement.server_cores());
        Start { threads: self.conditions.threads, more: self.conditions.more.clone(), cores }
    }

    /// Runs a load until `check` accepts the observation, or refuses it for what the server answered.
    ///
    /// # Errors
    /// The driver cannot work.
    pub fn until_valid(
        &self,
        load: &Load,
        check: impl Fn(&Observation) -> Result<(), Failure>,
    ) -> Result<(Observation, Option<String>)> {
        until_valid(|| self.driver.drive(load), check)
    }

    /// Runs a load on a thread of its own while this one does something to the server.
    ///
    /// # Errors
    /// The driver cannot work.
    pub fn drive_while<T>(&self, load: &Load, act: impl FnOnce() -> T) -> Result<(Observation, T)> {
        thread::scope(|scope| {
            let driver = scope.spawn(|| {
                let _driver = self.placement.enter_driver(true);
                self.driver.drive(load)
            });
            let acted = act();
            let seen = driver.join().ok().context("the driver panicked")??;
            Ok((seen, acted))
        })
    }

    /// Asks as fast as the server answers until it is warm, and returns how many requests a second it answered in the end: allocators have filled
    /// their pools by then, and engines have compiled what they run often.
    ///
    /// # Errors
    /// The driver cannot work.
    pub fn warm_up(&self, target: &Target, connections: usize) -> Result<f64> {
        let connections = connections.min(WARM_CONNECTIONS);
        let lane = Lane { retries: self.server.own.is_some(), ..Lane::closed(target.clone(), connections, 1) };
        let load = Load { grace: Duration::from_secs(1), ..Load::of(vec![lane], WARM.0, self.seed) };
        // Our own servers need none in a quick round.
        let is_brief = self.conditions.mode == Mode::Quick && !self.server.is_peer && self.server.own.is_none();
        let least = if is_brief { 0.0 } else { WARM_ANSWERS };
        let (mut rate, mut answers) = (0.0, 0.0);
        let started = Instant::now();
        // A server that takes few connections makes each slice longer than its window.
        while started.elapsed() < WARM.0 * WARM.1 as u32 {
            let last: f64 = rate;
            rate = self.driver.drive(&load)?.per_second(0);
            answers += rate * WARM.0.as_secs_f64();
            let is_steady = (rate - last).abs() < WARM.2 * rate;
            // A slow server is warm when it is steady, though it has answered few.
            let is_slow = rate * WARM.0.as_secs_f64() * (WARM.1 as f64) < WARM_ANSWERS;
            if (answers >= least || is_slow && is_steady) && (least == 0.0 || is_steady) {
                break;
            }
        }
        Ok(rate)
    }
}

/// Tries until `check` accepts, or finds a fault that another attempt would find again.
fn until_valid(
    mut attempt: impl FnMut() -> Result<Observation>,
    check: impl Fn(&Observation) -> Result<(), Failure>,
) -> Result<(Observation, Option<String>)> {
    let mut attempts = 0;
    loop {
        let observation = attempt()?;
        attempts += 1;
        match check(&observation) {
            Ok(()) => return Ok((observation, None)),
            Err(failure) if attempts == ATTEMPTS || failure.is_of_server() => {
                return Ok((observation, Some(failure.to_string())));
            }
            Err(_) => interrupt::check()?,
        }
    }
}

/// A time in milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Recording;
    use crate::validity;

    fn attempts(driver_load: f64, check: impl Fn(&Observation) -> Result<(), Failure>) -> (usize, Option<String>) {
        let mut count = 0;
        let failed = until_valid(
            || {
                count += 1;
                Ok(Observation {
                    lanes: vec![Recording { planned: 1, answered: 1, errors: 1, ..Recording::default() }],
                    window_start: Duration::ZERO,
                    window: Duration::from_secs(1),
                    // Only the first attempt is kept waiting.
                    driver_load: if count == 1 { driver_load } else { 0.0 },
                    gave_up: false,
                    is_cut_short: false,
                    started: 0.0,
                })
            },
            check,
        );
        (count, failed.unwrap().1)
    }

    #[test]
    fn a_driver_that_was_busy_tries_again_though_a_request_failed_and_a_wrong_answer_is_final() {
        assert_eq!(attempts(0.99, |seen| validity::steal(seen.driver_load)), (2, None));
        let (count, failed) = attempts(0.99, validity::of_all);
        assert!(count == 1 && failed.is_some_and(|failed| failed.starts_with("answers: ")));
        assert_eq!(attempts(0.0, |_| validity::steal(1.0)).0, ATTEMPTS);
    }
}
