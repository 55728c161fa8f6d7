//! Two browser tabs on `/timer`: requests sent at the same instant, each on its own connection, and when each was done.

use super::contract::{Choices, Column, Experiment, Scene};
use crate::load::{Drive, Lane, Load, Pace, Target};
use crate::measure::{Mode, Session, learn, ms};
use crate::metrics::{Family, Percentile, Reading, Role, Unit, Value};
use crate::report::{self, View, waterfall};
use crate::validity;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::time::Duration;

const FIRST: Family = Family::new("first_ms", Unit::Ms, Role::Latency);
const LAST: Family = Family::new("last_ms", Unit::Ms, Role::Latency);
/// The tabs of a first look, and the length of their requests in ms.
const FIRST_LOOK: (usize, u64) = (2, 500);

/// One entry for each number of tabs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TwoTabs {
    /// Length of each request, in ms.
    length_ms: u64,
    /// The waterfalls.
    falls: Vec<Fall>,
}

/// When each of the tabs had its answer, in ms since all were sent, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Fall {
    tabs: usize,
    finished_ms: Vec<f64>,
}

/// How it measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Numbers of tabs.
    tabs: Vec<usize>,
    /// Length of a tab's request, in ms.
    tab_ms: u64,
}

impl Experiment for TwoTabs {
    const NAME: &'static str = "two-tabs";
    const IS_STANDARD: bool = true;
    type Settings = Settings;

    fn settings(mode: Mode, _: &Choices) -> Settings {
        let is_quick = mode == Mode::Quick;
        Settings { tabs: if is_quick { vec![2] } else { vec![2, 8] }, tab_ms: 200 }
    }

    fn settings_of_schema_1(old: &Json, mode: Mode) -> Settings {
        serde_json::from_value(old.clone()).unwrap_or_else(|_| Self::settings(mode, &Choices::default()))
    }

    fn seconds(settings: &Settings) -> f64 {
        0.5 + settings.tabs.iter().map(|tabs| *tabs as f64 * settings.tab_ms as f64 / 1500.0).sum::<f64>()
    }

    fn reduce(settings: &mut Settings) -> Option<String> {
        (settings.tabs.len() > 1)
            .then(|| settings.tabs.drain(1..).map(|tabs| format!("{tabs} tabs")).collect::<Vec<_>>().join(", "))
    }

    fn run(session: &Session<'_>, settings: &Settings) -> Result<Self> {
        let mut running = session.start()?;
        let length_ms = settings.tab_ms;
        learn(&mut running, "/")?;
        let target = learn(&mut running, &format!("/timer?ms={length_ms}"))?;
        let _driver = session.placement.enter_driver(true);
        let open = |tabs: &usize| open_tabs(session.driver, &target, *tabs, length_ms, session.seed);
        let falls = settings.tabs.iter().map(|tabs| running.explain(open(tabs)));
        Ok(TwoTabs { length_ms, falls: falls.collect::<Result<_>>()? })
    }

    fn read(&self, _: &Settings, _: Percentile) -> Result<Vec<Reading>> {
        let ends = |fall: &Fall| {
            let at = |family: Family, end: Option<&f64>| {
                (
                    family.at(Self::NAME, fall.tabs.to_string()),
                    end.map(|ms| Value::Exact(*ms)).ok_or_else(|| "no tab ended".into()),
                )
            };
            [at(FIRST, fall.finished_ms.first()), at(LAST, fall.finished_ms.last())]
        };
        Ok(self.falls.iter().flat_map(ends).collect())
    }

    fn headline(settings: &Settings, _: &View<'_>) -> Vec<Column> {
        let tabs = settings.tabs.clone();
        let column = |tabs: usize, name: &str, family: Family| Column {
            column: report::Column::number(format!("{name} of {tabs} tabs ms")).wide(),
            cell: Box::new(move |view, row| view.cell(row, &family.at(Self::NAME, tabs.to_string()))),
        };
        tabs.into_iter().flat_map(|tabs| [column(tabs, "first", FIRST), column(tabs, "last", LAST)]).collect()
    }

    fn scenes(self) -> Vec<Scene> {
        let length_ms = self.length_ms as f64;
        self.falls.into_iter().map(|fall| Scene::Waterfall { length_ms, finished_ms: fall.finished_ms }).collect()
    }
}

/// A first look at several servers, as a picture of their waterfalls side by side.
pub fn picture(found: &[(&str, &Json)]) -> Option<String> {
    let read = |(name, outcome): &(&str, &Json)| {
        let tabs = TwoTabs::deserialize(*outcome).ok()?;
        let fall = tabs.falls.first()?;
        let title = format!("{name}: {} tabs on /timer?ms={}", fall.tabs, tabs.length_ms);
        Some((title, tabs.length_ms as f64, fall.finished_ms.clone()))
    };
    let falls: Vec<(String, f64, Vec<f64>)> = found.iter().map(read).collect::<Option<_>>()?;
    Some(waterfall(&falls))
}

impl TwoTabs {
    /// The settings of a first look.
    pub fn first_look() -> Json {
        let (tabs, tab_ms) = FIRST_LOOK;
        serde_json::json!({ "tabs": [tabs], "tab_ms": tab_ms })
    }
}

/// Sends one request on each of several new connections at the same instant.
fn open_tabs(driver: &dyn Drive, target: &Target, tabs: usize, length_ms: u64, seed: u64) -> Result<Fall> {
    let pace = Pace::Closed { depth: 1, stagger: Duration::ZERO, most: Some(1), think: Duration::ZERO };
    let lane = Lane { pace, ..Lane::closed(target.clone(), tabs, 1) };
    // One after another they need tabs x T; twice that is more than any server should take.
    let window = Duration::from_millis(2 * length_ms * tabs as u64 + 1000);
    let observation = driver.drive(&Load { grace: Duration::ZERO, ..Load::of(vec![lane], window, seed) })?;
    validity::of_lane(&observation, 0)?;
    let mut finished_ms: Vec<f64> = observation.lanes[0].finished.iter().map(|(_, at)| ms(*at)).collect();
    if finished_ms.len() != tabs {
        bail!("{} of {tabs} tabs were answered within {} ms", finished_ms.len(), window.as_millis());
    }
    finished_ms.sort_by(f64::total_cmp);
    validity::block_floor(finished_ms[0], length_ms as f64)?;
    Ok(Fall { tabs, finished_ms })
}
