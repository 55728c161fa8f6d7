//! The machine: cores, placement, environment, steal.

pub mod environment;
pub mod placement;
