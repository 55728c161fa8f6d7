//! Reference servers, and what to change.

use super::{ADVICE, Service};
use crate::catalog::{Blocking, Row};
use crate::experiment::service::Settings;
use crate::metrics::{Numbers, Value};
use crate::report::significant;
use crate::round::Round;
use anyhow::Result;
use std::fmt::Write;

/// The reference servers, one line each; `None` without any.
pub(super) fn references(round: &Round, numbers: &Numbers, settings: &Settings) -> Result<Option<String>> {
    let rows: Vec<&Row> = round.header.servers.iter().filter(|row| row.own.is_none()).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let block = significant(settings.block_ms);
    let tried = if settings.reference_blockers.is_empty() { &settings.blockers } else { &settings.reference_blockers };
    let mut text = format!("The same load and slow requests of {block} ms on this machine, where a slow call runs\n");
    for row in rows {
        let service = Service { row, numbers, settings };
        let words = match (&row.unavailable, settings.limit_ms().and_then(|limit_ms| service.freezes_at(limit_ms))) {
            (Some(reason), _) => format!("unavailable({reason})"),
            (_, Some(Value::Exact(k))) => match tried.iter().filter(|one| (**one as f64) < k).max().copied().unwrap_or(0) {
                last if k as usize > last + 1 => format!("freezes at k={} to {k}", last + 1),
                _ => format!("freezes at k={k}"),
            },
            (_, Some(Value::Never { tried })) => format!("never freezes ({tried} tried)"),
            _ => "not measured".into(),
        };
        let runs_on = row.runs_on.replace("{W}", &round.header.settings.conditions.threads.to_string());
        writeln!(text, "  {:26} on {runs_on:18} {words}", row.name)?;
    }
    Ok(Some(text.trim_end().to_owned()))
}

/// The reference that bears most, as advice.
pub(super) fn advice(round: &Round, numbers: &Numbers, settings: &Settings) -> String {
    let mine = round.header.servers.iter().filter(|row| row.own.is_some());
    let most = settings.blockers.iter().max().copied().unwrap_or(0);
    let is_well = |row: &&Row| Service { row, numbers, settings }.is_well();
    let Some(limit_ms) = settings.limit_ms() else { return "No advice, since the quick request is slow itself.".into() };
    if mine.clone().any(|row| Service { row, numbers, settings }.freezes_at(limit_ms).is_none()) {
        if mine.clone().any(|row| settings.blockers.iter().any(|k| Service { row, numbers, settings }.ending(*k).is_some())) {
            return "Find out first why it ends: what it has written says more.".into();
        }
        return "No advice without a valid measurement: try again, with fewer --connections if the server refuses some.".into();
    }
    let at = |row: &Row| Service { row, numbers, settings }.freezes_at(limit_ms).and_then(Value::exact).map(|k| k as usize);
    let is_limited = |row: &Row| at(row).is_some_and(|k| Service { row, numbers, settings }.limited(k).is_some());
    if mine.clone().any(is_limited) {
        return "No advice while it refuses quick requests for their number.".into();
    }
    let is_held_before = |row: &Row| at(row) == Some(0) || Service { row, numbers, settings }.shuts_out(limit_ms) == Some(0);
    if mine.clone().any(is_held_before) {
        return "No advice on slow requests, since the quick ones are held up without any: find out first by what.".into();
    }
    let freezes = |row: &Row| at(row).is_some();
    if !settings.has_slow_request() && !mine.clone().any(freezes) {
        let (block, probe) = (significant(settings.block_ms), significant(settings.probe_ms));
        return format!(
            "No advice, since the slow request takes {block} ms and the quick one {probe} ms: name a slow one with --blocker."
        );
    }
    if mine.clone().all(|row| is_well(&row)) {
        if mine.clone().any(|row| Service { row, numbers, settings }.has_failed()) {
            return "None froze, but quick requests failed: look for the cause in what the server says of them.".into();
        }
        let hurries = |row: &Row| settings.blockers.iter().any(|k| Service { row, numbers, settings }.hurries(*k).is_some());
        if mine.clone().any(hurries) {
            return "None froze, but many slow requests at a time were answered in less time than one: from a cache, or by a shortcut. Name one with --blocker that has to be computed each time.".into();
        }
        if mine.clone().any(|row| Service { row, numbers, settings }.borne(usize::MAX) < most) {
            return "None froze, but slow requests failed: if that is a limit that the server is meant to keep, it keeps the quick ones quick; otherwise look for the cause in what the server says of them.".into();
        }
        if mine.clone().any(|row| !Service { row, numbers, settings }.queueing().is_empty()) {
            return format!(
                "The quick requests are safe, but the slow ones wait for one another: look for a lock that they share, a pool that is too small for them, or too few processors for what they compute. {ADVICE} has more."
            );
        }
        return format!("Nothing to change for requests of this length. Bound the pool all the same: {ADVICE}.");
    }
    let wait = |row: &Row| Service { row, numbers, settings }.response(most).and_then(Value::number).unwrap_or(f64::MAX);
    let references = round.header.servers.iter().filter(|row| row.own.is_none() && row.unavailable.is_none());
    let better = references.filter(is_well).min_by(|a, b| wait(a).total_cmp(&wait(b)));
    match better.and_then(|row| row.blocking) {
        Some(Blocking::Inline) => format!(
            "A thread for each connection bears this load here. {ADVICE} has the lines to change for Rust, Python, Node and Go."
        ),
        Some(_) => format!(
            "Moving the slow call to a thread pool bears this load here. {ADVICE} has the lines to change for Rust, Python, Node and Go."
        ),
        None => format!("See {ADVICE} for the lines to change for Rust, Python, Node and Go."),
    }
}
