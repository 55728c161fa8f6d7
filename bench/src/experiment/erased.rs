//! The form without types of an experiment, which the registry holds.

use super::contract::{Choices, Column, Experiment, Needs, Scene};
use crate::catalog::{Row, Server};
use crate::measure::{Kind, Mode, Session};
use crate::metrics::{Family, Metric, Percentile, Reading};
use crate::report::{Figure, Standing, Table, View};
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value as Json;
use std::marker::PhantomData;

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
    /// See [`Experiment::families`].
    fn families(&self, percentile: Percentile) -> Vec<Family>;
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

    fn families(&self, percentile: Percentile) -> Vec<Family> {
        E::families(percentile)
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
