//! A server as a process: deployed by package, command or address, watched until it is ready, measured from outside, and ended for certain.

mod database;
pub mod deploy;
mod running;
mod usage;

pub use database::Database;
pub use running::{Running, Start};
