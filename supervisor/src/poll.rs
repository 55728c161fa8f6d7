//! Readiness of descriptors: epoll, with a value of the caller's choice for each source.

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::Timespec;
use slab::Slab;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Number of events taken at once.
const BATCH: usize = 64;

/// Waits for descriptors; an `S` identifies each of them.
pub struct Poller<S> {
    epoll: OwnedFd,
    sources: Slab<S>,
}

/// A registered descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(usize);

impl<S: Clone> Poller<S> {
    /// Creates a poller without sources.
    ///
    /// # Errors
    /// Fails if no descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Poller { epoll: epoll::create(CreateFlags::CLOEXEC)?, sources: Slab::new() })
    }

    /// Watches a descriptor until it becomes readable or its other end closes.
    ///
    /// # Errors
    /// Fails if the descriptor cannot be watched.
    pub fn add(&mut self, descriptor: impl AsFd, source: S) -> io::Result<Token> {
        let entry = self.sources.vacant_entry();
        let token = entry.key();
        epoll::add(&self.epoll, descriptor, EventData::new_u64(token as u64), EventFlags::IN)?;
        entry.insert(source);
        Ok(Token(token))
    }

    /// Sets what to watch for beside the end of the other side: something to read, or room to write.
    ///
    /// # Errors
    /// Fails if the descriptor is not watched.
    pub fn set_interest(&self, token: Token, descriptor: impl AsFd, to_read: bool, to_write: bool) -> io::Result<()> {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, to_read);
        flags.set(EventFlags::OUT, to_write);
        Ok(epoll::modify(&self.epoll, descriptor, EventData::new_u64(token.0 as u64), flags)?)
    }

    /// Stops watching a descriptor. Closing it would not be enough, since it may have copies elsewhere.
    pub fn remove(&mut self, token: Token, descriptor: impl AsFd) {
        // This cannot fail: the descriptor was added, and is open.
        let _ = epoll::delete(&self.epoll, descriptor);
        self.sources.try_remove(token.0);
    }

    /// Waits until an event occurs or the timeout expires; without a timeout, it waits indefinitely. It ignores events of
    /// sources that have been removed meanwhile.
    ///
    /// # Errors
    /// Fails only on an error from which the caller cannot recover.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<S>> {
        let mut events = Vec::with_capacity(BATCH);
        // Waking up a little late is better than too early, which would need a second wake-up.
        let timeout = timeout.map(|timeout| Timespec::try_from(timeout + Duration::from_millis(1)).unwrap_or(LONG));
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        Ok(events.iter().filter_map(|event| self.sources.get(event.data.u64() as usize).cloned()).collect())
    }
}

const LONG: Timespec = Timespec { tv_sec: 3600, tv_nsec: 0 };
