//! One screen about a user's own service: the verdict in a sentence, bars by number of slow requests, reference servers measured in the same round, and
//! what to change.

mod advice;
mod price;

use super::workload::SlowShare;
use crate::catalog::Row;
use crate::experiment::service::{self, Settings};
use crate::metrics::{LIMITS_MS, Metric, Numbers, Percentile, Value};
use crate::report::{Grade, Terminal, count, significant, value_text};
use crate::round::{Outcome, Round};
use advice::{advice, references};
use anyhow::{Context, Result};
use std::fmt::Write;

/// Columns before a bar.
const INDENT: usize = 10;
/// Columns of the longest bar.
const BAR: usize = 30;
/// If more quick requests than this share fail, p99 is one of those that are never answered.
const FAILS: f64 = 0.01;
/// If more slow requests than this share fail, the quick ones stood beside fewer than it says.
const REFUSES: f64 = 0.05;
/// Slow requests that take less than this share of the time that one takes alone come from a cache or by a shortcut.
const HURRIES: f64 = 0.5;
/// Where the median is above this many times that of a lone request, requests queue.
const QUEUES: f64 = 10.0;
/// Who waits for less than this share of the limit is not held up by the slow requests.
const HARDLY: f64 = 0.1;
/// One new connection that fails may be unlucky.
const FEW: f64 = 2.0;
/// Where the advice is written out.
const ADVICE: &str = "docs/your-own-server.md";

/// The screen of a round of a user's own server.
///
/// # Errors
/// A round that is none.
pub fn screen(round: &Round, numbers: &Numbers, terminal: &Terminal, share: Option<SlowShare>) -> Result<String> {
    let settings = round.header.settings.experiments.get("service").context("the round did not measure a service")?;
    let settings: Settings = serde_json::from_value(settings.clone()).context("the settings of service")?;
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

    /// The number of slow requests beside which clients wait that connect only now, where open connections are served as ever.
    fn shuts_out(&self, limit_ms: f64) -> Option<usize> {
        let fresh_limit_ms = self.settings.fresh_limit_ms()?;
        let k = self.median(&service::fresh_threshold_metric(self.settings.block_ms, fresh_limit_ms))?.exact()?;
        let kept = self.threshold(limit_ms).and_then(Value::exact);
        kept.is_none_or(|kept| k < kept).then_some(k as usize)
    }

    /// Whether none of the slow requests that were tried froze it.
    fn is_well(&self) -> bool {
        let Some(limit_ms) = self.settings.limit_ms() else { return false };
        matches!(self.threshold(limit_ms), Some(Value::Never { .. })) && self.shuts_out(limit_ms).is_none()
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

    fn has_failed(&self) -> bool {
        self.settings.blockers.iter().any(|k| self.failed(*k).0 > 0.0)
    }

    /// Whether too many slow requests failed for k at a time to count as handled.
    fn refuses(&self, k: usize) -> bool {
        let (failed, all) = self.slow_failed(k);
        failed > REFUSES * all
    }

    /// The time of each of k slow requests, if it is so much shorter than that of one alone that they did not do the same work.
    fn hurries(&self, k: usize) -> Option<Value> {
        let least_ms = HURRIES * self.settings.slow_ms(&self.row.name);
        let took = self.median(&service::slow_time_metric(self.settings.block_ms, k))?;
        (self.settings.has_slow_request() && took.is_above(least_ms) == Some(false)).then_some(took)
    }

    /// The most slow requests at a time, below `end`, up to which every number was handled.
    fn borne(&self, end: usize) -> usize {
        let is_handled = |k: &&usize| !self.refuses(**k) && self.hurries(**k).is_none();
        self.settings.blockers.iter().take_while(|k| **k < end && is_handled(k)).max().copied().unwrap_or(0)
    }

    /// Why more than those do not count.
    fn shortfall(&self) -> String {
        let more = self.settings.blockers.iter().filter(|k| **k > self.borne(usize::MAX));
        match more.clone().next().and_then(|k| self.hurries(*k).map(|took| (k, took))) {
            Some((1, took)) => format!("a slow request that is repeated took only {}", duration(took)),
            Some((k, took)) => format!("each of {k} slow requests at a time took only {}", duration(took)),
            None => "slow requests failed".into(),
        }
    }

    /// That the quick ones did not wait beside more slow requests than freeze them: by luck, or since something else held them up.
    fn doubt(&self, limit_ms: f64) -> Option<String> {
        let freezes = self.threshold(limit_ms)?.exact()? as usize;
        let handled =
            self.settings.blockers.iter().filter(|k| **k > freezes && !self.refuses(**k) && self.hurries(**k).is_none());
        let calm = |k: &usize| Some((*k, self.response(*k).filter(|value| value.is_above(limit_ms) == Some(false))?));
        let (k, wait) = handled.filter_map(calm).next()?;
        let wait = duration(wait);
        Some(format!(
            " Beside {k} they waited for no more than {wait}, so luck decides here, or something else held them up: measure again, with more --trials."
        ))
    }

    /// What becomes of most requests on new connections beside k slow ones, if that is no quick answer. Those that fail do so at once: their age at the end
    /// is no wait.
    fn fresh(&self, k: usize) -> Option<String> {
        let block_ms = self.settings.block_ms;
        let limit_ms = self.settings.fresh_limit_ms()?;
        let wait = self.median(&service::fresh_metric(block_ms, k)).filter(|value| value.is_above(limit_ms) == Some(true))?;
        let failed = self.median(&service::fresh_failed_metric(block_ms, k)).and_then(Value::exact);
        Some(if failed >= Some(FEW) { "fail".into() } else { format!("wait for {}", duration(wait)) })
    }

    /// What slow requests do to quick ones, and how many of both failed.
    fn verdict(&self) -> String {
        let list = |what: &str, numbers: &dyn Fn(usize) -> (f64, f64)| {
            let beside = |k: &usize| {
                let (failed, all) = numbers(*k);
                (failed > 0.0).then(|| format!("{} of {} with {k} slow", count(failed), count(all)))
            };
            let failed: Vec<String> = self.settings.blockers.iter().filter_map(beside).collect();
            if failed.is_empty() { String::new() } else { format!(" {what} requests failed: {}.", failed.join(", ")) }
        };
        let doubt = self.settings.limit_ms().and_then(|limit_ms| self.doubt(limit_ms)).unwrap_or_default();
        let queueing = self.queueing();
        format!(
            "{}{doubt}{queueing}{}{}",
            self.harm(),
            list("Quick", &|k| self.failed(k)),
            list("Slow", &|k| self.slow_failed(k))
        )
    }

    /// What slow requests do to quick ones, in a sentence.
    fn harm(&self) -> String {
        let (name, block) = (&self.row.name, significant(self.settings.block_ms));
        let Some(limit_ms) = self.settings.limit_ms() else {
            return format!(
                "{name}: a quick request takes {} alone, too long to tell by it what slow ones do: name a quicker one with --probe.",
                duration(Value::Exact(self.settings.probe_ms))
            );
        };
        let Some(threshold) = self.threshold(limit_ms) else {
            let is_below = |k: &usize| self.response(*k).and_then(|value| value.is_above(limit_ms)) == Some(false);
            return match self.settings.blockers.iter().find(|k| !is_below(k)) {
                Some(k) if self.ending(*k).is_some() => self.death(*k),
                Some(k) if *k > 1 && self.response(*k).is_none() => {
                    format!("{name}: {}what {k} do was not measured; the reasons stand below.", self.harmless(*k))
                }
                _ => format!("{name}: no valid measurement; the reasons stand below."),
            };
        };
        if let Some(k) = self.shuts_out(limit_ms) {
            return self.harm_to_new_clients(k, threshold);
        }
        let tried = self.settings.blockers.iter().max().copied().unwrap_or(0);
        let Value::Exact(k) = threshold else {
            let limit = format!("({} within {} s)", self.settings.percentile_words(), limit_ms / 1e3);
            let why = self.shortfall();
            let refused = if self.borne(usize::MAX) < tried { format!("; with more, {why}") } else { String::new() };
            return match self.borne(usize::MAX) {
                0 => format!("{name}: {why}, so this says nothing about what they do to the quick ones."),
                1 => format!("{name}: one slow request of {block} ms at a time leaves the quick ones alone {limit}{refused}."),
                most => format!(
                    "{name}: up to {most} slow requests of {block} ms at a time leave the quick ones alone {limit}{refused}."
                ),
            };
        };
        let k = k as usize;
        let (failed, all) = self.failed(k);
        let fails = self.median(&service::fails_metric(self.settings.block_ms, k)).and_then(Value::exact);
        let fails = fails.map_or(failed > FAILS * all, |fails| fails > 0.0);
        let fewer = "try fewer with --connections";
        if k == 0 && fails {
            return format!(
                "{name}: the quick requests fail without a single slow one: if it takes fewer than {} connections, {fewer}.",
                self.settings.connections
            );
        }
        if k == 0 {
            let wait = self.response(0).map_or(String::new(), |value| format!(": they wait for {}", duration(value)));
            let median = self.median(&service::median_metric(self.settings.block_ms, 0));
            let cause = match median.filter(|median| median.is_above(QUEUES * self.settings.probe_ms) == Some(false)) {
                Some(median) => {
                    format!(
                        "Half of them take no more than {}, so it is not too many requests: if {} connections are more than its listen queue holds, {fewer}; otherwise find out first what holds it up at times.",
                        duration(median),
                        self.settings.connections
                    )
                }
                None => format!(
                    "{} a second on {} connections are too many for it; {fewer}.",
                    self.settings.rate, self.settings.connections
                ),
            };
            return format!("{name}: the quick requests freeze without a single slow one{wait}. {cause}");
        }
        let harmless = self.harmless(k);
        // Where trials disagree, the median of their thresholds need not be a number whose median wait is above the limit.
        let wait = self.response(k).filter(|value| value.is_above(limit_ms) != Some(false));
        let freeze = wait.map_or(" in some trials".to_owned(), |value| format!(" for {}", duration(value)));
        let subject = if k == 1 { "one slow request".to_owned() } else { k.to_string() };
        // p99 is above the limit; half of the others may hardly have waited.
        let least_ms = (QUEUES * self.settings.probe_ms).max(HARDLY * limit_ms).min(limit_ms);
        let median = self.median(&service::median_metric(self.settings.block_ms, k));
        let hits = median.is_none_or(|median| median.is_above(least_ms) != Some(false));
        let effect = match (k, fails, hits) {
            (1, true, _) => "makes other requests fail".to_owned(),
            (_, true, _) => "make other requests fail".to_owned(),
            (1, false, true) => format!("freezes every other request{freeze}"),
            (_, false, true) => format!("freeze every other request{freeze}"),
            (1, false, false) => format!("freezes some of the others, but not half of them,{freeze}"),
            (_, false, false) => format!("freeze some of the others, but not half of them,{freeze}"),
        };
        let worse = self.threshold(LIMITS_MS[1]).and_then(Value::exact).filter(|worse| *worse as usize > k);
        let worse = worse.map_or(String::new(), |worse| format!("; {worse} for over a second"));
        let of = if harmless.is_empty() && k > 1 { format!(" slow requests of {block} ms at a time") } else { String::new() };
        let untried = untried(k, &self.settings.blockers);
        format!("{name}: {harmless}{subject}{of} {effect}{untried}{worse}.")
    }

    /// That the service itself ends beside k slow requests.
    fn death(&self, k: usize) -> String {
        let (name, harmless, how) = (&self.row.name, self.harmless(k), self.ending(k).unwrap_or_default());
        match k {
            0 => format!("{name}: it ends without a single slow request: {how}."),
            1 => format!("{name}: one slow request ends it: {how}."),
            _ => format!("{name}: {harmless}{k} slow requests at a time end it: {how}."),
        }
    }

    /// What is harmless below k slow requests, as the start of a sentence.
    fn harmless(&self, k: usize) -> String {
        let block = significant(self.settings.block_ms);
        match self.borne(k) {
            0 => String::new(),
            1 => format!("one slow request of {block} ms at a time is harmless; "),
            count => format!("up to {count} slow requests of {block} ms at a time are harmless; "),
        }
    }

    /// The same where k slow requests leave no room for new connections.
    fn harm_to_new_clients(&self, k: usize, threshold: Value) -> String {
        let (name, harmless) = (&self.row.name, self.harmless(k));
        let block = significant(self.settings.block_ms);
        let wait = self.fresh(k).unwrap_or_else(|| "wait".into());
        if k == 0 {
            return format!(
                "{name}: beside {} open connections, new ones {wait} without a single slow request: try fewer with --connections.",
                self.settings.connections
            );
        }
        let of = if harmless.is_empty() && k > 1 { format!(" slow requests of {block} ms at a time") } else { String::new() };
        let subject = if k == 1 { "one slow request lets".to_owned() } else { format!("{k}{of} let") };
        let untried = untried(k, &self.settings.blockers);
        let worse = threshold.exact().map_or(String::new(), |worse| format!("; {worse} freeze these too"));
        format!(
            "{name}: {harmless}{subject} new connections {wait}{untried}, while the {} that are open are served{worse}.",
            self.settings.connections
        )
    }

    /// A bar for each number of slow requests, on a logarithmic scale.
    fn bars(&self, terminal: &Terminal, share: Option<SlowShare>) -> Result<String> {
        let mut text = format!("  {:>6}  quick requests wait, {}\n", "slow", self.settings.percentile_words());
        let marks = share
            .filter(|share| self.most_below(*share).is_none())
            .map(|share| share.numbers(self.settings.slow_ms(&self.row.name) / 1e3));
        for k in &self.settings.blockers {
            let Some(value) = self.response(*k) else {
                writeln!(text, "  {k:>6}  not measured")?;
                continue;
            };
            let grade = Grade::of(value);
            let bar = "█".repeat(bar_length(value));
            let bar = terminal.paint(&bar, grade);
            let mark = marks.filter(|marks| marks.is_near(*k, &self.settings.blockers)).map_or("", |_| "  <- your load");
            let words = match value {
                Value::NotReached => "frozen with fewer already".to_owned(),
                value => format!("{} ms  {}", value_text(value), grade.name()),
            };
            let words_of =
                |failed: f64, what: &str| if failed > 0.0 { format!(", {} {what}", count(failed)) } else { String::new() };
            let failed = words_of(self.failed(*k).0, "failed") + &words_of(self.slow_failed(*k).0, "slow ones failed");
            let fresh = self.fresh(*k).map_or(String::new(), |words| format!(", new connections {words}"));
            let (first, rest) = (format!("{words}{mark}"), format!("{fresh}{failed}"));
            // What does not fit stands below.
            let taken = INDENT + bar_length(value) + 1 + first.chars().count() + rest.chars().count();
            let (end, below) =
                if taken <= terminal.text_width() { (rest.as_str(), "") } else { ("", rest.trim_start_matches(", ")) };
            writeln!(text, "  {k:>6}  {bar} {first}{end}")?;
            if !below.is_empty() {
                writeln!(text, "{:INDENT$}{below}", "")?;
            }
        }
        Ok(text)
    }
}

/// Which numbers just below k were not tried, in words; none if the one below was.
fn untried(k: usize, tried: &[usize]) -> String {
    let last = tried.iter().copied().filter(|one| *one < k).max().unwrap_or(0);
    match k.saturating_sub(last + 1) {
        0 => String::new(),
        1 => format!(" ({} was not tried)", k - 1),
        _ => format!(" ({} to {} were not tried)", last + 1, k - 1),
    }
}

fn bar_length(value: Value) -> usize {
    let ms = value.number().unwrap_or(LIMITS_MS[1] * 2.0).clamp(0.1, LIMITS_MS[2]);
    // From 0.1 ms to 10 s: five powers of ten.
    1 + ((ms / 0.1).log10() / 5.0 * BAR as f64) as usize
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
