//! The experiments. Each has its file: its settings, its run, its cost in time, its metrics and its tables. Adding one is adding a file and a line
//! in [`ALL`].

mod blocking_functions;
mod climb;
mod closed_loop;
mod collateral;
mod contract;
mod dose_response;
mod erased;
mod expected;
mod footprint;
mod handoff_cost;
mod latency;
mod probes;
mod reload;
mod rendezvous;
mod scaling;
pub mod service;
mod state;
mod steps;
mod stream;
mod throughput;
mod two_tabs;

pub use climb::{Climb, freeze_metric, place};
pub use collateral::{freeze_head, freezing};
pub use contract::{Choices, Column, Needs, Scene, Step};
pub use erased::{Any, Erased};
pub use state::{kept_by, table as table_of_kept};
pub use steps::freeze_k;
pub use two_tabs::{TwoTabs, picture};

use crate::console::hint::nearest;
use crate::console::usage::refuse;
use anyhow::Result;

/// All experiments, in the order of a trial.
pub static ALL: &[&dyn Any] = &[
    &Erased::<TwoTabs>::NEW,
    &Erased::<collateral::Collateral>::NEW,
    &Erased::<throughput::Throughput>::NEW,
    &Erased::<footprint::Footprint>::NEW,
    &Erased::<dose_response::DoseResponse>::NEW,
    &Erased::<blocking_functions::BlockingFunctions>::NEW,
    &Erased::<latency::LatencyBelowPeak>::NEW,
    &Erased::<scaling::Scaling>::NEW,
    &Erased::<reload::Reload>::NEW,
    &Erased::<state::State>::NEW,
    &Erased::<handoff_cost::HandoffCost>::NEW,
    &Erased::<rendezvous::Rendezvous>::NEW,
    &Erased::<service::Service>::NEW,
];

/// The experiment of a name.
///
/// # Errors
/// An unknown name, with the nearest known ones.
pub fn find(name: &str) -> Result<&'static dyn Any> {
    let known: Vec<&str> = ALL.iter().map(|one| one.name()).collect();
    match ALL.iter().find(|one| one.name() == name) {
        Some(found) => Ok(*found),
        None => refuse!("there is no experiment '{name}'; {}", nearest(name, &known)),
    }
}
