//! One side thread per process: it takes the signals, cuts off slow clients, and ends the process once it is drained.
//!
//! The thread does not use the runtime, so it works with every runtime, even while all handler threads are blocked. A connection
//! registers its socket before it is served and unregisters before it closes, both under one lock. The thread shuts sockets
//! down under the same lock, so it never hits a descriptor that has since been reused. `shutdown` completes any read in
//! flight, so the owner of the connection sees an end of file and closes as usual.

mod clients;
mod drain;

use crate::args::Limits;
use crate::dispatch::{self, WorkerSlot};
use crate::tell::{self, Heartbeat, StatusReporter};
use clients::Seen;
use drain::Drain;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{Shutdown, shutdown};
use slab::Slab;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The phase of a connection, which determines its time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Idle between requests, or sending answers: nothing may stand still for `--idle-timeout`.
    Open = 0,
    /// A head has begun to arrive: `--header-timeout`.
    Head = 1,
    /// A body is arriving: `--request-timeout` for all of it.
    Body = 2,
    /// A request blocks or waits for a thread: no limit.
    Busy = 3,
    /// The sending side is shut down, and the server waits for the client to close.
    Lingering = 4,
}

impl Phase {
    /// Bits of a phase word that hold the phase; above them it counts changes.
    const BITS: u32 = 3;

    fn of(word: u32) -> Self {
        match word & 7 {
            0 => Phase::Open,
            1 => Phase::Head,
            2 => Phase::Body,
            3 => Phase::Busy,
            _ => Phase::Lingering,
        }
    }
}

/// The number of bytes that the watch keeps per connection in addition to the connection's own state.
#[cfg(test)]
pub(crate) const STATE_PER_CONNECTION: usize = size_of::<Entry>() + size_of::<Marks>() + 2 * size_of::<usize>();

/// The connections of this process and the state of its shutdown.
pub(crate) struct Watch {
    limits: Limits,
    /// The number of running handlers at which a connection might have to wait.
    capacity: u32,
    /// Tells how many handlers run.
    running: fn() -> u32,
    entries: Mutex<Slab<Entry>>,
    /// The number of requests on connections that have closed.
    past_requests: AtomicU64,
    /// A supervisor wants status reports.
    reports_status: bool,
    /// Wakes the side thread.
    wake: EventFd,
    /// A connection is in a phase with a short limit, so the side thread checks often.
    is_ticking: AtomicBool,
    /// There were connections at the last check or since, so the side thread checks now and then.
    has_clients: AtomicBool,
    is_draining: AtomicBool,
    /// The drain has ended the idle connections.
    is_past_idle: AtomicBool,
    /// The sources of the running accept loops; without any, no further connection arrives.
    acceptors: Mutex<Slab<Incoming>>,
    stop: Arc<EventFd>,
}

/// What an accept loop waits for.
#[derive(Clone, Copy)]
pub(crate) enum Incoming {
    /// A listener: readable while connections wait in it.
    Listener(RawFd),
    /// The parent, which says when it has no further connection.
    Parent(WorkerSlot),
    /// A library, whose connections are not registered: it is done when it says so.
    Library,
}

struct Entry {
    socket: RawFd,
    marks: Arc<Marks>,
    seen: Seen,
}

/// The marks that the owner of a connection leaves for the side thread.
struct Marks {
    /// The phase, and above it a count of changes, which shows progress without the owner having to read a clock.
    phase: AtomicU32,
    /// The number of requests so far. Only the owner changes it, so a load and a store suffice.
    requests: AtomicU32,
}

/// A connection's entry in the watch; dropping it unregisters the connection.
pub(crate) struct Slot {
    watch: &'static Watch,
    key: usize,
    marks: Arc<Marks>,
    /// The parent has handed out this socket, and perhaps copies of it that nobody took.
    may_have_copies: bool,
}

impl Slot {
    /// Records that a head has begun to arrive. Further bytes of the head do not extend its time limit.
    pub fn begin(&self) {
        if self.phase() != Phase::Head {
            self.set(Phase::Head);
        }
    }

    /// Enters a phase.
    pub fn set(&self, phase: Phase) {
        self.mark(phase);
        if !self.watch.is_ticking.swap(true, Ordering::AcqRel) {
            self.watch.wake();
        }
    }

    /// Records that the request is complete or answered, which lifts its time limit.
    pub fn settle(&self) {
        if self.phase() != Phase::Open {
            self.mark(Phase::Open);
        }
    }

    /// Records that a request blocks or waits for a thread.
    pub fn block(&self) {
        self.mark(Phase::Busy);
    }

    fn mark(&self, phase: Phase) {
        let changes = (self.marks.phase.load(Ordering::Relaxed) >> Phase::BITS).wrapping_add(1);
        self.marks.phase.store(changes << Phase::BITS | phase as u32, Ordering::Release);
    }

    pub fn phase(&self) -> Phase {
        Phase::of(self.marks.phase.load(Ordering::Relaxed))
    }

    /// Counts one parsed request.
    pub fn count(&self) {
        let requests = self.marks.requests.load(Ordering::Relaxed);
        self.marks.requests.store(requests.wrapping_add(1), Ordering::Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut entries = self.watch.entries();
        let entry = entries.remove(self.key);
        if self.may_have_copies {
            // One may lie in the channel of a worker that is stopped: closing this one alone would end nothing.
            cut(entry.socket, Shutdown::Write);
        }
        // Under the lock, so that `Watch::requests` neither misses these requests nor counts them twice.
        self.watch.past_requests.fetch_add(self.marks.requests.load(Ordering::Relaxed).into(), Ordering::Relaxed);
        let is_last = entries.is_empty();
        drop(entries);
        if is_last && self.watch.is_draining() {
            self.watch.wake();
        }
    }
}

impl Watch {
    pub fn new(limits: Limits, capacity: u32) -> io::Result<Self> {
        let event = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Ok(Watch {
            limits,
            capacity,
            running: dispatch::running,
            entries: Mutex::default(),
            past_requests: AtomicU64::new(0),
            reports_status: tell::has_listener(),
            wake: event()?,
            is_ticking: AtomicBool::new(false),
            has_clients: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            is_past_idle: AtomicBool::new(false),
            acceptors: Mutex::default(),
            stop: Arc::new(event()?),
        })
    }

    /// Starts the side thread, which takes `signals`. They must be blocked in every thread.
    pub fn start(&'static self, signals: &SigSet, mut reporter: StatusReporter, mut heart: Option<Heartbeat>) -> io::Result<()> {
        let signals = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let thread = std::thread::Builder::new().name("watch".into()).stack_size(64 * 1024);
        thread.spawn(move || self.run(&signals, &mut reporter, heart.as_mut()))?;
        Ok(())
    }

    pub fn open(&'static self, socket: &impl AsRawFd, may_have_copies: bool) -> Slot {
        let marks = Arc::new(Marks { phase: AtomicU32::new(Phase::Open as u32), requests: AtomicU32::new(0) });
        let socket = socket.as_raw_fd();
        let entry = Entry { socket, marks: marks.clone(), seen: Seen::new() };
        let mut entries = self.entries();
        let key = entries.insert(entry);
        if self.is_past_idle.load(Ordering::SeqCst) && clients::unread(socket) == 0 {
            cut(socket, Shutdown::Read);
        }
        drop(entries);
        if !self.has_clients.load(Ordering::Relaxed) && !self.has_clients.swap(true, Ordering::SeqCst) {
            self.wake();
        }
        Slot { watch: self, key, marks, may_have_copies }
    }

    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Makes answers say that the server drains; the rest of a drain needs the side thread.
    #[cfg(test)]
    pub fn drain_for_tests(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
    }

    /// Records the start of an accept loop, with what it waits for. Returns its key.
    pub fn accept(&self, source: Incoming) -> usize {
        self.acceptors().insert(source)
    }

    /// Records the end of an accept loop, before its descriptor is closed.
    pub fn close(&self, key: usize) {
        self.acceptors().remove(key);
        self.wake();
    }

    fn acceptors(&self) -> MutexGuard<'_, Slab<Incoming>> {
        self.acceptors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event that becomes readable, and stays so, when the accept loops must end.
    pub fn stop(&self) -> Arc<EventFd> {
        self.stop.clone()
    }

    /// The number of registered connections.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.entries().len()
    }

    fn entries(&self) -> MutexGuard<'_, Slab<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Writing fails only if the counter is full, and then the thread is awake anyway.
        let _ = self.wake.write(1);
    }

    fn run(&self, signals: &SignalFd, reporter: &mut StatusReporter, mut heart: Option<&mut Heartbeat>) {
        let mut drain = None;
        let mut checked = Instant::now();
        let has_parent = WorkerSlot::here().is_some();
        loop {
            let until_beat = heart.as_ref().map(|heart| heart.wait());
            let timeout = self.timeout(drain.as_ref(), reporter, checked, until_beat);
            let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, timeout);
            let _ = self.wake.read();
            while let Ok(Some(signal)) = signals.read_signal() {
                match &drain {
                    // One may come from the terminal, one from the parent, and one from its death. A parent that does not want to wait kills.
                    Some(_) if has_parent => {}
                    // A second signal means that its sender does not want to wait.
                    Some(_) => std::process::exit(128 + signal.ssi_signo.cast_signed()),
                    None => drain = Some(self.begin_drain()),
                }
            }
            if let Some(drain) = &mut drain {
                self.continue_drain(drain);
            }
            if self.check_interval().is_some_and(|interval| checked.elapsed() >= interval) {
                checked = Instant::now();
                self.cut_slow_clients();
            }
            if self.reports_status {
                reporter.report(self.requests());
            }
            if let Some(heart) = &mut heart {
                heart.beat();
            }
        }
    }

    /// The number of requests to this process so far.
    fn requests(&self) -> u64 {
        let entries = self.entries();
        let open: u64 = entries.iter().map(|(_, entry)| u64::from(entry.marks.requests.load(Ordering::Relaxed))).sum();
        self.past_requests.load(Ordering::Relaxed) + open
    }

    /// The time between two checks of the clients: short while one is in a phase with a short limit, none without connections.
    fn check_interval(&self) -> Option<Duration> {
        if self.is_ticking.load(Ordering::Acquire) {
            return Some(self.tick());
        }
        self.has_clients.load(Ordering::Acquire).then(|| self.limits.idle_timeout / clients::CHECKS)
    }

    fn timeout(
        &self,
        drain: Option<&Drain>,
        reporter: &StatusReporter,
        checked: Instant,
        until_beat: Option<Duration>,
    ) -> PollTimeout {
        let until_check = self.check_interval().map(|interval| interval.saturating_sub(checked.elapsed()));
        let until_drained = drain.map(Drain::next_deadline).map(|at| at.saturating_duration_since(Instant::now()));
        // Without open connections the status does not change: once it is reported, this thread can sleep.
        let is_news = self.reports_status && (!self.entries().is_empty() || reporter.has_news(self.requests()));
        let until_report = is_news.then(|| reporter.wait());
        let Some(wait) = [until_check, until_drained, until_report, until_beat].into_iter().flatten().min() else {
            return PollTimeout::NONE;
        };
        // Rounded up; otherwise the thread would spin for the last fraction of a millisecond.
        PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    }
}

fn cut(socket: RawFd, how: Shutdown) {
    // Fails if the client is already gone, which has the same effect.
    let _ = shutdown(socket, how);
}
