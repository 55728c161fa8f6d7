//! Readiness of descriptors: epoll with the reader's own name for each source.

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::Timespec;
use slab::Slab;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Events taken at once.
const BATCH: usize = 64;

/// What waits for descriptors; `S` says what a descriptor is.
pub struct Poller<S> {
    epoll: OwnedFd,
    sources: Slab<S>,
}

/// A registered descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(usize);

impl<S: Clone> Poller<S> {
    /// One without sources.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Poller { epoll: epoll::create(CreateFlags::CLOEXEC)?, sources: Slab::new() })
    }

    /// Watches a descriptor until it can be read, or has ended.
    ///
    /// # Errors
    /// A descriptor that cannot be watched.
    pub fn add(&mut self, descriptor: impl AsFd, source: S) -> io::Result<Token> {
        let entry = self.sources.vacant_entry();
        let token = entry.key();
        epoll::add(&self.epoll, descriptor, EventData::new_u64(token as u64), EventFlags::IN)?;
        entry.insert(source);
        Ok(Token(token))
    }

    /// Whether to watch also for room to write.
    ///
    /// # Errors
    /// A descriptor that is not watched.
    pub fn set_writable(&self, token: Token, descriptor: impl AsFd, wanted: bool) -> io::Result<()> {
        let flags = if wanted { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, descriptor, EventData::new_u64(token.0 as u64), flags)?)
    }

    /// Watches it no longer. It may have copies elsewhere, so closing it would not be enough.
    pub fn remove(&mut self, token: Token, descriptor: impl AsFd) {
        // It was added, and is open.
        let _ = epoll::delete(&self.epoll, descriptor);
        self.sources.try_remove(token.0);
    }

    /// Waits until something happens, or for so long; without end if none is given. Events of sources that were removed meanwhile do
    /// not count.
    ///
    /// # Errors
    /// Only what is beyond repair.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<S>> {
        let mut events = Vec::with_capacity(BATCH);
        // A little late rather than too early, which would wake up twice.
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
