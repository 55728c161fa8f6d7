//! The conditions of a round that all experiments share.

use crate::host::placement::{Placement, default_threads};
use serde::{Deserialize, Serialize};

/// How thorough a round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One trial, no intervals, no ranks.
    Quick,
    /// Seven trials: an odd number, so that each median is a value that was seen.
    Standard,
    /// Eleven trials, all experiments, and the limit of ten seconds.
    Thorough,
}

impl Mode {
    /// Trials of each cell.
    pub fn trials(self) -> u32 {
        match self {
            Mode::Quick => 1,
            Mode::Standard => 7,
            Mode::Thorough => 11,
        }
    }
}

/// The conditions of a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// How thorough.
    pub mode: Mode,
    /// W: threads or processes of a server.
    pub threads: usize,
    /// Placement of the experiments that measure latency.
    pub placement: Placement,
    /// Arguments to every server besides its own.
    pub more: Vec<String>,
}

impl Conditions {
    /// Those of a mode on this machine.
    pub fn here(mode: Mode) -> Self {
        let placement = Placement::default_here();
        Conditions { mode, threads: default_threads(placement), placement, more: Vec::new() }
    }
}
