//! Rounds of schema 1, which kept the settings of all experiments in one list and did not say whether they were finished.

use super::header::Header;
use crate::catalog::{self, Row, Server};
use crate::experiment;
use crate::measure::Mode;
use anyhow::{Context, Result};
use serde_json::Value as Json;

/// The header of a round of schema 1 in today's form. `trials` is the number of its trials.
///
/// # Errors
/// A header that lacks what it must have.
pub fn header(mut old: Json, trials: usize) -> Result<Header> {
    let settings = old.get_mut("settings").map(Json::take).context("it has no settings")?;
    let mode: Mode = serde_json::from_value(settings["mode"].clone()).context("its mode")?;
    let names: Vec<String> = serde_json::from_value(settings["experiments"].clone()).context("its experiments")?;
    let mut experiments = serde_json::Map::new();
    for name in &names {
        experiments.insert(name.clone(), experiment::find(name)?.settings_of_schema_1(&settings, mode));
    }
    let mut new = settings;
    new["experiments"] = Json::Object(experiments);
    old["settings"] = new;
    let mut header: Header = serde_json::from_value(old)?;
    let is_whole = trials >= expected(&header, names.len());
    header.finished = is_whole.then(|| header.started.clone());
    describe(&mut header.servers);
    Ok(header)
}

/// The trials of a round in which every available server took part in every experiment that it supports.
fn expected(header: &Header, experiments: usize) -> usize {
    let of = |row: &Row| {
        let unsupported = header.settings.experiments.keys().filter(|name| row.unsupported.contains_key(*name)).count();
        if row.unavailable.is_some() { 0 } else { experiments - unsupported }
    };
    header.servers.iter().map(of).sum::<usize>() * header.settings.trials as usize
}

/// Such rounds did not keep what the catalog says of each server in words; today's catalog still knows most of them.
fn describe(rows: &mut [Row]) {
    let known: Vec<Server> = catalog::load().unwrap_or_default();
    for row in rows {
        let plain = row.name.split('@').next().unwrap_or_default();
        if let Some(server) = known.iter().find(|server| server.name == plain) {
            row.blocking = Some(server.blocking);
            row.runs_on.clone_from(&server.runs_on);
            row.tags.clone_from(&server.tags);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Round, numbers};
    use super::*;
    use crate::host::tree::recorded;
    use crate::metrics::{Percentile, Value};

    #[test]
    fn recorded_rounds_of_schema_1_still_load_and_say_what_t_was() {
        let round = Round::open(&recorded().join("2026-11-22-vm")).unwrap();
        assert!(round.header.finished.is_some() && round.header.is_headline());
        let numbers = numbers(&round, Percentile::default()).unwrap();
        let places: Vec<String> = numbers.of_server("tokio-current-thread").map(|(metric, _)| metric.to_string()).collect();
        assert!(places.contains(&"p99_ms[sleep@100,4]".to_owned()), "{places:?}");
        // Only the first kind of blocker has a step without any on the same process.
        assert!(places.contains(&"added_p99_ms[sleep@100,4]".to_owned()));
        assert!(!places.contains(&"added_p99_ms[cpu@100,4]".to_owned()));
    }

    #[test]
    fn a_round_that_lacks_trials_is_not_finished() {
        let text = std::fs::read_to_string(recorded().join("2026-11-22-vm/round.json")).unwrap();
        let whole = header(serde_json::from_str(&text).unwrap(), 312).unwrap();
        assert!(whole.finished.is_some());
        assert!(header(serde_json::from_str(&text).unwrap(), 311).unwrap().finished.is_none());
    }

    #[test]
    fn a_given_up_step_of_schema_1_holds_lower_bounds() {
        let round = Round::open(&recorded().join("2026-11-22-vm")).unwrap();
        let numbers = numbers(&round, "50".parse().unwrap()).unwrap();
        let frozen = numbers.of_server("tokio-current-thread").find(|(metric, _)| metric.to_string() == "p50_ms[sleep@100,16]");
        let values = &frozen.expect("measured").1.values;
        assert!(values.iter().all(|value| matches!(value, Value::AtLeast(_))), "{values:?}");
    }
}
