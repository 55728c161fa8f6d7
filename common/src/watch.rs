//! One side thread per process: it takes the signals, cuts what is too slow, and ends the process once it is drained.
//!
//! It never touches the runtime, so it works the same for all of them, and it works while every thread that runs handlers is
//! blocked. A connection registers its socket before it is served and takes itself out before it closes, both under one lock; the
//! thread shuts sockets down under the same lock, so it can never hit a descriptor that has been closed and given to a stranger.
//! `shutdown` completes whatever read is in flight, so the owner sees an end of file and leaves by its usual way.

use crate::args::Limits;
use crate::tell::{self, Teller};
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

/// Where a connection stands, as far as its time is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Idle between requests, or busy with one: no limit but that of the drain.
    Open = 0,
    /// A request has begun to arrive and is not complete.
    Receiving = 1,
    /// Our side is shut down and the peer's end is awaited.
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

/// How long a peer may take to close after our side is shut down.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that the watch keeps for each connection besides the connection's own state.
#[cfg(test)]
pub(crate) const STATE_PER_CONNECTION: usize = size_of::<Entry>() + size_of::<Marks>() + 2 * size_of::<usize>();

/// The connections of this process, and how it is told to stop.
pub(crate) struct Watch {
    limits: Limits,
    entries: Mutex<Slab<Entry>>,
    /// Requests of connections that are closed.
    past_requests: AtomicU64,
    /// Somebody wants to know how it goes.
    is_told: bool,
    /// Wakes the side thread.
    wake: EventFd,
    /// The side thread looks at the connections from time to time; otherwise it sleeps until it is woken.
    is_ticking: AtomicBool,
    is_draining: AtomicBool,
    /// Accept loops that have not ended: from none on, no further connection comes.
    accepting: AtomicUsize,
    stop: Arc<EventFd>,
}

struct Entry {
    socket: RawFd,
    marks: Arc<Marks>,
    /// What the side thread saw when it looked last, and since when.
    seen: u32,
    since: Instant,
}

/// What the owner of a connection leaves for the side thread to see.
struct Marks {
    /// The phase in the lowest two bits, above it a count of changes: without reading a clock, the owner makes it plain that
    /// something moved.
    phase: AtomicU32,
    /// Requests so far. Only the owner adds to it, so it needs no more than a load and a store.
    requests: AtomicU32,
}

/// A connection's place among those that are watched; leaving it takes the connection out.
pub(crate) struct Slot {
    watch: &'static Watch,
    key: usize,
    marks: Arc<Marks>,
}

impl Slot {
    /// A head has begun to arrive. It has to be complete in time however it trickles in, so more of it changes nothing.
    pub fn begin(&self) {
        if Phase::of(self.marks.phase.load(Ordering::Relaxed)) != Phase::Receiving {
            self.set(Phase::Receiving);
        }
    }

    /// Enters a phase whose time is limited, or says that there was progress in it.
    pub fn set(&self, phase: Phase) {
        let changes = (self.marks.phase.load(Ordering::Relaxed) >> 2).wrapping_add(1);
        self.marks.phase.store(changes << 2 | phase as u32, Ordering::Release);
        if !self.watch.is_ticking.swap(true, Ordering::AcqRel) {
            self.watch.wake();
        }
    }

    /// The request is complete: no limit holds.
    pub fn settle(&self) {
        if Phase::of(self.marks.phase.load(Ordering::Relaxed)) != Phase::Open {
            self.set(Phase::Open);
        }
    }

    /// One more request was understood.
    pub fn count(&self) {
        let requests = self.marks.requests.load(Ordering::Relaxed);
        self.marks.requests.store(requests.wrapping_add(1), Ordering::Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut entries = self.watch.entries();
        entries.remove(self.key);
        // Under the lock, so that nobody who adds them up misses these or counts them twice.
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
            is_told: tell::is_heard(),
            wake: event()?,
            is_ticking: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            accepting: AtomicUsize::new(0),
            stop: Arc::new(event()?),
        })
    }

    /// Starts the side thread, which takes `signals`; they must be blocked in every thread.
    pub fn start(&'static self, signals: &SigSet, mut teller: Teller) -> io::Result<()> {
        let signals = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let thread = std::thread::Builder::new().name("watch".into()).stack_size(64 * 1024);
        thread.spawn(move || self.run(&signals, &mut teller))?;
        Ok(())
    }

    pub fn open(&'static self, socket: &impl AsFd) -> Slot {
        let marks = Arc::new(Marks { phase: AtomicU32::new(Phase::Open as u32), requests: AtomicU32::new(0) });
        let entry = Entry { socket: socket.as_fd().as_raw_fd(), marks: marks.clone(), seen: 0, since: Instant::now() };
        let mut entries = self.entries();
        let is_first = entries.is_empty();
        let key = entries.insert(entry);
        drop(entries);
        if self.is_draining() || (self.is_told && is_first) {
            self.wake();
        }
        Slot { watch: self, key, marks }
    }

    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// There is one more accept loop.
    pub fn accept(&self) {
        self.accepting.fetch_add(1, Ordering::SeqCst);
    }

    /// An accept loop has ended.
    pub fn close(&self) {
        self.accepting.fetch_sub(1, Ordering::SeqCst);
        self.wake();
    }

    /// Becomes readable, and stays so, when the accept loop must end.
    pub fn stop(&self) -> Arc<EventFd> {
        self.stop.clone()
    }

    fn entries(&self) -> MutexGuard<'_, Slab<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It can fail only when the counter is full, and then the thread is awake.
        let _ = self.wake.write(1);
    }

    fn run(&self, signals: &SignalFd, teller: &mut Teller) {
        let mut drain = None;
        loop {
            let timeout = self.timeout(drain.as_ref(), teller);
            let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, timeout);
            let _ = self.wake.read();
            while let Ok(Some(signal)) = signals.read_signal() {
                match &drain {
                    // The second signal: whoever sent it does not want to wait.
                    Some(_) => std::process::exit(128 + signal.ssi_signo.cast_signed()),
                    None => drain = Some(self.begin_drain()),
                }
            }
            if let Some(drain) = &drain {
                self.go_on_draining(drain);
            }
            self.cut_slow_ones();
            if self.is_told {
                teller.tell(self.requests());
            }
        }
    }

    /// All that this process has had.
    fn requests(&self) -> u64 {
        let entries = self.entries();
        let open: u64 = entries.iter().map(|(_, entry)| u64::from(entry.marks.requests.load(Ordering::Relaxed))).sum();
        self.past_requests.load(Ordering::Relaxed) + open
    }

    fn timeout(&self, drain: Option<&Drain>, teller: &Teller) -> PollTimeout {
        let tick = self.limits.header_timeout.min(LINGER) / 8;
        let tick = self.is_ticking.load(Ordering::Acquire).then_some(tick);
        let until_drained = drain.map(Drain::next_deadline).map(|at| at.saturating_duration_since(Instant::now()));
        // Without connections nothing happens, and once that is told nothing wakes this thread.
        let is_news = self.is_told && (!self.entries().is_empty() || teller.has_news(self.requests()));
        let until_told = is_news.then(|| teller.wait());
        let Some(wait) = tick.into_iter().chain(until_drained).chain(until_told).min() else { return PollTimeout::NONE };
        // Rounded up, or the last fraction of a millisecond would be spent spinning.
        PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    }

    fn begin_drain(&self) -> Drain {
        self.is_draining.store(true, Ordering::SeqCst);
        let _ = self.stop.write(1);
        let now = Instant::now();
        Drain { idle_end: now + self.limits.drain_idle, end: now + self.limits.drain }
    }

    fn go_on_draining(&self, drain: &Drain) {
        let now = Instant::now();
        let entries = self.entries();
        if now >= drain.idle_end {
            // Only the receiving side: what is being answered is still sent. Again each time, for those that came late.
            entries.iter().for_each(|(_, entry)| cut(entry.socket, Shutdown::Read));
        }
        if now >= drain.end && !entries.is_empty() {
            eprintln!("drain: time is up, {} connections are cut", entries.len());
        }
        let is_drained = entries.is_empty() && self.accepting.load(Ordering::SeqCst) == 0;
        if is_drained || now >= drain.end {
            std::process::exit(0);
        }
    }

    fn cut_slow_ones(&self) {
        if !self.is_ticking.load(Ordering::Acquire) {
            return;
        }
        // Cleared first: an owner that enters a phase during the look sets it again and wakes the thread.
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

/// When a drain's two parts end.
struct Drain {
    /// Until then a request on its way over an idle connection is still answered.
    idle_end: Instant,
    end: Instant,
}

impl Drain {
    fn next_deadline(&self) -> Instant {
        if self.idle_end > Instant::now() { self.idle_end.min(self.end) } else { self.end }
    }
}

fn cut(socket: RawFd, how: Shutdown) {
    // Fails where the peer is gone already, which is what was wanted.
    let _ = shutdown(socket, how);
}
