//! The cost of a request: closed loops on a server core and a driver core; what counts is processor time per request.

use super::contract::{Choices, Column, Experiment};
use crate::catalog::{Blocking, Row, Server};
use crate::load::{Lane, Load, Observation, Target};
use crate::measure::{Latency, Mode, Session, WARM_CONNECTIONS, learn};
use crate::metrics::{Family, Percentile, Reading, Role, Unit, Value};
use crate::process::Running;
use crate::report::{self, Cell, Table, View};
use crate::validity;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::time::Duration;

/// Connections of each loop.
const CONNECTIONS: usize = 64;
/// Requests in flight on each connection of the pipelined loop.
const DEPTH: usize = 16;
/// Time before the window in which the loop gets going.
const WARMUP: Duration = Duration::from_millis(100);
/// Each slot in flight serves this many requests in a window, so that its ends do not matter, unless that takes longer than the second.
const TURNS: (f64, Duration) = (20.0, Duration::from_secs(5));
/// A blocking request that does nothing: its extra cost over `/` is that of the way to the pool and back.
const NOTHING: &str = "/timer?ms=0";

const CPU: Family = Family::new("cpu_us", Unit::Us, Role::Cost);
const USER: Family = Family::new("user_us", Unit::Us, Role::Detail);
const PER_S: Family = Family::new("per_s", Unit::PerSecond, Role::Cost).more_is_better();
const OFFLOAD: Family = Family::new("offload_us", Unit::Us, Role::Detail);

/// The loops: `kept-alive`; `pipelined`; of servers that offload `offloaded`; in a thorough round `fresh`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Throughput {
    loops: Vec<Loop>,
}

/// A closed loop.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Loop {
    /// How requests were sent.
    way: String,
    /// The reason why the numbers are invalid.
    invalid: Option<String>,
    /// Answers per second.
    per_s: f64,
    /// The server's processor time per request, in microseconds.
    cpu_us: f64,
    /// Share of it in user mode, from the kernel's ticks.
    user: f64,
    /// The driver had no time left, so the rate is a lower bound of what the server can do.
    is_driver_bound: bool,
    /// Share of the window that the driver spent on a processor.
    driver_load: f64,
    /// Times.
    latency: Latency,
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
            window_ms: if is_quick { 500 } else { 1500 },
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
        for (way, target, depth, is_fresh) in ways {
            let way = Way { name: way, target, depth, is_fresh, per_s };
            let one = way.run(session, settings, &running);
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
        let columns = metrics.iter().map(|(head, _)| report::Column::number(head.clone())).collect();
        let title = "Cost of a request: server processor time, kept alive and 16 pipelined (placement split), and the extra cost of one that goes to a pool";
        let cells = |row: &Row| -> Vec<Cell> { metrics.iter().map(|(_, metric)| view.cell(row, metric)).collect() };
        let mut table = view.table("costs", title, columns, cells);
        table
            .notes
            .push(">=: the driver was the limit, so the server can do more; its CPU time per request is still valid".into());
        vec![table]
    }
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

fn offloads(server: &Server) -> bool {
    server.blocking != Blocking::Inline
}

/// How a loop is measured.
struct Way<'w> {
    name: &'w str,
    target: &'w Target,
    depth: usize,
    is_fresh: bool,
    /// About as many answers a second as the server gives to `/`.
    per_s: f64,
}

impl Way<'_> {
    fn in_flight(&self) -> f64 {
        (CONNECTIONS * self.depth) as f64
    }

    fn load(&self, session: &Session<'_>, settings: &Settings) -> Load {
        let turns = Duration::from_secs_f64(TURNS.0 * self.in_flight() / self.per_s.max(1.0)).min(TURNS.1);
        let lane = Lane { is_fresh: self.is_fresh, ..Lane::closed(self.target.clone(), CONNECTIONS, self.depth) };
        Load {
            warmup: WARMUP,
            grace: Duration::from_secs(1),
            spin: session.placement.spin(),
            ..Load::of(vec![lane], turns.max(Duration::from_millis(settings.window_ms)), session.seed)
        }
    }

    fn run(&self, session: &Session<'_>, settings: &Settings, running: &Running) -> Result<Loop> {
        let mut cpu = Vec::new();
        let seen = session.driver.drive_marked(&self.load(session, settings), &mut || cpu.push(running.cpu()))?;
        let [before, after] = cpu[..] else { bail!("the loop did not reach the end of its window") };
        Ok(self.found(session, &seen, after.since(before)))
    }

    fn found(&self, session: &Session<'_>, seen: &Observation, (used, user): (Duration, f64)) -> Loop {
        let lane = &seen.lanes[0];
        let cores = session.placement.server_cores().len();
        let checked = validity::of_lane(seen, 0)
            .and_then(|()| validity::cpu_ceiling(used.as_secs_f64(), cores, seen.window.as_secs_f64()))
            // Fresh connections are also being opened, during which no request is in flight.
            .and_then(|()| if self.is_fresh { Ok(()) } else { validity::littles_law(lane, seen.window, self.in_flight()) });
        Loop {
            way: self.name.into(),
            invalid: checked.err().map(|failure| failure.to_string()),
            per_s: seen.per_second(0),
            cpu_us: used.as_secs_f64() * 1e6 / lane.answered.max(1) as f64,
            user,
            is_driver_bound: seen.driver_load > validity::SATURATED,
            driver_load: seen.driver_load,
            latency: Latency::of(lane),
        }
    }
}
