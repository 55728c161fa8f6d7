//! One screen about a user's own service: the verdict in a sentence, bars by number of slow requests, reference servers measured in the same round, and
//! what to change.

mod advice;
mod bars;
mod borne;
mod harm;
mod price;

use super::workload::SlowShare;
use crate::catalog::Row;
use crate::experiment::service::{self, Settings};
use crate::metrics::{Metric, Numbers, Percentile, Value};
use crate::report::{Terminal, significant};
use crate::round::{Outcome, Round};
use advice::{advice, references};
use anyhow::{Context, Result};
pub use borne::borne;

/// If more quick requests than this share fail, p99 is one of those that are never answered.
const FAILS: f64 = 0.01;
/// If more slow requests than this share fail, the quick ones stood beside fewer than it says.
const REFUSES: f64 = 0.05;
/// Slow requests that take less than this share of the time that one takes alone come from a cache or by a shortcut.
const HURRIES: f64 = 0.5;
/// Where the median is above this many times that of a lone request, requests queue.
const QUEUES: f64 = 10.0;
/// Where the advice is written out.
const ADVICE: &str = "docs/your-own-server.md";

/// The screen of a round of a user's own server.
///
/// # Errors
/// A round that is none.
pub fn screen(round: &Round, numbers: &Numbers, terminal: &Terminal, share: Option<SlowShare>) -> Result<String> {
    let settings = settings(round)?;
    let mut parts = Vec::new();
    for row in round.header.servers.iter().filter(|row| row.own.is_some()) {
        let service = Service { row, numbers, settings: &settings };
        let verdict = service.verdict() + &first_failure(round, &row.name);
        parts.push(format!("{}\n\n{}", wrap(terminal, &verdict), service.bars(terminal, share)?.trim_end()));
    }
    parts.extend(references(round, numbers, &settings)?);
    if let Some(share) = share {
        let own = round.header.servers.iter().filter(|row| row.own.is_some());
        let is_one = own.clone().count() == 1;
        parts.extend(own.map(|row| {
            let load = Service { row, numbers, settings: &settings }.load(share);
            wrap(terminal, &if is_one { load } else { format!("{}: {load}", row.name) })
        }));
    }
    parts.push(wrap(terminal, &advice(round, numbers, &settings)));
    Ok(parts.join("\n\n") + "\n")
}

fn settings(round: &Round) -> Result<Settings> {
    let settings = round.header.settings.experiments.get("service").context("the round did not measure a service")?;
    serde_json::from_value(settings.clone()).context("the settings of service")
}

/// The first request that failed in a round, in words, as the end of a verdict.
fn first_failure(round: &Round, server: &str) -> String {
    let found = round.trials.iter().filter(|trial| trial.server == server).filter_map(|trial| match &trial.outcome {
        Outcome::Found(found) => service::first_failure(found),
        _ => None,
    });
    // What a proxy or a framework answers to a client that asks for too much.
    let is_limit = |words: &str| ["403", "429", "503"].iter().any(|status| words.starts_with(&format!("status {status} ")));
    match found.into_iter().next() {
        Some(words) if is_limit(&words) => {
            format!(" The first: {words}. All come from one address, so a limit for each client may be all that this shows.")
        }
        Some(words) => format!(" The first: {words}."),
        None => String::new(),
    }
}

fn wrap(terminal: &Terminal, text: &str) -> String {
    crate::report::wrap(text, terminal.text_width().min(100), "")
}

struct Service<'s> {
    row: &'s Row,
    numbers: &'s Numbers,
    settings: &'s Settings,
}

impl Service<'_> {
    fn median(&self, metric: &Metric) -> Option<Value> {
        Some(self.numbers.summary(&self.row.name, metric)?.median)
    }

    fn response(&self, k: usize) -> Option<Value> {
        self.median(&service::response_metric(Percentile::default(), self.settings.block_ms, k))
    }

    fn threshold(&self, limit_ms: f64) -> Option<Value> {
        self.median(&service::threshold_metric(self.settings.block_ms, limit_ms))
    }

    /// The number of slow requests that freezes it.
    fn freezes_at(&self, limit_ms: f64) -> Option<Value> {
        let threshold = self.threshold(limit_ms)?;
        let is_certain = self.fails(0) || self.queues_without_any();
        if is_certain { Some(threshold) } else { self.beyond_chance(threshold, limit_ms, |k| self.response(k)) }
    }

    /// A threshold by these waits. What waits without any slow request, but not beside more, was held up by something else meanwhile: then the others
    /// decide, from the last number on beside which nobody waits. `None` if that was not measured.
    fn beyond_chance(&self, threshold: Value, limit_ms: f64, wait: impl Fn(usize) -> Option<Value>) -> Option<Value> {
        let waits = |k: usize| wait(k).and_then(|value| value.is_above(limit_ms));
        let more: Vec<usize> = self.settings.blockers.iter().copied().filter(|k| *k > 0).collect();
        let last = more.iter().rposition(|k| waits(*k) == Some(false) && self.is_handled(*k));
        // Where trials disagree, the wait without any may be none.
        let (Value::Exact(0.0), Some(last), Some(true)) = (threshold, last, waits(0)) else { return Some(threshold) };
        for k in &more[last + 1..] {
            match waits(*k) {
                Some(true) => return Some(Value::Exact(*k as f64)),
                Some(false) => {}
                None => return None,
            }
        }
        more.last().map(|most| Value::Never { tried: *most as f64 })
    }

    /// Whether most quick requests wait though there is no slow one: a rate that is too high is no chance.
    fn queues_without_any(&self) -> bool {
        let median = self.median(&service::median_metric(self.settings.block_ms, 0));
        median.is_some_and(|median| median.is_above(QUEUES * self.settings.probe_ms) != Some(false))
    }

    /// The number of slow requests beside which clients wait that connect only now, where open connections are served as ever.
    fn shuts_out(&self, limit_ms: f64) -> Option<usize> {
        let fresh_limit_ms = self.settings.fresh_limit_ms()?;
        let block_ms = self.settings.block_ms;
        let threshold = self.median(&service::fresh_threshold_metric(block_ms, fresh_limit_ms))?;
        let wait = |k: usize| self.median(&service::fresh_metric(block_ms, k));
        let k = self.beyond_chance(threshold, fresh_limit_ms, wait)?.exact()?;
        let kept = self.freezes_at(limit_ms).and_then(Value::exact);
        kept.is_none_or(|kept| k < kept).then_some(k as usize)
    }

    /// Whether none of the slow requests that were tried froze it.
    fn is_well(&self) -> bool {
        let Some(limit_ms) = self.settings.limit_ms() else { return false };
        matches!(self.freezes_at(limit_ms), Some(Value::Never { .. })) && self.shuts_out(limit_ms).is_none()
    }

    /// The quick requests that failed beside k slow ones, in all trials, and all of them.
    fn failed(&self, k: usize) -> (f64, f64) {
        self.sums(service::failure_metrics(self.settings.block_ms, k))
    }

    /// The same of the slow requests.
    fn slow_failed(&self, k: usize) -> (f64, f64) {
        self.sums(service::slow_failure_metrics(self.settings.block_ms, k))
    }

    fn sums(&self, [failed, all]: [Metric; 2]) -> (f64, f64) {
        let sum = |metric| self.numbers.values(&self.row.name, metric).iter().filter_map(|value| value.exact()).sum();
        (sum(&failed), sum(&all))
    }

    /// Whether p99 of the quick requests beside k slow ones is one of those that failed.
    fn fails(&self, k: usize) -> bool {
        let (failed, all) = self.failed(k);
        let fails = self.median(&service::fails_metric(self.settings.block_ms, k)).and_then(Value::exact);
        fails.map_or(failed > FAILS * all, |fails| fails > 0.0)
    }

    /// The status with which most of the failed quick requests were refused, where slow ones are not the cause: 429 says that there were too many of
    /// whatever kind, and what is refused without a slow one is not refused for one. `None` where hardly one failed.
    fn limited(&self, k: usize) -> Option<u16> {
        let refused = |status: u16| {
            let metric = service::refused_metric(status, self.settings.block_ms, k)?;
            Some(self.numbers.values(&self.row.name, &metric).iter().filter_map(|value| value.exact()).sum::<f64>())
        };
        let is_most = |status: &u16| refused(*status).unwrap_or_default() > self.failed(k).0 / 2.0;
        [429, 503].into_iter().filter(|status| *status == 429 || k == 0).find(is_most).filter(|_| self.fails(k))
    }

    fn has_failed(&self) -> bool {
        self.settings.blockers.iter().any(|k| self.failed(*k).0 > 0.0)
    }

    /// Whether too many slow requests failed for k at a time to count as handled.
    fn refuses(&self, k: usize) -> bool {
        let (failed, all) = self.slow_failed(k);
        failed > REFUSES * all
    }

    /// The time that the slow request takes alone, in ms. One at a time is alone as well, so if it is far quicker then, the service was cold when it was
    /// asked first; an answer that takes next to no time did no work.
    fn alone_ms(&self) -> f64 {
        let beside = self.median(&service::slow_time_metric(self.settings.block_ms, 1)).and_then(Value::exact);
        let warm = beside.filter(|ms| *ms < HURRIES * self.least_ms() && self.settings.is_slow(*ms));
        warm.unwrap_or_else(|| self.settings.slow_ms(&self.row.name))
    }

    /// The mean of the same: what Little's law asks for.
    fn mean_ms(&self) -> f64 {
        let alone_ms = self.alone_ms();
        let is_learned = alone_ms == self.settings.slow_ms(&self.row.name);
        self.settings.lone.get(&self.row.name).filter(|_| is_learned).map_or(alone_ms, |lone| lone.mean_ms)
    }

    /// The shortest time that it took when it was asked alone, in ms.
    fn least_ms(&self) -> f64 {
        self.settings.lone.get(&self.row.name).map_or_else(|| self.settings.slow_ms(&self.row.name), |lone| lone.least_ms)
    }

    /// The time of each of k slow requests, if it is so much shorter than the shortest of one alone that they did not do the same work.
    fn hurries(&self, k: usize) -> Option<Value> {
        let least_ms = HURRIES * self.least_ms().min(self.alone_ms());
        let took = self.median(&service::slow_time_metric(self.settings.block_ms, k))?;
        (self.settings.has_slow_request() && took.is_above(least_ms) == Some(false)).then_some(took)
    }

    /// Whether k slow requests at a time were answered, and did their work.
    fn is_handled(&self, k: usize) -> bool {
        !self.refuses(k) && self.hurries(k).is_none()
    }

    /// The most slow requests at a time, below `end`, up to which every number was handled.
    fn borne(&self, end: usize) -> usize {
        self.settings.blockers.iter().take_while(|k| **k < end && self.is_handled(**k)).max().copied().unwrap_or(0)
    }
}

fn duration(value: Value) -> String {
    let bound = if matches!(value, Value::AtLeast(_)) { "over " } else { "" };
    match value.number() {
        Some(ms) if ms >= 1000.0 => format!("{bound}{} s", significant(ms / 1e3)),
        Some(ms) => format!("{bound}{} ms", significant(ms)),
        None => "longer than was measured".into(),
    }
}

#[cfg(test)]
mod tests;
