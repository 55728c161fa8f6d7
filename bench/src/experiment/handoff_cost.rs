//! What a way to keep workers from blocking each other costs when nothing blocks: closed loops of few and of many connections.
//!
//! With one connection a server sleeps between any two requests, so this is where each wake-up shows; with a thousand, work is always there.

use super::closed_loop::{CPU, ClosedLoop, Way};
use super::contract::{Choices, Experiment, trials};
use crate::catalog::Row;
use crate::measure::{Mode, Session, WARM_CONNECTIONS, learn};
use crate::metrics::{Family, Metric, Percentile, Reading, Role, Unit, Value};
use crate::report::{self, Cell, Figure, Places, Scale, Table, View};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Numbers of connections.
const CONNECTIONS: [usize; 6] = [1, 4, 16, 64, 256, 1024];
/// Those of a quick round.
const QUICK: [usize; 3] = [1, 64, 1024];

const WAITS: Family = Family::new("waits", Unit::PerRequest, Role::Detail);
const PER_S: Family = Family::new("per_s", Unit::PerSecond, Role::Detail).more_is_better();

/// The loops, by number of connections.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HandoffCost {
    loops: Vec<ClosedLoop>,
}

/// How it measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Numbers of connections, ascending.
    connections: Vec<usize>,
    /// Length of each window, in ms; longer for slow servers.
    window_ms: u64,
}

impl Experiment for HandoffCost {
    const NAME: &'static str = "handoff-cost";
    const KEEPS_DRIVER_BUSY: bool = true;
    type Settings = Settings;

    fn settings(mode: Mode, _: &Choices) -> Settings {
        match mode {
            Mode::Quick => Settings { connections: QUICK.to_vec(), window_ms: 500 },
            _ => Settings { connections: CONNECTIONS.to_vec(), window_ms: 1000 },
        }
    }

    fn seconds(settings: &Settings) -> f64 {
        0.5 + settings.connections.len() as f64 * (settings.window_ms as f64 / 1e3 + 0.2)
    }

    fn run(session: &Session<'_>, settings: &Settings) -> Result<Self> {
        let mut running = session.start()?;
        let target = learn(&mut running, "/")?;
        let _driver = session.placement.enter_driver(false);
        let per_s = session.warm_up(&target, WARM_CONNECTIONS)?;
        let window = Duration::from_millis(settings.window_ms);
        let mut loops = Vec::new();
        for connections in settings.connections.iter().copied() {
            let name = connections.to_string();
            let way = Way { name: &name, target: &target, connections, depth: 1, is_fresh: false, per_s, window };
            let one = way.run(session, &running);
            loops.push(running.explain(one)?);
        }
        Ok(HandoffCost { loops })
    }

    fn read(&self, _: &Settings, percentile: Percentile) -> Result<Vec<Reading>> {
        let mut readings = Vec::new();
        for one in &self.loops {
            let valid = |value: Value| one.invalid.clone().map_or(Ok(value), Err);
            let at = |family: Family| family.at(Self::NAME, one.way.clone());
            readings.push((at(percentile.family()), valid(one.latency.response_ms(percentile)?)));
            readings.push((at(CPU), valid(Value::Exact(one.cpu_us))));
            readings.push((at(WAITS), valid(Value::Exact(one.waits))));
            let rate = if one.is_driver_bound { Value::AtLeast(one.per_s) } else { Value::Exact(one.per_s) };
            readings.push((at(PER_S), valid(rate)));
        }
        Ok(readings)
    }

    fn families(percentile: Percentile) -> Vec<Family> {
        vec![percentile.family(), CPU]
    }

    fn tables(settings: &Settings, view: &View<'_>) -> Vec<Table> {
        let of = |name: &'static str, what: &str, family: &Family| {
            let metric = |connections: &usize| -> Metric { family.clone().at(Self::NAME, connections.to_string()) };
            let columns = settings.connections.iter().map(|count| report::Column::number(format!("c={count}"))).collect();
            let cells =
                |row: &Row| -> Vec<Cell> { settings.connections.iter().map(|count| view.cell(row, &metric(count))).collect() };
            let title = format!(
                "{what} with c connections that are never idle and nothing that blocks; W = {}, placement split, {}",
                view.conditions.threads,
                trials(view)
            );
            view.table(name, title, columns, cells)
        };
        let mut waits = of("handoff-waits", "Times that a thread waits, and so wake-ups, for each request", &WAITS);
        waits.notes.extend(view.invalid_trials(Self::NAME));
        vec![
            of("handoff-p99", &format!("Response time of / in ms ({})", view.percentile), &view.percentile.family()),
            of("handoff-cpu", "Processor time of the server for each request, in µs,", &CPU),
            waits,
        ]
    }

    fn figures(settings: &Settings, view: &View<'_>) -> Vec<Figure> {
        let of = |name: &str, title: &str, scale: Scale, family: Family| {
            let x = Places::even("connections that are never idle", &settings.connections);
            view.figure(name, title, x, scale, |at| family.clone().at(Self::NAME, settings.connections[at].to_string()))
        };
        let response = Scale::response_time(view.percentile);
        [
            of("handoff-p99", "Response time of / when nothing blocks", response, view.percentile.family()),
            of("handoff-cpu", "Processor time of the server for each request", Scale::linear("processor time", "µs"), CPU),
            of("handoff-waits", "Waits of a thread for each request", Scale::linear("waits", ""), WAITS),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
