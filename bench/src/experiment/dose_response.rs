//! The longest that a handler may block: the same work cut into pieces of different length. At every length the blockers take the same share of
//! one processor, so the only difference is how long each of them holds its thread.

use super::contract::{Choices, Experiment};
use super::stream::Stream;
use crate::catalog::Row;
use crate::measure::{Mode, Session, WARM_CONNECTIONS, learn};
use crate::metrics::{Family, Percentile, Reading, Role, Unit, Value};
use crate::report::{self, Cell, Figure, Places, Scale, Table, View};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::time::Duration;

/// Lengths of a blocker, in ms.
const LENGTHS_MS: [f64; 8] = [0.1, 0.5, 1.0, 5.0, 10.0, 20.0, 50.0, 200.0];
/// Share of one processor that the blockers take.
const UTILISATION: f64 = 0.3;
/// Blockers in a window at least, on average.
const BLOCKERS: f64 = 10.0;
/// The p99 that is bearable while a handler blocks, in ms: unnoticed, and instant.
const BEARABLE_MS: [f64; 2] = [10.0, 100.0];
/// What tools take for too long, in ms: the slow polls of tokio-metrics, npm's `blocked`, long tasks in browsers, the slow callbacks of asyncio's
/// debug mode, Vert.x's checker of blocked threads.
const DETECTORS: [(f64, &str); 5] =
    [(0.05, "tokio-metrics"), (10.0, "blocked"), (50.0, "long task"), (100.0, "asyncio"), (2000.0, "Vert.x")];

const BEARABLE: Family = Family::new("bearable_ms", Unit::Ms, Role::Threshold).more_is_better();

/// One entry for each length, ascending; its name is the length in ms.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DoseResponse {
    lengths: Vec<Stream>,
}

/// How it measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Lengths of a blocker, in ms.
    lengths_ms: Vec<f64>,
    /// Shortest window, in ms.
    window_ms: u64,
}

impl Experiment for DoseResponse {
    const NAME: &'static str = "dose-response";
    type Settings = Settings;

    fn settings(_: Mode, _: &Choices) -> Settings {
        Settings { lengths_ms: LENGTHS_MS.to_vec(), window_ms: 1000 }
    }

    fn settings_of_schema_1(_: &Json, mode: Mode) -> Settings {
        Self::settings(mode, &Choices::default())
    }

    fn seconds(settings: &Settings) -> f64 {
        settings.lengths_ms.iter().map(|length| 0.6 + window(settings, *length).as_secs_f64()).sum::<f64>() + 1.0
    }

    fn run(session: &Session<'_>, settings: &Settings) -> Result<Self> {
        let mut running = session.start()?;
        let probe = learn(&mut running, "/")?;
        let warm = session.warm_up(&probe, WARM_CONNECTIONS);
        running.explain(warm)?;
        let mut lengths = Vec::new();
        for length_ms in &settings.lengths_ms {
            let blocker = learn(&mut running, &format!("/timer?ms={length_ms}&clock=cpu"))?;
            let _driver = session.placement.enter_driver(true);
            let name = length_ms.to_string();
            let found = Stream::run(session, &name, (&probe, &blocker), rate(*length_ms), window(settings, *length_ms));
            lengths.push(running.explain(found)?);
        }
        Ok(DoseResponse { lengths })
    }

    fn read(&self, _: &Settings, percentile: Percentile) -> Result<Vec<Reading>> {
        let mut readings = Vec::new();
        let mut ladder = Vec::new();
        for stream in &self.lengths {
            let response = stream.valid(stream.probes.response_ms(percentile)?);
            ladder.push((stream.name.parse::<f64>().unwrap_or(f64::NAN), response.clone()));
            readings.push((percentile.family().at(Self::NAME, format!("dose,{}", stream.name)), response));
        }
        readings.extend(
            BEARABLE_MS.map(|limit| (BEARABLE.at(Self::NAME, limit.to_string()), bearable(&ladder, limit).map(Value::Exact))),
        );
        Ok(readings)
    }

    fn families(percentile: Percentile) -> Vec<Family> {
        vec![BEARABLE, percentile.family()]
    }

    fn tables(settings: &Settings, view: &View<'_>) -> Vec<Table> {
        let mut columns: Vec<report::Column> =
            settings.lengths_ms.iter().map(|length| report::Column::number(format!("T={length}"))).collect();
        columns.extend(BEARABLE_MS.map(|limit| report::Column::number(format!("longest T for {limit} ms"))));
        let title = format!(
            "{} of / in ms beside requests that work for T ms each and together take {:.0} % of one processor; the longest T that keeps it within a limit",
            view.percentile,
            UTILISATION * 100.0
        );
        let family = view.percentile.family();
        let cells = |row: &Row| -> Vec<Cell> {
            let lengths = settings.lengths_ms.iter().map(|length| family.at(Self::NAME, format!("dose,{length}")));
            let bearable = BEARABLE_MS.map(|limit| BEARABLE.at(Self::NAME, limit.to_string()));
            lengths.chain(bearable).map(|metric| view.cell(row, &metric)).collect()
        };
        vec![view.table(Self::NAME, title, columns, cells)]
    }

    fn figures(settings: &Settings, view: &View<'_>) -> Vec<Figure> {
        let mark = |(ms, who): (f64, &str)| (ms.log10(), who.to_owned());
        let x = Places {
            marks: DETECTORS.into_iter().map(mark).collect(),
            ..Places::logarithmic("length of a blocking request (ms)", &settings.lengths_ms)
        };
        let title = format!(
            "{} of / beside requests that block for T and together take {:.0} % of one processor",
            view.percentile,
            UTILISATION * 100.0
        );
        let metric = |at: usize| view.percentile.family().at(Self::NAME, format!("dose,{}", settings.lengths_ms[at]));
        view.figure(Self::NAME, title, x, Scale::response_time(view.percentile), metric).into_iter().collect()
    }
}

fn rate(length_ms: f64) -> f64 {
    UTILISATION * 1e3 / length_ms
}

fn window(settings: &Settings, length_ms: f64) -> Duration {
    Duration::from_millis(settings.window_ms).max(Duration::from_secs_f64(BLOCKERS / rate(length_ms)))
}

/// The longest blockers beside which the percentile stays within the limit, as it does beside all that are shorter; 0 if there are none.
fn bearable(ladder: &[(f64, Result<Value, String>)], limit_ms: f64) -> Result<f64, String> {
    let mut longest = 0.0;
    for (length, response) in ladder {
        match response.clone()?.is_above(limit_ms) {
            Some(false) => longest = *length,
            Some(true) => break,
            None => return Err(format!("with T = {length} ms it is not known whether {limit_ms} ms were passed")),
        }
    }
    Ok(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bearable_blocker_is_the_last_before_the_limit_is_passed() {
        let ladder = [(0.1, 1.0), (1.0, 9.0), (5.0, 40.0), (10.0, 8.0), (50.0, 200.0)];
        let ladder = ladder.map(|(length, ms)| (length, Ok(Value::Exact(ms))));
        assert_eq!(bearable(&ladder, 10.0), Ok(1.0));
        assert_eq!(bearable(&ladder, 100.0), Ok(10.0));
        assert_eq!(bearable(&ladder, 0.5), Ok(0.0));
        assert!(bearable(&[(0.1, Err("lag".into()))], 10.0).is_err());
        assert!(bearable(&[(0.1, Ok(Value::AtLeast(5.0)))], 10.0).is_err());
    }
}
