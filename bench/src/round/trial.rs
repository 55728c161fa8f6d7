//! One line of `trials.jsonl`.

use crate::experiment::service;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value as Json;

/// A trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trial {
    /// The server.
    pub server: String,
    /// The experiment.
    pub experiment: String,
    /// Its number, from 1.
    pub trial: u32,
    /// Seed of its random order.
    pub seed: u64,
    /// When it ended, in seconds since the round was started or resumed.
    pub at_s: f64,
    /// The share of all processor time that the hypervisor took away meanwhile.
    pub steal: f64,
    /// The result.
    pub outcome: Outcome,
    /// The line that it stands on, from 1.
    #[serde(skip)]
    pub line: usize,
}

impl Trial {
    /// Whether a user's own service ended during it.
    pub fn has_ended(&self) -> bool {
        matches!(&self.outcome, Outcome::Found(found) if service::has_ended(found))
    }
}

/// The result of a trial.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Json")]
pub enum Outcome {
    /// No number.
    Invalid {
        /// The reason, in words.
        reason: String,
    },
    /// Not taken: its cells were known well enough.
    Settled,
    /// What the experiment found, in its own layout.
    Found(Json),
}

impl From<Json> for Outcome {
    fn from(json: Json) -> Self {
        // In schema 1 every outcome names its experiment, and one without numbers has such a name.
        match (json["experiment"].as_str(), json["reason"].as_str()) {
            (Some("invalid"), Some(reason)) => Outcome::Invalid { reason: reason.to_owned() },
            (Some("settled"), None) => Outcome::Settled,
            _ => Outcome::Found(json),
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Outcome::Invalid { reason } => serializer.collect_map([("experiment", "invalid"), ("reason", reason)]),
            Outcome::Settled => serializer.collect_map([("experiment", "settled")]),
            Outcome::Found(json) => json.serialize(serializer),
        }
    }
}
