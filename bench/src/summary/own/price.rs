//! What the slow requests themselves pay, and a load that brings more of them than a service can answer.

use super::{QUEUES, Service, SlowShare, duration};
use crate::experiment::service;
use crate::metrics::Value;
use crate::report::significant;

impl Service<'_> {
    /// That slow requests stand in line, as the end of a verdict: a service may leave the quick ones alone by serving few of the slow ones.
    pub(super) fn queueing(&self) -> String {
        let alone_ms = self.settings.slow_ms(&self.row.name);
        let alone = duration(Value::Exact(alone_ms));
        let queued = |k: usize| {
            // One has nobody to wait for.
            if k < 2 || self.refuses(k) {
                return None;
            }
            if self.served(k) == Some(0.0) {
                return Some(format!(" Of {k} slow requests at a time, none was answered within the measurement."));
            }
            let took = self.median(&service::slow_time_metric(self.settings.block_ms, k))?;
            (took.is_above(QUEUES * alone_ms) == Some(true)).then(|| {
                format!(" Slow requests wait for one another: beside {k} at a time each takes {}, not {alone}.", duration(took))
            })
        };
        self.settings.blockers.iter().rev().find_map(|k| queued(*k)).unwrap_or_default()
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
        share.describe(self.settings.slow_ms(&self.row.name) / 1e3)
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
        cell.invalid.iter().find_map(|reason| Some(reason[reason.find(ENDED)?..].to_owned()))
    }
}

/// More clients that get no more than this many times the answers have found the limit of a service.
const GROWS: f64 = 1.1;
/// How a reason says that a server has ended.
const ENDED: &str = "the server ended";
