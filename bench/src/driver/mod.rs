//! The load driver on sockets: one thread, one epoll, every send planned before it is due.
//!
//! An open lane has a schedule, and response time counts from it, however late the request got out; a closed lane keeps a number of requests
//! in flight. In both, a request that waits for a connection or for an answer at the end counts with its age. The driver records response and
//! service time and its own delays, and checks every answer.

mod connection;
mod engine;
mod ledger;
mod opening;
#[cfg(test)]
mod tests;
mod traffic;

use crate::load::{Drive, Load, Observation};
use anyhow::Result;

/// Connections of this process, over one epoll.
pub struct Sockets;

impl Drive for Sockets {
    fn drive_marked(&self, load: &Load, mark: &mut dyn FnMut()) -> Result<Observation> {
        engine::Engine::new(load)?.run(mark)
    }
}
