//! The cost of a request: closed loops on a server core and a driver core; what counts is processor time per request.

use super::closed_loop::{CPU, ClosedLoop, Way};
use super::contract::{Choices, Column, Experiment};
use crate::catalog::{Blocking, Row, Server};
use crate::measure::{Mode, Session, WARM_CONNECTIONS, learn};
use crate::metrics::{Family, Metric, Percentile, Reading, Role, Unit, Value};
use crate::report::{self, Cell, Legend, Table, View};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::time::Duration;

/// Connections of each loop.
const CONNECTIONS: usize = 64;
/// Requests in flight on each connection of the pipelined loop.
const DEPTH: usize = 16;
/// A blocking request that does nothing: its extra cost over `/` is that of the way to the pool and back.
const NOTHING: &str = "/timer?ms=0";

/// The tag of the server without a runtime.
const FLOOR: &str = "floor";

const USER: Family = Family::new("user_us", Unit::Us, Role::Detail);
const PER_S: Family = Family::new("per_s", Unit::PerSecond, Role::Cost).more_is_better();
const OFFLOAD: Family = Family::new("offload_us", Unit::Us, Role::Detail);

/// The loops: `kept-alive`; `pipelined`; of servers that offload `offloaded`; in a thorough round `fresh`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Throughput {
    loops: Vec<ClosedLoop>,
}

/// How it measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Length of the window, in ms; longer for slow servers.
    window_ms: u64,
    /// Whether there is a pipelined loop.
    is_pipelined: bool,
    /// Whether the way to a pool and back is measured.
    offloads: bool,
    /// Whether there is a loop with a new connection for each request.
    is_fresh: bool,
}

impl Experiment for Throughput {
    const NAME: &'static str = "throughput";
    const IS_STANDARD: bool = true;
    const KEEPS_DRIVER_BUSY: bool = true;
    type Settings = Settings;

    fn settings(mode: Mode, _: &Choices) -> Settings {
        let is_quick = mode == Mode::Quick;
        Settings {
            window_ms: if is_quick { 500 } else { 1000 },
            is_pipelined: !is_quick,
            offloads: !is_quick,
            is_fresh: mode == Mode::Thorough,
        }
    }

    fn settings_of_schema_1(old: &Json, mode: Mode) -> Settings {
        let standard = Self::settings(mode, &Choices::default());
        Settings {
            window_ms: old["throughput_ms"].as_u64().unwrap_or(standard.window_ms),
            is_pipelined: standard.is_pipelined && old["is_pipelined"].as_bool().unwrap_or(true),
            ..standard
        }
    }

    fn seconds(settings: &Settings) -> f64 {
        let loops = 1 + u64::from(settings.is_pipelined);
        0.5 + (settings.window_ms * loops) as f64 / 700.0
    }

    fn reduce(settings: &mut Settings) -> Option<String> {
        std::mem::take(&mut settings.is_pipelined).then(|| "pipelined throughput".into())
    }

    fn run(session: &Session<'_>, settings: &Settings) -> Result<Self> {
        let mut running = session.start()?;
        let target = learn(&mut running, "/")?;
        let _driver = session.placement.enter_driver(false);
        let per_s = session.warm_up(&target, WARM_CONNECTIONS)?;
        let mut ways = vec![("kept-alive", &target, 1, false)];
        if settings.is_pipelined {
            ways.push(("pipelined", &target, DEPTH, false));
        }
        let offloads = settings.offloads && offloads(session.server);
        let nothing = if offloads { Some(learn(&mut running, NOTHING)?) } else { None };
        ways.extend(nothing.as_ref().map(|nothing| ("offloaded", nothing, 1, false)));
        if settings.is_fresh {
            ways.push(("fresh", &target, 1, true));
        }
        let mut loops = Vec::new();
        let window = Duration::from_millis(settings.window_ms);
        for (way, target, depth, is_fresh) in ways {
            let way = Way { name: way, target, connections: CONNECTIONS, depth, is_fresh, per_s, window };
            let one = way.run(session, &running);
            loops.push(running.explain(one)?);
        }
        Ok(Throughput { loops })
    }

    fn read(&self, _: &Settings, _: Percentile) -> Result<Vec<Reading>> {
        let mut readings = Vec::new();
        for one in &self.loops {
            let valid = |value: Value| one.invalid.clone().map_or(Ok(value), Err);
            let at = |family: Family| family.at(Self::NAME, one.way.clone());
            readings.push((at(CPU), valid(Value::Exact(one.cpu_us))));
            readings.push((at(USER), valid(Value::Exact(one.cpu_us * one.user))));
            let rate = if one.is_driver_bound { Value::AtLeast(one.per_s) } else { Value::Exact(one.per_s) };
            readings.push((at(PER_S), valid(rate)));
        }
        readings.extend(self.offload_us().map(|cost| (OFFLOAD.at(Self::NAME, ""), cost.map(Value::Exact))));
        Ok(readings)
    }

    fn families(_: Percentile) -> Vec<Family> {
        vec![CPU, PER_S]
    }

    fn headline(_: &Settings, _: &View<'_>) -> Vec<Column> {
        vec![Column {
            column: report::Column::number("CPU µs"),
            cell: Box::new(|view, row| view.cell(row, &CPU.at(Self::NAME, "kept-alive"))),
        }]
    }

    fn tables(settings: &Settings, view: &View<'_>) -> Vec<Table> {
        let mut ways = vec![("kept-alive", "")];
        ways.extend(settings.is_pipelined.then_some(("pipelined", "x16 ")));
        ways.extend(settings.is_fresh.then_some(("fresh", "fresh ")));
        let families = [(CPU, "CPU µs"), (USER, "user µs"), (PER_S, "req/s")];
        let mut metrics: Vec<_> = ways
            .iter()
            .flat_map(|(way, head)| families.clone().map(|(family, name)| (format!("{head}{name}"), family.at(Self::NAME, *way))))
            .collect();
        metrics.extend(settings.offloads.then(|| ("offload µs".into(), OFFLOAD.at(Self::NAME, ""))));
        let mut columns: Vec<report::Column> = metrics.iter().map(|(head, _)| report::Column::number(head.clone())).collect();
        let floors = floors(view, &ways);
        columns.extend(floors.iter().map(|(head, ..)| report::Column::number(head.clone())));
        let title = "Cost of a request: server processor time, kept alive and 16 pipelined (placement split), and the extra cost of one that goes to a pool";
        let cells = |row: &Row| -> Vec<Cell> {
            let distance = |(_, metric, floor): &(String, Metric, f64)| {
                let median = view.median(row, metric);
                median.map_or(Cell::NOTHING, |value| Cell::of(value.map(|cost| cost / floor), Unit::Ratio))
            };
            metrics.iter().map(|(_, metric)| view.cell(row, metric)).chain(floors.iter().map(distance)).collect()
        };
        let mut table = view.table("costs", title, columns, cells);
        let at_least = ">=: the driver was the limit, so the server can do more; its CPU time per request is still valid";
        table.legend.push(Legend { mark: "^>= ", text: at_least.into() });
        if !floors.is_empty() {
            table.notes.push("floor: CPU µs divided by those of the bare event loop, which has no runtime".into());
        }
        vec![table]
    }
}

/// The columns of the distance to the server without a runtime: head, metric, and what that server needs.
fn floors(view: &View<'_>, ways: &[(&str, &str)]) -> Vec<(String, Metric, f64)> {
    let Some(floor) = view.rows.iter().find(|row| row.tags.iter().any(|tag| tag == FLOOR)) else { return Vec::new() };
    let distance = |(way, head): &(&str, &str)| {
        let metric = CPU.at(Throughput::NAME, *way);
        let least = view.median(floor, &metric)?.exact().filter(|cost| *cost > 0.0)?;
        Some((format!("{head}floor"), metric, least))
    };
    ways.iter().filter_map(distance).collect()
}

impl Throughput {
    /// The extra cost over `/` of a blocking request that does nothing: the way to the pool and back.
    fn offload_us(&self) -> Option<Result<f64, String>> {
        let of = |way: &str| self.loops.iter().find(|one| one.way == way);
        let (there, plain) = (of("offloaded")?, of("kept-alive")?);
        let invalid = there.invalid.clone().or_else(|| plain.invalid.clone());
        Some(invalid.map_or(Ok(there.cpu_us - plain.cpu_us), Err))
    }
}

/// A server that refuses what its pool has no room for would have most of this loop refused.
fn offloads(server: &Server) -> bool {
    server.blocking != Blocking::Inline && !server.unsupported.contains_key("offload")
}
