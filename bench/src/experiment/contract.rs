//! The interface of an experiment, and its form without types, which the registry holds.

use crate::catalog::{Row, Server};
use crate::measure::{Conditions, Kind, Latency, Mode, Session, Timeline};
use crate::metrics::{Metric, Percentile, Reading};
use crate::report::{self, Cell, Figure, Standing, Table, View};
use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use std::marker::PhantomData;

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

/// An experiment without types.
pub trait Any: Sync {
    /// See [`Experiment::NAME`].
    fn name(&self) -> &'static str;
    /// See [`Experiment::IS_STANDARD`].
    fn is_standard(&self) -> bool;
    /// See [`Experiment::IS_OWN`].
    fn is_own(&self) -> bool;
    /// See [`Experiment::KEEPS_DRIVER_BUSY`].
    fn keeps_driver_busy(&self) -> bool;
    /// See [`Experiment::IS_TIMELESS`].
    fn is_timeless(&self) -> bool;
    /// See [`Experiment::settings`].
    fn settings(&self, mode: Mode, choices: &Choices) -> Json;
    /// See [`Experiment::settings_of_schema_1`].
    fn settings_of_schema_1(&self, old: &Json, mode: Mode) -> Json;
    /// See [`Experiment::seconds`].
    ///
    /// # Errors
    /// Settings that are not its own.
    fn seconds(&self, settings: &Json) -> Result<f64>;
    /// See [`Experiment::reduce`].
    ///
    /// # Errors
    /// Settings that are not its own.
    fn reduce(&self, settings: &mut Json) -> Result<Option<String>>;
    /// See [`Experiment::unsupported`].
    ///
    /// # Errors
    /// Settings that are not its own.
    fn unsupported(&self, server: &Server, settings: &Json) -> Result<Option<String>>;
    /// See [`Experiment::needs`].
    ///
    /// # Errors
    /// Settings that are not its own.
    fn needs(&self, server: &Server, settings: &Json) -> Result<Needs>;
    /// See [`Experiment::run`].
    ///
    /// # Errors
    /// As there.
    fn run(&self, session: &Session<'_>, settings: &Json) -> Result<Json>;
    /// See [`Experiment::read`].
    ///
    /// # Errors
    /// As there, and an outcome that is not its own.
    fn read(&self, outcome: &Json, settings: &Json, percentile: Percentile) -> Result<Vec<Reading>>;
    /// See [`Experiment::headline`].
    ///
    /// # Errors
    /// Settings that are not its own.
    fn headline(&self, settings: &Json, view: &View<'_>) -> Result<Vec<Column>>;
    /// See [`Experiment::title`].
    ///
    /// # Errors
    /// Settings that are not its own.
    fn title(&self, settings: &Json, view: &View<'_>) -> Result<Option<String>>;
    /// See [`Experiment::standing`].
    ///
    /// # Errors
    /// Settings that are not its own.
    fn standing(&self, settings: &Json, view: &View<'_>, row: &Row) -> Result<Option<Standing>>;
    /// See [`Experiment::criteria`].
    ///
    /// # Errors
    /// Settings that are not its own.
    fn criteria(&self, settings: &Json, kind: Kind, percentile: Percentile) -> Result<Vec<(String, Metric)>>;
    /// See [`Experiment::tables`].
    ///
    /// # Errors
    /// Settings that are not its own.
    fn tables(&self, settings: &Json, view: &View<'_>) -> Result<Vec<Table>>;
    /// See [`Experiment::figures`].
    ///
    /// # Errors
    /// Settings that are not its own.
    fn figures(&self, settings: &Json, view: &View<'_>) -> Result<Vec<Figure>>;
    /// See [`Experiment::scenes`].
    ///
    /// # Errors
    /// An outcome that is not its own.
    fn scenes(&self, outcome: &Json) -> Result<Vec<Scene>>;
    /// See [`Experiment::remark`].
    fn remark(&self, outcome: &Json) -> Option<String>;
}

/// The form without types of an experiment.
pub struct Erased<E>(PhantomData<fn() -> E>);

impl<E> Erased<E> {
    /// The only value.
    pub const NEW: Self = Erased(PhantomData);
}

impl<E: Experiment> Erased<E> {
    fn own(settings: &Json) -> Result<E::Settings> {
        serde_json::from_value(settings.clone()).with_context(|| format!("the settings of {}", E::NAME))
    }

    fn found(outcome: &Json) -> Result<E> {
        E::deserialize(outcome).with_context(|| format!("an outcome of {}", E::NAME))
    }
}

impl<E: Experiment> Any for Erased<E> {
    fn name(&self) -> &'static str {
        E::NAME
    }

    fn is_standard(&self) -> bool {
        E::IS_STANDARD
    }

    fn is_own(&self) -> bool {
        E::IS_OWN
    }

    fn keeps_driver_busy(&self) -> bool {
        E::KEEPS_DRIVER_BUSY
    }

    fn is_timeless(&self) -> bool {
        E::IS_TIMELESS
    }

    fn settings(&self, mode: Mode, choices: &Choices) -> Json {
        to_json(&E::settings(mode, choices))
    }

    fn settings_of_schema_1(&self, old: &Json, mode: Mode) -> Json {
        to_json(&E::settings_of_schema_1(old, mode))
    }

    fn seconds(&self, settings: &Json) -> Result<f64> {
        Ok(E::seconds(&Self::own(settings)?))
    }

    fn reduce(&self, settings: &mut Json) -> Result<Option<String>> {
        let mut own = Self::own(settings)?;
        let what = E::reduce(&mut own);
        *settings = to_json(&own);
        Ok(what)
    }

    fn unsupported(&self, server: &Server, settings: &Json) -> Result<Option<String>> {
        Ok(E::unsupported(server, &Self::own(settings)?))
    }

    fn needs(&self, server: &Server, settings: &Json) -> Result<Needs> {
        Ok(E::needs(server, &Self::own(settings)?))
    }

    fn run(&self, session: &Session<'_>, settings: &Json) -> Result<Json> {
        Ok(to_json(&E::run(session, &Self::own(settings)?)?))
    }

    fn read(&self, outcome: &Json, settings: &Json, percentile: Percentile) -> Result<Vec<Reading>> {
        Self::found(outcome)?.read(&Self::own(settings)?, percentile)
    }

    fn headline(&self, settings: &Json, view: &View<'_>) -> Result<Vec<Column>> {
        Ok(E::headline(&Self::own(settings)?, view))
    }

    fn title(&self, settings: &Json, view: &View<'_>) -> Result<Option<String>> {
        Ok(E::title(&Self::own(settings)?, view))
    }

    fn standing(&self, settings: &Json, view: &View<'_>, row: &Row) -> Result<Option<Standing>> {
        Ok(E::standing(&Self::own(settings)?, view, row))
    }

    fn criteria(&self, settings: &Json, kind: Kind, percentile: Percentile) -> Result<Vec<(String, Metric)>> {
        Ok(E::criteria(&Self::own(settings)?, kind, percentile))
    }

    fn tables(&self, settings: &Json, view: &View<'_>) -> Result<Vec<Table>> {
        Ok(E::tables(&Self::own(settings)?, view))
    }

    fn figures(&self, settings: &Json, view: &View<'_>) -> Result<Vec<Figure>> {
        Ok(E::figures(&Self::own(settings)?, view))
    }

    fn scenes(&self, outcome: &Json) -> Result<Vec<Scene>> {
        Ok(Self::found(outcome)?.scenes())
    }

    fn remark(&self, outcome: &Json) -> Option<String> {
        Self::found(outcome).ok()?.remark()
    }
}

/// Plain data always has a JSON form.
fn to_json(value: &impl Serialize) -> Json {
    serde_json::to_value(value).unwrap_or(Json::Null)
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
