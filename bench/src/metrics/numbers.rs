//! All cells of a round, by server and metric: where tables, comparisons and exports start.

use super::{Cell, Metric, Role, Summary, Value};
use std::collections::BTreeMap;

/// What one trial says of one metric; the reason where it is invalid.
pub type Reading = (Metric, Result<Value, String>);

/// All cells of a round.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    servers: BTreeMap<String, OfServer>,
}

#[derive(Debug, Clone, Default)]
struct OfServer {
    /// In the order in which they were first read, which is the order of the experiments.
    cells: Vec<(Metric, Cell)>,
    /// Metric to position.
    index: BTreeMap<(&'static str, String), usize>,
    /// Reasons of trials that were invalid as a whole, by experiment.
    failed: BTreeMap<String, Vec<String>>,
}

impl Numbers {
    /// Adds the readings of one trial.
    pub fn add(&mut self, server: &str, readings: impl IntoIterator<Item = Reading>) {
        let of_server = self.servers.entry(server.to_owned()).or_default();
        for (metric, value) in readings {
            let cell = of_server.cell_mut(metric);
            match value {
                Ok(value) => cell.values.push(value),
                Err(reason) => cell.invalid.push(reason),
            }
        }
    }

    /// Adds a trial that was invalid as a whole.
    pub fn fail(&mut self, server: &str, experiment: &str, reason: &str) {
        let of_server = self.servers.entry(server.to_owned()).or_default();
        of_server.failed.entry(experiment.to_owned()).or_default().push(reason.to_owned());
    }

    /// A cell, if any trial said something of it.
    pub fn cell(&self, server: &str, metric: &Metric) -> Option<&Cell> {
        let of_server = self.servers.get(server)?;
        let index = of_server.index.get(&(metric.experiment, metric.to_string()))?;
        Some(&of_server.cells[*index].1)
    }

    /// The summary of a cell.
    pub fn summary(&self, server: &str, metric: &Metric) -> Option<Summary> {
        self.cell(server, metric)?.summary()
    }

    /// The valid values of a cell.
    pub fn values(&self, server: &str, metric: &Metric) -> &[Value] {
        self.cell(server, metric).map_or(&[], |cell| &cell.values)
    }

    /// Reasons of an experiment's trials that were invalid as a whole.
    pub fn failures(&self, server: &str, experiment: &str) -> &[String] {
        self.servers.get(server).and_then(|of_server| of_server.failed.get(experiment)).map_or(&[], Vec::as_slice)
    }

    /// All cells of a server.
    pub fn of_server(&self, server: &str) -> impl Iterator<Item = &(Metric, Cell)> {
        self.servers.get(server).into_iter().flat_map(|of_server| &of_server.cells)
    }

    /// Puts into each value of a cell what is known of it; the reason where that is nothing.
    pub fn correct(&mut self, server: &str, metric: &Metric, known: impl Fn(Value) -> Result<Value, String>) {
        let Some(of_server) = self.servers.get_mut(server) else { return };
        let Some(index) = of_server.index.get(&(metric.experiment, metric.to_string())) else { return };
        let cell = &mut of_server.cells[*index].1;
        for value in std::mem::take(&mut cell.values) {
            match known(value) {
                Ok(value) => cell.values.push(value),
                Err(reason) => cell.invalid.push(reason),
            }
        }
    }

    /// The same cells without a word in their places, such as a length that was measured and differs from round to round.
    pub fn without(&self, word: &str) -> Numbers {
        let mut numbers = self.clone();
        for of_server in numbers.servers.values_mut() {
            for (metric, _) in &mut of_server.cells {
                metric.place = metric.place.replace(word, "");
            }
            let keys = of_server.cells.iter().enumerate().map(|(at, (metric, _))| ((metric.experiment, metric.to_string()), at));
            of_server.index = keys.collect();
        }
        numbers
    }

    /// Names of all servers.
    pub fn servers(&self) -> impl Iterator<Item = &str> {
        self.servers.keys().map(String::as_str)
    }
}

impl OfServer {
    fn cell_mut(&mut self, metric: Metric) -> &mut Cell {
        let key = (metric.experiment, metric.to_string());
        let next = self.cells.len();
        let index = *self.index.entry(key).or_insert(next);
        if index == next {
            let is_ordinal = metric.family.role == Role::Threshold;
            self.cells.push((metric, Cell { is_ordinal, ..Cell::default() }));
        }
        &mut self.cells[index].1
    }
}
