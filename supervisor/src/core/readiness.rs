//! How it is known when a process is ready.

use super::Version;
use super::table::App;

/// What shows that a process is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It says so, or is seen to be, within `listen_timeout`.
    Signal,
    /// The same; but one that takes longer and still runs counts as ready, unless it is to replace another.
    LateSignal,
    /// Nothing does: it counts as ready once it has been up for `min_uptime`.
    Uptime,
}

impl App {
    /// Returns what shows that a process with one of its specifications is ready.
    pub fn readiness(&self, version: Version) -> Readiness {
        let spec = self.spec_of(version);
        let says_so = spec.options.ready_when.is_some() || spec.is_node && spec.options.wait_ready;
        match (says_so || !spec.listeners.is_empty(), self.is_cluster(version)) {
            (true, _) => Readiness::Signal,
            // Nobody has promised that it listens. It did so far, however long that took.
            (false, true) => Readiness::LateSignal,
            (false, false) => Readiness::Uptime,
        }
    }
}
