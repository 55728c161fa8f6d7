//! The loop of the driver: release what is due, wait no longer than until the next request is, take answers as they come.

use super::connection::{Connection, Want, reset_on_close};
use super::ledger::{Ledger, nanos};
use crate::console::interrupt;
use crate::load::{Live, Load, Observation, Pace, Schedule, asks_to_close};
use anyhow::bail;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use slab::Slab;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

/// How often the end of the grace time is checked, and an interrupt is noticed, in nanoseconds.
const LOOK: u64 = 5_000_000;
/// Requests released in a row before answers are read again: a lane that is faster than it can connect must not keep others from being read.
const BATCH: usize = 64;
/// Answers are read, and long requests sent, for this long at a time.
const TURN: Duration = Duration::from_millis(1);

pub(super) struct Engine<'l> {
    pub load: &'l Load,
    pub lanes: Vec<LaneState>,
    pub connections: Slab<Connection>,
    pub epoll: Epoll,
    pub due: BinaryHeap<Reverse<(u64, Due)>>,
    pub random: fastrand::Rng,
    pub buffer: Vec<u8>,
    pub ledger: Ledger,
    start: Instant,
    /// Nanoseconds of the window spent waiting awake.
    spun: u64,
    /// Since when an answer that is read now may have been there.
    pub readable_since: u64,
    /// Since when answers may have been there that the last turn left.
    left_since: Option<u64>,
}

/// A lane's connections, and its requests that wait for one.
pub(super) struct LaneState {
    pub schedule: Option<Schedule>,
    /// Kept connections by number; of a fresh open lane, one for each request under way.
    pub slots: Vec<Slot>,
    /// Slots of a fresh open lane that are free.
    pub free: Vec<usize>,
    /// Its requests ask the server to close the connection.
    pub asks_to_close: bool,
}

/// The place of one connection.
#[derive(Default)]
pub(super) struct Slot {
    pub connection: Option<usize>,
    /// Requests that wait, oldest first.
    pub waiting: VecDeque<Want>,
    /// Failed attempts to connect, or connections lost without an answer, in a row.
    pub failures: u32,
    /// A next attempt is planned.
    pub is_backing_off: bool,
    /// Requests of a closed lane so far.
    pub wanted: u64,
    /// Requests that were answered or failed, and that no other has followed yet.
    pub settled: usize,
    /// The wait before the next request, after one that was shed or failed.
    pub pause: Option<Duration>,
}

/// What is to be done at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The request with this number of an open lane.
    Request { lane: usize, number: usize },
    /// More requests of a closed lane's slot: the first ones, or the next one after a time for thought.
    Start { lane: usize, slot: usize, count: usize },
    /// Another attempt to connect.
    Retry { lane: usize, slot: usize },
}

impl<'l> Engine<'l> {
    pub fn new(load: &'l Load) -> anyhow::Result<Self> {
        let count = load.lanes.len();
        let lane = |(number, lane): (usize, &crate::load::Lane)| LaneState {
            schedule: match lane.pace {
                Pace::Open { rate, is_poisson } => Some(Schedule::new(rate, is_poisson, number, count)),
                Pace::Closed { .. } => None,
            },
            slots: (0..if lane.is_open() && lane.is_fresh { 0 } else { lane.connections }).map(|_| Slot::default()).collect(),
            free: Vec::new(),
            asks_to_close: asks_to_close(&lane.target.request),
        };
        let mut engine = Engine {
            load,
            lanes: load.lanes.iter().enumerate().map(lane).collect(),
            connections: Slab::new(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            due: BinaryHeap::new(),
            random: fastrand::Rng::with_seed(load.seed),
            buffer: vec![0; 128 * 1024],
            ledger: Ledger::new(load),
            start: Instant::now(),
            spun: 0,
            readable_since: 0,
            left_since: None,
        };
        engine.open_connections()?;
        Ok(engine)
    }

    /// Puts the load on; calls `mark` at both ends of the window.
    pub fn run(mut self, mark: &mut dyn FnMut()) -> anyhow::Result<Observation> {
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.start = Instant::now();
        self.ledger.begin(self.start);
        self.plan_first();
        let (mut load_start, mut load_end) = (None, None);
        let (mut gave_up, mut is_cut_short) = (false, false);
        loop {
            let now = self.now();
            for (edge, seen) in [(self.ledger.window.start, &mut load_start), (self.ledger.window.end, &mut load_end)] {
                if now >= edge && seen.is_none() {
                    mark();
                    *seen = Some((now, thread_time()));
                }
            }
            self.release(now)?;
            let is_ended = self.load.live.as_ref().is_some_and(Live::is_over);
            if interrupt::is_requested() || is_ended {
                if !self.load.can_be_cut_short && !is_ended {
                    bail!(interrupt::Interrupted);
                }
                is_cut_short = true;
                self.ledger.window.end = self.ledger.window.end.min(now.max(self.ledger.window.start + 1));
                break;
            }
            gave_up = self.is_limit_exceeded(now);
            if gave_up || self.is_over(now) {
                break;
            }
            self.wait(now)?;
        }
        self.count_unanswered();
        let (from, until) = (load_start.unwrap_or_default(), load_end.unwrap_or_else(|| (self.now(), thread_time())));
        let wall = until.0.saturating_sub(from.0).max(1);
        let window = self.ledger.window.clone();
        let ledger = std::mem::replace(&mut self.ledger, Ledger::new(self.load));
        Ok(Observation {
            lanes: ledger.into_recordings(),
            window_start: self.load.warmup,
            window: Duration::from_nanos(window.end - window.start),
            // A driver that saw the window begin when it was over has been busy all the time.
            driver_load: if from.0 >= window.end {
                1.0
            } else {
                nanos(until.1.saturating_sub(from.1)).saturating_sub(self.spun) as f64 / wall as f64
            },
            gave_up,
            is_cut_short,
            started: started + self.load.warmup.as_secs_f64(),
        })
    }

    pub(super) fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    fn plan_first(&mut self) {
        for (lane, one) in self.load.lanes.iter().enumerate() {
            if let Some(schedule) = self.lanes[lane].schedule {
                let first = schedule.first(&mut self.random);
                self.due.push(Reverse((first, Due::Request { lane, number: 0 })));
            } else if let Pace::Closed { depth, stagger, .. } = one.pace {
                for slot in 0..one.connections {
                    let at = nanos(stagger) * slot as u64 / one.connections as u64;
                    self.due.push(Reverse((at, Due::Start { lane, slot, count: depth })));
                }
            }
        }
    }

    /// Does what is due, a limited number of things.
    fn release(&mut self, mut now: u64) -> anyhow::Result<()> {
        for _ in 0..BATCH {
            let Some(&Reverse((at, due))) = self.due.peek() else { break };
            if at > now {
                break;
            }
            self.due.pop();
            match due {
                Due::Request { lane, number } => {
                    if let Some(schedule) = self.lanes[lane].schedule {
                        let next = schedule.next(number, at, &mut self.random);
                        self.due.push(Reverse((next, Due::Request { lane, number: number + 1 })));
                    }
                    self.release_request(lane, number, at)?;
                }
                Due::Start { lane, slot, count } if now < self.ledger.window.end => self.want_more(lane, slot, count, now)?,
                Due::Start { .. } => {}
                Due::Retry { lane, slot } => {
                    self.lanes[lane].slots[slot].is_backing_off = false;
                    self.pump(lane, slot)?;
                }
            }
            now = self.now();
        }
        Ok(())
    }

    /// Waits until the next request is due or an answer is there, and takes the answers.
    fn wait(&mut self, now: u64) -> anyhow::Result<()> {
        let next = self.due.peek().map(|Reverse((at, _))| *at);
        let until = next.unwrap_or(u64::MAX).min(self.next_look(now));
        let left = until.saturating_sub(now);
        let mut events = [EpollEvent::empty(); 256];
        let spin = nanos(self.load.spin);
        let mut has_slept = false;
        if next.is_some() && left > spin {
            // epoll's own timeout counts in milliseconds; polling its descriptor counts in nanoseconds.
            let timeout = TimeSpec::from_duration(Duration::from_nanos(left - spin));
            let mut fds = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
            has_slept = true;
            match ppoll(&mut fds, Some(timeout), None) {
                Ok(0) | Err(Errno::EINTR) => {
                    self.readable_since = self.now();
                    self.left_since = None;
                    return Ok(());
                }
                result => result.map(drop)?,
            }
        }
        let timeout = if next.is_some() { EpollTimeout::ZERO } else { EpollTimeout::try_from(left.div_ceil(1_000_000))? };
        has_slept |= next.is_none();
        let before = self.now();
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        let polled = self.now();
        if count == 0 && next.is_some() && self.ledger.window.contains(&now) {
            self.spun += polled - now;
        }
        if has_slept {
            // It came while nothing else was being done.
            self.readable_since = if next.is_some() { before } else { polled };
        }
        let left_since = self.left_since.take();
        self.readable_since = left_since.unwrap_or(self.readable_since);
        // Answers first: they are what is timed, and long requests would hold them up.
        events[..count].sort_by_key(|event| !event.events().contains(EpollFlags::EPOLLIN));
        for (number, event) in events[..count].iter().enumerate() {
            self.handle(event)?;
            // What is left is still there at the next look; requests that are due are not kept waiting for it.
            if number + 1 < count && self.now() > polled + nanos(TURN) {
                let has_answers = events[number + 1].events().contains(EpollFlags::EPOLLIN);
                self.left_since = has_answers.then(|| left_since.unwrap_or(polled));
                break;
            }
        }
        self.readable_since = polled;
        Ok(())
    }

    fn next_look(&self, now: u64) -> u64 {
        let window = &self.ledger.window;
        let edge = if now < window.start { window.start } else { window.end };
        if now < edge { edge.min(now + 20 * LOOK) } else { now + LOOK }
    }

    /// Everything that could count is known, or the time for it is up.
    fn is_over(&self, now: u64) -> bool {
        let window_end = self.ledger.window.end;
        let starts_left = || self.due.iter().any(|Reverse((at, due))| matches!(due, Due::Start { .. }) && *at < window_end);
        let has_end = self.load.lanes.iter().all(|lane| matches!(lane.pace, Pace::Closed { most: Some(_), .. }));
        if has_end && self.ledger.is_settled() && !starts_left() {
            return true;
        }
        let is_done = || self.ledger.is_settled() && self.is_recovered();
        now >= window_end && (now >= window_end + nanos(self.load.grace) || is_done())
    }

    /// No request that was planned before the last blocker's last byte still waits.
    fn is_recovered(&self) -> bool {
        let last_byte = self.ledger.last_byte_of_closed();
        !self.pending().any(|(lane, _, planned)| self.load.lanes[lane].is_open() && planned <= last_byte)
    }

    /// More than 1 % of the first lane's requests take longer than the limit, whatever still comes.
    fn is_limit_exceeded(&mut self, now: u64) -> bool {
        let Some(limit) = self.load.give_up.map(nanos) else { return false };
        let window = self.ledger.window.clone();
        if now < window.end {
            return false;
        }
        let is_overdue = |planned: u64| window.contains(&planned) && now - planned > limit;
        let overdue = self.pending().filter(|(lane, _, planned)| *lane == 0 && is_overdue(*planned)).count() as u64;
        let recording = self.ledger.recording(0);
        let slow = recording.response.len() - recording.response.count_between(0, limit) + recording.failed;
        (overdue + slow) * 100 > recording.planned
    }

    /// Every request that was released and is not answered: lane, slot, and when it was due.
    fn pending(&self) -> impl Iterator<Item = (usize, usize, u64)> + '_ {
        let flying = self.connections.iter().flat_map(|(_, connection)| {
            connection.flights.iter().map(|flight| (connection.lane, connection.slot, flight.want.planned))
        });
        let waiting = self.lanes.iter().enumerate().flat_map(|(lane, state)| {
            let slots = state.slots.iter().enumerate();
            slots.flat_map(move |(slot, one)| one.waiting.iter().map(move |want| (lane, slot, want.planned)))
        });
        flying.chain(waiting)
    }

    /// What is open at the end counts with its age, what was never released and what failed too.
    fn count_unanswered(&mut self) {
        let now = self.now();
        let pending: Vec<(usize, usize, u64)> = self.pending().collect();
        for (lane, slot, planned) in pending {
            self.ledger.unanswered(lane, slot, planned, now);
        }
        while let Some(Reverse((at, due))) = self.due.pop() {
            if at >= self.ledger.window.end.min(now) {
                break;
            }
            if let Due::Request { lane, number } = due {
                self.ledger.overslept(lane, at, now);
                if let Some(schedule) = self.lanes[lane].schedule {
                    let next = schedule.next(number, at, &mut self.random);
                    self.due.push(Reverse((next, Due::Request { lane, number: number + 1 })));
                }
            }
        }
        self.ledger.end(now);
    }

    fn handle(&mut self, event: &EpollEvent) -> anyhow::Result<()> {
        let key = usize::try_from(event.data())?;
        // An earlier event of this batch may have ended the connection.
        if !self.connections.contains(key) {
            return Ok(());
        }
        if event.events().intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP)
            && self.is_writable(key)?
        {
            return Ok(());
        }
        if event.events().intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.receive(key)?;
        }
        Ok(())
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        let busy = self.connections.iter().filter(|(_, connection)| !connection.flights.is_empty());
        busy.for_each(|(_, connection)| reset_on_close(&connection.stream));
    }
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
