//! The numbers that a comparison may rest on. A gate asks what k slow requests at a time do, and beside slow requests that failed, came from a cache or
//! were never slow nobody knows: the screen says so in its sentence, and a gate must not pass for it.

use super::Service;
use crate::experiment::service;
use crate::metrics::{LIMITS_MS, Numbers, Percentile, Value};
use crate::report::significant;
use crate::round::Round;
use anyhow::Result;

/// The numbers of a round without those beside slow requests that did not do their work, and which these are, in words. Of any other round, all numbers.
///
/// # Errors
/// Settings that are not those of a service.
pub fn borne(round: &Round, numbers: &Numbers, percentile: Percentile) -> Result<(Numbers, Vec<String>)> {
    let (mut left, mut notes) = (numbers.clone(), Vec::new());
    if !round.header.settings.is_own() {
        return Ok((left, notes));
    }
    let settings = super::settings(round)?;
    for row in round.header.servers.iter().filter(|row| row.own.is_some()) {
        let service = Service { row, numbers, settings: &settings };
        notes.extend(service.leave_what_was_borne(&mut left, percentile));
    }
    Ok((left, notes))
}

impl Service<'_> {
    /// Takes back what was measured beside slow requests that did not do their work, and says why.
    fn leave_what_was_borne(&self, numbers: &mut Numbers, percentile: Percentile) -> Option<String> {
        let is_slow = self.settings.has_slow_request();
        let slow = || self.settings.blockers.iter().copied().filter(|k| *k > 0);
        let first = slow().find(|k| !is_slow || !self.is_handled(*k))?;
        let why = match is_slow {
            true => self.shortfall(),
            false => format!("the slow request takes only {} ms", significant(self.settings.block_ms)),
        };
        let (name, block_ms) = (&self.row.name, self.settings.block_ms);
        for k in slow().filter(|k| !is_slow || !self.is_handled(*k)) {
            for metric in service::compared_metrics(percentile, block_ms, k) {
                numbers.correct(name, &metric, |_| Err(why.clone()));
            }
        }
        // Up to this number the slow requests did their work: a freeze there counts, and nothing is known of a larger number.
        let borne = if is_slow { self.borne(first) } else { 0 };
        let known = |value: Value| match value.exact() {
            Some(k) if is_slow && k as usize <= first => Ok(value),
            _ if borne == 0 => Err(why.clone()),
            _ => Ok(Value::Never { tried: borne as f64 }),
        };
        for limit_ms in LIMITS_MS {
            for metric in [service::threshold_metric(block_ms, limit_ms), service::fresh_threshold_metric(block_ms, limit_ms)] {
                numbers.correct(name, &metric, known);
            }
        }
        Some(format!("{name}: not compared from k={first} on where slow requests did not do their work: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;
    use crate::catalog::Row;
    use crate::experiment::service::Settings;
    use crate::metrics::Metric;

    /// A service that never froze, as far as anybody looked, and what was seen of its slow requests.
    fn left(settings: &Settings, seen: impl IntoIterator<Item = (Metric, Value)>) -> (Numbers, Option<String>) {
        let row = Row { name: "yours".into(), ..Row::default() };
        let mut numbers = Numbers::default();
        let quick = settings.blockers.iter().map(|k| (response(settings, *k), Value::Exact(0.2)));
        let all = quick.chain([(freezes(settings), Value::Never { tried: 64.0 })]).chain(seen);
        numbers.add("yours", all.map(|(metric, value)| (metric, Ok(value))));
        let mut left = numbers.clone();
        let said = Service { row: &row, numbers: &numbers, settings }.leave_what_was_borne(&mut left, Percentile::default());
        (left, said)
    }

    fn response(settings: &Settings, k: usize) -> Metric {
        service::response_metric(Percentile::default(), settings.block_ms, k)
    }

    fn freezes(settings: &Settings) -> Metric {
        service::threshold_metric(settings.block_ms, LIMITS_MS[0])
    }

    /// The metrics that say that this many of 100 slow requests failed in the step with k of them.
    fn failed(k: usize, failed: f64) -> Vec<(Metric, Value)> {
        service::slow_failure_metrics(110.0, k).into_iter().zip([failed, 100.0].map(Value::Exact)).collect()
    }

    #[test]
    fn what_stands_beside_slow_requests_that_failed_is_not_compared() {
        let settings = settings();
        let (numbers, said) = left(&settings, [1, 4, 64].into_iter().flat_map(|k| failed(k, 100.0)));
        assert!(said.is_some_and(|said| said.starts_with("yours: not compared from k=1 on") && said.ends_with("slow requests failed")));
        assert!(numbers.values("yours", &freezes(&settings)).is_empty());
        let measured: Vec<usize> =
            settings.blockers.iter().copied().filter(|k| !numbers.values("yours", &response(&settings, *k)).is_empty()).collect();
        assert_eq!(measured, [0]);
    }

    #[test]
    fn a_pool_that_refuses_what_is_too_much_is_known_to_bear_the_rest() {
        let settings = settings();
        let (numbers, _) = left(&settings, failed(64, 80.0));
        assert_eq!(numbers.values("yours", &freezes(&settings)), [Value::Never { tried: 4.0 }]);
        assert!(numbers.values("yours", &response(&settings, 64)).is_empty());
        assert!(!numbers.values("yours", &response(&settings, 4)).is_empty());
        // One in twenty may be unlucky.
        let (numbers, said) = left(&settings, failed(64, 5.0));
        assert_eq!((numbers.values("yours", &freezes(&settings)), said), (&[Value::Never { tried: 64.0 }][..], None));
    }

    #[test]
    fn slow_requests_from_a_cache_and_those_that_were_never_slow_say_nothing() {
        let settings = settings();
        let cached = (service::slow_time_metric(110.0, 4), Value::Exact(0.3));
        let (numbers, said) = left(&settings, [cached]);
        assert_eq!(numbers.values("yours", &freezes(&settings)), [Value::Never { tried: 1.0 }]);
        assert!(said.is_some_and(|said| said.ends_with("each of 4 slow requests at a time took only 0.30 ms")));
        let quick = Settings { block_ms: 0.016, ..settings };
        let (numbers, said) = left(&quick, []);
        assert!(numbers.values("yours", &freezes(&quick)).is_empty());
        assert!(said.is_some_and(|said| said.ends_with("the slow request takes only 0.02 ms")));
    }
}
