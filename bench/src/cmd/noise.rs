//! The noise that a comparison is judged with, from the null rounds that fit it.

use super::bases;
use crate::console::output::say;
use crate::metrics::{Numbers, Percentile};
use crate::round::{self, Round, name_of};
use crate::verdict::drift;
use crate::verdict::noise::Noise;
use crate::verdict::null::{self, NullComparison};
use anyhow::{Result, bail};
use std::path::Path;

/// The noise between servers measured in one round, as `rank` and `ab` judge.
///
/// # Errors
/// The null round that is named does not fit, or cannot be read.
pub fn within(round: &Round, named: Option<&Path>) -> Result<Noise> {
    let Some(null) = fitting(round, named)?.into_iter().next() else { return Ok(Noise::default()) };
    let comparisons = null::within(&round::numbers(&null, Percentile::default())?);
    Ok(Noise::from_null(&comparisons, format!("null round {}", name_of(&null.folder))))
}

/// The noise between rounds measured at two times, as `compare` judges: from pairs of null rounds, after what moved all servers alike was taken
/// out of them too. With only one null round, the noise within it.
///
/// # Errors
/// The null round that is named does not fit, or cannot be read.
pub fn between(round: &Round, named: Option<&Path>) -> Result<Noise> {
    let nulls = fitting(round, named)?;
    if nulls.len() < 2 {
        return within(round, named);
    }
    let numbers: Vec<Numbers> = nulls.iter().map(|null| round::numbers(null, Percentile::default())).collect::<Result<_>>()?;
    let mut comparisons: Vec<NullComparison> = Vec::new();
    for (number, first) in numbers.iter().enumerate() {
        for second in &numbers[number + 1..] {
            comparisons.extend(pair(first, second));
        }
    }
    let names: Vec<String> = nulls.iter().map(|null| name_of(&null.folder)).collect();
    Ok(Noise::from_null(&comparisons, format!("pairs of the null rounds {}", names.join(", "))))
}

/// Every server of a null round against itself in another.
fn pair(first: &Numbers, second: &Numbers) -> Vec<NullComparison> {
    let drift = drift::between(first, second);
    let mut comparisons = Vec::new();
    for server in first.servers() {
        for (metric, cell) in first.of_server(server) {
            let other = second.cell(server, metric).map(|other| drift::without(drift.get(metric.family.name.as_ref()), other));
            comparisons.extend(other.and_then(|other| null::compare(server, metric, cell, &other)));
        }
    }
    comparisons
}

/// The null rounds that fit a round, each with as many trials as that has; one that is named must fit, and others that cannot be read are left out.
fn fitting(round: &Round, named: Option<&Path>) -> Result<Vec<Round>> {
    if let Some(name) = named {
        let null = Round::open(&round::find(&bases(), name)?)?;
        if !null.header.settings.is_null {
            bail!("{} is not a null round: no server stands in it twice", null.folder.display());
        }
        let differences = round::differences(&null.header, &round.header);
        if !differences.is_empty() {
            bail!(
                "{} does not calibrate {}: it differs in {}",
                null.folder.display(),
                round.folder.display(),
                differences.join(", ")
            );
        }
        return Ok(vec![cut(null, round)]);
    }
    let folders = bases().iter().flat_map(|base| round::null_for(base, round)).collect::<Vec<_>>();
    Ok(folders
        .iter()
        .filter_map(|folder| {
            Round::open(folder).inspect_err(|error| say(&format!("stallbench: {error:#}; continuing without it"))).ok()
        })
        .map(|null| cut(null, round))
        .collect())
}

/// A null round with its first trials only, as many as another round has: medians of fewer trials vary more.
fn cut(mut null: Round, like: &Round) -> Round {
    null.trials.retain(|trial| trial.trial <= like.header.settings.trials);
    null
}
