//! What do two browser tabs on `/timer` see? Requests sent at once, each on its own connection; when did each end?

use super::{Session, learn, ms};
use crate::driver::{self, Lane, Load, Pace, Target};
use crate::validity;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One entry for each number of tabs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TwoTabs {
    /// Length of each request, in ms.
    pub length_ms: u64,
    /// The waterfalls.
    pub falls: Vec<Fall>,
}

/// When each of the tabs had its answer, in ms since all were sent, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fall {
    /// Number of tabs.
    pub tabs: usize,
    /// Finish times.
    pub finished_ms: Vec<f64>,
}

/// Runs it for each number of tabs on one fresh process.
///
/// # Errors
/// A server that does not answer, or wrongly.
pub fn run(session: &Session<'_>) -> Result<TwoTabs> {
    let mut running = session.start("two-tabs")?;
    let length_ms = session.settings.tab_ms;
    learn(&mut running, "/")?;
    let target = learn(&mut running, &format!("/timer?ms={length_ms}"))?;
    let _driver = session.settings.placement_of("two-tabs").enter_driver(true);
    let falls = session.settings.tabs.iter().map(|tabs| running.explain(open_tabs(&target, *tabs, length_ms, session.seed)));
    Ok(TwoTabs { length_ms, falls: falls.collect::<Result<_>>()? })
}

/// Sends so many requests at once.
///
/// # Errors
/// Answers that are wrong or do not come.
pub fn open_tabs(target: &Target, tabs: usize, length_ms: u64, seed: u64) -> Result<Fall> {
    let pace = Pace::Closed { depth: 1, stagger: Duration::ZERO, most: Some(1), think: Duration::ZERO };
    let lane = Lane { pace, ..Lane::closed(target.clone(), tabs, 1) };
    // One after the other they need tabs x T; twice that is more than anybody should take.
    let window = Duration::from_millis(2 * length_ms * tabs as u64 + 1000);
    let load = Load {
        lanes: vec![lane],
        warmup: Duration::ZERO,
        window,
        grace: Duration::ZERO,
        give_up: None,
        spin: Duration::ZERO,
        seed,
    };
    let report = driver::run(&load)?;
    validity::of_lane(&report, 0)?;
    let mut finished_ms: Vec<f64> = report.lanes[0].finished.iter().map(|(_, at)| ms(*at)).collect();
    if finished_ms.len() != tabs {
        bail!("{} of {tabs} tabs were answered within {} ms", finished_ms.len(), window.as_millis());
    }
    finished_ms.sort_by(f64::total_cmp);
    validity::block_floor(finished_ms[0], length_ms as f64)?;
    Ok(Fall { tabs, finished_ms })
}
