//! Loads: what is asked, when, and what came of it. Pure data and arithmetic; who bears a load is behind one trait, so that the same load can be
//! put on sockets and on a simulated server.

mod lane;
mod live;
mod observation;
mod schedule;

pub use lane::{Lane, Load, Opened, Pace, Target, asks_to_close, is_idempotent};
pub use live::{Event, Live, What, watch};
pub use observation::{Observation, Outcome, Part, Recording, Sample, Second, Times};
pub use schedule::Schedule;

use anyhow::Result;

/// Something that bears a load: the driver's sockets, or a simulated server.
pub trait Drive {
    /// Runs the load and returns the observation; calls `mark` when the window begins and when it ends, so that what is read elsewhere
    /// covers the same time.
    ///
    /// # Errors
    /// What keeps the driver from working: no descriptor, no connection, an interrupt. What the server does wrong is in the observation.
    fn drive_marked(&self, load: &Load, mark: &mut dyn FnMut()) -> Result<Observation>;

    /// The same without marks.
    ///
    /// # Errors
    /// The driver cannot work.
    fn drive(&self, load: &Load) -> Result<Observation> {
        self.drive_marked(load, &mut || ())
    }
}
