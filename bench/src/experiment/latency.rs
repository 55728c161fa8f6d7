//! Response times at shares of the highest rate that a server can answer.

use super::contract::{Choices, Experiment};
use crate::catalog::Row;
use crate::load::{Lane, Load};
use crate::measure::{Latency, Mode, Session, WARM_CONNECTIONS, learn};
use crate::metrics::{Family, Percentile, Reading, Role, Unit, Value};
use crate::report::{self, Cell, Figure, Places, Scale, Table, View};
use crate::validity;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Shares of the peak, in percent.
const SHARES: [u32; 4] = [50, 75, 90, 95];
/// Connections of the closed loop that finds the peak, and of the open loops below it.
const CONNECTIONS: (usize, usize) = (64, 256);
/// Length of each run.
const WINDOW: Duration = Duration::from_secs(1);

const PEAK: Family = Family::new("peak_per_s", Unit::PerSecond, Role::Cost).more_is_better();
const P50: Family = Family::new("p50_ms", Unit::Ms, Role::Detail);

/// The peak, and the times below it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LatencyBelowPeak {
    /// Answers per second of a closed loop.
    peak_per_s: f64,
    /// The driver had no time left at the peak, so the server can do more, and the shares are of what the driver can.
    is_driver_bound: bool,
    /// By ascending share.
    shares: Vec<Share>,
}

/// A share of the peak.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Share {
    /// In percent.
    percent: u32,
    /// The reason why the numbers are invalid.
    invalid: Option<String>,
    /// Times.
    latency: Latency,
}

/// How it measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Shares of the peak, in percent.
    shares: Vec<u32>,
}

impl Experiment for LatencyBelowPeak {
    const NAME: &'static str = "latency";
    const KEEPS_DRIVER_BUSY: bool = true;
    type Settings = Settings;

    fn settings(_: Mode, _: &Choices) -> Settings {
        Settings { shares: SHARES.to_vec() }
    }

    fn seconds(settings: &Settings) -> f64 {
        1.5 + 1.1 * settings.shares.len() as f64
    }

    fn run(session: &Session<'_>, settings: &Settings) -> Result<Self> {
        let mut running = session.start()?;
        let target = learn(&mut running, "/")?;
        // At these rates the driver never sleeps, so it has a core of its own instead of a priority.
        let _driver = session.placement.enter_driver(false);
        let warm = session.warm_up(&target, WARM_CONNECTIONS);
        running.explain(warm)?;
        let load = |lane| Load {
            warmup: Duration::from_millis(100),
            spin: session.placement.spin(),
            ..Load::of(vec![lane], WINDOW, session.seed)
        };
        let peak = session.driver.drive(&load(Lane::closed(target.clone(), CONNECTIONS.0, 1)));
        let peak = running.explain(peak)?;
        let peak_per_s = peak.per_second(0);
        let mut shares = Vec::new();
        for percent in &settings.shares {
            let rate = peak_per_s * f64::from(*percent) / 100.0;
            let lane = Lane::open(target.clone(), CONNECTIONS.1, rate, true);
            let found = session.until_valid(&load(lane), validity::of_all);
            let (seen, invalid) = running.explain(found)?;
            shares.push(Share { percent: *percent, invalid, latency: Latency::of(&seen.lanes[0]) });
        }
        Ok(LatencyBelowPeak { peak_per_s, is_driver_bound: peak.driver_load > validity::SATURATED, shares })
    }

    fn read(&self, _: &Settings, percentile: Percentile) -> Result<Vec<Reading>> {
        let peak = if self.is_driver_bound { Value::AtLeast(self.peak_per_s) } else { Value::Exact(self.peak_per_s) };
        let mut readings = vec![(PEAK.at(Self::NAME, ""), Ok(peak))];
        for share in &self.shares {
            let at = |family: Family| family.at(Self::NAME, format!("share,{}", share.percent));
            let valid = |value: Value| share.invalid.clone().map_or(Ok(value), Err);
            if percentile.family().name != P50.name {
                readings.push((at(P50), valid(share.latency.median_ms()?)));
            }
            readings.push((at(percentile.family()), valid(share.latency.response_ms(percentile)?)));
        }
        Ok(readings)
    }

    fn families(percentile: Percentile) -> Vec<Family> {
        vec![PEAK, percentile.family()]
    }

    fn tables(settings: &Settings, view: &View<'_>) -> Vec<Table> {
        let mut columns = vec![report::Column::number("peak req/s")];
        for percent in &settings.shares {
            columns.push(report::Column::number(format!("p50 {percent} %")));
            columns.push(report::Column::number(format!("{} {percent} %", view.percentile)));
        }
        let title = "Response time of / in ms at shares of the highest rate, on one core, with random arrivals (>=: the driver was the limit, and the shares are of what it can do)";
        let cells = |row: &Row| -> Vec<Cell> {
            let mut cells = vec![view.cell(row, &PEAK.at(Self::NAME, ""))];
            for percent in &settings.shares {
                let place = format!("share,{percent}");
                cells.push(view.cell(row, &P50.at(Self::NAME, place.clone())));
                cells.push(view.cell(row, &view.percentile.family().at(Self::NAME, place)));
            }
            cells
        };
        vec![view.table(Self::NAME, title, columns, cells)]
    }

    fn figures(settings: &Settings, view: &View<'_>) -> Vec<Figure> {
        let x = Places::even("% of the highest rate", &settings.shares);
        let metric = |at: usize| view.percentile.family().at(Self::NAME, format!("share,{}", settings.shares[at]));
        let title = "Response time of / at shares of the highest rate, on one core";
        view.figure(Self::NAME, title, x, Scale::response_time(view.percentile), metric).into_iter().collect()
    }
}
