//! Functions that look harmless, each in turn, a few times a second: their own time, and what every other client feels meanwhile.

use super::contract::{Choices, Experiment};
use super::stream::Stream;
use crate::catalog::Row;
use crate::http::Request;
use crate::measure::{Mode, Session, WARM_CONNECTIONS, learn, learn_request};
use crate::metrics::{Family, Percentile, Reading, Role, Unit};
use crate::report::{self, Cell, Figure, Places, Scale, Table, View};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Requests per second.
const RATE: f64 = 5.0;
/// Records in the document that is read: it must not be longer than a body may be.
const RECORDS: usize = 5000;
/// The functions.
const FUNCTIONS: [&str; 5] = ["stringify", "parse", "sort", "pbkdf2", "scrypt"];

const FUNCTION: Family = Family::new("function_ms", Unit::Ms, Role::Cost);
const MAX: Family = Family::new("max_ms", Unit::Ms, Role::Detail);

/// One entry for each function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BlockingFunctions {
    functions: Vec<Stream>,
}

/// How it measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Window of each function, in ms.
    window_ms: u64,
}

impl Experiment for BlockingFunctions {
    const NAME: &'static str = "blocking-functions";
    type Settings = Settings;

    fn settings(_: Mode, _: &Choices) -> Settings {
        Settings { window_ms: 2000 }
    }

    fn seconds(settings: &Settings) -> f64 {
        FUNCTIONS.len() as f64 * (0.6 + settings.window_ms as f64 / 1e3) + 1.0
    }

    fn run(session: &Session<'_>, settings: &Settings) -> Result<Self> {
        let mut running = session.start()?;
        let probe = learn(&mut running, "/")?;
        let warm = session.warm_up(&probe, WARM_CONNECTIONS);
        running.explain(warm)?;
        let window = Duration::from_millis(settings.window_ms);
        let mut functions = Vec::new();
        for name in FUNCTIONS {
            if session.server.unsupported.contains_key(name) {
                continue;
            }
            let request = request(name, &running.address.to_string());
            let function = learn_request(&mut running, name, &request)?;
            let _driver = session.placement.enter_driver(true);
            let stream = Stream::run(session, name, (&probe, &function), RATE, window);
            functions.push(running.explain(stream)?);
        }
        Ok(BlockingFunctions { functions })
    }

    fn read(&self, _: &Settings, percentile: Percentile) -> Result<Vec<Reading>> {
        let mut readings = Vec::new();
        for stream in &self.functions {
            let name = &stream.name;
            let beside = |family: Family| family.at(Self::NAME, format!("function,{name}"));
            readings.push((beside(percentile.family()), stream.valid(stream.probes.response_ms(percentile)?)));
            readings.push((beside(MAX), stream.probes.max_ms().and_then(|max| stream.valid(max))));
            readings.push((FUNCTION.at(Self::NAME, name.clone()), stream.valid(stream.requests.median_ms()?)));
        }
        Ok(readings)
    }

    fn families(percentile: Percentile) -> Vec<Family> {
        vec![FUNCTION, percentile.family()]
    }

    fn tables(_: &Settings, view: &View<'_>) -> Vec<Table> {
        let columns = FUNCTIONS
            .iter()
            .flat_map(|name| [report::Column::number(format!("{name} ms")), report::Column::number(format!("/ beside {name}"))])
            .collect();
        let title = format!(
            "Blocking functions, {RATE} a second each: how long one takes (median, ms), and {} of / meanwhile in ms",
            view.percentile
        );
        let cells = |row: &Row| -> Vec<Cell> {
            let pair = |name: &str| {
                let beside = view.percentile.family().at(Self::NAME, format!("function,{name}"));
                [view.cell(row, &FUNCTION.at(Self::NAME, name)), graded(view.cell(row, &beside))]
            };
            FUNCTIONS.iter().flat_map(|name| pair(name)).collect()
        };
        vec![view.table(Self::NAME, title, columns, cells)]
    }

    fn figures(_: &Settings, view: &View<'_>) -> Vec<Figure> {
        let metric = |at: usize| view.percentile.family().at(Self::NAME, format!("function,{}", FUNCTIONS[at]));
        let title = format!("{} of / beside {RATE} calls a second of a blocking function", view.percentile);
        let x = Places::even("", &FUNCTIONS);
        view.figure(Self::NAME, title, x, Scale::response_time(view.percentile), metric).into_iter().collect()
    }
}

fn request(name: &str, host: &str) -> Request {
    match name {
        "stringify" => Request::get(host, "/json/stringify"),
        "parse" => Request::post_json(host, "/json/parse", common::work::stringify(RECORDS)),
        other => Request::get(host, format!("/{other}")),
    }
}

/// A response time with the word for what people feel of it.
fn graded(cell: Cell) -> Cell {
    match cell.grade() {
        Some(grade) => Cell::words(format!("{} {}", cell.text(false, |_| None), grade.name())),
        None => cell,
    }
}
