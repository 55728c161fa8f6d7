//! The interface of an experiment.

use crate::catalog::{Row, Server};
use crate::measure::{Conditions, Kind, Latency, Mode, Session, Timeline};
use crate::metrics::{Family, Metric, Percentile, Reading};
use crate::report::{self, Cell, Figure, Standing, Table, View};
use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

/// Choices of a user that several experiments share.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// Kinds of blockers; empty for those of the mode.
    pub kinds: Vec<Kind>,
    /// Connections of the probes; `None` for the usual number.
    pub connections: Option<usize>,
}

/// The cell of a row in a column.
pub type CellOf = Box<dyn Fn(&View<'_>, &Row) -> Cell>;

/// A column that an experiment adds to the headline.
pub struct Column {
    /// Head and width.
    pub column: report::Column,
    /// The cell of a row.
    pub cell: CellOf,
}

/// One step of a trial that can be looked at closely.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Step {
    /// The kind of blocker.
    pub kind: String,
    /// Blockers at a time.
    pub k: usize,
}

/// What a trial keeps besides its metrics, to be looked at.
pub enum Scene {
    /// Requests sent at the same instant: the time that each takes alone, and when each was done, in ms.
    Waterfall {
        /// Alone.
        length_ms: f64,
        /// Done, in order.
        finished_ms: Vec<f64>,
        /// When the server had read each of them; `None` in rounds before 2026-11-30, and where the kernel does not tell.
        read_ms: Option<Vec<f64>>,
    },
    /// A step beside blockers.
    Step {
        /// Which.
        step: Step,
        /// The length of a blocker, in ms.
        block_ms: f64,
        /// The reason why it is invalid.
        invalid: Option<String>,
        /// Response times of all its probes.
        times: Box<Latency>,
        /// Each request, where the trial kept them.
        timeline: Option<Timeline>,
    },
}

/// Preparations that an experiment needs besides its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// The supervisor of this workspace, built.
    Supervisor,
    /// The server, built with a client for PostgreSQL, where that is installed.
    Postgres,
}

/// An experiment: what it finds in one trial is a value of the implementing type.
pub trait Experiment: Serialize + DeserializeOwned + 'static {
    /// Its name, on the command line and on disk.
    const NAME: &'static str;
    /// A round that names no experiment includes it.
    const IS_STANDARD: bool = false;
    /// Only a user's own server and those beside it take part.
    const IS_OWN: bool = false;
    /// It keeps the driver busy all the time, which takes a core of its own.
    const KEEPS_DRIVER_BUSY: bool = false;
    /// Its results do not depend on time, so it need not be retried when the hypervisor takes processor time away.
    const IS_TIMELESS: bool = false;

    /// How it measures.
    type Settings: Serialize + DeserializeOwned + Clone;

    /// The settings of a mode.
    fn settings(mode: Mode, choices: &Choices) -> Self::Settings;

    /// The settings that a round of schema 1 kept in one list for all experiments.
    fn settings_of_schema_1(_old: &Json, mode: Mode) -> Self::Settings {
        Self::settings(mode, &Choices::default())
    }

    /// About how long a trial takes, in seconds.
    fn seconds(settings: &Self::Settings) -> f64;

    /// Leaves out what is missed least, so that a round ends in its time, and says what that was; `None` if nothing can be left out.
    fn reduce(_settings: &mut Self::Settings) -> Option<String> {
        None
    }

    /// The reason why a server cannot take part.
    fn unsupported(_server: &Server, _settings: &Self::Settings) -> Option<String> {
        None
    }

    /// What has to be prepared for a server.
    fn needs(_server: &Server, _settings: &Self::Settings) -> Needs {
        Needs::Nothing
    }

    /// One trial on fresh processes.
    ///
    /// # Errors
    /// A server that does not start or answers wrongly.
    fn run(session: &Session<'_>, settings: &Self::Settings) -> Result<Self>;

    /// The metrics of one trial.
    ///
    /// # Errors
    /// A histogram that cannot be read.
    fn read(&self, settings: &Self::Settings, percentile: Percentile) -> Result<Vec<Reading>>;

    /// The families of these metrics that are compared, which gates can name before anything is measured.
    fn families(percentile: Percentile) -> Vec<Family>;

    /// Its columns of the headline.
    fn headline(_settings: &Self::Settings, _view: &View<'_>) -> Vec<Column> {
        Vec::new()
    }

    /// The title of the headline, if this experiment is what a round is about.
    fn title(_settings: &Self::Settings, _view: &View<'_>) -> Option<String> {
        None
    }

    /// The place of a row in the headline; `None` if this experiment does not say.
    fn standing(_settings: &Self::Settings, _view: &View<'_>, _row: &Row) -> Option<Standing> {
        None
    }

    /// The criteria of ranks, each with the head of its column; the first that differs decides.
    fn criteria(_settings: &Self::Settings, _kind: Kind, _percentile: Percentile) -> Vec<(String, Metric)> {
        Vec::new()
    }

    /// Its own tables.
    fn tables(_settings: &Self::Settings, _view: &View<'_>) -> Vec<Table> {
        Vec::new()
    }

    /// Its figures, the one that says most first.
    fn figures(_settings: &Self::Settings, _view: &View<'_>) -> Vec<Figure> {
        Vec::new()
    }

    /// What one trial keeps to be looked at.
    fn scenes(self) -> Vec<Scene> {
        Vec::new()
    }

    /// Notes on single rows, from what one trial found.
    fn remark(&self) -> Option<String> {
        None
    }
}

/// Whether a server keeps launches.
///
/// # Errors
/// The reason why it does not.
pub(super) fn keeps_launches(server: &Server) -> Result<(), String> {
    match server.unsupported.get("launches") {
        None if server.own.is_some() => Err("only servers of this project keep launches".into()),
        None => Ok(()),
        Some(reason) => Err(reason.clone()),
    }
}

/// A mode, and W, as part of a title.
pub(super) fn conditions(view: &View<'_>) -> String {
    let Conditions { threads, placement, .. } = view.conditions;
    format!("W = {threads}, placement {placement}, {}", trials(view))
}

/// The number of trials, as part of a title.
pub(super) fn trials(view: &View<'_>) -> String {
    view.trials.to_string()
}
