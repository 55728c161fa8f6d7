//! What the slow requests themselves pay, and a load that brings more of them than a service can answer.

use super::{QUEUES, Service, SlowShare, duration};
use crate::experiment::service;
use crate::metrics::Value;
use crate::report::significant;

impl Service<'_> {
    /// That slow requests stand in line, as the end of a verdict: a service may leave the quick ones alone by serving few of the slow ones.
    pub(super) fn queueing(&self) -> String {
        // Of requests of several lengths the mean counts as well.
        let alone_ms = self.alone_ms().max(self.mean_ms());
        let alone = duration(Value::Exact(self.alone_ms()));
        let queued = |k: usize| {
            // One has nobody to wait for, and what is quick alone is no slow request.
            if k < 2 || self.refuses(k) || !self.settings.is_slow(self.alone_ms()) {
                return None;
            }
            let (served, took) = (self.served(k), self.median(&service::slow_time_metric(self.settings.block_ms, k)));
            // Where most still waited at the end, their rate tells more: by Little's law, k of them at that rate take this long.
            let by_rate =
                served.filter(|served| *served > 0.0 && took.is_some_and(Value::is_open)).map(|served| k as f64 / served * 1e3);
            let by_rate = by_rate.filter(|ms| Some(*ms) > took.and_then(Value::number));
            let is_long = |value: Value| value.is_above(QUEUES * alone_ms) == Some(true);
            match took {
                Some(took) if is_long(took) || by_rate.is_some_and(|ms| is_long(Value::Exact(ms))) => {
                    let about =
                        by_rate.map_or(String::new(), |ms| format!(" (about {}, by their rate)", duration(Value::Exact(ms))));
                    let each = format!("each takes {}{about}, not {alone}", duration(took));
                    Some(format!(" Slow requests wait for one another: beside {k} at a time {each}."))
                }
                _ if served == Some(0.0) => {
                    Some(format!(" Of {k} slow requests at a time, none was answered within the measurement."))
                }
                _ => None,
            }
        };
        self.settings.blockers.iter().rev().find_map(|k| queued(*k)).unwrap_or_default()
    }

    /// That the time which a slow request takes alone is not one time, as a part of a verdict.
    pub(super) fn varies(&self) -> String {
        let (first_ms, alone_ms) = (self.settings.slow_ms(&self.row.name), self.alone_ms());
        let in_words = |ms: f64| duration(Value::Exact(ms));
        if alone_ms != first_ms {
            return format!(
                " When it was asked first a slow request took {}, and one at a time took {} later, which counts: it starts cold.",
                in_words(first_ms),
                in_words(alone_ms)
            );
        }
        // A few that are very long show in the mean alone.
        let lone = self.settings.lone.get(&self.row.name).filter(|lone| lone.most_ms.max(lone.mean_ms) > VARIES * lone.least_ms);
        lone.filter(|_| self.settings.has_slow_request()).map_or(String::new(), |lone| {
            format!(
                " Alone, nine of ten slow requests took {} to {}, and all of them {} on average.",
                in_words(lone.least_ms),
                in_words(lone.most_ms),
                in_words(lone.mean_ms)
            )
        })
    }

    /// The slow requests that were answered each second beside k of them.
    fn served(&self, k: usize) -> Option<f64> {
        self.median(&service::served_metric(self.settings.block_ms, k)).and_then(Value::exact)
    }

    /// What a load means for this service, in a sentence.
    pub(super) fn load(&self, share: SlowShare) -> String {
        if let Some(most) = self.most_below(share) {
            return format!(
                "Your load brings {} slow requests a second, and {} answered {} at most: they queue for as long as that lasts, and no number of them at a time stands for it.",
                significant(share.rate * share.share),
                self.row.name,
                significant(most)
            );
        }
        share.describe(self.mean_ms() / 1e3)
    }

    /// The slow requests that the service can answer each second, if a load brings more.
    pub(super) fn most_below(&self, share: SlowShare) -> Option<f64> {
        // k clients that are never held up get k answers in each T. So only where more clients got no more answers is that the limit of the service.
        let handled = self.settings.blockers.iter().filter(|k| **k > 0 && !self.refuses(**k));
        let served: Vec<f64> = handled.filter_map(|k| self.served(*k)).collect();
        let (last, before) = served.split_last()?;
        let most = before.iter().copied().fold(0.0, f64::max);
        let is_limit = most > 0.0 && *last <= GROWS * most;
        let most = most.max(*last);
        (is_limit && share.rate * share.share > most).then_some(most)
    }

    /// How the service ended beside k slow requests, if it did in some trial.
    pub(super) fn ending(&self, k: usize) -> Option<String> {
        let metric = service::response_metric(crate::metrics::Percentile::default(), self.settings.block_ms, k);
        let cell = self.numbers.cell(&self.row.name, &metric)?;
        cell.invalid.iter().find_map(|reason| service::ending(reason).map(str::to_owned))
    }
}

/// More clients that get no more than this many times the answers have found the limit of a service.
const GROWS: f64 = 1.1;
/// Slow requests whose times are this many times apart are told to vary.
const VARIES: f64 = 2.0;
