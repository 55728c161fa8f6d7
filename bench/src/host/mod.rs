//! The machine: its cores and who runs where, its limits, its environment, and the checkout that stallbench works on.

pub mod environment;
pub mod limits;
pub mod placement;
pub mod steal;
mod topology;
pub mod tree;
