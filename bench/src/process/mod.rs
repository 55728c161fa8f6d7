//! A server as a process: deployed by package, command or address, watched until it is ready, measured from outside, and ended for certain.

mod balancer;
mod database;
pub mod deploy;
mod guard;
mod network;
mod own;
mod running;
pub mod trace;
mod unread;
mod usage;
mod words;

pub use balancer::Balancer;
pub use database::Database;
pub use network::{Enter, Host, Network};
pub use running::{Running, Start};
pub use unread::Unread;
