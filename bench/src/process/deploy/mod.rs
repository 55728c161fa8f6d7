//! Ways to get a server running: built from a package, by a command, at an address, or under a process manager.

pub mod manager;
pub mod own;
pub mod package;
mod pm2;
mod supervisor;

pub use supervisor::{Site, Supervised};

use super::{Running, Start};
use crate::catalog::Server;
use anyhow::Result;

/// A fresh process of a server; for one at an address, the one that is running.
///
/// # Errors
/// It does not get ready.
pub fn start(server: &Server, start: &Start) -> Result<Running> {
    if server.own.is_some() { own::start(server, start) } else { Running::start(server, start) }
}
