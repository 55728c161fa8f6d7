//! `round.json`: what a round measures, on what, and how.

use crate::catalog::Row;
use crate::experiment::{self, Any, Choices};
use crate::host::environment::Environment;
use crate::measure::{Conditions, Mode};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The version of the layout that this program writes. It reads older ones too, and refuses newer ones by name.
pub const SCHEMA: u32 = 2;

/// The content of `round.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Header {
    /// Version of the layout.
    pub schema: u32,
    /// When it was started, in UTC, by RFC 3339.
    pub started: String,
    /// When its last trial ended; `None` if it is not finished.
    #[serde(default)]
    pub finished: Option<String>,
    /// The command line.
    pub command: Vec<String>,
    /// How it measures.
    pub settings: Settings,
    /// The machine.
    pub environment: Environment,
    /// Each time that it was resumed.
    #[serde(default)]
    pub resumed: Vec<Resumed>,
    /// The servers, in the order of the catalog.
    pub servers: Vec<Row>,
}

/// A round was resumed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resumed {
    /// When, in UTC, by RFC 3339.
    pub at: String,
    /// The commit of the harness that resumed it.
    pub commit: String,
}

/// How a round measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The conditions that all experiments share.
    #[serde(flatten)]
    pub conditions: Conditions,
    /// Trials of each cell.
    pub trials: u32,
    /// The width, as a share of the median, below which an interval is narrow enough: what has only such cells is not measured again. `None` if every
    /// trial is taken.
    #[serde(default)]
    pub settled_width: Option<f64>,
    /// Seed of all random order.
    pub seed: u64,
    /// Each server is measured under two names, to see how far apart identical servers are.
    #[serde(default)]
    pub is_null: bool,
    /// The filters over servers; empty if all were asked for.
    #[serde(default)]
    pub filters: Vec<String>,
    /// A user's own file of servers, some of which are measured.
    #[serde(default)]
    pub servers_file: Option<PathBuf>,
    /// The experiments, each with its own settings.
    pub experiments: BTreeMap<String, Json>,
    /// What a round of its mode has and this one lacks, so that it ends in its time.
    #[serde(default)]
    pub left_out: Vec<String>,
}

impl Settings {
    /// The settings of a mode on this machine, with the named experiments, or the standard ones.
    ///
    /// # Errors
    /// An unknown experiment.
    pub fn new(mode: Mode, names: &[String], choices: &Choices, seed: u64) -> Result<Self> {
        let mut chosen: Vec<&dyn Any> = Vec::new();
        for name in names {
            chosen.push(experiment::find(name)?);
        }
        if names.is_empty() {
            let is_in = |one: &&dyn Any| !one.is_own() && (one.is_standard() || mode == Mode::Thorough);
            chosen = experiment::ALL.iter().copied().filter(is_in).collect();
        }
        let experiments = chosen.iter().map(|one| (one.name().to_owned(), one.settings(mode, choices))).collect();
        Ok(Settings {
            conditions: Conditions::here(mode),
            trials: mode.trials(),
            settled_width: None,
            seed,
            is_null: false,
            filters: Vec::new(),
            servers_file: None,
            experiments,
            left_out: Vec::new(),
        })
    }

    /// Its experiments with their settings, in the order of a trial.
    pub fn experiments(&self) -> impl Iterator<Item = (&'static dyn Any, &Json)> {
        experiment::ALL.iter().filter_map(|one| Some((*one, self.experiments.get(one.name())?)))
    }

    /// A round of a user's own server.
    pub fn is_own(&self) -> bool {
        self.experiments().any(|(one, _)| one.is_own())
    }

    /// The suffix of the folder of such a round.
    pub fn suffix(&self) -> &'static str {
        match (self.is_null, self.is_own(), self.conditions.mode) {
            (true, ..) => "-null",
            // Both are ignored by git: a quick round has no intervals, and a user's own server is nobody else's.
            (_, true, _) => "-own",
            (.., Mode::Quick) => "-quick",
            _ => "",
        }
    }

    /// The settings that differ from those of another round, by name, as far as they decide what a number means.
    pub fn differences(&self, other: &Settings) -> Vec<String> {
        let (a, b) = (&self.conditions, &other.conditions);
        let mut names: Vec<String> = Vec::new();
        let mut add = |name: &str, differs: bool| names.extend(differs.then(|| name.to_owned()));
        add("mode", a.mode != b.mode);
        add("W", a.threads != b.threads);
        add("placement", a.placement != b.placement);
        add("arguments", a.more != b.more);
        add("trials", self.trials != other.trials);
        for (name, settings) in &self.experiments {
            let differs = other.experiments.get(name).is_some_and(|theirs| theirs != settings);
            names.extend(differs.then(|| format!("settings of {name}")));
        }
        names
    }
}

impl Header {
    /// A round that a page may quote: every server, all trials, and enough of them for intervals.
    pub fn is_headline(&self) -> bool {
        let settings = &self.settings;
        settings.conditions.mode != Mode::Quick
            && !settings.is_null
            && !settings.is_own()
            && settings.filters.is_empty()
            && self.finished.is_some()
            && settings.experiments().any(|(one, _)| one.is_standard())
            && settings.experiments().filter(|(one, _)| one.is_standard()).count() > 2
    }

    /// A line for above its tables.
    pub fn describe(&self, folder: &Path) -> String {
        let settings = &self.settings;
        let state = if self.finished.is_some() { "" } else { ", not finished" };
        format!(
            "round {}: started {}{state}, {} servers, {} trials, {}",
            folder.display(),
            self.started,
            self.servers.len(),
            settings.trials,
            self.commits()
        )
    }

    /// The commits of the harness that have taken it.
    pub fn commits(&self) -> String {
        let mut resumed: Vec<&str> = self.resumed.iter().map(|one| one.commit.as_str()).collect();
        resumed.dedup();
        let resumed = if resumed.is_empty() { String::new() } else { format!(", resumed at {}", resumed.join(", ")) };
        format!("commit {}{resumed}", self.environment.commit)
    }
}
