//! One parent, N workers: the only file that forks.
//!
//! The parent forks before any thread or runtime exists and never starts one itself. So it can fork a replacement from the same
//! clean state. A child that cannot become a worker ends at once: it must never go on as a second parent. The parent manages its workers in one loop that sleeps until an event arrives.

use crate::acceptor::Source;
use crate::args::{Dispatch, Knobs};
use crate::dealer::{Dealer, SILENT};
use crate::dispatch::{ParentState, Table, Word, WorkerSlot};
use crate::say;
use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A worker that ends sooner than this after its start has died at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// The parent ends if all its workers have died at once this many times in a row.
const MOST_DEATHS: u32 = 5;

/// The time until the parent replaces a worker that died at once, or retries a fork that failed; it doubles with each time in a row.
const RETRY: Duration = Duration::from_millis(10);
/// Where the doubling ends.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// The role of this process after the fork.
pub(crate) enum Role {
    /// A worker with the source of its connections.
    Worker(Source),
    /// The parent, which is done, with its exit code.
    Parent(u8),
}

/// Forks the workers and manages them. Returns in each worker at once, and in the parent when all workers have ended.
///
/// # Errors
/// Fails if the system refuses a process or a descriptor.
pub(crate) fn run(knobs: &Knobs, listeners: Vec<TcpListener>, ready: impl FnOnce()) -> nix::Result<Role> {
    Parent::new(knobs, listeners)?.run(ready)
}

struct Parent {
    workers: Vec<Worker>,
    table: Table,
    connections: Connections,
    epoll: Epoll,
    signals: SignalFd,
    drain_limits: (Duration, Duration),
    drain: Option<Draining>,
}

/// The distribution of connections to the workers.
enum Connections {
    /// Each worker takes the listener at its index, or the only one. The parent closes the listener of a worker that it no
    /// longer restarts; otherwise the kernel would keep sending connections to it.
    FromKernel(Vec<Option<TcpListener>>),
    FromParent(Box<Dealer>),
}

/// The place of one worker, which a series of processes may fill.
#[derive(Default)]
struct Worker {
    process: Option<Process>,
    /// Times in a row that its process died at once, or that there was none.
    failures: u32,
    /// The place needs a process, from this time on: the last one has ended, or the fork failed.
    vacant_until: Option<Instant>,
}

struct Process {
    pid: Pid,
    channel: OwnedFd,
    since: Instant,
    is_ready: bool,
}

struct Draining {
    /// Until then the parent waits for the first bytes of silent connections.
    idle_end: Instant,
    end: Instant,
}

const SIGNALS: u64 = 0;
const LISTENER: u64 = 1;
const WORKER: u64 = 2;

impl Parent {
    fn new(knobs: &Knobs, mut listeners: Vec<TcpListener>) -> nix::Result<Self> {
        let table = Table::new(knobs.processes)?;
        let connections = match knobs.dispatch {
            Some(Dispatch::RoundRobin) => {
                Connections::FromParent(Box::new(Dealer::new(listeners.remove(0), table, knobs.limits.idle_timeout)))
            }
            _ => Connections::FromKernel(listeners.into_iter().map(Some).collect()),
        };
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD]);
        signals.thread_block()?;
        Ok(Parent {
            workers: (0..knobs.processes).map(|_| Worker::default()).collect(),
            table,
            connections,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            signals: SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
            drain_limits: (knobs.limits.drain, knobs.limits.drain_idle),
            drain: None,
        })
    }

    fn run(mut self, ready: impl FnOnce()) -> nix::Result<Role> {
        let readable = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
        self.epoll.add(&self.signals, readable(SIGNALS))?;
        if let Connections::FromParent(dealer) = &self.connections
            && let Some(listener) = dealer.listener()
        {
            self.epoll.add(listener, readable(LISTENER))?;
        }
        let mut ready = Some(ready);
        self.workers.iter_mut().for_each(|worker| worker.vacant_until = Some(Instant::now()));
        if let Some(role) = self.fill_vacant() {
            return Ok(role);
        }
        loop {
            if let Some(role) = self.turn()? {
                return Ok(role);
            }
            // A place that fails does not keep the others from being announced.
            let is_ready = self.workers.iter().all(|worker| worker.is_ready() || worker.failures > 0);
            if is_ready
                && self.workers.iter().any(Worker::is_ready)
                && let Some(ready) = ready.take()
            {
                ready();
            }
        }
    }

    /// Waits for one batch of events and handles it.
    fn turn(&mut self) -> nix::Result<Option<Role>> {
        let mut events = [EpollEvent::empty(); 64];
        let count = match self.epoll.wait(&mut events, self.timeout()) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        for event in &events[..count] {
            match (event.data(), &mut self.connections) {
                (SIGNALS, _) => {}
                (LISTENER, Connections::FromParent(dealer)) => dealer.accept(&self.epoll),
                (token, Connections::FromParent(dealer)) if token >= SILENT => dealer.first_byte(&self.epoll, token),
                (token, _) => self.listen_to(usize::try_from(token - WORKER).unwrap_or_default()),
            }
        }
        // Read after the batch: a signal may lead to a fork, and the child must not handle the parent's events.
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo.cast_signed() == Signal::SIGCHLD as i32 {
                self.reap();
            } else if self.drain.is_some() {
                self.tell_all(Signal::SIGKILL);
                return Ok(Some(Role::Parent(128 + u8::try_from(signal.ssi_signo).unwrap_or(15))));
            } else {
                self.begin_drain();
            }
        }
        if let Some(role) = self.fill_vacant() {
            return Ok(Some(role));
        }
        if self.drain.is_none() && self.workers.iter().all(Worker::has_failed) {
            return Ok(Some(Role::Parent(1)));
        }
        self.deal();
        Ok(self.continue_drain())
    }

    fn timeout(&self) -> EpollTimeout {
        let dealing = match &self.connections {
            Connections::FromParent(dealer) => dealer.timeout(),
            Connections::FromKernel(_) => None,
        };
        let now = Instant::now();
        let drain = self.drain.as_ref().map(|drain| if now < drain.idle_end { drain.idle_end } else { drain.end });
        let drain = drain.map(|at| at.saturating_duration_since(now));
        let retry = self.workers.iter().filter_map(|worker| worker.vacant_until).min();
        let retry = retry.map(|at| at.saturating_duration_since(now));
        let Some(wait) = dealing.into_iter().chain(drain).chain(retry).min() else { return EpollTimeout::NONE };
        EpollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX)
    }

    /// Forks the worker at `index`. Returns its role in the child, and `None` in the parent.
    fn spawn(&mut self, index: usize) -> nix::Result<Option<Role>> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        self.table.cells[index].reset();
        let parent = getpid();
        // SAFETY: this process has a single thread, so the child may run any code.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                self.epoll.add(&ours, EpollEvent::new(EpollFlags::EPOLLIN, WORKER + index as u64))?;
                let process = Process { pid: child, channel: ours, since: Instant::now(), is_ready: false };
                self.workers[index].process = Some(process);
                Ok(None)
            }
            ForkResult::Child => match self.become_worker(index, theirs, parent) {
                Ok(role) => Ok(Some(role)),
                Err(error) => {
                    say!("a process cannot become worker {index}: {}", error.desc());
                    // SAFETY: ends the process at once, without running what the parent has registered for its own end.
                    unsafe { libc::_exit(1) }
                }
            },
        }
    }

    fn become_worker(&mut self, index: usize, channel: OwnedFd, parent: Pid) -> nix::Result<Role> {
        // Without its parent a worker drains as if the parent had asked it to.
        set_pdeathsig(Signal::SIGTERM)?;
        if getppid() != parent {
            // The parent died before the death signal was set.
            return Err(Errno::ESRCH);
        }
        let slot = WorkerSlot::occupy(index, channel, self.table);
        let source = match &mut self.connections {
            Connections::FromParent(_) => Source::Parent(slot),
            Connections::FromKernel(listeners) => {
                let index = index.min(listeners.len().saturating_sub(1));
                Source::Listener(listeners.get_mut(index).and_then(Option::take).ok_or(Errno::EBADF)?)
            }
        };
        Ok(Role::Worker(source))
    }

    /// Reads the messages of a worker. Its state is in the table, which [`Parent::deal`] reads.
    fn listen_to(&mut self, index: usize) {
        let Some(process) = self.workers.get_mut(index).and_then(|worker| worker.process.as_mut()) else { return };
        let mut word = [0];
        while let Ok(1) = recv(process.channel.as_raw_fd(), &mut word, MsgFlags::MSG_DONTWAIT) {
            process.is_ready |= word[0] == Word::Ready as u8;
            if let Connections::FromParent(dealer) = &mut self.connections {
                dealer.heard(index);
            }
        }
    }

    fn deal(&mut self) {
        let is_past_idle = self.drain.as_ref().is_some_and(|drain| Instant::now() >= drain.idle_end);
        if let Connections::FromParent(dealer) = &mut self.connections {
            if is_past_idle {
                dealer.end_silence(&self.epoll);
            }
            let channels: Vec<_> = self.workers.iter().map(Worker::channel).collect();
            dealer.deal(&channels);
            dealer.close_silent();
        }
    }

    /// Handles workers that have ended.
    fn reap(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let Some(pid) = status.pid() else { break };
            let Some(index) = self.workers.iter().position(|worker| worker.pid() == Some(pid)) else { continue };
            self.vacate(index, &status);
        }
    }

    /// Plans the next process of a place whose process has ended.
    fn vacate(&mut self, index: usize, status: &WaitStatus) {
        if let Connections::FromParent(dealer) = &mut self.connections {
            dealer.take_back(index);
        }
        let worker = &mut self.workers[index];
        let Some(process) = worker.process.take() else { return };
        if self.drain.is_some() {
            return;
        }
        say!("worker {} ended: {}", process.pid, describe(status));
        if process.since.elapsed() < AT_ONCE {
            worker.fail();
        } else {
            (worker.failures, worker.vacant_until) = (0, Some(Instant::now()));
        }
        if worker.failures < MOST_DEATHS {
            return;
        }
        say!("worker {index} ended within {AT_ONCE:?} of its start {MOST_DEATHS} times in a row");
        // The kernel would go on to give connections to a listener of its own that nobody serves.
        if let Connections::FromKernel(listeners) = &mut self.connections
            && listeners.len() > 1
        {
            listeners[index] = None;
            worker.vacant_until = None;
        }
    }

    /// Forks the missing workers. If a fork fails, the parent retries it soon; the other workers serve meanwhile.
    fn fill_vacant(&mut self) -> Option<Role> {
        for index in 0..self.workers.len() {
            let is_due = self.workers[index].vacant_until.is_some_and(|at| Instant::now() >= at);
            if !is_due || self.drain.is_some() {
                continue;
            }
            match self.spawn(index) {
                Ok(None) => self.workers[index].vacant_until = None,
                Ok(role) => return role,
                Err(error) => {
                    say!("cannot restart worker {index}: {}; retrying", error.desc());
                    self.workers[index].fail();
                }
            }
        }
        None
    }

    fn begin_drain(&mut self) {
        let (drain, drain_idle) = self.drain_limits;
        let now = Instant::now();
        self.drain = Some(Draining { idle_end: now + drain_idle.min(drain), end: now + drain });
        match &mut self.connections {
            Connections::FromKernel(listeners) => listeners.clear(),
            Connections::FromParent(dealer) => dealer.close(&self.epoll),
        }
        // From now on they say that they close, and they end once the parent holds no connection.
        self.table.set_parent(ParentState::Draining);
        self.tell_all(Signal::SIGTERM);
    }

    fn continue_drain(&mut self) -> Option<Role> {
        let drain = self.drain.as_ref()?;
        let holds_none = match &self.connections {
            Connections::FromKernel(_) => true,
            Connections::FromParent(dealer) => dealer.is_empty(),
        };
        if Instant::now() >= drain.end {
            self.tell_all(Signal::SIGKILL);
        }
        if holds_none {
            self.table.set_parent(ParentState::Done);
        }
        self.workers.iter().all(|worker| worker.process.is_none()).then_some(Role::Parent(0))
    }

    fn tell_all(&self, signal: Signal) {
        for pid in self.workers.iter().filter_map(Worker::pid) {
            // The worker may have ended already; the parent reaps it later.
            let _ = kill(pid, signal);
        }
    }
}

impl Worker {
    /// Records a process that died at once, or a fork that failed.
    fn fail(&mut self) {
        let wait = RETRY.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST_RETRY);
        self.failures += 1;
        self.vacant_until = Some(Instant::now() + wait);
    }

    fn has_failed(&self) -> bool {
        self.process.is_none() && self.failures >= MOST_DEATHS
    }

    fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(|process| process.pid)
    }

    fn is_ready(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.is_ready)
    }

    fn channel(&self) -> Option<&OwnedFd> {
        self.process.as_ref().filter(|process| process.is_ready).map(|process| &process.channel)
    }
}

fn describe(status: &WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("signal {signal}"),
        other => format!("{other:?}"),
    }
}
