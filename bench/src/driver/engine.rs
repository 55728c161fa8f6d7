//! The loop of the driver: release what is due, wait no longer than until the next is, take answers as they come.

use super::flight::{Answer, Flight, Link, look};
use super::record::Sample;
use super::{Lane, Load, Pace, Recording, Report};
use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use slab::Slab;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// How often the end of the grace time is checked, and a request to stop is noticed, in nanoseconds.
const LOOK: u64 = 5_000_000;
/// What is released later than this after the window does not count as released.
const LATE: u64 = 10_000_000;

pub(super) struct Engine<'l> {
    load: &'l Load,
    lanes: Vec<LaneState>,
    links: Slab<Link>,
    epoll: Epoll,
    due: BinaryHeap<Reverse<(u64, Due)>>,
    random: fastrand::Rng,
    buffer: Vec<u8>,
    start: Instant,
    window: std::ops::Range<u64>,
    /// Of the window's planned requests, those without an answer.
    outstanding: usize,
    /// Requests of closed lanes in flight.
    closed_in_flight: usize,
    /// Nanoseconds of the window that went into waiting awake.
    spun: u64,
}

struct LaneState {
    recording: Recording,
    /// Its kept connections.
    keys: Vec<usize>,
    is_open: bool,
}

/// What is to be done at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The request with this number of an open lane.
    Request { lane: usize, number: usize },
    /// The first requests of a connection of a closed lane, or the next ones after a time for thought.
    Start { lane: usize, number: usize },
}

impl<'l> Engine<'l> {
    pub fn new(load: &'l Load) -> anyhow::Result<Self> {
        let (warmup, window) = (nanos(load.warmup), nanos(load.window));
        let lanes = load.lanes.iter().map(|lane| LaneState {
            recording: Recording::new(),
            keys: Vec::new(),
            is_open: matches!(lane.pace, Pace::Open { .. }),
        });
        let mut engine = Engine {
            load,
            lanes: lanes.collect(),
            links: Slab::new(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            due: BinaryHeap::new(),
            random: fastrand::Rng::with_seed(load.seed),
            buffer: vec![0; 64 * 1024],
            start: Instant::now(),
            window: warmup..warmup + window,
            outstanding: 0,
            closed_in_flight: 0,
            spun: 0,
        };
        engine.open_connections()?;
        Ok(engine)
    }

    /// Opens the kept connections in a random order: which worker a connection falls to must not depend on its role.
    fn open_connections(&mut self) -> anyhow::Result<()> {
        let mut order: Vec<usize> = Vec::new();
        for (index, lane) in self.load.lanes.iter().enumerate() {
            order.extend(std::iter::repeat_n(index, if lane.is_fresh { 0 } else { lane.connections }));
        }
        self.random.shuffle(&mut order);
        for lane in order {
            let number = self.lanes[lane].keys.len();
            let address = self.load.lanes[lane].target.address;
            let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))
                .with_context(|| format!("cannot connect to {address}"))?;
            if self.load.lanes[lane].is_introduced {
                introduce(&stream, &self.load.lanes[lane].target)?;
            }
            let key = self.add(lane, number, stream)?;
            self.lanes[lane].keys.push(key);
        }
        Ok(())
    }

    fn add(&mut self, lane: usize, number: usize, stream: TcpStream) -> anyhow::Result<usize> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let link = Link {
            lane,
            number,
            stream,
            flights: VecDeque::new(),
            waiting: VecDeque::new(),
            unsent: Vec::new(),
            partial: Vec::new(),
            count: 0,
        };
        let key = self.links.insert(link);
        self.epoll.add(&self.links[key].stream, EpollEvent::new(EpollFlags::EPOLLIN, key as u64))?;
        Ok(key)
    }

    /// Puts the load on; calls `mark` at both ends of the window.
    pub fn run(mut self, mark: &mut dyn FnMut()) -> anyhow::Result<Report> {
        self.start = Instant::now();
        for (index, lane) in self.load.lanes.iter().enumerate() {
            self.plan_first(index, lane);
        }
        let (mut load_start, mut load_end) = (None, None);
        let mut gave_up;
        loop {
            let now = self.now();
            for (edge, seen) in [(self.window.start, &mut load_start), (self.window.end, &mut load_end)] {
                if now >= edge && seen.is_none() {
                    mark();
                    *seen = Some((now, thread_time()));
                }
            }
            self.release(now)?;
            if crate::console::interrupt::is_requested() {
                bail!(crate::console::interrupt::Interrupted);
            }
            gave_up = self.knows_enough(now);
            if gave_up || self.is_over(now) {
                break;
            }
            self.wait(now)?;
        }
        self.count_unanswered();
        let (from, until) = (load_start.unwrap_or_default(), load_end.unwrap_or_else(|| (self.now(), thread_time())));
        let wall = until.0.saturating_sub(from.0).max(1);
        Ok(Report {
            lanes: self.lanes.drain(..).map(|lane| lane.recording).collect(),
            window_start: self.load.warmup,
            window: self.load.window,
            driver_load: nanos(until.1.saturating_sub(from.1)).saturating_sub(self.spun) as f64 / wall as f64,
            gave_up,
        })
    }

    fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    fn plan_first(&mut self, index: usize, lane: &Lane) {
        match lane.pace {
            Pace::Open { .. } => self.due.push(Reverse((0, Due::Request { lane: index, number: 0 }))),
            Pace::Closed { stagger, .. } => {
                for number in 0..lane.connections {
                    let at = nanos(stagger) * number as u64 / lane.connections as u64;
                    self.due.push(Reverse((at, Due::Start { lane: index, number })));
                }
            }
        }
    }

    /// Sends what is due.
    fn release(&mut self, mut now: u64) -> anyhow::Result<()> {
        while let Some(&Reverse((at, due))) = self.due.peek()
            && at <= now
        {
            self.due.pop();
            match due {
                Due::Request { lane, number } => {
                    self.plan_next(lane, number, at);
                    self.release_request(lane, number, at)?;
                }
                Due::Start { lane, number } if now < self.window.end => self.start_closed(lane, number)?,
                Due::Start { .. } => {}
            }
            now = self.now();
        }
        Ok(())
    }

    fn plan_next(&mut self, lane: usize, number: usize, at: u64) {
        if let Pace::Open { rate, is_poisson } = self.load.lanes[lane].pace {
            // Even instants are counted from the start, so that rounding does not add up.
            let next = match is_poisson {
                false => ((number + 1) as f64 * 1e9 / rate) as u64,
                true => at + (-(1.0 - self.random.f64()).ln() * 1e9 / rate) as u64,
            };
            self.due.push(Reverse((next, Due::Request { lane, number: number + 1 })));
        }
    }

    fn release_request(&mut self, lane: usize, number: usize, planned: u64) -> anyhow::Result<()> {
        let is_counted = self.window.contains(&planned);
        if is_counted {
            self.outstanding += 1;
            let now = self.now();
            let recording = &mut self.lanes[lane].recording;
            recording.planned += 1;
            recording.released += u64::from(now < self.window.end + LATE);
            // On a busy connection too: that the request waits there is the server's doing, when its turn came is the driver's.
            record(&mut recording.lag, now - planned);
        }
        if self.load.lanes[lane].is_fresh {
            return match self.connect_fresh(lane, number) {
                Ok(key) => self.send_one(key, planned),
                Err(error) if self.load.lanes[lane].may_fail => {
                    self.refused(lane, number, planned, &format!("{error:#}"));
                    Ok(())
                }
                Err(error) => Err(error),
            };
        }
        let keys = &self.lanes[lane].keys;
        let number = number % keys.len();
        let key = keys[number];
        match self.links.get_mut(key).filter(|link| link.lane == lane && link.number == number) {
            Some(link) if link.flights.is_empty() => return self.send_one(key, planned),
            Some(link) => link.waiting.push_back(planned),
            None if self.load.lanes[lane].may_fail => return self.send_again(lane, number, planned),
            // Lost after the window, when nothing is opened again; what is planned from then on does not count.
            None => self.outstanding -= usize::from(is_counted),
        }
        Ok(())
    }

    /// Opens a kept connection anew that could not be, and sends on it what is due now.
    fn send_again(&mut self, lane: usize, number: usize, planned: u64) -> anyhow::Result<()> {
        match start_connect(self.load.lanes[lane].target.address) {
            Ok(stream) => {
                let key = self.add(lane, number, stream)?;
                self.lanes[lane].keys[number] = key;
                self.send_one(key, planned)
            }
            Err(error) => {
                self.refused(lane, number, planned, error.desc());
                Ok(())
            }
        }
    }

    /// A planned request that found nobody.
    fn refused(&mut self, lane: usize, number: usize, planned: u64, what: &str) {
        let now = self.now();
        let is_counted = self.window.contains(&planned);
        let connection = self.load.lanes[lane].connection(number);
        let recording = &mut self.lanes[lane].recording;
        recording.fail(what);
        if is_counted {
            self.outstanding -= 1;
            leave_unanswered(recording, (connection, false), planned, now, self.window.start);
        }
    }

    fn start_closed(&mut self, lane: usize, number: usize) -> anyhow::Result<()> {
        let Pace::Closed { depth, .. } = self.load.lanes[lane].pace else { return Ok(()) };
        let key = if self.load.lanes[lane].is_fresh { self.connect_fresh(lane, number)? } else { self.lanes[lane].keys[number] };
        self.send_closed(key, depth)
    }

    /// Starts to connect; the request goes out when the connection stands, which on loopback is at once.
    fn connect_fresh(&mut self, lane: usize, number: usize) -> anyhow::Result<usize> {
        let address = self.load.lanes[lane].target.address;
        let stream = start_connect(address).with_context(|| format!("cannot connect to {address}"))?;
        self.add(lane, number, stream)
    }

    /// Sends one planned request on a free connection.
    fn send_one(&mut self, key: usize, planned: u64) -> anyhow::Result<()> {
        let now = self.now();
        self.links[key].flights.push_back(Flight { planned, sent: now });
        self.write(key, 1)
    }

    /// Sends as many requests of a closed lane, in one write.
    fn send_closed(&mut self, key: usize, count: usize) -> anyhow::Result<()> {
        let now = self.now();
        let lane = self.links[key].lane;
        let Pace::Closed { most, .. } = self.load.lanes[lane].pace else { return Ok(()) };
        let left =
            most.map_or(usize::MAX, |most| usize::try_from(most.saturating_sub(self.links[key].count)).unwrap_or(usize::MAX));
        let count = count.min(left);
        if count == 0 {
            return Ok(());
        }
        self.closed_in_flight += count;
        self.links[key].count += count as u64;
        self.links[key].flights.extend(std::iter::repeat_n(Flight { planned: now, sent: now }, count));
        self.write(key, count)
    }

    fn write(&mut self, key: usize, count: usize) -> anyhow::Result<()> {
        let link = &mut self.links[key];
        let request = &self.load.lanes[link.lane].target.request;
        if count == 1 && link.unsent.is_empty() {
            // The usual case needs no copy.
            match link.stream.write(request) {
                Ok(written) if written == request.len() => return Ok(()),
                Ok(written) => link.unsent.extend_from_slice(&request[written..]),
                Err(error) if is_not_yet(&error) => link.unsent.extend_from_slice(request),
                Err(error) => return self.lose(key, &format!("send: {error}")),
            }
            return self.watch(key, true);
        }
        (0..count).for_each(|_| link.unsent.extend_from_slice(request));
        self.flush(key)
    }

    fn flush(&mut self, key: usize) -> anyhow::Result<()> {
        let link = &mut self.links[key];
        while !link.unsent.is_empty() {
            match link.stream.write(&link.unsent) {
                Ok(written) => drop(link.unsent.drain(..written)),
                Err(error) if is_not_yet(&error) => return self.watch(key, true),
                Err(error) => return self.lose(key, &format!("send: {error}")),
            }
        }
        Ok(())
    }

    fn watch(&mut self, key: usize, for_writing: bool) -> anyhow::Result<()> {
        let writing = if for_writing { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN | writing, key as u64);
        Ok(self.epoll.modify(&self.links[key].stream, &mut event)?)
    }

    /// Waits until the next request is due or an answer is there, and takes the answers.
    fn wait(&mut self, now: u64) -> anyhow::Result<()> {
        let next = self.due.peek().map(|Reverse((at, _))| *at);
        let until = next.unwrap_or(u64::MAX).min(self.next_look(now));
        let left = until.saturating_sub(now);
        let mut events = [EpollEvent::empty(); 256];
        let spin = nanos(self.load.spin);
        if next.is_some() && left > spin {
            // epoll's own timeout counts in milliseconds; polling its descriptor counts in nanoseconds.
            let timeout = TimeSpec::from_duration(Duration::from_nanos(left - spin));
            let mut fds = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
            match ppoll(&mut fds, Some(timeout), None) {
                Ok(0) | Err(Errno::EINTR) => return Ok(()),
                result => result.map(drop)?,
            }
        }
        let timeout = if next.is_some() { EpollTimeout::ZERO } else { EpollTimeout::try_from(left.div_ceil(1_000_000))? };
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        if count == 0 && next.is_some() && self.window.contains(&now) {
            self.spun += self.now() - now;
        }
        for event in &events[..count] {
            self.handle(event)?;
        }
        Ok(())
    }

    fn next_look(&self, now: u64) -> u64 {
        let edge = if now < self.window.start { self.window.start } else { self.window.end };
        if now < edge { edge.min(now + 20 * LOOK) } else { now + LOOK }
    }

    fn handle(&mut self, event: &EpollEvent) -> anyhow::Result<()> {
        let key = usize::try_from(event.data())?;
        // An earlier event of this batch may have ended the connection.
        if !self.links.contains(key) {
            return Ok(());
        }
        if event.events().contains(EpollFlags::EPOLLOUT) {
            self.flush(key)?;
            if self.links.get(key).is_some_and(|link| link.unsent.is_empty()) {
                self.watch(key, false)?;
            }
        }
        if event.events().intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.receive(key)?;
        }
        Ok(())
    }

    fn receive(&mut self, key: usize) -> anyhow::Result<()> {
        let Some(link) = self.links.get_mut(key) else { return Ok(()) };
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = link.stream.read(&mut buffer);
        let now = self.now();
        let outcome = match result {
            Ok(count) => self.take_bytes(key, &buffer[..count], now),
            Err(error) if is_not_yet(&error) => Ok(()),
            Err(error) => self.lose(key, &format!("receive: {error}")),
        };
        self.buffer = buffer;
        outcome
    }

    /// Takes the answers out of what came in; no bytes are the end of the connection.
    fn take_bytes(&mut self, key: usize, bytes: &[u8], now: u64) -> anyhow::Result<()> {
        let is_end = bytes.is_empty();
        let link = &mut self.links[key];
        let lane = link.lane;
        let mut joined = std::mem::take(&mut link.partial);
        let input = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        let (mut used, mut answers, mut closes) = (0, 0, false);
        while used < input.len() && !closes {
            if self.links[key].flights.is_empty() {
                return self.lose(key, "an answer that nobody asked for");
            }
            match look(&input[used..], &self.load.lanes[lane].target, is_end) {
                Answer::Complete { length, closes: last } => {
                    used += length;
                    closes = last;
                    answers += 1;
                    self.complete(key, now);
                }
                Answer::Incomplete => break,
                Answer::Wrong(what) => return self.lose(key, &what),
            }
        }
        if is_end && !closes {
            // Nothing is lost with a connection that was idle, unless servers are to keep theirs.
            let is_idle = self.links[key].flights.is_empty() && self.load.lanes[lane].may_fail;
            return if is_idle { self.replace(key, now) } else { self.lose(key, "the server closed the connection") };
        }
        self.links[key].partial.extend_from_slice(&input[used..]);
        if closes || (self.load.lanes[lane].is_fresh && self.links[key].flights.is_empty()) {
            return self.replace(key, now);
        }
        self.go_on(key, answers, now)
    }

    /// Records the oldest request in flight as answered.
    fn complete(&mut self, key: usize, now: u64) {
        let link = &mut self.links[key];
        let Some(flight) = link.flights.pop_front() else { return };
        let (number, lane) = (link.number, &mut self.lanes[link.lane]);
        let is_counted = if lane.is_open {
            let is_counted = self.window.contains(&flight.planned);
            self.outstanding -= usize::from(is_counted);
            is_counted
        } else {
            self.closed_in_flight -= 1;
            self.window.contains(&now)
        };
        let plan = &self.load.lanes[link.lane];
        let connection = plan.connection(number);
        let recording = &mut lane.recording;
        recording.last_byte = Duration::from_nanos(now);
        if matches!(plan.pace, Pace::Closed { most: Some(_), .. }) {
            recording.finished.push((number, Duration::from_nanos(now)));
        }
        if plan.keeps_samples && flight.planned >= self.window.start {
            let (planned, response) = (Duration::from_nanos(flight.planned), Duration::from_nanos(now - flight.planned));
            recording.samples.push(Sample { connection, planned, response, is_answered: true });
        }
        if is_counted {
            recording.answered += 1;
            let at = flight.planned.saturating_sub(self.window.start);
            recording.count(connection, at, now - flight.planned, true);
            record(&mut recording.service, now - flight.sent);
        }
    }

    /// Sends what the answers made room for.
    fn go_on(&mut self, key: usize, answers: usize, now: u64) -> anyhow::Result<()> {
        let lane = self.links[key].lane;
        if let Pace::Closed { think, .. } = self.load.lanes[lane].pace {
            if now < self.window.end && think.is_zero() {
                return self.send_closed(key, answers);
            }
            let number = self.links[key].number;
            self.due.push(Reverse((now + nanos(think), Due::Start { lane, number })));
            return Ok(());
        }
        if self.links[key].flights.is_empty()
            && let Some(planned) = self.links[key].waiting.pop_front()
        {
            return self.send_one(key, planned);
        }
        Ok(())
    }

    /// Ends a connection in good order, and opens the next where the lane goes on.
    fn replace(&mut self, key: usize, now: u64) -> anyhow::Result<()> {
        let link = self.remove(key);
        let lane = link.lane;
        if self.load.lanes[lane].is_fresh {
            let goes_on = !self.lanes[lane].is_open && now < self.window.end;
            return if goes_on { self.start_closed(lane, link.number + 1) } else { Ok(()) };
        }
        let stream = match start_connect(self.load.lanes[lane].target.address) {
            Ok(stream) => stream,
            Err(error) if self.load.lanes[lane].may_fail => {
                self.lanes[lane].keys[link.number] = usize::MAX;
                link.waiting.iter().for_each(|planned| self.refused(lane, link.number, *planned, error.desc()));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let new = self.add(lane, link.number, stream)?;
        self.lanes[lane].keys[link.number] = new;
        (self.links[new].waiting, self.links[new].count) = (link.waiting, link.count);
        let depth = link.flights.len() + 1;
        self.closed_in_flight -= if self.lanes[lane].is_open { 0 } else { link.flights.len() };
        self.go_on(new, depth, now)
    }

    /// A connection failed: what was in flight on it stays without an answer, and the cell loses its validity.
    fn lose(&mut self, key: usize, what: &str) -> anyhow::Result<()> {
        let link = self.remove(key);
        let is_open = self.lanes[link.lane].is_open;
        self.lanes[link.lane].recording.fail(what);
        if !is_open {
            self.closed_in_flight -= link.flights.len();
        }
        let now = self.now();
        let planned = link.flights.iter().map(|flight| flight.planned).chain(link.waiting.iter().copied());
        for planned in planned.filter(|planned| is_open && self.window.contains(planned)) {
            self.outstanding -= 1;
            let connection = self.load.lanes[link.lane].connection(link.number);
            leave_unanswered(&mut self.lanes[link.lane].recording, (connection, false), planned, now, self.window.start);
        }
        let may_fail = self.load.lanes[link.lane].may_fail;
        if self.lanes[link.lane].recording.errors > 1000 && !may_fail {
            bail!("more than 1000 requests failed; the first: {what}");
        }
        if !self.load.lanes[link.lane].is_fresh && now < self.window.end {
            match start_connect(self.load.lanes[link.lane].target.address) {
                Ok(stream) => self.lanes[link.lane].keys[link.number] = self.add(link.lane, link.number, stream)?,
                // The next request tries again.
                Err(_) if may_fail => self.lanes[link.lane].keys[link.number] = usize::MAX,
                Err(error) => bail!("{what}, and connecting again failed: {error}"),
            }
        }
        Ok(())
    }

    fn remove(&mut self, key: usize) -> Link {
        let link = self.links.remove(key);
        let _ = self.epoll.delete(&link.stream);
        reset_on_close(&link.stream);
        link
    }

    /// Everything that could count is known, or the time for it is up.
    fn is_over(&self, now: u64) -> bool {
        let has_open = self.lanes.iter().any(|lane| lane.is_open);
        let is_idle = self.outstanding == 0 && self.closed_in_flight == 0;
        let starts_left = self.due.iter().any(|Reverse((at, due))| matches!(due, Due::Start { .. }) && *at < self.window.end);
        let all_sent = self.load.lanes.iter().all(|lane| matches!(lane.pace, Pace::Closed { most: Some(_), .. }));
        if all_sent && is_idle && !has_open && !starts_left {
            return true;
        }
        now >= self.window.end && ((is_idle && self.is_recovered()) || now >= self.window.end + nanos(self.load.grace))
    }

    /// No request that was planned before the last blocker's last byte still waits.
    fn is_recovered(&self) -> bool {
        let closed = self.lanes.iter().filter(|lane| !lane.is_open);
        let last_byte = closed.map(|lane| nanos(lane.recording.last_byte)).max().unwrap_or(0);
        let waits = |link: &Link| {
            let mut planned = link.flights.iter().map(|flight| flight.planned).chain(link.waiting.iter().copied());
            self.lanes[link.lane].is_open && planned.any(|planned| planned <= last_byte)
        };
        !self.links.iter().any(|(_, link)| waits(link))
    }

    /// More than 1 % of the first lane's requests take longer than the limit, whatever still comes.
    fn knows_enough(&self, now: u64) -> bool {
        let Some(limit) = self.load.give_up.map(nanos) else { return false };
        if now < self.window.end {
            return false;
        }
        let recording = &self.lanes[0].recording;
        let waiting = self.links.iter().filter(|(_, link)| link.lane == 0);
        let waiting =
            waiting.flat_map(|(_, link)| link.flights.iter().map(|flight| flight.planned).chain(link.waiting.iter().copied()));
        let overdue = waiting.filter(|planned| self.window.contains(planned) && now - planned > limit).count() as u64;
        let slow = recording.response.len() - recording.response.count_between(0, limit);
        (overdue + slow) * 100 > recording.planned
    }

    fn count_unanswered(&mut self) {
        let now = self.now();
        for (_, link) in &self.links {
            let lane = &mut self.lanes[link.lane];
            if !lane.is_open {
                continue;
            }
            let plan = &self.load.lanes[link.lane];
            let (connection, keeps) = (plan.connection(link.number), plan.keeps_samples);
            let planned = link.flights.iter().map(|flight| flight.planned).chain(link.waiting.iter().copied());
            for planned in planned.filter(|planned| self.window.contains(planned)) {
                leave_unanswered(&mut lane.recording, (connection, keeps), planned, now, self.window.start);
            }
        }
    }
}

/// A request without an answer counts with its age.
fn leave_unanswered(
    recording: &mut Recording,
    (connection, keeps_sample): (usize, bool),
    planned: u64,
    now: u64,
    window_start: u64,
) {
    let age = now.saturating_sub(planned);
    recording.unanswered += 1;
    recording.count(connection, planned.saturating_sub(window_start), age, false);
    if keeps_sample {
        let (planned, response) = (Duration::from_nanos(planned), Duration::from_nanos(age));
        recording.samples.push(Sample { connection, planned, response, is_answered: false });
    }
}

fn record(times: &mut super::record::Times, nanoseconds: u64) {
    times.saturating_record(nanoseconds.max(1));
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

fn is_not_yet(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}

fn start_connect(address: SocketAddr) -> nix::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd.into()),
        Err(error) => Err(error),
    }
}

/// Asks once and waits for the answer.
fn introduce(mut stream: &TcpStream, target: &super::Target) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(&target.request)?;
    let mut input = Vec::new();
    loop {
        match look(&input, target, false) {
            Answer::Complete { .. } => return Ok(()),
            Answer::Wrong(what) => bail!("{what}"),
            Answer::Incomplete => {}
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).context("a new connection got no answer")? {
            0 => bail!("the server closed a new connection"),
            count => input.extend_from_slice(&piece[..count]),
        }
    }
}

/// Closing then resets, so that ports do not stay occupied for a minute; all answers are in by then.
fn reset_on_close(stream: &TcpStream) {
    let _ = setsockopt(stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 });
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        self.links.iter().for_each(|(_, link)| reset_on_close(&link.stream));
    }
}
