//! From trials to numbers.

use super::store::Round;
use super::trial::{Outcome, Trial};
use crate::experiment;
use crate::metrics::{Numbers, Percentile, Reading};
use anyhow::{Context, Result};

/// All numbers of a round, with response times at a percentile.
///
/// # Errors
/// An outcome or a histogram that cannot be read, with file and line.
pub fn numbers(round: &Round, percentile: Percentile) -> Result<Numbers> {
    let mut numbers = Numbers::default();
    for trial in &round.trials {
        match &trial.outcome {
            Outcome::Invalid { reason } => numbers.fail(&trial.server, &trial.experiment, reason),
            Outcome::Settled => {}
            Outcome::Found(_) => {
                let place = || format!("{}:{}", round.folder.join("trials.jsonl").display(), trial.line);
                let readings = readings(round, trial, percentile).with_context(place)?;
                numbers.add(&trial.server, readings);
            }
        }
    }
    Ok(numbers)
}

/// The readings of one trial.
///
/// # Errors
/// An outcome or a histogram that cannot be read.
pub fn readings(round: &Round, trial: &Trial, percentile: Percentile) -> Result<Vec<Reading>> {
    let Outcome::Found(outcome) = &trial.outcome else { return Ok(Vec::new()) };
    let settings = round.header.settings.experiments.get(&trial.experiment);
    let settings = settings.with_context(|| format!("the round has no settings of {}", trial.experiment))?;
    experiment::find(&trial.experiment)?.read(outcome, settings, percentile)
}

/// What experiments have to say of single servers in words, each once.
pub fn remarks(round: &Round) -> Vec<String> {
    let mut remarks: Vec<String> = Vec::new();
    for trial in &round.trials {
        let Outcome::Found(outcome) = &trial.outcome else { continue };
        let remark = experiment::find(&trial.experiment).ok().and_then(|one| one.remark(outcome));
        let is_known = remarks.iter().any(|known| known.starts_with(&format!("{}: ", trial.server)));
        remarks.extend(remark.filter(|_| !is_known).map(|remark| format!("{}: {remark}", trial.server)));
    }
    remarks
}
