//! The watching of a worker's socket. A worker that floods it waits until there is room, and the others do not wait for it.

use super::Source;
use crate::poll::{Poller, Token};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Time for which a flooded socket is left alone, and between two reports of a worker's status.
pub const PAUSE: Duration = Duration::from_millis(100);

/// Whether a socket is watched.
#[derive(Default)]
pub struct Pace {
    token: Option<Token>,
    /// The end of a pause.
    again: Option<Instant>,
}

impl Pace {
    /// Watches the socket.
    pub fn watch(&mut self, socket: impl AsFd, source: Source, poller: &mut Poller<Source>) -> io::Result<()> {
        self.token = Some(poller.add(socket, source)?);
        Ok(())
    }

    /// Stops watching it for a moment.
    pub fn pause(&mut self, socket: impl AsFd, poller: &mut Poller<Source>) {
        if self.token.is_some() {
            self.stop(socket, poller);
            self.again = Some(Instant::now() + PAUSE);
        }
    }

    /// When a pause ends.
    pub fn due(&self) -> Option<Instant> {
        self.again
    }

    /// Watches it again after a pause.
    pub fn resume(&mut self, socket: impl AsFd, source: Source, poller: &mut Poller<Source>) -> io::Result<()> {
        if self.again.is_some_and(|due| due <= Instant::now()) {
            self.again = None;
            self.watch(socket, source, poller)?;
        }
        Ok(())
    }

    /// Stops watching it for good.
    pub fn stop(&mut self, socket: impl AsFd, poller: &mut Poller<Source>) {
        if let Some(token) = self.token.take() {
            poller.remove(token, socket);
        }
        self.again = None;
    }
}
