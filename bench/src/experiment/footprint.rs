//! The weight of a server: binary, time until ready, memory and threads; idle, and with idle connections.

use super::contract::{Choices, Column, Experiment};
use crate::catalog::Row;
use crate::console::interrupt;
use crate::http::{Client, get};
use crate::measure::{Mode, Session, learn, ms};
use crate::metrics::{Family, Percentile, Reading, Role, Unit, Value};
use crate::process::{Running, deploy::package};
use crate::report::{self, Cell, Figure, Places, Scale, Table, View};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

const BINARY: Family = Family::new("binary_mib", Unit::Mib, Role::Detail);
const READY: Family = Family::new("ready_ms", Unit::Ms, Role::Cost);
const RSS: Family = Family::new("idle_rss_mib", Unit::Mib, Role::Detail);
const PSS: Family = Family::new("idle_pss_mib", Unit::Mib, Role::Cost);
const THREADS: Family = Family::new("threads", Unit::Count, Role::Detail);
const CONNECTION: Family = Family::new("connection_kib", Unit::Kib, Role::Cost);
const CONNECTIONS: Family = Family::new("idle_connections", Unit::Count, Role::Detail).more_is_better();

/// Connections that are opened before the first of them is answered.
const AT_ONCE: usize = 32;

/// The weight of one process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Footprint {
    /// Size of the binary, in bytes; `None` if an interpreter runs the program.
    binary_bytes: Option<u64>,
    /// From the start of the process until it said that it is ready, in ms.
    until_ready_ms: f64,
    /// With no connection but the one that asked once.
    idle: Weight,
    /// With idle connections, by ascending number.
    levels: Vec<Weight>,
    /// The reason why the levels end early.
    cap: Option<String>,
    /// Idle connections in the end; `None` in the oldest rounds.
    #[serde(default)]
    reached: Option<usize>,
}

/// Memory of all processes of the server, and their threads.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Weight {
    /// Idle connections.
    connections: usize,
    /// Resident, each process by itself, in bytes.
    rss_bytes: u64,
    /// Resident, shared memory counted once, in bytes.
    pss_bytes: u64,
    /// Threads.
    threads: u64,
}

/// How it measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Numbers of idle connections.
    idle: Vec<usize>,
}

impl Experiment for Footprint {
    const NAME: &'static str = "footprint";
    const IS_STANDARD: bool = true;
    const IS_TIMELESS: bool = true;
    type Settings = Settings;

    fn settings(mode: Mode, _: &Choices) -> Settings {
        Settings { idle: if mode == Mode::Quick { vec![1000] } else { vec![10, 100, 1000, 10_000] } }
    }

    fn settings_of_schema_1(old: &Json, mode: Mode) -> Settings {
        serde_json::from_value(old.clone()).unwrap_or_else(|_| Self::settings(mode, &Choices::default()))
    }

    fn seconds(settings: &Settings) -> f64 {
        0.5 + settings.idle.iter().sum::<usize>() as f64 / 7000.0
    }

    fn run(session: &Session<'_>, settings: &Settings) -> Result<Self> {
        let mut running = session.start()?;
        learn(&mut running, "/")?;
        let idle = weigh(&running, 0);
        let mut clients = Vec::new();
        let (mut levels, mut cap) = (Vec::new(), None);
        for connections in &settings.idle {
            interrupt::check()?;
            if let Err(error) = fill(&mut clients, *connections, &running) {
                cap = Some(format!("{error:#}{}", running.last_words()));
                break;
            }
            levels.push(weigh(&running, *connections));
        }
        let binary_bytes = package::size(session.server)?;
        let reached = Some(clients.len());
        Ok(Footprint { reached, binary_bytes, until_ready_ms: ms(running.until_ready), idle, levels, cap })
    }

    fn read(&self, _: &Settings, _: Percentile) -> Result<Vec<Reading>> {
        let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
        let most = self.levels.last().map_or(0, |level| level.connections);
        let mut values = vec![
            (READY, self.until_ready_ms),
            (RSS, mib(self.idle.rss_bytes)),
            (PSS, mib(self.idle.pss_bytes)),
            (THREADS, self.idle.threads as f64),
        ];
        values.extend(self.binary_bytes.map(|bytes| (BINARY, mib(bytes))));
        values.extend(self.per_connection().map(|bytes| (CONNECTION, bytes / 1024.0)));
        // A server that allows no more is a result; the tables say what it said.
        values.push((CONNECTIONS, self.reached.unwrap_or(most) as f64));
        Ok(values.into_iter().map(|(family, value)| (family.at(Self::NAME, ""), Ok(Value::Exact(value)))).collect())
    }

    fn families(_: Percentile) -> Vec<Family> {
        vec![READY, PSS, CONNECTION]
    }

    fn headline(_: &Settings, _: &View<'_>) -> Vec<Column> {
        let column = |head: &str, family: Family, is_wide: bool| {
            let column = report::Column::number(head);
            Column {
                column: if is_wide { column.wide() } else { column },
                cell: Box::new(move |view, row| view.cell(row, &family.at(Self::NAME, ""))),
            }
        };
        vec![column("MiB", PSS, false), column("KiB/conn", CONNECTION, false), column("binary MiB", BINARY, true)]
    }

    fn tables(_: &Settings, view: &View<'_>) -> Vec<Table> {
        let columns =
            [(READY, "ready ms"), (THREADS, "threads"), (RSS, "RSS MiB"), (CONNECTION, "KiB/conn"), (CONNECTIONS, "idle conns")];
        let heads = columns.iter().map(|(_, head)| report::Column::number(*head)).collect();
        let title = "Weight: time until ready, threads and memory when idle, and memory for each idle connection";
        let cells =
            |row: &Row| -> Vec<Cell> { columns.iter().map(|(family, _)| view.cell(row, &family.at(Self::NAME, ""))).collect() };
        vec![view.table("footprint", title, heads, cells)]
    }

    fn figures(_: &Settings, view: &View<'_>) -> Vec<Figure> {
        // Two units have two axes.
        let figure = |name: &str, title: &str, place: &str, label: &str, family: Family| {
            let scale = Scale::logarithmic(label, family.unit.word());
            view.figure(name, title, Places::even("", &[place]), scale, |_| family.clone().at(Self::NAME, ""))
        };
        let idle = figure("footprint-idle", "Memory of an idle server", "idle", "memory", PSS);
        let title = "Memory of each idle connection";
        let connection = figure("footprint-connection", title, "each connection", "memory", CONNECTION);
        idle.into_iter().chain(connection).collect()
    }

    fn remark(&self) -> Option<String> {
        self.cap.as_ref().map(|cap| format!("no more idle connections: {cap}"))
    }
}

impl Footprint {
    /// Memory per idle connection at the highest level, in bytes.
    fn per_connection(&self) -> Option<f64> {
        let last = self.levels.last()?;
        let more = last.pss_bytes.saturating_sub(self.idle.pss_bytes);
        Some(more as f64 / last.connections as f64)
    }
}

/// Opens connections up to that number, some at a time; each asks once and stays.
fn fill(clients: &mut Vec<Client>, connections: usize, running: &Running) -> Result<()> {
    let request = get("/");
    while clients.len() < connections {
        let mut opened = Vec::new();
        let mut open = || -> Result<()> {
            let mut client = Client::connect(running.address)?;
            client.send(&request)?;
            opened.push(client);
            Ok(())
        };
        let all = (0..AT_ONCE.min(connections - clients.len())).try_for_each(|_| open());
        // Only those that were answered count, and they do even if the next one was refused.
        for mut client in opened {
            if client.receive(false)?.closes {
                bail!("the server closes each connection after its answer, so none is idle");
            }
            clients.push(client);
        }
        all?;
    }
    Ok(())
}

fn weigh(running: &Running, connections: usize) -> Weight {
    let memory = running.memory();
    Weight { connections, rss_bytes: memory.rss, pss_bytes: memory.pss, threads: memory.threads }
}
