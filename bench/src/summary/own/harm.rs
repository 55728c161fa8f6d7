//! The verdict: what slow requests do to quick ones.

use super::{QUEUES, Service, duration};
use crate::experiment::service;
use crate::metrics::{LIMITS_MS, Value};
use crate::report::{count, significant};

/// Who waits for less than this share of the limit is not held up by the slow requests.
const HARDLY: f64 = 0.1;
/// One new connection that fails may be unlucky.
const FEW: f64 = 2.0;
/// Who waits for a thread of which each is held waits for the time between two that get free: at least for this share of it, and not for that many more.
const TURN: f64 = 0.7;

impl Service<'_> {
    /// Why more than those do not count.
    pub(super) fn shortfall(&self) -> String {
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
        let handled = self.settings.blockers.iter().filter(|k| **k > freezes && self.is_handled(**k));
        let calm = |k: &usize| Some((*k, self.response(*k).filter(|value| value.is_above(limit_ms) == Some(false))?));
        let (k, wait) = handled.filter_map(calm).next()?;
        let wait = duration(wait);
        if self.freezes_at(limit_ms) != self.threshold(limit_ms) {
            let longest = duration(self.response(0)?);
            return Some(format!(
                " Without a slow one they waited for {longest}, but beside {k} for no more than {wait}, so something else held them up then: measure again, with more --trials."
            ));
        }
        Some(format!(
            " Beside {k} they waited for no more than {wait}, so luck decides here, or something else held them up: measure again, with more --trials."
        ))
    }

    /// What becomes of most requests on new connections beside k slow ones, if that is no quick answer. Those that fail do so at once: their age at the end
    /// is no wait.
    pub(super) fn fresh(&self, k: usize) -> Option<String> {
        let block_ms = self.settings.block_ms;
        let limit_ms = self.settings.fresh_limit_ms()?;
        let wait = self.median(&service::fresh_metric(block_ms, k)).filter(|value| value.is_above(limit_ms) == Some(true))?;
        let failed = self.median(&service::fresh_failed_metric(block_ms, k)).and_then(Value::exact);
        let grows = !self.numbers.values(&self.row.name, &service::fresh_grows_metric(block_ms, k)).is_empty();
        let ever = if grows { ", and for longer and longer" } else { "" };
        Some(if failed >= Some(FEW) { "fail".into() } else { format!("wait for {}{ever}", duration(wait)) })
    }

    /// What slow requests do to quick ones, and how many of both failed.
    pub(super) fn verdict(&self) -> String {
        let list = |what: &str, numbers: &dyn Fn(usize) -> (f64, f64)| {
            let beside = |k: &usize| {
                let (failed, all) = numbers(*k);
                (failed > 0.0).then(|| format!("{} of {} with {k} slow", count(failed), count(all)))
            };
            let failed: Vec<String> = self.settings.blockers.iter().filter_map(beside).collect();
            if failed.is_empty() { String::new() } else { format!(" {what} requests failed: {}.", failed.join(", ")) }
        };
        let doubt = self.settings.limit_ms().and_then(|limit_ms| self.doubt(limit_ms)).unwrap_or_default();
        let (queueing, varies) = (self.queueing(), self.varies());
        format!(
            "{}{doubt}{queueing}{varies}{}{}",
            self.harm(),
            list("Quick", &|k| self.failed(k)),
            list("Slow", &|k| self.slow_failed(k))
        )
    }

    /// What slow requests do to quick ones, in a sentence.
    fn harm(&self) -> String {
        let (name, block) = (&self.row.name, significant(self.alone_ms()));
        let Some(limit_ms) = self.settings.limit_ms() else {
            return format!(
                "{name}: a quick request takes {} alone, too long to tell by it what slow ones do: name a quicker one with --probe.",
                duration(Value::Exact(self.settings.probe_ms))
            );
        };
        let Some(threshold) = self.freezes_at(limit_ms) else {
            let is_below = |k: &usize| self.response(*k).and_then(|value| value.is_above(limit_ms)) == Some(false);
            // One that waited without a slow request may have had another cause.
            let is_unknown = |k: &&usize| !is_below(k) && (**k > 0 || self.response(0).is_none());
            return match self.settings.blockers.iter().find(is_unknown) {
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
        if let Some(refusal) = self.refusal(k) {
            return format!("{name}: {}{refusal}", self.harmless(k));
        }
        if k == 0 {
            return self.harm_without_any();
        }
        let harmless = match self.together(k, limit_ms) {
            Some((most, wait)) => format!(
                "up to {most} slow requests of {block} ms at a time are harmless while they start evenly, but hold the others up for {wait} if they start together; "
            ),
            None => self.harmless(k),
        };
        let subject = if k == 1 { "one slow request".to_owned() } else { k.to_string() };
        let effect = self.effect(k, limit_ms);
        let worse = self.threshold(LIMITS_MS[1]).and_then(Value::exact).filter(|worse| *worse as usize > k);
        let worse = worse.map_or(String::new(), |worse| format!("; {worse} for over a second"));
        let of = if harmless.is_empty() && k > 1 { format!(" slow requests of {block} ms at a time") } else { String::new() };
        let untried = untried(k, &self.settings.blockers);
        format!("{name}: {harmless}{subject}{of} {effect}{untried}{worse}.")
    }

    /// What k slow requests do to the others, beginning with a verb.
    fn effect(&self, k: usize, limit_ms: f64) -> String {
        let block_ms = self.settings.block_ms;
        let s = if k == 1 { "s" } else { "" };
        let fails = self.fails(k);
        // Those that failed have no time.
        let [median, wait] = service::wait_metrics(block_ms, k).map(|metric| self.median(&metric));
        let median = median.or_else(|| self.median(&service::median_metric(block_ms, k)));
        let wait = if fails { wait } else { self.response(k) };
        let (failed, all) = self.failed(k);
        let share = format!("{:.0} %", 100.0 * failed / all);
        // Where trials disagree, the median of their thresholds need not be a number whose median wait is above the limit.
        let is_long = |value: &Value| match value.is_above(limit_ms) {
            Some(is_above) => is_above,
            None => !fails,
        };
        let freeze = match wait.filter(is_long) {
            None if fails => return format!("make{s} other requests fail"),
            None => " in some trials".to_owned(),
            Some(wait) => format!(" for {}", duration(wait)),
        };
        // p99 is above the limit; half of the others may hardly have waited.
        let least_ms = (QUEUES * self.settings.probe_ms).max(HARDLY * limit_ms).min(limit_ms);
        let whom = match median.map(|median| median.is_above(least_ms)) {
            Some(Some(false)) => "some of the others, but not half of them,",
            // Of few that did not fail, a bound may say nothing.
            Some(None) | None if fails => "others",
            _ => "every other request",
        };
        let failing = if fails { format!(", and {share} fail") } else { String::new() };
        format!("freeze{s} {whom}{freeze}{failing}")
    }

    /// That the quick requests are held up before there is any slow one.
    fn harm_without_any(&self) -> String {
        let (name, fewer) = (&self.row.name, "try fewer with --connections");
        let connections = self.settings.connections;
        if self.fails(0) {
            return format!(
                "{name}: the quick requests fail without a single slow one: if it takes fewer than {connections} connections, {fewer}."
            );
        }
        let wait = self.response(0).map_or(String::new(), |value| format!(": they wait for {}", duration(value)));
        let median = self.median(&service::median_metric(self.settings.block_ms, 0)).filter(|_| !self.queues_without_any());
        let cause = match median {
            Some(median) => format!(
                "Half of them take no more than {}, so it is not too many requests: if {connections} connections are more than its listen queue holds, {fewer}; otherwise find out first what holds it up at times.",
                duration(median)
            ),
            None => format!("{} a second on {connections} connections are too many for it; {fewer}.", self.settings.rate),
        };
        format!("{name}: the quick requests freeze without a single slow one{wait}. {cause}")
    }

    /// That quick requests are refused for their number, as the end of a sentence.
    fn refusal(&self, k: usize) -> Option<String> {
        let status = self.limited(k)?;
        let (failed, all) = self.failed(k);
        let trials = self.numbers.values(&self.row.name, &service::failure_metrics(self.settings.block_ms, k)[1]).len();
        let per_s = |number: f64| significant(number / (trials as f64 * self.settings.window_ms as f64 / 1e3));
        let beside = match k {
            0 => "without a single slow one".to_owned(),
            1 => "beside one slow one, which its limit may count too".to_owned(),
            _ => format!("beside {k} slow ones, which its limit may count too"),
        };
        Some(format!(
            "it refuses {} of {} quick requests a second ({status}) {beside}: lift its limit for the measurement, or ask less often, with fewer --connections.",
            per_s(failed),
            per_s(all)
        ))
    }

    /// The most slow requests at a time that are harmless only by their order, and how long they hold the others up if they begin at the same moment. The
    /// driver starts k of them T / k apart, so if all threads that serve are held, somebody is served after T / k.
    fn together(&self, k: usize, limit_ms: f64) -> Option<(usize, String)> {
        let (most, alone_ms) = (self.borne(k), self.alone_ms());
        let before = self.settings.blockers.iter().copied().filter(|one| *one < most).max()?;
        let [wait, less] = [most, before].map(|k| self.response(k).and_then(Value::exact));
        let (wait, less) = (wait?, less?);
        let turn = alone_ms / most as f64;
        let waits_for_turn = (TURN * turn..turn / TURN).contains(&wait) && wait >= 2.0 * less;
        (most >= 2 && alone_ms > limit_ms && waits_for_turn).then(|| (most, duration(Value::Exact(alone_ms))))
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
        let block = significant(self.alone_ms());
        match self.borne(k) {
            0 => String::new(),
            1 => format!("one slow request of {block} ms at a time is harmless; "),
            count => format!("up to {count} slow requests of {block} ms at a time are harmless; "),
        }
    }

    /// The same where k slow requests leave no room for new connections.
    fn harm_to_new_clients(&self, k: usize, threshold: Value) -> String {
        let (name, harmless) = (&self.row.name, self.harmless(k));
        let block = significant(self.alone_ms());
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
