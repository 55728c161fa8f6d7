//! One side thread per process: it takes the signals, cuts off slow clients, and ends the process once it is drained.
//!
//! The thread does not use the runtime, so it works with every runtime, even while all handler threads are blocked. A connection
//! registers its socket before it is served and unregisters before it closes, both under one lock. The thread shuts sockets
//! down under the same lock, so it never hits a descriptor that has since been reused. `shutdown` completes any read in
//! flight, so the owner of the connection sees an end of file and closes as usual.

use crate::args::Limits;
use crate::tell::{self, StatusReporter};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{Shutdown, shutdown};
use slab::Slab;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The phase of a connection, which determines its time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Idle between requests, or busy with one: only the drain limits the time.
    Open = 0,
    /// A request has begun to arrive but is not complete.
    Receiving = 1,
    /// The sending side is shut down, and the server waits for the client to close.
    Lingering = 2,
}

impl Phase {
    fn of(word: u32) -> Self {
        match word & 3 {
            0 => Phase::Open,
            1 => Phase::Receiving,
            _ => Phase::Lingering,
        }
    }
}

/// The time limit for a client to close after the server has shut down its sending side.
const LINGER: Duration = Duration::from_secs(1);
/// The number of bytes that the watch keeps per connection in addition to the connection's own state.
#[cfg(test)]
pub(crate) const STATE_PER_CONNECTION: usize = size_of::<Entry>() + size_of::<Marks>() + 2 * size_of::<usize>();

/// The connections of this process and the state of its shutdown.
pub(crate) struct Watch {
    limits: Limits,
    entries: Mutex<Slab<Entry>>,
    /// The number of requests on connections that have closed.
    past_requests: AtomicU64,
    /// A supervisor wants status reports.
    reports_status: bool,
    /// Wakes the side thread.
    wake: EventFd,
    /// The side thread checks the connections at intervals; otherwise it sleeps until it is woken.
    is_ticking: AtomicBool,
    is_draining: AtomicBool,
    /// The number of running accept loops; once it is 0, no further connection arrives.
    accepting: AtomicUsize,
    stop: Arc<EventFd>,
}

struct Entry {
    socket: RawFd,
    marks: Arc<Marks>,
    /// The phase word at the side thread's last check; it has not changed since `since`.
    seen: u32,
    since: Instant,
}

/// The marks that the owner of a connection leaves for the side thread.
struct Marks {
    /// The phase in the lowest two bits, and a count of changes above it. The count shows progress without the owner having to
    /// read a clock.
    phase: AtomicU32,
    /// The number of requests so far. Only the owner changes it, so a load and a store suffice.
    requests: AtomicU32,
}

/// A connection's entry in the watch; dropping it unregisters the connection.
pub(crate) struct Slot {
    watch: &'static Watch,
    key: usize,
    marks: Arc<Marks>,
}

impl Slot {
    /// Records that a head has begun to arrive. Further bytes of the head do not extend its time limit.
    pub fn begin(&self) {
        if Phase::of(self.marks.phase.load(Ordering::Relaxed)) != Phase::Receiving {
            self.set(Phase::Receiving);
        }
    }

    /// Enters a phase, or records progress in the current one.
    pub fn set(&self, phase: Phase) {
        let changes = (self.marks.phase.load(Ordering::Relaxed) >> 2).wrapping_add(1);
        self.marks.phase.store(changes << 2 | phase as u32, Ordering::Release);
        if !self.watch.is_ticking.swap(true, Ordering::AcqRel) {
            self.watch.wake();
        }
    }

    /// Records that the request is complete, which lifts its time limit.
    pub fn settle(&self) {
        if Phase::of(self.marks.phase.load(Ordering::Relaxed)) != Phase::Open {
            self.set(Phase::Open);
        }
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
        entries.remove(self.key);
        // Under the lock, so that `Watch::requests` neither misses these requests nor counts them twice.
        self.watch.past_requests.fetch_add(self.marks.requests.load(Ordering::Relaxed).into(), Ordering::Relaxed);
        drop(entries);
        if self.watch.is_draining() {
            self.watch.wake();
        }
    }
}

impl Watch {
    pub fn new(limits: Limits) -> io::Result<Self> {
        let event = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Ok(Watch {
            limits,
            entries: Mutex::default(),
            past_requests: AtomicU64::new(0),
            reports_status: tell::has_listener(),
            wake: event()?,
            is_ticking: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            accepting: AtomicUsize::new(0),
            stop: Arc::new(event()?),
        })
    }

    /// Starts the side thread, which takes `signals`. They must be blocked in every thread.
    pub fn start(&'static self, signals: &SigSet, mut reporter: StatusReporter) -> io::Result<()> {
        let signals = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let thread = std::thread::Builder::new().name("watch".into()).stack_size(64 * 1024);
        thread.spawn(move || self.run(&signals, &mut reporter))?;
        Ok(())
    }

    pub fn open(&'static self, socket: &impl AsFd) -> Slot {
        let marks = Arc::new(Marks { phase: AtomicU32::new(Phase::Open as u32), requests: AtomicU32::new(0) });
        let entry = Entry { socket: socket.as_fd().as_raw_fd(), marks: marks.clone(), seen: 0, since: Instant::now() };
        let mut entries = self.entries();
        let is_first = entries.is_empty();
        let key = entries.insert(entry);
        drop(entries);
        if self.is_draining() || (self.reports_status && is_first) {
            self.wake();
        }
        Slot { watch: self, key, marks }
    }

    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Records the start of an accept loop.
    pub fn accept(&self) {
        self.accepting.fetch_add(1, Ordering::SeqCst);
    }

    /// Records the end of an accept loop.
    pub fn close(&self) {
        self.accepting.fetch_sub(1, Ordering::SeqCst);
        self.wake();
    }

    /// The event that becomes readable, and stays so, when the accept loops must end.
    pub fn stop(&self) -> Arc<EventFd> {
        self.stop.clone()
    }

    fn entries(&self) -> MutexGuard<'_, Slab<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Writing fails only if the counter is full, and then the thread is awake anyway.
        let _ = self.wake.write(1);
    }

    fn run(&self, signals: &SignalFd, reporter: &mut StatusReporter) {
        let mut drain = None;
        loop {
            let timeout = self.timeout(drain.as_ref(), reporter);
            let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, timeout);
            let _ = self.wake.read();
            while let Ok(Some(signal)) = signals.read_signal() {
                match &drain {
                    // A second signal means that its sender does not want to wait.
                    Some(_) => std::process::exit(128 + signal.ssi_signo.cast_signed()),
                    None => drain = Some(self.begin_drain()),
                }
            }
            if let Some(drain) = &drain {
                self.continue_drain(drain);
            }
            self.cut_slow_clients();
            if self.reports_status {
                reporter.report(self.requests());
            }
        }
    }

    /// The number of requests to this process so far.
    fn requests(&self) -> u64 {
        let entries = self.entries();
        let open: u64 = entries.iter().map(|(_, entry)| u64::from(entry.marks.requests.load(Ordering::Relaxed))).sum();
        self.past_requests.load(Ordering::Relaxed) + open
    }

    fn timeout(&self, drain: Option<&Drain>, reporter: &StatusReporter) -> PollTimeout {
        let tick = self.limits.header_timeout.min(LINGER) / 8;
        let tick = self.is_ticking.load(Ordering::Acquire).then_some(tick);
        let until_drained = drain.map(Drain::next_deadline).map(|at| at.saturating_duration_since(Instant::now()));
        // Without open connections the status does not change: once it is reported, this thread can sleep.
        let is_news = self.reports_status && (!self.entries().is_empty() || reporter.has_news(self.requests()));
        let until_report = is_news.then(|| reporter.wait());
        let Some(wait) = tick.into_iter().chain(until_drained).chain(until_report).min() else { return PollTimeout::NONE };
        // Rounded up; otherwise the thread would spin for the last fraction of a millisecond.
        PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    }

    fn begin_drain(&self) -> Drain {
        self.is_draining.store(true, Ordering::SeqCst);
        let _ = self.stop.write(1);
        let now = Instant::now();
        Drain { idle_end: now + self.limits.drain_idle, end: now + self.limits.drain }
    }

    fn continue_drain(&self, drain: &Drain) {
        let now = Instant::now();
        let entries = self.entries();
        if now >= drain.idle_end {
            // Shut down the receiving side only, so that pending answers are still sent. Repeat this for late connections.
            entries.iter().for_each(|(_, entry)| cut(entry.socket, Shutdown::Read));
        }
        if now >= drain.end && !entries.is_empty() {
            eprintln!("drain: the --drain time is up; {} connections are cut off", entries.len());
        }
        let is_drained = entries.is_empty() && self.accepting.load(Ordering::SeqCst) == 0;
        if is_drained || now >= drain.end {
            std::process::exit(0);
        }
    }

    fn cut_slow_clients(&self) {
        if !self.is_ticking.load(Ordering::Acquire) {
            return;
        }
        // Cleared first: an owner that enters a phase during the check sets it again and wakes the thread.
        self.is_ticking.store(false, Ordering::SeqCst);
        let now = Instant::now();
        let mut any_limited = false;
        for (_, entry) in self.entries().iter_mut() {
            let word = entry.marks.phase.load(Ordering::Acquire);
            if word != entry.seen {
                (entry.seen, entry.since) = (word, now);
            }
            let limit = match Phase::of(word) {
                Phase::Open => continue,
                Phase::Receiving => self.limits.header_timeout,
                Phase::Lingering => LINGER,
            };
            any_limited = true;
            if now.duration_since(entry.since) >= limit {
                cut(entry.socket, Shutdown::Both);
            }
        }
        if any_limited {
            self.is_ticking.store(true, Ordering::SeqCst);
        }
    }
}

/// The deadlines of a drain.
struct Drain {
    /// Until then the server still answers requests that arrive on idle connections.
    idle_end: Instant,
    /// At this time the process ends even if connections are still open.
    end: Instant,
}

impl Drain {
    fn next_deadline(&self) -> Instant {
        if self.idle_end > Instant::now() { self.idle_end.min(self.end) } else { self.end }
    }
}

fn cut(socket: RawFd, how: Shutdown) {
    // Fails if the client is already gone, which has the same effect.
    let _ = shutdown(socket, how);
}
