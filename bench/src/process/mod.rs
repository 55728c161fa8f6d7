//! A server as a process: deployed by package, command or address, watched until it is ready, measured from outside, and ended for certain.

pub mod deploy;
mod running;
mod usage;

pub use running::{Running, Start};
